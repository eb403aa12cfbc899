"""Learning rates as functions of the step (an integer array, or an `int`)."""

from __future__ import annotations

import math
from collections.abc import Callable

import ingot as mx


def exponential_decay(init: float, decay_rate: float) -> Callable:
    """init · decay_rateˢᵗᵉᵖ."""
    return lambda step: init * decay_rate**step


def step_decay(init: float, decay_rate: float, step_size: int) -> Callable:
    """`init` times `decay_rate` after every `step_size` steps."""
    return lambda step: init * decay_rate ** (step // step_size)


def cosine_decay(init: float, decay_steps: int, end: float = 0.0) -> Callable:
    """From `init` to `end` along half a cosine in `decay_steps` steps, then `end`."""

    def schedule(step: mx.array) -> mx.array:
        done = mx.minimum(step, decay_steps)
        share = 0.5 * (1.0 + mx.cos((math.pi / decay_steps) * done))
        return end + share * (init - end)

    return schedule


def linear_schedule(init: float, end: float, steps: int) -> Callable:
    """From `init` to `end` along a line in `steps` steps, then `end`."""
    if steps < 1:
        raise ValueError(f"[linear_schedule] steps must be positive, not {steps}")

    def schedule(step: mx.array) -> mx.array:
        return mx.minimum(step, steps) * ((end - init) / steps) + init

    return schedule


def join_schedules(schedules: list[Callable], boundaries: list[int]) -> Callable:
    """The first schedule up to the first boundary, then the second, and so on; each starts at step 0."""
    if not schedules:
        raise ValueError("[join_schedules] expected at least one schedule")
    if len(boundaries) != len(schedules) - 1:
        given = f"{len(schedules)} schedules and {len(boundaries)} boundaries"
        raise ValueError(f"[join_schedules] expected one boundary fewer than schedules, not {given}")

    def schedule(step: mx.array) -> mx.array:
        value = schedules[0](step)
        for boundary, following in zip(boundaries, schedules[1:], strict=True):
            value = mx.where(step < boundary, value, following(step - boundary))
        return value

    return schedule
