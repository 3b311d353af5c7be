"""Complex numbers: tensors made of two real ones, seen as such, and arithmetic between them.

A view of conjugates is written out before a kernel reads it, so every product in backward copies its other factor first; a real operand
is cast. The gradient of a real operand is the view of a complex one. Complex64 and complex128.

Sources: torch/csrc/autograd/FunctionsManual.cpp (``mul_tensor_backward``, ``handle_r_to_c``), aten/src/ATen/native/ComplexHelper.h,
UnaryOps.cpp (``unary_op_impl_with_complex_to_float_out``), aten/src/ATen/ConjugateFallback.cpp.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import COMPLEX
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import elementwise, empty_like, incoming, iterator_strides, scalar
from memest.ops.composite import Caller
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32, POINTWISE_CALLS, POINTWISE_FACTS
from memest.ops.operator import Example, number, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, calls, composite, row

Saved = dict[str, Any]
Grads = list[Tensor | None]
COMPLEX_OF = {"float32": "complex64", "float64": "complex128"}
REAL_OF = {c: r for r, c in COMPLEX_OF.items()}


def complex_of(t: Any) -> str:
    """The complex dtype of ``t``'s precision."""
    if t.dtype not in COMPLEX_OF:
        raise UnsupportedError(f"complex numbers of {t.dtype} are not modelled: float32 or float64")
    return COMPLEX_OF[t.dtype]


def part(k: Tape, t: Tensor) -> Tensor:
    """``at::real`` (or ``imag``) of a complex tensor: a view of every other number."""
    return k.view(t, t.shape, [2 * step for step in t.strides], REAL_OF[t.dtype])


def _view_as_real(k: Tape, input: Tensor) -> Tensor:
    if input.dtype not in REAL_OF:
        raise ShapeError(f"view_as_real takes a complex tensor, got {input.dtype}")
    return k.view(input, (*input.shape, 2), [*(2 * step for step in input.strides), 1], REAL_OF[input.dtype])


def _view_as_real_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    return [_paired(k, contiguous(k, incoming(grads)))]


def _view_as_complex(k: Tape, input: Tensor) -> Tensor:
    return _paired(k, input)


def _paired(k: Tape, t: Tensor) -> Tensor:
    if not t.ndim or t.shape[-1] != 2 or t.strides[-1] != 1 or any(step % 2 for step in t.strides[:-1]):
        raise ShapeError(f"view_as_complex needs pairs side by side, got shape {list(t.shape)} with strides {list(t.strides)}")
    return k.view(t, t.shape[:-1], [step // 2 for step in t.strides[:-1]], complex_of(t))


def _view_as_complex_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    return [_view_as_real(k, contiguous(k, incoming(grads)))]


def _complex(k: Tape, real: Tensor, imag: Tensor) -> Tensor:
    if real.dtype != imag.dtype:
        raise ShapeError(f"complex numbers of {real.dtype} and {imag.dtype}")
    k.save(imag=imag, real=real)
    return elementwise(k, real, imag, dtype=complex_of(real))


def _complex_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    grad = incoming(grads)
    return [part(k, grad) for _ in range(2)]


def _to_complex(k: Tape, input: Tensor) -> Tensor:
    return empty_like(k, input, complex_of(input))


def _to_complex_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    return [part(k, incoming(grads))]


def _operand(k: Tape, other: Tensor | None, value: float | None) -> Tensor:
    if other is not None:
        return other
    if value is None:
        raise ShapeError("needs a second tensor or a value")
    return scalar(k, value)


def _common(*tensors: Tensor) -> str:
    wide = any(t.dtype in ("complex128", "float64") for t in tensors if t.ndim)
    return "complex128" if wide else "complex64"


def _sum(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None) -> Tensor:
    second = _operand(k, other, value)
    k.note(real=(input.dtype not in COMPLEX, second.dtype not in COMPLEX))
    return elementwise(k, input, second, compute=_common(input, second))


def _sum_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None) -> Grads:
    """The gradient as it came, for a real operand its real part."""
    grad = incoming(grads)
    return [part(k, grad) if real else grad for real in saved["real"][: len(k.needs)]]


def _difference_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None) -> Grads:
    grad = incoming(grads)
    first, *second = saved["real"][: len(k.needs)]
    out: Grads = [part(k, grad) if first else grad]
    if second and k.needs[1]:
        turned = elementwise(k, grad)
        out.append(part(k, turned) if second[0] else turned)
    return out + [None] * (len(k.needs) - len(out))


def _mul(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None) -> Tensor:
    second = _operand(k, other, value)
    k.note(real=(input.dtype not in COMPLEX, second.dtype not in COMPLEX))
    if k.needs[0]:
        k.save(other=second)
    if len(k.needs) > 1 and k.needs[1]:
        k.save(input=input)
    return elementwise(k, input, second, compute=_common(input, second))


