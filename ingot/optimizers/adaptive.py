"""Optimizers that scale each element by a running size of its gradient."""

from __future__ import annotations

import ingot as mx
from ingot.optimizers.base import Optimizer, Schedule


def _require(name: str, what: str, value: float, allowed: bool) -> None:
    if not allowed:
        raise ValueError(f"[{name}] {what} must not be {value}")


class RMSprop(Optimizer):
    """v ← α v + (1 − α) g²;  w ← w − η g / (√v + ε) (Tieleman and Hinton, 2012)."""

    def __init__(self, learning_rate: float | Schedule, alpha: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__()
        _require("RMSprop", "alpha", alpha, alpha >= 0)
        _require("RMSprop", "eps", eps, eps >= 0)
        self._maybe_schedule("learning_rate", learning_rate)
        self.alpha = alpha
        self.eps = eps

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        rate = self.learning_rate.astype(gradient.dtype)
        v = self.alpha * state["v"] + (1 - self.alpha) * mx.square(gradient)
        state["v"] = v
        return parameter - rate * gradient / (mx.sqrt(v) + self.eps)


class Adagrad(Optimizer):
    """v ← v + g²;  w ← w − η g / (√v + ε) (Duchi et al., JMLR 2011)."""

    def __init__(self, learning_rate: float | Schedule, eps: float = 1e-8) -> None:
        super().__init__()
        _require("Adagrad", "eps", eps, eps >= 0)
        self._maybe_schedule("learning_rate", learning_rate)
        self.eps = eps

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        rate = self.learning_rate.astype(gradient.dtype)
        v = state["v"] + mx.square(gradient)
        state["v"] = v
        return parameter - rate * gradient / (mx.sqrt(v) + self.eps)


class AdaDelta(Optimizer):
    """v ← ρ v + (1 − ρ) g²;  d = √(u + ε) / √(v + ε) · g;  u ← ρ u + (1 − ρ) d²;  w ← w − η d
    (arXiv:1212.5701).
    """

    def __init__(self, learning_rate: float | Schedule, rho: float = 0.9, eps: float = 1e-6) -> None:
        super().__init__()
        _require("AdaDelta", "rho", rho, rho >= 0)
        _require("AdaDelta", "eps", eps, eps >= 0)
        self._maybe_schedule("learning_rate", learning_rate)
        self.rho = rho
        self.eps = eps

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["v"] = mx.zeros_like(parameter)
        state["u"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        rate = self.learning_rate.astype(gradient.dtype)
        v = self.rho * state["v"] + (1 - self.rho) * mx.square(gradient)
        change = mx.sqrt(state["u"] + self.eps) / mx.sqrt(v + self.eps) * gradient
        state["u"] = self.rho * state["u"] + (1 - self.rho) * mx.square(change)
        state["v"] = v
        return parameter - rate * change


class Adam(Optimizer):
    """m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  w ← w − η m / (√v + ε) (Kingma and Ba,
    arXiv:1412.6980).

    As in MLX the correction of the start bias (m / (1 − β₁ᵗ), v / (1 − β₂ᵗ)) is off unless `bias_correction`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        betas: list[float] = [0.9, 0.999],  # noqa: B006  (never changed)
        eps: float = 1e-8,
        bias_correction: bool = False,
    ) -> None:
        super().__init__()
        _require(type(self).__name__, "eps", eps, eps >= 0)
        self._maybe_schedule("learning_rate", learning_rate)
        self.betas = betas
        self.eps = eps
        self.bias_correction = bias_correction

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["m"] = mx.zeros_like(parameter)
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        rate = self.learning_rate.astype(gradient.dtype)
        beta1, beta2 = self.betas
        m = beta1 * state["m"] + (1 - beta1) * gradient
        v = beta2 * state["v"] + (1 - beta2) * mx.square(gradient)
        state["m"], state["v"] = m, v
        if not self.bias_correction:
            return parameter - rate * m / (mx.sqrt(v) + self.eps)
        m_scale = (rate / (1 - mx.power(beta1, self.step))).astype(gradient.dtype)
        v_scale = mx.rsqrt(1 - mx.power(beta2, self.step)).astype(gradient.dtype)
        return parameter - m_scale * m / (mx.sqrt(v) * v_scale + self.eps)


class AdamW(Adam):
    """Adam with decoupled weight decay: w ← (1 − η λ) w before the step (Loshchilov and Hutter,
    arXiv:1711.05101).
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        betas: list[float] = [0.9, 0.999],  # noqa: B006  (never changed)
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        bias_correction: bool = False,
    ) -> None:
        super().__init__(learning_rate, betas, eps, bias_correction)
        self.weight_decay = weight_decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        rate = self.learning_rate.astype(gradient.dtype)
        return super().apply_single(gradient, parameter * (1 - rate * self.weight_decay), state)


class Adamax(Adam):
    """Adam with the maximum norm: v ← max(β₂ v, |g|);  w ← w − η m / (v + ε)."""

    def __init__(
        self,
        learning_rate: float | Schedule,
        betas: list[float] = [0.9, 0.999],  # noqa: B006  (never changed)
        eps: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, betas, eps)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        rate = self.learning_rate.astype(gradient.dtype)
        beta1, beta2 = self.betas
        m = beta1 * state["m"] + (1 - beta1) * gradient
        v = mx.maximum(beta2 * state["v"], mx.abs(gradient))
        state["m"], state["v"] = m, v
        return parameter - rate * m / (v + self.eps)
