"""Native functions (see `language`) to LLVM text. Variables are stack slots, which LLVM makes registers."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from ingot.lowering.llvm.target import Target
from ingot.lowering.llvm.writer import Writer, scalar_literal
from ingot.lowering.native import language
from ingot.lowering.native.language import (
    BOOL,
    FunctionType,
    PointerTo,
    Scalar,
    Struct,
    resolve,
    size_of,
    type_name,
)


class NativeError(TypeError):
    """A native function uses what the subset does not have; the message begins with file and line."""


def translate(module: ModuleType, target: Target) -> str:
    """The LLVM module of all native functions of a Python module. Raises NativeError."""
    source = inspect.getsource(module)
    names = vars(module)
    nodes = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(d) == "native" for d in node.decorator_list)
    ]
    where = module.__file__ or module.__name__
    signatures: dict[str, FunctionType] = {}
    for node in nodes:
        try:
            signatures[node.name] = _signature(node, names)
        except TypeError as error:
            raise NativeError(f"{where}:{node.lineno}: {error}") from None
    scope = _Scope(where, names, signatures, target)
    texts = [_Function(scope, node).text() for node in nodes]
    return "\n".join([
        f'target triple = "{target.triple}"', *texts, 'attributes #0 = { nounwind "no-builtins" }', "",
    ])  # fmt: skip


def _signature(node: ast.FunctionDef, names: dict[str, Any]) -> FunctionType:
    result = None if node.returns is None else resolve(node.returns, names)
    return FunctionType(tuple(resolve(a.annotation, names) for a in node.args.args), result)


@dataclass(frozen=True)
class _Scope:
    where: str
    names: dict[str, Any]
    signatures: dict[str, FunctionType]
    target: Target


@dataclass(frozen=True)
class _Value:
    """A typed LLVM value; `literal` is the number where it is one, which takes the type of what it meets."""

    text: str
    type: Any
    literal: int | float | None = None


_ARITHMETIC = {
    ast.Add: ("add", "fadd"), ast.Sub: ("sub", "fsub"), ast.Mult: ("mul", "fmul"), ast.BitAnd: ("and", ""),
    ast.BitOr: ("or", ""), ast.BitXor: ("xor", ""), ast.LShift: ("shl", ""),
}  # fmt: skip
_DIVISION = {ast.FloorDiv: "div", ast.Mod: "rem"}
_COMPARISON = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
}  # fmt: skip


class _Function:
    def __init__(self, scope: _Scope, node: ast.FunctionDef) -> None:
        self.scope, self.node = scope, node
        self.signature = scope.signatures[node.name]
        self.w = Writer()
        self.slots: dict[str, tuple[str, Any]] = {}
        self.loops: list[tuple[str, str]] = []  # labels for continue and break
        self.open = True  # whether the current block still lacks its end

    def text(self) -> str:
        arguments = []
        for argument, kind in zip(self.node.args.args, self.signature.arguments, strict=True):
            arguments.append(f"{llvm(kind)} %given.{argument.arg}")  # apart from the names of blocks
            self.assign_name(argument.arg, _Value(f"%given.{argument.arg}", kind), self.node)
        self.block(self.node.body)
        if self.open:
            if self.signature.result is not None:
                self.fail(self.node, f"{self.node.name} may end without a result")
            self.w.do("ret void")
        linkage = "internal" if self.node.name.startswith("_") else "dso_local"
        result = llvm(self.signature.result)
        head = f"define {linkage} {result} @{self.node.name}({', '.join(arguments)}) #0 {{"
        return "\n".join([head, "entry:", *self.w.entry, *self.w.lines, "}"])

    def fail(self, node: ast.AST, message: str) -> Any:
        raise NativeError(f"{self.scope.where}:{getattr(node, 'lineno', 0)}: {message}")

    # -- control ------------------------------------------------------------------------------------

    def start(self, label: str) -> None:
        if self.open:
            self.w.do(f"br label %{label}")
        self.w.start(label)
        self.open = True

    def jump(self, label: str) -> None:
        if self.open:
            self.w.do(f"br label %{label}")
        self.open = False

    def block(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            if not self.open:
                self.fail(statement, "this is never reached")
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Expr(value=ast.Call() as call):
                self.call(call)
            case ast.Assign(targets=[target], value=value):
                self.assign(target, value)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as value):
                kind = self.type(annotation)
                self.assign_name(name, self.coerce(self.expression(value), kind, node), node, kind)
            case ast.AugAssign(target=target, op=op, value=value):
                self.assign(target, ast.copy_location(ast.BinOp(_read(target), op, value), node))
            case ast.Return(value=None):
                self.w.do("ret void")
                self.open = False
            case ast.Return(value=ast.expr() as value):
                result = self.coerce(self.expression(value), self.signature.result, node)
                self.w.do(f"ret {llvm(result.type)} {result.text}")
                self.open = False
            case ast.If():
                self.if_(node)
            case ast.While(test=test, body=body, orelse=[]):
                self.loop(test, body, None)
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=args),
                         body=body, orelse=[]) if 1 <= len(args) <= 2:  # fmt: skip
                self.range(node, name, args, body)
            case ast.Break() if self.loops:
                self.jump(self.loops[-1][1])
            case ast.Continue() if self.loops:
                self.jump(self.loops[-1][0])
            case _:
                self.fail(node, f"`{ast.unparse(node).splitlines()[0]}` is not in the subset")

    def if_(self, node: ast.If) -> None:
        yes, no, after = (self.w.fresh(hint) for hint in ("then", "else", "endif"))
        self.branch(node.test, yes, no if node.orelse else after)
        reached = not node.orelse
        for label, body in ((yes, node.body), (no, node.orelse)):
            if body:
                self.w.start(label)
                self.open = True
                self.block(body)
                reached |= self.open
                self.jump(after)
        if reached:
            self.w.start(after)
            self.open = True

    def loop(self, test: ast.expr, body: Sequence[ast.stmt], step: ast.stmt | None) -> None:
        head, inside, next_, after = (self.w.fresh(hint) for hint in ("while", "do", "next", "done"))
        self.start(head)
        endless = isinstance(test, ast.Constant) and test.value is True
        if endless:
            self.jump(inside)
        else:
            self.branch(test, inside, after)
        self.w.start(inside)
        self.open = True
        self.loops.append((next_, after))
        at = len(self.w.lines)
        self.block(body)
        self.loops.pop()
        self.start(next_)
        if step is not None:
            self.statement(step)
        self.jump(head)
        if not endless or any(f"label %{after}" in line for line in self.w.lines[at:]):
            self.w.start(after)
            self.open = True

    def range(self, node: ast.For, name: str, args: list[ast.expr], body: Sequence[ast.stmt]) -> None:
        i64 = language.i64
        lo = self.expression(args[0]) if len(args) == 2 else _Value("0", i64, 0)
        self.assign_name(name, self.coerce(lo, i64, node), node, i64)
        hidden = self.w.fresh("range")
        self.assign_name(hidden, self.coerce(self.expression(args[-1]), i64, node), node, i64)
        index, end = ast.Name(name, ast.Load()), ast.Name(hidden, ast.Load())
        test = ast.Compare(index, [ast.Lt()], [end])
        step = ast.Assign([ast.Name(name, ast.Store())], ast.BinOp(index, ast.Add(), ast.Constant(1)))
        for made in (test, step):
            ast.copy_location(made, node)
        self.loop(test, body, step)

    def branch(self, test: ast.expr, yes: str, no: str) -> None:
        """Go to one of two labels; ends the block."""
        match test:
            case ast.BoolOp(op=op, values=[first, *rest]) if rest:
                more = self.w.fresh("and" if isinstance(op, ast.And) else "or")
                if isinstance(op, ast.And):
                    self.branch(first, more, no)
                else:
                    self.branch(first, yes, more)
                self.w.start(more)
                self.open = True
                remaining = rest[0] if len(rest) == 1 else ast.copy_location(ast.BoolOp(op, rest), test)
                self.branch(remaining, yes, no)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.branch(operand, no, yes)
            case _:
                value = self.condition(test)
                self.w.do(f"br i1 {value.text}, label %{yes}, label %{no}")
                self.open = False

    def condition(self, node: ast.expr) -> _Value:
        value = self.expression(node)
        if value.type is not BOOL:
            self.fail(node, f"a condition must be bool, not {type_name(value.type)}")
        return value

    # -- assignment ---------------------------------------------------------------------------------

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        given = self.expression(value)
        if isinstance(target, ast.Name):
            self.assign_name(target.id, given, target)
            return
        place, kind = self.place(target)
        self.store(self.coerce(given, kind, target), place)

    def assign_name(self, name: str, value: _Value, node: ast.AST, kind: Any = None) -> None:
        if name not in self.slots:
            kind = value.type if kind is None else kind
            if kind is None:
                self.fail(node, f"{name} would have no value")
            self.slots[name] = (self.w.allocate(f"alloca {memory(kind)}", name), kind)
        slot, kind = self.slots[name]
        self.store(self.coerce(value, kind, node), slot)

    def store(self, value: _Value, place: str) -> None:
        text = self.w.op(f"zext i1 {value.text} to i8") if value.type is BOOL else value.text
        self.w.do(f"store {memory(value.type)} {text}, ptr {place}")

    def load(self, place: str, kind: Any, ordering: str = "") -> _Value:
        text = self.w.op(f"load {ordering and 'atomic '}{memory(kind)}, ptr {place}{ordering}")
        return _Value(self.w.op(f"trunc i8 {text} to i1") if kind is BOOL else text, kind)

    def place(self, node: ast.expr) -> tuple[str, Any]:
        """The address and type of a field or an element."""
        match node:
            case ast.Attribute(value=base, attr=field):
                struct = self.expression(base)
                if not _is_struct(struct.type):
                    self.fail(node, f"{ast.unparse(base)} is no structure, but {type_name(struct.type)}")
                found = struct.type.layout().get(field)
                if found is None:
                    self.fail(node, f"{type_name(struct.type)} has no field {field}")
                return self.w.op(f"getelementptr i8, ptr {struct.text}, i64 {found[0]}"), found[1]
            case ast.Subscript(value=base, slice=index):
                pointer = self.expression(base)
                if not isinstance(pointer.type, PointerTo):
                    self.fail(node, f"{ast.unparse(base)} has no elements, but is {type_name(pointer.type)}")
                at = self.coerce(self.expression(index), language.i64, node)
                element = pointer.type.element
                if _is_struct(element):
                    self.fail(node, "elements that are structures are reached by `offset` and `cast`")
                text = f"getelementptr {memory(element)}, ptr {pointer.text}, i64 {at.text}"
                return self.w.op(text), element
        return self.fail(node, f"{ast.unparse(node)} is no place in memory")

    # -- expressions --------------------------------------------------------------------------------

    def type(self, node: ast.expr) -> Any:
        try:
            return resolve(node, self.scope.names)
        except TypeError as error:
            return self.fail(node, str(error))

    def coerce(self, value: _Value, kind: Any, node: ast.AST) -> _Value:
        if value.literal is not None and isinstance(kind, Scalar) and kind.llvm not in ("ptr", "i1"):
            if isinstance(value.literal, float) and kind.llvm not in ("float", "double"):
                self.fail(node, f"{value.literal} is no {kind}")
            return _Value(scalar_literal(value.literal, kind.llvm), kind, value.literal)
        if value.type is kind or value.type == kind:
            return value
        if _is_address(kind) and (value.text == "null" or kind is language.ptr) and _is_address(value.type):
            return _Value(value.text, kind)
        return self.fail(node, f"expected {type_name(kind)}, got {type_name(value.type)}")

    def both(self, left: ast.expr, right: ast.expr, node: ast.AST) -> tuple[_Value, _Value]:
        """Two operands as one type."""
        a, b = self.expression(left), self.expression(right)
        if a.literal is not None and b.literal is None:
            return self.coerce(a, b.type, node), b
        if _is_address(a.type) and _is_address(b.type):
            return a, b
        return a, self.coerce(b, a.type, node)

    def expression(self, node: ast.expr) -> _Value:
        match node:
            case ast.Constant(value=bool(flag)):
                return _Value("true" if flag else "false", BOOL)
            case ast.Constant(value=int() | float() as number):
                return _literal(number)
            case ast.Name(id=name):
                return self.name(node, name)
            case ast.Attribute() | ast.Subscript():
                place, kind = self.place(node)
                return self.load(place, kind)
            case ast.BinOp(left=left, op=op, right=right):
                return self.arithmetic(node, left, op, right)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self.expression(operand)
                if value.literal is not None:
                    return _literal(-value.literal, value.type)
                text = "fneg {t} {v}" if _is_float(value.type) else "sub {t} 0, {v}"
                return _Value(self.w.op(text.format(t=llvm(value.type), v=value.text)), value.type)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                value = self.expression(operand)
                return _Value(self.w.op(f"xor {llvm(value.type)} {value.text}, -1"), value.type)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _Value(self.w.op(f"xor i1 {self.condition(operand).text}, true"), BOOL)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self.compare(node, left, op, right)
            case ast.BoolOp() | ast.Compare():
                yes, no = ast.Constant(True), ast.Constant(False)
                return self.choice(ast.copy_location(ast.IfExp(node, yes, no), node))
            case ast.IfExp():
                return self.choice(node)
            case ast.Call():
                result = self.call(node)
                return self.fail(node, f"{ast.unparse(node.func)} has no value") if result is None else result
        return self.fail(node, f"`{ast.unparse(node)}` is not in the subset")

    def name(self, node: ast.expr, name: str) -> _Value:
        if name in self.slots:
            slot, kind = self.slots[name]
            return self.load(slot, kind)
        if name == "null":
            return _Value("null", language.ptr)
        value = self.scope.names.get(name)
        if isinstance(value, bool):
            return _Value("true" if value else "false", BOOL)
        if isinstance(value, int | float):
            return _literal(value)
        return self.fail(node, f"{name} is not known here")

    def arithmetic(self, node: ast.expr, left: ast.expr, op: ast.operator, right: ast.expr) -> _Value:
        a, b = self.both(left, right, node)
        kind = a.type
        if not isinstance(kind, Scalar) or kind.llvm in ("ptr", "i1"):
            self.fail(node, f"no arithmetic on {type_name(kind)}")
        if type(op) in _ARITHMETIC:
            text = _ARITHMETIC[type(op)][_is_float(kind)]
        elif isinstance(op, ast.RShift):
            text = "ashr" if kind.signed else "lshr"
        elif type(op) in _DIVISION and not _is_float(kind):
            text = ("s" if kind.signed else "u") + _DIVISION[type(op)]
        else:
            text = "fdiv" if isinstance(op, ast.Div) and _is_float(kind) else ""
        if not text:
            self.fail(node, f"`{ast.unparse(node)}` is not in the subset")
        return _Value(self.w.op(f"{text} {llvm(kind)} {a.text}, {b.text}"), kind)

    def compare(self, node: ast.expr, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Value:
        if type(op) not in _COMPARISON:
            self.fail(node, f"`{ast.unparse(node)}` is not in the subset")
        a, b = self.both(left, right, node)
        how = _COMPARISON[type(op)]
        if _is_float(a.type):
            text = f"fcmp {'une' if how == 'ne' else 'o' + how}"
        else:
            sign = "" if how in ("eq", "ne") else "s" if getattr(a.type, "signed", False) else "u"
            text = f"icmp {sign}{how}"
        return _Value(self.w.op(f"{text} {llvm(a.type)} {a.text}, {b.text}"), BOOL)

    def choice(self, node: ast.IfExp) -> _Value:
        yes, no, after = (self.w.fresh(hint) for hint in ("yes", "no", "chosen"))
        self.branch(node.test, yes, no)
        self.w.start(yes)
        self.open = True
        a = self.expression(node.body)
        from_yes = self.w.block
        self.w.do(f"br label %{after}")
        self.w.start(no)
        b = self.expression(node.orelse)
        if a.literal is not None:
            a = self.coerce(a, b.type, node)
        else:
            b = self.coerce(b, a.type, node)
        from_no = self.w.block
        self.w.do(f"br label %{after}")
        self.w.start(after)
        phi = f"phi {llvm(a.type)} [ {a.text}, %{from_yes} ], [ {b.text}, %{from_no} ]"
        return _Value(self.w.op(phi), a.type)

    # -- calls --------------------------------------------------------------------------------------

    def call(self, node: ast.Call) -> _Value | None:
        if node.keywords:
            self.fail(node, "no keywords in native calls")
        if isinstance(node.func, ast.Name):
            name = node.func.id
            if name in self.scope.signatures:
                return self.invoke(node, f"@{name}", self.scope.signatures[name])
            if name in self.slots:
                pointer = self.name(node.func, name)
                if isinstance(pointer.type, FunctionType):
                    return self.invoke(node, pointer.text, pointer.type)
                return self.fail(node, f"{name} cannot be called")
            known = self.scope.names.get(name)
            if isinstance(known, Scalar):
                return self.convert(node, self.expression(node.args[0]), known)
            if known in language.OPERATIONS:
                return getattr(self, f"op_{known.__name__}")(node, *node.args)
        elif isinstance(node.func, ast.Attribute):
            pointer = self.expression(node.func)
            if isinstance(pointer.type, FunctionType):
                return self.invoke(node, pointer.text, pointer.type)
        return self.fail(node, f"{ast.unparse(node.func)} cannot be called")

    def invoke(self, node: ast.Call, target: str, signature: FunctionType) -> _Value | None:
        if len(node.args) != len(signature.arguments):
            self.fail(node, f"expected {len(signature.arguments)} arguments, got {len(node.args)}")
        values = [
            self.coerce(self.expression(argument), kind, node)
            for argument, kind in zip(node.args, signature.arguments, strict=True)
        ]
        given = ", ".join(f"{llvm(v.type)} {v.text}" for v in values)
        text = f"call {llvm(signature.result)} {target}({given})"
        if signature.result is None:
            self.w.do(text)
            return None
        return _Value(self.w.op(text), signature.result)

    def convert(self, node: ast.AST, value: _Value, kind: Scalar) -> _Value:
        if value.literal is not None:
            return replace(self.coerce(value, kind, node), literal=None)
        given = value.type
        if not isinstance(given, Scalar) or "ptr" in (given.llvm, kind.llvm):
            self.fail(node, f"{type_name(given)} to {kind}: use cast")
        if given.llvm == kind.llvm:
            return _Value(value.text, kind)
        if _is_float(given) and _is_float(kind):
            op = "fpext" if kind.size > given.size else "fptrunc"
        elif _is_float(given):
            return self.fail(node, f"{given} to {kind}")
        elif _is_float(kind):
            op = "sitofp" if given.signed else "uitofp"
        elif given is not BOOL and kind.size < given.size:
            op = "trunc"
        else:
            op = "sext" if given.signed else "zext"
        return _Value(self.w.op(f"{op} {given.llvm} {value.text} to {kind.llvm}"), kind)

    def op_cast(self, node: ast.Call, kind: ast.expr, value: ast.expr) -> _Value:
        to, given = self.type(kind), self.expression(value)
        if _is_address(to) and _is_address(given.type):
            return _Value(given.text, to)
        if _is_address(to) and given.type in (language.i64, language.u64):
            return _Value(self.w.op(f"inttoptr i64 {given.text} to ptr"), to)
        if to is language.i64 and _is_address(given.type):
            return _Value(self.w.op(f"ptrtoint ptr {given.text} to i64"), to)
        return self.fail(node, f"no cast from {type_name(given.type)} to {type_name(to)}")

    def op_offset(self, node: ast.Call, pointer: ast.expr, nbytes: ast.expr) -> _Value:
        base = self.expression(pointer)
        if not _is_address(base.type):
            self.fail(node, f"{type_name(base.type)} is no address")
        distance = self.coerce(self.expression(nbytes), language.i64, node)
        return _Value(self.w.op(f"getelementptr i8, ptr {base.text}, i64 {distance.text}"), language.ptr)

    def op_address(self, node: ast.Call, place: ast.expr) -> _Value:
        text, kind = self.place(place)
        return _Value(text, PointerTo(kind))

    def op_function(self, node: ast.Call, target: ast.expr) -> _Value:
        if not isinstance(target, ast.Name) or target.id not in self.scope.signatures:
            self.fail(node, f"{ast.unparse(target)} is no native function")
        return _Value(f"@{target.id}", language.ptr)  # type: ignore[attr-defined]

    def op_stack(self, node: ast.Call, kind: ast.expr, count: ast.expr) -> _Value:
        element, number = self.type(kind), self.expression(count).literal
        if not isinstance(number, int):
            self.fail(node, "the count must be a constant")
        slot = self.w.allocate(f"alloca [{number} x {memory(element)}], align 16", "stack")
        return _Value(slot, PointerTo(element))

    def op_local(self, node: ast.Call, kind: ast.expr) -> _Value:
        struct = self.type(kind)
        if not _is_struct(struct):
            self.fail(node, f"{ast.unparse(kind)} is no structure")
        return _Value(self.w.allocate(f"alloca [{struct.size()} x i8], align 16", "local"), struct)

    def op_sizeof(self, node: ast.Call, kind: ast.expr) -> _Value:
        type = self.type(kind)
        return _literal(type.size() if _is_struct(type) else size_of(type))

    def op_atomic_load(self, node: ast.Call, place: ast.expr) -> _Value:
        pointer, kind = self.atomic(place)
        return self.load(pointer, kind, f" acquire, align {size_of(kind)}")

    def op_atomic_store(self, node: ast.Call, place: ast.expr, value: ast.expr) -> None:
        pointer, kind = self.atomic(place)
        given = self.coerce(self.expression(value), kind, node)
        self.w.do(f"store atomic {memory(kind)} {given.text}, ptr {pointer} release, align {size_of(kind)}")

    def op_atomic_add(self, node: ast.Call, place: ast.expr, value: ast.expr) -> _Value:
        return self.read_modify_write(node, "add", place, value)

    def op_atomic_exchange(self, node: ast.Call, place: ast.expr, value: ast.expr) -> _Value:
        return self.read_modify_write(node, "xchg", place, value)

    def read_modify_write(self, node: ast.Call, op: str, place: ast.expr, value: ast.expr) -> _Value:
        pointer, kind = self.atomic(place)
        given = self.coerce(self.expression(value), kind, node)
        text = f"atomicrmw {op} ptr {pointer}, {memory(kind)} {given.text} seq_cst"
        return _Value(self.w.op(text), kind)

    def op_compare_exchange(
        self, node: ast.Call, place: ast.expr, expected: ast.expr, value: ast.expr
    ) -> _Value:
        pointer, kind = self.atomic(place)
        old = self.coerce(self.expression(expected), kind, node)
        new = self.coerce(self.expression(value), kind, node)
        t = memory(kind)
        pair = self.w.op(f"cmpxchg ptr {pointer}, {t} {old.text}, {t} {new.text} seq_cst seq_cst")
        return _Value(self.w.op(f"extractvalue {{ {t}, i1 }} {pair}, 0"), kind)

    def atomic(self, place: ast.expr) -> tuple[str, Any]:
        pointer = self.expression(place)
        if not isinstance(pointer.type, PointerTo) or pointer.type.element is BOOL:
            self.fail(place, f"no atomic access to {type_name(pointer.type)}")
        return pointer.text, pointer.type.element

    def op_fence(self, node: ast.Call) -> None:
        self.w.do("fence seq_cst")

    def op_pause(self, node: ast.Call) -> None:
        x86 = self.scope.target.triple.startswith("x86_64")
        self.w.do(f"call void @llvm.{'x86.sse2.pause()' if x86 else 'aarch64.hint(i32 1)'}")


def llvm(kind: Any) -> str:
    """The LLVM type of a value in a register."""
    if kind is None:
        return "void"
    return kind.llvm if isinstance(kind, Scalar) else "ptr"


def memory(kind: Any) -> str:
    """The LLVM type of a value in memory."""
    return "i8" if kind is BOOL else llvm(kind)


def _literal(number: int | float, kind: Any = None) -> _Value:
    kind = (language.f64 if isinstance(number, float) else language.i64) if kind is None else kind
    return _Value(scalar_literal(number, kind.llvm), kind, number)


def _read(target: ast.expr) -> ast.expr:
    """The place of an augmented assignment, as an operand."""
    return ast.copy_location(ast.parse(ast.unparse(target), mode="eval").body, target)


def _is_float(kind: Any) -> bool:
    return isinstance(kind, Scalar) and kind.llvm in ("float", "double")


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _is_address(kind: Any) -> bool:
    return kind is language.ptr or isinstance(kind, PointerTo | FunctionType) or _is_struct(kind)
