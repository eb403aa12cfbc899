"""What a run tells: a record of plain data, which is the JSON, and tables made from it."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

from bench.peers import OURS
from bench.session import NEAR_LIMIT, Measurement, Options, Outcome

Record = dict[str, Any]
GOALS = {"best": 1.45, "jax": 3.2, "torch": 2.5, "mlx": 30.0}
"""Geometric means over all rows that are aimed at."""
PARITY = 0.97
"""A ratio from here on counts as no worse than the best peer."""


def conditions(options: Options) -> Record:
    """How the numbers are taken."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "threads": options.threads,
        "rounds": options.rounds,
        "samples": options.samples,
        "pages": options.pages,
        "peers": list(options.peers),
        "load": os.getloadavg()[0],
        "versions": {},
    }


def row_record(outcome: Outcome) -> Record:
    """Everything measured on a row, times in seconds."""
    row, best = outcome.row, outcome.best
    return {
        "name": row.name,
        "title": row.title,
        "limit": row.limit,
        "limits": outcome.limits,
        "limit_seconds": outcome.limit,
        "no_limits": outcome.no_limits,
        "target": row.target,
        "bytes": row.moved,
        "flops": row.flops,
        "cache": outcome.cache,
        "pages": row.pages,
        "best": best.peer if best else None,
        "ratio": outcome.ratio,
        "ratio_of_least": outcome.ratio_of_least,
        "met": outcome.met,
        "peers": {m.peer: _measurement(m) for m in outcome.measurements},
    }


def _measurement(m: Measurement) -> Record:
    if m.status:
        return {"status": m.status, "problem": m.problem}
    return {
        "median": m.median,
        "least": min(m.times),
        "first": m.first,
        "disturbed": m.disturbed,
        "times": m.times,
    }


def text(record: Record) -> str:
    """All tables of a record."""
    parts = [header(record["conditions"])]
    if rows := record.get("rows"):
        parts += [row_table(rows), problems(rows), summary(rows)]
    if rows := record.get("dispatch"):
        parts += ["ns per call, least of all samples:", dispatch_table(rows), problems(rows)]
    if record.get("import"):
        parts += ["import, medians; resident memory of the whole process:", import_table(record["import"])]
    if record.get("latency"):
        parts += ["first result, medians in ms:", latency_table(record["latency"])]
    if record.get("interrupted"):
        parts.append("interrupted: the rest was not measured")
    return "\n\n".join(part for part in parts if part)


def header(taken: Record) -> str:
    """One paragraph: on what and under which conditions the numbers were taken."""
    listed = ", ".join(f"{peer} {version}" for peer, version in taken["versions"].items())
    return (
        f"{taken['processor']}, {taken['threads']} thread(s) for everybody; medians of "
        f"{taken['rounds']} rounds x {taken['samples']} samples, interleaved; pages {taken['pages']}; "
        f"load average {taken['load']:.1f} at the start. {listed}"
    ).rstrip()


def row_table(rows: Sequence[Record]) -> str:
    """A line for each row: medians in ms, the best peer, its time by ours (medians; least times), the target,
    what the machine allows and how much of it ours reaches, why the target counts as met, and the caches."""
    peers = list(rows[0]["peers"])
    lines = [
        ["row", "work", *peers, "best", "ratio", "of least", "target", "limit", "reached", "met", "cache"]
    ]
    for row in rows:
        limit, ours = row["limit_seconds"], row["peers"]["ingot"]
        lines.append(
            [
                row["name"],
                row["title"],
                *(cell(entry) for entry in row["peers"].values()),
                row["best"] or "–",
                number(row["ratio"]),
                number(row["ratio_of_least"]),
                f"{row['target']:g}",
                f"{1e3 * limit:.3g}" if limit else row["limit"],
                f"{100 * limit / ours['median']:.0f} %" if limit and "median" in ours else "–",
                row["met"] or "no",
                row["cache"],
            ]
        )
    return _align(lines)


