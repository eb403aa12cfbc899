"""What is paid before the first result: imports and compilation, always in fresh processes."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.peers import PEERS, THREAD_VARIABLES
from bench.row import Row
from bench.rows import ROWS
from bench.session import ROOT, Options, WorkerFailure, WorkerProcess, save

BEFORE = "W1"
"""What is compiled first where the compiler shall be loaded already."""
ROUNDS = 3
"""At most: a cold torch.compile takes many seconds."""
BARE = "python"
LATENCY_TARGETS = {
    "W2": {"cold": 0.025, "warm": 0.008},
    "W9": {"cold": 0.12, "warm": 0.02},
    "W11": {"cold": 0.10, "warm": 0.02},
}
"""Seconds that Ingot aims at."""
IMPORT_BEYOND_NUMPY = 0.03
"""Seconds that Ingot's import may take more than that of NumPy, which is part of it."""
RESIDENT_TARGET = 40e6
IMPORT = """
import time
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
try:
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
except OSError:
    pages = 0
import os, sys
version = getattr(sys.modules["{module}"], "__version__", "")
print(seconds, pages * os.sysconf("SC_PAGE_SIZE"), version or sys.version.split()[0])
"""


@dataclass
class Import:
    """Seconds to import a framework and bytes in memory after it, of the whole process; `python` is the bare
    interpreter."""

    peer: str
    status: str = ""
    problem: str = ""
    seconds: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    version: str = ""
    targets: dict[str, float] = field(default_factory=dict)


@dataclass
class Latency:
    """Seconds to the first result of a row. From the trace on, when framework and arguments are loaded:
    as the first function of a process, with an empty disk cache (`fresh`) and a filled one (`warm`), and
    after another function was compiled, with an empty one (`cold`). From the start of a process, with a
    filled one (`process`)."""

    peer: str
    row: str
    status: str = ""
    problem: str = ""
    fresh: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    version: str = ""
    targets: dict[str, float] = field(default_factory=dict)


def measure_imports(options: Options, progress: Callable[[str], None]) -> list[Import]:
    """Import each framework in `rounds` fresh processes, in turns, after one that is not counted."""
    modules = {BARE: "sys", "numpy": PEERS["numpy"].module, "ingot": PEERS["ingot"].module}
    for peer in options.peers:
        if PEERS[peer].module not in modules.values():
            modules[peer] = PEERS[peer].module
    imports = [Import(peer) for peer in modules]
    for number in range(options.rounds + 1):
        for entry in imports:
            if not entry.status:
                progress(f"import {entry.peer}: {number} of {options.rounds}")
                _import(entry, modules[entry.peer], options, counted=number > 0)
    numpy, ours = imports[1], imports[2]
    ours.targets = {"resident": RESIDENT_TARGET}
    if numpy.seconds:
        ours.targets["seconds"] = statistics.median(numpy.seconds) + IMPORT_BEYOND_NUMPY
    return imports


def _import(entry: Import, module: str, options: Options, counted: bool) -> None:
    peer = "ingot" if entry.peer in (BARE, "numpy") else entry.peer
    variables = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(options.threads))
    variables.update(PEERS[peer]().environment(options.threads))
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [options.python(peer), "-c", IMPORT.format(module=module)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=options.timeout
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        entry.status, entry.problem = "failed", str(error)
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        entry.status = "missing" if last.startswith("ModuleNotFoundError") else "failed"
        entry.problem = last
    elif counted:
        seconds, resident, entry.version = done.stdout.split()[-3:]
        entry.seconds.append(float(seconds))
        entry.resident.append(int(resident))


def measure_latencies(
    rows: Sequence[Row], options: Options, progress: Callable[[str], None]
) -> list[Latency]:
    """Compile each row with each peer in fresh processes, in turns."""
    latencies = [Latency(peer, row.name) for row in rows for peer in ("ingot", *options.peers)]
    for latency in latencies:
        if latency.peer == "ingot":
            latency.targets = LATENCY_TARGETS.get(latency.row, {})
    inputs = {row.name: row.make_inputs() for row in rows}
    for name, arrays in inputs.items():
        # a checkout may have no bytecode yet, whereas peers were installed with theirs
        _attempt(Latency("ingot", name), arrays, options)
    for number in range(min(ROUNDS, options.rounds)):
        for latency in latencies:
            if not latency.status:
                progress(f"first result of {latency.row}: {latency.peer}, round {number + 1}")
                _attempt(latency, inputs[latency.row], options)
    return latencies


def _attempt(latency: Latency, inputs: Sequence[np.ndarray], options: Options) -> None:
    with tempfile.TemporaryDirectory(prefix="ingot-bench-") as name:
        folder, other = Path(name), Path(name) / "other"
        other.mkdir()
        paths = save(inputs, folder)
        try:
            fresh, _ = _first_result(latency, options, folder, paths, disk_cache=False)
            if PEERS[latency.peer].disk_cache:
                _first_result(latency, options, folder, paths, disk_cache=True)
            warm, process = _first_result(latency, options, folder, paths, disk_cache=True)
            cold, _ = _first_result(latency, options, other, paths, disk_cache=False, before=ROWS[BEFORE])
        except WorkerFailure as failure:
            latency.status, latency.problem = failure.kind, str(failure)
            return
    latency.fresh.append(fresh)
    latency.cold.append(cold)
    latency.warm.append(warm)
    latency.process.append(process)


def _first_result(
    latency: Latency,
    options: Options,
    folder: Path,
    paths: list[str],
    disk_cache: bool,
    before: Row | None = None,
) -> tuple[float, float]:
    """Seconds of a fresh worker from its arrays, and from its start, to the first result, after that of the
    row `before`."""
    worker = WorkerProcess(latency.peer, options, folder, disk_cache)
    latency.version = worker.hello["version"]
    try:
        told = {"results": str(folder / "result"), "cache": "resident"}
        if before is not None:
            (folder / "before").mkdir()
            arrays = save(before.make_inputs(), folder / "before")
            worker.ask("prepare", row=before.name, inputs=arrays, **told)
        reply = worker.ask("prepare", row=latency.row, inputs=paths, **told)
    finally:
        worker.close()
    return reply["first"], reply["at"] - worker.started
