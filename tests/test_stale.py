"""Tensors that autograd saved and user code wrote to: torch refuses the backward that needs them, and so does memest, and no other.

Every row's every tensor is said to have been written to, and torch is asked whether it would go on; then networks and whole steps are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

import memest
from memest.errors import GraphError, UnsupportedError
from memest.machines.cpu import Cpu
from memest.machines.target import Target
from memest.machines.versions import nearest
from memest.network.dtypes import DIFFERENTIABLE
from memest.network.tensor import nbytes
from memest.ops.operator import Example
from memest.runtimes.torch.autograd import AccumulateGrad, Machine
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller
from tests.test_laws import CALL_IDS, CALLS, Row, comes_later, specs_of

torch = pytest.importorskip("torch")

from tiny import Square  # noqa: E402

STALE, VIEW = "modified by an inplace operation", "modified inplace"


@dataclass(frozen=True)
class Seen:
    """What autograd sees of one call: which inputs it writes to (of those that could have a gradient), which tensors count together, and
    after a write to which (inputs, then outputs) its backward is refused (None: what it would do is not modelled, and memest says so)."""

    written: list[bool]
    together: list[tuple[int, int]]
    refused: list[bool | None]


def pairs(versions: list[Any]) -> list[tuple[int, int]]:
    """Which stand together, by number."""
    return [(i, j) for j in range(len(versions)) for i in range(j) if versions[i] is versions[j]]


class Ours:
    """One call of a row on metadata."""

    def __init__(self, row: Row, example: Example, cpu: Cpu) -> None:
        self.ledger = Ledger()
        self.machine = Machine(self.ledger, True, Target(version=nearest(torch.__version__), machine=cpu), remember=False)
        self.inputs: list[Value] = []
        given = enumerate(specs_of(example))
        arguments = [
            None if s is None else [self.value(u, i, example) for u in s] if isinstance(s, list) else self.value(s, i, example)
            for i, s in given
        ]
        found = Caller(self.machine, True).run(row, arguments, tuple(row.canonical(example.attributes).items()))
        self.outputs = [self.ledger.hold(v) for v in found if v is not None]

    def value(self, s: Any, position: int, example: Example) -> Value:
        v = self.ledger.hold(Value(s, self.ledger.resident(nbytes(s.shape, s.dtype), "input", "x")))
        if s.dtype in DIFFERENTIABLE and position not in example.frozen:
            v.node, v.requires_grad = AccumulateGrad(v, "x"), True
        self.inputs.append(v)
        return v

    def refuses(self, number: int) -> bool | None:
        out = next((v for v in self.outputs if v.requires_grad), None)
        if out is None:
            return False
        self.ledger.wrote([*self.inputs, *self.outputs][number], "later", "add_")
        gradient = self.ledger.hold(Value(out.spec, self.ledger.allocate(nbytes(out.spec.shape, out.spec.dtype))))
        try:
            self.machine.backward(out, gradient)
        except GraphError as e:
            assert "torch refuses" in str(e) and "add_" in str(e), e
            return True
        except UnsupportedError as e:
            assert "not modelled" in str(e), e
            return None
        return False


def seen_here(row: Row, example: Example, cpu: Cpu) -> Seen:
    first = Ours(row, example, cpu)
    tensors = [*first.inputs, *first.outputs]
    return Seen(
        written=[v.version.count > 0 for v in first.inputs if v.spec.dtype in DIFFERENTIABLE],
        together=pairs([v.version for v in tensors]),
        refused=[Ours(row, example, cpu).refuses(i) for i in range(len(tensors))],
    )


class Theirs:
    """The same call in torch."""

    def __init__(self, row: Row, example: Example) -> None:
        from validation.rows import _fresh, call_torch, example_tensors, flat

        attributes = dict(example.attributes)
        tensors = _fresh(example_tensors(example), attributes, row)
        self.inputs = flat(tensors)
        self.before = [t._version for t in self.inputs]
        result = call_torch(row, tensors, attributes)
        self.outputs = [t for t in (result if isinstance(result, tuple | list) else [result]) if isinstance(t, torch.Tensor)]

    def counts(self) -> list[int]:
        return [t._version for t in (*self.inputs, *self.outputs)]

    def refuses(self, number: int) -> bool:
        out = next((t for t in self.outputs if t.requires_grad), None)
        if out is None:
            return False
        torch.autograd.graph.increment_version((*self.inputs, *self.outputs)[number])
        try:
            out.backward(torch.ones_like(out))
        except RuntimeError as e:
            if STALE not in str(e) and VIEW not in str(e):
                raise
            return True
        return False


def seen_by_torch(row: Row, example: Example) -> Seen:
    first = Theirs(row, example)
    counted = zip(first.inputs, first.counts(), first.before, strict=False)
    written = [now != before for t, now, before in counted if str(t.dtype).removeprefix("torch.") in DIFFERENTIABLE]
    together: list[tuple[int, int]] = []
    tensors = [*first.inputs, *first.outputs]
    for i, t in enumerate(tensors):
        before = first.counts()
        torch.autograd.graph.increment_version(t)
        together += [(i, j) for j, now in enumerate(first.counts()) if j > i and now != before[j]]
    return Seen(
        written=written,
        together=sorted(together, key=lambda pair: (pair[1], pair[0])),
        refused=[Theirs(row, example).refuses(i) for i in range(len(tensors))],
    )


APART = {
    "instance_norm-2": "its running statistics, written through an alias, are read by no backward",
    "real-1": "torch fails (INTERNAL ASSERT) where what is viewed as complex was written to",
    **dict.fromkeys(("imag-1", "view_as_real-1"), "as real-1"),
}


UNMODELLED = ("view_as_real", "view_as_complex", "real", "imag")  # views between real and complex numbers, written through


@pytest.mark.slow
@pytest.mark.parametrize(("row", "example"), [pytest.param(*call, id=i) for call, i in zip(CALLS, CALL_IDS, strict=True) if i not in APART])
def test_every_row_sees_the_writes_that_torch_sees(row: Row, example: Example, cpu: Cpu) -> None:
    """The call's own writes, what counts with what, and whose change stops backward."""
    if comes_later(row, example, cpu):
        return
    from validation.rows import NotInstalledError

    try:
        theirs = seen_by_torch(row, example)
    except NotInstalledError as e:
        pytest.skip(str(e))
    ours = seen_here(row, example, cpu)
    assert None not in ours.refused or row.name in UNMODELLED
    told = [theirs if here is None else here for here, theirs in zip(ours.refused, theirs.refused, strict=True)]
    assert replace(ours, refused=told) == theirs


