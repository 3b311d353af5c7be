"""A published run as memest plays it.

The loop of both repositories at the time (torch 1.3 to 1.7): DistributedDataParallel with its own buckets, whose buffers are not sent
round, gradients zeroed in place, SGD with momentum parameter by parameter, in mmaction2 after clipping by the loop. cuBLAS took its
workspace from the driver then.
"""

from __future__ import annotations

import memest
from memest.estimate.estimate import Estimate
from memest.network.graph import Graph
from validation.published.rows import Run

CARDS = ("v100-32gb", "t4", "a100-40gb")
OPTIMIZER = "sgd:momentum=0.9,weight_decay=0.0001,foreach=false"
DDP = "ddp:broadcast_buffers=false"
CLIP = "clip:norm=40,foreach=false"


def graph_of(run: Run) -> Graph:
    """The network, recorded with its labels where it takes them."""
    import torch

    module = run.build().train()
    images = torch.empty(run.shape, device="meta")
    if not run.segments:
        return memest.from_torch(module, images, name=run.name, mode="train")
    labels = torch.empty(run.shape[0], *run.shape[2:], dtype=torch.int64, device="meta")
    return memest.from_torch(module, [images, labels], name=run.name, mode="train")


def predicted(graph: Graph, run: Run, card: str, torch: str = "2.14") -> Estimate:
    """Its training step on a card."""
    shapes = {i.name: i.shape for i in graph.inputs}
    if run.segments:
        images, labels = shapes
        given = {images: run.shape, labels: (run.shape[0], *run.shape[2:])}
    else:
        given = dict.fromkeys(shapes, run.shape)
    return memest.estimate(
        graph,
        input_shape=given,
        optimizer=OPTIMIZER,
        loss="output" if run.segments else "cross_entropy",
        keep_grads=True,
        levers=[DDP] if run.segments else [DDP, CLIP],
        cublas_workspace=":0:0",
        machine=card,
        torch=torch,
    )
