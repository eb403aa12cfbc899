"""Loop IR: the second and last intermediate representation, between fused graphs and LLVM.

A `Kernel` is a nest of immutable statements over typed expressions. The whole grammar:

    Type    = (dtype short name | 'index', lanes)     lanes == 1 is a scalar; 'index' is a signed 64-bit int
    Expr    = Const | Var | Unary | Binary | Compare | Select | Math | Convert | Bitcast
            | Broadcast | Ramp | ReduceLanes | Shuffle | Extract | Insert | Load
    Stmt    = Let | Store | Prefetch | For | While | If | Alloc | Barrier | Poll | Fail
    Kernel  = (name, buffers, params, body)

Rules that hold everywhere (`lowering.loop_verify` checks them):

* Names are defined once in a kernel (single assignment). Buffers, params and variables share one name space.
* Memory is typed, flat and addressed in *elements*: a scalar index reads or writes `lanes` consecutive
  elements, a vector index gathers or scatters. Strides are ordinary index expressions, so affine structure
  stays visible.
* Values that change in a loop are *carried*: `For` and `While` name them inside the body, give their initial
  and next values, and bind the final ones to `results` after the loop. `If` yields values the same way.
* bool is a mask lane in registers and one byte (0 or 1) in memory. float16 and bfloat16 can be moved, chosen
  and converted, never computed with. complex64 memory is addressed as pairs of float32.
* A kernel has at most one `parallel` loop; it stands at the top level, begins at 0, has step 1 and carries
  nothing. Its index range is what a caller splits between threads.

The constructors below the grammar fold integers and broadcast scalars, and `lowering.loop_builder.Builder` is
the convenient way to write kernels; the records themselves fold nothing, so that printing and parsing are
inverse to each other.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import cache

from ingot.tracer.errors import GraphError
from ingot.tracer.record import field, record

INDEX = "index"
DTYPES = ("bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64", INDEX)
BYTES = {
    "bool": 1,
    "u8": 1,
    "u16": 2,
    "u32": 4,
    "u64": 8,
    "i8": 1,
    "i16": 2,
    "i32": 4,
    "i64": 8,
    "f16": 2,
    "bf16": 2,
    "f32": 4,
    "f64": 8,
    INDEX: 8,
}
FLOATS = frozenset({"f16", "bf16", "f32", "f64"})
NARROW_FLOATS = frozenset({"f16", "bf16"})
SIGNED = frozenset({"i8", "i16", "i32", "i64", INDEX})
UNSIGNED = frozenset({"u8", "u16", "u32", "u64"})
INTEGERS = SIGNED | UNSIGNED

# Where an operation is defined: 'f' f32 and f64, 'i' integers and index, 'b' bool.
UNARY = {
    "neg": "fi",
    "abs": "fi",
    "not": "ib",
    "sqrt": "f",
    "floor": "f",
    "ceil": "f",
    "trunc": "f",
    "round": "f",  # round: ties to even
    "popcount": "i",
    "clz": "i",
    "ctz": "i",
}
# Integer division and remainder by zero give 0; shr keeps the sign of signed types.
BINARY = {
    "add": "fi",
    "sub": "fi",
    "mul": "fi",
    "div": "f",  # IEEE division
    "floordiv": "fi",
    "mod": "fi",  # rounds to -inf, sign of divisor (Python)
    "truncdiv": "i",
    "rem": "fi",  # rounds to 0, sign of dividend (C)
    "min": "fib",
    "max": "fib",  # NaN if either is NaN
    "and": "ib",
    "or": "ib",
    "xor": "ib",
    "shl": "i",
    "shr": "i",
}  # counts >= width shift all bits out
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")  # ordered on floats, except that NaN ne NaN
REDUCE_LANES = {"add": "fi", "mul": "fi", "min": "fib", "max": "fib", "and": "ib", "or": "ib", "xor": "ib"}
MATH = {
    "fma": 3,
    "exp": 1,
    "log": 1,
    "tanh": 1,
    "sigmoid": 1,
    "expm1": 1,
    "log1p": 1,
    "erf": 1,
    "sin": 1,
    "cos": 1,
    "pow": 2,
    "log2": 1,
    "log10": 1,
    "tan": 1,
    "asin": 1,
    "acos": 1,
    "atan": 1,
    "atan2": 2,
    "sinh": 1,
    "cosh": 1,
    "asinh": 1,
    "acosh": 1,
    "atanh": 1,
    "erfinv": 1,
    "logaddexp": 2,
}
# Math operations `op(total, a, b)`, where each u32 of `a` and `b` holds two narrow numbers, the first in the
# low half. They add the two products to a total of the dtype given here.
DOTS = {"dot_bf16": "f32", "dot_i16": "i32"}
KINDS = ("serial", "parallel", "unrolled")
SPACES = ("register", "stack", "workspace", "scratch")
ACCESS = ("read", "write", "readwrite")
HINTS = ("stream", "invariant")  # non-temporal; never written while the kernel runs
# Words of the text form, which no buffer, param or variable may be called.
KEYWORDS = frozenset(
    "kernel for while if else in step carry yield alloc at barrier poll fail prefetch mask "
    "hint true false inf nan parallel unrolled serial".split()
)

# Codes that `Fail` and the runtime use; a positive code is an error record in the context.
FAIL_INDEX, FAIL_MEMORY, FAIL_INTERRUPTED, FAIL_HOST, FAIL_GUARD = 1, 2, 3, 4, 5


class LoopError(GraphError):
    """A kernel breaks an invariant of the loop IR, or its text does not parse."""


@record
class Type:
    """`lanes` values of one dtype; `str` gives `f32` or `f32x16`."""

    dtype: str
    lanes: int = 1

    def __str__(self) -> str:
        return self.dtype if self.lanes == 1 else f"{self.dtype}x{self.lanes}"

    def with_lanes(self, lanes: int) -> Type:
        return vector(self.dtype, lanes)

    def with_dtype(self, dtype: str) -> Type:
        return vector(dtype, self.lanes)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def is_integer(self) -> bool:
        return self.dtype in INTEGERS

    @property
    def is_signed(self) -> bool:
        return self.dtype in SIGNED


@cache
def vector(dtype: str, lanes: int = 1) -> Type:
    """The interned `Type`."""
    return Type(dtype, lanes)


IDX = vector(INDEX)
BOOL = vector("bool")


# Expressions


class Expr:
    """A value. Python operators build expressions (scalars are broadcast, integer constants folded);
    `==` stays structural equality, so comparisons for equality are `a.eq(b)` and `a.ne(b)`."""

    __slots__ = ()
    type: Type

    def __add__(self, other: Expr | int | float) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: int | float) -> Expr:
        return binary("add", other, self)

    def __sub__(self, other: Expr | int | float) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: int | float) -> Expr:
        return binary("sub", other, self)

    def __mul__(self, other: Expr | int | float) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: int | float) -> Expr:
        return binary("mul", other, self)

    def __truediv__(self, other: Expr | int | float) -> Expr:
        return binary("div", self, other)

    def __rtruediv__(self, other: int | float) -> Expr:
        return binary("div", other, self)

    def __floordiv__(self, other: Expr | int | float) -> Expr:
        return binary("floordiv", self, other)

    def __mod__(self, other: Expr | int | float) -> Expr:
        return binary("mod", self, other)

    def __and__(self, other: Expr | int) -> Expr:
        return binary("and", self, other)

    def __or__(self, other: Expr | int) -> Expr:
        return binary("or", self, other)

    def __xor__(self, other: Expr | int) -> Expr:
        return binary("xor", self, other)

    def __lshift__(self, other: Expr | int) -> Expr:
        return binary("shl", self, other)

    def __rshift__(self, other: Expr | int) -> Expr:
        return binary("shr", self, other)

    def __neg__(self) -> Expr:
        return Unary("neg", self)

    def __invert__(self) -> Expr:
        return Unary("not", self)

    def __lt__(self, other: Expr | int | float) -> Expr:
        return compare("lt", self, other)

    def __le__(self, other: Expr | int | float) -> Expr:
        return compare("le", self, other)

    def __gt__(self, other: Expr | int | float) -> Expr:
        return compare("gt", self, other)

    def __ge__(self, other: Expr | int | float) -> Expr:
        return compare("ge", self, other)

    def eq(self, other: Expr | int | float) -> Expr:
        return compare("eq", self, other)

    def ne(self, other: Expr | int | float) -> Expr:
        return compare("ne", self, other)


@record(eq=False)
class Const(Expr):
    """A literal of `type`, the same in every lane: bool, int or float. Equality tells -0.0 from 0.0."""

    value: bool | int | float
    type: Type

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, Type]:
        return repr(self.value), self.type


@record
class Var(Expr):
    """A variable, loop index, carried value or kernel param."""

    name: str
    type: Type


@record
class Unary(Expr):
    op: str
    x: Expr
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.x.type)


@record
class Binary(Expr):
    op: str
    left: Expr
    right: Expr
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.left.type)


@record
class Compare(Expr):
    op: str
    left: Expr
    right: Expr
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.left.type.with_dtype("bool"))


@record
class Select(Expr):
    """`yes` in the lanes where `mask` is set, else `no`; a scalar mask chooses whole values."""

    mask: Expr
    yes: Expr
    no: Expr
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.yes.type)


@record
class Math(Expr):
    """A routine of `lowering.llvm.vecmath` (f32, f64), expanded inline. `fma` rounds once where the target
    can and is a multiplication and an addition where it cannot. `dot_bf16` and `dot_i16` (see DOTS) are
    instructions of some targets; how often `dot_bf16` rounds, and whether it takes subnormals for zero, is
    the target's affair."""

    op: str
    args: tuple[Expr, ...]
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.args[0].type)


