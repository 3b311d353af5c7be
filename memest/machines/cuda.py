"""What torch's CUDA kernels are told besides the card: the cuDNN release, the switches of ``torch.backends``, the allocator's settings.

Sources: torch/backends/cudnn/__init__.py and torch/backends/cuda/__init__.py (the switches and their defaults),
aten/src/ATen/cuda/CublasHandlePool.cpp (``parseChosenWorkspaceSize``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar

from memest.errors import UsageError, did_you_mean
from memest.machines.versions import MODELLED, Version, text_of
from memest.machines.wheels import wheels
from memest.sizes.remembering import kept
from memest.sizes.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaSettings:
    """``cudnn`` is a release (None: the one that torch's wheel ships); ``enabled``, ``benchmark``, ``deterministic`` and ``cudnn_tf32``
    are ``torch.backends.cudnn``'s (it is enabled, with TF32, by default), ``matmul_tf32`` is ``torch.backends.cuda.matmul.allow_tf32``.
    ``alloc_conf`` is ``PYTORCH_CUDA_ALLOC_CONF``, ``cublas_workspace`` is ``CUBLAS_WORKSPACE_CONFIG`` ('' where it is not set)."""

    runtime: ClassVar[str] = "torch-cuda"

    cudnn: Version | None = None
    enabled: bool = True
    benchmark: bool = False
    deterministic: bool = False
    cudnn_tf32: bool = True
    matmul_tf32: bool = False
    alloc_conf: str = ""
    cublas_workspace: str = ""


LEAST_CUDNN: Version = (9, 8)
"""The first release that chooses plans for a card that is only described."""
MOST_WORKSPACE = 1 << 40
_PAIRS = re.compile(r":(\d{1,9}):(\d{1,9})", re.ASCII)
ASKED = {
    "cudnn": "cudnn",
    "enabled": "cudnn_enabled",
    "benchmark": "cudnn_benchmark",
    "deterministic": "cudnn_deterministic",
    "cudnn_tf32": "tf32",
    "matmul_tf32": "tf32",
    "alloc_conf": "alloc_conf",
    "cublas_workspace": "cublas_workspace",
}
"""The setting of a question behind each field."""
TF32 = {"conv": (True, False), "all": (True, True), "none": (False, False)}
"""Where TF32 is allowed: in cuDNN, in cuBLAS."""


def settings_from(
    *,
    cudnn: str | None,
    enabled: bool,
    benchmark: bool,
    deterministic: bool,
    tf32: str | None,
    alloc_conf: str | None,
    cublas_workspace: str | None,
) -> CudaSettings:
    """The settings behind texts. UsageError for one that cannot be meant."""
    if tf32 is not None and tf32 not in TF32:
        raise UsageError(f"tf32 {tf32!r} is not one of {', '.join(TF32)}{did_you_mean(tf32, TF32)}")
    in_cudnn, in_cublas = TF32[tf32 or "conv"]
    if cublas_workspace:
        configured_bytes(cublas_workspace)
    return CudaSettings(
        cudnn=None if cudnn is None else release_named(cudnn),
        enabled=enabled,
        benchmark=benchmark,
        deterministic=deterministic,
        cudnn_tf32=in_cudnn,
        matmul_tf32=in_cublas,
        alloc_conf=alloc_conf or "",
        cublas_workspace=cublas_workspace or "",
    )


@kept(16)
def configured_bytes(text: str) -> int:
    """Bytes of one cuBLAS workspace by ``:4096:2:16:8``: KiB and how many, in pairs. UsageError for a text of another form (of which torch
    would take the pairs that it finds, or its default), and for more than any card has."""
    if not re.fullmatch(f"(?:{_PAIRS.pattern})+", text):
        raise UsageError(f"cublas_workspace {text!r} is not of the form :KIB:COUNT, repeated, such as :4096:2:16:8, or :0:0 for none")
    asked = sum(int(size) * int(count) for size, count in _PAIRS.findall(text)) * 1024
    if asked > MOST_WORKSPACE:
        raise UsageError(f"cublas_workspace {text!r} asks for {format_bytes(asked)}: a size is in KiB, such as :4096:8 for 32 MiB")
    return asked


def shipped_with(version: Version) -> Version:
    """The cuDNN release that comes with a torch: that of the wheel which PyPI gives."""
    return wheels(version)[0].cudnn


def release_named(text: str) -> Version:
    """(9, 24) of ``9.24`` or ``9.24.0.43``; UsageError for a text that begins otherwise."""
    parts = text.split(".")
    if len(parts) < 2 or not all(p.isascii() and p.isdigit() and len(p) < 5 for p in parts):
        known = [text_of(release) for release in dict.fromkeys(shipped_with(v) for v in MODELLED)]
        raise UsageError(f"cudnn {text!r} is no release{did_you_mean(text, known) or '; such as ' + ' or '.join(known)}")
    release = int(parts[0]), int(parts[1])
    if not LEAST_CUDNN <= release < (10, 0):
        raise UsageError(
            f"cudnn {text!r} is not modelled: known are the releases of 9, from {text_of(LEAST_CUDNN)} on, whose plans can be asked"
        )
    return release


def refuse_settings(runtime: str, settings: CudaSettings | None) -> None:
    """UsageError where a runtime that has no CUDA kernels is given settings of theirs."""
    if settings is not None:
        given = list(dict.fromkeys(ASKED[f.name] for f in fields(settings) if getattr(settings, f.name) != f.default))
        raise UsageError(f"runtime {runtime} has no {', '.join(given)}: that is torch-cuda's (--runtime torch-cuda, --on a card)")
