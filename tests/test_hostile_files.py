"""Damaged and hostile `.ingot` files with real functions: an error or the right answer, nothing else."""

from __future__ import annotations

import hashlib
import io
import random
import resource
import struct
import time
import tracemalloc

import msgpack
import numpy as np
import pytest

import ingot as mx
from ingot import Dim
from ingot.format import container
from ingot.format.canonical import column, encode
from ingot.format.codec import Encoder, Function, Trace
from ingot.format.summary import read_summary
from ingot.tracer import dims, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.errors import FormatError
from ingot.tracer.graph import GraphBuilder
from ingot.tracer.primitive import registry
from ingot.tracer.tree import Tree


def exported(fun, *args, **kwargs) -> bytes:
    file = io.BytesIO()
    mx.export_function(file, fun, *args, **kwargs)
    return file.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    """A small model with constants, dims, guards, sub-graphs, several traces' worth of sections."""
    rng = np.random.default_rng(0)
    w = mx.array(rng.standard_normal((8, 8)).astype(np.float32))
    b = mx.array(rng.standard_normal(8).astype(np.float32))
    mx.eval(w, b)

    def fun(x):
        h = mx.tanh(x @ w + b)
        h = mx.while_loop(lambda v: mx.sum(v) > 1, lambda v: v * 0.5, h)
        return mx.softmax(h, axis=-1), mx.mean(h[:, 1:3])

    file = io.BytesIO()
    dynamic = ({0: Dim("B", min=1, max=64)},)
    with mx.exporter(file, fun, dynamic_shapes=dynamic, metadata={"a": [1, 2.0]}) as export:
        export(mx.ones((2, 8)))
        export.example(mx.ones((1, 8)))
    return file.getvalue()


X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)


def run(data: bytes) -> list[np.ndarray]:
    fun = mx.import_function(io.BytesIO(data))
    return [np.array(out) for out in fun(mx.array(X))]


def header_of(data: bytes) -> tuple[dict, int]:
    length = struct.unpack_from("<Q", data, 14)[0]
    return msgpack.unpackb(data[64 : 64 + length]), 64 + length


def rebuilt(data: bytes, change) -> bytes:
    """The file with sections changed and every checksum right. `change` edits {name: decoded section}."""
    header, _ = header_of(data)
    bins = container.open_container(io.BytesIO(data))
    blobs = container.Blobs()
    for i in range(bins.bin_count):
        blobs.add(bytes(bins.payload(i, 1)))
    sections = {name: msgpack.unpackb(raw) for name, (_, raw) in header.items() if name != "bins"}
    change(sections)
    new = {name: container.Section(encode(value), header[name][0]) for name, value in sections.items()}
    return b"".join(bytes(piece) for piece in container.assemble(new, blobs))


def repaired(data: bytes) -> bytes:
    out = bytearray(data)
    if len(out) >= 64:
        length = struct.unpack_from("<Q", out, 14)[0]
        struct.pack_into("<Q", out, 30, len(out))
        out[38:64] = hashlib.sha256(bytes(out[:38]) + bytes(out[64 : 64 + length])).digest()[:26]
    return bytes(out)


def test_the_model_itself(model):
    assert len(run(model)) == 2
    assert rebuilt(model, lambda sections: None) == model


def test_two_thousand_damaged_files(model):
    rng, expected = random.Random(1), run(model)
    for _ in range(2000):
        bad = bytearray(model)
        for _ in range(rng.choice((1, 1, 1, 3))):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        if bad == model:
            continue
        with pytest.raises(FormatError):
            mx.import_function(io.BytesIO(bad), verify="open")
        try:
            found = run(bytes(bad))
        except FormatError:
            continue
        # the damage lies in a test vector, which a call does not read
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_truncation_anywhere(model):
    for end in range(len(model)):
        with pytest.raises(FormatError):
            mx.import_function(io.BytesIO(model[:end]))


def test_damage_with_repaired_checksums(model):
    """No crash, no hang, no other kind of error while importing, no memory out of proportion."""
    rng = random.Random(2)
    end = header_of(model)[1]
    refused = survived = 0
    slowest = 0.0
    tracemalloc.start()
    try:
        for _ in range(1000):
            bad = bytearray(model)
            for _ in range(rng.choice((1, 1, 2))):
                where = rng.randrange(64, end)
                bad[where] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, bad[where] ^ 1 << rng.randrange(8)))
            start = time.perf_counter()
            try:
                mx.import_function(io.BytesIO(repaired(bytes(bad))))
                survived += 1
            except FormatError:
                refused += 1
            slowest = max(slowest, time.perf_counter() - start)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused > 300 and survived > 0, (refused, survived)
    assert peak < 64 << 20, peak
    assert slowest < 2.0, slowest


