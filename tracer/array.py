"""The array and the lazy graph behind it.

An `array` is a handle that can be rebound (in-place updates); it holds a `Value`, which cannot change
except by receiving its storage. A value comes from a `LazyNode` (a primitive and its operands) or is a leaf.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ingot.tracer import dtypes, printing
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import TracerError
from ingot.tracer.evaluate import evaluator
from ingot.tracer.graph import Literal, Location
from ingot.tracer.primitive import Primitive, _inferred, registry
from ingot.tracer.state import ABSTRACT, next_serial, state, user_frame


class Storage:
    """Memory that values view: `owner` keeps it alive.

    `pinned`: a writable view was handed out, so the contents may change. `frozen`: a graph holds the contents
    as a constant, so a writable view gets a copy.
    """

    __slots__ = ("owner", "pinned", "frozen", "_pointer", "_nbytes")

    def __init__(self, owner: Any, pointer: int | None = None, nbytes: int | None = None) -> None:
        self.owner = owner
        self.pinned = self.frozen = False
        self._pointer, self._nbytes = pointer, nbytes

    @property
    def pointer(self) -> int:
        """Address of the first byte."""
        if self._pointer is None:
            self._pointer = self.owner.__array_interface__["data"][0]
        return self._pointer

    @property
    def nbytes(self) -> int:
        return self.owner.nbytes if self._nbytes is None else self._nbytes


class LazyNode:
    """A recorded, not yet evaluated application of a primitive."""

    __slots__ = ("primitive", "operands", "where", "scope", "values")

    def __init__(
        self,
        primitive: Primitive,
        operands: tuple[Value | Literal, ...],
        where: tuple[Any, int] | None,
        scope: str,
    ) -> None:
        self.primitive, self.operands, self.where, self.scope = primitive, operands, where, scope
        # The results, for primitives with several of them only: a strong cycle otherwise.
        self.values: tuple[Value, ...] | None = None

    @property
    def location(self) -> Location | None:
        return None if self.where is None else Location(*self.where)


@final
class Value:
    """One result in the lazy graph, or a leaf. `view` is the NumPy view of its storage once it is known."""

    __slots__ = ("aval", "node", "index", "storage", "view", "trace", "serial", "__weakref__")

    aval: Aval
    node: LazyNode | None
    index: int
    storage: Storage | None
    view: np.ndarray | None
    trace: int
    serial: int

    def __init__(self, aval: Aval, node: LazyNode | None = None, index: int = 0, trace: int = 0) -> None:
        self.aval, self.node, self.index, self.trace = aval, node, index, trace
        self.storage = self.view = None
        self.serial = next_serial()

    def __repr__(self) -> str:
        kind = (
            "evaluated" if self.storage is not None else self.node.primitive.name if self.node else "abstract"
        )
        return f"Value({self.aval!r}, {kind})"


def leaf(view: np.ndarray, storage: Storage | None = None, aval: Aval | None = None) -> Value:
    """A value over existing memory."""
    value = Value(aval or Aval(view.shape, dtypes.from_numpy(view.dtype)))
    value.view = view
    value.storage = storage or Storage(view if view.base is None else memory_root(view))
    return value


def memory_root(view: np.ndarray) -> np.ndarray:
    """The array whose memory `view` shows."""
    while isinstance(view.base, np.ndarray):
        view = view.base
    return view


def record(primitive: Primitive, *operands: Value | Literal) -> array:
    """Record `primitive` on `operands`; the handle of its only result."""
    key = (primitive, tuple([o.aval for o in operands]))
    avals = _inferred.get(key)
    if avals is None:
        avals = primitive.result_avals(key[1])
    node = LazyNode(primitive, operands, user_frame(), state.scope)
    trace = 0
    for operand in operands:
        if operand.trace > trace:
            trace = operand.trace
    out = _new(array)
    out._value = Value(avals[0], node, 0, trace)
    return out


def record_all(primitive: Primitive, *operands: Value | Literal) -> tuple[array, ...]:
    """Record `primitive` on `operands`; the handles of all its results."""
    avals = primitive.result_avals(tuple([o.aval for o in operands]))
    node = LazyNode(primitive, operands, user_frame(), state.scope)
    trace = max((o.trace for o in operands), default=0)
    values = tuple(Value(aval, node, index, trace) for index, aval in enumerate(avals))
    if len(values) != 1:
        node.values = values
    return tuple(wrap(value) for value in values)


def wrap(value: Value | Literal) -> array:
    """A new handle of `value`."""
    out = _new(array)
    out._value = value
    return out


def evaluate(values: Iterable[Value]) -> None:
    """Give every value a storage; raises TracerError for one that depends on an abstract argument."""
    pending = []
    for value in values:
        if value.storage is None:
            if value.trace == ABSTRACT or value.node is None:
                raise _abstract_error()
            pending.append(value)
    if pending:
        evaluator().evaluate(pending)


def at_user_line() -> str:
    """` at file:line` of the user's code, for messages; empty where there is none."""
    where = user_frame()
    return f" at {Location(*where)}" if where else ""


