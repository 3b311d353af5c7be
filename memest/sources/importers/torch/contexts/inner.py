"""Autograd that code of a forward runs itself: ``torch.autograd.grad``, ``backward`` and ``requires_grad_`` in a forward, in the backward
of a custom function (checkpoints and reversible blocks written by hand), or in a hook.

What a backward reaches is not guessed: from the first one on, the layers are played at the sizes of the example by the same run that an
estimate plays. Calls that run at another time are a scope of their own, which sees what stood around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from memest.errors import MemestError, UnsupportedError
from memest.machines.target import Target
from memest.network.graph import Casting, Graph, Input, Layer
from memest.network.tensor import Spec, nbytes
from memest.runtimes.runtime import AS_DESCRIBED
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step import Recipe
from memest.runtimes.torch.step.acting import Acting
from memest.runtimes.torch.step.parallel import Alone
from memest.runtimes.torch.step.run import Run
from memest.sizes.dims import recording, resolve
from memest.sources.importers.torch.contexts.checkpoints import Checkpoints
from memest.sources.importers.torch.contexts.gradients import Gradients, nothing
from memest.sources.importers.torch.contexts.packing import Packings
from memest.sources.importers.torch.contexts.stage import Answer, exchange, handle_of
from memest.sources.importers.torch.contexts.switching import Switches
from memest.sources.importers.torch.tensors.live import LiveTensors, Tracked
from memest.sources.importers.torch.tensors.places import NOT_YET

ENGINE = {"autograd_grad": "torch.autograd.grad", "backward": "a backward pass"}
"""The actions that run the engine, as a user calls them."""


class Recorder(Protocol):
    """What is asked of the recorder."""

    name: str
    inputs: list[Input]
    live: LiveTensors
    layers: list[Layer]
    machine: Machine
    checkpoint: str | None
    checkpoints: Checkpoints
    packings: Packings
    switches: Switches
    sizes: dict[str, int]

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def castings(self) -> tuple[Casting, ...]:
        """What contexts of autocast say here."""

    def shadow(self) -> Run | None:
        """The run that has played all layers of the outermost scope so far, where there is one anyway."""

    def differentiates(self) -> None:
        """Something is done about gradients: this recording is held against no other call by call."""

    def refuse_card(self, what: str, why: str) -> None:
        """On a card the network stops here."""

    def path(self) -> str:
        """That of the module that runs."""

    def place(self) -> str:
        """Module path and line of user code."""

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""


def opened(recorder: Recorder, target: Target, *, step: bool) -> Run:
    """A run that plays layers as they come, at the sizes of the example."""
    sizes = dict(recorder.sizes)
    shapes: dict[str, Any] = {i.name: resolve(i.shape, sizes) for i in recorder.inputs}
    inputs, parameters = tuple(recorder.inputs), tuple(recorder.live.parameters)
    empty = Graph(name=recorder.name, inputs=inputs, parameters=parameters, layers=(), outputs=(), step=step)
    run = Run(empty, shapes, sizes, Recipe(training=True, target=target), AS_DESCRIBED, Alone(), remember=True)
    run.actions = Acting(run)
    return run


def _runs_again(layer: Layer) -> bool:
    """Whether a layer's backward runs the engine itself, in whatever context that stands."""
    found = layer.backward
    return found is not None and any(inner.op in ENGINE or _runs_again(inner) for inner in found.layers)


class _Names(dict[str, Value]):
    """The values of a scope by name; others are looked for around it."""

    def __init__(self, around: Callable[[str], Value]) -> None:
        super().__init__()
        self._around = around

    def __missing__(self, name: str) -> Value:
        found = self[name] = self._around(name)
        return found


