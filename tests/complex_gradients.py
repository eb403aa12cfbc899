"""Gradients of functions of complex arrays by finite differences, in MLX's convention."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ingot as mx


def _loss(y: mx.array) -> mx.array:
    """A real function of complex or real numbers that treats both parts differently."""
    weights = mx.arange(y.size).reshape(y.shape) * 0.3 + 0.5
    if y.dtype is mx.complex64:
        return mx.sum(mx.real(y) * weights + mx.imag(y) * mx.cos(weights))
    return mx.sum(y * weights)


def _differences(fn: Callable[[mx.array], mx.array], z: np.ndarray) -> np.ndarray:
    h = 1e-2
    out = np.zeros_like(z)
    for index in np.ndindex(*z.shape):
        for unit in (1, 1j):
            values = []
            for step in (h, -h, 2 * h, -2 * h):
                moved = z.copy()
                moved[index] += step * unit
                values.append(float(_loss(fn(mx.array(moved))).item()))
            slope = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * h)
            out[index] += slope * unit
    return out


def check_gradient(fn: Callable[[mx.array], mx.array], z: np.ndarray, tolerance: float = 2e-3) -> None:
    """Gradient by finite differences, and jvp by the gradient: <g, t> is the real part of conj(g) t."""
    found = np.array(mx.grad(lambda x: _loss(fn(x)))(mx.array(z)))
    want = _differences(fn, z)
    np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance * max(1.0, np.abs(want).max()))
    t = np.exp(1j * np.arange(z.size).reshape(z.shape)).astype(z.dtype)
    moved = mx.jvp(lambda x: _loss(fn(x)), [mx.array(z)], [mx.array(t)])[1][0].item()
    assert moved == pytest.approx(float(np.sum((np.conj(found) * t).real)), rel=1e-3, abs=1e-3)
