"""The settings of a step as callers give them: the names of dtypes, losses, optimizers and levers.

Torch's own objects are taken for the names they stand for (``torch.bfloat16``, ``nn.CrossEntropyLoss()``, ``torch.optim.AdamW`` or an
instance of it), told by their class alone: nothing is imported. Whatever cannot be meant is a UsageError that says what to give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from memest.errors import UnsupportedError, UsageError, kind_of
from memest.machines.cpu import Cpu
from memest.machines.gpu import Gpu
from memest.machines.loader import Loader
from memest.network.dtypes import dtype_name
from memest.network.graph import Graph
from memest.runtimes.torch.losses import LOSSES, loss_named
from memest.runtimes.torch.optimizers import OPTIMIZERS, described


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


def name(value: Any, what: str, example: str) -> str | None:
    """A name as text; None where none is given."""
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"{what} is a name such as {example!r}, got {kind_of(value)}")


def mode(value: Any) -> str:
    """``train`` or ``infer``, as text."""
    if not isinstance(value, str):
        raise UsageError(f"mode is 'train' or 'infer', got {kind_of(value)}")
    return value


def flag(value: Any, what: str) -> bool:
    """A bool."""
    if not isinstance(value, bool):
        raise UsageError(f"{what} is True or False, got {kind_of(value)}")
    return value


def device(value: Any) -> str | None:
    """A device's name; None where none is given."""
    if value is None or isinstance(value, str):
        return value
    if _home(value) == "torch" and type(value).__name__ == "device":
        return str(value)
    raise UsageError(f"device is 'cpu', got {kind_of(value)}")


def text(value: Any, what: str, example: str) -> str | None:
    """A text; None where none is given."""
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"{what} is a text such as {example!r}, got {kind_of(value)}")


def number(value: Any, what: str) -> Any:
    """A whole number, which commands give as text; which numbers it may be is left for whom it is meant to say."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        return int(value)
    if value is None or type(value) in (int, bool, float, str):
        return value
    raise UsageError(f"{what} is a whole number, got {kind_of(value)}")


def loader(value: Any) -> str | None:
    """A data loader as text."""
    return str(value) if isinstance(value, Loader) else text(value, "loader", "workers=4,prefetch=2")


def levers(value: Any) -> tuple[str, ...]:
    """Levers as texts; one may stand alone."""
    if value is None:
        return ()
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise UsageError(f"levers are texts such as 'checkpoint:every=2', got {kind_of(value)}")
    found = (value,) if isinstance(value, str) else tuple(value)
    for text in found:
        if not isinstance(text, str):
            raise UsageError(f"levers are texts such as 'checkpoint:every=2', and among them is {kind_of(text)}")
    return found


def machine(value: Any) -> Cpu | Gpu | None:
    """A described processor or accelerator, one of the catalogue by its name, or None for this machine."""
    if value is None or isinstance(value, Cpu | Gpu):
        return value
    if not isinstance(value, str):
        raise UsageError(f"machine is memest.Cpu(isa='avx2', threads=8) or a name such as 'h100-80gb', got {kind_of(value)}")
    from memest.machines.devices import gpu_of
    from memest.machines.reading import hardware_named

    entry = hardware_named(value)
    if entry.kind == "accelerator":
        return gpu_of(entry)
    raise UnsupportedError(f"{entry.name}: the catalogue has its memory, not its processor; give machine=memest.Cpu(...)")


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


def optimizer(value: Any, graph: Graph | None) -> str:
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
    if made is not value:
        given = _group_settings(made.__name__, value.param_groups, OPTIMIZERS[name].options)
        if graph is not None:
            _check_parameters(made.__name__, value.param_groups, graph)
    return described(made.__name__, given)


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


READERS: dict[str, Callable[[Any], Any]] = {
    "mode": mode,
    "dtype": dtype,
    "loss": loss,
    "levers": levers,
    "torch": partial(text, what="torch", example="2.14"),
    "cudnn": partial(text, what="cudnn", example="9.24"),
    "cudnn_enabled": partial(flag, what="cudnn_enabled"),
    "cudnn_benchmark": partial(flag, what="cudnn_benchmark"),
    "cudnn_deterministic": partial(flag, what="cudnn_deterministic"),
    "tf32": partial(text, what="tf32", example="conv"),
    "alloc_conf": partial(text, what="alloc_conf", example="expandable_segments:True"),
    "cublas_workspace": partial(text, what="cublas_workspace", example=":4096:8"),
    "hold_output": partial(flag, what="hold_output"),
    "first_step": partial(flag, what="first_step"),
    "keep_grads": partial(flag, what="keep_grads"),
    "imports": partial(text, what="imports", example="torchvision"),
    "malloc": partial(text, what="malloc", example="glibc:mmap_threshold=131072"),
    "loader": loader,
    "first_run": partial(flag, what="first_run"),
    **{f"ort_{name}": partial(flag, what=f"ort_{name}") for name in ("arena", "pattern", "external", "shrinkage")},
    **{name: partial(number, what=name) for name in ("ort_mmap_threshold", "ov_streams", "ov_requests", "inter_op")},
    "ort_level": partial(text, what="ort_level", example="all"),
    "ov_mmap": partial(flag, what="ov_mmap"),
    "ov_hint": partial(text, what="ov_hint", example="latency"),
    "ov_weights": partial(text, what="ov_weights", example="onnx"),
    "onednn": partial(text, what="onednn", example="off"),
    "jit": partial(flag, what="jit"),
}
"""How each keyword is read, but for those that need the graph or one another."""
