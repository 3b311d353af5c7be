"""The target that a file of results was measured on."""

from __future__ import annotations

from typing import Any

from memest.machines.cuda import CudaSettings
from memest.machines.devices import gpu_of
from memest.machines.reading import hardware_named
from memest.machines.target import Target
from memest.runtimes.torch.cuda.runtime import RUNTIME


def target_of(head: dict[str, Any], **settings: Any) -> Target:
    """torch on CUDA as the labels of results say, with the settings of a case."""
    release = int(head["cudnn"])
    given = CudaSettings(cudnn=(release // 10000, release // 100 % 100), **settings)
    return RUNTIME.target(gpu_of(hardware_named(head["card"])), head["torch"], None, given)
