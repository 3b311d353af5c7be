"""A LightningModule's training step: what Lightning's trainer does around ``training_step`` for one batch on one device.

Automatic optimization runs ``training_step``, divides the loss, keeps a copy of it, sets gradients to None, runs backward and then the one
optimizer (Lightning's ``loops/optimization/automatic.py``: all in the closure that ``optimizer.step`` begins with); manual optimization is
the user's own. Schedulers move no memory that a step sees. ``self.log`` and its kin pass: the few bytes that a trainer keeps of each value
are not counted, which a note says. In the place of the trainer stands one that
knows what the code around a step may ask; whatever else it is asked for is an error of the user's line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from memest.errors import UnsupportedError, UsageError, kind_of
from memest.network.graph import Graph
from memest.sources.importers.torch.refusals import of_their_code
from memest.sources.importers.torch.tensors.state import as_it_was

LOGGED = "self.log: what a trainer keeps of the logged values, a few bytes each, is not counted"
ROOTS = ("lightning", "pytorch_lightning", "lightning_fabric")
HOOKS = ("optimizer_step", "backward", "optimizer_zero_grad", "configure_gradient_clipping", "on_before_optimizer_step")
"""Methods of the user's that the trainer calls in a step; an overridden one is not followed."""


def is_lightning(value: Any) -> bool:
    """Whether it is a LightningModule."""
    kinds = type(value).__mro__ if isinstance(value, nn.Module) else ()
    return any(k.__name__ == "LightningModule" and k.__module__.partition(".")[0] in ROOTS for k in kinds)


def trained(module: Any, record: Callable[[Callable[[Any], Any]], Graph]) -> Graph:
    """The graph of one step of training, which ``record`` makes of a function of a batch; the module is left as it was."""
    with as_it_was(module):
        step = training_of(module)
        graph = record(step)
    return graph.with_(notes=(*graph.notes, LOGGED)) if step.keywords["trainer"].logged else graph


def training_of(module: Any) -> partial[Any]:
    """One step of training as a function of a batch. UnsupportedError for what a trainer would do otherwise, GraphError for an exception of
    ``configure_optimizers``."""
    kind = type(module).__name__
    for name in HOOKS:
        if _is_users(type(module), name):
            raise UnsupportedError(f"{kind}.{name}: an overridden hook of Lightning's is not followed; write the step as a function")
    if not _is_users(type(module), "training_step"):
        raise UsageError(f"{kind} has no training_step: --infer asks about its forward, memest.from_torch records it")
    trainer = _Trainer()
    module.train()
    with _attached(module, trainer):
        try:
            trainer.optimizers, trainer.schedulers = _configured(module.configure_optimizers())
        except Exception as e:
            raise of_their_code(e, f"{kind}.configure_optimizers") or e from None
    automatic = module.automatic_optimization
    if automatic and len(trainer.optimizers) != 1:
        raise UnsupportedError(
            f"{kind}.configure_optimizers gives {len(trainer.optimizers)} optimizers, and automatic optimization takes one"
            " (as in Lightning): automatic_optimization = False"
        )
    return partial(
        _automatic if automatic else _manual,
        model=module,
        optimizer=_alone(trainer.optimizers),
        schedulers=trainer.schedulers,
        call=module.training_step,
        trainer=trainer,
        takes=len(inspect.signature(module.training_step).parameters),
    )


def _automatic(batch: Any, *, model: Any, optimizer: Any, schedulers: Any, call: Any, trainer: _Trainer, takes: int) -> Any:
    with _attached(model, trainer):
        output = call(*(batch, 0, 0)[:takes])
        given = output.get("loss") if isinstance(output, Mapping) else output
        if not isinstance(given, torch.Tensor):
            raise UnsupportedError(f"{type(model).__name__}.training_step gives no loss: a tensor, or a dict with 'loss', is needed")
        kept = {k: v for k, v in output.items() if k != "loss"} if isinstance(output, Mapping) else {}
        loss = given / 1
        shown = loss.detach().clone()
        del given, output
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return shown, kept


