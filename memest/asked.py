"""What callers give, as the rest of memest takes it: graphs, shapes, and the names of dtypes, losses, optimizers and levers.

Torch's own objects are taken for the names they stand for (``torch.bfloat16``, ``nn.CrossEntropyLoss()``, ``torch.optim.AdamW`` or an
instance of it), told by their class alone: nothing is imported. Whatever cannot be meant is a UsageError that says what to give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import index
from typing import Any

from memest.dtypes import dtype_name
from memest.errors import UsageError, kind_of
from memest.graph import Graph
from memest.libraries.cpu import Cpu
from memest.losses import LOSSES, loss_named
from memest.optimizers import OPTIMIZERS
from memest.units import parse_budget

SEPARATORS = str.maketrans("X\u00d7,", "xxx")


def graph(value: Any, who: str) -> Graph:
    """``value`` itself when it is a graph; UsageError says how to come by one."""
    if isinstance(value, Graph):
        return value
    kind = kind_of(value)
    if kind.startswith("a torch module"):
        way = "memest.from_torch(module, example_shape) gives one"
    elif isinstance(value, str):
        way = "memest.model(name) or memest.load(path) gives one"
    else:
        way = "memest.model, memest.load and memest.from_torch give one"
    raise UsageError(f"{who} takes a graph, got {kind}; {way}")


# shapes ------------------------------------------------------------------------------------------------------------------


def shapes(value: Any) -> Any:
    """A shape, a list of shapes or a mapping of them, in plain tuples of ints; None stays None."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {name: shape(s, f"the shape of {name!r}") for name, s in value.items()}
    if is_sequence(value) and len(value) and all(is_sequence(v) or isinstance(v, str) for v in value):
        return [shape(s) for s in value]
    return (shape(value),)


def shape(value: Any, what: str = "a shape") -> tuple[int, ...]:
    """One shape: ints in a row, numpy's too, or ``2x3x224x224``."""
    if isinstance(value, str):
        parts: Sequence[Any] = value.translate(SEPARATORS).split("x")
        if not all(p.strip().isascii() and p.strip().isdigit() and len(p) <= 18 for p in parts):
            raise UsageError(f"{what} is written as 2x3x224x224, got {kind_of(value)}")
        return tuple(size(int(p), what) for p in parts)
    if is_tensor(value):
        raise UsageError(f"{what} is sizes in a row, got {kind_of(value)}; give tuple(x.shape)")
    if not is_sequence(value):
        raise UsageError(f"{what} is sizes in a row, such as (2, 3, 224, 224), got {kind_of(value)}")
    return tuple(size(n, what) for n in value)


def size(value: Any, what: str = "a size") -> int:
    """A positive whole number as an int, numpy's too; neither a bool nor a float."""
    number = whole(value)
    if number is None or number < 1:
        raise UsageError(f"{what}: sizes are positive integers, got {kind_of(value)}")
    return number


def whole(value: Any) -> int | None:
    """A whole number as an int; None for what is none (bools and floats are not)."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return None
    try:
        return index(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def is_sequence(value: Any) -> bool:
    """True for values in a row: lists, tuples, arrays of one dimension; not text, nor tensors."""
    if isinstance(value, str | bytes | Mapping) or is_tensor(value):
        return False
    return isinstance(value, Sequence) or getattr(value, "ndim", 0) == 1


def is_tensor(value: Any) -> bool:
    """True for torch's tensors."""
    return any(c.__name__ == "Tensor" and c.__module__ in ("torch", "torch._tensor") for c in type(value).__mro__)


def budget(value: Any, what: str = "budget") -> int:
    """Bytes of a limit: a positive whole number, or text with a unit."""
    if isinstance(value, str):
        return parse_budget(value)
    number = whole(value)
    if number is None or number < 1:
        raise UsageError(f"{what}: give bytes as a positive whole number, or text with a unit such as '24GiB', got {kind_of(value)}")
    return number


# names -------------------------------------------------------------------------------------------------------------------


def settings(graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of an estimate that ``given`` has, each as text, flag or :class:`Cpu`; others are left as they are."""
    found = dict(given)
    if "mode" in found and not isinstance(found["mode"], str):
        raise UsageError(f"mode is 'train' or 'infer', got {kind_of(found['mode'])}")
    readers = {"dtype": dtype, "loss": loss, "levers": levers, "device": device, "cpu": cpu, "torch": torch}
    for name, read in readers.items():
        if name in found:
            found[name] = read(found[name])
    if "optimizer" in found:
        found["optimizer"] = optimizer(found["optimizer"], graph)
    for name in ("hold_output", "first_step"):
        if not isinstance(found.get(name, False), bool):
            raise UsageError(f"{name} is True or False, got {kind_of(found[name])}")
    return found


def dtype(value: Any) -> str | None:
    """A dtype's name: of text (``bf16``, ``torch.half`` too), torch's dtypes and numpy's."""
    if value is None:
        return None
    home = _home(value)
    if isinstance(value, str):
        return dtype_name(value)
    if (home, type(value).__name__) == ("torch", "dtype"):
        return str(value).removeprefix("torch.")
    if home == "numpy" and hasattr(value, "itemsize"):
        return str(value)
    if isinstance(value, type) and value.__module__ == "numpy":
        return value.__name__
    raise UsageError(f"dtype is a name such as 'bfloat16' or torch.bfloat16, got {kind_of(value)}")


def device(value: Any) -> str:
    """A device's name."""
    if isinstance(value, str) or (_home(value) == "torch" and type(value).__name__ == "device"):
        return str(value)
    raise UsageError(f"device is 'cpu', got {kind_of(value)}")


def levers(value: Any) -> tuple[str, ...]:
    """Levers as texts; one may stand alone."""
    if value is None:
        return ()
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    for text in found:
        if not isinstance(text, str):
            raise UsageError(f"levers are texts such as 'checkpoint:every=2', got {kind_of(value if len(found) == 1 else text)}")
    return found


def torch(value: Any) -> str | None:
    """A version of torch as text."""
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"torch is a version such as '2.14', got {kind_of(value)}")


