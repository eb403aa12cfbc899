"""Optimizers that step along the gradient, its average, or its sign."""

from __future__ import annotations

import ingot as mx
from ingot.optimizers.base import Optimizer, Schedule


class SGD(Optimizer):
    """Stochastic gradient descent with momentum μ, dampening τ and weight decay λ.

    g ← g + λ w;  v ← μ v + (1 − τ) g;  w ← w − η v, or with `nesterov` w ← w − η (g + μ v).
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("[SGD] nesterov needs a positive momentum and no dampening")
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.dampening = dampening
        self.nesterov = nesterov

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        if self.weight_decay != 0:
            gradient = gradient + self.weight_decay * parameter
        rate = self.learning_rate.astype(gradient.dtype)
        if self.momentum <= 0:
            return parameter - rate * gradient
        fresh = (1 - self.dampening) * gradient if self.dampening > 0 else gradient
        velocity = self.momentum * state["v"] + fresh
        state["v"] = velocity
        direction = gradient + self.momentum * velocity if self.nesterov else velocity
        return parameter - rate * direction


class Lion(Optimizer):
    """Steps along the sign of a mixed momentum (Chen et al., arXiv:2302.06675).

    c = β₁ m + (1 − β₁) g;  m ← β₂ m + (1 − β₂) g;  w ← w − η (sign(c) + λ w).
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        betas: list[float] = [0.9, 0.99],  # noqa: B006  (never changed)
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.betas = betas
        self.weight_decay = weight_decay

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["m"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        rate = self.learning_rate.astype(gradient.dtype)
        beta1, beta2 = self.betas
        m = state["m"]
        direction = mx.sign(beta1 * m + (1 - beta1) * gradient)
        state["m"] = beta2 * m + (1 - beta2) * gradient
        if self.weight_decay > 0:
            parameter = (1 - rate * self.weight_decay) * parameter
        return parameter - rate * direction
