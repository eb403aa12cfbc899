"""Writes the body of one LLVM function as text: numbered values, blocks, types and literals."""

from __future__ import annotations

import math
import struct

from ingot.lowering.loop import Type

# Register types. float16 and bfloat16 travel as their bits, bool as i1.
SCALARS = {
    "bool": "i1",
    "u8": "i8",
    "u16": "i16",
    "u32": "i32",
    "u64": "i64",
    "i8": "i8",
    "i16": "i16",
    "i32": "i32",
    "i64": "i64",
    "index": "i64",
    "f16": "i16",
    "bf16": "i16",
    "f32": "float",
    "f64": "double",
}
_SUFFIX = {
    "i1": "i1",
    "i8": "i8",
    "i16": "i16",
    "i32": "i32",
    "i64": "i64",
    "float": "f32",
    "double": "f64",
    "half": "f16",
    "ptr": "p0",
}


def llvm_type(scalar: str, lanes: int) -> str:
    """`float` or `<16 x float>`."""
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


def register_type(type: Type) -> str:
    """The LLVM type of a loop IR value in registers."""
    return llvm_type(SCALARS[type.dtype], type.lanes)


def memory_scalar(dtype: str) -> str:
    """The LLVM type of one element in memory."""
    return "i8" if dtype == "bool" else SCALARS[dtype]


def suffix(scalar: str, lanes: int) -> str:
    """The overload suffix of an intrinsic: `f32` or `v16f32`."""
    return _SUFFIX[scalar] if lanes == 1 else f"v{lanes}{_SUFFIX[scalar]}"


def scalar_literal(value: bool | int | float, scalar: str) -> str:
    """A literal of an LLVM scalar type; floats are written by their bits."""
    if scalar == "i1":
        return "true" if value else "false"
    if scalar in ("float", "double"):
        number = float(value)
        if scalar == "float":  # a float literal is the double of the same value, in hexadecimal
            try:
                number = struct.unpack("<f", struct.pack("<f", number))[0]
            except OverflowError:
                number = math.copysign(math.inf, number)
        return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"
    return str(int(value))


def narrow_bits(value: float, dtype: str) -> int:
    """The bits of the nearest (ties to even) float16 or bfloat16."""
    if dtype == "f16":
        try:
            return struct.unpack("<H", struct.pack("<e", value))[0]
        except OverflowError:
            return 0xFC00 if value < 0 else 0x7C00
    if math.isfinite(value):
        step = math.ldexp(1.0, max(math.frexp(value)[1] - 8, -133))
        value = math.copysign(round(value / step) * step, value)
        if abs(value) >= 2.0**128:
            value = math.copysign(math.inf, value)
    return struct.unpack("<I", struct.pack("<f", value))[0] >> 16


def literal(value: bool | int | float, scalar: str, lanes: int) -> str:
    """A literal, the same in every lane."""
    text = scalar_literal(value, scalar)
    if lanes == 1:
        return text
    return f"splat ({scalar} {text})"


def vector_literal(values: list[int], scalar: str) -> str:
    """A vector literal; -1 stands for a lane of no meaning in shuffles."""
    return f"<{', '.join(f'{scalar} ' + ('poison' if v < 0 else str(v)) for v in values)}>"


class Writer:
    """Collects instructions; every value gets a number of its own."""

    def __init__(self) -> None:
        self.entry: list[str] = []  # allocations, which belong to the first block
        self.lines: list[str] = []
        self.block = "entry"
        self._count = 0

    def fresh(self, hint: str = "t") -> str:
        self._count += 1
        return f"{hint}.{self._count}"

    def op(self, text: str, hint: str = "t") -> str:
        """Append `%name = text`; returns `%name`."""
        name = "%" + self.fresh(hint)
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """Append an instruction without result."""
        self.lines.append(f"  {text}")

    def start(self, label: str) -> None:
        """Begin the block `label`."""
        self.lines.append(f"{label}:")
        self.block = label

    def allocate(self, text: str, hint: str) -> str:
        name = "%" + self.fresh(hint)
        self.entry.append(f"  {name} = {text}")
        return name

    def call(self, name: str, scalar: str, lanes: int, *args: str, extra: str = "") -> str:
        """Call an intrinsic overloaded on one type, all of whose arguments have that type."""
        type = llvm_type(scalar, lanes)
        values = ", ".join(f"{type} {a}" for a in args)
        return self.op(f"call {type} @llvm.{name}.{suffix(scalar, lanes)}({values}{extra})")
