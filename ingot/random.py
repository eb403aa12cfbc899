"""Random numbers with explicit or global keys, bit for bit those of MLX for equal keys.

A key is two uint32 words. Functions called without one take it from the global `state`, a list of one key
that `compile(inputs=random.state, outputs=random.state)` can capture.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, leaf, record, record_all, wrap
from ingot.tracer.dims import Extent
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import AxisError, ShapeError
from ingot.tracer.graph import Literal
from ingot.tracer.ops.index import take
from ingot.tracer.ops.math import erf, erfinv, floor, log, log1p, maximum, minimum, sign, sqrt
from ingot.tracer.ops.reduce import argmax
from ingot.tracer.ops.shape import as_extent, as_shape, broadcast_shapes, broadcast_to, expand_dims
from ingot.tracer.ops.sort import argsort
from ingot.tracer.primitives.elementwise import show_shape
from ingot.tracer.primitives.linalg import Eigh
from ingot.tracer.primitives.random_bits import RandomBits

# The largest number below 1, and with a minus sign the smallest above -1.
_BELOW_ONE = {
    dtypes.float16: 1 - 2.0**-11,
    dtypes.bfloat16: 1 - 2.0**-8,
    dtypes.float32: 1 - 2.0**-24,
    dtypes.float64: 1 - 2.0**-53,
}


# -- keys ---------------------------------------------------------------------------------------------


def key(seed: int) -> array:
    """The key of an integer seed, 0 <= seed < 2**64."""
    if not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise TypeError(f"[key] a seed is an int with 0 <= seed < 2**64, got {seed!r}.")
    return wrap(leaf(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)))


def split(key: array, num: int = 2, stream: Any = None) -> array:
    """`num` new keys from one: uint32 of shape (num, 2)."""
    return _bits((as_extent("split", num), 2), 4, key)


state: list[array] = [key(time.time_ns() // 1_000_000)]
"""The global key."""


def seed(seed: int) -> None:
    """Set the global key."""
    state[0]._value = key(seed)._value


def _next_key() -> array:
    """A fresh key; the global one moves on."""
    both = split(state[0])
    fresh = both[1]
    # The same handle stays in the list: compile knows captured state by its handle.
    state[0]._value = both[0]._value
    return fresh


def _bits(shape: tuple[Extent, ...], width: int, key: array | None) -> array:
    """Unsigned integers of `width` bytes."""
    if key is None:
        key = _next_key()
    if not isinstance(key, array):
        raise TypeError(f"[bits] key must be an array, got {type(key).__name__}.")
    if key.dtype is not dtypes.uint32:
        raise ValueError(f"[bits] Expected key type uint32 but received {key.dtype.name}.")
    if key.ndim != 1 or not dims.same(key.shape[0], 2):
        raise ShapeError(f"[bits] Expected key shape (2) but received {show_shape(key.shape)}.")
    return record(RandomBits(shape, width), key._value)


# -- distributions ------------------------------------------------------------------------------------


def _in(x: Any, dtype: Dtype) -> array:
    """A scalar or array argument in `dtype`."""
    if isinstance(x, bool | int | float):
        return wrap(Literal(x, dtype))
    found = x if isinstance(x, array) else array(x)
    return found if found.dtype is dtype else found.astype(dtype)


def _shape(name: str, shape: Any) -> tuple[Extent, ...]:
    if not isinstance(shape, list | tuple):
        raise TypeError(f"[{name}] shape must be a sequence of extents, got {type(shape).__name__}.")
    return as_shape(name, shape)


def _must_broadcast(name: str, shape: tuple[Extent, ...], *parts: tuple[Extent, ...]) -> None:
    common = broadcast_shapes(shape, *parts)
    if len(common) != len(shape):
        raise ShapeError(
            f"[{name}] Cannot generate random values of shape {show_shape(shape)} from broadcasted shape "
            f"{show_shape(common)}."
        )


def uniform(
    low: Any = 0,
    high: Any = 1,
    shape: Sequence[Extent] = (),
    dtype: Dtype | None = dtypes.float32,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Numbers of `shape`, evenly distributed in [low, high); the bounds broadcast to `shape`.

    Raises:
        ValueError: when `dtype` is not floating, or the bounds do not broadcast to `shape`.
    """
    dtype = dtype or dtypes.float32
    if not dtype.is_floating:
        raise ValueError("[uniform] Can only generate uniform numbers with real floating point type.")
    wanted = _shape("uniform", shape)
    start = _in(low, dtype)
    extent = _in(high, dtype) - start
    _must_broadcast("uniform", wanted, extent.shape)
    work = dtypes.float64 if dtype is dtypes.float64 else dtypes.float32
    unit = _bits(wanted, 4, key).astype(work) / wrap(Literal((1 << 32) - 1, work))
    unit = minimum(unit, wrap(Literal(_BELOW_ONE[dtype], work)))
    return extent * (unit if dtype is work else unit.astype(dtype)) + start


