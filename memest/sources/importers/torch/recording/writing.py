"""A call of torch written down as a layer: our row's values, torch's answer, names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from memest.errors import GraphError, MemestError, unforeseen
from memest.network.dtypes import DIFFERENTIABLE
from memest.network.graph import Items, Layer, Reference
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.ops.table import operator_named
from memest.runtimes.torch.ledger import Value
from memest.sizes.dims import Guard, recording
from memest.sources.importers.torch.calls.plain import Request
from memest.sources.importers.torch.calls.queries import COUNTS_PARTS
from memest.sources.importers.torch.contexts.counters import COUNT
from memest.sources.importers.torch.contexts.selecting import Calls
from memest.sources.importers.torch.contexts.switching import gradients_on
from memest.sources.importers.torch.functions import on_meta
from memest.sources.importers.torch.recording.around import Around
from memest.sources.importers.torch.recording.executing import execute
from memest.sources.importers.torch.recording.layers import (
    count_parts,
    written,
)
from memest.sources.importers.torch.recording.repeats import Form, Known
from memest.sources.importers.torch.tensors.described import dtype_of
from memest.sources.importers.torch.tensors.live import Tracked
from memest.sources.importers.torch.tensors.numbers import depends

LIKE_ANOTHER = frozenset({"to", "to_device", "expand_as", "view_as", "reshape_as"})
"""Rows whose second tensor only says what the first becomes."""


NO_VIEWS = frozenset({"data", "detach"})
"""Rows that look at memory which autograd does not take for that of another tensor."""


class Begun(NamedTuple):
    """A layer that is about to run. ``flows``: a gradient reaches what it reads."""

    name: str
    op: str
    reads: Sequence[Any]
    tensors: tuple[Reference, ...]
    grad: bool
    flows: bool


class Writing(Around):
    """Writes layers down."""

    def _layer(self, request: Request, form: Form | None, guards: dict[Guard, None], func: Any, args: Any, kwargs: Any, host: bool) -> Any:
        """Run the row on the symbolic values and the call itself on meta, compare, write the layer."""
        op = request.op
        reads = [self._bound(t) for t in request.tensors]
        layer = self._begun(op, reads)
        row = operator_named(op)
        policy, casting = self.checkpoints.policy, self.contexts.casts_to is not None
        whole = policy is not None and torch.is_inference_mode_enabled()  # a mode of Python's sees calls there as they are written
        if whole and (casting or op == "linear"):
            raise self.refusal(f"{op} under torch.inference_mode inside a selective checkpoint (context_fn): take torch.no_grad there")
        self.machine.selection = ran = None if policy is None else Calls()
        if self.machine.target.dispatched != (policy is not None):
            self.machine.target = replace(self.machine.target, dispatched=policy is not None)
        for e in () if policy is None else _flat(reads):  # products are folded where a gradient is wanted
            e.value.requires_grad = layer.flows and e.grad
        around = nullcontext() if policy is None else policy.watching()
        with recording(None):
            values = self._by_rule(row, reads, request, func, args, kwargs)
            self.live.drops.append([])
            produced, answer = self.repeats.answer(
                form, row, self.live, values, lambda: execute(self.live, request, func, args, kwargs, values, casting, around)
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
            self.layers[-1] = replace(self.layers[-1], selected=() if whole else policy.chosen(ran.names))
        if policy is not None and whole:
            policy.check_inference()
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
        grad_enabled = gradients_on() and not torch.is_inference_mode_enabled()
        read = _flat(reads)
        flows = grad_enabled and True in [e.grad for e in (_flat(reads[:1]) if op in LIKE_ANOTHER else read)]
        if flows:
            self._flows()
            if True in [e.inference for e in read] and getattr(operator_named(op), "saves", None) != ():
                raise self.refusal("an inference tensor that is kept for backward: clone() it outside of torch.inference_mode()")
        said = grad_enabled or not (self.gradients or self.enables_grad)
        return Begun(name, op, reads, tuple([_names(e) for e in reads]), said, flows)

    def _written(
        self, layer: Begun, attributes: Items, tensors: Sequence[torch.Tensor], values: Sequence[Value], differentiable: bool
    ) -> None:
        """Name the outputs, and write the layer down."""
        packed = self.packings.of_call(operator_named(layer.op), layer.reads, attributes, self.module.training) if layer.flows else ()
        if layer.flows and layer.op == "setitem":  # which gives nothing
            self.live.wrote_into(layer.reads[0])
        outputs = self._adopt(layer, tensors, values, layer.flows and differentiable)
        self.assumed.noticed(outputs, values)
        self._note_line(layer.name)
        self.switches.seen(layer.name)
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
            op = request.attributes.get("of") if request.op == "autocast_operands" else request.op  # which stands for what comes before it
            raise e.at(f"{self._place()}: {op}") from None
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

    def _adopt(self, layer: Begun, tensors: Sequence[torch.Tensor], values: Sequence[Value], flows: bool) -> tuple[str, ...]:
        """Names for the outputs. ``flows``: a gradient reaches them."""
        names = (layer.name,) if len(tensors) == 1 else tuple([f"{layer.name}.{i}" for i in range(len(tensors))])
        for t, value, out in zip(tensors, values, names, strict=True):
            entry = self.live.found(t)
            if entry is not None:
                if flows:
                    self.live.wrote_into(entry)
                self.live.again(entry, out, value, flows)
            else:
                known = torch.is_inference_mode_enabled()
                made = self.live.follow(t, out, value, flows and value.spec.dtype in DIFFERENTIABLE, inference=known)
                if layer.op not in NO_VIEWS:
                    for seen in _flat(layer.reads):
                        if seen.value.storage is value.storage:
                            made.base = seen.base or seen
                            break
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
        if isinstance(first, Tracked) and first.names[0].endswith("num_batches_tracked"):
            return f"{path}.{COUNT}".lstrip(".")
        if not path:
            return op
        return path if not self.live.taken(path) and self._in_leaf(path) else f"{path}.{op}"

    def _in_leaf(self, path: str) -> bool:
        """Whether the innermost module that has a path has no modules in it."""
        place = self.stack[-1].place
        try:
            found = self.module.get_submodule(path) if place is None else place
        except AttributeError:
            return False
        return not found._modules or all(m is None for m in found._modules.values())


# helpers -----------------------------------------------------------------------------------------------------------------


def _tensors(produced: Any) -> list[torch.Tensor]:
    """What a call gives, flat."""
    results = produced if isinstance(produced, tuple | list) else (produced,)
    return [r for r in results if isinstance(r, torch.Tensor)]


def _flat(entries: Sequence[Any]) -> list[Tracked]:
    found: list[Tracked] = []
    for e in entries:
        if type(e) is list:
            found += e
        elif e is not None:
            found.append(e)
    return found


def _values(entry: Any) -> Any:
    if entry is None:
        return None
    return [e.value for e in entry] if isinstance(entry, list) else entry.value


def _names(entry: Any) -> Any:
    if entry is None:
        return None
    return tuple(e.names[-1] for e in entry) if isinstance(entry, list) else entry.names[-1]
