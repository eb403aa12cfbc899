"""Graphs and signatures as sections of a file, and back.

Sections (SPEC.md has every field):

    dims        symbols of all graphs: name, range, multiple_of
    primitives  name, version and field names of the primitives that occur
    graphs      node tables as typed columns; a graph refers only to graphs before it
    functions   name -> traces: graph, signature (input tree, input names), output tree
    constants   dtype, shape and place among the bins
    sources     (ignorable) file and line of each node
    tests       (ignorable) example inputs and outputs of traces

Decoding believes nothing: indices are bounded, every type is inferred again and compared with the stored one,
and `verify` checks the invariants of the IR.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ingot.format.canonical import MAX_DEPTH, DamageError, column, decode, encode, read_column
from ingot.format.canonical import fields as map_fields
from ingot.format.container import Blobs, Container, Section
from ingot.tracer import dims_text, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent, Guard
from ingot.tracer.dtypes import Dtype
from ingot.tracer.graph import Constant, Graph, Literal, Location, Node, Operand
from ingot.tracer.primitive import Primitive, check_params, registry
from ingot.tracer.primitives.elementwise import Elementwise
from ingot.tracer.tree import Tree

_SMALL = 4096
_FREE_VISITS = 1 << 20
# Longest text of an extent or guard in a file: bounds the time that parsing hostile ones takes.
MAX_TEXT = 2048
_NODE_COLUMNS = ("primitive", "param", "arity", "results", "scope")


@dataclass(frozen=True)
class Trace:
    """One graph of a function and how it is called.

    The graph's inputs are the leaves of `(args, kwargs)` in the order of `in_tree`, dicts by ascending key.
    `any_rank`: every node is elementwise and the inputs may have any shapes that broadcast.
    """

    graph: Graph
    in_tree: Tree
    out_tree: Tree
    any_rank: bool = False


def elementwise_only(graph: Graph) -> bool:
    """Whether the graph may run on inputs of any shapes that broadcast."""
    return all(isinstance(node.primitive, Elementwise) for node in graph.nodes)


@dataclass(frozen=True)
class Function:
    """A named function with its traces, in order of export."""

    name: str
    traces: tuple[Trace, ...]


@dataclass(frozen=True)
class Example:
    """Inputs of trace `trace` of function `function`, and the outputs that are right for them.

    An output is as expected when it differs by at most `atol + rtol * |expected|` everywhere.
    """

    function: int
    trace: int
    inputs: tuple[Constant, ...]
    outputs: tuple[Constant, ...]
    rtol: float
    atol: float


# Encoding


class _Table:
    """Distinct entries in order of first use."""

    def __init__(self) -> None:
        self.index: dict[Any, int] = {}
        self.rows: list[Any] = []

    def add(self, key: Any, row: Callable[[], Any]) -> int:
        found = self.index.get(key)
        if found is None:
            made = row()  # may itself add rows
            found = self.index[key] = len(self.rows)
            self.rows.append(made)
        return found


@dataclass
class Encoder:
    """Collects functions; `sections` gives what `container.write` needs."""

    blobs: Blobs = field(default_factory=Blobs)
    functions: list[Function] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    base: str | None = None
    """Folder that source files are named relative to; None leaves source lines out."""

    def sections(self, producer: str, metadata: Any = None) -> dict[str, Section]:
        """All sections. TypeError or ValueError for metadata or parameters that a file cannot hold."""
        self._dims, self._primitives = _Table(), _Table()
        self._graphs, self._constants, self._files = _Table(), _Table(), _Table()
        self._places: list[Any] = []
        functions = [{"name": f.name, "traces": [self._trace(t) for t in f.traces]} for f in self.functions]
        tests = [self._example(example) for example in self.examples]
        found = {
            "constants": self._constants.rows,
            "dims": self._dims.rows,
            "functions": functions,
            "graphs": self._graphs.rows,
            "primitives": self._primitives.rows,
        }
        sections = {name: Section(_encoded(name, value)) for name, value in found.items()}
        ignorable: dict[str, Any] = {"producer": producer}
        if metadata is not None:
            ignorable["metadata"] = metadata
        if tests:
            ignorable["tests"] = tests
        if self.base is not None:
            ignorable["sources"] = {"files": self._files.rows, "graphs": self._places}
        return sections | {name: Section(_encoded(name, value), False) for name, value in ignorable.items()}

    def _trace(self, trace: Trace) -> dict[str, Any]:
        return {
            "any_rank": trace.any_rank,
            "graph": self._graph(trace.graph),
            "in_tree": _encode_tree(trace.in_tree),
            "out_tree": _encode_tree(trace.out_tree),
        }

    def _example(self, example: Example) -> dict[str, Any]:
        return {
            "atol": float(example.atol),
            "function": example.function,
            "inputs": column([self._constant(c) for c in example.inputs]),
            "outputs": column([self._constant(c) for c in example.outputs]),
            "rtol": float(example.rtol),
            "trace": example.trace,
        }

    def _graph(self, graph: Graph) -> int:
        return self._graphs.add(graph, lambda: self._graph_row(graph))

    def _graph_row(self, graph: Graph) -> dict[str, Any]:
        types, params, literals, scopes = _Table(), _Table(), _Table(), _Table()

        def type_of(aval: Aval) -> int:
            return types.add(aval, lambda: [aval.dtype.short, [_extent(e) for e in aval.shape]])

        def operand(value: Operand) -> int:
            if isinstance(value, Literal):
                return 2 * literals.add(value, lambda: _encode_literal(value)) + 1
            return 2 * value

        rows = []
        for node in graph.nodes:
            values = node.primitive.params()
            key = (tuple(values.values()), tuple(map(_kind, values.values())))
            param = params.add(key, partial(self._params, values))
            rows.append(
                (
                    self._primitive(node.primitive),
                    param,
                    len(node.operands),
                    len(node.results),
                    scopes.add(node.scope, partial(str, node.scope)),
                )
            )
        columns = list(zip(*rows, strict=True)) or [()] * len(_NODE_COLUMNS)
        row: dict[str, Any] = dict(zip(_NODE_COLUMNS, map(column, columns), strict=True))
        row |= {
            "constants": column([self._constant(c) for c in graph.constants]),
            "dims": column([self._dim(d) for d in graph.dims]),
            "guards": [
                [_text(g), g.fixed, None if g.location is None else self._where(g.location)]
                for g in graph.guards
            ],
            "input_names": list(graph.input_names),
            "inputs": column([type_of(a) for a in graph.inputs]),
            "name": graph.name,
            "operand": column([operand(o) for node in graph.nodes for o in node.operands]),
            "outputs": column([operand(o) for o in graph.outputs]),
            "result": column([type_of(graph.avals[r]) for node in graph.nodes for r in node.results]),
            "literals": literals.rows,
            "params": params.rows,
            "scopes": scopes.rows,
            "types": types.rows,
        }
        if self.base is not None:
            places = [self._place(node.location) for node in graph.nodes]
            self._places.append([column([p[0] for p in places]), column([p[1] for p in places])])
        return row

    def _dim(self, dim: Dim) -> int:
        return self._dims.add(dim, lambda: [dim.name, dim.min, dim.max, dim.multiple_of])

    def _primitive(self, primitive: Primitive) -> int:
        kind = type(primitive)
        return self._primitives.add(kind, lambda: [kind.name, kind.version, list(kind.fields)])

    def _constant(self, constant: Constant) -> int:
        def row() -> list[Any]:
            data = np.ascontiguousarray(constant.data)
            return [constant.aval.dtype.short, list(constant.aval.shape), *self.blobs.add(data)]

        return self._constants.add((constant.aval, constant.digest), row)

    def _params(self, values: dict[str, Any]) -> list[Any]:
        return [self._param(value) for value in values.values()]

    def _param(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, tuple):
            return [self._param(v) for v in value]
        if isinstance(value, Dtype):
            return {"dtype": value.short}
        if isinstance(value, Dim):
            return {"extent": _text(value)}
        if isinstance(value, Graph):
            return {"graph": self._graph(value)}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        raise TypeError(f"[export_function] a parameter cannot be stored: {value!r} of type {type(value)}")

    def _where(self, location: Any) -> str:
        if isinstance(location, Location):
            return f"{self._relative(location.file)}:{location.line}"
        return str(location)

    def _place(self, location: Location | None) -> tuple[int, int]:
        if location is None:
            return (0, 0)
        name = self._relative(location.file)
        return (self._files.add(name, lambda: name) + 1, location.line)

    def _relative(self, path: str) -> str:
        """A name that does not depend on where the project lies: relative to `base`, else the last part."""
        if self.base and path.startswith(self.base + os.sep):
            return path[len(self.base) + 1 :]
        return os.path.basename(path)


def _kind(value: Any) -> Any:
    """Tells parameters apart that Python calls equal: 1, 1.0 and True, 0.0 and -0.0."""
    if isinstance(value, tuple):
        return tuple(map(_kind, value))
    return repr(value) if type(value) in (float, complex) else type(value)


def _encoded(name: str, value: Any) -> bytes:
    """Canonical bytes of a section that readers accept."""
    try:
        data = encode(value)
        decode(data)
    except (TypeError, ValueError) as error:
        raise type(error)(f"[export_function] {name}: {error}") from None
    except DamageError as error:
        raise ValueError(f"[export_function] {name}: {error.reason}") from None
    return data


def _extent(extent: Extent) -> int | str:
    return _text(extent) if isinstance(extent, Dim) else int(extent)


def _text(value: Dim | Guard) -> str:
    text = str(value)
    if len(text) > MAX_TEXT:
        raise ValueError(f"[export_function] the extent {text[:80]}... is too long for a file.")
    return text


def _encode_literal(literal: Literal) -> list[Any]:
    value = literal.value
    return [literal.dtype.short, [value.real, value.imag] if isinstance(value, complex) else value]


def _encode_tree(tree: Tree) -> Any:
    if tree.kind == "leaf":
        return True
    if tree.kind == "none":
        return None
    if tree.kind in ("list", "tuple", "namedtuple"):
        kind = "list" if tree.kind == "list" else "tuple"
        return [kind, [_encode_tree(child) for child in tree.children]]
    if not all(isinstance(key, str) for key in tree.keys):
        raise TypeError(f"[export_function] keys of dicts must be strings in a file, got {tree.keys}.")
    return [tree.kind, list(tree.keys), [_encode_tree(child) for child in tree.children]]


# Decoding


class Decoder:
    """Reads the sections of an opened file. Constants stay in the file until `constant` asks for one."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self._graphs: list[Graph] = []
        self._constants: dict[int, Constant] = {}
        self._reach: dict[Graph, frozenset[Graph]] = {}
        self._sizes: dict[Graph, int] = {}
        self._nodes = self._visits = 0

    # Cheap parts, for summaries

    def dims(self) -> list[Dim]:
        """Symbols of all graphs. FormatError for malformed ones."""
        with self.container.located("dims"):
            return [_decode_dim(row) for row in _rows(self.container.section("dims"), "dims", 4)]

    def constant_table(self) -> list[tuple[Aval, int, int]]:
        """Type, first bin and number of bins of each constant, checked against the bins."""
        rows = self.container.section("constants")
        with self.container.located("constants"):
            return [self._constant_row(row) for row in _rows(rows, "constants", 4)]

    def _constant_row(self, row: Sequence[Any]) -> tuple[Aval, int, int]:
        dtype, shape, first, count = row
        if type(shape) is not tuple or not all(_is_size(n) for n in shape) or len(shape) > MAX_DEPTH:
            raise DamageError(f"constants: bad shape {shape!r}")
        if not (_is_size(first) and _is_size(count)):
            raise DamageError("constants: bad place")
        aval = Aval(shape, _dtype(dtype))
        stored = self.container.length(first, count)
        if stored != aval.nbytes:
            raise DamageError(f"constants: {aval} takes {aval.nbytes} bytes, the file stores {stored}")
        return aval, first, count

    def producer(self) -> str:
        """Name and version of the writer; empty when the file does not say."""
        return str(self.container.section("producer")) if "producer" in self.container.sections else ""

    def metadata(self) -> Any:
        """The user's metadata; None when there is none."""
        return self.container.section("metadata") if "metadata" in self.container.sections else None

    # Whole functions

    def functions(self) -> list[Function]:
        """All functions, verified."""
        container = self.container
        self._table = self.constant_table()
        self._dims = self.dims()
        primitives, graphs = container.section("primitives"), container.section("graphs")
        with container.located("primitives"):
            self._primitives = [_decode_primitive(row) for row in _rows(primitives, "primitives", 3)]
        sources = self._sources(len(graphs) if type(graphs) is tuple else 0)
        with container.located("graphs"):
            if type(graphs) is not tuple:
                raise DamageError("graphs: expected an array")
            for i, row in enumerate(graphs):
                try:
                    self._graphs.append(_GraphDecoder(self, row, f"graph {i}", sources[i]).graph())
                except (ValueError, OverflowError) as error:  # limits of symbolic extents
                    raise DamageError(f"graph {i}: {str(error)[:200]}") from None
        with container.located("functions"):
            return self._functions(container.section("functions"))

    def _functions(self, rows: Any) -> list[Function]:
        if type(rows) is not tuple or not rows:
            raise DamageError("functions: expected an array of at least one function")
        functions = []
        for row in rows:
            name, traces = map_fields(row, "functions", name=str, traces=tuple)
            if not traces:
                raise DamageError(f"function {name!r} has no traces")
            functions.append(Function(name, tuple(self._trace(t) for t in traces)))
        return functions

    def _trace(self, row: Any) -> Trace:
        any_rank, index, in_tree, out_tree = map_fields(
            row, "trace", any_rank=bool, graph=int, in_tree=tuple, out_tree=(tuple, bool, type(None))
        )
        graph = self.graph(index)
        trace = Trace(graph, decode_tree(in_tree), decode_tree(out_tree), any_rank)
        check_signature(trace.in_tree)
        if any_rank and not elementwise_only(graph):
            raise DamageError("trace: any_rank, but not all nodes are elementwise")
        if trace.in_tree.n_leaves != len(graph.inputs) or trace.out_tree.n_leaves != len(graph.outputs):
            raise DamageError("trace: the trees of inputs and outputs do not fit the graph")
        return trace

    def examples(self, functions: Sequence[Function]) -> list[Example]:
        """The test vectors of `functions`, which are those of this file."""
        if "tests" not in self.container.sections:
            return []
        rows = self.container.section("tests")
        with self.container.located("tests"):
            if type(rows) is not tuple:
                raise DamageError("tests: expected an array")
            return [self._example(row, functions) for row in rows]

    def _example(self, row: Any, functions: Sequence[Function]) -> Example:
        atol, function, inputs, outputs, rtol, trace = map_fields(
            row, "tests", atol=float, function=int, inputs=tuple, outputs=tuple, rtol=float, trace=int
        )
        known = 0 <= function < len(functions) and 0 <= trace < len(functions[function].traces)
        if not known or not (0 <= rtol < float("inf") and 0 <= atol < float("inf")):
            raise DamageError(
                f"tests: no trace {trace} of function {function}, or bad tolerances {rtol}, {atol}"
            )
        graph = functions[function].traces[trace].graph
        counts = (len(graph.inputs), len(graph.outputs))
        found = [
            tuple(self.constant(i) for i in read_column(value, "tests", count, len(self._table)))
            for value, count in zip((inputs, outputs), counts, strict=True)
        ]
        return Example(function, trace, found[0], found[1], rtol, atol)

    def graph(self, index: int) -> Graph:
        """Graph `index` of those decoded so far; so references cannot form a cycle."""
        if not 0 <= index < len(self._graphs):
            raise DamageError(f"reference to graph {index}, {len(self._graphs)} come before it")
        return self._graphs[index]

    def count_visits(self, graph: Graph) -> None:
        """DamageError when verifying every graph, each with its sub-graphs, would take too long."""
        params = [value for node in graph.nodes for value in node.primitive.params().values()]
        inner = {found for value in params for found in _graphs(value)}
        if not inner <= self._reach.keys():
            raise DamageError("graphs: a graph with constants stands inside another")
        reach = frozenset(inner).union(*(self._reach[found] for found in inner))
        size = len(graph.nodes) + 1
        if not graph.constants:  # only closed graphs can stand inside others
            self._reach[graph], self._sizes[graph] = reach, size
        self._nodes += size
        self._visits += size + sum(self._sizes[found] for found in reach)
        if self._visits > _FREE_VISITS + MAX_DEPTH * self._nodes:
            raise DamageError("graphs: too many graphs share too many sub-graphs")

    def constant(self, index: int) -> Constant:
        """Constant `index`; large ones are views of the mapped file, checked when they are first read."""
        found = self._constants.get(index)
        if found is None:
            found = self._constants[index] = StoredConstant(self.container, *self._table[index])
        return found

    def _sources(self, count: int) -> list[tuple[list[str], list[int], list[int]] | None]:
        if "sources" not in self.container.sections:
            return [None] * count
        value = self.container.section("sources")
        with self.container.located("sources"):
            files, rows = map_fields(value, "sources", files=tuple, graphs=tuple)
            if len(rows) != count or not all(type(name) is str for name in files):
                raise DamageError("sources: the table does not fit the graphs")
            return [
                (
                    list(files),
                    read_column(row[0], "sources.file", limit=len(files) + 1),
                    read_column(row[1], "sources.line"),
                )
                for row in _rows(rows, "sources", 2)
            ]


