"""All optimizers by name, and how one is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

from memest.errors import UnknownNameError, UsageError, one_of
from memest.runtimes.torch.optimizers import adam, adaptive, by_sign, sgd
from memest.runtimes.torch.optimizers.row import Row

OPTIMIZERS: dict[str, Row] = {**sgd.ROWS, **adam.ROWS, **adaptive.ROWS, **by_sign.ROWS}
IGNORED_OPTIONS = frozenset({"lr", "eps", "rho", "alpha", "beta1", "beta2", "momentum_decay"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """A row with its options resolved; ``text`` is how it was asked for."""

    name: str
    text: str
    options: tuple[tuple[str, Any], ...]

    @property
    def row(self) -> Row:
        """Its table entry."""
        return OPTIMIZERS[self.name]


def optimizer_named(text: str) -> Optimizer:
    """The optimizer written as ``name`` or ``name:option=value,option=value``; options that move no memory (``lr``) are accepted."""
    name, _, tail = text.partition(":")
    known = name.strip().lower().removeprefix("torch.").removeprefix("optim.")
    row = OPTIMIZERS.get(known)
    if row is None:
        raise UnknownNameError(f"unknown optimizer {name!r}{one_of(known, OPTIMIZERS)}")
    options = dict(row.options)
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, eq, raw = item.partition("=")
        if not eq:
            raise UsageError(f"optimizer option {item!r}: write option=value")
        if key in IGNORED_OPTIONS:
            _option(name, key, raw, 0.0)
        elif key in options:
            options[key] = _option(name, key, raw, row.options[key])
        else:
            raise UnknownNameError(f"optimizer {name!r} has no option {key!r}{one_of(key, options)}")
    if options["foreach"] and options["fused"]:
        raise UsageError(f"optimizer {text!r}: foreach and fused exclude each other")
    if options["fused"] and row.fused is None:
        raise UsageError(f"optimizer {name!r} has no fused variant in torch; leave fused out")
    if options.get("nesterov") and not options["momentum"]:
        raise UsageError(f"optimizer {text!r}: nesterov needs momentum")
    return Optimizer(name=known, text=text, options=tuple(options.items()))


def _option(name: str, key: str, raw: str, default: Any) -> Any:
    lowered = raw.strip().lower()
    if isinstance(default, bool) or default is None:
        if lowered in ("true", "1", "yes"):
            return True
        if lowered in ("false", "0", "no"):
            return False
        raise UsageError(f"optimizer {name!r}, option {key!r}: expected true or false, got {raw!r}")
    try:
        number = float(lowered)
    except ValueError:
        number = nan
    if not isfinite(number):
        raise UsageError(f"optimizer {name!r}, option {key!r}: expected a number, got {raw!r}")
    return number
