"""What is run next and what becomes of what came back: nothing is lost, nothing runs twice, no work is quadratic."""

from pathlib import Path
from typing import Any

import pytest
import simulation

from repro import store
from repro.experiments import Planned
from repro.running import work
from repro.running.work import TRIES, Elsewhere, Gone, Outcome, Result, Silent, Work, drive
from repro.store import Trial


@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_trials_on_gpus_that_die_end_once_each(tmp_path: Path, seed: int) -> None:
    """``simulate`` checks that none is lost, under way twice or ended twice; here: what deaths cost."""
    told = simulation.simulate(tmp_path, 400, 50, 5.0, seed)
    assert told["deaths"] > 50
    assert 0 < told["repeated_s_per_death"] < simulation.STATE_S
    assert told["hours"] >= told["hours_planned"] > 0


def test_the_store_is_read_twice_however_many_trials_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    real = store.load
    monkeypatch.setattr(work, "load", lambda root: reads.append(root) or real(root))
    for trials in (20, 60):
        simulation.simulate(tmp_path / str(trials), trials, 4, 1e9, 1)
    assert len(reads) == 4


class Scripted:
    """A pool of one worker that gives back what the script says, and notes what it was given."""

    def __init__(self, root: Path, *outcomes: Outcome) -> None:
        self.root, self.outcomes, self.given, self.back, self.rests = root, list(outcomes), [], [], 0

    def stopping(self) -> bool:
        return False

    def room(self) -> bool:
        return not self.back

    def begin(self, planned: Planned, seen: Trial | None) -> None:
        self.given.append(planned.arm)
        outcome: Any = self.outcomes.pop(0)
        if outcome == "completed":
            outcome = Trial(spec=planned.spec, data_digest=simulation.DIGEST, status="completed")
            store.save(self.root, outcome)
        self.back.append((planned, outcome))

    def ended(self) -> list[tuple[Planned, Outcome]]:
        back, self.back = self.back, []
        return back

    def idle(self) -> None:
        self.rests += 1


def driven(root: Path, *outcomes: Any) -> tuple[Scripted, Result]:
    """Run the two trials of a condition, one of each arm, as the script says, which must be used up."""
    pool, result = Scripted(root, *outcomes), Result()
    condition: Any = type("C", (), {"arms": simulation.ARMS})
    drive(Work("final-error", condition, (0,), root, simulation.DIGEST), pool, Silent(), result)
    assert pool.outcomes == []
    return pool, result


STUCK, MOVING = Gone("died", got_on=False), Gone("died", got_on=True)


def test_a_trial_that_lost_its_worker_goes_first(tmp_path: Path) -> None:
    pool, result = driven(tmp_path, STUCK, "completed", "completed")
    assert pool.given == ["one", "one", "other"]
    assert (len(result.finished), result.failed) == (2, [])


def test_a_trial_that_loses_worker_after_worker_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    """To get on counts from one again."""
    script = [*[STUCK] * (TRIES - 1), MOVING, *[STUCK] * (TRIES - 1)]
    pool, result = driven(tmp_path, *script, "completed")
    assert pool.given == ["one"] * (2 * TRIES - 1) + ["other"]
    assert [trial.spec.config["rate"] for trial in result.finished] == [0.02]
    (line,) = result.failed
    assert line == f"one, scoring, seed 0: died; {TRIES} workers were lost with it one after the other"


def test_a_failed_trial_is_not_begun_again(tmp_path: Path) -> None:
    pool, result = driven(tmp_path, "no memory", "completed")
    assert pool.given == ["one", "other"]
    assert result.failed == ["one, scoring, seed 0: no memory"]


def test_what_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    """It is asked for again after a rest, and run once it is free."""
    pool, result = driven(tmp_path, Elsewhere(), "completed", Elsewhere(), "completed")
    assert pool.given == ["one", "other", "one", "one"]
    assert pool.rests == 2
    assert len(result.finished) == 2
