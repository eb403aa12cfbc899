"""The one hook through which arrays get values: `runtime` installs the evaluator, nothing here knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ingot.tracer.array import Value
    from ingot.tracer.graph import Graph


class Executable(Protocol):
    """A graph made ready to run."""

    def __call__(self, operands: Sequence[Value]) -> list[Value]:
        """Run on evaluated operands (leaves of the graph's input avals, dims bound by their shapes)."""


class Evaluator(Protocol):
    """What the runtime provides."""

    def evaluate(self, values: Sequence[Value]) -> None:
        """Give each of the lazy `values` a storage."""

    def executable(self, graph: Graph) -> Executable:
        """The compiled form of `graph`; found in a cache when it was made before."""


_installed: list[Evaluator] = []


def install(evaluator: Evaluator) -> None:
    """Make `evaluator` the one that arrays use."""
    _installed[:] = [evaluator]


def evaluator() -> Evaluator:
    """The installed evaluator."""
    if not _installed:
        raise RuntimeError("[eval] no evaluator is installed: import the package `ingot`, not a part of it.")
    return _installed[0]
