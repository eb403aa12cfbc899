"""Scatters: the base is copied, then the updates are combined with it one after the other, in their order.

Where whole rows are scattered, their elements are combined in vectors, and blocks of columns are independent
of each other:

    parallel for blocks of the last axis:  copy the block;  for each update: combine the block

That pays when there are many more updates than elements: a block of all rows is slow to copy. Other scatters
are serial. Threads with parts of the result would each read all indices; threads with parts of the updates
would need results of their own, and would add them up in another order than that of the updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Group, Memory
from ingot.lowering.kernels import rows
from ingot.lowering.kernels.body import Body
from ingot.lowering.kernels.loops import fitting_lanes, vector_loop
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Expr
from ingot.lowering.points import ZERO, Place, Point, Points, along, broadcast_index, linear
from ingot.lowering.pull import Index, Puller, producers
from ingot.lowering.rules.composed import combined
from ingot.lowering.rules.index import loops_of
from ingot.tracer import dims
from ingot.tracer.dims import Extent
from ingot.tracer.graph import Graph
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives.index import Scatter
from ingot.tracer.record import record, replace

BLOCK = 128
"""Elements of a row that a piece takes: some lines of the cache."""
MANY = 4
"""How many times as many elements updates must have as the result to be split among threads."""
_COMBINE: dict[str, Primitive] = {"add": ew.Add(), "mul": ew.Mul(), "min": ew.Minimum(), "max": ew.Maximum()}


@record(frozen=False)
class Plan:
    """`copy` writes the base; then, for every index of `extents`, what is `held` in the elements of `stores`
    is exchanged for new values that may depend on it. `window`: the axis of `extents` that is also the last
    one of the result, which no index replaces. `split`: its blocks run in parallel."""

    copy: rows.Plan
    extents: dict[int, Extent]
    held: tuple[Point, ...]
    stores: list[pt.Stored]
    window: int | None
    split: bool

    def points(self) -> list[Point]:
        return [*self.copy.points(), *self.update_points()]

    def update_points(self) -> list[Point]:
        return pt.reachable([*(point for _, _, point in self.stores), *self.place_points()])

    def place_points(self) -> list[Point]:
        return pt.reachable([point for _, place, _ in self.stores for point, _ in place.loaded])


def plan(graph: Graph, group: Group, stored: frozenset[int]) -> Plan:
    """The points of a scatter, the only root of its group."""
    (root,) = group.roots
    node = producers(graph)[root]
    scatter = node.primitive
    assert isinstance(scatter, Scatter)
    base, update, *positions = node.operands
    shape = graph.avals[root].shape

    def nothing(value: int, index: Index) -> Point | None:
        return None

    whole = tuple(along(a) for a in range(len(shape)))
    puller = Puller(graph, Points(), stored.__contains__, nothing)
    stage = rows.Stage(stores=pt.stores(root, linear(whole, shape), puller.pull(base, whole)))
    copy = rows.Plan(dict(enumerate(shape)), frozenset(), [stage])

    points = Points()
    puller = Puller(graph, points, stored.__contains__, nothing)
    extents = graph.aval_of(update).shape
    index = tuple(along(a) for a in range(len(extents)))
    avals = [graph.aval_of(o) for o in positions]
    rank = max(a.ndim for a in avals)
    among = slice(scatter.position, scatter.position + rank)
    window, picked = index[among], extents[among]
    rest = iter([*index[: scatter.position], *index[scatter.position + rank :]])
    found: list[Place] = []
    for axis in range(len(shape)):
        if axis not in scatter.axes:
            found.append(next(rest))
            continue
        nth = scatter.axes.index(axis)
        at = broadcast_index(window, avals[nth].shape, picked)
        chosen = puller.pull(positions[nth], at)
        checked = points.bounded(chosen, shape[axis], "scatter", (), loops_of(at, avals[nth].shape))
        found.append(Place(0, (), ((checked, 1),)))
    place = linear(found, shape) if found else ZERO
    dtype = graph.avals[root].dtype.short
    new = puller.pull(update, index)
    old = points.held(root, dtype, range(len(extents)))
    if dtype == "c64":
        new = combined(points, scatter.mode, old, new)
    elif scatter.mode != "set":
        new = points.apply(_COMBINE[scatter.mode], (old, new), dtype)
    last = None
    if shape and len(shape) - 1 not in scatter.axes and dtype != "c64" and fitting_lanes(2, shape[-1]) > 1:
        (last,) = found[-1].axes
    many = dims.decide("ge", dims.product(extents), dims.product(shape) * MANY) is True
    stores = pt.stores(root, place, new)
    return Plan(copy, dict(enumerate(extents)), pt.parts(old), stores, last, many and last is not None)


def simplified(plan: Plan) -> Plan:
    return plan if plan.split else replace(plan, copy=rows.simplified(plan.copy))


def build(plan: Plan, name: str, target: Target, buffers: Memory) -> Built:
    """The kernel of a plan. Updates of one element keep their order."""
    writer = rows.Writer(plan.copy, name, target, buffers)
    body = writer.body
    loops = [a for a in plan.extents if a != plan.window]
    lanes = _lanes(plan, target)
    if not plan.split or writer.axis != max(plan.copy.extents):
        writer.serial()
        body.values = {}
        if plan.window is None:
            _updates(body, plan, loops, partial(_element, body, plan))
        else:
            length = body.extent(plan.extents[plan.window])
            _updates(body, plan, loops, partial(_row, body, plan, lanes, ir.index(0), length))
        return Built(body.b.kernel(), tuple(body.params), None)
    writer.emit(top=True)
    last = writer.axis
    extent = writer.vector_extent
    blocks = dims.ceil_div(extent, BLOCK)
    with body.b.loop("block", 0, body.extent(blocks), kind="parallel") as scope:
        assert scope.index is not None
        lo = body.b.let(scope.index * BLOCK, "lo")
        length = body.b.let(ir.minimum(body.extent(extent) - lo, BLOCK), "length")
        with body.block():
            writer.outer([a for a in plan.copy.extents if a != last], "serial", (lo, length))
        body.values = {}
        _updates(body, plan, loops, partial(_row, body, plan, lanes, lo, length))
    return Built(body.b.kernel(), tuple(body.params), blocks)


def _lanes(plan: Plan, target: Target) -> int:
    """Of vectors along the window."""
    if plan.window is None:
        return 1
    moving = [p.dtype for p in plan.update_points() if plan.window in p.axes and p.dtype != "index"]
    widest = max((4 if d in ir.NARROW_FLOATS else ir.BYTES[d] for d in moving), default=4)
    return fitting_lanes(target.bits // (8 * widest), plan.extents[plan.window])


def _updates(body: Body, plan: Plan, axes: Sequence[int], inside: Callable[[], None]) -> None:
    body.emit(plan.update_points())
    if not axes:
        inside()
        return
    with body.b.loop("u", 0, body.extent(plan.extents[axes[0]])) as scope:
        assert scope.index is not None
        with body.axis(axes[0], scope.index):
            _updates(body, plan, axes[1:], inside)


def _row(body: Body, plan: Plan, lanes: int, lo: Expr, length: Expr) -> None:
    """The elements [lo, lo + length) of the window of an update."""
    window = plan.window
    assert window is not None

    def part(base: Expr, mask: Expr | None, carried: Sequence[Expr]) -> Sequence[Expr]:
        with body.lane_axis(window, base, lanes, mask):
            _element(body, plan)
        return ()

    vector_loop(body.b, lo, length, lanes, [()], part)


def _element(body: Body, plan: Plan) -> None:
    """One element of an update, or a vector of neighbours."""
    points = plan.update_points()
    places = [body.b.let(body.place(place)[0], "at") for _, place, _ in plan.stores]
    for held, (value, _, _), at in zip(plan.held, plan.stores, places, strict=True):
        if held in points:
            old = body.b.load(body.buffers[value], at, body.lanes, body.mask)
            body.values[held.number] = body.b.let(old, "old")
    body.emit(points)
    for (value, _, point), at in zip(plan.stores, places, strict=True):
        body.b.store(body.buffers[value], at, ir.broadcast(body[point], body.lanes), body.mask)
