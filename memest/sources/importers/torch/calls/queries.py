"""Queries: calls of torch that move nothing, answered with symbolic sizes or left to torch (None)."""

from __future__ import annotations

from typing import Any

import torch

from memest.network.tensor import Spec, is_contiguous


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


def _strides(spec: Spec, args: Any, kwargs: Any, func: Any) -> Any:
    dim = args[0] if args else kwargs.get("dim")
    return spec.strides if dim is None else spec.strides[dim]


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
    "stride": _strides,
    "__get__:device": _device,
    "__get__:is_meta": _false,
    "__get__:requires_grad": _false,
    **dict.fromkeys(
        (
            "dim", "ndimension", "__get__:ndim", "__get__:dtype", "__get__:is_cuda", "__get__:layout", "__get__:is_sparse",
            "__get__:is_quantized", "__get__:is_nested", "__get__:is_mkldnn", "__get__:grad_fn", "__get__:is_leaf", "__get__:names",
            "__get__:grad", "__get__:data_ptr", "__get__:is_mps", "__get__:is_xpu", "__get__:itemsize", "__get__:is_cpu",
            "is_contiguous", "is_floating_point", "is_complex", "element_size", "get_device", "storage_offset", "is_same_size",
            "is_tensor", "is_nonzero", "has_names", "__hash__", "requires_grad_", "__format__", "__repr__", "_is_view", "is_inference",
            "_assert", "_assert_async", "_has_compatible_shallow_copy_type", "is_grad_enabled", "is_autocast_enabled",
            "_set_grad_enabled", "result_type", "device", "_parse_to",
        ),
        None,
    ),
}  # fmt: skip

TELLS_SIZES = frozenset(
    {
        *("size", "__get__:shape", "numel", "nelement", "__len__", "stride", "storage_offset", "is_same_size", "is_contiguous"),
        *("__format__", "__repr__"),
    }
)
"""Queries whose answers may go by sizes."""
COUNTS_PARTS = frozenset({"unbind", "split", "unsafe_split", "chunk"})
"""Rows that give as many tensors as sizes say."""
