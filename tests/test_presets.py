"""nnU-Net's presets: its planner's count is reproduced, and where its constant and the step's bytes part is said in numbers."""

from __future__ import annotations

import pytest

from validation.presets import Preset, feature_maps, presets

PRESETS = presets()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.name)
def test_the_planners_count_is_that_of_the_graph(preset: Preset) -> None:
    patch = tuple(preset.plan["configuration"]["patch_size"])
    assert feature_maps(preset.graph, patch) == preset.plan["feature_maps"]
    assert preset.planned_gb <= 1.15 * preset.plan["target_gb"], "the planner keeps to its target, by its own measure"


def test_the_constant_does_not_rank_networks_as_their_bytes_do() -> None:
    """By the constant nnU-Net's network for the pancreas takes a third more than its ResEnc M for the same images, by bytes the less."""
    plain, residual = (next(p for p in PRESETS if p.name == f"{name}, pancreas") for name in ("nnU-Net", "ResEnc M"))
    assert plain.planned_gb > 1.3 * residual.planned_gb
    samples = [p.estimate().peak_bytes / p.batch_size for p in (plain, residual)]
    assert samples[0] < 0.8 * samples[1], "a sample of the plain network takes less"


def test_a_sample_more_takes_what_bytes_say_and_the_constant_does_not() -> None:
    """The constant grows with the batch from zero; weights, gradients and momentum do not."""
    small, large = (next(p for p in PRESETS if p.name == f"ResEnc {size}, pancreas") for size in ("M", "XL"))
    assert small.plan["configuration"]["patch_size"] == large.plan["configuration"]["patch_size"]
    growth = large.estimate().peak_bytes / small.estimate().peak_bytes
    assert growth < 0.95 * large.batch_size / small.batch_size
