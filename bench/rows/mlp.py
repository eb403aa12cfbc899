"""A multilayer perceptron 784-256-256-10 with relu: inference with constant weights, and a training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from bench.row import SEED, Inputs, OnnxModel, Row, normal, onnx_model

WIDTHS = (784, 256, 256, 10)
LAYERS = tuple(zip(WIDTHS, WIDTHS[1:], strict=False))
N_WEIGHTS = sum(n * m for n, m in LAYERS)
N_PARAMETERS = N_WEIGHTS + sum(WIDTHS[1:])
RATE = 0.1


def parameters(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """w1, b1, w2, b2, w3, b3; weights are (inputs, outputs)."""
    arrays = []
    for n, m in LAYERS:
        arrays += [normal(rng, n, m) * np.float32((2 / n) ** 0.5), normal(rng, m) * np.float32(0.1)]
    return tuple(arrays)


def forward(m: Any, x: Any, w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any) -> Any:
    """The network in the words of NumPy's, MLX's and JAX's namespace `m`."""
    h = m.maximum(x @ w1 + b1, 0)
    h = m.maximum(h @ w2 + b2, 0)
    return h @ w3 + b3


class Inference(Row):
    """The network with constant weights."""

    def __init__(self, name: str, batch: int, target: float, limit: str) -> None:
        self.name, self.batch, self.target, self.limit = name, batch, target, limit
        self.title = f"MLP 784-256-256-10, batch {batch}, constant weights"
        self.read, self.written = 4 * (N_PARAMETERS + batch * WIDTHS[0]), 4 * batch * WIDTHS[-1]
        self.flops = 2 * batch * N_WEIGHTS

    @cached_property
    def weights(self) -> tuple[np.ndarray, ...]:
        return parameters(np.random.default_rng(SEED + 1))

    def inputs(self, rng: np.random.Generator) -> Inputs:
        return (normal(rng, self.batch, WIDTHS[0]),)

    def oracle(self, x: np.ndarray) -> Inputs:
        return (forward(np, x.astype(np.float64), *(w.astype(np.float64) for w in self.weights)),)

    def ingot(self, mx: Any) -> Callable:
        weights = [mx.array(w) for w in self.weights]
        return lambda x: forward(mx, x, *weights)

    def numpy(self, np: Any) -> Callable:
        w1, b1, w2, b2, w3, b3 = self.weights

        def mlp(x):
            h = x @ w1
            h += b1
            h = np.maximum(h, 0, out=h) @ w2
            h += b2
            h = np.maximum(h, 0, out=h) @ w3
            h += b3
            return h

        return mlp

    def jax(self, jax: Any) -> Callable:
        weights = [jax.numpy.asarray(w) for w in self.weights]
        return lambda x: forward(jax.numpy, x, *weights)

    def torch(self, torch: Any) -> Callable:
        weights = [torch.from_numpy(w) for w in self.weights]
        return lambda x: _torch_forward(torch, x, *weights)

    def onnxruntime(self, ort: Any) -> OnnxModel:
        body = """h1 = Gemm (x, w1, b1)
            r1 = Relu (h1)
            h2 = Gemm (r1, w2, b2)
            r2 = Relu (h2)
            y = Gemm (r2, w3, b3)"""
        names = ("w1", "b1", "w2", "b2", "w3", "b3")
        slots = f"float[{self.batch},784] x", f"float[{self.batch},10] y"
        return onnx_model(*slots, body, dict(zip(names, self.weights, strict=True)))


