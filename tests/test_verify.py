"""The verifier: every listed invariant has a graph that breaks it, and the error says where and how."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ingot.tracer import dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, DimScope, Guard
from ingot.tracer.errors import GraphError
from ingot.tracer.facts import agree
from ingot.tracer.graph import Constant, Graph, GraphBuilder, Literal, Location, Node
from ingot.tracer.primitive import Primitive, registry
from ingot.tracer.primitives.shape import Slice
from ingot.tracer.text import MAX_NESTING
from ingot.tracer.verify import verify

f32, i32 = dtypes.float32, dtypes.int32
B, C = Dim("B", 1, 256), Dim("C")
X, N = Aval((B, 2), f32), Aval((3,), i32)


@pytest.fixture(scope="module")
def ops():
    """Primitives to build graphs of; registered only while this file's tests run."""

    class VerifySame(Primitive):
        def infer(self, *avals):
            if avals[0].dtype is i32:
                raise ValueError("[verify_same] expected floats")
            return avals[0]

    class VerifyTagged(Primitive):
        value: object

        def infer(self, *avals):
            return avals[0]

    class VerifyMake(Primitive):
        aval: object

        def infer(self, *avals):
            return self.aval

        def params(self):
            return {}

    class VerifyEqual(Primitive):
        def infer(self, x, y):
            if not agree(x.shape[0], y.shape[0]):
                raise ValueError("unequal")
            return x

    made = {cls.name: cls for cls in (VerifySame, VerifyTagged, VerifyMake, VerifyEqual)}
    yield made
    for name in made:
        del registry[name]


@pytest.fixture
def good(ops) -> Graph:
    builder = GraphBuilder("f", [X, N], ["x", "n"], [Guard("le", B + 1, 128)])
    constant = builder.constant(Constant(np.zeros(2, np.float32), Aval((2,), f32)))
    (first,) = builder.add(
        ops["verify_same"](), (0, constant, Literal(1.0, f32)), Location("model.py", 7), "layers.0"
    )
    (second,) = builder.add(ops["verify_tagged"](((1, B + 1), "s", None, 2.5, True, f32)), (first,))
    return builder.finish([second, Literal(3, i32)])


