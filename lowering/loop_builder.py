"""A builder for loop IR kernels: statements in program order, unique names, loops and branches as `with`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ingot.lowering.loop import (
    IDX,
    KEYWORDS,
    Alloc,
    Body,
    Buffer,
    Const,
    Expr,
    Fail,
    For,
    If,
    Kernel,
    Let,
    Load,
    Stmt,
    Store,
    Var,
    While,
    index,
    lift,
    vector,
)


class Scope:
    """A loop being built: `index` and `carried` inside, `next(...)` sets the next values, `results` after."""

    def __init__(self, index: Var | None, carried: tuple[Var, ...], inits: tuple[Expr, ...]):
        self.index, self.carried, self.inits = index, carried, inits
        self.yields: tuple[Expr, ...] = carried
        self.results: tuple[Var, ...] = ()

    def next(self, *values: Expr | int | float) -> None:
        self.yields = tuple(lift(v, c.type) for v, c in zip(values, self.carried, strict=True))


class Branch:
    """An `If` being built: `with branch.then():` and `with branch.orelse():`; each may `give(...)` values."""

    def __init__(self, builder: Builder, condition: Expr, names: Sequence[str]):
        self._builder, self._condition, self._names = builder, condition, names
        self._bodies: list[Body] = [(), ()]
        self._given: list[tuple[Expr, ...]] = [(), ()]
        self._current = 0
        self.results: tuple[Var, ...] = ()

    @contextmanager
    def then(self) -> Iterator[None]:
        yield from self._arm(0)

    @contextmanager
    def orelse(self) -> Iterator[None]:
        yield from self._arm(1)

    def _arm(self, which: int) -> Iterator[None]:
        self._current = which
        outer, self._builder._body = self._builder._body, []
        try:
            yield
            self._bodies[which] = tuple(self._builder._body)
        finally:
            self._builder._body = outer

    def give(self, *values: Expr) -> None:
        self._given[self._current] = values

    def _finish(self) -> None:
        then, orelse = self._given
        self.results = tuple(
            Var(self._builder.fresh(name), value.type) for name, value in zip(self._names, then, strict=True)
        )
        self._builder._body.append(
            If(self._condition, self._bodies[0], self._bodies[1], then, orelse, self.results)
        )


class Builder:
    """Writes one kernel, statement by statement; names are made unique as they come.

    b = Builder("row_sum")
    x, y = b.buffer("x", "f32", "read"), b.buffer("y", "f32", "write")
    n, m = b.param("n"), b.param("m")
    with b.loop("i", 0, n, kind="parallel") as rows:
        with b.loop("j", 0, m, 16, carry={"acc": const(0, vector("f32", 16))}) as loop:
            mask = b.let(lane_mask(loop.index, m, 16))
            loop.next(loop.carried[0] + b.load(x, rows.index * m + loop.index, 16, mask))
        b.store(y, rows.index, ReduceLanes("add", loop.results[0]))
    kernel = b.kernel()
    """

    def __init__(self, name: str):
        self.name = name
        self._buffers: list[Buffer] = []
        self._params: list[str] = []
        self._dtypes: dict[str, str] = {}
        self._used: dict[str, int] = dict.fromkeys(KEYWORDS, 0)
        self._body: list[Stmt] = []

    def fresh(self, name: str) -> str:
        """`name`, or `name_1`, `name_2`, ... when it is taken."""
        count = self._used.get(name)
        if count is None:
            self._used[name] = 0
            return name
        while True:
            count += 1
            candidate = f"{name}_{count}"
            if candidate not in self._used:
                self._used[name], self._used[candidate] = count, 0
                return candidate

    def buffer(self, name: str, dtype: str, access: str = "read") -> str:
        """Declare a memory argument; the name returned is what `load` and `store` take."""
        name = self.fresh(name)
        self._buffers.append(Buffer(name, dtype, access))
        self._dtypes[name] = dtype
        return name

    def param(self, name: str) -> Var:
        """Declare an index scalar argument."""
        name = self.fresh(name)
        self._params.append(name)
        return Var(name, IDX)

    def let(self, value: Expr, name: str = "t") -> Expr:
        """Bind `value` to a new variable (variables and constants are returned as they are)."""
        if isinstance(value, Var | Const):
            return value
        var = Var(self.fresh(name), value.type)
        self._body.append(Let(var, value))
        return var

    def load(
        self,
        buffer: str,
        index_: Expr | int,
        lanes: int = 1,
        mask: Expr | None = None,
        otherwise: Expr | int | float | None = None,
        hint: str | None = None,
    ) -> Expr:
        """`lanes` elements from a scalar index, or a gather by a vector index (`lanes` is then its lanes)."""
        at = index(index_)
        type = vector(self._dtypes[buffer], max(lanes, at.type.lanes))
        rest = None if otherwise is None else lift(otherwise, type)
        return Load(buffer, at, type, mask, rest, hint)

    def store(
        self,
        buffer: str,
        index_: Expr | int,
        value: Expr | bool | int | float,
        mask: Expr | None = None,
        hint: str | None = None,
    ) -> None:
        at = index(index_)
        lanes = max(at.type.lanes, mask.type.lanes if mask is not None else 1)
        if not isinstance(value, Expr) or value.type.lanes < lanes:
            value = lift(value, vector(self._dtypes[buffer], lanes))
        self._body.append(Store(buffer, at, value, mask, hint))

    def alloc(
        self, name: str, dtype: str, count: Expr | int, space: str = "stack", offset: Expr | int | None = None
    ) -> str:
        name = self.fresh(name)
        self._dtypes[name] = dtype
        at = None if offset is None else index(offset)
        self._body.append(Alloc(name, dtype, index(count), space, at))
        return name

    def emit(self, stmt: Stmt) -> None:
        """Append any statement."""
        self._body.append(stmt)

    def fail(self, code: int, *values: Expr | int) -> None:
        self._body.append(Fail(code, tuple(index(v) for v in values)))

    @contextmanager
    def loop(
        self,
        name: str,
        lo: Expr | int,
        hi: Expr | int,
        step: Expr | int = 1,
        kind: str = "serial",
        carry: dict[str, Expr] | None = None,
    ) -> Iterator[Scope]:
        """A `For`; `carry` maps names to initial values."""
        scope = self._scope(Var(self.fresh(name), IDX), carry)
        outer, self._body = self._body, []
        try:
            yield scope
            body = tuple(self._body)
        finally:
            self._body = outer
        scope.results = self._results(scope)
        assert scope.index is not None
        self._body.append(
            For(
                scope.index,
                index(lo),
                index(hi),
                index(step),
                kind,
                body,
                scope.carried,
                scope.inits,
                scope.yields,
                scope.results,
            )
        )

    @contextmanager
    def repeat(self, condition: Callable[..., Expr], carry: dict[str, Expr]) -> Iterator[Scope]:
        """A `While`; `condition` is called with the carried variables."""
        scope = self._scope(None, carry)
        outer, self._body = self._body, []
        try:
            yield scope
            body = tuple(self._body)
        finally:
            self._body = outer
        scope.results = self._results(scope)
        self._body.append(
            While(condition(*scope.carried), body, scope.carried, scope.inits, scope.yields, scope.results)
        )

    @contextmanager
    def branch(self, condition: Expr, *names: str) -> Iterator[Branch]:
        """An `If` with arms: `with b.branch(c, 'r') as br:` then `with br.then(): br.give(x)` and so on;
        `names` name the results."""
        branch = Branch(self, condition, names)
        yield branch
        branch._finish()

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """An `If` without else and without results."""
        with self.branch(condition) as branch:
            with branch.then():
                yield

    def _scope(self, index: Var | None, carry: dict[str, Expr] | None) -> Scope:
        items = carry or {}
        carried = tuple(Var(self.fresh(n), v.type) for n, v in items.items())
        return Scope(index, carried, tuple(items.values()))

    def _results(self, scope: Scope) -> tuple[Var, ...]:
        return tuple(Var(self.fresh(f"{v.name}_end"), v.type) for v in scope.carried)

    def kernel(self) -> Kernel:
        return Kernel(self.name, tuple(self._buffers), tuple(self._params), tuple(self._body))
