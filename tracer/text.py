"""Text form of graphs: `print_graph` writes it, `parse_graph` reads it back to an equal graph.

    graph    := "graph" ["@" name] "(" [input {"," input}] ")" "->" "(" [type {"," type}] ")"
                ["where" dim {"," dim}] "{" {guard | constant | node} "return" [operand {"," operand}] "}"
    input    := value ":" type
    type     := dtype "[" [extent {"," extent}] "]"
    dim      := name "in" "[" min "," (max | "inf") "]" ["by" multiple_of]
    guard    := "guard" extent relation extent ["fixed"]
    constant := value ":" type "=" "constant" "#" index ["[" element {"," element} "]"]
    node     := [value {"," value} ":" type {"," type} "="] primitive "(" [operand {"," operand}] ")"
                ["{" name "=" param {"," name "=" param} "}"] ["//" scope]
    operand  := value | scalar [":" dtype]
    value    := "%" (name | digits | string)
    param    := integer | float | extent | dtype | string | "true" | "false" | "none"
              | "[" [param {"," param}] "]" | graph

A scalar without dtype is f32 (1.0), i32 (1), bool (true) or c64 ((1.0+2.0j)). Constants of up to 16 elements
are written out in row-major order; an element that decimal digits cannot give exactly (some NaNs) is its
bits, as 0x7fc00001. The data of larger ones is supplied to `parse_graph`. Text from ";" to the end of a line
is a comment. Unnamed inputs are %a0, %a1, ...; constants %c0, %c1, ...; results %0, %1, ... Input names that
look like these or are no identifiers are quoted: %"a0".
Source locations are not part of the text (nor of a graph's equality).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from ingot.tracer import dims_text, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent, Guard
from ingot.tracer.dims_text import DimSyntaxError
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import GraphError
from ingot.tracer.facts import assume
from ingot.tracer.graph import Constant, Graph, Literal, Node, Operand
from ingot.tracer.pattern import Pattern
from ingot.tracer.primitive import Primitive, check_params, registry

INLINE_ELEMENTS = 16
"""Constants with at most so many elements are written out."""
MAX_NESTING = 48
"""Deepest nesting of sub-graphs and of tuples in parameters."""

T = TypeVar("T")

_BARE_NAME = Pattern(r"[A-Za-z_][A-Za-z0-9_.]*")
_OWN_NAME = Pattern(r"[ac][0-9]+")
_DEFAULT_DTYPES = {"b": "bool", "i": "i32", "u": "i32", "f": "f32", "c": "c64"}


def _quoted(text: str) -> str:
    import json  # most graphs have no string, and do without

    return json.dumps(text)


def print_graph(graph: Graph) -> str:
    """The text of a graph, ending in a newline. A graph that breaks an invariant still prints, with `?`."""
    return "\n".join(_Printer(graph, "").lines()) + "\n"


def print_node(graph: Graph, index: int) -> str:
    """The line (or lines, with sub-graphs) of one node."""
    return _Printer(graph, "").node(graph.nodes[index]).strip()


def print_type(aval: Aval | None) -> str:
    """`f32[B,784]`; `?` for None."""
    return "?" if aval is None else repr(aval)


def print_literal(literal: Literal) -> str:
    """`0.5` (f32), `2` (i32), `true` (bool), `(1.0+2.0j)` (c64), others with their dtype: `3:u8`."""
    text = _scalar_text(literal.value)
    short = literal.dtype.short
    return text if _DEFAULT_DTYPES[literal.dtype.kind] == short else f"{text}:{short}"


def print_param(value: object, indent: str = "") -> str:
    """The text of a static parameter."""
    if isinstance(value, Graph):
        return "\n".join(_Printer(value, indent).lines()).lstrip()
    if isinstance(value, tuple):
        return "[" + ",".join(print_param(item, indent) for item in value) + "]"
    if isinstance(value, Dtype):
        return value.short
    if isinstance(value, str):
        return _quoted(value)
    if value is None:
        return "none"
    return str(value) if isinstance(value, Dim) else _scalar_text(value)


def _scalar_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, complex):
        imaginary = repr(value.imag)
        return f"({value.real!r}{'' if imaginary.startswith('-') else '+'}{imaginary}j)"
    return repr(value)


def _name(name: str) -> str:
    return name if _BARE_NAME.fullmatch(name) and not _OWN_NAME.fullmatch(name) else _quoted(name)


class _Printer:
    """Prints one graph; sub-graphs get printers of their own."""

    def __init__(self, graph: Graph, indent: str) -> None:
        self.graph, self.indent = graph, indent
        names = [f"%{_name(name)}" for name in graph.input_names]
        if len(names) != len(graph.inputs):
            names = [f"%a{i}" for i in range(len(graph.inputs))]
        self.names = names + [f"%c{i}" for i in range(len(graph.constants))]
        self.first = len(self.names)
        self.avals = _known_avals(graph)

    def lines(self) -> list[str]:
        inner = self.indent + "  "
        lines = [self.header()]
        lines += [f"{inner}guard {g}{' fixed' if g.fixed else ''}" for g in self.graph.guards]
        lines += [inner + self.constant(i) for i in range(len(self.graph.constants))]
        lines += [inner + self.node(node) for node in self.graph.nodes]
        lines.append(f"{inner}return {', '.join(map(self.operand, self.graph.outputs))}".rstrip())
        return [*lines, self.indent + "}"]

    def header(self) -> str:
        graph = self.graph
        inputs = (f"{name}: {aval!r}" for name, aval in zip(self.names, graph.inputs, strict=False))
        outputs = ", ".join(print_type(self.aval(o)) for o in graph.outputs)
        where = ", ".join(map(_dim_text, graph.dims))
        return (
            f"{self.indent}graph {f'@{_name(graph.name)}' if graph.name else ''}({', '.join(inputs)})"
            f" -> ({outputs}){f' where {where}' if where else ''} {{"
        )

    def constant(self, index: int) -> str:
        constant = self.graph.constants[index]
        text = f"%c{index}: {constant.aval!r} = constant #{index}"
        if constant.data.size <= INLINE_ELEMENTS:
            text += f" [{', '.join(map(_element_text, constant.data.reshape(-1)))}]"
        return text

    def node(self, node: Node) -> str:
        text = f"{node.primitive.name}({', '.join(map(self.operand, node.operands))})"
        if node.results:
            names = ", ".join(map(self.operand, node.results))
            text = f"{names}: {', '.join(print_type(self.aval(r)) for r in node.results)} = {text}"
        params = node.primitive.params()
        if params:
            inner = self.indent + "    "
            text += " {" + ", ".join(f"{k}={print_param(v, inner)}" for k, v in params.items()) + "}"
        if node.scope:
            plain = node.scope.isprintable() and node.scope == node.scope.strip() and node.scope[0] != '"'
            text += f"  // {node.scope if plain else _quoted(node.scope)}"
        return text

    def operand(self, operand: Operand) -> str:
        if isinstance(operand, Literal):
            return print_literal(operand)
        if 0 <= operand < self.first:
            return self.names[operand]
        return f"%{operand - self.first}" if operand >= self.first else f"%?{operand}"

    def aval(self, operand: Operand) -> Aval | None:
        if isinstance(operand, Literal):
            return operand.aval
        return self.avals[operand] if 0 <= operand < len(self.avals) else None


def _known_avals(graph: Graph) -> list[Aval | None]:
    """Aval by value id, None where a broken graph does not let it be inferred."""
    try:
        return list(graph.avals)
    except Exception:  # any rule may fail in any way on a graph that is being printed because it is broken
        found: list[Aval | None] = [*graph.inputs, *(c.aval for c in graph.constants)]
    for node in graph.nodes:
        operands = [o.aval if isinstance(o, Literal) else _at(found, o) for o in node.operands]
        try:
            with assume(graph.guards):
                found.extend(node.primitive.result_avals(tuple(operands)))  # type: ignore[arg-type]
        except Exception:
            found.extend([None] * len(node.results))
    return found


def _at(items: list[T], index: int) -> T | None:
    return items[index] if 0 <= index < len(items) else None


def _dim_text(symbol: Dim) -> str:
    text = f"{symbol.name} in [{symbol.min},{'inf' if symbol.max is None else symbol.max}]"
    return text if symbol.multiple_of == 1 else f"{text} by {symbol.multiple_of}"


def _element_text(element: np.generic) -> str:
    """The shortest text of an array element that gives back its bits."""
    kind = dtypes.from_numpy(element.dtype).kind
    candidates = [_scalar_text(element.item())]
    if kind == "f":  # 0.1 rather than 0.10000000149011612, when that rounds to the same float
        candidates.insert(0, _scalar_text(float(str(element))))
    for text in candidates:
        with np.errstate(all="ignore"):
            if np.asarray(_scalar_value(text)).astype(element.dtype).tobytes() == element.tobytes():
                return text
    bits = int.from_bytes(element.tobytes(), sys.byteorder)
    return f"0x{bits:0{2 * element.dtype.itemsize}x}"


_DIGITS = r"[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
_FLOAT = rf"(?:{_DIGITS}|inf\b|nan\b)"
_COMPLEX = Pattern(rf"\(([-+]?(?:{_DIGITS}|inf|nan))([-+](?:{_DIGITS}|inf|nan))j\)")
_SCALAR = Pattern(rf"true\b|false\b|{_COMPLEX.text}|[-+]?{_FLOAT}|-?[0-9]{{1,40}}(?![0-9x])")
_BITS = Pattern(r"0x([0-9a-f]{2,16})")
_SPACE = Pattern(r"(?:\s|;[^\n]*)*")
_WORD = Pattern(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = Pattern(r"[0-9]{1,40}")
_STRING = Pattern(r'"(?:[^"\\\n]|\\.)*"')
_VALUE = Pattern(r"%([0-9]+|[A-Za-z_][A-Za-z0-9_.]*)")
_SCOPE = Pattern(r"[ \t]*//[ \t]*([^\n]*)")
_SIMPLE_EXTENT = Pattern(r"([0-9]{1,18}|[A-Za-z_][A-Za-z0-9_]*)\s*(?=[],}])")
_BRACKET = Pattern(r"[][(){},\"\n]")


def _scalar_value(text: str) -> bool | int | float | complex:
    """The value of text that `_SCALAR` matched."""
    if text in ("true", "false"):
        return text == "true"
    parts = _COMPLEX.fullmatch(text)
    if parts:
        return complex(float(parts[1]), float(parts[2]))
    return int(text) if text.lstrip("-").isdigit() else float(text)


def parse_graph(text: str, constants: Sequence[np.ndarray] | None = None) -> Graph:
    """The graph that `print_graph` wrote as `text`.

    constants: data by index, for constants that are not written out. Every stated type is compared with what
    the primitives infer. Raises GraphError with line:column; safe on hostile text.
    """
    parser = _Parser(text, constants or ())
    graph = parser.graph()
    parser.expect_end()
    return graph


class _Parser:
    """Recursive descent; `symbols` and `names` are those of the innermost graph."""

    def __init__(self, text: str, constants: Sequence[np.ndarray]) -> None:
        self.text, self.data = text, constants
        self.position = self.nesting = 0
        self.symbols: Mapping[str, Dim] = {}
        self.names: dict[str, int] = {}
        self.avals: list[Aval] = []

    # Tokens

    def fail(self, message: str, position: int | None = None) -> NoReturn:
        at = self.position if position is None else position
        line = self.text.count("\n", 0, at) + 1
        column = at - (self.text.rfind("\n", 0, at) + 1) + 1
        raise GraphError(f"[parse_graph] {line}:{column}: {message}")

    def skip(self) -> None:
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position

    def here(self) -> int:
        """Where the next token starts."""
        self.skip()
        return self.position

    def match(self, pattern: Pattern) -> re.Match[str] | None:
        self.skip()
        found = pattern.match(self.text, self.position)
        if found:
            self.position = found.end()
        return found

    def accept(self, token: str) -> bool:
        self.skip()
        end = self.position + len(token)
        if not self.text.startswith(token, self.position):
            return False
        if token[-1].isalpha() and (self.text[end : end + 1].isalnum() or self.text[end : end + 1] == "_"):
            return False
        self.position = end
        return True

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail(f"expected {token!r}, got {self.ahead()}")

    def ahead(self) -> str:
        self.skip()
        return (
            repr(self.text[self.position : self.position + 20])
            if self.position < len(self.text)
            else "the end"
        )

    def expect_end(self) -> None:
        self.skip()
        if self.position < len(self.text):
            self.fail(f"expected the end, got {self.ahead()}")

    def listed(self, item: Callable[[], T], end: str) -> list[T]:
        """Items separated by commas up to the token `end`, which is consumed."""
        items: list[T] = []
        if self.accept(end):
            return items
        while True:
            items.append(item())
            if self.accept(end):
                return items
            self.expect(",")

    def word(self, what: str) -> str:
        found = self.match(_WORD)
        if not found:
            self.fail(f"expected {what}, got {self.ahead()}")
        return found[0]

    def number(self) -> int:
        found = self.match(_NUMBER)
        if not found:
            self.fail(f"expected a number, got {self.ahead()}")
        return int(found[0])

    def string(self) -> str:
        start = self.here()
        found = self.match(_STRING)
        if not found:
            self.fail(f"expected a string, got {self.ahead()}")
        return self.unquote(found[0], start)

    def unquote(self, quoted: str, start: int) -> str:
        try:
            import json

            return json.loads(quoted)
        except ValueError as error:
            self.fail(f"bad string: {error}", start)

    def nest(self) -> None:
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            self.fail(f"nested more than {MAX_NESTING} deep")

    # Graphs

    def graph(self) -> Graph:
        outer = self.symbols, self.names, self.avals
        self.nest()
        self.expect("graph")
        name = self.graph_name() if self.accept("@") else ""
        header = self.position
        self.symbols, self.names, self.avals = self.dims_after_header(), {}, []
        body, self.position = self.position, header  # types need the dims, which are written after them
        self.expect("(")
        inputs = self.listed(self.input, ")")
        input_names = self.checked_names([name for name, _ in inputs])
        self.expect("->")
        self.expect("(")
        types = self.listed(self.type, ")")
        self.position = body
        guards, constants, nodes = self.body()
        start = self.here()
        outputs = self.listed(self.operand, "}")
        found = [self.aval_of(o) for o in outputs]
        if found != types:
            self.fail(f"the results are ({_types(found)}), the header says ({_types(types)})", start)
        avals, used = tuple(aval for _, aval in inputs), tuple(self.symbols.values())
        self.symbols, self.names, self.avals = outer
        self.nesting -= 1
        return Graph(
            name, avals, tuple(constants), tuple(nodes), tuple(outputs), used, tuple(guards), input_names
        )  # fmt: skip

    def graph_name(self) -> str:
        found = self.match(_BARE_NAME)
        return found[0] if found else self.string()

    def dims_after_header(self) -> dict[str, Dim]:
        self.skip_parentheses()
        self.expect("->")
        self.skip_parentheses()
        found: dict[str, Dim] = {}
        if not self.accept("where"):
            self.expect("{")
            return found
        for symbol in self.listed(self.dim, "{"):
            if symbol.name in found:
                self.fail(f"dim {symbol.name!r} is declared twice")
            found[symbol.name] = symbol
        return found

    def skip_parentheses(self) -> None:
        self.expect("(")
        depth = 1
        while depth:
            found = _BRACKET.search(self.text, self.position)
            if not found:
                self.fail("the parenthesis is not closed")
            self.position = found.start()
            if found[0] == '"':
                self.string()
                continue
            depth += {"(": 1, ")": -1}.get(found[0], 0)
            self.position = found.end()

    def dim(self) -> Dim:
        start = self.here()
        name = self.word("a dim")
        self.expect("in")
        self.expect("[")
        low = self.number()
        self.expect(",")
        high = None if self.accept("inf") else self.number()
        self.expect("]")
        multiple = self.number() if self.accept("by") else 1
        try:
            return Dim(name, low, high, multiple)
        except ValueError as error:
            self.fail(str(error), start)

    def input(self) -> tuple[str, Aval]:
        start = self.here()
        key = self.value_name()
        self.expect(":")
        aval = self.type()
        self.define([key], [aval], start)
        return key, aval

    def checked_names(self, keys: list[str]) -> tuple[str, ...]:
        if keys == [f"%a{i}" for i in range(len(keys))]:
            return ()
        if any(_OWN_NAME.fullmatch(key[1:]) or key[1:].isdigit() for key in keys):
            self.fail("either all inputs are named, or they are %a0, %a1, ... in order")
        return tuple(key.removeprefix("%").removeprefix('"') for key in keys)

    def body(self) -> tuple[list[Guard], list[Constant], list[Node]]:
        guards: list[Guard] = []
        constants: list[Constant] = []
        nodes: list[Node] = []
        while not self.accept("return"):
            if self.accept("guard"):
                if nodes:
                    self.fail("guards come before nodes")
                guards.append(self.guard())
                continue
            start = self.here()
            names, types = self.results()
            if self.accept("constant"):
                if nodes:
                    self.fail("constants come before nodes", start)
                constants.append(self.constant(len(constants), names, types))
            else:
                with assume(guards):
                    nodes.append(self.node(names, types))
            self.define(names, types, start)
        return guards, constants, nodes

    def guard(self) -> Guard:
        start = self.here()
        found = re.compile(r"[^\n;]*").match(self.text, start)
        line = found[0].rstrip() if found else ""
        self.position = start + len(line)
        bare = line.removesuffix(" fixed")
        try:
            guard = dims_text.parse_guard(bare, self.symbols)
        except DimSyntaxError as error:
            self.fail(error.message, start + error.column)
        return Guard(guard.relation, guard.left, guard.right, None, len(bare) != len(line))

    def results(self) -> tuple[list[str], list[Aval]]:
        if not self.text.startswith("%", self.position):
            return [], []
        names = [self.value_name()]
        while self.accept(","):
            names.append(self.value_name())
        self.expect(":")
        types = [self.type()]
        while self.accept(","):
            types.append(self.type())
        self.expect("=")
        return names, types

    def constant(self, index: int, names: list[str], types: list[Aval]) -> Constant:
        start = self.here()
        self.expect("#")
        if self.number() != index or len(names) != 1 or len(types) != 1:
            self.fail(f"expected the one value of constant #{index}", start)
        aval = types[0]
        if aval.is_symbolic:
            self.fail(f"a constant has a static shape, not {aval!r}", start)
        shape: tuple[int, ...] = aval.shape  # type: ignore[assignment]
        if self.accept("["):
            elements = self.listed(lambda: self.element(aval.dtype), "]")
            if len(elements) != math.prod(shape):
                self.fail(f"{aval!r} has {math.prod(shape)} elements, got {len(elements)}", start)
            content = np.frombuffer(bytearray().join(elements), aval.dtype.numpy)
            return Constant(content.reshape(shape), aval)
        if index >= len(self.data):
            self.fail(f"the data of constant #{index} is neither in the text nor supplied", start)
        data = np.asarray(self.data[index])
        if data.shape != shape or data.dtype != aval.dtype.numpy:
            self.fail(f"expected {aval!r} as constant #{index}, got {data.dtype}{list(data.shape)}", start)
        return Constant(data, aval)

    def element(self, dtype: Dtype) -> bytes:
        start = self.here()
        bits = self.match(_BITS)
        if bits:
            if len(bits[1]) != 2 * dtype.size:
                self.fail(f"expected {2 * dtype.size} hexadecimal digits", start)
            if dtype.kind == "b" and int(bits[1], 16) > 1:
                self.fail("a bool is 0x00 or 0x01", start)
            return int(bits[1], 16).to_bytes(dtype.size, sys.byteorder)
        return self.scalar(dtype, start).numpy().tobytes()

    def scalar(self, dtype: Dtype | None, start: int) -> Literal:
        """A scalar of the given dtype, or of the one written behind it."""
        found = self.match(_SCALAR)
        if not found:
            self.fail(f"expected a value or scalar, got {self.ahead()}")
        value = _scalar_value(found[0])
        kind = {bool: "b", int: "i", float: "f", complex: "c"}[type(value)]
        if dtype is None:
            dtype = self.dtype() if self.accept(":") else dtypes.by_short[_DEFAULT_DTYPES[kind]]
        if kind != dtype.kind.replace("u", "i"):
            self.fail(f"{found[0]} is not written as a {dtype.short}", start)
        try:
            return Literal(value, dtype)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), start)

    def node(self, names: list[str], types: list[Aval]) -> Node:
        start = self.here()
        name = self.word("a primitive")
        cls = registry.get(name)
        if cls is None:
            self.fail(f"unknown primitive {name!r}", start)
        self.expect("(")
        operands = tuple(self.listed(self.operand, ")"))
        primitive = self.primitive(cls, start)
        found = self.match_here(_SCOPE)
        scope = found[1].strip() if found else ""
        if found and scope.startswith('"'):
            scope = self.unquote(scope, found.start(1))
        try:
            inferred = list(primitive.result_avals(tuple(map(self.aval_of, operands))))
        except Exception as error:  # rules see hostile operands and parameters here
            self.fail(f"{name}: {type(error).__name__}: {error}", start)
        if inferred != types or len(names) != len(types):
            self.fail(f"{name} gives ({_types(inferred)}), the text says ({_types(types)})", start)
        first = len(self.avals)
        return Node(primitive, operands, tuple(range(first, first + len(names))), None, scope)

    def match_here(self, pattern: Pattern) -> re.Match[str] | None:
        """Like `match`, but on the same line."""
        found = pattern.match(self.text, self.position)
        if found:
            self.position = found.end()
        return found

    def primitive(self, cls: type[Primitive], start: int) -> Primitive:
        params: dict[str, Any] = {}
        here = self.position
        if self.text.startswith("{", self.past_blanks()):
            self.expect("{")
            for key, value in self.listed(self.param_item, "}"):
                if key in params:
                    self.fail(f"parameter {key!r} is given twice", here)
                params[key] = value
        expected = list(cls.fields)
        if sorted(params) != sorted(expected):
            self.fail(f"{cls.name} has parameters {expected}, got {list(params)}", here)
        try:
            check_params(cls, [params[name] for name in expected])
            return cls(**params)
        except Exception as error:  # a primitive may check its parameters as it likes
            self.fail(f"{cls.name}: {type(error).__name__}: {error}", start)

    def past_blanks(self) -> int:
        at = self.position
        while self.text.startswith((" ", "\t"), at):
            at += 1
        return at

    # Values, types, parameters

    def value_name(self) -> str:
        start = self.here()
        found = self.match(_VALUE)
        if found:
            return found[0]
        if self.text.startswith('%"', start):
            self.position += 1
            return '%"' + self.string()
        self.fail(f"expected a value such as %0, got {self.ahead()}")

    def define(self, names: list[str], avals: list[Aval], start: int) -> None:
        for name, aval in zip(names, avals, strict=True):
            # %x and %"x" are one name; only names that look like our own differ when quoted
            name = self.canonical(name)
            if name in self.names:
                self.fail(f"{name} is defined twice", start)
            self.names[name] = len(self.avals)
            self.avals.append(aval)

    def canonical(self, name: str) -> str:
        bare = name.removeprefix('%"')
        own = not _BARE_NAME.fullmatch(bare) or _OWN_NAME.fullmatch(bare)
        return name if not name.startswith('%"') or own else f"%{bare}"

    def operand(self) -> Operand:
        start = self.here()
        if not self.text.startswith("%", start):
            return self.scalar(None, start)
        name = self.value_name()
        found = self.names.get(self.canonical(name))
        if found is None:
            self.fail(f"{name} is not defined", start)
        return found

    def aval_of(self, operand: Operand) -> Aval:
        return operand.aval if isinstance(operand, Literal) else self.avals[operand]

    def dtype(self) -> Dtype:
        start = self.here()
        name = self.word("a dtype")
        if name not in dtypes.by_short:
            self.fail(f"unknown dtype {name!r}", start)
        return dtypes.by_short[name]

    def type(self) -> Aval:
        dtype = self.dtype()
        self.expect("[")
        start = self.here()
        shape = tuple(self.listed(self.extent, "]"))
        if any(isinstance(extent, int) and not 0 <= extent < 2**63 for extent in shape):
            self.fail(f"an extent of {shape} is out of range", start)
        return Aval(shape, dtype)

    def extent(self) -> Extent:
        start = self.here()
        simple = self.match(_SIMPLE_EXTENT)
        text = simple[1] if simple else self.extent_text()
        if text.isdigit() and len(text) < 19:
            return int(text)
        try:
            return dims_text.parse(text, self.symbols)
        except DimSyntaxError as error:
            self.fail(error.message, start + error.column)

    def extent_text(self) -> str:
        """Text up to the comma or bracket that ends the extent, commas inside min(...) excepted."""
        start, depth = self.position, 0
        while True:
            found = _BRACKET.search(self.text, self.position)
            if not found:
                self.fail("the extent is not ended", start)
            self.position = found.start()
            if found[0] == "(":
                depth += 1
            elif found[0] == ")" and depth:
                depth -= 1
            elif found[0] != "," or not depth:
                return self.text[start : self.position]
            self.position = found.end()

    def param_item(self) -> tuple[str, Any]:
        name = self.word("a parameter")
        self.expect("=")
        return name, self.param()

    def param(self) -> Any:
        self.skip()
        if self.text.startswith('"', self.position):
            return self.string()
        if self.accept("["):
            self.nest()
            items = tuple(self.listed(self.param, "]"))
            self.nesting -= 1
            return items
        start = self.here()
        word = self.match(_WORD)
        self.position = start
        if word and word[0] == "graph":
            return self.graph()
        if word and word[0] in _KEYWORDS:
            self.position = word.end()
            return _KEYWORDS[word[0]]
        number = _FLOAT_PARAM.match(self.text, start)
        if number:
            self.position = number.end()
            return float(number[0])
        return self.extent()


_FLOAT_PARAM = Pattern(rf"[-+]?{_FLOAT}")
_KEYWORDS: dict[str, Any] = {"true": True, "false": False, "none": None, **dtypes.by_short}


def _types(avals: Sequence[Aval]) -> str:
    return ", ".join(map(print_type, avals))
