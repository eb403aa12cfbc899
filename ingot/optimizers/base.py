"""`Optimizer`: state that mirrors the tree of the parameters, and the update of that tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ingot as mx
from ingot.nn.layers.base import Module
from ingot.utils import tree_map, tree_reduce

Schedule = Callable[[mx.array], mx.array]


class Optimizer:
    """Base class. A sub-class gives `init_single` and `apply_single` for one parameter.

    `state` is a dictionary: "step" (uint64), one entry for each number that has a schedule or may be
    changed during training (such as "learning_rate"), and, in the places of the parameters, a dictionary of
    arrays for each of them. `schedulers` maps such names to functions of the step.
    """

    def __init__(self, schedulers: dict[str, Schedule] | None = None) -> None:
        self._initialized = False
        self._state: dict[str, Any] = {"step": mx.array(0, mx.uint64)}
        self._schedulers = dict(schedulers or {})

    def update(self, model: Module, gradients: dict) -> None:
        """Replace the parameters of `model` that `gradients` (a tree of the same places) names."""
        model.update(self.apply_gradients(gradients, model))

    def init(self, parameters: dict) -> None:
        """Make the state for a tree of parameters; state that exists already is kept.

        Done by the first `apply_gradients`; call it earlier when the state must have its final shape, as for
        `compile(inputs=...)` and before loading a saved state.
        """
        self._add_state(parameters, self._state)
        self._initialized = True

    def init_single(self, parameter: mx.array, state: dict) -> None:
        """Put the start values for one parameter in `state`."""
        raise NotImplementedError

    def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
        """The tree of new parameters, in the places of `gradients`; advances the state by one step."""
        if not self._initialized:
            self.init(gradients)
        for name, schedule in self._schedulers.items():
            self.state[name] = schedule(self.step)
        self.state["step"] = self.step + 1
        return tree_map(self.apply_single, gradients, parameters, self.state)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        """The new value of one parameter; changes its `state`."""
        raise NotImplementedError

    @property
    def state(self) -> dict[str, Any]:
        return self._state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._initialized = False
        self._state = state

    @property
    def step(self) -> mx.array:
        return self.state["step"]

    @property
    def learning_rate(self) -> mx.array:
        return self.state["learning_rate"]

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | mx.array) -> None:
        self.state["learning_rate"] = mx.array(learning_rate)

    def _maybe_schedule(self, name: str, value: float | Schedule) -> None:
        """Keep a number in the state, or the function that gives it for each step."""
        if callable(value):
            self._schedulers[name] = value
            self.state[name] = mx.array(value(self.step))
        else:
            self.state[name] = mx.array(value)

    def _add_state(self, parameters: Any, state: Any) -> None:
        """Give each parameter that has no state yet its own, in the container `state` that mirrors
        `parameters`.
        """
        items = parameters.items() if isinstance(parameters, dict) else enumerate(parameters)
        for key, parameter in items:
            if isinstance(state, list) and key == len(state):
                state.append(None)
            present = state[key] if isinstance(state, list) else state.get(key)
            if isinstance(parameter, dict | list | tuple):
                if present is None:
                    state[key] = present = {} if isinstance(parameter, dict) else []
                self._add_state(parameter, present)
            elif not present:
                state[key] = {}
                self.init_single(parameter, state[key])


def clip_grad_norm(grads: Any, max_norm: float) -> tuple[Any, mx.array]:
    """`(clipped, norm)`: the tree scaled so that its 2-norm over all leaves is at most `max_norm`, and the
    norm before.
    """
    norm = mx.sqrt(tree_reduce(lambda total, g: total + mx.sum(mx.square(g)), grads, 0.0))
    scale = mx.minimum(max_norm / (norm + 1e-6), 1.0)
    return tree_map(lambda g: g * scale, grads), norm
