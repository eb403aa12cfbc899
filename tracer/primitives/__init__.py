"""The primitives of the IR, one module per family. Importing the package declares all of them."""

import importlib

for _family in ("elementwise", "shape", "reduce", "index", "contract", "random_bits", "control"):
    try:
        importlib.import_module(f"{__name__}.{_family}")
    except ModuleNotFoundError as _error:
        if _error.name != f"{__name__}.{_family}":
            raise
