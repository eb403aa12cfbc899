"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ingot.nn.layers.base import Module


class Sequential(Module):
    """Calls its modules (or plain functions) one after another; `layers` is their list."""

    def __init__(self, *modules: Callable) -> None:
        super().__init__()
        self.layers = list(modules)

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x
