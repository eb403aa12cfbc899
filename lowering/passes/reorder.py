"""Interchange of two loops: `reorder`."""

from __future__ import annotations

from ingot.lowering.loop import For, Kernel
from ingot.lowering.passes import rewrite
from ingot.lowering.passes.affine import conflict
from ingot.lowering.passes.rewrite import Place, refuse, variables
from ingot.tracer.record import replace


def reorder(kernel: Kernel, outer: str, inner: str) -> Kernel:
    """Interchange two perfectly nested loops.

        for i in [0, n) { for j in [0, m) { S } }
      becomes
        for j in [0, m) { for i in [0, n) { S } }

    Legal when iterations of one of the two never touch the memory of another iteration of it: then all that
    depends on each other differs in the other loop alone, whose order stays. Raises LoopError when that
    cannot be shown, the inner bounds depend on the outer index, a loop carries values, is not serial, or has
    statements beside the inner loop, and when the body may leave the kernel.
    """
    place = rewrite.find(kernel, outer)
    a = place.loop
    if len(a.body) != 1 or not isinstance(a.body[0], For) or a.body[0].index.name != inner:
        raise refuse("reorder", outer, f"{inner} is not perfectly nested in it")
    b = a.body[0]
    for loop in (a, b):
        rewrite.require_serial("reorder", loop)
        if loop.carried:
            raise refuse("reorder", loop.index.name, "it carries values")
    if outer in variables(b.lo, b.hi, b.step):
        raise refuse("reorder", inner, f"its bounds depend on {outer}")
    reason = rewrite.stops(b.body)
    if reason is not None:
        raise refuse("reorder", inner, reason)
    if conflict(place) is not None:
        within = Place(b, (*place.enclosing, a), place.lets)
        reason = conflict(within, extra=(a,))
        if reason is not None:
            raise refuse("reorder", outer, reason)
    return rewrite.replace_loop(kernel, outer, [replace(b, body=(replace(a, body=b.body),))])
