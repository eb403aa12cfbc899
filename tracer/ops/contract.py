"""Products of matrices and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, record, wrap
from ingot.tracer.dims import Extent
from ingot.tracer.facts import agree
from ingot.tracer.ops import math as _math
from ingot.tracer.ops.coerce import common_pair, normal_axis, require_array
from ingot.tracer.ops.reduce import sum as _sum
from ingot.tracer.primitives.contract import DotGeneral
from ingot.tracer.primitives.elementwise import broadcast_shapes, show_shape
from ingot.tracer.primitives.shape import Iota


def _arrays(name: str, a: Any, b: Any) -> tuple[array, array]:
    if type(a) is array and type(b) is array and a._value.aval.dtype is b._value.aval.dtype:
        return a, b
    x, y = common_pair(name, require_array(name, a), require_array(name, b))
    return wrap(x), wrap(y)


@lru_cache(maxsize=1024)
def _primitive(left: tuple[int, ...], right: tuple[int, ...]) -> DotGeneral:
    return DotGeneral((left, right))


def _dot(a: array, b: array, contract: tuple[Sequence[int], Sequence[int]]) -> array:
    return record(_primitive(tuple(contract[0]), tuple(contract[1])), a._value, b._value)


def matmul(a: array, b: array, /, *, stream: Any = None) -> array:
    """Matrix product of the last two axes, broadcast over the others.

    A rank-1 operand is a row on the left and a column on the right; its axis is then missing in the result.

    Raises:
        ValueError: for rank 0 and for shapes that do not fit.
    """
    x, y = _arrays("matmul", a, b)
    if not x.ndim or not y.ndim:
        raise ValueError(
            "[matmul] Got 0 dimension input. Inputs must have at least one dimension: "
            f"shapes {show_shape(x.shape)} and {show_shape(y.shape)}."
        )
    if x.dtype.kind == "b":
        raise ValueError("[matmul] Only numeric types are supported but bool and bool were provided.")
    if not agree(x.shape[-1], y.shape[-2 if y.ndim > 1 else 0]):
        raise ValueError(
            f"[matmul] Last dimension of first input with shape {show_shape(x.shape)} must match second to "
            f"last dimension of second input with shape {show_shape(y.shape)}."
        )
    if (x.ndim <= 2 and y.ndim <= 2) or x.ndim == 1 or y.ndim == 1:
        return _dot(x, y, ((x.ndim - 1,), (max(y.ndim - 2, 0),)))
    return _batched(x, y)


def _batched(x: array, y: array) -> array:
    """An axis that both operands have is a batch axis; one that only one has is a free axis of that one.

    So a matrix times a stack of matrices is one large product, and nothing is repeated in memory.
    """
    lead_x, lead_y = x.shape[:-2], y.shape[:-2]
    lead = broadcast_shapes(lead_x, lead_y)
    rank = len(lead)
    has_x = _own_axes(lead_x, lead)
    has_y = _own_axes(lead_y, lead)
    x, y = _squeeze(x, has_x, lead, rank), _squeeze(y, has_y, lead, rank)
    both = [i for i in has_x if i in has_y]
    only_x = [i for i in has_x if i not in both]
    only_y = [i for i in has_y if i not in both]
    batch = (tuple(has_x.index(i) for i in both), tuple(has_y.index(i) for i in both))
    dot = DotGeneral(((x.ndim - 1,), (y.ndim - 2,)), batch)
    out = record(dot, x._value, y._value)
    # result axes: both, only_x, rows, only_y, columns; axes that nobody has are extent 1
    layout: list[Any] = [*both, *only_x, "rows", *only_y, "columns"]
    wanted: list[Any] = [i for i in range(rank) if i in layout] + ["rows", "columns"]
    order = tuple(layout.index(w) for w in wanted)
    if order != tuple(range(len(order))):
        out = out.transpose(order)
    if len(wanted) != rank + 2:
        out = out.reshape((*lead, out.shape[-2], out.shape[-1]))
    return out


def _own_axes(shape: Sequence[Extent], lead: Sequence[Extent]) -> list[int]:
    """Axes of the common leading shape along which an operand really varies."""
    offset = len(lead) - len(shape)
    return [i + offset for i, extent in enumerate(shape) if not (isinstance(extent, int) and extent == 1)]


def _squeeze(x: array, own: list[int], lead: Sequence[Extent], rank: int) -> array:
    if len(own) == x.ndim - 2:
        return x
    offset = rank - (x.ndim - 2)
    return x.reshape((*(x.shape[i - offset] for i in own), *x.shape[-2:]))


def addmm(
    c: array, a: array, b: array, /, alpha: float = 1.0, beta: float = 1.0, *, stream: Any = None
) -> array:
    """`alpha * (a @ b) + beta * c`, with `c` broadcast to the product."""
    product = matmul(a, b)
    bias = require_array("addmm", c)
    broadcast = broadcast_shapes(bias.shape, product.shape)
    if not dims.same_shape(broadcast, product.shape):
        raise ValueError(
            f"[addmm] c of shape {show_shape(bias.shape)} does not broadcast to the product of shape "
            f"{show_shape(product.shape)}."
        )
    if alpha != 1.0:
        product = _math.multiply(product, alpha)
    return _math.add(product, bias if beta == 1.0 else _math.multiply(bias, beta))


def tensordot(a: array, b: array, /, axes: int | Sequence[Any] = 2, *, stream: Any = None) -> array:
    """Sum of products over `axes`: the last of `a` with the first of `b`, or a pair of lists of axes."""
    x, y = _arrays("tensordot", a, b)
    if isinstance(axes, int):
        if not 0 <= axes <= min(x.ndim, y.ndim):
            raise ValueError(
                f"[tensordot] axes={axes} must be at most the number of dimensions of a and b: shapes "
                f"{show_shape(x.shape)} and {show_shape(y.shape)}."
            )
        left, right = list(range(x.ndim - axes, x.ndim)), list(range(axes))
    else:
        if len(axes) != 2:
            raise ValueError("[tensordot] axes must be an int or a pair of lists.")
        left, right = (
            [normal_axis("tensordot", i, z.ndim) for i in ([part] if isinstance(part, int) else part)]
            for part, z in zip(axes, (x, y), strict=True)
        )
        if len(left) != len(right):
            raise ValueError(f"[tensordot] axes must have the same length, got {axes}.")
    if not all(agree(x.shape[i], y.shape[j]) for i, j in zip(left, right, strict=True)):
        raise ValueError(
            "[tensordot] a and b must have the same shape on the contracted axes: shapes "
            f"{show_shape(x.shape)} and {show_shape(y.shape)}, axes {left} and {right}."
        )
    return _dot(x, y, (left, right))


def inner(a: array, b: array, /, *, stream: Any = None) -> array:
    """Sum of products over the last axes of both; the product when one of them is a scalar."""
    x, y = _arrays("inner", a, b)
    if not x.ndim or not y.ndim:
        return _math.multiply(x, y)
    if not agree(x.shape[-1], y.shape[-1]):
        raise ValueError(
            "[inner] a and b must have the same last dimension: shapes "
            f"{show_shape(x.shape)} and {show_shape(y.shape)}."
        )
    return _dot(x, y, ((x.ndim - 1,), (y.ndim - 1,)))


def outer(a: array, b: array, /, *, stream: Any = None) -> array:
    """All products of the flattened `a` with the flattened `b`: shape `(a.size, b.size)`."""
    x, y = _arrays("outer", a, b)
    return _math.multiply(x.reshape((x.size, 1)), y.reshape((y.size,)))


def vecdot(a: array, b: array, /, *, axis: int = -1, stream: Any = None) -> array:
    """Sum of products along `axis`, broadcast over the other axes."""
    x, y = _arrays("vecdot", a, b)
    if not -min(x.ndim, y.ndim) <= axis < min(x.ndim, y.ndim):
        normal_axis("vecdot", axis, min(x.ndim, y.ndim))
    return _sum(_math.multiply(x, y), axis=axis)


def kron(a: array, b: array, *, stream: Any = None) -> array:
    """Kronecker product: every element of `a` times the whole of `b`, as blocks."""
    x, y = _arrays("kron", a, b)
    rank = max(x.ndim, y.ndim)
    rows = (1,) * (rank - x.ndim) + tuple(x.shape)
    columns = (1,) * (rank - y.ndim) + tuple(y.shape)
    left = x.reshape([extent for n in rows for extent in (n, 1)])
    right = y.reshape([extent for n in columns for extent in (1, n)])
    return _math.multiply(left, right).reshape([m * n for m, n in zip(rows, columns, strict=True)])


def gather_mm(
    a: array,
    b: array,
    /,
    lhs_indices: array | None = None,
    rhs_indices: array | None = None,
    *,
    sorted_indices: bool = False,
    stream: Any = None,
) -> array:
    """Products of matrices chosen by flat indices over the leading axes of `a` and of `b`; the indices
    broadcast."""
    x, y = _arrays("gather_mm", a, b)
    if x.ndim < 2 or y.ndim < 2:
        raise ValueError(f"[gather_mm] needs matrices, got {show_shape(x.shape)} and {show_shape(y.shape)}.")
    if lhs_indices is None and rhs_indices is None:
        return matmul(x, y)
    return matmul(_gathered(x, lhs_indices), _gathered(y, rhs_indices))


def _gathered(x: array, indices: array | None) -> array:
    if indices is None:
        return x
    return x.reshape((-1, *x.shape[-2:]))[require_array("gather_mm", indices)]


def segmented_mm(a: array, b: array, /, segments: array, *, stream: Any = None) -> array:
    """One product for each segment `[start, end)` of the contracted axis: `(..., 2)` segments give `(...,
    M, N)`."""
    x, y = _arrays("segmented_mm", a, b)
    s = require_array("segmented_mm", segments)
    if x.ndim != 2 or y.ndim != 2 or s.ndim < 1 or not dims.same(s.shape[-1], 2):
        raise ValueError("[segmented_mm] needs two matrices and segments of two offsets.")
    k = _arange(x.shape[1])
    inside = _math.logical_and(_math.less_equal(s[..., :1], k), _math.less(k, s[..., 1:]))
    return matmul(_math.where(inside[..., None, :], x, 0), _math.where(inside[..., :, None], y, 0))


def block_masked_mm(
    a: array,
    b: array,
    /,
    block_size: int = 64,
    mask_out: array | None = None,
    mask_lhs: array | None = None,
    mask_rhs: array | None = None,
    *,
    stream: Any = None,
) -> array:
    """Product of matrices, with one factor (or bool) for every block of the operands and of the result."""
    x, y = _arrays("block_masked_mm", a, b)
    if x.ndim < 2 or y.ndim < 2 or block_size < 1:
        raise ValueError("[block_masked_mm] needs matrices and a positive block size.")
    out = matmul(_blocked(x, mask_lhs, block_size), _blocked(y, mask_rhs, block_size))
    return _blocked(out, mask_out, block_size)


def _blocked(x: array, mask: array | None, block: int) -> array:
    if mask is None:
        return x
    m = require_array("block_masked_mm", mask)
    rows, columns = x.shape[-2:]
    if m.ndim < 2 or not (
        agree(m.shape[-2], dims.ceil_div(rows, block)) and agree(m.shape[-1], dims.ceil_div(columns, block))
    ):
        raise ValueError(
            f"[block_masked_mm] a mask of shape {show_shape(m.shape)} does not fit {show_shape(x.shape)} in "
            f"blocks of {block}."
        )
    by_row, by_column = _arange(rows) // block, _arange(columns) // block
    spread = m[..., by_row[:, None], by_column]
    return _math.where(spread, x, 0) if m.dtype.kind == "b" else _math.multiply(x, spread).astype(x.dtype)


def _arange(n: Extent) -> array:
    return record(Iota((n,), 0, dtypes.int32))
