"""Guards reduced to what they say: equivalent to all of them together at every size."""

from __future__ import annotations

from itertools import product

import pytest

from memest.errors import GraphError
from memest.network.tensor import broadcast
from memest.sizes.conditions import Conditions, reduced
from memest.sizes.dims import Dim, Guard, Opaque, expression, parse, parse_guard, symbol

CASES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "never false": (["N != 0", "H*4 >= 0", "N*H*64 > 0"], ()),
    "a bound": (["(H + 31)//32 > 1", "(H + 15)//16 != 1"], ("H >= 33",)),
    "two bounds": (["N <= 4", "N > 1"], ("2 <= N <= 4",)),
    "one value": (["N <= 1"], ("N == 1",)),
    "common factors": (["N*H*64 != N*64", "H > 1"], ("H >= 2",)),
    "divisors, rounded down": (["(H//2)*2 == H", "(H//4)*2 == H//2"], ("H >= 4", "H % 4 == 0")),
    "divisors, rounded up": (["((H + 1)//2)*2 == H", "((H + 3)//4)*2 == (H + 1)//2"], ("H >= 4", "H % 4 == 0")),
    "bounds of multiples": (["(H//8)*8 == H", "H >= 17"], ("H >= 24", "H % 8 == 0")),
    "one that stands": (["N != 7"], ("N != 7",)),
    "two sizes": (["H > W"], ("H > W",)),
    "swapped": (["1 < N", "8 >= N"], ("2 <= N <= 8",)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_says_the_same(name: str) -> None:
    texts, _ = CASES[name]
    guards = [parse_guard(text) for text in texts]
    conditions = reduced(guards, ("N", "H", "W"))
    for n, h, w in product((1, 2, 3, 4, 7, 8, 9), range(1, 70), (1, 5, 64)):
        sizes = {"N": n, "H": h, "W": w}
        assert conditions.hold(sizes) == all(g.holds(sizes) for g in guards), sizes


@pytest.mark.parametrize("name", [n for n in CASES if "divisors" not in n])
def test_it_is_said_in_few_words(name: str) -> None:
    texts, said = CASES[name]
    assert reduced([parse_guard(text) for text in texts], ("N", "H", "W")).texts == said


def test_divisors_are_said_as_remainders() -> None:
    for name in ("divisors, rounded down", "divisors, rounded up"):
        assert "H % 4 == 0" in reduced([parse_guard(t) for t in CASES[name][0]], ("H",)).texts


def test_expressions_are_normal_forms() -> None:
    """Floors of floors are one floor, whole multiples come out, factors commute."""
    assert parse("((H + 1)//2 + 1)//2") == parse("(H + 3)//4")
    assert parse("(H - 1)//2 + 1") == parse("(H + 1)//2")
    assert parse("(4*H + 6)//2") == parse("2*H + 3")
    assert parse("W*H*N*4") == parse("4*N*H*W")
    assert parse("(6*H + 5) % 3") == 2
    assert Guard("==", parse("H//2"), 3).holds({"H": 7})


def test_whole_multiples_leave_remainders_by_a_size() -> None:
    for text, simple in (("H % H", "0"), ("(H - H % H) % H", "0"), ("(H*3 + W) % H", "W % H"), ("(W - H*2 + 5) % H", "(W + 5) % H")):
        e = parse(text)
        assert e == parse(simple), text
        for h, w in product(range(1, 12), range(40, 60)):
            assert (e if isinstance(e, int) else e.evaluate({"H": h, "W": w})) == eval(text, {"H": h, "W": w})


def test_expressions_that_share_parts_are_never_written_out() -> None:
    """Each contains the one before it twice: the text of the last would not fit on any disk."""
    size = Dim(8, symbol("H"))
    other = Dim(3, symbol("W"))
    for _ in range(100):
        size = size % (size * other + 1) + size // 2
    product_of_both = [size * other, other * size]
    assert product_of_both[0].expr is product_of_both[1].expr
    assert size.expr.evaluate({"H": 8, "W": 3}) == int.__int__(size)


def test_a_dim_of_one_is_not_lost_in_broadcasting() -> None:
    n = Dim(1, symbol("N"))
    for shapes in (((n, 4), (1, 4)), ((1, 4), (n, 4)), ((4,), (n, 1))):
        assert expression(broadcast(*shapes)[0]) is symbol("N")


def test_conditions_hold_where_each_comparison_does_also_when_asked_again() -> None:
    """What shares sizes is evaluated together, and remembered by their values."""
    texts = ["H > W", "(H//W)*W != H + 1", "N != 7", "N*H != 12", "W*(H//3) != 5*N", "N*H*W != 60"]
    guards = [*map(parse_guard, texts), Guard("==", Opaque("even", _is_even, (parse("N + W"),)), 1)]
    conditions = Conditions(least={"N": 1, "H": 1, "W": 1}, others=tuple(guards))
    for n, h, w in [*product(range(1, 9), range(1, 9), range(1, 7))] * 2:
        sizes = {"N": n, "H": h, "W": w}
        assert conditions.hold(sizes) == all(g.holds(sizes) for g in guards), sizes


def test_a_comparison_that_cannot_be_made_is_no_failure_where_an_earlier_one_is_false() -> None:
    conditions = Conditions(least={}, others=(parse_guard("N > 1"), parse_guard("8//(N - 1) > 2")))
    assert [conditions.hold({"N": n}) for n in (1, 2, 3, 4, 5, 9)] == [False, True, True, False, False, False]
    with pytest.raises(GraphError, match="division by zero"):
        Conditions(least={}, others=(parse_guard("8//(N - 1) > 2"),)).hold({"N": 1})
    with pytest.raises(GraphError, match="size 'N'"):
        conditions.hold({"H": 1})


def _is_even(n: int) -> int:
    return int(n % 2 == 0)
