"""memest: the memory of a CNN's training or inference step, to the byte, before anything runs.

>>> graph = memest.model("unet3d", base_filters=16)
>>> memest.estimate(graph, input_shape=(16, 1, 240, 240, 144), optimizer="adam").peak_bytes

The names below are the public API. Each is imported when it is first used: ``import memest`` alone costs nothing, and neither torch
nor sympy is touched by an estimate.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memest.errors import FileError as FileError
    from memest.errors import GraphError as GraphError
    from memest.errors import MemestError as MemestError
    from memest.errors import ShapeError as ShapeError
    from memest.errors import UnknownNameError as UnknownNameError
    from memest.errors import UnsupportedError as UnsupportedError
    from memest.errors import UsageError as UsageError
    from memest.estimate.estimate import Estimate as Estimate
    from memest.estimate.estimate import estimate as estimate
    from memest.estimate.steps import step as step
    from memest.machines.cpu import Cpu as Cpu
    from memest.machines.entry import Hardware as Hardware
    from memest.machines.gpu import Gpu as Gpu
    from memest.machines.loader import Loader as Loader
    from memest.machines.reading import hardware as hardware
    from memest.machines.reading import hardware_named as hardware_named
    from memest.machines.reading import load_hardware as load_hardware
    from memest.machines.verdicts import Verdict as Verdict
    from memest.machines.verdicts import budget as budget
    from memest.machines.verdicts import verdict as verdict
    from memest.network.graph import Graph as Graph
    from memest.planning.advise import Advice as Advice
    from memest.planning.advise import advise as advise
    from memest.planning.checkpoints import CheckpointPlan as CheckpointPlan
    from memest.planning.checkpoints import plan_checkpoints as plan_checkpoints
    from memest.planning.cluster import ClusterPlan as ClusterPlan
    from memest.planning.cluster import plan_cluster as plan_cluster
    from memest.planning.compare import Comparison as Comparison
    from memest.planning.compare import compare as compare
    from memest.planning.fit import Fit as Fit
    from memest.planning.fit import fit as fit
    from memest.planning.inference import InferencePlan as InferencePlan
    from memest.planning.inference import plan_inference as plan_inference
    from memest.planning.patches import fit_patch as fit_patch
    from memest.planning.sweep import sweep as sweep
    from memest.planning.sweep import sweeps as sweeps
    from memest.planning.swept import Sweep as Sweep
    from memest.planning.volumes import VolumePlan as VolumePlan
    from memest.planning.volumes import plan_volume as plan_volume
    from memest.sizes.remembering import clear_caches as clear_caches
    from memest.sources.builder import Builder as Builder
    from memest.sources.files import dumps as dumps
    from memest.sources.files import loads as loads
    from memest.sources.opening import from_keras as from_keras
    from memest.sources.opening import from_onnx as from_onnx
    from memest.sources.opening import from_step as from_step
    from memest.sources.opening import from_torch as from_torch
    from memest.sources.opening import load as load
    from memest.sources.opening import model as model
    from memest.sources.opening import save as save

__version__ = "0.5.0"

_HOMES = {
    "Advice": "memest.planning.advise",
    "Builder": "memest.sources.builder",
    "CheckpointPlan": "memest.planning.checkpoints",
    "ClusterPlan": "memest.planning.cluster",
    "Comparison": "memest.planning.compare",
    "Cpu": "memest.machines.cpu",
    "Estimate": "memest.estimate.estimate",
    "FileError": "memest.errors",
    "Fit": "memest.planning.fit",
    "Gpu": "memest.machines.gpu",
    "Graph": "memest.network.graph",
    "GraphError": "memest.errors",
    "Hardware": "memest.machines.entry",
    "InferencePlan": "memest.planning.inference",
    "Loader": "memest.machines.loader",
    "MemestError": "memest.errors",
    "ShapeError": "memest.errors",
    "Sweep": "memest.planning.swept",
    "UnknownNameError": "memest.errors",
    "UnsupportedError": "memest.errors",
    "UsageError": "memest.errors",
    "Verdict": "memest.machines.verdicts",
    "VolumePlan": "memest.planning.volumes",
    "advise": "memest.planning.advise",
    "budget": "memest.machines.verdicts",
    "clear_caches": "memest.sizes.remembering",
    "compare": "memest.planning.compare",
    "dumps": "memest.sources.files",
    "estimate": "memest.estimate.estimate",
    "fit": "memest.planning.fit",
    "fit_patch": "memest.planning.patches",
    "from_keras": "memest.sources.opening",
    "from_onnx": "memest.sources.opening",
    "from_step": "memest.sources.opening",
    "from_torch": "memest.sources.opening",
    "hardware": "memest.machines.reading",
    "hardware_named": "memest.machines.reading",
    "load": "memest.sources.opening",
    "load_hardware": "memest.machines.reading",
    "loads": "memest.sources.files",
    "model": "memest.sources.opening",
    "save": "memest.sources.opening",
    "step": "memest.estimate.steps",
    "sweep": "memest.planning.sweep",
    "sweeps": "memest.planning.sweep",
    "plan_checkpoints": "memest.planning.checkpoints",
    "plan_cluster": "memest.planning.cluster",
    "plan_inference": "memest.planning.inference",
    "plan_volume": "memest.planning.volumes",
    "verdict": "memest.machines.verdicts",
}
__all__ = ["__version__", *_HOMES]


class _Package(ModuleType):
    """Importing the file ``memest/estimate/estimate.py`` must not hide the function ``memest.estimate``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'memest' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
