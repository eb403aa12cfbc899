"""Trees of lists, tuples and dictionaries: flatten, rebuild, map, reduce and merge.

A *leaf* is anything that is not a list, tuple or dictionary. A *path* names a leaf by the keys and indices
that lead to it, joined with dots: the path of `3` in `{"a": [1, {"b": 3}]}` is `a.1.b`. Named tuples and
subclasses of `list` and `tuple` keep their type; every mapping comes back as a plain `dict`. The functions
have the names, arguments and results of `mlx.utils`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any

__all__ = [
    "tree_flatten",
    "tree_map",
    "tree_map_with_path",
    "tree_merge",
    "tree_reduce",
    "tree_unflatten",
]


def tree_map(fn: Callable, tree: Any, *rest: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The tree of `fn(leaf, *leaves_of_rest_at_the_same_place)`.

    Every tree of `rest` must contain at least the places of `tree`, else `KeyError` or `IndexError`.
    `is_leaf(subtree)` may declare a container to be a leaf.
    """
    if is_leaf is not None and is_leaf(tree):
        return fn(tree, *rest)
    if isinstance(tree, dict):
        return {k: tree_map(fn, v, *(r[k] for r in rest), is_leaf=is_leaf) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        items = [tree_map(fn, v, *(r[i] for r in rest), is_leaf=is_leaf) for i, v in enumerate(tree)]
        return _sequence_like(tree, items)
    return fn(tree, *rest)


def tree_map_with_path(
    fn: Callable,
    tree: Any,
    *rest: Any,
    is_leaf: Callable[[Any], bool] | None = None,
    path: Any = None,
) -> Any:
    """`tree_map` with the path of each leaf as the first argument of `fn`; `path` is a prefix for all of
    them.
    """
    if is_leaf is not None and is_leaf(tree):
        return fn(path, tree, *rest)

    def visit(key: Any, subtree: Any) -> Any:
        below = f"{path}.{key}" if path else str(key)
        return tree_map_with_path(fn, subtree, *(r[key] for r in rest), is_leaf=is_leaf, path=below)

    if isinstance(tree, dict):
        return {key: visit(key, subtree) for key, subtree in tree.items()}
    if isinstance(tree, list | tuple):
        return _sequence_like(tree, [visit(i, subtree) for i, subtree in enumerate(tree)])
    return fn(path, tree, *rest)


def tree_flatten(
    tree: Any,
    prefix: str = "",
    is_leaf: Callable[[Any], bool] | None = None,
    destination: list[tuple[str, Any]] | dict[str, Any] | None = None,
) -> Any:
    """The leaves of `tree` in order, as a list of `(path, leaf)` or in a dictionary when `destination` is
    one.

    `destination` is filled and returned. `prefix` stands before each path without its first character,
    which is the separator. A tree that is itself a leaf has the empty path. Empty containers leave no
    trace.
    """
    if destination is None:
        destination = []
    if not isinstance(destination, list | dict):
        raise ValueError(f"[tree_flatten] destination must be a list, a dict or None, not {destination!r}")
    items = None if is_leaf is not None and is_leaf(tree) else _children(tree)
    if items is not None:
        for key, child in items:
            tree_flatten(child, f"{prefix}.{key}", is_leaf, destination)
    elif isinstance(destination, list):
        destination.append((prefix[1:], tree))
    else:
        destination[prefix[1:]] = tree
    return destination


def tree_unflatten(tree: list[tuple[str, Any]] | dict[str, Any]) -> Any:
    """The tree whose `tree_flatten` is `tree` (a list of `(path, leaf)` or a dictionary path → leaf).

    A level becomes a list when all its keys are numbers, with `{}` where a number is missing, else a
    dictionary. Tuples therefore come back as lists, and an empty list of leaves gives `[]`. Raises
    `ValueError` when one path has two leaves.
    """
    entries = list(tree.items() if isinstance(tree, dict) else tree)
    if len(entries) == 1 and entries[0][0] == "":
        return entries[0][1]
    seen: set[str] = set()
    for path, _ in entries:
        if path in seen:
            raise ValueError(f"[tree_unflatten] the path {path!r} is given twice")
        seen.add(path)

    groups: dict[str, list[tuple[str, Any]]] = {}
    for path, leaf in entries:
        key, _, below = path.partition(".")
        groups.setdefault(key, []).append((below, leaf))
    if not all(key.isdecimal() for key in groups):
        return {key: tree_unflatten(group) for key, group in groups.items()}

    items: list[Any] = []
    for key in sorted(groups, key=int):
        items.extend({} for _ in range(int(key) - len(items)))
        items.append(tree_unflatten(groups[key]))
    return items


def tree_reduce(
    fn: Callable,
    tree: Any,
    initializer: Any = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """`fn(... fn(fn(initializer, leaf0), leaf1) ..., leafN)`; without an initializer the first leaf is the
    start.

    A tree without leaves gives `initializer`.
    """
    result = initializer
    for _, leaf in tree_flatten(tree, is_leaf=is_leaf):
        result = leaf if result is None else fn(result, leaf)
    return result


def tree_merge(tree_a: Any, tree_b: Any, merge_fn: Callable | None = None) -> Any:
    """One tree with the leaves of both; where both have one, `merge_fn(leaf_a, leaf_b)`.

    `None` and empty containers count as absent. Raises `ValueError` when two leaves meet and there is no
    `merge_fn`, and when two empty containers of different kinds meet.
    """
    absent_a, absent_b = _is_absent(tree_a), _is_absent(tree_b)
    if absent_a != absent_b:
        return tree_b if absent_a else tree_a
    if absent_a and (tree_a is None or tree_b is None):
        tree_a = tree_b = None
    elif absent_a and type(tree_a) is not type(tree_b):
        kinds = f"{type(tree_a).__name__} with {type(tree_b).__name__}"
        raise ValueError(f"[tree_merge] cannot merge an empty {kinds}")
    if isinstance(tree_a, dict) and isinstance(tree_b, dict):
        keys = {**tree_a, **tree_b}
        return {key: tree_merge(tree_a.get(key), tree_b.get(key), merge_fn) for key in keys}
    if isinstance(tree_a, list | tuple) and isinstance(tree_b, list | tuple):
        return _sequence_like(tree_a, [tree_merge(a, b, merge_fn) for a, b in zip_longest(tree_a, tree_b)])
    if merge_fn is None:
        raise ValueError("[tree_merge] both trees have a leaf at the same place and no merge_fn was given")
    return merge_fn(tree_a, tree_b)


def _is_absent(tree: Any) -> bool:
    return tree is None or (isinstance(tree, list | tuple | dict) and not tree)


def _children(tree: Any) -> Iterable[tuple[Any, Any]] | None:
    if isinstance(tree, dict):
        return tree.items()
    return enumerate(tree) if isinstance(tree, list | tuple) else None


def _sequence_like(model: list | tuple, items: list) -> Any:
    kind = type(model)
    return kind(*items) if hasattr(kind, "_fields") else kind(items)
