"""Reductions along other axes than the contiguous one: sums of columns, their means and variances.

    parallel for each block of columns:
        for each chunk of rows:
            for each vector of the block:
                for each row of the chunk: accumulate, in registers
                join with the totals of the block, which lie on the stack

Few columns are cut into pieces of rows that run in parallel, which a second kernel joins.

So memory is read in runs of a block, a few rows side by side, and each element once: mean and variance need
one pass together, as partial variances about the means of chunks are joined (Chan, Golub and LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances", 1979, equation 2.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Memory
from ingot.lowering.kernels import rows
from ingot.lowering.kernels.full import PIECE, Part, Pieces
from ingot.lowering.kernels.loops import tree, vector_loop
from ingot.lowering.kernels.rows import Plan, Reduction, Stage
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Expr
from ingot.lowering.points import Point
from ingot.tracer import dims, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.primitives.elementwise import Div, Mul, Square, Sub
from ingot.tracer.record import field, record

STACK = 16384
"""Bytes of totals that a block of columns may have: half of a first cache."""
CHUNK = 8
"""Rows read side by side: where strides are powers of two, their lines all meet in one set of the cache."""
LONG_CHUNK = 256
"""The most rows of a chunk, where columns are so few that joining would take as long as reading."""
ROWS_IN_FLIGHT = 8
"""Accumulators of a column, in different rows, where columns are so few that one would wait for itself."""
RUN = 512
"""Columns from which on chunks are short."""

Scale = dict[str, tuple[Expr, ...]]
"""Factors for joining partial variances, by dtype."""
REGISTERS = 2
"""Registers that a vector of columns fills."""


@record(frozen=False)
class Moment:
    """A sum of the squared distances of `x` from the mean of the stage's reduction number `of`."""

    reduction: Reduction
    x: Point
    of: int


@record(frozen=False)
class Columns:
    """What is accumulated in one pass, and the stores after it."""

    plain: Stage
    moments: list[Moment] = field(default_factory=list)


def columns_of(plan: Plan) -> Columns | None:
    """The reductions of a plan as one pass over columns; None when it needs several or walks along rows."""
    axis = rows.vector_axis(plan)
    if not plan.reduced or axis is None or axis in plan.reduced or plan.homes or plan.scratch:
        return None
    if isinstance(plan.extents[max(plan.reduced)], int) and plan.extents[max(plan.reduced)] <= 2 * CHUNK:
        return None
    if any(stage.stores for stage in plan.stages):
        return None
    streams = any(isinstance(p, pt.Read) and axis in p.axes and p.axes & plan.reduced for p in plan.points())
    if not streams:
        return None  # what lies in registers can stay there
    return one_pass(plan)


def one_pass(plan: Plan) -> Columns | None:
    """Reductions that need those of an earlier stage are sums of squares about its means, or there are
    none."""
    first, *others = plan.stages
    found = Columns(Stage(list(first.reductions), [], list(first.after)))
    for stage in others:
        for reduction in stage.reductions:
            moment = _moment(plan, first, reduction)
            if moment is None:
                return None
            found.moments.append(moment)
        found.plain.after.extend(stage.after)
    return found if found.plain.reductions else None


def _moment(plan: Plan, first: Stage, reduction: Reduction) -> Moment | None:
    """A sum of (x - m)**2 or (m - x)**2 with m = sum of x / number of x."""
    if not reduction.accumulator.blocked or len(reduction.xs) != 1:
        return None
    (square,) = reduction.xs
    match square:
        case pt.Apply(primitive=Square(), args=(distance,)):
            pass
        case pt.Apply(primitive=Mul(), args=(distance, same)) if same is distance:
            pass
        case _:
            return None
    if not isinstance(distance, pt.Apply) or not isinstance(distance.primitive, Sub):
        return None
    a, b = distance.args
    for x, mean in ((a, b), (b, a)):
        for number, total in enumerate(first.reductions):
            is_sum = total.accumulator.blocked and total.xs == (x,) and total.accumulator.dtype == x.dtype
            if is_sum and _is_mean(plan, mean, total):
                return Moment(reduction, x, number)
    return None


