"""Options and fixtures shared by all tests."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="rewrite the expectations in tests/filetests from what comes out"
    )


@pytest.fixture
def bless(request: pytest.FixtureRequest) -> bool:
    """Whether file tests rewrite their expectations."""
    return request.config.getoption("--bless")


@pytest.fixture(autouse=True, scope="session")
def _private_kernel_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep the user's kernel cache out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INGOT_CACHE_DIR", str(tmp_path_factory.mktemp("kernel-cache")))
        yield


# -- what random graphs were made of, over all workers -------------------------------------------------------

ENOUGH = 20
"""How often every native primitive and every dtype must occur in a whole run of `test_random_graphs`."""
WHOLE_RUN = 2000


@pytest.fixture
def fuzz_counts(request: pytest.FixtureRequest) -> Counter[str]:
    """`graphs`, `primitive add`, `dtype float32` and so on, of the whole session."""
    return request.config.stash.setdefault(_COUNTS, Counter())


_COUNTS = pytest.StashKey[Counter[str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """A worker of pytest-xdist is done: take over what it counted."""
    del error
    found = getattr(node, "workeroutput", {}).get("fuzz_counts", {})
    node.config.stash.setdefault(_COUNTS, Counter()).update(found)  # type: ignore[attr-defined]


def pytest_sessionfinish(session: pytest.Session) -> None:
    counts = session.config.stash.get(_COUNTS, Counter())
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["fuzz_counts"] = dict(counts)
    elif _rare(counts) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash.get(_COUNTS, Counter())
    if not counts:
        return
    terminalreporter.section(f"{counts['graphs']} random graphs, native code against the reference")
    for kind in ("primitive", "dtype"):
        names = sorted(name for name in counts if name.startswith(kind))
        terminalreporter.line(f"{kind}s: " + ", ".join(f"{n.split()[1]} {counts[n]}" for n in names))
    if _rare(counts):
        terminalreporter.line(f"ERROR: fewer than {ENOUGH} of {', '.join(_rare(counts))}")


def _rare(counts: Counter[str]) -> list[str]:
    """Primitives and dtypes that a whole run had too seldom."""
    if counts["graphs"] < WHOLE_RUN:
        return []
    sys.path.insert(0, str(Path(__file__).parent))
    from fuzz_graphs import ELSEWHERE

    from ingot.lowering.rules import is_native
    from ingot.tracer import dtypes, primitives  # noqa: F401  (registers the primitives)
    from ingot.tracer.primitive import registry

    names = [name for name, cls in sorted(registry.items()) if is_native(cls) and name not in ELSEWHERE]
    wanted = [*(f"primitive {name}" for name in names), *(f"dtype {d.name}" for d in dtypes.ALL)]
    return [name for name in wanted if counts[name] < ENOUGH]
