"""The exported classifier with a dynamic batch: one program for all sizes, also from a warm cache."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import ingot as mx
from ingot import nn

SIZES = (0, 1, 2, 17, 256, 1000)

CLIENT = """
import json, sys
import numpy as np
import ingot as mx

function = mx.import_function(sys.argv[2])
rng = np.random.default_rng(3)
compiled, answers = [], []
for n in json.loads(sys.argv[1]):
    x = rng.uniform(0, 16, (n, 64)).astype(np.float32)
    (labels,) = function(mx.array(x))
    answers.append(np.array(labels).tolist())
    from ingot.runtime.profile import counters
    compiled.append(counters.kernels_compiled + counters.drivers_compiled)
print(json.dumps({"answers": answers, "compiled": compiled, "llvm": "llvmlite" in sys.modules,
                  "built": counters.programs_built}))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    mx.random.seed(5)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    mx.eval(model.parameters())

    def classify(images):
        return mx.argmax(model(images / 16.0), axis=-1)

    mx.export_function(
        str(folder / "digits.ingot"),
        classify,
        mx.zeros((4, 64)),
        dynamic_shapes={"images": {0: mx.Dim("batch")}},
    )
    weights = [(np.array(layer.weight), np.array(layer.bias)) for layer in model.layers if "weight" in layer]
    return folder, weights


def run(folder, cache):
    env = {**os.environ, "INGOT_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", CLIENT, json.dumps(SIZES), str(folder / "digits.ingot")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_program_for_all_sizes_then_a_warm_cache(exported, tmp_path):
    folder, weights = exported
    rng = np.random.default_rng(3)
    expected = []
    for n in SIZES:
        x = rng.uniform(0, 16, (n, 64)).astype(np.float32).astype(np.float64) / 16
        for i, (w, b) in enumerate(weights):
            x = x @ w.T.astype(np.float64) + b
            x = np.maximum(x, 0) if i < 2 else x
        top = np.sort(x, axis=1)
        # two logits nearer than the error of float32 may come out in either order
        expected.append((x.argmax(axis=1), top[:, -1] - top[:, -2] > 1e-5))

    cold = run(folder, tmp_path / "cache")
    assert cold["compiled"][0] > 0 and len(set(cold["compiled"])) == 1, (
        "something was compiled after the first call"
    )
    warm = run(folder, tmp_path / "cache")
    assert warm["compiled"] == [0] * len(SIZES) and warm["built"] == 0
    assert not warm["llvm"], "a warm cache must not need LLVM"
    for (labels, clear), got, again in zip(expected, cold["answers"], warm["answers"], strict=True):
        np.testing.assert_array_equal(np.array(got, np.int64)[clear], labels[clear])
        assert got == again


def test_sizes_outside_the_range_are_refused(exported):
    folder, _ = exported
    function = mx.import_function(str(folder / "digits.ingot"))
    with pytest.raises(ValueError, match="f32"):
        function(mx.zeros((3, 65)))
    with pytest.raises(ValueError):
        function(mx.zeros((3, 64), dtype=mx.int32))
