"""A ``repro run`` of several claims: timings run alone, the store is read once, damage stops the claim it is of."""

import collections
import io
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_up
import pytest
from click.testing import CliRunner
from rich.console import Console

pytest.importorskip("torch")

import torch

from repro import experiments, files, measure, notes, registry, store
from repro.cli import main
from repro.experiments import Planned
from repro.files import StoreError
from repro.marks import Reader
from repro.measure import Monitor, Task
from repro.report import progress, tables
from repro.running import attempt, runner, session, workers
from repro.running.work import Outcome
from repro.store import Measurement, Trial, TrialSpec
from repro.training.loop import Interrupted

TWO = ("initial-weights", "parameters")


def claims_in(folder: Path, *ids: str) -> Path:
    """Return a registry of some of the claims of the paper; those of throughput are timed three times in a smoke."""
    folder.mkdir(exist_ok=True)
    for id_ in ids:
        text = (made_up.CLAIMS / f"{id_}.toml").read_text()
        (folder / f"{id_}.toml").write_text(text.replace("gpus = 0\nseeds = [0]", "gpus = 0\nseeds = [0, 1, 2]"))
    return folder


def repro(*arguments: Any) -> Any:
    """Run a command; no traceback may come out of it."""
    found = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="repro")
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
    return found


def test_what_is_timed_says_so() -> None:
    """An experiment whose trials are timings runs them alone, and no other does: over every condition there is."""
    for claim in registry.load_registry(made_up.CLAIMS).values():
        experiment = experiments.get(claim.experiment)
        for condition in claim.conditions.values():
            roles = {planned.role for planned in experiment.pending(condition.arms, condition.seeds, {})}
            assert ("timing" in roles) == experiment.TIMED, claim.id


class Nothing:
    """Data that is nowhere looked at."""

    digest = "d"

    def to(self, _device: object) -> "Nothing":
        return self


def end(task: Task, *measurements: Measurement) -> Trial:
    """Record a trial as completed."""
    trial = Trial(spec=task.spec, data_digest="d", status="completed", measurements=measurements)
    store.save(task.setting.store, trial)
    return trial


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[TrialSpec]:
    """Let trainings end at once with a number as it might be, and return the list into which their specs go."""
    ran: list[TrialSpec] = []
    computed, loaded = measure.measure, measure.load

    def measured(task: Task, data: Any, monitor: Monitor) -> Trial:
        config = task.spec.config
        ran.append(task.spec)
        if task.spec.experiment == "epochs-to":  # fastest in the middle of either grid
            off = min(abs(math.log2(config["rate"] / middle)) for middle in (0.004, 0.02))
            time = (1 + off) * (6 if config["activation"] == "tanh" else 1)
            return end(task, Measurement(name="epochs-to", value=time, unit="epochs"))
        if task.spec.experiment == "final-error":
            views = ("top1-error-ten", "top1-error-centre")
            return end(task, *(Measurement(name=view, value=0.4, unit="1") for view in views))
        return computed(task, data, monitor)

    def load(experiment: str, *rest: Any) -> Any:
        return Nothing() if experiment in ("epochs-to", "final-error") else loaded(experiment, *rest)

    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(measure, "load", load)
    return ran


@pytest.mark.parametrize("jobs", [1, 3])
def test_timings_run_alone_whatever_jobs_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    """Of two claims run with ``--jobs 3`` the trainings run side by side, the timings with nothing beside them."""
    inside, beside = collections.Counter[str](), collections.Counter[str]()
    two = threading.Barrier(2)
    lock = threading.Lock()

    def measured(task: Task, _data: object, _monitor: Monitor) -> Trial:
        name = task.spec.experiment
        with lock:
            inside[name] += 1
        if name == "throughput" or jobs == 1:
            time.sleep(0.05)  # another would come in by now
        else:
            two.wait(60)  # or nobody is beside us
        with lock:
            beside[name] = max(beside[name], inside.total())
            inside[name] -= 1
        return end(task)

    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(measure, "load", lambda *_: Nothing())
    monkeypatch.setattr(runner, "processes", workers.threads)  # what is measured here is seen here
    claims = claims_in(tmp_path / "claims", "free-augmentation", "dropout-overfitting")
    found = repro(
        "run", "all", "--scale", "smoke", "--claims", claims, "--store", tmp_path / "runs", "--jobs", jobs,
        "--device", "cpu",
    )  # fmt: skip
    ended = collections.Counter(trial.spec.experiment for trial in store.load(tmp_path / "runs")[0])
    assert ended["throughput"] == 3, found.output
    assert ended["final-error"] >= 2
    assert beside["throughput"] == 1
    assert beside["final-error"] == (1 if jobs == 1 else 2)
    told = [line for line in found.stdout.splitlines() if line.startswith("throughput: ")]
    words = "a machine that other trials share tells no times; --jobs 3 does not apply: one trial runs at a time"
    assert told == ([] if jobs == 1 else [f"throughput: {words}"])