def problems(rows: Sequence[Record]) -> str:
    """A line for each peer that did not run a row it should, and for limits that could not be measured, and
    why; equal reasons are told once."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row["no_limits"]:
            reasons.setdefault(("failed", "limits", row["no_limits"]), []).append(row["name"])
        for peer, entry in row["peers"].items():
            if entry.get("status", "absent") != "absent":
                reasons.setdefault((entry["status"], peer, entry["problem"]), []).append(row["name"])
    return "\n".join(
        f"{status}: {peer} on {', '.join(names)}: {why}" for (status, peer, why), names in reasons.items()
    )


def means(rows: Sequence[Record]) -> dict[str, tuple[float, int]]:
    """Geometric mean of the ratios peer ÷ ours and over how many rows, for the best of all and each peer."""
    ratios: dict[str, list[float]] = {"best": [row["ratio"] for row in rows if row["ratio"]]}
    for row in rows:
        ours = row["peers"].get("ingot", {})
        for peer, entry in row["peers"].items():
            if peer not in OURS and "median" in entry and "median" in ours:
                ratios.setdefault(peer, []).append(entry["median"] / ours["median"])
    return {name: (math.exp(statistics.fmean(map(math.log, r))), len(r)) for name, r in ratios.items() if r}


def told_mean(name: str, mean: float, n_rows: int) -> str:
    """A geometric mean, over how many rows it is, and the goal where there is one."""
    goal = f", goal {GOALS[name]:g}" if name in GOALS else ""
    return f"{mean:.2f} ({n_rows} row{'s' if n_rows > 1 else ''}{goal})"


def summary(rows: Sequence[Record]) -> str:
    """Geometric means, and how many rows are met and at parity."""
    listed = ", ".join(f"{name} {told_mean(name, *mean)}" for name, mean in means(rows).items())
    compared = [row for row in rows if row["ratio"]]
    level = sum(row["ratio"] >= PARITY for row in compared)
    return (
        f"geometric means, peer / ours: {listed or '–'}\n"
        f"targets met: {sum(bool(row['met']) for row in rows)} of {len(rows)} rows, by ratio or by a time "
        f"within limit / {NEAR_LIMIT}; no slower than the best peer (ratio ≥ {PARITY}): "
        f"{level} of {len(compared)}"
    )


def dispatch_table(rows: Sequence[Record]) -> str:
    """A line for each way to call and row: nanoseconds a call, least and median, and times Ingot's."""
    lines = [["peer", *(title for row in rows for title in (row["name"], "median", "by ours"))]]
    for peer in rows[0]["peers"]:
        line = [peer]
        for row in rows:
            entry, ours = row["peers"][peer], row["peers"]["ingot"]
            if "least" in entry:
                by_ours = number(entry["least"] / ours["least"]) if "least" in ours else "–"
                line += [f"{1e9 * entry['least']:.0f}", f"{1e9 * entry['median']:.0f}", by_ours]
            else:
                line += [cell(entry), "", ""]
        lines.append(line)
    return _align(lines)


def import_table(imports: Sequence[Record]) -> str:
    """A line for each framework: import in ms and resident memory in MB."""
    lines = [["import", "ms", "resident, MB"]]
    for entry in imports:
        if entry["status"]:
            lines.append([entry["peer"], f"{entry['status']}: {entry['problem']}", ""])
        else:
            seconds, resident = statistics.median(entry["seconds"]), statistics.median(entry["resident"])
            lines.append([entry["peer"], f"{1e3 * seconds:.1f}", f"{resident / 1e6:.0f}"])
    return _align(lines)


LATENCY_KINDS = {
    "fresh": "first function, cold cache",
    "cold": "later function, cold cache",
    "warm": "warm cache",
    "process": "whole process, warm cache",
}


def latency_table(latencies: Sequence[Record]) -> str:
    """A line for each row and peer: first result in ms, cold, warm, and of the whole process."""
    lines = [["row", "peer", *LATENCY_KINDS.values()]]
    for entry in latencies:
        if entry["status"]:
            told = "–" if entry["status"] == "absent" else f"{entry['status']}: {entry['problem']}"
            lines.append([entry["row"], entry["peer"], told, "", "", ""])
        else:
            times = [f"{1e3 * statistics.median(entry[kind]):.1f}" for kind in LATENCY_KINDS]
            lines.append([entry["row"], entry["peer"], *times])
    return _align(lines)


def cell(entry: Record) -> str:
    """The median in ms, a dash when the row is not for this peer, or what became of it."""
    if "median" in entry:
        return f"{1e3 * entry['median']:.3g}"
    return "–" if entry["status"] == "absent" else entry["status"]


def number(ratio: float | None) -> str:
    """A ratio with three digits."""
    return "–" if ratio is None else f"{ratio:.2f}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0]} ({platform.machine()})" if names else platform.machine()


def _align(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"{{:{width}}}" for width in widths)
    return "\n".join(form.format(*line).rstrip() for line in lines)
