"""What nodes take in of those behind them: convolutions, products and norms the functions of single elements, a convolution also a sum,
into whose other operand it writes.

Source: openvino/src/plugins/intel_cpu/src/graph_optimizer.cpp, in its order; node.cpp (``canFuseSimpleOperation``,
``canBePerformedAsScaleShift``); dnnl_extension_utils.cpp (``isUnarySupportedAsPostOp``).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from memest.network.graph import Layer
from memest.network.tensor import Shape
from memest.runtimes.openvino.rows import telling, told
from memest.runtimes.rewriting import Rewriting

POST_OPS = frozenset(
    {"abs", "clamp", "elu", "gelu", "hsigmoid", "hswish", "mish", "relu", "round", "sigmoid", "softplus", "sqrt", "swish", "tanh"}
)
SCALE_SHIFT = frozenset({"add", "divide", "multiply", "prelu", "subtract"})
AXIS_LAST = frozenset({"FullyConnected"})
TAKE_IN = ("FullyConnected", "MatMul", "MVN", "Interpolate", "Reduce")


class Fusing:
    """A network of nodes on its way. ``shapes`` are those of values, ``constants`` what is known before the call, ``order`` says which
    node of those at the beginning made a value. Those in ``left`` a
    convolution was to take in, and cannot: they stay alone."""

    def __init__(self, rewriting: Rewriting, shapes: Mapping[str, Shape], constants: frozenset[str]) -> None:
        self.r, self.shapes, self.constants = rewriting, shapes, constants
        self.left: set[str] = set()
        self.order = {value: n for n, layer in enumerate(rewriting.layers) for value in layer.outputs}

    def run(self) -> None:
        """All of it."""
        self._into_weights()
        self._deconvolutions()
        self._through_pooling()
        self._simple("Convolution")
        self._sums()
        self._simple("Convolution")
        for kind in TAKE_IN:
            self._simple(kind)
        self._simple("Eltwise")

    def _data(self, layer: Layer) -> list[str]:
        return [name for name in layer.reads if name not in self.constants]

    def _can_take(self, parent: Layer, child: Layer) -> bool:
        if child.op != "Eltwise" or child.reads.count(parent.outputs[0]) != 1:
            return False
        what, data = told(child, "what"), self._data(child)
        if len(data) == 1 and len(child.reads) == 1 and what in POST_OPS:
            return True
        return what in SCALE_SHIFT and len(data) == 1 and self._per_channel(parent, child)

    def _per_channel(self, parent: Layer, child: Layer) -> bool:
        """Whether the other operands are numbers, or one a channel."""
        shape = self.shapes[parent.outputs[0]]
        axis = len(shape) - 1 if parent.op in AXIS_LAST else 1
        if self.shapes[child.outputs[0]] != shape:
            return False
        for name in child.reads:
            if name in self.constants:
                of = self.shapes[name]
                padded = (*[1] * (len(shape) - len(of)), *of)
                if told(child, "what") == "prelu" and len(of) == 1:
                    continue
                if len(padded) != len(shape) or any(n != 1 and (d != axis or n != shape[d]) for d, n in enumerate(padded)):
                    return False
        return True

    def take_in(self, parent: Layer, child: Layer) -> Layer:
        """``parent`` makes what ``child`` made, and holds its constants."""
        kept = [name for name in child.reads if name in self.constants]
        return self.r.take_over(parent, child, tensors=((*parent.reads, *kept),))

    def _simple(self, kind: str) -> None:
        for layer in self.r.layers:
            if layer.op != kind or layer.name not in self.r.names or (kind == "Eltwise" and layer.name not in self.left):
                continue
            parent = self.r.layer(layer.name)
            while len(parent.outputs) == 1:
                child = self.r.sole_reader(parent.outputs[0])
                if child is None or not self._can_take(parent, child):
                    break
                parent = self.take_in(parent, child)

    def _into_weights(self) -> None:
        """What is multiplied by numbers for a convolution's sake: its weights are (mul_conv_fusion.cpp, ``MultiplyConvolutionFusion``)."""
        for layer in self.r.layers:
            if layer.op == "Eltwise" and told(layer, "what") == "multiply" and len(data := self._data(layer)) == 1:
                reader = self.r.follower(layer, ("Convolution", "Deconvolution"))
                if reader is not None and all(prod(self.shapes[name]) == 1 for name in layer.reads if name in self.constants):
                    self.r.bypass(layer, data[0])

    def _deconvolutions(self) -> None:
        for layer in self.r.layers:
            if layer.op == "Deconvolution":
                child = self.r.sole_reader(layer.outputs[0])
                if child is not None and self._is_post_op(child):
                    self.left.add(child.name)
                elif child is not None and self._can_take(layer, child):
                    self.take_in(layer, child)

    def _is_post_op(self, layer: Layer) -> bool:
        return layer.op == "Eltwise" and told(layer, "what") in POST_OPS and len(layer.reads) == 1

    def _through_pooling(self) -> None:
        """A function behind a maximum behind a convolution is computed by the convolution."""
        for layer in self.r.layers:
            pool = self.r.sole_reader(layer.outputs[0]) if layer.op == "Convolution" else None
            if pool is not None and pool.op == "Pooling" and told(pool, "what") == "max":
                child = self.r.sole_reader(pool.outputs[0])
                if child is not None and self._is_post_op(child):
                    self.r.take_over(pool, child)

    def _sums(self) -> None:
        for layer in self.r.layers:
            if layer.op == "Eltwise" and told(layer, "what") == "add" and len(self._data(layer)) == 2 and layer in self.r:
                self._sum(layer)

    def _sum(self, add: Layer) -> None:
        x, y = add.reads
        if self.shapes[x] != self.shapes[y]:
            return
        makers = [self.r.maker(x), self.r.maker(y)]
        able = [m is not None and m.op == "Convolution" and told(m, "what") == "" and self._is_plain(m) for m in makers]
        if not any(able):
            return
        first = 0 if able[0] else 1
        if all(able) and not self._read_once(x):
            first = 1
        merged, peer = makers[first], (x, y)[1 - first]
        assert merged is not None
        if not self._read_once(merged.outputs[0]):
            return
        if peer in merged.reads or not self._all_before(peer, add):
            self.left.add(add.name)
            return
        child = self.r.sole_reader(add.outputs[0])
        reads = (*merged.reads, peer)
        made = self.r.take_over(merged, add, tensors=(reads,), attributes=telling(merged, what="sum", over=len(reads) - 1))
        if child is not None and self._is_post_op(child):
            self.r.take_over(made, child)

    def _is_plain(self, convolution: Layer) -> bool:
        """Whether it has taken in nothing yet: it makes what it made at the beginning."""
        return convolution.outputs == (convolution.name,)

    def _read_once(self, value: str) -> bool:
        return self.r.sole_reader(value) is not None

    def _all_before(self, peer: str, add: Layer) -> bool:
        """Whether every other reader of ``peer`` leads to the sum, and so has read it before it is written over."""
        maker = self.r.maker(peer)
        if maker is None or self.r.is_output(peer):
            return maker is None and not self.r.is_output(peer)
        readers = [layer for value in maker.outputs for layer in self.r.readers(value)]
        return all(layer.name == add.name or self._leads(layer, add) for layer in readers)

    def _leads(self, start: Layer, end: Layer) -> bool:
        last = self.order[end.outputs[0]]
        seen, waiting = {start.name}, [start]
        while waiting:
            for value in waiting.pop().outputs:
                for reader in self.r.readers(value):
                    if reader.name == end.name:
                        return True
                    if reader.name not in seen and self.order[reader.outputs[0]] < last:
                        seen.add(reader.name)
                        waiting.append(reader)
        return False
