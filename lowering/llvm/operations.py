"""Arithmetic and conversions as LLVM text: each function takes operand texts and returns the text of the
result.

What the loop IR promises and a bare LLVM instruction does not is added here: division that never traps,
shifts by any count, NaN-propagating minimum, saturating conversions, float16 and bfloat16 without library
calls.
"""

from __future__ import annotations

import math

from ingot.lowering.llvm.target import Target
from ingot.lowering.llvm.writer import SCALARS, Writer, literal, llvm_type, narrow_bits, suffix
from ingot.lowering.loop import BYTES, FLOATS, NARROW_FLOATS, SIGNED, Type, vector

_FLOAT_UNARY = {
    "neg": "fneg",
    "abs": "fabs",
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "roundeven",
}
_INT_UNARY = {"popcount": "ctpop", "clz": "ctlz", "ctz": "cttz"}
_PLAIN_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_PLAIN_INT = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}


class Operations:
    """Bound to a writer and a target. A module that calls `@ingot.fmod` must define it: `fmod_routine`."""

    def __init__(self, writer: Writer, target: Target):
        self.w, self.target = writer, target

    def constant(self, value: bool | int | float, type: Type) -> str:
        if type.dtype in NARROW_FLOATS:
            value = narrow_bits(float(value), type.dtype)
        return literal(value, SCALARS[type.dtype], type.lanes)

    def select(self, mask: str, yes: str, no: str, type: Type, mask_lanes: int | None = None) -> str:
        t = llvm_type(SCALARS[type.dtype], type.lanes)
        m = llvm_type("i1", type.lanes if mask_lanes is None else mask_lanes)
        return self.w.op(f"select {m} {mask}, {t} {yes}, {t} {no}")

    # unary

    def unary(self, op: str, x: str, type: Type) -> str:
        scalar, lanes = SCALARS[type.dtype], type.lanes
        t = llvm_type(scalar, lanes)
        if type.is_float:
            if op == "neg":
                return self.w.op(f"fneg {t} {x}")
            return self.w.call(_FLOAT_UNARY[op], scalar, lanes, x)
        if op == "neg":
            return self.w.op(f"sub {t} {literal(0, scalar, lanes)}, {x}")
        if op == "not":
            return self.w.op(f"xor {t} {x}, {literal(-1 if scalar != 'i1' else True, scalar, lanes)}")
        if op == "abs":
            return self.w.call("abs", scalar, lanes, x, extra=", i1 false") if type.is_signed else x
        return self.w.call(_INT_UNARY[op], scalar, lanes, x, extra="" if op == "popcount" else ", i1 false")

    # binary

    def binary(self, op: str, a: str, b: str, type: Type, divisor: int | None = None) -> str:
        """`divisor` is the value of `b` when it is an integer literal, which may spare its guards."""
        t = llvm_type(SCALARS[type.dtype], type.lanes)
        if type.is_float:
            if op in _PLAIN_FLOAT:
                return self.w.op(f"{_PLAIN_FLOAT[op]} {t} {a}, {b}")
            if op in ("min", "max"):
                return self.float_extremum(op, a, b, type)
            return self.float_division(op, a, b, type)
        if op in _PLAIN_INT:
            return self.w.op(f"{_PLAIN_INT[op]} {t} {a}, {b}")
        if op in ("min", "max"):
            return self.int_extremum(op, a, b, type)
        if op in ("shl", "shr"):
            return self.shift(op, a, b, type)
        return self.int_division(op, a, b, type, divisor)

    def int_extremum(self, op: str, a: str, b: str, type: Type) -> str:
        if type.dtype == "bool":
            return self.w.op(f"{'and' if op == 'min' else 'or'} {llvm_type('i1', type.lanes)} {a}, {b}")
        return self.w.call(("s" if type.is_signed else "u") + op, SCALARS[type.dtype], type.lanes, a, b)

    def float_extremum(
        self, op: str, a: str, b: str, type: Type, left: float | None = None, right: float | None = None
    ) -> str:
        """NaN if either is NaN, `b` where they are equal; `left` and `right` are their values when they are
        numbers. The x86 instruction returns its second operand when one is NaN, which leaves only a NaN in
        the first to be put right: none in a number, which is therefore put first."""
        scalar, lanes = SCALARS[type.dtype], type.lanes
        if not self.target.is_x86:
            return self.w.call(op + "imum", scalar, lanes, a, b)
        t = llvm_type(scalar, lanes)
        compare = f"fcmp {'olt' if op == 'min' else 'ogt'} {t}"
        if left is not None:
            return self.select(self.w.op(f"{compare} {a}, {b}"), a, b, type)
        if right is not None and (right or math.copysign(1.0, right) > 0):
            found = self.select(self.w.op(f"{compare} {b}, {a}"), b, a, type)
            return found if right else self.w.op(f"fadd {t} {found}, {b}")  # -0 becomes 0
        picked = self.select(self.w.op(f"{compare} {a}, {b}"), a, b, type)
        return self.select(self.w.op(f"fcmp uno {t} {a}, {a}"), a, picked, type)

    def shift(self, op: str, a: str, b: str, type: Type) -> str:
        scalar, lanes = SCALARS[type.dtype], type.lanes
        t, bits = llvm_type(scalar, lanes), 8 * BYTES[type.dtype]
        inside = self.w.op(f"icmp ult {t} {b}, {literal(bits, scalar, lanes)}")
        signed = op == "shr" and type.is_signed
        count = self.select(inside, b, literal(bits - 1 if signed else 0, scalar, lanes), type)
        name = "shl" if op == "shl" else "ashr" if signed else "lshr"
        shifted = self.w.op(f"{name} {t} {a}, {count}")
        return shifted if signed else self.select(inside, shifted, literal(0, scalar, lanes), type)

    def int_division(self, op: str, a: str, b: str, type: Type, divisor: int | None) -> str:
        """Division that cannot trap: x / 0 is 0, MIN / -1 wraps, and the remainders agree."""
        scalar, lanes = SCALARS[type.dtype], type.lanes
        t, zero, one = llvm_type(scalar, lanes), literal(0, scalar, lanes), literal(1, scalar, lanes)
        signed = type.is_signed
        trapping = divisor in (None, 0) or (signed and divisor == -1)
        safe = b
        if trapping:
            is_zero = self.w.op(f"icmp eq {t} {b}, {zero}")
            unsafe = is_zero
            if signed:
                is_minus = self.w.op(f"icmp eq {t} {b}, {literal(-1, scalar, lanes)}")
                unsafe = self.w.op(f"or {llvm_type('i1', lanes)} {is_zero}, {is_minus}")
            safe = self.select(unsafe, one, b, type)
        quotient = self.w.op(f"{'sdiv' if signed else 'udiv'} {t} {a}, {safe}")
        if trapping and signed:
            quotient = self.select(is_minus, self.w.op(f"sub {t} {zero}, {a}"), quotient, type)
        if op != "truncdiv":
            rest = self.w.op(f"sub {t} {a}, {self.w.op(f'mul {t} {quotient}, {b}')}")
            if signed and op != "rem":
                quotient, rest = self.floor_division(quotient, rest, b, type, divisor)
            if op in ("rem", "mod"):
                quotient = rest
        return self.select(is_zero, zero, quotient, type) if trapping else quotient

    def floor_division(
        self, quotient: str, rest: str, b: str, type: Type, divisor: int | None
    ) -> tuple[str, str]:
        """From rounding towards zero to rounding down: where the remainder's sign differs from the
        divisor's."""
        scalar, lanes = SCALARS[type.dtype], type.lanes
        t, m, zero = llvm_type(scalar, lanes), llvm_type("i1", lanes), literal(0, scalar, lanes)
        if divisor is not None and divisor > 0:
            wrong = self.w.op(f"icmp slt {t} {rest}, {zero}")
        else:
            differ = self.w.op(f"icmp slt {t} {self.w.op(f'xor {t} {rest}, {b}')}, {zero}")
            wrong = self.w.op(f"and {m} {differ}, {self.w.op(f'icmp ne {t} {rest}, {zero}')}")
        one_less = self.w.op(f"add {t} {quotient}, {self.w.op(f'sext {m} {wrong} to {t}')}")
        return one_less, self.select(wrong, self.w.op(f"add {t} {rest}, {b}"), rest, type)

    def float_division(self, op: str, a: str, b: str, type: Type) -> str:
        """rem as C's fmod; mod and floordiv as Python's and NumPy's, built on it."""
        scalar, lanes = SCALARS[type.dtype], type.lanes
        t, m = llvm_type(scalar, lanes), llvm_type("i1", lanes)
        zero, one = literal(0.0, scalar, lanes), literal(1.0, scalar, lanes)
        rest = self.fmod(a, b, type)
        if op == "rem":
            return rest
        nonzero = self.w.op(f"fcmp une {t} {rest}, {zero}")
        b_negative = self.w.op(f"fcmp olt {t} {b}, {zero}")
        differ = self.w.op(f"xor {m} {b_negative}, {self.w.op(f'fcmp olt {t} {rest}, {zero}')}")
        wrong = self.w.op(f"and {m} {nonzero}, {differ}")
        if op == "mod":
            moved = self.select(wrong, self.w.op(f"fadd {t} {rest}, {b}"), rest, type)
            return self.select(nonzero, moved, self.copysign(zero, b, type), type)
        exact = self.w.op(f"fdiv {t} {self.w.op(f'fsub {t} {a}, {rest}')}, {b}")
        exact = self.select(wrong, self.w.op(f"fsub {t} {exact}, {one}"), exact, type)
        down = self.w.call("floor", scalar, lanes, exact)
        gap = self.w.op(
            f"fcmp ogt {t} {self.w.op(f'fsub {t} {exact}, {down}')}, {literal(0.5, scalar, lanes)}"
        )
        down = self.select(gap, self.w.op(f"fadd {t} {down}, {one}"), down, type)
        plain = self.w.op(f"fdiv {t} {a}, {b}")
        is_zero = self.w.op(f"fcmp oeq {t} {exact}, {zero}")
        down = self.select(is_zero, self.copysign(zero, plain, type), down, type)
        by_zero = self.w.op(f"fcmp oeq {t} {b}, {zero}")
        return self.select(by_zero, plain, down, type)

    def copysign(self, magnitude: str, sign: str, type: Type) -> str:
        return self.w.call("copysign", SCALARS[type.dtype], type.lanes, magnitude, sign)

    def fmod(self, a: str, b: str, type: Type) -> str:
        """Lane by lane through the module's own routine; float32 remainders are exact in float64."""
        wide = vector("f64", type.lanes)
        x, y = self.convert(a, type, "f64"), self.convert(b, type, "f64")
        if type.lanes == 1:
            result = self.w.op(f"call double @ingot.fmod(double {x}, double {y})")
        else:
            t, result = llvm_type("double", type.lanes), "poison"
            for lane in range(type.lanes):
                xi = self.w.op(f"extractelement {t} {x}, i32 {lane}")
                yi = self.w.op(f"extractelement {t} {y}, i32 {lane}")
                ri = self.w.op(f"call double @ingot.fmod(double {xi}, double {yi})")
                result = self.w.op(f"insertelement {t} {result}, double {ri}, i32 {lane}")
        return self.convert(result, wide, type.dtype)

    def compare(self, op: str, a: str, b: str, type: Type) -> str:
        t = llvm_type(SCALARS[type.dtype], type.lanes)
        if type.is_float:
            return self.w.op(f"fcmp {_FLOAT_COMPARE[op]} {t} {a}, {b}")
        sign = "" if op in ("eq", "ne") else "s" if type.is_signed else "u"
        return self.w.op(f"icmp {sign}{op} {t} {a}, {b}")

    def fma(self, a: str, b: str, c: str, type: Type) -> str:
        scalar, lanes = SCALARS[type.dtype], type.lanes
        if self.target.has_fma:
            return self.w.call("fma", scalar, lanes, a, b, c)
        t = llvm_type(scalar, lanes)
        return self.w.op(f"fadd {t} {self.w.op(f'fmul {t} {a}, {b}')}, {c}")

    def dot(self, op: str, total: str, a: str, b: str, lanes: int) -> str:
        """`total` and the products of pairs of narrow numbers, by one instruction where there is one."""
        w, whole, wide = self.w, lanes * 32 == self.target.bits, llvm_type("i32", lanes)
        if op == "dot_bf16":
            if self.target.has_bf16_dot and whole and lanes == 16:
                pairs = [w.op(f"bitcast {wide} {x} to <32 x bfloat>") for x in (a, b)]
                given = ", ".join(f"<32 x bfloat> {x}" for x in pairs)
                return w.op(
                    f"call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float> {total}, {given})"
                )
            f32 = llvm_type("float", lanes)
            for cut in (f"shl {wide} {{x}}, {literal(16, 'i32', lanes)}",
                        f"and {wide} {{x}}, {literal(-65536, 'i32', lanes)}"):  # fmt: skip
                low, high = (w.op(f"bitcast {wide} {w.op(cut.format(x=x))} to {f32}") for x in (a, b))
                total = self.fma(low, high, total, vector("f32", lanes))
            return total
        if self.target.is_x86 and whole:  # with the addition one instruction, where the target has it
            name = {4: "sse2.pmadd.wd", 8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}[lanes]
            halves = llvm_type("i16", 2 * lanes)
            given = ", ".join(f"{halves} {w.op(f'bitcast {wide} {x} to {halves}')}" for x in (a, b))
            return w.op(f"add {wide} {total}, {w.op(f'call {wide} @llvm.x86.{name}({given})')}")
        sixteen = literal(16, "i32", lanes)
        for shifted in (True, False):
            parts = [w.op(f"shl {wide} {x}, {sixteen}") if shifted else x for x in (a, b)]
            parts = [w.op(f"ashr {wide} {x}, {sixteen}") for x in parts]
            total = w.op(f"add {wide} {total}, {w.op(f'mul {wide} {parts[0]}, {parts[1]}')}")
        return total

    # conversions

    def convert(self, x: str, source: Type, dtype: str) -> str:
        if source.dtype == dtype:
            return x
        if dtype == "bool":
            return self.to_bool(x, source)
        if source.dtype in ("f16", "bf16"):
            return self.convert(self.widen(x, source), source.with_dtype("f32"), dtype)
        if dtype in ("f16", "bf16"):
            return self.narrow(x, source, dtype)
        scalar, lanes = SCALARS[dtype], source.lanes
        s, d = llvm_type(SCALARS[source.dtype], lanes), llvm_type(scalar, lanes)
        if source.is_float and dtype in FLOATS:
            return self.w.op(f"{'fpext' if dtype == 'f64' else 'fptrunc'} {s} {x} to {d}")
        if source.is_float:
            name = "fptosi.sat" if dtype in SIGNED else "fptoui.sat"
            kinds = f"{suffix(scalar, lanes)}.{suffix(SCALARS[source.dtype], lanes)}"
            return self.w.op(f"call {d} @llvm.{name}.{kinds}({s} {x})")
        if dtype in FLOATS:
            return self.w.op(f"{'sitofp' if source.is_signed else 'uitofp'} {s} {x} to {d}")
        return self.resize(x, source, dtype)

    def resize(self, x: str, source: Type, dtype: str) -> str:
        """Integer (or bool) to integer."""
        old = 1 if source.dtype == "bool" else 8 * BYTES[source.dtype]
        new = 8 * BYTES[dtype]
        if old == new:
            return x
        name = "trunc" if new < old else "sext" if source.is_signed else "zext"
        s, d = llvm_type(SCALARS[source.dtype], source.lanes), llvm_type(SCALARS[dtype], source.lanes)
        return self.w.op(f"{name} {s} {x} to {d}")

    def to_bool(self, x: str, source: Type) -> str:
        scalar, lanes = SCALARS[source.dtype], source.lanes
        if source.dtype in ("f16", "bf16"):  # all but the sign bit
            shifted = self.w.op(f"shl {llvm_type('i16', lanes)} {x}, {literal(1, 'i16', lanes)}")
            return self.w.op(f"icmp ne {llvm_type('i16', lanes)} {shifted}, {literal(0, 'i16', lanes)}")
        compare = "fcmp une" if source.is_float else "icmp ne"
        return self.w.op(f"{compare} {llvm_type(scalar, lanes)} {x}, {literal(0, scalar, lanes)}")

    def widen(self, x: str, source: Type) -> str:
        """float16 or bfloat16 bits to float32, exact."""
        lanes = source.lanes
        half, word, single = (llvm_type(s, lanes) for s in ("i16", "i32", "float"))
        if source.dtype == "f16" and self.target.half:
            bits = self.w.op(f"bitcast {half} {x} to {llvm_type('half', lanes)}")
            return self.w.op(f"fpext {llvm_type('half', lanes)} {bits} to {single}")
        bits = self.w.op(f"zext {half} {x} to {word}")
        if source.dtype == "bf16":
            high = self.w.op(f"shl {word} {bits}, {literal(16, 'i32', lanes)}")
            return self.w.op(f"bitcast {word} {high} to {single}")
        return self.half_to_single(bits, lanes)

    def half_to_single(self, bits: str, lanes: int) -> str:
        """The exponent is rebased by a multiplication with 2**112, which also normalises subnormal halves
        exactly; infinities and NaN get the rest of the exponent's bits afterwards."""
        word, single = llvm_type("i32", lanes), llvm_type("float", lanes)

        def k(value: int) -> str:
            return literal(value, "i32", lanes)

        magnitude = self.w.op(f"and {word} {bits}, {k(0x7FFF)}")
        moved = self.w.op(f"shl {word} {magnitude}, {k(13)}")
        value = self.w.op(
            f"fmul {single} {self.w.op(f'bitcast {word} {moved} to {single}')}, "
            f"{literal(2.0**112, 'float', lanes)}"
        )
        value = self.w.op(f"bitcast {single} {value} to {word}")
        special = self.w.op(f"icmp uge {word} {magnitude}, {k(0x7C00)}")
        full = self.w.op(f"or {word} {moved}, {k(0x7F800000)}")
        value = self.select(special, full, value, vector("i32", lanes))
        quiet = self.w.op(f"icmp ugt {word} {magnitude}, {k(0x7C00)}")
        value = self.select(
            quiet, self.w.op(f"or {word} {value}, {k(0x400000)}"), value, vector("i32", lanes)
        )
        sign = self.w.op(f"shl {word} {self.w.op(f'and {word} {bits}, {k(0x8000)}')}, {k(16)}")
        return self.w.op(f"bitcast {word} {self.w.op(f'or {word} {value}, {sign}')} to {single}")

    def narrow(self, x: str, source: Type, dtype: str) -> str:
        """To float16 or bfloat16 bits, to nearest even, rounding once."""
        lanes = source.lanes
        if source.dtype == "f64":
            x = self.single_to_odd(x, lanes)
        elif source.dtype != "f32":
            x = self.convert(x, source, "f32")
        word, single = llvm_type("i32", lanes), llvm_type("float", lanes)
        if dtype == "f16" and self.target.half:
            half = self.w.op(f"fptrunc {single} {x} to {llvm_type('half', lanes)}")
            return self.w.op(f"bitcast {llvm_type('half', lanes)} {half} to {llvm_type('i16', lanes)}")
        bits = self.w.op(f"bitcast {single} {x} to {word}")
        out = self.brain_bits(bits, lanes) if dtype == "bf16" else self.half_bits(bits, lanes)
        return self.w.op(f"trunc {word} {out} to {llvm_type('i16', lanes)}")

    def brain_bits(self, bits: str, lanes: int) -> str:
        word = llvm_type("i32", lanes)

        def k(value: int) -> str:
            return literal(value, "i32", lanes)

        high = self.w.op(f"lshr {word} {bits}, {k(16)}")
        odd = self.w.op(f"and {word} {high}, {k(1)}")
        rounded = self.w.op(f"add {word} {self.w.op(f'add {word} {bits}, {k(0x7FFF)}')}, {odd}")
        rounded = self.w.op(f"lshr {word} {rounded}, {k(16)}")
        magnitude = self.w.op(f"and {word} {bits}, {k(0x7FFFFFFF)}")
        nan = self.w.op(f"icmp ugt {word} {magnitude}, {k(0x7F800000)}")
        return self.select(nan, self.w.op(f"or {word} {high}, {k(0x40)}"), rounded, vector("i32", lanes))

    def half_bits(self, bits: str, lanes: int) -> str:
        """Normal results round in integers; subnormal ones by adding 0.5, whose last bit is 2**-24, the step
        of subnormal halves."""
        word, single, type = llvm_type("i32", lanes), llvm_type("float", lanes), vector("i32", lanes)

        def k(value: int) -> str:
            return literal(value, "i32", lanes)

        magnitude = self.w.op(f"and {word} {bits}, {k(0x7FFFFFFF)}")
        odd = self.w.op(f"and {word} {self.w.op(f'lshr {word} {magnitude}, {k(13)}')}, {k(1)}")
        based = self.w.op(f"add {word} {magnitude}, {k(0xFFF - (112 << 23))}")
        normal = self.w.op(f"lshr {word} {self.w.op(f'add {word} {based}, {odd}')}, {k(13)}")
        value = self.w.op(f"bitcast {word} {magnitude} to {single}")
        shifted = self.w.op(f"fadd {single} {value}, {literal(0.5, 'float', lanes)}")
        small = self.w.op(f"sub {word} {self.w.op(f'bitcast {single} {shifted} to {word}')}, {k(0x3F000000)}")
        out = self.select(self.w.op(f"icmp ult {word} {magnitude}, {k(113 << 23)}"), small, normal, type)
        overflow = self.w.op(f"icmp uge {word} {magnitude}, {k(0x477FF000)}")
        out = self.select(overflow, k(0x7C00), out, type)
        payload = self.w.op(f"and {word} {self.w.op(f'lshr {word} {magnitude}, {k(13)}')}, {k(0x3FF)}")
        nan = self.w.op(f"icmp ugt {word} {magnitude}, {k(0x7F800000)}")
        out = self.select(nan, self.w.op(f"or {word} {payload}, {k(0x7E00)}"), out, type)
        sign = self.w.op(f"and {word} {self.w.op(f'lshr {word} {bits}, {k(16)}')}, {k(0x8000)}")
        return self.w.op(f"or {word} {out}, {sign}")

    def single_to_odd(self, x: str, lanes: int) -> str:
        """float64 to float32 rounding to odd, after which a second rounding to fewer bits is the only one
        (Boldo and Melquiond, "When double rounding is odd", 2005)."""
        word, single, double = (llvm_type(s, lanes) for s in ("i32", "float", "double"))
        nearest = self.w.op(f"fptrunc {double} {x} to {single}")
        back = self.w.op(f"fpext {single} {nearest} to {double}")
        inexact = self.w.op(f"fcmp one {double} {back}, {x}")
        away = self.w.op(
            f"fcmp ogt {double} {self.w.call('fabs', 'double', lanes, back)}, "
            f"{self.w.call('fabs', 'double', lanes, x)}"
        )
        bits = self.w.op(f"bitcast {single} {nearest} to {word}")
        mask = llvm_type("i1", lanes)
        bits = self.w.op(f"add {word} {bits}, {self.w.op(f'sext {mask} {away} to {word}')}")
        bits = self.w.op(f"or {word} {bits}, {self.w.op(f'zext {mask} {inexact} to {word}')}")
        return self.w.op(f"bitcast {word} {bits} to {single}")


