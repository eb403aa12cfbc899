"""A few rows times a matrix that is read once: as fast as memory gives it.

    parallel for pieces of (other axes, parts of k, blocks of columns):
      sums = 0
      for k by 4:
        for vectors of columns: sums += left[., k] * right[k, columns] + left[., k + 1] * ...
      store f(sums)

Rows of `right` are read from end to end, a few at once, as hardware foresees it. So pieces are parts of k
rather than of columns: how many is a function of the shape alone. Where there are several, `f` has a kernel
of its own that adds up their sums. The products of a step are added before they join the sums, which bounds
the rounding error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Memory
from ingot.lowering.kernels.contraction import COLUMNS, PARTS, ROWS, SUMMED, Plan, unit
from ingot.lowering.kernels.gemm_blocks import known
from ingot.lowering.kernels.gemm_pack import at_axis, body_of, digits, evaluated
from ingot.lowering.kernels.loops import vector_loop
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Expr
from ingot.tracer import dims
from ingot.tracer.dims import Extent

MOST_ROWS = 6
LEAST_BYTES = 1 << 17
"""Of the matrix; smaller ones stay in caches."""
RUN = 1 << 10
"""Bytes of a row, at least."""
SUMS = 1 << 14
"""Bytes of sums, at most, which stay in the nearest cache."""
PART, MOST_PARTS = 1 << 20, 64
"""Bytes of the matrix in a part, at least; and how many parts there are at most."""


def suits(plan: Plan) -> bool:
    """Whether a few rows are multiplied with a matrix whose rows lie in memory, of a size that makes this
    matter."""
    if not plan.is_matrix_product or not unit(plan.right, plan.last(COLUMNS)):
        return False
    m, n, k = (plan.extent(plan.last(role)) for role in (ROWS, COLUMNS, SUMMED))
    row = known(n) * ir.BYTES[plan.compute_dtype]
    return isinstance(m, int) and 0 < m <= MOST_ROWS and row >= RUN and row * known(k) >= LEAST_BYTES


def parts(plan: Plan) -> int:
    """Into how many parts k is cut."""
    n, k = (plan.extent(plan.last(role)) for role in (COLUMNS, SUMMED))
    if not (isinstance(n, int) and isinstance(k, int)):
        return 1
    return max(1, min(MOST_PARTS, n * k * ir.BYTES[plan.compute_dtype] // PART))


def build(plan: Plan, name: str, target: Target, buffers: Memory) -> Built:
    """The kernel of a plan, or that which adds up the sums of the parts."""
    return _Thin(plan, name, target, buffers).build()


def build_parts(plan: Plan, name: str, target: Target, buffers: Memory) -> tuple[Built, Extent]:
    """The kernel that writes the sums of the parts to its last buffer, and how many numbers these are."""
    return _Thin(plan, name, target, buffers).build_parts()


class _Thin:
    def __init__(self, plan: Plan, name: str, target: Target, buffers: Memory) -> None:
        self.plan = plan
        self.body = body_of(name, buffers)
        self.b = self.body.b
        self.dtype = plan.compute_dtype
        self.rows, self.columns, self.summed = (plan.last(role) for role in (ROWS, COLUMNS, SUMMED))
        self.n, self.k = (plan.extent(axis) for axis in (self.columns, self.summed))
        self.lanes = target.lanes(self.dtype)
        self.count = known(plan.extent(self.rows))
        self.step = 4 if target.registers >= 32 or self.count <= 2 else 2
        room = SUMS // (self.count * ir.BYTES[self.dtype])
        self.block = -(-min(known(self.n, room), room) // self.lanes) * self.lanes
        self.parts = parts(plan)
        self.outer = plan.outer_axes()
        self.extents = [plan.extents[a] for a in self.outer]

    def build(self) -> Built:
        if PARTS in self.plan.packed:
            return self.pieces([*self.extents, dims.ceil_div(self.n, self.block)], 0, self.total)
        count = self.count * self.block
        self.sums, self.width = self.b.alloc("sums", self.dtype, count, "scratch", 0), self.block
        scratch = count * ir.BYTES[self.dtype]
        return self.pieces([*self.extents, dims.ceil_div(self.n, self.block)], scratch, self.whole)

    def build_parts(self) -> tuple[Built, Extent]:
        assert isinstance(self.n, int)
        self.sums, self.width = self.body.buffers[PARTS], self.n
        counts = [*self.extents, self.parts, dims.ceil_div(self.n, self.block)]
        count = dims.product(self.extents) * (self.parts * self.count * self.n)
        return self.pieces(counts, 0, self.part), count

    def pieces(
        self, counts: list[Extent], scratch: int, write: Callable[[Sequence[Expr]], None]
    ) -> Built:  # fmt: skip
        b, body = self.b, self.body
        pieces = dims.product(counts)
        body.emit(p for p in self.plan.points() if not isinstance(p, pt.Bounded))
        with b.loop("piece", 0, body.extent(pieces), kind="parallel") as scope, ExitStack() as stack:
            assert scope.index is not None
            *where, column = digits(body, scope.index, counts)
            for axis, index in zip(self.outer, where, strict=False):
                stack.enter_context(body.axis(axis, index))
            self.number: Expr = ir.index(0)
            for extent, index in zip(counts, where, strict=False):
                self.number = self.number * body.extent(extent) + index
            self.lo = b.let(column * self.block, "lo")
            self.length: Expr = ir.index(self.block)
            if not (isinstance(self.n, int) and self.n % self.block == 0):
                self.length = b.let(ir.minimum(body.extent(self.n) - self.lo, self.block), "length")
            write(where)
        return Built(b.kernel(), tuple(body.params), pieces, scratch)

    def whole(self, where: Sequence[Expr]) -> None:
        """All products of a block of columns, and what follows."""
        self.base: Expr = ir.index(0)
        self.add_all(ir.index(0), self.body.extent(self.k))
        for row in range(self.count):

            def held(j: Expr, mask: Expr | None, row: int = row) -> Expr:
                return self.b.load(self.sums, row * self.width + j, self.lanes)

            self.finish(row, held)

    def part(self, where: Sequence[Expr]) -> None:
        """The products of a part of k."""
        assert isinstance(self.k, int)
        size = -(-self.k // self.parts)
        self.base = self.b.let(self.number * (self.count * self.width) + self.lo, "base")
        lo = self.b.let(where[-1] * size, "from")
        self.add_all(ir.minimum(lo, self.k), self.b.let(ir.minimum(lo + size, self.k), "to"))

    def total(self, where: Sequence[Expr]) -> None:
        """Add up the sums of all parts."""
        assert isinstance(self.n, int)
        b, size = self.b, self.count * self.n
        memory = self.body.buffers[PARTS]
        zero = ir.const(0, ir.vector(self.dtype, self.lanes))
        for row in range(self.count):
            base = b.let(self.number * (self.parts * size) + row * self.n + self.lo, "base")

            def sum(j: Expr, mask: Expr | None, base: Expr = base) -> Expr:
                with b.loop("part", 0, self.parts, carry={"sum": zero}) as scope:
                    assert scope.index is not None
                    more = b.load(memory, base + scope.index * size + j, self.lanes, mask)
                    scope.next(scope.carried[0] + more)
                return scope.results[0]

            self.finish(row, sum)

    # -- sums ---------------------------------------------------------------------------------------

    def add_all(self, lo: Expr, hi: Expr) -> None:
        """The sums of the products of [lo, hi), from zero."""
        b = self.b
        zero = ir.const(0, ir.vector(self.dtype, self.lanes))
        for row in range(self.count):

            def clear(j: Expr, mask: Expr | None, carried: Sequence[Expr], row: int = row) -> Sequence[Expr]:
                b.store(self.sums, self.base + (row * self.width + j), zero, mask)
                return ()

            vector_loop(b, ir.index(0), self.length, self.lanes, [[]], clear)
        border = b.let(hi - (hi - lo) % self.step, "border")
        for first, last, step in ((lo, border, self.step), (border, hi, 1)):
            if first == last:
                continue
            with b.loop("k", first, last, step) as scope, self.body.block():
                assert scope.index is not None
                self.add(scope.index, step)

    def add(self, k: Expr, count: int) -> None:
        """The products of some k."""
        b, plan = self.b, self.plan
        ks = [b.let(k + u, "k") for u in range(count)]
        lefts = [[self.left(row, at) for at in ks] for row in range(self.count)]

        def part(j: Expr, mask: Expr | None, carried: Sequence[Expr]) -> Sequence[Expr]:
            rights = []
            for at in ks:
                with ExitStack() as stack:
                    at_axis(self.body, stack, self.summed, at)
                    rights.append(evaluated(self.body, plan.right, self.columns, self.lo + j, self.lanes,
                                            mask, self.dtype))  # fmt: skip
            for row in range(self.count):
                at = b.let(self.base + (row * self.width + j), "at")
                total: Expr | None = None
                for left, right in zip(lefts[row], rights, strict=True):
                    total = left * right if total is None else self.product(left, right, total)
                assert total is not None
                b.store(self.sums, at, b.load(self.sums, at, self.lanes, mask) + total, mask)
            return ()

        vector_loop(b, ir.index(0), self.length, self.lanes, [[]], part)

    def left(self, row: int, k: Expr) -> Expr:
        """An element of `left` in all lanes."""
        with ExitStack() as stack:
            at_axis(self.body, stack, self.rows, ir.index(row))
            at_axis(self.body, stack, self.summed, k)
            self.body.emit(pt.reachable([self.plan.left]))
            value = ir.convert(self.body[self.plan.left], self.dtype)
            return self.b.let(ir.broadcast(value, self.lanes), "a")

    def product(self, left: Expr, right: Expr, total: Expr) -> Expr:
        if self.dtype in ir.FLOATS:
            return ir.Math("fma", (left, right, total))
        return total + left * right

    # -- results ------------------------------------------------------------------------------------

    def finish(self, row: int, total: Callable[[Expr, Expr | None], Expr]) -> None:
        """What is done to the sums of a row, `total(column, mask)`, and stored."""
        b, body, plan = self.b, self.body, self.plan
        points = pt.reachable([p for _, _, p in plan.stores])
        with ExitStack() as stack:
            at_axis(body, stack, self.rows, ir.index(row))
            body.emit(points)

            def part(j: Expr, mask: Expr | None, carried: Sequence[Expr]) -> Sequence[Expr]:
                value = total(j, mask)
                with ExitStack() as lanes:
                    at_axis(body, lanes, self.columns, self.lo + j, self.lanes, mask)
                    body.values[plan.held.number] = b.let(ir.convert(value, plan.held.dtype), "total")
                    body.emit(points)
                    for item in plan.stores:
                        body.store(*item)
                return ()

            vector_loop(b, ir.index(0), self.length, self.lanes, [[]], part)
