"""``torch.autograd.backward`` from several results at once, event by event as torch runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memest.machines.cpu import Cpu
from memest.machines.target import Target
from memest.machines.versions import installed, nearest
from memest.network.tensor import Spec, contiguous_strides
from memest.ops.table import OPERATORS
from memest.runtimes.torch.autograd import AccumulateGrad, Machine
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller

torch = pytest.importorskip("torch")
SHAPE = (3, 4, 5)

Named = Callable[..., Any]


def both_of_a_node(call: Named, x: Any) -> list[Any]:
    return list(call("var_mean", x, dim=1))


def one_before_the_other(call: Named, x: Any) -> list[Any]:
    first = call("sigmoid", x)
    return [first, call("tanh", first)]


def the_other_way_round(call: Named, x: Any) -> list[Any]:
    return one_before_the_other(call, x)[::-1]


def apart(call: Named, x: Any) -> list[Any]:
    return [call("exp", x), call("sqrt", x)]


def the_leaf_itself(call: Named, x: Any) -> list[Any]:
    return [call("sum", x, dim=0), x]


def measured(function: Callable[..., list[Any]]) -> list[int]:
    from validation.profiling import record
    from validation.rows import normalized

    x = torch.rand(SHAPE, requires_grad=True)

    def step() -> None:
        roots = function(lambda name, t, **given: getattr(torch, name)(t, **given), x)
        torch.autograd.backward(roots, ones)
        del roots

    ones = [torch.ones_like(t).detach() for t in function(lambda name, t, **given: getattr(torch, name)(t, **given), x)]
    step()
    x.grad = None
    return normalized([e.delta for e in record(step)[0]])


def predicted(function: Callable[..., list[Any]]) -> list[int]:
    from validation.rows import normalized

    ledger = Ledger()
    machine = Machine(ledger, True, Target(version=nearest(installed() or ""), machine=Cpu()))
    caller = Caller(machine, True)
    x = ledger.hold(Value(Spec(SHAPE, contiguous_strides(SHAPE), "float32"), ledger.resident(0, "input", "x")))
    x.node, x.requires_grad = AccumulateGrad(x, "x"), True

    def call(name: str, t: Value, **given: Any) -> Any:
        row = OPERATORS[name]
        made = [ledger.hold(v) for v in caller.run(row, [t], tuple(row.canonical(given).items())) if v is not None]
        return made if len(made) > 1 else made[0]

    roots = function(call, x)
    gradients = [ledger.hold(Value(v.spec, ledger.resident(0, "gradient", "ones"))) for v in roots]
    first, *others = zip(roots, gradients, strict=True)
    machine.backward_of([first, *others])
    for v in dict.fromkeys(roots):
        if v is not x:
            ledger.let_go(v)
    return normalized([e.delta for e in ledger.events])


@pytest.mark.parametrize("function", [both_of_a_node, one_before_the_other, the_other_way_round, apart, the_leaf_itself])
def test_streams_are_those_of_torch(function: Callable[..., list[Any]]) -> None:
    assert predicted(function) == measured(function)
