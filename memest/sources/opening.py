"""Where graphs come from: built-in models, torch modules, and the text that names either or a file.

Promises: nothing is imported before it is needed (torch only for a torch model), and a name that leads nowhere is a UsageError that
says what a model may be. Refuses to guess: a text is a file, a built-in model or a torch callable by its form alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memest.errors import FileError, GraphError, MemestError, UnknownNameError, UsageError, did_you_mean, kind_of
from memest.network.graph import Graph

if TYPE_CHECKING:
    from memest.network.modules import Modules

SUFFIXES = (".yaml", ".yml", ".json")
FORMS = (
    "a .yaml or .json file, '-', a built-in model (see 'memest models'), package.module:callable, path/file.py:callable, "
    "a folder with a config.json, a .pt2 of torch.export, an .onnx or a .keras file"
)
GET_TORCH = "pip install torch, or '.[torch]' in a checkout of memest for a version it knows"
GET_ONNX = "pip install onnx, or '.[onnx]' in a checkout of memest"
EXPORTED = ".pt2"
ONNX, KERAS = ".onnx", ".keras"
CONFIGS = ("config.json", "model_index.json")
_CALLABLE = re.compile(r"(?:[^:]+\.py|[A-Za-z_][\w.]*):[A-Za-z_][\w.]*\s*(\(.*\))?", re.DOTALL)
_OF_PLANS = re.compile(r"(.+\.json):(\w+=[^:]*)", re.IGNORECASE | re.DOTALL)
_HUB = re.compile(r"[\w-]+/[\w.-]+", re.ASCII)
_WEIGHTS = "weights, not a network: give the code that builds it"
UNREAD = {  # what people have in hand, by suffix, and what memest takes instead
    **dict.fromkeys((".pt", ".pth", ".th", ".ckpt", ".bin", ".safetensors", ".pkl", ".pickle"), _WEIGHTS),
    **dict.fromkeys((".h5", ".hdf5"), "a file of Keras 2: save it as .keras with Keras 3, or give the network as torch code"),
    **dict.fromkeys((".pb", ".tflite"), "a TensorFlow file, which memest does not read: give the network as torch code"),
    **dict.fromkeys((".mlmodel", ".mlpackage"), "a Core ML file, which memest does not read: give the torch code it was converted from"),
    ".py": "a Python file: name what in it makes the network",
}
_UNEQUAL = re.compile(r"sizes? of tensors? .*must match|do not (concatenate|broadcast)", re.IGNORECASE)
_WAY = "package.module:callable or path/file.py:callable"


Example = Sequence[Any] | Mapping[str, Any]


def model(name: str, **options: Any) -> Graph:
    """The built-in model ``name``; options as keywords or in the name (``"unet3d:base_filters=32"``). No text runs code or opens a file.

    Raises UnknownNameError for a name or an option that is not there, UsageError for a value that cannot be."""
    from memest.sources import models

    if not isinstance(name, str):
        raise UsageError(f"model takes the name of a built-in model, got {kind_of(name)}; known are {', '.join(models.MODELS)}")
    return models.build(name, **options)


def from_torch(
    module: Any, example: Any, *, name: str | None = None, mode: str | None = None, assume: Mapping[str, Any] | None = None
) -> Graph:
    """The graph of a ``torch.nn.Module`` called with ``example``: a shape with the batch, a tensor, a list of arguments, or a mapping of
    them by name. An argument may be a list, tuple or dict of tensors and shapes, nested at will (``[[image, image]]``), each of which is
    an input (``input.0``); numbers, texts and None are given as they are.

    The module runs once on meta tensors and is left as it was. ``mode`` is ``"train"`` or ``"infer"`` where only that will be asked; left
    out, a module in training mode is recorded for both. Where sizes depend on values, ``assume`` says how many there are: ``{"boxes": 300,
    "rpn.selected": "30%", "net.py:31": True}`` by kind, by module and kind, or by line (``memest.sources.assumptions``). Counts that it
    does not state are then the most they can be, and the notes of the answer say all of it; without ``assume`` they are refused.

    Raises UnsupportedError for what has no rule, GraphError for an exception of the module's own code, UsageError for a statement that
    nothing depends on, or when torch is not installed."""
    try:
        from memest.sources.importers.torch import network as importer
    except ModuleNotFoundError as e:
        raise UsageError(f"a torch model needs torch ({e}); {GET_TORCH}") from None
    try:
        return importer.from_torch(module, example, name=name, mode=mode, assume=assume)
    except MemestError as e:
        try:
            hint = _about_shape(module, example) or _about_sizes(importer, module, example, mode, assume, str(e))
        except Exception:  # of the module's own code, and only a hint
            hint = None
        raise (type(e)(f"{e}; {hint}") if hint else e) from e.__cause__


def from_onnx(path: str | Path, example: Any = None, *, name: str | None = None) -> Graph:
    """The graph in an ONNX file: each node as the call that torch has for it, initializers as parameters by their sizes. No weight is read,
    inside the file or beside it. Sizes that the file leaves open (``dim_param``) are named sizes of the graph; ``example``, a shape with
    the batch, a list of them or a mapping by name, says at which sizes it is read where usual ones do not do.

    Raises FileError for a file that is none, GraphError for a network that cannot be, UnsupportedError for a node that has no rule (each
    names the node), UsageError for an example that does not fit, or when onnx is not installed."""
    try:
        path = Path(path)
    except TypeError:
        raise UsageError(f"from_onnx takes the path of an ONNX file, got {kind_of(path)}") from None
    try:
        from memest.sources.importers.onnx import network as importer
    except ModuleNotFoundError as e:
        raise UsageError(f"an ONNX file needs onnx ({e}); {GET_ONNX}") from None
    return importer.from_onnx(path, example, name)


def from_keras(path: str | Path, example: Any = None, *, name: str | None = None) -> Graph:
    """The graph in a ``.keras`` archive, or in a ``.json`` with what ``model.to_json()`` gives, of Keras 3. Nothing is executed, no weight
    is read, and neither Keras nor TensorFlow is needed. The graph's dims stand in torch's order: (N, C, H, W). Its sizes are names, so
    others than the file's can be asked about; ``example``, a shape, a list of them or a mapping by name, says at which it is read.

    Raises FileError for a file that is none, UnsupportedError for a layer that has no rule and for code (``Lambda``, classes of one's own;
    each names the layer), UsageError for an example that does not fit."""
    from memest.sources.importers.keras import network as importer

    try:
        path = Path(path)
    except TypeError:
        raise UsageError(f"from_keras takes the path of a Keras file, got {kind_of(path)}") from None
    return importer.from_keras(path, example, name)


def from_step(
    function: Any, *examples: Any, name: str | None = None, cleared: bool = False, assume: Mapping[str, Any] | None = None
) -> Graph:
    """The graph of a user's own training step: ``function(*examples)`` runs on meta tensors, as it stands. Its modules and optimizers are
    found where the function finds them (closure, globals, arguments, ``self``), and left as they were. An example is a tensor, a shape, or
    a sequence or mapping of them; anything else is given as it is. Gradients that the code leaves stand when the next call begins, unless
    they are ``cleared`` (set to None) before each. ``assume`` as in :func:`from_torch`. A LightningModule is a step, too: ``training_step``
    and ``configure_optimizers`` as its trainer calls them on one device, with the batch as the one example.

    Raises UnsupportedError for what has no rule, GraphError for an exception of the function's own code, UsageError when no step is like
    the next, or when torch is not installed."""
    try:
        from memest.sources.importers.torch.steps import step as importer
    except ModuleNotFoundError as e:
        raise UsageError(f"a training step needs torch ({e}); {GET_TORCH}") from None
    return importer.from_step(function, examples, name=name, cleared=cleared, assume=assume)


def modules_of(text: str, example: Example, mode: str, optimizer: Any, loss: Any) -> tuple[Modules, Mapping[str, int] | str]:
    """The module that ``text`` names as tools see it that walk modules, and what torch's MemTracker says of its step, or why it says
    nothing. ``optimizer`` and ``loss`` are rows. Raises what :func:`from_torch` does."""
    from memest.sources.importers.torch import loading
    from memest.sources.importers.torch.others.tracked import tracked
    from memest.sources.importers.torch.others.walked import modules_of as walked

    with redirect_stdout(sys.stderr):
        module = loading.checked(loading.load(text), text)
        modules = walked(module, example)
        try:
            return modules, tracked(module, example, *((optimizer, loss) if mode == "train" else (None, None)))
        except MemestError as e:
            return modules, str(e)


def _about_shape(module: Any, example: Any) -> str | None:
    """What may be wrong with the shape a module failed at, by its first convolution: the batch is missing, or channels come last."""
    shape = _shape_of(example)
    walk = module.modules() if callable(getattr(module, "modules", None)) and not isinstance(module, type) else ()
    first = next(
        (m for m in walk if hasattr(m, "in_channels") and hasattr(m, "kernel_size") and hasattr(getattr(m, "weight", None), "ndim")), None
    )
    if first is None or not shape:
        return None
    dims, channels = first.weight.ndim, first.in_channels
    if len(shape) == dims - 1 and shape[0] == channels:
        return f"the batch is missing: give {(1, *shape)}"
    if len(shape) == dims and shape[1] != channels and shape[-1] == channels:
        return f"put the channels first: give {(shape[0], channels, *shape[1:-1])}"
    return None


def _shape_of(example: Any) -> tuple[int, ...]:
    """The shape of an example of one tensor; empty for any other."""
    from memest.sizes import asked

    if asked.is_tensor(example):
        return tuple(example.shape)
    try:
        return asked.shape(example)
    except MemestError:
        return ()


def _about_sizes(importer: Any, module: Any, example: Any, mode: str | None, assume: Any, error: str) -> str | None:
    """The nearest larger sizes at which a module runs whose tensors did not meet: multiples of the smallest power of two."""
    shape = _shape_of(example)
    if len(shape) < 3 or _UNEQUAL.search(error) is None:
        return None
    from memest.runtimes.neighbours import MULTIPLES

    for m in MULTIPLES:
        larger = (*shape[:2], *(-(-n // m) * m for n in shape[2:]))
        if larger != shape:
            try:
                importer.from_torch(module, larger, mode=mode, assume=assume)
            except MemestError:
                continue
            return f"it runs at multiples of {m}: {larger}"
    return None


def is_torch(text: str) -> bool:
    """True when ``text`` has the form of a torch callable, ``package.module:callable(arguments)`` or ``path/file.py:callable``, or is a
    folder with the configuration of a network (Hugging Face's ``config.json``) or an exported program (``.pt2``)."""
    if text.lower().endswith(EXPORTED) or any(os.path.isfile(Path(text) / name) for name in CONFIGS):
        return True
    return not is_file(text) and _CALLABLE.fullmatch(text) is not None and not _is_built_in(text)


def reads_sizes(text: str) -> bool:
    """True when ``text`` names a file whose network is read at the sizes that are asked about: one of ONNX or of Keras."""
    return _foreign(Path(text)) is not None


def _foreign(path: Path) -> Callable[..., Graph] | None:
    """What reads a file of another framework, by its suffix; None for a file that is none."""
    if path.suffix.lower() == ONNX:
        return from_onnx
    return from_keras if path.suffix.lower() == KERAS or _is_keras_json(path) else None


def _exported(path: Path) -> Graph:
    """The program in a ``.pt2``, recorded at the sizes that it was exported with."""
    from memest.sources.archives import read

    sizes = {i.name: i.hints for i in read(path).inputs}
    if any(0 in shape for shape in sizes.values()):
        raise UsageError(f"{path} does not say at which sizes it was exported: ask with them, as memest estimate {path} --input SHAPE does")
    return _torch(str(path), sizes, None, None)


def _is_keras_json(path: Path) -> bool:
    """Whether it is a ``.json`` with what Keras's ``to_json`` gives."""
    if path.suffix.lower() != ".json":
        return False
    from memest.sources.importers.keras.reading import is_network

    return is_network(_json_of(path))


def is_file(text: str) -> bool:
    """True when ``text`` names a graph file, by its suffix, or standard input."""
    return text == "-" or text.lower().endswith((*SUFFIXES, ONNX, KERAS)) or _OF_PLANS.fullmatch(text) is not None


def open_model(text: str, example: Example | None = None, mode: str | None = None, assume: Mapping[str, Any] | None = None) -> Graph:
    """The graph that ``text`` names: a file, ``-`` (a file on standard input), a built-in model with options, or a torch callable, whose
    module is imported and which is called: never pass on a text that you do not trust.

    ``example`` is the shape (with the batch) a torch model is called with, or a file of ONNX or Keras is read at, ``mode`` the one it is
    recorded for (left out: both), ``assume`` what is stated of values (see :func:`from_torch`). Raises UsageError
    when ``text`` leads nowhere, FileError, GraphError or UnsupportedError when what it leads to is not a network memest knows."""
    if text == "-":
        return _standard_input()
    if is_file(text):
        read = _foreign(Path(text))
        return _file(text) if read is None else read(text, example)
    if is_torch(text):
        return _torch(text, example, mode, assume)
    if _is_built_in(text):
        return _built_in(text)
    raise UsageError(_unknown(text))


def load(path: str | Path, **options: Any) -> Graph:
    """The graph in a ``.yaml``, ``.yml``, ``.json``, ``.onnx`` or ``.keras`` file, in a ``.pt2`` of torch.export, or of a configuration of
    nnU-Net's plans, which take ``options`` (``configuration="3d_fullres"``; ``input_channels`` and ``num_classes`` where no
    ``dataset.json`` is beside them). A program is recorded at the sizes it was exported with.

    Raises FileError or GraphError with the file and the line; for a format memest does not read it says what to give instead."""
    from memest.sources import files as schema

    try:
        path = Path(path)
    except TypeError:
        raise UsageError(f"load takes the path of a graph file, got {kind_of(path)}") from None
    read = _exported if path.suffix.lower() == EXPORTED else _foreign(path)
    if read is not None:
        if options:
            raise UsageError(f"{path} is a file of torch.export, ONNX or Keras; {', '.join(options)}: options are for nnU-Net's plans")
        return read(path)
    unread = _unread(path.name)
    if unread is not None:
        raise FileError(f"{path} is {unread}, such as memest.from_torch(module, shape)")
    try:
        graph = schema.load(path)
    except FileError:
        data = _plans_data(path)
        if data is None:
            raise
    else:
        if options:
            raise UsageError(f"{path} is a graph file; {', '.join(options)}: options are for nnU-Net's plans")
        return graph
    from memest.sources.plans import graph_of

    return graph_of(data, path, options)


def save(graph: Graph, path: str | Path) -> None:
    """Write the graph to a ``.yaml``, ``.yml`` or ``.json`` file that :func:`load` reads back equal. FileError where that cannot be."""
    from memest.network.graph import as_graph
    from memest.sources import files as schema

    graph = as_graph(graph, "save")
    if not isinstance(path, str | Path) or Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"save takes the path of a {', '.join(SUFFIXES)} file, got {kind_of(str(path) if isinstance(path, Path) else path)}"
        )
    text = schema.dumps(graph, form="json" if Path(path).suffix.lower() == ".json" else "yaml")
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as e:
        raise FileError(f"{path}: {e.strerror or e}") from None