def _abstract_error() -> TracerError:
    return TracerError(
        "[eval] The value of an array is not known during function transformations like compile or vmap"
        f"{at_user_line()}. Use array operations instead of Python control flow, or evaluate outside the "
        "transformed function."
    )


class array:
    """An N-dimensional array: lazy until its value is needed.

    Args:
        val: scalar, nested list or tuple, NumPy array, array, object with the buffer protocol or DLPack.
        dtype: element type; by default bool, int32 (int64 where needed), float32 or complex64 for Python
            values and the element type of an array (float64 arrays of other libraries become float32).

    Raises:
        ValueError: for ragged lists and for objects of other types.
    """

    __slots__ = ("_value", "__weakref__")

    _value: Any  # Value | Literal

    __array_priority__ = 1000

    def __init__(self, val: Any, dtype: Dtype | None = None) -> None:
        self._value = _value_of(val, dtype)

    # -- what is known without a value ---------------------------------------------------------------

    @property
    def shape(self) -> tuple[Extent, ...]:
        """Extents of the axes."""
        return self._value.aval.shape

    @property
    def dtype(self) -> Dtype:
        return self._value.aval.dtype

    @property
    def ndim(self) -> int:
        return self._value.aval.ndim

    @property
    def size(self) -> Extent:
        """Number of elements."""
        return self._value.aval.size

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self._value.aval.dtype.size

    @property
    def nbytes(self) -> Extent:
        return self._value.aval.nbytes

    def __len__(self) -> int:
        if not self._value.aval.shape:
            raise TypeError("len() 0-dimensional array.")
        return self._value.aval.shape[0].__index__()

    def __iter__(self) -> ArrayIterator:
        if not self._value.aval.shape:
            raise TypeError("iter() 0-dimensional array.")
        return ArrayIterator(self)

    def __hash__(self) -> int:
        return id(self) >> 4

    # -- values ----------------------------------------------------------------------------------------

    def _evaluated(self) -> Value:
        """The value with its storage."""
        value = self._value
        if type(value) is Literal:
            value = self._value = leaf(value.numpy())
        elif value.storage is None:
            evaluate((value,))
        return value

    def _view(self) -> np.ndarray:
        """NumPy view of the evaluated array; not for writing."""
        value = self._evaluated()
        assert value.view is not None
        return value.view

    def item(self) -> bool | int | float | complex:
        """The only element as a Python scalar."""
        view = self._view()
        if view.size != 1:
            raise ValueError(
                f"[convert] Only length-1 arrays can be converted to Python scalars, not shape "
                f"{_shape(self)}."
            )
        return view.item() if self.dtype is not dtypes.bfloat16 else float(view.reshape(()))

    def tolist(self) -> Any:
        """Nested Python lists of the elements (a scalar for rank 0)."""
        view = self._view()
        return (view.astype(np.float32) if self.dtype is dtypes.bfloat16 else view).tolist()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())  # type: ignore[arg-type]

    def __float__(self) -> float:
        return float(self.item())  # type: ignore[arg-type]

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if not self._value.aval.is_symbolic and self.size != 1:
            raise TypeError(f"only integer scalar arrays can be an index, not shape {_shape(self)}")
        value = self.item()
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"only integer scalar arrays can be an index, not {self.dtype.name}")
        return value

    def __repr__(self) -> str:
        if self._value.trace == ABSTRACT:
            return f"array(<abstract>, shape={_shape(self)}, dtype={self.dtype.name})"
        return printing.text(self._view(), self.dtype)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else str(self)

    # -- conversion --------------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        view = self._view()
        if dtype is not None and np.dtype(dtype) != view.dtype:
            if copy is False:
                raise ValueError(f"[array] a {self.dtype.name} array cannot be viewed as {np.dtype(dtype)}.")
            return view.astype(dtype)
        return view.copy() if copy else self._writable_view()

    def _writable_view(self) -> np.ndarray:
        """A view that outside code may write through: pins the storage."""
        value = self._evaluated()
        view, storage = value.view, value.storage
        assert view is not None and storage is not None
        if not view.flags.writeable or storage.frozen:
            # Memory nobody may write (a mapped file, a constant): the array gets its own copy first.
            view = view.copy()
            storage = Storage(view)
            value.storage, value.view = storage, view
        storage.pinned = True
        return view.view()

    def __dlpack__(self, **kwargs: Any) -> Any:
        kwargs.pop("stream", None)
        return self._writable_view().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __bytes__(self) -> bytes:
        return self._view().tobytes()

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        """The module with the functions of the array API."""
        return sys.modules["ingot"]

    def __reduce__(self) -> tuple[Any, ...]:
        view = np.ascontiguousarray(self._view())
        return (_from_bytes, (view.tobytes(), view.shape, self.dtype.name))

    def __copy__(self) -> array:
        return wrap(self._value)

    def __deepcopy__(self, memo: dict[int, Any]) -> array:
        return wrap(self._value)

    # -- rebinding -----------------------------------------------------------------------------------------

    def _rebind(self, new: array, what: str) -> None:
        """Make this handle (and so every reference to it) stand for the value of `new`."""
        since = state.abstract_since
        if since is not None and self._value_serial() < since and id(self) not in state.rebindable:
            raise ValueError(
                f"[{what}] An array from outside the function is updated in place inside compile, vmap or "
                f"export{at_user_line()}. Pass it as an argument, or name it in `inputs=` and `outputs=` of "
                "compile."
            )
        self._value = new._value

    def _value_serial(self) -> int:
        return 0 if type(self._value) is Literal else self._value.serial

    if TYPE_CHECKING:  # methods and operators that `ops` attaches

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> array: ...
        def __radd__(self, other: Any) -> array: ...
        def __sub__(self, other: Any) -> array: ...
        def __rsub__(self, other: Any) -> array: ...
        def __mul__(self, other: Any) -> array: ...
        def __rmul__(self, other: Any) -> array: ...
        def __truediv__(self, other: Any) -> array: ...
        def __rtruediv__(self, other: Any) -> array: ...
        def __floordiv__(self, other: Any) -> array: ...
        def __mod__(self, other: Any) -> array: ...
        def __pow__(self, other: Any) -> array: ...
        def __matmul__(self, other: Any) -> array: ...
        def __and__(self, other: Any) -> array: ...
        def __or__(self, other: Any) -> array: ...
        def __xor__(self, other: Any) -> array: ...
        def __rshift__(self, other: Any) -> array: ...
        def __lshift__(self, other: Any) -> array: ...
        def __neg__(self) -> array: ...
        def __abs__(self) -> array: ...
        def __invert__(self) -> array: ...
        def __lt__(self, other: Any) -> array: ...
        def __le__(self, other: Any) -> array: ...
        def __gt__(self, other: Any) -> array: ...
        def __ge__(self, other: Any) -> array: ...
        def __eq__(self, other: Any) -> array: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> array: ...  # type: ignore[override]
        def __getitem__(self, index: Any) -> array: ...
        def __setitem__(self, index: Any, update: Any) -> None: ...


