"""Linear algebra on the matrices in the last two axes, by NumPy's LAPACK. Leading axes are a batch.

Derivatives follow M. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008), and for eigenvectors C. Boeddeker et al., "On the computation of complex-valued
gradients with application to statistically optimum beamforming" (2017). Cotangents are those of MLX: for
complex numbers d/d(real part) + i d/d(imaginary part), so that the transpose of a product with `A` is one
with `A^H`.
"""

# mypy: disable-error-code="override"
# (rules name the operands that their primitive has)

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, record, record_all, wrap
from ingot.tracer.aval import Aval, show
from ingot.tracer.dims import Extent
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree, agree_shapes
from ingot.tracer.graph import Literal
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.elementwise import Select, conjugate, total
from ingot.tracer.primitives.shape import Concatenate, Iota, Slice, Transpose, with_batch

Handles = Sequence[array]
MaybeHandles = Sequence[array | None]
Axes = Sequence[int | None]

_REAL = (dtypes.float32, dtypes.float64)
_REAL_OR_COMPLEX = (*_REAL, dtypes.complex64)


# -- matrices ------------------------------------------------------------------------------------------------


def _swapped(x: array) -> array:
    """The transposed matrices."""
    n = x.ndim
    return record(Transpose((*range(n - 2), n - 1, n - 2)), x._value)


def _adjoint(x: array) -> array:
    """The conjugate of the transposed matrices."""
    return conjugate(_swapped(x))


def _offset(shape: Sequence[Extent]) -> array:
    """Column less row for every element of a matrix."""
    matrix = (shape[-2], shape[-1])
    return record(Iota(matrix, 1, dtypes.int32)) - record(Iota(matrix, 0, dtypes.int32))


def _where(mask: array, x: array, other: float = 0) -> array:
    return record(Select(), mask._value, x._value, Literal(other, x.dtype))


def _lower(x: array, k: int = 0) -> array:
    return _where(_offset(x.shape) <= k, x)


def _upper(x: array, k: int = 0) -> array:
    return _where(_offset(x.shape) >= k, x)


def _identity(x: array) -> array:
    """The identity as large as the square matrices `x`, once."""
    return (_offset(x.shape) == 0).astype(x.dtype)


def _diagonal(x: array) -> array:
    """Vectors of the diagonal elements of square matrices."""
    return _where(_offset(x.shape) == 0, x).sum(-1)


def _columns(x: array) -> array:
    """Vectors as factors of columns: `A * _columns(d)` is `A diag(d)`."""
    return x.reshape((*x.shape[:-1], 1, x.shape[-1]))


def _rows(x: array) -> array:
    """Vectors as factors of rows: `_rows(d) * A` is `diag(d) A`."""
    return x.reshape((*x.shape, 1))


def _part(x: array, rows: tuple[Extent, Extent], columns: tuple[Extent, Extent]) -> array:
    lead = x.shape[:-2]
    starts = ((0,) * len(lead)) + (rows[0], columns[0])
    return record(Slice(starts, (*lead, rows[1], columns[1]), (1,) * x.ndim), x._value)


def _join(axis: int, *parts: array) -> array:
    return record(Concatenate(parts[0].ndim + axis), *[p._value for p in parts])


def _gaps(values: array) -> array:
    """`1 / (values[j] - values[i])` off the diagonal, 0 on it and where values are equal."""
    difference = _columns(values) - _rows(values)
    return _quotient(difference, difference == 0)


def _quotient(divisor: array, zero: array) -> array:
    """`1 / divisor`, 0 where it is `zero`."""
    one, nothing = Literal(1, divisor.dtype), Literal(0, divisor.dtype)
    safe = record(Select(), zero._value, one, divisor._value)
    return record(Select(), zero._value, nothing, (1 / safe)._value)


def _hermitian(x: np.ndarray) -> np.ndarray:
    return (x + np.conj(np.swapaxes(x, -1, -2))) / 2


# -- the family ----------------------------------------------------------------------------------------------


