"""Backward written as calls of operators, as derivatives.yaml writes it.

A row's own ``backward`` says what its kernels allocate, and leaves nothing behind. Under ``create_graph=True`` torch records what backward
calls, so that it has a backward of its own: then the row's *formula* is played instead, call by call. A formula gets a :class:`Formula` to
call operators with, what was kept for backward by role (with what was noted), the gradients of the outputs and the attributes; it returns
one gradient or None per flattened tensor input.

Most backwards are one kernel that autograd knows (``threshold_backward``, ``convolution_backward``). Such a :class:`Kernel` is the row's
own ``backward`` seen as an operator: its inputs are the gradients and what was kept, it keeps what ``saves`` names of them, and ``double``
is its formula.

Sources: tools/autograd/derivatives.yaml, gen_variable_type.py (a backward keeps what its formulas read, whoever wants it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, NoReturn, Protocol

from memest.errors import UnsupportedError
from memest.machines.target import Target
from memest.network.tensor import Shape
from memest.ops.derivatives.numbers import IN_PLACE
from memest.ops.operator import REQUIRED, Attribute, Operator
from memest.ops.reading import Items
from memest.ops.tape import Tape, Tensor

Saved = Mapping[str, Any]
Grads = Sequence[Any]
Derived = Sequence[Any]
ByRole = Mapping[str, Any]
GRAD = "grad"


def by_derivative(*_: Any, **__: Any) -> NoReturn:
    """The backward of an operator that has a formula and nothing else."""
    raise AssertionError("played as calls of operators")


class Caller(Protocol):
    """What plays a formula."""

    def call(self, op: str | Operator, *tensors: Any, **attributes: Any) -> Any:
        """Run an operator on values."""

    def drop(self, *values: Any) -> None:
        """Release intermediates before the formula ends."""

    def statement(self, body: Callable[[], Any]) -> Any:
        """What ``body`` gives, without what else it made."""

    def gradient(self, op: str) -> tuple[Operator, Operator]:
        """The row of that name, and its backward as an operator."""


class Kernel(NamedTuple):
    """A backward of one kernel. ``saves`` are the roles it keeps (``grad`` and those of what the row kept); ``double`` gives gradients by
    role from a formula, what is kept, the gradients of what the kernel gave, and the attributes. ``first`` is the row's own formula, where
    that is not one call of the kernel."""

    saves: tuple[str, ...]
    double: Callable[..., ByRole]
    first: Callable[..., Derived] | None = None


class Formula:
    """Calls of operators, under names that read like ATen. ``needs`` says which gradients are wanted, ``target`` of which torch
    they are and where they run, ``creates`` whether the calls are recorded themselves."""

    def __init__(self, caller: Caller, needs: Sequence[bool], target: Target, creates: bool) -> None:
        self._caller = caller
        self.needs = needs
        self.version = target.version
        self.on_cuda = target.on_cuda
        self.creates = creates

    def call(self, op: str | Operator, *tensors: Any, **attributes: Any) -> Any:
        """Run an operator."""
        return self._caller.call(op, *tensors, **attributes)

    def drop(self, *values: Any) -> None:
        """Release intermediates: temporaries of an expression, before the next."""
        self._caller.drop(*values)

    def statement(self, body: Callable[[], Any]) -> Any:
        """What ``body`` gives; everything else it called for dies with the statement."""
        return self._caller.statement(body)

    def wants(self, which: int) -> bool:
        """True when the gradient of that input is wanted (an absent one's never is)."""
        return len(self.needs) > which and self.needs[which]

    def kernel(self, op: str, grads: Grads, saved: Saved, mask: Sequence[bool], **attributes: Any) -> list[Any]:
        """The backward of row ``op`` as one kernel: gradients for those of its inputs that ``mask`` names."""
        row, gradient = self._caller.gradient(op)
        kept = {name: t for name, t in saved.items() if is_value(t)}
        found = self._caller.call(
            gradient,
            [g for g in grads if g is not None],
            list(kept.values()),
            mask=tuple(mask),
            present=tuple(g is not None for g in grads),
            kept=tuple(kept),
            notes=tuple((name, fact) for name, fact in saved.items() if name not in kept),
            given=tuple(row.canonical(attributes).items()),
        )
        return list(found) if isinstance(found, tuple) else [found]

    @staticmethod
    def unknown(what: str) -> UnsupportedError:
        """The error that says that no formula is known of ``what``."""
        return UnsupportedError(f"create_graph=True through {what}: what its backward's own graph keeps has no rule")

    # arithmetic -----------------------------------------------------------------------------------------------------------

    def add(self, a: Any, b: Any) -> Any:
        """``a + b``."""
        return self.call("add", a, b)

    def sub(self, a: Any, b: Any) -> Any:
        """``a - b``."""
        return self.call("sub", a, b)

    def mul(self, a: Any, b: Any) -> Any:
        """``a * b``."""
        return self.call("mul", a, b)

    def div(self, a: Any, b: Any) -> Any:
        """``a / b``."""
        return self.call("div", a, b)

    def neg(self, a: Any) -> Any:
        """``-a``."""
        return self.call("neg", a)

    def times(self, a: Any, number: float) -> Any:
        """``a * number`` of C++, which keeps nothing."""
        return self.call("mul.Scalar", a, value=_some(number))

    def over(self, a: Any, number: float) -> Any:
        """``a / number`` of C++."""
        return self.call("div.Scalar", a, value=_some(number))

    def plus(self, a: Any, number: float) -> Any:
        """``a + number``."""
        return self.call("add", a, None, value=_some(number))

    def pow(self, a: Any, exponent: float) -> Any:
        """``a.pow(exponent)``."""
        return self.call("pow", a, None, exponent=exponent)

    def pow_by(self, a: Any, exponent: Any) -> Any:
        """``a.pow(exponent)`` of a tensor."""
        return self.call("pow", a, exponent)

    def one_minus(self, a: Any) -> Any:
        """``1 - a`` of C++: a tensor filled with the number, from which ``a`` is taken in place."""
        filled = self.zeros_like(a)
        return self.call("sub", filled, a, inplace=True)

    def under(self, number: float, a: Any) -> Any:
        """``number / a`` of C++: a tensor filled with the number, divided in place."""
        return self.call("div", self.zeros_like(a), a, inplace=True)

    def maybe_multiply(self, a: Any, number: float) -> Any:
        """``a * number``, or ``a`` itself."""
        return a if number == 1 else self.times(a, number)

    def iadd(self, a: Any, b: Any) -> Any:
        """``a.add_(b)``."""
        return self.call("add", a, b, inplace=True)

    def isub(self, a: Any, b: Any) -> Any:
        """``a.sub_(b)``."""
        return self.call("sub", a, b, inplace=True)

    def imul(self, a: Any, number: float) -> Any:
        """``a.mul_(number)``."""
        return self.call(IN_PLACE["mul"], a, value=_some(number))

    def imul_by(self, a: Any, b: Any) -> Any:
        """``a.mul_(b)``."""
        return self.call("mul", a, b, inplace=True)

    def idiv(self, a: Any, number: float) -> Any:
        """``a.div_(number)``."""
        return self.call(IN_PLACE["div"], a, value=_some(number))

    # shapes ---------------------------------------------------------------------------------------------------------------

    def zeros_like(self, a: Any) -> Any:
        """Zeros that lie as ``a`` does."""
        return self.call("zeros_like", a)

    def zeros(self, shape: Shape, dtype: str) -> Any:
        """Zeros of a shape."""
        return self.call("zeros", shape=shape, dtype=dtype)

    def sum(self, a: Any, dim: Any = None, keepdim: bool = False) -> Any:
        """``a.sum(dim, keepdim)``."""
        return self.call("sum", a, dim=dim, keepdim=keepdim)

    def sum_to(self, a: Any, shape: Shape) -> Any:
        """``at::sum_to``: summed over the dims that were broadcast from ``shape``."""
        if not shape:
            return self.sum(a)
        lead = len(a.shape) - len(shape)
        dims = tuple(d for d, n in enumerate(a.shape) if d < lead or (shape[d - lead] == 1 and n != 1))
        summed = self.sum(a, dims, True) if dims else a
        return self.view(summed, shape) if lead else summed

    def view(self, a: Any, shape: Shape) -> Any:
        """``a.view(shape)``."""
        return self.call("view", a, shape=shape)

    def reshape(self, a: Any, shape: Shape) -> Any:
        """``a.reshape(shape)``: ``a`` itself where it has that shape."""
        return self.call("reshape", a, shape=shape)

    def expand(self, a: Any, size: Shape) -> Any:
        """``a.expand(size)``."""
        return self.call("expand", a, size=size)

    def unsqueeze(self, a: Any, dim: int) -> Any:
        """``a.unsqueeze(dim)``."""
        return self.call("unsqueeze", a, dim=dim)

    def transpose(self, a: Any, dim0: int, dim1: int) -> Any:
        """``a.transpose(dim0, dim1)``."""
        return self.call("transpose", a, dim0=dim0, dim1=dim1)

    def contiguous(self, a: Any, memory_format: str = "contiguous_format") -> Any:
        """``a.contiguous()``."""
        return self.call("contiguous", a, memory_format=memory_format)

    def narrow(self, a: Any, dim: int, start: int, length: int) -> Any:
        """``a.narrow(dim, start, length)``."""
        return self.call("slice", a, dim=dim, start=start, end=start + length)


def _some(number: float) -> float:
    """A number for a call: where sizes give it, which one it is makes no difference to memory, and nothing is to depend on it."""
    return number if type(number) in (int, float) else 2


def is_value(thing: Any) -> bool:
    """Whether it is a tensor of the running network."""
    return hasattr(thing, "spec")


def only(grads: Grads) -> Any:
    """The gradient of the only output that has one."""
    (grad,) = (g for g in grads if g is not None)
    return grad


@cache
def gradient_of(row: Operator, kernel: Kernel) -> Operator:
    """The backward of ``row`` as an operator that autograd knows."""

    def forward(
        k: Tape,
        grads: list[Tensor],
        saved: list[Tensor],
        *,
        mask: tuple[bool, ...],
        present: tuple[bool, ...],
        kept: tuple[str, ...],
        notes: Items,
        given: Items,
    ) -> tuple[Tensor | None, ...]:
        assert row.backward is not None
        left = iter(grads)
        incoming = [next(left) if there else None for there in present]
        named: dict[str, Any] = dict(zip(kept, saved, strict=True))
        every = {**named, GRAD: grads[0]}
        k.save(**{role: every.get(role) for role in kernel.saves})
        k.note(like=tuple((role, t.spec) for role, t in every.items()))
        needs, k.needs = k.needs, mask
        found = row.backward(k, {**dict(notes), **named}, incoming, **dict(given))
        k.needs = needs
        return tuple(g if wanted else None for g, wanted in zip(found, mask, strict=True))

    return Operator(
        name=f"{row.name} backward",
        torch=row.torch,
        roles=("grads*", "saved*"),
        attributes=tuple(Attribute(name=n, default=REQUIRED, check=_as_it_is) for n in ("mask", "present", "kept", "notes", "given")),
        forward=forward,
        saves=kernel.saves,
        backward=by_derivative,
        examples=(),
        facts=row.facts,
        source=row.source,
    )


def _as_it_is(value: Any) -> Any:
    return value


def formula_of(kernel: Kernel, row: Operator, attributes: Mapping[str, Any]) -> Callable[..., Derived]:
    """The formula of a row whose backward is one kernel."""
    if kernel.first is not None:
        return kernel.first

    def formula(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
        return f.kernel(row.name, grads, saved, f.needs, **attributes)

    return formula


def doubled(kernel: Kernel, f: Formula, saved: Saved, grads: Grads, attributes: Mapping[str, Any]) -> Derived:
    """The gradients that a backward's own backward gives, for its gradients and what it was given."""
    count = sum(attributes["present"])
    known = {**dict(attributes["notes"]), **saved, "like": dict(saved["like"])}
    found = kernel.double(f, known, grads, **dict(attributes["given"]))
    return [found.get(GRAD), *(None for _ in range(count - 1)), *(found.get(role) for role in attributes["kept"])]
