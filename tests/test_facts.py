"""The facts of rows: that every row states them, and that they hold on the row's own examples, in torch where torch can be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from math import prod
from typing import Any

import pytest

import memest
from memest.machines.cpu import Cpu
from memest.ops.composite import Composite
from memest.ops.facts import (
    BATCH,
    BY_METHOD,
    EVERYWHERE,
    KEEPS_INPUT,
    KEEPS_MASK,
    KEEPS_RESULT,
    NEVER,
    NONE,
    POINTWISE,
    SAMPLE,
    Dispatched,
    Facts,
    Overwriting,
    Policy,
    Reach,
    Statistics,
    each_element,
)
from memest.ops.families import normalization
from memest.ops.operator import Example, Operator
from memest.ops.table import COMPOSITES, FAMILIES, OPERATORS, family_name
from memest.planning.advice import Situation
from tests.test_laws import all_calls, is_group, read, specs_of

Row = Operator | Composite
ROWS: dict[str, Row] = {**OPERATORS, **COMPOSITES}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))


# the column ----------------------------------------------------------------------------------------------------------------


@every_row
def test_every_row_states_its_facts(row: Row) -> None:
    facts = row.facts
    assert isinstance(facts, Facts) and isinstance(facts.reach, Reach) and isinstance(facts.overwrites, Overwriting)
    assert isinstance(facts.autocast, Policy | Dispatched) and isinstance(facts.statistics, Statistics)
    assert callable(facts.flops) if isinstance(row, Operator) else facts.flops is None, "a composite's operations are those of its calls"


@pytest.mark.parametrize("kind", [Operator, Composite])
def test_a_row_silent_about_them_is_an_error(kind: Any) -> None:
    stated = {f.name: () for f in fields(kind) if f.name != "facts"}
    with pytest.raises(TypeError, match="facts"):
        kind(**stated)
    for f in fields(Facts):
        with pytest.raises(TypeError, match=f.name):
            Facts(**{g.name: None for g in fields(Facts) if g is not f})  # type: ignore[arg-type]


def test_facts_are_told_in_words() -> None:
    told = {name: ROWS[name].facts.text for name in ("exp", "relu", "nll_loss", "max_pool3d", "convolution", "batch_norm", "softmax")}
    assert told == {
        "exp": "pointwise; in place by method",
        "relu": "pointwise; in place keeps result",
        "nll_loss": "everywhere",
        "max_pool3d": "window; autocast float32 or falls through",
        "convolution": "window; products",
        "batch_norm": "pointwise; statistics of a batch",
        "softmax": "along dim",
    }


def test_families_are_named_by_what_they_hold() -> None:
    names = [family_name(family) for family in FAMILIES]
    assert {"convolution", "attention", "multi head", "unary"} <= set(names) and len(set(names)) == len(names)


# how far it sees -----------------------------------------------------------------------------------------------------------


def broadcast(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The shape that all of them take part in."""
    longest = max(map(len, shapes))
    padded = [(1,) * (longest - len(s)) + tuple(s) for s in shapes]
    return tuple(next((n for n in sizes if n != 1), 1) for sizes in zip(*padded, strict=True))


POINTWISE_ROWS = [row for row in ROWS.values() if row.facts.reach is POINTWISE]


@pytest.mark.parametrize("row", POINTWISE_ROWS, ids=[row.name for row in POINTWISE_ROWS])
@all_calls
def test_what_is_pointwise_gives_the_shape_it_gets(row: Row, example: Example) -> None:
    outputs = read(row, example, specs_of(example)).outputs
    given = [s for s, role in zip(example.shapes, row.roles, strict=True) if s is not None and role.rstrip("?") not in PARAMETERS]
    assert [tuple(v.spec.shape) for v in outputs if v is not None] == [broadcast(given)]


PARAMETERS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
SIGHTED = [
    pytest.param(row, e, id=f"{row.name}-{i}", marks=() if i < 2 else pytest.mark.slow)
    for row in ROWS.values()
    if row.facts.reach is not EVERYWHERE and row.facts.statistics is NONE and row.name != "empty_like"  # which gives what lay there before
    for i, e in enumerate(row.examples)
]


