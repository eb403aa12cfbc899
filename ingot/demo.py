"""`ingot demo`: train a digit classifier, export it as one file, and run the file in a fresh process."""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, TextIO

import numpy as np

import ingot as mx
from ingot.cli.kernels import counts, steps, summary
from ingot.cli.layout import duration
from ingot.lowering.llvm.target import current
from ingot.lowering.program import Program
from ingot.runtime.executable import program_of
from ingot.tracer import dims, dims_text

BATCH = 64


def digits(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`(train_images, train_labels, test_images, test_labels)`: the shipped images, split 80 to 20.

    Images are float32 (n, 64) with values 0 to 16, labels int32 (n,).
    """
    with gzip.open(files("ingot").joinpath("data", "digits.csv.gz").open("rb")) as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    order = np.random.default_rng(seed).permutation(len(table))
    table = table[order]
    cut = len(table) * 4 // 5
    images, labels = table[:, :64], table[:, 64].astype(np.int32)
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def classifier() -> Any:
    """A multilayer perceptron from images (n, 64) to scores (n, 10)."""
    from ingot import nn

    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


class Progress:
    """What the demo says while it works, and the times it collects for the end."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """Say what is done and, at its end, how long it took."""
        self.say(what)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        self.say(f"  {duration(self.seconds[name])}")

    def epoch(self, number: int, of: int, loss: float) -> None:
        """One line that changes on a terminal; elsewhere a line for some of the epochs."""
        line = f"  epoch {number:3d}/{of}   loss {loss:.4f}"
        if self.out.isatty():
            print(f"\r{line}", end="\n" if number == of else "", file=self.out, flush=True)
        elif number in (1, of) or number % 10 == 0:
            self.say(line)


def train(
    model: Any, images: np.ndarray, labels: np.ndarray, epochs: int, seed: int, report: Progress
) -> Any:
    """Adam on the cross entropy. Returns the training step, one compiled function."""
    from ingot import nn, optimizers

    steps = epochs * (len(images) // BATCH)
    optimizer = optimizers.Adam(optimizers.linear_schedule(3e-3, 0.0, steps))
    optimizer.init(model.trainable_parameters())

    def loss(x: mx.array, y: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(x / 16), y, reduction="mean")

    def step(x: mx.array, y: mx.array) -> mx.array:
        value, gradients = nn.value_and_grad(model, loss)(x, y)
        optimizer.update(model, gradients)
        return value

    state = [model.state, optimizer.state]
    compiled = mx.compile(step, inputs=state, outputs=state)
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        order = rng.permutation(len(images))
        losses = []
        for start in range(0, len(images) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            losses.append(compiled(mx.array(images[batch]), mx.array(labels[batch])).item())
        report.epoch(epoch + 1, epochs, float(np.mean(losses)))
    return compiled


def run(output: str, epochs: int, seed: int, as_json: bool = False) -> dict[str, Any]:
    """Train, export to `output`, and start the fresh process that uses the file."""
    report = Progress(sys.stderr if as_json else sys.stdout)
    with report.stage("read", "Reading 1,797 handwritten digits"):
        images, labels, *_ = digits(seed)
    with report.stage("train", f"Training on {len(images)} of them, {epochs} epochs of compiled steps"):
        mx.random.seed(seed)
        model = classifier()
        step = train(model, images, labels, epochs, seed, report)
    training = steps(program_of(step.graphs()[0], current()))
    report.say(f"  one step: {counts(training)}")
    with report.stage("export", f"Exporting the classifier to {output}"):

        def classify(images: mx.array) -> mx.array:
            return mx.softmax(model(images / 16), axis=-1)

        shapes = {"images": {0: mx.Dim("batch")}}
        mx.export_function(output, classify, mx.array(images[:8]), dynamic_shapes=shapes)
    with report.stage("classify", "Classifying the others in a fresh process"):
        command = [sys.executable, "-m", "ingot.demo", "--classify", output, "--seed", str(seed)]
        if as_json:
            command.append("--json")
        done = subprocess.run(command, stdout=subprocess.PIPE if as_json else None, text=True)
        if done.returncode:
            raise RuntimeError(f"the fresh process failed with status {done.returncode}")
    fresh = json.loads(done.stdout) if as_json else {}
    return {"file": output, "seconds": report.seconds, "training_step": training, "fresh_process": fresh}


def classify(path: str, seed: int) -> dict[str, Any]:
    """Import the file and use it on the test images: accuracy, the kernels that ran, and times in seconds."""
    times = {}
    start = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        now = time.perf_counter()
        times[name], start = now - start, now

    importer = mx.import_function
    lap("import")
    function = importer(path)
    lap("open")
    *_, images, labels = digits(seed)
    x = mx.array(images)
    lap("read")
    (scores,) = function(x)
    mx.eval(scores)
    lap("first_call")
    (scores,) = function(x)
    mx.eval(scores)
    lap("next_call")
    right = np.argmax(np.array(scores), axis=-1) == labels
    return {
        "accuracy": float(np.mean(right)),
        "images": len(images),
        "seconds": times,
        "kernels": _at_batch(program_of(function.traces[0].graph, current()), len(images)),
    }


def _at_batch(program: Program, batch: int) -> list[dict[str, Any]]:
    """The steps of a program with their sizes for one batch."""
    symbols = {symbol.name: symbol for symbol in program.symbols}
    rows = steps(program)
    for row in rows:
        for key in ("bytes", "flops"):
            if isinstance(row[key], str):
                row[key] = dims.evaluate(dims_text.parse(row[key], symbols), dict.fromkeys(symbols, batch))
    return rows


def _show(result: dict[str, Any]) -> str:
    times = {name: duration(seconds) for name, seconds in result["seconds"].items()}
    return (
        f"  open {times['open']}, first call {times['first_call']}, next call {times['next_call']} "
        f"for {result['images']} images\n{summary(result['kernels'])}\n"
        f"test accuracy: {100 * result['accuracy']:.1f} %"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ingot demo", description=__doc__)
    parser.add_argument("--output", default="digits.ingot", help="the file to write (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of split, weights and batches")
    parser.add_argument("--classify", metavar="FILE", help="only use a file that a run before has written")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, progress on stderr")
    options = parser.parse_args(argv)
    if options.epochs < 1:
        parser.error("--epochs must be positive")
    if options.classify:
        result = classify(options.classify, options.seed)
        print(json.dumps(result, indent=2) if options.json else _show(result))
        return 0
    result = run(options.output, options.epochs, options.seed, options.json)
    if options.json:
        print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
