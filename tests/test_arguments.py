"""What callers give: torch's and numpy's own objects are taken where they can be meant, and everything else is one MemestError."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memest
from memest.errors import MemestError, UsageError
from memest.levers.table import setting
from memest.network.conversion import floating_dtype
from memest.runtimes.torch.losses import loss_named
from memest.runtimes.torch.optimizers import optimizer_named

SHAPE = (2, 3, 16, 12)
GIVEN = {"input_shape": SHAPE}


def _graph() -> memest.Graph:
    b = memest.Builder("net")
    x = b.layer("relu", b.layer("conv2d", b.input("input", ("N", 3, "H", "W")), name="conv", out_channels=4, kernel_size=3))
    return b.build(
        b.layer("linear", b.layer("flatten", b.layer("adaptive_avg_pool2d", x, output_size=1), start_dim=1), name="head", out_features=5)
    )


GRAPH = _graph()


def _peak(**how: Any) -> int:
    return memest.estimate(GRAPH, **{**GIVEN, **how}).peak_bytes


# shapes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        list(SHAPE),
        np.array(SHAPE),
        np.array(SHAPE, dtype=np.uint8),
        tuple(np.int64(n) for n in SHAPE),
        "2x3x16x12",
        "2,3,16,12",
        "2\u00d73\u00d716\u00d712",
        [SHAPE],
        [np.array(SHAPE)],
        {"input": np.array(SHAPE)},
        {"input": "2x3x16x12"},
    ],
    ids=repr,
)
def test_shapes_of_every_kind(shape: Any) -> None:
    assert _peak(input_shape=shape) == _peak()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((True, 3, 16, 12), "positive integers, got True"),
        ((np.bool_(True), 3, 16, 12), "positive integers, got a numpy.bool"),
        ((2.0, 3, 16, 12), "positive integers, got 2.0"),
        ((np.float32(2), 3, 16, 12), "positive integers, got a numpy.float32"),
        (np.array([2.0, 3, 16, 12]), "positive integers, got a numpy.float64"),
        (np.zeros(SHAPE), "sizes in a row, such as (2, 3, 224, 224), got a numpy.ndarray"),
        (5, "sizes in a row, such as (2, 3, 224, 224), got 5"),
        ("2x3xAx12", "written as 2x3x224x224, got '2x3xAx12'"),
        ("2x3x0x12", "positive integers, got 0"),
        (b"2x3", "got a bytes"),
        ((2, None, 16, 12), "positive integers, got None"),
        ({1: SHAPE}, "no input 1"),
        ([], "the shape given has 0"),
    ],
    ids=repr,
)
def test_shapes_that_cannot_be(shape: Any, said: str) -> None:
    with pytest.raises(MemestError) as raised:
        _peak(input_shape=shape)
    assert said in str(raised.value)


def test_sizes_of_sweeps_and_fits_may_be_numpys() -> None:
    found = memest.sweep(GRAPH, batch=np.int64(2), H=[np.int64(16)], W=np.array([12]))
    assert found["peak_bytes"].tolist() == [_peak()]
    fit = memest.fit(GRAPH, np.int64(10**6), batch=None, H=np.int32(16), W=12)
    assert fit.value == memest.fit(GRAPH, 10**6, H=16, W=12).value


@pytest.mark.parametrize("name", ["net.yaml", "net.yml", "net.JSON"])
def test_what_is_saved_is_loaded_equal(name: str, tmp_path: Path) -> None:
    memest.save(GRAPH, tmp_path / name)
    assert memest.load(tmp_path / name) == GRAPH
    with pytest.raises(MemestError, match="No such file"):
        memest.save(GRAPH, tmp_path / "nowhere" / name)


# names -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "meant"),
    [
        ("bf16", "bfloat16"), ("BF16", "bfloat16"), ("fp16", "float16"), ("half", "float16"), ("torch.half", "float16"),
        ("torch.bfloat16", "bfloat16"), ("fp32", "float32"), ("float", "float32"), ("double", "float64"), ("fp64", "float64"),
        (np.float32, "float32"), (np.dtype("float64"), "float64"),
    ],
)  # fmt: skip
def test_spellings_of_dtypes(dtype: Any, meant: str) -> None:
    found = memest.estimate(GRAPH, **GIVEN, dtype=dtype)
    assert found.dtype == meant and found.peak_bytes == _peak(dtype=meant)
    if isinstance(dtype, str):
        assert floating_dtype(dtype) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("ce", "cross_entropy"), ("CrossEntropyLoss", "cross_entropy"), ("nn.CrossEntropyLoss", "cross_entropy"),
        ("F.cross_entropy", "cross_entropy"), ("l1", "l1_loss"), ("mse", "mse_loss"),
        ("bce", "binary_cross_entropy"), ("BCELoss", "binary_cross_entropy"), ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits"),
        ("bce_with_logits", "binary_cross_entropy_with_logits"), ("MSELoss", "mse_loss"), ("l2", "mse_loss"),
        ("mae", "l1_loss"), ("SmoothL1Loss", "smooth_l1_loss"), ("huber", "huber_loss"), ("KLDivLoss", "kl_div"), ("nll", "nll_loss"),
        ("DiceLoss", "dice_loss"), ("dice", "dice_loss"),
    ],
)  # fmt: skip
def test_spellings_of_losses(text: str, meant: str) -> None:
    assert [t.op for t in loss_named(text).terms] == [meant]
    assert [(t.op, t.factor) for t in loss_named(f"0.5*{text}").terms] == [(meant, 0.5)]


@pytest.mark.parametrize("text", ["AdamW", "torch.optim.AdamW", "optim.AdamW", "ADAMW:amsgrad=true"])
def test_spellings_of_optimizers(text: str) -> None:
    assert optimizer_named(text).name == "adamw"


@pytest.mark.parametrize(
    ("text", "meant"),
    [("amp", "autocast"), ("AMP:dtype=fp16", "autocast"), ("mixed-precision", "autocast"), ("gradient_accumulation:steps=2", "accumulate")],
)
def test_spellings_of_levers(text: str, meant: str) -> None:
    assert setting(text).name == meant


@pytest.mark.parametrize("how", [{"isa": "foo"}, {"threads": 0}, {"threads": 1.5}, {"threads": True}, {"l2_bytes": -1}])
def test_a_processor_that_cannot_be_is_refused(how: dict[str, Any]) -> None:
    with pytest.raises(memest.UsageError, match=f"Cpu: {next(iter(how))} is"):
        memest.Cpu(**how)


def test_more_passes_than_a_timeline_holds_are_refused_at_once() -> None:
    with pytest.raises(memest.MemestError, match="at most 10,000"):
        memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 32, 32), levers=["accumulate:steps=999999999"])


def test_a_range_beyond_all_sizes_is_refused() -> None:
    with pytest.raises(memest.UsageError, match="sizes are whole numbers from 1"):
        memest.sweep(memest.model("resnet18"), batch=range(1, 10**30), H=32, W=32)


def test_a_name_no_file_can_have_is_refused() -> None:
    with pytest.raises(memest.FileError, match="null"):
        memest.load("a\0b.yaml")


def test_a_lever_by_another_name_is_that_lever() -> None:
    assert _peak(levers=["amp"]) == _peak(levers="autocast") == _peak(levers=("autocast:dtype=bf16",)) != _peak()


@pytest.mark.parametrize(
    ("how", "known"),
    [
        ({"optimizer": "lion"}, "there are sgd, adam"),
        ({"loss": "focal"}, "there are cross_entropy"),
        ({"levers": ["lora"]}, "there are freeze"),
        ({"dtype": "fp8"}, "there are float16"),
    ],
)
def test_a_name_unlike_any_lists_what_is_known(how: dict[str, Any], known: str) -> None:
    with pytest.raises(MemestError, match=known):
        _peak(**how)


# torch's objects ---------------------------------------------------------------------------------------------------------


def _module() -> Any:
    nn = pytest.importorskip("torch.nn")
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def test_torchs_dtypes_devices_and_sizes() -> None:
    torch = pytest.importorskip("torch")
    assert _peak(dtype=torch.bfloat16) == _peak(dtype="bfloat16") != _peak()
    assert _peak(device=torch.device("cpu"), input_shape=torch.Size(SHAPE)) == _peak()
    with pytest.raises(MemestError, match="runtime torch-cuda runs on an accelerator: name one"):
        _peak(device=torch.device("cuda"))
    with pytest.raises(UsageError, match=r"got a torch\.Tensor; give tuple\(x\.shape\)"):
        _peak(input_shape=torch.zeros(SHAPE))
    swept = memest.sweep(GRAPH, batch=2, H=16, W=12, dtype=[torch.float16, "fp32"], optimizer=[torch.optim.Adam, "sgd"])
    assert swept["dtype"].tolist() == ["float16", "float32"] * 2 and swept["optimizer"].tolist() == ["adam", "adam", "sgd", "sgd"]


LOSSES: list[tuple[Callable[[Any, Any], Any], str]] = [
    (lambda nn, f: nn.CrossEntropyLoss(), "cross_entropy"),
    (lambda nn, f: nn.CrossEntropyLoss, "cross_entropy"),
    (lambda nn, f: f.cross_entropy, "cross_entropy"),
    (lambda nn, f: nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum"), "cross_entropy:reduction=sum,label_smoothing=0.1"),
    (lambda nn, f: partial(f.cross_entropy, label_smoothing=0.1), "cross_entropy:label_smoothing=0.1"),
    (lambda nn, f: nn.BCEWithLogitsLoss(), "binary_cross_entropy_with_logits"),
    (lambda nn, f: f.mse_loss, "mse_loss"),
    (lambda nn, f: nn.SmoothL1Loss(beta=2.0), "smooth_l1_loss:beta=2.0"),
    (lambda nn, f: nn.KLDivLoss(log_target=True), "kl_div:log_target=true"),
]


@pytest.mark.parametrize("number", range(len(LOSSES)))
def test_torchs_losses(number: int) -> None:
    torch = pytest.importorskip("torch")
    make, text = LOSSES[number]
    found = memest.estimate(GRAPH, **GIVEN, loss=make(torch.nn, torch.nn.functional))
    assert found.loss == text and found.peak_bytes == _peak(loss=text)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda t: t.nn.CrossEntropyLoss(weight=t.ones(5)), "weight is a tensor of its own"),
        (lambda t: t.nn.BCEWithLogitsLoss(pos_weight=t.ones(5)), "pos_weight is a tensor of its own"),
        (lambda t: t.nn.CrossEntropyLoss(reduction="none"), "training needs a scalar"),
        (lambda t: t.nn.CTCLoss(), "unknown loss 'CTCLoss'"),
        (lambda t: t.nn.ReLU(), "unknown loss 'ReLU'"),
        (lambda t: lambda a, b: a, "got a function"),
    ],
)
def test_losses_that_are_not_modelled(make: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(MemestError, match=said):
        _peak(loss=make(pytest.importorskip("torch")))


OPTIMIZERS: list[tuple[Callable[[Any, Any], Any], str]] = [
    (lambda o, m: o.Adam, "adam"),
    (lambda o, m: o.AdamW(m.parameters(), lr=3e-4), "adamw"),
    (lambda o, m: o.AdamW(m.parameters(), amsgrad=True, weight_decay=0.0), "adamw:weight_decay=0.0,amsgrad=true"),
    (lambda o, m: o.SGD(m.parameters(), momentum=0.9, nesterov=True), "sgd:momentum=0.9,nesterov=true"),
    (lambda o, m: o.SGD([{"params": [p], "lr": 0.1 * i} for i, p in enumerate(m.parameters())], lr=0.1), "sgd"),
    (lambda o, m: partial(o.SGD, momentum=0.9), "sgd:momentum=0.9"),
    (lambda o, m: o.RMSprop(m.parameters(), centered=True, foreach=True), "rmsprop:foreach=true,centered=true"),
    (lambda o, m: o.Adam(m.parameters(), fused=True, maximize=True), "adam:fused=true,maximize=true"),
]


@pytest.mark.parametrize("number", range(len(OPTIMIZERS)))
def test_torchs_optimizers(number: int) -> None:
    module = _module()
    import torch

    make, text = OPTIMIZERS[number]
    found = memest.estimate(GRAPH, **GIVEN, optimizer=make(torch.optim, module))
    assert found.optimizer == text and found.peak_bytes == _peak(optimizer=text)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda o, m: o.LBFGS, "LBFGS is not modelled; there are sgd"),
        (lambda o, m: o.Adam(m.parameters(), capturable=True), "capturable is not modelled"),
        (lambda o, m: o.SGD([{"params": [p], "weight_decay": 0.1 * i} for i, p in enumerate(m.parameters())]), "differ in weight_decay"),
        (lambda o, m: o.Adam(m[0].parameters()), "holds 2 parameters and net trains 4"),
        (lambda o, m: m, r"got a torch module \(Sequential\)"),
    ],
)
def test_optimizers_that_are_not_modelled(make: Callable[[Any, Any], Any], said: str) -> None:
    module = _module()
    import torch

    with pytest.raises(MemestError, match=said):
        _peak(optimizer=make(torch.optim, module))


def test_a_module_where_a_graph_is_expected_says_how_to_come_by_one() -> None:
    module = _module()
    with pytest.raises(UsageError, match=r"estimate takes a graph, got a torch module \(Sequential\); memest\.from_torch\(module"):
        memest.estimate(module, input_shape=SHAPE)
    by_array, by_text = memest.from_torch(module, np.array(SHAPE)), memest.from_torch(module, "2x3x16x12")
    assert by_array == by_text == memest.from_torch(module, SHAPE)


# anything in any place ---------------------------------------------------------------------------------------------------

DOORS: dict[str, Callable[[Any], Any]] = {
    "estimate graph": lambda v: memest.estimate(v, **GIVEN),
    **{
        f"estimate {k}": lambda v, k=k: _peak(**{k: v})
        for k in ("input_shape", "mode", "optimizer", "loss", "device", "dtype", "levers", "machine", "runtime", "torch")
    },
    **{f"estimate {k}": lambda v, k=k: _peak(**{k: v}) for k in ("hold_output", "first_step")},
    "sweep graph": lambda v: memest.sweep(v, batch=1),
    **{
        f"sweep {k}": lambda v, k=k: memest.sweep(GRAPH, **{"batch": 1, "H": 8, "W": 8, **{k: v}})
        for k in ("batch", "H", "spatial", "axes", "mode", "optimizer", "loss", "dtype", "levers", "machine", "runtime", "torch", "invalid")
    },
    "sweeps graph": lambda v: list(memest.sweeps(v, batch=1)),
    "sweeps at_once": lambda v: list(memest.sweeps(GRAPH, batch=1, H=8, W=8, at_once=v)),
    "fit graph": lambda v: memest.fit(v, "1MiB"),
    **{
        f"fit {k}": lambda v, k=k: memest.fit(GRAPH, **{"budget": "1MiB", "H": 8, "W": 8, **{k: v}})
        for k in ("budget", "vary", "batch", "step", "mode", "optimizer", "loss", "dtype", "levers", "machine", "runtime", "torch", "H")
    },
    "advise graph": lambda v: memest.advise(v, "1MiB"),
    **{
        f"advise {k}": lambda v, k=k: memest.advise(GRAPH, **{"budget": "1MiB", **GIVEN, **{k: v}})
        for k in ("budget", "input_shape", "mode", "optimizer", "levers")
    },
    "plan_checkpoints graph": lambda v: memest.plan_checkpoints(v, **GIVEN),
    **{
        f"plan_checkpoints {k}": lambda v, k=k: memest.plan_checkpoints(GRAPH, **{**GIVEN, **{k: v}})
        for k in ("budget", "input_shape", "mode", "loss")
    },
    "compare a": lambda v: memest.compare(v, memest.estimate(GRAPH, **GIVEN)),
    "compare b": lambda v: memest.compare(memest.estimate(GRAPH, **GIVEN), v),
    "model": lambda v: memest.model(v),
    "model option": lambda v: memest.model("resnet18", num_classes=v),
    "load": lambda v: memest.load(v),
    "loads": lambda v: memest.loads(v),
    "loads form": lambda v: memest.loads("{}", form=v),
    "dumps": lambda v: memest.dumps(v),
    "dumps form": lambda v: memest.dumps(GRAPH, form=v),
    "save": lambda v: memest.save(v, "/nowhere/net.yaml"),
    "save path": lambda v: memest.save(GRAPH, v),
    "budget": lambda v: memest.budget(v),
    "hardware": lambda v: memest.hardware(v),
    "hardware_named": lambda v: memest.hardware_named(v),
    "load_hardware": lambda v: memest.load_hardware(v),
    "verdict entry": lambda v: memest.verdict(v, 3),
    "verdict peak": lambda v: memest.verdict(memest.budget("1MiB"), v),
}
THINGS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "int": lambda: 3,
    "negative": lambda: -1,
    "float": lambda: 2.5,
    "nan": lambda: float("nan"),
    "text": lambda: "nothing",
    "empty text": lambda: "",
    "list": lambda: [1, "a", None],
    "empty list": lambda: [],
    "dict": lambda: {"a": 1},
    "bytes": lambda: b"abc",
    "set": lambda: {1, 2},
    "array": lambda: np.zeros((2, 2)),
    "text array": lambda: np.array(["a", "b"]),
    "graph": lambda: GRAPH,
    "class": lambda: int,
    "function": lambda: len,
    "object": object,
    "module": _module,
}


@pytest.mark.parametrize("door", DOORS)
def test_anything_anywhere_is_answered_or_one_line_of_ours(door: str) -> None:
    for name, thing in THINGS.items():
        if name == "module":
            pytest.importorskip("torch")
        try:
            DOORS[door](thing())
        except MemestError as e:
            assert "\n" not in str(e) and str(e) and "please report" not in str(e), (name, str(e))
        except Exception as e:
            pytest.fail(f"{door} given {name}: {type(e).__name__}: {e}")


@pytest.mark.parametrize("name", [n for n in THINGS if n not in ("module", "array")])
def test_from_torch_too(name: str) -> None:
    module = _module()
    for call in (lambda v: memest.from_torch(v, SHAPE), lambda v: memest.from_torch(module, v)):
        with pytest.raises(MemestError) as raised:
            call(THINGS[name]())
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ((2, 3, 17, 12), "; it runs at multiples of 2: (2, 3, 18, 12)"),
        ((3, 16, 12), "; the batch is missing: give (1, 3, 16, 12)"),
        ((2, 16, 12, 3), "; put the channels first: give (2, 3, 16, 12)"),
    ],
)
def test_an_example_that_does_not_suit_comes_with_what_does(example: tuple[int, ...], said: str) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Strict(nn.Module):  # type: ignore[misc,name-defined]
        """A U-Net of one step that does not pad."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.up = nn.Conv2d(3, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, stride=2)
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x: Any) -> Any:
            x = self.first(x)
            return self.norm(torch.cat([x, self.up(nn.functional.max_pool2d(x, 2))], -3))

    with pytest.raises(MemestError) as raised:
        memest.from_torch(Strict(), example)
    assert str(raised.value).endswith(said) and "\n" not in str(raised.value)
