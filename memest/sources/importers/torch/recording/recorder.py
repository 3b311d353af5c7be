"""The recorder: what a module's forward calls, written down as layers while it runs on meta tensors.

Python's own control flow runs; sizes that the module reads are ``Dim``s, so shapes stay symbolic; a tensor dies in the graph when Python
lets it die. Every recorded shape is recomputed by our own rows and must agree. What no row knows, and what the code around the calls does
that is not modelled, is an :class:`UnsupportedError` that names it, the module and the line of user code.
"""

from __future__ import annotations

import random
import sys
import traceback
import types
import weakref
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from memest.errors import GraphError, MemestError, UnsupportedError, unforeseen
from memest.machines.target import TORCH_CUDA, Target
from memest.machines.versions import nearest, release
from memest.network.castings import Contexts
from memest.network.dtypes import DIFFERENTIABLE
from memest.network.graph import Casting, Checkpoint, Graph, Input, Items, Layer, LeafHook, Reference
from memest.network.tensor import Spec
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.ops.table import operator_named
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller
from memest.runtimes.torch.step.run import Run
from memest.shown import counted
from memest.sizes.dims import Dim, Guard, expression, recording, symbol, telling
from memest.sources.assumptions import Assumptions
from memest.sources.importers.torch.assuming.assumed import Assumed
from memest.sources.importers.torch.calls.arrays import ANSWERS as ARRAY_ANSWERS
from memest.sources.importers.torch.calls.complex import check_complex
from memest.sources.importers.torch.calls.composed import BODIES
from memest.sources.importers.torch.calls.plain import WHOLE, Call, Request
from memest.sources.importers.torch.calls.queries import COUNTS_PARTS, PASSIVE, TELLS_SIZES
from memest.sources.importers.torch.calls.table import ANSWERS, CALLS
from memest.sources.importers.torch.calls.values import depends_on_values
from memest.sources.importers.torch.contexts import constructors
from memest.sources.importers.torch.contexts.checkpoints import Checkpoints
from memest.sources.importers.torch.contexts.counters import COUNT, with_counters
from memest.sources.importers.torch.contexts.custom import Handle, end_function, hook, run_forward
from memest.sources.importers.torch.contexts.inner import Inner
from memest.sources.importers.torch.contexts.leaf_hooks import hooks_on, recorded
from memest.sources.importers.torch.contexts.packing import Packings, Pair
from memest.sources.importers.torch.contexts.selecting import Calls
from memest.sources.importers.torch.contexts.watching import attention_switches, check_autograd, check_hooks, watching
from memest.sources.importers.torch.functions import full_name, name_of, on_meta, without_dispatch
from memest.sources.importers.torch.recording.executing import execute
from memest.sources.importers.torch.recording.layers import (
    count_parts,
    passed_by_backward,
    settled,
    with_ranks,
    written,
)
from memest.sources.importers.torch.recording.repeats import Form, Known, Repeats
from memest.sources.importers.torch.recording.taken import Taken
from memest.sources.importers.torch.recording.trace import Asked, Step, Trace, answered, asked, complete
from memest.sources.importers.torch.refusals import explanation, line_in, reason_against, told, users_line
from memest.sources.importers.torch.tensors.attributes import own_the_rest
from memest.sources.importers.torch.tensors.constants import Constants
from memest.sources.importers.torch.tensors.described import dtype_of, layout_of, leaves, numbers_of, spec_of, twin
from memest.sources.importers.torch.tensors.keeping import Kept, Survivors, form_of, no_collection, swap, swap_back
from memest.sources.importers.torch.tensors.live import LiveTensors, Tracked
from memest.sources.importers.torch.tensors.numbers import PRINTED, STAND_INS, Answer, Numbers, depends
from memest.sources.importers.torch.tensors.places import CARD, MIXED, asked_host, counts, place_of, refusal
from memest.sources.importers.torch.tensors.state import Owned
from memest.sources.importers.torch.tensors.values import attributes_of, of_tensor
from memest.sources.importers.torch.wrappers import stepped_through

SPATIAL = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}
GRADIENTS = (
    "_set_grad_enabled",
    "__get__:requires_grad",
    "__get__:is_leaf",
    "__get__:grad_fn",
    "requires_grad_",
)  # calls that a training step answers otherwise
CIRCLE = (
    "{} of the forward wait in a circle of Python's (a function inside it that calls itself, say) for the garbage collector: they are"
    " counted until the step is over, and what earlier steps left there comes on top"
)
DREW = "the forward draws numbers of Python's random: this is the path of one draw, and others may need more or less"
GRAPH = (
    "tensor.grad_fn in the forward of a training step (register_multi_grad_hook asks for it, too): autograd's graph is not there while it"
    " is recorded; Tensor.register_hook is modelled"
)
LIKE_ANOTHER = frozenset({"to", "to_device", "expand_as", "view_as", "reshape_as"})
"""Rows whose second tensor only says what the first becomes."""
DECIDES_SEEN = str(nn.functional.__file__)  # code of torch's that decides by sizes only as comparisons show
UNSEEN = ("torch._refs", "torch._decomp", "torch._prims", "torch._meta_registrations")