class TrainStep(Row):
    """Mean cross entropy, its gradients and a step of stochastic gradient descent; parameters in and out."""

    name = "W9"
    title = "MLP train step, batch 256: loss, gradients, SGD"
    target = 1.1
    several = True
    batch = 256
    read = 4 * (N_PARAMETERS + batch * WIDTHS[0]) + 8 * batch
    written = 4 * N_PARAMETERS
    flops = 2 * batch * (2 * N_WEIGHTS + sum(n * m for n, m in LAYERS[1:]))
    limit = f"{flops / 1e6:.0f} MFLOP"
    kink = 5e-6
    """No unit is nearer to the kink of its relu, or rounding would decide which gradient is right."""

    def inputs(self, rng: np.random.Generator) -> Inputs:
        params, labels = parameters(rng), rng.integers(0, WIDTHS[-1], self.batch)
        while True:
            x = normal(rng, self.batch, WIDTHS[0])
            if _distance_from_kinks(x, *params[:4]) > self.kink:
                return x, labels, *params

    def oracle(self, x: Any, labels: Any, *params: Any) -> Inputs:
        return _numpy_step(x.astype(np.float64), labels, *(p.astype(np.float64) for p in params))

    def ingot(self, mx: Any) -> Callable:
        def step(x, labels, *params):
            def loss(params):
                z = forward(mx, x, *params)
                picked = mx.take_along_axis(z, labels[:, None], axis=-1)[:, 0]
                return mx.mean(mx.logsumexp(z, axis=-1) - picked)

            value, gradients = mx.value_and_grad(loss)(list(params))
            return value, *_descend(params, gradients)

        return step

    def numpy(self, np: Any) -> Callable:
        return _numpy_step

    def jax(self, jax: Any) -> Callable:
        jnp = jax.numpy

        def step(x, labels, *params):
            def loss(params):
                z = forward(jnp, x, *params)
                picked = jnp.take_along_axis(z, labels[:, None], axis=-1)[:, 0]
                return jnp.mean(jax.nn.logsumexp(z, axis=-1) - picked)

            value, gradients = jax.value_and_grad(loss)(params)
            return value, *_descend(params, gradients)

        return step

    def torch(self, torch: Any) -> Callable:
        """One graph for loss, gradients and update; of the ways to write it the one Inductor runs fastest."""

        def step(x, labels, *params):
            def loss(params):
                return torch.nn.functional.cross_entropy(_torch_forward(torch, x, *params), labels)

            gradients, value = torch.func.grad_and_value(loss)(params)
            return value, *_descend(params, gradients)

        return step

    def torch_eager(self, torch: Any) -> Callable:
        def step(x, labels, *params):
            leaves = [p.detach().requires_grad_() for p in params]
            with torch.enable_grad():
                value = torch.nn.functional.cross_entropy(_torch_forward(torch, x, *leaves), labels)
                gradients = torch.autograd.grad(value, leaves)
            return value.detach(), *_descend(params, gradients)

        return step


def _distance_from_kinks(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> float:
    """Least absolute value before a relu."""
    h1 = x.astype(np.float64) @ w1 + b1
    h2 = np.maximum(h1, 0) @ w2 + b2
    return min(float(np.abs(h).min()) for h in (h1, h2))


def _torch_forward(torch: Any, x: Any, w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any) -> Any:
    h = torch.relu(torch.addmm(b1, x, w1))
    h = torch.relu(torch.addmm(b2, h, w2))
    return torch.addmm(b3, h, w3)


def _descend(params: Sequence[Any], gradients: Sequence[Any]) -> list[Any]:
    return [p - RATE * g for p, g in zip(params, gradients, strict=True)]


def _numpy_step(x: Any, labels: Any, w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any) -> Any:
    """The step with its gradients written out, in the precision of the arguments."""
    h1 = np.maximum(x @ w1 + b1, 0)
    h2 = np.maximum(h1 @ w2 + b2, 0)
    z = h2 @ w3 + b3
    rows, n = np.arange(len(z)), z.dtype.type(len(z))
    z -= z.max(-1, keepdims=True)
    p = np.exp(z)
    sums = p.sum(-1, keepdims=True)
    loss = np.mean(np.log(sums[:, 0]) - z[rows, labels])
    p /= sums  # from here on the gradient of the logits
    p[rows, labels] -= 1
    p /= n
    d2 = (p @ w3.T) * (h2 > 0)
    d1 = (d2 @ w2.T) * (h1 > 0)
    gradients = x.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ p, p.sum(0)
    rate = z.dtype.type(RATE)
    return loss, *(w - rate * g for w, g in zip((w1, b1, w2, b2, w3, b3), gradients, strict=True))


ROWS = (
    Inference("W8", 1, 1.5, "1.07 MB of weights read"),
    Inference("W8b", 256, 1.05, "137 MFLOP"),
    TrainStep(),
)
