"""Level "all": convolutions and pools of images in blocks of channels (NCHWc), and what follows them as long as it can stay so.

Source: onnxruntime/core/optimizer/nchwc_transformer.cc (``NchwcTransformerImpl``). One pass in the order of nodes; values that nobody
reads in blocks any more are reordered back where they are still read plainly, after the pass. Channels are padded to the block.

These last reorders are numbered by a hash table of addresses there, so where one node reads two of them the order of the nodes that lead
to them differs from session to session (measured: the same file, the same peak, another pattern block). The youngest comes first where
nothing else is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from memest.memory.planners.blocks import aligned
from memest.network.tensor import same_shape
from memest.runtimes.onnxruntime.lowering import turning
from memest.runtimes.onnxruntime.lowering.nodes import Net, Node, Value, is_a_channel, like

ALIGNED = 4  # channels: what ReorderInput pads from
POINTWISE = frozenset({"Relu", "Sigmoid", "Tanh", "Gelu", "QuickGelu", "HardSigmoid"})


@dataclass(eq=False, slots=True)
class Blocked:
    """A value in blocks: who makes it, how many channels it stands for, and how many readers the plain one had and still has."""

    maker: Node
    value: Value
    channels: int
    uses: int
    left: int


def blocked(net: Net, block: int, *, youngest_first: bool) -> bool:
    """The network in blocks of channels; whether its order is unsettled: a node reads several values that are reordered after the pass."""
    return _Transformer(net, block).run(youngest_first)


class _Transformer:
    def __init__(self, net: Net, block: int) -> None:
        self.net, self.block = net, block
        self._args: dict[Value, Blocked] = {}
        self._reordered: dict[Value, Value] = {}
        self._superseded: list[Value] = []  # what is reordered from before its transpose

    def run(self, youngest_first: bool) -> bool:
        for node in self.net.order():
            if node.number in self.net.nodes:
                self._transform(node)
        for value in self._superseded:
            turning.forget(self.net, value)
        late = [(plain, arg) for plain, arg in self._args.items() if arg.left > 0]
        for plain, arg in reversed(late) if youngest_first else late:
            self.net.add("nchwc:ReorderOutput", [arg.value], [plain], arg.maker.layer, channels=arg.channels)
        made = {plain for plain, _ in late}
        return any(len(made.intersection(node.reads)) > 1 for node in self.net.order())

    def _transform(self, node: Node) -> None:
        if node.op in ("Conv", "FusedConv"):
            self._conv(node)
        elif node.op in ("MaxPool", "AveragePool"):
            self._pool(node)
        elif all(v.is_weight or v in self._args for v in node.reads):
            self._follow(node)

    def _follow(self, node: Node) -> None:
        """What may stay in blocks where its inputs are."""
        if node.op in ("Add", "Sum"):
            self._binary(node, True)
        elif node.op == "Mul" and not self._scale(node):
            self._binary(node, False)
        elif node.op == "Concat":
            self._concat(node)
        elif node.op in POINTWISE:
            self._activation(node)
        elif node.op == "BatchNormalization":
            self._norm(node)
        elif node.op == "Transpose":
            self._transpose(node)
        elif node.op == "Resize":
            self._resize(node)
        elif node.op in ("GlobalAveragePool", "GlobalMaxPool"):
            self._pool(node)

    def _conv(self, node: Node) -> None:
        weight = node.inputs[1]
        assert weight is not None
        if len(weight.shape) != 4 or not weight.is_weight or weight.dtype != "float32":
            return
        outputs, inputs = weight.shape[:2]
        group = node.attributes["group"]
        reorder = True
        padded = self._padded(inputs)
        if group > 1:
            if inputs == 1 and outputs == group:
                if outputs % ALIGNED:
                    return
                padded = inputs
                group = self._padded(outputs)
            elif outputs % self.block or inputs % self.block or (outputs // group) % self.block:
                return
        elif inputs < self.block:
            reorder, padded = False, inputs
        elif inputs % ALIGNED:
            return
        filters = Value(weight.name, (self._padded(outputs), padded, *weight.shape[2:]), weight.dtype, weight.category)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            bias = Value(bias.name, (self._padded(outputs),), bias.dtype, bias.category)
        source: Value | None = node.source
        if reorder:
            source = self._take(node.source)
        made = self.net.add("nchwc:Conv", [source, filters, bias], [], node.layer, **{**node.attributes, "group": group})
        self._create(node, made, outputs)

    def _pool(self, node: Node) -> None:
        channels = node.source.shape[1]
        if len(node.source.shape) != 4 or channels % self.block or node.source.dtype != "float32":
            return
        made = self.net.add(f"nchwc:{node.op}", [self._take(node.source)], [], node.layer, **node.attributes)
        self._create(node, made, channels)

    def _binary(self, node: Node, add: bool) -> None:
        args = [self._args[v] for v in node.reads if v in self._args]
        if len(args) != len(node.inputs) or not all(a.channels == args[0].channels for a in args):
            return
        first, *others = node.reads
        if not all(same_shape(first.shape, v.shape) for v in others):
            return
        plain = node.result
        for slot, arg in enumerate(args):
            self.net.read(node, slot, arg.value)
            arg.left -= 1
        if add and len(args) == 2:
            for arg, other in (args, args[::-1]):
                maker = arg.maker
                if maker.op == "nchwc:Conv" and len(maker.inputs) < 4 and arg.uses == 1 and "activation" not in maker.attributes:
                    self.net.remove(node)
                    maker.inputs += [None] * (4 - len(maker.inputs))
                    self.net.read(maker, 3, other.value)
                    self._args[plain] = Blocked(maker, arg.value, arg.channels, plain.uses, plain.uses)
                    return
        self._stay(node, args[0].channels)

    def _scale(self, node: Node) -> bool:
        """A product with one number a channel is a convolution of single elements; whether it is one."""
        factors = [v for v in node.reads if v not in self._args]
        plain = next((v for v in node.reads if v in self._args), None)
        if len(factors) != 1 or plain is None or not is_a_channel(factors[0], len(plain.shape), self._args[plain].channels):
            return False
        channels = self._args[plain].channels
        weight = Value(f"{node.layer}.scale", (self._padded(channels), 1, 1, 1), plain.dtype, factors[0].category)
        made = self.net.add("nchwc:Conv", [self._take(plain), weight, None], [], node.layer, group=self._padded(channels), kernel=(1, 1))
        self._create(node, made, channels)
        return True

    def _concat(self, node: Node) -> None:
        args = [self._args.get(v) for v in node.reads]
        if node.attributes["axis"] != 1:
            return
        found = [a for a in args if a is not None and a.channels % self.block == 0]
        if len(found) != len(node.inputs):
            return
        for slot, arg in enumerate(found):
            self.net.read(node, slot, arg.value)
            arg.left -= 1
        self._stay(node, sum(a.channels for a in found))

    def _activation(self, node: Node) -> None:
        arg = self._args[node.source]
        self.net.read(node, 0, arg.value)
        arg.left -= 1
        fusable = node.op in ("Relu", "Sigmoid", "Tanh")
        if fusable and arg.maker.op == "nchwc:Conv" and arg.uses == 1 and "activation" not in arg.maker.attributes:
            arg.maker.attributes["activation"] = node.op
            self.net.remove(node)
            self._args[node.result] = Blocked(arg.maker, arg.value, arg.channels, node.result.uses, node.result.uses)
        else:
            self._stay(node, arg.channels)

    def _norm(self, node: Node) -> None:
        channels = self._args[node.source].channels
        padded = self._padded(channels)
        weights = [
            Value(f"{node.layer}.{n}", shape, node.source.dtype, "parameter") for n, shape in (("w", (padded, 1, 1, 1)), ("b", (padded,)))
        ]
        made = self.net.add("nchwc:Conv", [self._take(node.source), *weights], [], node.layer, group=padded, kernel=(1, 1))
        self._create(node, made, channels)

    def _transpose(self, node: Node) -> None:
        if node.attributes["perm"] != (0, 2, 3, 1):
            return
        arg = self._args[node.source]
        arg.left -= 1
        self.net.replace([node], "nchwc:ReorderOutput", [arg.value], node.outputs, channels=arg.channels, last=True)

    def _resize(self, node: Node) -> None:
        scales = node.attributes["scales"]
        if node.attributes["mode"] == "cubic" or any(b % a for a, b in scales):
            return
        arg = self._args[node.source]
        made = self.net.add("nchwc:Upsample", [self._take(node.source)], [], node.layer)
        self._create(node, made, arg.channels)

    def _take(self, source: Value) -> Value:
        """The value in blocks, reordered where it is plain."""
        arg = self._args.get(source)
        if arg is not None:
            arg.left -= 1
            return arg.value
        maker = source.maker
        if source not in self._reordered:
            n, c, *sizes = source.shape
            made = like(source, f"{source.name}.blocked", (n, self._padded(c), *sizes))
            last = turning.before_transposes(self.net, source, ((0, 3, 1, 2),))
            self.net.add("nchwc:ReorderInput", [last or source], [made], maker.layer if maker is not None else "")
            self._superseded += [source] * (last is not None)
            self._reordered[source] = made
        return self._reordered[source]

    def _create(self, node: Node, made: Node, channels: int) -> None:
        """``made`` gives in blocks what ``node`` gave."""
        plain = node.result
        n, _, *sizes = plain.shape
        value = like(plain, f"{plain.name}.blocked", (n, self._padded(channels), *sizes))
        made.outputs.append(value)
        value.maker = made
        self.net.remove(node)
        self._args[plain] = Blocked(made, value, channels, plain.uses, plain.uses)

    def _stay(self, node: Node, channels: int) -> None:
        """The node itself gives its result in blocks."""
        plain = node.result
        n, _, *sizes = plain.shape
        value = like(plain, f"{plain.name}.blocked", (n, self._padded(channels), *sizes))
        node.outputs[0] = value
        value.maker, plain.maker = node, None
        self._args[plain] = Blocked(node, value, channels, plain.uses, plain.uses)

    def _padded(self, channels: int) -> int:
        return aligned(channels, self.block)
