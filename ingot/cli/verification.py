"""`ingot verify`: everything that can be checked about a file without the program that made it."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from ingot.cli import subject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subject.add_arguments(parser)
    subject.add_size_arguments(parser)
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest allowed difference of a result, relative to its largest element (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    import ingot as mx
    from ingot.tracer.verify import verify

    if ":" not in options.subject:
        mx.import_function(options.subject, verify="open")  # reads every constant and compares its checksum
    found = subject.resolve(options)
    traces = []
    for i, graph in enumerate(found.graphs):
        verify(graph)
        env = subject.sizes(graph, options.dim)
        inputs = subject.random_inputs(graph, env, options.seed)
        expected = interpret(graph, inputs, env)
        arrays = [mx.array(x, dtype=aval.dtype) for x, aval in zip(inputs, graph.inputs, strict=True)]
        results = [np.array(result) for result in found.call(i, arrays)]
        differences = [difference(a, b) for a, b in zip(results, expected, strict=True)]
        ok = all(d <= options.tolerance for d in differences)
        traces.append({"dims": env, "nodes": len(graph.nodes), "differences": differences, "ok": ok})
    return {"subject": found.name, "traces": traces, "ok": all(trace["ok"] for trace in traces)}


def interpret(graph: Any, inputs: list[np.ndarray], env: dict[str, int]) -> list[np.ndarray]:
    """Results of the NumPy interpreter."""
    from ingot.runtime import interpreter

    return interpreter.run(graph, inputs, env)


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest finite element; inf when the arrays are not alike."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return float("inf")
    kind = np.complex128 if actual.dtype.kind == "c" else np.float64
    a, b = actual.astype(kind), expected.astype(kind)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.max(np.abs(a[finite] - b[finite])) / max(1.0, float(np.max(np.abs(b[finite])))))


def show(data: dict[str, Any]) -> str:
    lines = []
    for i, trace in enumerate(data["traces"]):
        at = ", ".join(f"{name}={size}" for name, size in trace["dims"].items())
        worst = max(trace["differences"], default=0.0)
        verdict = "ok" if trace["ok"] else "WRONG"
        lines.append(
            f"trace {i}{f' at {at}' if at else ''}: {trace['nodes']} nodes, compiled and interpreted results "
            f"differ by at most {worst:.2g}: {verdict}"
        )
    return "\n".join([*lines, f"{data['subject']}: {'ok' if data['ok'] else 'NOT ok'}"])
