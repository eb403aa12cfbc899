"""The driver: starts the workers, gives them rows in turn, checks what they compute, collects times."""

from __future__ import annotations

import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers import PEERS, THREAD_VARIABLES
from bench.row import Row

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("recycled", "fresh")
# What makes the C library's allocator keep what was freed, in huge pages: Ingot's pool does so by itself,
# and most other differences between frameworks vanish behind page faults otherwise.
RECYCLING = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


class WorkerFailure(Exception):
    """A worker is missing, failed, or took too long; the text says which."""


@dataclass(frozen=True)
class Options:
    """How to run. `pythons` are interpreters by peer; `timeout` in seconds bounds each request."""

    peers: tuple[str, ...]
    threads: int = 1
    rounds: int = 7
    samples: int = 5
    pages: str = "recycled"
    cache: str = ""
    timeout: float = 300.0
    pythons: dict[str, str] = field(default_factory=dict)

    def python(self, peer: str) -> str:
        """The interpreter for `peer`; `*` stands for all peers but Ingot."""
        common = sys.executable if peer == "ingot" else self.pythons.get("*", sys.executable)
        return self.pythons.get(peer, common)


@dataclass
class Measurement:
    """What one peer did on one row. `problem` is empty when it ran and its results were right; `disturbed`
    counts the samples during which another process took the processor, however often they were repeated."""

    peer: str
    problem: str = ""
    first: float = 0.0
    times: list[float] = field(default_factory=list)
    disturbed: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.times)


@dataclass
class Outcome:
    """One row with the measurements of all peers, Ingot first."""

    row: Row
    cache: str
    measurements: list[Measurement]

    def of(self, peer: str) -> Measurement:
        return next(m for m in self.measurements if m.peer == peer)

    @property
    def best(self) -> Measurement | None:
        """The fastest peer that was right, Ingot apart."""
        right = [m for m in self.measurements if m.peer != "ingot" and not m.problem]
        return min(right, key=lambda m: m.median, default=None)

    @property
    def ratio(self) -> float | None:
        """Time of the best peer by ours, None when either is missing."""
        ours, best = self.of("ingot"), self.best
        return None if ours.problem or best is None else best.median / ours.median

    @property
    def ratio_of_least(self) -> float | None:
        """As `ratio`, of the least times: steadier than medians on a machine that others use too."""
        right = [min(m.times) for m in self.measurements if m.peer != "ingot" and not m.problem]
        ours = self.of("ingot")
        return None if ours.problem or not right else min(right) / min(ours.times)


