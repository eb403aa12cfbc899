"""Kernels to Program: numbers the values of a graph and of the graphs inside its loops and branches, puts
their kernels in one list of steps, and says where every value lives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ingot.lowering import cost, memory
from ingot.lowering.groups import Group, Pack
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop_text import print_kernel
from ingot.lowering.program import HostCall, KernelCode, Program, Step
from ingot.lowering.pull import producers
from ingot.lowering.schedule import Scheduled, nodes_of
from ingot.tracer import dims
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent, Guard
from ingot.tracer.graph import Graph, Literal, Node, Operand
from ingot.tracer.primitives.control import Cond, WhileLoop
from ingot.tracer.primitives.elementwise import Identity
from ingot.tracer.primitives.reduce import ArgReduce
from ingot.tracer.text import print_graph
from ingot.tracer.trace import match_dims

Parts = Sequence[Scheduled | Group]
Schedule = Callable[[Graph, frozenset[int]], Parts]
"""The kernels and host calls of a graph; some of its inputs are constants of the program."""
Simplify = Callable[[Graph], Graph]


def assemble(graph: Graph, parts: Parts, target: Target, simplify: Simplify, schedule: Schedule) -> Program:
    """The program of a graph and its parts in order. `simplify` and `schedule` are for the graphs inside its
    loops and branches."""
    made = _Assembler(graph, target, simplify, schedule)
    made.run(graph, parts, dict(made.outside))
    all_steps = [*made.once, *made.steps]
    plan = memory.plan(made.avals, made.places, [(mark, values) for mark, _, _, values in all_steps])
    steps = tuple(
        Step(kernel, host, tuple(plan.number[v] for v in values), mark)
        for mark, kernel, host, values in all_steps
    )
    return Program(
        name=graph.name,
        target_key=target.key,
        symbols=graph.dims,
        guards=tuple(dict.fromkeys((*graph.guards, *made.guards))),
        inputs=graph.inputs,
        constants=tuple(c.aval for c in graph.constants),
        kept=tuple(made.kept),
        outputs=graph.output_avals,
        buffers=plan.buffers,
        slots=plan.slots,
        extents=tuple(made.extents.values()),
        kernels=tuple(made.kernels),
        hosts=tuple(made.hosts),
        once=steps[: len(made.once)],
        steps=steps[len(made.once) :],
    )


class _Assembler:
    """Steps over *variables*: one for every value that has memory, in whichever graph it is. The names of a
    graph map its value ids to variables; inputs are named by who runs the graph, and so are results that
    must lie in a certain place."""

    def __init__(self, graph: Graph, target: Target, simplify: Simplify, schedule: Schedule) -> None:
        self.graph = graph
        self.target = target
        self.simplify = simplify
        self.schedule = schedule
        self.avals: list[Aval] = []
        self.places: dict[int, tuple[str, int]] = {}
        self.kernels: list[KernelCode] = []
        self.hosts: list[HostCall] = []
        self.steps: list[tuple[str, int | None, int | None, tuple[int, ...]]] = []
        self.extents: dict[int, Dim] = {}
        self.guards: list[Guard] = []
        self.once: list[tuple[str, int | None, int | None, tuple[int, ...]]] = []
        self.kept: list[Aval] = []
        self.packed: dict[tuple[str, tuple[int, ...]], int] = {}
        n = len(graph.inputs)
        self.outside: dict[int, int] = {}
        for value in range(graph.first_result):
            place = ("input", value) if value < n else ("constant", value - n)
            self.outside[value] = self.variable(graph.avals[value], place)
        for i, output in enumerate(graph.outputs):
            if isinstance(output, int):
                self.outside[output] = self.variable(graph.avals[output], ("output", i))

    def variable(self, aval: Aval, place: tuple[str, int] | None = None) -> int:
        self.avals.append(aval)
        if place is not None:
            self.places[len(self.avals) - 1] = place
        return len(self.avals) - 1

    def mark(self, mark: str, *variables: int) -> None:
        self.steps.append((mark, None, None, variables))

    def run(self, graph: Graph, parts: Parts, names: dict[int, int]) -> None:
        """Append the steps of a graph."""
        _collect_extents(graph, self.extents)
        self.guards += _positions_exist(graph)

        def named(values: Sequence[int]) -> tuple[int, ...]:
            return tuple(
                names[v] if v in names else names.setdefault(v, self.variable(graph.avals[v])) for v in values
            )

        for part in parts:
            if isinstance(part, Scheduled):
                for value, aval in part.shared.items():
                    if value not in names:
                        names[value] = self.variable(aval)
                packed = [self.pack(graph, part, pack, named(pack.reads)) for pack in part.packs]
                self.steps.append(("", len(self.kernels), None, (*named(part.buffers), *packed)))
                self.kernels.append(_kernel_code(graph, part, self.target))
                continue
            node = producers(graph)[part.roots[0]]
            if isinstance(node.primitive, WhileLoop | Cond):
                inner = self.inner(graph, node)
                operands = [names[o] if isinstance(o, int) else o for o in node.operands]
                if isinstance(node.primitive, WhileLoop):
                    self.loop(graph, node, inner, operands, names)
                else:
                    self.choice(inner, operands, named(node.results))
                continue
            read = [o for o in node.operands if isinstance(o, int)]
            self.steps.append(("", None, len(self.hosts), named([*read, *part.roots])))
            self.hosts.append(_host_call(graph, node))

    def pack(self, graph: Graph, part: Scheduled, pack: Pack, reads: tuple[int, ...]) -> int:
        """The variable with a packed operand. What is made of constants alone is made once for all calls."""
        code = _pack_code(graph, part, pack, self.target)
        once = not pack.aval.is_symbolic and all(self.is_constant(v) for v in reads)
        key = (code.text, reads)
        if once and key in self.packed:
            return self.packed[key]
        if once:
            variable = self.variable(pack.aval, ("constant", len(self.graph.constants) + len(self.kept)))
            self.kept.append(pack.aval)
            self.packed[key] = variable
        else:
            variable = self.variable(pack.aval)
        steps = self.once if once else self.steps
        steps.append(("", len(self.kernels), None, (*reads, variable)))
        self.kernels.append(code)
        return variable

    def is_constant(self, variable: int) -> bool:
        return self.places.get(variable, ("", 0))[0] == "constant"

    def closed(self, graph: Graph, operands: Sequence[Operand], outputs: Sequence[Operand],
               results: Sequence[int]) -> None:  # fmt: skip
        """Run a graph inside on variables and literals; `outputs` go to the variables `results`."""
        literals = {i: o for i, o in enumerate(operands) if isinstance(o, Literal)}

        def known(operand: Operand) -> Operand:
            return literals.get(operand, operand) if isinstance(operand, int) else operand

        graph = self.simplify(replace(
            graph,
            nodes=tuple(replace(n, operands=tuple(map(known, n.operands))) for n in graph.nodes),
            outputs=tuple(map(known, outputs)),
        ))  # fmt: skip
        names = {i: o for i, o in enumerate(operands) if isinstance(o, int)}
        constants = frozenset(i for i, o in names.items() if self.is_constant(o))
        names.update(zip((o for o in graph.outputs if isinstance(o, int)), results, strict=True))
        self.run(graph, self.schedule(graph, constants), names)

    def copy(self, sources: Sequence[Operand], results: Sequence[int]) -> None:
        """Write variables and literals to other variables."""
        if not results:
            return
        read = [s for s in sources if isinstance(s, int)]
        at = iter(range(len(read)))
        n = len(read)
        nodes = tuple(
            Node(Identity(), (next(at) if isinstance(s, int) else s,), (n + i,))
            for i, s in enumerate(sources)
        )
        graph = Graph(
            "copy", tuple(self.avals[v] for v in read), (), nodes, tuple(range(n, n + len(nodes))),
            self.graph.dims, self.graph.guards,
        )  # fmt: skip
        names = dict(enumerate([*read, *results]))
        self.run(graph, self.schedule(graph, frozenset()), names)

    # -- control flow -------------------------------------------------------------------------------

    def inner(self, graph: Graph, node: Node) -> tuple[Graph, Graph]:
        """The two graphs in a node, over the dims of the program. Raises ValueError when its operands do not
        say what theirs are, which inference does not let pass."""
        avals = [graph.aval_of(o) for o in node.operands]
        p = node.primitive
        if isinstance(p, Cond):
            pairs = [(p.then, avals[1:]), (p.otherwise, avals[1:])]
        else:
            assert isinstance(p, WhileLoop)
            fixed = p.n_cond + p.n_body
            pairs = [(p.cond, [*avals[: p.n_cond], *avals[fixed:]]), (p.body, avals[p.n_cond :])]
        first, second = (self.over_own_dims(g, given) for g, given in pairs)
        return first, second

    def over_own_dims(self, graph: Graph, avals: Sequence[Aval]) -> Graph:
        if not set(graph.dims) <= set(self.graph.dims):
            graph = graph.substitute(match_dims(graph, avals))
        return replace(graph, dims=self.graph.dims, guards=self.graph.guards)

    def choice(
        self, branches: tuple[Graph, Graph], operands: Sequence[Operand], results: Sequence[int]
    ) -> None:
        pred, *rest = operands
        then, otherwise = branches
        if isinstance(pred, Literal):
            chosen = then if pred.value else otherwise
            self.closed(chosen, rest, chosen.outputs, results)
            return
        self.mark("if", pred)
        self.closed(then, rest, then.outputs, results)
        self.mark("else")
        self.closed(otherwise, rest, otherwise.outputs, results)
        self.mark("end")

    def loop(
        self, graph: Graph, node: Node, inner: tuple[Graph, Graph], operands: Sequence[Operand],
        names: dict[int, int],
    ) -> None:  # fmt: skip
        """The state is double-buffered: the body reads one and writes the other, then they change places.
        What the body only passes on stays where it is."""
        p = node.primitive
        assert isinstance(p, WhileLoop)
        cond, body = inner
        fixed = p.n_cond + p.n_body
        start = operands[fixed:]
        passed = [o == p.n_body + i for i, o in enumerate(body.outputs)]
        moving = [i for i, same in enumerate(passed) if not same]
        now = [self.variable(graph.avals[node.results[i]]) for i in moving]
        after = [self.variable(self.avals[v]) for v in now]
        state = list(start)
        for i, variable in zip(moving, now, strict=True):
            state[i] = variable
        self.copy([start[i] for i in moving], now)
        self.mark("while", *(v for pair in zip(now, after, strict=True) for v in pair))
        going = self.variable(cond.output_avals[0])
        self.closed(cond, [*operands[: p.n_cond], *state], cond.outputs, [going])
        self.mark("do", going)
        self.closed(body, [*operands[p.n_cond : fixed], *state], [body.outputs[i] for i in moving], after)
        self.mark("end")
        placed: list[tuple[Operand, int]] = []
        for result, value in zip(node.results, state, strict=True):
            if isinstance(value, int) and result not in names:
                names[result] = value
            else:
                if result not in names:
                    names[result] = self.variable(graph.avals[result])
                placed.append((value, names[result]))
        self.copy([v for v, _ in placed], [r for _, r in placed])


def _collect_extents(graph: Graph, found: dict[int, Dim]) -> None:
    """All symbolic expressions of a graph and their parts, each once; not the symbols themselves."""

    def visit(value: object) -> None:
        if isinstance(value, tuple):
            for item in value:
                visit(item)
        elif isinstance(value, Dim) and value.op != "symbol" and id(value) not in found:
            parts = value.operands if value.op != "+" else tuple(a for _, p in value.terms for a, _ in p)
            visit(parts)
            found[id(value)] = value

    for aval in graph.avals:
        visit((*aval.shape, aval.size))
    for node in graph.nodes:
        visit(tuple(node.primitive.params().values()))


def _positions_exist(graph: Graph) -> list[Guard]:
    """Nothing has no largest element: the extents along which positions are looked for, that may be 0."""
    extents = [
        graph.aval_of(node.operands[0]).shape[node.primitive.axis]
        for node in graph.nodes
        if isinstance(node.primitive, ArgReduce)
    ]
    return [Guard("ge", n, 1) for n in extents if isinstance(n, Dim) and not dims.decide("ge", n, 1)]


def _kernel_code(graph: Graph, part: Scheduled, target: Target) -> KernelCode:
    avals = part.avals(graph)
    nbytes: Extent = 0
    for aval in avals:
        nbytes = nbytes + aval.nbytes
    for pack in part.packs:
        nbytes = nbytes + pack.aval.nbytes
    elements = dims.product(part.group.space)
    contracted: Extent = 0
    flops = elements * max(part.cost, 1)
    if part.group.kind == "dot":
        contracted = _dot_flops(graph, part.group)
        flops = contracted + elements * part.cost
    built = part.built
    return KernelCode(
        name=built.kernel.name,
        text=print_kernel(built.kernel),
        params=built.params,
        parallel=built.parallel,
        primitives=part.primitives,
        lines=_lines(graph, part),
        nbytes=nbytes,
        flops=flops,
        work=cost.work(dims.maximum(elements, _updates(graph, part)), part.cost, contracted, avals, target),
        scratch=built.scratch,
        loop=built.kernel,
    )


def _pack_code(graph: Graph, part: Scheduled, pack: Pack, target: Target) -> KernelCode:
    nbytes: Extent = pack.aval.nbytes
    for value in pack.reads:
        nbytes = nbytes + graph.avals[value].nbytes
    built = pack.built
    return KernelCode(
        name=built.kernel.name,
        text=print_kernel(built.kernel),
        params=built.params,
        parallel=built.parallel,
        primitives=(("pack", 1),),
        lines=_lines(graph, part),
        nbytes=nbytes,
        flops=0,
        work=cost.work(pack.aval.size, 4, 0, [pack.aval, *(graph.avals[v] for v in pack.reads)], target),
        scratch=built.scratch,
        loop=built.kernel,
    )


def _dot_flops(graph: Graph, group: Group) -> Extent:
    from ingot.tracer.primitives.contract import DotGeneral

    total: Extent = 0
    for root in group.roots:
        node = producers(graph)[root]
        if isinstance(node.primitive, DotGeneral):
            shape = graph.aval_of(node.operands[0]).shape
            summed = dims.product([shape[a] for a in node.primitive.contract[0]])
            total = total + dims.product(group.space) * summed * 2
    return total


def _updates(graph: Graph, part: Scheduled) -> Extent:
    """How many elements a scatter combines with its result."""
    if part.group.kind != "scatter":
        return 0
    update = producers(graph)[part.group.roots[0]].operands[1]
    return graph.aval_of(update).size


def _lines(graph: Graph, part: Scheduled) -> tuple[str, ...]:
    """`file:line` of every node in a kernel, in order of first use."""
    packed = (v for pack in part.packs for v in pack.reads)
    nodes = nodes_of(graph, part.group, (*part.buffers, *packed))
    return tuple(dict.fromkeys(str(node.location) for node in nodes if node.location is not None))


def _host_call(graph: Graph, node: Node) -> HostCall:
    """The node as a graph of its own, whose inputs are the operands that are no literals."""
    inputs = [graph.avals[o] for o in node.operands if isinstance(o, int)]
    count = iter(range(len(inputs)))
    operands = tuple(next(count) if isinstance(o, int) else o for o in node.operands)
    results = tuple(range(len(inputs), len(inputs) + len(node.results)))
    single = Graph(
        node.primitive.name, tuple(inputs), (), (Node(node.primitive, operands, results),), results,
        graph.dims, graph.guards,
    )  # fmt: skip
    lines = () if node.location is None else (str(node.location),)
    return HostCall(node.primitive.name, print_graph(single), lines)
