"""Native code against the NumPy reference: random graphs, edge cases of all dtypes, hostile files.

`python tests/test_fuzz_native.py FIRST COUNT` compares as many random graphs as one likes; with `--guarded`
all memory that a program sees ends at a page that must not be touched.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import itertools
import math
import mmap
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
from fuzz_graphs import DEPTHS, Case, data, depth_of, deviation, random_case, slack  # noqa: E402

import ingot as mx  # noqa: E402
from ingot.format import container  # noqa: E402
from ingot.format.codec import Encoder, Function, Trace  # noqa: E402
from ingot.lowering.rules.registry import composed  # noqa: E402
from ingot.runtime import executable as executable_module  # noqa: E402
from ingot.runtime import interpreter  # noqa: E402
from ingot.runtime.executable import Executable, executable  # noqa: E402
from ingot.tracer import dims, dtypes  # noqa: E402
from ingot.tracer.array import leaf  # noqa: E402
from ingot.tracer.aval import Aval  # noqa: E402
from ingot.tracer.dims import Dim, Guard  # noqa: E402
from ingot.tracer.dtypes import Dtype  # noqa: E402
from ingot.tracer.errors import FormatError, GraphError  # noqa: E402
from ingot.tracer.graph import Constant, Graph, GraphBuilder, Literal, Node, Operand  # noqa: E402
from ingot.tracer.primitive import Primitive  # noqa: E402
from ingot.tracer.primitives import contract as ct  # noqa: E402
from ingot.tracer.primitives import elementwise as ew  # noqa: E402
from ingot.tracer.primitives import index as ix  # noqa: E402
from ingot.tracer.primitives import reduce as rd  # noqa: E402
from ingot.tracer.primitives import shape as sh  # noqa: E402
from ingot.tracer.text import parse_graph  # noqa: E402
from ingot.tracer.tree import Tree  # noqa: E402
from ingot.tracer.verify import verify  # noqa: E402

F32, I32, I64, F16, BF16 = dtypes.float32, dtypes.int32, dtypes.int64, dtypes.float16, dtypes.bfloat16
B, C = Dim("B"), Dim("C")

# -- random graphs -----------------------------------------------------------------------------------------

Placed = Callable[[np.ndarray], np.ndarray]


def native(made: Executable, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    avals = [Aval(x.shape, a.dtype) for x, a in zip(inputs, made.program.inputs, strict=True)]
    values = made([leaf(x, aval=a) for x, a in zip(inputs, avals, strict=True)])
    return [np.asarray(v.view) for v in values]


def compare(case: Case, place: Placed = np.asarray) -> str:
    """What native code does otherwise than the reference, at all sizes; empty when nothing."""
    graph = case.graph
    verify(graph)
    made = executable(graph)
    if made.program.hosts:
        return f"host calls: {made.program.hosts}"
    for env in case.sizes:
        inputs = [place(x) for x in case.inputs(env)]
        wanted: list[np.ndarray] | None = None
        try:
            wanted = interpreter.run(graph, inputs, env)
        except IndexError:
            pass  # native code checks only the indices that it needs
        allowed = None if case.exact or wanted is None else slack(graph, inputs, env)
        if not case.exact and allowed is None:
            continue  # smooth, but not moderate at these sizes
        try:
            got = native(made, inputs)
        except IndexError as error:
            if wanted is not None:
                return f"{env}: {error}"
            continue
        for i, (x, y) in enumerate(zip(got, wanted or got, strict=True)):
            found = deviation(x, y, case, None if allowed is None else allowed[i])
            if found:
                return f"{env}: output {i}: {found}"
    return ""


GRAPHS = int(os.environ.get("INGOT_FUZZ_GRAPHS", "2000"))
FIRST = int(os.environ.get("INGOT_FUZZ_FIRST", "0"))
BLOCK = 50


@pytest.mark.parametrize("first", range(FIRST, FIRST + GRAPHS, BLOCK))
def test_random_graphs(first: int, fuzz_counts: Counter[str]) -> None:
    """INGOT_FUZZ_GRAPHS (2,000) graphs, others with another INGOT_FUZZ_FIRST. A failure shrinks to the least
    depth at which the graph of a seed fails."""
    tried = 0

    @seeded(first)
    @settings(max_examples=BLOCK, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**48), st.integers(DEPTHS[0], DEPTHS[1] - 6))
    def block(number: int, depth: int) -> None:
        nonlocal tried
        case = random_case(number, depth)
        assert DEPTHS[0] <= depth_of(case.graph) <= DEPTHS[1]
        tried += 1
        count(fuzz_counts, case.graph)
        wrong = compare(case)
        assert not wrong, f"random_case({number}, {depth}): {wrong}\n{case.graph}"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block()
    assert tried == BLOCK


def count(counts: Counter[str], graph: Graph) -> None:
    """Add the primitives of a graph and the dtypes of its values."""
    counts["graphs"] += 1
    for node in graph.nodes:
        counts[f"primitive {node.primitive.name}"] += 1
    for aval in graph.avals:
        counts[f"dtype {aval.dtype.name}"] += 1


def test_maxima_of_windows_over_padding() -> None:
    """LLVM's NewGVN took one of the windows for another."""
    b = GraphBuilder("pool", [Aval((2, 7, 6, 3), F32)])
    (x,) = b.add(sh.Pad((0, 1, 1, 0), (0, 1, 1, 0)), [0, Literal(-math.inf, F32)])
    for axis, shape in ((1, (2, 7, 8, 3)), (2, (2, 7, 6, 3))):
        parts = []
        for k in range(3):
            starts = tuple(k if a == axis else 0 for a in range(4))
            stops = tuple(k + n for k, n in zip(starts, shape, strict=True))
            parts += b.add(sh.Slice(starts, stops, (1, 1, 1, 1)), [x])
        (x,) = b.add(ew.Maximum(), parts[:2])
        (x,) = b.add(ew.Maximum(), [x, parts[2]])
    check(b.finish([x]))


