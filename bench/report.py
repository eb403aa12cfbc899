"""What a run tells: tables for people, JSON for programs."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

from bench.session import Latency, Measurement, Options, Outcome


def header(options: Options, versions: dict[str, str]) -> str:
    """One paragraph: on what and under which conditions the numbers were taken."""
    taken = f"interleaved; pages {options.pages}; load average {os.getloadavg()[0]:.1f}"
    listed = ", ".join(f"{peer} {version}" for peer, version in versions.items())
    return (
        f"{platform.machine()}, {options.threads} thread(s) for everybody; medians in ms of "
        f"{options.rounds} rounds x {options.samples} samples, {taken}. {listed}"
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """A line for each row: medians in ms, the best peer, its time by ours (medians; least times), the target,
    and the bytes that must move by our time."""
    peers = [m.peer for m in outcomes[0].measurements]
    lines = [["row", "work", *peers, "best", "ratio", "of least", "target", "GB/s", "at least", "cache"]]
    for outcome in outcomes:
        row, ours, best = outcome.row, outcome.of("ingot"), outcome.best
        lines.append(
            [
                row.name,
                row.title,
                *(_cell(m) for m in outcome.measurements),
                best.peer if best else "-",
                _ratio(outcome.ratio),
                _ratio(outcome.ratio_of_least),
                f"{row.target:g}",
                "-" if ours.problem else f"{row.moved / ours.median / 1e9:.1f}",
                row.limit,
                outcome.cache,
            ]
        )
    return _align(lines)


def problems(outcomes: Sequence[Outcome]) -> str:
    """A line for each peer that did not run a row, and why; the same reason on all rows is told once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        for m in outcome.measurements:
            if m.problem:
                reasons.setdefault((m.peer, m.problem), []).append(outcome.row.name)
    return "\n".join(f"missing: {peer} on {', '.join(rows)}: {why}" for (peer, why), rows in reasons.items())


def summary(outcomes: Sequence[Outcome]) -> str:
    """Geometric means of the ratios: against the best peer of each row, and against each peer."""
    parts = [_mean("best", [o.ratio for o in outcomes if o.ratio])]
    for peer in [m.peer for m in outcomes[0].measurements][1:]:
        pairs = [(o.of(peer), o.of("ingot")) for o in outcomes]
        parts.append(_mean(peer, [p.median / m.median for p, m in pairs if not p.problem and not m.problem]))
    return "geometric means, peer / ours: " + ", ".join(parts)


def latency_table(latencies: Sequence[Latency]) -> str:
    """A line for each peer and row: import, memory, first result without and with a disk cache."""
    lines = [["peer", "row", "import, ms", "resident, MB", "cold, ms", "warm, ms"]]
    for latency in latencies:
        if latency.problem:
            lines.append([latency.peer, latency.row.name, "missing: " + latency.problem, "", "", ""])
            continue
        seconds = (latency.imported, latency.cold, latency.warm)
        imported, cold, warm = (f"{1e3 * statistics.median(times):.1f}" for times in seconds)
        resident = f"{latency.resident / 1e6:.0f}"
        lines.append([latency.peer, latency.row.name, imported, resident, cold, warm])
    return _align(lines)


def conditions(options: Options, versions: dict[str, str]) -> dict[str, Any]:
    """How the numbers were taken, for JSON."""
    taken = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "threads": options.threads,
        "rounds": options.rounds,
        "samples": options.samples,
        "pages": options.pages,
        "versions": versions,
    }
    return {"conditions": taken}


def rows_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything measured on the rows, times in seconds."""
    return {"rows": [_row_json(outcome) for outcome in outcomes]}


def latency_json(latencies: Sequence[Latency]) -> dict[str, Any]:
    """Everything measured of imports and first results, times in seconds, memory in bytes."""
    return {"latency": [{**vars(latency), "row": latency.row.name} for latency in latencies]}


def _row_json(outcome: Outcome) -> dict[str, Any]:
    row, best = outcome.row, outcome.best
    return {
        "name": row.name,
        "title": row.title,
        "limit": row.limit,
        "target": row.target,
        "bytes": row.moved,
        "cache": outcome.cache,
        "pages": row.pages,
        "best": best.peer if best else None,
        "ratio": outcome.ratio,
        "ratio_of_least": outcome.ratio_of_least,
        "peers": {m.peer: _measurement_json(m) for m in outcome.measurements},
    }


def _measurement_json(m: Measurement) -> dict[str, Any]:
    if m.problem:
        return {"missing": m.problem}
    return {
        "median": m.median,
        "least": min(m.times),
        "first": m.first,
        "disturbed": m.disturbed,
        "times": m.times,
    }


def _cell(m: Measurement) -> str:
    return "-" if m.problem else f"{1e3 * m.median:.3g}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _mean(name: str, ratios: Sequence[float]) -> str:
    if not ratios:
        return f"{name} -"
    return f"{name} {math.exp(statistics.fmean(map(math.log, ratios))):.2f} ({len(ratios)} rows)"


def _align(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"{{:{width}}}" for width in widths)
    return "\n".join(form.format(*line).rstrip() for line in lines)
