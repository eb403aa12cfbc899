"""The README's code runs, and does what its comments say."""

import contextlib
import io
import re
from pathlib import Path

import ingot as mx

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_first_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(BLOCKS[0], {})
    lines = printed.getvalue().splitlines()
    assert lines[0] == "array([1, 1, 1, 1], dtype=float32)"
    assert lines[-1] == "(7, 1000)"
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 15


def test_training_example():
    scope = {"mx": mx}
    exec(next(block for block in BLOCKS if "optimizer" in block), scope)
    mx.random.seed(0)
    x, y = mx.random.normal((32, 64)), mx.arange(32) % 10
    losses = [scope["step"](x, y).item() for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert scope["step"].traces == 1


def test_links_lead_somewhere():
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "architecture.md").read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists() or (ROOT / "docs" / target).exists(), target
