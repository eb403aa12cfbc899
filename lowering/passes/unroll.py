"""Several iterations at once: `unroll` one after the other, `unroll_and_jam` merged in one inner loop."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering import loop as ir
from ingot.lowering.loop import Body, Expr, For, Kernel, Stmt
from ingot.lowering.passes import rewrite
from ingot.lowering.passes.affine import conflict, extent
from ingot.lowering.passes.rewrite import Copier, Names, refuse
from ingot.lowering.passes.split import peel
from ingot.tracer.record import replace

_MOST = 1024


def unroll(kernel: Kernel, loop: str, factor: int | None = None) -> Kernel:
    """Copy the body of a serial loop: `factor` times, or for all iterations of a constant extent.

        for i in [0, n) { x[i] = 0.0:f32 }
      by 2
        i_main: index = max(n, 0) // 2 * 2
        for i in [0, i_main) step 2 { x[i] = 0.0:f32   x[i + 1] = 0.0:f32 }
        for i_1 in [i_main, n) { x[i_1] = 0.0:f32 }

    Always legal: the order stays, carried values go from copy to copy. Raises LoopError for loops that are
    not serial, and without a factor for those of no constant extent or one above 1024.
    """
    old = rewrite.find(kernel, loop).loop
    step = rewrite.require_serial("unroll", old)
    names = Names(kernel)
    if factor is None:
        return rewrite.replace_loop(kernel, loop, _in_full(old, names))
    if factor < 1:
        raise ValueError(f"[unroll] factor {factor}: expected a positive one")
    if factor == 1:
        return kernel
    lets, main, rest = peel(old, factor * step, names)
    body, yields = _copies(main, [main.index + t * step for t in range(factor)], main.carried, names)
    new: Stmt = replace(main, step=ir.index(factor * step), body=body, yields=yields)
    return rewrite.replace_loop(kernel, loop, [*lets, new, *([rest] if rest else [])])


def _in_full(loop: For, names: Names) -> Body:
    size, step = extent(loop), rewrite.require_serial("unroll", loop)
    if size is None or size > _MOST * step:
        raise refuse("unroll", loop.index.name, f"its extent is not constant, or above {_MOST}")
    body, ends = _copies(loop, [loop.lo + t for t in range(0, size, step)], loop.inits, names)
    return *body, *(ir.Let(var, end) for var, end in zip(loop.results, ends, strict=True))


def _copies(
    loop: For, values: Sequence[Expr], carried: Sequence[Expr], names: Names
) -> tuple[Body, tuple[Expr, ...]]:
    """The body for each value of the index in turn, and what the last copy yields."""
    made: list[Stmt] = []
    current = tuple(carried)
    for number, value in enumerate(values):
        changing = {v.name: e for v, e in zip(loop.carried, current, strict=True)}
        copier = Copier(names, {loop.index.name: value, **changing}, keep=number == 0)
        made += copier.body(loop.body)
        current = copier.exprs(loop.yields)
    return tuple(made), current


def unroll_and_jam(kernel: Kernel, loop: str, factor: int) -> Kernel:
    """Run `factor` iterations of a serial loop side by side: statements of the copies alternate, and inner
    loops of equal bounds become one that carries the values of all copies. What all copies compute alike is
    computed once.

        for i in [0, 4) {
          for p in [0, k) carry (acc: f32 = 0.0:f32) -> (end) { yield acc + a[i * k + p] }
          y[i] = end
        }
      by 2
        for i in [0, 4) step 2 {
          for p in [0, k) carry (acc_1: f32 = 0.0:f32, acc_2: f32 = 0.0:f32) -> (end_1, end_2) {
            yield acc_1 + a[i * k + p], acc_2 + a[(i + 1) * k + p]
          }
          y[i] = end_1
          y[i + 1] = end_2
        }

    Iterations that do not fill a round of `factor` run in a second loop as before. Legal when iterations do
    not touch the same memory and nothing leaves the kernel; LoopError otherwise, and for loops that carry
    values.
    """
    if factor < 1:
        raise ValueError(f"[unroll_and_jam] factor {factor}: expected a positive one")
    place = rewrite.find(kernel, loop)
    old = place.loop
    step = rewrite.require_serial("unroll_and_jam", old)
    if factor == 1:
        return kernel
    reason = "it carries values" if old.carried else rewrite.stops(old.body) or conflict(place)
    if reason is not None:
        raise refuse("unroll_and_jam", loop, reason)
    names = Names(kernel)
    lets, main, rest = peel(old, factor * step, names)
    starts = [main.index + t * step for t in range(factor)]
    copiers = [Copier(names, {loop: start}, keep=start is starts[0]) for start in starts]
    body = _jam([main.body] * factor, copiers)
    new: Stmt = replace(main, step=ir.index(factor * step), body=body)
    return rewrite.replace_loop(kernel, loop, [*lets, new, *([rest] if rest else [])])


def _jam(sources: Sequence[Body], copiers: Sequence[Copier]) -> Body:
    """Copies of equal bodies, statement by statement."""
    made: list[Stmt] = []
    touched = rewrite.written(sources[0])
    for together in zip(*sources, strict=True):
        first = together[0]
        if isinstance(first, For) and _alike(first, copiers):
            made.append(_jam_loops(first, copiers))
        elif isinstance(first, ir.Let):
            made += _lets(first, copiers, touched)
        else:
            made += [copier.stmt(s) for s, copier in zip(together, copiers, strict=True)]
    return tuple(made)


def _alike(loop: For, copiers: Sequence[Copier]) -> bool:
    """Whether all copies of a loop have the same bounds."""
    bounds = {copier.exprs((loop.lo, loop.hi, loop.step)) for copier in copiers}
    return len(bounds) == 1 and not any(
        isinstance(e, ir.Load) for b in bounds for x in b for e in rewrite.subexpressions(x)
    )


def _lets(let: ir.Let, copiers: Sequence[Copier], touched: set[str]) -> list[Stmt]:
    """A definition per copy; copies of equal values share one, unless memory may change in between."""
    made: list[Stmt] = []
    known: dict[Expr, Expr] = {}
    for copier in copiers:
        value = copier.expr(let.value)
        fixed = not any(isinstance(e, ir.Load) and e.buffer in touched for e in rewrite.subexpressions(value))
        if fixed and value in known:
            copier.env[let.var.name] = known[value]
            continue
        known[value] = copier.bind(let.var)
        made.append(ir.Let(copier.env[let.var.name], value))  # type: ignore[arg-type]
    return made


def _jam_loops(loop: For, copiers: Sequence[Copier]) -> For:
    first = copiers[0]
    lo, hi, step = first.exprs((loop.lo, loop.hi, loop.step))
    inits = [e for copier in copiers for e in copier.exprs(loop.inits)]
    index = first.bind(loop.index)
    for copier in copiers:
        copier.env[loop.index.name] = index
    carried = [v for copier in copiers for v in copier.binds(loop.carried)]
    body = _jam([loop.body] * len(copiers), copiers)
    yields = [e for copier in copiers for e in copier.exprs(loop.yields)]
    results = [v for copier in copiers for v in copier.binds(loop.results)]
    return For(
        index, lo, hi, step, loop.kind, body, tuple(carried), tuple(inits), tuple(yields), tuple(results)
    )
