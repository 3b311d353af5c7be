"""Which torch call is which row: the importer's table, by the function's own name.

A binding turns (name, args, kwargs) into the row to record; None means the call moves nothing (a query, an assertion).
``SIGNATURES`` covers the rule: torch's argument names in order; tensors go to the row's roles of the same name, the rest to its
attributes. What needs more thought (indexing, ``to``, numbers on the left) has a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.network.tensor import Spec, is_contiguous
from memest.ops.table import COMPOSITES, OPERATORS
from memest.sources.importers.torch_contexts import attention_backends
from memest.sources.importers.torch_refusals import BY_MASK, PLACES, WRITTEN_BY_MASK


class Request:
    """A row to record. ``tensors`` follow its roles."""

    __slots__ = ("attributes", "op", "own_result", "tensors")

    def __init__(self, op: str, tensors: Sequence[Any], attributes: Mapping[str, Any], own_result: bool = False) -> None:
        self.op = op
        self.tensors = list(tensors)
        self.attributes = dict(attributes)
        self.own_result = own_result


Call = Callable[[str, Any, Any, Any], Request | None]
IGNORED = frozenset({"device", "generator", "non_blocking", "cudnn_enabled", "_stacklevel", "copy"})
AS_USUAL = {"pin_memory": False, "requires_grad": False, "layout": torch.strided}  # arguments that change nothing at this value alone


def plain(value: Any) -> Any:
    """Attribute values in the graph's own words: dtypes and memory formats by name, sizes as tuples."""
    if isinstance(value, torch.dtype | torch.memory_format):
        return str(value).removeprefix("torch.")
    if isinstance(value, torch.Size | list | tuple):
        return tuple(plain(v) for v in value)
    return value


