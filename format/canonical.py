"""Canonical MessagePack: one encoding per value, decoded only from bounded bytes and with explicit caps.

The subset: nil, booleans, integers of 64 bits, float64, UTF-8 strings, byte strings, arrays, and maps whose
keys are strings in ascending order of code points. Every integer, length and string takes its shortest form.
Decoding re-encodes and compares, so bytes that are not canonical (duplicate or unsorted keys, long forms,
extension types) are errors. Arrays decode to tuples.

Columns: a list of non-negative integers is stored as `[width, bin]`, little-endian integers of 1, 2, 4 or 8
bytes, the smallest width that fits. Large tables cost their bytes and no Python object per element.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ingot.tracer.errors import FormatError

MAX_DEPTH = 64
# Containers a section may hold, beyond one per two bytes: bounds the memory that hostile nesting can cost.
_FREE_CONTAINERS = 4096
_SMALL = 64 * 1024
# Bytes that cannot start an array or map: values with few other bytes cannot be nested deep.
_LEAVES = bytes(set(range(256)) - {*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF})
_WIDTHS: dict[int, np.dtype[Any]] = {
    1: np.dtype("<u1"),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
}


class DamageError(FormatError):
    """A FormatError that knows its `offset` in the file; the message is completed with the file's name."""

    def __init__(self, reason: str, offset: int | None = None) -> None:
        self.reason = reason
        self.offset = offset
        super().__init__(reason if offset is None else f"byte {offset}: {reason}")


def encode(value: Any) -> bytes:
    """Canonical bytes of `value`. TypeError or ValueError for what the subset cannot carry."""
    import msgpack

    try:
        return msgpack.packb(_normal(value, 0), use_bin_type=True)
    except OverflowError as error:
        raise ValueError("integers in a file must fit in 64 bits") from error


def _normal(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"values in a file may be nested {MAX_DEPTH} deep at most")
    kind = type(value)
    if value is None or kind in (bool, int, float, bytes):
        return value
    if kind is str:
        value.encode("utf-8")
        return value
    if kind in (list, tuple):
        return [_normal(item, depth + 1) for item in value]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise TypeError(f"keys of maps in a file must be strings, got {key!r}")
        return {key: _normal(value[key], depth + 1) for key in sorted(value)}
    raise TypeError(f"a file cannot hold a value of type {kind.__name__}: {value!r}")


def decode(data: bytes, offset: int = 0) -> Any:
    """Value encoded by the whole of `data`, which stands at `offset` of the file (for messages).

    DamageError when the bytes are not canonical, too deep, or would cost memory out of proportion.
    """
    import msgpack

    size = len(data)
    budget = _Budget(size)
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            use_list=False,
            strict_map_key=True,
            object_pairs_hook=budget.on_map,
            list_hook=budget.on_list if size > _SMALL else None,
            ext_hook=_no_extensions,
            timestamp=0,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size // 2,
            max_ext_len=0,
        )
        if len(data.translate(None, _LEAVES)) > MAX_DEPTH:
            _check_depth(value)
        same = msgpack.packb(value, use_bin_type=True) == data
    except DamageError as error:
        raise DamageError(error.reason, offset) from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # msgpack's own errors (ExtraData, FormatError, StackError) are ValueErrors; some carry no message.
        raise DamageError(f"not valid MessagePack ({str(error) or type(error).__name__})", offset) from None
    if not same:
        raise DamageError("MessagePack that is not in its canonical form", offset)
    return value


class _Budget:
    """Counts containers while they are built, and checks that the keys of maps ascend."""

    def __init__(self, size: int) -> None:
        self.lists = _FREE_CONTAINERS + size // 2
        self.maps = _FREE_CONTAINERS + size // 8

    def on_map(self, pairs: Any) -> dict[str, Any]:
        self.maps -= 1
        if self.maps < 0:
            raise DamageError("more maps than a section of this size may hold")
        pairs = list(pairs)
        result = dict(pairs)
        if len(result) != len(pairs):
            raise DamageError("a map with a key that occurs twice")
        if any(type(key) is not str for key in result):
            raise DamageError("a map with a key that is not a string")
        keys = list(result)
        if keys != sorted(keys):
            raise DamageError("a map whose keys are not in ascending order")
        return result

    def on_list(self, items: Any) -> tuple[Any, ...]:
        self.lists -= 1
        if self.lists < 0:
            raise DamageError("more arrays than a section of this size may hold")
        return tuple(items)


def _no_extensions(code: int, data: bytes) -> Any:
    raise DamageError("MessagePack extension types do not occur in this format")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is tuple:
                inner += [x for x in item if type(x) is tuple or type(x) is dict]
            elif kind is dict:
                inner += [x for x in item.values() if type(x) is tuple or type(x) is dict]
        if not inner:
            return
        level = inner
    raise DamageError(f"values nested deeper than {MAX_DEPTH}")


def column(values: Iterable[int]) -> tuple[int, bytes]:
    """The column `[width, bin]` of non-negative integers below 2**64, in the smallest width that fits."""
    found = list(values)
    width = _width(max(found, default=0))
    return (width, np.array(found, _WIDTHS[width]).tobytes())


def _width(largest: int) -> int:
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4 if largest < 1 << 32 else 8


def read_column(value: Any, what: str, count: int | None = None, limit: int | None = None) -> list[int]:
    """Integers of a decoded column. `count` is the number it must have, `limit` what every entry stays below.

    DamageError names the column `what`.
    """
    if type(value) is not tuple or tuple(map(type, value)) != (int, bytes):
        raise DamageError(f"{what}: expected a column [width, bytes]")
    width, data = value
    if width not in _WIDTHS or len(data) % width:
        raise DamageError(f"{what}: {len(data)} bytes are no column of width {width}")
    numbers = list(data) if width == 1 else np.frombuffer(data, _WIDTHS[width]).tolist()
    largest = max(numbers, default=0)
    if count is not None and len(numbers) != count:
        raise DamageError(f"{what}: {len(numbers)} entries where {count} belong")
    if width != _width(largest):
        raise DamageError(f"{what}: width {width} is not the smallest that fits")
    if limit is not None and numbers and largest >= limit:
        raise DamageError(f"{what}: entry {largest} is not below {limit}")
    return numbers


def fields(value: Any, what: str, **kinds: type | tuple[type, ...]) -> list[Any]:
    """Values, in the order of `kinds`, of a decoded map with exactly these keys, each of its type."""
    if type(value) is not dict or set(value) != set(kinds):
        given = sorted(value) if type(value) is dict else type(value).__name__
        raise DamageError(f"{what}: expected a map of {sorted(kinds)}, found {given}")
    for name, kind in kinds.items():
        if type(value[name]) not in (kind if isinstance(kind, tuple) else (kind,)):
            raise DamageError(f"{what}.{name}: unexpected type {type(value[name]).__name__}")
    return [value[name] for name in kinds]
