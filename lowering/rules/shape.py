"""Primitives that move elements, as maps from an index of the result to indices of the operands.

A rule is a generator: it yields requests for elements of operands and returns the point of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ingot.lowering.points import ZERO, Place, Points, broadcast_index, fixed, linear, strides_of
from ingot.lowering.rules.registry import indexes
from ingot.tracer import dims
from ingot.tracer.dims import Extent
from ingot.tracer.primitives import shape as sh

if TYPE_CHECKING:
    from ingot.lowering.pull import Index, Pulling, Site


def _is_one(extent: Extent) -> bool:
    return isinstance(extent, int) and extent == 1


@indexes(sh.BroadcastTo)
def _broadcast_to(p: sh.BroadcastTo, s: Site, index: Index) -> Pulling:
    return (yield s.ask(broadcast_index(index, s.avals[0].shape, p.shape)))


@indexes(sh.Transpose)
def _transpose(p: sh.Transpose, s: Site, index: Index) -> Pulling:
    found = [ZERO] * len(index)
    for place, axis in zip(index, p.perm, strict=True):
        found[axis] = place
    return (yield s.ask(found))


@indexes(sh.Reverse)
def _reverse(p: sh.Reverse, s: Site, index: Index) -> Pulling:
    found = list(index)
    for axis in p.axes:
        found[axis] = found[axis].scaled(-1) + (s.avals[0].shape[axis] - 1)
    return (yield s.ask(found))


@indexes(sh.Slice)
def _slice(p: sh.Slice, s: Site, index: Index) -> Pulling:
    steps = zip(index, p.starts, p.strides, strict=True)
    return (yield s.ask([place.scaled(stride) + start for place, start, stride in steps]))


@indexes(sh.Reshape)
def _reshape(p: sh.Reshape, s: Site, index: Index) -> Pulling:
    return (yield s.ask(reshaped(s.points, index, p.shape, s.avals[0].shape)))


def reshaped(
    points: Points, index: Sequence[Place], shape: Sequence[Extent], source: Sequence[Extent]
) -> list[Place]:
    """The index into `source` of the element that has `index` in `shape`."""
    found = [ZERO] * len(source)
    for outs, ins in regrouped(shape, source):
        at = linear([index[i] for i in outs], [shape[i] for i in outs])
        if len(ins) == 1:
            found[ins[0]] = at
            continue
        extents = [source[i] for i in ins]
        for nth, (i, stride) in enumerate(zip(ins, strides_of(extents), strict=True)):
            rest = at
            if nth:
                rest = Place(0, (), ((points.divided(at, extents[nth] * stride, True), 1),))
            if not _is_one(stride):
                rest = Place(0, (), ((points.divided(rest, stride, False), 1),))
            found[i] = rest
    return found


def regrouped(shape: Sequence[Extent], source: Sequence[Extent]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of axes of `shape` and `source`, in order, with equal products; unit axes belong
    to none.

    Shapes of equal size in unlike terms (by a guard) make one group.
    """
    left = [i for i, n in enumerate(shape) if not _is_one(n)]
    right = [i for i, n in enumerate(source) if not _is_one(n)]
    groups: list[tuple[list[int], list[int]]] = []
    while left and right:
        outs, ins = [left.pop(0)], [right.pop(0)]
        a, b = shape[outs[0]], source[ins[0]]
        while not dims.same(a, b):
            if right and (_divides(b, a) or not left):
                ins.append(right.pop(0))
                b = b * source[ins[-1]]
            elif left:
                outs.append(left.pop(0))
                a = a * shape[outs[-1]]
            else:
                break
        groups.append((outs, ins))
    if groups and (left or right):
        groups[-1][0].extend(left)
        groups[-1][1].extend(right)
    return groups


def _divides(part: Extent, whole: Extent) -> bool:
    if isinstance(part, int) and isinstance(whole, int):
        return part < whole
    return dims.divide_exactly(whole, part) is not None


@indexes(sh.Concatenate)
def _concatenate(p: sh.Concatenate, s: Site, index: Index) -> Pulling:
    axis, at = p.axis, index[p.axis]
    parts = []
    start: Extent = 0
    for operand, aval in enumerate(s.avals):
        extent = aval.shape[axis]
        place = at + start * -1
        inside = s.points.within(place, extent)
        moved = (*index[:axis], place, *index[axis + 1 :])
        parts.append((inside, (yield s.ask(moved, operand, (*s.masks, inside)))))
        start = start + extent
    result = parts[-1][1]
    for inside, part in reversed(parts[:-1]):
        result = s.points.choose((inside,), part, result)
    return result


@indexes(sh.Pad)
def _pad(p: sh.Pad, s: Site, index: Index) -> Pulling:
    shape = s.avals[0].shape
    moved = [place + low * -1 for place, low in zip(index, p.low, strict=True)]
    masks = []
    for place, n, low, high in zip(moved, shape, p.low, p.high, strict=True):
        if not (dims.same(low, 0) and dims.same(high, 0)):
            masks.append(s.points.within(place, n))
    inner = yield s.ask(moved, 0, (*s.masks, *masks))
    value = yield s.ask((), 1)
    return s.points.choose(tuple(masks), inner, value) if masks else inner


@indexes(sh.SliceUpdate)
def _slice_update(p: sh.SliceUpdate, s: Site, index: Index) -> Pulling:
    x, update = s.avals
    moved, masks = [], []
    for place, start, step, n, m in zip(index, p.starts, p.strides, x.shape, update.shape, strict=True):
        at = (place + start * -1).scaled(1 if step > 0 else -1)
        span = m * abs(step) - (abs(step) - 1)  # an empty update has a span of at most 0
        if not (dims.same(start, 0) and step == 1 and dims.same(n, m)):
            masks.append(s.points.within(at, span, abs(step)))
        moved.append(at if abs(step) == 1 else Place(0, (), ((s.points.divided(at, abs(step), False), 1),)))
    new = yield s.ask(moved, 1, (*s.masks, *masks))
    if not masks:
        return new
    old = yield s.ask(index, 0)
    return s.points.choose(tuple(masks), new, old)


@indexes(sh.Iota)
def _iota(p: sh.Iota, s: Site, index: Index) -> Pulling:
    return s.points.position(index[p.axis], p.dtype.short)
    yield  # a rule is a generator, though this one asks for nothing


@indexes(sh.DimValue)
def _dim_value(p: sh.DimValue, s: Site, index: Index) -> Pulling:
    return s.points.position(fixed(p.extent), p.dtype.short)
    yield
