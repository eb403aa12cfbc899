"""The general loop nest: maps and reductions over one index space, fused along the axes that stay.

    parallel for each kept index:
        stage 0:  for each reduced index: accumulate and store
        stage 1:  for each reduced index: accumulate and store, with the results of stage 0 in registers
        ...

A map is the case without reduced axes; softmax, log-sum-exp, normalisations and cross entropy are rows of
two or three stages. The vector axis may be a kept or a reduced one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering import rules
from ingot.lowering.groups import Built, Group, Memory, Unfusable, all_places, merged_axes, rebuilt
from ingot.lowering.kernels.body import Body
from ingot.lowering.kernels.loops import fitting_lanes, fitting_unroll, tree, vector_loop
from ingot.lowering.kernels.quotient import divisor
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Expr
from ingot.lowering.loop_builder import Builder
from ingot.lowering.points import ZERO, Place, Point, Points, along, linear
from ingot.lowering.pull import Index, Puller, is_full, is_one, producers
from ingot.lowering.rules.reduce import Accumulator, accumulators, reduced_axes, unrolls
from ingot.tracer import dims
from ingot.tracer.dims import Extent
from ingot.tracer.graph import Graph, Literal
from ingot.tracer.primitives.elementwise import Div
from ingot.tracer.record import field, record

MAP_BLOCK = 2048
"""Elements of a parallel piece of a one-dimensional map."""
CACHE_WAYS = 8
"""Lines a power of two apart that the first cache keeps: how many columns a transposition reads at a time."""
SCRATCH_ALIGNMENT = 64
SUM_BLOCK = 64
"""Additions in a row to one accumulator before it joins the total."""


@record(frozen=False)
class Reduction:
    """A reduction of a stage; `held` is its result at the kept indices. A product of complex numbers has two
    points of each, else there is one."""

    value: int
    accumulator: Accumulator
    axis: int
    xs: tuple[Point, ...]
    held: tuple[Point, ...]


@record(frozen=False)
class Stage:
    """One pass over the reduced axes. Stores are (graph value, element number, point); those `after` the
    pass are at the kept indices, with its reductions known."""

    reductions: list[Reduction] = field(default_factory=list)
    stores: list[tuple[int, Place, Point]] = field(default_factory=list)
    after: list[tuple[int, Place, Point]] = field(default_factory=list)

    def roots(self) -> list[Point]:
        return [*self.operands(), *(p for _, _, p in (*self.stores, *self.after))]

    def operands(self) -> list[Point]:
        return [x for r in self.reductions for x in r.xs]


@record(frozen=False)
class Plan:
    """A group as point expressions, by stages. `extents` are those of the loop axes, by number.

    Values that only later stages of the group read have no memory of their own: `homes` says in which output
    each lies until that is written, `scratch` which lie in memory of the thread, one row at a time.
    """

    extents: dict[int, Extent]
    reduced: frozenset[int]
    stages: list[Stage]
    homes: dict[int, int] = field(default_factory=dict)
    scratch: tuple[int, ...] = ()

    def points(self) -> list[Point]:
        return pt.reachable([root for stage in self.stages for root in stage.roots()])


# -- planning ---------------------------------------------------------------------------------------


def plan(graph: Graph, group: Group, stored: frozenset[int], needed: frozenset[int]) -> Plan:
    """The stages of a group. `stored` are the values that lie in buffers already, `needed` those of its
    roots that somebody else reads; the others are kept in registers where that is possible.

    Raises:
        Unfusable: when a member reads another one elsewhere than at its own index.
    """
    return _Planner(graph, group, stored, needed).plan()


class _Planner:
    def __init__(self, graph: Graph, group: Group, stored: frozenset[int], needed: frozenset[int]) -> None:
        self.graph, self.group, self.stored = graph, group, stored
        self.outside = needed
        self.needed = set(needed)
        self.last_read: dict[int, int] = {}
        self.points = Points()
        self.roots = set(group.roots)
        self.order: dict[int, int] = {}
        self.current = 0
        self.helds: dict[int, Point] = {}
        self.pullers: dict[int, Puller] = {}

    def plan(self) -> Plan:
        group = self.group
        for root in group.roots:
            self.order[root] = self.stage_of(root)
        count = 1 + max(self.order[r] for r in group.roots)
        stages = [Stage() for _ in range(count)]
        for root in sorted(group.roots, key=lambda r: (self.order[r], r)):
            self.current = self.order[root]
            self.place_root(root, stages[self.current])
        for stage in stages:
            stage.stores = [item for item in stage.stores if item[0] in self.needed]
            stage.after = [item for item in stage.after if item[0] in self.needed]
        plan = Plan(dict(enumerate(group.space)), group.reduced, stages)
        self.place_inner(plan)
        return plan

    def place_inner(self, plan: Plan) -> None:
        """Find memory for the values that only this group reads."""
        inner = sorted(self.needed - self.outside, key=lambda v: (self.order[v], v))
        taken: dict[int, int] = {}
        homeless = []
        for value in inner:
            home = next((o for o in sorted(self.outside) if self.can_lie(value, o, taken)), None)
            if home is None:
                homeless.append(value)
            else:
                plan.homes[value] = home
                taken[home] = self.last_read[value]
        if homeless and self.is_row_by_row(plan):
            plan.scratch = tuple(homeless)

    def can_lie(self, value: int, output: int, taken: Mapping[int, int]) -> bool:
        """Whether a value may lie in the memory of an output: from its own stage to the last that reads it,
        within which each element is read before the output's is written."""
        if output not in self.order or self.is_reduction(output) or not self.is_full_map(output):
            return False
        same = self.graph.avals[output].dtype == self.graph.avals[value].dtype
        free = taken.get(output, -1) <= self.order[value]
        return same and free and self.order[output] >= self.last_read[value]

    def is_row_by_row(self, plan: Plan) -> bool:
        """Whether an iteration over the kept axes is one contiguous run of elements."""
        kept = [a for a in plan.extents if a not in plan.reduced]
        if not plan.reduced or not kept or max(kept) > min(plan.reduced):
            return False
        return vector_axis(simplified(plan)) not in kept

    def is_reduction(self, value: int) -> bool:
        """Whether the nest reduces `value`; small reductions may also be written out as maps."""
        node = producers(self.graph)[value]
        if rules.structured.get(type(node.primitive)) != "reduce" or value not in self.roots:
            return False
        return self.group.reduced == frozenset(reduced_axes(node.primitive)) or not unrolls(
            node.primitive, self.graph.aval_of(node.operands[0])
        )

    def stage_of(self, root: int) -> int:
        """The stage that computes `root`: one after the reductions that it needs. Roots come in order."""
        stage, seen = 0, {root}
        stack = [root]
        while stack:
            for operand in producers(self.graph)[stack.pop()].operands:
                if isinstance(operand, Literal) or operand in seen or operand in self.stored:
                    continue
                seen.add(operand)
                reduction = self.is_reduction(operand)
                if reduction or (operand in self.roots and self.is_full_map(operand)):
                    stage = max(stage, self.order[operand] + reduction)
                else:
                    stack.append(operand)
        if stage and not self.is_reduction(root) and not self.is_full_map(root):
            stage -= 1  # at the end of the stage whose results it uses
        return stage

    def is_full_map(self, root: int) -> bool:
        return dims.same_shape(self.graph.avals[root].shape, self.group.space)

    def place_root(self, root: int, stage: Stage) -> None:
        aval = self.graph.avals[root]
        puller = self.pullers.get(self.current)
        if puller is None:
            puller = Puller(self.graph, self.points, self.reads_buffer, self.held)
            self.pullers[self.current] = puller
        if self.is_reduction(root):
            node = producers(self.graph)[root]
            (operand,) = node.operands
            source = self.graph.aval_of(operand)
            axes = frozenset(reduced_axes(node.primitive))
            if not dims.same_shape(source.shape, self.group.space) or axes != self.group.reduced:
                raise Unfusable
            x = puller.pull(operand, self.whole())
            kept = [a for a in range(len(self.group.space)) if a not in axes]
            held = self.points.held(root, aval.dtype.short, kept)
            self.helds[root] = held
            axis = min(axes, default=-1)
            for acc, *at in accumulators(node.primitive, source.dtype.short):
                xs, results = (tuple(pt.parts(p)[i] for i in at) for p in (x, held))
                stage.reductions.append(Reduction(root, acc, axis, xs, results))
            stage.after.extend(pt.stores(root, self.element(self.kept_index(root), root), held))
        elif self.is_full_map(root):
            index = self.whole()
            stage.stores.extend(pt.stores(root, self.element(index, root), puller.pull(root, index)))
        else:
            index = self.kept_index(root)
            stage.after.extend(pt.stores(root, self.element(index, root), puller.pull(root, index)))

    def whole(self) -> Index:
        return whole_index(self.group.space)

    def kept_index(self, root: int) -> Index:
        """The index of a value with the kept shape, reduced axes left out or of extent 1."""
        shape, space, reduced = self.graph.avals[root].shape, self.group.space, self.group.reduced
        kept = [a for a in range(len(space)) if a not in reduced]
        if dims.same_shape(shape, [space[a] for a in kept]):
            return tuple(ZERO if is_one(space[a]) else along(a) for a in kept)
        if dims.same_shape(shape, [1 if a in reduced else n for a, n in enumerate(space)]):
            return tuple(ZERO if a in reduced or is_one(n) else along(a) for a, n in enumerate(space))
        raise Unfusable

    def element(self, index: Index, root: int) -> Place:
        return linear(index, self.graph.avals[root].shape)

    def reads_buffer(self, value: int) -> bool:
        """Stored elsewhere, or by an earlier stage of this kernel (whose index `held` has checked)."""
        if value in self.stored:
            return True
        if value not in self.roots or self.is_reduction(value) or not self.is_full_map(value):
            return False
        if self.order[value] == self.current:
            return False
        self.needed.add(value)
        self.last_read[value] = self.current
        return True

    def held(self, value: int, index: Index) -> Point | None:
        """Members of the group may be used at their own index only."""
        if value not in self.roots:
            return None
        if self.is_reduction(value):
            if _same_index(index, self.kept_index(value)):
                return self.helds[value]
            raise Unfusable
        if self.is_full_map(value):
            if not is_full(index, self.group.space):
                raise Unfusable
        elif not _same_index(index, self.kept_index(value)):
            raise Unfusable
        return None


