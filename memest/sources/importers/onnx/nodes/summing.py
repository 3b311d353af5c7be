"""Products, reductions, normalizations and resizing: what takes many elements for one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from memest.errors import GraphError
from memest.network.layers import PART
from memest.sources.builder import Node
from memest.sources.importers.onnx.call import Call, Handler, Result
from memest.sources.importers.onnx.writing import shape_of

LARGEST_DENOMINATOR = 1024


def matmul(c: Call) -> Result:
    """``MatMul``."""
    made: Result = c.layer("matmul", c.tensor(0), c.tensor(1))
    return made


def gemm(c: Call) -> Result:
    """``Gemm``: a linear layer where it is one, else a product with a summand."""
    a, b, bias = c.tensor(0), c.tensor(1), c.optional(2)
    alpha, beta = c.attribute("alpha", 1.0), c.attribute("beta", 1.0)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise GraphError(f"multiplies matrices, got {len(a.shape)} and {len(b.shape)} dims")
    a = c.layer("t", a) if c.attribute("transA", 0) else a
    plain = alpha == 1 and (bias is None or (beta == 1 and len(bias.shape) == 1))
    made: Result
    if c.attribute("transB", 0) and plain:
        made = c.layer("linear", a, b, bias)
        return made
    b = c.layer("t", b) if c.attribute("transB", 0) else b
    if bias is not None:
        made = c.layer("addmm", bias, a, b, beta=beta, alpha=alpha)
    elif alpha == 1:
        made = c.layer("mm", a, b)
    else:
        made = c.layer("mul", c.layer("mm", a, b), None, value=alpha)
    return made


def einsum(c: Call) -> Result:
    """``Einsum``."""
    made: Result = c.layer("einsum", [c.tensor(i) for i in range(len(c.inputs))], equation=c.attribute("equation", ""))
    return made


def _axes(c: Call, ndim: int) -> tuple[int, ...] | None:
    """The dims that are reduced; None where nothing is."""
    found = c.axes(1, ndim)
    if found:
        return found
    return None if c.attribute("noop_with_empty_axes", 0) else tuple(range(ndim))


def _reduced(op: str, **how: Any) -> Handler:
    def handler(c: Call) -> Result:
        x = c.tensor(0)
        dims = _axes(c, len(x.shape))
        if dims is None or not x.shape:
            return x
        made: Result = c.layer(op, x, dim=dims, keepdim=bool(c.attribute("keepdims", 1)), **how)
        return made

    return handler


def _reduced_of(first: Sequence[tuple[str, dict[str, Any]]], op: str, last: str | None = None) -> Handler:
    """A reduction of a function of the elements."""

    def handler(c: Call) -> Result:
        x = c.tensor(0)
        dims = _axes(c, len(x.shape))
        made: Any = x
        for name, how in first:
            made = c.layer(name, made, None, called=f"{PART}{c.op}", **how)
        if dims is not None:
            made = c.layer(op, made, called=f":{c.op}" if first else "", dim=dims, keepdim=bool(c.attribute("keepdims", 1)))
        result: Result = made if last is None else c.layer(last, made)
        return result

    return handler


def _product(c: Call) -> Result:
    """Torch multiplies along one dim at a time."""
    made = c.tensor(0)
    dims, keep = _axes(c, len(made.shape)) or (), bool(c.attribute("keepdims", 1))
    for at in sorted(dims, reverse=True):
        made = c.layer("prod", made, called="" if at == min(dims) else f"{PART}{c.op}", dim=at, keepdim=keep)
    return made


def _arg(op: str) -> Handler:
    def handler(c: Call) -> Result:
        x = c.tensor(0)
        made: Result = c.layer(op, x, dim=c.axis(0, len(x.shape)), keepdim=bool(c.attribute("keepdims", 1)))
        return made

    return handler


def topk(c: Call) -> Result:
    """``TopK``."""
    x = c.tensor(0)
    how = {"largest": bool(c.attribute("largest", 1)), "sorted": bool(c.attribute("sorted", 1))}
    made: Result = c.layer("topk", x, k=c.number(1), dim=c.axis(-1, len(x.shape)), **how)
    return made


def cumsum(c: Call) -> Result:
    """``CumSum``."""
    if c.attribute("exclusive", 0) or c.attribute("reverse", 0):
        raise c.refuse("CumSum that is exclusive or goes backwards")
    made: Result = c.layer("cumsum", c.tensor(0), dim=int(c.number(1)))
    return made


def batch_norm(c: Call) -> Result:
    """``BatchNormalization``: follows the mode, as the module does that it was; of one value a channel none can be trained."""
    x, weight, bias, mean, var = (c.tensor(i) for i in range(5))
    alone = all(type(n) is int and n == 1 for n in (x.shape[0], *x.shape[2:]))
    how: dict[str, Any] = {"training": False} if alone else {}
    how |= {"momentum": 1 - c.attribute("momentum", 0.9), "eps": c.attribute("epsilon", 1e-5)}
    made: Result = c.layer("batch_norm", x, mean, var, weight, bias, None, **how)
    return made[0] if isinstance(made, tuple) else made


def instance_norm(c: Call) -> Result:
    """``InstanceNormalization``."""
    made: Result = c.layer(
        "instance_norm", c.tensor(0), None, None, c.tensor(1), c.tensor(2), use_input_stats=True, eps=c.attribute("epsilon", 1e-5)
    )
    return made


def group_norm(c: Call) -> Result:
    """``GroupNormalization``: from opset 21 on with one factor a channel."""
    x = c.tensor(0)
    if len(x.shape) < 2 or shape_of(c.input(1)) != (x.shape[1],):
        raise c.refuse(f"GroupNormalization with factors of the shape {list(shape_of(c.input(1)))}: torch has one a channel")
    made: Result = c.layer(
        "group_norm", x, c.tensor(1), c.tensor(2), num_groups=c.attribute("num_groups"), eps=c.attribute("epsilon", 1e-5)
    )
    return made


def layer_norm(c: Call) -> Result:
    """``LayerNormalization``; its mean and deviation are for nobody else."""
    if c.wanted > 1:
        raise c.refuse("the mean and deviation of LayerNormalization")
    x = c.tensor(0)
    shape = tuple(x.shape[c.axis(-1, len(x.shape)) :])
    how = {"normalized_shape": shape, "eps": c.attribute("epsilon", 1e-5)}
    made: Result
    if c.op == "RMSNormalization":
        made = c.layer("rms_norm", x, c.shaped(1, shape), **how)
    else:
        made = c.layer("layer_norm", x, c.shaped(1, shape), c.shaped(2, shape) if c.given(2) else None, **how)
    return made


def lrn(c: Call) -> Result:
    """``LRN``."""
    how = {"alpha": c.attribute("alpha", 1e-4), "beta": c.attribute("beta", 0.75), "k": c.attribute("bias", 1.0)}
    made: Result = c.layer("local_response_norm", c.tensor(0), size=c.attribute("size"), **how)
    return made


def lp_norm(c: Call) -> Result:
    """``LpNormalization``."""
    x = c.tensor(0)
    made: Result = c.layer("normalize", x, p=float(c.attribute("p", 2)), dim=c.axis(-1, len(x.shape)))
    return made


MODES = {"nearest": ("nearest",) * 3, "linear": ("linear", "bilinear", "trilinear"), "cubic": ("bicubic",) * 3}


def resize(c: Call) -> Result:
    """``Resize`` and ``Upsample``: by sizes or by factors, of the spatial dims."""
    x = c.tensor(0)
    ndim = len(x.shape)
    wanted = _sizes(c, x)
    if not 3 <= ndim <= 5 or any(wanted[i] != x.shape[i] for i in range(min(2, ndim))):
        raise c.refuse(f"resizing {list(x.shape)} to {list(wanted)}: torch resizes spatial dims, which come behind batch and channels")
    mode = c.attribute("mode", "nearest")
    if mode not in MODES:
        raise GraphError(f"has the mode {mode!r}")
    way = c.attribute("coordinate_transformation_mode", "half_pixel")
    if way == "tf_crop_and_resize":
        raise c.refuse("resizing with crops (tf_crop_and_resize)")
    how: dict[str, Any] = {"mode": MODES[mode][ndim - 3], "antialias": bool(c.attribute("antialias", 0))}
    if mode != "nearest":
        how["align_corners"] = way == "align_corners"
    made: Result = c.layer("interpolate", x, size=tuple(wanted[2:]), **how)
    return made


def _sizes(c: Call, x: Node) -> list[Any]:
    """The sizes of the result."""
    ndim = len(x.shape)
    first = 1 if c.op == "Upsample" or c.version < 11 else 2
    axes = (c.axes(None, ndim) if c.version >= 18 else None) or tuple(range(ndim))
    found: list[Any] = list(x.shape)
    if first == 2 and c.given(3) and len(shape_of(c.input(3))) and shape_of(c.input(3)) != (0,):
        if c.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise c.refuse("resizing that keeps the aspect ratio")
        values = c.numbers(3)
        by_size = True
    else:
        values = c.attribute("scales") if c.version < 9 else c.numbers(first)
        by_size = False
    if values is None or len(values) != len(axes):
        raise GraphError(f"has {len(values or ())} sizes for {len(axes)} dims")
    for at, n in zip(axes, values, strict=True):
        found[at] = n if by_size else _scaled(x.shape[at], n)
    return found


def _scaled(n: Any, factor: Any) -> Any:
    """``floor(n * factor)``: the factor is a float32, and the nearest small fraction is what was meant."""
    if not 0 < factor < 1 << 20:
        raise GraphError(f"has the factor {factor}")
    near = Fraction(factor).limit_denominator(LARGEST_DENOMINATOR)
    return n * near.numerator // near.denominator if abs(near - Fraction(factor)) < Fraction(1, 1 << 22) * near else int(float(n) * factor)


SAMPLED = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "bicubic": "bicubic"}


def grid_sample(c: Call) -> Result:
    """``GridSample``; up to opset 19 its modes had torch's names."""
    mode = c.attribute("mode", "linear")
    if mode not in SAMPLED:
        raise GraphError(f"has the mode {mode!r}")
    how = {"padding_mode": c.attribute("padding_mode", "zeros"), "align_corners": bool(c.attribute("align_corners", 0))}
    made: Result = c.layer("grid_sample", c.tensor(0), c.tensor(1), mode=SAMPLED[mode], **how)
    return made


HANDLERS: dict[str, Handler] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": einsum,
    "ReduceMean": _reduced("mean"),
    "ReduceSum": _reduced("sum"),
    "ReduceMax": _reduced("amax"),
    "ReduceMin": _reduced("amin"),
    "ReduceL1": _reduced("vector_norm", ord=1),
    "ReduceL2": _reduced("vector_norm", ord=2),
    "ReduceLogSumExp": _reduced("logsumexp"),
    "ReduceProd": _product,
    "ReduceSumSquare": _reduced_of([("pow", {"exponent": 2})], "sum"),
    "ReduceLogSum": _reduced_of([], "sum", "log"),
    "ArgMax": _arg("argmax"),
    "ArgMin": _arg("argmin"),
    "TopK": topk,
    "CumSum": cumsum,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": layer_norm,
    "LRN": lrn,
    "LpNormalization": lp_norm,
    "Resize": resize,
    "Upsample": resize,
    "GridSample": grid_sample,
}
