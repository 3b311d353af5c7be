"""One row against torch: an example run forward and backward in torch and on the timeline, event by event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import reduce
from typing import Any

import torch

from memest.machines.cpu import Cpu
from memest.machines.target import Target
from memest.machines.versions import nearest
from memest.memory.stream import Event
from memest.network.tensor import Spec
from memest.ops.composite import Composite
from memest.ops.operator import Example, Operator
from memest.runtimes.runtime import AS_DESCRIBED, Rows
from memest.runtimes.torch.autograd import AccumulateGrad, Machine
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Autocast, Caller
from validation import adapters, adapters_packed
from validation.profiling import Measured, record


def torch_named(dotted: str) -> Any:
    """The object a dotted name such as ``torch.nn.functional.relu`` stands for."""
    head, *rest = dotted.split(".")
    assert head == "torch"
    return reduce(getattr, rest, torch)


FACES = (adapters, adapters_packed)
OF_TORCHVISION = "torch.ops.torchvision."


class NotInstalledError(Exception):
    """What a row is checked against is not installed here."""


def _need_torchvision() -> None:
    """Its operators are there once it is imported, where it was built for the torch at hand."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as e:
        raise NotInstalledError(f"no torchvision for this torch: {e}") from None
    if not hasattr(torch.ops.torchvision, "nms"):  # another one's, whose networks alone are of use
        raise NotInstalledError("no torchvision for this torch: its operators did not load")


def torch_callable(row: Operator | Composite) -> Any:
    """What runs the row: one of ``adapters``, or torch's own callable; NotInstalledError where torchvision's is not there."""
    if row.torch.startswith(OF_TORCHVISION):
        _need_torchvision()
    if not row.oracle:
        return torch_named(row.torch)
    return getattr(next(face for face in FACES if hasattr(face, row.oracle)), row.oracle)


def example_tensors(example: Example, grad: bool = True, device: str = "cpu") -> list[Any]:
    """The example's tensors in torch: floats and complex numbers require grad, integers are zeros."""

    def make(shape: Sequence[int], dtype: str, first: bool, position: int) -> torch.Tensor:
        kind = getattr(torch, dtype)
        smooth = kind.is_floating_point or kind.is_complex
        t = torch.rand(tuple(shape)).to(kind) if smooth else torch.zeros(tuple(shape), dtype=kind)
        t = t.to(device)
        if first and example.layout == "channels_last":
            t = t.contiguous(memory_format=torch.channels_last if t.ndim == 4 else torch.channels_last_3d)
        if first and example.layout == "transposed":
            t = t.transpose(0, -1).contiguous().transpose(0, -1)
        return t.requires_grad_(grad and smooth and position not in example.frozen)

    dtypes = iter([*example.dtypes, *["float32"] * 64])
    made: list[Any] = []
    for i, shape in enumerate(example.shapes):
        if shape is None:
            made.append(None)
            next(dtypes)
        elif shape == [] or (shape and isinstance(shape[0], tuple | list)):
            made.append([make(s, next(dtypes), i == 0 and j == 0, i) for j, s in enumerate(shape)])
        else:
            made.append(make(shape, next(dtypes), i == 0, i))
    return made


def recast(example: Example, dtype: str) -> Example:
    """The example with its float32 tensors in ``dtype``."""
    count = sum(len(s) if s == [] or (s and isinstance(s[0], tuple | list)) else 1 for s in map(_opened, example.shapes))
    own = [*example.dtypes, *["float32"] * (count - len(example.dtypes))]
    return replace(example, dtypes=tuple(dtype if d == "float32" else d for d in own))


def _opened(shape: Any) -> Any:
    return (0,) if shape is None else shape


def flat(tensors: list[Any]) -> list[torch.Tensor]:
    """All tensors of a call, groups opened."""
    out: list[torch.Tensor] = []
    for t in tensors:
        if isinstance(t, list):
            out.extend(t)
        elif t is not None:
            out.append(t)
    return out


def spec_of(t: torch.Tensor) -> Spec:
    """The metadata of a torch tensor."""
    return Spec(tuple(t.shape), tuple(t.stride()), str(t.dtype).removeprefix("torch."))


ROLES_BY_NAME: frozenset[Any] = frozenset((adapters.batch_norm, adapters.clamp))  # adapters that take their optional tensors by role


def call_torch(row: Operator | Composite, tensors: list[Any], attributes: dict[str, Any]) -> Any:
    """Run the row's torch callable: roles by position (``torch.nn.functional``'s optional ones by name), attributes by
    name, a ``value`` in place of an absent second tensor."""
    function = torch_callable(row)
    functional = not row.oracle and row.torch.startswith("torch.nn.functional.")
    keywords = dict(attributes)
    if functional or function in ROLES_BY_NAME:
        keywords |= {role[:-1]: t for role, t in zip(row.roles, tensors, strict=True) if role.endswith("?")}
        tensors = [t for role, t in zip(row.roles, tensors, strict=True) if not role.endswith("?")]
    arguments = [t for t in tensors if t is not None]
    if "inplace" in keywords and not functional and not row.oracle:
        method = row.torch.rpartition(".")[2]
        function = getattr(torch.Tensor, f"{method}_" if keywords.pop("inplace") else method)
    if not row.roles and "shape" in keywords:
        keywords["size"] = keywords.pop("shape")
    if isinstance(keywords.get("dtype"), str) and not row.oracle:
        keywords["dtype"] = getattr(torch, keywords["dtype"])
    for number in {"value", "exponent"} & keywords.keys():
        if row.roles[-1].endswith("?") and tensors[-1] is None:
            arguments.append(keywords.pop(number))
    return function(*arguments, **keywords)


