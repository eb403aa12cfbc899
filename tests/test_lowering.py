"""Lowered programs against the NumPy reference: random graphs, chosen nests, one kernel for all sizes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.lowering import loop_verify
from ingot.lowering.llvm.target import current
from ingot.lowering.loop_text import parse_kernel
from ingot.lowering.pipeline import lower
from ingot.runtime.executable import Executable, executable
from ingot.runtime.interpreter import InterpretedGraph
from ingot.tracer import dims, dtypes
from ingot.tracer.array import leaf
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.graph import Graph, GraphBuilder, Literal
from ingot.tracer.primitives import contract as ct
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives import index as ix
from ingot.tracer.primitives import reduce as rd
from ingot.tracer.primitives import shape as sh

B, C = Dim("B"), Dim("C")
F32, I32, F64, U8, BOOL = dtypes.float32, dtypes.int32, dtypes.float64, dtypes.uint8, dtypes.bool_


def filled(aval: Aval, env: dict[str, int], seed: int) -> np.ndarray:
    """Random data for an input of `aval`."""
    rng = np.random.default_rng(seed)
    shape = tuple(dims.evaluate(n, env) for n in aval.shape)
    if aval.dtype.is_floating:
        return rng.normal(size=shape).astype(aval.dtype.numpy)
    high = 2 if aval.dtype is BOOL else 100
    return rng.integers(0 if aval.dtype.kind in "bu" else -high, high, size=shape).astype(aval.dtype.numpy)


def run_both(
    graph: Graph, env: dict[str, int], seed: int = 0, made: Executable | None = None
) -> tuple[Executable, list[np.ndarray], list[np.ndarray]]:
    """The compiled results and the reference."""
    arrays = [filled(a, env, seed + i) for i, a in enumerate(graph.inputs)]
    values = [leaf(x, aval=Aval(x.shape, a.dtype)) for x, a in zip(arrays, graph.inputs, strict=True)]
    made = made or executable(graph)
    got = [v.view for v in made(values)]
    want = [v.view for v in InterpretedGraph(graph)(values)]
    return made, got, want  # type: ignore[return-value]


def assert_same(got: Sequence[np.ndarray], want: Sequence[np.ndarray], tolerance: float = 2e-5) -> None:
    for x, y in zip(got, want, strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        if x.dtype.kind == "f":
            scale = max(1.0, float(np.nanmax(np.abs(y), initial=0.0, where=np.isfinite(y))))
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * scale)
        else:
            np.testing.assert_array_equal(x, y)


def check(graph: Graph, *sizes: dict[str, int], tolerance: float = 2e-5) -> Executable:
    """Compile once, compare at all sizes, expect no host calls."""
    made = None
    for env in sizes or ({},):
        made, got, want = run_both(graph, env, made=made)
        assert_same(got, want, tolerance)
    assert made is not None
    assert not made.program.hosts, made.program.hosts
    for kernel in made.program.kernels:
        loop_verify.verify(parse_kernel(kernel.text))
    return made


# -- random graphs -----------------------------------------------------------------------------------------


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


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_graphs(), st.sampled_from([0, 1, 2, 17, 40]))
def test_random_graphs(graph: Graph, size: int) -> None:
    env = {d.name: size for d in graph.dims}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made, got, want = run_both(graph, env)
        except IndexError:
            return  # an index that data makes wrong; both tiers say so
    assert_same(got, want, 1e-4)


# -- chosen nests --------------------------------------------------------------------------------------------

SIZES = [{"B": n} for n in (0, 1, 2, 17, 256, 1000)]


def built(
    shapes: Sequence[Sequence[dims.Extent]], dtype: dtypes.Dtype, make: Callable[[GraphBuilder], int]
) -> Graph:
    """A graph of one output."""
    b = GraphBuilder("chosen", [Aval(tuple(s), dtype) for s in shapes])
    return b.finish([make(b)])


def test_one_kernel_serves_all_sizes() -> None:
    b = GraphBuilder("mlp", [Aval((B, 64), F32), Aval((32, 64), F32), Aval((32,), F32)])
    (w,) = b.add(sh.Transpose((1, 0)), [1])
    (h,) = b.add(ct.DotGeneral(((1,), (0,)), ((), ())), [0, w])
    (h,) = b.add(ew.Add(), [h, 2])
    (h,) = b.add(ew.Maximum(), [h, Literal(0.0, F32)])
    (top,) = b.add(rd.ReduceMax((1,), True), [h])
    (h,) = b.add(ew.Sub(), [h, top])
    (e,) = b.add(ew.Exp(), [h])
    (total,) = b.add(rd.ReduceSum((1,), True), [e])
    (p,) = b.add(ew.Div(), [e, total])
    (best,) = b.add(rd.Argmax(1, False), [p])
    made = check(b.finish([p, best]), *SIZES)
    assert [step.host for step in made.program.steps] == [None, None]


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("dtype", [F32, I32, F64, U8, dtypes.float16])
def test_sums_over_any_axes(axes: tuple[int, ...], dtype: dtypes.Dtype) -> None:
    graph = built([(B, 5, 33)], dtype, lambda b: b.add(rd.ReduceSum(axes, False), [0])[0])
    check(graph, *SIZES[:4], tolerance=2e-3 if dtype is dtypes.float16 else 2e-6)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("cls", [rd.ReduceMax, rd.ReduceMin, rd.ReduceProd])
def test_extrema_propagate_nan(cls: type, axes: tuple[int, ...]) -> None:
    graph = built([(B, 40)], F32, lambda b: b.add(cls(axes, True), [0])[0])
    made = executable(graph)
    rng = np.random.default_rng(3)
    for size in (1, 2, 70):
        x = rng.uniform(0.5, 1.5, size=(size, 40)).astype(np.float32)
        x[0, 17] = np.nan
        value = leaf(x)
        (got,), (want,) = made([value]), InterpretedGraph(graph)([value])
        np.testing.assert_allclose(got.view, want.view, rtol=1e-5)


def test_long_sums_are_better_than_naive() -> None:
    n = 1 << 20
    x = np.full(n, 0.1, np.float32)
    exact = float(x[0]) * n
    for shape, axes in (((n,), (0,)), ((n, 1), (0,)), ((n // 4, 4), (0, 1)), ((4, n // 4), (0, 1))):
        graph = built([shape], F32, lambda b, axes=axes: b.add(rd.ReduceSum(axes, False), [0])[0])
        (got,) = executable(graph)([leaf(x.reshape(shape))])
        assert abs(float(got.view.sum(dtype=np.float64)) - exact) < 1e-5 * exact
    graph = built([(n, 2)], F32, lambda b: b.add(rd.ReduceSum((0,), False), [0])[0])
    (got,) = executable(graph)([leaf(np.full((n, 2), 0.1, np.float32))])
    assert np.all(np.abs(got.view - exact) < 1e-5 * exact)  # naive summation: 7e-3
    graph = built([(1, n), (n, 1)], F32, lambda b: b.add(ct.DotGeneral(((1,), (0,)), ((), ())), [0, 1])[0])
    (got,) = executable(graph)([leaf(x.reshape(1, n)), leaf(np.ones((n, 1), np.float32))])
    assert abs(got.view.item() - exact) < 1e-5 * exact


def test_arg_reductions_take_the_first_and_nan() -> None:
    rows = np.zeros((6, 37), np.float32)
    rows[1, [5, 30]] = 1
    rows[2, [36]] = np.inf
    rows[3, [20, 21]] = np.nan
    rows[4] = -np.inf
    rows[5, [3, 19]] = -1
    for x in (rows, np.ascontiguousarray(rows.T)):
        for axis in (0, 1):
            for cls in (rd.Argmax, rd.Argmin):
                graph = built([x.shape], F32, lambda b, c=cls, a=axis: b.add(c(a, False), [0])[0])
                (got,), (want,) = executable(graph)([leaf(x)]), InterpretedGraph(graph)([leaf(x)])
                np.testing.assert_array_equal(got.view, want.view)


@pytest.mark.parametrize("dtype", [F32, F64, I32, dtypes.float16, dtypes.bfloat16, U8])
@pytest.mark.parametrize(
    "left, right, contract, batch",
    [
        ((B, 19), (19, 35), ((1,), (0,)), ((), ())),
        ((B, 19), (35, 19), ((1,), (1,)), ((), ())),
        ((19, B), (19, 35), ((0,), (0,)), ((), ())),
        ((19, B), (35, 19), ((0,), (1,)), ((), ())),
        ((B, 3, 8), (B, 8, 5), ((2,), (1,)), ((0,), (0,))),
        ((B, 4, 8), (8, 4, 6), ((1, 2), (1, 0)), ((), ())),
        ((B, 4, 8), (4, 8), ((1, 2), (0, 1)), ((), ())),
        ((B, 7), (7,), ((1,), (0,)), ((), ())),
        ((3, B), (3,), ((0,), (0,)), ((), ())),
        ((B,), (5,), ((), ()), ((), ())),
    ],
)
def test_contractions(left, right, contract, batch, dtype) -> None:
    graph = built([left, right], dtype, lambda b: b.add(ct.DotGeneral(contract, batch), [0, 1])[0])
    narrow = dtype.size == 2
    check(graph, *SIZES[:4], {"B": 100}, tolerance=1e-2 if narrow else 1e-5)


def test_rows_of_a_contraction_do_not_depend_on_the_batch() -> None:
    graph = built([(B, 50), (50, 40)], F32, lambda b: b.add(ct.DotGeneral(((1,), (0,)), ((), ())), [0, 1])[0])
    made = executable(graph)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(100, 50)).astype(np.float32), rng.normal(size=(50, 40)).astype(np.float32)
    (whole,) = made([leaf(x), leaf(w)])
    for n in (1, 7, 48, 99):
        (part,) = made([leaf(x[:n]), leaf(w)])
        assert part.view.tobytes() == whole.view[:n].tobytes()


@pytest.mark.parametrize("dtype", [d for d in dtypes.ALL if d is not dtypes.complex64])
def test_conversions_between_all_dtypes(dtype: dtypes.Dtype) -> None:
    for target in dtypes.ALL:
        if target is not dtypes.complex64:
            graph = built([(B, 21)], dtype, lambda b, t=target: b.add(ew.ConvertElementType(t), [0])[0])
            check(graph, {"B": 3}, tolerance=0)


def test_a_long_chain_is_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder("chain", [Aval((B, 3), F32)])
    x = 0
    for i in range(2000):
        (x,) = b.add(ew.Mul() if i % 2 else ew.Add(), [x, Literal(0.5 if i % 2 else 0.25, F32)])
    graph = b.finish([x])
    assert len(check(graph, {"B": 5}, tolerance=0).program.kernels) == 1
    monkeypatch.setattr("ingot.lowering.fuse.GROUP_NODES", 500)
    assert 4 <= len(lower(graph, current()).kernels) <= 8


def test_arithmetic_is_bitwise_that_of_numpy() -> None:
    b = GraphBuilder("bits", [Aval((B,), F32), Aval((B,), F32), Aval((B,), F32)])
    (p,) = b.add(ew.Mul(), [0, 1])
    (s,) = b.add(ew.Add(), [p, 2])  # one rounding each: never fused
    (q,) = b.add(ew.Div(), [s, 1])
    (r,) = b.add(ew.Sqrt(), [q])
    made, got, want = run_both(b.finish([s, q, r]), {"B": 5000})
    for x, y in zip(got, want, strict=True):
        assert np.array_equal(x, y, equal_nan=True)
    assert len(made.program.kernels) == 1


def test_reads_are_views() -> None:
    """Transposed, reversed, strided and broadcast operands need no copies."""
    b = GraphBuilder("views", [Aval((6, 8), I32), Aval((4,), I32)])
    (a,) = b.add(sh.Slice((5, 0), (-1, 8), (-2, 2)), [0])
    (t,) = b.add(sh.Transpose((1, 0)), [a])
    (r,) = b.add(sh.Reverse((1,)), [t])
    (w,) = b.add(sh.Reshape((4, 1)), [1])
    (y,) = b.add(ew.Add(), [r, w])
    made = check(b.finish([y]))
    assert len(made.program.kernels) == 1 and not made.program.slots


@pytest.mark.parametrize("index", [-4, 3, 100, -(2**31)])
def test_indices_of_the_data_are_checked(index: int) -> None:
    def gather(b: GraphBuilder) -> int:
        return b.add(ix.Gather((0,), 0), [0, 1])[0]

    x, good = np.arange(30, dtype=np.int32).reshape(3, 10), np.array([-3, 2, 0], np.int32)
    for make, shape in (
        (gather, (3, 10)),
        (lambda b: b.add(ix.Scatter("add", (0,), 0), [0, 0, 1])[0], (3, 10)),
    ):
        b = GraphBuilder("take", [Aval(shape, I32), Aval((3,), I32)])
        made = executable(b.finish([make(b)]))
        made([leaf(x), leaf(good)])
        bad = good.copy()
        bad[1] = index
        with pytest.raises(IndexError, match="out of bounds for an axis of size 3"):
            made([leaf(x), leaf(bad)])
        made([leaf(x), leaf(good)])
    # lane by lane
    flat = GraphBuilder("flat", [Aval((3,), I32), Aval((100,), I32)])
    (y,) = flat.add(ix.Gather((0,), 0), [0, 1])
    made = executable(flat.finish([y]))
    many = np.zeros(100, np.int32)
    many[77] = index
    with pytest.raises(IndexError):
        made([leaf(x[0, :3].copy()), leaf(many)])


def test_divided_reshapes() -> None:
    b = GraphBuilder("split", [Aval((B, 2, 3, 5), I32)])
    (x,) = b.add(ew.Add(), [0, Literal(1, I32)])
    (t,) = b.add(sh.Transpose((2, 0, 1, 3)), [x])
    (y,) = b.add(sh.Reshape((3 * B * 2, 5)), [t])
    (z,) = b.add(sh.Reshape((3, B, 10)), [y])
    check(b.finish([y, z]), *SIZES[:4])
