"""Symbolic extents: what stands in a shape where the size is not known yet.

An *extent* is an `int` or a `Dim`. A `Dim` is a polynomial with integer coefficients over *atoms*; an atom is
a named symbol or `//`, `%`, `min`, `max` of extents. Expressions are kept in one normal form and interned, so
equal structure means the identical object, and results that are constant are plain `int`.

    extent     := int | symbol | atom | polynomial
    symbol     := Dim(name, min, max, multiple_of)       its values: multiples of multiple_of in [min, max]
    atom       := extent // extent | extent % extent | min(extent, ...) | max(extent, ...)
    polynomial := sum of  coefficient * (symbol | atom) * ...

A symbol with `multiple_of=m` is held as `m` times the atom `symbol // m` inside polynomials; divisibility
then falls out of the coefficients. `Dim.terms` shows polynomials with that undone.

Comparisons are decided from the ranges (`decide`). Python's operators ask the ambient `DimScope` when that
fails: it answers for the sample and records a `Guard`. `x // y` and `x % y` mean Python's (rounding down);
simplification assumes divisors are not zero.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Integral
from types import TracebackType
from typing import Any, TypeAlias, TypeGuard
from weakref import WeakValueDictionary

MAX_WEIGHT = 2_000
"""Largest expression, counted in coefficients, factors and operands."""
MAX_DEPTH = 24
"""Deepest nesting of `//`, `%`, `min` and `max`."""
MAX_OPERANDS = 32
"""Most operands of one `min` or `max`."""
MAX_COEFFICIENT_BITS = 512
"""Largest number in an expression, in bits."""
_TIGHTEN_WEIGHT = 64

Monomial: TypeAlias = "tuple[tuple[Dim, int], ...]"
Polynomial: TypeAlias = "tuple[tuple[Monomial, int], ...]"
Interval: TypeAlias = "tuple[int | float, int | float]"  # the only floats are -inf and inf

RELATIONS: dict[str, str] = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_NEGATED = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset(
    "min max inf nan true false none graph bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64 c64".split()
)  # words of the text form of graphs

_interned: WeakValueDictionary[tuple[object, ...], Dim] = WeakValueDictionary()
_interning = threading.Lock()


class Dim:
    """A symbolic extent; calling the class makes a named symbol.

    name: an ASCII identifier. min, max: the inclusive range, `max=None` is unbounded. multiple_of: every
    value is a multiple of it. Symbols of one name and range are the identical object. Raises ValueError for a
    range that is malformed or holds no value.

    `op` says what an expression is: "symbol" (then .name, .min, .max, .multiple_of exist), "//", "%", "min",
    "max" (then .operands exists), or "+" for a polynomial. `terms` serves all of them.
    """

    __slots__ = (
        "op", "name", "min", "max", "multiple_of", "operands", "poly", "weight", "depth",
        "_text", "_order", "_interval", "_symbols", "_terms", "__weakref__",
    )  # fmt: skip
    __array_ufunc__ = None  # NumPy scalars defer to our reflected operators

    op: str
    name: str
    min: int
    max: int | None
    multiple_of: int
    operands: tuple[Extent, ...]
    poly: Polynomial
    weight: int
    depth: int
    _text: str | None
    _order: str | None
    _interval: Interval | None
    _symbols: tuple[Dim, ...] | None
    _terms: tuple[tuple[int, Monomial], ...] | None

    def __new__(cls, name: str, min: int = 0, max: int | None = None, multiple_of: int = 1) -> Dim:
        return _symbol(name, min, max, multiple_of)

    @property
    def terms(self) -> tuple[tuple[int, Monomial], ...]:
        """The expression as a sum: (coefficient, ((atom, power), ...)) per term, highest degree first."""
        if self._terms is None:
            if self.op == "+":
                self._terms = tuple(_with_whole_symbols(mono, c) for mono, c in self.poly)
            else:
                self._terms = ((1, ((self, 1),)),)
        return self._terms

    # By identity, as interning allows: a hash of the structure could be made to collide (CPython's integers
    # do modulo 2**61 - 1), and containers would then compare two extents with `==`, which asks for decisions.
    __hash__ = object.__hash__

    def __str__(self) -> str:
        if self._text is None:
            self._text = _text_of(self)
        return self._text

    def __repr__(self) -> str:
        if self.op != "symbol":
            return f"<Dim {self}>"
        options = f", min={self.min}" if self.min else ""
        options += f", max={self.max}" if self.max is not None else ""
        options += f", multiple_of={self.multiple_of}" if self.multiple_of != 1 else ""
        return f"Dim({self.name!r}{options})"

    def __copy__(self) -> Dim:
        return self

    def __deepcopy__(self, memo: object) -> Dim:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self.op == "symbol":
            return (Dim, (self.name, self.min, self.max, self.multiple_of))
        if self.op == "+":
            return (_of_terms, (self.terms,))
        return (apply, (self.op, self.operands))

    # Arithmetic. Anything that is neither an integer nor a Dim is left to the other operand (an array, say).

    def __add__(self, other: object) -> Any:
        if isinstance(other, float):
            return _as_number(self) + other
        right = _operand(other)
        return NotImplemented if right is None else _add(self, right)

    __radd__ = __add__

    def __sub__(self, other: object) -> Any:
        if isinstance(other, float):
            return _as_number(self) - other
        right = _operand(other)
        return NotImplemented if right is None else _add(self, _multiply(right, -1))

    def __rsub__(self, other: object) -> Any:
        if isinstance(other, float):
            return other - _as_number(self)
        left = _operand(other)
        return NotImplemented if left is None else _add(left, _multiply(self, -1))

    def __mul__(self, other: object) -> Any:
        if isinstance(other, float):
            return _as_number(self) * other
        right = _operand(other)
        return NotImplemented if right is None else _multiply(self, right)

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> Any:
        right = _operand(other)
        return NotImplemented if right is None else _floordiv(self, right)

    def __rfloordiv__(self, other: object) -> Any:
        left = _operand(other)
        return NotImplemented if left is None else _floordiv(left, self)

    def __mod__(self, other: object) -> Any:
        right = _operand(other)
        return NotImplemented if right is None else _mod(self, right)

    def __rmod__(self, other: object) -> Any:
        left = _operand(other)
        return NotImplemented if left is None else _mod(left, self)

    def __divmod__(self, other: object) -> Any:
        right = _operand(other)
        return NotImplemented if right is None else (_floordiv(self, right), _mod(self, right))

    def __rdivmod__(self, other: object) -> Any:
        left = _operand(other)
        return NotImplemented if left is None else (_floordiv(left, self), _mod(left, self))

    def __neg__(self) -> Extent:
        return _multiply(self, -1)

    def __pos__(self) -> Dim:
        return self

    def __abs__(self) -> Extent:
        return maximum(self, _multiply(self, -1))

    def __pow__(self, power: object) -> Any:
        if isinstance(power, Integral) and 0 <= int(power) <= MAX_WEIGHT:
            return product([self] * int(power))
        return _as_number(self) ** power if isinstance(power, int | float) else NotImplemented

    # Results that are no extents: Python gets the size of this trace, which is then fixed (see `__index__`).

    def __truediv__(self, other: object) -> Any:
        right = _number(other)
        return NotImplemented if right is None else _as_number(self) / right

    def __rtruediv__(self, other: object) -> Any:
        left = _number(other)
        return NotImplemented if left is None else left / _as_number(self)

    def __float__(self) -> float:
        return float(_as_number(self))

    # Comparison and use as a number: decided from the ranges, else by the ambient DimScope.

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        right = _operand(other)
        return NotImplemented if right is None else _ask("eq", self, right)

    def __ne__(self, other: object) -> Any:
        if self is other:
            return False
        right = _operand(other)
        return NotImplemented if right is None else _ask("ne", self, right)

    def __lt__(self, other: object) -> Any:
        right = _operand(other)
        return NotImplemented if right is None else _ask("lt", self, right)

    def __le__(self, other: object) -> Any:
        right = _operand(other)
        return NotImplemented if right is None else _ask("le", self, right)

    def __gt__(self, other: object) -> Any:
        right = _operand(other)
        return NotImplemented if right is None else _ask("gt", self, right)

    def __ge__(self, other: object) -> Any:
        right = _operand(other)
        return NotImplemented if right is None else _ask("ge", self, right)

    def __bool__(self) -> bool:
        return _ask("ne", self, 0, structural=False)

    def __index__(self) -> int:
        return _as_number(self)

    def __int__(self) -> int:
        return _as_number(self)


Extent: TypeAlias = int | Dim


def _operand(x: object) -> Extent | None:
    if type(x) is int or type(x) is Dim:
        return x
    return int(x) if isinstance(x, Integral) else None


def _extent(x: object) -> Extent:
    extent = _operand(x)
    if extent is None:
        raise TypeError(f"[dim] expected an integer or a Dim, got {type(x).__name__} {x!r}")
    return extent


def _number(x: object) -> int | float | None:
    """`x` as a number of Python; fixes a symbolic extent to its size in this trace."""
    if isinstance(x, Dim):
        return _as_number(x)
    return x if isinstance(x, int | float) else None


def _symbol(name: str, lo: int, hi: int | None, multiple: int) -> Dim:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
        reserved = " ".join(sorted(_RESERVED))
        raise ValueError(f"[Dim] the name must be an ASCII identifier but none of: {reserved}; got {name!r}")
    for option, value in (("min", lo), ("max", hi), ("multiple_of", multiple)):
        if option == "max" and value is None:
            continue
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise ValueError(f"[Dim] {option} of {name!r} must be an integer, got {value!r}")
    lo, hi, multiple = int(lo), None if hi is None else int(hi), int(multiple)
    if lo < 0 or multiple < 1:
        given = f"min={lo}, multiple_of={multiple}"
        raise ValueError(f"[Dim] {name!r} needs min >= 0 and multiple_of >= 1, got {given}")
    first = -(-lo // multiple) * multiple
    last = math.inf if hi is None else hi // multiple * multiple
    if first > last:
        raise ValueError(f"[Dim] {name!r} has no value: min={lo}, max={hi}, multiple_of={multiple}")
    key = ("symbol", name, lo, hi, multiple)
    found = _interned.get(key)
    if found is not None:
        return found
    dim = _new("symbol", weight=1, depth=0)
    dim.name, dim.min, dim.max, dim.multiple_of = name, lo, hi, multiple
    dim._text, dim._symbols, dim._interval = name, (dim,), (first, last)
    dim._order = f"{name}\0{lo},{hi},{multiple}"
    if multiple == 1:
        dim.poly = ((((dim, 1),), 1),)
    else:
        dim.poly = ((((_atom("//", (dim, multiple)), 1),), multiple),)
    return _intern(key, dim)


def _new(op: str, weight: int, depth: int) -> Dim:
    if weight > MAX_WEIGHT:
        raise ValueError(f"[dim] the extent is too large: {weight} parts, at most {MAX_WEIGHT}")
    if depth > MAX_DEPTH:
        raise ValueError(f"[dim] the extent nests //, %, min, max more than {MAX_DEPTH} deep")
    dim = object.__new__(Dim)
    dim.op, dim.weight, dim.depth = op, weight, depth
    dim._text = dim._order = dim._interval = dim._symbols = dim._terms = None
    return dim


def check_number(x: Extent) -> None:
    """Raise ValueError for an integer that is too large for an expression."""
    if isinstance(x, int) and x.bit_length() > MAX_COEFFICIENT_BITS:
        raise ValueError(f"[dim] a number in the extent needs more than {MAX_COEFFICIENT_BITS} bits")


def _intern(key: tuple[object, ...], dim: Dim) -> Dim:
    with _interning:  # two threads that made the same expression must agree on one object
        return _interned.setdefault(key, dim)


def _key_part(x: Extent) -> tuple[str, int]:
    """Identity of an extent inside an intern key; the node made keeps `x`, and so its id, alive."""
    return ("dim", id(x)) if isinstance(x, Dim) else ("int", x)


def _weight(x: Extent) -> int:
    return x.weight if isinstance(x, Dim) else 1


def weight_of(mono: Monomial) -> int:
    """What a monomial with its coefficient adds to the weight of an extent; see `MAX_WEIGHT`."""
    return 1 + sum(atom.weight * power for atom, power in mono)


def _depth(x: Extent) -> int:
    return x.depth if isinstance(x, Dim) else 0


def _atom(op: str, operands: tuple[Extent, ...]) -> Dim:
    key = (op, *map(_key_part, operands))
    found = _interned.get(key)
    if found is not None:
        return found
    for operand in operands:
        check_number(operand)
    weight, depth = 1 + sum(map(_weight, operands)), 1 + max(map(_depth, operands))
    dim = _new(op, weight, depth)
    dim.operands = operands
    dim.poly = ((((dim, 1),), 1),)
    return _intern(key, dim)


def polynomial(terms: dict[Monomial, int]) -> Extent:
    """The extent that is the sum of coefficient * monomial."""
    terms = {mono: c for mono, c in terms.items() if c}
    while any(atom.op == "%" for mono in terms for atom, _ in mono) and _merge_remainder(terms):
        pass
    if not terms:
        return 0
    if len(terms) == 1:
        [(mono, c)] = terms.items()
        if not mono:
            return c
        if len(mono) == 1 and mono[0][1] == 1:
            atom = mono[0][0]
            if c == 1:
                return atom
            if _is_unit(atom) and c == atom.operands[1]:
                return atom.operands[0]
    poly = tuple(sorted(terms.items(), key=_term_order))
    key = ("+", *((c, *((id(atom), power) for atom, power in mono)) for mono, c in poly))
    found = _interned.get(key)
    if found is not None:
        return found
    weight = sum(weight_of(mono) for mono, _ in poly)
    depth = max(atom.depth for mono, _ in poly for atom, _ in mono)
    for _, c in poly:
        check_number(c)
    dim = _new("+", weight, depth)
    dim.poly = poly
    return _intern(key, dim)


def _term_order(term: tuple[Monomial, int]) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Graded lexicographic: a monomial order, so it serves printing and polynomial division alike."""
    mono = term[0]
    return -sum(power for _, power in mono), tuple((_order_of(atom)[1], -power) for atom, power in mono)