def cpu(value: Any) -> Cpu | None:
    """A described processor, or None for this machine's."""
    if value is None or isinstance(value, Cpu):
        return value
    raise UsageError(f"cpu is described by memest.Cpu(isa='avx2', threads=8), got {kind_of(value)}")


def loss(value: Any) -> str:
    """A loss as text: of a name, of torch's functions, and of torch's losses as classes or instances with their settings."""
    value, given = _without_partial(value, "loss")
    if isinstance(value, str):
        return value
    name = value.__name__ if isinstance(value, type) or (callable(value) and hasattr(value, "__name__")) else type(value).__name__
    home = value.__module__ if hasattr(value, "__module__") else ""
    if not _of_torch(home, "torch.nn", "torch._C._nn"):
        raise UsageError(
            f"loss is a name such as 'cross_entropy', or one of torch's losses, got {kind_of(value)}; there are {', '.join(LOSSES)}"
        )
    term = loss_named(name).terms[0]
    known = {a.name: term.options.get(a.name) for a in term.entry.attributes}
    weights = [role.rstrip("?") for role in term.entry.roles[2:]]
    if not isinstance(value, type) and not callable(getattr(value, "__wrapped__", None)) and hasattr(value, "__dict__"):
        given = {**{key: getattr(value, key) for key in (*known, *weights) if hasattr(value, key)}, **given}
    for key, setting in given.items():
        if key in weights and setting is not None:
            raise UsageError(f"loss {name}: {key} is a tensor of its own, which is not modelled; leave it out")
    options = {k: v for k, v in given.items() if k in known and v != known[k] and v is not None}
    tail = ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in options.items())
    return f"{term.op}:{tail}" if tail else term.op


def optimizer(value: Any, graph: Graph) -> str:
    """An optimizer as text: of a name, of torch's classes, and of an instance with its settings, which holds the graph's parameters."""
    value, given = _without_partial(value, "optimizer")
    if isinstance(value, str):
        return value
    made = value if isinstance(value, type) else type(value)
    name = made.__name__.lower()
    if not _of_torch(made.__module__, "torch.optim") or not isinstance(made, type):
        raise UsageError(
            f"optimizer is a name such as 'adam', or one of torch.optim, got {kind_of(value)}; there are {', '.join(OPTIMIZERS)}"
        )
    if name not in OPTIMIZERS:
        raise UsageError(f"optimizer {made.__name__} is not modelled; there are {', '.join(OPTIMIZERS)}")
    row = OPTIMIZERS[name]
    if made is not value:
        given = _group_settings(made.__name__, value.param_groups, row.options)
        _check_parameters(made.__name__, value.param_groups, graph)
    for key in ("capturable", "differentiable"):
        if given.get(key):
            raise UsageError(f"optimizer {made.__name__}: {key} is not modelled; leave it out")
    if is_tensor(given.get("lr")):
        raise UsageError(f"optimizer {made.__name__}: a tensor as lr is not modelled; give a number")
    options = {}
    for key, default in row.options.items():
        setting = given.get(key, default)
        options[key] = bool(setting) if isinstance(default, bool) else float(setting or 0)
    tail = ",".join(f"{k}={str(v).lower()}" for k, v in options.items() if v != row.options[k])
    return f"{name}:{tail}" if tail else name


def _group_settings(name: str, groups: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that all parameter groups share; UsageError when they differ in one that moves memory."""
    first = groups[0]
    for key in (*options, "capturable", "differentiable"):
        values = [group.get(key) for group in groups]
        if any(bool(v) != bool(values[0]) for v in values):
            found = ", ".join(dict.fromkeys(map(str, values)))
            raise UsageError(
                f"optimizer {name}: its parameter groups differ in {key} ({found}), which changes what it allocates; give one setting"
            )
    return dict(first)


def _check_parameters(name: str, groups: Sequence[Mapping[str, Any]], graph: Graph) -> None:
    """UsageError unless the optimizer holds all that the graph trains."""
    held = sorted(tuple(p.shape) for group in groups for p in group["params"] if p.requires_grad)
    trained = sorted(p.shape for p in graph.parameters if p.trainable and not p.buffer)
    if held != trained:
        raise UsageError(
            f"optimizer {name} holds {len(held)} parameters and {graph.name} trains {len(trained)}, of other shapes or number; "
            "give the class with its settings as text, and freeze what is not trained with the lever freeze"
        )


def _without_partial(value: Any, what: str) -> tuple[Any, dict[str, Any]]:
    """What a ``functools.partial`` calls, and its keywords."""
    if not isinstance(value, partial):
        return value, {}
    if value.args:
        raise UsageError(f"{what}: give the settings of a partial by name")
    return value.func, dict(value.keywords)


def _of_torch(home: Any, *rooms: str) -> bool:
    return isinstance(home, str) and any(home == room or home.startswith(f"{room}.") for room in rooms)


def _home(value: Any) -> str:
    return type(value).__module__.partition(".")[0]
