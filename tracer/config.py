"""Every environment variable Ingot reads, declared once."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """One environment variable: its default and what it does. `choices` restricts the values."""

    default: str
    doc: str
    choices: tuple[str, ...] = ()


VARIABLES: dict[str, Variable] = {
    "INGOT_EAGER": Variable(
        "interpret",
        "how lazy graphs outside `compile` run: on the NumPy interpreter or compiled",
        ("interpret", "compile"),
    ),
    "INGOT_DISPATCH": Variable(
        "auto",
        "how calls of compiled functions reach their code: by native code when there have been enough of "
        "them to pay for its start, by native code from the second call on, or by Python",
        ("auto", "native", "python"),
    ),
    "INGOT_CACHE_DIR": Variable("", "folder of the kernel cache; empty: ~/.cache/ingot, `off`: none on disk"),
    "INGOT_CACHE_SIZE": Variable("268435456", "bound of the kernel cache on disk, in bytes"),
    "INGOT_PRINT_AFTER": Variable("", "print the IR after these passes (comma separated, or `all`)"),
    "INGOT_TIMINGS": Variable("0", "1: print the time each lowering pass took", ("0", "1")),
    "INGOT_VERIFY": Variable("0", "1: verify the IR between all passes", ("0", "1")),
    "INGOT_TARGET": Variable("", "name of the target to compile for; empty means this machine"),
    "INGOT_NUM_THREADS": Variable("", "threads that run kernels, 1 to 256; empty: one for each core"),
    "INGOT_EXPLAIN": Variable("", "`recompiles`: say why a compiled function was traced again"),
}


def get(name: str) -> str:
    """Value of the environment variable `name`; raises ValueError when it is not one of its choices."""
    variable = VARIABLES[name]
    value = os.environ.get(name, variable.default)
    if variable.choices and value not in variable.choices:
        raise ValueError(f"[config] {name}={value!r}: expected one of {', '.join(variable.choices)}.")
    return value


def flag(name: str) -> bool:
    """True when the variable `name` is set to 1."""
    return get(name) == "1"
