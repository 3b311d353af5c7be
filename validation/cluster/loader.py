"""One process that reads a data loader, as anybody writes it; nothing of memest. Run by path, the case as JSON in the argument.

Prints a line of JSON when all is made (the parent's memory then), and one at the end of its epochs; waits for a line before it goes.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from validation.cluster.rank import home_of, memory, reset

PAUSE = 0.25  # so that all that may be fetched ahead is


class Made(Dataset[Any]):
    """Samples made when they are asked for: a tensor, an array, or a list of two tensors; each with a label. ``collected`` ones come with
    a garbage collection each, which writes to all of Python's objects, as long epochs do sooner or later."""

    def __init__(self, kind: str, shape: list[int], size: int) -> None:
        self.kind, self.shape, self.size = kind, shape, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        if self.kind == "collected":
            gc.collect()
        if self.kind == "numpy":
            return np.full(self.shape, index, dtype=np.float32), index
        if self.kind == "list":
            half = [self.shape[0] // 2, *self.shape[1:]]
            return [torch.full(half, float(index)), torch.full(half, float(index))], index
        return torch.full(self.shape, float(index)), index


def dataset_of(case: dict[str, Any]) -> Dataset[Any]:
    """The data of a case."""
    size = case["batch"] * case["batches"]
    if case["kind"] == "stored":
        return TensorDataset(torch.rand(size, *case["shape"]), torch.zeros(size, dtype=torch.int64))
    return Made(case["kind"], case["shape"], size)


def main() -> None:
    """The case's epochs."""
    case = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    module: nn.Module | None = None
    if case["model"]:
        home, _, name = case["model"].rpartition(":")
        module = getattr(home_of(home), name)().train()
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        loss_fn = nn.CrossEntropyLoss()
    workers = case["workers"]
    several = {"prefetch_factor": case["prefetch"], "persistent_workers": case["persistent"], "multiprocessing_context": case["start"]}
    loader: DataLoader[Any] = DataLoader(
        dataset_of(case), batch_size=case["batch"], num_workers=workers, pin_memory=case["pin"], **(several if workers else {})
    )
    gc.collect()
    print(json.dumps(memory()), flush=True)
    steps = []
    for _ in range(case["epochs"]):
        reset()
        for x, y in loader:
            if module is not None:
                optimizer.zero_grad(set_to_none=True)
                loss_fn(module(x), y).backward()
                optimizer.step()
            else:
                float(x[0].sum() if isinstance(x, list) else x.sum())
            time.sleep(PAUSE)
        steps.append(memory())
    print(json.dumps(steps), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
