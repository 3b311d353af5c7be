"""What ``memest cluster`` says beside the stored runs: ranks of a data-parallel run, each for itself and together on a node."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import memest
from memest.memory.figure import range_of
from validation.cluster.ranks import RESULTS

VISION = ("resnet18", "resnet50", "mobilenet_v2", "densenet121", "vgg11", "resnext50_32x4d")
BUILT_IN = {**{f"torchvision.models:{name}": name for name in VISION}, "validation.networks:UNet3d": "unet3d"}
MALLOC = {"fixed": "glibc:mmap_threshold=131072", "glibc": "glibc"}
OPTIMIZERS = {"adam": "adam", "sgd": "sgd:momentum=0.9"}


@dataclass(frozen=True)
class Row:
    """A run: the most that a rank and the node took in any step, and what was predicted of both (bytes)."""

    name: str
    world: int
    regime: str
    rank: int
    predicted_rank: int
    node: int
    predicted_node: int

    @property
    def errors(self) -> tuple[float, float]:
        """Of the rank and of the node, as a share of what was measured."""
        return self.predicted_rank / self.rank - 1, self.predicted_node / self.node - 1


def stored() -> dict[str, Any]:
    """The runs of ranks that were measured."""
    path = RESULTS / "ranks.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def graph_of(case: dict[str, Any]) -> memest.Graph:
    """The network: built in, or imported from torch where it is not."""
    if case["model"] in BUILT_IN:
        return memest.model(BUILT_IN[case["model"]], **case["arguments"])
    from validation.cluster.rank import made

    return memest.from_torch(made(case)[0], tuple(case["shape"]))


def rows(runs: Mapping[str, Any]) -> Iterator[Row]:
    """Each of the ``runs`` that has several ranks."""
    for key, run in runs.items():
        case, world, regime = run["case"], run["world"], run["malloc"]
        if world == 1:
            continue
        batch, *volume = case["shape"]
        plan = memest.plan_cluster(
            graph_of(case),
            global_batch=batch * world,
            input_shape=volume,
            on=memest.budget("1TiB"),
            nodes=1,
            ranks_per_node=world,
            machine=memest.Cpu(threads=case["threads"]),
            optimizer=OPTIMIZERS[case["optimizer"]],
            loss=case["loss"],
            torch="2.13",
            malloc=MALLOC[regime],
            imports="torchvision" if case["model"].startswith("torchvision") else "torch",
        )
        way = plan.ways[0]
        yield Row(
            name=key,
            world=world,
            regime=regime,
            rank=highest(run),
            predicted_rank=range_of(way.rank).bytes,
            node=run["own_peak"] + run["files_once"],
            predicted_node=range_of(way.node).bytes,
        )


def highest(run: dict[str, Any]) -> int:
    """The most of any rank in any step."""
    return max(int(step["HWM"]) for rank in run["ranks"] for step in rank["steps"])


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:7.0f} MiB"


def table() -> str:
    """All rows, one a line, and the worst of each kind."""
    found = list(rows(stored()))
    lines = [
        f"{row.name:<60} rank {_mib(row.rank)} {100 * row.errors[0]:+5.1f} %  node {_mib(row.node)} {100 * row.errors[1]:+5.1f} %"
        for row in found
    ]
    for regime in dict.fromkeys(row.regime for row in found):
        own = [row for row in found if row.regime == regime]
        worst = [max(abs(row.errors[i]) for row in own) for i in (0, 1)]
        lines.append(f"{regime}: {len(own)} runs, worst rank {100 * worst[0]:.1f} %, worst node {100 * worst[1]:.1f} %")
    return "\n".join(lines)
