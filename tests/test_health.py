"""Our own code, not the paper: a fresh run falls where the stored ones say, and a wrong one would not."""

import json
import math
import random
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from repro import cli
from repro.judging.stats import prediction_interval, sample

health = pytest.importorskip("repro.health", reason="trains: needs the extra 'run'")


@pytest.mark.long
def test_a_fresh_seed_trains_as_the_reference_did():
    """The check itself, as a user runs it."""
    result = CliRunner().invoke(cli.main, ["doctor", "--health"])
    found = [line for line in result.stdout.splitlines() if "runs of the reference" in line]
    assert len(found) == 2
    assert all(line.startswith("ok ") for line in found), result.stdout
    assert result.exit_code == 0, result.stdout


def test_the_command_says_what_is_off(monkeypatch):
    off = health.Finding("loss", 9.0, prediction_interval(sample([1.0, 1.1, 0.9]), 0.99))
    monkeypatch.setattr(health, "check", lambda _seed: iter([off]))
    result = CliRunner().invoke(cli.main, ["doctor", "--health"])
    assert result.exit_code == 2
    assert "BAD  loss: 9 (99% of runs of the reference lie in " in result.stdout


def test_no_seed_of_the_reference_was_chosen():
    """All that the rule names, and no other; so for the learning rates that are wrong."""
    reference = health.read()
    assert reference.seeds == health.SEEDS == tuple(range(1000, 1020))
    assert reference.shifted_seeds == health.SHIFTED_SEEDS
    for values in (reference.values, *reference.shifted.values()):
        seeds = reference.seeds if values is reference.values else reference.shifted_seeds
        assert {name: len(found) for name, found in values.items()} == {
            health.CURVE: len(seeds),
            health.FINAL: len(seeds),
        }


@pytest.mark.parametrize("rate", ["half", "double"])
def test_a_wrong_learning_rate_is_told_from_the_right_one(rate):
    """Every stored run at half or double the rate lies outside the interval that a right one has to lie in.

    And of one of the two values the mean logarithm lies two and a half of its own deviations beyond the nearest end, so
    that another seed's would, too.
    """
    reference, beyond = health.read(), {}
    for name, values in reference.shifted[rate].items():
        expected = reference.expected(name)
        assert [value for value in values if health.Finding(name, value, expected).fine] == []
        logs = sample([math.log(value) for value in values])
        end = expected.high if logs.mean > math.log(expected.value) else expected.low
        beyond[name] = abs(logs.mean - math.log(end)) / logs.variance**0.5
    assert max(beyond.values()) > 2.5


def test_a_value_at_an_end_of_the_interval_is_fine_and_beyond_it_is_not():
    expected = health.read().expected(health.CURVE)
    for end, beyond in ((expected.low, 1 - 1e-9), (expected.high, 1 + 1e-9)):
        assert health.Finding("x", end, expected).fine
        assert not health.Finding("x", end * beyond, expected).fine


def test_a_check_sets_each_value_beside_the_interval_of_its_name(monkeypatch):
    reference = health.read()
    right = {name: reference.expected(name).value for name in (health.CURVE, health.FINAL)}
    run = {**right, health.FINAL: reference.shifted["half"][health.FINAL][0]}
    monkeypatch.setattr(health, "measured", lambda _seed, _device: iter(run.items()))
    assert [(f.name, f.value, f.fine) for f in health.check(300)] == [
        (health.CURVE, right[health.CURVE], True),
        (health.FINAL, run[health.FINAL], False),
    ]


def test_a_further_value_falls_inside_as_often_as_it_says(monkeypatch):
    """90 in 100 of values whose logarithms are normal, 4,000 draws of 20, within four deviations."""
    monkeypatch.setattr(health, "CONFIDENCE", 0.9)
    whole, draw, inside = health.read(), random.Random(0), 0
    for _ in range(4000):
        *stored, fresh = (math.exp(draw.gauss(3, 2)) for _ in range(21))
        expected = whole.model_copy(update={"values": {health.CURVE: tuple(stored)}}).expected(health.CURVE)
        inside += expected.low <= fresh <= expected.high
    assert abs(inside - 3600) < 4 * (4000 * 0.9 * 0.1) ** 0.5


@pytest.mark.parametrize("seed", [1000, 1104])
def test_a_seed_of_the_reference_is_no_check(seed):
    with pytest.raises(health.HealthError, match=f"seed {seed} made the reference; check with another"):
        next(health.check(seed))


WITHOUT = json.dumps({**json.loads(health.REFERENCE.read_bytes()), "values": {}})


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 1, "made": "x", "seeds": [1], "values": {}}', WITHOUT])
def test_a_reference_that_cannot_be_read_is_one_clear_line(tmp_path, monkeypatch, content):
    path = tmp_path / "health.json"
    path.write_text(content)
    monkeypatch.setattr(health, "REFERENCE", path)
    with pytest.raises(health.HealthError, match="not a usable reference"):
        next(health.check(300))


def test_a_run_that_does_not_get_there_is_told(monkeypatch):
    monkeypatch.setattr(health.measure, "measure", lambda *_: SimpleNamespace(status="diverged", message="no"))
    with pytest.raises(health.HealthError, match="ended as diverged: no"):
        next(health.check(300))
