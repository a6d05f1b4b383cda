"""Run a condition's pending trials: one at a time, several side by side, or in a given pool of workers.

After a stop, the same command continues where it was. Several commands may share a store: each trial is run by one of
them, and a command that has nothing else to do waits for the others.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from repro import experiments
from repro.data import DataError
from repro.experiments import Planned
from repro.marks import Reader
from repro.measure import Data, Monitor, Place, Setting, Task, together
from repro.problem import Problem
from repro.running.attempt import attempt
from repro.running.work import Observer, Outcome, Part, Pool, Silent, Work, drive
from repro.running.workers import WAIT_S, Source, WorkerDied, processes, threads
from repro.spec import Condition
from repro.store import Trial
from repro.training import parallel
from repro.training.parallel import ALONE, Lost, Team

__all__ = [
    "DataError", "DeviceError", "Lost", "Observer", "Place", "Setting", "Source", "Wanted", "WorkerDied", "alone",
    "follow", "joined", "pick_device", "prepare", "run", "run_together", "stopping",
]  # fmt: skip

SHARED = "a machine that other trials share tells no times"

_stop = threading.Event()


class DeviceError(Problem):
    """The requested device is not on this machine; the message says what is."""


@contextmanager
def joined(device: str) -> Iterator[tuple[Team, torch.device]]:
    """Join the processes that torchrun started with this one, if any; yield the team and this process's device.

    Raises DeviceError where that device is not here, Problem where torchrun's environment variables make no sense or
    the ranks differ in GPU or code, and Lost where the other ranks do not come.
    """
    place = parallel.asked_for()
    here = pick_device(device)
    if place is not None and here.type == "cuda":
        if here.index is not None:
            raise DeviceError(f"{device} is one GPU, and each of {place[1]} processes needs its own: use --device cuda")
        here = pick_device(f"cuda:{place[2]}")
    with parallel.joined(place, here) as team:
        yield team, here


def follow(team: Team, place: Place, device: torch.device, *, deterministic: bool = False) -> int:
    """Do the part of a rank other than 0 in the trials that rank 0 runs; return the exit code. Raises Lost."""
    with _stop_on_signals(), _determinism(deterministic):
        return together.follow(team, place, device, _stop.is_set)


def pick_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Raises DeviceError where it is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index is not None):
        raise DeviceError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"no such GPU: {name!r} was asked for and {torch.cuda.device_count()} are here; try --device cpu"
        )
    return device


def count_gpus(device: torch.device) -> int:
    """Return how many GPUs a run on ``device`` may use; 0 on a CPU."""
    return torch.cuda.device_count() if device.type == "cuda" else 0


def prepare(experiment: str, condition: Condition, place: Place, *, team: Team = ALONE) -> Source:
    """Return the data of a condition's trials, loaded on every rank of ``team``.

    Raises DataError where it is missing or altered.
    """
    parameters = condition.any_arm
    return Source(together.load(experiment, parameters, place, team), experiment, parameters, place)


def alone(experiment: str, condition: Condition, device: torch.device) -> str:
    """Return why a condition's trials cannot run side by side on one machine; empty where they can."""
    if experiments.get(experiment).TIMED:
        return SHARED
    precisions = {getattr(arm, "precision", "fp32") for arm in condition.arms.values()}
    if device.type == "cuda" and len(precisions) > 1:  # TF32 is a switch of the whole process
        return f"its arms differ in precision ({', '.join(sorted(precisions))}), and threads share one"
    return ""


@dataclass(frozen=True)
class Wanted:
    """A condition to run with some seeds, on its data; ``name`` tells it apart where several are run together."""

    condition: Condition
    source: Source
    seeds: tuple[int, ...]
    name: str = ""

    def part(self, name: str = "") -> Part:
        """Return what the scheduler must know of this condition; ``name`` is put before its arms in messages."""
        return Part(self.source.experiment, self.condition, self.seeds, self.source.data.digest, name)


