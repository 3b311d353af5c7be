"""Calls of recurrent networks: torch gives the hidden states in one list, and the settings in order."""

from __future__ import annotations

from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.sources.importers.torch.calls.plain import Call, Request, bound

SETTINGS = ("has_biases", "num_layers", "dropout", "training", "bidirectional", "batch_first")


def _layers(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.lstm(input, (h, c), weights, …)`` and ``torch.gru(input, h, weights, …)``; a packed sequence has a tensor of batch sizes."""
    given = bound(("input", "hx", "params", *SETTINGS), args, kwargs)
    lists = isinstance(given["hx"], list | tuple) == (name == "lstm") and isinstance(given["params"], list | tuple)
    if not lists or not isinstance(given["params"][0], torch.Tensor):
        raise UnsupportedError(f"{name} over a packed sequence: its batch sizes are values; give it the padded tensor")
    states = [given["hx"]] if isinstance(given["hx"], torch.Tensor) else list(given["hx"])
    settings = {s: given[s] for s in SETTINGS if s in given}
    return Request(name, [given["input"], *states, list(given["params"])], settings, own_result=True)


def _cell(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.lstm_cell(input, (h, c), …)`` and ``torch.gru_cell(input, h, …)``."""
    given = bound(("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh"), args, kwargs)
    states = [given["hx"]] if isinstance(given["hx"], torch.Tensor) else list(given["hx"])
    weights = [given.get(w) for w in ("w_ih", "w_hh", "b_ih", "b_hh")]
    return Request(name, [given["input"], *states, *weights], {}, own_result=True)


CALLS: dict[str, Call] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _layers),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
}
