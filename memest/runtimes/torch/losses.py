"""The losses a training step can end in, by name: what computes them, and what target a prediction needs.

A name is one of ``LOSSES`` (with or without ``_loss``), optionally a factor before it and options after it, and sums of these:
``cross_entropy``, ``dice``, ``cross_entropy:label_smoothing=0.1,reduction=sum``, ``cross_entropy + 0.5*dice:batch=true``.

``over`` and a weight for each output (deep supervision) applies it to all of them, each with a target of its own, as
``sum([w * loss(o, t) for w, o, t in zip(weights, outputs, targets) if w])`` does: ``cross_entropy over 1,0.5,0.25,0``.

``output`` takes the first output itself, of a network that is called with its target and returns its loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from memest.errors import UnknownNameError, UsageError, one_of
from memest.network.tensor import Spec, spec
from memest.ops.composite import Caller, Composite
from memest.ops.facts import EVERYWHERE_CALLS
from memest.ops.operator import Operator
from memest.ops.table import COMPOSITES, OPERATORS
from memest.shown import counted

Target = Callable[[Spec, Mapping[str, Any]], Spec]


def _class_indices(prediction: Spec, options: Mapping[str, Any]) -> Spec:
    return spec((*prediction.shape[:1], *prediction.shape[2:]), "int64")


def _like_prediction(prediction: Spec, options: Mapping[str, Any]) -> Spec:
    return spec(prediction.shape, prediction.dtype)


def _dice_target(prediction: Spec, options: Mapping[str, Any]) -> Spec:
    """Exclusive classes (softmax) come as indices, overlapping ones (sigmoid) as masks."""
    return (_like_prediction if options["activation"] == "sigmoid" else _class_indices)(prediction, options)


def _label_map(prediction: Spec, options: Mapping[str, Any]) -> Spec:
    """Labels as nnU-Net's data loader gives them: int16 with a channel of one."""
    return spec((*prediction.shape[:1], 1, *prediction.shape[2:]), "int16")


def _region_masks(prediction: Spec, options: Mapping[str, Any]) -> Spec:
    return spec(prediction.shape, "bool")