def _unknown(text: str) -> str:
    """Why ``text`` is no model, and what to write."""
    path = Path(text)
    unread = _unread(path.name)
    if unread is not None:
        example = f"such as {text}:Net" if text.lower().endswith(".py") else f"as {_WAY}"
        return f"{text} is {unread}, {example}"
    if path.is_dir():
        return f"{text!r} is a directory without a config.json; name a file in it: a model is {FORMS}"
    if _HUB.fullmatch(text):
        return (
            f"unknown model {text!r}; memest loads nothing from a hub: give the code that builds the network as {_WAY}, "
            f"such as \"timm:create_model('{text.partition('/')[2]}')\" where timm has it"
        )
    return f"unknown model {text!r}{did_you_mean(text.partition(':')[0], _built_in_names())}; a model is {FORMS}"


def _unread(name: str) -> str | None:
    return UNREAD.get(Path(name.lower()).suffix)


def _plans_data(path: Path) -> Mapping[str, Any] | None:
    """What is in an nnU-Net plans file; None when the file is none."""
    from memest.sources.plans import is_plans

    data = _json_of(path)
    return data if is_plans(data) else None


def _json_of(path: Path) -> Any:
    """What is in a ``.json``; None where it cannot be read."""
    from memest.files import MAX_BYTES, decode, parse

    try:
        if path.suffix.lower() != ".json" or path.stat().st_size > MAX_BYTES:
            return None
        return parse(decode(path.read_bytes(), str(path)), "json", str(path))
    except (OSError, FileError):
        return None


