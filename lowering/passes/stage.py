"""A tile of a buffer copied into nearer memory: `stage`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ingot.lowering import loop as ir
from ingot.lowering.loop import Body, Expr, For, Kernel, Stmt
from ingot.lowering.passes import rewrite
from ingot.lowering.passes.affine import Access, accesses, distinct, extent, extent_bounds, poly
from ingot.lowering.passes.rewrite import Copier, Names, refuse, variables
from ingot.tracer.record import replace

_MOST = 1 << 16  # elements of a tile on the stack


def stage(kernel: Kernel, loop: str, buffer: str, space: str = "stack", offset: int = 0) -> Kernel:
    """Copy what a loop uses of a buffer into memory of its own, and back after it if the loop stores to it.

        for i in [0, 4) { for j in [0, 8) { y[i] = y[i] + x[j * n + i] } }
      with x staged at i
        alloc x_tile: f32[32] in stack
        for i_1 in [0, 4) { for j_1 in [0, 8) { x_tile[i_1 * 8 + j_1] = x[j_1 * n + i_1] } }
        for i in [0, 4) { for j in [0, 8) { y[i] = y[i] + x_tile[i * 8 + j] } }

    The tile has an axis for each loop, from `loop` inwards, whose index the address uses, in the order of the
    loops, so that the innermost runs through it consecutively. `space` is `register`, `stack`, or `workspace`
    or `scratch` from byte `offset` on. Raises LoopError unless all accesses to the buffer use one and the
    same address over the same loops, of bounded extents and bounds known before `loop`, of scalars, and under
    no condition; and when different digits of that address may mean the same element of a stored buffer.
    Stage before vectorising.
    """
    place = rewrite.find(kernel, loop)
    old = place.loop
    found = [a for a in accesses((old,), place.lets) if a.node.buffer == buffer]
    if not found:
        return kernel
    axes, index, others = _tile(found, old, place.lets)
    sizes = [_size(axis, found[0].lets, old) for axis in axes]
    total = 1
    for size in sizes:
        total *= size
    if total > _MOST and space not in ("workspace", "scratch"):
        raise refuse("stage", loop, f"the tile has {total} elements, more than {_MOST}")
    if any(a.store for a in found):
        if not distinct(found[0], axes, place.enclosing):
            raise refuse("stage", loop, "elements of the tile may be one element of the buffer")
    names = Names(kernel)
    name = names.fresh(f"{buffer}_tile")
    dtype = _dtype(found[0])
    at = ir.index(offset) if space in ("workspace", "scratch") else None
    own = _position(axes, sizes, {})
    readable = not any(b.name == buffer and b.access == "write" for b in kernel.buffers)
    made: list[Stmt] = [ir.Alloc(name, dtype, ir.index(total), space, at)]
    element = ir.vector(dtype)
    if readable:
        copy = ir.Store(name, own, ir.Load(buffer, index, element))
        made += _guarded(_nest(axes, copy, names), others)
    made.append(_redirected(old, buffer, name, own))
    if any(a.store for a in found):
        back = ir.Store(buffer, index, ir.Load(name, own, element))
        made += _guarded(_nest(axes, back, names), others)
    return rewrite.replace_loop(kernel, loop, made)


def _tile(found: Sequence[Access], old: For, lets: Mapping[str, Expr]) -> tuple[list[For], Expr, list[For]]:
    """The loops that span the tile, the address, and the loops around it whose index it does not use."""
    name, first = old.index.name, found[0]
    index = _spelled(first.node.index, first.lets, lets)
    for a in found:
        if a.conditional or a.lanes > 1 or a.node.mask is not None:
            raise refuse("stage", name, f"{a.node.buffer} is used under a condition or as vectors")
        if poly(a.node.index, a.lets) != poly(first.node.index, first.lets) or a.loops != first.loops:
            raise refuse("stage", name, f"{a.node.buffer} is used at different addresses")
    used = variables(index)
    axes = [f for f in first.loops if f.index.name in used]
    inside = rewrite.defined((old,)) - {f.index.name for f in axes}
    bounds = [e for f in first.loops for e in (f.lo, f.hi)]
    if (variables(index, *bounds) & inside) or any(
        isinstance(e, ir.Load) for x in (index, *bounds) for e in rewrite.subexpressions(x)
    ):
        raise refuse("stage", name, f"the address in {first.node.buffer} is not known before it")
    for f in first.loops:
        if rewrite.require_serial("stage", f) != 1:
            raise refuse("stage", f.index.name, "its step is not 1")
    others = [f for f in first.loops if f not in axes]
    if any(variables(f.lo, f.hi) & {axis.index.name for axis in axes} for f in others):
        raise refuse("stage", name, "the bounds of an inner loop depend on the place in the tile")
    return axes, index, others


def _spelled(expr: Expr, inner: Mapping[str, Expr], outer: Mapping[str, Expr]) -> Expr:
    """`expr` without the variables that are defined inside."""
    own = {n: inner[n] for n in variables(expr) if n in inner and n not in outer}
    return _spelled(rewrite.substitute(expr, own), inner, outer) if own else expr


def _size(axis: For, lets: Mapping[str, Expr], old: For) -> int:
    known = [b.value for b in extent_bounds(axis, lets) if b.value is not None]
    if not known:
        raise refuse("stage", old.index.name, f"the extent of {axis.index.name} has no constant bound")
    return max(1, min(known))


def _dtype(access: Access) -> str:
    node = access.node
    return node.type.dtype if isinstance(node, ir.Load) else node.value.type.dtype


def _position(axes: Sequence[For], sizes: Sequence[int], env: Mapping[str, Expr]) -> Expr:
    """The place in the tile of the element at the current indices."""
    at: Expr = ir.index(0)
    for axis, size in zip(axes, sizes, strict=True):
        at = at * size + (axis.index - axis.lo)
    return rewrite.substitute(at, env)


def _nest(axes: Sequence[For], stmt: Stmt, names: Names) -> Body:
    """`stmt` for all elements of the tile."""
    body: Body = (stmt,)
    for axis in reversed(axes):
        body = (For(axis.index, axis.lo, axis.hi, ir.index(1), "serial", body),)
    return Copier(names).body(body)


def _guarded(body: Body, others: Sequence[For]) -> Body:
    """The copy runs only if the other loops have iterations: without them nothing is used."""
    for loop in others:
        size = extent(loop)
        if size is None or size <= 0:
            body = (ir.If(loop.lo < loop.hi, body),)
    return body


def _redirected(stmt: Stmt, buffer: str, tile: str, at: Expr) -> Stmt:
    """`stmt` with the tile in place of the buffer."""

    def expr(e: Expr) -> Expr:
        made = rewrite.map_children(e, expr) if rewrite.children(e) else e
        if isinstance(made, ir.Load) and made.buffer == buffer:
            return replace(made, buffer=tile, index=at, hint=None)
        return made

    stmt = rewrite.map_expressions(stmt, expr)
    if isinstance(stmt, ir.Store) and stmt.buffer == buffer:
        stmt = replace(stmt, buffer=tile, index=at, hint=None)
    return rewrite.with_bodies(stmt, lambda body: tuple(_redirected(s, buffer, tile, at) for s in body))
