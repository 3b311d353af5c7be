"""Calls of modules that torch.ao.quantization.quantize_dynamic made: their weights are inside of objects of torch's C++, packed for a
library. What the objects unpack to is what the rows get; it is no parameter of the module, and nothing of it is in torch's allocator but
the bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.sources.importers.torch.calls.plain import Call, Request, bound
from memest.sources.importers.torch.calls.recurrent import SETTINGS

ENGINES = ("x86", "fbgemm")
LINEAR = {"linear_dynamic": "int8", "linear_relu_dynamic": "int8", "linear_dynamic_fp16": "float16"}
CELLS = {f"quantized_{n}_cell_dynamic": f"{n}_cell" for n in ("lstm", "gru", "rnn_tanh", "rnn_relu")}
NOTE = (
    "quantized weights of {:,} bytes, and what the blocks add in which FBGEMM packs them, lie outside of torch's allocator and are in no"
    " figure: they are among the bytes that are said to come on top"
)


def _check(recorder: Any, input: torch.Tensor) -> None:
    engine = torch.backends.quantized.engine
    if engine not in ENGINES:
        raise UnsupportedError(
            f"quantized layers of the engine {engine!r} have no rule: torch.backends.quantized.engine = 'x86' is modelled"
        )
    if torch.is_grad_enabled() and recorder.live.known(input).grad:
        raise UnsupportedError("torch has no gradient of quantized layers: ask for inference (module.eval(), mode='infer')")


def packed_note(packed: Mapping[int, tuple[Any, Sequence[tuple[torch.Tensor, Any]]]]) -> list[str]:
    """How many bytes of weights are packed, if any."""
    weights = [weight for _, parts in packed.values() for weight, _ in parts]
    return [NOTE.format(sum(w.numel() * w.element_size() for w in weights))] if weights else []


def _unpacked(recorder: Any, holder: Any, dtype: str = "") -> list[tuple[Any, Any]]:
    """The weights and biases that an object stands for (a packed weight, or a cell of several), each once."""
    known: dict[int, tuple[Any, list[tuple[Any, Any]]]] = recorder.packed
    if id(holder) not in known:
        parts = [(holder, dtype)] if dtype else _of_cell(holder)
        known[id(holder)] = holder, [_owned(recorder, packed, kind) for packed, kind in parts]
    return known[id(holder)][1]


def _of_cell(cell: Any) -> list[tuple[Any, str]]:
    kind, _, _, _, packed = cell.__getstate__()[0]
    return [(p, "int8" if kind == "quantized_dynamic" else "float16") for p in packed]


def _owned(recorder: Any, packed: Any, dtype: str) -> tuple[Any, Any]:
    """Tensors in place of those that are packed, as the network's own."""
    with torch._C.DisableTorchFunction():
        weight, bias = packed.unpack()
        made = [torch.empty(weight.shape, dtype=getattr(torch, dtype), device="meta")]
        made += [] if bias is None else [torch.empty(bias.shape, dtype=bias.dtype, device="meta")]
    for t, name in zip(made, ("weight", "bias"), strict=False):
        recorder.live.own(t, recorder.live.unique(f"{recorder.path()}.{name}".lstrip(".")), registered=False)
    return made[0], made[1] if len(made) > 1 else None


def _linear(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    given = bound(("input", "packed", "reduce_range"), args, kwargs)
    _check(recorder, given["input"])
    dtype = LINEAR[name]
    op = "linear_dynamic" if dtype == "int8" else name
    return Request(op, [given["input"], *_unpacked(recorder, given["packed"], dtype)[0]], {}, own_result=True)


def _params(recorder: Any, cells: Any) -> list[Any]:
    """The weights of all layers and directions, as torch.lstm takes them."""
    found: list[Any] = []
    for cell in cells:
        parts = _unpacked(recorder, cell)
        found += [weight for weight, _ in parts] + [bias for _, bias in parts]
    return found


def _layers(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.quantized_lstm(input, (h, c), cells, …)``, ``torch.quantized_gru(input, h, cells, …)``."""
    given = bound(("input", "hx", "params", *SETTINGS), args, {k: v for k, v in kwargs.items() if k not in ("dtype", "use_dynamic")})
    if isinstance(given["params"], torch.Tensor) or isinstance(given["hx"], torch.Tensor) != (name == "quantized_gru"):
        raise UnsupportedError("quantized recurrent layers over packed sequences have no rule: pad the sequences")
    _check(recorder, given["input"])
    states = [given["hx"]] if name == "quantized_gru" else list(given["hx"])
    settings = {s: given[s] for s in SETTINGS if s in given}
    return Request(
        name.removeprefix("quantized_"), [given["input"], *states, _params(recorder, given["params"])], settings, own_result=True
    )


def _cell(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    given = bound(("input", "hx", "w_ih", "w_hh"), args[:4], {})
    _check(recorder, given["input"])
    states = [given["hx"]] if isinstance(given["hx"], torch.Tensor) else list(given["hx"])
    (w_ih, b_ih), (w_hh, b_hh) = (_unpacked(recorder, given[w], "int8")[0] for w in ("w_ih", "w_hh"))
    return Request(CELLS[name], [given["input"], *states, w_ih, w_hh, b_ih, b_hh], {}, own_result=True)


CALLS: dict[str, Call] = {
    **dict.fromkeys(LINEAR, _linear),
    **dict.fromkeys(("quantized_lstm", "quantized_gru"), _layers),
    **dict.fromkeys(CELLS, _cell),
}
