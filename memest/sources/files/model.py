"""The shape of a file, in pydantic: which keys there are and what they hold. What the settings of a layer mean is the reader's business."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from memest.errors import did_you_mean
from memest.machines.versions import version_of

VERSION = 1
_RESERVED_SIZE = re.compile(r"\b(?:[tf]\d+|(?:max|min)\b(?!\s*\())|__|[^\x00-\x7f]")
Settings = dict[str, Any]


def _dim(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"a size is a number, a name such as H or an expression such as H//2, got {value!r}")
    if isinstance(value, int) and value < 1:
        raise ValueError(f"sizes are positive, got {value}")
    if isinstance(value, str) and _RESERVED_SIZE.search(value):
        raise ValueError(f"the names max, min, t0, t1, … and f0, f1, … are taken, got {value!r}")
    return value


def _shape_alone(value: Any) -> Any:
    return {"shape": value} if isinstance(value, list) else value


def _name_alone(value: Any) -> Any:
    if isinstance(value, str):
        return {value: None}
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("a layer is one operator or block with its settings, such as 'relu: {inplace: true}'")
    return value


Dim = Annotated[Any, BeforeValidator(_dim, json_schema_input_type=int | str)]


def _release(value: Any) -> Any:
    if not isinstance(value, str) or version_of(value) is None:
        raise ValueError(f"a release of torch is a text such as '2.14.1', got {value!r}")
    return value


Release = Annotated[Any, BeforeValidator(_release, json_schema_input_type=str)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TensorModel(_Strict):
    """An input: its dims (numbers, names, expressions), dtype and memory layout."""

    shape: list[Dim]
    dtype: str = "float32"
    layout: str = "contiguous"


class ParameterModel(_Strict):
    """A tensor the network owns; a buffer is never trained. One that is not registered is a plain attribute of a module, or what a function
    caches."""

    shape: list[Dim]
    dtype: str = "float32"
    layout: str = "contiguous"
    trainable: bool = True
    buffer: bool = False
    registered: bool = True


InputModel = Annotated[TensorModel, BeforeValidator(_shape_alone, json_schema_input_type=list[int | str] | TensorModel)]
OwnedModel = Annotated[ParameterModel, BeforeValidator(_shape_alone, json_schema_input_type=list[int | str] | ParameterModel)]
_EXPECTED = {  # by pydantic's names of problems
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "int_type": "a whole number",
    "invalid_key": "a text as key",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "a text",
}
_LAYER = {"description": "one operator or block, with its settings"}
LayerModel = Annotated[dict[str, Settings | None], BeforeValidator(_name_alone), WithJsonSchema(_LAYER)]


class BlockModel(_Strict):
    """Layers written once. ``arguments`` are names, or names with defaults; ``output`` is what it gives (the last layer's by default);
    ``holds`` are values that live until the block ends, as a Python function's variables do (its inputs always do)."""

    arguments: list[str] | dict[str, Any] = Field(default_factory=list)
    inputs: list[str] = Field(default_factory=lambda: ["input"])
    layers: list[LayerModel] = Field(min_length=1)
    output: str | None = None
    holds: list[str] = Field(default_factory=list)


class AutocastModel(_Strict):
    """What contexts of autocast say on some layers: off without a ``dtype``; ``cache`` keeps the casts of parameters."""

    device: Literal["cpu", "cuda"]
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    cache: bool = True
    layers: list[str]


class CheckpointModel(_Strict):
    """A checkpoint that is not called in the usual way: the first and the last layer it wraps, torch's keywords, the tensors that it is
    given, the checkpoint that it stands inside of, what it reads without being given it, what a reentrant one returns and which layers
    in it turn gradients on for themselves; ``grad`` is false for one under ``torch.no_grad()``, ``packing`` says what hooks do."""

    layers: list[str]
    reentrant: bool = False
    preserve_rng_state: bool = True
    early_stop: bool = True
    arguments: list[str] = Field(default_factory=list)
    inside: str | None = None
    captured: list[str] = Field(default_factory=list)
    selective: bool = False
    allow_cache_entry_mutation: bool = False
    results: list[str] = Field(default_factory=list)
    enabling: list[str] = Field(default_factory=list)
    grad: bool = True
    packing: list[PackingModel] = Field(default_factory=list)


class CallModel(_Strict):
    """A layer of a custom function's backward: what it reads by role (null where nothing), and what it lets go of; where it ends a custom
    ``function`` itself, that one's backward; and what hooks do with the tensors that it saves (``packing``)."""

    op: str
    name: str
    tensors: list[str | list[str] | None]
    out: list[str]
    attributes: dict[str, Any] = Field(default_factory=dict)
    drops: list[str] = Field(default_factory=list)
    grad: bool = True
    function: FunctionModel | None = None
    packing: list[PackingModel] = Field(default_factory=list)


class FunctionModel(_Strict):
    """What a custom autograd function keeps and does in backward; ``results`` has the gradient of each tensor it is given. ``others`` are
    what it does where some gradients do not come (null among its ``gradients``); the results of the ``lender`` (another function) are
    read as what was ``lent``. Where it never ``unpacks`` what was saved, others may have written to that.
    Layers named in ``without_grad`` stand under a ``no_grad`` of its own; ``applies`` names a custom function that is applied in it;
    ``raises`` is the error that it ends in."""

    saved: list[str] = Field(default_factory=list)
    kept: list[str] = Field(default_factory=list)
    gradients: list[str | None]
    layers: list[CallModel] = Field(default_factory=list)
    results: list[str | None]
    differentiable: list[bool]
    materialized: bool = True
    others: list[FunctionModel] = Field(default_factory=list)
    lender: str | None = None
    lent: list[str] = Field(default_factory=list)
    unpacks: bool = True
    without_grad: list[str] = Field(default_factory=list)
    applies: str | None = None
    asks_autocast: bool = False
    begins: str | None = None
    raises: str | None = None


class HookModel(FunctionModel):
    """A hook on a parameter; ``after`` its gradient is there, or while it comes."""

    parameter: str
    after: bool = False


class PackingModel(_Strict):
    """What hooks of saved tensors do with one, ``given`` by that name: layers that pack it, what is kept, layers that unpack that."""

    given: str
    dtype: str = "float32"
    packed: list[CallModel] = Field(default_factory=list)
    kept: list[str]
    unpacked: list[CallModel] = Field(default_factory=list)
    result: str


class GraphModel(_Strict):
    """A whole file.

    ``examples`` are sizes at which the file is checked when it is read. ``order`` lists owners of parameters (or what their names
    begin with) in torch's order of registration, where it is not that of the layers. ``holds`` are values that live until the
    forward ends; ``drops`` says for single layers which values die after them, where it is not each one's last reader. ``guards``
    are the comparisons of sizes under which the network runs as described; ``inference`` is the graph of ``eval()`` where it differs.
    ``no_grad`` lists the layers that run under ``torch.no_grad()``; ``checkpoints`` are calls of ``torch.utils.checkpoint``, each with the
    first and the last layer it wraps; ``autocast`` are the outermost contexts of ``torch.autocast``, each with what it and those inside
    say on which layers; ``functions`` has the backward of custom autograd functions by the layer that ends each, ``packing`` what hooks do
    with the tensors that a layer saves, ``hooks`` are those on parameters; ``enables_grad`` says that the forward turns gradients on
    where its caller has turned them off; ``waiting`` are values that only Python's garbage collector lets go of, so that they are there
    until the step is over; ``selected`` are the operators whose results a selective checkpoint keeps, by the layer that
    calls them, each with how often that called it before; ``refused`` says for a mode (``train``, ``infer``) why there is
    no graph for it, or for ``torch-cuda`` why it does not run on a card, where the values ``on_host`` are not the card's; ``notes`` tell
    the reader of an answer something about the network; ``torch`` is the release of torch it was recorded with.
    """

    memest: int = VERSION
    name: str = "graph"
    inputs: dict[str, InputModel]
    examples: dict[str, int] | None = None
    parameters: dict[str, OwnedModel] = Field(default_factory=dict)
    blocks: dict[str, BlockModel] = Field(default_factory=dict)
    layers: list[LayerModel]
    outputs: list[str] | None = None
    order: list[str] | None = None
    holds: list[str] = Field(default_factory=list)
    drops: dict[str, list[str]] | None = None
    guards: list[str] | None = None
    no_grad: list[str] | None = None
    checkpoints: dict[str, list[str] | CheckpointModel] | None = None
    autocast: dict[str, list[AutocastModel]] | None = None
    functions: dict[str, FunctionModel] | None = None
    packing: dict[str, list[PackingModel]] | None = None
    hooks: list[HookModel] | None = None
    enables_grad: bool = False
    waiting: list[str] | None = None
    selected: dict[str, list[list[str | int]]] | None = None
    refused: dict[str, str] | None = None
    on_host: list[str] | None = None
    notes: list[str] | None = None
    torch: Release | None = None
    inference: GraphModel | None = None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a graph file; the settings of each operator are listed, those of blocks are free."""
    schema: dict[str, Any] = _with_layers(GraphModel.model_json_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$defs"]["layer"] = {
        "anyOf": [{"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": _operators()}]
    }
    return schema


def _with_layers(value: Any) -> Any:
    """``value`` with every place for a layer pointing to the one description of layers."""
    if value == _LAYER:
        return {"$ref": "#/$defs/layer"}
    if isinstance(value, dict):
        return {k: _with_layers(v) for k, v in value.items()}
    return [_with_layers(v) for v in value] if isinstance(value, list) else value


def _operators() -> dict[str, Any]:
    from memest.ops.table import COMPOSITES, OPERATORS
    from memest.sources.files.layers import keywords_of

    return {
        op: {"type": ["object", "null"], "properties": {k: {} for k in keywords_of(op)}, "additionalProperties": False}
        for op in (*OPERATORS, *COMPOSITES)
    }


def first_problem(error: ValidationError, data: Any) -> tuple[tuple[str | int, ...], str]:
    """(path in ``data``, what is wrong there) of the validation error it caused, in our words."""
    problem = error.errors(include_url=False)[0]
    kind, location, given = problem["type"], problem["loc"], problem["input"]
    path = _within(data, location)
    place = ".".join(map(str, path)) or "the file"
    if kind == "extra_forbidden":
        *above, key = path
        return path, f"unknown key {key!r} in {'.'.join(map(str, above)) or 'the file'}{did_you_mean(str(key), _keys_at(above))}"
    if kind == "missing":
        return path, f"{place} has no {location[-1]!r}"
    if kind == "value_error":
        return path, f"{place}: {problem['ctx']['error']}"
    if kind == "too_short":
        return path, f"{place} is empty"
    expected = problem["ctx"]["expected"] if kind == "literal_error" else _EXPECTED.get(kind, "something else")
    return path, f"{place}: expected {expected}, got {_shown(given)}"


def _within(data: Any, location: Iterable[str | int]) -> tuple[str | int, ...]:
    """The steps of ``location`` that lead into ``data``; the others name types, or what a short form leaves out."""
    path: list[str | int] = []
    for step in location:
        entries = data if isinstance(data, dict) else dict(enumerate(data)) if isinstance(data, list) else {}
        if step in entries:
            data = entries[step]
            path.append(step)
    return tuple(path)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _keys_at(path: Sequence[str | int]) -> list[str]:
    """The keys that may stand at a place of the file."""
    inner = [p for p in path if p != "inference"]
    models: dict[str, type[BaseModel]] = {"inputs": TensorModel, "parameters": ParameterModel, "blocks": BlockModel}
    return list((models.get(str(inner[0]), GraphModel) if inner else GraphModel).model_fields)
