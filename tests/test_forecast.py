"""What is left, what it takes, and what a budget has room for."""

import itertools
import random
import re

import made_up
import pytest
from click.testing import CliRunner

from repro import experiments, folders, registry, store
from repro.cli import main
from repro.experiments import epochs_to
from repro.planning import forecast, reuse
from repro.planning.forecast import Fit, Machines, fit, left, makespan
from repro.report import plans
from repro.store import Measurement, Trial

REGISTRY = registry.load_registry(folders.default_claims())
LRN = {"lrn-error": REGISTRY["lrn-error"]}


def _left(claims=LRN, trials=(), **options):
    given = {"scales": ("reduced",), "device": "cpu", "gpus": 0, "data": None} | options
    return left(claims, trials, reuse.demand(REGISTRY, trials, {}), **given)


def _done(arm, seed, speed=100.0):
    """Return a finished trial of lrn-error on tiny-imagenet-32 that saw ``speed`` images a second."""
    parameters = LRN["lrn-error"].conditions["tiny-imagenet-32"].arms[arm]
    values = {"top1-error-ten": 70.0, "epochs-trained": parameters.epochs}
    return Trial(
        spec=experiments.get("final-error").spec(parameters, seed), data_digest="d", status="completed",
        measurements=tuple(Measurement(name=n, value=v, unit="") for n, v in values.items()),
        environment={"device": "cpu"}, duration_s=parameters.epochs * 100_000 / speed,
    )  # fmt: skip


def test_what_is_done_is_not_left_and_its_speed_is_used():
    """Six trials of ten epochs of 100,000 pictures; two are done, at 100 a second."""
    one = next(row for row in _left() if row.condition == "tiny-imagenet-32")
    assert (one.done, one.planned, one.measured) == (0, 6, False)
    two = next(row for row in _left(trials=[_done("lrn", 0), _done("none", 0)]) if row.condition == "tiny-imagenet-32")
    assert (two.done, two.planned, two.measured) == (2, 6, True)
    assert two.seconds == pytest.approx(4 * 10 * 100_000 / 100)
    assert sum(seconds for _, seconds in two.tasks) == pytest.approx(two.seconds)


def test_what_is_left_of_a_condition_is_the_sum_of_its_trials():
    """Also once a search has found its rates: seeds then count as they are expected, not as long as they may take."""
    claim = registry.load_claim(folders.default_claims() / "relu-speedup.toml")
    every, _ = store.load(made_up.REPORTS)
    arms = claim.conditions["cifar10-19pct"].arms
    seeds = claim.conditions["cifar10-19pct"].seeds
    shown = epochs_to.observe(arms, seeds, {trial.spec.key: trial for trial in every}).trials
    scoring = {trial.identity for _, role, trial in shown if role == "scoring"}
    trials = [trial for trial in every if trial.identity not in scoring]
    (row,) = _left({claim.id: claim}, trials=trials, condition="cifar10-19pct")
    assert len(row.tasks) == len(scoring) == 10
    assert sum(seconds for _, seconds in row.tasks) == pytest.approx(row.seconds)


def test_disk_holds_the_pictures_until_they_are_prepared(tmp_path):
    """1,281,167 pictures of 28 kB, and the states of 61 million parameters."""
    lacking = next(row for row in _left(scales=("paper",)) if row.condition == "ilsvrc-2012")
    (tmp_path / "prepared" / "ilsvrc-2012").mkdir(parents=True)
    there = next(row for row in _left(scales=("paper",), data=tmp_path) if row.condition == "ilsvrc-2012")
    assert lacking.disk - there.disk == 1_281_167 * forecast.PICTURE_BYTES
    assert there.disk == 60_965_224 * 16


@pytest.mark.parametrize("net", sorted(forecast.PARAMETERS))
def test_parameters_are_those_of_the_nets(net):
    torch = pytest.importorskip("torch")
    from types import SimpleNamespace

    from repro.models.nets import network

    crop, classes = {"alexnet": (224, 1000), "batch-norm-clone": (227, 1000), "alexnet-32": (28, 200)}.get(
        net, (24 if "local" in net else 32, 10)
    )
    switches = SimpleNamespace(
        net=net, protocol="code", activation="relu", norm="lrn", overlapping=True, towers="two", removed=None,
        dropout=True, crop=crop,
    )  # fmt: skip
    with torch.device("cpu"):
        model = network(switches, classes, 0)
    assert sum(p.numel() for p in model.parameters()) == forecast.PARAMETERS[net]


