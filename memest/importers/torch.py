"""A torch module as a layer graph: its forward runs once on meta tensors, and every call it makes is written down.

Nothing is computed and the module is left as it was. Python's own control flow runs; sizes that the module reads are ``Dim``s, so
shapes stay symbolic; a tensor dies in the graph when Python lets it die. Every recorded shape is recomputed by our own rows and must
agree. What no row knows is an :class:`UnsupportedError` that names the call, the module and the line of user code.
"""

from __future__ import annotations

import sys
import traceback
import types
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from memest.autograd import Machine
from memest.dims import Dim, Guard, expression, recording, symbol
from memest.errors import GraphError, MemestError, UnsupportedError, UsageError, did_you_mean
from memest.graph import Graph, Input, Layer, Parameter, attribute_items
from memest.importers.torch_calls import CALLS, PASSIVE, WHOLE, Call, Request
from memest.importers.torch_functions import full_name, name_of, on_meta, without_dispatch
from memest.importers.torch_layers import COUNT, default_of, settled, tidy, with_counters, with_drops, written_as
from memest.ledger import Ledger, Value
from memest.libraries.cpu import Cpu
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.process import Lock
from memest.tensor import Shape, Spec, channels_last_strides, contiguous_strides
from memest.timeline import Caller, operator_named

_ONE_AT_A_TIME = Lock()  # a recording has hooks on every module of the process, and lends the module other parameters
SPATIAL = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}
MAY_COPY = ("to", "contiguous")  # calls that give back their input where it is already as they make it