LOSSES: dict[str, Target] = {
    "cross_entropy": _class_indices,
    "nll_loss": _class_indices,
    "dice_loss": _dice_target,
    "dc_and_ce_loss": _label_map,
    "dc_and_bce_loss": _region_masks,
    "binary_cross_entropy": _like_prediction,
    "binary_cross_entropy_with_logits": _like_prediction,
    "mse_loss": _like_prediction,
    "l1_loss": _like_prediction,
    "smooth_l1_loss": _like_prediction,
    "huber_loss": _like_prediction,
    "kl_div": _like_prediction,
}
OUTPUT = "output"
"""The loss of a network that returns its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One summand: ``factor * op(prediction, target, **options)``; options are canonical."""

    op: str
    options: Mapping[str, Any] = field(hash=False)
    factor: float | None

    @property
    def entry(self) -> Operator | Composite:
        """The row or composite that computes it."""
        return _entry(self.op)

    def target(self, prediction: Spec) -> Spec:
        """The target's metadata for a prediction."""
        return LOSSES[self.op](prediction, self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A loss: the name it was asked by, its summands (none where the output is the loss), and the ``weights`` of the outputs it is taken
    over (None: of the first alone)."""

    name: str
    terms: tuple[Term, ...]
    weights: tuple[float, ...] | None = None

    def taken(self, outputs: int) -> int:
        """How many of a network's outputs it takes, from the first on; UsageError where weights do not fit their number."""
        if self.weights is None:
            return 1
        if len(self.weights) != outputs:
            given, there = counted(len(self.weights), "weight"), counted(outputs, "output")
            raise UsageError(f"loss {self.name!r}: {given} for {there}; give one for each, 0 to leave one out")
        return outputs

    def target(self, prediction: Spec) -> Spec | None:
        """The target's metadata for a prediction, None where there is none; UsageError when the summands want different ones."""
        if not self.terms:
            return None
        wanted = [term.target(prediction) for term in self.terms]
        for term, other in zip(self.terms[1:], wanted[1:], strict=True):
            if other != wanted[0]:
                first = self.terms[0].op
                raise UsageError(
                    f"loss {self.name!r}: {first} wants a {wanted[0].dtype} target of shape {list(wanted[0].shape)}, "
                    f"{term.op} a {other.dtype} one of shape {list(other.shape)}"
                )
        return wanted[0]

    def notes(self, prediction: Spec) -> tuple[str, ...]:
        """What to know before training with it, in words; empty where all is usual."""
        over = [term.op for term in self.terms if prediction.shape[1:2] == (1,) and term.target(prediction).dtype == "int64"]
        fitting = "binary_cross_entropy_with_logits (binary_cross_entropy after a sigmoid)"
        return tuple(f"{op} over one channel is the same for every prediction: nothing is learned; {fitting} is made for it" for op in over)

    @property
    def composite(self) -> Composite:
        """What computes it from (prediction, target), options bound; autocast casts a loss of one term as it casts that term."""
        single = self.terms[0] if len(self.terms) == 1 and self.terms[0].factor is None else None

        def compose(c: Caller, prediction: Any, target: Any) -> Any:
            total = _computed(c, self.terms[0], prediction, target)
            for term in self.terms[1:]:
                value = _computed(c, term, prediction, target)
                before, total = total, c.call("add", total, value)
                c.drop(before, value)
            return total

        return Composite(
            name=self.name,
            torch="",
            roles=("prediction", "target"),
            attributes=(),
            compose=compose,
            examples=(),
            facts=EVERYWHERE_CALLS if single is None else EVERYWHERE_CALLS.but(autocast=single.entry.facts.autocast),
            source="memest/runtimes/torch",
        )


def _computed(c: Caller, term: Term, prediction: Any, target: Any) -> Any:
    absent = (None,) * (len(term.entry.roles) - 2)
    value = c.call(term.op, prediction, target, *absent, **term.options)
    if term.factor is None:
        return value
    scaled = c.call("mul", value, None, value=term.factor)
    c.drop(value)
    return scaled


def loss_named(name: str) -> Loss:
    """The loss called ``name``; UnknownNameError with the nearest known name, GraphError for an option the loss does not have."""
    if name == OUTPUT:
        return Loss(name=name, terms=())
    head, over, tail = name.partition(" over ")
    weights = tuple(_number(text.strip(), name, "after over") for text in tail.split(",")) if over else None
    if weights is not None and not any(weights):
        raise UsageError(f"loss {name!r}: all weights are 0")
    return Loss(name=name, terms=tuple(_term(part.strip(), name) for part in head.split("+")), weights=weights)


def _term(text: str, whole: str) -> Term:
    head, _, tail = text.partition(":")
    before, star, op = head.rpartition("*")
    factor = _number(before.strip(), whole, "before *") if star else None
    op = _known(op.strip())
    given = dict(_option(pair, whole) for pair in tail.split(",")) if tail else {}
    if given.get("reduction") == "none":
        raise UsageError(f"loss {whole!r}: training needs a scalar, so reduction cannot be none")
    return Term(op=op, options=_entry(op).canonical(given), factor=factor)


def _entry(op: str) -> Operator | Composite:
    return COMPOSITES.get(op) or OPERATORS[op]


def _known(op: str) -> str:
    found = op if op in LOSSES else _SPELLINGS.get(_spelling(op.rpartition(".")[2]))
    if found is None:
        if op == OUTPUT:
            raise UsageError(f"loss {OUTPUT!r} stands alone: it takes no options, no weights and no other loss beside it")
        raise UnknownNameError(f"unknown loss {op!r}{one_of(op, LOSSES)}")
    return found


def _spelling(name: str) -> str:
    """A name without what spellings differ in: capitals, underscores and ``loss`` at the end."""
    return name.lower().replace("_", "").removesuffix("loss")


_SPELLINGS = {_spelling(name): name for name in LOSSES} | {
    "bce": "binary_cross_entropy",
    "bcewithlogits": "binary_cross_entropy_with_logits",
    "ce": "cross_entropy",
    "kl": "kl_div",
    "l2": "mse_loss",
    "mae": "l1_loss",
}


def _number(text: str, whole: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"loss {whole!r}: {text!r} {where} is not a number") from None


def _option(pair: str, whole: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in pair.partition("="))
    if not equals:
        raise UsageError(f"loss {whole!r}: option {pair.strip()!r} is not written name=value")
    return key, _value(value)


def _value(text: str) -> Any:
    """A number or a bool where ``text`` is one, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            pass
    return text
