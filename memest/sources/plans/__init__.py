"""nnU-Net's plans files: a configuration becomes the network nnU-Net builds for it, with the way nnU-Net trains and uses it.

    memest estimate nnUNetPlans.json --configuration 3d_fullres
    memest estimate nnUNetPlans.json:configuration=3d_fullres,input_channels=1,num_classes=3

Reads the plans of nnU-Net 2, with ``architecture`` and, as before 2.4, with ``UNet_class_name``. Channels and classes stand in the data
set's ``dataset.json``, which nnU-Net lays beside the plans; without it they have to be given. What a plan asks for that memest does not
model is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memest.errors import FileError, UnknownNameError, UsageError, did_you_mean, kind_of
from memest.network.graph import Graph
from memest.sources.plans.configuration import configuration_named, is_plans
from memest.sources.plans.labels import labels_of
from memest.sources.plans.network import network_of
from memest.sources.plans.training import usual_of

OPTIONS = ("configuration", "input_channels", "num_classes", "regions", "deep_supervision")
COMPILED = "nnU-Net's step as it runs with nnUNet_compile=f; on CUDA it compiles the network where that is left out"


def graph_of(data: Mapping[str, Any], path: Path, options: Mapping[str, Any]) -> Graph:
    """The network of one configuration of the plans ``data`` read from ``path``. UsageError for what the caller has to say, FileError
    for what the file says wrongly, UnsupportedError for what is not modelled."""
    for name in options:
        if name not in OPTIONS:
            raise UnknownNameError(f"{path}: plans have no option {name!r}{did_you_mean(name, OPTIONS)}; there are {', '.join(OPTIONS)}")
    place = str(path)
    chosen = configuration_named(data, options.get("configuration"), place)
    labels = labels_of(path, chosen.cascaded, options)
    deep = _flag(options.get("deep_supervision", True), place)
    trained, used = (network_of(chosen, labels, deep_supervision=d) for d in (deep, False))
    return trained.with_(
        inference=used if deep else None,
        usual=usual_of(chosen, labels, len(trained.outputs)),
        notes=(COMPILED, *labels.notes),
        examples=tuple(zip(("N", *chosen.axes), (chosen.batch_size, *chosen.patch_size), strict=True)),
    )


def _flag(value: Any, place: str) -> bool:
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise UsageError(f"{place}, option 'deep_supervision': expected true or false, got {kind_of(value)}")
    return found


__all__ = ["OPTIONS", "FileError", "graph_of", "is_plans"]
