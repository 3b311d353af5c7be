"""Files that torch's two exporters wrote, without weights: read, estimated, and held against the modules that they were written of."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx")

from validation.exporters.comparing import compare, failures
from validation.exporters.networks import networks


@pytest.mark.parametrize("network", ["torchvision squeezenet1_1"])
def test_a_file_is_the_network_that_it_was_written_of(network: str) -> None:
    found = list(compare(network))
    assert [c.exporter for c in found] == ["dynamo", "legacy"]
    assert all(c.streams for c in found), [str(c) for c in found]


@pytest.mark.slow
def test_every_file_is_read_and_what_is_the_same_takes_the_same() -> None:
    found = list(compare())
    assert {c.network for c in found} <= {f"{s.library} {s.name}" for s in networks()}
    assert not failures(found)
