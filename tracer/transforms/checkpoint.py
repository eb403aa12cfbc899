"""checkpoint: forget intermediate results on the way forward and compute them again on the way back."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ingot.tracer.array import record_all
from ingot.tracer.primitives.control import Call
from ingot.tracer.transforms.arguments import check_callable
from ingot.tracer.transforms.closed_call import ClosedCall


def checkpoint(fun: Callable) -> Callable:
    """A function that computes what `fun` does, but whose gradient runs `fun` again instead of keeping its
    intermediate results. Arrays that `fun` uses from outside are differentiated too."""
    check_callable("checkpoint", fun)

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = ClosedCall(fun, args, kwargs)
        graph = call.traced.graph
        return call.result(record_all(Call(graph, "checkpoint"), *[h._value for h in call.handles]))

    return wrapped
