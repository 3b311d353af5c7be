"""From the words of a command to an estimate: shapes read and bound, the model opened, the step played."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memest.cli.options import Isa
from memest.errors import GraphError, MemestError, UnsupportedError, UsageError, did_you_mean
from memest.estimate import Estimate, estimate
from memest.graph import Graph, Input
from memest.libraries.cpu import Cpu
from memest.sources import is_torch, open_model

Given = dict[str, tuple[int, ...]]
_SHAPE = re.compile(r"\d+(?:[xX\u00d7,]\d+)*", re.ASCII)
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked, as typed."""

    model: str
    inputs: Sequence[str] | None
    batch: int | None
    train: bool
    optimizer: str = "sgd"
    loss: str = "cross_entropy"
    dtype: str | None = None
    hold_output: bool = False
    first_step: bool = False
    threads: int | None = None
    isa: Isa | None = None


def answer(request: Request) -> tuple[Graph, Estimate]:
    """The graph and the estimate that ``request`` asks for."""
    _check_names(request)
    graph, shapes = open_with_inputs(request.model, request.inputs, request.batch)
    try:
        result = estimate(
            graph,
            input_shape=shapes,
            mode="train" if request.train else "infer",
            optimizer=request.optimizer,
            loss=request.loss,
            dtype=request.dtype,
            hold_output=request.hold_output,
            first_step=request.first_step,
            cpu=_cpu(request),
        )
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__
    return graph, result


def _cpu(request: Request) -> Cpu:
    cpu = Cpu.detect()
    if request.threads is not None:
        cpu = cpu.with_(threads=request.threads)
    return cpu if request.isa is None else cpu.with_(isa=request.isa.value)


def _check_names(request: Request) -> None:
    """A wrong name typed on the command line is a usage error, found before the model is opened."""
    from memest.losses import loss_named
    from memest.optimizers import optimizer_named
    from memest.precision import floating_dtype

    try:
        if request.dtype is not None:
            floating_dtype(request.dtype)
        optimizer_named(request.optimizer)
        loss_named(request.loss)
    except MemestError as e:
        raise UsageError(str(e)) from None


def open_with_inputs(model: str, inputs: Sequence[str] | None, batch: int | None) -> tuple[Graph, Given | None]:
    """The graph, and the shape of each of its inputs (None: the graph's own dims are numbers and nothing was given)."""
    given = parse_inputs(inputs or ())
    if is_torch(model):
        return _open_torch(model, given, batch)
    graph = open_model(model)
    if not given and batch is None and all(isinstance(d, int) for i in graph.inputs for d in i.shape):
        return graph, None
    return graph, bind_shapes(graph.inputs, given, batch)


def _open_torch(model: str, given: Given, batch: int | None) -> tuple[Graph, Given]:
    """A torch model is called with the shapes, so they must be whole; unnamed ones are positional."""
    whole = {name: shape if batch is None else (batch, *shape) for name, shape in given.items()}
    positional = [shape for name, shape in whole.items() if name.startswith("#")]
    if positional and len(positional) < len(whole):
        raise UsageError("name every --input or none")
    graph = open_model(model, (positional or whole) or None)
    return graph, dict(zip((i.name for i in graph.inputs), whole.values(), strict=True)) if positional else whole


def parse_inputs(texts: Iterable[str]) -> Given:
    """``3x224x224`` or ``name=3x224x224``, several; unnamed ones are numbered ``#0``, ``#1``, …"""
    found: Given = {}
    for text in texts:
        name, equals, shape = text.rpartition("=")
        key = name.strip() if equals else f"#{len(found)}"
        if key in found:
            raise UsageError(f"--input {text!r}: {key!r} is given twice")
        found[key] = _shape(shape.strip(), text)
    return found


def _shape(text: str, whole: str) -> tuple[int, ...]:
    if not _SHAPE.fullmatch(text):
        raise UsageError(f"--input {whole!r}: a shape is positive sizes joined by x, such as 3x224x224")
    parts = re.split(r"[xX\u00d7,]", text)
    if any(len(p) > _MAX_DIGITS for p in parts):
        raise UsageError(f"--input {whole[:60]!r}: a size has at most {_MAX_DIGITS} digits")
    sizes = tuple(int(p) for p in parts)
    if 0 in sizes:
        raise UsageError(f"--input {whole!r}: sizes are positive, got 0")
    return sizes


def bind_shapes(inputs: Sequence[Input], given: Given, batch: int | None) -> Given:
    """One whole shape for each input of the graph; ``batch`` is put in front where it is missing."""
    named = _named(inputs, given)
    return {i.name: _whole(i, named.get(i.name), batch) for i in inputs}


def _named(inputs: Sequence[Input], given: Given) -> Given:
    names = [i.name for i in inputs]
    unnamed = [shape for key, shape in given.items() if key.startswith("#")]
    if unnamed and len(unnamed) < len(given):
        raise UsageError("name every --input or none")
    if unnamed:
        if len(unnamed) != len(names):
            raise UsageError(f"{len(unnamed)} --input given, the model has {len(names)} ({', '.join(names)})")
        return dict(zip(names, unnamed, strict=True))
    for name in given:
        if name not in names:
            raise UsageError(f"the model has no input {name!r}{did_you_mean(name, names)}; it has {', '.join(names)}")
    return given


def _whole(i: Input, shape: tuple[int, ...] | None, batch: int | None) -> tuple[int, ...]:
    described = "x".join(str(d) for d in i.shape)
    if shape is None:
        own = (batch, *i.shape[1:]) if batch is not None else i.shape
        if any(not isinstance(d, int) for d in own):
            raise UsageError(f"the model needs --input {i.name}=SHAPE; its shape is {described}")
        return tuple(d for d in own if isinstance(d, int))
    if len(shape) == len(i.shape):
        if batch is not None and shape[0] != batch:
            raise UsageError(
                f"--input {'x'.join(map(str, shape))} has {len(shape)} dims, the batch included, and --batch says {batch}; give one of them"
            )
        return shape
    if batch is not None and len(shape) == len(i.shape) - 1:
        return (batch, *shape)
    if batch is None and len(shape) == len(i.shape) - 1:
        raise UsageError(f"input {i.name!r} is {described}: give --batch too, or the batch in front of --input")
    expected = len(i.shape) - (batch is not None)
    without = " (without the batch)" if batch is not None else ""
    raise UsageError(f"input {i.name!r} is {described}: --input needs {expected} sizes{without}, got {len(shape)}")
