"""Records: classes of annotated fields, as `dataclasses` makes them, for a tenth of its time.

`dataclass` compiles up to nine functions for every class while a module is imported; with some sixty
classes that was a third of the time from a call to its first result in a new process. Here comparing,
hashing and printing are functions over the tuple of fields that all classes share, and `__init__` is compiled
for classes with many instances only.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, overload

T = TypeVar("T")


class _Missing:
    pass


_MISSING = _Missing()


class _Field:
    __slots__ = ("default", "factory", "init", "compare", "repr")

    def __init__(
        self,
        default: Any = _MISSING,
        factory: Callable[[], Any] | None = None,
        init: bool = True,
        compare: bool = True,
        repr: bool = True,
    ) -> None:
        self.default, self.factory, self.init = default, factory, init
        self.compare, self.repr = compare, repr


def field(
    *,
    default: Any = _MISSING,
    default_factory: Callable[[], Any] | None = None,
    init: bool = True,
    compare: bool = True,
    repr: bool = True,
) -> Any:
    """What is special about a field: how it begins, and whether it is an argument, compared and printed."""
    return _Field(default, default_factory, init, compare, repr)


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T], /) -> type[T]: ...


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(*, frozen: bool = True, eq: bool = True, slots: bool = True) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: Any = None, /, *, frozen: bool = True, eq: bool = True, slots: bool = True) -> Any:
    """Make a class a record of its annotated fields and those of its bases, in order.

    `frozen` records cannot be changed and, with `eq`, have a hash; `eq=False` compares by identity;
    `slots=False` leaves room for cached properties. A method `__post_init__` runs after `__init__`.
    """
    if cls is None:
        return lambda cls: _made(cls, frozen, eq, slots)
    return _made(cls, frozen, eq, slots)


def replace(instance: T, **changes: Any) -> T:
    """A copy of a record with some arguments changed."""
    fields = type(instance).__record_fields__  # type: ignore[attr-defined]
    given = {name: getattr(instance, name) for name, f in fields.items() if f.init and name not in changes}
    return type(instance)(**given, **changes)


def _made(cls: Any, frozen: bool, eq: bool, slots: bool) -> Any:
    fields: dict[str, _Field] = {}
    for base in reversed(cls.__mro__[1:]):
        fields.update(base.__dict__.get("__record_fields__", {}))
    namespace = dict(cls.__dict__)
    own = [n for n, kind in namespace.get("__annotations__", {}).items() if not kind.startswith("ClassVar")]
    for name in own:
        default = namespace.pop(name, _MISSING)
        fields[name] = default if isinstance(default, _Field) else _Field(default)
    namespace["__record_fields__"] = fields
    namespace["__match_args__"] = tuple(name for name, f in fields.items() if f.init)
    namespace["__record_made__"] = 0
    namespace["__record_post__"] = hasattr(cls, "__post_init__")
    namespace.setdefault("__init__", _init_slowly)
    namespace.setdefault("__repr__", _repr)
    if eq:
        compared = [name for name, f in fields.items() if f.compare]
        if len(compared) > 1:
            key: Callable[[Any], Any] = attrgetter(*compared)
        else:
            key = _key_of(compared)
        namespace["__record_key__"] = staticmethod(key)
        namespace.setdefault("__eq__", _eq)
        namespace["__hash__"] = _hash if frozen else None
    if frozen:
        namespace["__setattr__"] = _set_frozen
        namespace["__delattr__"] = _delete_frozen
    if slots:
        namespace["__slots__"] = tuple(own)
    for name in ("__dict__", "__weakref__"):
        namespace.pop(name, None)
    return type(cls)(cls.__name__, cls.__bases__, namespace)


def _key_of(names: list[str]) -> Callable[[Any], Any]:
    return lambda self: tuple(getattr(self, name) for name in names)


_COMPILE_AFTER = 100


def _init_slowly(self: Any, *args: Any, **kwargs: Any) -> None:
    """The `__init__` of a class until it has made so many instances that to compile one is worth its time."""
    cls: Any = next(c for c in type(self).__mro__ if "__record_fields__" in c.__dict__)
    names = cls.__match_args__
    values = dict(zip(names, args, strict=False), **kwargs)
    cls.__record_made__ += 1
    wrong = len(values) != len(args) + len(kwargs) or not values.keys() <= set(names)
    if wrong or cls.__record_made__ > _COMPILE_AFTER:
        _compile_init(cls)(self, *args, **kwargs)
        return
    set_ = object.__setattr__
    for name in names:
        if name in values:
            set_(self, name, values[name])
            continue
        f = cls.__record_fields__[name]
        if f.factory is None and f.default is _MISSING:
            _compile_init(cls)(self, *args, **kwargs)  # which says what is wrong
        set_(self, name, f.default if f.factory is None else f.factory())
    if cls.__record_post__:
        self.__post_init__()


def _compile_init(cls: Any) -> Any:
    made = cls.__init__ = _init(cls)
    return made


def _init(cls: Any) -> Any:
    """The `__init__` of a record class; what it sets goes past `__setattr__`, which frozen classes close."""
    scope: dict[str, Any] = {"missing": _MISSING}
    parameters, lines = [], []
    for name, f in cls.__record_fields__.items():
        if not f.init:
            continue
        slot: Any = getattr(cls, name, None)
        if hasattr(slot, "__set__"):
            scope[f"set_{name}"] = slot.__set__
            target = f"set_{name}(self, {{}})"
        else:
            target = f"self.__dict__[{name!r}] = {{}}"
        value = name
        if f.factory is not None:
            scope[f"make_{name}"] = f.factory
            value = f"make_{name}() if {name} is missing else {name}"
            parameters.append(f"{name}=missing")
        elif f.default is not _MISSING:
            scope[f"default_{name}"] = f.default
            parameters.append(f"{name}=default_{name}")
        else:
            parameters.append(name)
        lines.append(target.format(value))
    if cls.__record_post__:
        lines.append("self.__post_init__()")
    exec(f"def __init__(self, {', '.join(parameters)}):\n " + "\n ".join(lines or ["pass"]), scope)
    scope["__init__"].__qualname__ = f"{cls.__qualname__}.__init__"
    return scope["__init__"]


def _repr(self: Any) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name, f in self.__record_fields__.items() if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: Any) -> bool:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self.__record_key__(self) == self.__record_key__(other)


def _hash(self: Any) -> int:
    return hash(self.__record_key__(self))


def _set_frozen(self: Any, name: str, value: Any) -> None:
    raise AttributeError(f"cannot assign to {name!r} of a {type(self).__name__}, which is immutable")


def _delete_frozen(self: Any, name: str) -> None:
    raise AttributeError(f"cannot delete {name!r} of a {type(self).__name__}, which is immutable")
