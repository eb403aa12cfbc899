"""checkpoint: forget intermediate results on the way forward and compute them again on the way back."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ingot.tracer import tree
from ingot.tracer.array import array, record_all
from ingot.tracer.primitives.control import Call
from ingot.tracer.state import next_serial, tracing
from ingot.tracer.trace import build_graph, concrete_argument
from ingot.tracer.transforms.arguments import check_callable


def checkpoint(fun: Callable) -> Callable:
    """A function that computes what `fun` does, but whose gradient runs `fun` again instead of keeping its
    intermediate results. Arrays that `fun` uses from outside are differentiated too."""
    check_callable("checkpoint", fun)

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = tree.flatten((args, kwargs))
        operands = [x for x in leaves if isinstance(x, array)]
        with tracing():
            since = next_serial()
            # Values stay known where they are, so that Python control flow works as in `fun`; and what `fun`
            # leaves behind in its surroundings stays connected to them.
            arguments = [concrete_argument(x) for x in operands]
            inputs = [a._value for a in arguments]
            found = iter(arguments)
            new_args, new_kwargs = tree.unflatten(
                structure, [next(found) if isinstance(x, array) else x for x in leaves]
            )
            out, out_tree = tree.flatten(fun(*new_args, **new_kwargs))
            results = [x._value for x in out if isinstance(x, array)]
            name = getattr(fun, "__name__", "f")
            traced = build_graph(
                name if name.isidentifier() else "f",
                inputs,
                results,
                since=since,
                close=True,
            )
        made = iter(
            record_all(Call(traced.graph, "checkpoint"), *[x._value for x in operands], *traced.captured)
        )
        return tree.unflatten(out_tree, [next(made) if isinstance(x, array) else x for x in out])

    return wrapped
