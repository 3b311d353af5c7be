"""The dtype of a network: its parameters, buffers and inputs in another floating type, as ``torch.nn.Module.to(dtype)`` makes them.

Only floating tensors change; integer ones (indices, ``num_batches_tracked``) and dtypes that a layer names (``x.float()``) stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from memest.errors import UnknownNameError, UsageError, one_of
from memest.network.dtypes import ALIASES, FLOATING, FLOATING_RANK, ITEMSIZE, dtype_name
from memest.network.graph import Graph

MIXED = "mixed"


def floating_dtype(name: str) -> str:
    """Torch's name of a dtype that a network can be converted to (``bf16`` is bfloat16); UnknownNameError or UsageError otherwise."""
    name = dtype_name(name)
    if name in FLOATING:
        return name
    if name in ITEMSIZE:
        raise UsageError(f"dtype {name!r}: a network is converted to {', '.join(reversed(FLOATING_RANK))}")
    raise UnknownNameError(f"unknown dtype {name!r}{one_of(name, FLOATING_RANK, ALIASES)}")


def converted(graph: Graph, dtype: str) -> Graph:
    """``graph`` with its floating parameters, buffers and inputs in ``dtype``; remembered on ``graph``."""
    return graph.memo.find("dtypes", dtype, len(FLOATING), lambda: _converted(graph, dtype))


def _converted(graph: Graph, dtype: str) -> Graph:
    parameters = tuple(replace(p, dtype=dtype) if p.dtype in FLOATING else p for p in graph.parameters)
    inputs = tuple(replace(i, dtype=dtype) if i.dtype in FLOATING else i for i in graph.inputs)
    same = parameters == graph.parameters and inputs == graph.inputs
    return graph if same else graph.with_(parameters=parameters, inputs=inputs)


def dtype_of(graph: Graph) -> str:
    """The floating dtype that parameters and inputs share, ``mixed`` where there are several, float32 where there is none."""
    return graph.memo.find("dtype", None, 1, lambda: _shared_dtype(graph))


def _shared_dtype(graph: Graph) -> str:
    found = set(_floating(graph))
    return MIXED if len(found) > 1 else next(iter(found), "float32")


def _floating(graph: Graph) -> Iterable[str]:
    yield from (p.dtype for p in graph.parameters if p.dtype in FLOATING)
    yield from (i.dtype for i in graph.inputs if i.dtype in FLOATING)
