"""ONNX Runtime: networks exported, rewritten, planned and played, to the byte of what was measured on 1.32.0."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError, UsageError
from memest.machines.engines import OnnxSettings
from memest.memory.allocators.bfc import Bfc, Growth
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes.onnxruntime.memory import arena_after, most_alive, pattern_block

MIB = 1 << 20


def _asked(graph: Graph, shape: tuple[int, ...], **given: Any) -> memest.Estimate:
    machine = given.pop("machine", memest.Cpu(isa="avx512", threads=1))
    return memest.estimate(graph, input_shape=shape, mode="infer", runtime="onnxruntime", machine=machine, **given)


def _sizes(graph: Graph, shape: tuple[int, ...], **given: Any) -> list[int]:
    return [e.delta for e in _asked(graph, shape, **given).events if e.delta > 0]


def _chain(*ops: str, channels: int = 16, dims: int = 2) -> Graph:
    b = memest.Builder("chain")
    x = b.input("x", ("N", channels, *("DHW"[-dims:])))
    for op in ops:
        given = {"out_channels": channels, "kernel_size": 3, "padding": 1} if op.startswith("conv") else {}
        x = b.layer(op, x, **given)
    return b.build(x)


@pytest.mark.parametrize(
    ("name", "peak", "block"),
    [("resnet18", 4_014_080, 4_014_080), ("vgg11", 16_056_320, 16_056_320), ("resnet50", 5_218_304, 7_225_344)],
)
def test_plan_and_pattern_are_those_of_the_engine(name: str, peak: int, block: int) -> None:
    found = _asked(memest.model(name), (1, 3, 224, 224))
    assert most_alive(found.timeline) == peak
    assert found.reserved.bytes == pattern_block(found.timeline) == block
    assert found.allocated.bytes == found.standing_bytes + peak


def test_the_arena_takes_powers_of_two_and_is_shrunk_to_its_first_region() -> None:
    stream = _asked(memest.model("resnet50"), (1, 3, 224, 224)).timeline
    assert arena_after(stream, OnnxSettings(), 1).regions == {0: 4 * MIB, 1: 4 * MIB}
    assert arena_after(stream, OnnxSettings()).regions == {0: 4 * MIB, 1: 4 * MIB, 2: 8 * MIB}
    assert arena_after(stream, OnnxSettings(pattern=False)).regions == {0: 4 * MIB, 1: 4 * MIB}
    assert arena_after(stream, OnnxSettings(shrinkage=True)).regions == {0: 4 * MIB}


def test_a_network_of_volumes_takes_two_arenas_with_the_pattern_and_one_without() -> None:
    graph, shape = memest.model("unet3d", base_filters=16), (1, 1, 128, 128, 128)
    found, off = _asked(graph, shape), _asked(graph, shape, ort_pattern=False)
    assert found.reserved.bytes == 512 * MIB
    assert found.process.bytes is not None and off.process.bytes is not None
    assert 1.8 < found.process.bytes / off.process.bytes < 2.1
    assert "with ort_pattern off" in found.process.reason


def test_channels_are_padded_to_the_vector() -> None:
    wide = _sizes(_chain("conv2d", "conv2d", channels=20), (1, 20, 8, 8))
    assert max(wide) == 32 * 64 * 4
    narrow = _sizes(_chain("conv2d", "conv2d", channels=20), (1, 20, 8, 8), machine=memest.Cpu(isa="avx2", threads=1))
    assert max(narrow) == 24 * 64 * 4


def test_a_convolution_of_a_volume_takes_a_piece_a_thread() -> None:
    graph, shape = _chain("conv3d", dims=3), (1, 16, 16, 16, 16)
    assert [64 * 1024 * n in _sizes(graph, shape, machine=memest.Cpu(threads=n)) for n in (1, 2, 4)] == [True] * 3
    small = _sizes(graph, (1, 16, 2, 2, 2))
    assert 16 * 27 * 8 * 4 in small


def test_activations_work_in_place_where_their_kernels_do() -> None:
    assert len(_sizes(_chain("conv3d", "elu", "conv3d", dims=3), (1, 16, 8, 8, 8))) == 4
    assert len(_sizes(_chain("conv3d", "exp", "conv3d", dims=3), (1, 16, 8, 8, 8))) == 5


def test_levels_do_less() -> None:
    graph, shape = memest.model("resnet50"), (1, 3, 224, 224)
    by = {level: most_alive(_asked(graph, shape, ort_level=level).timeline) for level in ("all", "extended", "disabled")}
    assert by["all"] < by["extended"] <= by["disabled"]


def test_the_first_run_has_no_block_yet() -> None:
    graph, shape = memest.model("resnet50"), (1, 3, 224, 224)
    first = _asked(graph, shape, first_run=True)
    assert first.reserved.bytes == 5_218_304
    assert dict(first.figures.besides).keys() == {"arena_first_run"}


def test_a_formula_says_what_a_run_says() -> None:
    found = _asked(memest.model("resnet18"), (4, 3, 224, 224))
    program = found.live_sets
    assert program.at({"N": 8, "H": 224, "W": 224}) == _asked(memest.model("resnet18"), (8, 3, 224, 224)).summary


def test_settings_that_contradict_are_refused() -> None:
    graph, shape = memest.model("resnet18"), (1, 3, 64, 64)
    for given, said in (
        ({"ort_level": "none"}, "ort_level 'none' is not one of"),
        ({"ort_arena": False, "ort_shrinkage": True}, "there is no arena"),
        ({"ort_mmap_threshold": 0}, "ort_mmap_threshold is in bytes"),
        ({"first_step": True}, "its first run is first_run"),
        ({"cudnn": "9.24"}, "that is torch-cuda's"),
    ):
        with pytest.raises(UsageError, match=said):
            _asked(graph, shape, **given)
    with pytest.raises(UsageError, match=r"runtime torch-cpu has no ort_pattern: that is onnxruntime's"):
        memest.estimate(graph, input_shape=shape, mode="infer", ort_pattern=False)
    with pytest.raises(UsageError, match="every call of it is like the first"):
        memest.estimate(graph, input_shape=shape, mode="infer", first_run=True)
    with pytest.raises(UsageError, match="has no mode 'train'"):
        memest.estimate(graph, input_shape=shape, mode="train", runtime="onnxruntime")


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="modelled in float32 alone"):
        _asked(memest.model("resnet18"), (1, 3, 64, 64), dtype="bfloat16")


def test_an_operator_without_a_rule_is_named() -> None:
    with pytest.raises(UnsupportedError, match="no rule for 'cummax' on onnxruntime; memest ops cummax"):
        b = memest.Builder("other")
        values, _ = b.layer("cummax", b.input("x", ("N", 8)), dim=1)
        _asked(b.build(values), (2, 8))


def test_where_a_session_may_take_another_order_the_block_has_a_range() -> None:
    """Two values in blocks of padded channels are reordered for one concatenation each, in an order that nothing settles."""
    b = memest.Builder("ghosts")
    x = b.input("x", ("N", 16, "H", "W"))
    for n, (channels, times) in enumerate(((12, 1), (20, 1), (24, 2))):
        a = b.layer("relu", b.layer("conv2d", x, out_channels=channels, kernel_size=1, name=f"point_{n}"))
        x = b.layer("cat", [a, b.layer("conv2d", a, out_channels=channels * times, kernel_size=3, padding=1, groups=channels)], dim=1)
    found = _asked(b.build(x), (1, 16, 32, 32)).reserved
    assert (found.claim, found.low, found.high) == ("modelled", 655_360, 851_968) and "differs by session" in found.reason


def test_regions_double_and_chunks_merge() -> None:
    arena = Bfc()
    first, second = arena.take(3 * MIB), arena.take(3 * MIB)
    assert list(arena.regions.values()) == [4 * MIB, 4 * MIB]
    arena.give(first)
    third = arena.take(MIB)
    arena.give(second)
    assert arena.take(4 * MIB).region == 1
    assert (third.region, third.size) == (0, MIB)
    arena.shrink(keep=(1,))
    assert arena.nbytes == arena.most == 8 * MIB


def test_a_chunk_less_than_twice_as_large_is_not_split() -> None:
    arena = Bfc(growth=Growth(first=MIB))
    assert arena.take(600_000).size == MIB
    assert arena.take(500_000).size == 500_224
    assert arena.touched == (0, 1_100_000)


def test_what_was_touched_stays_counted_when_regions_go_back() -> None:
    """The resident peak of an arena that is shrunk after each run is reached during it."""
    arena = Bfc()
    small, large = arena.take(MIB), arena.take(48 * MIB)
    arena.give(large)
    arena.shrink(keep=(0,))
    assert arena.nbytes == MIB and arena.touched == (48 * MIB, MIB)
    arena.give(small)
    assert arena.touched == (48 * MIB, MIB)


def test_a_session_that_gives_regions_back_holds_them_while_it_runs() -> None:
    plain, shrunk = (
        memest.estimate(memest.model("unet3d"), input_shape=(1, 1, 64, 64, 64), mode="infer", runtime="onnxruntime", ort_shrinkage=on)
        for on in (False, True)
    )
    assert shrunk.reserved.bytes < shrunk.process.bytes < plain.process.bytes


PAIRS = [  # equation, shapes of both operands, bytes at once in the first run, and of the block, as they were measured
    ("blxd,blyd->blxy", (2, 4, 128, 64), (2, 4, 96, 64), 1_638_400, 851_968),
    ("bhxy,bhyd->bhxd", (2, 4, 128, 96), (2, 4, 96, 64), 1_310_720, 851_968),
    ("ij,jk->ik", (256, 128), (128, 512), 1_703_936, 917_504),
    ("ncvl,vw->ncwl", (2, 16, 64, 32), (64, 64), 1_343_488, 540_672),
]


@pytest.mark.parametrize(("equation", "first", "second", "peak", "block"), PAIRS)
def test_an_einsum_copies_what_lies_in_another_order(equation: str, first: Shape, second: Shape, peak: int, block: int) -> None:
    b = memest.Builder("pair")
    factors = [b.layer("relu", b.input(name, shape)) for name, shape in (("a", first), ("b", second))]
    graph = b.build(b.layer("abs", b.layer("einsum", factors, equation=equation)))
    stream = memest.estimate(graph, mode="infer", runtime="onnxruntime", machine=memest.Cpu(isa="avx512", threads=1)).timeline
    assert (most_alive(stream), pattern_block(stream)) == (peak, block)


def test_an_einsum_that_sums_what_one_operand_has_alone_is_refused() -> None:
    b = memest.Builder("alone")
    graph = b.build(b.layer("einsum", [b.input("a", (4, 5, 6)), b.input("b", (5, 7))], equation="ijk,jl->il"))
    with pytest.raises(UnsupportedError, match="einsum 'ijk,jl->il', of other than two operands, or summing"):
        memest.estimate(graph, mode="infer", runtime="onnxruntime")


def test_tables_and_places_are_gathers_and_grids_are_sampled() -> None:
    """Measured on 1.32: each takes its result alone."""
    b = memest.Builder("read")
    rows = b.layer("embedding", b.parameter("table", (1000, 64)), b.input("i", (4, 100), "int64"))
    stream = memest.estimate(b.build(b.layer("abs", rows)), mode="infer", runtime="onnxruntime").timeline
    assert (most_alive(stream), pattern_block(stream)) == (204_800, 102_400)
    b = memest.Builder("grid")
    both = [b.layer("relu", b.input(name, shape)) for name, shape in (("x", (1, 8, 64, 64)), ("grid", (1, 32, 48, 2)))]
    sampled = b.layer("grid_sample", *both, align_corners=False)
    stream = memest.estimate(b.build(b.layer("abs", sampled)), mode="infer", runtime="onnxruntime").timeline
    assert (most_alive(stream), pattern_block(stream)) == (192_512, 192_512)


def _bytes_of(build: Any, shape: Shape) -> tuple[int, int]:
    """Most bytes at once in the first run, and of the block, of a network that ``build`` makes of its input."""
    b = memest.Builder("net")
    graph = b.build(b.layer("abs", build(b, b.layer("relu", b.input("x", shape)))))
    stream = memest.estimate(graph, mode="infer", runtime="onnxruntime", machine=memest.Cpu(isa="avx512", threads=1)).timeline
    return most_alive(stream), pattern_block(stream)


SIDES = [1, 2, 0, 1]
PADDED = [  # what reads zeros around an image, and bytes at once and of the block, as they were measured
    ("conv2d", {"out_channels": 16, "kernel_size": 3, "padding": 1}, 147_840, 205_056),
    ("conv2d", {"out_channels": 16, "kernel_size": 3}, 131_072, 131_072),
    ("avg_pool2d", {"kernel_size": 3, "stride": 1}, 131_072, 131_072),
    ("max_pool2d", {"kernel_size": 3, "stride": 1}, 147_840, 213_504),
]


@pytest.mark.parametrize(("op", "attributes", "peak", "block"), PADDED)
def test_zeros_are_put_around_by_what_reads_them(op: str, attributes: dict[str, Any], peak: int, block: int) -> None:
    def build(b: Any, x: Any) -> Any:
        return b.layer(op, b.layer("pad", x, pad=SIDES), **attributes)

    assert _bytes_of(build, (1, 16, 32, 32)) == (peak, block)


SCALED = [524_288, 131_072, -524_288, 131_072, 262_144, -131_072, 65_536, -262_144, 196_608, -131_072, -65_536]
TURNED = [524_288, 131_072, -524_288, 131_072, 131_072, -131_072, 262_144, -131_072, 65_536, -262_144, 196_608, -131_072, -65_536]


@pytest.mark.parametrize(("scale", "measured"), [((1, 64, 1, 1), SCALED), ((64, 1, 1), SCALED), ((1,), TURNED)])
def test_a_number_a_channel_scales_in_blocks(scale: Shape, measured: list[int]) -> None:
    """The first layers of DenseNet as Keras exports it, whose norms are products."""
    b = memest.Builder("dense")
    pool = b.layer("max_pool2d", b.input("x", (2, 64, 32, 32)), kernel_size=2)
    x = b.layer("relu", b.layer("mul", pool, b.parameter("scale", scale)))
    x = b.layer("conv2d", b.layer("conv2d", x, out_channels=128, kernel_size=1), out_channels=32, kernel_size=3, padding=1)
    graph = b.build(b.layer("abs", b.layer("cat", [pool, x], dim=1)))
    found = memest.estimate(graph, mode="infer", runtime="onnxruntime", machine=memest.Cpu(isa="avx512", threads=1)).timeline
    assert [e.delta for e in found.events][: len(measured)] == measured
