"""Which kernel computes scaled dot product attention on CUDA.

Source: aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (``select_sdp_backend`` and the constraints it asks), sdp_utils_cpp.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memest.errors import UnsupportedError
from memest.machines.target import Target
from memest.network.dtypes import HALVES
from memest.network.tensor import Shape
from memest.ops.families.attention.rows import BACKENDS, CUDNN, EFFICIENT, FLASH, MATH, allowed, heads_fit, mask_fits

GROUPED_EFFICIENT = (2, 14)
"""The first torch whose memory-efficient kernel takes fewer heads of keys than of queries, and that makes three dims a batch of one."""
WIDE_CUDNN = (9, 23)
PREFERRED_CUDNN = (9, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: its tensors (anything with ``shape`` and ``spec``), what it asks for, whether a gradient will be wanted, and the kernels
    that it may choose from (None: all)."""

    query: Any
    key: Any
    value: Any
    mask: Any
    dropout_p: float
    is_causal: bool
    enable_gqa: bool
    trained: bool
    backends: tuple[str, ...] | None = None

    @property
    def dtype(self) -> str:
        """Of the query."""
        dtype: str = self.query.spec.dtype
        return dtype

    @property
    def shapes(self) -> tuple[Shape, Shape, Shape]:
        """Of query, key and value."""
        return self.query.shape, self.key.shape, self.value.shape


def chosen(target: Target, call: Call) -> str:
    """The first kernel, by torch's order of preference, that can take the call; UnsupportedError where none that it may choose can."""
    can = {FLASH: _flash_can, EFFICIENT: _efficient_can, MATH: _math_can, CUDNN: _cudnn_can}
    order = (CUDNN, FLASH, EFFICIENT, MATH) if _prefers_cudnn(target) else BACKENDS
    found = next((kernel for kernel in order if allowed(kernel, call.backends) and can[kernel](target, call)), None)
    if found is None:
        raise UnsupportedError(
            f"attention by {' or '.join(call.backends or ())} alone: torch has no kernel for {call.dtype} queries of shape "
            f"{list(call.shapes[0])} on {target.device}; allow math as well"
        )
    return found


def _math_can(target: Target, call: Call) -> bool:
    return True


def _fuses(call: Call) -> bool:
    """What every fused kernel asks for."""
    q, k, v = call.shapes
    return len(q) == len(k) == len(v) == 4 and q[0] == k[0] == v[0] and 0 not in (q[2], k[2])


def _prefers_cudnn(target: Target) -> bool:
    release = target.settings.cudnn
    return release is not None and release >= PREFERRED_CUDNN and target.device.capability[0] in (9, 10)


def _cudnn_can(target: Target, call: Call) -> bool:
    if not _fuses(call) or target.device.capability < (8, 0):
        return False
    q, k, _ = call.shapes
    if call.dtype not in HALVES or k[2] == 1 or (call.dropout_p and q[2] == 1):
        return False
    if (call.dropout_p * 16) % 1 and target.version > (2, 11):  # later versions refuse what cuDNN rounds to sixteenths
        return False
    if call.mask is not None and (call.mask.requires_grad or not mask_fits(call.mask.shape, (q[0], q[1], q[2], k[2]))):
        return False
    if not _last_dim_lies_dense(call, but_one=True) or not _groups_fit(target, call, same=False):
        return False
    return q[0] <= 65535 and q[1] <= 65535 and _cudnn_takes_sizes(target, call)


def _cudnn_takes_sizes(target: Target, call: Call) -> bool:
    size, value_size = call.query.shape[3], call.value.shape[3]
    release = target.settings.cudnn
    wide = target.version >= GROUPED_EFFICIENT and release is not None and release >= WIDE_CUDNN and target.device.capability[1] == 0
    if size % 8 or value_size % 8:
        return False
    if (size <= 128 and value_size <= 128) or (size == 192 and value_size == 128):
        return True
    if not wide or size > 256 or value_size > 256:
        return False
    return not call.trained or (size == 256 and value_size == 256)


def _flash_can(target: Target, call: Call) -> bool:
    if not _fuses(call):
        return False
    q, k, v = call.shapes
    if call.mask is not None or call.dtype not in HALVES or target.device.capability < (8, 0):
        return False
    if not q[3] == k[3] == v[3] or q[3] > 256 or (call.is_causal and q[2] != k[2]):
        return False
    if call.trained and not _flash_trains(target.device.capability, q[3], call.dropout_p):
        return False
    return _groups_fit(target, call, same=True) and _last_dim_lies_dense(call, but_one=True)


def _flash_trains(capability: tuple[int, int], size: int, dropout_p: float) -> bool:
    if (8, 6) <= capability <= (8, 9) or capability >= (12, 0):
        return size <= 192 or (not dropout_p and size > 224)
    return True


def _efficient_can(target: Target, call: Call) -> bool:
    if not _fuses(call):
        return False
    q, k, v = call.shapes
    if call.dtype not in ("float16", "float32", *(("bfloat16",) if target.device.capability >= (8, 0) else ())):
        return False
    unit = alignment(target, call.dtype)
    if q[3] != k[3] or q[3] == 0 or v[3] == 0 or q[3] % unit or v[3] % unit:
        return False
    grouped = target.version >= GROUPED_EFFICIENT
    if not (_groups_fit(target, call, same=True) if grouped else not call.enable_gqa and heads_fit(q[1], k[1], v[1], False)):
        return False
    return _last_dim_lies_dense(call, but_one=False)


def alignment(target: Target, dtype: str) -> int:
    """``minimum_gemm_alignment``: elements of which a head's size has to be a multiple."""
    major = target.device.capability[0]
    with_tensor_cores = major >= 8 or (major >= 7 and dtype in HALVES)
    return max(4 if major >= 8 else 1, (8 if dtype in HALVES else 4) if with_tensor_cores else 1)


def _groups_fit(target: Target, call: Call, *, same: bool) -> bool:
    """``check_batch_size_and_num_heads_dense``; ``same`` where keys and values have to have as many heads."""
    heads, keys, values = (s[1] for s in call.shapes)
    if call.enable_gqa:
        return heads % keys == 0 and heads % values == 0 and (keys == values or not same)
    alone = target.version >= GROUPED_EFFICIENT and keys == values == 1
    return bool(heads == keys == values or alone)


def _last_dim_lies_dense(call: Call, *, but_one: bool) -> bool:
    dense = all(t.spec.strides[-1] == 1 for t in (call.query, call.key, call.value))
    if not dense and not (but_one and call.query.shape[3] == 1):
        return False
    return call.mask is None or call.mask.spec.strides[-1] == 1
