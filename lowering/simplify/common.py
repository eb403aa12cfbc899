"""Common sub-expressions and dead code."""

from __future__ import annotations

from typing import Any

from ingot.lowering.simplify.rewrite import Results, Rewriter, finished, rewrite
from ingot.tracer.graph import Graph, Literal, Node, Operand
from ingot.tracer.primitives.shape import OptimizationBarrier


def merge_common(graph: Graph) -> Graph:
    """Of nodes that compute the same, the first one stays. Barriers are never merged: they are there to
    keep what looks equal apart."""
    seen: dict[Any, Results] = {}

    def replace(r: Rewriter, node: Node, operands: tuple[Operand, ...]) -> Results | None:
        if isinstance(node.primitive, OptimizationBarrier):
            return None
        key = (node.primitive, operands)
        found = seen.get(key)
        if found is None:
            found = seen[key] = r.add(node, operands)
        return found

    return rewrite(graph, replace)


def drop_dead(graph: Graph) -> Graph:
    """The graph without nodes whose results nobody needs."""
    needed = {o for o in graph.outputs if not isinstance(o, Literal)}
    alive: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.results):
            alive.append(node)
            needed.update(o for o in node.operands if not isinstance(o, Literal))
    if len(alive) == len(graph.nodes):
        return graph
    r = Rewriter(graph)
    for node in reversed(alive):
        results = r.add(node, [r.operand(o) for o in node.operands])
        r.mapped.update(zip(node.results, results, strict=True))
    return finished(r, [r.operand(o) for o in graph.outputs])
