"""From the words of a command to an estimate: shapes read and bound, the model opened, the step played."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memest.cli.options import Isa
from memest.errors import GraphError, MemestError, UnsupportedError, UsageError, did_you_mean
from memest.estimate.estimate import Estimate, estimate
from memest.machines.cpu import Cpu
from memest.machines.versions import torch_of, version_for
from memest.network.graph import Graph, Input
from memest.planning.growth import Growth, growth
from memest.planning.progress import tell
from memest.sizes.dims import Expr
from memest.sources.opening import is_torch, open_model

if TYPE_CHECKING:
    from memest.machines.entry import Hardware
    from memest.planning.page import PageModel

Given = dict[str, tuple[int, ...]]
_SHAPE = re.compile(r"\d+(?:[xX\u00d7,]\d+)*", re.ASCII)
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked, as typed."""

    model: str
    inputs: Sequence[str] | None = None
    batch: int | None = None
    train: bool = True
    optimizer: str = "sgd"
    loss: str = "cross_entropy"
    dtype: str | None = None
    hold_output: bool = False
    first_step: bool = False
    levers: Sequence[str] = ()
    threads: int | None = None
    isa: Isa | None = None
    torch: str | None = None

    @property
    def mode(self) -> str:
        """``train`` or ``infer``."""
        return "train" if self.train else "infer"


def requested(typed: Mapping[str, Any]) -> Request:
    """The request among what a command was given: its arguments under the names of the fields; what was left out stays as it is."""
    return Request(**{f.name: typed[f.name] for f in fields(Request) if typed.get(f.name) is not None})


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) > 0):
        raise ValueError("a whole number from 1")
    return int(text)


