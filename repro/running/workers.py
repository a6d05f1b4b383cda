"""Trials side by side on this machine: in processes on a CPU, in threads of this process on a GPU.

On a CPU Python calls the arithmetic operation by operation, and it runs one thread at a time: hence processes. On a GPU
a step is a recording that is replayed, which takes Python little time: hence threads, and what they share (the images,
the libraries' memory) lies on the GPU once.
"""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from repro import measure
from repro.data.processes import cores, leave_with_parent, unheard
from repro.experiments import Planned
from repro.frozen import Frozen
from repro.measure import Data, Monitor, Place, Task
from repro.problem import Problem
from repro.running.attempt import attempt
from repro.running.work import Observer, Outcome, Pool
from repro.store import Trial

WAIT_S = 1.0  # seconds between two looks at trials that another process holds


@dataclass(frozen=True)
class Source:
    """A condition's data, loaded and checked, and how a worker loads it again."""

    data: Data
    experiment: str
    parameters: Frozen
    place: Place


class WorkerDied(Problem):
    """A process that ran a trial is gone; the message says what may help."""


@dataclass
class _SideBySide:
    """Workers on this machine. ``moved`` is the queue of their progress reports.

    ``asked`` is set when the user wants to stop; ``leave``, once set, makes the workers save their state and stop.
    """

    jobs: int
    submit: Callable[[Planned, Trial | None], Future[Outcome]]
    observer: Observer
    asked: threading.Event
    leave: Any
    moved: Any
    running: dict[Future[Outcome], Planned] = field(default_factory=dict)

    def stopping(self) -> bool:
        return self.asked.is_set()

    def room(self) -> bool:
        return len(self.running) < self.jobs

    def begin(self, planned: Planned, seen: Trial | None) -> None:
        self.running[self.submit(planned, seen)] = planned

    def ended(self) -> Iterator[tuple[Planned, Outcome]]:
        done, _ = wait(self.running, timeout=0.5, return_when=FIRST_COMPLETED)
        if self.asked.is_set():
            self.leave.set()
        while not self.moved.empty():
            self.observer.moved(*self.moved.get())
        for future in sorted(done, key=lambda future: future.exception() is not None):
            yield self.running.pop(future), future.result()

    def idle(self) -> None:
        self.asked.wait(WAIT_S)


# Threads: they share the data and the GPU, and each has its own CUDA stream.


@contextmanager
def threads(
    source: Source, tasks: Callable[[Planned], Task], observer: Observer, asked: threading.Event, *, jobs: int,
    device: torch.device,
) -> Iterator[Pool]:  # fmt: skip
    """Yield a pool of ``jobs`` threads of this process that run trials on ``device``."""
    leave, moved, data = threading.Event(), queue.SimpleQueue[Any](), source.data.to(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # the threads' streams would not wait for the data to arrive

    def run(task: Task, seen: Trial | None) -> Outcome:
        monitor = Monitor(lambda done, words: moved.put((task.spec, done, words)), leave.is_set)
        return attempt(task, data, monitor, seen)

    def start() -> None:
        if device.type == "cuda":
            torch.cuda.set_stream(torch.cuda.Stream(device))

    with ThreadPoolExecutor(jobs, initializer=start) as pool:
        try:
            yield _SideBySide(jobs, lambda p, seen: pool.submit(run, tasks(p), seen), observer, asked, leave, moved)
        finally:
            leave.set()  # after an error in one thread, the others save their state and leave


# Processes: they are spawned, and each has the data in its memory and a share of the cores.

_worker: dict[str, Any] = {}

LAST_S = 60.0
"""How long a worker that was told to terminate may take to save, and then to be sent home."""


@contextmanager
def processes(
    source: Source, tasks: Callable[[Planned], Task], observer: Observer, asked: threading.Event, *, jobs: int,
    device: torch.device,
) -> Iterator[Pool]:  # fmt: skip
    """Yield a pool of ``jobs`` processes that run trials on ``device``. Raises WorkerDied where one is gone."""
    context = multiprocessing.get_context("spawn")
    each = max(1, cores() // jobs)
    moved, leave = context.Queue(), context.Event()
    place = (source.experiment, source.parameters, source.place)
    start = (place, device, each, torch.are_deterministic_algorithms_enabled(), moved, leave)

    def submit(planned: Planned, seen: Trial | None) -> Future[Outcome]:
        with unheard():  # submitting may start a process
            return pool.submit(_run, tasks(planned), seen)

    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=start) as pool:
        try:
            yield _SideBySide(jobs, submit, observer, asked, leave, moved)
        except BrokenProcessPool as error:
            raise WorkerDied(
                "a worker died, probably for want of memory; run the same command again, better with fewer --jobs"
            ) from error
        finally:
            leave.set()


def _start(
    place: tuple[str, Frozen, Place], device: torch.device, threads: int, deterministic: bool, moved: Any, leave: Any
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on in order
    signal.signal(signal.SIGTERM, _terminate)  # as does what `timeout` and job schedulers send
    threading.Thread(target=leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    _worker.update(data=measure.load(*place).to(device), moved=moved, leave=leave)


def _terminate(number: int, _frame: object) -> None:
    """Have the trial under way save its state before this process ends; without one, end at once."""
    if not _worker.get("busy"):
        os._exit(128 + number)
    _worker["terminated"] = True
    last = threading.Timer(LAST_S, os._exit, [128 + number])  # nobody may be left who tells it to end
    last.daemon = True
    last.start()


def _run(task: Task, seen: Trial | None) -> Outcome:
    def stopping() -> bool:
        return _worker["leave"].is_set() or "terminated" in _worker

    monitor = Monitor(lambda done, words: _worker["moved"].put((task.spec, done, words)), stopping)
    _worker["busy"] = True
    try:
        return attempt(task, _worker["data"], monitor, seen)
    finally:
        _worker["busy"] = False
