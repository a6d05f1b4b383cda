"""The gate of speed: red only where the tree is grossly slower than the commit, beyond the noise of both."""

import importlib.util
import sys
from pathlib import Path

import pytest

from repro.bench import results
from repro.bench.results import Ran, Run
from repro.bench.timing import AGAIN, OURS

PATH = Path(__file__).parent / "benchmarks" / "gate.py"
spec = importlib.util.spec_from_file_location("gate", PATH)
gate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gate)

STEADY = (1.0, 1.01, 0.99, 1.0)
SHAKY = (1.0, 1.12, 0.9, 1.05)


def a_run(ours, again=None, digest="d"):
    """Return a process's run of two rounds: ``ours`` images a second, and ``again`` when timed again."""
    rates = {OURS: (ours * 0.98, ours / 0.98), AGAIN: (again or ours,) * 2, "plain": (50.0, 50.0)}
    ran = Ran(name="step", what="w", unit="images", rates=rates, foreign=("plain",))
    return Run(
        made="2026-01-01T00:00:00+00:00", command="repro bench", rounds=2, settings={}, load=(),
        environment={"code_digest": digest}, cases=(ran,), not_measured={},
    )  # fmt: skip


def test_processes_become_the_rounds():
    found = results.joined([a_run(100.0), a_run(121.0)])
    assert found.rounds == 4
    assert found.cases[0].rates[OURS] == pytest.approx((98, 100 / 0.98, 121 * 0.98, 121 / 0.98))
    (change,) = results.changes(found, found, 2)
    assert change.ours.n == (2, 2)  # processes
    mean = results.change(found.cases[0], results.joined([a_run(50.0), a_run(50.0)]).cases[0], 2).ours.value
    assert mean == pytest.approx(2.2)  # the geometric mean of 100 and 121 over 50
    assert found.cases[0].foreign == ("plain",)


def test_sides_take_turns_about():
    assert gate.turns(3) == ["then", "now", "now", "then", "then", "now"]


@pytest.mark.parametrize(
    ("factor", "noise", "code", "said"),
    [
        (0.5, STEADY, 1, "grossly slower: step"),
        (0.93, STEADY, 0, "grossly slower: none"),
        (1.5, STEADY, 0, "grossly slower: none"),
        (0.8, STEADY, 1, "grossly slower: step"),
        (0.8, SHAKY, 0, "grossly slower: none"),
    ],
)
def test_red_only_beyond_the_noise_of_both(monkeypatch, capsys, factor, noise, code, said):
    """Four processes of each side, whose rates are made up; on the shaky machine ours differs from itself as well."""
    asked = []

    def bench(root, words, _out):
        side = "now" if root == gate.ROOT else "then"
        number = sum(1 for other in asked if other[0] == side)
        asked.append((side, words))
        rate = 100 * (factor if side == "now" else 1) * STEADY[number]
        return a_run(rate, rate * noise[number], digest=side)

    monkeypatch.setattr(gate, "bench", bench)
    monkeypatch.setattr(gate, "unpacked", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gate.py", "HEAD", "step"])
    with pytest.raises(SystemExit) as ended:
        gate.main()
    assert ended.value.code == code
    assert capsys.readouterr().out.splitlines()[-1].endswith(said)
    assert [side for side, _ in asked] == gate.turns(4)
    assert asked[0][1] == ["step", "--rounds", "3", "--batch", "128"]


def test_what_is_no_commit_is_code_2(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        gate.unpacked("no-such-commit", tmp_path)
    assert ended.value.code == 2
    assert "no-such-commit" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["gate.py", "HEAD", "--pairs", "1"])
    with pytest.raises(SystemExit) as ended:
        gate.main()
    assert ended.value.code == 2


def test_a_side_that_cannot_be_measured_is_code_3(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        gate.bench(tmp_path, ["--no-such-option"], tmp_path / "run.json")
    assert ended.value.code == 3
    assert "no-such-option" in capsys.readouterr().err


def test_the_cases_of_the_gate_are_cases():
    assert set(gate.CASES) <= set(results.CASES)
    assert not set(gate.CASES) & set(results.FROM_FILES)
