"""The report as one HTML page: no script, nothing loaded, plots as inline SVG."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from bench import report
from bench.peers import OURS
from bench.report import Record
from bench.startup import BARE

# Units of a plot's view box
LABELS, PLOT, VALUES = 100, 318, 210
BAR, GAP, MARGIN = 16, 8, 22
CLIP = 4.0
"""A bar longer than this times the longest of ours, the best peer's and the marks is cut."""


@dataclass(frozen=True)
class Bar:
    """One line of a plot; without a value the text stands alone."""

    label: str
    value: float | None
    text: str
    ours: bool = False


@dataclass(frozen=True)
class Mark:
    """A line across all bars: the `target`, above the plot, or the `limit`, below it."""

    kind: str
    value: float
    text: str


def html(record: Record) -> str:
    """The page for a record as `--json` writes it."""
    taken = record["conditions"]
    parts = [_conditions(taken)]
    if record.get("interrupted"):
        parts.append("<p><strong>The run was interrupted:</strong> what follows was measured before.</p>")
    if rows := record.get("rows"):
        parts += [_means(rows), _table(rows), _rows(rows)]
    if rows := record.get("dispatch"):
        parts.append(_dispatch(rows))
    if imports := record.get("import"):
        parts.append(_imports(imports))
    if latencies := record.get("latency"):
        parts.append(_latencies(latencies))
    title = f"Ingot and its peers, {taken['threads']} thread{'s' if taken['threads'] > 1 else ''}"
    return PAGE.format(title=escape(title), style=STYLE, body="\n".join(parts))


def _conditions(taken: Record) -> str:
    versions = ", ".join(f"{peer} {version}" for peer, version in taken["versions"].items())
    told = {
        "Machine": f"{taken['processor']}, {taken['system']}, Python {taken['python']}",
        "Threads": f"{taken['threads']} for everybody, and as many processors",
        "Method": f"medians of {taken['rounds']} rounds × {taken['samples']} samples, each framework in a "
        "process of its own, all taking turns; every result checked against float64",
        "Pages": f"{taken['pages']}: results are dropped before the next call",
        "Load": f"average {taken['load']:.1f} at the start",
        "Versions": versions or "not recorded",
    }
    terms = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in told.items())
    return f"<dl>{terms}</dl>"


def _means(rows: Sequence[Record]) -> str:
    means = report.means(rows)
    bars = [
        Bar(
            "best of all" if name == "best" else name,
            mean[0],
            report.told_mean(name, *mean),
            name == "best",
        )
        for name, mean in means.items()
    ]
    if not bars:
        return ""
    plot = bar_plot("Geometric means of peer time by Ingot's", bars, [Mark("limit", 1.0, "equal")])
    _, _, met = report.summary(rows).partition("\n")
    return _section(
        "Geometric means",
        "Time of the peer by Ingot's, over the rows that both ran: longer is better for Ingot. “Best of all” "
        f"takes the fastest peer of each row. {escape(met[0].upper() + met[1:])}.",
        _figures([_figure("", plot, "")]),
    )


def _table(rows: Sequence[Record]) -> str:
    peers = list(rows[0]["peers"])
    titles = ("Row", "Best ÷ ours", "Target", "Met", "Limit", "Limit ÷ ours", "Caches", *peers)
    lines = []
    for row in rows:
        ours, limit = row["peers"]["ingot"], row["limit_seconds"]
        reached = f"{100 * limit / ours['median']:.0f} %" if limit and "median" in ours else "–"
        cells = [report.number(row["ratio"]), f"{row['target']:g}", _met(row)]
        cells += [time(limit) if limit else row["limit"], reached, row["cache"]]
        classes = [""] * len(cells)
        cells += [_value(row["peers"][peer]) for peer in peers]
        classes += ["best" if peer == row["best"] else "ours" if peer in OURS else "" for peer in peers]
        shown = "".join(f'<td class="{c}">{escape(t)}</td>' for c, t in zip(classes, cells, strict=True))
        head = f'<a href="#{row["name"]}">{row["name"]}</a> <span>{escape(row["title"])}</span>'
        lines.append(f'<tr><th scope="row"><div>{head}</div></th>{shown}</tr>')
    header = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    missing = "".join(f"<li>{escape(line)}</li>" for line in report.problems(rows).splitlines())
    return _section(
        "All rows",
        "Medians. A dash: the row is not written for this framework. The limit is what bare loops over the "
        "same bytes, or as many multiplications, took on this machine in the same run. A target is met by "
        f"the ratio, or by a time within limit ÷ {report.NEAR_LIMIT}.",
        f'<div class="scroll" role="region" aria-label="Table of all rows" tabindex="0">{table}</div>'
        + (f"<ul>{missing}</ul>" if missing else ""),
    )


