"""Text form of graphs: exact round trips, located errors, hostile text."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ingot as mx
from ingot.tracer import dims, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Guard
from ingot.tracer.errors import GraphError
from ingot.tracer.graph import Constant, Graph, GraphBuilder, Literal, Node
from ingot.tracer.primitive import Primitive, registry
from ingot.tracer.text import parse_graph, print_graph, print_literal, print_node, print_param
from ingot.tracer.trace import trace
from ingot.tracer.verify import verify

f32, i32 = dtypes.float32, dtypes.int32
B, E = Dim("B", 1, 256), Dim("E", 0, None, 8)
DIMS = {"B": B, "E": E}


@pytest.fixture(scope="module")
def ops():
    """Primitives of every shape of signature and parameter; registered only while this file's tests run."""

    class TextSame(Primitive):
        def infer(self, *avals):
            return avals[0]

    class TextFork(Primitive):
        n: int

        def infer(self, *avals):
            return (avals[0],) * self.n

    class TextTagged(Primitive):
        value: object

        def infer(self, *avals):
            return Aval((), f32)

    class TextPair(Primitive):
        shape: tuple
        dtype: dtypes.Dtype

        def infer(self, *avals):
            return Aval(self.shape, self.dtype)

    made = {cls.name: cls for cls in (TextSame, TextFork, TextTagged, TextPair)}
    yield made
    for name in made:
        del registry[name]


def round_trip(graph: Graph, constants=None) -> str:
    text = print_graph(graph)
    again = parse_graph(text, constants)
    assert again == graph
    assert print_graph(again) == text
    verify(again)
    return text


PAIR = (Aval((2,), f32),)


def one_node(primitive: Primitive, operands=(0,), inputs=PAIR, dims=(), **rest) -> Graph:
    avals = tuple(inputs)
    results = len(primitive.result_avals(avals))
    node = Node(primitive, tuple(operands), tuple(range(len(avals), len(avals) + results)))
    return Graph("f", avals, (), (node,), node.results, dims, **rest)


def test_a_graph_prints_as_documented(ops):
    guards = [Guard("le", B + 1, 128), Guard("eq", B, 4, fixed=True)]
    builder = GraphBuilder("mlp", [Aval((B, 784), f32)], ["x"], guards)
    weights = builder.constant(Constant(np.ones((784, 4), np.float32), Aval((784, 4), f32)))
    bias = builder.constant(Constant(np.array([0.1, -2, 3e-20, np.inf], np.float32), Aval((4,), f32)))
    h, twice = builder.add(ops["text_fork"](2), (0, weights, bias, Literal(0.0, f32)), scope="layers.0")
    (done,) = builder.add(ops["text_same"](), (twice, Literal(3, dtypes.uint8)))
    graph = builder.finish([h, Literal(True, dtypes.bool_)])
    assert (
        print_graph(graph)
        == """\
graph @mlp(%x: f32[B,784]) -> (f32[B,784], bool[]) where B in [1,256] {
  guard B + 1 <= 128
  guard B == 4 fixed
  %c0: f32[784,4] = constant #0
  %c1: f32[4] = constant #1 [0.1, -2.0, 3e-20, inf]
  %0, %1: f32[B,784], f32[B,784] = text_fork(%x, %c0, %c1, 0.0) {n=2}  // layers.0
  %2: f32[B,784] = text_same(%1, 3:u8)
  return %0, true
}
"""
    )
    round_trip(graph, [c.data for c in graph.constants])
    assert print_node(graph, 1) == "%2: f32[B,784] = text_same(%1, 3:u8)"
    with pytest.raises(
        GraphError, match=r"4:30: the data of constant #0 is neither in the text nor supplied"
    ):
        parse_graph(print_graph(graph))
    with pytest.raises(GraphError, match="expected f32.784,4. as constant #0, got float64"):
        parse_graph(print_graph(graph), [np.ones((784, 4))])


def numbers(dtype: dtypes.Dtype):
    """Python values of a dtype, the awkward ones among them."""
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind in "ui":
        bits = 8 * dtype.size
        return (
            st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            if dtype.kind == "i"
            else st.integers(0, 2**bits - 1)
        )
    floats = st.one_of(st.floats(), st.sampled_from([-0.0, math.inf, -math.inf, math.nan, 5e-324, 1e16, 0.1]))
    return floats if dtype.kind == "f" else st.builds(complex, floats, floats)


literals = st.sampled_from(dtypes.ALL).flatmap(lambda d: numbers(d).map(lambda v: Literal(v, d)))


@settings(max_examples=300, deadline=None)
@given(literals)
def test_literals_round_trip(literal):
    graph = Graph("f", (), (), (), (literal,))
    assert parse_graph(print_graph(graph)).outputs == (literal,)


