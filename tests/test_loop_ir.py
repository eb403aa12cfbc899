"""The loop IR's text form, verifier and builder."""

from __future__ import annotations

import math
import operator
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.lowering import loop as ir
from ingot.lowering.llvm import codegen, target
from ingot.lowering.loop import IDX, Const, Expr, Kernel, LoopError, Var, const, vector
from ingot.lowering.loop_builder import Builder
from ingot.lowering.loop_text import parse_kernel, parse_kernels, print_expr, print_kernel, valid_name
from ingot.lowering.loop_verify import children, verify
from ingot.runtime.kernel_call import call_kernel
from ingot.runtime.loader import load

FOLDER = Path(__file__).parent / "filetests" / "loop"


def read(path: Path) -> str:
    """A file test without its first line, which names the pass and what is expected."""
    return path.read_text().split("\n", 1)[1]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ingot")), ids=lambda p: p.stem)
def test_files(path):
    first = path.read_text().split("\n", 1)[0]
    if first.startswith("# test loop-error:"):
        with pytest.raises(LoopError) as caught:
            for kernel in parse_kernels(read(path)):
                verify(kernel)
        assert first.removeprefix("# test loop-error:").strip() in str(caught.value)
        return
    assert first == "# test loop"
    kernels = parse_kernels(read(path))
    assert kernels
    for kernel in kernels:
        verify(kernel)
    stripped = "\n".join(
        line for line in read(path).splitlines() if line.strip() and not line.startswith("#")
    )
    assert "".join(map(print_kernel, kernels)).strip() == stripped.strip()


# Random typed expressions and kernels

NAMES = {
    "i": IDX,
    "n": IDX,
    "f": vector("f32"),
    "v": vector("f32", 4),
    "d": vector("f64", 4),
    "k": vector("i32", 4),
    "u": vector("u8"),
    "m": vector("bool", 4),
    "c": vector("bool"),
    "h": vector("f16", 4),
    "s": vector("f32"),
}
MEMORY = {"x": "f32", "w": "i32", "y": "f32"}


