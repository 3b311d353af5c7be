"""oneDNN's brgemm backward-data convolution for strides above one: when it applies, its blocking and its scratchpad.

Models ``brgemm_convolution_bwd_strided_t`` for f32 and bf16 without attributes: src/cpu/x64/jit_brgemm_conv_bwd_strided.cpp and
jit_brgemm_conv_bwd_utils.cpp (oneDNN v3.12). The blocking is the one of best estimated efficiency; oneDNN estimates in single
precision and near ties are common, so every step of the estimate is rounded to single precision here too.
"""

from __future__ import annotations

from math import ceil, isqrt, prod
from typing import NamedTuple

from memest.libraries.onednn.brgemm_blocking import (
    FLOAT_BYTES,
    INT_MAX,
    PAGE,
    Shape,
    Target,
    batch_bytes_of,
    channels_last_plan,
    register_block,
    shape_of,
    target_of,
)
from memest.libraries.onednn.problem import Convolution, Plan, layout
from memest.libraries.onednn.rough import End, wanted
from memest.libraries.onednn.rounding import round_up
from memest.libraries.onednn.single import quotient, single
from memest.machines.cpu import Cpu, Isa
from memest.sizes.choices import at_most, below, ceiling, choose, each, greatest, least
from memest.sizes.remembering import remembered

AMX_ROWS = 16
MIN_EFFICIENCY = 0.00001
L1_COST, L2_COST, MEMORY_COST = 1, 3, 15

# Two-dimensional f32 problems oneDNN leaves to other implementations, as input and output channels (per group), input height and
# width, output height and width; then, with a square kernel and strides of two, also the kernel size.
SLOW_SHAPES = ((128, 256, 101, 85, 49, 41), (3, 128, 207, 175, 101, 85))
SLOW_SHAPES_WITH_KERNEL = (
    (512, 1024, 8, 8, 4, 4, 4),
    (1024, 2048, 4, 4, 2, 2, 4),
    (64, 128, 513, 513, 256, 256, 3),
    (32, 64, 1025, 1025, 512, 512, 3),
    (128, 256, 257, 257, 128, 128, 3),
    (256, 512, 49, 41, 23, 19, 5),
    (64, 128, 14, 14, 7, 7, 4),
    (1, 64, 28, 28, 14, 14, 4),
)


class _Tile(NamedTuple):
    """The part of the input gradient handled at once: channels (of one group), depth, height and width."""

    ic: int
    id: int
    ih: int
    iw: int


class _Blocks(NamedTuple):
    """A tile, and the part of the kernel's depth and height applied to it at once."""

    tile: _Tile
    kd: int
    kh: int


class _Target(NamedTuple):
    """What the estimate needs to know of the processor, whose caches it counts on in full, and the order of the loops.

    ``simd`` are the sums in a vector, ``packed`` the elements of data; results have ``result_itemsize`` bytes, and cost
    ``result_bytes`` each with the sums that may lie apart.
    """

    machine: Target
    simd: int
    packed: int
    itemsize: int
    result_itemsize: int
    result_bytes: int
    threads: int
    l1: int
    l2: int
    channels_innermost: bool


def plan_strided(problem: Convolution, cpu: Cpu, isa: Isa, *, for_deconvolution: bool = False) -> Plan | None:
    """The plan of the ``isa`` flavour of the implementation, or None where oneDNN declares the problem unimplemented.

    ``for_deconvolution``: the convolution stands for a forward deconvolution, which excludes uneven input sizes.
    """
    if all(s == 1 for s in problem.stride) or any(d != 1 for d in problem.dilation) or _is_large(problem):
        return None
    shape, machine = shape_of(problem), target_of(cpu, isa, problem.itemsize)
    if for_deconvolution and (shape.id % shape.sd or shape.ih % shape.sh or shape.iw % shape.sw):
        return None
    if _are_groups_slow(shape, machine) or (not machine.sums_apart and _is_slow(shape)):
        return None
    channels_innermost = _has_uneven_width(shape) or shape.od * shape.oh * shape.ow >= shape.ic * shape.kernel_volume
    result_itemsize = problem.source_itemsize
    result_bytes = result_itemsize + (FLOAT_BYTES if result_itemsize != FLOAT_BYTES else 0)
    target = _Target(
        machine,
        machine.simd,
        machine.packed,
        machine.itemsize,
        result_itemsize,
        result_bytes,
        machine.threads,
        cpu.l1_bytes,
        cpu.l2_bytes,
        channels_innermost,
    )
    end = wanted() if min(shape.ic, shape.oc) >= machine.simd else None  # with fewer channels, no blocks may be good enough
    if end is not None:
        return _rough_plan(problem, shape, target, end)
    blocks = _choose_blocks(shape, target)
    if blocks is None:
        return None
    weights_tag = _weights_tag(problem, int(blocks.tile.ic), paired=machine.sums_apart)
    return channels_last_plan(problem, f"brgconv_strided:{machine.name}", weights_tag, _scratchpad_bytes(shape, blocks, target))


