"""compile: trace once per signature, then run the graph natively."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import update_wrapper
from types import MethodType
from typing import Any

import numpy as np

from ingot.tracer import config, tree
from ingot.tracer.array import Value, array, leaf, record_all, wrap
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.dims_binding import bind_shapes
from ingot.tracer.errors import GuardError
from ingot.tracer.evaluate import Call as DispatchedCall
from ingot.tracer.evaluate import Dispatched, Executable, evaluator
from ingot.tracer.graph import Graph, Literal
from ingot.tracer.primitives.control import Call
from ingot.tracer.state import state
from ingot.tracer.trace import trace
from ingot.tracer.transforms.arguments import check_callable

_enabled = [True]

_BY_AVALS = 1024
_OFFERS = 100
"""Calls of a trace that the runtime may leave to Python before it is no longer asked."""

_STATIC = (bool, int, float, complex, str, bytes, type(None))


def enable_compile() -> None:
    """Undo `disable_compile`."""
    _enabled[0] = True


def disable_compile() -> None:
    """Make every compiled function run its Python function instead, for debugging."""
    _enabled[0] = False


class _State:
    """The arrays in `inputs=` and `outputs=` before a call.

    `handles` holds each once, those of `inputs` first; a pattern says which of them stands in each place.
    """

    def __init__(self, inputs: Any, outputs: Any) -> None:
        read, structure = _state_leaves("inputs", inputs)
        self.written, written = (read, structure) if outputs is inputs else _state_leaves("outputs", outputs)
        positions: dict[int, int] = {}
        self.handles: list[array] = []
        self.inputs = structure, self._pattern(read, positions)
        self.n_inputs = len(self.handles)
        self.outputs = written, self._pattern(self.written, positions)

    def _pattern(self, leaves: Sequence[Any], positions: dict[int, int]) -> tuple[int, ...]:
        pattern = []
        for x in leaves:
            if isinstance(x, array):
                at = positions.setdefault(id(x), len(positions))
                if at == len(self.handles):
                    self.handles.append(x)
                pattern.append(at)
        return tuple(pattern)


class _NewState:
    """What a trace left in `outputs=`: its structure, and for each leaf which array it is or the constant.

    The arrays are those there were before the call, by position, and then new ones: a handle that the
    function updates in place stays the same object, one that it replaces leaves the old array as it was.
    """

    def __init__(self, outputs: Any, before: _State) -> None:
        leaves, self.structure = _state_leaves("outputs", outputs)
        self.before, self.n_inputs = before.outputs, before.n_inputs
        known = {id(h): i for i, h in enumerate(before.handles)}
        found: dict[int, array] = {}
        self.places: list[int | tuple[Any]] = []
        for x in leaves:
            if isinstance(x, array):
                at = known.setdefault(id(x), len(known))
                found[at] = x
                self.places.append(at)
            else:
                self.places.append((x,))
        self.positions, self.arrays = list(found), list(found.values())

    def store(self, outputs: Any, before: _State, results: Sequence[array], fresh: bool) -> None:
        """Do to `outputs` and its arrays what the trace did; constants that are in it are left alone."""
        n = len(before.handles) if before.outputs == self.before else self.n_inputs
        arrays = dict(enumerate(before.handles[:n]))
        for at, new in zip(self.positions, results, strict=True):
            if at in arrays:
                arrays[at]._value = new._value
            else:
                arrays[at] = new
        leaves = [arrays[p] if isinstance(p, int) else p[0] for p in self.places]
        if not fresh and before.outputs[0] == self.structure:
            leaves = [
                new if isinstance(p, int) else old
                for p, new, old in zip(self.places, leaves, before.written, strict=True)
            ]
        tree.assign(outputs, self.structure, leaves)


class _Entry:
    """One trace of a compiled function."""

    def __init__(self, graph: Graph, out_tree: tree.Tree, statics: list[Any], new_state: _NewState) -> None:
        self.graph, self.out_tree, self.statics, self.new_state = graph, out_tree, statics, new_state
        self.executable: Executable | None = None
        self.offers = _OFFERS
        self.closed: tuple[Graph, list[Value]] | None = None

    def run(self, operands: Sequence[Value]) -> list[array]:
        if self.executable is None:
            self.executable = evaluator().executable(self.graph)
        return [wrap(v) for v in self.executable(operands)]

    def result(self, results: Sequence[array]) -> Any:
        """What the function returns, around the arrays in it."""
        if self.out_tree is tree.LEAF and self.statics[0] is None:
            return results[0]
        found = iter(results)
        return tree.unflatten(self.out_tree, [next(found) if s is None else s[0] for s in self.statics])

    def record(self, operands: Sequence[Value | Literal]) -> list[array]:
        """One lazy `call` node; the graph's constants are operands of it."""
        if self.closed is None:
            self.closed = close(self.graph)
        graph, constants = self.closed
        if not graph.outputs:
            return []
        return list(record_all(Call(graph, "compiled"), *operands, *constants))


