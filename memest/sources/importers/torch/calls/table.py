"""All calls that the recorder knows, from every file of this room; a later one speaks for its own names."""

from __future__ import annotations

from memest.sources.importers.torch.calls import complex as complex_numbers
from memest.sources.importers.torch.calls import dense, picking, plain, recurrent, special, torchvision, values

FILES = (plain, special, complex_numbers, picking, recurrent, dense, values, torchvision)
CALLS: dict[str, plain.Call] = {name: call for file in FILES for name, call in file.CALLS.items()}
