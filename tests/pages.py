"""Pages for tests, and a network whose names would be code on a page, were they not text."""

from __future__ import annotations

from typing import Any

import memest
from memest.network.graph import Graph
from memest.planning.page import PageModel, page_model
from memest.sources.builder import Builder

CPU = memest.Cpu(isa="avx512", threads=2)
NASTY = "</script><script>alert(1)</script><!-- \u2028 &amp; \"'"


def nasty_graph() -> Graph:
    """Batch norm and ReLU: no sealed kernels, so any size is quick."""
    b = Builder(NASTY)
    x = b.input("x", ("N", 3, "H", "W"))
    x = b.layer("batch_norm", x, name=f"norm{NASTY}")
    return b.build(b.layer("relu", x, name=f"act{NASTY}"))


def page_of(graph: Graph, *shape: int, **how: Any) -> PageModel:
    """The data of a page that opens at ``shape``: float32 and sgd unless ``how`` says more."""
    return page_model(graph, **{"input_shape": shape, "optimizers": ("sgd",), "dtypes": ("float32",), "machine": CPU, **how})