def test_threads_of_a_gpu_compute_in_one_precision() -> None:
    """TF32 is a switch of the whole process: arms that differ in it are trained one after the other there."""
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    smoke = registry.load_registry(made_up.CLAIMS)["lrn-error"].conditions["smoke"]
    narrow = {name: arm.model_copy(update={"precision": "tf32"}) for name, arm in list(smoke.arms.items())[:1]}
    mixed = smoke.model_copy(update={"arms": {**smoke.arms, **narrow}})
    assert runner.alone("final-error", mixed, gpu).startswith("its arms differ in precision (fp32, tf32)")
    assert runner.alone("final-error", mixed, cpu) == runner.alone("final-error", smoke, gpu) == ""


OTHERS = [TrialSpec(experiment="epochs-to", numerics=1, config={"rate": 0.5}, seed=seed) for seed in range(4)]


def test_a_command_reads_each_record_once_however_many_claims_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once to run, and then as every report does: once to judge and once for the digest of the evidence."""
    claims = claims_in(tmp_path / "claims", *TWO, "conv-parameter-share", "weighted-layers")
    found = list(registry.load_registry(claims))
    for spec in OTHERS:
        store.save(tmp_path / "runs", Trial(spec=spec, data_digest="d", status="completed"))
    monkeypatch.setattr(files, "SETTLED_S", -3600.0)  # times of files tell every change at once
    real, reads = files.read, collections.Counter[str]()

    def read(path: Path | str) -> bytes:
        reads[Path(path).parent.name] += Path(path).name == "record.json"
        return real(path)

    monkeypatch.setattr(files, "read", read)
    for command in (["all", "--scale", "static"], ["claim", *found]):
        reads.clear()
        ran = repro("run", *command, "--claims", claims, "--store", tmp_path / "runs", "--device", "cpu")
        assert ran.exit_code == 0, ran.output
        assert [reads[spec.identity("d")] for spec in OTHERS] == [3] * len(OTHERS)


def test_a_reader_sees_what_others_do_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that is added, replaced, damaged, put right or removed; one that is as it was is not read again."""
    real, opened = files.read, list[str]()
    monkeypatch.setattr(files, "read", lambda path: opened.append(Path(path).parent.name) or real(path))
    monkeypatch.setattr(files, "SETTLED_S", -3600.0)
    reader = Reader(tmp_path)
    assert reader.trials() == []
    one, other = (Trial(spec=spec, data_digest="d", status="completed") for spec in OTHERS[:2])
    path = store.folder(tmp_path, one.identity) / "record.json"
    for change, read in (
        (lambda: store.save(tmp_path, one), 1),
        (lambda: store.save(tmp_path, other), 1),
        (lambda: store.save(tmp_path, one.model_copy(update={"message": "again"})), 1),
        (lambda: path.write_bytes(b"{"), 1),
        (lambda: store.save(tmp_path, one), 1),
        (path.unlink, 0),
    ):
        change()
        for expected in (read, 0):  # and once more while nothing changes
            opened.clear()
            found = reader.trials()
            assert len(opened) == expected
            assert found == store.load(tmp_path)[0]
    store.save(tmp_path, one)
    monkeypatch.setattr(files, "SETTLED_S", 3600.0)  # so young that its times may hide a change
    reader.trials()
    opened.clear()
    reader.trials()
    assert sorted(opened) == sorted([one.identity, other.identity])


