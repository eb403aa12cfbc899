"""Optimizers and learning-rate schedules, with the names, signatures and defaults of `mlx.optimizers`."""

from ingot.optimizers.adaptive import AdaDelta, Adagrad, Adam, Adamax, AdamW, RMSprop
from ingot.optimizers.base import Optimizer, clip_grad_norm
from ingot.optimizers.momentum import SGD, Lion
from ingot.optimizers.schedulers import (
    cosine_decay,
    exponential_decay,
    join_schedules,
    linear_schedule,
    step_decay,
)

__all__ = [
    "SGD",
    "AdaDelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm",
    "cosine_decay",
    "exponential_decay",
    "join_schedules",
    "linear_schedule",
    "step_decay",
]
