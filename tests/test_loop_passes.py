"""Scheduling passes on random loop nests and on GEMM: what is compiled after a pass computes what was
computed before it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from ingot.lowering.llvm import codegen, target
from ingot.lowering.loop import Kernel
from ingot.lowering.loop_text import parse_kernel, print_kernel
from ingot.lowering.loop_verify import verify
from ingot.lowering.passes.parallelise import parallelise
from ingot.lowering.passes.reorder import reorder
from ingot.lowering.passes.split import split, tile
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


def run(kernel: Kernel, buffers: list[np.ndarray], params: list[int]) -> list[np.ndarray]:
    """The buffers after the kernel, which gets copies."""
    loaded = load(codegen.compile_kernels([kernel], HOST))
    try:
        return [call(loaded.address(kernel.name), buffers, params)][0]
    finally:
        loaded.unload()


def call(address: int, buffers: list[np.ndarray], params: list[int]) -> list[np.ndarray]:
    mine = [b.copy() for b in buffers]
    assert call_kernel(address, mine, params)[0] == 0
    return mine


def check(before: Kernel, after: Kernel, cases: list[tuple[list[np.ndarray], list[int]]], close: bool = False
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


def arrays(dtypes: list[str], size: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    names = {"f32": np.float32, "i32": np.int32}
    return [rng.integers(-50, 50, size).astype(names[d]) / names[d](1 if d == "i32" else 8)
            if d == "f32" else rng.integers(-50, 50, size).astype(np.int32) for d in dtypes]


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
    "vectorise, jam, jam": (
        lambda k: unroll_and_jam(unroll_and_jam(vectorise(k, "j", 8), "j", 2), "i", 3), False),
    "peeled vectors, jam, jam": (
        lambda k: unroll_and_jam(unroll_and_jam(vectorise(k, "j", 8, "peeled"), "j", 2), "i", 3), False),
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
