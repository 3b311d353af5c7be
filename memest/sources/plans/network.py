"""A configuration's network: the keywords of dynamic-network-architectures as options of the built-in networks, or a refusal by name.

Source: dynamic-network-architectures 0.4, architectures/unet.py, building_blocks/; nnunetv2 2.8.1, utilities/get_network_from_plans.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memest.errors import FileError, GraphError, UnsupportedError, UsageError
from memest.network.graph import Graph
from memest.sources.models.nnunet import Call, Style
from memest.sources.models.options import MAX_CHANNELS, per_stage
from memest.sources.models.plain_conv_unet import plain_conv_unet
from memest.sources.models.residual_encoder_unet import residual_encoder_unet
from memest.sources.plans.configuration import Configuration
from memest.sources.plans.labels import Labels

NETWORKS: dict[str, Callable[..., Graph]] = {"PlainConvUNet": plain_conv_unet, "ResidualEncoderUNet": residual_encoder_unet}
STAGES: dict[str, Callable[[Any], Any]] = {
    "features_per_stage": per_stage(MAX_CHANNELS),
    "kernel_sizes": per_stage(31, alone=True, axes=True),
    "strides": per_stage(16, axes=True),
    "n_conv_per_stage": per_stage(100, alone=True),
    "n_blocks_per_stage": per_stage(100, alone=True),
    "n_conv_per_stage_decoder": per_stage(100, alone=True),
}
OWN = {"PlainConvUNet": ("n_conv_per_stage", "nonlin_first"), "ResidualEncoderUNet": ("n_blocks_per_stage", "block", "stem_channels")}
STYLED = ("conv_op", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin", "nonlin_kwargs")
COMMON = ("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage_decoder", "deep_supervision", *STYLED)
NONLINS: dict[str, tuple[str, dict[str, Any]]] = {
    "LeakyReLU": ("leaky_relu", {"negative_slope": 0.01, "inplace": False}),
    "ReLU": ("relu", {"inplace": False}),
    "ReLU6": ("relu6", {"inplace": False}),
    "ELU": ("elu", {"alpha": 1.0, "inplace": False}),
    "SiLU": ("silu", {"inplace": False}),
    "Mish": ("mish", {"inplace": False}),
    "GELU": ("gelu", {"approximate": "none"}),
}
NORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "InstanceNorm": ("instance_norm", {"eps": 1e-5, "affine": False, "momentum": 0.1, "track_running_stats": False}),
    "BatchNorm": ("batch_norm", {"eps": 1e-5, "momentum": 0.1, "affine": True, "track_running_stats": True}),
}


def network_of(plan: Configuration, labels: Labels, *, deep_supervision: bool) -> Graph:
    """The graph of a configuration."""
    if plan.network not in NETWORKS:
        raise UnsupportedError(
            f"{plan.place}: network {plan.network[:60]!r} is not modelled; there are {', '.join(NETWORKS)} (others as torch code)"
        )
    words = dict(plan.words)
    known = {*COMMON, *OWN[plan.network]}
    for key, value in words.items():
        if key not in known and value is not None:
            raise UnsupportedError(f"{plan.place}: {plan.network} with {str(key)[:60]!r} is not modelled")
    options = {key: _stages(plan, key, words[key]) for key in STAGES if words.get(key) is not None}
    for key in ("features_per_stage", "strides"):
        if key not in options:
            raise FileError(f"{plan.place}: {plan.network} needs {key}")
    count = len(options["features_per_stage"])
    if words.get("n_stages", count) != count:
        raise FileError(f"{plan.place}: n_stages is {str(words['n_stages'])[:60]}, features_per_stage has {count} entries")
    block = words.get("block")
    if block is not None and not str(block).endswith("BasicBlockD"):
        raise UnsupportedError(f"{plan.place}: block {str(block)[:60]!r} is not modelled; BasicBlockD is")
    if words.get("stem_channels") is not None:
        options["stem_channels"] = _channels(plan, words["stem_channels"])
    try:
        graph = NETWORKS[plan.network](
            input_channels=labels.channels,
            num_classes=labels.heads,
            dims=len(plan.patch_size),
            deep_supervision=deep_supervision,
            style=_style(plan, words),
            **options,
        )
    except (GraphError, UsageError) as e:
        raise FileError(f"{plan.place}: {e}") from None
    return graph.with_(name=f"{plan.plans_name} {plan.name}")


def _stages(plan: Configuration, key: str, value: Any) -> Any:
    try:
        return STAGES[key](value)
    except ValueError as e:
        raise FileError(f"{plan.place}: {key} is not {e}"[:300]) from None


def _channels(plan: Configuration, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MAX_CHANNELS:
        raise FileError(f"{plan.place}: stem_channels is a whole number, got {str(value)[:60]}")
    return value


def _style(plan: Configuration, words: Mapping[str, Any]) -> Style:
    dims = len(plan.patch_size)
    conv = words.get("conv_op")
    if conv is not None and _class(conv) != f"Conv{dims}d":
        raise FileError(f"{plan.place}: conv_op {str(conv)[:60]!r} does not fit a patch of {dims} axes")
    return Style(
        bias=_flag(plan, "conv_bias", words.get("conv_bias", False)),
        norm=_norm(plan, words.get("norm_op"), words.get("norm_op_kwargs")),
        dropout=_dropout(plan, words.get("dropout_op"), words.get("dropout_op_kwargs")),
        nonlin=_nonlin(plan, words.get("nonlin"), words.get("nonlin_kwargs")),
        nonlin_first=_flag(plan, "nonlin_first", words.get("nonlin_first", False)),
    )


def _norm(plan: Configuration, name: Any, given: Any) -> Call | None:
    if name is None:
        return None
    kind = _class(name).removesuffix(f"{len(plan.patch_size)}d")
    if kind not in NORMS:
        raise UnsupportedError(f"{plan.place}: norm_op {str(name)[:60]!r} is not modelled; there are {_each(NORMS, plan)}")
    op, defaults = NORMS[kind]
    options = _options(plan, "norm_op_kwargs", given, defaults)
    if options.pop("track_running_stats") is not defaults["track_running_stats"] or (op == "batch_norm" and not options["affine"]):
        raise UnsupportedError(f"{plan.place}: {kind} with these norm_op_kwargs is not modelled: {str(given)[:80]}")
    del options["momentum"]
    if op == "batch_norm":
        del options["affine"]
    return Call(op=op, attributes=tuple(options.items()))


def _dropout(plan: Configuration, name: Any, given: Any) -> Call | None:
    if name is None:
        return None
    dims = len(plan.patch_size)
    kind = _class(name)
    if kind not in ("Dropout", f"Dropout{dims}d"):
        raise UnsupportedError(f"{plan.place}: dropout_op {str(name)[:60]!r} is not modelled; there are Dropout and Dropout{dims}d")
    return Call(op=kind.lower(), attributes=tuple(_options(plan, "dropout_op_kwargs", given, {"p": 0.5, "inplace": False}).items()))


def _nonlin(plan: Configuration, name: Any, given: Any) -> Call | None:
    if name is None:
        return None
    if _class(name) not in NONLINS:
        raise UnsupportedError(f"{plan.place}: nonlin {str(name)[:60]!r} is not modelled; there are {', '.join(NONLINS)}")
    op, defaults = NONLINS[_class(name)]
    return Call(op=op, attributes=tuple(_options(plan, "nonlin_kwargs", given, defaults).items()))


def _options(plan: Configuration, key: str, given: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """``defaults`` with what is given, each of its kind."""
    if given is None:
        return dict(defaults)
    if not isinstance(given, Mapping):
        raise FileError(f"{plan.place}: {key} is a mapping, got {str(given)[:60]}")
    for name, value in given.items():
        if name not in defaults:
            raise UnsupportedError(f"{plan.place}: {key} with {str(name)[:60]!r} is not modelled; there are {', '.join(defaults)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(defaults[name], bool) != isinstance(value, bool) or (isinstance(defaults[name], float) and not number):
            raise FileError(f"{plan.place}: {key}, {name}: got {str(value)[:60]}")
    return {**defaults, **given}


def _flag(plan: Configuration, key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise FileError(f"{plan.place}: {key} is true or false, got {str(value)[:60]}")
    return value


def _class(name: Any) -> str:
    """``torch.nn.modules.conv.Conv3d`` without its module."""
    return str(name).rpartition(".")[2]


def _each(kinds: Sequence[str] | Mapping[str, Any], plan: Configuration) -> str:
    return " and ".join(f"{kind}{len(plan.patch_size)}d" for kind in kinds)
