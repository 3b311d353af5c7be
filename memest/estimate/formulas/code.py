"""A formula as a function in Python (standard library only) or JavaScript (BigInt, so exact whatever the sizes).

What a library's kernel holds has no formula, so the generated function carries a table of it for the asked sizes; where kernels could
decide, other sizes are refused. It never guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memest.estimate.formulas.listing import Listing, Notation, listing

if TYPE_CHECKING:
    from memest.estimate.formulas.form import Form

_OWN = re.compile(r"t_\d+|w|peak|max|min|KERNELS|ValueError|table|div|mod|most|least|kernel|BigInt|RangeError")
_WORDS = re.compile(
    r"abstract|arguments|await|break|case|catch|class|const|continue|debugger|default|delete|do|else|enum|eval|export|extends|"
    r"false|finally|for|function|if|implements|import|in|instanceof|interface|let|new|null|package|private|protected|public|"
    r"return|static|super|switch|this|throw|true|try|typeof|undefined|var|void|while|with|yield"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A notation and the function around it: ``body(sizes, remarks, listing)``."""

    notation: Notation
    body: Callable[[Sequence[str], Sequence[str], Listing], list[str]]


def source(formula: Form, language: Language, sizes: Sequence[Mapping[str, int]]) -> str:
    """The function's source; see :func:`memest.estimate.formulas.listing.listing` for ``sizes`` and errors."""
    found = listing(formula, language.notation, sizes)
    where = f"where {', '.join(formula.conditions)}" if formula.conditions else "everywhere"
    remarks = [
        f"{formula.title}.",
        f"Bytes {'asked for at most, before an allocator rounds them,' if formula.estimate.replays else 'at the peak,'} exact {where}.",
    ]
    if not found.everywhere:
        remarks.append("What a library's kernel holds is known at the sizes in KERNELS alone; a kernel left out there cannot be the peak.")
    names = [language.notation.size(s) for s in formula.program.symbols]
    return "\n".join(language.body(names, remarks, found)) + "\n"


def _size(name: str) -> str:
    """A size's name as an argument; one that the function uses itself, or JavaScript reserves, gets an underscore."""
    return f"{name}_" if _OWN.fullmatch(name) or _WORDS.fullmatch(name) else name


def _python(names: Sequence[str], remarks: Sequence[str], found: Listing) -> list[str]:
    key = f"({', '.join(names)}{',' if len(names) == 1 else ''})"
    lines = [] if found.everywhere else ["KERNELS = {", *(f"    {k}: {dict(v)}," for k, v in found.kernels.items()), "}", "", ""]
    lines += [f"def peak({', '.join(names)}):", f'    """{_quoted(remarks[0])}', "", *(f"    {_quoted(r)}" for r in remarks[1:]), '    """']
    if not found.everywhere:
        lines += [f"    if {key} not in KERNELS:", "        raise ValueError('not one of the sizes this was written for')"]
        lines += [f"    w = KERNELS[{key}]"]
    lines += [f"    {name} = {text}" for name, text in found.values]
    for left, op, right in found.conditions:
        lines += [f"    if not {left} {op} {right}:", "        raise ValueError('another formula holds at these sizes')"]
    return [*lines, *_largest(found, "    return {} + max((", "        {},  # {}", "    ), default=0)")]


def _quoted(text: str) -> str:
    """Text that neither ends a docstring nor is read as an escape in it."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _javascript(names: Sequence[str], remarks: Sequence[str], found: Listing) -> list[str]:
    lines = [f"// {r}" for r in remarks]
    if not found.everywhere:
        lines += ["const KERNELS = {"]
        for key, values in found.kernels.items():
            lines.append(f'  "{",".join(map(str, key))}": {{{", ".join(f"{k}: {n}n" for k, n in values.items())}}},')
        lines += ["};", ""]
    lines += [f"function peak({', '.join(names)}) {{"]
    lines += [f"  [{', '.join(names)}] = [{', '.join(names)}].map(BigInt);"] if names else []
    lines += [
        "  const div = (a, b) => a / b - (a % b !== 0n && a < 0n !== b < 0n ? 1n : 0n);",
        "  const mod = (a, b) => a - b * div(a, b);",
    ]
    lines += [
        "  const most = (...all) => all.reduce((a, b) => (a > b ? a : b), all[0] ?? 0n);",
        "  const least = (a, b) => (a < b ? a : b);",
    ]
    if not found.everywhere:
        lines += [f"  const table = KERNELS[[{', '.join(names)}].join()];"]
        lines += ['  if (table === undefined) throw new RangeError("not one of the sizes this was written for");']
        lines += ["  const w = (kernel) => table[kernel] ?? 0n;"]
    lines += [f"  const {name} = {text};" for name, text in found.values]
    for left, op, right in found.conditions:
        same = {"==": "===", "!=": "!=="}.get(op, op)
        lines.append(f'  if (!({left} {same} {right})) throw new RangeError("another formula holds at these sizes");')
    return [*lines, *_largest(found, "  return {} + most(", "    {}, // {}", "  );"), "}"]


def _largest(found: Listing, head: str, line: str, tail: str) -> list[str]:
    """The last statement: resident bytes, and the largest of the moments, one a line."""
    rows = [line.format(m.text, " ".join(part for part in (m.phase, m.layer, m.op) if part)) for m in found.moments]
    return [head.format(found.resident), *rows, tail]


PYTHON = Language(
    notation=Notation(
        number=str,
        size=_size,
        value=lambda i: f"t_{i}",
        kernel=lambda i: f"w.get({i}, 0)",
        operators={
            "+": "{0} + {1}",
            "-": "{0} - {1}",
            "*": "{0}*{1}",
            "//": "{0} // {1}",
            "%": "{0} % {1}",
            "max": "max({0}, {1})",
            "min": "min({0}, {1})",
        },
        encloses=("max", "min"),
    ),
    body=_python,
)
JAVASCRIPT = Language(
    notation=Notation(
        number=lambda n: f"{n}n",
        size=_size,
        value=lambda i: f"t_{i}",
        kernel=lambda i: f"w({i})",
        operators={
            "+": "{0} + {1}",
            "-": "{0} - {1}",
            "*": "{0} * {1}",
            "//": "div({0}, {1})",
            "%": "mod({0}, {1})",
            "max": "most({0}, {1})",
            "min": "least({0}, {1})",
        },
        encloses=("//", "%", "max", "min"),
    ),
    body=_javascript,
)