class Matrix(Primitive, abstract=True):
    """A function of one array of matrices."""

    kinds: ClassVar[tuple[Dtype, ...]] = _REAL
    square: ClassVar[bool] = True

    def check(self, x: Aval) -> None:
        """Raise for a dtype or shape that the function does not take."""
        if x.dtype not in self.kinds:
            *others, last = [d.name for d in self.kinds]
            raise ValueError(
                f"[linalg::{self.title}] Arrays must have type {', '.join(others)} or {last}. "
                f"Received array with type {x.dtype.name}."
            )
        if x.ndim < 2:
            raise ShapeError(
                f"[linalg::{self.title}] Arrays must have >= 2 dimensions. "
                f"Received array with {x.ndim} dimensions."
            )
        if self.square and not agree(x.shape[-1], x.shape[-2]):
            raise ShapeError(f"[linalg::{self.title}] Only defined for square matrices, got {x!r}.")

    @property
    def title(self) -> str:
        return self.name

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        results = record_all(self, with_batch(operands[0], axes[0], size)._value)
        return results, [0] * len(results)


class Inverse(Matrix):
    """Inverse of square matrices."""

    @property
    def title(self) -> str:
        return "inv"

    def infer(self, x: Aval) -> Aval:
        self.check(x)
        return x

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.linalg.inv(x)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,), (y,) = tangents, results
        return [None if t is None else -(y @ t @ y)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,), (y,) = cotangents, results
        return [None if ct is None else -(_swapped(y) @ ct @ _swapped(y))]


