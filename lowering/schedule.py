"""One loop nest for each group."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from ingot.lowering import points as pt
from ingot.lowering import rules
from ingot.lowering.fuse import plan_of
from ingot.lowering.groups import Built, Group
from ingot.lowering.kernels import dot, rows, scatter
from ingot.lowering.llvm.target import Target
from ingot.tracer.graph import Graph

_NESTS: dict[str, ModuleType] = {"rows": rows, "dot": dot, "scatter": scatter}


@dataclass(frozen=True)
class Scheduled:
    """A group with its kernel. `buffers` are the graph values behind the kernel's buffers; `primitives`
    counts what was fused, by name; `cost` is about the number of instructions per element of the group's
    space."""

    group: Group
    built: Built
    buffers: tuple[int, ...]
    primitives: tuple[tuple[str, int], ...]
    cost: int


def schedule(
    graph: Graph, group: Group, stored: frozenset[int], needed: frozenset[int], target: Target
) -> Scheduled:
    """The kernel of one group. Its name says what it does; equal kernels have equal text in all programs."""
    plan = plan_of(graph, group, stored, needed)
    nest = _NESTS[group.kind]
    plan = nest.simplified(plan)
    points = plan.points()
    reads = sorted({p.value for p in points if isinstance(p, pt.Read)})
    writes = [root for root in group.roots if root in needed or root in reads]
    memory = [(v, graph.avals[v].dtype.short, "read") for v in reads if v not in writes]
    for root in writes:
        reread = root in reads or group.kind == "scatter"
        memory.append((root, graph.avals[root].dtype.short, "readwrite" if reread else "write"))
    counts = _fused(graph, group, points)
    built = nest.build(plan, _name(group, counts), target, memory)
    cost = sum(rules.costs.get(type(p.primitive), 1) for p in points if isinstance(p, pt.Apply))
    return Scheduled(group, built, tuple(value for value, _, _ in memory), tuple(counts.items()), cost)


def _fused(graph: Graph, group: Group, points: list[pt.Point]) -> dict[str, int]:
    """How often each primitive occurs in the kernel, in the order of the computation."""
    counts: dict[str, int] = {}
    for point in points:
        if isinstance(point, pt.Apply):
            counts[point.primitive.name] = counts.get(point.primitive.name, 0) + 1
    for node in graph.nodes:
        if rules.structured.get(type(node.primitive)) and group.roots and node.results[0] in group.roots:
            counts[node.primitive.name] = counts.get(node.primitive.name, 0) + 1
    return counts


def _name(group: Group, counts: dict[str, int]) -> str:
    """`map_exp_add`, `rows_reduce_max_exp_reduce_sum`: kind and the first few primitives."""
    kind = "map" if group.kind == "rows" and not group.reduced else group.kind
    names = [name for name in counts if name not in ("identity", "stop_gradient")]
    shown = names[:5] if len(names) <= 5 else [*names[:4], "etc"]
    return "_".join([kind, *(shown or ["copy"])])