def test_summaries_of_damaged_files(model):
    rng = random.Random(3)
    end = header_of(model)[1]
    for _ in range(500):
        bad = bytearray(model)
        bad[rng.randrange(64, end)] = rng.randrange(256)
        try:
            read_summary(io.BytesIO(repaired(bytes(bad))))
        except FormatError:
            pass


def values_of(kind: str) -> list:
    return {
        "column": [column([0]), column([9999]), column([]), [1, b""], [3, b""], None, column([2**63])],
        "tuple": [[], [None], [[]], None, "x", [["f32", [-1]]], [["f32", ["B", "B**9"]]], [[0, 0]]],
    }[kind]


def test_every_field_of_a_graph_replaced(model):
    """Each field of each graph takes wrong values: refused, or equal to the original file."""
    header, _ = header_of(model)
    graphs = msgpack.unpackb(header["graphs"][1])
    for index, graph in enumerate(graphs):
        for name, old in graph.items():
            kind = "column" if type(old) is list and len(old) == 2 and type(old[1]) is bytes else "tuple"
            for value in values_of(kind):
                if value == old or list(value or ()) == old:
                    continue

                def change(sections, index=index, name=name, value=value):
                    sections["graphs"][index][name] = value

                data = rebuilt(model, change)
                try:
                    mx.import_function(io.BytesIO(data))
                except FormatError as error:
                    assert str(error).startswith("[import_function]"), (name, value, error)


def test_every_scalar_of_every_section_replaced(model):
    """Each number, string and flag in the sections takes a wrong value: FormatError or a sound graph."""
    header, _ = header_of(model)
    sections = {name: msgpack.unpackb(raw) for name, (_, raw) in header.items() if name != "bins"}
    places: list[tuple] = []

    def walk(value, path):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*path, key))
        elif isinstance(value, list):
            for i, inner in enumerate(value):
                walk(inner, (*path, i))
        else:
            places.append(path)

    walk(sections, ())
    rng = random.Random(4)
    for path in rng.sample(places, min(400, len(places))):
        wrong = rng.choice(
            [-1, 0, 1, 2**40, 2**64 - 1, -(2**63), 0.5, float("nan"), "", "f64", "B", b"", None, True, []]
        )

        def change(sections, path=path, wrong=wrong):
            for key in path[:-1]:
                sections = sections[key]
            sections[path[-1]] = wrong

        try:
            mx.import_function(io.BytesIO(rebuilt(model, change)))
        except FormatError:
            pass


def lie(model, **changes):
    def change(sections):
        for name, function in changes.items():
            function(sections[name])

    return rebuilt(model, change)


def test_lies_are_named(model):
    def constants(edit):
        return lie(model, constants=edit)

    def trace(name, value):
        return lie(model, functions=lambda rows: rows[0]["traces"][0].__setitem__(name, value))

    cases = [
        (constants(lambda rows: rows[0].__setitem__(0, "f99")), "unknown dtype"),
        (constants(lambda rows: rows[0].__setitem__(1, [2**62, 2**62])), "takes"),
        (constants(lambda rows: rows[0].__setitem__(1, [1] * 65)), "shape"),
        (constants(lambda rows: rows[0].__setitem__(2, 77)), "bins"),
        (constants(lambda rows: rows.clear()), "constants"),
        (lie(model, primitives=lambda rows: rows[0].__setitem__(0, "frobnicate")), "frobnicate.*newer"),
        (lie(model, primitives=lambda rows: rows[0].__setitem__(1, 99)), "version 99"),
        (lie(model, primitives=lambda rows: rows[0].__setitem__(2, ["x", "y"])), "parameters"),
        (lie(model, dims=lambda rows: rows[0].__setitem__(1, 100)), "dims"),
        (lie(model, functions=lambda rows: rows[0]["traces"].clear()), "no traces"),
        (trace("graph", 10**6), "reference to graph"),
        (trace("in_tree", ["list", []]), "tree"),
        (lie(model, functions=lambda rows: rows.append(rows[0])), "2 functions"),
        (lie(model, tests=lambda rows: rows[0].__setitem__("trace", 1)), "no trace 1"),
        (lie(model, tests=lambda rows: rows[0].__setitem__("rtol", -1.0)), "tolerances"),
        (lie(model, tests=lambda rows: rows[0].__setitem__("inputs", list(column([0, 1])))), "tests"),
    ]  # fmt: skip
    for data, reason in cases:
        with pytest.raises(FormatError, match=reason):
            mx.import_function(io.BytesIO(data))


