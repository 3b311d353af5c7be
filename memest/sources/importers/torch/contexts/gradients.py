"""Gradients in a step that is recorded: backward, ``torch.autograd.grad``, ``requires_grad_``, and ``grad`` as an attribute."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from memest.network.graph import Layer
from memest.runtimes.torch.ledger import Value
from memest.sources.importers.torch.contexts.stage import Answer, Stage, listed
from memest.sources.importers.torch.functions import full_name
from memest.sources.importers.torch.tensors.live import Tracked

RETAINED = "_memest_grad"
"""Where a tensor that was computed has the gradient that it retains."""


class Gradients:
    """The gradients of one recording: those that are ``standing``, by the name of their leaf, and the ``leaves`` they can belong to."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.standing: dict[str, torch.Tensor] = {}
        self.leaves: dict[str, weakref.ref[torch.Tensor]] = {}
        self._leaf_names: dict[int, str] = {}
        self.watched: dict[str, Callable[[Any, Any, Any], Answer]] = {
            "backward": self._backward,
            "grad": self._grad,
            "requires_grad_": lambda f, a, k: self.require(a[0], bool(a[1] if len(a) > 1 else k.get("requires_grad", True))),
            "__set__:requires_grad": lambda f, a, k: nothing(self.require(a[0], bool(a[1]))),
            "__get__:is_leaf": lambda f, a, k: self.is_leaf(stage.live.known(a[0])),
            "__get__:grad_fn": lambda f, a, k: None if self.is_leaf(stage.live.known(a[0])) else NotImplemented,
            "__get__:grad": lambda f, a, k: self.of(a[0]),
            "__set__:grad": lambda f, a, k: self.put(a[0], a[1]),
            "detach_": self._detached,
        }

    def _backward(self, func: Any, args: Any, kwargs: Any) -> Any:
        method = func is torch.Tensor.backward
        if not method and func is not torch.autograd.backward:
            return NotImplemented
        given = inspect.signature(func).bind(*args, **kwargs)
        given.apply_defaults()
        a = given.arguments
        roots = [a["self"]] if method else listed(a["tensors"])
        gradients = a["gradient"] if method else a["grad_tensors"]
        gradients = [None] * len(roots) if gradients is None else listed(gradients)
        with self._stage:
            self.engine(roots, gradients, a["retain_graph"], a["create_graph"], a["inputs"], accumulate=True)
        return None

    def _grad(self, func: Any, args: Any, kwargs: Any) -> Any:
        if full_name(func) != "torch.autograd.grad":
            return NotImplemented
        given = inspect.signature(func).bind(*args, **kwargs)
        given.apply_defaults()
        a = given.arguments
        if a["is_grads_batched"]:
            raise self._stage.refusal("torch.autograd.grad(is_grads_batched=True): one gradient after the other")
        roots, inputs = listed(a["outputs"]), listed(a["inputs"])
        gradients = [None] * len(roots) if a["grad_outputs"] is None else listed(a["grad_outputs"])
        with self._stage:
            found = self.engine(roots, gradients, a["retain_graph"], a["create_graph"], inputs, accumulate=False)
            if any(g is None for g in found) and not (a["allow_unused"] or a["materialize_grads"]):
                raise RuntimeError("one of the tensors to differentiate by was not used in the graph (allow_unused=True gives None for it)")
            if a["materialize_grads"]:
                found = tuple(torch.zeros_like(t) if g is None else g for g, t in zip(found, inputs, strict=True))
        return found

    def engine(
        self, roots: Sequence[Any], gradients: Sequence[Any], retain: Any, create: Any, inputs: Any, *, accumulate: bool
    ) -> tuple[torch.Tensor | None, ...]:
        """The engine's run. Roots without a gradient of their own get ones."""
        if self._stage.checkpoints.policy is not None:
            raise self._stage.refusal(
                "autograd inside of a selective checkpoint (context_fn), which runs again for that and has what it kept only once: leave"
                " context_fn out"
            )
        if create and self._stage.castings:
            raise self._stage.refusal("create_graph=True inside autocast, whose backward would be cast, too: leave the context before it")
        if accumulate and inputs:
            raise self._stage.refusal("backward(inputs=…), which fills some gradients only; torch.autograd.grad is modelled")
        for i, root in enumerate(roots):
            entry = self._stage.live.known(root)
            if not entry.grad:
                raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn")
            if gradients[i] is None and root.numel() != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
        made = [torch.ones_like(root) if g is None else g for root, g in zip(roots, gradients, strict=True)]
        names = tuple(map(self._stage.called, roots)), tuple(map(self._stage.called, made))
        keep = {"retain_graph": True} if (create if retain is None else retain) else {}
        keep |= {"create_graph": True} if create else {}
        if accumulate:
            self._after_backward(*self._stage.act("backward", names, **keep))
            return ()
        wanted = list(inputs)
        for i, t in enumerate(wanted):
            if not self._stage.live.known(t).grad:
                raise RuntimeError(f"One of the differentiated Tensors (number {i}) does not require grad")
        layer, found = self._stage.act("autograd_grad", (*names, tuple(map(self._stage.called, wanted))), **keep)
        handles: list[torch.Tensor | None] = [None] * len(wanted)
        outputs: list[str] = []
        for index, value in found:
            outputs.append(self._stage.live.take(f"{layer.name}.{index}"))
            handles[int(index)] = self._stage.made(outputs[-1], self._stage.live.known(wanted[int(index)]), value)
        self._stage.layers[-1] = replace(layer, outputs=tuple(outputs))
        return tuple(handles)

    def _after_backward(self, layer: Layer, found: Sequence[tuple[str, Value]]) -> None:
        """Names and tensors for the gradients that are there now; a leaf that is gone from Python has no name for it. What an earlier call
        left beside a tensor that it made and that is kept is, from now on, the gradient that stands."""
        named: list[tuple[str, str]] = []
        unnamed: list[str] = []
        for leaf, value in found:
            t = self.leaves[leaf]()
            if t is None:
                unnamed.append(leaf)
                continue
            vars(t).pop(RETAINED, None)
            out = self._stage.live.take(f"{leaf}.grad")
            self.standing[leaf] = self._stage.made(out, self._stage.live.known(t), value)
            named.append((leaf, out))
        leaves = (*(leaf for leaf, _ in named), *unnamed)
        self._stage.layers[-1] = replace(layer, attributes=(*layer.attributes, ("leaves", leaves)), outputs=tuple(out for _, out in named))

    def of(self, t: torch.Tensor) -> torch.Tensor | None:
        """``t.grad``."""
        found = self.standing.get(self.leaf_name(self._stage.live.known(t)))
        return vars(t).get(RETAINED) if found is None else found

    def leaf_name(self, entry: Tracked) -> str:
        """The name that a tensor's gradient goes by: its own, or that under which it came to require one."""
        return self._leaf_names.get(id(entry), entry.names[0])

    def is_leaf(self, entry: Tracked) -> bool:
        """Whether nothing computed it from tensors that require a gradient."""
        return not entry.grad or self.leaf_name(entry) in self.leaves

    def require(self, t: torch.Tensor, wanted: bool) -> torch.Tensor:
        """``t.requires_grad_(wanted)``."""
        entry = self._stage.live.known(t)
        if entry.grad == wanted:
            return t
        if not self.is_leaf(entry):
            raise RuntimeError("you can only change requires_grad flags of leaf variables")
        if wanted and not t.dtype.is_floating_point:
            raise RuntimeError("only Tensors of floating point dtype can require gradients")
        name = entry.names[-1]
        if self.leaf_name(entry) not in self.leaves:
            self._leaf_names[id(entry)] = name
            self.leaves[name] = weakref.ref(t)
            weakref.finalize(t, self._gone, name, id(entry)).atexit = False
        self._stage.act_on_one("requires_grad", name, value=wanted)
        entry.grad = wanted
        return t

    def _gone(self, leaf: str, entry: int) -> None:
        self.standing.pop(leaf, None)
        self._leaf_names.pop(entry, None)

    def put(self, t: torch.Tensor, value: Any) -> None:
        """``t.grad = value``."""
        leaf = self.leaf_name(self._stage.live.known(t))
        if value is not None:
            if leaf not in self.leaves or not self._stage.live.known(t).grad:
                raise self._stage.refusal("tensor.grad = … of a tensor that requires no gradient of its own: keep it in a variable")
            self._stage.act("set_gradient", (self._stage.called(t), self._stage.called(value)))
            self.standing[leaf] = value
        elif vars(t).pop(RETAINED, None) is None and leaf in self.standing:
            self._stage.act_on_one("forget_gradients", self._stage.called(t))
            del self.standing[leaf]

    def _detached(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self._stage.live.known(args[0]).grad:
            raise self._stage.refusal("detach_() of a tensor that requires a gradient (detach() is modelled)")
        return args[0]


def nothing(_: object) -> None:
    """What a setter gives (torch never lets go of anything else)."""
