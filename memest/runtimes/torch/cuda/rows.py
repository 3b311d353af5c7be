"""How each operator runs on CUDA: a family's ``ROWS`` are kernels that allocate otherwise than the CPU's, its ``SAME`` names those that
were held against torch's CUDA build and allocate as on the CPU. What neither names is refused."""

from __future__ import annotations

from memest.machines.target import TORCH_CUDA
from memest.runtimes.runtime import Rows
from memest.runtimes.torch.cuda import (
    activation,
    attention,
    comparison,
    convolution,
    copying,
    creation,
    dropout,
    einsum,
    elementwise,
    filling,
    indexing,
    likelihood,
    linear,
    loss,
    multi_head,
    normalization,
    norms,
    overlap,
    padding,
    pooling,
    rearranging,
    reduction,
    resampling,
    sampling,
    scalar,
    shaping,
    slicing,
    ternary,
    unary,
    unpooling,
)
from memest.runtimes.torch.cuda.autocast import POLICIES

FAMILIES = (
    activation,
    attention,
    comparison,
    convolution,
    copying,
    creation,
    dropout,
    einsum,
    elementwise,
    filling,
    indexing,
    likelihood,
    linear,
    loss,
    multi_head,
    normalization,
    norms,
    overlap,
    padding,
    pooling,
    rearranging,
    reduction,
    resampling,
    sampling,
    scalar,
    shaping,
    slicing,
    ternary,
    unary,
    unpooling,
)
ROWS = Rows(
    TORCH_CUDA,
    own={row.name: row for family in FAMILIES for row in family.ROWS},
    same=frozenset(name for family in FAMILIES for name in family.SAME),
    policies=POLICIES,
)
