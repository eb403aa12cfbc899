"""Import of functions: files to callables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ingot.format import signature
from ingot.format.canonical import DamageError
from ingot.format.codec import Decoder, Example, Function, Trace
from ingot.format.container import KNOWN, Source, open_container
from ingot.tracer import dims, dtypes, tree
from ingot.tracer.array import Value, array, leaf, wrap
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.dims_binding import bind_shapes
from ingot.tracer.evaluate import Call, Dispatched, Executable, evaluator
from ingot.tracer.graph import Graph, Literal, Node
from ingot.tracer.state import state
from ingot.tracer.trace import inline
from ingot.tracer.tree import LEAF, Tree

_PLANS = 1024
_OFFERS = 100
"""Calls of a trace that the runtime may leave to Python before it is no longer asked."""
_ALWAYS = [True]


def import_function(
    file: Source,
    return_metadata: bool = False,
    *,
    mmap: bool = True,
    verify: str = "use",
    trust_native: bool = False,
) -> Any:
    """Load a function that `export_function` wrote.

    Args:
        file: path or binary file object.
        return_metadata: also return the metadata, "" when there is none: `(function, metadata)`.
        mmap: map large constants from the file; False copies the file into memory first. A mapped file must
            not be truncated while it is in use.
        verify: "use" checks each constant before its first use, "open" checks all of them now.
        trust_native: run native code found in the file. Such code is not checked: only for files you trust.

    The result takes arrays (also NumPy arrays) as they were given to `export_function` and returns a tuple.
    It can be compiled, differentiated and vmapped like any function.

    Raises FormatError for a file that is damaged or not an Ingot file (a FileNotFoundError too when there is
    none); calls raise ValueError for arguments that fit no trace.
    """
    container = open_container(file, KNOWN, mmap=mmap, verify=verify)
    decoder = Decoder(container)
    functions = decoder.functions()
    if len(functions) != 1:
        with container.located("functions"):
            raise DamageError(f"the file holds {len(functions)} functions, expected one")
    imported = ImportedFunction(functions[0], container.name, decoder.examples(functions))
    if not return_metadata:
        return imported
    metadata = decoder.metadata()
    return imported, "" if metadata is None else metadata


class ImportedFunction(Dispatched):
    """A function from a file. Calls return tuples of arrays; see `import_function`."""

    def __init__(self, function: Function, source: str, examples: Sequence[Example] = ()) -> None:
        self.__name__ = function.name
        self.traces = function.traces
        self.examples = tuple(examples)
        self._source = source
        self._ready = [_Ready(trace.graph) for trace in function.traces]
        self._plans: dict[tuple[Aval, ...], _Plan] = {}

    def __repr__(self) -> str:
        shown = "\n".join(f"  {_shown(trace)}" for trace in self.traces)
        return f"<function {self.__name__} imported from {self._source}:\n{shown}>"

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[array, ...]:
        # Steady calls with arrays alone: one dict lookup finds the trace.
        values = [a._value for a in args if type(a) is array]
        if len(values) == len(args) and not kwargs:
            plan = self._plans.get(tuple([v.aval for v in values]))
            if plan is not None:
                results = plan(values)
                self._offer(plan.ready, args, kwargs, args, values)
                return results
        return self._call(args, kwargs)

    def _offer(
        self, ready: _Ready, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: Sequence[Any], values: Any
    ) -> None:
        """Let the runtime answer calls like this one, if they run compiled."""
        if not ready.offers or ready.executable is None or state.depth:
            return
        if any([type(v) is Literal or v.trace or v.storage is None for v in values]):
            return
        n = len(ready.graph.outputs)
        out_tree = Tree("tuple", (LEAF,) * n)
        call = Call(args, kwargs, leaves, values, ready.executable, out_tree, [None] * n, _ALWAYS, False)
        if not evaluator().dispatch(self, call):
            ready.offers -= 1

    def check(self, example: Example) -> list[float]:
        """How far each output of this function is from that of one of its `examples`.

        The largest of |found - expected| / (atol + rtol |expected|), at most 1 when the output is right; inf
        for another shape or dtype.
        """
        inputs = [wrap(leaf(c.data, aval=c.aval)) for c in example.inputs]
        args, kwargs = tree.unflatten(self.traces[example.trace].in_tree, inputs)
        found = self._call(args, kwargs)
        return [
            _distance(np.asarray(x), c.data, example) for x, c in zip(found, example.outputs, strict=True)
        ]

    def match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, list[array]]:
        """Index of the trace that a call takes, and its flat inputs. ValueError when there is none."""
        index, arrays, _ = self._match(args, kwargs)
        return index, arrays

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[array, ...]:
        _, arrays, plan = self._match(args, kwargs)
        avals = tuple([a._value.aval for a in arrays])
        # Symbolic extents are bound anew by every call: that may add guards to the running trace.
        if not kwargs and all(type(a) is array for a in args) and not any(a.is_symbolic for a in avals):
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[avals] = plan
        values = [a._value for a in arrays]
        results = plan(values)
        if plan.ready.offers:
            leaves = signature.leaves(*signature.call_form(args, kwargs))
            self._offer(plan.ready, args, kwargs, leaves, values)
        return results

    def _match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, list[array], _Plan]:
        leaves, structure = signature.flatten(*signature.call_form(args, kwargs), "import_function")
        structure = signature.portable(structure)
        reasons = []
        for index, (trace, ready) in enumerate(zip(self.traces, self._ready, strict=True)):
            arrays = _as_expected(leaves, trace, args, kwargs)
            plan = _plan(trace, ready, [a._value.aval for a in arrays], structure)
            if isinstance(plan, _Plan):
                return index, arrays, plan
            reasons.append(plan)
        raise ValueError(self._refusal([a._value.aval for a in leaves], structure, reasons))

    def _refusal(self, avals: Sequence[Aval], structure: Tree, reasons: Sequence[str]) -> str:
        lines = [
            f"[import_function] {self.__name__} cannot take these arguments.",
            f"  given:    {signature.show(avals, structure)}",
        ]
        for trace, reason in zip(self.traces, reasons, strict=True):
            lines.append(f"  expected: {_shown(trace)}    ({reason})")
        return "\n".join(lines)


def _distance(found: np.ndarray, expected: np.ndarray, example: Example) -> float:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    kind = np.complex128 if expected.dtype.kind == "c" else np.float64
    a, b = found.astype(kind), expected.astype(kind)
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        error = np.abs(a - b) / (example.atol + example.rtol * np.abs(b))
    return float(np.max(np.where(same, 0.0, np.where(np.isnan(error), np.inf, error)), initial=0.0))


def _shown(trace: Trace) -> str:
    graph = trace.graph
    shown = signature.show(graph.inputs, trace.in_tree, graph.input_names, trace.any_rank)
    if trace.any_rank:
        return f"{shown} with shapes that broadcast"
    limited = [s for s in graph.dims if s.min or s.max is not None or s.multiple_of != 1]
    limits = [*map(dims.describe, limited), *map(str, graph.guards)]
    return shown + (f" where {', '.join(limits)}" if limits else "")


def _as_expected(
    arrays: list[array], trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[array]:
    """The inputs; float64 buffers of other libraries stay float64 where the trace wants that."""
    if len(arrays) != len(trace.graph.inputs) or not any(
        a.dtype is dtypes.float64 for a in trace.graph.inputs
    ):
        return arrays
    leaves = signature.leaves(*signature.call_form(args, kwargs))
    return [
        array(leaf, dtypes.float64)
        if expected.dtype is dtypes.float64 and getattr(leaf, "dtype", None) == np.float64
        else found
        for found, leaf, expected in zip(arrays, leaves, trace.graph.inputs, strict=True)
    ]


class _Ready:
    """A graph and, after its first run, its executable: one for all sizes of its dims."""

    __slots__ = ("graph", "executable", "offers")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.executable: Executable | None = None
        self.offers = _OFFERS


class _Plan:
    """A graph bound to the avals of a call."""

    __slots__ = ("ready", "env")

    def __init__(self, ready: _Ready, env: dict[str, Extent]) -> None:
        self.ready, self.env = ready, env

    def __call__(self, values: Sequence[Value | Literal]) -> tuple[array, ...]:
        ready = self.ready
        for value in values:
            if isinstance(value, Literal) or value.trace or value.storage is None:
                return tuple(inline(ready.graph, values, self.env))
        if ready.executable is None:
            ready.executable = evaluator().executable(ready.graph)
        return tuple([wrap(value) for value in ready.executable(values)])  # type: ignore[arg-type]


def _plan(trace: Trace, ready: _Ready, avals: Sequence[Aval], structure: Tree) -> _Plan | str:
    """The trace, whose graph is `ready`, for inputs of `avals`; or why it does not take them."""
    graph = trace.graph
    if structure != trace.in_tree:
        return _difference(trace.in_tree, structure)
    names = graph.input_names or tuple(f"input {i}" for i in range(len(avals)))
    for name, expected, given in zip(names, graph.inputs, avals, strict=True):
        if expected.dtype is not given.dtype:
            return f"{name} must be {expected.dtype.name}, got {given.dtype.name}"
    if trace.any_rank:
        try:
            return _Plan(_Ready(at_shapes(graph, avals)), {})
        except ValueError as error:
            return str(error)
    try:
        env = _bind(graph, avals, names)
        for guard in graph.guards:
            if _holds(guard, env) is not True:
                where = "" if guard.location is None else f" at {guard.location}"
                return f"the trace assumed {guard}{where}"
    except ValueError as error:
        return str(error).removeprefix("[bind] ").removeprefix("[dim] ")
    return _Plan(ready, env)


def _difference(expected: Tree, given: Tree) -> str:
    wanted, found = expected.children, given.children
    if len(wanted[0].children) != len(found[0].children):
        return f"{len(wanted[0].children)} positional arguments, got {len(found[0].children)}"
    if wanted[1].keys != found[1].keys:
        return f"keyword arguments {list(wanted[1].keys)}, got {list(found[1].keys)}"
    return "the arguments are nested differently"


def _bind(graph: Graph, avals: Sequence[Aval], names: Sequence[str]) -> dict[str, Extent]:
    """Extents of the graph's symbols; ValueError when shapes or ranges do not fit."""
    if not any(aval.is_symbolic for aval in avals):
        sizes = [[int(n) for n in a.shape] for a in avals]
        return dict(bind_shapes([a.shape for a in graph.inputs], sizes, names))
    env: dict[str, Extent] = {}
    for expected, given, name in zip(graph.inputs, avals, names, strict=True):
        if expected.ndim != given.ndim:
            raise ValueError(f"{name} must have {expected.ndim} axes, got {given}")
        for extent, size in zip(expected.shape, given.shape, strict=True):
            if isinstance(extent, Dim) and extent.op == "symbol" and extent.name not in env:
                _check_range(extent, size, name)
                env[extent.name] = size
    for expected, given, name in zip(graph.inputs, avals, names, strict=True):
        for axis, (extent, size) in enumerate(zip(expected.shape, given.shape, strict=True)):
            wanted = dims.substitute(extent, env)
            if not dims.same(wanted, size) and not bool(wanted == size):
                raise ValueError(f"axis {axis} of {name} must be {extent}, got {size}")
    return env


