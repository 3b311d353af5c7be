"""A global batch on nodes of one kind: layouts, what contradicts itself, tiers, and what schedulers are given."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import memest
from memest.cli.app import main
from memest.errors import MemestError, UsageError
from memest.machines.entry import Hardware, Tier
from memest.memory.loading import library_bytes
from memest.planning.cluster import ClusterPlan
from memest.planning.exchanges import FUSION_BYTES, Exchange, exchange_named
from memest.render.cluster import cluster_report
from memest.render.csv import render as csv
from memest.render.manifests import SCHEDULERS, manifest, mebibytes, node_bytes, shm_bytes

CPU = memest.Cpu(threads=4)
FIXED = "glibc:mmap_threshold=131072"
GRAPH = memest.model("unet3d", base_filters=4, levels=2)
VOLUME = (1, 32, 32, 32)
MIB, GIB = 1 << 20, 1 << 30


def planned(on: Any = "server-1.5tb", **asked: Any) -> ClusterPlan:
    given: dict[str, Any] = {"global_batch": 8, "input_shape": VOLUME, "machine": CPU, "loss": "binary_cross_entropy", "malloc": FIXED}
    given |= asked
    return memest.plan_cluster(GRAPH, on=on, **given)


def node(dram: int, pmem: int = 0, **more: Any) -> Hardware:
    sizes = {"DRAM": dram, **({"PMem": pmem} if pmem else {})}
    tiers = tuple(Tier(name=name, nbytes=n, usable_bytes=n, basis="given") for name, n in sizes.items())
    return Hardware(name="node", title="A node", kind="server", tiers=tiers, source="a test", **more)


def needs(plan: ClusterPlan, batch: int, ranks: int = 1) -> int:
    """The upper end of a node's range in that layout."""
    return next(way.node.high or 0 for way in plan.ways if way.batch == batch and way.ranks == ranks)


@cache
def every() -> ClusterPlan:
    """Nothing holds it, so every layout is tried."""
    return planned(node(1))


@pytest.mark.parametrize(("batch", "nodes"), [(8, 1), pytest.param(2, 4, marks=pytest.mark.slow)])
def test_the_fewest_nodes_then_ranks_hold_it(batch: int, nodes: int) -> None:
    assert every().best is None and {way.nodes * way.ranks * way.batch for way in every().ways} == {8}
    found = planned(node(needs(every(), batch))).best
    assert found is not None and (found.nodes, found.ranks, found.batch) == (nodes, 1, batch)
    fewer = planned(node(needs(every(), batch) - 1)).best
    assert fewer is None or fewer.nodes > nodes


def test_a_rank_is_the_step_with_its_lever_and_what_the_exchange_takes() -> None:
    way = next(way for way in every().ways if way.world == 4 and way.ranks == 1)
    alone = memest.estimate(GRAPH, input_shape=(2, *VOLUME), machine=CPU, loss="binary_cross_entropy", levers=["ddp:world=4"], malloc=FIXED)
    own = alone.figures.outermost[1].bytes
    assert own is not None and way.rank.bytes == own + (way.exchange.bytes or 0) and way.exchange.bytes


def test_libraries_count_once_on_a_node_where_the_process_is_counted() -> None:
    way = next(way for way in every().ways if way.ranks == 2)
    assert way.rank.bytes is not None and way.node.bytes is not None
    once = library_bytes().bytes if way.estimate.process.bytes is not None else 0
    assert way.node.bytes == 2 * way.rank.bytes - once


def test_loaders_count_for_each_rank() -> None:
    found = planned(node(1), loader="workers=2", nodes=1, ranks_per_node=2).ways[0]
    assert found.loaders is not None and found.rank.bytes is not None and found.node.bytes is not None and found.loaders.bytes is not None
    once = library_bytes().bytes if found.estimate.process.bytes is not None else 0
    assert found.node.bytes == 2 * (found.rank.bytes + found.loaders.bytes) - once


