"""Functions with derivatives of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingot.tracer.array import array, record_all
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.errors import ShapeError
from ingot.tracer.graph import Graph
from ingot.tracer.primitives.control import (
    Call,
    Handles,
    MaybeHandles,
    _check,
    _concrete,
    _front,
    _inexact,
    _values,
    closed,
    vmap_graph,
)
from ingot.tracer.trace import inline, trace
from ingot.tracer.transforms.grad import zeros_like
from ingot.tracer.transforms.vmap import batch

Flat = Callable[..., Sequence[array]]


class Rules:
    """Python functions on flat lists of arrays, any of them None. Compared by identity.

    backward: (arguments, cotangents of the results, results) to cotangents of the inexact arguments.
    forward: (arguments, tangents of the arguments) to tangents of the inexact results.
    batched: (arguments, axes) to results and their axes.
    """

    __slots__ = ("backward", "forward", "batched")

    def __init__(self, backward: Flat | None, forward: Flat | None, batched: Callable | None) -> None:
        self.backward, self.forward, self.batched = backward, forward, batched

    def __repr__(self) -> str:
        return "python"

    def mapped(self, size: Extent) -> Rules:
        """The rules of the function mapped over axes of `size` in front of all arguments and results."""

        def over(rule: Flat | None) -> Flat | None:
            if rule is None:
                return None

            def run(*groups: Handles) -> list[array]:
                widths = [len(group) for group in groups]

                def flat(*xs: array) -> Sequence[array]:
                    it = iter(xs)
                    return rule(*([next(it) for _ in range(w)] for w in widths))

                found, axes = batch(flat, [x for g in groups for x in g], [0] * sum(widths), size)
                return [_spread(x, axis, size) for x, axis in zip(found, axes, strict=True)]

            return run

        return Rules(over(self.backward), over(self.forward), None)


def _spread(x: array, axis: int | None, size: Extent) -> array:
    return x.broadcast_to((size, *x.shape)) if axis is None else _front(x, axis)


class CustomFunction(Call):
    """The closed graph `graph` as one operation with derivatives of its own.

    Of the operands the first `n_args` are arguments; only they have cotangents where there is a rule for
    them. The rules are graphs (in files): `backward` from operands, cotangents of the inexact results and
    results to cotangents of the inexact arguments, `forward` from operands and tangents of the inexact
    arguments to tangents of the inexact results; or Python functions (while a program runs or is traced).
    What has no rule is derived from `graph`.
    """

    n_args: int
    backward: Graph | None
    forward: Graph | None
    rules: Rules | None

    def infer(self, *avals: Aval) -> tuple[Aval, ...]:
        results = super().infer(*avals)
        if not 0 <= self.n_args <= len(avals):
            raise ShapeError(f"[custom_function] {self.n_args} arguments among {len(avals)} operands.")
        arguments = [a for a in avals[: self.n_args] if a.dtype.is_inexact]
        moving = [a for a in results if a.dtype.is_inexact]
        for name, graph, given, made in (
            ("backward", self.backward, [*avals, *moving, *results], arguments),
            ("forward", self.forward, [*avals, *arguments], moving),
        ):
            if graph is not None:
                _check("custom_function", f"inputs of {name}", given, graph.inputs)
                _check("custom_function", f"results of {name}", made, graph.output_avals)
        return results

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        rules, n = self.rules, self.n_args
        if self.backward is None and (rules is None or rules.backward is None):
            return super().vjp(primals, cotangents, results)
        seeds = [
            zeros_like(r) if c is None else c
            for c, r in zip(cotangents, results, strict=True)
            if r.dtype.is_inexact
        ]
        found: Sequence[array]
        if rules is not None and rules.backward is not None:
            found = rules.backward(primals[:n], seeds, results)
        else:
            assert self.backward is not None
            found = inline(self.backward, _values([*primals, *seeds, *results]))
        answers = iter(found)
        arguments = [next(answers) if on else None for on in _inexact(primals[:n])]
        return [*arguments, *([None] * (len(primals) - n))]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        rules, n = self.rules, self.n_args
        if self.forward is None and (rules is None or rules.forward is None):
            return super().jvp(primals, tangents, results)
        pushed = [
            zeros_like(p) if t is None else t
            for t, p in zip(tangents[:n], primals, strict=False)
            if p.dtype.is_inexact
        ]
        found: Sequence[array]
        if rules is not None and rules.forward is not None:
            found = rules.forward(primals[:n], pushed)
        else:
            assert self.forward is not None
            found = inline(self.forward, _values([*primals, *pushed]))
        answers = iter(found)
        return [next(answers) if on else None for on in _inexact(results)]

    def vmap(
        self, operands: Handles, axes: Sequence[int | None], size: Extent
    ) -> tuple[Handles, Sequence[int | None]]:
        n = self.n_args
        if self.rules is not None and self.rules.batched is not None:
            if all(axis is None for axis in axes[n:]):
                return self.rules.batched(operands[:n], axes[:n])
        moved = [_spread(x, axis, size) for x, axis in zip(operands, axes, strict=True)]
        inner = _concrete(self.graph, [Aval(x.shape[1:], x.dtype) for x in moved])

        def over(graph: Graph | None) -> Graph | None:
            return None if graph is None else vmap_graph(graph, [True] * len(graph.inputs), size)[0]

        graph = over(inner)
        assert graph is not None
        rules = None if self.rules is None else self.rules.mapped(size)
        again = CustomFunction(graph, self.kind, n, over(self.backward), over(self.forward), rules)
        return record_all(again, *_values(moved)), [0] * len(graph.outputs)


def frozen(custom: CustomFunction, operands: Handles) -> list[array]:
    """Record `custom`, whose rules are Python functions, with graphs in their place. What these functions use
    from outside become operands."""
    rules = custom.rules
    assert rules is not None
    avals = [x._value.aval for x in operands]
    results = custom.result_avals(tuple(avals))
    moving = [a for a in results if a.dtype.is_inexact]
    arguments = [a for a in avals[: custom.n_args] if a.dtype.is_inexact]
    n, m = len(avals), len(moving)

    def back(*xs: array) -> Sequence[array]:
        assert rules.backward is not None
        return rules.backward(xs[: custom.n_args], xs[n : n + m], xs[n + m :])

    def push(*xs: array) -> Sequence[array]:
        assert rules.forward is not None
        return rules.forward(xs[: custom.n_args], xs[n:])

    name = custom.graph.name
    traced = [
        None if rule is None else trace(fun, [*avals, *more], name=f"{name}_{suffix}", close=True)
        for rule, fun, more, suffix in (
            (rules.backward, back, [*moving, *results], "vjp"),
            (rules.forward, push, arguments, "jvp"),
        )
    ]
    captured = [v for t in traced if t is not None for v in t.captured]
    extra = [v.aval for v in captured]

    def widened(graph: Graph, taken: int, first: int) -> Graph:
        """Takes all captured values among the operands; uses `taken` of them from `first` on."""

        def fun(*xs: array) -> Sequence[array]:
            own = xs[n + first : n + first + taken]
            return inline(graph, _values([*xs[:n], *xs[n + len(extra) :], *own]))

        mine = len(graph.inputs) - n - taken
        return closed(fun, [*avals, *extra, *graph.inputs[n : n + mine]], graph.name)

    graphs: list[Graph | None] = []
    first = 0
    for made in traced:
        taken = 0 if made is None else len(made.captured)
        graphs.append(None if made is None else widened(made.graph, taken, first))
        first += taken
    graph = closed(lambda *xs: inline(custom.graph, _values(xs[:n])), [*avals, *extra], name)
    stored = CustomFunction(graph, custom.kind, custom.n_args, graphs[0], graphs[1], None)
    return list(record_all(stored, *_values(operands), *captured))
