"""Contractions as points: which loop axes there are, what is multiplied, what becomes of the sums."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Group, Unfusable, all_places, merged_axes, rebuilt
from ingot.lowering.points import Place, Point, Points, linear
from ingot.lowering.pull import Index, Puller, full, is_full, is_one, producers
from ingot.tracer import dims
from ingot.tracer.dims import Extent
from ingot.tracer.graph import Graph
from ingot.tracer.primitives.contract import DotGeneral
from ingot.tracer.record import record, replace

BATCH, ROWS, COLUMNS, SUMMED = range(4)
LEFT, RIGHT, PARTS = -1, -2, -3
"""Numbers of buffers that other kernels write before: an operand laid out, or sums over parts of k."""


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
    nest: str = "direct"
    """How it runs: `direct`, `panels` or `thin`."""
    pairs: str = ""
    """An operation of `loop.DOTS`, when operands are packed for it: pairs of neighbouring k in u32."""
    packed: frozenset[int] = frozenset()
    """Which of LEFT, RIGHT and PARTS another kernel has written before."""

    def points(self) -> list[Point]:
        """What the kernel itself evaluates."""
        both = () if PARTS in self.packed else ((LEFT, self.left), (RIGHT, self.right))
        sides = [p for side, p in both if side not in self.packed]
        return pt.reachable([*sides, self.held, *(p for _, _, p in self.stores)])

    @property
    def compute_dtype(self) -> str:
        """What products are added in: narrow floats in float32, narrow integers in 32 bits, which wrap to the
        same result."""
        dtype = self.left.dtype
        if dtype in ir.NARROW_FLOATS:
            return "f32"
        if dtype in ("i8", "i16", "u8", "u16"):
            return "i32"
        return dtype

    def last(self, role: int) -> int | None:
        """The innermost axis of a role."""
        return max((a for a, r in self.roles.items() if r == role), default=None)

    def extent(self, axis: int | None) -> Extent:
        return 1 if axis is None else self.extents[axis]

    @property
    def packed_dtype(self) -> str:
        """What packed operands consist of."""
        return "u32" if self.pairs else self.compute_dtype

    @property
    def steps(self) -> Extent:
        """How many k there are, or pairs of them."""
        k = self.extent(self.last(SUMMED))
        return dims.ceil_div(k, 2) if self.pairs else k

    @property
    def is_matrix_product(self) -> bool:
        """Whether there are columns, and one axis to sum over."""
        return self.last(COLUMNS) is not None and sum(r == SUMMED for r in self.roles.values()) == 1

    def outer_axes(self) -> list[int]:
        """The axes of the result that no tile runs along."""
        tiled = (self.last(ROWS), self.last(COLUMNS))
        return [a for a, r in self.roles.items() if r != SUMMED and a not in tiled]

    @property
    def in_place(self) -> bool:
        """Whether elements of `left` can be read one by one where they lie: numbers to compute with, those
        of a row side by side, or nothing beside a single one."""
        left, summed = self.left, self.last(SUMMED)
        if self.pairs or not isinstance(left, pt.Read) or left.masks or left.dtype != self.compute_dtype:
            return False
        if any(p.axes.intersection((self.last(ROWS), summed)) for p, _ in left.place.loaded):
            return False
        return summed is None or is_one(left.place.coefficient(summed)) or self.last(ROWS) is None


def unit(point: Point, axis: int | None) -> bool:
    """Whether everything that `point` reads along an axis lies side by side there."""
    if axis is None:
        return False
    reads = [p for p in pt.reachable([point]) if isinstance(p, pt.Read) and axis in p.axes]
    return bool(reads) and all(
        is_one(p.place.coefficient(axis)) and not any(axis in q.axes for q, _ in p.place.loaded)
        for p in reads
    )


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
    return replace(
        plan, extents=extents, roles=roles, left=found[plan.left], right=found[plan.right],
        held=found[plan.held], stores=stores,
    )  # fmt: skip