def _rough_plan(problem: Convolution, shape: Shape, target: _Target, end: End) -> Plan:
    """The plan with the least or the most bytes that any blocks could give."""
    machine = target.machine
    tags = [_weights_tag(problem, vectors * target.simd, paired=machine.sums_apart) for vectors in range(1, 5)]
    tags.sort(key=lambda tag: layout(tag, problem.weights_dims, problem.itemsize).bytes)
    name = f"brgconv_strided:{machine.name}"
    if end == "least":
        return channels_last_plan(problem, name, tags[0], _scratchpad_of(shape, target, 1, (target.simd, shape.sw), 1))
    tiles = shape.id * shape.ih * -(-shape.iw // shape.sw)
    widest = 4 * target.simd, round_up(shape.iw, shape.sw)
    return channels_last_plan(problem, name, tags[-1], _scratchpad_of(shape, target, tiles, widest, shape.kd * shape.kh))


def _are_groups_slow(shape: Shape, machine: Target) -> bool:
    """Whether groups of few output channels are left to others; in bf16, those that others can take."""
    few = shape.groups > 1 and shape.oc <= machine.simd
    return few and not (machine.sums_apart and (shape.oc % 4 or shape.ic % 4))


def _is_large(problem: Convolution) -> bool:
    """Whether an image or the weights have more elements than a 32-bit int counts."""
    return max(map(prod, (problem.source_dims[1:], problem.weights_dims, problem.destination_dims[1:]))) > INT_MAX


def _is_slow(shape: Shape) -> bool:
    if shape.id != 1 or shape.od != 1:
        return False
    sizes = (shape.ic, shape.oc, shape.ih, shape.iw, shape.oh, shape.ow)
    if sizes in SLOW_SHAPES:
        return True
    return shape.kh == shape.kw and shape.sh == shape.sw == 2 and (*sizes, shape.kh) in SLOW_SHAPES_WITH_KERNEL


def _weights_tag(problem: Convolution, ic_block: int, *, paired: bool) -> str:
    """Input channels outermost and blocked innermost, output channels just before: ``Bcda16b``, grouped ``aCdeb16c``.

    Output channels may be ``paired`` inside the block: ``BcdA16b2a``.
    """
    first = 1 if problem.groups > 1 else 0
    letters = "abcdef"[: first + 2 + problem.spatial_dims]
    oc, ic, spatial = letters[first], letters[first + 1], letters[first + 2 :]
    if paired:
        return f"{letters[:first]}{ic.upper()}{spatial}{oc.upper()}{ic_block}{ic}2{oc}"
    return f"{letters[:first]}{ic.upper()}{spatial}{oc}{ic_block}{ic}"


def _has_uneven_width(shape: Shape) -> bool:
    """Whether the input width is no multiple of the stride, so that output and input gradients go through copies."""
    return shape.iw % shape.sw != 0


def _padded_output(shape: Shape) -> tuple[int, ...]:
    """Output sizes with the border that kernels reaching over the input's edge read."""
    axes = (
        (shape.od, shape.kd, shape.front, shape.back, shape.sd),
        (shape.oh, shape.kh, shape.top, shape.bottom, shape.sh),
        (shape.ow, shape.kw, shape.left, shape.right, shape.sw),
    )
    return tuple(out + max(0, k - 1 - before) // stride + max(0, k - 1 - after) // stride for out, k, before, after, stride in axes)


def _scratchpad_bytes(shape: Shape, blocks: _Blocks, target: _Target) -> int:
    tile = blocks.tile
    tiles = -(-shape.id // tile.id) * -(-shape.ih // tile.ih) * -(-shape.iw // tile.iw)
    return _scratchpad_of(shape, target, tiles, (tile.ic, tile.iw), blocks.kd * blocks.kh)


def _scratchpad_of(shape: Shape, target: _Target, tiles: int, block: tuple[int, int], kernel_rows: int) -> int:
    """Batch descriptors, padded copies of the output gradient and their bookkeeping, one of each per thread: for so many ``tiles`` of
    an image, a ``block`` of so many channels and columns, and so many rows of the kernel at once."""
    machine, (channels, width) = target.machine, block
    uneven = _has_uneven_width(shape)
    oc = round_up(shape.oc, 2) if machine.sums_apart and uneven else shape.oc
    buffers = [
        round_up(prod(_padded_output(shape)) * shape.groups * oc, PAGE) * machine.itemsize,
        round_up(tiles * shape.groups, PAGE),
    ]
    if uneven:
        buffers.append(round_up(width * shape.sw * shape.ic * shape.groups, PAGE) * target.result_itemsize)
    if target.result_itemsize != FLOAT_BYTES:
        buffers.append(channels * (width // shape.sw) * FLOAT_BYTES)
    return batch_bytes_of(machine, kernel_rows * shape.kw) + sum(machine.threads * size + PAGE for size in buffers)


def _choose_blocks(shape: Shape, target: _Target) -> _Blocks | None:
    """The blocks of best estimated efficiency, the first found among equals."""
    if target.machine.name == "avx512_core" and _is_mask_head(shape):
        return _Blocks(_Tile(ic=64, id=1, ih=14, iw=28), kd=1, kh=2)
    pointwise = shape.is_pointwise
    widths = _width_candidates(shape.iw, shape.sw)
    best, best_efficiency = (0, 0, 0, 0, 0, 0), 0.0
    for vectors in range(min(-(-shape.ic // target.simd), 4), 0, -1):
        ic_block = vectors * target.simd
        if not _worth_trying(shape, target, ic_block, pointwise):
            continue
        id_block, ih_block = _image_blocks(shape, target, ic_block)
        widest = _widest_block(shape, target, ic_block)
        tiles = [_Tile(ic_block, id_block, ih_block, width) for width in widths if width <= ceiling(widest)]
        tilings = [(_tiling(shape, target, tile, pointwise), at_most(tile.iw, widest)) for tile in tiles]
        for kd_block in _kernel_blocks(shape.kd, shape.sd):
            for kh_block in _kernel_blocks(shape.kh, shape.sh):
                for tiling, allowed in tilings:
                    efficiency = _efficiency(shape, target, tiling, kd_block, kh_block)
                    better = below(best_efficiency, efficiency) & allowed
                    if not target.machine.sums_apart:
                        better = better & at_most(MIN_EFFICIENCY, efficiency)
                    if better is not False:
                        best_efficiency = choose(better, efficiency, best_efficiency)
                        best = choose(better, (*tiling.tile, kd_block, kh_block), best)
    return _Blocks(_Tile(*best[:4]), *best[4:]) if best_efficiency > 0 else None


def _is_mask_head(shape: Shape) -> bool:
    """The one two-dimensional problem (from Mask R-CNN) whose AVX-512 blocks oneDNN fixes by hand."""
    return (shape.ic, shape.oc) == (256, 256) and shape[4:16] == (1, 28, 28, 1, 14, 14, 1, 2, 2, 1, 2, 2)


@remembered(1_024, always=True)
def _width_candidates(iw: int, sw: int) -> tuple[int, ...]:
    """Widths that split the (rounded up) input width evenly and hold whole strides, widest first.

    A width of m strides is a split into ceil(strides / m) parts, so the parts are at most the root of the strides, or m is."""
    strides = -(-iw // sw)
    root = isqrt(strides) + 1
    parts = {*range(1, min(root, strides) + 1), *(-(-strides // m) for m in range(1, root + 1))}
    splits = {-(-strides * sw // n) for n in parts}
    return tuple(sorted((w for w in splits if w % sw == 0 and (iw % sw or iw % w == 0)), reverse=True))


def _kernel_blocks(kernel: int, stride: int) -> tuple[int, ...]:
    return (kernel,) if kernel in (1, stride) else (kernel, stride)


def _worth_trying(shape: Shape, target: _Target, ic_block: int, pointwise: bool) -> bool:
    """oneDNN's quick rejection of the two largest AVX-512 channel blocks."""
    if ic_block not in (48, 64):
        return True
    rounded = round_up(shape.ic, target.simd)
    rounded_bytes = rounded * target.itemsize
    strides = shape.sd * shape.sh * shape.sw
    if pointwise:
        if ic_block == 64:
            return rounded % 64 == 0 and shape.id * shape.ih * shape.iw >= 64 * strides
        return quotient(shape.ic, round_up(shape.ic, 48)) >= single(0.95)
    if ic_block == 64:
        return rounded % 64 == 0 and rounded_bytes < 192 * FLOAT_BYTES
    return rounded % 48 == 0 and rounded_bytes <= 384 * FLOAT_BYTES and shape.od * shape.oh * shape.ow > 81 * strides


def _image_blocks(shape: Shape, target: _Target, ic_block: int) -> tuple[int, int]:
    """Depth and height of the input handled at once: what fits in half of L2, then small enough to feed all threads."""
    padded_depth, padded_height, padded_width = _padded_output(shape)
    row_bytes = target.itemsize * 2 * shape.oc * padded_width + target.result_itemsize * shape.iw * ic_block
    other_bytes = ic_block * (target.itemsize * shape.kernel_volume * shape.oc + FLOAT_BYTES * 2 * AMX_ROWS)
    available = least(-(-target.l2 // 2), greatest(0, target.l2 - other_bytes))
    planes = greatest(1, least(shape.id, available // (padded_height * row_bytes)))
    rows = greatest(1, least(shape.ih, available // row_bytes))
    whole = at_most(padded_depth * padded_height * row_bytes, available)
    id_block, ih_block = choose(whole, 1, planes), choose(whole | below(1, planes), shape.ih, rows)
    channels = (shape.groups if shape.ic > 32 else 1) * shape.ic
    images = -(-target.threads // (shape.batch * -(-channels // ic_block)))
    thread_depth = -(-shape.id // images)
    thread_height = -(-shape.ih // (images * -(-shape.id // thread_depth)))
    return (
        each(_align_block, least(id_block, thread_depth), shape.id, shape.sd),
        each(_align_block, least(ih_block, thread_height), shape.ih, shape.sh),
    )


def _align_block(block: int, size: int, stride: int) -> int:
    """The next block of whole strides that also divides ``size`` if the stride does; ``size`` itself at the latest."""
    if block < size:
        block = min(round_up(block, stride), size)
    while block < size and size % stride == 0 and size % block:
        block += stride
    return block


def _widest_block(shape: Shape, target: _Target, ic_block: int) -> int:
    """The widest block that still leaves work for every thread."""
    rounded_width = round_up(shape.iw, shape.sw)
    work = shape.batch * shape.groups * -(-shape.ic // ic_block) * shape.id * shape.ih * shape.iw
    share = quotient(work, single(single(0.9) * target.threads))
    widest = least(shape.iw, greatest(1, least(rounded_width, ceil(share))))
    return round_up(widest, shape.sw) if _has_uneven_width(shape) else widest


SOURCE, DESTINATION, WEIGHTS = 0, 1, 2


class _Work(NamedTuple):
    """How the blocks split the problem among the threads; ``_thread`` fields are the largest share of one thread."""

    nb_ic: int
    nb_iw: int
    total: int
    job: int
    ic_blocks_thread: int
    ic_vectors_thread: int
    width_blocks_thread: int
    width_thread: int
    height_blocks_thread: int
    height_thread: int
    depth_blocks_thread: int
    depth_thread: int
    batch_thread: int


class _Loop(NamedTuple):
    """A loop whose iterations use a tensor anew ``times`` times, and the elements of each tensor one iteration touches.

    Without ``repeats`` the reuse stays inside one kernel and does not multiply the accesses.
    """

    tensor: int
    times: int
    source: int
    destination: int
    weights: int
    repeats: bool = True


class _Tiling(NamedTuple):
    """One choice of channel and image blocks, with the parts of its efficiency that no kernel block changes."""

    tile: _Tile
    rows: int
    span: int
    rows_span: int
    job: int
    gain: float
    kernel_gain: float
    source_cost: float
    weights_cost: float
    weights_accesses: float
    destination_accesses: float


def _tiling(shape: Shape, target: _Target, tile: _Tile, pointwise: bool) -> _Tiling:
    registers = register_block(target.machine, tile.iw // shape.sw, min(shape.ic, tile.ic), shape.oc)
    assert registers is not None
    rows = registers[0]
    width = round_up(shape.iw, shape.sw)
    work = _split_work(shape, target, tile, width)
    span, rows_span = _output_span(shape, tile.iw, target.packed), _output_span(shape, rows, target.packed)
    if pointwise:
        rows_span = rows * round_up(shape.oc, target.packed)
        loops = _pointwise_loops(shape, target, work, tile, rows)
    else:
        loops = _loops(shape, target, work, tile, rows)
    cost, repeats = [float(MEMORY_COST)] * 3, [1.0] * 3
    for loop in loops:
        if ceiling(loop.times) > 1:  # where it is 1, neither changes
            cost[loop.tensor] = _access_cost(target, cost[loop.tensor], loop)
            if loop.repeats:
                repeats[loop.tensor] = single(repeats[loop.tensor] * loop.times)
    image = work.batch_thread * work.depth_thread * work.height_thread * work.width_thread
    vectors = work.ic_vectors_thread
    source_accesses = single(single(image * shape.kernel_volume * shape.oc) * repeats[SOURCE])
    return _Tiling(
        tile,
        rows,
        span,
        rows_span,
        work.job,
        _tiling_gain(shape, target, work, tile, rows, width),
        _kernel_gain(rows, tile.iw),
        single(cost[SOURCE] * source_accesses),
        cost[WEIGHTS],
        single(single(shape.kernel_volume * vectors * shape.oc) * single(repeats[WEIGHTS] * -(-tile.iw // rows))),
        single(image * vectors),
    )


def _split_work(shape: Shape, target: _Target, tile: _Tile, width: int) -> _Work:
    nb_ic, nb_iw = -(-shape.ic // tile.ic), -(-shape.iw // tile.iw)
    nb_id, nb_ih = -(-shape.id // tile.id), -(-shape.ih // tile.ih)
    image = nb_id * nb_ih * nb_iw
    total = shape.batch * shape.groups * nb_ic * image
    job = -(-total // target.threads)
    per_channel_block = 1 if target.channels_innermost else image
    per_width = shape.groups * nb_ic if target.channels_innermost else 1
    per_height = nb_iw * per_width
    ic_blocks = least(nb_ic, -(-job // per_channel_block))
    width_blocks = least(nb_iw, -(-job // per_width))
    height_blocks = least(nb_ih, -(-job // per_height))
    depth_blocks = least(nb_id, -(-job // (nb_ih * per_height)))
    return _Work(
        nb_ic,
        nb_iw,
        total,
        job,
        ic_blocks,
        -(-least(shape.ic, ic_blocks * tile.ic) // target.packed),
        width_blocks,
        least(width, width_blocks * tile.iw),
        height_blocks,
        least(shape.ih, height_blocks * tile.ih),
        depth_blocks,
        least(shape.id, depth_blocks * tile.id),
        least(shape.batch, -(-job // (image * shape.groups * nb_ic))),
    )


def _tiling_gain(shape: Shape, target: _Target, work: _Work, tile: _Tile, rows: int, width: int) -> float:
    """The shares of useful work: in the last blocks, in the kernel's registers and among the threads."""
    vectors = tile.ic // target.simd
    gain = single(quotient(shape.ic, work.nb_ic * tile.ic) * quotient(vectors * rows, (rows + vectors) * target.machine.registers))
    gain = single(gain * quotient(width, round_up(width, tile.iw)))
    gain = single(gain * _balance(shape, target, work, tile, width))
    return single(gain * quotient(tile.iw, round_up(tile.iw, rows)))


def _kernel_gain(rows: int, width: int) -> float:
    amortised = single(2 - min(single(1.9), quotient(rows, width)))
    return single(single(1 + single(rows * amortised) / 64) / 2)


def _balance(shape: Shape, target: _Target, work: _Work, tile: _Tile, width: int) -> float:
    """How evenly the threads are loaded; counted block by block when there are few."""
    if below(work.job, target.threads) is False:
        return quotient(work.total, round_up(work.total, target.threads))

    def counted(total: int, job: int, *loops: int) -> float:
        if job >= target.threads:
            return quotient(total, round_up(total, target.threads))
        loads = [_thread_load(shape.ic, target, total, loops, tile, width, thread) for thread in range(target.threads)]
        return quotient(sum(loads), max(loads) * target.threads) if max(loads) else 1.0

    return each(counted, work.total, work.job, shape.batch, shape.id, shape.ih, work.nb_iw, shape.groups, work.nb_ic)


def _thread_load(ic: int, target: _Target, total: int, loops: tuple[int, ...], tile: _Tile, width: int, thread: int) -> int:
    """Input elements of one thread's blocks, walked as oneDNN's estimate does.

    The estimate counts depth and height in elements where the rest counts blocks, and takes two steps per block,
    the first one always with the channels innermost; both shape its result.
    """
    start, end = _share(total, target.threads, thread)
    sizes = dict(zip("ndhwgc", loops, strict=True))
    first = "ndhwgc"
    second = first if target.channels_innermost else "ngcdhw"
    position = {}
    rest = start
    for axis in reversed(second):
        rest, position[axis] = divmod(rest, sizes[axis])
    load = 0
    for _ in range(start, end):
        load += min(ic - position["c"] * tile.ic, tile.ic) * min(width - position["w"] * tile.iw, tile.iw)
        for order in (first, second):
            for axis in reversed(order):
                position[axis] = (position[axis] + 1) % sizes[axis]
                if position[axis]:
                    break
    return load


def _share(total: int, threads: int, thread: int) -> tuple[int, int]:
    """The items of one thread when the first threads get one more each (``balance211``)."""
    larger = -(-total // threads)
    count = total - threads * (larger - 1)
    start = thread * larger if thread <= count else count * larger + (thread - count) * (larger - 1)
    return start, start + (larger if thread < count else larger - 1)


def _efficiency(shape: Shape, target: _Target, tiling: _Tiling, kd_block: int, kh_block: int) -> float:
    """oneDNN's estimate of how well the blocks use the processor: useful work times multiplications per cost of access."""
    plane = kd_block * kh_block
    splits = -(-shape.kd // kd_block) * -(-shape.kh // kh_block)
    kernel_weights = plane * shape.kw * tiling.tile.ic * shape.oc
    over_splits = _Loop(DESTINATION, splits, plane * tiling.span, tiling.tile.iw * tiling.tile.ic, kernel_weights)
    over_rows = _Loop(WEIGHTS, -(-tiling.tile.iw // tiling.rows), plane * tiling.rows_span, tiling.rows * tiling.tile.ic, kernel_weights)
    destination_cost = _access_cost(target, MEMORY_COST, over_splits) if splits > 1 else MEMORY_COST
    weights_cost = _access_cost(target, tiling.weights_cost, over_rows) if over_rows.times > 1 else tiling.weights_cost
    cost = single(tiling.source_cost + single(destination_cost * single(tiling.destination_accesses * splits)))
    cost = single(cost + single(weights_cost * tiling.weights_accesses))
    cost = single(single(cost + single(tiling.job * splits)) * target.threads)
    multiplications = shape.batch * shape.id * shape.ih * round_up(shape.iw, shape.sw) * shape.oc * shape.ic
    return single(single(tiling.gain * quotient(multiplications, cost)) * tiling.kernel_gain)


def _access_cost(target: _Target, first: float, loop: _Loop) -> float:
    """Average cost of an access when the first one costs ``first`` and the others hit the cache the loop's data fits in."""
    touched = target.itemsize * (loop.source + loop.weights) + target.result_bytes * loop.destination
    level = choose(below(touched, target.l2), L2_COST, MEMORY_COST)
    if loop.tensor == SOURCE:
        level = choose(below(target.itemsize * loop.source, target.l1), L1_COST, level)
    return quotient(single(first + level * (loop.times - 1)), loop.times)


def _loops(shape: Shape, target: _Target, work: _Work, tile: _Tile, rows: int) -> list[_Loop]:
    """The loops around a kernel, and inside it those over the source, outermost first, for kernels larger than one point."""
    packed, oc, plane = target.packed, shape.oc, shape.kd * shape.kh
    source_thread = plane * _output_span(shape, work.width_thread, packed)
    source_block = plane * _output_span(shape, tile.iw, packed)
    image_rows = work.depth_thread * work.height_thread
    all_vectors, block_weights = work.ic_vectors_thread * packed, shape.kernel_volume * tile.ic * oc
    vectors = all_vectors if target.channels_innermost else tile.ic // target.simd * packed
    weights = shape.kernel_volume * vectors * oc
    strip = work.width_thread * vectors
    block_width = least(shape.ow, (rows - 1) * min(shape.kw, shape.sw) + shape.kw)
    if target.channels_innermost:
        over_channels = _Loop(SOURCE, work.ic_blocks_thread, source_block, tile.iw * tile.ic, block_weights)
    else:
        result = tile.ic * image_rows * work.width_thread
        over_channels = _Loop(SOURCE, work.ic_blocks_thread, image_rows * source_thread, result, block_weights)
    return [
        _Loop(
            WEIGHTS,
            work.batch_thread,
            image_rows * source_thread,
            image_rows * work.width_thread * all_vectors,
            shape.kernel_volume * all_vectors * oc,
        ),
        over_channels,
        _Loop(
            WEIGHTS,
            work.depth_blocks_thread,
            tile.id * work.height_thread * source_thread,
            work.height_thread * strip,
            weights,
        ),
        _Loop(WEIGHTS, work.height_blocks_thread, tile.ih * source_thread, strip, weights),
        _Loop(WEIGHTS, work.width_blocks_thread, source_block, tile.iw * vectors, weights),
        _Loop(SOURCE, shape.kw, _output_span(shape, rows, packed), 0, tile.ic * oc, repeats=False),
        _Loop(SOURCE, target.simd, block_width * packed, 0, tile.ic, repeats=False),
    ]


def _pointwise_loops(shape: Shape, target: _Target, work: _Work, tile: _Tile, rows: int) -> list[_Loop]:
    """The loops around a kernel, and inside it those over the source, outermost first, for unpadded kernels of one point."""
    packed, oc = target.packed, shape.oc
    pixel = round_up(oc, packed)
    image_rows = work.depth_thread * work.height_thread
    image = image_rows * work.width_thread
    all_vectors = work.ic_vectors_thread * packed
    if target.channels_innermost:
        vectors, weights, block_weights = all_vectors, all_vectors * shape.ic, tile.ic * shape.ic
        source, result = tile.iw * round_up(shape.ic, packed), tile.iw * tile.ic
    else:
        vectors, block_weights = tile.ic // target.simd * packed, tile.ic * oc
        weights = vectors * oc
        source, result = image_rows * round_up(work.width_thread * oc, packed), tile.ic * image
    plane = tile.id * work.height_thread * work.width_thread
    strip = tile.ih * work.width_thread
    return [
        _Loop(WEIGHTS, work.batch_thread, image * pixel, image * all_vectors, all_vectors * oc),
        _Loop(SOURCE, work.ic_blocks_thread, source, result, block_weights),
        _Loop(WEIGHTS, work.depth_blocks_thread, plane * pixel, plane * vectors, weights),
        _Loop(WEIGHTS, work.height_blocks_thread, strip * pixel, strip * vectors, weights),
        _Loop(WEIGHTS, work.width_blocks_thread, tile.iw * oc, tile.iw * vectors, weights),
        _Loop(SOURCE, target.simd, rows * packed, 0, tile.ic, repeats=False),
    ]


def _output_span(shape: Shape, positions: int, packed: int) -> int:
    """Elements of the output gradient that ``positions`` kernel applications along the width read."""
    span = least(shape.ow, (positions - 1) * min(shape.kw, shape.sw) + shape.kw)
    return round_up(span * shape.oc, packed) if shape.sw == 1 else span * round_up(shape.oc, packed)
