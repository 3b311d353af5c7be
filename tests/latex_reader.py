"""A reader of the LaTeX that memest writes: the aligned block of every moment, evaluated at sizes. Anything else is an error."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"\\left\\lfloor|\\right\\rfloor|\\left\\\{|\\right\\\}|\\left\(|\\right\)|\\frac|\\cdot|\\bmod|\\max|\\min"
    r"|[xw]_\{\d+\}|\\mathit\{[^}]*\}|\d+|[A-Za-z]|[{}()+\-,]"
)


def evaluated(latex: str, sizes: dict[str, int]) -> int:
    """The peak that the block gives at these sizes; a kernel that it does not list there counts 0."""
    body = latex.replace("{,}", "").removeprefix("\\begin{aligned}\n").removesuffix("\n\\end{aligned}\n")
    head, marker, moments = body.partition("\\max\\left\\{\\begin{array}{ll}\n")
    *definitions, last = head.split(" \\\\\n")
    names: dict[str, int] = {}
    at = "(" + ", ".join(map(str, sizes.values())) + ")"
    spelled = {n if len(n) == 1 else rf"\mathit{{{n}}}".replace("_", r"\_"): value for n, value in sizes.items()}
    for line in definitions:
        name, text = line.split(" &= ")
        if name.startswith("w_"):
            kernel, _, key = name.partition("(")
            if "(" + key == at:
                names[kernel] = int(text)
        else:
            names[name] = _Reader(text, {**spelled, **names}).whole()
    known = {**spelled, **names}
    resident = last.removeprefix("\\text{peak bytes} &= ").removesuffix(" + ")
    total = _Reader(resident, known).whole()
    if not marker:
        return total
    rows = moments.removesuffix("\n\\end{array}\\right\\}").split(" \\\\\n")
    return total + max(_Reader(row.split(" & ")[0], known).whole() for row in rows)


class _Reader:
    """Recursive descent over sums, products, floors of fractions, remainders, maxima and minima."""

    def __init__(self, text: str, names: dict[str, int]) -> None:
        self.tokens = _TOKEN.findall(text)
        assert "".join(self.tokens) == text.replace(" ", ""), text
        self.names = names

    def whole(self) -> int:
        value = self.sum()
        assert not self.tokens, self.tokens
        return value

    def take(self, *expected: str) -> str:
        token = self.tokens.pop(0)
        assert not expected or token in expected, (token, expected)
        return token

    def next(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def sum(self) -> int:
        value = -self.product() if self.next() == "-" and self.take() else self.product()
        while self.next() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self) -> int:
        value = self.factor()
        while self.next() in ("\\cdot", "\\bmod"):
            value = value * self.factor() if self.take() == "\\cdot" else value % self.factor()
        return value

    def factor(self) -> int:
        token = self.take()
        if token.isdigit():
            return int(token)
        if token in ("(", "\\left("):
            return self.closed(")", "\\right)")
        if token == "\\left\\lfloor":
            self.take("\\frac")
            self.take("{")
            above = self.closed("}")
            self.take("{")
            below = self.closed("}")
            self.take("\\right\\rfloor")
            return above // below
        if token in ("\\max", "\\min"):
            self.take("\\left\\{")
            first = self.closed(",")
            second = self.closed("\\right\\}")
            return max(first, second) if token == "\\max" else min(first, second)
        return self.names[token] if not token.startswith("w_") else self.names.get(token, 0)

    def closed(self, *ends: str) -> int:
        value = self.sum()
        self.take(*ends)
        return value
