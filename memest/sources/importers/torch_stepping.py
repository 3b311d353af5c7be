"""The recorder of a whole training step: what the user's function does beside calling modules, written down as actions among the layers.

What a backward reaches is not guessed: every layer is played at once, at the sizes of the example, by the same run that an estimate plays
(``shadow``), and its leaves are those that get a gradient there.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.utils.clip_grad as clipping
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from memest.errors import MemestError, UnsupportedError
from memest.machines.versions import release
from memest.network.graph import Graph, Layer, Parameter
from memest.network.tensor import Spec, channels_last_strides, contiguous_strides, nbytes
from memest.runtimes.runtime import AS_DESCRIBED
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.optimizers import described
from memest.runtimes.torch.step import Recipe
from memest.runtimes.torch.step.acting import Acting
from memest.runtimes.torch.step.parallel import Alone
from memest.runtimes.torch.step.run import Run
from memest.sizes.dims import resolve
from memest.sources.importers.torch_functions import full_name
from memest.sources.importers.torch_live import LiveTensors, Tracked
from memest.sources.importers.torch_numbers import STAND_INS
from memest.sources.importers.torch_recording import Begun, Recorder
from memest.sources.importers.torch_repeats import Repeats
from memest.sources.importers.torch_surroundings import Surroundings
from memest.sources.importers.torch_tensors import dtype_of, twin


class State(NamedTuple):
    """What a step leaves for the next: the gradients that stand, by the name of their tensor; the tensors whose ``requires_grad`` it
    turned; and other tensors that its code keeps."""

    gradients: tuple[str, ...] = ()
    flags: tuple[tuple[str, bool], ...] = ()
    kept: tuple[tuple[str, tuple[int, ...]], ...] = ()


class StepTensors(LiveTensors):
    """The live tensors of a step: those it finds outside go by the names of their variables, and the recorder is told of them."""

    recorder: StepRecorder

    def own(self, t: torch.Tensor, name: str, *, trainable: bool = False, buffer: bool = True) -> None:
        """A tensor that is there before the step; a real one is checked to be what its metadata says."""
        recorder = self.recorder
        if name.startswith("constant") and not t.is_meta:
            name, trainable, buffer = recorder.outside(t)
        trainable = recorder.flags.get(name, trainable)
        super().own(t, name, trainable=trainable, buffer=buffer)
        recorder.owned_now(t, self.parameters[-1])


class StepRecorder(Recorder):
    """Records one call of a step. ``before`` is what the step before left (None: this is the first); ``state`` what this one leaves."""

    state: State

    def __init__(
        self,
        root: nn.Module,
        name: str,
        repeats: Repeats,
        found: Surroundings,
        before: State | None,
        kept: Sequence[torch.Tensor] = (),
        stand_in: float = STAND_INS[0],
    ) -> None:
        super().__init__(root, name, True, repeats, stand_in=stand_in)
        self.found = found
        self.flags = dict(before.flags) if before is not None else {}
        self.texts: dict[tuple[str, int], str] = {}
        self._before = before or State()
        self._is_first = before is None
        self._grads: dict[str, torch.Tensor] = {}
        self._gradient_of: dict[str, str] = {}
        self._leaves: dict[str, weakref.ref[torch.Tensor]] = {}
        self._leaf_names: dict[int, str] = {}
        self._stray: list[torch.Tensor] = []
        self._shadow: Run | None = None
        self._averaged: dict[str, bool] = {}
        tensors = StepTensors(self.machine.ledger, on_meta=self.owned.on_meta, refusal=self.refusal)
        tensors.recorder, self.live = self, tensors
        for t in kept:
            self.live.own(t, self.live.unique("kept"))
        del kept
        self.standing = [p.name for p in self.live.parameters]
        self._places = [(table, key, t) for table in self.owned.tables for key, t in table.items() if t is not None]
        self.watched = {
            **self.watched,
            "backward": self._backward,
            "grad": self._grad,
            "requires_grad_": lambda f, a, k: self._require(a[0], bool(a[1] if len(a) > 1 else k.get("requires_grad", True))),
            "__set__:requires_grad": lambda f, a, k: self._require(a[0], bool(a[1])),
            "__get__:is_leaf": lambda f, a, k: self._is_leaf(self.live.known(a[0])),
            "__get__:grad": lambda f, a, k: self._grads.get(self._leaf_name(self.live.known(a[0]))),
            "__set__:grad": lambda f, a, k: self._set_gradient(a[0], a[1]),
            "__bool__": self._decide,
            "_amp_foreach_non_finite_check_and_unscale_": lambda f, a, k: self.numbers.zeros.append(a[1]),
            "_amp_update_scale_": lambda f, a, k: a[0],
            "detach_": self._detached,
            "broadcast_tensors": self._broadcast,
            **{n: self._each for n in dir(torch) if n.startswith("_foreach_")},
        }

    # before and after ----------------------------------------------------------------------------------------------------

    def begin(self, inputs: Mapping[str, torch.Tensor], wanting: Sequence[str]) -> None:
        """The step is about to run on these inputs, of which some require a gradient: the stage is set."""
        with torch._C.DisableTorchFunction():
            self._set_the_stage()
        for name in wanting:
            self._require(inputs[name], True)

    def _set_the_stage(self) -> None:
        for table, key, original in self._places:
            self.live.twins[id(original)] = table[key]
        for name, optimizer in self.found.optimizers.items():
            for group, trained in zip(optimizer.param_groups, self.found.trained[name], strict=True):
                group["params"][:] = [self._in_place_of(p, f"{name}.parameter{i}") for i, p in enumerate(trained)]
        sizes = dict(self.sizes)
        shapes: dict[str, Any] = {i.name: resolve(i.shape, sizes) for i in self.inputs}
        recipe = Recipe(training=True, target=self.machine.target)
        empty = Graph(name=self.name, inputs=tuple(self.inputs), parameters=tuple(self.live.parameters), layers=(), outputs=(), step=True)
        self._shadow = Run(empty, shapes, sizes, recipe, AS_DESCRIBED, Alone(), remember=True)
        self._shadow.actions = Acting(self._shadow)
        for leaf in self._before.gradients:
            of = next(p for p in self.live.parameters if p.name == leaf)
            t = self._leaves[leaf]()
            assert t is not None
            handle = twin(t)
            name = self.live.unique(f"{leaf}.grad")
            self._gradient_of[name] = of.name
            self._grads[leaf] = handle
            self.live.own(handle, name)

    def end(self) -> None:
        """The step is over: the gradients of tensors that are not the network's go with them."""
        own = {p.name for p in self.live.parameters}
        for leaf in [n for n in self._grads if n not in own]:
            del self._grads[leaf]
        self.lasting = {self.live.known(t).names[0] for t in self._grads.values()}
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
        self._leaves[p.name] = weakref.ref(t)
        if p.name in self._gradient_of:
            self.live.parameters[-1] = p = replace(p, gradient_of=self._gradient_of[p.name])
        if self._shadow is not None:
            self._shadow.own(p)
            self._shadow.owned.add(p.name)

    def _outputs(self, result: Any) -> tuple[str, ...]:
        return ()

    def _finished(self, outputs: tuple[str, ...]) -> Graph:
        """The graph; gradients that stand outlive the step like the parameters they belong to."""
        graph = super()._finished(outputs)
        before = [t for e in self.live.tracked.values() if e.names[0] in self.standing and (t := e.ref()) is not None]
        self.survivors.tensors[:0] = before
        del before
        flags = {p.name: e.grad for e in self.live.tracked.values() for p in self.live.parameters if e.names[0] == p.name}
        turned = tuple((p.name, flags[p.name]) for p in graph.parameters if p.name in flags and flags[p.name] != p.trainable)
        kept = tuple(sorted((dtype_of(t), tuple(t.shape)) for t in self.survivors.tensors))
        self.state = State(tuple(sorted(self._grads)), tuple(sorted((dict(self._before.flags) | dict(turned)).items())), kept)
        return graph.with_(step=True, torch=release(torch.__version__))

    # layers --------------------------------------------------------------------------------------------------------------

    def _written(
        self, layer: Begun, attributes: Any, tensors: Sequence[torch.Tensor], values: Sequence[Value], differentiable: bool
    ) -> None:
        super()._written(layer, attributes, tensors, values, differentiable)
        shadow = self._played
        written = self.layers[-1]
        try:
            shadow.play_layer(written, shadow.env)
        except MemestError as e:
            raise e.at(self._place()) from None
        for t, out in zip(tensors, written.outputs, strict=True):
            entry = self.live.known(t)
            entry.grad = shadow.env[out].requires_grad
            if written.op in ("eq", "gt") and written.reads[0].rpartition(".")[2].startswith("n_averaged"):
                self._averaged[out] = self._is_first == (written.op == "eq")

    @property
    def _played(self) -> Run:
        assert self._shadow is not None
        return self._shadow

    def _act(self, op: str, tensors: Any, **attributes: Any) -> tuple[Layer, list[tuple[str, Value]]]:
        """An action written down and done: its layer, and what it gave."""
        name = self.live.take(op)
        self.live.drops.append([])
        layer = Layer(name=name, op=op, tensors=tensors, attributes=(*attributes.items(), ("at", self._line())))
        self.layers.append(layer)
        return layer, self._done(layer)

    def _done(self, layer: Layer) -> list[tuple[str, Value]]:
        shadow = self._played
        shadow.ledger.layer = layer.name
        try:
            return Acting.done(shadow.actions, layer, shadow.env)  # type: ignore[arg-type]
        except MemestError as e:
            raise e.at(self._place()) from None

    def _act_on_one(self, op: str, name: str, **attributes: Any) -> None:
        """An action on one more tensor: together with those before, where they come in a row."""
        last = self.layers[-1] if self.layers else None
        if (
            last is None
            or last.op != op
            or dict(last.attributes)["at"] != self._line()
            or attributes.items() - dict(last.attributes).items()
        ):
            self._act(op, ((name,),), **attributes)
            return
        self._done(replace(last, tensors=((name,),)))
        before = last.tensors[0]
        assert isinstance(before, tuple)
        self.layers[-1] = replace(last, tensors=((*before, name),))

    def _line(self) -> str:
        """``train.py:31``."""
        return self._place().rpartition(" (")[2].rstrip(")")

    # gradients -----------------------------------------------------------------------------------------------------------

    def _backward(self, func: Any, args: Any, kwargs: Any) -> Any:
        method = func is torch.Tensor.backward
        if not method and func is not torch.autograd.backward:
            return NotImplemented
        given = inspect.signature(func).bind(*args, **kwargs)
        given.apply_defaults()
        a = given.arguments
        roots = [a["self"]] if method else _listed(a["tensors"])
        gradients = a["gradient"] if method else a["grad_tensors"]
        gradients = [None] * len(roots) if gradients is None else _listed(gradients)
        with self:
            self.engine(roots, gradients, a["retain_graph"], a["create_graph"], a["inputs"], accumulate=True)
        return None

    def _grad(self, func: Any, args: Any, kwargs: Any) -> Any:
        if full_name(func) != "torch.autograd.grad":
            return NotImplemented
        given = inspect.signature(func).bind(*args, **kwargs)
        given.apply_defaults()
        a = given.arguments
        if a["is_grads_batched"]:
            raise self.refusal("torch.autograd.grad(is_grads_batched=True)")
        roots, inputs = _listed(a["outputs"]), _listed(a["inputs"])
        gradients = [None] * len(roots) if a["grad_outputs"] is None else _listed(a["grad_outputs"])
        with self:
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
        if create:
            raise self.refusal("create_graph=True (a gradient of gradients): what backward's own graph keeps is not modelled")
        if accumulate and inputs:
            raise self.refusal("backward(inputs=…), which fills some gradients only; torch.autograd.grad is modelled")
        for i, root in enumerate(roots):
            entry = self.live.known(root)
            if not entry.grad:
                raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn")
            if gradients[i] is None and root.numel() != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
        made = [torch.ones_like(root) if g is None else g for root, g in zip(roots, gradients, strict=True)]
        names = tuple(self._names_of(roots)), tuple(self._names_of(made))
        keep = {"retain_graph": True} if retain else {}
        if accumulate:
            self._after_backward(*self._act("backward", names, **keep))
            return ()
        wanted = list(inputs)
        for i, t in enumerate(wanted):
            if not self.live.known(t).grad:
                raise RuntimeError(f"One of the differentiated Tensors (number {i}) does not require grad")
        layer, found = self._act("autograd_grad", (*names, tuple(self._names_of(wanted))), **keep)
        handles: list[torch.Tensor | None] = [None] * len(wanted)
        outputs: list[str] = []
        for index, value in found:
            handle = self._handle(self.live.known(wanted[int(index)]), value)
            out = self.live.take(f"{layer.name}.{index}")
            self._follow(handle, out, self.live.known(wanted[int(index)]), value)
            outputs.append(out)
            handles[int(index)] = handle
            self._played.ledger.let_go(value)
        self.layers[-1] = replace(layer, outputs=tuple(outputs))
        return tuple(handles)

    def _names_of(self, tensors: Sequence[Any]) -> Iterator[str]:
        return (self.live.known(t).names[-1] for t in tensors)

    def _after_backward(self, layer: Layer, found: Sequence[tuple[str, Value]]) -> None:
        """Names and tensors for the gradients that are there now; a leaf that is gone from Python has no name for it."""
        named: list[tuple[str, str]] = []
        unnamed: list[str] = []
        for leaf, value in found:
            t = self._leaves[leaf]()
            if t is None:
                unnamed.append(leaf)
                continue
            entry = self.live.known(t)
            handle, out = self._handle(entry, value), self.live.take(f"{leaf}.grad")
            self._follow(handle, out, entry, value)
            self._grads[leaf] = handle
            named.append((leaf, out))
        leaves = (*(leaf for leaf, _ in named), *unnamed)
        self.layers[-1] = replace(layer, attributes=(*layer.attributes, ("leaves", leaves)), outputs=tuple(out for _, out in named))

    def _handle(self, entry: Tracked, value: Value) -> torch.Tensor:
        spec = value.spec
        with torch._C.DisableTorchFunction():
            shape, strides = tuple(map(int, spec.shape)), tuple(map(int, spec.strides))
            return torch.empty_strided(shape, strides, dtype=getattr(torch, spec.dtype), device="meta")

    def _follow(self, handle: torch.Tensor, out: str, like: Tracked, value: Value) -> None:
        """``handle`` is called ``out``: a tensor of the sizes of ``like``."""
        shape, strides = like.value.spec.shape, tuple(map(int, value.spec.strides))
        lies = [s for s in (like.value.spec.strides, contiguous_strides(shape)) if tuple(map(int, s)) == strides]
        if not lies and len(shape) in (4, 5):
            lies = [s for s in (channels_last_strides(shape),) if tuple(map(int, s)) == strides]
        spec = Spec(shape, lies[0] if lies else value.spec.strides, value.spec.dtype)
        self.live.follow(handle, out, Value(spec, self.machine.ledger.allocate(nbytes(spec.shape, spec.dtype))), False)
        shadow = self._played
        shadow.env[out] = shadow.ledger.hold(value)

    def _leaf_name(self, entry: Tracked) -> str:
        return self._leaf_names.get(id(entry), entry.names[0])

    def _is_leaf(self, entry: Tracked) -> bool:
        return not entry.grad or self._leaf_name(entry) in self._leaves

    def _require(self, t: torch.Tensor, wanted: bool) -> torch.Tensor:
        entry = self.live.known(t)
        if entry.grad == wanted:
            return t
        if not self._is_leaf(entry):
            raise RuntimeError("you can only change requires_grad flags of leaf variables")
        if wanted and not t.dtype.is_floating_point:
            raise RuntimeError("only Tensors of floating point dtype can require gradients")
        name = entry.names[-1]
        if self._leaf_name(entry) not in self._leaves:
            self._leaf_names[id(entry)] = name
            self._leaves[name] = weakref.ref(t)
            weakref.finalize(t, self._grads.pop, name, None).atexit = False
        self._act_on_one("requires_grad", name, value=wanted)
        entry.grad = wanted
        return t

    def _set_gradient(self, t: torch.Tensor, value: Any) -> None:
        leaf = self._leaf_name(self.live.known(t))
        if value is not None:
            name = self.live.known(t).names[-1]
            if leaf not in self._leaves or not self.live.known(t).grad:
                raise self.refusal("tensor.grad = … of a tensor that requires no gradient of its own")
            self._act("set_gradient", (name, self.live.known(value).names[-1]))
            self._grads[leaf] = value
        elif leaf in self._grads:
            self._act_on_one("forget_gradients", self.live.known(t).names[-1])
            del self._grads[leaf]

    def _detached(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.live.known(args[0]).grad:
            raise self.refusal("detach_() of a tensor that requires a gradient (detach() is modelled)")
        return args[0]

    # decisions, and calls that are taken apart ---------------------------------------------------------------------------

    def _decide(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A decision that every step but the first takes alike: whether an AveragedModel was updated before."""
        entry = self.live.found(args[0])
        return NotImplemented if entry is None else self._averaged.get(entry.names[-1], NotImplemented)

    def _broadcast(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``torch.broadcast_tensors``: a tensor that is large enough is given back as it is."""
        tensors = args[0] if len(args) == 1 and isinstance(args[0], list | tuple) else args
        with self:
            shape = torch.broadcast_shapes(*(t.shape for t in tensors))
            return tuple(t if t.shape == shape else t.expand(shape) for t in tensors)

    def _each(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``torch._foreach_*``: tensor by tensor, as its slow path does on a CPU."""
        name = str(func.__name__).removeprefix("_foreach_")
        call = torch.linalg.vector_norm if name == "norm" else getattr(torch.Tensor, name)
        rows = range(len(args[0]))

        def part(value: Any, i: int) -> Any:
            return value[i] if isinstance(value, list | tuple) else value

        with self:
            made = [call(*(part(a, i) for a in args), **{k: part(v, i) for k, v in kwargs.items()}) for i in rows]
        return None if name.endswith("_") else tuple(made)

    # optimizers ----------------------------------------------------------------------------------------------------------

    def optimizer_step(self, name: str, optimizer: torch.optim.Optimizer, closure: Any) -> None:
        """``optimizer.step()``, group by group."""
        kind = type(optimizer)
        if closure is not None:
            raise self.refusal(f"{kind.__name__}.step(closure)")
        if not kind.__module__.startswith("torch.optim"):
            raise self.refusal(f"the optimizer {kind.__name__}, which is not one of torch.optim")
        hooks = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
        if any(getattr(optimizer, h, None) for h in hooks):
            raise self.refusal(f"a hook on the step of {name}")
        optimizer._opt_called = True
        groups = optimizer.param_groups
        for i, group in enumerate(groups):
            try:
                text = self.texts.setdefault((name, i), described(kind.__name__, group))
            except MemestError as e:
                raise UnsupportedError(str(e)).at(self._place()) from None
            given: list[str] = []
            others: list[str] = []
            for p in group["params"]:
                entry = self.live.known(p)
                (given if self._leaf_name(entry) in self._grads else others).append(entry.names[0])
            if given:
                of = name if len(groups) == 1 else f"{name}.{i}"
                self._act("optimizer_step", (tuple(given), tuple(others)), optimizer=text, of=of)

    def zero_grad(self, optimizer: torch.optim.Optimizer, set_to_none: bool) -> None:
        """``optimizer.zero_grad()``."""
        for group in optimizer.param_groups:
            for p in group["params"]:
                gradient = self._grads.get(self._leaf_name(self.live.known(p)))
                if gradient is None:
                    continue
                if set_to_none:
                    del gradient
                    self._set_gradient(p, None)
                else:
                    gradient.zero_()

    def total_norm(self, original: Any, tensors: Any, norm_type: Any, error_if_nonfinite: bool, foreach: Any) -> torch.Tensor:
        """``torch.nn.utils.get_total_norm``; of gradients in several dtypes it goes call by call."""
        tensors = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        if not tensors or error_if_nonfinite or len({t.dtype for t in tensors}) > 1:
            found: torch.Tensor = original(tensors, norm_type, error_if_nonfinite, foreach)
            return found
        options: dict[str, Any] = {} if foreach is None else {"foreach": bool(foreach)}
        if float(norm_type) != 2.0:
            options["norm_type"] = float(norm_type)
        layer, ((_, value),) = self._act("total_norm", (tuple(self._names_of(tensors)),), **options)
        with torch._C.DisableTorchFunction():
            handle = torch.empty((), dtype=tensors[0].dtype, device="meta")
        out = layer.name
        self.live.follow(handle, out, Value(value.spec, self.machine.ledger.allocate(value.storage.nbytes)), False)
        self._played.env[out] = value
        self.layers[-1] = replace(layer, outputs=(out,))
        return handle

    def scale_gradients(self, original: Any, parameters: Any, max_norm: Any, total_norm: torch.Tensor, foreach: Any) -> None:
        """``torch.nn.utils.clip_grads_with_norm_``."""
        parameters = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        dtypes = {g.dtype for g in (p.grad for p in parameters) if g is not None}
        if dtypes == {total_norm.dtype}:
            self._act("scale_gradients", ((self.live.known(total_norm).names[-1],),))
        else:
            original(parameters, max_norm, total_norm, foreach)


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, torch.Tensor) or value is None else list(value)


@contextmanager
def instead(recorder: StepRecorder) -> Iterator[None]:
    """The methods of the optimizers that were found, and the functions of torch that its calls do not tell of, tell the recorder."""
    with ExitStack() as stack:
        for name, optimizer in recorder.found.optimizers.items():
            optimizer.step = _stepping(recorder, name, optimizer)
            optimizer.zero_grad = _zeroing(recorder, optimizer)
        stack.enter_context(_replaced(torch.autograd, "_engine_run_backward", lambda original: _engine(recorder)))
        for name, method in (("_get_total_norm", _norm), ("_clip_grads_with_norm_", _scaling)):
            if hasattr(clipping, name):
                stack.enter_context(_replaced(clipping, name, lambda original, method=method: method(recorder, original)))

        def unseen(optimizer: Any, *_: Any) -> None:
            raise recorder.refusal(
                f"an optimizer ({type(optimizer).__name__}) that the step reaches in a way memest does not follow: give it as an argument"
            )

        hook = register_optimizer_step_pre_hook(unseen)
        stack.callback(hook.remove)
        yield


@contextmanager
def _replaced(home: Any, name: str, made: Any) -> Iterator[None]:
    original = getattr(home, name)
    setattr(home, name, made(original))
    try:
        yield
    finally:
        setattr(home, name, original)


def _stepping(recorder: StepRecorder, name: str, optimizer: torch.optim.Optimizer) -> Any:
    def step(closure: Any = None) -> None:
        recorder.optimizer_step(name, optimizer, closure)

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]  # what a scheduler looks for
    return step


def _zeroing(recorder: StepRecorder, optimizer: torch.optim.Optimizer) -> Any:
    def zero_grad(set_to_none: bool = True) -> None:
        recorder.zero_grad(optimizer, set_to_none)

    return zero_grad


def _engine(recorder: StepRecorder) -> Any:
    def run(roots: Any, gradients: Any, keep: Any, create: Any, inputs: Any = (), *_: Any, accumulate_grad: bool = True, **__: Any) -> Any:
        return recorder.engine(roots, gradients, keep, create, inputs, accumulate=accumulate_grad)

    return run


def _norm(recorder: StepRecorder, original: Any) -> Any:
    def get_total_norm(tensors: Any, norm_type: Any = 2.0, error_if_nonfinite: bool = False, foreach: Any = None) -> torch.Tensor:
        return recorder.total_norm(original, tensors, norm_type, error_if_nonfinite, foreach)

    return get_total_norm


def _scaling(recorder: StepRecorder, original: Any) -> Any:
    def clip_grads_with_norm_(parameters: Any, max_norm: Any, total_norm: torch.Tensor, foreach: Any = None) -> None:
        recorder.scale_gradients(original, parameters, max_norm, total_norm, foreach)

    return clip_grads_with_norm_
