"""Neural network layers, losses and initialisers, with the names, signatures and defaults of `mlx.nn`."""

from ingot.nn import init, losses
from ingot.nn.gradients import value_and_grad
from ingot.nn.layers import *  # noqa: F403
from ingot.nn.layers import __all__ as _layers

__all__ = ["init", "losses", "value_and_grad", *_layers]
