"""torchinfo: inputs, parameters, and what leaf modules with parameters give, twice.

``ModelStatistics.__init__`` goes over the modules that a forward in ``eval()`` calls: of each call of a leaf (``not any(children())``)
that has parameters, its output's bytes are added two times ("x2 for gradients"); of each leaf, once, its parameters. Parameters of modules
that hold modules, buffers, and outputs of leaves without parameters (ReLU, pooling, functions) are in no sum of bytes.
``LayerInfo.calculate_size`` takes of several outputs the first (of a dict the last). The input is ``sys.getsizeof`` of its storage.
Printed in MB of 1,000,000 bytes.
"""

from __future__ import annotations

from memest.network.modules import Made, Modules, Result, weight
from memest.planning.peers.said import Said, Term, plus

RULE = "torchinfo 1.8.0: model_statistics.py, layer_info.py, torchinfo.py"


def torchinfo(modules: Modules) -> Said:
    """``summary(model, input_data=...)``."""
    by_module: dict[str, int] = {}
    held: set[str] = set()
    registered = 0
    short = 0
    for call in modules.calls:
        own = modules.own_parameters(call.path)
        if not call.leaf:
            continue
        if own:
            first = _one_of(call.result)
            counted = 0 if first is None else first.nbytes
            by_module[call.path] = by_module.get(call.path, 0) + counted
            short += counted
        if call.path not in held:
            registered += weight(own)
        held.add(call.path)
    everything = weight(modules.parameters)
    reached = {p.name: p for path in held for p in modules.own_parameters(path)}
    forgotten = everything - weight(list(reached.values()))
    given = [made for _, made in modules.inputs]
    terms = [
        Term(category="input", nbytes=sum(made.nbytes for made in given)),
        *plus("input", modules.held * len(given), "Python's object around the input's memory"),
        Term(category="parameter", nbytes=everything),
        *plus("parameter", -forgotten, "parameters of modules that hold others, or are never called: forgotten"),
        *plus("parameter", registered - everything + forgotten, "parameters that modules share: counted at each"),
        Term(category="activation", nbytes=short, by_module=by_module),
        *plus("activation", short, "each output a second time, 'for gradients'"),
    ]
    total = sum(t.nbytes for t in terms)
    return Said(
        tool="torchinfo",
        rule=RULE,
        asks="input, parameters and outputs",
        printed=f"Estimated Total Size (MB): {total / 1e6:0.2f} (of 1,000,000 bytes)",
        terms=tuple(terms),
    )


def _one_of(result: Result) -> Made | None:
    """The output that is counted."""
    if isinstance(result, dict) and result:
        result = list(result.values())[-1]
    while isinstance(result, tuple | dict) and result:
        result = next(iter(result.values())) if isinstance(result, dict) else result[0]
    return result if isinstance(result, Made) else None
