"""Sealed kernels: their bound is one, and many sizes at once give what each alone gives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import ceil, floor, gcd, isqrt, prod, trunc
from typing import Any

import numpy as np
import pytest

from memest.errors import MemestError
from memest.libraries.onednn import matmul
from memest.libraries.onednn.brgemm_strided import plan_strided
from memest.libraries.onednn.problem import Convolution
from memest.libraries.onednn.rough import Rough
from memest.machines.cpu import Cpu
from memest.machines.target import Target
from memest.network.tensor import Spec, channels_last_strides, contiguous_strides
from memest.ops.families.attention import rows as attention
from memest.ops.families.convolution import bound as convolution_bound
from memest.ops.families.convolution import rows as convolution
from memest.ops.families.convolution.geometry import Geometry
from memest.ops.searched import InnerPeak, Size
from memest.sizes import choices
from memest.sizes.columns import Lanes, Split, TooLargeError, by_lanes
from memest.sizes.remembering import Suspended, clear_caches

CPUS = [Cpu(isa=isa, threads=threads) for isa in ("avx512", "avx2") for threads in (1, 2, 8, 64)]


def problems(seed: int, count: int) -> Iterator[InnerPeak]:
    """Random convolutions, forward and backward, that torch would run."""
    rnd = random.Random(seed)
    made = 0
    while made < count:
        dims, groups = rnd.choice([2, 2, 2, 3]), rnd.choice([1, 1, 1, 1, 2, 4, 0])
        inner = rnd.choice([1, 3, 8, 16, 24, 48, 64, 96, 160, 256, 512])
        outer = inner if groups == 0 else rnd.choice([1, 3, 8, 16, 32, 64, 96, 128, 512, 1024]) * groups
        groups, inner = (inner, inner) if groups == 0 else (groups, inner * groups)
        kernel = (
            (rnd.choice([1, 1, 2, 3, 3, 3, 5, 7]),) * dims
            if rnd.random() < 0.8
            else tuple(rnd.choice([1, 3, 9, 11, 15]) for _ in range(dims))
        )
        stride, dilation, padding = rnd.choice([1, 1, 1, 2, 2, 3]), rnd.choice([1, 1, 1, 2]), rnd.choice([0, 1, kernel[0] // 2])
        transposed = rnd.random() < 0.2
        g = Geometry((stride,) * dims, (padding,) * dims, (dilation,) * dims, (0,) * dims, groups, transposed)
        size = tuple(rnd.choice([1, 2, 3, 5, 7, 8, 14, 16, 28, 33, 56]) for _ in range(dims))
        batch = rnd.choice([1, 1, 2, 3, 4, 8, 17, 32])
        out = g.output_size(size, kernel)
        if min(out) < 1:
            continue
        order = channels_last_strides if rnd.random() < 0.25 else contiguous_strides
        dtype, cpu = rnd.choice(["float32"] * 6 + ["float64", "bfloat16", "bfloat16", "float16"]), rnd.choice(CPUS)
        shapes = (
            (batch, outer, *out),
            (batch, inner, *size),
            (inner, outer // groups, *kernel) if transposed else (outer, inner // groups, *kernel),
        )
        grad, input, weight = (tuple(Spec(s, order(s), dtype)) for s in shapes)
        made += 1
        yield InnerPeak(
            kernel=convolution._run, bound=convolution_bound.forward, operands=(input, weight, None), attributes=(("g", tuple(g)),),
            needs=(True, True), training=True, target=Target(machine=cpu),
        )  # fmt: skip
        yield InnerPeak(
            kernel=convolution._run_backward, bound=convolution_bound.backward, operands=(grad, input, weight),
            attributes=(("g", tuple(g)), ("mask", (rnd.random() < 0.8, True, True))), 
            needs=(True, True, True), training=True, target=Target(machine=cpu),
        )  # fmt: skip


def check_bounds(seed: int, count: int) -> None:
    asked = 0
    for peak in problems(seed, count):
        try:
            held = peak.play(())
        except MemestError:
            continue
        asked += 1
        assert held <= max(peak.most()), peak
    assert asked > count


def test_no_convolution_holds_more_than_its_bound() -> None:
    check_bounds(0, 400)


def depthwise(rnd: random.Random) -> InnerPeak | None:
    """A random convolution of one channel a group, on small images more often than not; None where torch would not run it."""
    channels = rnd.choice([2, 3, 8, 16, 17, 24, 33, 64, 96, 144, 256, 960])
    kernel = (rnd.choice([2, 3, 3, 3, 5, 7]),) * 2 if rnd.random() < 0.7 else (rnd.choice([1, 2, 3, 5]), rnd.choice([1, 3, 4, 7]))
    stride, dilation, padding = (
        rnd.choice([1, 1, 2, 2, 3, 4]),
        rnd.choice([1] * 6 + [2]),
        tuple(rnd.choice([0, k // 2, 1, 2]) for k in kernel),
    )
    size = (
        (rnd.choice([1, 2, 3, 4, 5, 6, 7, 9, 14, 28, 56]),) * 2 if rnd.random() < 0.7 else (rnd.choice([2, 5, 14]), rnd.choice([3, 7, 28]))
    )
    g = Geometry((stride,) * 2, padding, (dilation,) * 2, (0, 0), channels, False)
    batch, out = rnd.choice([1, 1, 2, 3, 8, 32]), g.output_size(size, kernel)
    dtype = rnd.choice(["float32"] * 9 + ["bfloat16"])
    order = rnd.choice([channels_last_strides, contiguous_strides])
    if min(out) < 1:
        return None
    shapes = (batch, channels, *out), (batch, channels, *size), (channels, 1, *kernel)
    grad, input, weight = (tuple(Spec(s, order(s), dtype)) for s in shapes)
    backward = rnd.random() < 0.6
    return InnerPeak(
        kernel=convolution._run_backward if backward else convolution._run,
        bound=convolution_bound.backward if backward else convolution_bound.forward,
        operands=(grad, input, weight) if backward else (input, weight, None),
        attributes=(("g", tuple(g)), *((("mask", (rnd.random() < 0.8, True, True)),) if backward else ())),
        needs=(True,) * (2 + backward), training=rnd.random() < 0.7, target=Target(machine=rnd.choice(CPUS)),
    )  # fmt: skip


def test_no_depthwise_convolution_holds_more_than_its_bound() -> None:
    """On small images, and with wide paddings, depthwise kernels refuse, and others see square blocks in every group."""
    rnd, asked = random.Random(2), 0
    while asked < 1200:
        peak = depthwise(rnd)
        try:
            held = 0 if peak is None else peak.play(())
        except MemestError:
            continue
        if peak is not None:
            asked += 1
            assert held <= max(peak.most()), peak


@pytest.mark.parametrize(("stride", "padding", "out"), [(3, (1, 1), (2, 2)), (1, (0, 2), (2, 6))])
def test_square_blocks_in_every_group_are_within_the_bound(stride: int, padding: tuple[int, int], out: tuple[int, int]) -> None:
    g = Geometry((stride,) * 2, padding, (1, 1), (0, 0), 256, False)
    shapes = (1, 256, *out), (1, 256, 4, 4), (256, 1, 3, 3)
    peak = InnerPeak(
        kernel=convolution._run_backward, bound=convolution_bound.backward,
        operands=tuple(tuple(Spec(s, channels_last_strides(s), "float32")) for s in shapes),
        attributes=(("g", tuple(g)), ("mask", (True, True, True))),
        needs=(True, True, True), training=True, target=Target(machine=Cpu(threads=1)),
    )  # fmt: skip
    assert peak.play(()) <= max(peak.most())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_no_convolution_holds_more_than_its_bound_at_length(seed: int) -> None:
    check_bounds(seed, 1500)


@pytest.mark.slow
def test_no_attention_holds_more_than_its_bound() -> None:
    """Backward of the fused kernel in bfloat16; a batch left open gives at many sizes at once what each alone gives."""
    rnd = random.Random(3)
    for _ in range(120):
        heads, queries, keys = rnd.choice([1, 2, 5, 12]), rnd.choice([1, 7, 49, 196, 197, 800]), rnd.choice([1, 16, 197, 513, 1100])
        size, cpu = rnd.choice([8, 32, 64, 80, 128]), Cpu(isa="avx512", bf16=True, threads=rnd.choice([1, 2, 8]))

        def spec(length: int, heads: int = heads, size: int = size) -> tuple[Any, ...]:
            shape = (heads, length, size)
            return (Size(0), *shape), (heads * length * size, *contiguous_strides(shape)), "bfloat16"

        peak = InnerPeak(
            kernel=attention._flash_gradients, bound=attention._most_of_gradients,
            operands=(spec(queries), spec(queries), spec(keys), spec(keys), None), attributes=(("scaled", True),),
            needs=(True,) * 3, training=True, target=Target(machine=cpu),
        )  # fmt: skip
        batches = rnd.sample(range(1, 70), 5)
        alone = [peak.play((n,)) for n in batches]
        assert all(held <= max(peak.most(n)) for held, n in zip(alone, batches, strict=True)), peak
        assert by_lanes(lambda *at, peak=peak: peak.play(at), [np.array(batches)]).tolist() == alone


def symbolic(peak: InnerPeak) -> InnerPeak:
    """The same problem with the batch, and the strides that follow from nothing else, left open."""

    def opened(spec: tuple[tuple[int, ...], tuple[int, ...], str]) -> tuple[object, ...]:
        shape, strides, dtype = spec
        return (Size(0), *shape[1:]), strides, dtype

    grad, input, weight = peak.operands
    return InnerPeak(
        kernel=peak.kernel, bound=peak.bound, operands=(opened(grad), opened(input), weight), attributes=peak.attributes,
        needs=peak.needs, training=True, target=peak.target,
    )  # fmt: skip


@pytest.mark.slow
def test_many_batches_at_once_are_each_as_if_alone() -> None:
    batches = np.array([2, 3, 4, 5, 8, 16, 31, 64, 65, 128], dtype=np.int64)
    compared = 0
    for peak in problems(7, 120):
        if peak.operands[2] is None or peak.operands[1][0][0] == 1:
            continue
        open_peak = symbolic(peak)
        try:
            alone = [open_peak.play((int(n),)) for n in batches]
        except MemestError:
            continue
        assert by_lanes(lambda *at, p=open_peak: p.play(at), [batches]).tolist() == alone
        compared += 1
    assert compared > 40


@pytest.mark.slow
def test_a_search_gives_no_less_than_its_least_and_no_more_than_its_most() -> None:
    asked = agreed = 0
    for peak in problems(11, 1200):
        with Suspended():
            try:
                with Rough("most") as rough:
                    most = peak.play(())
                if not rough.asked:
                    continue
                with Rough("least"):
                    least = peak.play(())
                assert least <= peak.play(()) <= most, peak
                asked += 1
                agreed += least == most
            except MemestError:
                continue
    assert asked > agreed > 10


def test_lanes_count_like_ints() -> None:
    column = np.array([7, 8, 9, 12], dtype=np.int64)
    found = by_lanes(lambda n: (n * 3 - 1) // 2 + max(n, 8) % 5 + (10 if n > 8 else 20) + len(range(n)), [column])
    assert found.tolist() == [(n * 3 - 1) // 2 + max(n, 8) % 5 + (10 if n > 8 else 20) + n for n in column.tolist()]


@pytest.mark.parametrize(
    "count",
    [
        lambda n: n & (n - 1),
        lambda n: n | 5,
        lambda n: n ^ 9,
        lambda n: (n << 3) - (n >> 1),
        lambda n: (3 << n % 5) + (1000 >> n % 3) + (6 & n) + (6 | n) + (6 ^ n),
        lambda n: n.bit_length(),
        lambda n: n**3 + 2 ** (n % 7),
        lambda n: round((n / 7) ** 8 * 1000) + round((n / 3) ** 0.5, 2) * 100,
        lambda n: +n + ~n + abs(-n),
        lambda n: sum(divmod(n, 5)) + sum(divmod(100, n)),
        lambda n: ceil(n / 5) + floor(n / 7) + trunc(n / 3) + int(n / 2) + round(n / 4),
        lambda n: 1 if n & (n - 1) == 0 else 2,
        lambda n: isqrt(n) + gcd(n, 12) + prod((n, 2, n)) + sum((n, 1)) + {8: 1}.get(n, 2),
    ],
)
def test_whatever_ints_do_lanes_do(count: Any) -> None:
    column = np.array([7, 8, 9, 12, 16, 31, 32, 100], dtype=np.int64)
    assert by_lanes(count, [column]).tolist() == [count(n) for n in column.tolist()]


def test_lanes_have_every_operator_of_ints() -> None:
    skipped = {"__getnewargs__", "__getstate__", "__sizeof__", "__format__"}
    operators = [name for name in dir(int) if name.startswith("__") and name not in dir(object) and name not in skipped]
    assert [name for name in operators if not hasattr(Lanes, name)] == []


def test_rows_whose_numbers_leave_int64_on_the_way_are_counted_one_by_one() -> None:
    column = np.array([3, 5, 7, 2**40, 2**41, 11, 2**60, 2**61, 13, 17, 19], dtype=np.int64)
    assert by_lanes(lambda n: n * n * n // (n * n), [column]).tolist() == column.tolist()


TRANSPOSED = [(64, 64, 2, 2), (96, 48, 3, 2), (24, 24, 4, 3)]  # channels in and out, kernel, stride
PLANNED = [
    pytest.param(problem, dtype, cpu, marks=pytest.mark.slow if cpu.threads == 64 else ())
    for problem in TRANSPOSED
    for dtype, isa in (("float32", "avx512"), ("float32", "avx2"), ("bfloat16", "avx512"))
    for cpu in CPUS
    if cpu.isa == isa and cpu.threads in (2, 64)
]


@pytest.mark.parametrize(("problem", "dtype", "cpu"), PLANNED)
def test_blocks_of_many_sizes_are_chosen_together_and_each_as_if_alone(problem: tuple[int, ...], dtype: str, cpu: Cpu) -> None:
    ic, oc, kernel, stride = problem
    runs = 0

    def planned(n: Any, d: Any, h: Any, w: Any) -> Any:
        nonlocal runs
        runs += 1
        ends, sizes = [(m - 1) * stride + kernel for m in (d, h, w)], (d, h, w)
        gradient = Convolution(
            prop="backward_data",
            batch=n,
            groups=1,
            in_channels=oc,
            out_channels=ic,
            input_size=tuple(ends),
            output_size=sizes,
            kernel=(kernel,) * 3,
            stride=(stride,) * 3,
            dilation=(1,) * 3,
            padding=(0,) * 3,
            padding_end=(0,) * 3,
            bias=False,
            channels_last=True,
            dtype=dtype,
        )
        found = plan_strided(gradient, cpu, cpu.isa)
        return -1 if found is None else found.scratchpad_bytes

    rows = np.array([(n, d, h, w) for n in (1, 2, 7) for d in (1, 6, 16) for h in (1, 5, 16, 50) for w in (4, 17)], dtype=np.int64)
    together = by_lanes(planned, list(rows.T)).tolist()
    assert runs < 2 * len(rows) / 3
    assert together == [planned(*map(int, row)) for row in rows]


def test_choices_are_each_lanes_own() -> None:
    a, b = np.array([7, 8, 9, 12, 12, 30]), np.array([9, 8, 1, 50, 12, 4])

    def search(x: Any, y: Any) -> Any:
        best = choices.best([1, 2, 3, 4, 5], key=lambda n: -x % n + y % n)
        pair = choices.best([(n, y - n) for n in range(3)], key=lambda p: abs(p[1] - x))
        better = (choices.at_most(x, y) & choices.below(8, y)) | choices.below(20, x)
        chosen, _ = choices.choose(better, (x, 1), (y, 2))
        chosen += choices.each(lambda m, n, o: m % 7 if n > 5 else o, 3, x, y) + choices.each(divmod, 7, 3)[0]
        return ((best * 100 + pair[0]) * 100 + chosen) * 100 + choices.least(x, y) - choices.greatest(x, 3) + choices.ceiling(5)

    assert by_lanes(search, [a, b]).tolist() == [search(int(x), int(y)) for x, y in zip(a, b, strict=True)]


def test_small_lanes_beside_large_ones_are_counted_exactly() -> None:
    """Each product fits; the bounds of all together do not."""
    a, b = np.array([1, 2**40, 3, 2**20, 5, 6, 2**50, 7]), np.array([2**40, 1, 2**20, 3, 6, 5, 4, 2**30])
    assert by_lanes(lambda x, y: x * y, [a, b]).tolist() == [int(x) * int(y) for x, y in zip(a, b, strict=True)]


def test_lanes_split_where_they_differ_and_never_wrap() -> None:
    lanes = Lanes(np.array([1, 2], dtype=np.int64), 2)
    with pytest.raises(Split):
        bool(lanes == 1)
    big = Lanes(np.array([2**40, 2**41], dtype=np.int64), 2**41)
    with pytest.raises(TooLargeError):
        _ = big * big


def test_blocks_of_a_product_chosen_at_once_are_those_chosen_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rnd, chosen = random.Random(5), []
    for _ in range(250):
        m, n, k = (rnd.choice([1, 3, 16, 49, 64, 100, 196, 512, 777, 1000, 4096, 25088, rnd.randrange(1, 3000)]) for _ in range(3))
        product = matmul.Product(
            m=m, n=n, k=k, batch=rnd.choice([1, 1, 8, 96]), transposed_a=rnd.random() < 0.4, transposed_b=rnd.random() < 0.4,
            reduced=rnd.random() < 0.3, dtype=rnd.choice(["float32", "bfloat16"]),
        )  # fmt: skip
        chosen.append((product, Cpu(threads=rnd.choice([1, 2, 3, 8, 12, 64]))))
    at_once = [matmul.brgemm_matmul(product, cpu) for product, cpu in chosen]
    clear_caches()
    monkeypatch.setattr(matmul, "_is_plain", lambda problem: False)
    assert at_once == [matmul.brgemm_matmul(product, cpu) for product, cpu in chosen]
    assert len({scratchpad for _, scratchpad in at_once}) > 100