def test_the_longest_first_schedule_is_within_a_third_of_the_best():
    """Graham's bound, against all schedules of small cases."""
    draw = random.Random(0)
    for _ in range(30):
        tasks = [draw.uniform(1, 10) for _ in range(7)]
        best = min(
            max(sum(t for t, w in zip(tasks, to, strict=True) if w == worker) for worker in range(3))
            for to in itertools.product(range(3), repeat=7)
        )
        assert best - 1e-9 <= makespan(tasks, 3) <= best * 4 / 3 + 1e-9
    assert makespan([], 3) == 0.0
    assert makespan([5.0, 1.0], 100) == 5.0


def test_a_budget_gives_up_seeds_before_it_gives_up_a_condition(tmp_path):
    """Half of what three seeds of five take is room for none; what four take, for four."""
    (tmp_path / "prepared" / "imagenette160").mkdir(parents=True)
    whole = next(row for row in _left(data=tmp_path) if row.condition == "imagenette160").seconds
    options = {"machines": Machines(1, 0), "device": "cpu", "data": tmp_path}
    (all_,), _ = fit(LRN, [], budget_s=whole, **options)
    (four,), _ = fit(LRN, [], budget_s=whole * 0.8, **options)
    none, refused = fit(LRN, [], budget_s=whole * 0.3, **options)
    assert (all_.condition, all_.seeds, four.seeds) == ("imagenette160", 5, 4)
    assert four.gave_up.startswith("1 of 5 seeds (")
    assert not none
    assert "ilsvrc-2012" in refused[0]


def test_a_smoke_condition_is_no_answer_so_no_budget_is_spent_on_it():
    chosen, refused = fit(LRN, [], budget_s=1e12, machines=Machines(1, 0), device="cpu", data=None)
    assert not chosen
    assert len(refused) == 1


def _plan(*args):
    return CliRunner().invoke(main, ["plan", *map(str, args)], prog_name="repro")


def test_the_command_plans_the_registry_and_a_claim(tmp_path):
    result = _plan("--store", tmp_path)
    assert result.exit_code == 0
    assert "ilsvrc-2010-error" in result.stdout
    assert "* at the speed that the claim file assumes" in result.stdout
    one = _plan("lrn-error", "--store", tmp_path, "--machines", 4, "--gpus", 8, "--device", "cuda")
    assert "on 4 machines with 8 GPUs each" in one.stdout
    assert "smoke" in one.stdout


def test_more_machines_take_less_time_and_as_much_work(tmp_path):
    one = _plan("lrn-error", "--store", tmp_path, "--device", "cuda").stdout
    many = _plan("lrn-error", "--store", tmp_path, "--device", "cuda", "--machines", 8).stdout
    work = [text.split("conditions: ")[1].split(" of one")[0] for text in (one, many)]
    spent = [text.split("of one cuda, ")[1].split(" on ")[0] for text in (one, many)]
    assert work[0] == work[1] == spent[0] != spent[1]


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("nothing",), 2, "unknown claim"),
        (("lrn-error", "--condition", "nothing"), 2, "has no condition 'nothing'"),
        (("--condition", "nothing"), 4, "0 planned"),
        (("--budget", "soon"), 2, "is not a time"),
        (("--device", "cuda", "--gpus", "0"), 2, "needs --gpus 1 or more"),
        (("--device", "cpu", "--gpus", "8"), 2, "repro: --gpus 8 is for --device cuda; leave one of the two out\n"),
        (("--budget", "1s", "relu-speedup"), 4, "0 claims fit into 1 s (0 s of work), 1 does not"),
    ],
)
def test_a_wrong_plan_is_one_clear_line(args, code, told, tmp_path):
    result = _plan(*args, "--store", tmp_path)
    assert result.exit_code == code
    assert told in result.stderr + result.stdout


def test_a_record_that_cannot_be_used_is_told(tmp_path):
    store.save(tmp_path, _done("lrn", 0))
    path = next((tmp_path / "trials").glob("*/record.json"))
    path.write_text("{")
    assert "not used" in _plan("lrn-error", "--store", tmp_path).stderr


def test_a_trial_that_another_claim_uses_is_not_stale(tmp_path):
    """Every static claim shares the network that another one counted."""
    other = REGISTRY["neurons"].conditions["static"]
    spec = experiments.get("count").spec(next(iter(other.arms.values())), 0)
    store.save(tmp_path, Trial(spec=spec, data_digest="d", status="completed"))
    row = next(line for line in _plan("parameters", "--store", tmp_path).stdout.splitlines() if "static" in line)
    assert row.split()[3] == "-"


