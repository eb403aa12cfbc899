"""Differentiation of a loss with respect to a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import ingot as mx
from ingot.nn.layers.base import Module


def value_and_grad(model: Module, fn: Callable) -> Callable[..., tuple[Any, Any]]:
    """A function of the arguments of `fn` that returns `(fn(...), gradient)`.

    The gradient is that of the (first) result of `fn` with respect to `model.trainable_parameters()`, and
    has their tree.
    """

    def of_parameters(parameters: dict, *args: Any, **kwargs: Any) -> Any:
        model.update(parameters)
        return fn(*args, **kwargs)

    differentiated = mx.value_and_grad(of_parameters)

    @wraps(fn)
    def of_arguments(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        parameters = model.trainable_parameters()
        try:
            return differentiated(parameters, *args, **kwargs)
        finally:
            # `of_parameters` left the arrays in the model that the gradient was traced with.
            model.update(parameters)

    return of_arguments