def _is_mean(plan: Plan, point: Point, total: Reduction) -> bool:
    """Whether a point is the result of `total` divided by the number of elements."""
    if not isinstance(point, pt.Apply) or not isinstance(point.primitive, Div):
        return False
    held, count = point.args
    if held is not total.held[0]:
        return False
    size = dims.product([plan.extents[a] for a in plan.reduced])
    if isinstance(count, pt.Number):
        return isinstance(size, int) and count.value == ir.const(float(size), count.dtype).value
    return isinstance(count, pt.Position) and count.place.key == pt.fixed(size).key


def build(
    plan: Plan, columns: Columns, name: str, target: Target, memory: Memory, first: int
) -> tuple[list[Part], dict[int, Aval]]:
    """The kernels of a plan whose `columns_of` is given: one, or one for pieces of rows and one that joins
    these; and the buffers they share, numbered downwards from `first`."""
    writer = _Writer(plan, columns, name, target, memory)
    pieces = writer.pieces()
    space = tuple(plan.extents.values())
    values = tuple(value for value, _, _ in memory)
    if pieces is None:
        return [Part(writer.build(), values, space)], {}
    shared = {
        first - 1 - i: Aval((pieces.count * writer.width,), dtypes.by_short[c.type.dtype])
        for i, c in enumerate(writer.start[: len(writer.sums)])
    }
    read = [item for item in memory if item[2] == "read"]
    partial = _Writer(plan, columns, name, target, read).build_pieces(pieces)
    joined = _Writer(plan, columns, f"{name}_join", target, memory).build_join(pieces)
    return [
        Part(partial, (*(value for value, _, _ in read), *shared), space),
        Part(joined, (*values, *shared), (pieces.count,)),
    ], shared


