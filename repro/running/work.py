"""What is left of a condition: which trial is run next, and what becomes of one that came back.

It knows no clock, no process and no network: ``drive`` keeps any ``Pool`` of workers busy, this process, processes
beside it, a cluster or a simulation of one. The experiment is asked what is pending at the start, in a search after
each of its trials (so that one that has found its rate hands over to scoring), and once more at the end.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from repro import experiments
from repro.experiments import Planned
from repro.spec import Condition
from repro.store import Trial, TrialSpec, load

TRIES = 5
"""Workers that a trial may lose one after the other, without getting on, before it is given up."""


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

    def ended(self) -> list[tuple[Planned, Outcome]]:
        """Return the trials that came back, each once for each time it was begun; waits a little where there is none.

        Once stopping, has every trial under way save its state and come back.
        """
        ...

    def idle(self) -> None:
        """Wait a little for the processes that hold our trials."""
        ...


@dataclass
class Work:
    """What is left of a condition; ``given_up`` are keys that failed in this run."""

    experiment: str
    condition: Condition
    seeds: tuple[int, ...]
    store: Path
    data_digest: str
    given_up: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    """Keys that another process held when we last looked."""
    begun: set[str] = field(default_factory=set)
    """Keys that the observer has heard of."""
    lost: Counter[str] = field(default_factory=Counter)
    """key -> workers lost one after the other."""
    _done: dict[str, Trial] = field(default_factory=dict)
    _waiting: deque[Planned] | None = None
    """What the experiment last said to be pending, less what was begun since; None where it must be asked again."""
    _changed: bool = False
    """Whether a trial came back since the experiment was last asked."""

    def next(self) -> tuple[Planned, Trial | None] | None:
        """Return the next trial to run, with what is recorded of it; None where nothing can be begun now."""
        found = self._first()
        if found is None and self._changed and not self.running:
            self._waiting = None  # another process may have left a trial, or the experiment want one more
            found = self._first()
        return found

    def _first(self) -> tuple[Planned, Trial | None] | None:
        if self._waiting is None:
            self._done = {t.spec.key: t for t in load(self.store)[0] if t.data_digest == self.data_digest}
            pending = experiments.get(self.experiment).pending(self.condition.arms, self.seeds, self._done)
            self._waiting, self._changed = deque(pending), False
        while self._waiting:
            planned = self._waiting.popleft()
            if not any(planned.spec.key in keys for keys in (self.given_up, self.running, self.elsewhere)):
                return planned, self._done.get(planned.spec.key)
        return None

    def begin(self, planned: Planned, observer: Observer) -> None:
        """Count a trial as running, and tell the observer of it, once."""
        self.running.add(planned.spec.key)
        if planned.spec.key not in self.begun:
            self.begun.add(planned.spec.key)
            observer.started(planned)

    def settle(self, planned: Planned, outcome: Outcome, observer: Observer, result: Result) -> None:
        """Take in how a trial came back."""
        key = planned.spec.key
        self.running.discard(key)
        self._changed = True
        if planned.role == "tuning":
            self._waiting = None  # what a search wants next follows from what it has found
        match outcome:
            case Trial():
                self.lost.pop(key, None)
                result.finished.append(outcome)
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
                    self._give_up(planned, f"{why}; {TRIES} workers were lost with it one after the other", result)
                else:
                    observer.moved(planned.spec, 0.0, f"{why}, goes on elsewhere")
                    if self._waiting is not None:
                        self._waiting.appendleft(planned)
            case str():
                self._give_up(planned, outcome, result)

    def _give_up(self, planned: Planned, why: str, result: Result) -> None:
        self.given_up.add(planned.spec.key)
        result.failed.append(f"{planned.arm}, {planned.role}, seed {planned.spec.seed}: {why}")

    def look_again(self) -> None:
        """Count what other processes held as free, and read the store and ask the experiment again."""
        self.elsewhere.clear()
        self._waiting = None


def drive(work: Work, pool: Pool, observer: Observer, result: Result) -> None:
    """Keep a pool's workers busy until nothing is left that can be begun, or it is stopping and all have come back."""
    while True:
        while not pool.stopping() and pool.room() and (found := work.next()):
            planned, seen = found
            work.begin(planned, observer)
            pool.begin(planned, seen)
        if work.running:
            for planned, outcome in pool.ended():
                work.settle(planned, outcome, observer, result)
        elif pool.stopping() or not work.elsewhere:
            return
        else:
            pool.idle()
            work.look_again()