def test_what_spills_into_slower_memory_is_said() -> None:
    whole = needs(every(), 8)
    plan = planned(node(whole - MIB, GIB))
    assert plan.best is not None and plan.best.nodes == 1 and plan.best.spills == MIB
    assert plan.fast is not None and plan.fast.nodes == 2 and not plan.fast.spills
    facts = dict(cluster_report(plan).facts)
    assert facts["spills"].startswith("1.00 MiB a node into PMem, DRAM is full") and facts["in DRAM"].startswith("2 nodes, 1 rank each")


def test_threads_are_the_cores_over_the_ranks() -> None:
    found = memest.plan_cluster(
        GRAPH,
        global_batch=8,
        input_shape=VOLUME,
        on=node(4 * GIB, sockets=2, cores=16),
        ranks_per_socket=2,
        malloc=FIXED,
        loss="binary_cross_entropy",
    ).ways[0]
    assert (found.ranks, found.threads) == (4, 4) and found.estimate.cpu.threads == 4


def test_ranks_may_share_a_volume() -> None:
    plan = planned(node(1), global_batch=1, input_shape=(1, 128, 32, 32), split=2, ranks_per_node=2)
    way = plan.ways[0]
    part = next(iter(way.estimate.input_shapes.values()))
    assert way.world == 2 and way.batch == 1 and 64 < part[2] < 128 and part[3:] == (32, 32)
    assert plan.notes[0].startswith("2 ranks share a volume: each computes")


def test_a_halo_is_what_ranks_read_around_their_part() -> None:
    asked = {"global_batch": 1, "input_shape": (1, 128, 32, 32), "split": 2, "ranks_per_node": 2}
    plan = planned(node(1), halo=8, **asked)
    part = next(iter(plan.ways[0].estimate.input_shapes.values()))
    assert part[2:] == (72, 32, 32) and any("less than what the network sees" in note for note in plan.notes)
    assert not any("less than" in note for note in planned(node(1), **asked).notes)
    with pytest.raises(UsageError, match="halo has 2 sizes, and the volume 3"):
        planned(node(1), halo=(8, 8), **asked)


