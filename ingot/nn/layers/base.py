"""`Module`: a dictionary of parameters and sub-modules with attribute access."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import ingot as mx
from ingot.tracer.state import scope, state
from ingot.utils import tree_flatten, tree_unflatten

__all__ = ["Module"]

FilterFn = Callable[["Module", str, Any], bool]


def _is_floating(dtype: Any) -> bool:
    return mx.issubdtype(dtype, mx.floating)


class _Calls(threading.local):
    def __init__(self) -> None:
        self.running: list[Module] = []


_calls = _Calls()


def _scoped(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, recording under the path of its module (`layers.0`) while a transform traces."""

    @wraps(call)
    def wrapped(self: Module, *args: Any, **kwargs: Any) -> Any:
        running = _calls.running
        if not state.depth or (running and running[-1] is self):
            return call(self, *args, **kwargs)
        path = _path_within(running[-1], self) if running else ""
        running.append(self)
        try:
            if not path:
                return call(self, *args, **kwargs)
            with scope(path):
                return call(self, *args, **kwargs)
        finally:
            running.pop()

    return wrapped


def _path_within(parent: Module, child: Module) -> str:
    """Path of a sub-module; empty for a module that is not one."""
    for path, module in tree_flatten(parent.children(), is_leaf=Module.is_module):
        if module is child:
            return path
    return ""


