"""Products of matrices: every nest, layout, dtype and edge against float64; panels of constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ingot as mx
from ingot.lowering import loop_verify
from ingot.lowering.kernels import dot
from ingot.lowering.llvm.codegen import compile_kernels
from ingot.lowering.llvm.target import TARGETS, Target, current, host
from ingot.lowering.loop_text import parse_kernel, print_kernel
from ingot.lowering.pipeline import lower
from ingot.lowering.program import Program
from ingot.runtime.executable import Executable
from ingot.tracer import dtypes
from ingot.tracer.array import leaf
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.graph import Graph
from ingot.tracer.record import replace
from ingot.tracer.trace import trace

HERE = [t for t in TARGETS.values() if t.is_x86 and t.bits <= host().bits] if host().is_x86 else [current()]
_random = np.random.default_rng(11)


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return _random.normal(size=shape).astype(dtype)


def traced(f: Callable[..., Any], *avals: Aval) -> Graph:
    return trace(lambda *xs: [f(*xs)], list(avals)).graph


def avals(*arrays: np.ndarray) -> list[Aval]:
    return [Aval(x.shape, dtypes.from_numpy(x.dtype)) for x in arrays]


def run(graph: Graph, *arrays: np.ndarray, on: Target | None = None) -> tuple[Executable, np.ndarray]:
    """The result of a graph, whose kernels hold every invariant and survive printing."""
    on = on or current()
    program = lower(graph, on)
    for code in program.kernels:
        kernel = code.kernel()
        loop_verify.verify(kernel)
        assert parse_kernel(print_kernel(kernel)) == kernel
    made = Executable(program, [c.data for c in graph.constants], on)
    return made, made([leaf(x) for x in arrays])[0].view


def check(f: Callable[..., Any], *arrays: np.ndarray, on: Target | None = None, k: int = 0) -> Executable:
    """`f` of the arrays as `f` of NumPy computes it in float64; `k` products in a sum."""
    made, got = run(traced(f, *avals(*arrays)), *arrays, on=on)
    want = f(*(x.astype(np.float64) for x in arrays))
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=4e-6 * (k + 4) ** 0.5)
    return made


def T(x: Any) -> Any:  # noqa: N802
    return x.swapaxes(-1, -2)


def kernels(made: Executable | Program) -> list[str]:
    program = made.program if isinstance(made, Executable) else made
    return [program.kernels[s.kernel].name for s in program.steps if s.kernel is not None]


@pytest.fixture(params=["gemm", "chosen"])
def nest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The packed nest wherever it is defined, or the one that is chosen."""
    if request.param == "gemm":
        monkeypatch.setattr(dot, "suits_panels", lambda plan, target, constant: plan.is_matrix_product)
    return str(request.param)


SIZES = [(1, 1, 1), (15, 16, 17), (17, 15, 16), (16, 17, 15), (2, 31, 129), (7, 3, 65), (61, 67, 71),
         (128, 1, 33), (1, 257, 130), (130, 600, 1), (6, 513, 64), (97, 530, 70)]  # fmt: skip


@pytest.mark.parametrize("sides", ["nn", "nt", "tn", "tt"])
def test_sizes_and_layouts(nest: str, sides: str) -> None:
    for m, k, n in SIZES:
        a = normal(k, m) if sides[0] == "t" else normal(m, k)
        b = normal(n, k) if sides[1] == "t" else normal(k, n)
        check(lambda x, y: (T(x) if sides[0] == "t" else x) @ (T(y) if sides[1] == "t" else y), a, b, k=k)