def _order_of(x: Extent) -> tuple[bool, str]:
    """Deterministic order of extents: by text, symbols of equal name by range, integers last."""
    if not isinstance(x, Dim):
        return True, str(x)
    if x._order is None:
        x._order = str(x) + "\0" + ";".join(f"{s.min},{s.max},{s.multiple_of}" for s in symbols(x))
    return False, x._order


def _is_unit(atom: Dim) -> bool:
    """Whether the atom is `symbol // multiple_of`, which is exact."""
    if atom.op != "//":
        return False
    of, by = atom.operands
    return isinstance(of, Dim) and of.op == "symbol" and type(by) is int and of.multiple_of == by


def monomials(x: Extent) -> Polynomial:
    """The extent as a polynomial in normal form: (monomial, coefficient) pairs, none for 0."""
    if isinstance(x, Dim):
        return x.poly
    return (((), x),) if x else ()


def _merge_remainder(terms: dict[Monomial, int]) -> bool:
    """c*k*(x//k) + c*(x%k)  ->  c*x, once, in place and for any common monomial factor."""
    for mono, c in list(terms.items()):
        for atom, _ in mono:
            if atom.op != "%" or not isinstance(divisor := atom.operands[1], int):
                continue
            quotient = _floordiv(atom.operands[0], divisor)
            if not isinstance(quotient, Dim) or quotient.op != "//":
                continue
            rest = _divide_monomial(mono, ((atom, 1),)) or ()
            partner = _multiply_monomials(rest, ((quotient, 1),))
            whole = terms.get(partner, 0)
            if whole * c > 0 and abs(whole) >= abs(divisor * c):
                terms[mono] -= c
                terms[partner] -= divisor * c
                for extra, factor in monomials(atom.operands[0]):
                    merged = _multiply_monomials(rest, extra)
                    terms[merged] = terms.get(merged, 0) + c * factor
                for empty in [m for m, value in terms.items() if not value]:
                    del terms[empty]
                return True
    return False


