"""Optimizers of torch's that the step itself makes (inner loops of meta-learning, images that are optimized): torch's own code runs, call
by call, as it does on a CPU, and its state dies when Python lets the optimizer die.

Source: torch/optim/optimizer.py (hooks around every step), torch/optim/adam.py and the like (``_get_value`` reads the number of a step).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch.optim import Optimizer, optimizer

from memest.sources.importers.torch.contexts.stage import Stage
from memest.sources.importers.torch.steps import lbfgs
from memest.sources.importers.torch.tensors.places import NOT_YET

NOT_FOLLOWED = (
    "an optimizer ({}) that the step reaches in a way memest does not follow: make it before the step, and give it as an argument, or make"
    " it in the step"
)
AS_ON_A_CPU = "an optimizer made in the step, whose code is played as on a CPU"


class MadeOptimizers:
    """Those of one recording. ``note`` takes what a reader of the answer should know; ``evaluations`` are those of a line search."""

    def __init__(self, stage: Stage, note: Callable[[str], None], evaluations: Callable[[], int]) -> None:
        self._stage = stage
        self._note = note
        self._evaluations = evaluations
        self._steps: WeakKeyDictionary[Optimizer, tuple[int, list[bool]]] = WeakKeyDictionary()
        self._number: int | None = None
        self._current: Callable[[], Optimizer | None] = lambda: None

    def begin(self, made: Optimizer) -> None:
        """Its step begins. UnsupportedError where it was not made in this call of the step."""
        live, stepped = self._stage.live, list[bool]()
        for group in made.param_groups:
            for p in group["params"]:
                entry = live.found(p)
                of_this_call = entry is not None and entry.ref() is p
                if not of_this_call:
                    raise self._stage.refusal(NOT_FOLLOWED.format(type(made).__name__))
                stepped.append(p.grad is not None)
            option = next((name for name in ("fused", "foreach") if group.get(name)), None)
            if option is not None:
                raise self._stage.refusal(f"{type(made).__name__}({option}=True) that is made in the step: leave {option} out there")
        self._stage.refuse_card(AS_ON_A_CPU, NOT_YET)
        self._current = ref(made)  # Python lets it die when the step does
        before, those = self._steps.get(made, (0, stepped))
        self._steps[made] = before + 1, stepped
        self._number = before + 1 if stepped == those else None  # the same of all
        if isinstance(made, torch.optim.LBFGS):
            group = made.param_groups[0]
            self._note(lbfgs.ASSUMED.format(lbfgs.FRESH, lbfgs.calls_of(group, self._evaluations() if group["line_search_fn"] else 1)))

    def number(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``step.item()`` in the code of torch's optimizers is the number of the step, where that is the same for all parameters."""
        made = self._current()
        if made is None or self._number is None or all(state.get("step") is not args[0] for state in made.state.values()):
            return NotImplemented
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and (frame.f_globals.get("__name__") or "").startswith("memest."):
            frame = frame.f_back
        asks = frame is not None and frame.f_code.co_filename == optimizer.__file__
        return float(self._number) if asks else NotImplemented
