"""custom_function: a function whose derivatives and batching the user writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

from ingot.tracer import tree
from ingot.tracer.array import array, record_all
from ingot.tracer.primitives.custom import CustomFunction, Rules, frozen
from ingot.tracer.state import state
from ingot.tracer.transforms.arguments import check_callable
from ingot.tracer.transforms.closed_call import ClosedCall, filled
from ingot.tracer.transforms.grad import zeros_like
from ingot.tracer.transforms.vmap import spread


class custom_function:  # noqa: N801  (MLX's name)
    """A function with rules of its own for `vjp`, `jvp` and `vmap`, set with decorators of these names.

        @mx.custom_function
        def f(x, y):
            return mx.sin(x) * y

        @f.vjp
        def f_vjp(primals, cotangents, outputs): ...   # cotangents of the primals

        @f.jvp
        def f_jvp(primals, tangents): ...              # tangents of the outputs

        @f.vmap
        def f_vmap(inputs, axes): ...                  # outputs and their axes

    Primals, tangents, inputs and axes are tuples of what the function takes, or that itself where it takes
    one argument; cotangents and outputs have the structure of its result. Keyword arguments are passed on.
    What has no rule is derived from the function. Arrays that it uses from outside have no cotangents where
    there is a rule. In a file the rules of derivatives are stored as graphs.
    """

    def __init__(self, f: Callable) -> None:
        check_callable("custom_function", f)
        update_wrapper(self, f)
        self._fun = f
        self._vjp: Callable | None = None
        self._jvp: Callable | None = None
        self._vmap: Callable | None = None
        self._known: dict[Any, Rules] = {}

    def vjp(self, f: Callable) -> custom_function:
        """Use `f(primals, cotangents, outputs)` for vector-Jacobian products."""
        return self._set("_vjp", f)

    def jvp(self, f: Callable) -> custom_function:
        """Use `f(primals, tangents)` for Jacobian-vector products."""
        return self._set("_jvp", f)

    def vmap(self, f: Callable) -> custom_function:
        """Use `f(inputs, axes)` for mapped calls; it returns outputs and axes."""
        return self._set("_vmap", f)

    def _set(self, rule: str, f: Callable) -> custom_function:
        check_callable("custom_function", f)
        setattr(self, rule, f)
        self._known.clear()
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ruled = self._vjp or self._jvp or self._vmap
        has_array = any(isinstance(x, array) for x in tree.leaves((args, kwargs)))
        if not ruled or not state.depth or not has_array:
            return self._fun(*args, **kwargs)
        call = ClosedCall(self._fun, args, kwargs)
        rules = self._rules(call.structure, call.statics, call.out_tree, call.made_statics)
        custom = CustomFunction(call.traced.graph, "custom", len(call.operands), None, None, rules)
        if state.exporting:
            return call.result(frozen(custom, call.handles))
        return call.result(record_all(custom, *[h._value for h in call.handles]))

    def _rules(self, structure: tree.Tree, statics: Any, out_tree: tree.Tree, made_statics: Any) -> Rules:
        """The rules on flat lists, the same object for the same call."""
        key = (structure, statics, out_tree, made_statics)
        try:
            return self._known[key]
        except KeyError:
            pass
        except TypeError:  # an argument that cannot be hashed
            return _Flat(self, *key).rules()
        return self._known.setdefault(key, _Flat(self, *key).rules())


class _Flat:
    """One way to call a custom function: between flat lists of arrays and what the user's rules take."""

    def __init__(
        self,
        owner: custom_function,
        structure: tree.Tree,
        statics: Sequence[tuple[Any] | None],
        out_tree: tree.Tree,
        made_statics: Sequence[tuple[Any] | None],
    ) -> None:
        self.name = getattr(owner._fun, "__name__", "f")
        self.given = owner._vjp, owner._jvp, owner._vmap
        self.structure, self.statics = structure, statics
        self.out_tree, self.made_statics = out_tree, made_statics

    def rules(self) -> Rules:
        vjp, jvp, vmap = self.given
        return Rules(
            self.backward if vjp else None, self.forward if jvp else None, self.batched if vmap else None
        )

    def arguments(self, values: Sequence[Any], static: bool = True) -> tuple[Any, dict[str, Any]]:
        """Positional arguments (one alone stands for itself) and keywords around `values`."""
        found = iter(values)
        leaves = [next(found) if s is None else s[0] if static else None for s in self.statics]
        args, kwargs = tree.unflatten(self.structure, leaves)
        return (args[0] if len(args) == 1 else args), kwargs

    def results(self, values: Sequence[Any]) -> Any:
        return filled(self.out_tree, self.made_statics, values)

    def backward(
        self, primals: Sequence[array], seeds: Sequence[array], results: Sequence[array]
    ) -> list[array]:
        rule = self.given[0]
        assert rule is not None
        args, kwargs = self.arguments(primals)
        given = iter(seeds)
        cotangents = [next(given) if r.dtype.is_inexact else zeros_like(r) for r in results]
        answer = rule(args, self.results(cotangents), self.results(results), **kwargs)
        args_tree = self.structure.children[0]
        if len(args_tree.children) == 1:
            args_tree = args_tree.children[0]
        found = _aligned(args_tree, answer)
        if found is None:
            raise ValueError(
                f"[custom_function] the vjp of {self.name} must return cotangents in the structure of its "
                f"positional arguments, got {answer!r}."
            )
        found += [None] * (len(self.statics) - len(found))  # keywords
        answers = [c for c, s in zip(found, self.statics, strict=True) if s is None]
        return [
            zeros_like(p) if c is None else c
            for p, c in zip(primals, answers, strict=True)
            if p.dtype.is_inexact
        ]

    def forward(self, primals: Sequence[array], pushed: Sequence[array]) -> list[array]:
        rule = self.given[1]
        assert rule is not None
        args, kwargs = self.arguments(primals)
        given = iter(pushed)
        tangents = [next(given) if p.dtype.is_inexact else zeros_like(p) for p in primals]
        answer = rule(args, self.arguments(tangents)[0], **kwargs)
        leaves = [x for x in tree.leaves(answer) if isinstance(x, array)]
        wanted = sum(s is None for s in self.made_statics)
        if len(leaves) != wanted:
            raise ValueError(
                f"[custom_function] the jvp of {self.name} must return {wanted} tangents, got {len(leaves)}."
            )
        return [x for x in leaves if x.dtype.is_inexact]

    def batched(
        self, operands: Sequence[array], axes: Sequence[int | None]
    ) -> tuple[list[array], list[int | None]]:
        rule = self.given[2]
        assert rule is not None
        args, kwargs = self.arguments(operands)
        answer, out_axes = rule(args, self.arguments(axes, static=False)[0], **kwargs)
        leaves, structure = tree.flatten(answer)
        wanted = sum(s is None for s in self.made_statics)
        arrays = [x for x in leaves if isinstance(x, array)]
        found = spread("out_axes", out_axes, structure)
        if len(arrays) != wanted:
            raise ValueError(
                f"[custom_function] the vmap of {self.name} must return {wanted} arrays, got {len(arrays)}."
            )
        return arrays, [a for a, x in zip(found, leaves, strict=True) if isinstance(x, array)]


def _aligned(structure: tree.Tree, value: Any) -> list[array | None] | None:
    """Leaves of `value` for those of `structure`, None for a missing part; None when they do not fit."""
    if value is None:
        return [None] * structure.n_leaves
    if structure.kind == "leaf":
        return [value] if isinstance(value, array) else [None]
    children = tree.children(value)
    if children is None or len(children) != len(structure.children):
        return None
    parts = [_aligned(s, c) for s, c in zip(structure.children, children, strict=True)]
    return None if any(p is None for p in parts) else [x for p in parts for x in p or ()]
