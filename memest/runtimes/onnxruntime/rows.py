"""What ONNX Runtime has a rule for: the operators that can be written as nodes, each of which allocates its outputs, and what its kernel
asks for besides (:mod:`memest.runtimes.onnxruntime.kernels`)."""

from __future__ import annotations

from collections.abc import Container

from memest.runtimes.rewriting import DROPOUTS
from memest.runtimes.runtime import Rows


class _Written:
    """The names of operators that become nodes, or nothing; looked up when they are asked for."""

    def __contains__(self, name: object) -> bool:
        from memest.runtimes.onnxruntime.lowering.exporting import handlers

        return name in handlers() or name in DROPOUTS


WRITTEN: Container[str] = _Written()
ROWS = Rows("onnxruntime", plain=WRITTEN)