@pytest.mark.parametrize("on", HERE, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_targets(on: Target, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every width of vectors, in each nest, with operands that lie either way."""
    for chosen in (True, False):
        monkeypatch.setattr(dot, "suits_panels", lambda plan, target, constant: chosen)  # noqa: B023
        for fa in (lambda x: x, T):
            for fb in (lambda x: x, T):
                a, b = fa(normal(19, 70, dtype=dtype)), fb(normal(70, 35, dtype=dtype))
                a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
                check(lambda x, y: fa(x) @ fb(y) + 1, a, b, on=on, k=70)  # noqa: B023


@pytest.mark.parametrize("name", TARGETS)
def test_images_for_every_target(name: str) -> None:
    """Code that needs no library and no absolute address."""
    for dtype in (mx.float32, mx.float64, mx.bfloat16, mx.float16, mx.int8, mx.int32):
        for fb in (lambda y: y, T):
            graph = traced(lambda x, y: T(x) @ fb(y) + 1, Aval((600, 130), dtype), Aval((600, 600), dtype))  # noqa: B023
            program = lower(graph, TARGETS[name])
            for code in program.kernels:
                assert compile_kernels([code.kernel()], TARGETS[name]).entries


def test_empty_extents(nest: str) -> None:
    for m, k, n in [(0, 5, 7), (5, 0, 40), (5, 7, 0), (0, 0, 0), (64, 0, 64)]:
        check(lambda x, y: x @ y + 2, normal(m, k), normal(k, n))


def test_blocks_of_k_and_rows(nest: str) -> None:
    """More than one block along each axis."""
    check(lambda x, y: x @ y, normal(530, 1100), normal(1100, 130), k=1100)
    check(lambda x, y: T(x) @ T(y), normal(1100, 530), normal(130, 1100), k=1100)


def test_long_and_thin() -> None:
    check(lambda x, y: x @ y, normal(1000003, 3), normal(3, 3), k=3)
    check(lambda x, y: T(x) @ y, normal(1000003, 3), normal(1000003, 3), k=1000003)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_rows_times_many_columns(rows: int) -> None:
    check(lambda x, y: x @ y, normal(rows, 700), normal(700, 1100), k=700)
    check(lambda x, y: x @ T(y), normal(rows, 700), normal(1100, 700), k=700)
    check(lambda x, y: T(x) @ y, normal(700, rows), normal(700, 1100), k=700)
    check(lambda x, y: x @ y, normal(1100, 700), normal(700, rows), k=700)
    check(lambda x, y: T(x) @ y, normal(700, 1100), normal(700, rows), k=700)


def test_batches_and_strides(nest: str) -> None:
    """Batch axes in any place, operands that are slices, reversed or broadcast."""
    check(lambda x, y: x @ y, normal(5, 33, 20), normal(5, 20, 40), k=20)
    check(lambda x, y: x @ y, normal(2, 3, 33, 20), normal(3, 20, 40), k=20)
    x, y = normal(33, 5, 70), normal(40, 5, 70)
    check(lambda x, y: x.transpose(1, 0, 2) @ y.transpose(1, 2, 0), x, y, k=70)
    check(lambda x, y: x[::2, 3:] @ y[::-1], normal(60, 73), normal(70, 40), k=70)
    check(lambda x, y: x[:, ::2] @ y[:, ::3], normal(60, 140), normal(70, 120), k=70)


def test_general_contractions(nest: str) -> None:
    """Several free, batch and contracted axes, merged or not."""
    for a, b, axes in [
        ((20, 3, 30), (3, 30, 50), ([1, 2], [0, 1])),
        ((3, 20, 30), (30, 50, 3), ([0, 2], [2, 0])),
        ((20, 30, 4), (30, 5, 17), ([1], [0])),
        ((30, 20, 4), (5, 17, 30), ([0], [2])),
    ]:
        x, y = normal(*a), normal(*b)
        made, got = run(traced(lambda x, y: mx.tensordot(x, y, axes), *avals(x, y)), x, y)  # noqa: B023
        np.testing.assert_allclose(got, np.tensordot(x, y, axes), rtol=1e-4, atol=1e-4)


def gelu(x: Any) -> Any:
    return 0.5 * x * (1 + mx.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def test_epilogue_is_in_the_kernel(nest: str) -> None:
    """Bias, activation, residual, casts, broadcasts along rows and columns: one kernel."""
    x, w, bias, scale, rest = normal(70, 90), normal(90, 130), normal(130), normal(70, 1), normal(70, 130)
    arrays = x, w, bias, scale, rest
    graph = traced(lambda x, w, b, s, r: (gelu(x @ w + b) * s + r).astype(mx.float16), *avals(*arrays))
    made, got = run(graph, *arrays)
    assert len(kernels(made)) == 1
    z = x.astype(np.float64) @ w + bias
    want = 0.5 * z * (1 + np.tanh(0.7978845608 * (z + 0.044715 * z**3))) * scale + rest
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=2e-3, atol=2e-3)


def test_operands_are_evaluated_as_they_are_copied() -> None:
    """Casts and maps of an operand that nobody else reads take no pass over memory of their own."""
    x, w, scale = normal(70, 90), _random.integers(-9, 9, (90, 70)).astype(np.int8), normal(90, 1)
    graph = traced(lambda x, w, s: mx.tanh(x + 1) @ (w.astype(mx.float32) * s), *avals(x, w, scale))
    made, got = run(graph, x, w, scale)
    assert kernels(made)[0] == "pack_rows" and len(kernels(made)) == 2
    want = np.tanh(x.astype(np.float64) + 1) @ (w * scale.astype(np.float64))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    narrow = _random.integers(-128, 128, (2, 70, 70)).astype(np.int8)
    graph = traced(lambda x, y: x.astype(mx.int32) @ y.astype(mx.int32), *avals(*narrow))
    made, got = run(graph, *narrow)
    assert len(kernels(made)) == 2
    np.testing.assert_array_equal(got, narrow[0].astype(np.int32) @ narrow[1].astype(np.int32))
    # what follows a product stays with it
    graph = traced(lambda x, w, v: mx.tanh(x @ w) @ v, *avals(x, normal(90, 70), normal(70, 70)))
    assert kernels(lower(graph, current())) == ["dot_general_tanh", "dot_general"]
    # another reader: the value is stored, and read by both
    graph = traced(lambda x, y: (mx.tanh(x) @ y) * mx.tanh(x).sum(), *avals(x, normal(90, 70)))
    assert "pack_rows" not in kernels(lower(graph, current()))


def test_nan_and_infinity_propagate(nest: str) -> None:
    x, y = normal(40, 70), normal(70, 50)
    x[3, 5], x[7, 9], y[20, 30] = np.nan, np.inf, -np.inf
    made, got = run(traced(lambda x, y: x @ y, *avals(x, y)), x, y)
    with np.errstate(invalid="ignore"):
        want = x.astype(np.float64) @ y.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    assert np.isnan(got[3]).all() and np.isinf(got[7]).sum() >= 49 and np.isinf(got[:, 30]).sum() >= 38


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_integers_wrap(nest: str, dtype: Any) -> None:
    info = np.iinfo(dtype)
    for m, k, n in [(9, 33, 40), (70, 90, 70)]:
        x = _random.integers(info.min, info.max, (m, k), dtype, endpoint=True)
        y = _random.integers(info.min, info.max, (k, n), dtype, endpoint=True)
        for fa, fb in ((lambda x: x, lambda x: x), (T, T)):
            a, b = np.ascontiguousarray(fa(x)), np.ascontiguousarray(fb(y))
            made, got = run(traced(lambda x, y: fa(x) @ fb(y), *avals(a, b)), a, b)  # noqa: B023
            np.testing.assert_array_equal(got, x @ y)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("sides", ["nn", "nt", "tn", "tt"])
def test_half_precision(nest: str, dtype: Any, sides: str) -> None:
    """Products and sums in float32, rounded once."""
    for m, k, n in [(5, 33, 40), (70, 601, 70)]:
        x, y = normal(m, k, dtype=dtype), normal(k, n, dtype=dtype)
        fa, fb = (T if s == "t" else lambda x: x for s in sides)
        a, b = np.ascontiguousarray(fa(x)), np.ascontiguousarray(fb(y))
        made, got = run(traced(lambda x, y: fa(x) @ fb(y), *avals(a, b)), a, b)  # noqa: B023
        assert got.dtype == dtype
        want = x.astype(np.float64) @ y.astype(np.float64)
        eps = float(ml_dtypes.finfo(dtype).eps)
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=eps, atol=1e-4 * k**0.5)


@pytest.mark.parametrize("on", HERE, ids=lambda t: t.name)
def test_products_of_pairs(on: Target) -> None:
    """Narrow integers are multiplied two at a time on x86, whatever lies beyond an odd end of k."""
    for sides in ("nn", "nt", "tn", "tt"):
        fa, fb = (T if s == "t" else lambda x: x for s in sides)
        for k in (64, 129):
            x = _random.integers(-128, 128, (70, k)).astype(np.int8)
            y = _random.integers(-128, 128, (k, 70)).astype(np.int8)
            a, b = np.ascontiguousarray(fa(x)), np.ascontiguousarray(fb(y))
            graph = traced(lambda x, y: fa(x) @ fb(y), *avals(a, b))  # noqa: B023
            made, got = run(graph, a, b, on=on)
            assert any("dot_i16" in code.text for code in made.program.kernels)
            np.testing.assert_array_equal(got, x @ y)


def test_bfloat16_by_its_instruction() -> None:
    shapes = Aval((70, 130), mx.bfloat16), Aval((130, 70), mx.bfloat16)
    graph = traced(lambda x, y: x @ y, *shapes)
    with_it = replace(TARGETS["x86-64-v4"], features="-prefer-256-bit,+avx512bf16")
    for target, wanted in ((with_it, True), (TARGETS["x86-64-v4"], False), (TARGETS["aarch64"], False)):
        program = lower(graph, target)
        assert any("dot_bf16" in code.text for code in program.kernels) == wanted
        assert compile_kernels([code.kernel() for code in program.kernels], target).entries


# -- one kernel for all sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", ["nn", "nt", "tn", "tt"])
def test_symbolic_extents(sides: str) -> None:
    m, k, n = Dim("M"), Dim("K"), Dim("N")
    fa, fb = (T if s == "t" else lambda x: x for s in sides)
    shapes = ((k, m) if sides[0] == "t" else (m, k)), ((n, k) if sides[1] == "t" else (k, n))
    graph = traced(lambda x, y: fa(x) @ fb(y) + 1, *(Aval(s, mx.float32) for s in shapes))
    program = lower(graph, current())
    made = Executable(program, [], current())
    for sizes in [*SIZES, (0, 4, 4), (4, 0, 4), (4, 4, 0), (300, 520, 200)]:
        x, y = normal(*sizes[:2]), normal(*sizes[1:])
        a, b = np.ascontiguousarray(fa(x)), np.ascontiguousarray(fb(y))
        (got,) = made([leaf(a), leaf(b)])
        want = x.astype(np.float64) @ y + 1
        np.testing.assert_allclose(got.view, want, rtol=1e-5, atol=4e-6 * (sizes[1] + 4) ** 0.5)


@pytest.mark.parametrize("n", [10, 64, 200])
def test_symbolic_batch_times_constant(n: int) -> None:
    """The usual layer: any number of rows times weights."""
    batch = Dim("B")
    w, bias = normal(90, n), normal(n)
    graph = traced(lambda x: mx.maximum(x @ mx.array(w) + mx.array(bias), 0), Aval((batch, 90), mx.float32))
    made, _ = run(graph, normal(1, 90))
    assert len(kernels(made)) == 1 and len(made.program.once) == 1
    for rows in (0, 1, 2, 5, 6, 17, 300):
        x = normal(rows, 90)
        (got,) = made([leaf(x)])
        want = np.maximum(x.astype(np.float64) @ w + bias, 0)
        np.testing.assert_allclose(got.view, want, rtol=1e-5, atol=2e-5)


# -- constants -----------------------------------------------------------------------------------------------


def test_constants_are_packed_once() -> None:
    """Weights become panels when the program is loaded, and are let go unless somebody else reads them."""
    w, x = normal(70, 100), normal(20, 70)
    weights = mx.array(w)
    graph = traced(lambda x: x @ weights, *avals(x))
    made, got = run(graph, x)
    np.testing.assert_allclose(got, x @ w, rtol=1e-4, atol=1e-4)
    program = made.program
    assert [program.kernels[s.kernel].name for s in program.once] == ["pack_columns"]  # type: ignore[index]
    assert made.constants[0] is None and program.needed_constants == frozenset()
    assert Program.from_data(program.to_data()) == program
    other = traced(lambda x: (x @ weights) + weights.sum(), *avals(x))
    made, got = run(other, x)
    np.testing.assert_allclose(got, x @ w + w.sum(), rtol=1e-4, atol=1e-3)
    assert made.program.once and made.constants[0] is not None


def test_equal_panels_are_made_once() -> None:
    w, x = normal(70, 70), normal(20, 70)
    weights = mx.array(w)
    graph = traced(lambda x: mx.tanh(mx.tanh(x @ weights) @ weights), *avals(x))
    made, got = run(graph, x)
    assert len(made.program.once) == 1 and len(made.program.kept) == 1
    np.testing.assert_allclose(got, np.tanh(np.tanh(x @ w) @ w), rtol=1e-4, atol=1e-4)


def test_constants_inside_loops_are_packed_once() -> None:
    w, x = normal(70, 70) / 9, normal(20, 70)
    weights = mx.array(w)

    def f(x: mx.array) -> mx.array:
        start = (mx.array(0), x)
        return mx.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, mx.tanh(s[1] @ weights)), start)[1]

    made, got = run(traced(f, *avals(x)), x)
    assert len(made.program.once) == 1
    want = x
    for _ in range(3):
        want = np.tanh(want @ w)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


# -- pieces --------------------------------------------------------------------------------------------------


def pieces(f: Callable[..., Any], *shapes: Sequence[int]) -> int:
    program = lower(traced(f, *(Aval(tuple(s), mx.float32) for s in shapes)), current())
    parallel = program.kernels[program.steps[-1].kernel].parallel  # type: ignore[index]
    assert isinstance(parallel, int)
    return parallel


def test_enough_pieces_for_many_threads() -> None:
    def product(x: mx.array, y: mx.array) -> mx.array:
        return x @ y

    assert pieces(product, (1024, 1024), (1024, 1024)) >= 32
    assert pieces(product, (512, 768), (768, 3072)) >= 32
    assert pieces(product, (256, 256), (256, 256)) >= 8
    assert pieces(product, (64, 64, 64), (64, 64, 64)) == 64
    assert pieces(product, (4096, 4096), (4096, 1)) >= 16


def test_parts_of_a_long_sum() -> None:
    """A row times a large matrix: parts of k, as many as the shape asks for, added up by the kernel that does
    what follows."""
    x, w, bias = normal(2, 2050), normal(2050, 1030), normal(1030)
    made = check(lambda x, w, b: x @ w + b, x, w, bias, k=2050)
    assert kernels(made) == ["dot_parts", "dot_general_add"]
    parts = made.program.kernels[made.program.steps[0].kernel]  # type: ignore[index]
    assert isinstance(parts.parallel, int) and parts.parallel >= 8
    check(lambda x, w, b: x @ w + b, normal(2, 1, 2050), normal(2, 2050, 1030), bias, k=2050)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_same_bits_with_any_number_of_threads(dtype: mx.Dtype) -> None:
    """Panels, rows laid out before, parts of a sum, panels of constants: pieces depend on shapes alone."""
    weights = mx.array(normal(600, 300)).astype(dtype)
    cases = [
        (lambda x, y: x @ y, (600, 700), (700, 600)),
        (lambda x, y: x.T @ y.T, (700, 300), (300, 700)),
        (lambda x, y: x @ y, (2, 1500), (1500, 1100)),
        (lambda x, y: mx.tanh(x @ weights + y), (130, 600), (1, 300)),
    ]
    before = mx.get_num_threads()
    try:
        for function, *shapes in cases:
            arrays = [mx.array(normal(*shape)).astype(dtype) for shape in shapes]
            f = mx.compile(function)
            found = []
            for n in (1, 2, 3, 8):
                mx.set_num_threads(n)
                found.append(np.array(f(*arrays).view(mx.uint8)).tobytes())
            assert found.count(found[0]) == len(found)
    finally:
        mx.set_num_threads(before)
