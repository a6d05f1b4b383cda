"""Trials on a Ray cluster: each is a task with the CPUs and GPUs it needs, on whichever machine has them free.

The machines need to share nothing but the data sets. A worker runs its trial in a temporary folder, which begins with
the state that the store has. As it trains it sends its newest state home, and at the end its record and curve. Only the
home process (the one that the user started) and its desk, an actor on the same machine, write to the store, under the
trial's lock. When a worker is lost, its trial is begun again from the newest state that came home. Ray's own retries
are off, because they would begin with an older state.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import repro
from repro.experiments import Planned
from repro.measure import Task
from repro.problem import Problem, first_line, told
from repro.running import runner
from repro.running.remote import STATE, Order, files_in, measure_there, put
from repro.running.runner import DeviceError, Source
from repro.running.work import Elsewhere, Gone, Observer, Outcome
from repro.store import Trial, TrialSpec, folder, locked, recall

LOOK_S = 0.5  # seconds between two looks of the home process for trials that came back and for reported progress
POLL_S = 1.0  # seconds between two calls of a worker to the desk; longer where more than CALLERS trials find room
CALLERS = 200
NODES_S = 5.0  # seconds between two looks at which machines the cluster has


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that we have joined: trials run on ``device`` there, ``jobs`` at a time at most."""

    device: torch.device
    gpus: int
    """GPUs of the machine that has the most; 0 where trials run on CPUs."""
    jobs: int | None
    desk: Any

    @contextmanager
    def pool(
        self, sources: Callable[[Planned], Source], tasks: Callable[[Planned], Task], observer: Observer,
        stop: threading.Event,
    ) -> Iterator["_Pool"]:  # fmt: skip
        """Yield the cluster's workers, for ``runner.run_together``. Raises Problem where no machine fits a trial."""
        each = 1 if self.gpus else 0
        cpus, gpus = _most("CPU"), _most("GPU")
        shares = [int(machine.get("CPU", 0) / machine["GPU"]) for machine in _machines() if machine.get("GPU")]
        threads = max(1, min(shares)) if each else torch.get_num_threads()  # so that each of its GPUs finds as many
        if not _slots(threads, each):
            raise Problem(
                f"no machine of the cluster has the {threads} CPUs and {each} GPUs that a trial takes (at most "
                f"{cpus:g} and {gpus:g} are there); on CPUs, OMP_NUM_THREADS sets how many"
            )
        pool = _Pool(sources, tasks, observer, stop, self.desk, threads, each, self.jobs)
        try:
            yield pool
        finally:
            pool.close()


@contextmanager
def joined(on: str, device: str, jobs: int | None) -> Iterator[Cluster]:
    """Join the cluster that ``on`` names (``ray://HOST:PORT`` or ``ray://auto``); ``ray`` starts one on this machine.

    Raises Problem where no cluster answers, and DeviceError where it lacks the ``device`` (auto, cpu or cuda).
    """
    address = on.removeprefix("ray").removeprefix("://") or "local"
    quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    ours = not ray.is_initialized()
    if ours:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # do not hide the GPUs from tasks without any
        try:
            ray.init(address=address, **quiet, **({"include_dashboard": False} if address == "local" else {}))
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            why = first_line(error)
            how = "" if "RAY_AUTH_MODE" in os.environ else "where it asks for a token, set RAY_AUTH_MODE=token; "
            raise Problem(f"--on {on}: no cluster was joined ({why}); {how}see docs/cluster.md") from error
    try:
        gpus = int(_most("GPU"))
        if device not in ("auto", "cpu", "cuda"):
            raise DeviceError(f"--device {device}: on a cluster it is auto, cpu or cuda, and Ray chooses the GPU")
        if device == "cuda" and not gpus:
            raise DeviceError("no machine of the cluster has a GPU; try --device cpu")
        gpus = 0 if device == "cpu" else gpus
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        desk = ray.remote(Desk).options(num_cpus=0, max_concurrency=8, scheduling_strategy=here).remote()
        yield Cluster(torch.device("cuda" if gpus else "cpu"), gpus, jobs, desk)
    finally:
        if ours:
            ray.shutdown()


def _machines() -> list[dict[str, float]]:
    """Return the resources of each machine that is alive, as name -> amount."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _most(resource: str) -> float:
    """Return the largest amount of a resource that any one machine has."""
    return max((machine.get(resource, 0.0) for machine in _machines()), default=0.0)


def _slots(threads: int, gpus: int) -> int:
    """Return how many trials find room on the cluster at a time."""
    fit = [
        min(machine.get("CPU", 0.0) // threads, machine.get("GPU", 0.0) // gpus if gpus else float("inf"))
        for machine in _machines()
    ]
    return int(sum(fit))


class Desk:
    """The actor that workers report to. It runs on the machine of the home process, so it can write to the store."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[int, Path]] = {}
        self.told: dict[str, tuple[float, str]] = {}
        self.heard: set[str] = set()
        self.kept: set[str] = set()
        self.leaving = False

    def begin(self, key: str, attempt: int, place: Path) -> None:
        """Accept reports of this attempt at a trial, and of no earlier one; ``place`` is its folder in the store."""
        self.open[key] = (attempt, place)
        self.heard.discard(key)
        self.kept.discard(key)

    def end(self, key: str) -> bool:
        """Accept no more reports of a trial; return whether a state of its last attempt came home."""
        del self.open[key]
        return key in self.kept

    def tell(self, key: str, attempt: int, done: float, words: str) -> bool:
        """Note how far an attempt is; return whether it must stop."""
        if self._outdated(key, attempt):
            return True
        self.heard.add(key)
        if words:
            self.told[key] = (done, words)
        return self.leaving

    def keep(self, key: str, attempt: int, files: dict[str, bytes]) -> None:
        """Put the state of an attempt into the store. Raises StoreError."""
        if not self._outdated(key, attempt):
            put(self.open[key][1], files)
            (self.open[key][1] / "checkpoint.pt.new").unlink(missing_ok=True)  # of a killed run: it would be read first
            self.kept.add(key)

    def _outdated(self, key: str, attempt: int) -> bool:
        return self.open.get(key, (None,))[0] != attempt

    def collect(self) -> dict[str, tuple[float, str]]:
        """Return the progress reported since the last call, as key -> (how far, words)."""
        told, self.told = self.told, {}
        return told

    def leave(self) -> set[str]:
        """Make every attempt stop at its next call; return the keys of those that have called already."""
        self.leaving = True
        return self.heard


