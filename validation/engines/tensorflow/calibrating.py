"""The numbers of the process's model (memest/runtimes/tensorflow/process.json), from all stored measurements that were not held out."""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np

import memest
from memest.runtimes.tensorflow.process import DATA, touched_of
from memest.runtimes.tensorflow.runtime import Played
from validation.engines.tensorflow.comparing import asked, imported
from validation.engines.tensorflow.storing import load


def calibrate() -> dict[str, Any]:
    """Write the numbers, and return them: a base, bytes for each trained variable and for each node, of training and of inference."""
    _, configs, records = load()
    found: dict[str, Any] = {}
    off: list[float] = []
    known = [r for r in records if not r["held"]]
    for mode in ("train", "infer"):
        for onednn in ("on", "off"):
            rows, besides = [], []
            for record in (r for r in known if (r["mode"], r["onednn"]) == (mode, onednn)):
                name = f"{record['network']} {'x'.join(map(str, record['shape']))}"
                estimate = memest.estimate(imported(configs[name], record["shape"]), **asked(record))
                stream = estimate.timeline
                assert isinstance(stream, Played)
                resident = max(step["VmHWM"] for step in record["steps"])
                tensors = touched_of(stream, estimate.allocated, onednn)
                rows.append((1.0, float(stream.nodes), tensors, resident))
                besides.append(float(resident - tensors))
            terms = np.array([row[:2] for row in rows])
            (base, node), *_ = np.linalg.lstsq(terms, np.array(besides), rcond=None)
            found[f"{mode}_{onednn}"] = {"base": round(base), "node": round(node), "cases": len(rows)}
            off += [(base + node * nodes + tensors) / resident - 1 for _, nodes, tensors, resident in rows]
    shares = [abs(o) for o in off]
    found |= {"cases": len(off), "median": round(statistics.median(shares), 4), "worst": round(max(shares), 4)}
    DATA.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found