class Frame(NamedTuple):
    """A module that runs: the path of the innermost one that has one, and that module itself (None: not the network's)."""

    module: nn.Module
    path: str
    place: nn.Module | None


class Begun(NamedTuple):
    """A layer that is about to run. ``flows``: a gradient reaches what it reads."""

    name: str
    op: str
    reads: Sequence[Any]
    tensors: tuple[Reference, ...]
    grad: bool
    flows: bool


class Recorder(TorchFunctionMode):
    """Records one forward of ``module``; ``graph`` is there when :meth:`record` has returned.

    ``gradients`` says whether the forward runs with them (a training step) or under ``no_grad``. ``repeats`` is what is known of the
    module's calls at this size. ``standing`` are tensors that the module kept from its call before, with their sizes; ``stand_in`` is what
    numbers read from tensors are (``numbers``)."""

    graph: Graph
    survivors: Survivors

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
        self.owned = Owned(module)
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
        self.asked_dtype: weakref.ref[torch.Tensor] | None = None
        self.machine = Machine(Ledger(), module.training, Target(version=nearest(torch.__version__)), remember=False)
        self.caller = Caller(self.machine, False)
        self.contexts = Contexts()
        self.checkpoint: str | None = None
        self.elsewhere = False
        self.hooks: tuple[LeafHook, ...] = ()
        self.checkpoints = Checkpoints(self)
        self.packings = Packings(self)
        self.enables_grad = False
        self.inner = Inner(self, trains=gradients)
        self._to_be_recorded_anew = False
        self.failure: UnsupportedError | None = None
        self.fixed: Mapping[str, Container[int]] = {}  # dims of inputs that no other size may be asked for
        self.stops_a_card = ""
        self.impossible = False  # a row cannot be what it is asked for
        self.lasting: set[str] = set()  # tensors made in the call that stay after it as a matter of course
        self.live = LiveTensors(self.machine.ledger, on_meta=self.owned.on_meta, refusal=self.refusal)
        self.constants = Constants(self)
        self.assumed = Assumed(assumptions or Assumptions(), self)
        self.numbers = Numbers(self.refusal, self._place, stand_in, self.assumed.number, self.assumed.numbers, self.assumed)
        self.watched: Mapping[str, Answer] = {  # calls of torch that are no rows: what is done instead
            **self.numbers.answers,
            "__bool__": self.assumed.decide,
            "__index__": lambda f, a, k: self.assumed.size(a[0]) if a[0].ndim == 0 else NotImplemented,
            "_is_all_true": self._check,
            **{name: partial(self._placed, answer, self) for name, answer in {**ANSWERS, **ARRAY_ANSWERS, **constructors.ANSWERS}.items()},
            **self.inner.watched,
            "register_hook": self._hooked,
            "__contains__": self._contains,
            "numpy": self._numpy,
            "__set__:data": self._set_data,
        }
        self.forms = [form_of(t.tensor) for t in standing]
        for t in standing:
            self.live.own(t.tensor, self.live.unique("kept"), sizes=t.sizes, host=t.host)
        self.standing = [p.name for p in self.live.parameters]

    # what is there before the call ---------------------------------------------------------------------------------------

    def _add_input(self, name: str, t: torch.Tensor) -> None:
        fixed = self.fixed.get(name, ())
        dims = [n if d in fixed else self._symbolic(n, d, t.ndim, len(self.inputs)) for d, n in enumerate(t.shape)]
        self.inputs.append(Input(name=name, shape=tuple(expression(d) for d in dims), dtype=dtype_of(t), layout=layout_of(t)))
        self.given[name] = spec_of(t, tuple(dims))
        self.live.given(t, name, self.given[name])

    def _symbolic(self, size: int, d: int, ndim: int, nth: int) -> int:
        """The batch and the spatial dims get symbols; a later input shares a symbol of equal size at the same place."""
        if d == 1 or (d > 0 and ndim - 2 not in SPATIAL):
            return size
        base = "N" if d == 0 else SPATIAL[ndim - 2][d - 2]
        text = base if self.sizes.get(base, size) == size else f"{base}{nth}"
        self.sizes[text] = size
        found = symbol(text)
        return Dim(size, found)

    # the call ------------------------------------------------------------------------------------------------------------

    @no_collection()
    def record(self, inputs: Mapping[str, torch.Tensor], call: Callable[[Mapping[str, torch.Tensor]], Any]) -> None:
        """``call`` the module on meta tensors like these and write down what it does. The module's own tensors are replaced: the caller
        puts them back (``as_it_was``) where this ends by an error."""
        self.assumed.lists.update({name: known for name, t in inputs.items() if (known := numbers_of(t))})
        inputs = {name: twin(t) for name, t in inputs.items()}
        for name, t in inputs.items():
            self._add_input(name, t)
        if self.gradients:
            check_hooks(self.owned)
        self.places = swap(self.owned, self.live)
        for place in self.places:
            if not isinstance(place.original, nn.Parameter):
                self.constants.own(place.name, of_tensor(place.original))
        self.live.found_elsewhere = self._found_elsewhere
        self.found_there = {e.names[0]: e.value.storage for e in self.live.tracked.values()}
        self.drawn = random.getstate()
        result = self._run(inputs, call)
        self.constants.check_unwritten()
        self.drew = random.getstate() != self.drawn
        self.outputs = outputs = self._outputs(result)
        del result
        self.survivors = Survivors(
            self.name,
            self.live,
            self.modules,
            {i.name for i in self.inputs} | self.lasting,
            self.places,
            self.gradients,
            lambda: self._passed(outputs),
        )
        self.graph = self._finished(outputs)
        swap_back(self.places)

    def _run(self, inputs: Mapping[str, torch.Tensor], call: Callable[[Mapping[str, torch.Tensor]], Any]) -> Any:
        """What the ``call`` returns, watched."""
        try:
            through = stepped_through(self.modules)
            with watching(self, self.gradients), through as self.wrappers, self, recording(self.guards), telling(self.taken):
                self._hook_parameters()
                result = call(inputs)
        except MemestError:
            raise
        except (Exception, SystemExit, GeneratorExit) as e:
            raise (self.failure or self._explained(e)) from None
        finally:
            self.numbers.over = True
        if self.failure is not None:  # somebody caught it, and took a way that torch would not have taken
            raise self.failure
        return result

    @property
    def can_be_followed(self) -> bool:
        """Whether another run can be held against this one call by call (``elsewhere``); a run that went by assumptions, in which saved
        tensors are packed, or whose parameters have hooks is recorded once more instead."""
        return not (self._to_be_recorded_anew or self.hooks or self.assumed.asked)

    def _passed(self, outputs: Sequence[str]) -> set[str]:
        """The names that a backward passes before what is kept here is looked at."""
        return passed_by_backward(self.layers, outputs[:1])

    def _found_elsewhere(self, t: torch.Tensor, name: str) -> None:
        """A tensor that is neither an input nor registered is called ``name``: the module's attribute, or somebody else's."""
        if any(t is a for a in attributes_of(self.modules)):
            self.constants.own(name, of_tensor(t))

    def _hook_parameters(self) -> None:
        """The hooks of the network's parameters are recorded."""
        found = hooks_on(self.owned) if self.gradients else []
        for hooked in found:
            own = next(e.ref() for e in self.live.tracked.values() if e.names[0] == hooked.path)
            assert own is not None
            self.live.twins[id(hooked.parameter)] = own
            del own
        self.hooks = tuple([recorded(self, hooked) for hooked in found])

    def _outputs(self, result: Any) -> tuple[str, ...]:
        tensors = list(leaves(result))
        if not tensors:
            raise UnsupportedError(f"{self.name}: forward returns no tensor, but {type(result).__name__}")
        names = [self.live.known(t).names[-1] for t in tensors]
        inside = filter(None, map(self.live.found, leaves(result, opened=True)))
        return tuple([*names, *dict.fromkeys(e.names[-1] for e in inside if e.names[-1] not in names)])

    # what stands around the calls (see Listener) -----------------------------------------------------------------------

    def enter_module(self, module: nn.Module) -> None:
        """Its path names the layers inside."""
        path = self.paths.get(id(module))
        if path:
            self.stack.append(Frame(module, path, module))
        elif path is None:
            self.stack.append(Frame(module, type(module).__name__, None))
        else:
            self.stack.append(Frame(module, *(self.stack[-1][1:] if self.stack else ("", None))))
        if isinstance(module, torch.jit.ScriptModule):
            raise self.refusal("a compiled ScriptModule, which hides its Python code: put in the module it was made from")

    def leave_module(self, module: nn.Module) -> None:
        """Out of it, and of modules in it that ended by an exception somebody caught."""
        while self.stack and self.stack.pop().module is not module:
            pass

    def begin_checkpoint(self, arguments: Any, named: Any, call: Checkpoint, policy: Callable[..., Any] | None) -> None:
        """The layers from here on run again in backward."""
        self.asked_for_gradients = True
        if self.elsewhere:
            raise self.refusal("torch.utils.checkpoint in what runs in backward (a custom function's backward, a hook): leave it out there")
        self.checkpoints.begin(arguments, named, call, policy)

    def end_checkpoint(self) -> None:
        """Until here."""
        self.checkpoints.end()

    @property
    def castings(self) -> tuple[Casting, ...]:
        """What contexts of autocast say here. In inference mode no cast is remembered."""
        found = self.contexts.castings
        return tuple([replace(c, cache=False) for c in found]) if torch.is_inference_mode_enabled() else found

    def begin_autocast(self, device: str, dtype: str | None, cache: bool) -> None:
        """The calls from here on stand in another context."""
        self.contexts.begin(device, dtype, cache, lambda: self.live.take(f"{self.checkpoint or self.path() or self.name}.autocast"))

    def end_autocast(self) -> None:
        """Until here; with the outermost one what it cached dies."""
        scope = self.contexts.end()
        if scope is not None and self.live.drops:
            self.live.drops[-1].append(scope)

    def begin_packing(self, pair: Pair) -> None:
        """Hooks of saved tensors are in force."""
        self.asked_for_gradients = True
        self.packings.stack.append(pair)
        self._to_be_recorded_anew = True

    def end_packing(self) -> None:
        """They are no more."""
        self.packings.stack.pop()

    def apply(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """A custom autograd function: its forward as it runs, and what it does in backward where a gradient flows through it."""
        self.asked_for_gradients = True
        inputs = [t for t in arguments if isinstance(t, torch.Tensor)]
        enabled = torch.is_grad_enabled()
        needs = tuple(enabled and isinstance(t, torch.Tensor) and self.live.known(t).grad for t in arguments)
        if function is torch.utils.checkpoint.CheckpointFunction:
            return self.checkpoints.reentrant(arguments[0], arguments[1], arguments[2:], needs[2:])
        if any(needs):
            self._flows()
        applied = run_forward(function, arguments, needs)
        if any(needs):
            end_function(self, function, applied, inputs)
        return applied.result

    @contextmanager
    def apart(self) -> Iterator[list[Layer]]:
        """Calls that run at another time: their layers, and in ``live.drops`` what dies after each."""
        live, outer = self.live, (self.layers, self.live.drops, self.live.early, self.checkpoint)
        self.layers, live.drops, live.early, self.checkpoint = [], [], [], None
        inside, self.elsewhere = self.elsewhere, True
        casts = torch.is_autocast_enabled("cpu")
        torch.set_autocast_enabled("cpu", False)
        try:
            self.inner.enter(self.layers)
            with self.contexts.apart(), self.live.names_kept():
                yield self.layers
        finally:
            self.inner.leave()
            self.layers, live.drops, live.early, self.checkpoint = outer
            self.elsewhere = inside
            torch.set_autocast_enabled("cpu", casts)

    def refusal(self, what: str) -> UnsupportedError:
        """``what`` has no rule, and where it stands."""
        error = UnsupportedError(f"{self._place()}: no rule for {what}")
        self.failure = self.failure or error
        return error

    # calls ---------------------------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return self._seen(func, args, kwargs or {})
        except UnsupportedError as e:
            self.failure = self.failure or e
            raise

    def _seen(self, func: Any, args: Any, kwargs: Any) -> Any:
        if sys._getframe(2).f_globals.get("__name__", "").startswith(UNSEEN):
            raise self.refusal("a compiled function: give its Python code")  # torch takes its operators apart on meta
        name = name_of(func)
        if name in self.watched:
            answer = self.watched[name](func, args, kwargs)
            if answer is not NotImplemented:
                return answer
        if name in PASSIVE:
            return self._passive(name, func, args, kwargs)
        if name not in CALLS:
            reason = reason_against(func)
            if reason is not None:
                place = self._place()
                line = place.rpartition(" (")[2].removesuffix(")") if place.endswith(")") else "FILE.py:LINE"
                raise UnsupportedError(f"{place}: {reason.replace('FILE.py:LINE', line)}")
        if isinstance(func, types.FunctionType) and name not in WHOLE and func not in self.entered:
            return self._enter(func, args, kwargs)
        if name in BODIES:
            composed = self._composed(name, args, kwargs)
            if composed is not NotImplemented:
                return composed
        binding = CALLS.get(name)
        if binding is not None:
            return self._call(name, binding, func, args, kwargs)
        raise self.refusal(full_name(func))

    def _placed(self, answer: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What ``answer`` gives; where it refuses, with the place."""
        try:
            return answer(*args, **kwargs)
        except UnsupportedError as e:
            raise e.at(self._place()) from None

    def _composed(self, name: str, args: Any, kwargs: Any) -> Any:
        """What a call comes to that is made of others; it says itself what it has no rule for, and here, where that stands."""
        try:
            with self:
                return BODIES[name](*args, **kwargs)
        except UnsupportedError as e:
            if self.failure is not None:  # one of the others said so
                raise
            raise e.at(self._place()) from None

    def _hooked(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``t.register_hook(function)``."""
        self.asked_for_gradients = True
        with self:
            name = hook(self, args[0], args[1] if len(args) > 1 else kwargs["hook"])
        return Handle(self, name)

    def _check(self, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
        """What ``torch._check_tensor_all`` asks."""
        with self:
            return self.constants.holds(args[0].all())

    def _contains(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``x in t``, where it follows which way it goes."""
        with self:
            found = (args[0] == args[1]).any()
        return self.assumed.decide(func, (found,), kwargs)

    def _numpy(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``t.numpy()`` of what is known, to go by it."""
        found = self.constants.numbers(args[0], self._place())
        if found is None:
            return self._placed(ARRAY_ANSWERS["numpy"], self, func, args, kwargs)
        self.assumed.asked = True
        return np.array(found, dtype=dtype_of(args[0]))

    def _set_data(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``t.data = other``, where that has the memory of ``t`` (what ``t.data *= 2`` ends with)."""
        old, new = (self.live.found(t) for t in args)
        if old is None or new is None or old.value.storage is not new.value.storage or old.value.spec != new.value.spec:
            return NotImplemented
        return None

    def _enter(self, func: types.FunctionType, args: Any, kwargs: Any) -> Any:
        """Run a Python-level torch function so that the calls in it are seen (should it meet itself, that is the compiled one)."""
        what, start = asked(self.live, func, complete(args, kwargs, None))[0], len(self.trace)
        self.entered.append(func)
        try:
            with self:
                result = without_dispatch(func)(*args, **kwargs)
        finally:
            self.entered.remove(func)
        self._came_to(what, self.trace[start:], result)
        return result

    def _came_to(self, what: Asked, steps: Trace, result: Any) -> None:
        """A function of torch has run: where it came to one call and gives what that gave, the two are one."""
        step = steps[0] if len(steps) == 1 else None
        if isinstance(step, Step) and step.layer is not None and isinstance(result, torch.Tensor) and what.of_known:
            entry = self.live.found(result)
            if entry is not None and (entry.names[-1],) == step.layer.outputs:
                self.trace[-1] = step._replace(outer=what)

    def _passive(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        answer = PASSIVE[name]
        if name in TELLS_SIZES and sys._getframe(3).f_code.co_filename != DECIDES_SEEN:
            self.sizes_told = True
        if name == "__get__:device" and not self.live.known(args[0]).host:
            return CARD
        if name == "__get__:dtype":
            self.asked_dtype = weakref.ref(args[0])
        if name in GRADIENTS:
            return self._gradients(name, func, args)
        if answer is None:
            return func(*args, **kwargs)
        found = answer(self.live.known(args[0]).value.spec, args[1:], kwargs, func)
        if name == "__len__" and isinstance(found, Dim):
            self.taken(found)
        elif name == "stride":
            with recording(None):
                theirs = func(*args, **kwargs)
                return found if found == theirs else theirs
        return found

    def _gradients(self, name: str, func: Any, args: Any) -> Any:
        """What is asked or said about gradients, as a step would answer."""
        self.asked_for_gradients = True
        if name == "_set_grad_enabled":
            return func(*args)
        entry = self.live.known(args[0])
        if name == "__get__:requires_grad":
            return entry.grad
        if name in ("__get__:is_leaf", "__get__:grad_fn"):
            computed = entry.grad and not any(p.name == entry.names[0] for p in self.live.parameters)
            if name == "__get__:is_leaf":
                return not computed
            if computed and self.gradients:
                raise self.refusal(GRAPH)
            return None
        return NotImplemented

    def besides(self, name: str) -> Any:
        """What a call of this name goes by, beside its arguments."""
        asked = None if self.asked_dtype is None else self.asked_dtype()
        besides: Any = (asked, attention_switches()) if "attention" in name else asked
        if self.contexts.casts_to is not None:
            besides = (besides, self.contexts.casts_to)
        return (besides, "numbers were read") if self.numbers.read else besides

    def _call(self, name: str, binding: Call, func: Any, args: Any, kwargs: Any) -> Any:
        apart = counts(name, args, kwargs, self.live)
        whole = complete(args, kwargs, self.besides(name))
        plain = not (apart or depends_on_values(name, args) or self.checkpoints.policy is not None)
        form = None if not plain else self.repeats.form(self.live, func, binding, whole, len(args))
        what, tensors = asked(self.live, func, whole, form)
        written = len(self.layers)
        produced = self._answered(name, binding, form, func, args, kwargs, apart)
        layer = self.layers[-1] if len(self.layers) > written else None
        self.trace.append(Step(what) if layer is None else answered(self.live, what, tensors, layer, produced))
        return produced

    def _answered(self, name: str, binding: Call, form: Form | None, func: Any, args: Any, kwargs: Any, apart: bool) -> Any:
        """What the call gives; a layer is written down where it is one."""
        known = self.repeats.known(form, self.module.training)
        if form is not None and known is not None:
            self.asked_dtype = None
            self.guards.update(known.guards)
            check_autograd(self, self.gradients, self.contexts.casts_to is not None)
            return self._repeated(known, form)
        guards: dict[Guard, None] = {}
        request = self._request(func, binding, args, kwargs, guards)
        if request is None:
            return func(*args, **kwargs)
        check_autograd(self, self.gradients, self.contexts.casts_to is not None)
        host = apart and self._on_host(name, request, args, kwargs)
        return self._layer(request, form, guards, func, args if request.args is None else request.args, kwargs, host)

    def _on_host(self, name: str, request: Request, args: Any, kwargs: Any) -> bool:
        """Whether the results of a call lie on the host when the network runs on a card; what it moves is written into the request."""
        reads = [self.live.known(t) for t in leaves(request.tensors)]
        flows = torch.is_grad_enabled() and bool(reads) and reads[0].grad
        if request.op == "getitem" and not reads[0].host and any(e.host for e in reads[1:]):
            if not all(e.host for e in reads[1:]):
                self.refuse_card("index tensors on the card and on the host")
            request.attributes["host"] = True
            return False
        with recording(None):
            found = place_of(name, request.op, reads, asked_host(name, args, kwargs, self.live))
        if found.refused:
            self.refuse_card(found.refused)
        copies = request.op == "copy_"
        if found.moves and copies and flows and not reads[1].grad and reads[0].value.spec == reads[1].value.spec:
            return found.host  # nothing but the bytes go across, and zeros come back
        if found.moves:
            if flows or (copies and torch.is_grad_enabled() and reads[1].grad):
                self.refuse_card("a gradient that flows through the host")
            request.op, request.tensors = ("copy_across_", request.tensors) if copies else ("to_device", [*request.tensors, None][:2])
            device = "host" if found.host else "card"
            request.attributes |= {"device": device, "non_blocking": kwargs.get("non_blocking") is True}
        return found.host

    def shadow(self) -> Run | None:
        """None: nothing has played the layers of a forward."""
        return None

    def differentiates(self) -> None:
        """Something is done about gradients: this recording is held against no other call by call."""
        self.asked_for_gradients = self._to_be_recorded_anew = True

    def refuse_card(self, what: str, why: str = MIXED) -> None:
        """On a card the network stops here."""
        self.stops_a_card = self.stops_a_card or refusal(self._place(), what, why)

    def _request(self, func: Any, binding: Call, args: Any, kwargs: Any, guards: dict[Guard, None]) -> Request | None:
        """The row to record; the sizes that are compared for that go to ``guards``."""
        try:
            with recording(guards):
                made = binding(name_of(func), args, kwargs, self)
            check_complex(made)
            return made
        except MemestError as e:
            raise e.at(self._place()) from None
        except LookupError:  # an argument that the row needs, and this form of the call does without
            reason = reason_against(func)
            raise UnsupportedError(f"{self._place()}: {reason or f'no rule for this form of {full_name(func)}'}") from None
        finally:
            self.asked_dtype = None
            self.guards.update(guards)

    def source_of(self, dtype: Any) -> torch.Tensor | None:
        """The tensor that gave its dtype to the call being recorded: the last one asked for it since the call before."""
        asked = self.asked_dtype() if self.asked_dtype is not None else None
        return asked if asked is not None and asked.dtype == dtype and self.live.found(asked) is not None else None

    def _layer(self, request: Request, form: Form | None, guards: dict[Guard, None], func: Any, args: Any, kwargs: Any, host: bool) -> Any:
        """Run the row on the symbolic values and the call itself on meta, compare, write the layer."""
        op = request.op
        reads = [self._bound(t) for t in request.tensors]
        layer = self._begun(op, reads)
        row = operator_named(op)
        policy, casting = self.checkpoints.policy, self.contexts.casts_to is not None
        if policy is not None and torch.is_inference_mode_enabled():
            raise self.refusal("torch.inference_mode inside a selective checkpoint (context_fn): take torch.no_grad there")
        self.machine.selection = ran = None if policy is None else Calls()
        self.machine.target = replace(self.machine.target, dispatched=policy is not None)
        for e in () if policy is None else _flat(reads):  # products are folded where a gradient is wanted
            e.value.requires_grad = layer.flows and e.grad
        around = nullcontext() if policy is None else policy.watching()
        with recording(None):
            values = self._by_rule(row, reads, request, func, args, kwargs)
            self.live.drops.append([])
            produced, answer = self.repeats.answer(
                form, row, self.live, lambda: execute(self.live, request, func, args, kwargs, values, casting, around)
            )
            tensors = _tensors(produced)
            agreed = self._agreed(tensors, values, row)
        with recording(guards):
            attributes = written(row, request.attributes, self.module.training)
            count_parts(op, reads, request.attributes, len(tensors))
        self.guards.update(guards)
        self.sizes_told |= op in COUNTS_PARTS
        differentiable = isinstance(row, Composite) or row.backward is not None
        mode = self.module.training if any(a.name == "training" for a in row.attributes) else None
        self.repeats.learn(form, answer, row, reads, agreed, attributes=attributes, differentiable=differentiable, guards=guards, mode=mode)
        self._written(layer, attributes, tensors, agreed, differentiable)
        if policy is not None and ran is not None:
            self.layers[-1] = replace(self.layers[-1], selected=policy.chosen(ran.names))
        for t in tensors:
            self.live.place(self.live.known(t), host)
        return produced

    def _repeated(self, known: Known, form: Form) -> Any:
        """The same for a call of which it is known what it comes to."""
        layer = self._begun(known.row.name, known.reads(form.entries))
        self.sizes_told |= known.row.name in COUNTS_PARTS
        self.live.drops.append([])
        produced = known.answer.again(form.tensors)
        self._written(layer, known.attributes, _tensors(produced), known.values(form.entries), known.differentiable)
        return produced

    def _begun(self, op: str, reads: Sequence[Any]) -> Begun:
        """What is said of a layer before it runs."""
        name = self.live.take(self._layer_name(op, reads[0] if reads else None))
        grad_enabled = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        flows = grad_enabled and any(e.grad for e in _flat(reads[:1] if op in LIKE_ANOTHER else reads))
        if flows:
            self._flows()
        if flows and any(e.inference for e in _flat(reads)) and getattr(operator_named(op), "saves", None) != ():
            raise self.refusal("an inference tensor that is kept for backward: clone() it outside of torch.inference_mode()")
        said = grad_enabled or not (self.gradients or self.enables_grad)
        return Begun(name, op, reads, tuple([_names(e) for e in reads]), said, flows)

    def _flows(self) -> None:
        """A gradient flows here. Where the forward runs without them it is the first one that turns them on: nothing before it has any."""
        if not (self.gradients or self.enables_grad):
            self.enables_grad = True
            self.layers[:] = [replace(layer, grad=False) for layer in self.layers]

    def _written(
        self, layer: Begun, attributes: Items, tensors: Sequence[torch.Tensor], values: Sequence[Value], differentiable: bool
    ) -> None:
        """Name the outputs, and write the layer down."""
        packed = self.packings.of_call(operator_named(layer.op), layer.reads, attributes, self.module.training) if layer.flows else ()
        outputs = self._adopt(layer.name, tensors, values, layer.flows and differentiable)
        self.assumed.noticed(outputs, values)
        self._note_line(layer.name)
        self.layers.append(
            Layer(
                name=layer.name,
                op=layer.op,
                tensors=layer.tensors,
                attributes=attributes,
                outputs=outputs,
                grad=layer.grad,
                checkpoint=self.checkpoint,
                autocast=self.castings,
                packing=packed,
            )
        )

    def _by_rule(
        self, row: Operator | Composite, entries: list[Any], request: Request, func: Any, args: Any, kwargs: Any
    ) -> list[Value | None]:
        """What our own row gives for the call, with symbolic sizes."""
        try:
            attributes = row.canonical(request.attributes)
            flags = {k: self.module.training if k == "training" and v is None else v for k, v in attributes.items()}
            with self.caller.inside(self.castings):
                return self.caller.run(row, [_values(e) for e in entries], tuple(flags.items()))
        except MemestError as e:
            if depends(request.attributes):
                raise self.refusal(self.numbers.undecided) from None
            self.impossible = True
            raise e.at(f"{self._place()}: {request.op}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as e:
            func(*args, **on_meta(func, kwargs))  # torch, which takes no such tensors either, says why
            raise unforeseen(e).at(f"{self._place()}: {request.op}") from e

    def _agreed(self, tensors: Sequence[torch.Tensor], values: Sequence[Value | None], row: Operator | Composite) -> list[Value]:
        """The values of the tensors that the call gives; each must have the shape our row says."""
        agreed: list[Value] = []
        for i, t in enumerate(tensors):
            value = values[i] if i < len(values) else None
            if value is None or tuple(t.shape) != value.spec.shape or dtype_of(t) != value.spec.dtype:
                ours = "nothing" if value is None else f"{list(value.spec.shape)} {value.spec.dtype}"
                theirs = f"{list(t.shape)} {dtype_of(t)}"
                raise GraphError(f"{self._place()}: torch gives {row.name} the shape {theirs}, memest's rule {ours}; please report it")
            agreed.append(value)
        return agreed

    def add(self, layer: Layer) -> None:
        """Write a layer down that no call of torch stands for."""
        self.live.drops.append([])
        self.layers.append(layer)
        self.trace.append(layer)
        self._note_line(layer.name)

    def _adopt(self, name: str, tensors: Sequence[torch.Tensor], values: Sequence[Value], flows: bool) -> tuple[str, ...]:
        """Names for the outputs. ``flows``: a gradient reaches them."""
        names = (name,) if len(tensors) == 1 else tuple([f"{name}.{i}" for i in range(len(tensors))])
        for t, value, out in zip(tensors, values, names, strict=True):
            entry = self.live.found(t)
            if entry is not None:
                self.live.again(entry, out, value, flows)
            else:
                known = torch.is_inference_mode_enabled()
                self.live.follow(t, out, value, flows and value.spec.dtype in DIFFERENTIABLE, inference=known)
        return names

    def _bound(self, t: Any) -> Any:
        if t is None:
            return None
        if isinstance(t, torch.Tensor):
            return self.live.known(t)
        return [self.live.known(u) for u in t]

    def _layer_name(self, op: str, first: Any) -> str:
        """The module's path when the module is that operator, else the path with the operator's name."""
        path = self.path()
        if not path:
            return op
        if isinstance(first, Tracked) and first.names[0].endswith("num_batches_tracked"):
            return f"{path}.{COUNT}"
        return path if not self.live.taken(path) and self._in_leaf(path) else f"{path}.{op}"

    def _in_leaf(self, path: str) -> bool:
        """Whether the innermost module that has a path has no modules in it."""
        place = self.stack[-1].place
        try:
            found = self.module.get_submodule(path) if place is None else place
        except AttributeError:
            return False
        return all(m is None for m in found._modules.values())

    # the end -------------------------------------------------------------------------------------------------------------

    def _finished(self, outputs: tuple[str, ...]) -> Graph:
        """The graph, now that only what survives the forward is alive."""
        own_the_rest([(self.paths.get(id(m), ""), m) for m in self.modules], self.owned, self.live)
        live, own = self.live, {p.name for p in self.live.parameters}
        mortal = {n for names in live.drops for n in names if n in own}
        again = next((n for layer, names in zip(self.layers, live.drops, strict=True) if layer.checkpoint for n in names if n in own), None)
        if again is not None:
            raise UnsupportedError(f"{self.name}: {again!r} is exchanged inside a checkpoint, so once more in backward: not modelled")
        permanent = own - mortal | {i.name for i in self.inputs} | self.survivors.names | self.lasting | {*self.survivors.waiting}
        return Graph(
            name=self.name,
            inputs=tuple(self.inputs),
            parameters=tuple(p for p in live.parameters if p.name not in live.early),
            layers=tuple(settled(with_counters(with_ranks(self.layers, self._synced()), live.drops, own), outputs, permanent, mortal)),
            outputs=outputs,
            guards=tuple(self.guards),
            torch=release(torch.__version__),
            on_host=tuple(live.on_host),
            refused=((TORCH_CUDA, self.stops_a_card),) if self.stops_a_card else (),
            examples=tuple(self.sizes.items()),
            checkpoints=tuple(self.checkpoints.found.items()),
            hooks=self.hooks,
            enables_grad=self.enables_grad,
            waiting=self.survivors.waiting,
            lines=tuple(self.lines.items()),
            notes=(
                *self.wrappers,
                *self.assumed.notes,
                *self.constants.notes,
                *[DREW] * self.drew,
                *self._circles(),
                *[PRINTED] * self.numbers.printed,
            ),
        )

    def _synced(self) -> list[str]:
        """The paths of batch norms whose statistics are those of all ranks."""
        return [path for path, m in self.module.named_modules(remove_duplicate=False) if isinstance(m, torch.nn.SyncBatchNorm)]

    def _circles(self) -> list[str]:
        """A note where tensors wait for the garbage collector."""
        return [CIRCLE.format(counted(len(self.survivors.waiting), "tensor"))] * bool(self.survivors.waiting)

    def _explained(self, error: BaseException) -> MemestError:
        """An exception of the module's code as ours: data-dependent control flow is named as such."""
        place, reason = self._place(error), explanation(error)
        if reason is not None:
            return UnsupportedError(f"{place}: {reason}")
        return GraphError(f"{place}: {told(error)}")

    def path(self) -> str:
        """That of the innermost module that has one."""
        return self.stack[-1].path if self.stack else ""

    def place(self) -> str:
        """Module path and line of user code."""
        return self._place()

    def _note_line(self, layer: str) -> None:
        """Which line of the forward's own code a layer comes from, for what backward has to say of it."""
        if self.gradients:
            line = line_in(Recorder._run.__code__)
            if line:
                self.lines[layer] = line

    def _place(self, error: BaseException | None = None) -> str:
        """Module path and line of user code."""
        path = self.path() or self.name
        frames = traceback.extract_tb(error.__traceback__) if error is not None else traceback.extract_stack(sys._getframe(1), limit=100)
        line = users_line(frames)
        return f"{path} ({line})" if line else path


# helpers -----------------------------------------------------------------------------------------------------------------


def _tensors(produced: Any) -> list[torch.Tensor]:
    """What a call gives, flat."""
    results = produced if isinstance(produced, tuple | list) else (produced,)
    return [r for r in results if isinstance(r, torch.Tensor)]


def _flat(entries: Sequence[Any]) -> Iterator[Tracked]:
    for e in entries:
        if isinstance(e, list):
            yield from e
        elif e is not None:
            yield e


def _values(entry: Any) -> Any:
    if entry is None:
        return None
    return [e.value for e in entry] if isinstance(entry, list) else entry.value


def _names(entry: Any) -> Any:
    if entry is None:
        return None
    return tuple(e.names[-1] for e in entry) if isinstance(entry, list) else entry.names[-1]
