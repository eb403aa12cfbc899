"""What inference may take for granted of extents: decided, assumed of a graph, or guarded by the trace."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ingot.tracer import dims
from ingot.tracer.dims import Extent, Guard

_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}

_SEARCHED = 256
"""With more guards than this, only those that say literally what is asked count."""


class _Facts(threading.local):
    guards: frozenset[Guard] = frozenset()
    finished = False


_facts = _Facts()


@contextmanager
def assume(guards: Iterable[Guard]) -> Iterator[None]:
    """Within: relations of a finished graph's guards count as known. No trace or graph around it is asked for
    others: their symbols are not those of the graph, though they may have the same names."""
    saved = _facts.guards, _facts.finished
    _facts.guards, _facts.finished = frozenset(guards), True
    try:
        yield
    finally:
        _facts.guards, _facts.finished = saved


def holds(relation: str, a: Extent, b: Extent) -> bool:
    """True when `a relation b` ('eq', 'ne', 'lt', 'le', 'gt' or 'ge').

    What the ranges cannot decide is true when a guard of the graph says so, or when it holds for the sample
    of the trace that is running: the trace then records the guard. Otherwise it is False, so whoever asks may
    rely on a true answer for memory safety, also in graphs from untrusted files.
    """
    known = dims.decide(relation, a, b)
    if known is not None:
        return known
    guards = _facts.guards
    if guards and (Guard(relation, a, b) in guards or Guard(_MIRRORED[relation], b, a) in guards):
        return True
    if 0 < len(guards) <= _SEARCHED:
        wanted = _at_least_zero(relation, a, b)
        if wanted and all(_follows(least, guards) for least in wanted):
            return True
    if _facts.finished:
        return False
    scope = dims.scope_for(a, b)
    return scope is not None and scope.ask(relation, a, b)


def _at_least_zero(relation: str, a: Extent, b: Extent) -> tuple[Extent, ...]:
    """Extents that are all >= 0 exactly when `a relation b`; none for "ne"."""
    match relation:
        case "eq":
            return a - b, b - a
        case "ge":
            return (a - b,)
        case "gt":
            return (a - b - 1,)
        case "le":
            return (b - a,)
        case "lt":
            return (b - a - 1,)
    return ()


def _follows(least: Extent, guards: Iterable[Guard]) -> bool:
    """Whether one of the guards makes `least` >= 0."""
    return (
        any(
            dims.decide("ge", least - known, 0) is True
            for guard in guards
            for known in _at_least_zero(guard.relation, guard.left, guard.right)
        )
        or dims.decide("ge", least, 0) is True
    )


def natural(extents: Iterable[Extent]) -> bool:
    """True when all extents are known to be >= 0; see `holds`."""
    return all(n >= 0 if type(n) is int else holds("ge", n, 0) for n in extents)


def agree(a: Extent, b: Extent) -> bool:
    """True when two extents are equal; see `holds`."""
    return a is b or holds("eq", a, b)


def agree_shapes(a: Sequence[Extent], b: Sequence[Extent]) -> bool:
    """True when two shapes are equal; see `holds`."""
    return len(a) == len(b) and all(map(agree, a, b))


def contextual() -> bool:
    """True while answers may depend on the running trace or on assumed guards."""
    return bool(_facts.guards) or dims.current_scope() is not None
