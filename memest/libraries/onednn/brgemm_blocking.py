"""What oneDNN's brgemm forward convolutions share: the problem as they see it, the kernel's registers, the estimate of efficiency.

Models the common parts of src/cpu/x64/jit_brgemm_conv_utils.cpp (oneDNN v3.12) and the register blocking of
src/cpu/x64/brgemm/brgemm_utils.cpp, for f32 without attributes. A blocking is chosen by an estimate made in single precision, and
near ties are common, so each step of the estimate is rounded to single precision here too.
"""

from __future__ import annotations

from math import ceil, prod
from typing import NamedTuple

from memest.libraries.onednn.problem import Convolution, Plan, channels_last_tag, layout
from memest.libraries.onednn.rounding import round_up
from memest.libraries.onednn.single import product, quotient, single, total
from memest.machines.cpu import Cpu, Isa
from memest.sizes.remembering import remembered

INT_MAX = 2**31 - 1
FLOAT_BYTES = 4
PAGE = 4096
BATCH_ELEMENT_BYTES = 40
AVX2_L2_BYTES = 2 * 1024 * 1024
L1_COST, L2_COST, MEMORY_COST = 1.0, single(2.3), 17.0
CALL_COST = 1000.0
THREAD_SHARE = single(0.9)
AMORTISED = single(1.9)
CERTAIN = 0.9999


class Target(NamedTuple):
    """An instruction set with its f32 vectors and registers, the threads, and the cache bytes the estimates count on.

    ``itemsize`` is that of the data; a vector holds ``packed`` of them, and ``simd`` of the sums, which are f32; results have
    ``result_itemsize`` bytes.
    """

    isa: Isa
    simd: int
    registers: int
    threads: int
    l1_bytes: int
    l1: int
    l2: int
    itemsize: int
    packed: int
    result_itemsize: int

    @property
    def name(self) -> str:
        """oneDNN's name of the instruction set."""
        return "avx512_core_bf16" if self.sums_apart else "avx512_core" if self.isa == "avx512" else "avx2"

    @property
    def sums_apart(self) -> bool:
        """Whether sums are of another type than the data."""
        return self.itemsize != FLOAT_BYTES

    @property
    def buffers_sums(self) -> bool:
        """Whether sums are of another type than the results, so that unfinished ones need a place of their own."""
        return self.result_itemsize != FLOAT_BYTES


class Shape(NamedTuple):
    """The problem with three spatial dimensions (depth, height, width; absent ones are 1) and channels per group.

    Paddings before the data are those asked for; those after follow from the sizes and are negative where data stays unused.
    """

    batch: int
    groups: int
    ic: int
    oc: int
    id: int
    ih: int
    iw: int
    od: int
    oh: int
    ow: int
    kd: int
    kh: int
    kw: int
    sd: int
    sh: int
    sw: int
    dd: int
    dh: int
    dw: int
    front: int
    top: int
    left: int

    @property
    def back(self) -> int:
        """Padding after the last plane that the output reaches."""
        return (self.od - 1) * self.sd + (self.kd - 1) * self.dd + 1 - self.id - self.front

    @property
    def bottom(self) -> int:
        """Padding after the last row."""
        return (self.oh - 1) * self.sh + (self.kh - 1) * self.dh + 1 - self.ih - self.top

    @property
    def right(self) -> int:
        """Padding after the last column."""
        return (self.ow - 1) * self.sw + (self.kw - 1) * self.dw + 1 - self.iw - self.left

    @property
    def kernel_volume(self) -> int:
        """Points of the kernel."""
        return self.kd * self.kh * self.kw

    @property
    def is_pointwise(self) -> bool:
        """Whether every output reads exactly one input position (``is_1x1``)."""
        padding = (self.front, self.top, self.left, self.back, self.bottom, self.right)
        return self.kd == self.kh == self.kw == 1 and max(padding) <= 0


class Grid(NamedTuple):
    """Output positions as the loops see them: depth and height in blocks, then ``extent`` positions in a row.

    In a ``flat`` grid the row runs over the whole image and threads are not counted along depth and height.
    """

    od: int
    oh: int
    extent: int
    od_block: int
    oh_block: int
    flat: bool


