"""What stands around the calls of a forward that is recorded: modules, checkpoints, contexts, hooks, custom functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from memest.errors import MemestError
from memest.network.graph import Checkpoint, Layer
from memest.sizes.dims import recording, telling
from memest.sources.importers.torch.contexts.custom import end_function, run_forward
from memest.sources.importers.torch.contexts.leaf_hooks import hooks_on, recorded
from memest.sources.importers.torch.contexts.packing import Pair
from memest.sources.importers.torch.contexts.watching import watching
from memest.sources.importers.torch.recording.running import Frame, Running
from memest.sources.importers.torch.refusals import line_in
from memest.sources.importers.torch.wrappers import stepped_through


class Around(Running):
    """Runs a call of the module, and is told what stands around the calls in it (see ``watching.Listener``)."""

    def _run(self, inputs: Mapping[str, torch.Tensor], call: Callable[[Mapping[str, torch.Tensor]], Any]) -> Any:
        """What the ``call`` returns, watched."""
        try:
            through = stepped_through(self.modules)
            with watching(self, self.gradients), through as self.wrappers, self, recording(self.guards), telling(self.taken):
                self._hook_parameters()
                result = call(inputs)
        except MemestError:
            raise
        except (Exception, SystemExit, GeneratorExit) as e:
            raise (self.failure or self._explained(e)) from None
        finally:
            self.numbers.over = True
        if self.failure is not None:  # somebody caught it, and took a way that torch would not have taken
            raise self.failure
        return result

    def _hook_parameters(self) -> None:
        """The hooks of the network's parameters are recorded."""
        found = hooks_on(self.owned) if self.gradients else []
        for hooked in found:
            own = next(e.ref() for e in self.live.tracked.values() if e.names[0] == hooked.path)
            assert own is not None
            self.live.twins[id(hooked.parameter)] = own
            del own
        self.hooks = tuple([recorded(self, hooked) for hooked in found])

    def enter_module(self, module: nn.Module) -> None:
        """Its path names the layers inside."""
        path = self.paths.get(id(module))
        if path:
            self.stack.append(Frame(module, path, module))
        elif path is None:
            self.stack.append(Frame(module, type(module).__name__, None))
        else:
            self.stack.append(Frame(module, *(self.stack[-1][1:] if self.stack else ("", None))))
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
            raise self.refusal("a lazy module that never ran, whose parameters have no sizes yet: call it once where it is made")
        if isinstance(module, torch.jit.ScriptModule):
            raise self.refusal("a compiled ScriptModule, which hides its Python code: put in the module it was made from")

    def leave_module(self, module: nn.Module) -> None:
        """Out of it, and of modules in it that ended by an exception somebody caught."""
        while self.stack and self.stack.pop().module is not module:
            pass

    def begin_checkpoint(self, arguments: Any, named: Any, call: Checkpoint, policy: Callable[..., Any] | None) -> None:
        """The layers from here on run again in backward."""
        self.asked_for_gradients = True
        self.checkpoints.begin(arguments, named, call, policy)

    def end_checkpoint(self) -> None:
        """Until here."""
        self.checkpoints.end()

    def begin_autocast(self, device: str, dtype: str | None, cache: bool) -> None:
        """The calls from here on stand in another context."""
        self.contexts.begin(device, dtype, cache, lambda: self.live.take(f"{self.checkpoint or self.path() or self.name}.autocast"))

    def end_autocast(self) -> None:
        """Until here; with the outermost one what it cached dies."""
        scope = self.contexts.end()
        if scope is not None and self.live.drops:
            self.live.drops[-1].append(scope)

    def begin_packing(self, pair: Pair) -> None:
        """Hooks of saved tensors are in force."""
        self.asked_for_gradients = True
        self.packings.stack.append(pair)
        self._to_be_recorded_anew = True

    def end_packing(self) -> None:
        """They are no more."""
        self.packings.stack.pop()

    def apply(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """A custom autograd function: its forward as it runs, and what it does in backward where a gradient flows through it."""
        self.asked_for_gradients = True
        inputs = [t for t in arguments if isinstance(t, torch.Tensor)]
        enabled = torch.is_grad_enabled()
        needs = tuple(enabled and isinstance(t, torch.Tensor) and self.live.known(t).grad for t in arguments)
        if function is torch.utils.checkpoint.CheckpointFunction:
            return self.checkpoints.reentrant(arguments[0], arguments[1], arguments[2:], needs[2:])
        if any(needs):
            self._flows()
        created, before = self.elsewhere and not (enabled or self.switches.off), len(self.layers)
        applied = run_forward(function, arguments, needs)
        if created:
            self.switches.applied(function.__name__, self.layers[before:])
        if any(needs):
            kept = any(c.cache and c.dtype is not None for layer in self.layers[before:] for c in layer.autocast)
            end_function(self, function, applied, inputs, begins=self.layers[before].name if kept else None)
        return applied.result

    @contextmanager
    def apart(self) -> Iterator[list[Layer]]:
        """Calls that run at another time: their layers, and in ``live.drops`` what dies after each."""
        live, outer = self.live, (self.layers, self.live.drops, self.live.early, self.checkpoint)
        self.layers, live.drops, live.early, self.checkpoint = [], [], [], None
        inside, self.elsewhere = self.elsewhere, True
        casts = torch.is_autocast_enabled("cpu")
        torch.set_autocast_enabled("cpu", False)
        try:
            self.inner.enter(self.layers)
            contexts = self.contexts.apart(), self.packings.apart(), self.switches.apart(), self.checkpoints.apart(), self.live.names_kept()
            with ExitStack() as stack:
                for context in contexts:
                    stack.enter_context(context)
                yield self.layers
        finally:
            self.inner.leave()
            self.layers, live.drops, live.early, self.checkpoint = outer
            self.elsewhere = inside
            torch.set_autocast_enabled("cpu", casts)

    def add(self, layer: Layer) -> None:
        """Write a layer down that no call of torch stands for."""
        self.live.drops.append([])
        self.layers.append(layer)
        self.trace.append(layer)
        self.switches.seen(layer.name)
        self._note_line(layer.name)

    def _note_line(self, layer: str) -> None:
        """Which line of the forward's own code a layer comes from, for what backward has to say of it."""
        if self.gradients:
            line = line_in(Around._run.__code__)
            if line:
                self.lines[layer] = line
