"""One question: everything that is asked of a step but the network and its sizes.

A setting is one field here. Every function that estimates takes the fields as keywords (:class:`Settings`), every command as options;
names become rows once (:func:`resolved`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from memest.errors import UnsupportedError, UsageError, did_you_mean
from memest.estimate import asked
from memest.machines.cpu import Cpu
from memest.machines.cuda import CudaSettings, settings_from
from memest.machines.engines import OF_ENGINES, Engine, Told, engine_from
from memest.machines.gpu import Gpu
from memest.machines.loader import Loader, loader_named
from memest.machines.process import ProcessSettings, malloc_named
from memest.machines.target import TORCH_CPU, TORCH_CUDA
from memest.network.conversion import converted, floating_dtype
from memest.runtimes.table import DEVICES, runtime_named
from memest.runtimes.torch.losses import Loss, loss_named
from memest.runtimes.torch.optimizers import Optimizer, optimizer_named
from memest.runtimes.torch.step import Recipe
from memest.sizes.remembering import kept

if TYPE_CHECKING:
    from memest.levers.table import Setting
    from memest.network.graph import Graph
    from memest.network.tensor import Shape
    from memest.network.usual import Usual
    from memest.runtimes.runtime import Runtime

MODES = ("train", "infer")
ON_THIS = (TORCH_CPU, "onnxruntime", "openvino", "tensorflow-cpu")  # runtimes that run on the processor at hand where none is named
COMPUTE_IN = ("openvino",)  # runtimes that compute in a dtype and leave the network's own as it is
FED = (TORCH_CPU, TORCH_CUDA)  # runtimes that a data loader feeds
COUNT_LOADERS = ("estimate", "plan_cluster", "the command")  # who asks about what feeds a step
FIRST_RUNS = ("onnxruntime",)  # runtimes whose first run at a size differs from later ones


class Settings(TypedDict, total=False):
    """The keywords of everything that estimates: the fields of :class:`Question` as callers give them (torch's own dtypes, losses and
    optimizers stand for their names). ``device`` is short for a runtime: ``cpu`` for ``torch-cpu``, ``cuda`` for ``torch-cuda``."""

    mode: str
    optimizer: Any
    loss: Any
    dtype: Any
    hold_output: bool
    first_step: bool
    keep_grads: bool
    levers: Any
    runtime: str
    machine: Cpu | Gpu | str | None
    torch: str | None
    cudnn: str | None
    cudnn_enabled: bool
    cudnn_benchmark: bool
    cudnn_deterministic: bool
    tf32: str | None
    alloc_conf: str | None
    cublas_workspace: str | None
    malloc: str | None
    imports: str | None
    loader: str | None
    first_run: bool
    ort_arena: bool
    ort_pattern: bool
    ort_level: str
    ort_external: bool
    ort_shrinkage: bool
    ort_mmap_threshold: int | None
    ov_streams: int | None
    ov_requests: int
    ov_mmap: bool
    ov_hint: str
    ov_weights: str
    onednn: str
    inter_op: int | None
    jit: bool
    device: Any


def says(help: str, metavar: str = "") -> dict[str, str]:
    """What a field says to a reader, and how its value is written."""
    return {"help": help, "metavar": metavar}


NAME, OPTIONS = "NAME", "NAME[:OPTION=VALUE,...]"
LEVERS = "Something changed to need less memory, such as accumulate:steps=4; repeat for several. See: memest levers."


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: names with their options, as text, and the machine."""

    mode: str = field(default="train", metadata=says("One training step, or one inference call."))
    optimizer: str = field(default="sgd", metadata=says("Such as sgd:momentum=0.9 or adamw:foreach=true.", OPTIONS))
    loss: str = field(default="cross_entropy", metadata=says("torch.nn.functional's name, such as cross_entropy or mse; or output.", NAME))
    dtype: str | None = field(default=None, metadata=says("Convert network and inputs first: float64, float32, bfloat16 or float16.", NAME))
    hold_output: bool = field(default=False, metadata=says("The model's output and the loss stay in variables through backward."))
    first_step: bool = field(default=False, metadata=says("The step in which the optimizer's state appears, instead of a later one."))
    keep_grads: bool = field(default=False, metadata=says("zero_grad(set_to_none=False): gradients are zeroed in place, and stay."))
    levers: tuple[str, ...] = field(default=(), metadata=says(LEVERS, OPTIONS))
    runtime: str = field(
        default=TORCH_CPU, metadata=says("Who runs it: torch-cpu, torch-cuda, onnxruntime, openvino, tensorflow-cpu, null.", NAME)
    )
    machine: Cpu | Gpu | None = field(default=None, metadata=says("What it runs on (default: this machine)."))
    torch: str | None = field(
        default=None, metadata=says("Whose kernels: 2.9 to 2.14 (default: the recorded module's, else the newest).", "VERSION")
    )
    cudnn: str | None = field(default=None, metadata=says("cuDNN's release, such as 9.24 (default: the one of torch's wheel).", "VERSION"))
    cudnn_enabled: bool = field(default=True, metadata=says("torch.backends.cudnn.enabled: without it torch's own kernels convolve."))
    cudnn_benchmark: bool = field(default=False, metadata=says("torch.backends.cudnn.benchmark: convolutions try their plans first."))
    cudnn_deterministic: bool = field(default=False, metadata=says("torch.backends.cudnn.deterministic."))
    tf32: str | None = field(default=None, metadata=says("TF32 in convolutions alone (conv, torch's default), all, or none.", "WHERE"))
    alloc_conf: str | None = field(default=None, metadata=says("The caching allocator's settings: PYTORCH_CUDA_ALLOC_CONF.", "SETTINGS"))
    cublas_workspace: str | None = field(default=None, metadata=says("CUBLAS_WORKSPACE_CONFIG, such as :4096:8.", ":KIB:COUNT"))
    malloc: str | None = field(
        default=None, metadata=says("Count the process, too: glibc, glibc:mmap_threshold=131072, or jemalloc (torch on CPU).", OPTIONS)
    )
    imports: str | None = field(default=None, metadata=says("What the process imports: torch (the default) or torchvision.", NAME))
    loader: str | None = field(default=None, metadata=says("What feeds the step: DataLoader's workers=4,prefetch=2.", "OPTIONS"))
    first_run: bool = field(default=False, metadata=says("Of an engine: the first run at these sizes, instead of a later one."))
    ort_arena: bool = field(default=True, metadata=says("ONNX Runtime's enable_cpu_mem_arena."))
    ort_pattern: bool = field(default=True, metadata=says("ONNX Runtime's enable_mem_pattern."))
    ort_level: str = field(default="all", metadata=says("Its graph_optimization_level: all, extended, basic or disabled.", "LEVEL"))
    ort_external: bool = field(default=True, metadata=says("Weights lie outside the .onnx file, or in it."))
    ort_shrinkage: bool = field(default=False, metadata=says("memory.enable_memory_arena_shrinkage: the arena is shrunk after each run."))
    ort_mmap_threshold: int | None = field(default=None, metadata=says("MALLOC_MMAP_THRESHOLD_ in bytes (default: glibc's own).", "BYTES"))
    ov_streams: int | None = field(default=None, metadata=says("OpenVINO's NUM_STREAMS (default: as ov_hint has it).", "COUNT"))
    ov_requests: int = field(default=1, metadata=says("How many infer requests OpenVINO's compiled model has.", "COUNT"))
    ov_mmap: bool = field(default=True, metadata=says("OpenVINO's ENABLE_MMAP: without it weights lie in the heap, as many bytes."))
    ov_hint: str = field(default="latency", metadata=says("OpenVINO's PERFORMANCE_HINT: latency or throughput.", "HINT"))
    ov_weights: str = field(default="onnx", metadata=says("Weights in the .onnx file (onnx), beside it (external) or as ir.", "WHERE"))
    onednn: str = field(default="on", metadata=says("TensorFlow's TF_ENABLE_ONEDNN_OPTS.", "on|off"))
    inter_op: int | None = field(default=None, metadata=says("How many kernels TensorFlow runs at once (default: threads).", "COUNT"))
    jit: bool = field(default=False, metadata=says("Keras's jit_compile, which is not modelled."))

    @property
    def training(self) -> bool:
        """True for a training step."""
        return self.mode == "train"

    @property
    def cuda(self) -> CudaSettings | None:
        """What torch's CUDA kernels are told; None where nothing is set."""
        texts = (self.cudnn, self.tf32, self.alloc_conf, self.cublas_workspace)
        if texts == (None,) * 4 and self.cudnn_enabled and not (self.cudnn_benchmark or self.cudnn_deterministic):
            return None
        return settings_from(
            cudnn=self.cudnn,
            enabled=self.cudnn_enabled,
            benchmark=self.cudnn_benchmark,
            deterministic=self.cudnn_deterministic,
            tf32=self.tf32,
            alloc_conf=self.alloc_conf,
            cublas_workspace=self.cublas_workspace,
        )

    @property
    def engine(self) -> Engine | None:
        """What an engine's session is told; None where nothing is set."""
        given = {name: value for name, value in self.asked().items() if name in OF_ENGINES}
        if self.runtime in COMPUTE_IN and self.dtype is not None:
            given["ov_precision"] = self.dtype
        return engine_from(given)

    @property
    def process(self) -> ProcessSettings | None:
        """What the process around a step on a CPU is told; None where nothing is set."""
        fed = self.feeding is not None and self.runtime == TORCH_CPU
        if self.malloc is None and not fed:
            if self.imports is not None:
                raise UsageError("imports is of the process, which is counted where malloc is given: malloc='glibc'")
            return None
        imports = {} if self.imports is None else {"imports": self.imports}
        return ProcessSettings(malloc=malloc_named("glibc" if self.malloc is None else self.malloc), **imports)

    @property
    def feeding(self) -> Loader | None:
        """The data loader that feeds the step; None where none is counted."""
        return None if self.loader is None else loader_named(self.loader)

    @property
    def told(self) -> Told | None:
        """What the runtime is told besides; None where nothing is set. UsageError where two are told things."""
        found = [told for told in (self.cuda, self.engine, self.process) if told is not None]
        if len(found) > 1:
            raise UsageError(f"settings of {' and '.join(told.runtime for told in found)} at once; give those of one")
        return found[0] if found else None

    def job(self, graph: Graph) -> Job:
        """What is played for ``graph``, with the levers pulled. Raises UsageError, GraphError or UnsupportedError."""
        if self.levers:
            return self._job(graph)
        machine = self.machine or (Cpu.detect() if self.runtime in ON_THIS else None)
        played, recipe = graph.memo.find("jobs", (self, machine), MOST_JOBS, lambda: self._plain_job(graph))
        return Job(played or graph, recipe)

    def _plain_job(self, graph: Graph) -> tuple[Graph | None, Recipe]:
        """What is remembered of a job on its graph: None where the graph itself is played."""
        played, recipe, _ = self._job(graph)
        return None if played is graph else played, recipe

    def _job(self, graph: Graph) -> Job:
        names = resolved(self)
        if graph.step:
            self._check_step(graph)
        reason = dict(graph.refused).get(self.mode)
        if reason is not None:
            raise UnsupportedError(reason)
        played = graph if self.training or graph.inference is None else graph.inference
        reason = dict(played.refused).get(self.runtime)
        if reason is not None:
            raise UnsupportedError(reason)
        if self.dtype is not None and self.runtime not in COMPUTE_IN:
            played = converted(played, self.dtype)
        recipe = Recipe(
            training=self.training,
            optimizer=None if graph.step else names.optimizer,
            loss=None if graph.step else names.loss,
            hold_output=self.hold_output,
            step=1 if self.first_step or self.first_run else None,
            keep_grads=self.keep_grads,
            segments=played.segments,
            target=names.runtime.target(self.machine, self.torch, graph.torch, self.told),
        )
        if not names.levers:
            return Job(played, recipe)
        from memest.levers.table import pull

        return Job(*pull(played, recipe, names.levers), names.levers)

    def _check_step(self, graph: Graph) -> None:
        """UsageError for settings that a whole step has in its own code."""
        if not self.training:
            raise UsageError(f"{graph.name} is a whole training step; leave mode out, or import the module alone")
        refuse_said(graph, self.asked())

    def asked(self) -> dict[str, Any]:
        """The settings that are not left as they are, as keywords."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


SAID_BY_CODE = ("optimizer", "loss", "dtype", "hold_output", "keep_grads", "levers")
"""Settings that a whole step has in its own code."""


def refuse_said(graph: Graph, given: Collection[str], word: Callable[[str], str] = str) -> None:
    """UsageError for settings ``given``, by name, that a whole step says itself; ``word`` is what who asks calls them."""
    name = next((name for name in SAID_BY_CODE if name in given), None) if graph.step else None
    if name is not None:
        raise UsageError(f"{graph.name} is a whole training step, whose code says it all: leave {word(name)} out, and change the code")


class Names(NamedTuple):
    """The rows behind a question's names."""

    runtime: Runtime
    optimizer: Optimizer | None
    loss: Loss | None
    levers: tuple[Setting, ...]