def close(graph: Graph) -> tuple[Graph, list[Value]]:
    """The graph with its constants as trailing inputs, and their values."""
    constants = [leaf(c.data, aval=c.aval) for c in graph.constants]
    inputs = graph.inputs + tuple(c.aval for c in graph.constants)
    return replace(graph, inputs=inputs, constants=(), input_names=()), constants


class CompiledFunction(Dispatched):
    """What `compile` returns: a callable with a cache of traces by signature.

    Signature: the tree of the arguments, shape and dtype of each array in it (with `shapeless`, rank and
    dtype), every other argument by type and value, and the same of the arrays in the captured state.
    """

    def __init__(self, fun: Callable, inputs: Any, outputs: Any, shapeless: bool) -> None:
        update_wrapper(self, fun)
        self._fun, self._inputs, self._outputs, self._shapeless = fun, inputs, outputs, shapeless
        self._entries: dict[Any, list[_Entry]] = {}
        self._by_avals: dict[tuple[Aval, ...], _Entry] = {}  # of calls with nothing but positional arrays
        self._stateless = inputs is None and outputs is None
        self._tracing = threading.RLock()  # two threads that meet a new signature trace it once

    def __repr__(self) -> str:
        return f"<compiled {getattr(self._fun, '__name__', self._fun)!s}>"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        # like a function: a compiled function in a class is a method
        return self if instance is None else MethodType(self, instance)

    @property
    def traces(self) -> int:
        """How many traces the function holds."""
        return sum(map(len, self._entries.values()))

    def graphs(self) -> list[Graph]:
        """The traced graphs."""
        return [entry.graph for entries in self._entries.values() for entry in entries]

    def clear(self) -> None:
        """Forget all traces."""
        evaluator().forget(self)
        self._by_avals.clear()
        self._entries.clear()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if state.depth or not _enabled[0]:
            # Inside another transform the operations belong to its trace.
            return self._fun(*args, **kwargs)
        if self._stateless and not kwargs:
            values = [a._value for a in args if type(a) is array]
            if len(values) == len(args):
                entry = self._by_avals.get(tuple([v.aval for v in values]))
                if entry is not None and all([type(v) is Value and v.storage is not None for v in values]):
                    results = entry.run(values)
                    if entry.offers:
                        self._offer(entry, args, kwargs, args, values)
                    return entry.result(results)
        leaves, structure = tree.flatten((args, kwargs))
        operands, statics, spots = _split(leaves)
        before = _State(self._inputs, self._outputs)
        operands += [_operand(h) for h in before.handles[: before.n_inputs]]
        signature = tuple([_signature(v, self._shapeless) for v in operands])
        key = (structure, spots, statics, signature, before.inputs)
        try:
            entries = self._entries.get(key)
        except TypeError as error:
            raise ValueError(f"[compile] arguments that are not arrays must be hashable: {error}.") from None
        entry, results = self._find(entries, operands)
        fresh = False
        if entry is None:
            with self._tracing:
                entry, results = self._find(self._entries.get(key), operands)
                if entry is None:
                    fresh = True
                    entry, results = self._add(key, leaves, structure, spots, before, operands)
        n = len(results) - len(entry.new_state.positions)
        if self._outputs is not None:
            entry.new_state.store(self._outputs, before, results[n:], fresh)
        if self._stateless and _all_evaluated(operands):
            if not kwargs and all(type(a) is array for a in args):
                if len(self._by_avals) >= _BY_AVALS:
                    self._by_avals.clear()
                self._by_avals[tuple([v.aval for v in operands])] = entry
            if entry.offers:
                arrays = [x for x, spot in zip(leaves, spots, strict=True) if spot]
                self._offer(entry, args, kwargs, arrays, operands)
        return entry.result(results[:n])

    def _offer(self, entry: _Entry, args: Any, kwargs: Any, leaves: Sequence[Any], operands: Any) -> None:
        """Let the runtime answer calls like this one."""
        assert entry.executable is not None
        call = DispatchedCall(
            args, kwargs, leaves, operands, entry.executable, entry.out_tree, entry.statics, _enabled, True
        )
        if not evaluator().dispatch(self, call):
            entry.offers -= 1

    def _add(
        self,
        key: Any,
        leaves: list[Any],
        structure: tree.Tree,
        spots: tuple[bool, ...],
        before: _State,
        operands: list[Value],
    ) -> tuple[_Entry, list[array]]:
        """A new trace and its results; nothing has changed when it fails."""
        contents = tree.snapshot((self._inputs, self._outputs))
        try:
            entry = self._trace(leaves, structure, spots, before, operands)
            if config.get("INGOT_EXPLAIN") == "recompiles":
                self._explain(key, key in self._entries)
            _, results = self._find([entry], operands)
        except BaseException:
            tree.restore(contents)  # or abstract arrays stay behind in the state
            raise
        self._entries.setdefault(key, []).append(entry)
        return entry, results

    def _find(
        self, entries: Sequence[_Entry] | None, operands: list[Value]
    ) -> tuple[_Entry | None, list[array]]:
        """The first entry whose guards hold, and its results."""
        lazy = not _all_evaluated(operands)
        for entry in entries or ():
            if entry.graph.guards or entry.graph.dims:
                if not guards_hold(entry.graph, [v.aval for v in operands]):
                    continue
            return entry, entry.record(operands) if lazy else entry.run(operands)
        return None, []

    def _trace(
        self,
        leaves: list[Any],
        structure: tree.Tree,
        spots: tuple[bool, ...],
        before: _State,
        operands: list[Value],
    ) -> _Entry:
        avals = [v.aval for v in operands]
        samples: dict[str, int] = {}
        if self._shapeless:
            avals, samples = free_shapes(avals)
        captured = before.handles[: before.n_inputs]
        n_args = len(operands) - len(captured)
        made: list[Any] = []

        def flat_fun(*arguments: array) -> list[array]:
            for handle, argument in zip(captured, arguments[n_args:], strict=True):
                handle._value = argument._value
            found = iter(arguments[:n_args])
            args, kwargs = tree.unflatten(
                structure, [next(found) if spot else x for x, spot in zip(leaves, spots, strict=True)]
            )
            out, out_tree = tree.flatten(self._fun(*args, **kwargs))
            statics = [None if isinstance(x, array) else (x,) for x in out]
            new_state = _NewState(self._outputs, before)
            values = [a._value for a in arguments[n_args:]]
            self._check_kept(dict(zip(map(id, captured), values, strict=True)), new_state.arrays)
            made[:] = [out_tree, statics, new_state]
            return [x for x in out if isinstance(x, array)] + new_state.arrays

        saved = [(h, h._value) for h in before.handles]
        name = getattr(self._fun, "__name__", "f")
        try:
            traced = trace(
                flat_fun,
                avals,
                name=name if name.isidentifier() else "f",
                samples=samples,
                rebindable=frozenset(map(id, before.handles)),
            )
        finally:
            for handle, value in saved:
                handle._value = value
        made[2].arrays = []  # results of the graph from now on
        return _Entry(traced.graph, *made)

    def _check_kept(self, captured: dict[int, Value], written: Sequence[array]) -> None:
        """Raise ValueError when an array that `inputs=` names was changed and `outputs=` does not name it."""
        allowed = set(map(id, written))
        for x in tree.leaves(self._inputs):
            if isinstance(x, array) and captured.get(id(x)) is not x._value and id(x) not in allowed:
                raise ValueError(
                    f"[compile] {self!r} changes an array in `inputs=` that is not in `outputs=`: name it in "
                    "both."
                )

    def _explain(self, key: Any, same_signature: bool) -> None:
        why = "a guard of every earlier trace fails" if same_signature else "a new signature"
        if not self._entries:
            why = "the first call"
        print(f"[compile] {self!r} is traced: {why} {key[3]}", file=sys.stderr)


