"""Contractions: a register tile of sums of products, and what is done to the result while it is in registers.

    parallel for blocks of rows:  for tiles of columns:  for tiles of rows:
        for k: acc[i][u] += left[i, k] * right[k, columns of u]
        store f(acc)

The operands are read where they lie, through their views. Lanes run along the free axis of one operand when
that is contiguous (`columns`), else along the contracted axis (`lanes of k`), whichever reads vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Group, Memory, Unfusable, all_places, merged_axes, rebuilt
from ingot.lowering.kernels.body import Body
from ingot.lowering.kernels.loops import fitting_lanes, fitting_unroll
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Expr
from ingot.lowering.loop_builder import Builder
from ingot.lowering.points import Place, Point, Points, linear
from ingot.lowering.pull import Index, Puller, full, is_full, is_one, producers
from ingot.tracer import dims
from ingot.tracer.dims import Extent
from ingot.tracer.graph import Graph
from ingot.tracer.primitives.contract import DotGeneral
from ingot.tracer.record import record

ROW_BLOCK = 48
"""Rows of a parallel piece: a multiple of every tile height."""
K_BLOCK = 256
"""Products added to one accumulator before it joins the total, which bounds the rounding error."""

BATCH, ROWS, COLUMNS, SUMMED = range(4)


@record(frozen=False)
class Plan:
    """A contraction as points: `left` and `right` at the indices of the loop axes, whose roles are in
    `roles`."""

    extents: dict[int, Extent]
    roles: dict[int, int]
    left: Point
    right: Point
    held: Point
    stores: list[tuple[int, Place, Point]]

    def points(self) -> list[Point]:
        return pt.reachable([self.left, self.right, self.held, *(p for _, _, p in self.stores)])


def plan(graph: Graph, group: Group, stored: frozenset[int], needed: frozenset[int]) -> Plan:
    """The points of a contraction (the first root) and of the maps over its result (the others); only the
    `needed` ones are written.

    Raises:
        Unfusable: when a map reads the result elsewhere than at its own index.
    """
    points = Points()
    made = producers(graph)
    result = next(r for r in group.roots if isinstance(made[r].primitive, DotGeneral))
    node = made[result]
    dot = node.primitive
    assert isinstance(dot, DotGeneral)
    left, right = (graph.aval_of(o) for o in node.operands)
    indices, roles, extents = _axes(dot, left.shape, right.shape)
    space = graph.avals[result].shape

    def nothing(value: int, index: Index) -> Point | None:
        return None

    puller = Puller(graph, points, stored.__contains__, nothing)
    sides = [puller.pull(o, index) for o, index in zip(node.operands, indices, strict=True)]
    held = points.held(result, graph.avals[result].dtype.short, range(len(space)))

    def hold(value: int, index: Index) -> Point | None:
        if value in group.roots and not is_full(index, space):
            raise Unfusable
        return held if value == result else None

    puller = Puller(graph, points, stored.__contains__, hold)
    stores = []
    for root in group.roots:
        if not dims.same_shape(graph.avals[root].shape, space):
            raise Unfusable
        point = puller.pull(root, full(space))
        if root in needed:
            stores.extend(pt.stores(root, linear(full(space), space), point))
    return Plan(extents, roles, sides[0], sides[1], held, stores)


def _axes(
    dot: DotGeneral, left: Sequence[Extent], right: Sequence[Extent]
) -> tuple[list[Index], dict[int, int], dict[int, Extent]]:
    """Loop axes: first those of the result in order, then the contracted ones."""
    free = dot.free(0, len(left)), dot.free(1, len(right))
    indices: list[list[Place]] = [[pt.ZERO] * len(left), [pt.ZERO] * len(right)]
    roles: dict[int, int] = {}
    extents: dict[int, Extent] = {}

    def add(role: int, extent: Extent, *where: tuple[int, int]) -> None:
        axis = len(roles)
        roles[axis], extents[axis] = role, extent
        for side, at in where:
            indices[side][at] = pt.along(axis)

    for a, b in zip(*dot.batch, strict=True):
        add(BATCH, left[a], (0, a), (1, b))
    for a in free[0]:
        add(ROWS, left[a], (0, a))
    for b in free[1]:
        add(COLUMNS, right[b], (1, b))
    for a, b in zip(*dot.contract, strict=True):
        add(SUMMED, left[a], (0, a), (1, b))
    return [tuple(index) for index in indices], roles, extents


def simplified(plan: Plan) -> Plan:
    """The plan with as few axes as possible."""
    points = plan.points()
    walked = all_places(points) + [place for _, place, _ in plan.stores]
    axes = sorted(plan.extents)
    extents, gone = merged_axes([(a, plan.extents[a]) for a in axes], [plan.roles[a] for a in axes], walked)
    if not gone:
        return plan
    _, found = rebuilt(points, gone)
    stores = [
        (value, Place(p.offset, tuple((a, c) for a, c in p.terms if a not in gone), p.loaded), found[point])
        for value, p, point in plan.stores
    ]
    roles = {a: plan.roles[a] for a in extents}
    return Plan(extents, roles, found[plan.left], found[plan.right], found[plan.held], stores)


def build(plan: Plan, name: str, target: Target, buffers: Memory) -> Built:
    """The kernel of a plan."""
    return _Builder(plan, name, target, buffers).build()


Range = tuple[Expr, Expr]
Tile = Callable[[Expr, int], None]


class _Builder:
    def __init__(self, plan: Plan, name: str, target: Target, buffers: Memory) -> None:
        self.plan, self.target = plan, target
        self.parallel: Extent | None = None
        self.b = Builder(name)
        names = {
            value: self.b.buffer("x" if access == "read" else "y", dtype, access)
            for value, dtype, access in buffers
        }
        self.body = Body(self.b, names)
        self.dtype = "f32" if plan.left.dtype in ir.NARROW_FLOATS else plan.left.dtype
        self.rows, self.columns, self.summed = (self.last(role) for role in (ROWS, COLUMNS, SUMMED))
        self.left, self.right = plan.left, plan.right
        self.by_lanes_of_k = False
        self._choose()

    def last(self, role: int) -> int | None:
        return max((a for a, r in self.plan.roles.items() if r == role), default=None)

    def _choose(self) -> None:
        """Along what the lanes run, and the height and width of the tile."""
        lanes = self.target.lanes(self.dtype)
        wide = 4 if self.target.registers >= 32 else 2
        if not _unit(self.right, self.columns):
            if _unit(self.left, self.rows):
                self.rows, self.columns = self.columns, self.rows
                self.left, self.right = self.right, self.left
            elif _unit(self.left, self.summed) and _unit(self.right, self.summed):
                self.by_lanes_of_k = True
        extent = self.extent(self.summed if self.by_lanes_of_k else self.columns)
        self.lanes = fitting_lanes(lanes, extent)
        if self.by_lanes_of_k:
            self.width = wide
            self.height = 4
        else:
            self.width = fitting_unroll(wide, self.lanes, extent)
            self.height = 6 if self.width > 1 else 8
        height = self.extent(self.rows)
        if isinstance(height, int):
            self.height = min(self.height, max(height, 1))

    def extent(self, axis: int | None) -> Extent:
        return 1 if axis is None else self.plan.extents[axis]

    def build(self) -> Built:
        points = self.plan.points()
        self.body.emit(p for p in points if not isinstance(p, pt.Bounded))
        tiled = (self.rows, self.columns, self.summed)
        outer = [a for a, r in self.plan.roles.items() if r != SUMMED and a not in tiled]
        self.outer(outer, "parallel")
        return Built(self.b.kernel(), tuple(self.body.params), self.parallel)

    def outer(self, axes: Sequence[int], kind: str) -> None:
        if axes:
            if kind == "parallel":
                self.parallel = self.plan.extents[axes[0]]
            with self.b.loop("i", 0, self.body.extent(self.plan.extents[axes[0]]), kind=kind) as scope:
                assert scope.index is not None
                with self.body.axis(axes[0], scope.index):
                    self.outer(axes[1:], "serial")
            return
        rows = self.extent(self.rows)
        if kind == "serial" or (isinstance(rows, int) and rows <= ROW_BLOCK):
            self.panel(ir.index(0), self.body.extent(rows))
            return
        self.parallel = dims.ceil_div(rows, ROW_BLOCK)
        with self.b.loop("block", 0, self.body.extent(self.parallel), kind="parallel") as scope:
            assert scope.index is not None
            lo = self.b.let(scope.index * ROW_BLOCK, "lo")
            hi = ir.minimum(self.body.extent(rows), lo + ROW_BLOCK)
            self.panel(lo, self.b.let(hi, "hi"))

    # -- tiles --------------------------------------------------------------------------------------

    def panel(self, lo: Expr, hi: Expr) -> None:
        """All columns of the rows [lo, hi)."""
        n = self.extent(self.columns)
        end = self.body.extent(n)
        step = self.width if self.by_lanes_of_k else self.width * self.lanes

        def whole(base: Expr, _: int) -> None:
            self.steps(
                "r", lo, hi, self.height, lambda row, height: self.tile(row, height, base, self.width, None)
            )

        def rest(base: Expr, _: int) -> None:
            mask = None
            if not self.by_lanes_of_k and not (isinstance(n, int) and n % self.lanes == 0):
                mask = self.b.let(ir.lane_mask(base, end, self.lanes), "mask")
            self.steps("r", lo, hi, self.height, lambda row, height: self.tile(row, height, base, 1, mask))

        one = 1 if self.by_lanes_of_k else self.lanes
        self.split("c", ir.index(0), end, n, step, one, whole, rest)

    def steps(self, name: str, lo: Expr, hi: Expr, step: int, tile: Tile) -> None:
        rows = self.extent(self.rows)
        static = rows if isinstance(rows, int) and isinstance(lo, ir.Const) else None
        self.split(name, lo, hi, static, step, 1, lambda at, _: tile(at, step), lambda at, _: tile(at, 1))

    def split(
        self,
        name: str,
        lo: Expr,
        hi: Expr,
        length: Extent | None,
        step: int,
        one: int,
        whole: Tile,
        rest: Tile,
    ) -> None:
        """Whole tiles of [lo, hi) by `step`, the rest by `one`. A static `length` spares loops without
        iterations."""
        static = length if isinstance(length, int) else None
        border = self.b.let(hi - (hi - lo) % step if static is None else lo + static // step * step, "border")
        if static is None or static >= step:
            with self.b.loop(name, lo, border, step) as scope:
                assert scope.index is not None
                whole(scope.index, step)
        if static is None or static % step:
            with self.b.loop(name, border, hi, one) as scope:
                assert scope.index is not None
                rest(scope.index, one)

    def tile(self, row: Expr, height: int, base: Expr, width: int, mask: Expr | None) -> None:
        rows = [row + i for i in range(height)]
        step = 1 if self.by_lanes_of_k else self.lanes
        columns = [base + u * step for u in range(width)]
        zero = ir.const(0, ir.vector(self.dtype, self.lanes))
        state: list[Expr] = [zero] * (height * width)
        others = [a for a, r in self.plan.roles.items() if r == SUMMED and a != self.summed]
        state = self.nest(others, rows, columns, mask, state)
        for i, r in enumerate(rows):
            for u, c in enumerate(columns):
                self.finish(r, c, mask, state[i * width + u])

    def at(self, stack: ExitStack, axis: int | None, index: Expr, vector: bool, mask: Expr | None) -> None:
        if axis is None:  # the loop is there all the same, and what stands in it is not known outside
            stack.enter_context(self.body.block())
        elif vector:
            stack.enter_context(self.body.lane_axis(axis, index, self.lanes, mask))
        else:
            stack.enter_context(self.body.axis(axis, index))

    def finish(self, row: Expr, column: Expr, mask: Expr | None, total: Expr) -> None:
        if self.by_lanes_of_k:
            total = ir.ReduceLanes("add", total)
        with ExitStack() as stack:
            self.at(stack, self.rows, row, False, None)
            self.at(stack, self.columns, column, not self.by_lanes_of_k, mask)
            held = self.plan.held
            self.body.values[held.number] = self.b.let(ir.convert(total, held.dtype), "total")
            self.body.emit(pt.reachable([p for _, _, p in self.plan.stores]))
            for item in self.plan.stores:
                self.body.store(*item)

    # -- sums ---------------------------------------------------------------------------------------

    def nest(
        self,
        axes: Sequence[int],
        rows: Sequence[Expr],
        columns: Sequence[Expr],
        mask: Expr | None,
        state: list[Expr],
    ) -> list[Expr]:
        """Contracted axes that did not become one: loops around the last of them."""
        if not axes:
            return self.products(rows, columns, mask, state)
        with self.b.loop(
            "ks", 0, self.body.extent(self.plan.extents[axes[0]]), carry=_named("all", state)
        ) as scope:
            assert scope.index is not None
            with self.body.axis(axes[0], scope.index):
                scope.next(*self.nest(axes[1:], rows, columns, mask, list(scope.carried)))
        return list(scope.results)

    def products(
        self, rows: Sequence[Expr], columns: Sequence[Expr], mask: Expr | None, state: list[Expr]
    ) -> list[Expr]:
        """The sums over k, in blocks when k may be long."""
        extent = self.extent(self.summed)
        size = K_BLOCK * (self.lanes if self.by_lanes_of_k else 1)
        n = self.body.extent(extent)
        if self.dtype not in ir.FLOATS or (isinstance(extent, int) and extent <= 2 * size):
            return self.run(rows, columns, mask, ir.index(0), n, extent, state)
        with self.b.loop("kb", 0, n, size, carry=_named("sum", state)) as scope:
            assert scope.index is not None
            hi = self.b.let(ir.minimum(n, scope.index + size), "hi")
            zero: list[Expr] = [ir.const(0, v.type) for v in state]
            part = self.run(rows, columns, mask, scope.index, hi, None, zero)
            scope.next(*(a + b for a, b in zip(scope.carried, part, strict=True)))
        return list(scope.results)

    def run(
        self, rows: Sequence[Expr], columns: Sequence[Expr], mask: Expr | None, lo: Expr, hi: Expr,
        length: Extent | None, state: list[Expr],
    ) -> list[Expr]:  # fmt: skip
        if not self.by_lanes_of_k:
            with self.b.loop("k", lo, hi, carry=_named("acc", state)) as scope:
                assert scope.index is not None
                scope.next(*self.step(rows, columns, mask, scope.index, scope.carried))
            return list(scope.results)
        static = length if isinstance(length, int) else None
        border = self.b.let(
            hi - (hi - lo) % self.lanes if static is None else lo + static // self.lanes * self.lanes
        )
        with self.b.loop("k", lo, border, self.lanes, carry=_named("acc", state)) as scope:
            assert scope.index is not None
            scope.next(*self.step(rows, columns, None, scope.index, scope.carried))
        if static is not None and static % self.lanes == 0:
            return list(scope.results)
        with self.b.loop("k", border, hi, self.lanes, carry=_named("acc", scope.results)) as tail:
            assert tail.index is not None
            inside = self.b.let(ir.lane_mask(tail.index, hi, self.lanes), "mask")
            tail.next(*self.step(rows, columns, inside, tail.index, tail.carried))
        return list(tail.results)

    def step(
        self,
        rows: Sequence[Expr],
        columns: Sequence[Expr],
        mask: Expr | None,
        k: Expr,
        carried: Sequence[Expr],
    ) -> list[Expr]:
        with ExitStack() as stack:
            self.at(stack, self.summed, k, self.by_lanes_of_k, mask)
            rights = [
                self.operand(self.right, self.columns, c, not self.by_lanes_of_k, mask) for c in columns
            ]
            following: list[Expr] = []
            for row in rows:
                left = self.operand(self.left, self.rows, row, False, None)
                for right in rights:
                    following.append(self.product(left, right, carried[len(following)]))
        return following

    def operand(self, point: Point, axis: int | None, index: Expr, vector: bool, mask: Expr | None) -> Expr:
        with ExitStack() as stack:
            self.at(stack, axis, index, vector, mask)
            self.body.emit(pt.reachable([point]))
            value = self.body[point]
        value = self.b.let(ir.convert(value, self.dtype), "a")
        # lanes beyond the end of k must add nothing, whatever was computed there
        if self.by_lanes_of_k and mask is not None and not isinstance(point, pt.Read):
            value = ir.select(mask, value, ir.const(0, value.type))
        return value

    def product(self, left: Expr, right: Expr, total: Expr) -> Expr:
        lanes = total.type.lanes
        left, right = ir.broadcast(left, lanes), ir.broadcast(right, lanes)
        if self.dtype in ir.FLOATS:
            return ir.Math("fma", (left, right, total))
        return total + left * right


def _unit(point: Point, axis: int | None) -> bool:
    """Whether the lanes of a vector along `axis` lie side by side."""
    if axis is None or not isinstance(point, pt.Read):
        return False
    return is_one(point.place.coefficient(axis)) and not any(axis in p.axes for p, _ in point.place.loaded)


def _named(name: str, values: Sequence[Expr]) -> dict[str, Expr]:
    return {f"{name}{i}": value for i, value in enumerate(values)}
