"""Engines of cuDNN's that torch passes over, since their results were wrong: the lists that are written into its wheels.

Source: aten/src/ATen/native/cudnn/Conv_v8.cpp (``plan_errata_exception``): none in 2.9; engine 23 of convolutions over volumes from 2.11
on, which has no kernels before compute capability 8.0 (no list of cuDNN 9.19's or 9.24's for 7.0 or 7.5 names it); engines 58 and 63 of
12.0 from 2.14 on.
"""

from __future__ import annotations

from dataclasses import dataclass

from memest.libraries.cudnn.question import Convolution, Direction
from memest.libraries.cudnn.workspace import Card, Release
from memest.machines.architectures import Capability
from memest.machines.versions import MODELLED, NEWEST, Version
from memest.machines.wheels import wheels


@dataclass(frozen=True, slots=True, kw_only=True)
class Erratum:
    """One engine of a direction; of releases from ``first`` on and before ``fixed``; of volumes alone; of cards from ``least`` on, up to
    the compute capability ``most``."""

    torch: Version
    direction: Direction
    engine: int
    first: Release
    fixed: Release | None = None
    volumes: bool = False
    least: Capability
    most: Capability = (99, 0)

    def holds(self, torch: Version, release: Release, card: Card, question: Convolution) -> bool:
        """Whether torch passes the engine over."""
        return (
            self.torch <= torch
            and self.direction == question.direction
            and self.first <= release
            and (self.fixed is None or release < self.fixed)
            and (not self.volumes or len(question.stride) == 3)
            and self.least <= card.capability <= self.most
        )


ERRATA = (
    Erratum(torch=(2, 11), direction="fwd", engine=23, first=(9, 8), fixed=(9, 15), volumes=True, least=(8, 0)),
    Erratum(torch=(2, 11), direction="bwd_data", engine=23, first=(8, 0), volumes=True, least=(8, 0)),
    Erratum(torch=(2, 14), direction="fwd", engine=58, first=(9, 23), least=(12, 0), most=(12, 0)),
    Erratum(torch=(2, 14), direction="bwd_data", engine=63, first=(9, 23), least=(12, 0), most=(12, 0)),
    Erratum(torch=(2, 14), direction="bwd_filter", engine=63, first=(9, 23), least=(12, 0), most=(12, 0)),
)


def passed_over(torch: Version, release: Release, card: Card, question: Convolution) -> tuple[int, ...]:
    """The engines that this torch does not take for a question, whatever cuDNN says."""
    return tuple(e.engine for e in ERRATA if e.holds(torch, release, card, question))


def torch_with(release: Release) -> Version:
    """The torch for which a release of cuDNN is asked: the first described one whose wheel brings it or a later one, else the newest."""
    return next((torch for torch in MODELLED if wheels(torch)[0].cudnn >= release), NEWEST)
