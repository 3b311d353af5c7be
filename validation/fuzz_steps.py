"""Random training steps as source text, each measured and predicted; one that differs is printed.

A step has one to three networks that share nothing or feed one another, one to three losses, one or two optimizers of random kinds, options
and groups; it detaches or not, accumulates, keeps graphs, toggles gradients, clips, logs, evaluates in between, follows by averaging, takes
gradients of inputs, in random order. What torch refuses memest has to refuse, too. One in four has a gradient penalty.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from memest.errors import MemestError
from memest.estimate.steps import step
from memest.machines.cpu import Cpu
from validation.fuzz_penalties import penalized
from validation.profiling import settle
from validation.steps import Case, Outcome, compare

PREAMBLE = "import copy\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\nDEVICE = 'cpu'\n"
ACTIVATIONS = ("nn.ReLU()", "nn.ReLU(True)", "nn.LeakyReLU(0.2, True)", "nn.SiLU()", "nn.Tanh()", "nn.GELU()")
OPTIMIZERS = (
    "torch.optim.SGD({}, 0.01)",
    "torch.optim.SGD({}, 0.01, momentum=0.9)",
    "torch.optim.SGD({}, 0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)",
    "torch.optim.Adam({})",
    "torch.optim.Adam({}, amsgrad=True, weight_decay=1e-4)",
    "torch.optim.Adam({}, foreach=True)",
    "torch.optim.AdamW({})",
    "torch.optim.AdamW({}, fused=True)",
    "torch.optim.RMSprop({}, momentum=0.5, centered=True)",
    "torch.optim.Adagrad({})",
    "torch.optim.Adadelta({})",
    "torch.optim.Adamax({})",
    "torch.optim.NAdam({})",
    "torch.optim.RAdam({})",
)
PENALIZED = 4  # every so many steps one has a gradient of gradients
BEFORE = 6  # calls before the measured ones: RAdam changes its way after the fifth


class _Writer:
    """Writes one random step."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.batch, self.side, self.classes = self.rng.choice((2, 3, 4)), self.rng.choice((8, 12, 15, 16)), self.rng.choice((4, 5, 10))
        self.setup: list[str] = []
        self.body: list[str] = []
        self.objects: list[str] = []

    def text(self) -> str:
        """The source of a module with ``function``, ``arguments`` and ``objects``, all on ``DEVICE``."""
        self._networks()
        self._optimizers()
        self._round()
        body = "".join(f"    {line}\n" for line in self.body)
        size = f"{self.batch}, 3, {self.side}, {self.side}"
        return (
            f"{PREAMBLE}{''.join(line + chr(10) for line in self.setup)}\ndef function(x, y):\n{body}\n"
            f"arguments = [torch.rand({size}).to(DEVICE), torch.zeros({self.batch}, dtype=torch.int64).to(DEVICE)]\n"
            f"objects = [{', '.join(self.objects)}]\n"
        )

    def _maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    # networks ------------------------------------------------------------------------------------------------------------

    def _networks(self) -> None:
        self.image = self._maybe(0.5)
        self.names = ["net"]
        self._define("net", self._to_image() if self.image else self._to_classes())
        if self.image or self._maybe(0.5):
            self._define("other", self._to_classes())
            self.names.append("other")
        if self._maybe(0.25):
            self.setup.append("average = copy.deepcopy(net)")
            self.objects.append("average")
            self.average = True
        else:
            self.average = False
        if self._maybe(0.2):
            self.setup.append("next(net.parameters()).requires_grad_(False)")

    def _define(self, name: str, layers: list[str]) -> None:
        self.setup.append(f"{name} = nn.Sequential({', '.join(layers)}).to(DEVICE)")
        self.objects.append(name)

    def _norm(self, n: int) -> list[str]:
        return self.rng.choice(([f"nn.BatchNorm2d({n})"], [f"nn.GroupNorm(2, {n})"], [f"nn.InstanceNorm2d({n}, affine=True)"], []))

    def _block(self, a: int, b: int, stride: int = 1) -> list[str]:
        bias = self._maybe(0.6)
        return [f"nn.Conv2d({a}, {b}, 3, {stride}, 1, bias={bias})", *self._norm(b), self.rng.choice(ACTIVATIONS)]

    def _to_image(self) -> list[str]:
        n = self.rng.choice((4, 6, 8))
        return [*self._block(3, n), *(self._block(n, n) if self._maybe(0.5) else []), f"nn.Conv2d({n}, 3, 3, padding=1)"]

    def _to_classes(self) -> list[str]:
        n = self.rng.choice((4, 6, 8))
        drop = ["nn.Dropout(0.2)"] if self._maybe(0.3) else []
        pool = ["nn.MaxPool2d(2)"] if self._maybe(0.4) else []
        return [
            *self._block(3, n), *pool, *self._block(n, 2 * n, 2), "nn.AdaptiveAvgPool2d(1)", "nn.Flatten()", *drop,
            f"nn.Linear({2 * n}, {self.classes})",
        ]  # fmt: skip

    # optimizers ----------------------------------------------------------------------------------------------------------

    def _optimizers(self) -> None:
        self.optimizers: list[str] = []
        if len(self.names) > 1 and self._maybe(0.6):
            for name in self.names:
                self._optimizer(f"opt_{name}", f"{name}.parameters()")
        else:
            everything = f"[*{', *'.join(f'{n}.parameters()' for n in self.names)}]"
            if self._maybe(0.3):
                groups = "[{'params': [p for p in P if p.ndim > 1]}, {'params': [p for p in P if p.ndim < 2], 'weight_decay': 0.0}]"
                everything = groups.replace("P", everything)
            self._optimizer("opt", everything)
        self.schedule = self._maybe(0.2)
        if self.schedule:
            self.setup.append(f"schedule = torch.optim.lr_scheduler.StepLR({self.optimizers[0]}, 30)")

    def _optimizer(self, name: str, parameters: str) -> None:
        self.setup.append(f"{name} = {self.rng.choice(OPTIMIZERS).format(parameters)}")
        self.objects.append(name)
        self.optimizers.append(name)

    # the step ------------------------------------------------------------------------------------------------------------

    def _round(self) -> None:
        say = self.body.append
        say(f"nets = ({', '.join(self.names)},)")
        when = self.rng.choice(("first", "first", "before", "last", "none"))
        if when == "first":
            self._zero(say)
        if self.average and self._maybe(0.4):
            say("with torch.no_grad(): aim = average(x)")
            self.aim = True
        else:
            self.aim = False
        shape = self.rng.choice(("plain", "plain", "gan", "gan", "accumulate", "retain", "roots", "adversarial"))
        if shape == "gan" and (not self.image or len(self.optimizers) < 2):
            shape = "plain"
        getattr(self, f"_{shape}")(say, when)
        if self.schedule:
            say("schedule.step()")
        if self.average:
            self._follow(say)
        if self._maybe(0.2):
            say("net.eval()")
            say("with torch.no_grad(): score = net(x).mean().item()")
            say("net.train()")
        if when == "last":
            self._zero(say)

    def _zero(self, say: Any) -> None:
        way = self.rng.choice(("()", "()", "()", "(set_to_none=False)", "(set_to_none=True)"))
        for owner in self.names if self._maybe(0.3) else self.optimizers:
            say(f"{owner}.zero_grad{way}")

    def _outputs(self, say: Any) -> list[str]:
        """The forward; the names of what came out."""
        say("a = net(x)")
        found = ["a"]
        if len(self.names) > 1:
            given = self.rng.choice(("a", "a.detach()", "x")) if self.image else "x"
            say(f"b = other({given})")
            found.append("b")
        if self._maybe(0.3):
            say("a2 = net(x * 0.5)")
            found.append("a2")
        return found

    def _losses(self, outputs: list[str]) -> list[str]:
        rng = self.rng
        found = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            out = rng.choice(outputs)
            image = self.image and out != "b"
            kinds = [f"{out}.pow(2).mean()", f"F.l1_loss({out}, torch.zeros_like({out}))", f"{out}.abs().sum() * 0.1"]
            kinds += ["F.mse_loss(a, x)"] if image else [f"F.cross_entropy({out}, y)", f"F.softplus(-{out}).mean()"]
            if self.aim and out.startswith("a"):
                kinds.append(f"F.mse_loss({out}, aim)")
            found.append(rng.choice(kinds))
        return found

    def _clip(self, say: Any, optimizer: str) -> None:
        parameters = f"[p for g in {optimizer}.param_groups for p in g['params']]"
        way = self.rng.random()
        if way < 0.15:
            say(f"norm = nn.utils.clip_grad_norm_({parameters}, 1.0)")
        elif way < 0.22:
            say(f"nn.utils.clip_grad_value_({parameters}, 0.5)")
        elif way < 0.28:
            say(f"for p in {parameters}:")
            say("    if p.grad is not None: p.grad.clamp_(-1, 1)")

    def _update(self, say: Any, optimizers: list[str]) -> None:
        for optimizer in optimizers:
            self._clip(say, optimizer)
            say(f"{optimizer}.step()")

    def _log(self, say: Any, what: str) -> None:
        if self._maybe(0.4):
            say(f"log = {what}.item()")

    def _plain(self, say: Any, when: str) -> None:
        parts = self._losses(self._outputs(say))
        say(f"loss = {' + '.join(f'{self.rng.choice((1, 0.5))} * {p}' if self._maybe(0.4) else p for p in parts)}")
        self._log(say, "loss")
        if when == "before":
            self._zero(say)
        say("loss.backward()")
        if self._maybe(0.2):
            say("del a")
        self._update(say, self.optimizers)

    def _retain(self, say: Any, when: str) -> None:
        outputs = self._outputs(say)
        first, second = self._losses(outputs), self._losses(outputs)
        if when == "before":
            self._zero(say)
        say(f"({' + '.join(first)}).backward(retain_graph={self._maybe(0.8)})")
        if self._maybe(0.2):
            self._update(say, self.optimizers[:1])
        say(f"({' + '.join(second)}).backward()")
        self._update(say, self.optimizers)

    def _roots(self, say: Any, when: str) -> None:
        parts = [*self._losses(self._outputs(say)), "a.mean()"]
        if when == "before":
            self._zero(say)
        say(f"torch.autograd.backward([{', '.join(parts)}])")
        self._update(say, self.optimizers)

    def _accumulate(self, say: Any, when: str) -> None:
        if when == "before":
            self._zero(say)
        count = self.rng.choice((2, 3))
        say(f"for i in range({count}):")

        def inner(line: str) -> None:
            say(f"    {line}")

        parts = self._losses(self._outputs(inner))
        inner(f"loss = ({' + '.join(parts)}) / {count}")
        inner("loss.backward()")
        if self._maybe(0.5):
            inner("total = loss.detach()")
        self._update(say, self.optimizers)

    def _gan(self, say: Any, when: str) -> None:
        toggles = self._maybe(0.4)
        if toggles:
            say("for p in other.parameters(): p.requires_grad_(True)")
        own = "opt_other.zero_grad()" if self._maybe(0.8) else "pass"
        say(own)
        fake = self.rng.choice(("fake.detach()", "fake.detach()", "fake"))
        first = self._maybe(0.5)
        if not first:
            say("F.softplus(-other(x)).mean().backward()")
        say("fake = net(x)")
        if first:
            say(f"loss = F.softplus(-other(x)).mean() + F.softplus(other({fake})).mean()")
            say(f"loss.backward({'' if fake != 'fake' else 'retain_graph=True'})")
            self._log(say, "loss")
        else:
            say(f"F.softplus(other({fake})).mean().backward({'' if fake != 'fake' else 'retain_graph=True'})")
        self._update(say, ["opt_other"])
        if toggles:
            say("for p in other.parameters(): p.requires_grad_(False)")
        if when != "none":
            say("opt_net.zero_grad()")
        say("loss_g = F.softplus(-other(fake)).mean()" + (" + F.l1_loss(fake, x)" if self._maybe(0.3) else ""))
        say("loss_g.backward()")
        self._update(say, ["opt_net"])

    def _adversarial(self, say: Any, when: str) -> None:
        say(self.rng.choice(("z = x.clone().requires_grad_()", "z = (x + 0.1).detach().requires_grad_(True)")))
        say("loss = net(z).pow(2).mean()")
        if self._maybe(0.5):
            say(f"g, = torch.autograd.grad(loss, z, retain_graph={self._maybe(0.3)})")
        else:
            say("loss.backward()")
            say("g = z.grad")
        say("z = (z + 0.1 * g.sign()).detach()")
        if when == "before":
            self._zero(say)
        say("net(z).pow(2).mean().backward()")
        self._update(say, self.optimizers)

    def _follow(self, say: Any) -> None:
        way = self.rng.choice(("no_grad", "data", "copy", "lerp"))
        if way == "data":
            say("for p, q in zip(average.parameters(), net.parameters()): p.data.mul_(0.9).add_(q.data, alpha=0.1)")
            return
        say("with torch.no_grad():")
        say("    for p, q in zip(average.parameters(), net.parameters()):")
        say(
            {
                "no_grad": "        p.mul_(0.9).add_(q, alpha=0.1)",
                "copy": "        p.copy_(p * 0.9 + q * 0.1)",
                "lerp": "        p.lerp_(q, 0.1)",
            }[way]
        )


