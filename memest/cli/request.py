"""From the words of a command to an estimate: shapes read and bound, the model opened, the step played."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memest.cli.choices import Isa
from memest.cli.words import in_options
from memest.errors import GraphError, MemestError, UnsupportedError, UsageError, did_you_mean
from memest.estimate.estimate import Estimate, answer, usual_shapes
from memest.estimate.question import MODES, NAMES, Question, question, refuse_said, resolved
from memest.machines.cpu import Cpu
from memest.machines.gpu import Gpu
from memest.machines.loader import ABOUT_WORKERS
from memest.machines.loader import OPTIONS as LOADER
from memest.machines.target import TORCH_CPU, TORCH_CUDA
from memest.machines.versions import torch_of, version_for
from memest.network.dtypes import ITEMSIZE
from memest.network.graph import Graph, Input
from memest.planning.growth import Growth, growth
from memest.planning.progress import tell
from memest.sizes.asked import TypedShape
from memest.sizes.dims import Expr
from memest.sources.assumptions import from_texts
from memest.sources.opening import configured, is_torch, open_model, reads_sizes
from memest.sources.typed import structured, with_arguments

if TYPE_CHECKING:
    from memest.machines.entry import Hardware
    from memest.planning.cluster import ClusterPlan
    from memest.planning.inference import InferencePlan
    from memest.planning.page import PageModel
    from memest.planning.volumes import VolumePlan

Given = dict[str, tuple[int, ...]]
OPTIONS = frozenset(f.name for f in fields(Question)) - {"mode", "levers", "machine"}  # settings with an option of their name
_SHAPE = re.compile(r"\d+(?:[xX\u00d7,]\d+)*", re.ASCII)
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked, as typed: the model, its input, the fields of a question that were given, and the processor or the card."""

    model: str
    inputs: Sequence[str] | None = None
    batch: int | None = None
    assume: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    isa: Isa | None = None
    card: str | None = None

    @staticmethod
    def of(typed: Mapping[str, Any]) -> Request:
        """The request among what a command was given; what was left out stays as it is."""
        given = {name: value for name, value in typed.items() if (value is not None and value is not (name in ON)) or name == "train"}
        if "configuration" in given:
            given["model"] = configured(given["model"], given.pop("configuration"))
        if given.keys() & {"arguments", "arguments_file"}:
            given["model"] = called(given["model"], given.pop("arguments", ()), given.pop("arguments_file", None))
        if "train" in given:
            given["mode"] = "train" if given.pop("train") else "infer"
        _about_workers(given)
        if fed := [f"{name}={str(given.pop(name)).lower()}" for name in LOADER if name in given]:
            given["loader"] = ",".join(fed)
        own = {name: given.pop(name) for name in ("model", "inputs", "batch", "assume", "threads", "isa") if name in given}
        cards = given.pop("cards", [])
        if len(cards) > 1:
            raise UsageError(f"--on is given {len(cards)} times, and this plays one card; memest estimate plays several, compare two")
        return Request(settings=given, card=cards[0] if cards else None, **own)

    @staticmethod
    def perhaps(typed: Mapping[str, Any], left_out: Mapping[str, Any]) -> Request | None:
        """The request, None where no model was given; UsageError where only its settings were."""
        if typed["model"] is not None:
            return Request.of(typed)
        alone = sorted(name for name, value in typed.items() if value != left_out[name])
        if alone:
            named = ", ".join("on" if name == "cards" else name for name in alone)
            raise UsageError(f"{named}: settings of a prediction; say of what by --model")
        return None

    @property
    def mode(self) -> str:
        """``train`` or ``infer``."""
        return str(self.settings.get("mode", "train"))

    def run_on(self, names: Sequence[str]) -> Request:
        """The request with the one CUDA card among the hardware ``names`` as what it runs on, where nothing else says who runs it."""
        cuda = _cuda_words(self.settings)
        if self.settings.keys() & {"runtime", "device"} - cuda:
            return self
        cards = [name for name in names if is_cuda_card(name)]
        if cuda and names and not cards:
            raise UsageError(f"torch-cuda runs on a described CUDA card, and --on {names[0]} is none (see: memest hardware)")
        return replace(self, card=cards[0]) if cards else self

    @property
    def typed(self) -> dict[str, Any]:
        """The settings that were typed, as keywords; what was left out is not among them."""
        machine: dict[str, Any] = {}
        if self.threads is not None:
            machine["threads"] = self.threads
        if self.isa is not None:
            machine["isa"] = self.isa.value
        if machine and self.card is not None:
            raise UsageError(
                f"--threads and --isa describe a processor, and --on {self.card} is a card; leave one of them out, or say --device cpu"
            )
        return {**self.settings, "machine": Cpu.detect().with_(**machine) if machine else self.card}

    @property
    def question(self) -> Question:
        """The question, its names looked up: a wrong one typed on the command line is a usage error, found before the model is opened."""
        return self.question_of(None)

    def question_of(self, graph: Graph | None) -> Question:
        """The question put to ``graph``: what was not typed is as its makers use it, where it says that."""
        if graph is not None:
            refuse_said(graph, self.settings, lambda name: "--lever" if name == "levers" else f"--{name.replace('_', '-')}")
        try:
            found = question(graph, self.typed, "the command")
            resolved(found)
        except MemestError as e:
            raise UsageError(in_options(str(e), OPTIONS)) from None
        return found


