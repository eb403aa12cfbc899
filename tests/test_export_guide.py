"""The examples of MLX's guide to exporting functions, one by one."""

from __future__ import annotations

import numpy as np
import pytest

import ingot as mx
from ingot import nn
from ingot.utils import tree_flatten, tree_unflatten


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "fun.mlxfn")


def add(x, y):
    return x + y


def test_basics(path):
    x, y = mx.array(1.0), mx.array(1.0)
    mx.export_function(path, add, x, y)
    add_fun = mx.import_function(path)
    (out,) = add_fun(mx.array(1.0), mx.array(2.0))
    assert str(out) == "array(3, dtype=float32)"
    (out,) = add_fun(mx.array(1.0), mx.array(3.0))
    assert str(out) == "array(4, dtype=float32)"
    with pytest.raises(
        ValueError, match=r"(?s)given: *\(i32\[\], f32\[\]\).*expected: *\(x: f32\[\], y: f32\[\]\)"
    ):
        add_fun(mx.array(1), mx.array(3.0))
    with pytest.raises(ValueError, match=r"(?s)given: *\(f32\[2\], f32\[\]\)"):
        add_fun(mx.array([1.0, 2.0]), mx.array(3.0))


def test_positional_or_tuple(path):
    x, y = mx.array(1.0), mx.array(1.0)
    mx.export_function(path, add, x, y)
    with open(path, "rb") as file:
        first = file.read()
    mx.export_function(path, add, (x, y))
    with open(path, "rb") as file:
        assert file.read() == first
    imported_fun = mx.import_function(path)
    for (out,) in (imported_fun(x, y), imported_fun((x, y))):
        assert out.item() == 2.0


def test_keyword_arguments(path):
    x, y = mx.array(1.0), mx.array(1.0)
    mx.export_function(path, add, x, y=y)
    imported_fun = mx.import_function(path)
    (out,) = imported_fun(x, y=y)
    assert out.item() == 2.0
    (out,) = imported_fun((x,), {"y": y})
    assert out.item() == 2.0
    with pytest.raises(ValueError, match="positional"):
        imported_fun(x, y)
    with pytest.raises(ValueError, match=r"\['y'\], got \['z'\]"):
        imported_fun(x, z=y)


def test_module_with_its_parameters(path):
    model = nn.Linear(4, 4)
    mx.eval(model.parameters())

    def call(x):
        return model(x)

    mx.export_function(path, call, mx.zeros(4))
    x = mx.array([1.0, 2.0, 3.0, 4.0])
    (out,) = mx.import_function(path)(x)
    assert np.allclose(out, call(x))


def test_module_whose_parameters_are_not_evaluated(path):
    """The exported function then includes the random initialisation."""
    from ingot.format.summary import read_summary

    mx.random.seed(3)
    lazy = nn.Linear(4, 4)
    mx.export_function(path, lambda x: lazy(x), mx.zeros(4))
    primitives = read_summary(path)["functions"][0]["traces"][0]["primitives"]
    assert any("random" in name for name in primitives), primitives
    x = mx.array([1.0, 2.0, 3.0, 4.0])
    (out,) = mx.import_function(path)(x)
    assert np.allclose(out, lazy(x), atol=1e-6)


def test_module_without_parameters(path):
    model = nn.Linear(4, 4)
    mx.eval(model.parameters())

    def call(x, **params):
        model.update(tree_unflatten(list(params.items())))
        return model(x)

    params = dict(tree_flatten(model.parameters()))
    expected = np.array(model(mx.ones(4)))
    mx.export_function(path, call, (mx.zeros(4),), params)
    imported = mx.import_function(path)
    (out,) = imported(mx.ones(4), **params)
    assert np.allclose(out, expected)
    doubled = {name: 2 * value for name, value in params.items()}
    (out,) = imported((mx.ones(4),), doubled)
    assert np.allclose(out, 2 * expected)


def test_module_with_flat_destination(path):
    model = nn.Linear(4, 4)
    mx.eval(model.parameters())

    def call(x, **params):
        model.update(tree_unflatten(list(params.items())))
        return model(x)

    params = tree_flatten(model.parameters(), destination={})
    mx.export_function(path, call, (mx.zeros(4),), params)
    (out,) = mx.import_function(path)((mx.ones(4),), params)
    assert out.shape == (4,)


def test_callback():
    def fun(x):
        return x.astype(mx.int32)

    seen = []
    mx.export_function(seen.append, fun, mx.array([1.0, 2.0]))
    assert [entry["type"] for entry in seen] == [
        "inputs",
        "keyword_inputs",
        "outputs",
        "constants",
        "primitive",
    ]
    assert seen[0]["inputs"] == [("A", (2,), mx.float32)]
    assert seen[4] == {
        "type": "primitive",
        "name": "AsType",
        "arguments": [mx.int32],
        "inputs": [("A", (2,), mx.float32)],
        "outputs": [("B", (2,), mx.int32)],
    }


def test_shapeless(path):
    mx.export_function(path, mx.abs, mx.array(0.0), shapeless=True)
    imported_abs = mx.import_function(path)
    (out,) = imported_abs(mx.array(-1.0))
    assert out.item() == 1.0
    (out,) = imported_abs(mx.array([-1.0, -2.0]))
    assert out.tolist() == [1.0, 2.0]


def test_shapeless_of_a_vector(path):
    mx.export_function(path, mx.abs, mx.array([0.0]), shapeless=True)
    imported_abs = mx.import_function(path)
    assert imported_abs(mx.array([-1.0]))[0].tolist() == [1.0]
    assert imported_abs(mx.array([-1.0, -2.0]))[0].tolist() == [1.0, 2.0]


def test_not_shapeless(path):
    mx.export_function(path, mx.abs, mx.array(0.0))
    with pytest.raises(ValueError, match=r"f32\[2\]"):
        mx.import_function(path)(mx.array([-1.0, -2.0]))


def test_several_traces(path):
    def fun(x, y=None):
        constant = mx.array(3.0)
        if y is not None:
            x += y
        return x + constant

    with mx.exporter(path, fun) as exporter:
        exporter(mx.array(1.0))
        exporter(mx.array(1.0), y=mx.array(0.0))
    imported_function = mx.import_function(path)
    (out,) = imported_function(mx.array(1.0))
    assert str(out) == "array(4, dtype=float32)"
    (out,) = imported_function(mx.array(1.0), y=mx.array(1.0))
    assert str(out) == "array(5, dtype=float32)"


def test_transformations(path):
    x = mx.array(0.0)
    mx.export_function(path, mx.sin, x)
    imported_fun = mx.import_function(path)
    dfdx = mx.grad(lambda x: imported_fun(x)[0])
    assert str(dfdx(x)) == "array(1, dtype=float32)"
    compiled_fun = mx.compile(imported_fun)
    assert str(compiled_fun(x)[0]) == "array(0, dtype=float32)"


def test_the_function_of_the_cpp_example(path):
    mx.export_function(path, lambda x, y: mx.exp(x + y), mx.array(1.0), mx.array(1.0))
    (out,) = mx.import_function(path)(mx.array(1.0), mx.array(1.0))
    assert np.allclose(out.item(), np.exp(2.0))