@kept(256)
def resolved(question: Question) -> Names:
    """The names of a question looked up. Raises UsageError or UnsupportedError for the first that is wrong."""
    if question.mode not in MODES:
        raise UsageError(f"unknown mode {question.mode!r}; use 'train' or 'infer'{did_you_mean(question.mode, MODES)}")
    runtime = runtime_named(question.runtime)
    if question.mode not in runtime.modes:
        raise UsageError(f"runtime {runtime.name} has no mode {question.mode!r}; it has {', '.join(map(repr, runtime.modes))}")
    if question.dtype is not None:
        floating_dtype(question.dtype)
    optimizer, loss = optimizer_named(question.optimizer), loss_named(question.loss)
    chosen: tuple[Setting, ...] = ()
    if question.levers:
        from memest.levers.table import settings

        chosen = settings(question.levers, question.mode)
    runtime.target(question.machine, question.torch, None, question.told)
    if question.feeding is not None and runtime.name not in FED:
        raise UsageError(
            f"loader is torch's data loader, and runtime {runtime.name} has none; leave it out, or give one of {', '.join(FED)}"
        )
    if question.first_run and runtime.name not in FIRST_RUNS:
        raise UsageError(f"runtime {runtime.name} has no first_run: every call of it is like the first (a training step has first_step)")
    if question.first_step and runtime.name in FIRST_RUNS:
        raise UsageError(f"first_step is of training, and runtime {runtime.name} only infers; its first run is first_run")
    return Names(runtime, optimizer if question.training else None, loss if question.training else None, chosen)


