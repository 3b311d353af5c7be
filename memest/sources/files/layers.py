"""A layer's parameters in torch.nn's words: which keywords a layer may have, and the keywords that would make the parameters it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memest.errors import GraphError
from memest.network.graph import Layer, Parameter
from memest.ops.modules import MODULES, ParameterShape
from memest.ops.operator import REQUIRED
from memest.ops.table import operator_named

RESERVED = ("in", "out", "name", "tensors", "trainable", "shares", "owner")


def keywords_of(op: str) -> list[str]:
    """Every setting a layer of ``op`` may have: reserved words, attributes, and torch.nn's keywords."""
    module = MODULES.get(op)
    own = () if module is None else tuple(a.name for a in module.options)
    return list(dict.fromkeys((*RESERVED, *own, *(a.name for a in operator_named(op).attributes))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shorthand:
    """``settings`` to write instead of the tensors, and the names of the parameters they make, in order, under ``owner``."""

    owner: str
    settings: Mapping[str, Any]
    parameters: tuple[str, ...]


def shorthand(layer: Layer, parameters: Mapping[str, Parameter]) -> Shorthand | None:
    """The torch.nn keywords that make just the parameters ``layer`` reads; None when there are none that do."""
    module = MODULES.get(layer.op)
    if module is None:
        return None
    roles = [r.rstrip("?*") for r in operator_named(layer.op).roles]
    tensors = dict(zip(roles, layer.tensors, strict=True))
    bound = {role: parameters[t] for role, t in tensors.items() if isinstance(t, str) and t in parameters}
    rest = [role for role, t in tensors.items() if t is not None and role not in bound]
    owner = _owner(bound, layer.name)
    if owner is None or rest != ["input"]:
        return None
    settings = {k: v for k, v in _settings(layer, bound).items() if v is not None}
    attributes = dict(layer.attributes)
    complete = {a.name: settings.get(a.name, attributes.get(a.name, a.default)) for a in module.options}
    if any(v is REQUIRED for v in complete.values()):
        return None
    try:
        made = module.parameters((), {a.name: a.check(complete[a.name]) for a in module.options})
    except (GraphError, TypeError, ValueError, IndexError):
        return None
    frozen = _frozen(made, owner, parameters)
    if frozen is None or {p.role for p in made if p.role in roles} != set(bound):
        return None
    short = {k: v for k, v in settings.items() if k not in attributes and v != next(a.default for a in module.options if a.name == k)}
    if frozen:
        short["trainable"] = False
    return Shorthand(owner=owner, settings=short, parameters=tuple(f"{owner}.{p.role}" for p in made))


def _owner(bound: Mapping[str, Parameter], name: str) -> str | None:
    """What all names of the parameters begin with, when each goes on with its role."""
    owners = {p.name[: -len(role) - 1] for role, p in bound.items() if p.name.endswith(f".{role}")}
    if not bound:
        return name
    return owners.pop() if len(owners) == 1 and all(p.name.endswith(f".{role}") for role, p in bound.items()) else None


def _frozen(made: list[ParameterShape], owner: str, parameters: Mapping[str, Parameter]) -> bool | None:
    """Whether the parameters are frozen; None when they are not those that ``made`` describes."""
    found = [parameters.get(f"{owner}.{p.role}") for p in made]
    for have, want in zip(found, made, strict=True):
        if have is None or (have.shape, have.dtype, have.buffer, have.layout) != (want.shape, want.dtype, want.buffer, "contiguous"):
            return None
    trainable = {p.trainable for p in found if p is not None and not p.buffer}
    if len(trainable) > 1 or any(p.trainable for p in found if p is not None and p.buffer):
        return None
    return trainable == {False}


def _settings(layer: Layer, bound: Mapping[str, Parameter]) -> dict[str, Any]:
    """Keywords read off the shapes of the parameters; a None is left out."""
    weight, attributes = bound.get("weight"), dict(layer.attributes)
    some = next(iter(bound.values()), None)
    channels = None if some is None or not some.shape else some.shape[0]
    if layer.op.startswith("conv") and weight is not None and len(weight.shape) > 2:
        groups = attributes.get("groups", 1)
        first, second = weight.shape[0], weight.shape[1] * groups
        inside, outside = (first, second) if layer.op.startswith("conv_transpose") else (second, first)
        return {"in_channels": inside, "out_channels": outside, "kernel_size": _even(weight.shape[2:]), "bias": "bias" in bound}
    if layer.op == "linear" and weight is not None and len(weight.shape) == 2:
        return {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": "bias" in bound}
    if layer.op == "batch_norm":
        return {"num_features": channels or 1, "affine": weight is not None, "track_running_stats": "running_mean" in bound}
    if layer.op == "instance_norm":
        return {"num_features": channels or 1, "affine": weight is not None}
    if layer.op == "group_norm":
        return {"num_channels": channels or 1, "affine": weight is not None}
    if layer.op == "layer_norm":
        return {"elementwise_affine": weight is not None, "bias": "bias" in bound or weight is None}
    if layer.op == "prelu" and weight is not None:
        return {"num_parameters": channels}
    return {}


def _even(sizes: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number when all are equal."""
    return sizes[0] if len(set(sizes)) == 1 else sizes
