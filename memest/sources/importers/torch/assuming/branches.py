"""Whether a branch on a value is a check: one of its ways raises. A network that runs takes the other.

The line of code says so: ``if bad.any(): raise …``, ``assert good.all()``, ``if bad: torch._assert(False, …)``, with ``not``, ``and`` and
``or``.
"""

from __future__ import annotations

import ast
import linecache
from functools import lru_cache
from types import FrameType


def way_that_runs(frame: FrameType) -> bool | None:
    """What a truth asked for in this line of code has to be so that nothing is raised; None where the line is no check."""
    line = frame.f_lineno
    for node in _tests(frame.f_code.co_filename):
        if not node.test.lineno <= line <= (node.test.end_lineno or node.test.lineno):
            continue
        if isinstance(node, ast.Assert):
            wanted: bool | None = True
        else:
            wanted = False if _raises(node.body) else True if _raises(node.orelse) else None
        signs = set(_signs(node.test, True))
        return None if wanted is None or len(signs) != 1 else wanted == signs.pop()
    return None


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
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found = [n for n in ast.walk(tree) if isinstance(n, ast.If | ast.Assert)]
    return tuple(reversed(found))


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


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False