def whole_index(shape: Sequence[Extent]) -> Index:
    """The index that walks over `shape`, with 0 along axes of extent 1."""
    return tuple(ZERO if is_one(n) else along(a) for a, n in enumerate(shape))


def _same_index(a: Index, b: Index) -> bool:
    return all(x.key == y.key for x, y in zip(a, b, strict=True))


# -- scheduling -------------------------------------------------------------------------------------


def simplified(plan: Plan) -> Plan:
    """The plan with as few loops as possible: for a map of contiguous arrays

    before:  for i in n: for j in m: y[i*m + j] = f(x[i*m + j])
    after:   for j in n*m: y[j] = f(x[j])
    """
    points = plan.points()
    walked = all_places(points) + [place for stage in plan.stages for _, place, _ in stage.stores]
    kept_only = [place for stage in plan.stages for _, place, _ in stage.after]
    neighbours = [(a, plan.extents[a]) for a in sorted(plan.extents)]
    classes = [int(a in plan.reduced) for a, _ in neighbours]
    extents, gone = merged_axes(neighbours, classes, [*walked, *kept_only])
    if not gone:
        return plan
    _, found = rebuilt([*points, *(h for s in plan.stages for r in s.reductions for h in r.held)], gone)

    def moved(items: Sequence[tuple[int, Place, Point]]) -> list[tuple[int, Place, Point]]:
        return [
            (
                value,
                Place(p.offset, tuple((a, c) for a, c in p.terms if a not in gone), p.loaded),
                found[point],
            )
            for value, p, point in items
        ]

    def many(points: Sequence[Point]) -> tuple[Point, ...]:
        return tuple(found[p] for p in points)

    stages = [
        Stage(
            [Reduction(r.value, r.accumulator, r.axis, many(r.xs), many(r.held)) for r in s.reductions],
            moved(s.stores),
            moved(s.after),
        )
        for s in plan.stages
    ]
    return Plan(extents, plan.reduced & extents.keys(), stages, plan.homes, plan.scratch)


