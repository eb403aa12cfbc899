"""Loop IR kernels, compiled and run on NumPy arrays, against NumPy."""

from __future__ import annotations

import ctypes
import itertools
import warnings

import ml_dtypes
import numpy as np
import pytest

from ingot.lowering import abi
from ingot.lowering import loop as ir
from ingot.lowering.llvm import codegen, target
from ingot.lowering.llvm.elf import LinkError
from ingot.lowering.llvm.emit import emit_module
from ingot.lowering.loop import Convert, Kernel, Select, const, index, lane_mask, ramp, select, vector
from ingot.lowering.loop_builder import Builder
from ingot.lowering.loop_text import parse_kernel, print_kernel
from ingot.lowering.loop_verify import verify
from ingot.runtime.kernel_call import call_kernel
from ingot.runtime.loader import load

NUMPY = {
    "bool": np.bool_,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f32": np.float32,
    "f64": np.float64,
    "u8": np.uint8,
    "u16": np.uint16,
    "u32": np.uint32,
    "u64": np.uint64,
    "i8": np.int8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
}
INTS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
HOST = target.host()


def targets_here() -> list[target.Target]:
    """Those of the named targets whose code runs on this machine."""
    if not HOST.is_x86:
        return [HOST]
    return [t for t in target.TARGETS.values() if t.is_x86 and t.bits <= HOST.bits]


def run(kernel: Kernel, *buffers: np.ndarray, params=(), on: target.Target = HOST, **options):
    verify(kernel)
    assert parse_kernel(print_kernel(kernel)) == kernel
    loaded = load(codegen.compile_kernels([kernel], on))
    try:
        return call_kernel(loaded.address(kernel.name), buffers, params, **options)
    finally:
        loaded.unload()


def map_kernel(make, dtypes: list[str], out: str, lanes: int) -> Kernel:
    """`out[i] = make(in0[i], in1[i], ...)`, vectors with a masked tail."""
    b = Builder("map")
    xs = [b.buffer(f"x{i}", d) for i, d in enumerate(dtypes)]
    y, n = b.buffer("y", out, "write"), b.param("n")
    with b.loop("i", 0, n, lanes) as loop:
        mask = b.let(lane_mask(loop.index, n, lanes)) if lanes > 1 else None
        b.store(y, loop.index, make(*[b.let(b.load(x, loop.index, lanes, mask)) for x in xs]), mask)
    return b.kernel()


def apply(make, arrays: list[np.ndarray], dtypes: list[str], out: str, lanes: int, on: target.Target = HOST):
    guard = 3
    y = np.full(arrays[0].size + guard, 77).astype(NUMPY[out])
    code, _ = run(map_kernel(make, dtypes, out, lanes), *arrays, y, params=[arrays[0].size], on=on)
    assert code == 0
    np.testing.assert_array_equal(y[-guard:], np.full(guard, 77).astype(NUMPY[out]))  # the tail stays masked
    return y[:-guard]


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Bitwise, except that all NaN are alike."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    if actual.dtype.kind == "f":
        np.testing.assert_array_equal(
            np.signbit(actual[~np.isnan(actual)]), np.signbit(expected[~np.isnan(expected)])
        )


def floats(dtype: str, seed: int = 0) -> np.ndarray:
    """Random bit patterns and the awkward values."""
    rng = np.random.default_rng(seed)
    t = np.dtype(NUMPY[dtype])
    bits = (
        rng.integers(0, 1 << 8 * t.itemsize, 200, np.uint64, endpoint=False)
        if t.itemsize < 8
        else rng.integers(0, 2**64, 200, np.uint64)
    )
    special = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, 3.5, np.inf, -np.inf, np.nan, 1e5, -1e5, 1e-5, 7.0, 3.0]
    with np.errstate(all="ignore"):
        some = np.array(special).astype(t)
    values = np.concatenate([bits.astype(f"u{t.itemsize}").view(t), some, some[::-1]])
    return values[rng.permutation(values.size)]


