"""Lightning modules: their training step as the real trainer runs it, event by event."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.errors import UnsupportedError, UsageError
from memest.sources.importers.absent_operators import with_absent_operators

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from validation.profiling import Measured, record  # noqa: E402

BEGIN, END = 777_777, 888_888  # bytes asked for around a batch; no tensor of a case has so many


@pytest.fixture(scope="module")
def pl() -> Any:
    return with_absent_operators(lambda: pytest.importorskip("lightning"))


def _net(out: int = 5) -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, out)
    )


def _classes(pl: Any) -> dict[str, Callable[[], Any]]:
    class Plain(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = _net()

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            return F.cross_entropy(self(x), y)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.estimated_stepping_batches)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    class Logged(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss, prog_bar=True)
            return loss

    class Named(Plain):
        def training_step(self, batch: Any) -> Any:
            out = self(batch["image"])
            return {"loss": F.cross_entropy(out, batch["y"]), "out": out.detach()}

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)]

    class Gan(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.g, self.d = nn.Conv2d(3, 3, 3, padding=1), _net(1)

        def training_step(self, batch: Any, batch_idx: int) -> None:
            of_g, of_d = self.optimizers()
            self.toggle_optimizer(of_g)
            fake = self.g(batch)
            loss = -self.d(fake).mean()
            of_g.zero_grad()
            self.manual_backward(loss)
            of_g.step()
            self.untoggle_optimizer(of_g)
            self.toggle_optimizer(of_d)
            loss = self.d(fake.detach()).mean() - self.d(batch).mean()
            of_d.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(of_d, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
            of_d.step()
            self.untoggle_optimizer(of_d)

        def configure_optimizers(self) -> Any:
            return [torch.optim.Adam(self.g.parameters()), torch.optim.SGD(self.d.parameters(), 0.1)], []

    class Two(Plain):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.SGD(self.parameters(), 0.1)]

    class Hooked(Plain):
        def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            super().optimizer_step(*args, **kwargs)

    return {c.__name__: c for c in (Plain, Logged, Named, Gan, Two, Hooked)}


def _fitted(pl: Any, module: Any, batch: Any) -> list[Measured]:
    """What the third batch of a real fit asks for and gives back."""

    class Marks(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            torch.empty(BEGIN, dtype=torch.uint8)

        def on_train_batch_end(self, *_: Any) -> None:
            torch.empty(END, dtype=torch.uint8)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, callbacks=[Marks()], **quiet)
    loader = torch.utils.data.DataLoader([batch] * 4, batch_size=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events, _ = record(lambda: trainer.fit(module, loader))
    begins = [i for i, e in enumerate(events) if e.delta == -BEGIN]
    ends = [i for i, e in enumerate(events) if e.delta == END]
    return events[begins[2] + 1 : ends[2]]


X, Y = torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
BATCHES = {"Plain": [X, Y], "Named": {"image": X, "y": Y}, "Gan": X}


@pytest.mark.parametrize("name", BATCHES)
def test_a_step_is_what_fit_does(pl: Any, name: str) -> None:
    module = _classes(pl)[name]()
    before = {k: v for k, v in vars(module).items() if not k.startswith("__")}
    cpu = memest.Cpu.detect().with_(threads=torch.get_num_threads())
    found = memest.step(module, BATCHES[name], machine=cpu)
    assert vars(module) == before
    measured = _fitted(pl, copy.deepcopy(module), BATCHES[name])
    deltas = [e.delta for e in measured]
    assert [e.delta for e in found.events][: len(deltas)] == deltas  # what the loop holds goes when the callbacks are done
    assert all(e.delta < 0 for e in found.events[len(deltas) :])


def test_what_is_logged_is_said(pl: Any) -> None:
    classes = _classes(pl)
    found, plain = (memest.step(classes[name](), [X, Y]) for name in ("Logged", "Plain"))
    assert found.peak_bytes == plain.peak_bytes
    assert any("self.log" in n for n in found.notes) and not any("self.log" in n for n in plain.notes)


def test_what_the_trainer_would_do_otherwise_is_refused(pl: Any) -> None:
    classes = _classes(pl)
    with pytest.raises(UnsupportedError, match="gives 2 optimizers, and automatic optimization takes one"):
        memest.step(classes["Two"](), [X, Y])
    with pytest.raises(UnsupportedError, match=r"Hooked\.optimizer_step: an overridden hook"):
        memest.step(classes["Hooked"](), [X, Y])
    with pytest.raises(UsageError, match="has no training_step"):
        memest.step(pl.LightningModule(), X)


def test_on_the_command_line(pl: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lit_of_test.py"
    file.write_text(
        dedent(
            """
            import lightning as L
            import torch
            from torch import nn

            class Lit(L.LightningModule):
                def __init__(self):
                    super().__init__()
                    self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
                def forward(self, x):
                    return self.net(x)
                def training_step(self, batch, batch_idx):
                    x, y = batch
                    return nn.functional.cross_entropy(self(x), y)
                def configure_optimizers(self):
                    return torch.optim.AdamW(self.parameters())
            """
        )
    )
    code = f"{file}:Lit"
    assert main(["estimate", code, "--input", "3x8x8", "--input", "int64", "--batch", "2"]) == 0
    assert "Lit: training step" in capsys.readouterr().out
    assert main(["estimate", code, "--input", "3x8x8", "--batch", "2", "--infer"]) == 0
    assert "Lit: inference" in capsys.readouterr().out
    assert main(["estimate", code, "--input", "3x8x8", "--batch", "2"]) == 3
    said = capsys.readouterr().err
    assert "give --input for each of its parts" in said and said.count("\n") == 1
