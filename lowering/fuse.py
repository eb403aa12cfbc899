"""Which values one kernel computes together.

First every value is either *stored* (it gets a buffer and is the root of a group) or *inlined* into the
groups that use it. Then groups over one index space are merged, as long as each reads the others only at
its own index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ingot.lowering import rules
from ingot.lowering.groups import Group, Unfusable
from ingot.lowering.kernels import dot, rows, scatter
from ingot.lowering.points import Apply, Number, Points, Read, reachable
from ingot.lowering.pull import Index, Puller, is_one, producers
from ingot.lowering.rules.reduce import UNROLLED, reduced_axes, unrolls
from ingot.lowering.rules.shape import regrouped
from ingot.tracer import dims
from ingot.tracer.dims import Extent
from ingot.tracer.graph import Graph, Literal, Node, Operand
from ingot.tracer.primitives.contract import DotGeneral
from ingot.tracer.primitives.index import DynamicSlice, Gather
from ingot.tracer.primitives.shape import BroadcastTo, Reshape, Reverse, Slice, Transpose

CHEAP = 2
"""Instructions up to which a value is computed again in each group that uses it, rather than stored."""
REPEATED = 4
"""The same for a value that is broadcast, so that one group would compute it again in every row."""
LAID_OUT = 64
"""Points of an operand that a contraction evaluates when it copies it, and their instructions, each as often
as it copies an element."""
GROUP_NODES = 4000
"""Largest group, in nodes that it computes."""

_VIEWS = (BroadcastTo, Reshape, Transpose, Slice, Reverse)


def fuse(graph: Graph) -> list[Group]:
    """Groups in an order in which they can run. The outputs of the graph must be distinct results of
    nodes."""
    return _Fuser(graph).groups()


def plan_of(graph: Graph, group: Group, stored: frozenset[int], needed: frozenset[int]):  # type: ignore[no-untyped-def]
    """The plan of a group by its kind; `needed` are the values whose buffers somebody reads. Host groups
    have none.

    Raises:
        Unfusable: when its members do not fit together.
    """
    outside = stored.difference(group.roots)
    match group.kind:
        case "rows":
            return rows.plan(graph, group, outside, needed)
        case "dot":
            return dot.plan(graph, group, outside, needed)
        case "scatter":
            return scatter.plan(graph, group, outside)
    raise ValueError(f"no plan for a group of kind {group.kind!r}")


class _Fuser:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made = producers(graph)
        self.kinds: dict[int, str] = {}
        for node in graph.nodes:
            self.kinds[id(node)] = self.kind(node)
        self.outputs = [o for o in graph.outputs if not isinstance(o, Literal)]
        self.cost = self.costs()
        self.aliases: dict[int, int] = {}

    def kind(self, node: Node) -> str:
        avals = [self.graph.aval_of(o) for o in node.operands]
        kind = rules.kind_of(node.primitive, avals, [self.graph.avals[r] for r in node.results])
        return "map" if kind == "reduce" and self.is_pairwise(node) else kind

    def is_pairwise(self, node: Node) -> bool:
        """Whether a node reduces a few elements each of which is computed from arrays that lack one of the
        axes of the result, so that the result is larger than what it is made of: squared distances of
        points. It is computed where it is used, without a loop."""
        (operand,) = node.operands
        if isinstance(operand, Literal) or not unrolls(node.primitive, self.graph.avals[operand]):
            return False
        shape = self.graph.avals[operand].shape
        reduced = reduced_axes(node.primitive)
        kept = {a for a, n in enumerate(shape) if a not in reduced and not is_one(n)}

        def nothing(value: int, index: Index) -> None:
            return None

        puller = Puller(self.graph, Points(), lambda v: not self.inlines(v), nothing)
        reads = [p for p in reachable([puller.pull(operand, rows.whole_index(shape))]) if isinstance(p, Read)]
        return bool(reads) and not any(kept <= p.axes for p in reads)

    def kind_of(self, value: Operand) -> str:
        if isinstance(value, Literal) or value not in self.made:
            return "leaf"
        return self.kinds[id(self.made[value])]

    def inlines(self, value: Operand) -> bool:
        return self.kind_of(value) in ("map", "view")

    def costs(self) -> dict[int, int]:
        """About how many instructions an element of each value takes, from what is certainly stored."""
        cost: dict[int, int] = {}
        for node in self.graph.nodes:
            kind = self.kinds[id(node)]
            own = rules.costs.get(type(node.primitive), int(kind == "map"))
            below = sum(cost.get(o, 0) for o in node.operands if not isinstance(o, Literal))
            if kind == "map" and rules.structured.get(type(node.primitive)) == "reduce":
                below = (below + 1) * UNROLLED
            inlined = kind in ("map", "view")
            cost.update((r, min(own + below, 1 << 20) if inlined else 0) for r in node.results)
        return cost

    # -- stored values ------------------------------------------------------------------------------

    def groups(self) -> list[Group]:
        self.stored = self.must_store()
        self.choose()
        leaves = range(self.graph.first_result)
        self.all_stored = frozenset(self.stored.union(leaves))
        groups = self.merge([self.group(root) for root in self.roots()])
        return self.ordered(self.unstored(groups))

    def must_store(self) -> set[int]:
        found = set(self.outputs)
        uses = Counter(o for node in self.graph.nodes for o in node.operands if not isinstance(o, Literal))
        for node in self.graph.nodes:
            kind = self.kinds[id(node)]
            if kind in ("map", "view"):
                continue
            found.update(node.results)
            for side, operand in enumerate(node.operands):
                if isinstance(operand, Literal):
                    continue
                if kind == "host":
                    found.add(operand)
                elif kind == "dot" and not (uses[operand] == 1 and self.is_laid_out(node, side)):
                    found.add(self.dot_operand(operand))
        return {v for v in found if v in self.made}

    def is_laid_out(self, node: Node, side: int) -> bool:
        """Whether a contraction copies an operand anyway, and may evaluate what is elementwise in it."""
        avals = [self.graph.aval_of(o) for o in node.operands]
        assert isinstance(node.primitive, DotGeneral)
        repeated = dot.repeats(node.primitive, avals, side)
        if repeated is None:
            return False

        def nothing(value: int, index: Index) -> None:
            return None

        puller = Puller(self.graph, Points(), lambda v: not self.inlines(v), nothing)
        found = reachable([puller.pull(node.operands[side], rows.whole_index(avals[side].shape))])
        applied = [p for p in found if isinstance(p, Apply)]
        # what follows another kernel's result belongs to that kernel
        first = self.graph.first_result
        plain = all(
            isinstance(p, Apply | Number)
            or (isinstance(p, Read) and p.value < first and not p.masks and not p.place.loaded)
            for p in found
        )
        cost = sum(rules.costs.get(type(p.primitive), 1) for p in applied)
        return bool(applied) and plain and len(found) <= LAID_OUT and cost * repeated <= LAID_OUT

    def dot_operand(self, operand: int) -> int:
        """What must be stored so that a contraction reads `operand` through affine views."""
        value = operand
        while value in self.made and isinstance(self.made[value].primitive, _VIEWS):
            below = self.made[value].operands[0]
            if isinstance(below, Literal):
                return operand
            value = below
        return value if self.is_affine(operand, value) else operand

    def is_affine(self, operand: int, base: int) -> bool:
        def nothing(value: int, index: Index) -> None:
            return None

        shape = self.graph.avals[operand].shape
        puller = Puller(self.graph, Points(), lambda v: v == base or v < self.graph.first_result, nothing)
        point = puller.pull(operand, rows.whole_index(shape))
        return not point.place.loaded if hasattr(point, "place") else True

    def choose(self) -> None:
        """Decide for each value that could be inlined, users before operands."""
        users: dict[int, list[Node]] = {}
        for node in self.graph.nodes:
            for operand in node.operands:
                if not isinstance(operand, Literal):
                    users.setdefault(operand, []).append(node)
        clusters: dict[int, frozenset[int]] = {}
        sizes: dict[int, int] = {}
        for node in reversed(self.graph.nodes):
            for value in node.results:
                reached: set[int] = set()
                for user in users.get(value, ()):
                    for result in user.results:
                        reached |= clusters.get(result, frozenset())
                if value in self.stored or not self.inlines(value):
                    clusters[value] = frozenset((value,))
                    continue
                crowded = any(sizes.get(c, 0) >= GROUP_NODES for c in reached)
                if crowded or self.better_stored(value, reached, users.get(value, ())):
                    self.stored.add(value)
                    reached = {value}
                for cluster in reached:
                    sizes[cluster] = sizes.get(cluster, 0) + 1
                clusters[value] = frozenset(reached)

    def better_stored(self, value: int, reached: set[int], users: Sequence[Node]) -> bool:
        cost = self.cost[value]
        if len(reached) > 1 and cost > CHEAP:
            return True
        return any(self.repeats(value, user, cost) for user in users)

    def repeats(self, value: int, user: Node, cost: int) -> bool:
        """Whether inlining `value` into `user` would compute it many times over, or by division of
        indices."""
        primitive = user.primitive
        shape = self.graph.avals[value].shape
        if isinstance(primitive, Reshape):
            return _splits_lanes(primitive.shape, shape)
        if isinstance(primitive, Gather | DynamicSlice):
            return user.operands[0] == value and cost > CHEAP
        if cost <= REPEATED or self.kinds[id(user)] not in ("map", "view"):
            return False
        if type(primitive) in rules.structured:
            return False
        result = self.graph.avals[user.results[0]].shape
        broadcasts = self.kinds[id(user)] == "map" or isinstance(primitive, BroadcastTo)
        return broadcasts and _repeated_along_rows(shape, result)

    # -- groups -------------------------------------------------------------------------------------

    def roots(self) -> list[int]:
        return sorted(self.stored)

    def group(self, root: int) -> Group:
        node = self.made[root]
        kind = self.kinds[id(node)]
        if kind == "reduce":
            space = self.graph.aval_of(node.operands[0]).shape
            return Group("rows", space, frozenset(reduced_axes(node.primitive)), (root,))
        if kind == "host":
            return Group("host", (), frozenset(), node.results)
        shape = self.graph.avals[root].shape
        return Group("rows" if kind in ("map", "view") else kind, shape, frozenset(), (root,))

    def reads(self, group: Group) -> set[int]:
        """Stored values outside of the group that it needs."""
        found: set[int] = set()
        seen: set[int] = set()
        stack: list[int] = []
        for root in group.roots:
            stack.extend(o for o in self.made[root].operands if not isinstance(o, Literal))
        while stack:
            value = stack.pop()
            if value in seen:
                continue
            seen.add(value)
            if value in self.all_stored:
                found.add(value)
            elif value in self.made:
                stack.extend(o for o in self.made[value].operands if not isinstance(o, Literal))
        return found.difference(group.roots)

    def merge(self, singles: Iterable[Group]) -> list[Group]:
        groups = list(dict.fromkeys(singles))
        state = _Groups(self, groups)
        for group in list(state.order()):
            for other in state.producers(group):
                merged = self.joined(state.groups[other], state.groups[group])
                if merged is not None and not state.path_around(other, group) and self.works(merged):
                    state.replace(other, group, merged)
        for group in list(state.order()):
            for other in state.siblings(group):
                if state.independent(group, other):  # an earlier merge may have changed that
                    merged = self.joined(state.groups[other], state.groups[group])
                    if merged is not None and self.works(merged):
                        state.replace(other, group, merged)
        return list(state.groups.values())

    def works(self, group: Group) -> bool:
        try:
            plan = plan_of(self.graph, group, self.all_stored, self.all_stored)
        except Unfusable:
            return False
        return len(plan.points()) <= GROUP_NODES

    def unstored(self, groups: Sequence[Group]) -> list[Group]:
        """The groups without values that only a later stage of their own group reads and that are cheap to
        compute again there, as `x - mean` of a normalisation, or for which there is no room but in memory of
        the size of the whole value."""
        found = []
        for group in groups:
            others = {v for g in groups if g is not group for v in self.reads(g)}
            for root in group.roots:
                if not group.reduced or len(group.roots) == 1 or root in others or root in self.outputs:
                    continue
                fewer = Group(
                    group.kind, group.space, group.reduced, tuple(r for r in group.roots if r != root)
                )
                before = self.all_stored
                needed = frozenset(r for r in group.roots if r in others or r in self.outputs)
                if self.kind_of(root) == "map" and self.is_computed_again(group, root, needed):
                    self.all_stored = before - {root}
                    if self.works(fewer):
                        group = fewer
                    else:
                        self.all_stored = before
            found.append(group)
        return found

    def is_computed_again(self, group: Group, root: int, needed: frozenset[int]) -> bool:
        """Whether an element of a root is made anew where it is read; `needed` are the roots that others
        read."""
        plan = plan_of(self.graph, group, self.all_stored, needed)
        if root not in plan.homes and root not in plan.scratch:
            return True
        points = [p for stage in plan.stages for value, _, p in stage.stores if value == root]
        each = [p for p in reachable(points) if isinstance(p, Apply) and p.axes & group.reduced]
        return sum(rules.costs.get(type(p.primitive), 1) for p in each) <= REPEATED

    def joined(self, first: Group, second: Group) -> Group | None:
        """One group of both, where their kinds and spaces allow it."""
        roots = tuple(sorted((*first.roots, *second.roots)))
        if first.kind == "dot" and second.kind == "rows":
            fits = not second.reduced and dims.same_shape(first.space, second.space)
            return Group("dot", first.space, frozenset(), roots) if fits else None
        if first.kind != "rows" or second.kind != "rows":
            return None
        a, b = (second, first) if second.reduced and not first.reduced else (first, second)
        if b.reduced:
            fits = a.reduced == b.reduced and dims.same_shape(a.space, b.space)
        elif dims.same_shape(a.space, b.space):
            # stores along columns would walk through memory in strides
            fits = not a.reduced or len(a.space) - 1 in a.reduced
        else:
            fits = bool(a.reduced) and _is_kept_shape(b.space, a)
        return Group("rows", a.space, a.reduced, roots) if fits else None

    def ordered(self, groups: Sequence[Group]) -> list[Group]:
        state = _Groups(self, groups)
        return [state.groups[key] for key in state.order()]


def _is_kept_shape(shape: Sequence[Extent], group: Group) -> bool:
    kept = [n for a, n in enumerate(group.space) if a not in group.reduced]
    ones = [1 if a in group.reduced else n for a, n in enumerate(group.space)]
    return dims.same_shape(shape, kept) or dims.same_shape(shape, ones)


def _splits_lanes(shape: Sequence[Extent], source: Sequence[Extent]) -> bool:
    """Whether a reshape makes its last axis out of several: an index along it must be divided lane by
    lane."""
    groups = regrouped(shape, source)
    return bool(groups) and len(groups[-1][1]) > 1


def _repeated_along_rows(shape: Sequence[Extent], result: Sequence[Extent]) -> bool:
    """Whether an operand of `shape` varies along an axis that has a broadcast axis in front of it."""
    padded = [1] * (len(result) - len(shape)) + list(shape)
    broadcast = False
    for n, m in zip(padded, result, strict=True):
        if is_one(n):
            broadcast = broadcast or not is_one(m)
        elif broadcast:
            return True
    return False


class _Groups:
    """Groups by number, with who needs whom."""

    def __init__(self, fuser: _Fuser, groups: Sequence[Group]) -> None:
        self.fuser = fuser
        self.groups = dict(enumerate(groups))
        self.writer = {root: key for key, group in self.groups.items() for root in group.roots}
        self.read = {key: fuser.reads(group) for key, group in self.groups.items()}

    def needs(self, key: int) -> set[int]:
        return {self.writer[v] for v in self.read[key] if v in self.writer} - {key}

    def order(self) -> list[int]:
        """Groups after those they need; by their first root where that leaves a choice."""
        done: dict[int, None] = {}
        for start in sorted(self.groups, key=lambda k: self.groups[k].roots):
            stack = [start]
            while stack:
                key = stack[-1]
                missing = sorted(k for k in self.needs(key) if k not in done)
                if missing:
                    stack.extend(missing)
                    continue
                stack.pop()
                done.setdefault(key)
        return list(done)

    def producers(self, key: int) -> list[int]:
        """Groups whose results a group reads, the latest first."""
        return sorted(self.needs(key), reverse=True) if key in self.groups else []

    def siblings(self, key: int) -> list[int]:
        """Groups of the same space that read something in common, neither depending on the other."""
        if key not in self.groups or self.groups[key].kind != "rows":
            return []
        mine = self.groups[key]
        found = [
            other for other, group in self.groups.items()
            if other < key and group.kind == "rows" and dims.same_shape(group.space, mine.space)
            and group.reduced == mine.reduced and self.read[other] & self.read[key]
        ]  # fmt: skip
        return [other for other in found if self.independent(key, other)]

    def independent(self, a: int, b: int) -> bool:
        """Whether neither of two groups needs the other."""
        return not self.reaches(a, b) and not self.reaches(b, a)

    def reaches(self, start: int, goal: int, skip: int | None = None) -> bool:
        """Whether `start` needs `goal`, directly or not; `skip`: not by this direct need of `start`."""
        seen: set[int] = set()
        stack = [k for k in self.needs(start) if k != skip]
        while stack:
            key = stack.pop()
            if key == goal:
                return True
            if key not in seen:
                seen.add(key)
                stack.extend(self.needs(key))
        return False

    def path_around(self, producer: int, consumer: int) -> bool:
        """Whether the consumer also needs the producer through a third group."""
        return self.reaches(consumer, producer, skip=producer)

    def replace(self, first: int, second: int, merged: Group) -> None:
        """`second` becomes `merged`; `first` is gone."""
        del self.groups[first], self.read[first]
        self.groups[second] = merged
        self.read[second] = self.fuser.reads(merged)
        self.writer.update((root, second) for root in merged.roots)
