"""Samples of linear algebra, against definitions, and of Fourier transforms, against sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from primitive_samples import F32, sample

from ingot.tracer.dims import Dim
from ingot.tracer.primitives import fft as f
from ingot.tracer.primitives import linalg as p

_random = np.random.default_rng(31)
N = Dim("N")


def matrices(*shape: int) -> np.ndarray:
    return _random.normal(size=shape)


def positive(*shape: int) -> np.ndarray:
    """Symmetric, with eigenvalues that are far from each other and from zero."""
    n = shape[-1]
    q, _ = np.linalg.qr(matrices(*shape))
    return (q * (np.arange(n) + 1.0)) @ np.swapaxes(q, -1, -2)


def cofactors(x: np.ndarray) -> np.ndarray:
    """The inverse by Cramer's rule."""
    out = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        *lead, i, j = index
        a = x[tuple(lead)]
        minor = np.delete(np.delete(a, j, 0), i, 1)
        out[index] = (-1) ** (i + j) * np.linalg.det(minor) / np.linalg.det(a)
    return out


def by_rows(x: np.ndarray) -> np.ndarray:
    """Cholesky's algorithm."""
    out = np.zeros_like(x)
    for index in np.ndindex(*x.shape[:-2]):
        a, low = x[index], out[index]
        for i in range(len(a)):
            for j in range(i + 1):
                rest = (a[i, j] + a[j, i]) / 2 - low[i, :j] @ low[j, :j]
                low[i, j] = np.sqrt(rest) if i == j else rest / low[j, j]
    return out


_square, _stack = matrices(3, 3) + 2 * np.eye(3), matrices(2, 3, 3) + 2 * np.eye(3)
for _x in (_square, _stack):
    sample(p.Inverse(), [_x], cofactors, tolerance=1e-12)
sample(p.Inverse(), [_square.astype(F32)], cofactors, tolerance=1e-5)
sample(p.Inverse(), [np.zeros((2, 0, 0))], np.zeros((2, 0, 0)), name="empty")
for _triangle, _of in (("", lambda a: a), ("lower", np.tril), ("upper", np.triu)):
    for _a, _b in ((_square, matrices(3, 2)), (_stack, matrices(2, 3, 1))):
        sample(p.Solve(_triangle), [_a, _b], lambda a, b, t=_of: cofactors(t(a)) @ b, tolerance=1e-11)  # type: ignore[misc]
for _x in (positive(3, 3), positive(2, 4, 4), positive(3, 3).astype(F32)):
    # what vmap tests make of a matrix is not positive definite
    sample(p.Cholesky(), [_x], by_rows, tolerance=1e-5 if _x.dtype == F32 else 1e-12, batched=())


