"""Grows the decision trees by which memest models cuDNN's workspace where cuDNN cannot be asked, and measures how far they are off.

    python -m validation.cuda.trees            # needs nvidia-cudnn 9.24 and numpy; writes memest/libraries/cudnn/rule.json
    python -m validation.cuda.trees 7.0        # with nvidia-cudnn-cu12 9.10, the last with kernels for Volta

Random convolutions are asked for each kind of card, dtype and layout; a third of them is kept from the trees and measures them. A leaf
holds the copies with the least error over its convolutions, and the range of 98 % of them.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.libraries.cudnn import library, rule
from memest.libraries.cudnn.question import DIRECTIONS, Convolution, torch_calls
from memest.libraries.cudnn.workspace import Formula, column_name, filled_bytes
from memest.machines.devices import device_named
from validation.cuda.plans import CARDS, STORED_DTYPES

CALLS = 500
CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 31, 32, 33, 48, 64, 96, 100, 128, 192, 256, 320, 512, 513, 1024)
MOST_BYTES = 2**31
LEAST_IN_LEAF, MOST_LEVELS = 20, 9
UNITS, EACH = (1, 4, 8), ((1, 0, 0), (0, 1, 0), (0, 0, 1))
COPIES: list[Formula] = [(i, j, k, unit, 0) for unit, i, j, k in product(UNITS, range(3), range(4), range(3))]
Numbers = NDArray[Any]


def main(kinds: Sequence[str]) -> int:
    """Ask, grow, measure, write: for these kinds of card, or all; the trees of others stay."""
    release = library.installed()
    if release is None:
        print("no cuDNN is installed that could be asked", file=sys.stderr)
        return 1
    read = json.loads(rule.RULE.read_text(encoding="utf-8")) if rule.RULE.is_file() else {"releases": {}, "measured": {}, "trees": {}}
    for kind, dtype, last in product(kinds or CARDS, STORED_DTYPES, (False, True)):
        name = column_name(kind, dtype, last)
        device = device_named(CARDS[kind])
        assert device is not None
        rnd = random.Random(name)
        asked = [(q, library.plans(device, release, q)) for _ in range(CALLS) for q in random_calls(rnd, dtype, last)]
        answered = [(q, a[0]) for q, a in asked if a]
        if not answered:  # an architecture without this dtype
            continue
        known, kept = answered[: len(answered) * 2 // 3], answered[len(answered) * 2 // 3 :]
        trees: dict[str, Any] = {d: grown([p for p in known if p[0].direction == d]) for d in DIRECTIONS}
        found = {"releases": f"{release[0]}.{release[1]}", "measured": errors(trees, kept), "trees": trees}
        for part, value in found.items():
            read[part][name] = value
        print(name, len(answered), read["measured"][name], flush=True)
    rule.RULE.write_text(json.dumps(read, separators=(",", ":")) + "\n", encoding="utf-8")
    return 0


def random_calls(rnd: random.Random, dtype: str, channels_last: bool) -> list[Convolution]:
    """What a random layer asks, of those that torch brings to cuDNN."""
    while True:
        dims = rnd.choice((2, 2, 2, 2, 3, 3) if channels_last else (1, 2, 2, 2, 2, 3, 3))
        groups = rnd.choice((1, 1, 1, 1, 1, 2, 4, 8, 0))
        ins, outs = rnd.choice(CHANNELS), rnd.choice(CHANNELS)
        if groups == 0:
            groups, outs = ins, ins * rnd.choice((1, 1, 2))
        ins, outs = -(-ins // groups) * groups, -(-outs // groups) * groups
        kernel = [rnd.choice((1, 1, 2, 3, 3, 3, 3, 4, 5, 7, 9)) for _ in range(dims)]
        if rnd.random() < 0.8:
            kernel = kernel[:1] * dims
        sizes = [rnd.randint(4, {1: 2000, 2: 200, 3: 48}[dims]) for _ in range(dims)]
        if rnd.random() < 0.6:
            sizes = sizes[:1] * dims
        stride, dilation = [rnd.choice((1, 1, 1, 2, 2, 3))] * dims, [rnd.choice((1, 1, 1, 1, 2, 3))] * dims
        transposed = rnd.random() < 0.15
        calls = torch_calls(
            [rnd.choice((1, 1, 2, 3, 4, 7, 8, 16, 32, 64)), ins, *sizes],
            [ins, outs // groups, *kernel] if transposed else [outs, ins // groups, *kernel],
            stride=stride,
            padding=[rnd.choice((0, (k - 1) * d // 2, (k - 1) * d // 2)) for k, d in zip(kernel, dilation, strict=True)],
            dilation=dilation,
            transposed=transposed,
            output_padding=[rnd.randint(0, s - 1) if transposed else 0 for s in stride],
            groups=groups,
            dtype=dtype,
            channels_last=channels_last,
        )
        question = calls.forward
        native = 1 < groups == ins and not (channels_last or transposed or dtype == "float16")
        if min(*question.x, *question.y) >= 1 and max(question.nbytes) <= MOST_BYTES and not native:
            return list(calls)


def grown(answered: Sequence[tuple[Convolution, int]]) -> Any:
    """A tree for these questions of one direction and their answers."""
    values = np.array([rule.features(q) for q, _ in answered], dtype=np.int64)
    totals = np.array([sum(q.nbytes) for q, _ in answered], dtype=float)
    answers = np.array([a for _, a in answered], dtype=float)
    sizes = {u: np.array([[filled_bytes(q, (*one, u, 0)) for one in EACH] for q, _ in answered], dtype=float) for u in UNITS}
    off = np.stack([sizes[unit] @ np.array(copies, dtype=float) for *copies, unit, _ in COPIES], axis=1)
    return _grown(values, np.abs(off - answers[:, None]) / totals[:, None], answers / totals, MOST_LEVELS)


def _grown(values: Numbers, off: Numbers, ratios: Numbers, levels: int) -> Any:
    split = _best_split(values, off) if levels and len(values) >= 2 * LEAST_IN_LEAF else None
    if split is None:
        low, high = np.quantile(ratios, (0.01, 0.99))
        return [*COPIES[int(off.sum(0).argmin())][:4], int(1000 * low), int(-(-1000 * high // 1))]
    feature, most = split
    below = values[:, feature] <= most
    sides = [_grown(values[s], off[s], ratios[s], levels - 1) for s in (below, ~below)]
    return [feature, most, *sides] if sides[0] != sides[1] else sides[0]


def _best_split(values: Numbers, off: Numbers) -> tuple[int, int] | None:
    least, best = 0.98 * off.sum(0).min() - 0.2, None
    for feature in range(values.shape[1]):
        order = np.argsort(values[:, feature], kind="stable")
        column, sums = values[order, feature], np.cumsum(off[order], axis=0)
        both = sums[:-1].min(1) + (sums[-1] - sums[:-1]).min(1)
        allowed = column[:-1] != column[1:]
        allowed[: LEAST_IN_LEAF - 1] = allowed[len(allowed) - LEAST_IN_LEAF + 1 :] = False
        both = np.where(allowed, both, np.inf)
        at = int(both.argmin())
        if both[at] < least:
            least, best = float(both[at]), (feature, int(column[at]))
    return best


def errors(trees: dict[str, Any], kept: Sequence[tuple[Convolution, int]]) -> list[float]:
    """Of the questions kept back: the median, the 90th and the 95th percentile of the error as a part of the operands' bytes, the part of
    answers expected within 1 % of them, the part that lies in the range."""
    off, within = [], 0
    for question, answer in kept:
        *copies, low, high = rule.leaf(trees[question.direction], rule.features(question))
        expected = filled_bytes(question, (copies[0], copies[1], copies[2], copies[3], 0))
        total = sum(question.nbytes)
        off.append(abs(expected - answer) / total)
        within += min(expected, total * low // 1000) <= answer <= max(expected, total * high // 1000)
    median, most, nearly = np.quantile(off, (0.5, 0.9, 0.95))
    close = float(np.mean(np.array(off) <= 0.01))
    return [round(float(v), 3) for v in (median, most, nearly, close, within / len(kept))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
