"""Quotients of many float32 by one, rounded as a division rounds them.

    q = RN(a y),  e = RN(q b - a),  a / b = RN(q - e y)      with y = RN(1 / b)

which three multiplications with addition compute where a division takes as long as ten (Markstein,
"Computation of elementary functions on the IBM RISC System/6000 processor", IBM J. Res. Dev. 34, 1990;
Brisebarre, Muller and Raina, "Accelerating correctly rounded floating-point division when the divisor is
known in advance", IEEE Trans. Computers 53, 2004, section 2). For float32 it was tried for every b on all
a whose quotient lies within 24 units of the 2**-48 of a midpoint of two neighbours, beyond which no error
of the sequence reaches. It holds while nothing underflows or overflows; other vectors are divided. The sign
of a zero is kept because e comes negated.
"""

from __future__ import annotations

from collections.abc import Callable

from ingot.lowering import loop as ir
from ingot.lowering.loop import Expr
from ingot.lowering.loop_builder import Builder
from ingot.tracer.record import record

_LEAST, _MOST = 27 << 23, 227 << 23
"""2**-100 and 2**100 as bits: magnitudes between them are divided by multiplication."""
_DIVISOR = 2.0**24


@record
class Divisor:
    """`value`, its reciprocal `inverse`, and the bits of the magnitude from which on elements must be
    divided: those of 0 when the divisor itself is too large or small, or not positive."""

    value: Expr
    inverse: Expr
    most: Expr


def divisor(b: Builder, value: Expr) -> Divisor:
    """Prepare to divide by a float32, or by a vector of them."""
    inverse = b.let(1.0 / value, "inverse")
    fits = (value >= 1 / _DIVISOR) & (value <= _DIVISOR)
    bits = value.type.with_dtype("u32")
    return Divisor(value, inverse, b.let(ir.select(fits, ir.const(_MOST, bits), ir.const(0, bits)), "most"))


def quotient(b: Builder, a: Expr, by: Divisor, register: int) -> Expr:
    """`a / by.value`; `register` is how many lanes a register has."""
    lanes = a.type.lanes
    value, inverse = (ir.broadcast(x, lanes) for x in (by.value, by.inverse))
    size = b.let(ir.Bitcast(a, "u32") & 0x7FFFFFFF, "size")
    if by.most.type.lanes == 1:  # fold the registers first: comparisons go to masks, which are dear
        largest = _folded(b, "max", size, register)
        least = _folded(b, "min", b.let(size - 1, "below"), register)
    else:
        largest, least = size, size - 1
    # zeros, which are right, are the largest of `least`
    unfit = (least < _LEAST - 1) | (largest >= ir.broadcast(by.most, largest.type.lanes))
    with b.branch(ir.ReduceLanes("or", unfit) if unfit.type.lanes > 1 else unfit, "ratio") as branch:
        with branch.then():
            branch.give(a / value)
        with branch.orelse():
            q = b.let(a * inverse, "q")
            error = b.let(ir.fma(q, value, -a), "error")
            branch.give(ir.fma(-error, inverse, q))
    return branch.results[0]


def _folded(b: Builder, op: str, x: Expr, register: int) -> Expr:
    """The lanes of all registers of `x` combined to those of one."""
    combine: Callable[[Expr, Expr], Expr] = ir.maximum if op == "max" else ir.minimum
    while x.type.lanes > register and x.type.lanes % 2 == 0:
        half = x.type.lanes // 2
        low, high = tuple(range(half)), tuple(range(half, 2 * half))
        x = b.let(combine(ir.Shuffle(x, x, low), ir.Shuffle(x, x, high)), "fold")
    return x
