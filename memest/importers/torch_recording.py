"""The recorder: what a module's forward calls, written down as layers while it runs on meta tensors.

Python's own control flow runs; sizes that the module reads are ``Dim``s, so shapes stay symbolic; a tensor dies in the graph when Python
lets it die. Every recorded shape is recomputed by our own rows and must agree. What no row knows, and what the code around the calls does
that is not modelled, is an :class:`UnsupportedError` that names it, the module and the line of user code.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
import types
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import memest
from memest.autograd import Machine
from memest.dims import Dim, Guard, contains_dim, expression, recording, symbol
from memest.dtypes import FLOATING
from memest.errors import GraphError, MemestError, UnsupportedError, unforeseen
from memest.graph import Graph, Input, Layer, Parameter, attribute_items
from memest.importers.torch_calls import CALLS, PASSIVE, WHOLE, Call, Request
from memest.importers.torch_contexts import check_autograd, run_forward, watching
from memest.importers.torch_functions import full_name, name_of, on_meta, without_dispatch
from memest.importers.torch_layers import COUNT, default_of, settled, tidy, with_counters, with_drops, written_as
from memest.importers.torch_refusals import explanation, function_refused, reason_against
from memest.importers.torch_state import owned_tensors
from memest.ledger import Ledger, Value
from memest.libraries.cpu import Cpu
from memest.libraries.versions import nearest, release
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.tensor import Shape, Spec, channels_last_strides, contiguous_strides, nbytes
from memest.timeline import Caller, operator_named

SPATIAL = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}
GRADIENTS = ("_set_grad_enabled", "__get__:requires_grad", "requires_grad_")  # calls that a training step answers otherwise
UNSEEN = ("torch._refs", "torch._decomp", "torch._prims", "torch._meta_registrations")
MAY_COPY = ("to", "contiguous")  # calls that give back their input where it is already as they make it


class _Tracked:
    """What the recorder knows of a live tensor: its names in the graph, its metadata with symbolic dims, and whether a step that trains
    would have it require a gradient."""

    __slots__ = ("grad", "names", "ref", "value")

    def __init__(self, name: str, value: Value, ref: weakref.ref[torch.Tensor], grad: bool) -> None:
        self.names = [name]
        self.value = value
        self.ref = ref
        self.grad = grad


class _Place(NamedTuple):
    """Where a module registers a tensor: its table of parameters or buffers, the key, what stands there and its name in the graph."""

    table: dict[str, Any]
    key: str
    original: torch.Tensor
    name: str


class Recorder(TorchFunctionMode):
    """Records one forward of ``module``; ``graph`` is there when :meth:`record` has returned.

    ``gradients`` says whether the forward runs with them (a training step) or under ``no_grad``. ``standing`` are tensors that the module
    kept from its call before."""

    graph: Graph

    def __init__(self, module: nn.Module, name: str, gradients: bool, standing: Sequence[torch.Tensor] = ()) -> None:
        super().__init__()
        self.module = module
        self.name = name
        self.gradients = gradients
        self.asked_for_gradients = False
        self.paths = {id(m): path for path, m in module.named_modules()}
        self.stack: list[tuple[str, nn.Module]] = []
        self.inputs: list[Input] = []
        self.parameters: list[Parameter] = []
        self.layers: list[Layer] = []
        self.drops: list[list[str]] = []
        self.gone_early: list[str] = []
        self.tracked: dict[int, _Tracked] = {}
        self.used: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.guards: dict[Guard, None] = {}
        self.entered: list[Any] = []
        self.asked_dtype: weakref.ref[torch.Tensor] | None = None
        self.machine = Machine(Ledger(), module.training, Cpu(), nearest(torch.__version__), remember=False)
        self.caller = Caller(self.machine, False)
        self.on_meta = any(t.is_meta for _, t in owned_tensors(module))
        self.checkpoint: str | None = None
        self.checkpointed: tuple[int, list[torch.Tensor]] = (0, [])
        self.standing = [self._stand(t) for t in standing]
        self.failure: UnsupportedError | None = None
        self.survivors: list[torch.Tensor] = []
        self.registered: set[int] = set()

    # what is there before the call ---------------------------------------------------------------------------------------

    def _add_input(self, name: str, t: torch.Tensor) -> None:
        dims = [self._symbolic(n, d, t.ndim, len(self.inputs)) for d, n in enumerate(t.shape)]
        self.inputs.append(Input(name=name, shape=tuple(expression(d) for d in dims), dtype=_dtype(t), layout=_layout(t)))
        self._track(t, name, _spec(t, tuple(dims)))

    def _symbolic(self, size: int, d: int, ndim: int, nth: int) -> int:
        """The batch and the spatial dims get symbols; a later input shares a symbol of equal size at the same place."""
        if d == 1 or (d > 0 and ndim - 2 not in SPATIAL):
            return size
        base = "N" if d == 0 else SPATIAL[ndim - 2][d - 2]
        text = base if self.sizes.get(base, size) == size else f"{base}{nth}"
        self.sizes[text] = size
        found = symbol(text)
        return Dim(size, found)

    def _swap_parameters(self) -> list[_Place]:
        """Meta twins in the place of all parameters and buffers; nobody else holds them."""
        twins: dict[int, tuple[str, torch.Tensor]] = {}
        for path, p in owned_tensors(self.module):
            if isinstance(p, nn.parameter.UninitializedTensorMixin):
                raise UnsupportedError(f"parameter {path!r} is not initialized (a lazy module); call the module once first")
            twin = _twin(p)
            twins[id(p)] = path, twin
            is_buffer = not isinstance(p, nn.Parameter)
            self.parameters.append(
                Parameter(name=path, shape=tuple(p.shape), dtype=_dtype(p), trainable=p.requires_grad, buffer=is_buffer, layout=_layout(p))
            )
            self._track(twin, path, _spec(twin, tuple(p.shape)), grad=p.requires_grad)
        tables = (table for m in self.module.modules() for table in (m._parameters, m._buffers))
        places = [_Place(t, key, p, twins[id(p)][0]) for t in tables for key, p in t.items() if p is not None]
        for place in places:
            place.table[place.key] = twins[id(place.original)][1]
        return places

    def _stand(self, t: torch.Tensor) -> str:
        """A tensor that the module kept from its call before, as a buffer of the network."""
        name = self._unique("kept")
        self.parameters.append(Parameter(name=name, shape=tuple(t.shape), dtype=_dtype(t), trainable=False, buffer=True))
        self._track(t, name, _spec(t, tuple(t.shape)))
        return name

    # the call ------------------------------------------------------------------------------------------------------------

    def record(self, positional: Sequence[torch.Tensor], keywords: Mapping[str, torch.Tensor]) -> None:
        """Call the module on these meta tensors and write down what it does. The module's own tensors are replaced: the caller puts them
        back (``as_it_was``) where this ends by an error."""
        inputs = [_twin(t) for t in positional]
        named = {k: _twin(t) for k, t in keywords.items()}
        for i, t in enumerate(inputs):
            self._add_input(f"input{i}" if i else "input", t)
        for k, t in named.items():
            self._add_input(k, t)
        places = self._swap_parameters()
        try:
            with watching(self, self.gradients), self, recording(self.guards):
                result = self.module(*inputs, **named)
        except MemestError:
            raise
        except Exception as e:
            raise (self.failure or self._explained(e)) from None
        if self.failure is not None:  # somebody caught it, and took a way that torch would not have taken
            raise self.failure
        outputs = self._outputs(result)
        del result
        self._find_survivors(places)
        self.graph = self._finished(outputs)
        for place in places:
            place.table[place.key] = place.original

    def _outputs(self, result: Any) -> tuple[str, ...]:
        tensors = list(_leaves(result))
        if not tensors:
            raise UnsupportedError(f"{self.name}: forward returns no tensor, but {type(result).__name__}")
        return tuple(self.known(t).names[-1] for t in tensors)

    def _find_survivors(self, places: Sequence[_Place]) -> None:
        """The tensors made in the forward that the module, or whoever listens to it, still holds."""
        own = {*(i.name for i in self.inputs), *(p.name for p in self.parameters)}
        if all(entry.names[0] in own for entry in self.tracked.values()) and len(self.tracked) == len(own):
            return
        gc.collect()
        for place in places:
            self._check_place(place)
        self.registered = {id(place.table[place.key]) for place in places}
        for entry in list(self.tracked.values()):
            t = entry.ref()
            if t is not None and entry.names[0] not in own:
                self._check_survivor(entry)
                self.survivors.append(t)

    def _check_place(self, place: _Place) -> None:
        """Refuse a registered tensor that the forward takes away or exchanges for one of another form."""
        now = place.table.get(place.key)
        if not isinstance(now, torch.Tensor) or now.shape != place.original.shape or now.dtype != place.original.dtype:
            raise UnsupportedError(
                f"{self.name}: forward exchanges {place.name!r} for something of another shape or dtype, so that no step is like the next"
            )

    def _check_survivor(self, entry: _Tracked) -> None:
        """Refuse what is kept in a way that no step is steady under, or whose size is not known between steps."""
        name, spec = entry.names[0], entry.value.spec
        what = f"the result of {name!r} is kept after the forward (by an attribute, a hook or a list)"
        if entry.grad and self.gradients:
            raise UnsupportedError(f"{self.name}: {what}, and its autograd graph with it; keep a detached one, or nothing")
        if contains_dim(tuple(spec.shape)):
            raise UnsupportedError(f"{self.name}: {what}, and its size depends on the input's: not modelled; do not keep it")
        others = (e for e in self.tracked.values() if e is not entry)
        if entry.value.storage.nbytes != nbytes(spec.shape, spec.dtype) or any(e.value.storage is entry.value.storage for e in others):
            raise UnsupportedError(f"{self.name}: {what}, and it shares its memory with another tensor: not modelled; keep a copy")

    def given_up(self) -> list[torch.Tensor]:
        """What the next call will find: survivors that do not stand in the place of a registered tensor. Held here no longer, so that they
        die when the module lets go of them."""
        found, self.survivors = self._kept(), []
        return found

    def _kept(self) -> list[torch.Tensor]:
        return [t for t in self.survivors if id(t) not in self.registered]

    def check_steady(self) -> None:
        """UnsupportedError when the second call kept other tensors than the first."""
        alive = [entry for entry in self.tracked.values() if entry.names[0] in self.standing]
        found = sorted(_form(e.value.spec) for e in alive) + sorted(_form(_spec(t, tuple(t.shape))) for t in self._kept())
        wanted = sorted(_form(Spec(p.shape, (), p.dtype)) for p in self.parameters if p.name in self.standing)
        if sorted(found) != wanted:
            raise UnsupportedError(
                f"{self.name}: every forward keeps more tensors (a list that grows, a hook that collects them): no step is like the next;"
                " empty it between calls, or keep numbers instead"
            )

    # live tensors --------------------------------------------------------------------------------------------------------

    def _track(self, t: torch.Tensor, name: str, spec: Spec, grad: bool = False) -> None:
        ledger = self.machine.ledger
        self._follow(t, name, ledger.hold(Value(spec, ledger.resident(0, "", name))), grad)

    def _follow(self, t: torch.Tensor, name: str, value: Value, grad: bool) -> None:
        key = id(t)
        self.used.add(name)

        def died(_: Any) -> None:
            gone = self.tracked.pop(key, None)
            if gone is not None:
                (self.drops[-1] if self.drops else self.gone_early).extend(gone.names)

        self.tracked[key] = _Tracked(name, value, weakref.ref(t, died), grad)

    def known(self, t: torch.Tensor) -> _Tracked:
        """What is known of ``t``; a tensor from elsewhere (a plain attribute) becomes a buffer."""
        entry = self.tracked.get(id(t))
        if entry is None or entry.ref() is not t:
            if t.is_meta and not self.on_meta:
                raise self.refusal(
                    "a tensor that was made where memest cannot see it (inside a compiled or scripted function, vmap, or an operator of an"
                    " extension)"
                )
            name = self._unique("constant")
            self.parameters.append(Parameter(name=name, shape=tuple(t.shape), dtype=_dtype(t), trainable=False, buffer=True))
            self._track(t, name, _spec(t, tuple(t.shape)))
            entry = self.tracked[id(t)]
        return entry

    def _unique(self, base: str) -> str:
        if base not in self.used:
            return base
        n = 2
        while f"{base}_{n}" in self.used:
            n += 1
        return f"{base}_{n}"

    # what stands around the calls (see Listener) -----------------------------------------------------------------------

    def enter_module(self, module: nn.Module) -> None:
        """Its path names the layers inside."""
        self.stack.append((self.paths.get(id(module), type(module).__name__), module))
        if isinstance(module, torch.jit.ScriptModule):
            raise self.refusal("a compiled ScriptModule, which hides its Python code: put in the module it was made from")

    def leave_module(self, module: nn.Module) -> None:
        """Out of it, and of modules in it that ended by an exception somebody caught."""
        while self.stack and self.stack.pop()[1] is not module:
            pass

    def begin_checkpoint(self, arguments: Any) -> None:
        """The layers from here on run again in backward."""
        self.asked_for_gradients = True
        if self.checkpoint is not None:
            raise self.refusal("a checkpoint inside a checkpoint")
        self.checkpoint = self._unique(f"{self._path() or self.name}.checkpoint")
        self.used.add(self.checkpoint)
        self.checkpointed = len(self.layers), [t for t in _leaves(arguments) if id(t) in self.tracked]

    def end_checkpoint(self) -> None:
        """Until here."""
        start, arguments = self.checkpointed
        read = {name for layer in self.layers[start:] for name in layer.reads}
        if len(self.layers) == start:
            raise self.refusal("torch.utils.checkpoint around a function that calls nothing")
        if not all(read & set(self.known(t).names) for t in arguments):
            raise self.refusal("torch.utils.checkpoint with an argument that the function does not use: it is kept all the same")
        self.checkpoint, self.checkpointed = None, (0, [])

    def apply(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """A custom autograd function: its forward as it runs when no gradient flows through it, else it is refused."""
        self.asked_for_gradients = True
        flows = torch.is_grad_enabled() and any(self.known(t).grad for t in _leaves(arguments))
        if flows:
            raise self.refusal(function_refused(function))
        if function is not torch.utils.checkpoint.CheckpointFunction:
            return run_forward(function, arguments, keywords)
        self.begin_checkpoint(arguments[2:])
        result = arguments[0](*arguments[2:])
        self.end_checkpoint()
        return result

    def applied_unseen(self, function: Any) -> None:
        """The same, with torch at work: what it reads is not known, so gradients flow wherever they are on."""
        self.asked_for_gradients = True
        if torch.is_grad_enabled():
            raise self.refusal(function_refused(function))

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
        if name in PASSIVE:
            return self._passive(name, func, args, kwargs)
        if name not in CALLS:
            reason = reason_against(func)
            if reason is not None:
                raise UnsupportedError(f"{self._place()}: {reason}")
        if isinstance(func, types.FunctionType) and name not in WHOLE and func not in self.entered:
            return self._enter(func, args, kwargs)
        binding = CALLS.get(name)
        if binding is not None:
            return self._call(name, binding, func, args, kwargs)
        raise self.refusal(full_name(func))

    def _enter(self, func: types.FunctionType, args: Any, kwargs: Any) -> Any:
        """Run a Python-level torch function so that the calls in it are seen (should it meet itself, that is the compiled one)."""
        self.entered.append(func)
        try:
            with self:
                return without_dispatch(func)(*args, **kwargs)
        finally:
            self.entered.remove(func)

    def _passive(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        answer = PASSIVE[name]
        if name == "__get__:dtype":
            self.asked_dtype = weakref.ref(args[0])
        if name in GRADIENTS:
            return self._gradients(name, func, args)
        if answer is None:
            return func(*args, **kwargs)
        return answer(self.known(args[0]).value.spec, args[1:], kwargs, func)

    def _gradients(self, name: str, func: Any, args: Any) -> Any:
        """What is asked or said about gradients, as a step would answer."""
        self.asked_for_gradients = True
        if name == "_set_grad_enabled":
            return func(*args)
        entry = self.known(args[0])
        if name == "__get__:requires_grad":
            return entry.grad
        wanted = bool(args[1]) if len(args) > 1 else True
        if wanted != entry.grad and self.gradients:
            raise self.refusal(f"requires_grad_({wanted}) in the forward of a training step: turn gradients on or off before it")
        entry.grad = wanted
        return args[0]

    def _call(self, name: str, binding: Call, func: Any, args: Any, kwargs: Any) -> Any:
        request = self._request(name, binding, args, kwargs)
        if request is None:
            return func(*args, **kwargs)
        check_autograd(self, self.gradients)
        result: Any = None
        for i, part in enumerate(request):
            last = i == len(request) - 1
            result = self._layer(part, func if last else None, args, kwargs, None if i == 0 else result)
        return result

    def _request(self, name: str, binding: Call, args: Any, kwargs: Any) -> list[Request] | None:
        try:
            return binding(name, args, kwargs, self)
        except MemestError as e:
            raise e.at(self._place()) from None
        finally:
            self.asked_dtype = None

    def source_of(self, dtype: Any) -> torch.Tensor | None:
        """The tensor that gave its dtype to the call being recorded: the last one asked for it since the call before."""
        asked = self.asked_dtype() if self.asked_dtype is not None else None
        return asked if asked is not None and asked.dtype == dtype and id(asked) in self.tracked else None

    def _layer(self, request: Request, func: Any, args: Any, kwargs: Any, previous: Any) -> Any:
        """Run one row on the symbolic values and the call itself on meta, compare, write the layer."""
        tensors = [previous if t is Request.PREVIOUS else t for t in request.tensors]
        entries = [self._bound(t) for t in tensors]
        name = self._unique(self._layer_name(request))
        self.used.add(name)
        row = operator_named(request.op)
        names = tuple(_names(e) for e in entries)
        grad_enabled = torch.is_grad_enabled()
        flows = grad_enabled and any(e.grad for e in _flat(entries))
        if flows and not self.gradients:
            raise self.refusal("torch.enable_grad() in a forward that runs without gradients: what it keeps for backward is not modelled")
        with recording(None):
            values = self._by_rule(row, entries, request, func, args, kwargs)
            self.drops.append([])
            produced = self._execute(request, func, args, kwargs, values, tensors)
            if request.op in MAY_COPY and produced is tensors[0]:
                produced = _twin(produced)  # a name of its own: in other dtypes and layouts it is a copy, and the input dies first
            outputs = self._adopt(name, produced, values, row, flows)
        given = {k: tidy(row, k, v) for k, v in request.attributes.items()}
        written = {k: v for k, v in given.items() if v != default_of(row, k)}
        if written.get("training") is True and self.module.training:
            del written["training"]  # follows the mode of the step
        position = [a.name for a in row.attributes]
        symbolic = attribute_items({k: written_as(written[k]) for k in sorted(written, key=position.index)})
        self.layers.append(
            Layer(
                name=name,
                op=request.op,
                tensors=names,
                attributes=symbolic,
                outputs=outputs,
                grad=grad_enabled or not self.gradients,
                checkpoint=self.checkpoint,
            )
        )
        return produced

    def _by_rule(
        self, row: Operator | Composite, entries: list[Any], request: Request, func: Any, args: Any, kwargs: Any
    ) -> list[Value | None]:
        """What our own row gives for the call, with symbolic sizes."""
        try:
            attributes = row.canonical(request.attributes)
            flags = {k: self.module.training if k == "training" and v is None else v for k, v in attributes.items()}
            return self.caller.run(row, [_values(e) for e in entries], tuple(flags.items()))
        except MemestError as e:
            raise e.at(f"{self._place()}: {request.op}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as e:
            if func is not None:
                func(*args, **on_meta(func, kwargs))  # torch, which takes no such tensors either, says why
            raise unforeseen(e).at(f"{self._place()}: {request.op}") from e

    def _execute(self, request: Request, func: Any, args: Any, kwargs: Any, values: Sequence[Value | None], tensors: Sequence[Any]) -> Any:
        """The call on meta tensors; where torch has no meta kernel for it, tensors of the shapes our row gives."""
        if func is not None and not request.own_result:
            try:
                return self._on_its_own(func(*args, **on_meta(func, kwargs)))
            except NotImplementedError:
                pass
        made: list[Any] = []
        for v in values:
            same = next((t for t in tensors if isinstance(t, torch.Tensor) and v is not None and self.known(t).value is v), None)
            if same is not None or v is None:
                made.append(same)
                continue
            shape, strides = tuple(int(n) for n in v.spec.shape), tuple(int(n) for n in v.spec.strides)
            with torch._C.DisableTorchFunction():
                made.append(torch.empty_strided(shape, strides, dtype=getattr(torch, v.spec.dtype), device="meta"))
        return made[0] if len(made) == 1 else tuple(made)

    def _on_its_own(self, produced: Any) -> Any:
        """``produced`` with new views replaced by tensors that keep no base: a base dies when Python lets go of it, for the call may make
        a copy in other layouts, which keeps nothing. (What a view keeps is in our own values.)"""
        if isinstance(produced, tuple | list):
            return type(produced)(self._on_its_own(t) for t in produced) if type(produced) in (tuple, list) else produced
        if not isinstance(produced, torch.Tensor) or not produced._is_view() or id(produced) in self.tracked:
            return produced
        return _twin(produced)

    def _adopt(self, name: str, produced: Any, values: Sequence[Value | None], row: Operator | Composite, flows: bool) -> tuple[str, ...]:
        """Names for the outputs; each must have the shape our row says. ``flows``: a gradient reaches what the call reads."""
        flows = flows and not (isinstance(row, Operator) and row.backward is None)
        results = list(produced) if isinstance(produced, tuple | list) else [produced]
        tensors = [r for r in results if isinstance(r, torch.Tensor)]
        names: list[str] = []
        for i, t in enumerate(tensors):
            value = values[i] if i < len(values) else None
            if value is None or tuple(t.shape) != value.spec.shape or _dtype(t) != value.spec.dtype:
                ours = "nothing" if value is None else f"{list(value.spec.shape)} {value.spec.dtype}"
                raise GraphError(
                    f"{self._place()}: torch gives {row.name} the shape {list(t.shape)} {_dtype(t)}, memest's rule {ours}; please report it"
                )
            out = name if len(tensors) == 1 else f"{name}.{i}"
            names.append(out)
            entry = self.tracked.get(id(t))
            if entry is not None and entry.ref() is t:
                entry.names.append(out)
                entry.value = self.machine.ledger.hold(value)
                entry.grad = entry.grad or flows
            else:
                self._follow(t, out, self.machine.ledger.hold(value), flows and value.spec.dtype in FLOATING)
        return tuple(names)

    def _bound(self, t: Any) -> Any:
        if t is None:
            return None
        if isinstance(t, torch.Tensor):
            return self.known(t)
        return [self.known(u) for u in t]

    def _layer_name(self, request: Request) -> str:
        """The module's path when the module is that operator, else the path with the operator's name."""
        op, path = request.op, self._path()
        if not path:
            return op
        first = request.tensors[0] if request.tensors else None
        if isinstance(first, torch.Tensor) and self.known(first).names[0].endswith("num_batches_tracked"):
            return f"{path}.{COUNT}"
        return path if path not in self.used and self._is_leaf(path) else f"{path}.{op}"

    def _is_leaf(self, path: str) -> bool:
        try:
            return not any(True for _ in self.module.get_submodule(path).children())
        except AttributeError:
            return False

    # the end -------------------------------------------------------------------------------------------------------------

    def _finished(self, outputs: tuple[str, ...]) -> Graph:
        """The graph, now that only what survives the forward is alive."""
        own = {p.name for p in self.parameters}
        dropped = {n for names in self.drops for n in names if n in own}
        again = next((n for layer, names in zip(self.layers, self.drops, strict=True) if layer.checkpoint for n in names if n in own), None)
        if again is not None:
            raise UnsupportedError(f"{self.name}: {again!r} is exchanged inside a checkpoint, so once more in backward: not modelled")
        layers = [with_drops(layer, drops) for layer, drops in zip(self.layers, self.drops, strict=True)]
        layers = with_counters(layers, own)
        survivors = {n for t in self.survivors for n in self.known(t).names}
        permanent = own - dropped | {i.name for i in self.inputs} | survivors
        return Graph(
            name=self.name,
            inputs=tuple(self.inputs),
            parameters=tuple(p for p in self.parameters if p.name not in self.gone_early),
            layers=tuple(settled(layers, outputs, permanent, dropped)),
            outputs=outputs,
            guards=tuple(self.guards),
            torch=release(torch.__version__),
        )

    def _explained(self, error: Exception) -> MemestError:
        """An exception of the module's code as ours: data-dependent control flow is named as such."""
        place, reason = self._place(error), explanation(error)
        if reason is not None:
            return UnsupportedError(f"{place}: {reason}")
        return GraphError(f"{place}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def _path(self) -> str:
        """The innermost module that has a path."""
        return next((path for path, _ in reversed(self.stack) if path), "")

    def _place(self, error: Exception | None = None) -> str:
        """Module path and line of user code."""
        path = self._path() or self.name
        frames = traceback.extract_tb(error.__traceback__) if error is not None else traceback.extract_stack(sys._getframe(1), limit=100)
        for f in reversed(frames):
            if not f.filename.startswith(_NOT_THE_USERS):
                return f"{path} ({f.filename.rpartition('/')[2]}:{f.lineno})"
        return path


# helpers -----------------------------------------------------------------------------------------------------------------


_NOT_THE_USERS = tuple(str(Path(m.__file__).parent) + os.sep for m in (memest, torch) if m.__file__)


def _twin(t: torch.Tensor) -> torch.Tensor:
    """Another meta tensor with the metadata of ``t``."""
    with torch._C.DisableTorchFunction():
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")


def _flat(entries: Sequence[Any]) -> Iterator[_Tracked]:
    for e in entries:
        if isinstance(e, list):
            yield from e
        elif e is not None:
            yield e


def _form(spec: Spec) -> tuple[str, tuple[int, ...]]:
    return spec.dtype, tuple(spec.shape)


def _values(entry: Any) -> Any:
    if entry is None:
        return None
    return [e.value for e in entry] if isinstance(entry, list) else entry.value


def _names(entry: Any) -> Any:
    if entry is None:
        return None
    return tuple(e.names[-1] for e in entry) if isinstance(entry, list) else entry.names[-1]


def _dtype(t: torch.Tensor) -> str:
    return str(t.dtype).removeprefix("torch.")


def _layout(t: torch.Tensor) -> str:
    shape, strides = tuple(t.shape), tuple(t.stride())
    last = t.ndim in (4, 5) and strides == channels_last_strides(shape) and strides != contiguous_strides(shape)
    return "channels_last" if last else "contiguous"


def _spec(t: torch.Tensor, shape: Shape) -> Spec:
    strides = contiguous_strides(shape)
    if tuple(strides) != tuple(t.stride()):
        strides = tuple(t.stride()) if _layout(t) == "contiguous" else channels_last_strides(shape)
    return Spec(shape, strides, _dtype(t))


def _leaves(result: Any) -> Iterator[torch.Tensor]:
    """The tensors of a model's output; of a mapping ``out`` comes first."""
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, Mapping):
        if "out" in result:
            yield from _leaves(result["out"])
        for key, value in result.items():
            if key != "out":
                yield from _leaves(value)
    elif isinstance(result, list | tuple | set):
        for value in result:
            yield from _leaves(value)
    elif is_dataclass(result) and not isinstance(result, type):
        for field in fields(result):
            yield from _leaves(getattr(result, field.name))