def _check_range(symbol: Dim, size: Extent, name: str) -> None:
    if isinstance(size, int):
        dims.check_value(symbol, size, name)
        return
    low, high = dims.bounds(size)
    least, most = dims.bounds(symbol)
    too_low = least is not None and (low is None or low < least)
    too_high = most is not None and (high is None or high > most)
    if too_low or too_high or not dims.same(size % symbol.multiple_of, 0):
        raise ValueError(
            f"{name} has the extent {size}, which may leave the range of {dims.describe(symbol)}"
        )


def _holds(guard: dims.Guard, env: dict[str, Extent]) -> bool | None:
    if all(type(extent) is int for extent in env.values()):
        return guard.holds(env)  # type: ignore[arg-type]
    return guard.substitute(env).decided()


def at_shapes(graph: Graph, avals: Sequence[Aval]) -> Graph:
    """A graph of elementwise nodes for inputs of other shapes; ValueError when they do not broadcast."""
    known = [*avals, *(c.aval for c in graph.constants)]
    for node in graph.nodes:
        known.extend(node.primitive.result_avals(_avals(node, known)))
    return Graph(
        graph.name, tuple(avals), graph.constants, graph.nodes, graph.outputs, (), (), graph.input_names
    )


def _avals(node: Node, known: Sequence[Aval]) -> tuple[Aval, ...]:
    return tuple(o.aval if isinstance(o, Literal) else known[o] for o in node.operands)