class StoredConstant(Constant):
    """A constant in a file, read (and its checksums checked) at the first use of `data`."""

    __slots__ = ("_container", "_place", "_data")

    def __init__(self, container: Container, aval: Aval, first: int, count: int) -> None:
        self.aval = aval
        self._container, self._place = container, (first, count)
        self._data: np.ndarray | None = None
        self._digest = None

    @property
    def data(self) -> np.ndarray:  # type: ignore[override]
        """The array: a read-only view of the file, or a copy of a small one. FormatError when damaged."""
        if self._data is None:
            payload = self._container.payload(*self._place)
            dtype = self.aval.dtype
            if dtype is dtypes.bool_ and payload.nbytes and np.frombuffer(payload, np.uint8).max() > 1:
                where = self._container.place(self._place[0])
                with self._container.located():
                    raise DamageError("a constant of booleans holds other values", where)
            if payload.nbytes <= _SMALL:
                payload = memoryview(bytearray(payload)).toreadonly()
            self._data = np.frombuffer(payload, dtype.numpy).reshape(self.aval.shape)
        return self._data


class _GraphDecoder:
    def __init__(self, decoder: Decoder, row: Any, what: str, source: Any) -> None:
        self.decoder, self.what, self.source = decoder, what, source
        kinds: dict[str, Any] = dict.fromkeys(
            (*_NODE_COLUMNS, "constants", "dims", "guards", "input_names", "inputs", "literals", "operand",
             "outputs", "params", "result", "scopes", "types"), tuple,
        )  # fmt: skip
        map_fields(row, what, **kinds, name=str)
        self.row = row

    def _column(self, name: str, count: int | None = None, limit: int | None = None) -> list[int]:
        return read_column(self.row[name], f"{self.what}.{name}", count, limit)

    def graph(self) -> Graph:
        """The graph, verified; DamageError says what is wrong with it."""
        row, decoder = self.row, self.decoder
        self.symbols = self._symbols()
        types = [self._aval(item) for item in _rows(row["types"], f"{self.what}.types", 2)]
        self.literals = [_decode_literal(item) for item in _rows(row["literals"], f"{self.what}.literals", 2)]
        inputs = tuple(types[i] for i in self._column("inputs", limit=len(types)))
        table = decoder._table
        constants = tuple(decoder.constant(i) for i in self._column("constants", limit=len(table)))
        names = row["input_names"]
        if not all(type(name) is str for name in names) or len(names) not in (0, len(inputs)):
            raise DamageError(f"{self.what}.input_names do not fit its inputs")
        avals = [*inputs, *(c.aval for c in constants)]
        guards = self._guards()
        nodes = self._nodes(avals, types)
        outputs = tuple(self._operand(code, len(avals)) for code in self._column("outputs"))
        symbols = tuple(self.symbols.values())
        graph = Graph(row["name"], inputs, constants, nodes, outputs, symbols, guards, names)
        decoder.count_visits(graph)
        _verify(graph, avals, self.what)
        return graph

    def _symbols(self) -> dict[str, Dim]:
        known = self.decoder._dims
        found = [known[i] for i in self._column("dims", limit=len(known))]
        symbols = {dim.name: dim for dim in found}
        if len(symbols) != len(found):
            raise DamageError(f"{self.what}.dims: two symbols of one name")
        return symbols

    def _extent(self, value: Any) -> Extent:
        if _is_size(value):
            return value
        if type(value) is str:
            extent = _parsed(dims_text.parse, value, self.symbols, f"{self.what}: extent")
            if isinstance(extent, Dim):
                return extent
        raise DamageError(f"{self.what}: {value!r} is no extent")

    def _aval(self, row: Sequence[Any]) -> Aval:
        dtype, shape = row
        if type(shape) is not tuple or len(shape) > MAX_DEPTH:
            raise DamageError(f"{self.what}: bad shape {shape!r}")
        return Aval(tuple(self._extent(e) for e in shape), _dtype(dtype))

    def _guards(self) -> tuple[Guard, ...]:
        guards = []
        for text, fixed, where in _rows(self.row["guards"], f"{self.what}.guards", 3):
            if type(text) is not str or type(fixed) is not bool or not isinstance(where, str | None):
                raise DamageError(f"{self.what}.guards: expected [text, fixed, location]")
            guard = _parsed(dims_text.parse_guard, text, self.symbols, f"{self.what}: guard")
            guards.append(Guard(guard.relation, guard.left, guard.right, where, fixed))
        return tuple(guards)

    def _operand(self, code: int, defined: int) -> Operand:
        if code & 1:
            if code >> 1 >= len(self.literals):
                raise DamageError(f"{self.what}: literal {code >> 1} of {len(self.literals)}")
            return self.literals[code >> 1]
        if code >> 1 >= defined:
            raise DamageError(f"{self.what}: value {code >> 1} is used before it is defined")
        return code >> 1

    def _nodes(self, avals: list[Aval], types: list[Aval]) -> tuple[Node, ...]:
        """The nodes; appends the stored types of their results to `avals`."""
        row, what = self.row, self.what
        primitives = self.decoder._primitives
        kinds = self._column("primitive", limit=len(primitives))
        count = len(kinds)
        params = self._column("param", count, len(row["params"]))
        arities, n_results = self._column("arity", count), self._column("results", count)
        scopes = self._column("scope", count, len(row["scopes"]))
        if not all(type(scope) is str for scope in row["scopes"]):
            raise DamageError(f"{what}.scopes: expected strings")
        operands = self._column("operand", sum(arities))
        declared = self._column("result", sum(n_results), len(types))
        locations = self._locations(count)
        made: dict[tuple[int, int], Primitive] = {}
        nodes, at, done = [], 0, 0
        for i in range(count):
            key = (kinds[i], params[i])
            primitive = made.get(key)
            if primitive is None:
                primitive = made[key] = self._primitive(primitives[kinds[i]], row["params"][params[i]])
            given = tuple([self._operand(code, len(avals)) for code in operands[at : at + arities[i]]])
            at += arities[i]
            results = tuple(range(len(avals), len(avals) + n_results[i]))
            avals.extend([types[t] for t in declared[done : done + n_results[i]]])
            done += n_results[i]
            nodes.append(Node(primitive, given, results, locations[i], row["scopes"][scopes[i]]))
        return tuple(nodes)

    def _locations(self, count: int) -> list[Location | None]:
        if self.source is None:
            return [None] * count
        files, index, lines = self.source
        if len(index) != count or len(lines) != count:
            raise DamageError(f"{self.what}: the table of sources does not fit")
        return [Location(files[f - 1], line) if f else None for f, line in zip(index, lines, strict=True)]

    def _primitive(self, kind: type[Primitive], values: Any) -> Primitive:
        names = kind.fields
        if type(values) is not tuple or len(values) != len(names):
            raise DamageError(f"{self.what}: {kind.name} has the parameters {names}, the file gives {values}")
        try:
            params = [self._param(v) for v in values]
            check_params(kind, params)
            return kind(*params)
        except DamageError:
            raise
        except Exception as error:
            raise DamageError(f"{self.what}: {kind.name} refuses its parameters: {error}") from None

    def _param(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) is tuple:
            return tuple([self._param(v) for v in value])
        if type(value) is dict and len(value) == 1:
            [(kind, inner)] = value.items()
            if kind == "dtype":
                return _dtype(inner)
            if kind == "extent" and type(inner) is str:
                return self._extent(inner)
            if kind == "graph" and type(inner) is int:
                return self.decoder.graph(inner)
            if kind == "complex":
                return _complex(inner)
        raise DamageError(f"{self.what}: unknown parameter {value!r}")


