"""Loss functions. `reduction` is "none", "mean" or "sum" over all elements of the loss."""

from __future__ import annotations

import math
from typing import Literal

import ingot as mx

Reduction = Literal["none", "mean", "sum"]


def _reduce(name: str, loss: mx.array, reduction: Reduction) -> mx.array:
    if reduction == "none":
        return loss
    if reduction == "mean":
        return mx.mean(loss)
    if reduction == "sum":
        return mx.sum(loss)
    raise ValueError(f"[{name}] reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


def _require_same_shape(operation: str, **arrays: mx.array) -> None:
    if len({a.shape for a in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise ValueError(f"[{operation}] the shapes differ: {shapes}")


def cross_entropy(
    logits: mx.array,
    targets: mx.array,
    weights: mx.array | None = None,
    axis: int = -1,
    label_smoothing: float = 0.0,
    reduction: Reduction = "none",
) -> mx.array:
    """−log softmax(logits) at the targets.

    `targets` are class indices, with the shape of `logits` without `axis`, or probabilities with the shape
    of `logits`. The loss has the shape of the former; `weights` must have it too. `label_smoothing` in [0,
    1) is the share of the target spread evenly over the classes.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"[cross_entropy] label_smoothing must be in [0, 1), not {label_smoothing}")
    position = axis + logits.ndim if axis < 0 else axis
    index_shape = logits.shape[:position] + logits.shape[position + 1 :]
    as_probabilities = targets.ndim == logits.ndim
    expected = logits.shape if as_probabilities else index_shape
    if targets.shape != expected:
        raise ValueError(f"[cross_entropy] targets {targets.shape} do not fit logits {logits.shape}")

    # The loss of probabilities does not change under this shift, and large logits lose no digits.
    logits = logits - mx.stop_gradient(mx.max(logits, axis=axis, keepdims=True))
    if as_probabilities:
        score = mx.sum(logits * targets, axis=axis)
    else:
        score = mx.take_along_axis(logits, mx.expand_dims(targets, axis), axis).squeeze(axis)
    log_total = mx.log(mx.sum(mx.exp(logits), axis=axis))
    if label_smoothing > 0:
        score = (1 - label_smoothing) * score + label_smoothing * mx.mean(logits, axis=axis)
    loss = log_total - score
    if weights is not None:
        _require_same_shape("cross_entropy", weights=weights, loss=loss)
        loss = loss * weights
    return _reduce("cross_entropy", loss, reduction)


def binary_cross_entropy(
    inputs: mx.array,
    targets: mx.array,
    weights: mx.array | None = None,
    with_logits: bool = True,
    reduction: Reduction = "mean",
) -> mx.array:
    """−(t log p + (1 − t) log(1 − p)) with p the inputs, or with `with_logits` sigmoid(inputs).

    Without logits the logarithms are limited to −100 from below.
    """
    _require_same_shape("binary_cross_entropy", inputs=inputs, targets=targets)
    if with_logits:
        loss = mx.logaddexp(0.0, inputs) - inputs * targets
    else:
        log_p = mx.maximum(mx.log(inputs), -100)
        log_not_p = mx.maximum(mx.log1p(-inputs), -100)
        loss = -(targets * log_p + (1 - targets) * log_not_p)
    if weights is not None:
        _require_same_shape("binary_cross_entropy", weights=weights, loss=loss)
        loss = loss * weights
    return _reduce("binary_cross_entropy", loss, reduction)


def l1_loss(predictions: mx.array, targets: mx.array, reduction: Reduction = "mean") -> mx.array:
    """|predictions − targets|."""
    _require_same_shape("l1_loss", predictions=predictions, targets=targets)
    return _reduce("l1_loss", mx.abs(predictions - targets), reduction)


def mse_loss(predictions: mx.array, targets: mx.array, reduction: Reduction = "mean") -> mx.array:
    """(predictions − targets)²."""
    _require_same_shape("mse_loss", predictions=predictions, targets=targets)
    return _reduce("mse_loss", mx.square(predictions - targets), reduction)


def nll_loss(inputs: mx.array, targets: mx.array, axis: int = -1, reduction: Reduction = "none") -> mx.array:
    """Minus the log-probabilities `inputs` at the class indices `targets` (the shape of `inputs` without
    `axis`).
    """
    loss = -mx.take_along_axis(inputs, mx.expand_dims(targets, axis), axis).squeeze(axis)
    return _reduce("nll_loss", loss, reduction)


def gaussian_nll_loss(
    inputs: mx.array,
    targets: mx.array,
    vars: mx.array,
    full: bool = False,
    eps: float = 1e-6,
    reduction: Reduction = "mean",
) -> mx.array:
    """−log density of `targets` under normal distributions with means `inputs` and variances max(vars, eps).

    `full` adds the constant ½ log 2π.
    """
    _require_same_shape("gaussian_nll_loss", inputs=inputs, targets=targets, vars=vars)
    variance = mx.maximum(vars, eps)
    loss = 0.5 * (mx.log(variance) + mx.square(targets - inputs) / variance)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return _reduce("gaussian_nll_loss", loss, reduction)


def kl_div_loss(
    inputs: mx.array, targets: mx.array, axis: int = -1, reduction: Reduction = "none"
) -> mx.array:
    """Kullback–Leibler divergence Σ exp(targets) · (targets − inputs) along `axis`; both are
    log-probabilities.
    """
    return _reduce("kl_div_loss", mx.sum(mx.exp(targets) * (targets - inputs), axis), reduction)


def smooth_l1_loss(
    predictions: mx.array, targets: mx.array, beta: float = 1.0, reduction: Reduction = "mean"
) -> mx.array:
    """d² / (2 beta) where d = |predictions − targets| < beta, else d − beta / 2."""
    _require_same_shape("smooth_l1_loss", predictions=predictions, targets=targets)
    distance = mx.abs(predictions - targets)
    loss = mx.where(distance < beta, 0.5 * mx.square(distance) / beta, distance - 0.5 * beta)
    return _reduce("smooth_l1_loss", loss, reduction)


def triplet_loss(
    anchors: mx.array,
    positives: mx.array,
    negatives: mx.array,
    axis: int = -1,
    p: int = 2,
    margin: float = 1.0,
    eps: float = 1e-6,
    reduction: Reduction = "none",
) -> mx.array:
    """max(‖anchors − positives‖ − ‖anchors − negatives‖ + margin, 0) with p-norms along `axis`.

    `eps` is added to each sum of powers before the root.
    """

    def distance(others: mx.array) -> mx.array:
        return mx.power(mx.sum(mx.power(mx.abs(anchors - others), p), axis) + eps, 1 / p)

    loss = mx.maximum(distance(positives) - distance(negatives) + margin, 0)
    return _reduce("triplet_loss", loss, reduction)


def hinge_loss(inputs: mx.array, targets: mx.array, reduction: Reduction = "none") -> mx.array:
    """max(1 − inputs · targets, 0) with targets ±1."""
    return _reduce("hinge_loss", mx.maximum(1 - inputs * targets, 0), reduction)


def huber_loss(
    inputs: mx.array, targets: mx.array, delta: float = 1.0, reduction: Reduction = "none"
) -> mx.array:
    """½ d² where d = |inputs − targets| ≤ delta, else delta · (d − ½ delta)."""
    distance = mx.abs(inputs - targets)
    near = mx.minimum(distance, delta)
    return _reduce("huber_loss", 0.5 * mx.square(near) + delta * (distance - near), reduction)


def log_cosh_loss(inputs: mx.array, targets: mx.array, reduction: Reduction = "none") -> mx.array:
    """log cosh(inputs − targets)."""
    difference = inputs - targets
    return _reduce("log_cosh_loss", mx.logaddexp(difference, -difference) - math.log(2), reduction)


def cosine_similarity_loss(
    x1: mx.array, x2: mx.array, axis: int = 1, eps: float = 1e-8, reduction: Reduction = "none"
) -> mx.array:
    """x1 · x2 / max(‖x1‖ ‖x2‖, eps) along `axis`."""
    norms = mx.sqrt(mx.sum(mx.square(x1), axis)) * mx.sqrt(mx.sum(mx.square(x2), axis))
    return _reduce("cosine_similarity_loss", mx.sum(x1 * x2, axis) / mx.maximum(norms, eps), reduction)


def margin_ranking_loss(
    inputs1: mx.array,
    inputs2: mx.array,
    targets: mx.array,
    margin: float = 0.0,
    reduction: Reduction = "none",
) -> mx.array:
    """max(−targets · (inputs1 − inputs2) + margin, 0) with targets ±1."""
    _require_same_shape("margin_ranking_loss", inputs1=inputs1, inputs2=inputs2, targets=targets)
    loss = mx.maximum(margin - targets * (inputs1 - inputs2), 0)
    return _reduce("margin_ranking_loss", loss, reduction)
