"""Lazy graphs through native code. `INGOT_EAGER=compile pytest` runs the whole suite in this way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ingot as mx
from ingot.runtime.profile import counters
from ingot.tracer.evaluate import evaluator

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def compiled_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator(), "_tier", "compile")


@pytest.mark.skipif(os.environ.get("INGOT_EAGER") == "compile", reason="the suite itself runs so")
@pytest.mark.parametrize("name", ["array", "indexing", "math", "transforms"])
def test_part_of_the_suite(name: str) -> None:
    """Files that say most about arrays. Comparisons with MLX and random indices, which are long, only in the
    whole run."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-k", "not mlx and not reading and not writing", f"tests/test_{name}.py"],
        cwd=ROOT,
        env={**os.environ, "INGOT_EAGER": "compile"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.usefixtures("compiled_tier")
def test_what_is_held_on_the_way_is_computed_once() -> None:
    x = mx.array([1.0, 2.0, 4.0])
    held = mx.sqrt(x) + 1
    y = (held * held).sum()
    before = counters.as_dict()["kernels_compiled"]
    assert y.item() == pytest.approx(4 + (2**0.5 + 1) ** 2 + 9)
    assert held._value.storage is not None and held._value.node is None
    assert counters.as_dict()["kernels_compiled"] > before
    np.testing.assert_array_equal(np.array(held), np.sqrt(np.float32([1, 2, 4])) + 1)


@pytest.mark.usefixtures("compiled_tier")
def test_one_of_several_results() -> None:
    """The others of its node are known with it, so that nobody asks a node that was forgotten."""
    f = mx.compile(lambda x: (x + 1, x * 2, x - 3))
    x = mx.array([1.0, 2.0]) * 2
    a, b, c = f(x)
    assert b.tolist() == [4, 8]
    assert (a + c).tolist() == [2, 6] and a.tolist() == [3, 5]


@pytest.mark.usefixtures("compiled_tier")
def test_compiled_functions_of_any_size_in_a_lazy_graph() -> None:
    mean = mx.compile(lambda x: x.sum() / x.shape[0], shapeless=True)
    for n in (3, 7):
        assert mean(mx.ones((n,)) * 2).item() == 2