def _rows(rows: Sequence[Record]) -> str:
    figures = []
    for row in rows:
        ours, limit, ratio = row["peers"]["ingot"].get("median"), row["limit_seconds"], row["ratio"]
        marks = []
        if row["best"]:
            needed = row["peers"][row["best"]]["median"] / row["target"]
            marks.append(Mark("target", needed, f"target {time(needed)}"))
        if limit:
            marks.append(Mark("limit", limit, f"limit {time(limit)}"))
        title = f"{row['name']}: {row['title']}"
        plot = bar_plot(
            title, [_bar(peer, entry, "median", ours) for peer, entry in row["peers"].items()], marks
        )
        note = f"caches {row['cache']}; {row['limit']}"
        if limit and row["flops"]:
            note += f"; limit set by {max(row['limits'], key=row['limits'].get)}"
        result = f"best ÷ ours {report.number(ratio)}, target {row['target']:g}: {_met(row)}"
        figures.append(_figure(title, plot, f"{result}. {note[0].upper() + note[1:]}.", row["name"]))
    return _section(
        "Row by row",
        "Median time of a call: shorter is better. The dashed line is the time with which Ingot's target "
        "would be met, the dotted one the limit of the machine. A bar with a slanted end is cut.",
        _figures(figures),
    )


def _dispatch(rows: Sequence[Record]) -> str:
    figures = []
    for row in rows:
        ours = row["peers"]["ingot"].get("least")
        bars = [_bar(peer, entry, "least", ours) for peer, entry in row["peers"].items()]
        least = [e["least"] for peer, e in row["peers"].items() if peer not in OURS and "least" in e]
        needed = min(least, default=0.0) / row["target"]
        marks = [Mark("target", needed, f"target {time(needed)}")] if needed else []
        title = f"{row['name']}: {row['title']}"
        figures.append(_figure(title, bar_plot(title, bars, marks), ""))
    told = "Time of a call in a loop, least of all samples; ingot_numpy is Ingot called with NumPy's arrays."
    return _section("Dispatch", told, _figures(figures))


def _imports(imports: Sequence[Record]) -> str:
    figures = []
    for key, title, form in (("seconds", "Import", time), ("resident", "Resident memory after import", size)):
        # the bare interpreter imports nothing
        shown = [entry for entry in imports if entry["peer"] != BARE or key == "resident"]
        values = {e["peer"]: statistics.median(e[key]) for e in shown if not e["status"]}
        ours = values.get("ingot")
        bars = [
            Bar(peer, values[peer], f"{form(values[peer])}{_by(values[peer], ours, peer)}", peer in OURS)
            if peer in values
            else Bar(peer, None, f"{entry['status']}: {entry['problem']}")
            for peer, entry in ((entry["peer"], entry) for entry in shown)
        ]
        wanted = [e["targets"][key] for e in imports if e["peer"] == "ingot" and key in e.get("targets", {})]
        marks = [Mark("target", value, f"target {form(value)}") for value in wanted]
        figures.append(_figure(title, bar_plot(title, bars, marks), ""))
    told = "Medians over fresh processes; memory is that of the whole process, python the bare interpreter."
    return _section("Import", told, _figures(figures))


def _latencies(latencies: Sequence[Record]) -> str:
    figures = []
    for row in dict.fromkeys(entry["row"] for entry in latencies):
        entries = [entry for entry in latencies if entry["row"] == row]
        for kind, what in report.LATENCY_KINDS.items():
            values = {e["peer"]: statistics.median(e[kind]) for e in entries if not e["status"]}
            ours = values.get("ingot")
            bars = [
                Bar(e["peer"], None, "–" if e["status"] == "absent" else f"{e['status']}: {e['problem']}")
                if e["status"]
                else _bar(e["peer"], {"value": values[e["peer"]]}, "value", ours)
                for e in entries
            ]
            wanted = [
                e["targets"][kind] for e in entries if e["peer"] == "ingot" and kind in e.get("targets", {})
            ]
            marks = [Mark("target", value, f"target {time(value)}") for value in wanted]
            title = f"{row}, {what}"
            figures.append(_figure(title, bar_plot(title, bars, marks), ""))
    told = (
        "Time to the first result, from the trace on: of the first function of a process, with an empty disk "
        "cache and with a filled one, and of a later function with an empty one; and from the start of the "
        "process, imports included, with a filled one."
    )
    return _section("First result", told, _figures(figures))


