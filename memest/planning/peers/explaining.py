"""Others' figures beside ours, the difference item by item.

Promises: what a tool says and its items add up to our peak, to the byte; an item is something that the tool counts twice, forgets, or
counts though it is not there when the peak is reached. Both sides are of one network and one input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from memest.estimate.estimate import Estimate
from memest.estimate.peak import CATEGORIES
from memest.network.modules import Modules
from memest.planning.peers.accelerate import accelerate
from memest.planning.peers.deepspeed import zero2, zero3
from memest.planning.peers.said import Said
from memest.planning.peers.torchinfo import torchinfo
from memest.planning.peers.torchsummary import torchsummary

FORGOTTEN = {
    "parameter": "parameters",
    "buffer": "buffers",
    "gradient": "gradients alive at the peak",
    "optimizer_state": "the optimizer's state and what it holds for a moment",
    "input": "inputs and target",
    "activation": "activations kept for backward",
    "temporary": "results on their way, alive at the peak",
    "workspace": "scratch inside kernels",
}
ROUNDING = "the allocator's rounding of blocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One step of the way from a tool's figure to ours: bytes to add to the first (negative: it has them too much)."""

    nbytes: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What one tool says, and the items that lead to our peak (none where it says nothing)."""

    said: Said
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Our estimate, and each tool's figure beside it."""

    estimate: Estimate
    tools: tuple[Beside, ...]


def explain(estimate: Estimate, modules: Modules, tracker: Said) -> Explanation:
    """``modules`` are those of the network of ``estimate``, called with its input; ``tracker`` is what torch's MemTracker said."""
    training = estimate.mode == "train"
    found = [torchinfo(modules), torchsummary(modules), tracker, accelerate(modules, training)]
    found += [zero2(modules), zero3(modules)] if training else []
    return Explanation(estimate=estimate, tools=tuple(Beside(said=said, items=_items(said, estimate, modules)) for said in found))


def _items(said: Said, estimate: Estimate, modules: Modules) -> tuple[Item, ...]:
    if said.reason:
        return ()
    ours = dict.fromkeys(CATEGORIES, 0) | estimate.by_category()
    items = [Item(nbytes=-t.nbytes, what=t.slip) for t in said.terms if t.slip]
    for category in CATEGORIES:
        meant = [t for t in said.terms if t.category == category and not t.slip]
        by_module = next((t.by_module for t in meant if t.by_module), None)
        if by_module is not None:
            items += _outputs(by_module, _alive(estimate, modules, category))
        else:
            rest = ours[category] - sum(t.nbytes for t in meant)
            items.append(Item(nbytes=rest, what=_words(category, bool(meant), rest)))
    items.append(Item(nbytes=estimate.peak_bytes - sum(ours.values()), what=ROUNDING))
    return tuple(sorted((i for i in items if i.nbytes), key=lambda i: -abs(i.nbytes)))


def _words(category: str, counted: bool, rest: int) -> str:
    """What is missing in a category, or too much."""
    words = FORGOTTEN[category]
    if not counted:
        return f"{words}: forgotten"
    return f"{words}: more than it counts" if rest > 0 else f"{words}: counted, but not there at the peak"


def _alive(estimate: Estimate, modules: Modules, category: str) -> Mapping[str, int]:
    """Bytes of a category at the peak, by the module that made them."""
    found: dict[str, int] = {}
    for h in estimate.holdings:
        if h.category == category:
            path = modules.module_of(h.layer)
            found[path] = found.get(path, 0) + h.nbytes
    return found


def _outputs(counted: Mapping[str, int], alive: Mapping[str, int]) -> Iterable[Item]:
    """Outputs that a tool counts, beside what the same modules hold when the peak is reached."""
    gone = sum(max(0, n - alive.get(path, 0)) for path, n in counted.items())
    more = sum(max(0, alive.get(path, 0) - n) for path, n in counted.items())
    others = sum(n for path, n in alive.items() if path not in counted)
    yield Item(nbytes=-gone, what="outputs that nothing keeps for backward, or that are gone at the peak")
    yield Item(nbytes=more, what="what these modules keep besides their outputs (statistics, masks, indices)")
    yield Item(nbytes=others, what="kept for backward by functions and modules it does not look at: forgotten")
