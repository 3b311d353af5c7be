"""How ranks average their gradients, and what that takes of a rank besides its own step.

``ddp`` is torch's DistributedDataParallel, whose buckets are played with the step; ``horovod`` reduces each gradient in place, those that
are ready together through one fusion buffer. Under both lies a ``backend`` with buffers of its own for each reduction:

- gloo: a ring with two segments of at most 1 MiB each (gloo/allreduce.cc, ``ring``; ``kMaxSegmentSize``), and two reductions at a time
  (torch/distributed: ProcessGroupGloo has two threads).
- mpi: Open MPI's ring takes twice the message over the ranks (ompi/mca/coll/base/coll_base_allreduce.c), its recursive doubling and
  MPICH's reduce-scatter with all-gather (src/mpi/coll/allreduce) as much as the message.
- ccl: oneCCL's algorithms on host memory are of the same kinds (its guide: "Collective Algorithms Selection"); nothing was measured.

Horovod's fusion buffer is there for good, of HOROVOD_FUSION_THRESHOLD (128 MiB, 64 MiB up to 0.20: horovod/common/operations.cc, its
CHANGELOG, #2468), rounded up to 512 bytes a local rank (horovod/common/controller.cc); what gradients never fill is never touched. torch's
gradients are averaged in place (horovod/torch/mpi_ops.py), TensorFlow's into tensors of their own (horovod/tensorflow/mpi_ops.cc).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memest.errors import UnknownNameError, UsageError, one_of
from memest.memory.figure import Figure, modelled
from memest.sizes.remembering import kept
from memest.sizes.units import format_bytes, parse_bytes

BACKENDS = ("gloo", "mpi", "ccl")
OPTIONS: Mapping[str, tuple[str, ...]] = {"ddp": ("backend", "bucket_cap_mb", "gradient_as_bucket_view"), "horovod": ("backend", "fusion")}
ALSO = {"hvd": "horovod", "oneccl": "ccl", "openmpi": "mpi"}  # what people write, and ours
FUSION_BYTES = 128 << 20
FUSION_ATOM = 64 * 8  # FUSION_BUFFER_ATOMIC_UNIT of float64
GLOO_BYTES = 2 * (2 << 20)  # two threads, each with two segments of 1 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """``name`` of who averages, the ``backend`` below, and ``options`` of ddp's own; ``fusion`` are the bytes of Horovod's buffer."""

    name: str = "ddp"
    backend: str = "gloo"
    fusion: int = FUSION_BYTES
    options: tuple[tuple[str, str], ...] = ()

    def lever(self, world: int) -> tuple[str, ...]:
        """The lever with which a rank's step is played; none where it is the step of one that is alone."""
        if self.name != "ddp" or world < 2:
            return ()
        return (f"ddp:world={world}" + "".join(f",{key}={value}" for key, value in self.options),)

    def buffers(self, gradients: int, world: int, local: int, *, in_place: bool = True) -> Figure:
        """Bytes on top of the step of one of ``world`` ranks, ``local`` of them on its node, whose gradients are averaged ``in_place`` or
        into tensors of their own."""
        if world < 2:
            return modelled(0, 0, 0, "one rank exchanges nothing")
        if self.name == "horovod":
            atom = FUSION_ATOM * local
            fused = min(gradients, -(-self.fusion // atom) * atom)
            message = max(fused, gradients if not self.fusion else 0)
        else:
            fused, message = 0, min(gradients, int(dict(self.options).get("bucket_cap_mb", 25)) << 20)
        low, expected, high = self._below(message, world)
        fused += 0 if in_place else gradients
        return modelled(fused + expected, low, fused + high, f"{self.name} over {self.backend}: messages of up to {format_bytes(message)}")

    def _below(self, message: int, world: int) -> tuple[int, int, int]:
        if self.backend == "gloo":
            return 0, min(GLOO_BYTES // 2, message), min(GLOO_BYTES, 2 * message)
        ring = -(-2 * message // world)
        return min(ring, message), message, message

    def __str__(self) -> str:
        given = [f"backend={self.backend}", *(f"{key}={value}" for key, value in self.options)]
        if self.name == "horovod" and self.fusion != FUSION_BYTES:
            given.append(f"fusion={format_bytes(self.fusion).replace(' ', '')}")
        return f"{self.name}:{','.join(given)}"


@kept(64)
def exchange_named(text: str) -> Exchange:
    """The exchange written as ``ddp``, ``horovod:fusion=64MiB,backend=mpi``, or a backend alone, which is ddp's. UsageError and
    UnknownNameError for what cannot be meant."""
    name, colon, tail = (part.strip() for part in text.partition(":"))
    if name in BACKENDS:
        name, tail = "ddp", ",".join(filter(None, (f"backend={name}", tail)))
    if name not in OPTIONS:
        raise UnknownNameError(f"unknown exchange {name!r}{one_of(name, (*OPTIONS, *BACKENDS), ALSO)}")
    if colon and not tail:
        raise UsageError(f"exchange {text!r}: nothing follows the colon; write {name}:option=value, or {name} alone")
    given: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key not in OPTIONS[name]:
            raise UnknownNameError(f"exchange {name!r} has no option {key!r}{one_of(key, OPTIONS[name])}")
        if not equals or key in given:
            raise UsageError(f"exchange {name!r}: option {key!r} is {'given twice' if key in given else 'not written option=value'}")
        given[key] = value
    return _checked(name, given)


def _checked(name: str, given: dict[str, str]) -> Exchange:
    found: dict[str, Any] = {"name": name}
    if "backend" in given:
        found["backend"] = given.pop("backend")
        if found["backend"] not in BACKENDS:
            raise UnknownNameError(f"exchange {name!r}: unknown backend {found['backend']!r}{one_of(found['backend'], BACKENDS)}")
    if "fusion" in given:
        text = given.pop("fusion")
        try:
            found["fusion"] = int(text) if text.isascii() and text.isdigit() else parse_bytes(text)
        except UsageError as e:
            raise UsageError(f"exchange {name!r}, option 'fusion': {e}") from None
    cap = given.get("bucket_cap_mb", "25")
    if not (cap.isascii() and cap.isdigit() and 0 < int(cap) < 1 << 20):
        raise UsageError(f"exchange {name!r}, option 'bucket_cap_mb': a whole number of MiB, got {cap!r}")
    if given.get("gradient_as_bucket_view", "true") not in ("true", "false"):
        raise UsageError(f"exchange {name!r}: gradient_as_bucket_view is true or false, got {given['gradient_as_bucket_view']!r}")
    return Exchange(**found, options=tuple(given.items()))
