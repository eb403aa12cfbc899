"""Small contractions: a register tile of sums of products over operands that are read where they lie.

    parallel for pieces of (other axes, blocks of rows, blocks of columns):
      for tiles of columns:  for tiles of rows:
        for k: acc[i][u] += left[i, k] * right[k, columns of u]
        store f(acc)

Lanes run along the free axis of one operand when that is contiguous (`columns`), else along the contracted
axis (`lanes of k`), whichever reads vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Memory
from ingot.lowering.kernels.body import Body
from ingot.lowering.kernels.contraction import COLUMNS, ROWS, SUMMED, Plan
from ingot.lowering.kernels.gemm_blocks import PIECE, even_height, known
from ingot.lowering.kernels.gemm_pack import digits
from ingot.lowering.kernels.loops import fitting_lanes, fitting_unroll
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Expr
from ingot.lowering.loop_builder import Builder
from ingot.lowering.points import Point
from ingot.lowering.pull import is_one
from ingot.tracer import dims
from ingot.tracer.dims import Extent

ROW_BLOCK = 48
"""Rows of a parallel piece, about: a multiple of the height of a tile."""
K_BLOCK = 256
"""Products added to one accumulator before it joins the total, which bounds the rounding error."""


def build(plan: Plan, name: str, target: Target, buffers: Memory) -> Built:
    """The kernel of a plan."""
    return _Builder(plan, name, target, buffers).build()


Tile = Callable[[Expr, int, bool], None]
"""Writes the tile that begins at an index and has a size; whether its end may be beyond the last index."""

Masks = Sequence[Expr | None]


class _Builder:
    def __init__(self, plan: Plan, name: str, target: Target, buffers: Memory) -> None:
        self.plan, self.target = plan, target
        self.b = Builder(name)
        names = {
            value: self.b.buffer("x" if access == "read" else "y", dtype, access)
            for value, dtype, access in buffers
        }
        self.body = Body(self.b, names)
        self.dtype = plan.compute_dtype
        self.rows, self.columns, self.summed = (plan.last(role) for role in (ROWS, COLUMNS, SUMMED))
        self.left, self.right = plan.left, plan.right
        self.by_lanes_of_k = False
        self._choose()
        self.finished = pt.reachable([p for _, _, p in plan.stores])
        self.maps = any(isinstance(p, pt.Apply) for p in self.finished)

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
        self.height = even_height(self.height, self.extent(self.rows))

    def extent(self, axis: int | None) -> Extent:
        return self.plan.extent(axis)

    def build(self) -> Built:
        body, b = self.body, self.b
        body.emit(p for p in self.plan.points() if not isinstance(p, pt.Bounded))
        outer = [a for a, r in self.plan.roles.items() if r != SUMMED and a not in (self.rows, self.columns)]
        m, n = self.extent(self.rows), self.extent(self.columns)
        rows, columns = self.piece()
        counts = [*(self.plan.extents[a] for a in outer), dims.ceil_div(m, rows), dims.ceil_div(n, columns)]
        pieces = dims.product(counts)
        if isinstance(pieces, int) and pieces == 1:
            with ExitStack() as stack:
                for axis in outer:
                    stack.enter_context(body.axis(axis, ir.index(0)))
                self.block((ir.index(0), m), (ir.index(0), n))
            return Built(b.kernel(), tuple(body.params), None)
        with b.loop("piece", 0, body.extent(pieces), kind="parallel") as scope, ExitStack() as stack:
            assert scope.index is not None
            *where, row, column = digits(body, scope.index, counts)
            for axis, index in zip(outer, where, strict=True):
                stack.enter_context(body.axis(axis, index))
            self.block(self.part(row, rows, m), self.part(column, columns, n))
        return Built(b.kernel(), tuple(body.params), pieces)

    def piece(self) -> tuple[int, int]:
        """Rows and columns of a piece: as many as make it worth a thread's while."""
        m, n, k = (known(self.extent(axis)) for axis in (self.rows, self.columns, self.summed))
        step = self.width if self.by_lanes_of_k else self.width * self.lanes
        block = ROW_BLOCK // self.height * self.height
        rows = min(-(-max(m, 1) // self.height) * self.height, block)
        columns = max(PIECE // max(rows * k, 1) // step, 1) * step
        if columns >= n and n * rows * k < PIECE:  # few columns: more rows
            rows = max(PIECE // max(n * k, 1) // block, 1) * block
        return rows, columns

    def part(self, number: Expr, size: int, extent: Extent) -> tuple[Expr, Extent | Expr]:
        """Where a block begins, and how long it is: a number where that is the same for all of them."""
        if isinstance(extent, int) and extent <= size:
            return ir.index(0), extent
        lo = self.b.let(number * size, "lo")
        if isinstance(extent, int) and extent % size == 0:
            return lo, size
        return lo, self.b.let(ir.minimum(self.body.extent(extent) - lo, size), "size")

    # -- tiles --------------------------------------------------------------------------------------

    def block(self, rows: tuple[Expr, Extent | Expr], columns: tuple[Expr, Extent | Expr]) -> None:
        """All tiles of a block: (begin, length) of its rows and columns."""
        one = 1 if self.by_lanes_of_k else self.lanes

        def strip(column: Expr, wide: int, ragged: bool) -> None:
            masked = ragged and not self.by_lanes_of_k
            width = -(-wide // one)
            self.split("r", rows, self.height, 1,
                       lambda row, high, _: self.tile(row, high, column, width, masked))  # fmt: skip

        self.split("c", columns, self.width * one, one, strip)

    def split(self, name: str, part: tuple[Expr, Extent | Expr], step: int, one: int, tile: Tile) -> None:
        """Whole tiles by `step`; the rest is a tile of its own if its size is known, else tiles by `one`."""
        lo, length = part
        b, tail = self.b, 0
        if isinstance(length, int):
            whole: Expr = lo + length // step * step
            tail = length % step
            some = length >= step
        else:
            size = length if isinstance(length, Expr) else self.body.extent(length)
            whole = b.let(lo + (size - size % step), "border")
            some = True
        if some:
            with b.loop(name, lo, whole, step) as scope, self.body.block():
                assert scope.index is not None
                tile(scope.index, step, False)
        if tail:
            with self.body.block():
                tile(b.let(whole, name), tail, tail % one > 0)
        elif not isinstance(length, int):
            with b.loop(name, whole, lo + size, one) as scope, self.body.block():
                assert scope.index is not None
                tile(scope.index, one, True)

    def tile(self, row: Expr, height: int, base: Expr, width: int, ragged: bool) -> None:
        """The sums of `height` rows and `width` vectors of columns, the last of which may be `ragged`."""
        b = self.b
        step = 1 if self.by_lanes_of_k else self.lanes
        rows = [row + i for i in range(height)]
        columns = [base + u * step for u in range(width)]
        end = self.body.extent(self.extent(self.columns))
        masks: list[Expr | None] = [None for _ in columns]
        if ragged:
            masks[-1] = b.let(ir.lane_mask(columns[-1], end, self.lanes), "mask")
        zero = ir.const(0, ir.vector(self.dtype, self.lanes))
        state: list[Expr] = [zero] * (height * width)
        others = [a for a, r in self.plan.roles.items() if r == SUMMED and a != self.summed]
        state = self.nest(others, rows, columns, masks, state)
        if self.by_lanes_of_k:
            state = [b.let(ir.ReduceLanes("add", v), "total") for v in state]
        if not self.maps or len(state) == 1:
            for i, r in enumerate(rows):
                for u, (c, mask) in enumerate(zip(columns, masks, strict=True)):
                    self.finish(r, c, mask, state[i * width + u])
            return
        # a loop over the sums in memory: code for each of them would take long to compile
        held = b.alloc("tile", self.dtype, len(state) * state[0].type.lanes, "stack")
        lanes = state[0].type.lanes
        for i, v in enumerate(state):
            b.store(held, i * lanes, v)
        with b.loop("f", 0, height) as down, b.loop("g", 0, width) as across:
            assert down.index is not None and across.index is not None
            total = b.load(held, (down.index * width + across.index) * lanes, lanes)
            column = b.let(base + across.index * step, "column")
            mask = None
            if ragged:
                mask = b.let(ir.lane_mask(column, end, lanes), "mask")
            self.finish(row + down.index, column, mask, total)

    def finish(self, row: Expr, column: Expr, mask: Expr | None, total: Expr) -> None:
        with ExitStack() as stack:
            self.at(stack, self.rows, row, False, None)
            self.at(stack, self.columns, column, not self.by_lanes_of_k, mask)
            held = self.plan.held
            self.body.values[held.number] = self.b.let(ir.convert(total, held.dtype), "total")
            self.body.emit(self.finished)
            for item in self.plan.stores:
                self.body.store(*item)

    def at(self, stack: ExitStack, axis: int | None, index: Expr, vector: bool, mask: Expr | None) -> None:
        if axis is None:  # the loop is there all the same, and what stands in it is not known outside
            stack.enter_context(self.body.block())
        elif vector:
            stack.enter_context(self.body.lane_axis(axis, index, self.lanes, mask))
        else:
            stack.enter_context(self.body.axis(axis, index))

    # -- sums ---------------------------------------------------------------------------------------

    def nest(
        self,
        axes: Sequence[int],
        rows: Sequence[Expr],
        columns: Sequence[Expr],
        masks: Masks,
        state: list[Expr],
    ) -> list[Expr]:
        """Contracted axes that did not become one: loops around the last of them."""
        if not axes:
            return self.products(rows, columns, masks, state)
        with self.b.loop(
            "ks", 0, self.body.extent(self.plan.extents[axes[0]]), carry=_named("all", state)
        ) as scope:
            assert scope.index is not None
            with self.body.axis(axes[0], scope.index):
                scope.next(*self.nest(axes[1:], rows, columns, masks, list(scope.carried)))
        return list(scope.results)

    def products(
        self, rows: Sequence[Expr], columns: Sequence[Expr], masks: Masks, state: list[Expr]
    ) -> list[Expr]:
        """The sums over k, in blocks when k may be long."""
        extent = self.extent(self.summed)
        size = K_BLOCK * (self.lanes if self.by_lanes_of_k else 1)
        n = self.body.extent(extent)
        if self.dtype not in ir.FLOATS or (isinstance(extent, int) and extent <= 2 * size):
            return self.run(rows, columns, masks, ir.index(0), n, extent, state)
        with self.b.loop("kb", 0, n, size, carry=_named("sum", state)) as scope:
            assert scope.index is not None
            hi = self.b.let(ir.minimum(n, scope.index + size), "hi")
            zero: list[Expr] = [ir.const(0, v.type) for v in state]
            part = self.run(rows, columns, masks, scope.index, hi, None, zero)
            scope.next(*(a + b for a, b in zip(scope.carried, part, strict=True)))
        return list(scope.results)

    def run(
        self, rows: Sequence[Expr], columns: Sequence[Expr], masks: Masks, lo: Expr, hi: Expr,
        length: Extent | None, state: list[Expr],
    ) -> list[Expr]:  # fmt: skip
        if not self.by_lanes_of_k:
            with self.b.loop("k", lo, hi, carry=_named("acc", state)) as scope:
                assert scope.index is not None
                scope.next(*self.step(rows, columns, masks, None, scope.index, scope.carried))
            return list(scope.results)
        static = length if isinstance(length, int) else None
        border = self.b.let(
            hi - (hi - lo) % self.lanes if static is None else lo + static // self.lanes * self.lanes
        )
        with self.b.loop("k", lo, border, self.lanes, carry=_named("acc", state)) as scope:
            assert scope.index is not None
            scope.next(*self.step(rows, columns, masks, None, scope.index, scope.carried))
        if static is not None and static % self.lanes == 0:
            return list(scope.results)
        with self.b.loop("k", border, hi, self.lanes, carry=_named("acc", scope.results)) as tail:
            assert tail.index is not None
            inside = self.b.let(ir.lane_mask(tail.index, hi, self.lanes), "mask")
            tail.next(*self.step(rows, columns, masks, inside, tail.index, tail.carried))
        return list(tail.results)

    def step(
        self, rows: Sequence[Expr], columns: Sequence[Expr], masks: Masks, inside: Expr | None, k: Expr,
        carried: Sequence[Expr],
    ) -> list[Expr]:  # fmt: skip
        """The sums with the products of one k, or of a vector of them, whose lanes `inside` count."""
        vector = not self.by_lanes_of_k
        with ExitStack() as stack:
            self.at(stack, self.summed, k, self.by_lanes_of_k, inside)
            rights = [self.operand(self.right, self.columns, c, vector, mask if vector else inside)
                      for c, mask in zip(columns, masks, strict=True)]  # fmt: skip
            following: list[Expr] = []
            for row in rows:
                left = self.operand(self.left, self.rows, row, False, None if vector else inside)
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
