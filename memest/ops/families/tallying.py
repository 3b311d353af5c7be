"""Histograms, and places drawn by the weights of a tensor: what a call holds while it counts or draws."""

from __future__ import annotations

import math

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import FLOATING, opmath
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import with_number
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.operator import Example, flag, number
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import NATIVE, attribute, row


def _histc(k: Tape, input: Tensor, *, bins: int, min: float, max: float) -> Tensor:
    """Each thread counts in bins of its own. Where the ends are the same number, they are looked for: from the input as it lies."""
    refuse_on_cuda(k)
    if input.dtype not in FLOATING:
        raise UnsupportedError(f"histc counts floating numbers, not {input.dtype}, as torch's does; cast with .float()")
    side_by_side = contiguous(k, input)
    edges = k.empty((bins + 1,), input.dtype)
    out = k.empty((bins,), input.dtype)
    if min == max:
        least, most = k.empty((), input.dtype), k.empty((), input.dtype)
        copy = contiguous(k, input)
        if copy is not input:
            k.free(copy)
        k.free(least, most)
    k.free(k.empty((k.target.cpu.threads, bins), input.dtype))
    if side_by_side is not input:
        k.free(side_by_side)
    k.free(edges)
    return out


def _multinomial(k: Tape, input: Tensor, *, num_samples: int, replacement: bool) -> Tensor:
    """Many with replacement: by a running sum of one row's weights. Else the weights are judged, each is divided by a number drawn for it,
    and the greatest are taken."""
    refuse_on_cuda(k)
    if input.dtype not in FLOATING or input.ndim not in (1, 2):
        raise ShapeError(f"multinomial draws by floating weights of one or two dims, not by {input.dtype} of {input.ndim}")
    if replacement and num_samples > 1:
        out = k.empty((*input.shape[:-1], num_samples), "int64")
        k.free(k.empty(input.shape[-1:], opmath(input.dtype)))
        return out
    out = k.empty((*input.shape[:-1], num_samples), "int64")
    least, most = k.empty((), input.dtype), k.empty((), input.dtype)
    positive, finite = with_number(k, least, 0, "bool"), with_number(k, most, math.inf, "bool")
    valid = k.empty((), "bool")
    k.free(positive, finite)
    sums = k.empty(input.shape[:-1], input.dtype)
    empty = with_number(k, sums, 0, "bool")
    if input.ndim == 2:
        some = k.empty((), "bool")
        k.free(empty, sums)
    else:
        some = empty
        k.free(sums)
    k.free(k.empty((), "bool"))
    drawn = k.empty(input.shape, input.dtype)
    if num_samples > 1:
        k.free(k.empty(out.shape, input.dtype))
    k.free(drawn, some, valid, least, most)
    return out


def _bincount(k: Tape, input: Tensor, weights: Tensor | None, *, count: int) -> Tensor:
    """Least and greatest are looked for first; weights that are not float32 are counted in float64."""
    refuse_on_cuda(k)
    if input.ndim != 1 or input.dtype in FLOATING or (weights is not None and weights.shape != input.shape):
        raise ShapeError(f"bincount takes whole numbers of one dim, and as many weights; not {input.dtype} of shape {list(input.shape)}")
    if count < 0:
        raise ShapeError(f"bincount of {count} bins")
    dtype, copies = "int64", [input]
    if weights is not None:
        dtype = "float32" if weights.dtype == "float32" else "float64"
        copies = [weights, contiguous(k, weights)]
        copies += [copies[-1] if weights.dtype == dtype else k.empty(weights.shape, dtype), input]
    copies.append(contiguous(k, input))
    if input.shape != (0,):
        for _ in ("least", "greatest"):
            k.free(k.empty((), input.dtype))
    out = k.empty((count,), dtype)
    k.free(*reversed(copies))
    return out


BCHW = (2, 3, 4, 5)
ROWS = (
    row(
        "histc",
        _histc,
        None,
        (attribute("bins", 100), attribute("min", 0, number), attribute("max", 0, number)),
        (
            Example(shapes=(BCHW,), attributes={"bins": 10, "min": 0, "max": 1}),
            Example(shapes=(BCHW,), attributes={"bins": 10}),
            Example(shapes=(BCHW,), attributes={"bins": 10}, layout="channels_last"),
            Example(shapes=((8, 16, 16, 17),), attributes={}),
        ),
        f"{NATIVE}/Histogram.cpp (histogram_histc), cpu/HistogramKernel.cpp",
        facts=EVERYWHERE_FACTS,
    ),
    row(
        "bincount",
        _bincount,
        None,
        (attribute("count"),),
        (
            Example(shapes=((12,), None), attributes={"count": 7}, dtypes=("int64",)),
            Example(shapes=((12,), None), attributes={"count": 3}, dtypes=("int32",)),
            Example(shapes=((12,), (12,)), attributes={"count": 7}, dtypes=("int64", "float32"), frozen=(1,)),
            Example(shapes=((12,), (12,)), attributes={"count": 7}, dtypes=("int64", "float64"), frozen=(1,)),
            Example(shapes=((12,), (12,)), attributes={"count": 7}, dtypes=("int64", "int64"), frozen=(1,)),
        ),
        f"{NATIVE}/SummaryOps.cpp (_bincount_cpu_template)",
        roles=("input", "weights?"),
        facts=EVERYWHERE_FACTS,
        oracle="bincount",
    ),
    row(
        "multinomial",
        _multinomial,
        None,
        (attribute("num_samples"), attribute("replacement", False, flag)),
        (
            Example(shapes=((4, 6),), attributes={"num_samples": 1}),
            Example(shapes=((4, 6),), attributes={"num_samples": 3}),
            Example(shapes=((6,),), attributes={"num_samples": 3}),
            Example(shapes=((4, 6),), attributes={"num_samples": 3, "replacement": True}),
            Example(shapes=((4, 6),), attributes={"num_samples": 3, "replacement": True}, layout="transposed"),
        ),
        f"{NATIVE}/Distributions.cpp (multinomial_out), cpu/MultinomialKernel.cpp",
        facts=EVERYWHERE_FACTS,
    ),
)
COMPOSITE_ROWS = ()
