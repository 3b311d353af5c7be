"""One configuration of a plans file: what it inherits, and plans before nnU-Net 2.4 in the words of later ones.

Source: nnunetv2 2.8.1, utilities/plans_handling/plans_handler.py (PlansManager, ConfigurationManager).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from memest.errors import FileError, UnknownNameError, UsageError, did_you_mean

KEYS = ("plans_name", "plans_per_stage", "configurations")
AXES = {2: ("H", "W"), 3: ("D", "H", "W")}
MOST_BATCH = 1 << 20
MOST_EXTENT = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What is planned: ``network`` is the class's name, ``words`` its keywords as written; ``median`` is the image size in voxels that
    the planner noted (None where it did not), ``slices`` how many of them an image has for a network of two axes; ``place`` is the file
    and the configuration, for errors."""

    plans_name: str
    name: str
    network: str
    words: Mapping[str, Any]
    patch_size: tuple[int, ...]
    batch_size: int
    batch_dice: bool
    cascaded: bool
    median: tuple[int, ...] | None
    slices: int
    place: str

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the patch's axes."""
        return AXES[len(self.patch_size)]


def is_plans(data: Any) -> bool:
    """True for the data of a plans file."""
    return isinstance(data, Mapping) and "layers" not in data and any(key in data for key in KEYS)


def configuration_named(data: Mapping[str, Any], name: str | None, place: str) -> Configuration:
    """The configuration called ``name``; the only one where no name is given."""
    if "plans_per_stage" in data:
        raise FileError(f"{place}: plans of nnU-Net 1; plan the data set with nnU-Net 2 (nnUNetv2_plan_experiment)")
    known = data.get("configurations")
    if not isinstance(known, Mapping) or not known or not all(isinstance(k, str) and isinstance(v, Mapping) for k, v in known.items()):
        raise FileError(f"{place}: plans have 'configurations', each a mapping by its name")
    if name is None:
        if len(known) > 1:
            raise UsageError(f"{place} plans {', '.join(known)}; choose one with --configuration (configuration= in Python)")
        (name,) = known
    found = _inherited(known, name, place)
    place = f"{place}, {name}"
    patch = _sizes(found.get("patch_size"), place, "patch_size")
    if len(patch) not in AXES:
        raise FileError(f"{place}: patch_size has {len(patch)} axes; networks have 2 or 3")
    network, words = _architecture(found, place)
    batch = found.get("batch_size")
    if not (_whole(batch) and 1 <= batch <= MOST_BATCH):
        raise FileError(f"{place}: batch_size is a whole number from 1 to {MOST_BATCH:,}, got {batch!r}"[:300])
    median = found.get("median_image_size_in_voxels")
    whole = _median(data.get("original_median_shape_after_transp"), 3) if len(patch) == 2 else None
    return Configuration(
        plans_name=str(data.get("plans_name", "nnUNetPlans"))[:80],
        name=name,
        network=network,
        words=words,
        patch_size=patch,
        batch_size=batch,
        batch_dice=found.get("batch_dice") is True,
        cascaded=found.get("previous_stage") is not None,
        median=_median(median, len(patch)),
        slices=1 if whole is None else whole[0],
        place=place,
    )


def _inherited(known: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    """A configuration over those it inherits from."""
    chain: list[str] = []
    at: Any = name
    while at is not None:
        if at in chain:
            raise FileError(f"{place}: configurations inherit in a circle: {', '.join(chain)}")
        if not isinstance(at, str) or at not in known:
            owner = f"{place}: {chain[-1]!r} inherits from" if chain else f"{place} has no configuration"
            error = FileError if chain else UnknownNameError
            raise error(f"{owner} {str(at)[:60]!r}{did_you_mean(at, known)}; there are {', '.join(known)}")
        chain.append(at)
        at = known[at].get("inherits_from")
    found: dict[str, Any] = {}
    for each in reversed(chain):
        found.update(known[each])
    return found


def _architecture(found: Mapping[str, Any], place: str) -> tuple[str, Mapping[str, Any]]:
    """The network's class and its keywords."""
    described = found.get("architecture")
    if isinstance(described, Mapping):
        words, name = described.get("arch_kwargs"), described.get("network_class_name")
        if not isinstance(words, Mapping) or not isinstance(name, str):
            raise FileError(f"{place}: architecture has a network_class_name and arch_kwargs")
        return name.rpartition(".")[2], words
    name = found.get("UNet_class_name")
    if not isinstance(name, str):
        raise FileError(f"{place}: neither architecture nor UNet_class_name says which network it is")
    return name, _older(found, name, place)


def _older(found: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    """The words of plans before nnU-Net 2.4 as those of the architecture."""
    kernels, base, most = found.get("conv_kernel_sizes"), found.get("UNet_base_num_features"), found.get("unet_max_num_features")
    if not (isinstance(kernels, Sequence) and not isinstance(kernels, str) and _whole(base) and _whole(most)):
        raise FileError(f"{place}: needs conv_kernel_sizes, UNet_base_num_features and unet_max_num_features")
    encoder = "n_blocks_per_stage" if name == "ResidualEncoderUNet" else "n_conv_per_stage"
    return {
        "n_stages": len(kernels),
        "features_per_stage": [min(base * 2**s, most) for s in range(min(len(kernels), 64))],
        "kernel_sizes": kernels,
        "strides": found.get("pool_op_kernel_sizes"),
        encoder: found.get("n_conv_per_stage_encoder"),
        "n_conv_per_stage_decoder": found.get("n_conv_per_stage_decoder"),
        "conv_bias": True,
        "norm_op": f"InstanceNorm{len(found.get('patch_size', ()))}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def _sizes(value: Any, place: str, key: str) -> tuple[int, ...]:
    listed = isinstance(value, Sequence) and not isinstance(value, str) and bool(value)
    if not (listed and all(_whole(n) and 0 < n <= MOST_EXTENT for n in value)):
        raise FileError(f"{place}: {key} is a list of whole numbers, got {str(value)[:80]}")
    return tuple(value)


def _median(value: Any, axes: int) -> tuple[int, ...] | None:
    """Sizes rounded up: the planner takes a median, which may lie between two whole numbers."""
    if not (isinstance(value, Sequence) and not isinstance(value, str) and len(value) >= axes):
        return None
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and 1 <= n <= MOST_EXTENT for n in value):
        return None
    return tuple(-int(-n // 1) for n in value[-axes:])


def _whole(value: Any) -> TypeGuard[int]:
    return type(value) is int
