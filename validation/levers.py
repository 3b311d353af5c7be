"""The torch side of every lever: what a user would write, applied to the setup that is measured.

``prepare`` comes first: it may change the module and the inputs, before target and optimizer are made from them. ``wrap`` comes after
and may change everything. Levers are applied in the order of memest's table, each on what the ones before it left.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from memest.estimate.estimate import estimate
from memest.levers.checkpoint import CHECKPOINT
from memest.levers.freeze import inside
from memest.levers.receptive import receptive_field
from memest.levers.table import Setting, pull, settings
from memest.network.graph import Graph
from memest.runtimes.torch.step import Recipe
from memest.runtimes.torch.step.windows.tiles import per_dim
from memest.sources.importers.torch.network import from_torch
from validation.checkpointing import checkpoint_modules
from validation.execute import GraphModule
from validation.nnunet_prediction import Predictor
from validation.setup import Inputs, Setup, prediction_of
from validation.tiling import predict_in_windows

Options = Mapping[str, Any]
Change = Callable[[Setup, Options], None]


def nothing(setup: Setup, options: Options) -> None:
    """Leave the setup as it is."""


@dataclass(frozen=True, kw_only=True)
class TorchLever:
    """One row."""

    prepare: Change = nothing
    wrap: Change = nothing


FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def _channels_last(setup: Setup, options: Options) -> None:
    setup.module.to(memory_format=FORMATS[setup.inputs[0].ndim])
    setup.inputs = [t.contiguous(memory_format=FORMATS.get(t.ndim, torch.contiguous_format)) for t in setup.inputs]


def _freeze(setup: Setup, options: Options) -> None:
    if isinstance(setup.module, GraphModule):
        text = f"freeze:modules={'+'.join(options['modules'])},eval={str(options['eval']).lower()}"
        graph, _ = pull(setup.module.graph, Recipe(training=True), settings([text], "train"))
        setup.module = _again(setup, graph)
        return
    for name, p in setup.module.named_parameters():
        if inside(name, options["modules"]):
            p.requires_grad_(False)
    for name, m in setup.module.named_modules():
        if options["eval"] and inside(name, options["modules"]):
            m.eval()


def _again(setup: Setup, graph: Graph) -> GraphModule:
    """A module of ``graph`` in the mode of the setup's, and where that one is."""
    return GraphModule(graph).train(setup.module.training).to(setup.inputs[0].device)


def _graph(setup: Setup) -> Graph:
    """The graph memest sees; that of a sharded module was taken before."""
    if setup.graph is not None:
        return setup.graph
    if isinstance(setup.module, GraphModule):
        return setup.module.graph
    return from_torch(setup.module, *(torch.empty(t.shape, device="meta") for t in setup.inputs))


def _inplace(setup: Setup, options: Options) -> None:
    """memest says which layers may; torch raises where that is wrong."""
    graph = _graph(setup)
    mode = "train" if setup.training else "infer"
    shapes = [tuple(t.shape) for t in setup.inputs]
    overwriting = estimate(graph, input_shape=shapes, mode=mode, levers=setup.levers).timeline.overwriting
    if isinstance(setup.module, GraphModule):
        layers = tuple(replace(y, attributes=(*y.attributes, ("inplace", True))) if y.name in overwriting else y for y in graph.layers)
        setup.module = _again(setup, graph.with_(layers=layers))
        return
    for name in overwriting:
        module: Any = setup.module.get_submodule(name)
        if sum(layer.name.startswith(name) for layer in graph.layers) != 1:
            raise ValueError(f"module {name!r} is called more than once: its flag stands for all calls")
        module.inplace = True


def _accumulate(setup: Setup, options: Options) -> None:
    """The same resident batch again stands for the next: its data has come and gone in between."""
    inner = setup.gradients

    def gradients(setup: Setup, inputs: Inputs, target: torch.Tensor) -> None:
        for _ in range(options["steps"]):
            inner(setup, inputs, target)

    setup.gradients = gradients
    if options["mean"]:
        _divide_loss(setup, lambda: options["steps"])


def _micro_batch(setup: Setup, options: Options) -> None:
    inner, size = setup.gradients, options["size"]

    def gradients(setup: Setup, inputs: Inputs, target: torch.Tensor) -> None:
        for *parts, wanted in zip(*(t.split(size) for t in (*inputs, target)), strict=True):
            inner(setup, parts, wanted)

    setup.gradients = gradients
    if options["mean"]:
        _divide_loss(setup, lambda: len(setup.target.split(size)))


def _divide_loss(setup: Setup, divisor: Callable[[], int]) -> None:
    inner = setup.loss

    def loss(setup: Setup, inputs: Inputs, target: torch.Tensor) -> torch.Tensor:
        if not setup.hold_output:
            return inner(setup, inputs, target) / divisor()
        inner(setup, inputs, target)
        setup.held["loss"] = setup.held["loss"] / divisor()
        return setup.held["loss"]

    setup.loss = loss


