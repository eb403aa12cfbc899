"""Point expressions: what one element of a value is, as a function of the indices of a kernel's loops.

Between graph and loop IR. Views (broadcast, transpose, slice, reshape, reverse) are no computation here:
they only change the `Place` at which a buffer is read. Points are interned in a `Points` table in the order
of their creation, so operands come before users and equal sub-expressions are one object. A complex number is
a `Pair` of real points until it is stored; no kernel computes with pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from ingot.tracer import dims, facts
from ingot.tracer.dims import Extent
from ingot.tracer.primitive import Primitive
from ingot.tracer.record import record


@record(eq=False)
class Point:
    """One scalar expression. `axes` are the loop axes that it depends on."""

    dtype: str
    axes: frozenset[int]
    number: int


@record(eq=False, slots=False)
class Place:
    """An integer that is affine in loop indices and loaded integers.

        offset + sum(coefficient * index of axis) + sum(coefficient * point)

    `terms` has one entry per axis that matters, ordered by axis; `loaded` pairs integer points with
    coefficients.
    """

    offset: Extent = 0
    terms: tuple[tuple[int, Extent], ...] = ()
    loaded: tuple[tuple[Point, Extent], ...] = ()

    @cached_property
    def key(self) -> tuple[Any, ...]:
        return self.offset, self.terms, tuple((p.number, c) for p, c in self.loaded)

    @cached_property
    def axes(self) -> frozenset[int]:
        found = frozenset(axis for axis, _ in self.terms)
        return found.union(*(p.axes for p, _ in self.loaded))

    def coefficient(self, axis: int) -> Extent:
        return next((c for a, c in self.terms if a == axis), 0)

    def __add__(self, other: Place | Extent) -> Place:
        if not isinstance(other, Place):
            return Place(self.offset + other, self.terms, self.loaded)
        terms = dict(self.terms)
        for axis, c in other.terms:
            terms[axis] = terms.get(axis, 0) + c
        return Place(self.offset + other.offset, _sorted(terms), _merged(self.loaded + other.loaded))

    def scaled(self, factor: Extent) -> Place:
        """Every part times `factor`."""
        if dims.same(factor, 1):
            return self
        if dims.same(factor, 0):
            return ZERO
        terms = {axis: c * factor for axis, c in self.terms}
        return Place(self.offset * factor, _sorted(terms), tuple((p, c * factor) for p, c in self.loaded))

    def renamed(self, axes: Mapping[int, Place]) -> Place:
        """The indices of `axes` replaced by places (not the points in `loaded`)."""
        found = Place(self.offset, (), self.loaded)
        for axis, c in self.terms:
            found = found + axes.get(axis, along(axis)).scaled(c)
        return found


ZERO = Place()


def along(axis: int) -> Place:
    """The index of a loop axis."""
    return Place(0, ((axis, 1),))


def fixed(offset: Extent) -> Place:
    return Place(offset)


def _sorted(terms: Mapping[int, Extent]) -> tuple[tuple[int, Extent], ...]:
    return tuple((a, c) for a, c in sorted(terms.items(), key=lambda item: item[0]) if not dims.same(c, 0))


def _merged(loaded: Sequence[tuple[Point, Extent]]) -> tuple[tuple[Point, Extent], ...]:
    found: dict[Point, Extent] = {}
    for point, c in loaded:
        found[point] = found.get(point, 0) + c
    return tuple(found.items())


def strides_of(shape: Sequence[Extent]) -> tuple[Extent, ...]:
    """Element strides of a row-contiguous array."""
    strides: list[Extent] = []
    step: Extent = 1
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent
    return tuple(reversed(strides))


def broadcast_index(
    index: Sequence[Place], shape: Sequence[Extent], result: Sequence[Extent]
) -> tuple[Place, ...]:
    """The index of an operand of `shape` that is broadcast to `result`, whose index is given.

    An extent may be 1 by a guard of the graph without being the literal 1, so it is compared with the
    result's.
    """
    first = len(result) - len(shape)
    return tuple(
        place if not (isinstance(n, int) and n == 1) and facts.agree(n, wanted) else ZERO
        for n, wanted, place in zip(shape, result[first:], index[first:], strict=True)
    )


def linear(index: Sequence[Place], shape: Sequence[Extent]) -> Place:
    """Element number of a multi-dimensional index into a row-contiguous array."""
    total = ZERO
    for place, stride in zip(index, strides_of(shape), strict=True):
        total = total + place.scaled(stride)
    return total


# -- kinds of points --------------------------------------------------------------------------------


@record(eq=False)
class Number(Point):
    """A literal."""

    value: bool | int | float


@record(eq=False)
class Read(Point):
    """Element `place` of the row-contiguous buffer of graph value `value`; where a mask point is false,
    nothing is read and the value has no meaning."""

    value: int
    place: Place
    masks: tuple[Point, ...]


@record(eq=False)
class Apply(Point):
    """An elementwise primitive."""

    primitive: Primitive
    args: tuple[Point, ...]


@record(eq=False)
class Position(Point):
    """An index as a number of the point's dtype (index arithmetic wraps to it)."""

    place: Place


