"""Loops over a vector axis: whole vectors, several in flight, then a masked tail."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingot.lowering import loop as ir
from ingot.lowering.loop import Expr
from ingot.lowering.loop_builder import Builder

Part = Callable[[Expr, Expr | None, Sequence[Expr]], Sequence[Expr]]
"""Writes one vector: (index of lane 0, mask or None, carried values) -> next carried values."""


def fitting_lanes(lanes: int, extent: object) -> int:
    """`lanes`, or fewer when a static extent does not fill them."""
    if isinstance(extent, int):
        while lanes > 1 and lanes // 2 >= extent:
            lanes //= 2
    return lanes


def vector_loop(
    b: Builder, lo: Expr, hi: Expr, lanes: int, unroll: int, carry: Sequence[Sequence[Expr]], part: Part
) -> list[list[Expr]]:
    """Cover [lo, hi) with vectors.

        for j in [lo, whole) by unroll * lanes:   part(j), part(j + lanes), ...
        for j in [whole, hi) by lanes:            part(j, masked)

    `carry[u]` are the values that the u-th vector of each round hands on; the tail continues with those of the
    first. Returns the final ones.
    """
    length = _static(hi - lo)
    if length is not None and length < unroll * lanes:
        unroll = max(length // lanes, 1)
        carry = carry[: max(unroll, 1)]
    block = unroll * lanes
    whole = hi - (hi - lo) % block if length is None else lo + length // block * block
    state = [list(values) for values in carry]
    if length is None or length >= block:
        state = _rounds(b, lo, whole, lanes, unroll, state, part)
    rest = None if length is None else length % block
    if rest == 0:
        return state
    with b.loop("j", whole, hi, lanes, carry=_named(state[:1])) as tail:
        assert tail.index is not None
        masked = rest is None or rest % lanes != 0
        mask = b.let(ir.lane_mask(tail.index, hi, lanes), "mask") if masked else None
        tail.next(*part(tail.index, mask, tail.carried))
    return [list(tail.results), *state[1:]]


def _rounds(
    b: Builder, lo: Expr, hi: Expr, lanes: int, unroll: int, state: list[list[Expr]], part: Part
) -> list[list[Expr]]:
    with b.loop("j", lo, hi, unroll * lanes, carry=_named(state)) as rounds:
        assert rounds.index is not None
        each = len(state[0]) if state else 0
        following: list[Expr] = []
        for u in range(unroll):
            current = rounds.carried[u * each : (u + 1) * each]
            following += part(rounds.index + u * lanes, None, current)
        rounds.next(*following)
    return [list(rounds.results[u * each : (u + 1) * each]) for u in range(unroll)]


def _named(state: Sequence[Sequence[Expr]]) -> dict[str, Expr]:
    return {f"acc{u}_{i}": value for u, values in enumerate(state) for i, value in enumerate(values)}


def _static(length: Expr) -> int | None:
    return int(length.value) if isinstance(length, ir.Const) else None


def tree(op: Callable[[Expr, Expr], Expr], values: Sequence[Expr]) -> Expr:
    """Combine pairwise: neighbours first."""
    level = list(values)
    while len(level) > 1:
        level = [op(*level[i : i + 2]) if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]
    return level[0]
