"""Forward-mode differentiation: tangents are pushed through the recorded nodes in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingot.tracer.array import Value, array, wrap
from ingot.tracer.facts import agree_shapes
from ingot.tracer.state import tracing
from ingot.tracer.trace import concrete_argument, linearise, results_of
from ingot.tracer.transforms.arguments import array_list, check_callable, require_rule
from ingot.tracer.transforms.grad import _output_list, zeros_like


def push_forward(
    fun: Callable[..., Sequence[array]], primals: Sequence[array], tangents: Sequence[array | None]
) -> tuple[list[array], list[array | None]]:
    """Outputs of `fun` and their tangents, given those of `primals`. None stands for zero."""
    with tracing():
        arguments = [concrete_argument(p) for p in primals]
        outputs = list(fun(*arguments))
        found = push_along([a._value for a in arguments], outputs, tangents)
    return outputs, found


def push_along(
    inputs: Sequence[Value], outputs: Sequence[array], tangents: Sequence[array | None]
) -> list[array | None]:
    """Tangents of `outputs`, given those of the arguments `inputs` from which they were recorded."""
    input_ids = {id(v) for v in inputs}
    moved: dict[int, array] = {id(v): t for v, t in zip(inputs, tangents, strict=True) if t is not None}
    since = min((v.serial for v in inputs), default=0)
    inner, _ = linearise(
        [o._value for o in outputs], lambda v: id(v) in input_ids or not v.trace or v.serial < since
    )
    for value in inner:
        node = value.node
        assert node is not None
        given = [moved.get(id(o)) for o in node.operands]
        if all(g is None for g in given):
            continue
        require_rule(node, "jvp")
        results = results_of(value)
        answers = node.primitive.jvp([wrap(o) for o in node.operands], given, [wrap(r) for r in results])
        for result, answer in zip(results, answers, strict=True):
            if answer is not None:
                moved[id(result)] = answer
    return [moved.get(id(o._value)) for o in outputs]


def jvp(
    fun: Callable, primals: Sequence[array] | array, tangents: Sequence[array] | array
) -> tuple[list[array], list[array]]:
    """Outputs of `fun` at `primals` and the Jacobian-vector product with `tangents`.

    Args:
        fun: takes arrays (as many as `primals`), returns an array or a list or tuple of arrays.
        tangents: one per primal, of its shape and dtype.

    Returns:
        the outputs, and one tangent per output.
    """
    check_callable("jvp", fun)
    flat, pushed = array_list("jvp", "primals", primals), array_list("jvp", "tangents", tangents)
    if len(flat) != len(pushed):
        raise ValueError(f"[jvp] got {len(flat)} primals but {len(pushed)} tangents.")
    for primal, tangent in zip(flat, pushed, strict=True):
        if not agree_shapes(primal.shape, tangent.shape):
            raise ValueError(
                f"[jvp] Input shape {primal.shape} does not match tangent shape {tangent.shape}."
            )
    given = [t.astype(p.dtype) if p.dtype.is_inexact else None for p, t in zip(flat, pushed, strict=True)]
    outputs, found = push_forward(lambda *xs: _output_list("jvp", fun(*xs)), flat, given)
    return outputs, [zeros_like(o) if t is None else t for o, t in zip(outputs, found, strict=True)]
