"""What cuBLAS and cuBLASLt keep: one workspace a thread and stream, from torch's caching allocator.

Sources: aten/src/ATen/cuda/CUDABlas.cpp, CublasHandlePool.cpp (``getChosenWorkspaceSize``, ``parseChosenWorkspaceSize``).
"""

from __future__ import annotations

import re

from memest.errors import UsageError
from memest.machines.target import Target
from memest.ops.tape import Tape
from memest.sizes.remembering import kept

KIB = 1024
HOPPER = 32 * 1024 * KIB
ELSEWHERE = 4096 * KIB * 2 + 16 * KIB * 8
_PAIRS = re.compile(r":(\d{1,9}):(\d{1,9})")


def cublas(k: Tape) -> None:
    """A product by cuBLAS (or cuBLASLt, which shares the workspace) is about to run: its thread's handle has a workspace from now on."""
    k.keep("cuBLAS", workspace_bytes(k.target))


def workspace_bytes(target: Target) -> int:
    """Bytes of one workspace: those of ``CUBLAS_WORKSPACE_CONFIG`` where it is set, else by architecture."""
    config = target.settings.cublas_workspace
    if config:
        return configured(config)
    major = target.device.capability[0]
    large = major in (9, 10, 12) if target.version >= (2, 14) else major == 9
    return HOPPER if large else ELSEWHERE


@kept(16)
def configured(text: str) -> int:
    """Bytes of ``:4096:2:16:8``: KiB and how many, in pairs. UsageError for a text of another form."""
    if not re.fullmatch(f"(?:{_PAIRS.pattern})+", text):
        raise UsageError(f"cublas_workspace {text!r} is not of the form :KIB:COUNT, repeated, such as :4096:2:16:8")
    return sum(int(size) * int(count) for size, count in _PAIRS.findall(text)) * KIB
