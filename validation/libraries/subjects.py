"""One network of a library: how it is made and called, and what one training step of it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module

from memest.cli.inputs import parse_inputs

LIBRARIES = {  # of each catalogue: the library's name on a package index
    "timm": "timm",
    "smp": "segmentation_models_pytorch",
    "monai": "monai",
    "transformers": "transformers",
}
OPTIMIZERS = ("sgd:momentum=0.9", "adam")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network. ``model`` is ``package.module:callable(arguments)``; ``inputs`` are its arguments in order (``2x3x64x64``, ``2x8xint64``);
    the loss takes its first output. ``assume`` states what depends on values, as ``from_torch`` takes it."""

    library: str
    name: str
    model: str
    inputs: tuple[str, ...]
    loss: str = "cross_entropy"
    optimizer: str = OPTIMIZERS[0]
    assume: tuple[tuple[str, int | bool], ...] = ()

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the inputs, in order."""
        return list(parse_inputs(self.inputs).values())

    @property
    def digest(self) -> str:
        """Of everything that a result depends on."""
        told = asdict(self)
        if not self.assume:
            del told["assume"]
        return hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()[:8]


def subjects(library: str) -> Iterator[Subject]:
    """The catalogue of one library; networks take turns with the optimizers."""
    catalogue: Mapping[str, Subject] = import_module(f"validation.libraries.of_{library}").SUBJECTS
    yield from catalogue.values()
