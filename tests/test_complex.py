"""Complex arrays: parts, moduli, gradients in MLX's convention (d/d real part + i d/d imaginary part)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ingot as mx

sys.path.insert(0, str(Path(__file__).parent))

from complex_gradients import check_gradient  # noqa: E402

Z = np.array([[0.7 + 0.4j, -1.2 + 0.3j, 0.1 - 0.8j], [1.5 - 0.2j, 0.4 + 0.9j, -0.6 - 0.5j]], np.complex64)
W = np.array([[0.2 - 0.9j, 1.1 + 0.5j, -0.3 + 0.6j], [0.8 + 0.1j, -0.7 + 0.2j, 0.5 - 1.0j]], np.complex64)

UNARY = (
    "exp log sqrt rsqrt square sin cos tan sinh cosh tanh reciprocal negative log1p expm1 sigmoid abs".split()
)
BINARY = "add subtract multiply divide power".split()


@pytest.mark.parametrize("name", [*UNARY, "real", "imag", "conj", "sign"])
def test_gradients_of_functions(name: str) -> None:
    check_gradient(getattr(mx, name), Z)


@pytest.mark.parametrize("name", BINARY)
def test_gradients_of_both_operands(name: str) -> None:
    op = getattr(mx, name)
    check_gradient(lambda x: op(x, mx.array(W)), Z)
    check_gradient(lambda x: op(mx.array(W), x), Z)


def test_gradients_of_products() -> None:
    check_gradient(lambda x: x @ mx.array(W.T), Z)
    check_gradient(lambda x: mx.array(W.T) @ x, Z)
    check_gradient(lambda x: mx.prod(x, axis=1), Z)
    check_gradient(lambda x: mx.sum(x * x, axis=0), Z)
    check_gradient(lambda x: mx.where(mx.real(x) > 0, x, x * 1j), Z)


def test_parts() -> None:
    z = mx.array(Z)
    assert np.array_equal(np.array(mx.real(z)), Z.real) and np.array_equal(np.array(z.imag), Z.imag)
    assert np.array_equal(np.array(z.conj()), Z.conj()) and mx.abs(z).dtype is mx.float32
    x = mx.array([1, 2], mx.int8)
    for fn in (mx.real, mx.imag, mx.conjugate):
        assert fn(x).dtype is mx.int8
    assert mx.imag(x).tolist() == [0, 0]
    assert mx.grad(lambda z: mx.abs(z))(mx.array(0j)).item() == 0
    assert mx.abs(mx.array(3e30 + 4e30j)).item() == pytest.approx(5e30)
    assert mx.imag(mx.array(complex(np.inf, 2))).item() == 2


def test_compiled_is_native() -> None:
    def fn(z: Any) -> Any:
        return mx.abs(mx.conj(z) * 2) + mx.imag(z)

    np.testing.assert_allclose(np.array(mx.compile(fn)(mx.array(Z))), np.array(fn(mx.array(Z))), rtol=1e-6)


@pytest.mark.peers
@pytest.mark.parametrize(
    "name", ["exp", "log", "sin", "square", "abs", "real", "imag", "conj", "sqrt", "tanh"]
)
def test_gradients_as_in_mlx(name: str) -> None:
    mlx = pytest.importorskip("mlx.core")

    def loss(m: Any) -> Any:
        def fn(z: Any) -> Any:
            y = getattr(m, name)(z)
            return m.sum(m.real(y) * 2 + m.imag(y) * 3)

        return fn

    theirs = np.array(mlx.grad(loss(mlx))(mlx.array(Z)))
    np.testing.assert_allclose(np.array(mx.grad(loss(mx))(mx.array(Z))), theirs, rtol=1e-4, atol=1e-5)
