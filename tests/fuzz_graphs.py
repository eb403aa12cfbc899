"""Random valid graphs over all primitives, for comparing ways to run them.

Everything follows from a seed and a depth (nodes on the longest path). A graph is either *exact*, then all
ways must agree bit for bit (any NaN equals any other) on data full of special values, or *smooth*, then its
values stay moderate and rounding may differ: by what errors of 4 units in the last place explain (see
`slack`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from ingot.lowering.simplify.common import drop_dead
from ingot.lowering.simplify.inline import inline_calls
from ingot.tracer import dims, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.dtypes import Dtype
from ingot.tracer.graph import Constant, Graph, GraphBuilder, Literal, Operand
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import contract as ct
from ingot.tracer.primitives import control as cf
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives import index as ix
from ingot.tracer.primitives import random_bits as rb
from ingot.tracer.primitives import reduce as rd
from ingot.tracer.primitives import shape as sh

B = Dim("B")
C = Dim("C", min=1, max=40)
D = Dim("D", min=4, multiple_of=4)
SIZES: tuple[dict[str, int], ...] = (
    {"B": 5, "C": 3, "D": 8},
    {"B": 0, "C": 1, "D": 4},
    {"B": 17, "C": 33, "D": 16},
    {"B": 1, "C": 2, "D": 12},
    {"B": 40, "C": 16, "D": 36},
)
STATIC = (0, 1, 1, 2, 3, 4, 5, 7, 13, 15, 16, 17, 33)
MOST_ELEMENTS = 6000

FLOATS = (dtypes.float32, dtypes.float32, dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16)
INTS = (
    dtypes.int32, dtypes.int32, dtypes.int64, dtypes.int8, dtypes.int16, dtypes.uint8, dtypes.uint16,
    dtypes.uint32, dtypes.uint64,
)  # fmt: skip

_FLOAT_UNARY = (
    ew.Neg, ew.Abs, ew.Sign, ew.Square, ew.Floor, ew.Ceil, ew.Round, ew.Trunc, ew.Sqrt, ew.Rsqrt, ew.Identity,
    ew.StopGradient,
)  # fmt: skip
_INT_UNARY = (ew.Neg, ew.Abs, ew.Sign, ew.Square, ew.BitwiseNot, ew.Identity, ew.StopGradient)
_BOOL_UNARY = (ew.Abs, ew.Sign, ew.Square, ew.LogicalNot, ew.BitwiseNot, ew.Identity)
_COMPLEX_UNARY = (ew.Neg, ew.Square, ew.Identity, ew.StopGradient, ew.Conjugate, ew.Imag)
_CONTINUOUS = (ew.Neg, ew.Abs, ew.Square, ew.Identity, ew.StopGradient)
_ROUGH = (
    ew.Exp, ew.Expm1, ew.Log, ew.Log1p, ew.Log2, ew.Log10, ew.Sin, ew.Cos, ew.Tan, ew.Asin, ew.Acos, ew.Atan,
    ew.Sinh, ew.Cosh, ew.Tanh, ew.Asinh, ew.Acosh, ew.Atanh, ew.Sigmoid, ew.Erf, ew.Erfinv,
)  # fmt: skip
_ROUGH_COMPLEX = (
    ew.Exp, ew.Expm1, ew.Log, ew.Log1p, ew.Log2, ew.Log10, ew.Sin, ew.Cos, ew.Tan, ew.Asin, ew.Acos, ew.Atan,
    ew.Sinh, ew.Cosh, ew.Tanh, ew.Asinh, ew.Acosh, ew.Atanh, ew.Sigmoid, ew.Sqrt, ew.Rsqrt,
)  # fmt: skip
_DOMAIN: dict[type[Primitive], str] = {  # where functions stay far from their poles and edges
    ew.Log: "positive", ew.Log1p: "positive", ew.Log2: "positive", ew.Log10: "positive", ew.Acosh: "above",
    ew.Asin: "inside", ew.Acos: "inside", ew.Atanh: "inside", ew.Erfinv: "inside", ew.Tan: "inside",
    ew.Exp: "inside", ew.Expm1: "inside", ew.Sinh: "inside", ew.Cosh: "inside",
    ew.Sqrt: "positive", ew.Rsqrt: "positive",
}  # fmt: skip
_FLOAT_BINARY = (ew.Add, ew.Sub, ew.Mul, ew.Div, ew.Maximum, ew.Minimum, ew.Remainder)
_INT_BINARY = (
    ew.Add, ew.Sub, ew.Mul, ew.Maximum, ew.Minimum, ew.Remainder, ew.FloorDivide, ew.BitwiseAnd, ew.BitwiseOr,
    ew.BitwiseXor, ew.LeftShift, ew.RightShift, ew.Pow,
)  # fmt: skip
_BOOL_BINARY = (
    ew.Add, ew.Sub, ew.Mul, ew.Maximum, ew.Minimum, ew.Remainder, ew.FloorDivide, ew.BitwiseAnd, ew.BitwiseOr,
    ew.BitwiseXor, ew.LogicalAnd, ew.LogicalOr, ew.Pow,
)  # fmt: skip
_COMPLEX_BINARY = (ew.Add, ew.Sub, ew.Mul, ew.Div)
_COMPARE = (ew.Eq, ew.Ne, ew.Lt, ew.Le, ew.Gt, ew.Ge)


ELSEWHERE = frozenset({"custom_function", "scan_loop"})
"""Native primitives that are not among the steps: they hold graphs, whose nodes are; tests of their own
compare them with loops."""


class Unfit(ValueError):
    """A step that the values at hand do not allow."""


@dataclass
class Case:
    """A graph, the sizes of its dims to run it at, and how results compare.

    signed_zeros: no step may choose between zeros of different sign.
    """

    graph: Graph
    sizes: tuple[dict[str, int], ...]
    exact: bool
    signed_zeros: bool
    seed: int

    def inputs(self, env: dict[str, int]) -> list[np.ndarray]:
        """Data for the inputs."""
        rng = np.random.default_rng([self.seed, *env.values()])
        return [
            data(rng, tuple(dims.evaluate(n, env) for n in a.shape), a.dtype, self.exact)
            for a in self.graph.inputs
        ]


def data(rng: np.random.Generator, shape: tuple[int, ...], dtype: Dtype, special: bool) -> np.ndarray:
    """Random elements; with `special` many limits, infinities, NaN and subnormals among them."""
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape).astype(bool))
    if dtype.kind in "iu":
        info = np.iinfo(dtype.numpy)
        small = rng.integers(-9 if dtype.kind == "i" else 0, 10, shape).astype(dtype.numpy)
        if not special:
            return np.asarray(small)
        limits = [info.min, info.max, info.min + 1, info.max - 1, 0, 1, dtype.size * 8, dtype.size * 8 - 1]
        return np.where(rng.random(shape) < 0.3, rng.choice(np.array(limits, dtype.numpy), shape), small)
    values = np.asarray(rng.normal(size=shape))
    if not special:
        return np.asarray(np.clip(values, -2, 2).astype(dtype.numpy))
    edges = [
        np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, -1.5, 2.5, 1e-40, -1e-42, 6e-8, 65504.0, 3e38, -3e38,
        2.0**31, -(2.0**31), 2.0**32, 2.0**63, -(2.0**63), 2.0**64, 127.5, 128.0, -129.0, 255.0, 256.0,
    ]  # fmt: skip
    mixed = np.where(rng.random(shape) < 0.35, rng.choice(edges, shape), values * 3)
    with np.errstate(all="ignore"):
        return np.asarray(mixed.astype(dtype.numpy))


def largest(extent: Extent) -> int:
    """The largest value at any of `SIZES`."""
    return max(dims.evaluate(extent, env) for env in SIZES) if isinstance(extent, Dim) else extent


def fits(a: Sequence[Extent], b: Sequence[Extent]) -> bool:
    """Whether two shapes broadcast against each other."""
    pairs = zip(a[::-1], b[::-1], strict=False)
    return all(dims.same(m, n) or dims.same(m, 1) or dims.same(n, 1) for m, n in pairs)


@dataclass
class Maker:
    """Grows one graph.

    sub: it becomes a closed graph. rough: values that rounding reached, which steps that jump (comparisons,
    say) must not read, as they would turn a rounding error into another result.
    """

    rng: np.random.Generator
    exact: bool
    symbols: tuple[Dim, ...]
    inputs: Sequence[Aval]
    sub: bool = False
    rough: set[int] = field(default_factory=set)
    zeros_differ: bool = False

    def __post_init__(self) -> None:
        self.b = GraphBuilder("f", self.inputs)
        self.depths: dict[int, int] = {}
        self.env = {s.name: SIZES[0][s.name] for s in self.symbols}
        self.samples: dict[int, np.ndarray] = {}
        self.wild: set[int] = set()
        if not self.exact and not self.sub:
            rng = np.random.default_rng(0)
            for i, a in enumerate(self.inputs):
                self.sampled(i, data(rng, tuple(dims.evaluate(n, self.env) for n in a.shape), a.dtype, False))

    def constant(self, constant: Constant) -> None:
        value = self.b.constant(constant)
        if self.samples:
            self.sampled(value, np.asarray(constant.data))

    def sampled(self, value: int, sample: np.ndarray) -> None:
        """Note what a value is at the first sizes; no step may read one that is not moderate."""
        self.samples[value] = sample
        if sample.dtype.kind not in "biu" and sample.size:
            with np.errstate(all="ignore"):
                top = np.max(np.abs(sample.astype(np.complex128)))
            if not top <= 1e3:
                self.wild.add(value)

    # -- choices ------------------------------------------------------------------------------------

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def dtype(self) -> Dtype:
        if self.chance(0.08):
            return dtypes.complex64
        if not self.exact:
            return self.pick(FLOATS) if self.chance(0.85) else self.pick(INTS)
        return self.pick([self.pick(FLOATS), self.pick(INTS), dtypes.bool_])

    def extent(self) -> Extent:
        if self.symbols and self.chance(0.4):
            s = self.pick(self.symbols)
            return self.pick([s, s, s, s + 1, 2 * s, s + 3])
        return int(self.pick(STATIC))

    def shape(self, rank: int | None = None) -> tuple[Extent, ...]:
        rank = int(self.pick([0, 1, 1, 2, 2, 3, 4])) if rank is None else rank
        shape = tuple(self.extent() for _ in range(rank))
        return shape if largest(dims.product(shape)) <= MOST_ELEMENTS // 4 else self.shape(rank - 1)

    def value(self, kinds: str = "biufc", ndim: int = 0) -> int:
        """A value of one of these kinds and at least this rank."""
        found = [
            i for i, a in enumerate(self.b.avals)
            if a.dtype.kind in kinds and a.ndim >= ndim and i not in self.wild
        ]  # fmt: skip
        if not found:
            raise Unfit
        if self.chance(0.4):  # so that graphs get deep
            return max(found[-6:], key=lambda i: self.depths.get(i, 0))
        return found[max(int(self.rng.integers(len(found))), int(self.rng.integers(len(found))))]

    def axis(self, aval: Aval) -> int:
        return int(self.rng.integers(aval.ndim))

    def axes(self, aval: Aval) -> tuple[int, ...]:
        return tuple(i for i in range(aval.ndim) if self.chance(0.5))

    def some_axes(self, aval: Aval, most: int) -> tuple[int, ...]:
        """One to `most` axes in any order."""
        count = int(self.rng.integers(1, min(aval.ndim, most) + 1))
        return tuple(int(i) for i in self.rng.permutation(aval.ndim)[:count])

    def literal(self, dtype: Dtype) -> Literal:
        if dtype.kind == "c":
            return Literal(complex(1, -2), dtype)
        if not self.exact and dtype.kind == "f":
            return Literal(float(self.pick([0.5, 1.0, -1.25, 2.0])), dtype)
        return Literal(data(self.rng, (), dtype, self.exact).item(), dtype)

    # -- building -----------------------------------------------------------------------------------

    def aval(self, operand: Operand) -> Aval:
        return self.b.aval_of(operand)

    def add(self, primitive: Primitive, *operands: Operand, rough: bool = False) -> int:
        for aval in primitive.result_avals(tuple(self.aval(o) for o in operands)):
            if largest(aval.size) > MOST_ELEMENTS or aval.ndim > 5:
                raise Unfit
        samples = self.evaluated(primitive, operands)
        results = self.b.add(primitive, operands, scope=self.pick(["", "layer"]))
        if rough or any(o in self.rough for o in operands if not isinstance(o, Literal)):
            self.rough.update(r for r in results if self.b.avals[r].dtype.is_inexact)
        depth = 1 + max((self.depths.get(o, 0) for o in operands if isinstance(o, int)), default=0)
        self.depths.update((r, depth) for r in results)
        for r, sample in zip(results, samples, strict=bool(samples)):
            self.sampled(r, np.asarray(sample))
        return results[0]

    def evaluated(self, primitive: Primitive, operands: Sequence[Operand]) -> Sequence[np.ndarray]:
        """Samples of the results, where there are any of the operands."""
        if not self.samples:
            return ()
        made = primitive.substitute(self.env) if self.env else primitive
        known = [o.numpy() if isinstance(o, Literal) else self.samples[o] for o in operands]
        try:
            with np.errstate(all="ignore"):
                found = made.evaluate(*known)
        except IndexError:
            raise Unfit from None
        return found if isinstance(found, tuple) else (found,)

    @property
    def depth(self) -> int:
        return max(self.depths.values(), default=0)

    def steady(self, *operands: Operand) -> None:
        """For steps that jump: leaves them out for operands that rounding reached."""
        if any(o in self.rough for o in operands if not isinstance(o, Literal)):
            raise Unfit

    def partner(self, x: int) -> Operand:
        """Something of the dtype of `x` that broadcasts against it."""
        a = self.aval(x)
        found = [i for i, o in enumerate(self.b.avals) if o.dtype is a.dtype and i not in self.wild]
        for _ in range(4):
            y = self.pick(found)
            if fits(self.aval(y).shape, a.shape):
                return y
        return self.literal(a.dtype)

    def inside(self, x: int, where: str) -> int:
        """`x` brought into the domain of a function."""
        dtype = self.aval(x).dtype
        if dtype.kind == "c":  # a short line far from cuts
            re = self.add(ew.Tanh(), self.add(ew.ConvertElementType(dtypes.float32), x), rough=True)
            z = self.add(ew.Mul(), self.add(ew.ConvertElementType(dtype), re), Literal(0.4 + 0.2j, dtype))
            shift = {"inside": 0, "positive": 1, "above": 2 + 2j}[where]
            return self.add(ew.Add(), z, Literal(complex(shift), dtype)) if shift else z
        if where == "inside":
            return self.add(ew.Mul(), self.add(ew.Tanh(), x, rough=True), Literal(0.875, dtype))
        base = self.add(ew.Add(), self.add(ew.Abs(), x), Literal(0.5, dtype))
        return base if where == "positive" else self.add(ew.Add(), base, Literal(1.0, dtype))

    def index(self, extent: Extent, shape: tuple[Extent, ...]) -> int:
        """Integers below `extent` (where it is not 0), negative ones among them; seldom out of bounds."""
        dtype, wide = self.pick(INTS), dtypes.int64
        anything = [i for i, a in enumerate(self.b.avals) if a.dtype.kind in "iu"]
        if self.exact and anything and self.chance(0.05):
            return self.pick(anything)
        count = self.add(sh.Iota(shape, len(shape) - 1, wide) if shape else sh.DimValue(3, wide))
        count = self.add(ew.Mul(), count, Literal(int(self.pick([1, 3, 7])), wide))
        n: Operand = Literal(max(extent, 1), wide) if isinstance(extent, int) else -1
        if isinstance(extent, Dim):
            n = self.add(ew.Maximum(), self.add(sh.DimValue(extent, wide)), Literal(1, wide))
        at = self.add(ew.Remainder(), count, n)
        if dtype.kind == "i" and self.chance(0.5):
            at = self.add(ew.Sub(), at, self.add(ew.FloorDivide(), n, Literal(2, wide)))
        return self.add(ew.ConvertElementType(dtype), at)

    def grow(self, steps: int, depth: int = 1 << 30) -> None:
        """Add about `steps` steps, no more once the graph is `depth` deep."""
        done = 0
        for _ in range(4 * steps):
            if self.depth >= depth:
                return
            before = len(self.b.nodes)
            try:
                self.pick(_CHOICES)(self)
            except ValueError:
                pass  # what a step needs is not there, or a question that a symbol does not answer
            done += len(self.b.nodes) > before
            if done >= steps:
                return


# -- steps -------------------------------------------------------------------------------------------------


def unary(m: Maker) -> None:
    x = m.value("biufc")
    kind = m.aval(x).dtype.kind
    cls = m.pick({"f": _FLOAT_UNARY, "b": _BOOL_UNARY, "c": _COMPLEX_UNARY}.get(kind, _INT_UNARY))
    if kind == "f" and not m.exact and cls in _DOMAIN:
        x = m.inside(x, _DOMAIN[cls])
    elif kind == "f" and cls not in _CONTINUOUS:
        m.steady(x)
    m.add(cls(), x)


def complex_part(m: Maker) -> None:
    x = m.value("c")
    cls = m.pick((ew.Conjugate, ew.Imag) if m.exact else (ew.Conjugate, ew.Imag, ew.Modulus))
    m.add(cls(), m.inside(x, "inside") if cls is ew.Modulus else x, rough=cls is ew.Modulus)


def rough(m: Maker) -> None:
    if m.exact:
        return
    x = m.value("fc")
    is_complex = m.aval(x).dtype.is_complex
    cls = m.pick(_ROUGH_COMPLEX if is_complex else _ROUGH)
    if cls in _DOMAIN or is_complex:
        x = m.inside(x, _DOMAIN.get(cls, "inside"))
    m.add(cls(), x, rough=True)


def rough_binary(m: Maker) -> None:
    if m.exact:
        return
    x = m.value("fc")
    y = m.partner(x)
    is_complex = m.aval(x).dtype.is_complex
    cls = m.pick([ew.Pow, ew.Div] if is_complex else [ew.Logaddexp, ew.Atan2, ew.Pow, ew.Div])
    if cls is ew.Atan2:
        y = m.inside(y, "positive") if isinstance(y, int) else Literal(2.0, y.dtype)
    elif cls in (ew.Pow, ew.Div):
        x, y = m.inside(x, "positive"), m.inside(y, "positive") if isinstance(y, int) else y
    m.add(cls(), x, y, rough=True)


def binary(m: Maker) -> None:
    x = m.value("biufc")
    y = m.partner(x)
    kind = m.aval(x).dtype.kind
    cls = m.pick({"f": _FLOAT_BINARY, "b": _BOOL_BINARY, "c": _COMPLEX_BINARY}.get(kind, _INT_BINARY))
    if cls in (ew.LeftShift, ew.RightShift) and isinstance(y, Literal) and m.chance(0.8):
        y = Literal(int(m.pick([0, 1, 3, 7, 31, 63, 64, 100])), y.dtype)
    if kind in "fc" and not m.exact and cls in (ew.Div, ew.Remainder):
        return
    m.zeros_differ |= kind == "f" and cls in (ew.Maximum, ew.Minimum)
    m.add(cls(), *((x, y) if m.chance(0.5) else (y, x)))


def compare(m: Maker) -> None:
    x = m.value("biufc")
    y = m.partner(x)
    m.steady(x, y)
    m.add(m.pick(_COMPARE)(), x, y)


def select(m: Maker) -> None:
    x = m.value()
    a = m.aval(x)
    masks = [i for i, o in enumerate(m.b.avals) if o.dtype.kind == "b" and fits(o.shape, a.shape)]
    if masks and m.chance(0.5):
        mask = m.pick(masks)
    else:
        m.steady(x)
        mask = m.add(ew.Gt(), x, m.literal(a.dtype))
    y = m.partner(x)
    m.add(ew.Select(), mask, *((x, y) if m.chance(0.5) else (y, x)))


def convert(m: Maker) -> None:
    x = m.value()
    to = m.dtype()
    if m.aval(x).dtype.is_inexact and not to.is_inexact:
        m.steady(x)
    m.add(ew.ConvertElementType(to), x)


def bitcast(m: Maker) -> None:
    x = m.value("iufc")
    dtype = m.aval(x).dtype
    if dtype.kind in "fc" and (not m.exact or x >= len(m.b.inputs)):
        raise Unfit  # which NaN a computation gives is not fixed
    m.add(ew.Bitcast(m.pick([d for d in dtypes.ALL if d.size == dtype.size and d.kind in "iu"])), x)


def reduce_exact(m: Maker) -> None:
    x = m.value("biuf")
    a = m.aval(x)
    options: list[type[rd.Reduce]] = [rd.ReduceMax, rd.ReduceMin]
    if a.dtype.kind == "b":
        options += [rd.ReduceAll, rd.ReduceAny]
    elif a.dtype.kind == "f":
        m.zeros_differ = True
    else:
        options += [rd.ReduceSum, rd.ReduceSum, rd.ReduceProd]
    m.add(m.pick(options)(m.axes(a), m.chance(0.5)), x)


def reduce_rough(m: Maker) -> None:
    if m.exact:
        return
    x = m.value("fc")
    a = m.aval(x)
    axes = m.axes(a)
    few = largest(dims.product([a.shape[i] for i in axes])) <= 8
    m.add((rd.ReduceProd if few and m.chance(0.3) else rd.ReduceSum)(axes, m.chance(0.5)), x, rough=True)


def softmax(m: Maker) -> None:
    if m.exact:
        return
    x = m.value("f", 1)
    axis = m.axis(m.aval(x))
    top = m.add(rd.ReduceMax((axis,), True), x)
    e = m.add(ew.Exp(), m.add(ew.Sub(), x, top), rough=True)
    m.add(ew.Div(), e, m.add(rd.ReduceSum((axis,), True), e, rough=True))


def arg_reduce(m: Maker) -> None:
    x = m.value("biuf", 1)
    a = m.aval(x)
    m.steady(x)
    axis = m.axis(a)
    if not dims.decide("gt", a.shape[axis], 0):
        raise Unfit
    m.add(m.pick([rd.Argmax, rd.Argmin])(axis, m.chance(0.5)), x)


def transpose(m: Maker) -> None:
    x = m.value()
    m.add(sh.Transpose(tuple(int(i) for i in m.rng.permutation(m.aval(x).ndim))), x)


def reshape(m: Maker) -> None:
    x = m.value()
    a = m.aval(x)
    shapes: list[tuple[Extent, ...]] = [(a.size,), (a.size, 1), (1, *a.shape)]
    for i, (p, q) in enumerate(pairwise(a.shape)):
        shapes.append((*a.shape[:i], p * q, *a.shape[i + 2 :]))
    for i, n in enumerate(a.shape):
        for k in (2, 3, 4):
            part = dims.divide_exactly(n, k)
            if part is not None:
                shapes += [(*a.shape[:i], p, q, *a.shape[i + 1 :]) for p, q in ((part, k), (k, part))]
    if isinstance(a.size, int):
        shapes += [(k, a.size // k) for k in (2, 3, 5, 6, 16) if a.size % k == 0]
        shapes += [(2, a.size // 6, 3)] if a.size % 6 == 0 else []
    m.add(sh.Reshape(m.pick(shapes)), x)


def slice_(m: Maker) -> None:
    x = m.value("biufc", 1)
    starts: list[Extent] = []
    stops: list[Extent] = []
    strides = []
    for n in m.aval(x).shape:
        step = int(m.pick([1, 1, 1, 2, 3, -1, -2, -5]))
        lo: Extent
        hi: Extent
        if isinstance(n, Dim):
            some = [(0, n), (dims.minimum(2, n), n), (0, dims.minimum(n, 7)), (0, dims.maximum(n - 1, 0))]
            lo, hi = m.pick(some)
        else:
            lo, hi = sorted(int(i) for i in m.rng.integers(0, n + 1, 2)) if m.chance(0.7) else (0, n)
        starts.append(lo if step > 0 else hi - 1)
        stops.append(hi if step > 0 else lo - 1)
        strides.append(step)
    m.add(sh.Slice(tuple(starts), tuple(stops), tuple(strides)), x)


def slice_update(m: Maker) -> None:
    x = m.value("biufc", 1)
    a = m.aval(x)
    starts: list[Extent] = []
    shape: list[Extent] = []
    strides = []
    for n in a.shape:
        step = int(m.pick([1, 1, 2, 3, -1, -2]))
        lo = dims.minimum(int(m.pick([0, 0, 1, 2])), n)
        shape.append(sh.slice_length(lo, n, step) if step > 0 else sh.slice_length(n - 1, lo - 1, step))
        starts.append(lo if step > 0 else n - 1)
        strides.append(step)
    update = m.add(sh.BroadcastTo(tuple(shape)), m.literal(a.dtype))
    if a.dtype.kind not in "bc" and m.chance(0.7):
        update = m.add(ew.Add(), update, m.add(sh.Iota(tuple(shape), m.axis(a), a.dtype)))
    m.add(sh.SliceUpdate(tuple(starts), tuple(strides)), x, update)


def pad(m: Maker) -> None:
    x = m.value()
    a = m.aval(x)
    low, high = (
        tuple(m.extent() if m.chance(0.1) else int(m.pick([0, 0, 1, 2])) for _ in a.shape) for _ in range(2)
    )
    scalars = [i for i, o in enumerate(m.b.avals) if o.dtype is a.dtype and not o.ndim]
    m.add(sh.Pad(low, high), x, m.pick(scalars) if scalars and m.chance(0.5) else m.literal(a.dtype))


def concatenate(m: Maker) -> None:
    x = m.value("biufc", 1)
    a = m.aval(x)
    axis = m.axis(a)

    def joins(o: Aval) -> bool:
        same = [k == axis or dims.same(p, q) for k, (p, q) in enumerate(zip(o.shape, a.shape, strict=False))]
        return o.dtype is a.dtype and o.ndim == a.ndim and all(same)

    parts = [i for i, o in enumerate(m.b.avals) if joins(o)]
    m.add(sh.Concatenate(axis), *[m.pick(parts) for _ in range(int(m.pick([1, 2, 2, 3, 4])))])


def reverse(m: Maker) -> None:
    x = m.value()
    m.add(sh.Reverse(m.axes(m.aval(x))), x)


def broadcast(m: Maker) -> None:
    x = m.value()
    shape = tuple(m.extent() if dims.same(n, 1) and m.chance(0.7) else n for n in m.aval(x).shape)
    m.add(sh.BroadcastTo((*m.shape(int(m.pick([0, 1]))), *shape)), x)


def iota(m: Maker) -> None:
    shape, dtype = m.shape(), m.dtype()
    if shape and dtype.kind != "b":
        m.add(sh.Iota(shape, int(m.rng.integers(len(shape))), dtype))
    else:
        m.add(sh.DimValue(m.extent(), m.pick(INTS + FLOATS)))


def gather(m: Maker) -> None:
    x = m.value("biufc", 1)
    a = m.aval(x)
    axes = m.some_axes(a, 3)
    shape = m.shape(int(m.pick([0, 1, 2])))
    indices = [m.index(a.shape[axis], shape if m.chance(0.7) else shape[1:]) for axis in axes]
    position = int(m.rng.integers(a.ndim - len(axes) + 1))
    m.add(ix.Gather(axes, axes[0] if len(axes) == 1 and m.chance(0.6) else position), x, *indices)


def scatter(m: Maker) -> None:
    x = m.value("biufc", 1)
    a = m.aval(x)
    axes = m.some_axes(a, 2)
    shape = m.shape(int(m.pick([0, 1, 2])))
    indices = [m.index(a.shape[axis], shape) for axis in axes]
    position = int(m.rng.integers(a.ndim - len(axes) + 1))
    updates = m.add(ix.Gather(axes, position), x, *indices)
    if a.dtype.kind != "b" and m.chance(0.5):
        updates = m.add(ew.Add(), updates, m.literal(a.dtype))
    mode = m.pick(["set", "add", "mul", "min", "max"])
    if a.dtype.kind in "fc" and mode == "mul" and not m.exact:
        mode = "set"
    if a.dtype.kind == "c" and mode != "set":
        mode = "add"  # products of NumPy depend on the processor, and which is less on last bits
    m.zeros_differ |= a.dtype.kind == "f" and mode in ("min", "max")
    m.add(ix.Scatter(mode, axes, position), x, updates, *indices, rough=mode == "add" and not m.exact)


def dynamic(m: Maker) -> None:
    x = m.value("biufc", 1)
    a = m.aval(x)
    axes = tuple(sorted(m.some_axes(a, 2)))
    sizes = tuple(dims.minimum(n, int(m.pick([0, 1, 3, 8]))) if m.chance(0.6) else n for n in a.shape)
    count = m.add(sh.Iota((len(axes),), 0, dtypes.int32))
    count = m.add(ew.Mul(), count, Literal(int(m.pick([0, 1, 1])), dtypes.int32))
    starts = m.add(ew.ConvertElementType(m.pick(INTS)), count)
    window = m.add(ix.DynamicSlice(axes, sizes), x, starts)
    if m.chance(0.6):
        if a.dtype.kind != "b" and m.chance(0.6):
            window = m.add(ew.Add(), window, m.literal(a.dtype))
        m.add(ix.DynamicUpdate(axes), x, window, starts)


def dot(m: Maker) -> None:
    x = m.value("iu" if m.exact else "fc", 1)
    a = m.aval(x)
    y = m.pick([i for i, o in enumerate(m.b.avals) if o.dtype is a.dtype and o.ndim and i not in m.wild])
    c = m.aval(y)
    pairs = [(i, j) for i in range(a.ndim) for j in range(c.ndim) if dims.same(a.shape[i], c.shape[j])]
    chosen: list[tuple[int, int]] = []
    for k in m.rng.permutation(len(pairs)):
        i, j = pairs[int(k)]
        if all(i != p and j != q for p, q in chosen) and len(chosen) < 3:
            chosen.append((i, j))
    cut = int(m.rng.integers(len(chosen) + 1))
    contract, batch = ((tuple(i for i, _ in p), tuple(j for _, j in p)) for p in (chosen[:cut], chosen[cut:]))
    m.add(ct.DotGeneral(contract, batch), x, y, rough=a.dtype.is_inexact)


def matmul(m: Maker) -> None:
    dtype = m.pick(INTS if m.exact else FLOATS)
    p, q, r = m.extent(), m.extent(), m.extent()
    is_float = dtype.kind == "f"
    x = m.add(ew.Mul(), m.add(sh.Iota((p, q), 1, dtype)), Literal(0.125 if is_float else 3, dtype))
    y = m.add(sh.Transpose((1, 0)), m.add(sh.Iota((r, q), 0, dtype)))
    if m.chance(0.5):
        y = m.add(ew.Sub(), Literal(1, dtype), y)
    z = m.add(ct.DotGeneral(((1,), (0,))), x, y, rough=is_float)
    if m.chance(0.5):
        m.add(ew.Add(), z, m.literal(dtype))


def random_bits(m: Maker) -> None:
    key = m.add(sh.Iota((2,), 0, dtypes.uint32))
    m.add(rb.RandomBits(m.shape(), int(m.pick([1, 2, 4]))), key)


def barrier(m: Maker) -> None:
    m.add(sh.OptimizationBarrier(), *[m.value() for _ in range(int(m.pick([1, 2])))])


def call(m: Maker) -> None:
    if m.sub:
        return
    operands = [m.value() for _ in range(int(m.pick([1, 2])))]
    avals = [m.aval(o) for o in operands]
    bound = tuple(s for s in m.symbols if any(s in a.shape for a in avals))
    inner = Maker(m.rng, m.exact, bound, avals, sub=True)
    inner.rough = {i for i, o in enumerate(operands) if o in m.rough}
    inner.grow(int(m.pick([1, 2, 4])))
    m.zeros_differ |= inner.zeros_differ
    last = len(inner.b.avals) - 1
    graph = inner.b.finish(sorted({last, int(m.rng.integers(last + 1))}))
    m.add(cf.Call(graph, m.pick(["compiled", "checkpoint", "module"])), *operands, rough=bool(inner.rough))


def cond(m: Maker) -> None:
    operands = [m.value() for _ in range(2)]
    avals = [m.aval(o) for o in operands]

    def branch() -> Graph:
        b = GraphBuilder("branch", avals)
        numeric = [ew.Neg(), ew.Identity()]
        changes = [ew.BitwiseNot() if a.dtype.kind == "b" else m.pick(numeric) for a in avals]
        return b.finish([b.add(change, [i])[0] for i, change in enumerate(changes)])

    size = m.add(sh.DimValue(m.extent(), dtypes.int32))
    m.add(cf.Cond(branch(), branch()), m.add(ew.Ne(), size, Literal(1, dtypes.int32)), *operands)


def while_loop(m: Maker) -> None:
    x = m.value()
    carry = [Aval((), dtypes.int32), m.aval(x)]
    test, body = GraphBuilder("test", carry), GraphBuilder("body", carry)
    going = test.add(ew.Lt(), [0, Literal(3, dtypes.int32)])
    count = body.add(ew.Add(), [0, Literal(1, dtypes.int32)])
    change = body.add(ew.BitwiseNot() if carry[1].dtype.kind == "b" else ew.Neg(), [1])
    loop = cf.WhileLoop(test.finish(going), body.finish([*count, *change]), 0, 0)
    m.add(loop, Literal(int(m.rng.integers(4)), dtypes.int32), x)


def redundant(m: Maker) -> None:
    """What simplification sees through."""
    x = m.value("iuf")
    a = m.aval(x)
    kind = int(m.rng.integers(6))
    if kind == 0:
        m.add(ew.Pow(), x, Literal(int(m.pick([1, 2])) if a.dtype.kind in "iu" else 1.0, a.dtype))
    elif kind == 1 and a.dtype.kind == "f":
        m.add(ew.Div(), x, Literal(1.0, a.dtype))
    elif kind == 2:
        m.add(ew.Neg(), m.add(ew.Neg(), x))
    elif kind == 3:
        mask = m.value("b")
        m.add(ew.LogicalNot(), m.add(ew.LogicalNot(), mask))
    elif kind == 4:
        zero = -0.0 if a.dtype.kind == "f" else 0
        m.add(ew.Sub(), m.add(ew.Add(), x, Literal(zero, a.dtype)), Literal(abs(zero), a.dtype))
    else:
        three = m.add(sh.DimValue(3, dtypes.int32))
        m.add(ew.Select(), m.add(ew.Eq(), three, Literal(3, dtypes.int32)), x, x)


STEPS: tuple[tuple[Callable[[Maker], None], int], ...] = (
    (unary, 6), (complex_part, 3), (rough, 6), (rough_binary, 2), (binary, 10), (compare, 2), (select, 3),
    (convert, 4), (bitcast, 1), (reduce_exact, 5), (reduce_rough, 4), (softmax, 1), (arg_reduce, 2),
    (transpose, 3), (reshape, 4), (slice_, 4), (slice_update, 2), (pad, 3), (concatenate, 3), (reverse, 2),
    (broadcast, 3), (iota, 2), (gather, 3), (scatter, 2), (dynamic, 2), (dot, 4), (matmul, 1),
    (random_bits, 1), (redundant, 1), (barrier, 1), (call, 1), (cond, 1), (while_loop, 1),
)  # fmt: skip
"""Steps with how often each is tried."""
_CHOICES = [step for step, weight in STEPS for _ in range(weight)]


DEPTHS = (5, 40)
"""Least and greatest depth of random graphs; a step adds up to 5."""


def random_case(seed: int, depth: int) -> Case:
    """The case of a seed whose graph is `depth` deep, or up to 4 more."""
    rng = np.random.default_rng(seed)
    exact, symbolic = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    symbols = tuple(s for s in (B, C, D) if rng.random() < 0.5) or (B,) if symbolic else ()
    m = Maker(rng, exact, symbols, ())
    avals = [Aval(m.shape(), m.dtype()) for _ in range(int(m.pick([1, 2, 2, 3])))]
    avals += [Aval((s, *m.shape(1)), m.dtype()) for s in symbols]  # the shapes of inputs bind all symbols
    m = Maker(rng, exact, symbols, avals)
    if m.chance(0.3):
        shape, dtype = tuple(int(m.pick(STATIC)) for _ in range(int(m.pick([0, 1, 2])))), m.dtype()
        m.constant(Constant(data(rng, shape, dtype, exact), Aval(shape, dtype)))
    m.grow(100 * depth, depth)
    last = len(m.b.avals) - 1
    deepest = max(m.depths, key=m.depths.__getitem__)
    others = [int(rng.integers(last + 1)) for _ in range(int(m.pick([0, 1, 2, 4])))]
    outputs: list[Operand] = [deepest, *others]
    if m.chance(0.05):
        outputs.append(m.literal(m.dtype()))
    graph = m.b.finish(outputs)
    sizes = tuple({s.name: env[s.name] for s in graph.dims} for env in SIZES) if graph.dims else ({},)
    return Case(drop_dead(graph), sizes, exact, not m.zeros_differ, seed)


def depth_of(graph: Graph) -> int:
    """Nodes on the longest path."""
    found: dict[int, int] = {}
    for node in graph.nodes:
        depth = 1 + max((found.get(o, 0) for o in node.operands if isinstance(o, int)), default=0)
        found.update((r, depth) for r in node.results)
    return max(found.values(), default=0)


# -- comparison --------------------------------------------------------------------------------------------


def epsilon(dtype: Dtype) -> float:
    """Distance from 1 to the next number of a float dtype."""
    return {"f16": 2.0**-10, "bf16": 2.0**-7, "f64": 2.0**-52}.get(dtype.short, 2.0**-23)


def deviation(got: np.ndarray, want: np.ndarray, case: Case, allowed: np.ndarray | None) -> str:
    """What is wrong with `got`; an empty string when nothing is. allowed: errors of a smooth graph."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"expected {want.dtype}{want.shape}, got {got.dtype}{got.shape}"
    if want.dtype.kind in "biu":
        wrong = got != want
    else:
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        x, y = got.astype(wide), want.astype(wide)
        wrong = ~((x == y) | (np.isnan(x) & np.isnan(y)))
        if allowed is not None:
            with np.errstate(all="ignore"):
                wrong &= ~(np.abs(x - y) <= allowed)
        elif case.signed_zeros and want.dtype.kind != "c":
            wrong |= (x == 0) & (y == 0) & (np.signbit(x) != np.signbit(y))
    if not np.any(wrong):
        return ""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{int(np.sum(wrong))} of {wrong.size} differ, first at {at}: expected {want[at]}, got {got[at]}"


