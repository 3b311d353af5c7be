"""ONNX files as a source: nodes as calls, sizes folded, weights never read; what is no network is refused in one line."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memest
from memest.cli.app import main
from memest.errors import FileError, GraphError, MemestError, UnsupportedError, UsageError
from memest.network.tensor import nbytes

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

CPU = memest.Cpu(threads=2)
IMAGE = ("N", 3, 32, 32)
LARGE = 1 << 62


def weight(name: str, *shape: int, dtype: Any = np.float32) -> Any:
    """An initializer."""
    return numpy_helper.from_array(np.zeros(shape, dtype), name)


def numbers(name: str, *values: int) -> Any:
    """An initializer of whole numbers."""
    return numpy_helper.from_array(np.array(values, np.int64), name)


def unread(name: str, shape: Sequence[int], **places: str) -> Any:
    """An initializer without data, or with data in another file."""
    made = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)
    for key, value in places.items():
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key=key, value=value)
    return made


def saved(
    folder: Path, nodes: Sequence[Any], initializers: Sequence[Any] = (), *, shape: Any = IMAGE, opset: int = 20, functions: Any = ()
) -> Path:
    """A file that reads ``x`` and gives ``y``."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(initializers))
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid("own", 1)] if functions else [])]
    path = folder / "net.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=imports, functions=list(functions)).SerializeToString())
    return path


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    """A node; names are separated by blanks, ``-`` is one left out."""
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=attributes.pop("name", ""), **attributes)


def peak(graph: memest.Graph, shape: Sequence[int], mode: str = "infer") -> int:
    """The peak of one call or step."""
    return memest.estimate(graph, input_shape=tuple(shape), mode=mode, machine=CPU).peak_bytes


def calls(graph: memest.Graph) -> list[str]:
    """The rows that it calls."""
    return [layer.op for layer in graph.layers]


CNN = (
    node("Conv", "x w b", "a", pads=[1, 1, 1, 1], name="/stem/stem.0/Conv"),
    node("BatchNormalization", "a s s m v", "n", name="/stem/stem.1/BatchNormalization"),
    node("Relu", "n", "r", name="/stem/stem.2/Relu"),
    node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2], name="/pool/MaxPool"),
    node("GlobalAveragePool", "p", "g"),
    node("Flatten", "g", "f"),
    node("Gemm", "f fc fb", "y", transB=1, name="/head/Gemm"),
)
WEIGHTS = (weight("w", 8, 3, 3, 3), *(weight(n, 8) for n in "bsmv"), weight("fc", 10, 8), weight("fb", 10))


def same_by_hand() -> memest.Graph:
    """The same network, built layer by layer."""
    b = memest.Builder("net")
    x = b.input("x", IMAGE)
    w, bias = b.parameter("w", (8, 3, 3, 3)), b.parameter("b", (8,))
    a = b.layer("conv2d", x, w, bias, padding=1)
    mean, var = (b.parameter(n, (8,), buffer=True) for n in "mv")
    s = b.parameter("s", (8,))
    r = b.layer("relu", b.layer("batch_norm", a, mean, var, s, s))
    g = b.layer("adaptive_avg_pool2d", b.layer("max_pool2d", r, kernel_size=2), output_size=1)
    fc, fb = b.parameter("fc", (10, 8)), b.parameter("fb", (10,))
    return b.build(b.layer("linear", b.layer("flatten", g, start_dim=1), fc, fb))


def test_a_network_is_what_it_is_built_by_hand(tmp_path: Path) -> None:
    graph = memest.from_onnx(saved(tmp_path, CNN, WEIGHTS))
    assert {p.name for p in graph.parameters if p.buffer} == {"m", "v"}
    assert [layer.name for layer in graph.layers[:4]] == ["stem.0", "stem.1", "stem.2", "pool"]
    for mode in ("infer", "train"):
        for batch in (1, 4):
            assert peak(graph, (batch, 3, 32, 32), mode) == peak(same_by_hand(), (batch, 3, 32, 32), mode)
    assert memest.loads(memest.dumps(graph)).layers == graph.layers


