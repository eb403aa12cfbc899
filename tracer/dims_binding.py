"""Sizes of dims: shape patterns are matched with the shapes of a call, and their symbols solved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from ingot.tracer.dims import (
    Dim,
    Extent,
    check_value,
    checked_replacement,
    describe,
    divide_exactly,
    evaluate,
    monomials,
    polynomial,
    same,
    split_constant,
    substitute,
    symbols,
)

S = TypeVar("S")
_Pending: TypeAlias = "tuple[int, Extent, S, str]"  # axis, extent, size, name


def bind(
    pattern: Sequence[Extent], sizes: Sequence[int], env: dict[str, int], name: str = "shape"
) -> list[tuple[int, Extent, int]]:
    """Match one shape pattern with actual sizes, adding what that settles to `env`.

    A symbol takes the size; an extent linear in its one unknown symbol is solved; others are returned as
    (axis, extent, size), to be checked once more symbols are known. Raises ValueError, naming `name`, axis,
    dim, range and value, for a wrong rank, a mismatch, or a size outside the dim's range.
    """
    if len(pattern) != len(sizes):
        expected = f"{len(pattern)} axes {_shape(pattern)}"
        raise ValueError(f"[bind] {name} must have {expected}, got shape {_shape(sizes)}")
    pending = []
    for axis, (extent, size) in enumerate(zip(pattern, sizes, strict=True)):
        if type(extent) is int and extent == size:  # the common case, on the path of every call
            continue
        if not _bind_extent(axis, extent, int(size), env, name):
            pending.append((axis, extent, int(size)))
    return pending


def bind_shapes(
    patterns: Sequence[Sequence[Extent]], shapes: Sequence[Sequence[int]], names: Sequence[str] | None = None
) -> dict[str, int]:
    """The size of every symbol that makes the shape patterns equal to the shapes.

    Raises ValueError as `bind` does, and when the shapes do not determine a symbol.
    """
    env: dict[str, int] = {}
    names = _checked_names(patterns, shapes, names)
    pending: list[_Pending[int]] = []
    for pattern, shape, name in zip(patterns, shapes, names, strict=True):
        pending += [(*item, name) for item in bind(pattern, shape, env, name)]
    _settle(pending, lambda axis, extent, size, name: _bind_extent(axis, extent, size, env, name))
    return env


def match_shapes(
    patterns: Sequence[Sequence[Extent]],
    shapes: Sequence[Sequence[Extent]],
    names: Sequence[str] | None = None,
) -> dict[str, Extent]:
    """Like `bind_shapes`, for shapes that may be symbolic themselves, over symbols of their own.

    Equality that the ranges do not decide is asked of the ambient scope, as `==` does.
    """
    env: dict[str, Extent] = {}
    names = _checked_names(patterns, shapes, names)
    pending: list[_Pending[Extent]] = []
    for pattern, shape, name in zip(patterns, shapes, names, strict=True):
        if len(pattern) != len(shape):
            expected = f"{len(pattern)} axes {_shape(pattern)}"
            raise ValueError(f"[bind] {name} must have {expected}, got shape {_shape(shape)}")
        pending += [(*item, name) for item in zip(range(len(shape)), pattern, shape, strict=True)]
    _settle(pending, lambda axis, extent, size, name: _match_extent(axis, extent, size, env, name))
    return env


def _checked_names(
    patterns: Sequence[Any], shapes: Sequence[Any], names: Sequence[str] | None
) -> Sequence[str]:
    if len(patterns) != len(shapes):
        raise ValueError(f"[bind] expected {len(patterns)} shapes, got {len(shapes)}")
    return names or [f"input {i}" for i in range(len(patterns))]


def _settle(pending: list[_Pending[S]], bound: Callable[[int, Extent, S, str], bool]) -> None:
    """Bind again and again while that settles something: each symbol found may determine others."""
    while pending:
        left = [item for item in pending if not bound(*item)]
        if len(left) == len(pending):
            axis, extent, size, name = left[0]
            unknown = ", ".join(s.name for s in symbols(extent))
            given = f"axis {axis} of {name} is {extent} = {size}"
            raise ValueError(f"[bind] {given}, which does not determine {unknown}")
        pending = left


def _match_extent(axis: int, extent: Extent, size: Extent, env: dict[str, Extent], name: str) -> bool:
    """`_bind_extent` for a symbolic size."""
    where = f"axis {axis} of {name}"
    unknown = [s for s in symbols(extent) if s.name not in env]
    if not unknown:
        value = substitute(extent, env)
        if not (same(value, size) or value == size):
            known = f" = {value}" if isinstance(extent, Dim) else ""
            raise ValueError(f"[bind] {where} must be {extent}{known}, got {size}")
        return True
    if len(unknown) > 1:
        return False
    symbol, value = unknown[0], size
    if extent is not symbol:
        # solved over a name of its own, as the sizes may use the same name for another symbol
        own = Dim("_unknown", symbol.min, symbol.max, symbol.multiple_of)
        reduced = substitute(extent, {**env, symbol.name: own})
        unit = monomials(own)[0][0]
        c = dict(monomials(reduced)).get(unit, 0)
        rest = reduced - polynomial({unit: c})
        linear = not any(s is own for s in symbols(rest))
        times = divide_exactly(size - rest, c) if linear else None
        if times is None:
            return False
        value = times * symbol.multiple_of
    try:
        env[symbol.name] = checked_replacement(symbol, value)
    except ValueError as error:
        raise ValueError(f"{error} ({where} is {extent} = {size})") from None
    return True


def _bind_extent(axis: int, extent: Extent, size: int, env: dict[str, int], name: str) -> bool:
    """Check or solve `extent == size`; False when it has too many unknown symbols to do either."""
    if isinstance(extent, Dim) and extent.op == "symbol":
        known = env.get(extent.name)
        if known == size:
            return True
        if known is None:
            check_value(extent, size, f"(axis {axis} of {name})")
            env[extent.name] = size
            return True
    where = f"axis {axis} of {name}"
    if not isinstance(extent, Dim):
        if extent != size:
            raise ValueError(f"[bind] {where} must be {extent}, got {size}")
        return True
    unknown = [s for s in symbols(extent) if s.name not in env]
    if len(unknown) > 1:
        return False
    if unknown:
        return _solve(unknown[0], substitute(extent, env), size, env, where)
    if (value := evaluate(extent, env)) != size:
        given = ", ".join(f"{s.name} = {env[s.name]}" for s in symbols(extent))
        raise ValueError(f"[bind] {where} must be {extent} = {value}, got {size} ({given})")
    return True


def _solve(symbol: Dim, extent: Extent, size: int, env: dict[str, int], where: str) -> bool:
    """Bind the one symbol of an extent linear in it; False when the extent is not."""
    if isinstance(extent, int):  # the symbol dropped out: its value has to come from elsewhere
        if extent != size:
            raise ValueError(f"[bind] {where} must be {extent}, got {size}")
        return False
    constant, variable = split_constant(extent)
    if len(variable) != 1 or variable[0][0] != monomials(symbol)[0][0]:
        return False
    [(_, c)] = variable
    times, remainder = divmod(size - constant, c)
    if remainder:
        raise ValueError(f"[bind] {where} must be {extent}, got {size}: no {describe(symbol)} gives it")
    value = times * symbol.multiple_of
    check_value(symbol, value, f"({where} is {extent} = {size})")
    env[symbol.name] = value
    return True


def _shape(shape: Sequence[Extent]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
