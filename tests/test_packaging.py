"""The wheel holds every package and data file, under one top-level name."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ["tracer", "lowering", "runtime", "format"]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def package_folders() -> dict[str, Path]:
    """Import name → folder of every package of the repository."""
    found = {}
    rooms = {f"ingot.{room}": ROOT / room for room in ROOMS}
    for base, folder in {"ingot": ROOT / "ingot", **rooms}.items():
        for init in folder.rglob("__init__.py"):
            parts = init.parent.relative_to(folder).parts
            if base == "ingot" and parts and parts[0] in ROOMS:
                continue
            found[".".join((base, *parts))] = init.parent
    return found


def test_every_package_is_listed():
    assert sorted(SETTINGS["tool"]["setuptools"]["packages"]) == sorted(package_folders())


def test_every_folder_with_sources_is_a_package():
    folders = {path.parent for folder in package_folders().values() for path in folder.rglob("*.py")}
    assert [f for f in folders if not (f / "__init__.py").exists()] == []


def test_rooms_are_linked_into_the_package():
    for room in ROOMS:
        link = ROOT / "ingot" / room
        assert link.is_symlink() and link.resolve() == ROOT / room


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    setuptools = pytest.importorskip("setuptools", "77")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    junk = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "docs")
    shutil.copytree(ROOT, source, symlinks=True, ignore=junk)
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=source)
    assert done.returncode == 0, f"setuptools {setuptools.__version__}:\n{done.stderr}"
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as archive:
        yield archive


def test_wheel_has_one_top_level_name(wheel):
    metadata = next(n for n in wheel.namelist() if n.endswith("top_level.txt"))
    assert wheel.read(metadata).decode().split() == ["ingot"]
    assert {name.partition("/")[0].partition("-")[0] for name in wheel.namelist()} == {"ingot"}


def test_wheel_has_every_source_and_data_file(wheel):
    expected = {
        "ingot/py.typed",
        "ingot/data/digits.csv.gz",
        "ingot/data/README.md",
        "ingot/format/SPEC.md",
    }
    for name, folder in package_folders().items():
        expected |= {f"{name.replace('.', '/')}/{path.name}" for path in folder.glob("*.py")}
    assert sorted(expected - set(wheel.namelist())) == []


def test_wheel_metadata(wheel):
    names = {Path(name).name: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "ingot = ingot.cli:main" in wheel.read(names["entry_points.txt"]).decode()
    metadata = wheel.read(names["METADATA"]).decode()
    assert "Requires-Python: >=3.11" in metadata and "License-Expression: MIT" in metadata
    required = [line.split()[1] for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    always = {name.partition(">")[0] for name in required[: len(SETTINGS["project"]["dependencies"])]}
    assert always == {"llvmlite", "ml_dtypes", "msgpack", "numpy"}
    assert "LICENSE" in names


def test_readme_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    setting = "def loss(w, x):\n    return mx.sum(mx.tanh(w * x))\n"
    names: dict = {}
    for code in (blocks[0], setting, *blocks[1:]):
        exec(compile(code, "README.md", "exec"), names)
    assert "(7, 1000)" in capsys.readouterr().out
    mx = names["mx"]
    per_example = names["per_example"](mx.ones((3,)), mx.zeros((5, 3)))
    assert per_example.shape == (5, 3)
    labels = mx.array([1, 2], mx.int32)
    first, second = (names["step"](mx.ones((2, 64)), labels).item() for _ in range(2))
    assert second < first


def test_demo_data_is_what_its_readme_says():
    folder = ROOT / "ingot" / "data"
    content = (folder / "digits.csv.gz").read_bytes()
    text = (folder / "README.md").read_text()
    assert hashlib.sha256(content).hexdigest() in text
    assert "CC BY 4.0" in text
    rows = [line.split(",") for line in gzip.decompress(content).decode().split()]
    assert len(rows) == 1797
    assert all(len(row) == 65 and 0 <= int(row[64]) <= 9 for row in rows)
    assert {float(pixel) for row in rows for pixel in row[:64]} == set(map(float, range(17)))