@record
class Convert(Expr):
    """The value as another dtype. Float to integer truncates and saturates, NaN gives 0; to bool is `!= 0`;
    integer to integer wraps; to a narrower float rounds to nearest even."""

    x: Expr
    dtype: str
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.x.type.with_dtype(self.dtype))


@record
class Bitcast(Expr):
    """The bits as another dtype of the same size, same lanes."""

    x: Expr
    dtype: str
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.x.type.with_dtype(self.dtype))


@record
class Broadcast(Expr):
    """A scalar in every one of `lanes`."""

    x: Expr
    lanes: int
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.x.type.with_lanes(self.lanes))


@record
class Ramp(Expr):
    """`base + lane * step` (scalar integers of one type); `Ramp(0, 1, n)` numbers the lanes."""

    base: Expr
    step: Expr
    lanes: int
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.base.type.with_lanes(self.lanes))


@record
class ReduceLanes(Expr):
    """One scalar out of all lanes, combined pairwise: upper half with lower half until one lane is left
    (an odd middle lane joins the next round), so the result does not depend on the target."""

    op: str
    x: Expr
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.x.type.with_lanes(1))


@record
class Shuffle(Expr):
    """Lanes picked by number out of `left` followed by `right`; -1 is a lane of no meaning."""

    left: Expr
    right: Expr
    lanes: tuple[int, ...]
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.left.type.with_lanes(len(self.lanes)))


