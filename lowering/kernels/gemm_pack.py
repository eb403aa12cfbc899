"""Operands of `gemm` laid out as its register tile reads them.

Right: panels of columns; for each k the columns of a panel side by side. They are made by the piece that
uses them or, of constants, once for all calls by a kernel of their own.

Narrow numbers that an instruction multiplies in pairs (`loop.DOTS`) are laid out as such: two neighbouring k
in a u32. All of this module then counts pairs where it says k.

Left, where its elements cannot be broadcast from where they lie: a kernel of its own evaluates it, as rows
or, when it lies in columns, as tiles of rows; for each k the rows of a tile side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Memory
from ingot.lowering.kernels.body import Body
from ingot.lowering.kernels.contraction import COLUMNS, ROWS, SUMMED, Plan, unit
from ingot.lowering.kernels.gemm_blocks import Blocking, blocking
from ingot.lowering.kernels.loops import vector_loop
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Expr
from ingot.lowering.loop_builder import Builder
from ingot.lowering.points import Point
from ingot.tracer import dims
from ingot.tracer.dims import Extent
from ingot.tracer.record import record

_CHUNK = 96
"""Rows that a piece lays out: some cache lines of each k."""


def build_right(plan: Plan, name: str, target: Target, buffers: Memory) -> tuple[Built, Extent]:
    """The kernel that writes all panels of `right` to its last buffer, and how many numbers these are."""
    blocks = blocking(plan, target)
    body = body_of(name, buffers)
    columns, k = plan.extent(plan.last(COLUMNS)), plan.steps
    outer = outer_of(plan, plan.right)
    counts = [*(plan.extents[a] for a in outer), dims.ceil_div(columns, blocks.columns)]
    pieces = dims.product(counts)
    with body.b.loop("panel", 0, body.extent(pieces), kind="parallel") as scope, ExitStack() as stack:
        assert scope.index is not None
        *where, panel = digits(body, scope.index, counts)
        for axis, index in zip(outer, where, strict=True):
            stack.enter_context(body.axis(axis, index))
        depth = body.extent(k)
        base = body.b.let(scope.index * depth * blocks.columns, "base")
        panels = Panels(body, plan, blocks, body.buffers[buffers[-1][0]])
        panels.pack(body.b.let(panel * blocks.columns, "column"), ir.index(0), depth, base)
    return Built(body.b.kernel(), tuple(body.params), pieces), pieces * k * blocks.columns


def build_left(plan: Plan, name: str, target: Target, buffers: Memory) -> tuple[Built, Extent]:
    """The kernel that lays out `left` in its last buffer, and how many numbers these are."""
    blocks = blocking(plan, target)
    layout = left_layout(plan, blocks)
    body = body_of(name, buffers)
    memory = body.buffers[buffers[-1][0]]
    rows = plan.extent(plan.last(ROWS))
    outer = outer_of(plan, plan.left)
    chunk = -(-_CHUNK // blocks.height) * blocks.height
    counts = [*(plan.extents[a] for a in outer), dims.ceil_div(rows, chunk)]
    pieces = dims.product(counts)
    with body.b.loop("piece", 0, body.extent(pieces), kind="parallel") as scope, ExitStack() as stack:
        assert scope.index is not None
        *where, block = digits(body, scope.index, counts)
        for axis, index in zip(outer, where, strict=True):
            stack.enter_context(body.axis(axis, index))
        lo = body.b.let(block * chunk, "lo")
        hi = body.b.let(ir.minimum(lo + chunk, body.extent(rows)), "hi")
        layout.write(body, plan, memory, layout.start(body, plan), lo, hi)
    return Built(body.b.kernel(), tuple(body.params), pieces), layout.count(plan)


def body_of(name: str, buffers: Memory) -> Body:
    """A kernel to be written, with these buffers."""
    b = Builder(name)
    names = {v: b.buffer("x" if access == "read" else "y", dtype, access) for v, dtype, access in buffers}
    return Body(b, names)


# -- axes -------------------------------------------------------------------------------------------


def outer_of(plan: Plan, point: Point) -> list[int]:
    """The axes beside rows, columns and k that an operand depends on."""
    return [a for a in plan.outer_axes() if a in point.axes]


def outer_number(body: Body, plan: Plan, point: Point) -> Expr:
    """The number of the matrix, among those of an operand, at the open axes."""
    number: Expr = ir.index(0)
    for axis in outer_of(plan, point):
        number = number * body.extent(plan.extents[axis]) + body.index[axis]
    return number


def digits(body: Body, index: Expr, counts: Sequence[Extent]) -> list[Expr]:
    """The digits of a number whose places have these counts, the last one fastest."""
    found: list[Expr] = []
    for count in reversed(counts[1:]):
        if isinstance(count, int) and count == 1:
            found.append(ir.index(0))
            continue
        size = body.extent(count)
        found.append(body.b.let(index % size, "at"))
        index = body.b.let(index // size, "rest")
    return [index, *reversed(found)]


def at_axis(
    body: Body, stack: ExitStack, axis: int | None, index: Expr, lanes: int = 1, mask: Expr | None = None
) -> None:
    """Open an axis at an index, with lanes if there are several; without an axis a block of its own."""
    if axis is None:
        stack.enter_context(body.block())
    elif lanes > 1:
        stack.enter_context(body.lane_axis(axis, index, lanes, mask))
    else:
        stack.enter_context(body.axis(axis, index))


def evaluated(
    body: Body, point: Point, axis: int | None, base: Expr, lanes: int, mask: Expr | None, dtype: str
) -> Expr:
    """A vector of `point` along an axis."""
    with ExitStack() as stack:
        at_axis(body, stack, axis, base, lanes, mask)
        body.emit(pt.reachable([point]))
        return body.b.let(ir.broadcast(ir.convert(body[point], dtype), lanes), "v")


def across(
    body: Body, plan: Plan, point: Point, axis: int | None, base: Expr, lanes: int, mask: Expr | None, k: Expr
) -> Expr:
    """A vector along rows or columns, of one k or of a pair of them."""
    summed = plan.last(SUMMED)

    def at(k: Expr, dtype: str) -> Expr:
        with ExitStack() as stack:
            at_axis(body, stack, summed, k)
            return evaluated(body, point, axis, base, lanes, mask, dtype)

    if not plan.pairs:
        return at(k, plan.packed_dtype)
    narrow, extent = _NARROW[plan.pairs], plan.extent(summed)
    first = at(body.b.let(k * 2, "k"), narrow)
    if isinstance(extent, int) and extent % 2 == 0:
        return _paired(body, first, at(body.b.let(k * 2 + 1, "k"), narrow))
    end = body.extent(extent)
    second = at(body.b.let(ir.minimum(k * 2 + 1, end - 1), "k"), narrow)
    there = ir.broadcast(k * 2 + 1 < end, lanes)
    return _paired(body, first, ir.select(there, second, _zero(second)))


def along(body: Body, plan: Plan, point: Point, lanes: int, mask: Expr | None, k: Expr) -> Expr:
    """A vector along k, or along pairs of them."""
    summed = plan.last(SUMMED)
    if not plan.pairs:
        return evaluated(body, point, summed, k, lanes, mask, plan.packed_dtype)
    narrow, extent = _NARROW[plan.pairs], plan.extent(summed)
    inside: Expr | None = None
    if mask is not None or not (isinstance(extent, int) and extent % 2 == 0):
        inside = body.b.let(ir.lane_mask(k * 2, body.extent(extent), 2 * lanes), "inside")
    both = evaluated(body, point, summed, k * 2, 2 * lanes, inside, narrow)
    if inside is not None and not isinstance(point, pt.Read):  # what lies beyond must add nothing
        both = body.b.let(ir.select(inside, both, _zero(both)), "v")
    return _paired(body, *(ir.Shuffle(both, both, tuple(range(i, 2 * lanes, 2))) for i in (0, 1)))


_NARROW = {"dot_bf16": "bf16", "dot_i16": "i16"}


def _zero(like: Expr) -> Expr:
    return ir.const(0, like.type)


def _paired(body: Body, first: Expr, second: Expr) -> Expr:
    """Two vectors of 16 bits as one of 32."""
    low, high = (ir.convert(ir.Bitcast(x, "u16"), "u32") for x in (first, second))
    return body.b.let(low | high << 16, "pair")


# -- left -------------------------------------------------------------------------------------------


@record
class LeftLayout:
    """`tiles`: for each k the `height` rows of a tile side by side, else rows. `stride` numbers are from one
    tile, or row, to the next: a little more than it holds, so that neighbours do not meet in one set of a
    cache, and because the last vector of a tile reaches beyond it."""

    tiles: bool
    blocks: Blocking
    stride: Extent

    def count(self, plan: Plan) -> Extent:
        rows = plan.extent(plan.last(ROWS))
        each = dims.ceil_div(rows, self.blocks.height) if self.tiles else rows
        return dims.product([plan.extents[a] for a in outer_of(plan, plan.left)]) * each * self.stride

    def start(self, body: Body, plan: Plan) -> Expr:
        """Where the matrix at the open axes begins."""
        rows = plan.extent(plan.last(ROWS))
        each = dims.ceil_div(rows, self.blocks.height) if self.tiles else rows
        return body.b.let(outer_number(body, plan, plan.left) * body.extent(each * self.stride), "start")

    def row(self, body: Body, start: Expr, row: Expr, whole: Expr, k: Expr) -> tuple[Expr, Expr, Expr]:
        """Where a row has its element `k`; the ways to the next row and to the next k. `whole`: the first
        row of its tile."""
        stride = body.extent(self.stride)
        if not self.tiles:
            return start + row * stride + k, stride, ir.index(1)
        height = self.blocks.height
        return start + whole // height * stride + (row - whole) + k * height, ir.index(1), ir.index(height)

    def write(self, body: Body, plan: Plan, memory: str, start: Expr, lo: Expr, hi: Expr) -> None:
        """The rows [lo, hi), evaluated."""
        if self.tiles:
            self.write_tiles(body, plan, memory, start, lo, hi)
            return
        b, lanes, left = body.b, self.blocks.lanes, plan.left
        k = body.extent(plan.steps)
        with b.loop("r", lo, hi) as scope, ExitStack() as stack:
            assert scope.index is not None
            at_axis(body, stack, plan.last(ROWS), scope.index)
            base = b.let(start + scope.index * body.extent(self.stride), "base")
            body.emit(pt.reachable([left]))

            def part(j: Expr, mask: Expr | None, carried: Sequence[Expr]) -> Sequence[Expr]:
                b.store(memory, base + j, along(body, plan, left, lanes, mask, j), mask)
                return ()

            vector_loop(b, ir.index(0), k, lanes, [[]], part)

    def write_tiles(self, body: Body, plan: Plan, memory: str, start: Expr, lo: Expr, hi: Expr) -> None:
        """For each k the tiles one after the other. What a vector writes beyond its tile, that of the next k
        writes again."""
        b, height, lanes, left = body.b, self.blocks.height, self.blocks.lanes, plan.left
        parts = range(0, height, lanes)
        stride = body.extent(self.stride)
        end = body.extent(plan.extent(plan.last(ROWS)))
        safe = b.let(ir.maximum(ir.minimum(hi, end - (len(parts) * lanes - 1)), lo), "safe")
        safe = b.let(safe + (lo - safe) % height, "safe")  # tiles from here on reach beyond the last row
        with b.loop("k", 0, body.extent(plan.steps)) as scope, body.block():
            assert scope.index is not None
            for first, last, masked in ((lo, safe, False), (safe, hi, True)):
                with b.loop("r", first, last, height) as tile:
                    assert tile.index is not None
                    row = tile.index
                    at = b.let(start + row // height * stride + scope.index * height, "at")
                    for u in parts:
                        mask = b.let(ir.lane_mask(row + u, end, lanes), "mask") if masked else None
                        value = across(body, plan, left, plan.last(ROWS), row + u, lanes, mask, scope.index)
                        b.store(memory, at + u, value)


def left_layout(plan: Plan, blocks: Blocking) -> LeftLayout:
    tiles = unit(plan.left, plan.last(ROWS)) and not unit(plan.left, plan.last(SUMMED))
    k = plan.steps
    if not tiles:
        return LeftLayout(False, blocks, k + blocks.lanes)
    beyond = -(-blocks.height // blocks.lanes) * blocks.lanes
    return LeftLayout(True, blocks, k * blocks.height + beyond)


# -- right ------------------------------------------------------------------------------------------


class Panels:
    """Writes panels of `right` to `memory`. Columns beyond the last one have no meaning there. An operand
    that lies along k is read in vectors of k and transposed in registers."""

    def __init__(self, body: Body, plan: Plan, blocks: Blocking, memory: str) -> None:
        self.body, self.b, self.plan, self.memory = body, body.b, plan, memory
        self.columns = plan.last(COLUMNS)
        self.extent = plan.extent(self.columns)
        self.lanes, self.width, self.size = blocks.lanes, blocks.width, blocks.columns
        self.transposed = unit(plan.right, plan.last(SUMMED)) and not unit(plan.right, self.columns)

    def pack(self, column: Expr, start: Expr, depth: Expr, base: Expr) -> None:
        """The panel from `column` on, of the `depth` k from `start`, to memory from `base` on."""
        border: Expr = ir.index(0)
        if self.transposed:
            border = self.b.let(depth - depth % self.lanes, "border")
            self.squares(column, start, border, base)
        if isinstance(self.extent, int) and self.extent % self.size == 0:
            self.straight(column, None, start, border, depth, base)
            return
        end = self.body.extent(self.extent)
        with self.b.branch(column + self.size <= end) as branch:
            with branch.then():
                self.straight(column, None, start, border, depth, base)
            with branch.orelse():
                self.straight(column, end, start, border, depth, base)

    def straight(
        self, column: Expr, end: Expr | None, start: Expr, lo: Expr, hi: Expr, base: Expr
    ) -> None:  # fmt: skip
        """k by k, vectors of columns; `end`: columns from there on are not read."""
        b, offsets = self.b, [u * self.lanes for u in range(self.width)]
        masks: list[Expr | None] = [None for _ in offsets]
        if end is not None:
            masks = [b.let(ir.lane_mask(column + o, end, self.lanes), "mask") for o in offsets]
        with b.loop("p", lo, hi) as scope, self.body.block():
            assert scope.index is not None
            k = b.let(start + scope.index, "k")
            at = b.let(base + scope.index * self.size, "at")
            for offset, mask in zip(offsets, masks, strict=True):
                value = across(self.body, self.plan, self.plan.right, self.columns, column + offset,
                               self.lanes, mask, k)  # fmt: skip
                b.store(self.memory, at + offset, value)

    def squares(self, column: Expr, start: Expr, border: Expr, base: Expr) -> None:
        """As many columns as lanes, vectors of k, transposed."""
        b, lanes, size = self.b, self.lanes, self.size
        last = self.body.extent(self.extent) - 1
        with b.loop("q", 0, size, lanes) as across:
            assert across.index is not None
            first = b.let(column + across.index, "first")
            with b.loop("p", 0, border, lanes) as scope:
                assert scope.index is not None
                found: list[Expr] = []
                for i in range(lanes):
                    with ExitStack() as stack:
                        # a column beyond the last one is the last one again: it may be read
                        index = b.let(ir.minimum(first + i, last), "column")
                        at_axis(self.body, stack, self.columns, index)
                        k = b.let(start + scope.index, "k")
                        found.append(along(self.body, self.plan, self.plan.right, lanes, None, k))
                at = b.let(base + scope.index * size + across.index, "at")
                for i, value in enumerate(transposed(b, found)):
                    b.store(self.memory, at + i * size, value)


def transposed(b: Builder, rows: Sequence[Expr]) -> list[Expr]:
    """As many vectors as they have lanes, transposed: blocks off the diagonal change places, in squares of
    2, 4, ... lanes."""
    rows = list(rows)
    lanes = len(rows)
    distance = 1
    while distance < lanes:
        following = list(rows)
        low = tuple(i if not i & distance else lanes + i - distance for i in range(lanes))
        high = tuple(i + distance if not i & distance else lanes + i for i in range(lanes))
        for i in range(lanes):
            if not i & distance:
                first, second = rows[i], rows[i + distance]
                following[i] = b.let(ir.Shuffle(first, second, low), "s")
                following[i + distance] = b.let(ir.Shuffle(first, second, high), "s")
        rows, distance = following, distance * 2
    return rows
