"""The main job, from training to a fresh process, in its shortest form."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import ingot as mx
from ingot import demo

ROOT = Path(__file__).resolve().parent.parent


def test_split():
    train_images, train_labels, test_images, test_labels = demo.digits()
    assert (train_images.shape, test_images.shape) == ((1437, 64), (360, 64))
    assert train_images.dtype == np.float32 and test_labels.dtype == np.int32
    rows = {image.tobytes() for image in train_images}
    assert sum(image.tobytes() in rows for image in test_images) < 5, "the test images must be unseen"
    assert all(np.array_equal(a, b) for a, b in zip(demo.digits(), demo.digits(), strict=True))
    assert not np.array_equal(demo.digits(1)[1], train_labels)


def test_demo_reaches_95_percent_in_a_fresh_process(tmp_path):
    command = [sys.executable, "-m", "ingot", "demo", "--output", str(tmp_path / "d.ingot"), "--epochs", "12"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"^test accuracy: (\d+\.\d) %$", done.stdout, re.MULTILINE)
    assert accuracy and float(accuracy[1]) >= 95, done.stdout
    assert "epoch  12/12" in done.stdout
    kernels = re.search(r"(\d+) native kernels?, (\d+) host calls?", done.stdout)
    assert kernels and int(kernels[1]) > 0 and int(kernels[2]) == 0, done.stdout

    function = mx.import_function(str(tmp_path / "d.ingot"))
    images, labels = demo.digits()[2:]
    whole = np.array(function(mx.array(images))[0])
    np.testing.assert_allclose(whole.sum(-1), 1, atol=1e-5)
    for size in (0, 1, 2, 17, 256, 1000):
        batch = np.resize(images, (size, 64))
        expected = np.resize(whole, (size, 10))
        np.testing.assert_allclose(np.array(function(mx.array(batch))[0]), expected, atol=1e-5)