def test_columns_that_fill_three_vectors() -> None:
    """48 lanes of bool are nothing that LLVM compiles."""
    check(graph_of([Aval((13, 60), dtypes.bool_)], [(rd.Argmin(0, False), (0,))]))


def test_groups_do_not_close_a_cycle() -> None:
    text = """
    graph @f(%a0: f32[5], %a1: f32[D,0]) -> (f32[D,0]) where D in [4,inf] by 4 {
      %0: f32[] = dot_general(%a0, %a0) {contract=[[0],[0]], batch=[[],[]]}
      %1: f32[] = dot_general(%a1, %a1) {contract=[[1,0],[1,0]], batch=[[],[]]}
      %2: f32[D,0] = tanh(%a1)
      %3: f32[D,0] = mul(%2, 0.875)
      %4: f32[D,0] = asin(%3)
      %5: f32[D,0] = minimum(%4, %3)
      %6: f32[D,0] = minimum(%4, %a1)
      %7: f32[D,0] = concatenate(%2, %6, %6, %3) {axis=1}
      %8: f32[D,0] = convert_element_type(%7) {dtype=f32}
      return %8
    }"""
    check(parse_graph(text), {"D": 4}, {"D": 8})


def graph_of(
    inputs: Sequence[Aval],
    steps: Sequence[tuple[Primitive, Sequence[Operand]]],
    outputs: Sequence[int] | None = None,
    guards: Sequence[Guard] = (),
) -> Graph:
    b = GraphBuilder("f", inputs, guards=guards)
    for primitive, operands in steps:
        b.add(primitive, operands)
    return b.finish(outputs or [len(b.avals) - 1])


