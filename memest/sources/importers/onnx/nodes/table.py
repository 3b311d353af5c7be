"""Every operator of ONNX that is modelled."""

from __future__ import annotations

from memest.sources.importers.onnx.call import Handler
from memest.sources.importers.onnx.nodes import elementwise, recurrent, sequences, shaping, summing, windows

FAMILIES = (windows, elementwise, shaping, summing, recurrent, sequences)
HANDLERS: dict[str, Handler] = {name: handler for family in FAMILIES for name, handler in family.HANDLERS.items()}
