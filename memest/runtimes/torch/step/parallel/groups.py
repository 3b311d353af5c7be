"""The groups of parameters that FSDP2 gathers and scatters as one: which there are, what a rank keeps of them, in which order.

Sources: torch/distributed/fsdp/_fully_shard/_fsdp_init.py (a module's group is what no wrapped module inside it has, in the order of a
depth-first walk that names a module after its children) and _fsdp_param.py (dim 0 is split like ``torch.chunk`` does; every rank keeps as
much as the first, padded).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from memest.errors import UnknownNameError, UnsupportedError, did_you_mean
from memest.memory.stream import Storage
from memest.network.dtypes import ITEMSIZE
from memest.network.graph import Graph, Parameter
from memest.network.tensor import Shape, Spec, contiguous_strides, numel

ROOT = ""


@dataclass(eq=False, slots=True)
class Sharded:
    """One parameter of a group. ``whole`` is its storage while it is gathered."""

    name: str
    shape: Shape
    dtype: str
    whole: Storage | None = None

    def rows(self, world: int, rank: int) -> int:
        """Rows of dim 0 that a rank has."""
        each = -(-self.shape[0] // world)
        return min(each, max(0, self.shape[0] - rank * each))

    def local(self, world: int, rank: int) -> Spec:
        """The shard as the optimizer sees it, without padding."""
        shape = (self.rows(world, rank), *self.shape[1:])
        return Spec(shape, contiguous_strides(shape), self.dtype)

    def padded(self, world: int) -> int:
        """Bytes of the shard each rank keeps."""
        return self.rows(world, 0) * numel(self.shape[1:]) * ITEMSIZE[self.dtype]


@dataclass(eq=False, slots=True)
class Group:
    """The parameters of one wrapped module, and where it stands in the step."""

    name: str
    reshards: bool
    members: list[Sharded] = field(default_factory=list)
    gathered: Storage | None = None
    whole: bool = False
    state: str = "idle"
    turns: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stretch:
    """The layers (from first to last, both included) in which a block runs, and the values it is called with."""

    block: str
    first: int
    last: int
    arguments: tuple[str, ...]
    results: tuple[str, ...]


def find_runs(graph: Graph, blocks: Sequence[str]) -> list[Stretch]:
    """Where each block runs, outermost first; errors when it is not there, or runs more than once."""
    own = {p.name for p in graph.parameters}
    return [_run(graph, block, own) for block in sorted(blocks, key=len)]


def _run(graph: Graph, block: str, own: set[str]) -> Stretch:
    inside = [i for i, layer in enumerate(graph.layers) if _within(layer.name, block)]
    if not inside:
        known = {".".join(parts[:n]) for layer in graph.layers for parts in [layer.name.split(".")] for n in range(1, len(parts) + 1)}
        raise UnknownNameError(f"fsdp: the network has no block {block!r}{did_you_mean(block, sorted(known))}")
    first, last = inside[0], inside[-1]
    if last - first + 1 != len(inside):
        other = next(layer.name for layer in graph.layers[first:last] if not _within(layer.name, block))
        raise UnsupportedError(f"fsdp: block {block!r} is not called once as a whole, {other!r} runs in between; wrap smaller blocks")
    layers = graph.layers[first : last + 1]
    made = {name for layer in layers for name in layer.outputs}
    read = dict.fromkeys(name for layer in layers for name in layer.reads)
    later = {name for layer in graph.layers[last + 1 :] for name in layer.reads} | set(graph.outputs)
    return Stretch(
        block=block,
        first=first,
        last=last,
        arguments=tuple(name for name in read if name not in made and name not in own),
        results=tuple(name for layer in layers for name in layer.outputs if name in later),
    )


def _within(name: str, block: str) -> bool:
    return name == block or name.startswith(f"{block}.")


def find_groups(parameters: Sequence[Parameter], runs: Sequence[Stretch], reshard_after_forward: bool | None) -> dict[str, Group]:
    """The root's group (which may be empty) and one for each block that has parameters of its own, in the order of the modules."""
    groups = {ROOT: Group(ROOT, bool(reshard_after_forward))}
    blocks = sorted((run.block for run in runs), key=len)
    for p in parameters:
        for block in (b for b in blocks if _within(p.name, b)):
            groups.setdefault(block, Group(block, reshard_after_forward is not False))
    for p in in_module_order([p for p in parameters if not p.buffer]):
        if not p.shape:
            raise UnsupportedError(f"fsdp: parameter {p.name!r} is a scalar; torch refuses to shard it")
        if p.layout != "contiguous":
            raise UnsupportedError(f"fsdp: parameter {p.name!r} is not row-major; torch refuses to shard it")
        owner = next((b for b in reversed(blocks) if _within(p.name, b)), ROOT)
        groups[owner].members.append(Sharded(p.name, p.shape, p.dtype))
    return {name: g for name, g in groups.items() if g.members or name == ROOT}


def check_readers(graph: Graph, groups: Mapping[str, Group]) -> None:
    """UnsupportedError where a parameter is read outside of its block, or a block is called more than once."""
    owners = {m.name: g for g in groups.values() for m in g.members}
    times = dict.fromkeys(owners, 0)
    for layer in graph.layers:
        for name in layer.reads:
            if name in owners:
                times[name] += 1
                block = owners[name].name
                if block != ROOT and not _within(layer.name, block):
                    raise UnsupportedError(f"fsdp: layer {layer.name!r} reads {name!r} of block {block!r}; wrap what contains both")
    for group in groups.values():
        if group.name != ROOT and min(times[m.name] for m in group.members) > 1:
            raise UnsupportedError(f"fsdp: block {group.name!r} is called more than once; wrap what contains all its calls")


def in_module_order(parameters: Sequence[Parameter]) -> Iterator[Parameter]:
    """Parameters by a depth-first walk that comes to a module after its children."""
    yield from _walk({p.name: p for p in parameters}, 0)


def _walk(named: Mapping[str, Parameter], depth: int) -> Iterator[Parameter]:
    children: dict[str, dict[str, Parameter]] = {}
    own: list[Parameter] = []
    for name, p in named.items():
        parts = name.split(".")
        if len(parts) == depth + 1:
            own.append(p)
        else:
            children.setdefault(parts[depth], {})[name] = p
    for child in children.values():
        yield from _walk(child, depth + 1)
    yield from own


def gathered_bytes(group: Group, world: int) -> int:
    """Bytes of a whole group, padding included."""
    return world * sum(m.padded(world) for m in group.members)
