"""Sample applications of every primitive, each with an independent oracle. `test_registry.py` runs them.

A family adds its own in `primitive_samples_<family>.py`, which imports `sample` from here.
Cases whose floating operands are float64 are the ones on which derivatives are tested.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ingot.tracer import dtypes
from ingot.tracer.dims import Extent
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import contract as c
from ingot.tracer.primitives import elementwise as e
from ingot.tracer.primitives import reduce as r

AUTO = "auto"


@dataclass(frozen=True)
class Case:
    """`primitive` applied to `operands`.

    expected: function of the operands that gives the result (or a tuple of results) in another way than the
        primitive does, or the result itself.
    tolerance: relative and absolute; None: one that fits the dtype (exact for integers).
    symbolic: AUTO: extents above 1 of the operands become symbols, equal extents one symbol. Where parameters
        hold extents: `(primitive with symbols, operand shapes with symbols, sizes of the symbols)` whose
        substitution gives this case. None: the primitive has no symbolic form.
    differentiable: False for a case whose float64 operands lie where there is no derivative.
    batched: operands that vmap may batch; None: all.
    native: False where the compiled function may differ (order of effects).
    """

    primitive: Primitive
    operands: tuple[np.ndarray, ...]
    expected: Callable[..., Any] | Any
    tolerance: float | None = None
    symbolic: Any = AUTO
    differentiable: bool = True
    batched: tuple[int, ...] | None = None
    native: bool = True
    name: str = ""


SAMPLES: dict[str, list[Case]] = {}


def sample(
    primitive: Primitive, operands: Sequence[Any], expected: Callable[..., Any] | Any, **options: Any
) -> None:
    """Add a case to the table."""
    case = Case(primitive, tuple(np.asarray(x) for x in operands), expected, **options)
    SAMPLES.setdefault(primitive.name, []).append(case)


Symbolic = tuple[Primitive, Sequence[Sequence[Extent]], Mapping[str, int]]

# -- values --------------------------------------------------------------------------------------------------

_random = np.random.default_rng(20)
F64, F32, F16, BF16 = np.float64, np.float32, np.float16, ml_dtypes.bfloat16
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, -2.5, 0.5, 1.5], F32)
LIMITS = {
    t: np.array([np.iinfo(t).min, np.iinfo(t).max, 0, 1, 7], t)
    for t in (np.int8, np.uint8, np.int32, np.uint64)
}


def uniform(low: float, high: float, shape: tuple[int, ...] = (3, 5), dtype: Any = F64) -> np.ndarray:
    """Random floats away from the ends."""
    return _random.uniform(low, high, shape).astype(dtype)


def integers(low: int, high: int, shape: tuple[int, ...] = (3, 5), dtype: Any = np.int32) -> np.ndarray:
    """Random integers below `high`."""
    return _random.integers(low, high, shape).astype(dtype)


def distinct(shape: tuple[int, ...], dtype: Any = F64) -> np.ndarray:
    """Numbers in random order of which no two are near."""
    n = math.prod(shape)
    return (_random.permutation(n).reshape(shape) - n / 2 + 0.25).astype(dtype)


def in_float64(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The oracle computed in float64 (complex128 for complex operands)."""

    def wide(*xs: np.ndarray) -> Any:
        return fn(*[x.astype(np.complex128 if x.dtype.kind == "c" else np.float64) for x in xs])

    return wide


