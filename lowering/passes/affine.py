"""Reading index expressions as polynomials, and proving that iterations of a loop touch different memory.

An index is a sum of products of *atoms*: variables, and whatever is not `+ - *` of others, taken as one
opaque symbol. An access is then `base + sum(stride * digit)`, one digit in [0, extent) for each loop around
it. Two iterations i != i' of a loop are independent when the digits can be told from the sum, as in a number
with mixed radices: with strides in ascending order, each stride from that of `i` upwards is larger than all
that the digits below can add up to. Strides and extents may be symbols; `[0, m)` beside a stride of `m` is
what makes the comparison succeed. Different buffers are taken not to overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ingot.lowering import loop as ir
from ingot.lowering.loop import Expr, For, Stmt, Var
from ingot.lowering.passes import rewrite
from ingot.lowering.passes.rewrite import Place
from ingot.tracer.record import record

Monomial = tuple[Expr, ...]
_LIMIT = 64  # terms of a polynomial; beyond that an expression stays opaque


@record
class Poly:
    """A sum of `coefficient * product of atoms`, without zero coefficients."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def of(terms: Mapping[Monomial, int]) -> Poly:
        kept = ((m, c) for m, c in terms.items() if c)
        return Poly(tuple(sorted(kept, key=lambda item: tuple(map(repr, item[0])))))

    @staticmethod
    def constant(value: int) -> Poly:
        return Poly.of({(): value})

    def __add__(self, other: Poly) -> Poly:
        terms = dict(self.terms)
        for monomial, c in other.terms:
            terms[monomial] = terms.get(monomial, 0) + c
        return Poly.of(terms)

    def __neg__(self) -> Poly:
        return Poly(tuple((m, -c) for m, c in self.terms))

    def divided(self, by: int) -> Poly:
        """Exact division by a number."""
        return Poly(tuple((m, c // by) for m, c in self.terms))

    def __sub__(self, other: Poly) -> Poly:
        return self + -other

    def __mul__(self, other: Poly) -> Poly:
        terms: dict[Monomial, int] = {}
        for m, c in self.terms:
            for n, d in other.terms:
                key = tuple(sorted((*m, *n), key=repr))
                terms[key] = terms.get(key, 0) + c * d
        return Poly.of(terms)

    @property
    def value(self) -> int | None:
        """The number, when it is one."""
        if not self.terms:
            return 0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    def names(self) -> set[str]:
        return rewrite.variables(*(atom for monomial, _ in self.terms for atom in monomial))

    def parts(self) -> Iterator[Expr]:
        """The atoms and all below them."""
        for monomial, _ in self.terms:
            for atom in monomial:
                yield from rewrite.subexpressions(atom)

    def split(self, name: str) -> tuple[Poly, Poly] | None:
        """`(coefficient, rest)` with self == coefficient * name + rest; None when it is not linear in it."""
        factor: dict[Monomial, int] = {}
        rest: dict[Monomial, int] = {}
        for monomial, c in self.terms:
            left = tuple(a for a in monomial if not (isinstance(a, Var) and a.name == name))
            if name in rewrite.variables(*left) or len(monomial) - len(left) > 1:
                return None
            (factor if len(left) < len(monomial) else rest)[left] = c
        return Poly.of(factor), Poly.of(rest)


def poly(expr: Expr, lets: Mapping[str, Expr] | None = None) -> Poly:
    """A scalar index expression as a polynomial; variables of `lets` are replaced by their values."""
    made = _poly(expr, lets or {})
    return made if len(made.terms) <= _LIMIT else Poly.of({(expr,): 1})


def _poly(expr: Expr, lets: Mapping[str, Expr]) -> Poly:
    match expr:
        case ir.Const(value):
            return Poly.constant(int(value))
        case ir.Var(name) if name in lets and lets[name].type == ir.IDX:
            return poly(lets[name], lets)
        case ir.Binary("add", a, b):
            return poly(a, lets) + poly(b, lets)
        case ir.Binary("sub", a, b):
            return poly(a, lets) - poly(b, lets)
        case ir.Binary("mul", a, b):
            return poly(a, lets) * poly(b, lets)
    return Poly.of({(_expanded(expr, lets),): 1})


def _expanded(expr: Expr, lets: Mapping[str, Expr]) -> Expr:
    """An opaque expression in terms of what is defined furthest out."""
    known = {n: lets[n] for n in rewrite.variables(expr) if n in lets and lets[n].type == ir.IDX}
    return _expanded(rewrite.substitute(expr, known), lets) if known else expr


def upper_bounds(expr: Expr, lets: Mapping[str, Expr]) -> list[Poly]:
    """Polynomials that `expr` does not exceed: those of all sides of its `min`s, itself first."""
    match expr:
        case ir.Binary("min", a, b):
            return [*upper_bounds(a, lets), *upper_bounds(b, lets), poly(expr, lets)]
        case ir.Binary("add", a, b):
            return [x + y for x in upper_bounds(a, lets) for y in upper_bounds(b, lets)]
        case ir.Binary("sub", a, b):
            return [x - poly(b, lets) for x in upper_bounds(a, lets)]
        case ir.Var(name) if name in lets and lets[name].type == ir.IDX:
            return upper_bounds(lets[name], lets)
    return [poly(expr, lets)]


def extent(loop: For) -> int | None:
    """`hi - lo`, where that is a number."""
    return (poly(loop.hi) - poly(loop.lo)).value


def extent_bounds(loop: For, lets: Mapping[str, Expr]) -> list[Poly]:
    """Bounds of `hi - lo` of a loop that has iterations. The main part of a cut loop spans
    `max(x, 0) // c * c`, which is x at most, as it is not 0."""
    start = poly(loop.lo, lets)
    bounds = [bound - start for bound in upper_bounds(loop.hi, lets)]
    if _made_of_chunks(start):
        # the end is above 0, and so is what it was rounded down from
        end, bounds = _rounded_from(poly(loop.hi, lets), lets), list(bounds)
        while end is not None:
            bounds.insert(0, end - start)
            end = _rounded_from(end, lets)
    return bounds


def _rounded_from(end: Poly, lets: Mapping[str, Expr]) -> Poly | None:
    """x, where `end` is `max(x, 0) // c * c`."""
    if len(end.terms) == 1 and len(end.terms[0][0]) == 1:
        chunks = _whole_chunks(end.terms[0][0][0])
        if chunks is not None and chunks[1] == end.terms[0][1]:
            return poly(chunks[0], lets)
    return None


def _made_of_chunks(p: Poly) -> bool:
    """Whether p is never negative: a number, or what main parts of cut loops span."""
    return all(c > 0 and all(_whole_chunks(a) for a in m) for m, c in p.terms)


def _natural(loop: For, loops: Sequence[For]) -> bool:
    """Whether the index begins at 0 or above, perhaps at the index of another such loop."""
    if isinstance(loop.lo, Var):
        around = [f for f in loops if f.index == loop.lo]
        return bool(around) and _natural(around[0], loops)
    return isinstance(loop.lo, ir.Const) and loop.lo.value >= 0


def _whole_chunks(atom: Expr) -> tuple[Expr, int] | None:
    """`(x, c)` of `max(x, 0) // c`, which is never negative."""
    match atom:
        case ir.Binary("floordiv", ir.Binary("max", x, ir.Const(0)), ir.Const(c)) if c > 0:
            return x, int(c)
    return None


class Facts:
    """What is known where a statement runs: all enclosing loops have at least one iteration."""

    def __init__(self, loops: Sequence[For], lets: Mapping[str, Expr]):
        self.positive: set[str] = set()
        self.natural = {f.index.name for f in loops if _natural(f, loops)}
        for loop in loops:
            if not self._from_zero(poly(loop.lo, lets)):
                continue
            for bound in extent_ends(loop, lets):
                if len(bound.terms) == 1 and bound.terms[0][1] > 0 and len(bound.terms[0][0]) == 1:
                    self.positive |= {a.name for a in bound.terms[0][0] if isinstance(a, Var)}

    def _from_zero(self, p: Poly) -> bool:
        return all(
            c > 0 and all(_whole_chunks(a) or isinstance(a, Var) and a.name in self.natural for a in m)
            for m, c in p.terms
        )

    def is_positive(self, p: Poly) -> bool:
        """Whether p >= 1 follows. Known symbols are at least 1: write them as 1 + something."""
        one = Poly.constant(1)
        shifted = Poly.constant(0)
        for monomial, c in p.terms:
            product = Poly.constant(c)
            for atom in monomial:
                if isinstance(atom, Var) and atom.name in self.positive:
                    product *= Poly.of({(atom,): 1}) + one
                elif _whole_chunks(atom) is not None or (isinstance(atom, Var) and atom.name in self.natural):
                    product *= Poly.of({(atom,): 1})  # at least 0
                else:
                    return False
            shifted += product
        total = dict(shifted.terms)
        return total.get((), 0) >= 1 and all(c >= 0 for c in total.values())

    def at_least(self, a: Poly, b: Poly) -> bool:
        return self.is_positive(a - b + Poly.constant(1))


@record
class Access:
    """A load or store with its loops, `lets` visible at it, and whether it stands under a condition."""

    node: ir.Load | ir.Store
    loops: tuple[For, ...]
    lets: Mapping[str, Expr]
    conditional: bool
    lanes: int

    @property
    def store(self) -> bool:
        return isinstance(self.node, ir.Store)


def accesses(
    body: Sequence[Stmt], lets: Mapping[str, Expr], loops: tuple[For, ...] = (), conditional: bool = False
) -> Iterator[Access]:
    """All loads and stores of a body, those in nested loops with these loops."""
    lets = dict(lets)
    for stmt in body:
        here, nested = _where(stmt)
        inside = (*loops, stmt) if isinstance(stmt, For) else loops
        maybe = conditional or isinstance(stmt, ir.If | ir.While)
        within = lets
        for inner in rewrite.bodies(stmt):
            within = _visible(inner, within)
        outside = here, loops, lets, conditional
        for exprs, around, known, unsure in (outside, (nested, inside, within, maybe)):
            for e in (e for expr in exprs for e in rewrite.subexpressions(expr)):
                if isinstance(e, ir.Load):
                    yield Access(e, around, known, unsure, e.type.lanes)
        if isinstance(stmt, ir.Store):
            yield Access(stmt, loops, lets, conditional, stmt.value.type.lanes)
        if isinstance(stmt, ir.Let):
            lets[stmt.var.name] = stmt.value
        for inner in rewrite.bodies(stmt):
            yield from accesses(inner, _visible(inner, lets), inside, maybe)


def _where(stmt: Stmt) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """The statement's own expressions: those evaluated where it stands, and those evaluated inside of it."""
    match stmt:
        case ir.For():
            return (stmt.lo, stmt.hi, stmt.step, *stmt.inits), stmt.yields
        case ir.While():
            return stmt.inits, (stmt.condition, *stmt.yields)
        case ir.If():
            return (stmt.condition,), (*stmt.then_yields, *stmt.else_yields)
    return rewrite.own_expressions(stmt), ()


def _visible(body: Sequence[Stmt], lets: Mapping[str, Expr]) -> dict[str, Expr]:
    """With the definitions of `body` itself, which its yields see."""
    return {**lets, **{s.var.name: s.value for s in body if isinstance(s, ir.Let)}}


@record
class Digits:
    """An address as `base + sum(stride * digit)`; `spans` has the largest digit for each stride, `shared` the
    strides of several digits, `groups` closer bounds of what some strides add up to."""

    base: Poly
    spans: dict[Poly, Poly]
    shared: frozenset[Poly]
    groups: dict[frozenset[Poly], Poly]


def digits(access: Access, loops: Sequence[For], facts: Facts) -> Digits | None:
    """The address over the indices of `loops`, given from the outside in; None when it has no such form."""
    at = access.node.index
    spans: dict[Poly, Poly] = {}
    shared, by_loop = set(), dict[str, Poly]()
    if at.type.lanes > 1:
        if not isinstance(at, ir.Ramp):
            return None
        spans[poly(at.step, access.lets)] = Poly.constant(at.lanes - 1)
        at = at.base
    elif access.lanes > 1:
        spans[Poly.constant(1)] = Poly.constant(access.lanes - 1)
    varying = {loop.index.name for loop in loops}
    base = poly(at, access.lets)
    for loop in reversed(loops):
        parts = base.split(loop.index.name)
        step = rewrite.constant(loop.step)
        if parts is None or step is None:
            return None
        stride, base = parts
        if stride.value == 0:
            continue
        base += stride * poly(loop.lo, access.lets)  # digits count iterations from the first
        span = _iterations(loop, step, access.lets, varying)
        if span is None or stride.names() & varying:
            return None
        stride *= Poly.constant(step)
        if not facts.at_least(stride, Poly.constant(1)):
            if not facts.at_least(-stride, Poly.constant(1)):
                return None
            stride, base = -stride, base + stride * span  # count from the other end
        else:
            by_loop[loop.index.name] = stride  # bounds of groups count from the first
        if stride in spans:
            shared.add(stride)
        spans[stride] = spans.get(stride, Poly.constant(0)) + span
    groups = {k: v for k, v in _groups(access, loops, by_loop).items() if not k & shared}
    return Digits(base, spans, frozenset(shared), groups)


def _groups(access: Access, loops: Sequence[For], strides: dict[str, Poly]) -> dict[frozenset[Poly], Poly]:
    """What chunks of a cut loop add up to: the range of the loop before it was cut."""
    found: dict[frozenset[Poly], Poly] = {}
    varying = {loop.index.name for loop in loops}
    by_name = {loop.index.name: loop for loop in loops if loop.index.name in strides}
    for loop in by_name.values():
        start, ends = loop, extent_ends(loop, access.lets)
        chain = [loop.index.name]
        while isinstance(start.lo, Var) and start.lo.name in by_name:
            around = by_name[start.lo.name]
            if _fills(start, around, access.lets):
                ends += extent_ends(around, access.lets)
            start = around
            chain.append(start.index.name)
        step = rewrite.constant(loop.step) or 1
        unit = strides[loop.index.name].divided(step)
        last = step if len(chain) == 1 and _fills(loop, loop, access.lets) else 1
        for end in ends:
            size = end - poly(start.lo, access.lets)
            if (len(chain) > 1 or size.value is None) and not size.names() & varying:
                bound = unit * (size - Poly.constant(last))
                found.setdefault(frozenset(strides[n] for n in chain), bound)
        if access.lanes > 1 and strides[loop.index.name] == Poly.constant(step):
            end_ = _masked_end(access, loop)
            if end_ is not None and not (end_ - poly(loop.lo, access.lets)).names() & varying:
                key = frozenset({Poly.constant(1), strides[loop.index.name]})
                found[key] = end_ - poly(loop.lo, access.lets) - Poly.constant(1)
    return found


def extent_ends(loop: For, lets: Mapping[str, Expr]) -> list[Poly]:
    """Upper bounds of the end of a loop that has iterations."""
    return [bound + poly(loop.lo, lets) for bound in extent_bounds(loop, lets)]


def _fills(inner: For, outer: For, lets: Mapping[str, Expr]) -> bool:
    """Whether the chunks `inner` of `outer` stay below the end of `outer`, whose extent is made of them."""
    step = rewrite.constant(outer.step)
    sizes = [b.value for b in extent_bounds(inner, lets) if b.value is not None]
    if step is None or (inner is not outer and (not sizes or min(sizes) > step)):
        return False
    exact = poly(outer.hi, lets) - poly(outer.lo, lets)
    return all(c % step == 0 for _, c in exact.terms)


def _masked_end(access: Access, loop: For) -> Poly | None:
    """The `end` of `lane_mask(index, end, lanes)`, when that is the mask of a consecutive access."""
    mask = access.node.mask
    if isinstance(mask, Var):
        mask = access.lets.get(mask.name)
    match mask:
        case ir.Compare("lt", ir.Ramp(ir.Const(0), ir.Const(1)), ir.Broadcast(x, _)):
            pass
        case _:
            return None
    match x:
        case ir.Convert(ir.Binary("max", ir.Binary("min", left, _), ir.Const(0)), _):
            end = poly(left, access.lets) + poly(loop.index, access.lets)
            return None if loop.index.name in end.names() else end
    return None


def _iterations(loop: For, step: int, lets: Mapping[str, Expr], varying: set[str]) -> Poly | None:
    """A bound on the number of iterations less one, a constant if there is one; None when all bounds depend
    on indices of `varying`."""
    bounds = [bound for bound in extent_bounds(loop, lets) if not bound.names() & varying]
    known = [b.value for b in bounds if b.value is not None]
    if known:
        return Poly.constant(max(0, (min(known) - 1) // step))
    # for steps above 1 an upper bound too
    return bounds[0] - Poly.constant(1) if bounds else None


def conflict(place: Place, extra: Sequence[For] = ()) -> str | None:
    """Why two different iterations of the loop may touch the same memory, or None when they cannot.

    Loops of `extra` around it may stand at different iterations too. Memory that the body allocates is each
    iteration's own.
    """
    body, name = place.loop.body, place.loop.index.name
    private = rewrite.allocated(body)
    found = [a for a in accesses(body, _visible(body, place.lets)) if a.node.buffer not in private]
    stored = {a.node.buffer for a in found if a.store}
    mine = (*extra, place.loop)
    for i, a in enumerate(found):
        for b in found[i:]:
            if a.node.buffer == b.node.buffer and a.node.buffer in stored and (a.store or b.store):
                if not _apart(a, b, mine, place):
                    return f"iterations of {name} may meet in {a.node.buffer}"
    return None


def _apart(a: Access, b: Access, mine: Sequence[For], place: Place) -> bool:
    lets = {**a.lets, **b.lets}
    facts = Facts((*place.enclosing, *mine, *a.loops, *b.loops), lets)
    x, y = digits(a, (*mine, *a.loops), facts), digits(b, (*mine, *b.loops), facts)
    stride = _stride_of(a, place.loop, b)
    if x is None or y is None or stride is None or stride in x.shared | y.shared:
        return False
    if any(isinstance(e, ir.Load) for p in (x.base, y.base) for e in p.parts()):
        return False
    inner = rewrite.defined(place.loop.body) | {f.index.name for f in mine}
    if (x.base.names() | y.base.names()) & inner:
        return False  # data, or something carried, decides about the address
    return _readable(x, y, stride, facts)


def distinct(access: Access, axes: Sequence[For], enclosing: Sequence[For]) -> bool:
    """Whether the address differs whenever the indices of `axes` do."""
    facts = Facts((*enclosing, *access.loops), access.lets)
    d = digits(access, axes, facts)
    return d is not None and not d.shared and all(_readable(d, d, stride, facts) for stride in d.spans)


def _stride_of(a: Access, loop: For, b: Access) -> Poly | None:
    """The positive step of the address from one iteration of `loop` to the next, the same in both."""
    step = rewrite.constant(loop.step)
    found = []
    for access in (a, b):
        at = access.node.index
        at = at.base if isinstance(at, ir.Ramp) else at
        parts = poly(_with_bases(at, access), access.lets).split(loop.index.name)
        if parts is None or step is None or parts[0].value == 0:
            return None
        found.append(parts[0] * Poly.constant(step))
    if found[0] != found[1]:
        return None
    leading = found[0].terms[0][1]
    return found[0] if leading > 0 else -found[0]


def _with_bases(at: Expr, access: Access) -> Expr:
    """`at` with each inner index replaced by the first value it has, which may follow the outer index."""
    for inner in reversed(access.loops):
        at = rewrite.substitute(at, {inner.index.name: inner.lo})
    return at


def _readable(x: Digits, y: Digits, wanted: Poly, facts: Facts) -> bool:
    """Whether equal addresses imply equal digits at the stride `wanted`, or there are no equal addresses."""
    gap = x.base - y.base

    def below(limit: Poly, d: Digits, strides: set[Poly], extra: Poly) -> bool:
        return any(
            facts.is_positive(limit - extra - total)
            for total in _totals(strides & set(d.spans), d.spans, d.groups)
        )

    zero, left = Poly.constant(0), {*x.spans, *y.spans}
    if below(gap, y, left, zero) or below(-gap, x, left, zero):
        return True
    while wanted in left:
        # a digit whose stride is more than all others can make up is equal on both sides
        top = next((s for s in left if below(s, x, left - {s}, gap) and below(s, y, left - {s}, -gap)), None)
        if top is None:
            return False
        left.remove(top)
    return True


def _totals(strides: set[Poly], spans: dict[Poly, Poly], groups: dict[frozenset[Poly], Poly]) -> list[Poly]:
    """Bounds of what the digits at `strides` add up to."""
    plain = Poly.constant(0)
    for stride in strides:
        plain += stride * spans[stride]
    totals = [plain]
    for key, bound in groups.items():
        if key <= strides:
            totals += [bound + rest for rest in _totals(strides - key, spans, groups)]
    return totals