@pytest.mark.parametrize("literal, text", [
    (Literal(0.0, f32), "0.0"), (Literal(2, i32), "2"), (Literal(True, dtypes.bool_), "true"),
    (Literal(1.5, dtypes.float16), "1.5:f16"), (Literal(-3, dtypes.int64), "-3:i64"),
    (Literal(3, dtypes.uint32), "3:u32"),
    (Literal(math.nan, f32), "nan"), (Literal(-math.inf, dtypes.bfloat16), "-inf:bf16"),
    (Literal(1 + 2j, dtypes.complex64), "(1.0+2.0j)"),
    (Literal(complex(-0.0, -math.inf), dtypes.complex64), "(-0.0-infj)"),
])  # fmt: skip
def test_literal_text(literal, text):
    assert print_literal(literal) == text


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(dtypes.ALL), st.lists(st.integers(0, 4), max_size=2))
def test_small_constants_keep_every_bit(data, dtype, shape):
    count = math.prod(shape)
    raw = data.draw(st.binary(min_size=count * dtype.size, max_size=count * dtype.size))
    if dtype.kind == "b":
        raw = bytes(b & 1 for b in raw)
    array = np.frombuffer(bytearray(raw), dtype.numpy).reshape(shape)
    graph = Graph("f", (), (Constant(array, Aval(tuple(shape), dtype)),), (), (0,))
    again = parse_graph(print_graph(graph))
    assert again == graph
    assert again.constants[0].data.tobytes() == raw and again.constants[0].data.shape == tuple(shape)


def test_nan_payloads_are_written_as_bits():
    array = np.frombuffer(struct.pack("<If", 0x7FC0BEEF, math.nan), np.float32)
    text = print_graph(Graph("f", (), (Constant(array, Aval((2,), f32)),), (), (0,)))
    assert "[0x7fc0beef, nan]" in text


extents = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from(
        [B, E, 2 * B - 3, B * E // 3, dims.minimum(B, E // 8, 7), -B, B % 5 + 1, dims.maximum(B // 2, E)]
    ),
)
params = st.recursive(
    st.one_of(
        extents,
        st.booleans(),
        st.none(),
        st.sampled_from(dtypes.ALL),
        st.text(max_size=8),
        st.floats(allow_nan=False),
    ),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=8,
)


def kinds(value):
    return (type(value), tuple(map(kinds, value))) if isinstance(value, tuple) else (type(value), repr(value))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=params)
def test_parameters_round_trip(ops, value):
    graph = one_node(ops["text_tagged"](value), dims=(B, E))
    text = print_graph(graph)
    again = parse_graph(text)
    assert again == graph and kinds(again.nodes[0].primitive.value) == kinds(value)
    assert print_graph(again) == text


@pytest.mark.parametrize("value, text", [
    ((0, 1), "[0,1]"), ((), "[]"), (f32, "f32"), ("a\"b\n", '"a\\"b\\n"'), (None, "none"), (True, "true"),
    (2.0, "2.0"),
    (((B, 2),), "[[B,2]]"), (-math.inf, "-inf"), (2 * B + 1, "2*B + 1"),
])  # fmt: skip
def test_parameter_text(value, text):
    assert print_param(value) == text


def test_subgraphs_print_inline_and_indented(ops):
    inner = one_node(ops["text_same"]())
    graph = one_node(ops["text_tagged"]((inner, (inner, "x"))))
    text = round_trip(graph)
    assert (
        text
        == """\
graph @f(%a0: f32[2]) -> (f32[]) {
  %0: f32[] = text_tagged(%a0) {value=[graph @f(%a0: f32[2]) -> (f32[2]) {
      %0: f32[2] = text_same(%a0)
      return %0
    },[graph @f(%a0: f32[2]) -> (f32[2]) {
      %0: f32[2] = text_same(%a0)
      return %0
    },"x"]]}
  return %0
}
"""
    )


def test_subgraphs_declare_their_own_dims(ops):
    inner = one_node(ops["text_pair"]((B, E), f32), inputs=[Aval((B,), f32), Aval((E,), f32)], dims=(B, E))
    outer = one_node(ops["text_tagged"](inner), inputs=[Aval((3,), f32)])
    assert "E in [0,inf] by 8" in round_trip(outer)


@pytest.mark.parametrize("names", [
    ("x", "y"), ("a0", "c1"), ("0", "1"), ("params.w", "é"), ("a b", 'q"uo\\te'), ('"', "%"), ("a1", "a0"),
    ("_", "return"),
])  # fmt: skip
def test_input_names_round_trip(ops, names):
    graph = one_node(ops["text_same"](), operands=(0, 1), inputs=[Aval((), f32)] * 2, input_names=names)
    round_trip(graph)