@lru_cache(maxsize=4096)
def _add(a: Extent, b: Extent) -> Extent:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    terms = dict(monomials(a))
    for mono, c in monomials(b):
        terms[mono] = terms.get(mono, 0) + c
    return polynomial(terms)


@lru_cache(maxsize=4096)
def _multiply(a: Extent, b: Extent) -> Extent:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    left, right = monomials(a), monomials(b)
    if len(left) * len(right) > 2 * MAX_WEIGHT:
        raise ValueError(f"[dim] the extent is too large: a product of {len(left)} and {len(right)} terms")
    terms: dict[Monomial, int] = {}
    for m, c in left:
        for n, d in right:
            mono = _multiply_monomials(m, n)
            terms[mono] = terms.get(mono, 0) + c * d
    return polynomial(terms)


def _multiply_monomials(m: Monomial, n: Monomial) -> Monomial:
    if not m or not n:
        return m or n
    powers = dict(m)
    for atom, power in n:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: _order_of(item[0])))


def _divide_monomial(m: Monomial, n: Monomial) -> Monomial | None:
    powers = dict(m)
    for atom, power in n:
        left = powers.get(atom, 0) - power
        if left < 0:
            return None
        powers[atom] = left
    return tuple((atom, power) for atom, power in powers.items() if power)