def eliminated(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Gauss's algorithm for one matrix, with Python's loops."""
    a, (m, n) = x.copy(), x.shape
    order, pivots = list(range(m)), []
    for k in range(min(m, n)):
        best = max(range(k, m), key=lambda i: abs(a[i, k]))
        pivots.append(best)
        a[[k, best]] = a[[best, k]]
        order[k], order[best] = order[best], order[k]
        for i in range(k + 1, m):
            a[i, k] /= a[k, k]
            a[i, k + 1 :] -= a[i, k] * a[k, k + 1 :]
    return a, np.array(pivots), np.array(order)


for _shape in ((3, 3), (4, 2), (2, 4)):
    sample(p.Lu(), [matrices(*_shape)], eliminated, tolerance=1e-12)
sample(p.Lu(), [np.zeros((2, 2))], (np.zeros((2, 2)), [0, 1], [0, 1]), differentiable=False, name="zero")


def each(fn: Callable[[np.ndarray], tuple[np.ndarray, ...]]) -> Callable[..., tuple[np.ndarray, ...]]:
    def oracle(x: np.ndarray) -> tuple[np.ndarray, ...]:
        found = [fn(x[index]) for index in np.ndindex(*x.shape[:-2])]
        return tuple(
            np.stack(part).reshape(*x.shape[:-2], *part[0].shape) for part in zip(*found, strict=True)
        )

    return oracle


def reflected(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Householder's algorithm for one matrix, signs as LAPACK has them."""
    m, n = x.shape
    q, r = np.eye(m), x.copy()
    for k in range(min(m - 1, n)):
        v = r[k:, k].copy()
        v[0] += np.copysign(np.linalg.norm(v), v[0])
        v /= np.linalg.norm(v)
        r[k:] -= 2 * np.outer(v, v @ r[k:])
        q[:, k:] -= 2 * np.outer(q[:, k:] @ v, v)
    k = min(m, n)
    return q[:, :k], np.triu(r[:k])


for _x in (matrices(3, 3), matrices(2, 4, 2)):
    sample(p.Qr(), [_x], each(reflected), tolerance=1e-12)
sample(p.Qr(), [matrices(2, 4)], each(reflected), tolerance=1e-12, differentiable=False, name="wide")


def signed(columns: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Eigenvectors up to their sign, with the sign of others."""
    return columns * np.sign(np.sum(columns * like, axis=-2, keepdims=True))


def rotated(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Jacobi's algorithm for one symmetric matrix."""
    a, n = (x + x.T) / 2, len(x)
    v = np.eye(n)
    for _ in range(30):
        for i in range(n):
            for j in range(i + 1, n):
                angle = 0.5 * np.arctan2(2 * a[i, j], a[j, j] - a[i, i])
                turn = np.eye(n)
                turn[[i, j], [i, j]] = np.cos(angle)
                turn[i, j], turn[j, i] = np.sin(angle), -np.sin(angle)
                a, v = turn.T @ a @ turn, v @ turn
    order = np.argsort(np.diag(a))
    return np.diag(a)[order], signed(v[:, order], np.linalg.eigh((x + x.T) / 2)[1])


for _x in (positive(3, 3), positive(2, 4, 4)):
    sample(p.Eigh(), [_x], each(rotated), tolerance=1e-10)
    sample(p.Eigvalsh(), [_x], lambda x: each(rotated)(x)[0], tolerance=1e-10)
_hermitian = np.array([[2, 1j], [-1j, 2]], np.complex64)
sample(p.Eigvalsh(), [_hermitian], [1, 3], tolerance=1e-5)


def phased(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The known eigenvectors of `_hermitian`, with the phases of those that LAPACK finds."""
    known = np.array([[1, 1], [1j, -1j]]) / np.sqrt(2)
    found = np.linalg.eigh((x + np.conj(np.swapaxes(x, -1, -2))) / 2)[1]
    phase = np.sum(np.conj(known) * found, axis=0)
    np.testing.assert_allclose(np.abs(phase), 1, rtol=1e-6)
    return np.array([1, 3]), known * phase


sample(p.Eigh(), [_hermitian], phased, tolerance=1e-5, batched=(), name="complex")


def by_eigenvalues(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Singular values and vectors of one matrix from its Gram matrix."""
    k = min(x.shape)
    u, _, vh = np.linalg.svd(x, full_matrices=False)
    w, v = rotated(x.T @ x)
    right = signed(v[:, ::-1][:, :k], vh.T)
    s = np.sqrt(w[::-1][:k])
    return signed((x @ right) / s, u), s, right.T


for _x in (matrices(3, 3), matrices(2, 4, 2), matrices(2, 3)):
    sample(p.Svd(), [_x], each(by_eigenvalues), tolerance=1e-9)
    sample(p.SingularValues(), [_x], lambda x: each(by_eigenvalues)(x)[1], tolerance=1e-9)


def completing(x: np.ndarray) -> np.ndarray:
    """Checks the definition and returns what it found."""
    found = np.linalg.qr(x, mode="complete")[0][..., x.shape[-1] :]
    both = np.concatenate([x, found], -1)
    np.testing.assert_allclose(np.swapaxes(both, -1, -2) @ both, np.eye(x.shape[-2]), atol=1e-12)
    return found


sample(p.Complement(), [np.linalg.qr(matrices(4, 2))[0]], completing, symbolic=None, batched=())


def characteristic(x: np.ndarray) -> np.ndarray:
    """Eigenvalues of a 2 by 2 matrix by the quadratic formula, in the order of LAPACK."""
    half, det = np.trace(x) / 2, np.linalg.det(x)
    root = np.sqrt(complex(half * half - det))
    both = np.array([half + root, half - root])
    like = np.linalg.eigvals(x)
    return both if abs(both[0] - like[0]) < abs(both[1] - like[0]) else both[::-1]


def vectors(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks `x v = v w` and lengths of 1, and returns what it found."""
    w, v = np.linalg.eig(x)
    np.testing.assert_allclose(x @ v, v * w, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(v, axis=0), 1, atol=1e-6)
    return characteristic(x), v


_turning = np.array([[0.5, -1.0], [2.0, 0.25]])
for _x in (_turning, np.array([[1.0, 2.0], [0.5, -1.0]]), np.array([[1, 2j], [0.5, -1j]], np.complex64)):
    _tolerance: Any = 1e-5
    sample(p.Eigvals(), [_x], characteristic, tolerance=_tolerance, batched=())
    sample(p.Eig(), [_x], vectors, tolerance=_tolerance, batched=())

# -- Fourier transforms --------------------------------------------------------------------------------------


def kernel(n: int, sign: int) -> np.ndarray:
    k = np.arange(n)
    return np.exp(sign * 2j * np.pi * np.outer(k, k) / max(n, 1))


def transformed(x: np.ndarray, axis: int, sign: int) -> np.ndarray:
    return np.moveaxis(np.moveaxis(x.astype(complex), axis, -1) @ kernel(x.shape[axis], sign), -1, axis)


_z = (matrices(3, 4, 5) + 1j * matrices(3, 4, 5)).astype(np.complex64)
for _axis in range(3):
    _n = _z.shape[_axis]
    sample(f.Fft(_axis, False), [_z], lambda x, a=_axis: transformed(x, a, -1), tolerance=1e-5)
    sample(f.Fft(_axis, True), [_z], lambda x, a=_axis, n=_n: transformed(x, a, 1) / n, tolerance=1e-5)
    sample(
        f.RealFft(_axis),
        [_z.real.copy()],
        lambda x, a=_axis, n=_n: transformed(x, a, -1).take(range(n // 2 + 1), a),
        tolerance=1e-5,
    )


def completed(x: np.ndarray, n: int) -> np.ndarray:
    """The whole transform of real numbers, from its beginning; by sums back to them."""
    x = x.astype(complex)
    x[..., 0] = x[..., 0].real
    if n % 2 == 0:
        x[..., -1] = x[..., -1].real
    whole = np.concatenate([x, np.conj(x[..., 1 : (n + 1) // 2][..., ::-1])], -1)
    return (whole @ kernel(n, 1)).real / n


for _n in (1, 2, 7, 8):
    _half = _z.reshape(12, 5)[:, : _n // 2 + 1]
    sample(f.InverseRealFft(1, _n), [_half], lambda x, n=_n: completed(x, n), tolerance=1e-5,
           symbolic=None if _n != 8 else (f.InverseRealFft(1, 8), [(N, 5)], {"N": 12}))  # fmt: skip
