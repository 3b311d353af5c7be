"""nnU-Net's losses of one output: soft dice beside cross entropy, by the names of its classes.

The dice is ``MemoryEfficientSoftDiceLoss``: sums over space first, then (``batch_dice``) over the batch; the label map becomes one float32
plane a class through an int64 copy, and lives until the score is there. Label maps have a channel of one (N, 1, space), regions one of
bools each. With ``ignore_label`` a mask goes into every product.
"""

from __future__ import annotations

from typing import Any

from memest.errors import ShapeError
from memest.ops.aten.copies import scatter_into
from memest.ops.composite import Caller, Composite
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, flag, integer, number, optional
from memest.ops.tape import Tape, Tensor

SMOOTH = 1e-5


def _scatter_number(k: Tape, input: Tensor, index: Tensor, *, dim: int, value: float) -> Tensor:
    if len(input.shape) != len(index.shape):
        raise ShapeError(f"scatter_ into {len(input.shape)} dims needs an index of as many, got {len(index.shape)}")
    scatter_into(k, input)
    return input


def _planes(c: Caller, probabilities: Any, target: Any) -> Any:
    """The target as float32 planes of the prediction's shape."""
    if tuple(target.shape) == tuple(probabilities.shape):
        return c.call("to", target, None, dtype="float32")
    planes = c.call("zeros", shape=tuple(probabilities.shape), dtype="float32")
    index = c.call("to", target, None, dtype="int64")
    c.call("scatter_", planes, index, dim=1, value=1)
    c.drop(index)
    return planes


def _rebound(c: Caller, value: Any, op: str, /, *others: Any, **attributes: Any) -> Any:
    """``value = op(value)``: what the variable held goes when the new value is there."""
    made = c.call(op, value, *others, **attributes)
    c.drop(value)
    return made


def _sums(c: Caller, value: Any, mask: Any, dims: tuple[int, ...]) -> Any:
    """``(value * mask).sum(dims)``, or without a mask the sums alone."""
    if mask is None:
        return c.call("sum", value, dim=dims, dtype="float32")
    return _rebound(c, c.call("mul", value, mask), "sum", dim=dims, dtype="float32")


def _soft_dice(c: Caller, logits: Any, target: Any, mask: Any, *, regions: bool, batch_dice: bool) -> Any:
    """``MemoryEfficientSoftDiceLoss.forward``; the background has no score where classes exclude one another."""
    x = c.call("sigmoid", logits) if regions else c.call("softmax", logits, dim=1)
    dims = tuple(range(2, len(logits.shape)))
    planes = _planes(c, x, target)
    if not regions:
        planes = _rebound(c, planes, "slice", dim=1, start=1)
    expected = _sums(c, planes, mask, dims)
    if not regions:
        x = _rebound(c, x, "slice", dim=1, start=1)
    product = c.call("mul", x, planes)
    if mask is not None:
        product = _rebound(c, product, "mul", mask)
    overlap = _rebound(c, product, "sum", dim=dims, dtype="float32")
    predicted = _sums(c, x, mask, dims)
    if batch_dice:
        overlap, predicted, expected = (_rebound(c, t, "sum", dim=(0,), dtype="float32") for t in (overlap, predicted, expected))
    numerator = _rebound(c, c.call("mul", overlap, None, value=2), "add", None, value=SMOOTH)
    denominator = _rebound(c, c.call("add", expected, predicted), "add", None, value=SMOOTH)
    denominator = _rebound(c, denominator, "clamp_min", min=1e-8)
    score = c.call("div", numerator, denominator)
    c.drop(numerator, denominator)
    loss = c.call("neg", _rebound(c, score, "mean"))
    c.drop(x, planes)
    return loss


def _both(c: Caller, entropy: Any, dice: Any) -> Any:
    """``1 * entropy + 1 * dice``."""
    terms = [c.call("mul", term, None, value=1) for term in (entropy, dice)]
    total = c.call("add", *terms)
    c.drop(*terms)
    return total


def _dc_and_ce(c: Caller, input: Any, target: Any, *, batch_dice: bool, ignore_label: int | None) -> Any:
    _check_target(input, target, 1)
    mask, labels, count = None, target, None
    ignored = {} if ignore_label is None else {"ignore_index": ignore_label}
    if ignore_label is not None:
        mask = c.call("ne", target, None, value=ignore_label)
        labels = c.call("where", mask, target, None, other_value=0)
        count = c.call("sum", mask)
    dice = c.call("soft_dice_loss", input, labels, mask, regions=False, batch_dice=batch_dice)
    if count is not None:
        c.drop(c.call("gt", count, None, value=0))
    classes = c.call("to", c.call("select", target, dim=1, index=0), None, dtype="int64")
    entropy = c.call("cross_entropy", input, classes, None, **ignored)
    c.drop(classes)
    return _both(c, entropy, dice)


