"""Optimizers over one list of parameters, sized like a residual network's: every one in each of the ways that torch has for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from memest.machines.target import Target
from memest.memory.stream import Event
from memest.network.tensor import nbytes, spec
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.cuda.rows import ROWS
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.optimizers import Optimizer, optimizer_named, play_step
from memest.runtimes.torch.step import Caller
from memest.runtimes.torch.step.clipping import play_clipping
from memest.runtimes.torch.step.recipe import Clip
from memest.runtimes.torch.step.scaling import Scaler

SHAPES: tuple[tuple[int, ...], ...] = (
    (64, 3, 7, 7), *[(512, 512, 3, 3)] * 8, *[(2048, 512, 1, 1)] * 4, *[(2048,)] * 40, (1000, 2048), (1000,)
)  # fmt: skip
DECAYED = "sgd:momentum=0.9,weight_decay=0.0001"
PLAIN = (
    DECAYED, "sgd:momentum=0.9,nesterov=true,weight_decay=0.0001", "sgd", "sgd:momentum=0.9",
    "adam", "adam:amsgrad=true", "adam:weight_decay=0.1", "adamw", "adamw:amsgrad=true",
    "rmsprop", "rmsprop:momentum=0.9,centered=true", "adagrad", "adamax", "nadam", "radam", "adadelta", "asgd", "rprop",
)  # fmt: skip
WARM = 6  # updates before the one that is recorded: RAdam's takes its usual road from the sixth on
FUSED = frozenset({"sgd", "adam", "adamw", "adagrad"})
CAPTURED = frozenset({"adam", "adamw", "rmsprop", "adamax", "nadam", "radam", "adadelta", "asgd", "rprop"})


@dataclass(frozen=True, kw_only=True)
class Update:
    """One case: an optimizer as memest writes it, after ``clip_grad_norm_`` or under a GradScaler where asked for; its ``first`` step or a
    later one."""

    optimizer: str
    clip: bool = False
    scaler: bool = False
    first: bool = False

    @property
    def name(self) -> str:
        """All of it."""
        flags = [word for word, on in (("clip", self.clip), ("scaler", self.scaler), ("first step", self.first)) if on]
        return " ".join((self.optimizer, *flags))


def updates() -> Iterator[Update]:
    """All cases: torch's own choice, one parameter at a time, fused, capturable; clipped and scaled ones; first steps."""
    for text in PLAIN:
        name, _, options = text.partition(":")
        for way in ("", "foreach=false", *(["fused=true"] if name in FUSED else []), *(["capturable=true"] if name in CAPTURED else [])):
            given = ",".join(o for o in (options, way) if o)
            yield Update(optimizer=f"{name}:{given}" if given else name)
    for text in ("sgd:momentum=0.9", "adam", "adamw:fused=true"):
        yield Update(optimizer=text, first=True)
        yield Update(optimizer=text, clip=True)
        yield Update(optimizer=text, scaler=True)
        yield Update(optimizer=text, clip=True, scaler=True)


def made(text: str, parameters: list[Any]) -> Any:
    """torch's optimizer of that name and options."""
    import torch

    classes = {name.lower(): kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
    name, _, options = text.partition(":")
    given = dict(item.split("=") for item in options.split(",") if item)
    return classes[name](parameters, lr=0.01, **{k: v == "true" if v in ("true", "false") else float(v) for k, v in given.items()})


def measure_optimizers(wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """What a late update of each case did (or its first); or the ``error`` with which torch refuses it."""
    from validation.cuda.calling import summary
    from validation.cuda.recording import start

    start()
    for update in updates():
        if not wanted(update.name):
            continue
        try:
            found = summary(recorded(update))
        except Exception as error:  # whatever torch refuses an option with
            found = {"error": f"{type(error).__name__}: {error}".partition("\n")[0][:200]}
        yield {"case": update.name, **found}


def recorded(update: Update) -> Any:
    """One update, the gradients being there."""
    import torch

    from validation.cuda.recording import clean, record_cuda

    clean()
    parameters = [torch.nn.Parameter(torch.empty(s, device="cuda")) for s in SHAPES]
    for p in parameters:
        p.grad = torch.empty_like(p)
    optimizer = made(update.optimizer, parameters)
    scaler = torch.amp.GradScaler("cuda") if update.scaler else None
    if scaler is not None:
        scaler.scale(torch.zeros(1, device="cuda"))

    def step() -> None:
        if scaler is not None:
            scaler.unscale_(optimizer)
        if update.clip:
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if scaler is not None:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()

    clean()
    for _ in range(0 if update.first else WARM):
        step()
    return record_cuda(step)


def predict_update(update: Update, target: Target) -> list[Event]:
    """What one update asks for. MemestError where it cannot be said."""
    optimizer = optimizer_named(update.optimizer)
    ledger = Ledger(begun=not update.first)
    values = [_resident(ledger, s) for s in SHAPES]
    scaler = _scaler(ledger, optimizer, target) if update.scaler else None
    start = len(ledger.events)
    if scaler is not None:
        scaler.unscale()
    if update.clip:
        play_clipping(ledger, values, Clip(), target)
    if scaler is not None:
        scaler.before_step()
    play_step(optimizer, ledger, values, [str(i) for i in range(len(SHAPES))], 1 if update.first else None, target)
    if scaler is not None:
        scaler.after_step()
    return list(ledger.events)[start:]


def _resident(ledger: Ledger, shape: tuple[int, ...]) -> Value:
    return ledger.hold(Value(spec(shape, "float32"), ledger.resident(nbytes(shape, "float32"), "parameter", "")))


def _scaler(ledger: Ledger, optimizer: Optimizer, target: Target) -> Scaler:
    """A scaler that has scaled a loss before."""
    scaler = Scaler(ledger, sharded=False, fused=bool(dict(optimizer.options)["fused"]))
    scaled = scaler.scaled(Caller(Machine(ledger, False, target), False, None, ROWS), _resident(ledger, ()))
    ledger.let_go(scaled)
    return scaler
