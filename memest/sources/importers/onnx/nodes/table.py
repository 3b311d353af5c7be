"""Every operator of ONNX that is modelled."""

from __future__ import annotations

from memest.sources.importers.onnx.call import Handler
from memest.sources.importers.onnx.nodes import elementwise, recurrent, shaping, summing, windows

HANDLERS: dict[str, Handler] = {**windows.HANDLERS, **elementwise.HANDLERS, **shaping.HANDLERS, **summing.HANDLERS, **recurrent.HANDLERS}
