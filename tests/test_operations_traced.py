"""Compositions and host primitives in traces: unknown extents, batches of gradients, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ingot as mx

RANDOM = np.random.default_rng(12)


def normal(*shape: int) -> mx.array:
    return mx.array(RANDOM.normal(size=shape).astype(np.float32))


SHAPELESS: dict[str, tuple[Callable[..., Any], list[tuple[tuple[int, ...], ...]]]] = {
    "einsum": (lambda a, b: mx.einsum("ij,jk->ki", a, b), [((2, 3), (3, 4)), ((5, 6), (6, 2))]),
    "einsum of three": (
        lambda a, b, c: mx.einsum("ab,bc,ca->", a, b, c),
        [((2, 3), (3, 4), (4, 2)), ((5, 6), (6, 2), (2, 5))],
    ),
    "sort": (lambda a: mx.sort(a, 0), [((3, 2),), ((5, 4),)]),
    "topk": (lambda a: mx.topk(a, 2), [((3, 3),), ((2, 5),)]),
    "median": (lambda a: mx.median(a, 0), [((3, 2),), ((6, 2),), ((5, 3),)]),
    "cumsum": (lambda a: mx.cumsum(a, 1, reverse=True, inclusive=False), [((3, 2),), ((4, 5),)]),
    "fft": (lambda a: mx.fft.irfft(mx.fft.rfft(a), n=a.shape[-1]), [((2, 6),), ((2, 7),), ((3, 2),)]),
    "fftshift": (lambda a: mx.real(mx.fft.fftshift(mx.fft.fft(a, norm="ortho"))), [((2, 6),), ((2, 7),)]),
    "inv": (lambda a: mx.linalg.inv(a @ mx.swapaxes(a, -1, -2) + mx.eye(2)), [((3, 2, 4),), ((5, 2, 6),)]),
}


@pytest.mark.parametrize("name", SHAPELESS)
def test_without_shapes(name: str) -> None:
    fn, table = SHAPELESS[name]
    compiled = mx.compile(fn, shapeless=True)
    for shapes in table:
        xs = [normal(*shape) for shape in shapes]
        np.testing.assert_allclose(np.array(compiled(*xs)), np.array(fn(*xs)), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "fn",
    [
        lambda a: mx.einsum("ij,kj->ik", a, a),
        lambda a: mx.conv1d(a.reshape(1, 4, 3), mx.ones((2, 2, 3)), padding=1),
        lambda a: mx.sort(a, 0) * mx.cumsum(a, 0),
        lambda a: mx.cumprod(a, 1) + mx.logcumsumexp(a, 0, reverse=True),
        lambda a: mx.linalg.svd(a, compute_uv=False),
        lambda a: mx.real(mx.fft.fft(a)),
        lambda a: mx.fast.scaled_dot_product_attention(
            a[None, None], a[None, None], a[None, None], scale=0.5
        ),
        lambda a: mx.hadamard_transform(a.T),
        lambda a: mx.median(a, 0),
    ],
)
def test_gradients_in_batches_and_compiled(fn: Callable[..., Any]) -> None:
    def loss(a: mx.array) -> mx.array:
        y = fn(a)
        return mx.sum(mx.sin(y + mx.arange(y.size).reshape(y.shape)))

    order = RANDOM.permutation(36).reshape(3, 4, 3)  # no two elements are near
    xs = mx.array((order / 18 - 1).astype(np.float32))
    one = np.stack([np.array(mx.grad(loss)(x)) for x in xs])
    for other in (mx.vmap(mx.grad(loss)), mx.compile(mx.vmap(mx.grad(loss)))):
        np.testing.assert_allclose(np.array(other(xs)), one, rtol=1e-4, atol=1e-4)
    step = 3e-3
    direction = normal(4, 3)
    for x, g in zip(xs, one, strict=True):
        values = [float(loss(x + direction * h).item()) for h in (step, -step, 2 * step, -2 * step)]
        slope = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * step)
        assert slope == pytest.approx(float(np.sum(g * np.array(direction))), rel=2e-2, abs=2e-2)
