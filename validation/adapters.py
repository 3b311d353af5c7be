"""Faces of torch calls for the oracle, where a row's tensors and attributes cannot be handed over as they are."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import torch

from validation import nnunet_losses


def where(condition: torch.Tensor, *tensors: torch.Tensor, input_value: Any = None, other_value: Any = None) -> torch.Tensor:
    """``torch.where`` with numbers in place of absent tensors."""
    given = iter(tensors)
    input = next(given) if input_value is None else input_value
    other = next(given) if other_value is None else other_value
    return torch.where(condition, input, other)


def convolution(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, **keywords: Any) -> torch.Tensor:
    """``torch.convolution``, which has neither defaults nor single numbers."""
    dims = weight.ndim - 2
    given = {"stride": 1, "padding": 0, "dilation": 1, "transposed": False, "output_padding": 0, "groups": 1, **keywords}
    lists = ("stride", "padding", "dilation", "output_padding")
    full = {name: (value,) * dims if name in lists and isinstance(value, int) else value for name, value in given.items()}
    return torch.convolution(input, weight, bias, **full)


def rdiv(input: torch.Tensor, value: float) -> torch.Tensor:
    """A number divided by a tensor."""
    return value / input


def rpow(input: torch.Tensor, value: float) -> torch.Tensor:
    """A number to the power of a tensor."""
    return value**input


def view(input: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """``Tensor.view`` with its shape by name."""
    return input.view(shape)


def data(input: torch.Tensor) -> torch.Tensor:
    """The attribute ``tensor.data``."""
    return input.data


def expand(input: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """``Tensor.expand`` with its size by name."""
    return input.expand(size)


def getitem(input: torch.Tensor, indices: list[torch.Tensor], index: tuple[Any, ...], counts: tuple[int, ...] = ()) -> torch.Tensor:
    """``input[...]``: an index as rows write it, with "tensor" standing for the next of ``indices``."""
    _pick(indices, counts)
    return input[_python_index(indices, index)]


def _pick(tensors: list[torch.Tensor], counts: tuple[int, ...]) -> None:
    """Makes the masks among the tensors true at so many places each."""
    masks = (t for t in tensors if t.dtype == torch.bool)
    for mask, count in zip(masks, counts, strict=True):
        mask.zero_().view(-1)[:count].fill_(True)


def from_numpy(*, size: tuple[int, ...], strides: tuple[int, ...] | None = None, dtype: str = "float32") -> torch.Tensor:
    """``torch.from_numpy`` of an array that lies so."""
    array = np.zeros(size, dtype)
    return torch.from_numpy(array if strides is None else array.T.copy().T)


def nonzero(input: torch.Tensor, *, count: int) -> torch.Tensor:
    """``torch.nonzero`` of a tensor that is made to have so many elements that are not 0."""
    input.zero_().view(-1)[:count].fill_(1)
    return torch.nonzero(input)


def unique(input: torch.Tensor, *, count: int, **keywords: bool) -> tuple[torch.Tensor, ...]:
    """``torch._unique2`` of equal elements."""
    assert count == 1
    made: tuple[torch.Tensor, ...] = torch._unique2(input, **keywords)
    return made


def bincount(input: torch.Tensor, *weights: torch.Tensor, count: int) -> torch.Tensor:
    """``torch.bincount`` of zeros and one number that needs so many bins."""
    input.zero_()
    input[:1].fill_(count - 1)
    return torch.bincount(input, *weights)


def normal(*tensors: torch.Tensor, mean_value: float | None = None, std_value: float | None = None) -> torch.Tensor:
    """``torch.normal`` with numbers in place of absent tensors."""
    given = iter(tensors)
    mean = next(given) if mean_value is None else mean_value
    std = next(given) if std_value is None else std_value
    return torch.normal(mean, std)


def isin(input: torch.Tensor, *tensors: torch.Tensor, value: float | None = None, **keywords: bool) -> torch.Tensor:
    """``torch.isin`` of a tensor among those of another, or a number."""
    return torch.isin(input, value if value is not None else tensors[0], **keywords)


def setitem(input: torch.Tensor, *tensors: Any, index: tuple[Any, ...], value: Any = None) -> torch.Tensor:
    """``input[...] = tensor`` or a number; gives ``input``."""
    input[_python_index([], index)] = tensors[0] if value is None else value
    return input


def _python_index(indices: list[torch.Tensor], index: tuple[Any, ...]) -> tuple[Any, ...]:
    given = iter(indices)
    entries: list[Any] = []
    for entry in index:
        if entry == "tensor":
            entries.append(next(given))
        else:
            entries.append(... if entry == "..." else slice(*entry) if isinstance(entry, tuple) else entry)
    return tuple(entries)


def _format(name: str) -> torch.memory_format:
    return getattr(torch, name)


def clone(input: torch.Tensor, memory_format: str = "preserve_format") -> torch.Tensor:
    """``clone`` with its memory format by name."""
    return input.clone(memory_format=_format(memory_format))


def contiguous(input: torch.Tensor, memory_format: str = "contiguous_format") -> torch.Tensor:
    """``contiguous`` with its memory format by name."""
    return input.contiguous(memory_format=_format(memory_format))


def to(
    input: torch.Tensor,
    other: torch.Tensor | None = None,
    dtype: str | None = None,
    memory_format: str = "preserve_format",
    copy: bool = False,
) -> torch.Tensor:
    """``to`` with dtype and memory format by name, or with the dtype of another tensor."""
    like = input if other is None else other
    kind = like.dtype if dtype is None else getattr(torch, dtype)
    return input.to(kind, memory_format=_format(memory_format), copy=copy)


def to_device(input: torch.Tensor, other: torch.Tensor | None = None, device: str = "card", **asked: Any) -> torch.Tensor:
    """``to`` with a device: the one there is. From one to another networks show it, whose inputs can lie elsewhere."""
    if input.is_cuda:
        raise NotImplementedError("an input on the host beside those on the card")
    asked.pop("non_blocking", None)
    return to(input, other, **asked)


def copy_across(input: torch.Tensor, src: torch.Tensor, device: str, non_blocking: bool = False) -> torch.Tensor:
    """On the CPU, where one device is: ``device`` says nothing."""
    return input.copy_(src, non_blocking=non_blocking)


def to_copy(input: torch.Tensor, dtype: str | None = None, memory_format: str = "preserve_format") -> torch.Tensor:
    """``_to_copy``: a copy whatever the dtype."""
    return torch.ops.aten._to_copy(input, dtype=None if dtype is None else getattr(torch, dtype), memory_format=_format(memory_format))


def meshgrid(tensors: list[torch.Tensor], indexing: str = "ij") -> tuple[torch.Tensor, ...]:
    """``torch.meshgrid`` of a list."""
    return torch.meshgrid(*tensors, indexing=indexing)


_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def nll_loss_forward(
    input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None, *, reduction: str = "mean", ignore_index: int = -100
) -> torch.Tensor:
    """``at::nll_loss``, below ``torch.nn.functional``'s dispatch on dims."""
    return torch._C._nn.nll_loss(input, target, weight, _REDUCTIONS[reduction], ignore_index)


