"""The recipe: what is done with a network in one step, and what it is played for."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from memest.machines.target import Target
from memest.network.graph import Segment
from memest.runtimes.torch import losses, optimizers
from memest.runtimes.torch.step.autocast import Autocast
from memest.runtimes.torch.step.plan import Parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Accumulate:
    """Gradients of ``steps`` batches are summed before the optimizer steps; ``mean`` divides each loss by their number."""

    steps: int
    mean: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """The batch goes through the network in slices of ``size`` (the last may be smaller); ``mean`` divides each loss by their number."""

    size: int
    mean: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """``foreach`` is torch's keyword; None where torch chooses."""

    foreach: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """A copy of the weights (of the ``buffers`` too) follows the network's by exponential averaging."""

    buffers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Inference over windows of ``size`` that overlap by twice the ``halo``; the halo of each result is dropped."""

    size: tuple[int, ...]
    halo: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow:
    """Inference over windows of ``size``, ``step`` of it apart at most, whose predictions are added up: mirrored along each combination of
    the spatial axes ``mirror``, weighed by a ``gaussian`` map, cut out ``ahead`` of the network; ``on_device`` says where the volume and
    the sums lie."""

    size: tuple[int, ...]
    step: Fraction
    mirror: tuple[int, ...]
    gaussian: bool
    on_device: bool
    ahead: int

    def inputs_here(self, on_cuda: bool) -> bool:
        """True when the volume lies in the memory that is counted, and the sums with it."""
        return self.on_device or not on_cuda


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindowInference:
    """Inference over windows of ``roi_size`` that share ``overlap`` of it, ``sw_batch_size`` at a time, whose predictions are weighed by a
    map (``mode``; kept from call to call with ``cache_roi_weight_map``) and added up, first in slabs of ``buffer_steps`` places along
    ``buffer_dim`` (0: none). On a card ``inputs`` and ``device`` (``cuda``, ``cpu``) say where the volume lies and where sums do."""

    roi_size: tuple[int, ...]
    sw_batch_size: int
    overlap: tuple[float, ...]
    mode: str
    buffer_steps: int
    buffer_dim: int
    cache_roi_weight_map: bool
    inputs: str
    device: str

    def inputs_here(self, on_cuda: bool) -> bool:
        """True when the volume lies in the memory that is counted."""
        return self.inputs == "cuda" or not on_cuda

    def stitched_here(self, on_cuda: bool) -> bool:
        """True when the predictions are added up in the memory that is counted."""
        return self.device == "cuda" or not on_cuda


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is done with the network: one training step or one inference call, and how. ``step`` is the number of the step (1: the
    optimizer's state appears during it); None stands for any later one. With ``keep_grads`` gradients are zeroed in place between steps.
    ``clip`` scales the gradients by their common norm before the optimizer's step, ``inplace`` lets activations overwrite what nobody
    needs any more, ``offload`` keeps the optimizer's state elsewhere between steps. ``autocast`` is the context around forward (and loss),
    if any; ``parallel`` says which of several ranks' step this is. ``segments`` are the checkpointed runs of layers, in order. ``target``
    says what the step is played for."""

    training: bool
    optimizer: optimizers.Optimizer | None = None
    loss: losses.Loss | None = None
    hold_output: bool = False
    step: int | None = None
    keep_grads: bool = False
    accumulate: Accumulate | None = None
    micro_batch: MicroBatch | None = None
    clip: Clip | None = None
    average: Average | None = None
    inplace: bool = False
    offload: bool = False
    tiles: Tiles | None = None
    sliding: SlidingWindow | SlidingWindowInference | None = None
    segments: tuple[Segment, ...] = ()
    target: Target = field(default_factory=Target)
    autocast: Autocast | None = None
    parallel: Parallel | None = None
