"""`ingot primitives`: which rules each primitive has."""

from __future__ import annotations

import argparse
from typing import Any

from ingot.cli.layout import table

RULES = ("infer", "evaluate", "vjp", "jvp", "vmap")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # no options of its own


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ingot.lowering.rules import is_native
    from ingot.tracer.primitive import has_rule, registry

    rows = []
    for name, primitive in sorted(registry.items()):
        rules = {rule: has_rule(primitive, rule) for rule in RULES}
        rows.append({"name": name, "version": primitive.version, **rules, "native": is_native(primitive)})
    return {"primitives": rows}


def show(data: dict[str, Any]) -> str:
    columns = (*RULES, "native")
    rows = [(row["name"], row["version"], *(_mark(row[c]) for c in columns)) for row in data["primitives"]]
    reasons = [
        f"{row['name']}.{column}: {row[column]}"
        for row in data["primitives"]
        for column in columns
        if isinstance(row[column], str)
    ]
    lines = [table(("primitive", "version", *columns), rows), f"{len(rows)} primitives"]
    if reasons:
        lines += ["", "n/a:", *reasons]
    return "\n".join(lines)


def _mark(rule: bool | str) -> str:
    return "n/a" if isinstance(rule, str) else "yes" if rule else "-"
