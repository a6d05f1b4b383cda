"""Two stores side by side: transitions, and a test that can tell a difference from chance."""

import random
import re

import pytest
from click.testing import CliRunner

from repro import experiments, folders, registry, store
from repro.cli import main
from repro.judging import diff
from repro.judging.stats import contrast_interval, sample
from repro.store import Measurement, Trial

CLAIM = registry.load_claim(folders.default_claims() / "lrn-error.toml")
REGISTRY = {CLAIM.id: CLAIM}
CONDITION = CLAIM.conditions["tiny-imagenet-32"]


def _fill(root, gain, *, shift=0.0, sd=0.5, seed=0, digest="d"):
    """Write three seeds an arm: ``none`` at 70% error, ``lrn`` better by ``gain`` points."""
    draw = random.Random(seed)
    for arm, p in CONDITION.arms.items():
        for k in CONDITION.seeds:
            error = 70 + shift - (gain if arm == "lrn" else 0) + draw.gauss(0, sd)
            values = {"top1-error-ten": error, "top1-error-centre": error, "test-images": 10_000}
            trial = Trial(
                spec=experiments.get("final-error").spec(p, k), data_digest=digest, status="completed",
                measurements=tuple(Measurement(name=n, value=v, unit="%") for n, v in values.items()),
                environment={"device": "cpu"},
            )  # fmt: skip
            store.save(root, trial)
    return root


def _change(tmp_path, old, new):
    (row,) = diff.compare(REGISTRY, old, new)
    return row, row.changes[0]


def test_a_difference_between_stores_is_told_from_chance(tmp_path):
    """4 points of gain against none, at an SD of half a point: they differ; two draws of the same do not."""
    four = _fill(tmp_path / "four", 4.0, seed=1)
    none = _fill(tmp_path / "none", 0.0, seed=2, digest="e")
    again = _fill(tmp_path / "again", 4.0, seed=3, digest="f")
    row, change = _change(tmp_path, four, none)
    assert (row.old, row.new) == ("TREND_CONSISTENT", "TREND_UNRESOLVED")
    assert change.differs
    assert change.difference.value == pytest.approx(change.new.value - change.old.value)
    assert change.difference.high < 0
    assert not _change(tmp_path, four, again)[1].differs


def test_the_test_is_wrong_as_often_as_it_says():
    """Without any difference at most 10 in 100 differ; 3,000 draws, 3 seeds an arm, slack of four deviations."""
    draw = random.Random(0)
    wrong = 0
    for _ in range(3000):
        groups = [sample([draw.gauss(0, 1 + i) for _ in range(3)]) for i in range(4)]
        i = contrast_interval(groups, [1, -1, -1, 1], 0.9)
        wrong += not i.low <= 0 <= i.high
    assert 0.05 * 3000 < wrong < 0.1 * 3000 + 4 * (3000 * 0.1 * 0.9) ** 0.5


def test_trials_in_both_stores_are_not_tested_as_if_they_were_independent(tmp_path):
    one = _fill(tmp_path / "one", 4.0)
    assert _change(tmp_path, one, one)[1].note == "the same trials"
    other = _fill(tmp_path / "other", 4.0)
    trial = next((other / "trials").iterdir())
    for path in trial.iterdir():
        path.unlink()
    trial.rmdir()
    _, change = _change(tmp_path, one, other)
    assert change.difference is None
    assert change.note == "5 trials are in both: no test of independent runs"


def test_the_same_seeds_run_again_elsewhere_are_tested(tmp_path):
    """Their identities agree, and their measurements do not: two runs, and no excuse for a difference."""
    row, change = _change(tmp_path, _fill(tmp_path / "one", 4.0), _fill(tmp_path / "other", 0.0, seed=9))
    assert (row.old, row.new) == ("TREND_CONSISTENT", "TREND_UNRESOLVED")
    assert change.note == "they differ"


@pytest.mark.parametrize(("value", "note"), [(60_965_224.0, "the same value"), (70e6, "another value")])
def test_what_is_computed_is_compared_exactly(tmp_path, value, note):
    """Without an interval there is no test, also where the data digests are unlike."""
    claim = registry.load_claim(folders.default_claims() / "parameters.toml")
    (p,) = claim.conditions["static"].arms.values()
    for name, found in (("one", 60_965_224.0), ("other", value)):
        trial = Trial(
            spec=experiments.get("count").spec(p, 0), data_digest=name, status="completed",
            measurements=(Measurement(name="parameters", value=found, unit="parameters"),),
            environment={"device": "cpu"},
        )  # fmt: skip
        store.save(tmp_path / name, trial)
    (row,) = diff.compare({claim.id: claim}, tmp_path / "one", tmp_path / "other")
    assert (row.changes[0].note, row.changes[0].difference) == (note, None)


def test_a_condition_that_only_one_store_has_is_a_row_too(tmp_path):
    (tmp_path / "empty").mkdir()
    row, change = _change(tmp_path, _fill(tmp_path / "one", 4.0), tmp_path / "empty")
    assert (row.old, row.new) == ("TREND_CONSISTENT", "NOT_TESTED")
    assert change.note == "only in one of them"


def _diff(*args):
    return CliRunner().invoke(main, ["diff", *map(str, args)], prog_name="repro")


def test_the_command_sets_two_stores_side_by_side(tmp_path):
    result = _diff(_fill(tmp_path / "a", 4.0), _fill(tmp_path / "b", 0.0, digest="e", seed=9))
    assert result.exit_code == 0
    assert "TREND_CONSISTENT" in result.stdout
    assert "they differ" in result.stdout
    assert re.fullmatch(r"\d conditions compared: \d verdicts changed; .*", result.stdout.splitlines()[-1])


def test_a_store_without_records_is_one_clear_line(tmp_path):
    result = _diff(tmp_path, tmp_path)
    assert result.exit_code == 2
    assert result.stderr == f"repro: {tmp_path}: no records here; give two stores, such as reports and runs\n"
