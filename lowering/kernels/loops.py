"""Loops over a vector axis: whole vectors, several in flight, then a masked tail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ingot.lowering import loop as ir
from ingot.lowering.loop import Expr
from ingot.lowering.loop_builder import Builder

T = TypeVar("T")
Part = Callable[..., Sequence[Expr]]
"""Writes one vector: (index of lane 0, mask or None, carried values) -> next carried values; in a joined loop
also with the number of lanes."""


def fitting_lanes(lanes: int, extent: object) -> int:
    """`lanes`, or fewer when a static extent does not fill them."""
    if isinstance(extent, int):
        while lanes > 1 and lanes // 2 >= extent:
            lanes //= 2
    return lanes


def fitting_unroll(unroll: int, lanes: int, extent: object) -> int:
    """`unroll`, or fewer vectors when a static extent does not fill them."""
    return min(unroll, max(extent // lanes, 1)) if isinstance(extent, int) else unroll


def vector_loop(
    b: Builder,
    lo: Expr,
    length: Expr,
    lanes: int,
    carry: Sequence[Sequence[Expr]],
    part: Part,
    joined: bool = False,
) -> list[list[Expr]]:
    """Cover [lo, lo + length) with vectors, one in flight for each entry of `carry`.

        for j in [lo, whole) by block:        part(j), part(j + lanes), ...
        for j in [whole, lo + length) by lanes:   part(j, masked)

    `carry[u]` are the values that the u-th vector of each round hands on; the tail continues with those of
    the first. Returns the final ones. When they are `joined`, the vectors of a round, which carry nothing,
    are one long vector: a short text, and code that works on all of them at a time.
    """
    block = len(carry) * lanes
    static = int(length.value) if isinstance(length, ir.Const) else None
    hi = b.let(lo + length, "end")
    whole = b.let(hi - length % block if static is None else lo + static // block * block, "whole")
    state = [list(values) for values in carry]
    if static is None or static >= block:
        if joined:
            with b.loop("j", lo, whole, block) as rounds:
                part(rounds.index, None, (), block)
        else:
            state = _rounds(b, lo, whole, lanes, state, part)
    rest = None if static is None else static % block
    if rest == 0:
        return state
    with b.loop("j", whole, hi, lanes, carry=_named(state[:1])) as tail:
        assert tail.index is not None
        masked = rest is None or rest % lanes != 0
        mask = b.let(ir.lane_mask(tail.index, hi, lanes), "mask") if masked else None
        tail.next(*part(tail.index, mask, tail.carried))
    return [list(tail.results), *state[1:]]


def _rounds(
    b: Builder, lo: Expr, hi: Expr, lanes: int, state: list[list[Expr]], part: Part
) -> list[list[Expr]]:
    unroll = len(state)
    with b.loop("j", lo, hi, unroll * lanes, carry=_named(state)) as rounds:
        assert rounds.index is not None
        each = len(state[0])
        following: list[Expr] = []
        for u in range(unroll):
            current = rounds.carried[u * each : (u + 1) * each]
            following += part(rounds.index + u * lanes, None, current)
        rounds.next(*following)
    return [list(rounds.results[u * each : (u + 1) * each]) for u in range(unroll)]


def _named(state: Sequence[Sequence[Expr]]) -> dict[str, Expr]:
    return {f"acc{u}_{i}": value for u, values in enumerate(state) for i, value in enumerate(values)}


def tree(op: Callable[[T, T], T], values: Sequence[T]) -> T:
    """Combine pairwise: neighbours first."""
    level = list(values)
    while len(level) > 1:
        level = [op(*level[i : i + 2]) if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]
    return level[0]
