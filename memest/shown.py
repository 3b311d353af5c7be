"""How results show themselves: a line where Python prints them, and in a notebook a table (:mod:`memest.render.html`)."""

from __future__ import annotations

from importlib import import_module

from memest.names import middle

LONGEST = 40


def short(text: str) -> str:
    """``text`` in at most ``LONGEST`` characters, shortened in the middle, quoted."""
    return repr(middle(text, LONGEST))


def counted(n: int, thing: str) -> str:
    """``1 layer``, ``1,024 layers``."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


class Shown:
    """What a notebook shows as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        html: str = import_module("memest.render.html").shown(self)
        return html
