"""The `ingot` command.

Each sub-command is a module with `add_arguments`, `run` (options to plain data) and `show` (data to text).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from typing import Any

COMMANDS = {
    "inspect": ("inspection", "signature, sizes and metadata of a file; reads no weights, loads no compiler"),
    "ir": ("graphs", "the graph, as text"),
    "kernels": ("kernels", "what was fused into what, as loop nests, and what is left to the host"),
    "llvm": ("kernels", "LLVM IR of the kernels"),
    "asm": ("kernels", "machine code of the kernels, as assembly"),
    "run": ("running", "run a function on random or given inputs"),
    "verify": ("verification", "check a file: checksums, types, examples, and compiled code against NumPy"),
    "primitives": ("primitives", "the table of primitives and their rules"),
    "demo": ("demo", "train, export and run a digit classifier"),
}

# What users and files can cause; anything else is a defect of Ingot and shows where it is.
_FAILURES = (
    ValueError,
    TypeError,
    RuntimeError,
    OSError,
    LookupError,
    ImportError,
    AttributeError,
    MemoryError,
)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for a failure, 2 for wrong usage, 130 when interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _run(argv)
    except BrokenPipeError:
        # The reader, such as `head`, has what it wanted; do not fail again when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except _FAILURES as error:
        if "--traceback" in argv:
            raise
        print(f"ingot {argv[0]}: {error}", file=sys.stderr)
        return 1


def _run(argv: list[str]) -> int:
    if argv[:1] == ["demo"]:
        # The demo has options of its own, and prints as it goes.
        from ingot import demo

        return demo.main([word for word in argv[1:] if word != "--traceback"])
    options = _parse(argv)
    command = _command(options.command)
    data = command.run(options)
    print(json.dumps(data, indent=2, default=_as_json) if options.json else command.show(data), flush=True)
    return 0 if data.get("ok", True) else 1


def _command(name: str) -> Any:
    return importlib.import_module(f"ingot.cli.{COMMANDS[name][0]}")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ingot", description="Look into, run and check array functions and exported files."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, (_, help_text) in COMMANDS.items():
        one = commands.add_parser(name, help=help_text, description=help_text)
        one.add_argument("--json", action="store_true", help="print the result as JSON")
        one.add_argument("--traceback", action="store_true", help="show where an error comes from")
        if name == chosen and name != "demo":
            _command(name).add_arguments(one)
    return parser.parse_args(argv)


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} has no JSON form")