class _Writer(rows.Writer):
    def __init__(self, plan: Plan, columns: Columns, name: str, target: Target, buffers: Memory) -> None:
        super().__init__(plan, name, target, buffers)
        assert self.axis is not None
        self.across_axis = self.axis
        self.columns = columns
        self.lanes = min(self.lanes, REGISTERS * self.register_lanes)
        plain = columns.plain
        self.start = [c for r in plain.reductions for c in r.accumulator.initial]
        self.start += [c for m in columns.moments for c in m.reduction.accumulator.initial]
        self.sums = self._is_sum(Stage([*plain.reductions, *(m.reduction for m in columns.moments)]))
        each = zip(self.start, self.sums, strict=True)
        self.start += [ir.const(0.0, c.type) for c, is_sum in each if is_sum]
        bytes_ = sum(ir.BYTES[c.type.dtype] for c in self.start)
        self.width = max(STACK // bytes_ // self.lanes, 1) * self.lanes
        extent = self.vector_extent
        few = isinstance(extent, int) and extent < RUN
        carried = sum(len(r.accumulator.initial) for r in plain.reductions)
        self.parts = max(ROWS_IN_FLIGHT // carried, 1) if few else 1
        self.rows = min(CHUNK * (RUN // max(extent, 1)), LONG_CHUNK) if few else CHUNK  # type: ignore[operator, type-var]

        if isinstance(extent, int):
            self.width = min(self.width, max(1, -(-extent // self.lanes)) * self.lanes)
        self.all = Stage([*plain.reductions, *(m.reduction for m in columns.moments)])
        self.totals: list[str] = []
        self.piece: tuple[Expr, Expr] | None = None

    def build(self) -> Built:
        kept = [a for a in self.plan.extents if a not in self.plan.reduced and a != self.across_axis]
        self.begin()
        self.kept_loops(kept, "parallel")
        return self.built()

    def begin(self) -> None:
        self.emit(top=True)
        self.totals = [self.b.alloc("total", c.type.dtype, self.width, "stack") for c in self.start]

    def built(self) -> Built:
        return Built(self.b.kernel(), tuple(self.body.params), self.parallel, 0)

    # -- pieces of rows -----------------------------------------------------------------------------

    def pieces(self) -> Pieces | None:
        """How to cut the rows, when the columns are one block and nothing else runs in parallel."""
        columns = self.vector_extent
        if len(self.plan.extents) != 2 or not isinstance(columns, int) or columns > self.width:
            return None
        (axis,) = self.plan.reduced
        length = max(PIECE // max(columns, 1) // LONG_CHUNK, 1) * LONG_CHUNK
        extent = self.plan.extents[axis]
        if isinstance(extent, int) and extent <= 2 * length:
            return None
        return Pieces(axis, length, dims.ceil_div(extent, length))

    def states(self, access: str) -> list[str]:
        """Buffers of what the pieces leave: a row of each total, compensations aside, for each piece."""
        return [self.b.buffer("state", c.type.dtype, access) for c in self.start[: len(self.sums)]]

    def build_pieces(self, pieces: Pieces) -> Built:
        states = self.states("write")
        self.begin()
        self.parallel = pieces.count
        n, columns = (self.body.extent(self.plan.extents[a]) for a in (pieces.axis, self.across_axis))
        with self.b.loop("piece", 0, self.body.extent(pieces.count), kind="parallel") as scope:
            assert scope.index is not None
            first = self.b.let(scope.index * pieces.length, "first")
            self.piece = first, self.b.let(ir.minimum(first + pieces.length, n), "end")
            row = self.b.let(scope.index * self.width, "row")

            def leave(at: Expr) -> None:
                for state, value in zip(states, self.got(at), strict=False):
                    self.b.store(state, row + at, value)

            self.block(ir.index(0), columns, leave)
        return self.built()

    def build_join(self, pieces: Pieces) -> Built:
        states = self.states("read")
        self.emit(top=True)
        n, columns = (self.body.extent(self.plan.extents[a]) for a in (pieces.axis, self.across_axis))

        def join(at: Expr) -> None:
            start = [ir.broadcast(c, self.lanes) for c in self.start]
            count = self.body.extent(pieces.count)
            with self.carrying("piece", ir.index(0), count, [start]) as (scope, (old,)):
                done = self.b.let(scope.index * pieces.length, "done")
                scale = self.scales(done, ir.minimum(n - done, pieces.length))
                row = self.b.let(scope.index * self.width + at, "row")
                loaded = [self.b.let(self.b.load(name, row, self.lanes), "part") for name in states]
                new: list[Expr] = []
                for reduction in self.columns.plain.reductions:
                    part = slice(len(new), len(new) + len(reduction.accumulator.initial))
                    is_sum = reduction.accumulator.blocked
                    joined = loaded[part] if is_sum else reduction.accumulator.join(old[part], loaded[part])
                    new += [self.b.let(x, "joined") for x in joined]
                for moment in self.columns.moments:
                    squares = loaded[len(new)]
                    new.append(self.moved(moment, squares, scale, old, new))
                scope.next(*self._joined(self.all, old, new))
            self.finish(list(scope.results))

        self.vectors(ir.index(0), columns, join)
        return self.built()

    # -- blocks of columns --------------------------------------------------------------------------

    def kept_loops(self, axes: Sequence[int], kind: str) -> None:
        if not axes:
            self.column_blocks(kind)
            return
        extent = self.plan.extents[axes[0]]
        if kind == "parallel":
            self.parallel = extent
        with self.b.loop("i", 0, self.body.extent(extent), kind=kind) as scope:
            assert scope.index is not None
            with self.body.axis(axes[0], scope.index):
                self.emit()
                self.kept_loops(axes[1:], "serial")

    def column_blocks(self, kind: str) -> None:
        extent, width = self.vector_extent, self.width
        if isinstance(extent, int) and extent <= width:
            self.block(ir.index(0), ir.index(extent))
            return
        blocks = dims.ceil_div(extent, width)
        if kind == "parallel":
            self.parallel = blocks
        with self.b.loop("block", 0, self.body.extent(blocks), kind=kind) as scope:
            assert scope.index is not None
            lo = self.b.let(scope.index * width, "lo")
            whole = isinstance(extent, int) and extent % width == 0
            length = ir.index(width) if whole else ir.minimum(self.body.extent(extent) - lo, width)
            self.block(lo, length if whole else self.b.let(length, "length"))

    def block(self, lo: Expr, length: Expr, end: Callable[[Expr], None] | None = None) -> None:
        """All rows, or those of the piece, of the columns [lo, lo + length); `end` is done with the totals of
        each vector."""
        self.vectors(lo, length, lambda at: self.put(at, [ir.broadcast(c, self.lanes) for c in self.start]))
        reduced = [a for a in self.plan.extents if a in self.plan.reduced]
        self.down(reduced, ir.index(0), lo, length)
        self.vectors(lo, length, end or (lambda at: self.finish(self.got(at))))

    def vectors(self, lo: Expr, length: Expr, write: Callable[[Expr], None]) -> None:
        """`write(at)` for each vector of columns; `at` counts from `lo`."""

        def part(base: Expr, mask: Expr | None, carried: Sequence[Expr]) -> Sequence[Expr]:
            with self.body.lane_axis(self.across_axis, base, self.lanes, mask):
                write(base - lo if not _is_zero(lo) else base)
            return ()

        vector_loop(self.b, lo, length, self.lanes, [()], part)

    def down(self, reduced: Sequence[int], before: Expr, lo: Expr, length: Expr) -> None:
        """Loops over the reduced axes; `before` counts the rows that are done."""
        axis, *rest = reduced
        n = self.body.extent(self.plan.extents[axis])
        inner: Extent = dims.product([self.plan.extents[a] for a in rest])
        start, n = self.piece or (ir.index(0), n)
        with self.b.loop("k", start, n, 1 if rest else self.rows) as scope:
            assert scope.index is not None
            if rest:
                with self.body.axis(axis, scope.index):
                    self.emit()
                    done = scope.index * self.body.extent(inner)
                    self.down(rest, done if _is_zero(before) else before + done, lo, length)
                return
            count = before if not _is_zero(before) else ir.index(0)
            count = count if self.piece is None else -start
            done = self.b.let(count + scope.index if not _is_zero(count) else scope.index, "done")
            static = self.plan.extents[axis]
            even = self.piece is None and isinstance(static, int) and static % self.rows == 0
            last = scope.index + self.rows
            last = last if even else ir.minimum(last, n)
            last = self.b.let(last, "last")
            scale = self.scales(done, last - scope.index)
            row = scope.index
            self.vectors(lo, length, lambda at: self.chunk(axis, row, last, scale, at))

    def scales(self, done: Expr, count: Expr) -> Scale:
        """What joining partial variances needs, for each dtype: with n rows `done` and m more, the numbers
        n, m, 1 / m, 1 / (n m) (1 for n = 0) and n m / (n + m)."""
        found: Scale = {}
        for dtype in sorted({m.x.dtype for m in self.columns.moments}):
            n, m = (self.b.let(ir.convert(x, dtype), "n") for x in (done, count))
            both = self.b.let(n * m, "both")
            shares = 1.0 / m, 1.0 / ir.maximum(both, 1.0), both / (n + m)
            found[dtype] = (n, m, *(self.b.let(x, "share") for x in shares))
        return found

    def put(self, at: Expr, values: Sequence[Expr]) -> None:
        for name, value in zip(self.totals, values, strict=True):
            self.b.store(name, at, value)

    def got(self, at: Expr) -> list[Expr]:
        return [self.b.let(self.b.load(name, at, self.lanes), "old") for name in self.totals]

    def chunk(self, axis: int, first: Expr, last: Expr, scale: Scale, at: Expr) -> None:
        """A few rows of one vector of columns."""
        plain, moments = self.columns.plain, self.columns.moments
        self.emit()
        old = self.got(at)
        fresh = self._fresh(self.all, old)[: len(self.sums) - len(moments)]
        new = self.over_rows(axis, first, last, fresh, plain)
        for moment in moments:
            squares = self.squares(moment, axis, first, last, scale, new)
            new.append(self.moved(moment, squares, scale, old, new))
        self.put(at, self._joined(self.all, old, new))

    def over_rows(self, axis: int, first: Expr, last: Expr, fresh: list[Expr], stage: Stage) -> list[Expr]:
        """What a stage accumulates over the rows [first, last)."""

        def rows_from(start: Expr, end: Expr, state: list[list[Expr]]) -> list[list[Expr]]:
            with self.carrying("r", start, end, state, len(state)) as (scope, current):
                following: list[Expr] = []
                for number, part in enumerate(current):
                    with self.body.axis(axis, scope.index + number if number else scope.index):
                        following += rows.flat(self.inside(stage, [part]))
                scope.next(*following)
            return [list(scope.results[i : i + len(fresh)]) for i in range(0, len(scope.results), len(fresh))]

        if self.parts == 1:
            return rows_from(first, last, [fresh])[0]
        start = [ir.broadcast(c, self.lanes) for r in stage.reductions for c in r.accumulator.initial]
        whole = self.b.let(last - (last - first) % self.parts, "whole")
        state = rows_from(first, whole, [fresh, *(list(start) for _ in range(self.parts - 1))])
        state[:1] = rows_from(whole, last, state[:1])
        found: list[Expr] = []
        for reduction in stage.reductions:
            at, n = len(found), len(reduction.accumulator.initial)
            joined = tree(reduction.accumulator.join, [part[at : at + n] for part in state])
            found += [self.b.let(x, "joined") for x in joined]
        return found

    def place(self, moment: Moment) -> int:
        """Which total is the sum whose mean a moment is about."""
        return sum(len(r.accumulator.initial) for r in self.columns.plain.reductions[: moment.of])

    def squares(
        self, moment: Moment, axis: int, first: Expr, last: Expr, scale: Scale, new: Sequence[Expr]
    ) -> Expr:
        """The squared distances in a chunk from its own mean."""
        share = scale[moment.x.dtype][2]
        mean = self.b.let(new[self.place(moment)] * ir.broadcast(share, self.lanes), "mean")
        zero = ir.const(0.0, mean.type)
        with self.carrying("r", first, last, [[zero]]) as (scope, current):
            with self.body.axis(axis, scope.index):
                self.body.emit(pt.reachable([moment.x]))
                distance = self.b.let(ir.broadcast(self.body[moment.x], self.lanes) - mean, "distance")
                scope.next(current[0][0] + distance * distance)
        return scope.results[0]

    def moved(
        self, moment: Moment, squares: Expr, scale: Scale, old: Sequence[Expr], new: Sequence[Expr]
    ) -> Expr:
        """Squared distances and what moving to the common mean adds to them and to those before: the distance
        of the means, times n m, is n s - m S for sums s and S."""
        n, m, _, shares, weight = (ir.broadcast(x, self.lanes) for x in scale[moment.x.dtype])
        place = self.place(moment)
        total, part = old[place], new[place]
        lost = old[len(self.sums) + sum(self.sums[:place])]
        apart = ir.fma(part, n, -(total * m)) + lost * m
        apart = self.b.let(apart * shares, "apart")
        return self.b.let(squares + apart * apart * weight, "squares")

    def finish(self, values: Sequence[Expr]) -> None:
        """Results of a vector of columns from its totals."""
        place = 0
        for reduction in self.all.reductions:
            count = len(reduction.accumulator.initial)
            results = values[place : place + count][-len(reduction.held) :]
            place += count
            for held, result in zip(reduction.held, results, strict=True):
                self.body.values[held.number] = self.b.let(ir.convert(result, held.dtype), "total")
        self.body.emit(self.points)
        for item in self.columns.plain.after:
            self.body.store(*item)


def _is_zero(x: Expr) -> bool:
    return isinstance(x, ir.Const) and x.value == 0
