"""The tables in which lowering rules are registered, by kind of primitive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ingot.lowering import loop as ir
from ingot.lowering.loop import Expr
from ingot.lowering.points import Point
from ingot.tracer.aval import Aval
from ingot.tracer.primitive import Primitive

ScalarRule = Callable[..., Expr]
"""(primitive, *operands) -> result: operands have one number of lanes, float16 and bfloat16 come as
float32."""
R = TypeVar("R", bound=Callable[..., Any])

scalars: dict[type[Primitive], ScalarRule] = {}
composed: dict[tuple[type[Primitive], str], Callable[..., Point]] = {}
"""Elementwise primitives made of others, by kind of dtype (`c`: operands or results are complex):
(primitive, table of points, *points) -> point."""
moving: set[type[Primitive]] = set()
"""Elementwise primitives that only move or convert: their rules get half precision as it is."""
needs: dict[type[Primitive], tuple[str, ...]] = {}
"""Vector math that the rule of a primitive uses."""
limits: dict[type[Primitive], Callable[[Primitive, Sequence[Aval]], bool]] = {}
"""Which uses of a primitive its rule covers, where that is not all."""
costs: dict[type[Primitive], int] = {}
"""Vector instructions per element, about, of primitives that take more than a few."""
indexed: dict[type[Primitive], Callable[..., Any]] = {}
"""Rules that say which elements of the operands an element of the result is made of; see `rules.shape`."""
structured: dict[type[Primitive], str] = {}
"""Primitives with loop nests of their own: the kind of kernel, such as `reduce`, `dot`, `scatter`."""


def lowers(
    cls: type[Primitive],
    *,
    moves: bool = False,
    math: Sequence[str] = (),
    cost: int = 1,
    when: Callable[[Primitive, Sequence[Aval]], bool] | None = None,
) -> Callable[[R], R]:
    """Register an elementwise rule. `math` names the vector math it needs, `cost` is its weight in
    instructions, `when(primitive, operand avals)` says which uses it covers."""

    def register(rule: R) -> R:
        scalars[cls] = rule
        if moves:
            moving.add(cls)
        if math:
            needs[cls] = tuple(math)
        if when is not None:
            limits[cls] = when
        costs[cls] = cost
        return rule

    return register


def composes(cls: type[Primitive], kinds: str) -> Callable[[R], R]:
    """Register an elementwise rule over points for some kinds of dtypes."""

    def register(rule: R) -> R:
        composed.update({(cls, kind): rule for kind in kinds})
        scalars.setdefault(cls, _points_only)
        return rule

    return register


def _points_only(primitive: Primitive, *xs: Expr) -> Expr:
    """The scalar rule of a primitive that takes complex numbers only."""
    raise TypeError(f"{primitive.name} has no rule over single numbers")


def composed_rule(cls: type[Primitive], avals: Sequence[Aval], result: Aval) -> Callable[..., Point] | None:
    """The rule over points for a use of an elementwise primitive, if it has one."""
    is_complex = any(aval.dtype.is_complex for aval in (*avals, result))
    return composed.get((cls, "c" if is_complex else avals[0].dtype.kind))


def indexes(
    cls: type[Primitive], when: Callable[[Primitive, Sequence[Aval]], bool] | None = None, cost: int = 0
) -> Callable[[R], R]:
    """Register a rule that finds the elements of operands, or makes them by `cost` instructions each."""

    def register(rule: R) -> R:
        indexed[cls] = rule
        costs[cls] = cost
        if when is not None:
            limits[cls] = when
        return rule

    return register


def nests(
    cls: type[Primitive], kind: str, when: Callable[[Primitive, Sequence[Aval]], bool] | None = None
) -> None:
    """Register a primitive that has a kernel of its own."""
    structured[cls] = kind
    if when is not None:
        limits[cls] = when


def scalar_rule(cls: type[Primitive]) -> ScalarRule:
    """The elementwise rule of `cls`, wrapped so that half precision is computed in float32 and rounded
    once."""
    rule = scalars[cls]
    return rule if cls in moving else _in_single(rule)


def _in_single(rule: ScalarRule) -> ScalarRule:
    def wrapped(primitive: Primitive, *xs: Expr) -> Expr:
        narrow = next((x.type.dtype for x in xs if x.type.dtype in ir.NARROW_FLOATS), None)
        if narrow is None:
            return rule(primitive, *xs)
        wide = [ir.convert(x, "f32") if x.type.dtype == narrow else x for x in xs]
        result = rule(primitive, *wide)
        return ir.convert(result, narrow) if result.type.dtype == "f32" else result

    return wrapped
