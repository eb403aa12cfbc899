"""What a file holds, without loading its weights, a compiler or the primitives: for `ingot inspect`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ingot.format.canonical import DamageError, read_column
from ingot.format.canonical import fields as map_fields
from ingot.format.container import KNOWN, Container, Source, open_container


def read_summary(file: Source) -> dict[str, Any]:
    """The contents of a file as plain data that `json` can write, but for bytes in the user's metadata.

    Keys: `path`, `bytes`, `format`, `producer`, `metadata`, `sections` (name -> bytes), `unknown` (names),
    `constants` (list of type and bytes), `examples` (how many test vectors),
    `dims` (list of name, min, max, multiple_of), `functions` (name and
    `traces`: `inputs` (list of name and type), `keywords`, `outputs` (types), `guards`, `nodes`, `primitives`
    (name -> how many), `any_rank`).

    Raises FormatError for a damaged file; graphs are read, not verified.
    """
    container = open_container(file, KNOWN)
    return _Summary(container).summary()


class _Summary:
    def __init__(self, container: Container) -> None:
        self.container = container

    def summary(self) -> dict[str, Any]:
        container = self.container
        try:
            with container.located("functions"):
                functions = [self._function(row) for row in container.section("functions")]
            with container.located("constants"):
                constants = [
                    {"type": _type([dtype, shape]), "bytes": container.length(first, count)}
                    for dtype, shape, first, count in container.section("constants")
                ]
            with container.located("dims"):
                names = ("name", "min", "max", "multiple_of")
                dims = [dict(zip(names, row, strict=True)) for row in container.section("dims")]
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            with container.located():
                raise DamageError(f"a section has an unexpected form ({error})") from None
        return {
            "path": container.name,
            "bytes": container.size,
            "format": f"{container.version[0]}.{container.version[1]}",
            "producer": self._optional("producer"),
            "metadata": self._optional("metadata"),
            "sections": {name: len(data) for name, data in container.sections.items()},
            "unknown": sorted(container.unknown),
            "dims": dims,
            "constants": constants,
            "examples": len(self._optional("tests") or ()),
            "functions": functions,
        }

    def _optional(self, name: str) -> Any:
        return self.container.section(name) if name in self.container.sections else None

    def _function(self, row: Any) -> dict[str, Any]:
        name, traces = map_fields(row, "function", name=str, traces=tuple)
        return {"name": name, "traces": [self._trace(trace) for trace in traces]}

    def _trace(self, row: dict[str, Any]) -> dict[str, Any]:
        graph = self.container.section("graphs")[row["graph"]]
        primitives = [name for name, _, _ in self.container.section("primitives")]
        types = [_type(item) for item in graph["types"]]
        inputs = [types[i] for i in _column(graph, "inputs")]
        names = graph["input_names"] or [f"input_{i}" for i in range(len(inputs))]
        used = Counter(primitives[i] for i in _column(graph, "primitive"))
        return {
            "inputs": [{"name": name, "type": kind} for name, kind in zip(names, inputs, strict=True)],
            "keywords": list(row["in_tree"][1][1][1]),
            "outputs": self._outputs(graph, types, inputs),
            "guards": [guard[0] for guard in graph["guards"]],
            "nodes": sum(used.values()),
            "primitives": dict(sorted(used.items())),
            "any_rank": row["any_rank"],
        }

    def _outputs(self, graph: dict[str, Any], types: list[str], inputs: list[str]) -> list[str]:
        table = self.container.section("constants")
        known = [*inputs, *(_type(table[i][:2]) for i in _column(graph, "constants"))]
        known += [types[i] for i in _column(graph, "result")]
        return [
            _type([graph["literals"][code >> 1][0], ()]) if code & 1 else known[code >> 1]
            for code in _column(graph, "outputs")
        ]


def _column(graph: dict[str, Any], name: str) -> list[int]:
    return read_column(graph[name], name)


def _type(row: Any) -> str:
    dtype, shape = row
    return f"{dtype}[{','.join(map(str, shape))}]"
