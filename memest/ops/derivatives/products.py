"""Matrix products. Source: derivatives.yaml; FunctionsManual.cpp (mm_mat1_grad, mm_mat2_grad)."""

from __future__ import annotations

from typing import Any

from memest.errors import UnsupportedError
from memest.network.dtypes import COMPLEX
from memest.network.tensor import Shape
from memest.ops.derivatives.formula import Derived, Formula, Grads, Saved, only


def _real(grads: Grads) -> Any:
    """The gradient of a product. UnsupportedError for one of complex tensors, which torch conjugates without a copy."""
    grad = only(grads)
    if grad.spec.dtype in COMPLEX:
        raise UnsupportedError("create_graph=True through a product of complex tensors: no rule; compute with its parts (real, imag)")
    return grad


def _column_major(like: tuple[Shape, Shape]) -> bool:
    shape, strides = like
    return strides[0] == 1 and strides[1] == shape[0]


def _t(f: Formula, a: Any) -> Any:
    return f.call("t", a)


def _mm(f: Formula, a: Any, b: Any) -> Any:
    return f.call("mm", a, b)


def _scaled(f: Formula, product: Any, number: float) -> Any:
    """``maybe_multiply`` of a product that nobody else has."""
    scaled = f.maybe_multiply(product, number)
    if scaled is not product:
        f.drop(product)
    return scaled


def _first(f: Formula, grad: Any, mat2: Any, like: tuple[Shape, Shape], alpha: float) -> Any:
    if _column_major(like):
        return _scaled(f, _t(f, _mm(f, mat2, _t(f, grad))), alpha)
    return _scaled(f, _mm(f, grad, _t(f, mat2)), alpha)


def _second(f: Formula, grad: Any, mat1: Any, like: tuple[Shape, Shape], alpha: float) -> Any:
    if _column_major(like):
        return _scaled(f, _t(f, _mm(f, _t(f, grad), mat1)), alpha)
    return _scaled(f, _mm(f, _t(f, mat1), grad), alpha)


def _mm_gradients(f: Formula, saved: Saved, grads: Grads) -> Derived:
    grad = _real(grads)
    second = _second(f, grad, saved["input"], saved["mat2_like"], 1) if f.wants(1) else None
    return [_first(f, grad, saved["mat2"], saved["input_like"], 1) if f.wants(0) else None, second]


def _addmm(f: Formula, saved: Saved, grads: Grads, *, beta: float, alpha: float) -> Derived:
    grad = _real(grads)
    first = _first(f, grad, saved["mat2"], saved["mat1_like"], alpha) if f.wants(1) else None
    second = _second(f, grad, saved["mat1"], saved["mat2_like"], alpha) if f.wants(2) else None
    return [f.maybe_multiply(grad, beta) if f.wants(0) else None, first, second]


def _flipped(f: Formula, a: Any) -> Any:
    return f.transpose(a, 1, 2)


def _bmm(f: Formula, saved: Saved, grads: Grads) -> Derived:
    grad = _real(grads)
    second = f.call("bmm", _flipped(f, saved["input"]), grad) if f.wants(1) else None
    return [f.call("bmm", grad, _flipped(f, saved["mat2"])) if f.wants(0) else None, second]


def _baddbmm(f: Formula, saved: Saved, grads: Grads, *, beta: float, alpha: float) -> Derived:
    grad = _real(grads)
    first = _scaled(f, f.call("bmm", grad, _flipped(f, saved["batch2"])), alpha) if f.wants(1) else None
    second = _scaled(f, f.call("bmm", _flipped(f, saved["batch1"]), grad), alpha) if f.wants(2) else None
    return [f.maybe_multiply(grad, beta) if f.wants(0) else None, first, second]


def _mv(f: Formula, saved: Saved, grads: Grads) -> Derived:
    """self: grad.ger(vec), a product of a column and a row."""
    grad = _real(grads)
    first = f.mul(f.unsqueeze(grad, 1), saved["vec"]) if f.wants(0) else None
    return [first, f.call("mv", _t(f, saved["input"]), grad) if f.wants(1) else None]


def _dot(f: Formula, saved: Saved, grads: Grads) -> Derived:
    grad = _real(grads)
    first = f.mul(grad, saved["tensor"]) if f.wants(0) else None
    return [first, f.mul(grad, saved["input"]) if f.wants(1) else None]


FORMULAS: dict[str, Any] = {
    "mm": _mm_gradients,
    "addmm": _addmm,
    "bmm": _bmm,
    "baddbmm": _baddbmm,
    "mv": _mv,
    "dot": _dot,
}