def _choice(words: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text not in words:
            raise ValueError(" or ".join(words))
        return words[text]

    return read


_FLAG = _choice({"true": True, "false": False})
SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {  # as a user names them: the field of Request, how its text is read
    "batch": ("batch", _count),
    "mode": ("train", _choice({"train": True, "infer": False})),
    "optimizer": ("optimizer", str),
    "loss": ("loss", str),
    "dtype": ("dtype", str),
    "hold-output": ("hold_output", _FLAG),
    "first-step": ("first_step", _FLAG),
    "threads": ("threads", _count),
    "isa": ("isa", _choice({i.value: i for i in Isa})),
    "torch": ("torch", str),
}


LISTS = {"input": "inputs", "lever": "levers"}  # settings given once for each item; together they replace the request's


def changed(request: Request, settings: Iterable[str], *, model: str | None = None) -> Request:
    """``request`` with ``SETTING=VALUE`` texts applied, and perhaps another model.

    Raises UsageError for a setting that is not there, stands twice or has a value that cannot be."""
    fields: dict[str, Any] = {} if model is None else {"model": model}
    known = (*LISTS, *SETTINGS)
    for text in settings:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value:
            raise UsageError(f"--versus {text!r}: write SETTING=VALUE, such as batch=4; settings are {', '.join(known)}")
        if name not in known:
            raise UsageError(f"--versus: unknown setting {name!r}{did_you_mean(name, known) or '; settings are ' + ', '.join(known)}")
        if name in LISTS:
            fields.setdefault(LISTS[name], []).append(value)
            continue
        field, read = SETTINGS[name]
        if field in fields:
            raise UsageError(f"--versus: {name} is given twice")
        try:
            fields[field] = read(value)
        except ValueError as e:
            raise UsageError(f"--versus {text[:80]!r}: {name} is {e}, got {value[:60]!r}") from None
    return replace(request, **fields)


def limits(on: Sequence[str] | None, budget: str | None, file: Path | None) -> tuple[Hardware, ...]:
    """Where the peak has to fit, found before anything is estimated; the catalogue is read only when it is asked for."""
    if file is not None and not on:
        raise UsageError(f"--hardware {file} has no --on that uses it; name one of its entries")
    if not on and budget is None:
        return ()
    from memest.machines.reading import load_hardware
    from memest.machines.verdicts import places

    return places(on or (), budget, () if file is None else load_hardware(file))


def answer(request: Request, said: Collection[str] = ()) -> tuple[Graph, Estimate]:
    """The graph and the estimate that ``request`` asks for; ``said`` are warnings not to be repeated."""
    check_names(request)
    graph, shapes = open_with_inputs(request.model, request.inputs, request.batch, request.mode)
    try:
        result = estimate(
            graph,
            input_shape=shapes,
            mode=request.mode,
            optimizer=request.optimizer,
            loss=request.loss,
            dtype=request.dtype,
            hold_output=request.hold_output,
            first_step=request.first_step,
            levers=request.levers,
            **runtime_of(request, graph, said),
        )
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__
    return graph, result


def usual_inputs(model: str, batch: int | None) -> tuple[list[str] | None, int | None]:
    """--input and --batch for a built-in model when no shape is given: its usual image, 8 of them, or a volume of 64 cubed, 2 of them."""
    from memest.sources.models import MODELS

    known = MODELS.get(model.partition(":")[0])
    if known is None or is_torch(model):
        return None, batch
    graph = open_model(model)
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != len(known.input_shape) + 1:
        return None, batch
    channels = graph.inputs[0].shape[1]
    volume = len(known.input_shape) == 4
    usual = (64, 64, 64) if volume else known.input_shape[1:]
    return ["x".join(map(str, (channels, *usual)))], batch or (2 if volume else 8)


def grow(request: Request, sides: Sequence[int], batches: Sequence[int]) -> Growth:
    """The peaks over ``sides`` and ``batches``. Only a torch model takes inputs: it is imported at them."""
    check_names(request)
    if is_torch(request.model):
        graph, _ = open_with_inputs(request.model, request.inputs, request.batch, request.mode)
    elif request.inputs:
        raise UsageError("--input is for torch models, which are imported at it; here --sides and --batches give the shape")
    else:
        graph = open_model(request.model)
    return growth(
        graph,
        sides,
        batches,
        mode=request.mode,
        optimizer=request.optimizer,
        loss=request.loss,
        dtype=request.dtype,
        hold_output=request.hold_output,
        first_step=request.first_step,
        **runtime_of(request, graph),
    )


def report_model(
    model: str, inputs: Sequence[str] | None, batch: int | None, *, threads: int | None, isa: Isa | None, torch: str | None, **how: Any
) -> PageModel:
    """The data of a live report; ``how`` are the other keywords of ``page_model``. Sizes not given are usual ones."""
    from memest.planning.page import page_model
    from memest.planning.page.grid import shapes_at, usual_sizes

    train, loss = how["mode"] == "train", how["loss"]
    request = Request(model=model, inputs=inputs, batch=batch, train=train, threads=threads, isa=isa, torch=torch, loss=loss)
    for optimizer in how.get("optimizers", ("sgd",)):
        check_names(replace(request, optimizer=optimizer))
    if is_torch(model) or inputs:
        graph, shapes = open_with_inputs(model, inputs, batch, request.mode)
    else:
        graph = open_model(model)
        sizes = usual_sizes(graph)
        head = next(iter(graph.inputs)).shape[:1]
        if batch is not None:
            sizes |= {d.text: batch for d in head if isinstance(d, Expr)}
        shapes = shapes_at(graph, sizes)
    try:
        return page_model(graph, input_shape=graph_shapes(graph, shapes), **runtime_of(request, graph), **how)
    except (GraphError, UnsupportedError) as e:
        raise e.at(model) from e.__cause__


def graph_shapes(graph: Graph, shapes: Given | None) -> Given:
    """The shapes given, or the graph's own where they are numbers."""
    return shapes if shapes is not None else {i.name: tuple(d for d in i.shape if isinstance(d, int)) for i in graph.inputs}


def runtime_of(request: Request, graph: Graph, said: Collection[str] = ()) -> dict[str, Any]:
    """The processor and the torch asked for, as keywords. A torch at hand that is not modelled is named on stderr, if not ``said`` yet."""
    cpu = Cpu.detect()
    if request.threads is not None:
        cpu = cpu.with_(threads=request.threads)
    if request.isa is not None:
        cpu = cpu.with_(isa=request.isa.value)
    warning = torch_of(version_for(request.torch, graph.torch), graph.torch).warning
    if warning and warning not in said:
        print(f"memest: warning: {warning}", file=sys.stderr)
    return {"cpu": cpu, "torch": request.torch}


def check_names(request: Request) -> None:
    """A wrong name typed on the command line is a usage error, found before the model is opened."""
    from memest.levers.table import settings
    from memest.network.conversion import floating_dtype
    from memest.runtimes.torch.losses import loss_named
    from memest.runtimes.torch.optimizers import optimizer_named

    try:
        if request.dtype is not None:
            floating_dtype(request.dtype)
        optimizer_named(request.optimizer)
        loss_named(request.loss)
        settings(request.levers, request.mode)
        version_for(request.torch, None)
    except MemestError as e:
        raise UsageError(str(e)) from None


def open_with_inputs(model: str, inputs: Sequence[str] | None, batch: int | None, mode: str | None = None) -> tuple[Graph, Given | None]:
    """The graph, and the shape of each of its inputs (None: the graph's own dims are numbers and nothing was given)."""
    given = parse_inputs(inputs or ())
    if is_torch(model):
        return _open_torch(model, given, batch, mode)
    graph = open_model(model)
    if not given and batch is None and all(isinstance(d, int) for i in graph.inputs for d in i.shape):
        return graph, None
    return graph, bind_shapes(graph.inputs, given, batch)


def _open_torch(model: str, given: Given, batch: int | None, mode: str | None) -> tuple[Graph, Given]:
    """A torch model is called with the shapes, so they must be whole; unnamed ones are positional. It is recorded for one mode alone where
    only that is asked: what cannot be recorded in the other does not matter."""
    whole = {name: shape if batch is None else (batch, *shape) for name, shape in given.items()}
    positional = [shape for name, shape in whole.items() if name.startswith("#")]
    if positional and len(positional) < len(whole):
        raise UsageError("name every --input or none")
    tell(f"importing {model}")
    graph = open_model(model, (positional or whole) or None, mode)
    tell("estimating")
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
