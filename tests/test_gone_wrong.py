"""Trainings that blow up, run out of memory or wait for ever: each is told by name, and the others go on."""

import itertools
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crash
import pytest
import torch
from click.testing import CliRunner
from simulation import Heard

from repro import measure, problem, store
from repro.cli import main
from repro.experiments import final_error
from repro.loading import watched
from repro.loading.pictures import Pictures
from repro.loading.watched import Hung, timely
from repro.measure import Monitor, Setting, Task
from repro.running import attempt, runner
from repro.store import Trial, TrialSpec
from repro.training import checkpoint, passes
from repro.training.loop import Recent

CPU = torch.device("cpu")


@pytest.mark.parametrize(("losses", "step"), [([1, 2, float("nan"), 3], 3), ([1, float("inf"), 2, 9, 9], 2)])
def test_the_step_of_a_bad_loss_is_found(losses: list[float], step: int) -> None:
    """Steps count from 1, over a window that has been gone round or not."""
    recent = Recent(4, 1, CPU)
    for value in losses:
        recent.put(torch.tensor(0.0), torch.tensor(value))
    assert recent.first_not_finite() == step


def test_a_window_that_went_round_finds_the_first_of_its_steps() -> None:
    """Of the bad losses of the last four steps it is the oldest, wherever the window stands."""
    recent = Recent(4, 1, CPU)
    for value in [1.0, 1.0, 1.0, 1.0, 1.0, float("inf"), float("nan")]:
        recent.put(torch.tensor(0.0), torch.tensor(value))
    assert recent.first_not_finite() == 6
    for _ in range(4):
        recent.put(torch.tensor(0.0), torch.tensor(1.0))
    assert recent.first_not_finite() == 11  # none is bad: their sum was


def test_a_training_that_blows_up_is_diverged_at_its_step(tmp_path: Path, one_thread: None) -> None:
    """The record says from which step on the loss was no number; the step before it was fine."""
    bad: list[int] = []
    make, data = crash.trial("epochs-to", tmp_path)
    task = make(tmp_path)
    spec = task.spec.model_copy(update={"config": {**task.spec.config, "activation": "relu", "rate": 1e6}})
    real = Recent.put

    def put(self: Recent, wrong: torch.Tensor, loss: torch.Tensor) -> None:
        real(self, wrong, loss)
        bad.extend([] if torch.isfinite(loss) else [self.step])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recent, "put", put)
        trial = measure.measure(Task(spec, "scoring", 5.0, Setting(tmp_path, CPU)), data, Monitor())
    assert trial.status == "diverged"
    assert f"from step {bad[0]} on" in trial.message
    assert store.load(tmp_path)[0] == [trial]


MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] data. DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


def two_arms() -> tuple[Any, runner.Source]:
    """Return a condition of two arms and its data."""
    arms = {
        arm: final_error.Parameters(**crash.SMALL, epochs=1.0, dropout=arm == "with") for arm in ("with", "without")
    }
    return type("C", (), {"arms": arms}), runner.Source(crash.pictures(), "final-error", arms["with"], None)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_want_of_memory_names_a_batch_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The trial is recorded as failed with half its batch as a guess; the other arm is run."""
    (condition, source), heard = two_arms(), Heard()

    def measured(task: Task, data: Pictures, _monitor: Monitor) -> Trial:
        if "dropout" not in task.spec.config:
            raise error
        trial = Trial(spec=task.spec, data_digest=data.digest, status="completed")
        store.save(task.setting.store, trial)
        return trial

    monkeypatch.setattr(measure, "measure", measured)
    assert not runner.run(runner.Wanted(condition, source, (0,)), Setting(tmp_path, CPU), observer=heard)
    assert [trial.status for trial in heard.finished] == ["completed"]
    assert len(heard.failures) == 1
    assert "batch = 16 in the claim, half of 32, may fit (a guess" in heard.failures[0]
    recorded = {trial.status: trial.message for trial in store.load(tmp_path)[0]}
    assert recorded["failed"].startswith(problem.told(error))
    assert "batch = 16" in recorded["failed"]
    assert recorded.keys() == {"completed", "failed"}


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_a_checkpoint_that_memory_does_not_suffice_for_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Beside other trials on one GPU, say: it is whole, and with room the trial goes on from it."""
    path = tmp_path / "checkpoint.pt"
    for step in (1, 2):
        checkpoint.save(path, {"step": step})

    def load(*_: object, **_more: object) -> None:
        raise error

    with monkeypatch.context() as full:
        full.setattr(torch, "load", load)
        with pytest.raises(type(error)):
            checkpoint.load(path, CPU)
    assert {place.name for place in tmp_path.iterdir()} == {"checkpoint.pt", "checkpoint.pt.previous"}
    assert checkpoint.load(path, CPU) == {"step": 2}


