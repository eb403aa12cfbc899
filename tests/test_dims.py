"""Symbolic extents: normal form, bounds, decisions, scopes, text and binding, against Python integers."""

from __future__ import annotations

import copy
import gc
import math
import operator
import pickle
import threading

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ingot.tracer import dims, dims_binding, dims_text
from ingot.tracer.dims import Dim, DimScope, Guard
from ingot.tracer.dims_text import DimSyntaxError

B, C, N = Dim("B"), Dim("C", min=1), Dim("N", min=1, max=64)
E8 = Dim("E", min=1, max=512, multiple_of=8)
SYMBOLS = {s.name: s for s in (B, C, N, E8)}
BINARY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod}
EXTREMA = {"min": (dims.minimum, min), "max": (dims.maximum, max)}
RELATIONS = ["eq", "ne", "lt", "le", "gt", "ge"]

environments = st.fixed_dictionaries({
    "B": st.integers(0, 50),
    "C": st.integers(1, 50),
    "N": st.integers(1, 64),
    "E": st.integers(1, 64).map(lambda n: 8 * n),
})  # fmt: skip
leaves = st.one_of(st.integers(-9, 9), st.sampled_from(list(SYMBOLS)))
trees = st.recursive(
    leaves, lambda t: st.tuples(st.sampled_from([*BINARY, *EXTREMA, "//", "%"]), t, t), max_leaves=9
)


def build(tree):
    """The extent of a random tree; discards those that divide by zero or are too large."""
    if isinstance(tree, int):
        return tree
    if isinstance(tree, str):
        return SYMBOLS[tree]
    op, left, right = tree[0], build(tree[1]), build(tree[2])
    try:
        return EXTREMA[op][0](left, right) if op in EXTREMA else BINARY[op](left, right)
    except ZeroDivisionError:
        assume(False)


def compute(tree, env):
    """What Python's integers say of the same tree."""
    if isinstance(tree, int):
        return tree
    if isinstance(tree, str):
        return env[tree]
    op, left, right = tree[0], compute(tree[1], env), compute(tree[2], env)
    return EXTREMA[op][1](left, right) if op in EXTREMA else BINARY[op](left, right)


def compute_or_discard(tree, env):
    try:
        return compute(tree, env)
    except ZeroDivisionError:
        assume(False)


@settings(max_examples=500, deadline=None)
@given(trees, environments)
def test_normal_form_means_what_the_expression_meant(tree, env):
    expected = compute_or_discard(tree, env)
    extent = build(tree)
    assert dims.evaluate(extent, env) == expected
    lo, hi = dims.bounds(extent)
    assert (lo is None or lo <= expected) and (hi is None or expected <= hi)


@settings(max_examples=300, deadline=None)
@given(trees)
def test_text_parses_back_to_the_identical_object(tree):
    extent = build(tree)
    assert dims.same(dims_text.parse(str(extent), SYMBOLS), extent)
    if isinstance(extent, Dim):
        assert pickle.loads(pickle.dumps(extent)) is extent
        assert copy.deepcopy([extent])[0] is extent


@settings(max_examples=400, deadline=None)
@given(trees, trees, environments, st.sampled_from(RELATIONS))
def test_decisions_are_sound(left, right, env, relation):
    p, q = compute_or_discard(left, env), compute_or_discard(right, env)
    decided = dims.decide(relation, build(left), build(right))
    assert decided is None or decided == getattr(operator, relation)(p, q)


@settings(max_examples=200, deadline=None)
@given(trees, environments, st.sets(st.sampled_from(list(SYMBOLS))))
def test_substitution_then_evaluation_agrees(tree, env, replaced):
    expected = compute_or_discard(tree, env)
    try:
        partly = dims.substitute(build(tree), {name: env[name] for name in replaced})
    except ZeroDivisionError:
        assume(False)
    assert dims.evaluate(partly, env) == expected
    assert not {s.name for s in dims.symbols(partly)} & replaced


