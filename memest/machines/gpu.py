"""An accelerator as the kernel libraries see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from memest.errors import UsageError, kind_of
from memest.machines.architectures import Architecture, Capability, architecture_of, capability_text

WHOLE = (
    "multiprocessors",
    "threads_per_multiprocessor",
    "l2_bytes",
    "sm_clock_khz",
    "memory_clock_khz",
    "memory_bytes",
)
PLAIN_SHARED_BYTES = 48 * 1024
BLOCK_THREADS = 1024
BLOCK_REGISTERS = 65536
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_THREADS = (1024, 1024, 64)
CUDA = 13000  # the driver's version as CUDA writes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An NVIDIA device as its driver describes it: ``title`` as the driver names it, ``memory_bytes`` the total that the CUDA runtime
    states, clocks at their most. ``source`` says where the numbers are from."""

    title: str
    capability: Capability
    multiprocessors: int
    threads_per_multiprocessor: int
    l2_bytes: int
    sm_clock_khz: int
    memory_clock_khz: int
    memory_bytes: int
    source: str = field(default="as given", compare=False)

    def __post_init__(self) -> None:
        """UsageError for what no device is."""
        if not isinstance(self.title, str) or not self.title:
            raise UsageError(f"Device: title is a text, got {kind_of(self.title)}")
        _check_whole("Device", self, WHOLE)
        architecture_of(self.capability)

    @property
    def architecture(self) -> Architecture:
        """What follows from the compute capability."""
        return architecture_of(self.capability)

    def properties(self, driver: int = CUDA) -> dict[str, Any]:
        """The device as the JSON that cuDNN takes in place of one (``CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION``, since cuDNN 9.8)."""
        limits = self.architecture
        return {
            "cudaDeviceId": 0,
            "deviceVer": 100 * self.capability[0] + 10 * self.capability[1],
            "driverVer": driver,
            "isTccDriver": 0,
            "l2CacheSize": self.l2_bytes,
            "maxCtasPerSM": limits.blocks_per_multiprocessor,
            "maxRegistersPerSM": limits.registers_per_multiprocessor,
            "maxSharedMemoryPerBlock": PLAIN_SHARED_BYTES,
            "maxSharedMemoryPerBlockOptin": limits.shared_bytes,
            "reservedSharedMemoryPerBlock": limits.shared_bytes_reserved,
            "maxThreadsPerBlock": BLOCK_THREADS,
            "maxThreadsPerSM": self.threads_per_multiprocessor,
            "memClockRateKHz": self.memory_clock_khz,
            "multiProcessorCount": self.multiprocessors,
            "pciDeviceId": 0,
            "regsPerBlock": BLOCK_REGISTERS,
            "smClockRateKHz": self.sm_clock_khz,
            "supportCoopLaunch": int(limits.cooperative),
            "totalGlobalMem": self.memory_bytes,
            "warpSize": 32,
            "maxGridSize": list(MOST_BLOCKS),
            "maxBlockSize": list(MOST_THREADS),
            "deviceName": self.title,
        }

    def __str__(self) -> str:
        return f"{self.title} (compute capability {capability_text(self.capability)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """An accelerator: its name in the catalogue, the bytes of its memory that a program meets, and the device where it is described."""

    name: str
    memory_bytes: int
    device: Device | None = None

    def __post_init__(self) -> None:
        """UsageError for what no accelerator is."""
        if not isinstance(self.name, str) or not self.name:
            raise UsageError(f"Gpu: name is a text, got {kind_of(self.name)}")
        _check_whole("Gpu", self, ("memory_bytes",))
        if not isinstance(self.device, Device | None):
            raise UsageError(f"Gpu: device is a Device, got {kind_of(self.device)}")


def _check_whole(whose: str, of: object, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(of, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{whose}: {name} is a whole number of at least 1, got {kind_of(value)}")
