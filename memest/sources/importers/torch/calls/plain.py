"""Which torch call is which row: the importer's table, by the function's own name.

A binding turns (name, args, kwargs) into the row to record; None means the call moves nothing (a query, an assertion).
``SIGNATURES`` covers the rule: torch's argument names in order; tensors go to the row's roles of the same name, the rest to its
attributes. What needs more thought (indexing, ``to``) is in :mod:`~memest.sources.importers.torch.calls.special`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from memest.errors import UnsupportedError
from memest.ops.table import COMPOSITES, OPERATORS


class Request:
    """A row to record. ``tensors`` follow its roles; torch is called with ``args`` where they are not those of the user's call."""

    __slots__ = ("args", "attributes", "op", "own_result", "tensors")

    def __init__(
        self, op: str, tensors: Sequence[Any], attributes: Mapping[str, Any], own_result: bool = False, args: tuple[Any, ...] | None = None
    ) -> None:
        self.op = op
        self.tensors = list(tensors)
        self.attributes = dict(attributes)
        self.own_result = own_result
        self.args = args


Call = Callable[[str, Any, Any, Any], Request | None]
NUMPYS = {"axis": "dim", "keepdims": "keepdim", "x": "input", "x1": "input", "x2": "other"}
IGNORED = frozenset({"device", "generator", "non_blocking", "cudnn_enabled", "_stacklevel", "copy"})
AS_USUAL = {"storage_offset": 0, "pin_memory": False, "requires_grad": False, "layout": torch.strided}
"""Arguments that change nothing at this value alone."""


def plain(value: Any) -> Any:
    """Attribute values in the graph's own words: dtypes and memory formats by name, sizes as tuples, numpy's numbers as Python's."""
    if isinstance(value, torch.dtype | torch.memory_format):
        return str(value).removeprefix("torch.")
    if isinstance(value, torch.Size | list | tuple):
        return tuple(plain(v) for v in value)
    return value.item() if isinstance(value, np.number) else value


