"""What is left of some conditions: which trial is run next, and what becomes of one that came back.

It knows no clock, no process and no network: ``drive`` keeps any ``Pool`` of workers busy, this process, processes
beside it, a cluster or a simulation of one. The experiments are asked what is pending at the start, in a search after
each of its trials (so that one that has found its rate hands over to scoring), and once more at the end. The first
condition's trials go first; a trial that several want is run once.
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
"""Workers that a trial may lose one after the other, without getting on, before it is given up."""


class Observer(Protocol):
    """What the command line wants to hear: a trial starts, moves on, ends, or fails for the reason ``why``."""

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
    """A trial that is another process's: held by it now, or else ``found`` as it left it since we planned."""

    found: Trial | None = None


@dataclass(frozen=True)
class Gone:
    """A trial whose worker is gone: ``why``, and whether it had got on since the trial was last begun."""

    why: str
    got_on: bool


Outcome = Trial | Elsewhere | Gone | str | None
"""How a trial came back: ended, somebody else's, without its worker, failed (one line), or stopped with its state."""


class Pool(Protocol):
    """Workers that trials are given to."""

    def stopping(self) -> bool:
        """Whether no further trial is to be begun."""
        ...

    def room(self) -> bool:
        """Whether a trial that is begun now finds a worker."""
        ...

    def begin(self, planned: Planned, seen: Trial | None) -> None:
        """Begin a trial, or go on with it; ``seen`` is the record that it was planned on."""
        ...

    def ended(self) -> Iterable[tuple[Planned, Outcome]]:
        """Give the trials that came back, each once for each time it was begun; waits a little where there is none.

        Once stopping, has every trial under way save its state and come back. What goes wrong with the workers is
        raised behind the trials that came back before it.
        """
        ...

    def idle(self) -> None:
        """Wait a little for the processes that hold our trials."""
        ...


@dataclass(frozen=True, eq=False)
class Part:
    """A condition to be run with some seeds; ``name`` goes before its arms in what is told, where there are several."""

    experiment: str
    condition: Condition
    seeds: tuple[int, ...]
    data_digest: str
    name: str = ""


class Job(NamedTuple):
    """A trial to be run, what was recorded of it when it was planned, and the condition it is run for."""

    planned: Planned
    seen: Trial | None
    part: Part


@dataclass
class Work:
    """What is left of some conditions. Keys are those of specs, which in one run name their data too."""

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
    """What the experiments last said to be pending, less what was begun since; None where they must be asked again."""
    _ended: set[str] = field(default_factory=set)
    """Keys of the trials that ended since: of several conditions that want one, the others have it now."""
    _changed: bool = False
    """Whether a trial came back since."""

    def next(self) -> Job | None:
        """Return the next trial to run; None where nothing can be begun now."""
        found = self._first()
        if found is None and self._changed and not self.running:
            self._waiting = None  # another process may have left a trial, or an experiment want one more
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
        """Count a trial as running, and tell the observer of it, once."""
        key = job.planned.spec.key
        self.running[key] = job
        if key not in self.begun:
            self.begun.add(key)
            observer.started(job.planned)

    def settle(self, planned: Planned, outcome: Outcome, observer: Observer) -> None:
        """Take in how a trial came back."""
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
        """Count what other processes held as free, and read the store and ask the experiments again."""
        self.elsewhere.clear()
        self._waiting = None


def drive(work: Work, pool: Pool, observer: Observer) -> bool:
    """Keep a pool's workers busy until nothing is left that can be begun; return whether it was stopped before.

    Then all that was under way has come back. The observer hears of each trial as soon as it has: whatever is raised
    afterwards takes nothing from it.
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
