"""Where the tensors of a recorded forward lie when the network runs on a card: there, or on the host.

A call that makes a tensor from sizes makes it on the host unless it names a device, and so does ``device="cpu"``; ``x.device`` names the
card. What is made of tensors lies where they lie. ``.to(x.device)``, ``.to(y)``, ``.cuda()`` and ``.cpu()`` move. Where a call takes
tensors of both, torch raises, but for numbers of the host (no dims) in elementwise kernels, index tensors of the host, and copies between
the two. On the CPU nothing of this counts: what torch would raise for on a card is kept as a reason, for that runtime alone.

Sources: aten/src/ATen/TensorIterator.cpp (``compute_types``: "Expected all tensors to be on the same device"; CPU scalars),
TensorIndexing.h (``typeConvertIndices``, ``copy_to``); each row of ELEMENTWISE was run on torch's CUDA build.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from memest.sources.importers.torch.tensors.described import leaves
from memest.sources.importers.torch.tensors.live import LiveTensors, Tracked

CARD = torch.device("cpu")
"""What ``x.device`` is while a forward is recorded: torch's CPU to the code around, and told from any other by identity."""
FACTORIES = frozenset({"zeros", "ones", "empty", "full", "rand", "randn", "arange", "linspace", "eye", "randint", "tensor", "as_tensor"})
PLAIN = (int, float, str, torch.dtype, type(None))
MOVES = frozenset({"to", "type_as", "cuda", "cpu"})
ELEMENTWISE = frozenset(
    {
        *("add", "sub", "mul", "div", "rsub", "floor_divide", "remainder", "minimum", "maximum"),
        *("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or"),
    }
)
"""Rows that take a number of the host's beside tensors of the card, forward and backward, and ask the card for nothing besides."""


def asked_host(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], live: LiveTensors) -> bool | None:
    """Whether the call names the host (True) or the card (False), by a device or by a tensor that lies there; None where it names none."""
    if name in ("cuda", "cpu"):
        return name == "cpu"
    other = next((t for t in (*args[1:], kwargs.get("other")) if isinstance(t, torch.Tensor)), None)
    if name in ("to", "type_as") and other is not None:
        return live.known(other).host
    given = [kwargs["device"]] if kwargs.get("device") is not None else [a for a in args[1:] if name == "to" and _is_device(a)]
    if not given:
        return None
    device = given[0]
    return device is not CARD and not isinstance(device, int) and torch.device(device).type == "cpu"


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device | str) or (isinstance(value, int) and not isinstance(value, bool))


class Placed(NamedTuple):
    """Where the results of a call lie, whether it moves what it reads, and why a card refuses it ('': it takes it)."""

    host: bool = False
    moves: bool = False
    refused: str = ""


def counts(name: str, args: Any, kwargs: Any, live: LiveTensors) -> bool:
    """Whether the result of a call of torch's ``name`` may lie on the host, or move."""
    if name in FACTORIES or name in MOVES or kwargs.get("device") is not None:
        return True
    return bool(live.on_host) and any(found.host for found in map(live.found, _given(args, kwargs)) if found is not None)


def _given(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """The tensors in a call."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            yield value
        elif not isinstance(value, PLAIN):
            yield from leaves(value)


def place_of(name: str, op: str, reads: Sequence[Tracked], asked: bool | None) -> Placed:
    """Where the results of a call of torch's ``name`` lie, which the row ``op`` describes; ``asked`` is the device it names."""
    if name in FACTORIES:
        return Placed(host=asked is not False)
    if name in MOVES:
        host = reads[0].host if asked is None else asked
        return Placed(host=host, moves=host != reads[0].host)
    if asked is not None:
        return Placed(host=asked)  # in the likeness of a tensor, elsewhere
    if len({e.host for e in reads}) < 2:
        return Placed(host=bool(reads) and reads[0].host)
    return _mixed(name, op, reads)


MIXED = "torch raises there on a card, or memest has no rule for it; make tensors on x.device"
NOT_YET = "not modelled on torch-cuda yet; ask for torch-cpu"


def refusal(place: str, what: str, why: str = MIXED) -> str:
    """Why a card stops there, and what to do."""
    return f"{place}: {what}: {why}"


def _mixed(name: str, op: str, reads: Sequence[Tracked]) -> Placed:
    """What a call makes of tensors of both."""
    first, source = reads[0], reads[-1]
    if op == "copy_":
        return Placed(host=first.host, moves=True)
    if op == "setitem":
        number = source.host and not source.value.spec.shape
        return Placed(host=first.host, refused="" if number else "setitem between the host and the card by way of another tensor")
    others = [e for e in reads if e.host]
    inplace = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
    if op in ELEMENTWISE and not any(e.value.spec.shape for e in others) and not (first.host and inplace):
        return Placed()
    return Placed(refused=f"{op} of tensors on the card and on the host ({', '.join(e.names[-1] for e in others)})")