_ROUNDED = (
    *_ROUGH, *_ROUGH_COMPLEX, ew.Logaddexp, ew.Atan2, ew.Pow, rd.ReduceSum, rd.ReduceProd, ct.DotGeneral,
)  # fmt: skip
MOST = 1e6
"""Smooth graphs are not compared where a value is larger: they are not moderate at these sizes."""


def slack(graph: Graph, inputs: Sequence[np.ndarray], env: dict[str, int]) -> list[np.ndarray] | None:
    """How far results of a smooth graph may be from those of the reference: 8 times what changes when all
    operands and results of functions, sums, products and contractions, and what is made of them in half
    precision, are off by 4 units in the last place, up or down by chance, in three trials; and 4 units of the
    results, in the coarsest format that they come from. Sums are off by what adding one by one may lose, as
    the reference does along some axes. None for values that are not moderate."""
    graph = inline_calls(graph)
    graph = graph.substitute(env) if graph.dims else graph
    with np.errstate(all="ignore"):
        exact, most, coarse = _trial(graph, inputs, None)
        if not most <= MOST:
            return None
        pairs = zip(exact, coarse, strict=True)
        widest = [np.maximum(_units(y, 4.0), 4 * eps * np.abs(_wide(y))) for y, eps in pairs]
        for seed in range(3):
            found, _, _ = _trial(graph, inputs, np.random.default_rng(seed))
            changes = [np.abs(_wide(x) - _wide(y)) for x, y in zip(found, exact, strict=True)]
            widest = [np.maximum(w, 8 * c) for w, c in zip(widest, changes, strict=True)]
    return widest


