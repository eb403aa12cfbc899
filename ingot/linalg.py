"""Linear algebra with the names of `mlx.core.linalg`, on the matrices in the last two axes.

Beyond MLX, everything here has derivatives, except the columns that complete the bases of `svd`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, record, record_all
from ingot.tracer.facts import agree
from ingot.tracer.ops import creation, reduce, shape
from ingot.tracer.ops import math as ops
from ingot.tracer.ops.coerce import normal_axis, require_array
from ingot.tracer.ops.contract import matmul
from ingot.tracer.primitives import linalg as p
from ingot.tracer.primitives.elementwise import show_shape


def norm(
    a: array,
    /,
    ord: None | int | float | str = None,
    axis: None | int | Sequence[int] = None,
    keepdims: bool = False,
    *,
    stream: Any = None,
) -> array:
    """Norm of vectors (one axis) or matrices (two axes).

    Args:
        ord: for vectors any number p of the p-norm, infinite too, or 0 for the number of elements that are
            not 0; for matrices 1, -1, 2, -2, infinity, "fro" or "nuc". None: 2 for vectors, "fro" for
            matrices, and without `axis` the 2-norm of all elements.
        axis: the axis of the vectors or the two of the matrices; None: all axes.

    Raises:
        ValueError: for an `ord` or a number of axes that fits neither.
    """
    x = require_array("norm", a)
    if not x.dtype.is_inexact:
        x = x.astype(dtypes.float32)
    axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    found = tuple(normal_axis("linalg::norm", i, x.ndim) for i in axes)
    if ord is None:
        return _euclidean(x, found, keepdims)
    if len(found) > 2:
        raise ValueError("[linalg::norm] Received too many axes for norm.")
    if len(found) == 2:
        return _matrix_norm(x, ord, found, keepdims)
    if isinstance(ord, str):
        raise ValueError(
            f"[linalg::norm] Norm '{ord}' only supported for matrices, but received {len(found)} axis/axes."
        )
    return _vector_norm(x, float(ord), found, keepdims)


def matrix_norm(
    a: array,
    /,
    ord: None | int | float | str = None,
    axis: None | int | Sequence[int] = None,
    keepdims: bool = False,
    *,
    stream: Any = None,
) -> array:
    """See `norm`."""
    return norm(a, ord, axis, keepdims)


def _squares(x: array) -> array:
    if x.dtype.is_complex:
        return ops.add(ops.square(ops.real(x)), ops.square(ops.imag(x)))
    return ops.square(x)


def _euclidean(x: array, axes: tuple[int, ...], keepdims: bool) -> array:
    return ops.sqrt(reduce.sum(_squares(x), axes, keepdims))


def _vector_norm(x: array, ord: float, axes: tuple[int, ...], keepdims: bool) -> array:
    if ord == 2:
        return _euclidean(x, axes, keepdims)
    size = ops.abs(x)
    if ord == 0:
        return reduce.sum(ops.not_equal(size, 0).astype(size.dtype), axes, keepdims)
    if math.isinf(ord):
        return (reduce.max if ord > 0 else reduce.min)(size, axes, keepdims)
    if ord == 1:
        return reduce.sum(size, axes, keepdims)
    return ops.power(reduce.sum(ops.power(size, ord), axes, keepdims), 1.0 / ord)


def _matrix_norm(x: array, ord: Any, axes: tuple[int, ...], keepdims: bool) -> array:
    if ord in ("f", "fro"):
        return _euclidean(x, axes, keepdims)
    if ord in (1, -1, math.inf, -math.inf):
        first, second = axes if abs(ord) == 1 else axes[::-1]
        sums = reduce.sum(ops.abs(x), first, True)
        best = (reduce.max if ord > 0 else reduce.min)(sums, second, True)
    elif ord in (2, -2, "nuc"):
        rest = [i for i in range(x.ndim) if i not in axes]
        values = record(p.SingularValues(), shape.transpose(x, [*rest, *axes])._value)
        fold = reduce.sum if ord == "nuc" else reduce.max if ord > 0 else reduce.min
        best = shape.expand_dims(fold(values, -1), list(axes))
    else:
        raise ValueError(f"[linalg::norm] Invalid ord {ord} for matrix norm.")
    return best if keepdims else shape.squeeze(best, list(axes))


def inv(a: array, *, stream: Any = None) -> array:
    """Inverse of square matrices.

    Raises:
        ValueError: for other dtypes than float32 and float64, and (at evaluation) for singular matrices.
    """
    return record(p.Inverse(), require_array("inv", a)._value)


def tri_inv(a: array, upper: bool = False, *, stream: Any = None) -> array:
    """Inverse of the lower (or upper) triangle of square matrices."""
    x = _checked(p.Inverse(), require_array("tri_inv", a))
    return record(_triangular(upper), x._value, _identity_like(x)._value)


def _triangular(upper: bool) -> p.Solve:
    return p.Solve("upper" if upper else "lower")


def _checked(primitive: p.Matrix, x: array) -> array:
    primitive.check(x._value.aval)
    return x


def _identity_like(x: array) -> array:
    eye = ops.equal(creation.arange(x.shape[-1])[:, None], creation.arange(x.shape[-1])).astype(x.dtype)
    return shape.broadcast_to(eye, x.shape)


def _hermitian(a: array, upper: bool) -> array:
    """`a` with the other triangle filled by the one that counts; for derivatives `a` itself, so that they
    treat both triangles alike."""
    triangle, rest = (creation.triu, 1) if upper else (creation.tril, -1)
    filled = ops.add(triangle(a, 0), ops.conjugate(shape.swapaxes(triangle(a, rest), -1, -2)))
    return ops.add(a, ops.stop_gradient(ops.subtract(filled, a)))


def cholesky(a: array, upper: bool = False, *, stream: Any = None) -> array:
    """Lower triangular `L` with `L @ L.T` positive definite `a`, or upper triangular `U` with `U.T @ U`.

    One triangle of `a` is read: the one that is asked for.

    Raises:
        ValueError: for other dtypes than float32 and float64, and (at evaluation) for matrices that are not
            positive definite, where MLX returns what it has.
    """
    x = _checked(p.Cholesky(), require_array("cholesky", a))
    found = record(p.Cholesky(), _hermitian(x, upper)._value)
    return shape.swapaxes(found, -1, -2) if upper else found


def cholesky_inv(a: array, upper: bool = False, *, stream: Any = None) -> array:
    """Inverse of the matrix whose Cholesky factor is `a`, lower (or upper) triangular."""
    half = tri_inv(a, upper)
    turned = shape.swapaxes(half, -1, -2)
    return matmul(half, turned) if upper else matmul(turned, half)


def qr(a: array, *, stream: Any = None) -> tuple[array, array]:
    """`Q` with orthonormal columns (m by k) and upper triangular `R` (k by n), k = min(m, n)."""
    x = _checked(p.Qr(), require_array("qr", a))
    rows, columns = x.shape[-2:]
    if dims.same(dims.minimum(rows, columns), columns):
        q, r = record_all(p.Qr(), x._value)
        return q, r
    q, r = record_all(p.Qr(), x[..., :rows]._value)
    return q, shape.concatenate([r, matmul(shape.swapaxes(q, -1, -2), x[..., rows:])], axis=-1)


def svd(a: array, compute_uv: bool = True, *, stream: Any = None) -> Any:
    """`U` (m by m), the min(m, n) singular values in descending order, and `V^H` (n by n); or the values
    alone.

    Columns that only complete the bases are constants for derivatives.
    """
    x = _checked(p.Svd(), require_array("svd", a))
    if not compute_uv:
        return record(p.SingularValues(), x._value)
    u, s, vh = record_all(p.Svd(), x._value)
    rows, columns = x.shape[-2:]
    if not dims.same(s.shape[-1], rows):
        u = _completed(u)
    if not dims.same(s.shape[-1], columns):
        vh = ops.conjugate(shape.swapaxes(_completed(ops.conjugate(shape.swapaxes(vh, -1, -2))), -1, -2))
    return u, s, vh


def _completed(x: array) -> array:
    rest = record(p.Complement(), ops.stop_gradient(x)._value)
    return shape.concatenate([x, ops.stop_gradient(rest)], axis=-1)


def _is_upper(name: str, uplo: str) -> bool:
    if not isinstance(uplo, str) or uplo.upper() not in ("L", "U"):
        raise ValueError(f"[linalg::{name}] UPLO must be 'L' or 'U', got {uplo!r}.")
    return uplo.upper() == "U"


def eigh(a: array, UPLO: str = "L", *, stream: Any = None) -> tuple[array, array]:
    """Eigenvalues in ascending order and orthonormal eigenvectors (columns) of Hermitian matrices.

    The lower triangle is read, or with "U" the upper one.
    """
    x = _checked(p.Eigh(), require_array("eigh", a))
    w, v = record_all(p.Eigh(), _hermitian(x, _is_upper("eigh", UPLO))._value)
    return w, v


def eigvalsh(a: array, UPLO: str = "L", *, stream: Any = None) -> array:
    """Eigenvalues of Hermitian matrices, see `eigh`."""
    x = _checked(p.Eigvalsh(), require_array("eigvalsh", a))
    return record(p.Eigvalsh(), _hermitian(x, _is_upper("eigvalsh", UPLO))._value)


def eig(a: array, *, stream: Any = None) -> tuple[array, array]:
    """Eigenvalues and eigenvectors (columns) of square matrices, both complex64."""
    w, v = record_all(p.Eig(), require_array("eig", a)._value)
    return w, v


def eigvals(a: array, *, stream: Any = None) -> array:
    """Eigenvalues of square matrices, complex64."""
    return record(p.Eigvals(), require_array("eigvals", a)._value)


def lu_factor(a: array, *, stream: Any = None) -> tuple[array, array]:
    """Both factors in one matrix (see `lu`) and the pivots: the row each row was exchanged with (uint32)."""
    packed, pivots, _ = record_all(p.Lu(), require_array("lu_factor", a)._value)
    return packed, pivots


def lu(a: array, *, stream: Any = None) -> tuple[array, array, array]:
    """`P` (uint32 rows), lower triangular `L` with ones on the diagonal, and upper triangular `U`: `L[P] @
    U` is the matrix."""
    x = require_array("lu", a)
    packed, _, order = record_all(p.Lu(), x._value)
    k = dims.minimum(*x.shape[-2:])
    lower = packed[..., :k]
    rows = creation.arange(lower.shape[-2])[:, None]
    diagonal = ops.equal(rows, creation.arange(k))
    lower = ops.where(diagonal, 1, creation.tril(lower, -1))
    return _inverse_order(order), lower.astype(x.dtype), creation.triu(packed[..., :k, :])


def _inverse_order(order: array) -> array:
    """The inverse of permutations: where each number stands."""
    places = ops.equal(order[..., None, :], creation.arange(order.shape[-1], dtype=dtypes.uint32)[:, None])
    return reduce.argmax(places.astype(dtypes.uint8), axis=-1)


def _system(name: str, a: array, b: array) -> tuple[array, array, bool]:
    """Matrices over equal leading axes; and whether `b` was a vector."""
    x, y = require_array(name, a), require_array(name, b)
    for z in (x, y):
        if z.dtype not in (dtypes.float32, dtypes.float64):
            raise ValueError(
                f"[linalg::{name}] Arrays must have type float32 or float64. Received array with type "
                f"{z.dtype.name}."
            )
    if x.ndim < 2 or not y.ndim or not agree(x.shape[-1], x.shape[-2]):
        raise ValueError(
            f"[linalg::{name}] needs square matrices and at least one dimension on the right, got shapes "
            f"{show_shape(x.shape)} and {show_shape(y.shape)}."
        )
    dtype = dtypes.promote(x.dtype, y.dtype)
    is_vector = y.ndim == 1 or (y.ndim == x.ndim - 1 and dims.same_shape(y.shape, x.shape[:-1]))
    x, y = x.astype(dtype), (y[..., None] if is_vector else y).astype(dtype)
    if not agree(y.shape[-2], x.shape[-1]):
        raise ValueError(
            f"[linalg::{name}] Last dimension of first input with shape {show_shape(x.shape)} must match "
            f"second to last dimension of second input with shape {show_shape(y.shape)}."
        )
    lead = shape.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return (
        shape.broadcast_to(x, (*lead, *x.shape[-2:])),
        shape.broadcast_to(y, (*lead, *y.shape[-2:])),
        is_vector,
    )


def solve(a: array, b: array, *, stream: Any = None) -> array:
    """`x` with `a @ x = b` for square `a`; `b` is a vector, or vectors over the leading axes of `a`, or
    matrices."""
    x, y, is_vector = _system("solve", a, b)
    out = record(p.Solve(), x._value, y._value)
    return out[..., 0] if is_vector else out


def solve_triangular(a: array, b: array, *, upper: bool = False, stream: Any = None) -> array:
    """`x` with `a @ x = b`, where only the lower (or upper) triangle of `a` counts; see `solve`."""
    x, y, is_vector = _system("solve_triangular", a, b)
    out = record(_triangular(upper), x._value, y._value)
    return out[..., 0] if is_vector else out


def pinv(a: array, *, stream: Any = None) -> array:
    """Moore-Penrose inverse by singular values; those below the largest times the precision times the larger
    extent count as 0."""
    x = _checked(p.Qr(), require_array("pinv", a))
    u, s, vh = record_all(p.Svd(), x._value)
    eps = 2.0**-23 if x.dtype is dtypes.float32 else 2.0**-52
    cutoff = ops.multiply(reduce.max(s, -1, True), dims.maximum(*x.shape[-2:]) * (10 * eps))
    large = ops.greater(s, cutoff)
    over = ops.where(large, ops.divide(1, ops.where(large, s, 1)), 0)
    v = ops.multiply(shape.swapaxes(vh, -1, -2), shape.expand_dims(over, -2))
    return matmul(v, shape.swapaxes(u, -1, -2))


def det(a: array, *, stream: Any = None) -> array:
    """Determinant of square matrices; integers are taken as float32."""
    packed, sign = _triangle("det", a)
    return ops.multiply(sign, reduce.prod(shape.diagonal(packed, 0, -2, -1), -1))


def slogdet(a: array, *, stream: Any = None) -> tuple[array, array]:
    """Sign of the determinant of square matrices and the logarithm of its absolute value; 0 and -inf for
    singular ones."""
    packed, sign = _triangle("slogdet", a)
    diagonal = shape.diagonal(packed, 0, -2, -1)
    logarithm = reduce.sum(ops.log(ops.abs(diagonal)), -1)
    return ops.multiply(sign, reduce.prod(ops.sign(diagonal), -1)), logarithm


def _triangle(name: str, a: array) -> tuple[array, array]:
    """The packed LU factors, and the sign of the permutation."""
    x = require_array(name, a)
    if x.dtype.is_complex:
        raise ValueError(f"[linalg::{name}] Complex inputs are not supported.")
    if x.dtype not in (dtypes.float32, dtypes.float64):
        x = x.astype(dtypes.float32)
    _checked(p.Inverse(), x)
    packed, pivots, _ = record_all(p.Lu(), x._value)
    exchanges = ops.not_equal(pivots, creation.arange(pivots.shape[-1], dtype=dtypes.uint32))
    odd = ops.remainder(reduce.sum(exchanges, -1), 2)
    return packed, ops.subtract(1, ops.multiply(odd, 2)).astype(packed.dtype)


def cross(a: array, b: array, axis: int = -1, *, stream: Any = None) -> array:
    """Cross product of vectors of extent 3 along `axis`; a missing third component counts as 0.

    Raises:
        ValueError: when the extent along `axis` is neither 2 nor 3.
    """
    x, y = require_array("cross", a), require_array("cross", b)
    dtype = dtypes.promote(x.dtype, y.dtype)
    parts = []
    rank = max(x.ndim, y.ndim)
    for z in (x.astype(dtype), y.astype(dtype)):
        place = normal_axis("linalg::cross", axis, z.ndim)
        n = z.shape[place]
        if n not in (2, 3):
            raise ValueError("[linalg::cross] The specified axis must have size 2 or 3.")
        z = shape.moveaxis(z, place, -1)
        zero = ops.multiply(z[..., 0], 0) if n == 2 else z[..., 2]
        parts.append((z[..., 0], z[..., 1], zero))
    (a0, a1, a2), (b0, b1, b2) = parts
    out = [
        ops.subtract(ops.multiply(p, q), ops.multiply(r, s))
        for p, q, r, s in ((a1, b2, a2, b1), (a2, b0, a0, b2), (a0, b1, a1, b0))
    ]
    return shape.moveaxis(shape.stack(out, axis=-1), -1, normal_axis("linalg::cross", axis, rank))


__all__ = [
    "cholesky", "cholesky_inv", "cross", "det", "eig", "eigh", "eigvals", "eigvalsh", "inv", "lu",
    "lu_factor", "norm", "pinv", "qr", "slogdet", "solve", "solve_triangular", "svd", "tri_inv",
]  # fmt: skip
