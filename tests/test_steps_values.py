"""Training steps that compute with numbers nobody knows before they run, where nothing is larger for them: ratios drawn anew, averages
that warm up, a queue's pointer of Python's, bounded histories. Each is equal to torch's allocator event by event; what does depend on
such a number is refused by the line."""

from __future__ import annotations

import io
import random
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from validation.steps import Case, compare, measure  # noqa: E402
from validation.streams import first_difference  # noqa: E402

MAKERS: dict[str, Callable[[], Case]] = {}


def step_case(make: Callable[[], Case]) -> Callable[[], Case]:
    MAKERS[make.__name__] = make
    return make


def net(out: int = 5) -> Any:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, out))


def images() -> Any:
    return torch.rand(4, 3, 8, 8)


def labels() -> Any:
    return torch.zeros(4, dtype=torch.int64)


class Trainer:
    """What the steps below share."""

    def __init__(self, out: int = 5) -> None:
        self.model = net(out)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1)
        self.calls, self.pointer, self.best, self.patience = 0, 0, float("inf"), 0
        self.bank = torch.randn(out, 32)

    def update(self, loss: Any) -> Any:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def train(self, x: Any, y: Any) -> Any:
        return self.update(F.cross_entropy(self.model(x), y))

    def case(self, step: Callable[..., Any], *besides: Any) -> Case:
        return Case(step, [images(), labels()], [self.model, self.optimizer, *besides])


@step_case
def mixed() -> Case:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        ratio = np.random.beta(0.4, 0.4)
        order = torch.randperm(x.size(0))
        out = t.model(ratio * x + (1 - ratio) * x[order, :])
        t.update(ratio * F.cross_entropy(out, y) + (1 - ratio) * F.cross_entropy(out, y[order]))

    return t.case(step)


@step_case
def cropped() -> Case:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        i, j = random.randint(0, 4), np.random.randint(4)
        t.train(x[:, :, i : i + 4, j : j + 4], y)

    return t.case(step)


@step_case
def cropped_where_a_tensor_says() -> Case:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        i, j = torch.randint(0, 5, (1,)), torch.randint(0, 5, ())
        t.train(x[:, :, i : i + 4, j : 4 + j], y)

    return t.case(step)


@step_case
def average_that_warms_up() -> Case:
    t, average = Trainer(), net()

    def step(x: Any, y: Any) -> None:
        t.train(x, y)
        t.calls += 1
        decay = min(1 - 1 / (t.calls + 1), 0.999)
        with torch.no_grad():
            for of_average, p in zip(average.parameters(), t.model.parameters(), strict=True):
                of_average.data.mul_(decay).add_(p.data, alpha=1 - decay)

    return t.case(step, average)


@step_case
def queue_with_a_pointer_of_pythons() -> Case:
    t = Trainer(8)

    def step(x: Any, y: Any) -> float:
        features = t.model(x)
        loss = t.update(F.cross_entropy(features @ t.bank.clone(), y)).item()
        with torch.no_grad():
            t.bank[:, t.pointer : t.pointer + x.size(0)] = features.detach().T
        t.pointer = (t.pointer + x.size(0)) % 32
        return loss

    return t.case(step, t.bank)


@step_case
def queue_with_places_from_a_pointer() -> Case:
    t = Trainer(8)

    def step(x: Any, y: Any) -> None:
        features = t.model(x)
        t.update(F.cross_entropy(features @ t.bank.clone(), y))
        with torch.no_grad():
            places = torch.arange(x.shape[0])
            places += t.pointer
            t.bank.index_copy_(1, torch.fmod(places, 32).long(), features.detach().T)
        t.pointer = (t.pointer + x.shape[0]) % 32

    return t.case(step, t.bank)


@step_case
def best_loss() -> Case:
    t = Trainer()

    def step(x: Any, y: Any) -> bool:
        loss = t.train(x, y)
        if loss.item() < t.best:
            t.best, t.patience = loss.item(), 0
            torch.save(t.model.state_dict(), io.BytesIO())
        else:
            t.patience += 1
        if loss > 1.0:
            t.calls += 1
        return t.patience > 10

    return t.case(step)


