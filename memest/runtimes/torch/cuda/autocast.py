"""What autocast does on CUDA where that is not what it does on a CPU, by row.

Source: aten/src/ATen/autocast_mode.h (the lists of CUDA: ``AT_FORALL_LOWER_PRECISION_FP``, ``AT_FORALL_FP32``,
``AT_FORALL_FP32_SET_OPT_DTYPE``, ``AT_FORALL_PROMOTE``), autocast_mode.cpp. ``tests/test_cuda_autocast.py`` holds it against the
dispatcher's registry.
"""

from __future__ import annotations

from collections.abc import Mapping

from memest.ops.facts import FALLS_THROUGH, FLOAT32, FLOAT32_RESULT, LOWER, PROMOTE, REFUSED, Policy

_LISTS: Mapping[Policy, str] = {
    LOWER: "convolution mv dot einsum",
    FLOAT32: (
        "softplus pow group_norm layer_norm rms_norm logsumexp exp expm1 log log1p log2 log10 rsqrt reciprocal _upsample l1_loss kl_div"
    ),
    FLOAT32_RESULT: "softmax log_softmax sum prod cumsum vector_norm",
    PROMOTE: "addcmul addcdiv grid_sample setitem",
    FALLS_THROUGH: (
        "cat stack _border_pad max_pool3d avg_pool3d adaptive_max_pool3d adaptive_avg_pool3d max_unpool2d max_unpool3d cross_entropy norm"
    ),
    REFUSED: "binary_cross_entropy _multi_head _native_multi_head_attention",
}
POLICIES: Mapping[str, Policy] = {name: policy for policy, names in _LISTS.items() for name in names.split()}
