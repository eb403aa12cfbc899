"""Work so small that only the way into the compiled code and back counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.row import Inputs, OnnxModel, Row, normal, onnx_model


class Increment(Row):
    """x + 1"""

    name = "W1"
    title = "x + 1, shape (1,)"
    target = 3.0
    limit = "call overhead"
    small = True
    read = written = 4

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, 1),)

    def oracle(self, x: np.ndarray) -> Inputs:
        return (x.astype(np.float64) + 1,)

    def ingot(self, mx: Any) -> Callable:
        return lambda x: x + 1

    def numpy(self, np: Any) -> Callable:
        return lambda x: x + 1

    def jax(self, jax: Any) -> Callable:
        return lambda x: x + 1

    def torch(self, torch: Any) -> Callable:
        return lambda x: x + 1

    def numba(self, nb: Any) -> Callable:
        one = np.float32(1)
        return lambda x: x + one

    def onnxruntime(self, ort: Any) -> OnnxModel:
        return onnx_model("float[1] x", "float[1] y", "y = Add (x, one)", {"one": np.ones(1, np.float32)})


class SumOfTen(Row):
    """Ten arguments, added."""

    name = "W1b"
    title = "sum of 10 arrays, shape (1,)"
    target = 1.8
    limit = "call overhead"
    small = True
    count = 10
    read, written = 4 * count, 4

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return tuple(normal(rng, 1) for _ in range(self.count))

    def oracle(self, *xs: np.ndarray) -> Inputs:
        return (np.array([math.fsum(float(x[0]) for x in xs)]),)

    def ingot(self, mx: Any) -> Callable:
        return lambda a, b, c, d, e, f, g, h, i, j: a + b + c + d + e + f + g + h + i + j

    def numpy(self, np: Any) -> Callable:
        return self.ingot(np)

    def jax(self, jax: Any) -> Callable:
        return self.ingot(jax.numpy)

    def torch(self, torch: Any) -> Callable:
        return self.ingot(torch)

    def numba(self, nb: Any) -> Callable:
        return self.ingot(np)

    def onnxruntime(self, ort: Any) -> OnnxModel:
        names = [f"x{i}" for i in range(self.count)]
        slots = ", ".join(f"float[1] {name}" for name in names)
        return onnx_model(slots, "float[1] y", f"y = Sum ({', '.join(names)})")


ROWS = (Increment(), SumOfTen())
