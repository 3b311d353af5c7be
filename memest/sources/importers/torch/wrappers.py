"""Modules around modules that change nothing of what a forward allocates on one device: taken off, or stepped through; and those that hide
their code, which are refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from memest.errors import UnsupportedError, UsageError, kind_of

EAGER = "unwrapped from torch.compile: the network as it runs eagerly"
_COMPILED = "_compiled_call_impl"  # of torch/nn/modules/module.py: what Module.compile() makes, and a call of the module calls


def unwrapped(module: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """The module inside wrappers, and a note for each that was taken off. UnsupportedError for a module that hides its code, UsageError for
    what is no module."""
    notes: list[str] = []
    while isinstance(module, nn.Module):
        kind, inner = type(module), _inner(module)
        if inner is not None:
            module, note = inner
            notes.append(note)
        elif isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedError(f"{kind.__name__}: a compiled ScriptModule hides its Python code; give the module it was made from")
        elif kind.__name__ == "GraphModule" and _is_exported(module):
            raise UnsupportedError("a module made by torch.export calls aten operators directly; give the module that was exported")
        else:
            return module, tuple(notes)
    raise UsageError(f"from_torch needs a torch.nn.Module, got {kind_of(module)}{_hint(module)}")


@contextmanager
def stepped_through(modules: Iterable[nn.Module]) -> Iterator[tuple[str, ...]]:
    """Wrappers among ``modules`` call the module in them, and those compiled in place (``m.compile()``) their own code; gives a note for
    each kind."""
    modules = list(modules)
    found = [(m, inner) for m in modules if (inner := _inner(m)) is not None]
    before = [(m.__dict__, m.__dict__.get("forward")) for m, _ in found]
    compiled = [(m.__dict__, m.__dict__[_COMPILED]) for m in modules if m.__dict__.get(_COMPILED) is not None]
    for m, (module, _) in found:
        m.__dict__["forward"] = module.__call__
    for attributes, _ in compiled:
        attributes[_COMPILED] = None
    try:
        yield tuple(dict.fromkeys([note for _, (_, note) in found] + [EAGER] * bool(compiled)))
    finally:
        for attributes, call in compiled:
            attributes[_COMPILED] = call
        for attributes, forward in before:
            attributes.pop("forward", None)
            if forward is not None:
                attributes["forward"] = forward


def _inner(module: nn.Module) -> tuple[nn.Module, str] | None:
    kind = type(module)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        note = f"unwrapped from {kind.__name__}: one device's share of the batch is what the input shape says"
        return module.module, note
    if kind.__name__ == "OptimizedModule" and isinstance(getattr(module, "_orig_mod", None), nn.Module):
        return module._orig_mod, EAGER
    return None


def _is_exported(module: nn.Module) -> bool:
    nodes = getattr(getattr(module, "graph", None), "nodes", ())
    return any(isinstance(n.target, torch._ops.OpOverload) for n in nodes)


def _hint(value: Any) -> str:
    if isinstance(value, torch.export.ExportedProgram):
        return "; give the module that was exported, or torch.export.save it and memest.load the .pt2"
    if isinstance(value, type) and issubclass(value, nn.Module):
        return f"; make one first: {value.__name__}(…)"
    return "; a state_dict has weights and no code: give the module" if isinstance(value, Mapping) else ""
