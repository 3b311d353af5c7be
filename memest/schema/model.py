"""The shape of a file, in pydantic: which keys there are and what they hold. What the settings of a layer mean is the reader's business."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from memest.errors import did_you_mean

VERSION = 1
Settings = dict[str, Any]


def _dim(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"a size is a number, a name such as H or an expression such as H//2, got {value!r}")
    if isinstance(value, int) and value < 1:
        raise ValueError(f"sizes are positive, got {value}")
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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TensorModel(_Strict):
    """An input: its dims (numbers, names, expressions), dtype and memory layout."""

    shape: list[Dim]
    dtype: str = "float32"
    layout: str = "contiguous"


class ParameterModel(_Strict):
    """A tensor the network owns; a buffer is never trained."""

    shape: list[Dim]
    dtype: str = "float32"
    layout: str = "contiguous"
    trainable: bool = True
    buffer: bool = False


InputModel = Annotated[TensorModel, BeforeValidator(_shape_alone, json_schema_input_type=list[int | str] | TensorModel)]
OwnedModel = Annotated[ParameterModel, BeforeValidator(_shape_alone, json_schema_input_type=list[int | str] | ParameterModel)]
LayerModel = Annotated[dict[str, Settings | None], BeforeValidator(_name_alone, json_schema_input_type=str | dict[str, Settings | None])]


class BlockModel(_Strict):
    """Layers written once. ``arguments`` are names, or names with defaults; ``output`` is what it gives (the last layer's by default)."""

    arguments: list[str] | dict[str, Any] = Field(default_factory=list)
    inputs: list[str] = Field(default_factory=lambda: ["input"])
    layers: list[LayerModel] = Field(min_length=1)
    output: str | None = None


class GraphModel(_Strict):
    """A whole file.

    ``examples`` are sizes at which the file is checked when it is read; ``order`` lists owners of parameters (or what their names begin with)
    in torch's order of registration, where it is not that of the layers; ``drops`` says for single layers which values die after them, where it
    is not each one's last reader; ``inference`` is the graph of ``eval()`` where it differs."""

    memest: int = VERSION
    name: str = "graph"
    inputs: dict[str, InputModel]
    examples: dict[str, int] | None = None
    parameters: dict[str, OwnedModel] = Field(default_factory=dict)
    blocks: dict[str, BlockModel] = Field(default_factory=dict)
    layers: list[LayerModel]
    outputs: list[str] | None = None
    order: list[str] | None = None
    drops: dict[str, list[str]] | None = None
    inference: GraphModel | None = None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a graph file; the settings of each operator are listed, those of blocks are free."""
    schema = GraphModel.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$defs"]["settings"] = {name: _settings_schema(names) for name, names in _keywords().items()}
    return schema


def _keywords() -> dict[str, list[str]]:
    from memest.ops.table import COMPOSITES, OPERATORS
    from memest.schema.layers import keywords_of

    return {op: keywords_of(op) for op in (*OPERATORS, *COMPOSITES)}


def _settings_schema(names: list[str]) -> dict[str, Any]:
    return {"type": ["object", "null"], "properties": {n: {} for n in names}, "additionalProperties": False}


def first_problem(error: ValidationError) -> tuple[tuple[str | int, ...], str]:
    """(path in the file, what is wrong there) of a validation error, in our words."""
    problem = error.errors(include_url=False, include_context=False)[0]
    path = tuple(problem["loc"])
    place = ".".join(str(p) for p in path) or "the file"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        models = (GraphModel, TensorModel, ParameterModel, BlockModel)
        known = next((set(m.model_fields) for m in models if _depth(m) == len(path) and _fits(m, path)), {f for m in models for f in m.model_fields})
        return path, f"unknown key {path[-1]!r} in {'.'.join(map(str, path[:-1])) or 'the file'}{did_you_mean(str(path[-1]), known)}"
    if problem["type"] == "missing":
        return path[:-1], f"{'.'.join(map(str, path[:-1])) or 'the file'} has no {path[-1]!r}"
    return path, f"{place}: {message[:1].lower()}{message[1:]}"


def _depth(model: type[BaseModel]) -> int:
    return 1 if model is GraphModel else 3


def _fits(model: type[BaseModel], path: tuple[str | int, ...]) -> bool:
    return model is GraphModel or path[0] == {TensorModel: "inputs", ParameterModel: "parameters", BlockModel: "blocks"}[model]
