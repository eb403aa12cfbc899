"""`export_to_dot`: lazy graphs as pictures."""

from __future__ import annotations

import os
from typing import Any

from ingot.tracer.array import Value, array
from ingot.tracer.graph import Literal
from ingot.tracer.trace import linearise, results_of
from ingot.tracer.tree import leaves


def export_to_dot(file: Any, *args: array, **kwargs: array) -> None:
    """Write what `args` and `kwargs` are computed from, up to evaluated arrays, as a Graphviz graph.

    file: a path or a text file. Arrays given by name are called so; others are numbered.
    """
    named = {id(x._value): name for name, x in kwargs.items()}
    outputs = [x._value for x in leaves((args, kwargs)) if isinstance(x, array)]
    text = _text(outputs, named)
    if hasattr(file, "write"):
        file.write(text)
    else:
        with open(os.fspath(file), "w") as out:
            out.write(text)


def _text(outputs: list[Value | Literal], named: dict[int, str]) -> str:
    inner, sources = linearise(outputs, lambda value: value.storage is not None)
    names = dict(named)

    def name(value: Value | Literal) -> str:
        found = names.setdefault(id(value), f"v{len(names)}")
        return '"' + found.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = ["digraph {"]
    lines += [f"{{ rank=source; {name(value)}; }}" for value in sources]
    wanted = {id(value) for value in outputs}
    for number, value in enumerate(inner):
        node = value.node
        assert node is not None
        box = f"p{number}"
        lines.append(f'{{ {box} [label="{node.primitive.name}", shape=rectangle]; }}')
        for operand in node.operands:
            if type(operand) is Literal:
                lines.append(f'{{ {box}_{len(lines)} [label="{operand.numpy()}", shape=plaintext]; }}')
                lines.append(f"{box}_{len(lines) - 1} -> {box}")
            else:
                lines.append(f"{name(operand)} -> {box}")
        for result in results_of(value):
            rank = "rank=sink; " if id(result) in wanted else ""
            lines += [f"{{ {rank}{name(result)}; }}", f"{box} -> {name(result)}"]
    return "\n".join([*lines, "}"]) + "\n"
