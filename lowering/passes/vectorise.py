"""Serial loops as vector statements: `vectorise`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ingot.lowering import loop as ir
from ingot.lowering.loop import Body, Const, Expr, For, Kernel, Stmt, Var
from ingot.lowering.passes import rewrite
from ingot.lowering.passes.affine import conflict, extent
from ingot.lowering.passes.rewrite import Names, refuse, subexpressions
from ingot.lowering.passes.split import peel
from ingot.tracer.record import record, replace

_REDUCTIONS = ("add", "mul", "min", "max", "and", "or", "xor")


def vectorise(kernel: Kernel, loop: str, lanes: int, tail: str = "masked") -> Kernel:
    """Run `lanes` iterations of a serial loop of step 1 in the lanes of vectors.

        for i in [0, n) carry (acc: f32 = 0.0:f32) -> (sum) {
          y[i] = x[i] * a
          yield acc + x[i * 2]
        }
      by 8
        for i in [0, n) step 8 carry (acc: f32x8 = -0.0:f32x8) -> (acc_lanes) {
          live: boolx8 = ramp(0:i32, 1:i32, 8) < splat(i32(max(min(n - i, 8), 0)), 8)
          y[i : 8, mask live] = x[i : 8, mask live] * splat(a, 8)
          yield select(live, acc + x[ramp(i * 2, 2, 8), mask live], acc)
        }
        sum: f32 = 0.0:f32 + reduce_add(acc_lanes)

    Indices that grow by 1 become consecutive accesses, by another invariant amount or by data gathers and
    scatters; what does not change stays scalar. Branches become masks, inner loops of invariant bounds stay
    loops. Carried values must be reductions (add, mul, min, max, and, or, xor, or `fma(a, b, acc)`), which
    end in `reduce_*`: sums and products of floats are associated anew. `tail` is `masked`, or `peeled`: a
    loop of whole vectors without masks, and a masked one for the rest. Raises LoopError, with the reason,
    where iterations may touch the same memory or a statement has no vector form.
    """
    if lanes < 1 or tail not in ("masked", "peeled"):
        raise ValueError(
            f"[vectorise] {lanes} lanes, tail {tail!r}: expected positive lanes and a tail "
            "'masked' or 'peeled'"
        )
    place = rewrite.find(kernel, loop)
    old = place.loop
    if rewrite.require_serial("vectorise", old) != 1:
        raise refuse("vectorise", loop, "its step is not 1")
    if lanes == 1:
        return kernel
    reason = _obstacle(old) or conflict(place)
    if reason is not None:
        raise refuse("vectorise", loop, reason)
    names = Names(kernel)
    count = extent(old)
    if tail == "masked" or (count is not None and count % lanes == 0):
        masked = count is None or count % lanes != 0
        return rewrite.replace_loop(kernel, loop, _Widener(old, lanes, names, masked).statements())
    lets, main, rest = peel(old, lanes, names)
    assert rest is not None
    whole = _Widener(main, lanes, names, masked=False).statements()
    remains = _Widener(rest, lanes, names, masked=True).statements()
    return rewrite.replace_loop(kernel, loop, [*lets, *whole, *remains])


def _obstacle(loop: For) -> str | None:
    for stmt in rewrite.walk(loop.body):
        if isinstance(stmt, ir.Alloc | ir.While):
            return f"it contains `{type(stmt).__name__.lower()}`"
        if any(e.type.lanes > 1 for x in rewrite.own_expressions(stmt) for e in subexpressions(x)):
            return "it contains vectors already"
    return rewrite.stops(loop.body)


# Reductions


def reduction(body: Body, carried: Var, value: Expr) -> str | None:
    """The operation by which `value` takes new elements into `carried`, which nothing else may use."""
    if _uses(body, carried) + _count(value, carried) != 1:
        return None
    return _reduced(body, carried, value)


def _reduced(body: Body, carried: Var, value: Expr) -> str | None:
    if isinstance(value, Var):
        return _through(body, carried, value)
    match value:
        case ir.Binary(op, left, right) if op in _REDUCTIONS:
            sides = [side for side in (left, right) if _leads(body, side, carried)]
            inner = _reduced(body, carried, sides[0]) if len(sides) == 1 and sides[0] != carried else op
            return op if len(sides) == 1 and inner == op else None
        case ir.Math("fma", (_, _, last)) if last == carried:
            return "add"
    return None


def _leads(body: Body, value: Expr, carried: Var) -> bool:
    return value == carried or _reduced(body, carried, value) is not None


def _through(body: Body, carried: Var, value: Var) -> str | None:
    """A value defined by a statement of the body, used nowhere else: a definition, or an inner loop that is
    such a reduction itself."""
    if _uses(body, value) > 1:
        return None
    for stmt in body:
        if isinstance(stmt, ir.Let) and stmt.var == value:
            return _reduced(body, carried, stmt.value)
        if isinstance(stmt, For) and value in stmt.results:
            at = stmt.results.index(value)
            if stmt.inits[at] == carried:
                return reduction(stmt.body, stmt.carried[at], stmt.yields[at])
    return None


def _uses(body: Body, var: Var) -> int:
    return sum(_count(e, var) for s in rewrite.walk(body) for e in rewrite.own_expressions(s))


def _count(expr: Expr, var: Var) -> int:
    """How often a variable occurs, an expression that is shared counted each time."""
    if isinstance(expr, Var):
        return int(expr == var)
    return sum(_count(child, var) for child in rewrite.children(expr))


def neutral(op: str, type: ir.Type) -> Const:
    """What `op` leaves every value unchanged with."""
    if type.dtype == "bool":
        return ir.const(op in ("min", "and"), type)
    if type.is_float:
        return ir.const({"add": -0.0, "mul": 1.0, "min": math.inf, "max": -math.inf}[op], type)
    bits = 8 * ir.BYTES[type.dtype]
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if type.is_signed else (0, (1 << bits) - 1)
    return ir.const({"mul": 1, "min": most, "max": least, "and": -1}.get(op, 0), type)


# Widening


@record
class Lane:
    """A value in all lanes: `base + lane * step` when there is a step (0: the same in all), else the vector
    `base`."""

    base: Expr
    step: Expr | None

    @property
    def uniform(self) -> bool:
        return isinstance(self.step, Const) and self.step.value == 0


_NONE = ir.index(0)


class _Widener:
    """Writes the vector form of one loop."""

    def __init__(self, loop: For, lanes: int, names: Names, masked: bool):
        self.loop, self.lanes, self.names = loop, lanes, names
        self.env: dict[str, Lane] = {loop.index.name: Lane(loop.index, ir.index(1))}
        self.out: list[Stmt] = []
        self.masked = masked
        self.mask: Expr | None = None  # lanes that are switched on
        self.partly = False  # under a branch: perhaps no lane is on

    def fail(self, reason: str) -> ir.LoopError:
        return refuse("vectorise", self.loop.index.name, reason)

    def statements(self) -> list[Stmt]:
        old = self.loop
        ops = [reduction(old.body, v, y) for v, y in zip(old.carried, old.yields, strict=True)]
        carried = []
        for var, op in zip(old.carried, ops, strict=True):
            if (
                op is None
                or ir.REDUCE_LANES[op].find(
                    "f" if var.type.is_float else "b" if var.type.dtype == "bool" else "i"
                )
                < 0
            ):
                raise self.fail(f"{var.name} is carried, and not as a reduction")
            wide = Var(var.name, var.type.with_lanes(self.lanes))
            carried.append(wide)
            self.env[var.name] = Lane(wide, None)
        if self.masked:
            self.mask = self.let("live", ir.lane_mask(old.index, old.hi, self.lanes))
        live = self.mask
        self.body(old.body)
        yields = [self.vector(self.value(y)) for y in old.yields]
        if live is not None:
            yields = [ir.Select(live, y, c) for y, c in zip(yields, carried, strict=True)]
        ends = tuple(Var(self.names.fresh(f"{v.name}_lanes"), v.type) for v in carried)
        inits = tuple(neutral(op or "", v.type) for op, v in zip(ops, carried, strict=True))
        new = replace(
            old,
            step=ir.index(self.lanes),
            body=tuple(self.out),
            carried=tuple(carried),
            inits=inits,
            yields=tuple(yields),
            results=ends,
        )
        finals = [
            ir.Let(result, ir.binary(op or "", init, ir.ReduceLanes(op or "", end)))
            for result, op, init, end in zip(old.results, ops, old.inits, ends, strict=True)
        ]
        return [new, *finals]

    def let(self, name: str, value: Expr) -> Var:
        var = Var(self.names.fresh(name), value.type)
        self.out.append(ir.Let(var, value))
        return var

    # values

    def vector(self, value: Lane) -> Expr:
        if value.step is None:
            return value.base
        if value.uniform:
            return ir.broadcast(value.base, self.lanes)
        return ir.Ramp(value.base, value.step, self.lanes)

    def value(self, expr: Expr) -> Lane:
        match expr:
            case Var(name):
                return self.env.get(name, Lane(expr, _NONE))
            case ir.Load():
                return self.load(expr)
            case ir.Binary(op, left, right) if op in ("add", "sub", "mul") and expr.type.is_integer:
                return self.linear(op, self.value(left), self.value(right))
            case ir.Convert(x, dtype) if dtype in ir.INTEGERS and x.type.dtype == "index":
                inner = self.value(x)
                if inner.step is not None:
                    step = inner.step if inner.uniform else ir.convert(inner.step, dtype)
                    return Lane(ir.convert(inner.base, dtype), step)
        parts = [self.value(child) for child in rewrite.children(expr)]
        if all(part.uniform for part in parts):
            bases = iter([part.base for part in parts])
            return Lane(rewrite.map_children(expr, lambda _: next(bases)), _NONE)
        wide = iter([self.vector(part) for part in parts])
        return Lane(rewrite.map_children(expr, lambda _: next(wide)), None)

    def linear(self, op: str, a: Lane, b: Lane) -> Lane:
        if a.step is None or b.step is None or (op == "mul" and not (a.uniform or b.uniform)):
            return Lane(ir.binary(op, self.vector(a), self.vector(b)), None)
        base = ir.binary(op, a.base, b.base)
        if a.uniform and b.uniform:
            return Lane(base, _NONE)
        if op == "mul":
            factor, step = (a.base, b.step) if a.uniform else (b.base, a.step)
            return Lane(base, ir.binary("mul", step, factor))
        zero = ir.const(0, a.base.type)
        left, right = zero if a.uniform else a.step, zero if b.uniform else b.step
        return Lane(base, right if op == "add" and a.uniform else ir.binary(op, left, right))

    def load(self, expr: ir.Load) -> Lane:
        at = self.value(expr.index)
        own = None if expr.mask is None else self.value(expr.mask)
        rest = None if expr.otherwise is None else self.value(expr.otherwise)
        if at.uniform and not self.partly and all(v is None or v.uniform for v in (own, rest)):
            mask = None if own is None else own.base
            other = None if rest is None else rest.base
            return Lane(replace(expr, index=at.base, mask=mask, otherwise=other), _NONE)
        mask = self.mask if own is None else self.both(self.vector(own))
        other = None if rest is None else self.vector(rest)
        made = replace(
            expr, index=self.address(at), type=expr.type.with_lanes(self.lanes), mask=mask, otherwise=other
        )
        return Lane(made, None)

    def address(self, at: Lane) -> Expr:
        """A scalar for consecutive elements, else a vector of offsets."""
        return at.base if at.step == ir.index(1) else self.vector(at)

    def both(self, mask: Expr) -> Expr:
        return mask if self.mask is None else ir.Binary("and", self.mask, mask)

    # statements

    def body(self, body: Sequence[Stmt]) -> None:
        for stmt in body:
            match stmt:
                case ir.Let(var, value):
                    self.define(var, self.value(value))
                case ir.Store():
                    self.store(stmt)
                case ir.Prefetch(buffer, index):
                    at = self.value(index)
                    if at.step is None:
                        raise self.fail("it prefetches scattered addresses")
                    self.out.append(ir.Prefetch(buffer, at.base))
                case ir.If():
                    self.branch(stmt)
                case ir.For():
                    self.inner(stmt)
                case _:
                    raise self.fail(f"`{type(stmt).__name__.lower()}` has no vector form")

    def define(self, var: Var, value: Lane) -> None:
        named = Var(self.names.fresh(var.name) if var.name in self.env else var.name, value.base.type)
        self.out.append(ir.Let(named, value.base))
        self.env[var.name] = Lane(named, value.step)

    def store(self, stmt: ir.Store) -> None:
        at = self.value(stmt.index)
        if at.uniform:
            raise self.fail(f"all iterations store to one element of {stmt.buffer}")
        mask = self.mask if stmt.mask is None else self.both(self.vector(self.value(stmt.mask)))
        value = self.vector(self.value(stmt.value))
        self.out.append(ir.Store(stmt.buffer, self.address(at), value, mask, stmt.hint))

    def nested(
        self, body: Sequence[Stmt], yields: Sequence[Expr], mask: Expr | None, partly: bool
    ) -> tuple[Body, list[Lane]]:
        """The statements of a nested body, and what it yields."""
        kept = self.out, self.mask, self.partly
        self.out, self.mask, self.partly = [], mask, partly
        self.body(body)
        given = [self.value(y) for y in yields]
        made = tuple(self.out)
        self.out, self.mask, self.partly = kept
        return made, given

    def branch(self, stmt: ir.If) -> None:
        condition = self.value(stmt.condition)
        if not condition.uniform:
            self.masked_branch(stmt, self.vector(condition))
            return
        then, first = self.nested(stmt.then, stmt.then_yields, self.mask, self.partly)
        orelse, second = self.nested(stmt.orelse, stmt.else_yields, self.mask, self.partly)
        results = tuple(Var(r.name, r.type.with_lanes(self.lanes)) for r in stmt.results)
        self.out.append(
            ir.If(
                condition.base,
                then,
                orelse,
                tuple(map(self.vector, first)),
                tuple(map(self.vector, second)),
                results,
            )
        )
        self.env.update({r.name: Lane(r, None) for r in results})

    def masked_branch(self, stmt: ir.If, condition: Expr) -> None:
        """Both branches, each in its lanes."""
        taken = self.let("taken", condition)
        parts = []
        for body, yields, mask in (
            (stmt.then, stmt.then_yields, taken),
            (stmt.orelse, stmt.else_yields, ir.Unary("not", taken)),
        ):
            on = self.both(mask) if body or yields else None
            made, given = self.nested(body, yields, on, True)
            self.out += made
            parts.append([self.vector(g) for g in given])
        for result, yes, no in zip(stmt.results, *parts, strict=True):
            self.define(result, Lane(ir.Select(taken, yes, no), None))

    def inner(self, stmt: For) -> None:
        bounds = [self.value(e) for e in (stmt.lo, stmt.hi, stmt.step)]
        if not all(b.uniform for b in bounds):
            raise self.fail(f"the bounds of {stmt.index.name} depend on it")
        if self.partly and any(isinstance(e, ir.Load) for b in bounds for e in subexpressions(b.base)):
            raise self.fail(f"the bounds of {stmt.index.name} are loaded under a condition")
        inits = [self.vector(self.value(e)) for e in stmt.inits]
        carried = tuple(Var(v.name, v.type.with_lanes(self.lanes)) for v in stmt.carried)
        results = tuple(Var(v.name, v.type.with_lanes(self.lanes)) for v in stmt.results)
        self.env.update({v.name: Lane(v, None) for v in carried})
        body, given = self.nested(stmt.body, stmt.yields, self.mask, self.partly)
        lo, hi, step = (b.base for b in bounds)
        self.out.append(
            For(
                stmt.index,
                lo,
                hi,
                step,
                stmt.kind,
                body,
                carried,
                tuple(inits),
                tuple(map(self.vector, given)),
                results,
            )
        )
        self.env.update({v.name: Lane(v, None) for v in results})
