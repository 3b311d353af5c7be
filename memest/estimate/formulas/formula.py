"""The closed form of an estimate, and its ways onto paper: text, LaTeX, Python, JavaScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memest.estimate.formulas.form import Form

Sizes = Mapping[str, int]


@dataclass(frozen=True, kw_only=True, repr=False)
class Formula(Form):
    """The peak and its parts as functions of the sizes, around those of ``estimate``, and their writers."""

    def text(self, *, all: bool = False) -> str:
        """For people: the regime, what it is made of and where it holds; every moment with ``all``."""
        from memest.estimate.formulas.text import written

        return written(self, all)

    def latex(self, *, all: bool = False, sizes: Sequence[Sizes] = ()) -> str:
        """The regime typeset, or every moment with ``all``; kernels are then named, and their values listed at ``sizes``."""
        from memest.estimate.formulas.latex import every_moment, short

        return every_moment(self, sizes) if all else short(self)

    def python(self, *, sizes: Sequence[Sizes] = ()) -> str:
        """The source of ``peak(sizes…)`` in Python. What kernels hold is embedded for ``sizes`` (the estimate's when none are given);
        where kernels could decide, other sizes raise a ValueError."""
        from memest.estimate.formulas.code import PYTHON, source

        return source(self, PYTHON, sizes)

    def javascript(self, *, sizes: Sequence[Sizes] = ()) -> str:
        """The source of ``peak(sizes…)`` in JavaScript, in BigInt; see :meth:`python`."""
        from memest.estimate.formulas.code import JAVASCRIPT, source

        return source(self, JAVASCRIPT, sizes)