def _mul_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None) -> Grads:
    """``grad * conj(factor)``, the second operand's first: what is complex is copied with its signs turned, what is real is cast."""
    grad = incoming(grads)
    out: Grads = [None] * len(k.needs)
    for i, role in reversed(list(enumerate(("other", "input")[: len(k.needs)]))):
        if not k.needs[i]:
            continue
        made = _times_conjugate(k, grad, saved[role])
        out[i] = part(k, made) if saved["real"][i] else made
    return out


def _abs(k: Tape, input: Tensor) -> Tensor:
    """The kernel gives complex numbers, whose real parts are copied."""
    k.save(input=input)
    return _abs_of(k, input)


def _abs_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    signs = elementwise(k, saved["input"])
    out = elementwise(k, incoming(grads), signs, compute=signs.dtype)
    k.free(signs)
    return [out]


def _div(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None) -> Tensor:
    second = _operand(k, other, value)
    k.note(real=(input.dtype not in COMPLEX, second.dtype not in COMPLEX))
    k.save(other=second)
    if len(k.needs) > 1 and k.needs[1]:
        k.save(input=input)
    return elementwise(k, input, second, compute=_common(input, second))


def _div_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None) -> Grads:
    """The divisor's first: -grad * ((self / other) / other).conj(); then grad / other.conj()."""
    grad = incoming(grads)
    other: Tensor = saved["other"]
    out: Grads = [None] * len(k.needs)
    if len(k.needs) > 1 and k.needs[1]:
        once = elementwise(k, saved["input"], other, compute=grad.dtype)
        twice = elementwise(k, once, other, compute=grad.dtype)
        negative = elementwise(k, grad)
        made = _times_conjugate(k, negative, twice)
        k.free(negative, twice, once)
        out[1] = part(k, made) if saved["real"][1] else made
    if k.needs[0]:
        made = _times_conjugate(k, grad, other)
        out[0] = part(k, made) if saved["real"][0] else made
    return out


def _times_conjugate(k: Tape, t: Tensor, factor: Tensor) -> Tensor:
    """``t`` multiplied (or divided) by the conjugate of ``factor``: a complex one is copied with its signs turned, a real one cast."""
    turned = empty_like(k, factor) if factor.dtype in COMPLEX else factor
    made = elementwise(k, t, turned, compute=t.dtype)
    k.free(None if turned is factor else turned)
    return made


def _angle(k: Tape, input: Tensor) -> Tensor:
    """The kernel gives complex numbers, whose real parts are copied row by row."""
    k.save(input=input)
    whole = elementwise(k, input)
    out = k.empty(input.shape, REAL_OF[input.dtype])
    k.free(whole)
    return out


def _angle_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    """where(self == 0, 0, grad * self / self.abs().pow(2) * 1j)."""
    input: Tensor = saved["input"]
    size = _abs_of(k, input)
    square = elementwise(k, size)
    scaled = elementwise(k, incoming(grads), input, compute=input.dtype)
    ratio = elementwise(k, scaled, square, compute=input.dtype)
    turned = _by_i(k, ratio)
    zero = k.empty((), input.dtype)
    number = scalar(k, 0.0)
    cast = k.empty((), input.dtype)
    mask = k.empty(input.shape, "bool", iterator_strides(input.shape, (input,)))
    k.free(cast, number)
    out = k.empty(input.shape, input.dtype, iterator_strides(input.shape, (mask, zero, turned)))
    k.free(mask, zero, turned, ratio, scaled, square, size)
    return [out]


def _abs_of(k: Tape, t: Tensor) -> Tensor:
    out = empty_like(k, t, REAL_OF[t.dtype])
    k.free(elementwise(k, t))
    return out


def _by_i(k: Tape, t: Tensor) -> Tensor:
    """``t`` times the imaginary unit, a number of two doubles."""
    number = k.empty((), "complex128")
    cast = None if t.dtype == "complex128" else k.empty((), t.dtype)
    out = elementwise(k, t)
    k.free(cast, number)
    return out


def _polar(k: Tape, abs: Tensor, angle: Tensor) -> Tensor:
    if abs.dtype != angle.dtype:
        raise ShapeError(f"polar of {abs.dtype} and {angle.dtype}")
    out = elementwise(k, abs, angle, dtype=complex_of(abs))
    k.save(result=out)
    return out


def _polar_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    """Real parts: of grad.conj() * result.sgn(), and of grad.conj() * result * 1j; what is returned looks at the products."""
    grad, result = incoming(grads), saved["result"]
    sign = elementwise(k, result)
    first = _times_conjugate(k, sign, grad)
    k.free(sign)
    turned = _by_i(k, result)
    second = _times_conjugate(k, turned, grad)
    k.free(turned)
    return [part(k, first), part(k, second)]


