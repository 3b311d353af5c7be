"""The laws every operator row and composite obeys, on the row's own examples. Adding a row makes its tests appear.

Without torch: the table is well formed, and the int and the symbolic reading of a row agree, here and at other sizes. With torch:
outputs, what autograd keeps (by storage identity) and the streams of both directions are torch's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any

import pytest

from memest.errors import GraphError, UnknownNameError, UnsupportedError
from memest.machines.cpu import Cpu
from memest.machines.target import Target
from memest.machines.versions import NEWEST, installed, nearest
from memest.network.dtypes import DIFFERENTIABLE
from memest.network.tensor import Shape, Spec, channels_last_strides, contiguous_strides, nbytes
from memest.ops import reading
from memest.ops.composite import Composite
from memest.ops.operator import REQUIRED, Example, Operator
from memest.ops.table import COMPOSITES, OPERATORS
from memest.ops.tape import Trace
from memest.runtimes.torch.autograd import AccumulateGrad, Machine, Node
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller
from memest.sizes.dims import Dim, Expr, Opaque, symbol

Row = Operator | Composite
VERSION = nearest(installed() or "")
ROWS: list[Row] = [*OPERATORS.values(), *COMPOSITES.values()]
CALLS = [(row, example) for row in ROWS for example in row.examples]
CALL_IDS = [f"{row.name}-{i}" for row in ROWS for i in range(len(row.examples))]

every_row = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
every_operator = pytest.mark.parametrize("row", OPERATORS.values(), ids=list(OPERATORS))
every_call = pytest.mark.parametrize(("row", "example"), CALLS, ids=CALL_IDS)


def all_calls(law: Callable[[Row, Example], None]) -> Callable[[Row], None]:
    """A law of calls as one of rows, which holds for all of a row's examples: a test costs more than such a law."""

    @wraps(law)
    def of_row(row: Row) -> None:
        for i, example in enumerate(row.examples):
            try:
                law(row, example)
            except AssertionError as e:
                raise AssertionError(f"{row.name}-{i}: {e}") from e

    del of_row.__wrapped__  # type: ignore[attr-defined]  # pytest would ask for its arguments
    return of_row


# an example as metadata ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What one call of a row gave: its values, the storages of its inputs, and the sizes it took and gave back."""

    inputs: list[Value]
    outputs: list[Value | None]
    deltas: list[int]

    def saved(self) -> tuple[Counter[str], Counter[str]]:
        """The storages that autograd keeps, each once, and apart from them those of one number: torch's hooks do not show a Python
        number that was wrapped for the call (SavedVariable::register_hooks), but they show a tensor of one number."""
        own, made = ([v.storage.id for v in group if v is not None] for group in (self.inputs, self.outputs))
        tensors: dict[int, str] = {}
        numbers: dict[int, str] = {}
        for node in self._nodes():
            for storage, (_, s) in zip(node.saved.storages, node.saved_specs, strict=True):
                number = s.shape == () and s.dtype in ("float64", "int64", "bool") and storage.id not in (*own, *made)
                if storage.nbytes:
                    (numbers if number else tensors)[storage.id] = named(storage.id, storage.nbytes, own, made)
        return Counter(tensors.values()), Counter(numbers.values())

    def _nodes(self) -> list[Node]:
        found: dict[int, Node] = {}
        stack = [v.node for v in self.outputs if v is not None]
        while stack:
            node = stack.pop()
            if isinstance(node, Node) and id(node) not in found:
                found[id(node)] = node
                stack.extend(edge[0] for edge in node.edges if edge is not None)
        return list(found.values())


def is_group(shape: Any) -> bool:
    """True for the shapes of a ``*`` role."""
    return shape == [] or isinstance(shape[0], tuple | list) if isinstance(shape, tuple | list) and len(shape) else shape == []


def strides_of(shape: Shape, layout: str) -> Shape:
    """Strides of an example's first tensor (``transposed``: its first and last dims lie exchanged)."""
    if layout == "channels_last":
        return channels_last_strides(shape)
    if layout == "transposed":
        exchanged = [shape[-1], *shape[1:-1], shape[0]] if len(shape) > 1 else list(shape)
        own = list(contiguous_strides(exchanged))
        own[0], own[-1] = own[-1], own[0]
        return tuple(own)
    return contiguous_strides(shape)


