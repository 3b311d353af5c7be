"""Convolutions by im2col and matrix multiplication (``x64:gemm:jit``), and the plain loops (``ref:any``): the last resorts.

The gemm implementation accepts any shape; it refuses only images beyond 2 GiB and scratchpads out of proportion with the problem.
Free formats become plain (nchw, oihw); pinned channels-last gives hwio weights. What varies is the scratchpad: the im2col columns of
the blocks a thread works on, once per thread when images and groups are spread over threads ("outer threading"), else once.

In bfloat16 sums are made in float32 in buffers of their own, and a bias is converted.

Efficiencies are compared in single precision, as oneDNN computes them, because ties are frequent.

Sources: oneDNN v3.12 src/cpu/gemm_convolution_utils.cpp (``init_conf``), gemm_convolution.hpp, ref_convolution.hpp.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from memest.libraries.onednn.problem import Convolution, Plan, channels_last_tag, layout, plain_tag
from memest.libraries.onednn.rounding import div_up, round_up
from memest.libraries.onednn.scratchpad import scratchpad_size
from memest.libraries.onednn.single import product, quotient, single, total
from memest.machines.cpu import Cpu

FLOAT_BYTES = 4
INT_MAX = 2**31 - 1
SCRATCHPAD_LIMIT = 2**30
SCRATCHPAD_PER_TENSOR_BYTE = 15
SMALL_GEMM = 64 * 1024
LINE_FLOATS = 16
GOOD_EFFICIENCY = single(0.9)
CHANNELS_LAST_WEIGHTS = {1: "cba", 2: "cdba", 3: "cdeba"}
CHANNELS_LAST_GROUPED_WEIGHTS = {1: "dcab", 2: "decab", 3: "defcab"}


def forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``x64:gemm:jit`` forward."""
    shape = _shape(problem, cpu)
    buffers = _forward_channels_last(shape, cpu) if problem.channels_last else _forward_plain(shape, cpu)
    return _gemm_plan(problem, shape, buffers, cpu)


def backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``x64:gemm:jit`` backward by data."""
    shape = _shape(problem, cpu)
    buffers = _backward_data_channels_last(shape, cpu) if problem.channels_last else _backward_data_plain(shape, cpu)
    return _gemm_plan(problem, shape, buffers, cpu)


def backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``x64:gemm:jit`` backward by weights."""
    shape = _shape(problem, cpu)
    buffers = _backward_weights_channels_last(shape, cpu) if problem.channels_last else _backward_weights_plain(shape, cpu)
    plan = _gemm_plan(problem, shape, buffers, cpu)
    if plan is None or shape.sums_apart:
        return plan
    booked = buffers[1 if problem.channels_last else 0]
    return replace(plan, unwritten_bytes=booked - _partial_weights(shape, booked // (shape.weights_bytes * FLOAT_BYTES)))


def reference(problem: Convolution, cpu: Cpu) -> Plan:
    """``ref:any``: accepts everything, needs no scratchpad, and prefers channels-last data except for backward by weights."""
    channels_last = problem.channels_last or problem.prop != "backward_weights"
    return _plan(problem, "ref:any", channels_last, plain_tag(len(problem.weights_dims)), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Sizes as the gemm sees them; channels are per group, ``is_`` and ``os`` are planes (depth apart), bytes are of whole tensors.

    ``vector`` are the elements in a register, ``cache`` those in L2.
    """

    batch: int
    groups: int
    ic: int
    oc: int
    in_depth: int
    out_depth: int
    is_: int
    os: int
    ks: int
    out_height: int
    in_width: int
    out_width: int
    stride_height: int
    stride_width: int
    volumetric: bool
    dilated: bool
    columns: int
    weights_bytes: int
    tensor_bytes: int
    itemsize: int
    vector: int
    cache: int
    biased: bool

    @property
    def sums_apart(self) -> bool:
        """Whether sums are of another type than the results."""
        return self.itemsize != FLOAT_BYTES

    @property
    def bias_bytes(self) -> int:
        """A converted copy of the bias."""
        return self.groups * self.oc * FLOAT_BYTES if self.biased and self.sums_apart else 0

    def sums_bytes(self, sums: int) -> int:
        """The buffer of so many sums, where they are apart."""
        return sums * FLOAT_BYTES if self.sums_apart else 0

    @property
    def depthwise(self) -> bool:
        return self.ic == 1 and self.oc == 1 and self.groups > 1

    def scratchpad_limit(self, threads: int) -> int:
        return min(SCRATCHPAD_LIMIT, SCRATCHPAD_PER_TENSOR_BYTE * threads * self.tensor_bytes)


def _shape(problem: Convolution, cpu: Cpu) -> _Shape:
    volumetric = problem.spatial_dims == 3
    inputs, outputs = (1, 1, *problem.input_size)[-2:], (1, 1, *problem.output_size)[-2:]
    in_depth, out_depth = (problem.input_size[0], problem.output_size[0]) if volumetric else (1, 1)
    ic, ks, plane = problem.in_channels // problem.groups, prod(problem.kernel), outputs[0] * outputs[1]
    pointwise = ks == 1 and max(problem.stride) == 1 and problem.input_size == problem.output_size
    weights_bytes = prod(problem.weights_dims) * problem.itemsize
    data_bytes = prod(problem.source_dims) * problem.source_itemsize + prod(problem.destination_dims) * problem.itemsize
    return _Shape(
        batch=problem.batch,
        groups=problem.groups,
        ic=ic,
        oc=problem.out_channels // problem.groups,
        in_depth=in_depth,
        out_depth=out_depth,
        is_=inputs[0] * inputs[1],
        os=plane,
        ks=ks,
        out_height=outputs[0],
        in_width=inputs[1],
        out_width=outputs[1],
        stride_height=(1, 1, *problem.stride)[-2],
        stride_width=problem.stride[-1],
        volumetric=volumetric,
        dilated=max(problem.dilation[-2:]) > 1,
        columns=0 if pointwise else ic * ks * plane,
        weights_bytes=weights_bytes,
        tensor_bytes=data_bytes + weights_bytes,
        itemsize=problem.itemsize,
        vector=cpu.vector_floats * FLOAT_BYTES // problem.itemsize,
        cache=cpu.l2_bytes // problem.itemsize,
        biased=problem.bias,
    )


def _forward_channels_last(shape: _Shape, cpu: Cpu) -> tuple[int, ...]:
    columns, rows, outer = _forward_rows(shape, cpu)
    if not outer and not shape.volumetric:
        outer = _many_small_images(shape, cpu, shape.os * shape.ic * shape.oc)
    threads = cpu.threads if outer else 1
    transposed = shape.in_depth * shape.is_ * shape.ic
    return (
        threads * columns * shape.itemsize,
        shape.sums_bytes(threads * rows * shape.oc),
        threads * transposed * shape.itemsize,
        shape.bias_bytes,
    )


def _forward_plain(shape: _Shape, cpu: Cpu) -> tuple[int, ...]:
    column, oc_block, os_block, ic_block = bool(shape.columns), shape.oc, shape.os, shape.ic
    if _forward_blocks_apply(shape, cpu):
        outer = True
        if shape.columns or shape.sums_apart:
            oc_block, os_block, ic_block = _BlockSearch(shape, cpu).best_blocks()
    else:
        inner_work = div_up(shape.os, shape.vector) * div_up(shape.oc, shape.vector)
        outer = (
            shape.os // cpu.threads < 512
            and (shape.out_depth != 1 or shape.batch != 1 or shape.groups > 2)
            and _outer_pays(shape.groups * shape.batch * shape.out_depth, inner_work, shape.os * shape.ic * shape.oc, cpu.threads)
        )
    threads = cpu.threads if outer else 1
    sums = threads * round_up(oc_block * os_block, LINE_FLOATS)
    return threads * column * ic_block * shape.ks * os_block * shape.itemsize, shape.sums_bytes(sums), shape.bias_bytes


def _backward_data_channels_last(shape: _Shape, cpu: Cpu) -> tuple[int, ...]:
    outer = not shape.volumetric and _many_small_images(shape, cpu, shape.is_ * shape.ic * shape.oc)
    threads = cpu.threads if outer else 1
    sums = shape.is_ * shape.in_depth * shape.ic if shape.groups > 1 or shape.sums_apart else 0
    return threads * shape.columns * shape.out_depth * FLOAT_BYTES, threads * sums * FLOAT_BYTES


def _backward_data_plain(shape: _Shape, cpu: Cpu) -> tuple[int, ...]:
    inner_work = div_up(shape.is_, shape.vector) * div_up(shape.ic, shape.vector)
    outer = (
        (shape.os // cpu.threads < 512 or shape.ks < 64)
        and (shape.batch != 1 or shape.groups > 2)
        and _outer_pays(shape.groups * shape.batch, inner_work, shape.is_ * shape.ic * shape.oc, cpu.threads)
    )
    threads = cpu.threads if outer else 1
    sums = shape.sums_bytes(threads * round_up(shape.ic * shape.is_ * shape.in_depth, LINE_FLOATS))
    return sums, _columns_within_limit(shape, cpu, threads, FLOAT_BYTES, scratchpad_size(sums), 0.1)


def _backward_weights_channels_last(shape: _Shape, cpu: Cpu) -> tuple[int, ...]:
    transposed = shape.in_depth * shape.is_ * shape.ic
    per_thread = (shape.columns + transposed) * shape.itemsize + shape.weights_bytes * FLOAT_BYTES
    threads = _backward_weights_threads(shape, cpu, per_thread)
    return (
        threads * shape.columns * shape.itemsize,
        threads * shape.weights_bytes * FLOAT_BYTES,
        threads * transposed * shape.itemsize,
        shape.sums_bytes(shape.weights_bytes),
        shape.bias_bytes,
    )


def _backward_weights_plain(shape: _Shape, cpu: Cpu) -> tuple[int, ...]:
    per_thread = shape.weights_bytes * FLOAT_BYTES + shape.ic * shape.ks * shape.vector * shape.itemsize
    threads = _backward_weights_threads(shape, cpu, per_thread)
    buffers = (threads * shape.weights_bytes * FLOAT_BYTES, shape.sums_bytes(shape.weights_bytes), shape.bias_bytes)
    return *buffers, _columns_within_limit(shape, cpu, threads, shape.itemsize, scratchpad_size(*buffers), 0.05)


def _partial_weights(shape: _Shape, threads: int) -> int:
    """Bytes of the threads' partial sums, which are written where several share a group's weights; booked are four times as many, bytes
    taken for a number of floats."""
    by_group = min(shape.groups, threads)
    by_image = min(shape.batch, threads // by_group)
    return by_group * by_image * shape.weights_bytes // shape.groups if by_image > 1 else 0


def _backward_weights_threads(shape: _Shape, cpu: Cpu, per_thread: int) -> int:
    needed = cpu.threads * per_thread + shape.sums_bytes(shape.weights_bytes) + shape.bias_bytes
    affordable = needed < shape.scratchpad_limit(cpu.threads)
    outer = affordable and shape.os // cpu.threads < 256 and (shape.batch != 1 or shape.groups > 2)
    return cpu.threads if outer else 1


def _columns_within_limit(shape: _Shape, cpu: Cpu, threads: int, itemsize: int, used: int, fraction: float) -> int:
    """Bytes of the threads' columns: a whole plane each, or a ``fraction`` of what the scratchpad limit leaves."""
    available = shape.scratchpad_limit(cpu.threads) - used
    if available >= threads * shape.columns * itemsize or available < 0:
        return threads * shape.columns * itemsize
    column = shape.ic * shape.ks
    largest = available // (itemsize * threads * column)
    return threads * column * max(shape.vector, int(product(largest, fraction))) * itemsize


def _many_small_images(shape: _Shape, cpu: Cpu, gemm_work: int) -> bool:
    """Whether channels-last forward and backward by data spread images and groups, not rows, over threads."""
    inner_work = div_up(shape.is_, shape.vector) * div_up(shape.ic, shape.vector)
    small = shape.depthwise or (shape.is_ // cpu.threads < 64 and shape.batch != 1)
    return small and _outer_pays(shape.groups * shape.batch, inner_work, gemm_work, cpu.threads)


def _outer_pays(outer_work: int, inner_work: int, gemm_work: int, threads: int) -> bool:
    ratio = single(_balance(outer_work, threads) / _balance(inner_work, threads))
    return ratio >= 1 or gemm_work // threads < SMALL_GEMM


def _forward_rows(shape: _Shape, cpu: Cpu) -> tuple[int, int, bool]:
    """Columns and positions of one thread for channels-last forward, and whether the blocks of rows are spread over threads."""
    weights = shape.oc * shape.ic * shape.ks
    if not shape.columns or shape.volumetric or shape.dilated or shape.depthwise or not weights < shape.cache // 2:
        return shape.columns, shape.os, False
    rows, width, efficiency = _row_block(shape, cpu)
    inner_work = div_up(shape.os, shape.vector) * div_up(shape.oc, shape.vector)
    outer = efficiency >= _balance(inner_work, cpu.threads) / 2
    if not outer:
        rows, width = shape.out_height, shape.out_width
    if rows != 1:
        width = shape.out_width
    return shape.ic * shape.ks * rows * width, rows * width, outer


def _row_block(shape: _Shape, cpu: Cpu) -> tuple[int, int, float]:
    """Rows and row width of a block fitting the cache and balancing the threads, with the efficiency expected of it."""
    ic, oc, height, width, vector, threads = shape.ic, shape.oc, shape.out_height, shape.out_width, shape.vector, cpu.threads
    row_elements = 5 * (ic * width * shape.ks + 2 * (ic * shape.in_width + oc * width)) + oc * width + ic * shape.in_width
    rows = min(div_up(shape.cache, row_elements * shape.itemsize), height)
    block = width
    if rows == 1:
        block = min(div_up(shape.cache, (ic * shape.ks + 2 * (ic + oc)) * shape.itemsize), width)
    if rows != height:
        rows = max(1, rows // 4 * 4)
    if block != width:
        block = max(1, block // vector * vector)
    efficiency = 0.0
    if block == width:
        while rows > 0:
            work = shape.groups * shape.batch * div_up(height, rows)
            efficiency = _mean(_balance(work, threads), _balance(height, rows))
            if efficiency >= GOOD_EFFICIENCY:
                return rows, block, efficiency
            rows = (rows - 4) // 4 * 4
    while block > 0:
        work = shape.groups * shape.batch * height * div_up(width, block)
        efficiency = _mean(_balance(work, threads), _balance(width, block))
        if efficiency > GOOD_EFFICIENCY:
            break
        block = (block - vector) // vector * vector
    return 1, max(1, block), efficiency


def _forward_blocks_apply(shape: _Shape, cpu: Cpu) -> bool:
    if shape.volumetric:
        return False
    if not shape.columns:
        return shape.ic // shape.oc < 42 and shape.ic * shape.oc * shape.is_ < 1024
    return (
        shape.batch * shape.groups * shape.os >= cpu.threads * shape.vector
        or shape.os < shape.batch * shape.groups
        or (shape.stride_width == 1 and shape.ic * shape.ks <= 0.05 * shape.oc)
    )


class _BlockSearch:
    """Search for the blocks of plain forward: threads over output channels, then input-channel, output-channel and spatial blocks."""

    MIN_OC_BLOCK = 8
    UNCACHED_COST = 20
    STRIDED_COLUMNS_COST = 8
    INVERSE_WEIGHT_SUM = single(1 / 14.5)

    def __init__(self, shape: _Shape, cpu: Cpu) -> None:
        self.shape = shape
        self.threads = cpu.threads
        self.vector = shape.vector
        self.cache = shape.cache
        self.spatial = shape.batch * shape.groups * shape.os
        self.strides = shape.stride_height * shape.stride_width
        self.best_efficiency = 0.0
        self.best = (1, 1, shape.ic)
        self.tried: set[tuple[int, int, int]] = set()

    def best_blocks(self) -> tuple[int, int, int]:
        """Blocks of output channels, positions and input channels of the most efficient configuration."""
        shape = self.shape
        for threads_oc in range(1, self.threads + 1):
            max_oc = div_up(shape.oc, threads_oc)
            if not shape.columns:
                self._explore(threads_oc, max_oc, max(0, self.cache - shape.ks * shape.ic) // (self.strides * shape.ic))
                continue
            max_os = div_up(self.spatial, self.threads // threads_oc)
            self._try(threads_oc, max_oc, max_os)
            if self.best != (max_oc, max_os, shape.ic):
                self._explore_cache_fits(threads_oc, max_oc, max_os)
        return self.best

    def _explore_cache_fits(self, threads_oc: int, max_oc: int, max_os: int) -> None:
        """Explore the ways of filling the cache: all input channels, fewer of them, and all output channels."""
        shape, cache, vector = self.shape, self.cache, self.vector
        ic = shape.ic
        per_os = self.strides + shape.ks
        per_ic = shape.ks * max_oc

        oc_block = _clamp(self.MIN_OC_BLOCK, max_oc, (cache - per_os * ic * vector - per_ic * ic) // vector)
        os_block = _clamp(vector, max_os, (cache - per_ic * ic) // (per_os * ic + oc_block))
        self._explore(threads_oc, oc_block, os_block)

        max_ic = max(1, cache // (2 * self.MIN_OC_BLOCK * per_os + 2 * per_ic))
        if max_ic < ic:
            ic_block = ic // max(1, ic // max_ic)
            os_block = max(1, (cache - 2 * per_ic * ic_block) // (2 * ic_block * per_os))
            oc_block = cache // 2 // os_block
            if oc_block > max_oc:
                oc_block = max_oc
                os_block = _clamp(vector, max_os, (cache - per_ic * ic_block) // (per_os * ic_block + oc_block))
            elif os_block > max_os:
                os_block = max_os
                oc_block = _clamp(self.MIN_OC_BLOCK, max_oc, (cache - (per_os * os_block + per_ic) * ic_block) // os_block)
            self._explore(threads_oc, oc_block, os_block)

        os_block = max(vector, (cache - per_ic * ic) // (per_os * ic + max_oc) // vector * vector)
        self._explore(threads_oc, max_oc, os_block)

    def _explore(self, threads_oc: int, oc_block: int, os_block: int) -> None:
        """Try the blocks and their neighbours that gemm kernels like: multiples of 8 output channels, of 48 or a vector of positions."""
        oc_up = round_up(oc_block, 8)
        self._try(threads_oc, oc_block, os_block)
        self._try(threads_oc, oc_block // 8 * 8, os_block // 48 * 48)
        self._try(threads_oc, oc_up, os_block // 48 * 48)
        self._try(threads_oc, oc_up, round_up(os_block, self.vector))
        self._try(threads_oc, oc_up, round_up(os_block, 48))

    def _try(self, threads_oc: int, oc_block: int, os_block: int) -> None:
        max_oc = div_up(self.shape.oc, threads_oc)
        max_os = div_up(self.spatial, self.threads // threads_oc)
        oc_block = min(max_oc, max(self.MIN_OC_BLOCK, oc_block))
        os_block = min(min(self.shape.os, max_os), max(self.vector, min(max_os, os_block)))
        if (threads_oc, oc_block, os_block) in self.tried:
            return
        self.tried.add((threads_oc, oc_block, os_block))
        fitting = self._fitting_ic(max_oc, max_os, oc_block, os_block)
        ic_block = max(1, self.shape.ic // div_up(self.shape.ic, max(1, fitting)))
        cost = self.UNCACHED_COST if fitting < 1 else 1
        efficiency = self._efficiency(threads_oc, max_oc, max_os, (oc_block, os_block, ic_block), cost)
        if efficiency > self.best_efficiency:
            self.best_efficiency = efficiency
            self.best = (oc_block, os_block, ic_block)

    def _fitting_ic(self, max_oc: int, max_os: int, oc_block: int, os_block: int) -> int:
        """Input channels whose data, columns and weights fit the cache; below 1 when not even one does."""
        shape, cache = self.shape, self.cache
        row, column, output = self.strides * os_block, shape.ks * os_block, oc_block * os_block
        if not shape.columns:
            return cache // row if os_block >= max_os else cache // (row + shape.ks * max_oc)
        with_weights = (cache - output) // (row + column + shape.ks * max_oc)
        if os_block < max_os:
            return with_weights
        fitting = cache // (row + column)
        if oc_block < max_oc:
            fitting = min(fitting, (cache - output) // (column + shape.ks * oc_block))
        return fitting if fitting >= shape.ic else with_weights

    def _efficiency(self, threads_oc: int, max_oc: int, max_os: int, blocks: tuple[int, int, int], cost: int) -> float:
        shape, vector = self.shape, self.vector
        oc_block, os_block, ic_block = blocks
        k_block, k = ic_block * shape.ks, shape.ic * shape.ks
        os_max = min(shape.os, max_os)
        os_aligned = round_up(os_block, vector)
        thread_balance = self._thread_balance(threads_oc, max_oc, max_os)
        moved = self._memory_operations(max_oc, max_os, os_block, ic_block, cost)
        memory = quotient(product(max_os / vector, max_oc, k), moved)
        whole_gemm = quotient(product(os_block, oc_block, k_block), product(max_os, max_oc, k))
        calculations = os_aligned * k_block + oc_block * round_up(k_block, vector) + oc_block * os_aligned
        gemm = quotient(product(os_block / vector, oc_block, k_block), calculations)
        weighted = product(
            single(thread_balance**8),
            _balance(max_oc, oc_block),
            _balance(os_max, os_block),
            _balance(shape.ic, ic_block),
            _balance(os_block, 3 * vector),
            memory,
            single(whole_gemm**0.5),
            gemm,
        )
        return single(weighted**self.INVERSE_WEIGHT_SUM)

    def _thread_balance(self, threads_oc: int, max_oc: int, max_os: int) -> float:
        """Work of the least loaded thread over that of the most loaded."""
        oc, spatial, threads = self.shape.oc, self.spatial, self.threads
        min_oc = max(1, oc // threads_oc)
        crowded = div_up(threads, threads_oc)
        oc_rest, threads_rest = oc % threads_oc, threads % threads_oc
        largest = max_oc * max_os if oc_rest > threads_rest else max(max_oc * div_up(spatial, crowded), min_oc * max_os)
        fewest = max(1, spatial // crowded)
        if threads_rest > oc_rest:
            return quotient(min_oc * fewest, largest)
        return quotient(min(max_oc * fewest, min_oc * (spatial // (threads // threads_oc))), largest)

    def _memory_operations(self, max_oc: int, max_os: int, os_block: int, ic_block: int, cost: int) -> int:
        shape, vector = self.shape, self.vector
        passes = 1 if ic_block == shape.ic else 2 * div_up(shape.ic, ic_block) - 1
        output = cost * max_oc * round_up(max_os, vector) * passes
        source = shape.ks * shape.ic * round_up(max_os * self.strides, vector)
        tail = quotient(round_up(os_block, vector), os_block)
        copied = product(source, tail)
        columns = int(product(cost, total(copied, copied))) if shape.columns else 0
        if shape.stride_width != 1:
            columns = int(product(columns, self.STRIDED_COLUMNS_COST))
        weights = cost * max_oc * round_up(shape.ic * shape.ks, vector)
        return cost * source + columns + weights + output


def _gemm_plan(problem: Convolution, shape: _Shape, buffers: tuple[int, ...], cpu: Cpu) -> Plan | None:
    image_bytes = max(shape.is_ * shape.in_depth * shape.ic, shape.os * shape.out_depth * shape.oc) * FLOAT_BYTES
    scratchpad = scratchpad_size(*buffers)
    if image_bytes > INT_MAX or scratchpad > shape.scratchpad_limit(cpu.threads):
        return None
    weights_tag = plain_tag(len(problem.weights_dims))
    if problem.channels_last:
        weights_tags = CHANNELS_LAST_GROUPED_WEIGHTS if problem.groups > 1 else CHANNELS_LAST_WEIGHTS
        weights_tag = weights_tags[problem.spatial_dims]
    return _plan(problem, "x64:gemm:jit", problem.channels_last, weights_tag, scratchpad)


def _plan(problem: Convolution, implementation: str, channels_last: bool, weights_tag: str, scratchpad: int) -> Plan:
    dims = problem.spatial_dims + 2
    data_tag = channels_last_tag(dims) if channels_last else plain_tag(dims)
    return Plan(
        implementation=implementation,
        source=layout(data_tag, problem.source_dims, problem.itemsize),
        weights=layout(weights_tag, problem.weights_dims, problem.itemsize),
        destination=layout(data_tag, problem.destination_dims, problem.itemsize),
        scratchpad_bytes=scratchpad,
    )


def _clamp(low: int, high: int, value: int) -> int:
    return max(low, min(high, value))


def _balance(work: int, unit: int) -> float:
    """How evenly ``work`` divides into units of ``unit``: 1 when exactly."""
    return quotient(work, round_up(work, unit))


def _mean(first: float, second: float) -> float:
    return single(total(first, second) / 2)