class _Scope:
    """Layers that run together, and how many of them are played."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers
        self.played = 0
        self.env: dict[str, Value] | None = None
        self.gradients: dict[str, Value] | None = None


class Inner:
    """The autograd of one recording's own code (a ``Stage``)."""

    def __init__(self, recorder: Recorder, *, trains: bool) -> None:
        """``trains``: the forward is that of a training step."""
        self._recorder = recorder
        self._trains = trains
        self._run: Run | None = None
        self._scopes = [_Scope(recorder.layers)]
        self.ran = False
        self.gradients = _OfForward(self)
        answers = self.gradients.watched
        self.watched: dict[str, Callable[[Any, Any, Any], Answer]] = {
            **{name: answers[name] for name in ("backward", "grad", "detach_")},
            "requires_grad_": lambda f, a, k: self._turn(a[0], bool(a[1] if len(a) > 1 else k.get("requires_grad", True))),
            "__set__:requires_grad": lambda f, a, k: nothing(self._turn(a[0], bool(a[1]))),
            "__get__:is_leaf": lambda f, a, k: True if self._is_leaf(a[0]) else NotImplemented,
            "__get__:grad_fn": lambda f, a, k: None if self._is_leaf(a[0]) else NotImplemented,
            "__get__:grad": lambda f, a, k: self._read(a[0]),
            "__set__:grad": lambda f, a, k: self._write(a[0], a[1]),
            "__set__:data": lambda f, a, k: self._exchange(a[0], a[1]),
        }

    # scopes ---------------------------------------------------------------------------------------------------------------

    def enter(self, layers: list[Layer]) -> None:
        """Calls follow that run at another time."""
        self._scopes.append(_Scope(layers))

    def leave(self) -> None:
        """They have been recorded: gradients that they would leave are not there yet."""
        scope = self._scopes.pop()
        if scope.gradients is not None and self._run is not None:
            self._run.machine.gradients = scope.gradients

    def _played(self, depth: int) -> tuple[Run, dict[str, Value]]:
        """The run, and the values of a scope, all of whose layers have been played."""
        scope, given = self._scopes[depth], self._recorder.shadow()
        if given is not None:
            self._run = given
        run = self._run = self._run or opened(self._recorder, self._recorder.machine.target, step=False)
        if given is None:
            for p in self._recorder.live.parameters[len(run.owned) :]:
                run.own(p)
                run.owned.add(p.name)
        if scope.env is None:
            scope.env = _Names(lambda name: self._around(depth, name)) if depth else run.env
            scope.gradients = dict(run.machine.gradients) if depth else None
        left = () if given is not None and not depth else scope.layers[scope.played :]
        mode, run.caller.grad_mode = run.caller.grad_mode, run.grads  # amid a layer of another scope
        for layer in left:
            run.play_layer(layer, scope.env)
        run.caller.grad_mode = mode
        scope.played = len(scope.layers)
        return run, scope.env

    def _around(self, depth: int, name: str) -> Value:
        """A value that the scope has not made: what the one around it has, or a gradient that comes there."""
        run, env = self._played(depth - 1)
        try:
            return env[name]
        except KeyError:
            spec = self._recorder.live.specs[name]
            with recording(None):
                fixed = Spec(tuple(map(int, spec.shape)), tuple(map(int, spec.strides)), spec.dtype)
            return run.ledger.hold(Value(fixed, run.ledger.resident(0, "", name)))

    # what the gradients ask of their stage ----------------------------------------------------------------------------------

    @property
    def live(self) -> LiveTensors:
        """The tensors there are."""
        return self._recorder.live

    @property
    def layers(self) -> list[Layer]:
        """What was done so far."""
        return self._recorder.layers

    @property
    def castings(self) -> tuple[Casting, ...]:
        """What contexts of autocast say here."""
        return self._recorder.castings

    @property
    def checkpoints(self) -> Checkpoints:
        """The calls of ``torch.utils.checkpoint``."""
        return self._recorder.checkpoints

    def __enter__(self) -> Any:
        return self._recorder.__enter__()

    def __exit__(self, *error: object) -> None:
        self._recorder.__exit__(*error)

    def act(self, op: str, tensors: Any, **attributes: Any) -> tuple[Layer, list[tuple[str, Value]]]:
        """An action written down and, where the engine runs, done: its layer, and what it gave."""
        recorder = self._recorder
        recorder.differentiates()
        if op in ENGINE and recorder.packings.pair is not None and any(map(_runs_again, recorder.layers)):
            raise self.refusal(
                f"{ENGINE[op]} under saved_tensors_hooks, through a custom function whose own backward runs another: end the hooks before"
            )
        run, env = self._played(len(self._scopes) - 1) if op in ENGINE else (self._run, None)
        name = recorder.live.take(f"{recorder.path()}.{op}".lstrip("."))
        amid = recorder.castings if op in ENGINE else ()
        layer = Layer(
            name=name, op=op, tensors=tensors, attributes=tuple(attributes.items()), checkpoint=recorder.checkpoint, autocast=amid
        )
        recorder.live.drops.append([])
        recorder.layers.append(layer)
        recorder.switches.seen(name)
        if run is None or env is None:
            return layer, []
        recorder.refuse_card(f"{ENGINE[op]} inside a forward", NOT_YET)
        self.ran = True
        inside = len(self._scopes) > 1  # what is around it goes on afterwards as if this had not run
        played = replace(layer, attributes=(*attributes.items(), ("retain_graph", True))) if inside else layer
        run.ledger.layer = name
        try:
            found = Acting.done(run.actions, played, env)  # type: ignore[arg-type]
        except MemestError as e:
            raise e.at(recorder.place()) from None
        self._scopes[-1].played += 1
        if op == "backward" and not self._trains and any(leaf not in self.gradients.leaves for leaf, _ in found):
            raise self.refusal(
                "a backward pass into parameters where nothing is trained, whose gradients would add up: torch.autograd.grad"
            )
        return layer, found

    def act_on_one(self, op: str, name: str, **attributes: Any) -> None:
        """An action on one tensor."""
        self.act(op, ((name,),), **attributes)

    def called(self, t: torch.Tensor) -> str:
        """The name that a tensor goes by now."""
        return self.live.known(t).names[-1]

    def made(self, out: str, like: Tracked | None, value: Value) -> torch.Tensor:
        """A tensor for what an action gave, called ``out``: of the sizes of ``like`` (None: those it has)."""
        handle, spec = handle_of(value, like)
        kept = Value(spec, self._recorder.machine.ledger.allocate(nbytes(spec.shape, spec.dtype)))
        self.live.follow(handle, out, kept, value.requires_grad)
        run, env = self._run, self._scopes[-1].env
        assert run is not None and env is not None
        env[out] = run.ledger.hold(value)
        return handle

    def refuse_card(self, what: str, why: str = NOT_YET) -> None:
        """On a card the network stops here."""
        self._recorder.refuse_card(what, why)

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""
        return self._recorder.refusal(what)

    def place(self) -> str:
        """Module path and line of user code."""
        return self._recorder.place()

    # answers --------------------------------------------------------------------------------------------------------------

    def _is_leaf(self, t: torch.Tensor) -> bool:
        return self.gradients.leaf_name(self.live.known(t)) in self.gradients.leaves

    def _turn(self, t: torch.Tensor, wanted: bool) -> torch.Tensor:
        """``t.requires_grad_(wanted)``."""
        entry = self.live.known(t)
        if entry.grad != wanted and any(p.name == entry.names[0] for p in self.live.parameters):
            raise self.refusal(
                f"requires_grad_({wanted}) of the network's own {entry.names[0]!r} inside forward: freeze or train it outside"
            )
        if wanted and self._trains and any(i.name == entry.names[0] for i in self._recorder.inputs):
            raise self.refusal(
                f"requires_grad_({wanted}) of an input itself in a training step, whose gradient stays with who gave it: take"
                " x.detach().requires_grad_()"
            )
        return self.gradients.require(t, wanted)

    def _read(self, t: torch.Tensor) -> torch.Tensor | None:
        """``t.grad``. That of a parameter is None while no backward runs inside (who trains sets it to None before the next step)."""
        entry = self.live.known(t)
        if self._is_leaf(t):
            return self.gradients.of(t)
        if self.ran and entry.grad:
            raise self.refusal(
                f"{entry.names[0]}.grad after a backward inside a forward, where others may train it, too:"
                " torch.autograd.grad gives it alone"
            )
        return None

    def _exchange(self, t: torch.Tensor, given: torch.Tensor) -> None:
        """``t.data = given``."""
        exchange(self, t, given, again=self._recorder.checkpoint is not None or len(self._scopes) > 1)
        if any(layer.op == "set_data" for layer in self.layers[-1:]):
            self._recorder.refuse_card("tensor.data = … inside a forward", f"{NOT_YET}, or for the whole step: memest.step")

    def _write(self, t: torch.Tensor, value: Any) -> Any:
        """``t.grad = value``."""
        if value is not None:
            return NotImplemented
        if self._is_leaf(t):
            self.gradients.put(t, None)
        elif self.ran and self.live.known(t).grad:
            raise self.refusal(
                "tensor.grad = None after a backward inside a forward, of a tensor that others may train, too:"
                " clear it outside, before the step"
            )
        return None


class _OfForward(Gradients):
    """Gradients of leaves that the forward makes; those of the network's own parameters have no names in it."""

    def _after_backward(self, layer: Layer, found: Sequence[tuple[str, Value]]) -> None:
        named: list[tuple[str, str]] = []
        for leaf, value in found:
            t = self.leaves[leaf]() if leaf in self.leaves else None
            if t is not None:
                out = self._stage.live.take(f"{leaf}.grad")
                self.standing[leaf] = self._stage.made(out, self._stage.live.known(t), value)
                named.append((leaf, out))
        leaves, outputs = tuple(leaf for leaf, _ in named), tuple(out for _, out in named)
        self._stage.layers[-1] = replace(layer, tensors=(*layer.tensors, leaves), outputs=outputs)
