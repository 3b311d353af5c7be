"""Every optimizer, in every variant, in its first and in later steps: the stream of one step is torch.optim's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from memest.errors import UnknownNameError, UsageError
from memest.machines.target import Target
from memest.memory.stream import Storage
from memest.network.tensor import nbytes, spec
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.optimizers import OPTIMIZERS, Optimizer, optimizer_named, play_step, resident_states

SHAPES = ((10, 10), (30,), ())
VARIANTS = ("", "foreach=true", "fused=true")
STEPS = 7  # RAdam adapts from the sixth on


def options_of(name: str) -> tuple[list[str], list[str]]:
    """An optimizer's options but for its variants: the flags, and those that take a number."""
    options = {k: v for k, v in OPTIMIZERS[name].options.items() if k not in ("foreach", "fused", "capturable")}
    return [k for k, v in options.items() if isinstance(v, bool)], [k for k, v in options.items() if not isinstance(v, bool)]


def texts() -> Iterator[str]:
    """Each optimizer plain, with each of its options alone, with weight decay beside each, and with all of them."""
    for name in OPTIMIZERS:
        flags, numbers = options_of(name)
        each = [*(f"{k}=true" for k in flags), *(f"{k}=0.1" for k in numbers)]
        decayed = [f"weight_decay=0.1,{option}" for option in each if option != "weight_decay=0.1" and "weight_decay" in numbers]
        every = ",".join(option for option in each if not option.startswith(("maximize", "dampening")))
        for options in dict.fromkeys(("", *each, *decayed, every)):
            for variant in VARIANTS:
                tail = ",".join(filter(None, (options, variant)))
                text = f"{name}:{tail}" if tail else name
                if _exists(text):
                    yield text


def _exists(text: str) -> bool:
    try:
        optimizer_named(text)
    except UsageError:  # no fused variant, or nesterov without momentum
        return False
    return True


TEXTS = list(texts())


def shapes_for(text: str) -> tuple[tuple[int, ...], ...]:
    """Rprop writes through a mask, and with a number alone that takes 8 bytes where the mask is true: no size tells."""
    return SHAPES[:2] if text.startswith("rprop") else SHAPES


def values(text: str) -> list[Value]:
    """The parameters, as the ledger sees them."""
    return [Value(spec(shape), Storage(0, 0, "parameter", "", "", "")) for shape in shapes_for(text)]


def predicted(optimizer: Optimizer, number: int | None) -> list[int]:
    """The stream of step ``number``."""
    ledger = Ledger()
    found = values(optimizer.text)
    play_step(optimizer, ledger, found, ["a", "b", "c"][: len(found)], number, Target())
    return [s.delta for s in ledger.events]


def torch_parameters(text: str) -> list[Any]:
    """The same parameters in torch, each with a gradient."""
    import torch

    parameters = [torch.nn.Parameter(torch.rand(shape)) for shape in shapes_for(text)]
    for p in parameters:
        p.grad = torch.rand_like(p)
    return parameters


@pytest.mark.parametrize("text", TEXTS)
def test_steps_are_those_of_torch(text: str) -> None:
    pytest.importorskip("torch")
    from validation.profiling import record
    from validation.protocol import torch_optimizer
    from validation.rows import normalized

    chosen = optimizer_named(text)
    theirs = torch_optimizer(text, torch_parameters(text))
    events, _ = record(lambda: [theirs.step() for _ in range(STEPS)])
    ours = [delta for number in range(1, STEPS + 1) for delta in predicted(chosen, number)]
    assert normalized(ours) == normalized([e.delta for e in events])
    assert predicted(chosen, None) == predicted(chosen, STEPS), "a step without a number is a late one"


@pytest.mark.parametrize("text", TEXTS)
def test_states_are_those_of_torch(text: str) -> None:
    torch = pytest.importorskip("torch")
    from validation.protocol import torch_optimizer

    chosen = optimizer_named(text)
    parameters = torch_parameters(text)
    theirs = torch_optimizer(text, parameters)
    for number in (1, 2):
        ours = [sorted(nbytes(s.shape, s.dtype) for s in resident_states(chosen, v.spec, number, Target())) for v in values(text)]
        state = [[t for t in theirs.state[p].values() if isinstance(t, torch.Tensor)] if p in theirs.state else [] for p in parameters]
        assert ours == [sorted(t.untyped_storage().nbytes() for t in tensors) for tensors in state], f"before step {number}"
        theirs.step()


def test_every_option_is_tried() -> None:
    """The list above follows the table: each optimizer, each variant it has and each option stands in it."""
    for name, row in OPTIMIZERS.items():
        own = [t for t in TEXTS if t.partition(":")[0] == name]
        assert any("fused=true" in t for t in own) == (row.fused is not None)
        assert all(any(f"{option}=" in t for t in own) for option in row.options if option not in ("fused", "capturable")), name


def test_options_that_move_no_memory_are_accepted() -> None:
    assert optimizer_named("adam:lr=0.1,eps=1e-6").options == optimizer_named("adam").options


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("adamm", UnknownNameError, "did you mean 'adam'"),
        ("adam:amsgard=true", UnknownNameError, "did you mean 'amsgrad'"),
        ("adam:amsgrad", UsageError, "option=value"),
        ("adam:amsgrad=perhaps", UsageError, "true or false"),
        ("sgd:momentum=much", UsageError, "expected a number"),
        ("sgd:dampening=nan", UsageError, "expected a number, got 'nan'"),
        *((f"adam:{option}=abc", UsageError, f"{option!r}: expected a number, got 'abc'") for option in ("lr", "eps", "beta1")),
        ("sgd:nesterov=true", UsageError, "nesterov needs momentum"),
        ("adam:foreach=true,fused=true", UsageError, "exclude each other"),
        ("rmsprop:fused=true", UsageError, "no fused variant"),
    ],
)
def test_contradictions_are_named(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        optimizer_named(text)