def _vector(fn: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
    return np.vectorize(fn, otypes=[np.float64])


# -- elementwise: unary --------------------------------------------------------------------------------------


def _erfinv_by_bisection(y: float) -> float:
    if not -1.0 < y < 1.0:
        return math.copysign(math.inf, y) if abs(y) == 1.0 else math.nan
    low, high = -6.0, 6.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if math.erf(middle) < y else (low, middle)
    return 0.5 * (low + high)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


_UNARY: dict[type[e.Elementwise], tuple[Callable[..., Any], float, float]] = {
    e.Abs: (np.fabs, 0.2, 3), e.Neg: (lambda x: 0.0 - x, -3, 3), e.Square: (lambda x: x**2, -3, 3),
    e.Sqrt: (lambda x: x**0.5, 0.1, 9), e.Rsqrt: (lambda x: x**-0.5, 0.1, 9),
    e.Exp: (lambda x: np.power(np.e, x), -4, 4), e.Expm1: (np.expm1, -2, 2),
    e.Log: (np.log, 0.1, 9), e.Log1p: (lambda x: np.log(1.0 + x), -0.8, 3),
    e.Log2: (lambda x: np.log(x) / np.log(2.0), 0.1, 9),
    e.Log10: (lambda x: np.log(x) / np.log(10.0), 0.1, 9),
    e.Sin: (np.sin, -4, 4), e.Cos: (np.cos, -4, 4), e.Tan: (lambda x: np.sin(x) / np.cos(x), -1.2, 1.2),
    e.Asin: (np.arcsin, -0.9, 0.9), e.Acos: (lambda x: np.pi / 2 - np.arcsin(x), -0.9, 0.9),
    e.Atan: (np.arctan, -3, 3), e.Sinh: (lambda x: (np.exp(x) - np.exp(-x)) / 2, -3, 3),
    e.Cosh: (lambda x: (np.exp(x) + np.exp(-x)) / 2, -3, 3), e.Tanh: (np.tanh, -3, 3),
    e.Asinh: (lambda x: np.log(x + np.sqrt(x * x + 1)), -2, 2),
    e.Acosh: (lambda x: np.log(x + np.sqrt(x * x - 1)), 1.2, 9),
    e.Atanh: (lambda x: np.log((1 + x) / (1 - x)) / 2, -0.9, 0.9),
    e.Sigmoid: (_sigmoid, -6, 6), e.Erf: (_vector(math.erf), -2.5, 2.5),
    e.Erfinv: (_vector(_erfinv_by_bisection), -0.95, 0.95),
    e.Floor: (_vector(math.floor), -4, 4), e.Ceil: (_vector(math.ceil), -4, 4),
    e.Round: (_vector(round), -4, 4), e.Trunc: (_vector(math.trunc), -4, 4),
    e.Sign: (lambda x: np.where(x > 0, 1.0, np.where(x < 0, -1.0, 0.0)), -3, 3),
    e.Identity: (lambda x: x, -3, 3), e.StopGradient: (lambda x: x, -3, 3),
}  # fmt: skip

for _cls, (_oracle, _low, _high) in _UNARY.items():
    for _dtype in (F64, F32, F16, BF16):
        _tolerance = {F64: 1e-13, F32: 2e-6}.get(_dtype)
        sample(_cls(), [uniform(_low, _high, dtype=_dtype)], in_float64(_oracle), tolerance=_tolerance)

_OF_SPECIAL = {
    e.Exp: np.exp, e.Log: np.log, e.Sqrt: np.sqrt, e.Tanh: np.tanh, e.Floor: np.floor, e.Round: np.round,
    e.Abs: np.fabs, e.Atan: np.arctan,
}  # fmt: skip
for _cls, _numpy in _OF_SPECIAL.items():
    sample(_cls(), [SPECIAL], in_float64(_numpy), tolerance=2e-6, name="special")
_LOGISTIC = [1 / (1 + math.exp(-x)) for x in (1.0, -1.0, -2.5, 0.5, 1.5)]
sample(
    e.Sigmoid(),
    [SPECIAL],
    [0.5, 0.5, *_LOGISTIC[:2], 1, 0, np.nan, 0.5, 1, *_LOGISTIC[2:]],
    name="special",
)
sample(e.Erf(), [SPECIAL[:7]], [0, 0, math.erf(1), -math.erf(1), 1, -1, np.nan], name="special")
sample(
    e.Erfinv(), [np.array([1, -1, 2, np.nan, 0.0], F32)], [np.inf, -np.inf, np.nan, np.nan, 0], name="special"
)
sample(e.Neg(), [LIMITS[np.int8]], [-128, -127, 0, -1, -7])
sample(e.Neg(), [LIMITS[np.uint8]], [0, 1, 0, 255, 249])
sample(e.Abs(), [LIMITS[np.int8]], [-128, 127, 0, 1, 7])
sample(e.Sign(), [LIMITS[np.int8]], [-1, 1, 0, 1, 1])
sample(e.Sign(), [LIMITS[np.uint64]], [0, 1, 0, 1, 1])
sample(e.Sign(), [np.array([np.nan, -0.0], F32)], [0, 0])
sample(e.Square(), [LIMITS[np.uint8]], [0, 1, 0, 1, 49])
sample(e.Sqrt(), [np.array(2.25, F32)], 1.5, name="scalar")
sample(e.Exp(), [np.zeros((0, 3), F32)], np.zeros((0, 3)), name="empty")
sample(e.LogicalNot(), [np.array([True, False])], [False, True])
sample(e.BitwiseNot(), [LIMITS[np.int8]], [127, -128, -1, -2, -8])
sample(e.BitwiseNot(), [LIMITS[np.uint8]], [255, 0, 255, 254, 248])
sample(e.BitwiseNot(), [np.array([True, False])], [False, True])

# -- elementwise: binary -------------------------------------------------------------------------------------

_A, _B = uniform(0.3, 3), uniform(0.3, 3)
_BINARY: dict[type[e.Elementwise], Callable[..., Any]] = {
    e.Add: lambda x, y: x - (-y), e.Sub: lambda x, y: x + (-y), e.Mul: lambda x, y: x * y,
    e.Div: lambda x, y: x / y, e.Pow: lambda x, y: np.exp(y * np.log(x)),
    e.Maximum: lambda x, y: np.where(x > y, x, y), e.Minimum: lambda x, y: np.where(x < y, x, y),
    e.Remainder: lambda x, y: x - y * np.floor(x / y), e.Atan2: lambda x, y: np.angle(y + 1j * x),
    e.Logaddexp: lambda x, y: np.log(np.exp(x) + np.exp(y)),
}  # fmt: skip
for _cls, _oracle in _BINARY.items():
    for _dtype in (F64, F32, F16, BF16):
        _x, _y = _A.astype(_dtype), _B.astype(_dtype)
        _tolerance = {F64: 1e-12, F32: 3e-6}.get(_dtype)
        if _cls is e.Remainder and _dtype in (F16, BF16):
            continue  # near a multiple of the divisor rounding decides by a whole divisor
        sample(_cls(), [_x, _y], in_float64(_oracle), tolerance=_tolerance)
    sample(_cls(), [_A, _B[1:2]], in_float64(_oracle), tolerance=1e-12, name="row")
    sample(_cls(), [_A[:, :1], _B[0]], in_float64(_oracle), tolerance=1e-12, name="outer")
    sample(_cls(), [_A, np.asarray(1.7)], in_float64(_oracle), tolerance=1e-12, name="scalar")

_SIGNED = (np.array([7, -7, 7, -7, 5, 0], np.int32), np.array([2, 2, -2, -2, 0, 3], np.int32))
sample(e.FloorDivide(), _SIGNED, [3, -4, -4, 3, 0, 0])
sample(e.FloorDivide(), [np.array([7, 9, 255], np.uint8), np.array([2, 0, 16], np.uint8)], [3, 0, 15])
sample(e.FloorDivide(), [np.array([True, True]), np.array([True, False])], [True, False])
sample(e.Remainder(), _SIGNED, [1, 1, -1, -1, 0, 0])
sample(
    e.Remainder(),
    [np.array([7.5, -7.5, 7.5, 1.0], F32), np.array([2, 2, -2, 0], F32)],
    [1.5, 0.5, -0.5, np.nan],
)
sample(e.Remainder(), [np.array([True, True]), np.array([True, False])], [False, False])
sample(e.Add(), [np.array([127, -128], np.int8), np.array([1, -1], np.int8)], [-128, 127], name="wraps")
sample(e.Add(), [np.array([True, True, False]), np.array([True, False, False])], [True, True, False])
sample(e.Sub(), [np.array([0], np.uint8), np.array([1], np.uint8)], [255], name="wraps")
sample(e.Sub(), [np.array([True, True, False]), np.array([True, False, False])], [False, True, False])
sample(e.Mul(), [np.array([1 << 20], np.int32), np.array([1 << 12], np.int32)], [0], name="wraps")
sample(
    e.Pow(),
    [np.array([2, 3, 2, 0, -3], np.int32), np.array([10, 0, -1, 0, 3], np.int32)],
    [1024, 1, 0, 1, -27],
)
sample(e.Pow(), [np.array([3, 2], np.uint8), np.array([5, 9], np.uint8)], [243, 0])
sample(
    e.Pow(), [np.array([0.0, 0.0, -2.0, -2.0], F32), np.array([0.0, 2.0, 3.0, 0.5], F32)], [1, 0, -8, np.nan]
)
for _cls, _numpy in ((e.Maximum, max), (e.Minimum, min)):
    sample(_cls(), [np.array([np.nan, 1, np.inf], F32), np.array([1, np.nan, 2], F32)],
           [np.nan, np.nan, _numpy(np.inf, 2)], name="special")  # fmt: skip
    sample(
        _cls(),
        [LIMITS[np.uint64], LIMITS[np.uint64][::-1].copy()],
        lambda x, y, f=_numpy: [f(p) for p in zip(x.tolist(), y.tolist(), strict=True)],
    )
sample(
    e.Div(), [np.array([1, -1, 0], F32), np.array([0, 0, 0], F32)], [np.inf, -np.inf, np.nan], name="special"
)
sample(e.Logaddexp(), [np.array([np.inf, -np.inf, 1000], F32), np.array([np.inf, -np.inf, 1000], F32)],
       [np.inf, -np.inf, 1000 + math.log(2)], name="special")  # fmt: skip

_U, _V = np.array([1, 2, 2, 3], np.int32), np.array([2, 2, 1, -3], np.int32)
_COMPARISONS = {
    e.Eq: ([False, True, False, False], False), e.Ne: ([True, False, True, True], True),
    e.Lt: ([True, False, False, False], False), e.Le: ([True, True, False, False], False),
    e.Gt: ([False, False, True, True], False), e.Ge: ([False, True, True, True], False),
}  # fmt: skip
for _cls, (_answers, _of_nan) in _COMPARISONS.items():
    for _type in (np.int32, F32, F64, BF16):
        sample(_cls(), [_U.astype(_type), _V.astype(_type)], _answers)
    sample(
        _cls(), [np.array([[np.nan], [1]], F32), np.array([np.nan, np.nan], F32)], np.full((2, 2), _of_nan)
    )
sample(e.Lt(), [LIMITS[np.uint64], np.array([1, 1, 1, 1, 1], np.uint64)], [True, False, True, False, False])

_P, _Q = np.array([True, True, False, False]), np.array([True, False, True, False])
sample(e.LogicalAnd(), [_P, _Q], [True, False, False, False])
sample(e.LogicalOr(), [_P, _Q], [True, True, True, False])
for _cls, _int in ((e.BitwiseAnd, int.__and__), (e.BitwiseOr, int.__or__), (e.BitwiseXor, int.__xor__)):
    for _type in (np.int8, np.uint64, np.int32):
        sample(_cls(), [integers(0, 99, (6,), _type), integers(0, 99, (6,), _type)],
               lambda x, y, f=_int: [f(*p) for p in zip(x.tolist(), y.tolist(), strict=True)])  # fmt: skip
    sample(
        _cls(), [_P, _Q], lambda x, y, f=_int: [bool(f(int(p), int(q))) for p, q in zip(x, y, strict=True)]
    )
_COUNTS = np.array([0, 1, 7, 8, 31, 32, 33, -1], np.int32)
sample(e.LeftShift(), [np.full(8, 3, np.int32), _COUNTS], [3, 6, 384, 768, -(1 << 31), 0, 0, 0])
sample(e.RightShift(), [np.full(8, -256, np.int32), _COUNTS], [-256, -128, -2, -1, -1, -1, -1, -1])
sample(e.LeftShift(), [np.array([1, 255], np.uint8), np.array([7, 8], np.uint8)], [128, 0])
sample(e.RightShift(), [np.array([128, 255], np.uint8), np.array([7, 8], np.uint8)], [1, 0])

_MASK = integers(0, 2).astype(bool)
sample(e.Select(), [_MASK, _A, _B], lambda m, x, y: m * x + (1 - m) * y)
sample(
    e.Select(),
    [_MASK[:, :1], _A[:1], np.asarray(2.0)],
    lambda m, x, y: np.array([x[0] if p else [y] * 5 for p in m[:, 0]]),
    name="broadcast",
)
sample(
    e.Select(),
    [np.array([True, False]), np.array([1, 2], BF16), np.array([np.nan, np.nan], BF16)],
    [1, np.nan],
)
sample(e.Select(), [_P, _U, _V], [1, 2, 1, -3])

# -- conversion ----------------------------------------------------------------------------------------------

_TO_I32 = [0, 0, 1, -1, (1 << 31) - 1, -(1 << 31), 0, 0, (1 << 31) - 1, -2, 0, 1]
sample(e.ConvertElementType(dtypes.int32), [SPECIAL], _TO_I32)
sample(e.ConvertElementType(dtypes.int32), [SPECIAL.astype(BF16)], _TO_I32)
sample(e.ConvertElementType(dtypes.uint8), [SPECIAL], [0, 0, 1, 0, 255, 0, 0, 0, 255, 0, 0, 1])
sample(
    e.ConvertElementType(dtypes.uint64),
    [np.array([1e30, -5.0, np.nan, 3.7], F64)],
    [(1 << 64) - 1, 0, 0, 3],
    differentiable=False,
)
sample(e.ConvertElementType(dtypes.bool_), [SPECIAL], [False, False, *[True] * 10])
sample(
    e.ConvertElementType(dtypes.int8),
    [np.array([127, 128, 255, 256, -129], np.int32)],
    [127, -128, -1, 0, 127],
)
sample(e.ConvertElementType(dtypes.float32), [np.array([(1 << 24) + 1, -5], np.int32)], [1 << 24, -5])
sample(e.ConvertElementType(dtypes.float32), [np.array([True, False])], [1, 0])
sample(e.ConvertElementType(dtypes.float16), [np.array([65504, 65520, 1e-8], F32)], [65504, np.inf, 0])


def _bfloat16_bits(x: np.ndarray) -> np.ndarray:
    """Rounding to the upper half of the bits, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).view(np.float32)


sample(e.ConvertElementType(dtypes.bfloat16), [uniform(-9, 9, dtype=F32)], _bfloat16_bits, tolerance=0.0)
sample(
    e.ConvertElementType(dtypes.bfloat16),
    [np.array([1.00390625, 1.01171875, 3e38], F32)],
    _bfloat16_bits,
    tolerance=0.0,
)
sample(e.ConvertElementType(dtypes.float32), [uniform(-1, 1, dtype=BF16)], lambda x: x.astype(float))
sample(e.ConvertElementType(dtypes.float64), [_A], lambda x: x)
sample(e.ConvertElementType(dtypes.float64), [uniform(-1, 1, dtype=F32)], lambda x: x)
sample(e.Bitcast(dtypes.int32), [np.array([1.0, -0.0], F32)], [0x3F800000, -(1 << 31)])
sample(e.Bitcast(dtypes.float16), [np.array([0x3C00], np.uint16)], [1.0])
sample(e.Bitcast(dtypes.bool_), [np.array([0, 1], np.uint8)], [False, True])

# -- reductions ----------------------------------------------------------------------------------------------


def _fold(
    fn: Callable[[Any, Any], Any], start: Any, axes: tuple[int, ...], keepdims: bool
) -> Callable[..., Any]:
    """Reduction element by element in Python."""

    def oracle(x: np.ndarray) -> np.ndarray:
        shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
        out = np.full(shape, start, object)
        for index in np.ndindex(*x.shape):
            to = tuple(0 if i in axes else k for i, k in enumerate(index))
            out[to] = fn(out[to], x[index].item() if x.dtype.kind != "V" else float(x[index]))
        out = out.astype(np.float64 if x.dtype.kind in "fV" else object)
        return out if keepdims else out.reshape([n for i, n in enumerate(x.shape) if i not in axes])

    return oracle


_AXES = [((1,), False), ((0,), False), ((0, 2), True), ((0, 1, 2), False), ((), False)]
_FOLDS: dict[type[r.Reduce], tuple[Callable[[Any, Any], Any], Any]] = {
    r.ReduceSum: (lambda a, b: a + b, 0), r.ReduceProd: (lambda a, b: a * b, 1),
    r.ReduceMax: (lambda a, b: max(a, b), -math.inf), r.ReduceMin: (lambda a, b: min(a, b), math.inf),
}  # fmt: skip
for _cls, (_fn, _start) in _FOLDS.items():
    for _axes, _keep in _AXES:
        sample(
            _cls(_axes, _keep), [distinct((2, 3, 4)) / 4], _fold(_fn, _start, _axes, _keep), tolerance=1e-12
        )
    for _dtype in (F32, BF16, F16):
        sample(_cls((1,), False), [uniform(0.5, 1.5, (3, 7), _dtype)], _fold(_fn, _start, (1,), False))
    sample(_cls((0,), False), [integers(-4, 5, (5, 3))], _fold(_fn, _start, (0,), False))
sample(r.ReduceSum((0,), False), [np.full(70_000, 0.1, F16)], 70_000 * float(np.float16(0.1)), tolerance=1e-3)
sample(r.ReduceSum((1,), False), [np.zeros((2, 0), F32)], [0, 0], name="empty")
sample(r.ReduceProd((1,), False), [np.zeros((2, 0), F32)], [1, 1], name="empty")
sample(r.ReduceProd((0,), False), [np.array([[2.0, 0, 0], [3, 5, 0], [4, 7, 2]])], [24, 0, 0], name="zeros")
sample(r.ReduceMax((0,), False), [np.array([1, np.nan, 3], F32)], np.nan, name="nan")
sample(r.ReduceMax((0,), False), [np.array([True, False])], True)
sample(r.ReduceMin((0,), False), [np.array([True, False])], False)
sample(r.ReduceMax((0,), False), [LIMITS[np.uint64]], (1 << 64) - 1)
for _cls, _quantifier in ((r.ReduceAll, all), (r.ReduceAny, any)):
    _bits = np.array([[True, True, True], [True, False, True], [False, False, False]])
    sample(_cls((1,), False), [_bits], lambda x, f=_quantifier: [f(row) for row in x.tolist()])
    sample(_cls((0,), True), [_bits], lambda x, f=_quantifier: [[f(row) for row in x.T.tolist()]])
    sample(_cls((0, 1), False), [_bits], _cls is r.ReduceAny)
for _cls, _best in ((r.Argmax, max), (r.Argmin, min)):
    sample(
        _cls(1, False), [distinct((4, 6), F32)], lambda x, f=_best: [row.index(f(row)) for row in x.tolist()]
    )
    sample(
        _cls(0, True), [distinct((4, 6))], lambda x, f=_best: [[col.index(f(col)) for col in x.T.tolist()]]
    )
    sample(_cls(0, False), [np.array([2, 1, 2, 1], np.int8)], 0 if _best is max else 1, name="ties")
    sample(_cls(0, False), [np.array([2, np.nan, 5, np.nan], F32)], 1, name="nan")

# -- contraction ---------------------------------------------------------------------------------------------

_DOTS: list[tuple[c.DotGeneral, tuple[int, ...], tuple[int, ...], str]] = [
    (c.DotGeneral(((1,), (0,))), (3, 4), (4, 5), "mk,kn->mn"),
    (c.DotGeneral(((0,), (1,))), (4, 3), (5, 4), "km,nk->mn"),
    (c.DotGeneral(((0,), (0,))), (4,), (4,), "k,k->"),
    (c.DotGeneral(((), ())), (3,), (2,), "m,n->mn"),
    (c.DotGeneral(((2,), (1,)), ((0,), (0,))), (2, 3, 4), (2, 4, 5), "bmk,bkn->bmn"),
    (c.DotGeneral(((0,), (2,)), ((2,), (0,))), (4, 3, 2), (2, 5, 4), "kmb,bnk->bmn"),
    (c.DotGeneral(((1, 2), (2, 0))), (2, 3, 4), (4, 5, 3), "mab,bna->mn"),
    (c.DotGeneral(((3,), (0,)), ((1, 0), (1, 2))), (2, 3, 5, 4), (4, 3, 2), "yxmk,kxy->xym"),
]
for _dot, _left, _right, _spec in _DOTS:
    sample(_dot, [uniform(-1, 1, _left), uniform(-1, 1, _right)],
           lambda x, y, s=_spec: np.einsum(s, x, y), tolerance=1e-12)  # fmt: skip
for _dtype, _tolerance in ((F32, 3e-6), (F16, 2e-3), (BF16, 1e-2)):
    sample(c.DotGeneral(((1,), (0,))), [uniform(0.5, 1, (7, 33), _dtype), uniform(0.5, 1, (33, 9), _dtype)],
           in_float64(lambda x, y: np.einsum("mk,kn->mn", x, y)), tolerance=_tolerance)  # fmt: skip
sample(c.DotGeneral(((1,), (0,))), [integers(-9, 9, (3, 4)), integers(-9, 9, (4, 2))],
       lambda x, y: (x[:, :, None] * y[None]).sum(1))  # fmt: skip
sample(
    c.DotGeneral(((1,), (0,))), [np.zeros((2, 0), F32), np.zeros((0, 3), F32)], np.zeros((2, 3)), name="empty"
)

# -- the other families --------------------------------------------------------------------------------------

for _file in sorted(Path(__file__).parent.glob("primitive_samples_*.py")):
    importlib.import_module(_file.stem)
