"""Regular expressions that are compiled when they are first used: compiling those of a grammar takes longer
than printing a graph, and a process that only prints needs none of them."""

from __future__ import annotations

import re
from typing import Any


class Pattern:
    """As `re.compile(text, flags)`, whose methods it has."""

    def __init__(self, text: str, flags: int = 0) -> None:
        self.text, self.flags = text, flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self.text, self.flags), name)
        setattr(self, name, found)  # from now on an attribute like any other
        return found
