"""The gate of speed: red only where the tree is surely and grossly slower than the commit, beside the same peers."""

import importlib.util
import math
import random
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from repro.bench import results
from repro.bench.results import Ran, Run
from repro.bench.timing import AGAIN, OURS


def program(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gate, power = program("gate"), program("power")

STEADY = (1.0, 1.01, 0.99, 1.0, 1.0, 1.0)
SHAKY = (1.0, 0.4, 2.5, 0.7, 1.3)
OWN = (1.0, 1.4, 0.7, 1.2, 0.9, 1.1)


def a_run(ours, peer=50.0, digest="d"):
    """Return a process's run of two rounds, in the second of which the machine is a little faster."""
    rates = {OURS: (ours * 0.98, ours / 0.98), AGAIN: (ours * 0.98, ours / 0.98), "plain": (peer * 0.98, peer / 0.98)}
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
    ("factor", "machine", "own", "code", "said"),
    [
        (0.5, STEADY, STEADY, 1, "grossly slower: step"),
        (0.93, STEADY, STEADY, 0, "grossly slower: none"),
        (1.5, STEADY, STEADY, 0, "grossly slower: none"),
        (0.8, STEADY, STEADY, 1, "grossly slower: step"),
        (0.8, SHAKY, STEADY, 1, "grossly slower: step"),  # what meets the peer as well is no noise
        (1.0, SHAKY, STEADY, 0, "grossly slower: none"),
        (0.8, STEADY, OWN, 0, "grossly slower: none"),
    ],
)
def test_red_only_beyond_ten_per_cent_and_what_processes_differ_by(
    monkeypatch, capsys, factor, machine, own, code, said
):
    """Six processes of each side, whose rates are made up; the machine's speed changes while they run."""
    asked = []

    def bench(root, words, _out, threads):
        side = "now" if root == gate.ROOT else "then"
        number = sum(1 for other in asked if other[0] == side)
        speed = machine[len(asked) % 5]
        asked.append((side, words, threads))
        rate = 100 * (factor if side == "now" else 1) * own[number] * speed
        return a_run(rate, 50 * speed, digest=side)

    monkeypatch.setattr(gate, "bench", bench)
    monkeypatch.setattr(gate, "unpacked", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gate.py", "HEAD", "step", "--threads", "2"])
    with pytest.raises(SystemExit) as ended:
        gate.main()
    assert ended.value.code == code
    told = capsys.readouterr().out.splitlines()
    assert told[-1].endswith(said)
    assert told[-5].startswith("step: now over then ")
    assert "n = 6 + 6 processes" in told[-5]
    assert told[-4] == "  beside plain"
    assert [side for side, *_ in asked] == gate.turns(6)
    assert asked[0][1:] == (["step", "--rounds", "4", "--batch", "32"], 2)
    assert results.SAME_CODE not in told


@pytest.mark.parametrize(
    ("of_then", "said"),
    [
        ({"settings": {"net": "alexnet"}}, "net: 'alexnet-32' here, 'alexnet' there"),
        ({"environment": {"code_digest": "d", "threads": 2}}, "threads: 1 here, 2 there"),
        ({"cases": ()}, "the earlier run holds no case"),
    ],
)
def test_a_commit_that_times_other_work_is_not_compared(monkeypatch, capsys, of_then, said):
    """The first two processes tell, and no others are timed: code 3, whatever the rates."""
    asked = []

    def bench(root, *_):
        side = "now" if root == gate.ROOT else "then"
        asked.append(side)
        run = a_run(10.0 if side == "now" else 100.0)
        alike = {"settings": {"net": "alexnet-32"}, "environment": {"code_digest": "d", "threads": 1}}
        return run.model_copy(update=alike | (of_then if side == "then" else {}))

    monkeypatch.setattr(gate, "bench", bench)
    monkeypatch.setattr(gate, "unpacked", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gate.py", "HEAD", "step"])
    with pytest.raises(SystemExit) as ended:
        gate.main()
    told = capsys.readouterr()
    assert ended.value.code == 3
    assert said in told.err
    assert asked == ["then", "now"]
    assert "grossly" not in told.out


def test_a_gate_of_one_code_says_so(monkeypatch, capsys):
    monkeypatch.setattr(gate, "bench", lambda *_: a_run(100.0))
    monkeypatch.setattr(gate, "unpacked", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gate.py", "HEAD", "step"])
    with pytest.raises(SystemExit):
        gate.main()
    assert results.SAME_CODE in capsys.readouterr().out.splitlines()


def test_a_process_has_one_thread_unless_told_and_runs_its_own_tree(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(gate.subprocess, "run", lambda *_, **more: asked.append(more) or SimpleNamespace(returncode=0))
    monkeypatch.setattr(gate.results, "load", lambda path: path)
    gate.bench(tmp_path, ["lrn"], "one")
    gate.bench(tmp_path, ["lrn"], "two", 2)
    assert [more["env"]["OMP_NUM_THREADS"] for more in asked] == ["1", "2"]
    assert {more["env"]["PYTHONPATH"] for more in asked} == {str(tmp_path)}


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


def test_power_counts_the_gates_that_would_be_red():
    """Twelve processes whose ours swings a little by itself: half the speed is always seen, ten per cent never."""
    runs = [a_run(100 * OWN[i % 6] ** 0.2 * SHAKY[i % 5], 50 * SHAKY[i % 5]) for i in range(12)]
    false, found = power.shares(runs, 6, (1.1, 2.0), times=20)
    assert false == 0
    assert found == {1.1: {"step": 0}, 2.0: {"step": 1}}
    now, then = power.dealt(runs, 6, random.Random(0))
    each = sorted([*now.cases[0].rates[OURS], *then.cases[0].rates[OURS]])
    assert each == sorted(rate for run in runs for rate in run.cases[0].rates[OURS])  # everyone plays, on one side
    half = power.slowed(runs[0], 2).cases[0].rates
    assert half["plain"] == runs[0].cases[0].rates["plain"]
    assert half[OURS] == pytest.approx(tuple(rate / 2 for rate in runs[0].cases[0].rates[OURS]))


def test_scatter_is_of_the_logarithms_of_processes_and_peers_take_the_machines_out():
    own = (1.0, math.e**0.2, math.e**-0.2)
    runs = [a_run(100 * x * machine, 50 * machine) for x, machine in zip(own, (1, math.e, math.e), strict=True)]
    ((alone, beside),) = power.scatter(runs).values()
    assert alone == pytest.approx(statistics.stdev([0, 1.2, 0.8]))
    assert beside == pytest.approx(0.2)


def test_power_counts_processes_not_their_rounds():
    runs = [a_run(100 * OWN[i // 2]) for i in range(12)]
    flat = [run.model_copy(update={"rounds": 1}) for run in runs]
    (of_processes,), (of_rounds,) = ([*power.shares(each, 6, (1.6,), 50)[1].values()] for each in (runs, flat))
    assert of_processes["step"] == 0
    assert of_rounds["step"] == 1
    (alone,) = power.shares(runs[:2], 1, (1.6,), 5)[1].values()  # one process each has nothing but its rounds
    assert alone["step"] == 1


def test_false_alarms_are_counted_where_one_code_is_two(monkeypatch):
    """Neighbours that differ twofold are no one code: some deals put all the slow ones on one side."""
    monkeypatch.setattr(results, "FALSE_ALARM", 0.05)
    runs = [a_run(100 * (1 + i % 2) * STEADY[i % 6]) for i in range(4)]
    false, _ = power.shares(runs, 2, (), times=200)
    assert 0.15 < false < 0.35  # one deal in four


@pytest.mark.parametrize(
    ("count", "digests", "said"), [(11, "d", "takes 12 files of 2 rounds each"), (12, "de", "of different code")]
)
def test_power_refuses_what_is_no_gate(monkeypatch, capsys, tmp_path, count, digests, said):
    for i in range(count):
        (tmp_path / f"{i}.json").write_text(results.dumped(a_run(100.0, digest=digests[i % len(digests)])))
    monkeypatch.setattr(sys, "argv", ["power.py", *map(str, tmp_path.glob("*")), "--rounds", "2"])
    with pytest.raises(SystemExit) as ended:
        power.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_runs_that_are_to_be_kept_are_kept(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(gate, "bench", lambda _root, _words, out, _threads: asked.append(out) or a_run(100.0))
    monkeypatch.setattr(gate, "unpacked", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gate.py", "HEAD", "--pairs", "2", "--keep", str(tmp_path / "new")])
    with pytest.raises(SystemExit):
        gate.main()
    assert [path.name for path in asked] == ["00-then.json", "01-now.json", "02-now.json", "03-then.json"]
    assert {path.parent for path in asked} == {tmp_path / "new"}
