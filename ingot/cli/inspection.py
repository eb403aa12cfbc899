"""`ingot inspect`: what a file holds, from its header alone."""

from __future__ import annotations

import argparse
from typing import Any

from ingot.cli.layout import size, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="an .ingot file")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ingot.format.summary import read_summary

    return read_summary(options.file)


def show(data: dict[str, Any]) -> str:
    weights = sum(constant["bytes"] for constant in data["constants"])
    lines = [
        f"{data['path']}: {size(data['bytes'])}, format {data['format']}, made by {data['producer']}",
        f"{len(data['constants'])} constants, {size(weights)}",
    ]
    if data["metadata"] is not None:
        lines.append(f"metadata: {data['metadata']!r}")
    lines += [f"dim {_dim(dim)}" for dim in data["dims"]]
    if data["unknown"]:
        lines.append(f"sections of a later version, ignored: {', '.join(data['unknown'])}")
    for function in data["functions"]:
        lines.append("")
        for trace in function["traces"]:
            lines += _trace(function["name"], trace)
    return "\n".join(lines)


def _dim(dim: dict[str, Any]) -> str:
    most = "any" if dim["max"] is None else dim["max"]
    multiple = "" if dim["multiple_of"] == 1 else f", a multiple of {dim['multiple_of']}"
    return f"{dim['name']}: {dim['min']} to {most}{multiple}"


def _trace(name: str, trace: dict[str, Any]) -> list[str]:
    shown = [f"{item['name']}: {item['type']}" for item in trace["inputs"]]
    first = next((i for i, item in enumerate(trace["inputs"]) if item["name"] in trace["keywords"]), None)
    if first is not None:
        shown.insert(first, "*")
    inputs = ", ".join(shown)
    lines = [f"{name or 'function'}({inputs}) -> ({', '.join(trace['outputs'])})"]
    if trace["any_rank"]:
        lines.append("  for shapes of any rank")
    lines += [f"  where {guard}" for guard in trace["guards"]]
    counts = sorted(trace["primitives"].items(), key=lambda item: (-item[1], item[0]))
    rows = table(("primitive", "uses"), [*counts, ("all", trace["nodes"])])
    return [*lines, "", *("  " + line for line in rows.splitlines()), ""]
