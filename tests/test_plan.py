import pytest

from repro.cli.run import seconds
from repro.folders import default_claims
from repro.planning import plan
from repro.registry import load_claim
from repro.spec import SpecError
from repro.store import Measurement, Trial, TrialSpec

CLAIM = load_claim(default_claims() / "relu-speedup.toml")
HOUR = 3600.0


def _choose(tmp_path, **kwargs):
    given = {"gpus": 0, "trials": (), "device": "cpu", "data": tmp_path, "download": False, "budget_s": HOUR} | kwargs
    return plan.choose(CLAIM, **given)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    return tmp_path


def test_the_headline_is_chosen_where_it_fits(data):
    """With data and budget enough the headline is run."""
    choice = _choose(data, budget_s=1e9)
    assert choice.condition is CLAIM.conditions[CLAIM.headline]
    assert choice.why == "the headline"


def test_without_data_the_largest_that_fits_is_chosen_and_the_reason_given(tmp_path):
    """Where the headline's data is missing, the synthetic pictures are used, and the missing folder is named."""
    choice = _choose(tmp_path)
    assert choice.condition is CLAIM.conditions["smoke"]
    assert f"no cifar-10-batches-py/ in {tmp_path}" in choice.why


def test_over_budget_is_told_with_the_figure_it_rests_on(data):
    """A condition too long for the budget is passed over, with its time and where the speed is from."""
    choice = _choose(data)
    assert choice.condition is CLAIM.conditions["smoke"]
    assert "550 images/s, assumed" in choice.why
    assert choice.why.endswith("over --budget 1h")


def test_nothing_is_run_where_nothing_fits(tmp_path):
    """A budget that no condition fits chooses none: nobody starts days by accident."""
    assert _choose(tmp_path, budget_s=0.001).condition is None


def test_of_what_nobody_can_test_the_reason_is_given_alone():
    claim = load_claim(default_claims() / "earlier-entries.toml")
    choice = plan.choose(claim, gpus=0, trials=(), device="cpu", data=None, download=False, budget_s=HOUR)
    assert (choice.condition, choice.why) == (None, claim.conditions[claim.headline].blocked)


def test_fewer_seeds_cost_less():
    """The cost is an upper bound that falls with the seeds asked for."""
    smoke = CLAIM.conditions["smoke"]
    costs = [plan.cost(CLAIM, smoke, smoke.seeds[:n], (), "cpu").seconds for n in (1, 2)]
    assert 0 < costs[0] < costs[1] < float("inf")


def test_a_measured_speed_replaces_the_assumed_one():
    """Once a trial of the same net and data ran on the device, its speed is what is planned with."""
    smoke = CLAIM.conditions["smoke"]
    trial = Trial(
        spec=TrialSpec(experiment="epochs-to", numerics=1, config={"dataset": "embedded", "net": "19pct"}, seed=9),
        data_digest="d", status="completed", environment={"device": "cpu"}, duration_s=4.096,
        measurements=(Measurement(name="epochs-trained", value=2.0, unit="epochs"),),
    )  # fmt: skip
    found = plan.cost(CLAIM, smoke, smoke.seeds, (trial,), "cpu")
    assert found.measured
    assert found.images_per_s == pytest.approx(2000)
    assert not plan.cost(CLAIM, smoke, smoke.seeds, (trial,), "cuda").measured


def test_an_unknown_condition_is_told_with_the_nearest():
    """A condition that the claim does not have is refused, with a near name and all names."""
    with pytest.raises(SpecError, match=r"did you mean smoke\?.*it has cifar10"):
        plan.named(CLAIM, "smok")


@pytest.mark.parametrize(
    ("spent", "text"),
    [(45, "45 s"), (720, "12 min"), (12600, "3.5 h"), (181440, "2.1 days"), (729 * 86400, "729.0 days"),
     (7929.8 * 86400, "21.7 years"), (1e11, "3,168.8 years")],
)  # fmt: skip
def test_durations_read_as_people_say_them(spent, text):
    """Each size has its unit."""
    assert plan.duration(spent) == text


@pytest.mark.parametrize("text", ["90s", "30m", "90m", "12h", "3d", "0.5s"])
def test_a_budget_is_told_as_it_was_typed(text):
    """Also where another unit would do."""
    assert plan.as_typed(seconds(None, None, text)) == text


def test_a_headline_that_was_passed_over_is_told_with_what_runs_it(data):
    """Over the budget --condition runs it all the same; without data nothing does; one that is run needs no line."""
    over = _choose(data, budget_s=1800.0).instead_of
    assert over.startswith("its headline cifar10 was not run: up to 40.4 h on this cpu (550 images/s, assumed)")
    assert over.endswith(", over --budget 30m; `--condition cifar10` runs it all the same")
    missing = _choose(data / "elsewhere").instead_of
    assert missing == f"its headline cifar10 was not run: no cifar-10-batches-py/ in {data / 'elsewhere'}"
    assert _choose(data, budget_s=1e9).instead_of == ""


def test_where_no_speed_is_known_no_time_is_told(data):
    """Not that it takes an infinity of years."""
    smoke = CLAIM.conditions["smoke"].model_copy(update={"assumed_speed": {}})
    told = plan.over_budget(CLAIM, smoke, (), "cpu", HOUR, None)
    assert told == "nobody knows how long on this cpu, over --budget 1h"
