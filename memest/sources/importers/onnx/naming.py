"""Names of layers: the path of the module that a node comes from, where the exporter says it, else what the operator is called."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

SCOPES = "pkg.torch.onnx.name_scopes"
_OTHERS = re.compile(r"[^\w.:/-]+", re.ASCII)
LONGEST = 200


def plain(name: str) -> str:
    """A name without what no file should have in one."""
    return _OTHERS.sub("_", name)[:LONGEST] or "value"


def home(node: Any) -> str:
    """The path of the module that a node stands in (empty: not known). Torch's default exporter lists the paths around a call, its older
    one and tf2onnx write ``/layer1/layer1.0/conv1/Conv``."""
    scopes = next((p.value for p in node.metadata_props if p.key == SCOPES), None)
    if scopes is not None:
        return _last_scope(scopes)
    parts: list[str] = []
    for part in [p for p in node.name.split("/") if p][:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return plain(".".join(parts)) if parts else ""


def _last_scope(text: str) -> str:
    """``layer1.conv`` of ``['', 'layer1', 'layer1.conv', 'conv2d']``."""
    try:
        found = ast.literal_eval(text) if len(text) < 10_000 else []
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    paths = [p for p in found[:-1] if isinstance(p, str) and p] if isinstance(found, list) else []
    return plain(paths[-1]) if paths else ""


class Names:
    """Gives each layer and parameter a name of its own. ``homes`` are the modules of all nodes: one with none inside is a leaf, and the
    layer that it makes first is called as it is."""

    def __init__(self, homes: Iterable[str]) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}
        self._within = {path.rpartition(".")[0] for path in homes} - {""}
        for path in list(self._within):
            while path := path.rpartition(".")[0]:
                self._within.add(path)

    def layer(self, home: str, op: str, end: str = "") -> str:
        """The name of a call of ``op`` in a module; one that has to ``end`` in something is a part of what the module does."""
        if end:
            return self.take(home or op, end)
        base = f"{home}.{op}" if home else op
        return self.take(home if home and home not in self._within and home not in self._taken else base)

    def take(self, name: str, end: str = "") -> str:
        """The name with its ``end``, or the next one like it that is free."""
        whole = f"{name}{end}"
        found, n = whole, self._last.get(whole, 1)
        while found in self._taken:
            n += 1
            found = f"{name}_{n}{end}"
        self._taken.add(found)
        self._last[whole] = n
        return found
