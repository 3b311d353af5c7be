"""Custom autograd functions: the place where one ends, and its outputs get its node."""

from __future__ import annotations

from memest.ops.composite import Composite
from memest.ops.facts import EVERYWHERE_FACTS, POINTWISE_FACTS
from memest.ops.operator import Attribute, Example, Operator, flag
from memest.ops.tape import Tape, Tensor


def _returned(k: Tape, outputs: list[Tensor], inputs: list[Tensor], *, once: bool) -> tuple[Tensor, ...]:
    return tuple(k.noop(t) for t in outputs)


def _given_back(k: Tape, input: Tensor) -> Tensor:
    return k.noop(input)


def _hooked(k: Tape, input: Tensor) -> Tensor:
    return k.noop(input)


ROWS = (
    Operator(
        name="autograd_function",
        torch="",
        oracle="returned",
        roles=("outputs*", "inputs*"),
        attributes=(Attribute(name="once", default=False, check=flag),),  # once_differentiable
        forward=_returned,
        saves=(),
        backward=None,
        examples=(Example(shapes=([(2, 3), (4,)], [(2, 3)]), attributes={}),),
        facts=EVERYWHERE_FACTS,
        source="torch/csrc/autograd/python_function.cpp (process_outputs); what it does in backward is the layer's (graph.Backward)",
    ),
    Operator(
        name="given_back",
        torch="",
        oracle="hooked",
        roles=("input",),
        attributes=(),
        forward=_given_back,
        saves=(),
        backward=None,
        examples=(Example(shapes=((2, 3),), attributes={}),),
        facts=POINTWISE_FACTS,
        source="torch/utils/checkpoint.py (CheckpointFunction): an argument that the function of a reentrant checkpoint returns as it is",
    ),
    Operator(
        name="register_hook",
        torch="",
        oracle="hooked",
        roles=("input",),
        attributes=(),
        forward=_hooked,
        saves=(),
        backward=None,
        examples=(Example(shapes=((2, 3),), attributes={}),),
        facts=POINTWISE_FACTS,
        source="torch/csrc/autograd/python_hook.cpp (PyFunctionTensorPreHook); what it does in backward is the layer's (graph.Backward)",
    ),
)
COMPOSITE_ROWS: tuple[Composite, ...] = ()
