"""Groups: sets of graph values that one kernel computes."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering import points as pt
from ingot.lowering.loop import Kernel
from ingot.lowering.points import Place, Point, Points, places
from ingot.tracer import dims
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.record import record


class Unfusable(Exception):
    """The members of a group cannot be computed in one kernel of its kind."""


@record
class Group:
    """`roots` are the values that a kernel writes; what lies between them and stored values is computed on
    the way.

    kind `rows`: loops over `space`, of whose axes `reduced` are reduced. `dot`: a contraction and what is
    done to its result, whose shape is `space`. `scatter`: one scatter. `host`: the results of one node that
    has no lowering.
    """

    kind: str
    space: tuple[Extent, ...]
    reduced: frozenset[int]
    roots: tuple[int, ...]


@record
class Built:
    """A kernel; the dims that are its params, in order; the extent of its parallel loop, if it has one; and
    the bytes of scratch that a thread needs to run it."""

    kernel: Kernel
    params: tuple[str, ...]
    parallel: Extent | None
    scratch: Extent = 0


@record
class Pack:
    """A kernel that lays out an operand for another one. `side` names its buffer in that kernel; it reads the
    graph values `reads` and writes a buffer of `aval`, in this order."""

    side: int
    built: Built
    reads: tuple[int, ...]
    aval: Aval


Memory = Sequence[tuple[int, str, str]]
"""The buffers of a kernel in order: (graph value, dtype, access)."""


def rebuilt(roots: Sequence[Point], removed: frozenset[int]) -> tuple[Points, dict[Point, Point]]:
    """The points under `roots` anew, without the terms of the axes `removed` in their places."""
    table = Points()
    found: dict[Point, Point] = {}

    def moved(place: Place) -> Place:
        terms = tuple((a, c) for a, c in place.terms if a not in removed)
        return Place(place.offset, terms, tuple((found[p], c) for p, c in place.loaded))

    def many(points: Sequence[Point]) -> tuple[Point, ...]:
        return tuple(found[p] for p in points)

    for point in pt.reachable(roots):
        match point:
            case pt.Number():
                new: Point = table.number(point.value, point.dtype)
            case pt.Read():
                new = table.read(point.value, point.dtype, moved(point.place), many(point.masks))
            case pt.Apply():
                new = table.apply(point.primitive, many(point.args), point.dtype)
            case pt.Position():
                new = table.position(moved(point.place), point.dtype)
            case pt.Divided():
                new = table.divided(moved(point.place), point.divisor, point.rest)
            case pt.Within():
                new = table.within(moved(point.place), point.size, point.step)
            case pt.Choose():
                new = table.choose(many(point.masks), found[point.yes], found[point.no])
            case pt.Bounded():
                new = table.bounded(
                    found[point.index], point.extent, point.what, many(point.masks), point.axes - removed
                )
            case pt.Held():
                new = table.held(point.value, point.dtype, point.axes - removed, point.part)
            case _:
                raise TypeError(f"not a point: {point!r}")
        found[point] = new
    return table, found


def merged_axes(
    axes: Sequence[tuple[int, Extent]], classes: Sequence[int], all_places: Sequence[Place]
) -> tuple[dict[int, Extent], frozenset[int]]:
    """Which loops can be one: neighbours of one class that every place walks through contiguously.

    Returns the extents of the axes that are left, in order, and the axes that are gone: those of extent 1,
    and the outer one of each pair that was merged.
    """
    left: list[tuple[int, Extent, int]] = []
    gone: set[int] = set()
    for (axis, extent), kind in zip(axes, classes, strict=True):
        if isinstance(extent, int) and extent == 1:
            gone.add(axis)
            continue
        if left and left[-1][2] == kind and _contiguous(left[-1][0], axis, extent, all_places):
            outer, size, _ = left.pop()
            gone.add(outer)
            extent = size * extent
        left.append((axis, extent, kind))
    return {axis: extent for axis, extent, _ in left}, frozenset(gone)


def _contiguous(outer: int, inner: int, extent: Extent, all_places: Sequence[Place]) -> bool:
    return all(dims.same(place.coefficient(outer), place.coefficient(inner) * extent) for place in all_places)


def all_places(points: Sequence[Point]) -> list[Place]:
    """The places in all of `points`."""
    return [place for point in points for place in places(point)]
