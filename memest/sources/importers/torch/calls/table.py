"""All calls that the recorder knows, from every file of this room; a later one speaks for its own names."""

from __future__ import annotations

from memest.sources.importers.torch.calls import complex as complex_numbers
from memest.sources.importers.torch.calls import dense, picking, plain, recurrent, special

CALLS: dict[str, plain.Call] = {**plain.CALLS, **special.CALLS, **complex_numbers.CALLS, **picking.CALLS, **recurrent.CALLS, **dense.CALLS}
