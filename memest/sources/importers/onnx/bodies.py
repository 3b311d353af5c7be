"""Nodes with graphs inside: the branch of an ``If`` that is taken, and a ``Loop`` as often as it goes round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from memest.errors import GraphError
from memest.sources.importers.onnx.call import Call
from memest.sources.importers.onnx.values import Initial, Known, Value, numbers

MOST_ROUNDS = 4_096
Within = Callable[..., Sequence[Value]]
"""What a graph in a node gives for values of its inputs."""


def branch(c: Call, within: Within) -> Sequence[Value]:
    """``If``, whose condition has to be known."""
    taken = _known(c, c.input(0))
    if taken is None:
        raise c.refuse(f"an If whose condition {c.node.input[0]!r} is known only when the network runs: export the branch taken")
    return within(c.attribute("then_branch" if taken else "else_branch"))


def loop(c: Call, within: Within) -> Sequence[Value]:
    """``Loop``: what goes round, then what each round gives, one behind the other. How often has to be known."""
    body, rounds = c.attribute("body"), int(c.number(0)) if c.given(0) else MOST_ROUNDS + 1
    going = _known(c, c.input(1)) if c.given(1) else True
    carried = [c.input(i) for i in range(2, len(c.inputs))]
    if len(body.input) != 2 + len(carried) or len(body.output) < 1 + len(carried):
        raise GraphError(f"has {len(carried)} values that go round, and a body of {len(body.input)} inputs and {len(body.output)} outputs")
    given: list[list[Value]] = [[] for _ in body.output[1 + len(carried) :]]
    n = 0
    while n < rounds and going is not False:
        if going is None or n == MOST_ROUNDS:
            raise c.refuse(f"a Loop whose end is known only when the network runs, or that goes round more than {MOST_ROUNDS:,} times")
        condition, *made = within(body, numbers(n), numbers(True, "bool"), *carried)
        going, carried = _known(c, condition), made[: len(carried)]
        for all_rounds, value in zip(given, made[len(carried) :], strict=True):
            all_rounds.append(value)
        n += 1
    return [*carried, *(_stacked(c, values) for values in given)]


def _known(c: Call, value: Value) -> bool | None:
    """A condition; None where it is known only when the network runs."""
    found = value.numbers if isinstance(value, Initial) else value
    return bool(found.array.flat[0]) if isinstance(found, Known) and found.array.size == 1 else None


def _stacked(c: Call, values: Sequence[Value]) -> Any:
    if not values:
        raise c.refuse("a Loop that does not go round once and gives a tensor all the same")
    return c.layer("stack", [c.writer.tensor(value) for value in values], dim=0)


BODIES: dict[str, Callable[[Call, Within], Sequence[Value]]] = {"If": branch, "Loop": loop}
