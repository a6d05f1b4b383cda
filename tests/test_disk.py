"""Disks that are full, read-only or give back other bits: what is whole stays, what is not is told and set aside."""

import errno
import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import crash
import pytest
import torch
from click.testing import CliRunner

from repro import files, measure, notes, store
from repro.cli import main
from repro.experiments import final_error
from repro.files import StoreError
from repro.measure import Monitor, Setting, Task
from repro.running import attempt
from repro.store import Measurement, Trial, TrialSpec
from repro.training import checkpoint
from repro.training.loop import Interrupted

CPU = torch.device("cpu")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 32 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def trained(at: Path, looks: int | None = None) -> Trial:
    """Run a small training in the store ``at``; ask it to stop after ``looks`` steps."""
    p = final_error.Parameters(**crash.SMALL, epochs=1.0)
    left = iter([False] * (looks if looks is not None else 1000))
    task = Task(final_error.spec(p, 0), "scoring", 1.0, Setting(at, CPU))
    return measure.measure(task, crash.pictures(), Monitor(stopping=lambda: next(left, True)))


def test_a_file_that_cannot_grow_is_told_and_the_same_command_goes_on(tmp_path: Path, one_thread: None) -> None:
    """Out of room for a checkpoint, a trial says so and keeps what was whole; with room, it ends as ever."""
    trained(tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(tmp_path / "parts", looks=2)
    before = {path: path.read_bytes() for path in (tmp_path / "parts").rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot write .*checkpoint\.pt.*: File too large; nothing finished was"):
            trained(tmp_path / "parts", looks=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = {path: path.read_bytes() for path in (tmp_path / "parts").rglob("*") if path.is_file()}
    assert {path.name for path in after} == {path.name for path in before}
    assert all(after[path] == before[path] for path in after if path.name != "record.json")
    trained(tmp_path / "parts")
    assert crash.outcome(tmp_path / "parts") == crash.outcome(tmp_path / "whole")


def test_a_full_disk_is_told_and_keeps_what_is_finished(disk: Path, tmp_path: Path, one_thread: None) -> None:
    """The trial under way ends the command with a line; records stay, nothing half lies about; room lets it go on."""
    done = Trial(spec=TrialSpec(experiment="count", numerics=1, config={}, seed=0), data_digest="d", status="completed")
    store.save(disk, done)
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * (shutil.disk_usage(disk).free - 100_000))
    with pytest.raises(StoreError, match=r"cannot write .*: No space left on device; nothing finished was lost"):
        trained(disk)
    trials, problems = store.load(disk)
    assert (done in trials, problems) == (True, [])
    assert list(disk.rglob("*.part")) == []
    ballast.unlink()
    trained(tmp_path / "whole")
    whole = store.load(tmp_path / "whole")[0][0]
    assert trained(disk).measurements == whole.measurements


def test_a_read_only_store_is_told(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running needs to write and says so in a line with exit code 2 or 3; listing and reporting need not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk / "cache"))
    (disk / "runs").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for command, codes in ((["run", "claim", "parameters"], (2, 3)), (["list"], (0,)), (["report", "--json"], (0,))):
        result = CliRunner().invoke(main, [*command, "--store", str(disk / "runs")])
        assert result.exit_code in codes, result.output
        assert isinstance(result.exception, SystemExit | None)
        if command[0] == "run":
            assert "Read-only file system" in result.stderr
            assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root; the test above mounts a read-only disk")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    """A store that may not be written is one line that names the path."""
    tmp_path.chmod(0o555)
    result = CliRunner().invoke(main, ["run", "claim", "parameters", "--store", str(tmp_path / "runs")])
    tmp_path.chmod(0o755)
    assert result.exit_code in (2, 3)
    assert "Permission denied" in result.stderr


TRIAL = Trial(
    spec=TrialSpec(experiment="epochs-to", numerics=1, config={"net": "19pct", "rate": 0.02}, seed=3),
    data_digest="md5:0", status="completed", measurements=(Measurement(name="epochs-to", value=7.5, unit="epochs"),),
)  # fmt: skip


def test_any_flipped_bit_of_a_record_is_told(tmp_path: Path) -> None:
    """Of the records that differ in one bit, two of every byte, none is used with another content."""
    store.save(tmp_path, TRIAL)
    path = store.folder(tmp_path, TRIAL.identity) / "record.json"
    content = path.read_bytes()
    refused = 0
    for at in range(len(content)):
        for bit in (at % 8, (at + 3) % 8):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            trials, problems = store.load(tmp_path)
            assert trials in ([], [TRIAL]), (at, bit)
            assert len(problems) == 1 - len(trials)
            assert not problems or problems[0].startswith(f"{path}: ")
            refused += len(problems)
    assert refused > 2 * (len(content) - 2)  # but for the blank that ends the file


def test_a_record_cut_anywhere_is_told(tmp_path: Path) -> None:
    """Of all beginnings of a record, only the whole one counts, with or without its last line end."""
    store.save(tmp_path, TRIAL)
    path = store.folder(tmp_path, TRIAL.identity) / "record.json"
    content = path.read_bytes()
    for length in range(len(content) - 1):
        path.write_bytes(content[:length])
        assert store.load(tmp_path)[0] == [], length


def test_a_plan_with_a_flipped_digit_is_refused(tmp_path: Path) -> None:
    """Seeds decide how strict a verdict is; one that was not written is not taken for one that was."""
    notes.add_look(tmp_path, "claim", "smoke", (0, 1))
    path = tmp_path / "plans" / "claim.smoke.json"
    path.write_bytes(path.read_bytes().replace(b"[0,1]", b"[0,9]"))
    with pytest.raises(StoreError, match=r"claim\.smoke\.json: not a usable plan \(its sum is not"):
        notes.load_looks(tmp_path)


def test_a_record_from_before_there_were_sums_is_read(tmp_path: Path) -> None:
    """Committed evidence without a sum counts as it did."""
    path = store.folder(tmp_path, TRIAL.identity) / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(TRIAL.model_dump_json(indent=1, by_alias=True))
    assert store.load(tmp_path) == ([TRIAL], [])


def test_a_damaged_record_is_set_aside_by_the_run_that_needs_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept as record.json.bad, that is told, and the trial is run again."""
    store.save(tmp_path, TRIAL)
    path = store.folder(tmp_path, TRIAL.identity) / "record.json"
    damaged = path.read_bytes().replace(b"7.5", b"7.4")
    path.write_bytes(damaged)
    data = type("Data", (), {"digest": "md5:0"})()

    def again(task: Task, _data: object, _monitor: Monitor) -> Trial:
        store.save(task.setting.store, TRIAL)
        return TRIAL

    monkeypatch.setattr(measure, "measure", again)
    with caplog.at_level(logging.WARNING):
        assert attempt.attempt(Task(TRIAL.spec, "scoring", 1.0, Setting(tmp_path, CPU)), data, Monitor(), None) == TRIAL
    assert store.load(tmp_path) == ([TRIAL], [])
    assert path.with_name("record.json.bad").read_bytes() == damaged
    assert "set aside as record.json.bad" in caplog.text


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_a_record_that_cannot_be_read_now_keeps_its_place(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be whole: a run that needs it fails with one line, and trains nothing over it."""
    store.save(tmp_path, TRIAL)
    path = store.folder(tmp_path, TRIAL.identity) / "record.json"
    found = path.read_bytes()

    def read(*_: object) -> bytes:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "read", read)
    with pytest.raises(StoreError, match=rf"record\.json: the record cannot be read \({os.strerror(code)}\)"):
        store.recall(tmp_path, TRIAL.identity)
    (problem,) = store.load(tmp_path)[1]
    assert "remove" not in problem
    assert path.read_bytes() == found


def test_a_record_of_a_later_version_keeps_its_place(tmp_path: Path) -> None:
    """Whoever made it trained for it: nothing is run over it. With a sum that it does not fit it is damaged."""
    store.save(tmp_path, TRIAL)
    path = store.folder(tmp_path, TRIAL.identity) / "record.json"
    whole = files.unsealed(path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b'"schema": 1', b'"schema": 2'))
    assert store.recall(tmp_path, TRIAL.identity) is None
    path.with_name("record.json.bad").unlink()
    path.write_bytes(found := files.sealed(whole.decode().replace('"schema": 1', '"schema": 2')))
    task = Task(TRIAL.spec, "scoring", 1.0, Setting(tmp_path, CPU))
    data = type("Data", (), {"digest": TRIAL.data_digest})()
    with pytest.raises(StoreError, match=r"record\.json: record schema 2, this version reads 1; use that version"):
        attempt.attempt(task, data, Monitor(), None)
    assert [place.name for place in sorted(path.parent.iterdir())] == ["lock", "record.json"]
    assert path.read_bytes() == found


def saved(tmp_path: Path) -> Path:
    """Return the place of a checkpoint of step 2, with that of step 1 kept."""
    path = tmp_path / "checkpoint.pt"
    for step in (1, 2):
        checkpoint.save(path, {"weight": torch.full((64,), float(step)), "step": step})
    return path


def test_any_flipped_bit_of_a_checkpoint_is_told_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every bit of the first line, and 300 drawn from the rest."""
    path = saved(tmp_path)
    content = path.read_bytes()
    rng = random.Random(0)
    bits = [*range(8 * (len(checkpoint.MAGIC) + 65)), *(rng.randrange(8 * len(content)) for _ in range(300))]
    for number in bits:
        at, bit = divmod(number, 8)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        state = checkpoint.load(path, CPU)
        assert state is not None
        if state["step"] == 2:
            assert at == len(checkpoint.MAGIC) + 64  # the end of the line, which nothing follows from
            continue
        assert not path.exists()
        path.with_name("checkpoint.pt.bad").unlink()
    assert "its sum is not that of its content; it was set aside as checkpoint.pt.bad" in caplog.text


def test_two_damaged_checkpoints_are_both_kept(tmp_path: Path) -> None:
    """Where both are damaged the trial starts afresh, and nothing that was set aside is written over."""
    path = saved(tmp_path)
    path.write_bytes(b"one")
    checkpoint.previous(path).write_bytes(b"two")
    assert checkpoint.load(path, CPU) is None
    path.write_bytes(b"three")
    assert checkpoint.load(path, CPU) is None
    kept = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert kept == {
        "checkpoint.pt.bad": b"one", "checkpoint.pt.previous.bad": b"two", "checkpoint.pt.bad.2": b"three"
    }  # fmt: skip


def test_at_every_moment_of_a_save_one_checkpoint_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before any of its moves, a save leaves the new state or the one before."""
    for stop in range(4):
        path = saved(tmp_path / str(stop))
        moves = iter(range(10))
        real = Path.replace

        def replace(
            self: Path, target: Path, real: object = real, moves: Iterator[int] = moves, stop: int = stop
        ) -> object:
            if next(moves) == stop:
                raise KeyboardInterrupt
            return real(self, target)  # type: ignore[operator]

        monkeypatch.setattr(Path, "replace", replace)
        if stop < 3:
            with pytest.raises(KeyboardInterrupt):
                checkpoint.save(path, {"step": 3})
        else:
            checkpoint.save(path, {"step": 3})
        monkeypatch.setattr(Path, "replace", real)
        state = checkpoint.load(path, CPU)
        assert state is not None
        assert state["step"] == (2 if stop == 0 else 3)


def test_a_checkpoint_without_a_sum_is_not_used(tmp_path: Path) -> None:
    """Nobody could tell whether what torch alone wrote is what was saved: it is kept, and the trial starts afresh."""
    path = tmp_path / "checkpoint.pt"
    torch.save({"step": 5}, path)
    assert checkpoint.load(path, CPU) is None
    assert [kept.name for kept in tmp_path.iterdir()] == ["checkpoint.pt.bad"]


@pytest.mark.parametrize(("cost", "wait"), [(0.1, 60.0), (1.2, 60.0), (3.0, 150.0)])
def test_checkpoints_take_at_most_a_fiftieth_of_the_time(cost: float, wait: float) -> None:
    """One that costs more than that comes less often."""
    assert checkpoint.pause(60.0, cost) == pytest.approx(wait)
    assert cost / checkpoint.pause(60.0, cost) <= checkpoint.SHARE
    assert checkpoint.pause(0.0, cost) == 0.0


def test_a_lock_of_a_dead_process_is_taken_over_and_its_halves_go(tmp_path: Path) -> None:
    """What was half-written by a process that was killed is removed by the next that holds the trial."""
    place = store.folder(tmp_path, "0123456789abcdef")
    script = (
        "import os, sys; from pathlib import Path; from repro import store\n"
        "with store.locked(Path(sys.argv[1]), '0123456789abcdef'):\n"
        "    store.folder(Path(sys.argv[1]), '0123456789abcdef').joinpath('.record.json.1.part').touch()\n"
        "    os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    assert (place / ".record.json.1.part").exists()
    with store.locked(tmp_path, "0123456789abcdef") as ours:
        assert ours
        assert [path.name for path in place.iterdir()] == ["lock"]


def test_a_sum_is_of_the_text(tmp_path: Path) -> None:
    """What is sealed is JSON with the sum beside the rest, and comes back as it was."""
    content = files.sealed('{\n "a": 1\n}')
    assert json.loads(content).keys() == {"a", "sum"}
    assert json.loads(files.unsealed(content)) == {"a": 1}
    with pytest.raises(ValueError, match="its sum is not"):
        files.unsealed(content.replace(b'"a": 1', b'"a": 2'))