@pytest.mark.parametrize(("row", "example"), SIGHTED)
def test_outputs_of_torch_depend_on_what_the_row_sees(row: Row, example: Example) -> None:
    """One position of an input is changed: only outputs that see it change, along every dim that has a window."""
    torch = pytest.importorskip("torch")
    from validation.rows import example_tensors

    given = row.canonical(example.attributes)
    tensors = example_tensors(example, grad=False)
    images = [t for t in opened(tensors) if t.is_floating_point()]
    if not images or images[0].ndim < 3:
        pytest.skip("no image in this example")
    image = images[0]
    shapes = [None if s is None or is_group(s) else s for s in example.shapes]
    before = outcome(row, example, tensors)
    for d, window in enumerate(row.facts.reach.windows(given, shapes, image.ndim - 2)):
        if window is None:
            continue
        for at in range(image.shape[2 + d]):
            with torch.no_grad():
                kept = image.clone()
                image.select(2 + d, at).add_(10)
            after = outcome(row, example, tensors)
            with torch.no_grad():
                image.copy_(kept)
            for i in changed(before, after, 2 + d):
                assert i * window.step - window.left <= at <= i * window.step + window.right, f"output {i} sees input {at} along dim {d}"


def opened(tensors: Sequence[Any]) -> Iterator[Any]:
    """All tensors of a call."""
    for t in tensors:
        if t is not None:
            yield from t if isinstance(t, list) else [t]


def outcome(row: Row, example: Example, tensors: Sequence[Any]) -> list[Any]:
    """The outputs of the call on copies, with the same random numbers every time."""
    import torch

    from validation.rows import call_torch

    torch.manual_seed(0)
    copies = [[u.clone() for u in t] if isinstance(t, list) else None if t is None else t.clone() for t in tensors]
    with torch.no_grad():
        result = call_torch(row, copies, dict(example.attributes))
    return [t for t in (result if isinstance(result, tuple | list) else [result]) if isinstance(t, torch.Tensor)]


def changed(before: Sequence[Any], after: Sequence[Any], dim: int) -> list[int]:
    """Positions along ``dim`` at which anything differs."""
    import torch

    found: set[int] = set()
    for a, b in zip(before, after, strict=True):
        differs = torch.ne(torch.nan_to_num(a), torch.nan_to_num(b)).movedim(dim, 0).flatten(1).any(1)
        found.update(differs.nonzero().flatten().tolist())
    return sorted(found)


def test_what_sees_everywhere_is_not_pointwise_on_all_its_examples() -> None:
    """A row that does not say how little it sees is found by what it does: every output sees its own position alone. Exceptions are told
    by their strides, or by a second tensor that does not lie as the first does."""
    pytest.importorskip("torch")
    from validation.rows import example_tensors

    silent = []
    for name, row in ROWS.items():
        if row.facts.reach is not EVERYWHERE or row.facts.statistics is not NONE:
            continue
        images = [
            e for e in row.examples if e.shapes and isinstance(e.shapes[0], tuple) and len(e.shapes[0]) > 3 and not is_group(e.shapes[0])
        ]
        if images and all(seen_pointwise(row, e, example_tensors(e, grad=False)) for e in images):
            silent.append(name)
    assert silent == ["setitem", "class_mask", "scatter_", "index_put_", "as_strided", "as_strided_", "tril", "triu", "msort"]


def seen_pointwise(row: Row, example: Example, tensors: list[Any]) -> bool:
    """True where the first image's positions are seen by the same positions of the output alone."""
    image = tensors[0]
    before = outcome(row, example, tensors)
    if not image.is_floating_point() or any(t.shape != image.shape for t in before):
        return False
    for dim in range(2, image.ndim):
        for at in range(image.shape[dim]):
            kept = image.clone()
            image.select(dim, at).add_(10)
            after = outcome(row, example, tensors)
            image.copy_(kept)
            if changed(before, after, dim) not in ([], [at]):
                return False
    return True


# autocast ------------------------------------------------------------------------------------------------------------------


def registered() -> set[str]:
    """What torch's dispatcher wraps within autocast on CPU."""
    torch = pytest.importorskip("torch")
    listed = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCPU")
    return {name.removeprefix("aten::").partition(".")[0] for name in listed}


def test_what_autocast_casts_is_what_torch_registers() -> None:
    listed = registered()
    for name, row in ROWS.items():
        for called, policy in row.facts.policies(name).items():
            assert (called in listed) == (policy not in ("falls through", "refused")), f"{name}, {called} for torch: {policy}"


@every_row
def test_a_call_has_a_policy_by_its_attributes(row: Row) -> None:
    for example in row.examples:
        assert row.facts.policy(row.canonical(example.attributes).items()).value in row.facts.policies(row.name).values()


# writing over the input ----------------------------------------------------------------------------------------------------


