"""Binding: the sizes that the symbols in a graph's inputs stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memest.errors import UsageError
from memest.network.graph import Input
from memest.network.tensor import Shape
from memest.sizes.dims import Expr


def bind(inputs: Sequence[Input], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """The sizes that the symbols in the inputs' dims stand for; UsageError where a shape contradicts the graph."""
    sizes: dict[str, int] = {}
    for i in inputs:
        shape = shapes[i.name]
        if len(shape) != len(i.shape):
            hint = f"; the batch is missing: 1x{'x'.join(map(str, shape))}" if _is_without_batch(i.shape, shape) else ""
            raise UsageError(f"input {i.name!r} has {len(i.shape)} dims ({_described(i)}), the shape given has {len(shape)}{hint}")
        for d, (want, have) in enumerate(zip(i.shape, shape, strict=True)):
            if isinstance(have, Expr):
                raise UsageError(f"input {i.name!r} has symbolic dims ({_described(i)}); give input_shape")
            if isinstance(have, bool) or not isinstance(have, int) or have < 1:
                raise UsageError(f"input {i.name!r}, dim {d}: sizes are positive integers, got {have!r}")
            if isinstance(want, Expr) and want.op == "symbol":
                known = sizes.setdefault(want.text, have)
                if known != have:
                    raise UsageError(f"input {i.name!r}, dim {d}: {want.text} is {known} already, got {have}")
            elif isinstance(want, int) and want != have:
                hint = "; put the channels first" if d == 1 and len(shape) > 2 and shape[-1] == want else ""
                raise UsageError(
                    f"input {i.name!r}, dim {d}: the graph says {want}, got {have} (the graph's shape is {_described(i)}){hint}"
                )
    for i in inputs:
        for d, (want, have) in enumerate(zip(i.shape, shapes[i.name], strict=True)):
            if isinstance(want, Expr) and want.op != "symbol" and want.evaluate(sizes) != have:
                raise UsageError(f"input {i.name!r}, dim {d}: {want.text} is {want.evaluate(sizes)}, got {have}")
    return sizes


def _described(i: Input) -> str:
    return "x".join(str(d) for d in i.shape)


def _is_without_batch(described: tuple[int | Expr, ...], given: Shape) -> bool:
    """Whether a shape is the one described but for the first dim."""
    rest = described[1:]
    return len(given) == len(rest) and all(isinstance(want, Expr) or want == have for want, have in zip(rest, given, strict=True))
