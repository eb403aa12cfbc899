"""Recurrent layers over sequences (..., L, D): the time axis is the last but one."""

from __future__ import annotations

import math
from collections.abc import Callable

import ingot as mx
from ingot.nn.layers.activations import tanh
from ingot.nn.layers.base import Module


def _project(x: mx.array, weight: mx.array, bias: mx.array | None) -> mx.array:
    return x @ weight.T if bias is None else mx.addmm(bias, x, weight.T)


class _Recurrent(Module):
    """Weights that start uniform in ±1/√hidden_size, and the text form."""

    hidden_size: int

    def _uniform(self, *shape: int) -> mx.array:
        bound = 1.0 / math.sqrt(self.hidden_size)
        return mx.random.uniform(low=-bound, high=bound, shape=shape)

    def _describe(self, weight: mx.array, biased: bool, more: str = "") -> str:
        return f"input_dims={weight.shape[1]}, hidden_size={self.hidden_size}, {more}bias={biased}"


class RNN(_Recurrent):
    """h ← nonlinearity(Wxh x + Whh h + bias) (Elman, 1990); returns the hidden states (..., L, hidden_size).

    `nonlinearity` is `tanh` when None; without a start state `hidden` is zero.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: Callable | None = None
    ) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity or tanh
        if not callable(self.nonlinearity):
            raise ValueError(f"[RNN] nonlinearity must be callable, not {nonlinearity!r}")
        self.hidden_size = hidden_size
        self.Wxh = self._uniform(hidden_size, input_size)
        self.Whh = self._uniform(hidden_size, hidden_size)
        self.bias = self._uniform(hidden_size) if bias else None

    def _extra_repr(self) -> str:
        return self._describe(self.Wxh, self.bias is not None, f"nonlinearity={self.nonlinearity}, ")

    def __call__(self, x: mx.array, hidden: mx.array | None = None) -> mx.array:
        x = _project(x, self.Wxh, self.bias)
        states = []
        for t in range(x.shape[-2]):
            step = x[..., t, :]
            hidden = self.nonlinearity(step if hidden is None else step + hidden @ self.Whh.T)
            states.append(hidden)
        return mx.stack(states, axis=-2)


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al., arXiv:1406.1078); returns the hidden states (..., L, hidden_size).

    r, z ← sigmoid(Wx x + b + Wh h);  n ← tanh(Wx x + b + r · (Wh h + bhn));  h ← (1 − z) n + z h. The rows
    of `Wx`, `Wh` and `b` are those of r, then z, then n.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.Wx = self._uniform(3 * hidden_size, input_size)
        self.Wh = self._uniform(3 * hidden_size, hidden_size)
        self.b = self._uniform(3 * hidden_size) if bias else None
        self.bhn = self._uniform(hidden_size) if bias else None

    def _extra_repr(self) -> str:
        return self._describe(self.Wx, self.b is not None)

    def __call__(self, x: mx.array, hidden: mx.array | None = None) -> mx.array:
        x = _project(x, self.Wx, self.b)
        gates, candidates = x[..., : 2 * self.hidden_size], x[..., 2 * self.hidden_size :]
        states = []
        for t in range(x.shape[-2]):
            hidden = self._step(gates[..., t, :], candidates[..., t, :], hidden)
            states.append(hidden)
        return mx.stack(states, axis=-2)

    def _step(self, gates: mx.array, candidate: mx.array, hidden: mx.array | None) -> mx.array:
        recurrent = self.bhn
        if hidden is not None:
            projected = hidden @ self.Wh.T
            gates = gates + projected[..., : 2 * self.hidden_size]
            projected = projected[..., 2 * self.hidden_size :]
            recurrent = projected if self.bhn is None else projected + self.bhn
        r, z = mx.split(mx.sigmoid(gates), 2, axis=-1)
        n = mx.tanh(candidate if recurrent is None else candidate + r * recurrent)
        return (1 - z) * n if hidden is None else (1 - z) * n + z * hidden


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997); returns hidden and cell states (..., L,
    hidden_size).

    i, f, o ← sigmoid(…), g ← tanh(…) of Wx x + bias + Wh h;  c ← f c + i g;  h ← o tanh(c). The rows of
    `Wx`, `Wh` and `bias` are those of i, f, g, o.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.Wx = self._uniform(4 * hidden_size, input_size)
        self.Wh = self._uniform(4 * hidden_size, hidden_size)
        self.bias = self._uniform(4 * hidden_size) if bias else None

    def _extra_repr(self) -> str:
        return self._describe(self.Wx, self.bias is not None)

    def __call__(
        self, x: mx.array, hidden: mx.array | None = None, cell: mx.array | None = None
    ) -> tuple[mx.array, mx.array]:
        x = _project(x, self.Wx, self.bias)
        hiddens, cells = [], []
        for t in range(x.shape[-2]):
            gates = x[..., t, :]
            if hidden is not None:
                gates = gates + hidden @ self.Wh.T
            i, f, g, o = mx.split(gates, 4, axis=-1)
            fresh = mx.sigmoid(i) * mx.tanh(g)
            cell = fresh if cell is None else mx.sigmoid(f) * cell + fresh
            hidden = mx.sigmoid(o) * mx.tanh(cell)
            hiddens.append(hidden)
            cells.append(cell)
        return mx.stack(hiddens, axis=-2), mx.stack(cells, axis=-2)
