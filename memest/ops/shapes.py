"""What calls give, without memory or autograd: the shapes, strides and dtypes of outputs, and whose storage they look at."""

from __future__ import annotations

from typing import Any

from memest.machines.target import Target
from memest.network.dtypes import FLOATING
from memest.network.tensor import Shape, Spec
from memest.ops import reading
from memest.ops.composite import Composite
from memest.ops.facts import FALLS_THROUGH, FLOAT32_RESULT, LOWER, PROMOTE, Policy
from memest.ops.operator import Operator
from memest.ops.reading import Items
from memest.ops.table import operator_named
from memest.ops.tape import Trace

Row = Operator | Composite


class Seen:
    """A tensor: its metadata, and the storage it looks at (the same object: the same storage)."""

    __slots__ = ("spec", "storage")
    requires_grad = trained = False

    def __init__(self, spec: Spec, storage: Any) -> None:
        self.spec = spec
        self.storage = storage

    @property
    def shape(self) -> Shape:
        """Its dims."""
        return self.spec.shape


class Shapes:
    """Runs rows and composites forward (:class:`memest.ops.composite.Caller`). With ``remember=False`` every row is read anew: traces of
    symbolic sizes must not be shared with those of plain ones. ``casts_to`` is the type of an autocast context around the calls."""

    grad_mode = False

    def __init__(self, target: Target, training: bool, *, remember: bool) -> None:
        self.target = target
        self.training = training
        self._forward = reading.forward if remember else reading.forward.__wrapped__
        self.casts_to: str | None = None

    def call(self, op: str, *tensors: Any, **attributes: Any) -> Any:
        """A call from inside a composite."""
        entry = operator_named(op)
        outputs = self.run(entry, tensors, tuple(entry.canonical(attributes).items()))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def drop(self, *values: Any) -> None:
        """Nothing is kept here."""

    def run(self, entry: Row, tensors: Any, attributes: Items) -> list[Seen | None]:
        """The outputs of one call. What works in place changes the tensor that it is given."""
        outer = self.casts_to
        policy = FALLS_THROUGH if outer is None else entry.facts.policy(attributes)
        if policy in (FALLS_THROUGH, FLOAT32_RESULT):
            return self._run(entry, tensors, attributes)
        self.casts_to = None
        try:
            return self._run(entry, _cast(tensors, _wanted(policy, str(outer), tensors)), attributes)
        finally:
            self.casts_to = outer

    def _run(self, entry: Row, tensors: Any, attributes: Items) -> list[Seen | None]:
        if isinstance(entry, Composite):
            result = entry.compose(self, *tensors, **dict(attributes))
            return list(result) if isinstance(result, tuple) else [result]
        trace, flat = self.read(entry, tensors, attributes)
        return self.outputs(trace, flat, {i: t.storage for i, t in enumerate(flat)})

    def read(self, entry: Operator, tensors: Any, attributes: Items) -> tuple[Trace, list[Seen]]:
        """A row's trace, and the tensors it was called with, flat."""
        flat, specs = reading.flattened(tensors)
        kinds = reading.kinds_of(attributes)
        return self._forward(entry, specs, attributes, (False,) * len(flat), self.training, self.target, kinds), flat

    def outputs(self, trace: Trace, flat: list[Seen], storages: dict[int, Any]) -> list[Seen | None]:
        """What a trace gives, on ``storages`` by slot; slots without one get a new object."""
        outputs: list[Seen | None] = []
        for out in trace.outputs:
            if out is None:
                outputs.append(None)
            elif out.same_as >= 0:
                flat[out.same_as].spec = out.spec
                outputs.append(flat[out.same_as])
            else:
                outputs.append(Seen(out.spec, storages.setdefault(out.slot, object())))
        return outputs


def _wanted(policy: Policy, lower: str, tensors: Any) -> str:
    """The type autocast casts to by ``policy``."""
    if policy is not PROMOTE:
        return lower if policy is LOWER else "float32"
    found = [t.spec.dtype for t in reading.flattened(tensors)[0] if _is_eligible(t)]
    return "float32" if "float32" in found else lower


def _cast(tensors: Any, dtype: str) -> list[Any]:
    def cast(t: Any) -> Any:
        if isinstance(t, list | tuple):
            return [cast(u) for u in t]
        if t is None or not _is_eligible(t) or t.spec.dtype == dtype:
            return t
        return Seen(t.spec._replace(dtype=dtype), object())

    return [cast(t) for t in tensors]


def _is_eligible(t: Seen) -> bool:
    return t.spec.dtype in FLOATING and t.spec.dtype != "float64"
