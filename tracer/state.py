"""What the thread is tracing at the moment."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import CodeType
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from ingot.tracer.array import Value

CONCRETE = 1
"""Trace level of values that derive from an argument of grad, vjp or jvp: they can be evaluated."""
ABSTRACT = 2
"""Trace level of values that derive from an argument of compile, vmap or export: only avals are known."""

next_serial = count(1).__next__
"""Order of creation of values: a topological order of every lazy graph."""


class _State(threading.local):
    depth = 0  # transforms that are running in this thread
    scope = ""  # module path such as `encoder.layers.0`
    abstract_since: int | None = None  # serial at which the innermost compile/vmap/export trace began
    exporting = False  # whether a trace for a file runs, which can hold no Python functions
    rebindable: frozenset[int] = frozenset()  # ids of captured arrays that such a trace may rebind

    def __init__(self) -> None:
        self.retained: list[ref[Value]] = []  # evaluated values whose nodes a running transform may need


state = _State()

_running_lock = threading.Lock()
_running = [0]  # threads that are inside a transform


def transforms_run() -> bool:
    """True while some thread is inside a transform, which may yet differentiate values it saw."""
    return _running[0] > 0


@contextmanager
def tracing(
    abstract: bool = False, rebindable: frozenset[int] = frozenset(), exporting: bool = False
) -> Iterator[None]:
    """While a transform runs the user's function. `rebindable`: captured arrays named as state."""
    saved = state.abstract_since, state.rebindable, state.exporting
    state.exporting = saved[2] or exporting
    if not state.depth:
        with _running_lock:
            _running[0] += 1
    state.depth += 1
    if abstract:
        state.abstract_since, state.rebindable = next_serial(), rebindable
    try:
        yield
    finally:
        state.depth -= 1
        state.abstract_since, state.rebindable, state.exporting = saved
        if not state.depth:
            with _running_lock:
                _running[0] -= 1
            _forget_history()


def _forget_history() -> None:
    """Outside all transforms evaluated values need no nodes: one kept in a variable would hold a graph."""
    for kept in state.retained:
        value = kept()
        if value is not None:
            value.node = None
    state.retained.clear()


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Names the part of a model whose operations are being recorded; scopes nest with dots."""
    outer = state.scope
    state.scope = f"{outer}.{name}" if outer else name
    try:
        yield
    finally:
        state.scope = outer


_internal: dict[str, bool] = {}
_PROGRAMS = ("ingot.demo",)  # written as a user would: its lines are worth showing


def user_frame() -> tuple[CodeType, int] | None:
    """Code object and instruction of the innermost frame outside the package."""
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        internal = _internal.get(code.co_filename)
        if internal is None:
            module = frame.f_globals.get("__name__", "")
            internal = (module == "ingot" or module.startswith("ingot.")) and module not in _PROGRAMS
            _internal[code.co_filename] = internal
        if not internal:
            return code, frame.f_lasti
        frame = frame.f_back  # type: ignore[assignment]
    return None
