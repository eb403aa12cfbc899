"""What all scheduling passes stand on: finding and replacing loops, substitution, fresh names.

A pass takes a kernel and the name of a loop (names are unique in a kernel, so the index names the loop),
returns the kernel itself when nothing changed, and raises `LoopError` when the change is not allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ingot.lowering import loop as ir
from ingot.lowering.loop import Body, Expr, For, Kernel, LoopError, Stmt, Var
from ingot.lowering.loop_verify import children
from ingot.tracer.record import record, replace

Env = Mapping[str, Expr]


@record
class Place:
    """A loop and what surrounds it: enclosing loops from the outside in, and the values of the `Let`s that
    are visible at it."""

    loop: For
    enclosing: tuple[For, ...]
    lets: dict[str, Expr]


def refuse(name: str, loop: str, reason: str) -> LoopError:
    """The error of a pass that may not change `loop`."""
    return LoopError(f"[{name}] loop {loop}: {reason}")


def bodies(stmt: Stmt) -> tuple[Body, ...]:
    """The bodies nested directly in a statement."""
    match stmt:
        case ir.For() | ir.While():
            return (stmt.body,)
        case ir.If():
            return stmt.then, stmt.orelse
    return ()


def walk(body: Sequence[Stmt]) -> Iterator[Stmt]:
    """All statements of a body, nested ones too, in program order."""
    for stmt in body:
        yield stmt
        for inner in bodies(stmt):
            yield from walk(inner)


def own_expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions that stand in `stmt` itself, not in statements nested in it."""
    match stmt:
        case ir.Let(_, value):
            return (value,)
        case ir.Store(_, index, value, mask, _):
            return (index, value) if mask is None else (index, value, mask)
        case ir.Prefetch(_, index):
            return (index,)
        case ir.For():
            return stmt.lo, stmt.hi, stmt.step, *stmt.inits, *stmt.yields
        case ir.While():
            return stmt.condition, *stmt.inits, *stmt.yields
        case ir.If():
            return stmt.condition, *stmt.then_yields, *stmt.else_yields
        case ir.Alloc(_, _, count, _, offset):
            return (count,) if offset is None else (count, offset)
        case ir.Fail(_, values):
            return values
    return ()


def subexpressions(expr: Expr) -> Iterator[Expr]:
    """`expr` and all below it; shared parts once."""
    stack, seen = [expr], set()
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            stack.extend(children(node))


def variables(*exprs: Expr) -> set[str]:
    """Names of the variables that the expressions use."""
    return {e.name for expr in exprs for e in subexpressions(expr) if isinstance(e, Var)}


def loads(body: Sequence[Stmt]) -> Iterator[ir.Load]:
    for stmt in walk(body):
        for expr in own_expressions(stmt):
            yield from (e for e in subexpressions(expr) if isinstance(e, ir.Load))


def written(body: Sequence[Stmt]) -> set[str]:
    """Buffers that the body stores to."""
    return {s.buffer for s in walk(body) if isinstance(s, ir.Store)}


def allocated(body: Sequence[Stmt]) -> set[str]:
    return {s.buffer for s in walk(body) if isinstance(s, ir.Alloc)}


def bound(stmt: Stmt) -> tuple[Var, ...]:
    """The variables that a statement defines, those of its own scope too but not those of nested bodies."""
    match stmt:
        case ir.Let(var):
            return (var,)
        case ir.For():
            return stmt.index, *stmt.carried, *stmt.results
        case ir.While():
            return *stmt.carried, *stmt.results
        case ir.If():
            return stmt.results
    return ()


def defined(body: Sequence[Stmt]) -> set[str]:
    """Names of all variables defined in the body, at any depth."""
    return {var.name for stmt in walk(body) for var in bound(stmt)}


def stops(body: Sequence[Stmt]) -> str | None:
    """Why the body cannot change places with anything: it may leave the kernel, or waits."""
    for stmt in walk(body):
        if isinstance(stmt, ir.Fail | ir.Poll | ir.Barrier):
            return f"it contains `{type(stmt).__name__.lower()}`"
    return None


# Finding and replacing


def find(kernel: Kernel, name: str) -> Place:
    """The loop with the index `name`; LoopError when there is none."""
    place = _find(kernel.body, name, (), {})
    if place is None:
        raise LoopError(f"[loop] kernel @{kernel.name} has no loop {name!r}")
    return place


