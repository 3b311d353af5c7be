"""``memest cluster``: the fewest nodes, ranks and threads that train a global batch, and what a scheduler is given for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

from memest.cli import options as o
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking(without=("mode", "batch"), fed=True)
def run(
    request: Request,
    global_batch: Annotated[Optional[int], option("--global-batch", min=1, metavar="N", help="Volumes of one step, on all ranks.")] = None,  # noqa: UP045
    volume: Annotated[
        Optional[str],  # noqa: UP045 - it is read at run time
        option("--volume", metavar="SHAPE", help="One volume (or image) with its channels, such as 1x240x240x144."),
    ] = None,
    on: o.On = None,
    budget: o.Budget = None,
    hardware: o.HardwareFile = None,
    nodes: Annotated[Optional[int], option("--nodes", min=1, metavar="N", help="At most so many nodes.")] = None,  # noqa: UP045
    ranks_per_node: Annotated[Optional[int], option("--ranks-per-node", min=1, metavar="N", help="Ranks that share a node.")] = None,  # noqa: UP045
    ranks_per_socket: Annotated[Optional[int], option("--ranks-per-socket", min=1, metavar="N", help="The same, a socket.")] = None,  # noqa: UP045
    sockets: Annotated[Optional[int], option("--sockets", min=1, metavar="N", help="Sockets of a node.")] = None,  # noqa: UP045
    cores: Annotated[Optional[int], option("--cores", min=1, metavar="N", help="Cores of a node, which its ranks share.")] = None,  # noqa: UP045
    exchange: Annotated[
        str,
        option("--exchange", metavar="NAME[:OPTION=VALUE,...]", help="Who averages: ddp, horovod:fusion=64MiB,backend=mpi, gloo, …"),
    ] = "ddp",
    split: Annotated[Optional[int], option("--split", min=1, metavar="N", help="Ranks that share one volume, each a part of it.")] = None,  # noqa: UP045
    halo: Annotated[
        Optional[str],  # noqa: UP045 - it is read at run time
        option("--halo", metavar="SIZE", help="What ranks of one volume read more on each side (default: all that the network sees)."),
    ] = None,
    manifest: Annotated[
        Optional[str],  # noqa: UP045 - it is read at run time
        option("--manifest", metavar="SCHEDULER", help="Write what a scheduler is given instead: slurm, kubernetes or ray."),
    ] = None,
    command: Annotated[
        Optional[str],  # noqa: UP045 - it is read at run time
        option("--command", metavar="TEXT", help="What the manifest runs as a rank [default: python train.py]."),
    ] = None,
    image: Annotated[
        Optional[str],  # noqa: UP045 - it is read at run time
        option("--image", metavar="NAME", help="The container image of a manifest for kubernetes."),
    ] = None,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> int | None:
    """Say how few nodes, ranks and threads train a global batch at once, and what a node holds then.

    Each rank is one process with a part of the batch; a node's figure is that of its ranks, what their exchange of gradients and their
    data loaders add, and once the libraries that they share. It is held against the node's memory tier by tier, at the upper end of its
    range: what a slower tier takes is said.

    \b
    Examples:
      memest cluster unet3d --global-batch 16 --volume 1x240x240x144 --on server-1.5tb --loss binary_cross_entropy --exchange horovod
      memest cluster unet3d --global-batch 16 --volume 1x240x240x144 --budget 24GiB --workers 2 --loss binary_cross_entropy
      memest cluster resnet50 --global-batch 256 --volume 3x224x224 --budget 64GiB --ranks-per-node 2 --manifest slurm

    \b
    Exit codes: 0 done, 1 no layout holds it, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import spread
    from memest.cli.output import DOES_NOT_FIT, agreed, show, write
    from memest.cli.request import limits
    from memest.cli.words import said
    from memest.errors import UsageError
    from memest.levers.checks import halo_extents
    from memest.render.cluster import cluster_report
    from memest.render.manifests import COMMAND, IMAGE, SCHEDULERS, unknown
    from memest.render.manifests import manifest as written

    if manifest is not None and manifest not in SCHEDULERS:
        raise UsageError(str(unknown(manifest)))
    if manifest is not None and form is not None:
        raise UsageError(f"--manifest {manifest} has a form of its own: leave --format out")
    if image is not None and manifest != "kubernetes":
        raise UsageError("--image is about --manifest kubernetes; leave it out")
    if command is not None and manifest is None:
        raise UsageError("--command is what a manifest runs; say --manifest slurm, kubernetes or ray, or leave it out")
    if halo is not None and split is None:
        raise UsageError("--halo is what ranks that share a volume read around their part: say --split, or leave it out")
    if cores is not None and request.threads is not None:
        raise UsageError("--threads are those of a rank, --cores what a node's ranks share: leave one of them out")
    form = form if manifest is not None else agreed(form, output)
    found = spread(
        request,
        volume,
        global_batch,
        limits(on, budget, hardware),
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        ranks_per_socket=ranks_per_socket,
        sockets=sockets,
        cores=cores,
        exchange=exchange,
        split=split or 1,
        halo=None if halo is None else said("--halo", halo, halo_extents),
    )
    if manifest is not None and found.best is not None:
        write(written(found, manifest, command=command or COMMAND, image=image or IMAGE), output)
    else:
        show(cluster_report(found), form, None if manifest is not None else output)  # where nothing holds it there is no manifest
    return None if found.best is not None else DOES_NOT_FIT
