"""The benchmark: rows agree with their oracles, workers behave, the driver tells what went wrong."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not installed

from bench import __main__, page, report  # noqa: E402
from bench.__main__ import INTERRUPTED, main, options_of, parser, processors  # noqa: E402
from bench.limits import Limits  # noqa: E402
from bench.peers import OTHERS, Absent, Call, Numba, Peer, names  # noqa: E402
from bench.rows import ROWS, select  # noqa: E402
from bench.session import (  # noqa: E402
    Measurement,
    Options,
    Outcome,
    Session,
    WorkerFailure,
    WorkerProcess,
)

FAST = ("--peers", "numpy", "--repeats", "1", "--samples", "2", "--pages", "fresh")


def test_every_row_of_the_table_is_there_and_complete():
    wanted = "W1 W1b W2 W2b W2c W3 W4 W4b W5 W5b W6 W6b W6c W7 W7b W7c W7d W7e W7f W8 W8b W9 W11 W13n"
    assert list(ROWS) == wanted.split()
    without_numba = {name for name in ROWS if re.match("W7|W8|W9|W11", name)}
    for row in ROWS.values():
        assert row.title and row.limit and row.cache and row.target > 0 and row.moved > 0
        for peer in ("ingot", "mlx", "jax", "torch", "torch_eager"):
            assert callable(getattr(row, peer)), (row.name, peer)
        assert hasattr(row, "numba") == (row.name not in without_numba)
        assert callable(row.numpy) == (row.name != "W7e")


@pytest.mark.parametrize("name", ["W1", "W1b", "W2c", "W5", "W6", "W7b", "W8", "W9", "W11"])
def test_inputs_are_the_same_each_time_and_numpy_meets_the_oracle(name):
    row = ROWS[name]
    inputs, again = row.make_inputs(), row.make_inputs()
    assert all(np.array_equal(a, b) for a, b in zip(inputs, again, strict=True))
    result = row.numpy(np)(*inputs)
    assert isinstance(result, tuple) == row.several
    assert row.check(Peer().to_numpy(result), row.oracle(*inputs)) == ""


def test_gradients_of_the_train_step_are_those_of_finite_differences():
    row, step = ROWS["W9"], 1e-5
    x, labels, *params = row.make_inputs()
    params = [p.astype(np.float64) for p in params]
    _, *after = row.oracle(x, labels, *params)
    for number, place in ((0, (3, 5)), (1, (7,)), (2, (250, 1)), (4, (0, 9)), (5, (2,))):
        losses = []
        for sign in (1, -1):
            moved = [p.copy() for p in params]
            moved[number][place] += sign * step
            losses.append(row.oracle(x, labels, *moved)[0])
        gradient = (params[number] - after[number])[place] / 0.1
        assert gradient == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5)


def test_arguments_in_bfloat16_are_exact():
    for x in ROWS["W7e"].make_inputs():
        assert x.dtype == np.float32 and not (x.view(np.uint32) & 0xFFFF).any()


def test_a_call_is_timed_without_a_wrapper():
    seen = []
    call = Call("f(x)", {"f": lambda x: seen.append(x) or x, "x": 3})
    assert call.run() == 3 and call.timer()(5) > 0 and seen == [3] * 6


def test_a_wrong_result_is_noticed():
    row = ROWS["W2c"]
    (expected,) = row.oracle(*row.make_inputs())
    wrong = expected.astype(np.float32)
    wrong[7] += 1e-3
    assert "1 of 16384 wrong" in row.check([wrong], [expected])
    wrong[7] = np.nan
    assert "wrong" in row.check([wrong], [expected])
    assert "shape" in row.check([wrong[1:]], [expected])
    assert "2 results" in row.check([wrong, wrong], [expected])


def test_a_run_gives_ratios_json_and_a_page(tmp_path, capsys):
    path, page_path = tmp_path / "bench.json", tmp_path / "bench.html"
    assert main([*FAST, "--only", "W2c", "--json", str(path), "--html", str(page_path)]) == 0
    printed = capsys.readouterr().out
    assert "W2c" in printed and "geometric means" in printed
    assert "gelu" in page_path.read_text()
    numbers = json.loads(path.read_text())
    (row,) = numbers["rows"]
    ours, peer = row["peers"]["ingot"], row["peers"]["numpy"]
    assert len(ours["times"]) == len(peer["times"]) == 2 and ours["first"] > 0
    assert row["best"] == "numpy" and row["ratio"] == pytest.approx(peer["median"] / ours["median"])
    assert numbers["conditions"]["versions"]["numpy"] == np.__version__
    assert numbers["conditions"]["threads"] == processors()
    assert 0 < row["limit_seconds"] == max(row["limits"].values()) < ours["median"]
    assert main(["--from", str(path)]) == 0
    assert capsys.readouterr().out == printed


def test_evicted_caches(tmp_path):
    with Session(Options(peers=(), rounds=1, samples=1, cache="evicted", pages="fresh")) as session:
        outcome = session.run(ROWS["W2c"])
    assert outcome.cache == "evicted" and not outcome.of("ingot").problem
    assert len(outcome.of("ingot").times) == 1 and outcome.ratio is None


def test_a_peer_that_is_not_installed_is_reported(tmp_path, capsys):
    bare = tmp_path / "python"
    blocked = "import sys; sys.modules['numba'] = None; sys.argv = sys.argv[2:]; "
    run = "import runpy; runpy.run_module('bench.worker', run_name='__main__', alter_sys=True)"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{blocked}{run}" "$@"\n')
    bare.chmod(0o755)
    arguments = ["--peers", "numba,jax", "--python", f"numba={bare}", "--python", "jax=/nowhere/python"]
    assert main([*FAST, *arguments, "--only", "W2c"]) == 0
    printed = capsys.readouterr().out
    assert "missing: numba on W2c: not installed" in printed
    assert "missing: jax on W2c: cannot start /nowhere/python" in printed


def test_a_worker_survives_a_row_it_cannot_do(tmp_path):
    worker = WorkerProcess("numpy", Options(peers=("numpy",), pages="fresh"), tmp_path)
    try:
        with pytest.raises(WorkerFailure, match="KeyError: 'W99'") as failure:
            worker.ask("prepare", row="W99", inputs=[], results="", cache="resident")
        assert failure.value.kind == "failed"
        assert worker.alive and worker.ask("finish") == {}
        worker.process.kill()
        worker.process.wait()
        with pytest.raises(WorkerFailure, match="ended"):
            worker.ask("finish")
    finally:
        worker.close()


def test_a_worker_that_hangs_is_given_up(tmp_path):
    sleepy = tmp_path / "python"
    sleepy.write_text("#!/bin/sh\nexec sleep 60\n")
    sleepy.chmod(0o755)
    options = Options(peers=("numpy",), timeout=0.2, pythons={"numpy": str(sleepy)})
    with pytest.raises(WorkerFailure, match="no answer in 0.2 s"):
        WorkerProcess("numpy", options, tmp_path)


def test_a_peer_without_the_function_says_so():
    for peer in (Peer(), Numba()):
        with pytest.raises(Absent, match="not written"):
            _started(peer).function(ROWS["W7e"])


def _started(peer: Peer) -> Peer:
    peer.framework = None
    return peer


def test_the_best_peer_is_one_that_was_right():
    measurements = [Measurement("ingot", times=[2.0]), Measurement("numpy", times=[3.0, 1.0, 4.0])]
    measurements.append(Measurement("jax", "wrong", "result 0", times=[0.1]))
    outcome = Outcome(ROWS["W2"], "resident", measurements)
    assert outcome.best is not None and outcome.best.peer == "numpy" and outcome.ratio == 1.5


@pytest.mark.parametrize(
    ("ours", "limit", "met"), [(2.0, 0.1, "ratio"), (2.2, 0.1, ""), (2.2, 2.03, "limit"), (2.2, None, "")]
)
def test_a_target_is_met_by_the_ratio_or_at_the_limit(ours, limit, met):
    row = ROWS["W6"]  # target 1.1
    measurements = [Measurement("ingot", times=[ours]), Measurement("numpy", times=[2.2])]
    limits = {} if limit is None else {"bytes": limit, "flops": 0.0}
    assert Outcome(row, "resident", measurements, limits).met == met


def test_limits_grow_with_the_work():
    limits = Limits(1)
    small = limits.limit(read=1 << 22, written=1 << 22, flops=10**9, dtype="float32", evicted=False)
    large = limits.limit(read=1 << 24, written=1 << 24, flops=4 * 10**9, dtype="float32", evicted=False)
    assert all(0 < 2 * small[kind] < large[kind] < 1 for kind in ("bytes", "flops"))
    only_read = limits.limit(read=1 << 24, written=0, flops=0, dtype="float32", evicted=True)
    assert 0 < only_read["bytes"] < 1 and only_read["flops"] == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_keeps_what_it_has(error, tmp_path, monkeypatch, capsys):
    class Interrupted(Session):
        def run(self, row, ours=("ingot",)):
            if row.name == "W1b":
                raise error
            return super().run(row, ours)

    monkeypatch.setattr(__main__, "Session", Interrupted)
    path = tmp_path / "bench.json"
    arguments = [*FAST, "--only", "W1,W1b,W2c", "--json", str(path)]
    if error is KeyboardInterrupt:
        assert main(arguments) == INTERRUPTED
    else:
        with pytest.raises(RuntimeError):
            main(arguments)
    record = json.loads(path.read_text())
    assert [row["name"] for row in record["rows"]] == ["W1"] and record["interrupted"]
    assert "interrupted" in capsys.readouterr().out and "interrupted" in page.html(record)


def test_latency_in_fresh_processes(tmp_path, capsys):
    path = tmp_path / "latency.json"
    assert main(["--latency", "W2c,W1", *FAST, "--json", str(path)]) == 0
    assert "cold" in capsys.readouterr().out
    record = json.loads(path.read_text())
    ours, numpy, *small = record["latency"]
    assert [entry["row"] for entry in small] == ["W1", "W1"] and not any(e["status"] for e in small)
    assert ours["peer"] == "ingot" and numpy["peer"] == "numpy" and "rows" not in record
    assert len(ours["fresh"]) == len(ours["cold"]) == len(ours["warm"]) == 1
    assert ours["process"][0] > ours["warm"][0]


def test_imports_and_dispatch(tmp_path, capsys):
    path = tmp_path / "parts.json"
    assert main(["--import", "--dispatch", *FAST, "--json", str(path)]) == 0
    printed, record = capsys.readouterr().out, json.loads(path.read_text())
    assert "ns per call" in printed and "resident, MB" in printed
    python, numpy, ours = record["import"]
    assert (python["peer"], numpy["peer"], ours["peer"]) == ("python", "numpy", "ingot")
    assert 0 < python["seconds"][0] < min(numpy["seconds"][0], ours["seconds"][0])
    assert python["resident"] <= numpy["resident"] <= ours["resident"]
    assert record["conditions"]["versions"]["numpy"] == np.__version__
    assert [row["name"] for row in record["dispatch"]] == ["W1", "W1b"]
    for row in record["dispatch"]:
        assert list(row["peers"]) == ["ingot", "ingot_numpy", "numpy"] and row["best"] == "numpy"


def recorded() -> dict:
    """A record with everything in it that a run may bring."""
    times = {"ingot": [2e-3, 2.2e-3], "numpy": [2.9e-3, 3.1e-3], "mlx": [0.35, 0.36]}
    right = [Measurement(peer, times=seconds, first=0.1) for peer, seconds in times.items()]
    others = [
        Measurement("jax", "failed", "ValueError: <b>&"),
        Measurement("numba", "absent", "not written for this peer"),
        Measurement("torch", "missing", "not installed"),
    ]
    outcome = Outcome(ROWS["W7"], "resident", right + others, {"bytes": 1e-4, "flops": 1e-3})
    wrong = Measurement("ingot", "wrong", "result 0")
    alone = Outcome(ROWS["W1"], "evicted", [wrong, right[1], Measurement("mlx", "absent"), *others])
    alone.no_limits = "not installed: llvmlite"
    dispatch = Outcome(ROWS["W1"], "resident", [right[0], Measurement("ingot_numpy", times=[1e-7]), right[1]])
    return {
        "conditions": report.conditions(Options(peers=("numpy",))) | {"versions": {"numpy": "2.0"}},
        "rows": [report.row_record(outcome), report.row_record(alone)],
        "dispatch": [report.row_record(dispatch)],
        "import": [
            {
                **{"peer": "ingot", "status": "", "problem": "", "seconds": [0.05, 0.07]},
                **{"resident": [30_000_000], "targets": {"seconds": 0.08, "resident": 4e7}},
            },
            {"peer": "jax", "status": "missing", "problem": "No module", "seconds": [], "resident": []},
        ],
        "latency": [
            {
                **{"peer": "ingot", "row": "W2", "status": "", "problem": "", "targets": {"cold": 0.02}},
                **{"fresh": [0.1], "cold": [0.03], "warm": [0.01], "process": [0.2]},
            },
            {"peer": "numba", "row": "W2", "status": "absent", "problem": "", "cold": [], "warm": []},
        ],
    }


class Tags(HTMLParser):
    """The tags of a page; fails on one that is closed and not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag != "meta":
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def test_the_tables_tell_everything():
    record = recorded()
    printed = report.text(json.loads(json.dumps(record)))
    assert "best 1.43 (1 row, goal 1.45)" in printed and "mlx 169.05 (1 row, goal 30)" in printed
    assert "failed: jax on W7, W1: ValueError: <b>&" in printed and "missing: torch on W7, W1" in printed
    assert "failed: limits on W1: not installed: llvmlite" in printed
    assert "wrong: ingot on W1: result 0" in printed and "numba on" not in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("W7 "))
    shown = "2.1|3|355|failed|–|missing|numpy|1.43|1.45|1.02|1|48 %|ratio|resident"
    assert re.split("  +", line)[2:] == shown.split("|")