def integers(dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    info = np.iinfo(NUMPY[dtype])
    some = np.array([0, 1, 2, 3, 7, info.max, info.min, info.max - 1, 0], NUMPY[dtype])
    rest = rng.integers(info.min, info.max, 90, NUMPY[dtype], endpoint=True)
    small = rng.integers(0 if info.min == 0 else -9, 9, 90).astype(NUMPY[dtype])
    return rng.permutation(np.concatenate([some, some, rest, small]))


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_float_arithmetic_is_bitwise_numpys(on, dtype):
    a, c = floats(dtype, 1), floats(dtype, 2)
    lanes = on.lanes(dtype)
    with np.errstate(all="ignore"):
        for op, f in {
            "add": np.add,
            "sub": np.subtract,
            "mul": np.multiply,
            "div": np.divide,
            "rem": np.fmod,
            "mod": np.remainder,
            "floordiv": np.floor_divide,
        }.items():
            same(
                apply(lambda x, y, op=op: ir.Binary(op, x, y), [a, c], [dtype] * 2, dtype, lanes, on), f(a, c)
            )
        for op, f in {
            "neg": np.negative,
            "abs": np.abs,
            "sqrt": np.sqrt,
            "floor": np.floor,
            "ceil": np.ceil,
            "trunc": np.trunc,
            "round": np.rint,
        }.items():
            same(apply(lambda x, op=op: ir.Unary(op, x), [a], [dtype], dtype, lanes, on), f(a))
        for op, f in {"min": np.minimum, "max": np.maximum}.items():
            got = apply(lambda x, y, op=op: ir.Binary(op, x, y), [a, c], [dtype] * 2, dtype, lanes, on)
            np.testing.assert_array_equal(got, f(a, c))


def test_no_contraction():
    """a * b + c must round twice, whatever the target can do."""
    rng = np.random.default_rng(0)
    a, c, d = (rng.standard_normal(1000).astype(np.float32) for _ in range(3))
    same(apply(lambda x, y, z: x * y + z, [a, c, d], ["f32"] * 3, "f32", HOST.lanes("f32")), a * c + d)


@pytest.mark.parametrize("dtype", ["f32", "i32", "u32", "i8", "u64"])
def test_comparisons(dtype):
    make = floats if dtype == "f32" else integers
    a, c = make(dtype, 1), make(dtype, 2)
    c[::3] = a[::3]
    for op, f in {
        "eq": np.equal,
        "ne": np.not_equal,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
    }.items():
        same(apply(lambda x, y, op=op: ir.Compare(op, x, y), [a, c], [dtype] * 2, "bool", 8), f(a, c))


@pytest.mark.parametrize("dtype", INTS)
def test_integer_arithmetic(dtype):
    a, c = integers(dtype, 1), integers(dtype, 2)
    t = NUMPY[dtype]
    with np.errstate(all="ignore"):
        rest = np.fmod(a, c)
        cases = {
            "add": a + c,
            "sub": a - c,
            "mul": a * c,
            "floordiv": a // c,
            "mod": a % c,
            "rem": rest,
            "and": a & c,
            "or": a | c,
            "xor": a ^ c,
            "min": np.minimum(a, c),
            "max": np.maximum(a, c),
            "shl": a << c,
            "shr": a >> c,
        }
        exact = [
            0 if y == 0 else abs(int(x)) // abs(int(y)) * (-1 if (x < 0) != (y < 0) else 1)
            for x, y in zip(a, c, strict=True)
        ]
        cases["truncdiv"] = np.array([ir.wrap(v, dtype) for v in exact], t)
    for op, expected in cases.items():
        got = apply(lambda x, y, op=op: ir.Binary(op, x, y), [a, c], [dtype] * 2, dtype, 8)
        np.testing.assert_array_equal(got, expected, err_msg=op)
    with np.errstate(all="ignore"):
        unary = {"neg": -a, "abs": np.abs(a), "not": ~a, "popcount": np.bitwise_count(a)}
    for op, expected in unary.items():
        if op != "popcount" or not np.issubdtype(t, np.signedinteger):
            np.testing.assert_array_equal(
                apply(lambda x, op=op: ir.Unary(op, x), [a], [dtype], dtype, 4), expected
            )


@pytest.mark.parametrize("divisor", [1, 3, 8, -5, -1, 0])
def test_division_by_constants(divisor):
    a = integers("i32")
    with np.errstate(all="ignore"):
        for op, f in {"floordiv": np.floor_divide, "mod": np.remainder}.items():
            got = apply(lambda x, op=op: ir.Binary(op, x, const(divisor, x.type)), [a], ["i32"], "i32", 8)
            same(got, f(a, np.int32(divisor)))


def saturated(x: np.ndarray, to: str) -> np.ndarray:
    if to == "bool":
        return x != 0
    info = np.iinfo(NUMPY[to])
    out = np.empty(x.size, NUMPY[to])
    for i, v in enumerate(x.astype(np.float64)):
        out[i] = 0 if np.isnan(v) else info.max if v >= info.max else info.min if v <= info.min else int(v)
    return out


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize(
    "source", ["f16", "bf16", "f32", "f64", "bool", "i8", "u16", "i32", "u32", "i64", "u64"]
)
def test_conversions(on, source):
    x = (
        np.array([True, False] * 20)
        if source == "bool"
        else floats(source)
        if source in ir.FLOATS
        else integers(source)
    )
    for to in ("bool", "u8", "i16", "i32", "u32", "i64", "u64", "f16", "bf16", "f32", "f64"):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ml_dtypes warns of NaN
            if source in ir.FLOATS and to not in ir.FLOATS:
                expected = saturated(x, to)
            elif source == "f64" and to == "bf16":
                continue  # ml_dtypes rounds twice; see the next test
            elif to in ir.NARROW_FLOATS and source in ("i32", "u32", "i64", "u64"):
                expected = x.astype(np.float32).astype(NUMPY[to])
            else:
                expected = x.astype(NUMPY[to])
        got = apply(lambda v, to=to: Convert(v, to), [x], [source], to, 8, on)
        if to in ir.NARROW_FLOATS:
            got, expected = got.astype(np.float32), expected.astype(np.float32)
        np.testing.assert_array_equal(got, expected, err_msg=to)


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
def test_every_half_and_every_rounding_to_it(on):
    halves = np.arange(1 << 16, dtype=np.uint16)
    for short, dtype in (("f16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        x = halves.view(dtype)
        wide = apply(lambda v: Convert(v, "f32"), [x], [short], "f32", 8, on)
        np.testing.assert_array_equal(wide, x.astype(np.float32))
        finite = np.sort(wide[np.isfinite(wide)].astype(np.float64))
        middle = (finite[1:] + finite[:-1]) / 2
        nearby = np.concatenate([middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)])
        single = nearby.astype(np.float32)
        got = apply(lambda v, short=short: Convert(v, short), [single], ["f32"], short, 8, on)
        np.testing.assert_array_equal(got.view(np.uint16), single.astype(dtype).view(np.uint16))
        got = apply(lambda v, short=short: Convert(v, short), [nearby], ["f64"], short, 8, on)
        n = middle.size
        np.testing.assert_array_equal(got[n : 2 * n].astype(np.float64)[1:], finite[1:][1:])  # just above: up
        np.testing.assert_array_equal(
            got[2 * n :].astype(np.float64)[:-1], finite[:-1][:-1]
        )  # just below: down


def test_bool_memory_is_bytes():
    a, c = np.array([True, False, True, True] * 9), np.array([True, True, False, False] * 9)
    same(apply(lambda x, y: x & ~y, [a, c], ["bool"] * 2, "bool", 16), a & ~c)
    same(apply(lambda x, y: x & ~y, [a, c], ["bool"] * 2, "bool", 1), a & ~c)
    same(
        apply(
            lambda x, y: Select(x, Convert(y, "i32"), const(-5, vector("i32", 4))),
            [a, c],
            ["bool"] * 2,
            "i32",
            4,
        ),
        np.where(a, c.astype(np.int32), np.int32(-5)),
    )


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 7, 16, 32])
@pytest.mark.parametrize("op", ["add", "min", "max", "mul"])
def test_row_reduction(lanes, op):
    start = {"add": 0.0, "mul": 1.0, "min": np.inf, "max": -np.inf}[op]
    b = Builder("row")
    x, y = b.buffer("x", "f32"), b.buffer("y", "f32", "write")
    n, m, stride = b.param("n"), b.param("m"), b.param("stride")
    with b.loop("i", 0, n, kind="parallel") as rows:
        with b.loop("j", 0, m, lanes, carry={"acc": const(start, vector("f32", lanes))}) as loop:
            mask = b.let(lane_mask(loop.index, m, lanes))
            value = b.load(x, rows.index * stride + loop.index, lanes, mask, start)
            loop.next(ir.binary(op, loop.carried[0], value))
        b.store(y, rows.index, ir.ReduceLanes(op, loop.results[0]))
    kernel = b.kernel()
    f = {"add": np.sum, "mul": np.prod, "min": np.min, "max": np.max}[op]
    for m_ in (1, 5, 16, 33):
        full = np.random.default_rng(m_).standard_normal((6, 40)).astype(np.float32)
        out = np.zeros(6, np.float32)
        assert run(kernel, full, out, params=[6, m_, 40])[0] == 0
        np.testing.assert_allclose(out, f(full[:, :m_].astype(np.float64), axis=1), rtol=1e-5)
        part = np.full(6, 9, np.float32)
        run(kernel, full, part, params=[6, m_, 40], begin=2, end=4)
        np.testing.assert_array_equal(part, np.where((np.arange(6) >= 2) & (np.arange(6) < 4), out, 9))


