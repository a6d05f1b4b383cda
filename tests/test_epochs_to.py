"""The learning-rate search against simulated arms: a table of how many epochs each rate would need."""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from repro.experiments import Planned
from repro.experiments import epochs_to as experiment
from repro.experiments.epochs_to import Parameters, faults, grid, observe, pending, planned_epochs, search, spec
from repro.store import Measurement, Trial

MAX = 60.0
SEEDS = (0, 1, 2)
RATES = (0.01, 0.02, 0.04)
NEVER = math.inf
DIVERGED = "diverged"
Need = float | str
World = Mapping[str, Mapping[int, Need]]
"""arm -> steps of 2 above the lowest given rate -> epochs to the target, NEVER or DIVERGED."""


def arms_of(*names: str, **changes: object) -> dict[str, Parameters]:
    common = {"net": "19pct", "dataset": "embedded", "protocol": "modern", "max_epochs": MAX, "rates": RATES}
    return {n: Parameters.model_validate({**common, "activation": n, **changes}) for n in names}


ARMS = arms_of("relu", "tanh")


def needs(world: World, planned: Planned) -> Need:
    """What the planned trial needs; scored seeds differ a little from the tuning seed, and from each other."""
    step = round(math.log2(float(planned.spec.config["rate"]) / RATES[0]))
    need = world[planned.arm].get(step, NEVER)
    if isinstance(need, str) or planned.role == "tuning":
        return need
    return need * (1 + 0.1 * math.sin(planned.spec.seed))


def trial(planned: Planned, need: Need, status: str | None = None) -> Trial:
    """The record of a planned trial that needs so many epochs."""
    if isinstance(need, str):
        return Trial(spec=planned.spec, data_digest="d", status="diverged", message="the loss was nan")
    if status is not None:
        return Trial(spec=planned.spec, data_digest="d", status=status, message="out of memory")
    if need <= planned.limit:
        time = Measurement(name=experiment.MEASUREMENT, value=need, unit="epochs")
        return Trial(spec=planned.spec, data_digest="d", status="completed", measurements=(time,))
    return Trial(spec=planned.spec, data_digest="d", status="censored", limit=planned.limit)


def run(
    arms: Mapping[str, Parameters],
    world: World,
    done: dict[str, Trial],
    *,
    chance: random.Random | None = None,
    jobs: int = 1,
    fails: Callable[[Planned], bool] = lambda _: False,
) -> Iterator[Planned]:
    """Yield each trial as it ends, put into ``done``: one command, with workers that finish in any order."""
    chance = chance or random.Random(0)
    running: list[Planned] = []
    given_up: set[str] = set()
    while True:
        while len(running) < jobs:
            busy = given_up | {p.spec.key for p in running}
            nxt = next((p for p in pending(arms, SEEDS, done) if p.spec.key not in busy), None)
            if nxt is None:
                break
            running.append(nxt)
        if not running:
            return
        ended = running.pop(chance.randrange(len(running)))
        if fails(ended):
            given_up.add(ended.spec.key)
            done[ended.spec.key] = trial(ended, 1.0, "failed")
        else:
            done[ended.spec.key] = trial(ended, needs(world, ended))
        yield ended


def spent(planned: Planned, world: World) -> float:
    need = needs(world, planned)
    return 1.0 if isinstance(need, str) else min(need, planned.limit)


NEED = st.one_of(st.floats(5, 2 * MAX), st.just(NEVER), st.just(DIVERGED))
TABLE = st.fixed_dictionaries(dict.fromkeys(range(-4, 7), NEED))
WORLD = st.fixed_dictionaries({"relu": TABLE, "tanh": TABLE})