def specs_of(example: Example, size: Any = lambda n: n) -> list[Any]:
    """The metadata of an example's tensors, with every size passed through ``size``."""
    dtypes = iter([*example.dtypes, *["float32"] * 64])

    def one(shape: Any, layout: str) -> Spec:
        sizes = tuple(size(n) for n in shape)
        return Spec(sizes, strides_of(sizes, layout), next(dtypes))

    made: list[Any] = []
    for i, shape in enumerate(example.shapes):
        if shape is None:
            next(dtypes)
            made.append(None)
        elif is_group(shape):
            made.append([one(s, example.layout if i == j == 0 else "contiguous") for j, s in enumerate(shape)])
        else:
            made.append(one(shape, example.layout if i == 0 else "contiguous"))
    return made


def read(row: Row, example: Example, specs: list[Any], cpu: Cpu | None = None, training: bool = True) -> Reading:
    """One call of ``row`` on metadata; floats want a gradient where the example does not freeze them."""
    ledger = Ledger()
    machine = Machine(ledger, training, Target(version=VERSION, machine=cpu or Cpu()), remember=False)
    inputs: list[Value] = []

    def value(s: Spec, position: int) -> Value:
        v = ledger.hold(Value(s, ledger.resident(nbytes(s.shape, s.dtype), "input", "x")))
        if s.dtype in DIFFERENTIABLE and position not in example.frozen:
            v.node, v.requires_grad = AccumulateGrad(v, "x"), True
        inputs.append(v)
        return v

    arguments = [None if s is None else [value(u, i) for u in s] if isinstance(s, list) else value(s, i) for i, s in enumerate(specs)]
    before = list(inputs)
    outputs = Caller(machine, True).run(row, arguments, tuple(row.canonical(example.attributes).items()))
    return Reading(before, [None if v is None else ledger.hold(v) for v in outputs], [s.delta for s in ledger.events])


def traces(row: Operator, example: Example, specs: list[Any], version: tuple[int, int] = VERSION) -> tuple[Trace, Trace | None]:
    """The row's own forward and backward traces (None where no gradient is wanted, or where this torch has none)."""
    arguments = tuple(tuple(s) if isinstance(s, list) else s for s in specs)
    flat = [(s, i) for i, group in enumerate(specs) if group is not None for s in (group if isinstance(group, list) else [group])]
    needs = tuple(s.dtype in DIFFERENTIABLE and i not in example.frozen for s, i in flat)
    attributes = tuple(row.canonical(example.attributes).items())
    kinds, target = reading.kinds_of(attributes), Target(version=version)
    forward = reading.forward.__wrapped__(row, arguments, attributes, needs, True, target, kinds)
    if row.backward is None or not any(needs):
        return forward, None
    saved = tuple((s.role, s.spec) for s in forward.saved)
    first = next((i for i, o in enumerate(forward.outputs) if o is not None and o.spec.dtype in DIFFERENTIABLE), None)
    if first is None:
        return forward, None
    grads = tuple(o.spec if i == first and o is not None else None for i, o in enumerate(forward.outputs))
    try:
        backward = reading.backward.__wrapped__(row, saved, forward.notes, grads, attributes, needs, True, target, kinds)
    except UnsupportedError:
        return forward, None
    return forward, backward


def sizes_in(trace: Trace) -> Iterator[int]:
    """Every size a trace allocates (a library's choice is no plain number), and every size and stride it describes."""
    for event in trace.events:
        if event.nbytes != -1 and not (isinstance(event.nbytes, Dim) and isinstance(event.nbytes.expr, Opaque)):
            yield event.nbytes
    for thing in (*trace.saved, *(o for o in trace.outputs if o is not None)):
        yield from thing.spec.shape
        yield from thing.spec.strides


# the table -----------------------------------------------------------------------------------------------------------------


def test_every_row_stands_under_its_own_name() -> None:
    assert all(name == row.name for name, row in [*OPERATORS.items(), *COMPOSITES.items()])
    assert not set(OPERATORS) & set(COMPOSITES)


@every_row
def test_row_has_a_source_examples_and_roles_that_are_unique(row: Row) -> None:
    assert row.source
    assert row.examples, "a row without examples is checked by nothing"
    assert all(len(example.shapes) == len(row.roles) for example in row.examples)
    names = [role.rstrip("?*") for role in row.roles]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*[?*]?", role) for role in row.roles)
    attributes = [a.name for a in row.attributes]
    assert len(set(attributes)) == len(attributes)
    assert not set(names) & set(attributes) - {"weight"}