@pytest.mark.parametrize(
    "dtype,op",
    [
        ("i32", "add"),
        ("u8", "max"),
        ("i64", "min"),
        ("u16", "xor"),
        ("bool", "and"),
        ("bool", "or"),
        ("i8", "mul"),
    ],
)
def test_exact_lane_reductions(dtype, op):
    b = Builder("lanes")
    x, y = b.buffer("x", dtype), b.buffer("y", dtype, "write")
    b.store(y, 0, ir.ReduceLanes(op, b.load(x, 0, 12)))
    rng = np.random.default_rng(0)
    a = (
        rng.integers(0, 2, 12).astype(bool)
        if dtype == "bool"
        else rng.integers(0, 100, 12).astype(NUMPY[dtype])
    )
    out = np.zeros(1, NUMPY[dtype])
    run(b.kernel(), a, out)
    f = {
        "add": np.add,
        "max": np.maximum,
        "min": np.minimum,
        "xor": np.bitwise_xor,
        "and": np.logical_and,
        "or": np.logical_or,
        "mul": np.multiply,
    }[op]
    assert out[0] == f.reduce(a, dtype=a.dtype)


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
def test_gather_scatter_and_strides(on):
    b = Builder("transpose")
    x, y = b.buffer("x", "f32"), b.buffer("y", "f32", "write")
    n, m = b.param("n"), b.param("m")
    with b.loop("j", 0, m) as columns:
        with b.loop("i", 0, n, 8) as loop:
            mask = b.let(lane_mask(loop.index, n, 8))
            column = b.load(x, ramp(loop.index * m + columns.index, m, 8), mask=mask)
            back = ramp((columns.index + 1) * n - 1 - loop.index, -1, 8)
            b.store(y, back, column, mask)
    a = np.arange(63, dtype=np.float32).reshape(9, 7)
    out = np.zeros((7, 9), np.float32)
    run(b.kernel(), a, out, params=[9, 7], on=on)
    np.testing.assert_array_equal(out, a.T[:, ::-1])


