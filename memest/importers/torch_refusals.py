"""Why a call of torch is refused, in the words of somebody who has to change his code."""

from __future__ import annotations

from typing import Any

import torch.utils.checkpoint
from torch.nn.modules._functions import BackwardHookFunction

from memest.importers.torch_functions import full_name, name_of

_VALUES = "reads a tensor's value, which nobody knows before anything runs"
_READS = {
    **dict.fromkeys(("item", "tolist", "numpy", "__array__", "__int__", "__float__", "__index__", "__complex__"), _VALUES),
    **dict.fromkeys(("__bool__", "is_nonzero", "equal", "allclose", "__contains__"), "branches on a tensor's value"),
    **dict.fromkeys(
        ("nonzero", "argwhere", "unique", "unique_consecutive", "bincount", "masked_select"), "has a size that depends on values"
    ),
}
_ADVICE = "; decide by shapes or by a constructor argument, and keep logging out of forward"
_GRADIENTS = {
    "torch.autograd.grad": "gradients taken inside forward are not modelled",
    "backward": "a backward pass inside forward is not modelled",
    "register_hook": "a tensor's hook is not modelled",
    "register_post_accumulate_grad_hook": "a tensor's hook is not modelled",
    "retain_grad": "a kept gradient is not modelled",
    "__set__:requires_grad": "turning gradients on or off inside forward is not modelled: freeze before the step",
    "__set__:grad": "writing a gradient inside forward is not modelled",
    "__set__:data": "exchanging a tensor's data inside forward is not modelled: write in place (copy_, mul_) under torch.no_grad()",
}


def reason_against(func: Any) -> str | None:
    """Why the call of ``func`` cannot be recorded, where that can be said better than that it has no rule."""
    name, full = name_of(func), full_name(func)
    if name in _READS:
        return f"{full}() {_READS[name]}{_ADVICE}"
    reason = _GRADIENTS.get(full) or (_GRADIENTS.get(name) if name != "grad" else None)
    return None if reason is None else f"{full}: {reason}"


def function_refused(function: Any) -> str:
    """What a custom autograd function that would take part in backward is called."""
    if function is torch.utils.checkpoint.CheckpointFunction:
        return "torch.utils.checkpoint with use_reentrant=True (use_reentrant=False is modelled)"
    if function is BackwardHookFunction:
        return "a module's full backward hook"
    return f"the custom autograd function {function.__name__}: what it keeps and what its backward allocates is not modelled"


def explanation(error: Exception) -> str | None:
    """What torch means when a forward on meta tensors fails for want of values; None for any other error."""
    text = str(error)
    signs = ("meta tensor", "data-dependent", "item()", "Meta tensors", "meta device", "on meta")
    if isinstance(error, NotImplementedError) or any(s in text for s in signs):
        return f"the network looks at values, not only at shapes ({' '.join(text.split())[:200]})"
    return None
