"""Stored networks of libraries: one of each is played beside what was measured (all of them: ``validation compare libraries``)."""

from __future__ import annotations

import pytest

from validation.libraries.comparing import MODES, _compared
from validation.libraries.storing import load
from validation.libraries.subjects import LIBRARIES, subjects

SMALL = {"timm": "byobnet", "smp": "Unet resnet18", "monai": "UNet", "transformers": "ViT"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_stored_network_is_predicted_to_the_byte(library: str) -> None:
    head, records = load(library)
    subject = next(s for s in subjects(library) if s.name == SMALL[library])
    record = next(r for r in records if r["digest"] == subject.digest)
    assert all(_compared(subject, head, record, mode).equal for mode in MODES)
