"""Text form of the loop IR: `print_kernel` and `parse_kernel` are inverse to each other.

    kernel @row_sum(x: f32 read, y: f32 write; n, m) {
      parallel for i in [0, n) {
        for j in [0, m) step 16 carry (acc: f32x16 = 0.0:f32x16) -> (acc_end) {
          t: boolx16 = ramp(j, 1, 16) < splat(m, 16)
          yield acc + x[i * m + j : 16, mask t]
        }
        y[i] = reduce_add(acc_end)
      }
    }

Index literals are bare numbers, all others carry their type. `x[i : 16]` is 16 elements from `i` on, `x[v]`
with a vector `v` is a gather. `f32(x)` converts, `bits_f32(x)` keeps the bits. `#` begins a comment.
Precedence, from loose to tight: comparisons, `+ -`, `* / // %`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from ingot.lowering import loop as ir
from ingot.lowering.loop import IDX, Expr, Kernel, Stmt, Type, Var, vector
from ingot.tracer.pattern import Pattern

INFIX = {
    "lt": ("<", 0),
    "le": ("<=", 0),
    "gt": (">", 0),
    "ge": (">=", 0),
    "eq": ("==", 0),
    "ne": ("!=", 0),
    "add": ("+", 1),
    "sub": ("-", 1),
    "mul": ("*", 2),
    "div": ("/", 2),
    "floordiv": ("//", 2),
    "mod": ("%", 2),
}
_INFIX_BY_SIGN = {sign: (op, level) for op, (sign, level) in INFIX.items()}
_ATOM = 3


# Printing


def print_kernel(kernel: Kernel) -> str:
    """The kernel as text, ending in a newline."""
    buffers = ", ".join(f"{b.name}: {b.dtype} {b.access}" for b in kernel.buffers)
    params = f"; {', '.join(kernel.params)}" if kernel.params else ""
    lines = [f"kernel @{kernel.name}({buffers}{params}) {{", *_body(kernel.body, 1), "}"]
    return "\n".join(lines) + "\n"


def print_stmt(stmt: Stmt, depth: int = 0) -> str:
    """One statement as text, without a final newline."""
    return "\n".join(_stmt(stmt, depth))


def _body(body: ir.Body, depth: int) -> Iterator[str]:
    for stmt in body:
        yield from _stmt(stmt, depth)


def _stmt(stmt: Stmt, depth: int) -> Iterator[str]:
    pad = "  " * depth
    match stmt:
        case ir.Let(var, value):
            yield f"{pad}{_typed(var)} = {print_expr(value)}"
        case ir.Store(buffer, index, value, mask, hint):
            yield f"{pad}{_access(buffer, index, None, mask, None, hint)} = {print_expr(value)}"
        case ir.Prefetch(buffer, index):
            yield f"{pad}prefetch {buffer}[{print_expr(index)}]"
        case ir.For():
            step = "" if stmt.step == ir.Const(1, IDX) else f" step {print_expr(stmt.step)}"
            kind = "" if stmt.kind == "serial" else f"{stmt.kind} "
            span = f"[{print_expr(stmt.lo)}, {print_expr(stmt.hi)})"
            yield f"{pad}{kind}for {stmt.index.name} in {span}{step}{_carry(stmt)} {{"
            yield from _block(stmt.body, stmt.yields, depth)
        case ir.While():
            yield f"{pad}while {print_expr(stmt.condition)}{_carry(stmt)} {{"
            yield from _block(stmt.body, stmt.yields, depth)
        case ir.If():
            results = f" -> ({', '.join(map(_typed, stmt.results))})" if stmt.results else ""
            yield f"{pad}if {print_expr(stmt.condition)}{results} {{"
            *inner, last = _block(stmt.then, stmt.then_yields, depth)
            yield from inner
            if stmt.orelse or stmt.else_yields:
                yield last + " else {"
                yield from _block(stmt.orelse, stmt.else_yields, depth)
            else:
                yield last
        case ir.Alloc(buffer, dtype, count, space, offset):
            at = "" if offset is None else f" at {print_expr(offset)}"
            yield f"{pad}alloc {buffer}: {dtype}[{print_expr(count)}] in {space}{at}"
        case ir.Fail(code, values):
            yield f"{pad}fail {code} ({', '.join(map(print_expr, values))})"
        case ir.Barrier():
            yield f"{pad}barrier"
        case ir.Poll():
            yield f"{pad}poll"
        case _:
            raise TypeError(f"not a statement: {stmt!r}")


def _block(body: ir.Body, yields: tuple[Expr, ...], depth: int) -> Iterator[str]:
    yield from _body(body, depth + 1)
    if yields:
        yield "  " * (depth + 1) + "yield " + ", ".join(map(print_expr, yields))
    yield "  " * depth + "}"


def _typed(var: Var) -> str:
    return f"{var.name}: {var.type}"


def _carry(stmt: ir.For | ir.While) -> str:
    if not (stmt.carried or stmt.results):
        return ""
    carried = ", ".join(
        f"{_typed(v)} = {print_expr(i)}" for v, i in zip(stmt.carried, stmt.inits, strict=False)
    )
    return f" carry ({carried}) -> ({', '.join(v.name for v in stmt.results)})"


def _access(
    buffer: str, index: Expr, lanes: int | None, mask: Expr | None, otherwise: Expr | None, hint: str | None
) -> str:
    text = print_expr(index)
    if lanes is not None and lanes > 1 and index.type.lanes == 1:
        text += f" : {lanes}"
    if mask is not None:
        text += f", mask {print_expr(mask)}"
    if otherwise is not None:
        text += f", else {print_expr(otherwise)}"
    if hint is not None:
        text += f", hint {hint}"
    return f"{buffer}[{text}]"


def print_expr(expr: Expr) -> str:
    return _expr(expr)[0]


def _expr(expr: Expr) -> tuple[str, int]:
    """Text and binding strength."""
    match expr:
        case ir.Var(name):
            return name, _ATOM
        case ir.Const(value, type):
            return _const(value, type), _ATOM
        case ir.Binary(op, left, right) | ir.Compare(op, left, right) if op in INFIX:
            sign, level = INFIX[op]
            a, a_level = _expr(left)
            b, b_level = _expr(right)
            # left associative, except that comparisons do not chain
            a = f"({a})" if a_level < level or a_level == level == 0 else a
            b = f"({b})" if b_level <= level else b
            return f"{a} {sign} {b}", level
        case ir.Load(buffer, index, type, mask, otherwise, hint):
            return _access(buffer, index, type.lanes, mask, otherwise, hint), _ATOM
    name, args = _call(expr)
    return f"{name}({', '.join(args)})", _ATOM


def _call(expr: Expr) -> tuple[str, list[str]]:
    match expr:
        case ir.Unary(op, x):
            return op, [print_expr(x)]
        case ir.Binary(op, left, right):
            return op, [print_expr(left), print_expr(right)]
        case ir.Math(op, args):
            return op, [print_expr(a) for a in args]
        case ir.Select(mask, yes, no):
            return "select", [print_expr(mask), print_expr(yes), print_expr(no)]
        case ir.Convert(x, dtype):
            return dtype, [print_expr(x)]
        case ir.Bitcast(x, dtype):
            return f"bits_{dtype}", [print_expr(x)]
        case ir.Broadcast(x, lanes):
            return "splat", [print_expr(x), str(lanes)]
        case ir.Ramp(base, step, lanes):
            return "ramp", [print_expr(base), print_expr(step), str(lanes)]
        case ir.ReduceLanes(op, x):
            return f"reduce_{op}", [print_expr(x)]
        case ir.Shuffle(left, right, picks):
            return "shuffle", [print_expr(left), print_expr(right), f"[{', '.join(map(str, picks))}]"]
        case ir.Extract(x, lane):
            return "extract", [print_expr(x), print_expr(lane)]
        case ir.Insert(x, lane, value):
            return "insert", [print_expr(x), print_expr(lane), print_expr(value)]
    raise TypeError(f"not an expression: {expr!r}")


def _const(value: bool | int | float, type: Type) -> str:
    text = repr(value).lower() if isinstance(value, bool) else repr(value)
    return text if type == IDX else f"{text}:{type}"


# Parsing

_TOKEN = Pattern(
    r"""
    (?P<skip>   [ \t\r\n]+ | \#[^\n]* )
  | (?P<number> \d+(\.\d+)?([eE][+-]?\d+)? )
  | (?P<name>   [A-Za-z_][A-Za-z0-9_.]* )
  | (?P<sign>   -> | // | <= | >= | == | != | [-+*/%<>=()\[\]{},:;@] )
""",
    re.VERBOSE,
)
_TYPE = Pattern(r"(bool|u8|u16|u32|u64|i8|i16|i32|i64|f16|bf16|f32|f64|index)(?:x([1-9]\d*))?")


def valid_name(name: str) -> bool:
    """Whether a buffer, param or variable may have this name."""
    return name.isidentifier() and name.isascii() and name not in ir.KEYWORDS


def parse_kernel(text: str) -> Kernel:
    """The kernel that `text` describes. Raises `LoopError` with line and column."""
    parser = _Parser(text)
    kernel = parser.kernel()
    parser.expect_end()
    return kernel


def parse_kernels(text: str) -> list[Kernel]:
    """All kernels in `text`, one after the other."""
    parser = _Parser(text)
    kernels = []
    while not parser.at_end():
        kernels.append(parser.kernel())
    return kernels


class _Parser:
    def __init__(self, text: str):
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error(f"unexpected character {text[position]!r}", position)
            if match.lastgroup != "skip" and match["skip"] is None:
                kind = "number" if match["number"] else "name" if match["name"] else "sign"
                self.tokens.append((kind, match.group(), position))
            position = match.end()
        self.tokens.append(("end", "", len(text)))
        self.at = 0
        self.types: dict[str, Type] = {}
        self.buffers: dict[str, str] = {}

    # tokens

    def error(self, message: str, position: int | None = None) -> ir.LoopError:
        where = self.tokens[self.at][2] if position is None else position
        line = self.text.count("\n", 0, where) + 1
        column = where - (self.text.rfind("\n", 0, where) + 1) + 1
        return ir.LoopError(f"[loop] line {line}, column {column}: {message}")

    def peek(self, offset: int = 0) -> str:
        return self.tokens[min(self.at + offset, len(self.tokens) - 1)][1]

    def take(self, *wanted: str) -> str:
        token = self.peek()
        if wanted and token not in wanted:
            raise self.error(f"expected {' or '.join(map(repr, wanted))}, found {token or 'the end'!r}")
        self.at += 1
        return token

    def accept(self, token: str) -> bool:
        if self.peek() == token and self.tokens[self.at][0] != "end":
            self.at += 1
            return True
        return False

    def at_end(self) -> bool:
        return self.tokens[self.at][0] == "end"

    def expect_end(self) -> None:
        if not self.at_end():
            raise self.error(f"expected the end, found {self.peek()!r}")

    def name(self) -> str:
        kind, token, _ = self.tokens[self.at]
        if kind != "name" or not valid_name(token):
            raise self.error(f"expected a name, found {token or 'the end'!r}")
        self.at += 1
        return token

    def integer(self) -> int:
        negative = self.accept("-")
        kind, token, _ = self.tokens[self.at]
        if kind != "number" or not token.isdigit():
            raise self.error(f"expected an integer, found {token or 'the end'!r}")
        self.at += 1
        return -int(token) if negative else int(token)

    def list_of(self, item: Callable[[], object], close: str) -> list:
        items: list = []
        if self.accept(close):
            return items
        while True:
            items.append(item())
            if self.take(",", close) == close:
                return items

    def word(self, words: tuple[str, ...]) -> str:
        return self.take(*words)

    # kernel and statements

    def kernel(self) -> Kernel:
        self.types, self.buffers = {}, {}
        self.take("kernel")
        self.take("@")
        kind, name, _ = self.tokens[self.at]
        if kind != "name":
            raise self.error(f"expected a kernel name, found {name!r}")
        self.at += 1
        self.take("(")
        buffers: list[ir.Buffer] = []
        while self.peek() not in (")", ";"):
            buffers.append(self.buffer())
            if self.peek() not in (")", ";"):
                self.take(",")
        params = self.list_of(self.name, ")") if self.take(")", ";") == ";" else []
        self.types.update((p, IDX) for p in params)
        body, _ = self.block()
        return Kernel(name, tuple(buffers), tuple(params), body)

    def buffer(self) -> ir.Buffer:
        name = self.name()
        self.take(":")
        buffer = ir.Buffer(name, self.word(ir.DTYPES), self.word(ir.ACCESS))
        self.buffers[name] = buffer.dtype
        return buffer

    def block(self) -> tuple[ir.Body, tuple[Expr, ...]]:
        """`{ statements [yield values] }`"""
        self.take("{")
        body: list[Stmt] = []
        yields: list[Expr] = []
        while not self.accept("}"):
            if self.accept("yield"):
                yields.append(self.expr())
                while self.accept(","):
                    yields.append(self.expr())
                self.take("}")
                break
            body.append(self.stmt())
        return tuple(body), tuple(yields)

    def stmt(self) -> Stmt:
        token = self.peek()
        match token:
            case "for" | "parallel" | "unrolled" | "serial":
                return self.for_stmt()
            case "while":
                return self.while_stmt()
            case "if":
                return self.if_stmt()
            case "alloc":
                return self.alloc()
            case "barrier":
                self.take()
                return ir.Barrier()
            case "poll":
                self.take()
                return ir.Poll()
            case "fail":
                self.take()
                code = self.integer()
                self.take("(")
                return ir.Fail(code, tuple(self.list_of(self.expr, ")")))
            case "prefetch":
                self.take()
                buffer = self.name()
                self.take("[")
                index = self.expr()
                self.take("]")
                return ir.Prefetch(buffer, index)
        if self.peek(1) == "[":
            return self.store()
        var = self.typed()
        self.take("=")
        value = self.expr()
        self.types[var.name] = var.type
        return ir.Let(var, value)

    def typed(self) -> Var:
        name = self.name()
        self.take(":")
        return Var(name, self.type())

    def type(self) -> Type:
        token = self.peek()
        match = _TYPE.fullmatch(token)
        if match is None:
            raise self.error(f"expected a type, found {token or 'the end'!r}")
        self.at += 1
        return vector(match[1], int(match[2] or 1))

    def carry(self) -> tuple[tuple[Var, ...], tuple[Expr, ...], list[str]]:
        """`carry (v: type = init, ...) -> (results)`; the variables are in scope from here on."""
        if not self.accept("carry"):
            return (), (), []
        self.take("(")
        carried, inits = [], []

        def one() -> None:
            var = self.typed()
            self.take("=")
            carried.append(var)
            inits.append(self.expr())

        self.list_of(one, ")")
        self.take("->")
        self.take("(")
        results = self.list_of(self.name, ")")
        self.types.update((v.name, v.type) for v in carried)
        if len(results) != len(carried):
            raise self.error(f"{len(carried)} carried values, {len(results)} results")
        return tuple(carried), tuple(inits), results

    def results(self, names: list[str], carried: tuple[Var, ...]) -> tuple[Var, ...]:
        found = tuple(Var(n, v.type) for n, v in zip(names, carried, strict=True))
        self.types.update((v.name, v.type) for v in found)
        return found

    def for_stmt(self) -> ir.For:
        kind = "serial" if self.peek() == "for" else self.word(ir.KINDS)
        self.take("for")
        index = Var(self.name(), IDX)
        self.take("in")
        self.take("[")
        lo = self.expr()
        self.take(",")
        hi = self.expr()
        self.take(")")
        step = self.expr() if self.accept("step") else ir.Const(1, IDX)
        self.types[index.name] = IDX
        carried, inits, names = self.carry()
        body, yields = self.block()
        return ir.For(index, lo, hi, step, kind, body, carried, inits, yields, self.results(names, carried))

    def while_stmt(self) -> ir.While:
        self.take("while")
        start = self.at
        self.skip_to_carry()
        carried, inits, names = self.carry()
        after, self.at = self.at, start  # the condition may use the carried values: read it second
        condition = self.expr()
        if self.peek() not in ("carry", "{"):
            raise self.error(f"expected 'carry' or '{{', found {self.peek()!r}")
        self.at = after
        body, yields = self.block()
        return ir.While(condition, body, carried, inits, yields, self.results(names, carried))

    def skip_to_carry(self) -> None:
        while self.peek() not in ("carry", "{"):
            if self.at_end():
                raise self.error("expected 'carry' or '{', found the end")
            self.at += 1

    def if_stmt(self) -> ir.If:
        self.take("if")
        condition = self.expr()
        results: list[Var] = []
        if self.accept("->"):
            self.take("(")
            results = self.list_of(self.typed, ")")
        then, then_yields = self.block()
        orelse, else_yields = self.block() if self.accept("else") else ((), ())
        self.types.update((v.name, v.type) for v in results)
        return ir.If(condition, then, orelse, then_yields, else_yields, tuple(results))

    def alloc(self) -> ir.Alloc:
        self.take("alloc")
        name = self.name()
        self.take(":")
        dtype = self.word(ir.DTYPES)
        self.take("[")
        count = self.expr()
        self.take("]")
        self.take("in")
        space = self.word(ir.SPACES)
        offset = self.expr() if self.accept("at") else None
        self.buffers[name] = dtype
        return ir.Alloc(name, dtype, count, space, offset)

    def store(self) -> ir.Store:
        buffer, index, _, mask, otherwise, hint = self.access()
        if otherwise is not None:
            raise self.error("a store takes no 'else'")
        self.take("=")
        return ir.Store(buffer, index, self.expr(), mask, hint)

    def access(self) -> tuple[str, Expr, int, Expr | None, Expr | None, str | None]:
        """`buffer[index (: lanes)? (, mask m)? (, else v)? (, hint h)?]`"""
        buffer = self.name()
        self.take("[")
        index = self.expr()
        lanes = self.integer() if self.accept(":") else index.type.lanes
        mask = otherwise = hint = None
        while self.take(",", "]") == ",":
            match self.take("mask", "else", "hint"):
                case "mask":
                    mask = self.expr()
                case "else":
                    otherwise = self.expr()
                case _:
                    hint = self.word(ir.HINTS)
        return buffer, index, lanes, mask, otherwise, hint

    # expressions

    def expr(self, level: int = 0) -> Expr:
        left = self.atom()
        while True:
            op, own = _INFIX_BY_SIGN.get(self.peek(), ("", -1))
            if own < level:
                return left
            self.take()
            right = self.expr(own + 1)
            if own == 0:
                left, level = ir.Compare(op, left, right), 1
            else:
                left = ir.Binary(op, left, right)

    def atom(self) -> Expr:
        kind, token, _ = self.tokens[self.at]
        if self.accept("("):
            inner = self.expr()
            self.take(")")
            return inner
        if kind == "number" or token in ("-", "true", "false", "inf", "nan"):
            return self.literal()
        if kind != "name":
            raise self.error(f"expected an expression, found {token or 'the end'!r}")
        if self.peek(1) == "(":
            self.at += 2
            return self.call(token)
        if self.peek(1) == "[":
            buffer, index, lanes, mask, otherwise, hint = self.access()
            if buffer not in self.buffers:
                raise self.error(f"unknown buffer {buffer!r}")
            return ir.Load(buffer, index, vector(self.buffers[buffer], lanes), mask, otherwise, hint)
        name = self.name()
        if name not in self.types:
            raise self.error(f"unknown name {name!r}")
        return Var(name, self.types[name])

    def literal(self) -> ir.Const:
        sign = "-" if self.accept("-") else ""
        token = sign + self.take()
        type = IDX
        if self.peek() == ":" and _TYPE.fullmatch(self.peek(1)):  # not the lanes of `x[0 : 16]`
            self.take()
            type = self.type()
        try:
            if type.dtype == "bool":
                return ir.Const({"true": True, "false": False}[token], type)
            if type.dtype in ir.INTEGERS:
                return ir.Const(int(token), type)
            value = float(token)
            return ir.Const(math.nan if value != value else value, type)
        except (KeyError, ValueError):
            raise self.error(f"{token!r} is no {type.dtype} literal") from None

    def call(self, name: str) -> Expr:
        """What follows `name(`."""
        if name == "splat":
            x = self.expr()
            self.take(",")
            return self.closed(ir.Broadcast(x, self.integer()))
        if name == "ramp":
            base = self.expr()
            self.take(",")
            step = self.expr()
            self.take(",")
            return self.closed(ir.Ramp(base, step, self.integer()))
        if name == "shuffle":
            left = self.expr()
            self.take(",")
            right = self.expr()
            self.take(",")
            self.take("[")
            return self.closed(ir.Shuffle(left, right, tuple(self.list_of(self.integer, "]"))))
        make, arity = self.constructor(name)
        args = self.list_of(self.expr, ")")
        if len(args) != arity:
            raise self.error(f"{name} takes {arity} operands, not {len(args)}")
        return make(*args)

    def closed(self, expr: Expr) -> Expr:
        self.take(")")
        return expr

    def constructor(self, name: str) -> tuple[Callable[..., Expr], int]:
        if name in ir.UNARY:
            return lambda x: ir.Unary(name, x), 1
        if name in ir.BINARY and name not in INFIX:
            return lambda a, b: ir.Binary(name, a, b), 2
        if name in ir.MATH:
            return lambda *args: ir.Math(name, args), ir.MATH[name]
        if name in ir.DOTS:
            return lambda *args: ir.Math(name, args), 3
        if name in ir.DTYPES:
            return lambda x: ir.Convert(x, name), 1
        if name.startswith("bits_") and name[5:] in ir.DTYPES:
            return lambda x: ir.Bitcast(x, name[5:]), 1
        if name.startswith("reduce_") and name[7:] in ir.REDUCE_LANES:
            return lambda x: ir.ReduceLanes(name[7:], x), 1
        fixed: dict[str, tuple[Callable[..., Expr], int]] = {
            "select": (ir.Select, 3),
            "extract": (ir.Extract, 2),
            "insert": (ir.Insert, 3),
        }
        if name in fixed:
            return fixed[name]
        raise self.error(f"unknown operation {name!r}")
