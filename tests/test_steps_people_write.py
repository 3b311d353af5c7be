"""Training steps in the styles of public training scripts, each equal to torch's allocator event by event."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from validation.steps import Case, compare  # noqa: E402

pytestmark = pytest.mark.slow
MAKERS: dict[str, Callable[[], Case]] = {}


def step_case(make: Callable[[], Case]) -> Callable[[], Case]:
    MAKERS[make.__name__] = make
    return make


class Net(nn.Module):
    """A stem, a residual block, a strided block and a head."""

    def __init__(self, width: int = 4, out: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.same = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.GroupNorm(2, 2 * width), nn.SiLU())
        self.head = nn.Linear(2 * width, out)

    def features(self, x: Any) -> Any:
        x = self.stem(x)
        return self.down(x + self.same(x))

    def forward(self, x: Any) -> Any:
        return self.head(self.features(x).mean((2, 3)))


def images(batch: int = 2) -> Any:
    return torch.rand(batch, 3, 8, 8)


def labels(batch: int = 2) -> Any:
    return torch.zeros(batch, dtype=torch.int64)


@step_case
def distilled_features() -> Case:
    teacher, student = Net().eval(), Net()
    optimizer = torch.optim.AdamW(student.parameters())
    seen: dict[str, Any] = {}
    teacher.same.register_forward_hook(lambda module, args, out: seen.__setitem__("teacher", out))
    student.same.register_forward_hook(lambda module, args, out: seen.__setitem__("student", out))

    def step(x: Any, y: Any) -> None:
        with torch.no_grad():
            soft = teacher(x)
        out = student(x)
        loss = F.kl_div(F.log_softmax(out / 4, 1), F.softmax(soft / 4, 1), reduction="batchmean") * 16
        loss = loss + F.cross_entropy(out, y) + F.mse_loss(seen["student"], seen["teacher"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Case(step, [images(), labels()], [teacher, student, optimizer, seen])


@step_case
def contrast_with_a_queue() -> Case:
    query = Net(out=8)
    key = copy.deepcopy(query)
    optimizer = torch.optim.SGD(query.parameters(), 0.03)
    queue = F.normalize(torch.randn(8, 32), dim=0)

    def step(a: Any, b: Any) -> None:
        with torch.no_grad():
            for p, q in zip(query.parameters(), key.parameters(), strict=True):
                q.data = q.data * 0.999 + p.data * 0.001
            k = F.normalize(key(b), dim=1)
        q = F.normalize(query(a), dim=1)
        positive = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", [q, queue.clone().detach()])
        logits = torch.cat([positive, negative], 1) / 0.07
        loss = F.cross_entropy(logits, torch.zeros(logits.shape[0], dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        queue[:, 0:4] = k.T

    return Case(step, [images(4), images(4)], [query, key, optimizer, queue])


@step_case
def contrast_of_labels() -> Case:
    model = Net(out=8)
    optimizer = torch.optim.Adam(model.parameters())

    def step(x: Any, y: Any) -> None:
        f = F.normalize(model(x), dim=1)
        mask = torch.eq(y.view(-1, 1), y.view(-1, 1).T).float()
        logits = f @ f.T / 0.1
        logits = logits - logits.max(1, keepdim=True)[0].detach()
        others = torch.scatter(torch.ones_like(mask), 1, torch.arange(len(y)).view(-1, 1), 0)
        mask = mask * others
        log_probability = logits - torch.log((torch.exp(logits) * others).sum(1, keepdim=True))
        loss = -(mask * log_probability).sum(1).div(mask.sum(1) + 1e-6).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Case(step, [images(4), labels(4)], [model, optimizer])


@step_case
def adversarial_by_divergence() -> Case:
    """TRADES: an inner loop by gradients of the input, in eval mode."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(x: Any, y: Any) -> None:
        model.eval()
        near = x.detach() + 0.001 * torch.randn(x.shape).detach()
        for _ in range(2):
            near.requires_grad_()
            with torch.enable_grad():
                loss = F.kl_div(F.log_softmax(model(near), 1), F.softmax(model(x), 1), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, [near])
            near = near.detach() + 0.007 * torch.sign(gradient.detach())
            near = torch.clamp(torch.min(torch.max(near, x - 0.03), x + 0.03), 0, 1)
        model.train()
        optimizer.zero_grad()
        out = model(x)
        robust = F.kl_div(F.log_softmax(model(near), 1), F.softmax(model(x), 1), reduction="batchmean")
        (F.cross_entropy(out, y) + 6 * robust).backward()
        optimizer.step()

    return Case(step, [images(), labels()], [model, optimizer])


@step_case
def dreamt() -> Case:
    model = Net().eval()

    def step(x: Any) -> Any:
        image = x.clone().requires_grad_(True)
        for _ in range(3):
            model.zero_grad()
            model.features(image).norm().backward()
            size = image.grad.data.abs().mean()
            image.data = image.data + (0.01 / size) * image.grad.data
            image.grad.data.zero_()
        return image.detach()

    return Case(step, [images(1)], [model])


