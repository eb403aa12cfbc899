"""Loops cut into chunks: `split`, and `tile` for two of them."""

from __future__ import annotations

from ingot.lowering import loop as ir
from ingot.lowering.loop import IDX, Body, For, Kernel, Stmt, Var
from ingot.lowering.passes import rewrite
from ingot.lowering.passes.affine import extent
from ingot.lowering.passes.reorder import reorder
from ingot.lowering.passes.rewrite import Names, refuse
from ingot.tracer.record import replace

TAILS = ("exact", "guarded", "masked", "peeled")


def split(kernel: Kernel, loop: str, factor: int, tail: str = "masked", outer: str | None = None) -> Kernel:
    """Cut a serial loop into chunks of `factor` iterations. The inner loop keeps the name; the outer is
    called `outer`, by default `<loop>_outer`. The order of iterations stays, so this is always legal.

        for i in [0, n) { S }
      masked: the last chunk is shorter (`vectorise` makes a mask of that)
        for i_outer in [0, n) step 4 { for i in [i_outer, min(i_outer + 4, n)) { S } }
      guarded: chunks are complete, iterations beyond the end do nothing
        for i_outer in [0, n) step 4 { for i in [i_outer, i_outer + 4) { if i < n { S } } }
      peeled: a loop of whole chunks, then one of what is left
        i_main: index = max(n, 0) // 4 * 4
        for i_outer in [0, i_main) step 4 { for i in [i_outer, i_outer + 4) { S } }
        for i_1 in [i_main, n) { S }
      exact: no tail; LoopError unless the extent is a constant multiple of the chunk

    Carried values pass through both loops. Raises LoopError for loops that are not serial or have a step that
    is not constant; ValueError for a factor below 1 or an unknown tail.
    """
    if factor < 1 or tail not in TAILS:
        raise ValueError(
            f"[split] factor {factor}, tail {tail!r}: expected a positive factor and one of "
            f"{', '.join(TAILS)}"
        )
    old = rewrite.find(kernel, loop).loop
    step = rewrite.require_serial("split", old)
    if factor == 1:
        return kernel
    chunk = factor * step
    names = Names(kernel)
    size = extent(old)
    whole = size is not None and size % chunk == 0
    if tail == "exact" and not whole:
        raise refuse("split", loop, f"its extent is not known to be a multiple of {chunk}")
    outer = names.fresh(outer or f"{loop}_outer")
    if tail != "peeled" or whole:
        made = _chunks(old, chunk, "exact" if whole else tail, outer, names)
        return rewrite.replace_loop(kernel, loop, [made])
    lets, main, rest = peel(old, chunk, names)
    assert rest is not None
    return rewrite.replace_loop(kernel, loop, [*lets, _chunks(main, chunk, "exact", outer, names), rest])


def peel(loop: For, chunk: int, names: Names) -> tuple[Body, For, For | None]:
    """The loop cut in two: `(definitions, main, rest)`, where the number of elements that `main` spans is the
    largest multiple of `chunk` (a multiple of the step). There is no rest when that is known to be all."""
    count = extent(loop)
    if count is not None and count % chunk == 0:
        return (), loop, None
    whole = ir.binary("floordiv", ir.maximum(loop.hi - loop.lo, 0), chunk) * chunk
    border: ir.Expr = loop.lo + whole
    lets: list[Stmt] = []
    if not isinstance(border, ir.Const):
        var = Var(names.fresh(f"{loop.index.name}_main"), IDX)
        lets.append(ir.Let(var, border))
        border = var
    middle = tuple(names.var(v) for v in loop.results)
    main = replace(loop, hi=border, results=middle)
    rest = rewrite.Copier(names).loop(replace(loop, lo=border, inits=middle))
    return tuple(lets), main, replace(rest, results=loop.results)


def _chunks(loop: For, chunk: int, tail: str, outer: str, names: Names) -> For:
    start = Var(outer, IDX)
    end = start + chunk
    hi = ir.minimum(end, loop.hi) if tail == "masked" else end
    carried = tuple(names.var(v) for v in loop.carried)
    ends = tuple(names.var(v) for v in loop.results)
    inner = replace(loop, lo=start, hi=hi, inits=carried, results=ends)
    if tail == "guarded":
        inner = _guarded(inner, loop.hi, names)
    return For(
        start, loop.lo, loop.hi, ir.index(chunk), "serial", (inner,), carried, loop.inits, ends, loop.results
    )


def _guarded(loop: For, hi: ir.Expr, names: Names) -> For:
    """The loop whose iterations at `hi` and above keep the carried values."""
    chosen = tuple(names.var(v) for v in loop.carried)
    check: Stmt = ir.If(loop.index < hi, loop.body, (), loop.yields, loop.carried, chosen)
    return replace(loop, body=(check,), yields=chosen)


def tile(kernel: Kernel, outer: str, inner: str, rows: int, columns: int, tail: str = "masked") -> Kernel:
    """Run through two perfectly nested loops in tiles of `rows` x `columns`.

        for i in [0, n) { for j in [0, m) { S } }
      becomes
        for i_outer in [0, n) step 4 {
          for j_outer in [0, m) step 8 {
            for i in [i_outer, min(i_outer + 4, n)) { for j in [j_outer, min(j_outer + 8, m)) { S } }
          }
        }

    `tail` is `masked` or `exact`. Raises LoopError when the loops may not be interchanged (see `reorder`).
    """
    if tail not in ("masked", "exact"):
        raise ValueError(f"[tile] tail {tail!r}: expected 'masked' or 'exact'")
    cut = split(split(kernel, outer, rows, tail), inner, columns, tail)
    if rows == 1 or columns == 1:
        return cut
    block = rewrite.find(cut, outer).loop.body[0]
    if not isinstance(block, For):
        raise refuse("tile", outer, f"{inner} is not perfectly nested in it")
    return reorder(cut, outer, block.index.name)
