"""Work on rows: reductions along the last axis with maps before, between and after them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.row import Inputs, OnnxModel, Row, normal, onnx_model

EPSILON = 1e-5


class Softmax(Row):
    """exp(x − max) / Σ exp(x − max) of each row."""

    name = "W4"
    title = "softmax of rows (4096, 1024)"
    target = 1.2
    limit = "32 MB moved"
    shape = (4096, 1024)
    read = written = 4 * 4096 * 1024

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, *self.shape),)

    def oracle(self, x: np.ndarray) -> Inputs:
        e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
        return (e / e.sum(-1, keepdims=True),)

    def ingot(self, mx: Any) -> Callable:
        return lambda x: mx.softmax(x, axis=-1)

    def numpy(self, np: Any) -> Callable:
        def softmax(x):
            e = np.exp(x - x.max(-1, keepdims=True))
            return e / e.sum(-1, keepdims=True)

        return softmax

    def numba(self, nb: Any) -> Callable:
        prange = nb.prange

        def softmax(x):
            out = np.empty_like(x)
            for i in prange(x.shape[0]):
                top = np.float32(-np.inf)
                for j in range(x.shape[1]):
                    top = max(top, x[i, j])
                total = np.float32(0)
                for j in range(x.shape[1]):
                    e = math.exp(x[i, j] - top)
                    out[i, j] = e
                    total += e
                scale = np.float32(1) / total
                for j in range(x.shape[1]):
                    out[i, j] *= scale
            return out

        return softmax

    def jax(self, jax: Any) -> Callable:
        return lambda x: jax.nn.softmax(x, axis=-1)

    def torch(self, torch: Any) -> Callable:
        return lambda x: torch.softmax(x, dim=-1)

    def onnxruntime(self, ort: Any) -> OnnxModel:
        return onnx_model("float[4096,1024] x", "float[4096,1024] y", "y = Softmax <axis = -1> (x)")


class LogSumExp(Row):
    """log Σ exp(x) of each row."""

    name = "W4b"
    title = "logsumexp of rows (4096, 1024)"
    target = 2.0
    limit = "16 MB read"
    shape = (4096, 1024)
    read, written = 4 * 4096 * 1024, 4 * 4096

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, *self.shape),)

    def oracle(self, x: np.ndarray) -> Inputs:
        return (np.log(np.exp(x.astype(np.float64)).sum(-1)),)

    def ingot(self, mx: Any) -> Callable:
        return lambda x: mx.logsumexp(x, axis=-1)

    def numpy(self, np: Any) -> Callable:
        def logsumexp(x):
            top = x.max(-1, keepdims=True)
            return np.log(np.exp(x - top).sum(-1)) + top[:, 0]

        return logsumexp

    def numba(self, nb: Any) -> Callable:
        prange = nb.prange

        def logsumexp(x):
            out = np.empty(x.shape[0], x.dtype)
            for i in prange(x.shape[0]):
                top = np.float32(-np.inf)
                for j in range(x.shape[1]):
                    top = max(top, x[i, j])
                total = np.float32(0)
                for j in range(x.shape[1]):
                    total += math.exp(x[i, j] - top)
                out[i] = math.log(total) + top
            return out

        return logsumexp

    def jax(self, jax: Any) -> Callable:
        return lambda x: jax.nn.logsumexp(x, axis=-1)

    def torch(self, torch: Any) -> Callable:
        return lambda x: torch.logsumexp(x, dim=-1)

    def onnxruntime(self, ort: Any) -> OnnxModel:
        body = "axes = Constant <value_ints = [1]> ()\n y = ReduceLogSumExp <keepdims = 0> (x, axes)"
        return onnx_model("float[4096,1024] x", "float[4096] y", body)


class LayerNorm(Row):
    """Residual and layer normalisation: Ba, Kiros and Hinton, arXiv:1607.06450, section 3."""

    name = "W5"
    title = "layer norm + residual + affine (4096, 768)"
    target = 1.2
    limit = "38 MB moved"
    shape = (4096, 768)
    read, written = 2 * 4 * 4096 * 768, 4 * 4096 * 768

    def inputs(self, rng: np.random.Generator) -> Inputs:
        x, residual = normal(rng, *self.shape), normal(rng, *self.shape)
        return x, residual, normal(rng, self.shape[1]), normal(rng, self.shape[1])

    def oracle(self, x: Any, residual: Any, weight: Any, bias: Any) -> Inputs:
        h = x.astype(np.float64) + residual
        centred = h - h.mean(-1, keepdims=True)
        return (centred / np.sqrt(h.var(-1, keepdims=True) + EPSILON) * weight + bias,)

    def ingot(self, mx: Any) -> Callable:
        def layer_norm(x, residual, weight, bias):
            h = x + residual
            centred = h - mx.mean(h, axis=-1, keepdims=True)
            return centred * mx.rsqrt(mx.var(h, axis=-1, keepdims=True) + EPSILON) * weight + bias

        return layer_norm

    def mlx(self, mx: Any) -> Callable:
        return lambda x, residual, weight, bias: mx.fast.layer_norm(x + residual, weight, bias, EPSILON)

    def numpy(self, np: Any) -> Callable:
        def layer_norm(x, residual, weight, bias):
            h = x + residual
            h -= h.mean(-1, keepdims=True)
            variance = (h * h).mean(-1, keepdims=True)
            return h / np.sqrt(variance + np.float32(EPSILON)) * weight + bias

        return layer_norm

    def numba(self, nb: Any) -> Callable:
        prange = nb.prange

        def layer_norm(x, residual, weight, bias):
            out = np.empty_like(x)
            inverse = np.float32(1 / x.shape[1])
            for i in prange(x.shape[0]):
                total = np.float32(0)
                for j in range(x.shape[1]):
                    h = x[i, j] + residual[i, j]
                    out[i, j] = h
                    total += h
                mean = total * inverse
                squares = np.float32(0)
                for j in range(x.shape[1]):
                    squares += (out[i, j] - mean) * (out[i, j] - mean)
                scale = np.float32(1 / math.sqrt(squares * inverse + np.float32(EPSILON)))
                for j in range(x.shape[1]):
                    out[i, j] = (out[i, j] - mean) * scale * weight[j] + bias[j]
            return out

        return layer_norm

    def jax(self, jax: Any) -> Callable:
        def layer_norm(x, residual, weight, bias):
            h = x + residual
            mean, variance = h.mean(-1, keepdims=True), h.var(-1, keepdims=True)
            return (h - mean) * jax.lax.rsqrt(variance + EPSILON) * weight + bias

        return layer_norm

    def torch(self, torch: Any) -> Callable:
        norm, shape = torch.nn.functional.layer_norm, self.shape[1:]
        return lambda x, residual, weight, bias: norm(x + residual, shape, weight, bias, EPSILON)

    def onnxruntime(self, ort: Any) -> OnnxModel:
        return onnx_model(
            "float[4096,768] x, float[4096,768] r, float[768] w, float[768] b",
            "float[4096,768] y",
            f"h = Add (x, r)\n y = LayerNormalization <axis = -1, epsilon = {EPSILON:f}> (h, w, b)",
        )


class RmsNormGate(Row):
    """Root-mean-square norm (Zhang and Sennrich, arXiv:1910.07467, equation 4) times silu of a gate."""

    name = "W5b"
    title = "rms norm, silu gate (4096, 768)"
    target = 1.8
    limit = "38 MB moved"
    shape = (4096, 768)
    read, written = 2 * 4 * 4096 * 768, 4 * 4096 * 768

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return normal(rng, *self.shape), normal(rng, *self.shape), normal(rng, self.shape[1])

    def oracle(self, x: Any, gate: Any, weight: Any) -> Inputs:
        x, gate = x.astype(np.float64), gate.astype(np.float64)
        norm = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) * weight
        return (norm * gate / (1 + np.exp(-gate)),)

    def ingot(self, mx: Any) -> Callable:
        def gated(x, gate, weight):
            norm = x * mx.rsqrt(mx.mean(x * x, axis=-1, keepdims=True) + EPSILON) * weight
            return norm * gate * mx.sigmoid(gate)

        return gated

    def mlx(self, mx: Any) -> Callable:
        return lambda x, gate, weight: mx.fast.rms_norm(x, weight, EPSILON) * gate * mx.sigmoid(gate)

    def numpy(self, np: Any) -> Callable:
        def gated(x, gate, weight):
            norm = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(EPSILON)) * weight
            return norm * gate / (1 + np.exp(-gate))

        return gated

    def numba(self, nb: Any) -> Callable:
        prange = nb.prange

        def gated(x, gate, weight):
            out = np.empty_like(x)
            inverse, one = np.float32(1 / x.shape[1]), np.float32(1)
            for i in prange(x.shape[0]):
                squares = np.float32(0)
                for j in range(x.shape[1]):
                    squares += x[i, j] * x[i, j]
                scale = np.float32(1 / math.sqrt(squares * inverse + np.float32(EPSILON)))
                for j in range(x.shape[1]):
                    g = gate[i, j]
                    out[i, j] = x[i, j] * scale * weight[j] * g / (one + math.exp(-g))
            return out

        return gated

    def jax(self, jax: Any) -> Callable:
        def gated(x, gate, weight):
            norm = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON) * weight
            return norm * jax.nn.silu(gate)

        return gated

    def torch(self, torch: Any) -> Callable:
        functional, shape = torch.nn.functional, self.shape[1:]

        def gated(x, gate, weight):
            return functional.rms_norm(x, shape, weight, EPSILON) * functional.silu(gate)

        return gated


ROWS = (Softmax(), LogSumExp(), LayerNorm(), RmsNormGate())
