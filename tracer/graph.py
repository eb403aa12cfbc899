"""The graph IR: inputs, constants, nodes in topological order, outputs. Immutable once built."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import CodeType
from typing import Any, final

import numpy as np

from ingot.tracer import aval as _aval
from ingot.tracer import dims as _dims
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent, Guard
from ingot.tracer.dtypes import Dtype
from ingot.tracer.facts import assume
from ingot.tracer.primitive import Primitive, substitute_param, symbols_of_param

Scalar = bool | int | float | complex


@final
class Literal:
    """A scalar constant operand, printed inline. Two literals are equal when their bits are."""

    __slots__ = ("value", "dtype", "aval")

    trace = 0  # a literal depends on no tracer

    def __init__(self, value: Scalar, dtype: Dtype) -> None:
        kind = dtype.kind
        if kind == "b":
            value = bool(value)
        elif kind in "ui":
            value = int(value)  # type: ignore[arg-type]
            low, high = _INT_RANGES[dtype.short]
            if not low <= value <= high:
                raise ValueError(f"[array] {value} does not fit {dtype.name}.")
        elif kind == "f":
            value = float(value)  # type: ignore[arg-type]
        else:
            value = complex(value)
        self.value, self.dtype = value, dtype
        self.aval = _aval.scalar(dtype)

    def _key(self) -> tuple[Any, ...]:
        # repr tells -0.0 from 0.0 and makes nan equal to itself
        return (self.dtype, repr(self.value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Literal({self.value!r}, {self.dtype.short})"

    def numpy(self) -> np.ndarray:
        """The value as a rank-0 NumPy array of the literal's dtype."""
        with np.errstate(all="ignore"):
            return np.asarray(self.value).astype(self.dtype.numpy)


_INT_RANGES = {
    f"{sign}{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) if sign == "i" else (0, (1 << bits) - 1)
    for sign in "iu"
    for bits in (8, 16, 32, 64)
}

Operand = int | Literal
"""A value id or a literal."""


class Location:
    """A place in the user's source: resolved to file and line only when asked."""

    __slots__ = ("code", "instruction", "_line")

    def __init__(self, code: CodeType | str, instruction: int) -> None:
        self.code, self.instruction = code, instruction
        self._line: int | None = None

    @property
    def file(self) -> str:
        return self.code if isinstance(self.code, str) else self.code.co_filename

    @property
    def line(self) -> int:
        """1-based line number (for a location read from a file, `instruction` is the line)."""
        if isinstance(self.code, str):
            return self.instruction
        if self._line is None:
            self._line = self.code.co_firstlineno
            for start, end, line in self.code.co_lines():
                if start <= self.instruction < end and line is not None:
                    self._line = line
        return self._line

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def __repr__(self) -> str:
        return f"Location({self})"


@dataclass(frozen=True)
class Node:
    """One application of a primitive. `results` are consecutive value ids."""

    primitive: Primitive
    operands: tuple[Operand, ...]
    results: tuple[int, ...]
    location: Location | None = field(default=None, compare=False)
    scope: str = ""


