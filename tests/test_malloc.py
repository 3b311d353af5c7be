"""What a process is told of malloc, and what is refused."""

from __future__ import annotations

import pickle
from importlib.util import find_spec
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.errors import MemestError
from memest.libraries.onednn import Convolution, gemm
from memest.machines.process import Malloc, malloc_named
from memest.memory.allocators.glibc import Arena
from memest.runtimes.torch.process.blocks import Run, Script, Take, lists, scripts_of
from memest.runtimes.torch.process.heap import Player, leave
from validation.process.cases import Case
from validation.process.comparing import SETS, compare, failures, stored
from validation.process.tabulating import ENDS, Small, recorded

SMALL = memest.model("unet3d", base_filters=4, levels=2)
FIXED = "glibc:mmap_threshold=131072"


def asked(**settings: Any) -> memest.Estimate:
    return memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64), **settings)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("glibc", Malloc()),
        (" GLIBC ", Malloc()),
        ("glibc:mmap_threshold=131072", Malloc(mmap_threshold=131072)),
        ("glibc:mmap_threshold=128KiB, trim_threshold=0,top_pad=1MiB", Malloc(mmap_threshold=131072, trim_threshold=0, top_pad=1 << 20)),
        ("glibc:arena_max=1,thread=fresh", Malloc(arena_max=1, thread="fresh")),
        ("jemalloc", Malloc(name="jemalloc")),
    ],
)
def test_texts_name_an_allocator(text: str, meant: Malloc) -> None:
    assert malloc_named(text) == meant and malloc_named(str(meant)) == meant
    assert meant.moves == (meant.name == "glibc" and "threshold" not in text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("glbc", "unknown malloc 'glbc'; did you mean 'glibc'"),
        ("tcmalloc", "malloc 'tcmalloc' is not modelled: nothing was measured of it"),
        ("", "unknown malloc ''"),
        ("glibc:", "nothing follows the colon"),
        ("glibc:mmap_threshold", "is not written option=value"),
        ("glibc:mmap_treshold=1", "did you mean 'mmap_threshold'"),
        ("glibc:mmap_threshold=33MiB", "is more than 32.00 MiB"),
        ("glibc:mmap_threshold=99999999999999999999", "99999999999999999999 is more than 32.00 MiB"),
        ("glibc:arena_max=99999999999999999999", "a whole number from 1"),
        ("glibc:mmap_threshold=-1", "not a size"),
        ("glibc:top_pad=1,top_pad=1", "option 'top_pad' is given twice"),
        ("glibc:arena_max=0", "a whole number from 1"),
        ("glibc:thread=wroker", "did you mean 'worker'"),
        ("jemalloc:arena_max=1", "has no option 'arena_max'"),
        (3, "malloc is a text"),
    ],
)
def test_what_cannot_be_meant_is_one_line(text: Any, words: str) -> None:
    with pytest.raises(MemestError, match=words) as e:
        asked(malloc=text)
    assert "\n" not in str(e.value)


def test_settings_of_another_runtime_are_refused() -> None:
    with pytest.raises(MemestError, match="runtime openvino has no malloc: that is torch-cpu's"):
        asked(malloc="glibc", runtime="openvino", mode="infer")
    with pytest.raises(MemestError, match="settings of onnxruntime and torch-cpu at once"):
        asked(malloc="glibc", ort_arena=False)


def test_a_target_told_of_a_process_survives_pickling() -> None:
    target = asked(malloc="glibc:thread=worker").recipe.target
    assert pickle.loads(pickle.dumps(target)) == target != asked().recipe.target


# figures -----------------------------------------------------------------------------------------------------------------


def test_the_process_is_modelled_when_it_is_asked_for() -> None:
    plain, told = asked(), asked(malloc="glibc")
    assert plain.to_dict()["process"]["bytes"] is None and "--malloc glibc" in plain.to_dict()["process"]["reason"]
    assert plain.process == told.process == told.figures.process
    assert told.figures.outermost == ("process", told.process) and plain.figures.outermost[0] == "reserved"
    assert told.to_dict()["process"]["claim"] == "modelled"
    assert plain.peak_bytes == told.peak_bytes