def run(
    wanted: Wanted,
    setting: Setting,
    *,
    jobs: int = 1,
    observer: Observer | None = None,
    pool: Callable[..., AbstractContextManager[Pool]] | None = None,
    reader: Reader | None = None,
) -> bool:
    """Run the condition's pending trials; return whether SIGINT or SIGTERM stopped them before the end.

    If so, every trial under way has saved its state. ``jobs`` trials run side by side, or one at a time in this process
    where they have to be ``alone``. The other ranks of the setting's team follow. ``pool``, where given, makes the
    workers in place of ``jobs``; it is called with the source, the function that makes a trial's task, the observer,
    and the event that says to stop. ``reader`` may know the store's records already, from before this run.

    A trial that fails is reported to the observer at once and does not stop the others. Raises StoreError, WorkerDied
    where a worker process is gone, and Lost where a rank is.
    """
    observer, source, device = observer or Silent(), wanted.source, setting.device
    work = Work([wanted.part()], reader or Reader(setting.store))
    jobs = 1 if alone(source.experiment, wanted.condition, device) else jobs

    def task(planned: Planned) -> Task:
        return Task(planned.spec, planned.role, planned.limit, setting)

    with _stop_on_signals(), _determinism(setting.deterministic):
        if pool is None and jobs == 1:
            return drive(work, _Here(task, source.data.to(device), setting.team, observer), observer)
        if pool is None:
            pool = partial(threads if device.type == "cuda" else processes, jobs=jobs, device=device)
        with pool(source, task, observer, _stop) as workers:
            return drive(work, workers, observer)


def run_together(
    wanted: Sequence[Wanted],
    setting: Setting,
    pool: Callable[..., AbstractContextManager[Pool]],
    *,
    observer: Observer | None = None,
    reader: Reader | None = None,
) -> bool:
    """Run the pending trials of several conditions at once, on a cluster: no worker idles while one condition ends.

    A trial that several conditions want is run once, for the first of them. ``pool`` makes the workers; it is called
    with the functions that give a trial's source and its task, the observer, and the event that says to stop.
    Everything else is as in ``run``.
    """
    observer = observer or Silent()
    sources = {one.part(one.name): one.source for one in wanted}
    work = Work([*sources], reader or Reader(setting.store))

    def source(planned: Planned) -> Source:
        return sources[work.running[planned.spec.key].part]

    def task(planned: Planned) -> Task:
        return Task(planned.spec, planned.role, planned.limit, setting)

    with _stop_on_signals(), _determinism(setting.deterministic), pool(source, task, observer, _stop) as workers:
        return drive(work, workers, observer)


def stopping() -> bool:
    """Return whether a signal asked the last run to stop, which ``run`` could not say itself where it raised."""
    return _stop.is_set()


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Make torch use only operations that give the same bits each time, if ``wanted``; then restore its setting."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when a GPU is first used; workers inherit it
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@dataclass
class _Here:
    """One trial at a time, in this process."""

    tasks: Callable[[Planned], Task]
    data: Data
    team: Team
    observer: Observer
    stopped: bool = False
    back: list[tuple[Planned, Outcome]] = field(default_factory=list)

    def stopping(self) -> bool:
        return self.stopped or _stop.is_set()

    def room(self) -> bool:
        return not self.back

    def begin(self, planned: Planned, seen: Trial | None) -> None:
        monitor = Monitor(lambda done, words: self.observer.moved(planned.spec, done, words), _stop.is_set)
        outcome = attempt(self.tasks(planned), self.data, monitor, seen)
        self.stopped = outcome is None  # by Ctrl-C here, or at another rank
        self.back.append((planned, outcome))

    def ended(self) -> list[tuple[Planned, Outcome]]:
        back, self.back = self.back, []
        failed = next((outcome for _, outcome in back if isinstance(outcome, str)), None)
        if failed is not None and not self.team.alone:
            raise Lost(f"{failed}; the ranks cannot go on together, and the same command starts it again")
        return back

    def idle(self) -> None:
        _stop.wait(WAIT_S)
        self.team.order("wait")  # or the other ranks would give us up


SAME_S = 1.0
"""Signals within so many seconds are one."""


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one acts as it always does.

    What comes within SAME_S of the first is the same one: `timeout` signals its child, and then the group of both.
    Under torchrun a second one is another request: torchrun passes on a signal that may have come here already, and it
    kills processes that stay too long.
    """
    first: list[float] = []

    def request(number: int, _frame: Any) -> None:
        _stop.set()
        first.append(time.monotonic())
        if first[-1] - first[0] > SAME_S and "TORCHELASTIC_RUN_ID" not in os.environ:
            signal.signal(number, previous[number])
            signal.raise_signal(number)

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
