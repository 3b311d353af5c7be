"""Calls of recurrent networks: torch gives the hidden states in one list, and the settings in order; of packed sequences the lengths are
known or assumed (:mod:`~memest.sources.importers.torch.assuming.lengths`)."""

from __future__ import annotations

from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.ops.families.recurrent.packed import runs
from memest.sources.importers.torch.assuming.lengths import batch_sizes_of
from memest.sources.importers.torch.calls.plain import Call, Request, bound

SETTINGS = ("has_biases", "num_layers", "dropout", "training", "bidirectional", "batch_first")


def _layers(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.lstm(input, (h, c), weights, …)`` and ``torch.gru(input, h, weights, …)``; a packed sequence has a tensor of batch sizes."""
    lists = (isinstance(args[1], list | tuple), isinstance(args[2], list | tuple))
    if lists != (name == "lstm", True):
        return _packed(name, args, kwargs, recorder)
    given = bound(("input", "hx", "params", *SETTINGS), args, kwargs)
    settings = {s: given[s] for s in SETTINGS if s in given}
    return Request(name, [given["input"], *_states(given["hx"]), list(given["params"])], settings, own_result=True)


def _packed(name: str, args: Any, kwargs: Any, recorder: Any) -> Request:
    """``torch.lstm(data, batch_sizes, (h, c), weights, …)``."""
    given = bound(("input", "batch_sizes", "hx", "params", *SETTINGS[:-1]), args, kwargs)
    settings = {s: given[s] for s in SETTINGS if s in given} | {"batch_sizes": _known(given["batch_sizes"], recorder)}
    return Request(f"packed_{name}", [given["input"], *_states(given["hx"]), list(given["params"])], settings, own_result=True)


def _states(given: Any) -> list[Any]:
    return [given] if isinstance(given, torch.Tensor) else list(given)


def _known(batch_sizes: torch.Tensor, recorder: Any) -> tuple[int, ...]:
    found: tuple[int, ...] | None = recorder.assumed.numbers_in(batch_sizes)
    if found is None:
        raise UnsupportedError("batch sizes of a packed sequence that pack_padded_sequence did not make have no rule")
    return found


def _pack(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """What ``pack_padded_sequence`` calls, with lengths in descending order."""
    given = bound(("input", "lengths", "batch_first"), args, kwargs)
    batch_first = bool(given.get("batch_first"))
    batch, steps = (recorder.live.known(given["input"]).value.spec.shape[d] for d in ((0, 1) if batch_first else (1, 0)))
    sizes = batch_sizes_of(recorder.assumed.lengths(given["lengths"], batch, steps))
    recorder.assumed.listed = sizes
    return Request(
        "pack_padded_sequence", [given["input"], given["lengths"]], {"batch_first": batch_first, "batch_sizes": sizes}, own_result=True
    )


def _pad(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``_pad_packed_sequence``: a padded tensor, into which the steps are copied as far as they are as wide."""
    given = bound(("input", "batch_sizes", "batch_first", "padding_value", "total_length"), args, kwargs)
    data, sizes = given["input"], _known(given["batch_sizes"], recorder)
    total = given.get("total_length", 0)
    with recorder:
        out = torch.full((total if total > 0 else len(sizes), sizes[0], *data.shape[1:]), given.get("padding_value", 0.0), dtype=data.dtype)
        lengths = torch.empty(sizes[0], dtype=torch.int64)
        at: Any = 0
        for begin, end, width in runs(sizes):
            part = data.narrow(0, at, width * (end - begin))
            seen = part.view(end - begin, width, *data.shape[1:])
            out.narrow(0, begin, end - begin).narrow(1, 0, width).copy_(seen)
            at = at + width * (end - begin)
            del part, seen
        if given.get("batch_first"):
            out = out.transpose(0, 1)
    return out, lengths


def _cell(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.lstm_cell(input, (h, c), …)`` and ``torch.gru_cell(input, h, …)``."""
    given = bound(("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh"), args, kwargs)
    states = _states(given["hx"])
    weights = [given.get(w) for w in ("w_ih", "w_hh", "b_ih", "b_hh")]
    return Request(name, [given["input"], *states, *weights], {}, own_result=True)


CALLS: dict[str, Call] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _layers),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
    "_pack_padded_sequence": _pack,
}
ANSWERS: dict[str, Any] = {"_pad_packed_sequence": _pad}
