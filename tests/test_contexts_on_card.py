"""Hooks of saved tensors, checkpoints in checkpoints and hooks of parameters on a card, beside what torch's CUDA build did."""

from __future__ import annotations

import json
from typing import Any

import pytest

import memest

pytest.importorskip("torch")

from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from tests.contexts_on_card import MEASURED, SHAPE, USES, Network
from validation.cuda.sure import expected
from validation.rows import normalized

FOUND: dict[str, list[int]] = json.loads(MEASURED.read_text(encoding="utf-8"))
ASKED: dict[str, Any] = {"input_shape": SHAPE, "loss": "cross_entropy", "torch": "2.14", "machine": "h100-80gb", "cudnn": "9.24"}


def test_every_forward_was_measured() -> None:
    assert list(FOUND) == list(USES)


@pytest.mark.parametrize("name", USES)
def test_a_step_asks_the_card_for_what_torch_asks_it_for(name: str) -> None:
    graph = memest.loads(memest.dumps(memest.from_torch(USES[name](), SHAPE)))
    found = memest.estimate(graph, **ASKED)
    assert normalized([e.delta for e in expected(found.events)]) == normalized(FOUND[name])


def test_a_checkpoint_whose_arguments_hooks_move_is_refused_on_a_card() -> None:
    def forward(net: Network, x: Any) -> Any:
        with save_on_cpu():
            return checkpoint(net.second, net.first(x), use_reentrant=False).mean((2, 3))

    graph = memest.from_torch(Network(forward), SHAPE)
    memest.estimate(graph, input_shape=SHAPE, loss="cross_entropy")
    with pytest.raises(
        memest.UnsupportedError, match=r"test_contexts_on_card\.py:\d+\): .*checkpoint under .*; use the hooks inside of it$"
    ):
        memest.estimate(graph, **ASKED)


def test_hooks_that_may_ask_for_a_dtype_are_not_played_on_another() -> None:
    graph = memest.from_torch(USES["halved"](), SHAPE)
    with pytest.raises(memest.UnsupportedError, match=r"'first'.*saved_tensors_hooks on float64, recorded on float32"):
        memest.estimate(graph, input_shape=SHAPE, loss="cross_entropy", dtype="float64")
