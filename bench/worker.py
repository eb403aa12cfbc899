"""One framework in a process of its own: `python -m bench.worker PEER THREADS`, driven over its pipes.

Requests and replies are JSON, one to a line; arrays travel as `.npy` files. The requests:

    prepare  row, inputs (files), results (prefix), cache  ->  first (s), at (clock), files, calls (a sample)
    time     samples                                       ->  times (s per call), disturbed (how many)
    finish                                                 ->  {}

A reply with `absent` says that the row is not written for this peer, one with `missing` that the peer is not
installed, one with `failed` what went wrong. The first line, unasked, tells the version.
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

from bench.peers import PEERS, Absent, Peer

SAMPLE_SECONDS = 2e-4
"""A sample is one call, or as many short ones as last this long: a clock read costs 0.05 µs."""
TURN_SECONDS = 1.0
"""A turn in which more than this was spent ends with the sample that is being taken."""
EVICT_BYTES = 1 << 28
ATTEMPTS = 4
"""A sample during which another process took the processor is repeated, within so many times the samples."""


class Worker:
    """The state between requests: the framework and the row that is prepared."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.timer: Callable[[int], float] | None = None
        self.calls = 1
        self.evict: Any = None

    def prepare(self, row: str, inputs: list[str], results: str, cache: str) -> dict[str, Any]:
        import numpy as np

        from bench.rows import ROWS

        arrays = [np.load(path) for path in inputs]
        function = self.peer.function(ROWS[row])
        arguments = [self.peer.put(x, ROWS[row]) for x in arrays]
        start = time.perf_counter()
        call = self.peer.prepare(function, arguments, ROWS[row])
        result = call.run()
        first, at = time.perf_counter() - start, time.monotonic()
        files = []
        for number, array in enumerate(self.peer.to_numpy(result)):
            files.append(f"{results}-{number}.npy")
            np.save(files[-1], array)
        del result
        self.timer = call.timer()
        self.evict = np.zeros(EVICT_BYTES, np.uint8) if cache == "evicted" else None
        self.calls = 1 if cache == "evicted" else _calls_per_sample(self.timer)
        return {"first": first, "at": at, "files": files, "calls": self.calls}

    def time(self, samples: int) -> dict[str, Any]:
        timer, calls = self.timer, self.calls
        assert timer is not None, "time before prepare"
        end = time.perf_counter() + TURN_SECONDS
        timer(calls)  # another framework had the processors and the caches in between
        times: list[float] = []
        disturbed: list[float] = []
        for _ in range(ATTEMPTS * samples):
            if self.evict is not None:
                self.evict += 1
            switches = preemptions()
            seconds = timer(calls) / calls
            (times if preemptions() == switches else disturbed).append(seconds)
            if len(times) == samples or time.perf_counter() > end:
                break
        kept = sorted(disturbed)[: samples - len(times)]
        return {"times": times + kept, "disturbed": len(kept)}

    def finish(self) -> dict[str, Any]:
        self.timer = self.evict = None
        return {}


def _calls_per_sample(timer: Callable[[int], float]) -> int:
    timer(1)
    calls, seconds = 1, timer(1)
    while seconds < SAMPLE_SECONDS and calls < 1 << 20:
        calls = 1 + round(calls * min(10.0, 1.1 * SAMPLE_SECONDS / max(seconds, 1e-9)))
        seconds = timer(calls)
    return calls


def pin(threads: int) -> None:
    """Hold this process to the last `threads` processors it may use, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def preemptions() -> int:
    """How often the system has taken the processor from a thread of this process that wanted to go on."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def serve(start: Callable[[], tuple[Any, str]]) -> None:
    """Answer requests by methods of what `start` returns, beside a version, until the pipe closes."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # frameworks that print must not disturb the protocol

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content) + "\n")

    try:
        server, version = start()
    except ImportError as error:
        return reply({"missing": f"not installed: {error}"})
    reply({"version": version})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply(getattr(server, request.pop("do"))(**request))
        except Absent as reason:
            reply({"absent": str(reason)})
        except Exception as error:
            traceback.print_exc()
            reply({"failed": f"{type(error).__name__}: {error}"})


def main(name: str, threads: int) -> None:
    """Serve the peer called `name`, held to `threads` threads and processors."""

    def start() -> tuple[Worker, str]:
        pin(threads)
        peer = PEERS[name]()
        peer.start(threads)
        return Worker(peer), peer.version

    serve(start)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