def test_missing_sections(model):
    for name in ("constants", "dims", "functions", "graphs", "primitives"):
        with pytest.raises(FormatError, match=f"'{name}' is missing"):
            mx.import_function(io.BytesIO(rebuilt(model, lambda sections, name=name: sections.pop(name))))
    for name in ("metadata", "producer", "sources", "tests"):
        data = rebuilt(model, lambda sections, name=name: sections.pop(name))
        for a, b in zip(run(data), run(model), strict=True):
            assert np.array_equal(a, b)


def test_nesting_bomb(model):
    def bomb(rows):
        value: list = []
        for _ in range(62):
            value = [value]
        rows[-1]["params"].append(value)

    with pytest.raises((FormatError, ValueError)):
        mx.import_function(io.BytesIO(lie(model, graphs=bomb)))


def test_huge_claims_allocate_little(model):
    """Sizes of terabytes in types and parameters cost nothing before the arrays are made."""

    def huge(rows):
        for row in rows:
            row["types"] = [[dtype, [2**40 if n == 8 else n for n in shape]] for dtype, shape in row["types"]]

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError):
        mx.import_function(io.BytesIO(lie(model, graphs=huge)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_long_extents(model):
    """Parsing symbolic extents takes more than linear time, so their length is bounded."""
    text = "max(" + ",".join(f"B+{i}" for i in range(9000)) + ")"

    def bomb(rows):
        rows[0]["types"] += [["f32", [text]]] * 20

    start = time.perf_counter()
    with pytest.raises(FormatError, match="longer than"):
        mx.import_function(io.BytesIO(lie(model, graphs=bomb)))
    assert time.perf_counter() - start < 1


def test_booleans_other_than_0_and_1():
    mask = mx.array(np.array([True, False] * 40))
    mx.eval(mask)
    data = bytearray(exported(lambda x: mx.where(mask, x, 0.0), mx.ones(80)))
    start = data.index(bytes([1, 0] * 40))
    data[start] = 2
    bad = rebuilt_payload(bytes(data))
    with pytest.raises(FormatError, match="booleans"):
        np.array(mx.import_function(io.BytesIO(bad))(mx.ones(80))[0])


def rebuilt_payload(data: bytes) -> bytes:
    """The file with the checksums of its payloads computed again."""
    header, end = header_of(data)
    base = struct.unpack_from("<Q", data, 22)[0]
    table = msgpack.unpackb(header["bins"][1])
    offsets = np.frombuffer(table["offset"][1], f"<u{table['offset'][0]}").tolist()
    lengths = np.frombuffer(table["length"][1], f"<u{table['length'][0]}").tolist()
    blobs = container.Blobs()
    for offset, length in zip(offsets, lengths, strict=True):
        blobs.add(data[base + offset : base + offset + length])
    sections = {
        name: container.Section(raw, critical) for name, (critical, raw) in header.items() if name != "bins"
    }
    return b"".join(bytes(piece) for piece in container.assemble(sections, blobs))


def test_a_subgraph_cannot_lean_on_the_guards_around_it():
    """Its dims are bound by whoever calls it: memory safety must follow from its own guards."""
    b, c = Dim("B"), Dim("C")
    inputs = (Aval((b,), dtypes.float32), Aval((c,), dtypes.float32))
    equal = [dims.Guard("eq", b, c)]
    inner = GraphBuilder("inner", inputs, ("x", "y"), equal)
    body = inner.finish(inner.add(registry["add"](), (0, 1)))
    outer = GraphBuilder("outer", inputs, ("x", "y"), equal)
    graph = outer.finish(outer.add(registry["call"](body, "compiled"), (0, 1)))
    leaves = Tree("tuple", (Tree("tuple", (Tree("leaf"), Tree("leaf"))), Tree("dict")))
    encoder = Encoder()
    encoder.functions.append(Function("outer", (Trace(graph, leaves, Tree("leaf")),)))
    file = io.BytesIO()
    container.write(file, encoder.sections("test"), encoder.blobs)
    x = mx.array([1.0, 2.0])
    assert mx.import_function(io.BytesIO(file.getvalue()))(x, x)[0].tolist() == [2.0, 4.0]
    with pytest.raises(FormatError, match="inner"):
        unguarded = lie(file.getvalue(), graphs=lambda rows: rows[0].__setitem__("guards", []))
        mx.import_function(io.BytesIO(unguarded))