def test_where_nothing_holds_it_a_split_that_would_is_named() -> None:
    deep = {"global_batch": 1, "input_shape": (1, 1024, 64, 64)}
    least = planned(node(1), **deep).ways[0].node.high or 0
    plan = planned(node(least * 9 // 10), **deep)
    assert plan.best is None and any(re.match(r"split \d would: a rank's part of one volume, \d+x64x64, takes", n) for n in plan.notes)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"global_batch": 0}, "global_batch"),
        (
            {"global_batch": 6, "nodes": 1, "ranks_per_node": 4},
            "global batch 6 is not divisible over 1 node of 4 ranks: ranks in all can be 1, 2, 3, 6",
        ),
        ({"ranks_per_node": 3, "ranks_per_socket": 1}, "ranks_per_node 3 contradicts ranks_per_socket 1 on 4 sockets, which makes 4"),
        ({"sockets": 5}, "sockets 5 are more than the machine's 4"),
        ({"cores": 2, "ranks_per_node": 4}, "4 ranks a node are more than its 2 cores"),
        ({"on": node(GIB), "ranks_per_socket": 1}, "nothing says how many sockets node has"),
        ({"on": "h100-80gb"}, "h100-80gb is an accelerator"),
        ({"mode": "infer"}, "plan_cluster plans training"),
        ({"runtime": "onnxruntime", "mode": "train"}, "has no mode 'train'|plans torch-cpu"),
        (
            {"runtime": "tensorflow-cpu", "malloc": None},
            "exchange ddp is torch's, and runtime is tensorflow-cpu; give horovod as the exchange",
        ),
        ({"levers": ["ddp:world=2"]}, "lever 'ddp:world=2': plan_cluster makes the ranks itself"),
        ({"input_shape": (1, 33, 32, 32)}, "33"),
        ({"input_shape": (3, 32, 32, 32)}, "3"),
        ({"split": 3, "nodes": 1, "ranks_per_node": 4}, "3 of which share a volume"),
        ({"split": 5000, "ranks_per_node": 1}, "5000 of which share a volume: ranks in all can be 5000"),
        ({"exchange": "horovood"}, "unknown exchange 'horovood'; did you mean 'horovod'"),
        ({"exchange": "horovod:fusoin=1MiB"}, "did you mean 'fusion'"),
        ({"exchange": "ddp:backend=nccl"}, "unknown backend 'nccl'"),
        ({"exchange": "ddp:"}, "nothing follows the colon"),
        ({"exchange": "ddp:fusion=1MiB"}, "exchange 'ddp' has no option 'fusion'"),
        ({"input_shape": 64}, "input_shape is sizes in a row, such as .*, got 64"),
        ({"exchange": ["ddp"]}, "exchange: give text such as 'ddp' or 'horovod:backend=mpi', got a list"),
        ({"exchange": "ddp:bucket_cap_mb=x"}, "a whole number of MiB"),
    ],
)
def test_what_contradicts_itself_is_one_line(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(MemestError, match=words) as e:
        planned(**asked)
    assert "\n" not in str(e.value)


def test_horovods_buffer_is_what_gradients_fill_of_it() -> None:
    horovod = exchange_named("horovod")
    assert horovod.fusion == FUSION_BYTES and horovod.lever(4) == ()
    assert horovod.buffers(10 * MIB, 4, 1).low == 0 and horovod.buffers(10 * MIB, 4, 1).bytes == 12 * MIB
    assert horovod.buffers(GIB, 4, 1).bytes == (128 + 2) * MIB
    assert exchange_named("horovod:fusion=64MiB,backend=mpi").buffers(GIB, 4, 1).bytes == 2 * 64 * MIB
    assert exchange_named("mpi") == exchange_named("ddp:backend=mpi") and exchange_named(str(horovod)) == horovod
    assert Exchange().buffers(GIB, 1, 1).bytes == 0


def test_tensorflow_averages_into_tensors_of_their_own() -> None:
    horovod = exchange_named("horovod")
    own, in_place = (horovod.buffers(10 * MIB, 4, 1, in_place=where).bytes or 0 for where in (False, True))
    assert own - in_place == 10 * MIB
    found = planned(runtime="tensorflow-cpu", exchange="horovod", malloc=None).ways[-1]
    assert found.estimate.runtime == "tensorflow-cpu" and found.rank.bytes is not None and found.exchange.bytes


def test_the_report_reads_the_same_in_every_format() -> None:
    plan = planned(node(needs(every(), 4)))
    report = cluster_report(plan)
    data = json.loads(json.dumps(report.data))
    assert data["answer"]["nodes"] == 2 and data["answer"]["node"]["high"] == needs(every(), 4) and len(data["ways"]) == len(plan.ways)
    lines = "".join(csv(report)).splitlines()
    assert len(lines) == 1 + len(plan.ways) and lines[0].startswith("nodes,ranks_per_node,threads,batch_per_rank")


@cache
def fed() -> ClusterPlan:
    """One that fits, with data loaders."""
    return planned(node(4 * GIB), loader="workers=3,prefetch=2", ranks_per_node=2)


def test_slurm_is_given_whole_mebibytes_that_hold_it(tmp_path: Path) -> None:
    way = fed().best
    assert way is not None
    text = manifest(fed(), "slurm", command="python train.py --note 'two words'")
    given = dict(re.findall(r"#SBATCH --([a-z-]+)=(\S+)", text))
    assert given == {
        "job-name": "unet3d",
        "nodes": str(way.nodes),
        "ntasks-per-node": "2",
        "cpus-per-task": "4",
        "mem": f"{mebibytes(node_bytes(way))}M",
    }
    assert int(given["mem"][:-1]) * MIB >= (way.node.high or 0) > (int(given["mem"][:-1]) - 1) * MIB
    assert "export MALLOC_MMAP_THRESHOLD_=131072" in text and "export OMP_NUM_THREADS=4" in text
    (tmp_path / "job.sh").write_text(text, encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(tmp_path / "job.sh")], check=False).returncode == 0


