"""Encodings of positions for attention."""

from __future__ import annotations

import math
from typing import Any

import ingot as mx
from ingot.nn.layers.base import Module


class RoPE(Module):
    """Rotates pairs of features by angles that grow with the position (Su et al., arXiv:2104.09864).

    `x` is (..., L, D); position p (plus `offset`, times `scale`) turns pair i by p · base^(−2i/dims). A
    pair is features (i, i + dims/2), or with `traditional` (2i, 2i + 1). Features from `dims` on are left
    as they are.
    """

    def __init__(self, dims: int, traditional: bool = False, base: float = 10000, scale: float = 1.0) -> None:
        super().__init__()
        self.dims = dims
        self.traditional = traditional
        self.base = base
        self.scale = scale

    def _extra_repr(self) -> str:
        return f"{self.dims}, traditional={self.traditional}"

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        half = self.dims // 2
        positions = (mx.arange(x.shape[-2], dtype=mx.float32) + offset) * self.scale
        frequencies = mx.exp(mx.arange(half, dtype=mx.float32) * (-math.log(self.base) / half))
        angles = mx.expand_dims(positions, -1) * frequencies
        cos, sin = mx.cos(angles), mx.sin(angles)
        turned, rest = x[..., : self.dims], x[..., self.dims :]
        if self.traditional:
            a, b = turned[..., ::2], turned[..., 1::2]
            y = mx.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(turned.shape)
        else:
            a, b = turned[..., :half], turned[..., half:]
            y = mx.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
        y = y.astype(x.dtype)
        return mx.concatenate([y, rest], axis=-1) if self.dims < x.shape[-1] else y


class SinusoidalPositionalEncoding(Module):
    """Sines and cosines of positions at `dims`/2 frequencies (Vaswani et al., arXiv:1706.03762).

    Positions (...) give (..., dims): first the sines, then the cosines, or the other way with `cos_first`,
    times `scale` (√(2/dims) when None). The frequencies go geometrically from `max_freq` to `min_freq`, in
    turns with `full_turns`.
    """

    def __init__(
        self,
        dims: int,
        min_freq: float = 0.0001,
        max_freq: float = 1,
        scale: float | None = None,
        cos_first: bool = False,
        full_turns: bool = False,
    ) -> None:
        super().__init__()
        if dims <= 0 or dims % 2:
            raise ValueError(f"[SinusoidalPositionalEncoding] dims must be positive and even, not {dims}")
        count = dims // 2
        step = math.log(min_freq / max_freq) / max(count - 1, 1)
        turn = 2 * math.pi if full_turns else 1.0
        self._sigmas = mx.array([max_freq * turn * math.exp(step * i) for i in range(count)], mx.float32)
        self.scale = scale or math.sqrt(2 / dims)
        self.cos_first = cos_first

    def __call__(self, x: mx.array) -> mx.array:
        angles = mx.expand_dims(x, -1) * self._sigmas
        parts = [mx.cos(angles), mx.sin(angles)] if self.cos_first else [mx.sin(angles), mx.cos(angles)]
        y = mx.concatenate(parts, axis=-1)
        return y if self.scale == 1 else y * self.scale


class ALiBi(Module):
    """Adds −slope · |query position − key position| to attention scores (B, heads, Q, K) (Press et al.,
    arXiv:2108.12409).

    `offset` is the position of the first query; `mask` is added too.
    """

    @staticmethod
    def create_alibi_slope(num_heads: int, dtype: Any = mx.float32) -> mx.array:
        """Slopes (heads, 1, 1): 2^(−8i/n) for n heads, and between them where n is no power of two."""
        whole = 2 ** int(math.log2(num_heads))
        slopes = [2.0 ** (-8 * i / whole) for i in range(1, whole + 1)]
        slopes += [2.0 ** (-4 * i / whole) for i in range(1, 2 * (num_heads - whole), 2)]
        return mx.array(slopes, dtype).reshape(num_heads, 1, 1)

    @staticmethod
    def create_alibi_matrix(
        q_sequence_length: int | mx.Dim,
        k_sequence_length: int | mx.Dim,
        num_heads: int,
        offset: int = 0,
        dtype: Any = mx.float32,
    ) -> mx.array:
        """What is added to scores, (1, heads, Q, K); the queries are at `offset` … Q − 1."""
        queries, keys = mx.arange(offset, q_sequence_length), mx.arange(k_sequence_length)
        distance = mx.abs(mx.expand_dims(queries, 1) - mx.expand_dims(keys, 0))
        return mx.expand_dims(-distance.astype(dtype) * ALiBi.create_alibi_slope(num_heads, dtype), 0)

    def __call__(self, attention_scores: mx.array, offset: int = 0, mask: mx.array | None = None) -> mx.array:
        _, heads, queries, keys = attention_scores.shape
        bias = self.create_alibi_matrix(queries + offset, keys, int(heads), offset, attention_scores.dtype)
        if mask is not None:
            bias = bias + mask
        return attention_scores + bias
