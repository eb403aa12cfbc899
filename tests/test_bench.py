"""The benchmark: rows agree with their oracles, workers behave, the driver tells what went wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not installed

from bench.__main__ import main, options_of, parser  # noqa: E402
from bench.peers import PEERS, Missing, Numba, Peer, names  # noqa: E402
from bench.row import Row  # noqa: E402
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
    wanted = "W2 W2b W2c W3 W4 W4b W5 W5b W6 W6b W6c W13n".split()
    assert list(ROWS) == wanted
    for row in ROWS.values():
        assert row.title and row.limit and row.target > 0 and row.moved > 0
        for peer in ("ingot", "mlx", "numpy", "numba", "jax", "torch"):
            assert callable(getattr(row, peer)), (row.name, peer)


@pytest.mark.parametrize("name", ["W2c", "W5", "W6"])
def test_inputs_are_the_same_each_time_and_numpy_meets_the_oracle(name):
    row = ROWS[name]
    inputs, again = row.make_inputs(), row.make_inputs()
    assert all(np.array_equal(a, b) for a, b in zip(inputs, again, strict=True))
    results = Peer().compile(row.numpy(np))(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    expected = row.oracle(*inputs)
    assert row.check([np.asarray(r) for r in results], expected) == ""


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


def test_a_run_gives_ratios_and_json(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert main([*FAST, "--only", "W2c", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "W2c" in printed and "geometric means" in printed
    numbers = json.loads(path.read_text())
    (row,) = numbers["rows"]
    ours, peer = row["peers"]["ingot"], row["peers"]["numpy"]
    assert len(ours["times"]) == len(peer["times"]) == 2 and ours["first"] > 0
    assert row["best"] == "numpy" and row["ratio"] == pytest.approx(peer["median"] / ours["median"])
    assert numbers["conditions"]["versions"]["numpy"] == np.__version__


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
        with pytest.raises(WorkerFailure, match="KeyError: 'W99'"):
            worker.ask("prepare", row="W99", inputs=[], results="", cache="resident")
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
    with pytest.raises(Missing, match="not written"):
        Peer.function(_started(Numba()), Row())


def _started(peer: Peer) -> Peer:
    peer.framework = None
    return peer


def test_the_best_peer_is_one_that_was_right():
    measurements = [Measurement("ingot", times=[2.0]), Measurement("numpy", times=[3.0, 1.0, 4.0])]
    measurements.append(Measurement("jax", problem="wrong: result 0", times=[0.1]))
    outcome = Outcome(ROWS["W2"], "resident", measurements)
    assert outcome.best is not None and outcome.best.peer == "numpy" and outcome.ratio == 1.5


def test_latency_in_fresh_processes(tmp_path, capsys):
    path = tmp_path / "latency.json"
    assert main(["--latency", *FAST, "--only", "W2c", "--json", str(path)]) == 0
    assert "cold" in capsys.readouterr().out
    ours, numpy = json.loads(path.read_text())["latency"]
    assert ours["peer"] == "ingot" and numpy["peer"] == "numpy"
    assert len(ours["cold"]) == len(ours["warm"]) == 1 and len(ours["imported"]) == 2


@pytest.mark.parametrize(
    "arguments", [["--only", "W99"], ["--peers", "tensorflow"], ["--repeats", "0"], ["--python", "x=/p"]]
)
def test_bad_arguments_are_refused(arguments, capsys):
    assert main(arguments) == 2
    assert "[bench]" in capsys.readouterr().err


def test_interpreters_by_peer():
    options = options_of(parser().parse_args(["--python", "/all", "--python", "jax=/own"]))
    assert options.python("jax") == "/own" and options.python("mlx") == "/all"
    assert options.python("ingot") == sys.executable
    assert names("ingot,numpy,numpy") == ["numpy"] and set(options.peers) == set(PEERS) - {"ingot"}
    assert [row.name for row in select("W6, W2")] == ["W6", "W2"]
