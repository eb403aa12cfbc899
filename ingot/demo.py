"""`ingot demo`: train a digit classifier, export it as one file, and run the file in a fresh process."""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files

import numpy as np

import ingot as mx

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


def classifier() -> Callable:
    """A multilayer perceptron from images (n, 64) to scores (n, 10)."""
    from ingot import nn

    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def train(model, images: np.ndarray, labels: np.ndarray, epochs: int, seed: int) -> None:  # type: ignore[no-untyped-def]
    """Adam on the cross entropy; one training step is one compiled function."""
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
            losses.append(compiled(mx.array(images[batch]), mx.array(labels[batch])))
            mx.eval(state)
        _progress(epoch + 1, epochs, float(np.mean([value.item() for value in losses])))


def _progress(epoch: int, epochs: int, loss: float) -> None:
    line = f"  epoch {epoch:3d}/{epochs}   loss {loss:.4f}"
    if sys.stdout.isatty():
        print(f"\r{line}", end="\n" if epoch == epochs else "", flush=True)
    elif epoch in (1, epochs) or epoch % 10 == 0:
        print(line, flush=True)


@contextmanager
def _stage(what: str) -> Iterator[None]:
    """Say what is done and how long it took."""
    print(what, flush=True)
    start = time.perf_counter()
    yield
    print(f"  {_duration(time.perf_counter() - start)}", flush=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def run(output: str, epochs: int, seed: int) -> None:
    """Train, export to `output`, and start the fresh process that uses the file."""
    with _stage("Reading 1,797 handwritten digits"):
        images, labels, *_ = digits(seed)
    with _stage(f"Training on {len(images)} of them, {epochs} epochs of compiled steps"):
        mx.random.seed(seed)
        model = classifier()
        train(model, images, labels, epochs, seed)
    with _stage(f"Exporting the classifier to {output}"):

        def classify(images: mx.array) -> mx.array:
            return mx.softmax(model(images / 16), axis=-1)

        batch = mx.Dim("batch")
        mx.export_function(output, classify, mx.array(images[:8]), dynamic_shapes={"images": {0: batch}})
    with _stage("Classifying the other digits in a fresh process"):
        command = [sys.executable, "-m", "ingot.demo", "--classify", output, "--seed", str(seed)]
        subprocess.run(command, check=True)


def classify(path: str, seed: int) -> None:
    """Import the file and print its accuracy on the test images, the kernels that ran, and the times."""
    start = time.perf_counter()
    function = mx.import_function(path)
    opened = time.perf_counter()
    *_, images, labels = digits(seed)
    x = mx.array(images)
    ready = time.perf_counter()
    (scores,) = function(x)
    mx.eval(scores)
    first = time.perf_counter()
    (scores,) = function(x)
    mx.eval(scores)
    steady = time.perf_counter()
    accuracy = np.mean(np.argmax(np.array(scores), axis=-1) == labels)
    print(f"  open {_duration(opened - start)}, first call {_duration(first - ready)}, ", end="")
    print(f"next call {_duration(steady - first)} for {len(images)} images")
    print(_kernels(function, len(images)))
    print(f"test accuracy: {100 * accuracy:.1f} %")


def _kernels(function, batch: int) -> str:  # type: ignore[no-untyped-def]
    """The table of what ran for a batch."""
    from ingot.cli.kernels import steps, summary
    from ingot.lowering.llvm.target import current
    from ingot.runtime.executable import program_of
    from ingot.tracer import dims

    program = program_of(function.traces[0].graph, current())
    symbols = {symbol.name: symbol for symbol in program.symbols}
    env = dict.fromkeys(symbols, batch)
    rows = steps(program)
    for row in rows:
        for key in ("bytes", "flops"):
            if isinstance(row[key], str):
                row[key] = dims.evaluate(dims.parse(row[key], symbols), env)
    return summary(rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ingot demo", description=__doc__)
    parser.add_argument("--output", default="digits.ingot", help="the file to write (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of split, weights and batches")
    parser.add_argument("--classify", metavar="FILE", help="only use a file that a run before has written")
    options = parser.parse_args(argv)
    if options.classify:
        classify(options.classify, options.seed)
    else:
        run(options.output, options.epochs, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
