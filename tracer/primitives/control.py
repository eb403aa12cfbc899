"""Calls and control flow: primitives whose parameters are closed graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ingot.tracer import dtypes
from ingot.tracer.array import Value, array, record_all, wrap
from ingot.tracer.aval import Aval, show
from ingot.tracer.dims import Extent
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree_shapes
from ingot.tracer.graph import Graph, Literal
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.elementwise import choose
from ingot.tracer.primitives.shape import OptimizationBarrier
from ingot.tracer.trace import inline, match_dims, trace
from ingot.tracer.transforms.grad import pull_back
from ingot.tracer.transforms.jvp import push_forward
from ingot.tracer.transforms.vmap import batch

Handles = Sequence[array]
MaybeHandles = Sequence[array | None]


def run(graph: Graph, operands: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Reference evaluation of a closed graph."""
    if graph.dims:
        avals = [Aval(np.shape(x), a.dtype) for x, a in zip(operands, graph.inputs, strict=True)]
        graph = graph.substitute(match_dims(graph, avals))
    values: list[np.ndarray] = list(operands)
    for node in graph.nodes:
        chosen = [o.numpy() if type(o) is Literal else values[o] for o in node.operands]
        outcome = node.primitive.evaluate(*chosen)
        values.extend(np.asarray(v) for v in (outcome if isinstance(outcome, tuple) else (outcome,)))
    return tuple(o.numpy() if type(o) is Literal else values[o] for o in graph.outputs)


def _values(handles: Handles) -> list[Value | Literal]:
    return [h._value for h in handles]


def agree_avals(expected: Sequence[Aval], given: Sequence[Aval]) -> bool:
    """True when dtypes are the same and shapes agree."""
    return len(expected) == len(given) and all(
        e.dtype is g.dtype and agree_shapes(e.shape, g.shape) for e, g in zip(expected, given, strict=True)
    )


def _check(name: str, part: str, expected: Sequence[Aval], given: Sequence[Aval]) -> None:
    if not agree_avals(expected, given):
        raise ShapeError(f"[{name}] {part}: expected ({show(expected)}), got ({show(given)}).")


def _output_avals(graph: Graph, avals: Sequence[Aval]) -> tuple[Aval, ...]:
    """Result avals of a closed graph whose dims may have other names outside."""
    if not graph.dims:
        return graph.output_avals
    return graph.substitute(match_dims(graph, avals)).output_avals


def closed(fun: Callable[..., Sequence[array]], avals: Sequence[Aval], name: str) -> Graph:
    """Trace `fun`, which may use nothing but its arguments."""
    traced = trace(fun, avals, name=name, close=True)
    assert not traced.captured, f"{name} captures {traced.captured}"
    return traced.graph


# -- derived graphs ------------------------------------------------------------------------------------------


def jvp_graph(graph: Graph, active: Sequence[bool]) -> tuple[Graph, list[bool]]:
    """Graph from inputs and the tangents of the `active` ones to outputs and their tangents.

    Also says which outputs have a tangent; only those are returned, after the outputs.
    """
    n = len(graph.inputs)
    moving: list[bool] = []

    def fun(*arguments: array) -> list[array]:
        primals, tangents = arguments[:n], iter(arguments[n:])
        outputs, pushed = push_forward(
            lambda *xs: inline(graph, _values(xs)),
            primals,
            [next(tangents) if a else None for a in active],
        )
        moving[:] = [t is not None for t in pushed]
        return list(outputs) + [t for t in pushed if t is not None]

    avals = list(graph.inputs) + [a for a, on in zip(graph.inputs, active, strict=True) if on]
    return closed(fun, avals, f"{graph.name}_jvp"), moving


def vjp_graph(graph: Graph, wanted: Sequence[bool], given: Sequence[bool]) -> tuple[Graph, list[bool]]:
    """Graph from inputs and the cotangents of the `given` outputs to the cotangents of the `wanted` inputs.

    Also says which of the wanted inputs have one; only those are returned.
    """
    n = len(graph.inputs)
    reached: list[bool] = []

    def fun(*arguments: array) -> list[array]:
        primals, cotangents = arguments[:n], iter(arguments[n:])
        _, pulled = pull_back(
            lambda *xs: inline(graph, _values(xs)),
            primals,
            lambda outputs: [next(cotangents) if g else None for g in given],
        )
        chosen = [p for p, w in zip(pulled, wanted, strict=True) if w]
        reached[:] = [p is not None for p in chosen]
        return [p for p in chosen if p is not None]

    avals = list(graph.inputs) + [a for a, on in zip(graph.output_avals, given, strict=True) if on]
    return closed(fun, avals, f"{graph.name}_vjp"), reached


