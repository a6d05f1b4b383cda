import json
import subprocess
import sys

import pytest

from repro import files, notes, store
from repro.experiments import epochs_to
from repro.files import StoreError
from repro.folders import default_claims
from repro.registry import load_claim
from repro.store import Measurement, Trial, TrialSpec

CIFAR10 = "md5:c58f30108f718f92721af3b95e74349a"

# Evidence lies under these names: they change only with a raised NUMERICS, and then all of them.
GOLDEN = {
    ("cifar10-19pct", "relu", 0.002): "1c2dbc379b0ea399",
    ("cifar10-modern-19pct", "tanh", 0.02): "04d58a5fb5af1a5f",
    ("cifar10", "relu", 0.002): "1c90d87b701b02a3",
}


@pytest.fixture
def trial():
    return Trial(
        spec=TrialSpec(experiment="epochs-to", numerics=1, config={"net": "19pct", "rate": 0.02}, seed=3),
        data_digest="md5:0", status="completed",
        measurements=(Measurement(name="epochs-to", value=7.5, unit="epochs"),),
    )  # fmt: skip


@pytest.fixture
def root(tmp_path, trial):
    store.save(tmp_path, trial)
    return tmp_path


def _record(root, trial):
    return store.folder(root, trial.identity) / "record.json"


@pytest.mark.parametrize(("condition", "arm", "rate"), GOLDEN)
def test_identities_stay_what_they_are(condition, arm, rate):
    """Three trials of the paper's claim have the identities that their records were published under."""
    claim = load_claim(default_claims() / "relu-speedup.toml")
    spec = epochs_to.spec(claim.conditions[condition].arms[arm], 0, rate)
    assert spec.identity(CIFAR10) == GOLDEN[condition, arm, rate]


def test_defaults_stay_what_they_are():
    """Defaults are left out of an identity, so one may change only together with NUMERICS."""
    defaults = {
        name: field.default
        for name, field in epochs_to.Parameters.model_fields.items()
        if not field.is_required() and name not in epochs_to.NOT_DECISIVE
    }
    assert epochs_to.NUMERICS == 1
    assert defaults == {"target": 0.25, "batch": 128, "checks_per_epoch": 10, "precision": "fp32"}


def test_an_identity_holds_only_what_decides(trial):
    """Spec and data make the identity; outcome, message and environment do not."""
    other = trial.model_copy(update={"status": "failed", "message": "x", "environment": {"cpu": "y"}})
    assert other.identity == trial.identity
    assert trial.model_copy(update={"data_digest": "md5:1"}).identity != trial.identity


def test_a_changed_copy_has_a_digest_of_its_own(trial):
    """Key and identity are worked out once for a value, and afresh for what is copied from it."""
    key, identity = trial.spec.key, trial.identity
    for deep in (False, True):
        other = trial.spec.model_copy(update={"seed": 4}, deep=deep)
        assert other.key == TrialSpec(**{**trial.spec.model_dump(), "seed": 4}).key != key
        assert trial.model_copy(update={"spec": other}, deep=deep).identity != identity
        assert trial.model_copy(update={"data_digest": "md5:1"}, deep=deep).identity != identity
    fresh = TrialSpec(**trial.spec.model_dump())
    assert fresh == trial.spec  # one has worked out its key, the other has not