def _about_workers(given: Mapping[str, Any]) -> None:
    """UsageError, in the words of options, for those of a data loader that say no workers."""
    flags = {"start": "--workers-start", "persistent": "--persistent-workers", "pin_memory": "--pin-memory"}
    said = [name for name in LOADER if name in given and name != "workers"]
    alone = said if "workers" not in given else [name for name in said if name in ABOUT_WORKERS and not given["workers"]]
    if alone:
        flag = flags.get(alone[0], f"--{alone[0]}")
        none = "--workers 0 has none; give --workers 1 or more (torch refuses it, too)"
        raise UsageError(f"{flag} is about a data loader: " + (none if "workers" in given else "say how many workers it has, --workers 4"))


def called(model: str, arguments: Sequence[str], file: Path | None) -> str:
    """The text of torch code with the arguments that --arg and --args give."""
    return with_arguments(model, arguments, None if file is None else str(file)) if arguments or file is not None else model


def is_cuda_card(name: str) -> bool:
    """Whether ``name`` is an accelerator of the catalogue that torch's CUDA build runs on and that is described for it."""
    from memest.machines.devices import device_named
    from memest.machines.reading import hardware_named

    try:
        return device_named(hardware_named(name).name) is not None
    except UsageError:
        return False


def _cuda_words(settings: Mapping[str, Any]) -> set[str]:
    """Which of ``runtime`` and ``device`` say that torch's CUDA build runs it."""
    return {name for name in ("runtime", "device") if str(settings.get(name)).partition(":")[0] in (TORCH_CUDA, "cuda")}


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
ON = frozenset(f.name for f in fields(Question) if f.default is True)  # flags that are on where nothing is said


def _readers() -> dict[str, Callable[[str], Any]]:
    """How the text of each setting is read, by the name a user gives it."""
    found: dict[str, Callable[[str], Any]] = {"batch": _count, "mode": _choice({m: m for m in MODES})}
    for f in fields(Question):
        if f.name not in ("mode", "machine", "levers"):
            found[f.name.replace("_", "-")] = _FLAG if isinstance(f.default, bool) else str
    return {**found, "device": str, "on": str, "threads": _count, "isa": _choice({i.value: i for i in Isa})}


SETTINGS = _readers()
LISTS = {"input": "inputs", "lever": "levers"}  # settings given once for each item; together they replace the request's
OF_THE_REQUEST = ("batch", "inputs", "threads", "isa")