class Grower:
    """Random well-typed expressions over NAMES and MEMORY, and kernels made of them."""

    def __init__(self, seed: int, memory: bool = True):
        self.random = random.Random(seed)
        self.memory = (
            MEMORY if memory else {}
        )  # without it, and without lanes of no meaning, values are known

    def literal(self, type: ir.Type) -> Expr:
        pick = self.random.choice
        if type.dtype == "bool":
            return Const(pick([True, False]), type)
        if type.is_integer:
            bits = 8 * ir.BYTES[type.dtype]
            value = pick([0, 1, -1, 2 ** (bits - 1), self.random.getrandbits(bits)])
            return Const(ir.wrap(value, type.dtype), type)
        return Const(
            pick([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, self.random.gauss(0, 1), 1e-300]), type
        )

    def leaf(self, type: ir.Type) -> Expr:
        named = [Var(n, t) for n, t in NAMES.items() if t == type]
        return self.random.choice([self.literal(type), *named])

    def expr(self, type: ir.Type, depth: int = 4) -> Expr:
        if depth == 0:
            return self.leaf(type)

        def grow(t: ir.Type = type) -> Expr:
            return self.expr(t, depth - 1)

        random, lanes = self.random, type.lanes
        kind = (
            "b" if type.dtype == "bool" else "i" if type.is_integer else "-" if type.dtype == "f16" else "f"
        )

        def op(table: dict[str, str]) -> str:
            return random.choice(sorted(o for o, kinds in table.items() if kind in kinds))

        mask, wide = vector("bool", lanes), vector("f32", lanes)
        options = [
            lambda: self.leaf(type),
            lambda: ir.Select(grow(mask), grow(), grow()),
            lambda: ir.Select(grow(vector("bool")), grow(), grow()),
            lambda: ir.Convert(grow(vector("i32", lanes)), type.dtype),
        ]
        if kind != "-":
            options += [
                lambda: ir.Binary(op(ir.BINARY), grow(), grow()),
                lambda: ir.Unary(op(ir.UNARY), grow()),
            ]
        if kind == "f":
            options.append(lambda: ir.Math("fma", (grow(), grow(), grow())))
            options.append(
                lambda: ir.Bitcast(grow(vector("u32" if type.dtype == "f32" else "u64", lanes)), type.dtype)
            )
        if kind == "b":
            options.append(lambda: ir.Compare(random.choice(ir.COMPARE), grow(wide), grow(wide)))
        if lanes == 1 and kind != "-":
            options.append(lambda: ir.ReduceLanes(op(ir.REDUCE_LANES), grow(type.with_lanes(4))))
            options.append(lambda: ir.Extract(grow(type.with_lanes(4)), grow(IDX)))
        if lanes == 4:
            scalar = type.with_lanes(1)
            picks = tuple(random.randrange(-1 if self.memory else 0, 8) for _ in range(4))
            options += [
                lambda: ir.Broadcast(grow(scalar), 4),
                lambda: ir.Insert(grow(), grow(IDX), grow(scalar)),
                lambda: ir.Shuffle(grow(), grow(), picks),
            ]
            if kind == "i":
                options.append(lambda: ir.Ramp(grow(scalar), grow(scalar), 4))
        for name in (n for n, dtype in self.memory.items() if dtype == type.dtype and n != "y"):
            options.append(
                lambda name=name: ir.Load(
                    name, grow(IDX), type, None, None, random.choice([None, "invariant"])
                )
            )
            options.append(
                lambda name=name: ir.Load(name, grow(IDX.with_lanes(lanes)), type, grow(mask), grow())
            )
        return random.choice(options)()

    def kernel(self) -> Kernel:
        body: list[ir.Stmt] = [ir.Let(Var(n, t), self.literal(t)) for n, t in NAMES.items() if n != "n"]
        v = NAMES["v"]
        for number in range(3):
            store = ir.Store("y", self.expr(IDX), self.expr(v), self.expr(NAMES["m"]))
            carried, result, init = Var(f"acc{number}", v), Var(f"out{number}", v), self.expr(v)
            test = self.expr(vector("bool"))
            body.append(
                self.random.choice(
                    [
                        store,
                        ir.For(
                            Var(f"q{number}", IDX),
                            self.expr(IDX),
                            self.expr(IDX),
                            Const(4, IDX),
                            "serial",
                            (store,),
                            (carried,),
                            (init,),
                            (ir.binary("add", carried, 1.0),),
                            (result,),
                        ),
                        ir.If(test, (store,), (), (), ()),
                        ir.If(test, (store,), (store,), (init,), (self.expr(v),), (result,)),
                        ir.While(test, (store,), (carried,), (init,), (carried,), (result,)),
                        ir.Fail(3, (self.expr(IDX),)),
                        ir.Prefetch("x", self.expr(IDX)),
                    ]
                )
            )
        buffers = tuple(ir.Buffer(n, d, "write" if n == "y" else "read") for n, d in MEMORY.items())
        return Kernel("random", buffers, ("n",), tuple(body))


@pytest.mark.parametrize("seed", range(120))
def test_printing_and_parsing_are_inverse(seed):
    kernel = Grower(seed).kernel()
    verify(kernel)
    text = print_kernel(kernel)
    again = parse_kernel(text)
    assert again == kernel and print_kernel(again) == text and hash(again) == hash(kernel)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="abfix0123456789 \n(){}[]:,;@+-*/%<>=#.", max_size=80), st.integers(0, 400))
