"""Run what a condition still lacks: trials in this process, in worker processes side by side, or in a given pool.

The same command after a stop goes on where it was. Several commands may share a store: each trial is run by one of
them, and who has nothing else to do waits for the others.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from repro import experiments, measure
from repro.data import DataError
from repro.environment import describe
from repro.experiments import Planned
from repro.frozen import Frozen
from repro.measure import Data, Monitor, Place, Task, together
from repro.problem import Problem
from repro.running.work import Elsewhere, Observer, Outcome, Pool, Result, Silent, Work, drive
from repro.spec import Condition
from repro.store import StoreError, Trial, TrialSpec, locked, recall, save
from repro.training import parallel
from repro.training.loop import Interrupted
from repro.training.parallel import ALONE, Lost, Team
from repro.training.ranks import leave_with_parent

__all__ = [
    "DataError", "DeviceError", "Interrupted", "Lost", "Observer", "Place", "Result", "follow", "joined", "pick_device",
    "prepare", "run",
]  # fmt: skip

_stop = threading.Event()
WAIT_S = 1.0  # between two looks at trials that another process holds


class DeviceError(Problem):
    """The device asked for is not here; the message says what is."""


@contextmanager
def joined(device: str) -> Iterator[tuple[Team, torch.device]]:
    """Meet the processes that torchrun started with this one, if it did; yield them and this one's device.

    Raises DeviceError where that is not here, Problem where torchrun's words make no sense, Lost where nobody comes.
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
    """Be another rank than 0: do its part of the trials that rank 0 runs, and return the exit code. Raises Lost."""
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


def prepare(
    experiment: str, condition: Condition, place: Place, *, team: Team = ALONE, micro_batch: int | None = None,
    device: torch.device | None = None,
) -> Source:  # fmt: skip
    """Load what a condition's trials are measured on, on every rank of ``team``.

    Raises DataError where it is missing or altered, Unfit where these ranks, or such passes, cannot train the trials.
    """
    together.refuse_unfit(experiment, condition.arms, team, micro_batch, device or torch.device("cpu"))
    parameters = condition.any_arm
    return Source(together.load(experiment, parameters, place, team), experiment, parameters, place)