def test_kubernetes_is_given_a_job_whose_limit_holds_shared_memory_too() -> None:
    way = fed().best
    assert way is not None
    service, job = yaml.safe_load_all(manifest(fed(), "kubernetes", image="lab/unet:1"))
    assert service["spec"]["clusterIP"] == "None" and service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == way.nodes
    pod = spec["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert (
        container["resources"]["limits"] == container["resources"]["requests"] == {"cpu": "8", "memory": f"{mebibytes(node_bytes(way))}Mi"}
    )
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": f"{mebibytes(shm_bytes(way))}Mi"}
    assert container["volumeMounts"] == [{"name": "shm", "mountPath": "/dev/shm"}] and mebibytes(shm_bytes(way)) < mebibytes(
        node_bytes(way)
    )
    assert container["image"] == "lab/unet:1" and f"--nproc-per-node={way.ranks}" in container["command"]


def test_kubernetes_own_schema_takes_it() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for document in yaml.safe_load_all(manifest(fed(), "kubernetes")):
        validate.validate(document, validate.latest_version(), strict=True)


def test_ray_is_given_bundles_that_hold_their_ranks() -> None:
    way = fed().best
    assert way is not None
    data = json.loads(manifest(fed(), "ray"))
    bundles, actor = data["placement_group"]["bundles"], data["actor"]
    assert len(bundles) == way.nodes and data["placement_group"]["strategy"] == "STRICT_SPREAD"
    assert bundles[0] == {"CPU": actor["num_cpus"] * 2, "memory": actor["memory"] * 2} and bundles[0]["memory"] >= (way.node.high or 0)


def test_a_scheduler_with_a_typo_and_an_answer_that_is_none() -> None:
    for name, meant in (("slrum", "slurm"), ("k8s", "kubernetes"), ("kubernets", "kubernetes"), ("rya", "ray")):
        with pytest.raises(MemestError, match=f"unknown scheduler '{name}'; did you mean '{meant}'"):
            manifest(fed(), name)
    for scheduler in SCHEDULERS:
        with pytest.raises(MemestError, match="there is nothing to submit"):
            manifest(every(), scheduler)


COMMAND = ["cluster", "unet3d:base_filters=4,levels=2", "--loss", "binary_cross_entropy", "--threads", "4", "--malloc", FIXED]


def test_cores_are_shared_by_ranks_whatever_processor_is_described() -> None:
    assert {way.threads for way in planned(cores=12, ranks_per_node=2).ways} == {6}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--global-batch", "8", "--volume", "1x32x32x32", "--on", "server-1.5tb"], 0, "1 node, 1 rank of 4 threads with a batch of 8"),
        (["--global-batch", "8", "--volume", "1x32x32x32", "--budget", "1MiB"], 1, "no layout holds it on budget 1MiB"),
        (["--global-batch", "8", "--volume", "1x32x32x32", "--budget", "1MiB", "--manifest", "slurm"], 1, "no layout holds it"),
        (["--global-batch", "8", "--volume", "1x32x32x32", "--budget", "4GiB", "--manifest", "slurm"], 0, "#SBATCH --nodes=1"),
        (["--global-batch", "8", "--volume", "1x32x32x32", "--budget", "4GiB", "--manifest", "slrum"], 2, "did you mean 'slurm'"),
        (
            ["--global-batch", "8", "--volume", "1x32x32x32", "--budget", "4GiB", "--image", "a"],
            2,
            "--image is about --manifest kubernetes",
        ),
        (["--global-batch", "8", "--volume", "1x32x32x32", "--input", "1x32x32x32", "--budget", "4GiB"], 2, "give one of them"),
        (["--global-batch", "8", "--volume", "1x32x32x32", "--budget", "4GiB", "--cores", "8"], 2, "leave one of them out"),
        (["--volume", "1x32x32x32", "--budget", "4GiB"], 2, "--global-batch 16"),
        (["--global-batch", "8", "--volume", "1x32x32x32"], 2, "give one kind of node, not 0"),
        (["--global-batch", "8", "--volume", "1x32x32x32", "--on", "server-1.5tb", "--budget", "4GiB"], 2, "one kind of node, not 2"),
        (["--global-batch", "8", "--volume", "1x32x32", "--budget", "4GiB"], 2, "--input needs 4 sizes"),
        (["--global-batch", "8", "--volume", "1x32x32x32", "--budget", "4GiB", "--prefetch", "2"], 2, "say how many workers"),
        (
            ["--global-batch", "8", "--volume", "1x32x32x32", "--budget", "4GiB", "--manifest", "ray", "--format", "json"],
            2,
            "leave --format out",
        ),
    ],
)
def test_the_command_answers_or_says_what_is_wrong(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, *words]) == code
    out = capsys.readouterr()
    assert said in (out.out or out.err) and "Traceback" not in out.err and out.err.count("\n") <= 1


