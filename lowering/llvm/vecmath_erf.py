"""The error function and its inverse."""

from __future__ import annotations

import math

from ingot.lowering.llvm.vecmath_exp import exp
from ingot.lowering.llvm.vecmath_format import (
    Format,
    at_most,
    hexes,
    magnitude_of,
    number,
    polynomial,
    with_sign,
)
from ingot.lowering.llvm.vecmath_log import log
from ingot.lowering.loop import Expr, Unary, compare, fma, select

# erf(x) / x - 1 in powers of x**2 below 1
_SMALL = {
    "single": (
        0.12837916612625122,
        -0.3761262595653534,
        0.1128358542919159,
        -0.026853810995817184,
        0.005188327748328447,
        -0.0008010193705558777,
        7.853860734030604e-05,
    ),
    "double": hexes(
        "0x1.06eba8214db68p-3 -0x1.812746b0379bdp-2 0x1.ce2f21a040d1cp-4 -0x1.b82ce311faa70p-6 "
        "0x1.565bccf92d30cp-8 -0x1.c02db03e16816p-11 0x1.f9a2baadd9a50p-14 -0x1.f4ca4dab6fad8p-17 "
        "0x1.b97fd5ae0bba6p-20 -0x1.5c072f7f8ee5bp-23 0x1.d71b3a3aa2159p-27 -0x1.abae9fcfa4823p-31"
    ),
}
# -log(1 - erf(x)) from there to where erf rounds to 1
_LARGE = {
    "single": (
        -0.00018844367878045887,
        1.1295801401138306,
        0.6332166194915771,
        0.10842186212539673,
        -0.025210188701748848,
        0.004205228760838509,
        -0.0004414613649714738,
        2.169665640394669e-05,
    ),
    "double": hexes(
        "0x1.0e24c3eb43ac3p-21 0x1.20dd1fc5f0443p+0 0x1.45f627d37c04ap-1 0x1.a4ac51687b954p-4 "
        "-0x1.37223e74b9fcep-6 -0x1.aeb1d81ce18f2p-12 0x1.f64909bcda39fp-10 -0x1.9417b55c4e041p-11 "
        "0x1.1b5c60075197cp-13 0x1.5371eaf75100fp-16 -0x1.7eaaa8cf9d3cbp-16 0x1.22acee0d898c9p-17 "
        "-0x1.1e80b8b1dae7bp-19 0x1.909e8c212b9e2p-22 -0x1.8e8a62c28bc02p-25 0x1.0e308839fb913p-28 "
        "-0x1.c161112085577p-33 0x1.5a8e33479626ap-38"
    ),
}
_ONE = {"single": 4.0, "double": 6.0}