def test_damaged_text_gives_located_errors(noise, at):
    text = print_kernel(row_sum())
    damaged = text[: at % len(text)] + noise + text[at % len(text) + len(noise) // 2 :]
    try:
        verify(parse_kernel(damaged))
    except LoopError as error:
        assert str(error).startswith("[loop] ")


def row_sum() -> Kernel:
    b = Builder("row_sum")
    x, y = b.buffer("x", "f32"), b.buffer("y", "f32", "write")
    n, m = b.param("n"), b.param("m")
    with b.loop("i", 0, n, kind="parallel") as rows:
        with b.loop("j", 0, m, 16, carry={"acc": const(0, vector("f32", 16))}) as loop:
            mask = b.let(ir.lane_mask(loop.index, m, 16))
            loop.next(loop.carried[0] + b.load(x, rows.index * m + loop.index, 16, mask))
        b.store(y, rows.index, ir.ReduceLanes("add", loop.results[0]))
    return b.kernel()


def test_text_of_a_reduction():
    assert (
        print_kernel(row_sum())
        == """\
kernel @row_sum(x: f32 read, y: f32 write; n, m) {
  parallel for i in [0, n) {
    for j in [0, m) step 16 carry (acc: f32x16 = 0.0:f32x16) -> (acc_end) {
      t: boolx16 = ramp(0:i32, 1:i32, 16) < splat(i32(max(min(m - j, 16), 0)), 16)
      yield acc + x[i * m + j : 16, mask t]
    }
    y[i] = reduce_add(acc_end)
  }
}
"""
    )


def test_precedence_and_literals():
    i, n = Var("i", IDX), Var("n", IDX)
    shown = {
        ir.Binary("sub", i, ir.Binary("sub", n, i)): "i - (n - i)",
        ir.Binary("sub", ir.Binary("sub", i, n), i): "i - n - i",
        ir.Binary("mul", ir.Binary("add", i, n), i): "(i + n) * i",
        ir.Binary("mod", ir.Binary("floordiv", i, n), i): "i // n % i",
        ir.Binary("add", i, Const(-3, IDX)): "i + -3",
        ir.Compare("eq", ir.Compare("lt", i, n), ir.Compare("lt", n, i)): "(i < n) == (n < i)",
        ir.Load("x", Const(0, IDX), vector("f32", 8)): "x[0 : 8]",
        Const(-0.0, vector("f32", 2)): "-0.0:f32x2",
        Const(-math.inf, vector("f64")): "-inf:f64",
        Const(True, vector("bool")): "true:bool",
    }
    for expr, text in shown.items():
        assert print_expr(expr) == text
        kernel = Kernel(
            "k", (ir.Buffer("x", "f32", "read"),), ("i", "n"), (ir.Let(Var("r", expr.type), expr),)
        )
        assert parse_kernel(print_kernel(kernel)) == kernel


def test_constants_tell_zeros_apart_and_nan_is_itself():
    assert const(0.0, "f32") != const(-0.0, "f32")
    assert const(math.nan, "f32") == const(float("nan"), "f32")
    assert const(1, "i32") != const(1, "i64")
    assert const(0.1, "f32").value == 0.10000000149011612 and const(1e300, "f32").value == math.inf
    assert const(300, "u8").value == 44 and const(200, "i8").value == -56


def test_constructors_fold_indices_but_not_floats():
    i = Var("i", IDX)
    assert i + 0 is i and 0 + i is i and i * 1 is i and i // 1 is i and i - 0 is i
    assert i * 0 == Const(0, IDX) and i % 1 == Const(0, IDX) and ir.index(3) * 4 == Const(12, IDX)
    x = Var("x", vector("f32"))
    assert x + 0.0 == ir.Binary("add", x, Const(0.0, x.type))
    assert ir.offset([i, 2], [3, Var("s", IDX)]) == i * 3 + Var("s", IDX) * 2


def test_builder_makes_names_unique_and_avoids_keywords():
    b = Builder("k")
    assert [b.fresh("t") for _ in range(3)] == ["t", "t_1", "t_2"]
    assert b.fresh("t_1") == "t_1_1" and b.param("mask").name == "mask_1"
    assert not any(valid_name(k) for k in ir.KEYWORDS) and not valid_name("a.b") and not valid_name("")


def test_children_cover_every_expression():
    """Every Expr field of every node class is an operand that the walks see."""
    i, v, m = Var("i", IDX), Var("v", vector("f32", 4)), Var("m", vector("bool", 4))
    nodes = [
        ir.Unary("neg", v),
        ir.Binary("add", v, v),
        ir.Compare("lt", v, v),
        ir.Select(m, v, v),
        ir.Math("fma", (v, v, v)),
        ir.Convert(v, "i32"),
        ir.Bitcast(v, "i32"),
        ir.Broadcast(i, 4),
        ir.Ramp(i, i, 4),
        ir.ReduceLanes("add", v),
        ir.Shuffle(v, v, (0,)),
        ir.Extract(v, i),
        ir.Insert(v, i, i),
        ir.Load("x", i, v.type, m, v),
        i,
        Const(1, IDX),
    ]
    assert {type(n).__name__ for n in nodes} == {c.__name__ for c in Expr.__subclasses__()}
    counts = [1, 2, 2, 3, 3, 1, 1, 1, 2, 1, 2, 2, 3, 3, 0, 0]
    assert [len(children(n)) for n in nodes] == counts


def test_long_chains_verify_without_recursion():
    value: Expr = Var("i", IDX)
    for _ in range(20_000):
        value = ir.Unary("neg", value)
    kernel = Kernel("deep", (), ("i",), (ir.Let(Var("r", IDX), value),))
    verify(kernel)


def test_parallel_loop_is_found():
    loop = ir.parallel_loop(row_sum())
    assert loop is not None and loop.hi == Var("n", IDX)
    assert ir.parallel_loop(Kernel("k", (), (), ())) is None


# What expressions mean, in NumPy

NUMPY = {
    "bool": np.bool_,
    "u8": np.uint8,
    "u32": np.uint32,
    "u64": np.uint64,
    "i32": np.int32,
    "index": np.int64,
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
}
COMPARISONS = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def mean(e: Expr, env: dict[str, np.ndarray]) -> np.ndarray:
    """The lanes of `e`, for a target without fused multiply-add."""
    args = [mean(c, env) for c in children(e)]
    lanes, t = e.type.lanes, NUMPY[e.type.dtype]
    match e:
        case ir.Var(name):
            return env[name]
        case Const(value):
            return np.full(lanes, value).astype(t)
        case ir.Unary(op, _):
            return unary(op, args[0])
        case ir.Binary(op, _, _):
            return two(op, *args)
        case ir.Compare(op, _, _):
            return COMPARISONS[op](*args)
        case ir.Math("fma"):
            return args[0] * args[1] + args[2]
        case ir.Select():
            return np.where(*args)
        case ir.Convert(x, _):
            return converted(args[0], x.type.dtype, e.type.dtype)
        case ir.Bitcast():
            return args[0].view(t)
        case ir.Broadcast():
            return np.repeat(args[0], lanes)
        case ir.Ramp():
            return args[0] + args[1] * np.arange(lanes).astype(t)
        case ir.ReduceLanes(op, _):
            half = two(op, args[0][:2], args[0][2:])
            return two(op, half[:1], half[1:])
        case ir.Shuffle(_, _, picks):
            return np.concatenate(args)[list(picks)]
        case ir.Extract(x, _):
            return args[0][[int(args[1][0]) % x.type.lanes]]
        case ir.Insert():
            out = args[0].copy()
            out[int(args[1][0]) % lanes] = args[2][0]
            return out
    raise TypeError(e)


def unary(op: str, x: np.ndarray) -> np.ndarray:
    bits = 8 * x.dtype.itemsize
    words = [int(v) % (1 << bits) for v in x] if x.dtype.kind in "iu" else []
    counts = {
        "popcount": lambda w: w.bit_count(),
        "clz": lambda w: bits - w.bit_length(),
        "ctz": lambda w: (w & -w).bit_length() - 1 if w else bits,
    }
    if op in counts:
        return np.array([counts[op](w) for w in words]).astype(x.dtype)
    names = {
        "neg": np.negative,
        "abs": np.abs,
        "not": np.invert,
        "sqrt": np.sqrt,
        "floor": np.floor,
        "ceil": np.ceil,
        "trunc": np.trunc,
        "round": np.rint,
    }
    return names[op](x)


def two(op: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    kind = a.dtype.kind
    if op in ("min", "max") and kind == "f":  # the sign of a zero is as the compiled code has it
        picked = np.where(a < b if op == "min" else a > b, a, b)
        return np.where(np.isnan(a), a, picked)
    if op == "truncdiv":
        exact = [
            0 if y == 0 else abs(int(x)) // abs(int(y)) * (-1 if (x < 0) != (y < 0) else 1)
            for x, y in zip(a, b, strict=True)
        ]
        return np.array([v % (1 << 64) for v in exact], np.uint64).astype(a.dtype)
    names = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "floordiv": np.floor_divide,
        "mod": np.remainder,
        "rem": np.fmod,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "shl": np.left_shift,
        "shr": np.right_shift,
    }
    return names[op](a, b)


def converted(x: np.ndarray, source: str, to: str) -> np.ndarray:
    if to == "bool":
        return x != 0
    if source in ir.FLOATS and to in ir.INTEGERS:
        info = np.iinfo(NUMPY[to])
        return np.array(
            [
                0 if v != v else info.max if v >= info.max else info.min if v <= info.min else int(v)
                for v in x.tolist()
            ],
            NUMPY[to],
        )
    return x.astype(np.float32).astype(np.float16) if to == "f16" else x.astype(NUMPY[to])


@pytest.mark.skipif(not target.host().is_x86, reason="runs x86-64-v2 code")
@pytest.mark.parametrize(
    "dtype,lanes", [("f32", 4), ("f64", 4), ("i32", 4), ("u8", 1), ("index", 1), ("f16", 4), ("bool", 4)]
)
def test_random_expressions_mean_what_numpy_says(dtype, lanes):
    """Random expressions, compiled for the plainest target, against the interpreter above."""
    type, on = vector(dtype, lanes), target.TARGETS["x86-64-v2"]
    kernels, expected = [], []
    for seed in range(40):
        grower = Grower(seed, memory=False)
        names = [ir.Let(Var(n, t), grower.literal(t)) for n, t in NAMES.items()]
        expr = grower.expr(type, 5)
        store = ir.Store("out", Const(0, IDX), expr)
        kernels.append(Kernel(f"k{seed}", (ir.Buffer("out", dtype, "write"),), (), (*names, store)))
        with np.errstate(all="ignore"):
            env = {n.var.name: mean(n.value, {}) for n in names}
            expected.append(mean(expr, env))
    loaded = load(codegen.compile_kernels(kernels, on))
    for kernel, wanted in zip(kernels, expected, strict=True):
        out = np.zeros(lanes, NUMPY[dtype])
        assert call_kernel(loaded.address(kernel.name), [out])[0] == 0
        np.testing.assert_array_equal(out, wanted, err_msg=print_kernel(kernel))


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v4", "aarch64"])
def test_random_kernels_compile(name):
    for seed in range(0, 120, 6):
        kernels = [Grower(s).kernel() for s in range(seed, seed + 6)]
        named = [Kernel(f"k{i}", k.buffers, k.params, k.body) for i, k in enumerate(kernels)]
        codegen.compile_kernels(named, target.named(name))


def test_the_page_names_all_operations():
    page = (Path(__file__).parents[1] / "docs" / "loop-ir.md").read_text()
    start = page.index("Operations written as calls")
    named = set(re.findall(r"\w+", page[start : page.index("Index literals are bare")]))
    infix = {"add", "sub", "mul", "div", "floordiv", "mod"}
    assert {*ir.MATH, *ir.UNARY, *ir.BINARY} - infix <= named
