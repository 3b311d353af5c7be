"""Autograd that a network's own forward runs, or the backward of its functions: what is done is the engine's, a run of its own.

The rows say what is given and what comes of it. A gradient is new, or one that a kernel gave; here it stands for its tensor. So does
what is given another's memory (``tensor.data = …``): whoever held the tensor holds that from then on.
"""

from __future__ import annotations

from typing import Any

from memest.ops.composite import Composite
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, flag
from memest.ops.tape import Tape, Tensor


def _gradients(k: Tape, outputs: list[Tensor], gradients: list[Tensor], inputs: list[Tensor], **_: Any) -> tuple[Tensor, ...]:
    return tuple(k.noop(t) for t in inputs)


def _backward(k: Tape, outputs: list[Tensor], gradients: list[Tensor], leaves: list[Tensor], **_: Any) -> tuple[Tensor, ...]:
    return tuple(k.noop(t) for t in leaves)


def _exchanged(k: Tape, input: Tensor, given: Tensor) -> Tensor:
    return k.noop(given)


def _as_they_are(k: Tape, tensors: list[Tensor], **_: Any) -> tuple[Tensor, ...]:
    return tuple(k.noop(t) for t in tensors)


_HOW = (
    Attribute(name="retain_graph", default=False, check=flag),
    Attribute(name="create_graph", default=False, check=flag),
)
_EXAMPLES = (Example(shapes=([(2, 3)], [(2, 3)], [(2, 3), (4,)]), attributes={}),)

ROWS = (
    Operator(
        name="autograd_grad",
        torch="",
        oracle="gradients_given",
        roles=("outputs*", "gradients*", "inputs*"),
        attributes=_HOW,
        forward=_gradients,
        saves=(),
        backward=None,
        examples=_EXAMPLES,
        facts=EVERYWHERE_FACTS,
        source="torch/csrc/autograd/engine.cpp (torch.autograd.grad: only what leads to the inputs runs); played by the engine",
    ),
    Operator(
        name="backward",
        torch="",
        oracle="gradients_given",
        roles=("outputs*", "gradients*", "leaves*"),
        attributes=_HOW,
        forward=_backward,
        saves=(),
        backward=None,
        examples=_EXAMPLES,
        facts=EVERYWHERE_FACTS,
        source="torch/csrc/autograd/engine.cpp (Engine::execute); played by the engine, outputs are the gradients of its leaves",
    ),
    Operator(
        name="requires_grad",
        torch="",
        oracle="as_they_are",
        roles=("tensors*",),
        attributes=(Attribute(name="value", default=REQUIRED, check=flag),),
        forward=_as_they_are,
        saves=(),
        backward=None,
        examples=(Example(shapes=([(2, 3)],), attributes={"value": True}),),
        facts=EVERYWHERE_FACTS,
        source="torch/csrc/autograd/python_variable.cpp (THPVariable_set_requires_grad)",
    ),
    Operator(
        name="forget_gradients",
        torch="",
        oracle="as_they_are",
        roles=("tensors*",),
        attributes=(),
        forward=_as_they_are,
        saves=(),
        backward=None,
        examples=(Example(shapes=([(2, 3)],), attributes={}),),
        facts=EVERYWHERE_FACTS,
        source="torch/csrc/autograd/python_variable.cpp (THPVariable_set_grad)",
    ),
    Operator(
        name="set_data",
        torch="",
        oracle="exchanged",
        roles=("input", "given"),
        attributes=(),
        forward=_exchanged,
        saves=(),
        backward=None,
        examples=(Example(shapes=((2, 3), (2, 3)), attributes={}),),
        facts=EVERYWHERE_FACTS,
        source="torch/csrc/autograd/python_variable.cpp (THPVariable_set_data)",
    ),
)
COMPOSITE_ROWS: tuple[Composite, ...] = ()