class Module(dict):
    """Base class of layers and models.

    Arrays, modules, lists, tuples and dictionaries that are assigned to attributes are kept as items of the
    dictionary, so a module *is* the tree of its state; anything else is an ordinary attribute. Names that
    begin with an underscore are state but not parameters. Sub-classes call `super().__init__()` first and
    define `__call__`.
    """

    __call__: Callable[..., Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in cls.__dict__:
            cls.__call__ = _scoped(cls.__dict__["__call__"])  # type: ignore[method-assign]

    def __init__(self) -> None:
        self._no_grad: set[str] = set()
        self._training = True

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {key!r}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        if isinstance(value, mx.array | dict | list | tuple):
            self.__dict__.pop(key, None)
            self[key] = value
        else:
            self.pop(key, None)
            super().__setattr__(key, value)

    def __delattr__(self, key: str) -> None:
        if key in self:
            del self[key]
        else:
            super().__delattr__(key)

    def __repr__(self) -> str:
        head = f"{type(self).__name__}({self._extra_repr()}"
        lines = []
        for path, child in tree_flatten(self.children(), is_leaf=Module.is_module):
            if isinstance(child, Module):
                lines.append("  " + f"({path}): {child!r}".replace("\n", "\n  "))
        return head + ("\n" + "\n".join(lines) + "\n)" if lines else ")")

    def _extra_repr(self) -> str:
        return ""

    @property
    def training(self) -> bool:
        """Whether the module is in training mode (see `train` and `eval`)."""
        return self._training

    @property
    def state(self) -> Module:
        """The module itself: the dictionary of all its state, to be given to `compile(inputs=, outputs=)`."""
        return self

    @staticmethod
    def is_module(value: Any) -> bool:
        return isinstance(value, Module)

    @staticmethod
    def valid_child_filter(module: Module, key: str, value: Any) -> bool:
        return isinstance(value, dict | list)

    @staticmethod
    def valid_parameter_filter(module: Module, key: str, value: Any) -> bool:
        return isinstance(value, dict | list | mx.array) and not key.startswith("_")

    @staticmethod
    def trainable_parameter_filter(module: Module, key: str, value: Any) -> bool:
        return Module.valid_parameter_filter(module, key, value) and key not in module._no_grad

    def filter_and_map(
        self,
        filter_fn: FilterFn,
        map_fn: Callable | None = None,
        is_leaf_fn: FilterFn | None = None,
    ) -> dict:
        """The tree of `map_fn(value)` for the items that `filter_fn(module, key, value)` accepts.

        `is_leaf_fn(module, key, value)` says which accepted values are leaves; by default those that are
        neither module, dictionary nor list.
        """
        is_leaf = is_leaf_fn or _is_plain_value
        change = map_fn or _identity

        def visit(module: Module, key: str, value: Any) -> Any:
            if is_leaf(module, key, value):
                return change(value)
            if isinstance(value, Module):
                return {k: visit(value, k, v) for k, v in value.items() if filter_fn(value, k, v)}
            if isinstance(value, dict):
                return {k: visit_nested(module, f"{key}.{k}", v) for k, v in value.items()}
            if isinstance(value, list):
                return [visit_nested(module, f"{key}.{i}", v) for i, v in enumerate(value)]
            raise RuntimeError(f"[Module] {key}: a value of type {type(value).__name__} is not a leaf")

        def visit_nested(module: Module, key: str, value: Any) -> Any:
            # An item of a plain container that is not wanted leaves `{}`, so that indices stay right.
            return visit(module, key, value) if filter_fn(module, key, value) else {}

        return {k: visit(self, k, v) for k, v in self.items() if filter_fn(self, k, v)}

    def parameters(self) -> dict:
        """All arrays of the module and its sub-modules, as a tree."""
        return self.filter_and_map(self.valid_parameter_filter)

    def trainable_parameters(self) -> dict:
        """`parameters()` without the frozen ones."""
        return self.filter_and_map(self.trainable_parameter_filter)

    def children(self) -> dict:
        """The direct sub-modules, as a tree."""
        return self.filter_and_map(self.valid_child_filter, is_leaf_fn=lambda m, k, v: isinstance(v, Module))

    def leaf_modules(self) -> dict:
        """The sub-modules that have no sub-modules themselves, as a tree."""

        def is_leaf(module: Module, key: str, value: Any) -> bool:
            return isinstance(value, Module) and not tree_flatten(value.children(), is_leaf=Module.is_module)

        return self.filter_and_map(self.valid_child_filter, is_leaf_fn=is_leaf)

    def modules(self) -> list[Module]:
        """The module itself and all modules below it."""
        return [module for _, module in self.named_modules()]

    def named_modules(self) -> list[tuple[str, Module]]:
        """`(path, module)` of the module itself (path "") and all modules below it; later siblings come
        first.
        """
        found = []
        pending: list[tuple[str, Module]] = [("", self)]
        while pending:
            path, module = pending.pop()
            found.append((path, module))
            prefix = f".{path}" if path else ""
            children = tree_flatten(module.children(), prefix=prefix, is_leaf=Module.is_module)
            pending.extend((name, child) for name, child in children if isinstance(child, Module))
        return found

    def update(self, parameters: dict, strict: bool = True) -> Module:  # type: ignore[override]
        """Put the arrays of the tree `parameters` in their places and return the module.

        The tree may leave places out. Raises `ValueError` when it has a place that the module has not
        (ignored when `strict` is false), or something that is not an array where the module has one.
        """
        _put(self, parameters, strict, _replaces_array, "parameter")
        return self

    def update_modules(self, modules: dict, strict: bool = True) -> Module:
        """Put the modules of the tree `modules` in their places, as `update` does for arrays."""
        _put(self, modules, strict, _replaces_module, "sub-module")
        return self

    def apply(self, map_fn: Callable[[mx.array], mx.array], filter_fn: FilterFn | None = None) -> Module:
        """Replace each parameter (or item accepted by `filter_fn`) by `map_fn` of it."""
        self.update(self.filter_and_map(filter_fn or Module.valid_parameter_filter, map_fn))
        return self

    def apply_to_modules(self, apply_fn: Callable[[str, Module], Any]) -> Module:
        """Call `apply_fn(path, module)` for the module itself and all below it."""
        for path, module in self.named_modules():
            apply_fn(path, module)
        return self

    def freeze(
        self, *, recurse: bool = True, keys: str | list[str] | None = None, strict: bool = False
    ) -> Module:
        """Make parameters not trainable: all, or those named in `keys`, here and (with `recurse`) below.

        With `strict`, a name that a module has not is a `KeyError`.
        """

        def freeze_one(path: str, module: Module) -> None:
            if keys is None:
                local = module.filter_and_map(
                    lambda m, k, v: not isinstance(v, Module) and Module.valid_parameter_filter(m, k, v)
                )
                module._no_grad.update(tree_flatten(local, destination={}))
            else:
                module._no_grad.update(module._validate_keys(keys, strict))

        return self._visit(freeze_one, recurse)

    def unfreeze(
        self, *, recurse: bool = True, keys: str | list[str] | None = None, strict: bool = False
    ) -> Module:
        """Make parameters trainable again; the arguments are those of `freeze`."""

        def unfreeze_one(path: str, module: Module) -> None:
            if keys is None:
                module._no_grad.clear()
            else:
                module._no_grad.difference_update(module._validate_keys(keys, strict))

        return self._visit(unfreeze_one, recurse)

    def train(self, mode: bool = True) -> Module:
        """Set training mode here and below."""
        return self._visit(lambda path, module: module._set_training_mode(mode), recurse=True)

    def eval(self) -> Module:
        """Set evaluation mode here and below."""
        return self.train(False)

    def set_dtype(self, dtype: Any, predicate: Callable[[Any], bool] | None = _is_floating) -> None:
        """Cast the parameters whose dtype `predicate` accepts (by default the floating ones; None: all)."""
        if predicate is None:
            self.apply(lambda x: x.astype(dtype))
        else:
            self.apply(lambda x: x.astype(dtype) if predicate(x.dtype) else x)

    def _visit(self, function: Callable[[str, Module], Any], recurse: bool) -> Module:
        if recurse:
            return self.apply_to_modules(function)
        function("", self)
        return self

    def _set_training_mode(self, mode: bool) -> None:
        self._training = mode

    def _validate_keys(self, keys: str | list[str], strict: bool) -> list[str]:
        names = keys if isinstance(keys, list) else [keys]
        if strict:
            for name in names:
                if name not in self:
                    raise KeyError(f"[Module] {type(self).__name__} has no member {name!r}")
        return names

    def load_weights(
        self, file_or_weights: str | os.PathLike | list[tuple[str, Any]], strict: bool = True
    ) -> Module:
        """Set parameters from a `.npz` or `.safetensors` file, or from a list of `(path, array)`.

        With `strict`, names and shapes must be exactly those of the module, else `ValueError`.
        """
        if isinstance(file_or_weights, str | os.PathLike):
            weights = list(mx.load(file_or_weights).items())
        else:
            weights = list(file_or_weights)
        if strict:
            _check_weights(dict(weights), tree_flatten(self.parameters(), destination={}))
        if weights:
            self.update(tree_unflatten(weights), strict=False)
        return self

    def save_weights(self, file: str | os.PathLike) -> None:
        """Write the parameters to a `.npz` or `.safetensors` file."""
        file = os.fspath(file)
        parameters = tree_flatten(self.parameters(), destination={})
        if file.endswith(".npz"):
            mx.savez(file, **parameters)
        elif file.endswith(".safetensors"):
            mx.save_safetensors(file, parameters)
        else:
            raise ValueError(f"[save_weights] {file!r}: the extension must be '.npz' or '.safetensors'")


def _is_plain_value(module: Module, key: str, value: Any) -> bool:
    return not isinstance(value, dict | list)


def _identity(value: Any) -> Any:
    return value


def _replaces_array(old: Any, new: Any) -> bool | None:
    """Whether `new` replaces `old`: yes, no (descend into both), or None: they do not fit."""
    if isinstance(old, mx.array):
        return True if isinstance(new, mx.array) else None
    return False if isinstance(new, dict | list | tuple) else None


def _replaces_module(old: Any, new: Any) -> bool | None:
    if isinstance(new, Module):
        return True if isinstance(old, Module) else None
    return False if isinstance(new, dict | list | tuple) else None


def _put(
    destination: Any, source: Any, strict: bool, replaces: Callable[[Any, Any], bool | None], what: str
) -> None:
    """Assign the leaves of `source` to the same places of `destination`, in place."""
    if isinstance(destination, dict) and isinstance(source, dict):
        pairs: Any = source.items()
    elif isinstance(destination, list | tuple) and isinstance(source, list | tuple):
        pairs = enumerate(source)
    elif source and strict:
        raise ValueError(f"[Module] cannot put a {type(source).__name__} in {_describe(destination)}")
    else:
        return
    for key, new in pairs:
        if key not in destination if isinstance(destination, dict) else key >= len(destination):
            if strict:
                raise ValueError(f"[Module] there is no {what} {key!r} in {_describe(destination)}")
            continue
        old = destination[key]
        fits = replaces(old, new)
        if fits:
            if isinstance(destination, tuple):
                raise TypeError(f"[Module] a {what} in a tuple cannot be replaced; keep it in a list")
            destination[key] = new
        elif fits is not None:
            _put(old, new, strict, replaces, what)
        elif strict:
            raise ValueError(f"[Module] {key!r}: cannot put {_describe(new)} in place of {_describe(old)}")


def _describe(container: Any) -> str:
    name = type(container).__name__
    return name if isinstance(container, Module) else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _check_weights(given: dict[str, Any], expected: dict[str, Any]) -> None:
    extra = [name for name in given if name not in expected]
    if extra:
        raise ValueError(f"[load_weights] {len(extra)} parameters not in the model:\n" + ",\n".join(extra))
    missing = [name for name in expected if name not in given]
    if missing:
        raise ValueError(f"[load_weights] {len(missing)} parameters are missing:\n" + ",\n".join(missing))
    for name, parameter in expected.items():
        value = given[name]
        if not isinstance(value, mx.array):
            raise ValueError(f"[load_weights] {name}: expected an array, not {type(value).__name__}")
        if value.shape != parameter.shape:
            raise ValueError(f"[load_weights] {name}: expected shape {parameter.shape}, not {value.shape}")
