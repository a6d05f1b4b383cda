"""Drive the scheduler with a simulated clock, simulated GPUs that die, and records that are really written.

    python tests/simulation.py TRIALS GPUS HOURS_TO_DEATH SEED STORE [CONDITIONS [in-turn]]

Everything that chooses the next trial and takes in how one came back is the harness's own (``repro.running.work``, the
experiment ``final-error``, the store); only the workers and the clock are made up. A trial takes 2 h on average
(lognormal, sigma 0.5), a GPU dies at random and is back half an hour later, a trial's state is kept every 60 s, one
trial in a thousand fails. The trials are those of CONDITIONS, one unless told, at once or in turn. Printed is a line of
JSON.
"""

import heapq
import itertools
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro import store
from repro.experiments import Planned, final_error
from repro.marks import Reader
from repro.planning.forecast import makespan
from repro.running.work import Gone, Outcome, Part, Silent, Work, drive
from repro.store import Trial

MEAN_S, SIGMA = 7200.0, 0.5
BACK_S = 1800.0
STATE_S = 60.0
FAILING = 0.001
DIGEST = "sha256:made-up"
ARMS = {
    name: final_error.Parameters(
        dataset="embedded", protocol="modern", net="alexnet-32", stored=32, crop=28, batch=32, rate=rate, epochs=1.0
    )
    for name, rate in (("one", 0.01), ("other", 0.02))
}


@dataclass
class Heard(Silent):
    """An observer that notes what ended, and a line for each trial that failed."""

    finished: list[Trial] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def ended(self, planned: Planned, trial: Trial) -> None:
        self.finished.append(trial)

    def failed(self, planned: Planned, why: str) -> None:
        self.failures.append(f"{planned.arm}, {planned.role}, seed {planned.spec.seed}: {why}")


@dataclass
class GPUs:
    """A pool of made-up workers; ``clock`` is in simulated seconds."""

    root: Path
    free: int
    to_death_s: float
    rng: random.Random
    clock: float = 0.0
    events: list[tuple[float, int, Planned | None, Outcome]] = field(default_factory=list)
    takes: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)
    ends: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    busy_s: float = 0.0
    saving_s: float = 0.0
    """CPU time of writing records, in real seconds."""
    numbers: Any = field(default_factory=itertools.count)

    def stopping(self) -> bool:
        return False

    def room(self) -> bool:
        return self.free > 0

    def idle(self) -> None:
        raise AssertionError("no trial is held elsewhere")

    def begin(self, planned: Planned, seen: Trial | None) -> None:
        key = planned.spec.key
        assert key not in self.under_way, "run by two workers at a time"
        assert not self.ends[key], "run again after it ended"
        self.under_way.add(key)
        self.free -= 1
        whole = self.takes.setdefault(key, MEAN_S * self.rng.lognormvariate(-(SIGMA**2) / 2, SIGMA))
        left, death = whole - self.kept.get(key, 0.0), self.rng.expovariate(1 / self.to_death_s)
        self.busy_s += min(left, death)
        if death < left:
            got_on = death // STATE_S * STATE_S
            self.kept[key] = self.kept.get(key, 0.0) + got_on
            self._at(death, planned, Gone("died", got_on > 0))
            self._at(death + BACK_S, None, None)  # a GPU comes back
        elif self.rng.random() < FAILING:
            self._at(left, planned, "failed on purpose")
        else:
            self._at(left, planned, Trial(spec=planned.spec, data_digest=DIGEST, status="completed", duration_s=whole))

    def _at(self, after: float, planned: Planned | None, outcome: Outcome) -> None:
        heapq.heappush(self.events, (self.clock + after, next(self.numbers), planned, outcome))

    def ended(self) -> list[tuple[Planned, Outcome]]:
        self.clock, _, planned, outcome = heapq.heappop(self.events)
        if planned is None:
            self.free += 1
            return []
        self.under_way.remove(planned.spec.key)
        if isinstance(outcome, Gone):
            self.deaths += 1
            return [(planned, outcome)]
        self.ends[planned.spec.key] += 1
        self.free += 1
        if isinstance(outcome, Trial):
            begun = time.process_time()
            store.save(self.root, outcome)
            self.saving_s += time.process_time() - begun
        return [(planned, outcome)]


def simulate(
    root: Path, trials: int, gpus: int, hours_to_death: float, seed: int, conditions: int = 1, *, in_turn: bool = False
) -> dict[str, Any]:
    """Run so many trials to their end, check that each ended once, and return what it took."""
    condition: Any = type("C", (), {"arms": ARMS})
    seeds = range(trials // len(ARMS))
    parts = [Part("final-error", condition, tuple(seeds[i::conditions]), DIGEST) for i in range(conditions)]
    pool = GPUs(root, gpus, hours_to_death * 3600, random.Random(seed))
    works, heard = [Work(some, Reader(root)) for some in ([[part] for part in parts] if in_turn else [parts])], Heard()
    begun = time.process_time()
    for work in works:
        assert not drive(work, pool, heard)
    spent = time.process_time() - begun
    wanted = {final_error.spec(p, s).key for s in seeds for p in ARMS.values()}
    assert set(pool.ends) == wanted, "lost"
    assert set(pool.ends.values()) == {1}, "ended twice"
    assert not any(work.running for work in works)
    assert len(heard.finished) + len(heard.failures) == len(wanted)
    records, problems = store.load(root)
    assert not problems
    assert {trial.spec.key for trial in records} == {trial.spec.key for trial in heard.finished}
    return {
        "trials": len(wanted), "conditions": conditions, "gpus": gpus,
        "deaths": pool.deaths, "failed": len(heard.failures),
        "hours": round(pool.clock / 3600, 2), "hours_planned": round(makespan(pool.takes.values(), gpus) / 3600, 2),
        "repeated_s_per_death": round((pool.busy_s - sum(pool.takes.values())) / max(1, pool.deaths), 1),
        "driver_cpu_ms_per_trial": round(1000 * (spent - pool.saving_s) / len(wanted), 2),
        "record_cpu_ms_per_trial": round(1000 * pool.saving_s / len(wanted), 2),
    }  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    trials, gpus, hours, seed, store_, conditions, how = (*sys.argv[1:], *("1", "at once")[len(sys.argv) - 6 :])
    told = simulate(
        Path(store_), int(trials), int(gpus), float(hours), int(seed), int(conditions), in_turn=how == "in-turn"
    )
    print(json.dumps(told))