class Constant:
    """An array enclosed by a graph. Compared by dtype, shape and content."""

    __slots__ = ("aval", "data", "_digest")

    def __init__(self, data: np.ndarray, aval: Aval) -> None:
        self.aval, self.data = aval, data
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 over dtype, shape and the row-contiguous bytes."""
        if self._digest is None:
            h = hashlib.sha256(repr(self.aval).encode())
            h.update(np.ascontiguousarray(self.data).reshape(-1).view(np.uint8).data)
            self._digest = h.digest()
        return self._digest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Constant):
            return NotImplemented
        return self.data is other.data or (self.aval is other.aval and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.aval)

    def __repr__(self) -> str:
        return f"Constant({self.aval!r})"


@dataclass(frozen=True)
class Graph:
    """A traced function.

    Value ids are canonical: inputs come first, then constants, then the results of the nodes in order. So two
    graphs are equal when they compute the same by the same nodes in the same order. Graphs that stand inside
    primitives (loops, branches, calls) are closed: they have no constants.
    """

    name: str
    inputs: tuple[Aval, ...]
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Operand, ...]
    dims: tuple[Dim, ...] = ()
    guards: tuple[Guard, ...] = ()
    input_names: tuple[str, ...] = ()

    @cached_property
    def avals(self) -> tuple[Aval, ...]:
        """Aval of every value by id."""
        found = list(self.inputs) + [c.aval for c in self.constants]
        with assume(self.guards):
            for node in self.nodes:
                operands = tuple(o.aval if isinstance(o, Literal) else found[o] for o in node.operands)
                found.extend(node.primitive.result_avals(operands))
        return tuple(found)

    @property
    def n_values(self) -> int:
        return len(self.inputs) + len(self.constants) + sum(len(node.results) for node in self.nodes)

    @property
    def first_result(self) -> int:
        """Id of the first value that a node computes."""
        return len(self.inputs) + len(self.constants)

    def aval_of(self, operand: Operand) -> Aval:
        return operand.aval if isinstance(operand, Literal) else self.avals[operand]

    @property
    def output_avals(self) -> tuple[Aval, ...]:
        return tuple(self.aval_of(o) for o in self.outputs)

    @cached_property
    def _hash(self) -> int:
        return hash(
            (self.name, self.inputs, self.constants, self.nodes, self.outputs, self.dims, self.guards)
        )

    def __hash__(self) -> int:
        return self._hash

    def producers(self) -> dict[int, Node]:
        """Node that computes each value, for values that are neither inputs nor constants."""
        return {result: node for node in self.nodes for result in node.results}

    def uses(self) -> list[int]:
        """How often each value is an operand or an output."""
        counts = [0] * self.n_values
        for operand in self._all_operands():
            if not isinstance(operand, Literal):
                counts[operand] += 1
        return counts

    def _all_operands(self) -> Iterator[Operand]:
        for node in self.nodes:
            yield from node.operands
        yield from self.outputs

    def substitute(self, env: Mapping[str, Extent]) -> Graph:
        """The graph with symbols replaced by extents: specialised (ints) or renamed."""
        if not self.dims or not env:
            return self
        inputs = tuple(Aval(substitute_param(a.shape, env), a.dtype) for a in self.inputs)
        nodes = tuple(replace(node, primitive=node.primitive.substitute(env)) for node in self.nodes)
        kept: dict[Dim, None] = {}
        for symbol in self.dims:
            symbols_of_param(_dims.substitute(symbol, env), kept)
        guards = []
        for guard in self.guards:
            left, right = _dims.substitute(guard.left, env), _dims.substitute(guard.right, env)
            decided = _dims.decide(guard.relation, left, right)
            if decided is False:
                raise ValueError(f"[substitute] {dict(env)} breaks the guard {guard}.")
            if decided is None:
                guards.append(replace(guard, left=left, right=right))
        return replace(self, inputs=inputs, nodes=nodes, dims=tuple(kept), guards=tuple(guards))

    def __str__(self) -> str:
        from ingot.tracer.text import print_graph  # text.py builds graphs, so it imports this module

        return print_graph(self)


class GraphBuilder:
    """Builds a graph node by node and keeps its value ids canonical.

    Inputs and constants are declared first; `add` appends a node and returns the ids of its results. `guards`
    are relations between extents that inference may take for granted.
    """

    def __init__(
        self, name: str, inputs: Sequence[Aval], input_names: Sequence[str] = (), guards: Sequence[Guard] = ()
    ) -> None:
        self.name = name
        self.guards = tuple(guards)
        self.inputs = tuple(inputs)
        self.input_names = tuple(input_names)
        self.constants: list[Constant] = []
        self.nodes: list[Node] = []
        self.avals: list[Aval] = list(inputs)

    def constant(self, constant: Constant) -> int:
        """Declare an enclosed array; all constants come before the first node."""
        if self.nodes:
            raise ValueError("[graph] constants are declared before nodes.")
        self.constants.append(constant)
        self.avals.append(constant.aval)
        return len(self.avals) - 1

    def add(
        self,
        primitive: Primitive,
        operands: Sequence[Operand],
        location: Location | None = None,
        scope: str = "",
    ) -> tuple[int, ...]:
        """Append a node; returns the ids of its results."""
        with assume(self.guards):
            avals = primitive.result_avals(tuple(self.aval_of(o) for o in operands))
        first = len(self.avals)
        self.avals.extend(avals)
        results = tuple(range(first, first + len(avals)))
        self.nodes.append(Node(primitive, tuple(operands), results, location, scope))
        return results

    def aval_of(self, operand: Operand) -> Aval:
        return operand.aval if isinstance(operand, Literal) else self.avals[operand]

    def finish(self, outputs: Sequence[Operand]) -> Graph:
        """The finished graph. Its dims are the symbols that occur in it, in order of first occurrence."""
        guards = self.guards
        found: dict[Dim, None] = {}
        for aval in self.inputs:
            symbols_of_param(aval.shape, found)
        for node in self.nodes:
            for value in node.primitive.params().values():
                symbols_of_param(value, found)
        for guard in guards:
            symbols_of_param((guard.left, guard.right), found)
        graph = Graph(
            self.name,
            self.inputs,
            tuple(self.constants),
            tuple(self.nodes),
            tuple(outputs),
            tuple(found),
            guards,
            self.input_names,
        )
        graph.__dict__["avals"] = tuple(self.avals)  # known already: fills the cached property
        return graph
