"""The numbers of the process's model (memest/runtimes/openvino/process.json), from all stored measurements that are as usual."""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np

import memest
from memest.runtimes.openvino.process import DATA, Compiled
from validation.engines.openvino.comparing import DTYPES
from validation.engines.openvino.measuring import Variant, variant_of
from validation.engines.openvino.storing import load


def calibrate() -> dict[str, Any]:
    """Write the numbers, and return them."""
    _, graphs, records = load()
    read = {name: memest.loads(text) for name, text in graphs.items()}
    rows: list[tuple[Compiled, int, dict[str, Any]]] = []
    for record in (r for r in records if variant_of(r) == Variant(precision=r["precision"], threads=r["threads"])):
        asked = memest.estimate(
            read[record["network"]], input_shape=tuple(record["shape"]), mode="infer", runtime="openvino",
            machine=memest.Cpu(threads=record["threads"]), dtype=DTYPES[record["precision"]],
        )  # fmt: skip
        stream = asked.timeline
        assert isinstance(stream, Compiled) and asked.reserved.bytes is not None
        rows.append((stream, asked.reserved.bytes, record))
    base = round(statistics.median(r["base"] for *_, r in rows))
    reading = round(statistics.median(r["read"] - r["base"] - 2 * s.weights for s, _, r in rows))
    known = [(s, p + s.weights + s.packed + s.caller, r) for s, p, r in rows]
    late = [(s, standing, r) for s, standing, r in known if r["peak"] > r["read"]]
    terms = np.array([[1.0, float(s.nodes)] for s, *_ in late])
    besides = np.array([float(r["peak"] - r["base"] - standing) for _, standing, r in late])
    (running, node), *_ = np.linalg.lstsq(terms, besides, rcond=None)
    off, shares = [], []
    for s, standing, r in known:
        nbytes = base + round(max(reading + 2 * s.weights, standing + running + node * s.nodes))
        off.append(r["peak"] - nbytes)
        shares += [abs(nbytes / r["peak"] - 1)] if r["peak"] >= 200 << 20 else []
    found: dict[str, Any] = {
        "base": base, "reading": reading, "running": round(running), "node": round(node),
        "below": max(0, -min(off)), "above": max(0, *off), "cases": len(rows),
        "median": round(statistics.median(shares), 4), "worst": round(max(shares), 4),
    }  # fmt: skip
    DATA.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found