@step_case
def styled() -> Case:
    """Gram matrices of every layer; the image is what is trained."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    layers.eval().requires_grad_(False)
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    optimizer = torch.optim.Adam([image], 0.02)

    def gram(f: Any) -> Any:
        b, c, h, w = f.shape
        f = f.view(b, c, h * w)
        return f @ f.transpose(1, 2) / (c * h * w)

    def features(x: Any) -> list[Any]:
        found = []
        for layer in layers:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x)
        return found

    def step(style: Any, content: Any) -> None:
        with torch.no_grad():
            grams, kept = [gram(f) for f in features(style)], features(content)[-1]
        optimizer.zero_grad()
        found = features(image)
        loss = F.mse_loss(found[-1], kept)
        for f, g in zip(found, grams, strict=True):
            loss = loss + 1e4 * F.mse_loss(gram(f), g)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            image.clamp_(0, 1)

    return Case(step, [torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)], [layers, image, optimizer])


@step_case
def gradients_of_two_tasks() -> Case:
    """PCGrad: one task's gradient is projected, flat, and put back piece by piece."""
    model, one, other = Net(out=8), nn.Linear(8, 5), nn.Linear(8, 5)
    optimizer = torch.optim.Adam([*model.parameters(), *one.parameters(), *other.parameters()])

    def step(x: Any, y: Any) -> None:
        f = model(x)
        first, second = F.cross_entropy(one(f), y), F.cross_entropy(other(f), y)
        shared = list(model.parameters())
        a, b = (torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]) for loss in (first, second))
        a = a - torch.clamp(torch.dot(a, b), max=0) / (b.norm() ** 2 + 1e-8) * b
        optimizer.zero_grad()
        (first + second).backward()
        start = 0
        for p in shared:
            p.grad = a[start : start + p.numel()].view_as(p).clone()
            start += p.numel()
        optimizer.step()

    return Case(step, [images(), labels()], [model, one, other, optimizer])


@step_case
def guessed_labels() -> Case:
    """FixMatch: one call for labelled and other images, whose confident guesses are labels."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9, nesterov=True)

    def step(x: Any, y: Any, weak: Any, strong: Any) -> None:
        out = model(torch.cat((x, weak, strong)))
        known, (guess, aim) = out[: len(x)], out[len(x) :].chunk(2)
        del out
        most, target = torch.max(torch.softmax(guess.detach(), -1), -1)
        sure = most.ge(0.95).float()
        loss = F.cross_entropy(known, y) + (F.cross_entropy(aim, target, reduction="none") * sure).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Case(step, [images(), labels(), images(), images()], [model, optimizer])


@step_case
def two_optimizers_of_one_loss() -> Case:
    """Center loss: the centers are stepped by an optimizer of their own."""
    model, head, centers = Net(out=8), nn.Linear(8, 5), nn.Parameter(torch.randn(5, 8))
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], 0.1)
    of_centers = torch.optim.SGD([centers], 0.5)

    def step(x: Any, y: Any) -> None:
        f = model(x)
        loss = F.cross_entropy(head(f), y) + 0.1 * (f - centers[y]).pow(2).sum(1).clamp(1e-12, 1e12).mean()
        optimizer.zero_grad()
        of_centers.zero_grad()
        loss.backward()
        optimizer.step()
        centers.grad.data *= 10.0
        of_centers.step()

    return Case(step, [images(), labels()], [model, head, centers, optimizer, of_centers])


@step_case
def looked_ahead() -> Case:
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    slow = [p.detach().clone() for p in model.parameters()]

    def step(x: Any, y: Any) -> None:
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        for p, q in zip(model.parameters(), slow, strict=True):
            q.add_(p.data - q, alpha=0.5)
            p.data.copy_(q)

    return Case(step, [images(), labels()], [model, optimizer, slow])


@step_case
def margins_of_angles() -> Case:
    """ArcFace."""
    model, weight = Net(out=8), nn.Parameter(torch.randn(5, 8))
    optimizer = torch.optim.SGD([*model.parameters(), weight], 0.1)

    def step(x: Any, y: Any) -> None:
        cosine = F.linear(F.normalize(model(x)), F.normalize(weight))
        sine = torch.sqrt((1 - cosine.pow(2)).clamp(0, 1))
        moved = torch.where(cosine > -0.87, cosine * 0.87 - sine * 0.47, cosine - 0.23)
        hot = torch.zeros_like(cosine)
        hot.scatter_(1, y.view(-1, 1), 1)
        out = (hot * moved + (1 - hot) * cosine) * 30
        optimizer.zero_grad()
        F.cross_entropy(out, y).backward()
        optimizer.step()

    return Case(step, [images(), labels()], [model, weight, optimizer])


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_is_what_torch_allocates(name: str, cpu: Cpu) -> None:
    outcome = compare(MAKERS[name](), cpu)
    assert not outcome.failed, str(outcome.difference)