@record(eq=False)
class Divided(Point):
    """`place // divisor` or, with `rest`, `place % divisor`; both are non-negative."""

    place: Place
    divisor: Extent
    rest: bool


@record(eq=False)
class Within(Point):
    """True where `0 <= place < size`, and `place` is a multiple of `step`."""

    place: Place
    size: Extent
    step: int


@record(eq=False)
class Choose(Point):
    """`yes` where all masks hold, else `no`."""

    masks: tuple[Point, ...]
    yes: Point
    no: Point


CHECKED = ("gather", "scatter", "slice", "slice_update")
"""The operations whose indices are checked; kernels report them by number. The last two check where a window
starts."""


@record(eq=False)
class Bounded(Point):
    """An integer of the data as an index below `extent`, for the operation `what`. One that is out of bounds
    fails the kernel, unless a mask is false there."""

    index: Point
    extent: Extent
    what: str
    masks: tuple[Point, ...]

    @property
    def wraps(self) -> bool:
        """Whether negative indices count from the end."""
        return self.what in ("gather", "scatter")


@record(eq=False)
class Held(Point):
    """Graph value `value` at the current indices, which an earlier part of the kernel left in registers; of
    a complex one the real part (`part` 0) or the imaginary part (1)."""

    value: int
    part: int


@record(eq=False)
class Pair(Point):
    """The complex number `re + im * i` of two real points. In memory they lie side by side."""

    re: Point
    im: Point


