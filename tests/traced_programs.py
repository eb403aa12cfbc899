"""Programs of functions of arrays, called on NumPy arrays: for the tests of kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ingot.runtime.executable import Executable, executable
from ingot.tracer.array import leaf
from ingot.tracer.aval import Aval
from ingot.tracer.trace import trace


def made(fun: Callable, *avals: Aval) -> Executable:
    """The program of a function that returns an array or a tuple of them."""

    def listed(*arrays: Any) -> list[Any]:
        found = fun(*arrays)
        return list(found) if isinstance(found, tuple) else [found]

    return executable(trace(listed, list(avals)).graph)


def call(program: Executable, *arrays: np.ndarray) -> list[np.ndarray]:
    """The results of a program."""
    inputs = zip(arrays, program.program.inputs, strict=True)
    return [v.view for v in program([leaf(x, aval=Aval(x.shape, a.dtype)) for x, a in inputs])]  # type: ignore[misc]
