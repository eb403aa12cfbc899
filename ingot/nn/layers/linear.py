"""Affine layers."""

from __future__ import annotations

import math
from typing import Any

import ingot as mx
from ingot.nn.layers.base import Module


class Identity(Module):
    """Returns its input; takes and ignores any arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, x: Any) -> Any:
        return x


class Linear(Module):
    """`x @ weight.T + bias` for `x` of shape (..., input_dims); the result is (..., output_dims).

    `weight` (output_dims, input_dims) and `bias` (output_dims,) start uniform in ±1/√input_dims.
    """

    def __init__(self, input_dims: int, output_dims: int, bias: bool = True) -> None:
        super().__init__()
        bound = math.sqrt(1.0 / input_dims)
        self.weight = mx.random.uniform(low=-bound, high=bound, shape=(output_dims, input_dims))
        if bias:
            self.bias = mx.random.uniform(low=-bound, high=bound, shape=(output_dims,))

    def _extra_repr(self) -> str:
        output_dims, input_dims = self.weight.shape
        return f"input_dims={input_dims}, output_dims={output_dims}, bias={'bias' in self}"

    def __call__(self, x: mx.array) -> mx.array:
        if "bias" in self:
            return mx.addmm(self["bias"], x, self["weight"].T)
        return x @ self["weight"].T


class Bilinear(Module):
    """For each output o: `x1ᵀ W_o x2 + b_o`, with `x1` (..., input1_dims) and `x2` (..., input2_dims).

    `weight` (output_dims, input2_dims, input1_dims) and `bias` (output_dims,) start uniform in
    ±1/√input1_dims.
    """

    def __init__(self, input1_dims: int, input2_dims: int, output_dims: int, bias: bool = True) -> None:
        super().__init__()
        bound = math.sqrt(1.0 / input1_dims)
        shape = (output_dims, input2_dims, input1_dims)
        self.weight = mx.random.uniform(low=-bound, high=bound, shape=shape)
        if bias:
            self.bias = mx.random.uniform(low=-bound, high=bound, shape=(output_dims,))

    def _extra_repr(self) -> str:
        output_dims, input2_dims, input1_dims = self.weight.shape
        return (
            f"input1_dims={input1_dims}, input2_dims={input2_dims}, output_dims={output_dims}, "
            f"bias={'bias' in self}"
        )

    def __call__(self, x1: mx.array, x2: mx.array) -> mx.array:
        output_dims, input2_dims, input1_dims = self.weight.shape
        batch = x1.shape[:-1]
        rows = x1.reshape(-1, input1_dims) @ self.weight.reshape(output_dims * input2_dims, input1_dims).T
        # (n, output, input2) times (n, input2, 1): one small matrix-vector product for each row of the batch.
        y = rows.reshape(-1, output_dims, input2_dims) @ x2.reshape(-1, input2_dims, 1)
        y = y.reshape(*batch, output_dims)
        return y + self.bias if "bias" in self else y