def _exp(k: Tape, input: Tensor) -> Tensor:
    out = elementwise(k, input)
    k.save(result=out)
    return out


def _exp_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    return [_times_conjugate(k, incoming(grads), saved["result"])]


def _real(c: Caller, input: Any) -> Any:
    return c.call("select", c.call("view_as_real", input), dim=-1, index=0) if input.spec.dtype in COMPLEX else input


def _imag(c: Caller, input: Any) -> Any:
    return c.call("select", c.call("view_as_real", input), dim=-1, index=1)


C, R = "complex64", "float32"
PAIRS = (2, 3, 4, 2)
NUMBERS = (2, 3, 4)
VALUE = (attribute("value", None, optional(number)),)
TWO = (
    Example(shapes=(NUMBERS, NUMBERS), attributes={}, dtypes=(C, C)),
    Example(shapes=(NUMBERS, (3, 4)), attributes={}, dtypes=(C, C)),
    Example(shapes=(NUMBERS, NUMBERS), attributes={}, dtypes=(C, R)),
    Example(shapes=(NUMBERS, (3, 1)), attributes={}, dtypes=(R, C)),
    Example(shapes=(NUMBERS, NUMBERS), attributes={}, dtypes=(C, C), layout="transposed"),
    Example(shapes=(NUMBERS, NUMBERS), attributes={}, dtypes=(C, C), frozen=(0,)),
)
_row = partial(row, facts=POINTWISE_FACTS)
_binary = partial(_row, roles=("input", "other?"))
SOURCE = "derivatives.yaml: {}; aten/src/ATen/native/ComplexHelper.h"


def _one(shape: tuple[int, ...] = NUMBERS) -> tuple[Example, ...]:
    return tuple(Example(shapes=(shape,), attributes={}, dtypes=(C,), layout=layout) for layout in ("contiguous", "transposed"))


ROWS = (
    _row("view_as_real", _view_as_real, _view_as_real_backward, (), _one(), SOURCE, facts=EVERYWHERE_FACTS),
    _row(
        "view_as_complex",
        _view_as_complex,
        _view_as_complex_backward,
        (),
        calls((PAIRS, {})),
        SOURCE,
        facts=EVERYWHERE_FACTS.but(autocast=FLOAT32),
    ),
    _row(
        "complex",
        _complex,
        _complex_backward,
        (),
        (*calls(((NUMBERS, NUMBERS), {})), Example(shapes=(NUMBERS, (4,)), attributes={}, dtypes=("float64",) * 2)),
        "derivatives.yaml: {}; aten/src/ATen/native/TensorFactories.cpp",
        roles=("real", "imag"),
        saves=("real", "imag"),
    ),
    _row(
        "_to_complex",
        _to_complex,
        _to_complex_backward,
        (),
        calls((NUMBERS, {})),
        "derivatives.yaml: _to_copy; aten/src/ATen/native/TensorConversions.cpp",
        torch="torch.Tensor.to",
        oracle="to_complex",
    ),
    _binary("complex_add", _sum, _sum_backward, VALUE, TWO, "derivatives.yaml: add.Tensor", torch="torch.add"),
    _binary("complex_sub", _sum, _difference_backward, VALUE, TWO, "derivatives.yaml: sub.Tensor", torch="torch.sub"),
    _binary("complex_mul", _mul, _mul_backward, VALUE, TWO, "derivatives.yaml: mul.Tensor", torch="torch.mul", saves=("input", "other")),
    _binary("complex_div", _div, _div_backward, VALUE, TWO, "derivatives.yaml: div.Tensor", torch="torch.div", saves=("input", "other")),
    _row("complex_angle", _angle, _angle_backward, (), _one(), "derivatives.yaml: angle", saves=("input",), torch="torch.angle"),
    _row("complex_exp", _exp, _exp_backward, (), _one(), "derivatives.yaml: exp", saves=("result",), torch="torch.exp"),
    _row(
        "polar",
        _polar,
        _polar_backward,
        (),
        (*calls(((NUMBERS, NUMBERS), {})), Example(shapes=(NUMBERS, NUMBERS), attributes={}, dtypes=("float64",) * 2)),
        "derivatives.yaml: {}; aten/src/ATen/native/TensorFactories.cpp",
        roles=("abs", "angle"),
        saves=("result",),
        facts=POINTWISE_FACTS.but(autocast=FLOAT32),
    ),
    _row(
        "complex_abs",
        _abs,
        _abs_backward,
        (),
        _one(),
        "derivatives.yaml: abs",
        saves=("input",),
        torch="torch.abs",
    ),
)
COMPOSITE_ROWS = (
    composite("real", _real, (), _one(), "aten/src/ATen/native/TensorShape.cpp", facts=POINTWISE_CALLS),
    composite("imag", _imag, (), _one(), "aten/src/ATen/native/TensorShape.cpp", facts=POINTWISE_CALLS),
)
