"""Calls of a step that no row knows: those that GradScaler makes, decisions alike in every step, and those that work on many at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memest.network.graph import Layer
from memest.sources.importers.torch.contexts.stage import Answer, Stage, exchange, several

MARKS = ("_record_function_enter_new", "_record_function_exit", "_record_function_exit._RecordFunction")
"""What torch.profiler.record_function calls, which moves nothing."""


class Readings:
    """What is read in one recording. ``first`` says that no step was before it; ``zeros`` are told of the tensors that say whether a
    gradient is infinite; ``checkpointed`` says whether a checkpoint stands around what runs."""

    def __init__(self, stage: Stage, zeros: list[torch.Tensor], checkpointed: Callable[[], bool], *, first: bool) -> None:
        self._stage = stage
        self._first = first
        self._averaged: dict[str, bool] = {}
        self.watched: dict[str, Callable[[Any, Any, Any], Answer]] = {
            "__bool__": self._decide,
            "_amp_foreach_non_finite_check_and_unscale_": lambda f, a, k: zeros.append(a[1]),
            "_amp_update_scale_": lambda f, a, k: a[0],
            "broadcast_tensors": self._broadcast,
            "__set__:data": lambda f, a, k: exchange(stage, *a, again=checkpointed()),
            **dict.fromkeys(MARKS, lambda f, a, k: f(*a, **k)),
            "cpu": lambda f, a, k: a[0],
            **{n: self._each for n in dir(torch) if n.startswith("_foreach_")},
        }

    def noticed(self, layer: Layer) -> None:
        """A layer was recorded: perhaps the question of an AveragedModel whether it was updated before."""
        if layer.op in ("eq", "gt") and layer.reads[0].rpartition(".")[2].startswith("n_averaged"):
            self._averaged[layer.outputs[0]] = self._first == (layer.op == "eq")

    def _decide(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A decision that every step but the first takes alike: whether an AveragedModel was updated before."""
        entry = self._stage.live.found(args[0])
        return NotImplemented if entry is None else self._averaged.get(entry.names[-1], NotImplemented)

    def _broadcast(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``torch.broadcast_tensors``: a tensor that is large enough is given back as it is."""
        tensors = several(args)
        with self._stage:
            shape = torch.broadcast_shapes(*(t.shape for t in tensors))
            return tuple(t if t.shape == shape else t.expand(shape) for t in tensors)

    def _each(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``torch._foreach_*``: tensor by tensor, as its slow path does on a CPU."""
        name = str(func.__name__).removeprefix("_foreach_")
        if name.startswith("addc") and len(args) > 3:
            args, kwargs = args[:3], {**kwargs, "value": args[3]}
        call = torch.linalg.vector_norm if name == "norm" else getattr(torch.Tensor, name)
        rows = range(len(args[0]))

        def part(value: Any, i: int) -> Any:
            return value[i] if isinstance(value, list | tuple) else value

        with self._stage:
            made = [call(*(part(a, i) for a in args), **{k: part(v, i) for k, v in kwargs.items()}) for i in rows]
        return None if name.endswith("_") else tuple(made)
