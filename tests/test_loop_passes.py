"""Scheduling passes on random loop nests and on GEMM: what is compiled after a pass computes what was
computed before it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
import pytest

from ingot.lowering.llvm import codegen, target
from ingot.lowering.loop import Kernel, LoopError
from ingot.lowering.loop_text import parse_kernel, print_kernel
from ingot.lowering.loop_verify import verify
from ingot.lowering.passes.hoist import hoist
from ingot.lowering.passes.parallelise import parallelise
from ingot.lowering.passes.reorder import reorder
from ingot.lowering.passes.split import split, tile
from ingot.lowering.passes.stage import stage
from ingot.lowering.passes.unroll import unroll, unroll_and_jam
from ingot.lowering.passes.vectorise import vectorise
from ingot.runtime.kernel_call import call_kernel
from ingot.runtime.loader import load

HOST = target.host()
GEMM = """
kernel @gemm(a: f32 read, b: f32 read, c: f32 readwrite; n, m, k) {
  for i in [0, n) {
    for j in [0, m) {
      for p in [0, k) carry (acc: f32 = 0.0:f32) -> (sum) {
        yield fma(a[i * k + p], b[p * m + j], acc)
      }
      c[i * m + j] = sum
    }
  }
}
"""
EDGES = [(0, 5, 3), (1, 1, 1), (2, 0, 3), (3, 4, 0), (5, 7, 4), (8, 16, 8), (7, 33, 5), (12, 40, 9)]


def kernel(text: str) -> Kernel:
    made = parse_kernel(text)
    verify(made)
    return made


def call(address: int, buffers: list[np.ndarray], params: list[int]) -> list[np.ndarray]:
    mine = [b.copy() for b in buffers]
    assert call_kernel(address, mine, params, workspace=4096)[0] == 0
    return mine


def check(
    before: Kernel, after: Kernel, cases: list[tuple[list[np.ndarray], list[int]]], close: bool = False
) -> None:
    """Equal results for all buffers and params, bit for bit unless `close`."""
    verify(after)
    assert parse_kernel(print_kernel(after)) == after
    images = [load(codegen.compile_kernels([k], HOST)) for k in (before, after)]
    try:
        for buffers, params in cases:
            want, got = (call(i.address(before.name), buffers, params) for i in images)
            for x, y in zip(want, got, strict=True):
                if close and x.dtype.kind == "f":
                    np.testing.assert_allclose(y, x, rtol=2e-5, atol=2e-5, err_msg=print_kernel(after))
                else:
                    np.testing.assert_array_equal(y, x, err_msg=f"{params}\n{print_kernel(after)}")
    finally:
        for image in images:
            image.unload()


def gemm_cases() -> list[tuple[list[np.ndarray], list[int]]]:
    made = []
    for n, m, k in EDGES:
        rng = np.random.default_rng(n + m)
        a, b = (rng.standard_normal(s, dtype=np.float32) for s in (n * k + 1, k * m + 1))
        made.append(([a, b, np.full(n * m + 9, 7, np.float32)], [n, m, k]))  # the end of c must stay
    return made


PASSES: dict[str, tuple[Callable[[Kernel], Kernel], bool]] = {
    "split guarded": (lambda k: split(k, "j", 3, "guarded"), False),
    "split masked": (lambda k: split(k, "i", 4), False),
    "split peeled": (lambda k: split(k, "p", 4, "peeled"), False),
    "split guarded reduction": (lambda k: split(k, "p", 4, "guarded"), False),
    "tile": (lambda k: tile(k, "i", "j", 4, 8), False),
    "tile, reorder inside": (lambda k: reorder(tile(k, "i", "j", 4, 8), "i", "j"), False),
    "reorder": (lambda k: reorder(k, "i", "j"), False),
    "unroll": (lambda k: unroll(k, "p", 3), False),
    "unroll tiles": (lambda k: unroll(split(k, "i", 3, "peeled"), "i"), False),
    "jam j": (lambda k: unroll_and_jam(k, "j", 3), False),
    "jam j and i": (lambda k: unroll_and_jam(unroll_and_jam(k, "j", 2), "i", 3), False),
    "vectorise j": (lambda k: vectorise(k, "j", 8), False),
    "vectorise j peeled": (lambda k: vectorise(k, "j", 8, "peeled"), False),
    "vectorise i, scattered": (lambda k: vectorise(k, "i", 4), False),
    "vectorise p, a reduction": (lambda k: vectorise(k, "p", 8), True),
    "vectorise outer p": (lambda k: vectorise(split(k, "p", 8), "p", 8), True),
    "split, vectorise": (lambda k: vectorise(split(k, "j", 8), "j", 8), False),
    "parallelise": (lambda k: parallelise(k, "i"), False),
    "split, parallelise": (lambda k: parallelise(split(k, "i", 3), "i_outer"), False),
    "tile, parallelise": (lambda k: parallelise(tile(k, "i", "j", 4, 8), "i_outer"), False),
    "stage a, b and c": (
        lambda k: stage(
            stage(stage(split(tile(k, "i", "j", 4, 8), "p", 4), "p", "a"), "p", "b", "register"),
            "i",
            "c",
            "workspace",
            64,
        ),
        False,
    ),
    "stage, vectorise": (lambda k: vectorise(stage(tile(k, "i", "j", 4, 8), "i", "c"), "j", 8), False),
    "hoist": (lambda k: hoist(hoist(vectorise(k, "i", 4), "p"), "j"), False),
    "reorder, hoist": (lambda k: hoist(unroll(k, "j", 2), "p"), False),
    "vectorise, jam, jam": (
        lambda k: unroll_and_jam(unroll_and_jam(vectorise(k, "j", 8), "j", 2), "i", 3),
        False,
    ),
    "peeled vectors, jam, jam": (
        lambda k: unroll_and_jam(unroll_and_jam(vectorise(k, "j", 8, "peeled"), "j", 2), "i", 3),
        False,
    ),
}


@pytest.mark.parametrize("name", PASSES)
def test_passes_keep_gemm(name):
    change, close = PASSES[name]
    before = kernel(GEMM)
    check(before, change(before), gemm_cases(), close)


def test_plain_gemm_becomes_the_micro_kernel():
    """Three loops, three passes: 6 x 2 vectors of accumulators in registers."""
    before = kernel(GEMM)
    lanes = HOST.lanes("f32")
    after = unroll_and_jam(unroll_and_jam(vectorise(before, "j", lanes, "peeled"), "j", 2), "i", 6)
    verify(after)
    assert print_kernel(after).count("fma(") >= 12
    n = m = k = 192
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, n), dtype=np.float32) for _ in range(2))
    rates = []
    for version in (before, after):
        c = np.zeros((n, m), np.float32)
        image = load(codegen.compile_kernels([version], HOST))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            assert call_kernel(image.address("gemm"), [a, b, c], [n, m, k])[0] == 0
            times.append(time.perf_counter() - start)
        image.unload()
        np.testing.assert_allclose(c, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-4, atol=1e-3)
        rates.append(2 * n * m * k / min(times) / 1e9)
    print(f"GEMM {n}: plain {rates[0]:.2f}, scheduled {rates[1]:.2f} GFLOP/s")
    assert rates[1] > 3 * rates[0]


# Random nests


class Nest:
    """A random nest of three loops i, j, p over row-major arrays, with branches, reductions, maps."""

    def __init__(self, seed: int, dependent: bool):
        self.pick = random.Random(seed)
        self.dtype = self.pick.choice(["f32", "i32"])
        number = "0.5:f32" if self.dtype == "f32" else "3:i32"
        self.leaves = [
            "x[{0}]",
            "w[j]",
            "x[i * m]",
            number,
            self.dtype + "({0})",
            "x[n * m - 1 - ({0})]",
            "w[({0}) % m]",
        ]
        if dependent:  # iterations may need what others stored
            self.leaves += [
                "y[i * m]",
                "y[{0} + 1]",
                "y[j]",
                "y[n * m - 1 - ({0})]",
                "y[j * 2]",
                "y[i + j]",
                "y[(i + 1) * m + j]",
            ]

    def value(self, index: str, depth: int = 2) -> str:
        pick = self.pick.choice
        if depth == 0 or self.pick.random() < 0.2:
            return pick(self.leaves).format(index)
        a, b = self.value(index, depth - 1), self.value(index, depth - 1)
        return pick([f"({a} + {b})", f"({a} - {b})", f"max({a}, {b})", f"select({a} < {b}, {a}, {b})"])

    def text(self) -> str:
        at = self.pick.choice(["i * m + j", "j + m * i", "(i + 1) * m - 1 - j"])
        middle = self.pick.choice([self.reduced, self.branch, self.plain])(at)
        inner = f"for i in [0, n) {{ for j in [0, m) {{ {middle} }} }}"
        buffers = f"x: {self.dtype} read, w: {self.dtype} read, y: {self.dtype} readwrite"
        return f"kernel @nest({buffers}; n, m) {{ {inner} }}"

    def plain(self, at: str) -> str:
        return f"q: {self.dtype} = {self.value(at)} y[{at}] = q + y[{at}]"

    def branch(self, at: str) -> str:
        test = self.pick.choice(["j % 3 == 0", "x[i * m + j] < w[j]", "i < 2"])
        other = self.pick.choice(["", f"else {{ y[{at}] = {self.value(at)} }}"])
        return f"if {test} {{ h: {self.dtype} = {self.value(at)} y[{at}] = h }} {other}"

    def reduced(self, at: str) -> str:
        start = "0.0:f32" if self.dtype == "f32" else "0:i32"
        op = self.pick.choice(["acc + {}", "max(acc, {})", "min({}, acc)"]).format(self.value("i * m + p"))
        return (
            f"for p in [0, m) carry (acc: {self.dtype} = {start}) -> (end) {{ yield {op} }} "
            f"y[{at}] = end + w[j]"
        )


SCHEDULES: list[Callable[[Kernel], Kernel]] = [
    lambda k: vectorise(k, "j", 4),
    lambda k: vectorise(k, "i", 4, "peeled"),
    lambda k: vectorise(k, "p", 4),
    lambda k: unroll_and_jam(k, "i", 2),
    lambda k: unroll_and_jam(vectorise(k, "j", 4), "i", 3),
    lambda k: unroll(k, "j", 2),
    lambda k: tile(k, "i", "j", 2, 3),
    lambda k: reorder(k, "i", "j"),
    lambda k: parallelise(hoist(k, "j"), "i"),
    lambda k: split(k, "j", 3, "guarded"),
    lambda k: stage(tile(k, "i", "j", 2, 4), "i", "y"),
    lambda k: stage(split(k, "j", 4), "j", "w"),
    lambda k: vectorise(hoist(split(k, "j", 4), "j"), "j", 4),
    lambda k: vectorise(split(k, "j", 4, "guarded"), "j", 4),
]


@pytest.mark.parametrize("dependent", [False, True])
def test_passes_keep_random_nests(dependent):
    """With dependences a pass refuses or keeps them."""
    applied, refused = [0] * len(SCHEDULES), [0] * len(SCHEDULES)
    for seed in range(60):
        before = kernel(Nest(seed, dependent).text())
        dtype = np.dtype(np.float32 if before.buffers[0].dtype == "f32" else np.int32)
        rng = np.random.default_rng(seed)
        cases = [
            ([rng.integers(-9, 9, s + 24).astype(dtype) for s in (n * m, m, n * m)], [n, m])
            for n, m in [(0, 3), (3, 0), (1, 1), (3, 4), (5, 9)]
        ]
        for number in random.Random(seed).sample(range(len(SCHEDULES)), 4):
            try:
                after = SCHEDULES[number](before)
            except LoopError:
                refused[number] += 1
                continue
            applied[number] += 1
            check(before, after, cases)
    print(f"applied {applied}, refused {refused}")
    assert min(applied) >= (0 if dependent else 2)
    assert not dependent or sum(refused) > 60


REFUSED = {
    "neighbours": ("y[j + 1] = y[j]", lambda k: vectorise(k, "j", 4), "iterations of j may meet in y"),
    "one element": ("y[i] = x[j]", lambda k: vectorise(k, "j", 4), "iterations of j may meet in y"),
    "unknown stride": ("y[i * s + j] = x[j]", lambda k: parallelise(k, "i"), "iterations of i may meet in y"),
    "overlapping rows": ("y[i * 2 + j] = x[j]", lambda k: unroll_and_jam(k, "i", 2), "may meet in y"),
    "diagonal": ("y[i + j] = x[i]", lambda k: parallelise(k, "i"), "iterations of i may meet in y"),
    "skewed": ("y[(i + 1) * m + j] = y[i * m + j + 1]", lambda k: reorder(k, "i", "j"), "may meet in y"),
    "reversed rows": (
        "y[(i + 1) * m - 1 - j] = y[(i + 1) * m + j]",
        lambda k: tile(k, "i", "j", 2, 3),
        "may meet in y",
    ),
    "product": ("y[i * j] = x[j]", lambda k: parallelise(k, "i"), "may meet in y"),
    "triangular rows": (
        "for p in [0, i) { y[i * 2 + p] = x[p] }",
        lambda k: unroll_and_jam(k, "i", 2),
        "may meet in y",
    ),
    "scattered": ("y[index(x[j])] = 1.0:f32", lambda k: vectorise(k, "j", 4), "may meet in y"),
    "data in the address": ("y[index(y[j])] = x[j]", lambda k: parallelise(k, "i"), "may meet in y"),
    "failing": ("if j > 5 { fail 1 (j) } y[i * m + j] = x[j]", lambda k: vectorise(k, "j", 4), "`fail`"),
    "failing, jammed": (
        "if j > 5 { fail 1 (j) } y[i * m + j] = x[j]",
        lambda k: unroll_and_jam(k, "i", 4),
        "`fail`",
    ),
    "triangle": ("for p in [0, j) { y[i * m + j] = x[p] }", lambda k: vectorise(k, "j", 4), "bounds of p"),
    "triangle, reordered": (
        "for p in [0, j) { y[i * m + j] = x[p] }",
        lambda k: reorder(k, "j", "p"),
        "its bounds depend on j",
    ),
    "no tail": ("y[i * m + j] = x[j]", lambda k: split(k, "j", 4, "exact"), "to be a multiple of 4"),
    "unbounded tile": ("y[i * m + j] = x[j]", lambda k: stage(k, "j", "x"), "has no constant bound"),
    "two addresses": (
        "y[i * m + j] = x[j] + x[j + 1]",
        lambda k: stage(split(k, "j", 4), "j", "x"),
        "at different addresses",
    ),
    "carried": (
        "for p in [0, m) carry (a: f32 = 1.0:f32) -> (e) { yield x[p] - a } y[i * m + j] = e",
        lambda k: vectorise(k, "p", 4),
        "not as a reduction",
    ),
    "inner": ("y[i * m + j] = x[j]", lambda k: parallelise(k, "j"), "not at the top level"),
    "no such loop": ("y[i * m + j] = x[j]", lambda k: unroll(k, "q", 2), "has no loop 'q'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_passes_refuse(name):
    body, change, reason = REFUSED[name]
    buffers = "x: f32 read, y: f32 readwrite; n, m, s"
    before = kernel(f"kernel @k({buffers}) {{ for i in [0, n) {{ for j in [0, m) {{ {body} }} }} }}")
    with pytest.raises(LoopError) as caught:
        change(before)
    assert reason in str(caught.value)
