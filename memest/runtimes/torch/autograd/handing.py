"""Gradients on their way: as their target wants them, added to others, and kept where a leaf is reached.

Sources: torch/csrc/autograd/engine.cpp (validate_outputs), input_buffer.cpp (accumulation), functions/accumulate_grad.h (stealing or
copying into ``.grad``).
"""

from __future__ import annotations

from collections.abc import Callable

from memest.errors import UnsupportedError
from memest.machines.target import Target
from memest.network.tensor import Shape, Spec, contiguous_strides, is_contiguous, is_non_overlapping_and_dense, nbytes, same_shape
from memest.ops.aten.copies import transposed_block, transposes
from memest.ops.aten.iterator import iterator_strides, preserved_strides
from memest.ops.aten.reductions import sum_to
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.autograd.applying import Applying
from memest.runtimes.torch.autograd.created import Created
from memest.runtimes.torch.autograd.nodes import AccumulateGrad, Node
from memest.runtimes.torch.autograd.stale import ACCUMULATED
from memest.runtimes.torch.ledger import Ledger, Value


class Handing(Applying):
    """Hands gradients on. ``gradients`` are those of the leaves, by name; with ``create_graph`` all of it is played by ``created``."""

    def __init__(self, ledger: Ledger, training: bool, target: Target, *, remember: bool = True) -> None:
        super().__init__(ledger, training, target, remember=remember)
        self.gradients: dict[str, Value] = {}
        self.gradients_stand = False  # from the steps before, zeroed in place
        self.gradients_are_views = False  # of what stands for itself, once a step is done
        self.on_gradient: Callable[[AccumulateGrad], None] | None = None
        self._creates = False  # what backward computes has a backward of its own
        self.created: Created | None = None

    @property
    def creates(self) -> bool:
        """Whether what the backward that runs computes has a backward of its own."""
        return self._creates

    @property
    def _recorded(self) -> Created:
        assert self.created is not None
        return self.created

    def _validated(self, gradient: Value | None, edge: tuple[Node | AccumulateGrad, int] | None) -> Value | None:
        """validate_outputs: a gradient of a broadcast shape is summed to the shape its input had."""
        if gradient is None or edge is None:
            return gradient
        target, nr = edge
        wanted = target.value.spec if isinstance(target, AccumulateGrad) else target.out_specs[nr]
        if self._creates:
            return self._recorded.fitted(gradient, wanted)
        if not same_shape(gradient.spec.shape, wanted.shape):
            gradient = self._summed(gradient, wanted.shape)
        if gradient.spec.dtype != wanted.dtype:
            strides = preserved_strides(Tensor(*gradient.spec, 0))
            gradient = self._replaced(gradient, Spec(wanted.shape, strides, wanted.dtype))
        return gradient

    def _summed(self, old: Value, shape: Shape) -> Value:
        tape = Tape(1, (False,), self.training, self.target)
        out = sum_to(tape, Tensor(*old.spec, 0), shape)
        storages = self._replay(tape.finish((), (out,)).events, [old.storage])
        new = self.ledger.hold(Value(out.spec, storages[out.slot]))
        if shape and len(old.spec.shape) > len(shape):  # sum_to: a sum with dims of one, and a view without them, which keeps it
            self._hold_base(new, None)
        self.ledger.let_go(old)
        return new

    def _replaced(self, old: Value, spec: Spec) -> Value:
        ledger = self.ledger
        new = ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))
        ledger.let_go(old)
        return new

    def _add_to_buffer(self, target: Node | AccumulateGrad, nr: int, gradient: Value, added: list[Value]) -> None:
        if isinstance(target, AccumulateGrad):
            target.buffer = self._accumulated(target.buffer, gradient, added)
            return
        if not target.buffer:
            target.buffer = [None] * len(target.out_specs)
        target.buffer[nr] = self._accumulated(target.buffer[nr], gradient, added)

    def _accumulated(self, old: Value | None, new: Value, added: list[Value]) -> Value:
        """InputBuffer::accumulate: in place when the buffer alone holds a dense tensor, else into a new one. What was ``added`` to another
        is let go of when all gradients of its node have been handed on."""
        if old is None:
            return new
        ledger = self.ledger
        added.append(new)
        if self._creates:
            return self._recorded.total(old, new)
        if old.storage.refs == 1 and is_non_overlapping_and_dense(old.spec.shape, old.spec.strides):
            return old
        operands = [Tensor(v.spec.shape, v.spec.strides, v.spec.dtype, i) for i, v in enumerate((old, new))]
        spec = Spec(old.spec.shape, iterator_strides(old.spec.shape, operands), old.spec.dtype)
        total = ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))
        ledger.let_go(old)
        return total

    def _accumulate_grad(self, leaf: AccumulateGrad) -> None:
        """The first gradient of a parameter is taken over when nobody else holds it and it lies as the parameter does, else copied; later
        ones (of another backward) are added to it in place."""
        gradient = leaf.buffer
        leaf.buffer = None
        if gradient is None:
            return
        ledger = self.ledger
        if not leaf.value.requires_grad:  # turned off since
            ledger.let_go(gradient)
            return
        if not leaf.after:
            self._keep_gradient(leaf, gradient)
            return
        came = gradient.storage  # the engine's own hold of it, until hooks have run
        came.refs += 1
        self._keep_gradient(leaf, gradient)
        for run in leaf.after:
            run()
        ledger.let_go_storage(came)

    def _keep_gradient(self, leaf: AccumulateGrad, gradient: Value) -> None:
        ledger = self.ledger
        if self.gradients_stand and leaf.name not in self.gradients and not leaf.mortal:
            spec = _kept_spec(gradient.spec, leaf.value.spec)
            standing = ledger.resident(0 if self.gradients_are_views else nbytes(spec.shape, spec.dtype), "gradient", leaf.name)
            standing.reason = f"gradient of {leaf.name}"
            self.gradients[leaf.name] = ledger.hold(Value(spec, standing))
        if leaf.name in self.gradients:
            if self._creates and self.gradients[leaf.name].storage in ledger.residents:
                raise UnsupportedError(
                    f"backward(create_graph=True) into {leaf.name}, whose gradient stands since before the step: set it to None before"
                )
            if self._creates:  # added out of place, by a call that is recorded
                self.gradients[leaf.name] = self._recorded.total(self.gradients[leaf.name], gradient)
            else:
                ledger.wrote(self.gradients[leaf.name], leaf.name, ACCUMULATED)
            self._tell(leaf)
            ledger.let_go(gradient)
            return
        if self._creates:
            kept = self._recorded.copy(gradient, _kept_spec(gradient.spec, leaf.value.spec))
            ledger.let_go(gradient)
        elif gradient.refs == 1 and _obeys_layout(gradient.spec, leaf.value.spec):
            kept = gradient
        else:
            spec = _kept_spec(gradient.spec, leaf.value.spec)
            kept = ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))
            if not self.target.on_cuda and transposes(gradient.spec, kept.spec):
                side = transposed_block(spec.dtype)
                ledger.release(ledger.allocate(nbytes((side, side), spec.dtype)))
            ledger.let_go(gradient)
        kept.storage.category = "gradient"
        kept.storage.reason = f"gradient of {leaf.name}"
        self.gradients[leaf.name] = kept
        self._tell(leaf)

    def _tell(self, leaf: AccumulateGrad) -> None:
        """The post hooks of a leaf: its gradient is there, or grew."""
        if self.on_gradient is not None and not leaf.mortal:
            self.on_gradient(leaf)


def _kept_spec(gradient: Spec, parameter: Spec) -> Spec:
    """What a gradient lies as when it is kept: as it is where that obeys the contract, else as the parameter does, or row-major."""
    if _obeys_layout(gradient, parameter):
        return gradient
    dense = is_non_overlapping_and_dense(parameter.shape, parameter.strides)
    return Spec(parameter.shape, parameter.strides if dense else contiguous_strides(parameter.shape), gradient.dtype)


def _obeys_layout(grad: Spec, parameter: Spec) -> bool:
    """obeys_layout_contract: the parameter's strides (of size-1 dims: any but 0), or row-major when the parameter is not dense."""
    if is_non_overlapping_and_dense(parameter.shape, parameter.strides):
        return all(a == b if n != 1 else a != 0 for n, a, b in zip(grad.shape, grad.strides, parameter.strides, strict=True))
    return is_contiguous(grad.shape, grad.strides)
