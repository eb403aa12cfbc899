"""Element types and their promotion (the table of MLX)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np


class Dtype:
    """An element type. `name` is the public name, `short` the one in IR text, `size` its bytes."""

    __slots__ = ("name", "short", "size", "kind", "rank", "_numpy")

    name: str
    short: str
    size: int
    kind: str  # b bool, u unsigned, i signed, f floating, c complex
    rank: int  # position in ALL: serialised, never reordered

    def __init__(self, name: str, short: str, size: int, kind: str, rank: int, numpy: Any) -> None:
        self.name, self.short, self.size, self.kind, self.rank = name, short, size, kind, rank
        self._numpy = np.dtype(numpy) if numpy is not None else None

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype (bfloat16: the one of ml_dtypes, imported at first use)."""
        if self._numpy is None:
            import ml_dtypes

            self._numpy = np.dtype(ml_dtypes.bfloat16)
        return self._numpy

    @property
    def is_floating(self) -> bool:
        return self.kind == "f"

    @property
    def is_complex(self) -> bool:
        return self.kind == "c"

    @property
    def is_inexact(self) -> bool:
        return self.kind in "fc"

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers, not for bool."""
        return self.kind in "ui"

    @property
    def is_signed(self) -> bool:
        return self.kind in "ifc"

    def __repr__(self) -> str:
        return f"ingot.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_named, (self.name,))


def _named(name: str) -> Dtype:
    return by_name[name]


bool_ = Dtype("bool", "bool", 1, "b", 0, np.bool_)
uint8 = Dtype("uint8", "u8", 1, "u", 1, np.uint8)
uint16 = Dtype("uint16", "u16", 2, "u", 2, np.uint16)
uint32 = Dtype("uint32", "u32", 4, "u", 3, np.uint32)
uint64 = Dtype("uint64", "u64", 8, "u", 4, np.uint64)
int8 = Dtype("int8", "i8", 1, "i", 5, np.int8)
int16 = Dtype("int16", "i16", 2, "i", 6, np.int16)
int32 = Dtype("int32", "i32", 4, "i", 7, np.int32)
int64 = Dtype("int64", "i64", 8, "i", 8, np.int64)
float16 = Dtype("float16", "f16", 2, "f", 9, np.float16)
bfloat16 = Dtype("bfloat16", "bf16", 2, "f", 10, None)
float32 = Dtype("float32", "f32", 4, "f", 11, np.float32)
float64 = Dtype("float64", "f64", 8, "f", 12, np.float64)
complex64 = Dtype("complex64", "c64", 8, "c", 13, np.complex64)

ALL: tuple[Dtype, ...] = (
    bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64,
    float16, bfloat16, float32, float64, complex64,
)  # fmt: skip
by_name: dict[str, Dtype] = {d.name: d for d in ALL} | {"bool_": bool_}
by_short: dict[str, Dtype] = {d.short: d for d in ALL}
_by_numpy: dict[np.dtype, Dtype] = {d.numpy: d for d in ALL if d is not bfloat16}


def from_numpy(dtype: np.dtype) -> Dtype:
    """The Dtype of a NumPy dtype; raises ValueError for one that has none (strings, objects, ...)."""
    found = _by_numpy.get(dtype)
    if found is None:
        native = dtype.newbyteorder("=")
        if native in _by_numpy:
            return _by_numpy[native]
        if dtype.name == "bfloat16":
            _by_numpy[dtype] = bfloat16
            return bfloat16
        if native == np.complex128:
            return complex64
        raise ValueError(f"[array] no Ingot dtype for NumPy dtype {dtype}.")
    return found


def _promote(a: Dtype, b: Dtype) -> Dtype:
    if a is b:
        return a
    if a.kind == b.kind:
        if {a, b} == {float16, bfloat16}:
            return float32
        return a if a.rank > b.rank else b
    order = "buifc"
    low, high = (a, b) if order.index(a.kind) < order.index(b.kind) else (b, a)
    if low.kind == "u" and high.kind == "i":
        if high.size > low.size:
            return high
        return {1: int16, 2: int32, 4: int64, 8: float32}[low.size]
    return high


_promotions: dict[tuple[Dtype, Dtype], Dtype] = {(a, b): _promote(a, b) for a in ALL for b in ALL}


def promote(a: Dtype, b: Dtype) -> Dtype:
    """Smallest dtype both convert to, by MLX's table (uint64 with a signed integer gives float32)."""
    return _promotions[a, b]


def scalar_dtype(value: bool | int | float | complex, other: Dtype) -> Dtype:
    """Dtype of an operation between an array of dtype `other` and a Python scalar (scalars are weak)."""
    kind = type(value)
    if kind is bool or isinstance(value, np.bool_):
        return other
    if kind is int or isinstance(value, int | np.integer):
        return int32 if other is bool_ else other
    if kind is float or isinstance(value, float | np.floating):
        return other if other.kind in "fc" else float32
    return complex64


class DtypeCategory:
    """A set of dtypes in MLX's hierarchy, used with `issubdtype`."""

    __slots__ = ("name", "members")

    def __init__(self, name: str, members: tuple[Dtype, ...]) -> None:
        self.name = name
        self.members = frozenset(members)

    generic: ClassVar[DtypeCategory]
    number: ClassVar[DtypeCategory]
    integer: ClassVar[DtypeCategory]
    signedinteger: ClassVar[DtypeCategory]
    unsignedinteger: ClassVar[DtypeCategory]
    inexact: ClassVar[DtypeCategory]
    floating: ClassVar[DtypeCategory]
    complexfloating: ClassVar[DtypeCategory]

    def __repr__(self) -> str:
        return f"DtypeCategory.{self.name}"


def _of(kinds: str) -> tuple[Dtype, ...]:
    return tuple(d for d in ALL if d.kind in kinds)


complexfloating = DtypeCategory("complexfloating", _of("c"))
floating = DtypeCategory("floating", _of("f"))
inexact = DtypeCategory("inexact", _of("fc"))
signedinteger = DtypeCategory("signedinteger", _of("i"))
unsignedinteger = DtypeCategory("unsignedinteger", _of("u"))
integer = DtypeCategory("integer", _of("ui"))
number = DtypeCategory("number", _of("uifc"))
generic = DtypeCategory("generic", ALL)
for _category in (
    generic, number, integer, signedinteger, unsignedinteger, inexact, floating, complexfloating,
):  # fmt: skip
    setattr(DtypeCategory, _category.name, _category)


def issubdtype(arg1: Dtype | DtypeCategory, arg2: Dtype | DtypeCategory) -> bool:
    """True when `arg1` is `arg2` or lies within the category `arg2`."""
    if isinstance(arg2, Dtype):
        return arg1 is arg2
    members = frozenset((arg1,)) if isinstance(arg1, Dtype) else arg1.members
    return members <= arg2.members