def vmap_graph(
    graph: Graph, batched: Sequence[bool], size: Extent, every: bool = True
) -> tuple[Graph, list[bool]]:
    """Graph of the batched function, batch axes in front. With `every`, all outputs get a batch axis."""
    out: list[bool] = []

    def fun(*arguments: array) -> list[array]:
        axes = [0 if b else None for b in batched]
        results, out_axes = batch(lambda *xs: inline(graph, _values(xs)), arguments, axes, size)
        results = [_front(r, axis) for r, axis in zip(results, out_axes, strict=True)]
        if every:
            results = [
                r if axis is not None else r.broadcast_to((size, *r.shape))
                for r, axis in zip(results, out_axes, strict=True)
            ]
        out[:] = [every or axis is not None for axis in out_axes]
        return results

    avals = [Aval((size, *a.shape), a.dtype) if b else a for a, b in zip(graph.inputs, batched, strict=True)]
    return closed(fun, avals, f"{graph.name}_vmap"), out


def _front(x: array, axis: int | None) -> array:
    return x if axis in (None, 0) else x.moveaxis(axis, 0)


def _inexact(handles: Handles) -> list[bool]:
    return [h.dtype.is_inexact for h in handles]


# -- call ---------------------------------------------------------------------------------------------------


class Call(Primitive):
    """The closed graph `graph` as one operation.

    kind: "compiled" (a compiled function called with lazy arrays), "checkpoint" (its vjp computes the forward
    pass again instead of keeping intermediate results) or "module".
    """

    graph: Graph
    kind: str

    def infer(self, *avals: Aval) -> tuple[Aval, ...]:
        if len(avals) != len(self.graph.inputs):
            raise ShapeError(
                f"[call] {self.graph.name} takes {len(self.graph.inputs)} operands, got {len(avals)}."
            )
        if not self.graph.dims:
            _check("call", "operands", self.graph.inputs, avals)
        return _output_avals(self.graph, avals)

    def evaluate(self, *operands: np.ndarray) -> tuple[np.ndarray, ...]:
        return run(self.graph, operands)

    def _recorded(self, operands: Handles, graph: Graph) -> list[array]:
        return list(record_all(Call(graph, self.kind), *_values(operands)))

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        if self.kind == "checkpoint":
            # The barrier keeps common-subexpression elimination from finding the first forward pass again.
            primals = record_all(OptimizationBarrier(), *_values(primals))
        given = [c is not None for c in cotangents]
        wanted = _inexact(primals)
        graph, reached = vjp_graph(_concrete(self.graph, [p._value.aval for p in primals]), wanted, given)
        found = iter(inline(graph, _values([*primals, *(c for c in cotangents if c is not None)])))
        answers = iter([next(found) if r else None for r in reached])
        return [next(answers) if w else None for w in wanted]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        graph, moving = jvp_graph(
            _concrete(self.graph, [p._value.aval for p in primals]), [t is not None for t in tangents]
        )
        found = inline(graph, _values([*primals, *(t for t in tangents if t is not None)]))
        pushed = iter(found[len(results) :])
        return [next(pushed) if m else None for m in moving]

    def vmap(
        self, operands: Handles, axes: Sequence[int | None], size: Extent
    ) -> tuple[Handles, Sequence[int | None]]:
        batched = [axis is not None for axis in axes]
        moved = [_front(x, axis) for x, axis in zip(operands, axes, strict=True)]
        avals = [x._value.aval for x in moved]
        inner = _concrete(
            self.graph, [Aval(a.shape[1:], a.dtype) if b else a for a, b in zip(avals, batched, strict=True)]
        )
        graph, _ = vmap_graph(inner, batched, size)
        return self._recorded(moved, graph), [0] * len(graph.outputs)


def _concrete(graph: Graph, avals: Sequence[Aval]) -> Graph:
    """The graph with its dims replaced by the extents of its operands."""
    return graph.substitute(match_dims(graph, avals)) if graph.dims else graph


# -- cond ---------------------------------------------------------------------------------------------------


