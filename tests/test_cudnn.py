"""cuDNN's choice of plans: what torch asks, who answers, and that answers agree."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import pytest

from memest.libraries.cudnn import Convolution, candidates, library, suggests_channels_last, torch_calls, workspace
from memest.libraries.cudnn.question import DIRECTIONS, DTYPES, Direction
from memest.network.tensor import spec

NEWEST = (9, 24)
HAS_LIBRARY = library.installed() is not None
with_library = pytest.mark.skipif(library.installed() != NEWEST, reason="needs nvidia-cudnn 9.24")


@dataclass(frozen=True)
class Card:
    """A card as cuDNN is told of it."""

    capability: tuple[int, int]
    multiprocessors: int = 132
    sm_clock_khz: int = 1980000
    memory_clock_khz: int = 2619000

    def properties(self) -> dict[str, object]:
        major, minor = self.capability
        return {
            "cudaDeviceId": 0,
            "deviceVer": 100 * major + 10 * minor,
            "driverVer": 13000,
            "isTccDriver": 0,
            "l2CacheSize": 52428800,
            "maxCtasPerSM": 32,
            "maxRegistersPerSM": 65536,
            "maxSharedMemoryPerBlock": 49152,
            "maxSharedMemoryPerBlockOptin": 232448,
            "reservedSharedMemoryPerBlock": 1024,
            "maxThreadsPerBlock": 1024,
            "maxThreadsPerSM": 2048,
            "memClockRateKHz": self.memory_clock_khz,
            "multiProcessorCount": self.multiprocessors,
            "pciDeviceId": 0,
            "regsPerBlock": 65536,
            "smClockRateKHz": self.sm_clock_khz,
            "supportCoopLaunch": 1,
            "totalGlobalMem": 85000000000,
            "warpSize": 32,
            "maxGridSize": [2147483647, 65535, 65535],
            "maxBlockSize": [1024, 1024, 64],
            "deviceName": "a card",
        }


H100, A100, T4 = Card((9, 0)), Card((8, 0)), Card((7, 5))
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


class TestRule:
    @pytest.mark.parametrize("card", [H100, A100, T4])
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("direction", DIRECTIONS)
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_the_expected_lies_within_the_range(self, card: Card, dtype: str, direction: Direction, channels_last: bool) -> None:
        with library.absent():
            found = workspace(card, (9, 99), a_question(direction, dtype=dtype, channels_last=channels_last))
        assert found.source == "rule"
        assert 0 <= found.low <= found.bytes <= found.high
        assert found.trial == 0

    def test_contiguous_operands_of_tensor_cores_are_copied_with_their_channels_filled_up(self) -> None:
        with library.absent():
            even = workspace(A100, (9, 99), a_question())
            odd = workspace(A100, (9, 99), plain((32, 61, 56, 56), (61, 61, 3, 3)).forward)
        assert even.bytes == odd.bytes == sum(a_question().nbytes)

    def test_channels_last_operands_are_copied_only_where_channels_do_not_fill_vectors(self) -> None:
        with library.absent():
            even = workspace(A100, (9, 99), a_question(channels_last=True))
            odd = workspace(A100, (9, 99), plain((32, 61, 56, 56), (64, 61, 3, 3), channels_last=True).forward)
        assert even.bytes == 0
        assert odd.bytes == a_question().nbytes[0] + a_question().nbytes[1]

    def test_benchmark_tries_in_one_buffer(self) -> None:
        with library.absent():
            found = workspace(A100, (9, 99), a_question(), benchmark=True)
        assert found.trial == found.high


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
        @dataclass(frozen=True)
        class Broken(Card):
            def properties(self) -> dict[str, object]:
                return {"deviceVer": "none"}

        assert library.plans(Broken((9, 0)), NEWEST, a_question()) == ()

    @with_library
    def test_an_architecture_decides_and_how_many_multiprocessors_it_has_does_not(self) -> None:
        rnd = random.Random(3)
        other = replace(A100, multiprocessors=60, sm_clock_khz=900000)
        for question in random_calls(rnd):
            assert json.dumps(library.plans(A100, NEWEST, question)) == json.dumps(library.plans(other, NEWEST, question))
