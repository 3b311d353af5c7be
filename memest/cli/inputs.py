"""The shapes that --input and --batch give: read, bound to the inputs of the model, and the model opened with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from memest.cli.words import MAX_DIGITS
from memest.errors import GraphError, UsageError, did_you_mean
from memest.estimate.inputs import usual_shapes
from memest.machines.target import TORCH_CPU
from memest.network.dtypes import ITEMSIZE
from memest.network.graph import Graph, Input
from memest.planning.progress import tell
from memest.sizes.asked import TypedShape
from memest.sources.assumptions import from_texts
from memest.sources.opening import is_torch, open_model, reads_sizes
from memest.sources.typed import structured

Given = dict[str, tuple[int, ...]]
_SHAPE = re.compile(r"\d+(?:[xX\u00d7,]\d+)*", re.ASCII)


def open_with_inputs(
    model: str,
    inputs: Sequence[str] | None,
    batch: int | None,
    mode: str | None = None,
    runtime: str = TORCH_CPU,
    assume: Sequence[str] = (),
) -> tuple[Graph, Given | None]:
    """The graph, and the shape of each of its inputs (None: the graph's own dims are numbers and nothing was given)."""
    given = parse_inputs(inputs or ())
    if is_torch(model):
        return _open_torch(model, given, batch, mode, from_texts(assume))
    if assume:
        raise UsageError(f"--assume {assume[0]}: is for torch code; the counts of {model} stand in it")
    whole = _whole_shapes(given, batch) if reads_sizes(model) else {}
    graph = open_model(model, (_positional(whole) or whole) or None)
    for name, shape in given.items():
        if isinstance(shape, TypedShape):
            raise UsageError(f"--input {name}=…{shape.dtype}: the network has dtypes of its own; give the sizes alone")
    if not given and batch is None and all(isinstance(d, int) for i in graph.inputs for d in i.shape):
        return graph, None
    usual = usual_shapes(graph, mode or "train", runtime)
    if usual is not None:
        given = given or {name: shape[1:] for name, shape in usual.items()}
        batch = _usual_batch(graph.inputs, given, usual) if batch is None else batch
    return graph, bind_shapes(graph.inputs, given, batch)


def _usual_batch(inputs: Sequence[Input], given: Given, usual: Mapping[str, tuple[int, ...]]) -> int | None:
    """The usual batch, where no shape that is given has one."""
    whole = any(len(shape) >= len(i.shape) for i in inputs for shape in given.values())
    return None if whole else next(iter(usual.values()))[0]


def _open_torch(
    model: str, given: Given, batch: int | None, mode: str | None, assume: Mapping[str, Any] | None
) -> tuple[Graph, Given | None]:
    """A torch model is called with the shapes, so they must be whole; unnamed ones are positional. It is recorded for one mode alone where
    only that is asked: what cannot be recorded in the other does not matter."""
    whole = _whole_shapes(given, batch)
    positional = _positional(whole)
    tell(f"importing {model}")
    try:
        graph = open_model(model, (positional or structured(whole)) or None, mode, assume)
    except GraphError as e:
        if batch is not None or not whole:
            raise
        first = "no --batch is given, so that the first size of each --input is its batch (if it is not, add --batch 8)"
        raise GraphError(f"{first}: {e}") from None
    tell("estimating")
    names = [i.name for i in graph.inputs]
    if not whole and names:  # an exported program, whose sizes are numbers
        return graph, None
    if positional:
        return graph, dict(zip(names, whole.values(), strict=True))
    return graph, {name if name in names else f"batch.{name}": shape for name, shape in whole.items()}  # of a Lightning module's batch


def torch_example(inputs: Sequence[str], batch: int | None) -> Any:
    """What torch code is called with: a list of shapes, or a structure of them by name."""
    whole = _whole_shapes(parse_inputs(inputs), batch)
    return _positional(whole) or structured(whole)


def _whole_shapes(given: Given, batch: int | None) -> Given:
    return {name: shape if batch is None else _with_batch(batch, shape) for name, shape in given.items()}


def _positional(whole: Given) -> list[tuple[int, ...]]:
    """The shapes without a name; UsageError where some have one."""
    found = [shape for name, shape in whole.items() if name.startswith("#")]
    if found and len(found) < len(whole):
        raise UsageError("name every --input or none")
    return found


def _with_batch(batch: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return TypedShape((batch, *shape), shape.dtype) if isinstance(shape, TypedShape) else (batch, *shape)


def parse_inputs(texts: Iterable[str]) -> Given:
    """``3x224x224`` or ``name=3x224x224``, several; unnamed ones are numbered ``#0``, ``#1``, …; ``y=8xint64`` says a dtype, too."""
    found: Given = {}
    for text in texts:
        name, equals, shape = text.rpartition("=")
        key = name.strip() if equals else f"#{len(found)}"
        if key in found:
            raise UsageError(f"--input {text!r}: {key!r} is given twice")
        found[key] = _shape(shape.strip(), text)
    return found


def _shape(text: str, whole: str) -> tuple[int, ...]:
    dtype = next((name for name in ITEMSIZE if text == name or text.endswith(f"x{name}")), None)
    if dtype is not None:
        before = text[: -len(dtype)].removesuffix("x")
        return TypedShape(_shape(before, whole) if before else (), dtype)
    if not _SHAPE.fullmatch(text):
        raise UsageError(f"--input {whole!r}: a shape is positive sizes joined by x, such as 3x224x224")
    parts = re.split(r"[xX\u00d7,]", text)
    if any(len(p) > MAX_DIGITS for p in parts):
        raise UsageError(f"--input {whole[:60]!r}: a size has at most {MAX_DIGITS} digits")
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