def changed(request: Request, settings: Iterable[str], *, model: str | None = None) -> Request:
    """``request`` with ``SETTING=VALUE`` texts applied, and perhaps another model.

    Raises UsageError for a setting that is not there, stands twice or has a value that cannot be."""
    found: dict[str, Any] = {}
    known = (*LISTS, *SETTINGS)
    for text in settings:
        name, equals, value = (part.strip() for part in text.partition("="))
        name = name.replace("_", "-")
        if not equals or not value:
            raise UsageError(f"--versus {text!r}: write SETTING=VALUE, such as batch=4; settings are {', '.join(known)}")
        if name not in known:
            raise UsageError(f"--versus: unknown setting {name!r}{did_you_mean(name, known) or '; settings are ' + ', '.join(known)}")
        if name in LISTS:
            found.setdefault(LISTS[name], []).append(value)
            continue
        key = name.replace("-", "_")
        if key in found:
            raise UsageError(f"--versus: {name} is given twice")
        try:
            found[key] = SETTINGS[name](value)
        except ValueError as e:
            raise UsageError(f"--versus {text[:80]!r}: {name} is {e}, got {value[:60]!r}") from None
    own = {name: found.pop(name) for name in OF_THE_REQUEST if name in found}
    if "on" in found:
        own["card"] = found.pop("on")
    elif found.get("device") == "cpu" or found.get("runtime") == TORCH_CPU:
        own["card"] = None
    if model is not None:
        own["model"] = model
    return replace(request, settings={**request.settings, **found}, **own)


def limits(on: Sequence[str] | None, budget: str | None, file: Path | None) -> tuple[Hardware, ...]:
    """Where the peak has to fit, found before anything is estimated; the catalogue is read only when it is asked for."""
    if file is not None and not on:
        raise UsageError(f"--hardware {file} has no --on that uses it; name one of its entries")
    if not on and budget is None:
        return ()
    from memest.machines.reading import load_hardware
    from memest.machines.verdicts import places

    return places(on or (), budget, () if file is None else load_hardware(file))


def answered(request: Request, said: Collection[str] = ()) -> tuple[Graph, Estimate]:
    """The graph and the estimate that ``request`` asks for; ``said`` are warnings not to be repeated."""
    _ = request.question
    graph, shapes = open_with_inputs(request.model, request.inputs, request.batch, request.mode, assume=request.assume)
    asking = request.question_of(graph)
    warn(asking, graph, said)
    try:
        return graph, answer(graph, asking, shapes)
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__


def elsewhere(request: Request, graph: Graph, estimate: Estimate, place: Hardware) -> Estimate:
    """The estimate that says whether the step fits at ``place``: played for it where it is another card than the one of ``estimate``."""
    played = estimate.machine
    if not isinstance(played, Gpu) or played.name == place.name or not is_cuda_card(place.name):
        return estimate
    return answer(graph, replace(request, card=place.name).question_of(graph), dict(estimate.input_shapes))


def planned(request: Request, alignment: int) -> InferencePlan:
    """The plans of one inference call, on the null runtime where no other is asked for."""
    from memest.planning.inference import plan_inference

    given = {"runtime": "null"} if "device" not in request.settings and request.card is None else {}
    request = replace(request, settings={**given, **request.settings, "mode": "infer"})
    runtime = request.question.runtime
    graph, shapes = open_with_inputs(request.model, request.inputs, request.batch, "infer", runtime, request.assume)
    asking = request.question_of(graph)
    warn(asking, graph)
    try:
        return plan_inference(graph, input_shape=shapes, alignment=alignment, **keywords(asking))
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__


def cut(request: Request, **how: Any) -> VolumePlan:
    """The ways to predict one volume; ``how`` are the other keywords of ``plan_volume``."""
    from memest.planning.volumes import plan_volume

    request = replace(request, settings={**request.settings, "mode": "infer"})
    _ = request.question
    graph, shapes = open_with_inputs(request.model, request.inputs, request.batch, "infer", assume=request.assume)
    asking = request.question_of(graph)
    warn(asking, graph)
    try:
        return plan_volume(graph, input_shape=shapes, **how, **keywords(asking))
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__


