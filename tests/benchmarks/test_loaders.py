"""How many images a second come ready for the net out of DALI, beside what one would write with a DataLoader.

All on 160-pixel JPEGs cut to 144, two threads or two workers each, in turns on one machine. Rates are by the clock and
by CPU time; on a machine that does other things at the same time the second is the one to trust.
"""

import os
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE = Path(__file__).with_name("loaders_side.py")
BATCH, BATCHES, IMAGES, PIXELS = 128, 40, 2560, 160
SETTLE_S = 0.5  # in which workers fill their queues again, for which their CPU time is counted
ROUNDS = int(os.environ.get("REPRO_BENCHMARK_ROUNDS", "7"))


def real():
    root = Path(os.environ.get("REPRO_DATA") or "") / "imagenette160" / "train"
    return sorted(root.rglob("*.JPEG")) if os.environ.get("REPRO_DATA") else []


def synthetic(number):
    """Return a picture that compresses about as photographs do."""
    rng = np.random.default_rng(number)
    total = np.zeros((PIXELS, PIXELS, 3))
    for size, strength in ((5, 60), (20, 30), (80, 12)):
        coarse = rng.normal(0, strength, (size, size, 3)).clip(-127, 127) + 128
        total += np.asarray(Image.fromarray(coarse.astype(np.uint8)).resize((PIXELS, PIXELS), Image.BICUBIC)) - 128.0
    return Image.fromarray((total + 128).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of square JPEGs: real ones cut in the centre, or drawn ones where there are none."""
    root = tmp_path_factory.mktemp("pictures")
    sources = real()
    for i in range(IMAGES):
        if sources:
            with Image.open(sources[i * len(sources) // IMAGES]) as image:
                x, y = ((length - PIXELS) // 2 for length in image.size)
                picture = image.convert("RGB").crop((x, y, x + PIXELS, y + PIXELS))
        else:
            picture = synthetic(i)
        picture.save(root / f"{i:05d}.jpg", quality=95)
    return root


class Side:
    """A process that makes batches when told to; ``rates`` and ``cpu_rates`` are images a second, one a round."""

    def __init__(self, side, pictures):
        command = [sys.executable, str(SIDE), side, str(pictures)]
        # A session of its own, by which its workers are known, whoever started them.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.rates, self.cpu_rates = [], []

    def answer(self):
        line = self.process.stdout.readline()
        assert line, "the side ended early"
        return line

    def cpu_s(self):
        """Return the CPU seconds, user and system, of all living processes of the session so far."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended between the listing and the reading
            if int(fields[3]) == self.process.pid:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def run(self):
        before = self.cpu_s()
        self.process.stdin.write(f"{BATCHES}\n")
        self.process.stdin.flush()
        self.rates.append(BATCH * BATCHES / float(self.answer()))
        time.sleep(SETTLE_S)
        self.cpu_rates.append(BATCH * BATCHES / (self.cpu_s() - before))


@pytest.fixture
def sides(pictures):
    """DALI twice and the three others, each warmed up and waiting."""
    started = [Side(side, pictures) for side in ("dali", "dali", "plain", "reference", "script")]
    for side in started:
        side.answer()
    time.sleep(SETTLE_S)
    yield started
    for side in started:
        side.process.stdin.close()
        side.process.wait()
        side.process.stdout.close()


def ratio(one, other):
    """Return the median over the rounds of one list of rates over the other."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs DALI and /proc: Linux")
def test_loading(benchmark, sides, pictures):
    """Images a second of each, and DALI's ratio to the others and to itself.

    A DataLoader's workers fill their queue of four batches while others run, DALI's threads theirs of two: of the 40
    batches of a round so many are for free by the clock. Not by CPU time, which is counted until all is quiet.
    """
    ours, again, plain, reference, script = sides
    others = {"itself": again, "plain": plain, "reference": reference, "script": script}

    def run_others():
        for side in others.values():
            side.run()

    benchmark.pedantic(ours.run, setup=run_others, rounds=ROUNDS)
    found = {
        "images_per_s": round(statistics.median(ours.rates)),
        "images_per_cpu_s": round(statistics.median(ours.cpu_rates)),
    }
    for name, side in others.items():
        found[f"{name}_images_per_s"] = round(statistics.median(side.rates))
        found[f"{name}_images_per_cpu_s"] = round(statistics.median(side.cpu_rates))
        found[f"ratio_to_{name}"] = round(ratio(ours.rates, side.rates), 3)
        found[f"cpu_ratio_to_{name}"] = round(ratio(ours.cpu_rates, side.cpu_rates), 3)
    benchmark.extra_info.update(
        {
            **found,
            "data": "imagenette160" if real() else "synthetic",
            "rounds": ROUNDS,
            "cores": os.cpu_count(),
            "torch": metadata.version("torch"),
            "torchvision": metadata.version("torchvision"),
            "pillow": metadata.version("pillow"),
        }
    )
