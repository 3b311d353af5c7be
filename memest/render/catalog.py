"""What memest knows, as reports: the table of operators, one operator in full, the built-in models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.levers.table import LEVERS, lever_named
from memest.network.tensor import numel
from memest.ops.composite import Composite
from memest.ops.modules import MODULES
from memest.ops.operator import REQUIRED, Attribute, Operator
from memest.ops.table import FAMILIES, family_name, operator_named
from memest.planning.progress import tell
from memest.render.report import Kind, Report, Table
from memest.render.reports import listing_report
from memest.runtimes.table import RUNTIMES, runtime_named

OPERATOR_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("operator", "name"),
    ("family", "word"),
    ("tensors", "text"),
    ("attributes", "text"),
    ("torch.nn keywords", "text"),
)
ATTRIBUTE_COLUMNS: tuple[tuple[str, Kind], ...] = (("attribute", "word"), ("default", "text"), ("expected", "text"))
MODEL_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("model", "name"),
    ("description", "text"),
    ("parameters", "count"),
    ("usual input", "shapes"),
    ("options", "text"),
)

LEVER_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("lever", "name"),
    ("what it does", "text"),
    ("price", "text"),
    ("options", "text"),
    ("modes", "text"),
)
OPTION_COLUMNS: tuple[tuple[str, Kind], ...] = (("option", "word"), ("default", "text"), ("meaning", "text"))
OPERATOR_DROPS = ("torch.nn keywords", "family", "attributes")
MODEL_DROPS = ("description", "usual input")
LEVER_DROPS = ("modes", "options", "price")
OPERATOR_NOTE = "a trailing ? marks an optional tensor, * a list of them"
HOW = {"own": "a row of its own", "same": "as written here", "plain": "outputs alone", None: "not modelled"}
OPTIONS_NOTE = "give options as name:option=value,option=value"


def operators_report() -> Report:
    """Every operator, family by family."""
    rows = [_operator_row(row, family) for row, family in _rows()]
    return listing_report(f"{len(rows)} operators", OPERATOR_COLUMNS, rows, (OPERATOR_NOTE,), OPERATOR_DROPS)


def operator_report(name: str) -> Report:
    """One operator in full; UnknownNameError when there is none of that name."""
    row = operator_named(name)
    family = next(f for r, f in _rows() if r.name == name)
    attributes = [_attribute(a) for a in row.attributes]
    keywords = [_attribute(a) for a in MODULES[name].options] if name in MODULES else []
    facts = (
        ("tensors", ", ".join(row.roles)),
        ("kept for backward", _saved(row)),
        ("facts", row.facts.text),
        ("torch", row.torch or "none"),
        ("runtimes", "; ".join(f"{runtime}: {HOW[how]}" for runtime, how in _runtimes(name).items())),
        ("source", row.source),
    )
    tables = [Table(title="Attributes", columns=ATTRIBUTE_COLUMNS, rows=tuple(attributes))] if attributes else []
    if keywords:
        tables.append(Table(title="torch.nn keywords, which make its parameters", columns=ATTRIBUTE_COLUMNS, rows=tuple(keywords)))
    return Report(
        title=f"{name} ({family})",
        facts=facts,
        tables=tuple(tables),
        data={
            "operator": name,
            "family": family,
            "tensors": list(row.roles),
            "saves": list(row.saves) if isinstance(row, Operator) else None,
            "facts": {
                "sees": row.facts.reach.name,
                "autocast": row.facts.policies(name),
                "in_place": row.facts.overwrites.value,
                "statistics": row.facts.statistics.value,
            },
            "torch": row.torch,
            "runtimes": _runtimes(name),
            "source": row.source,
            "attributes": {a.name: _default(a) for a in row.attributes},
            "keywords": {a.name: _default(a) for a in MODULES[name].options} if name in MODULES else {},
        },
        sheet=Table(title="", columns=ATTRIBUTE_COLUMNS, rows=(*attributes, *keywords)),
    )


def _runtimes(op: str) -> dict[str, str | None]:
    """How an operator runs on each runtime."""
    return {name: runtime_named(name).rows.how(op) for name in RUNTIMES}


def models_report() -> Report:
    """Every built-in model with its defaults; parameters are those of the defaults."""
    from memest.sources.models import MODELS, build

    rows = []
    for n, m in enumerate(MODELS.values()):
        tell("models", n, len(MODELS))
        count = sum(numel(p.shape) for p in build(m.name).parameters if not p.buffer)
        options = ", ".join(f"{o.name}={_text(o.default)}" for o in m.options)
        rows.append((m.name, m.description, count, (m.input_shape,), options))
    return listing_report(f"{len(rows)} models", MODEL_COLUMNS, rows, (OPTIONS_NOTE,), MODEL_DROPS)


def levers_report() -> Report:
    """Every lever: what it does, its price, its options."""
    rows = [(name, row.summary, row.price, _options(name), ", ".join(row.modes)) for name, row in LEVERS.items()]
    return listing_report(f"{len(rows)} levers", LEVER_COLUMNS, rows, (OPTIONS_NOTE,), LEVER_DROPS)


def lever_report(name: str) -> Report:
    """One lever in full; UnknownNameError when there is none of that name."""
    row = lever_named(name)
    options = tuple(
        (o, "required" if option.default is REQUIRED else _text(option.default), option.summary) for o, option in row.options.items()
    )
    facts = (
        ("what it does", row.summary),
        ("price", row.price),
        ("modes", ", ".join(row.modes)),
        ("contradicts", ", ".join(row.excludes) or "none"),
        ("source", row.source),
    )
    table = Table(title="Options", columns=OPTION_COLUMNS, rows=options)
    return Report(
        title=name,
        facts=facts,
        tables=(table,) if options else (),
        data={
            "lever": name,
            "what_it_does": row.summary,
            "price": row.price,
            "modes": list(row.modes),
            "contradicts": list(row.excludes),
            "source": row.source,
            "options": {o: {"default": default, "meaning": meaning} for o, default, meaning in options},
        },
        sheet=Table(title="", columns=OPTION_COLUMNS, rows=options),
    )


def _options(name: str) -> str:
    return ", ".join(o if option.default is REQUIRED else f"{o}={_text(option.default)}" for o, option in LEVERS[name].options.items())


def _rows() -> list[tuple[Operator | Composite, str]]:
    return [(row, family_name(family)) for family in FAMILIES for row in (*family.ROWS, *family.COMPOSITE_ROWS)]


def _operator_row(row: Operator | Composite, family: str) -> tuple[str, ...]:
    keywords = MODULES[row.name].options if row.name in MODULES else ()
    return (row.name, family, ", ".join(row.roles), _names(row.attributes), _names(keywords))


def _names(attributes: Sequence[Attribute]) -> str:
    return ", ".join(a.name if a.default is REQUIRED else f"{a.name}={_text(a.default)}" for a in attributes)


def _attribute(a: Attribute) -> tuple[str, str, str]:
    return (a.name, "required" if a.default is REQUIRED else _text(a.default), _expected(a))


def _expected(a: Attribute) -> str:
    """What the attribute's own check says it wants; a value no attribute takes makes it speak."""
    try:
        a.check(object())
    except (ValueError, TypeError) as e:
        return str(e).removeprefix("expected ")
    return "anything"


def _default(a: Attribute) -> Any:
    return "required" if a.default is REQUIRED else a.default


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(str(v) for v in value)
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)


def _saved(row: Operator | Composite) -> str:
    if isinstance(row, Composite):
        return "what the operators it is made of keep"
    if row.backward is None:
        return "nothing (no gradient)"
    return ", ".join(row.saves) or "nothing"
