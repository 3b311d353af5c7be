"""All calls that the recorder knows, from every file of this room; a later one speaks for its own names."""

from __future__ import annotations

from memest.sources.importers.torch.calls import (
    arrays,
    calculus,
    composed_losses,
    dense,
    drawing,
    dynamic_quantization,
    picking,
    plain,
    quantizing,
    recurrent,
    scattering,
    sequences,
    special,
    torchvision,
    values,
)
from memest.sources.importers.torch.calls import complex as complex_numbers

FILES = (
    plain,
    special,
    complex_numbers,
    calculus,
    composed_losses,
    dense,
    drawing,
    dynamic_quantization,
    picking,
    quantizing,
    recurrent,
    scattering,
    sequences,
    values,
    torchvision,
    arrays,
)
CALLS: dict[str, plain.Call] = {name: call for file in FILES for name, call in file.CALLS.items()}
ANSWERS = {**values.ANSWERS, **recurrent.ANSWERS}
"""What is taken apart before it is recorded: each gets the recorder, the function, and its arguments."""
