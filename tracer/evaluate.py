"""The one hook through which arrays get values: `runtime` installs the evaluator, nothing here knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ingot.tracer.array import Value
    from ingot.tracer.graph import Graph
    from ingot.tracer.tree import Tree


class Dispatched:
    """A callable whose calls the runtime may answer before they reach `__call__`.

    What it needs for that it writes into the two slots, which are empty until then. They are not attributes:
    nothing may be stored in them from elsewhere.
    """

    __slots__ = ("_native_call", "_native_table")

    def __getstate__(self) -> dict[str, Any]:
        """A copy answers its calls itself until the runtime has seen some of them."""
        return {name: held for name, held in self.__dict__.items() if name != "_dispatch"}


class Call(NamedTuple):
    """A call of a `Dispatched` outside of all transforms, on evaluated arrays.

    leaves: the array arguments, as given, in the order of the executable's inputs.
    operands: their values.
    out_tree: the structure of the result. statics: for each of its leaves None, or, where it is no array,
        `(leaf,)`.
    enabled: a list whose only item is True as long as calls run compiled.
    float64: whether NumPy arrays of float64 stay what they are.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    leaves: Sequence[Any]
    operands: Sequence[Value]
    executable: Executable
    out_tree: Tree
    statics: Sequence[Any]
    enabled: list[bool]
    float64: bool


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

    def dispatch(self, function: Dispatched, call: Call) -> bool:
        """Answer calls like this one from now on, or soon; False when that is not possible."""

    def forget(self, function: Dispatched) -> None:
        """Leave all calls of `function` to its `__call__`."""


_installed: list[Evaluator] = []


def install(evaluator: Evaluator) -> None:
    """Make `evaluator` the one that arrays use."""
    _installed[:] = [evaluator]


def evaluator() -> Evaluator:
    """The installed evaluator."""
    if not _installed:
        raise RuntimeError("[eval] no evaluator is installed: import the package `ingot`, not a part of it.")
    return _installed[0]