def from_torch(module: nn.Module, example: Any, *, name: str | None = None) -> Graph:
    """The graph of ``module`` as called with ``example``: a shape, a tensor, or a sequence (or mapping by argument name) of them.

    The first dim of every example is the batch ``N``; dims from the third on are spatial and become symbols (``H``, ``W``), so the
    graph can be estimated at other sizes. ``train()`` or ``eval()`` count as the module stands; a module in training mode also
    gives the graph of its ``eval()``, used by ``mode="infer"``. Raises UnsupportedError for a call without a rule.

    Threads that record wait for one another. The module itself must not run in another thread meanwhile; any other may.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"from_torch needs a torch.nn.Module, got {type(module).__name__}")
    positional, keywords = _examples(example)
    with _ONE_AT_A_TIME:
        graph = _record(module, positional, keywords, name or type(module).__name__)
        if not module.training:
            return graph
        with _in_eval_mode(module):
            inference = _record(module, positional, keywords, graph.name)
    following = tuple(_follows_mode(layer) for layer in graph.layers)
    same = inference.layers == following and inference.outputs == graph.outputs
    return graph if same else graph.with_(inference=inference)


def _follows_mode(layer: Layer) -> Layer:
    """The layer as its eval twin is recorded: a flag that follows the mode is false there."""
    row = operator_named(layer.op)
    follows = any(a.name == "training" and a.default is None for a in row.attributes)
    if not follows or "training" in dict(layer.attributes):
        return layer
    position = [a.name for a in row.attributes]
    items = sorted([*layer.attributes, ("training", False)], key=lambda item: position.index(item[0]))
    return replace(layer, attributes=tuple(items))


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """``module.eval()``, undone flag by flag."""
    flags = [(m, m.training) for m in module.modules()]
    for m, _ in flags:
        m.training = False
    try:
        yield
    finally:
        for m, was in flags:
            m.training = was


def _examples(example: Any) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    if isinstance(example, Mapping):
        return [], {k: _meta(v) for k, v in example.items()}
    if isinstance(example, torch.Tensor) or (isinstance(example, Sequence) and example and all(isinstance(n, int) for n in example)):
        return [_meta(example)], {}
    if isinstance(example, Sequence) and not isinstance(example, str) and example:
        return [_meta(e) for e in example], {}
    raise UsageError("example must be a shape, a tensor, or a sequence or mapping of them")


def _meta(example: Any) -> torch.Tensor:
    if isinstance(example, torch.Tensor):
        return torch.empty_strided(example.shape, example.stride(), dtype=example.dtype, device="meta")
    shape = tuple(example)
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise UsageError(f"sizes are positive integers, got {shape}")
    return torch.empty(shape, device="meta")


def _record(module: nn.Module, positional: list[torch.Tensor], keywords: dict[str, torch.Tensor], name: str) -> Graph:
    recorder = _Recorder(module, name)
    arguments = [recorder.add_input(f"input{i}" if i else "input", t) for i, t in enumerate(positional)]
    named = {k: recorder.add_input(k, t) for k, t in keywords.items()}
    twins = recorder.add_parameters()
    positional, keywords = [], {}
    own = [(registry, key, t) for m in module.modules() for registry in (m._parameters, m._buffers) for key, t in registry.items()]
    with recorder.watching(), torch.no_grad():
        try:
            result = torch.func.functional_call(module, twins, tuple(arguments), named, tie_weights=True)
        except MemestError:
            raise
        except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError, KeyError, AssertionError) as e:
            raise recorder.explained(e) from None
        finally:
            for registry, key, t in own:  # functional_call leaves its twins in a module that stands under two names
                registry[key] = t
        return recorder.finish(result)


def _twin(t: torch.Tensor) -> torch.Tensor:
    """Another meta tensor with the metadata of ``t``."""
    with torch._C.DisableTorchFunction():
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")


class _Tracked:
    """What the recorder knows of a live tensor: its names in the graph and its metadata with symbolic dims."""

    __slots__ = ("names", "ref", "value")

    def __init__(self, name: str, value: Value, ref: weakref.ref[torch.Tensor]) -> None:
        self.names = [name]
        self.value = value
        self.ref = ref


class _Recorder(TorchFunctionMode):
    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self.name = name
        self.paths = {id(m): path for path, m in module.named_modules()}
        self.stack: list[str] = []
        self.inputs: list[Input] = []
        self.parameters: list[Parameter] = []
        self.layers: list[Layer] = []
        self.drops: list[list[str]] = []
        self.tracked: dict[int, _Tracked] = {}
        self.used: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.guards: dict[Guard, None] = {}
        self.entered: list[Any] = []
        self.asked_dtype: weakref.ref[torch.Tensor] | None = None
        self.machine = Machine(Ledger(), module.training, Cpu(), remember=False)
        self.caller = Caller(self.machine, False)

    # what is there before the call ---------------------------------------------------------------------------------------

    def add_input(self, name: str, t: torch.Tensor) -> torch.Tensor:
        dims = [self._symbolic(n, d, t.ndim, len(self.inputs)) for d, n in enumerate(t.shape)]
        self.inputs.append(Input(name=name, shape=tuple(expression(d) for d in dims), dtype=_dtype(t), layout=_layout(t)))
        self._track(t, name, _spec(t, tuple(dims)))
        return t

    def _symbolic(self, size: int, d: int, ndim: int, nth: int) -> int:
        """The batch and the spatial dims get symbols; a later input shares a symbol of equal size at the same place."""
        if d == 1 or (d > 0 and ndim - 2 not in SPATIAL):
            return size
        base = "N" if d == 0 else SPATIAL[ndim - 2][d - 2]
        text = base if self.sizes.get(base, size) == size else f"{base}{nth}"
        self.sizes[text] = size
        found = symbol(text)
        return Dim(size, found)

    def add_parameters(self) -> dict[str, torch.Tensor]:
        """Meta twins of all parameters and buffers, by name."""
        twins: dict[str, torch.Tensor] = {}
        for path, p in _owned_tensors(self.module):
            if isinstance(p, nn.parameter.UninitializedTensorMixin):
                raise UnsupportedError(f"parameter {path!r} is not initialized (a lazy module); call the module once first")
            twin = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype, device="meta")
            twins[path] = twin
            is_buffer = not isinstance(p, nn.Parameter)
            self.parameters.append(
                Parameter(name=path, shape=tuple(p.shape), dtype=_dtype(p), trainable=p.requires_grad, buffer=is_buffer, layout=_layout(p))
            )
            self._track(twin, path, _spec(twin, tuple(p.shape)))
        return twins

    # live tensors --------------------------------------------------------------------------------------------------------

    def _track(self, t: torch.Tensor, name: str, spec: Spec) -> Value:
        ledger = self.machine.ledger
        value = ledger.hold(Value(spec, ledger.resident(0, "", name)))
        self._follow(t, name, value)
        return value

    def _follow(self, t: torch.Tensor, name: str, value: Value) -> None:
        key = id(t)
        self.used.add(name)

        def died(_: Any) -> None:
            gone = self.tracked.pop(key, None)
            if gone is not None and self.drops:
                self.drops[-1].extend(gone.names)

        self.tracked[key] = _Tracked(name, value, weakref.ref(t, died))

    def known(self, t: torch.Tensor) -> _Tracked:
        """What is known of ``t``; a tensor from elsewhere (a plain attribute) becomes a buffer."""
        entry = self.tracked.get(id(t))
        if entry is None or entry.ref() is not t:
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

    # calls ---------------------------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record calls, know which module runs, and let fast paths see what they would see without a recorder. Modules that other threads
        run meanwhile are theirs."""
        recording_thread = get_ident()
        honest = torch.overrides.has_torch_function

        def enter(m: nn.Module, _: Any) -> None:
            if get_ident() == recording_thread:
                self.stack.append(self.paths.get(id(m), type(m).__name__))

        def leave(m: nn.Module, _: Any, __: Any) -> None:
            if get_ident() == recording_thread:
                self.stack.pop()

        def has_torch_function(arguments: Any) -> bool:
            return get_ident() != recording_thread and honest(arguments)

        hooks = [
            nn.modules.module.register_module_forward_pre_hook(enter),
            nn.modules.module.register_module_forward_hook(leave),
        ]
        torch.overrides.has_torch_function = has_torch_function
        try:
            with self, recording(self.guards):
                yield
        finally:
            torch.overrides.has_torch_function = honest
            for h in hooks:
                h.remove()

    def __torch_function__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name in PASSIVE:
            return self._passive(name, func, args, kwargs)
        if isinstance(func, types.FunctionType) and name not in WHOLE and func not in self.entered:
            return self._enter(func, args, kwargs)
        binding = CALLS.get(name)
        if binding is not None:
            return self._call(name, binding, func, args, kwargs)
        raise UnsupportedError(f"{self._place()}: no rule for {full_name(func)}{did_you_mean(name, CALLS)}")

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
        if answer is None:
            return func(*args, **kwargs)
        return answer(self.known(args[0]).value.spec, args[1:], kwargs, func)

    def _call(self, name: str, binding: Call, func: Any, args: Any, kwargs: Any) -> Any:
        request = self._request(name, binding, args, kwargs)
        if request is None:
            return func(*args, **kwargs)
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
        with recording(None):
            values = self._by_rule(row, entries, request)
            self.drops.append([])
            produced = self._execute(request, func, args, kwargs, values, tensors)
            if request.op in MAY_COPY and produced is tensors[0]:
                produced = _twin(produced)  # a name of its own: in other dtypes and layouts it is a copy, and the input dies first
            outputs = self._adopt(name, produced, values, row.name)
        given = {k: tidy(row, k, v) for k, v in request.attributes.items()}
        written = {k: v for k, v in given.items() if v != default_of(row, k)}
        if written.get("training") is True and self.module.training:
            del written["training"]  # follows the mode of the step
        position = [a.name for a in row.attributes]
        symbolic = attribute_items({k: written_as(written[k]) for k in sorted(written, key=position.index)})
        self.layers.append(Layer(name=name, op=request.op, tensors=names, attributes=symbolic, outputs=outputs))
        return produced

    def _by_rule(self, row: Operator | Composite, entries: list[Any], request: Request) -> list[Value | None]:
        """What our own row gives for the call, with symbolic sizes."""
        try:
            attributes = row.canonical(request.attributes)
            flags = {k: self.module.training if k == "training" and v is None else v for k, v in attributes.items()}
            return self.caller.run(row, [_values(e) for e in entries], tuple(flags.items()))
        except MemestError as e:
            raise e.at(f"{self._place()}: {request.op}") from None

    def _execute(self, request: Request, func: Any, args: Any, kwargs: Any, values: Sequence[Value | None], tensors: Sequence[Any]) -> Any:
        """The call on meta tensors; where torch has no meta kernel for it, tensors of the shapes our row gives."""
        if func is not None and not request.own_result:
            try:
                return self._on_its_own(func(*args, **on_meta(func, kwargs)))
            except NotImplementedError as e:
                if "meta" not in str(e).lower():
                    raise
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

    def _adopt(self, name: str, produced: Any, values: Sequence[Value | None], op: str) -> tuple[str, ...]:
        """Names for the outputs; each must have the shape our row says."""
        results = list(produced) if isinstance(produced, tuple | list) else [produced]
        tensors = [r for r in results if isinstance(r, torch.Tensor)]
        names: list[str] = []
        for i, t in enumerate(tensors):
            value = values[i] if i < len(values) else None
            if value is None or tuple(t.shape) != value.spec.shape or _dtype(t) != value.spec.dtype:
                ours = "nothing" if value is None else f"{list(value.spec.shape)} {value.spec.dtype}"
                raise GraphError(
                    f"{self._place()}: torch gives {op} the shape {list(t.shape)} {_dtype(t)}, memest's rule {ours}; please report it"
                )
            out = name if len(tensors) == 1 else f"{name}.{i}"
            names.append(out)
            entry = self.tracked.get(id(t))
            if entry is not None and entry.ref() is t:
                entry.names.append(out)
                entry.value = self.machine.ledger.hold(value)
            else:
                self._follow(t, out, self.machine.ledger.hold(value))
        return tuple(names)

    def _bound(self, t: Any) -> Any:
        if t is None:
            return None
        if isinstance(t, torch.Tensor):
            return self.known(t)
        return [self.known(u) for u in t]

    def _layer_name(self, request: Request) -> str:
        """The module's path when the module is that operator, else the path with the operator's name."""
        op, path = request.op, next((p for p in reversed(self.stack) if p), "")
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

    def finish(self, result: Any) -> Graph:
        """The graph, once the forward has returned ``result``."""
        tensors = list(_leaves(result))
        if not tensors:
            raise UnsupportedError(f"{self.name}: forward returns no tensor")
        outputs = tuple(self.known(t).names[-1] for t in tensors)
        layers = [with_drops(layer, drops) for layer, drops in zip(self.layers, self.drops, strict=True)]
        layers = with_counters(layers, {p.name for p in self.parameters})
        layers = settled(layers, outputs, {p.name for p in self.parameters} | {i.name for i in self.inputs})
        return Graph(
            name=self.name,
            inputs=tuple(self.inputs),
            parameters=tuple(self.parameters),
            layers=tuple(layers),
            outputs=outputs,
            guards=tuple(self.guards),
        )

    def explained(self, error: Exception) -> MemestError:
        """A torch error as ours: data-dependent control flow is named as such."""
        text = " ".join(str(error).split())[:200]
        if "meta" in text.lower() or "data-dependent" in text.lower() or "item()" in text:
            return UnsupportedError(f"{self._place(error)}: the network looks at values, not only at shapes ({text})")
        return GraphError(f"{self._place(error)}: {type(error).__name__}: {text}")

    def _place(self, error: Exception | None = None) -> str:
        """Module path and line of user code."""
        path = next((p for p in reversed(self.stack) if p), self.name)
        frames = traceback.extract_tb(error.__traceback__) if error is not None else traceback.extract_stack(sys._getframe(1), limit=60)
        for f in reversed(frames):
            if "/torch/" not in f.filename.replace("\\", "/") and "memest/" not in f.filename.replace("\\", "/"):
                return f"{path} ({f.filename.rpartition('/')[2]}:{f.lineno})"
        return path


# helpers -----------------------------------------------------------------------------------------------------------------


def _owned_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, each once, module by module in torch's order of registration."""
    seen: set[int] = set()
    for path, m in module.named_modules():
        own = [*m.named_parameters(recurse=False), *m.named_buffers(recurse=False)]
        for name, t in own:
            if id(t) not in seen:
                seen.add(id(t))
                yield f"{path}.{name}" if path else name, t


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
    elif isinstance(result, list | tuple):
        for value in result:
            yield from _leaves(value)
