"""What a parallel run is: how many ranks, which of them is asked about, and what is replicated or sharded among them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """DistributedDataParallel: every rank holds the whole network, gradients are averaged in buckets (of ``bucket_bytes``; None: torch's
    own choice). ``shard_optimizer`` puts ZeroRedundancyOptimizer in the place of the plain one."""

    world: int
    rank: int
    gradient_as_bucket_view: bool
    bucket_bytes: int | None
    broadcast_buffers: bool
    find_unused_parameters: bool
    static_graph: bool
    shard_optimizer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """FSDP2: parameters, gradients and optimizer state are sharded on dim 0. Each of ``blocks`` (module paths) is gathered as a whole, the
    rest of the network makes the root's group. ``reshard_after_forward`` None is torch's default: all blocks but the root."""

    world: int
    rank: int
    blocks: tuple[str, ...]
    reshard_after_forward: bool | None


Parallel = Replicate | Shard
