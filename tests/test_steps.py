"""Whole training steps, recorded from the user's own code: each equal to torch's allocator event by event, or refused by name."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import memest
from memest.errors import GraphError, MemestError, UnsupportedError, UsageError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from memest.cli.app import main  # noqa: E402
from memest.sources.importers.torch.surroundings import is_step  # noqa: E402
from validation.fuzz_steps import fuzz  # noqa: E402
from validation.steps import Case, compare  # noqa: E402

MAKERS: dict[str, Callable[[], Case]] = {}


def step_case(make: Callable[[], Case]) -> Callable[[], Case]:
    MAKERS[make.__name__] = make
    return make


def net(width: int = 4, out: int = 5) -> Any:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, out),
    )


def image() -> Any:
    return torch.rand(2, 3, 8, 8)


def labels() -> Any:
    return torch.zeros(2, dtype=torch.int64)


def train(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


# what holds --------------------------------------------------------------------------------------------------------------


@step_case
def plain() -> Case:
    m = net()
    o = torch.optim.Adam(m.parameters())
    return Case(partial(train, m, o), [image(), labels()], [m, o])


@step_case
def remembered_in_full() -> Case:
    m = net()
    o = torch.optim.Adam(m.parameters())
    best: dict[str, Any] = {}

    def step(x: Any, y: Any) -> None:
        train(m, o, x, y)
        best["state"] = copy.deepcopy(m.state_dict())

    return Case(step, [image(), labels()], [m, o, best])


@step_case
def repeated_by_counts() -> Case:
    m = nn.Conv2d(3, 4, 3)

    def step(x: Any, counts: Any) -> None:
        m.zero_grad()
        h = m(x)
        torch.repeat_interleave(h, counts, 0).sum().backward(retain_graph=True)
        h.repeat_interleave(counts * 1, dim=0, output_size=5).sum().backward()

    return Case(step, [image(), torch.tensor([2, 3])], [m])


@step_case
def gan() -> Case:
    g = nn.Sequential(nn.ConvTranspose2d(4, 8, 4), nn.BatchNorm2d(8), nn.ReLU(True), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())
    d = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(8, 1, 4))
    og, od = torch.optim.Adam(g.parameters()), torch.optim.SGD(d.parameters(), 0.1, momentum=0.9)
    one, zero = torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)

    def step(z: Any, real: Any) -> None:
        od.zero_grad()
        F.binary_cross_entropy_with_logits(d(real), one).backward()
        fake = g(z)
        F.binary_cross_entropy_with_logits(d(fake.detach()), zero).backward()
        od.step()
        og.zero_grad()
        F.binary_cross_entropy_with_logits(d(fake), one).backward()
        og.step()

    return Case(step, [torch.rand(2, 4, 1, 1), torch.rand(2, 3, 8, 8)], [g, d, og, od, one, zero])


@step_case
def toggled() -> Case:
    g, d = nn.Conv2d(3, 3, 3, padding=1), net(out=1)
    og, od = torch.optim.Adam(g.parameters()), torch.optim.Adam(d.parameters())

    def step(x: Any) -> tuple[float, float]:
        for p in d.parameters():
            p.requires_grad = True
        d.zero_grad()
        fake = g(x)
        first = F.softplus(-d(x)).mean() + F.softplus(d(fake.detach())).mean()
        first.backward()
        od.step()
        d.requires_grad_(False)
        g.zero_grad()
        second = F.softplus(-d(fake)).mean()
        second.backward()
        og.step()
        return first.item(), second.item()

    return Case(step, [image()], [g, d, og, od])


@step_case
def two_losses() -> Case:
    m = net()
    o = torch.optim.AdamW(m.parameters())

    def step(x: Any, y: Any) -> None:
        out = m(x)
        loss = F.cross_entropy(out, y) + 0.5 * out.pow(2).mean()
        o.zero_grad(set_to_none=True)
        loss.backward()
        o.step()

    return Case(step, [image(), labels()], [m, o])


@step_case
def retained() -> Case:
    m = net()
    o = torch.optim.Adam(m.parameters())

    def step(x: Any) -> None:
        o.zero_grad()
        out = m(x)
        out[:, 0].mean().backward(retain_graph=True)
        out[:, 1].mean().backward()
        o.step()

    return Case(step, [image()], [m, o])


@step_case
def accumulated() -> Case:
    m = net()
    o = torch.optim.RMSprop(m.parameters())

    def step(x: Any, y: Any) -> None:
        for _ in range(3):
            (F.cross_entropy(m(x), y) / 3).backward()
        o.step()
        o.zero_grad()

    return Case(step, [image(), labels()], [m, o])


@step_case
def zeroed_in_place() -> Case:
    m = net()
    o = torch.optim.SGD(m.parameters(), 0.1)

    def step(x: Any, y: Any) -> None:
        o.zero_grad(set_to_none=False)
        F.cross_entropy(m(x), y).backward()
        o.step()

    return Case(step, [image(), labels()], [m, o])


@step_case
def never_zeroed() -> Case:
    m = net()
    o = torch.optim.SGD(m.parameters(), 0.1)

    def step(x: Any, y: Any) -> None:
        F.cross_entropy(m(x), y).backward()
        o.step()

    return Case(step, [image(), labels()], [m, o])


@step_case
def by_a_closure() -> Case:
    m = net()
    o = torch.optim.Adam(m.parameters())

    def step(x: Any, y: Any) -> Any:
        def closure() -> Any:
            o.zero_grad()
            loss = F.cross_entropy(m(x), y)
            loss.backward()
            return loss

        return o.step(closure)

    return Case(step, [image(), labels()], [m, o])


@step_case
def last_loss_kept() -> Case:
    m, last = net(), {}
    o = torch.optim.SGD(m.parameters(), 0.1)

    def step(x: Any, y: Any) -> None:
        last["loss"] = train(m, o, x, y)

    return Case(step, [image(), labels()], [m, o, last])


@step_case
def averaged_by_hand() -> Case:
    m = net()
    e, o = copy.deepcopy(m), torch.optim.SGD(m.parameters(), 0.1)

    def step(x: Any, y: Any) -> None:
        train(m, o, x, y)
        with torch.no_grad():
            for p, q in zip(e.parameters(), m.parameters(), strict=True):
                p.mul_(0.9).add_(q, alpha=0.1)

    return Case(step, [image(), labels()], [m, e, o])


@step_case
def data_exchanged() -> Case:
    m = net()
    t, o, mask = copy.deepcopy(m), torch.optim.Adam(m.parameters()), torch.ones(4, 3, 3, 3)

    def step(x: Any) -> None:
        m[0].weight.data *= mask
        with torch.no_grad():
            aim = t(x)
        o.zero_grad()
        F.mse_loss(m(x), aim).backward()
        o.step()
        for p, q in zip(t.parameters(), m.parameters(), strict=True):
            p.data = p.data * 0.9 + q.data * 0.1

    return Case(step, [image()], [m, t, o, mask])


@step_case
def averaged_model() -> Case:
    m = net()
    e, o = torch.optim.swa_utils.AveragedModel(m), torch.optim.SGD(m.parameters(), 0.1)

    def step(x: Any, y: Any) -> None:
        train(m, o, x, y)
        e.update_parameters(m)

    return Case(step, [image(), labels()], [m, e, o])


@step_case
def teacher() -> Case:
    s, t = net(), net(8).eval()
    o = torch.optim.Adam(s.parameters(), weight_decay=0.1)

    def step(x: Any) -> str:
        with torch.no_grad():
            aim = t(x)
        loss = F.mse_loss(s(x), aim)
        o.zero_grad()
        loss.backward()
        o.step()
        return f"{loss:.3f}"

    return Case(step, [image()], [s, t, o])


@step_case
def evaluated_in_between() -> Case:
    m, losses = net(), []
    o = torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(o, 10)

    def step(x: Any, y: Any) -> None:
        m.train()
        losses.append(train(m, o, x, y).item())
        schedule.step()
        m.eval()
        with torch.no_grad():
            losses.append((m(x).argmax(1) == y).float().mean().item())

    return Case(step, [image(), labels()], [m, o])


@step_case
def clipped() -> Case:
    m = net()
    o = torch.optim.Adam(m.parameters())

    def step(x: Any, y: Any) -> float:
        o.zero_grad()
        F.cross_entropy(m(x), y).backward()
        norm = nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        nn.utils.clip_grad_value_(m.parameters(), 0.5)
        o.step()
        return float(norm.item())

    return Case(step, [image(), labels()], [m, o])


@step_case
def clipped_by_hand() -> Case:
    m = net()
    o = torch.optim.Adam(m.parameters())

    def step(x: Any, y: Any) -> None:
        o.zero_grad()
        F.cross_entropy(m(x), y).backward()
        total = torch.sqrt(sum(p.grad.pow(2).sum() for p in m.parameters() if p.grad is not None))
        for p in m.parameters():
            p.grad = p.grad * (1.0 / (total + 1e-6))
        o.step()

    return Case(step, [image(), labels()], [m, o])


@step_case
def scaled() -> Case:
    m, scaler = net(), torch.amp.GradScaler("cpu")
    o = torch.optim.Adam(m.parameters())

    def step(x: Any, y: Any) -> None:
        o.zero_grad()
        scaler.scale(F.cross_entropy(m(x), y)).backward()
        scaler.unscale_(o)
        scaler.step(o)
        scaler.update()

    return Case(step, [image(), labels()], [m, o, scaler])


@step_case
def saliency() -> Case:
    m = net().eval()

    def step(x: Any) -> Any:
        x = x.clone().requires_grad_()
        m(x)[:, 0].sum().backward()
        return x.grad.abs().amax(1)

    return Case(step, [image()], [m])


@step_case
def integrated_gradients() -> Case:
    m = net().eval()

    def step(x: Any) -> Any:
        total = torch.zeros_like(x)
        for i in range(3):
            z = (x * (i / 3)).requires_grad_()
            total += torch.autograd.grad(m(z)[:, 0].sum(), z)[0]
        return total * x / 3

    return Case(step, [image()], [m])


@step_case
def adversarial() -> Case:
    m = net()
    o = torch.optim.SGD(m.parameters(), 0.1)

    def step(x: Any, y: Any) -> None:
        z = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(m(z), y), [z])
        train(m, o, (x + 0.1 * g.sign()).detach(), y)

    return Case(step, [image(), labels()], [m, o])


@step_case
def several_roots() -> Case:
    m = net()
    o = torch.optim.Adam(m.parameters())

    def step(x: Any, y: Any) -> None:
        out = m(x)
        o.zero_grad()
        torch.autograd.backward([F.cross_entropy(out, y), out.abs().mean()])
        o.step()

    return Case(step, [image(), labels()], [m, o])


@step_case
def parameter_groups() -> Case:
    m = net()
    o = torch.optim.AdamW(
        [{"params": [p for p in m.parameters() if p.ndim > 1]}, {"params": [p for p in m.parameters() if p.ndim < 2], "weight_decay": 0.0}]
    )
    return Case(partial(train, m, o), [image(), labels()], [m, o])


@step_case
def without_modules() -> Case:
    w, b = nn.Parameter(torch.rand(3, 3, 3, 3)), torch.zeros(3, requires_grad=True)
    o = torch.optim.Adam([w, b])

    def step(x: Any) -> None:
        o.zero_grad()
        F.conv2d(x, w, b).square().mean().backward()
        o.step()

    return Case(step, [image()], [w, b, o])


@step_case
def forward_alone() -> Case:
    m = net().eval()

    def step(x: Any) -> Any:
        out = m(x)
        return out.argmax(1)

    return Case(step, [image()], [m])


@step_case
def pairs() -> Case:
    m = net(out=6)
    o = torch.optim.Adam(m.parameters())

    def step(a: Any, b: Any) -> None:
        za, zb = F.normalize(m(a)), F.normalize(m(b))
        logits = za @ zb.t() / 0.1
        wanted = torch.arange(len(a))
        loss = (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.t(), wanted)) / 2
        o.zero_grad()
        loss.backward()
        o.step()

    return Case(step, [image(), image()], [m, o])


class Trainer:
    def __init__(self) -> None:
        self.net, self.head = net(), nn.Linear(5, 3)
        self.optimizer = torch.optim.Adam([*self.net.parameters(), *self.head.parameters()])
        self.criterion, self.calls, self.last = nn.CrossEntropyLoss(), 0, torch.zeros(())

    def step(self, batch: dict[str, Any]) -> None:
        self.optimizer.zero_grad()
        loss = self.criterion(self.head(self.net(batch["image"])), batch["label"])
        loss.backward()
        self.optimizer.step()
        self.calls += 1
        self.last = loss.detach()


@step_case
def method() -> Case:
    t = Trainer()
    return Case(t.step, [{"image": image(), "label": labels()}], [t.net, t.head, t.optimizer, [t.last]])


@pytest.fixture(scope="module")
def cpu() -> Iterator[Cpu]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Cpu.detect().with_(threads=2)
    torch.set_num_threads(before)


@step_case
def a_batch_norm_alone() -> Case:
    model = nn.BatchNorm2d(3)

    def step(x: Any) -> None:
        model.zero_grad()
        model(x).sum().backward()

    return Case(step, [image()], [model])


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_is_what_torch_allocates(name: str, cpu: Cpu) -> None:
    outcome = compare(MAKERS[name](), cpu)
    assert outcome.difference is None, str(outcome.difference)
    assert (outcome.predicted.standing_bytes, outcome.predicted.peak_bytes) == (outcome.standing_bytes, outcome.peak_bytes)


@pytest.mark.slow
def test_random_steps_are_what_torch_allocates() -> None:
    assert fuzz(25, seed=5000) == 0


# what an answer is good for ----------------------------------------------------------------------------------------------


def test_the_first_step_makes_the_state_and_finds_no_gradients(cpu: Cpu) -> None:
    case = plain()
    first = memest.step(case.function, *case.arguments, machine=cpu, first_step=True)
    later = memest.step(case.function, *case.arguments, machine=cpu)
    weights = sum(p.numel() * 4 for p in case.objects[0].parameters())
    assert later.standing_bytes - first.standing_bytes == 3 * weights + 4 * len(list(case.objects[0].parameters()))
    assert not any(e.storage.category == "optimizer_state" for e in later.events)


def test_gradients_that_stand_are_counted_unless_they_are_cleared(cpu: Cpu) -> None:
    case = gan()
    step, (g, d, og, od, *_) = case.function, case.objects
    found = memest.step(step, *case.arguments, machine=cpu)
    cleared = memest.step(step, *case.arguments, machine=cpu, cleared=True)

    def after_clearing(*inputs: Any) -> None:
        og.zero_grad()
        od.zero_grad()
        step(*inputs)

    again = compare(Case(after_clearing, case.arguments, case.objects), cpu)
    assert not again.failed and cleared.peak_bytes == again.peak_bytes
    weights = sum(p.nbytes for m in (g, d) for p in m.parameters())
    assert found.standing_bytes - cleared.standing_bytes == weights
    assert f"{weights:,} bytes) stand when the step begins" in " ".join(found.notes) and not cleared.notes
    assert memest.step(step, *case.arguments, machine="t4", cleared=True).reserved.bytes


def test_a_step_is_estimated_at_other_sizes(cpu: Cpu) -> None:
    m = net()
    o = torch.optim.Adam(m.parameters())
    graph = memest.from_step(partial(train, m, o), image(), labels())
    found = memest.estimate(graph, input_shape={"x": (7, 3, 12, 9), "y": (7,)}, machine=cpu)
    again = memest.step(partial(train, m, o), torch.rand(7, 3, 12, 9), torch.zeros(7, dtype=torch.int64), machine=cpu)
    assert [e.delta for e in found.events] == [e.delta for e in again.events]
    swept = memest.sweep(graph, batch=[2, 7], H=12, W=9, machine=cpu)
    assert swept["peak_bytes"][1] == again.peak_bytes
    assert found.optimizer is None and found.loss is None and found.how == "training step"


def test_everything_is_left_as_it_was() -> None:
    t = Trainer()
    before = [p.clone() for p in t.net.parameters()]
    last, groups = t.last, [list(g["params"]) for g in t.optimizer.param_groups]
    memest.step(t.step, {"image": image(), "label": labels()})
    assert all(torch.equal(a, b) and b.grad is None and not b.is_meta for a, b in zip(before, t.net.parameters(), strict=True))
    assert t.calls == 0 and t.last is last and not t.optimizer.state
    assert [list(map(id, g["params"])) for g in t.optimizer.param_groups] == [list(map(id, g)) for g in groups]
    assert "step" not in vars(t.optimizer)


def test_other_threads_train_meanwhile() -> None:
    m, other = net(), net()
    o, own = torch.optim.Adam(m.parameters()), torch.optim.SGD(other.parameters(), 0.1)

    class Elsewhere:
        done = 0

        @staticmethod
        def train() -> None:
            train(other, own, image(), labels())
            nn.utils.clip_grad_norm_(other.parameters(), 1.0)
            Elsewhere.done += 1

    def step(x: Any, y: Any) -> None:
        thread = Thread(target=Elsewhere.train)
        thread.start()
        thread.join()
        train(m, o, x, y)

    memest.step(step, image(), labels())
    assert Elsewhere.done >= 2 and all(p.grad is not None and not p.grad.is_meta for p in other.parameters())


def test_a_card_is_played_with_what_the_step_before_left() -> None:
    for name in ("plain", "gan", "accumulated", "scaled", "never_zeroed", "data_exchanged"):
        case = MAKERS[name]()
        found = memest.step(case.function, *case.arguments, machine="h100-80gb")
        assert found.reserved.bytes is not None and found.reserved.bytes >= found.peak_bytes > found.standing_bytes


# what is refused ---------------------------------------------------------------------------------------------------------


def refused(body: Callable[..., Any], *objects: Any, kind: type[MemestError] = UnsupportedError) -> str:
    with pytest.raises(kind) as e:
        memest.step(body, image(), labels(), *objects)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_a_decision_by_a_number_is_refused() -> None:
    m = net()
    o = torch.optim.Adam(m.parameters())

    def by_item(x: Any, y: Any) -> None:
        if F.cross_entropy(m(x), y).item() < 2:
            train(m, o, x, y)

    def unseen(x: Any, y: Any) -> None:
        if float(F.cross_entropy(m(x), y)) < 2:
            train(m, o, x, y)

    assert "test_steps.py" in refused(by_item) and "depends on a number read" in refused(by_item)
    assert "depends on a number read" in refused(unseen)


def test_a_second_backward_says_the_line_and_what_to_do() -> None:
    m = net()

    def step(x: Any, y: Any) -> None:
        loss = F.cross_entropy(m(x), y)
        loss.backward()
        loss.backward()

    said = refused(step, kind=GraphError)
    assert "retain_graph=True" in said and "test_steps.py" in said


@pytest.mark.parametrize("fused", [False, True])
def test_a_backward_through_stepped_parameters_is_refused_as_torch_does(fused: bool) -> None:
    """A fused kernel writes unseen by autograd, which lets the stale gradients be computed."""
    m = net()
    o = torch.optim.SGD(m.parameters(), 0.1, fused=fused)

    def step(x: Any, y: Any) -> None:
        out = m(x)
        F.cross_entropy(out, y).backward(retain_graph=True)
        o.step()
        out.square().mean().backward()

    if fused:
        step(torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))
        assert memest.step(step, torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)).peak_bytes > 0
        return
    said = refused(step, kind=GraphError)
    assert "5.weight, which it saved for backward, was changed by an optimizer's step() (optimizer_step, test_steps.py:" in said
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        step(torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))


def test_steps_that_are_not_alike_are_refused() -> None:
    m, kept, calls = net(), [], 0
    o = torch.optim.Adam(m.parameters())

    def counts(x: Any, y: Any) -> None:
        nonlocal calls
        calls += 1
        F.cross_entropy(m(x), y).backward()
        if calls % 4 == 0:
            o.step()
            o.zero_grad()

    def collects(x: Any, y: Any) -> None:
        kept.append(train(m, o, x, y).detach())

    assert "no call is like the one before" in refused(counts)
    assert "no call is like the one before" in refused(collects)
    assert calls == 0 and kept == []


def test_what_is_not_modelled_is_refused_by_name() -> None:
    m = net()

    class Hidden:
        optimizer = torch.optim.Adam(m.parameters())

    def hidden(x: Any, y: Any) -> None:
        F.cross_entropy(m(x), y).backward()
        Hidden.optimizer.step()

    losses: list[Any] = []

    def grows(x: Any, y: Any) -> None:
        loss = F.cross_entropy(m(x), y)
        losses.append(loss)
        loss.backward()
        m.zero_grad()

    def leaks(x: Any, y: Any) -> None:
        losses[:] = [F.cross_entropy(m(x), y)]

    def shares(x: Any, y: Any) -> None:
        loss = F.mse_loss(m(x), torch.zeros(2, 5))
        losses.append(loss)
        loss.backward()

    made: dict[str, Any] = {}

    def lazy(x: Any, y: Any) -> None:
        if not made:
            made["optimizer"] = torch.optim.SGD(m.parameters(), 0.1)
        F.cross_entropy(m(x), y).backward()
        made["optimizer"].step()

    def lazy_zeros(x: Any, y: Any) -> None:
        if not made:
            made["optimizer"] = torch.optim.SGD(m.parameters(), 0.1)
        made["optimizer"].zero_grad()
        F.cross_entropy(m(x), y).backward()

    assert "keep a number: .item()" in refused(shares)
    losses.clear()
    for kept in (lazy, lazy_zeros):
        made.clear()
        assert re.search("make (it|that) before the step", refused(kept))
    assert "keep numbers: loss.item()" in refused(grows)
    assert "its autograd graph with it; keep a detached one" in refused(leaks)
    assert "an optimizer (Adam) that the step reaches in a way memest does not follow" in refused(hidden)


def test_settings_that_the_code_says_itself_are_refused() -> None:
    case = plain()
    for setting in ({"optimizer": "adam"}, {"loss": "mse"}, {"levers": ["autocast"]}, {"mode": "infer"}, {"keep_grads": True}):
        with pytest.raises(UsageError, match="whole training step"):
            memest.step(case.function, *case.arguments, **setting)
    with pytest.raises(UsageError, match="takes a function"):
        memest.step(net(), image())
    with pytest.raises(UsageError, match="takes 2 arguments"):
        memest.step(lambda x, y: None, image())
    graph = memest.from_step(case.function, *case.arguments)
    for ask in (memest.dumps, partial(memest.advise, budget="1GiB"), memest.plan_checkpoints):
        with pytest.raises(UsageError, match="whole training step"):
            ask(graph)


# on the command line -----------------------------------------------------------------------------------------------------

SOURCE = """
import torch, torch.nn.functional as F
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
optimizer = torch.optim.Adam(model.parameters())
def step(x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss
def made():
    return nn.Conv2d(3, 4, 3)
"""


def test_a_step_is_named_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "memest_step_of_a_test.py"
    file.write_text(SOURCE)
    assert main(["estimate", f"{file}:step", "--input", "x=3x9x9", "--input", "y=int64", "--batch", "2"]) in (0, None)
    assert "step: training step, x 2x3x9x9, y 2, float32" in capsys.readouterr().out
    assert main(["estimate", f"{file}:step", "--input", "2x3x9x9", "--input", "2xint64", "--optimizer", "sgd"]) == 2
    assert "leave --optimizer out" in capsys.readouterr().err
    assert main(["estimate", f"{file}:made", "--input", "2x3x9x9"]) in (0, None)
    assert "Conv2d: training, sgd" in capsys.readouterr().out
    assert main(["estimate", "resnet18", "--input", "2x3x64x64xint64"]) == 2
    assert "dtypes of its own" in capsys.readouterr().err
    for command, said in (
        (["estimate", f"{file}:step"], "needs --input for x, y, such as --input x=3x224x224 --batch 8"),
        (["import", f"{file}:step", "--input", "x=2x3x9x9", "--input", "y=2xint64"], "whole training step, which no file holds"),
        (["fit", f"{file}:step", "--budget", "1GiB", "--input", "x=9x9", "--input", "y=int64"], "no --batch is given"),
    ):
        assert main(command) in (2, 3)
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1


def test_what_a_steps_code_says_is_refused_even_as_it_would_be() -> None:
    m = net()

    def step(x: Any) -> None:
        m(x).sum().backward()

    with pytest.raises(UsageError, match="leave optimizer out"):
        memest.step(step, (2, 3, 8, 8), optimizer="sgd")


def test_a_function_that_makes_a_module_is_no_step() -> None:
    def make(width: int = 4) -> Any:
        return net(width)

    assert is_step(plain().function.func) and is_step(Trainer().step)  # type: ignore[attr-defined]
    assert not is_step(make) and not is_step(nn.Conv2d) and not is_step(net())
