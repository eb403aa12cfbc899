"""Contractions have a kernel of their own: `lowering.kernels.dot`."""

from __future__ import annotations

from ingot.lowering.rules.registry import nests
from ingot.tracer.primitives.contract import DotGeneral

nests(DotGeneral, "dot", lambda p, avals: avals[0].dtype.kind in "uif")