@pytest.mark.parametrize("name", ["", "f", "a b", "0", 'x"y', "a0", "f.g", "graph"])
def test_graph_names_round_trip(name):
    round_trip(Graph(name, (), (), (), ()))


@pytest.mark.parametrize(
    "scope", ["encoder.layers.0", 'has "quotes"', '"quoted"', " blank", "two\nlines", "// x", "é", "{"]
)
def test_scopes_round_trip(ops, scope):
    node = Node(ops["text_same"](), (0,), (1,), None, scope)
    graph = Graph("f", (Aval((), f32),), (), (node, Node(ops["text_same"](), (1,), (2,))), (2,))
    assert parse_graph(print_graph(graph)).nodes[0].scope == scope
    round_trip(graph)


def test_nodes_may_have_no_results_and_no_operands(ops):
    builder = GraphBuilder("f", [Aval((), f32)])
    builder.add(ops["text_fork"](0), (0,))
    builder.add(ops["text_pair"]((3,), i32), ())
    text = round_trip(builder.finish([]))
    assert "\n  text_fork(%a0) {n=0}\n  %0: i32[3] = text_pair() {shape=[3], dtype=i32}\n  return\n" in text


def test_hand_written_text_may_use_any_names_and_comments(ops):
    graph = parse_graph("""
    ; a comment before
    graph @f(%x: f32[2,
                     B], %"y": i32[]) -> (f32[2,B]) where B in [1,256] {  ; and one behind
      %hidden: f32[2,B] = text_same(%x, %y)
      %out:f32[2,B]=text_same( %hidden ,1.0 )   // scope
      return %out
    }""")
    assert graph.input_names == ("x", "y") and graph.nodes[1].scope == "scope" and graph.outputs == (3,)
    round_trip(graph)


def test_broken_graphs_still_print(ops):
    node = Node(ops["text_same"](), (7, -1), (1,))
    text = print_graph(Graph("f", (Aval((), f32),), (), (node,), (1, 9)))
    assert "%0: ? = text_same(%6, %?-1)" in text


WEIGHTS = mx.array(np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4))
TRACED = {
    "matmul": lambda x: [mx.maximum(x @ WEIGHTS, 0)],
    "second order": lambda x: [mx.grad(lambda z: mx.grad(lambda y: mx.tanh(y @ WEIGHTS).sum())(z).sum())(x)],
    "extents": lambda x: [x.mean(), mx.softmax(x, axis=-1), x.reshape(-1, 4), x[1:], mx.concatenate([x, x])],
    "cond": lambda x: list(mx.cond(x.sum() > 0, lambda y: (y + 1,), lambda y: (y - 1,), x)),
    "checkpoint": lambda x: [mx.grad(mx.checkpoint(lambda y: mx.exp(y).sum()))(x)],
    "vmap": lambda x: [mx.vmap(lambda row: row @ WEIGHTS)(x)],
}


@pytest.mark.parametrize("shape", [(B, 8), (3, 8)], ids=["symbolic", "static"])
@pytest.mark.parametrize("fun", TRACED.values(), ids=TRACED.keys())
def test_traced_functions_round_trip(fun, shape):
    graph = trace(fun, [Aval(shape, f32)], name="f", samples={"B": 5}).graph
    round_trip(graph, [c.data for c in graph.constants])


GOOD = """graph @f(%x: f32[B,2], %i: i32[]) -> (f32[B,2]) where B in [1,256] {
  guard B + 1 <= 128
  %c0: f32[2] = constant #0 [1.0, 2.0]
  %0: f32[B,2] = text_same(%x, %c0, 1.0) {}  // scope
  %1: f32[B] = text_pair(%0) {shape=[B], dtype=f32}
  return %0
}
"""


