"""A transformer block: products, row kernels and views in one function."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from bench.row import SEED, Inputs, OnnxModel, Row, normal, onnx_model
from bench.rows.maps import CUBIC, SCALE

TOKENS, WIDTH, HEADS, HIDDEN = 128, 384, 12, 1536
DEPTH = WIDTH // HEADS
EPSILON = 1e-5


class Weights(NamedTuple):
    """Constants of the block; matrices are (inputs, outputs), `qkv` holds the projections side by side."""

    scale1: Any
    shift1: Any
    qkv: Any
    qkv_bias: Any
    out: Any
    out_bias: Any
    scale2: Any
    shift2: Any
    up: Any
    up_bias: Any
    down: Any
    down_bias: Any


class EncoderBlock(Row):
    """x + attention(norm(x)), then h + feed-forward(norm(h)): the pre-norm form of Vaswani et al.,
    arXiv:1706.03762, section 3 (Xiong et al., arXiv:2002.04745, figure 1b), gelu in its tanh form."""

    name = "W11"
    title = "transformer encoder block d384 h12 ff1536 T128, constant weights"
    target = 1.15
    read = 4 * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN + 9 * WIDTH + HIDDEN + TOKENS * WIDTH)
    written = 4 * TOKENS * WIDTH
    flops = 2 * TOKENS * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN + 2 * TOKENS * WIDTH)
    limit = f"{flops / 1e6:.0f} MFLOP"
    rtol, atol = 1e-4, 1e-4

    @cached_property
    def weights(self) -> Weights:
        rng = np.random.default_rng(SEED + 1)

        def matrix(n: int, m: int) -> np.ndarray:
            return normal(rng, n, m) * np.float32(n**-0.5)

        def vector(n: int, centre: float = 0) -> np.ndarray:
            return np.float32(centre) + np.float32(0.1) * normal(rng, n)

        return Weights(
            *(vector(WIDTH, 1), vector(WIDTH), matrix(WIDTH, 3 * WIDTH), vector(3 * WIDTH)),
            *(matrix(WIDTH, WIDTH), vector(WIDTH), vector(WIDTH, 1), vector(WIDTH)),
            *(matrix(WIDTH, HIDDEN), vector(HIDDEN), matrix(HIDDEN, WIDTH), vector(WIDTH)),
        )

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, TOKENS, WIDTH),)

    def oracle(self, x: np.ndarray) -> Inputs:
        weights = Weights(*(w.astype(np.float64) for w in self.weights))
        return (_numpy_block(x.astype(np.float64), weights),)

    def ingot(self, mx: Any) -> Callable:
        weights = Weights(*map(mx.array, self.weights))

        def norm(x, scale, shift):
            centred = x - mx.mean(x, axis=-1, keepdims=True)
            return centred * mx.rsqrt(mx.var(x, axis=-1, keepdims=True) + EPSILON) * scale + shift

        def attention(q, k, v):
            scores = (q * DEPTH**-0.5) @ mx.swapaxes(k, 1, 2)
            return mx.softmax(scores, axis=-1) @ v

        return _mlx_block(mx, weights, norm, attention)

    def mlx(self, mx: Any) -> Callable:
        def norm(x, scale, shift):
            return mx.fast.layer_norm(x, scale, shift, EPSILON)

        def attention(q, k, v):
            return mx.fast.scaled_dot_product_attention(q[None], k[None], v[None], scale=DEPTH**-0.5)[0]

        return _mlx_block(mx, Weights(*map(mx.array, self.weights)), norm, attention)

    def numpy(self, np: Any) -> Callable:
        return lambda x: _numpy_block(x, self.weights)

    def jax(self, jax: Any) -> Callable:
        jnp, w = jax.numpy, Weights(*map(jax.numpy.asarray, self.weights))

        def norm(x, scale, shift):
            mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
            return (x - mean) * jax.lax.rsqrt(variance + EPSILON) * scale + shift

        def block(x):
            qkv = norm(x, w.scale1, w.shift1) @ w.qkv + w.qkv_bias
            q, k, v = (part.reshape(1, TOKENS, HEADS, DEPTH) for part in jnp.split(qkv, 3, axis=1))
            mixed = jax.nn.dot_product_attention(q, k, v).reshape(TOKENS, WIDTH)
            h = x + mixed @ w.out + w.out_bias
            up = norm(h, w.scale2, w.shift2) @ w.up + w.up_bias
            return h + jax.nn.gelu(up, approximate=True) @ w.down + w.down_bias

        return block

    def torch(self, torch: Any) -> Callable:
        functional, w = torch.nn.functional, Weights(*map(torch.from_numpy, self.weights))

        def block(x):
            n = functional.layer_norm(x, (WIDTH,), w.scale1, w.shift1, EPSILON)
            qkv = torch.addmm(w.qkv_bias, n, w.qkv).view(1, TOKENS, 3, HEADS, DEPTH)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
            mixed = functional.scaled_dot_product_attention(q, k, v)
            mixed = mixed.transpose(1, 2).reshape(TOKENS, WIDTH)
            h = x + torch.addmm(w.out_bias, mixed, w.out)
            n = functional.layer_norm(h, (WIDTH,), w.scale2, w.shift2, EPSILON)
            up = functional.gelu(torch.addmm(w.up_bias, n, w.up), approximate="tanh")
            return h + torch.addmm(w.down_bias, up, w.down)

        return block

    def onnxruntime(self, ort: Any) -> OnnxModel:
        norm = f"LayerNormalization <axis = -1, epsilon = {EPSILON:f}>"
        body = f"""n1 = {norm} (x, scale1, shift1)
            m1 = MatMul (n1, qkv)
            b1 = Add (m1, qkv_bias)
            q0, k0, v0 = Split <axis = 1, num_outputs = 3> (b1)
            q1 = Reshape (q0, heads)
            k1 = Reshape (k0, heads)
            v1 = Reshape (v0, heads)
            q = Transpose <perm = [1, 0, 2]> (q1)
            k = Transpose <perm = [1, 2, 0]> (k1)
            v = Transpose <perm = [1, 0, 2]> (v1)
            s0 = MatMul (q, k)
            s1 = Mul (s0, root)
            s = Softmax <axis = -1> (s1)
            a0 = MatMul (s, v)
            a1 = Transpose <perm = [1, 0, 2]> (a0)
            a = Reshape (a1, joined)
            m2 = MatMul (a, out)
            b2 = Add (m2, out_bias)
            h = Add (x, b2)
            n2 = {norm} (h, scale2, shift2)
            m3 = MatMul (n2, up)
            b3 = Add (m3, up_bias)
            g = Gelu <approximate = "tanh"> (b3)
            m4 = MatMul (g, down)
            b4 = Add (m4, down_bias)
            y = Add (h, b4)"""
        extra = {
            "heads": np.array([TOKENS, HEADS, DEPTH]),
            "joined": np.array([TOKENS, WIDTH]),
            "root": np.float32(DEPTH**-0.5).reshape(()),
        }
        return onnx_model(
            f"float[{TOKENS},{WIDTH}] x", f"float[{TOKENS},{WIDTH}] y", body, self.weights._asdict() | extra
        )


def _mlx_block(mx: Any, w: Weights, norm: Callable, attention: Callable) -> Callable:
    def block(x):
        qkv = norm(x, w.scale1, w.shift1) @ w.qkv + w.qkv_bias
        q, k, v = (
            mx.swapaxes(mx.reshape(part, (TOKENS, HEADS, DEPTH)), 0, 1) for part in mx.split(qkv, 3, axis=1)
        )
        mixed = mx.reshape(mx.swapaxes(attention(q, k, v), 0, 1), (TOKENS, WIDTH))
        h = x + mixed @ w.out + w.out_bias
        up = norm(h, w.scale2, w.shift2) @ w.up + w.up_bias
        gelu = 0.5 * up * (1 + mx.tanh(SCALE * (up + CUBIC * up * up * up)))
        return h + gelu @ w.down + w.down_bias

    return block


def _numpy_block(x: np.ndarray, w: Weights) -> np.ndarray:
    """The block in the precision of the arguments."""
    scalar = x.dtype.type

    def norm(x, scale, shift):
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return centred / np.sqrt(variance + scalar(EPSILON)) * scale + shift

    qkv = norm(x, w.scale1, w.shift1) @ w.qkv + w.qkv_bias
    q, k, v = (part.reshape(TOKENS, HEADS, DEPTH).transpose(1, 0, 2) for part in np.split(qkv, 3, axis=1))
    scores = (q * scalar(DEPTH**-0.5)) @ k.transpose(0, 2, 1)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    mixed = (scores @ v).transpose(1, 0, 2).reshape(TOKENS, WIDTH)
    h = x + mixed @ w.out + w.out_bias
    up = norm(h, w.scale2, w.shift2) @ w.up + w.up_bias
    gelu = scalar(0.5) * up * (1 + np.tanh(scalar(SCALE) * (up + scalar(CUBIC) * up * up * up)))
    return h + gelu @ w.down + w.down_bias


ROWS = (EncoderBlock(),)