def test_other_machines_are_taken_to_have_the_data(tmp_path):
    """Planning for a cluster from a laptop: data that is not here is no reason against it."""
    here, _ = fit(LRN, [], budget_s=1e9, machines=Machines(4, 8), device="cuda", data=None)
    there, _ = fit(LRN, [], budget_s=1e9, machines=Machines(4, 8), device="cuda", data=None, elsewhere=True)
    assert here == []
    assert there[0].condition == "ilsvrc-2012"
    told = _plan("lrn-error", "--budget", "300d", "--device", "cuda", "--gpus", 8, "--store", tmp_path)
    assert told.exit_code == 0
    assert "repro run claim lrn-error --condition ilsvrc-2012" in told.stdout


def test_gpus_are_gpus_unless_told_otherwise(tmp_path, monkeypatch):
    """--gpus without --device plans for cuda also from one without; --gpus 0 for the CPU of one with GPUs."""
    from repro.planning import plan

    there = ("lrn-error", "--store", tmp_path, "--machines", 4)
    monkeypatch.setattr(plan, "has_gpu", lambda: False)
    told = _plan(*there, "--gpus", 8)
    assert "of one cuda" in told.stdout
    assert "on 4 machines with 8 GPUs each" in told.stdout
    assert "on 4 machines, CPU" in _plan(*there).stdout
    monkeypatch.setattr(plan, "has_gpu", lambda: True)
    assert "on 4 machines with 1 GPU each" in _plan(*there).stdout
    assert "on 4 machines, CPU" in _plan(*there, "--gpus", 0).stdout


def test_what_a_budget_has_no_room_for_is_told_with_what_run_takes(tmp_path):
    """Up to so long even with the fewest seeds, as the table's times are; run settles for the synthetic pictures."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    there = ("relu-speedup", "--device", "cpu", "--store", tmp_path)
    line, counted = _plan(*there, "--budget", "30m", "--data", tmp_path).stdout.splitlines()
    assert line.startswith("left out: relu-speedup: cifar10: takes up to 30.3 h even with 3 seeds")
    assert counted == "0 claims fit into 30 min (0 s of work), 1 does not"
    claims = {"relu-speedup": REGISTRY["relu-speedup"]}
    options = {"machines": Machines(1, 0), "device": "cpu", "data": tmp_path}
    _, (here,) = fit(claims, [], budget_s=1800, **options)
    _, (elsewhere,) = fit(claims, [], budget_s=1800, **options, elsewhere=True)
    assert here == f"{elsewhere}; `repro run claim relu-speedup --budget 30m` takes smoke"
    _, (none,) = fit(claims, [], budget_s=1, **options)
    assert "repro run" not in none


def test_seeds_are_named_in_a_command_only_where_some_were_given_up():
    """Also where another condition was given up because even its fewest seeds took too long."""
    whole = Fit("claim", "reduced", 5, 5, 60.0, "paper: takes 5 days even with 3 seeds")
    fewer = Fit("claim", "reduced", 3, 5, 60.0, "2 of 5 seeds (100 s)")
    first, second, _ = plans.budget([whole, fewer], [], 3600.0)
    assert first.startswith("repro run claim claim --condition reduced   #")
    assert second.startswith("repro run claim claim --condition reduced --seeds 3   #")


def test_one_claim_that_fits_is_one(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    told = _plan("relu-speedup", "--budget", "300d", "--store", tmp_path, "--data", tmp_path).stdout
    assert told.splitlines()[-1].startswith("1 claim fits into 300.0 days (")


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_folds_names_and_no_figure(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of a wide table stands in a narrow one, whole; what is against a run stands below, once."""
    monkeypatch.setenv("COLUMNS", "200")
    wide = CliRunner().invoke(main, ["plan", "--device", "cpu"]).stdout
    monkeypatch.setenv("COLUMNS", str(columns))
    narrow = CliRunner().invoke(main, ["plan", "--device", "cpu"]).stdout
    figures = re.compile(r"\d+/\d+ +\S+ +(?:[\d.]+ \w+ \*|-|minutes) +(?:[\d.]+ [GM]B|-)")
    found = [[" ".join(line.split()) for line in figures.findall(text)] for text in (wide, narrow)]
    assert len(found[0]) > 40
    assert found[0] == found[1]
    assert narrow.count("no longer distributed") == 1
