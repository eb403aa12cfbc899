"""Error types of Ingot. Each is also the built-in error a NumPy or MLX user would expect to catch."""


class FormatError(RuntimeError):
    """A file is damaged, truncated, hostile or of an unknown version."""


class GraphError(ValueError):
    """A graph breaks an invariant of the IR, or its text does not parse."""


class ShapeError(ValueError):
    """Shapes of operands do not fit together."""


class AxisError(ValueError, IndexError):
    """An axis is out of range for the array's rank."""


class TracerError(ValueError):
    """A value was asked for where only shapes and dtypes are known (inside compile, vmap or export)."""


class GuardError(ValueError):
    """A call breaks an assumption that a shapeless trace made."""
