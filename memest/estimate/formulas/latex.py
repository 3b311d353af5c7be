"""A formula in LaTeX: the regime on a few lines, or every moment with its floors and kernels named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from memest.estimate.formulas.listing import Notation, listing
from memest.estimate.formulas.notation import HUMAN, Script, signed_sum

if TYPE_CHECKING:
    from memest.estimate.formulas.form import Form

_RELATIONS = {"==": "=", "!=": r"\neq", "<": "<", "<=": r"\leq", ">": ">", ">=": r"\geq"}


def _number(n: int) -> str:
    return HUMAN.number(n).replace(",", "{,}")


_SPECIAL = str.maketrans(
    {**{c: f"\\{c}" for c in "#$%&_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def _size(name: str) -> str:
    return name if len(name) == 1 else rf"\mathit{{{name.replace('_', chr(92) + '_')}}}"


SCRIPT = Script(number=_number, size=_size, times=r"\, ", power="{}^{{{}}}")
NOTATION = Notation(
    number=_number,
    size=_size,
    value=lambda i: f"x_{{{i}}}",
    kernel=lambda i: f"w_{{{i}}}",
    operators={
        "+": "{0} + {1}",
        "-": "{0} - {1}",
        "*": r"{0} \cdot {1}",
        "//": r"\left\lfloor \frac{{{0}}}{{{1}}} \right\rfloor",
        "%": r"\left( {0} \bmod {1} \right)",
        "max": r"\max\left\{{ {0}, {1} \right\}}",
        "min": r"\min\left\{{ {0}, {1} \right\}}",
    },
    encloses=("//", "max", "min"),
)


def every_moment(formula: Form, sizes: Sequence[Mapping[str, int]]) -> str:
    """The piece as one aligned block: named values, kernels at the asked sizes, the peak as a maximum. A kernel that is not listed at
    some sizes stays below the peak there whatever it holds; count it 0."""
    found = listing(formula, NOTATION, sizes)
    lines = [rf"{name} &= {text}" for name, text in found.values]
    for key, values in found.kernels.items():
        at = ", ".join(map(_number, key))
        lines += [rf"w_{{{kernel}}}({at}) &= {_number(n)}" for kernel, n in values.items()]
    moments = [rf"{m.text} & \text{{{_words(m.phase, m.layer)}}}" for m in found.moments]
    rows = " \\\\\n".join(moments)
    largest = f" + \\max\\left\\{{\\begin{{array}}{{ll}}\n{rows}\n\\end{{array}}\\right\\}}" if moments else ""
    return _aligned([*lines, rf"\text{{{formula.figure} bytes}} &= {found.resident}{largest}"])


def short(formula: Form) -> str:
    """The regime: the peak, its parts, where it holds."""
    r, order = formula.regime, formula.program.symbols
    scratch = tuple(map(_size, formula.scratch))
    lines = [rf"\text{{{formula.figure} bytes}} &= {signed_sum(r.alive, order, SCRIPT, scratch)}"]
    lines += [rf"\text{{{_words(category)}}} &= {signed_sum(part, order, SCRIPT)}" for category, part in r.by_category.items()]
    lines += [rf"{name} &= {_number(r.scratchpad_bytes)}" for name in scratch]
    lines += [rf"&{_condition(text)}" for text in r.texts(order)]
    return _aligned(lines)


def _condition(text: str) -> str:
    """A comparison as :meth:`memest.estimate.formulas.regime.Regime.texts` writes it."""
    text = text.replace(",", "{,}").replace("·", r" \, ").replace(" % ", r" \bmod ")
    for op, relation in _RELATIONS.items():
        text = text.replace(f" {op} ", f" {relation} ")
    return text


def _words(*parts: str) -> str:
    """Words as they stand, whatever they hold: no command of LaTeX."""
    return " ".join(p for p in parts if p).translate(_SPECIAL)


def _aligned(lines: Sequence[str]) -> str:
    rows = " \\\\\n".join(lines)
    return f"\\begin{{aligned}}\n{rows}\n\\end{{aligned}}\n"