def test_last_lane_wins_in_scatter():
    b = Builder("scatter")
    x, at, y = b.buffer("x", "i32"), b.buffer("at", "i64"), b.buffer("y", "i32", "write")
    b.store(y, Convert(b.load(at, 0, 8), "index"), b.load(x, 0, 8))
    out = np.zeros(4, np.int32)
    run(b.kernel(), np.arange(8, dtype=np.int32), np.array([0, 1, 2, 0, 1, 2, 0, 3]), out)
    np.testing.assert_array_equal(out, [6, 4, 5, 7])


def test_out_of_bounds_index_is_an_error_not_a_read():
    b = Builder("take")
    x, at, y = b.buffer("x", "f32"), b.buffer("at", "i32"), b.buffer("y", "f32", "write")
    n, size = b.param("n"), b.param("size")
    with b.loop("i", 0, n) as loop:
        i = b.let(Convert(b.load(at, loop.index), "index"), "raw")
        i = b.let(select(i < 0, i + size, i), "wrapped")
        with b.when((i < 0) | (i >= size)):
            b.fail(ir.FAIL_INDEX, loop.index, i, size)
        b.store(y, loop.index, b.load(x, i))
    kernel = b.kernel()
    a, out = np.arange(5, dtype=np.float32), np.zeros(3, np.float32)
    assert run(kernel, a, np.array([4, -5, 0], np.int32), out, params=[3, 5]) == (0, (0, 0, 0, 0))
    np.testing.assert_array_equal(out, [4, 0, 0])
    assert run(kernel, a, np.array([1, 5, 0], np.int32), out, params=[3, 5]) == (ir.FAIL_INDEX, (1, 5, 5, 0))
    assert run(kernel, a, np.array([-6, 5, 0], np.int32), out, params=[3, 5])[0] == ir.FAIL_INDEX


