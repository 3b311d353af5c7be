"""One process that runs a network's steps, as one writes it: what the system shows of it before, at most in each step, and after.

A program of its own (``python measuring.py '{"model": …}'``) that imports torch and the network's package and nothing else; it prints one
line of JSON. The most resident bytes of a step are ``VmHWM`` after ``5 > /proc/self/clear_refs``.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

STEPS = 3
ON_FAULT = 1
KEPT: list[Any] = []
KEYS = {"VmRSS": "rss", "RssAnon": "anon", "RssFile": "file", "VmHWM": "most"}


def status() -> dict[str, int]:
    """What the system shows, in bytes."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name in KEYS:
            found[KEYS[name]] = int(rest.split()[0]) * 1024
    return found


def forget() -> None:
    """The high-water mark begins anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def hold() -> None:
    """Pages of files that were touched stay: a machine short of memory would take them back amid a step. Nothing is touched for it."""
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, *_, path = line.split(maxsplit=5)
        if path.startswith("/"):
            start, end = (int(n, 16) for n in span.split("-"))
            libc.mlock2(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ON_FAULT)


def in_thread(what: Callable[[], None], thread: str, worker: Any) -> None:
    """Called from this thread, from the one ``worker``, or from a fresh one."""
    if thread == "main":
        what()
    elif thread == "worker":
        worker.submit(what).result()
    else:
        fresh = threading.Thread(target=what)
        fresh.start()
        fresh.join()


def built(text: str) -> Any:
    """The module of ``package.module:callable(arguments)``."""
    home, _, call = text.partition(":")
    name, _, arguments = call.partition("(")
    return eval(f"made({arguments}", {"made": getattr(home_of(home), name)})


def home_of(name: str) -> Any:
    """A module by its name; torchvision's also where its compiled operators do not load, which these networks do not need."""
    import torch

    try:
        return import_module(name)
    except RuntimeError:
        for loaded in [loaded for loaded in sys.modules if loaded.startswith("torchvision")]:
            del sys.modules[loaded]
        KEPT.append(torch.library.Library("torchvision", "FRAGMENT"))
        for operator in ("nms", "qnms"):
            KEPT[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return import_module(name)


def stepper(case: dict[str, Any]) -> Callable[[], None]:
    """One step of the case, ready to run."""
    import torch

    module = built(case["model"])
    x = torch.rand(case["shape"])
    if case["mode"] == "infer":
        module.eval()
        kept: list[Any] = []

        def infer() -> None:
            kept.clear()
            with torch.no_grad():
                kept.append(module(x))

        return infer
    module.train()
    from torch.nn import functional

    name, _, options = case["optimizer"].partition(":")
    made = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    optimizer = made(module.parameters(), **{key: float(value) for key, value in (o.split("=") for o in options.split(",") if o)})
    target = torch.zeros(case["target"]) if case["loss"] == "mse" else torch.zeros(case["target"], dtype=torch.int64)
    loss_of = getattr(functional, {"mse": "mse_loss", "cross_entropy": "cross_entropy"}[case["loss"]])

    def train() -> None:
        optimizer.zero_grad()
        output = module(x)
        loss = loss_of(output["out"] if isinstance(output, dict) else output, target)
        del output
        loss.backward()
        optimizer.step()

    return train


def main() -> int:
    """Run the case that the first argument describes."""
    case = json.loads(sys.argv[1])
    from concurrent.futures import ThreadPoolExecutor

    import torch

    torch.set_num_threads(case.get("threads", 2))
    worker = ThreadPoolExecutor(1) if case.get("thread") == "worker" else None
    step = stepper(case)
    hold()
    found: dict[str, Any] = {"ready": status(), "steps": []}
    for _ in range(STEPS):
        forget()
        in_thread(step, case.get("thread", "main"), worker)
        found["steps"].append(status())
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
