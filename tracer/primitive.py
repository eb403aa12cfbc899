"""Primitives: the operations of the IR, each declared once with all that is known about it.

A primitive is an immutable record; its annotated fields are the static parameters. From them follow text
form, file codec, equality and cache keys. Families (`Elementwise`, `Movement` and so on, in `primitives/`)
derive most rules.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import repeat
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Union, dataclass_transform, get_args, get_origin

import numpy as np

from ingot.tracer import dims
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.facts import contextual

if TYPE_CHECKING:
    from ingot.tracer.array import array

registry: dict[str, type[Primitive]] = {}
"""Every concrete primitive by name."""

_MEMO_BOUND = 1 << 16
_UNAMBIGUOUS = re.compile(r"(int|bool|str|Dtype|Graph|Extent|Shape|Axes|tuple|None|[\[\]|., ])+")
_COERCE: dict[str, Callable[[Any], Any]] = {"int": operator.index, "bool": bool}

_instances: dict[tuple[Any, ...], Any] = {}
_inferred: dict[tuple[Any, ...], tuple[Aval, ...]] = {}


class _Interning(type):
    """Makes equal primitives the same object where possible, so that memo lookups compare by identity."""

    exact: bool

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        key: tuple[Any, ...] = (cls, args)
        if kwargs or cls.exact:
            key = (cls, args, tuple(kwargs.items()), _kinds((*args, *kwargs.values())))
        try:
            found = _instances.get(key)
        except TypeError as error:
            raise TypeError(f"[{cls.__name__}] parameters must be hashable: {error}.") from None
        if found is None:
            found = super().__call__(*args, **kwargs)
            if len(_instances) >= _MEMO_BOUND:
                _instances.clear()
            _instances[key] = found
        return found


def _kinds(values: Iterable[Any]) -> tuple[Any, ...]:
    """Types of parameters, text of floats: 1, 1.0 and True, and 0.0 and -0.0, are equal as dict keys only."""
    return tuple(
        [repr(v) if type(v) is float else _kinds(v) if type(v) is tuple else type(v) for v in values]
    )


@dataclass_transform(frozen_default=True)
class Primitive(metaclass=_Interning):
    """One operation of the IR.

    `infer` gives result avals from operand avals and must hold for symbolic extents; `evaluate` is the NumPy
    reference; the three transform rules record new operations on `array`s. A rule that mathematics denies is
    set to a string: the documented reason.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    abstract: ClassVar[bool] = True
    may_alias: ClassVar[bool] = False
    """True when `evaluate` may return a view of its first operand."""
    fields: ClassVar[tuple[str, ...]] = ()
    """Names of the static parameters: the annotations of the class, in order."""
    coerced: ClassVar[dict[str, Callable[[Any], Any]]] = {}
    """For parameters declared `int` or `bool`: what makes them exactly that."""
    exact: ClassVar[bool] = False
    """True when parameters may be of several types, or floats: equal without being the same."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Written out here once: generating an __init__ for each class costs more than the rest of the import.
        if len(args) > len(self.fields):
            raise TypeError(f"[{self.name}] takes {len(self.fields)} parameters, got {len(args)}.")
        values = dict(zip(self.fields, args, strict=False))
        for name, value in kwargs.items():
            if name in values or name not in self.fields:
                raise TypeError(f"[{self.name}] unknown or repeated parameter {name!r}.")
            values[name] = value
        for name in self.fields:
            if name not in values:
                if not hasattr(type(self), name):
                    raise TypeError(f"[{self.name}] parameter {name!r} is missing.")
                values[name] = getattr(type(self), name)
        for name, coerce in self.coerced.items():
            values[name] = coerce(values[name])
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"[{self.name}] primitives are immutable: cannot set {name!r}.")

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("__annotations__", {})
        added = [name for name, kind in own.items() if not str(kind).startswith("ClassVar")]
        cls.fields = (*cls.fields, *added)
        cls.coerced = {**cls.coerced, **{n: _COERCE[str(k)] for n, k in own.items() if str(k) in _COERCE}}
        cls.exact = cls.exact or not all(_UNAMBIGUOUS.fullmatch(str(own[n])) for n in own if n in cls.fields)
        cls.abstract = abstract
        if not abstract:
            if "name" not in cls.__dict__:
                cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
            if cls.name in registry:
                raise TypeError(f"[Primitive] {cls.name} is declared twice.")
            registry[cls.name] = cls

    # -- identity ----------------------------------------------------------------------------------

    def params(self) -> dict[str, Any]:
        """Static parameters by field name, in order of declaration."""
        return {name: getattr(self, name) for name in self.fields}

    def _key(self) -> tuple[Any, ...]:
        values = tuple(self.params().values())
        return (type(self), values, _kinds(values))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Primitive) and hash(self) == hash(other) and self._key() == other._key()

    def __hash__(self) -> int:
        found = self.__dict__.get("_hash")
        if found is None:
            found = hash(self._key())
            self.__dict__["_hash"] = found
        return found

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.params().items())
        return f"{type(self).__name__}({shown})"

    # -- rules -------------------------------------------------------------------------------------

    def infer(self, *avals: Aval) -> Aval | tuple[Aval, ...]:
        """Avals of the results; raises ValueError where operands do not fit."""
        raise NotImplementedError(f"[{self.name}] infer")

    def evaluate(self, *operands: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """NumPy reference. Operands are never modified."""
        raise NotImplementedError(f"[{self.name}] evaluate")

    overwrite: ClassVar[Any] = None
    """`evaluate` that may write into the first operand, for primitives that update a part of it."""

    def vjp(
        self, primals: Sequence[array], cotangents: Sequence[array | None], results: Sequence[array]
    ) -> Sequence[array | None]:
        """Cotangents of the operands; None stands for zero, in the arguments too."""
        raise NotImplementedError(f"[{self.name}] vjp")

    def jvp(
        self, primals: Sequence[array], tangents: Sequence[array | None], results: Sequence[array]
    ) -> Sequence[array | None]:
        """Tangents of the results; None stands for zero, in the arguments too."""
        raise NotImplementedError(f"[{self.name}] jvp")

    def vmap(
        self, operands: Sequence[array], axes: Sequence[int | None], size: Extent
    ) -> tuple[Sequence[array], Sequence[int | None]]:
        """Results and their batch axes, from operands with batch axes (None: unbatched) of extent `size`."""
        raise NotImplementedError(f"[{self.name}] vmap")

    # -- derived -----------------------------------------------------------------------------------

    def result_avals(self, avals: tuple[Aval, ...]) -> tuple[Aval, ...]:
        """Memoised `infer`, always a tuple."""
        key = (self, avals)
        found = _inferred.get(key)
        if found is None:
            result = self.infer(*avals)
            found = result if isinstance(result, tuple) else (result,)
            if contextual() and (any(a.is_symbolic for a in avals) or self._is_symbolic()):
                return found  # remembered, it would not record its guards in the next trace
            if len(_inferred) >= _MEMO_BOUND:
                _inferred.clear()
            _inferred[key] = found
        return found

    def _is_symbolic(self) -> bool:
        found: dict[Dim, None] = {}
        symbols_of_param(tuple(self.params().values()), found)
        return bool(found)

    def substitute(self, env: Mapping[str, Extent]) -> Primitive:
        """The primitive with symbols in its parameters replaced."""
        params = self.params()
        new = {name: substitute_param(value, env) for name, value in params.items()}
        if all(new[name] is value for name, value in params.items()):
            return self
        return type(self)(**new)


def check_params(cls: type[Primitive], values: Sequence[Any]) -> None:
    """Raise TypeError unless each parameter is of the declared kind: for what comes from text and files."""
    for name, value, (owner, hint) in zip(cls.fields, values, _declared(cls), strict=True):
        if not _conforms(value, owner, hint):
            raise TypeError(f"{name} cannot be {repr(value)[:80]}")


@cache
def _declared(cls: type[Primitive]) -> list[tuple[type, Any]]:
    """For each parameter the class that declares it and the annotation."""
    found = []
    for name in cls.fields:
        owner = next(c for c in cls.__mro__ if name in c.__dict__.get("__annotations__", ()))
        found.append((owner, _resolved(owner, owner.__annotations__[name])))
    return found


def _resolved(owner: type, hint: Any) -> Any:
    while isinstance(hint, str):  # the text of our own source; aliases may be text again
        hint = eval(hint, {"Dim": Dim, **vars(sys.modules[owner.__module__])})
    return hint


def _conforms(value: Any, owner: type, hint: Any) -> bool:
    hint = _resolved(owner, hint)
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_conforms(value, owner, part) for part in parts)
    if origin is tuple and type(value) is tuple:
        if parts[-1] is Ellipsis:
            return all(_conforms(item, owner, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(_conforms, value, repeat(owner), parts))
    if hint is None or hint in (int, float, bool, str):
        return value is None if hint is None else type(value) is hint
    return hint is Any or (origin is None and isinstance(value, hint))


def substitute_param(value: Any, env: Mapping[str, Extent]) -> Any:
    """A parameter with its symbolic extents replaced; the same object when nothing changes."""
    if isinstance(value, Dim):
        return dims.substitute(value, env)
    if isinstance(value, tuple):
        new = tuple(substitute_param(v, env) for v in value)
        return value if all(a is b for a, b in zip(new, value, strict=True)) else new
    if hasattr(value, "substitute"):
        return value.substitute(env)
    return value


def symbols_of_param(value: Any, found: dict[Dim, None]) -> None:
    """Collect the symbols that occur in a parameter, in order, into `found`."""
    if isinstance(value, Dim):
        for symbol in dims.symbols(value):
            found.setdefault(symbol)
    elif isinstance(value, tuple):
        for item in value:
            symbols_of_param(item, found)
    elif hasattr(value, "dims"):
        for symbol in value.dims:
            found.setdefault(symbol)


def has_rule(cls: type[Primitive], rule: str) -> bool | str:
    """True when `cls` has the rule, False when it lacks it, or the reason why it cannot have it."""
    value = getattr(cls, rule)
    if isinstance(value, str):
        return value
    return value is not getattr(Primitive, rule)