class ArrayIterator:
    """The parts of an array along its first axis, in order."""

    def __init__(self, x: array) -> None:
        self._array, self._next, self._end = x, 0, len(x)

    def __iter__(self) -> ArrayIterator:
        return self

    def __next__(self) -> array:
        if self._next >= self._end:
            raise StopIteration
        self._next += 1
        return self._array[self._next - 1]


class ArrayLike(ABC):
    """An object of another class with a method `__mlx_array__` that returns an array."""

    @abstractmethod
    def __mlx_array__(self) -> array: ...

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        return any("__mlx_array__" in vars(base) for base in other.__mro__) if cls is ArrayLike else False


_new = array.__new__


def _shape(a: array) -> str:
    return "(" + ",".join(map(str, a.shape)) + ")"


def _from_bytes(data: bytes, shape: tuple[int, ...], name: str) -> array:
    dtype = dtypes.by_name[name]
    return wrap(leaf(np.frombuffer(data, dtype.numpy).reshape(shape).copy(), aval=Aval(shape, dtype)))


# -- making values from Python objects -----------------------------------------------------------------------


def _value_of(val: Any, dtype: Dtype | None) -> Value | Literal:
    if dtype is not None and not isinstance(dtype, Dtype):
        raise TypeError(f"[array] dtype must be an ingot Dtype, not {type(dtype).__name__}.")
    if isinstance(val, array):
        return val._value if dtype is None or dtype is val.dtype else val.astype(dtype)._value
    if isinstance(val, bool | int | float | complex) and not isinstance(val, np.generic):
        return _leaf_of_scalar(val, dtype)
    if isinstance(val, Dim):
        return dim_to_array(val, dtype or dtypes.int32)._value
    if isinstance(val, list | tuple):
        return _value_of_list(val, dtype)
    if hasattr(val, "__mlx_array__"):
        return _value_of(val.__mlx_array__(), dtype)
    found = _from_foreign(val)
    if found is None:
        raise ValueError(f"[array] Invalid type {type(val).__name__} received in array initialization.")
    source = dtypes.from_numpy(found.dtype)
    if dtype is None:
        # float64 is NumPy's default, not the user's wish (MLX)
        dtype = dtypes.float32 if source is dtypes.float64 else source
    if dtype is source:
        copied = np.array(found, dtype=source.numpy, order="C", copy=True)
        return leaf(copied, aval=Aval(copied.shape, dtype))
    return leaf(_convert(found, dtype), aval=Aval(found.shape, dtype))


