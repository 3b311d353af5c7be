"""The ideal runtime: every operator allocates its outputs and nothing else. The interface by example, and what planners plan."""

from __future__ import annotations

from collections.abc import Mapping

from memest.errors import UsageError
from memest.machines.claims import Source
from memest.machines.cpu import Cpu
from memest.machines.engines import Told, refuse_told
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.machines.versions import version_for
from memest.memory.figure import Figures, exact, unknown
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes import executor
from memest.runtimes.runtime import EVERY, Rows, Steps
from memest.runtimes.torch.step.recipe import Recipe


class Null:
    """One call of the network under a perfect allocator, without scratch."""

    name = "null"
    title = "outputs alone"
    source = Source(owner="an ideal runtime", whose="the ideal runtime's", missing=("kernels' scratch", "what an allocator adds"))
    modes = ("infer",)
    rows = Rows("null", plain=EVERY)
    replays = False
    registered_alone = False

    def target(self, machine: Cpu | Gpu | None, version: str | None, recorded: str | None, told: Told | None = None) -> Target:
        """The machine makes no difference; the version is torch's whose shape rules are read."""
        if machine is not None:
            raise UsageError("runtime null runs on no machine in particular; leave machine (--threads, --isa) out")
        refuse_told(self.name, told)
        return Target(runtime=self.name, version=version_for(version, recorded))

    def describe(self, target: Target) -> str:
        """Its name."""
        return "null (outputs alone)"

    def measured(self, target: Target) -> str:
        """Nothing: it is a definition."""
        return "an ideal runtime (a definition; nothing measures it)"

    def notes(self, target: Target) -> tuple[str, ...]:
        """None."""
        return ()

    def play(
        self, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, *, remember: bool = True
    ) -> Stream:
        """One call. UnsupportedError for what changes how torch runs it (tiles, autocast, parallel runs)."""
        executor.check_plain(recipe)
        return executor.play(graph, input_shapes, sizes, recipe.target, self.rows, remember=remember)

    def figures(self, requested_bytes: int, steps: Steps, target: Target) -> Figures:
        """Exact by definition; what is reserved is left to a planner, and there is no process."""
        return Figures(
            allocated=exact(requested_bytes, "every operator's outputs, parameters and inputs, and nothing else"),
            reserved=unknown("not counted: what a planner makes of it; memest plan-inference shows that"),
            process=unknown("not counted: kernels' scratch, and a process; no program runs like this"),
        )


RUNTIME = Null()
