"""A forward that is recorded: its state, where in the user's code it is, and what is said of it as a whole."""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from memest.errors import GraphError, MemestError, UnsupportedError
from memest.machines.target import Target
from memest.machines.versions import nearest
from memest.network.castings import Contexts
from memest.network.graph import Casting, Input, Layer, LeafHook
from memest.network.tensor import Spec
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Ledger
from memest.runtimes.torch.step import Caller
from memest.runtimes.torch.step.run import Run
from memest.sizes.dims import Guard
from memest.sources.assumptions import Assumptions
from memest.sources.importers.torch.assuming.assumed import Assumed
from memest.sources.importers.torch.contexts.checkpoints import Checkpoints
from memest.sources.importers.torch.contexts.inner import Inner
from memest.sources.importers.torch.contexts.late import Late
from memest.sources.importers.torch.contexts.packing import Packings
from memest.sources.importers.torch.contexts.switching import Switches
from memest.sources.importers.torch.recording.repeats import Repeats
from memest.sources.importers.torch.recording.taken import Taken
from memest.sources.importers.torch.recording.trace import Trace
from memest.sources.importers.torch.refusals import explanation, line_in, told, users_line
from memest.sources.importers.torch.tensors.constants import Constants
from memest.sources.importers.torch.tensors.keeping import Kept, form_of
from memest.sources.importers.torch.tensors.live import LiveTensors
from memest.sources.importers.torch.tensors.numbers import STAND_INS, Numbers
from memest.sources.importers.torch.tensors.places import MIXED, refusal
from memest.sources.importers.torch.tensors.state import Owned


class Frame(NamedTuple):
    """A module that runs: the path of the innermost one that has one, and that module itself (None: not the network's)."""

    module: nn.Module
    path: str
    place: nn.Module | None


class Running(TorchFunctionMode):
    """A forward of ``module`` that runs.

    ``gradients`` says whether the forward runs with them (a training step) or under ``no_grad``. ``repeats`` is what is known of the
    module's calls at this size. ``standing`` are tensors that the module kept from its call before, with their sizes; ``stand_in`` is what
    numbers read from tensors are (``numbers``)."""

    def __init__(
        self,
        module: nn.Module,
        name: str,
        gradients: bool,
        repeats: Repeats,
        standing: Sequence[Kept] = (),
        stand_in: float = STAND_INS[0],
        assumptions: Assumptions | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.name = name
        self.gradients = gradients
        self.repeats = repeats
        self.asked_for_gradients = False
        self.owned = self._owned(module)
        self.paths = {id(m): path for path, m in self.owned.modules}
        self.modules = [m for _, m in self.owned.modules]
        self.stack: list[Frame] = []
        self.trace: Trace = []
        self.sizes_told = False  # whether the user's code, or other code that may go by them, was told any size
        self.taken = Taken(lambda: self.stack[-1].module if self.stack else self.module)
        self.inputs: list[Input] = []
        self.given: dict[str, Spec] = {}
        self.layers: list[Layer] = []
        self.lines: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.guards: dict[Guard, None] = {}
        self.entered: list[Any] = []
        self._bodies: dict[Any, bool] = {}
        self.asked_dtype: weakref.ref[torch.Tensor] | None = None
        self.machine = Machine(Ledger(), module.training, Target(version=nearest(torch.__version__)), remember=False)
        self.caller = Caller(self.machine, False)
        self.contexts = Contexts()
        self.checkpoint: str | None = None
        self.elsewhere = False
        self.hooks: tuple[LeafHook, ...] = ()
        self.checkpoints = Checkpoints(self)
        self.packings = Packings(self)
        self.switches = Switches()
        self.enables_grad = False
        self.inner = Inner(self, trains=gradients)
        self._to_be_recorded_anew = False
        self.failure: UnsupportedError | None = None
        self.fixed: Mapping[str, Container[int]] = {}  # dims of inputs that no other size may be asked for
        self.stops_a_card = ""
        self.impossible = False  # a row cannot be what it is asked for
        self.lasting: set[str] = set()  # tensors made in the call that stay after it as a matter of course
        self.packed: dict[int, Any] = {}  # tensors that packed weights stand for
        self.live = LiveTensors(self.machine.ledger, on_meta=self.owned.on_meta, refusal=self.refusal)
        self.constants = Constants(self)
        self.assumed = Assumed(assumptions or Assumptions(), self)
        self.numbers = Numbers(self.refusal, self._place, stand_in, self.assumed.number, self.assumed.numbers, self.assumed)
        self.forms = [form_of(t.tensor) for t in standing]
        for t in standing:
            self.live.own(t.tensor, self.live.unique("kept"), sizes=t.sizes, host=t.host, registered=False)
        self.standing = [p.name for p in self.live.parameters]

    def _owned(self, module: nn.Module) -> Owned:
        """What the module consists of."""
        return Owned(module)

    # where it is ---------------------------------------------------------------------------------------------------------

    def path(self) -> str:
        """That of the innermost module that has one."""
        return self.stack[-1].path if self.stack else ""

    def place(self) -> str:
        """Module path and line of user code."""
        return self._place()

    def _place(self, error: BaseException | None = None) -> str:
        """Module path and line of user code."""
        path = self.path() or self.name
        line = line_in(type(self)._run.__code__) if error is None else users_line(traceback.extract_tb(error.__traceback__))
        return f"{path} ({line})" if line else path

    # what is said of it --------------------------------------------------------------------------------------------------

    def refusal(self, what: str) -> UnsupportedError:
        """``what`` has no rule, and where it stands."""
        error = UnsupportedError(f"{self._place()}: no rule for {what}")
        self.failure = self.failure or error
        return error

    def _explained(self, error: BaseException) -> MemestError:
        """An exception of the module's code as ours: data-dependent control flow is named as such."""
        place, reason = self._place(error), explanation(error)
        if reason is not None:
            return UnsupportedError(f"{place}: {reason}")
        return GraphError(f"{place}: {told(error)}")

    def refuse_card(self, what: str, why: str = MIXED) -> None:
        """On a card the network stops here."""
        self.stops_a_card = self.stops_a_card or refusal(self._place(), what, why)

    def differentiates(self) -> None:
        """Something is done about gradients: this recording is held against no other call by call."""
        self.asked_for_gradients = self._to_be_recorded_anew = True

    def _flows(self) -> None:
        """A gradient flows here. Where the forward runs without them it is the first one that turns them on: nothing before it has any."""
        if not (self.gradients or self.enables_grad):
            self.enables_grad = True
            self.layers[:] = [replace(layer, grad=False) for layer in self.layers]

    @property
    def castings(self) -> tuple[Casting, ...]:
        """What contexts of autocast say here. In inference mode no cast is remembered."""
        found = self.contexts.castings
        if not found:
            return ()
        return tuple([replace(c, cache=False) for c in found]) if torch.is_inference_mode_enabled() else found

    @property
    def late(self) -> Late | None:
        """The hooks that wait for the engine: none, they are recorded as they are put on."""
        return None

    def shadow(self) -> Run | None:
        """None: nothing has played the layers of a forward."""
        return None
