"""Graphs to sections and back: equality, types, shared sub-graphs, locations, canonical bytes."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.format import canonical
from ingot.format.codec import Decoder, Encoder, Function, Trace, decode_tree
from ingot.format.container import open_container, write
from ingot.tracer import dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Guard
from ingot.tracer.graph import Constant, Graph, GraphBuilder, Literal, Location
from ingot.tracer.primitives.control import Call, WhileLoop
from ingot.tracer.primitives.elementwise import Add, ConvertElementType, Lt, Mul, Tanh
from ingot.tracer.primitives.reduce import ReduceSum
from ingot.tracer.primitives.shape import BroadcastTo, DimValue, Iota, Reshape, Slice
from ingot.tracer.tree import LEAF, NONE, Tree

F32 = dtypes.float32


def tree_for(graph: Graph) -> tuple[Tree, Tree]:
    args = Tree("tuple", (LEAF,) * len(graph.inputs))
    return Tree("tuple", (args, Tree("dict"))), Tree("tuple", (LEAF,) * len(graph.outputs))


def encoded(*graphs: Graph, base: str | None = None) -> bytes:
    encoder = Encoder(base=base)
    for i, graph in enumerate(graphs):
        encoder.functions.append(Function(f"f{i}", (Trace(graph, *tree_for(graph)),)))
    file = io.BytesIO()
    write(file, encoder.sections("tests"), encoder.blobs)
    return file.getvalue()


def decoded(data: bytes) -> list[Graph]:
    functions = Decoder(open_container(io.BytesIO(data))).functions()
    return [trace.graph for function in functions for trace in function.traces]


def constant(values, dtype=F32) -> Constant:
    data = np.asarray(values, dtype.numpy)
    return Constant(data, Aval(data.shape, dtype))


def body(name="body", extra=0) -> Graph:
    builder = GraphBuilder(name, [Aval((4,), F32)], ["v"])
    (x,) = builder.add(Tanh(), [0])
    for _ in range(extra):
        (x,) = builder.add(Add(), [x, Literal(1.0, F32)])
    return builder.finish([x])


def rich() -> Graph:
    """Dims, guards, constants, literals of odd values, a loop and calls that share a sub-graph."""
    B, C = Dim("B", 1, 256), Dim("C", 8, None, 8)
    test = GraphBuilder("cond", [Aval((4,), F32)], ["v"])
    (total,) = test.add(ReduceSum((0,), False), [0])
    test = test.finish(test.add(Lt(), [total, Literal(3.5, F32)]))
    guards = [Guard("lt", B + 1, 3 * C, Location("/src/app/model.py", 7)), Guard("ne", B, 7, None, True)]
    builder = GraphBuilder("rich", [Aval((B, C), F32), Aval((4,), F32)], ["x", "y"], guards)
    table = builder.constant(constant(np.arange(4)))
    mask = builder.constant(constant([True, False], dtypes.bool_))
    big = builder.constant(constant(np.arange(5000)))
    where = Location("/src/app/layers/mlp.py", 40)
    (a,) = builder.add(BroadcastTo((2 * B, B, C // 8)), [Literal(-0.0, F32)], where, "encoder.layers.0")
    (b,) = builder.add(Reshape((B * C,)), [0], None, "encoder")
    (c,) = builder.add(Call(body(), "module"), [1])
    (d,) = builder.add(WhileLoop(test, body(), 0, 0), [c])
    (e,) = builder.add(Add(), [d, table])
    (g,) = builder.add(Mul(), [e, Literal(float("nan"), F32)])
    (h,) = builder.add(DimValue(B * C - 3, dtypes.int64), [])
    (i,) = builder.add(Iota((B,), 0, dtypes.uint8), [])
    (j,) = builder.add(ConvertElementType(dtypes.bfloat16), [i])
    (k,) = builder.add(Slice((0,), (2,), (1,)), [big])
    outputs = [a, b, g, h, j, k, mask, 1, Literal(2**63, dtypes.uint64), Literal(1 - 2j, dtypes.complex64)]
    return builder.finish(outputs)


def test_everything_comes_back_equal():
    graph = rich()
    (found,) = decoded(encoded(graph, base="/src/app"))
    assert found == graph
    assert found.avals == graph.avals
    assert found.input_names == ("x", "y")
    assert [n.scope for n in found.nodes] == [n.scope for n in graph.nodes]
    assert str(found.nodes[0].location) == "layers/mlp.py:40" and found.nodes[1].location is None
    assert [g.location for g in found.guards] == ["model.py:7", None]
    assert str(found) == str(graph)


def test_encoding_is_canonical():
    first = encoded(rich())
    assert encoded(rich()) == first
    assert encoded(*decoded(first)) == first


def test_sub_graphs_are_stored_once():
    def caller(name):
        builder = GraphBuilder(name, [Aval((4,), F32)])
        (a,) = builder.add(Call(body("shared", 50), "module"), [0])
        (b,) = builder.add(Call(body("shared", 50), "module"), [a])
        return builder.finish([b])

    data = encoded(caller("f"), caller("g"))
    container = open_container(io.BytesIO(data))
    assert [row["name"] for row in container.section("graphs")] == ["shared", "f", "g"]
    assert decoded(data) == [caller("f"), caller("g")]


def test_equal_constants_of_other_type_are_told_apart():
    builder = GraphBuilder("f", [])
    ids = [
        builder.constant(constant([0, 1], dtypes.int32)),
        builder.constant(constant([0, 1], dtypes.uint32)),
        builder.constant(constant([[0, 1]], dtypes.int32)),
    ]
    graph = builder.finish(ids)
    data = encoded(graph)
    assert open_container(io.BytesIO(data)).bin_count == 1
    assert decoded(data) == [graph]


def test_parameters_that_python_calls_equal_are_told_apart():
    builder = GraphBuilder("f", [Aval((4,), F32)])
    for value in (0.0, -0.0):
        builder.add(Mul(), [0, Literal(value, F32)])
    for keepdims in (True, False):
        builder.add(ReduceSum((0,), keepdims), [0])
    graph = builder.finish([1, 2, 3, 4])
    (found,) = decoded(encoded(graph))
    assert [repr(o) for n in found.nodes for o in n.operands] == [
        repr(o) for n in graph.nodes for o in n.operands
    ]
    assert [n.primitive.params() for n in found.nodes] == [n.primitive.params() for n in graph.nodes]


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (1, 2, 3)])
def test_constants_of_every_dtype(dtype, shape):
    values = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape)
    builder = GraphBuilder("f", [])
    graph = builder.finish([builder.constant(constant(values, dtype))])
    (found,) = decoded(encoded(graph))
    (stored,) = found.constants
    assert stored.aval is graph.constants[0].aval
    assert stored.data.dtype == dtype.numpy and np.array_equal(stored.data, graph.constants[0].data)
    assert not stored.data.flags.writeable
    assert stored == graph.constants[0]


def test_strided_constants():
    builder = GraphBuilder("f", [])
    data = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    graph = builder.finish([builder.constant(Constant(data, Aval(data.shape, F32)))])
    assert np.array_equal(decoded(encoded(graph))[0].constants[0].data, data)


def test_dims_of_one_name_in_two_graphs():
    def graph(name, dim):
        builder = GraphBuilder(name, [Aval((dim, 2), F32)])
        return builder.finish(builder.add(ReduceSum((0,), False), [0]))

    graphs = [graph("f", Dim("B")), graph("g", Dim("B", 1, 8)), graph("h", Dim("B"))]
    assert decoded(encoded(*graphs)) == graphs


def test_a_large_graph_is_quick():
    builder = GraphBuilder("f", [Aval((4,), F32)])
    x = 0
    for i in range(20_000):
        (x,) = builder.add(Add(), [x, Literal(float(i), F32)])
    graph = builder.finish([x])
    data = encoded(graph)
    assert len(data) < 40 * 20_000
    assert decoded(data) == [graph]


values = st.recursive(
    st.just(True) | st.none(),
    lambda inner: (
        st.tuples(st.sampled_from(["list", "tuple"]), st.lists(inner, max_size=3).map(tuple))
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3).map(
            lambda d: ("dict", tuple(d), tuple(d.values()))
        )
    ),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(values)
def test_trees_round_trip(value):
    from ingot.format.canonical import decode, encode
    from ingot.format.codec import _encode_tree

    tree = decode_tree(value)
    assert decode_tree(decode(encode(_encode_tree(tree)))) == tree


def test_named_tuples_are_tuples_in_a_file():
    tree = decode_tree(("tuple", (True, None)))
    assert tree == Tree("tuple", (LEAF, NONE))


def test_the_specification_names_every_primitive():
    """A reader in another language needs each primitive and its parameters."""
    import ingot  # noqa: F401  (declares all primitives)
    from ingot.tracer.primitive import registry

    text = (Path(canonical.__file__).parent / "SPEC.md").read_text()
    rows = [line for line in text[text.index("## 4.") :].splitlines() if line.startswith("| `")]
    told = {}
    for row in rows:
        first = row.split("|")[1]
        names, _, params = first.partition("{")
        for name in names.replace("`", " ").split():
            told[name] = tuple(part.strip() for part in params.strip(" }").split(",") if part.strip())
    actual = {n: c.fields for n, c in registry.items() if is_ours(c)}
    assert {name: told.get(name) for name in actual} == actual
    assert set(told) == set(actual)


def is_ours(kind):
    return kind.__module__.startswith("ingot.")


def test_what_a_file_cannot_hold():
    from ingot.format.codec import _encode_tree

    with pytest.raises(TypeError, match="keys of dicts"):
        _encode_tree(Tree("dict", (LEAF,), (1,)))


# An independent reader, written from SPEC.md alone: no Ingot code between the bytes and the result.


def spec_read(data: bytes):
    """Sections and constants of a file, by the letter of SPEC.md sections 1 and 2."""
    assert data[:2] == b"\xc4\x3e" and data[2:10] == b"\x8eINGOT\r\n"
    major, _, header_length, data_offset, file_length = struct.unpack_from("<HHQQQ", data, 10)
    header = data[64 : 64 + header_length]
    assert major == 1 and file_length == len(data)
    assert hashlib.sha256(data[:38] + header).digest()[:26] == data[38:64]
    sections = {name: msgpack.unpackb(raw) for name, (_, raw) in msgpack.unpackb(header).items()}
    bins = []
    crcs = np.frombuffer(sections["bins"]["crc"], "<u4").tolist()
    pairs = zip(spec_column(sections["bins"]["offset"]), spec_column(sections["bins"]["length"]), strict=True)
    for offset, length in pairs:
        start = data_offset + offset
        assert start % 64 == 0 and data[start - 5 : start] == b"\xc6" + struct.pack(">I", length)
        payload = data[start : start + length]
        for i in range(0, length, 4 << 20):
            assert zlib.crc32(payload[i : i + (4 << 20)]) == crcs.pop(0)
        bins.append(payload)
    kinds = {"bool": "?", "f32": "<f4", "i32": "<i4", "u32": "<u4"}
    constants = [
        np.frombuffer(b"".join(bins[first : first + count]), kinds[dtype]).reshape(shape)
        for dtype, shape, first, count in sections["constants"]
    ]
    return sections, constants


def spec_column(column):
    width, raw = column
    return np.frombuffer(raw, f"<u{width}").tolist()


def spec_run(sections, constants, index, inputs):
    """Results of a graph, by SPEC.md sections 3 and 4."""
    graph = sections["graphs"][index]
    sizes = {}
    for kind, x in zip(spec_column(graph["inputs"]), inputs, strict=True):
        for extent, n in zip(graph["types"][kind][1], x.shape, strict=True):
            if isinstance(extent, str) and extent.isidentifier():
                sizes[extent] = n
    values = [*inputs, *(constants[i] for i in spec_column(graph["constants"]))]

    def operand(code):
        if code % 2 == 0:
            return values[code // 2]
        dtype, value = graph["literals"][code // 2]
        return np.asarray(value, {"f32": np.float32, "i32": np.int32, "bool": bool}[dtype])

    def extents(param):
        return tuple(eval(e["extent"], {}, dict(sizes)) if isinstance(e, dict) else e for e in param)

    operands = iter(spec_column(graph["operand"]))
    columns = [spec_column(graph[name]) for name in ("primitive", "param", "arity")]
    for primitive, param, arity in zip(*columns, strict=True):
        name, version, names = sections["primitives"][primitive]
        p = dict(zip(names, graph["params"][param], strict=True))
        xs = [operand(next(operands)) for _ in range(arity)]
        assert version == 1
        if name in SPEC_OPS:
            values.append(SPEC_OPS[name](*xs))
        elif name in ("reduce_sum", "reduce_max"):
            reduce = np.sum if name == "reduce_sum" else np.max
            values.append(reduce(xs[0], axis=tuple(p["axes"]), keepdims=p["keepdims"]))
        elif name == "dot_general":
            assert p["batch"] == [[], []]
            values.append(np.tensordot(*xs, axes=p["contract"]))
        elif name == "broadcast_to":
            values.append(np.broadcast_to(xs[0], extents(p["shape"])))
        elif name == "reshape":
            values.append(xs[0].reshape(extents(p["shape"])))
        elif name == "while_loop":
            while spec_run(sections, constants, p["cond"]["graph"], xs)[0]:
                xs = spec_run(sections, constants, p["body"]["graph"], xs)
            values += xs
        elif name == "convert_element_type":
            values.append(xs[0].astype({"f32": np.float32, "i32": np.int32}[p["dtype"]["dtype"]]))
        elif name == "dim_value":
            values.append(np.float32(extents([p["extent"]])[0]))
        else:
            raise NotImplementedError(name)
    return [operand(code) for code in spec_column(graph["outputs"])]


SPEC_OPS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "exp": np.exp, "tanh": np.tanh,
    "lt": np.less, "gt": np.greater, "select": np.where, "maximum": np.maximum,
    "stop_gradient": np.asarray, "identity": np.asarray,
}  # fmt: skip


def test_a_reader_written_from_the_specification(tmp_path):
    import ingot as mx

    rng = np.random.default_rng(0)
    weights = mx.array(rng.standard_normal((6, 6)).astype(np.float32))
    bias = mx.array(rng.standard_normal(6).astype(np.float32))
    mx.eval(weights, bias)

    def fun(x):
        h = mx.tanh(x @ weights + bias)
        h = mx.while_loop(lambda v: mx.max(v) > 0.1, lambda v: v * 0.5, h)
        return mx.softmax(h, axis=-1), mx.mean(h, axis=0), mx.where(h < 0, 0.0, x)

    path = tmp_path / "f.ingot"
    mx.export_function(path, fun, mx.ones((2, 6)), dynamic_shapes=({0: mx.Dim("B", min=1)},))
    x = rng.standard_normal((4, 6)).astype(np.float32)
    sections, constants = spec_read(path.read_bytes())
    graph = sections["functions"][0]["traces"][0]["graph"]
    found = spec_run(sections, constants, graph, [x])
    expected = mx.import_function(path)(mx.array(x))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert np.allclose(a, np.asarray(b), atol=1e-6)
