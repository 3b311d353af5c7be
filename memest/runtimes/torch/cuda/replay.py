"""The caching allocator played over the :mod:`course <memest.runtimes.torch.cuda.course>` of steps that lead to the one asked about: where
blocks lie follows from all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from memest.libraries.cudnn.rule import of_steps
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.machines.wheels import unsupported
from memest.memory.allocators.caching import CachingAllocator
from memest.memory.allocators.settings import Settings, read_settings
from memest.memory.figure import Figure, Figures, exact, modelled
from memest.memory.listing import Form, Listing
from memest.memory.process import cuda_context, cuda_process
from memest.runtimes.runtime import Steps
from memest.runtimes.torch.cuda.course import course_of
from memest.runtimes.torch.cuda.playing import Taken, is_plain, play_pools, play_whole

GIVEN_BACK = "what is cached and unused is given back, so that the step fits what the context leaves of the card"
RANKS_SINCE = (2, 14)
OTHER_RELEASES = "what several ranks add to a step was held against torch 2.14 alone"
KEPT_AMONG_RANKS = "gradients that stay from step to step among several ranks were not held against torch"
NCCL = "; NCCL asks it for nothing"
COLLECTIVES = frozenset({"all_gather", "reduce_scatter", "broadcast"})
FASTEST = "cudnn.benchmark takes the fastest of the plans it tries, which only a card knows: the range is that of their workspaces"
CONVOLUTIONS = frozenset({"convolution", "convolution_backward"})
PAGE = 2 << 20
NO_KERNELS = "the wheel has no kernels for this card: so it would allocate if it had"
RUN_OUT = "the card runs out: at least so much would have to be reserved"


def settings_for(target: Target) -> Settings:
    """The allocator's settings. UsageError for a text that torch's parser would not take."""
    return read_settings(target.settings.alloc_conf, target.version)


def _sizes(listing: Listing, end: int | None) -> Sequence[int]:
    """Bytes by number: the low (0) or the high (1) end of those that are modelled, or what is expected (None): none for what may be there
    and is not expected, whose one byte stands for its event."""
    if not listing.spreads:
        return listing.sizes
    found = list(listing.sizes)
    for n, spread in listing.spreads.items():
        if end is not None:
            found[n] = spread[end]
        elif found[n] == 1:
            found[n] = 0
    return found


def figures_of(steps: Steps, target: Target) -> Figures:
    """What the allocator hands out and takes, and what the driver shows. Where sizes are modelled the steps are played with the lowest and
    the highest, too; where the card cannot give what the allocator would take, once more with what the context leaves of it, which makes
    the allocator give back what it holds unused. Of a step that runs out even so it is said what would have to be reserved at least."""
    game = _Game(steps, target)
    asked = game.asked
    spread = [asked.form.storages[n] for n in sorted(asked.spreads)]
    libraries = ("nccl",) if steps.distributed else ()
    context = cuda_context(target.device, libraries=libraries)
    assert context.bytes is not None and context.low is not None and context.high is not None
    expected = game.on_the_card(None, context.bytes, None)
    low, high = (
        game.on_the_card(end, besides, None if spread else expected.free) for end, besides in ((0, context.low), (1, context.high))
    )
    plays = (low, expected, high)
    unseen = _unseen(steps, target)
    late = _late(asked) if unseen else 0
    ranks = NCCL if steps.distributed else ""
    reasons = [f"modelled are: {', '.join(dict.fromkeys(s.reason or s.op for s in spread))}"] if spread else []
    if any(s.op in CONVOLUTIONS for s in spread):
        reasons.append(FASTEST if target.settings.benchmark else of_steps())
    reasons += unseen
    if unsupported(target.device, target.version, target.settings.cudnn):
        reasons.append(NO_KERNELS)
    reasons += dict.fromkeys(p.tight for p in (expected, low, high) if p.tight)
    reason = "; ".join(reasons)
    reserved = _figure(
        [*(p.reserved for p in plays), high.reserved + -(-late // PAGE) * PAGE],
        reason,
        f"every segment that torch's caching allocator took up to the end of this step{ranks}",
    )
    shown = [
        n + p
        for p, n in zip((low.reserved, expected.reserved, high.reserved + late), (context.low, context.bytes, context.high), strict=True)
    ]
    return Figures(
        allocated=_figure(
            [*(p.last.allocated for p in plays), high.last.allocated + late],
            reason,
            f"every block that torch's caching allocator hands out in this step{ranks}",
        ),
        reserved=reserved,
        process=modelled(shown[1], min(shown), max(shown), cuda_process(reserved, target.device, libraries=libraries).reason),
        event=expected.last.allocated_at,
    )


def _unseen(steps: Steps, target: Target) -> list[str]:
    """Why the step of one of several ranks may run differently from what was measured."""
    if not steps.distributed:
        return []
    kept = [KEPT_AMONG_RANKS] if steps.keeps_gradients else []
    return [*kept, *([OTHER_RELEASES] if target.version < RANKS_SINCE else [])]


def _late(asked: Listing) -> int:
    """Bytes of the two largest tensors that collectives work on, which may stay alive for longer."""
    storages = asked.form.storages
    sizes = [asked.sizes[n] for n in asked.form.made if storages[n].op in COLLECTIVES and storages[n].category != "parameter"]
    return sum(sorted(sizes)[-2:])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Play:
    """What the allocator made of the step, ``free`` of any limit and ``last`` on the card, with the bytes ``reserved`` there, and how it
    got by where it was ``tight``."""

    free: Taken
    last: Taken
    reserved: int
    tight: str = ""


def streams_of(form: Form) -> list[int]:
    """Of each number; what is there before the steps is made on the current one."""
    return [s.stream if n >= form.residents else 0 for n, s in enumerate(form.storages)]


class _Game:
    """The steps as they are played on a target, with sizes of either end."""

    def __init__(self, steps: Steps, target: Target) -> None:
        self.first, self.asked = steps.listed()
        self._target = target
        self._settings = settings_for(target)
        self._course = course_of(
            self.first,
            self.asked,
            converted=steps.converted,
            is_first=steps.is_first,
            keeps_gradients=steps.keeps_gradients,
            whole=steps.whole,
        )
        streams = [of.form.memo.find("streams", None, 1, partial(streams_of, of.form)) for of in (self.first, self.asked)]
        self._streams = self._course.of_all(*streams) if any(map(any, streams)) else ()

    def on_the_card(self, end: int | None, besides: int, known: Taken | None) -> _Play:
        """With sizes of an ``end``, where so many bytes of the card are taken ``besides``; ``known`` is a play of the same sizes without a
        limit."""
        sizes = self._course.of_all(_sizes(self.first, end), _sizes(self.asked, end))
        free = self._play(sizes, None) if known is None else known
        assert isinstance(self._target.machine, Gpu)
        room = max(0, self._target.machine.memory_bytes - besides)
        if free.reserved <= room:
            return _Play(free=free, last=free, reserved=free.reserved)
        tight = self._play(sizes, room)
        if tight.shortage is None:
            return _Play(free=free, last=tight, reserved=tight.reserved, tight=GIVEN_BACK)
        least = max(free.allocated, room + max(1, tight.shortage.segment - tight.shortage.free))
        return _Play(free=free, last=free, reserved=min(least, free.reserved), tight=RUN_OUT)

    def _play(self, sizes: Sequence[int], capacity: int | None) -> Taken:
        """On a card that can give ``capacity`` bytes (None: any number)."""
        if capacity is None and is_plain(self._settings, self._course):
            return play_pools(self._course, sizes, self._streams, self._settings)
        total = None if capacity is None else self._target.device.memory_bytes
        allocator = CachingAllocator(self._settings, capacity=capacity, total=total)
        return play_whole(self._course, sizes, self._streams, allocator)


def _figure(found: Sequence[int], reason: str, said: str) -> Figure:
    """The low, the expected and the high one; exact where there is no reason to be otherwise."""
    return modelled(found[1], min(found), max(found), reason) if reason else exact(found[1], said)
