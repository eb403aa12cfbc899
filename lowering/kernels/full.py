"""Reductions of everything, in pieces that can run in parallel.

    stage 0:  parallel for each piece: accumulate, store what each lane has
              join the pieces, one after the other
    stage 1:  parallel for each piece: accumulate, with the results of stage 0
              ...

Each line is a kernel; what they hand on lies in buffers of their own. Pieces are a function of the shape, so
results do not depend on who computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Memory
from ingot.lowering.kernels import rows
from ingot.lowering.kernels.rows import Plan, Stage
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Expr
from ingot.lowering.points import Held
from ingot.tracer import dims, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.record import record

PIECE = 65536
"""Elements of a piece, about: long enough that joining is nothing, short enough for many threads."""
LINES = 64
"""The same in turns of the outermost loop, where the length of a turn is not known."""


@record
class Pieces:
    """`count` pieces, each of `length` turns of the loop over `axis`."""

    axis: int
    length: int
    count: Extent


@record
class Part:
    """One of the kernels, over `space`; `buffers` are graph values, or numbers below 0 for buffers of the
    group alone."""

    built: Built
    buffers: tuple[int, ...]
    space: tuple[Extent, ...]


def pieces_of(plan: Plan) -> Pieces | None:
    """How to cut a plan that keeps no axis; None when there is too little to cut."""
    if not plan.extents or plan.extents.keys() != plan.reduced or plan.scratch:
        return None
    axis, *rest = sorted(plan.extents)
    extent, inner = plan.extents[axis], dims.product([plan.extents[a] for a in rest])
    if isinstance(extent, int) and isinstance(inner, int) and extent * inner <= 2 * PIECE:
        return None
    length = max(PIECE // max(inner, 1), 1) if isinstance(inner, int) else LINES
    return Pieces(axis, length, dims.ceil_div(extent, length))


def build(
    plan: Plan, pieces: Pieces, name: str, target: Target, memory: Memory, first: int
) -> tuple[list[Part], dict[int, Aval]]:
    """The kernels of a plan in order, and the buffers they share, numbered downwards from `first`."""
    return _Builder(plan, pieces, name, target, memory, first).build()


class _Builder:
    def __init__(
        self, plan: Plan, pieces: Pieces, name: str, target: Target, memory: Memory, first: int
    ) -> None:
        self.plan, self.pieces, self.name, self.target = plan, pieces, name, target
        self.memory = {value: (dtype, access) for value, dtype, access in memory}
        self.next = first
        self.shared: dict[int, Aval] = {}
        self.results: dict[int, int] = {}  # number of a held point -> buffer of its one element
        self.parts: list[Part] = []

    def build(self) -> tuple[list[Part], dict[int, Aval]]:
        stages = self.plan.stages
        for number, stage in enumerate(stages):
            self.stage(stage, self.helds([root for s in stages[number + 1 :] for root in s.roots()]))
        return self.parts, self.shared

    def stage(self, stage: Stage, later: set[Held]) -> None:
        states: list[tuple[int, ir.Type]] = []
        if stage.reductions or stage.stores:
            inner = Stage(stage.reductions, stage.stores, [])
            writer = _Piece(self.part(inner, self.plan), self.name, self.target, self.inputs(inner), self)
            states = [(self.buffer(t.dtype, self.pieces.count * t.lanes), t) for t in writer.states]
            self.add(writer.build_pieces(states), [*self.values(inner), *(b for b, _ in states)])
        if not stage.reductions and not stage.after:
            return
        last = Stage(stage.reductions, [], stage.after)
        empty = Plan({}, frozenset(), [Stage([], [], stage.after)])
        ends = empty.stages[0]
        joiner = _Join(empty, f"{self.name}_join", self.target, self.inputs(ends), self)
        read = self.values(ends)
        kept = [h for r in stage.reductions for h in r.held if h in later]
        for held in kept:  # from here on
            self.results[held.number] = self.buffer(held.dtype, 1)
        written = [self.results[h.number] for h in kept]
        self.add(joiner.build_join(last, states, kept), [*read, *(b for b, _ in states), *written])

    def add(self, built: Built, buffers: Sequence[int]) -> None:
        space = tuple(self.plan.extents.values()) if built.parallel is not None else (self.pieces.count,)
        self.parts.append(Part(built, tuple(buffers), space))

    def buffer(self, dtype: str, count: Extent) -> int:
        self.next -= 1
        self.shared[self.next] = Aval((count,), dtypes.by_short[dtype])
        return self.next

    def part(self, stage: Stage, plan: Plan) -> Plan:
        used = set(self.graph_values(stage))
        homes = {value: home for value, home in plan.homes.items() if value in used}
        return Plan(plan.extents, plan.reduced, [stage], homes)

    def graph_values(self, stage: Stage) -> list[int]:
        """The values that a stage reads or stores, wherever they lie."""
        points = pt.reachable(stage.roots())
        reads = {p.value for p in points if isinstance(p, pt.Read)}
        return sorted(reads.union(v for v, _, _ in (*stage.stores, *stage.after)))

    def helds(self, roots: Sequence[pt.Point]) -> set[Held]:
        return {p for p in pt.reachable(roots) if isinstance(p, Held)}

    def results_for(self, stage: Stage) -> list[Held]:
        """Results of earlier stages that a stage needs."""
        wanted = self.helds(stage.roots())
        return sorted((h for h in wanted if h.number in self.results), key=lambda h: h.number)

    def values(self, stage: Stage) -> list[int]:
        """The buffers of a stage in order: of graph values, then results of earlier stages."""
        places = dict.fromkeys(self.plan.homes.get(v, v) for v in self.graph_values(stage))
        return [*places, *dict.fromkeys(self.results[h.number] for h in self.results_for(stage))]

    def inputs(self, stage: Stage) -> Memory:
        found = []
        for value in self.values(stage):
            if value < 0:
                found.append((value, self.shared[value].dtype.short, "read"))
            else:
                found.append((value, *self.memory[value]))
        return found


class _Kernel(rows.Writer):
    def __init__(self, plan: Plan, name: str, target: Target, memory: Memory, group: _Builder) -> None:
        super().__init__(plan, name, target, memory)
        self.pieces = group.pieces
        for held in group.results_for(plan.stages[0]):
            name = self.body.buffers[group.results[held.number]]
            self.body.values[held.number] = self.b.let(self.b.load(name, 0), "result")

    def declared(self, states: Sequence[tuple[int, ir.Type]], access: str) -> list[str]:
        return [self.b.buffer("state", type.dtype, access) for _, type in states]

    def end(self) -> Built:
        return Built(self.b.kernel(), tuple(self.body.params), self.parallel)


class _Piece(_Kernel):
    """A stage over one piece at a time."""

    @property
    def states(self) -> list[ir.Type]:
        """What a piece leaves: a vector for each value that the reductions carry."""
        (stage,) = self.plan.stages
        lanes = self.lanes
        return [c.type.with_lanes(lanes) for r in stage.reductions for c in r.accumulator.initial]

    def build_pieces(self, states: Sequence[tuple[int, ir.Type]]) -> Built:
        names = self.declared(states, "write")
        (stage,) = self.plan.stages
        self.emit(top=True)
        self.parallel = self.pieces.count
        extent = self.plan.extents[self.pieces.axis]
        with self.b.loop("piece", 0, self.body.extent(self.pieces.count), kind="parallel") as scope:
            assert scope.index is not None
            size = self.pieces.length
            self.lo = self.b.let(scope.index * size, "lo")
            whole = isinstance(extent, int) and extent % size == 0
            length = ir.index(size) if whole else ir.minimum(self.body.extent(extent) - self.lo, size)
            self.length = self.b.let(length, "length")
            self.emit()
            found = rows.flat(self.accumulate(stage))
            for name, value in zip(names, found, strict=True):
                self.b.store(name, scope.index * value.type.lanes, value)
        return self.end()

    def range(self, axis: int) -> tuple[Expr, Expr]:
        return (self.lo, self.length) if axis == self.pieces.axis else super().range(axis)


class _Join(_Kernel):
    """The results of a stage from those of its pieces."""

    def build_join(self, stage: Stage, states: Sequence[tuple[int, ir.Type]], kept: Sequence[Held]) -> Built:
        names = self.declared(states, "read")
        results = {h: self.b.buffer("result", h.dtype, "write") for h in kept}
        self.emit(top=True)
        for reduction, joined in zip(stage.reductions, self.join(stage, names, states), strict=True):
            found = reduction.accumulator.lanes(joined, self.b.let)
            for held, result in zip(reduction.held, found, strict=True):
                value = self.b.let(ir.convert(result, held.dtype), "total")
                self.body.values[held.number] = value
                if held in results:
                    self.b.store(results[held], 0, value)
        self.body.emit(self.points)
        for item in stage.after:
            self.body.store(*item)
        return self.end()

    def join(
        self, stage: Stage, names: Sequence[str], states: Sequence[tuple[int, ir.Type]]
    ) -> list[list[Expr]]:
        if not states:
            return []
        lanes = states[0][1].lanes
        start: list[Expr] = [ir.broadcast(c, lanes) for r in stage.reductions for c in r.accumulator.initial]
        lost = self._lost(stage, start)
        count = self.body.extent(self.pieces.count)
        with self.carrying("piece", ir.index(0), count, [[*start, *lost]]) as (scope, (current,)):
            loaded = [
                self.b.let(self.b.load(name, scope.index * type.lanes, type.lanes), "part")
                for name, (_, type) in zip(names, states, strict=True)
            ]
            new: list[Expr] = []
            for reduction in stage.reductions:
                part = slice(len(new), len(new) + len(reduction.accumulator.initial))
                if reduction.accumulator.blocked:
                    new += loaded[part]
                else:
                    joined = reduction.accumulator.join(current[part], loaded[part])
                    new += [self.b.let(x, "joined") for x in joined]
            scope.next(*self._joined(stage, current, new))
        found: list[list[Expr]] = []
        at = 0
        for reduction in stage.reductions:
            n = len(reduction.accumulator.initial)
            found.append(list(scope.results[at : at + n]))
            at += n
        return found
