"""Calls of quantization-aware training."""

from __future__ import annotations

from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.sources.importers.torch.calls.plain import Call, Request, bound, request

FUSED = (
    *("input", "observer_on", "fake_quant_on", "running_min", "running_max", "scale", "zero_point"),
    *("averaging_const", "quant_min", "quant_max", "ch_axis", "per_row_fake_quant", "symmetric_quant"),
)


SWITCHES = {"observes": ("observer_on", "disable_observer"), "rounds": ("fake_quant_on", "disable_fake_quant")}


def _is_off(switch: torch.Tensor, recorder: Any) -> bool:
    """Whether the network's own tensor, which a twin stands in for, is zero."""
    name = recorder.live.known(switch).names[0]
    if not recorder.constants.is_unwritten(name):
        raise UnsupportedError("a fake quantizer that is switched on or off here: do that before, and ask for what runs then")
    original = next((t for path, t in recorder.owned.tensors if path == name), None)
    with torch._C.DisableTorchFunction():
        return original is not None and not original.is_meta and not bool(original.any())


def _fused(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """Observing and rounding in one."""
    given = bound(FUSED, args, kwargs)
    given["input"] = given.pop("self", given.get("input"))
    off = {does: switch for does, (role, switch) in SWITCHES.items() if _is_off(given[role], recorder)}
    for switch in off.values():
        recorder.assumed.say(f"a fake quantizer stays switched off, as it is now (torch.ao.quantization.{switch})")
    if given["per_row_fake_quant"] and given["running_min"].numel() == 0:
        raise UnsupportedError("an observer by channel that has seen nothing yet has no size: call the module once before, on one example")
    made = request(name, given, dict.fromkeys(off, False))
    made.own_result = True
    return made


def _per_tensor(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """By numbers."""
    given = bound(("input", "scale", "zero_point", "quant_min", "quant_max"), args, kwargs)
    if isinstance(given["scale"], torch.Tensor):
        raise UnsupportedError("fake_quantize_per_tensor_affine with a tensor as its scale has no rule: give numbers")
    return request(name, given, {})


def _per_channel(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    return request(name, bound(("input", "scale", "zero_point", "axis", "quant_min", "quant_max"), args, kwargs), {})


CALLS: dict[str, Call] = {
    "fused_moving_avg_obs_fake_quant": _fused,
    "fake_quantize_per_tensor_affine": _per_tensor,
    "fake_quantize_per_channel_affine": _per_channel,
}
