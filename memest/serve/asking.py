"""What a request asks, in the words of :class:`memest.estimate.question.Question`: read from JSON, and described as a schema, both from
its fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from hashlib import sha256
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from memest.errors import UsageError, did_you_mean, kind_of
from memest.estimate.question import KEYWORDS, Question
from memest.files import decode, parse
from memest.machines.cpu import Cpu
from memest.machines.gpu import Gpu

REQUEST = "<request>"
_sorted = json.JSONEncoder(sort_keys=True).encode
Schema = dict[str, Any]
_SIZES: Schema = {"type": "array", "items": {"type": "integer", "minimum": 1}}
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", NoneType: "null"}
WHAT: dict[str, Schema] = {
    "model": {"type": "string", "description": "A built-in model, with options: resnet50:num_classes=10."},
    "graph": {
        "anyOf": [{"type": "object"}, {"type": "string"}],
        "description": "A network, as a graph file has it: the mapping itself, or the text of a file (memest schema describes it).",
    },
}
"""Which network is asked about: one of them."""
SHAPE: Schema = {
    "anyOf": [_SIZES, {"type": "array", "items": _SIZES}, {"type": "object", "additionalProperties": _SIZES}],
    "description": "Of the input, with the batch; a list of shapes or an object by name for several.",
}
ONLY: Schema = {"type": "array", "items": {"type": "string"}, "description": "The fields of the answer that are wanted (default: all)."}
ESTIMATED: dict[str, Schema] = {"input_shape": SHAPE, "fields": ONLY}
VARIED: dict[str, Schema] = {
    "budget": {"anyOf": [{"type": "string"}, {"type": "integer"}], "description": "Bytes, or a text such as 24GiB."},
    "on": {"type": "string", "description": "Hardware of the catalogue instead of a budget (memest hardware)."},
    "vary": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "description": "batch, H=W, or several."},
    "batch": {"type": "integer", "minimum": 1, "description": "Where it does not vary."},
    "step": {"type": "integer", "minimum": 1, "description": "What the sizes that vary are multiples of."},
    "sizes": {"type": "object", "additionalProperties": {"type": "integer"}, "description": "Those that do not vary, by name."},
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: ``network`` says which (``model`` or ``graph``, and what stands there), ``words`` are what the answer is made with
    besides the ``settings``. ``key`` is the same for the same question; ``manner`` for questions that differ in their input's shape."""

    network: tuple[str, Any]
    words: Mapping[str, Any]
    settings: Mapping[str, Any]
    key: tuple[str, str]
    manner: str


def parsed(body: bytes) -> Any:
    """A body as plain data. FileError where it is no JSON, or beyond bounds."""
    return parse(decode(body, REQUEST), "json", REQUEST)


def read(data: Any, own: Mapping[str, Schema], who: str) -> Asked:
    """The question in ``data``, which may have the words of its ``own`` beside the settings. UsageError for a word that is none."""
    if not isinstance(data, dict):
        raise UsageError(f"{who} takes an object, got {kind_of(data)}")
    check_words(data, (*WHAT, *own, *KEYWORDS), who)
    words, settings = {}, {}
    for name, value in data.items():
        if name in own:
            words[name] = value
        elif name in KEYWORDS:
            settings[name] = value
    network = [(name, data[name]) for name in WHAT if data.get(name) is not None]
    if len(network) != 1:
        raise UsageError(f"{who}: say which network by 'model' or 'graph', {'one' if not network else 'not both'} of them")
    if isinstance(settings.get("machine"), dict):
        settings["machine"] = _cpu(settings["machine"])
    manner = _sorted({name: value for name, value in data.items() if name not in WHAT and name != "input_shape"})
    rest = f"{_sorted(data['input_shape'])} {manner}" if "input_shape" in data else manner
    return Asked(network[0], words, settings, (key_of(network[0]), rest), manner)


def check_words(data: Mapping[str, Any], known: Sequence[str], who: str) -> None:
    """UsageError for a word in ``data`` that is none of those ``known``."""
    for name in data:
        if name not in known:
            raise UsageError(f"{who} has no word {name!r}{did_you_mean(name, known) or '; there are ' + ', '.join(known)}")


def key_of(network: tuple[str, Any]) -> str:
    """The same for the same network: a model's name, or the hash of a description."""
    what, value = network
    if what == "model":
        return f"model {value}"
    return sha256((value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")).hexdigest()


def _cpu(given: Mapping[str, Any]) -> Cpu:
    check_words(given, [f.name for f in fields(Cpu)], "machine")
    return Cpu(**given)


def schema(own: Mapping[str, Schema]) -> Schema:
    """The JSON Schema of a question with the words of its ``own``."""
    hints = get_type_hints(Question)
    settings = {f.name: {**_schema(hints[f.name]), "description": f.metadata["help"]} for f in fields(Question)}
    for f in fields(Question):
        if f.default is not MISSING and f.default not in (None, ()):
            settings[f.name]["default"] = f.default
    device: Schema = {"type": "string", "description": "Short for a runtime: cpu or cuda."}
    properties = {**WHAT, **own, **settings, "device": device}
    one = [{"required": [name]} for name in WHAT]
    return {"type": "object", "properties": properties, "additionalProperties": False, "oneOf": one}


def _schema(hint: Any) -> Schema:
    """The schema of a value of this type."""
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if hint is Cpu:
        hints = get_type_hints(Cpu)
        return {"type": "object", "properties": {f.name: _schema(hints[f.name]) for f in fields(Cpu)}, "additionalProperties": False}
    if hint is Gpu:
        return {"type": "string"}
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    parts = get_args(hint)
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _schema(parts[0])}
    return {"anyOf": [_schema(part) for part in parts]}
