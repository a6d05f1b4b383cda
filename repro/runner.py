"""Run what a condition still lacks: trials in this process, or in worker processes side by side.

Between two trials the experiment is asked again what is pending, so a search that has found its rate hands over
to scoring, and the same command after a stop goes on where it was.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from repro import experiments, measure
from repro.data import DataError
from repro.environment import describe
from repro.experiments import Planned
from repro.measure import Data, Monitor, Place, Task
from repro.problem import Problem
from repro.spec import Condition
from repro.store import Frozen, StoreError, Trial, TrialSpec, load, locked, save
from repro.training.loop import Interrupted

__all__ = ["DataError", "DeviceError", "Interrupted", "Observer", "Place", "Result", "pick_device", "prepare", "run"]

_stop = threading.Event()


class DeviceError(Problem):
    """The device asked for is not here; the message says what is."""


class Observer(Protocol):
    """What the command line wants to hear: a trial starts, moves on, or ends."""

    def started(self, planned: Planned) -> None: ...
    def moved(self, spec: TrialSpec, done: float, words: str) -> None: ...
    def ended(self, planned: Planned, trial: Trial) -> None: ...


class Silent:
    """An observer that listens to nothing."""

    def started(self, planned: Planned) -> None: ...
    def moved(self, spec: TrialSpec, done: float, words: str) -> None: ...
    def ended(self, planned: Planned, trial: Trial) -> None: ...


@dataclass
class Result:
    """What a run did: the trials it finished, and one line for each that it could not."""

    finished: list[Trial] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def pick_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Raises DeviceError where it is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"no such GPU: {name!r} was asked for and {torch.cuda.device_count()} are here; try --device cpu"
        )
    return device


def count_gpus(device: torch.device) -> int:
    """Return how many GPUs a run on ``device`` may use: none on a CPU."""
    return torch.cuda.device_count() if device.type == "cuda" else 0


@dataclass(frozen=True)
class Source:
    """A condition's data, loaded and checked, and how a worker loads it again."""

    data: Data
    experiment: str
    parameters: Frozen
    place: Place


def prepare(experiment: str, condition: Condition, place: Place) -> Source:
    """Load what a condition's trials are measured on. Raises DataError where it is missing or altered."""
    parameters = condition.any_arm
    return Source(measure.load(experiment, parameters, place), experiment, parameters, place)


def run(
    condition: Condition,
    source: Source,
    *,
    seeds: tuple[int, ...],
    store: Path,
    device: torch.device,
    jobs: int = 1,
    loader: str = "resident",
    observer: Observer | None = None,
) -> Result:
    """Run the condition's pending trials to the end and return what was done.

    A trial that fails is reported in the result and does not stop the others. Raises StoreError at once, and
    Interrupted after SIGINT or SIGTERM, when every trial under way has saved its state.
    """
    observer = observer or Silent()
    work = _Work(source.experiment, condition, seeds, store, source.data.digest, loader)
    result = Result()
    with _stop_on_signals():
        if jobs == 1:
            _run_here(work, source.data, device, observer, result)
        else:
            _run_in_workers(work, source, device, jobs, observer, result)
    return result


@dataclass
class _Work:
    """What is left of a condition, asked afresh each time; ``given_up`` are keys that failed in this run."""

    experiment: str
    condition: Condition
    seeds: tuple[int, ...]
    store: Path
    data_digest: str
    loader: str
    given_up: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)

    def next(self) -> Planned | None:
        done = {t.spec.key: t for t in load(self.store)[0] if t.data_digest == self.data_digest}
        pending = experiments.get(self.experiment).pending(self.condition.arms, self.seeds, done)
        return next((p for p in pending if p.spec.key not in self.given_up | self.running), None)

    def task(self, planned: Planned, device: torch.device) -> Task:
        return Task(planned.spec, planned.role, planned.limit, self.store, device, self.loader)


def _run_here(work: _Work, data: Data, device: torch.device, observer: Observer, result: Result) -> None:
    data = data.to(device)
    while planned := work.next():
        observer.started(planned)
        spec = planned.spec
        monitor = Monitor(lambda done, words, spec=spec: observer.moved(spec, done, words), _stop.is_set)
        _settle(work, planned, _measure(work.task(planned, device), data, monitor), observer, result)


def _measure(task: Task, data: Data, monitor: Monitor) -> Trial | str:
    """Run one trial and return its record, or one line that says why there is none."""
    with locked(task.store, task.spec.identity(data.digest)) as ours:
        if not ours:
            return "another process is running this trial; run the command again when it is done"
        try:
            trial = measure.measure(task, data, monitor)
        except (Interrupted, StoreError):
            raise
        except Exception as error:  # noqa: BLE001 - one failing trial, whatever ails it, does not stop the others
            words = f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"
            failed = Trial(spec=task.spec, data_digest=data.digest, status="failed", message=words)
            save(task.store, failed.model_copy(update={"environment": describe(task.device)}))
            return words
        return trial


def _settle(work: _Work, planned: Planned, outcome: Trial | str, observer: Observer, result: Result) -> None:
    if isinstance(outcome, str):
        work.given_up.add(planned.spec.key)
        result.failed.append(f"{planned.arm}, {planned.role}, seed {planned.spec.seed}: {outcome}")
        return
    result.finished.append(outcome)
    observer.ended(planned, outcome)


# Workers: spawned processes, each with the data in memory and a share of the cores.

_worker: dict[str, Any] = {}


def _start_worker(source: tuple[str, Frozen, Place], device: torch.device, threads: int, queue: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on in order
    torch.set_num_threads(threads)
    _worker.update(data=measure.load(*source).to(device), queue=queue, stop=stop)


def _measure_in_worker(task: Task) -> Trial | str | None:
    """Run one trial in a worker; None where it was asked to stop."""
    monitor = Monitor(lambda done, words: _worker["queue"].put((task.spec, done, words)), _worker["stop"].is_set)
    try:
        return _measure(task, _worker["data"], monitor)
    except Interrupted:
        return None


def _run_in_workers(
    work: _Work, source: Source, device: torch.device, jobs: int, observer: Observer, result: Result
) -> None:
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    queue, stop = context.Queue(), context.Event()
    start = ((source.experiment, source.parameters, source.place), device, threads, queue, stop)
    running: dict[Future[Trial | str | None], Planned] = {}
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=start) as pool:
        try:
            while True:
                while len(running) < jobs and not _stop.is_set() and (planned := work.next()):
                    observer.started(planned)
                    work.running.add(planned.spec.key)
                    running[pool.submit(_measure_in_worker, work.task(planned, device))] = planned
                if not running:
                    break
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                if _stop.is_set():
                    stop.set()
                while not queue.empty():
                    observer.moved(*queue.get())
                for future in done:
                    planned = running.pop(future)
                    work.running.discard(planned.spec.key)
                    outcome = future.result()
                    if outcome is not None:
                        _settle(work, planned, outcome, observer, result)
        except BrokenProcessPool:
            died = "a worker died, most likely for want of memory; the same command goes on, better with fewer --jobs"
            result.failed.append(died)
        finally:
            stop.set()  # an error in one worker: the others save their state and leave
    if _stop.is_set():
        raise Interrupted(0)


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one acts as it always does."""

    def request(number: int, _frame: Any) -> None:
        _stop.set()
        signal.signal(number, previous[number])

    _stop.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