def test_while_if_and_carried_scalars():
    b = Builder("collatz")
    x, y, n = b.buffer("x", "i64"), b.buffer("y", "i64", "write"), b.param("n")
    i64 = vector("i64")
    with b.loop("i", 0, n) as loop:
        start = {"v": b.load(x, loop.index), "steps": const(0, i64)}
        with b.repeat(lambda v, _: v > 1, start) as w:
            v, steps = w.carried
            with b.branch((v & 1).eq(0), "next") as br:
                with br.then():
                    br.give(v >> 1)
                with br.orelse():
                    odd = b.let(v * 3, "tripled")
                    br.give(odd + 1)
            w.next(br.results[0], steps + 1)
        b.store(y, loop.index, w.results[1])
    values = np.arange(1, 50)
    out = np.zeros(49, np.int64)
    run(b.kernel(), values, out, params=[49])

    def steps(v: int) -> int:
        return 0 if v == 1 else 1 + steps(v // 2 if v % 2 == 0 else 3 * v + 1)

    np.testing.assert_array_equal(out, [steps(int(v)) for v in values])


@pytest.mark.parametrize("space", ["stack", "workspace", "scratch"])
def test_scratch_memory(space):
    """Reverses rows of 24 through scratch memory."""
    b = Builder("reverse")
    x, y, n = b.buffer("x", "f64"), b.buffer("y", "f64", "write"), b.param("n")
    with b.loop("i", 0, n, kind="parallel") as rows:
        offsets = {"stack": None, "workspace": rows.index * (24 * 8), "scratch": 64}
        tmp = b.alloc("tmp", "f64", 24, space, offsets[space])
        with b.loop("j", 0, 24, 4) as loop:
            b.store(tmp, loop.index, b.load(x, rows.index * 24 + loop.index, 4))
        with b.loop("k", 0, 24) as loop:
            b.store(y, rows.index * 24 + loop.index, b.load(tmp, 23 - loop.index))
    a = np.random.default_rng(0).standard_normal((5, 24))
    out = np.zeros_like(a)
    memory = {"workspace": 5 * 24 * 8} if space == "workspace" else {"scratch": 64 + 24 * 8}
    run(b.kernel(), a, out, params=[5], **memory)
    np.testing.assert_array_equal(out, a[:, ::-1])


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("op", ["dot_bf16", "dot_i16"])
@pytest.mark.parametrize("lanes", [1, 4, 8, 16])
def test_products_of_pairs(op, lanes, on):
    """Against sums in wider numbers; products of bfloat16 are exact in float32."""
    dtype = "f32" if op == "dot_bf16" else "i32"
    b = Builder("pairs")
    names = [b.buffer(n, d) for n, d in (("t", dtype), ("x", "u32"), ("y", "u32"))]
    out = b.buffer("out", dtype, "write")
    b.store(out, 0, ir.Math(op, tuple(b.load(name, 0, lanes) for name in names)))
    rng = np.random.default_rng(lanes)
    if op == "dot_bf16":
        narrow = [rng.normal(size=2 * lanes).astype(ml_dtypes.bfloat16) for _ in range(2)]
        total = rng.normal(size=lanes).astype(np.float32)
    else:
        narrow = [rng.integers(-(1 << 15), 1 << 15, 2 * lanes).astype(np.int16) for _ in range(2)]
        narrow[0][:2] = narrow[1][:2] = -(1 << 15)  # the sum of two products wraps
        total = rng.integers(-(1 << 31), 1 << 31, lanes).astype(np.int32)
    got = np.zeros_like(total)
    assert run(b.kernel(), total, *(x.view(np.uint32) for x in narrow), got, on=on)[0] == 0
    if op == "dot_bf16":
        products = narrow[0].astype(np.float64) * narrow[1].astype(np.float64)
        np.testing.assert_allclose(got, total + products.reshape(-1, 2).sum(1), rtol=1e-6, atol=1e-6)
    else:
        products = narrow[0].astype(np.int64) * narrow[1]
        np.testing.assert_array_equal(got, (total + products.reshape(-1, 2).sum(1)).astype(np.int32))


def gemm_tile(rows: int, vectors: int, lanes: int) -> Kernel:
    """C[rows, vectors * lanes] = A[rows, k] B[k, vectors * lanes] with the tile in registers."""
    b = Builder("tile")
    a, w, c = b.buffer("a", "f32"), b.buffer("w", "f32"), b.buffer("c", "f32", "write")
    k = b.param("k")
    width = vectors * lanes
    zero = const(0, vector("f32", lanes))
    names = {f"acc{r}_{v}": zero for r in range(rows) for v in range(vectors)}
    with b.loop("p", 0, k, carry=names) as loop:
        panel = [b.let(b.load(w, loop.index * width + v * lanes, lanes), "panel") for v in range(vectors)]
        following = []
        for r in range(rows):
            left = b.let(ir.broadcast(b.load(a, loop.index + index(r) * k), lanes), "left")
            following += [ir.fma(left, panel[v], loop.carried[r * vectors + v]) for v in range(vectors)]
        loop.next(*following)
    for i, total in enumerate(loop.results):
        b.store(c, i // vectors * width + i % vectors * lanes, total)
    return b.kernel()


def test_gemm_tile_stays_in_registers():
    rows, vectors, lanes, k = 4, 2, HOST.lanes("f32"), 37
    kernel = gemm_tile(rows, vectors, lanes)
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, k)).astype(np.float32)
    w = rng.standard_normal((k, vectors * lanes)).astype(np.float32)
    c = np.zeros((rows, vectors * lanes), np.float32)
    run(kernel, a, w, c, params=[k])
    np.testing.assert_allclose(c, a.astype(np.float64) @ w, rtol=1e-4, atol=1e-5)
    assembly = codegen.assembly_text(emit_module([kernel], HOST), HOST)
    if HOST.is_x86:
        assert (
            "rsp" not in assembly.replace("push", "").split("retq")[0] or "(%rsp)" not in assembly
        )  # no spills


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("op", ["min", "max"])
def test_extremum_with_a_number(op, on):
    """As NumPy's to the sign of zero, without a comparison for NaN."""
    x = np.array([0, -0.0, 1, -1, 2, -2, np.nan, np.inf, -np.inf, 1e-40, -1e-40, 3], np.float32).repeat(4)
    numpy_op, lanes = (np.minimum if op == "min" else np.maximum), on.lanes("f32")
    for number, left in itertools.product((0.0, -0.0, 1.5, -1.0, np.inf, np.nan), (False, True)):

        def make(given, number=number, left=left):
            constant = const(number, given.type)
            return ir.Binary(op, constant, given) if left else ir.Binary(op, given, constant)

        out, c = apply(make, [x], ["f32"], "f32", lanes, on), np.full_like(x, number)
        expected = numpy_op(c, x) if left else numpy_op(x, c)
        np.testing.assert_array_equal(out, expected)
        some = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(out[some]), np.signbit(expected[some]))
        text = emit_module([map_kernel(make, ["f32"], "f32", lanes)], on)
        if left and on.is_x86 and np.isfinite(number):
            assert "fcmp uno" not in text and f"{op}ps" in codegen.assembly_text(text, on)


