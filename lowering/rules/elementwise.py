"""Elementwise primitives as loop IR expressions.

`+ - * /`, square roots, comparisons, rounding and conversions are bitwise equal to the NumPy reference;
functions from vector math are within its error bounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering import loop as ir
from ingot.lowering.loop import Expr
from ingot.lowering.rules.registry import lowers
from ingot.tracer.aval import Aval
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import elementwise as ew


def _arithmetic(cls: type[Primitive], op: str, of_bool: str) -> None:
    @lowers(cls)
    def rule(p: Primitive, x: Expr, y: Expr) -> Expr:
        return ir.Binary(of_bool if x.type.dtype == "bool" else op, x, y)


_arithmetic(ew.Add, "add", "or")
_arithmetic(ew.Sub, "sub", "xor")
_arithmetic(ew.Mul, "mul", "and")
_arithmetic(ew.Maximum, "max", "or")
_arithmetic(ew.Minimum, "min", "and")
_arithmetic(ew.FloorDivide, "floordiv", "and")


@lowers(ew.Div, cost=4)
def _div(p: Primitive, x: Expr, y: Expr) -> Expr:
    return x / y


@lowers(ew.Remainder, cost=12)
def _remainder(p: Primitive, x: Expr, y: Expr) -> Expr:
    return ir.const(False, x.type) if x.type.dtype == "bool" else x % y


@lowers(ew.Neg)
def _neg(p: Primitive, x: Expr) -> Expr:
    return -x


@lowers(ew.Abs)
def _abs(p: Primitive, x: Expr) -> Expr:
    return x if x.type.dtype == "bool" else ir.Unary("abs", x)


@lowers(ew.Sign, cost=3)
def _sign(p: Primitive, x: Expr) -> Expr:
    if x.type.dtype == "bool":
        return x
    positive = ir.convert(x > 0, x.type.dtype)
    return positive - ir.convert(x < 0, x.type.dtype) if x.type.is_float or x.type.is_signed else positive


@lowers(ew.Square)
def _square(p: Primitive, x: Expr) -> Expr:
    return x & x if x.type.dtype == "bool" else x * x


def _unary(cls: type[Primitive], op: str, cost: int = 1) -> None:
    @lowers(cls, cost=cost)
    def rule(p: Primitive, x: Expr) -> Expr:
        return ir.Unary(op, x)


_unary(ew.Floor, "floor")
_unary(ew.Ceil, "ceil")
_unary(ew.Round, "round")
_unary(ew.Trunc, "trunc")
_unary(ew.Sqrt, "sqrt", 5)


@lowers(ew.Rsqrt, cost=9)
def _rsqrt(p: Primitive, x: Expr) -> Expr:
    return ir.const(1.0, x.type) / ir.Unary("sqrt", x)


# -- vector math ------------------------------------------------------------------------------------


def _real(p: Primitive, avals: Sequence[Aval]) -> bool:
    return avals[0].dtype.kind == "f"


def _math(cls: type[Primitive], op: str, cost: int) -> None:
    @lowers(cls, math=(op,), cost=cost, when=_real)
    def rule(p: Primitive, x: Expr) -> Expr:
        return ir.Math(op, (x,))


_math(ew.Exp, "exp", 17)
_math(ew.Expm1, "expm1", 18)
_math(ew.Log, "log", 20)
_math(ew.Log1p, "log1p", 25)
_math(ew.Log2, "log2", 40)
_math(ew.Log10, "log10", 40)
_math(ew.Sin, "sin", 80)
_math(ew.Cos, "cos", 80)
_math(ew.Tan, "tan", 110)
_math(ew.Asin, "asin", 16)
_math(ew.Acos, "acos", 16)
_math(ew.Atan, "atan", 20)
_math(ew.Sinh, "sinh", 50)
_math(ew.Cosh, "cosh", 50)
_math(ew.Tanh, "tanh", 24)
_math(ew.Asinh, "asinh", 70)
_math(ew.Acosh, "acosh", 70)
_math(ew.Atanh, "atanh", 60)
_math(ew.Sigmoid, "sigmoid", 24)
_math(ew.Erf, "erf", 40)
_math(ew.Erfinv, "erfinv", 50)


@lowers(ew.Atan2, math=("atan2",), cost=60, when=_real)
def _atan2(p: Primitive, y: Expr, x: Expr) -> Expr:
    return ir.Math("atan2", (y, x))


@lowers(ew.Logaddexp, math=("logaddexp",), cost=60, when=_real)
def _logaddexp(p: Primitive, x: Expr, y: Expr) -> Expr:
    return ir.Math("logaddexp", (x, y))


def _not_integer(p: Primitive, avals: Sequence[Aval]) -> bool:
    return avals[0].dtype.kind in "fb"


@lowers(ew.Pow, cost=80, when=_not_integer)
def _pow(p: Primitive, x: Expr, y: Expr) -> Expr:
    if x.type.dtype == "bool":
        return x | ~y
    if isinstance(y, ir.Const):
        if y.value == 2.0:
            return x * x
        if y.value == 3.0:
            return x * x * x
        if y.value == 1.0:
            return x
        if y.value == -1.0:
            return ir.const(1.0, x.type) / x
    return ir.Math("pow", (x, y))


# -- comparisons and logic --------------------------------------------------------------------------


def _compare(cls: type[Primitive], op: str) -> None:
    @lowers(cls)
    def rule(p: Primitive, x: Expr, y: Expr) -> Expr:
        return ir.Compare(op, x, y)


for _cls, _op in ((ew.Eq, "eq"), (ew.Ne, "ne"), (ew.Lt, "lt"), (ew.Le, "le"), (ew.Gt, "gt"), (ew.Ge, "ge")):
    _compare(_cls, _op)


def _bitwise(cls: type[Primitive], op: str) -> None:
    @lowers(cls)
    def rule(p: Primitive, x: Expr, y: Expr) -> Expr:
        return ir.Binary(op, x, y)


_bitwise(ew.LogicalAnd, "and")
_bitwise(ew.LogicalOr, "or")
_bitwise(ew.BitwiseAnd, "and")
_bitwise(ew.BitwiseOr, "or")
_bitwise(ew.BitwiseXor, "xor")
_bitwise(ew.LeftShift, "shl")
_bitwise(ew.RightShift, "shr")


@lowers(ew.LogicalNot)
@lowers(ew.BitwiseNot)
def _not(p: Primitive, x: Expr) -> Expr:
    return ~x


@lowers(ew.Select, moves=True)
def _select(p: Primitive, mask: Expr, x: Expr, y: Expr) -> Expr:
    return ir.Select(mask, x, y)


# -- conversion -------------------------------------------------------------------------------------


@lowers(ew.ConvertElementType, moves=True)
def _convert(p: ew.ConvertElementType, x: Expr) -> Expr:
    return ir.convert(x, p.dtype.short)


@lowers(ew.Bitcast, moves=True)
def _bitcast(p: ew.Bitcast, x: Expr) -> Expr:
    to = p.dtype.short
    if x.type.dtype == to:
        return x
    if x.type.dtype == "bool":
        return ir.convert(x, to)
    return ir.convert(x, "bool") if to == "bool" else ir.Bitcast(x, to)


@lowers(ew.Identity, moves=True)
@lowers(ew.StopGradient, moves=True)
def _identity(p: Primitive, x: Expr) -> Expr:
    return x