def _split(leaves: list[Any]) -> tuple[list[Value], tuple[Any, ...], tuple[bool, ...]]:
    """Values of the array arguments, the others with their types, and which leaf is an array."""
    operands: list[Value] = []
    statics: list[Any] = []
    spots = []
    for x in leaves:
        if isinstance(x, array):
            operands.append(_operand(x))
            spots.append(True)
        elif isinstance(x, _STATIC):
            statics.append((type(x), repr(x) if isinstance(x, float) else x))
            spots.append(False)
        elif hasattr(x, "__array__") or hasattr(x, "__dlpack__"):
            operands.append(foreign(x))
            spots.append(True)
        else:
            statics.append((type(x), x))
            spots.append(False)
    return operands, tuple(statics), tuple(spots)


def _all_evaluated(operands: Sequence[Value]) -> bool:
    return all([v.storage is not None for v in operands])


def _operand(x: array) -> Value:
    value = x._value
    return leaf(value.numpy()) if type(value) is Literal else value


def foreign(x: Any) -> Value:
    """An argument of another library as a value over its own memory (float64 stays what it is)."""
    view = np.asarray(x) if hasattr(x, "__array__") else np.from_dlpack(x)
    if not view.dtype.isnative:
        view = view.astype(view.dtype.newbyteorder("="))
    value = leaf(view)
    value.storage.pinned = True  # type: ignore[union-attr]  # the caller may write to it
    return value