class Solve(Primitive):
    """`x` with `a x = b`, for square matrices `a` and matrices `b` over equal leading axes.

    Of `triangle` "lower" or "upper" only that part of `a` counts.
    """

    triangle: str = ""

    def infer(self, a: Aval, b: Aval) -> Aval:
        if self.triangle not in ("", "lower", "upper"):
            raise ValueError(f"[linalg::solve] no triangle is called {self.triangle!r}.")
        if a.dtype not in _REAL or b.dtype is not a.dtype:
            raise ValueError(
                f"[linalg::solve] Arrays must have type float32 or float64. Received {show((a, b))}."
            )
        fits = a.ndim >= 2 and a.ndim == b.ndim and agree(a.shape[-1], a.shape[-2])
        if not fits or not agree(a.shape[-1], b.shape[-2]) or not agree_shapes(a.shape[:-2], b.shape[:-2]):
            raise ShapeError(f"[linalg::solve] shapes of the matrices do not fit: {show((a, b))}.")
        return b

    def evaluate(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if self.triangle:
            a = np.tril(a) if self.triangle == "lower" else np.triu(a)
        return np.linalg.solve(a, b)

    def _of(self, a: array) -> array:
        """The part of a tangent or cotangent of `a` that counts."""
        if not self.triangle:
            return a
        return _lower(a) if self.triangle == "lower" else _upper(a)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (a, _), (ta, tb), (x,) = primals, tangents, results
        change = total([tb, None if ta is None else -(self._of(ta) @ x)])
        return [None if change is None else record(self, a._value, change._value)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (a, _), (ct,), (x,) = primals, cotangents, results
        if ct is None:
            return [None, None]
        turned = Solve({"lower": "upper", "upper": "lower", "": ""}[self.triangle])
        of_b = record(turned, _swapped(a)._value, ct._value)
        return [-self._of(of_b @ _swapped(x)), of_b]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        a, b = [with_batch(x, axis, size) for x, axis in zip(operands, axes, strict=True)]
        return [record(self, a._value, b._value)], [0]


class Cholesky(Matrix):
    """Lower triangular `L` with `L L^T` the symmetric part of positive definite matrices."""

    def infer(self, x: Aval) -> Aval:
        self.check(x)
        return x

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.linalg.cholesky(_hermitian(x))

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,), (y,) = tangents, results
        if t is None:
            return [None]
        solve = Solve("lower")
        half = record(solve, y._value, ((t + _swapped(t)) * 0.5)._value)
        inner = _swapped(record(solve, y._value, _swapped(half)._value))
        return [y @ _half_lower(inner)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,), (y,) = cotangents, results
        if ct is None:
            return [None]
        inner = _half_lower(_swapped(y) @ _lower(ct))
        solve, transposed = Solve("upper"), _swapped(y)
        left = record(solve, transposed._value, inner._value)
        both = _swapped(record(solve, transposed._value, _swapped(left)._value))
        return [(both + _swapped(both)) * 0.5]


def _half_lower(x: array) -> array:
    """The lower triangle with half of the diagonal."""
    offset = _offset(x.shape)
    return _where(offset < 0, x) + _where(offset == 0, x * 0.5)


class Lu(Matrix):
    """LU factorisation with partial pivoting: `L` (with a diagonal of ones, not stored) and `U` in one
    matrix, the row that each row was exchanged with, and the order of the rows."""

    square = False

    def infer(self, x: Aval) -> tuple[Aval, Aval, Aval]:
        self.check(x)
        lead = x.shape[:-2]
        k = dims.minimum(x.shape[-2], x.shape[-1])
        return x, Aval((*lead, k), dtypes.uint32), Aval((*lead, x.shape[-2]), dtypes.uint32)

    def evaluate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row by row, all matrices at once (Golub & Van Loan, Matrix Computations, algorithm 3.4.1)."""
        *lead, m, n = x.shape
        a = x.reshape(-1, m, n).copy()
        each = np.arange(len(a))
        pivots = np.empty((len(a), min(m, n)), np.uint32)
        order = np.broadcast_to(np.arange(m, dtype=np.uint32), (len(a), m)).copy()
        for k in range(min(m, n)):
            chosen = k + np.argmax(np.abs(a[:, k:, k]), axis=1) if len(a) else np.zeros(0, int)
            pivots[:, k] = chosen
            for rows in (a, order):
                rows[each, k], rows[each, chosen] = rows[each, chosen], rows[each, k].copy()
            pivot = a[:, k, k]
            a[:, k + 1 :, k] /= np.where(pivot == 0, 1, pivot)[:, None]
            a[:, k + 1 :, k + 1 :] -= a[:, k + 1 :, k, None] * a[:, k, None, k + 1 :]
        return a.reshape(x.shape), pivots.reshape(*lead, -1), order.reshape(*lead, m)

    def _factors(self, x: array) -> tuple[array, array, Extent]:
        """Both triangles of the leading square part of a packed matrix, and its size."""
        k = dims.minimum(x.shape[-2], x.shape[-1])
        head = _part(x, (0, k), (0, k))
        return _lower(head, -1) + _identity(head), _upper(head), k

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,), (y, _, order) = tangents, results
        if t is None:
            return [None, None, None]
        lower, upper, k = self._factors(y)
        m, n = y.shape[-2:]
        moved = _permutation(order, t) @ t
        head = _unsolved_right(
            record(Solve("lower"), lower._value, _part(moved, (0, k), (0, k))._value), upper
        )
        of_lower, of_upper = lower @ _lower(head, -1), _upper(head) @ upper
        out = _lower(of_lower, -1) + of_upper
        if not dims.same(m, k):  # rows below: A2 = L2 U
            below = _part(moved, (k, m), (0, k)) - _part(y, (k, m), (0, k)) @ of_upper
            return [_join(-2, out, _unsolved_right(below, upper)), None, None]
        if not dims.same(n, k):  # columns to the right: A2 = L U2
            right = _part(moved, (0, k), (k, n)) - of_lower @ _part(y, (0, k), (k, n))
            return [_join(-1, out, record(Solve("lower"), lower._value, right._value)), None, None]
        return [out, None, None]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct, *_), (y, _, order) = cotangents, results
        if ct is None:
            return [None]
        lower, upper, k = self._factors(y)
        m, n = y.shape[-2:]
        head = _part(ct, (0, k), (0, k))
        of_lower, of_upper = _lower(head, -1), _upper(head)
        rest: array | None = None
        axis = -2
        turned_lower, turned_upper = _swapped(lower), _swapped(upper)
        if not dims.same(m, k):
            rest = _unsolved_right(_part(ct, (k, m), (0, k)), turned_upper, "lower")
            of_upper = of_upper - _upper(_swapped(_part(y, (k, m), (0, k))) @ rest)
        elif not dims.same(n, k):
            axis = -1
            rest = record(Solve("upper"), turned_lower._value, _part(ct, (0, k), (k, n))._value)
            of_lower = of_lower - _lower(rest @ _swapped(_part(y, (0, k), (k, n))), -1)
        inner = _lower(turned_lower @ of_lower, -1) + _upper(of_upper @ turned_upper)
        left = record(Solve("upper"), turned_lower._value, inner._value)
        out = _unsolved_right(left, turned_upper, "lower")
        if rest is not None:
            out = _join(axis, out, rest)
        return [_swapped(_permutation(order, out)) @ out]


def _unsolved_right(b: array, a: array, triangle: str = "upper") -> array:
    """`b a^-1` for triangular `a`."""
    turned = "lower" if triangle == "upper" else "upper"
    return _swapped(record(Solve(turned), _swapped(a)._value, _swapped(b)._value))


def _permutation(order: array, like: array) -> array:
    """Matrices that put the rows of others in `order`."""
    m = order.shape[-1]
    return (_rows(order.astype(dtypes.int32)) == record(Iota((m,), 0, dtypes.int32))).astype(like.dtype)


class Qr(Matrix):
    """`Q` with orthonormal columns and upper triangular `R` with `Q R` the matrices, min(m, n) of each.

    Derivatives need m >= n.
    """

    square = False

    def infer(self, x: Aval) -> tuple[Aval, Aval]:
        self.check(x)
        *lead, m, n = x.shape
        k = dims.minimum(m, n)
        return Aval((*lead, m, k), x.dtype), Aval((*lead, k, n), x.dtype)

    def evaluate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q, r = np.linalg.qr(x)
        return q, r

    def _tall(self, x: array) -> None:
        if not dims.same(dims.minimum(*x.shape[-2:]), x.shape[-1]):
            raise ValueError(f"[qr] wide matrices have no derivative here, got {x._value.aval!r}.")

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (t,), (q, r) = primals, tangents, results
        if t is None:
            return [None, None]
        self._tall(x)
        scaled = _unsolved_right(t, r)
        inner = _swapped(q) @ scaled
        below = _lower(inner, -1)
        turn = below - _swapped(below)
        return [q @ (turn - inner) + scaled, (inner - turn) @ r]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (ct_q, ct_r), (q, r) = primals, cotangents, results
        if ct_q is None and ct_r is None:
            return [None]
        self._tall(x)
        terms = total(
            [
                None if ct_r is None else r @ _swapped(_upper(ct_r)),
                None if ct_q is None else -(_swapped(ct_q) @ q),
            ]
        )
        assert terms is not None
        below = _lower(terms, -1)
        symmetric = below + _swapped(below) + _where(_offset(terms.shape) == 0, terms)
        out = total([ct_q, q @ symmetric])
        assert out is not None
        return [_unsolved_right(out, _swapped(r), "lower")]


class Eigh(Matrix):
    """Eigenvalues in ascending order and orthonormal eigenvectors (columns) of the Hermitian part of
    matrices.

    Eigenvectors of equal eigenvalues have no derivative: their mutual terms count as zero.
    """

    kinds = _REAL_OR_COMPLEX

    def infer(self, x: Aval) -> tuple[Aval, Aval]:
        self.check(x)
        return Aval(x.shape[:-1], _real_of(x.dtype)), x

    def evaluate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(_hermitian(x))
        return values, vectors

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,), (w, v) = tangents, results
        if t is None:
            return [None, None]
        inner = _adjoint(v) @ ((t + _adjoint(t)) * 0.5) @ v
        return [_diagonal(inner).astype(w.dtype), v @ (_gaps(w).astype(v.dtype) * inner)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct_w, ct_v), (w, v) = cotangents, results
        turned = _adjoint(v)
        inner = total(
            [
                None if ct_w is None else _columns(ct_w.astype(v.dtype)) * _identity(v),
                None if ct_v is None else _gaps(w).astype(v.dtype) * (turned @ ct_v),
            ]
        )
        if inner is None:
            return [None]
        out = v @ inner @ turned
        return [(out + _adjoint(out)) * 0.5]


def _real_of(dtype: Dtype) -> Dtype:
    return dtypes.float32 if dtype.is_complex else dtype


class Eigvalsh(Matrix):
    """Eigenvalues in ascending order of the Hermitian part of matrices."""

    kinds = _REAL_OR_COMPLEX

    def infer(self, x: Aval) -> Aval:
        self.check(x)
        return Aval(x.shape[:-1], _real_of(x.dtype))

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.linalg.eigvalsh(_hermitian(x))

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        both = record_all(Eigh(), primals[0]._value)
        return Eigh().jvp(primals, tangents, both)[:1]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        both = record_all(Eigh(), primals[0]._value)
        return Eigh().vjp(primals, [cotangents[0], None], both)


class Svd(Matrix):
    """`U`, singular values in descending order and `V^H` with `U diag(s) V^H` the matrices, min(m, n) of
    each.

    Singular vectors of equal or vanishing singular values have no derivative: their terms count as zero.
    """

    kinds = _REAL_OR_COMPLEX
    square = False

    def infer(self, x: Aval) -> tuple[Aval, Aval, Aval]:
        self.check(x)
        *lead, m, n = x.shape
        k = dims.minimum(m, n)
        s = Aval((*lead, k), _real_of(x.dtype))
        return Aval((*lead, m, k), x.dtype), s, Aval((*lead, k, n), x.dtype)

    def evaluate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        u, s, vh = np.linalg.svd(x, full_matrices=False)
        return u, s, vh

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,), (u, s, vh) = tangents, results
        if t is None:
            return [None, None, None]
        v, uh, dtype = _adjoint(vh), _adjoint(u), u.dtype
        inner = uh @ t @ v
        over, scaled = _inverse_of(s).astype(dtype), s.astype(dtype)
        gaps = _gaps(s * s).astype(dtype)
        right, left = inner * _columns(scaled), _rows(scaled) * inner
        of_u = u @ (gaps * (right + _adjoint(right))) + (t @ v - u @ inner) * _columns(over)
        of_v = v @ (gaps * (left + _adjoint(left))) + (_adjoint(t) @ u - v @ _adjoint(inner)) * _columns(over)
        if dtype.is_complex:  # the phases that are free: U takes them
            twist = (inner - _adjoint(inner)) * _identity(inner) * _columns(over) * 0.5
            of_u = of_u + u @ twist
        return [of_u, _diagonal(inner).astype(s.dtype), _adjoint(of_v)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct_u, ct_s, ct_vh), (u, s, vh) = cotangents, results
        v, uh, dtype = _adjoint(vh), _adjoint(u), u.dtype
        over, scaled = _inverse_of(s).astype(dtype), s.astype(dtype)
        gaps = _gaps(s * s).astype(dtype)
        inner: list[array | None] = []
        outside: list[array | None] = []
        if ct_s is not None:
            inner.append(_columns(ct_s.astype(dtype)) * _identity(gaps))
        if ct_u is not None:
            turned = uh @ ct_u
            mixed = gaps * turned
            inner.append((mixed + _adjoint(mixed)) * _columns(scaled))
            outside.append((ct_u - u @ turned) * _columns(over) @ vh)
            if dtype.is_complex:
                twist = (turned - _adjoint(turned)) * _identity(gaps) * _columns(over)
                inner.append(twist * 0.5)
        if ct_vh is not None:
            ct_v = _adjoint(ct_vh)
            turned = vh @ ct_v
            mixed = gaps * turned
            inner.append(_rows(scaled) * (mixed + _adjoint(mixed)))
            outside.append(u @ _adjoint((ct_v - v @ turned) * _columns(over)))
        middle = total(inner)
        if middle is None:
            return [None]
        return [total([u @ middle @ vh, *outside])]


def _inverse_of(s: array) -> array:
    """`1 / s`, 0 where it is 0."""
    return _quotient(s, s == 0)


class SingularValues(Matrix):
    """Singular values of matrices, in descending order."""

    kinds = _REAL_OR_COMPLEX
    square = False

    @property
    def title(self) -> str:
        return "svd"

    def infer(self, x: Aval) -> Aval:
        self.check(x)
        *lead, m, n = x.shape
        return Aval((*lead, dims.minimum(m, n)), _real_of(x.dtype))

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.linalg.svd(x, compute_uv=False)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        parts = record_all(Svd(), primals[0]._value)
        return Svd().jvp(primals, tangents, parts)[1:2]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        parts = record_all(Svd(), primals[0]._value)
        return Svd().vjp(primals, [None, cotangents[0], None], parts)


class Complement(Matrix):
    """Orthonormal columns that make those of the operand (m by k, orthonormal) a basis: m by m - k."""

    kinds = _REAL_OR_COMPLEX
    square = False

    def infer(self, x: Aval) -> Aval:
        self.check(x)
        *lead, m, k = x.shape
        if not agree(dims.minimum(m, k), k):
            raise ShapeError(f"[complement] more columns than rows: {x!r}.")
        return Aval((*lead, m, m - k), x.dtype)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        q, _ = np.linalg.qr(x, mode="complete")
        return q[..., x.shape[-1] :]

    jvp = vjp = "which basis is chosen does not follow from the operand"  # type: ignore[assignment]


class Eig(Matrix):
    """Eigenvalues and eigenvectors of length 1 (columns) of square matrices, always complex64."""

    kinds = _REAL_OR_COMPLEX

    def infer(self, x: Aval) -> tuple[Aval, Aval]:
        self.check(x)
        return Aval(x.shape[:-1], dtypes.complex64), Aval(x.shape, dtypes.complex64)

    def evaluate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eig(x)
        return values.astype(np.complex64), vectors.astype(np.complex64)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,), (w, v) = tangents, results
        if t is None:
            return [None, None]
        inner = _complex_inverse(v) @ t.astype(dtypes.complex64) @ v
        change = v @ (_gaps(w) * inner)
        along = _real_part(_diagonal(_adjoint(v) @ change))
        return [_diagonal(inner), change - v * _columns(along)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (ct_w, ct_v), (w, v) = primals, cotangents, results
        turned = _adjoint(v)
        terms: list[array | None] = []
        if ct_w is not None:
            terms.append(_columns(ct_w) * _identity(v))
        if ct_v is not None:
            projected = turned @ ct_v
            along = _real_part(_diagonal(projected))
            terms.append(conjugate(_gaps(w)) * (projected - (turned @ v) * _columns(along)))
        middle = total(terms)
        if middle is None:
            return [None]
        return [(_adjoint(_complex_inverse(v)) @ middle @ turned).astype(x.dtype)]


def _real_part(x: array) -> array:
    return x.astype(dtypes.float32).astype(x.dtype)


def _complex_inverse(x: array) -> array:
    """The inverse by that of a real matrix of twice the size: [[A, -B], [B, A]] for A + iB."""
    n = x.shape[-1]
    re = x.astype(dtypes.float32)
    im = (x * wrap(Literal(-1j, dtypes.complex64))).astype(dtypes.float32)
    whole = record(Inverse(), _join(-2, _join(-1, re, -im), _join(-1, im, re))._value)
    inverse_re, inverse_im = _part(whole, (0, n), (0, n)), _part(whole, (n, n + n), (0, n))
    unit = wrap(Literal(1j, dtypes.complex64))
    return inverse_re.astype(dtypes.complex64) + inverse_im.astype(dtypes.complex64) * unit


class Eigvals(Matrix):
    """Eigenvalues of square matrices, always complex64."""

    kinds = _REAL_OR_COMPLEX

    def infer(self, x: Aval) -> Aval:
        self.check(x)
        return Aval(x.shape[:-1], dtypes.complex64)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.linalg.eigvals(x).astype(np.complex64)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        both = record_all(Eig(), primals[0]._value)
        return Eig().jvp(primals, tangents, both)[:1]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        both = record_all(Eig(), primals[0]._value)
        return Eig().vjp(primals, [cotangents[0], None], both)
