"""Functions of `mlx.core.fast`: compositions that compilation fuses into a few kernels."""

from __future__ import annotations

import math
from typing import Any

from ingot.tracer import dims as extents
from ingot.tracer import dtypes
from ingot.tracer.array import array
from ingot.tracer.ops import creation, index, reduce, shape
from ingot.tracer.ops import math as ops
from ingot.tracer.ops.coerce import require_array
from ingot.tracer.ops.contract import matmul
from ingot.tracer.primitives.elementwise import show_shape
from ingot.tracer.transforms.control import scan


def _wide(x: array) -> array:
    return x.astype(dtypes.float32) if x.dtype in (dtypes.float16, dtypes.bfloat16) else x


def _vector(name: str, what: str, x: array, y: array | None) -> None:
    if y is not None and (y.ndim != 1 or not extents.same(y.shape[0], x.shape[-1])):
        raise ValueError(
            f"[{name}] {what} must be a vector of the last extent of x, got {show_shape(y.shape)} for "
            f"{show_shape(x.shape)}."
        )


def rms_norm(x: array, weight: array | None, eps: float, *, stream: Any = None) -> array:
    """`weight * x / sqrt(mean(x^2) + eps)` over the last axis, half precision in float32."""
    a = require_array("rms_norm", x)
    _vector("rms_norm", "weight", a, weight)
    wide = _wide(a)
    out = ops.multiply(wide, ops.rsqrt(ops.add(reduce.mean(ops.square(wide), -1, True), eps))).astype(a.dtype)
    return out if weight is None else ops.multiply(out, weight)


def layer_norm(
    x: array, weight: array | None, bias: array | None, eps: float, *, stream: Any = None
) -> array:
    """`weight * (x - mean(x)) / sqrt(var(x) + eps) + bias` over the last axis, half precision in float32."""
    a = require_array("layer_norm", x)
    _vector("layer_norm", "weight", a, weight)
    _vector("layer_norm", "bias", a, bias)
    wide = _wide(a)
    centered = ops.subtract(wide, reduce.mean(wide, -1, True))
    scale = ops.rsqrt(ops.add(reduce.mean(ops.square(centered), -1, True), eps))
    out = ops.multiply(centered, scale).astype(a.dtype)
    out = out if weight is None else ops.multiply(out, weight)
    return out if bias is None else ops.add(out, bias)


def cross_entropy(logits: array, targets: array, *, stream: Any = None) -> array:
    """`logsumexp(logits) - logits[target]` over the last axis: the loss of class indices, in float32."""
    x, t = require_array("cross_entropy", logits), require_array("cross_entropy", targets)
    if x.ndim < 1 or not extents.same_shape(t.shape, x.shape[:-1]):
        raise ValueError(
            f"[cross_entropy] targets of shape {show_shape(t.shape)} do not fit logits of shape "
            f"{show_shape(x.shape)}."
        )
    x = x.astype(dtypes.float32)
    chosen = index.take_along_axis(x, t[..., None], -1)
    return ops.subtract(reduce.logsumexp(x, -1), chosen[..., 0])


def rope(
    a: array,
    dims: int,
    *,
    traditional: bool,
    base: float | None,
    scale: float,
    offset: int | array,
    freqs: array | None = None,
    stream: Any = None,
) -> array:
    """Rotates pairs of features by angles that grow with the position (Su et al., arXiv:2104.09864).

    Args:
        a: `(B, ..., T, D)`; features from `dims` on stay as they are.
        traditional: a pair is features 2i and 2i + 1 instead of i and i + dims / 2.
        base: pair i turns by `base^(-2i / dims)` with every position.
        scale: factor of positions.
        offset: the first position, for all sequences or one for each.
        freqs: the positions in which each pair turns by 1, instead of `base`.
    """
    x = require_array("rope", a)
    if x.ndim < 3:
        raise ValueError(
            f"[rope] Input must have at least 3 dimensions but got input with {x.ndim} dimensions."
        )
    if (base is None) == (freqs is None):
        raise ValueError("[rope] Only one of base or freqs can have a value.")
    half = dims // 2
    positions = creation.arange(x.shape[-2], dtype=dtypes.float32)
    if isinstance(offset, array):
        first = offset.reshape((-1,) + (1,) * (x.ndim - 2)) if offset.ndim else offset
        positions = ops.add(first.astype(dtypes.float32), positions)
    else:
        positions = ops.add(positions, float(offset))
    positions = ops.multiply(positions, scale)
    if freqs is not None:
        speed = ops.reciprocal(freqs.astype(dtypes.float32))
    else:
        assert base is not None
        speed = ops.exp(ops.multiply(creation.arange(half, dtype=dtypes.float32), -math.log(base) / half))
    angles = ops.multiply(positions[..., None], speed)
    cos, sin = ops.cos(angles), ops.sin(angles)
    turned, rest = x[..., :dims], x[..., dims:]
    pair = (turned[..., ::2], turned[..., 1::2]) if traditional else (turned[..., :half], turned[..., half:])
    first, second = (_wide(part) for part in pair)
    parts = [
        ops.subtract(ops.multiply(first, cos), ops.multiply(second, sin)),
        ops.add(ops.multiply(first, sin), ops.multiply(second, cos)),
    ]
    if traditional:
        out = shape.stack(parts, axis=-1).reshape(turned.shape)
    else:
        out = shape.concatenate(parts, axis=-1)
    return shape.concatenate([out.astype(x.dtype), rest], axis=-1)


