"""The recorder of a whole training step: what the user's function does beside calling modules, written down as actions among the layers.

What a backward reaches is not guessed: every layer is played at once, at the sizes of the example, by the same run that an estimate plays
(``shadow``), and its leaves are those that get a gradient there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from memest.errors import MemestError
from memest.machines.versions import release
from memest.network.graph import Graph, Layer, Parameter
from memest.network.tensor import Shape, nbytes
from memest.runtimes.torch.autograd.nodes import keeps
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.acting import Acting
from memest.runtimes.torch.step.functions import hook_leaf
from memest.runtimes.torch.step.run import Run
from memest.sources.assumptions import Assumptions
from memest.sources.importers.torch.contexts.gradients import RETAINED, Gradients
from memest.sources.importers.torch.contexts.inner import ENGINE, opened
from memest.sources.importers.torch.contexts.late import Late
from memest.sources.importers.torch.contexts.leaf_hooks import hooks_on, recorded, waiting
from memest.sources.importers.torch.contexts.stage import handle_of
from memest.sources.importers.torch.recording.recorder import Recorder
from memest.sources.importers.torch.recording.repeats import Repeats
from memest.sources.importers.torch.recording.trace import Done, Handle
from memest.sources.importers.torch.recording.writing import Begun
from memest.sources.importers.torch.steps.line_search import Search
from memest.sources.importers.torch.steps.readings import Readings
from memest.sources.importers.torch.steps.retaining import Retaining
from memest.sources.importers.torch.steps.updates import Updates
from memest.sources.importers.torch.surroundings import Surroundings
from memest.sources.importers.torch.tensors.described import dtype_of, leaves, twin
from memest.sources.importers.torch.tensors.keeping import Kept
from memest.sources.importers.torch.tensors.live import LiveTensors, Tracked

OF_HOOKS = frozenset({"optimizer_step", "forget_gradients"})
"""What hooks of parameters may do of what a step does."""


OUT_OF_PLACE = {
    "requires_grad": "requires_grad_()",
    "autograd_grad": "torch.autograd.grad",
    "backward": "a backward pass",
    "set_gradient": "tensor.grad = …",
    "total_norm": "torch.nn.utils.get_total_norm",
    "scale_gradients": "clipping gradients by their norm",
}
"""The rest, as a user writes it."""


class State(NamedTuple):
    """What a step leaves for the next: the gradients that stand, by the name of their tensor; the tensors whose ``requires_grad`` it
    turned; and other tensors that its code keeps."""

    gradients: tuple[str, ...] = ()
    flags: tuple[tuple[str, bool], ...] = ()
    kept: tuple[tuple[str, tuple[int, ...]], ...] = ()


class StepTensors(LiveTensors):
    """The live tensors of a step: those it finds outside go by the names of their variables, and the recorder is told of them."""

    recorder: StepRecorder
    earlier = "in an earlier call of the step, as an optimizer that it makes and keeps has them: make that before the step; "

    def own(
        self,
        t: torch.Tensor,
        name: str,
        *,
        trainable: bool = False,
        buffer: bool = True,
        sizes: Shape | None = None,
        host: bool = False,
        registered: bool = True,
    ) -> None:
        """A tensor that is there before the step; a real one is checked to be what its metadata says. All count: whose variable holds
        one, knows of it."""
        recorder = self.recorder
        if name.startswith("constant") and not t.is_meta:
            name, trainable, buffer = recorder.outside(t)
            host = False  # who trains on a card brings his variables there
        trainable = recorder.flags.get(name, trainable)
        super().own(t, name, trainable=trainable, buffer=buffer, sizes=sizes, host=host)
        recorder.owned_now(t, self.parameters[-1])


class StepRecorder(Recorder):
    """Records one call of a step. ``before`` is what the step before left (None: this is the first); ``state`` what this one leaves."""

    state: State
    lends_memory = True

    def __init__(
        self,
        root: nn.Module,
        name: str,
        repeats: Repeats,
        found: Surroundings,
        before: State | None,
        kept: Sequence[Kept],
        stand_in: float,
        texts: dict[tuple[str, int], str],
        assumptions: Assumptions,
    ) -> None:
        super().__init__(root, name, True, repeats, stand_in=stand_in, assumptions=assumptions)
        self.found = found
        self._late = Late(self)
        self.flags = dict(before.flags) if before is not None else {}
        self._before = before or State()
        self._gradient_of: dict[str, str] = {}
        self._stray: list[torch.Tensor] = []
        self._shadow: Run | None = None
        self.grads = Gradients(self)
        self.readings = Readings(self, self.numbers.zeros, lambda: self.checkpoint is not None, first=before is None)
        self.updates = Updates(self, self.grads, found.optimizers, found.trained, texts, self.assumed.say, self.assumed.evaluations)
        tensors = StepTensors(self.machine.ledger, on_meta=self.owned.on_meta, refusal=self.refusal)
        tensors.recorder, self.live = self, tensors
        homes = self._kept_for()
        for t in kept:
            if not t.within:
                self.live.own(t.tensor, self.live.unique("kept"), trainable=t.grad, buffer=not t.grad, sizes=t.sizes, host=t.host)
                self.live.parameters[-1] = replace(self.live.parameters[-1], state_of=homes.get(id(t.tensor)))
        del homes
        self._lent = [t for t in kept if t.within]
        del kept
        self.standing = [p.name for p in self.live.parameters]
        self._places = [(table, key, t) for table in self.owned.tables for key, t in table.items() if t is not None]
        own = {name: self._where(name, answer) for name, answer in self.grads.watched.items()}
        self._search = Search(self.numbers.answers["__float__"], self.assumed.evaluations, lambda: self.layers[-1].op)
        self.watched = {
            **{**self.watched, **own, **self.readings.watched, **Retaining(self, self.grads).watched},
            "__bool__": self._decide,
            "__float__": self._search.number,
            "item": self._number,
        }

    def _kept_for(self) -> dict[int, str]:
        """What optimizers keep, by id, and for which parameter."""
        names = {id(p): path for path, p in self.owned.tensors}
        states = [(name, *item) for name, optimizer in self.found.optimizers.items() for item in optimizer.state.items()]
        return {id(t): names.get(id(home), name) for name, home, state in states for t in leaves(state)}

    @property
    def late(self) -> Late | None:
        """The hooks that wait for the engine."""
        return None if self.elsewhere or self.checkpoint is not None else self._late

    def shadow(self) -> Run | None:
        """The run that has played all layers of the step so far."""
        return self._shadow

    def _where(self, name: str, own: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
        """What is asked about gradients: in calls that run at another time it is about those of their own leaves, too."""
        inner = self.inner.watched[name]

        def answer(func: Any, args: Any, kwargs: Any) -> Any:
            of_step = name.endswith(":grad") and self.grads.leaf_name(self.live.known(args[0])) in self.grads.leaves
            return (inner if self.elsewhere and not of_step else own)(func, args, kwargs)

        return answer

    def _decide(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A decision that every step takes alike, or that is assumed."""
        if (searching := self._search.goes_on()) is not None:
            return searching
        answer = self.readings.watched["__bool__"](func, args, kwargs)
        return self.assumed.decide(func, args, kwargs) if answer is NotImplemented else answer

    def _number(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A number that is read: that of an optimizer's step is known."""
        known = self.updates.made.number(func, args, kwargs)
        return self.numbers.answers["item"](func, args, kwargs) if known is NotImplemented else known

    # before and after ----------------------------------------------------------------------------------------------------

    def begin(self, inputs: Mapping[str, torch.Tensor], wanting: Sequence[str]) -> None:
        """The step is about to run on these inputs, of which some require a gradient: the stage is set."""
        with torch._C.DisableTorchFunction():
            self._set_the_stage()
        for hook in hooks_on(self.owned):
            found = recorded(self, hook, self.grads.standing) if hook.after else waiting(self, self._late, hook)
            self.hooks = (*self.hooks, found)
            hook_leaf(self.played, found)
        if self.standing:  # what dies before all calls dies here
            self.add(Layer(name=self.live.take("begin"), op="forget_gradients", tensors=((),), attributes=(("at", ""),)))
        for name in wanting:
            self.grads.require(inputs[name], True)

    def _hook_parameters(self) -> None:
        """Their hooks wait until the stage is set."""

    def _set_the_stage(self) -> None:
        for table, key, original in self._places:
            self.live.twins[id(original)] = table[key]
        for name, optimizer in self.found.optimizers.items():
            for group, trained in zip(optimizer.param_groups, self.found.trained[name], strict=True):
                group["params"][:] = [self._in_place_of(p, f"{name}.parameter{i}") for i, p in enumerate(trained)]
        self._open_shadow()
        for leaf in self._before.gradients:
            of = next(p for p in self.live.parameters if p.name == leaf)
            t = self.grads.leaves[leaf]()
            assert t is not None
            handle = twin(t)
            name = self.live.unique(f"{leaf}.grad")
            self._gradient_of[name] = of.name
            self.grads.standing[leaf] = handle
            self.live.own(handle, name)
        while self._lent:
            self._lend_memory(self._lent.pop(0))

    def _lend_memory(self, kept: Kept) -> None:
        """A tensor whose memory a registered one has got stands there, as another tensor."""
        name = self.live.take("kept")
        value = next(e.value for e in self.live.tracked.values() if e.names[0] == kept.within)
        self.add(Layer(name=name, op="data", tensors=(kept.within,), outputs=(name,), grad=False))
        self.live.follow(kept.tensor, name, Value(value.spec, value.storage), grad=False)
        self.standing.append(name)

    def _open_shadow(self) -> None:
        """The run that plays every layer at once begins."""
        self._shadow = opened(self, self.machine.target, step=True)
        self._shadow.late = self._late
        self._shadow.machine.line_of = lambda layer: self.lines.get(layer, "")

    def end(self) -> None:
        """The step is over: the gradients of tensors that are not the network's stay with them, and go with them."""
        own = {p.name for p in self.live.parameters}
        for leaf in [n for n in self.grads.standing if n not in own]:
            gradient, t = self.grads.standing.pop(leaf), self.grads.leaves[leaf]()
            if t is not None:
                vars(t)[RETAINED] = gradient
            del gradient, t
        self.lasting = {self.live.known(t).names[0] for t in self.grads.standing.values()}
        self.numbers.zeros.clear()
        self.found.forget_abandoned()

    def _in_place_of(self, p: torch.Tensor, name: str) -> torch.Tensor:
        """The twin of an optimizer's parameter; of one that no module has, a new one."""
        found = self.live.twins.get(id(p))
        if found is None:
            found = self.live.twins[id(p)] = twin(p)
            self._stray.append(found)
            known = self.found.tensors.get(id(p))
            self.live.own(found, self.live.unique(known[0] if known else name), trainable=p.requires_grad, buffer=False)
        return found

    def outside(self, t: torch.Tensor) -> tuple[str, bool, bool]:
        """The name of a real tensor that the step uses and was not given, whether it is trained, and whether it is a buffer."""
        known = self.found.tensors.get(id(t))
        name = self.live.unique(known[0] if known else "constant")
        with torch._C.DisableTorchFunction():
            graph, trained, size = t.grad_fn is not None, t.requires_grad, t.untyped_storage().nbytes()
            own = nbytes(tuple(t.shape), dtype_of(t))
        if graph:
            raise self.refusal(f"{name!r}, a tensor from before the step that carries an autograd graph: detach it, or make it in the step")
        if size != own:
            raise self.refusal(f"{name!r}, a view of a larger tensor made before the step: give it as an argument of the step, or clone it")
        return name, trained, not trained

    def owned_now(self, t: torch.Tensor, p: Parameter) -> None:
        """A tensor from before the step is known from now on."""
        self.grads.leaves[p.name] = weakref.ref(t)
        if p.name in self._gradient_of:
            self.live.parameters[-1] = p = replace(p, gradient_of=self._gradient_of[p.name])
        if self._shadow is not None:
            self._shadow.own(p)
            self._shadow.owned.add(p.name)

    def _passed(self, outputs: Sequence[str]) -> set[str]:
        return {name for name, value in self.played.env.items() if not keeps(value)}

    def _outputs(self, result: Any) -> tuple[str, ...]:
        return ()

    def _finished(self, outputs: tuple[str, ...]) -> Graph:
        """The graph; gradients that stand outlive the step like the parameters they belong to."""
        graph = super()._finished(outputs)
        grads = {value.storage: f"{leaf}.grad" for leaf, value in self.played.machine.gradients.items() if leaf in self.grads.standing}
        env = self.played.env
        names = [n for t in self.survivors.tensors if (n := self.called(t)) in env]
        self.survivors.of_gradients = {n: grads[env[n].storage] for n in names if env[n].storage in grads}
        before = [t for e in self.live.tracked.values() if e.names[0] in self.standing and (t := e.ref()) is not None]
        self.survivors.tensors[:0] = before
        del before
        flags = {p.name: e.grad for e in self.live.tracked.values() for p in self.live.parameters if e.names[0] == p.name}
        turned = tuple((p.name, flags[p.name]) for p in graph.parameters if p.name in flags and flags[p.name] != p.trainable)
        kept = tuple(sorted((dtype_of(t), tuple(t.shape)) for t in self.survivors.tensors))
        self.state = State(tuple(sorted(self.grads.standing)), tuple(sorted((dict(self._before.flags) | dict(turned)).items())), kept)
        return graph.with_(step=True, torch=release(torch.__version__))

    # layers --------------------------------------------------------------------------------------------------------------

    def _written(
        self, layer: Begun, attributes: Any, tensors: Sequence[torch.Tensor], values: Sequence[Value], differentiable: bool
    ) -> None:
        super()._written(layer, attributes, tensors, values, differentiable)
        if self.elsewhere:
            return
        written = self.layers[-1]
        shadow = self._play(written)
        for t, out in zip(tensors, written.outputs, strict=True):
            entry = self.live.known(t)
            entry.grad = shadow.env[out].requires_grad
        self.readings.noticed(written)

    def add(self, layer: Layer) -> None:
        """Write a layer down that no call of torch stands for, and play it, unless it runs at another time."""
        super().add(layer)
        if not self.elsewhere:
            self._play(layer)

    def _play(self, layer: Layer) -> Run:
        shadow = self.played
        try:
            shadow.play_layer(layer, shadow.env)
        except MemestError as e:
            raise e.at(self._place()) from None
        return shadow

    @property
    def played(self) -> Run:
        assert self._shadow is not None
        return self._shadow

    def act(self, op: str, tensors: Any, **attributes: Any) -> tuple[Layer, list[tuple[str, Value]]]:
        """An action written down and done: its layer, and what it gave."""
        name = self.live.take(op)
        self.live.drops.append([])
        amid = self.castings if op in ENGINE else ()
        said = (*attributes.items(), ("at", self._line()))
        layer = Layer(name=name, op=op, tensors=tensors, attributes=said, checkpoint=self.checkpoint, autocast=amid)
        self.layers.append(layer)
        self.switches.seen(name)
        self._note_line(name)
        return layer, self._done(layer)

    def _done(self, layer: Layer) -> list[tuple[str, Value]]:
        if self.elsewhere and layer.op not in OF_HOOKS:
            raise self.refusal(
                f"{OUT_OF_PLACE.get(layer.op, layer.op)} inside a hook or a custom function's forward or backward: take it out of there"
            )
        if self.elsewhere:
            return []
        shadow = self.played
        shadow.ledger.layer = layer.name
        standing = set(shadow.machine.gradients)
        try:
            found = Acting.done(shadow.actions, layer, shadow.env)  # type: ignore[arg-type]
        except MemestError as e:
            raise e.at(self._place()) from None
        if layer.op == "autograd_grad" and set(shadow.machine.gradients) != standing:
            raise self.refusal(
                "torch.autograd.grad through a function whose own backward runs another into parameters (a checkpoint written by hand):"
                " torch.utils.checkpoint(use_reentrant=False) does not"
            )
        if layer.op in ENGINE and not dict(layer.attributes).get("retain_graph"):
            self._late.done()
        self.trace.append(Done(layer, found))
        return found

    def act_on_one(self, op: str, name: str, **attributes: Any) -> None:
        """An action on one more tensor: together with those before, where they come in a row."""
        last = self.layers[-1] if self.layers else None
        if (
            last is None
            or last.op != op
            or dict(last.attributes)["at"] != self._line()
            or attributes.items() - dict(last.attributes).items()
        ):
            self.act(op, ((name,),), **attributes)
            return
        self._done(replace(last, tensors=((name,),)))
        before = last.tensors[0]
        assert isinstance(before, tuple)
        self.layers[-1] = replace(last, tensors=((*before, name),))

    def _line(self) -> str:
        """``train.py:31``."""
        return self._place().rpartition(" (")[2].rstrip(")")

    def _parameter_copied(self, t: torch.Tensor, grad: bool) -> Any:
        copied = super()._parameter_copied(t, grad=False)
        return self.grads.require(copied, True) if grad else copied

    def called(self, t: torch.Tensor) -> str:
        """The name that a tensor goes by now."""
        return self.live.known(t).names[-1]

    def made(self, out: str, like: Tracked | None, value: Value) -> torch.Tensor:
        """A tensor for what an action gave, called ``out``: of the sizes of ``like`` (None: those it has)."""
        handle, spec = handle_of(value, like)
        self.trace.append(Handle(spec))
        kept = Value(spec, self.machine.ledger.allocate(nbytes(spec.shape, spec.dtype)))
        self.live.follow(handle, out, kept, value.requires_grad)
        self.played.env[out] = self.played.ledger.hold(value)
        return handle
