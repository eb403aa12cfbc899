"""Which arguments a transform looks at, and how it names them in errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ingot.tracer import tree
from ingot.tracer.array import LazyNode, array
from ingot.tracer.primitive import has_rule
from ingot.tracer.tree import Tree


def check_selection(name: str, argnums: Any, argnames: Any) -> None:
    """Raise TypeError unless `argnums` is None, an int or ints, and `argnames` a string or strings."""
    numbers = argnums if isinstance(argnums, list | tuple) else () if argnums is None else (argnums,)
    names = argnames if isinstance(argnames, list | tuple) else (argnames,)
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise TypeError(f"[{name}] argnums must be None, an int or a sequence of ints, got {argnums!r}.")
    if not all(isinstance(n, str) for n in names):
        raise TypeError(f"[{name}] argnames must be a string or a sequence of strings, got {argnames!r}.")


def argument_numbers(
    name: str, argnums: int | Sequence[int] | None, argnames: str | Sequence[str], count: int
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Positions, ascending, and names to differentiate.

    Without `argnums` the first argument is meant, unless `argnames` are given (MLX).
    """
    names = (argnames,) if isinstance(argnames, str) else tuple(dict.fromkeys(argnames))
    if argnums is None:
        numbers: tuple[int, ...] = () if names else (0,)
    else:
        numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for n in numbers:
        if not -count <= n < count:
            raise ValueError(
                f"[{name}] argnums has {n}, but the function was called with {count} positional arguments."
            )
    numbers = tuple(sorted(n + count if n < 0 else n for n in numbers))
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"[{name}] an argument is named twice in argnums={argnums}.")
    if not numbers and not names:
        raise ValueError(f"[{name}] argnums and argnames name no argument to differentiate.")
    return numbers, names


def flatten_arrays(
    name: str, what: str, value: Any, error: type[Exception] = ValueError
) -> tuple[list[array], Tree]:
    """Leaves of an argument, all of which must be arrays; else raises `error`."""
    leaves, structure = tree.flatten(value)
    for leaf in leaves:
        if not isinstance(leaf, array):
            raise error(
                f"[{name}] {what} must be an array or a nested list, tuple or dict of arrays, "
                f"but holds a value of type {type(leaf).__name__}."
            )
    return leaves, structure


def array_list(name: str, what: str, value: Sequence[array] | array) -> list[array]:
    """`primals` and the like: a sequence of arrays, or one array; else raises TypeError."""
    return flatten_arrays(name, what, [value] if isinstance(value, array) else list(value), TypeError)[0]


def require_rule(node: LazyNode, rule: str) -> None:
    """Raise ValueError, with the documented reason and the user's line, for a rule that cannot exist."""
    reason = has_rule(type(node.primitive), rule)
    if isinstance(reason, str):
        raise ValueError(f"[{rule}] {node.primitive.name} has no {rule}: {reason} ({node.location}).")


def check_callable(name: str, fun: Callable) -> None:
    if not callable(fun):
        raise TypeError(f"[{name}] expected a function, got {type(fun).__name__}.")