def run(
    condition: Condition,
    source: Source,
    *,
    seeds: tuple[int, ...],
    store: Path,
    device: torch.device,
    jobs: int = 1,
    loader: str = "resident",
    deterministic: bool = False,
    micro_batch: int | None = None,
    team: Team = ALONE,
    observer: Observer | None = None,
    pool: Callable[..., AbstractContextManager[Pool]] | None = None,
) -> Result:
    """Run the condition's pending trials to the end and return what was done.

    ``deterministic``: on a GPU too, only operations that give the same bits each time; a trial that needs another
    fails with torch's words, which name it. A CPU with a fixed number of threads gives the same bits anyway.
    ``micro_batch``: of a batch so many images go through the network at a time. The other ranks of ``team`` follow.
    ``pool``, where given, makes the workers, in place of ``jobs``: of the source, what makes a trial's task, the
    observer, and the event that says to stop.

    A trial that fails is reported in the result and does not stop the others. Raises StoreError at once, and
    Interrupted after SIGINT or SIGTERM, when every trial under way has saved its state, and Lost where ranks are.
    """
    observer = observer or Silent()
    work = Work(source.experiment, condition, seeds, store, source.data.digest)
    result = Result()

    def task(planned: Planned) -> Task:
        return Task(planned.spec, planned.role, planned.limit, store, device, loader, micro_batch, team)

    with _stop_on_signals(), _determinism(deterministic):
        if pool is not None:
            with pool(source, task, observer, _stop) as workers:
                drive(work, workers, observer, result)
        elif jobs == 1:
            drive(work, _Here(task, source.data.to(device), team, observer), observer, result)
        else:
            _run_in_workers(work, source, task, device, jobs, observer, result)
    if _stop.is_set():
        raise Interrupted(0)
    return result


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Have torch use operations that give the same bits each time, and afterwards what it used before."""
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
    back: list[tuple[Planned, Outcome]] = field(default_factory=list)

    def stopping(self) -> bool:
        return False  # the trial under way raises Interrupted

    def room(self) -> bool:
        return not self.back

    def begin(self, planned: Planned, seen: Trial | None) -> None:
        monitor = Monitor(lambda done, words: self.observer.moved(planned.spec, done, words), _stop.is_set)
        self.back.append((planned, _measure(self.tasks(planned), self.data, monitor, seen)))

    def ended(self) -> list[tuple[Planned, Outcome]]:
        back, self.back = self.back, []
        failed = next((outcome for _, outcome in back if isinstance(outcome, str)), None)
        if failed is not None and not self.team.alone:
            raise Lost(f"{failed}; the ranks cannot go on together, and the same command starts it again")
        return back

    def idle(self) -> None:
        if _stop.wait(WAIT_S):
            raise Interrupted(0)
        self.team.order("wait")  # or the other ranks would give us up


def _measure(task: Task, data: Data, monitor: Monitor, seen: Trial | None) -> Trial | Elsewhere | str:
    """Run one trial and return its record, or one line that says why there is none.

    ``seen`` is the record that it was planned on: where it has changed, another process was faster.
    """
    identity = task.spec.identity(data.digest)
    with locked(task.store, identity) as ours:
        if not ours:
            return Elsewhere()
        if (found := recall(task.store, identity)) != seen:
            return Elsewhere(found)
        try:
            task.team.order("measure", task)
            trial = measure.measure(task, data, monitor)
        except (Interrupted, StoreError, Lost):
            raise
        except Exception as error:  # noqa: BLE001 - one failing trial, whatever ails it, does not stop the others
            words = f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"
            if _for_want_of_memory(error):
                words += _smaller(task.spec, task.micro_batch, task.team)
            failed = Trial(spec=task.spec, data_digest=data.digest, status="failed", message=words)
            save(task.store, failed.model_copy(update={"environment": describe(task.device)}))
            return words
        return trial


def _for_want_of_memory(error: Exception) -> bool:
    """Whether an error says that memory was asked for and not there, on a GPU or on the machine."""
    told = isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))
    return told or isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)


def _smaller(spec: TrialSpec, micro_batch: int | None = None, team: Team = ALONE) -> str:
    """Return what may help a trial that memory did not suffice for; empty where no batch can be halved."""
    field = experiments.get(spec.experiment).Parameters.model_fields.get("batch")
    batch = spec.config.get("batch", field.default if field else None)
    if not isinstance(batch, int) or batch < 2:
        return ""
    passes = together.smaller_passes(spec, batch // team.world, micro_batch)
    return f"{passes}; batch = {batch // 2} in the claim, half of {batch}, may fit (a guess, and then another trial)"


# Workers: spawned processes, each with the data in memory and a share of the cores.

_worker: dict[str, Any] = {}


def _start_worker(
    source: tuple[str, Frozen, Place], device: torch.device, threads: int, deterministic: bool, queue: Any, stop: Any
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on in order
    threading.Thread(target=leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    _worker.update(data=measure.load(*source).to(device), queue=queue, stop=stop)


def _measure_in_worker(task: Task, seen: Trial | None) -> Trial | Elsewhere | str | None:
    """Run one trial in a worker; None where it was asked to stop."""
    monitor = Monitor(lambda done, words: _worker["queue"].put((task.spec, done, words)), _worker["stop"].is_set)
    try:
        return _measure(task, _worker["data"], monitor, seen)
    except Interrupted:
        return None


@dataclass
class _Workers:
    """Processes of this machine; ``queue`` brings what they report, ``stop`` tells them to leave."""

    jobs: int
    tasks: Callable[[Planned], Task]
    observer: Observer
    processes: ProcessPoolExecutor
    queue: Any
    stop: Any
    running: dict[Future[Outcome], Planned] = field(default_factory=dict)

    def stopping(self) -> bool:
        return _stop.is_set()

    def room(self) -> bool:
        return len(self.running) < self.jobs

    def begin(self, planned: Planned, seen: Trial | None) -> None:
        self.running[self.processes.submit(_measure_in_worker, self.tasks(planned), seen)] = planned

    def ended(self) -> list[tuple[Planned, Outcome]]:
        done, _ = wait(self.running, timeout=0.5, return_when=FIRST_COMPLETED)
        if _stop.is_set():
            self.stop.set()
        while not self.queue.empty():
            self.observer.moved(*self.queue.get())
        return [(self.running.pop(future), future.result()) for future in done]

    def idle(self) -> None:
        _stop.wait(WAIT_S)


def _run_in_workers(
    work: Work, source: Source, tasks: Callable[[Planned], Task], device: torch.device, jobs: int, observer: Observer,
    result: Result,
) -> None:  # fmt: skip
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    queue, stop = context.Queue(), context.Event()
    place = (source.experiment, source.parameters, source.place)
    start = (place, device, threads, torch.are_deterministic_algorithms_enabled(), queue, stop)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=start) as processes:
        try:
            drive(work, _Workers(jobs, tasks, observer, processes, queue, stop), observer, result)
        except BrokenProcessPool:
            died = "a worker died, most likely for want of memory; the same command goes on, better with fewer --jobs"
            result.failed.append(died)
        finally:
            stop.set()  # an error in one worker: the others save their state and leave


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one acts as it always does.

    But not under torchrun, which passes on a signal that may have come here anyway, and kills what stays too long.
    """

    def request(number: int, _frame: Any) -> None:
        _stop.set()
        if "TORCHELASTIC_RUN_ID" not in os.environ:
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