def broken_node(graph: Graph, index: int, **changes) -> Graph:
    nodes = list(graph.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return replace(graph, nodes=tuple(nodes))


def rejected(graph: Graph, message: str, **arguments) -> str:
    with pytest.raises(GraphError) as caught:
        verify(graph, **arguments)
    caught.match(message)
    return str(caught.value)


def test_a_sound_graph_passes(good):
    verify(good)
    verify(good, avals=good.avals)
    verify(Graph("", (), (), (), ()))


def test_errors_name_graph_node_location_and_text(good):
    message = rejected(
        broken_node(good, 0, operands=(0, 9)), "operand 1: value 9 is not defined here; values 0 to 2 are"
    )
    assert message.startswith("[verify] graph @f, node 0 (model.py:7): operand 1")
    assert message.endswith("\n    %0: f32[B,2] = verify_same(%x, %6)  // layers.0")
    assert "[verify] main: graph @f, node" in rejected(broken_node(good, 1, operands=(4,)), "", path="main")


@pytest.mark.parametrize("changes, message", [
    (dict(name=3), "expected a string as the name, got 3"),
    (dict(name=None), "expected a string as the name"),
    (dict(inputs=[X, N]), "expected a tuple as inputs, got list"),
    (dict(inputs=(X, "f32")), r"inputs\[1\]: expected Aval, got 'f32'"),
    (dict(outputs=("x",)), r"outputs\[0\]: expected value id or Literal"),
    (dict(outputs=(True,)), r"outputs\[0\]: expected value id"),
    (dict(outputs=(5,)), "output 0: value 5 is not defined here; values 0 to 4 are"),
    (dict(outputs=(-1,)), "output 0: value -1 is not defined"),
    (dict(input_names=("x",)), "expected 2 input names, got 1"),
    (dict(input_names=("x", "x")), "distinct, non-empty input names"),
    (dict(input_names=("x", "")), "distinct, non-empty input names"),
    (dict(dims=()), r"guard B \+ 1 <= 128: dim 'B' in \[1, 256\] is not declared \(declared: none\)"),
    (dict(dims=(), guards=()), r"input 0: dim 'B' in \[1, 256\] is not declared"),
    (dict(dims=(Dim("B"),), guards=()),
     r"input 0: dim 'B' in \[1, 256\] is not declared \(declared: dim 'B' in \[0, inf\]\)"),
    (dict(dims=(B, Dim("B"))), "'B' is declared twice"),
    (dict(dims=(B, B + 1)), r"expected symbols, got the expression B \+ 1"),
    (dict(dims=("B",)), r"dims\[0\]: expected Dim"),
    (dict(guards=(Guard("gt", B, 300),)), "guard B > 300: the ranges of the dims rule it out"),
    (dict(guards=(Guard("gt", C, 300),)), "dim 'C'.* is not declared"),
    (dict(inputs=(Aval((B, -2), f32), N)), "the extent -2 is out of range"),
    (dict(inputs=(Aval((B, 2**63), f32), N)), "is out of range"),
    (dict(inputs=(Aval((B, B - 300), f32), N)), "the extent B - 300 is negative"),
    (dict(inputs=(Aval((B, 2.5), f32), N)), "expected an integer or Dim as extent, got 2.5"),
    (dict(constants=(Constant(np.zeros(3, np.float32), Aval((2,), f32)),)),
     r"expected data of f32\[2\], got float32\[3\]"),
    (dict(constants=(Constant(np.zeros(2), Aval((2,), f32)),)),
     r"constant #0: expected data of f32\[2\], got float64"),
    (dict(constants=(Constant([0.0, 0.0], Aval((2,), f32)),)),
     "constant #0: expected a NumPy array, got list"),
    (dict(constants=(Constant(np.zeros(2, np.float32), Aval((B,), f32)),)), r"expected data of f32\[B\]"),
    (dict(nodes=("add",)), r"nodes\[0\]: expected Node"),
])  # fmt: skip
def test_graph_invariants(good, changes, message):
    rejected(replace(good, **changes), message)


@pytest.mark.parametrize("changes, message", [
    (dict(operands=(3,)), "operand 0: value 3 is not defined here"),
    (dict(operands=(True,)), "operand 0: expected a value id or Literal, got True"),
    (dict(operands=[0]), "expected tuples as operands and results"),
    (dict(operands=(1,)), r"verify_same\(i32\[3\]\): ValueError: \[verify_same\] expected floats"),
    (dict(operands=()), "verify_same.*IndexError"),
    (dict(results=(4,)), r"expected result ids \[3\], got \[4\]"),
    (dict(results=(3, 4)), "expected 1 results, got 2"),
    (dict(results=()), "expected 1 results, got 0"),
    (dict(scope=None), "expected a string as scope"),
    (dict(location="model.py:7"), "a Location or None as location"),
    (dict(primitive="add"), "expected a Primitive, got 'add'"),
])  # fmt: skip
def test_node_invariants(good, changes, message):
    rejected(broken_node(good, 0, **changes), message)


def test_literals_are_checked(good):
    for value, dtype, changed in (
        (1, dtypes.uint8, 256),
        (1, i32, 1.5),
        (1.0, f32, 1),
        (True, dtypes.bool_, 1),
    ):
        literal = Literal(value, dtype)
        literal.value = changed
        rejected(broken_node(good, 0, operands=(0, literal)), "operand 1: bad literal")
        rejected(replace(good, outputs=(literal,)), "output 0: bad literal")


def test_parameters_are_checked(good, ops):
    tagged = ops["verify_tagged"]
    deep: object = 1
    for _ in range(MAX_NESTING + 3):
        deep = (deep,)
    for value, message in [
        (frozenset([1]), "a frozenset cannot be a parameter"), ((1, (b"x",)), "a bytes cannot be"),
        (1j, "a complex cannot be"), (np.float32(1), "a float32 cannot be"), (C, "parameter value: dim 'C'"),
        ((1, C + B), "parameter value: dim 'C'"), (deep, "a list cannot be a parameter"),
    ]:  # fmt: skip
        rejected(broken_node(good, 1, primitive=tagged(value)), message)


def test_unregistered_primitives_are_refused(good, ops):
    cls = ops["verify_same"]
    del registry[cls.name]
    try:
        rejected(good, "VerifySame is not a registered primitive")
    finally:
        registry[cls.name] = cls


def test_results_of_infer_are_checked(good, ops):
    make = ops["verify_make"]
    for aval, message in [
        (3, "result 0: expected an Aval, got 3"), (Aval((C,), f32), "result 0: dim 'C'"),
        (Aval((-1,), f32), "the extent -1 is out of range"),
    ]:  # fmt: skip
        rejected(broken_node(good, 0, primitive=make(aval)), message)


def test_recorded_avals_are_compared(good):
    recorded = list(good.avals)
    rejected(good, "expected 5 recorded avals, got 4", avals=recorded[:-1])
    recorded[3] = Aval((B, 3), f32)
    assert "node 0" in rejected(good, r"value 3: expected f32\[B,2\], recorded as f32\[B,3\]", avals=recorded)


def test_guards_are_assumed_where_results_are_inferred(ops):
    inputs = (Aval((B,), f32), Aval((C,), f32))
    graph = Graph("f", inputs, (), (Node(ops["verify_equal"](), (0, 1), (2,)),), (2,), (B, C))
    rejected(graph, "unequal")
    verify(replace(graph, guards=(Guard("eq", B, C),)))


def nested(ops, inner: Graph) -> Graph:
    node = Node(ops["verify_tagged"]((7, (inner,))), (0,), (1,))
    return Graph("outer", (Aval((), f32),), (), (node,), (1,))


def test_subgraphs_are_closed_and_sound(good, ops):
    rejected(nested(ops, good), "parameter value: expected a closed graph, it has 1 constants")
    closed = Graph("inner", (X,), (), (Node(ops["verify_same"](), (0,), (1,)),), (1,), (B,))
    verify(nested(ops, closed))
    verify(nested(ops, nested(ops, closed)))
    message = rejected(
        nested(ops, nested(ops, replace(closed, outputs=(2,)))), "output 0: value 2 is not defined"
    )
    assert "outer[0].verify_tagged.value/outer[0].verify_tagged.value: graph @inner" in message
    rejected(nested(ops, replace(closed, dims=())), "dim 'B'.* is not declared")


def test_nesting_is_limited_and_shared_bodies_are_checked_once(ops):
    graph = Graph("leaf", (Aval((), f32),), (), (Node(ops["verify_same"](), (0,), (1,)),), (1,))
    for _ in range(30):  # 2**30 paths lead to the leaf
        tagged = ops["verify_tagged"]((graph, graph))
        graph = Graph("g", graph.inputs, (), (Node(tagged, (0,), (1,)),), (1,))
    verify(graph)
    for _ in range(30):
        graph = Graph("g", graph.inputs, (), (Node(ops["verify_tagged"](graph), (0,), (1,)),), (1,))
    rejected(graph, "nested more than")


def test_guards_of_a_graph_say_nothing_of_its_subgraphs(ops):
    inputs = (Aval((B,), f32), Aval((C,), f32))
    body = (Node(ops["verify_equal"](), (0, 1), (2,)),)
    inner = Graph("inner", inputs, (), body, (2,), (B, C))
    node = Node(ops["verify_tagged"](inner), (0,), (2,))
    outer = Graph("outer", inputs, (), (node,), (2,), (B, C), (Guard("eq", B, C),))
    rejected(outer, "outer.0..verify_tagged.value: graph @inner, node 0.*unequal")
    guarded = replace(inner, guards=(Guard("eq", B, C),))
    verify(replace(outer, nodes=(replace(node, primitive=ops["verify_tagged"](guarded)),)))


def test_what_one_trace_took_for_granted_is_not_remembered_for_others():
    """The operand is static, the bound of the slice is not: the answer holds by a guard of that trace."""
    n = Dim("memo_n")
    part = Slice((0,), (n,), (1,))
    operand = (Aval((10,), f32),)
    with pytest.raises(ValueError):
        part.result_avals(operand)
    with DimScope({"memo_n": 7}) as scope:
        assert part.result_avals(operand)[0].ndim == 1
    assert any(str(g) in ("memo_n <= 10", "10 >= memo_n") for g in scope.events)
    with pytest.raises(ValueError):
        part.result_avals(operand)