def test_unrolled_register_tile_is_promoted():
    """Register allocations indexed by unrolled loops leave no memory behind."""
    lanes = 4
    b = Builder("tile")
    x, y = b.buffer("x", "f32"), b.buffer("y", "f32", "write")
    tile = b.alloc("tile", "f32", 8 * lanes, "register")
    with b.loop("i", 0, 8, kind="unrolled") as loop:
        b.store(tile, loop.index * lanes, b.load(x, loop.index * lanes, lanes) * 2.0)
    with b.loop("j", 0, 8, kind="unrolled", carry={"acc": const(0, vector("f32", lanes))}) as loop:
        loop.next(loop.carried[0] + b.load(tile, loop.index * lanes, lanes))
    b.store(y, 0, loop.results[0])
    kernel = b.kernel()
    assert "alloca" not in codegen.optimised_text(emit_module([kernel], HOST), HOST)
    a, out = np.arange(32, dtype=np.float32), np.zeros(4, np.float32)
    run(kernel, a, out)
    np.testing.assert_array_equal(out, 2 * a.reshape(8, 4).sum(0))


def test_online_softmax_statistics():
    """Running maximum and rescaled sum in one pass over a row: the heart of attention."""
    lanes = HOST.lanes("f32")
    b = Builder("online")
    x, y = b.buffer("x", "f32"), b.buffer("y", "f32", "write")
    n, m = b.param("n"), b.param("m")
    v = vector("f32", lanes)
    with b.loop("i", 0, n, kind="parallel") as rows:
        with b.loop("j", 0, m, lanes, carry={"top": const(-1e30, v), "total": const(0, v)}) as loop:
            top, total = loop.carried
            mask = b.let(lane_mask(loop.index, m, lanes))
            value = b.let(b.load(x, rows.index * m + loop.index, lanes, mask, -np.inf), "value")
            higher = b.let(ir.maximum(top, value), "higher")
            loop.next(higher, total * ir.math_call("exp", top - higher) + ir.math_call("exp", value - higher))
        top, total = loop.results
        peak = b.let(ir.ReduceLanes("max", top), "peak")
        scaled = total * ir.math_call("exp", top - ir.broadcast(peak, lanes))
        b.store(y, rows.index, peak + ir.math_call("log", ir.ReduceLanes("add", scaled)))
    a = np.random.default_rng(0).standard_normal((4, 53)).astype(np.float32) * 30
    out = np.zeros(4, np.float32)
    run(b.kernel(), a, out, params=[4, 53])
    np.testing.assert_allclose(out, np.logaddexp.reduce(a.astype(np.float64), axis=1), rtol=1e-6)