@every_row
def test_defaults_pass_their_own_checks(row: Row) -> None:
    given = {a.name: a.default for a in row.attributes if a.default is not REQUIRED}
    for a in row.attributes:
        if a.default is not REQUIRED:
            assert a.check(a.default) == a.default
    required = [a.name for a in row.attributes if a.default is REQUIRED]
    if required:
        with pytest.raises(GraphError, match=required[0]):
            row.canonical(given)
    else:
        assert row.canonical({}) == given


def attributes_of(row: Row) -> dict[str, Any]:
    """Attributes that are valid together, from the first example."""
    return dict(row.examples[0].attributes) if row.examples else {}


@every_row
def test_unknown_and_ill_typed_attributes_are_refused(row: Row) -> None:
    with pytest.raises(GraphError, match="no attribute 'no_such_attribute'"):
        row.canonical({**attributes_of(row), "no_such_attribute": 1})
    for a in row.attributes:
        with pytest.raises(GraphError, match=f"attribute '{a.name}'"):
            row.canonical({**attributes_of(row), a.name: object()})


@every_row
@all_calls
def test_canonical_attributes_are_hashable_and_stay_as_they_are(row: Row, example: Example) -> None:
    canonical = row.canonical(example.attributes)
    hash(tuple(canonical.items()))
    assert list(canonical) == [a.name for a in row.attributes]
    assert row.canonical(canonical) == canonical


@every_operator
def test_what_is_kept_is_declared(row: Operator) -> None:
    """Every role kept on some example stands in ``saves``, and every role in ``saves`` is kept on some example, by some torch."""
    calls = [(example, version) for example in row.examples for version in (VERSION, NEWEST)]
    kept = {s.role for example, version in calls for s in traces(row, example, specs_of(example), version)[0].saved}
    assert kept == set(row.saves)
    assert row.backward is not None or not row.saves


# readings ------------------------------------------------------------------------------------------------------------------


@every_row
@all_calls
def test_what_a_call_gives_follows_from_its_arguments_whatever_the_mode_of_the_step(row: Row, example: Example) -> None:
    def given(training: bool) -> list[Any]:
        found = read(row, example, specs_of(example), training=training)
        storages = [v.storage for v in found.inputs]
        return [None if v is None else (v.spec, v.storage in storages and storages.index(v.storage)) for v in found.outputs]

    assert given(True) == given(False)


@every_operator
@all_calls
def test_sizes_are_natural_numbers_and_releases_match(row: Operator, example: Example) -> None:
    for trace in traces(row, example, specs_of(example)):
        if trace is None:
            continue
        assert all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes_in(trace))
        alive: set[int] = set()
        for event in trace.events:
            if event.nbytes == -1:
                alive.remove(event.slot)
            else:
                assert event.slot >= trace.n_inputs
                alive.add(event.slot)
        held = {o.slot for o in trace.outputs if o is not None} | {s.slot for s in trace.saved}
        assert alive <= held, "what is neither given back nor kept must be released"
        assert {slot for slot in held if slot >= trace.n_inputs} <= alive, "what is given back or kept must be alive"


def symbolic(n: int) -> int:
    """Each size as a symbol of its own; equal sizes share one."""
    return Dim(n, symbol(f"s{n}"))


def evaluated(n: int, sizes: dict[str, int]) -> int:
    """What the expression of ``n`` gives (a plain number gives itself)."""
    return n.expr.evaluate(sizes) if isinstance(n, Dim) else n


def all_sizes(example: Example) -> set[int]:
    """Every size in an example's shapes."""
    shapes = [s for shape in example.shapes if shape is not None for s in (shape if is_group(shape) else [shape])]
    return {n for shape in shapes for n in shape}


@every_operator
@all_calls
def test_symbolic_reading_agrees_with_ints(row: Operator, example: Example) -> None:
    sizes = {f"s{n}": n for n in all_sizes(example)}
    for plain, symbols in zip(traces(row, example, specs_of(example)), traces(row, example, specs_of(example, symbolic)), strict=True):
        if symbols is None or plain is None:
            assert symbols is plain
            continue
        assert outside(symbols, sizes) == outside(plain, sizes) if is_sealed(symbols) else symbols == plain
        assert all(evaluated(n, sizes) == n for n in sizes_in(symbols))


def is_sealed(trace: Trace) -> bool:
    """True when a library's choice is one number in it."""
    return any(isinstance(e.nbytes, Dim) and isinstance(e.nbytes.expr, Opaque) for e in trace.events)