@record
class Extract(Expr):
    """One lane of `x`; a lane number outside of it is taken modulo the lanes."""

    x: Expr
    lane: Expr
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.x.type.with_lanes(1))


@record
class Insert(Expr):
    """`x` with one lane replaced by the scalar `value`."""

    x: Expr
    lane: Expr
    value: Expr
    type: Type = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.x.type)


@record
class Load(Expr):
    """Memory at `buffer[index]`. Scalar index: `type.lanes` consecutive elements; vector index: one element
    per lane. Lanes where `mask` is unset are not touched and give `otherwise` (zero when None)."""

    buffer: str
    index: Expr
    type: Type
    mask: Expr | None = None
    otherwise: Expr | None = None
    hint: str | None = None


# Statements


class Stmt:
    __slots__ = ()


Body = tuple[Stmt, ...]


@record
class Let(Stmt):
    var: Var
    value: Expr


@record
class Store(Stmt):
    """Write `value` to `buffer[index]`, lanes as for `Load`; of lanes with one index the last one wins."""

    buffer: str
    index: Expr
    value: Expr
    mask: Expr | None = None
    hint: str | None = None


@record
class Prefetch(Stmt):
    """Ask for the cache line of `buffer[index]`; the address may be invalid."""

    buffer: str
    index: Expr


