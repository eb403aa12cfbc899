"""Rebuilding a graph node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingot.tracer.graph import Graph, GraphBuilder, Literal, Node, Operand

Results = tuple[Operand, ...]
Replace = Callable[["Rewriter", Node, tuple[Operand, ...]], "Results | None"]


class Rewriter:
    """The graph under construction: `builder` has all inputs and constants of the old one."""

    def __init__(self, graph: Graph) -> None:
        self.old = graph
        self.builder = GraphBuilder(graph.name, graph.inputs, graph.input_names, graph.guards)
        for constant in graph.constants:
            self.builder.constant(constant)
        self.mapped: dict[int, Operand] = {i: i for i in range(graph.first_result)}
        self.made: dict[int, Node] = {}

    def operand(self, old: Operand) -> Operand:
        return old if isinstance(old, Literal) else self.mapped[old]

    def add(self, node: Node, operands: Sequence[Operand]) -> Results:
        """Append `node` with new operands."""
        results = self.builder.add(node.primitive, operands, node.location, node.scope)
        made = self.builder.nodes[-1]
        self.made.update((r, made) for r in results)
        return results

    def producer(self, operand: Operand) -> Node | None:
        """The new node that computes `operand`."""
        return None if isinstance(operand, Literal) else self.made.get(operand)


def rewrite(graph: Graph, replace: Replace) -> Graph:
    """The graph with every node for which `replace` gives operands exchanged for them; None keeps a node."""
    r = Rewriter(graph)
    for node in graph.nodes:
        operands = tuple([r.operand(o) for o in node.operands])
        results = replace(r, node, operands)
        if results is None:
            results = r.add(node, operands)
        r.mapped.update(zip(node.results, results, strict=True))
    return finished(r, [r.operand(o) for o in graph.outputs])


def finished(r: Rewriter, outputs: Sequence[Operand]) -> Graph:
    """The new graph, or the old one itself when nothing changed. Dims keep their order: they are the
    signature."""
    made = r.builder.finish(outputs)
    new = Graph(
        r.old.name,
        r.old.inputs,
        made.constants,
        made.nodes,
        made.outputs,
        r.old.dims,
        r.old.guards,
        r.old.input_names,
    )
    return r.old if new.nodes == r.old.nodes and new.outputs == r.old.outputs else new
