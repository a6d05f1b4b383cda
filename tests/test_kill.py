"""A killed trial goes on to the same numbers; a stopped run leaves soon; two runs share a store and lose nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import crash
import pytest
import torch

from repro import measure, notes, store
from repro.data import Dataset
from repro.experiments import final_error
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Setting, Task
from repro.running import attempt, runner
from repro.store import Trial
from repro.training.loop import Interrupted

HERE = Path(__file__).parent
REPRO = [sys.executable, "-m", "repro"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
HAS_DALI = sys.platform == "linux"
CPU = torch.device("cpu")


def killed(tmp_path: Path, kills: int, seed: int, *kinds: str) -> list[dict[str, object]]:
    command = [sys.executable, str(HERE / "crash.py"), str(tmp_path), str(kills), str(seed), *kinds]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**ONE_THREAD, "PYTHONPATH": str(HERE.parent)}
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_trial_killed_anywhere_ends_with_the_same_numbers(tmp_path: Path) -> None:
    """One kill in each kind of training, at random points: curve, record and missed images to the bit."""
    found = killed(tmp_path, 3, 1, "epochs-to", "final-error", "probe")
    assert [line["same"] for line in found] == [True] * 3, found
    assert any(line["resumed"] for line in found), found


@pytest.mark.long
def test_a_trial_killed_at_thirty_points_ends_with_the_same_numbers(tmp_path: Path) -> None:
    """Half of the kills fall into the writing of a checkpoint, a curve or a record."""
    kinds = ["epochs-to", "final-error", "probe"] + ["dali"] * HAS_DALI
    found = killed(tmp_path, 30, 2026, *kinds)
    assert [line["same"] for line in found] == [True] * 30, found
    assert {line["name"] == "step" for line in found} == {True, False}
    assert sum(bool(line["resumed"]) for line in found) >= 15


@pytest.mark.skipif(not HAS_DALI, reason="DALI exists for Linux only")
def test_a_trial_read_by_dali_goes_on_where_it_stood(tmp_path: Path) -> None:
    """Stopped within its second epoch and gone on with by a new loader, it ends with the same numbers."""
    make, data = crash.trial("dali", tmp_path)
    whole = measure.measure(make(tmp_path / "whole"), data, Monitor())
    looks = iter([False] * 7)
    with pytest.raises(Interrupted):
        measure.measure(make(tmp_path / "parts"), data, Monitor(stopping=lambda: next(looks, True)))
    parts = measure.measure(make(tmp_path / "parts"), data, Monitor())
    assert parts.environment["loader"] == "dali"
    assert parts.measurements == whole.measurements
    assert crash.outcome(tmp_path / "parts") == crash.outcome(tmp_path / "whole")


def small(tmp_path: Path, **changed: object) -> tuple[Task, Pictures]:
    p = final_error.Parameters(**{**crash.SMALL, "epochs": 1.0, **changed})
    return Task(final_error.spec(p, 0), "scoring", p.epochs, Setting(tmp_path, CPU)), crash.pictures()


def test_a_trial_is_the_same_twice(tmp_path: Path, one_thread: None) -> None:
    """Run again from nothing, a trial gives the same curve, measurements and missed images to the bit."""
    for name in ("one", "other"):
        measure.measure(*small(tmp_path / name), Monitor())
    assert crash.outcome(tmp_path / "one") == crash.outcome(tmp_path / "other")


def test_determinism_is_asked_for_and_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the trials run torch is held to operations of one outcome; afterwards it is as it was."""
    p = final_error.Parameters(**crash.SMALL, epochs=1.0)
    condition = type("C", (), {"arms": {"net": p}})
    source = runner.Source(crash.pictures(), "final-error", p, None)  # type: ignore[arg-type]
    asked = runner.Wanted(condition, source, (0,))  # type: ignore[arg-type]
    seen: list[bool] = []

    def measured(task: Task, data: Pictures, _monitor: Monitor) -> Trial:
        seen.append(torch.are_deterministic_algorithms_enabled())
        trial = Trial(spec=task.spec, data_digest=data.digest, status="completed")
        store.save(task.setting.store, trial)
        return trial

    monkeypatch.setattr(measure, "measure", measured)
    for wanted in (True, False):
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        assert not runner.run(asked, Setting(tmp_path / str(wanted), CPU, deterministic=wanted))
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == wanted
        assert not torch.are_deterministic_algorithms_enabled()
    assert seen == [True, False]