def _clip(setup: Setup, options: Options) -> None:
    inner = setup.update

    def update(setup: Setup) -> None:
        if setup.scaler is not None:
            setup.scaler.unscale_(setup.optimizer)
        torch.nn.utils.clip_grad_norm_(setup.module.parameters(), options["norm"], foreach=options["foreach"])
        inner(setup)

    setup.update = update


def _ema(setup: Setup, options: Options) -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    average = AveragedModel(setup.module, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=options["buffers"])
    for part in average.modules():  # deepcopy takes a buffer's bytes past the allocator that parallel runs count
        part._buffers.update({name: None if b is None else b.clone() for name, b in part._buffers.items()})
    inner = setup.update

    def update(setup: Setup) -> None:
        inner(setup)
        average.update_parameters(setup.module)

    setup.update = update
    setup.residents.append(lambda: [*average.parameters(), *average.buffers()])


def _offload_optimizer(setup: Setup, options: Options) -> None:
    """One optimizer a parameter, whose state lies in numpy's memory between steps (what is on a device, in the host's)."""
    trained = [p for group in setup.optimizer.param_groups for p in group["params"]]
    alone = [(setup.make_optimizer([p]), p) for p in trained]
    setup.optimizer.state.clear()
    away = {p: _return_state(optimizer.state[p], p.device) for optimizer, p in alone}

    def update(setup: Setup) -> None:
        for optimizer, p in alone:
            if p.grad is not None:
                state = optimizer.state[p]
                for key in away.get(p, ()):
                    state[key] = state[key].to(p.device, copy=True)
                optimizer.step()
                away[p] = _return_state(state, p.device)

    setup.update = update


def _return_state(state: dict[str, Any], device: torch.device) -> list[str]:
    """What lies where the parameter does goes; its names."""
    away = [key for key, value in state.items() if isinstance(value, torch.Tensor) and value.device == device]
    for key in away:
        state[key] = torch.from_numpy(state[key].cpu().numpy().copy())
    return away


def _tiles(setup: Setup, options: Options) -> None:
    inner, dims = setup.forward, setup.inputs[0].ndim - 2
    halo = options["halo"] if options["halo"] is not None else receptive_field(_graph(setup)).halo
    size, halo = (per_dim(sizes, dims, "tiles") for sizes in (options["size"], halo))

    def forward(setup: Setup, inputs: Inputs) -> torch.Tensor:
        return predict_in_windows(lambda part: prediction_of(inner(setup, [part])), inputs[0], size, halo)

    setup.forward = forward


def _sliding_window(setup: Setup, options: Options) -> None:
    """nnU-Net's loop over the samples of the batch as slices, or over the one volume there is."""
    inner, dims = setup.forward, setup.inputs[0].ndim - 2
    window = per_dim(options["size"], dims, "size")
    device = setup.inputs[0].device
    with torch.no_grad():
        heads = prediction_of(setup.module(torch.rand((1, setup.inputs[0].shape[1], *window), device=device))).shape[1]
    predictor = Predictor(
        network=setup.module,
        window=window,
        heads=heads,
        step=float(options["step"]),
        mirror=options["mirror"],
        importance=torch.ones(window, dtype=torch.half, device=device) if options["gaussian"] else None,
        ahead=options["ahead"],
    )
    predictor.network = lambda part: prediction_of(inner(setup, [part]))

    def forward(setup: Setup, inputs: Inputs) -> torch.Tensor:
        return predictor.logits(inputs[0].transpose(0, 1) if dims == 2 else inputs[0][0])

    setup.forward = forward
    setup.residents.append(lambda: [] if predictor.importance is None else [predictor.importance])


def _sliding_window_inference(setup: Setup, options: Options) -> None:
    """MONAI's own inferer around the network."""
    from monai.inferers import SlidingWindowInferer

    inner, dims = setup.forward, setup.inputs[0].ndim - 2
    inferer = SlidingWindowInferer(
        per_dim(options["roi_size"], dims, "roi_size"),
        sw_batch_size=options["sw_batch_size"],
        overlap=per_dim(options["overlap"], dims, "overlap"),
        mode=options["mode"],
        buffer_steps=options["buffer_steps"] or None,
        buffer_dim=options["buffer_dim"],
        cache_roi_weight_map=options["cache_roi_weight_map"],
    )
    setup.forward = lambda setup, inputs: inferer(inputs[0], lambda part: inner(setup, [part]))
    setup.residents.append(lambda: [] if inferer.roi_weight_map is None else [inferer.roi_weight_map])


