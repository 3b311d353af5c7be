"""What an inference engine's session is told besides the network: its options, and the settings of a question behind them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar, get_args

from memest.errors import UsageError, did_you_mean, kind_of
from memest.machines.cpu import Cpu
from memest.machines.cuda import CudaSettings, refuse_settings
from memest.machines.gpu import Gpu
from memest.machines.process import ProcessSettings

Level = Literal["all", "extended", "basic", "disabled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxSettings:
    """``arena``, ``pattern`` and ``level`` are SessionOptions' ``enable_cpu_mem_arena``, ``enable_mem_pattern`` and
    ``graph_optimization_level``; ``external`` weights lie outside the file; ``shrinkage`` is the run option
    ``memory.enable_memory_arena_shrinkage``; ``mmap_threshold`` is malloc's, in bytes (None: glibc's own, which moves)."""

    runtime: ClassVar[str] = "onnxruntime"
    prefix: ClassVar[str] = "ort_"

    arena: bool = True
    pattern: bool = True
    level: Level = "all"
    external: bool = True
    shrinkage: bool = False
    mmap_threshold: int | None = None

    def __post_init__(self) -> None:
        """UsageError for what contradicts itself."""
        if self.level not in get_args(Level):
            levels = get_args(Level)
            raise UsageError(f"ort_level {self.level!r} is not one of {', '.join(levels)}{did_you_mean(str(self.level), levels)}")
        if self.shrinkage and not self.arena:
            raise UsageError(
                "ort_shrinkage gives the arena's regions back, and there is no arena: leave out one of ort_shrinkage and no arena"
            )
        threshold = self.mmap_threshold
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int) or not 0 < threshold <= 32 << 20):
            raise UsageError(f"ort_mmap_threshold is in bytes, from 1 to 32 MiB (glibc's own bound), got {kind_of(threshold)}")


Weights = Literal["onnx", "external", "ir"]
Hint = Literal["latency", "throughput"]
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoSettings:
    """``precision`` is INFERENCE_PRECISION_HINT (a question's dtype; None: bfloat16 where the processor multiplies it, else float32),
    ``streams`` NUM_STREAMS (None: as the ``hint``, PERFORMANCE_HINT, has it), ``requests`` how many infer requests there are, ``mmap``
    ENABLE_MMAP; ``weights`` lie in the .onnx file, beside it (``external``) or in OpenVINO's own form (``ir``, .xml and .bin)."""

    runtime: ClassVar[str] = "openvino"
    prefix: ClassVar[str] = "ov_"

    precision: str | None = None
    streams: int | None = None
    requests: int = 1
    mmap: bool = True
    hint: Hint = "latency"
    weights: Weights = "onnx"

    def __post_init__(self) -> None:
        """UsageError for what contradicts itself."""
        for name, options in (("hint", get_args(Hint)), ("weights", get_args(Weights))):
            value = getattr(self, name)
            if value not in options:
                raise UsageError(f"ov_{name} {value!r} is not one of {', '.join(options)}{did_you_mean(str(value), options)}")
        for name in ("streams", "requests"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"ov_{name} is a whole number of at least 1, got {kind_of(value)}")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise UsageError(f"dtype {self.precision!r}: OpenVINO's CPU plugin computes in {' or '.join(PRECISIONS)} here")
        if self.hint == "latency" and (self.streams or 1) > 1:
            raise UsageError(f"ov_hint latency is one stream, and ov_streams is {self.streams}; give ov_hint='throughput', or one stream")
        if self.weights == "onnx" and not self.mmap:
            raise UsageError("ov_mmap is about weights outside the .onnx file, and they are in it; give ov_weights='external' or 'ir'")


OnOff = Literal["on", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowSettings:
    """``onednn`` is TF_ENABLE_ONEDNN_OPTS, ``inter_op`` how many kernels run at once (``set_inter_op_parallelism_threads``; None: as many
    as there are threads), ``jit`` Keras's ``jit_compile``."""

    runtime: ClassVar[str] = "tensorflow-cpu"
    prefix: ClassVar[str] = ""

    onednn: OnOff = "on"
    inter_op: int | None = None
    jit: bool = False

    def __post_init__(self) -> None:
        """UsageError for what is neither, or no number of threads."""
        if self.onednn not in get_args(OnOff):
            raise UsageError(f"onednn is on or off, got {kind_of(self.onednn)}")
        if self.inter_op is not None and (isinstance(self.inter_op, bool) or not isinstance(self.inter_op, int) or self.inter_op < 1):
            raise UsageError(f"inter_op is a whole number of at least 1, got {kind_of(self.inter_op)}")


Engine = OnnxSettings | OpenVinoSettings | TensorFlowSettings
ENGINES: tuple[type[Engine], ...] = (OnnxSettings, OpenVinoSettings, TensorFlowSettings)
OF_ENGINES = {kind.prefix + f.name: kind for kind in ENGINES for f in fields(kind)}
"""Whose setting a question's field is."""


def engine_from(given: dict[str, Any]) -> Engine | None:
    """The settings of an engine, of a question's fields that are not left as they are. UsageError where two engines are told things."""
    told = list(dict.fromkeys(OF_ENGINES[name] for name in given))
    if len(told) > 1:
        raise UsageError(f"settings of {' and '.join(kind.runtime for kind in told)} at once; give those of one")
    return told[0](**{name.removeprefix(told[0].prefix): value for name, value in given.items()}) if told else None


def refuse_engine(runtime: str, settings: Engine | None) -> None:
    """UsageError where a runtime is given settings of an engine that it is not."""
    if settings is not None:
        given = [settings.prefix + f.name for f in fields(settings) if getattr(settings, f.name) != f.default]
        raise UsageError(f"runtime {runtime} has no {', '.join(given)}: that is {settings.runtime}'s (--runtime {settings.runtime})")


Told = CudaSettings | OnnxSettings | OpenVinoSettings | TensorFlowSettings | ProcessSettings
S = TypeVar("S", CudaSettings, OnnxSettings, OpenVinoSettings, TensorFlowSettings, ProcessSettings)


def told_to(runtime: str, kind: type[S], told: Told | None) -> S:
    """What a runtime is ``told``, its own settings as they are where that is nothing. UsageError for settings of another."""
    if isinstance(told, kind):
        return told
    refuse_told(runtime, told)
    return kind()


def refuse_told(runtime: str, told: Told | None) -> None:
    """UsageError for settings that a runtime does not have."""
    if isinstance(told, CudaSettings):
        refuse_settings(runtime, told)
    elif isinstance(told, ProcessSettings):
        raise UsageError(f"runtime {runtime} has no malloc: that is {told.runtime}'s; give runtime={told.runtime!r}")
    else:
        refuse_engine(runtime, told)


def processor(runtime: str, machine: Cpu | Gpu | None) -> Cpu:
    """The processor that a runtime runs on: this machine's unless another is described. UsageError for an accelerator."""
    if isinstance(machine, Gpu):
        raise UsageError(f"runtime {runtime} runs on a processor, {machine.name} is an accelerator; give memest.Cpu(…)")
    return machine or Cpu.detect()
