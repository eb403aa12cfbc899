"""Writes point expressions into a kernel that is being built, each at the outermost loop it can stand in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.kernels.quotient import Divisor, quotient
from ingot.lowering.loop import Expr
from ingot.lowering.loop_builder import Builder
from ingot.lowering.points import Place, Point
from ingot.lowering.rules import scalar_rule
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.primitives.elementwise import Div


class Body:
    """A kernel in the making.

    `buffers` names the memory of each graph value, `within_row` the axes along which that of some does not
    extend, as it holds one row at a time. `params` lists the dims that the kernel takes. `index` gives the
    loop index of every open axis; along the axis `vector`, a point has `lanes` values, of which `mask` (None:
    all) says which exist. `divisors` are the points by which much is divided; a register has `register` lanes
    of float32.
    """

    def __init__(self, builder: Builder, buffers: Mapping[int, str]) -> None:
        self.b = builder
        self.buffers = dict(buffers)
        self.within_row: dict[int, frozenset[int]] = {}
        self.divisors: dict[int, Divisor] = {}
        self.register = 1
        self.index: dict[int, Expr] = {}
        self.vector: int | None = None
        self.lanes = 1
        self.mask: Expr | None = None
        self.values: dict[int, Expr] = {}
        self.params: list[str] = []
        self._symbols: dict[str, Expr] = {}

    # -- scopes -------------------------------------------------------------------------------------

    @contextmanager
    def block(self) -> Iterator[None]:
        """Within: what is written is known only here."""
        saved, self.values = self.values, dict(self.values)
        yield
        self.values = saved

    @contextmanager
    def axis(self, axis: int, index: Expr) -> Iterator[None]:
        """Within: the loop of `axis` is open at `index`."""
        with self.block():
            self.index[axis] = index
            yield
            del self.index[axis]

    @contextmanager
    def lane_axis(self, axis: int, base: Expr, lanes: int, mask: Expr | None) -> Iterator[None]:
        """Within: `axis` is covered by `lanes` lanes from index `base`."""
        kept = self.vector, self.lanes, self.mask
        self.vector, self.lanes, self.mask = axis, lanes, mask
        with self.axis(axis, base):
            yield
        self.vector, self.lanes, self.mask = kept

    # -- extents and places -------------------------------------------------------------------------

    def extent(self, extent: Extent) -> Expr:
        """A (symbolic) extent as index arithmetic over the kernel's params, which are the symbols."""
        if not isinstance(extent, Dim):
            return ir.index(extent)
        if extent.op == "symbol":
            found = self._symbols.get(extent.name)
            if found is None:
                found = self._symbols[extent.name] = self.b.param(extent.name)
                self.params.append(extent.name)
            return found
        if extent.op == "+":
            total: Expr = ir.index(0)
            for factor, powers in extent.terms:
                term: Expr = ir.index(factor)
                for atom, power in powers:
                    for _ in range(power):
                        term = term * self.extent(atom)
                total = total + term
            return total
        a, *rest = (self.extent(x) for x in extent.operands)
        op = {"//": "floordiv", "%": "mod"}.get(extent.op, extent.op)
        for b in rest:
            a = ir.binary(op, a, b)
        return a

    def place(self, place: Place) -> tuple[Expr, Extent]:
        """The integer at the current indices and its step from lane to lane. With loaded vectors it is a
        vector of its own and the step is 0."""
        total = self.extent(place.offset)
        step: Extent = 0
        for axis, coefficient in place.terms:
            if axis == self.vector:
                step = coefficient
            total = total + self.index[axis] * self.extent(coefficient)
        wide: Expr | None = None
        for point, coefficient in place.loaded:
            loaded = self.values[point.number]
            scaled = loaded * self.extent(coefficient)
            if loaded.type.lanes == 1:
                total = total + scaled
            else:
                wide = scaled if wide is None else wide + scaled
        if wide is None:
            return total, step
        start = self.lanes_from(total, step)
        return (wide + start if start.type.lanes > 1 else wide + ir.broadcast(start, self.lanes)), 0

    def element(self, value: int, place: Place) -> Place:
        """Where element `place` of a value lies in its memory."""
        axes = self.within_row.get(value)
        if axes is None:
            return place
        return Place(place.offset, tuple((a, c) for a, c in place.terms if a not in axes), place.loaded)

    def lanes_from(self, start: Expr, step: Extent) -> Expr:
        """`start` in the first lane, `step` more in each further one; a scalar when the step is 0."""
        if isinstance(step, int) and step == 0:
            return start
        return ir.ramp(start, self.extent(step), self.lanes)

    def spread(self, place: Place) -> Expr:
        """The integer in all lanes, or a scalar when it is the same in all of them."""
        start, step = self.place(place)
        return self.lanes_from(start, step)

    # -- points -------------------------------------------------------------------------------------

    def emit(self, points: Iterable[Point]) -> None:
        """Write those of `points` (operands first) that the open loops allow and that are not written yet."""
        open_axes = self.index.keys()
        for point in points:
            if point.number in self.values or not point.axes <= open_axes:
                continue
            if isinstance(point, pt.Held) or any(o.number not in self.values for o in pt.operands(point)):
                continue
            value = self.expression(point)
            self.values[point.number] = value if isinstance(value, ir.Const) else self.b.let(value, "t")

    def __getitem__(self, point: Point) -> Expr:
        return self.values[point.number]

    def expression(self, point: Point) -> Expr:
        match point:
            case pt.Number(value=value):
                return ir.const(value, point.dtype)
            case pt.Read():
                return self.read(point)
            case pt.Apply(primitive=primitive, args=args):
                if isinstance(primitive, Div) and args[1].number in self.divisors and self.lanes > 1:
                    dividend = ir.broadcast(self[args[0]], self.lanes)
                    return quotient(self.b, dividend, self.divisors[args[1].number], self.register)
                lanes = max((self[a].type.lanes for a in args), default=1)
                exprs = [ir.broadcast(self[a], lanes) for a in args]
                made = scalar_rule(type(primitive))(primitive, *exprs)
                assert made.type.dtype == point.dtype, (
                    f"{primitive!r} gave {made.type}, expected {point.dtype}"
                )
                return made
            case pt.Position(place=place):
                return ir.convert(self.spread(place), point.dtype)
            case pt.Divided(place=place, divisor=divisor, rest=rest):
                return ir.binary("mod" if rest else "floordiv", self.spread(place), self.extent(divisor))
            case pt.Within(place=place, size=size, step=step):
                return self.within(self.spread(place), self.extent(size), step)
            case pt.Choose(masks=masks, yes=yes, no=no):
                return self.choose(self.all_of(masks), self[yes], self[no])
            case pt.Bounded():
                return self.bounded(point)
        raise TypeError(f"not a point: {point!r}")

    def within(self, at: Expr, size: Expr, step: int) -> Expr:
        inside = (at >= 0) & (at < size)
        return inside if step == 1 else inside & (at % step).eq(0)

    def all_of(self, masks: Sequence[Point]) -> Expr | None:
        """The conjunction of mask points; None for no masks."""
        found: Expr | None = None
        for mask in masks:
            found = self[mask] if found is None else found & self[mask]
        return found

    def choose(self, mask: Expr | None, yes: Expr, no: Expr) -> Expr:
        if mask is None:
            return yes
        lanes = max(mask.type.lanes, yes.type.lanes, no.type.lanes)
        if mask.type.lanes == 1 and yes.type.lanes != no.type.lanes:
            yes, no = ir.broadcast(yes, lanes), ir.broadcast(no, lanes)
        return ir.select(mask, yes, no)

    def read(self, point: pt.Read) -> Expr:
        buffer = self.buffers[point.value]
        at, step = self.place(self.element(point.value, point.place))
        wanted = self.all_of(point.masks)
        if at.type.lanes == 1 and isinstance(step, int) and step == 0:
            if wanted is None or wanted.type.lanes == 1:
                return self.b.load(buffer, at, 1, wanted)
            at = ir.broadcast(at, self.lanes)
        elif at.type.lanes == 1 and not (isinstance(step, int) and step == 1):
            at = self.lanes_from(at, step)
        mask = self.lane_mask(wanted)
        return self.b.load(buffer, at, self.lanes, mask)

    def lane_mask(self, wanted: Expr | None = None) -> Expr | None:
        """The mask of the lanes, restricted to `wanted`."""
        if wanted is None or self.lanes == 1:
            return wanted if self.mask is None else self.mask
        wide = ir.broadcast(wanted, self.lanes)
        return wide if self.mask is None else wide & self.mask

    def bounded(self, point: pt.Bounded) -> Expr:
        index = ir.convert(self[point.index], "index")
        extent = self.extent(point.extent)
        index = self.b.let(index, "i")
        if point.wraps and self[point.index].type.is_signed:
            index = self.b.let(ir.select(index < 0, index + extent, index), "i")
        outside = (index < 0) | (index >= extent)
        wanted = self.all_of(point.masks)
        if max(outside.type.lanes, wanted.type.lanes if wanted is not None else 1) > 1:
            wanted = self.lane_mask(wanted)
        if wanted is not None:
            outside = outside & wanted
        outside = self.b.let(outside, "outside")
        with self.b.when(ir.ReduceLanes("or", outside) if outside.type.lanes > 1 else outside):
            what = pt.CHECKED.index(point.what)
            self.b.fail(ir.FAIL_INDEX, self._offender(index, outside), extent, what)
        return index

    def _offender(self, index: Expr, outside: Expr) -> Expr:
        """One of the indices that are out of bounds."""
        if index.type.lanes == 1:
            return index
        return ir.ReduceLanes(
            "min", ir.select(outside, index, ir.broadcast(ir.const(1 << 62, ir.IDX), index.type.lanes))
        )

    # -- stores -------------------------------------------------------------------------------------

    def store(self, value: int, place: Place, point: Point) -> None:
        """Write a point to the buffer of a graph value."""
        at, step = self.place(self.element(value, place))
        result = self[point]
        if isinstance(step, int) and step == 0 and at.type.lanes == 1:
            self.b.store(self.buffers[value], at, result)
            return
        if not (isinstance(step, int) and step == 1):
            at = self.lanes_from(at, step)
        self.b.store(self.buffers[value], at, ir.broadcast(result, self.lanes), self.mask)