class Tile(NamedTuple):
    """The block of channels, positions and kernel taps of one kernel call, and the register block inside it.

    ``pairs`` is the most matrix pairs one call multiplies and adds up; ``buffered`` when sums wait for more calls in a buffer.
    """

    oc: int
    ic: int
    positions: int
    kd: int
    kh: int
    kw: int
    pairs: int
    rows: int
    vectors: int
    buffered: bool


class Share(NamedTuple):
    """The part of the blocks that falls to one thread: all of them, then along each loop in blocks or in elements."""

    job: int
    images: int
    oc_blocks: int
    oc_vectors: int
    od_blocks: int
    od: int
    oh_blocks: int
    oh: int
    row_blocks: int
    row: int


class Spans(NamedTuple):
    """Input elements touched inside each loop around the innermost operation, from register block to one thread's image."""

    in_vector: int
    in_kernel_row: int
    in_rows: int
    in_kernel_part: int
    in_channel_chunk: int
    in_oc_blocks: int
    in_block: int
    in_thread: int
    in_thread_row: int
    per_position: int


@remembered(64, always=True)
def target_of(cpu: Cpu, isa: Isa, itemsize: int, result_itemsize: int | None = None) -> Target:
    """The ``isa`` flavour of the estimates on ``cpu``; for AVX2 oneDNN assumes the L2 cache of one processor family."""
    simd, registers = (16, 32) if isa == "avx512" else (8, 16)
    l2_bytes = cpu.l2_bytes if isa == "avx512" else AVX2_L2_BYTES
    packed = simd * FLOAT_BYTES // itemsize
    l1, l2 = cpu.l1_bytes * 7 // 8, l2_bytes * 3 // 4
    return Target(isa, simd, registers, cpu.threads, cpu.l1_bytes, l1, l2, itemsize, packed, result_itemsize or itemsize)


def is_supported(problem: Convolution) -> bool:
    """Whether the layouts are ones brgemm takes (channels last, or anything for inference) and the sizes fit 32-bit ints."""
    if not problem.channels_last and problem.prop != "forward_inference":
        return False
    return max(prod(problem.input_size), prod(problem.output_size), prod(problem.weights_dims)) <= INT_MAX


def shape_of(problem: Convolution) -> Shape:
    """``problem`` with its absent dimensions filled in."""
    missing = 3 - problem.spatial_dims
    ones, zeros = (1,) * missing, (0,) * missing
    return Shape(
        problem.batch,
        problem.groups,
        problem.in_channels // problem.groups,
        problem.out_channels // problem.groups,
        *ones,
        *problem.input_size,
        *ones,
        *problem.output_size,
        *ones,
        *problem.kernel,
        *ones,
        *problem.stride,
        *ones,
        *problem.dilation,
        *zeros,
        *problem.padding,
    )


def are_groups_slow(shape: Shape, target: Target) -> bool:
    """Whether oneDNN leaves the grouped convolution to others: depthwise ones and, with AVX-512, those of few input channels."""
    if shape.groups == 1:
        return False
    few = target.isa == "avx512" and shape.ic <= target.simd
    return shape.ic == shape.oc == 1 or (few and not (target.sums_apart and (shape.ic % 4 or shape.oc % 4)))