def other_claims(path: Path) -> None:
    text = files.unsealed(path.read_bytes()).decode()
    path.write_bytes(files.sealed(text.replace('"parameters"', '"weighted-layers"')))


def no_file(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-30]), "empty": lambda path: path.write_bytes(b""),
    "another claim's": other_claims, "a folder": no_file, "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}  # fmt: skip


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    """A registry of two claims that are computed, both run in the store ``runs``."""
    claims = claims_in(tmp_path / "claims", *TWO)
    assert again(tmp_path).exit_code == 0
    return claims


def again(tmp_path: Path) -> Any:
    """Run both claims."""
    return repro("run", "all", "--claims", tmp_path / "claims", "--store", tmp_path / "runs", "--device", "cpu")


PLAN, BANDS = "plans/parameters.static.json", "bands/parameters.json"


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", [PLAN, BANDS])
def test_a_damaged_plan_stops_its_claim_and_says_what_to_do(tmp_path: Path, claims: Path, name: str, kind: str) -> None:
    """Nothing is lost, the other claim is run, and the command that the line names lets the same run go on."""
    runs = tmp_path / "runs"
    before, path = store.load(runs), runs / name
    other = next(path for path in runs.rglob("record.json") if b'"recorded"' in path.read_bytes())
    other.unlink()  # so that there is something to run
    DAMAGE[kind](path)
    damaged = path.read_bytes() if path.is_file() else None
    found = again(tmp_path)
    assert found.exit_code == 3
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"repro: failed: parameters: {path}: not a usable ")
    assert [t.identity for t in store.load(runs)[0]] == [t.identity for t in before[0]]
    assert damaged == (path.read_bytes() if path.is_file() else None)
    assert subprocess.run(shlex.split(line.rpartition(": ")[2]), check=False).returncode == 0
    aside = path.with_name(f"{path.name}.bad")
    assert damaged == (aside.read_bytes() if aside.is_file() else None)
    assert os.path.lexists(aside)
    assert again(tmp_path).exit_code == 0
    assert path.is_file()


