"""Activation functions, and each of them as a layer."""

from __future__ import annotations

import math

import ingot as mx
from ingot.nn.layers.base import Module


def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + e⁻ˣ)."""
    return mx.sigmoid(x)


def relu(x: mx.array) -> mx.array:
    """max(x, 0)."""
    return mx.maximum(x, 0)


def relu2(x: mx.array) -> mx.array:
    """max(x, 0)² (So et al., arXiv:2109.08668)."""
    return mx.square(mx.maximum(x, 0))


def relu6(x: mx.array) -> mx.array:
    """min(max(x, 0), 6)."""
    return mx.minimum(mx.maximum(x, 0), 6.0)


def leaky_relu(x: mx.array, negative_slope: float = 0.01) -> mx.array:
    """max(negative_slope · x, x)."""
    return mx.maximum(negative_slope * x, x)


def softmax(x: mx.array, axis: int = -1) -> mx.array:
    """eˣ / Σ eˣ along `axis`."""
    return mx.softmax(x, axis=axis)


def log_softmax(x: mx.array, axis: int = -1) -> mx.array:
    """x − log Σ eˣ along `axis`."""
    return x - mx.logsumexp(x, axis=axis, keepdims=True)


def softmin(x: mx.array, axis: int = -1) -> mx.array:
    """softmax(−x) along `axis`."""
    return mx.softmax(-x, axis=axis)


def elu(x: mx.array, alpha: float = 1.0) -> mx.array:
    """x where positive, else alpha · (eˣ − 1)."""
    return mx.where(x > 0, x, alpha * (mx.exp(x) - 1))


def celu(x: mx.array, alpha: float = 1.0) -> mx.array:
    """max(x, 0) + min(0, alpha · (e^(x/alpha) − 1))."""
    return mx.maximum(x, 0.0) + alpha * (mx.exp(mx.minimum(x, 0.0) / alpha) - 1)


def selu(x: mx.array) -> mx.array:
    """ELU with the constants of self-normalising networks (Klambauer et al., arXiv:1706.02515)."""
    return elu(x, 1.67326) * 1.0507


def softplus(x: mx.array) -> mx.array:
    """log(1 + eˣ)."""
    return mx.logaddexp(x, 0)


def log_sigmoid(x: mx.array) -> mx.array:
    """log(sigmoid(x))."""
    return -softplus(-x)


def silu(x: mx.array) -> mx.array:
    """x · sigmoid(x), also called swish."""
    return x * mx.sigmoid(x)


def gelu(x: mx.array) -> mx.array:
    """x · Φ(x) with Φ the standard normal distribution function (Hendrycks and Gimpel, arXiv:1606.08415)."""
    return x * (1 + mx.erf(x / math.sqrt(2))) / 2


def gelu_approx(x: mx.array) -> mx.array:
    """GELU with Φ approximated through tanh; off by less than 0.0005 in [−6, 6]."""
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_fast_approx(x: mx.array) -> mx.array:
    """GELU with Φ(x) approximated as sigmoid(1.702 x); off by less than 0.015 in [−6, 6]."""
    return x * mx.sigmoid(1.702 * x)


def glu(x: mx.array, axis: int = -1) -> mx.array:
    """a · sigmoid(b) with a and b the two halves of `x` along `axis`."""
    a, b = mx.split(x, 2, axis=axis)
    return a * mx.sigmoid(b)


def step(x: mx.array, threshold: float = 0.0) -> mx.array:
    """1 where x > threshold, else 0."""
    return mx.where(x > threshold, 1, 0)


def prelu(x: mx.array, alpha: mx.array) -> mx.array:
    """max(0, x) + alpha · min(0, x)."""
    return mx.maximum(0, x) + alpha * mx.minimum(0, x)


def mish(x: mx.array) -> mx.array:
    """x · tanh(softplus(x)) (Misra, arXiv:1908.08681)."""
    return x * mx.tanh(softplus(x))


def hardswish(x: mx.array) -> mx.array:
    """x · min(max(x + 3, 0), 6) / 6."""
    return x * mx.minimum(mx.maximum(x + 3, 0), 6) / 6


def hard_tanh(x: mx.array, min_val: float = -1.0, max_val: float = 1.0) -> mx.array:
    """x limited to [min_val, max_val]."""
    return mx.minimum(mx.maximum(x, min_val), max_val)


def hard_shrink(x: mx.array, lambd: float = 0.5) -> mx.array:
    """x where |x| > lambd, else 0."""
    return mx.where(mx.abs(x) > lambd, x, 0)


def softshrink(x: mx.array, lambd: float = 0.5) -> mx.array:
    """x moved towards 0 by lambd where |x| > lambd, else 0."""
    return mx.where(mx.abs(x) > lambd, x - mx.sign(x) * lambd, 0)


def softsign(x: mx.array) -> mx.array:
    """x / (1 + |x|)."""
    return x / (1 + mx.abs(x))


def tanh(x: mx.array) -> mx.array:
    """Hyperbolic tangent."""
    return mx.tanh(x)


class Sigmoid(Module):
    """`sigmoid` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return sigmoid(x)


