"""One call of a function as a closed graph, for transforms that record it as one operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ingot.tracer import tree
from ingot.tracer.array import array, wrap
from ingot.tracer.state import next_serial, tracing
from ingot.tracer.trace import build_graph, concrete_argument


class ClosedCall:
    """`fun(*args, **kwargs)`, run once on fresh arguments.

    Values stay known where they are, so that Python control flow works as in `fun`; and what `fun` leaves
    behind in its surroundings stays connected to them.

    structure, statics: the arguments as a tree and, for each leaf, None for an array or a tuple of what it
    is. out_tree, made_statics: the same of the result. operands: the arrays among the arguments. handles: the
    operands of the graph, which are those and then what `fun` uses from outside.
    """

    def __init__(self, fun: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves, self.structure = tree.flatten((args, kwargs))
        self.operands = [x for x in leaves if isinstance(x, array)]
        self.statics = _statics(leaves)
        with tracing():
            since = next_serial()
            arguments = [concrete_argument(x) for x in self.operands]
            inputs = [a._value for a in arguments]  # before `fun` may update them in place
            new_args, new_kwargs = filled(self.structure, self.statics, arguments)
            out, self.out_tree = tree.flatten(fun(*new_args, **new_kwargs))
            self.made_statics = _statics(out)
            name = getattr(fun, "__name__", "f")
            self.traced = build_graph(
                name if name.isidentifier() else "f",
                inputs,
                [x._value for x in out if isinstance(x, array)],
                since=since,
                close=True,
            )
        self.handles = [*self.operands, *(wrap(v) for v in self.traced.captured)]

    def result(self, made: Sequence[array]) -> Any:
        """What the call returns, around the results of its graph."""
        return filled(self.out_tree, self.made_statics, made)


Statics = Sequence[tuple[Any] | None]


def _statics(leaves: Sequence[Any]) -> tuple[tuple[Any] | None, ...]:
    return tuple([None if isinstance(x, array) else (x,) for x in leaves])


def filled(structure: tree.Tree, statics: Statics, values: Sequence[Any]) -> Any:
    """The tree with `values` where its leaves are no statics."""
    found = iter(values)
    return tree.unflatten(structure, [next(found) if s is None else s[0] for s in statics])
