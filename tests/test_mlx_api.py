"""The table of names in docs/mlx-compat.md against the real package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("mlx.core")

sys.path.insert(0, str(Path(__file__).parent))

import mlx_api  # noqa: E402

pytestmark = pytest.mark.peers


def test_the_page_is_current() -> None:
    text = mlx_api.PAGE.read_text()
    assert text == mlx_api.page(text, mlx_api.generated(mlx_api.tables())), (
        "docs/mlx-compat.md is out of date: python -m tests.mlx_api --write"
    )


def test_missing_and_differing_names_are_found() -> None:
    """The tool itself, on two modules that differ in every way it reports."""
    import mlx.core

    class Ours:
        @staticmethod
        def sort(a: object, axis: int = 0) -> None: ...
        @staticmethod
        def add(a: object, b: object, /) -> None:
            raise NotImplementedError

    class Theirs:
        sort = mlx.core.sort
        add = mlx.core.add
        exp = mlx.core.exp

    table = mlx_api._compare("t", Theirs, Ours, set())
    assert table.missing == ["add", "exp"]
    assert table.differing == [
        ("sort", "`axis` is 0.0 by default, not -1.0"),
        ("sort", "`stream` cannot be given by name"),
    ]
