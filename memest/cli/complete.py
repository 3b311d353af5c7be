"""What a shell offers for a word half typed: names from the tables, and files that a model may be. Tables are read when they are asked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def models(incomplete: str) -> list[str]:
    """Built-in models, graph files, and folders on the way to one."""
    from memest.sources.models import MODELS

    return [*_beginning(MODELS, incomplete), *_files(incomplete)]


def optimizers(incomplete: str) -> list[str]:
    """Optimizers, without their options."""
    from memest.runtimes.torch.optimizers.table import OPTIMIZERS

    return _beginning(OPTIMIZERS, incomplete)


def losses(incomplete: str) -> list[str]:
    """Losses."""
    from memest.runtimes.torch.losses import LOSSES, OUTPUT

    return _beginning([*LOSSES, OUTPUT], incomplete)


def levers(incomplete: str) -> list[str]:
    """Levers, without their options."""
    from memest.levers.table import LEVERS

    return _beginning(LEVERS, incomplete)


def dtypes(incomplete: str) -> list[str]:
    """The dtypes a network can be converted to."""
    from memest.network.dtypes import FLOATING_RANK

    return _beginning(FLOATING_RANK, incomplete)


def runtimes(incomplete: str) -> list[str]:
    """What runs a network."""
    from memest.runtimes.table import RUNTIMES

    return _beginning(RUNTIMES, incomplete)


def operators(incomplete: str) -> list[str]:
    """Operators."""
    from memest.ops.table import COMPOSITES, OPERATORS

    return _beginning((*OPERATORS, *COMPOSITES), incomplete)


def machines(incomplete: str) -> list[str]:
    """The catalogue's hardware."""
    from memest.machines.reading import hardware

    return _beginning((h.name for h in hardware()), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _files(incomplete: str) -> list[str]:
    from memest.sources.opening import SUFFIXES

    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    head = incomplete[: incomplete.rfind("/") + 1]
    try:
        found = sorted(folder.iterdir()) if incomplete else []
    except OSError:
        return []
    named = [(f"{head}{path.name}", path) for path in found if f"{head}{path.name}".startswith(incomplete)]
    return [f"{name}/" if path.is_dir() else name for name, path in named if path.is_dir() or path.suffix.lower() in SUFFIXES]
