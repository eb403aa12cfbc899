"""Scatters: the base is copied, then the updates are combined with it one after the other, in their order."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Group, Memory
from ingot.lowering.kernels import rows
from ingot.lowering.kernels.body import Body
from ingot.lowering.llvm.target import Target
from ingot.lowering.points import ZERO, Place, Point, Points, along, broadcast_index, linear
from ingot.lowering.pull import Index, Puller, producers
from ingot.lowering.rules.composed import combined
from ingot.lowering.rules.index import loops_of
from ingot.tracer.dims import Extent
from ingot.tracer.graph import Graph
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives.index import Scatter
from ingot.tracer.record import record

_COMBINE: dict[str, Primitive] = {"add": ew.Add(), "mul": ew.Mul(), "min": ew.Minimum(), "max": ew.Maximum()}


@record(frozen=False)
class Plan:
    """`copy` writes the base; then, for every index of `extents`, what is `held` in the elements of `stores`
    is exchanged for new values that may depend on it."""

    copy: rows.Plan
    extents: dict[int, Extent]
    held: tuple[Point, ...]
    stores: list[pt.Stored]

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
    return Plan(copy, dict(enumerate(extents)), pt.parts(old), pt.stores(root, place, new))


def simplified(plan: Plan) -> Plan:
    return Plan(rows.simplified(plan.copy), plan.extents, plan.held, plan.stores)


def build(plan: Plan, name: str, target: Target, buffers: Memory) -> Built:
    """The kernel of a plan. Serial: updates of one element keep their order."""
    writer = rows.Writer(plan.copy, name, target, buffers)
    writer.serial()
    body = writer.body
    body.values = {}
    _updates(body, plan, list(plan.extents))
    return Built(body.b.kernel(), tuple(body.params), None)


def _updates(body: Body, plan: Plan, axes: Sequence[int]) -> None:
    points = plan.update_points()
    body.emit(points)
    if axes:
        with body.b.loop("u", 0, body.extent(plan.extents[axes[0]])) as scope:
            assert scope.index is not None
            with body.axis(axes[0], scope.index):
                _updates(body, plan, axes[1:])
        return
    places = [body.b.let(body.place(place)[0], "at") for _, place, _ in plan.stores]
    for held, (value, _, _), at in zip(plan.held, plan.stores, places, strict=True):
        if held in points:
            body.values[held.number] = body.b.let(body.b.load(body.buffers[value], at), "old")
    body.emit(points)
    for (value, _, point), at in zip(plan.stores, places, strict=True):
        body.b.store(body.buffers[value], at, body[point])