def _trial(
    graph: Graph, inputs: Sequence[np.ndarray], rng: np.random.Generator | None
) -> tuple[list[np.ndarray], float, list[float]]:
    """Results of a graph, off by chance when there is a generator; the largest magnitude of a value; and for
    each result the coarsest precision of what was rounded on the way to it."""
    values: list[np.ndarray] = [*inputs, *(np.asarray(c.data) for c in graph.constants)]
    most = 0.0
    rough: dict[int, float] = {}
    for node in graph.nodes:
        operands = [o.numpy() if isinstance(o, Literal) else values[o] for o in node.operands]
        source = isinstance(node.primitive, _ROUNDED)
        if source and rng is not None:
            pairs = zip(operands, node.operands, strict=True)
            operands = [x if isinstance(o, Literal) else _off(x, rng) for x, o in pairs]  # literals are exact
        made = node.primitive.evaluate(*operands)
        before = max((rough[o] for o in node.operands if o in rough), default=0.0)
        is_rough = source or before > 0
        for result, y in zip(node.results, made if isinstance(made, tuple) else (made,), strict=True):
            y = np.asarray(y)
            if y.dtype.kind not in "biu":
                top = float(np.max(np.abs(_wide(y)), initial=0.0))
                most = max(most, math.inf if math.isnan(top) else top)
                if is_rough:
                    rough[result] = max(before, epsilon(dtypes.from_numpy(y.dtype)))
            if rng is not None and isinstance(node.primitive, rd.ReduceSum) and y.dtype.kind not in "biu":
                y = _off(y, rng, _lost(operands[0], node.primitive))
            halved = is_rough and y.dtype.itemsize == 2
            values.append(_off(y, rng) if rng is not None and (source or halved) else y)
    outputs = [o.numpy() if isinstance(o, Literal) else values[o] for o in graph.outputs]
    return outputs, most, [rough.get(o, 0.0) for o in graph.outputs]  # type: ignore[call-overload]


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _units(x: np.ndarray, count: float) -> np.ndarray:
    """Units in the last place of every element."""
    if x.dtype.kind in "biu":
        return np.zeros(x.shape)
    return count * epsilon(dtypes.from_numpy(x.dtype)) * np.abs(_wide(x)) + 1e-30


def _off(x: np.ndarray, rng: np.random.Generator, by: np.ndarray | None = None) -> np.ndarray:
    """Every element off by 4 units in the last place, or `by` something, by chance up or down."""
    if x.dtype.kind in "biu":
        return x
    change = _units(x, 4.0) if by is None else by
    return np.asarray((_wide(x) + change * rng.choice([-1.0, 1.0], x.shape)).astype(x.dtype))


def _lost(x: np.ndarray, total: rd.Reduce) -> np.ndarray:
    """An eighth of what rounding takes at most when n numbers are added one by one: n/2 units of the sum of
    magnitudes, in the format of the accumulator."""
    n = math.prod(x.shape[axis] for axis in total.axes)
    unit = 2.0**-52 if x.dtype == np.float64 else 2.0**-23
    return np.asarray(np.abs(_wide(x)).sum(axis=total.axes, keepdims=total.keepdims) * (unit * n / 16))