def test_shuffle_extract_insert_sort_network():
    """One compare-exchange step of a bitonic sort, and lanes by dynamic number."""
    b = Builder("exchange")
    x, y, at = b.buffer("x", "i32"), b.buffer("y", "i32", "write"), b.param("at")
    value = b.let(b.load(x, 0, 4))
    other = b.let(ir.Shuffle(value, value, (1, 0, 3, 2)))
    odd = ir.Ramp(const(0, "i32"), const(1, "i32"), 4) & 1
    b.store(y, 0, select(odd.eq(0), ir.minimum(value, other), ir.maximum(value, other)))
    picked = b.let(ir.Extract(value, at), "picked")
    b.store(y, 4, ir.Insert(value, at + 1, picked))
    b.store(y, 8, ir.Shuffle(picked, ir.Extract(value, index(0)), (1, 0, -1, 0)))
    out = np.zeros(12, np.int32)
    run(b.kernel(), np.array([5, 3, 1, 9], np.int32), out, params=[2])
    np.testing.assert_array_equal(out[:8], [3, 5, 1, 9, 5, 3, 1, 1])
    np.testing.assert_array_equal(out[[8, 9, 11]], [5, 1, 1])


def test_scalar_masks_do_not_touch_memory():
    b = Builder("guarded")
    x, y, n = b.buffer("x", "f32"), b.buffer("y", "f32", "readwrite"), b.param("n")
    inside = b.let(n > 0, "inside")
    b.store(y, 0, b.load(x, 1 << 40, 1, ~inside, 4.0))
    b.store(y, 1 << 40, const(1, "f32"), ~inside)
    out = np.zeros(2, np.float32)
    run(b.kernel(), np.zeros(1, np.float32), out, params=[1])
    np.testing.assert_array_equal(out, [4, 0])


def test_poll_stops_the_kernel():
    b = Builder("long")
    y, n = b.buffer("y", "i64", "write"), b.param("n")
    with b.loop("i", 0, n) as loop:
        b.emit(ir.Poll())
        b.store(y, 0, Convert(loop.index, "i64"))
    out, calls = np.zeros(1, np.int64), iter([0, 0, 0, 42])
    assert run(b.kernel(), out, params=[1000], poll=lambda: next(calls))[0] == 42
    assert out[0] == 2
    assert run(b.kernel(), out, params=[1000])[0] == 0  # nobody to ask


def test_empty_and_negative_ranges_run_nothing():
    b = Builder("count")
    y, n = b.buffer("y", "i64", "write"), b.param("n")
    with b.loop("i", 5, n, 3, carry={"c": const(0, "i64")}) as loop:
        loop.next(loop.carried[0] + 1)
    b.store(y, 0, loop.results[0])
    kernel, out = b.kernel(), np.zeros(1, np.int64)
    for n_ in (-7, 0, 5, 6, 8, 9, 30):
        run(kernel, out, params=[n_])
        assert out[0] == len(range(5, n_, 3))


