"""The main job, from training to a fresh process, in its shortest form."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ingot as mx
from ingot import cli, demo
from ingot.runtime.profile import counters

ROOT = Path(__file__).resolve().parent.parent


def test_split():
    train_images, train_labels, test_images, test_labels = demo.digits()
    assert (train_images.shape, test_images.shape) == ((1437, 64), (360, 64))
    assert train_images.dtype == np.float32 and test_labels.dtype == np.int32
    rows = {image.tobytes() for image in train_images}
    assert sum(image.tobytes() in rows for image in test_images) < 5, "the test images must be unseen"
    assert all(np.array_equal(a, b) for a, b in zip(demo.digits(), demo.digits(), strict=True))
    assert not np.array_equal(demo.digits(1)[1], train_labels)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`(path of the file, output)` of a short run."""
    path = tmp_path_factory.mktemp("demo") / "d.ingot"
    command = [sys.executable, "-m", "ingot", "demo", "--output", str(path), "--epochs", "12"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    return str(path), done.stdout


def test_demo_reaches_95_percent_with_native_kernels_alone(trained):
    _, output = trained
    accuracy = re.search(r"^test accuracy: (\d+\.\d) %$", output, re.MULTILINE)
    assert accuracy and float(accuracy[1]) >= 95, output
    assert "epoch  12/12" in output
    counts = re.findall(r"(\d+) native kernels?, (\d+) host calls?", output)
    assert len(counts) == 2, "one for the training step, one for the classifier"
    assert all(int(native) > 0 and int(host) == 0 for native, host in counts), output


def test_file_serves_any_batch_and_compiles_once(trained):
    path, _ = trained
    function = mx.import_function(path)
    images = demo.digits()[2]
    whole = np.array(function(mx.array(images))[0])
    np.testing.assert_allclose(whole.sum(-1), 1, atol=1e-5)
    before = counters.as_dict()
    for size in (0, 1, 2, 17, 256, 1000):
        scores = np.array(function(mx.array(np.resize(images, (size, 64))))[0])
        np.testing.assert_allclose(scores, np.resize(whole, (size, 10)), atol=1e-5)
    after = counters.as_dict()
    assert after["kernels_compiled"] == before["kernels_compiled"]
    assert after["drivers_compiled"] == before["drivers_compiled"]


def test_second_process_on_a_warm_cache_compiles_nothing(trained):
    path, _ = trained
    code = (
        "import json, sys; from ingot import demo; from ingot.runtime.profile import counters\n"
        f"result = demo.classify({path!r}, 0)\n"
        "print(json.dumps([result['accuracy'], 'llvmlite' in sys.modules, counters.as_dict()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    accuracy, llvm_loaded, counts = json.loads(done.stdout)
    assert accuracy >= 0.95 and not llvm_loaded
    assert counts["kernels_compiled"] == counts["drivers_compiled"] == counts["programs_built"] == 0


def test_demo_as_json(tmp_path):
    words = ["demo", "--output", str(tmp_path / "d.ingot"), "--epochs", "2", "--json"]
    command = [sys.executable, "-m", "ingot", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    result = json.loads(done.stdout)
    assert result["fresh_process"]["accuracy"] > 0.5
    assert list(result["seconds"]) == ["read", "train", "export", "classify"]
    assert all(row["kind"] == "native" for row in result["training_step"])
    assert "epoch   2/2" in done.stderr


def test_demo_says_when_it_cannot_write(tmp_path, capsys):
    assert cli.main(["demo", "--epochs", "1", "--output", str(tmp_path / "missing" / "d.ingot")]) == 1
    assert capsys.readouterr().err.startswith("ingot demo: ")