def _built_in(text: str) -> Graph:
    try:
        return model(text)
    except UnknownNameError as e:
        raise UsageError(str(e)) from None


def _built_in_names() -> list[str]:
    from memest.sources.models import MODELS

    return list(MODELS)


def _is_built_in(text: str) -> bool:
    return text.partition(":")[0] in _built_in_names()


def _file(text: str) -> Graph:
    of_plans = _OF_PLANS.fullmatch(text)
    path = Path(of_plans[1] if of_plans else text)
    if not path.exists():
        raise UsageError(f"no such file: {path}")
    if path.is_dir():
        raise UsageError(f"{path} is a directory; a model is {FORMS}")
    if of_plans is None:
        return load(path)
    from memest.sources.models.options import parsed

    try:
        return load(path, **parsed(f"plans:{of_plans[2]}")[1])
    except UnknownNameError as e:
        raise UsageError(str(e)) from None


def configured(text: str, configuration: str) -> str:
    """The text of a model with one of its configurations chosen: that of nnU-Net's plans."""
    if not is_file(text) or text == "-" or not (text.lower().endswith(".json") or _OF_PLANS.fullmatch(text)):
        raise UsageError(f"a configuration is of nnU-Net's plans (a .json file), got the model {text!r}")
    return f"{text}{',' if _OF_PLANS.fullmatch(text) else ':'}configuration={configuration}"