def everything() -> list[Kernel]:
    """Kernels that use every operation once, f32 and f64, for the other targets."""
    kernels = []
    for dtype in ("f32", "f64"):

        def make(x, y):
            for op in ir.UNARY:
                x = x + ir.Unary(op, y) if "f" in ir.UNARY[op] else x
            for op in ir.BINARY:
                x = ir.Binary(op, x, y) if "f" in ir.BINARY[op] else x
            for op in ("exp", "log", "tanh", "sigmoid"):
                x = ir.Math(op, (x,))
            for to in ("u8", "i64", "u64", "f16", "bf16", "bool"):
                x = x + Convert(Convert(y, to), x.type.dtype)
            return ir.fma(x, y, y)

        kernels.append(map_kernel(make, [dtype] * 2, dtype, 64 // ir.BYTES[dtype]))
    for dtype in INTS:

        def make_int(x, y):
            for op in ir.UNARY:
                x = x + ir.Unary(op, y) if "i" in ir.UNARY[op] else x
            for op in ir.BINARY:
                x = ir.Binary(op, x, y) if "i" in ir.BINARY[op] else x
            return Convert(Convert(x, "f32"), x.type.dtype)

        kernels.append(map_kernel(make_int, [dtype] * 2, dtype, 8))
    return [Kernel(f"k{i}", k.buffers, k.params, k.body) for i, k in enumerate(kernels)]


@pytest.mark.parametrize("name", sorted(target.TARGETS))
def test_every_operation_on_every_target_needs_no_library(name):
    on = target.named(name)
    image = codegen.compile_kernels(everything(), on)  # flattening refuses undefined symbols
    assert image.target_key == on.key and len(image.entries) == len(everything())


@pytest.mark.parametrize("name", sorted(target.TARGETS))
def test_gather_and_masks_on_every_target(name):
    b = Builder("gather")
    x, at, y, n = b.buffer("x", "bf16"), b.buffer("at", "i32"), b.buffer("y", "f16", "write"), b.param("n")
    with b.loop("i", 0, n, 8) as loop:
        mask = b.let(lane_mask(loop.index, n, 8))
        i = Convert(b.load(at, loop.index, 8, mask), "index")
        b.store(y, loop.index, Convert(b.load(x, i, mask=mask), "f16"), mask)
    codegen.compile_kernels([b.kernel()], target.named(name))


def test_a_pass_builder_serves_one_run(monkeypatch):
    """It keeps pointers into the run that it served, and follows them in the next one."""
    import llvmlite.binding as binding

    made = []
    create = binding.create_pass_builder
    monkeypatch.setattr(binding, "create_pass_builder", lambda *args: made.append(create(*args)) or made[-1])
    b = Builder("tile")
    tile = b.alloc("tile", "f32", 4, "register")
    b.store(tile, 0, b.load(b.buffer("x", "f32"), 0, 4))
    b.store(b.buffer("y", "f32", "write"), 0, b.load(tile, 0, 4))
    text = emit_module([b.kernel()], HOST)
    for _ in range(3):
        codegen.compile_module(text, HOST)
    assert len(set(map(id, made))) == 3


def test_undefined_symbols_are_refused():
    text = emit_module(
        [],
        HOST,
        "declare float @expf(float)\ndefine float @f(float %x) {\n"
        "  %y = call float @expf(float %x)\n  ret float %y\n}",
    )
    with pytest.raises(LinkError, match="expf"):
        codegen.compile_module(text, HOST)


def test_writable_data_is_refused():
    text = emit_module(
        [], HOST, "@g = global i32 5\ndefine ptr @f() {\n  store volatile i32 1, ptr @g\n  ret ptr @g\n}"
    )
    with pytest.raises(LinkError):
        codegen.compile_module(text, HOST)


def test_context_layout_agrees():
    context = abi.context_type()
    for field in abi.CONTEXT:
        assert getattr(context, field.name).offset == field.offset
    assert abi.CONTEXT_SIZE == ctypes.sizeof(context) == 120
    for field in abi.ERROR:
        assert getattr(abi.error_type(), field.name).offset == field.offset
    assert "struct ingot_ctx" in abi.c_declarations() and abi.llvm_context().count("ptr") == 12


def test_code_is_reproducible():
    kernel = gemm_tile(4, 2, 8)
    assert codegen.compile_kernels([kernel], HOST) == codegen.compile_kernels([kernel], HOST)
