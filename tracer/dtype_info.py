"""Limits and kinds of dtypes: `finfo`, `iinfo`, `isdtype`."""

from __future__ import annotations

from ingot.tracer import dtypes
from ingot.tracer.dtypes import Dtype

_KINDS = {
    "bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "ui", "real floating": "f",
    "complex floating": "c", "numeric": "uifc",
}  # fmt: skip

_FORMATS = {
    dtypes.float16: (5, 10),
    dtypes.bfloat16: (8, 7),
    dtypes.float32: (8, 23),
    dtypes.float64: (11, 52),
}
"""Bits of exponent and fraction."""


class finfo:
    """Limits of a floating dtype; of complex64 those of its parts.

    Raises:
        ValueError: for other dtypes.
    """

    dtype: Dtype
    bits: int
    eps: float
    min: float
    max: float
    smallest_normal: float

    def __init__(self, arg: Dtype, /) -> None:
        if not isinstance(arg, Dtype):
            raise TypeError(f"[finfo] expected a dtype, got {type(arg).__name__}.")
        if not arg.is_inexact:
            raise ValueError(f"[finfo] dtype {arg.name} is not inexact.")
        self.dtype = dtypes.float32 if arg.is_complex else arg
        exponent, fraction = _FORMATS[self.dtype]
        bias = (1 << exponent - 1) - 1
        self.bits = 8 * self.dtype.size
        self.eps = 2.0**-fraction
        self.max = (2.0 - self.eps) * 2.0**bias
        self.min = -self.max
        self.smallest_normal = 2.0 ** (1 - bias)

    def __repr__(self) -> str:
        return f"finfo(min={self.min:.6g}, max={self.max:.6g}, dtype={self.dtype.name})"


class iinfo:
    """Limits of an integer dtype.

    Raises:
        ValueError: for other dtypes.
    """

    dtype: Dtype
    min: int
    max: int

    def __init__(self, arg: Dtype, /) -> None:
        if not isinstance(arg, Dtype):
            raise TypeError(f"[iinfo] expected a dtype, got {type(arg).__name__}.")
        if not arg.is_integer:
            raise ValueError(f"[iinfo] Only integer types supported but {arg.name} was provided")
        self.dtype = arg
        bits = 8 * arg.size
        self.max = (1 << bits - (arg.kind == "i")) - 1
        self.min = -(1 << bits - 1) if arg.kind == "i" else 0

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype.name})"


def isdtype(dtype: Dtype, kind: Dtype | str | tuple[Dtype | str, ...]) -> bool:
    """Whether `dtype` is `kind`, a dtype or the name of a kind as the array API has them, or one of several.

    Raises:
        ValueError: for names of no kind and for other types.
    """
    if isinstance(kind, tuple):
        return any([isdtype(dtype, k) for k in kind])
    if isinstance(kind, Dtype):
        return dtype is kind
    if not isinstance(kind, str):
        raise ValueError("[isdtype] `kind` must be a dtype, a string, or a tuple of dtypes and strings.")
    if kind not in _KINDS:
        raise ValueError(f"[isdtype] Unknown data type kind: {kind!r}.")
    return dtype.kind in _KINDS[kind]
