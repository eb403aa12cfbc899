"""Matrix products: large, small, in batches, with one row, in bfloat16, and as a layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from bench.row import SEED, Inputs, OnnxModel, Row, normal, onnx_model
from bench.rows.maps import CUBIC, SCALE


class Matmul(Row):
    """a @ b"""

    def __init__(self, name: str, title: str, a: tuple[int, ...], b: tuple[int, ...], target: float) -> None:
        self.name, self.title, self.a, self.b, self.target = name, title, a, b, target
        self.out = (*a[:-1], b[-1])
        size = int(np.prod(self.out))
        self.read, self.written = 4 * int(np.prod(a) + np.prod(b)), 4 * size
        self.flops = 2 * size * a[-1]
        by_bytes = f"{self.read / 1e6:.0f} MB read"
        self.limit = by_bytes if size < b[-1] * b[-2] / 8 else f"{self.flops / 1e6:.0f} MFLOP"
        self.atol = 1e-5 * a[-1] ** 0.5

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return normal(rng, *self.a), normal(rng, *self.b)

    def oracle(self, a: np.ndarray, b: np.ndarray) -> Inputs:
        return (a.astype(np.float64) @ b.astype(np.float64),)

    def ingot(self, mx: Any) -> Callable:
        return lambda a, b: a @ b

    def numpy(self, np: Any) -> Callable:
        return lambda a, b: a @ b

    def jax(self, jax: Any) -> Callable:
        return lambda a, b: a @ b

    def torch(self, torch: Any) -> Callable:
        return lambda a, b: a @ b

    def onnxruntime(self, ort: Any) -> OnnxModel | None:
        slots = [f"float[{','.join(map(str, shape))}]" for shape in (self.a, self.b, self.out)]
        return onnx_model(f"{slots[0]} a, {slots[1]} b", f"{slots[2]} y", "y = MatMul (a, b)")


class MatmulBfloat16(Matmul):
    """bfloat16 in and out, accumulated in float32; neither NumPy nor ONNX Runtime has it."""

    dtype = "bfloat16"
    rtol = 2**-7  # an ulp of the result: it has 8 bits

    def __init__(self, name: str, title: str, a: tuple[int, ...], b: tuple[int, ...], target: float) -> None:
        super().__init__(name, title, a, b, target)
        self.read, self.written = self.read // 2, self.written // 2
        self.limit += ", dpbf16ps where the processor has it"
        self.atol = 1e-3 * a[-1] ** 0.5

    def inputs(self, rng: np.random.Generator) -> Inputs:
        # numbers of 8 bits, so that the oracle starts from what everybody gets
        return tuple((x.view(np.uint32) & 0xFFFF0000).view(np.float32) for x in super().inputs(rng))

    numpy = None  # type: ignore[assignment]
    onnxruntime = None  # type: ignore[assignment]


class GeluLayer(Row):
    """gelu(x·w + b) with constant w and b: the first half of a feed-forward block."""

    name = "W7f"
    title = "gelu(512×768 · 768×3072 + bias), constant weights"
    target = 1.08
    limit = "2416 MFLOP"
    rows, features, hidden = 512, 768, 3072
    read, written = 4 * (rows * features + features * hidden + hidden), 4 * rows * hidden
    flops = 2 * rows * features * hidden
    atol = 2e-5

    @cached_property
    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(SEED + 1)
        scale = np.float32(self.features**-0.5)
        return normal(rng, self.features, self.hidden) * scale, normal(rng, self.hidden)

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, self.rows, self.features),)

    def oracle(self, x: np.ndarray) -> Inputs:
        w, b = (a.astype(np.float64) for a in self.weights)
        h = x.astype(np.float64) @ w + b
        return (0.5 * h * (1 + np.tanh(SCALE * (h + CUBIC * h**3))),)

    def ingot(self, mx: Any) -> Callable:
        w, b = map(mx.array, self.weights)

        def layer(x):
            h = x @ w + b
            return 0.5 * h * (1 + mx.tanh(SCALE * (h + CUBIC * h * h * h)))

        return layer

    def numpy(self, np: Any) -> Callable:
        w, b = self.weights
        scale, cubic = np.float32(SCALE), np.float32(CUBIC)

        def layer(x):
            h = x @ w
            h += b
            return 0.5 * h * (1 + np.tanh(scale * (h + cubic * h * h * h)))

        return layer

    def jax(self, jax: Any) -> Callable:
        w, b = map(jax.numpy.asarray, self.weights)
        return lambda x: jax.nn.gelu(x @ w + b, approximate=True)

    def torch(self, torch: Any) -> Callable:
        w, b = map(torch.from_numpy, self.weights)
        return lambda x: torch.nn.functional.gelu(torch.addmm(b, x, w), approximate="tanh")

    def onnxruntime(self, ort: Any) -> OnnxModel:
        w, b = self.weights
        return onnx_model(
            "float[512,768] x",
            "float[512,3072] y",
            'm = MatMul (x, w)\n h = Add (m, b)\n y = Gelu <approximate = "tanh"> (h)',
            {"w": w, "b": b},
        )


ROWS = (
    Matmul("W7", "matmul 1024³", (1024, 1024), (1024, 1024), 1.02),
    Matmul("W7b", "matmul 256³", (256, 256), (256, 256), 1.1),
    Matmul("W7c", "64 matmuls 64³", (64, 64, 64), (64, 64, 64), 1.2),
    Matmul("W7d", "gemv (1, 4096) · (4096, 4096)", (1, 4096), (4096, 4096), 1.1),
    MatmulBfloat16("W7e", "matmul 1024³ bfloat16", (1024, 1024), (1024, 1024), 1.02),
    GeluLayer(),
)
