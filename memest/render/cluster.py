"""A cluster's plan as a report: a row a layout, the one that is the answer first among the facts."""

from __future__ import annotations

from typing import Any

from memest.planning.cluster import ClusterPlan, ClusterWay
from memest.render.report import Kind, Report, Table, shapes
from memest.render.reports import figure_text, torch_cells, torch_notes
from memest.shown import counted, visible
from memest.sizes.units import format_bytes

COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("nodes", "count"),
    ("ranks", "count"),
    ("threads", "count"),
    ("batch", "count"),
    ("a rank", "bytes"),
    ("exchange", "bytes"),
    ("loaders", "bytes"),
    ("a node", "bytes"),
    ("at most", "bytes"),
    ("spills", "bytes"),
    ("verdict", "text"),
)
DROPS = ("exchange", "loaders", "threads", "a rank")
SHEET: tuple[tuple[str, Kind], ...] = tuple(
    (name, "text")
    for name in (
        "nodes", "ranks_per_node", "threads", "batch_per_rank", "rank_bytes", "exchange_bytes", "loader_bytes", "node_bytes",
        "node_low_bytes", "node_high_bytes", "spilled_bytes", "verdict",
    )
)  # fmt: skip


def cluster_report(plan: ClusterPlan) -> Report:
    """The answer, and the layouts it was chosen from."""
    first = plan.ways[0].estimate
    fed = any(way.loaders is not None for way in plan.ways)
    columns = tuple(c for c in COLUMNS if fed or c[0] != "loaders")
    rows = tuple(tuple(v for v, c in zip(_row(way), COLUMNS, strict=True) if fed or c[0] != "loaders") for way in plan.ways)
    volume = shapes([next(iter(first.input_shapes.values()))[1:]])
    part = f", in {plan.split} parts" if plan.split > 1 else ""
    return Report(
        title=visible(f"{plan.graph}: {first.how}, {counted(plan.global_batch, 'volume')} of {volume}{part} at once, {first.where}"),
        facts=(*_answer(plan), ("exchange", str(plan.exchange)), ("compared", plan.ways[0].verdict.claim.compared)),
        tables=(Table(title=f"Nodes of {plan.place.name}; ranks are those of a node", columns=columns, rows=rows, drops=DROPS),),
        data=_data(plan),
        sheet=Table(title="", columns=(*SHEET, *((n, "text") for n in torch_cells(first.torch))), rows=[_cells(w) for w in plan.ways]),
        notes=(*plan.notes, *_said(plan), *torch_notes(first.torch)),
    )


def _answer(plan: ClusterPlan) -> tuple[tuple[str, str], ...]:
    best, fast, room = plan.best, plan.fast, plan.place.tiers[0]
    if best is None:
        return (("answer", f"no layout holds it on {plan.place.name} ({format_bytes(plan.place.usable_bytes)} a node)"),)
    found = [("answer", layout_text(best)), ("a rank", figure_text(best.rank)), ("a node", figure_text(best.node))]
    if best.spills:
        later = " and ".join(use.tier.name for use in best.verdict.tiers[1:] if use.used_bytes) or plan.place.tiers[1].name
        found.append(
            ("spills", f"{format_bytes(best.spills)} a node into {later}, {room.name} is full ({format_bytes(room.usable_bytes)})")
        )
        within = f"{layout_text(fast)}" if fast is not None else "no layout tried"
        found.append((f"in {room.name}", within))
    return tuple(found)


def layout_text(way: ClusterWay) -> str:
    """``2 nodes, 4 ranks each of 28 threads with a batch of 2``."""
    each = f"{counted(way.ranks, 'rank')}{' each' if way.nodes > 1 else ''}"
    return f"{counted(way.nodes, 'node')}, {each} of {counted(way.threads, 'thread')} with a batch of {way.batch}"


def _said(plan: ClusterPlan) -> tuple[str, ...]:
    """What the figures rest on."""
    way = plan.best or plan.ways[0]
    process = way.estimate.process
    missing = () if process.bytes is not None else (process.reason,)
    return (*missing, f"a rank's step is played as one of {way.world}; {way.exchange.reason}", f"a node is {way.node.reason}")


def _row(way: ClusterWay) -> tuple[Any, ...]:
    loaders = None if way.loaders is None else way.loaders.bytes
    return (
        *way.cells, way.batch, way.rank.bytes, way.exchange.bytes, loaders, way.node.bytes, way.node.high, way.spills, way.verdict.outcome,
    )  # fmt: skip


def _cells(way: ClusterWay) -> tuple[Any, ...]:
    *row, _, spills, outcome = _row(way)
    return (*row, way.node.low, way.node.high, spills, outcome, *torch_cells(way.estimate.torch).values())


def _data(plan: ClusterPlan) -> dict[str, Any]:
    best, fast = plan.best, plan.fast
    first = plan.ways[0].estimate
    return {
        "graph": plan.graph,
        "global_batch": plan.global_batch,
        "split": plan.split,
        "exchange": str(plan.exchange),
        "on": plan.place.name,
        "usable_bytes": plan.place.usable_bytes,
        "torch": first.torch.to_dict(),
        "settings": first.question.asked() | {"machine": None},
        "answer": None if best is None else way_data(best),
        "in_first_tier": None if fast is None else way_data(fast),
        "ways": [way_data(way) for way in plan.ways],
        "notes": list(plan.notes),
    }


def way_data(way: ClusterWay) -> dict[str, Any]:
    """A layout as plain data."""
    return {
        "nodes": way.nodes,
        "ranks_per_node": way.ranks,
        "threads": way.threads,
        "batch_per_rank": way.batch,
        "rank": way.rank.to_dict(),
        "exchange": way.exchange.to_dict(),
        "loaders": None if way.loaders is None else way.loaders.to_dict(),
        "node": way.node.to_dict(),
        "tiers": {use.tier.name: use.used_bytes for use in way.verdict.tiers},
        "spilled_bytes": way.spills,
        "verdict": way.verdict.outcome,
        "holds": way.holds,
    }
