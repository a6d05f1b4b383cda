"""A plain training step in a process of its own: ``python -m repro.bench.apart NET BATCH THREADS``.

There the C library gives memory back by its own defaults, as in any script. The process writes a line once it is
ready. Then it takes a step for each line that it reads, and writes a line when the step is done.
"""

import signal
import subprocess
import sys
from contextlib import ExitStack

import torch

from repro.bench.plain import plain
from repro.bench.setting import Settings, batch_of, model_of, plain_trainer
from repro.bench.timing import Side
from repro.problem import Problem
from repro.training.precision import use

NAME = "plain torch, a process of its own"


def side(s: Settings, stack: ExitStack) -> Side:
    """Start such a process, which ends with the case, and return its steps on the CPU as a side."""
    command = [sys.executable, "-m", "repro.bench.apart", s.net, str(s.batch), str(torch.get_num_threads())]
    process = stack.enter_context(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    )
    asked, told = process.stdin, process.stdout
    assert asked is not None
    assert told is not None

    def answer() -> None:
        if not told.readline():
            raise Problem("the plain step's process ended early: what it wrote above says why")

    def call() -> None:
        asked.write("\n")
        answer()

    answer()
    return Side(NAME, call, s.batch, foreign=True)


def main() -> None:
    """Run as that process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent reports an interrupt
    net, batch, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    use("fp32")
    s = Settings(net, int(batch), torch.device("cpu"))
    images, labels = batch_of(s)
    other = images.contiguous()  # torch's default layout
    call = plain_trainer(plain(model_of(s)), lambda: (other, labels))
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.stdout.write("\n")
    for line in sys.stdin:
        call()
        sys.stdout.write(line)


if __name__ == "__main__":
    main()