def _symmetric(shape: Sequence[Extent], dtype: Dtype, key: array | None) -> array:
    """Uniform numbers in (-1, 1), at least in float32."""
    work = dtypes.float64 if dtype is dtypes.float64 else dtypes.float32
    return uniform(-_BELOW_ONE[work], 1, shape, work, key)


def normal(
    shape: Sequence[Extent] = (),
    dtype: Dtype | None = dtypes.float32,
    loc: Any = None,
    scale: Any = None,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Normally distributed numbers: sqrt(2) erfinv(u), times `scale`, plus `loc`, which broadcast.

    Raises:
        ValueError: when `dtype` is not floating.
    """
    dtype = dtype or dtypes.float32
    if not dtype.is_floating:
        raise ValueError(f"[normal] Only floating point types are supported, got {dtype.name}.")
    factor = wrap(Literal(math.sqrt(2), dtype))
    if scale is not None:
        factor = _in(scale, dtype) * factor
    samples = _in(erfinv(_symmetric(shape, dtype, key)), dtype) * factor
    if loc is not None:
        samples = samples + _in(loc, dtype)
    return samples


def randint(
    low: Any,
    high: Any,
    shape: Sequence[Extent] = (),
    dtype: Dtype | None = dtypes.int32,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Integers of `shape` in [low, high), made from uniform float32 numbers; the bounds broadcast.

    Raises:
        ValueError: when `dtype` is not an integer type or bool.
    """
    dtype = dtype or dtypes.int32
    if dtype.is_inexact:
        raise ValueError("[randint] randint only accepts integer dtypes and bool.")
    u = uniform(low, high, shape, dtypes.float32, key)
    return floor(maximum(u, _in(low, dtypes.float32))).astype(dtype)


def bernoulli(
    p: Any = 0.5, shape: Sequence[Extent] | None = None, key: array | None = None, stream: Any = None
) -> array:
    """Booleans that are true with probability `p`, which broadcasts to `shape` (by default its own)."""
    if isinstance(p, array) and not p.dtype.is_floating:
        raise ValueError("[bernoulli] bernoulli probability `p` must be a float type.")
    chance = p if isinstance(p, array) else _in(p, dtypes.float32)
    wanted = chance.shape if shape is None else _shape("bernoulli", shape)
    _must_broadcast("bernoulli", wanted, chance.shape)
    return uniform(0, 1, wanted, dtypes.float32, key) < broadcast_to(chance, wanted)


def truncated_normal(
    lower: Any,
    upper: Any,
    shape: Sequence[Extent] | None = None,
    dtype: Dtype | None = dtypes.float32,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Normally distributed numbers within [lower, upper], which broadcast to `shape`."""
    dtype = dtype or dtypes.float32
    if not dtype.is_floating:
        raise ValueError("[truncated_normal] Only real floating point types are supported.")
    low, high = _in(lower, dtype), _in(upper, dtype)
    wanted = broadcast_shapes(low.shape, high.shape) if shape is None else shape
    root = wrap(Literal(math.sqrt(2), dtype))
    u = uniform(erf(low / root), erf(high / root), wanted, dtype, key)
    # rounding may lead just out of the bounds
    return maximum(minimum(high, root * erfinv(u)), low)


def gumbel(
    shape: Sequence[Extent] = (),
    dtype: Dtype | None = dtypes.float32,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Numbers with the standard Gumbel distribution: -log(-log(u))."""
    return -log(-log(uniform(0, 1, shape, dtype, key)))


def laplace(
    shape: Sequence[Extent] = (),
    dtype: Dtype | None = dtypes.float32,
    loc: float = 0.0,
    scale: float = 1.0,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Numbers with the Laplace distribution around `loc`, from its inverse distribution function."""
    dtype = dtype or dtypes.float32
    if not dtype.is_floating:
        raise ValueError("[laplace] Only real floating point types are supported.")
    u = _symmetric(shape, dtype, key)
    samples = _in(sign(u) * log1p(-abs(u)), dtype)
    if scale != 1:
        samples = samples * _in(scale, dtype)
    return samples + _in(loc, dtype) if loc != 0 else samples


def categorical(
    logits: array,
    axis: int = -1,
    shape: Sequence[Extent] | None = None,
    num_samples: int | None = None,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Indices along `axis` drawn with the probabilities softmax(logits), as uint32.

    shape: of the result; the shape of `logits` without `axis` broadcasts to it. num_samples: adds a last axis
    with that many samples instead.

    Raises:
        ValueError: for both `shape` and `num_samples`, or a shape that does not fit.
        IndexError: for an axis out of range.
    """
    if shape is not None and num_samples is not None:
        raise ValueError("[categorical] At most one of shape or num_samples can be specified.")
    if not -logits.ndim <= axis < logits.ndim:
        raise AxisError(f"[categorical] Invalid axis {axis} for logits with {logits.ndim} dimensions.")
    at = axis + logits.ndim if axis < 0 else axis
    if num_samples is not None:
        noise = gumbel((*logits.shape, as_extent("categorical", num_samples)), key=key)
        return argmax(expand_dims(logits, -1) + noise, at)
    if shape is None:
        return argmax(logits + gumbel(logits.shape, key=key), at)
    wanted = _shape("categorical", shape)
    reduced = (*logits.shape[:at], *logits.shape[at + 1 :])
    _must_broadcast("categorical", wanted, reduced)
    from_end = len(wanted) - (logits.ndim - 1 - at)
    noise = gumbel((*wanted[:from_end], logits.shape[at], *wanted[from_end:]), key=key)
    return argmax(logits + noise, from_end)


def permutation(x: int | array, axis: int = 0, key: array | None = None, stream: Any = None) -> array:
    """The numbers below `x` in random order (uint32), or an array with its slices along `axis` in random
    order."""
    if isinstance(x, int):
        return _order(x, key)
    if not isinstance(x, array):
        raise TypeError(f"[permutation] expected an int or an array, got {type(x).__name__}.")
    if not -x.ndim <= axis < x.ndim:
        raise AxisError(f"[permutation] Invalid axis {axis} for array with {x.ndim} dimensions.")
    return take(x, _order(x.shape[axis], key), axis)


def _order(n: Extent, key: array | None) -> array:
    return argsort(_bits((n,), 4, key))


def multivariate_normal(
    mean: array,
    cov: array,
    shape: Sequence[Extent] = (),
    dtype: Dtype | None = dtypes.float32,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Vectors with a normal distribution of the given `mean` (..., n) and covariance `cov` (..., n, n),
    which must be symmetric and not negative.

    shape: of the result without its last axis; the leading axes of `mean` and `cov` broadcast to it.
    """
    if dtype not in (None, dtypes.float32):
        raise ValueError("[multivariate_normal] dtype must be float32.")
    if mean.ndim < 1 or cov.ndim < 2:
        raise ValueError("[multivariate_normal] mean needs one dimension or more, cov two or more.")
    n = mean.shape[-1]
    if not dims.same(cov.shape[-1], n) or not dims.same(cov.shape[-2], n):
        raise ValueError("[multivariate_normal] the covariances must be square matrices that fit the mean.")
    lead = broadcast_shapes(mean.shape[:-1], cov.shape[:-2])
    wanted = _shape("multivariate_normal", list(shape)) or lead
    _must_broadcast("multivariate_normal", wanted, lead)
    values, vectors = record_all(Eigh(), cov.astype(dtypes.float32)._value)
    root = (vectors * sqrt(maximum(values, 0))[..., None, :]) @ vectors.swapaxes(-1, -2)
    noise = normal((*wanted, n), key=key)
    return (noise[..., None, :] @ root)[..., 0, :] + mean
