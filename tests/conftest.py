"""Options and fixtures shared by all tests."""

from __future__ import annotations

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
