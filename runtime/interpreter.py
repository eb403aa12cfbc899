"""The reference tier: runs lazy graphs and traced graphs node by node in NumPy."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from weakref import ref

import numpy as np

from ingot.tracer.array import LazyNode, Storage, Value, leaf, memory_root
from ingot.tracer.errors import TracerError
from ingot.tracer.evaluate import evaluator
from ingot.tracer.graph import Graph, Literal
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.control import Call
from ingot.tracer.primitives.shape import OptimizationBarrier
from ingot.tracer.state import state, transforms_run
from ingot.tracer.trace import linearise, match_dims, results_of


def evaluate_lazy(values: Sequence[Value]) -> None:
    """Give every value its storage. Nodes are forgotten as they are evaluated, so that intermediate results
    nobody holds are freed on the way; inside grad, vjp and jvp nodes stay, for the derivatives."""
    if len(values) == 1 and _is_ready(values[0]):
        inner, leaves = list(values), list[Value]()  # the most frequent graph: one node on evaluated operands
    else:
        inner, leaves = linearise(values, _known)
    for value in leaves:
        if value.storage is None:
            raise TracerError(
                "[eval] The value depends on an argument of compile, vmap or export, which has none. It was "
                "kept in a variable after that call ended; return it from the function instead."
            )
    del leaves  # or the check for sole ownership would count it
    retain = transforms_run()
    with np.errstate(all="ignore"):
        inner.reverse()
        while inner:
            value = inner.pop()
            node = value.node
            if node is None or value.storage is not None:
                continue  # another thread was faster
            results = results_of(value)
            keep = retain and value.trace > 0
            if type(node.primitive) is Call and node.primitive.kind == "compiled":
                _run_compiled(node.primitive.graph, node.operands, results)
            elif node.primitive.overwrite is not None and not keep and _owners(node) == _SOLE:
                _run_in_place(node, results[0])
            else:
                _run_primitive(node.primitive, node.operands, results)
            if keep:
                if state.depth:
                    state.retained.extend(map(ref, results))
            else:
                for result in results:
                    result.node = None


def _run_primitive(
    primitive: Primitive, operands: Sequence[Value | Literal], results: Sequence[Value]
) -> None:
    views = [o.numpy() if type(o) is Literal else o.view for o in operands]
    outcome = primitive.evaluate(*views)  # type: ignore[arg-type]
    if len(results) == 1 and not isinstance(outcome, tuple):
        outcome = (outcome,)
    sources = operands if primitive.may_alias else ()
    for result, view in zip(results, outcome, strict=True):
        _publish(result, view, sources)


def _owners(node: LazyNode) -> tuple[int, ...]:
    """How often the first operand of a node, its storage and its view are referred to; () for one that cannot
    change."""
    x = node.operands[0]
    if type(x) is Literal or x.view is None or x.storage is None:
        return ()
    view, storage = x.view, x.storage
    if storage.pinned or storage.frozen or storage.owner is not view or not view.flags.writeable:
        return ()
    if not view.flags.c_contiguous:
        return ()
    return sys.getrefcount(x), sys.getrefcount(storage), sys.getrefcount(view)


def _sole_owner() -> tuple[int, ...]:
    """What `_owners` finds for an operand that only its node refers to, in this version of Python."""
    return _owners(LazyNode(OptimizationBarrier(), (leaf(np.zeros(1)),), None, ""))


def _run_in_place(node: LazyNode, result: Value) -> None:
    """An update of an array that nobody else can see: its memory becomes the result's."""
    x, *rest = node.operands
    assert isinstance(x, Value)
    view = node.primitive.overwrite(x.view, *[o.numpy() if type(o) is Literal else o.view for o in rest])
    assert view is x.view
    result.view = view
    result.storage = x.storage


def _is_ready(value: Value) -> bool:
    node = value.node
    return node is not None and all([type(o) is Literal or o.storage is not None for o in node.operands])


def _run_compiled(graph: Graph, operands: Sequence[Value | Literal], results: Sequence[Value]) -> None:
    """A compiled function that was called with lazy arrays."""
    found = evaluator().executable(graph)([leaf(o.numpy()) if type(o) is Literal else o for o in operands])  # type: ignore[misc]
    for result, other in zip(results, found, strict=True):
        result.view = other.view
        result.storage = other.storage


def _known(value: Value) -> bool:
    return value.storage is not None


def _publish(value: Value, view: np.ndarray, sources: Sequence[Value | Literal]) -> None:
    """Store a result. The view is set before the storage: who sees a storage finds the view."""
    if type(view) is not np.ndarray:
        view = np.asarray(view)
    value.view = view
    if view.base is not None:
        root = memory_root(view)
        for source in sources:
            if type(source) is Value and source.storage is not None and source.storage.owner is root:
                value.storage = source.storage
                return
        value.storage = Storage(root)
    else:
        for source in sources:
            if type(source) is Value and source.view is view:
                value.storage = source.storage
                return
        value.storage = Storage(view)


def run(
    graph: Graph, operands: Sequence[np.ndarray], env: Mapping[str, int] | None = None
) -> list[np.ndarray]:
    """Results of `graph` on concrete operands; `env` gives the sizes of its dims."""
    if graph.dims:
        graph = graph.substitute(dict(env or {}))
    values: list[np.ndarray | None] = list(operands)
    values.extend(c.data for c in graph.constants)
    uses = graph.uses()
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            views = [o.numpy() if type(o) is Literal else values[o] for o in node.operands]
            outcome = node.primitive.evaluate(*views)  # type: ignore[arg-type]
            if len(node.results) == 1 and not isinstance(outcome, tuple):
                outcome = (outcome,)
            values.extend(np.asarray(view) for view in outcome)
            for operand in node.operands:
                if type(operand) is not Literal:
                    uses[operand] -= 1
                    if not uses[operand]:
                        values[operand] = None
    return [o.numpy() if type(o) is Literal else values[o] for o in graph.outputs]  # type: ignore[misc]


def call(
    primitive: Primitive, operands: Sequence[np.ndarray], env: Mapping[str, int]
) -> tuple[np.ndarray, ...]:
    """Results of one primitive: what a host call of a native program runs."""
    with np.errstate(all="ignore"):
        outcome = (primitive.substitute(env) if env else primitive).evaluate(*operands)
    return tuple(np.asarray(v) for v in outcome) if isinstance(outcome, tuple) else (np.asarray(outcome),)


_SOLE = _sole_owner()


class InterpretedGraph:
    """`Executable` of a graph on this tier."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __call__(self, operands: Sequence[Value]) -> list[Value]:
        env = match_dims(self.graph, [o.aval for o in operands]) if self.graph.dims else {}
        views = [o.view for o in operands]
        results = run(self.graph, views, env)  # type: ignore[arg-type]
        out = []
        for view in results:
            # a result is the caller's own: never a view of an argument or constant, never one array twice
            shared = view.base is not None or not view.flags.writeable or sys.getrefcount(view) > 3
            shared = shared or any(view is v for v in views)
            out.append(leaf(view.copy() if shared else view))
        return out