def _signature(value: Value, shapeless: bool) -> Any:
    return (value.aval.ndim, value.aval.dtype) if shapeless else value.aval


def _state_leaves(name: str, where: Any) -> tuple[list[Any], tree.Tree]:
    leaves, structure = tree.flatten(where)
    for x in leaves:
        if not isinstance(x, (array, *_STATIC)):
            raise ValueError(
                f"[compile] {name}= must be a nested list, tuple or dict of arrays, but holds "
                f"{type(x).__name__}."
            )
    return leaves, structure


def free_shapes(avals: Sequence[Aval]) -> tuple[list[Aval], dict[str, int]]:
    """The avals with a fresh dim for each axis, and the sizes the dims had."""
    samples: dict[str, int] = {}
    freed = []
    for aval in avals:
        shape = []
        for extent in aval.shape:
            name = f"s{len(samples)}"
            samples[name] = extent.__index__()
            shape.append(Dim(name))
        freed.append(Aval(shape, aval.dtype))
    return freed, samples


def guards_hold(graph: Graph, avals: Sequence[Aval]) -> bool:
    """Whether concrete `avals` fit the graph's dims and guards."""
    try:
        check_call(graph, avals)
    except ValueError:
        return False
    return True


def check_call(graph: Graph, avals: Sequence[Aval]) -> dict[str, int]:
    """Sizes of the graph's dims for concrete `avals`.

    Raises:
        GuardError: when an extent does not fit its dim, or a guard does not hold; says which.
    """
    names = graph.input_names or tuple(f"input {i}" for i in range(len(avals)))
    try:
        env = bind_shapes([a.shape for a in graph.inputs], [a.shape for a in avals], names)  # type: ignore[misc]
    except ValueError as error:
        raise GuardError(str(error)) from None
    for guard in graph.guards:
        if not guard.holds(env):
            raise GuardError(f"[{graph.name}] the trace holds only where {guard} ({guard.location}).")
    return env


def compile(fun: Callable, inputs: Any = None, outputs: Any = None, shapeless: bool = False) -> Callable:
    """A function that traces `fun` at its first call with a signature and runs the compiled graph then on.

    Args:
        inputs: nested list, tuple or dict of arrays that `fun` reads from outside: hidden arguments.
        outputs: the same for arrays that `fun` updates: each call does to them what `fun` did when it was
            traced. An array in `inputs` that `fun` updates must be in both.
        shapeless: shapes may change without a new trace, except where `fun` depended on one (a guard).

    Returns:
        a function with the arguments and results of `fun`. Arguments that are not arrays are constants of the
        trace: another value is another trace. With evaluated arguments it runs at once; with lazy ones it
        records one operation; inside another transform it runs `fun` itself.
    """
    check_callable("compile", fun)
    return CompiledFunction(fun, inputs, outputs, shapeless)
