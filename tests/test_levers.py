"""Levers: reading them, contradictions, and that each says what it is."""

from __future__ import annotations

import pytest

import memest
from memest.errors import UnknownNameError, UsageError
from memest.levers.table import LEVERS, setting, settings


@pytest.mark.parametrize("name", LEVERS)
def test_every_lever_says_what_it_does_what_it_costs_and_where_its_rule_was_read(name: str) -> None:
    lever = LEVERS[name]
    assert lever.summary and lever.price and lever.source and lever.modes
    assert set(lever.excludes) <= set(LEVERS)
    assert all(option.summary for option in lever.options.values())


def test_a_wrong_name_is_met_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="channels_last"):
        setting("chanels_last")


def test_a_lever_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        settings(["channels_last", "channels_last"], "train")


def test_an_estimate_says_which_levers_it_was_made_with() -> None:
    est = memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64), levers=["channels_last"])
    assert est.levers == ("channels_last",) and est.to_dict()["levers"] == ["channels_last"]
