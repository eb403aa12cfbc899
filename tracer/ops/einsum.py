"""Einstein summation: subscripts, the order of contraction, and pairwise products."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import reduce as fold
from typing import Any

from ingot.tracer import dtypes
from ingot.tracer.array import array, record
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.facts import agree
from ingot.tracer.ops import math as _math
from ingot.tracer.ops import reduce, shape
from ingot.tracer.ops.coerce import as_array
from ingot.tracer.primitives.contract import DotGeneral
from ingot.tracer.primitives.elementwise import show_shape

Labels = tuple[str, ...]
Path = list[tuple[int, ...]]
_UNKNOWN = 64
"""What a symbolic extent counts in the choice of an order."""


def _parse(subscripts: str, shapes: Sequence[tuple[Extent, ...]]) -> tuple[list[Labels], Labels]:
    """Labels of the axes of every operand and of the result. An ellipsis becomes labels like `.0`, counted
    from the last axis it stands for."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(shapes):
        raise ValueError(
            f"[einsum] Number of operands, {len(shapes)}, does not match number of input subscripts, "
            f"{len(parts)}"
        )
    inputs = []
    for i, (part, extents) in enumerate(zip(parts, shapes, strict=True)):
        labels = _labels(part, len(extents))
        if len(labels) != len(extents):
            raise ValueError(
                f"[einsum] Invalid number of subscripts {len(labels)} for input {i} with {len(extents)} "
                "dimensions."
            )
        inputs.append(labels)
    seen = [label for labels in inputs for label in labels]
    dots = tuple(sorted({label for label in seen if label[0] == "."}, key=lambda d: -int(d[1:])))
    if arrow:
        output = _labels(right, len(dots) + len(right.replace("...", "")))
    else:
        output = dots + tuple(sorted({label for label in seen if label[0] != "." and seen.count(label) == 1}))
    if len(set(output)) != len(output):
        raise ValueError("[einsum] Repeat indices not allowed in output.")
    unknown = [label for label in output if label not in seen]
    if unknown:
        raise ValueError(f"[einsum] The output has subscripts that no input has: {', '.join(unknown)}.")
    return inputs, output


def _labels(part: str, rank: int) -> Labels:
    before, dots, after = part.partition("...")
    for letter in before + after:
        if not (letter.isalpha() and letter.isascii()):
            raise ValueError(f"[einsum] Subscripts must be letters, but got '{letter}'.")
    hidden = max(rank - len(before) - len(after), 0) if dots else 0
    return (*before, *(f".{i}" for i in range(hidden - 1, -1, -1)), *after)


def _sizes(inputs: Sequence[Labels], shapes: Sequence[tuple[Extent, ...]]) -> dict[str, Extent]:
    """The extent of every label; axes of extent 1 are repeated."""
    sizes: dict[str, Extent] = {}
    for i, (labels, extents) in enumerate(zip(inputs, shapes, strict=True)):
        for axis, (label, n) in enumerate(zip(labels, extents, strict=True)):
            known = sizes.get(label, 1)
            if isinstance(known, int) and known == 1:
                sizes[label] = n
            elif not (isinstance(n, int) and n == 1) and not agree(n, known):
                raise ValueError(
                    f"[einsum] Cannot broadcast dimension {axis} of input {i} with shape "
                    f"{show_shape(extents)} to size {known}."
                )
    return sizes


# -- order ---------------------------------------------------------------------------------------------------


def _count(labels: Iterable[str], sizes: dict[str, Extent]) -> int:
    return fold(lambda a, b: a * b, (_UNKNOWN if isinstance(n := sizes[s], Dim) else n for s in labels), 1)


def _cost(labels: set[str], inner: bool, terms: int, sizes: dict[str, Extent]) -> int:
    """Operations of one contraction: products, and sums when something is summed."""
    return _count(labels, sizes) * (max(1, terms - 1) + inner)


def _greedy(inputs: Sequence[set[str]], output: set[str], sizes: dict[str, Extent]) -> Path:
    """Pairs of positions to contract; each result goes to the end. The pair that removes most elements is
    next, then the cheaper one (the greedy order of NumPy's `einsum_path`)."""
    terms = list(inputs)
    path: Path = []
    if len(terms) == 1:
        return [(0,)]
    while len(terms) > 1:
        pairs = list(itertools.combinations(range(len(terms)), 2))
        meeting = [(i, j) for i, j in pairs if terms[i] & terms[j]]

        best = min((_rank(terms, pair, output, sizes), pair) for pair in meeting or pairs)[1]
        kept = _kept(terms, best, output)
        terms = [t for i, t in enumerate(terms) if i not in best] + [kept]
        path.append(best)
    return path


def _rank(
    terms: Sequence[set[str]], pair: tuple[int, int], output: set[str], sizes: dict[str, Extent]
) -> tuple[int, int]:
    """How many elements a contraction adds, and its cost."""
    a, b = terms[pair[0]], terms[pair[1]]
    kept = _kept(terms, pair, output)
    added = _count(kept, sizes) - _count(a, sizes) - _count(b, sizes)
    return added, _cost(a | b, bool((a | b) - kept), 2, sizes)


def _kept(terms: Sequence[set[str]], chosen: tuple[int, ...], output: set[str]) -> set[str]:
    """Labels of the contraction of the chosen terms that are still needed."""
    needed = output.union(*(t for i, t in enumerate(terms) if i not in chosen))
    return set().union(*(terms[i] for i in chosen)) & needed