def test_the_command_line_takes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(saved(tmp_path, CNN, WEIGHTS))
    assert main(["estimate", path, "--input", "3x32x32", "--batch", "2", "--infer"]) == 0
    assert main(["import", path, "-o", str(tmp_path / "net.yaml")]) == 0
    assert calls(memest.load(tmp_path / "net.yaml")) == calls(memest.load(path))
    assert main(["estimate", path, "--input", "3x16x32", "--batch", "2"]) == 2
    assert "input 'x' is Nx3x32x32, got 2x3x16x32; export it with dynamic shapes" in capsys.readouterr().err
    with pytest.raises(UsageError, match="has no input 'z'"):
        memest.from_onnx(path, {"z": (1, 3, 32, 32)})


SIZES = (
    node("Shape", "x", "shape"),
    node("Gather", "shape zero", "n"),
    node("Unsqueeze", "n zeros", "n1"),
    node("Gather", "shape two", "h"),
    node("Mul", "h h", "hh"),
    node("Unsqueeze", "hh zeros", "hh1"),
    node("Concat", "n1 three hh1", "wanted", axis=0),
    node("Reshape", "x wanted", "y"),
)
OF_SIZES = (numbers("zeros", 0), numbers("three", 3), *(numpy_helper.from_array(np.array(i), n) for n, i in (("zero", 0), ("two", 2))))


def test_arithmetic_of_sizes_is_folded_and_sizes_stay_free(tmp_path: Path) -> None:
    graph = memest.from_onnx(saved(tmp_path, SIZES, OF_SIZES, shape=("unk__7", 3, "side", "side")))
    assert [str(d) for d in graph.inputs[0].shape] == ["N", "3", "side", "side"]
    assert calls(graph) == ["reshape"] and not graph.parameters
    assert peak(graph, (5, 3, 9, 9)) == peak(graph, (5, 3, 9, 9)) > 0
    e = memest.estimate(graph, input_shape=(5, 3, 9, 9), mode="infer")
    assert e.standing_bytes == 5 * 3 * 9 * 9 * 4


SCATTERED = ["select", "select", "select", "clone", "index_put_"]
GRID = ["permute", "slice", "grid_sample"]
OF_GRID = [numbers("z", 0), numbers("t", 2), numbers("a", 3)]
TRANSPOSED = ["conv_transpose2d", "slice", "slice"]


@pytest.mark.parametrize(
    ("nodes", "initializers", "rows"),
    [
        ([node("Add", "x const_k")], [numpy_helper.from_array(np.array(2, np.float32), "const_k")], ["add"]),
        ([node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2])], [weight("w", 4, 3, 3, 3)], ["pad", "conv2d"]),
        ([node("Conv", "x w", auto_pad="SAME_UPPER")], [weight("w", 4, 3, 3, 3)], ["conv2d"]),
        (
            [node("ConvTranspose", "x w", strides=[2, 2], pads=[0, 0, 1, 1])],
            [weight("w", 3, 4, 2, 2)],
            ["conv_transpose2d", "slice", "slice"],
        ),
        ([node("Clip", "x lo hi")], [numpy_helper.from_array(np.array(n, np.float32), k) for k, n in (("lo", 0), ("hi", 6))], ["clamp"]),
        ([node("Split", "x", "a b c", axis=1, num_outputs=3), node("Mul", "a c")], [], ["split", "mul"]),
        ([node("Slice", "x st en ax")], [numbers("st", 1), numbers("en", (1 << 63) - 1), numbers("ax", 2)], ["slice"]),
        ([node("Resize", "x - sc", mode="linear")], [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "sc")], ["interpolate"]),
        ([node("Pad", "x p")], [numbers("p", 0, 0, 1, 1, 0, 0, 2, 2)], ["pad"]),
        ([node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("MatMul", "t w")], [weight("w", 3, 5)], ["permute", "matmul"]),
        ([node("Expand", "x s")], [numbers("s", 4, 1, 1, 1, 1)], ["expand"]),
        ([node("DepthToSpace", "c", blocksize=2, mode="CRD"), node("Concat", "x x x x", "c", axis=1)][::-1], [], ["cat", "pixel_shuffle"]),
        ([node("ReduceMean", "x ax", keepdims=0)], [numbers("ax", 2, 3)], ["mean"]),
        ([node("LayerNormalization", "x s b")], [weight("s", 32), weight("b", 32)], ["layer_norm"]),
        ([node("InstanceNormalization", "x s b")], [weight("s", 3), weight("b", 3)], ["instance_norm"]),
        ([node("PRelu", "x s")], [weight("s", 3, 1, 1)], ["prelu"]),
        ([node("Gather", "x i", axis=2)], [numbers("i", 3, 1, 2)], ["index_select"]),
        ([node("Identity", "x", "i"), node("Dropout", "i")], [], ["dropout"]),
        ([node("Constant", "", "s", value_ints=[0, -1]), node("Reshape", "x s")], [], ["reshape"]),
        ([node("GatherND", "x i")], [weight("i", 5, 2, dtype=np.int64)], ["select", "select", "getitem"]),
        ([node("ScatterND", "x i u")], [weight("i", 5, 3, dtype=np.int64), weight("u", 5, 32)], SCATTERED),
        ([node("Transpose", "x", "g", perm=[0, 2, 3, 1]), node("Slice", "g z t a", "p"), node("GridSample", "x p")], OF_GRID, GRID),
        ([node("TopK", "x k", "y places", axis=1)], [numbers("k", 2)], ["topk"]),
    ],
)
def test_a_node_is_the_call_of_a_row(nodes: Any, initializers: Any, rows: list[str], tmp_path: Path) -> None:
    graph = memest.from_onnx(saved(tmp_path, nodes, initializers))
    assert calls(graph) == rows
    assert peak(graph, (2, 3, 32, 32)) > 0


