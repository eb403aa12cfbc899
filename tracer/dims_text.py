"""The text form of extents and guards, read back; `str` writes it.

sum     := product {("+" | "-") product}
product := unary {("*" | "//" | "%") unary}
unary   := {"-"} (integer | name | "(" sum ")" | ("min" | "max") "(" sum {"," sum} ")")
guard   := sum ("==" | "!=" | "<" | "<=" | ">" | ">=") sum
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import NoReturn

from ingot.tracer.dims import (
    MAX_COEFFICIENT_BITS,
    MAX_WEIGHT,
    RELATIONS,
    Dim,
    Extent,
    Guard,
    apply,
    check_number,
    monomials,
    polynomial,
    weight_of,
)
from ingot.tracer.pattern import Pattern

MAX_LENGTH = 65_536
"""Longest text of an extent or guard, in characters."""
MAX_NESTING = 64
"""Deepest nesting of parentheses, `min` and `max` in it."""
_MAX_WORK = 2_000_000


class DimSyntaxError(ValueError):
    """Text that is not an extent; `.column` counts from 0 in the text given."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"[dim] column {column + 1}: {message}")
        self.message = message
        self.column = column


def parse(text: str, symbols: Mapping[str, Dim]) -> Extent:
    """The extent that `str` wrote as `text`, with the symbols looked up by name.

    Safe on hostile text: nesting, length, size of numbers and work are limited. Raises DimSyntaxError.
    """
    reader = _Reader(text, symbols)
    result = reader.sum()
    reader.expect_end()
    return result


def parse_guard(text: str, symbols: Mapping[str, Dim]) -> Guard:
    """The guard that `str` wrote as `text`, such as `B + 1 <= 128`. Raises DimSyntaxError."""
    reader = _Reader(text, symbols)
    left = reader.sum()
    relation = next((name for name, sign in RELATIONS.items() if reader.accept(sign)), None)
    if relation is None:
        reader.fail("expected one of == != < <= > >=")
    right = reader.sum()
    reader.expect_end()
    return Guard(relation, left, right)


_TOKEN = Pattern(r"\s*([0-9]+|[A-Za-z_][A-Za-z0-9_]*|//|==|!=|<=|>=|[-+*%(),<>])", re.ASCII)


class _Reader:
    """Recursive descent over the grammar above."""

    def __init__(self, text: str, symbols: Mapping[str, Dim]) -> None:
        if len(text) > MAX_LENGTH:
            message = f"an extent of {len(text)} characters, at most {MAX_LENGTH}"
            raise DimSyntaxError(message, MAX_LENGTH)
        self.text, self.symbols = text, symbols
        self.position, self.depth, self.work = 0, 0, 0
        self.advance()

    def advance(self) -> None:
        found = _TOKEN.match(self.text, self.position)
        if found:
            self.token, self.start, self.position = found[1], found.start(1), found.end()
            return
        tail = self.text[self.position :]
        self.token, self.start = "", self.position + len(tail) - len(tail.lstrip())
        if tail.strip():
            self.fail(f"unexpected {tail.strip()[0]!r}")

    def fail(self, message: str) -> NoReturn:
        raise DimSyntaxError(message, self.start)

    def accept(self, token: str) -> bool:
        if self.token != token:
            return False
        self.advance()
        return True

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail(f"expected {token!r}, got {self.token or 'the end'!r}")

    def expect_end(self) -> None:
        if self.token:
            self.fail(f"unexpected {self.token!r}")

    def combine(self, sign: str, left: Extent, right: Extent) -> Extent:
        sizes = [x.weight if isinstance(x, Dim) else 1 for x in (left, right)]
        self.spend((sizes[0] + 1) * (sizes[1] + 1))
        if sign == "*":
            return self.attempt(operator.mul, left, right)
        return self.attempt(apply, sign, (left, right))

    def spend(self, work: int, weight: int = 0) -> None:
        self.work += work
        if self.work > _MAX_WORK or weight > MAX_WEIGHT:
            self.fail("the extent is too large")

    def attempt(self, make: Callable[..., Extent], *operands: object) -> Extent:
        try:
            made = make(*operands)
            check_number(made)
            return made
        except (ValueError, ZeroDivisionError) as error:
            self.fail(str(error).removeprefix("[dim] "))

    def sum(self) -> Extent:
        first = self.product()
        if self.token not in ("+", "-"):
            return first
        # Terms are collected and brought into normal form once: sum by sum would take quadratic time.
        terms = dict(monomials(first))
        weight = sum(map(weight_of, terms))
        while self.token in ("+", "-"):
            sign = 1 if self.token == "+" else -1
            self.advance()
            for mono, c in monomials(self.product()):
                total = terms.pop(mono, 0)
                part = weight_of(mono)
                weight += (0 if total else part) - (0 if (total := total + sign * c) else part)
                self.spend(part, weight)
                if total:
                    terms[mono] = total
        return self.attempt(polynomial, terms)

    def product(self) -> Extent:
        left = self.unary()
        while self.token in ("*", "//", "%"):
            sign = self.token
            self.advance()
            left = self.combine(sign, left, self.unary())
        return left

    def unary(self) -> Extent:
        negative = False
        while self.accept("-"):
            negative = not negative
        operand = self.primary()
        return self.combine("*", operand, -1) if negative else operand

    def primary(self) -> Extent:
        token = self.token
        if token[:1].isdigit():
            if len(token) > MAX_COEFFICIENT_BITS // 4:
                self.fail(f"a number of {len(token)} digits")
            self.advance()
            return int(token)
        if token == "(" or token in ("min", "max"):
            return self.nested(token)
        if not token.isidentifier():
            self.fail(f"expected an extent, got {token or 'the end'!r}")
        if token not in self.symbols:
            self.fail(f"unknown dim {token!r}")
        self.advance()
        return self.symbols[token]

    def nested(self, token: str) -> Extent:
        self.depth += 1
        if self.depth > MAX_NESTING:
            self.fail(f"nested more than {MAX_NESTING} deep")
        self.advance()
        if token != "(":
            self.expect("(")
        result = self.sum()
        while token != "(" and self.accept(","):
            result = self.combine(token, result, self.sum())
        self.expect(")")
        self.depth -= 1
        return result