def scaled_dot_product_attention(
    q: array,
    k: array,
    v: array,
    *,
    scale: float,
    mask: None | str | array = None,
    sinks: array | None = None,
    force_fused: bool = False,
    stream: Any = None,
) -> array:
    """`softmax(scale * q @ k.T + mask) @ v` for every head; the softmax is computed in float32.

    Args:
        q: `(B, N_q, T_q, D)`; k and v: `(B, N_kv, T_kv, D)` where N_kv divides N_q: heads of q share those
            of k. mask: "causal" (the last positions of q and k coincide), bools that say what is seen, or
            numbers that are added; it broadcasts to `(B, N_q, T_q, T_kv)`.
        sinks: for each head of q a logit that takes part in the softmax and in nothing else.
    """
    name = "scaled_dot_product_attention"
    operands = [require_array(name, x) for x in (q, k, v)]
    for x in operands:
        if x.ndim != 4:
            raise ValueError(f"[{name}] input with shape {show_shape(x.shape)} expected to be rank 4")
    dtype = dtypes.promote(dtypes.promote(operands[0].dtype, operands[1].dtype), operands[2].dtype)
    queries, keys, values = (x.astype(dtype) for x in operands)
    batch, heads, length, width = queries.shape
    groups, span = keys.shape[1], keys.shape[2]
    if not extents.same(heads % groups, 0):
        raise ValueError(f"[{name}] {groups} heads of keys do not divide {heads} of queries.")
    grouped = queries.reshape((batch, groups, heads // groups, length, width))
    scores = matmul(ops.multiply(grouped, scale), shape.swapaxes(keys, -1, -2)[:, :, None])
    scores = scores.reshape((batch, heads, length, span))
    if isinstance(mask, str):
        if mask != "causal":
            raise ValueError(f"[{name}] Mask type must be 'causal' or an array, got {mask!r}.")
        place = ops.add(creation.arange(length)[:, None], span - length)
        mask = ops.greater_equal(place, creation.arange(span))
    wide = _wide(scores)
    if mask is not None:
        m = require_array(name, mask)
        wide = ops.where(m, wide, -math.inf) if m.dtype is dtypes.bool_ else ops.add(wide, m)
    if sinks is not None:
        sink = shape.broadcast_to(sinks.astype(wide.dtype)[:, None, None], (batch, heads, length, 1))
        wide = shape.concatenate([sink, wide], axis=-1)
    weights = reduce.softmax(wide, -1).astype(dtype)
    if sinks is not None:
        weights = weights[..., 1:]
    shared = weights.reshape((batch, groups, heads // groups, length, span))
    return matmul(shared, values[:, :, None]).reshape((batch, heads, length, values.shape[-1]))


def gated_delta_update(
    q: array,
    k: array,
    v: array,
    gamma: array,
    beta: array,
    initial_state: array | None = None,
    mask: array | None = None,
    stream: Any = None,
) -> list[array]:
    """The gated delta rule (Yang et al., arXiv:2412.06464): a state `S` (Dv by Dk for every head of `v`),
    of which each position keeps `gamma S`, moves what it says of `k` towards `v` by `beta`, and reads `S
    q`.

    Args:
        q, k: `(B, T, Hk, Dk)`; heads of v share them, so Hk divides Hv.
        v: `(B, T, Hv, Dv)`.
        gamma: `(B, T, Hv)`, or `(B, T, Hv, Dk)` for a decay of each column. beta: `(B, T, Hv)`.
        initial_state: `(B, Hv, Dv, Dk)`, zeros by default.
        mask: bools `(B, T)`; positions that are false leave the state and give zeros.

    Returns:
        The output `(B, T, Hv, Dv)` in the dtype of `q`, and the last state in float32.
    """
    name = "gated_delta_update"
    for x in (q, k, v):
        if require_array(name, x).ndim != 4:
            raise ValueError(f"[{name}] q, k and v have 4 dimensions, got shape {show_shape(x.shape)}.")
    batch, length, heads, width = v.shape
    groups, size = q.shape[2:]
    if not extents.same(heads % groups, 0):
        raise ValueError(f"[{name}] {groups} heads of keys do not divide {heads} of values.")

    def by_position(x: array) -> array:
        return shape.moveaxis(x.astype(dtypes.float32), 1, 0)

    queries, keys = (shape.repeat(by_position(x), heads // groups, 2) for x in (q, k))
    decay = by_position(gamma)
    decay = decay[..., None, None] if gamma.ndim == 3 else decay[..., None, :]
    seen = creation.ones((batch, length)) if mask is None else mask
    seen = ops.not_equal(shape.moveaxis(seen, 1, 0), 0)[..., None, None, None]
    if initial_state is None:
        state = creation.zeros((batch, heads, width, size))
    else:
        state = initial_state.astype(dtypes.float32)

    def step(state: array, parts: tuple[array, ...]) -> tuple[array, array]:
        query, key, value, kept, rate, here = parts
        faded = ops.multiply(state, kept)
        known = reduce.sum(ops.multiply(faded, key[..., None, :]), -1)
        change = ops.multiply(ops.subtract(value, known), rate[..., None])
        new = ops.add(faded, ops.multiply(change[..., None], key[..., None, :]))
        read = reduce.sum(ops.multiply(new, query[..., None, :]), -1)
        return ops.where(here, new, state), ops.where(here[..., 0], read, 0)

    xs = (queries, keys, by_position(v), decay, by_position(beta), seen)
    state, out = scan(step, state, xs)
    return [shape.moveaxis(out, 0, 1).astype(q.dtype), state]


__all__ = [
    "cross_entropy",
    "gated_delta_update",
    "layer_norm",
    "rms_norm",
    "rope",
    "scaled_dot_product_attention",
]