class Cond(Primitive):
    """`then(*operands)` when the bool scalar (first operand) is true, else `otherwise(*operands)`."""

    then: Graph
    otherwise: Graph

    def infer(self, pred: Aval, *avals: Aval) -> tuple[Aval, ...]:
        if pred.dtype is not dtypes.bool_ or pred.ndim:
            raise ShapeError(f"[cond] the predicate must be a bool scalar, got {pred!r}.")
        _check("cond", "operands", self.then.inputs, avals)
        _check("cond", "operands of the second branch", self.otherwise.inputs, avals)
        _check("cond", "results of the two branches", self.then.output_avals, self.otherwise.output_avals)
        return self.then.output_avals

    def evaluate(self, pred: np.ndarray, *operands: np.ndarray) -> tuple[np.ndarray, ...]:
        return run(self.then if pred else self.otherwise, operands)

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        pred, operands = primals[0], primals[1:]
        given = [c is not None for c in cotangents]
        wanted = _inexact(operands)
        avals = [x._value.aval for x in operands]

        def branch(graph: Graph) -> Graph:
            return _dense(
                vjp_graph(graph, wanted, given), [a for a, w in zip(avals, wanted, strict=True) if w]
            )

        found = record_all(
            Cond(branch(self.then), branch(self.otherwise)),
            *_values([pred, *operands, *(c for c in cotangents if c is not None)]),
        )
        answers = iter(found)
        return [None, *(next(answers) if w else None for w in wanted)]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        active = [t is not None for t in tangents[1:]]
        n = len(results)

        def branch(graph: Graph) -> Graph:
            pushed, moving = jvp_graph(graph, active)
            return _dense_tail(pushed, n, moving, graph.output_avals)

        found = record_all(
            Cond(branch(self.then), branch(self.otherwise)),
            *_values([*primals, *(t for t in tangents[1:] if t is not None)]),
        )
        return [t if t.dtype.is_inexact else None for t in found[n:]]

    def vmap(
        self, operands: Handles, axes: Sequence[int | None], size: Extent
    ) -> tuple[Handles, Sequence[int | None]]:
        moved = [_front(x, axis) for x, axis in zip(operands, axes, strict=True)]
        batched = [axis is not None for axis in axes]
        then, _ = vmap_graph(self.then, batched[1:], size)
        otherwise, _ = vmap_graph(self.otherwise, batched[1:], size)
        if not batched[0]:
            found: Sequence[array] = record_all(Cond(then, otherwise), *_values(moved))
        else:
            # One predicate per element: both branches run and each element takes its own.
            yes, no = (inline(g, _values(moved[1:])) for g in (then, otherwise))
            found = [_choose(moved[0], a, b) for a, b in zip(yes, no, strict=True)]
        return found, [0] * len(found)


def _choose(pred: array, a: array, b: array) -> array:
    return choose(pred.reshape((pred.shape[0],) + (1,) * (a.ndim - 1)), a, b)


def _dense(derived: tuple[Graph, list[bool]], avals: Sequence[Aval]) -> Graph:
    """The derived graph with zeros for the results it does not have, so that both branches agree."""
    graph, present = derived

    def fun(*arguments: array) -> list[array]:
        found = iter(inline(graph, _values(arguments)))
        return [next(found) if p else _zeros(a) for p, a in zip(present, avals, strict=True)]

    return closed(fun, graph.inputs, graph.name)


def _dense_tail(graph: Graph, n: int, present: list[bool], avals: Sequence[Aval]) -> Graph:
    def fun(*arguments: array) -> list[array]:
        found = inline(graph, _values(arguments))
        tail = iter(found[n:])
        return found[:n] + [next(tail) if p else _zeros(a) for p, a in zip(present, avals, strict=True)]

    return closed(fun, graph.inputs, graph.name)


def _zeros(aval: Aval) -> array:
    zero = wrap(Literal(0, aval.dtype))
    return zero.broadcast_to(aval.shape) if aval.ndim else zero + wrap(Literal(0, aval.dtype))


# -- while --------------------------------------------------------------------------------------------------


