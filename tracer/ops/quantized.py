"""Matrices in few bits: groups of elements in a row share a scale, and are packed in uint32 from the low
bits up.

Modes: "affine" (scale and bias in the dtype of the matrix), and the formats of the OCP Microscaling
specification (version 1.0) and NVIDIA's nvfp4: elements e2m1 or e4m3, scales e8m0 or e4m3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, leaf, wrap
from ingot.tracer.dtypes import Dtype
from ingot.tracer.facts import agree
from ingot.tracer.ops import creation, index, reduce, shape
from ingot.tracer.ops import math as _math
from ingot.tracer.ops.coerce import require_array
from ingot.tracer.ops.contract import gather_mm, matmul
from ingot.tracer.ops.float8 import from_fp8, to_fp8
from ingot.tracer.primitives.elementwise import show_shape


class _Mode(NamedTuple):
    name: str
    group_size: int
    bits: int


_MODES = {m.name: m for m in (_Mode("affine", 64, 4), _Mode("mxfp4", 32, 4), _Mode("mxfp8", 32, 8),
                              _Mode("nvfp4", 16, 4))}  # fmt: skip
_AFFINE_BITS = (1, 2, 3, 4, 5, 6, 8)
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_LEAST_SCALE = 1e-7


def _mode(name: str, mode: str, group_size: int | None, bits: int | None) -> _Mode:
    """The parameters with their defaults; raises ValueError for those that the mode does not have."""
    if mode not in _MODES:
        raise ValueError(f"[{name}] Invalid quantization mode '{mode}'.")
    default = _MODES[mode]
    found = _Mode(mode, group_size or default.group_size, bits or default.bits)
    if mode == "affine":
        if found.bits not in _AFFINE_BITS:
            raise ValueError(
                f"[{name}] The requested number of bits {found.bits} is not supported. The supported bits "
                "are 1, 2, 3, 4, 5, 6 and 8."
            )
        if found.group_size not in (32, 64, 128):
            raise ValueError(
                f"[{name}] The requested group size {found.group_size} is not supported. The supported group "
                "sizes are 32, 64, and 128."
            )
    elif found != default:
        raise ValueError(
            f"[{name}] {mode} quantization requires group size {default.group_size} and {default.bits} bits "
            f"but got {found.group_size} and {found.bits}."
        )
    return found


def _packed(q: array, bits: int) -> array:
    """Integers below 2^bits in uint32 words, along the last axis."""
    *lead, n = q.shape
    words = n * bits // 32
    if 32 % bits == 0:
        parts, step = q.astype(dtypes.uint32).reshape((*lead, words, 32 // bits)), bits
    else:
        places = creation.arange(bits, dtype=dtypes.uint32)
        every = (q.astype(dtypes.uint32)[..., None] >> places) & 1
        parts, step = every.reshape((*lead, words, 32)), 1
    shifts = wrap(leaf(np.arange(0, 32, step, dtype=np.uint32)))
    return reduce.sum(parts << shifts, -1)


def _unpacked(w: array, bits: int) -> array:
    """The integers of `_packed`."""
    *lead, words = w.shape
    if 32 % bits == 0:
        shifts = wrap(leaf(np.arange(0, 32, bits, dtype=np.uint32)))
        return ((w[..., None] >> shifts) & ((1 << bits) - 1)).reshape((*lead, words * (32 // bits)))
    start = np.arange(int(words) * 32 // bits) * bits
    word, offset = start // 32, (start % 32).astype(np.uint32)
    after = np.minimum(word + 1, max(int(words) - 1, 0))
    low = index.take(w, wrap(leaf(word)), -1) >> wrap(leaf(offset))
    high = index.take(w, wrap(leaf(after)), -1) << wrap(leaf(32 - offset))  # a shift by 32 gives 0
    return (low | high) & ((1 << bits) - 1)


def _groups(x: array, size: int) -> array:
    return x.reshape((*x.shape[:-1], x.shape[-1] // size, size))


def quantize(
    w: array,
    /,
    group_size: int | None = None,
    bits: int | None = None,
    mode: str = "affine",
    *,
    global_scale: array | None = None,
    stream: Any = None,
) -> tuple[array, ...]:
    """A matrix in `bits` bits per element, in groups of `group_size` elements of a row.

    Returns:
        Packed elements (uint32) and scales, for "affine" biases too: an element is `scale * q + bias`.

    Raises:
        ValueError: for rank 1, rows that are no multiple of the group size, and what a mode does not have.
    """
    x = require_array("quantize", w)
    m = _mode("quantize", mode, group_size, bits)
    if not x.dtype.is_floating:
        raise ValueError(
            f"[quantize] Only real floating types can be quantized but w has type {x.dtype.name}."
        )
    if x.ndim < 2:
        raise ValueError(
            f"[quantize] The matrix to be quantized must have at least 2 dimension but it has only {x.ndim}."
        )
    if not dims.same(x.shape[-1] % m.group_size, 0):
        raise ValueError(
            "[quantize] The last dimension of the matrix needs to be divisible by the quantization group "
            f"size {m.group_size}. However the provided  matrix has shape {show_shape(x.shape)}"
        )
    if global_scale is not None:
        raise ValueError("[quantize] global_scale is not supported on a CPU.")
    grouped = _groups(x.astype(dtypes.float32), m.group_size)
    return _affine(x, grouped, m) if mode == "affine" else _microscaled(x, grouped, m)


def _affine(x: array, grouped: array, m: _Mode) -> tuple[array, ...]:
    """The end of the range that is farther from zero becomes a multiple of the scale, so that zero stays
    zero."""
    last = (1 << m.bits) - 1
    high, low = reduce.max(grouped, -1, True), reduce.min(grouped, -1, True)
    negative = _math.greater(_math.abs(low), _math.abs(high))
    scale = _math.maximum(_math.divide(_math.subtract(high, low), last), _LEAST_SCALE)
    scale = _math.where(negative, scale, _math.negative(scale))
    edge = _math.where(negative, low, high)
    steps = _math.round(_math.divide(edge, scale))
    some = _math.not_equal(steps, 0)
    if m.bits == 1:  # both ends of the range
        scale, bias = _math.abs(scale), low
    else:
        scale = _math.where(some, _math.divide(edge, _math.where(some, steps, 1)), scale)
        bias = _math.where(some, edge, 0)
    q = _math.clip(_math.round(_math.divide(_math.subtract(grouped, bias), scale)), 0, last)
    return _packed(q.reshape(x.shape), m.bits), scale[..., 0].astype(x.dtype), bias[..., 0].astype(x.dtype)


def _microscaled(x: array, grouped: array, m: _Mode) -> tuple[array, ...]:
    largest = reduce.max(_math.abs(grouped), -1, True)
    ratio = _math.divide(largest, 448.0 if m.bits == 8 else 6.0)
    if m.name == "nvfp4":
        code = to_fp8(ratio)
    else:  # the next power of 2
        some = _math.greater(ratio, 0)
        exponent = _math.ceil(_math.log2(_math.where(some, ratio, 1)))
        code = _math.clip(_math.add(exponent, 127), 0, 254).astype(dtypes.uint8)
    scale = _scales(code, m)
    some = _math.not_equal(scale, 0)
    scaled = _math.where(some, _math.divide(grouped, _math.where(some, scale, 1)), 0).reshape(x.shape)
    return _packed(to_fp8(scaled) if m.bits == 8 else _to_e2m1(scaled), m.bits), code[..., 0]


def _to_e2m1(x: array) -> array:
    """The nearest numbers, ties towards zero; zero has no sign."""
    size = _math.abs(x)
    code = creation.zeros(x.shape, dtypes.uint32)
    for middle in ((_E2M1[1:] + _E2M1[:-1]) / 2).tolist():
        code = _math.add(code, _math.greater(size, middle).astype(dtypes.uint32))
    negative = _math.logical_and(_math.less(x, 0), _math.greater(code, 0))
    return _math.add(code, _math.where(negative, 8, 0).astype(dtypes.uint32))


def _scales(code: array, m: _Mode) -> array:
    if m.name == "nvfp4":
        return from_fp8(code, dtypes.float32)
    return _math.power(2.0, _math.subtract(code.astype(dtypes.float32), 127))


def dequantize(
    w: array,
    /,
    scales: array,
    biases: array | None = None,
    group_size: int | None = None,
    bits: int | None = None,
    mode: str = "affine",
    global_scale: array | None = None,
    dtype: Dtype | None = None,
    *,
    stream: Any = None,
) -> array:
    """The matrix that `quantize` packed, in `dtype`: by default that of the scales, else bfloat16."""
    return _expanded(
        "dequantize", w, scales, biases, _mode("dequantize", mode, group_size, bits), global_scale, dtype
    )


def _expanded(
    name: str,
    w: array,
    scales: array,
    biases: array | None,
    m: _Mode,
    global_scale: array | None = None,
    dtype: Dtype | None = None,
) -> array:
    x, s = require_array(name, w), require_array(name, scales)
    if global_scale is not None:
        raise ValueError(f"[{name}] global_scale is not supported on a CPU.")
    if x.dtype is not dtypes.uint32:
        raise ValueError(f"[{name}] The matrix should be given as a uint32, got {x.dtype.name}.")
    if m.name == "affine" and biases is None:
        raise ValueError(f"[{name}] Biases must be provided for affine quantization.")
    count = x.shape[-1] * 32 // m.bits if x.ndim else 0
    fits = x.ndim >= 2 and s.ndim == x.ndim and agree(s.shape[-1] * m.group_size, count)
    if not fits or (biases is not None and not dims.same_shape(biases.shape, s.shape)):
        raise ValueError(
            f"[{name}] Shape of scales and biases does not match the matrix given the quantization "
            f"parameters. Provided matrix of shape {show_shape(x.shape)} and scales/biases of shape "
            f"{show_shape(s.shape)} with group_size={m.group_size} and bits={m.bits}."
        )
    q = _unpacked(x, m.bits)
    if m.name == "affine":
        assert biases is not None
        values = _math.add(
            _math.multiply(_groups(q.astype(s.dtype), m.group_size), s[..., None]), biases[..., None]
        )
        return values.reshape(q.shape).astype(dtype or s.dtype)
    if m.bits == 8:
        elements = from_fp8(q.astype(dtypes.uint8), dtypes.float32)
    else:
        elements = index.take(wrap(leaf(np.concatenate([_E2M1, -_E2M1]))), q)
    values = _math.multiply(_groups(elements, m.group_size), _scales(s, m)[..., None])
    return values.reshape(q.shape).astype(dtype or dtypes.bfloat16)


def _factor(
    name: str, x: array, w: array, scales: array, biases: array | None, m: _Mode, transpose: bool
) -> tuple[array, array]:
    """Both factors of a product in one dtype."""
    a = require_array(name, x)
    wanted = dtypes.promote(a.dtype, scales.dtype) if m.name == "affine" else a.dtype
    b = _expanded(name, w, scales, biases, m, None, wanted)
    b = shape.swapaxes(b, -1, -2) if transpose else b
    if a.ndim < 1 or not agree(a.shape[-1], b.shape[-2]):
        raise ValueError(
            f"[{name}] Last dimension of first input with shape {show_shape(a.shape)} does not match the "
            f"expanded quantized matrix {show_shape(b.shape[-2:])}."
        )
    return a.astype(wanted), b


def quantized_matmul(
    x: array,
    w: array,
    /,
    scales: array,
    biases: array | None = None,
    transpose: bool = True,
    group_size: int | None = None,
    bits: int | None = None,
    mode: str = "affine",
    *,
    stream: Any = None,
) -> array:
    """`x @ w.T`, or without `transpose` `x @ w`, for a matrix that `quantize` packed."""
    m = _mode("quantized_matmul", mode, group_size, bits)
    return matmul(*_factor("quantized_matmul", x, w, scales, biases, m, transpose))


def gather_qmm(
    x: array,
    w: array,
    /,
    scales: array,
    biases: array | None = None,
    lhs_indices: array | None = None,
    rhs_indices: array | None = None,
    transpose: bool = True,
    group_size: int | None = None,
    bits: int | None = None,
    mode: str = "affine",
    global_scale: array | None = None,
    *,
    sorted_indices: bool = False,
    stream: Any = None,
) -> array:
    """`quantized_matmul` of matrices chosen by flat indices; see `gather_mm`."""
    if global_scale is not None:
        raise ValueError("[gather_qmm] global_scale is not supported on a CPU.")
    m = _mode("gather_qmm", mode, group_size, bits)
    return gather_mm(*_factor("gather_qmm", x, w, scales, biases, m, transpose), lhs_indices, rhs_indices)


def _requantized(name: str, x: array, m: _Mode) -> array:
    """`x` as its quantised form reads back."""
    a = require_array(name, x)
    packed, scales = quantize(a, mode=m.name)
    return _expanded(name, packed, scales, None, m, None, a.dtype)


def _both(
    name: str, x: array, w: array, scales: array | None, group_size: int | None, bits: int | None, mode: str
) -> tuple[array, array]:
    m = _mode(name, mode, group_size, bits)
    if mode not in ("nvfp4", "mxfp8"):
        raise ValueError(f"[{name}] Only nvfp4 and mxfp8 are supported, got '{mode}'.")
    a = _requantized(name, x, m)
    b = _requantized(name, w, m) if scales is None else _expanded(name, w, scales, None, m, None, a.dtype)
    return a, shape.swapaxes(b, -1, -2)


def qqmm(
    x: array,
    w: array,
    scales: array | None = None,
    group_size: int | None = None,
    bits: int | None = None,
    mode: str = "nvfp4",
    global_scale_x: array | None = None,
    global_scale_w: array | None = None,
    *,
    stream: Any = None,
) -> array:
    """`x @ w.T` of both in quantised form: `x`, and `w` without `scales`, are quantised first."""
    if global_scale_x is not None or global_scale_w is not None:
        raise ValueError("[qqmm] global scales are not supported on a CPU.")
    return matmul(*_both("qqmm", x, w, scales, group_size, bits, mode))


def gather_qqmm(
    x: array,
    w: array,
    /,
    scales: array | None = None,
    lhs_indices: array | None = None,
    rhs_indices: array | None = None,
    group_size: int | None = None,
    bits: int | None = None,
    mode: str = "nvfp4",
    global_scale_x: array | None = None,
    global_scale_w: array | None = None,
    *,
    sorted_indices: bool = False,
    stream: Any = None,
) -> array:
    """`qqmm` of matrices chosen by flat indices; see `gather_mm`."""
    if global_scale_x is not None or global_scale_w is not None:
        raise ValueError("[gather_qqmm] global scales are not supported on a CPU.")
    both = _both("gather_qqmm", x, w, scales, group_size, bits, mode)
    return gather_mm(*both, lhs_indices, rhs_indices)
