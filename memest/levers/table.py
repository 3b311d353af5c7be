"""The levers by name, reading them from text, and pulling several at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from memest.errors import UnknownNameError, UsageError, one_of
from memest.levers.autocast import AUTOCAST
from memest.levers.checkpoint import CHECKPOINT
from memest.levers.freeze import FREEZE
from memest.levers.inplace import INPLACE
from memest.levers.layout import CHANNELS_LAST
from memest.levers.lever import REQUIRED, Lever
from memest.levers.micro_steps import ACCUMULATE, MICRO_BATCH
from memest.levers.parallel import DDP, FSDP, ZERO
from memest.levers.sliding_window import SLIDING_WINDOW
from memest.levers.sliding_window_inference import SLIDING_WINDOW_INFERENCE
from memest.levers.tiles import TILES
from memest.levers.weights import CLIP, EMA, OFFLOAD_OPTIMIZER
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes.torch.step.recipe import Recipe

MOST_PULLED = 256

LEVERS: dict[str, Lever] = {
    "freeze": FREEZE,
    "inplace": INPLACE,
    "channels_last": CHANNELS_LAST,
    "autocast": AUTOCAST,
    "micro_batch": MICRO_BATCH,
    "accumulate": ACCUMULATE,
    "offload_optimizer": OFFLOAD_OPTIMIZER,
    "clip": CLIP,
    "ema": EMA,
    "tiles": TILES,
    "sliding_window": SLIDING_WINDOW,
    "sliding_window_inference": SLIDING_WINDOW_INFERENCE,
    "ddp": DDP,
    "fsdp": FSDP,
    "zero": ZERO,
    "checkpoint": CHECKPOINT,  # last: its segments are runs of the layers that the others leave
}
ALIASES = {  # what people call some of them
    "activation_checkpointing": "checkpoint",
    "amp": "autocast",
    "grad_accumulation": "accumulate",
    "gradient_accumulation": "accumulate",
    "gradient_checkpointing": "checkpoint",
    "gradient_clipping": "clip",
    "mixed_precision": "autocast",
}
OTHER_WORDS = {  # what is near a lever, and its name here
    "clip_grad_norm": "clip",
    "cpu_offload": "offload_optimizer",
    "data_parallel": "ddp",
    "memory_format": "channels_last",
    "monai": "sliding_window_inference",
    "nnunet": "sliding_window",
    "windows": "sliding_window",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A lever with its options resolved; ``text`` is how it was asked for."""

    name: str
    text: str
    options: tuple[tuple[str, Any], ...]

    @property
    def lever(self) -> Lever:
        """Its row."""
        return LEVERS[self.name]

    @property
    def waits_for_shape(self) -> bool:
        """True when the input's shape decides what it does."""
        return self.lever.fit is not None and dict(self.options)[self.lever.fit_option] is not None


def lever_named(name: str) -> Lever:
    """The row called ``name``."""
    return LEVERS[lever_name(name)]


def lever_name(name: str) -> str:
    """The name of the lever that people call ``name``."""
    found = ALIASES.get(name.lower().replace("-", "_"), name)
    if found not in LEVERS:
        raise UnknownNameError(f"unknown lever {name!r}{one_of(name, LEVERS, OTHER_WORDS)}")
    return found


def setting(text: str) -> Setting:
    """The lever written as ``name`` or ``name:option=value,option=value``."""
    name, _, tail = text.partition(":")
    name = lever_name(name.strip())
    lever = LEVERS[name]
    given: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise UsageError(f"lever {name!r}: option {item!r} is not written name=value")
        if key not in lever.options:
            raise UnknownNameError(f"lever {name!r} has no option {key!r}{one_of(key, lever.options)}")
        given[key] = value
    options: list[tuple[str, Any]] = []
    for key, option in lever.options.items():
        if key in given:
            try:
                options.append((key, option.check(given[key])))
            except ValueError as e:
                raise UsageError(f"lever {name!r}, option {key!r}: {e}, got {given[key]!r}") from None
        elif option.default is REQUIRED:
            raise UsageError(f"lever {name!r} needs option {key!r}: {option.summary}")
        else:
            options.append((key, option.default))
    return Setting(name=name, text=text, options=tuple(options))


def beside(usual: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """The levers ``given`` with the ``usual`` ones before them: those of other names that none of them contradicts."""
    rows = [lever_named(text.partition(":")[0].strip()) for text in given]
    names = {name for name, lever in LEVERS.items() if any(lever is row or name in row.excludes for row in rows)}
    return (*(text for text in usual if text.partition(":")[0] not in names), *given)


def meant(texts: Sequence[str], mode: str) -> tuple[str, ...]:
    """Those of the levers written in ``texts`` that mean something in ``mode``."""
    return tuple(text for text in texts if mode in setting(text).lever.modes)


def settings(texts: Sequence[str], mode: str) -> tuple[Setting, ...]:
    """The levers of one estimate; UsageError when one is given twice, contradicts another, or means nothing in ``mode``."""
    found = tuple(setting(text) for text in texts)
    names = [s.name for s in found]
    for i, s in enumerate(found):
        if s.name in names[:i]:
            raise UsageError(f"lever {s.name!r} is given twice")
        if mode not in s.lever.modes:
            raise UsageError(f"lever {s.name!r} means nothing in mode {mode!r}; it is for {' and '.join(s.lever.modes)}")
        for other in names:
            if other in s.lever.excludes:
                raise UsageError(f"levers {s.name!r} and {other!r} contradict each other; give one of them")
    order = list(LEVERS)
    return tuple(sorted(found, key=lambda s: order.index(s.name)))


def pull(graph: Graph, recipe: Recipe, chosen: Sequence[Setting]) -> tuple[Graph, Recipe]:
    """The graph and the recipe with ``chosen`` pulled, in the order of the table. Changed graphs are remembered on ``graph``."""
    for s in chosen:
        graph, recipe = graph.memo.find("levers", (s.name, s.options, recipe), MOST_PULLED, partial(_pulled, graph, recipe, s))
    return graph, recipe


def _pulled(graph: Graph, recipe: Recipe, chosen: Setting) -> tuple[Graph, Recipe]:
    return chosen.lever.change(graph, recipe, dict(chosen.options))


def fit(graph: Graph, recipe: Recipe, chosen: Sequence[Setting], shapes: Mapping[str, Shape], sizes: Mapping[str, int]) -> Recipe:
    """The recipe with what ``chosen`` leave to the input's shape."""
    for s in chosen:
        if s.lever.fit is not None and s.waits_for_shape:
            recipe = s.lever.fit(graph, recipe, dict(s.options), shapes, sizes)
    return recipe
