"""One step of a Keras model measured, in a process of its own: ``python -m validation.engines.tensorflow.probe NETWORK SHAPE MODE OPTIMIZER
ONEDNN THREADS LOG``, JSON.

Runs where tensorflow is installed; knows nothing of memest. The log of TensorFlow's tensors goes to the file LOG (``-``: it is not
written). THREADS is for both pools, 0 leaves them as they are. SHAPE is channels last with the batch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from validation.engines.tensorflow.networks import is_binary, model_of

STEPS = 3
L3 = 194  # _SC_LEVEL3_CACHE_SIZE of glibc, which Python has no name for


def status() -> dict[str, int]:
    """Bytes resident: now, at most, of files."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM", "RssAnon", "RssFile"):
            found[name] = int(value.split()[0]) * 1024
    return found


def mark(text: str) -> None:
    """A line of ours in the log."""
    print(f"#MARK {text}", file=sys.stderr, flush=True)


def main(network: str, shape: str, mode: str, optimizer: str, onednn: str, threads: str, log: str) -> dict[str, Any]:
    """What is measured."""
    os.environ |= {"TF_ENABLE_ONEDNN_OPTS": str(int(onednn == "on")), "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_MAX_VLOG_LEVEL": "0"}
    if log != "-":
        os.environ["TF_CPP_VMODULE"] = "log_memory=2"
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    import keras
    import numpy as np
    import tensorflow as tf

    if int(threads):
        tf.config.threading.set_inter_op_parallelism_threads(int(threads))
        tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    base = status()
    dims = tuple(map(int, shape.split("x")))
    model = model_of(network, dims, keras)
    found: dict[str, Any] = {"tensorflow": tf.__version__, "keras": keras.__version__, "config": json.loads(model.to_json()), "base": base}
    rng = np.random.default_rng(0)
    images = rng.random(dims, dtype="float32")
    steps: list[dict[str, Any]] = []
    if mode == "train":
        segments = is_binary(network)
        target = rng.integers(0, 2, (*dims[:-1], 1)).astype("float32") if segments else rng.integers(0, 10, dims[:1])
        loss = "binary_crossentropy" if segments else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}
        chosen = keras.optimizers.SGD(momentum=0.9) if optimizer == "momentum" else made[optimizer]()
        model.compile(optimizer=chosen, loss=loss, jit_compile=False)
    found["built"] = status()
    for step in range(STEPS):
        if onednn == "on":
            tf.config.experimental.reset_memory_stats("CPU:0")
        mark(f"begin {step}")
        model.train_on_batch(images, target) if mode == "train" else model.predict_on_batch(images)
        mark(f"end {step}")
        arena = tf.config.experimental.get_memory_info("CPU:0") if onednn == "on" else {}
        steps.append({**status(), "arena": arena})
    found["steps"] = steps
    found["l3"] = os.sysconf(L3)
    found["used"] = int(threads) or len(os.sched_getaffinity(0))
    return found


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
