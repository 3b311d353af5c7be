"""A layout as what a scheduler is given: an sbatch script, a Kubernetes Job, Ray's placement group. Memory is that of the upper end of a
node's range, rounded up, so that a job is never killed for what was foreseen.

- Slurm: ``--mem`` is a node's, in MiB (sbatch(1): "Default units are megabytes", which are of 2^20).
- Kubernetes: an Indexed Job of one pod a node (batch/v1), requests equal to limits (Guaranteed), ``/dev/shm`` as an emptyDir in memory,
  whose pages count against the container's limit, and a headless Service by which pods find the first one.
- Ray: one bundle a node (STRICT_SPREAD), whose memory is what its ranks ask for; ``memory`` is in bytes.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from memest.errors import UnknownNameError, UsageError, one_of
from memest.memory.figure import Figure
from memest.planning.cluster import ClusterPlan, ClusterWay
from memest.render.cluster import layout_text

MIB = 1 << 20
PORT = 29500
SHM_BYTES = 64 * MIB  # what /dev/shm has at least: collectives between ranks of a node use a little of it
COMMAND = "python train.py"
IMAGE = "your-registry/your-image:tag"
SCHEDULERS = ("slurm", "kubernetes", "ray")


def manifest(plan: ClusterPlan, scheduler: str, *, command: str = COMMAND, image: str = IMAGE) -> str:
    """The answer of ``plan`` for a ``scheduler``: ``slurm``, ``kubernetes`` or ``ray``. UnknownNameError for another, UsageError where no
    layout holds it."""
    write = _WRITERS.get(scheduler)
    if write is None:
        raise unknown(scheduler)
    if plan.best is None:
        raise UsageError(f"no layout of {plan.graph} holds batch {plan.global_batch} on {plan.place.name}: there is nothing to submit")
    return write(plan, plan.best, command, image)


def unknown(scheduler: str) -> UnknownNameError:
    """What is said of a scheduler that nothing is written for."""
    return UnknownNameError(f"unknown scheduler {scheduler!r}{one_of(scheduler, SCHEDULERS, ALSO)}")


ALSO = {"k8s": "kubernetes", "sbatch": "slurm", "kubectl": "kubernetes"}


def mebibytes(nbytes: int) -> int:
    """Whole MiB that hold ``nbytes``."""
    return -(-nbytes // MIB)


def shm_bytes(way: ClusterWay) -> int:
    """What ``/dev/shm`` of a node has to hold."""
    loaders = way.estimate.loaders
    each = 0 if loaders is None else _most(loaders.shm)
    return max(SHM_BYTES, way.ranks * each)


def _most(figure: Figure) -> int:
    return figure.high or 0


def node_bytes(way: ClusterWay) -> int:
    """What a node's ranks may take at most."""
    return _most(way.node)


def cpus(way: ClusterWay) -> int:
    """Processors of a rank: its threads, or its loader's workers where these are more."""
    feeding = way.estimate.question.feeding
    return max(way.threads, 0 if feeding is None else feeding.workers + 1)


def environment(way: ClusterWay) -> dict[str, str]:
    """Variables that the figures rest on."""
    process = way.estimate.recipe.target.process
    found = {"OMP_NUM_THREADS": str(way.threads)}
    if process is not None and process.malloc.name == "glibc":
        names = {"mmap_threshold": "MMAP_THRESHOLD", "trim_threshold": "TRIM_THRESHOLD", "top_pad": "TOP_PAD"}
        told = {f"MALLOC_{text}_": getattr(process.malloc, name) for name, text in names.items()}
        told["MALLOC_ARENA_MAX"] = process.malloc.arena_max
        found |= {name: str(value) for name, value in told.items() if value is not None}
    return found


def _name(plan: ClusterPlan) -> str:
    """A name that every scheduler takes (a DNS label of Kubernetes)."""
    found = re.sub(r"[^a-z0-9]+", "-", plan.graph.lower()).strip("-")[:40].strip("-")
    return found if found and found[0].isalpha() else f"net-{found}".rstrip("-")


def _about(plan: ClusterPlan, way: ClusterWay) -> str:
    """What it is for, for a comment of one line."""
    return " ".join(f"batch {plan.global_batch} on {plan.place.name}: {layout_text(way)}".split())


def _slurm(plan: ClusterPlan, way: ClusterWay, command: str, image: str) -> str:
    lines = [
        "#!/bin/bash",
        f"# {_about(plan, way)}",
        f"#SBATCH --job-name={_name(plan)}",
        f"#SBATCH --nodes={way.nodes}",
        f"#SBATCH --ntasks-per-node={way.ranks}",
        f"#SBATCH --cpus-per-task={cpus(way)}",
        f"#SBATCH --mem={mebibytes(node_bytes(way))}M",
        "",
        *(f"export {name}={value}" for name, value in environment(way).items()),
        'export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"',
        f"export MASTER_PORT={PORT}",
        f"export WORLD_SIZE={way.world}",
        f"srun --cpus-per-task={cpus(way)} bash -c {shlex.quote(f'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec {command}')}",
    ]
    return "\n".join(lines) + "\n"


def _kubernetes(plan: ClusterPlan, way: ClusterWay, command: str, image: str) -> str:
    import yaml

    name = _name(plan)
    size = {"cpu": str(cpus(way) * way.ranks), "memory": f"{mebibytes(node_bytes(way))}Mi"}
    first = f"{name}-0.{name}"
    words = [
        "torchrun", f"--nnodes={way.nodes}", f"--nproc-per-node={way.ranks}", "--node-rank=$(JOB_COMPLETION_INDEX)",
        f"--master-addr={first}", f"--master-port={PORT}",
    ]  # fmt: skip
    container = {
        "name": "ranks",
        "image": image,
        "command": [*words, *_script(command)],
        "env": [{"name": key, "value": value} for key, value in environment(way).items()],
        "resources": {"requests": dict(size), "limits": dict(size)},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    apart = {"labelSelector": {"matchLabels": {"app": name}}, "topologyKey": "kubernetes.io/hostname"}
    pod = {
        "subdomain": name,
        "restartPolicy": "Never",
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}},
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{mebibytes(shm_bytes(way))}Mi"}}],
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "clusterIP": "None",
            "selector": {"app": name},
            "publishNotReadyAddresses": True,
            "ports": [{"name": "ranks", "port": PORT}],
        },
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completions": way.nodes,
            "parallelism": way.nodes,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    }
    return f"# {_about(plan, way)}\n" + yaml.safe_dump_all([service, job], sort_keys=False)


def _script(command: str) -> list[str]:
    """What torchrun starts: a script as it is, anything else as a program of its own."""
    words = shlex.split(command)
    if words and words[0] in ("python", "python3") and len(words) > 1 and words[1].endswith(".py"):
        return words[1:]
    return ["--no-python", *words]


def _ray(plan: ClusterPlan, way: ClusterWay, command: str, image: str) -> str:
    memory = ceil(node_bytes(way) / way.ranks)
    each = cpus(way)
    bundle = {"CPU": each * way.ranks, "memory": memory * way.ranks}
    data: Mapping[str, Any] = {
        "about": _about(plan, way),
        "placement_group": {"bundles": [bundle] * way.nodes, "strategy": "STRICT_SPREAD", "name": _name(plan)},
        "actor": {"num_cpus": each, "memory": memory},
        "ranks_per_bundle": way.ranks,
        "env_vars": environment(way),
    }
    return json.dumps(data, indent=2) + "\n"


_WRITERS: dict[str, Callable[[ClusterPlan, ClusterWay, str, str], str]] = {"slurm": _slurm, "kubernetes": _kubernetes, "ray": _ray}
