"""What commands take, as plain data in the annotations of their functions, and the reading of a plain command line from it.

typer loads as long as an estimate takes. So it is asked only where it has something to say: help, completion, groups of commands, and
whatever is wrong. :func:`read` gives the very arguments that typer would, or None where it cannot be sure of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from memest.errors import UsageError

T = TypeVar("T")

Command = Callable[..., int | None]
REQUIRED: Any = ...
MAX_DIGITS = 18


class Word(NamedTuple):
    """One argument (no ``names``) or option of a command; the fields are those of typer's ``Argument`` and ``Option``."""

    names: tuple[str, ...]
    help: str
    metavar: str | None
    min: int | None
    callback: Callable[[Any], Any] | None
    autocompletion: Callable[[str], list[str]] | None
    is_eager: bool


def option(
    *names: str,
    help: str,
    metavar: str | None = None,
    min: int | None = None,
    callback: Callable[[Any], Any] | None = None,
    autocompletion: Callable[[str], list[str]] | None = None,
    is_eager: bool = False,
) -> Word:
    """An option by its names; ``--yes/--no`` names both of a bool. ``min`` is the least of a number, ``callback`` checks a value."""
    return Word(names, help, metavar, min, callback, autocompletion, is_eager)


def argument(*, help: str, metavar: str, autocompletion: Callable[[str], list[str]] | None = None) -> Word:
    """An argument, in the place of its parameter."""
    return Word((), help, metavar, None, None, autocompletion, False)


def taken(command: Command, **names: Any) -> dict[str, tuple[Any, Word]]:
    """The type and the word of each parameter that has one; ``names`` are known to the annotations besides the module's own."""
    known: dict[str, tuple[Any, Word]] | None = getattr(command, "words", None)
    if known is not None:
        return known
    hints = get_type_hints(command, localns=names, include_extras=True)
    return {name: (hint.__origin__, hint.__metadata__[0]) for name, hint in hints.items() if hasattr(hint, "__metadata__")}


def parameters(command: Command) -> tuple[str, ...]:
    """The names of a function's parameters."""
    return command.__code__.co_varnames[: command.__code__.co_argcount]


def defaults(command: Command) -> dict[str, Any]:
    """What stands for each parameter that is left out."""
    known: dict[str, Any] | None = getattr(command, "left_out", None)
    if known is not None:
        return known
    names, values = parameters(command), command.__defaults__ or ()
    return dict(zip(names[len(names) - len(values) :], values, strict=True))


class _Unsure(Exception):  # noqa: N818 - it ends the reading, it is no error
    """The words are not plain."""


def read(command: Command, words: Sequence[str]) -> dict[str, Any] | None:
    """The arguments that ``words`` give to ``command``; None where they are not plain. Raises what a word's callback raises."""
    known = taken(command)
    try:
        found = _sorted(known, words)
        values = {name: _value(*known[name], texts) for name, texts in found.items()}
    except _Unsure:
        return None
    for name, value in values.items():
        check = known[name][1].callback
        if check is not None:
            values[name] = check(value)
    given = {**defaults(command), **values}
    return given if given.keys() == known.keys() else None


def _sorted(known: Mapping[str, tuple[Any, Word]], words: Sequence[str]) -> dict[str, list[Any]]:
    """What stands for each parameter: texts, or the bool of a flag."""
    flags: dict[str, tuple[str, bool]] = {}
    options: dict[str, str] = {}
    places: list[str] = []
    for name, (kind, word) in known.items():
        if not word.names:
            places.append(name)
        for names in word.names:
            yes, _, no = names.partition("/")
            if kind is bool:
                flags.update({yes: (name, True), no: (name, False)} if no else {yes: (name, True)})
            else:
                options[yes] = name
    found: dict[str, list[Any]] = {}
    left = list(reversed(words))
    while left:
        said = left.pop()
        head, equals, tail = said.partition("=") if said.startswith("--") else (said, "", "")
        if head in options and (equals or left):
            found.setdefault(options[head], []).append(_plain(tail if equals else left.pop()))
        elif said in flags:
            name, value = flags[said]
            found.setdefault(name, []).append(value)
        elif places:
            found[places.pop(0)] = [_plain(said)]
        else:
            raise _Unsure
    return found


def _plain(text: str) -> str:
    if not text or not text.isprintable() or (text.startswith("-") and text != "-"):
        raise _Unsure
    return text


def _value(kind: Any, word: Word, texts: Sequence[Any]) -> Any:
    """``texts`` as what the parameter is; only a list takes several."""
    inner = _without_none(kind)
    if get_origin(inner) is list:
        return [_one(get_args(inner)[0], word, text) for text in texts]
    if len(texts) > 1:
        raise _Unsure
    return _one(inner, word, texts[0])


def _without_none(kind: Any) -> Any:
    kinds = [k for k in get_args(kind) if k is not type(None)]
    return kinds[0] if len(kinds) == 1 and get_origin(kind) is not list else kind


def _one(kind: Any, word: Word, text: Any) -> Any:
    if kind is bool or kind is str:
        return text
    if kind is Path:
        return Path(text)
    if kind is int and text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and int(text) >= (word.min or 0):
        return int(text)
    if isinstance(kind, type) and issubclass(kind, Enum) and text in (member.value for member in kind):
        return kind(text)
    raise _Unsure


def said(name: str, text: str, check: Callable[[str], T]) -> T:
    """What ``text`` says; UsageError names the option."""
    try:
        return check(text)
    except ValueError as e:
        raise UsageError(f"{name}: {e}, got {text[:60]!r}") from None


def in_options(message: str, names: Collection[str]) -> str:
    """A message of the library about settings ``names`` as the command line says it: ``--malloc glibc`` for ``malloc='glibc'``, and
    ``unknown --malloc 'glbc'`` for ``unknown malloc 'glbc'``."""

    def option_of(found: re.Match[str]) -> str:
        before, name, after = found["before"] or "", found["name"], found["value"]
        return f"{before}--{name.replace('_', '-')} {after or ''}" if name in names else found[0]

    given = re.sub(r"(?P<before>)\b(?P<name>[a-z]\w*)='(?P<value>[^']*)'", option_of, message)
    return re.sub(r"^(?P<before>unknown )?(?P<name>[a-z]\w*)(?P<value>) (?=')", option_of, given)
