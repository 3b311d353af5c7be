"""Whether a branch on a value is a check: one of its ways raises. A network that runs takes the other; so it is with one that only warns,
where both come to the same.

The line of code says so: ``if bad.any(): raise …``, ``assert good.all()``, ``if bad: torch._assert(False, …)``, ``if odd:
warnings.warn(…)``, with ``not``, ``and`` and ``or``.
"""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Iterator
from functools import lru_cache
from types import FrameType
from typing import Any

from memest.shown import middle, visible

_ASKING = frozenset({"getattr", "hasattr", "isinstance", "type"})
_SAYING = frozenset({"print", "warn", "warning", "warning_once", "warning_advice", "info", "debug", "error", "rank_zero_warn"})


def way_that_runs(frame: FrameType) -> bool | None:
    """What a truth asked for in this line of code has to be so that nothing is raised; None where the line is no check."""
    line = frame.f_lineno
    for node in _tests(frame.f_code.co_filename):
        if not node.test.lineno <= line <= (node.test.end_lineno or node.test.lineno):
            continue
        if isinstance(node, ast.Assert):
            wanted: bool | None = True
        else:
            wanted = False if _raises(node.body) or _only_warns(node) else True if _raises(node.orelse) else None
        signs = set(_signs(node.test, True))
        return None if wanted is None or len(signs) != 1 else wanted == signs.pop()
    return None


def code_of(frame: FrameType) -> str:
    """The line of code that runs, shortened."""
    return middle(visible(" ".join(linecache.getline(frame.f_code.co_filename, frame.f_lineno).split())), 100)


def is_loop(frame: FrameType) -> bool:
    """Whether the line of code is the condition of a ``while``."""
    return any(_holds(loop.test, frame) for loop in _loops(frame.f_code.co_filename))


def is_inside_while(frame: FrameType) -> bool:
    """Whether the line of code stands in a ``while``."""
    return any(_holds(loop, frame) for loop in _loops(frame.f_code.co_filename))


def _holds(node: ast.expr | ast.stmt, frame: FrameType) -> bool:
    return node.lineno <= frame.f_lineno <= (node.end_lineno or node.lineno)


def _nodes(file: str) -> Iterator[ast.AST]:
    """All of a file's code; nothing where it cannot be read."""
    try:
        yield from ast.walk(ast.parse("".join(linecache.getlines(file))))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return


@lru_cache(maxsize=64)
def _loops(file: str) -> tuple[ast.While, ...]:
    return tuple(n for n in _nodes(file) if isinstance(n, ast.While))


def turns_around(frame: FrameType) -> bool:
    """Whether the line of code goes by the contrary of something: what is stated for it is that something."""
    return re.search(r"\bnot\b", linecache.getline(frame.f_code.co_filename, frame.f_lineno)) is not None


def picks_one(frame: FrameType) -> bool:
    """Whether all that a line compares is what ``max`` or ``min`` does: it gives one of its arguments."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    try:
        (statement,) = ast.parse(line).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    found = list(ast.walk(statement))
    if any(isinstance(n, ast.Compare | ast.BoolOp | ast.IfExp | ast.If | ast.While | ast.Assert) for n in found):
        return False
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in ("max", "min") for n in found)


@lru_cache(maxsize=64)
def _tests(file: str) -> tuple[ast.If | ast.Assert, ...]:
    """The checks of a file, the innermost of a line first."""
    return tuple(reversed([n for n in _nodes(file) if isinstance(n, ast.If | ast.Assert)]))


def _signs(test: ast.expr, sign: bool) -> list[bool]:
    """For each truth that a test asks for, whether it stands there as it is or turned round."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _signs(test.operand, not sign)
    if isinstance(test, ast.BoolOp):
        return [s for value in test.values for s in _signs(value, sign)]
    return [sign]


def _raises(body: list[ast.stmt]) -> bool:
    """Whether this way ends by an exception."""
    last = body[-1] if body else None
    if isinstance(last, ast.Assert):
        return _is_false(last.test)
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        called = last.value.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        return name == "_assert" and bool(last.value.args) and _is_false(last.value.args[0])
    return isinstance(last, ast.Raise)


def _only_warns(node: ast.If) -> bool:
    """Whether both ways of a test come to the same, but for a text."""
    return not node.orelse and all(map(_only_says, node.body))


def _only_says(node: ast.stmt) -> bool:
    """Whether a statement does nothing but compose a text and print, log or warn."""
    if isinstance(node, ast.If):
        return not node.orelse and not _calls(node.test) and all(map(_only_says, node.body))
    if isinstance(node, ast.Assign | ast.AugAssign):
        return _is_text(node.value) or (isinstance(node.value, ast.Call) and not _calls(node.value))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        return name in _SAYING and not any(map(_calls, node.value.args))
    return isinstance(node, ast.Pass) or _is_text(getattr(node, "value", None))


def _calls(value: ast.AST) -> bool:
    """Whether it calls what may compute."""
    return any(isinstance(n, ast.Call) and getattr(n.func, "id", "") not in _ASKING for n in ast.walk(value))


def _is_text(value: Any) -> bool:
    """A text as it stands, or one with names in it."""
    if isinstance(value, ast.BinOp):
        return _is_text(value.left) and _is_text(value.right)
    if isinstance(value, ast.JoinedStr):
        return not _calls(value)
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False
