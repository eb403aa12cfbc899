"""What does not change in a loop, computed before it: `hoist`."""

from __future__ import annotations

from ingot.lowering import loop as ir
from ingot.lowering.loop import Expr, For, Kernel, Stmt, Var
from ingot.lowering.passes import rewrite
from ingot.lowering.passes.affine import extent
from ingot.lowering.passes.rewrite import Names, subexpressions, variables
from ingot.tracer.record import replace


def hoist(kernel: Kernel, loop: str) -> Kernel:
    """Move invariant definitions and loads of a loop's own body in front of it.

        for j in [0, m) {
          t: f32 = a * 2.0:f32
          y[j] = t + x[i]
        }
      becomes
        t: f32 = a * 2.0:f32
        x_1: f32 = x[i, mask 0 < m]
        for j in [0, m) { y[j] = t + x_1 }

    A load moves when its buffer is not stored to in the loop, and nothing before it may leave the kernel; it
    is masked, so that a loop without iterations still reads nothing. Statements inside of branches and inner
    loops stay (hoist out of the inner loop first), as do the iterations of a parallel loop. The kernel itself
    comes back when nothing is invariant.
    """
    old = rewrite.find(kernel, loop).loop
    if old.kind == "parallel":
        return kernel
    hoister = _Hoister(old, Names(kernel))
    new = hoister.loop()
    return rewrite.replace_loop(kernel, loop, [*hoister.out, new]) if hoister.out else kernel


class _Hoister:
    def __init__(self, loop: For, names: Names):
        self.old, self.names = loop, names
        self.out: list[Stmt] = []
        self.inside = rewrite.defined(loop.body) | {v.name for v in (loop.index, *loop.carried)}
        self.touched = rewrite.written(loop.body) | rewrite.allocated(loop.body)
        self.reached = True  # nothing so far can have left the kernel
        self.known: dict[Expr, Expr] = {}
        size = extent(loop)
        self.runs: Expr | None = None if size is not None and size > 0 else loop.lo < loop.hi

    def loop(self) -> For:
        body: list[Stmt] = []
        for stmt in self.old.body:
            made = self.stmt(stmt)
            if made is not None:
                body.append(made)
            self.reached &= rewrite.stops((stmt,)) is None
        yields = tuple(map(self.loads, self.old.yields))
        return replace(self.old, body=tuple(body), yields=yields)

    def stmt(self, stmt: Stmt) -> Stmt | None:
        match stmt:
            case ir.Let(var, value):
                value = self.loads(value)
                if self.fixed(value) and not any(isinstance(e, ir.Load) for e in subexpressions(value)):
                    self.out.append(ir.Let(var, value))
                    self.inside.discard(var.name)
                    return None
                return ir.Let(var, value)
            case ir.Store(buffer, index, value, mask, hint):
                on = None if mask is None else self.loads(mask)
                return ir.Store(buffer, self.loads(index), self.loads(value), on, hint)
        return stmt

    def fixed(self, expr: Expr) -> bool:
        return not variables(expr) & self.inside

    def loads(self, expr: Expr) -> Expr:
        """`expr` with its invariant loads, the largest first, read from new variables."""
        if not self.reached:
            return expr
        if isinstance(expr, ir.Load) and self.movable(expr):
            return self.moved(expr)
        return rewrite.map_children(expr, self.loads) if rewrite.children(expr) else expr

    def movable(self, load: ir.Load) -> bool:
        inner = [e for e in subexpressions(load) if isinstance(e, ir.Load)]
        return self.fixed(load) and not any(e.buffer in self.touched for e in inner)

    def moved(self, load: ir.Load) -> Var:
        index, mask = self.loads(load.index), load.mask
        if self.runs is not None:
            runs = ir.broadcast(self.runs, load.type.lanes)
            mask = runs if mask is None else ir.Binary("and", runs, mask)
        made = replace(load, index=index, mask=mask)
        known = self.known.get(made)
        if not isinstance(known, Var):
            known = Var(self.names.fresh(load.buffer), load.type)
            self.out.append(ir.Let(known, made))
            self.known[made] = known
        return known