def _find(body: Body, name: str, enclosing: tuple[For, ...], lets: dict[str, Expr]) -> Place | None:
    lets = dict(lets)
    for stmt in body:
        if isinstance(stmt, ir.Let):
            lets[stmt.var.name] = stmt.value
        if isinstance(stmt, For) and stmt.index.name == name:
            return Place(stmt, enclosing, lets)
        around = (*enclosing, stmt) if isinstance(stmt, For) else enclosing
        for inner in bodies(stmt):
            place = _find(inner, name, around, lets)
            if place is not None:
                return place
    return None


def replace_loop(kernel: Kernel, name: str, new: Sequence[Stmt]) -> Kernel:
    """The kernel with the statements `new` where the loop `name` was."""
    return replace(kernel, body=_replace(kernel.body, name, tuple(new)))


def _replace(body: Body, name: str, new: Body) -> Body:
    made: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, For) and stmt.index.name == name:
            made.extend(new)
        else:
            made.append(with_bodies(stmt, lambda inner: _replace(inner, name, new)))
    return tuple(made)


def with_bodies(stmt: Stmt, change: Callable[[Body], Body]) -> Stmt:
    """`stmt` with its nested bodies changed."""
    match stmt:
        case ir.For() | ir.While():
            return replace(stmt, body=change(stmt.body))
        case ir.If():
            return replace(stmt, then=change(stmt.then), orelse=change(stmt.orelse))
    return stmt


def map_expressions(stmt: Stmt, change: Callable[[Expr], Expr]) -> Stmt:
    """`stmt` with its own expressions changed, not those of nested statements."""

    def each(exprs: Sequence[Expr]) -> tuple[Expr, ...]:
        return tuple(map(change, exprs))

    match stmt:
        case ir.Let(var, value):
            return ir.Let(var, change(value))
        case ir.Store(buffer, index, value, mask, hint):
            on = None if mask is None else change(mask)
            return ir.Store(buffer, change(index), change(value), on, hint)
        case ir.Prefetch(buffer, index):
            return ir.Prefetch(buffer, change(index))
        case ir.For():
            return replace(
                stmt,
                lo=change(stmt.lo),
                hi=change(stmt.hi),
                step=change(stmt.step),
                inits=each(stmt.inits),
                yields=each(stmt.yields),
            )
        case ir.While():
            return replace(
                stmt, condition=change(stmt.condition), inits=each(stmt.inits), yields=each(stmt.yields)
            )
        case ir.If():
            return replace(
                stmt,
                condition=change(stmt.condition),
                then_yields=each(stmt.then_yields),
                else_yields=each(stmt.else_yields),
            )
        case ir.Fail(code, values):
            return ir.Fail(code, each(values))
    return stmt


# Names and copies


class Names:
    """Names that the kernel does not use yet."""

    def __init__(self, kernel: Kernel):
        self._used = {b.name for b in kernel.buffers} | set(kernel.params) | set(ir.KEYWORDS)
        self._used |= defined(kernel.body) | allocated(kernel.body)

    def fresh(self, name: str) -> str:
        """`name`, or `name_1`, `name_2`, ... when it is taken."""
        candidate, count = name, 0
        while candidate in self._used:
            count += 1
            candidate = f"{name}_{count}"
        self._used.add(candidate)
        return candidate

    def var(self, like: Var, type: ir.Type | None = None) -> Var:
        return Var(self.fresh(like.name), type or like.type)