def drawn(seed: int) -> str:
    """The source text of a random step."""
    return penalized(seed) if seed % PENALIZED == 0 else plain(seed)


def plain(seed: int) -> str:
    """One without gradients of gradients."""
    return _Writer(seed).text()


def case_of(text: str, device: str = "cpu") -> Case:
    """The step of a source text."""
    text = text.replace("DEVICE = 'cpu'", f"DEVICE = {device!r}", 1)
    space: dict[str, Any] = {"__name__": "drawn"}
    exec(compile(text, "<drawn>", "exec"), space)
    return Case(space["function"], space["arguments"], space["objects"])


def run(text: str, cpu: Cpu) -> Outcome | None:
    """Measure and predict; None when torch refuses the step, and memest does, too."""
    try:
        case = case_of(text)
        case.function(*case.arguments)
        case.function(*case.arguments)
    except AttributeError:  # a hook of its own is called with None
        return None
    except RuntimeError as e:
        fresh = case_of(text)
        try:
            step(fresh.function, *fresh.arguments, machine=cpu, torch=torch.__version__)
        except MemestError:
            return None
        raise AssertionError(f"torch refuses what memest answers: {e}") from None
    return compare(case_of(text), cpu, before=BEFORE)


def fuzz(cases: int, seed: int = 0) -> int:
    """Run ``cases`` random steps on this processor; the number of failures."""
    settle()
    return fuzz_with(partial(run, cpu=Cpu.detect().with_(threads=torch.get_num_threads())), cases, seed)


