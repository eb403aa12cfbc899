"""How exported functions are called, for export and import: call forms, leaves, names, dynamic shapes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ingot.tracer import dims, tree
from ingot.tracer.array import array
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.dims_binding import bind_shapes
from ingot.tracer.tree import Tree

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def call_form(args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """Positional and keyword arguments from MLX's call forms.

    `f(x, y, k=z)`, `f((x, y))`, `f({"k": z})` and `f((x, y), {"k": z})`; lists count as tuples.
    """
    if not kwargs and args:
        sequence = isinstance(args[0], tuple | list)
        if len(args) == 1 and sequence:
            return tuple(args[0]), {}
        if len(args) == 1 and _is_keywords(args[0]):
            return (), dict(args[0])
        if len(args) == 2 and sequence and _is_keywords(args[1]):
            return tuple(args[0]), dict(args[1])
    return args, kwargs


def _is_keywords(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def flatten(args: Args, kwargs: Kwargs, operation: str) -> tuple[list[array], Tree]:
    """Leaves of `(args, kwargs)` as arrays, and the structure around them, its dicts by ascending key.

    NumPy arrays and other buffers become arrays. ValueError for a leaf that is none, such as a Python scalar.
    """
    found, structure = tree.flatten((_sorted(args), _sorted(kwargs)))
    return [as_array(leaf, operation) for leaf in found], structure


def leaves(args: Args, kwargs: Kwargs) -> list[Any]:
    """The leaves of `(args, kwargs)` as they were given."""
    return tree.flatten((_sorted(args), _sorted(kwargs)))[0]


def as_array(leaf: Any, operation: str) -> array:
    """`leaf` as an array; ValueError when it is neither an array nor a buffer."""
    if isinstance(leaf, array):
        return leaf
    if not isinstance(leaf, bool | int | float | complex | str | bytes | Dim):
        try:
            return array(leaf)
        except (TypeError, ValueError):
            pass
    raise ValueError(
        f"[{operation}] Inputs must be arrays, or tuples, lists and dicts of arrays; got "
        f"{type(leaf).__name__} {str(leaf)[:40]}. Wrap numbers in ingot.array(...)."
    )


def _sorted(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _sorted(value[key]) for key in sorted(value)}
    if kind is list or kind is tuple:
        return kind(_sorted(item) for item in value)
    return value


def portable(structure: Tree) -> Tree:
    """The structure as a file holds it: named tuples are tuples."""
    children = tuple(portable(child) for child in structure.children)
    if structure.kind == "namedtuple":
        return Tree("tuple", children)
    return Tree(structure.kind, children, structure.keys, structure.static)


def input_names(fun: Callable[..., Any] | None, structure: Tree) -> tuple[str, ...]:
    """An identifier for each leaf of `(args, kwargs)`: from the parameter of `fun` and the path inside it."""
    positional, keywords = structure.children
    names = [*parameter_names(fun, len(positional.children)), *keywords.keys]
    found: list[str] = []
    for name, child in zip(names, (*positional.children, *keywords.children), strict=True):
        _leaf_names(name, child, found)
    unique: dict[str, None] = {}
    for name in found:
        clean = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not re.match(r"[A-Za-z_]", clean):
            clean = f"_{clean}"
        while clean in unique:
            clean += "_"
        unique[clean] = None
    return tuple(unique)


def parameter_names(fun: Callable[..., Any] | None, count: int) -> list[str]:
    """Names of the first `count` positional parameters."""
    names: list[str] = []
    try:
        parameters = inspect.signature(fun).parameters.values() if fun is not None else ()
    except (TypeError, ValueError):  # built-in functions may have no signature
        parameters = ()
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return [*names[:count], *(f"arg_{i}" for i in range(len(names), count))]


def _leaf_names(name: str, structure: Tree, out: list[str]) -> None:
    if structure.kind == "leaf":
        out.append(name)
    keys = structure.keys or range(len(structure.children))
    for key, child in zip(keys, structure.children, strict=True):
        _leaf_names(f"{name}_{key}", child, out)


# Dynamic shapes


def dynamic_avals(
    avals: Sequence[Aval],
    structure: Tree,
    names: Sequence[str],
    parameters: Sequence[str],
    dynamic_shapes: Any,
) -> tuple[list[Aval], dict[str, int]]:
    """Symbolic avals for the inputs and the sample size of each symbol.

    avals, structure, names: of the sample inputs, as `flatten` and `input_names` give them.
    parameters: names of the positional arguments.
    dynamic_shapes: a dict by argument name, or a tuple by position. An entry is None, a dict {axis: Dim}, a
        tuple with one Dim, None or int per axis, or for nested arguments the same nesting of those.

    ValueError when the form is none of these, or the samples do not fit the dims.
    """
    positional, keywords = structure.children
    arguments = dict(
        zip((*parameters, *keywords.keys), (*positional.children, *keywords.children), strict=True)
    )
    specs = _by_argument(dynamic_shapes, arguments, len(positional.children))
    patterns: list[Any] = []
    for name, child in arguments.items():
        _leaf_specs(specs.get(name), child, name, patterns)
    symbolic = [_pattern(spec, aval, name) for spec, aval, name in zip(patterns, avals, names, strict=True)]
    _check_symbols(symbolic)
    try:
        samples = bind_shapes(symbolic, [[int(n) for n in a.shape] for a in avals], names)
    except ValueError as error:
        raise ValueError(f"[export_function] dynamic_shapes do not fit the sample inputs: {error}") from None
    return [Aval(shape, aval.dtype) for shape, aval in zip(symbolic, avals, strict=True)], samples


def _by_argument(dynamic_shapes: Any, arguments: Mapping[str, Tree], positional: int) -> dict[str, Any]:
    if isinstance(dynamic_shapes, dict):
        unknown = [key for key in dynamic_shapes if key not in arguments]
        if unknown:
            raise ValueError(
                f"[export_function] dynamic_shapes names {unknown}, the arguments are {list(arguments)}."
            )
        return dynamic_shapes
    if isinstance(dynamic_shapes, tuple | list):
        if len(dynamic_shapes) > positional:
            raise ValueError(
                f"[export_function] dynamic_shapes has {len(dynamic_shapes)} entries for {positional} "
                "positional arguments; name keyword arguments in a dict."
            )
        return dict(zip(arguments, dynamic_shapes, strict=False))
    raise ValueError(
        "[export_function] dynamic_shapes must be a dict by argument name or a tuple by position, got "
        f"{type(dynamic_shapes).__name__}."
    )


def _leaf_specs(spec: Any, structure: Tree, name: str, out: list[Any]) -> None:
    if structure.kind == "leaf" or spec is None:
        out.extend([spec] * structure.n_leaves)
        return
    keys = structure.keys or tuple(range(len(structure.children)))
    if isinstance(spec, dict):
        unknown = [key for key in spec if key not in keys]
        children = [spec.get(key) for key in keys]
    elif isinstance(spec, tuple | list):
        unknown = [] if len(spec) == len(keys) else [f"{len(spec)} entries"]
        children = list(spec)
    else:
        unknown, children = [repr(spec)], []
    if unknown:
        raise ValueError(
            f"[export_function] dynamic_shapes of {name!r}: {unknown} do not fit the parts {list(keys)}."
        )
    for key, inner, child in zip(keys, children, structure.children, strict=True):
        _leaf_specs(inner, child, f"{name}.{key}", out)


def _pattern(spec: Any, aval: Aval, name: str) -> tuple[Extent, ...]:
    shape = list(aval.shape)
    if spec is None:
        return tuple(shape)
    if isinstance(spec, dict):
        items = list(spec.items())
    elif isinstance(spec, tuple | list) and len(spec) == aval.ndim:
        items = list(enumerate(spec))
    else:
        raise ValueError(
            f"[export_function] dynamic_shapes of {name!r} must be None, a dict {{axis: Dim}} or a tuple "
            f"with {aval.ndim} entries for {aval}, got {spec!r}."
        )
    for axis, extent in items:
        if not isinstance(axis, int) or not -aval.ndim <= axis < aval.ndim:
            raise ValueError(f"[export_function] dynamic_shapes of {name!r}: {aval} has no axis {axis!r}.")
        if isinstance(extent, Dim) or (isinstance(extent, int) and not isinstance(extent, bool)):
            shape[axis] = extent
        elif extent is not None:
            raise ValueError(
                f"[export_function] dynamic_shapes of {name!r}, axis {axis}: expected a Dim, None or int, "
                f"got {extent!r}."
            )
    return tuple(shape)


def _check_symbols(shapes: Sequence[Sequence[Extent]]) -> None:
    known: dict[str, Dim] = {}
    for shape in shapes:
        for symbol in dims.symbols(*shape):
            other = known.setdefault(symbol.name, symbol)
            if other is not symbol:
                raise ValueError(
                    f"[export_function] two dims are called {symbol.name!r}: {other!r} and {symbol!r}."
                )


def shapeless_avals(avals: Sequence[Aval], names: Sequence[str]) -> tuple[list[Aval], dict[str, int]]:
    """Avals with a fresh symbol for every axis, and the sample size of each symbol."""
    samples: dict[str, int] = {}
    found = []
    for aval, name in zip(avals, names, strict=True):
        shape = []
        for axis, size in enumerate(aval.shape):
            symbol = f"{name}_{axis}"
            while symbol in samples:
                symbol += "_"
            samples[symbol] = int(size)
            shape.append(Dim(symbol))
        found.append(Aval(tuple(shape), aval.dtype))
    return found, samples


def show(avals: Sequence[Aval], structure: Tree, names: Sequence[str] = (), any_shape: bool = False) -> str:
    """A signature for messages: `(x: f32[B,4], y=f32[])`; with `any_shape` as `(x: f32[...], y=f32[...])`."""
    rest = iter([f"{aval.dtype.short}[...]" if any_shape else repr(aval) for aval in avals])
    positional, keywords = structure.children
    parts = [_show(child, rest) for child in positional.children]
    if names and len(names) == len(avals) and all(child.kind == "leaf" for child in positional.children):
        parts = [f"{name}: {part}" for name, part in zip(names, parts, strict=False)]
    parts += [
        f"{key}={_show(child, rest)}" for key, child in zip(keywords.keys, keywords.children, strict=True)
    ]
    return f"({', '.join(parts)})"


def _show(structure: Tree, avals: Iterator[str]) -> str:
    if structure.kind == "leaf":
        return next(avals)
    if structure.kind == "none":
        return "None"
    inner = [_show(child, avals) for child in structure.children]
    if structure.keys:
        inner = [f"{key}: {text}" for key, text in zip(structure.keys, inner, strict=True)]
    brackets = {"list": ("[", "]"), "tuple": ("(", ")"), "dict": ("{", "}")}
    left, right = brackets.get(structure.kind, (f"{structure.kind}(", ")"))
    return f"{left}{', '.join(inner)}{right}"