@pytest.mark.parametrize("malloc", ["glibc", "glibc:mmap_threshold=131072", "jemalloc", "glibc:thread=worker", "glibc:thread=fresh"])
@pytest.mark.parametrize("settings", [{}, {"first_step": True}, {"mode": "infer"}])
def test_a_figure_lies_in_its_range_above_what_is_allocated(malloc: str, settings: dict[str, Any]) -> None:
    found = asked(malloc=malloc, **settings)
    figure = found.process
    assert figure.bytes is not None and figure.low is not None and figure.high is not None
    assert figure.low <= figure.bytes <= figure.high
    assert figure.bytes > found.peak_bytes + (200 << 20)


def test_a_fixed_threshold_holds_what_is_alive() -> None:
    small, large = (asked(malloc=f"glibc:mmap_threshold={n}").process.bytes for n in (131072, 32 << 20))
    moves = asked(malloc="glibc").process
    assert small is not None and large is not None and moves.high is not None
    assert small <= large and small <= moves.high


def test_what_is_compared_is_the_process_where_it_is_counted() -> None:
    sizes: dict[str, Any] = {"D": 32, "H": 32, "W": 32, "loss": "mse"}
    plain, told = (memest.fit(SMALL, "400MiB", "batch", **sizes, **more) for more in ({}, {"malloc": FIXED}))
    assert plain.value is not None and told.value is not None and told.value < plain.value
    assert told.figure == "process" and told.peak_bytes <= 400 << 20 < (told.next_bytes or 0)
    assert "the process that runs the step" in told.notes[0]


# laws --------------------------------------------------------------------------------------------------------------------


def bytes_of(batch: int = 2, side: int = 64, **settings: Any) -> int:
    found = memest.estimate(memest.model("resnet18"), input_shape=(batch, 3, side, side), **settings).process.bytes
    assert found is not None
    return found


def test_more_is_never_less() -> None:
    sizes = [bytes_of(batch, malloc=FIXED) for batch in (1, 2, 4, 8)]
    assert sizes == sorted(sizes)
    assert bytes_of(malloc=FIXED, mode="infer") < bytes_of(malloc=FIXED, first_step=True) <= bytes_of(malloc=FIXED, optimizer="adam")
    assert bytes_of(malloc=FIXED, imports="torchvision") > bytes_of(malloc=FIXED)
    assert bytes_of(malloc=FIXED) < bytes_of(malloc="jemalloc")


def test_a_figure_is_the_same_each_time_and_one_arena_is_the_main_one() -> None:
    assert bytes_of(malloc="glibc") == bytes_of(malloc="glibc") == bytes_of(malloc="glibc:arena_max=1,thread=fresh")


def test_a_range_is_no_wider_than_is_claimed() -> None:
    figure = asked(malloc="glibc").process
    assert figure.bytes is not None and figure.low is not None and figure.high is not None
    assert 0.85 * figure.bytes <= figure.low and figure.high <= 1.15 * figure.bytes
    assert "half are within" in figure.reason


def test_imports_are_of_a_process() -> None:
    with pytest.raises(MemestError, match="imports is of the process, which is counted where malloc is given"):
        asked(imports="torchvision")
    with pytest.raises(MemestError, match="did you mean 'torchvision'"):
        asked(malloc="glibc", imports="torchvison")


def test_a_threshold_that_stays_is_advised_where_the_process_is_counted() -> None:
    settings: dict[str, Any] = {"input_shape": (2, 1, 16, 16, 16), "loss": "mse"}
    plain, told = (memest.advise(SMALL, "2GiB", **settings, **more) for more in ({}, {"malloc": "glibc"}))
    assert "fixed threshold" not in {o.name for o in plain.alone}
    found = next(o for o in told.alone if o.name == "fixed threshold")
    assert found.changes == (f"malloc={FIXED}",) and found.estimate.question.malloc == FIXED


# small blocks ------------------------------------------------------------------------------------------------------------


