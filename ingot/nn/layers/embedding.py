"""Table look-up."""

from __future__ import annotations

import math

import ingot as mx
from ingot.nn.layers.base import Module


class Embedding(Module):
    """Rows of a (num_embeddings, dims) table by integer index: the result has the shape (*indices.shape,
    dims).

    `weight` starts normal with standard deviation 1/√dims.
    """

    def __init__(self, num_embeddings: int, dims: int) -> None:
        super().__init__()
        self.weight = mx.random.normal(shape=(num_embeddings, dims), scale=math.sqrt(1.0 / dims))

    def _extra_repr(self) -> str:
        num_embeddings, dims = self.weight.shape
        return f"{num_embeddings}, {dims}"

    def __call__(self, x: mx.array) -> mx.array:
        return self["weight"][x]

    def as_linear(self, x: mx.array) -> mx.array:
        """The table as a projection `x @ weight.T`, for weights shared between the two ends of a model."""
        return x @ self["weight"].T
