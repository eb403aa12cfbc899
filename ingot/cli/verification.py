"""`ingot verify`: everything that can be checked about a file without the program that made it."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from ingot.cli import subject
from ingot.cli.layout import table


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

    found = subject.resolve(options)
    examples = []
    if not subject.is_module(options.subject):
        # reads every constant and compares its checksum
        function = mx.import_function(options.subject, verify="open")
        examples = [
            checked(function, i, example)
            for i, example in enumerate(function.examples)
            if options.trace in (None, example.trace)
        ]
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
    ok = all(item["ok"] for item in [*traces, *examples])
    return {"subject": found.name, "traces": traces, "examples": examples, "ok": ok}


def checked(function: Any, index: int, example: Any) -> dict[str, Any]:
    """Outcome of one of the examples in a file. `errors`: of each output, in units of what is tolerated."""
    found = {
        "example": index,
        "trace": example.trace,
        "inputs": [repr(constant.aval) for constant in example.inputs],
        "rtol": example.rtol,
        "atol": example.atol,
    }
    try:
        errors = function.check(example)
    except ValueError as error:  # the inputs fit no trace any more
        return found | {"errors": [], "failure": str(error), "ok": False}
    return found | {"errors": errors, "ok": all(error <= 1 for error in errors)}


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
    if data["examples"]:
        lines.append(_table_of_examples(data["examples"]))
    return "\n".join([*lines, f"{data['subject']}: {'ok' if data['ok'] else 'NOT ok'}"])


def _table_of_examples(examples: list[dict[str, Any]]) -> str:
    rows = []
    for example in examples:
        tolerance = f"{example['atol']:.3g} + {example['rtol']:.3g} |expected|"
        worst = f"{max(example['errors'], default=0.0):.2g}" if "failure" not in example else "-"
        verdict = "ok" if example["ok"] else example.get("failure", "WRONG").splitlines()[0]
        inputs = " ".join(example["inputs"])
        rows.append([example["example"], example["trace"], inputs, tolerance, worst, verdict])
    return table(["example", "trace", "inputs", "tolerated", "error / tolerated", "result"], rows)
