"""Reverse-mode differentiation: vjp, grad, value_and_grad.

The function runs on fresh concrete arguments; then the recorded nodes between them and the outputs are walked
backwards, each giving the cotangents of its operands (reverse accumulation, Griewank & Walther, ch. 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ingot.tracer import tree
from ingot.tracer.array import Value, array, wrap
from ingot.tracer.facts import agree, agree_shapes
from ingot.tracer.graph import Literal
from ingot.tracer.state import tracing
from ingot.tracer.trace import concrete_argument, linearise, results_of
from ingot.tracer.transforms.arguments import (
    argument_numbers,
    array_list,
    check_callable,
    check_selection,
    flatten_arrays,
    require_rule,
)


def pull_back(
    fun: Callable[..., Sequence[array]],
    primals: Sequence[array],
    cotangents_of: Callable[[Sequence[array]], Sequence[array | None]],
) -> tuple[list[array], list[array | None]]:
    """Outputs of `fun` and the cotangents of `primals`, given those of the outputs. None stands for zero."""
    with tracing():
        arguments = [concrete_argument(p) for p in primals]
        inputs = [a._value for a in arguments]
        outputs = list(fun(*arguments))
        found = _backward(inputs, outputs, cotangents_of(outputs))
    return outputs, found


def _backward(
    inputs: Sequence[Value], outputs: Sequence[array], cotangents: Sequence[array | None]
) -> list[array | None]:
    input_ids = {id(v) for v in inputs}
    since = min((v.serial for v in inputs), default=0)
    roots = [o._value for o, c in zip(outputs, cotangents, strict=True) if c is not None]
    inner, _ = linearise(roots, lambda v: id(v) in input_ids or not v.trace or v.serial < since)
    depends = set(input_ids)
    path = []
    for value in inner:
        node = value.node
        if node is not None and any(id(o) in depends for o in node.operands):
            depends.update(id(r) for r in results_of(value))
            path.append(value)
    sums: dict[int, array] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None and id(output._value) in depends:
            _accumulate(sums, output._value, cotangent)
    for value in reversed(path):
        node, results = value.node, results_of(value)
        assert node is not None
        given = [sums.pop(id(r), None) if id(r) not in input_ids else sums.get(id(r)) for r in results]
        if all(g is None for g in given):
            continue
        require_rule(node, "vjp")
        operands = [wrap(o) for o in node.operands]
        answers = node.primitive.vjp(operands, given, [wrap(r) for r in results])
        for operand, answer in zip(node.operands, answers, strict=True):
            if answer is not None and id(operand) in depends:
                _accumulate(sums, operand, answer)
    return [sums.get(id(v)) for v in inputs]


def _accumulate(sums: dict[int, array], value: Value | Literal, cotangent: array) -> None:
    held = sums.get(id(value))
    sums[id(value)] = cotangent if held is None else held + cotangent


def zeros_like(x: array) -> array:
    """Zeros of the shape and dtype of `x`, as a node (graphs inside primitives hold no constants)."""
    zero = wrap(Literal(0, x.dtype))
    return zero.broadcast_to(x.shape)


def vjp(
    fun: Callable, primals: Sequence[array] | array, cotangents: Sequence[array] | array
) -> tuple[list[array], list[array]]:
    """Outputs of `fun` at `primals` and the vector-Jacobian product with `cotangents`.

    Args:
        fun: takes arrays (as many as `primals`), returns an array or a list or tuple of arrays.
        cotangents: one per output, of its shape and dtype.

    Returns:
        the outputs, and one array per primal.
    """
    check_callable("vjp", fun)
    flat, seeds = array_list("vjp", "primals", primals), array_list("vjp", "cotangents", cotangents)

    def seeded(outputs: Sequence[array]) -> Sequence[array]:
        if len(outputs) != len(seeds):
            raise ValueError(f"[vjp] the function has {len(outputs)} outputs, got {len(seeds)} cotangents.")
        for output, seed in zip(outputs, seeds, strict=True):
            if not agree_shapes(output.shape, seed.shape):
                raise ValueError(
                    f"[vjp] Output shape {output.shape} does not match cotangent shape {seed.shape}."
                )
        return [s.astype(o.dtype) for s, o in zip(seeds, outputs, strict=True)]

    outputs, found = pull_back(lambda *xs: _output_list("vjp", fun(*xs)), flat, seeded)
    return outputs, [zeros_like(p) if g is None else g for p, g in zip(flat, found, strict=True)]


def _output_list(name: str, outputs: Any) -> list[array]:
    return flatten_arrays(name, "the result of the function", outputs)[0]


def value_and_grad(
    fun: Callable, argnums: int | Sequence[int] | None = None, argnames: str | Sequence[str] = ()
) -> Callable:
    """A function that returns the result of `fun` and the gradient of its (first) output, a scalar.

    Args:
        argnums: position or positions of the arguments to differentiate; by default 0, none with `argnames`.
        argnames: keyword or keywords to differentiate.

    Returns:
        `(value, grads)` with `grads` shaped as the argument: a tree for one position, a tuple of trees in
        ascending order of position for several; with `argnames` a pair of that (None without positions) and a
        dict by name.
    """
    check_callable("value_and_grad", fun)
    check_selection("value_and_grad", argnums, argnames)

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return _value_and_grad("value_and_grad", fun, argnums, argnames, args, kwargs)

    return wrapped


def grad(
    fun: Callable, argnums: int | Sequence[int] | None = None, argnames: str | Sequence[str] = ()
) -> Callable:
    """A function that returns the gradient of `fun`; arguments as in `value_and_grad`."""
    check_callable("grad", fun)
    check_selection("grad", argnums, argnames)

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return _value_and_grad("grad", fun, argnums, argnames, args, kwargs)[1]

    return wrapped


def _value_and_grad(
    name: str,
    fun: Callable,
    argnums: int | Sequence[int] | None,
    argnames: str | Sequence[str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Any, Any]:
    numbers, names = argument_numbers(name, argnums, argnames, len(args))
    for key in names:
        if key not in kwargs:
            raise ValueError(
                f"[{name}] argnames has {key!r}, which is not among the keyword arguments given."
            )
    parts = [(f"argument {n}", args[n]) for n in numbers] + [(f"argument {k!r}", kwargs[k]) for k in names]
    flat: list[array] = []
    structures = []
    for what, part in parts:
        leaves, structure = flatten_arrays(name, what, part)
        flat += leaves
        structures.append(structure)
    result: list[Any] = []

    def flat_fun(*xs: array) -> list[array]:
        found = iter(xs)
        rebuilt = [tree.unflatten(s, found) for s in structures]
        new_args = list(args)
        for n, value in zip(numbers, rebuilt, strict=False):
            new_args[n] = value
        new_kwargs = {**kwargs, **dict(zip(names, rebuilt[len(numbers) :], strict=True))}
        result.append(fun(*new_args, **new_kwargs))
        leaves = [x for x in tree.leaves(result[0]) if isinstance(x, array)]
        if not leaves or not _is_loss(result[0], leaves[0]):
            raise ValueError(
                f"[{name}] The return value of the function whose gradient is asked for should be a scalar "
                f"array or a tuple with the scalar array first, but it is {type(result[0]).__name__}."
            )
        if leaves[0].ndim != 0 and not agree(leaves[0].size, 1):
            raise ValueError(
                f"[{name}] The function whose gradient is asked for must return a scalar, but its result has "
                f"shape {leaves[0].shape}."
            )
        return leaves

    def one(outputs: Sequence[array]) -> list[array | None]:
        loss = outputs[0]
        seed = wrap(Literal(1, loss.dtype))
        return [seed.broadcast_to(loss.shape) if loss.ndim else seed, *([None] * (len(outputs) - 1))]

    _, found = pull_back(flat_fun, flat, one)
    grads = iter(zeros_like(p) if g is None else g for p, g in zip(flat, found, strict=True))
    trees = [tree.unflatten(s, grads) for s in structures]
    positional: Any = tuple(trees[: len(numbers)])
    if len(numbers) < 2:
        positional = positional[0] if positional else None
    if names:
        return result[0], (positional, dict(zip(names, trees[len(numbers) :], strict=True)))
    return result[0], positional


def _is_loss(result: Any, first: array) -> bool:
    return result is first or (isinstance(result, list | tuple) and len(result) > 0 and result[0] is first)
