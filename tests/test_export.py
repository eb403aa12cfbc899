"""Export and import of functions: call forms, dynamic shapes, guards, constants, transforms, errors."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

import ingot as mx
from ingot import Dim
from ingot.format.container import open_container
from ingot.format.summary import read_summary
from ingot.tracer import dtypes
from ingot.tracer.graph import Constant


@pytest.fixture
def path(tmp_path):
    return tmp_path / "f.ingot"


def roundtrip(fun, *args, **kwargs):
    file = io.BytesIO()
    mx.export_function(file, fun, *args, **kwargs)
    file.seek(0)
    return mx.import_function(file)


def rand(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


# Calling


def test_several_outputs_and_passed_through_values():
    constant = rand(3)
    mx.eval(constant)
    fun = roundtrip(lambda x, y: [x + y, x, constant, mx.sum(y)], rand(3), rand(3, seed=1))
    x, y = rand(3, seed=2), rand(3, seed=3)
    for found, expected in zip(fun(x, y), (x + y, x, constant, mx.sum(y)), strict=True):
        assert np.allclose(found, expected)


def test_nested_arguments():
    def fun(params, x, *, extra):
        return params["w"] * x + params["b"][0], extra[1]

    params = {"w": rand(3), "b": [rand(3, seed=1)]}
    imported = roundtrip(fun, params, rand(3), extra=(rand(2), rand(2, seed=5)))
    swapped = {"b": [rand(3, seed=7)], "w": rand(3, seed=8)}  # order of keys does not matter
    found = imported(swapped, rand(3), extra=(rand(2), rand(2, seed=6)))
    expected = fun(swapped, rand(3), extra=(rand(2), rand(2, seed=6)))
    assert all(np.allclose(a, b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(ValueError, match="nested differently"):
        imported(swapped, rand(3), extra=[rand(2), rand(2)])


def test_a_keyword_argument_may_be_none():
    imported = roundtrip(lambda x, y=None: x if y is None else x + y, rand(3), y=None)
    assert np.allclose(imported(rand(3), y=None)[0], rand(3))
    with pytest.raises(ValueError):
        imported(rand(3), y=rand(3))


def test_numpy_arguments_and_dtypes():
    imported = roundtrip(lambda x: x * 2, rand(3))
    (out,) = imported(np.arange(3, dtype=np.float32))
    assert isinstance(out, mx.array) and out.tolist() == [0.0, 2.0, 4.0]
    double = roundtrip(lambda x: x * 2, mx.array(np.zeros(3), dtype=mx.float64))
    (out,) = double(np.full(3, 0.1))
    assert out.dtype == mx.float64 and out.tolist() == [0.2, 0.2, 0.2]


@pytest.mark.parametrize("bad", [1.0, "x", object()])
def test_leaves_must_be_arrays(bad):
    with pytest.raises(ValueError, match=r"\[export_function\] Inputs must be arrays"):
        roundtrip(lambda x: x, bad)
    with pytest.raises(ValueError, match="Inputs must be arrays"):
        roundtrip(lambda x: x, rand(3))(bad)


@pytest.mark.parametrize("result", [None, {"a": 1}, 3.0, (), [None]])
def test_outputs_must_be_arrays(result):
    with pytest.raises(ValueError, match=r"must return an array or a tuple or list of arrays"):
        roundtrip(lambda x: result, rand(3))


def test_functions_without_arguments():
    assert roundtrip(lambda: mx.zeros((2, 2)))()[0].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_lazy_arguments_record_and_evaluated_ones_run():
    imported = roundtrip(lambda x: mx.exp(x) + 1, rand(3))
    lazy = rand(3) * 2
    (out,) = imported(lazy)
    assert np.allclose(out, np.exp(np.array(lazy)) + 1)
    ready = rand(3)
    mx.eval(ready)
    (out,) = imported(ready)
    assert np.allclose(out, np.exp(np.array(ready)) + 1)


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda dtype: dtype.name)
def test_every_dtype(dtype):
    values = np.array([[0, 1, 2], [3, 1, 0]])
    constant = mx.array(values).astype(dtype)
    mx.eval(constant)
    imported = roundtrip(lambda x: (x, constant, mx.where(x == x, constant, x)), constant)
    for out in imported(constant):
        assert out.dtype == dtype and out.tolist() == constant.tolist()


# Constants


def test_constants_are_shared_between_traces_and_by_content(path):
    weight = rand(300, 300)
    twin = mx.array(np.array(weight))
    mx.eval(weight, twin)

    def fun(x):
        return x @ weight + twin[0]

    with mx.exporter(path, fun) as export:
        export(rand(2, 300))
        export(rand(4, 300))
    assert os.path.getsize(path) < 1.5 * weight.nbytes
    imported = mx.import_function(path)
    for n in (2, 4):
        assert np.allclose(imported(rand(n, 300))[0], fun(rand(n, 300)), atol=1e-4)


def test_exports_are_reproducible(path):
    weight = rand(64, 64)
    mx.eval(weight)
    files = []
    for _ in range(2):
        mx.export_function(
            path, lambda x: mx.tanh(x @ weight), rand(2, 64), metadata={"b": 1, "a": [2.5, None]}
        )
        files.append(path.read_bytes())
    assert files[0] == files[1]


def test_later_changes_do_not_reach_the_file(path):
    weight = mx.array(np.ones(100, np.float32))
    view = np.asarray(weight)
    mx.export_function(path, lambda x: x + weight, rand(100))
    if view.flags.writeable:
        view[:] = 7
    (out,) = mx.import_function(path)(mx.zeros(100))
    assert np.all(np.asarray(out) == 1)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("verify", ["use", "open"])
def test_ways_to_read(path, mmap, verify):
    weight = rand(2000)
    mx.eval(weight)
    mx.export_function(path, lambda x: x * weight, rand(2000))
    (out,) = mx.import_function(path, mmap=mmap, verify=verify)(mx.ones(2000))
    assert np.allclose(out, weight)
    with pytest.raises(ValueError, match="verify"):
        mx.import_function(path, verify="never")


def test_results_do_not_write_through_to_the_file(path):
    weight = rand(5000)
    mx.eval(weight)
    mx.export_function(path, lambda x: (weight, x), mx.array(0.0))
    before = path.read_bytes()
    out, _ = mx.import_function(path)(mx.array(0.0))
    out[0] = 5.0
    view = np.asarray(out)
    if view.flags.writeable:
        view[1] = 6.0
    mx.eval(out)
    assert path.read_bytes() == before


def test_metadata(path):
    mx.export_function(path, mx.abs, rand(3), metadata="some text")
    assert mx.import_function(path, return_metadata=True)[1] == "some text"
    mx.export_function(path, mx.abs, rand(3))
    assert mx.import_function(path, return_metadata=True)[1] == ""
    with pytest.raises(ValueError, match="metadata"):
        mx.export_function(print, mx.abs, rand(3), metadata="x")
    with pytest.raises(TypeError, match="metadata.*object"):
        mx.export_function(path, mx.abs, rand(3), metadata=object())
    with pytest.raises(ValueError, match="metadata.*64 bits"):
        mx.export_function(path, mx.abs, rand(3), metadata=2**64)
    with pytest.raises(ValueError, match="metadata.*maps"):
        mx.export_function(path, mx.abs, rand(3), metadata=[{}] * 10**5)
    deep: list = []
    for _ in range(70):
        deep = [deep]
    with pytest.raises(ValueError, match="metadata.*deep"):
        mx.export_function(path, mx.abs, rand(3), metadata=deep)


# Dynamic shapes


def test_dims_by_name_position_and_tuple():
    def fun(x, y):
        return x @ y

    B = Dim("B", max=1000)
    for dynamic in ({"x": {0: B}}, ({0: B}, None), {"x": (B, None), "y": None}, ((B, 4),), {"x": {-2: B}}):
        imported = roundtrip(fun, rand(3, 4), rand(4, 2), dynamic_shapes=dynamic)
        for n in (0, 1, 2, 17, 1000):
            (out,) = imported(rand(n, 4), rand(4, 2))
            assert out.shape == (n, 2)
            assert np.allclose(out, np.array(rand(n, 4)) @ np.array(rand(4, 2)), atol=1e-5)
        with pytest.raises(ValueError, match=r"B.*1000.*1001|1001.*B.*1000"):
            imported(rand(1001, 4), rand(4, 2))
        with pytest.raises(ValueError):
            imported(rand(3, 5), rand(4, 2))


def test_dims_of_keywords_and_nested_arguments():
    B = Dim("B")
    imported = roundtrip(
        lambda p, *, k: p["a"] + k, {"a": rand(3), "b": rand(2)}, k=rand(3),
        dynamic_shapes={"p": {"a": (B,)}, "k": {0: B}},
    )  # fmt: skip
    assert imported({"a": rand(5), "b": rand(2)}, k=rand(5))[0].shape == (5,)
    with pytest.raises(ValueError, match="B"):
        imported({"a": rand(5), "b": rand(2)}, k=rand(4))


def test_derived_dims():
    B = Dim("B", min=1, max=64)
    imported = roundtrip(
        lambda x, y: mx.concatenate([x, y[:-1]]),
        rand(4),
        rand(9),
        dynamic_shapes={"x": (B,), "y": (2 * B + 1,)},
    )
    assert imported(rand(5), rand(11))[0].shape == (15,)
    with pytest.raises(ValueError):
        imported(rand(5), rand(12))


def test_range_and_multiple():
    B = Dim("B", min=2, max=64, multiple_of=8)
    imported = roundtrip(lambda x: x + 1, rand(16), dynamic_shapes=({0: B},))
    assert imported(rand(24))[0].shape == (24,)
    for n in (0, 4, 20, 72):
        with pytest.raises(ValueError, match="B"):
            imported(rand(n))


def test_the_size_of_an_axis_as_a_value():
    imported = roundtrip(lambda x: (x / x.shape[0], mx.mean(x)), rand(3), dynamic_shapes=({0: Dim("B")},))
    for n in (1, 5, 8):
        scaled, mean = imported(rand(n))
        assert np.allclose(scaled, np.array(rand(n)) / n)
        assert np.allclose(mean, np.array(rand(n)).mean(), atol=1e-6)


def test_specialisations_are_errors_that_list_lines():
    B, C = Dim("B"), Dim("C")

    def fun(x, y):
        if x.shape[0] > 3:
            x = x + 1
        return x + y

    with pytest.raises(ValueError) as caught:
        roundtrip(fun, rand(4), rand(4), dynamic_shapes=({0: B}, {0: C}))
    message = str(caught.value)
    line = fun.__code__.co_firstlineno
    assert f"test_export.py:{line + 1}" in message and f"test_export.py:{line + 3}" in message
    assert "B > 3" in message and ("B == C" in message or "C == B" in message)


def test_specialisation_by_int():
    def fun(x):
        return mx.zeros(int(x.shape[0])) + x

    with pytest.raises(ValueError, match="B == 4"):
        roundtrip(fun, rand(4), dynamic_shapes=({0: Dim("B")},))


@pytest.mark.parametrize(
    "dynamic, message",
    [
        ("B", "dict by argument name or a tuple"),
        ({"z": {0: Dim("B")}}, "z"),
        (({0: Dim("B")},) * 3, "3 entries for 1"),
        (({1: Dim("B")},), "no axis 1"),
        (({0: "B"},), "Dim, None or int"),
        (((Dim("B"), None),), "1 entries"),
        (({0: 5},), "5"),
        (({0: Dim("B", min=10)},), "B"),
        (({0: Dim("B") * Dim("C")},), "determine"),
    ],
)
def test_malformed_dynamic_shapes(dynamic, message):
    with pytest.raises(ValueError, match=message) as caught:
        roundtrip(lambda x: x + 1, rand(4), dynamic_shapes=dynamic)
    assert "[export_function]" in str(caught.value)


def test_two_dims_of_one_name():
    with pytest.raises(ValueError, match="two dims"):
        roundtrip(lambda x: x, rand(4, 4), dynamic_shapes=((Dim("B"), Dim("B", max=8)),))


def test_samples_that_disagree():
    B = Dim("B")
    with pytest.raises(ValueError, match="sample inputs"):
        roundtrip(lambda x, y: x, rand(4), rand(5), dynamic_shapes=({0: B}, {0: B}))


# Shapeless


def test_shapeless_solves_equalities():
    imported = roundtrip(lambda x, y: mx.sum(x * y, axis=1), rand(2, 3), rand(2, 3), shapeless=True)
    assert np.allclose(
        imported(rand(4, 5), rand(4, 5, seed=1))[0],
        (np.array(rand(4, 5)) * np.array(rand(4, 5, seed=1))).sum(1),
        atol=1e-5,
    )
    with pytest.raises(ValueError):
        imported(rand(4, 5), rand(4, 6))


def test_shapeless_solves_equalities_of_sums():
    def fun(x, y):
        return mx.sum(mx.concatenate([x, x]) * mx.concatenate([x, y]))

    imported = roundtrip(fun, rand(3), rand(3, seed=1), shapeless=True)
    graph = imported.traces[0].graph  # 2 * B == B + C is B == C: one dim, no guard
    assert not graph.guards and len(graph.dims) == 1
    assert np.allclose(imported(rand(5), rand(5, seed=1))[0], fun(rand(5), rand(5, seed=1)), atol=1e-5)
    with pytest.raises(ValueError, match="axis 0"):
        imported(rand(2), rand(3))


def test_shapeless_guards_choose_between_traces(path):
    def fun(x):
        return mx.sum(x[:2]) if x.shape[0] > 3 else mx.sum(x * 10)

    with mx.exporter(path, fun, shapeless=True) as export:
        export(rand(5))
        export(rand(2))
    imported = mx.import_function(path)
    for n in (1, 2, 3, 4, 9):
        assert np.allclose(imported(rand(n))[0], fun(rand(n)), atol=1e-5), n
    mx.export_function(path, fun, rand(5), shapeless=True)
    with pytest.raises(ValueError, match=r"x_0 > 3.*test_export.py"):
        mx.import_function(path)(rand(2))


def test_shapeless_elementwise_takes_any_rank():
    imported = roundtrip(lambda x, y: mx.maximum(x, y) * 2, rand(2), rand(2), shapeless=True)
    for a, b in [((3,), (3,)), ((2, 3), (2, 3)), ((2, 1), (3,)), ((), (4,))]:
        out = imported(rand(*a), rand(*b, seed=1))[0]
        assert np.allclose(out, 2 * np.maximum(np.array(rand(*a)), np.array(rand(*b, seed=1))))
    with pytest.raises(ValueError):
        imported(rand(2), rand(3))


SHAPES = [((3, 1), (4,)), ((3, 1), ()), ((), (4,)), ((0,), (2, 1))]


@pytest.mark.parametrize("sample", [((), ()), ((2,), (1,)), ((2, 3), (3,)), ((2, 1), (1, 3))])
@pytest.mark.parametrize("shapes", SHAPES)
def test_transforms_of_functions_of_any_rank(sample, shapes):
    def fun(x, y):
        return mx.where(x > y, mx.sin(x) * y, x * x + 2.0)

    def inner(x, y):
        return imported(x, y)[0]

    imported = roundtrip(fun, rand(*sample[0]), rand(*sample[1]), shapeless=True)
    assert imported.traces[0].any_rank
    x, y = rand(*shapes[0]), rand(*shapes[1], seed=1)

    def same(transform, *args):
        for found, expected in zip(transform(inner)(*args), transform(fun)(*args), strict=True):
            assert found.shape == expected.shape and np.allclose(found, expected, atol=1e-5)

    same(lambda f: lambda *a: [f(*a), mx.compile(f)(*a)], x, y)
    same(lambda f: mx.grad(lambda *a: mx.sum(f(*a)), argnums=(0, 1)), x, y)
    same(lambda f: lambda *a: mx.jvp(f, a, a)[1], x, y)
    if x.ndim and x.shape[0]:
        same(lambda f: lambda *a: [mx.vmap(f, in_axes=(0, None))(*a)], x, y)
        same(lambda f: mx.vmap(mx.grad(lambda *a: mx.sum(f(*a)), argnums=(0, 1)), in_axes=(0, None)), x, y)
    again = roundtrip(inner, x, y, shapeless=True)
    same(lambda f: again if f is inner else lambda *a: [f(*a)], rand(2, 5), rand(5))


@pytest.mark.parametrize("fun", [
    lambda x: x * 2 if x.shape[0] > 2 else x,
    lambda x: x if x.shape[0] != 3 else x * 2,
    lambda x: x * int(x.shape[0]),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*used as a number")
def test_elementwise_functions_that_look_at_sizes_keep_their_guards(fun):
    imported = roundtrip(fun, rand(3), shapeless=True)
    assert not imported.traces[0].any_rank
    assert np.allclose(imported(rand(3))[0], fun(rand(3)))
    for shape in ((2,), (3, 3)):
        with pytest.raises(ValueError, match="cannot take"):
            imported(rand(*shape))


def test_shapeless_with_an_extent_used_as_a_number():
    def fun(x):
        return mx.zeros(int(x.shape[0])) + mx.sum(x, axis=1)

    with pytest.warns(UserWarning, match="used as a number.*test_export.py"):
        imported = roundtrip(fun, rand(4, 3), shapeless=True)
    assert imported(rand(4, 7))[0].shape == (4,)
    with pytest.raises(ValueError):
        imported(rand(5, 3))


def test_shapeless_and_dims_exclude_each_other():
    with pytest.raises(ValueError, match="either"):
        roundtrip(lambda x: x, rand(3), shapeless=True, dynamic_shapes=({0: Dim("B")},))


# Exporter


def test_the_same_signature_twice(path):
    with mx.exporter(path, mx.abs) as export:
        export(rand(3))
        with pytest.raises(RuntimeError, match=r"exported before: .*f32\[3\]"):
            export(rand(3))
    assert len(read_summary(path)["functions"][0]["traces"]) == 1


def test_an_exception_writes_nothing(path):
    path.write_bytes(b"old")
    with pytest.raises(KeyError):
        with mx.exporter(path, mx.abs) as export:
            export(rand(3))
            raise KeyError("stop")
    assert path.read_bytes() == b"old" and os.listdir(path.parent) == [path.name]


def test_exporters_end(path):
    export = mx.exporter(path, mx.abs)
    export(rand(3))
    assert not path.exists()
    export.close()
    assert path.exists()
    with pytest.raises(RuntimeError):
        export(rand(4))
    with pytest.raises(ValueError, match="nothing to write"):
        with mx.exporter(path, mx.abs):
            pass


def test_unwritable_places(tmp_path):
    missing = tmp_path / "no" / "f.ingot"
    with pytest.raises(FileNotFoundError) as caught:
        mx.export_function(missing, mx.abs, rand(3))
    assert caught.value.filename == str(missing) and ".partial" not in str(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"file/f\.ingot'$"):
        mx.export_function(tmp_path / "file" / "f.ingot", mx.abs, rand(3))
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder'$"):
        mx.export_function(tmp_path / "folder", mx.abs, rand(3))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_native_code_is_refused_until_there_is_some(path):
    with pytest.raises(ValueError, match="native"):
        mx.export_function(path, mx.abs, rand(3), native="host")


def test_examples_are_stored_and_checked(path):
    weight = rand(4, 3)
    mx.eval(weight)

    def fun(x, *, k):
        return mx.tanh(x @ weight) * k, x[0]

    with mx.exporter(path, fun, dynamic_shapes={"x": {0: Dim("B", min=1)}}) as export:
        export(rand(2, 4), k=mx.array(2.0))
        export.example(rand(5, 4), k=mx.array(0.5))
        export.example((rand(1, 4),), {"k": mx.array(3.0)}, rtol=0.0, atol=1e-6)
        with pytest.raises(ValueError, match="cannot take"):
            export.example(rand(5, 3), k=mx.array(0.5))
    imported = mx.import_function(path)
    assert read_summary(path)["examples"] == len(imported.examples) == 2
    for example in imported.examples:
        assert len(imported.check(example)) == 2 and max(imported.check(example)) <= 1
    first = imported.examples[0]
    assert np.array_equal(first.inputs[0].data, rand(5, 4)) and first.rtol == 1e-4
    wrong = Constant(first.outputs[0].data + np.float32(0.01), first.outputs[0].aval)
    assert imported.check(replace(first, outputs=(wrong, first.outputs[1])))[0] > 1
    assert imported.check(replace(first, outputs=(first.outputs[1], first.outputs[1])))[0] == np.inf


# Transforms of imported functions


def test_grad_vmap_compile_and_nesting():
    weight = rand(3, 3)
    mx.eval(weight)

    def fun(x):
        return mx.sum(mx.tanh(x @ weight))

    imported = roundtrip(fun, rand(3))
    x, batch = rand(3), rand(5, 3)

    def loaded(x):
        return imported(x)[0]

    assert np.allclose(mx.grad(loaded)(x), mx.grad(fun)(x), atol=1e-5)
    assert np.allclose(mx.vmap(loaded)(batch), mx.vmap(fun)(batch), atol=1e-5)
    assert np.allclose(mx.compile(mx.vmap(mx.grad(loaded)))(batch), mx.vmap(mx.grad(fun))(batch), atol=1e-5)
    again = roundtrip(loaded, x)
    assert np.allclose(again(x)[0], fun(x), atol=1e-5)


def test_transforms_of_dynamic_functions():
    B = Dim("B", min=1)
    imported = roundtrip(lambda x: mx.mean(x * x), rand(4), dynamic_shapes=({0: B},))
    for n in (3, 6):
        x = rand(n)
        assert np.allclose(mx.grad(lambda x: imported(x)[0])(x), 2 * np.array(x) / n, atol=1e-6)
    again = roundtrip(lambda y: imported(y)[0] + 1, rand(5), dynamic_shapes=({0: Dim("N", min=2)},))
    assert np.allclose(again(rand(7))[0], np.mean(np.array(rand(7)) ** 2) + 1, atol=1e-5)
    with pytest.raises(ValueError, match="N|leave"):
        roundtrip(lambda y: imported(y)[0], rand(5), dynamic_shapes=({0: Dim("N")},))


def test_exporting_transforms():
    grad = roundtrip(mx.grad(lambda x: mx.sum(mx.sin(x))), rand(4))
    assert np.allclose(grad(rand(4))[0], np.cos(np.array(rand(4))), atol=1e-6)
    compiled = roundtrip(mx.compile(lambda x: mx.exp(x) * 2), rand(4))
    assert np.allclose(compiled(rand(4))[0], 2 * np.exp(np.array(rand(4))), atol=1e-5)


def test_control_flow_is_exported():
    def fun(x):
        return mx.while_loop(lambda v: mx.sum(v) < 100, lambda v: v * 2, x)

    imported = roundtrip(fun, mx.array([1.0, 2.0]))
    assert np.allclose(imported(mx.array([3.0, 5.0]))[0], [48.0, 80.0])


# Scope and summaries


def test_scopes_and_source_lines_survive(path):
    mx.export_function(path, lambda x: mx.exp(x) + 1, rand(3))
    graph = mx.import_function(path).traces[0].graph
    assert all(node.location is None or node.location.file.endswith("test_export.py") for node in graph.nodes)
    assert any(node.location is not None for node in graph.nodes)


def test_summary_needs_no_weights(path):
    weight = rand(600, 600)
    mx.eval(weight)
    mx.export_function(
        path, lambda x: x @ weight, rand(2, 600), dynamic_shapes=({0: Dim("B", max=8)},), metadata={"k": 1}
    )
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    summary = read_summary(path)
    (trace,) = summary["functions"][0]["traces"]
    assert trace["inputs"] == [{"name": "x", "type": "f32[B,600]"}]
    assert trace["outputs"] == ["f32[B,600]"]
    assert summary["dims"] == [{"name": "B", "min": 0, "max": 8, "multiple_of": 1}]
    assert summary["metadata"] == {"k": 1}
    assert summary["constants"] == [{"type": "f32[600,600]", "bytes": 1440000}]
    imported = mx.import_function(path)  # nor does importing
    with pytest.raises(mx.FormatError, match="checksum"):
        mx.eval(imported(rand(2, 600)))
    with pytest.raises(mx.FormatError, match="checksum"):
        mx.import_function(path, verify="open")


def test_a_fresh_process_runs_the_file(path):
    weight = rand(64, 64)
    mx.eval(weight)
    mx.export_function(path, lambda x: mx.tanh(x @ weight), rand(2, 64), dynamic_shapes=({0: Dim("B")},))
    expected = float(np.sum(np.tanh(np.ones((3, 64)) @ np.array(weight))))
    code = (
        "import sys, ingot as mx\n"
        "from ingot.format.summary import read_summary\n"
        f"read_summary({str(path)!r})\n"
        "assert not any(m.split('.')[0] in ('llvmlite', 'ml_dtypes', 'safetensors') for m in sys.modules)\n"
        f"print(mx.sum(mx.import_function({str(path)!r})(mx.ones((3, 64)))[0]).item())\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert np.isclose(float(found.stdout), expected, rtol=1e-4)


def test_warnings_are_rare(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mx.export_function(path, lambda x: mx.sum(x), rand(3), dynamic_shapes=({0: Dim("B")},))
    assert open_container(path).bin_count == 0


# Callbacks


def told(m, fun, *args, **kwargs):
    """What a callback of `m` (ingot, or the real mlx.core) receives, with dtypes and arrays as plain data."""

    def plain(value):
        if isinstance(value, m.Dtype):
            return str(value).rpartition(".")[2].rstrip("_")
        if isinstance(value, m.array):
            return plain(value.dtype), value.tolist()
        if isinstance(value, list | tuple):
            return type(value)(plain(item) for item in value)
        return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value

    seen: list = []
    m.export_function(lambda entry: seen.append(plain(entry)), fun, *args, **kwargs)
    return seen


CALLBACKS = {
    "add": (lambda m: lambda x, y: x + y, [(2, 3), (2, 3)]),
    "scalars": (lambda m: lambda x: 2 * x + 1.5 * x, [(2, 3)]),
    "broadcast": (lambda m: lambda x, y: m.exp(x + y) - y, [(2, 3), (3,)]),
    "one broadcast for two": (lambda m: lambda x, y: (x + y) * y, [(2, 3), (3,)]),
    "convert": (lambda m: lambda x: x.astype(m.int32), [(2,)]),
    "unary": (lambda m: lambda x: m.tanh(m.sqrt(m.abs(m.log(m.square(x))))), [(4,)]),
    "rsqrt and logs": (
        lambda m: lambda x: [m.rsqrt(x), m.log2(x), m.log10(x), m.log1p(x), m.sigmoid(x)],
        [(4,)],
    ),
    "trigonometry": (lambda m: lambda x: [m.sin(x), m.arcsin(x), m.arctan2(x, x), m.arcsinh(x)], [(4,)]),
    "compare": (lambda m: lambda x, y: m.where(x < y, x, y), [(4,), (4,)]),
    "min max": (lambda m: lambda x, y: m.maximum(x, m.minimum(y, x)), [(4,), (4,)]),
    "sum": (lambda m: lambda x: m.sum(x), [(2, 3)]),
    "sum axis": (lambda m: lambda x: m.sum(x, axis=1), [(2, 3)]),
    "keepdims": (lambda m: lambda x: m.max(x, axis=0, keepdims=True), [(2, 3)]),
    "argmax": (lambda m: lambda x: m.argmax(x, axis=1), [(2, 3)]),
    "matmul": (lambda m: lambda x, y: x @ y, [(2, 3), (3, 4)]),
    "matvec": (lambda m: lambda x, y: x @ y, [(2, 3), (3,)]),
    "transpose": (lambda m: lambda x: m.transpose(x, (2, 0, 1)), [(2, 3, 4)]),
    "reshape": (lambda m: lambda x: m.reshape(x, (3, 2)), [(2, 3)]),
    "flatten": (lambda m: lambda x: m.flatten(x), [(2, 3)]),
    "expand": (lambda m: lambda x: m.expand_dims(x, 1), [(2, 3)]),
    "broadcast_to": (lambda m: lambda x: m.broadcast_to(x, (2, 3)), [(3,)]),
    "slice": (lambda m: lambda x: x[0:1, ::2], [(2, 3)]),
    "concatenate": (lambda m: lambda x, y: m.concatenate([x, y], axis=1), [(2, 3), (2, 1)]),
    "outputs": (lambda m: lambda x: [x, m.exp(x), x], [(3,)]),
    "keywords": (lambda m: lambda x, **k: k["b"] * x + k["a"], [(3,)], {"b": (3,), "a": (3,)}),
    "gather": (lambda m: lambda x: x[m.array([1, 0])], [(2, 3)]),
    "take": (lambda m: lambda x: m.take(x, m.array([1, 0]), axis=1), [(2, 3)]),
    "random": (lambda m: lambda x: x * m.random.split(m.random.key(0)), [(2, 2)]),
    "softmax": (lambda m: lambda x: m.softmax(x), [(2, 3)]),
    "gradient": (lambda m: m.grad(lambda x: m.sin(x).sum()), [(3,)]),
    "compiled": (lambda m: m.compile(lambda x: m.sin(x) + 1), [(3,)]),
}


def example(m, case):
    make, shapes, *keywords = case
    kwargs = {key: m.zeros(shape) for key, shape in (keywords[0] if keywords else {}).items()}
    return told(m, make(m), *[m.zeros(shape) for shape in shapes], **kwargs)


@pytest.mark.peers
@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_hear_what_mlx_says(name):
    mlx = pytest.importorskip("mlx.core")
    assert example(mx, CALLBACKS[name]) == example(mlx, CALLBACKS[name])


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_hear_a_consistent_graph(name):
    seen = example(mx, CALLBACKS[name])
    kinds = [entry["type"] for entry in seen]
    assert kinds[:4] == ["inputs", "keyword_inputs", "outputs", "constants"] and set(kinds[4:]) <= {
        "primitive"
    }
    known = {name: rest for name, *rest in seen[0]["inputs"]}
    known |= {name: [np.shape(value[1]), value[0]] for name, value in seen[3]["constants"]}
    for entry in seen[4:]:
        for name, *rest in entry["inputs"]:
            assert [tuple(rest[0]), rest[1]] == [tuple(known[name][0]), known[name][1]]
        for name, *rest in entry["outputs"]:
            assert name not in known
            known[name] = rest
    assert all(known[name] == rest for name, *rest in seen[2]["outputs"])


def test_callbacks_hear_control_flow():
    seen = told(mx, lambda x: mx.while_loop(lambda v: mx.sum(v) < 9, lambda v: v * 2, x), mx.ones((3,)))
    (loop,) = [entry for entry in seen if entry.get("name") == "WhileLoop"]
    assert [part["type"] for part in loop["arguments"][0]][:2] == ["inputs", "keyword_inputs"]