# erfinv(x) / x, by w = -log(1 - x**2): up to the first bound in powers of w - bound / 2, then up to each
# other bound of sqrt(w) in powers of sqrt(w) - center
_NEAR_BOUND = {"single": 5.0, "double": 6.25}
_NEAR = {
    "single": (
        1.5014094114303589,
        0.24664027988910675,
        -0.004177386872470379,
        -0.0012527417857199907,
        0.00021834451763425022,
        -4.963374067301629e-06,
        -3.4627303193701664e-06,
        4.6617441284979577e-07,
        2.3234937529537092e-08,
        -8.791193550905518e-09,
    ),
    "double": hexes(
        "0x1.a755e7c99ae86p+0 0x1.ebd80d9b13df7p-3 -0x1.8b6c33114ee3bp-8 -0x1.8457694834122p-11 "
        "0x1.879c2a20d6a44p-13 -0x1.d1d1f7cb075f1p-17 -0x1.6e8a53ee2ba77p-20 0x1.c6b4f8af1c7a9p-22 "
        "-0x1.f36ce542f0820p-26 -0x1.1a9eb6f09e67ep-28 0x1.20f4eb288ff01p-30 -0x1.dc3dd34e54f8ap-35 "
        "-0x1.c8960c8697980p-37 0x1.7230845997df5p-39 -0x1.6d8ec20461828p-44 -0x1.683234816a2c0p-45 "
        "0x1.db32cc6227bb6p-48 -0x1.8b586884a8429p-55 -0x1.2bd9ac8ac477ap-53 0x1.22b6d51f26c16p-56 "
        "0x1.51c630a78ef4cp-60 -0x1.a61d6d7a676a8p-62 -0x1.310af254a6e6fp-70 0x1.fe1e323b21e44p-69"
    ),
}
_FAR: dict[str, list[tuple[float, tuple[float, ...]]]] = {
    "single": [
        (
            3.0,
            (
                2.832976818084717,
                1.001675009727478,
                0.0094454949721694,
                -0.007638191804289818,
                0.005685048643499613,
                -0.0035930403973907232,
                0.0014903994742780924,
                -6.507910438813269e-05,
                -0.00031399319414049387,
                0.00012131129915360361,
            ),
        )
    ],
    "double": [
        (
            3.25,
            hexes(
                "0x1.8abcc380d5a48p+1 0x1.0158a6d641d56p+0 0x1.5ffcfe5b71552p-8 -0x1.ebadabba197fep-9 "
                "0x1.468eeca7304d7p-9 -0x1.ba9240d2df280p-10 0x1.f3cc551bfea6cp-11 -0x1.7448be0895b60p-12 "
                "0x1.932d7b9a43fccp-16 0x1.1e6ae28fc0fd8p-14 -0x1.8cf0cb55dc709p-15 0x1.a23c49065592fp-17 "
                "0x1.88b19f54881d5p-19 -0x1.0b5bbc8a7b99bp-18 0x1.9246caf0c219fp-20 -0x1.05d9b70950f8ap-25 "
                "-0x1.233d4df07d7b1p-22 0x1.2012c8dceac2ap-23 0x1.687db9d710ae1p-31 -0x1.1774d7b61f139p-26"
            ),
        ),
        (
            5.0,
            hexes(
                "0x1.3664ddd1ad7fbp+2 0x1.02a30d1fba110p+0 -0x1.22ea5df0c5459p-13 -0x1.c2f36aa335661p-13 "
                "0x1.3ebf4ec54889bp-14 -0x1.4a348f678f111p-16 0x1.2fbd1f7a9a61ep-18 -0x1.0a9092dd497e2p-20 "
                "0x1.ebcdac24bfafap-23 -0x1.22219ec05de9cp-24 0x1.f46ff40660834p-26 -0x1.0635b428a5c30p-26 "
                "0x1.0669819132460p-27 -0x1.dc2c6067f5905p-29 0x1.9ae05602c1175p-30 -0x1.e478983c6e641p-32 "
                "-0x1.a5951f1becb07p-36 0x1.7ddf5540f2689p-35"
            ),
        ),
    ],
}
_FAR_BOUND = 4.0  # of sqrt(w), between the two polynomials of float64


def erf(x: Expr, f: Format) -> Expr:
    """x P(x**2) near 0, 1 - exp(-g(|x|)) from 1 on."""
    z = x * x
    small = fma(x, polynomial(z, _SMALL[f.name]), x)
    size = at_most(magnitude_of(x, f), _ONE[f.name])
    large = 1.0 - exp(-polynomial(size, _LARGE[f.name]), f)
    return select(compare("lt", size, 1.0), small, with_sign(large, x, f))


def erfinv(x: Expr, f: Format) -> Expr:
    """x P(w) with w = -log(1 - x**2), after Giles, "Approximating the erfinv function" (2011)."""
    size = magnitude_of(x, f)
    w = -log((1.0 - size) * (1.0 + size), f)
    root = Unary("sqrt", w)
    p = polynomial(w - _NEAR_BOUND[f.name] / 2, _NEAR[f.name])
    center, coefficients = _FAR[f.name][0]
    far = polynomial(root - center, coefficients)
    if f.name == "double":
        center, coefficients = _FAR["double"][1]
        far = select(compare("lt", root, _FAR_BOUND), far, polynomial(root - center, coefficients))
    y = x * select(compare("lt", w, _NEAR_BOUND[f.name]), p, far)
    end = with_sign(number(math.inf, x.type), x, f)
    return select(compare("eq", size, 1.0), end, y)
