"""What a step is played for: a runtime, its version, and the machine it runs on. Part of every key under which something is remembered."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from memest.errors import UsageError
from memest.machines.cpu import Cpu
from memest.machines.cuda import CudaSettings
from memest.machines.engines import Engine
from memest.machines.gpu import Device, Gpu
from memest.machines.process import ProcessSettings
from memest.machines.versions import NEWEST, Version

TORCH_CPU, TORCH_CUDA = "torch-cpu", "torch-cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """``version`` is asked by the one helper whose kernel changed, ``machine`` by the kernels that choose by threads and caches, ``cuda``
    by those of torch's CUDA build (None elsewhere), ``engine`` is what an inference engine's session is told, ``process`` what the
    process around a step on a CPU is told (None: it is not counted).
    ``dispatched``: a mode of Python's (``TorchDispatchMode``, a selective checkpoint's) sees every call."""

    runtime: str = TORCH_CPU
    version: Version = NEWEST
    machine: Cpu | Gpu = field(default_factory=Cpu)
    cuda: CudaSettings | None = None
    engine: Engine | None = None
    process: ProcessSettings | None = None
    dispatched: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self._fields))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return _target, self._fields

    @property
    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in FIELDS)

    @property
    def on_cuda(self) -> bool:
        """Whether torch's CUDA kernels run."""
        return self.cuda is not None

    @property
    def device(self) -> Device:
        """What kernels ask of the accelerator; UsageError where the machine is none, or is not described."""
        if isinstance(self.machine, Gpu) and self.machine.device is not None:
            return self.machine.device
        raise UsageError(f"runtime {self.runtime} runs on a described accelerator, and {self.machine} is none")

    @property
    def settings(self) -> CudaSettings:
        """What torch's CUDA kernels are told besides the card."""
        assert self.cuda is not None
        return self.cuda

    @property
    def cpu(self) -> Cpu:
        """The processor; UsageError where the machine is none."""
        if isinstance(self.machine, Cpu):
            return self.machine
        raise UsageError(f"runtime {self.runtime} runs on a processor, {self.machine.name} is an accelerator")


def _target(*values: Any) -> Target:
    return Target(**dict(zip(FIELDS, values, strict=True)))


FIELDS = tuple(f.name for f in fields(Target) if f.init)