def test_the_page_stands_alone():
    text = page.html(json.loads(json.dumps(recorded())))
    tags = Tags(text)
    assert not tags.stack
    kinds = [tag for tag, _ in tags.seen]
    assert not {"script", "link", "img", "iframe"} & set(kinds) and "url(" not in text and "http" not in text
    assert "prefers-color-scheme: dark" in text
    plots = [attributes for tag, attributes in tags.seen if tag == "svg"]
    assert len(plots) == 1 + 2 + 1 + 2 + 4  # means, rows, dispatch, import, first results
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    anchors = {a["id"] for tag, a in tags.seen if tag == "figure" and "id" in a}
    assert {a["href"][1:] for tag, a in tags.seen if tag == "a"} == anchors == {"W7", "W1"}
    assert "&lt;b&gt;&amp;" in text and "met by ratio" in text and "target 2.94 ms" in text
    assert (
        "1.43 (1 row, goal 1.45)" in text
        and "limit 1 ms" in text
        and "169× ours" in text
        and "evicted" in text
    )


def test_bars_are_as_long_as_their_values():
    bars = [
        page.Bar("a", 1.0, "", True),
        page.Bar("b", 2.0, ""),
        page.Bar("c", 100.0, ""),
        page.Bar("d", None, "–"),
    ]
    plot = page.bar_plot("t", bars, [page.Mark("target", 0.5, "half")])
    ends = [float(points.split()[1].split(",")[0]) for points in re.findall('points="([^"]*)"', plot)]
    lengths = [end - page.LABELS for end in ends]
    assert lengths[1] == pytest.approx(2 * lengths[0], rel=1e-2)
    assert len(lengths) == 3 and lengths[2] == page.PLOT  # cut
    (x,) = re.findall('class="target" x1="([^"]*)"', plot)
    assert float(x) - page.LABELS == pytest.approx(lengths[0] / 2, abs=0.1)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1.5, "1.5 s"), (0.25, "250 ms"), (1.234e-3, "1.23 ms"), (6.5e-8, "65 ns")]
)
def test_times_have_three_digits(seconds, shown):
    assert page.time(seconds) == shown


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--only", "W99"], ["--latency", "W99"], ["--peers", "tensorflow"], ["--repeats", "0"]),
        *(["--python", "x=/p"], ["--threads", "100000"]),
    ],
)
def test_bad_arguments_are_refused(arguments, capsys):
    assert main(arguments) == 2
    assert "[bench]" in capsys.readouterr().err


def test_interpreters_by_peer():
    options = options_of(parser().parse_args(["--python", "/all", "--python", "jax=/own"]))
    assert options.python("jax") == "/own" and options.python("mlx") == "/all"
    assert options.python("ingot") == sys.executable
    assert names("ingot,numpy,numpy") == ["numpy"] and options.peers == OTHERS
    assert [row.name for row in select("W6, W2")] == ["W6", "W2"]
