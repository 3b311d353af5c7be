"""What a node computes when it runs: the kernels of a row's backward, and those of the engine's own nodes.

Sources: torch/csrc/autograd/functions/tensor.cpp (CopySlices::apply), FunctionsManual.cpp (as_strided_backward).
"""

from __future__ import annotations

from memest.errors import UnsupportedError
from memest.machines.target import Target
from memest.network.tensor import Spec, contiguous_strides, nbytes
from memest.ops import reading
from memest.runtimes.torch.autograd.asked import Asked
from memest.runtimes.torch.autograd.functions import Functions
from memest.runtimes.torch.autograd.nodes import AS_STRIDED, PASS, Node
from memest.runtimes.torch.autograd.saving import Holder
from memest.runtimes.torch.ledger import Ledger, Value


class Applying(Functions):
    """Runs nodes backward, one at a time; what is ``_asked`` says which gradients they compute."""

    def __init__(self, ledger: Ledger, training: bool, target: Target, *, remember: bool = True) -> None:
        super().__init__(ledger, training, target, remember=remember)
        self._backward = reading.backward if remember else reading.for_symbols(reading.backward)
        self._asked: Asked | None = None

    def _apply(self, node: Node, grads: list[Value | None]) -> list[Value | None]:
        ledger = self.ledger
        assert node.row is not None and node.trace is not None
        grads = grads[: len(node.trace.outputs)]
        present = [g for g in grads if g is not None]
        if not present:
            return [None] * len(node.edges)
        saved = node.saved.unpack()
        trace = self._backward(
            node.row,
            node.saved.specs(node.saved_specs),
            node.notes,
            tuple(None if g is None else g.spec for g in grads),
            node.attributes,
            node.needs if self._asked is None else self._asked.needs(node),
            self.training,
            self.target,
            reading.kinds_of(node.attributes),
        )
        storages = self._replay(trace.events, [*saved, *(g.storage for g in present)])
        outputs: list[Value | None] = []
        for out in trace.outputs:
            if out is None:
                outputs.append(None)
            elif out.same_as >= len(saved):
                outputs.append(ledger.hold(present[out.same_as - len(saved)]))
            else:
                value = ledger.hold(Value(out.spec, storages[out.slot]))
                if out.is_view:
                    source = out.slot - len(saved)
                    self._hold_base(value, present[source] if 0 <= source < len(present) else None)
                outputs.append(value)
        node.saved.leave(ledger)
        return outputs

    def _apply_engine_node(self, node: Node, grads: list[Value | None]) -> list[Value | None]:
        ledger = self.ledger
        if node.op == PASS:
            return [None if g is None else ledger.hold(g) for g in grads]
        (grad,) = grads
        assert grad is not None
        facts = dict(node.notes)
        if node.op == AS_STRIDED:
            if facts["recast"]:  # torch makes each view anew instead of the strides at once (ViewInfo::chain)
                raise UnsupportedError(
                    f"{node.layer}: the gradient of a view between real and complex numbers (view_as_real, view_as_complex) whose memory"
                    " was written to in place is not modelled: write out of place, or into a clone() before the view"
                )
            return [self._as_strided(node.out_specs[0], facts["base"])]
        return self._copy_slices(node, facts["view"])

    def _as_strided(self, view: Spec, base: Spec) -> Value:
        """as_strided_backward: dims that were expanded are summed, from the last on, then it goes into zeros."""
        left, summed = list(view.shape), None
        for d in range(len(left) - 1, -1, -1):
            if left[d] != 1 and type(view.strides[d]) is int and view.strides[d] == 0:
                del left[d]
                before, summed = summed, self._fresh(Spec(tuple(left), contiguous_strides(left), view.dtype))
                if before is not None:
                    self.ledger.let_go(before)
        found = self._fresh(base)
        if summed is not None:
            self.ledger.let_go(summed)
        return found

    def _fresh(self, spec: Spec) -> Value:
        ledger = self.ledger
        return ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))

    def _copy_slices(self, node: Node, view: Spec) -> list[Value | None]:
        """CopySlices::apply: the gradient of the base is copied, the operator's backward runs on a clone of the slice, and what it gives
        is written back into the copy, which goes with the function where the base wants no gradient."""
        ledger, inner = self.ledger, node.inner
        assert inner is not None
        result = self._fresh(node.out_specs[0])
        clone = self._fresh(Spec(view.shape, contiguous_strides(view.shape), view.dtype))
        inner.saved = node.saved
        outputs = self._apply(inner, [clone])
        inner.saved = Holder([])
        ledger.let_go(clone)
        if outputs[0] is not None:
            ledger.let_go(outputs[0])
        if node.edges[0] is None:  # nobody wants the base's
            ledger.let_go(result)
            return [None, *outputs[1:]]
        return [result, *outputs[1:]]
