"""What a command was asked, as typed: the model, its inputs, the settings of a question, and the changes that are to be tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memest.cli.choices import Isa
from memest.cli.words import MAX_DIGITS, in_options
from memest.errors import MemestError, UsageError, did_you_mean
from memest.estimate.question import MODES, Question, question, refuse_said, resolved
from memest.machines.cpu import Cpu
from memest.machines.loader import ABOUT_WORKERS
from memest.machines.loader import OPTIONS as LOADER
from memest.machines.target import TORCH_CPU, TORCH_CUDA
from memest.network.graph import Graph
from memest.sources.opening import configured
from memest.sources.typed import with_arguments

if TYPE_CHECKING:
    from memest.machines.entry import Hardware

OPTIONS = frozenset(f.name for f in fields(Question)) - {"mode", "levers", "machine"}  # settings with an option of their name


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
        cuda = cuda_words(self.settings)
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


def cuda_words(settings: Mapping[str, Any]) -> set[str]:
    """Which of ``runtime`` and ``device`` say that torch's CUDA build runs it."""
    return {name for name in ("runtime", "device") if str(settings.get(name)).partition(":")[0] in (TORCH_CUDA, "cuda")}


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and int(text) > 0):
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