class Points:
    """The points of one kernel."""

    def __init__(self) -> None:
        self.all: list[Point] = []
        self._known: dict[tuple[Any, ...], Point] = {}

    def _make(
        self, cls: type, key: tuple[Any, ...], dtype: str, axes: Iterable[frozenset[int]], *fields: Any
    ) -> Any:
        found = self._known.get((cls, dtype, *key))
        if found is None:
            found = cls(dtype, frozenset().union(*axes), len(self.all), *fields)
            self._known[(cls, dtype, *key)] = found
            self.all.append(found)
        return found

    def pair(self, re: Point, im: Point) -> Point:
        return self._make(Pair, (re.number, im.number), "c64", (re.axes, im.axes), re, im)

    def number(self, value: bool | int | float | complex, dtype: str) -> Point:
        if dtype == "c64":
            value = complex(value)
            return self.pair(self.number(value.real, "f32"), self.number(value.imag, "f32"))
        return self._make(Number, (repr(value),), dtype, (), value)

    def read(self, value: int, dtype: str, place: Place, masks: tuple[Point, ...] = ()) -> Point:
        if dtype == "c64":
            first = place.scaled(2)
            return self.pair(*(self.read(value, "f32", first + part, masks) for part in (0, 1)))
        axes = (place.axes, *(m.axes for m in masks))
        return self._make(Read, (value, place.key, _numbers(masks)), dtype, axes, value, place, masks)

    def apply(self, primitive: Primitive, args: Sequence[Point], dtype: str) -> Point:
        key = (primitive, _numbers(args))
        return self._make(Apply, key, dtype, (a.axes for a in args), primitive, tuple(args))

    def position(self, place: Place, dtype: str) -> Point:
        if dtype == "c64":
            return self.pair(self.position(place, "f32"), self.number(0.0, "f32"))
        return self._make(Position, (place.key,), dtype, (place.axes,), place)

    def divided(self, place: Place, divisor: Extent, rest: bool) -> Point:
        return self._make(Divided, (place.key, divisor, rest), "index", (place.axes,), place, divisor, rest)

    def within(self, place: Place, size: Extent, step: int = 1) -> Point:
        return self._make(Within, (place.key, size, step), "bool", (place.axes,), place, size, step)

    def choose(self, masks: tuple[Point, ...], yes: Point, no: Point) -> Point:
        if isinstance(yes, Pair) and isinstance(no, Pair):
            return self.pair(self.choose(masks, yes.re, no.re), self.choose(masks, yes.im, no.im))
        axes = (*(m.axes for m in masks), yes.axes, no.axes)
        key = (_numbers(masks), yes.number, no.number)
        return self._make(Choose, key, yes.dtype, axes, masks, yes, no)

    def bounded(
        self,
        index: Point,
        extent: Extent,
        what: str,
        masks: tuple[Point, ...] = (),
        inside: frozenset[int] = frozenset(),
    ) -> Point:
        """`inside`: axes within whose loops the check stays, though the index may not depend on them."""
        key = (index.number, extent, what, _numbers(masks), inside)
        axes = (inside, index.axes, *(m.axes for m in masks))
        return self._make(Bounded, key, "index", axes, index, extent, what, masks)

    def held(self, value: int, dtype: str, axes: Iterable[int], part: int = 0) -> Point:
        axes = frozenset(axes)
        if dtype == "c64":
            return self.pair(*(self.held(value, "f32", axes, part) for part in (0, 1)))
        return self._make(Held, (value, part), dtype, (axes,), value, part)


def _numbers(points: Iterable[Point]) -> tuple[int, ...]:
    return tuple(p.number for p in points)


def parts(point: Point) -> tuple[Point, ...]:
    """The real points of a point: two of a complex one."""
    return (point.re, point.im) if isinstance(point, Pair) else (point,)


Stored = tuple[int, Place, Point]
"""A store: graph value, element number in its buffer, real point."""


def stores(value: int, place: Place, point: Point) -> list[Stored]:
    """What writes `point` to element `place` of the buffer of `value`."""
    if isinstance(point, Pair):
        first = place.scaled(2)
        return [(value, first, point.re), (value, first + 1, point.im)]
    return [(value, place, point)]


def operands(point: Point) -> tuple[Point, ...]:
    """The points that `point` is made of."""
    match point:
        case Read(place=place, masks=masks):
            return (*(p for p, _ in place.loaded), *masks)
        case Apply(args=args):
            return args
        case Position(place=place) | Divided(place=place) | Within(place=place):
            return tuple(p for p, _ in place.loaded)
        case Choose(masks=masks, yes=yes, no=no):
            return (*masks, yes, no)
        case Bounded(index=index, masks=masks):
            return (index, *masks)
        case Pair(re=re, im=im):
            return (re, im)
    return ()


def reachable(roots: Iterable[Point]) -> list[Point]:
    """All points under `roots`, operands first."""
    found = {root.number: root for root in roots}
    stack = list(found.values())
    while stack:
        for operand in operands(stack.pop()):
            if operand.number not in found:
                found[operand.number] = operand
                stack.append(operand)
    return [found[number] for number in sorted(found)]


def places(point: Point) -> tuple[Place, ...]:
    """The places within a point itself."""
    match point:
        case Read(place=place) | Position(place=place) | Divided(place=place) | Within(place=place):
            return (place,)
    return ()
