"""`ingot kernels`, `llvm` and `asm`: what a graph is compiled to, step by step."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ingot.cli import subject
from ingot.cli.layout import table

if TYPE_CHECKING:
    from ingot.lowering.program import KernelCode, Program


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subject.add_arguments(parser)
    parser.add_argument(
        "--target", default="host", help="the processor, such as x86-64-v3 or aarch64 (default: host)"
    )
    parser.add_argument("--kernel", metavar="NAME", help="only kernels whose name contains NAME")
    parser.add_argument("--raw", action="store_true", help="LLVM IR before LLVM's passes")
    parser.add_argument(
        "--show",
        metavar="FORMS",
        help="forms of each kernel, separated by commas, or `all`: loop (the loop nest), llvm, asm "
        "(default: what the command is named after)",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ingot.lowering.llvm.target import named
    from ingot.lowering.pipeline import lower
    from ingot.runtime.info import runtime_info

    found = subject.resolve(options)
    target = named(options.target)
    forms = _forms(options)
    programs = []
    for graph in found.graphs:
        program = lower(graph, target)
        chosen = []
        for row, step in zip(steps(program), program.steps, strict=True):
            if options.kernel and (step.mark or options.kernel not in row["name"]):
                continue
            if step.kernel is not None:
                row["text"] = {form: _text(program.kernels[step.kernel], form, options) for form in forms}
            chosen.append(row)
        programs.append({"name": program.name, "kernels": chosen})
    return {
        "subject": found.name, "target": target.key, "command": options.command, "programs": programs,
        "runtime": runtime_info(),
    }  # fmt: skip


def steps(program: Program) -> list[dict[str, Any]]:
    """The steps of a program in the order in which they run; sizes that depend on dims are text."""
    from ingot.runtime import profile

    rows = []
    for info, step in zip(profile.steps(program), program.steps, strict=True):
        data = info.as_dict()
        kind = "control" if step.mark else "native" if info.native else "host"
        row = {"name": data["name"], "kind": kind}
        row |= {key: data[key] for key in ("primitives", "lines", "bytes", "flops", "depth")}
        if step.host is not None:
            row["text"] = {"graph": program.hosts[step.host].text}
        rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """A line for each step, those of loops and branches indented, and how many are native and how many are
    not."""
    cells = [
        ("  " * row["depth"] + row["name"], "", "", "", "") if row["kind"] == "control" else
        ("  " * row["depth"] + row["name"], row["kind"], fused(row["primitives"]), row["bytes"], row["flops"])
        for row in rows
    ]  # fmt: skip
    lines = table(("kernel", "runs", "primitives", "bytes", "operations"), cells)
    return f"{lines}\n{counts(rows)}"


def counts(rows: list[dict[str, Any]]) -> str:
    """`5 native kernels, 0 host calls`."""
    kinds = [row["kind"] for row in rows]
    return f"{_count(kinds.count('native'), 'native kernel')}, {_count(kinds.count('host'), 'host call')}"


def fused(primitives: dict[str, int]) -> str:
    """`exp, 3 add`."""
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in primitives.items())


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _runtime(info: dict[str, Any]) -> str:
    """`2 threads (pool: native), dispatch: native`."""
    count = _count(info["threads"], "thread")
    pool = "" if info["pool"] == "none" else f" (pool: {info['pool']})"
    return f"{count}{pool}, dispatch: {info['dispatch']}"


_FORMS = ("loop", "llvm", "asm")


def _forms(options: argparse.Namespace) -> list[str]:
    if options.show is None:
        return ["loop" if options.command == "kernels" else options.command]
    chosen = list(_FORMS) if options.show == "all" else options.show.split(",")
    unknown = [form for form in chosen if form not in _FORMS]
    if unknown:
        raise ValueError(f"--show: {unknown[0]!r} is not one of {', '.join(_FORMS)}, all")
    return chosen


def _text(kernel: KernelCode, form: str, options: argparse.Namespace) -> str:
    from ingot.lowering.llvm.target import named
    from ingot.runtime import profile

    if form == "loop":
        return kernel.text
    if form == "llvm":
        return profile.llvm_text(kernel, named(options.target), optimised=not options.raw)
    return profile.assembly_text(kernel, named(options.target))


def show(data: dict[str, Any]) -> str:
    parts = []
    for program in data["programs"]:
        head = f"program {program['name']} for {data['target']}, {_runtime(data['runtime'])}"
        parts.append(f"{head}\n\n{summary(program['kernels'])}")
        for row in program["kernels"]:
            if row["kind"] == "native":
                where = "".join(f"\n; {line}" for line in row["lines"])
                text = "\n\n".join(text.rstrip() for text in row["text"].values())
                parts.append(f"; {row['name']}: {fused(row['primitives'])}{where}\n{text}")
            elif data["command"] == "kernels" and row["kind"] == "host":
                parts.append(f"; {row['name']}: by the host, no native code\n{row['text']['graph'].rstrip()}")
    return "\n\n".join(parts)