@record
class For(Stmt):
    """`index` from `lo` while below `hi` by `step` (> 0). `carried` are the changing values as the body sees
    them, `inits` the first, `yields` the next, `results` the final ones, visible after the loop."""

    index: Var
    lo: Expr
    hi: Expr
    step: Expr
    kind: str
    body: Body
    carried: tuple[Var, ...] = ()
    inits: tuple[Expr, ...] = ()
    yields: tuple[Expr, ...] = ()
    results: tuple[Var, ...] = ()


@record
class While(Stmt):
    """Repeat `body` while `condition`, an expression over the carried values, holds."""

    condition: Expr
    body: Body
    carried: tuple[Var, ...] = ()
    inits: tuple[Expr, ...] = ()
    yields: tuple[Expr, ...] = ()
    results: tuple[Var, ...] = ()


@record
class If(Stmt):
    """`then` or `orelse`; `results` are the yielded values of the branch taken."""

    condition: Expr
    then: Body
    orelse: Body = ()
    then_yields: tuple[Expr, ...] = ()
    else_yields: tuple[Expr, ...] = ()
    results: tuple[Var, ...] = ()


@record
class Alloc(Stmt):
    """Scratch memory with undefined content, alive to the end of the enclosing body. `register` (small,
    constant indices after unrolling) and `stack` need a constant `count`; `workspace` lies `offset` bytes
    into the workspace that the memory plan gives the program, `scratch` into memory that only the running
    thread uses, and whose content is lost when the iteration of the parallel loop ends."""

    buffer: str
    dtype: str
    count: Expr
    space: str
    offset: Expr | None = None


@record
class Barrier(Stmt):
    """All memory effects before it are visible to all after it."""


@record
class Poll(Stmt):
    """Ask the host whether to stop (Ctrl-C, deadline); return its code if it is not zero."""


@record
class Fail(Stmt):
    """Write `code` and up to four index values into the error record and leave the kernel with `code`."""

    code: int
    values: tuple[Expr, ...] = ()


@record
class Buffer:
    """A kernel's memory argument: flat elements of `dtype`."""

    name: str
    dtype: str
    access: str


@record
class Kernel:
    """`buffers` and `params` (index scalars: extents, strides, offsets) in the order of the call."""

    name: str
    buffers: tuple[Buffer, ...]
    params: tuple[str, ...]
    body: Body


def parallel_loop(kernel: Kernel) -> For | None:
    """The kernel's parallel loop; its `hi`, an expression over params, is the extent that callers split."""
    return next((s for s in kernel.body if isinstance(s, For) and s.kind == "parallel"), None)


# Constructors that lift Python numbers, broadcast scalars and fold integers


def const(value: bool | int | float, type: Type | str) -> Const:
    """A literal made to fit its dtype: bool, wrapped integer, or float (rounded for f32)."""
    if isinstance(type, str):
        type = vector(type)
    if type.dtype == "bool":
        return Const(bool(value), type)
    if type.is_integer:
        return Const(wrap(int(value), type.dtype), type)
    return Const(_round_float(float(value), type.dtype), type)


def wrap(value: int, dtype: str) -> int:
    """`value` modulo 2**bits, in the range of the integer dtype."""
    bits = 8 * BYTES[dtype]
    value &= (1 << bits) - 1
    return value - (1 << bits) if dtype in SIGNED and value >> (bits - 1) else value


def _round_float(value: float, dtype: str) -> float:
    if value != value:
        return math.nan
    if dtype == "f32":
        try:
            return struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            return math.copysign(math.inf, value)
    return value


def index(value: Expr | int) -> Expr:
    """An index constant, or the expression itself."""
    return value if isinstance(value, Expr) else Const(int(value), IDX)


def lift(value: Expr | bool | int | float, like: Type) -> Expr:
    """`value` as an expression with the lanes of `like`: numbers take its dtype, scalars are broadcast."""
    if not isinstance(value, Expr):
        return const(value, like)
    if value.type.lanes == 1 and like.lanes > 1:
        return broadcast(value, like.lanes)
    return value


