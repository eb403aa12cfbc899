"""The rows of the benchmark, by name."""

from __future__ import annotations

from bench.row import Row
from bench.rows import dispatch, encoder, maps, matmuls, mlp, pairwise, reductions, row_kernels

_MODULES = (dispatch, maps, row_kernels, reductions, matmuls, mlp, encoder, pairwise)
ROWS: dict[str, Row] = {row.name: row for module in _MODULES for row in module.ROWS}


def select(names: str) -> list[Row]:
    """Rows by comma-separated names, all when empty. Raises ValueError for an unknown name."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in ROWS]
    if unknown:
        raise ValueError(f"[bench] no row called {', '.join(unknown)}: expected some of {', '.join(ROWS)}.")
    return [ROWS[name] for name in wanted] if wanted else list(ROWS.values())