def writes(row: Row) -> bool:
    """True for a row that can be told to."""
    return any(a.name == "inplace" for a in row.attributes)


@every_row
def test_a_row_that_may_write_over_its_input_says_what_it_keeps(row: Row) -> None:
    assert writes(row) == (row.facts.overwrites is not NEVER)


def test_the_lever_follows_the_flags_of_torch_nn() -> None:
    nn = pytest.importorskip("torch").nn
    import inspect

    modules = {n: m for n, m in vars(nn).items() if inspect.isclass(m) and issubclass(m, nn.Module) and m is not nn.Module}
    flagged = {n.lower() for n, m in modules.items() if "inplace" in inspect.signature(m).parameters}
    for name, row in ROWS.items():
        assert (name.replace("_", "") in flagged) == (row.facts.overwrites not in (NEVER, BY_METHOD)), name


WRITTEN = [
    (row, e)
    for row in OPERATORS.values()
    if row.facts.overwrites not in (NEVER, BY_METHOD)
    for e in row.examples
    if "inplace" in e.attributes
]


@pytest.mark.parametrize(("row", "example"), WRITTEN, ids=[row.name for row, _ in WRITTEN])
def test_what_is_kept_in_place_is_what_torch_keeps(row: Operator, example: Example) -> None:
    """A result is the input's own storage, a mask another, an input a clone of what was overwritten."""
    torch = pytest.importorskip("torch")
    from validation.rows import call_torch, example_tensors

    (leaf,) = example_tensors(example)
    value, given = leaf * 1, leaf.detach().clone()
    kept: list[Any] = []

    def pack(t: Any) -> Any:
        kept.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        call_torch(row, [value], dict(example.attributes))
    own = [t for t in kept if t.data_ptr() == value.data_ptr()]
    clones = [t for t in kept if t.data_ptr() != value.data_ptr() and t.shape == given.shape and torch.equal(t, given)]
    expected = {KEEPS_RESULT: (True, False), KEEPS_MASK: (False, False), KEEPS_INPUT: (False, True)}[row.facts.overwrites]
    assert (bool(own), bool(clones)) == expected


OVERWRITABLE = [r for r in OPERATORS.values() if r.facts.overwrites is not NEVER and r.roles == ("input",) and r.backward is not None]


@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("row", OVERWRITABLE, ids=[row.name for row in OVERWRITABLE])
def test_the_lever_writes_over_what_leaves_memory_saved(row: Operator, mode: str) -> None:
    """In training what keeps its result or a mask, in inference what is not a clone of its input either (a dropout does nothing there)."""
    example = row.examples[0]
    given = {name: value for name, value in example.attributes.items() if name != "training"}
    b = memest.Builder("net")
    x = b.layer("neg", b.layer("linear", b.input("x", example.shapes[0]), out_features=example.shapes[0][-1]))
    graph = b.build(b.layer("linear", b.layer(row.name, x, name="written", **given), out_features=2))
    step: dict[str, Any] = {"mode": mode, "cpu": Cpu()}
    found = memest.estimate(graph, levers=["inplace"], **step)
    worthwhile = (KEEPS_RESULT, KEEPS_MASK) if mode == "train" else (KEEPS_RESULT, KEEPS_INPUT)
    assert found.timeline.overwriting == (("written",) if row.facts.overwrites in worthwhile else ())
    assert found.peak_bytes <= memest.estimate(graph, **step).peak_bytes


# operations ----------------------------------------------------------------------------------------------------------------


def operations(row: Operator, example: Example) -> int:
    """What the row counts, from the shapes it gets and makes."""
    reading = read(row, example, specs_of(example))
    made = [v.spec.shape for v in reading.outputs if v is not None and v.base is None]
    assert row.facts.flops is not None
    return row.facts.flops([v.spec.shape for v in reading.inputs], made, row.canonical(example.attributes))


def counted(call: Callable[[], Any]) -> int:
    """What torch's counter sees of a call."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("row", OPERATORS.values(), ids=list(OPERATORS))
def test_operations_are_those_that_torch_counts(row: Operator) -> None:
    """Where torch's counter knows the operator; where it does not, a row that counts its elements hides no product."""
    pytest.importorskip("torch")
    from validation.rows import call_torch, example_tensors

    for example in row.examples:
        tensors = example_tensors(example, grad=False)
        theirs = counted(partial(call_torch, row, tensors, dict(example.attributes)))
        assert theirs == (0 if row.facts.flops is each_element or row.name in BY_PRODUCTS else operations(row, example))


