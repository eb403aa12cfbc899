"""Reductions of all elements, of columns and of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.row import Inputs, OnnxModel, Row, normal, onnx_model


class Sum(Row):
    """Sum of all elements."""

    name = "W6"
    title = "sum of 16M"
    target = 1.1
    limit = "64 MB read, half of it from the last cache level"
    size = 16 << 20
    read, written = 4 * size, 4
    rtol, atol = 1e-5, 1.0  # absolute values sum to 1.3e7, half an ulp of which is 0.5; MLX adds serially

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, self.size),)

    def oracle(self, x: np.ndarray) -> Inputs:
        return (x.sum(dtype=np.float64),)

    def ingot(self, mx: Any) -> Callable:
        return lambda x: mx.sum(x)

    def numpy(self, np: Any) -> Callable:
        return lambda x: np.sum(x)

    def jax(self, jax: Any) -> Callable:
        return lambda x: jax.numpy.sum(x)

    def torch(self, torch: Any) -> Callable:
        return lambda x: torch.sum(x)

    def numba(self, nb: Any) -> Callable:
        prange = nb.prange

        def total(x):
            result = np.float32(0)
            for i in prange(x.size):
                result += x[i]
            return result

        return total

    def onnxruntime(self, ort: Any) -> OnnxModel:
        return onnx_model(f"float[{self.size}] x", "float y", "y = ReduceSum <keepdims = 0> (x)")


class MeanVariance(Row):
    """Mean and variance along one axis of a square matrix."""

    shape = (4096, 4096)
    limit = "64 MB read once"
    read, written = 4 * 4096 * 4096, 2 * 4 * 4096
    several = True

    def __init__(self, name: str, axis: int, target: float) -> None:
        self.name, self.axis, self.target = name, axis, target
        self.title = f"mean + variance over axis {axis}, (4096, 4096)"

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, *self.shape),)

    def oracle(self, x: np.ndarray) -> Inputs:
        return x.mean(self.axis, dtype=np.float64), x.var(self.axis, dtype=np.float64)

    def ingot(self, mx: Any) -> Callable:
        return lambda x: (mx.mean(x, axis=self.axis), mx.var(x, axis=self.axis))

    def numpy(self, np: Any) -> Callable:
        return lambda x: (x.mean(self.axis), x.var(self.axis))

    def jax(self, jax: Any) -> Callable:
        return lambda x: (x.mean(self.axis), x.var(self.axis))

    def torch(self, torch: Any) -> Callable:
        return lambda x: (x.mean(self.axis), x.var(self.axis, correction=0))

    def numba(self, nb: Any) -> Callable:
        return _numba_rows(nb.prange) if self.axis else _numba_columns(nb.prange)

    def onnxruntime(self, ort: Any) -> OnnxModel:
        body = f"""axes = Constant <value_ints = [{self.axis}]> ()
            mean = ReduceMean <keepdims = 1> (x, axes)
            d = Sub (x, mean)
            v = ReduceSumSquare <keepdims = 0> (d, axes)
            n = Constant <value_float = 4096.0> ()
            var = Div (v, n)
            m = Squeeze (mean, axes)"""
        return onnx_model("float[4096,4096] x", "float[4096] m, float[4096] var", body)


def _numba_rows(prange: Any) -> Callable:
    def mean_variance(x):
        mean, variance = np.empty(x.shape[0], x.dtype), np.empty(x.shape[0], x.dtype)
        inverse = np.float32(1 / x.shape[1])
        for i in prange(x.shape[0]):
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += x[i, j]
            centre = total * inverse
            squares = np.float32(0)
            for j in range(x.shape[1]):
                squares += (x[i, j] - centre) * (x[i, j] - centre)
            mean[i], variance[i] = centre, squares * inverse
        return mean, variance

    return mean_variance


def _numba_columns(prange: Any) -> Callable:
    """Blocks of columns, two passes down each: what somebody who knows about cache lines would write."""
    width = 256

    def mean_variance(x):
        mean, variance = np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
        inverse = np.float32(1 / x.shape[0])
        for block in prange(x.shape[1] // width):
            m, v = mean[block * width : (block + 1) * width], variance[block * width : (block + 1) * width]
            for i in range(x.shape[0]):
                for j in range(width):
                    m[j] += x[i, block * width + j]
            for j in range(width):
                m[j] *= inverse
            for i in range(x.shape[0]):
                for j in range(width):
                    d = x[i, block * width + j] - m[j]
                    v[j] += d * d
            for j in range(width):
                v[j] *= inverse
        return mean, variance

    return mean_variance


ROWS = (Sum(), MeanVariance("W6b", 0, 4.0), MeanVariance("W6c", 1, 1.1))