def fmod_routine() -> str:
    """`ingot.fmod`: the float64 remainder by long division of the significands, bit by bit; exact by
    nature."""
    return """
define internal double @ingot.fmod(double %x, double %y) nounwind noinline {
entry:
  %xb = bitcast double %x to i64
  %yb = bitcast double %y to i64
  %a = and i64 %xb, 9223372036854775807
  %b = and i64 %yb, 9223372036854775807
  %sign = and i64 %xb, -9223372036854775808
  %y0 = icmp eq i64 %b, 0
  %ynan = icmp ugt i64 %b, 9218868437227405312
  %xinf = icmp uge i64 %a, 9218868437227405312
  %bad0 = or i1 %y0, %ynan
  %bad = or i1 %bad0, %xinf
  br i1 %bad, label %invalid, label %check
invalid:
  %xy = fmul double %x, %y
  %nan0 = fsub double %xy, %xy
  %nan = fdiv double %nan0, %nan0
  ret double %nan
check:
  %below = icmp ult i64 %a, %b
  br i1 %below, label %same, label %prepare
same:
  ret double %x
prepare:
  %ae0 = lshr i64 %a, 52
  %be0 = lshr i64 %b, 52
  %am = and i64 %a, 4503599627370495
  %bm = and i64 %b, 4503599627370495
  %asub = icmp eq i64 %ae0, 0
  %bsub = icmp eq i64 %be0, 0
  %an = or i64 %am, 4503599627370496
  %bn = or i64 %bm, 4503599627370496
  %ai0 = select i1 %asub, i64 %am, i64 %an
  %bi0 = select i1 %bsub, i64 %bm, i64 %bn
  %ae1 = select i1 %asub, i64 1, i64 %ae0
  %be1 = select i1 %bsub, i64 1, i64 %be0
  %alz = call i64 @llvm.ctlz.i64(i64 %ai0, i1 false)
  %blz = call i64 @llvm.ctlz.i64(i64 %bi0, i1 false)
  %ash = sub i64 %alz, 11
  %bsh = sub i64 %blz, 11
  %ai = shl i64 %ai0, %ash
  %bi = shl i64 %bi0, %bsh
  %ae = sub i64 %ae1, %ash
  %be = sub i64 %be1, %bsh
  br label %divide
divide:
  %r = phi i64 [ %ai, %prepare ], [ %r2, %shift ]
  %e = phi i64 [ %ae, %prepare ], [ %e1, %shift ]
  %ge = icmp uge i64 %r, %bi
  %less = sub i64 %r, %bi
  %r1 = select i1 %ge, i64 %less, i64 %r
  %more = icmp sgt i64 %e, %be
  br i1 %more, label %shift, label %pack
shift:
  %r2 = shl i64 %r1, 1
  %e1 = sub i64 %e, 1
  br label %divide
pack:
  %zero = icmp eq i64 %r1, 0
  %deep = sub i64 1, %be
  %down = call i64 @llvm.smax.i64(i64 %deep, i64 0)
  %rd = lshr i64 %r1, %down
  %bp = call i64 @llvm.smax.i64(i64 %be, i64 1)
  %lz = call i64 @llvm.ctlz.i64(i64 %rd, i1 false)
  %up0 = sub i64 %lz, 11
  %room = sub i64 %bp, 1
  %up1 = call i64 @llvm.smin.i64(i64 %up0, i64 %room)
  %up = select i1 %zero, i64 0, i64 %up1
  %rn = shl i64 %rd, %up
  %en = sub i64 %room, %up
  %es = shl i64 %en, 52
  %mag = add i64 %es, %rn
  %magz = select i1 %zero, i64 0, i64 %mag
  %out = or i64 %magz, %sign
  %res = bitcast i64 %out to double
  ret double %res
}
"""