def bar_plot(title: str, bars: Sequence[Bar], marks: Sequence[Mark]) -> str:
    """Horizontal bars from zero, a line of text beside each, and marks across; an SVG element."""
    values = [bar.value for bar in bars if bar.value is not None]
    ours = [bar.value for bar in bars if bar.ours and bar.value is not None]
    references = [*ours, *sorted(values)[: 2 if ours else 1], *(mark.value for mark in marks)]
    top = min(max(values, default=1.0), CLIP * max(references, default=1.0))
    top = max([top, *(mark.value for mark in marks)]) or 1.0
    height = 2 * MARGIN + len(bars) * (BAR + GAP) - GAP
    parts = []
    for number, bar in enumerate(bars):
        y = MARGIN + number * (BAR + GAP)
        kind = "ours" if bar.ours else "peer"
        parts.append(
            f'<text class="{kind}" x="{LABELS - 8}" y="{y + 12}" text-anchor="end">{escape(bar.label)}</text>'
        )
        at = LABELS
        if bar.value is not None:
            at = LABELS + PLOT + 8
            length = max(1.0, PLOT * min(bar.value, top) / top)
            slant = 10 if bar.value > top else 0
            upper, lower = f"{LABELS + length:.1f},{y}", f"{LABELS + length - slant:.1f},{y + BAR}"
            corners = f"{LABELS},{y} {upper} {lower} {LABELS},{y + BAR}"
            parts.append(f'<polygon class="{kind}" points="{corners}"/>')
        parts.append(
            f'<text class="{kind}" x="{at}" y="{y + 12}">{escape(_cut(bar.text, bar.value is None))}</text>'
        )
    for mark in marks:
        x = LABELS + PLOT * mark.value / top
        label_y = 12 if mark.kind == "target" else height - 5
        anchor = "end" if mark.value > top / 2 else "start"
        parts.append(
            f'<line class="{mark.kind}" x1="{x:.1f}" x2="{x:.1f}" '
            f'y1="{MARGIN - 5}" y2="{height - MARGIN + 5}"/>'
            f'<text class="mark" x="{x:.1f}" y="{label_y}" text-anchor="{anchor}">{escape(mark.text)}</text>'
        )
    told = "; ".join(f"{bar.label} {bar.text}" for bar in bars) + "".join(f"; {mark.text}" for mark in marks)
    width = LABELS + PLOT + VALUES
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(f"{title}: {told}")}">'
        f"{''.join(parts)}</svg>"
    )


def time(seconds: float) -> str:
    """A time with three digits and a unit."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{_digits(seconds / scale)} {unit}"
    return f"{_digits(seconds / 1e-9)} ns"


def size(n_bytes: float) -> str:
    """A size in memory, in MB."""
    return f"{n_bytes / 1e6:.0f} MB"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _bar(peer: str, entry: Record, key: str, ours: float | None) -> Bar:
    if key not in entry:
        return Bar(
            peer, None, "–" if entry["status"] == "absent" else f"{entry['status']}: {entry['problem']}"
        )
    value = entry[key]
    return Bar(peer, value, time(value) + _by(value, ours, peer), peer in OURS)


def _by(value: float, ours: float | None, peer: str) -> str:
    return f", {_digits(value / ours)}× ours" if ours and peer != "ingot" else ""


def _cut(text: str, alone: bool) -> str:
    most = 70 if alone else 30
    return text if len(text) <= most else text[: most - 1] + "…"


def _value(entry: Record) -> str:
    return time(entry["median"]) if "median" in entry else report.cell(entry)


def _met(row: Record) -> str:
    return f"met by {row['met']}" if row["met"] else "not met"


def _section(title: str, told: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{told}</p>{content}</section>"


def _figure(title: str, plot: str, note: str, anchor: str = "") -> str:
    name = f' id="{anchor}"' if anchor else ""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    caption = f"<figcaption>{escape(note)}</figcaption>" if note else ""
    return f"<figure{name}>{head}{plot}{caption}</figure>"


def _figures(figures: Iterable[Any]) -> str:
    return f'<div class="figures">{"".join(figures)}</div>'


STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #59636e; --line: #d1d9e0;
  --ours: #b3500f; --peer: #7a8ea3; --mark: #1b1f24; --link: #0a56c2; --tint: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --text: #e8ebee; --soft: #9aa5b1;
  --line: #3a424b; --ours: #f0914a; --peer: #61778d; --mark: #e8ebee; --link: #7db5ff; --tint: #1d2227; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 84rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .25rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; } p { margin: .25rem 0 1rem; max-width: 48rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
a { color: var(--link); } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
thead th { color: var(--soft); font-weight: 600; } tbody th { font-weight: 400; }
th:first-child { text-align: left; } tbody th div { display: flex; white-space: normal; min-width: 18rem; }
tbody th a { font-weight: 600; flex: 0 0 3.2rem; } tbody tr:hover { background: var(--tint); }
td.best { font-weight: 600; } td.ours { color: var(--ours); font-weight: 600; }
ul { color: var(--soft); font-size: .875rem; overflow-wrap: anywhere; }
.figures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 34rem), 1fr)); }
figure { overflow-x: auto; margin: 0; padding: .9rem; border: 1px solid var(--line); border-radius: 6px; }
figure:target { border-color: var(--ours); } figcaption { color: var(--soft); font-size: .875rem; }
svg { display: block; width: 100%; min-width: 30rem; height: auto; font: 13px system-ui, sans-serif; }
text { fill: var(--text); } text.ours { font-weight: 700; } text.mark { fill: var(--soft); font-size: 12px; }
polygon.ours { fill: var(--ours); } polygon.peer { fill: var(--peer); }
line { stroke: var(--mark); stroke-width: 1.5; } line.target { stroke-dasharray: 6 4; }
line.limit { stroke-dasharray: 2 3; }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""
