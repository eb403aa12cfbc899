"""Elementwise work: one pass over the inputs, nothing kept between elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.row import Inputs, OnnxModel, Row, normal, onnx_model

# tanh form of gelu: Hendrycks and Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415, section 2
SCALE = math.sqrt(2 / math.pi)
CUBIC = 0.044715


class Gelu(Row):
    """0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))"""

    def __init__(self, name: str, size: int, target: float, limit: str, flops: int = 0) -> None:
        self.name, self.size, self.target, self.limit, self.flops = name, size, target, limit, flops * size
        self.title = f"gelu (tanh form), {_count(size)}"
        self.read = self.written = 4 * size

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, self.size),)

    def oracle(self, x: np.ndarray) -> Inputs:
        x = x.astype(np.float64)
        return (0.5 * x * (1 + np.tanh(SCALE * (x + CUBIC * x**3))),)

    def ingot(self, mx: Any) -> Callable:
        return lambda x: 0.5 * x * (1 + mx.tanh(SCALE * (x + CUBIC * x * x * x)))

    def numpy(self, np: Any) -> Callable:
        scale, cubic = np.float32(SCALE), np.float32(CUBIC)
        return lambda x: 0.5 * x * (1 + np.tanh(scale * (x + cubic * x * x * x)))

    def numba(self, nb: Any) -> Callable:
        scale, cubic, half, one = np.float32(SCALE), np.float32(CUBIC), np.float32(0.5), np.float32(1)
        prange = nb.prange

        def gelu(x):
            out = np.empty_like(x)
            for i in prange(x.size):
                v = x[i]
                out[i] = half * v * (one + math.tanh(scale * (v + cubic * v * v * v)))
            return out

        return gelu

    def jax(self, jax: Any) -> Callable:
        return lambda x: jax.nn.gelu(x, approximate=True)

    def torch(self, torch: Any) -> Callable:
        return lambda x: torch.nn.functional.gelu(x, approximate="tanh")

    def onnxruntime(self, ort: Any) -> OnnxModel:
        types = f"float[{self.size}]"
        return onnx_model(f"{types} x", f"{types} y", 'y = Gelu <approximate = "tanh"> (x)')


class CheapChain(Row):
    """Ten operations of one instruction each."""

    name = "W2b"
    title = "chain of 10 cheap ops, 4M"
    target = 1.1
    limit = "32 MB moved"
    size = 4 << 20
    read = written = 4 * size

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, self.size),)

    def oracle(self, x: np.ndarray) -> Inputs:
        x = x.astype(np.float64)
        y = np.minimum(np.maximum(x * 1.5 + 0.25, -1.0), 2.0)
        z = np.abs(y * y - x) * 0.5
        return (np.maximum(z, y) - x,)

    def ingot(self, mx: Any) -> Callable:
        def chain(x):
            y = mx.minimum(mx.maximum(x * 1.5 + 0.25, -1.0), 2.0)
            z = mx.abs(y * y - x) * 0.5
            return mx.maximum(z, y) - x

        return chain

    def numpy(self, np: Any) -> Callable:
        return self.ingot(np)

    def jax(self, jax: Any) -> Callable:
        return self.ingot(jax.numpy)

    def torch(self, torch: Any) -> Callable:
        def chain(x):
            y = torch.clamp(x * 1.5 + 0.25, -1.0, 2.0)
            z = torch.abs(y * y - x) * 0.5
            return torch.maximum(z, y) - x

        return chain

    def numba(self, nb: Any) -> Callable:
        low, high, half = np.float32(-1), np.float32(2), np.float32(0.5)
        factor, shift = np.float32(1.5), np.float32(0.25)
        prange = nb.prange

        def chain(x):
            out = np.empty_like(x)
            for i in prange(x.size):
                v = x[i]
                y = min(max(v * factor + shift, low), high)
                z = abs(y * y - v) * half
                out[i] = max(z, y) - v
            return out

        return chain


RATE, VOLATILITY = 0.05, 0.2


class BlackScholes(Row):
    """European call and put: Black and Scholes, Journal of Political Economy 81(3), 1973, equation 13."""

    name = "W3"
    title = "Black-Scholes call + put, 1M"
    target = 1.5
    size = 1 << 20
    limit = "5 streams of 4 MB; log, exp, erf"
    read, written = 3 * 4 * size, 2 * 4 * size
    several = True
    rtol, atol = 1e-4, 1e-4  # prices up to 100 are differences of such: a float32 ulp is 8e-6 there

    def inputs(self, rng: np.random.Generator) -> Inputs:
        spot, strike, years = rng.random((3, self.size), dtype=np.float32)
        return 10 + 90 * spot, 10 + 90 * strike, np.float32(0.1) + 2 * years

    def oracle(self, spot: np.ndarray, strike: np.ndarray, years: np.ndarray) -> Inputs:
        erf = np.vectorize(math.erf, otypes=[np.float64])
        spot, strike, years = (a.astype(np.float64) for a in (spot, strike, years))
        return _black_scholes(np, erf, spot, strike, years)

    def ingot(self, mx: Any) -> Callable:
        return lambda *args: _black_scholes(mx, mx.erf, *args)

    def numpy(self, np: Any) -> Callable:
        return lambda *args: _black_scholes(np, _numpy_erf, *args)

    def jax(self, jax: Any) -> Callable:
        return lambda *args: _black_scholes(jax.numpy, jax.scipy.special.erf, *args)

    def torch(self, torch: Any) -> Callable:
        return lambda *args: _black_scholes(torch, torch.erf, *args)

    def numba(self, nb: Any) -> Callable:
        half, one, root = np.float32(0.5), np.float32(1), np.float32(math.sqrt(0.5))
        rate, vol = np.float32(RATE), np.float32(VOLATILITY)
        drift = np.float32(RATE + VOLATILITY**2 / 2)
        prange = nb.prange

        def black_scholes(spot, strike, years):
            call, put = np.empty_like(spot), np.empty_like(spot)
            for i in prange(spot.size):
                s, k, t = spot[i], strike[i], years[i]
                spread = vol * math.sqrt(t)
                d1 = (math.log(s / k) + drift * t) / spread
                d2 = d1 - spread
                n1 = half + half * math.erf(d1 * root)
                n2 = half + half * math.erf(d2 * root)
                discounted = k * math.exp(-rate * t)
                call[i] = s * n1 - discounted * n2
                put[i] = discounted * (one - n2) - s * (one - n1)
            return call, put

        return black_scholes


def _black_scholes(m: Any, erf: Callable, spot: Any, strike: Any, years: Any) -> tuple[Any, Any]:
    spread = VOLATILITY * m.sqrt(years)
    d1 = (m.log(spot / strike) + (RATE + VOLATILITY**2 / 2) * years) / spread
    d2 = d1 - spread
    n1 = 0.5 + 0.5 * erf(d1 * math.sqrt(0.5))
    n2 = 0.5 + 0.5 * erf(d2 * math.sqrt(0.5))
    discounted = strike * m.exp(-RATE * years)
    call = spot * n1 - discounted * n2
    put = discounted * (1 - n2) - spot * (1 - n1)
    return call, put


def _numpy_erf(x: np.ndarray) -> np.ndarray:
    """NumPy has no erf: Abramowitz and Stegun, formula 7.1.26, absolute error 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = 1.421413741 + t * (-1.453152027 + t * 1.061405429)
    series = t * (0.254829592 + t * (-0.284496736 + t * series))
    return np.copysign(1 - series * np.exp(-x * x), x)


def _count(size: int) -> str:
    return f"{size >> 20}M" if size >= 1 << 20 else f"{size >> 10}k"


ROWS = (
    Gelu("W2", 4 << 20, 1.4, "32 MB moved"),
    CheapChain(),
    Gelu("W2c", 16 << 10, 1.8, "in cache: about 25 vector instructions", flops=50),
    BlackScholes(),
)
