"""The driver: starts the workers, gives them rows in turn, checks what they compute, collects times."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
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

from bench.peers import OURS, PEERS, THREAD_VARIABLES
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

PAUSE_SECONDS = 5e-3
"""Between the turns of two peers: thread pools go on spinning for a while after the last call."""
NEAR_LIMIT = 0.92
"""A time within the physical limit divided by this counts as the limit."""


class WorkerFailure(Exception):
    """A worker did not do what it was asked; `kind` is `absent` (the row is not written for the peer),
    `missing` (the peer is not installed) or `failed`, and the text says more."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


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
        common = sys.executable if peer in (*OURS, "limits") else self.pythons.get("*", sys.executable)
        return self.pythons.get(peer, common)


@dataclass
class Measurement:
    """What one peer did on one row. `status` is empty when it ran and its results were right, else the kind
    of a WorkerFailure or `wrong`, and `problem` says more; `disturbed` counts the samples during which
    another process took the processor, however often they were repeated."""

    peer: str
    status: str = ""
    problem: str = ""
    first: float = 0.0
    times: list[float] = field(default_factory=list)
    disturbed: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.times)


@dataclass
class Outcome:
    """One row with the measurements of all peers, Ingot first, and the physical limits in seconds, or why
    there are none."""

    row: Row
    cache: str
    measurements: list[Measurement]
    limits: dict[str, float] = field(default_factory=dict)
    no_limits: str = ""

    def of(self, peer: str) -> Measurement:
        return next(m for m in self.measurements if m.peer == peer)

    @property
    def best(self) -> Measurement | None:
        """The fastest peer that was right, Ingot apart."""
        return min(self._right, key=lambda m: m.median, default=None)

    @property
    def ratio(self) -> float | None:
        """Time of the best peer by ours, None when either is missing."""
        ours, best = self.of("ingot"), self.best
        return None if ours.status or best is None else best.median / ours.median

    @property
    def ratio_of_least(self) -> float | None:
        """As `ratio`, of the least times: steadier than medians on a machine that others use too."""
        ours, least = self.of("ingot"), [min(m.times) for m in self._right]
        return None if ours.status or not least else min(least) / min(ours.times)

    @property
    def limit(self) -> float | None:
        """Least seconds in which this machine could do the row; None when that was not measured."""
        return max(self.limits.values(), default=None)

    @property
    def met(self) -> str:
        """Why the row's target is met: `ratio`, or `limit` when the machine allows no more; else empty."""
        ours, ratio, limit = self.of("ingot"), self.ratio, self.limit
        if ratio is not None and ratio >= self.row.target:
            return "ratio"
        return "limit" if limit and not ours.status and ours.median <= limit / NEAR_LIMIT else ""

    @property
    def _right(self) -> list[Measurement]:
        return [m for m in self.measurements if m.peer not in OURS and not m.status]