def test_a_call_that_was_not_recorded_takes_the_nearest() -> None:
    known = scripts_of(Run(0, 2, "relu", "relu", "forward", ".++", "convolution"), training=True, new=False)
    assert len(known) == 2 and known[0].full
    for phase in ("forward", "backward", "optimizer_step", "loss", "a phase that is not"):
        for signs in ("+", "-", "+-" * 40):
            run = Run(0, len(signs), "x", "an operator that is not", phase, "." + signs, "")
            assert len(scripts_of(run, training=True, new=True)) == len(signs)


def takes_of(*, training: bool, new: bool) -> list[Take]:
    run = Run(0, 7, "conv", "convolution", "forward", ".***--+-", "batch_norm")
    return [act[1] for script in scripts_of(run, training=training, new=new) for act in script.full if not isinstance(act, int)]


def test_a_call_in_inference_leaves_nothing_for_a_backward() -> None:
    assert "B" in {take.goes for take in takes_of(training=True, new=False)}
    assert {take.goes for take in takes_of(training=False, new=False)} <= {"=", "+", "T"}


def test_only_a_new_call_makes_a_primitive() -> None:
    later, first = (sum(take.nbytes for take in takes_of(training=False, new=new) if take.goes == "N") for new in (False, True))
    assert later == 0 and first > 10_000


def test_a_list_takes_eight_bytes_a_tensor_three_times_and_its_backward_edges_that_double() -> None:
    """As recorded of densenet121 with torch 2.13; numbers are releases."""

    def told(count: int, *, training: bool) -> list[int | str]:
        return [f"-{act}" if isinstance(act, int) else act.nbytes for act in lists(count, 4, training=training)]

    assert told(16, training=False) == [128, 128, 128, 32, "-3"]
    assert told(1, training=True) == [8, 8, 528, 16, 1, 24, 32, 8, 32, "-8"]
    assert told(2, training=True) == [16, 16, 528, 16, 32, "-3", 2, 48, 32, 32, 16, 32, "-10"]
    assert told(5, training=True) == [40, 40, 528, 16, 32, "-3", 64, "-4", 128, "-5", 5, 120, *[32] * 5, 40, 32, "-15"]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_a_cat_of_more_tensors_takes_longer_lists(training: bool, new: bool) -> None:
    for before in ("", "convolution", "an operator that is not"):
        runs = (Run(0, 1, "x", "cat", "forward", ".+", before, (count, 4)) for count in (2, 9))
        scripts = (scripts_of(run, training=training, new=new)[0].full for run in runs)
        two, nine = ([act[1].nbytes for act in full if not isinstance(act, int)] for full in scripts)
        assert (two.count(72), nine.count(72)) == (0, 3) and len(two) < len(nine) + (not training)


def test_how_many_tensors_a_layer_takes_is_told_by_the_graph() -> None:
    assert dict(memest.estimate(SMALL, input_shape=(1, 1, 16, 16, 16), loss="mse").steps.listing) == {"cat": 2}


def test_small_blocks_are_told_in_order_and_by_when_they_go() -> None:
    tensor, small, passing, kept = 0x1000, 0x2000, 0x3000, 0x4000
    records = [
        (4096, tensor, 64, 1, 2),
        (176, small, 0, 1, 0),
        (32, passing, 0, 1, 1),
        (-2, passing, 0, 1, 0),  # realloc: another comes first
        (48, passing, 0, 1, 0),
        (-1, passing, 0, 1, 0),
        (500, kept, 0, 1, 0),
        (64, 0x5000, 0, 2, 0),  # another thread's
        (-1, tensor, 0, 1, 0),
        (-1, small, 0, 1, 0),
    ]
    step = recorded(records, [(-1, kept, 0, 1, 0)])
    assert step.deltas == [4096, -4096] and step.gone == {1: 1, 2: 1, 0: 2, 3: ENDS}
    assert step.gaps[1] == [Small(176, 0, 1, 0), Small(32, -1, 1, 1), Small(48, 0, 1, 2), 1, 2, Small(500, 0, 1, 3)]


