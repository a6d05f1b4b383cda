"""How long the command line takes to answer, beside the imports that it cannot do without."""

import os
import statistics
import subprocess
import sys
import time

import pytest

ROUNDS = int(os.environ.get("REPRO_BENCHMARK_ROUNDS", "15"))
IMPORTS = [sys.executable, "-c", "import click, rich, pydantic"]


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


@pytest.mark.parametrize("arguments", [["--help"], ["list"]], ids=" ".join)
def test_start(benchmark, arguments):
    """Wall time of the command and of the bare imports, in turns: at most three times as long is the aim."""
    command = [sys.executable, "-m", "repro", *arguments]
    ours, imports, again = [], [], []
    seconds(command), seconds(IMPORTS)  # compiled to bytecode, and in the page cache

    def others():
        imports.append(seconds(IMPORTS))
        again.append(seconds(IMPORTS))

    benchmark.pedantic(lambda: ours.append(seconds(command)), setup=others, rounds=ROUNDS)
    benchmark.extra_info.update(
        {
            "seconds": round(statistics.median(ours), 3),
            "imports_seconds": round(statistics.median(imports), 3),
            "ratio": round(statistics.median(a / b for a, b in zip(ours, imports, strict=True)), 2),
            "ratio_of_best": round(min(ours) / min(imports), 2),
            "imports_to_themselves": round(statistics.median(a / b for a, b in zip(imports, again, strict=True)), 2),
        }
    )
