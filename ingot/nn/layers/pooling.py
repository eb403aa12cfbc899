"""Pooling over windows of the spatial axes; arrays are (N, spatial ..., C)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ingot as mx
from ingot.nn.layers.base import Module


def _per_axis(name: str, what: str, value: Any, axes: int, least: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes or not all(isinstance(v, int) and v >= least for v in values):
        raise ValueError(f"[{name}] {what} must be an int or {axes} ints of at least {least}, not {value!r}")
    return values


class _Pool(Module):
    """One window per spatial axis. Maximum and sum over a box are taken axis by axis."""

    _spatial = 0
    _padding_value: float = 0.0

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        name, n = type(self).__name__, self._spatial
        self._kernel_size = _per_axis(name, "kernel_size", kernel_size, n, 1)
        self._stride = self._kernel_size if stride is None else _per_axis(name, "stride", stride, n, 1)
        self._padding = _per_axis(name, "padding", 0 if padding is None else padding, n, 0)

    def _extra_repr(self) -> str:
        return f"kernel_size={self._kernel_size}, stride={self._stride}, padding={self._padding}"

    def _pooled(self, x: mx.array, combine: Callable[[mx.array, mx.array], mx.array]) -> mx.array:
        if x.ndim != self._spatial + 2:
            name, rank = type(self).__name__, self._spatial + 2
            raise ValueError(f"[{name}] expected {rank} dimensions, not {x.ndim}: shape {x.shape}")
        if any(self._padding):
            widths = [(0, 0), *((p, p) for p in self._padding), (0, 0)]
            x = mx.pad(x, widths, constant_values=self._padding_value)
        for axis, (kernel, stride) in enumerate(zip(self._kernel_size, self._stride, strict=True), start=1):
            count = (x.shape[axis] - kernel) // stride + 1
            before = (slice(None),) * axis
            shifts = [x[(*before, slice(i, i + (count - 1) * stride + 1, stride))] for i in range(kernel)]
            x = shifts[0]
            for shifted in shifts[1:]:
                x = combine(x, shifted)
        return x


class _MaxPool(_Pool):
    _padding_value = -math.inf

    def __call__(self, x: mx.array) -> mx.array:
        return self._pooled(x, mx.maximum)


class _AvgPool(_Pool):
    def __call__(self, x: mx.array) -> mx.array:
        return self._pooled(x, mx.add) / math.prod(self._kernel_size)


class MaxPool1d(_MaxPool):
    """Maximum over windows of (N, L, C); `padding` is −∞ on both sides, `stride` is `kernel_size` when
    None.
    """

    _spatial = 1


class MaxPool2d(_MaxPool):
    """`MaxPool1d` for (N, H, W, C)."""

    _spatial = 2


class MaxPool3d(_MaxPool):
    """`MaxPool1d` for (N, D, H, W, C)."""

    _spatial = 3


class AvgPool1d(_AvgPool):
    """Average over windows of (N, L, C); `padding` is zeros, which count; `stride` is `kernel_size` when
    None.
    """

    _spatial = 1


class AvgPool2d(_AvgPool):
    """`AvgPool1d` for (N, H, W, C)."""

    _spatial = 2


class AvgPool3d(_AvgPool):
    """`AvgPool1d` for (N, D, H, W, C)."""

    _spatial = 3
