"""Tensors that torch makes without telling: ``torch.Tensor(3)``, ``torch.FloatTensor([1, 2])`` and ``torch.range``.

They look like what stands there before a call, a table that a module keeps as an attribute. But nothing holds them: no module, no list, no
cell of a function; and torch's allocator made their memory, which numpy's arrays seen as tensors do not have.
"""

from __future__ import annotations

import gc
import types

import torch

ADVICE = (
    "a tensor that torch.Tensor(…), torch.FloatTensor(…) or torch.range makes, which memest cannot see: write torch.empty, torch.tensor or"
    " torch.arange"
)


PASSING: tuple[type, ...] = (tuple, list, dict, types.CellType, type(iter(())), type(iter([])), zip, enumerate, map)
DEEP = 4
"""Containers in containers that are looked through for somebody who holds a tensor."""


def is_made_unseen(t: torch.Tensor) -> bool:
    """Whether a tensor from elsewhere was made during the call."""
    if t.is_meta or isinstance(t, torch.nn.Parameter) or not t.untyped_storage().resizable() or gc.get_freeze_count():
        return False  # (what the collector has frozen it does not look through)
    level: list[object] = [t]
    passed = {id(level)}
    for _ in range(DEEP):
        found = gc.get_referrers(*level)
        passed |= {id(found), *map(id, level)}
        level = [holder for holder in found if id(holder) not in passed and not _is_of_the_call(holder)]
        passed.add(id(level))
        if not level:
            return True
        if any(type(holder) not in PASSING for holder in level):
            return False
    return False


def _is_of_the_call(holder: object) -> bool:
    """Frames, what memest itself holds it by, and what goes through a list."""
    where = getattr(holder, "__module__", None) if isinstance(holder, types.FunctionType) else type(holder).__module__
    return isinstance(holder, types.FrameType | types.GeneratorType) or str(where).startswith("memest.")