def check(graph: Graph, *sizes: dict[str, int], tolerance: float = 0.0) -> None:
    made = executable(graph)
    rng = np.random.default_rng(0)
    for env in sizes or ({},):
        inputs = [
            data(rng, tuple(dims.evaluate(n, env) for n in a.shape), a.dtype, False) for a in graph.inputs
        ]
        for x, y in zip(native(made, inputs), interpreter.run(graph, inputs, env), strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_allclose(x.astype(np.float64), y.astype(np.float64), tolerance, tolerance)


def test_barriers_of_complex_numbers() -> None:
    graph = graph_of([Aval((B, 7), BF16)], [(ew.ConvertElementType(dtypes.complex64), (0,)),
                                            (sh.OptimizationBarrier(), (1, 0))], [2, 3])  # fmt: skip
    made = executable(graph)
    x = np.arange(14).reshape(2, 7).astype(BF16.numpy)
    got, same = native(made, [x])
    assert (
        got.dtype == np.complex64 and np.array_equal(got, x.astype(np.complex64)) and np.array_equal(same, x)
    )


def test_contraction_without_rows_columns_or_sums() -> None:
    scalars, vector = Aval((), F32), Aval((12,), F32)
    batch = ((0,), (0,))
    check(graph_of([vector, vector], [(ct.DotGeneral(((), ()), batch), (0, 1)), (ew.Sub(), (0, 2))]))
    check(graph_of([scalars, scalars], [(ct.DotGeneral(((), ())), (0, 1)), (ew.Ge(), (0, 2))]))
    rows = Aval((C, B), F32)
    steps = [(ew.Exp(), (0,)), (ct.DotGeneral(((0,), (0,)), ((1,), (1,))), (2, 1)), (ew.Add(), (3, 3))]
    check(graph_of([rows, rows], steps), {"B": 8, "C": 17}, {"B": 0, "C": 3}, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
@pytest.mark.parametrize("mode", ["add", "mul", "min", "max", "set"])
def test_scatter_in_half_precision(dtype: Dtype, mode: str) -> None:
    x, updates, at = Aval((5, 3), dtype), Aval((7, 3), dtype), Aval((7,), I32)
    graph = graph_of([x, updates, at], [(ew.Remainder(), (2, Literal(5, I32))),
                                        (ix.Scatter(mode, (0,), 0), (0, 1, 3))])  # fmt: skip
    check(graph)


@pytest.mark.parametrize("mode", ["add", "mul", "min", "max", "set"])
@pytest.mark.parametrize("count", [5, 90])  # few updates, and so many that columns run in parallel
def test_scatter_of_rows(mode: str, count: int) -> None:
    """Along the first and the middle axis, with windows around a vector and a block."""
    at = (ew.Remainder(), (2, Literal(5, I32)))
    for width, dtype in ((1, F32), (3, F32), (17, dtypes.int8), (127, F32), (129, dtypes.int8), (B, F32)):
        x, updates = Aval((5, width), dtype), Aval((count, width), dtype)
        scatter = (ix.Scatter(mode, (0,), 0), (0, 1, 3))
        check(graph_of([x, updates, Aval((count,), I32)], [at, scatter]), {"B": 140}, {"B": 0})
    x, updates = Aval((2, 5, 130), F32), Aval((2, count, 130), F32)
    scatter = (ix.Scatter(mode, (1,), 1), (0, 1, 3))
    check(graph_of([x, updates, Aval((count,), I32)], [at, scatter]))


def test_narrow_stores_of_one_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of 17 leaves one lane, which LLVM 22 stores as wide as it was before it was truncated."""
    for dtype in (dtypes.int8, dtypes.int16, I32):
        steps = [(sh.Iota((17,), 0, I64), ()), (ew.BitwiseOr(), (0, 1)), (ew.ConvertElementType(dtype), (2,))]
        memory = np.full(512, 85, np.uint8).view(dtype.numpy)

        def begins(aval: Aval, memory: np.ndarray = memory) -> Callable[[], np.ndarray]:
            narrow = aval.dtype.numpy == memory.dtype
            return lambda: memory[:17] if narrow else np.empty(aval.shape, aval.dtype.numpy)

        monkeypatch.setattr(executable_module, "_maker", begins)
        native(executable(graph_of([Aval((), I64)], steps, [1, 3])), [np.array(16)])
        assert memory[:17].tolist() == [16 | i for i in range(17)]
        assert np.all(memory[17:].view(np.uint8) == 85)


def test_indices_of_nothing_are_not_checked() -> None:
    shape = [(sh.Iota((B, 1), 1, I32), ()), (ix.Gather((0,), 0), (0, 1))]
    check(graph_of([Aval((B,), F32)], shape), {"B": 0}, {"B": 1}, {"B": 4})
    scatter = [(sh.Iota((B, 1), 1, I32), ()), (ix.Scatter("add", (0,), 0), (0, 1, 2))]
    check(graph_of([Aval((B,), F32), Aval((B, 1), F32)], scatter), {"B": 0}, {"B": 1}, {"B": 4})


# -- edge cases --------------------------------------------------------------------------------------------


def _pairs(values: np.ndarray) -> list[np.ndarray]:
    a, b = zip(*itertools.product(values, repeat=2), strict=True)
    return [np.array(a, values.dtype), np.array(b, values.dtype)]


def _same(
    got: Sequence[np.ndarray], want: Sequence[np.ndarray], names: Sequence[str], zeros: Sequence[str]
) -> None:
    for x, y, name in zip(got, want, names, strict=True):
        assert x.dtype == y.dtype, name
        wide = x.dtype.kind not in "biu"
        x, y = (a.astype(np.float64) if wide else a for a in (x, y))
        same = (x == y) | (np.isnan(x) & np.isnan(y)) if wide else x == y
        if wide and name not in zeros:
            same &= np.signbit(x) == np.signbit(y)
            same |= np.isnan(x) & np.isnan(y)
        assert np.all(same), (
            f"{name}: {np.argwhere(~same)[:3].tolist()}, got {x[~same][:3]}, expected {y[~same][:3]}"
        )


def _run_all(
    inputs: Sequence[np.ndarray], steps: Sequence[tuple[Primitive, Sequence[int]]], dtype: Dtype
) -> None:
    graph = graph_of(
        [Aval(x.shape, dtype) for x in inputs], steps, range(len(inputs), len(inputs) + len(steps))
    )
    got, want = native(executable(graph), inputs), interpreter.run(graph, inputs)
    names = [repr(primitive) for primitive, _ in steps]
    _same(got, want, names, ["Maximum()", "Minimum()", "ReduceMax(axes=(0,), keepdims=False)",
                             "ReduceMin(axes=(0,), keepdims=False)"])  # fmt: skip


INTEGERS = [d for d in dtypes.ALL if d.kind in "iu"]
FLOATS = [d for d in dtypes.ALL if d.kind == "f"]
_INT_BINARY: tuple[type[Primitive], ...] = (
    ew.Add, ew.Sub, ew.Mul, ew.FloorDivide, ew.Remainder, ew.Maximum, ew.Minimum, ew.LeftShift, ew.RightShift,
    ew.BitwiseAnd, ew.BitwiseOr, ew.BitwiseXor, ew.Eq, ew.Ne, ew.Lt, ew.Le, ew.Gt, ew.Ge, ew.Pow,
)  # fmt: skip


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers(dtype: Dtype) -> None:
    """Division by zero, MIN // -1, shifts by the width and more, wrapping."""
    info, bits = np.iinfo(dtype.numpy), 8 * dtype.size
    small = [0, 1, 2, 3, 7, bits - 1, bits, bits + 1] + ([-1, -2, -7] if dtype.kind == "i" else [])
    values = np.array(
        [*small, info.min, info.max, info.min + 1, info.max - 1, info.max // 2 + 1], dtype.numpy
    )
    steps: list[tuple[Primitive, Sequence[int]]] = [(cls(), (0, 1)) for cls in _INT_BINARY]
    steps += [(cls(), (0,)) for cls in (ew.Neg, ew.Abs, ew.Sign, ew.Square, ew.BitwiseNot)]
    steps += [(cls((0,), False), (0,)) for cls in (rd.ReduceSum, rd.ReduceProd, rd.ReduceMax, rd.ReduceMin)]
    _run_all(_pairs(values), [*steps, (rd.Argmax(0, False), (0,)), (rd.Argmin(0, False), (0,))], dtype)


def test_bools() -> None:
    binary = [c for c in _INT_BINARY if c not in (ew.LeftShift, ew.RightShift)] + [
        ew.LogicalAnd,
        ew.LogicalOr,
    ]
    steps: list[tuple[Primitive, Sequence[int]]] = [(cls(), (0, 1)) for cls in binary]
    steps += [(cls(), (0,)) for cls in (ew.Abs, ew.Sign, ew.Square, ew.BitwiseNot, ew.LogicalNot)]
    steps += [(cls((0,), False), (0,)) for cls in (rd.ReduceAll, rd.ReduceAny, rd.ReduceMax, rd.ReduceMin)]
    _run_all(_pairs(np.array([False, True])), steps, dtypes.bool_)


def float_edges(dtype: Dtype) -> np.ndarray:
    tiny = {"f16": 2.0**-24, "bf16": 2.0**-133, "f32": 2.0**-149, "f64": 5e-324}[dtype.short]
    least = {"f16": 2.0**-14, "f64": 2.0**-1022}.get(dtype.short, 2.0**-126)
    top = {"f16": 65504.0, "bf16": 3.3895e38, "f32": 3.4028e38, "f64": 1.79e308}[dtype.short]
    positive = [0.0, tiny, 3 * tiny, least, 0.5, 1.0, 1.5, 2.5, 3.0, 127.5, 1e4, top, np.inf]
    with np.errstate(all="ignore"):
        return np.array([*positive, *(-x for x in positive), np.nan]).astype(dtype.numpy)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats(dtype: Dtype) -> None:
    """NaN, infinities, signed zeros, subnormals, and roundings of half precision."""
    binary: list[type[Primitive]] = [
        ew.Add, ew.Sub, ew.Mul, ew.Div, ew.Remainder, ew.Maximum, ew.Minimum, ew.Eq, ew.Ne, ew.Lt, ew.Le,
        ew.Gt, ew.Ge,
    ]  # fmt: skip
    steps: list[tuple[Primitive, Sequence[int]]] = [(cls(), (0, 1)) for cls in binary]
    unary = (ew.Neg, ew.Abs, ew.Sign, ew.Square, ew.Floor, ew.Ceil, ew.Round, ew.Trunc, ew.Sqrt, ew.Rsqrt)
    steps += [(cls(), (0,)) for cls in unary]
    steps += [(cls((0,), False), (0,)) for cls in (rd.ReduceMax, rd.ReduceMin)]
    _run_all(
        _pairs(float_edges(dtype)), [*steps, (rd.Argmax(0, False), (0,)), (rd.Argmin(0, False), (0,))], dtype
    )


@pytest.mark.parametrize("dtype", [d for d in dtypes.ALL if d.kind != "c"], ids=str)
def test_conversions(dtype: Dtype) -> None:
    """Saturation of floats to integers, NaN to 0, wrapping of integers, one rounding to narrower floats."""
    if dtype.kind == "f":
        powers = [2.0**k for k in (7, 8, 15, 16, 31, 32, 63, 64)]
        near = [p + d for p in powers for d in (-1, -0.5, 0, 0.5, 1)]
        ties = [
            2049.0,
            2051.0,
            65519.0,
            65520.0,
            1 + 2.0**-8,
            1 + 3 * 2.0**-8,
            1 + 2.0**-11,
            2.0**-25,
            3 * 2.0**-25,
        ]
        with np.errstate(all="ignore"):
            more = np.array([s * x for x in near + ties for s in (1, -1)]).astype(dtype.numpy)
        values = np.concatenate([float_edges(dtype), more])
    elif dtype.kind == "b":
        values = np.array([False, True])
    else:
        info = np.iinfo(dtype.numpy)
        some = [
            0,
            1,
            127,
            128,
            255,
            256,
            2049,
            65535,
            65536,
            2**24 + 1,
            2**31,
            2**53 + 1,
            2**62 + 1,
            info.min,
            info.max,
        ]
        values = np.array([n for k in some for n in (k, -k) if info.min <= n <= info.max], dtype.numpy)
    steps = [(ew.ConvertElementType(d), (0,)) for d in dtypes.ALL if d.kind != "c"]
    _run_all([values], steps, dtype)


# -- hostile graphs ----------------------------------------------------------------------------------------


def forged(
    inputs: Sequence[Aval],
    steps: Sequence[tuple[Primitive, Sequence[Operand], Aval]],
    symbols: Sequence[Dim] = (B,),
    guards: Sequence[Guard] = (),
) -> Graph:
    """A graph as a file may claim it, without inference."""
    first = len(inputs)
    nodes = tuple(Node(p, tuple(o), (first + i,)) for i, (p, o, _) in enumerate(steps))
    return Graph("f", tuple(inputs), (), nodes, (first + len(steps) - 1,), tuple(symbols), tuple(guards))


def imported(graph: Graph) -> Callable[..., tuple[mx.array, ...]]:
    """The graph through a file."""
    leaves = Tree("tuple", (Tree("tuple", (Tree("leaf"),) * len(graph.inputs)), Tree("dict")))
    encoder = Encoder()
    encoder.functions.append(Function("f", (Trace(graph, leaves, Tree("leaf")),)))
    file = io.BytesIO()
    container.write(file, encoder.sections("test"), encoder.blobs)
    return mx.import_function(io.BytesIO(file.getvalue()))


ROW = Aval((B,), F32)
OUTSIDE: dict[str, tuple[Sequence[Aval], Primitive]] = {
    "slice beyond": ([ROW], sh.Slice((0,), (100,), (1,))),
    "slice from before": ([ROW], sh.Slice((B - 5,), (B,), (1,))),
    "slice backwards from beyond": ([ROW], sh.Slice((7,), (-1,), (-1,))),
    "slice backwards of nothing": ([Aval((0,), F32)], sh.Slice((0,), (-1,), (-1,))),
    "slice stop beyond": ([ROW], sh.Slice((0,), (2 * B,), (1,))),
    "update beyond": ([ROW, Aval((3,), F32)], sh.SliceUpdate((0,), (1,))),
    "update before": ([ROW, ROW], sh.SliceUpdate((B - 9,), (-1,))),
    "window too wide": ([ROW, Aval((1,), I32)], ix.DynamicSlice((0,), (8,))),
    "window of another axis": ([Aval((4, B), F32), Aval((1,), I32)], ix.DynamicSlice((0,), (2, 8))),
    "negative window": ([ROW, Aval((1,), I32)], ix.DynamicSlice((0,), (B - 5,))),
    "update window": ([ROW, Aval((8,), F32), Aval((1,), I32)], ix.DynamicUpdate((0,))),
    "negative pad": ([ROW, Aval((), F32)], sh.Pad((B - 5,), (9,))),
    "negative iota": ([ROW], sh.Iota((B - 5,), 0, F32)),
    "negative broadcast": ([Aval((), F32), ROW], sh.BroadcastTo((B - 5, B - 5))),
    "broadcast by hope": ([ROW], sh.BroadcastTo((7,))),
    "reshape by hope": ([ROW], sh.Reshape((7,))),
    "reshape of negatives": ([Aval((6,), F32)], sh.Reshape((-2, -3))),
    "reshape of negative dims": ([Aval((4,), F32)], sh.Reshape((-2, -2))),
    "scatter of other updates": ([ROW, Aval((C,), F32), Aval((B,), I32)], ix.Scatter("set", (0,), 0)),
    "sum over by hope": ([ROW, Aval((C,), F32)], ct.DotGeneral(((0,), (0,)))),
    "joined by hope": ([Aval((2, B), F32), Aval((2, C), F32)], sh.Concatenate(0)),
    "added by hope": ([ROW, Aval((C,), F32)], ew.Add()),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_files_cannot_ask_for_what_may_lie_outside(name: str) -> None:
    inputs, primitive = OUTSIDE[name]
    operands = () if isinstance(primitive, sh.Iota) else range(len(inputs))
    if isinstance(primitive, sh.BroadcastTo):
        operands = (0,)
    graph = forged(inputs, [(primitive, tuple(operands), ROW)], (B, C))
    with pytest.raises(GraphError):
        verify(graph)
    with pytest.raises((FormatError, ValueError)):
        imported(graph)
    with pytest.raises(ValueError):  # the second wall: lowering infers again
        executable(graph)
    # the samples of a trace that happens to run are no permission
    with dims.DimScope({"B": 200, "C": 200}) as scope, pytest.raises(GraphError):
        verify(graph)
    assert not scope.events


def test_guards_of_a_file_are_checked_before_it_runs() -> None:
    graph = forged([ROW], [(sh.Slice((0,), (100,), (1,)), (0,), ROW)], guards=[Guard("gt", B, 99)])
    function = imported(graph)
    assert function(mx.ones((100,)))[0].shape == (100,)
    with pytest.raises(ValueError, match="B > 99"):
        function(mx.ones((99,)))
    made = executable(graph)
    with pytest.raises(ValueError, match="B > 99"):
        native(made, [np.zeros(99, np.float32)])


def test_extents_that_are_one_by_a_guard() -> None:
    """Such operands are broadcast: code that walked along them would read behind their one element."""
    one, many = Aval((B,), F32), Aval((C,), F32)
    guards = [Guard("eq", B, 1)]
    sizes = {"B": 1, "C": 5}, {"B": 1, "C": 40}
    check(graph_of([one, many], [(ew.Mul(), (1, 0)), (ew.Add(), (2, 0))], guards=guards), *sizes)
    pick = [
        (ew.Mul(), (1, Literal(0, I32))),
        (ew.Mul(), (2, Literal(0, I32))),
        (ix.Gather((0, 1), 0), (0, 3, 4)),
    ]
    inputs = [Aval((3, C), F32), Aval((B,), I32), Aval((C,), I32)]
    check(graph_of(inputs, pick, guards=guards), *sizes)
    put = [*pick[:2], (ix.Scatter("add", (0, 1), 0), (0, 5, 3, 4))]
    put.insert(2, (ew.ConvertElementType(F32), (2,)))
    check(graph_of(inputs, put, guards=guards), *sizes)


def test_sizes_beyond_memory_are_errors() -> None:
    huge = 1 << 40
    total = (rd.ReduceSum((0,), False), (0,))
    for shape in ((huge, huge, B), (huge, huge), (B**5, 7), (0, huge, huge), (B**3, B**3)):
        wide = [total, (sh.BroadcastTo(shape), (1,))]
        for steps in (wide, [*wide, (rd.ReduceSum((0, 1), False), (2,))]):
            with pytest.raises(MemoryError):
                native(executable(graph_of([ROW], steps)), [np.zeros(1 << 14, np.float32)])


def test_an_overflow_inside_an_extent_is_an_error() -> None:
    # as integers of 64 bits B**5 is negative here: the slice would begin before its operand
    start = dims.minimum(B**5, B)
    graph = graph_of([ROW], [(sh.Slice((start - dims.minimum(start, 1),), (B,), (1,)), (0,))])
    made = executable(graph)
    assert native(made, [np.arange(3, dtype=np.float32)])[0].tolist() == [2.0]
    with pytest.raises(MemoryError):
        native(made, [np.zeros(1 << 13, np.float32)])


def test_divisors_of_extents_are_positive() -> None:
    extent = dims.maximum(0, 4 - 10 // (B - 5))
    graph = graph_of([ROW], [(sh.Iota((extent,), 0, I32), ())])
    made = executable(graph)
    assert native(made, [np.zeros(10, np.float32)])[0].tolist() == [0, 1]
    for size in (3, 5):
        with pytest.raises(ValueError, match="divisor"):
            native(made, [np.zeros(size, np.float32)])


def test_host_results_of_another_shape_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(composed, (ew.Tan, "c"))
    graph = graph_of([Aval((B,), dtypes.complex64)], [(ew.Tan(), (0,))])
    made = executable(graph)
    assert made.program.hosts
    monkeypatch.setattr(ew.Tan, "evaluate", lambda self, x: np.zeros(1, np.complex64))
    with pytest.raises(ValueError, match="expected complex64"):
        native(made, [np.zeros(5, np.complex64)])


# -- guard pages -------------------------------------------------------------------------------------------


class GuardedMemory:
    """Arrays that end where a page begins that no one may touch, or begin where one ends."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self.at_end = True

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        count = int(np.prod(shape, dtype=np.int64))
        nbytes, page = count * dtype.itemsize, mmap.PAGESIZE
        room = -(-max(nbytes, 1) // page) * page
        memory = mmap.mmap(-1, room + 2 * page)
        whole = np.frombuffer(memory, np.uint8)
        start = whole.ctypes.data
        for wall in (start, start + page + room):
            assert not self.libc.mprotect(wall, page, 0)  # PROT_NONE
        # the workspace is the one memory that must be aligned to 64 bytes
        step = 64 if dtype == np.uint8 else 1
        offset = page + (room - nbytes) // step * step
        self.at_end = not self.at_end
        first = offset if self.at_end else page
        return whole[first : first + nbytes].view(dtype).reshape(shape)

    def copy(self, x: np.ndarray) -> np.ndarray:
        out = self.empty(x.shape, x.dtype)
        out[...] = x
        return out


def guarded_run(first: int, count: int) -> None:
    """Compare graphs whose memory is walled in: an access outside kills the process."""
    memory = GuardedMemory()
    executable_module.pool = memory  # type: ignore[assignment]
    for seed in range(first, first + count):
        case = random_case(seed, _depth(seed))
        graph = case.graph
        held = tuple(Constant(memory.copy(c.data), c.aval) for c in graph.constants)
        walled = Graph(graph.name, graph.inputs, held, graph.nodes, graph.outputs, graph.dims, graph.guards)
        print(seed, end=" ", flush=True)
        wrong = compare(Case(walled, case.sizes, *_rest(case)), memory.copy)
        assert not wrong, f"seed {seed}: {wrong}\n{graph}"


def _rest(case: Case) -> tuple[bool, bool, int]:
    return case.exact, case.signed_zeros, case.seed


def _depth(seed: int) -> int:
    return DEPTHS[0] + seed % (DEPTHS[1] - 6 - DEPTHS[0])


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_no_access_outside_of_buffers() -> None:
    command = [sys.executable, __file__, "500", "60", "--guarded"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parent.parent
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-200:]}\n{done.stderr[-2000:]}"


def test_guard_pages_kill() -> None:
    """The test above can fail: a write behind the end is fatal."""
    code = (
        "import numpy as np, test_fuzz_native as t; m = t.GuardedMemory(); m.at_end = False; "
        "x = m.empty((3,), np.dtype('i4')); t.ctypes.memset(x.ctypes.data, 0, 13)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True,
                          env={"PYTHONPATH": str(Path(__file__).parent.parent)})  # fmt: skip
    assert done.returncode < 0, done.stderr[-500:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--guarded", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.guarded:
        guarded_run(options.first, options.count)
        return
    for seed in range(options.first, options.first + options.count):
        wrong = compare(random_case(seed, _depth(seed)))
        if wrong:
            print(f"seed {seed}: {wrong}")


if __name__ == "__main__":
    main()