class WorkerProcess:
    """The driver's end of a worker. Any failure but a row's own ends the process."""

    def __init__(self, peer: str, options: Options, folder: Path) -> None:
        self.peer, self.timeout = peer, options.timeout
        self.log = folder / f"{peer}.log"
        command = [options.python(peer), "-m", "bench.worker", peer, str(options.threads)]
        with open(self.log, "ab") as log:
            try:
                self.process = subprocess.Popen(
                    command,
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=ROOT,
                    env=environment(peer, options, folder),
                )
            except OSError as error:
                raise WorkerFailure(f"cannot start {command[0]}: {error.strerror}") from None
        self._pending = b""
        self.hello = self._receive()

    def ask(self, do: str, **parameters: Any) -> dict[str, Any]:
        """Send a request and wait for the reply. Raises WorkerFailure."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **parameters}).encode() + b"\n")
        except OSError:
            raise WorkerFailure(f"ended: {self._last_words()}") from None
        return self._receive()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        deadline = time.monotonic() + self.timeout
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self._pending:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(descriptor, 1 << 16) if ready else b""
            if not chunk:
                problem = f"ended: {self._last_words()}" if ready else f"no answer in {self.timeout:g} s"
                self.close()
                raise WorkerFailure(problem)
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        reply = json.loads(line)
        for kind in ("missing", "error"):
            if kind in reply:
                raise WorkerFailure(reply[kind])
        return reply

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.poll()}"


def environment(peer: str, options: Options, folder: Path) -> dict[str, str]:
    """Variables of a worker: threads, allocator, and caches of compiled code that start empty."""
    variables = dict(os.environ)
    variables.update(dict.fromkeys(THREAD_VARIABLES, str(options.threads)))
    if options.pages == "recycled":
        variables.update(RECYCLING)
    cache = folder / "cache" / peer
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("INGOT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "NUMBA_CACHE_DIR", "TMPDIR"):
        variables[name] = str(cache)  # MLX keeps what it compiles under TMPDIR
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    variables.update(PEERS[peer]().environment(options.threads))
    return variables


class Session:
    """A run of some rows: one worker for each peer, alive as long as it behaves. A context manager."""

    def __init__(self, options: Options, progress: Callable[[str], None] = lambda text: None) -> None:
        self.options, self.progress = options, progress
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._workers: dict[str, WorkerProcess] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="ingot-bench-")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers.values():
            worker.close()
        self._folder.cleanup()

    def run(self, row: Row) -> Outcome:
        """Measure `row` on all peers: `rounds` times around, `samples` calls at each turn."""
        cache = self.options.cache or row.cache
        outcome = Outcome(row, cache, [Measurement(peer) for peer in ("ingot", *self.options.peers)])
        inputs = row.make_inputs()
        expected = [np.asarray(x) for x in row.oracle(*inputs)]
        paths = save(inputs, Path(self._folder.name))
        for measurement in outcome.measurements:
            self._guarded(measurement, lambda m: self._prepare(m, row, paths, expected, cache))
        for number in range(self.options.rounds):
            self.progress(f"{row.name}: round {number + 1} of {self.options.rounds}")
            for measurement in outcome.measurements:
                self._guarded(measurement, self._time)
        for worker in self._workers.values():
            if worker.alive:
                with contextlib.suppress(WorkerFailure):  # the next row will tell
                    worker.ask("finish")
        return outcome

    def _guarded(self, measurement: Measurement, step: Callable[[Measurement], None]) -> None:
        if not measurement.problem:
            try:
                step(measurement)
            except WorkerFailure as failure:
                measurement.problem = str(failure)

    def _prepare(
        self, measurement: Measurement, row: Row, paths: list[str], expected: Sequence[np.ndarray], cache: str
    ) -> None:
        peer = measurement.peer
        self.progress(f"{row.name}: {peer} compiles")
        results = str(Path(self._folder.name) / f"result-{peer}")
        reply = self._worker(peer).ask("prepare", row=row.name, inputs=paths, results=results, cache=cache)
        measurement.first = reply["first"]
        wrong = row.check([np.load(path) for path in reply["files"]], expected)
        if wrong:
            raise WorkerFailure(f"wrong: {wrong}")

    def _time(self, measurement: Measurement) -> None:
        reply = self._worker(measurement.peer).ask("time", samples=self.options.samples)
        measurement.times += reply["times"]
        measurement.disturbed += reply["disturbed"]

    def _worker(self, peer: str) -> WorkerProcess:
        if peer in self.missing:
            raise WorkerFailure(self.missing[peer])
        worker = self._workers.get(peer)
        if worker is None or not worker.alive:
            try:
                worker = WorkerProcess(peer, self.options, Path(self._folder.name))
            except WorkerFailure as failure:
                self.missing[peer] = str(failure)
                raise
            self._workers[peer] = worker
            self.versions[peer] = worker.hello["version"]
        return worker


@dataclass
class Latency:
    """Seconds to import a framework and to the first result of a row, without and with its disk cache."""

    peer: str
    row: Row
    problem: str = ""
    imported: list[float] = field(default_factory=list)
    resident: int = 0
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)


def measure_latency(peer: str, row: Row, options: Options) -> Latency:
    """Compile `row` with `peer` in fresh processes, at most three times without a cache and with one."""
    latency = Latency(peer, row)
    inputs = row.make_inputs()
    try:
        if peer == "ingot":
            _write_bytecode(row, inputs, options)
        for _ in range(min(3, options.rounds)):
            with tempfile.TemporaryDirectory(prefix="ingot-bench-") as folder:
                paths = save(inputs, Path(folder))
                for seconds in (latency.cold, latency.warm):
                    hello, first = _first_result(peer, row, options, Path(folder), paths)
                    latency.imported.append(hello["import"])
                    latency.resident = hello["resident"]
                    seconds.append(first)
    except WorkerFailure as failure:
        latency.problem = str(failure)
    return latency


def _write_bytecode(row: Row, inputs: Sequence[np.ndarray], options: Options) -> None:
    """Run once uncounted: a checkout may have no bytecode yet, whereas peers were installed with theirs."""
    with tempfile.TemporaryDirectory(prefix="ingot-bench-") as folder:
        _first_result("ingot", row, options, Path(folder), save(inputs, Path(folder)))


def _first_result(
    peer: str, row: Row, options: Options, folder: Path, paths: list[str]
) -> tuple[dict[str, Any], float]:
    """What a fresh worker said of itself, and its seconds from the arrays to the first result of `row`."""
    worker = WorkerProcess(peer, options, folder)
    try:
        results = str(folder / "result")
        reply = worker.ask("prepare", row=row.name, inputs=paths, results=results, cache="resident")
    finally:
        worker.close()
    return worker.hello, reply["first"]


def save(arrays: Sequence[np.ndarray], folder: Path) -> list[str]:
    """Write `arrays` into `folder`, each into a file of its own; the paths."""
    paths = [str(folder / f"input-{number}.npy") for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    return paths