def first_tensor(result: Any) -> torch.Tensor:
    """The tensor a gradient is sent into: the first differentiable output."""
    outputs = result if isinstance(result, tuple | list) else [result]
    return next((t for t in outputs if isinstance(t, torch.Tensor) and t.requires_grad), outputs[0])


def within(context: Autocast | None, device: str = "cpu") -> AbstractContextManager[Any]:
    """Torch's context manager for memest's description of it."""
    if context is None:
        return nullcontext()
    return torch.autocast(device, dtype=getattr(torch, context.dtype), cache_enabled=context.cache)


def measure(
    row: Operator | Composite,
    example: Example,
    ones: Callable[[torch.Tensor], torch.Tensor] = torch.ones_like,
    autocast: Autocast | None = None,
    device: str = "cpu",
    record: Callable[[Callable[[], Any]], tuple[list[Measured], Any]] = record,
) -> list[Measured]:
    """Torch's stream: call (in an ``autocast`` context, if given), then (when differentiable) ``output.backward(ones)`` with the gradient
    made beforehand."""
    tensors = example_tensors(example, device=device)
    attributes = dict(example.attributes)

    there: AbstractContextManager[Any] = nullcontext() if device == "cpu" else torch.device(device)

    def once(gradient: torch.Tensor | None) -> Any:
        with there, within(autocast, device):
            out = first_tensor(call_torch(row, _fresh(tensors, attributes, row), attributes))
        if out.requires_grad:
            out.backward(ones(out) if gradient is None else gradient)
        return None

    with there, within(autocast, device):
        result = call_torch(row, _fresh(tensors, attributes, row), attributes)
    gradient = ones(first_tensor(result)).detach()
    del result
    once(gradient)
    for t in flat(tensors):
        t.grad = None
    events, _ = record(lambda: once(gradient))
    return events


class _Alias(torch.autograd.Function):
    """The same storage under a tensor that is neither leaf nor view: what an in-place call needs, at no allocation."""

    @staticmethod
    def forward(ctx: Any, t: torch.Tensor) -> torch.Tensor:
        """An alias of ``t``."""
        return t.data

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        """The gradient as it came."""
        return grad


def _fresh(tensors: list[Any], attributes: dict[str, Any], row: Operator | Composite | None = None) -> list[Any]:
    """In-place calls cannot take a leaf that requires grad: its first tensor becomes a non-leaf alias (no allocation)."""
    writes = row is not None and (row.name.endswith("_") or row.name == "setitem")
    if not attributes.get("inplace") and not writes:
        return tensors
    first, *rest = tensors
    if not isinstance(first, torch.Tensor):
        return tensors
    return [_Alias.apply(first) if first.requires_grad else first.detach(), *rest]


def predict(
    row: Operator | Composite,
    example: Example,
    on: Cpu | Target,
    ones: Callable[[torch.Tensor], torch.Tensor] = torch.ones_like,
    autocast: Autocast | None = None,
    rows: Rows = AS_DESCRIBED,
) -> list[int]:
    """The predicted stream of the same two calls; see :func:`predict_events`."""
    return [e.delta for e in predict_events(row, example, on, ones, autocast, rows)]


def predict_events(
    row: Operator | Composite,
    example: Example,
    on: Cpu | Target,
    ones: Callable[[torch.Tensor], torch.Tensor] = torch.ones_like,
    autocast: Autocast | None = None,
    rows: Rows = AS_DESCRIBED,
) -> list[Event]:
    """The predicted events of the same two calls, on a processor for the torch that is installed, or on a target by its ``rows``."""
    target = on if isinstance(on, Target) else Target(version=nearest(torch.__version__), machine=on)
    ledger = Ledger()
    machine = Machine(ledger, True, target)
    caller = Caller(machine, True, autocast, rows)
    torch_tensors = example_tensors(example)

    def value(t: torch.Tensor) -> Value:
        s, name = spec_of(t), f"x{len(ledger.residents)}"
        v = ledger.hold(Value(s, ledger.resident(0, "input", name)))
        if t.requires_grad:
            v.node, v.requires_grad = AccumulateGrad(v, name), True
        return v

    arguments = [None if t is None else [value(u) for u in t] if isinstance(t, list) else value(t) for t in torch_tensors]
    attributes = tuple(row.canonical(example.attributes).items())
    outputs = [ledger.hold(v) for v in caller.run(row, arguments, attributes) if v is not None]
    caller.leave_autocast()
    out = next((v for v in outputs if v.requires_grad), None)
    if out is not None:
        kind = getattr(torch, out.spec.dtype)
        strides = spec_of(ones(torch.empty_strided(out.spec.shape, out.spec.strides, dtype=kind))).strides
        gradient = ledger.hold(Value(Spec(out.spec.shape, strides, out.spec.dtype), ledger.resident(0, "gradient", "ones")))
        for other in outputs:
            if other is not out:
                ledger.let_go(other)
        machine.backward(out, gradient)
        ledger.let_go(out)
    else:
        for v in outputs:
            ledger.let_go(v)
    return list(ledger.events)


def normalized(deltas: Sequence[int]) -> list[int]:
    """Releases between two allocations happen at one moment: put each such run in order of size."""
    out: list[int] = []
    run: list[int] = []
    for d in deltas:
        if d < 0:
            run.append(d)
        else:
            out.extend(sorted(run))
            run = []
            out.append(d)
    return out + sorted(run)