def _verify(graph: Graph, avals: Sequence[Aval], what: str) -> None:
    from ingot.tracer.verify import verify

    # The verifier looks at the arrays of constants; theirs are not to be read before they are used.
    constants = tuple(
        Constant(np.broadcast_to(_zero(c.aval.dtype), [int(n) for n in c.aval.shape]), c.aval)
        for c in graph.constants
    )
    try:
        verify(replace(graph, constants=constants), avals=avals)
    except Exception as error:  # rules may stumble in any way over parameters no trace would give
        raise DamageError(f"{what}: {error}") from None


def _zero(dtype: Dtype) -> np.ndarray:
    return np.zeros((), dtype.numpy)


def _parsed(parse: Callable[[str, Any], Any], text: str, symbols: Any, what: str) -> Any:
    if len(text) > MAX_TEXT:
        raise DamageError(f"{what} {text[:80]!r} is longer than {MAX_TEXT} characters")
    try:
        value = parse(text, symbols)
    except ValueError as error:
        raise DamageError(f"{what} {text[:80]!r}: {error}") from None
    if str(value) != text:
        raise DamageError(f"{what} {text[:80]!r} is not in its canonical form {str(value)[:80]!r}")
    return value


def _graphs(value: Any) -> Iterable[Graph]:
    """Graphs in a parameter."""
    if isinstance(value, Graph):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _graphs(item)


