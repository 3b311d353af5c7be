"""Why a call of torch is refused, in the words of somebody who has to change his code."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import traceback
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

import memest
from memest.errors import GraphError, MemestError
from memest.shown import visible
from memest.sizes.remembering import kept
from memest.sources.importers.torch.functions import full_name, name_of

_MEMESTS, _TORCHS = (str(Path(str(m.__file__)).parent) + os.sep for m in (memest, torch))
_NOT_THE_USERS = (_MEMESTS, _TORCHS, copy.__file__, contextlib.__file__)
_VALUE = "reads a tensor's value, which nobody knows before anything runs"
_SIZE = "has a size that depends on values"
_READS = {  # torch's name of the call: what the user wrote, and what that does
    "__complex__": ("complex(tensor)", _VALUE),
    "__index__": ("a tensor as a size or an index", _VALUE),
    "unique_consecutive": ("torch.unique_consecutive()", _SIZE),
}
ADVICE = "decide by shapes or by a constructor argument"
_OUTSIDE = "compute it by torch's own calls, or outside of forward and give it as an input"
_ADVICE_FOR = {
    **dict.fromkeys(("numpy", "__array__", "__complex__"), _OUTSIDE),
    "unique_consecutive": "find them before the step, and give them to forward as an input",
}
_GRADIENTS = {
    "__deepcopy__": (
        "copy.deepcopy of a module, or of a tensor that requires a gradient or is part of another: make the copy before the step, and"
        " update it there by copy_ under no_grad"
    ),
    "torch.autograd.grad": "torch.autograd.grad inside forward is modelled in a whole training step: memest.step(your_step, …)",
    "backward": "Tensor.backward: a backward pass inside forward is not modelled",
    "register_post_accumulate_grad_hook": (
        "Tensor.register_post_accumulate_grad_hook inside forward is not modelled: register it once, outside, and give the whole step to"
        " memest.step"
    ),
    **dict.fromkeys(
        ("_make_dual", "_unpack_dual"),
        "torch.func.jvp, jacfwd and torch.autograd.forward_ad: forward-mode derivatives are not modelled; torch.autograd.grad is",
    ),
    "retain_grad": "Tensor.retain_grad in a module alone, whose gradient somebody else takes: give the whole step to memest.step",
    "__set__:requires_grad": "tensor.requires_grad = …: turning gradients on or off inside forward is not modelled: freeze before the step",
    "__set__:grad": "tensor.grad = …: writing a gradient inside forward is not modelled",
}


AS_TAKEN = "where that is an input, give the example in the form that forward takes: [[image, image]] is one list, {'image': image} a dict"
_ADVICE_ON = {  # what to do about an exception of the user's code, and what it says
    "this line needs a GPU, and nothing runs on one here: guard it by torch.cuda.is_available(), or make tensors on x.device": (
        *("not compiled with CUDA", "without CUDA support", "requires CUDA support", "No CUDA GPUs are available", "dummy base class"),
        *("Found no NVIDIA driver", "has no attribute '_cuda_", "NVTX functions not installed"),
    ),
    "an input given by its shape is of floating dtype; whole numbers are torch.zeros(shape, dtype=torch.int64), in a command y=8xint64": (
        *("Expected dtype int32/int64 for index", "expected scalar type Long"),
    ),
    AS_TAKEN: ("'Tensor' object has no attribute",),
    "a batch norm refuses that in training: give an example with a batch of 2 or more, or ask for inference alone (mode='infer')": (
        "Expected more than 1 value per channel when training",
    ),
}


def reason_against(func: Any) -> str | None:
    """Why the call of ``func`` cannot be recorded, where that can be said better than that it has no rule."""
    name = name_of(func)
    if name in _READS:
        written, does = _READS[name]
        return f"{written} {does}; {_ADVICE_FOR.get(name, ADVICE)}"
    return _GRADIENTS.get(full_name(func)) or _GRADIENTS.get(name)


def text_of(error: BaseException) -> str:
    """What an exception says, on one line; nothing where that fails."""
    try:
        return visible(" ".join(str(error).split())[:300])
    except Exception:
        return ""


@kept(1_024)
def is_users(file: str) -> bool:
    """Whether a file of code is neither memest's nor torch's."""
    return not file.startswith(_NOT_THE_USERS)


@kept(1_024)
def _users_file(file: str) -> str:
    """Its name without folders; nothing where it is not the user's."""
    return file.rpartition("/")[2] if is_users(file) else ""


def users_line(frames: Iterable[traceback.FrameSummary]) -> str:
    """``net.py:31``: the innermost line that is neither memest's nor torch's; nothing where there is none."""
    users = (f for f in reversed(list(frames)) if not f.filename.startswith(_NOT_THE_USERS))
    return next((f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in users), "")


def defined_at(function: Any) -> str:
    """`` (net.py:12)``: where a function of the user's is written; nothing where that is not known."""
    while isinstance(function, partial):
        function = function.func
    code = getattr(getattr(function, "__func__", function), "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return "" if code is None else f" ({code.co_filename.rpartition('/')[2]}:{code.co_firstlineno})"


def users_frame() -> FrameType | None:
    """The innermost frame that runs neither memest's code nor torch's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame = frame.f_back
    return frame


def line_in(end: CodeType) -> str:
    """``net.py:31``: the innermost line that runs neither memest's code nor torch's, inside of what ``end`` calls; nothing without one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (code := frame.f_code) is not end:
        if name := _users_file(code.co_filename):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def of_their_code(error: BaseException, name: str) -> MemestError | None:
    """An exception of the user's code outside of a forward (an overridden ``train``, a property), told with its line; None where the line
    is not his."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_TORCHS)]
    if isinstance(error, MemestError) or not frames or frames[-1].filename.startswith(_NOT_THE_USERS):
        return None
    return GraphError(f"{name} ({users_line(frames)}): {told(error)}")


def told(error: BaseException) -> str:
    """An exception of the user's code, and what to do about it where that is known."""
    text = text_of(error)
    if not text and (frames := [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]):
        text = visible((frames[-1].line or "")[:100])  # an assertion that says nothing
    advice = next((f"; {advice}" for advice, signs in _ADVICE_ON.items() if any(sign in text for sign in signs)), "")
    return f"{type(error).__name__}{': ' if text else ''}{text}{advice}"


def explanation(error: BaseException) -> str | None:
    """What torch means when a forward on meta tensors fails for want of values; None for any other error."""
    text = text_of(error)
    if "hook to be called inside a backward call" in text:
        return 'torch.autograd.graph.register_multi_grad_hook(mode="any") is not modelled; Tensor.register_hook is'
    signs = ("Could not run 'aten::", "meta tensor", "data-dependent", "item()", "Meta tensors", "meta device", "on meta")
    if any(s in text for s in signs):
        return f"the network looks at values, not only at shapes ({text[:200]})"
    return None
