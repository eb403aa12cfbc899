"""Scans become loops that count, read elements of their operands and write those of their results."""

from __future__ import annotations

from ingot.lowering.simplify.rewrite import Results, Rewriter, rewrite
from ingot.tracer.graph import Graph, Node, Operand
from ingot.tracer.primitives.control import closed
from ingot.tracer.primitives.scan import ScanLoop


def lower_scans(graph: Graph) -> Graph:
    """The graph with `while_loop` in the place of `scan_loop`."""
    return rewrite(graph, _replace)


def _replace(r: Rewriter, node: Node, operands: tuple[Operand, ...]) -> Results | None:
    scan = node.primitive
    if not isinstance(scan, ScanLoop):
        return None
    loop = closed(scan.as_while, [r.builder.aval_of(o) for o in operands], scan.body.name)
    values = list(operands)
    for inner in loop.nodes:
        chosen = [values[o] if isinstance(o, int) else o for o in inner.operands]
        values.extend(r.builder.add(inner.primitive, chosen, node.location, node.scope))
    return tuple(values[o] if isinstance(o, int) else o for o in loop.outputs)
