"""The evaluator that arrays use: chooses the tier for lazy graphs, finds executables for traced ones."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from weakref import ref

from ingot.runtime import interpreter
from ingot.tracer import config, evaluate
from ingot.tracer.array import LazyNode, Value
from ingot.tracer.evaluate import Call, Dispatched, Executable
from ingot.tracer.graph import Graph
from ingot.tracer.state import ABSTRACT, state, transforms_run
from ingot.tracer.trace import build_graph, linearise, results_of

_LOAD_AFTER, _COMPILE_AFTER = 16, 100
"""Calls through Python after which native dispatch is loaded from the cache, which costs as much as some 100
calls do; and after which it is compiled if it is not there, which costs as much as 10,000 do, once for a
machine."""


class Runtime:
    """Implements `ingot.tracer.evaluate.Evaluator`."""

    def __init__(self) -> None:
        self._tier: str | None = None
        self._calls = 0
        self._starts_at = -1  # unknown yet

    def evaluate(self, values: Sequence[Value]) -> None:
        if self._tier is None:  # read once: a lookup in the environment costs as much as a small evaluation
            self._tier = config.get("INGOT_EAGER")
        if self._tier == "compile":
            _evaluate_compiled(values)
        else:
            interpreter.evaluate_lazy(values)

    def executable(self, graph: Graph) -> Executable:
        from ingot.runtime.executable import executable  # only compiled functions need the lowering

        return executable(graph)

    def dispatch(self, function: Dispatched, call: Call) -> bool:
        self._calls += 1
        if self._calls < self._starts_at:
            return True
        return self._dispatch(function, call)

    def _dispatch(self, function: Dispatched, call: Call) -> bool:
        if self._starts_at < 0:
            mode = config.get("INGOT_DISPATCH")
            if mode == "python":
                return False
            self._starts_at = 0 if mode == "native" else _LOAD_AFTER
            return self.dispatch(function, call)
        from ingot.runtime import dispatch

        if not dispatch.start(compile=self._starts_at != _LOAD_AFTER):
            if self._starts_at != _LOAD_AFTER:
                return False
            self._starts_at = _COMPILE_AFTER
            return True
        return dispatch.dispatch(function, call)

    def forget(self, function: Dispatched) -> None:
        if "_dispatch" in function.__dict__:
            from ingot.runtime import dispatch

            dispatch.forget(function)


_lock = threading.RLock()
"""Of what a lazy graph looks like: one thread at a time reads it whole, or stores results in it."""


def _evaluate_compiled(values: Sequence[Value]) -> None:
    """Compile the lazy graph; evaluated arrays are its operands, never constants, and what somebody holds of
    the values on the way is a result too. Updates give new memory."""
    with _lock:
        inner, leaves = linearise(values, _is_known)
        if any(v.storage is None or v.trace == ABSTRACT for v in leaves):
            interpreter.evaluate_lazy(values)  # raises the error that explains it
            return
        results = _results(inner, {id(v) for v in values})
        since = max((v.serial for v in results), default=0) + 1
        traced = build_graph("lazy", leaves, results, since=since, close=True, descend=True)
    graph = replace(traced.graph, dims=())  # those of compiled functions in it, whose operands have sizes
    found = Runtime().executable(graph)(leaves)
    retain = transforms_run()
    with _lock:
        for value, result in zip(results, found, strict=True):
            if value.storage is None:  # no other thread was faster
                value.view, value.storage = result.view, result.storage
            if not retain or not value.trace:
                value.node = None
            elif state.depth:
                state.retained.append(ref(value))


def _is_known(value: Value) -> bool:
    return value.storage is not None


def _results(inner: list[Value], wanted: set[int]) -> list[Value]:
    """The wanted values and those that something outside of the graph refers to, each with the other results
    of its node. Empties `inner`, which refers to values itself."""
    uses: Counter[int] = Counter()
    nodes: list[LazyNode] = []
    members: list[Value] = []
    while inner:
        value = inner.pop()
        node = value.node
        if node is None:
            continue
        nodes.append(node)
        uses.update([id(o) for o in node.operands])
        results = results_of(value)
        uses.update([id(r) for r in results] if node.values else [])
        members.extend(results)
        del value, results
    held = [
        id(members[i]) in wanted or sys.getrefcount(members[i]) > _ALONE + uses[id(members[i])]
        for i in range(len(members))
    ]
    chosen = {id(member.node) for member, is_held in zip(members, held, strict=True) if is_held}
    return [member for member in reversed(members) if id(member.node) in chosen]


_listed = [object()]
_ALONE = sys.getrefcount(_listed[0])
"""The count of references to what a list alone refers to, in this version of Python."""


def install() -> None:
    """Make this the evaluator of all arrays."""
    evaluate.install(Runtime())
