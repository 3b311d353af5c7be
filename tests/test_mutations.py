"""Files that went wrong by accident: bytes flipped, keys deleted, types swapped. Each gives an estimate or one clean error, soon."""

from __future__ import annotations

import copy
import json
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from memest.errors import MemestError
from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.sources import files as schema

DATA = Path(__file__).parent / "data"
SEED = 20240607
SECONDS = 20
FILES = ("mutable.yaml", "mutable.json")
SHAPES = {"x": (2, 3, 32, 32), "y": (2, 1, 16, 16)}
CPU = Cpu()
ODD = (None, True, -1, 0, 10**12, 1.5, float("nan"), "", "x", "=H", "$w", "N", [], [[]], [1, "a"], {}, {"a": 1}, "relu", [3, 3, 3, 3])


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def expired(_: Any, __: Any) -> None:
        raise TimeoutError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _answer(raw: bytes, form: str) -> str:
    """``estimate``, or the class of the clean error; anything else is raised."""
    try:
        with _time_limit(SECONDS):
            graph = schema.loads(raw, form=form, source="net")
            shapes = {i.name: SHAPES.get(i.name, SHAPES["x"]) for i in graph.inputs}
            peak = estimate(graph, input_shape=shapes, mode="train", optimizer="adam", loss="mse", machine=CPU).peak_bytes
    except MemestError as e:
        text = str(e)
        assert text and "\n" not in text, text
        assert "please report" not in text, text
        return type(e).__name__
    assert type(peak) is int and peak > 0
    return "estimate"


def _flipped(raw: bytes, r: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(r.choice((1, 1, 2, 5))):
        changed[r.randrange(len(changed))] ^= 1 << r.randrange(8)
    return bytes(changed)


def _cut(raw: bytes, r: random.Random) -> bytes:
    start = r.randrange(len(raw))
    return raw[:start] + raw[start + r.choice((1, 1, 3, 20, len(raw))) :]


def _doubled(raw: bytes, r: random.Random) -> bytes:
    lines = raw.split(b"\n")
    i = r.randrange(len(lines))
    lines.insert(r.randrange(len(lines)), lines[i])
    return b"\n".join(lines)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of nested data."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        found.append((value, key))
        found.extend(_places(inner))
    return found


def _in_data(change: Callable[[Any, Any, random.Random], None]) -> Callable[[Any, random.Random], Any]:
    def changed(data: Any, r: random.Random) -> Any:
        data = copy.deepcopy(data)
        container, key = r.choice(_places(data))
        change(container, key, r)
        return data

    return changed


def _delete(container: Any, key: Any, r: random.Random) -> None:
    del container[key]


def _swap(container: Any, key: Any, r: random.Random) -> None:
    container[key] = r.choice(ODD)


def _rename(container: Any, key: Any, r: random.Random) -> None:
    if isinstance(container, dict):
        container[r.choice(("in", "out", "name", "shape", "relu", "conv2d", key[:-1], f"{key}s"))] = container.pop(key)
    else:
        container.append(container[key])


TEXT_CHANGES = (_flipped, _cut, _doubled)
DATA_CHANGES = tuple(_in_data(change) for change in (_delete, _swap, _rename))


def _mutants(count: int, seed: int) -> Iterator[tuple[str, bytes, str]]:
    """(how, text, form): half of them mistakes in the text, half in the data it stands for."""
    r = random.Random(seed)
    sources = [(name.rpartition(".")[2], (DATA / name).read_bytes()) for name in FILES]
    data = json.loads(dict(sources)["json"])
    for i in range(count):
        form, raw = sources[i % 2]
        if i % 4 < 2:
            yield f"{i}", r.choice(TEXT_CHANGES)(raw, r), form
        else:
            yield f"{i}", json.dumps(r.choice(DATA_CHANGES)(data, r)).encode(), "json"


def _check(count: int, seed: int) -> None:
    seen: dict[str, int] = {}
    for how, raw, form in _mutants(count, seed):
        try:
            answer = _answer(raw, form)
        except Exception as e:
            pytest.fail(f"mutant {how} (seed {seed}): {type(e).__name__}: {e}\n{raw.decode(errors='replace')}")
        seen[answer] = seen.get(answer, 0) + 1
    assert seen.get("estimate", 0) > count // 50, seen
    assert seen.get("FileError", 0) + seen.get("GraphError", 0) > count // 5, seen


@pytest.mark.parametrize("name", FILES)
def test_the_files_themselves_are_valid(name: str) -> None:
    assert _answer((DATA / name).read_bytes(), name.rpartition(".")[2]) == "estimate"


def test_a_few_mutants() -> None:
    _check(300, SEED)


@pytest.mark.slow
def test_two_thousand_mutants() -> None:
    _check(2000, SEED + 1)
