"""Export of functions: trace, encode, write; or send the graph to a callback in MLX's vocabulary."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from ingot.format import container, signature
from ingot.format.codec import Encoder, Example, Function, Trace, elementwise_only
from ingot.format.importer import ImportedFunction, at_shapes
from ingot.tracer import dims, tree
from ingot.tracer.array import array
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Guard
from ingot.tracer.graph import Constant, Graph
from ingot.tracer.trace import trace
from ingot.tracer.tree import Tree


def export_function(
    file_or_callback: container.Source | Callable[[dict[str, Any]], None],
    fun: Callable[..., Any],
    *args: Any,
    dynamic_shapes: Any = None,
    shapeless: bool = False,
    metadata: Any = None,
    native: Any = None,
    **kwargs: Any,
) -> None:
    """Trace `fun` on sample inputs and write it to a file, or describe it to a callback.

    Args:
        file_or_callback: path or binary file object; or a function that receives dictionaries with the field
            `type`: "inputs", "keyword_inputs", "outputs", "constants", then one "primitive" per operation.
        fun: takes arrays, returns an array or a tuple or list of arrays.
        args, kwargs: sample inputs; their values do not matter, their shapes and dtypes do. Also `(tuple,)`,
            `(dict,)` and `(tuple, dict)` as in MLX, for functions with parameters named like ours.
        dynamic_shapes: which axes may change: a dict by argument name or a tuple by position, of dicts
            `{axis: Dim}` or tuples `(Dim, None, 4)`. Code that depends on the size of such an axis is an
            error.
        shapeless: every axis may change; what the trace took for granted about sizes is checked at each
            call.
        metadata: anything made of None, bool, int, float, str, bytes, lists and dicts; stored with the
            function.
        native: reserved for native code in the file.

    Unevaluated arrays that `fun` encloses are exported as their computation, evaluated ones as constants.

    Raises:
        ValueError: inputs or outputs that are no arrays; dynamic sizes that the function depends on.
        OSError: the file cannot be written; an older file of that name is then unchanged.
    """
    if callable(file_or_callback) and not hasattr(file_or_callback, "write"):
        if metadata is not None:
            raise ValueError(
                "[export_function] metadata can only be written to a file, not sent to a callback."
            )
        from ingot.format.mlx_names import describe

        _refuse_native(native)
        made, samples = _trace(fun, args, kwargs, dynamic_shapes, shapeless)
        describe(made, samples, file_or_callback)
        return
    with exporter(
        file_or_callback,  # type: ignore[arg-type]
        fun,
        dynamic_shapes=dynamic_shapes,
        shapeless=shapeless,
        metadata=metadata,
        native=native,
    ) as export:
        export(*args, **kwargs)


def exporter(
    file: container.Source,
    fun: Callable[..., Any],
    *,
    dynamic_shapes: Any = None,
    shapeless: bool = False,
    metadata: Any = None,
    native: Any = None,
) -> FunctionExporter:
    """A context manager to call with sample inputs, once per trace; the file is written when it ends.

    Arrays that several traces enclose are stored once. An exception inside the `with` block writes nothing.
    Arguments are those of `export_function`.
    """
    return FunctionExporter(file, fun, dynamic_shapes, shapeless, metadata, native)


class FunctionExporter:
    """Collects traces of one function; made by `exporter`."""

    def __init__(
        self,
        file: Any,
        fun: Callable[..., Any],
        dynamic_shapes: Any,
        shapeless: bool,
        metadata: Any,
        native: Any,
    ) -> None:
        if not isinstance(file, str | os.PathLike) and not hasattr(file, "write"):
            raise TypeError(f"[exporter] expected a path or a binary file object, got {type(file).__name__}.")
        _refuse_native(native)
        self._file, self._fun, self._metadata = file, fun, metadata
        self._dynamic_shapes, self._shapeless = dynamic_shapes, shapeless
        self._traces: list[Trace] = []
        self._examples: list[Example] = []
        self._closed = False

    def __call__(self, *args: Any, dynamic_shapes: Any = None, **kwargs: Any) -> None:
        """Add the trace for these sample inputs; `dynamic_shapes` overrides the exporter's."""
        if self._closed:
            raise RuntimeError("[exporter] the file is already written; open a new exporter.")
        dynamic_shapes = self._dynamic_shapes if dynamic_shapes is None else dynamic_shapes
        made, _ = _trace(self._fun, args, kwargs, dynamic_shapes, self._shapeless)
        key = (made.in_tree, made.graph.inputs, made.graph.guards)
        if any(key == (t.in_tree, t.graph.inputs, t.graph.guards) for t in self._traces):
            shown = signature.show(made.graph.inputs, made.in_tree, made.graph.input_names)
            raise RuntimeError(f"[exporter] this signature was exported before: {shown}.")
        self._traces.append(made)

    def example(self, *args: Any, rtol: float = 1e-4, atol: float = 1e-5, **kwargs: Any) -> None:
        """Store these inputs and what the function gives for them, for `ingot verify`.

        They must fit a trace that was exported before. rtol, atol: how exact a later result must be.
        """
        name = _name_of(self._fun)
        index, inputs = ImportedFunction(Function(name, tuple(self._traces)), name).match(args, kwargs)
        given, keywords = signature.call_form(args, kwargs)
        outputs, _ = _outputs(self._fun(*given, **keywords))
        stored = [tuple(_snapshot(x) for x in arrays) for arrays in (inputs, outputs)]
        self._examples.append(Example(0, index, stored[0], stored[1], rtol, atol))

    def __enter__(self) -> FunctionExporter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if exc_type is None:
            self.close()
        self._closed = True

    def close(self) -> None:
        """Write the file. Later calls do nothing."""
        if self._closed:
            return
        self._closed = True
        if not self._traces:
            raise ValueError("[exporter] nothing to write: call the exporter with sample inputs first.")
        encoder = Encoder(examples=self._examples, base=_folder_of(self._fun))
        encoder.functions.append(Function(_name_of(self._fun), tuple(self._traces)))
        container.write(self._file, encoder.sections(_producer(), self._metadata), encoder.blobs)


