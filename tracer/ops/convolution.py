"""Convolutions as products of windows with weights. Channels are the last axis of inputs, the first of
weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, leaf, record, wrap
from ingot.tracer.facts import agree
from ingot.tracer.ops import shape
from ingot.tracer.ops.coerce import require_array
from ingot.tracer.primitives.contract import DotGeneral
from ingot.tracer.primitives.elementwise import show_shape

Ints = int | Sequence[int]


def _each(name: str, value: Any, rank: int, least: int) -> list[int]:
    """One number for every spatial axis."""
    found = [value] * rank if isinstance(value, int) else [int(v) for v in value]
    if len(found) == 1:
        found = found * rank
    if len(found) != rank or min(found, default=least) < least:
        raise ValueError(f"[conv] Invalid {name} {value} for {rank} spatial dimensions.")
    return found


def _operands(input: Any, weight: Any, groups: int) -> tuple[array, array]:
    x, w = require_array("conv", input), require_array("conv", weight)
    if not 3 <= x.ndim <= 5:
        raise ValueError(
            "[conv] Only works for inputs with 1-3 spatial dimensions. The inputs must be in the format "
            f"[N, ..., C_in], got shape {show_shape(x.shape)}."
        )
    if w.ndim != x.ndim:
        raise ValueError(
            f"[conv] input and weight differ in rank: {show_shape(x.shape)}, {show_shape(w.shape)}."
        )
    dtype = dtypes.promote(x.dtype, w.dtype)
    if not dtype.is_floating:
        raise ValueError(
            f"[conv] Invalid input array with type {dtype.name}. Convolution currently only supports "
            "floating point types"
        )
    if groups < 1 or not agree(w.shape[-1] * groups, x.shape[-1]):
        raise ValueError(
            "[conv] Expect the input channels in the input and weight array to match but got shapes - input: "
            f"{show_shape(x.shape)} and weight: {show_shape(w.shape)}"
        )
    if not dims.same(w.shape[0] % groups, 0):
        raise ValueError(f"[conv] {groups} groups do not divide {w.shape[0]} output channels.")
    return x.astype(dtype), w.astype(dtype)


def conv_general(
    input: array,
    weight: array,
    /,
    stride: Ints = 1,
    padding: Any = 0,
    kernel_dilation: Ints = 1,
    input_dilation: Ints = 1,
    groups: int = 1,
    flip: bool = False,
    *,
    stream: Any = None,
) -> array:
    """Sums of products of a weight with the windows of an input.

    Args:
        input: `(N, ..., C_in)` with one to three spatial axes of known extents.
        weight: `(C_out, ..., C_in / groups)`.
        padding: zeros on both sides, for all axes, for each, or a pair: before each, after each.
        kernel_dilation: distance of elements of the weight in the input.
        input_dilation: distance of elements of the input, with zeros between them.
        groups: parts of the channels that do not mix.
        flip: the weight is reversed along its spatial axes: a convolution in the sense of mathematics.

    Returns:
        `(N, ..., C_out)` in the dtype the operands promote to.

    Raises:
        ValueError: for shapes that do not fit and dtypes that are not floating.
    """
    x, w = _operands(input, weight, groups)
    rank = x.ndim - 2
    strides, spread = _each("stride", stride, rank, 1), _each("input_dilation", input_dilation, rank, 1)
    dilation = _each("kernel_dilation", kernel_dilation, rank, 1)
    if isinstance(padding, tuple) and len(padding) == 2 and not all(isinstance(p, int) for p in padding):
        low, high = (_each("padding", part, rank, -(1 << 31)) for part in padding)
    else:
        low = high = _each("padding", padding, rank, -(1 << 31))
    for axis, by in enumerate(spread, 1):
        x = _dilated(x, axis, by)
    x = _padded(x, low, high)
    sizes = [int(n) for n in w.shape[1:-1]]
    out = []
    for n, k, d, s in zip(x.shape[1:-1], sizes, dilation, strides, strict=True):
        span = int(n) - (d * (k - 1) + 1)
        if span < 0:
            raise ValueError(
                f"[conv] Spatial dimensions of input after padding cannot be smaller than weight spatial "
                f"dimensions: {show_shape(x.shape)}, weight {show_shape(w.shape)} with dilation {dilation}."
            )
        out.append(span // s + 1)
    windows = _windows(x, out, sizes, strides, dilation, flip)
    return _products(windows, w, rank, groups)


def _dilated(x: array, axis: int, by: int) -> array:
    """`x` with `by - 1` zeros between neighbours along `axis`."""
    n = x.shape[axis]
    if by == 1 or dims.same(n, 0):
        return x
    wide = x.reshape((*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    wide = shape.pad(wide, [(0, by - 1 if i == axis + 1 else 0) for i in range(wide.ndim)])
    flat = wide.reshape((*x.shape[:axis], n * by, *x.shape[axis + 1 :]))
    return flat[tuple(slice(0, n * by - (by - 1)) if i == axis else slice(None) for i in range(x.ndim))]


def _padded(x: array, low: Sequence[int], high: Sequence[int]) -> array:
    """Zeros around spatial axes; negative numbers cut."""
    if any(n < 0 for n in (*low, *high)):
        cuts = [
            slice(max(-a, 0), int(n) - max(-b, 0)) for a, b, n in zip(low, high, x.shape[1:-1], strict=True)
        ]
        x = x[(slice(None), *cuts)]
    widths = [(0, 0), *((max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True)), (0, 0)]
    return shape.pad(x, widths) if any(a or b for a, b in widths) else x


def _windows(
    x: array,
    out: Sequence[int],
    sizes: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    flip: bool,
) -> array:
    """`(N, out..., sizes..., C)`: for each place of the result what the weight meets there."""
    rank = len(out)
    index: list[Any] = [slice(None)]
    for axis in range(rank):
        taps = np.arange(sizes[axis], dtype=np.int32)
        taps = (taps[::-1] if flip else taps) * np.int32(dilation[axis])
        places = np.arange(out[axis], dtype=np.int32) * np.int32(strides[axis])
        grid = places[:, None] + taps[None, :]
        lay = [1] * (2 * rank)
        lay[axis], lay[rank + axis] = grid.shape
        index.append(wrap(leaf(np.ascontiguousarray(grid.reshape(lay)))))
    return x[tuple(index)]


def _products(windows: array, w: array, rank: int, groups: int) -> array:
    lead = windows.shape[: 1 + rank]
    taps = tuple(range(1 + rank, 1 + 2 * rank))
    if groups == 1:
        contract = ((*taps, 1 + 2 * rank), tuple(range(1, rank + 2)))
        return record(DotGeneral(contract), windows._value, w._value)
    channels, filters = windows.shape[-1] // groups, w.shape[0] // groups
    split = windows.reshape((*windows.shape[:-1], groups, channels))
    kernel = w.reshape((groups, filters, *w.shape[1:]))
    contract = ((*taps, 2 + 2 * rank), tuple(range(2, rank + 3)))
    out = record(DotGeneral(contract, ((1 + 2 * rank,), (0,))), split._value, kernel._value)
    order = [*range(1, 2 + rank), 0, 2 + rank]  # the groups come first
    return shape.transpose(out, order).reshape((*lead, w.shape[0]))


def _fixed(rank: int, x: Any, name: str) -> None:
    if require_array(name, x).ndim != rank + 2:
        raise ValueError(f"[{name}] expects {rank + 2} dimensions, got shape {show_shape(x.shape)}.")


def conv1d(
    input: array, weight: array, /, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1, *,
    stream: Any = None,
) -> array:  # fmt: skip
    """Correlation of `(N, L, C_in)` with `(C_out, K, C_in / groups)`; see `conv_general`."""
    _fixed(1, input, "conv1d")
    return conv_general(input, weight, stride, padding, dilation, 1, groups)


def conv2d(
    input: array, weight: array, /, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1, groups: int = 1,
    *, stream: Any = None,
) -> array:  # fmt: skip
    """Correlation of `(N, H, W, C_in)` with `(C_out, KH, KW, C_in / groups)`; see `conv_general`."""
    _fixed(2, input, "conv2d")
    return conv_general(input, weight, stride, _list(padding), dilation, 1, groups)


def conv3d(
    input: array, weight: array, /, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1, groups: int = 1,
    *, stream: Any = None,
) -> array:  # fmt: skip
    """Correlation of `(N, D, H, W, C_in)` with `(C_out, KD, KH, KW, C_in / groups)`; see `conv_general`."""
    _fixed(3, input, "conv3d")
    return conv_general(input, weight, stride, _list(padding), dilation, 1, groups)


def _list(x: Any) -> Any:
    return x if isinstance(x, int) else list(x)


def _transposed(
    rank: int,
    name: str,
    x: array,
    w: array,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    extra: Ints,
    groups: int,
) -> array:
    """The gradient of a convolution by its input: the input spread by the stride, and a flipped weight."""
    _fixed(rank, x, name)
    if require_array(name, w).ndim != rank + 2:
        raise ValueError(f"[{name}] expects {rank + 2} dimensions of the weight, got {show_shape(w.shape)}.")
    pads, dilations = _each("padding", padding, rank, 0), _each("dilation", dilation, rank, 1)
    more = _each("output_padding", extra, rank, 0)
    low = [d * (int(k) - 1) - p for d, k, p in zip(dilations, w.shape[1:-1], pads, strict=True)]
    high = [a + m for a, m in zip(low, more, strict=True)]
    return conv_general(x, w, 1, (low, high), dilations, stride, groups, True)


def conv_transpose1d(
    input: array, weight: array, /, stride: int = 1, padding: int = 0, dilation: int = 1,
    output_padding: int = 0, groups: int = 1, *, stream: Any = None,
) -> array:  # fmt: skip
    """Transposed convolution of `(N, L, C_in)` with `(C_out, K, C_in / groups)`."""
    return _transposed(
        1, "conv_transpose1d", input, weight, stride, padding, dilation, output_padding, groups
    )


def conv_transpose2d(
    input: array, weight: array, /, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1,
    output_padding: Ints = 0, groups: int = 1, *, stream: Any = None,
) -> array:  # fmt: skip
    """Transposed convolution of `(N, H, W, C_in)` with `(C_out, KH, KW, C_in / groups)`."""
    return _transposed(
        2, "conv_transpose2d", input, weight, stride, padding, dilation, output_padding, groups
    )


def conv_transpose3d(
    input: array, weight: array, /, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1,
    output_padding: Ints = 0, groups: int = 1, *, stream: Any = None,
) -> array:  # fmt: skip
    """Transposed convolution of `(N, D, H, W, C_in)` with `(C_out, KD, KH, KW, C_in / groups)`."""
    return _transposed(
        3, "conv_transpose3d", input, weight, stride, padding, dilation, output_padding, groups
    )


def convolve(a: array, v: array, /, mode: str = "full", *, stream: Any = None) -> array:
    """Convolution of two vectors, as NumPy's: "full", "same" (as long as the longer one) or "valid" (where
    they meet wholly)."""
    x, y = require_array("convolve", a), require_array("convolve", v)
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError("[convolve] Inputs must be 1D.")
    if dims.same(x.size, 0) or dims.same(y.size, 0):
        raise ValueError("[convolve] Inputs cannot be empty.")
    if int(x.size) < int(y.size):
        x, y = y, x
    m = int(y.size)
    before = {"full": m - 1, "same": m // 2, "valid": 0}.get(mode)
    if before is None:
        raise ValueError(f"[convolve] Invalid mode '{mode}'.")
    after = (m - 1) - m // 2 if mode == "same" else before
    out = conv_general(x.reshape((1, -1, 1)), y.reshape((1, -1, 1)), 1, ([before], [after]), flip=True)
    return out.reshape(-1)
