"""cuDNN's choice of plans: what torch asks, who answers, and that answers agree."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copytree

import pytest

from memest.errors import UnsupportedError
from memest.libraries.cudnn import (
    Convolution,
    Workspace,
    candidates,
    library,
    passed_over,
    rule,
    suggests_channels_last,
    table,
    torch_calls,
    workspace,
)
from memest.libraries.cudnn.errata import torch_with
from memest.libraries.cudnn.question import DIRECTIONS, DTYPES, Direction
from memest.libraries.cudnn.workspace import Release, filled_bytes, kind_of
from memest.machines.devices import device_named
from memest.machines.gpu import Device
from memest.machines.versions import NEWEST as NEWEST_TORCH
from memest.machines.versions import Version
from memest.network.tensor import spec
from validation.cuda import plans, trees

NEWEST = (9, 24)
HAS_LIBRARY = library.installed() is not None
with_library = pytest.mark.skipif(library.installed() != NEWEST, reason="needs nvidia-cudnn 9.24")


def card(name: str) -> Device:
    """A card of the catalogue."""
    found = device_named(name)
    assert found is not None
    return found


H100, A100, T4 = card("h100-80gb"), card("a100-40gb"), card("t4")
plain = partial(torch_calls, stride=(1, 1), padding=(1, 1), dilation=(1, 1))


def a_question(direction: Direction = "fwd", **changes: object) -> Convolution:
    calls = plain((32, 64, 56, 56), (64, 64, 3, 3))
    return replace(calls.forward, direction=direction, **changes)  # type: ignore[arg-type]


def random_calls(rnd: random.Random) -> list[Convolution]:
    n = rnd.choice((1, 2, 2, 3))
    groups = rnd.choice((1, 1, 2, 4))
    channels = [groups * rnd.choice((1, 3, 8, 16, 33, 64)) for _ in range(2)]
    kernel = [rnd.choice((1, 2, 3, 5)) for _ in range(n)]
    transposed = rnd.random() < 0.3
    weight = [channels[0], channels[1] // groups] if transposed else [channels[1], channels[0] // groups]
    return list(
        torch_calls(
            [rnd.choice((1, 2, 8)), channels[0], *(rnd.randint(9, 40 // n) if n == 3 else rnd.randint(9, 60) for _ in range(n))],
            [*weight, *kernel],
            stride=[rnd.choice((1, 2))] * n,
            padding=[k // 2 for k in kernel],
            dilation=[rnd.choice((1, 1, 2))] * n,
            transposed=transposed,
            groups=groups,
            dtype=rnd.choice(DTYPES),
            channels_last=rnd.random() < 0.5,
            tf32=rnd.random() < 0.8,
            deterministic=rnd.random() < 0.2,
        )
    )


class TestQuestions:
    def test_a_convolution_asks_in_each_direction_with_the_same_shapes(self) -> None:
        calls = plain((2, 3, 10, 12), (8, 3, 3, 5))
        assert [q.direction for q in calls] == ["fwd", "bwd_data", "bwd_filter"]
        assert {(q.x, q.w, q.y) for q in calls} == {((2, 3, 10, 12), (8, 3, 3, 5), (2, 8, 10, 10))}

    def test_a_transposed_one_asks_for_a_plain_ones_gradients(self) -> None:
        calls = torch_calls(
            (2, 6, 5, 5), (6, 4, 3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), transposed=True, output_padding=(1, 0), groups=2
        )
        assert [q.direction for q in calls] == ["bwd_data", "fwd", "bwd_filter"]
        assert calls.forward.x == (2, 8, 10, 9)
        assert calls.forward.y == (2, 6, 5, 5)
        assert calls.forward.groups == 2

    def test_one_dim_is_two_of_which_the_first_is_one(self) -> None:
        question = torch_calls((2, 3, 50), (8, 3, 5), stride=(2,), padding=(2,), dilation=(3,), channels_last=True).forward
        assert (question.x, question.w, question.y) == ((2, 3, 1, 50), (8, 3, 1, 5), (2, 8, 1, 21))
        assert (question.stride, question.padding, question.dilation) == ((1, 2), (0, 2), (1, 3))
        assert not question.channels_last

    def test_a_dim_of_size_one_has_the_step_of_the_dim_inside(self) -> None:
        one = a_question(x=(4, 1, 5, 7))
        assert one.strides(one.x) == (35, 35, 7, 1)
        assert replace(one, channels_last=True).strides(one.x) == (35, 1, 7, 1)
        assert one.strides((1, 3, 1, 7)) == (21, 7, 7, 1)

    @pytest.mark.parametrize("layouts", [("channels_last", "contiguous"), ("contiguous", "channels_last")])
    def test_one_operand_that_lies_channels_last_is_enough_unless_it_is_float64(self, layouts: tuple[str, str]) -> None:
        shapes = (2, 4, 5, 5), (8, 4, 3, 3)
        single = [spec(s, "float32", layout) for s, layout in zip(shapes, layouts, strict=True)]
        double = [spec(s, "float64", layout) for s, layout in zip(shapes, layouts, strict=True)]
        assert suggests_channels_last(*single)
        assert not suggests_channels_last(*double)

    def test_questions_are_keys(self) -> None:
        assert len({a_question(), a_question(), a_question("bwd_data")}) == 2


def of_resnet50(batch: int, **changes: object) -> list[Convolution]:
    """Its first convolution's, and a 3x3's of its second stage."""
    first = torch_calls((batch, 3, 224, 224), (64, 3, 7, 7), stride=(2, 2), padding=(3, 3), dilation=(1, 1))
    second = plain((batch, 128, 28, 28), (128, 128, 3, 3))
    return [replace(q, **changes) for q in (*first, *second)]  # type: ignore[arg-type]


def stored_columns() -> list[tuple[tuple[int, int], str]]:
    """Release and name of all that is stored."""
    return [(release, name) for release in table.releases() for name in sorted(table.names(release))]


def card_of(column: str) -> Device:
    """One that a column is about."""
    kinds = {
        "7.0": "v100-32gb",
        "7.5": "t4",
        "7.5-large": "titan-rtx",
        "8.0": "a30",
        "8.6": "rtx-3060-12gb",
        "8.9": "l4",
        "9.0": "h100-80gb",
    }
    return card(kinds[column.partition("/")[0]])


class TestNoPlan:
    @pytest.mark.parametrize("name", ["t4", "titan-rtx", "v100-32gb", "p40"])
    @pytest.mark.parametrize("benchmark", [False, True])
    def test_bfloat16_below_8_0_is_refused_with_and_without_the_library(self, name: str, benchmark: bool) -> None:
        for question in of_resnet50(8, dtype="bfloat16"):
            with pytest.raises(UnsupportedError, match=r"no plan for this convolution of bfloat16 on .*: take float16 or float32"):
                workspace(card(name), NEWEST, question, benchmark=benchmark)
            with library.absent(), pytest.raises(UnsupportedError, match="take float16 or float32"):
                workspace(card(name), NEWEST, question, benchmark=benchmark)

    @pytest.mark.skipif(library.installed() != NEWEST, reason="needs that cuDNN")
    def test_the_library_has_none_for_it(self) -> None:
        for name in ("t4", "v100-32gb", "p40"):
            assert library.knows(card(name), NEWEST)
            assert [library.plans(card(name), NEWEST, q) for q in of_resnet50(8, dtype="bfloat16")] == [()] * 6
        assert all(library.plans(A100, NEWEST, q) for q in of_resnet50(8, dtype="bfloat16"))

    def test_an_empty_answer_is_refused_where_the_library_knows_the_card(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(library, "plans", lambda *asked, **more: ())
        assert workspace(A100, NEWEST, a_question()).source == "table"  # of a card that it does not support it says nothing
        monkeypatch.setattr(library, "knows", lambda *asked: True)
        with pytest.raises(UnsupportedError, match="take another dtype"):
            workspace(A100, NEWEST, a_question())


class TestTable:
    @pytest.mark.parametrize("name", ["t4", "rtx-2080-ti", "a100-40gb", "rtx-3090", "rtx-4090", "l4", "h100-80gb"])
    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_resnet50_is_stored_for_every_usual_batch(self, name: str, dtype: str, channels_last: bool) -> None:
        if card(name).capability == (7, 5) and dtype == "bfloat16":
            return  # cuDNN has no plan
        for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            for question in of_resnet50(batch, dtype=dtype, channels_last=channels_last):
                with library.absent():
                    found = workspace(card(name), NEWEST, question)
                assert found.source == "table"
                assert found.low == found.bytes == found.high

    @pytest.mark.parametrize("release", [(9, 19), (9, 20)])
    @pytest.mark.parametrize("asked", [A100, H100])
    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_the_two_releases_before_are_stored_too(self, release: tuple[int, int], asked: Device, dtype: str, channels_last: bool) -> None:
        with library.absent():
            for question in of_resnet50(64, dtype=dtype, channels_last=channels_last):
                assert workspace(asked, release, question).source == "table"

    def test_it_holds_what_torch_took(self) -> None:
        # torch 2.14.1 on a stand-in for an H100: ResNet-50's 64 channels at 56 x 56, batch 32
        with library.absent():
            assert [workspace(H100, NEWEST, a_question(d)).bytes for d in DIRECTIONS] == [25837584, 51527827, 51822803]

    def test_every_column_is_whole(self) -> None:
        batches = [batches for _, batches in table.places().values()]
        for release, name in stored_columns():
            column = table.column(release, name)
            assert column is not None
            assert len(column["answers"]) == 3 * len(batches)
            for row, (number, answers) in zip((b for b in batches for _ in DIRECTIONS), enumerate(column["answers"]), strict=True):
                indices = [answers] if isinstance(answers, int) else answers or []
                assert isinstance(answers, int) or answers is None or len(answers) in (0, len(row)), (name, number)
                assert all(0 <= i < len(column["formulas"]) for i in indices)

    @pytest.mark.skipif(not HAS_LIBRARY, reason="needs nvidia-cudnn")
    def test_it_says_what_the_installed_library_says(self) -> None:
        release = library.installed()
        assert release is not None
        rnd = random.Random(4)
        places = list(table.places().items())
        for name in sorted(table.names(release)):
            _, dtype, layout = name.split("/")
            column = table.column(release, name)
            assert column is not None
            asked = card_of(name)
            for (x, w, stride, padding, dilation), (_, batches) in rnd.sample(places, 12):
                spatial = zip(x[1:], w[2:], stride, padding, dilation, strict=True)
                y = (w[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in spatial))
                batch = rnd.choice(batches)
                question = Convolution(
                    direction=rnd.choice(DIRECTIONS),
                    x=(batch, *x),
                    w=w,
                    y=(batch, *y),
                    stride=stride,
                    padding=padding,
                    dilation=dilation,
                    dtype=dtype,
                    channels_last=layout == "channels_last",
                )
                have = table.stored(asked, release, question)
                assert have is None or (have,) == library.plans(asked, release, question), (name, question)

    def test_another_batch_is_modelled_from_those_around_it(self) -> None:
        question = a_question().at_batch(48)
        with library.absent():
            found = workspace(A100, NEWEST, question)
            around = [workspace(A100, NEWEST, question.at_batch(b)) for b in (32, 64)]
        assert found.source == "rule"
        assert found.low < found.bytes < found.high
        assert around[0].bytes < found.bytes < around[1].bytes

    @pytest.mark.parametrize(
        "other",
        [{"deterministic": True}, {"tf32": False}, {"alignment": (4, 32, 32)}, {"dtype": "float64"}],
    )
    def test_other_switches_are_not_answered_from_it(self, other: dict[str, object]) -> None:
        with library.absent():
            assert workspace(A100, NEWEST, a_question(**other)).source == "rule"  # type: ignore[arg-type]

    def test_a_release_that_is_not_stored_is_modelled_from_the_nearest(self) -> None:
        with library.absent():
            found, known = workspace(A100, (9, 26), a_question()), workspace(A100, NEWEST, a_question())
        assert (found.source, known.source) == ("rule", "table")
        assert found.bytes == known.bytes

    def test_a_hopper_of_other_clocks_is_modelled_from_it(self) -> None:
        other = replace(H100, memory_clock_khz=3201000)
        with library.absent():
            found, known = workspace(other, NEWEST, a_question()), workspace(H100, NEWEST, a_question())
        assert (found.source, known.source) == ("rule", "table")
        assert found.bytes == known.bytes

    def test_large_turing_chips_are_asked_apart(self) -> None:
        kinds = {kind_of(card(name)) for name in ("t4", "rtx-2080", "rtx-2080-ti", "quadro-rtx-6000")}
        assert kinds == {"7.5", "7.5-large"}
        answers = [workspace_without_library(card(name), q) for name in ("t4", "titan-rtx") for q in of_resnet50(32, dtype="float16")]
        assert {a.source for a in answers} == {"table"}
        assert answers[:6] != answers[6:]

    def test_elsewhere_clocks_and_multiprocessors_do_not_count(self) -> None:
        with library.absent():
            found = workspace(replace(A100, multiprocessors=56, sm_clock_khz=1), NEWEST, a_question())
        assert found == workspace_without_library(A100, a_question())


def workspace_without_library(card: Device, question: Convolution) -> Workspace:
    with library.absent():
        return workspace(card, NEWEST, question)


class TestRule:
    @pytest.mark.parametrize("card", [H100, A100, T4, *map(card, ("quadro-rtx-6000", "rtx-5090", "gtx-1080-ti"))])
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("direction", DIRECTIONS)
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_the_expected_lies_within_the_range(self, card: Device, dtype: str, direction: Direction, channels_last: bool) -> None:
        question = a_question(direction, dtype=dtype, channels_last=channels_last)
        for found in (rule.modelled(card, question), rule.modelled(card, replace(question, tf32=False))):
            assert found.source == "rule"
            assert 0 <= found.low <= found.bytes <= found.high
            assert found.low < found.high
            assert found.trial == 0

    def test_contiguous_halves_are_copied_with_their_channels_filled_up(self) -> None:
        even, odd = plain((16, 128, 60, 60), (256, 128, 3, 3)), plain((16, 127, 60, 60), (255, 127, 3, 3))
        for question, filled in zip(odd, even, strict=True):
            if question.direction != "bwd_filter":
                assert rule.modelled(A100, replace(question, dtype="float16")).bytes == sum(replace(filled, dtype="float16").nbytes)

    def test_channels_last_halves_are_taken_as_they_lie(self) -> None:
        calls = plain((16, 128, 60, 60), (256, 128, 3, 3), dtype="float16", channels_last=True)
        assert rule.modelled(A100, calls.forward).bytes == 0

    def test_each_column_says_how_far_it_is_off(self) -> None:
        measured = rule.measured()
        assert measured.keys() == rule.trees().keys()
        for median, most, nearly, close, within in measured.values():
            assert 0 <= median <= most <= nearly
            assert 0 <= close <= 1
            assert 0.85 <= within <= 1

    @with_library
    def test_its_range_holds_most_answers_it_was_not_grown_on(self) -> None:
        rnd = random.Random(5)
        held = [
            rule.modelled(A100, q).low <= answer[0] <= rule.modelled(A100, q).high
            for _ in range(60)
            for q in random_calls(rnd)
            if (answer := library.plans(A100, NEWEST, q)) and q.tf32 and not q.deterministic
        ]
        assert len(held) > 60 and sum(held) >= 0.8 * len(held)

    def test_benchmark_tries_in_one_buffer(self) -> None:
        with library.absent():
            found = workspace(A100, (9, 99), a_question(), benchmark=True)
        assert found.low == 0
        assert found.trial == found.high >= sum(a_question().nbytes)


class TestLibrary:
    def test_a_release_that_is_not_here_is_no_error(self) -> None:
        assert library.plans(H100, (9, 8), a_question()) is None
        assert workspace(H100, (9, 8), a_question()).source == "rule"

    def test_absent_means_absent_and_ends_with_its_context(self) -> None:
        with library.absent():
            assert library.installed() is None
            assert candidates(H100, NEWEST, a_question()) == ()
        assert (library.installed() is not None) == HAS_LIBRARY

    @with_library
    def test_it_answers_what_torch_took(self) -> None:
        # seen in torch 2.14.1's own allocations on a stand-in for the CUDA runtime
        assert [workspace(H100, NEWEST, a_question(d)).bytes for d in DIRECTIONS] == [25837584, 51527827, 51822803]
        half = [workspace(H100, NEWEST, a_question(d, dtype="float16", channels_last=True)).bytes for d in DIRECTIONS]
        assert half == [131, 131, 295107]

    @with_library
    def test_an_answer_is_the_first_of_the_candidates(self) -> None:
        rnd = random.Random(1)
        for _ in range(30):
            for question in random_calls(rnd):
                every = candidates(A100, NEWEST, question)
                assert library.plans(A100, NEWEST, question) == every[:1]

    @with_library
    def test_benchmark_says_the_least_and_the_most_of_ten_and_tries_all(self) -> None:
        every = candidates(H100, NEWEST, a_question("bwd_filter"))
        found = workspace(H100, NEWEST, a_question("bwd_filter"), benchmark=True)
        assert (found.bytes, found.low, found.high, found.trial) == (every[0], min(every[:10]), max(every[:10]), max(every))

    @with_library
    def test_without_tf32_no_tensor_core_is_used(self) -> None:
        assert workspace(H100, NEWEST, a_question(tf32=False)).bytes != workspace(H100, NEWEST, a_question()).bytes
        half = a_question(dtype="float16")
        assert workspace(H100, NEWEST, replace(half, tf32=False)) == workspace(H100, NEWEST, half)

    @with_library
    def test_threads_get_the_same_answers(self) -> None:
        rnd = random.Random(2)
        questions = [q for _ in range(20) for q in random_calls(rnd)]
        alone = [library.plans(T4, NEWEST, q) for q in questions]
        library._plans.cache_clear()
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda q: library.plans(T4, NEWEST, q), questions)) == alone

    @with_library
    def test_every_descriptor_made_is_destroyed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[object] = []
        destroyed: list[object] = []
        loaded = library._loaded()

        class Counting:
            def __getattr__(self, name: str) -> object:
                return getattr(loaded, name)

            def cudnnBackendCreateDescriptor(self, kind: int, into: object) -> object:  # noqa: N802
                made.append(kind)
                return loaded.cudnnBackendCreateDescriptor(kind, into)

            def cudnnBackendDestroyDescriptor(self, descriptor: object) -> object:  # noqa: N802
                destroyed.append(descriptor)
                return loaded.cudnnBackendDestroyDescriptor(descriptor)

        monkeypatch.setattr(library, "_loaded", Counting)
        library._plans.cache_clear()
        assert library.plans(H100, NEWEST, a_question(), every=True)
        assert len(made) == len(destroyed) > 10

    @with_library
    def test_a_card_that_is_no_card_has_no_plan(self) -> None:
        class Broken:
            capability = (9, 0)
            multiprocessors = 1

            def properties(self) -> dict[str, object]:
                return {"deviceVer": "none"}

        assert library.plans(Broken(), NEWEST, a_question()) == ()

    @with_library
    def test_an_architecture_decides_and_how_many_multiprocessors_it_has_does_not(self) -> None:
        rnd = random.Random(3)
        other = replace(A100, multiprocessors=60, sm_clock_khz=900000, l2_bytes=4 << 20)
        for question in (q for _ in range(10) for q in random_calls(rnd)):
            assert library.plans(A100, NEWEST, question) == library.plans(other, NEWEST, question)


class TestErrata:
    volume = torch_calls((2, 256, 4, 4, 4), (256, 256, 3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1), dilation=(1, 1, 1), dtype="float16")

    @pytest.mark.parametrize(
        ("torch", "release", "on", "engines"),
        [
            ((2, 9), (9, 10), A100, [(), (), ()]),
            ((2, 11), (9, 10), A100, [(23,), (23,), ()]),
            ((2, 11), (9, 19), A100, [(), (23,), ()]),
            ((2, 13), (9, 20), H100, [(), (23,), ()]),
            ((2, 14), (9, 24), T4, [(), (), ()]),
            ((2, 14), (9, 24), card("rtx-5090"), [(58,), (23, 63), (63,)]),
        ],
    )
    def test_torch_passes_over_engines_by_its_version(
        self, torch: Version, release: Release, on: Device, engines: list[tuple[int, ...]]
    ) -> None:
        assert [passed_over(torch, release, on, q) for q in self.volume] == engines

    def test_of_images_torch_takes_every_engine_of_older_cards(self) -> None:
        assert not any(passed_over((2, 14), NEWEST, A100, a_question(d)) for d in DIRECTIONS)

    @with_library
    def test_what_torch_passes_over_is_no_answer(self) -> None:
        # seen in torch 2.14.1's own allocations on a stand-in for the CUDA runtime
        question = replace(self.volume.grad_input, without=(23,))
        assert workspace(A100, NEWEST, question).bytes == 5112175
        assert workspace(A100, NEWEST, self.volume.grad_input).bytes != 5112175
        every = candidates(A100, NEWEST, self.volume.grad_input)
        assert len(candidates(A100, NEWEST, question)) < len(every)

    def test_an_answer_is_stored_for_the_torch_that_the_release_comes_with(self) -> None:
        asked = torch_calls(
            (1, 256, 9, 9, 9), (256, 256, 3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1), dilation=(1, 1, 1), dtype="float16"
        )
        assert table.stored(A100, NEWEST, replace(asked.grad_input, without=(23,))) == 6645295
        assert table.stored(A100, NEWEST, asked.grad_input) is None

    @pytest.mark.parametrize(
        ("release", "torch"), [((9, 10), (2, 9)), ((9, 19), (2, 11)), ((9, 20), (2, 12)), ((9, 23), (2, 14)), ((9, 99), NEWEST_TORCH)]
    )
    def test_a_release_is_asked_for_the_torch_that_brings_it_or_a_later_one(self, release: Release, torch: Version) -> None:
        assert torch_with(release) == torch


def forget_what_is_stored() -> None:
    """So that the archives are read anew."""
    for remembered in (table.releases, table.names, table.column):
        remembered.cache_clear()


class TestWriting:
    def test_answers_that_grow_alike_become_one_formula(self) -> None:
        questions = [plain((1, 64, 56, 56), (128, 64, 3, 3)).grad_input.at_batch(n) for n in (1, 2, 4, 64)]
        assert plans._formulas(questions, [sum(q.nbytes) + 147 for q in questions]) == [(1, 1, 1, 1, 147)] * 4

    def test_a_formula_comes_to_the_answer_it_was_found_for(self) -> None:
        rnd = random.Random(6)
        for question in (q for _ in range(20) for q in random_calls(rnd)):
            answer = rnd.randrange(3 * sum(question.nbytes))
            assert [filled_bytes(question, f) for f in plans._formulas([question], [answer])] == [answer]

    @pytest.mark.parametrize("differing", [False, True])
    def test_another_releases_answers_stand_for_its_own_where_a_sample_has_no_difference(
        self, differing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name, release = "8.0/float16/channels_last", (9, 23)
        column = table.column(NEWEST, name)
        last = [q for row in plans._rows(A100, NEWEST, "float16", True) for q in row][::997][-1]

        def answer(_: object, question: Convolution) -> int | None:
            return -1 if differing and question == last else table.stored(A100, NEWEST, question)

        monkeypatch.setattr(table, "STORED", Path(copytree(table.STORED, tmp_path / "stored")))
        monkeypatch.setattr(library, "installed", lambda: release)
        monkeypatch.setattr(plans, "_answer", answer)
        try:
            plans.main(["alike", "9.24", "8.0", "--dtypes", "float16", "--every", "997"])
            forget_what_is_stored()
            assert table.column(release, name) == (None if differing else column)
        finally:
            monkeypatch.undo()
            forget_what_is_stored()

    def test_a_tree_splits_where_the_answer_changes(self) -> None:
        calls = [plain((4, ins, 20, 20), (32, ins, 3, 3)).forward for ins in range(2, 66)]
        tree = trees.grown([(q, q.nbytes[0] if q.w[1] > 33 else 0) for q in calls])
        assert [rule.FEATURES[tree[0]], tree[1]] == ["in", 33]
        assert tree[2][:4] == [0, 0, 0, 1]
        assert tree[3][:4] == [1, 0, 0, 1]
