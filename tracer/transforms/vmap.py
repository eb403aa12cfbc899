"""Vectorisation: the function is traced for one element, then every node is recorded again for the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ingot.tracer import tree
from ingot.tracer.array import Value, array, record_all, wrap
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.errors import AxisError
from ingot.tracer.facts import agree
from ingot.tracer.graph import Literal
from ingot.tracer.state import next_serial, tracing
from ingot.tracer.trace import abstract_argument, linearise, results_of
from ingot.tracer.transforms.arguments import check_callable, require_rule


def batch(
    fun: Callable[..., Sequence[array]], operands: Sequence[array], axes: Sequence[int | None], size: Extent
) -> tuple[list[array], list[int | None]]:
    """Results of `fun` mapped over the given axes, and their batch axes (None: the same for all elements)."""
    # New handles, and those of arguments that are not mapped may be rebound: the caller's stay as they are.
    arguments = [wrap(x._value) for x in operands]
    with tracing(abstract=True, rebindable=frozenset(map(id, arguments))):
        since = next_serial()
        for argument, axis in zip(arguments, axes, strict=True):
            if axis is not None:
                argument._value = abstract_argument(_without(argument, axis))._value
        inputs = [a._value for a in arguments]
        outputs = list(fun(*arguments))
        mapped: dict[int, tuple[array, int | None]] = {
            id(v): (x, axis) for v, x, axis in zip(inputs, operands, axes, strict=True) if axis is not None
        }
        roots = [o._value for o in outputs]
        inner, _ = linearise(roots, lambda v: id(v) in mapped or v.serial < since or not v.trace)
        for value in inner:
            node = value.node
            assert node is not None
            chosen = [mapped.get(id(o)) or (wrap(o), None) for o in node.operands]
            if all(axis is None for _, axis in chosen):
                if all(id(o) not in mapped for o in node.operands):
                    continue  # does not depend on the batch
                results: Sequence[array] = _again(value, [x for x, _ in chosen])
                out_axes: Sequence[int | None] = [None] * len(results)
            else:
                require_rule(node, "vmap")
                results, out_axes = node.primitive.vmap([x for x, _ in chosen], [a for _, a in chosen], size)
            for result, pair in zip(results_of(value), zip(results, out_axes, strict=True), strict=True):
                mapped[id(result)] = pair
    found = [mapped.get(id(o._value)) or (o, None) for o in outputs]
    return [x for x, _ in found], [axis for _, axis in found]


def _again(value: Value, operands: Sequence[array]) -> Sequence[array]:
    assert value.node is not None
    return record_all(value.node.primitive, *[x._value for x in operands])


def _without(x: array, axis: int) -> Aval:
    return Aval(x.shape[:axis] + x.shape[axis + 1 :], x.dtype)


def vmap(fun: Callable, in_axes: Any = 0, out_axes: Any = 0) -> Callable:
    """A function that maps `fun` over an axis of its arguments.

    Args:
        in_axes: axis to map for each argument: an int for all, or a tree of ints and None (not mapped) that
            is a prefix of the tree of arguments.
        out_axes: where the mapped axis goes in the results, as a prefix of their tree; None for a result that
            does not depend on it.

    Raises:
        ValueError: when mapped axes differ in extent, or an axis is out of range (also IndexError).
    """
    check_callable("vmap", fun)

    @wraps(fun)
    def wrapped(*args: Any) -> Any:
        leaves, structure = tree.flatten(args)
        given = _spread_inputs(in_axes, structure)
        operands: list[Any] = []
        axes: list[int | None] = []
        for leaf, axis in zip(leaves, given, strict=True):
            if axis is not None and not isinstance(leaf, array):
                raise ValueError(
                    f"[vmap] The arguments should contain only arrays along mapped axes, got "
                    f"{type(leaf).__name__}."
                )
            operands.append(leaf)
            axes.append(None if axis is None else _normal("in_axes", axis, leaf.ndim, leaf.shape))
        size = _common_size(operands, axes)
        arrays = [x for x in operands if isinstance(x, array)]
        array_axes = [a for x, a in zip(operands, axes, strict=True) if isinstance(x, array)]
        result: list[Any] = []

        def flat_fun(*xs: array) -> list[array]:
            found = iter(xs)
            rebuilt = tree.unflatten(
                structure, [next(found) if isinstance(x, array) else x for x in operands]
            )
            out, out_structure = tree.flatten(fun(*rebuilt))
            for x in out:
                if not isinstance(x, array):
                    raise ValueError(f"[vmap] The function should return arrays, got {type(x).__name__}.")
            result[:] = [out_structure]
            return out

        found, found_axes = batch(flat_fun, arrays, array_axes, size)
        wanted = spread("out_axes", out_axes, result[0])
        placed = [_place(x, at, to, size) for x, at, to in zip(found, found_axes, wanted, strict=True)]
        return tree.unflatten(result[0], placed)

    return wrapped


def _spread_inputs(in_axes: Any, structure: tree.Tree) -> list[int | None]:
    """Axes of the arguments; those of a single dict may be given without a tuple around them (MLX)."""
    if isinstance(in_axes, dict) and len(structure.children) == 1:
        in_axes = (in_axes,)
    return spread("in_axes", in_axes, structure)


def spread(name: str, prefix: Any, structure: tree.Tree) -> list[int | None]:
    """One axis per leaf of `structure`, from a tree of axes that is a prefix of it."""
    if prefix is None or isinstance(prefix, int):
        if isinstance(prefix, bool):
            raise ValueError(f"[vmap] {name} must be ints or None, not bool.")
        return [prefix] * structure.n_leaves
    children = list(prefix.values()) if isinstance(prefix, dict) else prefix
    if not isinstance(children, list | tuple):
        raise ValueError(
            f"[vmap] {name} must be an int, None or a tree of them, got {type(prefix).__name__}."
        )
    if isinstance(prefix, dict) and structure.kind == "dict":
        children = [prefix.get(key, 0) for key in structure.keys]
    if structure.kind in ("leaf", "none") or len(children) != len(structure.children):
        raise ValueError(f"[vmap] {name}={prefix!r} does not fit the structure of the arguments or results.")
    return [a for p, s in zip(children, structure.children, strict=True) for a in spread(name, p, s)]


def _normal(name: str, axis: int, ndim: int, shape: tuple[Extent, ...]) -> int:
    if not -ndim <= axis < ndim:
        raise AxisError(f"[vmap] Invalid axis {axis} in {name} for an array of shape {shape}.")
    return axis + ndim if axis < 0 else axis


def _common_size(operands: Sequence[Any], axes: Sequence[int | None]) -> Extent:
    sizes = [x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None]
    if not sizes:
        raise ValueError("[vmap] At least one of in_axes must be non-None.")
    for size in sizes[1:]:
        if not agree(size, sizes[0]):
            raise ValueError(f"[vmap] Inconsistent axis sizes: {sizes[0]} and {size}.")
    return sizes[0]


def _place(x: array, at: int | None, to: int | None, size: Extent) -> array:
    if type(x._value) is Literal:
        x = wrap(x._value) + wrap(Literal(0, x.dtype))
    if to is None:
        if at is not None:
            raise ValueError("[vmap] out_axes is None for a result that depends on a mapped argument.")
        return x
    ndim = x.ndim + (at is None)
    to = _normal("out_axes", to, ndim, x.shape)
    if at is None:
        x, at = x.reshape((1, *x.shape)).broadcast_to((size, *x.shape)), 0
    return x if at == to else x.moveaxis(at, to)
