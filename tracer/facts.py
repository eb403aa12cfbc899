"""When extents of two operands must agree: decided, assumed of a graph's guards, or guarded by the trace."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ingot.tracer import dims
from ingot.tracer.dims import Extent, Guard


class _Facts(threading.local):
    guards: frozenset[Guard] = frozenset()


_facts = _Facts()


@contextmanager
def assume(guards: Iterable[Guard]) -> Iterator[None]:
    """Within: relations of a finished graph's guards count as known."""
    saved = _facts.guards
    _facts.guards = saved | frozenset(guards)
    try:
        yield
    finally:
        _facts.guards = saved


def agree(a: Extent, b: Extent) -> bool:
    """True when extent `a` equals `b`.

    What the ranges cannot decide is true when a guard of the graph says so, or when it holds for the sample of
    the trace that is running: the trace then records the guard. Otherwise it is False.
    """
    if a is b:
        return True
    known = dims.decide("eq", a, b)
    if known is not None:
        return known
    guards = _facts.guards
    if guards and (Guard("eq", a, b) in guards or Guard("eq", b, a) in guards):
        return True
    return bool(a == b)  # asks the scope of the trace, which records what it answers


def contextual() -> bool:
    """True while the answer of `agree` may depend on the running trace or on assumed guards."""
    return bool(_facts.guards) or dims.current_scope() is not None