@settings(max_examples=200, deadline=None)
@given(trees, trees, environments)
def test_exact_division_multiplies_back(left, right, env):
    a, b = build(left), build(right)
    for numerator in (a, dims.product([a, b])):
        quotient = dims.divide_exactly(numerator, b)
        if quotient is None:
            continue
        try:
            values = [dims.evaluate(x, env) for x in (quotient, b, numerator)]
        except ZeroDivisionError:
            assume(False)
        if values[1]:
            assert values[0] * values[1] == values[2]


@pytest.mark.parametrize("make, text", [
    (lambda: (B * 4 + 2) // 4, "B"),
    (lambda: (B * 4 + 2) % 4, "2"),
    (lambda: (B + 3) // 4 + (B + 3) // 4, "2*((B + 3)//4)"),
    (lambda: -(-B // 4), "(B + 3)//4"),
    (lambda: dims.ceil_div(B, 4), "(B + 3)//4"),
    (lambda: B // 2 // 3, "B//6"),
    (lambda: B % 12 % 4, "B%4"),
    (lambda: B // 4 * 4 + B % 4, "B"),
    (lambda: E8 % 8, "0"),
    (lambda: E8 // 8 * 8, "E"),
    (lambda: E8 // 8 * 4, "4*(E//8)"),
    (lambda: 2 * (E8 // 2), "E"),
    (lambda: (E8 * B) // 8, "B*(E//8)"),
    (lambda: (B * C) // C, "B"),
    (lambda: (B * C + N) % C, "N%C"),
    (lambda: (B + 1) * (B - 1), "B*B - 1"),
    (lambda: 1 - B, "-B + 1"),
    (lambda: C * B * 2 - 3 + B, "2*B*C + B - 3"),
    (lambda: dims.minimum(N, 64), "N"),
    (lambda: dims.minimum(N, 32, B, N), "min(B, N, 32)"),
    (lambda: dims.maximum(dims.maximum(B, C), 0), "max(B, C)"),
    (lambda: N % 65, "N"),
    (lambda: N // 65, "0"),
    (lambda: B - B, "0"),
    (lambda: B**3, "B*B*B"),
    (lambda: 7 // C, "7//C"),
])  # fmt: skip
def test_normal_forms(make, text):
    assert str(make()) == text
    assert dims.same(dims_text.parse(text, SYMBOLS), make())


def test_constants_collapse_to_int():
    for value in (B - B + 3, B * 0, (B * 6) // (B * 2), (2 * B + 1) % 2):
        assert type(value) is int


def test_symbols_are_interned_by_name_and_range():
    assert Dim("B") is B and Dim("B", max=4) is not B
    assert Dim("E", 1, 512, 8) is E8
    assert (B + 1) * 2 is 2 * B + 2
    assert hash(B - 1) != hash(B - 2)
    # hashes of integers wrap at 2**61 - 1: extents that differ by that must stay apart in containers
    wrap = 2**61 - 1
    for make in (
        lambda n: Dim("W", 1, n + 2), lambda n: B + n + 2, lambda n: (n + 2) * B, lambda n: B // (n + 2),
    ):  # fmt: skip
        small, large = make(0), make(wrap)
        assert small is not large and {small: 1, large: 2} == {large: 2, small: 1}
        assert dims.same(2 * small + large - small, small + large)
    assert Dim("W", 1, 2) != Dim("W", 1, wrap + 2)
    assert isinstance(B + 1, Dim) and (E8.min, E8.max, E8.multiple_of) == (1, 512, 8)
    for number in (np.int64(1), np.uint8(1), True):
        assert B + number is B + 1 and number + B is B + 1


def test_unused_expressions_are_freed():
    made = [Dim(f"tmp{i}", multiple_of=3) // 2 + 5 for i in range(5000)]
    before = len(dims._interned)
    del made
    for cache in (dims._add, dims._multiply, dims._floordiv, dims._mod):
        cache.cache_clear()
    gc.collect()
    assert len(dims._interned) < before - 15000


def test_threads_agree_on_one_object():
    found = [[] for _ in range(4)]
    barrier = threading.Barrier(4)

    def work(out):
        barrier.wait()
        out.extend(Dim(f"t{i}") // 3 + 1 for i in range(300))

    threads = [threading.Thread(target=work, args=(out,)) for out in found]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(x is y for other in found[1:] for x, y in zip(found[0], other, strict=True))


@pytest.mark.parametrize("arguments", [
    dict(name="1x"), dict(name=""), dict(name="min"), dict(name="é"), dict(name=3), dict(name="B", min=-1),
    dict(name="B", min=5, max=4), dict(name="B", multiple_of=0), dict(name="B", min=9, max=15, multiple_of=8),
    dict(name="B", min=1.5), dict(name="B", max="4"), dict(name="B", min=True),
])  # fmt: skip
def test_bad_symbols_are_refused(arguments):
    with pytest.raises(ValueError, match=r"\[Dim\]"):
        Dim(**arguments)


NUMBERS = {
    "B / 2": lambda: B / 2, "12 / B": lambda: 12 / B, "B / B": lambda: B / B, "1.5 / B": lambda: 1.5 / B,
    "B + 1.5": lambda: B + 1.5, "1.5 + B": lambda: 1.5 + B, "B - 0.5": lambda: B - 0.5,
    "0.5 - B": lambda: 0.5 - B, "B * 0.1": lambda: B * 0.1, "B ** -0.5": lambda: B**-0.5,
    "B ** -1": lambda: B**-1, "sqrt": lambda: math.sqrt(B),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_arithmetic_that_leaves_the_integers_fixes_the_extent(name):
    """`x.shape[-1] ** -0.5` is a number of this trace: the trace then holds for that size only."""
    with pytest.raises(ValueError, match="no number here"):
        NUMBERS[name]()
    with DimScope({"B": 6}) as scope:
        got = NUMBERS[name]()
    assert got == eval("math.sqrt(6)" if name == "sqrt" else name.replace("B", "6"))
    assert [str(g) for g in scope.events] == ["B == 6"] and scope.events[0].fixed


def test_what_is_no_extent_is_refused():
    for combine in (lambda: B + "x", lambda: B / "x", lambda: B ** "x", lambda: dims.product(["x"])):
        with pytest.raises(TypeError):
            combine()
    with pytest.raises(ZeroDivisionError):
        B // 0


@pytest.mark.parametrize("numerator, divisor, quotient", [
    (B * 12, 4, 3 * B), (B * 12, B * 3, 4), (B * C * 6, 2 * C, 3 * B), (B * B - 1, B + 1, B - 1),
    (B * 12, 5, None), (B, C, None), (B + 1, 2, None), (0, B, 0), (12, 5, None), (B, 0, None),
    (E8, 8, E8 // 8),
])  # fmt: skip
def test_divide_exactly(numerator, divisor, quotient):
    found = dims.divide_exactly(numerator, divisor)
    assert found is quotient or found == quotient


@pytest.mark.parametrize("relation, a, b, answer", [
    ("le", B // 2 * 2, B, True), ("le", B // 2, B, True), ("le", B % 5, B, True), ("eq", 2 * B, 7, False),
    ("ge", B * C, B, True), ("le", dims.minimum(B, C), B, True), ("ge", dims.maximum(B, C) + 1, C, True),
    ("lt", N, 65, True), ("lt", N, 64, None), ("eq", B, C, None), ("eq", E8, 12, False), ("ne", C, 0, True),
    ("lt", N - 1, N, True), ("ge", (B + 3) // 4 * 4, B, True), ("gt", B * B + 1, 0, True),
])  # fmt: skip
def test_decisions(relation, a, b, answer):
    assert dims.decide(relation, a, b) is answer


@pytest.mark.parametrize(("a", "b", "reduced"), [
    (2 * B, B + C, (B, C)),
    (2 * B + 4, 2 * C, (B + 2, C)),
    (B - C, 3, (B, C + 3)),
    (B * C + B, B + 6, (B * C, 6)),
    (-B, -5, (5, B)),
    (E8, 16, (E8, 16)),
    (3 * E8, 48 * B, (E8, 16 * B)),
    (B, B, (0, 0)),
    (7, 4, (1, 0)),
])  # fmt: skip
def test_equalities_reduce(a, b, reduced):
    assert all(map(dims.same, dims.reduce_equality(a, b), reduced))


@settings(max_examples=200, deadline=None)
@given(trees, trees, environments)
def test_reduced_equalities_are_equivalent(left, right, env):
    p, q = compute_or_discard(left, env), compute_or_discard(right, env)
    a, b = dims.reduce_equality(build(left), build(right))
    assert (p == q) == (dims.evaluate(a, env) == dims.evaluate(b, env))


def test_outside_a_scope_equality_is_structural_and_order_is_an_error():
    assert (B == C) is False and (B != C) is True and (B == B) and not (B != B)
    assert {B + 1: "x"}[1 + B] == "x" and B.__eq__("B") is NotImplemented and B != "B"
    assert C > 0 and N < 100
    for ask in (
        lambda: B < C,
        lambda: bool(B),
        lambda: int(B),
        lambda: range(B),
        lambda: [0][B],
        lambda: float(B),
    ):
        with pytest.raises(ValueError, match=r"dim 'B' in \[0, inf\]"):
            ask()
    assert bool(C) and int(Dim("four", 4, 4)) == 4


def test_scope_answers_for_the_sample_and_records_what_held():
    locations = iter(range(100))
    with DimScope({"B": 4, "C": 7}, locate=lambda: next(locations)) as scope:
        assert B + 1 < C and not B == C and not B > C and B != 5 and B * 2 >= 8
        assert (B < C) and B + 1 < C  # seen before: one event each
        assert len(range(B)) == 4
        assert C > 0 and B <= B * C  # decided: no event
        assert {B: 1, C: 2, B + C: 3}[B + C] == 3  # dictionary look-ups ask nothing
        with pytest.raises(ValueError, match="dim 'N'"):
            int(N)
    assert [str(event) for event in scope.events] == [
        "B + 1 < C", "B != C", "B <= C", "B != 5", "2*B >= 8", "B < C", "B == 4"
    ]  # fmt: skip
    assert [event.fixed for event in scope.events] == [False] * 6 + [True]
    assert [event.location for event in scope.events] == list(range(7))
    assert all(event.holds({"B": 4, "C": 7}) for event in scope.events)
    assert not all(event.holds({"B": 9, "C": 7}) for event in scope.events)
    assert dims.current_scope() is None


def test_scopes_nest_and_the_one_that_knows_the_symbols_answers():
    with DimScope({"B": 3}, policy="specialise") as outer, DimScope({"C": 2}) as inner:
        assert B == 3 and C == 2
    assert [str(e) for e in outer.events] == ["B == 3"] and [str(e) for e in inner.events] == ["C == 2"]
    with pytest.raises(ValueError, match="policy"):
        DimScope({}, policy="maybe")


def test_guard_equality_ignores_location_and_asks_no_scope():
    with DimScope({"B": 4, "C": 4}) as scope:
        assert Guard("eq", B, C, location=1) == Guard("eq", B, C, location=2)
        assert Guard("eq", B, 4) != Guard("eq", C, 4)
        assert len({Guard("le", B, 4, 1), Guard("le", B, 4, 2)}) == 1
    assert not scope.events
    assert Guard("le", B, N).substitute({"B": 3, "N": C}) == Guard("le", 3, C)
    assert Guard("ge", C, 1).decided() is True
    with pytest.raises(ValueError, match="unknown relation"):
        Guard("~", B, C)


@pytest.mark.parametrize("relation", RELATIONS)
def test_guard_text_round_trips(relation):
    guard = Guard(relation, 2 * B + 1, dims.minimum(C, 9))
    assert dims_text.parse_guard(str(guard), SYMBOLS) == guard


@pytest.mark.parametrize("text, message, column", [
    ("", "expected an extent", 0), ("B +", "the end", 3), ("Q", "unknown dim 'Q'", 0), ("B ; C", "';'", 2),
    ("(B", "expected ')'", 2), ("B C", "unexpected 'C'", 2), ("min(B", "expected ')'", 5),
    ("B//0", "// 0", 4),
    ("9" * 5000, "5000 digits", 0), ("(" * 5000 + "B", "nested", 64), ("min(" * 500, "nested", 256),
    ("*".join(["(B + C + 1)"] * 4000), "too large", None), ("+".join(["B"] * 60000), "characters", None),
    ("-" * 3000, "expected an extent", 3000), ("B*B*" * 1500 + "B", "too large", None), ("B^2", "'^'", 1),
    ("min(" + ",".join(f"{i}*B + {999 - i}*C" for i in range(1000)) + ")", "more than 32", None),
    ("__import__('os')", "unknown dim", 0), ("B == C", "'=='", 2),
])  # fmt: skip
def test_hostile_text_is_refused_with_a_column(text, message, column):
    with pytest.raises(DimSyntaxError) as caught:
        dims_text.parse(text, SYMBOLS)
    assert message in str(caught.value)
    assert column is None or caught.value.column == column


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="BCNEmin()+-*/%,0123 9ax<=", max_size=40))
def test_any_text_parses_or_raises_the_one_error(text):
    for read in (dims_text.parse, dims_text.parse_guard):
        try:
            read(text, SYMBOLS)
        except DimSyntaxError as error:
            assert 0 <= error.column <= len(text)


def test_long_sums_are_read_in_linear_time():
    many = {f"s{i}": Dim(f"s{i}") for i in range(600)}
    text = " + ".join(f"{i % 7}*s{i % 600}" for i in range(1, 5000))
    total = dims_text.parse(text, many)  # more than the permitted work when done sum by sum
    assert dims.evaluate(total, dict.fromkeys(many, 1)) == sum(i % 7 for i in range(1, 5000))
    text = " + ".join(f"{k}*(B//{k}) + B%{k}" for k in range(2, 240))
    assert dims.same(dims_text.parse(text, SYMBOLS), 238 * B)
    assert dims_text.parse(" + ".join(["B - B"] * 8000), SYMBOLS) == 0
    for text in ("B" + "//2" * 9000, "9" + "*9" * 9000, "+".join(f"B//{k}" for k in range(2, 4000))):
        with pytest.raises(DimSyntaxError):
            dims_text.parse(text, SYMBOLS)


def test_oversized_expressions_are_refused():
    x = B
    with pytest.raises(ValueError, match="too large|deep|bits"):
        for i in range(3000):
            x = x * (C + i) + N
    with pytest.raises(ValueError, match="deep"):
        y = B
        for i in range(100):
            y = dims.minimum(y + C, 10 * B + i) % 1000 + dims.maximum(B, C)
    with pytest.raises(ValueError, match="bits"):
        B * 2**600


def test_bounds():
    assert dims.bounds(B) == (0, None) and dims.bounds(E8) == (8, 512) and dims.bounds(B - C) == (None, None)
    assert dims.bounds(N * 2 - 1) == (1, 127) and dims.bounds(-N) == (-64, -1) and dims.bounds(5) == (5, 5)
    assert dims.bounds(B % 7) == (0, 6) and dims.bounds(N // C) == (0, 64)
    huge = Dim("huge", max=10**18)
    assert dims.bounds(huge**20) == (0, 10**360) and dims.bounds(huge**20 * B) == (0, None)


def test_substitute_checks_the_range():
    assert dims.substitute(2 * B + C, {"B": 3, "C": N}) is N + 6
    assert dims.substitute(E8, {"E": B}) is B and dims.substitute(3, {}) == 3
    for value in (0, 520, 12, Dim("Z", min=600), 2 * Dim("Z") + 1):
        with pytest.raises(ValueError, match="'E'"):
            dims.substitute(E8, {"E": value})


def test_bind_shapes_solves_symbols():
    assert dims_binding.bind_shapes([(B, 784), (784, N)], [(5, 784), (784, 10)]) == {"B": 5, "N": 10}
    assert dims_binding.bind_shapes([(B + C,), (2 * C + 1, B * C)], [(7,), (5, 10)]) == {"C": 2, "B": 5}
    assert dims_binding.bind_shapes([(E8 // 8,), (10 - B,)], [(4,), (7,)]) == {"E": 32, "B": 3}
    assert dims_binding.bind_shapes([(B // 2,), (B,)], [(3,), (7,)]) == {"B": 7}
    assert dims_binding.bind_shapes([()], [()]) == {}
    env = {}
    assert dims_binding.bind((B, B * C), (3, 6), env) == [] and env == {"B": 3, "C": 2}
    assert dims_binding.bind((N + E8,), (9,), {}) == [(0, N + E8, 9)]


@pytest.mark.parametrize("patterns, shapes, message", [
    ([(B, 4)], [(3,)], r"x must have 2 axes \(B, 4\), got shape \(3,\)"),
    ([(B, 4)], [(3, 5)], "axis 1 of x must be 4, got 5"),
    ([(B, B)], [(3, 5)], "axis 1 of x must be B = 3, got 5"),
    ([(N,)], [(65,)], r"dim 'N' in \[1, 64\] cannot be 65 \(axis 0 of x"),
    ([(E8,)], [(12,)], r"multiple of 8 cannot be 12"),
    ([(2 * B + 1,)], [(4,)], "no dim 'B'"),
    ([(2 * B + 1,)], [(-1,)], "cannot be -1"),
    ([(B // 2,)], [(4,)], "does not determine B"),
    ([(B,)], [], "expected 1 shapes, got 0"),
    ([(C + 2,)], [(2,)], "'C'.* cannot be 0"),
])  # fmt: skip
def test_bind_errors_name_the_culprit(patterns, shapes, message):
    with pytest.raises(ValueError, match=message):
        dims_binding.bind_shapes(patterns, shapes, ["x"])


def test_match_shapes_solves_symbolic_sizes():
    patterns = [(B, 784), (784, N)]
    assert dims_binding.match_shapes(patterns, [(2 * C, 784), (784, 10)]) == {"B": 2 * C, "N": 10}
    assert dims_binding.match_shapes([(2 * B + C, C)], [(2 * C + 4 * B, 4 * B)]) == {"C": 4 * B, "B": C}
    assert dims_binding.match_shapes([(E8 + 1,)], [(16 * C + 1,)]) == {"E": 16 * C}
    assert dims_binding.match_shapes([(B * C, B)], [(6, 3)]) == {"B": 3, "C": 2}
    with DimScope({"B": 4, "C": 4}) as scope:
        assert dims_binding.match_shapes([(N, N)], [(B, C)]) == {"N": B}
    assert [str(e) for e in scope.events] == ["B == C"]
    for patterns, shapes, message in [
        ([(B, B)], [(B, C)], "axis 1 of input 0 must be B = B, got C"),
        ([(B, 4)], [(B,)], r"must have 2 axes \(B, 4\), got shape \(B,\)"),
        ([(N,)], [(N + 64,)], "N \\+ 64 cannot replace dim 'N'"),
        ([(B % 3,)], [(C,)], "does not determine B"),
        ([(4,)], [(B + 5,)], "must be 4, got B \\+ 5"),
    ]:
        with pytest.raises(ValueError, match=message):
            dims_binding.match_shapes(patterns, shapes)


def test_terms_show_symbols_whole():
    assert (E8 * B * 2 + 3).terms == ((2, ((B, 1), (E8, 1))), (3, ()))
    assert B.terms == ((1, ((B, 1),)),)
    atom = B // 2
    assert atom.op == "//" and atom.operands == (B, 2) and atom.terms == ((1, ((atom, 1),)),)
    assert dims.apply("//", (B, 2)) is atom
