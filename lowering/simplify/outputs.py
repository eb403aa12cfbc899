"""Outputs that each are the result of a node of their own: every one gets a buffer that nobody else has."""

from __future__ import annotations

from ingot.lowering.simplify.rewrite import Rewriter, finished
from ingot.tracer.graph import Graph, Literal, Node, Operand
from ingot.tracer.primitives.elementwise import Identity


def own_outputs(graph: Graph) -> Graph:
    """Inputs, constants, literals and values that are returned twice are copied by an `identity` node."""
    first = graph.first_result
    seen: set[int] = set()
    r = Rewriter(graph)
    for node in graph.nodes:
        results = r.add(node, [r.operand(o) for o in node.operands])
        r.mapped.update(zip(node.results, results, strict=True))
    outputs: list[Operand] = []
    for output in graph.outputs:
        new = r.operand(output)
        if isinstance(output, Literal) or output < first or output in seen:
            (new,) = r.add(Node(Identity(), (new,), ()), [new])
        else:
            seen.add(output)
        outputs.append(new)
    return finished(r, outputs)
