"""Which condition uses a trial, and what sets a stale one apart."""

import pytest
from click.testing import CliRunner

from repro import experiments, folders, registry, store
from repro.cli import main
from repro.planning import reuse
from repro.store import Measurement, Trial, TrialSpec

LRN = registry.load_claim(folders.default_claims() / "lrn-error.toml")
POOLING = registry.load_claim(folders.default_claims() / "overlapping-pooling-error.toml")
REGISTRY = {claim.id: claim for claim in (LRN, POOLING)}
TINY = LRN.conditions["tiny-imagenet-32"]


def _trial(arm="lrn", seed=0, status="completed", numerics=None, **config):
    made = experiments.get("final-error").spec(TINY.arms[arm], seed)
    found = TrialSpec(
        experiment="final-error", numerics=numerics or made.numerics, config={**made.config, **config}, seed=seed
    )
    values = (Measurement(name="top1-error-ten", value=70.0, unit="%"),)
    return Trial(spec=found, data_digest="d", status=status, measurements=values)


def _asked(*trials, looks=None):
    return reuse.demand(REGISTRY, trials, looks or {})


def test_a_trial_is_used_by_every_condition_whose_spec_it_answers():
    """The arm with normalisation and overlapping pooling belongs to both claims."""
    trial = _trial()
    uses = _asked(trial).uses[trial.spec.key]
    assert {use.claim for use in uses} == {"lrn-error", "overlapping-pooling-error"}
    assert reuse.stale(trial, _asked(trial)) is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"numerics": 99}, ("numerics", 99, 3)), ({"rate": 0.5}, ("rate", 0.5, 0.02)), ({"seed": 77}, ("seed", 77, 0))],
)
def test_the_one_field_that_was_changed_is_named(changed, told):
    trial = _trial(**changed)
    found = reuse.stale(trial, _asked(trial))
    assert found.nearest.condition == "tiny-imagenet-32"
    assert [tuple(d) for d in found.differences] == [told]


def test_a_parameter_left_at_its_default_is_compared_by_value():
    """What a record leaves out is the default, so only the true difference is told."""
    trial = _trial(batch=256)
    (found,) = reuse.stale(trial, _asked(trial)).differences
    assert (found.field, found.stored, found.wanted) == ("batch", 256, 128)


def test_seeds_beyond_the_claim_file_are_asked_for_once_a_run_asked():
    trial = _trial(seed=77)
    assert reuse.stale(trial, _asked(trial)) is not None
    looks = {("lrn-error", "tiny-imagenet-32"): ((0, 77),)}
    assert reuse.stale(trial, _asked(trial, looks=looks)) is None


def test_an_experiment_that_nothing_measures_with_has_no_nearest():
    spec = TrialSpec(experiment="probe", numerics=1, config={}, seed=0)
    trial = Trial(spec=spec, data_digest="d", status="completed")
    assert reuse.stale(trial, _asked(trial)) == reuse.Stale(None, ())
    assert "no claim of this registry is measured by probe" in reuse.explain(trial, _asked(trial))[-1]


def _explain(tmp_path, *names):
    return [CliRunner().invoke(main, ["explain", name, "--store", str(tmp_path)], prog_name="repro") for name in names]


def test_the_command_says_what_a_trial_is_for_and_what_it_is_not(tmp_path):
    used, changed, running = _trial(), _trial(rate=0.5), _trial(arm="none", status="running")
    for trial in (used, changed, running):
        store.save(tmp_path, trial)
    results = _explain(tmp_path, used.identity[:8], changed.identity, running.identity)
    assert [result.exit_code for result in results] == [0, 0, 0]
    assert "used by lrn-error tiny-imagenet-32: scoring of lrn" in results[0].stdout
    assert "rate: 0.5 in the record, 0.02 asked for" in results[1].stdout
    assert "to be gone on with by lrn-error" in results[2].stdout


def test_a_name_of_no_trial_or_of_several_is_one_clear_line(tmp_path):
    for seed in range(2):
        store.save(tmp_path, _trial(seed=seed))
    none, several = _explain(tmp_path, "zz", "")
    assert none.exit_code == several.exit_code == 2
    assert none.stderr == "repro: no trial 'zz' among the 2 here; `repro show ID` lists a claim's\n"
    assert "no trial ''" in several.stderr
    trials, _ = store.load(tmp_path)
    with pytest.raises(reuse.ReuseError, match="2 trials begin with"):
        reuse.find([trials[0], trials[0]], trials[0].identity)


def test_an_unusable_record_is_named_rather_than_missed(tmp_path):
    trial = _trial()
    store.save(tmp_path, trial)
    path = store.folder(tmp_path, trial.identity) / "record.json"
    path.write_text(path.read_text().replace('"completed"', '"done"'))
    result, other = _explain(tmp_path, trial.identity, "t")  # as the folder `trials` begins
    assert result.exit_code == other.exit_code == 2
    assert "not a usable record" in result.stderr
    assert other.stderr == "repro: no trial 't' among the 0 here; `repro show ID` lists a claim's\n"
