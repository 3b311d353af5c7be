"""Calls whose arguments need more than sorting: indexing, ``to``, losses, what is made, and several forms under one name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from memest.errors import GraphError, UnsupportedError
from memest.ops.table import COMPOSITES, OPERATORS
from memest.sources.importers.torch.assuming.lengths import whole_numbers
from memest.sources.importers.torch.calls.plain import SIGNATURES, Call, Request, bound, plain, request
from memest.sources.importers.torch.contexts.watching import attention_backends
from memest.sources.importers.torch.refusals import AS_TAKEN
from memest.sources.importers.torch.tensors.numbers import depends
from memest.sources.importers.torch.tensors.values import MOST


def is_mask(entry: Any) -> bool:
    """Whether an entry of an index picks what it is true for."""
    return isinstance(entry, torch.Tensor) and entry.dtype == torch.bool


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
        elif isinstance(i, torch.Tensor) and i.dtype in (torch.int64, torch.int32, torch.bool):
            entries.append("tensor")
            tensors.append(i)
        else:
            kind = str(i.dtype) if isinstance(i, torch.Tensor) else type(i).__name__
            if isinstance(i, str):
                raise GraphError(f"x[{i!r}]: a tensor has no names; {AS_TAKEN}")
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
    "char": "int8",
    "short": "int16",
}


def _cast(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    kept = {"memory_format": plain(kwargs["memory_format"])} if kwargs.get("memory_format") is not None else {}
    return Request("to", [args[0], None], {"dtype": _CASTS[name], **kept})


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
    """``torch.where(mask, x, y)``, and ``x.where(mask, y)``."""
    method = len(args) > 1 and isinstance(args[1], torch.Tensor) and args[1].dtype == torch.bool and args[0].dtype != torch.bool
    given = bound(("input", "condition", "other") if method else ("condition", "input", "other"), args, kwargs)
    attributes = {f"{k}_value": given[k] for k in ("input", "other") if not isinstance(given[k], torch.Tensor)}
    tensors = [given["condition"], *(given[k] if isinstance(given[k], torch.Tensor) else None for k in ("input", "other"))]
    return Request("where", tensors, attributes)


def _transposed(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    ndim = args[0].ndim
    if name == "__get__:T":
        return Request("permute", [args[0]], {"dims": tuple(range(ndim - 1, -1, -1))})
    return Request("transpose", [args[0]], {"dim0": -2, "dim1": -1})


def _data(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    return Request("data", [args[0]], {})


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


def _block_diag(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    return Request("block_diag", [list(args[0]) if len(args) == 1 and isinstance(args[0], list | tuple) else list(args)], {})


def _arange(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    names = ("end",) if len(args) == 1 else ("start", "end", "step")
    return request("arange", bound(names, args, kwargs), {})


def _literal(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.tensor([1.0, 2.0])``: a small tensor of the data's shape (``as_tensor`` of a tensor is that tensor)."""
    if isinstance(args[0], torch.Tensor):
        return None
    with torch._C.DisableTorchFunction():
        made = torch.tensor(args[0], dtype=kwargs.get("dtype"))
    if isinstance(args[0], int | float) and not isinstance(args[0], bool):
        recorder.assumed.literal = made.item()
    elif isinstance(args[0], list | tuple) and 0 < made.numel() <= MOST and not depends(args[0]) and _are_numbers(args[0]):
        recorder.assumed.literal = args[0]
    recorder.assumed.listed = whole_numbers(args[0])
    return Request("empty", [], {"shape": tuple(made.shape), "dtype": plain(made.dtype)}, own_result=True)


def _are_numbers(value: Any) -> bool:
    """Whether a structure of lists has numbers alone in it."""
    return all(map(_are_numbers, value)) if isinstance(value, list | tuple) else isinstance(value, int | float)


def _created(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.empty(size, dtype=x.dtype)`` follows ``x``, whatever its dtype comes to be (autocast)."""
    op, names = SIGNATURES[name]
    given = bound(names.split(), args, {"shape" if key == "size" else key: value for key, value in kwargs.items()})
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


BAG = "weight indices offsets scale_grad_by_freq mode sparse per_sample_weights include_last_offset padding_idx"


def _embedding_bag(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """What torch.nn.functional.embedding_bag comes to: the result, and what it keeps besides."""
    given = bound(BAG.split(), args, kwargs)
    made = request("embedding_bag", {**given, "mode": ("sum", "mean", "max")[given.get("mode", 0)]}, {})
    made.own_result = True
    return made


LOSSES = {  # as torch.nn.functional calls them, and in which order of arguments
    "cross_entropy_loss": ("cross_entropy", "input target weight reduction ignore_index label_smoothing"),
    "nll_loss_nd": ("nll_loss", "input target weight reduction ignore_index"),
    "mse_loss": ("mse_loss", "input target reduction"),
    "l1_loss": ("l1_loss", "input target reduction"),
    "soft_margin_loss": ("soft_margin_loss", "input target reduction"),
    "multi_margin_loss": ("multi_margin_loss", "input target p margin weight reduction"),
    "multilabel_margin_loss": ("multilabel_margin_loss", "input target reduction"),
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
    **dict.fromkeys(("pow", "pow_", "__pow__", "__ipow__"), ("pow", _pow)),
    **dict.fromkeys(("feature_dropout", "feature_dropout_"), ("dropout2d", _feature_dropout)),
    **dict.fromkeys(_CASTS, ("to", _cast)),
    **dict.fromkeys(("to", "type_as", "type", "cuda", "cpu"), ("to", _to)),
    "where": ("where", _where),
    **dict.fromkeys(("__get__:T", "__get__:mT"), ("permute", _transposed)),
    "__get__:data": ("data", _data),
    **dict.fromkeys(("max", "min"), ("amax", _max)),
    **{f"max_pool{d}d_with_indices": (f"max_pool{d}d", _pool_with_indices) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": (f"adaptive_max_pool{d}d", _adaptive_max_pool) for d in (1, 2, 3)},
    "einsum": ("einsum", _einsum),
    "embedding_bag": ("embedding_bag", _embedding_bag),
    "meshgrid": ("meshgrid", _meshgrid),
    "block_diag": ("block_diag", _block_diag),
    "new_full": ("new_full", _new_full),
    "arange": ("arange", _arange),
    **{n: (n, _created) for n in ("zeros", "ones", "empty", "full")},
    **dict.fromkeys(("tensor", "as_tensor"), ("empty", _literal)),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), ("var", _variance)),
    "scaled_dot_product_attention": ("scaled_dot_product_attention", _attention),
    "_native_multi_head_attention": ("_native_multi_head_attention", _native_attention),
}


CALLS: dict[str, Call] = {name: call for name, (op, call) in SPECIAL.items() if op in OPERATORS or op in COMPOSITES}
