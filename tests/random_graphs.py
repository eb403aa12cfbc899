"""Random graphs: the generator behind the property tests of simplification, fusion and lowering."""

from __future__ import annotations

from hypothesis import strategies as st

from ingot.tracer import dims, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.graph import Graph, GraphBuilder, Literal
from ingot.tracer.primitives import contract as ct
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives import index as ix
from ingot.tracer.primitives import reduce as rd
from ingot.tracer.primitives import shape as sh

B = Dim("B")
F32, I32 = dtypes.float32, dtypes.int32


class Maker:
    """Grows a random graph; whatever does not fit is left out."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.dtype = draw(st.sampled_from([F32, I32]))
        symbolic = draw(st.booleans())
        n: dims.Extent = B if symbolic else draw(st.sampled_from([1, 2, 5, 19]))
        shapes = [(n, 4), (n, 3, 4), (4,), (n,), (3, 1), (n, 1), (), (4, 3), (20, 4), (2, 33)]
        chosen = draw(st.lists(st.sampled_from(shapes), min_size=1, max_size=3))
        self.b = GraphBuilder("random", [Aval(s, self.dtype) for s in chosen])

    def any(self) -> int:
        # late values often, so that the graph gets deep
        last = len(self.b.avals) - 1
        return max(self.draw(st.integers(0, last)), self.draw(st.integers(0, last)))

    def numeric(self) -> int | None:
        found = [i for i, a in enumerate(self.b.avals) if a.dtype is self.dtype]
        return self.draw(st.sampled_from(found)) if found else None

    def grow(self) -> None:
        kind = self.draw(st.sampled_from(sorted(STEPS)))
        x = self.numeric()
        if x is None:
            return
        try:
            STEPS[kind](self, x, self.b.avals[x])
        except ValueError:
            pass  # shapes that do not fit, or a question that a symbol does not answer

    def axis(self, aval: Aval) -> int:
        if not aval.ndim:
            raise ValueError
        return self.draw(st.integers(0, aval.ndim - 1))


def _unary(m: Maker, x: int, a: Aval) -> None:
    exact = [ew.Neg(), ew.Abs(), ew.Sign(), ew.Identity()]
    smooth = [ew.Tanh(), ew.Sigmoid(), ew.Floor()]
    m.b.add(m.draw(st.sampled_from(exact + smooth if a.dtype is F32 else exact)), [x])


def _binary(m: Maker, x: int, a: Aval) -> None:
    y = m.numeric()
    m.b.add(m.draw(st.sampled_from([ew.Add(), ew.Sub(), ew.Maximum(), ew.Minimum()])), [x, y or 0])


def _scaled(m: Maker, x: int, a: Aval) -> None:
    m.b.add(m.draw(st.sampled_from([ew.Mul(), ew.Add()])), [Literal(2, a.dtype), x])


def _select(m: Maker, x: int, a: Aval) -> None:
    (mask,) = m.b.add(ew.Gt(), [x, Literal(0, a.dtype)])
    m.b.add(ew.Select(), [mask, x, m.numeric() or 0])


def _reduce(m: Maker, x: int, a: Aval) -> None:
    axes = tuple(i for i in range(a.ndim) if m.draw(st.booleans()))
    m.b.add(
        m.draw(st.sampled_from([rd.ReduceSum, rd.ReduceMax, rd.ReduceMin]))(axes, m.draw(st.booleans())), [x]
    )


def _softmax(m: Maker, x: int, a: Aval) -> None:
    axis = m.axis(a)
    (top,) = m.b.add(rd.ReduceMax((axis,), True), [x])
    (low,) = m.b.add(ew.Sub(), [x, top])
    if a.dtype is not F32:
        return
    (e,) = m.b.add(ew.Exp(), [low])
    (total,) = m.b.add(rd.ReduceSum((axis,), True), [e])
    m.b.add(ew.Div(), [e, total])


def _arg(m: Maker, x: int, a: Aval) -> None:
    axis = m.axis(a)
    if not dims.decide("gt", a.shape[axis], 0):
        raise ValueError
    (found,) = m.b.add(m.draw(st.sampled_from([rd.Argmax, rd.Argmin]))(axis, m.draw(st.booleans())), [x])
    m.b.add(ew.ConvertElementType(a.dtype), [found])


def _transpose(m: Maker, x: int, a: Aval) -> None:
    m.b.add(sh.Transpose(tuple(m.draw(st.permutations(range(a.ndim))))), [x])


def _reshape(m: Maker, x: int, a: Aval) -> None:
    shapes = [(a.size,), (a.size, 1), (1, *a.shape)]
    if a.ndim > 1:
        shapes += [(a.shape[0] * a.shape[1], *a.shape[2:]), (*a.shape[:-2], a.shape[-2] * a.shape[-1])]
    for axis, n in enumerate(a.shape):
        if isinstance(n, int) and n % 2 == 0:
            shapes.append((*a.shape[:axis], n // 2, 2, *a.shape[axis + 1 :]))
    m.b.add(sh.Reshape(m.draw(st.sampled_from(shapes))), [x])


def _slice(m: Maker, x: int, a: Aval) -> None:
    starts, stops, strides = [], [], []
    for n in a.shape:
        if not isinstance(n, int) or m.draw(st.booleans()):
            starts.append(0), stops.append(n), strides.append(1)
        else:
            step = m.draw(st.sampled_from([1, 2, -1, -2]))
            lo, hi = sorted((m.draw(st.integers(0, n)), m.draw(st.integers(0, n))))
            if step < 0:
                lo, hi = max(hi - 1, 0), max(lo - 1, -1)
            starts.append(lo), stops.append(hi), strides.append(step)
    m.b.add(sh.Slice(tuple(starts), tuple(stops), tuple(strides)), [x])


def _reverse(m: Maker, x: int, a: Aval) -> None:
    m.b.add(sh.Reverse((m.axis(a),)), [x])


def _broadcast(m: Maker, x: int, a: Aval) -> None:
    m.b.add(sh.BroadcastTo((m.draw(st.sampled_from([2, 3])), *a.shape)), [x])


def _concatenate(m: Maker, x: int, a: Aval) -> None:
    y = m.numeric()
    m.b.add(sh.Concatenate(m.axis(a)), [x, y or 0, x])


def _pad(m: Maker, x: int, a: Aval) -> None:
    widths = st.integers(0, 2)
    low, high = (tuple(m.draw(widths) for _ in a.shape) for _ in range(2))
    m.b.add(sh.Pad(low, high), [x, Literal(3, a.dtype)])


def _update(m: Maker, x: int, a: Aval) -> None:
    (y,) = m.b.add(sh.Slice((0,) * a.ndim, tuple(1 if n == 1 else n for n in a.shape), (1,) * a.ndim), [x])
    axis = m.axis(a)
    n = a.shape[axis]
    if not isinstance(n, int) or n < 3:
        return
    stops = tuple(2 if i == axis else e for i, e in enumerate(a.shape))
    (part,) = m.b.add(sh.Slice((0,) * a.ndim, stops, (1,) * a.ndim), [y])
    starts = tuple(1 if i == axis else 0 for i in range(a.ndim))
    step = 2 if n > 3 and m.draw(st.booleans()) else 1
    m.b.add(sh.SliceUpdate(starts, tuple(step if i == axis else 1 for i in range(a.ndim))), [x, part])


def _gather(m: Maker, x: int, a: Aval) -> None:
    axis = m.axis(a)
    n = a.shape[axis]
    if not isinstance(n, int):
        raise ValueError
    (count,) = m.b.add(sh.Iota((5,), 0, I32), [])
    (index,) = m.b.add(ew.Remainder(), [count, Literal(n, I32)])
    (index,) = m.b.add(ew.Sub(), [index, Literal(n // 2, I32)])
    m.b.add(ix.Gather((axis,), axis), [x, index])


def _dot(m: Maker, x: int, a: Aval) -> None:
    y = m.numeric() or 0
    c = m.b.avals[y]
    pairs = [(i, j) for i in range(a.ndim) for j in range(c.ndim) if dims.same(a.shape[i], c.shape[j])]
    if not pairs:
        return
    i, j = m.draw(st.sampled_from(pairs))
    rest = [(p, q) for p, q in pairs if p != i and q != j]
    batch = m.draw(st.sampled_from(rest)) if rest and m.draw(st.booleans()) else None
    sides = ((), ()) if batch is None else ((batch[0],), (batch[1],))
    m.b.add(ct.DotGeneral(((i,), (j,)), sides), [x, y])


def _scatter(m: Maker, x: int, a: Aval) -> None:
    axis = m.axis(a)
    n = a.shape[axis]
    if not isinstance(n, int) or n < 3:
        raise ValueError
    (index,) = m.b.add(sh.Iota((4,), 0, I32), [])
    (index,) = m.b.add(ew.Remainder(), [index, Literal(3, I32)])
    (part,) = m.b.add(ix.Gather((axis,), axis), [x, index])
    mode = m.draw(st.sampled_from(["set", "add", "min", "max"]))
    m.b.add(ix.Scatter(mode, (axis,), axis), [x, part, index])


def _barrier(m: Maker, x: int, a: Aval) -> None:
    m.b.add(sh.OptimizationBarrier(), [x, m.any()])


def _iota(m: Maker, x: int, a: Aval) -> None:
    (count,) = m.b.add(sh.Iota(a.shape, m.axis(a), a.dtype), [])
    m.b.add(ew.Add(), [x, count])


STEPS = {
    f.__name__: f
    for f in (
        _unary, _binary, _scaled, _select, _reduce, _softmax, _arg, _transpose, _reshape, _slice, _reverse,
        _broadcast, _concatenate, _pad, _update, _gather, _dot, _scatter, _barrier, _iota,
    )
}  # fmt: skip


@st.composite
def random_graphs(draw: st.DrawFn) -> Graph:
    maker = Maker(draw)
    for _ in range(draw(st.integers(3, 14))):
        maker.grow()
        if any(isinstance(n, int) and n > 4000 for n in (maker.b.avals[-1].size,)):
            break
    values = range(len(maker.b.avals))
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
    return maker.b.finish([*outputs, len(maker.b.avals) - 1])
