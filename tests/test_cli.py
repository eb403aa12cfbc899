"""The `ingot` command: every sub-command on files and on functions, its JSON, and its errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ingot as mx
from ingot import cli
from ingot.tracer import primitive

ROOT = Path(__file__).resolve().parent.parent
WEIGHT = np.random.default_rng(3).standard_normal((600, 5)).astype(np.float32)


def score(x, bias):
    """The function under test; the weight is large enough to be mapped from the file."""
    return mx.tanh(x @ mx.array(WEIGHT) + bias), mx.sum(x, axis=0)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("cli") / "score.ingot")
    shapes = {"x": {0: mx.Dim("B", min=1, max=64)}}
    x, bias = mx.zeros((3, 600)), mx.zeros((5,))
    mx.export_function(path, score, x, bias, dynamic_shapes=shapes, metadata={"version": 7})
    return path


@pytest.fixture
def run(capsys):
    """Run a command: `(exit status, output, errors)`."""

    def call(*argv):
        status = cli.main([str(word) for word in argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def run_json(run):
    def call(*argv):
        status, output, errors = run(*argv, "--json")
        assert errors == ""
        return status, json.loads(output)

    return call


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the current folder, as a user has it."""
    (tmp_path / "my_module.py").write_text(
        "import ingot as mx\n"
        "def gelu(x, y):\n"
        "    return x * mx.sigmoid(1.702 * x) + y\n"
        "class holder:\n"
        "    inner = staticmethod(mx.compile(gelu))\n"
        "number = 5\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    return "my_module"


def test_inspect(run, run_json, file):
    status, data = run_json("inspect", file)
    assert status == 0
    assert data["metadata"] == {"version": 7}
    assert data["dims"] == [{"name": "B", "min": 1, "max": 64, "multiple_of": 1}]
    (trace,) = data["functions"][0]["traces"]
    assert [item["type"] for item in trace["inputs"]] == ["f32[B,600]", "f32[5]"]
    assert trace["outputs"] == ["f32[B,5]", "f32[600]"]
    status, text, _ = run("inspect", file)
    assert status == 0
    assert "score(x: f32[B,600], bias: f32[5]) -> (f32[B,5], f32[600])" in text
    assert all(part in text for part in ("B: 1 to 64", "tanh", "11.7 KiB"))


def test_inspect_reads_neither_weights_nor_compiler(file, tmp_path):
    content = bytearray(Path(file).read_bytes())
    start = content.index(WEIGHT.tobytes()[:64])
    content[start : start + 64] = bytes(64)
    damaged = tmp_path / "damaged.ingot"
    damaged.write_bytes(content)
    code = (
        "import sys; from ingot import cli; assert cli.main(['inspect', sys.argv[1]]) == 0\n"
        "heavy = ('llvmlite', 'ingot.nn', 'ingot.lowering.llvm', 'ingot.runtime.executable')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(damaged)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert cli.main(["verify", str(damaged)]) == 1


def test_ir(run, run_json, file, module):
    status, text, _ = run("ir", file)
    assert status == 0 and text.startswith("graph @score(%x: f32[B,600], %bias: f32[5])")
    from ingot.tracer.text import parse_graph, print_graph

    status, data = run_json("ir", f"{module}:gelu", "--args", "f32[N,4] f32[4]")
    (text,) = data["graphs"]
    assert status == 0 and "f32[N,4]" in text and "sigmoid" in text
    assert print_graph(parse_graph(text)) == text
    status, text, _ = run("ir", f"{module}:holder.inner", "--args", "f32[2,4], f32[]")
    assert status == 0 and "sigmoid" in text


def test_run_on_a_file(run, run_json, file, tmp_path):
    x = np.random.default_rng(0).standard_normal((7, 600)).astype(np.float32)
    bias = np.ones(5, np.float32)
    np.savez(tmp_path / "in.npz", x=x, bias=bias)
    status, data = run_json(
        "run", file, "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz", "--repeat", 3
    )
    assert status == 0 and data["calls"] == 3
    assert [output["type"] for output in data["outputs"]] == ["float32[7,5]", "float32[600]"]
    with np.load(tmp_path / "out.npz") as written:
        expected = np.tanh(x.astype(np.float64) @ WEIGHT + bias)
        np.testing.assert_allclose(written["arr_0"], expected, atol=1e-4)
        np.testing.assert_allclose(written["arr_1"], x.sum(0), atol=1e-4)
    status, data = run_json("run", file, "--dim", "B=2")
    assert data["inputs"] == ["float32[2,600]", "float32[5]"]
    assert "float32[8,5]" in run("run", file)[1]


def test_run_refuses_wrong_inputs(run, file, tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "short.npz", x=np.zeros((1, 600), np.float32))
    assert "is not an .npz file" in run("run", file, "--input", tmp_path / "one.npy")[2]
    assert "is not an .npz file" in run("run", file, "--input", file)[2]
    assert "holds x; expected x, bias" in run("run", file, "--input", tmp_path / "short.npz")[2]


def test_inspect_shows_keywords_and_every_trace(run, tmp_path):
    path = str(tmp_path / "two.ingot")
    with mx.exporter(path, lambda x, *, scale=None: x if scale is None else x * scale) as export:
        export(mx.zeros((2,)))
        export(mx.zeros((2,)), scale=mx.zeros((3, 1)))
    text = run("inspect", path)[1]
    assert "(x: f32[2]) -> (f32[2])" in text and "(x: f32[2], *, scale: f32[3,1]) -> (f32[3,2])" in text
    assert run("run", path, "--trace", 1)[0] == run("verify", path)[0] == 0


def test_run_on_a_function(run_json, module):
    status, data = run_json("run", f"{module}:gelu", "--args", "f32[3] f32[]", "--seed", 5)
    again = run_json("run", f"{module}:gelu", "--args", "f32[3] f32[]", "--seed", 5)[1]
    assert status == 0 and data["outputs"] == again["outputs"]
    assert data["outputs"][0]["type"] == "float32[3]" and len(data["outputs"][0]["first"]) == 3


def test_verify(run, run_json, file, module):
    status, data = run_json("verify", file)
    assert status == 0 and data["ok"] and data["traces"][0]["dims"] == {"B": 8}
    assert len(data["traces"][0]["differences"]) == 2
    assert run("verify", file, "--dim", "B=1")[0] == 0
    assert run("verify", f"{module}:gelu", "--args", "f32[9] f32[9]")[0] == 0


def test_verify_says_when_results_are_wrong(run, file, monkeypatch):
    from ingot.cli import verification

    wrong = [np.zeros((8, 5), np.float32), np.zeros(600, np.float32)]
    monkeypatch.setattr(verification, "interpret", lambda graph, inputs, env: wrong)
    status, text, _ = run("verify", file)
    assert status == 1 and "WRONG" in text and "NOT ok" in text


def test_verify_runs_the_examples_of_a_file(run, run_json, tmp_path):
    path = tmp_path / "f.ingot"
    factor = [1.0]
    with mx.exporter(path, lambda x: (x * mx.array(factor[0]), -x)) as export:
        export(mx.zeros(3))
        export(mx.zeros((2, 2)))
        export.example(mx.array([1.0, 2.0, 3.0]))
        export.example(mx.ones((2, 2)), rtol=0.0, atol=0.5)
    status, data = run_json("verify", path)
    assert status == 0 and data["ok"] and [e["ok"] for e in data["examples"]] == [True, True]
    assert data["examples"][1]["inputs"] == ["f32[2,2]"] and data["examples"][1]["errors"] == [0.0, 0.0]
    assert run_json("verify", path, "--trace", 1)[1]["examples"] == data["examples"][1:]
    status, text, _ = run("verify", path)
    assert status == 0 and "f32[3]" in text and "1e-05 + 0.0001 |expected|" in text and "WRONG" not in text

    with mx.exporter(path, lambda x: (x * mx.array(factor[0]), -x)) as export:
        export(mx.zeros(3))
        factor[0] = 1.001  # the examples are of another function than the trace
        export.example(mx.ones(3))
        export.example(mx.zeros(3))
    status, data = run_json("verify", path)
    assert status == 1 and not data["ok"] and data["traces"][0]["ok"]
    assert [e["ok"] for e in data["examples"]] == [False, True]
    assert 9 < data["examples"][0]["errors"][0] < 10 and data["examples"][0]["errors"][1] == 0
    status, text, _ = run("verify", path)
    assert status == 1 and text.count("WRONG") == 1 and "NOT ok" in text


@pytest.mark.parametrize("command", ["kernels", "llvm", "asm"])
def test_code(run, run_json, file, module, command):
    for words in ([file], [f"{module}:gelu", "--args", "f32[N,4] f32[4]"]):
        status, data = run_json(command, *words)
        assert status == 0
        (program,) = data["programs"]
        native = [kernel for kernel in program["kernels"] if kernel["kind"] == "native"]
        form = {"kernels": "loop"}.get(command, command)
        assert native and all(kernel["text"][form].strip() for kernel in native)
        status, text, _ = run(command, *words)
        assert status == 0 and native[0]["name"] in text
    expected = {"kernels": "for", "llvm": "define", "asm": "ret"}[command]
    assert expected in text


def test_kernels_in_all_forms(run, run_json, file, module):
    """What was fused, from which lines of the user, and what it became; on a file and on a function."""
    for words in ([file], [f"{module}:gelu", "--args", "f32[N,4] f32[4]"]):
        status, data = run_json("kernels", *words, "--show", "all")
        (program,) = data["programs"]
        native = [kernel for kernel in program["kernels"] if kernel["kind"] == "native"]
        assert status == 0 and native
        for kernel in native:
            assert kernel["primitives"] and kernel["bytes"] and kernel["flops"]
            assert all(":" in line for line in kernel["lines"])
            assert list(kernel["text"]) == ["loop", "llvm", "asm"]
            for form, sign in (("loop", "kernel @"), ("llvm", "define i32"), ("asm", "ret")):
                assert sign in kernel["text"][form]
        status, text, _ = run("kernels", *words, "--show", "loop,asm")
        assert status == 0 and "kernel @" in text and "ret" in text and "define i32" not in text
    assert any(line.rpartition(":")[0].endswith(".py") for kernel in native for line in kernel["lines"])
    status, _, error = run("kernels", file, "--show", "bytecode")
    assert status == 1 and "'bytecode' is not one of loop, llvm, asm, all" in error


def test_primitives(run, run_json):
    status, data = run_json("primitives")
    assert status == 0
    assert [row["name"] for row in data["primitives"]] == sorted(primitive.registry)
    add = next(row for row in data["primitives"] if row["name"] == "add")
    assert all(add[rule] is True for rule in ("infer", "evaluate", "vjp", "jvp", "vmap", "native"))
    status, text, _ = run("primitives")
    assert status == 0 and f"{len(data['primitives'])} primitives" in text


def test_errors_are_one_line_and_status_1(run, module, tmp_path):
    text_file = tmp_path / "text.ingot"
    text_file.write_text("not an Ingot file")
    for words, message in (
        (["inspect", "missing.ingot"], "missing.ingot"),
        (["inspect", text_file], "text.ingot"),
        (["ir", f"{module}:gelu"], "--args"),
        (["ir", f"{module}:number", "--args", "f32[]"], "is a int, not a function"),
        (["ir", f"{module}:absent", "--args", "f32[]"], "absent"),
        (["ir", "no_such_module:f", "--args", "f32[]"], "no_such_module"),
        (["ir", f"{module}:gelu", "--args", "f31[2]"], "'f31' is not one of bool, u8"),
        (["ir", f"{module}:gelu", "--args", "f32[2"], "expected a type"),
        (["run", f"{module}:gelu", "--args", "f32[3] f32[4]"], "broadcast"),
    ):
        status, output, errors = run(*words)
        assert (status, output) == (1, ""), words
        assert message in errors and errors.startswith(f"ingot {words[0]}: "), words


def test_wrong_sizes(run, file):
    assert "there is no dim C (there are: B)" in run("run", file, "--dim", "C=3")[2]
    assert "NAME=SIZE" in run("run", file, "--dim", "B=x")[2]
    status, _, errors = run("run", file, "--dim", "B=65")
    assert status == 1 and "64" in errors
    assert "there is no trace 3" in run("ir", file, "--trace", 3)[2]


def test_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["no-such-command"])
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)


def test_python_dash_m_and_a_closed_pipe(file):
    command = f"{sys.executable} -m ingot ir {file} | head -1; echo status ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("graph @score") and "status 0" in done.stdout
    assert "Traceback" not in done.stderr
