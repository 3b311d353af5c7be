"""Weights as a session holds them after loading: one copy, as its kernels read it.

Sources: onnxruntime/core/providers/cpu/math/gemm_matmul_common.h (``GemmPackBFp32``) and mlas/lib/sgemm.cpp (``MlasGemmPackBSize``): the
second operand of a float matrix product is packed, its columns padded to 16, and the original goes; in blocks of channels filters and
biases are padded to the block (:mod:`memest.runtimes.onnxruntime.lowering.nchwc`).
"""

from __future__ import annotations

from collections.abc import Iterator

from memest.memory.planners.blocks import aligned
from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import numel
from memest.runtimes.onnxruntime.lowering.nodes import Net, Node, Value

PACKED = frozenset({"Gemm", "MatMul", "FusedMatMul"})
COLUMNS = 16  # MLAS_SGEMM_PACKED_STRIDEN


TRANSPOSED = "transposed, in the arena"
BLOCKED = "in blocks of channels"
BY_COLUMNS = "packed by columns"


def weights_of(net: Net) -> Iterator[tuple[str, int, str, str]]:
    """Name, bytes, category and place of each, in the order of the nodes that read them. What several read alike is there once."""
    seen: set[tuple[str, object, int]] = set()
    for node in net.order():
        for slot, value in enumerate(node.inputs):
            if value is None or not value.is_weight:
                continue
            place = _place(node, slot, value)
            nbytes = _packed(node, value) if place == BY_COLUMNS else value.nbytes
            key = value.name or str(id(value)), value.shape, nbytes
            if key not in seen:
                seen.add(key)
                yield value.name, nbytes, "buffer" if value.category == "constant" else value.category, place


def _place(node: Node, slot: int, value: Value) -> str:
    """In what form a weight stands there (empty: as in the file)."""
    if slot != 1:
        return ""
    if _is_transposed(node, value):
        return TRANSPOSED
    if node.op == "nchwc:Conv":
        return BLOCKED
    return BY_COLUMNS if node.op in PACKED and len(value.shape) == 2 and value.dtype == "float32" else ""


def _is_transposed(node: Node, value: Value) -> bool:
    """Whether a transposed convolution's filters are turned around when the session is made (conv_transpose.cc, ``PrePack``)."""
    return node.op == "ConvTranspose" and value.shape[0] != node.attributes["group"] and numel(value.shape[1:]) != 1


def _packed(node: Node, value: Value) -> int:
    """Bytes of a packed right operand."""
    by_columns = node.op == "Gemm" and node.source.shape[-1] == value.shape[1]
    columns, rows = value.shape if by_columns and value.shape[0] != node.source.shape[-1] else value.shape[::-1]
    return aligned(columns, COLUMNS) * rows * ITEMSIZE[value.dtype]
