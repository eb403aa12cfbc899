"""Reductions as accumulators: what a loop carries, and how partial results join."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ingot.lowering import loop as ir
from ingot.lowering.groups import Unfusable
from ingot.lowering.loop import Expr
from ingot.lowering.points import Point, fixed
from ingot.lowering.rules.registry import indexes, nests
from ingot.tracer import dims
from ingot.tracer.dtypes import float32
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives import reduce as rd
from ingot.tracer.record import record

if TYPE_CHECKING:
    from ingot.lowering.pull import Index, Pulling, Site
    from ingot.tracer.aval import Aval

Exprs = Sequence[Expr]
Let = Callable[[Expr], Expr]
"""Names an expression, so that it is computed once."""


@record
class Accumulator:
    """How a reduction of elements of `dtype` (float16 and bfloat16: of float32) runs.

    `initial` are the carried values before the first element, the last of them become the results;
    `step(carried, xs, position)` takes in an element; `join(a, b)` merges two partial results;
    `lanes(carried)` makes scalar results out of those in all lanes. `blocked`: long runs are cut into
    blocks that are summed separately, which bounds the rounding error. `neutral` replaces elements that do
    not exist. Elements and results are single numbers, except for products of complex numbers.
    """

    dtype: str
    initial: tuple[ir.Const, ...]
    neutral: tuple[ir.Const, ...]
    step: Callable[[Exprs, Exprs, Expr | None], list[Expr]]
    join: Callable[[Exprs, Exprs], list[Expr]]
    lanes: Callable[[Exprs, Let], list[Expr]]
    blocked: bool = False
    positions: bool = False


def lowest(dtype: str) -> ir.Const:
    return ir.const(*_limit(dtype, False))


def highest(dtype: str) -> ir.Const:
    return ir.const(*_limit(dtype, True))


def _limit(dtype: str, upper: bool) -> tuple[bool | int | float, str]:
    if dtype == "bool":
        return upper, dtype
    if dtype in ir.FLOATS:
        return (math.inf if upper else -math.inf), dtype
    bits = 8 * ir.BYTES[dtype]
    if dtype in ir.SIGNED:
        return ((1 << bits - 1) - 1 if upper else -(1 << bits - 1)), dtype
    return ((1 << bits) - 1 if upper else 0), dtype


def _folding(op: str, dtype: str, start: ir.Const, blocked: bool = False) -> Accumulator:
    def join(a: Exprs, b: Exprs) -> list[Expr]:
        return [ir.Binary(op, a[0], b[0])]

    return Accumulator(
        dtype,
        (start,),
        (start,),
        lambda carried, xs, position: join(carried, xs),
        join,
        lambda carried, let: [ir.ReduceLanes(op, carried[0])],
        blocked,
    )


def _complex_product() -> Accumulator:
    """Carries real and imaginary part; lanes join by halves."""
    one, zero = ir.const(1.0, "f32"), ir.const(0.0, "f32")

    def join(a: Exprs, b: Exprs) -> list[Expr]:
        return [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]

    def lanes(carried: Exprs, let: Let) -> list[Expr]:
        parts = [let(x) for x in carried]
        n = parts[0].type.lanes
        while n > 1:
            n //= 2
            upper = [_lanes_of(x, n, n) for x in parts]
            parts = [let(x) for x in join([_lanes_of(x, 0, n) for x in parts], upper)]
        return parts

    return Accumulator(
        "f32", (one, zero), (one, zero), lambda carried, xs, position: join(carried, xs), join, lanes
    )


def _lanes_of(x: Expr, first: int, count: int) -> Expr:
    if count == 1:
        return ir.Extract(x, ir.index(first))
    return ir.Shuffle(x, x, tuple(range(first, first + count)))


def _arg(op: str, dtype: str) -> Accumulator:
    """Carries the best value and its position; the first one wins, and NaN beats everything."""
    start = lowest(dtype) if op == "max" else highest(dtype)
    before = "gt" if op == "max" else "lt"

    def is_nan(x: Expr) -> Expr | None:
        return x.ne(x) if x.type.is_float else None

    def better(x: Expr, best: Expr) -> Expr:
        wins, nan = ir.Compare(before, x, best), is_nan(x)
        return wins if nan is None else wins | (nan & best.eq(best))

    def same(x: Expr, y: Expr) -> Expr:
        nan = is_nan(x)
        return x.eq(y) if nan is None else x.eq(y) | (nan & y.ne(y))

    def step(carried: Exprs, xs: Exprs, position: Expr | None) -> list[Expr]:
        (x,), (best, at) = xs, carried
        assert position is not None
        wins = better(x, best)
        return [ir.select(wins, x, best), ir.select(wins, position, at)]

    def join(a: Exprs, b: Exprs) -> list[Expr]:
        wins = better(b[0], a[0]) | (same(b[0], a[0]) & (b[1] < a[1]))
        return [ir.select(wins, b[0], a[0]), ir.select(wins, b[1], a[1])]

    def lanes(carried: Exprs, let: Let) -> list[Expr]:
        best, at = carried
        if best.type.lanes == 1:
            return [at]
        winner = ir.broadcast(ir.ReduceLanes(op, best), best.type.lanes)
        return [ir.ReduceLanes("min", ir.select(same(best, winner), at, highest("u32")))]

    return Accumulator(dtype, (start, ir.const(0, "u32")), (start,), step, join, lanes, positions=True)


def accumulators(primitive: Primitive, dtype: str) -> list[tuple[Any, ...]]:
    """The accumulators of a reduction primitive over elements of `dtype` (a short name), each with the parts
    of an element that it takes: of complex numbers the parts are summed separately and multiplied together.
    """
    if dtype != "c64":
        return [(accumulator(primitive, dtype), 0)]
    if isinstance(primitive, rd.ReduceProd):
        return [(_complex_product(), 0, 1)]
    return [(accumulator(primitive, "f32"), 0), (accumulator(primitive, "f32"), 1)]


def accumulator(primitive: Primitive, dtype: str) -> Accumulator:
    """The accumulator of a reduction primitive over real elements of `dtype` (a short name)."""
    dtype = "f32" if dtype in ir.NARROW_FLOATS else dtype
    match primitive:
        case rd.ReduceSum():
            return _folding("add", dtype, ir.const(0, dtype), dtype in ir.FLOATS)
        case rd.ReduceProd():
            return _folding("mul", dtype, ir.const(1, dtype))
        case rd.ReduceMax():
            return _folding("max", dtype, lowest(dtype))
        case rd.ReduceMin():
            return _folding("min", dtype, highest(dtype))
        case rd.ReduceAll():
            return _folding("and", dtype, ir.const(True, dtype))
        case rd.ReduceAny():
            return _folding("or", dtype, ir.const(False, dtype))
        case rd.Argmax():
            return _arg("max", "u8" if dtype == "bool" else dtype)
        case rd.Argmin():
            return _arg("min", "u8" if dtype == "bool" else dtype)
    raise TypeError(f"not a reduction: {primitive!r}")


def reduced_axes(primitive: Primitive) -> tuple[int, ...]:
    """The axes of the operand that a reduction removes."""
    return (primitive.axis,) if isinstance(primitive, rd.ArgReduce) else primitive.axes  # type: ignore[attr-defined]


for _cls in (
    rd.ReduceSum, rd.ReduceProd, rd.ReduceMax, rd.ReduceMin, rd.ReduceAll, rd.ReduceAny, rd.Argmax, rd.Argmin,
):  # fmt: skip
    nests(_cls, "reduce")


# -- reductions of a few elements, computed where they are read -----------------------------------------

UNROLLED = 8
"""The most elements that are combined without a loop."""

_COMBINING: dict[type[Primitive], type[ew.Elementwise]] = {
    rd.ReduceSum: ew.Add, rd.ReduceProd: ew.Mul, rd.ReduceMax: ew.Maximum, rd.ReduceMin: ew.Minimum,
    rd.ReduceAll: ew.LogicalAnd, rd.ReduceAny: ew.LogicalOr,
}  # fmt: skip


def unrolls(primitive: Primitive, aval: Aval) -> bool:
    """Whether a reduction of an operand of `aval` can be written as an expression."""
    if type(primitive) not in _COMBINING or aval.dtype.is_complex:
        return False
    if aval.dtype.kind == "b" and not isinstance(primitive, rd.ReduceAll | rd.ReduceAny):
        return False
    size = dims.product([aval.shape[axis] for axis in reduced_axes(primitive)])
    return isinstance(size, int) and 0 < size <= UNROLLED


def _unrolled(p: Any, s: Site, index: Index) -> Pulling:
    (aval,) = s.avals
    if not unrolls(p, aval):
        raise Unfusable
    left = iter(index)
    kept = [None if a in p.axes and not p.keepdims else next(left) for a in range(aval.ndim)]
    dtype = aval.dtype.short
    narrow = dtype in ir.NARROW_FLOATS
    total: Point | None = None
    for position in itertools.product(*(range(aval.shape[a]) for a in p.axes)):  # type: ignore[arg-type]
        at = dict(zip(p.axes, position, strict=True))
        x = yield s.ask([fixed(at[a]) if a in at else place for a, place in enumerate(kept)])  # type: ignore[misc]
        if narrow:  # accumulated in float32, rounded once
            x = s.points.apply(ew.ConvertElementType(float32), (x,), "f32")
        total = x if total is None else s.points.apply(_COMBINING[type(p)](), (total, x), x.dtype)
    assert total is not None
    return s.points.apply(ew.ConvertElementType(aval.dtype), (total,), dtype) if narrow else total


for _combined in _COMBINING:
    indexes(_combined)(_unrolled)
