"""Window functions for signals, float32 of `M` samples (none for M < 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ingot.tracer import dtypes
from ingot.tracer.array import array
from ingot.tracer.ops import creation
from ingot.tracer.ops import math as _math


def _cosines(M: int, weights: Sequence[float]) -> array:
    """The sum of `weights[k] cos(2 pi k n / (M - 1))`."""
    if M <= 1:
        return creation.ones((max(M, 0),))
    places = creation.arange(M, dtype=dtypes.float32)
    total = creation.full((M,), weights[0], dtypes.float32)
    for k, weight in enumerate(weights[1:], 1):
        turn = _math.multiply(places, 2 * math.pi * k / (M - 1))
        total = _math.add(total, _math.multiply(_math.cos(turn), weight))
    return total


def hanning(M: int, *, stream: Any = None) -> array:
    """`0.5 - 0.5 cos(2 pi n / (M - 1))`."""
    return _cosines(M, (0.5, -0.5))


def hamming(M: int, *, stream: Any = None) -> array:
    """`0.54 - 0.46 cos(2 pi n / (M - 1))`."""
    return _cosines(M, (0.54, -0.46))


def blackman(M: int, *, stream: Any = None) -> array:
    """`0.42 - 0.5 cos(2 pi n / (M - 1)) + 0.08 cos(4 pi n / (M - 1))`."""
    return _cosines(M, (0.42, -0.5, 0.08))


def bartlett(M: int, *, stream: Any = None) -> array:
    """A triangle from 0 to 1 and back."""
    if M <= 1:
        return creation.ones((max(M, 0),))
    half = (M - 1) / 2
    distance = _math.abs(_math.subtract(creation.arange(M, dtype=dtypes.float32), half))
    return _math.subtract(1, _math.divide(distance, half))
