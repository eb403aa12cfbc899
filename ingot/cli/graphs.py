"""`ingot ir`: graphs as text."""

from __future__ import annotations

import argparse
from typing import Any

from ingot.cli import subject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subject.add_arguments(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ingot.tracer.text import print_graph

    found = subject.resolve(options)
    return {"subject": found.name, "graphs": [print_graph(graph) for graph in found.graphs]}


def show(data: dict[str, Any]) -> str:
    return "\n".join(data["graphs"])