@step_case
def checked_loss() -> Case:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        loss = F.cross_entropy(t.model(x), y)
        value = loss.item()
        if value != value or value == float("inf"):
            return
        t.update(loss)

    return t.case(step)


@step_case
def schedule_after_a_step_that_was_not_skipped() -> Case:
    t = Trainer()
    scaler, schedule = torch.amp.GradScaler("cpu"), torch.optim.lr_scheduler.StepLR(t.optimizer, 10)

    def step(x: Any, y: Any) -> None:
        t.optimizer.zero_grad()
        scaler.scale(F.cross_entropy(t.model(x), y)).backward()
        scaler.step(t.optimizer)
        scale = scaler.get_scale()
        scaler.update()
        if scale <= scaler.get_scale():
            schedule.step()

    return t.case(step, scaler)


@step_case
def gradients_cleaned_in_place() -> Case:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        t.optimizer.zero_grad()
        F.cross_entropy(t.model(x), y).backward()
        for p in t.model.parameters():
            torch.nan_to_num(p.grad, nan=0, posinf=1e5, neginf=-1e5, out=p.grad)
            torch.mul(p.grad, 0.5, out=p.grad)
        t.optimizer.step()

    return t.case(step)


class Reversal(torch.autograd.Function):
    """Gradient reversal, as it is written for domain adaptation."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: float) -> Any:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return -ctx.weight * gradient, None


@step_case
def reversed_gradient_that_ramps_up() -> Case:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        t.calls += 1
        features = t.model[:4](x)
        t.update(F.cross_entropy(t.model[4](Reversal.apply(features, 1 - 0.5**t.calls)), y))

    return t.case(step)


@step_case
def summed_over_the_dims_of_space() -> Case:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        features = t.model[:2](x)
        dims = torch.arange(2, features.dim()).tolist()
        t.update(F.cross_entropy(t.model[4](features.mean(dim=dims)), y))

    return t.case(step)


@pytest.fixture(scope="module")
def cpu() -> Iterator[Cpu]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Cpu.detect().with_(threads=2)
    torch.set_num_threads(before)


QUICK = ("mixed", "queue_with_a_pointer_of_pythons", "best_loss", "cropped_where_a_tensor_says")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in MAKERS])
def test_a_step_is_what_torch_allocates(name: str, cpu: Cpu) -> None:
    outcome = compare(MAKERS[name](), cpu, before=2)
    assert outcome.difference is None, str(outcome.difference)
    assert (outcome.predicted.standing_bytes, outcome.predicted.peak_bytes) == (outcome.standing_bytes, outcome.peak_bytes)


def test_a_bounded_history_is_full(cpu: Cpu) -> None:
    """The profiler does not tell of the release of what was made before it ran, the last event."""
    t, history = Trainer(), deque(maxlen=20)  # type: ignore[var-annotated]

    def step(x: Any, y: Any) -> float:
        history.append((t.train(x, y).detach(), 0))
        return float(sum(float(loss) for loss, _ in history) / len(history))

    case = t.case(step, history)
    predicted = memest.step(step, *case.arguments, machine=cpu, torch=torch.__version__)
    standing, peak, events = measure(case, before=21)
    assert (len(history), predicted.events[-1].delta) == (20, -4)
    assert first_difference(predicted.events[:-1], events) is None
    assert (predicted.standing_bytes, predicted.peak_bytes) == (standing, peak)


def test_the_generators_stand_where_they_stood() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()
    case = MAKERS["mixed"]()
    graph = memest.from_step(case.function, *case.arguments)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())
    assert "9 calls, each with its own, came to the same" in graph.notes[0]
    assert graph == memest.from_step(case.function, *case.arguments)


def refused(step: Callable[..., Any]) -> str:
    with pytest.raises(UnsupportedError) as e:
        memest.step(step, images(), labels())
    return str(e.value)


def test_a_draw_that_sizes_go_by_is_refused_until_it_is_always_the_same() -> None:
    t = Trainer()

    def step(x: Any, y: Any, seed: int | None = None) -> None:
        if seed is not None:
            np.random.seed(seed)
        size = np.random.randint(1, 8)
        t.train(x[:, :, :size, np.int64(0) : np.int64(size)], y)

    assert "goes by random numbers of Python's" in refused(step) and "test_steps_values.py:" in refused(step)
    assert memest.step(lambda x, y: step(x, y, 1), images(), labels()).peak_bytes > 0


def test_a_pointer_that_wraps_round_is_refused_until_it_is_stated() -> None:
    t = Trainer(8)
    pointer = torch.zeros(1, dtype=torch.int64)

    def step(x: Any, y: Any) -> None:
        features = t.model(x)
        t.update(F.cross_entropy(features @ t.bank.clone(), y))
        at = int(pointer)
        with torch.no_grad():
            if at + x.size(0) > 32:
                t.bank[:, at:] = features.detach()[: 32 - at].T
                t.bank[:, : at + x.size(0) - 32] = features.detach()[32 - at :].T
            else:
                t.bank[:, at : at + x.size(0)] = features.detach().T
        pointer[0] = (at + x.size(0)) % 32

    said = refused(step)
    line = step.__code__.co_firstlineno + 3
    assert f"state it: assume={{'test_steps_values.py:{line}': N}}" in said
    assert memest.step(step, images(), labels(), assume={f"test_steps_values.py:{line}": 0}).peak_bytes > 0


def test_a_list_that_grows_is_refused_with_what_grows_it() -> None:
    t, losses = Trainer(), []

    def step(x: Any, y: Any) -> None:
        losses.append(t.train(x, y).detach())

    said = refused(step)
    assert "each keeps another tensor, such as 'detach' (test_steps_values.py:" in said and "loss.item()" in said


def test_a_branch_that_decides_nothing_is_said_to(tmp_path: Path) -> None:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        loss = t.train(x, y).item()
        if loss < t.best:
            t.best = loss
            torch.save(t.model.state_dict(), tmp_path / "best.pt")

    notes = memest.from_step(step, images(), labels()).notes
    assert f"the step is the same whichever way test_steps_values.py:{step.__code__.co_firstlineno + 2} goes" in notes[-1]
    assert t.best == float("inf") and not list(tmp_path.iterdir())


def test_a_branch_that_decides_is_refused() -> None:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        loss = F.cross_entropy(t.model(x), y)
        if loss.item() < 2:
            t.update(loss)

    line = step.__code__.co_firstlineno + 2
    assert f"state which way it goes: assume={{'test_steps_values.py:{line}': True}}" in refused(step)
    assert memest.step(step, images(), labels(), assume={f"test_steps_values.py:{line}": True}).peak_bytes > 0


def test_a_loop_that_may_never_end_is_not_tried() -> None:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        while True:
            if t.train(x, y).item() < 2:
                break

    assert "state which way it goes" in refused(step)


def test_where_calls_part_is_said() -> None:
    t = Trainer()

    def drawn(x: Any, y: Any) -> None:
        if random.random() < 0.5:
            x = x.flip(3)
        t.train(x, y)

    def counted(x: Any, y: Any) -> None:
        F.cross_entropy(t.model(x), y).backward()
        t.calls += 1
        if t.calls % 4 == 0:
            t.optimizer.step()
            t.optimizer.zero_grad()

    state = random.getstate()
    random.seed(0)
    assert f"drawn (test_steps_values.py:{drawn.__code__.co_firstlineno + 2}): no call is like the one before" in refused(drawn)
    random.setstate(state)
    assert f"counted (test_steps_values.py:{counted.__code__.co_firstlineno + 4}): no call is like the one before" in refused(counted)
    assert t.calls == 0


def test_a_number_of_a_deep_network_is_looked_for_once() -> None:
    t = Trainer()

    def step(x: Any, y: Any) -> float:
        deep = t.model[0](x)
        for _ in range(40):
            deep = deep + (deep * (deep + 1))
        loss = F.cross_entropy(t.model[1:](deep), y) + deep[deep > 0].mean()
        t.update(loss)
        return loss.item()

    assert memest.step(step, images(), labels(), assume={"selected": 7}).peak_bytes > 0


def test_a_line_with_not_says_what_is_stated() -> None:
    t = Trainer()

    def step(x: Any, y: Any) -> None:
        loss = F.cross_entropy(t.model(x), y)
        if not loss < 2:
            t.update(loss)

    assert "the truth of the tensor, which this line turns around by `not`" in refused(step)
