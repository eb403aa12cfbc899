"""The primitives of the IR, one module per family. Importing the package declares all of them."""

from ingot.tracer.primitives import (
    contract,
    control,
    cumulative,
    custom,
    elementwise,
    fft,
    index,
    linalg,
    random_bits,
    reduce,
    scan,
    shape,
    sort,
)

__all__ = [
    "contract", "control", "cumulative", "custom", "elementwise", "fft", "index", "linalg", "random_bits",
    "reduce", "scan", "shape", "sort",
]  # fmt: skip
