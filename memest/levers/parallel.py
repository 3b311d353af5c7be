"""``ddp``, ``fsdp`` and ``zero``: several processes train one network. An estimate with one of them speaks of one rank: the input shape is
that rank's own batch.

``zero:stage=1`` is ZeroRedundancyOptimizer over DistributedDataParallel; stages 2 and 3 are FSDP2 without and with resharding after
forward, which is what torch offers for them.
"""

from __future__ import annotations

from dataclasses import replace

from memest.errors import UnsupportedError, UsageError
from memest.levers.checks import choice, flag, positive, words
from memest.levers.lever import Lever, Option, Options
from memest.network.graph import Graph, Layer
from memest.runtimes.torch.step.parallel import Parallel, Replicate, Shard
from memest.runtimes.torch.step.recipe import Recipe

RESHARD = {"auto": None, "true": True, "false": False}


def _ranks(text: str) -> int:
    if (value := positive(text)) < 2:
        raise ValueError("expected at least 2 ranks")
    return value


def _number(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise ValueError("expected a whole number of at least 0")
    return value


WORLD = Option(default=2, check=_ranks, summary="number of ranks (processes)")
RANK = Option(default=0, check=_number, summary="the rank asked about; parts of uneven size differ between ranks")
BUCKET_CAP = Option(default=None, check=positive, summary="MiB of gradients that are reduced together (default: 1, then 25 each)")
BROADCAST = Option(default=True, check=flag, summary="send buffers round at each forward")
AS_VIEW = Option(default=False, check=flag, summary="gradients are views of the buckets")
UNUSED = Option(default=False, check=flag, summary="some parameters may get no gradient")
BLOCKS = Option(default=(), check=words, summary="module paths wrapped one by one before the root, joined by +")


def _with(graph: Graph, recipe: Recipe, plan: Parallel) -> tuple[Graph, Recipe]:
    if plan.rank >= plan.world:
        raise UsageError(f"rank {plan.rank} does not exist among {plan.world} ranks, which count from 0")
    others = {"clip": recipe.clip, "ema": recipe.average, "offload_optimizer": recipe.offload}
    if isinstance(plan, Shard) and (given := [name for name, there in others.items() if there]):
        raise UnsupportedError(f"sharded parameters are not modelled together with {' and '.join(given)}; give one of them")
    return graph, replace(recipe, parallel=plan)


def _synced(graph: Graph) -> Graph:
    """The network with nn.SyncBatchNorm in the place of its batch norms (``convert_sync_batchnorm``)."""

    def of_all(layer: Layer) -> Layer:
        kept = tuple((k, v) for k, v in layer.attributes if k != "ranks")
        return replace(layer, attributes=(*kept, ("ranks", None))) if layer.op == "batch_norm" else layer

    return graph.with_(layers=tuple(of_all(layer) for layer in graph.layers))


def _replicated(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    if options["static_graph"] and recipe.step == 1 and not recipe.target.on_cuda:
        raise UnsupportedError("ddp: the first step of a static graph runs differently and is not modelled on a CPU")
    given = {k: v for k, v in options.items() if k not in ("bucket_cap_mb", "sync_batch_norm")}
    if options["sync_batch_norm"]:
        graph = _synced(graph)
    cap = options["bucket_cap_mb"]
    return _with(graph, recipe, Replicate(bucket_bytes=None if cap is None else cap * 1024**2, **given))


def _sharded(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    given = {k: v for k, v in options.items() if k != "reshard_after_forward"}
    return _with(graph, recipe, Shard(reshard_after_forward=RESHARD[options["reshard_after_forward"]], **given))


def _staged(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    world, rank, stage, blocks = options["world"], options["rank"], options["stage"], options["blocks"]
    if stage == "1":
        if blocks:
            raise UsageError("zero: blocks belong to stages 2 and 3; stage 1 shards the optimizer's state only")
        plan: Parallel = Replicate(
            world=world,
            rank=rank,
            gradient_as_bucket_view=options["gradient_as_bucket_view"],
            bucket_bytes=None,
            broadcast_buffers=True,
            find_unused_parameters=options["find_unused_parameters"],
            static_graph=False,
            shard_optimizer=True,
        )
    elif options["gradient_as_bucket_view"] or options["find_unused_parameters"]:
        raise UsageError("zero: gradient_as_bucket_view and find_unused_parameters belong to stage 1; stages 2 and 3 have no buckets")
    else:
        plan = Shard(world=world, rank=rank, blocks=blocks, reshard_after_forward=None if stage == "3" else False)
    return _with(graph, recipe, plan)


DDP = Lever(
    summary="each rank holds the network and its own part of the batch; gradients are averaged (DistributedDataParallel)",
    price="one all-reduce of all gradients a step; the buckets take as much as the gradients again",
    options={
        "world": WORLD,
        "rank": RANK,
        "gradient_as_bucket_view": AS_VIEW,
        "bucket_cap_mb": BUCKET_CAP,
        "broadcast_buffers": BROADCAST,
        "find_unused_parameters": UNUSED,
        "static_graph": Option(default=False, check=flag, summary="the same parameters are used in every step"),
        "sync_batch_norm": Option(default=False, check=flag, summary="batch norms take the statistics of all ranks (on a GPU)"),
    },
    modes=("train",),
    excludes=("fsdp", "zero"),
    change=_replicated,
    source="torch/nn/parallel/distributed.py, torch/csrc/distributed/c10d/reducer.cpp",
)

FSDP = Lever(
    summary="parameters, gradients and optimizer state are sharded among the ranks (FSDP2, fully_shard)",
    price="two all-gathers of all parameters and one reduce-scatter of all gradients a step",
    options={
        "world": WORLD,
        "rank": RANK,
        "blocks": BLOCKS,
        "reshard_after_forward": Option(
            default="auto", check=choice(*RESHARD), summary="let parameters go after a block's forward: auto is all blocks but the root"
        ),
    },
    modes=("train",),
    excludes=("ddp", "zero", "channels_last"),
    change=_sharded,
    source="torch/distributed/fsdp/_fully_shard, torch/csrc/distributed/c10d/ProcessGroupGloo.cpp",
)

ZERO = Lever(
    summary="ZeRO: stage 1 shards the optimizer's state, stage 2 gradients too, stage 3 parameters too",
    price="stage 1: an all-reduce of all gradients and a broadcast of all parameters a step; stage 2: an all-gather and a reduce-scatter; "
    "stage 3: two all-gathers and a reduce-scatter",
    options={
        "stage": Option(default="1", check=choice("1", "2", "3"), summary="what is sharded"),
        "world": WORLD,
        "rank": RANK,
        "gradient_as_bucket_view": AS_VIEW,
        "find_unused_parameters": UNUSED,
        "blocks": BLOCKS,
    },
    modes=("train",),
    excludes=("ddp", "fsdp"),
    change=_staged,
    source="torch/distributed/optim/zero_redundancy_optimizer.py; stages 2 and 3: fully_shard with reshard_after_forward false and auto",
)
