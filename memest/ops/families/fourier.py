"""Discrete Fourier transforms by MKL (``torch.fft``). A transform takes what it gives; besides, the input is copied where its batch dims,
in order of their strides, are not one dim in memory. What it gives lies as MKL wrote it: batch dims first.

The gradient is a transform of the gradient; a real input is kept, for the size it had. Sources: aten/src/ATen/native/SpectralOps.cpp,
mkl/SpectralOps.cpp (``_exec_fft``), torch/csrc/autograd/FunctionsManual.cpp (``fft_r2c_backward``, ``fft_c2r_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import COMPLEX
from memest.network.tensor import Shape
from memest.ops.aten.iterator import incoming, on_host
from memest.ops.aten.views import permuted, reshaped, wrapped
from memest.ops.composite import Caller, refuse_on_cuda
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, FLOAT32, Facts, called
from memest.ops.operator import Example, choice, flag, integer, integers, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, composite, row

Saved = dict[str, Any]
Grads = list[Tensor | None]
COMPLEX_OF = {"float32": "complex64", "float64": "complex128"}
REAL_OF = {c: r for r, c in COMPLEX_OF.items()}


def _by_stride(t: Tensor, dims: Sequence[int]) -> list[int]:
    """Those that lie furthest apart first."""
    return sorted(dims, key=lambda d: -t.strides[d])


def _transformed(k: Tape, t: Tensor, sizes: Shape, dims: Sequence[int], dtype: str) -> Tensor:
    """``_exec_fft`` of ``t`` along ``dims`` into a new tensor of ``sizes``."""
    out = k.empty(sizes, dtype)
    batch = _by_stride(t, [d for d in range(t.ndim) if d not in dims])
    order = [*batch, *dims]
    seen = permuted(k, t, order)
    flat = reshaped(k, seen, (prod(seen.shape[: len(batch)]), *seen.shape[len(batch) :]))
    if flat.slot != t.slot:
        k.free(flat)
    strides, step = [0] * t.ndim, 1
    for d in reversed(order):
        strides[d] = step
        step = step * sizes[d]
    return k.restride(out, sizes, strides)


def _checked(input: Tensor, dims: Shape, complex_input: bool) -> None:
    if (input.dtype in COMPLEX) != complex_input or input.dtype not in (*REAL_OF, *COMPLEX_OF):
        raise UnsupportedError(f"a Fourier transform of {input.dtype} here is not modelled")
    if len(set(dims)) != len(dims) or len(dims) > 3:
        raise UnsupportedError(f"Fourier transforms along {len(dims)} dims, {list(dims)}, are not modelled: one to three, each once")
    if input.numel == 0:
        raise ShapeError("a Fourier transform of no elements")


def _r2c(k: Tape, input: Tensor, *, dims: Shape, onesided: bool) -> Tensor:
    """Half of the numbers along the last of ``dims``, or all."""
    _checked(input, dims, False)
    k.save(input=input)
    return _halved(k, input, dims, onesided)


def _halved(k: Tape, t: Tensor, dims: Shape, onesided: bool = True) -> Tensor:
    *rest, last = dims
    sizes = tuple(n // 2 + 1 if d == last and onesided else n for d, n in enumerate(t.shape))
    return _transformed(k, t, sizes, [*_by_stride(t, rest), last], COMPLEX_OF[t.dtype])


def _r2c_backward(k: Tape, saved: Saved, grads: Grads, *, dims: Shape, onesided: bool) -> Grads:
    """The gradient with zeros for what was left out, transformed; its real part."""
    grad, last = incoming(grads), dims[-1]
    length = saved["input"].shape[last]
    full = grad
    if length > grad.shape[last]:
        full = k.empty(tuple(length if d == last else n for d, n in enumerate(grad.shape)), grad.dtype)
    out = _whole(k, full, dims)
    k.free(None if full is grad else full)
    return [k.view(out, out.shape, [2 * step for step in out.strides], REAL_OF[out.dtype])]


def _whole(k: Tape, t: Tensor, dims: Shape) -> Tensor:
    return _transformed(k, t, t.shape, _by_stride(t, dims), t.dtype)


def _c2c(k: Tape, input: Tensor, *, dims: Shape) -> Tensor:
    _checked(input, dims, True)
    return _whole(k, input, dims)


def _c2c_backward(k: Tape, saved: Saved, grads: Grads, *, dims: Shape) -> Grads:
    return [_whole(k, incoming(grads), dims)]


def _c2r(k: Tape, input: Tensor, *, dims: Shape, length: int) -> Tensor:
    """All dims but the last as complex numbers first."""
    _checked(input, dims, True)
    *rest, last = dims
    inner = _whole(k, input, tuple(rest)) if rest else input
    sizes = tuple(length if d == last else n for d, n in enumerate(input.shape))
    out = _transformed(k, inner, sizes, [last], REAL_OF[input.dtype])
    k.free(None if inner is input else inner)
    return out


def _c2r_backward(k: Tape, saved: Saved, grads: Grads, *, dims: Shape, length: int) -> Grads:
    """The half transform, of which all but the ends is doubled in place."""
    grad = incoming(grads)
    out = _halved(k, grad, dims)
    if grad.shape[dims[-1]] > out.shape[dims[-1]]:
        number = on_host(k, (), "int64")
        k.free(on_host(k, (), out.dtype), number)
    return [out]


# what torch.fft offers ---------------------------------------------------------------------------------------------------


def _resized(c: Caller, input: Any, dims: Sequence[int], sizes: Sequence[int]) -> Any:
    """``resize_fft_input``: what is too long is cut, then what is too short is padded with zeros, all at once."""
    pads = [0] * (2 * len(input.shape))
    for d, n in zip(dims, sizes, strict=True):
        own = input.shape[d]
        if n < own:
            input = c.call("slice", input, dim=d, start=0, end=n)
        elif n > own:
            pads[2 * (len(input.shape) - 1 - d) + 1] = n - own
    return c.call("_constant_pad", input, pad=tuple(pads), value=0.0) if any(pads) else input


def _places(name: str, input: Any, s: Any, dim: Any) -> tuple[list[int], list[int]]:
    """Dims and sizes (``canonicalize_fft_shape_and_dim_args``); -1 leaves a size as it is."""
    ndim = len(input.shape)
    last = ndim if s is None else len(s)
    dims = list(range(ndim - last, ndim)) if dim is None else [wrapped(d, ndim) for d in dim]
    sizes = [input.shape[d] for d in dims] if s is None else [input.shape[d] if n == -1 else n for d, n in zip(dims, s, strict=True)]
    if not dims or any(n < 1 for n in sizes):
        raise ShapeError(f"{name} along {dims} to sizes {sizes}")
    return dims, sizes


def _forward(c: Caller, input: Any, *, s: Any, dim: Any, norm: str | None, name: str) -> Any:
    dims, sizes = _places(name, input, s, dim)
    if name.startswith("r"):
        return c.call("_fft_r2c", _resized(c, input, dims, sizes), dims=tuple(dims))
    if name.startswith("ir"):
        length = 2 * (input.shape[dims[-1]] - 1) if s is None or s[-1] == -1 else s[-1]
        source = _complexed(c, input)
        resized = _resized(c, source, dims, [*sizes[:-1], length // 2 + 1])
        return c.call("_fft_c2r", resized, dims=tuple(dims), length=length)
    if input.spec.dtype not in COMPLEX and not name.endswith(("2", "n")):
        if name != "fft":
            raise UnsupportedError(f"torch.fft.{name} of a real tensor along one dim is not modelled: make it complex before")
        return c.call("_fft_r2c", _resized(c, input, dims, sizes), dims=tuple(dims), onesided=False)
    return c.call("_fft_c2c", _resized(c, _complexed(c, input), dims, sizes), dims=tuple(dims))


def _complexed(c: Caller, input: Any) -> Any:
    return input if input.spec.dtype in COMPLEX else c.call("_to_complex", input)


def _one(name: str) -> Any:
    def compose(c: Caller, input: Any, *, n: int | None, dim: int, norm: str | None) -> Any:
        return _forward(c, input, s=None if n is None else (n,), dim=(dim,), norm=norm, name=name)

    return compose


def _many(name: str) -> Any:
    return partial(_forward, name=name)


def _shifted(sign: int) -> Any:
    def compose(c: Caller, input: Any, *, dim: Any) -> Any:
        refuse_on_cuda(c, "fftshift")
        ndim = len(input.shape)
        dims = tuple(range(ndim)) if dim is None else tuple(wrapped(d, ndim) for d in ((dim,) if isinstance(dim, int) else dim))
        shifts = tuple(input.shape[d] // 2 if sign > 0 else (input.shape[d] + 1) // 2 for d in dims)
        return c.call("roll", input, shifts=shifts, dims=dims)

    return compose


def dims_or_dim(value: Any) -> Any:
    """One dim, or several."""
    return integers(value) if isinstance(value, list | tuple) else integer(value)


C, R = ("complex64",), ("float32",)
BCHW = (2, 3, 8, 6)
NORM = attribute("norm", None, optional(choice("forward", "backward", "ortho")))
ONE = (attribute("n", None, optional(integer)), attribute("dim", -1), NORM)
DIMS = attribute("dims", check=integers)


def _examples(dtypes: tuple[str, ...], *given: dict[str, Any], layouts: tuple[str, ...] = ("contiguous",)) -> tuple[Example, ...]:
    return tuple(Example(shapes=(BCHW,), attributes=a, dtypes=dtypes, layout=layout) for a in given for layout in layouts)


LAYOUTS = ("contiguous", "channels_last")
KERNEL = "derivatives.yaml: {}; aten/src/ATen/native/mkl/SpectralOps.cpp"
_row = partial(row, facts=EVERYWHERE_FACTS)
ROWS = (
    _row(
        "_fft_r2c",
        _r2c,
        _r2c_backward,
        (DIMS, attribute("onesided", True, flag)),
        _examples(R, {"dims": (3,)}, {"dims": (2, 3)}, {"dims": (2, 1)}, {"dims": (3,), "onesided": False}, layouts=LAYOUTS),
        KERNEL,
        saves=("input",),
        oracle="fft_r2c",
    ),
    _row(
        "_fft_c2c",
        _c2c,
        _c2c_backward,
        (DIMS,),
        _examples(C, {"dims": (3,)}, {"dims": (1, 2)}, {"dims": (0,)}, layouts=LAYOUTS),
        KERNEL,
        oracle="fft_c2c",
    ),
    _row(
        "_fft_c2r",
        _c2r,
        _c2r_backward,
        (DIMS, attribute("length")),
        _examples(C, {"dims": (3,), "length": 10}, {"dims": (2, 3), "length": 11}, {"dims": (1, 2), "length": 14}, layouts=LAYOUTS),
        KERNEL,
        oracle="fft_c2r",
    ),
)
TWO_DIMS: dict[str, tuple[dict[str, Any], ...]] = {
    "rfft2": ({}, {"s": (4, 10)}, {"dim": (1, 2), "norm": "ortho"}),
    "irfft2": ({}, {"s": (8, 11)}, {"dim": (1, 2), "s": (4, 9), "norm": "ortho"}),
    "fft2": ({}, {"dim": (1, 2)}),
    "ifft2": ({}, {"s": (8, 9)}),
}
ALL_DIMS: dict[str, tuple[dict[str, Any], ...]] = {
    "rfftn": ({"dim": (1, 2, 3)}, {"s": (5, 5)}),
    "irfftn": ({"dim": (1, 2, 3)}, {"s": (5, 5), "dim": (2, 3)}),
    "fftn": ({"dim": (1, 2, 3)},),
    "ifftn": ({"dim": (2, 3)},),
}
SINGLE: dict[str, tuple[dict[str, Any], ...]] = {
    "rfft": ({}, {"n": 10}, {"n": 4, "dim": 1, "norm": "ortho"}),
    "irfft": ({}, {"n": 7}, {"dim": 1}),
    "fft": ({}, {"dim": 1}, {"n": 9}),
    "ifft": ({}, {"dim": 0}),
}


def _dtypes(name: str) -> tuple[str, ...]:
    return R if name.startswith("r") else C


def _calls(name: str) -> Facts:
    """Autocast gives a transform float32."""
    return EVERYWHERE_CALLS.but(autocast=called(f"fft_{name}", FLOAT32))


_composite = partial(composite, source="aten/src/ATen/native/SpectralOps.cpp", facts=EVERYWHERE_CALLS, torch="torch.fft.{}")
COMPOSITE_ROWS = (
    *(_composite(name, _one(name), ONE, _examples(_dtypes(name), *given), facts=_calls(name)) for name, given in SINGLE.items()),
    *(
        _composite(
            name,
            _many(name),
            (attribute("s", None, optional(integers)), attribute("dim", default, optional(integers)), NORM),
            (*_examples(_dtypes(name), *given), *(_examples(R, {}) if name == "fft2" else ())),
            facts=_calls(name),
        )
        for table, default in ((TWO_DIMS, (-2, -1)), (ALL_DIMS, None))
        for name, given in table.items()
    ),
    *(
        _composite(name, _shifted(sign), (attribute("dim", None, optional(dims_or_dim)),), _examples(C, {}, {"dim": (2, 3)}, {"dim": 1}))
        for name, sign in (("fftshift", 1), ("ifftshift", -1))
    ),
)
