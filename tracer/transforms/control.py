"""Control flow that depends on values and can be traced: while_loop and cond."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ingot.tracer import dtypes, tree
from ingot.tracer.array import Value, array, record_all, wrap
from ingot.tracer.aval import Aval, show
from ingot.tracer.errors import ShapeError
from ingot.tracer.graph import Graph
from ingot.tracer.primitives.control import Cond, WhileLoop, agree_avals, closed
from ingot.tracer.trace import inline, trace
from ingot.tracer.transforms.arguments import check_callable


def _arrays(name: str, value: Any) -> tuple[list[array], tree.Tree]:
    leaves, structure = tree.flatten(value)
    for x in leaves:
        if not isinstance(x, array | bool | int | float | complex):
            raise ValueError(f"[{name}] expected arrays and scalars, got {type(x).__name__}.")
    return [x if isinstance(x, array) else array(x) for x in leaves], structure


def _traced(
    name: str, fun: Callable, structure: tree.Tree, avals: Sequence[Aval]
) -> tuple[Graph, list[Value], tree.Tree]:
    """Closed graph of `fun` called with the tree of arguments, what it captures, the tree of its results."""
    out_tree: list[tree.Tree] = []

    def flat_fun(*arguments: array) -> list[array]:
        found, out_structure = _arrays(name, fun(*tree.unflatten(structure, arguments)))
        out_tree[:] = [out_structure]
        return found

    label = getattr(fun, "__name__", name)
    traced = trace(flat_fun, avals, name=label if label.isidentifier() else name, close=True)
    return traced.graph, traced.captured, out_tree[0]


def cond(pred: Any, true_fun: Callable, false_fun: Callable, *operands: Any) -> Any:
    """`true_fun(*operands)` where the scalar `pred` is true, else `false_fun(*operands)`.

    Both functions are traced; only the chosen one runs. They must return trees of the same structure, shapes
    and dtypes. Differentiable, mappable, exportable.

    Raises:
        ShapeError: when `pred` is not a scalar or the branches disagree; shows both.
    """
    check_callable("cond", true_fun)
    check_callable("cond", false_fun)
    choice = pred if isinstance(pred, array) else array(pred)
    if choice.ndim:
        raise ShapeError(f"[cond] the predicate must be a scalar, got shape {choice.shape}.")
    choice = choice.astype(dtypes.bool_)
    flat, structure = _arrays("cond", operands)
    avals = [x._value.aval for x in flat]
    then, then_captured, then_tree = _traced("cond", true_fun, structure, avals)
    other, other_captured, other_tree = _traced("cond", false_fun, structure, avals)
    if then_tree != other_tree or not agree_avals(then.output_avals, other.output_avals):
        raise ShapeError(
            "[cond] the branches must return the same structure, shapes and dtypes: "
            f"({show(then.output_avals)}) and ({show(other.output_avals)})."
        )
    n, n_then = len(flat), len(then_captured)
    captured = then_captured + other_captured
    every = [*avals, *(v.aval for v in captured)]
    yes = closed(lambda *xs: inline(then, [x._value for x in xs[: n + n_then]]), every, then.name)
    no = closed(
        lambda *xs: inline(other, [x._value for x in (*xs[:n], *xs[n + n_then :])]), every, other.name
    )
    found = record_all(Cond(yes, no), choice._value, *(x._value for x in flat), *captured)
    return tree.unflatten(then_tree, found)


def while_loop(cond_fun: Callable, body_fun: Callable, init: Any) -> Any:
    """Repeat `state = body_fun(state)` while `cond_fun(state)` is true; returns the last state.

    `init` is a tree of arrays and scalars, passed to both functions as one argument; the body must keep its
    structure, shapes and dtypes. jvp and vmap work; a vjp does not exist, since the number of steps, and so
    the memory for the way back, depends on data.

    Raises:
        ShapeError: when the body changes the state's avals; shows both.
    """
    check_callable("while_loop", cond_fun)
    check_callable("while_loop", body_fun)
    flat, structure = _arrays("while_loop", init)
    avals = [x._value.aval for x in flat]
    one = tree.Tree("tuple", (structure,))
    condition, for_cond, _ = _traced("while_loop", cond_fun, one, avals)
    body, for_body, body_tree = _traced("while_loop", body_fun, one, avals)
    if len(condition.outputs) != 1 or condition.output_avals[0].ndim:
        raise ShapeError(
            f"[while_loop] the condition must give a scalar, got ({show(condition.output_avals)})."
        )
    if body_tree != structure or not agree_avals(avals, body.output_avals):
        raise ShapeError(
            f"[while_loop] the body must keep the state's structure, shapes and dtypes: from ({show(avals)}) "
            f"it makes ({show(body.output_avals)})."
        )
    loop = WhileLoop(
        _captured_first(condition, len(avals), as_bool=True),
        _captured_first(body, len(avals)),
        len(for_cond),
        len(for_body),
    )
    found = record_all(loop, *for_cond, *for_body, *(x._value for x in flat))
    return tree.unflatten(structure, found)


def _captured_first(graph: Graph, n_state: int, as_bool: bool = False) -> Graph:
    """The graph with its captured inputs before the state, as `WhileLoop` wants them."""
    n_captured = len(graph.inputs) - n_state
    avals = [*graph.inputs[n_state:], *graph.inputs[:n_state]]

    def fun(*xs: array) -> list[array]:
        found = inline(graph, [x._value for x in (*xs[n_captured:], *xs[:n_captured])])
        return [wrap(found[0]._value).astype(dtypes.bool_)] if as_bool else found

    return closed(fun, avals, graph.name)
