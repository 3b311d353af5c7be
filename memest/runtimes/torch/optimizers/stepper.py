"""One optimizer step written on the ledger: what its calls allocate, and Python's locals that hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from memest.memory.stream import Storage
from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import Spec, nbytes
from memest.runtimes.torch.ledger import Ledger

STEP = Spec((), (), "float32")
"""The step counter, a tensor of its own."""


class Stepper:
    """Writes one optimizer step on the ledger, with Python's locals. ``on_cuda``: numbers are wrapped in the CPU's memory, and kernels cast
    as they load."""

    def __init__(self, ledger: Ledger, options: Mapping[str, Any], number: int | None, on_cuda: bool = False) -> None:
        self.options = options
        self.on_cuda = on_cuda
        self.number = number
        self._ledger = ledger
        self._locals: dict[str, list[Storage]] = {}

    def on(self, key: str) -> bool:
        """An option that changes what runs: true, or a number other than 0."""
        return bool(self.options.get(key))

    @property
    def first(self) -> bool:
        """True in the step in which states appear."""
        return self.number == 1

    def temporary(self, nbytes: int) -> Storage:
        """A new tensor nobody has named yet."""
        return self._ledger.allocate(nbytes)

    def free(self, *storages: Storage) -> None:
        """Drop unnamed tensors."""
        for s in storages:
            self._ledger.release(s)

    def let(self, name: str, *storages: Storage) -> None:
        """Bind a Python local; what it held before is dropped after."""
        old = self._locals.get(name, [])
        self._locals[name] = list(storages)
        self.free(*reversed(old))

    def end(self) -> None:
        """The function returns: locals die."""
        for held in self._locals.values():
            self.free(*reversed(held))
        self._locals.clear()

    def state(self, spec: Spec, owner: str) -> None:
        """A state tensor that appears in this step and stays."""
        s = self._ledger.allocate(nbytes(spec.shape, spec.dtype), "optimizer_state", f"state of {owner}")
        s.refs = 1

    # one parameter ---------------------------------------------------------------------------------------------------------

    def result(self, p: Spec) -> Storage:
        """A tensor operator's result, as large as the parameter."""
        return self.temporary(nbytes(p.shape, p.dtype))

    def number_op(self, p: Spec) -> None:
        """An in-place operator with a Python number: the wrapped float64, and its copy in the tensor's dtype."""
        self._with_number(p, None)

    def number_result(self, p: Spec) -> Storage:
        """The result of an operator with a Python number."""
        out: list[Storage] = []
        self._with_number(p, out)
        return out[0]

    def _with_number(self, p: Spec, out: list[Storage] | None) -> None:
        if self.on_cuda:
            if out is not None:
                out.append(self.result(p))
            return
        wrapped = self.temporary(8)
        cast = self.temporary(ITEMSIZE[p.dtype]) if p.dtype != "float64" else None
        if out is not None:
            out.append(self.result(p))
        if cast is not None:
            self.free(cast)
        self.free(wrapped)

    def mask(self, p: Spec) -> Storage:
        """A comparison with a Python number: a bool for each element."""
        if self.on_cuda:
            return self.temporary(prod(p.shape))
        wrapped = self.temporary(8)
        cast = self.temporary(ITEMSIZE[p.dtype])
        found = self.temporary(prod(p.shape))
        self.free(wrapped, cast)
        return found

    def replace_where(self, mask: Storage, p: Spec) -> None:
        """``tensor[mask] = number``: the number becomes a tensor of the CPU's; the mask dies."""
        if not self.on_cuda:
            self.free(self.temporary(ITEMSIZE[p.dtype]))
        self.free(mask)

    def power(self) -> Storage:
        """A Python number to the power of a step counter on the accelerator, where it becomes a tensor (``pow(Scalar, Tensor)``)."""
        found = self.result(STEP)
        self.free(self.temporary(8))
        return found

    def quotient(self) -> Storage:
        """A Python number divided by a tensor of one number: its reciprocal, times the number."""
        inverse = self.result(STEP)
        found = self.number_result(STEP)
        self.free(inverse)
        return found

    def follow(self, before: Storage) -> Storage:
        """A tensor of one number made of another, which dies, and of a Python number."""
        found = self.number_result(STEP)
        self.free(before)
        return found

    def count_step(self) -> None:
        """``step_t += 1`` on the float32 step counter."""
        self.number_op(STEP)

    def negate(self, p: Spec) -> None:
        """``grad = -grad`` when maximizing; else the local is rebound to the parameter's own gradient."""
        self.let("grad", *([self.result(p)] if self.on("maximize") else []))

    def decay(self, p: Spec) -> None:
        """``grad = grad.add(param, alpha=weight_decay)``, or ``param.mul_(1 - lr * weight_decay)`` where decay is decoupled."""
        if self.on("decoupled_weight_decay") and self.on("weight_decay"):
            self.number_op(p)
        elif self.on("weight_decay"):
            self.let("grad", self.result(p))

    # all parameters at once: the foreach variants ----------------------------------------------------------------------------

    def results(self, ps: Sequence[Spec]) -> list[Storage]:
        """Results of a foreach operator."""
        return [self.result(p) for p in ps]

    def numbers(self, ps: Sequence[Spec]) -> list[Storage]:
        """One number a parameter: the result of a foreach operator on step counters."""
        return self.results([STEP] * len(ps))

    def number_ops(self, ps: Sequence[Spec]) -> None:
        """An in-place foreach operator with a Python number."""
        for p in ps:
            self.number_op(p)

    def number_results(self, ps: Sequence[Spec]) -> list[Storage]:
        """Results of a foreach operator with a Python number."""
        return [self.number_result(p) for p in ps]

    def count_steps(self) -> None:
        """``_foreach_add_(steps, torch.tensor(1.0), alpha=1)``: one 4-byte tensor of the CPU's."""
        if not self.on_cuda:
            self.free(self.temporary(4))

    def negate_all(self, ps: Sequence[Spec]) -> None:
        """``grads = _foreach_neg(grads)`` when maximizing."""
        if self.on("maximize"):
            self.let("grads", *self.results(ps))

    def decay_all(self, ps: Sequence[Spec]) -> None:
        """Decayed copies of the gradients, where maximizing has not made copies already; or the parameters scaled in place."""
        if self.on("decoupled_weight_decay") and self.on("weight_decay"):
            self.number_ops(ps)
        elif self.on("weight_decay") and not self.on("maximize"):
            self.let("grads", *self.results(ps))