def bound(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by torch's names; a last name with ``*`` takes the rest, or one sequence."""
    given: dict[str, Any] = {}
    for i, n in enumerate(names):
        if n.startswith("*"):
            rest = args[i:]
            if rest:
                given[n[1:]] = rest[0] if len(rest) == 1 and isinstance(rest[0], Sequence | torch.Size) else tuple(rest)
        elif i < len(args):
            given[n] = args[i]
    given.update(kwargs)
    return given


def request(op: str, given: Mapping[str, Any], fixed: Mapping[str, Any]) -> Request:
    """The row ``op`` with named arguments sorted into roles and attributes."""
    row = OPERATORS.get(op) or COMPOSITES[op]
    known = {a.name for a in row.attributes}
    rest = {**given, **fixed}
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
            raise UnsupportedError(f"{op}: a tensor as {key!r} has no rule")
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


# queries: answered with symbolic sizes, or left to torch (None) -----------------------------------------------------------


def _sizes(spec: Spec, args: Any, kwargs: Any, func: Any) -> Any:
    dim = args[0] if args else kwargs.get("dim")
    return torch.Size(spec.shape) if dim is None else spec.shape[dim]


def _shape(spec: Spec, args: Any, kwargs: Any, func: Any) -> Any:
    return torch.Size(spec.shape)


def _numel(spec: Spec, args: Any, kwargs: Any, func: Any) -> Any:
    total: Any = 1
    for n in spec.shape:
        total = n * total
    return total


def _length(spec: Spec, args: Any, kwargs: Any, func: Any) -> Any:
    return spec.shape[0]


def _device(spec: Spec, args: Any, kwargs: Any, func: Any) -> Any:
    return torch.device("cpu")


def _is_contiguous(spec: Spec, args: Any, kwargs: Any, func: Any) -> Any:
    return is_contiguous(spec.shape, spec.strides)


def _false(spec: Spec, args: Any, kwargs: Any, func: Any) -> Any:
    return False


PASSIVE: dict[str, Any] = {
    "size": _sizes,
    "__get__:shape": _shape,
    "numel": _numel,
    "nelement": _numel,
    "__len__": _length,
    "__get__:device": _device,
    "__get__:is_meta": _false,
    "__get__:requires_grad": _false,
    **dict.fromkeys(
        (
            "dim", "ndimension", "__get__:ndim", "__get__:dtype", "__get__:is_cuda", "__get__:layout", "__get__:is_sparse",
            "__get__:is_quantized", "__get__:is_nested", "__get__:is_mkldnn", "__get__:grad_fn", "__get__:is_leaf", "__get__:names",
            "__get__:grad", "__get__:data_ptr", "__get__:is_mps", "__get__:is_xpu", "__get__:itemsize", "__get__:is_cpu",
            "stride", "is_contiguous", "is_floating_point", "is_complex", "element_size", "get_device", "storage_offset", "is_same_size",
            "is_tensor", "is_nonzero", "has_names", "__hash__", "requires_grad_", "__format__", "__repr__", "_is_view", "is_inference",
            "_assert", "_assert_async", "_has_compatible_shallow_copy_type", "is_grad_enabled", "is_autocast_enabled",
            "_set_grad_enabled", "result_type", "device",
        ),
        None,
    ),
}  # fmt: skip

# Python-level functions that are one row; all others are entered, and the calls inside are recorded.
WHOLE = frozenset({"interpolate", "grid_sample", "affine_grid", "max_unpool1d", "max_unpool2d", "max_unpool3d"})

POOL = "input kernel_size stride padding"
SIGNATURES: dict[str, tuple[str, str]] = {
    "conv1d": ("conv1d", "input weight bias stride padding dilation groups"),
    "conv2d": ("conv2d", "input weight bias stride padding dilation groups"),
    "conv3d": ("conv3d", "input weight bias stride padding dilation groups"),
    "conv_transpose1d": ("conv_transpose1d", "input weight bias stride padding output_padding groups dilation"),
    "conv_transpose2d": ("conv_transpose2d", "input weight bias stride padding output_padding groups dilation"),
    "conv_transpose3d": ("conv_transpose3d", "input weight bias stride padding output_padding groups dilation"),
    "linear": ("linear", "input weight bias"),
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
    "flip": ("flip", "input dims"),
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
    "clamp": ("clamp", "input min max"),
    "clip": ("clamp", "input min max"),
    "clamp_min": ("clamp_min", "input min"),
    "clamp_max": ("clamp_max", "input max"),
    **{n: (n, "input other") for n in ("minimum", "maximum")},
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
    "dot": ("dot", "input tensor"),
    "as_strided": ("as_strided", "input size stride"),
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
    "hardshrink": ("hardshrink", "input lambd"),
    "softshrink": ("softshrink", "input lambd"),
    "rrelu": ("rrelu", "input lower upper training"),
    "rrelu_with_noise": ("rrelu", "input lower upper training"),
    "masked_select": ("masked_select", "input mask"),
    "zero_": ("zero_", "input"),
    "fill_": ("fill_", "input value"),
    "copy_": ("copy_", "input src"),
}  # fmt: skip


def _is_inplace(name: str) -> bool:
    """``add_`` and ``__iadd__`` (not ``__invert__``)."""
    return (name.startswith("__i") and name != "__invert__") or (name.endswith("_") and not name.endswith("__"))


def binary(op: str) -> Call:
    """Arithmetic between tensors or with a number: ``x + y``, ``x += 2``, ``2 * x``; ``alpha`` and ``rounding_mode`` by keyword."""

    def binding(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
        given = bound(("input", "other"), args, kwargs)
        if not isinstance(given["input"], torch.Tensor):
            given["input"], given["other"] = given["other"], given["input"]
        inplace = {"inplace": True} if _is_inplace(name) else {}
        return request(op, given, inplace)

    return binding


BINARY = {
    "add": "add", "sub": "sub", "subtract": "sub", "mul": "mul", "multiply": "mul", "div": "div", "divide": "div", "true_divide": "div",
    "rsub": "rsub", "floor_divide": "floor_divide", "remainder": "remainder",
    "eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge",
    "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
    "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or", "bitwise_not": "bitwise_not", "logical_not": "logical_not",
}  # fmt: skip
DUNDERS = {
    "__add__": "add", "__radd__": "add", "__iadd__": "add", "__sub__": "sub", "__isub__": "sub",
    "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul", "__truediv__": "div", "__itruediv__": "div", "__div__": "div",
    "__eq__": "eq", "__ne__": "ne", "__lt__": "lt", "__le__": "le", "__gt__": "gt", "__ge__": "ge",
    "__and__": "bitwise_and", "__or__": "bitwise_or", "__invert__": "bitwise_not", "__mod__": "remainder",
}  # fmt: skip


# calls whose arguments need more than sorting --------------------------------------------------------------------------------


def _getitem(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x[...]``: basic entries as they are, index tensors beside them (masks depend on values and are refused)."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    entries, tensors = index_entries(index)
    return Request("getitem", [args[0], tensors], {"index": entries})


def is_mask(entry: Any) -> bool:
    """Whether an entry of an index picks what it is true for."""
    return isinstance(entry, torch.Tensor) and entry.dtype in (torch.bool, torch.uint8)


def index_entries(index: Sequence[Any]) -> tuple[tuple[Any, ...], list[torch.Tensor]]:
    """The graph's words for an index: integers, (start, end, step), None, "..." and "tensor"."""
    entries: list[Any] = []
    tensors: list[torch.Tensor] = []
    for i in index:
        if i is None or (isinstance(i, int) and not isinstance(i, bool)):
            entries.append(i)
        elif i is Ellipsis:
            entries.append("...")
        elif isinstance(i, slice):
            entries.append((i.start, i.stop, 1 if i.step is None else i.step))
        elif isinstance(i, torch.Tensor) and i.dtype in (torch.int64, torch.int32):
            entries.append("tensor")
            tensors.append(i)
        else:
            kind = str(i.dtype) if isinstance(i, torch.Tensor) else type(i).__name__
            if is_mask(i):
                raise UnsupportedError(BY_MASK)
            raise UnsupportedError(f"indexing with {kind}: the shape would depend on values, or has no rule")
    return tuple(entries), tensors


def _pow(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    given = bound(("input", "exponent"), args, kwargs)
    base, exponent = given["input"], given["exponent"]
    inplace = {"inplace": True} if name in ("pow_", "__ipow__") else {}
    if not isinstance(base, torch.Tensor):
        return Request("rpow", [exponent], {"value": base})
    if isinstance(exponent, torch.Tensor):
        return Request("pow", [base, exponent], inplace)
    return Request("pow", [base, None], {"exponent": exponent, **inplace})


def _feature_dropout(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    given = bound(("input", "p", "training"), args, kwargs)
    extra = {"inplace": True} if name.endswith("_") else {}
    return request(f"dropout{min(max(given['input'].ndim - 2, 1), 3)}d", given, extra)


_CASTS = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "bfloat16": "bfloat16",
    "long": "int64",
    "int": "int32",
    "bool": "bool",
    "byte": "uint8",
}


def _cast(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    return Request("to", [args[0], None], {"dtype": _CASTS[name]})


def _to(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x.to(dtype | device | other)``, ``x.type(dtype)``, ``x.type_as(other)``; a device changes nothing here. ``x.to(y.dtype)`` follows
    ``y``, whatever its dtype comes to be (autocast)."""
    attributes: dict[str, Any] = {}
    other: torch.Tensor | None = None
    for value in (*args[1:], *(kwargs[k] for k in ("dtype", "other") if k in kwargs)):
        if isinstance(value, torch.Tensor):
            other = value
        elif isinstance(value, torch.dtype):
            other = recorder.source_of(value)
            if other is None:
                attributes["dtype"] = plain(value)
    if kwargs.get("memory_format") is not None:
        attributes["memory_format"] = plain(kwargs["memory_format"])
    if kwargs.get("copy") is True:
        attributes["copy"] = True
    return Request("to", [args[0], other], attributes, own_result=True)


def _where(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    given = bound(("condition", "input", "other"), args, kwargs)
    if "input" not in given:
        raise UnsupportedError(PLACES)
    attributes = {f"{k}_value": given[k] for k in ("input", "other") if not isinstance(given[k], torch.Tensor)}
    tensors = [given["condition"], *(given[k] if isinstance(given[k], torch.Tensor) else None for k in ("input", "other"))]
    return Request("where", tensors, attributes)


def _transposed(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    ndim = args[0].ndim
    if name == "__get__:T":
        return Request("permute", [args[0]], {"dims": tuple(range(ndim - 1, -1, -1))})
    return Request("transpose", [args[0]], {"dim0": -2, "dim1": -1})


def _data(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    return Request("detach", [args[0]], {})


def _max(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``max(x)``, ``max(x, dim)`` (values and indices) or ``max(x, other)``."""
    given = bound(("input", "dim", "keepdim"), args, {("dim" if k == "other" else k): v for k, v in kwargs.items()})
    if isinstance(given.get("dim"), torch.Tensor):
        return Request({"max": "maximum", "min": "minimum"}[name], [given["input"], given["dim"]], {})
    return request(name, given, {})


def _pool_with_indices(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    given = bound(("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"), args, kwargs)
    return request(name.removesuffix("_with_indices"), given, {"return_indices": True})


def _adaptive_max_pool(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """ATen's own, which always gives the places, too."""
    return request(name, bound(("input", "output_size"), args, kwargs), {"return_indices": True})


def _einsum(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    operands = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
    return Request("einsum", [list(operands)], {"equation": args[0]})


def _new_full(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """A tensor of no dims counts as its number: torch reads it, and allocates nothing for that."""
    given = bound(("input", "size", "fill_value"), args, kwargs)
    read = isinstance(given["fill_value"], torch.Tensor) and given["fill_value"].ndim == 0
    made = request("new_full", {**given, "fill_value": 0} if read else given, {})
    made.own_result = read
    return made


def _meshgrid(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``meshgrid(a, b)`` and ``meshgrid([a, b])``; ``ij`` where nothing is said, as torch has it."""
    tensors = args[0] if len(args) == 1 and isinstance(args[0], list | tuple) else args
    return Request("meshgrid", [list(tensors)], {"indexing": kwargs.get("indexing") or "ij"})


def _arange(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    names = ("end",) if len(args) == 1 else ("start", "end", "step")
    return request("arange", bound(names, args, kwargs), {})


def _literal(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.tensor([1.0, 2.0])``: a small tensor of the data's shape (``as_tensor`` of a tensor is that tensor)."""
    if isinstance(args[0], torch.Tensor):
        return None
    with torch._C.DisableTorchFunction():
        made = torch.tensor(args[0], dtype=kwargs.get("dtype"))
    return Request("empty", [], {"shape": tuple(made.shape), "dtype": plain(made.dtype)}, own_result=True)


def _created(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.empty(size, dtype=x.dtype)`` follows ``x``, whatever its dtype comes to be (autocast)."""
    op, names = SIGNATURES[name]
    given = bound(names.split(), args, kwargs)
    if given.get("dtype", ...) is None:
        del given["dtype"]
    like = recorder.source_of(given.get("dtype"))
    if like is None:
        return request(op, given, {})
    return request(f"new_{op}", {"input": like, "size": given["shape"], "fill_value": given.get("fill_value")}, {})


def _variance(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``var(x, dim, unbiased, keepdim)`` and ``var(x, dim, correction=…, keepdim=…)``."""
    flags = len(args) > 1 and isinstance(args[1], bool)
    given = bound(("input", "unbiased") if flags else ("input", "dim", "unbiased", "keepdim"), args, kwargs)
    unbiased = given.pop("unbiased", None)
    if unbiased is not None:
        given["correction"] = int(unbiased)
    return request(name, given, {})


def _setitem(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x[...] = value``."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if any(map(is_mask, index)):
        raise UnsupportedError(WRITTEN_BY_MASK)
    entries, tensors = index_entries(index)
    if tensors:
        raise UnsupportedError("assignment at index tensors has no rule")
    value = args[2]
    if isinstance(value, torch.Tensor):
        return Request("setitem", [args[0], value], {"index": entries})
    return Request("setitem", [args[0], None], {"index": entries, "value": value})


def _attention(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """With the kernels that are left to choose from."""
    names = "query key value attn_mask dropout_p is_causal scale enable_gqa"
    return request(name, bound(names.split(), args, kwargs), {"backends": attention_backends()})


def _native_attention(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    if attention_backends() is not None:
        raise UnsupportedError("no rule for the fast path of nn.MultiheadAttention under sdpa_kernel: it is taken in eval mode alone")
    names = "query key value embed_dim num_head qkv_weight qkv_bias proj_weight proj_bias mask need_weights average_attn_weights mask_type"
    given = bound(names.split(), args, kwargs)
    for dropped in ("mask_type",):
        given.pop(dropped, None)
    made = request("_native_multi_head_attention", given, {})
    made.own_result = True
    return made


def _tensor_split(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``indices`` and ``sections`` are one place under two names."""
    named = {"indices_or_sections" if k in ("indices", "sections") else k: v for k, v in kwargs.items()}
    return request("tensor_split", bound(("input", "indices_or_sections", "dim"), args, named), {})


LOSSES = {  # as torch.nn.functional calls them, and in which order of arguments
    "cross_entropy_loss": ("cross_entropy", "input target weight reduction ignore_index label_smoothing"),
    "nll_loss_nd": ("nll_loss", "input target weight reduction ignore_index"),
    "mse_loss": ("mse_loss", "input target reduction"),
    "l1_loss": ("l1_loss", "input target reduction"),
    "smooth_l1_loss": ("smooth_l1_loss", "input target reduction beta"),
    "huber_loss": ("huber_loss", "input target reduction delta"),
    "kl_div": ("kl_div", "input target reduction log_target"),
    "binary_cross_entropy": ("binary_cross_entropy", "input target weight reduction"),
    "binary_cross_entropy_with_logits": ("binary_cross_entropy_with_logits", "input target weight pos_weight reduction"),
}
REDUCTIONS = ("none", "mean", "sum")  # torch/nn/_reduction.py: get_enum


def _loss(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """A loss inside a network; its reduction comes as a number."""
    op, names = LOSSES[name]
    given = bound(names.split(), args, kwargs)
    if isinstance(given.get("reduction"), int):
        given["reduction"] = REDUCTIONS[given["reduction"]]
    return request(op, given, {})


SPECIAL: dict[str, tuple[str, Call]] = {
    **{name: (op, _loss) for name, (op, _) in LOSSES.items()},
    "tensor_split": ("tensor_split", _tensor_split),
    "__getitem__": ("getitem", _getitem),
    **dict.fromkeys(("pow", "pow_", "__pow__", "__ipow__"), ("pow", _pow)),
    **dict.fromkeys(("feature_dropout", "feature_dropout_"), ("dropout2d", _feature_dropout)),
    **dict.fromkeys(_CASTS, ("to", _cast)),
    **dict.fromkeys(("to", "type_as", "type", "cuda", "cpu"), ("to", _to)),
    "where": ("where", _where),
    **dict.fromkeys(("__get__:T", "__get__:mT"), ("permute", _transposed)),
    "__get__:data": ("detach", _data),
    **dict.fromkeys(("max", "min"), ("amax", _max)),
    **{f"max_pool{d}d_with_indices": (f"max_pool{d}d", _pool_with_indices) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": (f"adaptive_max_pool{d}d", _adaptive_max_pool) for d in (1, 2, 3)},
    "einsum": ("einsum", _einsum),
    "meshgrid": ("meshgrid", _meshgrid),
    "new_full": ("new_full", _new_full),
    "arange": ("arange", _arange),
    **{n: (n, _created) for n in ("zeros", "ones", "empty", "full")},
    **dict.fromkeys(("tensor", "as_tensor"), ("empty", _literal)),
    **dict.fromkeys(("var", "std", "var_mean"), ("var", _variance)),
    "__setitem__": ("setitem", _setitem),
    "scaled_dot_product_attention": ("scaled_dot_product_attention", _attention),
    "_native_multi_head_attention": ("_native_multi_head_attention", _native_attention),
}


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
    for name, (op, call) in SPECIAL.items():
        if op in known:
            calls[name] = call
    return calls


CALLS: dict[str, Call] = _table()
