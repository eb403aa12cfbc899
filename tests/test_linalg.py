"""`ingot.linalg` against NumPy and definitions; `peers`: against the real MLX."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ingot as mx
from ingot import linalg

sys.path.insert(0, str(Path(__file__).parent))

from complex_gradients import check_gradient  # noqa: E402

RANDOM = np.random.default_rng(3)


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(dtype)


def positive(*shape: int) -> np.ndarray:
    x = normal(*shape)
    return x @ np.swapaxes(x, -1, -2) + shape[-1] * np.eye(shape[-1], dtype=np.float32)


def complex_normal(*shape: int) -> np.ndarray:
    return (normal(*shape) + 1j * normal(*shape)).astype(np.complex64)


def close(got: Any, want: Any, tolerance: float = 2e-5) -> None:
    mx.eval(got)
    np.testing.assert_allclose(np.array(got), np.asarray(want), rtol=tolerance, atol=tolerance)


def test_norms_are_numpys() -> None:
    for x in (normal(4), normal(3, 4), complex_normal(3, 4)):
        a = mx.array(x)
        for order in (None, 1, -1, 2, -2, np.inf, -np.inf):
            close(linalg.norm(a, order), np.linalg.norm(x, order), 1e-4)
    x = normal(2, 3, 4)
    for order in (None, 1, -1, 2, -2, np.inf, "fro", "nuc"):
        for axes in ((0, 1), (2, 0), (-1, 1)):
            for keep in (False, True):
                got = linalg.norm(mx.array(x), order, axes, keepdims=keep)
                close(got, np.linalg.norm(x, order, axes, keep), 1e-4)
    for order in (0, 3, 0.5, -1.5):
        close(linalg.norm(mx.array(x), order, 1), np.linalg.norm(x, order, 1), 1e-4)
    close(linalg.norm(mx.array(x)), np.linalg.norm(x))
    assert linalg.norm(mx.array([3, 4])).item() == 5 and mx.matrix_norm(mx.array([[3, 4]])).item() == 5
    for wrong in (("fro", 0), (5, (0, 1)), (1, None)):
        with pytest.raises(ValueError, match=r"\[linalg::norm\]"):
            linalg.norm(mx.array(x), *wrong)


def test_factorisations_multiply_back() -> None:
    for shape in ((3, 3), (5, 3), (3, 5), (2, 4, 3), (2, 3, 4)):
        x = normal(*shape)
        a = mx.array(x)
        q, r = linalg.qr(a)
        close(q @ r, x)
        close(
            mx.swapaxes(q, -1, -2) @ q,
            np.broadcast_to(np.eye(min(shape[-2:])), q.shape[:-2] + (min(shape[-2:]),) * 2),
        )
        u, s, vh = linalg.svd(a)
        m, n = shape[-2:]
        assert u.shape[-2:] == (m, m) and vh.shape[-2:] == (n, n)
        k = min(m, n)
        close((u[..., :k] * s[..., None, :]) @ vh[..., :k, :], x)
        close(mx.swapaxes(u, -1, -2) @ u, np.broadcast_to(np.eye(m), u.shape))
        close(linalg.svd(a, compute_uv=False), s)
        rows, low, up = linalg.lu(a)
        close(mx.take_along_axis(low, mx.broadcast_to(rows[..., None], low.shape), axis=-2) @ up, x)
        close(a @ linalg.pinv(a) @ a, x, 1e-4)
    x = positive(2, 3, 3)
    a = mx.array(x)
    for upper in (False, True):
        factor = linalg.cholesky(a, upper)
        turned = mx.swapaxes(factor, -1, -2)
        close(turned @ factor if upper else factor @ turned, x, 1e-4)
        close(linalg.cholesky_inv(factor, upper), np.linalg.inv(x), 1e-4)
    for uplo in "LU":
        w, v = linalg.eigh(a, uplo)
        close((v * w[..., None, :]) @ mx.swapaxes(v, -1, -2), x, 1e-4)
        close(linalg.eigvalsh(a, uplo), w)
    z = complex_normal(3, 3)
    w, v = linalg.eig(mx.array(z))
    close(mx.array(z) @ v, np.array(v) * np.array(w), 1e-4)
    close(linalg.eigvals(mx.array(z)), w)
    u, s, vh = linalg.svd(mx.array(z))
    close((u * s) @ vh, z, 1e-4)


def test_one_triangle_is_read() -> None:
    x = positive(3, 3)
    for upper, other in ((False, np.tril(x)), (True, np.triu(x))):
        broken = mx.array(other.astype(np.float32))
        close(linalg.cholesky(broken, upper), linalg.cholesky(mx.array(x), upper))
        close(linalg.eigvalsh(broken, "U" if upper else "L"), linalg.eigvalsh(mx.array(x)))
        close(linalg.tri_inv(mx.array(x), upper), np.linalg.inv(other), 1e-4)


def test_systems() -> None:
    a, v = normal(3, 3) + 2 * np.eye(3, dtype=np.float32), normal(3)
    stack, b = normal(2, 3, 3) + 2 * np.eye(3, dtype=np.float32), normal(2, 3, 4)
    close(linalg.solve(mx.array(a), mx.array(v)), np.linalg.solve(a, v), 1e-4)
    close(linalg.solve(mx.array(stack), mx.array(b)), np.linalg.solve(stack, b), 1e-4)
    close(linalg.solve(mx.array(a), mx.array(b)), np.linalg.solve(a, b), 1e-4)
    close(
        linalg.solve(mx.array(stack), mx.array(v)),
        np.linalg.solve(stack, np.stack([v, v])[..., None])[..., 0],
        1e-4,
    )
    close(linalg.solve_triangular(mx.array(a), mx.array(v)), np.linalg.solve(np.tril(a), v), 1e-4)
    close(linalg.solve_triangular(mx.array(a), mx.array(v), upper=True), np.linalg.solve(np.triu(a), v), 1e-4)
    assert linalg.solve(mx.array(a, mx.float64), mx.array(v)).dtype is mx.float64


def test_determinants() -> None:
    for x in (normal(3, 3), normal(2, 4, 4), np.zeros((2, 2), np.float32)):
        close(linalg.det(mx.array(x)), np.linalg.det(x), 1e-4)
        for got, want in zip(linalg.slogdet(mx.array(x)), np.linalg.slogdet(x), strict=True):
            close(got, want, 1e-4)
    assert linalg.det(mx.array([[1, 2], [3, 4]])).item() == pytest.approx(-2)


def test_cross() -> None:
    x, y = normal(4, 3), normal(4, 3)
    close(linalg.cross(mx.array(x), mx.array(y)), np.cross(x, y))
    close(linalg.cross(mx.array(x.T), mx.array(y.T), axis=0), np.cross(x, y).T)
    assert linalg.cross(mx.array([1.0, 2]), mx.array([4.0, 5])).tolist() == [0, 0, -3]
    assert linalg.cross(mx.array([1.0, 2, 3]), mx.array([4.0, 5])).tolist() == [-15, 12, -3]
    with pytest.raises(ValueError, match="size 2 or 3"):
        linalg.cross(mx.ones(4), mx.ones(4))


@pytest.mark.parametrize(
    "name", ["inv", "cholesky", "qr", "svd", "eigh", "eig", "lu", "lu_factor", "pinv", "det"]
)
def test_arguments_that_do_not_fit(name: str) -> None:
    fn = getattr(linalg, name)
    with pytest.raises(ValueError, match=r"\[linalg::\w+\]"):
        fn(mx.ones(3))
    if name != "det":
        with pytest.raises(ValueError, match="must have type"):
            fn(mx.ones((2, 2), mx.int32))
    if name not in ("qr", "svd", "lu", "lu_factor", "pinv"):
        with pytest.raises(ValueError, match="square"):
            fn(mx.ones((2, 3)))
    with pytest.raises(ValueError):
        linalg.eigh(mx.ones((2, 2)), "X")
    with pytest.raises(np.linalg.LinAlgError):
        mx.eval(linalg.inv(mx.zeros((2, 2))))
    with pytest.raises(np.linalg.LinAlgError):
        mx.eval(linalg.cholesky(-mx.eye(2)))


SMOOTH: dict[str, tuple[Callable[[mx.array], mx.array], np.ndarray]] = {
    "cholesky": (lambda x: linalg.cholesky(x), positive(3, 3)),
    "cholesky upper": (lambda x: linalg.cholesky(x, True), positive(3, 3)),
    "cholesky_inv": (lambda x: linalg.cholesky_inv(x), positive(3, 3)),
    "wide qr": (lambda x: linalg.qr(x)[1], normal(2, 4)),
    "full svd": (lambda x: linalg.svd(x)[0][:, :2] @ linalg.svd(x)[2], normal(4, 2)),
    "pinv": (lambda x: linalg.pinv(x), normal(4, 2)),
    "nuclear": (lambda x: linalg.norm(x, "nuc"), normal(4, 2)),
    "det": (lambda x: linalg.det(x), normal(3, 3)),
    "slogdet": (lambda x: linalg.slogdet(x)[1], normal(3, 3)),
    "norm": (lambda x: linalg.norm(x, 3, 1), normal(2, 4)),
    "cross": (lambda x: linalg.cross(x, x[::-1] + 1), normal(2, 3)),
    "tri_inv": (lambda x: linalg.tri_inv(x, True), positive(3, 3)),
    "lu": (lambda x: linalg.lu(x)[1] @ mx.tanh(linalg.lu(x)[2]), normal(3, 3)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_compositions(name: str) -> None:
    """In float64 by finite differences; matrices that must be symmetric move symmetrically."""
    fn, x = SMOOTH[name]
    a = mx.array(x, mx.float64)
    symmetric = name.startswith("cholesky")

    def loss(z: mx.array) -> mx.array:
        if symmetric:
            z = (z + mx.swapaxes(z, -1, -2)) / 2
        y = fn(z)
        return mx.sum(mx.sin(mx.arange(y.size).reshape(y.shape) + 1.0) * y)

    found = np.array(mx.grad(loss)(a))
    want = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[index] = 1e-5
        values = [loss(a + mx.array(sign * step, mx.float64)).item() for sign in (1, -1)]
        want[index] = (values[0] - values[1]) / 2e-5
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6 * max(1.0, np.abs(want).max()))


COMPLEX: dict[str, Callable[[mx.array], mx.array]] = {
    "eigh values": lambda z: linalg.eigvalsh(z + mx.conj(z.T)),
    "eigh projectors": lambda z: mx.abs(linalg.eigh(z + mx.conj(z.T))[1]),
    "singular values": lambda z: linalg.svd(z, compute_uv=False),
    "svd moduli": lambda z: mx.abs(linalg.svd(z)[0]) + mx.abs(linalg.svd(z)[2]),
    "polar": lambda z: linalg.svd(z)[0] @ linalg.svd(z)[2],
    "eigvals": lambda z: linalg.eigvals(z),
    "eig moduli": lambda z: mx.abs(linalg.eig(z)[1]),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_gradients_of_complex_matrices(name: str) -> None:
    z = np.array([[1.0 + 0.5j, 0.3 - 0.2j], [-0.4 + 0.1j, -0.8 + 0.9j]], np.complex64)
    check_gradient(COMPLEX[name], z, 4e-3)


def test_transforms() -> None:
    x = positive(4, 3, 3)
    a = mx.array(x)
    for fn in (linalg.cholesky, linalg.inv, linalg.eigvalsh, linalg.det):
        mapped = mx.vmap(fn, in_axes=1)(mx.moveaxis(a, 0, 1))
        close(mapped, np.stack([np.array(fn(m)) for m in a]), 1e-4)
        close(mx.compile(fn)(a), fn(a))
    graph = mx.vmap(mx.grad(lambda m: mx.sum(linalg.inv(m))))(a)
    close(graph, np.stack([-np.linalg.inv(m).T @ np.ones((3, 3)) @ np.linalg.inv(m).T for m in x]), 1e-3)


@pytest.mark.peers
def test_as_the_real_mlx() -> None:
    mlx = pytest.importorskip("mlx.core")
    square, wide = normal(2, 4, 4), normal(3, 5)
    spd = positive(3, 3)
    one: dict[str, list[np.ndarray]] = {
        "inv": [square, spd], "cholesky": [spd], "qr": [spd], "svd": [square, wide], "eigh": [spd],
        "lu": [square, wide], "lu_factor": [square], "det": [square, np.arange(4).reshape(2, 2)],
        "slogdet": [square, np.zeros((2, 2), np.float32)], "tri_inv": [spd], "cholesky_inv": [spd],
        "pinv": [wide], "norm": [square], "eig": [spd],
    }  # fmt: skip
    for name, table in one.items():
        for x in table:
            ours, theirs = getattr(linalg, name)(mx.array(x)), getattr(mlx.linalg, name)(mlx.array(x))
            ours = ours if isinstance(ours, tuple | list) else [ours]
            theirs = theirs if isinstance(theirs, tuple | list) else [theirs]
            assert len(ours) == len(theirs)
            for got, want in zip(ours, theirs, strict=True):
                assert got.shape == want.shape and str(want.dtype) == f"mlx.core.{got.dtype.name}", name
                if name not in ("svd", "eigh", "eig"):  # signs and order
                    close(got, np.array(want), 1e-3)
                elif got.ndim == x.ndim - 1:
                    close(mx.array(np.sort(np.array(got))), np.sort(np.array(want)), 1e-3)
