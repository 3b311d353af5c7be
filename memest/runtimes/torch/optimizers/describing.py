"""torch.optim's settings in our words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memest.errors import UsageError
from memest.runtimes.torch.optimizers.table import OPTIMIZERS
from memest.sizes.asked import is_tensor


def described(kind: str, given: Mapping[str, Any]) -> str:
    """An optimizer of torch's class ``kind`` with the settings ``given`` (those of a parameter group) as text: ``sgd:momentum=0.9``.
    UsageError for what is not modelled."""
    name = kind.lower()
    if name not in OPTIMIZERS:
        raise UsageError(f"optimizer {kind} is not modelled; there are {', '.join(OPTIMIZERS)}")
    row = OPTIMIZERS[name]
    for key in ("capturable", "differentiable"):
        if given.get(key):
            raise UsageError(f"optimizer {kind}: {key} is not modelled; leave it out")
    if is_tensor(given.get("lr")):
        raise UsageError(f"optimizer {kind}: a tensor as lr is not modelled; give a number")
    options = {}
    for key, default in row.options.items():
        setting = given.get(key, default)
        chosen_by_torch = default is None and setting is None
        options[key] = None if chosen_by_torch else float(setting or 0) if isinstance(default, float) else bool(setting)
    tail = ",".join(f"{k}={str(v).lower()}" for k, v in options.items() if v != row.options[k])
    return f"{name}:{tail}" if tail else name
