"""The scan: a loop whose length is known, over slices of its operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ingot.tracer import dtypes
from ingot.tracer.array import array, record, record_all, wrap
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree, holds, natural
from ingot.tracer.graph import Graph, Literal
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.control import (
    Handles,
    MaybeHandles,
    WhileLoop,
    _check,
    _dense_tail,
    _front,
    _inexact,
    _output_avals,
    _values,
    _zeros,
    closed,
    jvp_graph,
    run,
    vjp_graph,
    vmap_graph,
)
from ingot.tracer.primitives.index import DynamicSlice, DynamicUpdate, Gather, Scatter
from ingot.tracer.primitives.shape import DimValue
from ingot.tracer.trace import inline


class ScanLoop(Primitive):
    """`for i in range(length): carry, ys[i] = body(*fixed, *carry, *(x[i] for x in xs))`.

    Operands: `n_fixed` values that every turn reads, `n_carry` values that each turn replaces, then the `xs`,
    whose first axis has the extent `length`. Results: the last carry, then the `ys`, stacked along a new
    first axis. With `reverse` the turns go from the last index to the first.
    """

    body: Graph
    n_fixed: int
    n_carry: int
    length: Extent
    reverse: bool

    def _split(self, operands: Sequence) -> tuple[Sequence, Sequence, Sequence]:
        a, b = self.n_fixed, self.n_fixed + self.n_carry
        return operands[:a], operands[a:b], operands[b:]

    def infer(self, *avals: Aval) -> tuple[Aval, ...]:
        fixed, carry, xs = self._split(avals)
        if len(carry) != self.n_carry or len(fixed) != self.n_fixed or not natural((self.length,)):
            raise ShapeError(f"[scan] got {len(avals)} operands over a length of {self.length}.")
        for x in xs:
            if not x.ndim or not agree(x.shape[0], self.length):
                raise ShapeError(f"[scan] the first axis of {x!r} must have the extent {self.length}.")
        each = (*fixed, *carry, *(Aval(x.shape[1:], x.dtype) for x in xs))
        _check("scan", "operands of the body", self.body.inputs, each)
        out = _output_avals(self.body, each)
        _check("scan", "carry and the body's new carry", carry, out[: self.n_carry])
        ys = tuple(Aval((self.length, *y.shape), y.dtype) for y in out[self.n_carry :])
        return (*carry, *ys)

    def evaluate(self, *operands: np.ndarray) -> tuple[np.ndarray, ...]:
        fixed, carry, xs = self._split(operands)
        out = self.infer(*(Aval(np.shape(x), dtypes.from_numpy(np.asarray(x).dtype)) for x in operands))
        ys = [np.empty(y.shape, y.dtype.numpy) for y in out[self.n_carry :]]  # type: ignore[arg-type]
        for turn in range(int(self.length)):  # type: ignore[call-overload]
            i = int(self.length) - 1 - turn if self.reverse else turn  # type: ignore[call-overload]
            found = run(self.body, (*fixed, *carry, *(x[i] for x in xs)))
            carry = found[: self.n_carry]
            for stack, y in zip(ys, found[self.n_carry :], strict=True):
                stack[i] = y
        return (*(np.array(c) for c in carry), *ys)

    # -- transforms -------------------------------------------------------------------------------------

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        """The way there once more, which keeps the carry of every turn, and then the way back, which carries
        the cotangents of the carry and the sums of those of the fixed operands."""
        fixed, carry, xs = self._split(primals)
        n = self.n_carry
        ct_carry, ct_ys = cotangents[:n], cotangents[n:]
        wanted = _inexact(primals)
        moving = _inexact(carry)
        given = [*moving, *(c is not None for c in ct_ys)]
        saved = self._carries(primals)
        pulled, reached = vjp_graph(self.body, wanted, given)
        hit = iter(reached)
        reaches = [w and next(hit) for w in wanted]
        r_fixed, r_carry, r_xs = self._split(reaches)
        avals = [x._value.aval for x in primals]
        sums = [_zeros(a) for a, r in zip(avals, r_fixed, strict=False) if r]
        back_carry = [
            c if c is not None else _zeros(x._value.aval)
            for c, x, m in zip(ct_carry, carry, moving, strict=True)
            if m
        ]
        n_sums, n_back, n_fixed = len(sums), len(back_carry), self.n_fixed
        ys_given = [c for c in ct_ys if c is not None]

        def turn(*values: array) -> list[array]:
            parts = _Parts(values)
            held, acc, ct = parts.take(n_fixed), parts.take(n_sums), parts.take(n_back)
            before, x, ct_y = parts.take(n), parts.take(len(xs)), parts.take(len(ys_given))
            found = iter(inline(pulled, _values([*held, *before, *x, *ct, *ct_y])))
            new_sums = [a + next(found) for a in acc]
            new_ct = []
            for r, m, old in zip(r_carry, moving, carry, strict=True):
                if m:
                    new_ct.append(next(found) if r else _zeros(old._value.aval))
            return [*new_sums, *new_ct, *found]

        loop = _scan(
            turn, fixed, [*sums, *back_carry], [*saved, *xs, *ys_given], self.length, not self.reverse,
            f"{self.body.name}_vjp",
        )  # fmt: skip
        parts = _Parts(loop)
        done, last = iter(parts.take(n_sums)), iter(parts.take(n_back))
        rest = iter(parts.take(sum(r_xs)))
        return [
            *(next(done) if r else None for r in r_fixed),
            *(next(last) if m else None for m in moving),
            *(next(rest) if r else None for r in r_xs),
        ]

    def _carries(self, primals: Handles) -> list[array]:
        """The carry before every turn, stacked."""
        n, m = self.n_carry, self.n_fixed
        if not n:
            return []

        def turn(*values: array) -> list[array]:
            return [*inline(self.body, _values(values))[:n], *values[m : m + n]]

        fixed, carry, xs = self._split(primals)
        return _scan(turn, fixed, carry, xs, self.length, self.reverse, self.body.name)[n:]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        fixed, carry, xs = self._split(primals)
        on_fixed, on_carry, on_xs = ([t is not None for t in part] for part in self._split(tangents))
        n = self.n_carry
        moving = on_carry
        while True:  # a carry moves when its start moves or the body makes it move
            pushed, out = jvp_graph(self.body, [*on_fixed, *moving, *on_xs])
            grown = [a or b for a, b in zip(moving, out[:n], strict=True)]
            if grown == moving:
                break
            moving = grown
        n_out = len(out)
        dense = _dense_tail(pushed, n_out, out, self.body.output_avals)
        t_fixed, t_carry, t_xs = self._split(tangents)
        fixed_t = [t for t in t_fixed if t is not None]
        carry_t = [
            t if t is not None else _zeros(x._value.aval)
            for t, x, m in zip(t_carry, carry, moving, strict=True)
            if m
        ]
        xs_t = [t for t in t_xs if t is not None]
        kept = [i for i, m in enumerate(moving) if m]
        kept_y = [i for i in range(n, n_out) if out[i]]

        def turn(*values: array) -> list[array]:
            parts = _Parts(values)
            held, held_t = parts.take(len(fixed)), parts.take(len(fixed_t))
            c, c_t, x, x_t = (parts.take(len(p)) for p in (carry, carry_t, xs, xs_t))
            found = inline(dense, _values([*held, *c, *x, *held_t, *c_t, *x_t]))
            tail = found[n_out:]
            return [*found[:n], *(tail[i] for i in kept), *found[n:n_out], *(tail[i] for i in kept_y)]

        found = _scan(
            turn, [*fixed, *fixed_t], [*carry, *carry_t], [*xs, *xs_t], self.length, self.reverse,
            f"{self.body.name}_jvp",
        )  # fmt: skip
        carried = iter(found[n : n + len(kept)])
        stacked = iter(found[len(kept) + n_out :])
        return [
            *(next(carried) if m else None for m in moving),
            *(next(stacked) if on else None for on in out[n:]),
        ]

    def vmap(
        self, operands: Handles, axes: Sequence[int | None], size: Extent
    ) -> tuple[Handles, Sequence[int | None]]:
        fixed_b, carry_b, xs_b = ([axis is not None for axis in part] for part in self._split(axes))
        fixed, carry, xs = self._split(operands)
        axes_of = self._split(axes)
        fixed = [_front(x, axis) for x, axis in zip(fixed, axes_of[0], strict=True)]
        carry = [_front(x, axis) for x, axis in zip(carry, axes_of[1], strict=True)]
        xs = [x if axis in (None, 1) else x.moveaxis(axis, 1) for x, axis in zip(xs, axes_of[2], strict=True)]
        n = self.n_carry
        batched = carry_b
        while True:  # a carry is batched when its start is or the body makes it so
            body, out = vmap_graph(self.body, [*fixed_b, *batched, *xs_b], size, every=False)
            grown = [a or b for a, b in zip(batched, out[:n], strict=True)]
            if grown == batched:
                break
            batched = grown
        carry = [
            x if was or not now else x.broadcast_to((size, *x.shape))
            for x, was, now in zip(carry, carry_b, batched, strict=True)
        ]

        def turn(*values: array) -> list[array]:
            found = inline(body, _values(values))
            return [
                f.broadcast_to((size, *f.shape)) if b and not o else f
                for f, o, b in zip(found, out, [*batched, *([False] * (len(found) - n))], strict=True)
            ]

        found = _scan(turn, fixed, carry, xs, self.length, self.reverse, self.body.name)
        return found, [*(0 if b else None for b in batched), *(1 if o else None for o in out[n:])]

    # -- lowering ---------------------------------------------------------------------------------------

    def as_while(self, *operands: array) -> Sequence[array]:
        """Record the loop as a `while_loop` that counts, reads elements and writes them to the stacks."""
        fixed, carry, xs = self._split(operands)
        n, n_xs = self.n_carry, len(xs)
        avals = self.infer(*(x._value.aval for x in operands))
        count = Aval((), dtypes.int64)
        ys = [_zeros(a) for a in avals[n:]]

        def going(*values: array) -> list[array]:
            return [values[0] < self._length()]

        def turn(*values: array) -> list[array]:
            parts = _Parts(values)
            stacks_in, held, (at,), c, stacks = (parts.take(k) for k in (n_xs, self.n_fixed, 1, n, len(ys)))
            i = self._length() - 1 - at if self.reverse else at
            found = inline(self.body, _values([*held, *c, *(_element(x, i) for x in stacks_in)]))
            written = [_with_element(s, y, i) for s, y in zip(stacks, found[n:], strict=True)]
            return [at + wrap(Literal(1, dtypes.int64)), *found[:n], *written]

        given = [x._value.aval for x in (*xs, *fixed)]
        state = [count, *avals]
        loop = WhileLoop(
            closed(going, state, f"{self.body.name}_going"),
            closed(turn, [*given, *state], self.body.name),
            0,
            n_xs + self.n_fixed,
        )
        zero = wrap(Literal(0, dtypes.int64))
        return record_all(loop, *_values([*xs, *fixed, zero, *carry, *ys]))[1:]

    def _length(self) -> array:
        if isinstance(self.length, int):
            return wrap(Literal(self.length, dtypes.int64))
        return record(DimValue(self.length, dtypes.int64))


class _Parts:
    """Takes a sequence apart from the front."""

    def __init__(self, values: Sequence[array]) -> None:
        self.values, self.at = values, 0

    def take(self, count: int) -> list[array]:
        self.at += count
        return list(self.values[self.at - count : self.at])


def _scan(
    turn: Callable[..., Sequence[array]], fixed: Handles, carry: Handles, xs: Handles, length: Extent,
    reverse: bool, name: str,
) -> list[array]:  # fmt: skip
    avals = [x._value.aval for x in (*fixed, *carry)]
    avals += [Aval(x.shape[1:], x.dtype) for x in xs]
    loop = ScanLoop(closed(turn, avals, name), len(fixed), len(carry), length, reverse)
    return list(record_all(loop, *_values([*fixed, *carry, *xs])))


def _element(x: array, i: array) -> array:
    """`x[i]` for a scalar `i` within bounds."""
    shape = x.shape
    if not holds("le", 1, shape[0]):  # an empty axis has no window of one
        return record(Gather((0,), 0), x._value, i._value)
    window = record(DynamicSlice((0,), (1, *shape[1:])), x._value, i.reshape((1,))._value)
    return window.reshape(shape[1:])


def _with_element(x: array, y: array, i: array) -> array:
    """`x` with `y` in place of `x[i]`."""
    if not holds("le", 1, x.shape[0]):
        return record(Scatter("set", (0,), 0), x._value, y._value, i._value)
    return record(DynamicUpdate((0,)), x._value, y.reshape((1, *y.shape))._value, i.reshape((1,))._value)
