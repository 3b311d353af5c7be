"""All calls that the recorder knows, from every file of this room; a later one speaks for its own names."""

from __future__ import annotations

from memest.sources.importers.torch.calls import (
    calculus,
    composed_losses,
    drawing,
    picking,
    plain,
    quantizing,
    recurrent,
    scattering,
    special,
)
from memest.sources.importers.torch.calls import complex as complex_numbers

CALLS: dict[str, plain.Call] = {
    **plain.CALLS,
    **special.CALLS,
    **complex_numbers.CALLS,
    **calculus.CALLS,
    **composed_losses.CALLS,
    **drawing.CALLS,
    **picking.CALLS,
    **quantizing.CALLS,
    **recurrent.CALLS,
    **scattering.CALLS,
}
