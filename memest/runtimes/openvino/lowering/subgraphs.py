"""What is left of functions of single elements is joined to Subgraphs: each takes in those it reads, where that makes no circle. An
attention, too, is one Subgraph.

Source: openvino/src/common/snippets/src/pass/collapse_subgraph.cpp (``TokenizeSnippets``), mha_tokenization.cpp (``TokenizeMHASnippets``).
"""

from __future__ import annotations

from memest.network.graph import Layer
from memest.runtimes.openvino.lowering.fusing import Fusing
from memest.runtimes.openvino.rows import node, told

NOT_JOINED = frozenset({"mish", "softplus", "hsigmoid", "round", "isnan", "isinf", "log"})
LAST = 1 << 60


def tokenize_attention(f: Fusing, precision: str) -> None:
    """A product, functions of single elements, a softmax and a product, each the only reader of the one before, over four dims; in full
    precision also the transposition behind them."""
    for layer in f.r.layers:
        if layer.op == "MatMul" and layer in f.r and len(f.shapes[layer.outputs[0]]) == 4:
            _attention(f, layer, precision == "float32")


def _attention(f: Fusing, first: Layer, transposes: bool) -> None:
    chain, taken = [first], list[Layer]()
    reads = list(first.reads)
    while (found := f.r.sole_reader(chain[-1].outputs[0])) is not None and found.op == "Eltwise":
        for name in found.reads:
            if name != chain[-1].outputs[0]:
                reads.append(_behind(f, name, taken))
        chain.append(found)
    if found is None or found.op != "Softmax" or told(found, "what") != "axis 3":
        return
    last = f.r.sole_reader(found.outputs[0])
    if last is None or last.op != "MatMul" or last.reads[0] != found.outputs[0]:
        return
    chain += [found, last]
    reads.append(last.reads[1])
    after = f.r.sole_reader(last.outputs[0])
    if transposes and after is not None and after.op == "Transpose" and told(after, "what") == "0,2,1,3":
        chain.append(after)
    end = chain[-1]
    for layer in (*taken, *chain[:-1]):
        f.r.remove(layer)
    f.r.replace(end, node(end.name, "Subgraph", reads, (f.shapes[end.outputs[0]],), what="attention", outputs=end.outputs))


def _behind(f: Fusing, name: str, taken: list[Layer]) -> str:
    """What a function of an attention's mask alone is made of: it is computed in the attention."""
    maker = f.r.maker(name)
    if maker is None or maker.op != "Eltwise" or len(maker.reads) != 1 or f.r.sole_reader(name) is None:
        return name
    taken.append(maker)
    return _behind(f, maker.reads[0], taken)


def tokenize(f: Fusing) -> None:
    """Each function of single elements that nobody took in becomes a Subgraph, together with those that it reads. What it reads besides
    is an operand of its own, though one taken in reads it, too."""
    for layer in f.r.layers:
        if layer.op == "Eltwise" and told(layer, "what") not in NOT_JOINED and layer.name not in f.left:
            _join(f, layer)


def _order(f: Fusing, value: str) -> int:
    return f.order.get(value, -1)


def _join(f: Fusing, layer: Layer) -> None:
    made = layer.outputs[0]
    low = max((_order(f, name) for name in layer.reads), default=-1)
    high = min((_order(f, r.outputs[0]) for r in f.r.readers(made)), default=LAST)
    reads: list[str] = []
    outputs: list[str] = []
    taken: list[Layer] = []
    for name in layer.reads:
        parent = f.r.maker(name)
        if parent in taken:
            continue
        if parent is not None and parent.op == "Subgraph" and told(parent, "what") != "attention":
            others = [r for value in parent.outputs for r in f.r.readers(value) if r.name != layer.name]
            lower = max([low, *(_order(f, n) for n in parent.reads)])
            upper = min([high, *(_order(f, r.outputs[0]) for r in others)])
            if lower < upper:
                low, high = lower, upper
                taken.append(parent)
                reads += [n for n in parent.reads if n not in reads]
                outputs += [o for o in parent.outputs if f.r.is_output(o) or any(o in r.reads for r in others)]
                continue
        reads.append(name)
    for parent in taken:
        f.r.remove(parent)
    outputs.append(made)
    kept = [n for n in reads if n not in f.constants or _elements(f, n) > 1]
    f.r.replace(layer, node(layer.name, "Subgraph", kept, [f.shapes[o] for o in outputs], outputs=outputs))


def _elements(f: Fusing, name: str) -> int:
    count = 1
    for n in f.shapes[name]:
        count = count * n
    return count
