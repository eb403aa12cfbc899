"""Which room may import which, and what `import ingot` costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ["tracer", "lowering", "runtime", "format"]  # each may import itself and those to its left
FORBIDDEN_EVERYWHERE = {"jax", "mlx", "sklearn", "scipy", "tensorflow"}
LATE_ONLY = {"gguf", "llvmlite", "ml_dtypes", "onnx", "rich", "torch"}  # imported inside functions


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def face() -> list[Path]:
    inside_rooms = {ROOT / "ingot" / room for room in ROOMS}
    return [p for p in (ROOT / "ingot").rglob("*.py") if not inside_rooms.intersection(p.parents)]


def imported_modules(path: Path, top_level_only: bool = False) -> list[tuple[int, str]]:
    """`(line, module)` of each import statement in a file."""
    tree = ast.parse(path.read_text())
    statements = _top_level(tree) if top_level_only else ast.walk(tree)
    found = []
    for node in statements:
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found.append((node.lineno, node.module or ""))
            if node.module == "ingot":
                found[-1:] = [(node.lineno, f"ingot.{alias.name}") for alias in node.names]
    return found


def _top_level(tree: ast.Module):
    """Statements that run when the module is imported: not those in functions or under `if TYPE_CHECKING`."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        pending.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_to_the_left(room):
    allowed = ROOMS[: ROOMS.index(room) + 1]
    assert sources(room), f"no sources in {room}/"
    wrong = []
    for path in sources(room):
        for line, module in imported_modules(path):
            top, _, below = module.partition(".")
            if top in ROOMS or (top == "ingot" and below.partition(".")[0] not in allowed):
                # The bare `ingot` is the face, which stands on all rooms.
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {module}")
    assert not wrong, f"{room} may import {', '.join(allowed)} only:\n" + "\n".join(wrong)


def test_heavy_and_foreign_modules():
    wrong = []
    for path in [*face(), *(p for room in ROOMS for p in sources(room))]:
        for line, module in imported_modules(path):
            if module.partition(".")[0] in FORBIDDEN_EVERYWHERE:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {module}")
        for line, module in imported_modules(path, top_level_only=True):
            if module.partition(".")[0] in LATE_ONLY:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {module} at the top level")
    assert not wrong, "\n".join(wrong)


def run_fresh(code: str, byte_code: str | None = None) -> str:
    """What a new interpreter prints; it keeps byte code in the folder `byte_code`."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": byte_code} if byte_code else dict(os.environ)
    if byte_code:
        env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_only_what_recording_needs():
    heavy = ["llvmlite", "msgpack", "ml_dtypes", "safetensors", "torch", "onnx", "rich"]
    assert run_fresh(f"import ingot, sys; print([m for m in {heavy} if m in sys.modules])").strip() == "[]"


def test_import_takes_at_most_30_ms_more_than_numpy(tmp_path):
    code = (
        "import time, numpy; start = time.thread_time()\n"  # not wall-clock: other tests run beside this one
        "import ingot; print(time.thread_time() - start)"
    )
    run_fresh(code, str(tmp_path))  # writes the byte code
    fastest = min(float(run_fresh(code, str(tmp_path))) for _ in range(7))
    slack = 1.5  # caches and clock rates are shared with other tests
    assert fastest < slack * 0.030, f"import ingot takes {fastest * 1e3:.0f} ms more than NumPy"