_INNER = 8
"""How much more an access counts that is done for each reduced index than one done once for all of them."""


def vector_axis(plan: Plan) -> int | None:
    """The axis along which most accesses are contiguous; of equals the last."""
    reads = [(2, p.place) for p in plan.points() if isinstance(p, pt.Read)]
    stores = [(3, place) for s in plan.stages for _, place, _ in (*s.stores, *s.after)]

    def weight(place: Place) -> int:
        return _INNER if not plan.reduced or place.axes & plan.reduced else 1

    def score(axis: int) -> tuple[int, int]:
        total = 0
        for value, place in (*reads, *stores):
            if any(axis in p.axes for p, _ in place.loaded):
                total -= weight(place)
            else:
                c = place.coefficient(axis)
                total += weight(place) * (value if is_one(c) else 0 if dims.same(c, 0) else -value)
        extent = plan.extents[axis]
        if isinstance(extent, int) and extent < 4:
            total -= 2 * _INNER
        return total, axis

    return max(plan.extents, key=score, default=None)


def build(plan: Plan, name: str, target: Target, buffers: Memory) -> Built:
    """The kernel of a plan."""
    return Writer(plan, name, target, buffers).build()


class Writer:
    """Writes the loop nest of a plan."""

    def __init__(self, plan: Plan, name: str, target: Target, buffers: Memory) -> None:
        self.plan = plan
        self.parallel: Extent | None = None
        self.b = Builder(name)
        names: dict[int, str] = {}
        for value, dtype, access in buffers:
            names[value] = self.b.buffer("x" if access == "read" else "y", dtype, access)
        names.update((value, names[home]) for value, home in plan.homes.items())
        self.body = Body(self.b, names)
        self.scratch: Extent = 0
        self.points = plan.points()
        self.written = {value for s in plan.stages for value, _, _ in s.stores}
        self.axis = vector_axis(plan)
        self.joined = False
        self.lanes, self.unroll = self._width(target)
        self.body.register = target.lanes("f32")
        self.divides = not target.has_fma

    def _width(self, target: Target) -> tuple[int, int]:
        """Lanes, and how many vectors of a map are in flight: those of a contiguous one are joined."""
        moving = [p for p in self.points if self.axis in p.axes and p.dtype != "index"]
        widest = max((4 if p.dtype in ir.NARROW_FLOATS else ir.BYTES[p.dtype] for p in moving), default=4)
        if any(r.accumulator.positions for s in self.plan.stages for r in s.reductions):
            widest = max(widest, 4)
        self.register_lanes = target.bits // (8 * widest)
        lanes = fitting_lanes(self.register_lanes, self.vector_extent)
        unroll = self.in_flight(self.points, lanes)
        if self.plan.reduced and self.axis not in self.plan.reduced:
            # vectors of several registers: each pass over the reduced axes then reads longer runs. LLVM fails
            # on masks whose number of lanes is no power of two
            return lanes << unroll.bit_length() - 1, 1
        self.joined = not self.plan.reduced and self.is_contiguous()
        if self.joined:
            cost = self.cost(self.points)
            unroll = 4 if target.bits < 512 or cost <= 8 or cost > 100 else 2
            while unroll > 1 and isinstance(self.vector_extent, int) and unroll * lanes > self.vector_extent:
                unroll //= 2
        return lanes, unroll

    def is_contiguous(self) -> bool:
        """Whether all that depends on the vector axis are runs of memory and what is computed from them."""
        moving = [p for p in self.points if self.axis in p.axes]
        return all(
            not p.place.loaded and is_one(p.place.coefficient(self.axis or 0))
            if isinstance(p, pt.Read)
            else isinstance(p, pt.Apply) and p.dtype != "index"
            for p in moving
        )

    @property
    def vector_extent(self) -> Extent:
        return 1 if self.axis is None else self.plan.extents[self.axis]

    def in_flight(self, points: Sequence[Point], lanes: int) -> int:
        """How many vectors a loop over `points` handles at once: fewer when each takes many registers."""
        cost = self.cost(points)
        return fitting_unroll(4 if cost <= 8 else 2 if cost <= 24 else 1, lanes, self.vector_extent)

    def cost(self, points: Sequence[Point]) -> int:
        """Roughly the instructions for one vector."""
        applied = [p for p in points if isinstance(p, pt.Apply) and self.axis in p.axes]
        return sum(rules.costs.get(type(p.primitive), 1) for p in applied)

    def build(self) -> Built:
        kept = [a for a in self.plan.extents if a not in self.plan.reduced]
        loops = [a for a in kept if a != self.axis]
        self.emit(top=True)
        self.rows_in_scratch(kept)
        if self.axis in kept and (not loops or self.walks_across()):
            self.blocks(loops)
        else:
            self.outer(loops, "parallel" if loops else "serial")
        return Built(self.b.kernel(), tuple(self.body.params), self.parallel, self.scratch)

    def rows_in_scratch(self, kept: Sequence[int]) -> None:
        """Memory for one row of each value that lies in scratch."""
        count = dims.product([self.plan.extents[a] for a in self.plan.reduced])
        stores = [item for stage in self.plan.stages for item in stage.stores]
        for value in self.plan.scratch:
            dtype, *others = (point.dtype for v, _, point in stores if v == value)
            size = count * (1 + len(others))  # complex numbers have two parts
            at, numbers = self.body.extent(self.scratch), self.body.extent(size)
            self.body.buffers[value] = self.b.alloc("row", dtype, numbers, "scratch", at)
            self.body.within_row[value] = frozenset(kept)
            nbytes = size * ir.BYTES[dtype]
            self.scratch = self.scratch + dims.ceil_div(nbytes, SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT

    def walks_across(self) -> bool:
        """Whether something is read in strides along the vector axis: a transposition."""
        assert self.axis is not None
        steps = [p.place.coefficient(self.axis) for p in self.points if isinstance(p, pt.Read)]
        return not self.plan.reduced and any(not is_one(c) and not dims.same(c, 0) for c in steps)

    def serial(self) -> None:
        """The nest without a parallel loop, as part of a larger kernel."""
        self.emit(top=True)
        self.outer([a for a in self.plan.extents if a not in self.plan.reduced and a != self.axis], "serial")

    def emit(self, top: bool = False) -> None:
        """What can be computed with the loops that are open; at the top, where only definitions may stand
        beside the parallel loop, nothing that can fail."""
        self.body.emit(
            p
            for p in self.points
            if not (top and isinstance(p, pt.Bounded))
            and not (isinstance(p, pt.Read) and p.value in self.written)
        )

    def outer(self, axes: Sequence[int], kind: str, part: tuple[Expr, Expr] | None = None) -> None:
        """Loops over kept axes; `part` is the range (start, length) of the vector axis, if not all of it."""
        if axes:
            if kind == "parallel":
                self.parallel = self.plan.extents[axes[0]]
            with self.b.loop("i", 0, self.body.extent(self.plan.extents[axes[0]]), kind=kind) as scope:
                assert scope.index is not None
                with self.body.axis(axes[0], scope.index):
                    self.emit()
                    self.outer(axes[1:], "serial", part)
        elif self.axis is not None and self.axis not in self.plan.reduced:
            self.across(*(part or (ir.index(0), self.body.extent(self.plan.extents[self.axis]))))
        else:
            self.emit()
            self.stages()

    def blocks(self, loops: Sequence[int]) -> None:
        """The vector axis in pieces that can run in parallel, other kept axes within each: for a single axis,
        and for a transposition, so that the cache holds the lines of the columns it reads."""
        extent = self.vector_extent
        if loops:
            self.lanes, self.unroll = min(self.lanes, CACHE_WAYS), 1
        size = self.lanes * self.unroll if loops or self.plan.reduced else MAP_BLOCK
        if isinstance(extent, int) and extent <= size:
            self.outer(loops, "parallel" if loops else "serial", (ir.index(0), ir.index(extent)))
            return
        self.parallel = dims.ceil_div(extent, size)
        with self.b.loop("block", 0, self.body.extent(self.parallel), kind="parallel") as scope:
            assert scope.index is not None
            lo = self.b.let(scope.index * size, "lo")
            whole = isinstance(extent, int) and extent % size == 0
            length = ir.index(size) if whole else ir.minimum(self.body.extent(extent) - lo, size)
            self.outer(loops, "serial", (lo, length if whole else self.b.let(length, "length")))

    def across(self, lo: Expr, length: Expr) -> None:
        """Vectors along a kept axis."""
        assert self.axis is not None
        axis = self.axis

        def part(
            base: Expr, mask: Expr | None, carried: Sequence[Expr], lanes: int = self.lanes
        ) -> Sequence[Expr]:
            with self.body.lane_axis(axis, base, lanes, mask):
                self.emit()
                self.stages()
            return ()

        vector_loop(self.b, lo, length, self.lanes, [()] * self.unroll, part, self.joined)

    def stages(self) -> None:
        later = set(self.written)
        for stage in self.plan.stages:
            if stage.reductions or stage.stores:
                self.passes(stage)
            later.difference_update(value for value, _, _ in stage.stores)
            self.body.emit(p for p in self.points if not (isinstance(p, pt.Read) and p.value in later))
            for item in stage.after:
                self.body.store(*item)

    # -- one pass over the reduced axes -------------------------------------------------------------

    def passes(self, stage: Stage) -> None:
        along_vector = self.axis in self.plan.reduced
        for reduction, joined in zip(stage.reductions, self.accumulate(stage), strict=True):
            acc = reduction.accumulator
            results = acc.lanes(joined, self.b.let) if along_vector else joined[-len(reduction.held) :]
            for held, result in zip(reduction.held, results, strict=True):
                self.body.values[held.number] = self.b.let(ir.convert(result, held.dtype), "total")

    def accumulate(self, stage: Stage) -> list[list[Expr]]:
        """One pass; what each reduction carries at its end, in all lanes."""
        axes = [a for a in self.plan.extents if a in self.plan.reduced]
        serial = [a for a in axes if a != self.axis]
        along_vector = self.axis in axes
        lanes = self.lanes
        points = pt.reachable(stage.roots())
        parts = self.in_flight(points, lanes) if along_vector else 1
        if self.prepare_quotients(points) and along_vector and not stage.reductions:
            self.lanes, parts = lanes * parts, 1  # all registers are checked together
        start: list[Expr] = [ir.broadcast(c, lanes) for r in stage.reductions for c in r.accumulator.initial]
        state = [list(start) for _ in range(parts)]
        state = self.nest(stage, serial, state)
        self.lanes = lanes
        found: list[list[Expr]] = []
        at = 0
        for reduction in stage.reductions:
            acc, n = reduction.accumulator, len(reduction.accumulator.initial)
            found.append(tree(acc.join, [part[at : at + n] for part in state]))
            at += n
        return found

    def range(self, axis: int) -> tuple[Expr, Expr]:
        """Start and length of what a pass covers of a reduced axis."""
        return ir.index(0), self.body.extent(self.plan.extents[axis])

    def prepare_quotients(self, points: Sequence[Point]) -> bool:
        """Find the divisors that are the same in a whole pass; whether there are any."""
        self.body.divisors = {}
        for point in points if not self.divides else ():
            if isinstance(point, pt.Apply) and isinstance(point.primitive, Div) and point.dtype == "f32":
                a, b = point.args
                fixed = not isinstance(b, pt.Number) and not b.axes & self.plan.reduced
                if fixed and a.axes & self.plan.reduced and b.number not in self.body.divisors:
                    self.body.divisors[b.number] = divisor(self.b, self.body[b])
        return bool(self.body.divisors)

    def nest(self, stage: Stage, serial: Sequence[int], state: list[list[Expr]]) -> list[list[Expr]]:
        if not serial:
            if self.axis is not None and self.axis in self.plan.reduced:
                return self.blocked(stage, self.axis, state)
            return self.inside(stage, state)
        axis, *rest = serial
        if not rest and self.axis not in self.plan.reduced:
            return self.blocked(stage, axis, state)
        lo, length = self.range(axis)
        with self.carrying("k", lo, _plus(lo, length), state) as (scope, current):
            with self.body.axis(axis, scope.index):
                self.emit()
                scope.next(*flat(self.nest(stage, rest, current)))
        return _like(scope.results, state)

    @contextmanager
    def carrying(self, name: str, lo: Expr, hi: Expr, state: list[list[Expr]], step: int = 1) -> Iterator:
        carry = {f"s{u}_{i}": v for u, part in enumerate(state) for i, v in enumerate(part)}
        with self.b.loop(name, lo, hi, step, carry=carry) as scope:
            yield scope, _like(scope.carried, state)

    def blocked(self, stage: Stage, axis: int, state: list[list[Expr]]) -> list[list[Expr]]:
        """The innermost reduced axis; sums in blocks, whose totals are added up."""
        extent = self.plan.extents[axis]
        vectors = len(state) * self.lanes if axis == self.axis else 1
        size = SUM_BLOCK * vectors
        sums = any(r.accumulator.blocked for r in stage.reductions)
        lo, length = self.range(axis)
        if not sums or (isinstance(extent, int) and extent <= 2 * size):
            return self.innermost(stage, axis, lo, length, state)
        n = _plus(lo, length)
        lost = [self._lost(stage, part) for part in state]
        both = [[*part, *more] for part, more in zip(state, lost, strict=True)]
        with self.carrying("block", lo, n, both, size) as (scope, current):
            length = self.b.let(ir.minimum(n - scope.index, size), "length")
            fresh = [self._fresh(stage, part) for part in current]
            found = self.innermost(stage, axis, scope.index, length, fresh)
            joined = [self._joined(stage, old, new) for old, new in zip(current, found, strict=True)]
            scope.next(*flat(joined))
        return [part[: len(state[0])] for part in _like(scope.results, both)]

    def _lost(self, stage: Stage, part: Sequence[Expr]) -> list[Expr]:
        """A zero for every sum: what rounding took from its total so far."""
        return [ir.const(0.0, v.type) for v, is_sum in zip(part, self._is_sum(stage), strict=True) if is_sum]

    def _is_sum(self, stage: Stage) -> list[bool]:
        return [r.accumulator.blocked for r in stage.reductions for _ in r.accumulator.initial]

    def _fresh(self, stage: Stage, part: Sequence[Expr]) -> list[Expr]:
        """Sums start again in every block; the other values go on."""
        values = zip(part, self._is_sum(stage), strict=False)
        return [ir.const(0.0, v.type) if is_sum else v for v, is_sum in values]

    def _joined(self, stage: Stage, old: Sequence[Expr], new: Sequence[Expr]) -> list[Expr]:
        """Totals after a block, by compensated summation (Kahan, "Further remarks on reducing truncation
        errors", 1965), and what each addition lost; infinite totals lose nothing."""
        kept: list[Expr] = []
        lost: list[Expr] = []
        below = iter(old[len(new) :])
        for total, part, is_sum in zip(old, new, self._is_sum(stage), strict=False):
            if not is_sum:
                kept.append(part)
                continue
            part = self.b.let(part - next(below), "part")
            grown = self.b.let(total + part, "sum")
            error = self.b.let((grown - total) - part, "lost")
            finite = ir.Unary("abs", error) < float("inf")
            kept.append(grown)
            lost.append(ir.select(finite, error, 0.0))
        return [*kept, *lost]

    def innermost(
        self, stage: Stage, axis: int, lo: Expr, length: Expr, state: list[list[Expr]]
    ) -> list[list[Expr]]:
        if axis == self.axis:

            def part(base: Expr, mask: Expr | None, carried: Sequence[Expr]) -> Sequence[Expr]:
                with self.body.lane_axis(axis, base, self.lanes, mask):
                    return self.inside(stage, [list(carried)])[0]

            return vector_loop(self.b, lo, length, self.lanes, state, part)
        with self.carrying("k", lo, _plus(lo, length), state) as (scope, current):
            with self.body.axis(axis, scope.index):
                scope.next(*flat(self.inside(stage, current)))
        return _like(scope.results, state)

    def inside(self, stage: Stage, state: Sequence[Sequence[Expr]]) -> list[list[Expr]]:
        """One element, or one vector of them: evaluate, accumulate, store."""
        body = self.body
        body.emit(pt.reachable([*stage.operands(), *(p for _, _, p in stage.stores)]))
        (carried,) = state
        following: list[Expr] = []
        for r in stage.reductions:
            acc, lanes = r.accumulator, self.lanes
            xs = [ir.convert(ir.broadcast(body[x], lanes), acc.dtype) for x in r.xs]
            if body.mask is not None and self.axis in self.plan.reduced:
                pairs = zip(xs, acc.neutral, strict=True)
                xs = [ir.select(body.mask, x, ir.broadcast(neutral, lanes)) for x, neutral in pairs]
            position = None
            if acc.positions:
                place = along(r.axis) if r.axis in self.plan.extents else ZERO
                position = ir.broadcast(ir.convert(body.spread(place), "u32"), lanes)
            mine = carried[len(following) : len(following) + len(acc.initial)]
            following += [self.b.let(v, "next") for v in acc.step(mine, xs, position)]
        for item in stage.stores:
            body.store(*item)
        return [following]


def flat(state: Sequence[Sequence[Expr]]) -> list[Expr]:
    """All carried values of all vectors in flight."""
    return [value for part in state for value in part]


def _plus(lo: Expr, length: Expr) -> Expr:
    return length if isinstance(lo, ir.Const) and lo.value == 0 else lo + length


def _like(values: Sequence[Expr], state: Sequence[Sequence[Expr]]) -> list[list[Expr]]:
    each = len(state[0])
    return [list(values[u * each : (u + 1) * each]) for u in range(len(state))]