def _rows(value: Any, what: str, width: int) -> Iterable[tuple[Any, ...]]:
    if type(value) is not tuple:
        raise DamageError(f"{what}: expected an array")
    for row in value:
        if type(row) is not tuple or len(row) != width:
            raise DamageError(f"{what}: expected rows of {width} values, found {str(row)[:80]}")
    return value


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _dtype(value: Any) -> Dtype:
    found = dtypes.by_short.get(value) if type(value) is str else None
    if found is None:
        raise DamageError(f"unknown dtype {value!r}")
    return found


def _decode_dim(row: Sequence[Any]) -> Dim:
    name, low, high, multiple = row
    bounded = high is None or _is_size(high)
    if type(name) is not str or not (_is_size(low) and _is_size(multiple) and bounded):
        raise DamageError(f"dims: bad symbol {row!r}")
    try:
        return Dim(name, low, high, multiple)
    except ValueError as error:
        raise DamageError(f"dims: {error}") from None


def _decode_primitive(row: Sequence[Any]) -> type[Primitive]:
    name, version, names = row
    kind = registry.get(name) if type(name) is str else None
    if kind is None:
        raise DamageError(f"the primitive {name!r} is unknown: the file needs a newer version of Ingot")
    if version != kind.version or type(version) is not int:
        raise DamageError(f"the primitive {name!r} has version {version!r}, known here is {kind.version}")
    if names != kind.fields:
        raise DamageError(f"the primitive {name!r} has other parameters: {names!r}")
    return kind