def _report(
    subscripts: str, inputs: Sequence[set[str]], output: set[str], sizes: dict[str, Extent], path: Path
) -> str:
    every = set().union(*inputs)
    naive = _cost(every, bool(every - output), len(inputs), sizes)
    terms, total, scaling = list(inputs), 0, 0
    for chosen in path:
        joint = set().union(*(terms[i] for i in chosen))
        kept = _kept(terms, chosen, output)
        total += _cost(joint, bool(joint - kept), len(chosen), sizes)
        scaling = max(scaling, len(joint))
        terms = [t for i, t in enumerate(terms) if i not in chosen] + [kept]
    return (
        f"  Complete contraction:  {subscripts}\n"
        f"         Naive scaling:  {len(every)}\n"
        f"     Optimized scaling:  {scaling}\n"
        f"      Naive FLOP count:  {naive}\n"
        f"  Optimized FLOP count:  {total}\n"
    )


def einsum_path(subscripts: str, *operands: array) -> tuple[Path, str]:
    """The order in which `einsum` contracts, as positions of operands (each result goes to the end), and a
    report of its cost."""
    shapes = [as_array("einsum_path", x).shape for x in operands]
    inputs, output = _parse(subscripts, shapes)
    sizes = _sizes(inputs, shapes)
    sets, wanted = [set(labels) for labels in inputs], set(output)
    path = _greedy(sets, wanted, sizes)
    return path, _report(subscripts, sets, wanted, sizes, path)


# -- contraction ---------------------------------------------------------------------------------------------


def einsum(subscripts: str, *operands: array, stream: Any = None) -> array:
    """Sum of products over the subscripts that the output lacks, such as `"ij,jk->ik"`.

    Without `->` the output has the subscripts that occur once, in alphabetical order. `...` stands for axes
    that broadcast. Operands are contracted two at a time, in the order of `einsum_path`.

    Raises:
        ValueError: for subscripts that fit neither the operands nor each other.
    """
    xs = [as_array("einsum", x) for x in operands]
    inputs, output = _parse(subscripts, [x.shape for x in xs])
    sizes = _sizes(inputs, [x.shape for x in xs])
    dtype = fold(dtypes.promote, [x.dtype for x in xs])
    terms = [_distinct(x.astype(dtype), labels) for x, labels in zip(xs, inputs, strict=True)]
    terms = [_without_ones(x, labels) for x, labels in terms]
    for chosen in _greedy([set(labels) for _, labels in terms], set(output), sizes):
        needed = set(output).union(*(labels for i, (_, labels) in enumerate(terms) if i not in chosen))
        picked = [_summed(*terms[i], _others(terms, chosen, i, needed)) for i in chosen]
        made = picked[0] if len(picked) == 1 else _product(picked[0], picked[1], needed)
        terms = [t for i, t in enumerate(terms) if i not in chosen] + [made]
    ((x, labels),) = terms
    x, labels = _summed(x, labels, set(output))
    x = shape.transpose(x, [labels.index(label) for label in output if label in labels])
    full = tuple(sizes[label] for label in output)
    if len(labels) != len(output):  # axes that are 1 everywhere
        x = x.reshape(full)
    return x


def _others(
    terms: Sequence[tuple[array, Labels]], chosen: tuple[int, ...], own: int, needed: set[str]
) -> set[str]:
    return needed.union(*(terms[i][1] for i in chosen if i != own))


def _distinct(x: array, labels: Labels) -> tuple[array, Labels]:
    """Diagonals for labels that occur twice."""
    while len(set(labels)) != len(labels):
        label = next(s for s in labels if labels.count(s) > 1)
        i = labels.index(label)
        j = labels.index(label, i + 1)
        if not agree(x.shape[i], x.shape[j]):
            raise ValueError(
                f"[einsum] '{label}' stands for extents {x.shape[i]} and {x.shape[j]} of one operand."
            )
        x = shape.diagonal(x, 0, i, j)
        labels = (*(s for k, s in enumerate(labels) if k not in (i, j)), label)
    return x, labels


def _without_ones(x: array, labels: Labels) -> tuple[array, Labels]:
    """Without axes of extent 1: products broadcast along what is missing."""
    ones = [i for i, n in enumerate(x.shape) if isinstance(n, int) and n == 1]
    if not ones:
        return x, labels
    return shape.squeeze(x, ones), tuple(s for i, s in enumerate(labels) if i not in ones)


def _summed(x: array, labels: Labels, kept: set[str]) -> tuple[array, Labels]:
    axes = [i for i, label in enumerate(labels) if label not in kept]
    if not axes:
        return x, labels
    total = reduce.sum(x, axes).astype(x.dtype)
    return total, tuple(label for label in labels if label in kept)


def _product(a: tuple[array, Labels], b: tuple[array, Labels], needed: set[str]) -> tuple[array, Labels]:
    (x, left), (y, right) = a, b
    shared = [label for label in left if label in right]
    contract = [label for label in shared if label not in needed]
    batch = [label for label in shared if label in needed]
    labels = (
        *batch,
        *(label for label in left if label not in shared),
        *(label for label in right if label not in shared),
    )
    if not contract and len(batch) == len(left) == len(right):  # elementwise
        order = [right.index(label) for label in left]
        return _math.multiply(x, shape.transpose(y, order)), left
    if x.dtype is dtypes.bool_:
        raise ValueError("[einsum] bools have no sum of products.")
    dot = DotGeneral(
        (tuple(map(left.index, contract)), tuple(map(right.index, contract))),
        (tuple(map(left.index, batch)), tuple(map(right.index, batch))),
    )
    return record(dot, x._value, y._value), labels
