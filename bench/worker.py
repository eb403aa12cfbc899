"""One framework in a process of its own: `python -m bench.worker PEER THREADS`, driven over its pipes.

Requests and replies are JSON, one to a line; arrays travel as `.npy` files. The requests:

    prepare  row, inputs (files), results (prefix)   ->  first (s), files, calls (per sample)
    time     samples                                 ->  times (s per call), disturbed (how many of them)
    finish                                           ->  {}

A reply with `missing` says that the peer cannot do this row, one with `error` that it failed. The first
line, unasked, tells the version, the time of the import and the memory after it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from bench.peers import PEERS, Missing, Peer, to_numpy

SAMPLE_SECONDS = 2e-4
"""A sample is one call, or as many short ones as last this long: a clock read costs 0.05 µs."""
EVICT_BYTES = 1 << 28
ATTEMPTS = 4
"""A sample during which another process took the processor is repeated, within so many times the samples."""


class Worker:
    """The state between requests: the framework and the row that is prepared."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.run: Callable[[], Any] | None = None
        self.calls = 1
        self.evict: Any = None

    def prepare(self, row: str, inputs: list[str], results: str, cache: str) -> dict[str, Any]:
        import numpy as np

        from bench.rows import ROWS

        arrays = tuple(np.load(path) for path in inputs)
        start = time.perf_counter()
        run = self.peer.prepare(ROWS[row], arrays)
        result = run()
        first = time.perf_counter() - start
        files = []
        for number, array in enumerate(to_numpy(result)):
            files.append(f"{results}-{number}.npy")
            np.save(files[-1], array)
        del result
        self.run = run
        self.evict = np.zeros(EVICT_BYTES, np.uint8) if cache == "evicted" else None
        self.calls = 1 if cache == "evicted" else self._calls_per_sample(run)
        return {"first": first, "files": files, "calls": self.calls}

    def time(self, samples: int) -> dict[str, Any]:
        run, calls, clock = self.run, self.calls, time.perf_counter
        assert run is not None, "time before prepare"
        repeat = range(calls)
        run()  # another framework had the caches in between
        times: list[float] = []
        disturbed: list[float] = []
        for _ in range(ATTEMPTS * samples):
            if self.evict is not None:
                self.evict += 1
            switches = preemptions()
            start = clock()
            for _ in repeat:
                run()
            seconds = (clock() - start) / calls
            (times if preemptions() == switches else disturbed).append(seconds)
            if len(times) == samples:
                break
        lacking = samples - len(times)
        return {"times": times + sorted(disturbed)[:lacking], "disturbed": lacking}

    def finish(self) -> dict[str, Any]:
        self.run = self.evict = None
        return {}

    def _calls_per_sample(self, run: Callable[[], Any]) -> int:
        run()
        start = time.perf_counter()
        run()
        return max(1, round(SAMPLE_SECONDS / max(time.perf_counter() - start, 1e-7)))


def pin(threads: int) -> None:
    """Hold this process to the last `threads` processors it may use, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def preemptions() -> int:
    """How often the system has taken the processor from a thread of this process that wanted to go on."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def resident_bytes() -> int:
    """Memory of this process that is in RAM now; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main(name: str, threads: int) -> None:
    """Serve requests until the pipe closes."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # frameworks that print must not disturb the protocol
    pin(threads)
    peer = PEERS[name]()
    start = time.perf_counter()
    try:
        peer.start(threads)
    except ImportError as error:
        replies.write(json.dumps({"missing": f"not installed: {error}"}) + "\n")
        return
    seconds = time.perf_counter() - start
    hello = {"version": peer.version, "import": seconds, "resident": resident_bytes()}
    replies.write(json.dumps(hello) + "\n")
    worker = Worker(peer)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(worker, request.pop("do"))(**request)
        except Missing as reason:
            reply = {"missing": str(reason)}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
