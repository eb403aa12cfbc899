"""Samples of the parts of complex numbers; test_complex.py has their derivatives."""

from __future__ import annotations

import numpy as np
from primitive_samples import sample

from ingot.tracer.primitives import elementwise as e

_Z = np.array([[3 + 4j, -1.5 + 0.25j, 0], [1e30 + 1e30j, -2j, -0.5]], np.complex64)

sample(e.Imag(), [_Z], [[4, 0.25, 0], [1e30, -2, 0]])
sample(e.Conjugate(), [_Z], [[3 - 4j, -1.5 - 0.25j, 0], [1e30 - 1e30j, 2j, -0.5]])
sample(e.Modulus(), [_Z], lambda z: [[abs(complex(x)) for x in row] for row in z])
sample(e.Modulus(), [_Z[0, 0]], abs(3 + 4j), name="scalar")
sample(e.Conjugate(), [np.zeros((0, 2), np.complex64)], np.zeros((0, 2)), name="empty")