def test_of_many_layouts_few_are_played_and_the_answer_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    room = node(needs(every(), 2))
    whole = planned(room).best
    monkeypatch.setattr("memest.planning.cluster.FEW", 0)
    found = planned(room).best
    assert found is not None and whole is not None and found.cells == whole.cells
    plan = planned(node(1), global_batch=2**15 * 5**4, nodes=4096)
    assert plan.best is None and len(plan.ways) <= 3 and "no more than 4,096 nodes are tried" in plan.notes
    with pytest.raises(MemestError, match="ranks in all can be 1, 2"):
        planned(node(1), global_batch=10**15, nodes=1, ranks_per_node=3)


def test_a_manifest_has_any_name_and_is_there_only_where_a_layout_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "job.sh"
    asked = [*COMMAND, "--global-batch", "8", "--volume", "1x32x32x32", "--manifest", "slurm", "-o", str(job), "--budget"]
    assert main([*asked, "1MiB"]) == 1 and not job.exists() and "no layout holds it" in capsys.readouterr().out
    assert main([*asked, "4GiB"]) == 0 and job.read_text(encoding="utf-8").startswith("#!")


def test_threads_of_the_machine_at_hand_are_said() -> None:
    assert not any("machine at hand" in note for note in planned().notes)
    assert any("as the machine at hand" in note and "--cores" in note for note in planned(machine=None).notes)


def test_ranks_share_no_volume_of_a_network_that_sees_all_of_it() -> None:
    with pytest.raises(MemestError, match=r"ranks cannot share a volume: .*avgpool.*; give a halo, or leave split out"):
        memest.plan_cluster(memest.model("resnet18"), global_batch=2, input_shape=(3, 64, 64), on=node(GIB), split=2, malloc=FIXED)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--exchange", "hovorod"], "did you mean 'horovod'"),
        (["--command", "a"], "--command is what a manifest runs"),
        (["--prefetch", "0"], "Invalid value for '--prefetch': "),  # each release of typer says the rest its own way
        (["--workers", "0", "--prefetch", "3"], "--prefetch is about a data loader: --workers 0 has none"),
        (["--device", "cuda"], "plans servers' processors, and --device cuda is a card's"),
        (["--lever", "ddp:world=2"], "memest cluster makes the ranks itself"),
        (["--ranks-per-socket", "2"], "--ranks-per-socket 2: nothing says how many sockets"),
    ],
)
def test_options_are_refused_in_words_of_options(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--global-batch", "8", "--volume", "1x32x32x32", "--budget", "4GiB", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and "Input should" not in told


def test_a_card_is_no_node(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "resnet18", "--global-batch", "8", "--volume", "3x64x64", "--on", "h100-80gb", "--device", "cuda"]) == 2
    assert "h100-80gb is an accelerator; of cards ask memest estimate --on h100-80gb" in capsys.readouterr().err