def test_checkpoints_read_side_by_side_leave_warnings_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two threads the first to begin is the first to end: what each of them puts back would be of the other."""
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"step": 1})
    begun, ended = [threading.Event(), threading.Event()], threading.Event()
    turns = iter([(begun[0], begun[1]), (begun[1], ended)])

    def load(*_: object, **_more: object) -> dict[str, int]:
        here, awaited = next(turns)
        here.set()
        assert awaited.wait(60)
        return {}

    before = list(warnings.filters)
    monkeypatch.setattr(torch, "load", load)
    one, other = (threading.Thread(target=checkpoint.load, args=(path, CPU)) for _ in range(2))
    one.start()
    assert begun[0].wait(60)
    other.start()
    one.join()
    ended.set()
    other.join()
    assert warnings.filters == before


def test_a_batch_is_named_only_where_it_may_help(tmp_path: Path) -> None:
    """The experiment's own default is halved where the claim says none; one image is not, nor what has no batch."""
    p = {"experiment": "final-error", "numerics": 1, "seed": 0}
    assert "half of 128" in attempt.smaller(TrialSpec(config={}, **p))  # type: ignore[arg-type]
    assert attempt.smaller(TrialSpec(config={"batch": 1}, **p)) == ""  # type: ignore[arg-type]
    assert attempt.smaller(TrialSpec(experiment="count", numerics=1, config={}, seed=0)) == ""
    assert not passes.for_want_of_memory(RuntimeError("shapes differ"))


@pytest.mark.parametrize(
    ("words", "line"),
    [("", "RuntimeError"), (" \n", "RuntimeError"), ("\n  \nbroken\nhere", "broken"), ("broken", "broken")],
)
def test_an_error_is_told_by_its_first_words(words: str, line: str) -> None:
    """What ails a compiler or a library may begin with empty lines, or have no words at all: then its kind is told."""
    error = RuntimeError(words)
    assert problem.first_line(error) == line
    assert problem.told(error) == ("RuntimeError" if line == "RuntimeError" else f"RuntimeError: {line}")


def test_one_failing_claim_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is named on a line, what does not is measured and judged, and the exit code is 3."""
    real = measure.measure
    calls = itertools.count()

    def measured(*arguments: Any) -> Trial:
        if next(calls) == 0:
            raise RuntimeError("broken\non two lines")
        return real(*arguments)

    monkeypatch.setattr(measure, "measure", measured)
    command = ["run", "claim", "parameters", "initial-weights", "--store", str(tmp_path), "--device", "cpu"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 3, result.output
    assert result.stderr.count("repro: failed: ") == 1
    assert "RuntimeError: broken" in result.stderr
    assert "on two lines" not in result.stderr
    assert sorted(trial.status for trial in store.load(tmp_path)[0]) == ["completed", "failed"]
    again = CliRunner().invoke(main, command)  # and the same command makes up for it
    assert again.exit_code in (0, 1)
    assert {trial.status for trial in store.load(tmp_path)[0]} == {"completed"}


def hanging(after: int) -> Iterator[int]:
    """Yield some numbers, and then wait for what never comes."""
    yield from range(after)
    threading.Event().wait()


def test_a_stream_that_hangs_is_named() -> None:
    """What it gave before counts; then the wait ends with a line that says who and how long."""
    stream = timely(hanging(3), "the loader 'x'", 0.2)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Hung, match=r"^the loader 'x' gave nothing for 0\.2 s"):
        next(stream)


def test_a_slow_stream_is_left_alone_and_nothing_is_read_ahead() -> None:
    """Each item is read when it is asked for, so that a loader's state is that of what was drawn."""
    read: list[int] = []

    def slow() -> Iterator[int]:
        for number in range(4):
            time.sleep(0.02)
            read.append(number)
            yield number

    stream = timely(slow(), "x", 30.0)
    for number in range(3):
        assert next(stream) == number
        assert read == list(range(number + 1))
    assert list(stream) == [3]


def test_what_a_stream_raises_is_raised_and_its_thread_ends() -> None:
    """An error passes as it is, and a stream that is closed leaves no thread behind."""

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("broken picture")

    stream = timely(failing(), "failing", 30.0)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken picture"):
        next(stream)
    closed = timely(iter(range(9)), "closed", 30.0)
    next(closed)
    closed.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name in ("reading failing", "reading closed"):
            thread.join(10)
            assert not thread.is_alive()


def test_a_hung_loader_fails_its_trial_and_names_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """The trial is recorded as failed after the limit, while one from memory is never watched."""
    data = crash.pictures()
    real = Pictures.loader
    monkeypatch.setattr(watched, "LOADER_TIMEOUT_S", 0.3)

    def loader(self: Pictures, name: str, job: Any) -> Any:
        found = real(self, "resident", job)
        if name == "dali":
            found.name = "dali"
            found.train = lambda _first: hanging(0)  # type: ignore[method-assign]
        return found

    monkeypatch.setattr(Pictures, "loader", loader)
    p = final_error.Parameters(**crash.SMALL, epochs=1.0)
    for name, status in (("dali", "failed"), ("resident", "completed")):
        task = Task(final_error.spec(p, 0), "scoring", 1.0, Setting(tmp_path / name, CPU, name))
        attempt.attempt(task, data, Monitor(), None)
        (trial,) = store.load(tmp_path / name)[0]
        assert trial.status == status
        assert ("the loader 'dali' gave nothing for 0.3 s" in trial.message) == (status == "failed")
