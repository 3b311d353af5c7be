"""What torch.nn adds to an operator: the parameters a module makes from a few numbers.

``conv2d: {out_channels: 64, kernel_size: 3, bias: false}`` in a file, or the same keywords of the builder, become a call of the row
with parameters ``<layer>.weight`` and so on, of the shapes torch.nn gives them. Source: torch/nn/modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memest.errors import GraphError
from memest.ops.operator import REQUIRED, Attribute, expand, flag, integer, integers, number, optional, per_dim

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterShape:
    """One tensor a module owns."""

    role: str
    shape: Shape
    buffer: bool = False
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """The torch.nn face of an operator: ``options`` are consumed here (``passes`` of them also reach the row)."""

    options: tuple[Attribute, ...]
    passes: tuple[str, ...]
    parameters: Callable[[Shape, Mapping[str, Any]], list[ParameterShape]]


def _channels(shape: Shape, given: int | None, what: str, dim: int = 1) -> int:
    """``in_channels``: as given, or the input's own when that is a plain number."""
    if given is not None:
        return given
    if len(shape) < -dim if dim < 0 else len(shape) <= dim:
        raise GraphError(f"the input has {len(shape)} dims, no dim {dim} to take {what} from")
    own = shape[dim]
    if type(own) is not int:
        raise GraphError(f"{what} depends on the input's size here; give it as a number")
    return own


def _conv(ndim: int, transposed: bool) -> Callable[[Shape, Mapping[str, Any]], list[ParameterShape]]:
    def parameters(shape: Shape, o: Mapping[str, Any]) -> list[ParameterShape]:
        inside, outside, groups = _channels(shape, o["in_channels"], "in_channels"), o["out_channels"], o["groups"]
        if groups < 1 or inside % groups or outside % groups:
            raise GraphError(f"groups={groups} does not divide {inside} input and {outside} output channels")
        first, second = (inside, outside // groups) if transposed else (outside, inside // groups)
        made = [ParameterShape(role="weight", shape=(first, second, *expand(o["kernel_size"], ndim)))]
        return [*made, ParameterShape(role="bias", shape=(outside,))] if o["bias"] else made

    return parameters


def _linear(shape: Shape, o: Mapping[str, Any]) -> list[ParameterShape]:
    inside = _channels(shape, o["in_features"], "in_features", -1)
    made = [ParameterShape(role="weight", shape=(o["out_features"], inside))]
    return [*made, ParameterShape(role="bias", shape=(o["out_features"],))] if o["bias"] else made


def _batch_norm(shape: Shape, o: Mapping[str, Any]) -> list[ParameterShape]:
    n = _channels(shape, o["num_features"], "num_features")
    made: list[ParameterShape] = []
    if o["affine"]:
        made += [ParameterShape(role="weight", shape=(n,)), ParameterShape(role="bias", shape=(n,))]
    if o["track_running_stats"]:
        made += [ParameterShape(role=role, shape=(n,), buffer=True) for role in ("running_mean", "running_var")]
        made += [ParameterShape(role="num_batches_tracked", shape=(), buffer=True, dtype="int64")]
    return made


def _instance_norm(shape: Shape, o: Mapping[str, Any]) -> list[ParameterShape]:
    n = _channels(shape, o["num_features"], "num_features")
    return [ParameterShape(role="weight", shape=(n,)), ParameterShape(role="bias", shape=(n,))] if o["affine"] else []


def _group_norm(shape: Shape, o: Mapping[str, Any]) -> list[ParameterShape]:
    n = _channels(shape, o["num_channels"], "num_channels")
    return [ParameterShape(role="weight", shape=(n,)), ParameterShape(role="bias", shape=(n,))] if o["affine"] else []


def _layer_norm(shape: Shape, o: Mapping[str, Any]) -> list[ParameterShape]:
    if not o["elementwise_affine"]:
        return []
    made = [ParameterShape(role="weight", shape=tuple(o["normalized_shape"]))]
    return [*made, ParameterShape(role="bias", shape=tuple(o["normalized_shape"]))] if o["bias"] else made


def _prelu(shape: Shape, o: Mapping[str, Any]) -> list[ParameterShape]:
    return [ParameterShape(role="weight", shape=(o["num_parameters"],))]


def _a(name: str, default: Any, check: Callable[[Any], Any]) -> Attribute:
    return Attribute(name=name, default=default, check=check)


def _conv_module(ndim: int, transposed: bool = False) -> Module:
    return Module(
        options=(
            _a("in_channels", None, optional(integer)),
            _a("out_channels", REQUIRED, integer),
            _a("kernel_size", REQUIRED, per_dim),
            _a("groups", 1, integer),
            _a("bias", True, flag),
        ),
        passes=("groups",),
        parameters=_conv(ndim, transposed),
    )


MODULES: dict[str, Module] = {
    **{f"conv{d}d": _conv_module(d) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _conv_module(d, True) for d in (1, 2, 3)},
    "linear": Module(
        options=(_a("in_features", None, optional(integer)), _a("out_features", REQUIRED, integer), _a("bias", True, flag)),
        passes=(),
        parameters=_linear,
    ),
    "batch_norm": Module(
        options=(_a("num_features", None, optional(integer)), _a("affine", True, flag), _a("track_running_stats", True, flag)),
        passes=(),
        parameters=_batch_norm,
    ),
    "instance_norm": Module(
        options=(_a("num_features", None, optional(integer)), _a("affine", False, flag)),
        passes=(),
        parameters=_instance_norm,
    ),
    "group_norm": Module(
        options=(_a("num_channels", None, optional(integer)), _a("affine", True, flag)),
        passes=(),
        parameters=_group_norm,
    ),
    "layer_norm": Module(
        options=(_a("normalized_shape", REQUIRED, integers), _a("elementwise_affine", True, flag), _a("bias", True, flag)),
        passes=("normalized_shape",),
        parameters=_layer_norm,
    ),
    "prelu": Module(options=(_a("num_parameters", 1, integer), _a("init", 0.25, number)), passes=(), parameters=_prelu),
}