def test_functions_are_inlined_and_known_branches_taken(tmp_path: Path) -> None:
    body = [node("LeakyRelu", "a", "b"), node("Mul", "b a", "c")]
    body[0].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    function = helper.make_function("own", "Gate", ["a"], ["c"], body, [helper.make_opsetid("", 20)], ["slope"])
    inner = helper.make_graph(
        [node("Gate", "x", "then", domain="own", slope=0.5)], "g", [], [helper.make_tensor_value_info("then", 1, None)]
    )
    other = helper.make_graph([node("Relu", "x", "else")], "g", [], [helper.make_tensor_value_info("else", 1, None)])
    nodes = [
        node("Constant", "", "yes", value=numpy_helper.from_array(np.array(True))),
        node("If", "yes", then_branch=inner, else_branch=other),
    ]
    graph = memest.from_onnx(saved(tmp_path, nodes, functions=[function]))
    assert calls(graph) == ["leaky_relu", "mul"]
    assert dict(graph.layers[0].attributes) == {"negative_slope": 0.5}
    loop = helper.make_function("own", "Gate", ["a"], ["c"], [node("Gate", "a", "c", domain="own")], [helper.make_opsetid("own", 1)])
    with pytest.raises(UnsupportedError, match="deeper than 32"):
        memest.from_onnx(saved(tmp_path, [node("Gate", "x", domain="own")], functions=[loop]))


def body(nodes: Sequence[Any], inputs: str, outputs: str) -> Any:
    """The graph in a node."""
    given, made = ([helper.make_tensor_value_info(n, 1, None) for n in names.split()] for names in (inputs, outputs))
    return helper.make_graph(list(nodes), "body", given, made)


def test_a_loop_is_as_many_rounds(tmp_path: Path) -> None:
    once = [node("Relu", "a", "b"), node("Add", "b a", "c"), node("ReduceMean", "c", "m", keepdims=0), node("Identity", "go", "on")]
    loop = node("Loop", "rounds yes x", "y all", body=body(once, "n go a", "on c m"))
    of_loop = [numpy_helper.from_array(np.array(3), "rounds"), numpy_helper.from_array(np.array(True), "yes")]
    graph = memest.from_onnx(saved(tmp_path, [loop], of_loop))
    assert calls(graph) == ["relu", "add", "mean"] * 3 + ["stack"]
    ends = [node("ReduceMax", "a", "t", keepdims=0), node("Cast", "t", "on", to=9), node("Relu", "a", "c")]
    with pytest.raises(UnsupportedError, match="a Loop whose end is known only when the network runs"):
        memest.from_onnx(saved(tmp_path, [node("Loop", "rounds yes x", body=body(ends, "n go a", "on c"))], of_loop))
    with pytest.raises(UnsupportedError, match="goes round more than 4,096 times"):
        memest.from_onnx(saved(tmp_path, [node("Loop", "- yes x", body=body(once[:2] + once[3:], "n go a", "on c"))], of_loop))