def bound(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by torch's names (or by numpy's, which torch knows, too); a last name with ``*`` takes the rest, or one sequence."""
    given: dict[str, Any] = {}
    for i, n in enumerate(names):
        if n.startswith("*"):
            rest = args[i:]
            if rest:
                given[n[1:]] = rest[0] if len(rest) == 1 and isinstance(rest[0], Sequence | torch.Size) else tuple(rest)
        elif i < len(args):
            given[n] = args[i]
    given.update({NUMPYS.get(key, key) if NUMPYS.get(key) in names else key: value for key, value in kwargs.items()})
    return given


def request(op: str, given: Mapping[str, Any], fixed: Mapping[str, Any]) -> Request:
    """The row ``op`` with named arguments sorted into roles and attributes."""
    row = OPERATORS.get(op) or COMPOSITES[op]
    known = {a.name for a in row.attributes}
    rest = {**given, **fixed}
    if "inplace" in known and isinstance(rest.get("out"), torch.Tensor) and rest["out"] is rest.get(row.roles[0]):
        rest = {**rest, "out": None, "inplace": True}  # written over what it reads
    tensors: list[Any] = []
    for role in row.roles:
        key = role.rstrip("?*")
        value = rest.pop(key, None)
        if role.endswith("*"):
            tensors.append(list(value or ()))
        elif isinstance(value, torch.Tensor) or value is None:
            tensors.append(value)
        else:
            tensors.append(None)
            rest["value"] = value
    attributes: dict[str, Any] = {}
    for key, value in rest.items():
        if key in known and isinstance(value, torch.Tensor):
            raise UnsupportedError(f"{op}: a tensor as {key!r} has no rule; give a number")
        if key in known:
            attributes[key] = plain(value)
        elif key not in IGNORED and value is not None and (key not in AS_USUAL or value != AS_USUAL[key]):
            raise UnsupportedError(f"{op}: argument {key}={_shown(value)} has no rule")
    return Request(op, tensors, attributes)


def _shown(value: Any) -> str:
    return "a tensor" if isinstance(value, torch.Tensor) else repr(value)[:40]


def signature(op: str, names: str, **fixed: Any) -> Call:
    """The plain binding: torch's argument names, in order."""
    split = names.split()

    def binding(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
        extra = dict(fixed)
        if name.endswith("_") and not name.endswith("__") and not op.endswith("_"):
            extra["inplace"] = True
        return request(op, bound(split, args, kwargs), extra)

    return binding


# Python-level functions that are one row; all others are entered, and the calls inside are recorded.
WHOLE = frozenset({"autocast_operands", "interpolate", "grid_sample", "affine_grid", "max_unpool1d", "max_unpool2d", "max_unpool3d"})

POOL = "input kernel_size stride padding"
SIGNATURES: dict[str, tuple[str, str]] = {
    "conv1d": ("conv1d", "input weight bias stride padding dilation groups"),
    "conv2d": ("conv2d", "input weight bias stride padding dilation groups"),
    "conv3d": ("conv3d", "input weight bias stride padding dilation groups"),
    "conv_transpose1d": ("conv_transpose1d", "input weight bias stride padding output_padding groups dilation"),
    "conv_transpose2d": ("conv_transpose2d", "input weight bias stride padding output_padding groups dilation"),
    "conv_transpose3d": ("conv_transpose3d", "input weight bias stride padding output_padding groups dilation"),
    "linear": ("linear", "input weight bias"),
    "bilinear": ("bilinear", "input1 input2 weight bias"),
    "batch_norm": ("batch_norm", "input weight bias running_mean running_var training momentum eps"),
    "instance_norm": ("instance_norm", "input weight bias running_mean running_var use_input_stats momentum eps"),
    "layer_norm": ("layer_norm", "input normalized_shape weight bias eps"),
    "group_norm": ("group_norm", "input num_groups weight bias eps"),
    "rms_norm": ("rms_norm", "input normalized_shape weight eps"),
    **{
        n: (n, "input inplace")
        for n in (
            "relu", "relu6", "selu", "silu", "mish", "hardswish", "hardsigmoid", "sigmoid", "tanh", "logsigmoid", "softsign",
        )
    },
    "log_sigmoid": ("logsigmoid", "input"),
    "leaky_relu": ("leaky_relu", "input negative_slope inplace"),
    "elu": ("elu", "input alpha"),
    "celu": ("celu", "input alpha"),
    "gelu": ("gelu", "input approximate"),
    "hardtanh": ("hardtanh", "input min_val max_val"),
    "softplus": ("softplus", "input beta threshold"),
    "threshold": ("threshold", "input threshold value"),
    "prelu": ("prelu", "input weight"),
    "glu": ("glu", "input dim"),
    "softmax": ("softmax", "input dim dtype"),
    "log_softmax": ("log_softmax", "input dim dtype"),
    "dropout": ("dropout", "input p training"),
    "alpha_dropout": ("alpha_dropout", "input p training"),
    "feature_alpha_dropout": ("feature_alpha_dropout", "input p training"),
    **{f"max_pool{d}d": (f"max_pool{d}d", f"{POOL} dilation ceil_mode") for d in (1, 2, 3)},
    "avg_pool1d": ("avg_pool1d", f"{POOL} ceil_mode count_include_pad"),
    "avg_pool2d": ("avg_pool2d", f"{POOL} ceil_mode count_include_pad divisor_override"),
    "avg_pool3d": ("avg_pool3d", f"{POOL} ceil_mode count_include_pad divisor_override"),
    **{f"adaptive_avg_pool{d}d": (f"adaptive_avg_pool{d}d", "input output_size") for d in (1, 2, 3)},
    "interpolate": ("interpolate", "input size scale_factor mode align_corners recompute_scale_factor antialias"),
    "pixel_shuffle": ("pixel_shuffle", "input upscale_factor"),
    "pixel_unshuffle": ("pixel_unshuffle", "input downscale_factor"),
    "channel_shuffle": ("channel_shuffle", "input groups"),
    "cat": ("cat", "tensors dim"),
    "concat": ("cat", "tensors dim"),
    "concatenate": ("cat", "tensors dim"),
    "stack": ("stack", "tensors dim"),
    "chunk": ("chunk", "input chunks dim"),
    "split": ("split", "input split_size_or_sections dim"),
    "split_with_sizes": ("split", "input split_size_or_sections dim"),
    "unbind": ("unbind", "input dim"),
    "flatten": ("flatten", "input start_dim end_dim"),
    "unflatten": ("unflatten", "input dim sizes"),
    "reshape": ("reshape", "input *shape"),
    "view": ("view", "input *shape"),
    "permute": ("permute", "input *dims"),
    "transpose": ("transpose", "input dim0 dim1"),
    "swapaxes": ("transpose", "input dim0 dim1"),
    "swapdims": ("transpose", "input dim0 dim1"),
    "t": ("t", "input"),
    "movedim": ("movedim", "input source destination"),
    "moveaxis": ("movedim", "input source destination"),
    "squeeze": ("squeeze", "input dim"),
    "unsqueeze": ("unsqueeze", "input dim"),
    "expand": ("expand", "input *size"),
    "expand_as": ("expand_as", "input other"),
    "view_as": ("view_as", "input other"),
    "reshape_as": ("reshape_as", "input other"),
    "repeat": ("repeat", "input *repeats"),
    "tile": ("tile", "input *dims"),
    "repeat_interleave": ("repeat_interleave", "input repeats dim"),
    "narrow": ("narrow", "input dim start length"),
    "select": ("select", "input dim index"),
    "roll": ("roll", "input shifts dims"),
    "flip": ("flip", "input *dims"),
    "contiguous": ("contiguous", "input memory_format"),
    "clone": ("clone", "input memory_format"),
    "detach": ("detach", "input"),
    "index_select": ("index_select", "input dim index"),
    "gather": ("gather", "input dim index"),
    "pad": ("pad", "input pad mode value"),
    "im2col": ("unfold", "input kernel_size dilation padding stride"),
    "col2im": ("fold", "input output_size kernel_size dilation padding stride"),
    "matmul": ("matmul", "input other"),
    "__matmul__": ("matmul", "input other"),
    "mm": ("mm", "input mat2"),
    "bmm": ("bmm", "input mat2"),
    "baddbmm": ("baddbmm", "input batch1 batch2"),
    **{
        n: (n, "input")
        for n in (
            "exp", "log", "sqrt", "rsqrt", "abs", "neg", "reciprocal", "square", "sin", "cos", "floor", "ceil", "round", "log2", "log10",
            "log1p", "erf", "expm1", "sign", "trunc",
        )
    },
    "__neg__": ("neg", "input"),
    "__abs__": ("abs", "input"),
    "negative": ("neg", "input"),
    "absolute": ("abs", "input"),
    "clamp": ("clamp", "input min max"),
    "clip": ("clamp", "input min max"),
    "clamp_min": ("clamp_min", "input min"),
    "clamp_max": ("clamp_max", "input max"),
    "masked_fill": ("masked_fill", "input mask value"),
    "addcmul": ("addcmul", "input tensor1 tensor2 value"),
    "addcdiv": ("addcdiv", "input tensor1 tensor2 value"),
    "lerp": ("lerp", "input end weight"),
    "sum": ("sum", "input dim keepdim dtype"),
    "mean": ("mean", "input dim keepdim dtype"),
    "amax": ("amax", "input dim keepdim"),
    "amin": ("amin", "input dim keepdim"),
    "prod": ("prod", "input dim keepdim dtype"),
    "argmax": ("argmax", "input dim keepdim"),
    "topk": ("topk", "input k dim largest sorted"),
    **{n: (n, "input dim descending stable") for n in ("sort", "argsort")},
    "embedding": ("embedding", "weight indices padding_idx scale_grad_by_freq sparse"),
    "argmin": ("argmin", "input dim keepdim"),
    "cumsum": ("cumsum", "input dim dtype"),
    "logcumsumexp": ("logcumsumexp", "input dim"),
    "nansum": ("nansum", "input dim keepdim dtype"),
    "aminmax": ("aminmax", "input dim keepdim"),
    "histc": ("histc", "input bins min max"),
    "multinomial": ("multinomial", "input num_samples replacement"),
    "poisson": ("poisson", "input"),
    "logsumexp": ("logsumexp", "input dim keepdim"),
    "bernoulli_": ("bernoulli_", "input p"),
    "uniform_": ("uniform_", "input from_ to"),
    "normal_": ("normal_", "input mean std"),
    "norm": ("norm", "input p dim keepdim"),
    "linalg_vector_norm": ("vector_norm", "input ord dim keepdim"),
    "any": ("any", "input dim keepdim"),
    "all": ("all", "input dim keepdim"),
    "addmm": ("addmm", "input mat1 mat2"),
    "mv": ("mv", "input vec"),
    **{n: ("dot", "input tensor") for n in ("dot", "vdot")},
    "addmv": ("addmv", "input mat vec beta alpha"),
    "addr": ("addr", "input vec1 vec2 beta alpha"),
    "unsafe_split": ("unsafe_split", "input split_size dim"),
    "dist": ("dist", "input other p"),
    "as_strided": ("as_strided", "input size stride storage_offset"),
    "broadcast_to": ("broadcast_to", "input *size"),
    "unfold": ("tensor_unfold", "input dimension size step"),
    "grid_sample": ("grid_sample", "input grid mode padding_mode align_corners"),
    "affine_grid": ("affine_grid", "theta size align_corners"),
    **{f"max_unpool{d}d": (f"max_unpool{d}d", "input indices kernel_size stride padding output_size") for d in (1, 2, 3)},
    **{f"{n}_like": (f"{n}_like", "input") for n in ("zeros", "ones", "empty", "rand", "randn")},
    "full_like": ("full_like", "input fill_value"),
    **{f"new_{n}": (f"new_{n}", "input *size") for n in ("zeros", "ones", "empty")},
    **{n: (n, "*shape") for n in ("zeros", "ones", "empty", "rand", "randn")},
    "full": ("full", "shape fill_value"),
    "linspace": ("linspace", "start end steps"),
    "eye": ("eye", "n m"),
    "randperm": ("randperm", "n"),
    "hardshrink": ("hardshrink", "input lambd"),
    "softshrink": ("softshrink", "input lambd"),
    "rrelu": ("rrelu", "input lower upper training"),
    "rrelu_with_noise": ("rrelu", "input lower upper training"),
    "zero_": ("zero_", "input"),
    "fill_": ("fill_", "input value"),
    "copy_": ("copy_", "input src"),
}  # fmt: skip


def _is_inplace(name: str) -> bool:
    """``add_`` and ``__iadd__`` (not ``__invert__``)."""
    return (name.startswith("__i") and name != "__invert__") or (name.endswith("_") and not name.endswith("__"))


NOT_ONE = 0.5
"""What a number in a tensor is that a sum is scaled by: torch takes it from there."""


def binary(op: str) -> Call:
    """Arithmetic between tensors or with a number: ``x + y``, ``x += 2``, ``2 * x``; ``alpha`` and ``rounding_mode`` by keyword."""

    def binding(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
        given = bound(("input", "other"), args, kwargs)
        if not isinstance(given["input"], torch.Tensor):
            given["input"], given["other"] = given["other"], given["input"]
        if not isinstance(given.get("other", 0), torch.Tensor | complex | float | int | np.generic):
            return None  # torch takes none of these: a TypeError, or what Python makes of ``x == ()``
        alpha = given.get("alpha")
        if isinstance(alpha, torch.Tensor) and alpha.ndim == 0 and not recorder.live.known(alpha).grad:
            kwargs["alpha"] = given["alpha"] = NOT_ONE
        inplace = {"inplace": True} if _is_inplace(name) else {}
        return request(op, given, inplace)

    return binding


BINARY = {
    "add": "add", "sub": "sub", "subtract": "sub", "mul": "mul", "multiply": "mul", "div": "div", "divide": "div", "true_divide": "div",
    "rsub": "rsub", "floor_divide": "floor_divide", "remainder": "remainder", "fmod": "fmod",
    "bitwise_left_shift": "bitwise_left_shift", "bitwise_right_shift": "bitwise_right_shift",
    "bitwise_xor": "bitwise_xor", "xlogy": "xlogy", "special_xlogy": "xlogy",
    "eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge",
    "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
    "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or", "bitwise_not": "bitwise_not", "logical_not": "logical_not",
}  # fmt: skip
DUNDERS = {
    "__add__": "add", "__radd__": "add", "__iadd__": "add", "__sub__": "sub", "__isub__": "sub",
    "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul", "__truediv__": "div", "__itruediv__": "div", "__div__": "div",
    "__eq__": "eq", "__ne__": "ne", "__lt__": "lt", "__le__": "le", "__gt__": "gt", "__ge__": "ge",
    "__and__": "bitwise_and", "__or__": "bitwise_or", "__xor__": "bitwise_xor",
    "__lshift__": "bitwise_left_shift", "__rshift__": "bitwise_right_shift",
    "__iand__": "bitwise_and", "__ior__": "bitwise_or", "__ixor__": "bitwise_xor", "__invert__": "bitwise_not", "__mod__": "remainder",
}  # fmt: skip


def _table() -> dict[str, Call]:
    known = {**OPERATORS, **COMPOSITES}
    calls: dict[str, Call] = {}
    for name, (op, names) in SIGNATURES.items():
        if op in known:
            calls[name] = calls[f"{name}_"] = signature(op, names)
    for name, op in BINARY.items():
        if op in known:
            calls[name] = calls[f"{name}_"] = binary(op)
    for name, op in DUNDERS.items():
        if op in known:
            calls[name] = binary(op)
    return calls


CALLS: dict[str, Call] = _table()