def outside(trace: Trace, at: dict[str, int]) -> tuple[Any, ...]:
    """What is seen of a call from outside: metadata of outputs and of what is kept, and the most bytes it holds ``at`` these sizes."""
    alive = highest = 0
    sizes: dict[int, int] = {}
    for event in trace.events:
        if event.nbytes >= 0:
            sizes[event.slot] = nbytes = evaluated(event.nbytes, at)
            alive += nbytes
            highest = max(highest, alive)
        else:
            alive -= sizes.pop(event.slot)
    outputs = [o and (o.spec, o.same_as, o.is_view) for o in trace.outputs]
    return outputs, [(s.role, s.spec) for s in trace.saved], trace.notes, highest, alive


@every_row
@all_calls
def test_symbolic_shapes_hold_at_other_sizes(row: Row, example: Example) -> None:
    """The formula of an output's shape, found at one size, gives the shape at another: what an imported graph relies on."""
    moved = movable(example)
    if not moved:
        return  # no size of this example can be changed
    outputs = read(row, example, specs_of(example, lambda n: symbolic(n) if n in moved else n)).outputs
    other = {n: n * 2 + 4 for n in moved}
    try:
        expected = read(row, example, specs_of(example, lambda n: other.get(n, n))).outputs
    except UnknownNameError:
        raise
    except GraphError:
        return  # the example's attributes fix its sizes
    if len(expected) != len(outputs):
        return  # its sizes decide how many outputs there are
    sizes = {f"s{n}": m for n, m in other.items()}
    found = [None if v is None else [evaluated(n, sizes) for n in v.spec.shape] for v in outputs]
    assert found == [None if v is None else list(v.spec.shape) for v in expected]


def movable(example: Example) -> set[int]:
    """Sizes of the batch and of the spatial dims of the first tensor, where no number of the attributes could mean them."""
    first = next((s for s in example.shapes if s is not None), ())
    shape = first[0] if is_group(first) and first else first
    spatial = {n for d, n in enumerate(shape) if d != 1 and n > 1}
    return spatial - set(numbers_in(tuple(example.attributes.values())))


def numbers_in(value: Any) -> Iterator[int]:
    """Every int in nested attribute values."""
    if isinstance(value, tuple | list):
        for v in value:
            yield from numbers_in(v)
    elif isinstance(value, int):
        yield value


HUGE = 2**70 + 3


@every_row
@all_calls
def test_sizes_far_beyond_64_bits_stay_exact(row: Row, example: Example) -> None:
    """With a first dim 2^70 times as long every size is still an int, and one that grows evenly has grown to the byte."""
    first = next((s for s in example.shapes if s is not None), ())
    shape = first[0] if is_group(first) and first else first
    if not shape or shape[0] in set(numbers_in(tuple(example.attributes.values()))):
        return  # the first dim is fixed

    def at(times: int) -> Reading:
        return read(row, example, specs_of(example, lambda n: n * times if n == shape[0] else n))

    try:
        small = [at(times) for times in (1, 2, 3)]
        if len(small[1].outputs) != len(small[0].outputs) or len(small[1].deltas) > len(small[0].deltas) + 4:
            return  # makes a tensor an entry
        huge = at(HUGE)
    except UnknownNameError:
        raise
    except GraphError:
        return  # the example's attributes fix its sizes
    assert all(type(delta) is int for delta in huge.deltas)
    if {len(r.deltas) for r in small} == {len(huge.deltas)}:
        for a, b, c, found in zip(*(r.deltas for r in small), huge.deltas, strict=True):
            assert c - b != b - a or found == a + (HUGE - 1) * (b - a)


# against torch -------------------------------------------------------------------------------------------------------------


@every_row
def test_torch_has_the_callable(row: Row) -> None:
    pytest.importorskip("torch")
    from validation.rows import torch_callable, torch_named

    assert callable(torch_callable(row))
    assert callable(torch_named(row.torch)) if row.torch else row.oracle, "what torch has no name for is run by another"


def torch_result(row: Row, example: Example) -> tuple[list[Any], list[Any]]:
    """The example's tensors and the outputs of the call, in torch."""
    from validation.rows import _fresh, call_torch, example_tensors, flat

    attributes = dict(example.attributes)
    tensors = _fresh(example_tensors(example), attributes, row)
    result = call_torch(row, tensors, attributes)
    return flat(tensors), list(result) if isinstance(result, tuple | list) else [result]