@settings(max_examples=60, deadline=None)
@given(WORLD, st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_search_ends_with_the_true_best_rate_of_one_grid(world, jobs, chance):
    """Whatever order trials end in, each arm's best is the true argmin over a grid that all arms tried whole."""
    done: dict[str, Trial] = {}
    launched = [p.spec.key for p in run(ARMS, world, done, chance=chance, jobs=jobs)]
    state = search(ARMS, done)
    assert state.complete
    assert pending(ARMS, SEEDS, done) == []
    assert len(launched) == len(set(launched)), "a settled trial was run again"
    assert len(launched) <= 2 * (len(RATES) + 2 * 4 + len(SEEDS))
    for arm in ARMS:
        assert set(state.tried[arm]) == set(state.rates)
        truth = {r: world[arm][round(math.log2(r / RATES[0]))] for r in state.rates}
        reached = {r: t for r, t in truth.items() if not isinstance(t, str) and t <= MAX}
        assert state.best(arm) == (min(reached, key=lambda r: (reached[r], r)) if reached else None)


@settings(max_examples=30, deadline=None)
@given(WORLD, st.randoms(use_true_random=False))
def test_the_order_of_trials_does_not_change_the_search(world, chance):
    """Sequential and parallel runs of the same arms end in the same grid, the same rates and the same values."""
    one: dict[str, Trial] = {}
    other: dict[str, Trial] = {}
    list(run(ARMS, world, one))
    list(run(ARMS, world, other, chance=chance, jobs=3))
    assert search(ARMS, one).rates == search(ARMS, other).rates
    assert observe(ARMS, SEEDS, one).values == observe(ARMS, SEEDS, other).values
    assert observe(ARMS, SEEDS, one).undecided == observe(ARMS, SEEDS, other).undecided


@settings(max_examples=30, deadline=None)
@given(WORLD, st.integers(1, 3), st.randoms(use_true_random=False))
def test_something_is_missing_exactly_while_something_is_pending(world, jobs, chance):
    """At every state on the way, ``missing`` is empty if and only if no trial is pending, and nothing is invented."""
    done: dict[str, Trial] = {}
    assert observe(ARMS, SEEDS, done).missing
    for _ in run(ARMS, world, done, chance=chance, jobs=jobs):
        found = observe(ARMS, SEEDS, done)
        assert bool(found.missing) == bool(pending(ARMS, SEEDS, done))
        scored = {t.identity for _, role, t in found.trials if role == "scoring"}
        observations = [o for group in found.values["epochs-to"].values() for o in group]
        assert {o.identity for o in observations} <= scored
        assert len({t.identity for _, _, t in found.trials}) == len(found.trials) <= len(done)
        if not search(ARMS, done).complete:
            assert not observations
            assert not found.undecided


@settings(max_examples=40, deadline=None)
@given(WORLD, st.integers(1, 3), st.randoms(use_true_random=False))
def test_planned_epochs_bound_what_is_spent_unless_the_grid_grows(world, jobs, chance):
    """From any state on, no more epochs are trained than were planned there, as long as the grid stays."""
    done: dict[str, Trial] = {}
    plans = [(search(ARMS, done).rates, 0.0, planned_epochs(ARMS, SEEDS, done))]
    total = 0.0
    for ended in run(ARMS, world, done, chance=chance, jobs=jobs):
        total += spent(ended, world)
        if jobs == 1:  # with more, trials under way go on at the limit they started with
            plans.append((search(ARMS, done).rates, total, planned_epochs(ARMS, SEEDS, done)))
    assert planned_epochs(ARMS, SEEDS, done) == 0
    final = search(ARMS, done).rates
    for rates, before, planned in plans:
        if rates == final:
            assert total - before <= planned + 1e-9


@settings(max_examples=30, deadline=None)
@given(WORLD, st.integers(0, 2**10 - 1))
def test_a_failed_trial_is_tried_once_a_command_and_again_by_the_next(world, which):
    """A command ends although trials fail, names each one, and the next command makes up for exactly those."""
    done: dict[str, Trial] = {}
    order: list[str] = []

    def fails(planned: Planned) -> bool:
        order.append(planned.spec.key)
        return bool(which >> (len(order) - 1) & 1)

    first = list(run(ARMS, world, done, fails=fails))
    assert len({p.spec.key for p in first}) == len(first)
    broken = [t for t in done.values() if t.status == "failed"]
    found = observe(ARMS, SEEDS, done)
    assert len(found.failed) == len(broken)
    assert bool(found.missing) == bool(broken)
    second = [p.spec.key for p in run(ARMS, world, done)]
    assert {t.spec.key for t in broken} <= set(second)
    assert observe(ARMS, SEEDS, done).failed == ()
    whole: dict[str, Trial] = {}
    list(run(ARMS, world, whole))
    assert observe(ARMS, SEEDS, whole).values == observe(ARMS, SEEDS, done).values


def test_a_failed_seed_is_named_and_missing():
    """A scored seed that failed stands among the failed, with its message, and leaves no observation."""
    world = {arm: {0: 30.0, 1: 10.0, 2: 20.0} for arm in ARMS}
    done: dict[str, Trial] = {}
    list(run(ARMS, world, done, fails=lambda p: p.role == "scoring" and p.arm == "tanh" and p.spec.seed == 1))
    found = observe(ARMS, SEEDS, done)
    assert found.failed == ("seed 1 of arm tanh: out of memory",)
    assert found.missing == ("seed 1 of arm tanh",)
    assert [o.seed for o in found.values["epochs-to"]["tanh"]] == [0, 2]


def test_a_raised_limit_reruns_only_what_stopped_at_the_old_one():
    """With more epochs allowed, trials censored at the old maximum go on; all others stand."""
    world = {"relu": {-1: 50.0, 0: 40.0, 1: 20.0, 2: 30.0, 3: 45.0}, "tanh": dict.fromkeys(range(-4, 7), NEVER)}
    world["tanh"][1] = 70.0
    done: dict[str, Trial] = {}
    list(run(ARMS, world, done))
    old = dict(done)
    more = arms_of("relu", "tanh", max_epochs=100.0)
    again = list(run(more, world, done))
    rerun = [p for p in again if p.spec.key in old]
    assert rerun
    assert {(p.arm, p.role) for p in rerun} == {("tanh", "tuning")}
    assert all(old[p.spec.key].status == "censored" and old[p.spec.key].limit == MAX for p in rerun)
    assert search(more, done).best("tanh") == 0.02


def test_arms_with_different_optima_share_a_grid_grown_for_either():
    """One arm's best below the grid and another's above: it grows on both sides, for both arms alike."""
    world = {
        "relu": {step: 20.0 + 5 * abs(step + 2) for step in range(-4, 7)},
        "tanh": {step: 30.0 + 5 * abs(step - 4) for step in range(-4, 7)},
    }
    done: dict[str, Trial] = {}
    list(run(ARMS, world, done))
    state = search(ARMS, done)
    assert state.best("relu") == pytest.approx(0.0025)
    assert state.best("tanh") == pytest.approx(0.16)
    assert state.rates == tuple(grid(RATES, 3, 3))
    assert observe(ARMS, SEEDS, done).undecided == ()


def test_an_arm_that_no_rate_serves_gets_a_wider_grid_and_no_number():
    """Where all rates of an arm miss, the grid grows on both sides to its end; then the size is undecided."""
    world = {"relu": {0: 30.0, 1: 10.0, 2: 20.0}, "tanh": dict.fromkeys(range(-4, 7), DIVERGED)}
    done: dict[str, Trial] = {}
    ended = list(run(ARMS, world, done))
    found = observe(ARMS, SEEDS, done)
    assert search(ARMS, done).rates == tuple(grid(RATES, 4, 4))
    assert found.values["epochs-to"]["tanh"] == ()
    assert {p.arm for p in ended if p.role == "scoring"} == {"relu"}
    assert found.undecided == (
        "tanh reached the target at none of 11 learning rates from 0.000625 to 0.64, given up after 60 epochs",
    )
    assert found.missing == found.failed == ()


def test_a_rate_that_works_only_outside_the_first_grid_is_found():
    """An arm that misses at all rates first given is still tuned, two steps further out."""
    world = {"relu": {0: 30.0, 1: 10.0, 2: 20.0}, "tanh": {-2: 25.0, -3: 40.0}}
    done: dict[str, Trial] = {}
    list(run(ARMS, world, done))
    assert search(ARMS, done).best("tanh") == 0.0025
    assert observe(ARMS, SEEDS, done).undecided == ()


def test_a_best_rate_still_on_the_edge_is_undecided():
    """Where the grid has grown as far as it may and the best is still its last rate, the size is undecided."""
    arms = arms_of("relu", "tanh", widenings=1)
    world = {"relu": {0: 30.0, 1: 10.0, 2: 20.0}, "tanh": {step: 50.0 - 4 * step for step in range(-4, 7)}}
    done: dict[str, Trial] = {}
    list(run(arms, world, done))
    assert search(arms, done).rates == tuple(grid(RATES, 0, 1))
    assert observe(arms, SEEDS, done).undecided == ("the best learning rate of tanh, 0.08, is on the edge of the grid",)


def test_a_time_near_the_clocks_step_is_undecided():
    """An arm faster than ten checks is too coarsely timed to be read for size."""
    arms = arms_of("relu", "tanh", checks_per_epoch=2)
    world = {"relu": {0: 3.0, 1: 2.0, 2: 3.0}, "tanh": {0: 30.0, 1: 10.0, 2: 30.0}}
    done: dict[str, Trial] = {}
    list(run(arms, world, done))
    assert observe(arms, SEEDS, done).undecided == ("relu is timed in steps of 1/2 epoch, too coarse for its time",)


def test_missed_targets_become_lower_bounds():
    """A censored seed counts with its limit, a diverged one with the most epochs allowed; neither is exact."""
    world = {"relu": {0: 30.0, 1: 10.0, 2: 20.0}, "tanh": {0: 59.0, 1: 57.0, 2: 59.0}}
    done: dict[str, Trial] = {}
    for ended in run(ARMS, world, done):
        if ended.role == "scoring" and ended.arm == "relu" and ended.spec.seed == 2:
            done[ended.spec.key] = trial(ended, DIVERGED)
    found = observe(ARMS, SEEDS, done).values["epochs-to"]
    assert [(o.value, o.exact) for o in found["relu"]] == [
        (10.0, True),
        (10 * (1 + 0.1 * math.sin(1)), True),
        (MAX, False),
    ]
    assert [(o.value, o.exact) for o in found["tanh"]] == [(57.0, True), (MAX, False), (MAX, False)]
    assert {o.resolution for o in found["relu"]} == {1 / (10 * math.sqrt(12))}


def test_a_rate_given_up_early_settles_the_search_but_no_score():
    """A trial stopped as hopeless has no limit: the search passes it over, a score must be run to its limit."""
    world = {arm: {0: 30.0, 1: 10.0, 2: 20.0} for arm in ARMS}
    done: dict[str, Trial] = {}
    list(run(ARMS, world, done))
    hopeless = {"status": "censored", "limit": None, "measurements": ()}
    tuning, scored = spec(ARMS["relu"], 1000, 0.04), spec(ARMS["relu"], 0, 0.02)
    done[tuning.key] = done[tuning.key].model_copy(update=hopeless)
    assert pending(ARMS, SEEDS, done) == []
    done[scored.key] = done[scored.key].model_copy(update=hopeless)
    assert [p.spec for p in pending(ARMS, SEEDS, done)] == [scored]
    assert observe(ARMS, SEEDS, done).missing == ("seed 0 of arm relu",)


def test_a_running_trial_is_shown_and_missing():
    """A trial that was started and not ended is among the trials, and what it would say is missing."""
    world = {arm: {0: 30.0, 1: 10.0, 2: 20.0} for arm in ARMS}
    done: dict[str, Trial] = {}
    list(run(ARMS, world, done))
    scored = spec(ARMS["tanh"], 2, 0.02)
    done[scored.key] = Trial(spec=scored, data_digest="d", status="running")
    found = observe(ARMS, SEEDS, done)
    assert found.missing == ("seed 2 of arm tanh",)
    assert ("tanh", "scoring", done[scored.key]) in found.trials


def test_the_search_starts_in_the_middle_and_serves_the_arms_in_turn():
    """The first trials are the middle rate of each arm, then outwards, with all epochs allowed."""
    first = [(p.arm, p.spec.config["rate"], p.limit, p.role) for p in pending(ARMS, SEEDS, {})]
    assert first == [(arm, rate, MAX, "tuning") for rate in (0.02, 0.01, 0.04) for arm in ("relu", "tanh")]


@pytest.mark.parametrize(
    ("rates", "lower", "upper", "expected"),
    [
        ((1.0, 2.0, 4.0), 0, 0, [1, 2, 4]),
        ((4.0, 1.0, 2.0), 1, 2, [0.5, 1, 2, 4, 8, 16]),
        ((0.001, 0.01, 0.03), 2, 1, [0.00001, 0.0001, 0.001, 0.01, 0.03, 0.09]),
    ],
)
def test_a_grid_grows_in_the_ratio_of_its_ends(rates: Sequence[float], lower: int, upper: int, expected: list[float]):
    """Rates are sorted, and each side goes on in the ratio of its own last pair, to six digits."""
    assert grid(rates, lower, upper) == expected


GOLDEN = {
    ("relu", 0, 0.01): "1b7c64d208201999",
    ("tanh", 1000, 0.02): "359d7e2015d9075b",
    ("tanh", 4, 0.000625): "1a63ac22a11bc1f1",
}


@pytest.mark.parametrize(("what", "key"), GOLDEN.items())
def test_the_identity_of_a_trial_is_frozen(what: tuple[str, int, float], key: str):
    """Recorded trials stay findable: the same parameters give the same key, release after release."""
    arm, seed, rate = what
    assert spec(ARMS[arm], seed, rate).key == key


def test_what_decides_only_which_trials_run_is_no_part_of_their_identity():
    """Limits, grids and tuning seeds may change without orphaning what was measured; the batch may not."""
    other = arms_of("relu", max_epochs=7.0, rates=(1.0, 2.0, 3.0), widenings=0, tuning_seed=5)
    assert spec(other["relu"], 0, 0.01) == spec(ARMS["relu"], 0, 0.01)
    assert spec(arms_of("relu", batch=64)["relu"], 0, 0.01) != spec(ARMS["relu"], 0, 0.01)


@pytest.mark.parametrize(
    "change",
    [{"rates": (0.0, 1.0, 2.0)}, {"rates": (1.0, 2.0)}, {"rates": (1.0, 2.0, math.inf)}, {"max_epochs": math.inf}],
)
def test_impossible_parameters_are_refused(change: dict[str, object]):
    """A rate of 0 or infinity, a grid without an inside and a trial without an end are refused."""
    with pytest.raises(ValidationError):
        arms_of("relu", **change)


def test_scoring_seeds_must_be_fresh():
    """A seed that stands twice, or that the search was tuned on, is a fault of the condition."""
    assert faults(ARMS["relu"], (0, 1)) == []
    assert len(faults(ARMS["relu"], (0, 0, 1000))) == 2
