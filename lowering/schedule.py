"""One loop nest for each group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

from ingot.lowering import points as pt
from ingot.lowering import rules
from ingot.lowering.fuse import plan_of
from ingot.lowering.groups import Built, Group, Memory, Pack
from ingot.lowering.kernels import columns, dot, full, rows, scatter
from ingot.lowering.llvm.target import Target
from ingot.lowering.pull import producers
from ingot.tracer.aval import Aval
from ingot.tracer.graph import Graph, Node
from ingot.tracer.primitives.elementwise import Identity, StopGradient
from ingot.tracer.primitives.shape import (
    BroadcastTo,
    OptimizationBarrier,
    Reshape,
    Reverse,
    Slice,
    Transpose,
)
from ingot.tracer.record import field, record

_NESTS: dict[str, ModuleType] = {"rows": rows, "dot": dot, "scatter": scatter}


@record
class Scheduled:
    """A group with its kernel, or with one of several. `buffers` are the graph values behind the kernel's
    buffers, after which come those of `packs`, kernels that must run before; `primitives` counts what was
    fused, by name; `cost` is about the number of instructions per element of the group's space. Buffers with
    numbers below 0 belong to the group alone: `shared` tells what they hold. The kernels after the first of a
    group count as one `join`."""

    group: Group
    built: Built
    buffers: tuple[int, ...]
    primitives: tuple[tuple[str, int], ...]
    cost: int
    packs: tuple[Pack, ...] = ()
    shared: Mapping[int, Aval] = field(default_factory=dict)

    def avals(self, graph: Graph) -> list[Aval]:
        """What is in the buffers."""
        return [self.shared[v] if v < 0 else graph.avals[v] for v in self.buffers]


def schedule(
    graph: Graph, group: Group, stored: frozenset[int], needed: frozenset[int], target: Target,
    constants: frozenset[int] = frozenset(),
) -> list[Scheduled]:  # fmt: skip
    """The kernels of one group, mostly one. Names say what they do; equal kernels have equal text in all
    programs. `constants` are the same in all calls."""
    plan = plan_of(graph, group, stored, needed)
    nest = _NESTS[group.kind]
    plan = nest.simplified(plan)
    packs: list[Pack] = []
    if group.kind == "dot":
        plan = dot.prepared(plan, target, constants)
        packs = dot.packs(plan, target, lambda value: graph.avals[value].dtype.short)
    points = plan.points()
    reads = {p.value for p in points if isinstance(p, pt.Read)}
    lodging: dict[int, int] = {}
    if isinstance(plan, rows.Plan):
        reads.difference_update(plan.homes, plan.scratch)
        lodging = plan.homes
    writes = [root for root in group.roots if root in needed or root in reads]
    memory = [(v, _in_memory(graph, v), "read") for v in sorted(reads) if v not in writes]
    for root in writes:
        reread = root in reads or root in lodging.values() or group.kind == "scatter"
        memory.append((root, _in_memory(graph, root), "readwrite" if reread else "write"))
    buffers = tuple(value for value, _, _ in memory)
    read = [v for pack in packs for v in pack.reads]
    counts = _fused(nodes_of(graph, group, (*buffers, *read)))
    memory += [(pack.side, pack.aval.dtype.short, "read") for pack in packs]
    name = _name(group, list(counts))
    cost = sum(rules.costs.get(type(p.primitive), 1) for p in points if isinstance(p, pt.Apply))
    parts = _reductions(plan, name, target, memory, group) if isinstance(plan, rows.Plan) else None
    if parts is None:
        built = nest.build(plan, name, target, memory)
        return [Scheduled(group, built, buffers, tuple(counts.items()), cost, tuple(packs))]
    found = []
    for number, part in enumerate(parts[0]):
        over = Group(group.kind, part.space, group.reduced, group.roots)
        shown = (("join", 1),) if number else tuple(counts.items())
        found.append(Scheduled(over, part.built, part.buffers, shown, cost, shared=parts[1]))
    return found


def _reductions(
    plan: rows.Plan, name: str, target: Target, memory: Memory, group: Group
) -> tuple[list[full.Part], dict[int, Aval]] | None:
    """The kernels of reductions that are no simple rows, and the buffers that these share."""
    first = -_PRIVATE * min(group.roots)
    pieces = full.pieces_of(plan)
    if pieces is not None:
        return full.build(plan, pieces, name, target, memory, first)
    down = columns.columns_of(plan)
    return None if down is None else columns.build(plan, down, name, target, memory, first)


_PRIVATE = 4096
"""More buffers than a group has for itself: those of the groups do not meet."""


def _in_memory(graph: Graph, value: int) -> str:
    """The dtype of the elements of a buffer: complex numbers are pairs of float32."""
    short = graph.avals[value].dtype.short
    return "f32" if short == "c64" else short


def nodes_of(graph: Graph, group: Group, buffers: Iterable[int]) -> list[Node]:
    """The nodes that a group computes from the values in `buffers`, in order."""
    made, outside = producers(graph), set(buffers).difference(group.roots)
    seen: dict[int, Node] = {}
    stack = list(group.roots)
    while stack:
        value = stack.pop()
        if value in seen or value not in made or value in outside:
            continue
        seen[value] = made[value]
        stack.extend(o for o in made[value].operands if isinstance(o, int))
    return [seen[value] for value in sorted(seen)]


def _fused(nodes: Iterable[Node]) -> dict[str, int]:
    """How often each primitive occurs, in the order of the computation; views are no computation."""
    counts: dict[str, int] = {}
    for node in nodes:
        if not isinstance(node.primitive, _UNSEEN):
            counts[node.primitive.name] = counts.get(node.primitive.name, 0) + 1
    return counts


_UNSEEN = (BroadcastTo, Reshape, Transpose, Slice, Reverse, OptimizationBarrier, Identity, StopGradient)


def _name(group: Group, names: Sequence[str]) -> str:
    """Kind and the first few primitives: `map_exp_add`, `rows_reduce_max_sub`, `dot_general_add`."""
    shown = [*names[:5]] if len(names) <= 5 else [*names[:4], "etc"]
    if group.kind == "rows":
        shown = ["rows" if group.reduced else "map", *(shown or ["copy"])]
    return "_".join(shown)