@dataclass
class _Pool:
    """The workers of a cluster, as the home process sees them."""

    sources: Callable[[Planned], Source]
    tasks: Callable[[Planned], Task]
    observer: Observer
    stop: threading.Event
    desk: Any
    threads: int
    gpus: int
    jobs: int | None
    running: dict[Any, Planned] = field(default_factory=dict)
    origins: dict[int, Any] = field(default_factory=dict)
    """id of a source -> where its data comes from, as Ray keeps it for the workers."""
    places: dict[str, Path] = field(default_factory=dict)
    """key -> the trial's folder in the store."""
    locks: dict[str, ExitStack] = field(default_factory=dict)
    specs: dict[str, TrialSpec] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    back: list[tuple[Planned, Outcome]] = field(default_factory=list)
    left: bool = False
    _slots: int = 1
    _looked: float = float("-inf")
    _asked: float = 0.0

    def __post_init__(self) -> None:
        _hold_many_files()
        options = {"num_cpus": self.threads, "num_gpus": self.gpus, "max_retries": 0}
        self.remote = ray.remote(measure_there).options(**options)

    def _origin(self, source: Source) -> Any:
        if id(source) not in self.origins:
            place = replace(source.place, own=source.place.own.resolve())
            place = replace(place, root=place.root.resolve() if place.root else None)
            self.origins[id(source)] = ray.put((source.experiment, source.parameters, place))
        return self.origins[id(source)]

    def stopping(self) -> bool:
        return self.stop.is_set()

    def room(self) -> bool:
        if time.monotonic() - self._looked > NODES_S:
            # With no machine left, one trial still waits in Ray's queue for the next machine.
            self._slots, self._looked = max(1, _slots(self.threads, self.gpus)), time.monotonic()
        return not self.back and len(self.running) < min(self._slots, self.jobs or self._slots)

    def begin(self, planned: Planned, seen: Trial | None) -> None:
        key, task, source = planned.spec.key, self.tasks(planned), self.sources(planned)
        identity = planned.spec.identity(source.data.digest)
        if key not in self.locks:
            with ExitStack() as lock:
                if not lock.enter_context(locked(task.setting.store, identity)):
                    self.back.append((planned, Elsewhere()))
                    return
                if (found := recall(task.setting.store, identity)) != seen:
                    self.back.append((planned, Elsewhere(found)))
                    return
                self.locks[key] = lock.pop_all()
        self.specs[key] = planned.spec
        self.attempts[key] = self.attempts.get(key, 0) + 1
        place = self.places[key] = folder(task.setting.store, identity).resolve()
        ray.get(self.desk.begin.remote(key, self.attempts[key], place))
        order = Order(
            task, self._origin(source), source.data.digest, self.threads, (repro.__version__, torch.__version__),
            self.attempts[key], POLL_S * max(1.0, self._slots / CALLERS), files_in(place, (*STATE, "record.json")),
        )  # fmt: skip
        self.running[self.remote.remote(order, self.desk)] = planned

    def ended(self) -> Iterator[tuple[Planned, Outcome]]:
        if self.back:
            back, self.back = self.back, []
            yield from back
            return
        ray.wait(list(self.running), timeout=LOOK_S)
        done, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        if self.stop.is_set() and not self.left:
            self.left = True
            called = ray.get(self.desk.leave.remote())
            for ref, planned in self.running.items():
                if planned.spec.key not in called:
                    ray.cancel(ref)  # it waits for a machine, or has only just begun
        self._tell()
        for ref in done:
            planned = self.running.pop(ref)
            yield planned, self._came_back(ref, planned)

    def _tell(self) -> None:
        if time.monotonic() - self._asked < LOOK_S:
            return
        for key, (done, words) in ray.get(self.desk.collect.remote()).items():
            self.observer.moved(self.specs[key], done, words)
        self._asked = time.monotonic()

    def _came_back(self, ref: Any, planned: Planned) -> Outcome:
        key = planned.spec.key
        kept = ray.get(self.desk.end.remote(key))
        outcome: Outcome
        try:
            back = ray.get(ref)
        except RayTaskError as error:
            outcome = None if self.left else told(error.cause)
        except RayError as error:
            if not self.left:
                return Gone(f"its worker is gone ({type(error).__name__})", kept)  # the lock stays: it is begun again
            outcome = None
        else:
            outcome = back.outcome
            if back.files is not None:
                put(self.places[key], back.files)
                for name in STATE:
                    if name not in back.files:
                        (self.places[key] / name).unlink(missing_ok=True)
        self.locks.pop(key).close()
        return outcome

    def idle(self) -> None:
        self.stop.wait(runner.WAIT_S)

    def close(self) -> None:
        """Release all locks. Trials that still run, after an error at home, are no longer expected and so stop."""
        for key, lock in self.locks.items():
            self.desk.end.remote(key)
            lock.close()


def _hold_many_files() -> None:
    """Raise this process's limit of open files as far as it may go: each trial under way holds a lock file open."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