def _divide(a: Polynomial, b: Polynomial) -> tuple[Extent, Extent]:
    """Quotient and remainder of multivariate polynomial division, coefficients divided towards zero."""
    lead, lead_c = b[0]
    quotient: dict[Monomial, int] = {}
    remainder: dict[Monomial, int] = {}
    rest = dict(a)
    for _ in range(MAX_WEIGHT):
        if not rest:
            break
        mono, c = min(rest.items(), key=_term_order)
        shared = _divide_monomial(mono, lead)
        times = 0 if shared is None else abs(c) // abs(lead_c) * (1 if c * lead_c > 0 else -1)
        if not times or shared is None:
            remainder[mono] = rest.pop(mono)
            continue
        quotient[shared] = quotient.get(shared, 0) + times
        for n, d in b:
            target = _multiply_monomials(shared, n)
            value = rest.get(target, 0) - times * d
            if value:
                rest[target] = value
            else:
                rest.pop(target, None)
        if mono in rest:
            remainder[mono] = rest.pop(mono)
    else:
        return 0, polynomial(dict(a))
    return polynomial(quotient), polynomial(remainder)


def divide_exactly(a: Extent, b: Extent) -> Extent | None:
    """The extent q with q * b == a for all values of the symbols, or None when there is none to be proved.

    A common factor cancels even if it may be zero: (12*B) / (3*B) is 4.
    """
    a, b = _extent(a), _extent(b)
    if isinstance(b, int) and b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return None if a % b else a // b
    quotient, remainder = _divide(monomials(a), monomials(b))
    return quotient if isinstance(remainder, int) and remainder == 0 else None


@lru_cache(maxsize=4096)
def _floordiv(a: Extent, b: Extent) -> Extent:
    if isinstance(b, int):
        if b == 0:
            raise ZeroDivisionError(f"[dim] {a} // 0")
        if isinstance(a, int):
            return a // b
        return _floordiv_by_int(a, b) if b > 0 else _floordiv_by_int(_multiply(a, -1), -b)
    if b.poly[0][1] < 0:
        return _floordiv(_multiply(a, -1), _multiply(b, -1))
    a, b, _ = _cancel(a, b)
    if isinstance(b, int):
        return _floordiv(a, b)
    quotient, remainder = _divide(monomials(a), b.poly)
    reduced = _quotient_atom(remainder, b)
    if isinstance(reduced, int) or _interval_of(remainder)[0] >= 0:
        return _add(quotient, reduced)
    return _quotient_atom(a, b)