class WorkerProcess:
    """The driver's end of a worker. Any failure but a row's own ends the process."""

    def __init__(self, peer: str, options: Options, folder: Path, disk_cache: bool = False) -> None:
        self.peer, self.timeout = peer, options.timeout
        self.log = folder / f"{peer}.log"
        module = ["bench.limits"] if peer == "limits" else ["bench.worker", peer]
        self.started = time.monotonic()
        command = [options.python(peer), "-m", *module, str(options.threads)]
        with open(self.log, "ab") as log:
            try:
                self.process = subprocess.Popen(
                    command,
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=ROOT,
                    env=environment(peer, options, folder, disk_cache),
                    start_new_session=True,  # Ctrl-C is for the driver, which ends its workers
                )
            except OSError as error:
                raise WorkerFailure("missing", f"cannot start {command[0]}: {error.strerror}") from None
        self._pending = b""
        try:
            self.hello = self._receive()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **parameters: Any) -> dict[str, Any]:
        """Send a request and wait for the reply. Raises WorkerFailure."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **parameters}).encode() + b"\n")
        except OSError:
            raise WorkerFailure("failed", f"ended: {self._last_words()}") from None
        return self._receive()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End the process and those that it started."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
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
                raise WorkerFailure("failed", problem)
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        reply = json.loads(line)
        for kind in ("absent", "missing", "failed"):
            if kind in reply:
                raise WorkerFailure(kind, reply[kind])
        return reply

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.poll()}"


def environment(peer: str, options: Options, folder: Path, disk_cache: bool = False) -> dict[str, str]:
    """Variables of a worker: threads, allocator, and caches of compiled code that start empty; `disk_cache`
    turns on those that are off by default."""
    variables = dict(os.environ)
    variables.update(dict.fromkeys(THREAD_VARIABLES, str(options.threads)))
    if options.pages == "recycled":
        variables.update(RECYCLING)
    cache = folder / "cache" / peer
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("INGOT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TMPDIR"):
        variables[name] = str(cache)  # MLX keeps what it compiles under TMPDIR
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    if peer in PEERS:
        variables.update(PEERS[peer]().environment(options.threads))
        for name, value in PEERS[peer].disk_cache.items():
            variables.pop(name, None)
            if disk_cache:
                variables[name] = value.format(cache)
    return variables


class Session:
    """A run of some rows: one worker for each peer, alive as long as it behaves. A context manager."""

    def __init__(self, options: Options, progress: Callable[[str], None] = lambda text: None) -> None:
        self.options, self.progress = options, progress
        self.versions: dict[str, str] = {}
        self.missing: dict[str, WorkerFailure] = {}
        self._workers: dict[str, WorkerProcess] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="ingot-bench-")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers.values():
            worker.close()
        self._folder.cleanup()

    def run(self, row: Row, ours: Sequence[str] = ("ingot",)) -> Outcome:
        """Measure `row` on all peers: `rounds` times around, `samples` samples at each turn. `ours` are the
        ways to call Ingot."""
        cache = self.options.cache or row.cache
        outcome = Outcome(row, cache, [Measurement(peer) for peer in (*ours, *self.options.peers)])
        self._limits(outcome)
        inputs = row.make_inputs()
        expected = [np.asarray(x) for x in row.oracle(*inputs)]
        paths = save(inputs, Path(self._folder.name))
        for measurement in outcome.measurements:
            self._guarded(measurement, lambda m: self._prepare(m, row, paths, expected, cache))
        for number in range(self.options.rounds):
            self.progress(f"{row.name}: round {number + 1} of {self.options.rounds}")
            for measurement in outcome.measurements:
                self._guarded(measurement, self._time)
        self._limits(outcome)
        for peer, worker in self._workers.items():
            if peer != "limits" and worker.alive:
                with contextlib.suppress(WorkerFailure):  # the next row will tell
                    worker.ask("finish")
        return outcome

    def _guarded(self, measurement: Measurement, step: Callable[[Measurement], None]) -> None:
        if not measurement.status:
            try:
                step(measurement)
            except WorkerFailure as failure:
                measurement.status, measurement.problem = failure.kind, str(failure)

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
            raise WorkerFailure("wrong", wrong)

    def _limits(self, outcome: Outcome) -> None:
        """The lesser of what the limits are now and what they were found to be before."""
        row = outcome.row
        if row.small:
            return
        self.progress(f"{row.name}: limits of the machine")
        asked = {name: getattr(row, name) for name in ("read", "written", "flops", "dtype")}
        try:
            found = self._worker("limits").ask("limit", **asked, evicted=outcome.cache == "evicted")
        except WorkerFailure as failure:
            outcome.no_limits = str(failure)
        else:
            outcome.limits = {kind: min(s, outcome.limits.get(kind, s)) for kind, s in found.items()}

    def _time(self, measurement: Measurement) -> None:
        time.sleep(PAUSE_SECONDS)
        reply = self._worker(measurement.peer).ask("time", samples=self.options.samples)
        measurement.times += reply["times"]
        measurement.disturbed += reply["disturbed"]

    def _worker(self, peer: str) -> WorkerProcess:
        if peer in self.missing:
            raise self.missing[peer]
        worker = self._workers.get(peer)
        if worker is None or not worker.alive:
            try:
                worker = WorkerProcess(peer, self.options, Path(self._folder.name))
            except WorkerFailure as failure:
                self.missing[peer] = failure
                raise
            self._workers[peer] = worker
            if worker.hello["version"]:
                self.versions[peer] = worker.hello["version"]
        return worker


def save(arrays: Sequence[np.ndarray], folder: Path) -> list[str]:
    """Write `arrays` into `folder`, each into a file of its own; the paths."""
    paths = [str(folder / f"input-{number}.npy") for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    return paths
