"""Initialisers: each makes a function from an array to a new array of its shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import ingot as mx

Initializer = Callable[[mx.array], mx.array]


def constant(value: float, dtype: Any = mx.float32) -> Initializer:
    """Every element is `value`."""
    return lambda a: mx.full(a.shape, value, dtype=dtype)


def normal(mean: float = 0.0, std: float = 1.0, dtype: Any = mx.float32) -> Initializer:
    """Normal with the given mean and standard deviation."""
    return lambda a: mx.random.normal(shape=a.shape, scale=std, loc=mean, dtype=dtype)


def uniform(low: float = 0.0, high: float = 1.0, dtype: Any = mx.float32) -> Initializer:
    """Uniform in [low, high)."""
    return lambda a: mx.random.uniform(low, high, a.shape, dtype=dtype)


def identity(dtype: Any = mx.float32) -> Initializer:
    """The identity matrix; the array must be square."""

    def initializer(a: mx.array) -> mx.array:
        if a.ndim != 2 or a.shape[0] != a.shape[1]:
            raise ValueError(f"[identity] expected a square matrix, not shape {a.shape}")
        return mx.eye(int(a.shape[0]), dtype=dtype)

    return initializer


def sparse(sparsity: float, mean: float = 0.0, std: float = 1.0, dtype: Any = mx.float32) -> Initializer:
    """Normal, with `ceil(sparsity * columns)` random elements of each row set to zero; the array must be a
    matrix.
    """

    def initializer(a: mx.array) -> mx.array:
        if a.ndim != 2:
            raise ValueError(f"[sparse] expected a matrix, not shape {a.shape}")
        zeros = math.ceil(sparsity * a.shape[1])
        order = mx.argsort(mx.random.uniform(shape=a.shape), axis=1)
        values = mx.random.normal(shape=a.shape, scale=std, loc=mean, dtype=dtype)
        return mx.where(order < zeros, mx.zeros(a.shape, dtype), values)

    return initializer


def glorot_normal(dtype: Any = mx.float32) -> Callable[..., mx.array]:
    """Normal with standard deviation `gain * √(2 / (fan_in + fan_out))` (Glorot and Bengio, AISTATS 2010).

    The function made takes `(a, gain=1.0)`.
    """

    def initializer(a: mx.array, gain: float = 1.0) -> mx.array:
        std = gain * math.sqrt(2.0 / sum(_fans("glorot_normal", a)))
        return mx.random.normal(shape=a.shape, scale=std, dtype=dtype)

    return initializer


def glorot_uniform(dtype: Any = mx.float32) -> Callable[..., mx.array]:
    """Uniform in ±`gain * √(6 / (fan_in + fan_out))`; the function made takes `(a, gain=1.0)`."""

    def initializer(a: mx.array, gain: float = 1.0) -> mx.array:
        bound = gain * math.sqrt(6.0 / sum(_fans("glorot_uniform", a)))
        return mx.random.uniform(-bound, bound, a.shape, dtype=dtype)

    return initializer


def he_normal(dtype: Any = mx.float32) -> Callable[..., mx.array]:
    """Normal with standard deviation `gain / √fan` (He et al., arXiv:1502.01852).

    The function made takes `(a, mode="fan_in" | "fan_out", gain=1.0)`.
    """

    def initializer(
        a: mx.array, mode: Literal["fan_in", "fan_out"] = "fan_in", gain: float = 1.0
    ) -> mx.array:
        std = gain / math.sqrt(_fan("he_normal", a, mode))
        return mx.random.normal(shape=a.shape, scale=std, dtype=dtype)

    return initializer


def he_uniform(dtype: Any = mx.float32) -> Callable[..., mx.array]:
    """Uniform in ±`gain * √(3 / fan)`; the function made takes `(a, mode="fan_in" | "fan_out", gain=1.0)`."""

    def initializer(
        a: mx.array, mode: Literal["fan_in", "fan_out"] = "fan_in", gain: float = 1.0
    ) -> mx.array:
        bound = gain * math.sqrt(3.0 / _fan("he_uniform", a, mode))
        return mx.random.uniform(-bound, bound, a.shape, dtype=dtype)

    return initializer


def _fans(name: str, a: mx.array) -> tuple[int, int]:
    """`(fan_in, fan_out)` of a weight (out, ..., in)."""
    if a.ndim < 2:
        raise ValueError(f"[{name}] expected at least 2 dimensions, not shape {a.shape}")
    receptive_field = math.prod(a.shape[1:-1])
    return a.shape[-1] * receptive_field, a.shape[0] * receptive_field


def _fan(name: str, a: mx.array, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"[{name}] mode must be 'fan_in' or 'fan_out', not {mode!r}")
    return _fans(name, a)[mode == "fan_out"]
