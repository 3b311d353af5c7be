"""Runs that others measured and published, predicted; skipped where the table is not beside the checkout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from shared import shared

import memest
from memest.errors import GraphError, UsageError
from memest.machines.cpu import Cpu
from memest.memory.figure import modelled
from validation.published.rows import Run, runs
from validation.published.table import MIB, Compared, compared

torch = pytest.importorskip("torch")
functional = torch.nn.functional
V100 = ("v100-32gb",)


def table(family: str, cards: tuple[str, ...] = V100) -> list[Compared]:
    (path,) = shared("published/cuda_training.csv")
    return list(compared(path.parent, family, cards))


def test_video_recognizers_are_within_three_thousandths() -> None:
    """But for one of two that train on 64 images of 48 classes: they take the same, and were published 6 MiB apart."""
    errors = {c.run.name: abs(c.error("v100-32gb")) for c in table("video")}
    assert len(errors) >= 20
    assert [name for name, e in errors.items() if e > 0.003] == ["TSN-R50, 4x16 images, 48 classes"]
    assert max(errors.values()) < 0.0031


def test_unets_are_within_two_percent_where_the_published_figures_agree_with_themselves() -> None:
    """Those of 64x64 were published between 0.582 and 0.68 thousand MiB for losses that take a MiB more or less."""
    sizes = {c.run.name: c.error("v100-32gb") for c in table("unet") if "128x128" in c.run.name or "256x256" in c.run.name}
    assert len(sizes) == 6
    assert max(map(abs, sizes.values())) <= 0.02


def test_what_a_card_does_not_say_is_said_as_outside() -> None:
    """Published with a digit after the point, predicted from 1,000 to 1,040 MiB."""
    mib = MIB
    figures = {"a": modelled(1000 * mib, 1000 * mib, 1010 * mib, "why"), "b": modelled(1040 * mib, 1040 * mib, 1040 * mib, "why")}

    def outside(published: float) -> float:
        run = Run(name="", family="", build=None, shape=(), published=(published,), rounding=50.0, configurations=())  # type: ignore[arg-type]
        return Compared(run, figures).outside

    assert outside(1000) == outside(1090) == outside(950) == 0.0
    assert outside(1142) == pytest.approx(52 / 1040)
    assert outside(900) == pytest.approx(-0.05)


def test_a_table_is_read_into_runs(tmp_path: Any) -> None:
    head = "config,model,input,batch_per_gpu,measured_MiB,measured_GB,notes"
    rows = (
        "a.py,Recognizer2D|ResNet50|TSNHead,3 clips x (3 x T=1 x 64x64),2,100,,bb.depth=50; num_classes=7",
        "b.py,Recognizer2D|ResNet50|TSNHead,3 clips x (3 x T=1 x 64x64),2,102,,bb.depth=50; num_classes=7",
        "c.py,EncoderDecoder|ResNetV1c18|PSPHead,3x64x128,2,,1.7,"
        '"head.channels=128; head.in_index=3; head.num_classes=9; aux=FCNHead(ch=64,num_convs=1,in=256)"',
        "dice.py,EncoderDecoder|UNet|PSPHead,3x64x128,2,,1.7,",
    )
    (tmp_path / "cuda_training.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    video, segmentation = runs(tmp_path)
    assert (video.shape, video.published, video.configurations) == ((2, 3, 3, 64, 64), (100.0, 102.0), ("a.py", "b.py"))
    assert (segmentation.shape, segmentation.published, segmentation.rounding) == ((2, 3, 64, 128), (1700.0,), 50.0)
    with torch.device("meta"):
        module = segmentation.build()
        loss, *met = module(torch.empty(2, 3, 64, 128), torch.empty(2, 64, 128, dtype=torch.int64))
    assert loss.shape == () and [m.shape for m in met] == [(1,), (1,)]


LOSSES: dict[str, tuple[Callable[[Any, Any], Any], bool]] = {
    "cross_entropy": (functional.cross_entropy, True),
    "a map of cross_entropy": (lambda p, y: functional.cross_entropy(p, y, reduction="none", ignore_index=255).mean() * 0.4, True),
    "nll_loss": (lambda p, y: functional.nll_loss(p.log_softmax(1), y, reduction="sum"), True),
    "kl_div": (lambda p, y: functional.kl_div(p.log_softmax(1), y, reduction="batchmean"), False),
    "binary_cross_entropy": (lambda p, y: functional.binary_cross_entropy(p.sigmoid(), y), False),
    "binary_cross_entropy_with_logits": (functional.binary_cross_entropy_with_logits, False),
    "topk": (lambda p, y: functional.cross_entropy(p, y) + p.topk(2, dim=1)[0].sum(), True),
}


class OwnLoss(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A network that is called with its target."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.convolution = torch.nn.Conv2d(3, 5, 3)

    def forward(self, x: Any, target: Any) -> Any:
        return LOSSES[self.name][0](self.convolution(x), target), x


@pytest.mark.parametrize("name", LOSSES)
def test_a_network_that_returns_its_loss_takes_what_torch_takes(name: str) -> None:
    from validation.protocol import measure_training
    from validation.rows import normalized

    classes = LOSSES[name][1]
    target = torch.zeros(2, 14, 14, dtype=torch.long) if classes else torch.rand(2, 5, 14, 14)
    x, module = torch.rand(2, 3, 16, 16), OwnLoss(name)
    measured = measure_training(module, [x, target], "sgd", "output")
    graph = memest.from_torch(module, [x, target], mode="train")
    cpu = Cpu.detect().with_(threads=torch.get_num_threads())
    found = memest.estimate(graph, input_shape=[x.shape, target.shape], loss="output", machine=cpu)
    assert found.standing_bytes == measured.standing_bytes
    assert normalized([e.delta for e in found.events]) == normalized([e.delta for e in measured.events])


def test_an_output_that_is_no_loss_is_refused() -> None:
    graph = memest.model("resnet18")
    with pytest.raises(GraphError, match=r"first output, and that has shape \[2, 1000\]"):
        memest.estimate(graph, input_shape=(2, 3, 32, 32), loss="output")
    for text in ("output over 1,0.5", "output + dice_loss", "2*output"):
        with pytest.raises(UsageError, match="stands alone"):
            memest.estimate(graph, input_shape=(2, 3, 32, 32), loss=text)
