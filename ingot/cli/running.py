"""`ingot run`: call a function and show its results."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from ingot.cli import subject
from ingot.cli.layout import duration

_SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subject.add_arguments(parser)
    subject.add_size_arguments(parser)
    parser.add_argument(
        "--input", metavar="FILE", help="inputs: an .npz with one array for each input, by name or in order"
    )
    parser.add_argument("--output", metavar="FILE", help="write the results to an .npz file")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="call N times, report the median")


def run(options: argparse.Namespace) -> dict[str, Any]:
    import ingot as mx

    found = subject.resolve(options)
    graph = found.graphs[0]
    if options.input:
        inputs = read_inputs(options.input, graph.input_names or tuple(map(str, range(len(graph.inputs)))))
    else:
        inputs = subject.random_inputs(graph, subject.sizes(graph, options.dim), options.seed)
    times = []
    arrays = [mx.array(x, dtype=aval.dtype) for x, aval in zip(inputs, graph.inputs, strict=True)]
    for _ in range(max(1, options.repeat)):
        start = time.perf_counter()
        results = found.call(0, arrays)
        mx.eval(*results)
        times.append(time.perf_counter() - start)
    outputs = [np.array(result) for result in results]
    if options.output:
        np.savez(options.output, *outputs)
    return {
        "subject": found.name,
        "inputs": [_type(x) for x in inputs],
        "outputs": [_describe(x) for x in outputs],
        "first_call_seconds": times[0],
        "median_seconds": statistics.median(times[1:] or times),
        "calls": len(times),
    }


def read_inputs(path: str, names: tuple[str, ...]) -> list[np.ndarray]:
    """One array for each name, from an .npz file that has these names, or as many arrays in order."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except ValueError:
        loaded = None
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} is not an .npz file")
    with loaded as archive:
        if set(archive.files) == set(names):
            return [archive[name] for name in names]
        if len(archive.files) == len(names):
            return [archive[name] for name in archive.files]
        raise ValueError(f"{path} holds {', '.join(archive.files)}; expected {', '.join(names)}")


def _type(x: np.ndarray) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def _describe(x: np.ndarray) -> dict[str, Any]:
    data: dict[str, Any] = {"type": _type(x), "first": [_number(v) for v in x.ravel()[:_SHOWN]]}
    if x.size and x.dtype.kind in "fiub":
        wide = x.astype(np.float64)
        data |= {"min": _number(wide.min()), "max": _number(wide.max()), "mean": _number(wide.mean())}
    return data


def _number(value: Any) -> Any:
    """A NumPy scalar for JSON, which has no nan, inf or complex numbers."""
    item = value.item() if hasattr(value, "item") else value
    if isinstance(item, bool | int):
        return item
    if isinstance(item, float) and np.isfinite(item):
        return item
    return str(item) if isinstance(item, float | complex) else float(item)


def show(data: dict[str, Any]) -> str:
    lines = [f"{data['subject']}({', '.join(data['inputs'])})"]
    for output in data["outputs"]:
        values = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in output["first"])
        more = ", ..." if len(output["first"]) == _SHOWN else ""
        lines.append(f"  {output['type']} = [{values}{more}]")
        if "mean" in output:
            lines.append(f"    min {output['min']:.6g}, max {output['max']:.6g}, mean {output['mean']:.6g}")
    lines.append(f"  first call {duration(data['first_call_seconds'])}")
    if data["calls"] > 1:
        lines.append(f"  then {duration(data['median_seconds'])} (median of {data['calls'] - 1})")
    return "\n".join(lines)
