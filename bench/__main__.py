"""`python -m bench`: time Ingot and its peers on the same work, in turns, and compare."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench import page, report
from bench.peers import OTHERS, OURS, names
from bench.row import CONDITIONS, Row
from bench.rows import ROWS, select
from bench.session import PAGES, Options, Session
from bench.startup import Import, Latency, measure_imports, measure_latencies

LATENCY_ROWS = "W2,W9,W11"
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    p.add_argument("--peers", default=",".join(OTHERS), help="comma separated (default: all)")
    p.add_argument("--only", default="", metavar="ROWS", help="rows to time, comma separated (default: all)")
    p.add_argument("--list", action="store_true", help="list the rows and stop")
    p.add_argument("--threads", type=int, default=processors(), help="of everybody (default: all processors)")
    p.add_argument("--repeats", type=int, default=7, help="rounds over all peers (default: 7)")
    p.add_argument("--samples", type=int, default=5, help="samples of a peer in each round (default: 5)")
    p.add_argument("--pages", choices=PAGES, default="recycled", help="whether freed memory is kept")
    p.add_argument("--cache", choices=CONDITIONS, help="caches before a call (default: as the row says)")
    p.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="[PEER=]PATH",
        help="interpreter that has this peer; without PEER: all peers but Ingot",
    )
    p.add_argument("--timeout", type=float, default=300.0, help="seconds for a step of a peer (default: 300)")
    parts = p.add_argument_group("parts", "what to measure (default: --rows)")
    parts.add_argument("--rows", action="store_true", help="the rows")
    parts.add_argument("--dispatch", action="store_true", help="nanoseconds a call on W1 and W1b")
    parts.add_argument("--import", dest="imports", action="store_true", help="time and memory of imports")
    parts.add_argument(
        "--latency",
        nargs="?",
        const=LATENCY_ROWS,
        metavar="ROWS",
        help=f"time to the first result of some rows (default: {LATENCY_ROWS})",
    )
    parts.add_argument("--all", action="store_true", help="all of these")
    out = p.add_argument_group("reports")
    out.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    out.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots there")
    out.add_argument(
        "--from", dest="recorded", type=Path, metavar="FILE", help="measure nothing, report this JSON"
    )
    return p


def options_of(arguments: argparse.Namespace) -> Options:
    """Checked options. Raises ValueError for what cannot be."""
    if min(arguments.threads, arguments.repeats, arguments.samples) < 1:
        raise ValueError("[bench] --threads, --repeats and --samples must be at least 1.")
    if arguments.threads > processors():
        raise ValueError(
            f"[bench] --threads {arguments.threads}: this process has {processors()} processors."
        )
    pythons = {}
    for entry in arguments.python:
        peer, found, path = entry.partition("=")
        pythons[peer if found else "*"] = path if found else entry
    names(",".join(peer for peer in pythons if peer != "*"))
    return Options(
        peers=tuple(names(arguments.peers)),
        threads=arguments.threads,
        rounds=arguments.repeats,
        samples=arguments.samples,
        pages=arguments.pages,
        cache=arguments.cache or "",
        timeout=arguments.timeout,
        pythons=pythons,
    )


def progress(text: str) -> None:
    """Show on a terminal what is being done, on one line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


class Run:
    """The record that the parts of a run add to, complete up to where it was interrupted."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.record: report.Record = {"conditions": report.conditions(options)}

    def rows(self, part: str, rows: Sequence[Row], ours: Sequence[str]) -> None:
        """Time `rows`, Ingot called in the ways `ours`, into `part` of the record."""
        done = self.record[part] = []
        with Session(self.options, progress) as session:
            for row in rows:
                done.append(report.row_record(session.run(row, ours)))
                self.record["conditions"]["versions"].update(session.versions)

    def imports(self) -> None:
        self._alone("import", measure_imports(self.options, progress))

    def latencies(self, rows: Sequence[Row]) -> None:
        self._alone("latency", measure_latencies(rows, self.options, progress))

    def _alone(self, part: str, found: Sequence[Import] | Sequence[Latency]) -> None:
        self.record[part] = [asdict(entry) for entry in found]
        versions = {entry.peer: entry.version for entry in found if entry.version}
        self.record["conditions"]["versions"].update(versions)

    @property
    def is_good(self) -> bool:
        """Whether Ingot was right wherever it was asked."""
        by_row = [
            e
            for part in ("rows", "dispatch")
            for row in self.record.get(part, ())
            for e in row["peers"].items()
        ]
        alone = [(e["peer"], e) for part in ("import", "latency") for e in self.record.get(part, ())]
        return not any(entry.get("status") for peer, entry in by_row + alone if peer in OURS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when Ingot computed everything right."""
    arguments = parser().parse_args(argv)
    try:
        options = options_of(arguments)
        rows = select(arguments.only)
        latency = select(arguments.latency or LATENCY_ROWS)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.list:
        for row in rows:
            print(f"{row.name:5} {row.title}; {row.limit}; {row.cache}; target {row.target:g}")
        return 0
    if arguments.recorded:
        _write(arguments, json.loads(arguments.recorded.read_text()))
        return 0
    every, run = arguments.all, Run(options)
    is_default = not (arguments.dispatch or arguments.imports or arguments.latency)
    try:
        if every or arguments.rows or is_default:
            run.rows("rows", rows, ("ingot",))
        if every or arguments.dispatch:
            run.rows("dispatch", [row for row in ROWS.values() if row.small], OURS)
        if every or arguments.imports:
            run.imports()
        if every or arguments.latency:
            run.latencies(latency)
    except BaseException as error:
        run.record["interrupted"] = True
        if not isinstance(error, KeyboardInterrupt):
            raise
    finally:
        progress("")
        _write(arguments, run.record)  # also what was measured before an error
    if run.record.get("interrupted"):
        return INTERRUPTED
    return 0 if run.is_good else 1


def _write(arguments: argparse.Namespace, record: report.Record) -> None:
    print(report.text(record))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))
    if arguments.html:
        arguments.html.write_text(page.html(record), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
