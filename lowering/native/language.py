"""The vocabulary of native functions: a typed subset of Python that is compiled, never run as Python.

    class Counter(Struct):
        value: i64
        step: Callable[[i64], i64]

    @native
    def advance(counter: Counter, times: i64) -> i64:
        for _ in range(times):
            counter.value = counter.step(counter.value)
        return counter.value

*Types.* `i8` to `i64` are signed, `u8` to `u64` unsigned; `f32`, `f64`, `bool`; `ptr` is an address;
`Pointer[T]` an address of elements; the name of a `Struct` is the address of one. Nothing is converted but
literals: `i64(x)`, `cast(Pointer[i64], p)`, `cast(Counter, p)`. Integers wrap; `//` and `%` truncate as in C;
division by zero is undefined, as are shifts by the width or more.

*Statements.* Assignment to names (a variable keeps its first type, which an annotation may give), fields
(`counter.value`) and elements (`p[i]`), also augmented; `if`, `while`, `for i in range(...)` with step 1,
`break`, `continue`, `return`, `pass`, calls. Conditions are `bool`: compare with 0 or `null`. `and`, `or`,
`x if c else y` evaluate what they need.

*Calls.* Other native functions of the module, fields and variables that are `Callable[[...], R]` (C function
pointers), and the operations below. Names of the module that are ints or bools are constants.

A native function whose name begins with an underscore is internal to its module; the others are entries of
the image. `lowering.native.translate` makes the LLVM text.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

T = TypeVar("T")
F = TypeVar("F")


class Scalar:
    """A type that fits a register."""

    def __init__(self, name: str, llvm: str, c: Any, signed: bool = False, size: int | None = None) -> None:
        self.name, self.llvm, self.c, self.signed = name, llvm, c, signed
        self.size: int = ctypes.sizeof(c) if size is None else size

    def __repr__(self) -> str:
        return self.name


if TYPE_CHECKING:
    from typing import TypeAlias

    i8: TypeAlias = int
    i16: TypeAlias = int
    i32: TypeAlias = int
    i64: TypeAlias = int
    u8: TypeAlias = int
    u16: TypeAlias = int
    u32: TypeAlias = int
    u64: TypeAlias = int
    f32: TypeAlias = float
    f64: TypeAlias = float
    ptr: TypeAlias = Any
else:
    i8 = Scalar("i8", "i8", ctypes.c_int8, True)
    i16 = Scalar("i16", "i16", ctypes.c_int16, True)
    i32 = Scalar("i32", "i32", ctypes.c_int32, True)
    i64 = Scalar("i64", "i64", ctypes.c_int64, True)
    u8 = Scalar("u8", "i8", ctypes.c_uint8)
    u16 = Scalar("u16", "i16", ctypes.c_uint16)
    u32 = Scalar("u32", "i32", ctypes.c_uint32)
    u64 = Scalar("u64", "i64", ctypes.c_uint64)
    f32 = Scalar("f32", "float", ctypes.c_float)
    f64 = Scalar("f64", "double", ctypes.c_double)
    ptr = Scalar("ptr", "ptr", ctypes.c_void_p)

BOOL = Scalar("bool", "i1", ctypes.c_uint8)


class Pointer(Generic[T]):
    """The address of elements of one type."""

    if TYPE_CHECKING:

        def __getitem__(self, index: int) -> T: ...

        def __setitem__(self, index: int, value: T) -> None: ...


class At:
    """The byte offset of a field, where C's rules do not give it."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


def at(offset: int) -> Any:
    """Place a field of a `Struct` at a byte offset; the following ones continue there."""
    return At(offset)


class Struct:
    """Memory with named fields, laid out as C would, unless `at(offset)` says otherwise."""

    if not TYPE_CHECKING:

        def __init__(self, *_: Any) -> None:
            raise TypeError(f"{type(self).__name__} is a layout; use new() for memory of this layout")

    @classmethod
    def layout(cls) -> dict[str, tuple[int, Any]]:
        """`{field: (byte offset, type)}`; types as `resolve` gives them."""
        return _layout(cls)[0]

    @classmethod
    def size(cls) -> int:
        """Bytes of one structure, a multiple of 8."""
        return _layout(cls)[1]

    @classmethod
    def new(cls, **values: int) -> Any:
        """Zeroed memory of this layout with some fields set: a `ctypes` structure. Addresses are ints."""
        return ctypes_structure(cls)(**values)


@dataclass(frozen=True)
class PointerTo:
    """The type behind `Pointer[element]`."""

    element: Any

    def __repr__(self) -> str:
        return f"Pointer[{type_name(self.element)}]"


@dataclass(frozen=True)
class FunctionType:
    """The type behind `Callable[[arguments], result]`; `result` is None for none."""

    arguments: tuple[Any, ...]
    result: Any

    def __repr__(self) -> str:
        return f"Callable[[{', '.join(map(type_name, self.arguments))}], {type_name(self.result)}]"


def type_name(kind: Any) -> str:
    """How a type is written."""
    return kind.__name__ if isinstance(kind, type) else repr(kind)