def map_children(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """`expr` with its operands changed; integers are folded on the way."""
    match expr:
        case ir.Binary(op, left, right):
            return ir.binary(op, change(left), change(right))
        case ir.Compare(op, left, right):
            return ir.Compare(op, change(left), change(right))
        case ir.Unary(op, x):
            return ir.Unary(op, change(x))
        case ir.ReduceLanes(op, x):
            return ir.ReduceLanes(op, change(x))
        case ir.Convert(x, dtype):
            return ir.convert(change(x), dtype)
        case ir.Bitcast(x, dtype):
            return ir.Bitcast(change(x), dtype)
        case ir.Broadcast(x, lanes):
            return ir.broadcast(change(x), lanes)
        case ir.Ramp(base, step, lanes):
            return ir.Ramp(change(base), change(step), lanes)
        case ir.Shuffle(left, right, lanes):
            return ir.Shuffle(change(left), change(right), lanes)
        case ir.Extract(x, lane):
            return ir.Extract(change(x), change(lane))
        case ir.Insert(x, lane, value):
            return ir.Insert(change(x), change(lane), change(value))
        case ir.Select(mask, yes, no):
            return ir.Select(change(mask), change(yes), change(no))
        case ir.Math(op, args):
            return ir.Math(op, tuple(map(change, args)))
        case ir.Load():
            on = None if expr.mask is None else change(expr.mask)
            rest = None if expr.otherwise is None else change(expr.otherwise)
            return replace(expr, index=change(expr.index), mask=on, otherwise=rest)
    return expr


def substitute(expr: Expr, env: Env, buffers: Mapping[str, str] | None = None) -> Expr:
    """`expr` with variables replaced by expressions and buffers renamed; what needs no change is kept."""
    done: dict[int, Expr] = {}

    def change(e: Expr) -> Expr:
        made = done.get(id(e))
        if made is None:
            made = env.get(e.name, e) if isinstance(e, Var) else _changed(e)
            done[id(e)] = made
        return made

    def _changed(e: Expr) -> Expr:
        made = map_children(e, change)
        if isinstance(made, ir.Load) and buffers and made.buffer in buffers:
            made = replace(made, buffer=buffers[made.buffer])
        kept = all(a is b for a, b in zip(children(e), children(made), strict=False))
        return e if kept and type(made) is type(e) and not isinstance(e, ir.Load) else made

    return change(expr)


class Copier:
    """Copies statements with fresh names for all they define; `env` maps old variables to new values. With
    `keep` names stay, for the one copy that takes the place of the statements."""

    def __init__(self, names: Names, env: Env | None = None, keep: bool = False):
        self.names, self.env, self.buffers = names, dict(env or {}), dict[str, str]()
        self.keep = keep

    def expr(self, expr: Expr) -> Expr:
        return substitute(expr, self.env, self.buffers)

    def exprs(self, exprs: Sequence[Expr]) -> tuple[Expr, ...]:
        return tuple(map(self.expr, exprs))

    def bind(self, var: Var) -> Var:
        made = var if self.keep else self.names.var(var)
        self.env[var.name] = made
        return made

    def binds(self, given: Sequence[Var]) -> tuple[Var, ...]:
        return tuple(map(self.bind, given))

    def body(self, body: Sequence[Stmt]) -> Body:
        return tuple(map(self.stmt, body))

    def stmt(self, stmt: Stmt) -> Stmt:
        match stmt:
            case ir.Let(var, value):
                value = self.expr(value)
                return ir.Let(self.bind(var), value)
            case ir.Store(buffer, index, value, mask, hint):
                on = None if mask is None else self.expr(mask)
                name = self.buffers.get(buffer, buffer)
                return ir.Store(name, self.expr(index), self.expr(value), on, hint)
            case ir.Prefetch(buffer, index):
                return ir.Prefetch(self.buffers.get(buffer, buffer), self.expr(index))
            case ir.For():
                return self.loop(stmt)
            case ir.While():
                inits, carried = self.exprs(stmt.inits), self.binds(stmt.carried)
                condition, body = self.expr(stmt.condition), self.body(stmt.body)
                yields = self.exprs(stmt.yields)
                return ir.While(condition, body, carried, inits, yields, self.binds(stmt.results))
            case ir.If():
                condition, then = self.expr(stmt.condition), self.body(stmt.then)
                yields, orelse = self.exprs(stmt.then_yields), self.body(stmt.orelse)
                others = self.exprs(stmt.else_yields)
                return ir.If(condition, then, orelse, yields, others, self.binds(stmt.results))
            case ir.Alloc(buffer, dtype, count, space, offset):
                self.buffers[buffer] = buffer if self.keep else self.names.fresh(buffer)
                at = None if offset is None else self.expr(offset)
                return ir.Alloc(self.buffers[buffer], dtype, self.expr(count), space, at)
            case ir.Fail(code, values):
                return ir.Fail(code, self.exprs(values))
        return stmt

    def loop(self, stmt: For) -> For:
        lo, hi, step, inits = map(self.exprs, ((stmt.lo,), (stmt.hi,), (stmt.step,), stmt.inits))
        index, carried = self.bind(stmt.index), self.binds(stmt.carried)
        body = self.body(stmt.body)
        yields = self.exprs(stmt.yields)
        results = self.binds(stmt.results)
        return For(index, lo[0], hi[0], step[0], stmt.kind, body, carried, inits, yields, results)


# Extents


def constant(expr: Expr) -> int | None:
    """The value of an index constant."""
    return int(expr.value) if isinstance(expr, ir.Const) else None


def require_serial(name: str, loop: For) -> int:
    """The constant step of a serial loop, which most passes want."""
    step = constant(loop.step)
    if loop.kind != "serial":
        raise refuse(name, loop.index.name, f"it is {loop.kind}, not serial")
    if step is None:
        raise refuse(name, loop.index.name, "its step is not constant")
    return step
