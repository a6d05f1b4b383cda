"""What is run next and what becomes of what came back: nothing is lost, nothing runs twice, no work is quadratic."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import simulation
from simulation import Heard

from repro import experiments, store
from repro.experiments import Planned
from repro.files import StoreError
from repro.marks import Reader
from repro.running import work
from repro.running.work import TRIES, Elsewhere, Gone, Outcome, Part, Work, drive
from repro.store import Trial


@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_trials_on_gpus_that_die_end_once_each(tmp_path: Path, seed: int) -> None:
    """``simulate`` checks that none is lost, under way twice or ended twice; here: what deaths cost."""
    told = simulation.simulate(tmp_path, 400, 50, 5.0, seed)
    assert told["deaths"] > 50
    assert 0 < told["repeated_s_per_death"] < simulation.STATE_S
    assert told["hours"] >= told["hours_planned"] > 0


def test_the_store_is_looked_at_twice_however_many_trials_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Reader] = []
    real = Reader.trials
    monkeypatch.setattr(Reader, "trials", lambda reader: looks.append(reader) or real(reader))
    for trials in (20, 60):
        simulation.simulate(tmp_path / str(trials), trials, 4, 1e9, 1)
    assert len(looks) == 4


def test_conditions_at_once_leave_no_gpu_idle_at_their_tails(tmp_path: Path) -> None:
    """Twenty conditions of ten trials on thirty GPUs: in turn at most ten of them work."""
    together, in_turn = (
        simulation.simulate(tmp_path / str(in_turn), 200, 30, 1e9, 1, 20, in_turn=in_turn) for in_turn in (False, True)
    )
    assert together["hours"] < 2 * together["hours_planned"]
    assert in_turn["hours"] > 3 * together["hours"]


class Scripted:
    """A pool of one worker that gives back what the script says, and notes what it was given."""

    def __init__(self, root: Path, *outcomes: Outcome) -> None:
        self.root, self.outcomes, self.rests = root, list(outcomes), 0
        self.given: list[str] = []
        self.back: list[tuple[Planned, Outcome]] = []

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


def driven(root: Path, *outcomes: Any) -> tuple[Scripted, Heard]:
    """Run the two trials of a condition, one of each arm, as the script says, which must be used up."""
    pool, heard = Scripted(root, *outcomes), Heard()
    condition: Any = type("C", (), {"arms": simulation.ARMS})
    assert not drive(Work([Part("final-error", condition, (0,), simulation.DIGEST)], Reader(root)), pool, heard)
    assert pool.outcomes == []
    return pool, heard


STUCK, MOVING = Gone("died", got_on=False), Gone("died", got_on=True)


def test_a_trial_that_lost_its_worker_goes_first(tmp_path: Path) -> None:
    pool, heard = driven(tmp_path, STUCK, "completed", "completed")
    assert pool.given == ["one", "one", "other"]
    assert (len(heard.finished), heard.failures) == (2, [])


def test_a_trial_that_loses_worker_after_worker_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    """To get on counts from one again."""
    script = [*[STUCK] * (TRIES - 1), MOVING, *[STUCK] * (TRIES - 1)]
    pool, heard = driven(tmp_path, *script, "completed")
    assert pool.given == ["one"] * (2 * TRIES - 1) + ["other"]
    assert [trial.spec.config["rate"] for trial in heard.finished] == [0.02]
    (line,) = heard.failures
    assert line == f"one, scoring, seed 0: died; {TRIES} workers were lost with it one after the other"


def test_a_failed_trial_is_not_begun_again(tmp_path: Path) -> None:
    pool, heard = driven(tmp_path, "no memory", "completed")
    assert pool.given == ["one", "other"]
    assert heard.failures == ["one, scoring, seed 0: no memory"]


def test_a_failure_is_heard_whatever_is_raised_behind_it(tmp_path: Path) -> None:
    """The store breaks with what came back at the same time as the failure."""

    class Breaking(Scripted):
        def ended(self) -> Iterator[tuple[Planned, Outcome]]:
            yield from super().ended()
            raise StoreError("no room")

    heard = Heard()
    with pytest.raises(StoreError, match="no room"):
        drive(Work([part("", "one")], Reader(tmp_path)), Breaking(tmp_path, "no memory"), heard)
    assert heard.failures == ["one, scoring, seed 0: no memory"]


def test_who_stops_begins_nothing_more_and_says_so(tmp_path: Path) -> None:
    """What is under way comes back first; a run that had nothing left to do was stopped all the same."""

    class Stopping(Scripted):
        def stopping(self) -> bool:
            return len(self.given) == 1

    for arms in (("one", "other"), ("one",)):
        heard, pool = Heard(), Stopping(tmp_path / arms[-1], "no memory")
        assert drive(Work([part("", *arms)], Reader(pool.root)), pool, heard)
        assert pool.given == ["one"]
        assert len(heard.failures) == 1


def test_what_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    """It is asked for again after a rest, and run once it is free."""
    pool, heard = driven(tmp_path, Elsewhere(), "completed", Elsewhere(), "completed")
    assert pool.given == ["one", "other", "one", "one"]
    assert pool.rests == 2
    assert len(heard.finished) == 2


class Wide:
    """A pool of as many workers as there are trials; those under way end at the next call, oldest first."""

    def __init__(self, root: Path) -> None:
        self.root, self.given, self.under_way, self.beside = root, [], [], []

    def stopping(self) -> bool:
        return False

    def room(self) -> bool:
        return True

    def begin(self, planned: Planned, seen: Trial | None) -> None:
        assert planned.spec.key not in [other.spec.key for other in self.under_way]
        self.given.append(planned.arm)
        self.beside.append(len(self.under_way))
        self.under_way.append(planned)

    def ended(self) -> list[tuple[Planned, Outcome]]:
        planned = self.under_way.pop(0)
        trial = Trial(spec=planned.spec, data_digest=simulation.DIGEST, status="completed")
        store.save(self.root, trial)
        return [(planned, trial)]

    def idle(self) -> None:
        raise AssertionError("no trial is held elsewhere")


def part(name: str, *arms: str, experiment: str = "final-error") -> Part:
    condition: Any = type("C", (), {"arms": {arm: simulation.ARMS[arm] for arm in arms}})
    return Part(experiment, condition, (0,), simulation.DIGEST, name)


def test_conditions_are_begun_in_order_and_a_trial_of_several_runs_once(tmp_path: Path) -> None:
    pool, heard = Wide(tmp_path), Heard()
    drive(Work([part("a: ", "one"), part("b: ", "one", "other")], Reader(tmp_path)), pool, heard)
    assert pool.given == ["a: one", "b: other"]
    assert len(heard.finished) == 2


def test_a_trial_that_ended_meanwhile_is_not_begun_for_another_condition(tmp_path: Path) -> None:
    """With one worker the second condition comes to it when it has ended, and was listed before."""
    pool, heard = Scripted(tmp_path, "completed", "completed"), Heard()
    drive(Work([part("a: ", "one"), part("b: ", "one", "other")], Reader(tmp_path)), pool, heard)
    assert pool.given == ["a: one", "b: other"]


def test_a_search_asks_on_while_another_condition_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wants next is begun once its own trial is back, and what runs for the other is not begun again."""
    listed = experiments.get("final-error").pending

    def pending(arms: Any, seeds: Any, done: Any) -> list[Planned]:
        return [planned._replace(role="tuning") for planned in listed(arms, seeds, done)[:1]]

    found = {"search": SimpleNamespace(pending=pending), "final-error": experiments.get("final-error")}
    monkeypatch.setattr(work, "experiments", SimpleNamespace(get=found.__getitem__))
    third = simulation.ARMS["one"].model_copy(update={"rate": 0.03})
    monkeypatch.setitem(simulation.ARMS, "third", third)
    parts = [part("a: ", "one", "other", experiment="search"), part("b: ", "third")]
    pool, heard = Wide(tmp_path), Heard()
    drive(Work(parts, Reader(tmp_path)), pool, heard)
    assert pool.given == ["a: one", "b: third", "a: other"]
    assert pool.beside == [0, 1, 1]
    assert len(heard.finished) == 3


def test_a_failure_names_its_condition(tmp_path: Path) -> None:
    pool, heard = Scripted(tmp_path, "no memory", "completed"), Heard()
    drive(Work([part("a: ", "one"), part("b: ", "one", "other")], Reader(tmp_path)), pool, heard)
    assert heard.failures == ["a: one, scoring, seed 0: no memory"]
    assert pool.given == ["a: one", "b: other"]