def size_of(kind: Any) -> int:
    """Bytes of a value of a type in memory."""
    return kind.size if isinstance(kind, Scalar) else 8


def native(function: F) -> F:
    """Mark a function for translation."""
    return function


def resolve(annotation: Any, names: dict[str, Any]) -> Any:
    """The type an annotation (an `ast` expression) means in a module with these names: a `Scalar`, a `Struct`
    class, `PointerTo`, `FunctionType`, or None for none. Raises TypeError."""
    import ast

    match annotation:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return resolve(ast.parse(text, mode="eval").body, names)
        case ast.Name(id="bool"):
            return BOOL
        case ast.Name(id=name) if isinstance(names.get(name), Scalar):
            return names[name]
        case ast.Name(id=name) if isinstance(names.get(name), type) and issubclass(names[name], Struct):
            return names[name]
        case ast.Subscript(value=ast.Name(id="Pointer"), slice=element):
            return PointerTo(resolve(element, names))
        case ast.Subscript(
            value=ast.Name(id="Callable"), slice=ast.Tuple(elts=[ast.List(elts=arguments), result])
        ):
            return FunctionType(tuple(resolve(a, names) for a in arguments), resolve(result, names))
    raise TypeError(f"{ast.unparse(annotation)} is not a type of native code")


_layouts: dict[type, tuple[dict[str, tuple[int, Any]], int]] = {}


def _layout(cls: type[Struct]) -> tuple[dict[str, tuple[int, Any]], int]:
    found = _layouts.get(cls)
    if found is None:
        import ast
        import sys

        fields: dict[str, tuple[int, Any]] = {}
        names = vars(sys.modules[cls.__module__]) | {cls.__name__: cls}
        end = 0
        for name, annotation in cls.__annotations__.items():
            kind = resolve(ast.parse(annotation, mode="eval").body, names)
            size = size_of(kind)
            placed = cls.__dict__.get(name)
            offset = placed.offset if isinstance(placed, At) else -(-end // size) * size
            fields[name] = (offset, kind)
            end = max(end, offset + size)
        found = _layouts[cls] = (fields, -(-end // 8) * 8)
    return found


_structures: dict[type, Any] = {}


def ctypes_structure(cls: type[Struct]) -> Any:
    """The `ctypes.Structure` of a layout; all pointers are `c_void_p`."""
    found = _structures.get(cls)
    if found is None:
        members: list[tuple[str, Any]] = []
        end = 0
        for name, (offset, kind) in sorted(cls.layout().items(), key=lambda item: item[1][0]):
            if offset > end:
                members.append((f"_pad{end}", ctypes.c_uint8 * (offset - end)))
            members.append((name, kind.c if isinstance(kind, Scalar) else ctypes.c_void_p))
            end = offset + size_of(kind)
        if cls.size() > end:
            members.append((f"_pad{end}", ctypes.c_uint8 * (cls.size() - end)))
        found = _structures[cls] = type(cls.__name__, (ctypes.Structure,), {"_fields_": members})
    return found


# -- operations -------------------------------------------------------------------------------------
# Their meaning is in `translate`; outside of native functions there is none.

null: Any = None
"""The address 0."""


def _only_native(*_: Any) -> Any:
    raise TypeError("this operation exists in native functions only")


def cast(kind: type[T], value: Any) -> T:
    """An address as one of another type, or an i64 as an address, or an address as `i64`."""
    return _only_native()


def offset(pointer: Any, nbytes: int) -> Any:
    """A `ptr`, `nbytes` further on."""
    return _only_native()


def address(place: T) -> Pointer[T]:
    """Where a field or an element lies."""
    return _only_native()


def function(target: Any) -> Any:
    """A `ptr` to a native function of the module."""
    return _only_native()


def stack(kind: type[T], count: int) -> Pointer[T]:
    """`count` (a constant) elements on the stack, uninitialised, for the duration of the function."""
    return _only_native()


def local(kind: type[T]) -> T:
    """A `Struct` on the stack, uninitialised."""
    return _only_native()


def sizeof(kind: Any) -> int:
    """Bytes of a type in memory."""
    return _only_native()


def atomic_load(place: Pointer[T]) -> T:
    """Acquire."""
    return _only_native()


def atomic_store(place: Pointer[T], value: T) -> None:
    """Release."""
    _only_native()


def atomic_add(place: Pointer[T], value: T) -> T:
    """Sequentially consistent, as the next two; the value before."""
    return _only_native()


def atomic_exchange(place: Pointer[T], value: T) -> T:
    """The value before."""
    return _only_native()


def compare_exchange(place: Pointer[T], expected: T, value: T) -> T:
    """Store `value` if `expected` is there; the value before."""
    return _only_native()


def fence() -> None:
    """A sequentially consistent fence."""
    _only_native()


def pause() -> None:
    """Tell the processor that this is a spinning wait."""
    _only_native()


OPERATIONS = (
    cast, offset, address, function, stack, local, sizeof, atomic_load, atomic_store, atomic_add,
    atomic_exchange, compare_exchange, fence, pause,
)  # fmt: skip
