"""Scatters: the base is copied, then the updates are combined with it one after the other, in their order."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Group, Memory
from ingot.lowering.kernels import rows
from ingot.lowering.kernels.body import Body
from ingot.lowering.llvm.target import Target
from ingot.lowering.points import ZERO, Place, Point, Points, along, broadcast_index, linear
from ingot.lowering.pull import Index, Puller, producers
from ingot.lowering.rules.index import loops_of
from ingot.tracer.dims import Extent
from ingot.tracer.graph import Graph
from ingot.tracer.primitives.index import Scatter
from ingot.tracer.record import record

_COMBINE = {"add": "add", "mul": "mul", "min": "min", "max": "max"}
_BOOL_COMBINE = {"add": "or", "mul": "and", "min": "and", "max": "or"}


@record(frozen=False)
class Plan:
    """`copy` writes the base; then `update` is combined into element `place`, for every index of
    `extents`."""

    value: int
    mode: str
    copy: rows.Plan
    extents: dict[int, Extent]
    update: Point
    place: Place

    def points(self) -> list[Point]:
        return [*self.copy.points(), *self.update_points()]

    def update_points(self) -> list[Point]:
        return pt.reachable([self.update, *(p for p, _ in self.place.loaded)])


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
    stage = rows.Stage(stores=[(root, linear(whole, shape), puller.pull(base, whole))])
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
    return Plan(root, scatter.mode, copy, dict(enumerate(extents)), puller.pull(update, index), place)


def simplified(plan: Plan) -> Plan:
    copy = rows.simplified(plan.copy)
    return Plan(plan.value, plan.mode, copy, plan.extents, plan.update, plan.place)


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
    value = body[plan.update]
    buffer = body.buffers[plan.value]
    at = body.b.let(body.place(plan.place)[0], "at")
    if plan.mode != "set":
        old = body.b.let(body.b.load(buffer, at), "old")
        op = (_BOOL_COMBINE if old.type.dtype == "bool" else _COMBINE)[plan.mode]
        # exact for half precision too: only min and max of it come here
        wide = "f32" if old.type.dtype in ir.NARROW_FLOATS else old.type.dtype
        value = ir.convert(ir.Binary(op, ir.convert(old, wide), ir.convert(value, wide)), old.type.dtype)
    body.b.store(buffer, at, value)