def fuzz_with(run: Callable[[str], Outcome | None], cases: int, seed: int, draw: Callable[[int], str] = drawn) -> int:
    """The same of those that ``draw`` draws, wherever ``run`` runs them."""
    failures = done = skipped = 0
    start = time.time()
    number = seed
    while done < cases:
        number += 1
        text = draw(number)
        problem = ""
        try:
            outcome = run(text)
        except (MemestError, AssertionError) as e:
            outcome, problem = None, f"{type(e).__name__}: {e}"
        if outcome is None and not problem:
            skipped += 1
            assert skipped <= cases, "torch refuses most of what is drawn"
            continue
        done += 1
        if problem or (outcome is not None and outcome.failed):
            failures += 1
            print(f"--- seed {number}\n{text}\n{problem}")
            if outcome is not None:
                print(f"standing: predicted {outcome.predicted.standing_bytes}, measured {outcome.standing_bytes}")
                print(f"peak: predicted {outcome.predicted.peak_bytes}, measured {outcome.peak_bytes}\n{outcome.difference}", flush=True)
        if done % 50 == 0:
            print(f"{done} steps, {failures} failures, {time.time() - start:.0f} s", file=sys.stderr, flush=True)
    print(f"{cases} steps, {failures} differences ({skipped} drawn that torch refuses)")
    return failures