def test_a_stop_while_a_trained_network_is_tested_loses_no_training(tmp_path: Path, one_thread: None) -> None:
    """Asked to stop after the last step, it leaves within a batch; the next command tests and does not train."""
    task, data = small(tmp_path / "parts")
    whole = measure.measure(small(tmp_path / "whole")[0], data, Monitor())
    looks = iter([False] * 7)  # five steps, and two batches of the test
    with pytest.raises(Interrupted):
        measure.measure(task, data, Monitor(stopping=lambda: next(looks, True)))
    seen: list[float] = []
    parts = measure.measure(task, data, Monitor(report=lambda done, _words: seen.append(done)))
    assert seen == []  # no check: no step was taken
    assert parts.measurements == whole.measurements
    assert crash.outcome(tmp_path / "parts") == crash.outcome(tmp_path / "whole")


class Heard(runner.Silent):
    """What an observer was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def moved(self, spec: object, done: float, words: str) -> None:
        self.lines.append(words)

    def ended(self, planned: object, trial: Trial) -> None:
        self.lines.append(trial.status)


def test_a_trial_that_another_process_ends_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is held we wait, and once it has ended its record is ours; nothing is measured twice."""
    p = final_error.Parameters(**crash.SMALL, epochs=1.0)
    spec, data = final_error.spec(p, 0), Dataset("d", torch.empty(0), torch.empty(0), 0, "sha256:made-up")
    done = Trial(spec=spec, data_digest=data.digest, status="completed")
    condition = type("C", (), {"arms": {"net": p}})
    source = runner.Source(data, "final-error", p, None)  # type: ignore[arg-type]
    monkeypatch.setattr(runner, "WAIT_S", 0.01)
    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("run twice"))
    heard, looked = Heard(), []

    class Held:
        def __init__(self, *_: object) -> None:
            looked.append(True)

        def __enter__(self) -> bool:
            if len(looked) == 3:
                store.save(tmp_path, done)  # the other process has ended it
            return len(looked) >= 3

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(attempt, "locked", Held)
    wanted = runner.Wanted(condition, source, (0,))  # type: ignore[arg-type]
    assert not runner.run(wanted, Setting(tmp_path, CPU), observer=heard)
    assert heard.lines[-1] == "completed"
    assert "another process" in heard.lines[0]


TOLD = """
import os, sys
from repro import measure
from repro.running import attempt, runner
real = measure.measure
def told(task, data, monitor):
    with open(sys.argv[1], "a") as file:
        file.write(f"{task.spec.key}\\n")
    return real(task, data, monitor)
measure.measure = told
from repro.cli import main
main(sys.argv[2:])
"""


def test_two_runs_at_once_share_a_store(tmp_path: Path) -> None:
    """Both end in order, every trial was measured by one of them, and every record is there."""
    log, runs = tmp_path / "log", tmp_path / "runs"
    options = ["--scale", "static", "--store", str(runs), "--device", "cpu"]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TOLD, str(log), "run", "all", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD,
        )
        for _ in range(2)
    ]  # fmt: skip
    ended = [process.communicate(timeout=300) for process in both]
    assert all(process.returncode in (0, 1) for process in both), ended  # 1: a claim that the paper gets wrong
    measured = log.read_text().split()
    trials, problems = store.load(runs)
    assert problems == []
    assert len(measured) == len(set(measured)) == len(trials) > 5
    assert {trial.status for trial in trials} == {"completed"}
    assert len(list((runs / "plans").glob("*.json"))) == len(notes.load_looks(runs)) > 5


@pytest.mark.long
def test_two_searches_at_once_share_a_store(tmp_path: Path) -> None:
    """A search for a learning rate, whose scoring waits for all of it, is shared too."""
    log, runs = tmp_path / "log", tmp_path / "runs"
    options = ["relu-speedup", "--condition", "smoke", "--store", str(runs), "--device", "cpu"]
    command = [sys.executable, "-c", TOLD, str(log), "run", "claim", *options]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=1200) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    measured = log.read_text().split()
    assert len(measured) == len(set(measured)) == len(store.load(runs)[0])


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.long
@pytest.mark.skipif(not HAS_DALI, reason="reads /proc")
def test_workers_leave_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """No process stays behind to hold a lock or memory, and the same command finds the trials free."""
    command = [*REPRO, "run", "claim", "relu-speedup", "--condition", "smoke", "--device", "cpu", "--jobs", "2"]
    parent = subprocess.Popen(command, cwd=tmp_path, env=ONE_THREAD, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("runs/trials/*/record.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    found = subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, text=True, check=True)
    workers = [int(line) for line in found.stdout.split()]
    assert len(workers) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))
    for trial in store.load(tmp_path / "runs")[0]:
        with store.locked(tmp_path / "runs", trial.identity) as ours:
            assert ours
