"""Calls of closed graphs become their nodes, so that simplification and fusion see across them."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering.simplify.rewrite import Results, Rewriter, rewrite
from ingot.tracer.graph import Graph, Node, Operand
from ingot.tracer.primitives.control import Call
from ingot.tracer.trace import match_dims


def inline_calls(graph: Graph) -> Graph:
    """The graph without `call` nodes, at any depth."""
    if not any(isinstance(node.primitive, Call) for node in graph.nodes):
        return graph

    def replace(r: Rewriter, node: Node, operands: tuple[Operand, ...]) -> Results | None:
        return _expand(r, node, operands) if isinstance(node.primitive, Call) else None

    return rewrite(graph, replace)


def _expand(r: Rewriter, call: Node, operands: Sequence[Operand]) -> Results:
    assert isinstance(call.primitive, Call)
    graph = call.primitive.graph
    if graph.dims:
        graph = graph.substitute(match_dims(graph, [r.builder.aval_of(o) for o in operands]))
    values = list(operands)
    for node in graph.nodes:
        inner = [values[o] if isinstance(o, int) else o for o in node.operands]
        values.extend(_expand(r, node, inner) if isinstance(node.primitive, Call) else r.add(node, inner))
    return tuple(values[o] if isinstance(o, int) else o for o in graph.outputs)
