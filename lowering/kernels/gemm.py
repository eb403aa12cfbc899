"""Products of matrices that are large enough to be worth packing: blocks, panels, a register tile.

    parallel for pieces of (other axes, blocks of rows, panels of columns):
      for blocks of k:
        copy the panel of `right`: for each k its columns side by side
        for tiles of rows:
          for k: acc[i][u] += left[i, k] * panel[k, u]
          sums += acc;  after the last block:  store f(sums)

One tile body serves all: edges of columns are panels whose last lanes have no meaning and are never stored,
edges of rows are tiles of one row. The copy evaluates the operand, so views, conversions and what else is
elementwise cost no pass over memory of their own; it serves all rows of a piece, which makes it cheap beside
the products: at 500 rows 2 % of the time. Constants are copied once
for all calls (`gemm_pack`). Rows are not copied where their elements can be broadcast from where they lie,
since 6 streams do not crowd a cache. After Goto and van de Geijn, "Anatomy of high-performance matrix
multiplication" (2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Memory
from ingot.lowering.kernels.body import Body
from ingot.lowering.kernels.contraction import COLUMNS, LEFT, RIGHT, ROWS, SUMMED, Plan
from ingot.lowering.kernels.gemm_blocks import blocking
from ingot.lowering.kernels.gemm_pack import LeftLayout, Panels, at_axis, digits, left_layout, outer_number
from ingot.lowering.kernels.loops import vector_loop
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Expr
from ingot.lowering.loop_builder import Builder
from ingot.lowering.points import Place
from ingot.tracer import dims


def build(plan: Plan, name: str, target: Target, buffers: Memory) -> Built:
    """The kernel of a plan."""
    return _Gemm(plan, name, target, buffers).build()


class _Gemm:
    def __init__(self, plan: Plan, name: str, target: Target, buffers: Memory) -> None:
        self.plan = plan
        self.b = Builder(name)
        names = {
            value: self.b.buffer("x" if access == "read" else "y", dtype, access)
            for value, dtype, access in buffers
        }
        self.body = Body(self.b, names)
        self.dtype = plan.compute_dtype
        self.rows, self.columns, self.summed = (plan.last(role) for role in (ROWS, COLUMNS, SUMMED))
        self.m, self.n, self.k = plan.extent(self.rows), plan.extent(self.columns), plan.steps
        self.blocks = blocking(plan, target)
        self.vector = ir.vector(self.dtype, self.blocks.lanes)
        self.single = isinstance(self.k, int) and self.k <= self.blocks.depth
        self.left: LeftLayout | None = None
        if plan.in_place:
            assert isinstance(plan.left, pt.Read)
            self.left_buffer = names[plan.left.value]
        else:
            self.left = left_layout(plan, self.blocks)
            self.left_buffer = names[LEFT]
        self.scratch = 0

    def allocate(self, name: str, dtype: str, count: int) -> str:
        """Scratch for `count` numbers."""
        at = self.scratch
        self.scratch += -(-count * ir.BYTES[dtype] // 64) * 64
        return self.b.alloc(name, dtype, count, "scratch", at)

    def build(self) -> Built:
        blocks, body, plan = self.blocks, self.body, self.plan
        if RIGHT in plan.packed:
            self.panel = body.buffers[RIGHT]
        else:
            self.panel = self.allocate("panel", plan.packed_dtype, blocks.depth * blocks.columns)
        self.tile = self.allocate("tile", self.dtype, blocks.height * blocks.columns)
        if not self.single:
            self.sums = self.allocate("sums", self.dtype, blocks.rows * blocks.columns)
        outer = plan.outer_axes()
        counts = [*(plan.extents[a] for a in outer), dims.ceil_div(self.m, blocks.rows),
                  dims.ceil_div(self.n, blocks.columns)]  # fmt: skip
        pieces = dims.product(counts)
        body.emit(p for p in plan.points() if not isinstance(p, pt.Bounded))
        with ExitStack() as stack:
            scope = stack.enter_context(self.b.loop("piece", 0, body.extent(pieces), kind="parallel"))
            assert scope.index is not None
            *where, row, column = digits(body, scope.index, counts)
            for axis, index in zip(outer, where, strict=True):
                stack.enter_context(body.axis(axis, index))
            self.piece(row, column)
        return Built(self.b.kernel(), tuple(body.params), pieces, self.scratch)

    def piece(self, row: Expr, column: Expr) -> None:
        b, blocks, plan = self.b, self.blocks, self.plan
        m, k = self.body.extent(self.m), self.body.extent(self.k)
        self.row_lo = b.let(row * blocks.rows, "row_lo")
        self.row_hi = b.let(ir.minimum(m, self.row_lo + blocks.rows), "row_hi")
        self.column = b.let(column * blocks.columns, "column")
        if RIGHT in plan.packed:
            number = outer_number(self.body, plan, plan.right)
            panel = number * self.body.extent(dims.ceil_div(self.n, blocks.columns)) + column
            self.panel_start = b.let(panel * k * blocks.columns, "panel")
        if self.left is not None:
            self.left_start = self.left.start(self.body, plan)
        if self.single:
            self.block(ir.index(0), k)
            return
        # at least once: sums of nothing are stored too
        with b.loop("kb", 0, ir.maximum(k, 1), blocks.depth) as scope:
            assert scope.index is not None
            with self.body.block():
                self.block(scope.index, b.let(ir.minimum(k - scope.index, blocks.depth), "depth"))

    def block(self, start: Expr, depth: Expr) -> None:
        """The products of k, or of pairs of them, in [start, start + depth)."""
        b, blocks, plan = self.b, self.blocks, self.plan
        base: Expr = ir.index(0)
        if RIGHT in plan.packed:
            base = b.let(self.panel_start + start * blocks.columns, "base")
        else:
            panels = Panels(self.body, plan, blocks, self.panel)
            panels.pack(self.column, start, depth, base)
        height = blocks.height
        with b.loop("r", self.row_lo, self.row_hi, height) as scope:
            assert scope.index is not None
            row = scope.index
            count: Expr = ir.index(height)
            with self.body.block():
                if isinstance(self.m, int) and self.m % height == 0:
                    self.sum(row, row, height, start, depth, base)
                else:
                    count = b.let(ir.minimum(self.row_hi - row, count), "rows")
                    with b.branch(count >= height) as branch:
                        with branch.then():
                            self.sum(row, row, height, start, depth, base)
                        with branch.orelse(), b.loop("i", row, row + count) as single:
                            assert single.index is not None
                            self.sum(single.index, row, 1, start, depth, base)
                self.joined(row, count, start, depth)

    # -- sums ---------------------------------------------------------------------------------------

    def sum(self, row: Expr, first: Expr, height: int, start: Expr, depth: Expr, base: Expr) -> None:
        """The products of some rows, in the tile that begins at row `first`, with a panel."""
        b, blocks = self.b, self.blocks
        rows, step = self.lefts(row, first, height, start)
        zero: Expr = ir.const(0, self.vector)
        carry = {f"acc{i}": zero for i in range(height * blocks.width)}
        with b.loop("k", 0, depth, carry=carry) as scope:
            assert scope.index is not None
            k = scope.index
            panel = b.let(base + k * blocks.columns, "at")
            rights = [b.let(b.load(self.panel, panel + u * blocks.lanes, blocks.lanes), "b")
                      for u in range(blocks.width)]  # fmt: skip
            following: list[Expr] = []
            for at in rows:
                left = b.let(b.load(self.left_buffer, at + k * step), "a")
                for right in rights:
                    following.append(self.product(left, right, scope.carried[len(following)]))
            scope.next(*following)
        held = b.let((row - first) * blocks.columns, "held")
        for i, total in enumerate(scope.results):
            b.store(self.tile, held + i * blocks.lanes, total)

    def joined(self, row: Expr, count: Expr, start: Expr, depth: Expr) -> None:
        """Add the sums of the blocks before to those in the tile; keep these, or finish."""
        if self.single:
            self.finish(row, count)
            return
        b, blocks, lanes = self.b, self.blocks, self.blocks.lanes
        held = b.let((row - self.row_lo) * blocks.columns, "held")
        with b.when(start > 0), b.loop("f", 0, count * blocks.columns, lanes) as scope:
            assert scope.index is not None
            at = scope.index
            b.store(self.tile, at, b.load(self.sums, held + at, lanes) + b.load(self.tile, at, lanes))
        with b.branch(start + depth >= self.body.extent(self.k)) as branch:
            with branch.then():
                self.finish(row, count)
            with branch.orelse(), b.loop("f", 0, count * blocks.columns, lanes) as scope:
                assert scope.index is not None
                b.store(self.sums, held + scope.index, b.load(self.tile, scope.index, lanes))

    def product(self, left: Expr, right: Expr, total: Expr) -> Expr:
        left = ir.broadcast(left, total.type.lanes)
        if self.plan.pairs:
            return ir.Math(self.plan.pairs, (total, left, right))
        if self.dtype in ir.FLOATS:
            return ir.Math("fma", (left, right, total))
        return total + left * right

    def lefts(self, row: Expr, whole: Expr, height: int, start: Expr) -> tuple[list[Expr], Expr]:
        """Where the elements of each row of a tile begin, at k = `start`, and the way to the next k; `whole`
        is the first row of the tile."""
        b, body, plan = self.b, self.body, self.plan
        if self.left is not None:
            first, step, along = self.left.row(body, self.left_start, row, whole, start)
        else:
            assert isinstance(plan.left, pt.Read)
            place = plan.left.place
            step, along = (body.extent(0 if axis is None else place.coefficient(axis))
                           for axis in (self.rows, self.summed))  # fmt: skip
            terms = tuple((a, c) for a, c in place.terms if a not in (self.rows, self.summed))
            first, _ = body.place(Place(place.offset, terms, place.loaded))
            first = first + row * step + start * along
        first = b.let(first, "row")
        return [b.let(first + step * i, "row") for i in range(height)], along

    # -- results ------------------------------------------------------------------------------------

    def finish(self, row: Expr, count: Expr) -> None:
        """What is done to the sums of a tile, vector by vector, and stored."""
        b, body, blocks, plan = self.b, self.body, self.blocks, self.plan
        points = pt.reachable([p for _, _, p in plan.stores])
        whole = isinstance(self.n, int) and self.n % blocks.columns == 0
        size: Expr = ir.index(blocks.columns)
        length = size if whole else b.let(ir.minimum(body.extent(self.n) - self.column, size), "length")
        with b.loop("f", 0, count) as scope, ExitStack() as stack:
            assert scope.index is not None
            at = b.let(scope.index * blocks.columns, "at")
            at_axis(body, stack, self.rows, b.let(row + scope.index, "row"))
            body.emit(points)

            def part(j: Expr, mask: Expr | None, carried: Sequence[Expr]) -> Sequence[Expr]:
                with ExitStack() as lanes:
                    at_axis(body, lanes, self.columns, self.column + j, blocks.lanes, mask)
                    total = b.load(self.tile, at + j, blocks.lanes)
                    body.values[plan.held.number] = b.let(ir.convert(total, plan.held.dtype), "total")
                    body.emit(points)
                    for item in plan.stores:
                        body.store(*item)
                return ()

            vector_loop(b, ir.index(0), length, blocks.lanes, [[]], part)
