"""The numbers of the process's model (memest/runtimes/tensorflow/process.json), from all stored measurements that were not held out."""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np

import memest
from memest.runtimes.tensorflow.memory import Step
from memest.runtimes.tensorflow.process import DATA, kind_of, terms_of, touched_of
from validation.engines.tensorflow.comparing import asked, imported
from validation.engines.tensorflow.storing import load


def calibrate() -> dict[str, Any]:
    """Write the numbers, and return them: for training and inference, with oneDNN and without, a base, bytes for each node, and the share
    of the largest filter's gradient that oneDNN takes beside it."""
    _, configs, records = load()
    rows: dict[str, list[tuple[dict[str, int], int, int]]] = {}
    for record in (r for r in records if r["steps"] and not r["held"]):
        name = f"{record['network']} {'x'.join(map(str, record['shape']))}"
        estimate = memest.estimate(imported(configs[name], record["shape"]), **asked(record))
        step = estimate.timeline
        assert isinstance(step, Step)
        resident = max(each["VmHWM"] for each in record["steps"])
        tensors = touched_of(step, record["onednn"])
        rows.setdefault(kind_of(step, record["onednn"]), []).append((terms_of(step, record["onednn"]), tensors, resident))
    found: dict[str, Any] = {}
    shares: list[float] = []
    for kind, of in sorted(rows.items()):
        names = list(of[0][0])
        weights = np.array([1 / resident for *_, resident in of])  # shares of the process count, not bytes
        terms = np.array([[float(times[name]) for name in names] for times, *_ in of]) * weights[:, None]
        besides = np.array([float(resident - tensors) for _, tensors, resident in of]) * weights
        numbers = np.linalg.lstsq(terms, besides, rcond=None)[0]
        found[kind] = {name: round(float(number), 2) for name, number in zip(names, numbers, strict=True)}
        shares += [abs(float(off)) for off in terms @ numbers - besides]
    found |= {"cases": len(shares), "median": round(statistics.median(shares), 4), "worst": round(max(shares), 4)}
    DATA.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found
