"""One rank of a data-parallel run, as anybody writes it: torch, torchvision or the twins of ``validation.networks``, and nothing of memest.

Run by path, with torch's own environment variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) and the case as JSON in the argument;
WORLD_SIZE of 1 is the network alone. Prints one line of JSON: resident memory when all is made, and of each step the most (VmHWM after
``clear_refs``).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

KIB = 1024
STEPS = 3
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def memory() -> dict[str, int]:
    """Resident bytes of this process by kind, and the most since the mark was reset."""
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if ":" in line)
    return {name: int(found[f"Vm{name}" if name in ("HWM", "RSS") else name].split()[0]) * KIB for name in KINDS}


KINDS = ("HWM", "RSS", "RssAnon", "RssFile", "RssShmem")


def mapped() -> dict[str, int]:
    """Resident bytes of each mapped file, pages that were written to left out (they are anonymous)."""
    found: dict[str, int] = {}
    path, rss = "", 0
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        head, _, rest = line.partition(" ")
        if "-" in head and not head.endswith(":"):
            path = line.split(None, 5)[5] if len(line.split(None, 5)) == 6 else ""
        elif head == "Rss:":
            rss = int(rest.split()[0]) * KIB
        elif head == "Anonymous:" and path.startswith("/"):
            found[path] = found.get(path, 0) + rss - int(rest.split()[0]) * KIB
    return {path: size for path, size in found.items() if size}


def reset() -> None:
    """The high water mark begins anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def home_of(name: str) -> ModuleType:
    """A module by its name; torchvision also where its compiled operators do not load, which its networks do not need."""
    try:
        return importlib.import_module(name)
    except RuntimeError:
        for loaded in [loaded for loaded in sys.modules if loaded.startswith("torchvision")]:
            del sys.modules[loaded]
        for operator in ("nms", "qnms"):
            LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module(name)


def made(case: dict[str, Any]) -> tuple[nn.Module, torch.Tensor]:
    """The module and its input."""
    home, _, name = case["model"].rpartition(":")
    torch.manual_seed(0)
    module = getattr(home_of(home), name)(**case["arguments"])
    return module.train(), torch.rand(*case["shape"])


def optimizer_of(case: dict[str, Any], module: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum, or Adam."""
    if case["optimizer"] == "adam":
        return torch.optim.Adam(module.parameters(), lr=1e-3)
    return torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)


def main() -> None:
    """The case's steps."""
    case, world = json.loads(sys.argv[1]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(case["threads"])
    bare = memory()
    module, x = made(case)
    loss_fn: nn.Module
    if case["loss"] == "cross_entropy":
        loss_fn, target = nn.CrossEntropyLoss(), torch.zeros(x.shape[0], dtype=torch.int64)
    else:
        loss_fn, target = nn.BCELoss(), torch.rand(x.shape[0], 1, *x.shape[2:])
    model: nn.Module = module
    if world > 1:
        import torch.distributed as dist

        dist.init_process_group("gloo")
        model = nn.parallel.DistributedDataParallel(module)
    optimizer = optimizer_of(case, module)
    gc.collect()
    ready, steps = memory(), []
    standing = sum(t.untyped_storage().nbytes() for t in (*module.parameters(), *module.buffers(), x, target))
    for _ in range(STEPS):
        if world > 1:
            dist.barrier()
        reset()
        optimizer.zero_grad(set_to_none=True)
        loss_fn(model(x), target).backward()
        optimizer.step()
        if world > 1:
            dist.barrier()
        steps.append(memory())
    print(json.dumps({"bare": bare, "ready": ready, "standing": standing, "steps": steps, "files": mapped()}), flush=True)
    sys.stdin.readline()  # the others are read, too, while all are there
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
