"""nnU-Net's plans files, which describe networks in words of their own: the built-in model that says the same.

Reads the plans of nnU-Net 2 (``configurations`` with ``architecture``, or with ``UNet_class_name`` as before 2.4) for convolutions with
bias, instance norm and LeakyReLU, as its planner writes them. Channels of the input and classes stand in the data set's file, not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

NETWORKS = {"PlainConvUNet": "plain_conv_unet", "ResidualEncoderUNet": "residual_encoder_unet"}
KEYS = ("plans_name", "plans_per_stage", "configurations")
PREFERRED = ("3d_fullres", "2d", "3d_lowres")


def is_plans(data: Any) -> bool:
    """True for the data of a plans file."""
    return (
        isinstance(data, Mapping)
        and "layers" not in data
        and ("plans_name" in data or "plans_per_stage" in data or "configurations" in data)
    )


def way_in(data: Mapping[str, Any]) -> str:
    """What to ask instead of the plans: a command, where they say which network they mean."""
    configurations = data.get("configurations")
    known = configurations if isinstance(configurations, Mapping) else {}
    for name in dict.fromkeys((*PREFERRED, *known)):
        command = _command(known[name]) if isinstance(known.get(name), Mapping) else None
        if command is not None:
            return f"an nnU-Net plans file; its {name} is: {command} (and input_channels=, num_classes= of the data set)"
    return (
        "an nnU-Net plans file; give its network as a built-in model, such as plain_conv_unet:features_per_stage=32-64-128-256-320-320,"
        "strides=1-2-2-2-2-1x2x2 (memest models lists the options)"
    )


def _command(plan: Mapping[str, Any]) -> str | None:
    """``memest estimate`` of one configuration, or None where something about it is not told or not built in."""
    described = plan.get("architecture")
    if isinstance(described, Mapping):
        words = described.get("arch_kwargs")
        network = str(described.get("network_class_name", "")).rpartition(".")[2]
    else:
        words, network = _older(plan), str(plan.get("UNet_class_name", ""))
    patch = plan.get("patch_size")
    if network not in NETWORKS or not isinstance(words, Mapping) or not _numbers(patch):
        return None
    options = {"dims": str(len(patch))} if len(patch) != 3 else {}
    for ours in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"):
        if ours in words:
            text = _stages(words[ours])
            if text is None:
                return None
            options[ours] = text
    if "features_per_stage" not in options or "strides" not in options:
        return None
    channels = "x".join(map(str, (1, *patch)))
    return (
        f"memest estimate {NETWORKS[network]}:{','.join(f'{k}={v}' for k, v in options.items())} --input {channels} "
        f"--batch {plan.get('batch_size', 2)}"
    )


def _older(plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """The words of plans before nnU-Net 2.4 as those of the architecture."""
    kernels, base, most = plan.get("conv_kernel_sizes"), plan.get("UNet_base_num_features"), plan.get("unet_max_num_features")
    if not (isinstance(kernels, Sequence) and isinstance(base, int) and isinstance(most, int)):
        return None
    encoder = "n_blocks_per_stage" if plan.get("UNet_class_name") == "ResidualEncoderUNet" else "n_conv_per_stage"
    return {
        "features_per_stage": [min(base * 2**s, most) for s in range(len(kernels))],
        "kernel_sizes": kernels,
        "strides": plan.get("pool_op_kernel_sizes"),
        encoder: plan.get("n_conv_per_stage_encoder"),
        "n_conv_per_stage_decoder": plan.get("n_conv_per_stage_decoder"),
    }


def _stages(entries: Any) -> str | None:
    """Entries a stage as a built-in model's option has them: ``32-64-128``, ``1x3x3-3-3``."""
    if isinstance(entries, int):
        return str(entries)
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        return None
    found = []
    for entry in entries:
        if isinstance(entry, int):
            found.append(str(entry))
        elif _numbers(entry):
            found.append(str(entry[0]) if len(set(entry)) == 1 else "x".join(map(str, entry)))
        else:
            return None
    return "-".join(found)


def _numbers(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0 and all(type(n) is int for n in value)