def test_blocks_that_come_and_go_at_once_change_nothing_where_the_thread_cache_has_them() -> None:
    small, large = Take(40, 0, "=", 0), Take(2144, 64, "=", 0)
    script = Script.of((small, large, small, 2, 1, 0), 0)
    assert script.cached == ((48, 2),) and script.brief == ((1, large), 1)
    arena = Arena()
    for address in [arena.malloc(40) for _ in range(2)]:
        arena.free(address)
    before = list(arena.cached[48])
    taken = [arena.malloc(40) for _ in range(2)]
    for address in reversed(taken):
        arena.free(address)
    assert arena.cached[48] == before


def test_starts_of_the_heap_differ_and_are_the_same_each_time() -> None:
    def free(seed: int) -> list[int]:
        arena = Arena()
        leave(arena, seed)
        return [len(arena.fast.get(size, ())) for size in (48, 64, 80, 96)]

    assert free(0) == free(0) != free(1)
    assert all(40 <= n <= 112 for n in free(0)[:1])


@pytest.mark.parametrize(("threads", "batch", "booked", "written"), [(1, 2, 4, 0), (2, 2, 8, 2), (2, 1, 4, 0)])
@pytest.mark.parametrize("last", [False, True])
def test_partial_weights_are_booked_four_times_and_written_once(threads: int, batch: int, booked: int, written: int, last: bool) -> None:
    problem = Convolution(
        prop="backward_weights",
        batch=batch,
        in_channels=256,
        out_channels=256,
        groups=1,
        input_size=(2, 2, 2),
        output_size=(2, 2, 2),
        kernel=(3, 3, 3),
        stride=(1, 1, 1),
        dilation=(1, 1, 1),
        padding=(1, 1, 1),
        padding_end=(1, 1, 1),
        bias=True,
        channels_last=last,
    )
    plan = gemm.backward_weights(problem, memest.Cpu(threads=threads))
    assert plan is not None and plan.unwritten_bytes == (booked - written) * 256 * 256 * 27 * 4 < plan.scratchpad_bytes


def test_pages_of_a_mapped_block_that_is_not_written_are_not_there() -> None:
    player = Player(Arena(mmap_threshold=131072))
    player.make(1, 1 << 20, 3 << 18)
    assert player.most < 1 << 19
    player.drop(1)
    player.make(2, 1 << 20)
    assert player.most > 1 << 20


# stored processes --------------------------------------------------------------------------------------------------------

BUILT_IN = {"torchvision.models:resnet18()": "resnet18", "validation.networks:UNet3d()": "unet3d"}


@pytest.mark.parametrize(
    "row", [r for r in stored("seen") if r["model"] in BUILT_IN], ids=lambda r: f"{BUILT_IN[r['model']]}-{r['optimizer']}-{r['malloc']}"
)
def test_stored_processes_of_built_in_networks(row: dict[str, Any]) -> None:
    case = Case.of(row)
    how: dict[str, Any] = {"optimizer": case.optimizer, "loss": case.loss} if case.optimizer else {"mode": "infer"}
    imports = "torchvision" if "torchvision" in case.model else "torch"
    graph = memest.model(BUILT_IN[case.model])
    figure = memest.estimate(graph, input_shape=case.shape, machine=memest.Cpu(), malloc=case.malloc, imports=imports, **how).process
    peak = max(step["most"] for step in row["steps"][1:])
    assert figure.bytes is not None and abs(figure.bytes / peak - 1) < (0.03 if case.malloc == "glibc" else 0.02)


@pytest.mark.slow
def test_all_stored_processes() -> None:
    if find_spec("torchvision") is None:  # imported through the loader, which registers what a CPU build of torch lacks
        pytest.skip("needs torchvision")
    for name in SETS:
        assert failures(list(compare(stored(name)))) == []


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--imports", "torchvision"], "counted where malloc is given: --malloc glibc"),
        (["--malloc", "glbc"], "unknown --malloc 'glbc'; did you mean 'glibc'"),
        (["--malloc", "glibc:thread=x"], "--malloc 'glibc', option 'thread': 'x' is none"),
    ],
)
def test_the_command_line_names_its_option(typed: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "resnet18", "--batch", "1", *typed]) == 2
    assert words in capsys.readouterr().err