class WhileLoop(Primitive):
    """`while cond(*fixed_c, *carry): carry = body(*fixed_b, *carry)`.

    Operands: `n_cond` values only the condition reads, `n_body` values only the body reads, then the carry.
    """

    cond: Graph
    body: Graph
    n_cond: int
    n_body: int

    def _split(self, operands: Sequence) -> tuple[Sequence, Sequence, Sequence]:
        a, b = self.n_cond, self.n_cond + self.n_body
        return operands[:a], operands[a:b], operands[b:]

    def infer(self, *avals: Aval) -> tuple[Aval, ...]:
        for_cond, for_body, carry = self._split(avals)
        _check("while_loop", "operands of the condition", self.cond.inputs, (*for_cond, *carry))
        _check("while_loop", "operands of the body", self.body.inputs, (*for_body, *carry))
        _check("while_loop", "result of the body and the carry", carry, self.body.output_avals)
        _check("while_loop", "result of the condition", (Aval((), dtypes.bool_),), self.cond.output_avals)
        return tuple(carry)

    def evaluate(self, *operands: np.ndarray) -> tuple[np.ndarray, ...]:
        for_cond, for_body, carry = self._split(operands)
        while run(self.cond, (*for_cond, *carry))[0]:
            carry = run(self.body, (*for_body, *carry))
        return tuple(np.array(c) for c in carry)

    vjp = "the number of iterations, and so the memory for the way back, depends on data"  # type: ignore[assignment]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        for_cond, for_body, carry = self._split(primals)
        _, body_tangents, carry_tangents = self._split(tangents)
        fixed = [t is not None for t in body_tangents]
        moving = [t is not None for t in carry_tangents]
        while True:  # a carry moves when its start moves or the body makes it move
            pushed, out = jvp_graph(self.body, fixed + moving)
            grown = [a or b for a, b in zip(moving, out, strict=True)]
            if grown == moving:
                break
            moving = grown
        n, avals = len(carry), [c._value.aval for c in carry]
        dense = _dense_tail(pushed, n, out, avals)
        kept = [i for i, m in enumerate(moving) if m]

        n_fixed = len(for_body)
        n_fixed_t = sum(fixed)

        def body(*xs: array) -> list[array]:
            fixed_p, rest = xs[:n_fixed], xs[n_fixed:]
            fixed_t, rest = rest[:n_fixed_t], rest[n_fixed_t:]
            carry_p, carry_t = rest[:n], rest[n:]
            found = inline(dense, _values([*fixed_p, *carry_p, *fixed_t, *carry_t]))
            return found[:n] + [found[n + i] for i in kept]

        def cond(*xs: array) -> list[array]:
            return inline(self.cond, _values(xs[: len(for_cond) + n]))

        carry_t = [
            t if t is not None else _zeros(a)
            for t, a, m in zip(carry_tangents, avals, moving, strict=True)
            if m
        ]
        fixed_t = [t for t in body_tangents if t is not None]
        tail = [t._value.aval for t in carry_t]
        body_avals = [*(x._value.aval for x in for_body), *(t._value.aval for t in fixed_t), *avals, *tail]
        cond_avals = [*(x._value.aval for x in for_cond), *avals, *tail]
        loop = WhileLoop(
            closed(cond, cond_avals, self.cond.name),
            closed(body, body_avals, f"{self.body.name}_jvp"),
            self.n_cond,
            n_fixed + n_fixed_t,
        )
        found = record_all(loop, *_values([*for_cond, *for_body, *fixed_t, *carry, *carry_t]))
        tangent = iter(found[n:])
        return [next(tangent) if m else None for m in moving]

    def vmap(
        self, operands: Handles, axes: Sequence[int | None], size: Extent
    ) -> tuple[Handles, Sequence[int | None]]:
        moved = [_front(x, axis) for x, axis in zip(operands, axes, strict=True)]
        for_cond, for_body, carry = self._split(moved)
        cond_b, body_b, carry_b = self._split([axis is not None for axis in axes])
        batched = list(carry_b)
        while True:  # a carry is batched when its start is, or the body or the condition makes it so
            body, out = vmap_graph(self.body, [*body_b, *batched], size, every=False)
            grown = [a or b for a, b in zip(batched, out, strict=True)]
            _, cond_out = vmap_graph(self.cond, [*cond_b, *grown], size, every=False)
            if cond_out[0]:
                grown = [True] * len(grown)
            if grown == batched:
                break
            batched = grown
        carry = [
            x if was or not now else x.broadcast_to((size, *x.shape))
            for x, was, now in zip(carry, carry_b, batched, strict=True)
        ]
        cond, cond_out = vmap_graph(self.cond, [*cond_b, *batched], size, every=False)
        body, out = vmap_graph(self.body, [*body_b, *batched], size, every=False)
        each = cond_out[0]
        n_cond, n_body = len(for_cond), len(for_body)

        def step(*xs: array) -> list[array]:
            values = xs[n_body:] if not each else xs[n_cond + n_body :]
            found = inline(body, _values([*(xs[n_cond : n_cond + n_body] if each else xs[:n_body]), *values]))
            found = [
                f if o or not b else f.broadcast_to((size, *f.shape))
                for f, o, b in zip(found, out, batched, strict=True)
            ]
            if not each:
                return found
            # Elements whose condition is already false keep their carry.
            (going,) = inline(cond, _values([*xs[:n_cond], *values]))
            return [_choose(going, new, old) for new, old in zip(found, values, strict=True)]

        def any_going(*xs: array) -> list[array]:
            (going,) = inline(cond, _values(xs))
            return [going.any()] if each else [going]

        cond_fixed = [x._value.aval for x in for_cond]
        body_fixed = [x._value.aval for x in for_body]
        carry_avals = [x._value.aval for x in carry]
        loop = WhileLoop(
            closed(any_going, [*cond_fixed, *carry_avals], self.cond.name),
            closed(step, [*(cond_fixed if each else []), *body_fixed, *carry_avals], self.body.name),
            n_cond,
            n_body + (n_cond if each else 0),
        )
        found = record_all(loop, *_values([*for_cond, *(for_cond if each else []), *for_body, *carry]))
        return found, [0 if b else None for b in batched]
