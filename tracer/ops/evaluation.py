"""eval: give lazy arrays their values."""

from __future__ import annotations

from typing import Any

from ingot.tracer import tree
from ingot.tracer.array import array, evaluate
from ingot.tracer.graph import Literal


def eval(*args: Any) -> None:
    """Compute every array in `args` (arrays or nested lists, tuples and dicts of them).

    Raises:
        TracerError: inside compile or vmap, for arrays that depend on their arguments.
    """
    values = []
    for x in args if all([type(x) is array for x in args]) else tree.leaves(args):
        if isinstance(x, array):
            if type(x._value) is Literal:
                x._evaluated()
            else:
                values.append(x._value)
        elif not isinstance(x, bool | int | float | complex | str):
            raise ValueError(f"[eval] expected arrays or trees of arrays, got {type(x).__name__}.")
    evaluate(values)


def async_eval(*args: Any) -> None:
    """`eval`: there is one device, and work on it is not queued."""
    eval(*args)
