"""Attaches operations to `array` as operators and methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ingot.tracer.array import array
from ingot.tracer.dims import Dim
from ingot.tracer.ops import index, math

_OPERAND = (array, bool, int, float, complex, np.ndarray, np.generic, Dim)


def _operator(name: str, op: Callable[..., Any], words: str) -> Callable[..., Any]:
    def forward(self: array, other: Any) -> Any:
        if type(other) is array or _accepted(other):
            return op(self, other)
        raise _refused(words, other)

    forward.__name__ = forward.__qualname__ = name
    return forward


def _reflected(name: str, op: Callable[..., Any], words: str) -> Callable[..., Any]:
    def reflected(self: array, other: Any) -> Any:
        if _accepted(other):
            return op(other, self)
        raise _refused(words, other)

    reflected.__name__ = reflected.__qualname__ = name
    return reflected


def _in_place(name: str, op: Callable[..., Any], words: str) -> Callable[..., Any]:
    """All references to the array see the result, as in MLX."""

    def update(self: array, other: Any) -> array:
        if not _accepted(other):
            raise _refused(words, other)
        self._rebind(op(self, other), name.strip("_"))
        return self

    update.__name__ = update.__qualname__ = name
    return update


def _accepted(other: Any) -> bool:
    if isinstance(other, _OPERAND):
        return True
    return not isinstance(other, str | list | tuple | dict | type(None)) and (
        hasattr(other, "__array__") or hasattr(other, "__dlpack__") or hasattr(other, "__mlx_array__")
    )


def _refused(words: str, other: Any) -> ValueError:
    return ValueError(f"Cannot perform {words} on an ingot.array and {type(other).__name__}")


def _equality(name: str, op: Callable[..., array], otherwise: bool) -> Callable[..., Any]:
    def compare(self: array, other: Any) -> Any:
        # what cannot be an operand is simply different: `x == "a"`, `x == None`
        return op(self, other) if _accepted(other) else otherwise

    compare.__name__ = compare.__qualname__ = name
    return compare


def _method(name: str, op: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: array, *args: Any, **kwargs: Any) -> Any:
        return op(self, *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"array.{name}"
    method.__doc__ = f"See `ingot.{op.__name__}`."
    method.__wrapped__ = op  # type: ignore[attr-defined]  # its signature
    return method


def _attach_operators() -> None:
    arithmetic: dict[str, tuple[Callable[..., Any], str]] = {
        "add": (math.add, "addition"),
        "sub": (math.subtract, "subtraction"),
        "mul": (math.multiply, "multiplication"),
        "truediv": (math.divide, "division"),
        "floordiv": (math.floor_divide, "floor division"),
        "mod": (math.remainder, "remainder"),
        "pow": (math.power, "power"),
        "and": (math.bitwise_and, "bitwise and"),
        "or": (math.bitwise_or, "bitwise or"),
        "xor": (math.bitwise_xor, "bitwise xor"),
        "lshift": (math.left_shift, "left shift"),
        "rshift": (math.right_shift, "right shift"),
        "divmod": (math.divmod, "divmod"),
    }
    for name, (op, words) in arithmetic.items():
        setattr(array, f"__{name}__", _operator(f"__{name}__", op, words))
        setattr(array, f"__r{name}__", _reflected(f"__r{name}__", op, words))
        if name != "divmod":
            setattr(array, f"__i{name}__", _in_place(f"__i{name}__", op, words))
    array.__div__, array.__rdiv__ = array.__truediv__, array.__rtruediv__  # type: ignore[attr-defined]
    ordering: dict[str, Callable[..., array]] = {
        "lt": math.less,
        "le": math.less_equal,
        "gt": math.greater,
        "ge": math.greater_equal,
    }
    for name, op in ordering.items():
        setattr(array, f"__{name}__", _operator(f"__{name}__", op, "comparison"))
    array.__eq__ = _equality("__eq__", math.equal, False)  # type: ignore[method-assign,assignment]
    array.__ne__ = _equality("__ne__", math.not_equal, True)  # type: ignore[method-assign,assignment]
    array.__neg__ = _method("__neg__", math.negative)  # type: ignore[method-assign]
    array.__abs__ = _method("__abs__", math.abs)  # type: ignore[method-assign]
    array.__invert__ = _method("__invert__", math.bitwise_invert)  # type: ignore[method-assign]
    setattr(array, "__pos__", _method("__pos__", math.positive))  # noqa: B010


# MLX's methods that are functions of the same name with the array as first argument
_FUNCTIONS = """
    abs all any argmax argmin astype cos diag diagonal exp flatten log log10 log1p log2 logsumexp max mean min
    moveaxis prod reciprocal round rsqrt sin split sqrt square squeeze std sum swapaxes var view
    broadcast_to expand_dims cumsum cumprod cummax cummin logcumsumexp conj
""".split()


def _reshape(self: array, *shape: Any, stream: Any = None) -> array:
    """See `ingot.reshape`; the extents may be given one by one."""
    return _ops["reshape"](
        self, shape[0] if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape
    )


def _transpose(self: array, *axes: Any, stream: Any = None) -> array:
    """See `ingot.transpose`; the axes may be given one by one."""
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], list | tuple)):
        return _ops["transpose"](self, axes[0])
    return _ops["transpose"](self, axes or None)


def _matrix_transpose(self: array) -> array:
    """The array with its last two axes exchanged."""
    if self.ndim < 2:
        raise ValueError(f"[mT] needs at least 2 dimensions, got {self.ndim}.")
    return _ops["swapaxes"](self, -1, -2)


_ops: dict[str, Any] = {}


def attach(operations: dict[str, Any]) -> None:
    """Give `array` its operators and methods."""
    _ops.update({name: value for name, value in operations.items() if callable(value)})
    _attach_operators()
    for name in _FUNCTIONS:
        if name in _ops:
            setattr(array, name, _method(name, _ops[name]))
    methods = {
        "reshape": _reshape,
        "transpose": _transpose,
        "T": property(lambda self: _ops["transpose"](self), doc="The array with its axes reversed."),
        "mT": property(_matrix_transpose),
        "real": property(lambda self: _ops["real"](self), doc="Real part."),
        "imag": property(lambda self: _ops["imag"](self), doc="Imaginary part."),
        "at": property(index.ArrayAt, doc="`x.at[i].add(y)`: a new array; updates of one element add up."),
        "__getitem__": index.getitem,
        "__setitem__": index.setitem,
        "__matmul__": _operator("__matmul__", _ops["matmul"], "matrix multiplication"),
        "__rmatmul__": _reflected("__rmatmul__", _ops["matmul"], "matrix multiplication"),
        "__imatmul__": _in_place("__imatmul__", _ops["matmul"], "matrix multiplication"),
    }
    for name, method in methods.items():
        setattr(array, name, method)