# networks -----------------------------------------------------------------------------------------------------------------

IMAGES = (2, 3, 8, 8)


class Net(torch.nn.Module):
    """A convolution, whatever ``middle`` does with what it gives, and a head."""

    def __init__(self, middle: Any) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Linear(4, 2)
        self.register_buffer("scale", torch.ones(4, 1, 1))
        self.middle = middle

    def forward(self, x: Any) -> Any:
        return self.middle(self, self.conv(x))

    def ended(self, h: Any) -> Any:
        return self.head(h.mean((2, 3)))


class Through(Square):
    """Its backward does not."""

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 1


def checkpointed(function: Any, *args: Any, reentrant: bool = False) -> Any:
    from torch.utils.checkpoint import checkpoint

    return checkpoint(function, *args, use_reentrant=reentrant)


def quietly(run: Any) -> None:
    with torch.no_grad():
        run()


def middle(body: str) -> Any:
    """A forward's middle part, written as its lines."""
    space: dict[str, Any] = {**globals()}
    lines = "\n".join(f"    {line}" for line in body.split("; "))
    exec(f"def between(self, h):\n{lines}\n", space)
    return space["between"]


WRITTEN = {
    "a result": "h = h.sigmoid(); h += 1; return self.ended(h)",
    "a result by mul_": "h = h.relu(); h.mul_(2); return self.ended(h)",
    "a result by setitem": "h = h.tanh(); h[:, 0] = 0; return self.ended(h)",
    "a result by zero_": "h = h.exp(); h.zero_(); return self.ended(h)",
    "a result through a view": "h = h.sigmoid(); h[:, :2].mul_(2); return self.ended(h)",
    "a result through detach": "h = h.sigmoid(); h.detach().mul_(2); return self.ended(h)",
    "a result through data": "h = h.sigmoid(); h.data.mul_(2); return self.ended(h)",
    "data that was taken before": "d = self.scale.data; y = h * self.scale; d.mul_(2); return self.ended(y)",
    "data's own": "d = self.scale.data; y = h * d; d.mul_(2); return self.ended(y)",
    "what data came from": "d = self.scale.data; y = h * d; self.scale.mul_(2); return self.ended(y)",
    "detached, what it came from": "d = self.scale.detach(); y = h * d; self.scale.mul_(2); return self.ended(y)",
    "an input": "y = h.sin(); quietly(lambda: h.mul_(2)); return self.ended(y)",
    "before": "h += 1; h = h.sigmoid(); return self.ended(h)",
    "not saved": "y = h + 1; h.mul_(2); return self.ended(y)",
    "after an out of place one": "h = h.sigmoid(); h = h + 1; h += 1; return self.ended(h)",
    "in place, itself": "h.mul_(h); return self.ended(h)",
    "in place, saved result": "h.sigmoid_(); h.add_(1); return self.ended(h)",
    "relu in place after relu": "h = torch.relu_(h); h = torch.relu_(h); return self.ended(h)",
    "in place, saved mask": "h = torch.nn.functional.leaky_relu_(h); h = torch.relu_(h); return self.ended(h)",
    "a weight": "y = self.ended(h); quietly(lambda: self.head.weight.mul_(0.9)); return y",
    "a bias": "y = self.ended(h); quietly(lambda: self.head.bias.mul_(0.9)); return y",
    "a weight through data": "y = self.ended(h); self.head.weight.data.mul_(0.9); return y",
    "a weight before": "quietly(lambda: self.head.weight.mul_(0.9)); return self.ended(h)",
    "a buffer": "y = h * self.scale; self.scale.mul_(0.9); return self.ended(y)",
    "a buffer that is added": "y = h + self.scale; self.scale.mul_(0.9); return self.ended(y)",
    "running statistics": "y = self.norm(h); self.norm.running_mean.mul_(0.9); return self.ended(y)",
    "running statistics before": "self.norm.running_mean.mul_(0.9); return self.ended(self.norm(h))",
    "a counter": "y = self.norm(h); self.norm.num_batches_tracked.zero_(); return self.ended(y)",
    "two norms": "return self.ended(self.norm(h) + self.norm(h))",
    "statistics reset": "y = self.norm(h); self.norm.reset_running_stats(); return self.ended(y)",
    "no gradient wanted": "y = self.scale.sin(); self.scale.mul_(2); return self.ended(h + y)",
    "for a number": "y = h * 2; h.mul_(3); return self.ended(y)",
    "a function's": "y = Square.apply(h); h.mul_(2); return self.ended(y)",
    "a function's that never asks": "y = Through.apply(h); h.mul_(2); return self.ended(y)",
    "a checkpoint's argument": "y = checkpointed(torch.sin, h); quietly(lambda: h.mul_(2)); return self.ended(y)",
    "a captured one": "y = checkpointed(lambda x: x * self.scale, h); self.scale.mul_(2); return self.ended(y)",
    "captured, not the network's": "s = self.scale + 1; y = checkpointed(lambda x: x * s, h); s.mul_(2); return self.ended(y)",
    "by keyword": "s = self.scale + 1; y = checkpointed(lambda x: x * s, h); s.mul_(2); return self.ended(y)",
    "inside a checkpoint": "y = checkpointed(lambda x: x.sigmoid().add_(1), h); return self.ended(y)",
    "a reentrant checkpoint's": "y = checkpointed(torch.sin, h, reentrant=True); quietly(lambda: h.mul_(2)); return self.ended(y)",
    "hooks keep": "\n    ".join(
        (
            "with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):",
            "    y = h.sin()",
            "quietly(lambda: h.mul_(2))",
            "return self.ended(y)",
        )
    ),
    "dropout": "h = torch.nn.functional.dropout(h, 0.5, True); h.mul_(2); return self.ended(h)",
    "a pool": "y = torch.nn.functional.max_pool2d(h, 2); y.mul_(2); return self.ended(y)",
    "a pool's input": "y = torch.nn.functional.max_pool2d(h, 2); quietly(lambda: h.mul_(2)); return self.ended(y)",
    "copy_": "y = h * self.scale; self.scale.copy_(torch.zeros(4, 1, 1)); return self.ended(y)",
    "fill_diagonal": "y = h.softmax(1); y.clamp_(0, 1); return self.ended(y)",
}


