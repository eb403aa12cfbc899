"""Pytrees: nested lists, tuples, dicts, named tuples and registered dataclasses around leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tree:
    """Structure of a nested value with its leaves taken out. Hashable, so that it can key a cache.

    `kind` is "leaf", "none", "list", "tuple", "dict" or the name of a registered node type; `keys` are
    the dict keys or field names in traversal order; `static` holds what is not a leaf of a registered node.
    """

    kind: str
    children: tuple[Tree, ...] = ()
    keys: tuple[Any, ...] = ()
    static: Any = None

    @property
    def n_leaves(self) -> int:
        if self.kind == "leaf":
            return 1
        return sum(child.n_leaves for child in self.children)


LEAF = Tree("leaf")
NONE = Tree("none")


@dataclass(frozen=True)
class _NodeType:
    flatten: Callable[[Any], tuple[Sequence[Any], tuple[Any, ...], Any]]
    unflatten: Callable[[tuple[Any, ...], Any, Sequence[Any]], Any]


_types: dict[type, str] = {}
_registered: dict[str, _NodeType] = {}


def register_dataclass(cls: type, name: str | None = None) -> type:
    """Make the dataclass `cls` a node of pytrees; its fields become children. Returns `cls`."""
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"[register_dataclass] {cls!r} is not a dataclass.")
    fields = tuple(f.name for f in dataclasses.fields(cls))

    def flatten(value: Any) -> tuple[Sequence[Any], tuple[Any, ...], Any]:
        return [getattr(value, f) for f in fields], fields, None

    def unflatten(keys: tuple[Any, ...], static: Any, children: Sequence[Any]) -> Any:
        return cls(**dict(zip(keys, children, strict=True)))

    label = name or f"{cls.__module__}.{cls.__qualname__}"
    _types[cls] = label
    _registered[label] = _NodeType(flatten, unflatten)
    return cls


def _is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _parts(value: Any) -> tuple[str, Iterable[Any], tuple[Any, ...], Any] | None:
    """(kind, children, keys, static) of an inner node, or None for a leaf."""
    if isinstance(value, dict):
        return "dict", value.values(), tuple(value), None
    if isinstance(value, list):
        return "list", value, (), None
    if isinstance(value, tuple):
        if _is_namedtuple(value):
            return "namedtuple", value, tuple(value._fields), type(value)  # type: ignore[attr-defined]
        return "tuple", value, (), None
    label = _types.get(type(value))
    if label is not None:
        children, keys, static = _registered[label].flatten(value)
        return label, children, keys, static
    return None


def children(value: Any) -> list[Any] | None:
    """The parts of an inner node in order, or None for a leaf."""
    parts = _parts(value)
    return None if parts is None else list(parts[1])


def flatten(value: Any, leaves: list[Any] | None = None) -> tuple[list[Any], Tree]:
    """Leaves of `value` from left to right and the structure around them. None is a node without leaves."""
    out: list[Any] = [] if leaves is None else leaves
    return out, _flatten(value, out)


def _flatten(value: Any, out: list[Any]) -> Tree:
    if value is None:
        return NONE
    parts = _parts(value)
    if parts is None:
        out.append(value)
        return LEAF
    kind, children, keys, static = parts
    return Tree(kind, tuple(_flatten(c, out) for c in children), keys, static)


def unflatten(tree: Tree, leaves: Iterable[Any]) -> Any:
    """Inverse of `flatten`."""
    return _unflatten(tree, iter(leaves))


def _unflatten(tree: Tree, leaves: Any) -> Any:
    kind = tree.kind
    if kind == "leaf":
        return next(leaves)
    if kind == "none":
        return None
    return _made(tree, [_unflatten(c, leaves) for c in tree.children])


def _made(tree: Tree, children: list[Any]) -> Any:
    kind = tree.kind
    if kind == "tuple":
        return tuple(children)
    if kind == "list":
        return children
    if kind == "dict":
        return dict(zip(tree.keys, children, strict=True))
    if kind == "namedtuple":
        return tree.static(*children)
    return _registered[kind].unflatten(tree.keys, tree.static, children)


def leaves(value: Any) -> list[Any]:
    """Leaves of `value` from left to right."""
    return flatten(value)[0]


def map_leaves(fn: Callable[[Any], Any], value: Any) -> Any:
    """`value` with `fn` applied to each leaf."""
    found, tree = flatten(value)
    return unflatten(tree, [fn(leaf) for leaf in found])


def snapshot(value: Any) -> list[tuple[Any, Any]]:
    """Every mutable container in `value` with a shallow copy of its contents, for `restore`."""
    saved: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        node = stack.pop()
        parts = _parts(node)
        if parts is None:
            continue
        kind, children, keys, _ = parts
        held = list(children)
        if kind == "dict":
            saved.append((node, dict(zip(keys, held, strict=True))))
        elif kind == "list":
            saved.append((node, held))
        elif kind in _registered:
            saved.append((node, dict(zip(keys, held, strict=True))))
        stack.extend(held)
    return saved


def restore(saved: Sequence[tuple[Any, Any]]) -> None:
    """Give the containers of a `snapshot` back the contents they had."""
    for node, held in saved:
        _refill(node, held)


def assign(value: Any, tree: Tree, leaves: Iterable[Any]) -> Any:
    """Make `value` hold `leaves` in the structure `tree`, in the mutable containers it consists of already.

    Returns `value`, or what takes its place where it is immutable.
    """
    return _assign(value, tree, iter(leaves))


def _assign(value: Any, tree: Tree, leaves: Any) -> Any:
    kind = tree.kind
    if kind == "leaf":
        return next(leaves)
    if kind == "none":
        return None
    parts = _parts(value)
    same = parts is not None and parts[0] == kind
    held = list(parts[1]) if parts is not None and same else []
    names = parts[2] if parts is not None and same else ()
    if kind == "dict":
        before = dict(zip(names, held, strict=True))
        old = [before.get(key) for key in tree.keys]
    else:
        old = held + [None] * (len(tree.children) - len(held))
    new = [_assign(o, child, leaves) for o, child in zip(old, tree.children, strict=False)]
    if not same or kind in ("tuple", "namedtuple"):
        unchanged = same and len(held) == len(new) and all(a is b for a, b in zip(held, new, strict=True))
        return value if unchanged else _made(tree, new)
    _refill(value, new if kind == "list" else dict(zip(tree.keys, new, strict=True)))
    return value


def _refill(node: Any, held: Any) -> None:
    if isinstance(node, list):
        node[:] = held
    elif isinstance(node, dict):
        # past the subclass (a module): its own methods may do more than store
        dict.clear(node)
        dict.update(node, held)
    else:
        for name, value in held.items():
            object.__setattr__(node, name, value)