@pytest.mark.parametrize("name", [PLAN, BANDS])
def test_a_plan_that_may_not_be_read_is_told(
    tmp_path: Path, claims: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The line names the command that allows it; permissions do not bind root, so the refusal is played."""
    path, real = tmp_path / "runs" / name, files.read

    def read(at: Path | str) -> bytes:
        if Path(at) == path and not path.stat().st_mode & 0o400:
            raise PermissionError(13, "Permission denied", str(at))
        return real(at)

    monkeypatch.setattr(files, "read", read)
    before = path.read_bytes()
    path.chmod(0)
    found = again(tmp_path)
    assert found.exit_code == 3
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"repro: failed: parameters: {path}: ")
    assert subprocess.run(shlex.split(line.rpartition(": ")[2]), check=False).returncode == 0
    assert path.read_bytes() == before
    assert again(tmp_path).exit_code == 0


def test_a_damaged_record_of_bands_costs_no_look(tmp_path: Path, claims: Path) -> None:
    """What cannot be run is not counted as asked for: a look costs alpha."""
    plan = tmp_path / "runs" / PLAN
    plan.unlink()
    (tmp_path / "runs" / BANDS).write_text("{")
    assert again(tmp_path).exit_code == 3
    assert not plan.exists()


@pytest.mark.parametrize("name", [PLAN, BANDS])
@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_ends_the_command_and_tells_what_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, first: bool
) -> None:
    """At the first claim a wrong use, later a failure beside the verdicts; with room the same command goes on."""
    ids = ("parameters", "weighted-layers") if first else (*TWO, "conv-parameter-share")
    claims, runs = claims_in(tmp_path / "claims", *ids), tmp_path / "runs"
    order = list(registry.load_registry(claims))
    name = name.replace("parameters", order[not first])
    real = files.write_atomically

    def write(path: Path, content: bytes) -> None:
        if path == runs / name:
            raise StoreError(f"cannot write {path}: No space left on device; nothing finished was lost")
        real(path, content)

    with monkeypatch.context() as full:
        full.setattr(files, "write_atomically", write)
        found = again(tmp_path)
    assert f"cannot write {runs / name}: No space left on device" in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert found.exit_code == (2 if first else 3)
    if not first:
        assert "; it and 1 more were not begun" in found.stderr
        assert f"{order[0]}" in found.stdout.splitlines()[0]
        assert found.stdout.splitlines()[-1].startswith("2 run: ")
    assert again(tmp_path).exit_code in (0, 1)


FAILED = "repro: failed: dropout-overfitting: without, scoring, seed 0: RuntimeError: fell over"
SAVED = "repro: interrupted; every training saved its state; run the same command again to continue"


class Dying:
    """In place of the processes of a machine: the first trial is run, and with the next the process dies."""

    def __init__(self, *_: Any, **_more: Any) -> None:
        self.begun = 0

    def __enter__(self) -> "Dying":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, _run: Any, task: Task, seen: Trial | None) -> Future[Outcome]:
        self.begun += 1
        future = Future[Outcome]()
        if self.begun == 1:
            future.set_result(attempt.attempt(task, Nothing(), Monitor(), seen))
        else:
            future.set_exception(BrokenProcessPool())
        return future


@pytest.mark.parametrize(
    ("what", "code", "last"),
    [
        ("Ctrl-C", 130, SAVED),
        ("a full disk", 3, "repro: failed: dropout-overfitting: no room"),
        ("a full disk and Ctrl-C", 130, "repro: interrupted"),
        ("a rank is lost", 3, "repro: rank 1 is gone"),
        ("a process dies", 3, "repro: failed: dropout-overfitting: a worker died, probably for want of memory"),
    ],
)
def test_a_trial_that_failed_is_told_at_once_and_whatever_becomes_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, code: int, last: str
) -> None:
    """The failure is on stderr while the next trial of the same condition runs; then that one ends the run."""
    begun: list[str] = []

    def measured(task: Task, _data: object, monitor: Monitor) -> Trial:
        so_far: Any = sys.stderr.buffer
        begun.append(so_far.getvalue().decode())
        if len(begun) == 1:
            raise RuntimeError("fell over")
        if "Ctrl-C" in what:
            os.kill(os.getpid(), signal.SIGINT)
            while not monitor.stopping():
                time.sleep(0.01)
        if "a full disk" in what:
            raise StoreError("no room")
        if what == "a rank is lost":
            raise runner.Lost("rank 1 is gone")
        raise Interrupted

    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(measure, "load", lambda *_: Nothing())
    monkeypatch.setattr(workers, "ProcessPoolExecutor", Dying)
    claims = claims_in(tmp_path / "claims", "dropout-overfitting")
    jobs = ("--jobs", 2) if what == "a process dies" else ()
    found = repro(
        "run", "claim", "dropout-overfitting", "--condition", "smoke", "--claims", claims, "--store",
        tmp_path / "runs", "--device", "cpu", *jobs,
    )  # fmt: skip
    first, *rest = found.stderr.splitlines()
    assert first == FAILED
    assert rest[-1].startswith(last)
    assert found.exit_code == code
    assert len(rest) == (2 if what == "a full disk and Ctrl-C" else 1)
    assert begun == (["", f"{FAILED}\n"] if not jobs else [""])
    assert {trial.status for trial in store.load(tmp_path / "runs")[0]} == {"failed"}


@pytest.mark.parametrize("ending", ["Ctrl-C", "a full disk and Ctrl-C"])
def test_after_a_stop_no_other_claim_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: list[TrialSpec], ending: str
) -> None:
    """Nor where the trial under way could not save its state; what failed to begin before is told all the same."""
    real, prepare = measure.measure, runner.prepare

    def measured(task: Task, data: Any, monitor: Monitor) -> Trial:
        real(task, data, monitor)
        os.kill(os.getpid(), signal.SIGINT)
        while not monitor.stopping():
            time.sleep(0.01)
        raise StoreError("no room") if "disk" in ending else Interrupted

    def missing(experiment: str, *rest: Any, **more: Any) -> Any:
        if experiment == "count":
            raise runner.DataError("no data")
        return prepare(experiment, *rest, **more)

    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(runner, "prepare", missing)
    ids = ("parameters", "dropout-overfitting", "lrn-error")
    there = ("--claims", claims_in(tmp_path / "claims", *ids), "--store", tmp_path / "runs", "--device", "cpu")
    found = repro("run", "claim", *ids, *there)
    assert found.exit_code == 130
    assert found.stderr.splitlines()[0] == "repro: failed: parameters: no data"
    assert found.stderr.splitlines()[-1] == ("repro: interrupted" if "disk" in ending else SAVED)
    assert len(quick) == 1


def test_a_failure_takes_its_bar_away_and_stands_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two trials under way; where bars and errors share a screen, the line goes through what draws the bars."""
    planned = [Planned(arm, OTHERS[number], "scoring", 5.0) for number, arm in enumerate(("one", "other"))]
    for one_screen in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda here=one_screen: here)
        screen = io.StringIO()
        told = progress.Progress(Console(file=screen, force_terminal=True, markup=False, highlight=False, width=40))
        with told.bars("a: "):
            for one in planned:
                told.started(one)
            told.failed(planned[0], "fell over, which takes more words than fit in a line")
            assert [bar.description for bar in told.shown.tasks] == ["other scoring seed 1 rate 0.5"]
        line = "repro: failed: a: one, scoring, seed 0: fell over, which takes more words than fit in a line\n"
        assert (line in screen.getvalue()) == one_screen
        assert capsys.readouterr().err == ("" if one_screen else line)
        assert told.failures == 1