def products_of_attention(query: Any, key: Any, value: Any, mask: Any, **_: Any) -> Any:
    """Scores, and what they weigh."""
    return query.float() @ key.float().transpose(-1, -2) @ value.float()


def products_of_heads(query: Any, key: Any, value: Any, weight: Any, bias: Any, out_weight: Any, out_bias: Any, mask: Any, **_: Any) -> Any:
    """The same by torch.nn.functional, in operators the counter knows."""
    import torch

    turned = [t.transpose(0, 1) for t in (query, key, value)]
    return torch.nn.functional.multi_head_attention_forward(
        *turned, 12, 3, weight, bias, None, None, False, 0.0, out_weight, out_bias, training=False
    )


def products_of_grids(theta: Any, size: Sequence[int], **_: Any) -> Any:
    """Homogeneous coordinates of every point by every matrix."""
    return theta.new_ones(size[0], prod(size[2:]), theta.shape[2]) @ theta.transpose(1, 2)


def products_of_steps(input: Any, weight_ih: Any, weight_hh: Any, bias: Any, other: Any, state: Any, cell: Any, **_: Any) -> None:
    """The input and the state of every step by their weights."""
    for step in input:
        step @ weight_ih.T, state @ weight_hh.T


BY_PRODUCTS: dict[str, Callable[..., Any]] = {
    "mkldnn_rnn_layer": products_of_steps,
    "_euclidean_dist": lambda x1, x2: x1.new_zeros(*x1.shape[:-1], x1.shape[-1] + 2) @ x2.new_zeros(*x2.shape[:-1], x1.shape[-1] + 2).mT,
    "_flash_attention": products_of_attention,
    "_multi_head": products_of_heads,
    "affine_grid": products_of_grids,
    "mv": lambda input, vec: input.float() @ vec.float()[:, None],
    **dict.fromkeys(
        ("linear_dynamic", "linear_dynamic_fp16"),
        lambda input, weight, bias=None: input.flatten(0, -2) @ weight.to(input.dtype).T,
    ),
    **dict.fromkeys(("dot", "vdot"), lambda input, tensor: input[None] @ tensor[:, None]),
}


@pytest.mark.parametrize("name", BY_PRODUCTS)
def test_operations_of_what_torch_does_not_count_are_those_of_its_products(name: str) -> None:
    pytest.importorskip("torch")
    from validation.rows import example_tensors

    row = OPERATORS[name]
    for example in row.examples:
        tensors = example_tensors(example, grad=False)
        assert operations(row, example) == counted(partial(BY_PRODUCTS[name], *tensors, **example.attributes)) > 0


def test_other_rows_are_one_operation_for_every_element_they_make() -> None:
    relu = OPERATORS["relu"].facts.flops
    assert relu is each_element and relu([(2, 3)], [(2, 3)], {}) == 6
    assert each_element([(2, 3)], [], {}) == 0, "a view makes none"


# statistics ----------------------------------------------------------------------------------------------------------------


NORMS: tuple[Row, ...] = (*normalization.ROWS, *normalization.COMPOSITE_ROWS)


@pytest.mark.parametrize("row", NORMS, ids=[row.name for row in NORMS])
def test_statistics_are_taken_over_what_torch_takes_them_over(row: Row) -> None:
    """Of one entry that is changed, other samples know where they are the batch's, other positions where they are the sample's."""
    torch = pytest.importorskip("torch")
    from validation.rows import example_tensors

    example = row.examples[0]
    tensors = example_tensors(example, grad=False)
    before = outcome(row, example, tensors)
    tensors[0][(0,) * tensors[0].ndim] += 10
    (differs,) = (torch.ne(a, b) for a, b in zip(before, outcome(row, example, tensors), strict=True))
    if bool(differs[1:].any()):
        found = BATCH
    else:
        found = SAMPLE if bool(differs[0, ..., 1:].any()) else NONE
    assert row.facts.statistics is found


def test_advice_knows_whose_statistics_a_network_takes() -> None:
    for row in NORMS:
        b = memest.Builder("net")
        shape = row.examples[0].shapes[0]
        graph = b.build(b.layer(row.name, b.input("x", shape), **{k: v for k, v in row.examples[0].attributes.items() if k != "training"}))
        situation = Situation(graph=graph, shapes={"x": shape}, sizes={}, step={"mode": "train"}, limit=1)
        assert [s for s in (BATCH, SAMPLE) if situation.takes(s)] == [s for s in (BATCH, SAMPLE) if s is row.facts.statistics]
