"""The runner of the text tests in `filetests/<pass>/*.ingot`.

The first line of a file names the pass, `; test: graph`, with options behind it as `key=value`. Then follow
cases: text for the pass, and under it what must come out, each line behind `;|`. A pass that raises one of
the errors made for users gives `error: <message>`. `pytest tests/test_filetests.py --bless` rewrites the
expected lines. To add a pass, add a function to RUNNERS and a folder of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from ingot.lowering import loop_verify, pipeline
from ingot.lowering.fuse import fuse
from ingot.lowering.llvm.target import named
from ingot.lowering.loop import Kernel
from ingot.lowering.loop_text import parse_kernel, print_kernel
from ingot.lowering.passes.hoist import hoist
from ingot.lowering.passes.parallelise import parallelise
from ingot.lowering.passes.reorder import reorder
from ingot.lowering.passes.split import split, tile
from ingot.lowering.passes.stage import stage
from ingot.lowering.passes.unroll import unroll, unroll_and_jam
from ingot.lowering.passes.vectorise import vectorise
from ingot.lowering.schedule import Scheduled
from ingot.runtime.executable import executable
from ingot.runtime.interpreter import InterpretedGraph
from ingot.tracer import (
    dims,
    primitives,  # noqa: F401  (registers the primitives)
)
from ingot.tracer.array import leaf
from ingot.tracer.aval import Aval
from ingot.tracer.text import parse_graph, print_graph
from ingot.tracer.verify import verify

ROOT = Path(__file__).parent / "filetests"
Options = Mapping[str, str]
Case = tuple[str, list[str]]


def run_graph(text: str, options: Options) -> str:
    """Parse, verify and print; the printed text must be a fixed point and parse to an equal graph."""
    graph = parse_graph(text)
    verify(graph)
    printed = print_graph(graph)
    again = parse_graph(printed)
    assert again == graph and print_graph(again) == printed
    return printed


def run_verify(text: str, options: Options) -> str:
    """What the parser or the verifier has to say."""
    verify(parse_graph(text))
    return "valid"


def run_simplify(text: str, options: Options) -> str:
    """The graph after one of the graph passes (`pass=rules`), or after all of them; idempotent."""
    chosen = dict(pipeline.SIMPLIFY).get(options.get("pass", ""), pipeline.simplify)
    graph = chosen(parse_graph(text))
    verify(graph)
    assert chosen(graph) == graph
    return print_graph(graph)


def run_fuse(text: str, options: Options) -> str:
    """The groups that the simplified graph falls into."""
    graph = pipeline.simplify(parse_graph(text))
    return print_graph(graph) + pipeline.show_groups(graph, fuse(graph))


def run_schedule(text: str, options: Options) -> str:
    """The kernels, for a fixed target."""
    graph = pipeline.simplify(parse_graph(text))
    parts = pipeline.scheduled(graph, fuse(graph), named(options.get("target", "x86-64-v3")))
    kernels = [part.built.kernel for part in parts if isinstance(part, Scheduled)]
    for kernel in kernels:
        loop_verify.verify(kernel)
    return "\n".join(print_kernel(kernel) for kernel in kernels)


def run_run(text: str, options: Options) -> str:
    """Results of the compiled graph on small numbers; `B=3` sets a dim, and the reference must agree."""
    graph = parse_graph(text)
    env = {name: int(value) for name, value in options.items()}
    operands = []
    for aval in graph.inputs:
        shape = tuple(dims.evaluate(n, env) for n in aval.shape)
        numbers = np.arange(np.prod(shape, dtype=int)) * 5 % 7 - (0 if aval.dtype.kind in "bu" else 3)
        operands.append(leaf(numbers.reshape(shape).astype(aval.dtype.numpy), aval=Aval(shape, aval.dtype)))
    made = executable(graph)
    got, want = made(operands), InterpretedGraph(graph)(operands)
    lines = [f"host {host.name}" for host in made.program.hosts]
    for x, y in zip(got, want, strict=True):
        assert x.aval is y.aval
        np.testing.assert_allclose(x.view, y.view, rtol=1e-6, atol=1e-6)
        wide = {"f": np.float64, "c": np.complex128}.get(x.aval.dtype.kind)
        shown = x.view if wide is None else np.round(x.view.astype(wide), 4)  # type: ignore[union-attr]
        lines.append(f"{x.aval!r} {shown.tolist()}")  # type: ignore[union-attr]
    return "\n".join(lines)


PASSES: dict[str, Callable[..., Kernel]] = {
    "split": split,
    "tile": tile,
    "reorder": reorder,
    "vectorise": vectorise,
    "unroll": unroll,
    "unroll_and_jam": unroll_and_jam,
    "parallelise": parallelise,
    "hoist": hoist,
    "stage": stage,
}


def run_loop_passes(text: str, options: Options) -> str:
    """The kernel after `pass=vectorise` with the other options as its arguments, in this order."""
    kernel = parse_kernel(text)
    loop_verify.verify(kernel)
    arguments = [int(v) if v.isdigit() else v for name, v in options.items() if name != "pass"]
    made = PASSES[options["pass"]](kernel, *arguments)
    loop_verify.verify(made)
    return "unchanged" if made is kernel else print_kernel(made)


RUNNERS: dict[str, Callable[[str, Options], str]] = {
    "graph": run_graph,
    "verify": run_verify,
    "simplify": run_simplify,
    "fuse": run_fuse,
    "schedule": run_schedule,
    "run": run_run,
    "loop_passes": run_loop_passes,
}


def read_header(path: Path) -> tuple[str, dict[str, str]]:
    first, *_ = path.read_text().splitlines() or [""]
    words = first.removeprefix("; test:").split()
    assert first.startswith("; test:") and words, f"{path}: the first line must be '; test: <pass>'"
    return words[0], dict(word.split("=", 1) for word in words[1:])


def read_cases(lines: list[str]) -> list[Case]:
    """Cases of a file: source text with its comments, and the expected lines under it."""
    cases: list[Case] = []
    source: list[str] = []
    expected: list[str] = []
    for line in lines:
        if line.startswith(";|"):
            expected.append(line[2:].removeprefix(" "))
            continue
        if expected:
            cases.append(("\n".join(source), expected))
            source, expected = [], []
        source.append(line)
    if any(line.strip() and not line.startswith(";") for line in source):
        cases.append(("\n".join(source), expected))
    return cases


def outcome(run: Callable[[str, Options], str], source: str, options: Options) -> list[str]:
    # lines in messages count from the first that is neither blank nor a comment
    lines = source.split("\n")
    while lines[0].startswith(";") or not lines[0].strip():
        lines.pop(0)
    try:
        text = run("\n".join(lines), options)
    except (ValueError, NotImplementedError) as error:  # GraphError, ShapeError and so on are ValueErrors
        text = f"error: {error}"
    return text.rstrip("\n").split("\n")


def write_cases(header: str, cases: list[Case]) -> str:
    parts = [header]
    for source, expected in cases:
        parts += [source, *(f";| {line}".rstrip() for line in expected)]
    return "\n".join(parts) + "\n"


FILES = sorted(path for name in RUNNERS for path in (ROOT / name).glob("*.ingot"))


@pytest.mark.parametrize("path", FILES, ids=[f"{p.parent.name}/{p.stem}" for p in FILES])
def test_file(path: Path, bless: bool) -> None:
    name, options = read_header(path)
    assert name == path.parent.name, f"{path} tests {name!r} but stands in {path.parent.name!r}"
    header, *lines = path.read_text().splitlines()
    cases = read_cases(lines)
    assert cases, f"{path} has no case"
    found = [(source, outcome(RUNNERS[name], source, options)) for source, _ in cases]
    if bless:
        path.write_text(write_cases(header, found))
        return
    for (source, expected), (_, got) in zip(cases, found, strict=True):
        # trailing blanks do not survive blessing
        assert [line.rstrip() for line in got] == [line.rstrip() for line in expected], source


def test_every_pass_has_a_runner() -> None:
    """A file whose pass has no runner would silently test nothing."""
    headers = {p: p.read_text().split("\n", 1)[0] for p in ROOT.rglob("*.ingot")}
    named = {path.parent.name for path, header in headers.items() if header.startswith("; test:")}
    assert named <= set(RUNNERS), f"no runner for {sorted(named - set(RUNNERS))}"


def test_reader_splits_cases_and_writes_them_back() -> None:
    text = "; test: graph\n\ngraph a\n; note\n;| one\n;| two\n\ngraph b\n;| three\n"
    header, *lines = text.splitlines()
    cases = read_cases(lines)
    assert cases == [("\ngraph a\n; note", ["one", "two"]), ("\ngraph b", ["three"])]
    assert write_cases(header, cases) == text
