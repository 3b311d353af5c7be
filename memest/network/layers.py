"""A layer of a network as data: what it calls, and what stands around the call (contexts, hooks, the backward of a custom function)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Items = tuple[tuple[str, Any], ...]
Reference = str | None | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Casting:
    """What the ``torch.autocast`` contexts in a network's own code say on one kind of ``device``: the ``dtype`` they cast to (None: they
    are off), and whether casts of parameters are kept, which is until the outermost context ends. That has the name of the ``scope``,
    which dies like a value: by standing in the ``drops`` of a layer."""

    device: str
    dtype: str | None
    cache: bool
    scope: str


ENDS = ":ends"
"""What the name of a layer ends in that pads for a convolution or pool: its own pads differ at its ends, as ONNX's may."""
PART = ":part:"
"""What stands before the name of an ONNX node in that of a layer which does a part of what the node does; the last of them ends in that
name alone, behind a colon, where another layer could be taken for it. Engines that have the node run it whole."""


def part_of(name: str) -> str | None:
    """The ONNX node of which the layer of this name does a part, before its last."""
    return name.partition(PART)[2] or None


def node_ended(name: str) -> str | None:
    """The ONNX node of which it does the last part, where the name says so."""
    return name.rpartition(":")[2] if ":" in name else None


BACKWARD_HOOK = "BackwardHook"
"""What the functions are called that torch puts around a module with full backward hooks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backward:
    """What a custom autograd function (``torch.autograd.Function``) keeps and does in backward. ``saved`` are values that
    ``save_for_backward`` keeps until the function has run backward, ``kept`` those that its context holds besides, until nothing leads to
    it any more. Its ``layers`` read them, the ``gradients`` of its outputs by these names, and the network's own parameters; ``results``
    has the gradient of each input (None: it has none). Outputs are ``differentiable`` or not. A gradient that does not come is made of
    zeros where it is ``materialized``; else one of the ``others`` is what is done then, with None among its gradients. The results of a
    ``lender`` (the function of that name) are kept until this one has run, and read as what was ``lent``: so do a module's hooks. What
    never ``unpacks`` the saved ones does not mind who wrote to them since. Layers named in ``without_grad`` stand under a ``no_grad`` of
    its own also where backward is differentiated; ``applies`` names a custom function in it, whose node is there only then.
    ``asks_autocast``: it asks whether autocast is on, and was told that it is not. ``begins`` names the layer that its forward begins
    with where autocast keeps casts there: they have nodes, which are younger than the function's. ``raises`` is the error that its own
    code raises when the engine comes to it, if ever. What ``stays`` when a hook of a whole step has run, a gradient say that it puts into a
    list, is a value of the step from then on, and the step's values in ``drops`` die in it (``self.last = gradient``); ``again`` is what it
    does when the engine comes to it for the second time, and so on."""

    saved: tuple[str, ...]
    kept: tuple[str, ...]
    gradients: tuple[str | None, ...]
    layers: tuple[Layer, ...]
    results: tuple[str | None, ...]
    differentiable: tuple[bool, ...]
    materialized: bool = True
    others: tuple[Backward, ...] = ()
    lender: str | None = None
    lent: tuple[str, ...] = ()
    unpacks: bool = True
    without_grad: tuple[str, ...] = ()
    applies: str | None = None
    asks_autocast: bool = False
    begins: str | None = None
    raises: str | None = None
    stays: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    again: tuple[Backward, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafHook:
    """A hook on a ``parameter``: what it does with the gradient that comes (``Tensor.register_hook``), or ``after`` that is there
    (``register_post_accumulate_grad_hook``)."""

    parameter: str
    after: bool
    backward: Backward


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What hooks of saved tensors (``torch.autograd.graph.saved_tensors_hooks``) do with one, ``given`` by that name: the layers that pack
    it, what is ``kept`` of it then, and the layers that unpack that, of which one gives the ``result``. It was of that ``dtype``, which
    hooks may ask for."""

    given: str
    dtype: str
    packed: tuple[Layer, ...]
    kept: tuple[str, ...]
    unpacked: tuple[Layer, ...]
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One call: operator, the names bound to its roles, attributes, the names of its outputs, and what dies after it. ``grad`` is false
    for a call under ``torch.no_grad()``; ``checkpoint`` names the innermost call of ``torch.utils.checkpoint`` around it;
    ``autocast`` has the contexts of ``torch.autocast`` that the network itself puts around it; ``backward`` is that of a custom function,
    which the layer ``autograd_function`` ends; ``packing`` is what hooks do with each tensor that it saves (without: it is kept);
    ``selected`` are the operators whose results a selective checkpoint keeps, each with how often the layer called it before."""

    name: str
    op: str
    tensors: tuple[Reference, ...]
    attributes: Items = ()
    outputs: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    grad: bool = True
    checkpoint: str | None = None
    autocast: tuple[Casting, ...] = ()
    backward: Backward | None = None
    packing: tuple[Packing, ...] = ()
    selected: tuple[tuple[str, int], ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Every name it reads, in order."""
        names: list[str] = []
        for t in self.tensors:
            if isinstance(t, str):
                names.append(t)
            elif t is not None:
                names.extend(t)
        return tuple(names)
