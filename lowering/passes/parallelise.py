"""Loops for several threads: `parallelise`."""

from __future__ import annotations

from ingot.lowering import loop as ir
from ingot.lowering.loop import IDX, For, Kernel, Var, parallel_loop
from ingot.lowering.passes import rewrite
from ingot.lowering.passes.affine import conflict
from ingot.lowering.passes.rewrite import Names, refuse


def parallelise(kernel: Kernel, loop: str) -> Kernel:
    """Make a loop at the top level parallel; it then counts from 0 by 1.

        for i in [0, n) { S }                 parallel for i in [0, n) { S }
        for i in [lo, n) step 4 { S }         parallel for i_piece in [0, (n - lo + 3) // 4) {
                                                i: index = lo + i_piece * 4
                                                S
                                              }

    Raises LoopError when iterations may touch the same memory (loads beside stores included), the loop
    carries values or is not at the top level, when statements with effects or another parallel loop stand
    beside it, and when memory that threads would share is allocated for it.
    """
    place = rewrite.find(kernel, loop)
    old = place.loop
    if old.kind == "parallel":
        return kernel
    step = rewrite.require_serial("parallelise", old)
    reason = _obstacle(kernel, old) or conflict(place)
    if reason is not None:
        raise refuse("parallelise", loop, reason)
    zero, one = ir.index(0), ir.index(1)
    if old.lo == zero and step == 1:
        new = For(old.index, zero, old.hi, one, "parallel", old.body)
    else:
        piece = Var(Names(kernel).fresh(f"{loop}_piece"), IDX)
        count = (old.hi - old.lo + (step - 1)) // step
        start = ir.Let(old.index, old.lo + piece * step)
        new = For(piece, zero, count, one, "parallel", (start, *old.body))
    return rewrite.replace_loop(kernel, loop, [new])


def _obstacle(kernel: Kernel, loop: For) -> str | None:
    if parallel_loop(kernel) is not None:
        return "there is a parallel loop already"
    if loop not in kernel.body:
        return "it is not at the top level"
    if loop.carried:
        return "it carries values"
    if any(s is not loop and not isinstance(s, ir.Let | ir.Alloc) for s in kernel.body):
        return "statements with effects stand beside it"
    if any(isinstance(s, ir.Barrier) for s in rewrite.walk(loop.body)):
        return "it contains `barrier`"
    if any(isinstance(s, ir.Alloc) and s.space == "workspace" for s in rewrite.walk(kernel.body)):
        return "threads would share its workspace"
    return None