class ReLU(Module):
    """`relu` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return relu(x)


class ReLU2(Module):
    """`relu2` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return relu2(x)


class ReLU6(Module):
    """`relu6` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return relu6(x)


class Softmax(Module):
    """`softmax` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return softmax(x)


class LogSoftmax(Module):
    """`log_softmax` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return log_softmax(x)


class Softmin(Module):
    """`softmin` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return softmin(x)


class SELU(Module):
    """`selu` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return selu(x)


class Softplus(Module):
    """`softplus` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return softplus(x)


class LogSigmoid(Module):
    """`log_sigmoid` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return log_sigmoid(x)


class SiLU(Module):
    """`silu` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return silu(x)


class Mish(Module):
    """`mish` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return mish(x)


class Hardswish(Module):
    """`hardswish` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return hardswish(x)


class HardTanh(Module):
    """`hard_tanh` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return hard_tanh(x)


class Softsign(Module):
    """`softsign` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return softsign(x)


class Tanh(Module):
    """`tanh` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return tanh(x)


class LeakyReLU(Module):
    """`leaky_relu` as a layer."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self._negative_slope = negative_slope

    def __call__(self, x: mx.array) -> mx.array:
        return leaky_relu(x, self._negative_slope)


class ELU(Module):
    """`elu` as a layer."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self._alpha = alpha

    def __call__(self, x: mx.array) -> mx.array:
        return elu(x, self._alpha)


class CELU(Module):
    """`celu` as a layer."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self._alpha = alpha

    def __call__(self, x: mx.array) -> mx.array:
        return celu(x, self._alpha)


class GLU(Module):
    """`glu` as a layer."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self._axis = axis

    def __call__(self, x: mx.array) -> mx.array:
        return glu(x, self._axis)


class Step(Module):
    """`step` as a layer."""

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self._threshold = threshold

    def __call__(self, x: mx.array) -> mx.array:
        return step(x, self._threshold)


class HardShrink(Module):
    """`hard_shrink` as a layer."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self._lambd = lambd

    def __call__(self, x: mx.array) -> mx.array:
        return hard_shrink(x, self._lambd)


class Softshrink(Module):
    """`softshrink` as a layer."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self._lambd = lambd

    def __call__(self, x: mx.array) -> mx.array:
        return softshrink(x, self._lambd)


class PReLU(Module):
    """`prelu` with `num_parameters` trained slopes (one, or one for each channel of the last axis)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.weight = mx.full([num_parameters], init)

    def __call__(self, x: mx.array) -> mx.array:
        return prelu(x, self.weight)


_GELU_FORMS = {"none": gelu, "precise": gelu_approx, "tanh": gelu_approx, "fast": gelu_fast_approx}


class GELU(Module):
    """`gelu`, or with `approx` "precise" or "tanh" `gelu_approx`, with "fast" `gelu_fast_approx`."""

    def __init__(self, approx: str = "none") -> None:
        super().__init__()
        if approx not in _GELU_FORMS:
            raise ValueError(f"[GELU] approx must be one of {list(_GELU_FORMS)}, not {approx!r}")
        self._form = _GELU_FORMS[approx]

    def __call__(self, x: mx.array) -> mx.array:
        return self._form(x)