def _standard_input() -> Graph:
    from memest.sources import files as schema

    raw = sys.stdin.buffer.read(schema.MAX_BYTES + 1)
    form = "json" if raw.lstrip()[:1] == b"{" else "yaml"
    return schema.loads(raw, form=form, source="<stdin>")


def _torch(text: str, example: Example | None, mode: str | None, assume: Mapping[str, Any] | None) -> Graph:
    needs = UsageError(f"{text} needs --input, the shape of its example with the batch, such as --input 3x224x224 --batch 8")
    if example is None and "(" in text:
        raise needs
    try:
        from memest.sources.importers.torch import loading
    except ModuleNotFoundError as e:
        raise UsageError(f"a torch model needs torch ({e}); {GET_TORCH}") from None
    with redirect_stdout(sys.stderr):  # what their code prints is talk
        found = loading.load(text)
        if loading.is_step(found):
            if mode == "infer":
                raise UsageError(f"{text} is a whole step; leave out --infer, or name the module alone")
            return from_step(found, *_arguments(found, text, example or ()), assume=assume)
        if mode == "train" and example is not None and loading.is_lightning(found):
            return _trained(found, example, assume)
        example = loading.own_example(found) if example is None else example
        if example is None:
            raise needs
        return from_torch(loading.checked(found, text), example, mode=mode, assume=assume)