def _dc_and_bce(c: Caller, input: Any, target: Any, *, batch_dice: bool) -> Any:
    _check_target(input, target, input.shape[1])
    dice = c.call("soft_dice_loss", input, target, None, regions=True, batch_dice=batch_dice)
    regions = c.call("to", target, None, dtype="float32")
    return _both(c, c.call("binary_cross_entropy_with_logits", input, regions, None, None), dice)


def _check_target(input: Any, target: Any, channels: Any) -> None:
    wanted = (*input.shape[:1], channels, *input.shape[2:])
    if len(wanted) < 3 or tuple(target.shape) != wanted:
        raise ShapeError(f"a prediction of shape {list(input.shape)} needs a target of shape {list(wanted)}, got {list(target.shape)}")


_BATCH = Attribute(name="batch_dice", default=False, check=flag)
_IGNORE = Attribute(name="ignore_label", default=None, check=optional(integer))
_SHAPE, _LABELS = (2, 3, 4, 5, 2), (2, 1, 4, 5, 2)
_AS_LABELS, _AS_REGIONS = ("float32", "int16"), ("float32", "bool")
_SOURCE = "nnunetv2 2.8.1, training/loss/{compound_losses,dice,robust_ce_loss}.py"

ROWS = (
    Operator(
        name="scatter_",
        torch="",
        oracle="scatter_number",
        roles=("input", "index"),
        attributes=(Attribute(name="dim", default=REQUIRED, check=integer), Attribute(name="value", default=REQUIRED, check=number)),
        forward=_scatter_number,
        saves=(),
        backward=None,
        examples=(
            Example(shapes=((2, 3, 4, 5), (2, 1, 4, 5)), attributes={"dim": 1, "value": 1}, dtypes=("float32", "int64"), frozen=(0,)),
        ),
        facts=EVERYWHERE_FACTS,
        source="aten/src/ATen/native/TensorAdvancedIndexing.cpp (scatter_.value)",
    ),
)
COMPOSITE_ROWS = (
    Composite(
        name="soft_dice_loss",
        torch="",
        oracle="soft_dice_loss",
        roles=("input", "target", "mask?"),
        attributes=(Attribute(name="regions", default=False, check=flag), _BATCH),
        compose=_soft_dice,
        examples=(
            Example(shapes=(_SHAPE, _LABELS, None), attributes={}, dtypes=_AS_LABELS),
            Example(shapes=(_SHAPE, _LABELS, _LABELS), attributes={"batch_dice": True}, dtypes=(*_AS_LABELS, "bool")),
            Example(shapes=(_SHAPE, _SHAPE, None), attributes={"regions": True, "batch_dice": True}, dtypes=_AS_REGIONS),
        ),
        facts=EVERYWHERE_CALLS,
        source=f"{_SOURCE}: MemoryEfficientSoftDiceLoss",
    ),
    Composite(
        name="dc_and_ce_loss",
        torch="",
        oracle="dc_and_ce_loss",
        roles=("input", "target"),
        attributes=(_BATCH, _IGNORE),
        compose=_dc_and_ce,
        examples=(
            Example(shapes=(_SHAPE, _LABELS), attributes={}, dtypes=_AS_LABELS),
            Example(shapes=((2, 3, 4, 5), (2, 1, 4, 5)), attributes={"batch_dice": True}, dtypes=_AS_LABELS),
            Example(shapes=(_SHAPE, _LABELS), attributes={"ignore_label": 3}, dtypes=_AS_LABELS),
        ),
        facts=EVERYWHERE_CALLS,
        source=f"{_SOURCE}: DC_and_CE_loss, RobustCrossEntropyLoss",
    ),
    Composite(
        name="dc_and_bce_loss",
        torch="",
        oracle="dc_and_bce_loss",
        roles=("input", "target"),
        attributes=(_BATCH,),
        compose=_dc_and_bce,
        examples=(
            Example(shapes=(_SHAPE, _SHAPE), attributes={}, dtypes=_AS_REGIONS),
            Example(shapes=((2, 3, 4, 5), (2, 3, 4, 5)), attributes={"batch_dice": True}, dtypes=_AS_REGIONS),
        ),
        facts=EVERYWHERE_CALLS,
        source=f"{_SOURCE}: DC_and_BCE_loss",
    ),
)
