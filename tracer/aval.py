"""What is known of an array before it is computed: shape and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingot.tracer import dims
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.dtypes import Dtype


class Aval:
    """Abstract value: `shape` (ints or symbolic extents) and `dtype`. Interned: equal avals are one object.

    Arrays are never weakly typed (MLX): a Python scalar takes its dtype from the array it meets, while the
    operation is recorded, so an aval carries no weak flag.
    """

    __slots__ = ("shape", "dtype", "ndim", "is_symbolic", "_size", "__weakref__")

    shape: tuple[Extent, ...]
    dtype: Dtype
    ndim: int
    is_symbolic: bool
    _size: Extent | None

    _table: dict[tuple[tuple[Extent, ...], Dtype], Aval] = {}

    def __new__(cls, shape: Sequence[Extent], dtype: Dtype) -> Aval:
        key = (tuple(shape), dtype)
        self = cls._table.get(key)
        if self is None:
            self = object.__new__(cls)
            self.shape, self.dtype = key
            self.ndim = len(self.shape)
            self.is_symbolic = any(isinstance(extent, Dim) for extent in self.shape)
            self._size = None
            self = cls._table.setdefault(key, self)
        return self

    @property
    def size(self) -> Extent:
        """Number of elements."""
        if self._size is None:
            self._size = dims.product(self.shape)
        return self._size

    @property
    def nbytes(self) -> Extent:
        return self.size * self.dtype.size

    def __repr__(self) -> str:
        return f"{self.dtype.short}[{','.join(str(extent) for extent in self.shape)}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Aval, (self.shape, self.dtype))


_scalars: dict[Dtype, Aval] = {}


def scalar(dtype: Dtype) -> Aval:
    """Aval of a rank-0 array."""
    found = _scalars.get(dtype)
    if found is None:
        found = _scalars[dtype] = Aval((), dtype)
    return found


def show(avals: Sequence[Aval]) -> str:
    """Text for error messages: `f32[2,3], i32[]`."""
    return ", ".join(map(repr, avals))
