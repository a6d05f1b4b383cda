"""The pending trials of some conditions: which one is run next, and what becomes of one that came back.

This module knows no clock, no process and no network: ``drive`` keeps any ``Pool`` of workers busy, be it this process,
processes beside it, a cluster or a simulation of one. The experiments are asked what is pending at the start, after
each trial of a search (so that a search that has found its rate hands over to scoring), and once more at the end. The
first condition's trials go first; a trial that several conditions want is run once.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from repro import experiments
from repro.experiments import Planned
from repro.marks import Reader
from repro.spec import Condition
from repro.store import Trial, TrialSpec

TRIES = 5
"""A trial is given up once it has lost this many workers in a row without making progress."""


class Observer(Protocol):
    """What the command line is told: that a trial starts, makes progress, ends, or fails for the reason ``why``."""

    def started(self, planned: Planned) -> None: ...
    def moved(self, spec: TrialSpec, done: float, words: str) -> None: ...
    def ended(self, planned: Planned, trial: Trial) -> None: ...
    def failed(self, planned: Planned, why: str) -> None: ...


class Silent:
    """An observer that listens to nothing."""

    def started(self, planned: Planned) -> None: ...
    def moved(self, spec: TrialSpec, done: float, words: str) -> None: ...
    def ended(self, planned: Planned, trial: Trial) -> None: ...
    def failed(self, planned: Planned, why: str) -> None: ...


@dataclass(frozen=True)
class Elsewhere:
    """A trial of another process: held by it now, or else with the record ``found``, written since we planned."""

    found: Trial | None = None


@dataclass(frozen=True)
class Gone:
    """A trial whose worker is gone: ``why``, and whether the trial made progress since it was last begun."""

    why: str
    got_on: bool


Outcome = Trial | Elsewhere | Gone | str | None
"""How a trial came back: ended, of another process, its worker gone, failed (one line why), or stopped (None)."""


class Pool(Protocol):
    """Workers that trials are given to."""

    def stopping(self) -> bool:
        """Return whether no further trial may be begun."""
        ...

    def room(self) -> bool:
        """Return whether a trial that is begun now finds a worker."""
        ...

    def begin(self, planned: Planned, seen: Trial | None) -> None:
        """Begin or continue a trial; ``seen`` is the record that it was planned on."""
        ...

    def ended(self) -> Iterable[tuple[Planned, Outcome]]:
        """Return the trials that came back, one entry for each time a trial was begun; wait a little if there is none.

        Once stopping, make every trial under way save its state and come back. An error of the workers is raised only
        after the trials that came back before it.
        """
        ...

    def idle(self) -> None:
        """Wait a little for the processes that hold our trials."""
        ...


@dataclass(frozen=True, eq=False)
class Part:
    """A condition to run with some seeds; where there are several, ``name`` is put before its arms in messages."""

    experiment: str
    condition: Condition
    seeds: tuple[int, ...]
    data_digest: str
    name: str = ""


class Job(NamedTuple):
    """A trial to run, its record (if any) when it was planned, and the condition it is run for."""

    planned: Planned
    seen: Trial | None
    part: Part


@dataclass
class Work:
    """The pending trials of some conditions. Keys are those of trial specs; within one run a key implies the data."""

    parts: Sequence[Part]
    reader: Reader
    given_up: set[str] = field(default_factory=set)
    """Keys that failed in this run."""
    running: dict[str, Job] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    """Keys that another process held when we last looked."""
    begun: set[str] = field(default_factory=set)
    """Keys that the observer has heard of."""
    lost: Counter[str] = field(default_factory=Counter)
    """key -> workers lost one after the other."""
    _waiting: deque[Job] | None = None
    """What the experiments last said was pending, less what was begun since; None where they must be asked again."""
    _ended: set[str] = field(default_factory=set)
    """Keys of the trials that ended since they were asked: every condition that wants one of them now has it."""
    _changed: bool = False
    """Whether a trial came back since they were asked."""

    def next(self) -> Job | None:
        """Return the next trial to run; None where nothing can be begun now."""
        found = self._first()
        if found is None and self._changed and not self.running:
            self._waiting = None  # another process may have left a trial undone, or an experiment may want one more
            found = self._first()
        return found

    def _first(self) -> Job | None:
        if self._waiting is None:
            self._waiting, self._changed = deque(self._pending()), False
            self._ended.clear()
        while self._waiting:
            job = self._waiting.popleft()
            key = job.planned.spec.key
            if not any(key in keys for keys in (self.given_up, self.running, self.elsewhere, self._ended)):
                return job
        return None

    def _pending(self) -> Iterator[Job]:
        stored = self.reader.trials()
        for part in self.parts:
            done = {t.spec.key: t for t in stored if t.data_digest == part.data_digest}
            for planned in experiments.get(part.experiment).pending(part.condition.arms, part.seeds, done):
                yield Job(planned._replace(arm=part.name + planned.arm), done.get(planned.spec.key), part)

    def begin(self, job: Job, observer: Observer) -> None:
        """Count a trial as running, and tell the observer the first time."""
        key = job.planned.spec.key
        self.running[key] = job
        if key not in self.begun:
            self.begun.add(key)
            observer.started(job.planned)

    def settle(self, planned: Planned, outcome: Outcome, observer: Observer) -> None:
        """Take a trial off the running ones, and deal with how it came back."""
        key = planned.spec.key
        job = self.running.pop(key)
        self._changed = True
        if planned.role == "tuning":
            self._waiting = None  # what a search wants next follows from what it has found
        match outcome:
            case Trial():
                self.lost.pop(key, None)
                self._ended.add(key)
                observer.ended(planned, outcome)
            case Elsewhere(found):
                if found is None:
                    observer.moved(planned.spec, 0.0, "run by another process, which is waited for")
                    self.elsewhere.add(key)
                elif found.status not in ("running", "failed"):
                    observer.ended(planned, found)
            case Gone(why, got_on):
                self.lost[key] = 1 if got_on else self.lost[key] + 1
                if self.lost[key] >= TRIES:
                    self._give_up(planned, f"{why}; {TRIES} workers were lost with it one after the other", observer)
                else:
                    observer.moved(planned.spec, 0.0, f"{why}, goes on elsewhere")
                    if self._waiting is not None:
                        self._waiting.appendleft(job)
            case str():
                self._give_up(planned, outcome, observer)

    def _give_up(self, planned: Planned, why: str, observer: Observer) -> None:
        self.given_up.add(planned.spec.key)
        observer.failed(planned, why)

    def look_again(self) -> None:
        """Forget which trials other processes held; the next call reads the store and asks the experiments again."""
        self.elsewhere.clear()
        self._waiting = None


def drive(work: Work, pool: Pool, observer: Observer) -> bool:
    """Keep a pool's workers busy until nothing is left that can be begun; return whether it was stopped before that.

    On return every trial under way has come back. The observer hears of each trial as soon as it comes back, so an
    error that is raised afterwards hides none of them.
    """
    while True:
        while not pool.stopping() and pool.room() and (job := work.next()):
            work.begin(job, observer)
            pool.begin(job.planned, job.seen)
        if work.running:
            for planned, outcome in pool.ended():
                work.settle(planned, outcome, observer)
        elif pool.stopping():
            return True
        elif not work.elsewhere:
            return False
        else:
            pool.idle()
            work.look_again()
