"""Our own code, not the paper: a fresh run falls where the stored ones say."""

import random

import pytest
from click.testing import CliRunner

from repro import cli
from repro.judging.stats import prediction_interval, sample

health = pytest.importorskip("repro.health", reason="trains: needs the extra 'run'")


def test_a_fresh_seed_trains_as_the_reference_did():
    """The gate: two nets on embedded pictures, within the 99% interval of nine stored runs each."""
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


def test_the_gate_can_close(monkeypatch):
    """Were our runs to come out ten standard deviations off, it would say so."""
    reference = health.Reference.model_validate_json(health.REFERENCE.read_bytes())
    assert len(reference.seeds) >= 6
    for values in reference.values.values():
        off = sample(values).mean + 10 * sample(values).variance ** 0.5
        expected = prediction_interval(sample(values), health.CONFIDENCE)
        assert not health.Finding("x", off, expected).fine
        assert health.Finding("x", values[0], expected).fine


def test_a_further_value_falls_inside_as_often_as_it_says():
    """90 in 100 of normal values, 4,000 draws of 8, within four deviations."""
    draw = random.Random(0)
    inside = 0
    for _ in range(4000):
        *stored, fresh = (draw.gauss(3, 2) for _ in range(9))
        i = prediction_interval(sample(stored), 0.9)
        inside += i.low <= fresh <= i.high
    assert abs(inside - 3600) < 4 * (4000 * 0.9 * 0.1) ** 0.5


def test_a_seed_of_the_reference_is_no_check():
    with pytest.raises(health.HealthError, match="seed 100 made the reference; check with another"):
        next(health.check(100))


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 1, "made": "x", "seeds": [1], "values": {}}'])
def test_a_reference_that_cannot_be_read_is_one_clear_line(tmp_path, monkeypatch, content):
    path = tmp_path / "health.json"
    path.write_text(content)
    monkeypatch.setattr(health, "REFERENCE", path)
    with pytest.raises(health.HealthError, match="not a usable reference"):
        next(health.check(300))


def test_a_run_that_does_not_get_there_is_told(monkeypatch):
    monkeypatch.setattr(health.measure, "measure", lambda *_: type("T", (), {"status": "censored", "message": "no"}))
    with pytest.raises(health.HealthError, match="ended as censored: no"):
        next(health.check(300))
