"""Which arguments a transform looks at, and how it names them in errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ingot.tracer import tree
from ingot.tracer.array import array
from ingot.tracer.tree import Tree


def argument_numbers(
    name: str, argnums: int | Sequence[int] | None, argnames: str | Sequence[str], count: int
) -> tuple[tuple[int, ...], tuple[str, ...], bool]:
    """Positions and names to differentiate, and whether the answer is a single tree (not a tuple of them).

    Without `argnums` the first argument is meant, unless `argnames` are given (MLX).
    """
    names = (argnames,) if isinstance(argnames, str) else tuple(argnames)
    if argnums is None:
        numbers: tuple[int, ...] = () if names else (0,)
        single = True
    elif isinstance(argnums, int):
        numbers, single = (argnums,), True
    else:
        numbers, single = tuple(argnums), False
    numbers = tuple(n + count if n < 0 else n for n in numbers)
    for n in numbers:
        if not 0 <= n < count:
            raise ValueError(
                f"[{name}] argnums has {n}, but the function was called with {count} positional arguments."
            )
    if len(set(numbers)) != len(numbers) or len(set(names)) != len(names):
        raise ValueError(f"[{name}] arguments are named twice in argnums={argnums} argnames={argnames}.")
    return numbers, names, single


def flatten_arrays(name: str, what: str, value: Any) -> tuple[list[array], Tree]:
    """Leaves of an argument, all of which must be arrays."""
    leaves, structure = tree.flatten(value)
    for leaf in leaves:
        if not isinstance(leaf, array):
            raise ValueError(
                f"[{name}] {what} must be an array or a nested list, tuple or dict of arrays, "
                f"but holds a value of type {type(leaf).__name__}."
            )
    return leaves, structure


def check_callable(name: str, fun: Callable) -> None:
    if not callable(fun):
        raise TypeError(f"[{name}] expected a function, got {type(fun).__name__}.")