def _floordiv_by_int(a: Extent, k: int) -> Extent:
    """Multiples of k leave the quotient: (k*q + r)//k = q + r//k."""
    quotient, rest = _split(a, k)
    if isinstance(rest, int):
        return quotient
    constant, variable = split_constant(rest)
    if rest.poly[0][1] < 0:  # (-x)//k = -((x + k - 1)//k)
        flipped = _floordiv_by_int(_add(_multiply(rest, -1), k - 1), k)
        return _add(quotient, _multiply(flipped, -1))
    common = math.gcd(k, *(c for _, c in variable))
    if common > 1:  # (g*x + c)//(g*k) = (x + c//g)//k
        smaller = _add(polynomial({m: c // common for m, c in variable}), constant // common)
        return _add(quotient, _floordiv(smaller, k // common))
    alone = _add(rest, -constant)
    if isinstance(alone, Dim) and alone.op == "//" and not _is_unit(alone):
        of, by = alone.operands
        if isinstance(by, int):  # (x//a + c)//k = (x + a*c)//(a*k)
            return _add(quotient, _floordiv(_add(of, by * constant), by * k))
    return _add(quotient, _quotient_atom(rest, k))


def _split(a: Extent, k: int) -> tuple[Extent, Extent]:
    """(q, r) with a = k*q + r: coefficients of r smaller than k in magnitude, its constant in [0, k)."""
    quotient: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for mono, c in monomials(a):
        quotient[mono] = c // k if not mono or c > 0 else -(-c // k)
        rest[mono] = c - k * quotient[mono]
    return polynomial(quotient), polynomial(rest)


def split_constant(a: Dim) -> tuple[int, list[tuple[Monomial, int]]]:
    """The constant term of an extent, and its other (monomial, coefficient) pairs."""
    if a.poly[-1][0]:
        return 0, list(a.poly)
    return a.poly[-1][1], list(a.poly[:-1])


def _cancel(a: Extent, b: Dim) -> tuple[Extent, Extent, Extent]:
    """(a/f, b/f, f) for the largest common factor f that is an integer times a monomial."""
    if isinstance(a, int) and a == 0:
        return 0, 1, b
    terms = [*monomials(a), *b.poly]
    factor = math.gcd(*(c for _, c in terms))
    powers = dict(terms[0][0])
    for mono, _ in terms[1:]:
        present = dict(mono)
        powers = {atom: min(power, present[atom]) for atom, power in powers.items() if atom in present}
    shared: Monomial = tuple(powers.items())
    if factor == 1 and not shared:
        return a, b, 1

    def reduce(x: Extent) -> Extent:
        return polynomial({_divide_monomial(m, shared) or (): c // factor for m, c in monomials(x)})

    return reduce(a), reduce(b), polynomial({shared: factor})


def _quotient_atom(a: Extent, b: Extent) -> Extent:
    lo, hi = _floordiv_interval(_interval_of(a), _interval_of(b))
    return int(lo) if lo == hi else _atom("//", (a, b))


@lru_cache(maxsize=4096)
def _mod(a: Extent, b: Extent) -> Extent:
    if isinstance(b, int):
        if b == 0:
            raise ZeroDivisionError(f"[dim] {a} % 0")
        if isinstance(a, int):
            return a % b
        return _mod_by_int(a, b) if b > 0 else _multiply(_mod_by_int(_multiply(a, -1), -b), -1)
    if b.poly[0][1] < 0:
        return _multiply(_mod(_multiply(a, -1), _multiply(b, -1)), -1)
    a, b, factor = _cancel(a, b)
    if isinstance(b, int):
        return _multiply(factor, _mod(a, b))
    _, remainder = _divide(monomials(a), b.poly)
    if isinstance(times := _quotient_atom(remainder, b), int):
        return _multiply(factor, _add(remainder, _multiply(b, -times)))
    if _interval_of(remainder)[0] >= 0:
        a = remainder
    return _multiply(factor, _atom("%", (a, b)))


def _mod_by_int(a: Extent, k: int) -> Extent:
    rest = _split(_split(_drop_inner_mod(a, k), k)[1], k)[1]
    if isinstance(rest, int):
        return rest
    constant, variable = split_constant(rest)
    if rest.poly[0][1] < 0:  # (-x)%k = k - 1 - (x + k - 1)%k
        return _add(k - 1, _multiply(_mod_by_int(_add(_multiply(rest, -1), k - 1), k), -1))
    common = math.gcd(k, *(c for _, c in variable))
    if common > 1:  # (g*x + c)%(g*k) = g*((x + c//g)%k) + c%g
        smaller = _add(polynomial({m: c // common for m, c in variable}), constant // common)
        return _add(_multiply(_mod(smaller, k // common), common), constant % common)
    times = _quotient_atom(rest, k)
    return _add(rest, -k * times) if isinstance(times, int) else _atom("%", (rest, k))


def _drop_inner_mod(a: Extent, k: int) -> Extent:
    """c*(x%m) -> c*x wherever k divides c*m, as the two then agree modulo k."""
    for mono, c in monomials(a):
        if len(mono) == 1 and mono[0][1] == 1 and (atom := mono[0][0]).op == "%":
            inner, modulus = atom.operands
            if isinstance(modulus, int) and c * modulus % k == 0:
                return _drop_inner_mod(_add(_add(a, _multiply(atom, -c)), _multiply(inner, c)), k)
    return a


def minimum(*extents: Extent) -> Extent:
    """The smallest of the extents; operands the ranges prove to be no smaller than another are dropped."""
    return _extremum("min", extents)


def maximum(*extents: Extent) -> Extent:
    """The largest of the extents; operands the ranges prove to be no larger than another are dropped."""
    return _extremum("max", extents)


def _extremum(op: str, extents: Iterable[Extent]) -> Extent:
    relation = "le" if op == "min" else "ge"
    kept: list[Extent] = []
    for extent in extents:
        parts = extent.operands if isinstance(extent, Dim) and extent.op == op else (_extent(extent),)
        if not kept:  # the operands of a node are known not to decide each other
            kept = list(parts)
            continue
        for part in parts:
            if not any(part is y or decide(relation, y, part) for y in kept):
                kept = [y for y in kept if not decide(relation, part, y)] + [part]
                if len(kept) > MAX_OPERANDS:
                    raise ValueError(f"[dim] {op} of more than {MAX_OPERANDS} extents")
    if not kept:
        raise ValueError(f"[dim] {op} of no extents")
    return kept[0] if len(kept) == 1 else _atom(op, tuple(sorted(kept, key=_order_of)))


def product(shape: Iterable[Extent]) -> Extent:
    """The product of the extents, 1 for none: the number of elements of a shape."""
    result: Extent = 1
    for extent in shape:
        result = _multiply(result, _extent(extent))
    return result


def ceil_div(a: Extent, b: Extent) -> Extent:
    """a / b rounded up: (a + b - 1) // b for a positive b."""
    return _multiply(_floordiv(_multiply(_extent(a), -1), _extent(b)), -1)


def is_symbol(extent: Extent) -> TypeGuard[Dim]:
    """Whether the extent is a named symbol alone, not an integer or an expression."""
    return isinstance(extent, Dim) and extent.op == "symbol"


def bounds(extent: Extent) -> tuple[int | None, int | None]:
    """An interval with every value of the extent, None where it is unbounded. Sound, not always tight."""
    lo, hi = _interval_of(_extent(extent))
    return None if lo == -math.inf else int(lo), None if hi == math.inf else int(hi)


def _interval_of(x: Extent) -> Interval:
    if not isinstance(x, Dim):
        return x, x
    if x._interval is None:
        if x.op == "+":
            x._interval = _polynomial_interval(x)
        else:
            x._interval = _atom_interval(x.op, [_interval_of(y) for y in x.operands])
    return x._interval


def _atom_interval(op: str, parts: list[Interval]) -> Interval:
    if op == "//":
        return _floordiv_interval(*parts)
    if op == "%":
        return _mod_interval(*parts)
    pick = min if op == "min" else max
    return pick(lo for lo, _ in parts), pick(hi for _, hi in parts)


def _floordiv_interval(x: Interval, y: Interval) -> Interval:
    if y[0] < 0:
        if y[1] > 0:  # of either sign, and at least one in magnitude
            size = max(abs(x[0]), abs(x[1]))
            return -size, size
        return _floordiv_interval((-x[1], -x[0]), (-y[1], -y[0]))
    least, most = max(y[0], 1), max(y[1], 1)
    lo = _floor(x[0], most if x[0] >= 0 else least)
    hi = _floor(x[1], least if x[1] >= 0 else most)
    return lo, hi


def _floor(x: int | float, y: int | float) -> int | float:
    """x // y for y >= 1 with infinities, as limits."""
    if isinstance(x, float):
        return x
    if isinstance(y, float):
        return 0 if x >= 0 else -1
    return x // y


def _mod_interval(x: Interval, y: Interval) -> Interval:
    lo = min(y[0] + 1, 0) if y[0] < 0 else 0
    hi = max(y[1] - 1, 0) if y[1] > 0 else 0
    if x[0] >= 0 and y[0] >= 0:
        hi = min(hi, x[1])
    return lo, hi


def _times(x: int | float, y: int | float) -> int | float:
    if not x or not y:
        return 0  # the bound of 0 * unbounded
    if isinstance(x, float) or isinstance(y, float):
        return math.inf if (x > 0) == (y > 0) else -math.inf
    return x * y


def _times_interval(x: Interval, y: Interval) -> Interval:
    corners = [_times(p, q) for p in x for q in y]
    return min(corners), max(corners)


def _sum_interval(terms: Iterable[tuple[Monomial, int]], range_of: Callable[[Dim], Interval]) -> Interval:
    lo: int | float = 0
    hi: int | float = 0
    for mono, c in terms:
        term: Interval = (c, c)
        for atom, power in mono:
            span = range_of(atom)
            for _ in range(power):
                term = _times_interval(term, span)
        lo, hi = _plus(lo, term[0]), _plus(hi, term[1])
    return lo, hi


def _plus(x: int | float, y: int | float) -> int | float:
    """A sum that stays exact: adding an infinity must not turn a huge integer into a float."""
    if isinstance(x, float):
        return x
    return y if isinstance(y, float) else x + y


def _polynomial_interval(x: Dim) -> Interval:
    lo, hi = _sum_interval(x.poly, _interval_of)
    for extra in (_shifted_interval(x), _opened_interval(x)):
        lo, hi = max(lo, extra[0]), min(hi, extra[1])
    return lo, hi


def _shifted_interval(x: Dim) -> Interval:
    """Interval after writing every atom as its lower bound plus the rest: B*C - B >= 0 when C >= 1."""
    degree = sum(power for _, power in x.poly[0][0])
    if not 2 <= degree <= 4 or len(x.poly) > 12:
        return -math.inf, math.inf
    terms: dict[Monomial, int] = {}
    for mono, c in x.poly:
        expanded: dict[Monomial, int] = {(): c}
        for atom, power in mono:
            base = _interval_of(atom)[0]
            for _ in range(power):
                longer: dict[Monomial, int] = {}
                for m, d in expanded.items():
                    grown = _multiply_monomials(m, ((atom, 1),))
                    longer[grown] = longer.get(grown, 0) + d
                    if isinstance(base, int):
                        longer[m] = longer.get(m, 0) + d * base
                expanded = longer
        for m, d in expanded.items():
            terms[m] = terms.get(m, 0) + d

    def rest(atom: Dim) -> Interval:
        lo, hi = _interval_of(atom)
        return (0, _plus(hi, -lo)) if isinstance(lo, int) else (lo, hi)

    return _sum_interval(terms.items(), rest)


def _opened_interval(x: Dim) -> Interval:
    """Interval after opening the first linear //, %, min or max: 2*(B//2) <= B, min(B, C) <= B."""
    found = next(((m[0][0], c) for m, c in x.poly if len(m) == 1 and m[0][1] == 1 and _opens(m[0][0])), None)
    if found is None or x.weight > _TIGHTEN_WEIGHT:
        return -math.inf, math.inf
    atom, c = found
    rest = _add(x, _multiply(atom, -c))

    def with_operand(operand: Extent, scale: int = 1) -> Interval:
        return _interval_of(_add(_multiply(operand, c), _multiply(rest, scale)))

    if atom.op in ("min", "max"):
        pick = min if (atom.op == "min") == (c > 0) else max
        parts = [with_operand(operand) for operand in atom.operands]
        return pick(lo for lo, _ in parts), pick(hi for _, hi in parts)
    operand, k = atom.operands
    assert isinstance(k, int)
    if atom.op == "//":  # k * (x//k) lies in [x - (k - 1), x]
        lo, hi = with_operand(operand, k)
        lo, hi = _plus(lo, -c * (k - 1) if c > 0 else 0), _plus(hi, -c * (k - 1) if c < 0 else 0)
        return -_floor(-lo, k), _floor(hi, k)
    lo, hi = with_operand(operand)  # x%k <= x for x >= 0
    return (-math.inf, hi) if c > 0 else (lo, math.inf)


def _opens(atom: Dim) -> bool:
    if atom.op in ("min", "max"):
        return True
    if atom.op not in ("//", "%") or _is_unit(atom) or not isinstance(atom.operands[1], int):
        return False
    return atom.op == "//" or _interval_of(atom.operands[0])[0] >= 0


def decide(relation: str, a: Extent, b: Extent) -> bool | None:
    """Whether `a relation b` holds for all values of the symbols (True) or none (False); None: undecidable.

    relation is one of "eq", "ne", "lt", "le", "gt", "ge". Never asks the ambient scope.
    """
    if relation in ("ne", "gt", "ge"):
        negated = decide(_NEGATED[relation], a, b)
        return None if negated is None else not negated
    difference = _add(_extent(a), _multiply(_extent(b), -1))
    lo, hi = _interval_of(difference)
    if relation == "lt":
        return True if hi < 0 else False if lo >= 0 else None
    if relation == "le":
        return True if hi <= 0 else False if lo > 0 else None
    if relation != "eq":
        raise ValueError(f"[dim] unknown relation {relation!r}")
    if lo > 0 or hi < 0:
        return False
    if lo == hi:
        return True
    assert isinstance(difference, Dim)
    constant, variable = split_constant(difference)
    return False if constant % math.gcd(*(c for _, c in variable)) else None


def reduce_equality(a: Extent, b: Extent) -> tuple[Extent, Extent]:
    """(p, q) with p == q exactly when a == b, where p and q share no term and no factor: 2*B == B + C gives
    (B, C). Terms change sides so that all coefficients are positive."""
    difference = _add(_extent(a), _multiply(_extent(b), -1))
    terms = difference.terms if isinstance(difference, Dim) else ((difference, ()),)
    common = math.gcd(*(c for c, _ in terms)) or 1
    sides: list[Extent] = [0, 0]
    for c, factors in terms:
        term = product([abs(c) // common, *(atom for atom, power in factors for _ in range(power))])
        sides[c < 0] = _add(sides[c < 0], term)
    return sides[0], sides[1]


def same(a: Extent, b: Extent) -> bool:
    """Structural identity of two extents; never asks the ambient scope."""
    return a is b or (isinstance(a, int) and isinstance(b, int) and a == b)


def same_shape(s: Sequence[Extent], t: Sequence[Extent]) -> bool:
    """Structural identity of two shapes; never asks the ambient scope."""
    return len(s) == len(t) and all(map(same, s, t))


def symbols(*extents: Extent) -> tuple[Dim, ...]:
    """The named symbols that occur in the extents, each once, by name."""
    found: dict[int, Dim] = {}
    for x in extents:
        if not isinstance(x, Dim):
            continue
        if x._symbols is None:
            parts = [atom for mono, _ in x.poly for atom, _ in mono] if x.op == "+" else x.operands
            x._symbols = symbols(*parts)
        found.update((id(s), s) for s in x._symbols)
    return tuple(sorted(found.values(), key=_order_of))


def evaluate(extent: Extent, env: Mapping[str, int]) -> int:
    """The extent for the sizes of its symbols in `env`. Raises ValueError for a missing symbol."""
    if not isinstance(extent, Dim):
        return extent
    if extent.op == "symbol":
        if extent.name not in env:
            raise ValueError(f"[dim] no size is known for dim {extent.name!r}")
        return env[extent.name]
    if extent.op == "+":
        total = 0
        for c, factors in extent.terms:
            for atom, power in factors:
                c *= evaluate(atom, env) ** power
            total += c
        return total
    values = [evaluate(x, env) for x in extent.operands]
    if extent.op == "//":
        return values[0] // values[1]
    if extent.op == "%":
        return values[0] % values[1]
    return min(values) if extent.op == "min" else max(values)


def substitute(extent: Extent, env: Mapping[str, Extent]) -> Extent:
    """The extent with symbols replaced by name; symbols not in `env` stay.

    Raises ValueError when a replacement cannot lie in the symbol's range.
    """
    if not isinstance(extent, Dim):
        return extent
    if extent.op == "symbol":
        if extent.name not in env:
            return extent
        return checked_replacement(extent, _extent(env[extent.name]))
    if not any(s.name in env for s in symbols(extent)):
        return extent
    if extent.op == "+":
        total: Extent = 0
        for c, factors in extent.terms:
            term = product(substitute(atom, env) for atom, power in factors for _ in range(power))
            total = _add(total, _multiply(term, c))
        return total
    return apply(extent.op, [substitute(x, env) for x in extent.operands])


def apply(op: str, operands: Sequence[Extent]) -> Extent:
    """The extent `op` of the operands; op is one of "//", "%", "min", "max"."""
    if op in ("min", "max"):
        return _extremum(op, operands)
    a, b = map(_extent, operands)
    if op == "//":
        return _floordiv(a, b)
    if op == "%":
        return _mod(a, b)
    raise ValueError(f"[dim] unknown operation {op!r}")


def checked_replacement(symbol: Dim, value: Extent) -> Extent:
    """`value`; ValueError when it cannot lie in the range of the symbol."""
    if isinstance(value, int):
        check_value(symbol, value)
        return value
    lo, hi = _interval_of(symbol)
    least, most = _interval_of(value)
    if most < lo or least > hi or decide("eq", _mod(value, symbol.multiple_of), 0) is False:
        raise ValueError(f"[dim] {value} cannot replace {describe(symbol)}")
    return value


def describe(symbol: Dim) -> str:
    """The symbol with its range, such as `dim 'B' in [8, inf], a multiple of 8`."""
    text = f"dim {symbol.name!r} in [{symbol.min}, {'inf' if symbol.max is None else symbol.max}]"
    return text + (f", a multiple of {symbol.multiple_of}" if symbol.multiple_of != 1 else "")


def check_value(symbol: Dim, value: int, where: str = "") -> None:
    """Raise ValueError, naming dim, range, value and `where`, unless `value` is one the symbol allows."""
    lo, hi = _interval_of(symbol)
    if not lo <= value <= hi or (symbol.multiple_of != 1 and value % symbol.multiple_of):
        raise ValueError(f"[dim] {describe(symbol)} cannot be {value}{where and ' ' + where}")


@dataclass(frozen=True, eq=False, slots=True)
class Guard:
    """A relation between extents that a trace took for granted.

    `fixed` says that Python used the extent as a number. Equality and hash ignore the location.
    """

    relation: str
    left: Extent
    right: Extent
    location: object = field(default=None)
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise ValueError(f"[dim] unknown relation {self.relation!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Guard):
            return NotImplemented
        return (
            self.relation == other.relation
            and self.fixed == other.fixed
            and same(self.left, other.left)
            and same(self.right, other.right)
        )

    def __hash__(self) -> int:
        return hash((self.relation, self.left, self.right, self.fixed))

    def holds(self, env: Mapping[str, int]) -> bool:
        """Whether the relation holds for the sizes of the symbols."""
        return _compare(self.relation, evaluate(self.left, env), evaluate(self.right, env))

    def substitute(self, env: Mapping[str, Extent]) -> Guard:
        """The guard with symbols replaced by name."""
        left, right = substitute(self.left, env), substitute(self.right, env)
        return Guard(self.relation, left, right, self.location, self.fixed)

    def decided(self) -> bool | None:
        """True or False when the ranges alone settle the guard, else None."""
        return decide(self.relation, self.left, self.right)

    def __str__(self) -> str:
        return f"{self.left} {RELATIONS[self.relation]} {self.right}"


def _compare(relation: str, a: int, b: int) -> bool:
    match relation:
        case "eq":
            return a == b
        case "ne":
            return a != b
        case "lt":
            return a < b
        case "le":
            return a <= b
        case "gt":
            return a > b
    return a >= b


class _Scopes(threading.local):
    def __init__(self) -> None:
        self.stack: list[DimScope] = []


_scopes = _Scopes()


class DimScope:
    """Answers comparisons of symbolic extents for a sample, and remembers which it answered.

    samples: size of each symbol by name (a dict that may grow while the scope is active). policy: "guard" or
    "specialise", for the owner to read. locate: called at each new event for the user's source location.
    `events` lists what was taken for granted, each once, in order of first use. Scopes nest per thread; the
    innermost one that has samples for all symbols of a comparison answers it.
    """

    def __init__(
        self,
        samples: Mapping[str, int],
        policy: str = "guard",
        locate: Callable[[], object] | None = None,
    ) -> None:
        if policy not in ("guard", "specialise"):
            raise ValueError(f"[DimScope] policy must be 'guard' or 'specialise', got {policy!r}")
        self.samples: dict[str, int] = dict(samples)
        self.policy = policy
        self.locate = locate
        self._events: dict[Guard, Guard] = {}

    @property
    def events(self) -> list[Guard]:
        """The recorded relations, all of which hold for the samples."""
        return list(self._events)

    def ask(self, relation: str, left: Extent, right: Extent) -> bool:
        """Whether `left relation right` holds for the samples; records the answer as a guard."""
        holds = _compare(relation, evaluate(left, self.samples), evaluate(right, self.samples))
        self.record(relation if holds else _NEGATED[relation], left, right)
        return holds

    def record(self, relation: str, left: Extent, right: Extent, fixed: bool = False) -> None:
        """Note that the trace depends on `left relation right`."""
        guard = Guard(relation, left, right, None, fixed)
        if guard not in self._events:
            located = Guard(relation, left, right, self.locate() if self.locate else None, fixed)
            self._events[located] = located

    def __enter__(self) -> DimScope:
        _scopes.stack.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _scopes.stack.remove(self)


def current_scope() -> DimScope | None:
    """The innermost active scope of this thread."""
    return _scopes.stack[-1] if _scopes.stack else None


def scope_for(*extents: Extent) -> DimScope | None:
    """The innermost scope of this thread that has samples for all symbols of `extents`."""
    if not _scopes.stack:
        return None
    names = [s.name for s in symbols(*extents)]
    return next((s for s in reversed(_scopes.stack) if all(name in s.samples for name in names)), None)


def _ask(relation: str, a: Dim, b: Extent, structural: bool = True) -> bool:
    known = decide(relation, a, b)
    if known is not None:
        return known
    scope = scope_for(a, b)
    if scope is not None:
        return scope.ask(relation, a, b)
    if structural and relation in ("eq", "ne"):
        return relation == "ne"
    ranges = "; ".join(describe(s) for s in symbols(a, b))
    raise ValueError(f"[dim] {a} {RELATIONS[relation]} {b} is not decided by the ranges: {ranges}")


def _as_number(x: Dim) -> int:
    lo, hi = _interval_of(x)
    if lo == hi:
        return int(lo)
    scope = scope_for(x)
    if scope is None:
        ranges = "; ".join(describe(s) for s in symbols(x))
        raise ValueError(f"[dim] the symbolic extent {x} has no number here: {ranges}")
    value = evaluate(x, scope.samples)
    scope.record("eq", x, value, fixed=True)
    return value


def _of_terms(terms: Iterable[tuple[int, Monomial]]) -> Extent:
    """The sum of `terms`, which are like `Dim.terms`."""
    total: dict[Monomial, int] = {}
    for c, factors in terms:
        term = product([c, *(atom for atom, power in factors for _ in range(power))])
        for mono, part in monomials(term):
            total[mono] = total.get(mono, 0) + part
    return polynomial(total)


def _text_of(x: Dim) -> str:
    if x.op in ("min", "max"):
        return f"{x.op}({', '.join(map(str, x.operands))})"
    if x.op != "+":
        return f"{_tight(x.operands[0])}{x.op}{_tight(x.operands[1])}"
    text = ""
    for c, factors in x.terms:
        sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
        text += sign + _term_text(abs(c), factors, bare=bool(text) or c > 0)
    return text


def _term_text(c: int, factors: Monomial, bare: bool) -> str:
    atoms = [atom for atom, power in factors for _ in range(power)]
    if c == 1 and len(atoms) == 1 and bare:
        return str(atoms[0])
    return "*".join(([str(c)] if c != 1 or not atoms else []) + [_tight(atom) for atom in atoms])


def _tight(x: Extent) -> str:
    """The text of an operand of *, // or %."""
    text = str(x)
    compound = isinstance(x, Dim) and x.op in ("+", "//", "%") or (isinstance(x, int) and x < 0)
    return f"({text})" if compound else text


def _with_whole_symbols(mono: Monomial, c: int) -> tuple[int, Monomial]:
    """A term with as many `multiple_of * (symbol // multiple_of)` as there are written as the symbol."""
    factors: list[tuple[Dim, int]] = []
    for atom, power in mono:
        if not _is_unit(atom):
            factors.append((atom, power))
            continue
        symbol, multiple = atom.operands
        assert isinstance(symbol, Dim) and isinstance(multiple, int)
        whole = 0
        while whole < power and c % multiple == 0:
            c //= multiple
            whole += 1
        factors += [(x, n) for x, n in ((symbol, whole), (atom, power - whole)) if n]
    return c, tuple(factors)