def test_a_sequence_is_taken_apart(tmp_path: Path) -> None:
    """``tensor_split`` as torch's older exporter writes it."""
    cut = [node("Gather", "at n", "s"), node("Add", "n one", "m"), node("Gather", "at m", "e")]
    cut += [node("Unsqueeze", "s zeros", "s1"), node("Unsqueeze", "e zeros", "e1"), node("Slice", "x s1 e1 ones", "p")]
    cut += [node("SequenceInsert", "list p", "more"), node("Identity", "go", "on")]
    nodes = [
        node("SequenceEmpty", "", "empty"),
        node("Loop", "one yes empty", "parts", body=body(cut, "n go list", "on more")),
        node("Slice", "x ones far ones", "rest"),
        node("SequenceInsert", "parts rest", "both"),
        node("SequenceAt", "both zero", "first"),
        node("SequenceAt", "both one", "second"),
        node("Concat", "second first", axis=1),
    ]
    known = [numpy_helper.from_array(np.array(i), n) for n, i in (("zero", 0), ("one", 1), ("yes", True))]
    lists = [numbers("zeros", 0), numbers("ones", 1), numbers("far", 1 << 62), numbers("at", 0, 1)]
    assert calls(memest.from_onnx(saved(tmp_path, nodes, [*known, *lists]))) == ["slice", "slice", "cat"]
    parts = [node("SplitToSequence", "x two", "list", axis=1), node("ConcatFromSequence", "list", axis=1)]
    graph = memest.from_onnx(saved(tmp_path, parts, [numpy_helper.from_array(np.array(2), "two")]))
    assert calls(graph) == ["split", "cat"]
    with pytest.raises(GraphError, match="a sequence of tensors, where a tensor is wanted"):
        memest.from_onnx(saved(tmp_path, [parts[0], node("Relu", "list")], [numpy_helper.from_array(np.array(2), "two")]))


@pytest.mark.parametrize(("op", "gates", "states"), [("LSTM", 4, 2), ("GRU", 3, 1)])
def test_recurrent_layers_are_torchs(op: str, gates: int, states: int, tmp_path: Path) -> None:
    of_steps = [weight("w", 2, 5 * gates, 7), weight("r", 2, 5 * gates, 5), weight("b", 2, 10 * gates)]
    usual = ["Sigmoid", "Tanh", "Tanh"][: states + 1] * 2
    nodes = [node(op, "x w r b", "y", hidden_size=5, direction="bidirectional", activations=usual)]
    graph = memest.from_onnx(saved(tmp_path, nodes, of_steps, shape=(6, "N", 7)))
    assert calls(graph) == [*["zeros"] * states, op.lower(), "view", "permute"]
    assert sum(nbytes(p.shape, p.dtype) for p in graph.parameters) == 2 * gates * 5 * (7 + 5 + 2) * 4
    assert peak(graph, (6, 3, 7)) > 0
    with pytest.raises(UnsupportedError, match=f"no rule for {op} backwards alone"):
        memest.from_onnx(saved(tmp_path, [node(op, "x w r b", hidden_size=5, direction="reverse")], of_steps, shape=(6, "N", 7)))


def test_channels_that_come_last_are_a_view(tmp_path: Path) -> None:
    """What Keras and tf2onnx write: a transposition at either end, which moves nothing."""
    last = helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1])
    first = helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
    nodes = [first, node("Conv", "t w b", "c", name="model/conv2d_1/Conv2D"), last]
    graph = memest.from_onnx(saved(tmp_path, nodes, [weight("w", 8, 3, 3, 3), weight("b", 8)], shape=("unk__4", 32, 32, 3)))
    assert [layer.name for layer in graph.layers] == ["permute", "model.conv2d_1", "permute_2"]
    e = memest.estimate(graph, input_shape=(2, 32, 32, 3), mode="infer", machine=CPU)
    assert max(v.delta for v in e.events) >= 2 * 8 * 30 * 30 * 4


