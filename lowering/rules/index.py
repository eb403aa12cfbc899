"""Gathers and windows as index maps with loaded indices, each checked against the extent of its axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ingot.lowering.loop import NARROW_FLOATS
from ingot.lowering.points import ZERO, Place, Point, broadcast_index, fixed, reachable
from ingot.lowering.rules.registry import indexes, nests
from ingot.tracer import dims
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.primitives import index as ix

if TYPE_CHECKING:
    from ingot.lowering.pull import Index, Pulling, Site


@indexes(ix.Gather)
def _gather(p: ix.Gather, s: Site, index: Index) -> Pulling:
    x, *positions = s.avals
    rank = max(a.ndim for a in positions)
    among = slice(p.position, p.position + rank)
    window, shape = index[among], s.result.shape[among]
    rest = [*index[: p.position], *index[p.position + rank :]]
    found = [ZERO] * x.ndim
    checks = []
    for operand, (axis, aval) in enumerate(zip(p.axes, positions, strict=True), start=1):
        at = broadcast_index(window, aval.shape, shape)
        chosen = yield s.ask(at, operand)
        checked = s.points.bounded(chosen, x.shape[axis], "gather", s.masks, loops_of(at, aval.shape))
        found[axis] = Place(0, (), ((checked, 1),))
        checks.append((checked, x.shape[axis]))
    for axis, place in zip((i for i in range(x.ndim) if i not in p.axes), rest, strict=True):
        found[axis] = place
    return _checked(s, (yield s.ask(found)), checks)


def _checked(s: Site, value: Point, checks: Sequence[tuple[Point, Extent]]) -> Point:
    """`value`, together with the checks that it does not need: an index may lead to a broadcast element."""
    needed = set(reachable([value]))
    for index, extent in checks:
        if index not in needed:
            mask = s.points.within(Place(0, (), ((index, 1),)), extent)
            value = s.points.choose((mask,), value, s.points.number(0, s.result.dtype.short))
    return value


def loops_of(index: Index, shape: Sequence[Extent]) -> frozenset[int]:
    """The loops over an array that may have no elements: its elements are checked nowhere else."""
    if all(dims.decide("gt", n, 0) for n in shape):
        return frozenset()
    return frozenset().union(*(place.axes for place in index))


@indexes(ix.DynamicSlice)
def _dynamic_slice(p: ix.DynamicSlice, s: Site, index: Index) -> Pulling:
    moved = list(index)
    checks = []
    for nth, axis in enumerate(p.axes):
        start = yield s.ask((fixed(nth),), 1)
        room = s.avals[0].shape[axis] - p.sizes[axis] + 1
        checked = s.points.bounded(start, room, "slice", s.masks)
        moved[axis] = moved[axis] + Place(0, (), ((checked, 1),))
        checks.append((checked, room))
    return _checked(s, (yield s.ask(moved)), checks)


@indexes(ix.DynamicUpdate)
def _dynamic_update(p: ix.DynamicUpdate, s: Site, index: Index) -> Pulling:
    x, update, _ = s.avals
    moved, masks = list(index), []
    for axis, n in enumerate(update.shape):
        if axis in p.axes:
            start = yield s.ask((fixed(p.axes.index(axis)),), 2)
            checked = s.points.bounded(start, x.shape[axis] - n + 1, "slice_update", s.masks)
            moved[axis] = moved[axis] + Place(0, (), ((checked, -1),))
        masks.append(s.points.within(moved[axis], n))
    new = yield s.ask(moved, 1, (*s.masks, *masks))
    old = yield s.ask(index, 0)
    return s.points.choose(tuple(masks), new, old)


def _exact(p: Any, avals: Sequence[Aval]) -> bool:
    """Sums and products in half precision need a wider copy, which `simplify.expand` makes."""
    return avals[0].dtype.short not in NARROW_FLOATS or p.mode not in ("add", "mul")


nests(ix.Scatter, "scatter", _exact)
