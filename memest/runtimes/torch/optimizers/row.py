"""What an optimizer is made of, and the options all of them have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memest.network.tensor import Spec
from memest.runtimes.torch.optimizers.stepper import Stepper

COMMON: dict[str, Any] = {"foreach": None, "fused": False, "maximize": False, "weight_decay": 0.0}
"""``foreach`` is None where torch chooses: the for-loop on a CPU, foreach on CUDA."""
CAPTURABLE = {**COMMON, "capturable": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One optimizer. ``states`` lists a parameter's state tensors in the order of creation; ``created`` says whether the step creates
    them (Adagrad's constructor does, SGD's momentum appears inside the loop: ``lazy``). ``single`` plays one parameter of the for-loop,
    ``foreach`` the whole list, ``fused`` what the fused step does besides its kernel (None: torch has no fused variant). Step counters
    stay on the CPU unless they ``count_on_device``; ``create`` makes the states where that takes more than their bytes."""

    options: Mapping[str, Any]
    states: Callable[[Spec, Mapping[str, Any]], list[Spec]]
    created: str
    single: Callable[[Stepper, Spec], None]
    foreach: Callable[[Stepper, Sequence[Spec]], None]
    fused: Callable[[Stepper, Sequence[Spec]], None] | None
    source: str
    count_on_device: bool = False
    create: Callable[[Stepper, Spec, str], None] | None = None


def count_each(s: Stepper, ps: Sequence[Spec]) -> None:
    """A fused step counts parameter by parameter."""
    for _ in ps:
        s.count_step()
