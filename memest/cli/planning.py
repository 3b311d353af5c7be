"""From the words of ``fit``, ``sweep`` and ``advise`` to their API calls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from memest.cli.answering import keywords, warn
from memest.cli.inputs import bind_shapes, open_with_inputs, parse_inputs
from memest.cli.request import Request, limits
from memest.errors import GraphError, UnsupportedError, UsageError, did_you_mean
from memest.machines.entry import Hardware
from memest.network.binding import bind
from memest.network.graph import Graph
from memest.planning.advise import Advice, advise
from memest.planning.axes import batch_symbol, groups_of, symbols_in_order
from memest.planning.fit import Fit, fit
from memest.planning.patches import fit_patch
from memest.planning.product import Product
from memest.planning.sweep import SETTINGS, product_of
from memest.sources.opening import is_torch, open_model

_RANGE = re.compile(r"(\d{1,10})\.\.(\d{1,10})(?::(\d{1,10}))?", re.ASCII)
MOST_VALUES = 1_000_000
PATCH = "patch"


def place_of(on: Sequence[str] | None, budget: str | None, file: Path | None, card: str | None) -> Hardware:
    """The one place where it has to fit: a budget, or a machine; a budget beside the ``card`` that the step runs on is a part of it."""
    places = limits(on, budget, file)
    if budget is not None and card is not None and len(places) == 2:
        return places[-1]
    if len(places) != 1:
        several = f", not {len(places)} (memest estimate says of several whether one size fits)" if len(places) > 1 else ""
        raise UsageError(f"give one limit{several}: --budget 24GiB, or --on a100-40gb (see: memest hardware)")
    return places[0]


def fitted(request: Request, place: Hardware, vary: str, step: int | None) -> tuple[Graph, Fit]:
    """The graph, and the largest that fits."""
    _ = request.question
    texts = [part.strip() for part in vary.split(",")]
    graph = _opened(request, request.mode)
    asking = request.question_of(graph)
    if texts == [PATCH]:
        batch, sizes = _fixed(graph, request, set())
        warn(asking, graph)
        return graph, fit_patch(graph, place, batch=batch, step=step, **keywords(asking), **sizes)
    varied = {s for group in groups_of(graph, texts) for s in group}
    _check_batch(graph, request, varied, "the batch varies")
    batch, sizes = _fixed(graph, request, varied)
    warn(asking, graph)
    return graph, fit(graph, place, texts, batch=batch, step=step, **keywords(asking), **sizes)


def product_asked(request: Request, axes: Sequence[str], skip: bool) -> Product:
    """The configurations that ``axes`` (texts such as ``batch=1..64``) ask for."""
    _ = request.question
    if not axes:
        raise UsageError("give an --axis, such as --axis batch=1..64 or --axis H=W=32..512:32")
    several = _settings(request, [text for text in axes if text.partition("=")[0] in SETTINGS])
    graph = _opened(request, None if "mode" in several else request.mode)
    asking = request.question_of(graph)
    settings = {**(keywords(asking) if graph.usual is None else request.typed), **several}
    ties: list[tuple[tuple[str, ...], Sequence[int]]] = []
    for text in axes:
        if text.partition("=")[0] not in SETTINGS:
            names, values = _named(text, text.rpartition("="))
            ties.append((groups_of(graph, [names])[0], _numbers(values, text)))
    varied = {s for group, _ in ties for s in group}
    if len(varied) < sum(len(group) for group, _ in ties):
        raise UsageError("a size has two axes; name each once")
    _check_batch(graph, request, varied, "the batch has an axis")
    batch, sizes = _fixed(graph, request, varied)
    fixed = {**sizes, **({} if batch is None else {str(batch_symbol(graph)): batch})}
    warn(asking, graph)
    return product_of(
        graph,
        axes=[*ties, *(((name,), [n]) for name, n in fixed.items())],
        invalid="skip" if skip else "raise",
        **settings,
    )


def advised(request: Request, place: Hardware, largest_batch: bool) -> tuple[Graph, Advice]:
    """The graph, and what to change so that the step fits."""
    _ = request.question
    graph, shapes = open_with_inputs(request.model, request.inputs, request.batch, request.mode, assume=request.assume)
    asking = request.question_of(graph)
    warn(asking, graph)
    try:
        return graph, advise(graph, place, input_shape=shapes, largest_batch=largest_batch, **keywords(asking))
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__


def _settings(request: Request, axes: Sequence[str]) -> dict[str, list[str]]:
    """The settings that have an axis, and their values. UsageError for one given twice, and for a name that is not there."""
    found: dict[str, list[str]] = {}
    for text in axes:
        name, values = _named(text, text.partition("="))
        if name in found:
            raise UsageError(f"{name} has two axes; name it once")
        if request.settings.get(name, "train") != "train":  # a command is of training where nothing is said
            flag = "--infer" if name == "mode" else f"--{name}"
            raise UsageError(f"{name} has an axis, and {flag} is given too; leave one of them out")
        found[name] = [v.strip() for v in values.split(";" if ":" in values else ",")]
        _check_once(found[name], text)
    for one in product(*found.values()):
        _ = replace(request, settings={**request.settings, **dict(zip(found, one, strict=True))}).question
    return found


def _named(text: str, parts: tuple[str, str, str]) -> tuple[str, str]:
    """The name and the values of an axis."""
    names, equals, values = parts
    if not equals or not names or not values:
        raise UsageError(f"--axis {text!r}: write NAME=VALUES, such as batch=1..64")
    return names, values


def _check_once(values: Sequence[object], text: str) -> None:
    twice = next((v for i, v in enumerate(values) if v in values[:i]), None) if len(set(values)) < len(values) else None
    if twice is not None:
        raise UsageError(f"--axis {text!r}: {twice} stands there twice; name each value once")


def _check_batch(graph: Graph, request: Request, varied: set[str], why: str) -> None:
    """UsageError for a --batch beside a batch that varies; torch code is recorded at the one of its --input."""
    if request.batch is not None and batch_symbol(graph) in varied and not (request.inputs and is_torch(request.model)):
        raise UsageError(f"{why}, and --batch is given too; leave one of them out")


def _opened(request: Request, mode: str | None) -> Graph:
    if is_torch(request.model):
        return open_with_inputs(request.model, request.inputs, request.batch, mode, assume=request.assume)[0]
    return open_model(request.model)


def _fixed(graph: Graph, request: Request, varied: set[str]) -> tuple[int | None, dict[str, Any]]:
    """(the batch, the other sizes) that the request gives and that do not vary."""
    first, known = batch_symbol(graph), symbols_in_order(graph)
    rest = [s for s in known if s not in varied]
    if not rest:
        return None, {}
    usual = {} if graph.usual is None else dict(graph.usual.way(request.mode, request.question.runtime).sizes)
    if usual and not request.inputs:
        sizes = {s: usual[s] for s in rest}
        own = sizes.pop(str(first), None)
        return (own if request.batch is None or first in varied else request.batch), sizes
    if rest == [first] and not request.inputs:
        if request.batch is None:
            raise UsageError("give --batch, or let it vary")
        return request.batch, {}
    if not request.inputs:
        raise UsageError(f"give --input with the sizes that do not vary: {', '.join('batch' if s == first else s for s in rest)}")
    batch = request.batch or (1 if first in varied and not is_torch(request.model) else None)
    given = parse_inputs(request.inputs)
    whole = all(len(shape) == len(i.shape) for shape, i in zip(given.values(), graph.inputs, strict=False))
    shapes = bind_shapes(graph.inputs, given, None if whole and request.batch is None else batch)
    sizes = {s: n for s, n in bind(graph.inputs, shapes).items() if s in rest}
    return sizes.pop(str(first), None), sizes


def _numbers(text: str, whole: str) -> Sequence[int]:
    """``1,2,4``, ``1..64`` or ``32..512:32``."""
    found = _RANGE.fullmatch(text)
    if found:
        first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
        values = range(first, last + 1, step) if step else range(0)
        if len(values) > MOST_VALUES:
            raise UsageError(f"--axis {whole!r}: {len(values):,} values; give a step (first..last:step), at most {MOST_VALUES:,} values")
        if not values:
            raise UsageError(f"--axis {whole!r}: an empty range; write first..last or first..last:step")
        return values
    parts = [p.strip() for p in text.split(",")]
    if not all(p.isascii() and p.isdigit() and len(p) <= 10 for p in parts):
        hint = did_you_mean(whole.partition("=")[0], SETTINGS)
        raise UsageError(f"--axis {whole!r}: values are whole numbers joined by commas, or first..last:step{hint}")
    numbers = [int(p) for p in parts]
    _check_once(numbers, whole)
    return numbers
