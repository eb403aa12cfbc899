"""`python -m bench`: time the rows on Ingot and its peers, interleaved, and compare."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import report
from bench.peers import PEERS, names
from bench.row import CONDITIONS, Row
from bench.rows import select
from bench.session import PAGES, Options, Session, measure_latency

LATENCY_ROW = "W2"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    p.add_argument("--peers", default=",".join(PEERS), help="comma separated (default: all)")
    p.add_argument("--only", default="", metavar="ROWS", help="comma separated (default: all)")
    p.add_argument("--list", action="store_true", help="list the rows and stop")
    p.add_argument("--threads", type=int, default=1, help="threads and processors for everybody (default: 1)")
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
    p.add_argument("--latency", action="store_true", help="measure import and first result instead")
    p.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    return p


def options_of(arguments: argparse.Namespace) -> Options:
    """Checked options. Raises ValueError for what cannot be."""
    if min(arguments.threads, arguments.repeats, arguments.samples) < 1:
        raise ValueError("[bench] --threads, --repeats and --samples must be at least 1.")
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


def run_rows(rows: Sequence[Row], options: Options) -> tuple[dict[str, Any], bool]:
    """Time the rows and print the tables; the numbers, and whether Ingot was right everywhere."""
    with Session(options, progress) as session:
        outcomes = [session.run(row) for row in rows]
    progress("")
    print(report.header(options, session.versions), report.table(outcomes), sep="\n\n", end="\n\n")
    for part in (report.problems(outcomes), report.summary(outcomes)):
        if part:
            print(part)
    numbers = report.conditions(options, session.versions) | report.rows_json(outcomes)
    return numbers, not any(outcome.of("ingot").problem for outcome in outcomes)


def run_latency(rows: Sequence[Row], options: Options) -> tuple[dict[str, Any], bool]:
    """Measure imports and first results and print them; the numbers, and whether Ingot gave all."""
    latencies = []
    for row in rows:
        for peer in ("ingot", *options.peers):
            progress(f"{row.name}: {peer}")
            latencies.append(measure_latency(peer, row, options))
    progress("")
    print(report.latency_table(latencies))
    failed = any(latency.problem for latency in latencies if latency.peer == "ingot")
    return report.conditions(options, {}) | report.latency_json(latencies), not failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when Ingot computed every row right."""
    arguments = parser().parse_args(argv)
    try:
        options = options_of(arguments)
        rows = select(arguments.only or (LATENCY_ROW if arguments.latency else ""))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.list:
        for row in rows:
            print(f"{row.name:5} {row.title}; {row.limit}; {row.cache}; target {row.target:g}")
        return 0
    numbers, good = (run_latency if arguments.latency else run_rows)(rows, options)
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
