"""Whole Jacobians and linear maps: jacfwd, jacrev, hessian, linearize."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ingot.tracer import dims, dtypes, tree
from ingot.tracer.array import Value, array, record
from ingot.tracer.primitives.elementwise import Eq
from ingot.tracer.primitives.shape import Iota
from ingot.tracer.state import tracing
from ingot.tracer.trace import concrete_argument, inline, trace
from ingot.tracer.transforms.arguments import (
    argument_numbers,
    check_callable,
    check_selection,
    flatten_arrays,
)
from ingot.tracer.transforms.grad import pull_back, zeros_like
from ingot.tracer.transforms.jvp import push_along, push_forward
from ingot.tracer.transforms.vmap import batch


def jacrev(fun: Callable, argnums: int | Sequence[int] = 0) -> Callable:
    """A function that returns the Jacobian of `fun`, computed in reverse mode, one row at a time but all at
    once: for functions with fewer outputs than inputs.

    The result has the tree of the outputs of `fun`, with that of the argument (a tuple of them for several
    `argnums`) in the place of each array; the array for an output of shape `s` and an input of shape `t` has
    the shape `s + t`.
    """
    return _jacobian("jacrev", fun, argnums, _rows)


def jacfwd(fun: Callable, argnums: int | Sequence[int] = 0) -> Callable:
    """As `jacrev`, but in forward mode: for functions with fewer inputs than outputs."""
    return _jacobian("jacfwd", fun, argnums, _columns)


def hessian(fun: Callable, argnums: int | Sequence[int] = 0) -> Callable:
    """A function that returns the second derivatives of `fun`: `jacfwd(jacrev(fun))`."""
    return jacfwd(jacrev(fun, argnums), argnums)


def linearize(fun: Callable, *primals: Any) -> tuple[Any, Callable]:
    """The result of `fun` at `primals` and its derivative there: a function of tangents, structured as the
    primals, that returns those of the result. What does not depend on the tangents is computed once."""
    check_callable("linearize", fun)
    flat, structure = flatten_arrays("linearize", "primals", primals)
    with tracing():
        arguments = [concrete_argument(p) for p in flat]
        outputs, out_tree = flatten_arrays(
            "linearize", "the result of the function", fun(*tree.unflatten(structure, arguments))
        )
        moving = [p.dtype.is_inexact for p in flat]

        def push(*tangents: array) -> list[array]:
            given = iter(tangents)
            found = push_along(
                [a._value for a in arguments], outputs, [next(given) if m else None for m in moving]
            )
            return [zeros_like(o) if t is None else t for o, t in zip(outputs, found, strict=True)]

        avals = [p._value.aval for p, m in zip(flat, moving, strict=True) if m]
        traced = trace(push, avals, name="linear", close=True)

    def linear(*tangents: Any) -> Any:
        given, shape = flatten_arrays("linearize", "tangents", tangents)
        if shape != structure or any(t.shape != p.shape for t, p in zip(given, flat, strict=True)):
            raise ValueError(
                f"[linearize] expected tangents of shapes {[p.shape for p in flat]}, got "
                f"{[t.shape for t in given]}."
            )
        operands: list[Value] = [
            t.astype(p.dtype)._value for t, p, m in zip(given, flat, moving, strict=True) if m
        ]
        return tree.unflatten(out_tree, inline(traced.graph, [*operands, *traced.captured]))

    return tree.unflatten(out_tree, outputs), linear


Derivative = Callable[[Callable[..., Sequence[array]], list[array]], list[list[array]]]


def _jacobian(name: str, fun: Callable, argnums: int | Sequence[int], derivative: Derivative) -> Callable:
    check_callable(name, fun)
    check_selection(name, argnums, ())

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        numbers, _ = argument_numbers(name, argnums, (), len(args))
        chosen = [args[n] for n in numbers]
        flat, structure = flatten_arrays(name, "the arguments to differentiate", chosen)
        for x in flat:
            if not x.dtype.is_inexact:
                raise ValueError(f"[{name}] expected arrays of floating-point numbers, got {x.dtype}.")
        out_tree: list[tree.Tree] = []

        def flat_fun(*xs: array) -> list[array]:
            new = list(args)
            for n, value in zip(numbers, tree.unflatten(structure, xs), strict=True):
                new[n] = value
            leaves, out = flatten_arrays(name, "the result of the function", fun(*new, **kwargs))
            out_tree[:] = [out]
            return leaves

        blocks = []
        for row in derivative(flat_fun, flat):
            parts = tree.unflatten(structure, row)
            blocks.append(parts[0] if isinstance(argnums, int) else tuple(parts))
        return tree.unflatten(out_tree[0], blocks)

    return wrapped


def _basis(x: array) -> array:
    """The unit vectors of the space of `x`, one after the other along a new first axis."""
    n = dims.product(x.shape)
    rows, columns = (record(Iota((n, n), axis, dtypes.int64)) for axis in (0, 1))
    return record(Eq(), rows._value, columns._value).astype(x.dtype).reshape((n, *x.shape))


def _rows(fun: Callable[..., Sequence[array]], primals: list[array]) -> list[list[array]]:
    outputs = list(pull_back(fun, primals, lambda found: [None] * len(found))[0])
    blocks = []
    for k, output in enumerate(outputs):

        def pulled(seed: array, k: int = k) -> list[array]:
            def seeded(found: Sequence[array]) -> list[array | None]:
                return [seed if i == k else None for i in range(len(found))]

            cotangents = pull_back(fun, primals, seeded)[1]
            return [zeros_like(p) if c is None else c for p, c in zip(primals, cotangents, strict=True)]

        blocks.append(
            [
                x.reshape((*output.shape, *p.shape))
                for x, p in zip(_mapped(pulled, _basis(output)), primals, strict=True)
            ]
        )
    return blocks


def _columns(fun: Callable[..., Sequence[array]], primals: list[array]) -> list[list[array]]:
    columns: list[list[array]] = []
    outputs: list[array] = []
    for k, primal in enumerate(primals):

        def pushed(tangent: array, k: int = k) -> list[array]:
            given = [tangent if i == k else None for i in range(len(primals))]
            outputs[:], found = push_forward(fun, primals, given)
            return [zeros_like(o) if t is None else t for o, t in zip(outputs, found, strict=True)]

        columns.append(
            [
                x.moveaxis(0, -1).reshape((*x.shape[1:], *primal.shape))
                for x in _mapped(pushed, _basis(primal))
            ]
        )
    return [[column[i] for column in columns] for i in range(len(outputs))]


def _mapped(fun: Callable[..., Sequence[array]], vectors: array) -> list[array]:
    """Results of `fun` for each of the vectors, along a first axis."""
    n = vectors.shape[0]
    found, axes = batch(fun, [vectors], [0], n)
    return [
        x.broadcast_to((n, *x.shape)) if axis is None else x if axis == 0 else x.moveaxis(axis, 0)
        for x, axis in zip(found, axes, strict=True)
    ]