def _from_foreign(val: Any) -> np.ndarray | None:
    """NumPy view or copy of an object of another library; None when it offers no array."""
    if isinstance(val, np.ndarray | np.generic):
        return np.asarray(val)
    if hasattr(val, "__array_interface__"):
        return np.asarray(val)
    if hasattr(val, "__dlpack__"):
        try:
            return np.from_dlpack(val)
        except (BufferError, RuntimeError, TypeError):
            if not hasattr(val, "__array__"):
                raise
    if hasattr(val, "__array__"):
        return np.asarray(val)
    try:
        return np.asarray(memoryview(val))
    except TypeError:
        return None


def _leaf_of_scalar(val: bool | int | float | complex, dtype: Dtype | None) -> Value:
    if dtype is None:
        if isinstance(val, bool):
            dtype = dtypes.bool_
        elif isinstance(val, int):
            dtype = dtypes.int32 if -(1 << 31) <= val < 1 << 31 else dtypes.int64
        else:
            dtype = dtypes.float32 if isinstance(val, float) else dtypes.complex64
    if dtype.is_integer and isinstance(val, float):
        return leaf(_convert(np.asarray(val), dtype), aval=Aval((), dtype))
    return leaf(Literal(val, dtype).numpy(), aval=Aval((), dtype))