def test_weights_are_never_read(tmp_path: Path) -> None:
    """The file beside is not there, and the data inside are stepped over."""
    path = saved(tmp_path, (*CNN[:1], node("Relu", "a")), [unread("w", (8, 3, 3, 3), location="w.data", offset="0"), weight("b", 8)])
    assert sum(nbytes(p.shape, p.dtype) for p in memest.from_onnx(path).parameters) == (8 * 27 + 8) * 4
    large = weight("w", 1024, 1024)
    from memest.sources.importers.onnx.skimming import skimmed

    path = saved(tmp_path, [node("MatMul", "x w")], [large], shape=("N", 1024))
    assert path.stat().st_size > 4 << 20 and len(skimmed(path)) < 1024
    assert memest.from_onnx(path).parameters[0].shape == (1024, 1024)


OPEN = node(
    "If",
    "c",
    then_branch=helper.make_graph([node("Relu", "x", "a")], "g", [], [helper.make_tensor_value_info("a", 1, None)]),
    else_branch=helper.make_graph([node("Neg", "x", "b")], "g", [], [helper.make_tensor_value_info("b", 1, None)]),
)
UNSOUND: dict[str, tuple[Sequence[Any], Sequence[Any], type[MemestError], str]] = {
    "an unknown operator": ([node("Foo", "x", name="n1")], [], UnsupportedError, r"node 'n1' \(Foo\), opset 20: no rule for 'Foo'"),
    "Erfc, which Keras writes": ([node("Erfc", "x")], [], UnsupportedError, r"\(Erfc\), opset 20: no rule for 'Erfc'"),
    "another domain": ([node("FusedConv", "x", domain="com.microsoft")], [], UnsupportedError, "operators of 'com.microsoft'"),
    "a circle": ([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b")], [], FileError, "go in a circle"),
    "no initializer": ([node("Conv", "x w")], [], FileError, "reads 'w', which nothing makes"),
    "no output": ([node("Relu", "x", "z")], [], FileError, "nothing makes the output 'y'"),
    "a name twice": ([node("Relu", "x", "y"), node("Relu", "x", "y")], [], FileError, "makes 'y', which is there already"),
    "huge sizes": ([node("Add", "x w")], [unread("w", (LARGE, LARGE))], GraphError, "would have .* elements"),
    "a huge expansion": ([node("Expand", "x s")], [numbers("s", LARGE, 1, 1, 1, 1)], GraphError, "would have .* elements"),
    "negative sizes": ([node("Add", "x w")], [unread("w", (-1, 3))], FileError, r"has the sizes \[-1, 3\]"),
    "outside of the folder": (
        [node("Add", "x w")],
        [unread("w", (3,), location="../../w.data")],
        FileError,
        "outside of the file's folder",
    ),
    "an absolute path": ([node("Add", "x w")], [unread("w", (3,), location="/etc/w.data")], FileError, "outside of the file's folder"),
    "a huge power": ([node("Pow", "k k", "p"), node("Expand", "x p")], [numbers("k", LARGE)], GraphError, "has the exponent"),
    "values in sizes": ([node("Cast", "x", "s", to=7), node("Reshape", "x s")], [], UnsupportedError, "known only when the network runs"),
    "an open branch": ([node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "c", to=9), OPEN], [], UnsupportedError, "an If whose"),
    "channels that do not fit": ([node("Conv", "x w")], [weight("w", 8, 5, 3, 3)], MemestError, "Conv"),
    "an axis too many": ([node("Concat", "x x", axis=7)], [], GraphError, "axis 7 of a tensor with 4 dims"),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_what_cannot_be_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    nodes, initializers, kind, words = UNSOUND[case]
    with pytest.raises(kind, match=words) as e:
        memest.from_onnx(saved(tmp_path, nodes, initializers))
    assert "\n" not in str(e.value) and str(e.value).startswith(str(tmp_path))


def test_weights_that_are_not_there_are_told(tmp_path: Path) -> None:
    path = saved(tmp_path, [node("MatMul", "x w")], [unread("w", (32, 4), location="w.data")])
    assert any("its weights lie in w.data, which is not there" in note for note in memest.from_onnx(path).notes)
    (tmp_path / "w.data").write_bytes(b"")
    assert not any("w.data" in note for note in memest.from_onnx(path).notes)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = saved(tmp_path, CNN, WEIGHTS)
    whole = path.read_bytes()
    for data in (b"", b"\0" * 4096, b"not a model at all", whole[: len(whole) // 2], whole[:-7]):
        path.write_bytes(data)
        with pytest.raises(FileError, match=r"net.onnx (is no ONNX file|ends too early)"):
            memest.from_onnx(path)
    with pytest.raises(UnsupportedError, match="opset 7 is not modelled"):
        memest.from_onnx(saved(tmp_path, CNN, WEIGHTS, opset=7))


def test_zeros_without_end_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "zeros.onnx"
    with path.open("wb") as f:
        f.truncate(2 << 30)
    with pytest.raises(FileError, match="is no ONNX file"):
        memest.from_onnx(path)


@pytest.mark.slow
def test_mutated_files_are_refused_or_read(tmp_path: Path) -> None:
    draw = random.Random(0)
    for nodes, initializers, shape in ((CNN, WEIGHTS, IMAGE), (SIZES, OF_SIZES, ("N", 3, "side", "side"))):
        path = saved(tmp_path, nodes, initializers, shape=shape)
        whole = path.read_bytes()
        for _ in range(1000):
            data = bytearray(whole)
            for _ in range(draw.randint(1, 4)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            path.write_bytes(data)
            try:
                graph = memest.from_onnx(path)
            except MemestError as e:
                assert "\n" not in str(e)
            else:
                assert graph.outputs


@pytest.mark.parametrize("level", ["all", "disabled"])
def test_engines_pad_the_ends_of_a_window_themselves(tmp_path: Path, level: str) -> None:
    """Measured on onnxruntime 1.32.0 (requests of a call) and openvino 2026.4.0 (the pool, 327,680 bytes for either)."""

    def found(**pads: Any) -> memest.Graph:
        nodes = [
            node("Conv", "x w1", "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("MaxPool", "a", "b", kernel_shape=[3, 3], strides=[2, 2], **pads),
            node("Conv", "b w2", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        ]
        return memest.from_onnx(saved(tmp_path, nodes, [weight("w1", 16, 3, 3, 3), weight("w2", 16, 16, 3, 3)], shape=(1, 3, 64, 64)))

    def deltas(graph: memest.Graph, runtime: str, **settings: Any) -> list[int]:
        machine = memest.Cpu(isa="avx512", threads=1)
        return [e.delta for e in memest.estimate(graph, mode="infer", runtime=runtime, machine=machine, **settings).events]

    alike, upper, one = found(pads=[1, 1, 1, 1]), found(auto_pad="SAME_UPPER"), found(pads=[0, 0, 1, 1])
    measured = {
        "all": [262144, 65536, -262144, 65536, -65536, 65536, -65536],
        "disabled": [262144, 65536, -65536, 65536, -262144, 65536, 65536, -65536, -65536],
    }
    assert calls(one) == ["conv2d", "pad", "max_pool2d", "conv2d"]
    for graph in (alike, upper, one):
        assert deltas(graph, "onnxruntime", ort_level=level) == measured[level]
        assert deltas(graph, "openvino") == deltas(alike, "openvino")
    padded = [node("Pad", "x p v", "a"), node("MaxPool", "a", kernel_shape=[3, 3], strides=[2, 2])]
    given = [numbers("p", 0, 0, 0, 0, 0, 0, 1, 1), numpy_helper.from_array(np.array(-np.inf, np.float32), "v")]
    written = memest.from_onnx(saved(tmp_path, padded, given, shape=(1, 3, 64, 64)))
    assert deltas(written, "onnxruntime", ort_level=level)[0] >= 3 * 65 * 65 * 4  # a node of the file is run


def test_a_norm_of_one_value_a_channel_is_read_as_one_that_is_not_trained(tmp_path: Path) -> None:
    stats = [weight(name, 3) for name in "sbmv"]
    graph = memest.from_onnx(saved(tmp_path, [node("BatchNormalization", "x s b m v")], stats, shape=(1, 3)))
    assert peak(graph, (1, 3)) > 0
