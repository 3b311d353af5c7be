"""A formula for people: labelled lines, in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from memest.estimate.formulas import shares
from memest.estimate.formulas.notation import HUMAN, Script, signed_sum
from memest.estimate.formulas.polynomial import Polynomial, total
from memest.estimate.formulas.regime import Watched
from memest.shown import visible
from memest.sizes.units import format_bytes

if TYPE_CHECKING:
    from memest.estimate.formulas.form import Form

MANY = 4  # long conditions and kernels shown before the rest is counted
LABEL = 16
ASKED = 4  # batches to either side, each twice or half the one before
ELSEWHERE = "kernels elsewhere hold no more than as chosen"
SHORT = 40  # characters of a condition that shares its line


def facts(formula: Form, every: bool = False) -> tuple[tuple[str, str], ...]:
    """(label, line) pairs: the peak, when it is, what it comes to, where it holds, and what else is the peak elsewhere. With ``every`` no
    condition is left out."""
    r = formula.regime
    found = [(formula.figure, f"{peak(formula)} bytes")]
    if r.scratchpad_bytes:
        found.append((formula.scratch[0], f"{r.scratchpad_bytes:,} bytes of scratch at these sizes"))
    if r.instant is not None:
        found.append(("during", f"{r.instant.phase} of {r.instant.layer} ({r.instant.op})"))
    total_bytes = formula.estimate.requested_bytes
    found.append(("at", f"{here(formula)}: {total_bytes:,} bytes ({format_bytes(total_bytes)})"))
    found += _by_replay(formula)
    found += [
        ("where" if i == 0 else "and", line)
        for i, line in enumerate(_where(formula, len(formula.conditions) + formula.regime.rivals if every else MANY))
    ]
    if r.rivals:
        found.append(("elsewhere", f"the largest of {r.rivals + 1} moments (--all)"))
    return tuple(found)


def _by_replay(formula: Form) -> Iterator[tuple[str, str]]:
    """What the allocator makes of it at these sizes, where one is played."""
    if not formula.estimate.replays:
        return
    figures = formula.estimate.figures
    for name, figure in (("allocated", figures.allocated), ("reserved", figures.reserved), ("process", figures.process)):
        assert figure.bytes is not None
        assert figure.low is not None
        assert figure.high is not None
        spread = "" if figure.claim == "exact" else f", modelled: {format_bytes(figure.low)} to {format_bytes(figure.high)}"
        yield name, f"{figure.bytes:,} bytes ({format_bytes(figure.bytes)}) there, by replay{spread}"


def promise(formula: Form) -> str:
    """What the formula is, in a sentence."""
    if not formula.estimate.replays:
        return "exact: where the conditions hold the formula is the estimate, to the byte"
    sure = "to the byte" if formula.estimate.figures.allocated.claim == "exact" else "as exact as cuDNN's workspaces are known"
    return (
        f"requested: where the conditions hold the formula is the most that is asked for at once, {sure}; the allocator rounds it into "
        "blocks, so allocated, reserved and process are by replay, at these sizes alone. What cuDNN takes is no formula but its answer for "
        "each convolution: asked of it where it is installed, else stored, else by rule"
    )


def peak(formula: Form, script: Script = HUMAN) -> str:
    """The peak of the regime; ``w`` stands for scratchpads."""
    r = formula.regime
    return signed_sum(r.alive, formula.program.symbols, script, formula.scratch)


def _where(formula: Form, many: int) -> Iterator[str]:
    """The conditions: simple ones on a line, then at most ``many`` of each longer kind."""
    r, order = formula.regime, formula.program.symbols
    lines = r.texts(order)
    plain = [line for line in lines if len(line) <= SHORT]
    if plain:
        yield ", ".join(plain)
    yield from _some([line for line in lines if len(line) > SHORT], many, "comparisons")
    if r.own:
        yield _own(formula, r.own) if formula.estimate.replays else f"{_own(formula, r.own)} there, as at these sizes"
    if r.watched:
        layers = list(dict.fromkeys(w.instant.layer for w in r.watched))
        what = "cuDNN's workspaces elsewhere are no more than by the formula" if formula.estimate.replays else ELSEWHERE
        yield f"{what} here: {', '.join(_some(layers, many, 'layers'))}"
    confirmed = asked_at(formula)
    if confirmed:
        yield confirmed


def _some(items: Sequence[str], many: int, what: str) -> Iterator[str]:
    yield from items[:many]
    if len(items) > many:
        yield f"{len(items) - many} more {what} (--all)"


def _own(formula: Form, kernel: Watched) -> str:
    """What a library must choose at other sizes."""
    if not formula.estimate.replays:
        return chooses(kernel)
    took = kernel.inner.evaluate(formula.estimate.sizes)
    return f"cuDNN's workspace in {kernel.instant.layer} is by the same formula ({took:,} bytes here)"


def asked_at(formula: Form) -> str:
    """At which batches cuDNN was asked whether its workspaces are by these formulas, the other sizes as they are; '' where nothing is."""
    regime, sizes = formula.regime, formula.estimate.sizes
    if not (formula.estimate.replays and regime.kernels and sizes):
        return ""
    batch = next(iter(formula.program.symbols))
    same, otherwise = [sizes[batch]], list[int]()
    for factor in (0.5, 2):
        n = sizes[batch]
        for _ in range(ASKED):
            n = int(n * factor)
            there = {**sizes, batch: n}
            if n < 1 or not regime.domain.holds(there):
                break
            (same if regime.chooses(there) else otherwise).append(n)
            if otherwise and otherwise[-1] == n:
                break
    rest = ", ".join(f"{s} = {n:,}" for s, n in sizes.items() if s != batch)
    found = f"asked at {batch} = {', '.join(f'{n:,}' for n in sorted(same))}{f' ({rest})' if rest else ''} they are"
    return found + (f", at {' and '.join(f'{n:,}' for n in sorted(otherwise))} they are not" if otherwise else "") + "; elsewhere ask anew"


def chooses(kernel: Watched) -> str:
    """What the library chose, in words."""
    return f"oneDNN chooses {chosen(kernel)}" if kernel.inside.implementations else "the kernel is the same"


def chosen(kernel: Watched) -> str:
    """The implementations' names."""
    return " and ".join(kernel.inside.implementations) or "torch's own"


