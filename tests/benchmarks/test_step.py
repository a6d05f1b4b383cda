"""How many images a second the package trains, beside a plain PyTorch loop, in turns on one machine."""

import os
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

SIDE = Path(__file__).with_name("side.py")
BATCH, STEPS = 128, 20  # a multiple of the steps between two looks at the running error
ROUNDS = int(os.environ.get("REPRO_BENCHMARK_ROUNDS", "7"))


class Side:
    """A process that trains a given number of steps when told to, and says how long they took."""

    def __init__(self, side, threads):
        data = [os.environ["REPRO_DATA"]] if os.environ.get("REPRO_DATA") else []
        command = [sys.executable, str(SIDE), side, str(threads), *data]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.rates = []

    def answer(self):
        line = self.process.stdout.readline()
        assert line, "the side ended early"
        return line

    def run(self):
        self.process.stdin.write(f"{STEPS}\n")
        self.process.stdin.flush()
        self.rates.append(BATCH * STEPS / float(self.answer()))


@pytest.fixture
def sides(threads):
    """The package, the package once more, and the plain loop, each warmed up and waiting."""
    started = [Side(side, threads) for side in ("ours", "ours", "plain")]
    for side in started:
        side.answer()
    yield started
    for side in started:
        side.process.stdin.close()
        side.process.wait()
        side.process.stdout.close()


def median_ratio(one, other):
    """Return the median over the rounds of one side's rate over the other's."""
    return statistics.median(a / b for a, b in zip(one.rates, other.rates, strict=True))


@pytest.mark.parametrize("threads", sorted({1, os.cpu_count()}))
def test_training_step(benchmark, sides, threads):
    """18pct net, batch 128, float32: images a second of both, their ratio, and that of the package to itself.

    The plain loop's workers fill their queue of four batches while the other sides run: up to a tenth of each of its
    rounds is for free.
    """
    ours, again, plain = sides

    def others():
        again.run()
        plain.run()

    benchmark.pedantic(ours.run, setup=others, rounds=ROUNDS)
    benchmark.extra_info.update(
        {
            "images_per_s": round(statistics.median(ours.rates)),
            "images_per_s_best": round(max(ours.rates)),
            "plain_images_per_s": round(statistics.median(plain.rates)),
            "plain_images_per_s_best": round(max(plain.rates)),
            "ratio": round(median_ratio(ours, plain), 3),
            "ratio_of_best": round(max(ours.rates) / max(plain.rates), 3),
            "ratio_to_itself": round(median_ratio(ours, again), 3),
            "data": "cifar10" if os.environ.get("REPRO_DATA") else "synthetic",
            "threads": threads,
            "cores": os.cpu_count(),
            "torch": metadata.version("torch"),
        }
    )
