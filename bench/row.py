"""What a row of the benchmark is: one piece of work, written once for each framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Inputs = tuple[np.ndarray, ...]

SEED = 20250101
CONDITIONS = ("resident", "evicted")
"""State of the caches before a call: as the call before left them, or filled with something else."""
RECYCLED = "results are dropped before the next call, so that allocators may recycle their pages"


class Row:
    """One workload. Subclasses have a method named after each peer they are written for; it takes that peer's
    module and returns the function to compile and time, written as a user of that framework would.

    `target` is the ratio best peer ÷ ours that is aimed at, `limit` what the hardware allows, in words,
    `read` and `written` the bytes that must move at least. A result passes when it is within
    `atol + rtol·|oracle|` of the float64 oracle.
    """

    name: str
    title: str
    target: float
    limit: str
    read: int
    written: int
    rtol: float = 1e-5
    atol: float = 1e-5
    cache: str = "resident"
    pages: str = RECYCLED
    oracle: Callable[..., Inputs]
    """What the function must return for these inputs, computed in float64."""

    def inputs(self, rng: np.random.Generator) -> Inputs:
        """Arguments of the function; `rng` comes with the same seed for every peer and run."""
        raise NotImplementedError

    def ingot(self, mx: Any) -> Callable[..., Any]:
        """The function for Ingot."""
        raise NotImplementedError

    def mlx(self, mx: Any) -> Callable[..., Any]:
        """The function for MLX: the same text as for Ingot, unless MLX has something faster."""
        return self.ingot(mx)

    @property
    def moved(self) -> int:
        """Bytes that must be read and written at least."""
        return self.read + self.written

    def make_inputs(self) -> Inputs:
        """Arguments from the fixed seed."""
        return self.inputs(np.random.default_rng(SEED))

    def check(self, results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str:
        """An empty string when `results` are right, else what is wrong with them."""
        if len(results) != len(expected):
            return f"{len(results)} results, expected {len(expected)}"
        for number, (result, oracle) in enumerate(zip(results, expected, strict=True)):
            if result.shape != oracle.shape:
                return f"result {number} has shape {result.shape}, expected {oracle.shape}"
            error = np.abs(result.astype(np.float64) - oracle)
            bad = ~(error <= self.atol + self.rtol * np.abs(oracle))  # a nan is bad too
            if bad.any():
                return f"result {number}: {bad.sum()} of {bad.size} wrong, largest error {error.max():.3g}"
        return ""


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Standard normal float32 numbers of that shape."""
    return rng.standard_normal(shape, dtype=np.float32)


def onnx_model(inputs: str, outputs: str, body: str) -> str:
    """The text form of an ONNX model with one graph; types as in `float[4,8] x`."""
    return f'<ir_version: 10, opset_import: ["": 20]>\nrow ({inputs}) => ({outputs}) {{\n{body}\n}}'
