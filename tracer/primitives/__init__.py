"""The primitives of the IR, one module per family. Importing the package declares all of them."""

from ingot.tracer.primitives import (
    contract,
    control,
    custom,
    elementwise,
    fft,
    index,
    linalg,
    random_bits,
    reduce,
    scan,
    shape,
)

__all__ = [
    "contract", "control", "custom", "elementwise", "fft", "index", "linalg", "random_bits", "reduce", "scan",
    "shape",
]  # fmt: skip
