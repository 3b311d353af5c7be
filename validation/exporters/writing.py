"""A network exported, and its file without weights as text; and the network as memest records it from torch."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

from validation.libraries.subjects import Subject

EXPORTERS = ("dynamo", "legacy")
FEW = 16  # numbers of a tensor that are kept where they are no whole ones: bounds, factors
SCOPES = "pkg.torch.onnx.name_scopes"


def written(subject: Subject, exporter: str) -> dict[str, Any]:
    """``text``: the model in protobuf's text format, or ``failed``: what the exporter says of a network that it does not take."""
    import torch

    from memest.sources.importers.torch.loading import build
    from validation.libraries.measuring import tensors
    from validation.modules import trained

    torch.manual_seed(0)
    module, given = trained(build(subject.model).eval()), tensors(subject.inputs)
    names = [text.partition("=")[0] for text in subject.inputs if "=" in text]
    called: dict[str, Any] = {"kwargs": dict(zip(names, given, strict=True))} if names else {}
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, silent[0], silent[1], warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        how = {"dynamo": exporter == "dynamo", "external_data": False, "verbose": False, **called}
        try:
            torch.onnx.export(module, () if names else tuple(given), path, **how)
        except Exception as e:  # the exporter's own, of many kinds
            return {"failed": f"{type(e).__name__}: {e}".partition("\n")[0][:200]}
        return {"text": without_weights(path)}


def recorded(subject: Subject) -> dict[str, Any]:
    """``graph``: the network as it is recorded, or ``refused``: why it is not."""
    from memest.errors import MemestError
    from memest.sources.files.writing import dumps
    from memest.sources.importers.torch.loading import build
    from memest.sources.importers.torch.network import from_torch
    from validation.libraries.measuring import example

    try:
        graph = from_torch(build(subject.model).eval(), example(subject.inputs), name=subject.name, assume=dict(subject.assume))
        return {"graph": dumps(graph, form="json")}
    except MemestError as e:
        return {"refused": str(e)}


def without_weights(path: Path) -> str:
    """The model in a file as text, without the numbers of weights and without what an exporter notes of the machine it ran on."""
    import onnx
    from google.protobuf import text_format

    from memest.sources.importers.onnx.skimming import skimmed

    model = onnx.ModelProto.FromString(skimmed(path))
    del model.metadata_props[:]
    _strip(model.graph)
    for function in model.functions:
        for node in function.node:
            _strip_node(node)
    return str(text_format.MessageToString(model))


def _strip(graph: Any) -> None:
    for tensor in graph.initializer:
        _strip_tensor(tensor)
    for node in graph.node:
        _strip_node(node)


def _strip_node(node: Any) -> None:
    scopes = [p.value for p in node.metadata_props if p.key == SCOPES]
    del node.metadata_props[:]
    for value in scopes:
        node.metadata_props.add(key=SCOPES, value=value)
    node.ClearField("doc_string")
    for attribute in node.attribute:
        if attribute.HasField("t"):
            _strip_tensor(attribute.t)
        if attribute.HasField("g"):
            _strip(attribute.g)


def _strip_tensor(tensor: Any) -> None:
    from memest.network.dtypes import FLOATING
    from memest.network.tensor import numel
    from memest.sources.importers.onnx.values import DTYPES

    if DTYPES.get(tensor.data_type) in FLOATING and numel(tuple(tensor.dims)) > FEW:
        for field in ("raw_data", "float_data", "double_data"):
            tensor.ClearField(field)
