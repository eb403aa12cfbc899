"""How products of matrices are cut: the register tile, blocks, and the pieces of the parallel loop."""

from __future__ import annotations

from ingot.lowering.kernels.contraction import COLUMNS, ROWS, Plan
from ingot.lowering.llvm.target import Target
from ingot.tracer.dims import Extent
from ingot.tracer.record import record

PIECE = 1 << 20
"""Products of a piece, at least, where there are enough: some 20 microseconds."""
PIECES = 32
"""Pieces to aim at: a few for each thread of a processor."""
ROW_BLOCK = 512
"""Most rows of a piece, with wide vectors; half of it with others."""
UNKNOWN = 512
"""What an extent that is not known is taken for when pieces are sized."""


@record
class Blocking:
    """Sizes, functions of shape and target alone.

    lanes: of a vector. width, height: of the register tile, in vectors and in rows. depth: products added to
    one accumulator before it joins the sum (KC), which bounds the rounding error. rows: of a piece (MC)."""

    lanes: int
    width: int
    height: int
    depth: int
    rows: int

    @property
    def columns(self) -> int:
        """Columns of a panel (NR), and of a piece."""
        return self.lanes * self.width


def tile_shape(target: Target, dtype: str, rows: Extent, columns: Extent) -> tuple[int, int, int]:
    """Lanes, width and height of the register tile: about 24 or 12 accumulators, few loads for each
    product."""
    lanes = target.lanes(dtype)
    many = target.registers >= 32
    width = min(4 if many else 2, max(-(-known(columns) // lanes), 1))
    height = ({4: 6, 3: 8, 2: 12, 1: 16} if many else {2: 6, 1: 8})[width]
    return lanes, width, even_height(height, rows)


def even_height(height: int, rows: Extent) -> int:
    """At most `height` rows, and not much less: so many that none are left over, where there is such a
    number. Then one tile is all the code that there is."""
    if not isinstance(rows, int):
        return height
    most = min(height, max(rows, 1))
    return next((h for h in range(most, 2 * height // 3 - 1, -1) if rows % h == 0), most)


def blocking(plan: Plan, target: Target) -> Blocking:
    """The blocking of a plan.

    A block of rows, 512 x 512, fills much of a large second-level cache; half of that elsewhere. Blocks of
    rows are made as large as leaves enough pieces, since each copies its panel of columns."""
    m, n = (plan.extent(plan.last(role)) for role in (ROWS, COLUMNS))
    k = plan.steps
    lanes, width, height = tile_shape(target, plan.compute_dtype, m, n)
    most = deep = ROW_BLOCK if target.bits == 512 else ROW_BLOCK // 2
    depth = deep
    if isinstance(k, int):
        depth = max(1, -(-k // max(1, round(k / deep))))
    rows = most // 4
    if isinstance(m, int):
        across = -(-known(n) // (lanes * width))
        for axis in plan.outer_axes():
            across *= max(known(plan.extents[axis], 1), 1)
        worth = m * lanes * width * known(k) // PIECE
        blocks = max(-(-m // most), min(-(-PIECES // max(across, 1)), worth), 1)
        rows = -(-m // blocks)
    return Blocking(lanes, width, height, depth, max(-(-rows // height), 1) * height)


def known(extent: Extent, otherwise: int = UNKNOWN) -> int:
    """An extent, or what stands for one that is not known."""
    return extent if isinstance(extent, int) else otherwise