def refused_by_torch(run: Any) -> bool:
    """Whether torch says so."""
    try:
        run()
    except RuntimeError as e:
        assert STALE in str(e) or VIEW in str(e), e
        return True
    return False


def refused_here(run: Any) -> bool:
    """Whether we do; if so, in one line that says which call and where."""
    try:
        run()
    except GraphError as e:
        said = str(e)
        assert "torch refuses" in said and "\n" not in said, said
        return True
    return False


QUICK = (
    *("a result", "a result through detach", "a result through data", "before", "in place, itself", "a weight", "running statistics"),
    *("a function's", "a function's that never asks", "a checkpoint's argument", "captured, not the network's"),
)
EACH = [pytest.param(body, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, body in WRITTEN.items()]


@pytest.mark.parametrize("body", EACH)
def test_a_network_is_refused_where_torch_refuses_it(body: str) -> None:
    """In its graph, and in one that was written and read again."""
    torch.manual_seed(0)
    net = Net(middle(body))
    expected = refused_by_torch(lambda: net(torch.rand(IMAGES)).sum().backward())
    graph = memest.from_torch(net, IMAGES, mode="train")
    again = graph if "saved_tensors_hooks" in body else memest.loads(memest.dumps(graph))
    assert refused_here(lambda: memest.estimate(graph, input_shape=IMAGES, mode="train")) == expected
    assert refused_here(lambda: memest.estimate(again, input_shape=IMAGES, mode="train")) == expected


def test_the_message_names_both_calls_and_inference_goes_on() -> None:
    net = Net(lambda self, h: self.ended(torch.sigmoid(h).add_(1)))
    graph = memest.from_torch(net, IMAGES)
    with pytest.raises(GraphError) as error:
        memest.estimate(graph, input_shape=IMAGES, mode="train")
    said = str(error.value)
    assert "backward through sigmoid (sigmoid, test_stale.py:" in said and "add in place (add, test_stale.py:" in said and "clone()" in said
    assert memest.estimate(graph, input_shape=IMAGES, mode="infer").peak_bytes > 0


# whole steps --------------------------------------------------------------------------------------------------------------


def averaged(net: Any, _: Any) -> None:
    for p in net.parameters():
        p.mul_(0.9)


STEPS = {
    "weights between": "out = net(x).sum(); quietly(lambda: averaged(net, 0)); out.backward()",
    "weights after": "out = net(x).sum(); out.backward(); quietly(lambda: averaged(net, 0))",
    "weights by data": "out = net(x).sum(); net.head.weight.data.mul_(0.9); out.backward()",
    "biases between": "out = net(x).sum(); quietly(lambda: net.head.bias.mul_(0.9)); out.backward()",
    "a step between": "out = net(x).sum(); out.backward(retain_graph=True); adam.step(); net(x).mean().backward()",
    "a step, then the old graph": "out = net(x).sum(); out.backward(retain_graph=True); adam.step(); out.backward()",
    "the old graph, then a step": "out = net(x).sum(); out.backward(retain_graph=True); out.backward(); adam.step()",
    "an input": "x = x.clone(); out = net(x).sum(); x.add_(1); out.backward()",
    "a batch into one buffer": "b = torch.zeros_like(x); b.copy_(x); out = net(b).sum(); b.copy_(x); out.backward()",
    "gradients in place": "out = net(x).sum(); out.backward(); net.head.weight.grad.mul_(2)",
    "a gradient that is read": "net(x).sum().backward(); w = net.head.weight; l = (w * w.grad).sum(); w.grad.mul_(2); l.backward()",
    "one that another backward adds to": (
        "net(x).sum().backward(); w = net.head.weight; l = (w * w.grad).sum(); net(x).sum().backward(); l.backward()"
    ),
    "one that is clipped": (
        "net(x).sum().backward(); w = net.head.weight; l = (w * w.grad).sum(); "
        "torch.nn.utils.clip_grad_norm_([net.head.weight], 1.0); l.backward()"
    ),
    "one when another is clipped": (
        "net(x).sum().backward(); w = net.head.weight; l = (w * w.grad).sum(); "
        "torch.nn.utils.clip_grad_norm_([net.head.bias], 1.0); l.backward()"
    ),
    "a set data": "out = net(x).sum(); net.head.weight.data = net.head.weight.data * 2; out.backward()",
    "a set data that is written to": (
        "out = net(x).sum(); net.head.weight.data = net.head.weight.data * 2; quietly(lambda: net.head.weight.mul_(2)); out.backward()"
    ),
    "a teacher": "out = (net(x) - teacher(x).detach()).sum(); quietly(lambda: averaged(teacher, 0)); out.backward()",
    "not on the way": "out = net(x); h = out.sigmoid(); quietly(lambda: h.mul_(2)); out.sum().backward()",
    "gradients of what comes later": (
        "h = net(x); y = h.sigmoid(); z = y.sin().sum(); quietly(lambda: net.head.weight.mul_(2)); torch.autograd.grad(z, [h])"
    ),
}


def step_of(body: str) -> Any:
    """A step that does so, with everything it needs."""
    net, teacher = (Net(lambda self, h: self.ended(h.relu())) for _ in range(2))
    space: dict[str, Any] = {**globals(), "net": net, "teacher": teacher, "adam": torch.optim.Adam(net.parameters(), 1e-3)}
    exec("def step(x):\n" + "\n".join(f"    {line}" for line in ("net.zero_grad()", *body.split("; "))) + "\n", space)
    return space["step"]


@pytest.mark.parametrize(
    "body", [pytest.param(b, id=n, marks=() if i % 3 == 0 else pytest.mark.slow) for i, (n, b) in enumerate(STEPS.items())]
)
def test_a_step_is_refused_where_torch_refuses_it(body: str) -> None:
    expected = refused_by_torch(lambda: step_of(body)(torch.rand(IMAGES)))
    assert refused_here(lambda: memest.step(step_of(body), IMAGES)) == expected


# views --------------------------------------------------------------------------------------------------------------------

REFUSED_VIEWS = {
    "a view of several": "a, b = h.chunk(2, 1); a.mul_(2); return self.ended(h)",
    "one of several, after its base": "a, b = h.chunk(2, 1); h.mul_(2); return self.ended(torch.cat([a, a], 1))",
    "one of several, after another": "a, b = h.split(2, 1); quietly(lambda: a.mul_(2)); return self.ended(torch.cat([b, b], 1))",
    "one of unbind": "a = h.unbind(0)[0]; a.mul_(2); return self.ended(h)",
    "one of several of an input": "a, b = self.scale.expand(4, 6, 6).chunk(2, 0); a = a * 1; return self.ended(h * self.scale)",
    "made without gradients": "v = torch.no_grad()(lambda: h[:, :2])(); v.mul_(2); return self.ended(h)",
    "made and written without": "v = torch.no_grad()(lambda: h[:, :2])(); quietly(lambda: v.mul_(2)); return self.ended(h)",
    "a parameter": "self.head.bias.mul_(2); return self.ended(h)",
    "a view of one": "self.head.bias[:1].mul_(2); return self.ended(h)",
    "a parameter without gradients": "quietly(lambda: self.head.bias.mul_(2)); return self.ended(h)",
    "what a function gives back": "y = Same.apply(h); y.mul_(2); return self.ended(y)",
    "a hooked module's result": "y = self.hooked(h); y.mul_(2); return self.ended(y)",
}


class Same(Square):
    """It gives back what it got."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 1


@pytest.mark.parametrize(
    "body", [pytest.param(b, id=n, marks=() if i % 4 == 0 else pytest.mark.slow) for i, (n, b) in enumerate(REFUSED_VIEWS.items())]
)
def test_writing_into_a_view_is_refused_where_torch_refuses_it(body: str) -> None:
    net = Net(middle(body))
    net.hooked = torch.nn.Conv2d(4, 4, 1)
    net.hooked.register_full_backward_hook(lambda module, given, gave: None)
    try:
        net(torch.rand(IMAGES)).sum().backward()
        expected = False
    except RuntimeError as e:
        assert "inplace" in str(e) or "in-place" in str(e), e
        expected = True
    graph = memest.from_torch(net, IMAGES, mode="train")
    assert refused_here(lambda: memest.estimate(graph, input_shape=IMAGES, mode="train")) == expected


REWRITTEN = {
    "another view": "v, w = h[:, :2], h[:, 2:]; v.mul_(2); return w.sin()",
    "the base": "v = h[:, :2]; h.mul_(2); return v.sin()",
    "a view of a view": "v = h[:, :2]; u = v[:1]; v.mul_(2); return u.sin()",
    "the base without gradients": "v = h[:, :2]; quietly(lambda: h.mul_(2)); return v.sin()",
    "a reshaped one": "v = h.view(2, -1); h.relu_(); return v.sin()",
    "a permuted one": "v = h.permute(0, 2, 3, 1); h.add_(1); return v.sin()",
    "an expanded one": "v = h.expand(2, 2, 4, 6, 6); h.add_(1); return v.sin()",
    "two in turn": "a = h.transpose(1, 2); a.mul_(3); b = h.transpose(2, 3); a.mul_(2); return b.sin()",
    "one row of another": "v = h[:, 1]; h[:, 0] = 0; return v.sin() + h.sum()",
    "a buffer filled by parts": "o = torch.zeros_like(h); u = o[:, 2:]; o[:, :2].copy_(h[:, :2]); o[:, 2:] = h[:, 2:] * 2; return u.sin()",
    "as the root": "v = h[:, :2]; h.mul_(2); return v",
}


@pytest.mark.parametrize(
    "body", [pytest.param(b, id=n, marks=() if i % 4 == 0 else pytest.mark.slow) for i, (n, b) in enumerate(REWRITTEN.items())]
)
def test_a_view_whose_memory_was_written_to_leads_to_its_base(body: str, cpu: Cpu) -> None:
    from validation.steps import Case, compare

    net = Net(middle(body))
    x = torch.rand(IMAGES)
    gradient = torch.ones_like(net(x)).detach()

    def step(x: Any, gradient: Any) -> None:
        net.zero_grad()
        net(x).backward(gradient)

    found = compare(Case(step, (x, gradient), (net,)), cpu)
    assert not found.failed, found.difference
