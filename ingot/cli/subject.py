"""What a command works on: a file, or a function given as `module:name` with the types of its arguments."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ingot as mx
from ingot.tracer import dims, dims_text, dtypes, tree
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.graph import Graph

_TYPE = re.compile(r"\s*,?\s*(\w+)\[([^\]]*)\]")
_USUAL_SIZE = 8


@dataclass
class Subject:
    """A callable with its traced graphs; `call(i, arrays)` runs trace i on its flat inputs."""

    name: str
    graphs: list[Graph]
    call: Callable[[int, Sequence[Any]], Sequence[Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", help="an .ingot file, or module:function")
    parser.add_argument(
        "--args", metavar="TYPES", help='types of the arguments of module:function, such as "f32[4,4] i32[B]"'
    )
    parser.add_argument("--trace", type=int, metavar="N", help="only the Nth trace of a file (from 0)")


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dim", action="append", default=[], metavar="NAME=SIZE", help="the size of a dynamic axis"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random inputs (default: %(default)s)")


def resolve(options: argparse.Namespace) -> Subject:
    """The subject of a command; ValueError or OSError when there is none of that name."""
    text = options.subject
    if is_module(text):
        subject = _of_module(text, options.args)
    else:
        subject = _of_file(text, options.args)
    chosen = options.trace
    if chosen is None:
        return subject
    if not 0 <= chosen < len(subject.graphs):
        raise ValueError(f"there is no trace {chosen}: {subject.name} has {len(subject.graphs)}")
    call = subject.call
    return Subject(subject.name, [subject.graphs[chosen]], lambda _, arrays: call(chosen, arrays))


def is_module(text: str) -> bool:
    """Whether the subject of that name is `module:function`, not a file."""
    return ":" in text and not Path(text).exists()


def _of_file(path: str, types: str | None) -> Subject:
    if types is not None:
        raise ValueError("--args is for module:function; the types of a file are in it (see --dim)")
    function = mx.import_function(path)

    def call(i: int, arrays: Sequence[Any]) -> Sequence[Any]:
        args, kwargs = tree.unflatten(function.traces[i].in_tree, arrays)
        return tree.flatten(function(*args, **kwargs))[0]

    return Subject(path, [trace.graph for trace in function.traces], call)


def _of_module(text: str, types: str | None) -> Subject:
    if types is None:
        raise ValueError(f'{text}: give the types of the arguments, such as --args "f32[4,4] i32[3]"')
    from ingot.tracer.trace import trace

    function = load_function(text)
    avals = parse_types(types)
    symbols = dims.symbols(*(extent for aval in avals for extent in aval.shape))
    samples = {symbol.name: usual_size(symbol) for symbol in symbols}

    def flat(*arrays: Any) -> list[Any]:
        return tree.flatten(function(*arrays))[0]

    name = getattr(function, "__name__", None) or text.partition(":")[2]
    graph = trace(flat, avals, name=name, samples=samples).graph
    compiled = mx.compile(flat)
    return Subject(text, [graph], lambda _, arrays: compiled(*arrays))


def load_function(text: str) -> Callable[..., Any]:
    """The object named `module:attribute` (or `module:a.b`); the current folder is searched first."""
    module_name, _, attribute = text.partition(":")
    sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
    finally:
        sys.path.remove("")
    for part in attribute.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{text} is a {type(found).__name__}, not a function")
    return found


def parse_types(text: str) -> list[Aval]:
    """Avals from text such as `f32[4,4], i32[B] bool[]`; a name as extent is a dynamic axis."""
    symbols: dict[str, Dim] = {}
    avals = []
    position = 0
    while text[position:].strip():
        match = _TYPE.match(text, position)
        if match is None:
            raise ValueError(f"--args: expected a type such as f32[4,4] at {text[position:].strip()!r}")
        short, extents = match.groups()
        if short not in dtypes.by_short:
            raise ValueError(f"--args: {short!r} is not one of {', '.join(dtypes.by_short)}")
        avals.append(Aval(tuple(_extents(extents, symbols)), dtypes.by_short[short]))
        position = match.end()
    return avals


def _extents(text: str, symbols: dict[str, Dim]) -> list[Extent]:
    extents = []
    for part in text.split(",") if text.strip() else []:
        for name in re.findall(r"[A-Za-z_]\w*", part):
            if name not in ("min", "max"):
                symbols.setdefault(name, Dim(name))
        extents.append(dims_text.parse(part.strip(), symbols))
    return extents


def usual_size(symbol: Dim) -> int:
    """A size to try: 8, or what the range of the dim allows near to it."""
    step = symbol.multiple_of
    size = max(symbol.min, min(_USUAL_SIZE, _USUAL_SIZE if symbol.max is None else symbol.max))
    size = -(-size // step) * step
    return size if symbol.max is None or size <= symbol.max else size - step


def sizes(graph: Graph, given: Sequence[str]) -> dict[str, int]:
    """Sizes of the dims of a graph: those `given` as NAME=SIZE, and usual ones for the others."""
    chosen = {}
    for item in given:
        name, _, number = item.partition("=")
        if not number.isdecimal():
            raise ValueError(f"--dim: expected NAME=SIZE, not {item!r}")
        chosen[name] = int(number)
    unknown = set(chosen) - {symbol.name for symbol in graph.dims}
    if unknown:
        known = ", ".join(symbol.name for symbol in graph.dims) or "none"
        raise ValueError(f"--dim: there is no dim {', '.join(sorted(unknown))} (there are: {known})")
    return {symbol.name: chosen.get(symbol.name, usual_size(symbol)) for symbol in graph.dims}


def random_inputs(graph: Graph, env: Mapping[str, int], seed: int) -> list[np.ndarray]:
    """Inputs for a graph: normal for floating types, 0 and 1 for the others."""
    rng = np.random.default_rng(seed)
    made = []
    for aval in graph.inputs:
        shape = tuple(dims.evaluate(extent, env) for extent in aval.shape)
        inexact = aval.dtype.is_floating or aval.dtype.is_complex
        values = rng.standard_normal(shape) if inexact else rng.integers(0, 2, shape)
        made.append(np.asarray(values).astype(aval.dtype.numpy))
    return made