def spread(request: Request, volume: str | None, batch: int | None, places: Sequence[Hardware], **how: Any) -> ClusterPlan:
    """The layouts of a global ``batch`` of volumes; ``how`` are the other keywords of ``plan_cluster``. UsageError for what is missing,
    or stands twice."""
    from memest.planning.cluster import plan_cluster
    from memest.planning.exchanges import exchange_named

    if volume is not None and request.inputs:
        raise UsageError("--volume and --input both say what one volume is; give one of them")
    if volume is not None:
        request = replace(request, inputs=[volume])
    if batch is None:
        raise UsageError("say how many volumes a step takes on all ranks: --global-batch 16")
    if len(places) != 1:
        raise UsageError(f"give one kind of node, not {len(places)}: --on server-1.5tb, or --budget 192GiB a node")
    cards = places[0].name if places[0].kind == "accelerator" else next(iter(sorted(_cuda_words(request.settings))), None)
    if cards is not None:
        named = f"{cards} is an accelerator" if places[0].kind == "accelerator" else f"--{cards} {request.settings[cards]} is a card's"
        raise UsageError(
            f"memest cluster plans servers' processors, and {named}; of cards ask memest estimate --on h100-80gb --lever ddp:world=8"
        )
    request = replace(request, batch=batch)
    _ = request.question
    try:
        exchange_named(how["exchange"])
    except MemestError as e:
        raise UsageError(str(e)) from None
    graph, shapes = open_with_inputs(request.model, request.inputs, batch, "train", assume=request.assume)
    asking = request.question_of(graph)
    warn(asking, graph)
    if shapes is None or len(shapes) != 1:
        raise UsageError(f"memest cluster takes networks of one input, given as --volume; {graph.name} has {len(graph.inputs)}")
    try:
        one = next(iter(shapes.values()))[1:]
        return plan_cluster(graph, global_batch=batch, input_shape=one, on=places[0], **how, **keywords(asking))
    except UsageError as e:
        text = re.sub(r"\branks_per_(node|socket)\b", r"--ranks-per-\1", str(e))
        raise UsageError(text.replace("plan_cluster", "memest cluster")) from None
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__


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
    _ = request.question
    if is_torch(request.model):
        graph, _ = open_with_inputs(request.model, request.inputs, request.batch, request.mode, assume=request.assume)
    elif request.inputs:
        raise UsageError("--input is for torch models, which are imported at it; here --sides and --batches give the shape")
    else:
        graph = open_model(request.model)
    asking = request.question_of(graph)
    warn(asking, graph)
    return growth(graph, sides, batches, **keywords(asking))


def report_model(request: Request, **how: Any) -> PageModel:
    """The data of a live report; ``how`` are the other keywords of ``page_model``. Sizes not given are usual ones."""
    from memest.planning.page import page_model
    from memest.planning.page.grid import shapes_at, usual_sizes

    _ = request.question
    for optimizer in how.get("optimizers", ()):
        _ = replace(request, settings={**request.settings, "optimizer": optimizer}).question
    model, batch = request.model, request.batch
    if is_torch(model) or request.inputs:
        graph, shapes = open_with_inputs(model, request.inputs, batch, request.mode, assume=request.assume)
    else:
        graph = open_model(model)
        sizes = usual_sizes(graph)
        head = next(iter(graph.inputs)).shape[:1]
        if batch is not None:
            sizes |= {d.text: batch for d in head if isinstance(d, Expr)}
        shapes = shapes_at(graph, sizes)
    asking = request.question_of(graph)
    warn(asking, graph)
    if graph.usual is not None and asking.training:
        how = {"optimizers": (asking.optimizer,), **how}
    try:
        return page_model(graph, input_shape=graph_shapes(graph, shapes), **how, **keywords(asking))
    except (GraphError, UnsupportedError) as e:
        raise e.at(model) from e.__cause__


def keywords(asking: Question) -> dict[str, Any]:
    """A question as the keywords of the functions that estimate."""
    return {name: getattr(asking, name) for name in NAMES}


def graph_shapes(graph: Graph, shapes: Given | None) -> Given:
    """The shapes given, or the graph's own where they are numbers."""
    return shapes if shapes is not None else {i.name: tuple(d for d in i.shape if isinstance(d, int)) for i in graph.inputs}


def warn(asking: Question, graph: Graph, said: Collection[str] = ()) -> None:
    """A torch at hand that is not modelled is named on stderr, if not ``said`` yet."""
    warning = torch_of(version_for(asking.torch, graph.torch), graph.torch).warning
    if warning and warning not in said:
        print(f"memest: warning: {warning}", file=sys.stderr)


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
