"""Expressions of sizes as one Python function, in which shared parts are computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from memest.sizes.dims import Expr, Opaque


def compile_sizes(sizes: Sequence[Any], symbols: Sequence[str], *, arrays: bool = False) -> Callable[..., tuple[Any, ...]]:
    """One Python function of the symbols (ints, or ``arrays``) that gives all sizes (nested tuples of them, too).
    Shared subexpressions are computed once."""
    writer = _Writer(symbols)
    result = "".join(f"{writer.term(s)}, " for s in sizes)
    source = "\n".join([f"def compute({', '.join(writer.arguments.values())}):", *writer.lines, f"  return ({result})"])
    namespace: dict[str, Any] = writer.functions
    if arrays:
        import numpy as np

        namespace.update(max=np.maximum, min=np.minimum)
    exec(compile(source, "<program>", "exec"), namespace)
    compute: Callable[..., tuple[Any, ...]] = namespace["compute"]
    return compute


class _Writer:
    """Turns expressions into assignments to temporaries, each distinct one once."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.arguments = {name: f"s{i}" for i, name in enumerate(symbols)}
        self.lines: list[str] = []
        self.functions: dict[str, Any] = {}
        self._names: dict[Expr, str] = {}

    def term(self, e: Any) -> str:
        if isinstance(e, tuple):
            return f"({''.join(f'{self.term(a)}, ' for a in e)})"
        if not isinstance(e, Expr):
            return repr(int(e))
        if e.op == "symbol":
            return self.arguments[str(e.args[0])]
        known = self._names.get(e)
        if known is not None:
            return known
        body = self._body(e)
        name = f"t{len(self._names)}"
        self._names[e] = name
        self.lines.append(f"  {name} = {body}")
        return name

    def _body(self, e: Expr) -> str:
        args = [self.term(a) for a in e.args]
        if isinstance(e, Opaque):
            name = f"f{len(self.functions)}"
            self.functions[name] = e.function
            return f"{name}({', '.join(args)})"
        if e.op in ("max", "min"):
            return f"{e.op}({', '.join(args)})"
        return f"{args[0]} {e.op} {args[1]}"