def test_a_record_comes_back_as_it_was(root, trial):
    """What was saved is what is loaded, without a complaint."""
    assert store.load(root) == ([trial], [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda _content: b"",
        lambda _content: b"[]",
        lambda _content: b"\xff\xfe",
        lambda content: content.replace(b"7.5", b"NaN"),
        lambda content: content.replace(b"7.5", b'"7.5"'),
        lambda content: content.replace(b'"seed": 3', b'"seed": 4'),
        lambda content: content.replace(b'"seed": 3', b'"seed": 3, "sed": 4'),
        lambda content: content.replace(b"0.02", b"NaN"),
        lambda content: content.replace(b"19pct", b"\\ud800"),
        lambda content: content.replace(b'"schema": 1', b'"schema": 2'),
        lambda _content: b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_told_and_not_used(root, trial, damage):
    """Torn, edited, foreign or newer records are each one line that names the file; none is used or crashes."""
    path = _record(root, trial)
    content = files.unsealed(path.read_bytes())  # without a sum, which would tell them all
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    trials, problems = store.load(root)
    assert trials == []
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}: ")
    assert "\n" not in problems[0]


def test_a_newer_record_is_not_thrown_away(root, trial):
    """A record of a later schema is told by its number, and nobody is advised to remove it."""
    path = _record(root, trial)
    path.write_text(json.dumps({"schema": 2, "shape": "new"}))
    problem = store.load(root)[1][0]
    assert "schema 2" in problem
    assert "remove" not in problem


def test_a_copied_record_is_told(root, trial):
    """A record counts only in the folder that its content names."""
    _record(root, trial).parent.rename(root / "trials" / "0123456789abcdef")
    assert "edited or copied" in store.load(root)[1][0]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    """Where the new content cannot be put in place, the old stays whole, nothing else lies about, and it is told."""
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", lambda _fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match=r"cannot write .*file: No space left on device"):
        files.write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_store_below_a_file_is_told(tmp_path, trial):
    """A store that cannot be made is one StoreError, for records and for locks."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"):
        store.save(tmp_path / "file", trial)
    with pytest.raises(StoreError, match="cannot write"), store.locked(tmp_path / "file", trial.identity):
        pass


def test_looks_count_new_seeds_only(tmp_path):
    """A part of what was planned before is no new look; more seeds are."""
    for seeds in ((0, 1, 2), (0, 1), (0, 1, 2, 3), (2,)):
        notes.add_look(tmp_path, "claim", "condition", seeds)
    assert notes.load_looks(tmp_path) == {("claim", "condition"): ((0, 1, 2), (0, 1, 2, 3))}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"claim": "a"}', '{"claim":"other","condition":"b","looks":[[0]]}',
                '{"claim":"a","condition":"b","looks":[[]]}']
)  # fmt: skip
def test_a_damaged_plan_is_refused(tmp_path, content):
    """Looks decide how strict a verdict is, so a torn or foreign plan is none, and is told by its name."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "a.b.json").write_text(content)
    with pytest.raises(StoreError, match=r"plans/a\.b\.json: .*put a copy back"):
        notes.load_looks(tmp_path)
    plans = notes.load_plans(tmp_path)
    assert (plans.looks, list(plans.unusable)) == ({}, [("a", "b")])


def test_a_newer_plan_is_refused_by_its_number(tmp_path):
    """A plan of a later schema may mean something else by the same keys."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "a.b.json").write_text('{"schema":2,"claim":"a","condition":"b","looks":[[0]]}')
    with pytest.raises(StoreError, match=r"a\.b\.json: plan schema 2, this version reads 1"):
        notes.load_looks(tmp_path)


def test_a_curve_comes_back_and_a_torn_one_is_told(root, trial):
    """A curve is read as written, a missing one is empty, a damaged one names its file."""
    assert store.load_curve(root, trial.identity) == []
    rows = [{"epochs": 0.1, "error": 0.9}, {"epochs": 0.2, "error": 0.8}]
    store.save_curve(root, trial.identity, rows)
    assert store.load_curve(root, trial.identity) == rows
    path = store.folder(root, trial.identity) / "curve.csv"
    path.write_text("epochs,error\n0.1,x\n")
    with pytest.raises(StoreError, match=r"curve\.csv"):
        store.load_curve(root, trial.identity)


def test_the_evidence_digest_follows_content_and_not_checkpoints(root, trial):
    """Any changed record or plan changes the digest; a checkpoint or a lock does not."""
    before = store.evidence_digest(root)
    (_record(root, trial).parent / "checkpoint.pt").write_bytes(b"x")
    assert store.evidence_digest(root) == before
    notes.add_look(root, "claim", "condition", (0,))
    seen = {before, store.evidence_digest(root)}
    for name in store.RESULTS:  # a report follows from each: the images missed, too
        (_record(root, trial).parent / name).write_bytes(b"x")
        seen.add(store.evidence_digest(root))
    assert len(seen) == 2 + len(store.RESULTS)


def test_looks_asked_for_at_once_are_all_kept(tmp_path):
    """Processes that note a look at the same time do not forget each other's."""
    script = (
        "import sys; from pathlib import Path; from repro.notes import add_look\n"
        "for seed in range(40): add_look(Path(sys.argv[1]), 'claim', 'smoke', (int(sys.argv[2]) * 100 + seed,))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(number)]) for number in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    looks = notes.load_looks(tmp_path)["claim", "smoke"]
    assert sorted(looks) == [(number * 100 + seed,) for number in range(3) for seed in range(40)]


def test_a_lock_is_held_by_one_process_and_freed_with_it(tmp_path):
    """Another process sees the trial as taken, and may take it when the first is gone."""
    script = (
        "import sys; from pathlib import Path; from repro.store import locked\n"
        "with locked(Path(sys.argv[1]), 'id') as ours: print(ours)"
    )

    def other() -> str:
        return subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
        ).stdout.strip()

    with store.locked(tmp_path, "id") as ours:
        assert ours
        assert other() == "False"
    assert other() == "True"
