"""Control flow that is traced once: cond, switch, while_loop, fori_loop, scan and map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ingot.tracer import dtypes, tree
from ingot.tracer.array import Value, array, record, record_all, wrap
from ingot.tracer.aval import Aval, show
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree
from ingot.tracer.graph import Graph
from ingot.tracer.primitives.control import Cond, WhileLoop, agree_avals, closed
from ingot.tracer.primitives.scan import ScanLoop
from ingot.tracer.primitives.shape import Concatenate, Iota
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


def switch(index: Any, branches: Sequence[Callable], *operands: Any) -> Any:
    """`branches[index](*operands)` for an integer scalar `index`, clamped to the branches there are.

    All branches are traced; only the chosen one runs. They must return trees of the same structure, shapes
    and dtypes.
    """
    if not branches:
        raise ValueError("[switch] got no branches.")
    for branch in branches:
        check_callable("switch", branch)
    at = index if isinstance(index, array) else array(index)
    if at.ndim or not at.dtype.is_integer:
        raise ShapeError(f"[switch] the index must be an integer scalar, got {at._value.aval!r}.")

    def choose(low: int, high: int) -> Callable:
        if high - low == 1:
            return branches[low]
        middle = (low + high) // 2
        return lambda i, *xs: cond(i < middle, _passes(choose(low, middle), low, middle),
                                   _passes(choose(middle, high), middle, high), i, *xs)  # fmt: skip

    if len(branches) == 1:
        return branches[0](*operands)
    return choose(0, len(branches))(at, *operands)


def _passes(fun: Callable, low: int, high: int) -> Callable:
    """A branch of a choice between `high - low` functions: only a choice takes the index."""
    if high - low > 1:
        return fun

    def branch(_: array, *xs: Any) -> Any:
        return fun(*xs)

    branch.__name__ = getattr(fun, "__name__", "branch")
    return branch


def scan(
    f: Callable,
    init: Any,
    xs: Any = None,
    length: Extent | None = None,
    reverse: bool = False,
    *,
    checkpoint_every: int | None = None,
) -> tuple[Any, Any]:
    """A loop of known length: `carry, y = f(carry, x)` over the slices of `xs` along their first axes.

    Args:
        f: takes the carry and a slice, returns the new carry (same structure, shapes, dtypes) and an output.
        init: the first carry, a tree of arrays and scalars.
        xs: a tree of arrays whose first axes have the same extent, or None.
        length: number of turns; needed without `xs`.
        reverse: from the last slice to the first; outputs stand where their slices stood.
        checkpoint_every: for gradients, keep the carry of every so many turns only and compute the others
            again, which lets memory grow with the root of the length. Without it each turn's carry is kept.

    Returns:
        the last carry, and the outputs stacked along a new first axis.

    Raises:
        ShapeError: when the turns change the carry, shows both; or when lengths disagree.
    """
    check_callable("scan", f)
    carry, carry_tree = _arrays("scan", init)
    slices, xs_tree = _arrays("scan", xs)
    for x in slices:
        if not x.ndim:
            raise ShapeError("[scan] the arrays in xs need an axis to go along, but one is a scalar.")
        length = x.shape[0] if length is None else length
        if not agree(x.shape[0], length):
            raise ShapeError(f"[scan] expected a first axis of {length}, got an array of shape {x.shape}.")
    if length is None:
        raise ValueError("[scan] without xs the length must be given.")
    if not isinstance(length, int | Dim) or (isinstance(length, int) and length < 0):
        raise ValueError(f"[scan] the length must be a number of turns, got {length!r}.")
    if checkpoint_every is not None:
        return _in_segments(f, (carry, carry_tree), (slices, xs_tree), length, reverse, checkpoint_every)
    return _scan(f, (carry, carry_tree), (slices, xs_tree), length, reverse)


Leaves = tuple[list[array], tree.Tree]


def _scan(f: Callable, init: Leaves, xs: Leaves, length: Extent, reverse: bool) -> tuple[Any, Any]:
    (carry, carry_tree), (slices, xs_tree) = init, xs
    avals = [x._value.aval for x in carry]
    each = [Aval(x.shape[1:], x.dtype) for x in slices]
    structure = tree.Tree("tuple", (carry_tree, xs_tree))
    body, captured, out_tree = _traced("scan", f, structure, [*avals, *each])
    if out_tree.kind != "tuple" or len(out_tree.children) != 2:
        raise ValueError("[scan] the function must return a pair: the new carry and an output.")
    n, changed = len(carry), out_tree.children[0]
    if changed != carry_tree or not agree_avals(avals, body.output_avals[:n]):
        raise ShapeError(
            "[scan] the function must keep the carry's structure, shapes and dtypes: from "
            f"({show(avals)}) it makes ({show(body.output_avals[: changed.n_leaves])})."
        )
    loop = ScanLoop(_captured_first(body, n + len(slices)), len(captured), n, length, reverse)
    found = record_all(loop, *captured, *(x._value for x in (*carry, *slices)))
    return tree.unflatten(carry_tree, found[:n]), tree.unflatten(out_tree.children[1], found[n:])


def _in_segments(
    f: Callable, init: Leaves, xs: Leaves, length: Extent, reverse: bool, every: int
) -> tuple[Any, Any]:
    """A scan over scans of `every` turns, and one over what is left: the way back knows the first carry of
    each and computes it again."""
    if not isinstance(every, int) or every < 1 or not isinstance(length, int):
        raise ValueError(
            f"[scan] checkpoint_every must be a positive number of turns of a loop of constant length, got "
            f"{every!r} for {length} turns."
        )
    (carry, carry_tree), (slices, xs_tree) = init, xs
    whole = length // every
    cut = whole * every
    start, stop = (length - cut, length) if reverse else (0, cut)

    def segment(held: Any, parts: Any) -> tuple[Any, Any]:
        return _scan(f, _arrays("scan", held), _arrays("scan", parts), every, reverse)

    grouped = [x[start:stop].reshape((whole, every, *x.shape[1:])) for x in slices]
    last, ys = _scan(segment, (carry, carry_tree), (grouped, xs_tree), whole, reverse)
    flat = tree.map_leaves(lambda y: y.reshape((cut, *y.shape[2:])), ys)
    if cut == length:
        return last, flat
    rest = [x[:start] if reverse else x[stop:] for x in slices]
    last, more = _scan(f, _arrays("scan", last), (rest, xs_tree), length - cut, reverse)
    first, second = (more, flat) if reverse else (flat, more)
    leaves, structure = tree.flatten(first)
    pairs = zip(leaves, tree.leaves(second), strict=True)
    return last, tree.unflatten(structure, [record(Concatenate(0), a._value, b._value) for a, b in pairs])


def map(f: Callable, xs: Any) -> Any:
    """`f` of every slice of `xs` along the first axes, one after the other, stacked: `scan` without a carry.

    Takes less memory than `vmap`, and `f` may be anything that traces.
    """
    check_callable("map", f)
    return scan(lambda _, x: (None, f(x)), None, xs)[1]


def fori_loop(lower: Any, upper: Any, body_fun: Callable, init: Any) -> Any:
    """`for i in range(lower, upper): state = body_fun(i, state)`; returns the last state.

    With bounds that are ints (or extents) the loop is a scan, which has a vjp; with arrays it is a
    `while_loop`, which has not. `i` is an int32 scalar (of the bounds' dtype with arrays).
    """
    check_callable("fori_loop", body_fun)
    if isinstance(lower, int | Dim) and isinstance(upper, int | Dim):
        turns = upper - lower
        if isinstance(turns, int):
            turns = max(turns, 0)
        numbers = record(Iota((turns,), 0, dtypes.int32))
        step = lambda state, i: (body_fun(i + lower, state), None)  # noqa: E731
        return scan(step, init, numbers)[0]
    end = upper if isinstance(upper, array) else array(upper)
    start = lower if isinstance(lower, array) else array(lower)
    for bound in (start, end):
        if bound.ndim or not bound.dtype.is_integer:
            raise ShapeError(f"[fori_loop] bounds must be integer scalars, got {bound._value.aval!r}.")

    def going(state: tuple[array, Any]) -> array:
        return state[0] < end

    def turn(state: tuple[array, Any]) -> tuple[array, Any]:
        return state[0] + 1, body_fun(state[0], state[1])

    return while_loop(going, turn, (start.astype(end.dtype), init))[1]
