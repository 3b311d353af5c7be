"""The table of operators: every family's rows, by name. A name may stand once."""

from __future__ import annotations

from types import ModuleType

from memest.errors import UnknownNameError, did_you_mean
from memest.ops.composite import Composite
from memest.ops.families import (
    activation,
    bags,
    comparison,
    complex,
    copying,
    creation,
    crossing,
    custom,
    detection,
    determinants,
    diagonals,
    differentiating,
    distances,
    drawing,
    dropout,
    dynamic_quantization,
    eigenvalues,
    einsum,
    elementwise,
    embedding,
    extrema,
    filling,
    finite,
    fourier,
    functions,
    indexing,
    inverting,
    likelihood,
    limiting,
    linear,
    loss,
    margin_losses,
    matrices,
    normalization,
    norms,
    ordering,
    orthogonal,
    outer,
    overlap,
    padding,
    picking,
    placing,
    policies,
    pooling,
    pseudo_inverse,
    quantizing,
    rearranging,
    reduction,
    reparametrizing,
    resampling,
    sampling,
    scalar,
    scattering,
    sequence_losses,
    shaping,
    signs,
    singular_values,
    slicing,
    sorting,
    summing,
    tallying,
    ternary,
    triangular,
    turning,
    unary,
    unpooling,
)
from memest.ops.families.attention import encoder_layer, multi_head
from memest.ops.families.attention import rows as attention
from memest.ops.families.convolution import rows as convolution
from memest.ops.families.recurrent import rows as recurrent
from memest.ops.operator import Operator

FAMILIES = (
    activation,
    attention,
    bags,
    comparison,
    complex,
    convolution,
    copying,
    creation,
    crossing,
    custom,
    differentiating,
    detection,
    determinants,
    diagonals,
    distances,
    drawing,
    dropout,
    dynamic_quantization,
    eigenvalues,
    einsum,
    elementwise,
    embedding,
    encoder_layer,
    extrema,
    filling,
    finite,
    fourier,
    functions,
    indexing,
    inverting,
    likelihood,
    limiting,
    linear,
    loss,
    margin_losses,
    matrices,
    multi_head,
    normalization,
    norms,
    ordering,
    orthogonal,
    outer,
    overlap,
    padding,
    picking,
    placing,
    policies,
    pooling,
    pseudo_inverse,
    quantizing,
    rearranging,
    recurrent,
    reduction,
    reparametrizing,
    resampling,
    sampling,
    scalar,
    scattering,
    sequence_losses,
    shaping,
    signs,
    singular_values,
    slicing,
    sorting,
    summing,
    tallying,
    ternary,
    triangular,
    turning,
    unary,
    unpooling,
)


def _collect() -> tuple[dict[str, Operator], dict[str, Composite]]:
    rows: dict[str, Operator] = {}
    composites: dict[str, Composite] = {}
    for family in FAMILIES:
        for row in family.ROWS:
            assert row.name not in rows, row.name
            rows[row.name] = row
        for composite in family.COMPOSITE_ROWS:
            assert composite.name not in rows and composite.name not in composites, composite.name
            composites[composite.name] = composite
    return rows, composites


def family_name(family: ModuleType) -> str:
    """What a family is called: its file's name, or that of the folder whose rows it holds."""
    *_, folder, file = family.__name__.split(".")
    return (folder if file == "rows" else file).replace("_", " ")


OPERATORS, COMPOSITES = _collect()


def operator_named(op: str) -> Operator | Composite:
    """The row or composite called ``op``."""
    entry = OPERATORS.get(op) or COMPOSITES.get(op)
    if entry is None:
        raise UnknownNameError(f"unknown operator {op!r}{did_you_mean(op, [*OPERATORS, *COMPOSITES])}")
    return entry
