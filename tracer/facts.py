"""What inference may take for granted of extents: decided, assumed of a graph's guards, or guarded by the trace."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ingot.tracer import dims
from ingot.tracer.dims import Extent, Guard

_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}


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


def holds(relation: str, a: Extent, b: Extent) -> bool:
    """True when `a relation b` ('eq', 'ne', 'lt', 'le', 'gt' or 'ge').

    What the ranges cannot decide is true when a guard of the graph says so, or when it holds for the sample of the
    trace that is running: the trace then records the guard. Otherwise it is False, so whoever asks may rely on a
    true answer for memory safety, also in graphs from untrusted files.
    """
    known = dims.decide(relation, a, b)
    if known is not None:
        return known
    guards = _facts.guards
    if guards and (Guard(relation, a, b) in guards or Guard(_MIRRORED[relation], b, a) in guards):
        return True
    scope = dims.scope_for(a, b)
    return scope is not None and scope.ask(relation, a, b)


def agree(a: Extent, b: Extent) -> bool:
    """True when two extents are equal; see `holds`."""
    return a is b or holds("eq", a, b)


def agree_shapes(a: Sequence[Extent], b: Sequence[Extent]) -> bool:
    """True when two shapes are equal; see `holds`."""
    return len(a) == len(b) and all(map(agree, a, b))


def contextual() -> bool:
    """True while answers may depend on the running trace or on assumed guards."""
    return bool(_facts.guards) or dims.current_scope() is not None