def _manual(batch: Any, *, model: Any, optimizer: Any, schedulers: Any, call: Any, trainer: _Trainer, takes: int) -> Any:
    with _attached(model, trainer):
        return call(*(batch, 0, 0)[:takes])


class _Trainer:
    """What a step may ask of its trainer."""

    estimated_stepping_batches = num_training_batches = max_steps = 1_000
    max_epochs = accumulate_grad_batches = world_size = num_devices = num_nodes = 1
    current_epoch = global_step = global_rank = local_rank = 0
    training, is_global_zero, sanity_checking, is_last_batch = True, True, False, False
    logger = datamodule = gradient_clip_val = None

    def __init__(self) -> None:
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedulers: list[Any] = []
        self.loggers: list[Any] = []
        self.callbacks: list[Any] = []
        self.logged = False

    def log(self, *_: Any, **__: Any) -> None:
        """``self.log``: a trainer would keep a copy."""
        self.logged = True


@contextmanager
def _attached(module: Any, trainer: _Trainer) -> Iterator[None]:
    """The module with a trainer, and its methods that ask the real one for something."""

    def optimizers(use_pl_optimizer: bool = True) -> Any:
        return _alone(trainer.optimizers)

    def lr_schedulers() -> Any:
        return _alone(trainer.schedulers)

    def manual_backward(loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward(*args, **kwargs)

    own: dict[str, Any] = module.__dict__
    instead = {
        "_trainer": trainer,
        "optimizers": optimizers,
        "lr_schedulers": lr_schedulers,
        "manual_backward": manual_backward,
        "clip_gradients": _clip,
        "print": _printed,
        **dict.fromkeys(("log", "log_dict"), trainer.log),
    }
    before = {name: own[name] for name in instead if name in own}
    own.update(instead)
    try:
        yield
    finally:
        for name in instead:
            own.pop(name, None)
        own.update(before)


def _printed(*_: Any, **__: Any) -> None:
    """``self.print``."""


def _clip(optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None) -> None:
    """``self.clip_gradients``."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if gradient_clip_val and str(getattr(gradient_clip_algorithm, "value", gradient_clip_algorithm)) == "value":
        nn.utils.clip_grad_value_(parameters, gradient_clip_val)
    elif gradient_clip_val:
        nn.utils.clip_grad_norm_(parameters, gradient_clip_val)


def _configured(given: Any) -> tuple[list[torch.optim.Optimizer], list[Any]]:
    """The optimizers and schedulers in what ``configure_optimizers`` gives, in every form that Lightning takes."""
    if isinstance(given, torch.optim.Optimizer):
        return [given], []
    if isinstance(given, Mapping):
        return [given["optimizer"]], [_scheduler(given["lr_scheduler"])] if given.get("lr_scheduler") is not None else []
    if not isinstance(given, list | tuple):
        raise UnsupportedError(f"configure_optimizers gives {kind_of(given)}: optimizers are needed")
    if len(given) == 2 and isinstance(given[0], list):
        schedulers = given[1] if isinstance(given[1], list) else [given[1]]
        return list(given[0]), [_scheduler(s) for s in schedulers]
    parts = [_configured(part) for part in given]
    return [o for optimizers, _ in parts for o in optimizers], [s for _, schedulers in parts for s in schedulers]


def _scheduler(given: Any) -> Any:
    return given["scheduler"] if isinstance(given, Mapping) else given


def _alone(given: list[Any]) -> Any:
    """The one there is, all of several, or None."""
    return (given[0] if len(given) == 1 else list(given)) if given else None


def _is_users(kind: type, method: str) -> bool:
    """Whether a method is of the user's own class."""
    home = next((k for k in kind.__mro__ if method in k.__dict__), object)
    return home.__module__.partition(".")[0] not in (*ROOTS, "builtins")
