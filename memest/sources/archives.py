"""An exported program (``torch.export.save``, ``.pt2``) as data: the graph in its archive, read as JSON. Nothing is unpickled and no weight
is read.

A program is calls of aten operators by name on named tensors, whose sizes are numbers or symbols with ranges (torch's
``_export/serde/schema.py``, version 8). FileError says what an archive is that holds none.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memest.errors import FileError

MAX_BYTES = 256 * 1024 * 1024
DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 10: "complex64", 12: "bool"}
DTYPES |= {11: "complex128", 13: "bfloat16"}
FORMATS = {1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format"}
TRAINING = "TRAINING"
_GRAPH = re.compile(r"(?:.*/)?models/[^/]+\.json|serialized_exported_program\.json")
_SYMBOL = re.compile(r"(?:Symbol\('(\w+)'.*\)|(\w+))")
_FOREIGN = "is no exported program of torch.export.save"


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A tensor of the program: ``name`` in its calls, ``path`` of the parameter or buffer it is; sizes are numbers or symbols."""

    name: str
    path: str
    sizes: tuple[int | str, ...]
    dtype: str
    hints: tuple[int, ...]
    trainable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a program takes, owns (``parameters``, ``buffers``) and does: ``nodes`` are its calls as the file has them. ``constants`` are
    inputs that are no tensors, ``ranges`` the least and most of symbols. ``trainable``: it is of the form that autograd can be run on."""

    name: str
    inputs: tuple[Described, ...]
    parameters: tuple[Described, ...]
    buffers: tuple[Described, ...]
    constants: Mapping[str, Any]
    nodes: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    ranges: Mapping[str, tuple[int, int | None]]
    trainable: bool
    torch: str


def read(path: Path) -> Program:
    """The program in an archive."""
    raw = _graph_of(path)
    try:
        return _program(path, raw)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as e:
        raise FileError(f"{path}: {_FOREIGN} that memest knows ({type(e).__name__}: {e})") from None


def _graph_of(path: Path) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            found = [i for i in archive.infolist() if _GRAPH.fullmatch(i.filename)]
            if len(found) > 1:
                raise FileError(f"{path} holds {len(found)} programs ({', '.join(i.filename for i in found)}): save each alone")
            if not found and any("aotinductor" in i.filename for i in archive.infolist()):
                raise FileError(f"{path} is compiled (AOTInductor), and has no graph: give the program that torch.export.save writes")
            if not found:
                raise FileError(f"{path} {_FOREIGN}: there is no graph in it, as in a file of weights or a TorchScript archive")
            if found[0].file_size > MAX_BYTES:
                raise FileError(f"{path}: a graph of more than {MAX_BYTES:,} bytes")
            raw = json.loads(archive.read(found[0]))
    except OSError as e:
        raise FileError(f"{path}: {e.strerror or e}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as e:
        raise FileError(f"{path} {_FOREIGN}: {e}") from None
    except (ValueError, RecursionError) as e:
        raise FileError(f"{path}: its graph is no JSON ({e})") from None
    if not isinstance(raw, dict) or "graph_module" not in raw:
        raise FileError(f"{path} {_FOREIGN}")
    return raw


def _program(path: Path, raw: Mapping[str, Any]) -> Program:
    graph = raw["graph_module"]["graph"]
    values = graph["tensor_values"]
    kinds: dict[str, list[Described]] = {"user_input": [], "parameter": [], "buffer": [], "tensor_constant": []}
    constants: dict[str, Any] = {}
    for spec in raw["graph_module"]["signature"]["input_specs"]:
        ((kind, given),) = spec.items()
        argument = given.get("arg") or {}
        name = str((argument.get("as_tensor") or argument).get("name"))
        if kind == "constant_input" or (kind == "user_input" and "as_tensor" not in argument):
            constants[str(given.get("name", name))] = next(iter(given["value"].values())) if "value" in given else None
        elif kind in kinds:
            own: str = next((given[key] for key in ("parameter_name", "buffer_name", "tensor_constant_name") if key in given), name)
            kinds[kind].append(_described(name, own, values[name], kind == "parameter"))
        else:
            raise FileError(f"{path}: an input of the kind {kind!r} is not modelled")
    outputs = []
    for spec in raw["graph_module"]["signature"]["output_specs"]:
        ((kind, given),) = spec.items()
        if kind != "user_output":
            raise FileError(f"{path}: the program gives a {kind.replace('_', ' ')} back: save it before run_decompositions()")
        outputs.append(given["arg"])
    return Program(
        name=path.stem,
        inputs=tuple(kinds["user_input"]),
        parameters=tuple(kinds["parameter"]),
        buffers=(*kinds["buffer"], *kinds["tensor_constant"]),
        constants=constants,
        nodes=tuple(graph["nodes"]),
        outputs=tuple(outputs),
        ranges={s: (r["min_val"] or 0, r["max_val"]) for s, r in raw["range_constraints"].items()},
        trainable=TRAINING in (raw.get("verifiers") or (raw.get("dialect"),)),
        torch=str(raw.get("torch_version", "")),
    )


def _described(name: str, path: str, value: Mapping[str, Any], parameter: bool) -> Described:
    sizes: list[int | str] = []
    hints: list[int] = []
    for size in value["sizes"]:
        if "as_int" in size:
            sizes.append(size["as_int"])
            hints.append(size["as_int"])
        else:
            sizes.append(_symbol(size["as_expr"]["expr_str"], name))
            hints.append(((size["as_expr"].get("hint")) or {}).get("as_int") or 0)
    trainable = parameter and bool(value["requires_grad"])
    return Described(name=name, path=path, sizes=tuple(sizes), dtype=DTYPES[value["dtype"]], hints=tuple(hints), trainable=trainable)


def _symbol(text: str, name: str) -> str:
    """The symbol that a size is: torch writes ``Symbol('s77', positive=True, integer=True)``."""
    found = _SYMBOL.fullmatch(text)
    if found is None:
        raise FileError(f"a size of {name!r} follows from others ({text}), which is not modelled: export it with a symbol of its own")
    return found[1] or found[2]