def comes_later(row: Row, example: Example, cpu: Cpu) -> bool:
    """True for what the torch at hand does not have yet: refused here, it is refused there."""
    try:
        read(row, example, specs_of(example), cpu)
    except UnsupportedError:
        with pytest.raises((ValueError, RuntimeError)):
            torch_result(row, example)
        return True
    return False


def significant(shape: Shape, strides: Shape) -> list[int]:
    """Strides of the dims that have more than one entry: the others lead nowhere."""
    return [] if 0 in shape else [step for n, step in zip(shape, strides, strict=True) if n != 1]


@every_call
def test_outputs_are_those_of_torch(row: Row, example: Example, cpu: Cpu) -> None:
    torch = pytest.importorskip("torch")
    if comes_later(row, example, cpu):
        return
    outputs = [v for v in read(row, example, specs_of(example), cpu).outputs if v is not None]
    expected = [t for t in torch_result(row, example)[1] if isinstance(t, torch.Tensor)]
    found = [(tuple(v.spec.shape), v.spec.dtype, significant(*v.spec[:2])) for v in outputs[: len(expected)]]
    assert found == [(tuple(t.shape), str(t.dtype).removeprefix("torch."), significant(t.shape, t.stride())) for t in expected]
    assert [v.requires_grad for v in outputs[: len(expected)]] == [t.requires_grad for t in expected]


@every_call
def test_saved_tensors_are_those_of_torch(row: Row, example: Example, cpu: Cpu) -> None:
    """Which storages autograd keeps: of which inputs, of which outputs, and of what sizes beside them."""
    pytest.importorskip("torch")
    if comes_later(row, example, cpu):
        return
    tensors, numbers = read(row, example, specs_of(example), cpu).saved()
    theirs = saved_by_torch(row, example)
    assert tensors - theirs == Counter(), "kept here alone"
    assert theirs - tensors - numbers == Counter(), "kept by torch alone"


def named(ident: int, size: int, inputs: list[int], outputs: list[int]) -> str:
    """A storage by what it belongs to."""
    if ident in inputs:
        return f"input {inputs.index(ident)}"
    return f"output {outputs.index(ident)}" if ident in outputs else f"{size} bytes"


class _Kept:
    """What a node keeps in place of a saved tensor: it dies with the node, and keeps the storage until then."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor.detach()


def saved_by_torch(row: Row, example: Example) -> Counter[str]:
    """The storages that live nodes keep once the call has returned, each once."""
    import weakref

    import torch

    from validation.rows import _fresh, call_torch, example_tensors, flat

    attributes = dict(example.attributes)
    tensors = _fresh(example_tensors(example), attributes, row)
    references: list[weakref.ref[_Kept]] = []

    def pack(t: torch.Tensor) -> _Kept:
        kept = _Kept(t)
        references.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        result = call_torch(row, tensors, attributes)
    outputs = [t for t in (result if isinstance(result, tuple | list) else [result]) if isinstance(t, torch.Tensor)]
    alive = {
        kept.tensor.untyped_storage().data_ptr(): kept.tensor.untyped_storage().nbytes() for r in references if (kept := r()) is not None
    }
    own, made = [[t.untyped_storage().data_ptr() for t in group] for group in (flat(tensors), outputs)]
    return Counter(named(pointer, size, own, made) for pointer, size in alive.items() if size)


@every_call
def test_streams_are_those_of_torch(row: Row, example: Example, cpu: Cpu) -> None:
    """Forward and backward, every allocation and release in order, kernel temporaries included."""
    pytest.importorskip("torch")
    from validation.rows import measure, normalized, predict

    if comes_later(row, example, cpu):
        return
    try:
        predicted = predict(row, example, cpu)
    except UnsupportedError:  # a gradient that comes later
        with pytest.raises(RuntimeError):
            measure(row, example)
        return
    measured = measure(row, example)
    assert normalized(predicted) == normalized([e.delta for e in measured]), "\n".join(f"{e.delta:>12} {e.where}" for e in measured)


def test_expressions_are_told_from_numbers() -> None:
    """The laws above look for ``Dim``: a wrong formula must not pass for a number."""
    doubled = symbolic(3) * 2
    assert isinstance(doubled, Dim) and isinstance(doubled.expr, Expr)
    assert evaluated(doubled, {"s3": 3}) == 6
    assert evaluated(doubled, {"s3": 10}) == 20
