"""Floating-point operations of a call, from shapes alone: the price of running it again.

Products count two operations a multiply-add, as torch.utils.flop_counter does; any other call counts one for every element it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from memest.network.tensor import Shape

Shapes = Sequence[Shape]


def _convolution(inputs: Shapes, output: Shape, transposed: bool) -> int:
    """Every weight meets every position of the output (of the input, when transposed) of every sample."""
    image, weight = inputs[0], inputs[1]
    positions = image if transposed else output
    return 2 * positions[0] * prod(positions[2:]) * prod(weight)


def _product(inputs: Shapes, output: Shape, left: int) -> int:
    return 2 * prod(output) * inputs[left][-1]


def _attention(inputs: Shapes, output: Shape) -> int:
    query, key, value = inputs[:3]
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


PRODUCTS: Mapping[str, Callable[[Shapes, Shape, Mapping[str, Any]], int]] = {
    "convolution": lambda inputs, output, given: _convolution(inputs, output, given["transposed"]),
    "mm": lambda inputs, output, given: _product(inputs, output, 0),
    "bmm": lambda inputs, output, given: _product(inputs, output, 0),
    "mv": lambda inputs, output, given: _product(inputs, output, 0),
    "dot": lambda inputs, output, given: _product(inputs, output, 0),
    "addmm": lambda inputs, output, given: _product(inputs, output, 1),
    "baddbmm": lambda inputs, output, given: _product(inputs, output, 1),
    "_flash_attention": lambda inputs, output, given: _attention(inputs, output),
}


def flops(op: str, inputs: Shapes, outputs: Shapes, attributes: Mapping[str, Any]) -> int:
    """Operations of one call of row ``op``."""
    rule = PRODUCTS.get(op)
    if rule is None or not outputs:
        return sum(prod(shape) for shape in outputs)
    return rule(inputs, outputs[0], attributes)