def fold_strided_width(shape: Shape, target: Target) -> Shape:
    """``shape`` with as much of the width as kernel, stride and input have in common moved to the channels, where oneDNN does so."""
    if shape.groups > 1 or shape.dw > 1 or shape.kw == 1 or shape.sw == 1 or shape.left > 0 or shape.right > 0:
        return shape
    if (shape.ic > target.packed and shape.ic % target.packed) or (target.sums_apart and shape.ic % 2):
        return shape
    for factor in range(min(shape.kw, shape.sw, shape.iw), 1, -1):
        channels = shape.ic * factor
        fills_vectors = channels <= target.packed or channels % target.packed == 0
        if fills_vectors and shape.iw % factor == shape.kw % factor == shape.sw % factor == 0:
            return shape._replace(ic=channels, iw=shape.iw // factor, kw=shape.kw // factor, sw=shape.sw // factor)
    return shape


def input_width(shape: Shape, positions: int, kernel_width: int) -> int:
    """Input positions that ``positions`` outputs in a row read."""
    return min(shape.iw, (positions - 1) * min(kernel_width, shape.sw) + (kernel_width - 1) * shape.dw + 1)


def input_channel_block(
    shape: Shape, target: Target, oc_block: int, taps: tuple[int, int, int], width: int, rows: int, granule: int = 1
) -> int:
    """Input channels of one kernel call: as many vectors as leave the input in L1 and the whole call in L2.

    ``taps`` are the kernel's blocks, ``width`` the input positions of a register block, ``rows`` the register block that the
    search looked at before. All channels are rounded up to ``granule``.
    """
    vectors = -(-shape.ic // target.packed)
    most = min(5 * target.packed, vectors)
    kd, kh, kw = taps
    if kw > 1:
        most = max(1, min(most, target.l1 // (width * target.itemsize * target.packed)))
    per_channel = (kd * kh * kw * oc_block + kd * kh * width) * target.itemsize
    most = max(1, min(most, (target.l2 - rows * oc_block * target.result_itemsize) // (per_channel * target.packed)))
    if target.isa == "avx2" and vectors <= 256 and per_channel < 1400:
        most = vectors
    return min(round_up(shape.ic, granule), most * target.packed)


def estimated_rows(target: Target, oc_block: int) -> int:
    """Register rows oneDNN expects before it has a kernel to look at (``estimate_ur``)."""
    by_vectors = (14, 6, 4, 3) if target.isa == "avx2" else (28, 14, 9, 6)
    return by_vectors[oc_block // target.simd - 1]


def widest_block(shape: Shape, target: Target, oc_block: int) -> int:
    """The widest block of positions in a row that still leaves work for every thread."""
    work = shape.batch * shape.groups * -(-shape.oc // oc_block) * shape.od * shape.oh * shape.ow
    share = quotient(work, single(THREAD_SHARE * target.threads))
    return max(1, min(shape.ow, ceil(share)))


@remembered(1_024, always=True)
def even_blocks(extent: int, widest: int) -> tuple[int, ...]:
    """Sizes up to ``widest`` that split ``extent`` into equal blocks but for the last, largest first."""
    blocks = []
    count = -(-extent // widest)
    while count <= extent:
        block = -(-extent // count)
        blocks.append(block)
        if block == 1:
            break
        count = -(-extent // (block - 1))
    return tuple(blocks)


@remembered(16_384, always=True)
def register_block(target: Target, rows: int, columns: int, depth: int, padded_rows: int = 0) -> tuple[int, int] | None:
    """(rows, vectors) of the result a brgemm kernel keeps in registers for a product of ``rows`` x ``depth`` x ``columns``.

    ``padded_rows`` is the most rows at either end that read padding; None when no kernel can skip as many.
    """
    for width in (4, 3, 2, 1):
        vectors = min(width, max(1, columns // target.simd))
        if target.isa == "avx2" and vectors == 4:
            most = (target.registers - 1) // (vectors + 1)
        else:
            most = (target.registers - vectors - 1) // vectors
        if (rows % most or most) >= padded_rows:
            break
    else:
        return None
    best, best_gain = most, 0.0
    for block in range(min(most, target.l1_bytes // (target.itemsize * depth)), max(1, padded_rows) - 1, -1):
        rounded = round_up(rows, block)
        if rows * vectors * block < CERTAIN * best_gain * rounded * (vectors + block) * most:
            continue
        gain = single(quotient(rows, rounded) * quotient(vectors * block, (vectors + block) * most))
        if gain > best_gain:
            best, best_gain = block, gain
    return best, vectors


def offsets_fit(shape: Shape, *, rows: int, row_stride: int, oc_block: int, depth: int) -> bool:
    """Whether the byte offsets inside a kernel's matrices fit 32-bit ints."""
    output = shape.groups * shape.oc * rows * FLOAT_BYTES
    return max(row_stride * rows * FLOAT_BYTES, oc_block * depth * FLOAT_BYTES, output + 1) <= INT_MAX


def share_of(shape: Shape, target: Target, channels_innermost: bool, grid: Grid, tile: Tile) -> Share:
    """What one thread gets when the blocks of the whole problem are dealt out evenly."""
    nb_od, nb_oh = -(-grid.od // grid.od_block), -(-grid.oh // grid.oh_block)
    nb_row, nb_oc = -(-grid.extent // tile.positions), -(-shape.oc // tile.oc)
    image = nb_od * nb_oh * nb_row
    job = -(-(image * shape.batch * shape.groups * nb_oc) // target.threads)
    oc_blocks = min(nb_oc, job if channels_innermost else -(-job // image))
    per_row = shape.groups * nb_oc if channels_innermost else 1
    row_blocks = min(nb_row, -(-job // per_row))
    oh_blocks = od_blocks = oh = od = 1
    if not grid.flat:
        per_height = nb_row * per_row
        oh_blocks = min(nb_oh, -(-job // per_height))
        oh = min(grid.oh, oh_blocks * grid.oh_block)
        od_blocks = min(nb_od, -(-job // (nb_oh * per_height)))
        od = min(grid.od, od_blocks * grid.od_block)
    return Share(
        job,
        min(shape.batch, -(-job // (image * shape.groups * nb_oc))),
        oc_blocks,
        -(-min(shape.oc, oc_blocks * tile.oc) // target.packed),
        od_blocks,
        od,
        oh_blocks,
        oh,
        row_blocks,
        min(grid.extent, row_blocks * tile.positions),
    )


def efficiency(
    shape: Shape, target: Target, channels_innermost: bool, grid: Grid, tile: Tile, share: Share, spans: Spans, to_beat: float
) -> float:
    """oneDNN's estimate of how well a tile uses the processor: shares of useful work times multiplications per cost of access.

    Zero where the estimate is certain not to exceed ``to_beat``.
    """
    if channels_innermost:
        covered = _covered(share.job, shape.oc, shape.groups, tile.oc, grid.extent, tile.positions)
    else:
        planes = -(-grid.od // grid.od_block) * -(-grid.oh // grid.oh_block)
        covered = _covered(share.job, grid.extent, planes, tile.positions, shape.oc, tile.oc)
    outputs = shape.batch * shape.od * shape.oh * shape.ow * shape.groups * shape.oc
    multiplications = shape.batch * grid.od * grid.oh * grid.extent * shape.ic * shape.oc
    useful = (
        (shape.oc, round_up(shape.oc, tile.oc)),
        (tile.vectors * tile.rows, (tile.vectors + tile.rows) * target.registers),
        (grid.extent, round_up(grid.extent, tile.positions)),
        (outputs, covered * target.threads) if covered else (1, 1),
        (tile.positions, round_up(tile.positions, tile.rows)),
    )
    most = (1.0 + tile.rows * (2.0 - min(AMORTISED, tile.rows / tile.positions)) / 64) / 2
    for part, whole in useful:
        most *= part / whole
    if most * multiplications < CERTAIN * to_beat * target.threads * _least_cost(shape, tile, share, spans):
        return 0.0
    cost = _cost(shape, target, channels_innermost, grid, tile, share, spans)
    call_gain = single(tile.rows * single(2.0 - min(AMORTISED, quotient(tile.rows, tile.positions)))) / 64
    return product(
        *(quotient(part, whole) for part, whole in useful),
        quotient(multiplications, single(target.threads * cost)),
        single(1.0 + call_gain) / 2,
        min(1.0, quotient(target.l2, BATCH_ELEMENT_BYTES * tile.pairs)),
    )


def _calls(shape: Shape, tile: Tile) -> tuple[int, int, int, int]:
    """Kernel calls per block of output along input channels and the kernel's dimensions."""
    return -(-shape.ic // tile.ic), -(-shape.kd // tile.kd), -(-shape.kh // tile.kh), -(-shape.kw // tile.kw)


def _least_cost(shape: Shape, tile: Tile, share: Share, spans: Spans) -> float:
    """A lower bound of ``_cost``: what is used anew always found in the nearest cache that oneDNN considers for it."""
    calls = prod(_calls(shape, tile))
    positions = share.images * share.od * share.oh * share.row
    weights_uses = share.images * share.od_blocks * share.oh_blocks * share.row_blocks * -(-tile.positions // tile.rows)
    source = L1_COST * positions * spans.per_position * share.oc_blocks
    destination = positions * share.oc_vectors * (MEMORY_COST + L2_COST * (calls - 1))
    weights = shape.kernel_volume * share.oc_vectors * shape.ic * (MEMORY_COST + L2_COST * (weights_uses - 1))
    return source + destination + weights + CALL_COST * share.job * calls


def _cost(shape: Shape, target: Target, channels_innermost: bool, grid: Grid, tile: Tile, share: Share, spans: Spans) -> float:
    """Cost of one thread's accesses to source, destination and weights, and of its kernel calls.

    Each loop that uses a tensor anew, outermost first, averages its cost with that of the cache holding what an iteration touches.
    """
    simd, volume, taps = target.packed, shape.kernel_volume, tile.kd * tile.kh * tile.kw
    plane, row_image = share.od * share.oh, share.od * share.oh * share.row
    oc_all = share.oc_vectors * simd
    oc_near = oc_all if channels_innermost else tile.vectors * simd
    weights_near = volume * oc_near * shape.ic
    weights_call, result_call = taps * tile.oc * tile.ic, tile.positions * tile.oc
    result_bytes = target.result_itemsize + (FLOAT_BYTES if tile.buffered else 0)

    def is_near(data: int, results: int) -> bool:
        return target.itemsize * data + result_bytes * results < target.l2

    weights = MEMORY_COST
    if share.images > 1:
        near = is_near(plane * spans.in_thread + volume * oc_all * shape.ic, row_image * oc_all)
        weights = _averaged(weights, share.images, near)
    if share.od_blocks > 1:
        near = is_near(grid.od_block * share.oh * spans.in_thread + weights_near, share.oh * share.row * oc_near)
        weights = _averaged(weights, share.od_blocks, near)
    if share.oh_blocks > 1:
        near = is_near(grid.oh_block * spans.in_thread + weights_near, share.row * oc_near)
        weights = _averaged(weights, share.oh_blocks, near)
    if share.row_blocks > 1:
        weights = _averaged(weights, share.row_blocks, is_near(spans.in_block + weights_near, tile.positions * oc_near))
    register_blocks = -(-tile.positions // tile.rows)
    if register_blocks > 1:
        weights = _averaged(weights, register_blocks, is_near(spans.in_rows + weights_call, tile.rows * tile.oc))

    destination = MEMORY_COST
    calls = _calls(shape, tile)
    kernel_parts = calls[1] * calls[2] * calls[3]
    if calls[0] > 1:
        near = is_near(spans.in_channel_chunk + volume * tile.oc * tile.ic, result_call)
        destination = _averaged(destination, calls[0], near)
    if kernel_parts > 1:
        destination = _averaged(destination, kernel_parts, is_near(spans.in_kernel_part + weights_call, result_call))

    source = MEMORY_COST
    if share.oc_blocks > 1:
        weights_block = volume * tile.oc * shape.ic
        if channels_innermost:
            near = is_near(spans.in_oc_blocks + weights_block, result_call)
            source = _averaged_source(source, share.oc_blocks, spans.in_oc_blocks, near, target)
        else:
            data = plane * spans.in_thread_row
            near = is_near(data + weights_block, tile.oc * row_image)
            source = _averaged_source(source, share.oc_blocks, data, near, target)
    if tile.kw > 1:
        source = _averaged_source(source, tile.kw, spans.in_kernel_row, is_near(spans.in_kernel_row + tile.oc * tile.ic, 0), target)
    source = _averaged_source(source, target.simd, spans.in_vector, is_near(spans.in_vector + tile.oc, 0), target)

    positions = share.images * row_image
    weights_uses = product(share.images, share.od_blocks, share.oh_blocks, share.row_blocks, register_blocks)
    return total(
        single(source * product(positions * spans.per_position, share.oc_blocks)),
        single(destination * product(positions * share.oc_vectors, product(calls[0], kernel_parts))),
        single(weights * product(volume * share.oc_vectors * shape.ic, weights_uses)),
        product(CALL_COST, share.job, *calls),
    )


def sums_bytes_of(target: Target, tile: Tile) -> int:
    """Scratchpad bytes of the threads' unfinished sums."""
    return target.threads * tile.oc * tile.positions * FLOAT_BYTES + PAGE if tile.buffered else 0


def batch_bytes_of(target: Target, elements: int) -> int:
    """Scratchpad bytes of the threads' lists of matrix pairs to multiply, each list padded to whole pages."""
    padded = round_up(elements * BATCH_ELEMENT_BYTES, PAGE)
    return target.threads * -(-padded // BATCH_ELEMENT_BYTES) * BATCH_ELEMENT_BYTES + PAGE


def channels_last_plan(problem: Convolution, implementation: str, weights_tag: str, scratchpad_bytes: int) -> Plan:
    """The plan of an implementation that reads and writes channels last."""
    activations = channels_last_tag(2 + problem.spatial_dims)
    return Plan(
        implementation=implementation,
        source=layout(activations, problem.source_dims, problem.itemsize),
        weights=layout(weights_tag, problem.weights_dims, problem.itemsize),
        destination=layout(activations, problem.destination_dims, problem.itemsize),
        scratchpad_bytes=scratchpad_bytes,
    )


def weights_tag_of(problem: Convolution, oc_block: int, *, width_first: bool = False, pairs: str = "") -> str:
    """Output channels outermost and blocked innermost, input channels just before: ``Acdb16a``, grouped ``aBdec16b``.

    With ``pairs`` the input channels are blocked too: around the output channels' block, the block before it given: ``AcdB16b16a2b``.
    """
    first = 1 if problem.groups > 1 else 0
    letters = "abcdef"[: first + 2 + problem.spatial_dims]
    oc, ic, spatial = letters[first], letters[first + 1], letters[first + 2 :]
    lead = f"{letters[:first]}{oc.upper()}{spatial[::-1] if width_first else spatial}"
    if not pairs:
        return f"{lead}{ic}{oc_block}{oc}"
    return f"{lead}{ic.upper()}{f'16{ic}' if pairs == 'blocks' else ''}{oc_block}{oc}2{ic}"


def _averaged(first: float, times: int, in_l2: bool) -> float:
    """Average cost of an access made ``times`` times, the first one costing ``first`` and the others that of L2 or memory."""
    again = L2_COST if in_l2 else MEMORY_COST
    return quotient(single(first + single(again * (times - 1))), times)


def _averaged_source(first: float, times: int, source: int, in_l2: bool, target: Target) -> float:
    """The same for the source, which stays in L1 when the ``source`` elements of an iteration fit there."""
    if target.itemsize * source < target.l1:
        return quotient(single(first + single(L1_COST * (times - 1))), times)
    return _averaged(first, times, in_l2)


def _covered(blocks: int, x: int, nx: int, x_block: int, y: int, y_block: int) -> int:
    """Area of the first ``blocks`` blocks of a plane of ``nx`` rectangles ``x`` by ``y``, walked in strips of ``y_block``."""
    nb_x, nb_y = -(-x // x_block), -(-y // y_block)
    strips, in_strip = divmod(blocks, nx * nb_x)
    planes, strips = divmod(strips, nb_y)
    rectangles, in_rectangle = divmod(in_strip, nb_x)
    start = strips * y_block
    end = min(y, start + y_block)
    return nx * planes * x * y + x * nx * start + (x * rectangles + in_rectangle * x_block) * (end - start)