@pytest.mark.parametrize(
    ("name", "value", "unit", "told"),
    [("epochs-to", 6.578, "epochs", "6.58 epochs"), ("top1-error-ten", 37.5, "%", "37.50%")],
)
def test_a_trial_that_ends_is_told_as_the_tables_have_it(name: str, value: float, unit: str, told: str) -> None:
    """Of what it measured, the number that it was run for, with its unit."""
    measured = (
        Measurement(name="epochs-trained", value=7.0, unit="epochs"),
        Measurement(name=name, value=value, unit=unit),
    )
    trial = Trial(
        spec=OTHERS[0], data_digest="d", status="completed", measurements=measured, environment={}, started="s",
        duration_s=3.0,
    )  # fmt: skip
    screen = io.StringIO()
    progress.Progress(Console(file=screen, width=80)).ended(Planned("one", OTHERS[0], "scoring", 5.0), trial)
    assert screen.getvalue().endswith(f": completed {told} (3 s)\n")
    found = {"measurements": {m.name: m.value for m in measured}, "status": "completed", "limit": None}
    assert tables.result(found) == told
    assert tables.result(found | {"measurements": {}, "status": "censored", "limit": 30.0}) == "> 30.00 epochs"


def test_what_failed_before_is_told_where_a_later_claim_cannot_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has no data; the next is then the first to be begun, and what is wrong with it is a wrong use."""
    claims = claims_in(tmp_path / "claims", *TWO)
    real = runner.together.refuse_unfit

    def refuse(experiment: str, *rest: Any) -> None:
        if experiment == "recorded":
            raise runner.together.Unfit("not in passes")
        real(experiment, *rest)

    def prepare(*_: Any, **_more: Any) -> Any:
        raise runner.DataError("no data")

    monkeypatch.setattr(runner.together, "refuse_unfit", refuse)
    monkeypatch.setattr(runner, "prepare", prepare)
    found = repro("run", "claim", "parameters", "initial-weights", "--claims", claims, "--store", tmp_path / "runs")
    assert found.exit_code == 2
    assert found.stderr.splitlines() == ["repro: failed: parameters: no data", "repro: not in passes"]


def test_a_claim_that_cannot_be_run_as_asked_takes_no_verdict_from_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first of several it is a wrong use; behind one that was run it is not tested, and the rest goes on."""
    claims, real = claims_in(tmp_path / "claims", *TWO, "weighted-layers"), runner.together.refuse_unfit
    found = registry.load_registry(claims)
    unfit = next(id_ for id_, claim in found.items() if claim.experiment == "recorded")
    others = [id_ for id_ in found if id_ != unfit]
    asked: list[str] = []

    def refuse(experiment: str, *rest: Any) -> None:
        asked.append(experiment)
        if experiment == "recorded":
            raise runner.together.Unfit("--micro-batch: not in passes")
        real(experiment, *rest)

    monkeypatch.setattr(runner.together, "refuse_unfit", refuse)
    there = ("--claims", claims, "--store", tmp_path / "runs", "--device", "cpu")
    assert repro("run", "claim", unfit, *others, *there).exit_code == 2
    ran = repro("run", "claim", others[0], unfit, others[1], *there)
    assert ran.exit_code == 3
    assert f"{unfit} was not tested: skipped: --micro-batch: not in passes" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "2 run: 2 REPRODUCED; 1 not tested"
    asked.clear()
    assert repro("run", "claim", others[0], unfit, "--condition", "static", *there).exit_code == 2
    assert asked == ["count", "recorded"]  # both before anything is begun
    asked.clear()
    assert repro("run", "claim", others[0], "--condition", "static", *there).exit_code == 0
    assert asked == ["count"]


