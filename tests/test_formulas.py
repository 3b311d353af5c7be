"""The closed form is the estimate: substituted, evaluated, printed in four notations, by category and by layer, to the byte."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from latex_reader import evaluated

import memest
from memest.cli.app import main
from memest.errors import MemestError, UsageError
from memest.estimate.estimate import Estimate
from memest.estimate.formulas.formula import Formula
from memest.estimate.summary import read_peak
from memest.machines.cpu import Cpu
from memest.runtimes.table import play
from memest.sources.models import MODELS

CPU = Cpu(threads=2)
GOLDEN = Path(__file__).parent / "data" / "formula_resnet50.txt"
SIZES = 25
QUICK = [
    ("resnet18", (4, 3, 96, 64), "train"),
    ("resnet18", (4, 3, 96, 64), "infer"),
    ("unet3d:base_filters=4,levels=3", (2, 1, 16, 24, 16), "train"),
    ("mobilenet_v2", (2, 3, 75, 64), "infer"),
]
TORCHVISION = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet1_0", "mobilenet_v2", "mobilenet_v3_large", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d",
    "shufflenet_v2_x1_0", "squeezenet1_1", "swin_t", "vgg16_bn", "vit_b_32",
]  # fmt: skip


@lru_cache(maxsize=8)
def formula(model: str, shape: tuple[int, ...], mode: str) -> Formula:
    """The formula of a built-in; once a test run."""
    return memest.estimate(memest.model(model), input_shape=shape, mode=mode, machine=CPU).formula()


def played(estimate: Estimate, sizes: dict[str, int]) -> int:
    """The peak at other sizes from the step played event by event, without any formula."""
    shapes: Any = {i.name: tuple(d if isinstance(d, int) else d.evaluate(sizes) for d in i.shape) for i in estimate.played.inputs}
    found = read_peak(play(estimate.played, shapes, sizes, estimate.recipe))
    return found.standing_bytes + found.above_bytes


def sizes_of(f: Formula, count: int, seed: int = 0) -> list[dict[str, int]]:
    """Random sizes at which the formula holds and the network runs: batches up to 9, sides around the formula's own."""
    rng, own, c = random.Random(seed), f.estimate.sizes, f.program.conditions
    found: list[dict[str, int]] = [dict(own)]
    for _ in range(40 * count):
        if len(found) == count:
            break
        sizes = {}
        for i, (name, n) in enumerate(own.items()):
            low, step = c.least[name], rng.choice((c.multiple.get(name, 1), f.domain.steps[name]))
            drawn = rng.randint(low, max(9, low)) if i == 0 else rng.randint(low, max(2 * n, low))
            sizes[name] = rng.choice((n, max(low, n + (drawn - n) // step * step), n))
        if sizes in found or not f.holds(**sizes):
            continue
        try:
            played(f.estimate, sizes)
        except MemestError:
            continue
        found.append(sizes)
    return found


def substituted(expression: Any, f: Formula, sizes: dict[str, int]) -> int:
    value = expression.subs(dict(zip(f.symbols, sizes.values(), strict=True)))
    assert value.is_Integer, value
    return int(value)


def run_javascript(source: str, sizes: list[dict[str, int]]) -> list[int]:
    calls = ", ".join(f"String(peak({', '.join(map(str, s.values()))}))" for s in sizes)
    done = subprocess.run(["node", "-"], input=f"{source}\nconsole.log([{calls}].join(' '));", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(n) for n in done.stdout.split()]


def run_python(source: str, sizes: list[dict[str, int]]) -> list[int]:
    names: dict[str, Any] = {}
    exec(source, names)
    return [names["peak"](**s) for s in sizes]


def assert_is_the_estimate(f: Formula, count: int) -> None:
    """All forms, at ``count`` sizes."""
    sizes = sizes_of(f, count)
    truth = [played(f.estimate, s) for s in sizes]
    assert truth[0] == f.estimate.peak_bytes
    assert [substituted(f.peak, f, s) for s in sizes] == truth
    assert [f.evaluate(**s) for s in sizes] == truth
    latex = f.latex(all=True, sizes=sizes)
    assert [evaluated(latex, s) for s in sizes] == truth
    assert run_python(f.python(sizes=sizes), sizes) == truth
    if shutil.which("node"):
        assert run_javascript(f.javascript(sizes=sizes), sizes) == truth
    simple = [(s, n) for s, n in zip(sizes, truth, strict=True) if f.domain.holds(s)]
    assert [substituted(f.simplified, f, s) for s, _ in simple] == [n for _, n in simple]
    in_regime = [(s, n) for s, n in zip(sizes, truth, strict=True) if f.regime.holds(s)]
    assert in_regime[:1] == [(sizes[0], truth[0])]
    assert [f.regime.peak.evaluate(s) for s, _ in in_regime] == [n for _, n in in_regime]


@pytest.mark.parametrize(("model", "shape", "mode"), QUICK)
def test_every_form_is_the_estimate(model: str, shape: tuple[int, ...], mode: str) -> None:
    assert_is_the_estimate(formula(model, shape, mode), 4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("model", list(MODELS))
def test_every_form_is_the_estimate_of_every_built_in(model: str, mode: str) -> None:
    channels, *usual = MODELS[model].input_shape
    sides = [64] * len(usual)
    assert_is_the_estimate(memest.estimate(memest.model(model), input_shape=(2, channels, *sides), mode=mode, machine=CPU).formula(), SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("model", TORCHVISION)
def test_every_form_is_the_estimate_of_torchvision(model: str, mode: str) -> None:
    if find_spec("torchvision") is None:  # imported through the loader, which registers what a CPU build of torch lacks
        pytest.skip("torchvision is not installed")
    from memest.sources.importers.torch.loading import build

    more = ", aux_logits=False, init_weights=False" if model in ("googlenet", "inception_v3") else ""
    side = 299 if model == "inception_v3" else 224 if model in ("vit_b_32", "maxvit_t") else 96
    graph = memest.from_torch(build(f"torchvision.models:{model}(weights=None{more})"), (2, 3, side, side))
    assert_is_the_estimate(memest.estimate(graph, input_shape=(2, 3, side, side), mode=mode, machine=CPU).formula(), SIZES)


@pytest.mark.parametrize(("model", "shape", "mode"), QUICK)
def test_categories_are_the_estimates(model: str, shape: tuple[int, ...], mode: str) -> None:
    f = formula(model, shape, mode)
    found = {c: substituted(e, f, dict(f.estimate.sizes)) for c, e in f.categories.items()}
    assert found == f.estimate.by_category()
    assert sum(f.categories.values()) == f.short


def test_totals_and_layers_are_the_summarys() -> None:
    from memest.estimate.holdings import layer_table

    f = formula(*QUICK[0])
    own = dict(f.estimate.sizes)
    table = layer_table(f.estimate)
    assert substituted(f.totals["activation"], f, own) == table.activation_bytes
    assert substituted(f.totals["parameter"], f, own) == table.parameter_bytes == substituted(f.totals["gradient"], f, own)
    assert {n: (substituted(s.activation, f, own), substituted(s.parameter, f, own)) for n, s in f.layers.items()} == {
        r.name: (r.activation_bytes, r.parameter_bytes) for r in table.rows
    }
    assert substituted(f.layers["conv1"].output, f, own) == 4 * 64 * 4 * 48 * 32


def test_regime_reaches_beyond_its_own_sizes() -> None:
    """In the stated interval, with the kernels as chosen, the one polynomial is the peak."""
    f = formula("resnet18", (8, 3, 224, 224), "train")
    assert f.regime.interval != (None, None)
    held = [s for s in ({"N": n, "H": h, "W": w} for n in (6, 8, 10, 12) for h in (192, 224) for w in (192, 224)) if f.regime.holds(s)]
    assert len(held) > 4
    assert [f.regime.peak.evaluate(s) for s in held] == [played(f.estimate, s) for s in held]
    low, high = f.regime.interval
    assert not f.regime.holds({"N": 1000 if low is None else 2, "H": 64, "W": 64}) or high is None


def test_resnet50_reads_well() -> None:
    f = formula("resnet50", (8, 3, 224, 224), "train")
    assert f.text() == GOLDEN.read_text(encoding="utf-8")
    (line,) = re.findall(r"^  peak +(.+) bytes$", f.text(), re.MULTILINE)
    assert len(re.split(r" [+-] ", line)) < 12
    assert str(f.short.subs(f.symbols[0], 1)).count("*") <= 4


def test_exact_beyond_every_machine_word() -> None:
    f = memest.estimate(memest.loads("inputs: {x: [N, 3, H]}\nlayers: [relu: {in: x}]"), input_shape=(2, 3, 5), mode="infer").formula()
    huge = 10**30 + 7
    assert f.evaluate(N=huge, H=huge) == 24 * huge * huge == substituted(f.peak, f, {"N": huge, "H": huge})
    assert run_python(f.python(), [{"N": huge, "H": huge}]) == [24 * huge * huge]


def test_outside_its_conditions_another_piece_answers() -> None:
    f = formula("resnet18", (4, 3, 96, 64), "train")
    assert "N >= 2" in f.conditions and not f.holds(N=1)
    assert f.evaluate(N=1) == played(f.estimate, {"N": 1, "H": 96, "W": 64}) == f.at(N=1).estimate.peak_bytes
    assert f(N=1) == substituted(f.at(N=1).peak, f, {"N": 1, "H": 96, "W": 64})
    with pytest.raises(UsageError, match="does not hold at N = 1"):
        f.latex(all=True, sizes=[{"N": 1}])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n": 2}, "has no size 'n'; did you mean 'N'?; it has N, H, W"),
        ({"N": 0}, "positive integers"),
        ({"N": 2.0}, "positive integers"),
        ({"H": 1}, "smaller than the kernel"),
    ],
)
def test_bad_sizes_get_the_estimators_own_error(sizes: dict[str, Any], message: str) -> None:
    f = memest.estimate(memest.model("alexnet"), input_shape=(2, 3, 96, 96), machine=CPU).formula()
    with pytest.raises(MemestError, match=re.escape(message)):
        f.evaluate(**sizes)


def test_names_of_sizes_do_not_meet_the_generated_codes_own() -> None:
    text = "inputs: {x: [new, 16, t_1, w]}\nparameters: {k: [64, 16, 5, 5]}\nlayers: [conv2d: {in: [x, k], name: c}]"
    f = memest.estimate(memest.loads(text), input_shape=(2, 16, 20, 24), mode="infer", machine=CPU).formula()
    own = dict(f.estimate.sizes)
    names: dict[str, Any] = {}
    exec(f.python(), names)
    assert names["peak"](*own.values()) == f.estimate.peak_bytes == evaluated(f.latex(all=True), own)
    if shutil.which("node"):
        assert run_javascript(f.javascript(), [own]) == [f.estimate.peak_bytes]
    assert "+ w" not in f.text().replace("scratchpad", "")


def test_generated_code_refuses_what_it_does_not_know() -> None:
    f = formula("resnet18", (4, 3, 96, 64), "train")
    with pytest.raises(ValueError, match="not one of the sizes"):
        run_python(f.python(), [{"N": 5, "H": 96, "W": 64}])
    plain = memest.estimate(memest.loads("inputs: {x: [N, 4]}\nlayers: [relu: {in: x}]"), input_shape=(2, 4), mode="infer").formula()
    assert run_python(plain.python(), [{"N": 7}]) == [plain.evaluate(N=7)]


def test_command_writes_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["formula", "alexnet", "--infer", "--threads", "2", "--isa", "avx512"]
    for more in ([], ["--all", "--layers"], ["--as", "latex"], ["--as", "python"], ["--as", "javascript"], ["--format", "csv"]):
        assert main([*command, *more]) == 0
        assert capsys.readouterr().out
    assert main([*command, "--format", "json", "--all", "--layers"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["sizes"]["N"] == 8 and data["unit"] == "byte"
    assert data["peak_bytes"] == max(m["bytes"] for m in data["moments"])
    assert data["peak_bytes"] == eval(data["regime"]["peak"], {**data["sizes"], **data["regime"]["scratchpad"]})
    assert data["peak_bytes"] == sum(part["bytes"] for part in data["alive_at_peak"])
    assert main([*command, "--as", "latex", "--layers"]) == 2


ON_CARD: dict[str, Any] = {"machine": "a100-40gb", "torch": "2.14"}


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "unet2d:base_filters=4,levels=2"])
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_on_a_card_the_formula_is_what_is_asked_for(model: str, mode: str) -> None:
    loss = "binary_cross_entropy" if "unet" in model else "cross_entropy"
    est = memest.estimate(memest.model(model), input_shape=(4, 3, 64, 64), mode=mode, loss=loss, **ON_CARD)
    f = est.formula()
    sizes = sizes_of(f, 5)
    truth = [played(est, s) for s in sizes]
    assert [f.evaluate(**s) for s in sizes] == truth
    assert truth[0] == est.requested_bytes < est.peak_bytes
    assert [f.evaluate(**s) for s in sizes] == [est.at(**s).requested_bytes for s in sizes]
    assert run_python(f.python(sizes=sizes), sizes) == truth
    assert [f.regime.peak.evaluate(s) for s, n in zip(sizes, truth, strict=True) if f.regime.holds(s)] == [
        n for s, n in zip(sizes, truth, strict=True) if f.regime.holds(s)
    ]


def test_on_a_card_the_formula_says_what_it_is_with_the_figures_beside(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["formula", "resnet18", "--input", "3x64x64", "--batch", "4", "--on", "a100-40gb"]
    assert main(asked) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "requested, before the allocator rounds" in out
    assert "the formula is the estimate" not in out
    assert all(f"{name} " in out for name in ("requested", "allocated", "reserved", "process"))
    assert "by replay" in out
    assert "What cuDNN takes is no formula" in out
    assert main([*asked, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    est = memest.estimate(memest.model("resnet18"), input_shape=(4, 3, 64, 64), machine="a100-40gb")
    assert data["figure"] == "requested"
    assert (data["peak_bytes"], data["requested_bytes"]) == (est.peak_bytes, est.requested_bytes)
    assert data["reserved"]["bytes"] == est.reserved.bytes
    assert data["requested_bytes"] == eval(data["regime"]["peak"], {**data["sizes"], **data["regime"]["scratchpad"]})
    assert "before an allocator rounds them" in est.formula().python()
    assert "requested bytes" in est.formula().latex()
    assert "by replay" in est.formula().text()


def test_on_a_card_it_says_at_which_batches_cudnn_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    formula = memest.estimate(memest.model("vgg11"), input_shape=(8, 3, 64, 64), machine="t4").formula()
    said = " ".join(formula.text().split())
    found = re.search(r"asked at N = ([\d, ]+) \(H = 64, W = 64\) they are(?:, at ([\d, and]+) they are not)?; elsewhere ask anew", said)
    assert found is not None and "cuDNN's workspace" in said
    same, otherwise = (re.findall(r"\d+", text or "") for text in found.groups())
    sizes = formula.estimate.sizes
    assert "8" in same and len(same) > 1
    assert all(formula.regime.chooses({**sizes, "N": int(n)}) for n in same)
    assert not any(formula.regime.chooses({**sizes, "N": int(n)}) for n in otherwise)
    assert "asked at" not in memest.estimate(memest.model("vgg11"), input_shape=(8, 3, 64, 64)).formula().text()
