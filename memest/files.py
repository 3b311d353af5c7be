"""From a text to plain data and back to places in the text: YAML and JSON within bounds, no tags, no key twice.

Everything that could grow is measured before anything is built: nesting, values, what aliases expand to. Bounds, and the words that name
them, are ours: a parser that gives up earlier with words of its own does not hide them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from memest.errors import FileError

MAX_BYTES = 16 * 1024 * 1024
MAX_NESTING = 40
MAX_VALUES = 2_000_000
Path = Sequence[str | int]
_OUTSIDE_TEXTS = re.compile(r"""[\[{\]}]|(?<![^\s\[{,:'])["']|(?<!\S)#[^\n]*""")
_CLOSING = {'"': re.compile(r'(?<!\\)(?:\\\\)*"'), "'": re.compile("'")}
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Refused(yaml.MarkedYAMLError):
    """What YAML allows and a file of ours does not, in our words."""


class _Loader(_BASE):  # type: ignore[misc]
    """Plain data only; a key that stands twice is refused."""


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _refused("a key is a plain text", key)
        if key.value in seen:
            raise _refused(f"the key {key.value!r} stands twice", key)
        seen.add(key.value)
    result: dict[Any, Any] = yaml.SafeLoader.construct_mapping(loader, node, deep=True)
    return result


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.yaml_implicit_resolvers = {  # dates stay texts, ``<<`` a plain key
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge"))]
    for first, resolvers in _BASE.yaml_implicit_resolvers.items()
}


def decode(raw: bytes | str, source: str) -> str:
    """``raw`` as text; FileError when it is too long or not UTF-8."""
    if len(raw) > MAX_BYTES:
        raise FileError(f"{source}: more than {MAX_BYTES:,} bytes; write repeated parts as blocks")
    if isinstance(raw, str):
        return raw
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise FileError(f"{source}: line {line}: not UTF-8 (byte {e.start})") from None


def parse(text: str, form: str, source: str) -> Any:
    """The plain data in a YAML or JSON text; FileError with line and column where it is neither, or beyond bounds."""
    return _json(text, source) if form == "json" else _yaml(text, source)


def _yaml(text: str, source: str) -> Any:
    try:
        _measure(text)
        return yaml.load(text, Loader=_Loader)
    except _Refused as e:
        raise FileError(f"{source}: {_place(e.problem_mark)}{e.problem}") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as e:
        _refuse_deep_brackets(text, source)  # the parser looks ahead of its events, and may have met a bound of its own there
        mark = getattr(e, "problem_mark", None) or getattr(e, "context_mark", None)
        said = getattr(e, "problem", None) or getattr(e, "context", None) or e
        raise FileError(f"{source}: {_place(mark)}not YAML: {_one_line(said)}") from None


def _place(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())[:200]


def _refuse_deep_brackets(text: str, source: str) -> None:
    """FileError where brackets, outside quotes and comments, stand deeper than MAX_NESTING: all nesting of JSON, and of YAML what is
    written in one line."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return
    depth = position = 0
    while found := _OUTSIDE_TEXTS.search(text, position):
        token, start, position = found.group(), found.start(), found.end()
        if token in _CLOSING:
            end = _CLOSING[token].search(text, position)
            position = len(text) if end is None else end.end()
        elif token in ("]", "}"):
            depth = max(depth - 1, 0)
        elif token in ("[", "{"):
            depth += 1
            if depth > MAX_NESTING:
                line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
                raise FileError(f"{source}: line {line}, column {column}: nested deeper than {MAX_NESTING}")


def _measure(text: str) -> None:
    """Walk the parser's events once, counting an alias as all it stands for."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_BASE):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _refused(f"the alias *{event.anchor} stands inside what it names, or names nothing", event)
            total += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            total += 1
            _refuse_tag(event)
            if isinstance(event, yaml.ScalarEvent) and event.anchor is not None:
                sizes[event.anchor] = 1
        if total > MAX_VALUES:
            raise _refused(f"more than {MAX_VALUES:,} values, aliases expanded", event)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(open_) == MAX_NESTING:
                raise _refused(f"nested deeper than {MAX_NESTING}", event)
            open_.append((event.anchor, total))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = total - before + 1


def _refuse_tag(event: Any) -> None:
    if event.tag is not None and event.tag != "!":
        raise _refused(f"tags are not allowed ({event.tag})", event)


def _refused(problem: str, where: Any) -> _Refused:
    return _Refused(problem=problem, problem_mark=where.start_mark)


def _json(text: str, source: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                raise FileError(f"{source}: the key {key!r} stands twice")
            found[key] = value
        return found

    _refuse_deep_brackets(text, source)
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as e:
        raise FileError(f"{source}: line {e.lineno}, column {e.colno}: not JSON: {e.msg}") from None
    except ValueError as e:
        raise FileError(f"{source}: not JSON: {_one_line(e)}") from None


def line_of(text: str, path: Path) -> int | None:
    """The line (from 1) of what stands at ``path`` (keys and numbers), or of the nearest thing around it; None when nobody can tell.

    JSON is read as the YAML it nearly is."""
    try:
        _measure(text)
        node = yaml.compose(text, Loader=_BASE)
    except (yaml.YAMLError, ValueError):
        return None
    line = None
    for found in _along(node, path):
        line = found.start_mark.line + 1
    return line


def _along(node: Any, path: Path) -> Iterator[Any]:
    """The nodes on the way down ``path``: of a mapping's entry the key, so that the line is where the entry begins."""
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if found is None:
                return
            yield found[0]
            node = found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            yield node
        else:
            return