def test_an_option_that_fits_some_claims_only(tmp_path: Path, quick: list[TrialSpec]) -> None:
    """Of all claims those that train take it and each other one is a line and no miss; a named one is refused."""
    claims = claims_in(tmp_path / "claims", "lrn-error", "relu-speedup")
    told = "--micro-batch: epochs-to is not trained in passes; final-error, probe are"
    options = ("--claims", claims, "--store", tmp_path / "runs", "--micro-batch", "4", "--device", "cpu")
    all_ = repro("run", "all", "--scale", "smoke", *options)
    assert (all_.exit_code, all_.stderr) == (0, "")
    assert [spec.experiment for spec in quick] == ["final-error"] * 2  # with and without
    assert all_.stdout.count(f"relu-speedup was not tested: skipped: {told}\n") == 1
    named = repro("run", "claim", "lrn-error", "relu-speedup", "--condition", "smoke", *options)
    assert (named.exit_code, named.stderr) == (2, f"repro: {told}\n")
    assert len(quick) == 2  # nor was the one before it begun


@pytest.mark.parametrize("kind", ["trials", "plans", "bands"])
def test_a_folder_of_the_store_that_is_none_is_told(tmp_path: Path, claims: Path, kind: str) -> None:
    """A link is not followed, to read or to write, and a file in its place does not read as nothing tested."""
    runs, outside = tmp_path / "runs", tmp_path / "outside"
    (runs / kind).rename(outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    for make, words in ((lambda at: at.symlink_to(outside), "is a link"), (Path.touch, "is no folder")):
        make(runs / kind)
        for command in (["run", "all", "--device", "cpu"], ["report"], ["list"], ["judge"], ["plan"]):
            found = repro(*command, "--claims", claims, "--store", runs)
            told = f"{runs / kind} {words}"
            if kind == "bands" and command[0] in ("list", "plan"):
                continue  # neither looks at it
            assert told in found.stderr, command
            assert found.exit_code == 2 or (kind == "bands" and command[0] != "run"), command
        (runs / kind).unlink()
    assert before == {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}


def test_the_jobs_of_a_cluster_and_of_a_machine_are_refused_in_the_same_words() -> None:
    """Who shares a machine with other trials times their load."""
    command: Any = SimpleNamespace(cluster=object(), runner=runner)
    wanted: Any = SimpleNamespace(experiment="throughput")
    with pytest.raises(runner.together.Unfit, match=runner.SHARED):
        session._refuse_unfit(command, wanted, None)  # type: ignore[arg-type]


def test_ctrl_c_while_torch_is_read_leaves_at_once() -> None:
    """Whatever the code that is being imported does with an exception: here it swallows it and goes on."""
    script = """
import signal
import time
from repro.running.session import _leaving_at_once
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
try:
    with _leaving_at_once():
        print("reading", flush=True)
        time.sleep(60)
except BaseException:
    print("swallowed", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "reading\n"
        run.send_signal(signal.SIGINT)
        assert run.communicate(timeout=60) == ("", "repro: interrupted\n")
    assert run.returncode == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with session._leaving_at_once():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def begun(runs: Path) -> list[str]:
    """Return the conditions of which a store says that they were run."""
    return [condition for _, condition in notes.load_looks(runs)] if runs.exists() else []


@pytest.mark.parametrize(
    ("command", "long", "short"),
    [
        (("all", "--scale", "paper"), True, True),
        (("all", "--scale", "paper", "--budget", "1m"), False, False),
        (("all", "--scale", "paper", "--budget", "30m"), False, False),  # the default, but typed
        (("all", "--scale", "paper", "--budget", "35h"), False, True),
        (("all", "--budget", "1m"), False, False),
        (("claim", "relu-speedup", "--condition", "cifar10", "--budget", "1m"), True, False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_budget_that_is_typed_holds_for_a_scale(
    tmp_path: Path, quick: list[TrialSpec], command: tuple[str, ...], long: bool, short: bool
) -> None:
    """A scale is all conditions; with a budget those that fit, the others told with their time; a name is an order."""
    claims = claims_in(tmp_path / "claims", "relu-speedup")
    (tmp_path / "cifar-10-batches-py").mkdir()
    there = ("--claims", claims, "--store", tmp_path / "runs", "--data", tmp_path, "--device", "cpu")
    found = repro("run", *command, *there)
    ran = begun(tmp_path / "runs")
    assert ("cifar10" in ran) == long
    assert ("cifar10-19pct" in ran) == short
    assert bool(quick) == bool(ran)
    over = "cifar10: up to 40.4 h on this cpu (550 images/s, assumed), over --budget"
    left_out = "--budget" in command and not long
    assert found.stdout.count(f"relu-speedup was not tested: {over}") + found.stdout.count(f"nothing fits; {over}") == (
        int(left_out)
    )


def test_what_was_run_instead_of_the_headline_is_told_with_how_to_run_it(
    tmp_path: Path, quick: list[TrialSpec]
) -> None:
    """In one line; where the headline itself was run, also as no more than a smoke test, there is none."""
    claims = claims_in(tmp_path / "claims", "relu-speedup")
    (tmp_path / "cifar-10-batches-py").mkdir()
    there = ("--store", tmp_path / "runs", "--data", tmp_path, "--device", "cpu")
    found = repro("run", "claim", "relu-speedup", "--claims", claims, *there)
    assert begun(tmp_path / "runs") == ["smoke"]
    told = (
        "relu-speedup: its headline cifar10 was not run: up to 40.4 h on this cpu (550 images/s, assumed), "
        "over --budget 30m; `--condition cifar10` runs it all the same"
    )
    assert found.stdout.splitlines()[-2:] == [told, "1 run: 1 SMOKE_OK"]
    assert found.exit_code == 3
    repro("new", "mine", "--claims", tmp_path / "own")
    alone = repro("run", "claim", "mine", "--claims", tmp_path / "own", *there)
    assert alone.exit_code == 0
    assert alone.stdout.splitlines()[-1] == "1 run: 1 SMOKE_OK"
    assert [line for line in alone.stdout.splitlines() if line.startswith("mine")] == [
        "mine: condition smoke on cpu (the headline)"
    ]


def test_of_several_claims_each_table_says_whose_it_is(tmp_path: Path) -> None:
    """By a line above it; the one table of one claim needs none."""
    claims = claims_in(tmp_path / "claims", *TWO)
    there = ("--claims", claims, "--store", tmp_path / "runs", "--device", "cpu")
    lines = [line.strip() for line in repro("run", "all", *there).stdout.splitlines()]
    for claim in registry.load_registry(claims).values():
        at = lines.index(f"{claim.id}: condition {claim.headline}")
        assert next(line for line in lines[at + 1 :] if line).startswith("condition")
    one = repro("run", "claim", TWO[0], *there).stdout.splitlines()
    assert not any(line.startswith(f"{TWO[0]}: condition") and "(" not in line for line in one)