def here(formula: Form) -> str:
    """``N = 8, H = 224, W = 224``."""
    return ", ".join(f"{s} = {n:,}" for s, n in formula.estimate.sizes.items()) or "its only size"


def parts(formula: Form, script: Script = HUMAN) -> tuple[tuple[str, str, int], ...]:
    """(category, expression, bytes at these sizes) of what is alive at the peak, the largest first."""
    r = formula.regime
    by_category = dict(r.by_category)
    found = []
    for category in dict.fromkeys((*by_category, *(("workspace",) if r.scratchpad_bytes else ()))):
        p = by_category.get(category, Polynomial({}))
        scratch = r.scratchpad_bytes if category == "workspace" else 0
        text = signed_sum(p, formula.program.symbols, script, formula.scratch if scratch else ())
        found.append((category, text, int(p.evaluate(formula.estimate.sizes)) + scratch))
    return tuple(sorted((f for f in found if f[2]), key=lambda f: -f[2]))


def sums(formula: Form, script: Script = HUMAN) -> tuple[tuple[str, str, int], ...]:
    """(category, expression, bytes at these sizes) over the whole step."""
    sizes = formula.estimate.sizes
    found = [(c, formula.domain.polynomial(e)) for c, e in shares.totals(formula.program).items()]
    return tuple((c, signed_sum(p, formula.program.symbols, script), int(p.evaluate(sizes))) for c, p in found if p.terms)


def moments(formula: Form, script: Script = HUMAN) -> tuple[tuple[str, str, str, str, int], ...]:
    """(phase, layer, operator, expression, bytes at these sizes) of every moment that could be the peak. What a kernel holds is the last
    number, at these sizes."""
    program, sizes, place = formula.program, formula.estimate.sizes, formula.domain
    terms = [place.polynomial(t) for t in (*program.terms, 1, program.resident)]
    found = []
    for row, i in zip(program.coefficients, program.instants, strict=True):
        p = total(zip(terms, [*map(int, row), 1], strict=True))
        held = 0 if i.inner is None else i.inner.evaluate(sizes)
        text = signed_sum(p, program.symbols, script, () if i.inner is None else (script.number(held),))
        found.append((i.phase, i.layer, i.op, text, int(p.evaluate(sizes)) + held))
    return tuple(found)


def layers(formula: Form, script: Script = HUMAN) -> tuple[tuple[str, str, str, int, int], ...]:
    """(layer, kept activations, outputs, parameter bytes, gradient bytes)."""
    order, place = formula.program.symbols, formula.domain
    found = []
    for name, s in shares.shares(formula.estimate.played, formula.program).items():
        written = [signed_sum(place.polynomial(e), order, script) for e in (s.activation, s.output)]
        numbers = [int(place.polynomial(e).evaluate(formula.estimate.sizes)) for e in (s.parameter, s.gradient)]
        found.append((name, written[0], written[1], numbers[0], numbers[1]))
    return tuple(found)


def written(formula: Form, every: bool) -> str:
    """The whole text."""
    lines = [formula.title, "", *_columns([(f"  {label}", text) for label, text in facts(formula, every)])]
    for title, rows in (("alive at the peak", parts(formula)), ("over the step", sums(formula))):
        lines += ["", title, *_columns([(f"  {category}", text) for category, text, _ in rows])]
    if every:
        lines += ["", "moments"]
        lines += _columns([(f"  {' '.join(filter(None, (phase, layer)))}", text) for phase, layer, _, text, _ in moments(formula)])
        if formula.regime.watched:
            lines += ["", "kernels and the most they may hold where this holds"]
            lines += _columns(
                [(f"  {w.instant.phase} {w.instant.layer}", f"{held(formula, w)} ({chosen(w)})") for w in formula.regime.watched]
            )
    if formula.estimate.replays:
        lines += ["", promise(formula)]
    return "\n".join(visible(line).rstrip() for line in lines) + "\n"


def held(formula: Form, kernel: Watched, script: Script = HUMAN) -> str:
    """A kernel's bytes as chosen at these sizes."""
    return signed_sum(kernel.held, formula.program.symbols, script)


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(label) for label, _ in rows), default=0) + 2
    return [f"{label:<{max(width, LABEL + 2)}}{text}" for label, text in rows]
