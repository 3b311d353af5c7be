"""A live report as one HTML file: the template, the styles and the program of this folder with a model's data put in.

Promises a file that asks the network for nothing (its content security policy forbids it) and runs no script but its own: both script and
style are named by their hashes, data are a JSON block whose ``<``, ``>`` and ``&`` are escaped, and the program puts texts on the page as
text alone, what would reorder or end a line escaped. The same model gives the same file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

from memest import __version__
from memest.estimate.formulas.javascript import function, helpers
from memest.machines.claims import Source, claim_on
from memest.machines.entry import Hardware
from memest.planning.page import PageModel
from memest.render.palette import COLOURS
from memest.runtimes.table import runtime_named
from memest.shown import visible

PROGRAM = ("units.js", "evaluate.js", "verdict.js", "typeset.js", "chart.js", "tables.js", "page.js")
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def render(model: PageModel, *, title: str = "", hardware: Sequence[Hardware] = (), on: str = "", budget: str = "") -> str:
    """The page of ``model`` under ``title`` (the graph's name where none is given); ``hardware`` can be chosen in it, ``on`` (a name) and
    ``budget`` (a text such as ``24GiB``) are set already."""
    title = title or str(model.data["model"])
    style = _text("page.css").replace("{{colours}}", "\n".join(f"  --c-{name}: {colour};" for name, colour in COLOURS.items()))
    script = _script(model)
    data = json.dumps(_packed(model, hardware, on, budget), separators=(",", ":"), ensure_ascii=False).translate(_ESCAPES)
    parts = {
        "script-hash": _hash(script),
        "style-hash": _hash(style),
        "version": escape(__version__),
        "title": escape(f"{visible(title)}: memory"),
        "model": escape(visible(title)),
        "style": style,
        "data": data,
        "script": script,
    }
    pieces = _text("page.html").split("{{")
    return pieces[0] + "".join(parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:]))


def _script(model: PageModel) -> str:
    formulas = helpers(big=model.big) + function("termsOf", model.terms, model.symbols, big=model.big)
    read = 'const DATA = JSON.parse(document.getElementById("data").textContent);\n'
    return '"use strict";\n(() => {\n' + read + formulas + "".join(_text(name) for name in PROGRAM) + "})();\n"


def _packed(model: PageModel, hardware: Sequence[Hardware], on: str, budget: str) -> dict[str, Any]:
    """The model's data, the codes of kernels as base64; where numbers are BigInts, those that are computed with are texts."""
    number = str if model.big else int
    kernels = [{**k, "entries": [number(n) for n in k["entries"]], "codes": _coded(k["codes"])} for k in model.data["kernels"]]
    forms = [[n if i and i % 2 == 0 else number(n) for i, n in enumerate(form)] for form in model.data["forms"]]
    texts = ("model", "loss", "inputs", "choices", "strings")
    source = _source(model.data["runtime"])
    return {
        **model.data,
        **{name: _visible(model.data[name]) for name in texts},
        "largest": str(model.data["largest"]),
        "big": model.big,
        "kernels": kernels,
        "forms": forms,
        "hardware": [_hardware(h) for h in hardware],
        "claims": {kind: _claim(kind, source) for kind in ("budget", *dict.fromkeys(h.kind for h in hardware))},
        "opens": {"hardware": on, "budget": budget},
    }


def _source(runtime: str) -> Source:
    """Whose bytes the page computes: where an allocator is played, those that it is asked for."""
    found = runtime_named(runtime)
    if not found.replays:
        return found.source
    return replace(found.source, owner="requests, before the allocator rounds them", whose="requested", missing=("block rounding",))


def _visible(value: Any) -> Any:
    """Plain data whose texts can be shown."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {name: _visible(v) for name, v in value.items()}
    return [_visible(v) for v in value] if isinstance(value, list | tuple) else value


def _hardware(h: Hardware) -> Mapping[str, Any]:
    return {
        "name": visible(h.name),
        "title": visible(h.title),
        "kind": h.kind,
        "tiers": [[visible(t.name), t.usable_bytes] for t in h.tiers],
    }


def _claim(kind: str, source: Source) -> Mapping[str, Any]:
    """What a verdict on a place of this kind is called, and the sentence that goes with it."""
    claim = claim_on(kind, source)
    words = {"fits": claim.words("fits"), "spills": claim.words("spills"), "short": claim.words("does not fit")}
    return {"words": words, "decides": claim.decides, "note": f"{claim.note[0].upper()}{claim.note[1:]}."}


def _coded(codes: Sequence[int]) -> tuple[int, str]:
    """(bytes a code takes, the codes in base64, low byte first)."""
    width = 1 if max(codes, default=0) < 256 else 2
    return width, base64.b64encode(b"".join(c.to_bytes(width, "little") for c in codes)).decode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