def _decode_literal(row: Sequence[Any]) -> Literal:
    dtype, value = _dtype(row[0]), row[1]
    expected: Any = {"b": bool, "u": int, "i": int, "f": float, "c": tuple}[dtype.kind]
    if type(value) is not expected:
        raise DamageError(f"literal {value!r} is no {dtype.name}")
    try:
        return Literal(_complex(value) if dtype.kind == "c" else value, dtype)
    except ValueError as error:
        raise DamageError(f"literal: {error}") from None


def _complex(value: Any) -> complex:
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is float:
        return complex(*value)
    raise DamageError(f"{value!r} is no complex number")


def decode_tree(value: Any) -> Tree:
    """The structure that `value` stands for; DamageError when it stands for none."""
    if value is True:
        return Tree("leaf")
    if value is None:
        return Tree("none")
    if type(value) is tuple and value and type(value[0]) is str and type(value[-1]) is tuple:
        kind, children = value[0], tuple(decode_tree(child) for child in value[-1])
        if kind in ("list", "tuple") and len(value) == 2:
            return Tree(kind, children)
        if kind not in ("leaf", "none", "list", "tuple", "namedtuple") and len(value) == 3:
            keys = value[1]
            if type(keys) is tuple and len(keys) == len(children) and all(type(key) is str for key in keys):
                if len(set(keys)) == len(keys):
                    return Tree(kind, children, keys)
    raise DamageError(f"malformed tree {str(value)[:80]}")


def check_signature(tree: Tree) -> None:
    """DamageError unless `tree` is that of `(args, kwargs)`."""
    if (
        tree.kind != "tuple"
        or [child.kind for child in tree.children] != ["tuple", "dict"]
        or list(tree.children[1].keys) != sorted(tree.children[1].keys)
    ):
        raise DamageError("trace: the input tree is not (positional arguments, keyword arguments)")