class Job(NamedTuple):
    """What is played for an estimate, before sizes are known: the graph and the recipe, with the levers pulled."""

    graph: Graph
    recipe: Recipe
    chosen: tuple[Setting, ...] = ()

    @property
    def levers(self) -> tuple[str, ...]:
        """The levers as they were asked for."""
        return tuple(s.text for s in self.chosen)

    @property
    def depends_on_shape(self) -> bool:
        """True when a lever finds its setting for one input shape at a time: ``recipe`` is then that of no shape."""
        return any(s.waits_for_shape for s in self.chosen)

    def at(self, shapes: Mapping[str, Shape], sizes: Mapping[str, int]) -> Recipe:
        """The recipe for one input shape."""
        if not self.depends_on_shape:
            return self.recipe
        from memest.levers.table import fit

        return fit(self.graph, self.recipe, self.chosen, shapes, sizes)


NAMES = tuple(f.name for f in fields(Question))
KEYWORDS = (*NAMES, "device")
PLAIN = frozenset({str, bool, type(None), Cpu, Gpu})
MOST_JOBS = 32  # of a graph


def apart(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords of functions that also take sizes by name: the settings, and the rest."""
    settings = {name: value for name, value in given.items() if name in KEYWORDS or name == "cpu"}
    return settings, {name: value for name, value in given.items() if name not in settings}


def question(graph: Graph | None, given: Mapping[str, Any], who: str) -> Question:
    """The question behind the keywords of ``who`` (:class:`Settings`), each checked for its kind. UsageError names what cannot be.
    An optimizer given as an object is held against the ``graph`` it is to train."""
    usual = graph is not None and graph.usual is not None
    if not usual and all([type(value) in PLAIN for value in given.values()]) and "cpu" not in given:
        return _in_words(who, tuple(given.items()), tuple(map(type, given.values())))
    return _question(graph, given, who)


@kept(512)
def _in_words(who: str, given: tuple[tuple[str, Any], ...], kinds: tuple[type, ...]) -> Question:
    """The question of keywords in plain words (True and 1 are equal keys, and not equal here)."""
    return _question(None, dict(given), who)


def _usual(usual: Usual, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings ``given`` over the usual ones of a network's makers (of torch's runtimes; others call the network once)."""
    from memest.levers.table import beside

    way = usual.way(str(given.get("mode", "train")), given["runtime"])
    settings, levers = way.on(given["runtime"] == TORCH_CUDA)
    return {**settings, **given, "levers": beside(levers, asked.levers(given.get("levers")))}


def _callers() -> int:
    """How far up the first caller is that is not memest, for a warning."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("memest."):
        level, frame = level + 1, frame.f_back
    return level


def _question(graph: Graph | None, given: Mapping[str, Any], who: str) -> Question:
    found = dict(given)
    for name in found:
        if name not in KEYWORDS and name != "cpu":
            raise UsageError(f"{who} has no setting {name!r}{did_you_mean(name, KEYWORDS) or '; there are ' + ', '.join(KEYWORDS)}")
    if found.get("loader") is not None and who not in COUNT_LOADERS:
        raise UsageError(f"{who} counts no data loader; leave loader out, or ask estimate or plan_cluster")
    if "cpu" in found:
        if "machine" in found:
            raise UsageError("cpu is the old name of machine; give machine alone")
        warnings.warn("cpu= is called machine= now, and goes with the next release", DeprecationWarning, stacklevel=_callers())
        found["machine"] = found.pop("cpu")
    if "machine" in found:
        found["machine"] = asked.machine(found["machine"])
    device = asked.device(found.pop("device", None))
    runtime = asked.name(found.pop("runtime", None), "runtime", "torch-cpu")
    meant = None if device is None else DEVICES.get(device.partition(":")[0])
    if device is not None and meant is None:
        raise UnsupportedError(f"device {device!r} is not modelled; use 'cpu' or 'cuda'")
    if runtime is not None and meant is not None and runtime != meant:
        raise UsageError(f"device {device!r} is short for runtime {meant!r}, and runtime is {runtime!r}; give one of them")
    implied = TORCH_CUDA if isinstance(found.get("machine"), Gpu) else TORCH_CPU
    found["runtime"] = runtime or meant or implied
    if graph is not None and graph.usual is not None:
        found = _usual(graph.usual, found)
    for name, read in asked.READERS.items():
        if name in found:
            found[name] = read(found[name])
    if "optimizer" in found:
        found["optimizer"] = asked.optimizer(found["optimizer"], graph)
    return Question(**found)