def _value_of_list(val: Sequence[Any], dtype: Dtype | None) -> Value:
    shape = _list_shape(val)
    flat: list[Any] = []
    _flatten(val, shape, 0, flat)
    if any(isinstance(x, array) for x in flat):
        parts = [x if isinstance(x, array) else array(x) for x in flat]
        if any(p.shape != parts[0].shape for p in parts):
            raise ValueError("[array] Initialization encountered non-uniform length.")
        stacked = _joined(parts).reshape(shape + parts[0].shape)
        return (stacked if dtype is None else stacked.astype(dtype))._value
    if any(
        isinstance(x, np.ndarray | np.generic) or not isinstance(x, bool | int | float | complex)
        for x in flat
    ):
        for x in flat:
            if not isinstance(x, np.ndarray | np.generic | bool | int | float | complex):
                raise ValueError(f"[array] Invalid type {type(x).__name__} received in array initialization.")
        return _value_of(np.asarray(val), dtype)  # type: ignore[return-value]
    found = dtype or _list_dtype(flat)
    try:
        with np.errstate(all="ignore"):
            if found.is_integer and any(isinstance(x, float) for x in flat):
                view = _convert(np.asarray(flat, np.float64), found).reshape(shape)
            elif found is dtypes.bfloat16:
                view = np.asarray(flat, np.float32).astype(found.numpy).reshape(shape)
            else:
                view = np.asarray(flat, found.numpy).reshape(shape)
    except OverflowError:
        raise ValueError(f"[array] the values {flat[:3]}... do not fit {found.name}.") from None
    return leaf(np.array(view, order="C"), aval=Aval(view.shape, found))


def _list_dtype(flat: Sequence[Any]) -> Dtype:
    """float32 for an empty list; else the first of bool, int32, int64, float32, complex64 that holds all."""
    if not flat:
        return dtypes.float32
    kinds = set(map(type, flat))
    if complex in kinds:
        return dtypes.complex64
    if float in kinds:
        return dtypes.float32
    if kinds == {bool}:
        return dtypes.bool_
    return dtypes.int32 if all(-(1 << 31) <= x < 1 << 31 for x in flat) else dtypes.int64


def _list_shape(val: Any) -> tuple[int, ...]:
    shape: list[int] = []
    while isinstance(val, list | tuple):
        shape.append(len(val))
        if not val:
            break
        val = val[0]
        if len(shape) > 64:
            raise ValueError("[array] lists are nested more than 64 deep.")
    return tuple(shape)


def _flatten(val: Any, shape: tuple[int, ...], depth: int, out: list[Any]) -> None:
    nested = isinstance(val, list | tuple)
    if nested != (depth < len(shape)) or (nested and len(val) != shape[depth]):
        raise ValueError("[array] Initialization encountered non-uniform length.")
    if not nested:
        out.append(val)
        return
    for item in val:
        _flatten(item, shape, depth + 1, out)


def _convert(view: np.ndarray, dtype: Dtype) -> np.ndarray:
    """A row-contiguous copy of `view` in `dtype`; floats saturate to integers and NaN gives 0."""
    target = dtype.numpy
    if dtype.is_integer and view.dtype.kind not in "biu":
        view = np.asarray(view.real if view.dtype.kind == "c" else view)
        if view.dtype.itemsize < 4 or view.dtype.kind not in "f":
            view = view.astype(np.float32)
        info = np.iinfo(target)
        with np.errstate(all="ignore"):
            # the limits rounded towards zero in the source format, so that the cast itself never overflows
            out = np.where(np.isnan(view), 0, np.trunc(view))
            low, high = out <= info.min, out >= info.max
            inside = np.where(low | high, 0, out).astype(target)
        return np.asarray(np.where(low, info.min, np.where(high, info.max, inside)), dtype=target, order="C")
    with np.errstate(all="ignore"):
        if view.dtype.kind == "c" and dtype.kind != "c":
            view = view != 0 if dtype.kind == "b" else view.real
        return np.array(view, dtype=target, order="C", copy=True)


# Primitives need `array`; where it needs one of them, it finds it by name.


def _joined(parts: Sequence[array]) -> array:
    """Arrays of one shape, in the dtype they promote to, one after the other."""
    dtype = reduce(dtypes.promote, [p.dtype for p in parts])
    return record(registry["concatenate"](0), *[p.astype(dtype).reshape(-1)._value for p in parts])


def dim_to_array(extent: Dim, dtype: Dtype) -> array:
    """A symbolic extent as a scalar array."""
    return record(registry["dim_value"](extent, dtype))
