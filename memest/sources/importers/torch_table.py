"""All calls that the recorder knows, from every room."""

from __future__ import annotations

from memest.sources.importers import torch_calls, torch_complex, torch_picking, torch_recurrent

CALLS: dict[str, torch_calls.Call] = {**torch_calls.CALLS, **torch_complex.CALLS, **torch_picking.CALLS, **torch_recurrent.CALLS}
