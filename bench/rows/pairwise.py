"""All pairs of a set of points, reduced: the intermediate arrays must never reach memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.row import Inputs, Row, normal

SOFTENING = 1e-2


class InverseDistances(Row):
    """Σⱼ 1/√(|xᵢ − xⱼ|² + ε), written with broadcasting as the formula says."""

    name = "W13n"
    title = "Σⱼ 1/√(|xᵢ−xⱼ|²+ε), naive, N = 4096"
    target = 1.3
    count = 4096
    limit = "16.7M pairs in registers: about 8 flops and a root each"
    read, written = 3 * 4 * count, 4 * count
    flops = 16 * count * count
    rtol = 1e-4

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, self.count, 3),)

    def oracle(self, x: np.ndarray) -> Inputs:
        x = x.astype(np.float64)
        chunks = np.split(x, 16)
        squares = [((c[:, None, :] - x[None, :, :]) ** 2).sum(-1) + SOFTENING for c in chunks]
        return (np.concatenate([(1 / np.sqrt(s)).sum(-1) for s in squares]),)

    def ingot(self, mx: Any) -> Callable:
        def inverse_distances(x):
            d = x[:, None, :] - x[None, :, :]
            return mx.sum(mx.rsqrt(mx.sum(d * d, axis=-1) + SOFTENING), axis=-1)

        return inverse_distances

    def numpy(self, np: Any) -> Callable:
        def inverse_distances(x):
            d = x[:, None, :] - x[None, :, :]
            return (1 / np.sqrt((d * d).sum(-1) + np.float32(SOFTENING))).sum(-1)

        return inverse_distances

    def numba(self, nb: Any) -> Callable:
        prange = nb.prange

        def inverse_distances(x):
            out = np.empty(x.shape[0], x.dtype)
            for i in prange(x.shape[0]):
                total = np.float32(0)
                for j in range(x.shape[0]):
                    squares = np.float32(SOFTENING)
                    for k in range(3):
                        squares += (x[i, k] - x[j, k]) * (x[i, k] - x[j, k])
                    total += np.float32(1) / np.sqrt(squares)
                out[i] = total
            return out

        return inverse_distances

    def jax(self, jax: Any) -> Callable:
        def inverse_distances(x):
            d = x[:, None, :] - x[None, :, :]
            return jax.lax.rsqrt((d * d).sum(-1) + SOFTENING).sum(-1)

        return inverse_distances

    def torch(self, torch: Any) -> Callable:
        def inverse_distances(x):
            d = x[:, None, :] - x[None, :, :]
            return torch.rsqrt((d * d).sum(-1) + SOFTENING).sum(-1)

        return inverse_distances


ROWS = (InverseDistances(),)