def nll_loss2d_forward(
    input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None, *, reduction: str = "mean", ignore_index: int = -100
) -> torch.Tensor:
    """``at::nll_loss2d``, below ``torch.nn.functional``'s dispatch on dims."""
    return torch._C._nn.nll_loss2d(input, target, weight, _REDUCTIONS[reduction], ignore_index)


def masked_select(input: torch.Tensor, mask: torch.Tensor, *, count: int | None = None) -> torch.Tensor:
    """``torch.masked_select`` by a mask that is made to pick so many elements (left out: all)."""
    _pick([mask], (mask.numel() if count is None else count,))
    return torch.masked_select(input, mask)


def gather(input: torch.Tensor, index: torch.Tensor, *, dim: int) -> torch.Tensor:
    """``torch.gather`` with its tensors first."""
    return torch.gather(input, dim, index)


def mul_scalar(input: torch.Tensor, *, value: float) -> torch.Tensor:
    """The overload C++ code reaches with a number."""
    return torch.ops.aten.mul.Scalar(input, value)


def div_scalar(input: torch.Tensor, *, value: float) -> torch.Tensor:
    """The overload C++ code reaches with a number."""
    return torch.ops.aten.div.Scalar(input, value)


def class_mask(input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Class indices as one plane of ones a class, of ``input``'s shape and dtype."""
    with torch.no_grad():
        return torch.zeros_like(input).scatter_(1, target.unsqueeze(1), 1)


def dice_loss(
    input: torch.Tensor, target: torch.Tensor, *, activation: str = "softmax", batch: bool = False, smooth: float = 1.0
) -> torch.Tensor:
    """Soft dice: a score per class and sample (per class alone with ``batch``), their mean taken from 1. Targets are class indices, or
    masks of the prediction's shape."""
    dims = (*((0,) if batch else ()), *range(2, input.ndim))
    probabilities = torch.softmax(input, 1) if activation == "softmax" else torch.sigmoid(input)
    if target.shape != input.shape:
        target = class_mask(probabilities, target)
    overlap = (probabilities * target).sum(dims)
    total = probabilities.sum(dims) + target.sum(dims)
    dice = (2 * overlap + smooth) / (total + smooth)
    return 1 - dice.mean()


def scatter_number(input: torch.Tensor, index: torch.Tensor, dim: int, value: float) -> torch.Tensor:
    """``input.scatter_(dim, index, value)``."""
    return input.scatter_(dim, index, value)


def _placed(
    name: str, input: torch.Tensor, *tensors: torch.Tensor | None, dim: int, value: Any = None, inplace: bool = False, **options: Any
) -> torch.Tensor:
    """A method that puts elements, or a number, at places along ``dim``: ``input.name(dim, index, elements)``."""
    given = [t for t in (*tensors, value) if t is not None]
    return getattr(input, f"{name}_" if inplace else name)(dim, *given, **options)


scatter, scatter_add, index_copy, index_fill, index_add = (
    partial(_placed, name) for name in ("scatter", "scatter_add", "index_copy", "index_fill", "index_add")
)


def soft_dice_loss(
    input: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, *, regions: bool = False, batch_dice: bool = False
) -> torch.Tensor:
    """nnU-Net's memory-efficient soft dice (:mod:`validation.nnunet_losses`)."""
    return nnunet_losses.soft_dice(input, target, mask, regions=regions, batch_dice=batch_dice)


def dc_and_ce_loss(input: torch.Tensor, target: torch.Tensor, *, batch_dice: bool = False, ignore_label: int | None = None) -> torch.Tensor:
    """nnU-Net's loss of exclusive classes (:mod:`validation.nnunet_losses`)."""
    return nnunet_losses.dice_and_cross_entropy(input, target, batch_dice=batch_dice, ignore_label=ignore_label)


def dc_and_bce_loss(input: torch.Tensor, target: torch.Tensor, *, batch_dice: bool = False) -> torch.Tensor:
    """nnU-Net's loss of regions (:mod:`validation.nnunet_losses`)."""
    return nnunet_losses.dice_and_binary_cross_entropy(input, target, batch_dice=batch_dice)


def returned(outputs: list[torch.Tensor], inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """What a custom function returns."""
    return tuple(outputs)


def gradients_given(outputs: list[torch.Tensor], gradients: list[torch.Tensor], inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Tensors in the places of their gradients."""
    return tuple(inputs)


def as_they_are(tensors: list[torch.Tensor], **_: Any) -> tuple[torch.Tensor, ...]:
    """Tensors of which nothing but a flag is changed."""
    return tuple(tensors)


def exchanged(input: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """What gives its memory."""
    return given


def hooked(input: torch.Tensor) -> torch.Tensor:
    """What a hook is registered on."""
    return input


def batch_norm(
    input: torch.Tensor, num_batches_tracked: torch.Tensor | None = None, ranks: int | None = 1, **keywords: Any
) -> torch.Tensor:
    """torch.nn.BatchNorm's forward: the counter, then the operator."""
    if ranks != 1:
        raise ValueError("a described batch norm of several ranks has no function in torch: measure nn.SyncBatchNorm")
    if num_batches_tracked is not None and keywords.get("training"):
        num_batches_tracked.add_(1)
    return torch.nn.functional.batch_norm(input, **keywords)


def index_select(input: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """``torch.index_select`` with its dim last."""
    return torch.index_select(input, dim, index)


def tensor_split(input: torch.Tensor, indices_or_sections: int | tuple[int, ...], dim: int = 0) -> tuple[torch.Tensor, ...]:
    """``torch.tensor_split`` with one name for what it splits by."""
    return torch.tensor_split(input, indices_or_sections, dim)


def index(input: torch.Tensor, indices: list[torch.Tensor], dims: tuple[int, ...], counts: tuple[int, ...] = ()) -> torch.Tensor:
    """``input[...]`` with ``indices`` at ``dims`` and ``:`` elsewhere."""
    _pick(indices, counts)
    return input[_at(input, indices, dims)]


def index_put_(
    input: torch.Tensor,
    indices: list[torch.Tensor],
    *other: torch.Tensor,
    dims: tuple[int, ...],
    counts: tuple[int, ...] = (),
    accumulate: bool = False,
    **value: Any,
) -> torch.Tensor:
    """``input[...] = tensor`` or a number, or adding it, with ``indices`` at ``dims`` and ``:`` elsewhere; gives ``input``."""
    _pick(indices, counts)
    if accumulate:
        return input.index_put_(_at(input, indices, dims)[: max(dims) + 1], other[0], True)
    input[_at(input, indices, dims)] = other[0] if other else value["value"]
    return input


def _at(input: torch.Tensor, indices: list[torch.Tensor], dims: tuple[int, ...]) -> tuple[Any, ...]:
    entries: list[Any] = [slice(None)] * input.ndim
    for d, i in zip(dims, indices, strict=True):
        entries[d : d + (i.ndim if i.dtype == torch.bool else 1)] = [i]
    return tuple(entries)


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *mask: torch.Tensor, **keywords: Any) -> torch.Tensor:
    """``scaled_dot_product_attention`` with ``backends`` as rows name them."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    named = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "math": "MATH", "cudnn": "CUDNN_ATTENTION"}
    chosen = [getattr(SDPBackend, named[name]) for name in keywords.pop("backends", None) or named]
    with sdpa_kernel(chosen):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, *mask, **keywords)


def flash_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None, scale: float | None = None
) -> torch.Tensor:
    """The fused kernel itself; its second output is dropped."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, False, attn_mask=attn_mask, scale=scale)[0]


def additive_mask(mask: torch.Tensor, dtype: str = "float32") -> torch.Tensor:
    """A bool mask as attention turns it into numbers."""
    return torch.where(mask, 0.0, torch.scalar_tensor(float("-inf"), dtype=getattr(torch, dtype)))


def causal_mask(input: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """The additive mask attention makes of ``is_causal``."""
    return additive_mask(torch.ones(rows, cols, dtype=torch.bool).tril(), str(input.dtype).removeprefix("torch."))


def safe_softmax(input: torch.Tensor) -> torch.Tensor:
    """``_safe_softmax`` over the last dim."""
    return torch.ops.aten._safe_softmax(input, -1)


def native_multi_head_attention(*tensors: torch.Tensor, embed_dim: int, num_head: int, **keywords: Any) -> Any:
    """``torch._native_multi_head_attention`` with the numbers by name."""
    query, key, value, *rest = tensors
    return torch._native_multi_head_attention(query, key, value, embed_dim, num_head, *rest, **keywords)


def multi_head(*tensors: torch.Tensor, sharing: str = "none", **keywords: Any) -> Any:
    """The same; what query, key and value share is seen by torch itself."""
    return native_multi_head_attention(*tensors, **keywords)


def einsum(*operands: Any, equation: str) -> torch.Tensor:
    """``torch.einsum``, whose equation comes first."""
    return torch.einsum(equation, *(t for o in operands for t in (o if isinstance(o, list | tuple) else [o])))


def einsum_pair(left: torch.Tensor, right: torch.Tensor, shared_dims: tuple[int, ...] = ()) -> torch.Tensor:
    """Two aligned operands of three dims contracted over the last one, as ``einsum`` does it."""
    assert shared_dims == (2,)
    return torch.einsum("abz,abz->ab", left, right).unsqueeze(2)


def unsafe_view(input: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """``aten::_unsafe_view``, which Python has no name for."""
    return torch.ops.aten._unsafe_view(input, shape)


def upsample(input: torch.Tensor, output_size: tuple[int, ...], mode: str = "nearest") -> torch.Tensor:
    """``interpolate`` to a size."""
    return torch.nn.functional.interpolate(input, size=output_size, mode=mode)


def lstm(input: torch.Tensor, hx: torch.Tensor, cx: torch.Tensor, params: list[torch.Tensor], **given: Any) -> Any:
    """``torch.lstm`` with its hidden states apart."""
    return torch.lstm(input, [hx, cx], params, *_recurrent(given))


def one_hidden_gru(input: torch.Tensor, hx: torch.Tensor, params: list[torch.Tensor], **given: Any) -> Any:
    """``torch.gru`` with its settings by name."""
    return torch.gru(input, hx, params, *_recurrent(given))


def one_hidden_rnn_tanh(input: torch.Tensor, hx: torch.Tensor, params: list[torch.Tensor], **given: Any) -> Any:
    """``torch.rnn_tanh`` with its settings by name."""
    return torch.rnn_tanh(input, hx, params, *_recurrent(given))


def one_hidden_rnn_relu(input: torch.Tensor, hx: torch.Tensor, params: list[torch.Tensor], **given: Any) -> Any:
    """``torch.rnn_relu`` with its settings by name."""
    return torch.rnn_relu(input, hx, params, *_recurrent(given))


def pack_padded_sequence(input: torch.Tensor, lengths: torch.Tensor, batch_first: bool, batch_sizes: tuple[int, ...]) -> Any:
    """``_pack_padded_sequence`` with sequences that make these batch sizes."""
    return torch._pack_padded_sequence(
        input, _whole(tuple(sum(size > i for size in batch_sizes) for i in range(batch_sizes[0]))), batch_first
    )


@cache
def _whole(numbers: tuple[int, ...]) -> torch.Tensor:
    """A tensor that stands before anything is measured."""
    return torch.tensor(numbers)


def packed_lstm(input: torch.Tensor, hx: torch.Tensor, cx: torch.Tensor, params: list[torch.Tensor], **given: Any) -> Any:
    """``torch.lstm`` over packed steps."""
    return torch.lstm(input, _whole(tuple(given["batch_sizes"])), [hx, cx], params, *_recurrent(given)[:-1])


def _packed(cell: str) -> Any:
    def call(input: torch.Tensor, hx: torch.Tensor, params: list[torch.Tensor], **given: Any) -> Any:
        return getattr(torch, cell)(input, _whole(tuple(given["batch_sizes"])), hx, params, *_recurrent(given)[:-1])

    return call


packed_gru, packed_rnn_tanh, packed_rnn_relu = _packed("gru"), _packed("rnn_tanh"), _packed("rnn_relu")


def _recurrent(given: dict[str, Any]) -> tuple[Any, ...]:
    settings = {"dropout": 0.0, "training": False, "batch_first": False, **given}
    return tuple(settings[name] for name in ("has_biases", "num_layers", "dropout", "training", "bidirectional", "batch_first"))


def lstm_cell(input: torch.Tensor, hx: torch.Tensor, cx: torch.Tensor, *weights: torch.Tensor) -> Any:
    """``torch.lstm_cell`` with its hidden states apart."""
    return torch.lstm_cell(input, [hx, cx], *weights)


def mkldnn_rnn_layer(*tensors: torch.Tensor, reverse: bool = False, keeps_workspace: bool = True, **given: Any) -> Any:
    """``torch.mkldnn_rnn_layer`` of an LSTM of one layer; without gradients where no workspace is kept."""
    with torch.set_grad_enabled(keeps_workspace):
        hidden = tensors[5].shape[-1]
        return torch.mkldnn_rnn_layer(*tensors, reverse, [], 2, hidden, 1, given.get("has_biases", True), False, False, True)


def stack_steps(tensors: list[torch.Tensor], steps: int) -> torch.Tensor:
    """``torch.stack``, of as many tensors as there are steps."""
    assert len(tensors) == steps
    return torch.stack(tensors)


def sort(input: torch.Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """``torch.sort`` with its settings by name."""
    return torch.sort(input, dim=dim, descending=descending, stable=stable)


def argsort(input: torch.Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> torch.Tensor:
    """``torch.argsort`` with its settings by name."""
    return torch.argsort(input, dim=dim, descending=descending, stable=stable)


def median_dim(input: torch.Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """``torch.median`` along a dim."""
    return torch.median(input, dim, keepdim)


def nanmedian_dim(input: torch.Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """``torch.nanmedian`` along a dim."""
    return torch.nanmedian(input, dim, keepdim)


def cdist_forward(x1: torch.Tensor, x2: torch.Tensor, p: float) -> torch.Tensor:
    """``torch._cdist_forward``, element by element."""
    return torch.ops.aten._cdist_forward(x1, x2, p, 2)


def euclidean_dist(x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
    """``torch._euclidean_dist``."""
    return torch.ops.aten._euclidean_dist(x1, x2)


def embedding(weight: torch.Tensor, indices: torch.Tensor, **given: Any) -> torch.Tensor:
    """``torch.nn.functional.embedding``, the table first."""
    return torch.nn.functional.embedding(indices, weight, **given)


def div_into(out: torch.Tensor, input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``torch.div`` into a tensor that is there."""
    return torch.div(input, other, out=out)


def maximum_into(out: torch.Tensor, input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``torch.maximum`` into a tensor that is there."""
    return torch.maximum(input, other, out=out)


def minimum_into(out: torch.Tensor, input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``torch.minimum`` into a tensor that is there."""
    return torch.minimum(input, other, out=out)


def weight_norm_interface(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """The weight that ``torch._weight_norm_interface`` gives."""
    return torch._weight_norm_interface(v, g, dim)[0]


def to_complex(input: torch.Tensor) -> torch.Tensor:
    """A real tensor as a complex one of its precision."""
    return input.to(input.dtype.to_complex())


def fft_r2c(input: torch.Tensor, dims: tuple[int, ...], onesided: bool = True) -> torch.Tensor:
    """``torch._fft_r2c``, of which half is kept, or all."""
    return torch._fft_r2c(input, dims, 0, onesided)


def fft_c2c(input: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """``torch._fft_c2c`` forward."""
    return torch._fft_c2c(input, dims, 0, True)


def fft_c2r(input: torch.Tensor, dims: tuple[int, ...], length: int) -> torch.Tensor:
    """``torch._fft_c2r``."""
    return torch._fft_c2r(input, dims, 0, length)


def transformer_encoder_layer(src: torch.Tensor, *weights: torch.Tensor, **given: Any) -> torch.Tensor:
    """``torch._transformer_encoder_layer_fwd`` with the numbers by name."""
    numbers = [given[name] for name in ("use_gelu", "norm_first", "eps")]
    return torch._transformer_encoder_layer_fwd(src, given["embed_dim"], given["num_heads"], *weights[:4], *numbers, *weights[4:])


def broadcast_tensors(tensors: list[torch.Tensor]) -> Any:
    """``torch.broadcast_tensors`` of a list."""
    return torch.broadcast_tensors(*tensors)


def nms(dets: torch.Tensor, scores: torch.Tensor, *, count: int, iou_threshold: float) -> torch.Tensor:
    """torchvision's ``nms`` of boxes that are moved (without a new tensor) so that so many are kept: as many lie apart, the others on the
    first."""
    for i, box in enumerate(dets.detach()):
        place = 10 * i if i < count else 0
        for corner, at in zip(box, (place, 0, place + 5, 5), strict=True):
            corner.fill_(at)
    result: torch.Tensor = torch.ops.torchvision.nms(dets, scores, iou_threshold)
    return result


def scatter_reduce(input: torch.Tensor, index: torch.Tensor, src: torch.Tensor, *, dim: int, **named: Any) -> torch.Tensor:
    """``scatter_reduce`` with its dim by name."""
    return input.scatter_reduce(dim, index, src, **named)


def masked_scatter(input: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """``masked_scatter`` out of place."""
    return input.masked_scatter(mask, source)


def clamp(input: torch.Tensor, min: torch.Tensor | None = None, max: torch.Tensor | None = None, inplace: bool = False) -> torch.Tensor:
    """``clamp`` between tensors."""
    return input.clamp_(min, max) if inplace else input.clamp(min, max)


def ctc_loss(log_probs: torch.Tensor, targets: torch.Tensor, *, longest: int, zero_infinity: bool = False) -> torch.Tensor:
    """The first of what ``torch._ctc_loss`` gives for sequences as long as they can be, and targets alike."""
    steps, batch, _ = log_probs.shape
    return torch._ctc_loss(log_probs, targets, (steps,) * batch, (longest,) * batch, 0, zero_infinity)[0]


def autocast_operands(tensors: list[torch.Tensor], of: str) -> tuple[torch.Tensor, ...]:
    """The tensors as they are: there is no autocast around."""
    return tuple(tensors)


def fused_moving_avg_obs_fake_quant(*tensors: torch.Tensor, observes: bool = True, rounds: bool = True, **settings: Any) -> torch.Tensor:
    """The fused fake quantizer, its switches set."""
    input, observer_on, fake_quant_on, *state = tensors
    observer_on.fill_(observes), fake_quant_on.fill_(rounds)
    return torch.fused_moving_avg_obs_fake_quant(input, observer_on, fake_quant_on, *state, **settings)


def polygamma(input: torch.Tensor, *, n: int) -> torch.Tensor:
    """``torch.polygamma`` with its order by name."""
    return torch.polygamma(n, input)


def block_diag(tensors: list[torch.Tensor]) -> torch.Tensor:
    """``torch.block_diag`` of a list."""
    return torch.block_diag(*tensors)


def cholesky(input: torch.Tensor) -> torch.Tensor:
    """``torch.linalg.cholesky`` of matrices that it takes: their numbers are written over with those of the identity."""
    input.data.zero_().diagonal(0, -2, -1).fill_(1)
    return torch.linalg.cholesky(input)


def trilinear(input1: torch.Tensor, input2: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``torch._trilinear`` as torch.nn.functional.bilinear calls it."""
    return torch._trilinear(input1, weight, input2, [1, 3], [0], [1, 2], [2, 3])


def embedding_bag(weight: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor, *weights: torch.Tensor, **given: Any) -> Any:
    """``torch.embedding_bag`` with its mode by name; the last offset is the end."""
    if given.get("include_last_offset"):
        offsets[-1].fill_(len(indices))
    mode = ("sum", "mean", "max").index(given.pop("mode", "mean"))
    settings = {"scale_grad_by_freq": False, "include_last_offset": False, "padding_idx": None, **given}
    settings.pop("forward_only", None)
    own = weights[0] if weights else None
    return torch.embedding_bag(weight, indices, offsets, mode=mode, sparse=False, per_sample_weights=own, **settings)