def _snapshot(x: array) -> Constant:
    return Constant(np.array(x), x._value.aval)


def _refuse_native(native: Any) -> None:
    if native is not None:
        raise ValueError(f"[export_function] native={native!r}: this version writes no native code.")


def _producer() -> str:
    """Name and version of the package; a parent package is always loaded before its parts."""
    return f"ingot {getattr(sys.modules['ingot'], '__version__', '')}".strip()


def _name_of(fun: Callable[..., Any]) -> str:
    return getattr(fun, "__name__", type(fun).__name__)


def _folder_of(fun: Callable[..., Any]) -> str:
    """Folder of the source file of `fun`; empty when it has none."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(fun))
    except (TypeError, ValueError):
        file = None
    return os.path.dirname(os.path.abspath(file)) if file else ""


def _trace(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic_shapes: Any,
    shapeless: bool,
) -> tuple[Trace, dict[str, int]]:
    """The trace of `fun` and the sample sizes of its dims."""
    args, kwargs = signature.call_form(args, kwargs)
    leaves, structure = signature.flatten(args, kwargs, "export_function")
    in_tree = signature.portable(structure)
    names = signature.input_names(fun, in_tree)
    avals = [leaf._value.aval for leaf in leaves]
    samples: dict[str, int] = {}
    if shapeless and dynamic_shapes is not None:
        raise ValueError("[export_function] give either dynamic_shapes or shapeless=True.")
    if shapeless:
        avals, samples = signature.shapeless_avals(avals, names)
    elif dynamic_shapes is not None:
        parameters = signature.parameter_names(fun, len(args))
        avals, samples = signature.dynamic_avals(avals, in_tree, names, parameters, dynamic_shapes)
    out_tree: list[Tree] = []
    events: list[Guard] = []

    def flat(*inputs: array) -> list[array]:
        given, keywords = tree.unflatten(structure, inputs)
        results, found = _outputs(fun(*given, **{key: keywords[key] for key in kwargs}))
        out_tree.append(found)
        scope = dims.current_scope()
        events.extend(scope.events if scope is not None else ())
        return results

    policy = "guard" if shapeless else "specialise"
    name = _name_of(fun)
    traced = trace(flat, avals, name=name, descend=True, input_names=names, samples=samples, policy=policy)
    graph = traced.graph
    if graph.guards and not shapeless:
        raise _specialised(graph.guards)
    any_rank = shapeless and elementwise_only(graph) and _only_broadcasts(graph, avals, samples, events)
    return Trace(graph, in_tree, out_tree[0], any_rank), samples


def _only_broadcasts(
    graph: Graph, avals: Sequence[Aval], samples: dict[str, int], events: Sequence[Guard]
) -> bool:
    """Whether elementwise nodes alone ask for all `events`, so that other shapes need not satisfy them."""
    with dims.DimScope(samples) as scope:
        at_shapes(graph, avals)
    return set(events) <= set(scope.events)


def _outputs(value: Any) -> tuple[list[array], Tree]:
    leaves, structure = tree.flatten(value if isinstance(value, array | tuple | list) else [None])
    flat = structure.kind == "leaf" or all(child.kind == "leaf" for child in structure.children)
    if not flat or not leaves or not all(isinstance(leaf, array) for leaf in leaves):
        raise ValueError(
            "[export_function] The function must return an array or a tuple or list of arrays, not "
            f"{_describe(value)}."
        )
    return leaves, signature.portable(structure)


def _describe(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(type(item).__name__ for item in value) or 'nothing'}"
    return type(value).__name__


def _specialised(guards: Sequence[Guard]) -> ValueError:
    lines = [
        f"  {guard}" + ("" if guard.location is None else f"    at {guard.location}") for guard in guards
    ]
    return ValueError(
        "[export_function] The function depends on sizes that dynamic_shapes leaves open. It assumes:\n"
        + "\n".join(lines)
        + "\nGive the dims a narrower range or relation, make these axes static, or avoid the comparisons."
    )