def _autocast(setup: Setup, options: Options) -> None:
    """``with torch.autocast(device, dtype): loss = loss_fn(model(x), target)``, then ``loss.backward()`` outside; on CUDA in float16 with a
    GradScaler around backward and the optimizer's step."""
    device = setup.inputs[0].device.type
    on_cuda = device == "cuda"
    dtype = options["dtype"] or ("float16" if on_cuda else "bfloat16")
    context = {"dtype": getattr(torch, dtype), "cache_enabled": options["cache"]}
    whole = setup.training and options["loss"] == "inside"
    inner: Callable[..., Any] = setup.loss if whole else setup.forward

    def within(*arguments: Any) -> Any:
        with torch.autocast(device, **context):
            return inner(*arguments)

    if whole:
        setup.loss = within
    else:
        setup.forward = within
    scaled = options.get("scaler")
    if setup.training and (on_cuda and dtype == "float16" if scaled is None else scaled):
        _scale(setup, device)


def _scale(setup: Setup, device: str) -> None:
    """``scaler.scale(loss).backward()``, ``scaler.step(optimizer)``, ``scaler.update()``."""
    scaler = setup.scaler = torch.amp.GradScaler(device)

    def gradients(setup: Setup, inputs: Inputs, target: torch.Tensor) -> None:
        scaler.scale(setup.loss(setup, inputs, target)).backward()

    def update(setup: Setup) -> None:
        scaler.step(setup.optimizer)
        scaler.update()

    setup.gradients = gradients
    setup.update = update


def _shard(setup: Setup, options: Options) -> None:
    from torch.distributed.fsdp import fully_shard

    setup.graph = _graph(setup)
    gc.collect()  # what recorded the graph holds whole parameters in a circle
    reshard = {"auto": None, "true": True, "false": False}[options["reshard_after_forward"]]
    for block in sorted(options["blocks"], key=len, reverse=True):  # inner ones first, as torch wants it
        fully_shard(setup.module.get_submodule(block), reshard_after_forward=reshard)
    fully_shard(setup.module, reshard_after_forward=reshard)


def _replicate(setup: Setup, options: Options) -> None:
    given = {k: v for k, v in options.items() if k not in ("world", "rank", "sync_batch_norm")}
    if options.get("sync_batch_norm"):
        setup.module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(setup.module)
    setup.module = torch.nn.parallel.DistributedDataParallel(setup.module, **given)


def _shard_stage(setup: Setup, options: Options) -> None:
    if options["stage"] != "1":
        _shard(setup, {**options, "reshard_after_forward": "auto" if options["stage"] == "3" else "false"})


def _shard_optimizer(setup: Setup, options: Options) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    if options["stage"] == "1":
        parameters = [p for group in setup.optimizer.param_groups for p in group["params"]]
        known = inspect.signature(type(setup.optimizer)).parameters
        given = {k: v for k, v in setup.optimizer.defaults.items() if k in known}
        _replicate(setup, {k: options[k] for k in ("gradient_as_bucket_view", "find_unused_parameters")})
        setup.optimizer = ZeroRedundancyOptimizer(parameters, type(setup.optimizer), **given)


def _checkpoint(setup: Setup, options: Options) -> None:
    """A described graph runs its segments under checkpoint; of a module, the submodules that segments are."""
    if options["budget"] is not None:
        raise ValueError("segments under a budget depend on the whole step: measure them by name")
    graph = _graph(setup)
    segments = CHECKPOINT.change(graph, Recipe(training=True), options)[1].segments
    if isinstance(setup.module, GraphModule):
        setup.module.segments = tuple(segments)  # the module stays: its tensors may have a layout by now
        return
    checkpoint_modules(setup.module, [s.name for s in segments])


LEVERS: dict[str, TorchLever] = {
    "freeze": TorchLever(prepare=_freeze),
    "inplace": TorchLever(prepare=_inplace),
    "channels_last": TorchLever(prepare=_channels_last),
    "autocast": TorchLever(wrap=_autocast),
    "micro_batch": TorchLever(wrap=_micro_batch),
    "accumulate": TorchLever(wrap=_accumulate),
    "offload_optimizer": TorchLever(wrap=_offload_optimizer),
    "clip": TorchLever(wrap=_clip),
    "ema": TorchLever(wrap=_ema),
    "tiles": TorchLever(wrap=_tiles),
    "sliding_window": TorchLever(wrap=_sliding_window),
    "sliding_window_inference": TorchLever(wrap=_sliding_window_inference),
    "ddp": TorchLever(wrap=_replicate),
    "fsdp": TorchLever(prepare=_shard),
    "zero": TorchLever(prepare=_shard_stage, wrap=_shard_optimizer),
    "checkpoint": TorchLever(prepare=_checkpoint),
}


def chosen(texts: Sequence[str], training: bool) -> tuple[Setting, ...]:
    """The levers written in ``texts``, in the order in which they are applied."""
    return settings(texts, "train" if training else "infer")


def prepare(setup: Setup, levers: Sequence[Setting]) -> None:
    """First half: module and inputs."""
    for s in levers:
        LEVERS[s.name].prepare(setup, dict(s.options))


def wrap(setup: Setup, levers: Sequence[Setting]) -> None:
    """Second half: the step."""
    for s in levers:
        LEVERS[s.name].wrap(setup, dict(s.options))
