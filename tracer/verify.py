"""The invariants of the graph IR. `verify` raises a located GraphError for the first one that is broken.

Graph
  G1  name is a string; inputs, constants, nodes, outputs, dims, guards, input_names are tuples of their types
  G2  input_names is empty, or has one distinct, non-empty name per input
  G3  every aval is interned, its dtype a known one, its extents integers in [0, 2**63) or symbolic and not
      provably negative
  G4  a constant is a NumPy array of its aval's dtype and static shape
  G5  dims are symbols of distinct names, and every symbol of an aval, parameter or guard is among them
      (symbols of a sub-graph are declared by the sub-graph)
  G6  guards are relations that their symbols' ranges do not rule out
  G7  outputs are defined values or literals
Node
  N1  the primitive is an instance of a registered, concrete class; operands and results are tuples
  N2  operands are literals in range of their dtype, or values defined before the node
  N3  result ids continue the canonical numbering: inputs, constants, then results in order
  N4  parameters are integers, floats, bools, strings, None, dtypes, extents, graphs, or tuples of these
  N5  `infer` accepts the operands (taking the guards for granted); it gives one aval per result, and the
      recorded ones where there are such
  N6  the scope is a string; the location is a Location or None
Sub-graph (a graph among a node's parameters)
  S1  it has no constants, holds all these invariants itself, and is nested no deeper than `MAX_NESTING`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Guard
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import GraphError
from ingot.tracer.facts import assume
from ingot.tracer.graph import Constant, Graph, Literal, Location, Node, Operand
from ingot.tracer.primitive import Primitive, registry, symbols_of_param
from ingot.tracer.text import MAX_NESTING, print_node, print_type


def verify(graph: Graph, path: str = "", avals: Sequence[Aval] | None = None) -> None:
    """Check every invariant listed above.

    path: where the graph stands, for messages. avals: recorded aval of every value by id (from a file, say),
    to be compared with what the primitives infer. Raises GraphError naming the graph, the node's index and
    text, what was expected and what was found.
    """
    _Verifier(graph, path, set(), 1).run(avals)


class _Verifier:
    def __init__(self, graph: Graph, path: str, verified: set[int], nesting: int) -> None:
        self.graph, self.path = graph, path
        self.verified = verified  # ids of sub-graphs that are done: a shared body is checked once
        self.nesting = nesting
        self.declared: set[Dim] = set()
        self.avals: list[Aval] = []

    def run(self, recorded: Sequence[Aval] | None) -> None:
        if not isinstance(self.graph, Graph):
            raise GraphError(f"[verify] {self.path or 'graph'}: expected a Graph, got {self.graph!r}")
        self.check_fields()
        self.check_dims()
        self.check_inputs()
        for i, constant in enumerate(self.graph.constants):
            self.check_constant(i, constant)
        for i, node in enumerate(self.graph.nodes):
            self.check_node(i, node)
        for i, output in enumerate(self.graph.outputs):
            problem = self.operand_problem(output)
            if problem:
                self.fail(f"output {i}: {problem}")
        if recorded is not None:
            self.check_recorded(recorded)

    def fail(self, message: str, index: int | None = None) -> NoReturn:
        name = self.graph.name if isinstance(self.graph.name, str) else "?"
        where = f"{self.path}: " if self.path else ""
        where += f"graph @{name}" if name else "graph"
        if index is None:
            raise GraphError(f"[verify] {where}: {message}")
        node = self.graph.nodes[index]
        origin = f" ({node.location})" if isinstance(node.location, Location) else ""
        line = _shown(self.graph, index)
        raise GraphError(f"[verify] {where}, node {index}{origin}: {message}\n    {line}")

    # The graph itself

    def check_fields(self) -> None:
        graph = self.graph
        if not isinstance(graph.name, str):
            self.fail(f"expected a string as the name, got {graph.name!r}")
        kinds: dict[str, type | tuple[type, ...]] = {
            "inputs": Aval, "constants": Constant, "nodes": Node, "outputs": (int, Literal), "dims": Dim,
            "guards": Guard, "input_names": str,
        }  # fmt: skip
        for field, kind in kinds.items():
            items = getattr(graph, field)
            if not isinstance(items, tuple):
                self.fail(f"expected a tuple as {field}, got {type(items).__name__}")
            for i, item in enumerate(items):
                if not isinstance(item, kind) or isinstance(item, bool):
                    expected = kind.__name__ if isinstance(kind, type) else "value id or Literal"
                    self.fail(f"{field}[{i}]: expected {expected}, got {item!r}")

    def check_dims(self) -> None:
        names: set[str] = set()
        for symbol in self.graph.dims:
            if symbol.op != "symbol":
                self.fail(f"dims: expected symbols, got the expression {symbol}")
            if symbol.name in names:
                self.fail(f"dims: {symbol.name!r} is declared twice")
            names.add(symbol.name)
        self.declared = set(self.graph.dims)
        for guard in self.graph.guards:
            self.check_symbols((guard.left, guard.right), f"guard {guard}")
            if guard.decided() is False:
                self.fail(f"guard {guard}: the ranges of the dims rule it out")

    def check_inputs(self) -> None:
        names = self.graph.input_names
        if names and len(names) != len(self.graph.inputs):
            self.fail(f"expected {len(self.graph.inputs)} input names, got {len(names)}: {names}")
        if len(set(names)) != len(names) or "" in names:
            self.fail(f"expected distinct, non-empty input names, got {names}")
        for i, aval in enumerate(self.graph.inputs):
            self.define(aval, f"input {i}")

    def check_constant(self, index: int, constant: Constant) -> None:
        what = f"constant #{index}"
        self.define(constant.aval, what)
        data, aval = constant.data, constant.aval
        if not isinstance(data, np.ndarray):
            self.fail(f"{what}: expected a NumPy array, got {type(data).__name__}")
        if aval.is_symbolic or data.shape != aval.shape or data.dtype != aval.dtype.numpy:
            self.fail(f"{what}: expected data of {aval!r}, got {data.dtype}{list(data.shape)}")

    def define(self, aval: Aval, what: str, node: int | None = None) -> None:
        """Check an aval and give it the next value id."""
        if not isinstance(aval, Aval):
            self.fail(f"{what}: expected an Aval, got {aval!r}", node)
        if not isinstance(aval.dtype, Dtype) or dtypes.by_short.get(aval.dtype.short) is not aval.dtype:
            self.fail(f"{what}: unknown dtype {aval.dtype!r}", node)
        for extent in aval.shape:
            problem = _extent_problem(extent)
            if problem:
                self.fail(f"{what} is {aval!r}: {problem}", node)
        if Aval(aval.shape, aval.dtype) is not aval:
            self.fail(f"{what}: the aval {aval!r} is not the interned one", node)
        self.check_symbols(aval.shape, what, node)
        self.avals.append(aval)

    def check_symbols(self, value: object, what: str, node: int | None = None) -> None:
        if isinstance(value, Graph):  # declares its own
            return
        if isinstance(value, tuple):
            for item in value:
                self.check_symbols(item, what, node)
            return
        found: dict[Dim, None] = {}
        symbols_of_param(value, found)
        for symbol in found:
            if symbol not in self.declared:
                declared = ", ".join(map(dims.describe, self.graph.dims)) or "none"
                self.fail(f"{what}: {dims.describe(symbol)} is not declared (declared: {declared})", node)

    def check_recorded(self, recorded: Sequence[Aval]) -> None:
        if len(recorded) != len(self.avals):
            self.fail(f"expected {len(self.avals)} recorded avals, got {len(recorded)}")
        producers = {result: i for i, node in enumerate(self.graph.nodes) for result in node.results}
        for i, (aval, said) in enumerate(zip(self.avals, recorded, strict=True)):
            if aval is not said:
                self.fail(f"value {i}: expected {aval!r}, recorded as {said!r}", producers.get(i))

    # Nodes

    def check_node(self, index: int, node: Node) -> None:
        primitive = node.primitive
        if not isinstance(primitive, Primitive):
            self.fail(f"expected a Primitive, got {primitive!r}")
        if type(primitive).abstract or registry.get(primitive.name) is not type(primitive):
            self.fail(f"{type(primitive).__name__} is not a registered primitive", index)
        if not isinstance(node.operands, tuple) or not isinstance(node.results, tuple):
            self.fail("expected tuples as operands and results", index)
        for i, operand in enumerate(node.operands):
            problem = self.operand_problem(operand)
            if problem:
                self.fail(f"operand {i}: {problem}", index)
        first = len(self.avals)
        expected = tuple(range(first, first + len(node.results)))
        if node.results != expected or any(type(r) is not int for r in node.results):
            self.fail(f"expected result ids {list(expected)}, got {list(node.results)}", index)
        if not isinstance(node.scope, str) or not isinstance(node.location, Location | None):
            self.fail("expected a string as scope and a Location or None as location", index)
        for name, value in primitive.params().items():
            self.check_param(value, name, index)
        self.check_results(index, node)

    def operand_problem(self, operand: Operand) -> str:
        if isinstance(operand, Literal):
            return _literal_problem(operand)
        if type(operand) is not int:
            return f"expected a value id or Literal, got {operand!r}"
        if not 0 <= operand < len(self.avals):
            return f"value {operand} is not defined here; values 0 to {len(self.avals) - 1} are"
        return ""

    def check_param(self, value: object, name: str, index: int) -> None:
        for leaf in _leaves(value, 0):
            if isinstance(leaf, Graph):
                self.check_subgraph(leaf, name, index)
            elif leaf is not None and not isinstance(leaf, bool | int | float | str | Dtype | Dim):
                kind = type(leaf).__name__
                self.fail(f"parameter {name}: a {kind} cannot be a parameter: {leaf!r}", index)
        self.check_symbols(value, f"parameter {name}", index)

    def check_subgraph(self, graph: Graph, name: str, index: int) -> None:
        if graph.constants:
            self.fail(
                f"parameter {name}: expected a closed graph, it has {len(graph.constants)} constants", index
            )
        if self.nesting >= MAX_NESTING:
            self.fail(f"parameter {name}: graphs are nested more than {MAX_NESTING} deep", index)
        if id(graph) not in self.verified:
            primitive = self.graph.nodes[index].primitive.name
            path = f"{self.path + '/' if self.path else ''}{self.graph.name}[{index}].{primitive}.{name}"
            _Verifier(graph, path, self.verified, self.nesting + 1).run(None)
            self.verified.add(id(graph))

    def check_results(self, index: int, node: Node) -> None:
        operands = tuple(o.aval if isinstance(o, Literal) else self.avals[o] for o in node.operands)
        try:
            with assume(self.graph.guards):
                inferred = node.primitive.infer(*operands)
        except Exception as error:  # a rule may reject broken operands or parameters in any way
            shown = ", ".join(map(print_type, operands))
            self.fail(f"{node.primitive.name}({shown}): {type(error).__name__}: {error}", index)
        results = inferred if isinstance(inferred, tuple) else (inferred,)
        if len(results) != len(node.results):
            self.fail(f"expected {len(results)} results, got {len(node.results)}", index)
        for i, aval in enumerate(results):
            self.define(aval, f"result {i}", index)


def _shown(graph: Graph, index: int) -> str:
    try:
        return print_node(graph, index)
    except Exception:  # the node may be broken in a way that has no text
        return repr(graph.nodes[index])


def _extent_problem(extent: object) -> str:
    if isinstance(extent, Dim):
        high = dims.bounds(extent)[1]
        return f"the extent {extent} is negative" if high is not None and high < 0 else ""
    if type(extent) is not int:
        return f"expected an integer or Dim as extent, got {extent!r}"
    return "" if 0 <= extent < 2**63 else f"the extent {extent} is out of range"


def _literal_problem(literal: Literal) -> str:
    try:
        again = Literal(literal.value, literal.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        return f"bad literal: {error}"
    kind = {"b": bool, "u": int, "i": int, "f": float, "c": complex}[literal.dtype.kind]
    return "" if again == literal and type(literal.value) is kind else f"bad literal {literal!r}"


def _leaves(value: object, nesting: int) -> Iterator[object]:
    if not isinstance(value, tuple):
        yield value
    elif nesting > MAX_NESTING:
        yield [value]  # not a legal parameter, and reported as such
    else:
        yield from _each(value, nesting)


def _each(items: Iterable[object], nesting: int) -> Iterator[object]:
    for item in items:
        yield from _leaves(item, nesting + 1)