def _trained(module: Any, example: Any, assume: Mapping[str, Any] | None) -> Graph:
    """The training step of a LightningModule on a batch: one tensor, a list of several, or a structure of them by name."""
    if isinstance(example, Mapping):
        return from_step(module, example["batch"] if list(example) == ["batch"] else example, assume=assume)
    try:
        return from_step(module, example[0] if len(example) == 1 else list(example), assume=assume)
    except GraphError as e:
        if len(example) > 1:
            raise
        way = "such as --input 3x224x224 --input int64, or --input image=3x224x224 for a dict"
        raise GraphError(f"{e}; the batch is one tensor here: give --input for each of its parts, {way}; or --infer") from None


def _arguments(function: Any, text: str, example: Any) -> list[Any]:
    """Examples by position; those given by name in the order of the function's arguments."""
    from inspect import signature

    parameters = signature(function).parameters.values()
    names = [p.name for p in parameters]
    if not example and any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters):
        raise UsageError(f"{text} needs --input for {', '.join(names)}, such as --input {names[0]}=3x224x224 --batch 8")
    if not isinstance(example, Mapping):
        return list(example)
    for name in example:
        if name not in names:
            raise UsageError(f"{text} has no argument {name!r}{did_you_mean(name, names) or '; it has ' + ', '.join(names)}")
    missing = next((n for n in names[: max(map(names.index, example), default=0)] if n not in example), None)
    if missing is not None:
        raise UsageError(f"{text} needs --input {missing}=SHAPE, too")
    return [example[n] for n in names if n in example]
