"""What a row of the benchmark is: one piece of work, written once for each framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

    A method may also be None, or missing, where a framework has no natural way to do the work: the peer opts
    out of the row.

    `target` is the ratio best peer ÷ ours that is aimed at, `limit` what the hardware allows, in words;
    `read` and `written` are the bytes that must move at least, `flops` the floating-point operations, where
    these matter (0: only bytes bound the row), two for each slot of a vector instruction: from them
    `bench.limits` measures the limit in seconds. A result passes when it is within `atol + rtol·|oracle|` of
    the float64 oracle.
    """

    name: str
    title: str
    target: float
    limit: str
    read: int
    written: int
    flops: int = 0
    dtype: str = "float32"
    """Type to which floating-point arguments are converted before the clock starts: float32 or bfloat16."""
    several: bool = False
    """Whether the function returns a tuple and not one array."""
    small: bool = False
    """Whether the work is too small to be worth threads: dispatch is what counts, no limit is measured."""
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

    def torch_eager(self, torch: Any) -> Callable[..., Any] | None:
        """The function for eager PyTorch: the one that `torch.compile` gets, unless there is a faster way."""
        method = getattr(self, "torch", None)
        return method and method(torch)

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


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX model in text form with one graph, and its constant weights by name."""

    text: str
    initialisers: Mapping[str, np.ndarray]


def onnx_model(
    inputs: str, outputs: str, body: str, initialisers: Mapping[str, np.ndarray] | None = None
) -> OnnxModel:
    """A model with these slots, types as in `float[4,8] x`, and nodes."""
    text = f'<ir_version: 10, opset_import: ["": 20]>\nrow ({inputs}) => ({outputs}) {{\n{body}\n}}'
    return OnnxModel(text, initialisers or {})
