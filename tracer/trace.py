"""From a Python function to a graph, and back onto arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from weakref import ref

from ingot.tracer import dims
from ingot.tracer.array import LazyNode, Value, array, at_user_line, evaluate, leaf, wrap
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, DimScope, Extent, Guard
from ingot.tracer.dims_binding import bind_shapes, match_shapes
from ingot.tracer.errors import TracerError
from ingot.tracer.facts import assume
from ingot.tracer.graph import Constant, Graph, GraphBuilder, Literal, Location, Operand
from ingot.tracer.primitive import registry
from ingot.tracer.state import ABSTRACT, CONCRETE, next_serial, state, tracing, user_frame


def linearise(
    roots: Iterable[Value | Literal], stop: Callable[[Value], bool]
) -> tuple[list[Value], list[Value]]:
    """Nodes that `roots` depend on, in topological order (one value stands for each), and the leaves.

    A value for which `stop` is true is a leaf even when it has a node. Iterative: chains may be long.
    """
    seen: set[int] = set()
    inner: list[Value] = []
    leaves: list[Value] = []
    stack: list[Value | Literal] = list(roots)
    while stack:
        value = stack.pop()
        if type(value) is Literal or id(value) in seen:
            continue
        assert isinstance(value, Value)
        seen.add(id(value))
        node = value.node
        if node is None or stop(value):
            leaves.append(value)
            continue
        if node.values is not None:
            if id(node) in seen:
                continue
            seen.add(id(node))
            value = node.values[0]
        inner.append(value)
        stack.extend(node.operands)
    inner.sort(key=_serial)
    leaves.sort(key=_serial)
    return inner, leaves


def _serial(value: Value) -> int:
    return value.serial


def results_of(value: Value) -> tuple[Value, ...]:
    """All results of the node that `value` belongs to."""
    assert value.node is not None
    return value.node.values or (value,)


@dataclass
class Traced:
    """A traced function. `captured` are the outer values it uses, in order.

    In a closed trace they are the trailing inputs of `graph`; otherwise they became its constants.
    """

    graph: Graph
    captured: list[Value]


def abstract_argument(aval: Aval) -> array:
    """A fresh argument of which only the aval is known."""
    return wrap(Value(aval, None, 0, ABSTRACT))


def concrete_argument(x: array) -> array:
    """A fresh argument with the value of `x`, told apart from it by the transform that makes it."""
    source = x._value
    if type(source) is Literal:
        source = leaf(source.numpy())
    outside = source.trace == 0 or state.depth == 0
    if source.storage is not None and outside:
        fresh = Value(source.aval, None, 0, CONCRETE)
    else:
        node = LazyNode(registry["identity"](), (source,), None, "")
        fresh = Value(source.aval, node, 0, max(CONCRETE, source.trace))
        if source.storage is not None:
            state.retained.append(ref(fresh))
    fresh.storage, fresh.view = source.storage, source.view
    return wrap(fresh)


def build_graph(
    name: str,
    inputs: Sequence[Value],
    outputs: Sequence[Value | Literal],
    *,
    since: int,
    close: bool = False,
    descend: bool = False,
    input_names: Sequence[str] = (),
    guards: Sequence[Guard] = (),
) -> Traced:
    """The graph that computes `outputs` from `inputs`.

    since: serial at which the trace began; older values are captured from outside.
    close: captured values become trailing inputs, for graphs inside primitives; else they are evaluated and
        become constants.
    descend: unevaluated captured values contribute their computation instead of their value.
    """
    input_ids = {id(v) for v in inputs}

    def stop(value: Value) -> bool:
        if id(value) in input_ids:
            return True
        if value.trace == ABSTRACT and value.serial >= since:
            return False
        if value.serial < since and not descend:
            return True
        return value.storage is not None and (value.trace == 0 or descend)

    inner, leaves = linearise(outputs, stop)
    captured = [v for v in leaves if id(v) not in input_ids]
    if not close:
        if any(v.trace == ABSTRACT for v in captured):
            raise _leaked()
        evaluate(captured)
    literals = {id(v): literal_of(v) for v in captured if _is_literal(v)}
    captured = [v for v in captured if id(v) not in literals]
    avals = [v.aval for v in inputs] + ([v.aval for v in captured] if close else [])
    names = tuple(input_names) + tuple(
        f"captured_{i}" for i in range(len(avals) - len(inputs) if close else 0)
    )
    if close:
        guards = _within(guards, avals)
    builder = GraphBuilder(name, avals, names if input_names else (), guards)
    ids: dict[int, Operand] = {id(v): i for i, v in enumerate(inputs)}
    ids.update(literals)
    for position, value in enumerate(captured):
        ids[id(value)] = len(inputs) + position if close else builder.constant(constant_of(value))
    for value in inner:
        node = value.node
        assert node is not None
        operands = [o if type(o) is Literal else ids[id(o)] for o in node.operands]
        results = builder.add(node.primitive, operands, node.location, node.scope)
        for result, other in zip(results, results_of(value), strict=True):
            ids.setdefault(id(other), result)
    return Traced(builder.finish([o if type(o) is Literal else ids[id(o)] for o in outputs]), captured)


def _within(guards: Sequence[Guard], avals: Sequence[Aval]) -> list[Guard]:
    """The guards that speak of nothing but the symbols of `avals`."""
    known = set(dims.symbols(*[extent for aval in avals for extent in aval.shape]))
    return [guard for guard in guards if known.issuperset(dims.symbols(guard.left, guard.right))]


def _leaked() -> TracerError:
    return TracerError(
        "[trace] The function uses an array that belongs to another compile, vmap or export call"
        f"{at_user_line()}: it was kept from there in a variable. Return it from that function instead."
    )


def _is_literal(value: Value) -> bool:
    return (
        value.aval.ndim == 0 and value.trace == 0 and value.storage is not None and not value.storage.pinned
    )


def literal_of(value: Value) -> Literal:
    """An evaluated scalar as a literal."""
    assert value.view is not None
    dtype = value.aval.dtype
    return Literal(float(value.view) if dtype.is_floating else value.view.item(), dtype)


def constant_of(value: Value) -> Constant:
    """The evaluated value as a constant: a snapshot that no later write through a view can reach."""
    assert value.view is not None and value.storage is not None
    view = value.view.copy() if value.storage.pinned else value.view
    if view is value.view:
        value.storage.frozen = True
    data = view.view()
    data.flags.writeable = False
    return Constant(data, value.aval)


def trace(
    fun: Callable[..., Sequence[array]],
    avals: Sequence[Aval],
    *,
    name: str = "",
    close: bool = False,
    descend: bool = False,
    input_names: Sequence[str] = (),
    samples: dict[str, int] | None = None,
    policy: str = "guard",
    rebindable: frozenset[int] = frozenset(),
) -> Traced:
    """Run `fun` on abstract arguments of `avals`; it returns a flat sequence of arrays.

    samples: sizes of the symbols in `avals`; comparisons of extents that ranges do not decide take their
    answer and become guards of the graph; equalities are solved, so that equal extents are one symbol.
    """
    name = name or getattr(fun, "__name__", "f")
    scope = DimScope(samples or {}, policy, _locate)
    with tracing(abstract=True, rebindable=rebindable, exporting=descend), scope:
        since = next_serial()
        arguments = [abstract_argument(aval) for aval in avals]
        inputs = [a._value for a in arguments]
        outputs = [o._value for o in fun(*arguments)]
        guards = _asked() if close else scope.events
        with assume(guards):
            traced = build_graph(
                name,
                inputs,
                outputs,
                since=since,
                close=close,
                descend=descend,
                input_names=input_names,
                guards=guards,
            )
    if guards and policy == "guard" and not close:
        _warn_of_fixed(guards)
        traced = Traced(solve_guards(traced.graph), traced.captured)
    return traced


def _asked() -> list[Guard]:
    """What the running traces took for granted: a graph inside another shares its symbols."""
    return [guard for scope in dims._scopes.stack for guard in scope.events]


def _warn_of_fixed(guards: Sequence[Guard]) -> None:
    for guard in guards:
        if guard.fixed:
            where = "" if guard.location is None else f" at {guard.location}"
            warnings.warn(
                f"[shapeless] {guard.left} was used as a number{where}: the trace only takes inputs with "
                f"{guard}.",
                stacklevel=4,
            )


def _locate() -> Location | None:
    where = user_frame()
    return None if where is None else Location(*where)


def solve_guards(graph: Graph) -> Graph:
    """`graph` with every guard `symbol == extent` solved by substitution, as far as ranges allow."""
    while True:
        for guard in graph.guards:
            if guard.relation == "eq":
                solved = _solution(guard)
                if solved is not None:
                    graph = graph.substitute({solved[0]: solved[1]})
                    break
        else:
            return graph


def _solution(guard: Guard) -> tuple[str, Extent] | None:
    p, q = dims.reduce_equality(guard.left, guard.right)
    for left, right in ((q, p), (p, q)):
        if not dims.is_symbol(left):
            continue
        if isinstance(right, Dim):
            inside = any(symbol is left for symbol in dims.symbols(right))
            whole = dims.same(right % left.multiple_of, 0)
            if inside or not whole or dims.bounds(left) != dims.bounds(right):
                continue
        return left.name, right
    return None


def inline(
    graph: Graph, operands: Sequence[Value | Literal], env: dict[str, Extent] | None = None
) -> list[array]:
    """Record the nodes of `graph` on `operands`, whose shapes, symbolic ones too, bind its dims."""
    if graph.dims:
        graph = graph.substitute(env if env is not None else match_dims(graph, [o.aval for o in operands]))
    values: list[Value | Literal] = list(operands)
    values.extend(leaf(c.data, aval=c.aval) for c in graph.constants)
    for node in graph.nodes:
        chosen = tuple([o if type(o) is Literal else values[o] for o in node.operands])
        avals = node.primitive.result_avals(tuple([o.aval for o in chosen]))
        where = None if node.location is None else (node.location.code, node.location.instruction)
        lazy = LazyNode(node.primitive, chosen, where, node.scope)
        level = max((o.trace for o in chosen), default=0)
        made = tuple(Value(aval, lazy, index, level) for index, aval in enumerate(avals))
        if len(made) != 1:
            lazy.values = made
        values.extend(made)
    return [wrap(o if type(o) is Literal else values[o]) for o in graph.outputs]


def match_dims(graph: Graph, avals: Sequence[Aval]) -> dict[str, Extent]:
    """Extents of the graph's dims for operands of `avals`, which may be symbolic themselves."""
    names = graph.input_names or tuple(f"input {i}" for i in range(len(avals)))
    match: Callable[..., Mapping[str, Extent]] = (
        match_shapes if any(a.is_symbolic for a in avals) else bind_shapes
    )
    return dict(match([a.shape for a in graph.inputs], [a.shape for a in avals], names))