def _pair(a: Expr | int | float, b: Expr | int | float) -> tuple[Expr, Expr]:
    if not isinstance(a, Expr):
        assert isinstance(b, Expr), "one operand must be an expression"
        return lift(a, b.type), b
    right = lift(b, a.type)
    return lift(a, right.type), right


_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
    "min": min,
    "max": max,
}


def binary(op: str, a: Expr | int | float, b: Expr | int | float) -> Expr:
    """`Binary` with lifted operands; integer constants are folded and `x+0`, `x-0`, `x*1`, `x*0`, `x//1`,
    `x%1` removed (floats never: their identities are not exact)."""
    left, right = _pair(a, b)
    if left.type.is_integer:
        if isinstance(left, Const) and isinstance(right, Const) and op in _FOLD:
            return const(_FOLD[op](int(left.value), int(right.value)), left.type)
        if isinstance(left, Const) and op in ("add", "mul"):
            left, right = right, left
        if isinstance(right, Const):
            if right.value == 0 and op in ("add", "sub"):
                return left
            if right.value == 1 and op in ("mul", "floordiv"):
                return left
            if (right.value == 0 and op == "mul") or (right.value == 1 and op == "mod"):
                return const(0, left.type)
    return Binary(op, left, right)


def compare(op: str, a: Expr | int | float, b: Expr | int | float) -> Expr:
    left, right = _pair(a, b)
    return Compare(op, left, right)


def minimum(a: Expr | int | float, b: Expr | int | float) -> Expr:
    return binary("min", a, b)


def maximum(a: Expr | int | float, b: Expr | int | float) -> Expr:
    return binary("max", a, b)


def select(mask: Expr, yes: Expr | int | float, no: Expr | int | float) -> Expr:
    """`Select`; numbers and scalars follow the other branch, or the lanes of the mask."""
    a, b = _pair(yes, no)
    if mask.type.lanes > 1 and a.type.lanes == 1:
        a, b = broadcast(a, mask.type.lanes), broadcast(b, mask.type.lanes)
    return Select(mask, a, b)


def math_call(op: str, *args: Expr | int | float) -> Expr:
    """`Math` with scalars and numbers lifted to the widest argument."""
    widest = max((a.type for a in args if isinstance(a, Expr)), key=lambda t: t.lanes)
    return Math(op, tuple(lift(a, widest) for a in args))


def fma(a: Expr | float, b: Expr | float, c: Expr | float) -> Expr:
    """`a * b + c`."""
    return math_call("fma", a, b, c)


def convert(x: Expr, dtype: str) -> Expr:
    """`Convert`, or `x` itself when it has the dtype already."""
    if x.type.dtype == dtype:
        return x
    if isinstance(x, Const) and x.type.dtype != "bool" and x.type.is_integer and dtype in INTEGERS:
        return const(x.value, x.type.with_dtype(dtype))
    return Convert(x, dtype)


def broadcast(x: Expr, lanes: int) -> Expr:
    if x.type.lanes == lanes:
        return x
    return Const(x.value, x.type.with_lanes(lanes)) if isinstance(x, Const) else Broadcast(x, lanes)


def ramp(base: Expr | int, step: Expr | int, lanes: int) -> Expr:
    """`base + lane * step`; index typed unless `base` or `step` says otherwise."""
    if lanes == 1:
        return index(base)
    like = next((e.type for e in (base, step) if isinstance(e, Expr)), IDX)
    return Ramp(lift(base, like), lift(step, like), lanes)


def lane_mask(start: Expr | int, end: Expr | int, lanes: int) -> Expr:
    """The mask of a tail: lanes whose element number `start + lane` is below `end`. Compared in 32 bits,
    which needs half the instructions of 64."""
    left = binary("max", binary("min", binary("sub", index(end), index(start)), lanes), 0)
    i32 = vector("i32")
    return compare("lt", Ramp(Const(0, i32), Const(1, i32), lanes), convert(left, "i32"))


def offset(indices: Sequence[Expr | int], strides: Sequence[Expr | int], start: Expr | int = 0) -> Expr:
    """`start + sum(index * stride)`: the element offset of a multi-dimensional index."""
    total = index(start)
    for i, stride in zip(indices, strides, strict=True):
        total = binary("add", total, binary("mul", index(i), stride))
    return total
