"""The evaluator that arrays use: chooses the tier for lazy graphs, finds executables for traced ones."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import ref

from ingot.runtime import interpreter
from ingot.tracer import config, evaluate
from ingot.tracer.array import Value
from ingot.tracer.evaluate import Call, Dispatched, Executable
from ingot.tracer.graph import Graph
from ingot.tracer.state import ABSTRACT, state
from ingot.tracer.trace import build_graph, linearise

_LOAD_AFTER, _COMPILE_AFTER = 16, 1000
"""Calls through Python after which native dispatch is loaded from the cache, which costs as much as some 100
calls do, and after which it is compiled if it is not there, which costs as much as 10,000 do, once for a
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


def _evaluate_compiled(values: Sequence[Value]) -> None:
    """Compile the lazy graph; evaluated arrays are its operands, never constants."""
    _, leaves = linearise(values, lambda v: v.storage is not None)
    if any(v.storage is None or v.trace == ABSTRACT for v in leaves):
        interpreter.evaluate_lazy(values)  # raises the error that explains it
        return
    since = max((v.serial for v in values), default=0) + 1
    traced = build_graph("lazy", leaves, list(values), since=since, close=True, descend=True)
    results = Runtime().executable(traced.graph)(leaves)
    for value, result in zip(values, results, strict=True):
        value.view, value.storage = result.view, result.storage
        if state.depth and value.trace:
            state.retained.append(ref(value))
        else:
            value.node = None


def install() -> None:
    """Make this the evaluator of all arrays."""
    evaluate.install(Runtime())