@pytest.mark.parametrize("old, new, message", [
    ("graph", "graf", r"1:1: expected 'graph', got 'graf @f"),
    ("-> (f32[B,2])",
    "-> (f32[B,3])", r"6:10: the results are \(f32\[B,2\]\), the header says \(f32\[B,3\]\)"),
    ("where B in [1,256]", "", r"1:18: unknown dim 'B'"),
    ("[1,256]", "[9,2]", r"1:55: \[Dim\] 'B' has no value"),
    ("[1,256]", "[1,256], B in [0,1]", "dim 'B' is declared twice"),
    ("f32[B,2],", "f33[B,2],", r"1:14: unknown dtype 'f33'"),
    ("B + 1", "B + * 1", r"2:13: expected an extent, got '\*'"),
    ("<=", "=", r"2:15: unexpected '='"),
    ("[1.0, 2.0]", "[1.0]", r"3:26: f32\[2\] has 2 elements, got 1"),
    ("[1.0, 2.0]", "[1.0, 2]", r"3:35: 2 is not written as a f32"),
    ("[1.0, 2.0]", "[1.0, 0x12]", "expected 8 hexadecimal digits"),
    ("#0", "#1", r"expected the one value of constant #0"),
    ("f32[2] = const", "f32[B] = const", r"static shape, not f32\[B\]"),
    ("text_same(", "text_some(", r"4:18: unknown primitive 'text_some'"),
    ("%x, %c0", "%y, %c0", r"4:28: %y is not defined"),
    ("%x, %c0", "%0, %c0", r"4:28: %0 is not defined"),
    ("%x, %c0", "%x %c0", r"4:31: expected ','"),
    ("%0: f32[B,2]", "%0: f32[B,3]", r"4:18: text_same gives \(f32\[B,2\]\), the text says \(f32\[B,3\]\)"),
    ("%0: f32[B,2]", "%0, %9: f32[B,2]", "text_same gives"),
    ("%0: f32[B,2]", "%c0: f32[B,2]", r"4:3: %c0 is defined twice"),
    ("%i: i32", "%x: i32", "%x is defined twice"),
    ("%x: f32[B,2]", "%a0: f32[B,2]", "either all inputs are named"),
    ("1.0)", "1.0:i8)", r"1.0 is not written as a i8"),
    ("1.0)", "300:u8)", r"300 does not fit uint8"),
    ("1.0)", "'1')", "expected a value or scalar"),
    (" {}", " {n=2}", r"text_same has parameters \[\], got \['n'\]"),
    ("dtype=f32", "shape=[B]", "'shape' is given twice"),
    ("{shape=[B], dtype=f32}", "", r"text_pair has parameters \['shape', 'dtype'\], got \[\]"),
    ("{shape=[B]", "{shape=[B}", "expected ','"),
    ("{shape=[B]", "{shape=[C]", r"5:38: unknown dim 'C'"),
    ("return %0", "return %7", "6:10: %7 is not defined"),
    ("return %0\n}", "return %0", "expected ',', got the end"),
    ("}\n", "} more", r"expected the end, got 'more'"),
    ("f32[B,2], %i", "f32[99999999999999999999,2], %i", "out of range"),
    ("f32[B,2], %i", "f32[0 - 5,2], %i", "out of range"),
    ("shape=[B]", "shape=" + "[" * 100, "nested more than"),
    ("shape=[B]", 'shape="\\q"', "bad string"),
    ("@f", '@"f', "expected a string"),
    ("shape=[B]", "shape=7", "text_pair: TypeError"),
    ("%1: f32[B]", "%1: f32[B", r"5:13: unexpected '='"),
    ("  %1:", "  guard B == 3\n  %1:", "guards come before nodes"),
])  # fmt: skip
def test_errors_are_located(ops, old, new, message):
    assert parse_graph(GOOD) == parse_graph(print_graph(parse_graph(GOOD)))
    assert GOOD.count(old) >= 1
    text = GOOD.replace(old, new, 1) if old != "}\n" else GOOD.removesuffix(old) + new
    with pytest.raises(GraphError, match=r"\[parse_graph\] \d+:\d+: .*") as caught:
        parse_graph(text)
    caught.match(message)


def test_deeply_nested_graphs_are_refused(ops):
    nested = "graph () -> () {return}"
    for _ in range(400):
        nested = "graph () -> () { text_fork(1.0) {n=" + nested + "} return }"
    with pytest.raises(GraphError, match="nested more than"):
        parse_graph(nested)


alphabet = st.sampled_from([
    "graph", "@f", "(", ")", "{", "}", "[", "]", ",", ":", "->", "%x", "%0", "f32", "B", "where", "in",
    "=", "text_same",
    "return", "1.0", "7", "//", "\n", '"', "constant", "#0", "guard", "<=", "min(", "inf", ";", " ", "n",
    "text_fork", "é",
])  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), alphabet), min_size=1, max_size=4
    ),
)
def test_mangled_text_parses_or_raises_the_one_error(ops, edits):
    text = GOOD
    for start, length, new in edits:
        text = text[:start] + new + text[start + length :]
    try:
        graph = parse_graph(text)
    except GraphError:
        return
    assert parse_graph(print_graph(graph)) == graph


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(alphabet, max_size=40).map(" ".join), st.integers(0, len(GOOD)))
def test_any_text_parses_or_raises_the_one_error(ops, text, cut):
    for hostile in (text, GOOD[:cut], GOOD[:cut] + text):
        try:
            parse_graph(hostile)
        except GraphError:
            pass
