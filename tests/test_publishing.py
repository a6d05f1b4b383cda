import shutil

import pytest
from click.testing import CliRunner

from repro import folders, notes, publishing, registry, store
from repro.cli import main
from repro.files import StoreError
from repro.judging import bands
from repro.store import Measurement, Trial, TrialSpec


def _trial(seed=0, dataset="cifar10", status="completed", dirty=False):
    spec = TrialSpec(experiment="epochs-to", numerics=1, config={"dataset": dataset}, seed=seed)
    return Trial(spec=spec, data_digest="md5:0", status=status, environment={"dirty": dirty})


@pytest.mark.parametrize(
    ("trial", "why"),
    [
        (_trial(status="running"), "not finished"),
        (_trial(status="failed"), "not finished"),
        (_trial(dataset="embedded"), "synthetic pictures"),
        (_trial(dirty=True), "clean commit"),
        (_trial(dirty=None), "clean commit"),
    ],
)
def test_only_evidence_is_published(tmp_path, trial, why):
    """Unfinished trials, synthetic pictures and unclean code stay behind, and it is said why."""
    store.save(tmp_path / "runs", trial)
    copied, left_out = publishing.publish(tmp_path / "runs", tmp_path / "reports")
    assert copied == 0
    assert why in left_out[0]
    assert store.load(tmp_path / "reports") == ([], [])


def test_a_damaged_record_is_left_out_and_told(tmp_path):
    runs, bad = tmp_path / "runs", _trial(seed=1)
    for one in (_trial(), bad):
        store.save(runs, one)
    path = store.folder(runs, bad.identity) / "record.json"
    path.write_bytes(path.read_bytes()[:-40])
    copied, (told,) = publishing.publish(runs, tmp_path / "reports")
    assert (copied, told.startswith(f"{path}: ")) == (1, True)


def test_the_record_of_an_export_is_published_where_its_source_is_that_of_its_commit(tmp_path, monkeypatch):
    """It could not know whether it was changed; what is published does."""
    spec = TrialSpec(experiment="epochs-to", numerics=1, config={"dataset": "cifar10"}, seed=0)
    for seed, digest in enumerate(("that of the commit", "another")):
        environment = {"commit": "c" * 40, "dirty": None, "code_digest": digest}
        one = spec.model_copy(update={"seed": seed})
        store.save(tmp_path / "runs", Trial(spec=one, data_digest="d", status="completed", environment=environment))
    monkeypatch.setattr("repro.source.digest_at", {"c" * 40: "that of the commit"}.get)
    for _ in range(2):  # the second time it is there
        copied, left_out = publishing.publish(tmp_path / "runs", tmp_path / "reports")
        assert copied == 1
        assert [line.split(": ")[1] for line in left_out] == ["not from a clean commit"]
        assert [(t.spec.seed, t.environment["dirty"]) for t in store.load(tmp_path / "reports")[0]] == [(0, False)]


def test_records_and_curves_are_copied_without_checkpoints(tmp_path):
    """A fit trial arrives with its curve, and without checkpoint and lock."""
    trial = _trial()
    store.save(tmp_path / "runs", trial)
    store.save_curve(tmp_path / "runs", trial.identity, [{"epochs": 1.0}])
    (store.folder(tmp_path / "runs", trial.identity) / "checkpoint.pt").touch()
    assert publishing.publish(tmp_path / "runs", tmp_path / "reports") == (1, [])
    copied = store.folder(tmp_path / "reports", trial.identity)
    assert sorted(path.name for path in copied.iterdir()) == ["curve.csv", "record.json"]


def test_a_store_begun_from_an_older_copy_brings_no_old_band_back(tmp_path):
    """What was expected at first is not told again behind what was expected later."""
    store.save(tmp_path / "runs", _trial())
    for name, versions in (("runs", "A"), ("reports", "AB")):
        bands.add(tmp_path / name, "claim", [{"metric": band} for band in versions])
    publishing.publish(tmp_path / "runs", tmp_path / "reports")
    assert [version["metric"] for version in bands.load(tmp_path / "reports", "claim")] == ["A", "B"]


def test_looks_of_two_stores_add_up(tmp_path):
    """Publishing from a second store forgets neither the records nor the looks of the first."""
    for name, seeds in (("one", (0, 1)), ("two", (0, 1, 2))):
        store.save(tmp_path / name, _trial(seed=len(seeds)))
        notes.add_look(tmp_path / name, "claim", "condition", seeds)
    for name in ("two", "one", "two"):
        publishing.publish(tmp_path / name, tmp_path / "reports")
    assert len(store.load(tmp_path / "reports")[0]) == 2
    assert notes.load_looks(tmp_path / "reports") == {("claim", "condition"): ((0, 1, 2),)}


def test_an_empty_store_is_told(tmp_path):
    """There is nothing to publish where there are no records."""
    with pytest.raises(StoreError, match="no records here"):
        publishing.publish(tmp_path / "nowhere", tmp_path / "reports")


def test_which_images_were_missed_is_published(tmp_path):
    """What two networks are compared by, image by image, goes where the record goes; a checkpoint stays."""
    trial = _trial()
    store.save(tmp_path / "runs", trial)
    for name in ("missed.npz", "checkpoint.pt"):
        (store.folder(tmp_path / "runs", trial.identity) / name).write_bytes(b"bits")
    assert publishing.publish(tmp_path / "runs", tmp_path / "reports") == (1, [])
    published = store.folder(tmp_path / "reports", trial.identity)
    assert sorted(path.name for path in published.iterdir()) == ["missed.npz", "record.json"]


@pytest.mark.parametrize(("dataset", "pictures"), [("embedded", True), ("imagenette160", False)])
def test_pictures_of_a_data_set_stay_with_it(tmp_path, dataset, pictures):
    """What a probe saw is published; the pictures it saw only where they are synthetic."""
    spec = TrialSpec(experiment="probe", numerics=1, config={"dataset": dataset}, seed=0)
    trial = Trial(spec=spec, data_digest="md5:0", status="completed", environment={"dirty": False})
    store.save(tmp_path / "runs", trial)
    for name in ("looked.npz", "pictures.npz"):
        (store.folder(tmp_path / "runs", trial.identity) / name).write_bytes(b"arrays")
    assert publishing.publish(tmp_path / "runs", tmp_path / "reports") == (1, [])
    published = {path.name for path in store.folder(tmp_path / "reports", trial.identity).iterdir()}
    assert published == {"looked.npz", "record.json"} | ({"pictures.npz"} if pictures else set())


def _ran(root, *, device="cpu", found=6.0, status="completed", curve=(1.0, 2.0), dirty=False):
    """Put a finished run of one and the same trial into a store, and return its record."""
    values = {"epochs-to": found, "epochs-trained": curve[-1] if curve else 2.0}
    measurements = tuple(Measurement(name=name, value=value, unit="epochs") for name, value in values.items())
    made = _trial(status=status).model_copy(
        update={"environment": {"dirty": dirty, "device": device, "commit": "c" * 40}, "measurements": measurements}
    )
    store.save(root, made)
    store.save_curve(root, made.identity, [{"epochs": at, "loss": found} for at in curve])
    (store.folder(root, made.identity) / "missed.npz").write_bytes(device.encode())
    return made


def _content(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("found", "told"), [(6.5, "with other measurements"), (6.0, "with the same measurements")])
def test_another_run_of_what_is_published_is_left_out_and_told(tmp_path, found, told):
    """To the byte, whatever it found; with what has to be done to have it instead, which then works."""
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    _ran(reports)
    again = _ran(runs, device="a GPU", found=found)
    new = _trial(seed=1)
    store.save(runs, new)
    before = _content(reports)
    copied, (left_out,) = publishing.publish(runs, reports)
    assert copied == 1
    assert left_out.startswith(f"{again.identity}: another run of it is there and stays")
    assert "completed, on cpu, commit cccccccccc; this one: completed, on a GPU" in left_out
    assert told in left_out
    after = _content(reports)
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in after.keys() - before.keys()} == {new.identity}
    removal = left_out[left_out.index("rm -r ") :].split(" (")[0].split()
    assert removal == ["rm", "-r", str(store.folder(reports, again.identity))]
    for path in store.folder(reports, again.identity).iterdir():
        path.unlink()
    store.folder(reports, again.identity).rmdir()
    assert publishing.publish(runs, reports) == (2, [])
    assert again in store.load(reports)[0]


@pytest.mark.parametrize("name", ["README.md", "index.html"])
def test_somebody_elses_page_is_not_written_over(tmp_path, name):
    """--to names a folder of something else: nothing is copied there, and its page stands."""
    source, to = tmp_path / "runs", tmp_path / "thesis"
    assert CliRunner().invoke(main, ["run", "claim", "parameters", "--store", str(source)]).exit_code == 0
    to.mkdir()
    (to / name).write_text("my notes")
    found = CliRunner().invoke(main, ["publish", "--store", str(source), "--to", str(to)])
    assert (found.exit_code, (to / name).read_text()) == (2, "my notes")
    assert found.stderr.strip().endswith("choose another --to")
    assert [path.name for path in to.iterdir()] == [name]


def test_what_is_published_is_published_again_without_a_change(tmp_path):
    """From where it came, and from itself."""
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    made = _ran(runs)
    assert publishing.publish(runs, reports) == (1, [])
    before = _content(reports)
    store.save_curve(runs, made.identity, [{"epochs": 9.0, "loss": 9.0}])  # not of this record
    for source in (runs, reports):
        assert publishing.publish(source, reports) == (1, [])
        assert _content(reports) == before
    (store.folder(reports, made.identity) / "missed.npz").unlink()
    assert publishing.publish(runs, reports) == (1, [])
    assert _content(reports) == before  # what is lacking is added


def test_a_store_that_began_with_what_is_published_adds_to_it(tmp_path):
    """The way of reports/collect.sh: nothing is left out, and what was there stays what it was."""
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    _ran(reports)
    notes.add_look(reports, "claim", "condition", (0, 1))
    for folder in ("trials", "plans"):
        shutil.copytree(reports / folder, runs / folder)
    before = _content(reports)
    new = _trial(seed=1)
    store.save(runs, new)
    notes.add_look(runs, "claim", "condition", (0,))
    assert publishing.publish(runs, reports) == (2, [])
    after = _content(reports)
    assert {path: after[path] for path in before} == before
    assert {trial.identity for trial in store.load(reports)[0]} == {new.identity, _trial().identity}


@pytest.mark.parametrize("status", ["completed", "censored"])
def test_a_run_that_went_on_takes_the_place_of_its_beginning(tmp_path, status):
    """It is known by its curve; and the beginning does not come back."""
    runs, reports, early = tmp_path / "runs", tmp_path / "reports", tmp_path / "early"
    for root in (reports, early):
        _ran(root, status="censored")
    further = _ran(runs, status=status, curve=(1.0, 2.0, 3.0))
    assert publishing.publish(runs, reports) == (1, [])
    assert store.load(reports)[0] == [further]
    assert len(store.load_curve(reports, further.identity)) == 3
    copied, (left_out,) = publishing.publish(early, reports)
    assert (copied, store.load(reports)[0]) == (0, [further])
    assert "gone further" in left_out


@pytest.mark.parametrize("curve", [(1.5, 2.0, 3.0), (1.0,), ()])
def test_a_curve_of_its_own_is_another_run(tmp_path, curve):
    """Also where the first was censored: the seed has its result."""
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    first = _ran(reports, status="censored")
    _ran(runs, curve=curve)
    copied, (left_out,) = publishing.publish(runs, reports)
    assert (copied, store.load(reports)[0]) == (0, [first])
    assert "another run" in left_out


@pytest.mark.parametrize("status", ["running", "failed"])
def test_what_is_unfinished_there_is_no_evidence(tmp_path, status):
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    _ran(reports, status=status)
    finished = _ran(runs, found=6.5)
    assert publishing.publish(runs, reports) == (1, [])
    assert store.load(reports)[0] == [finished]


@pytest.mark.parametrize("content", [b"{}", b'{"schema": 99}'])
def test_a_record_that_cannot_be_used_there_stays_too(tmp_path, content):
    """It may be a later version's, and damage is mended from the history."""
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    made = _ran(runs)
    place = store.folder(reports, made.identity) / "record.json"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    copied, (left_out,) = publishing.publish(runs, reports)
    assert (copied, place.read_bytes()) == (0, content)
    assert "cannot be used" in left_out


def test_synthetic_timings_are_not_evidence(tmp_path):
    """A timing holds its arms, and each its data: what was timed on drawn pictures stays behind, too."""
    arms = {name: {"dataset": "embedded"} for name in ("two", "half")}
    spec = TrialSpec(experiment="throughput", numerics=1, config={"arms": arms}, seed=0)
    store.save(tmp_path / "runs", Trial(spec=spec, data_digest="d", status="completed", environment={"dirty": False}))
    copied, (left_out,) = publishing.publish(tmp_path / "runs", tmp_path / "reports")
    assert copied == 0
    assert "synthetic pictures" in left_out


def test_a_smoke_run_leaves_nothing_in_what_is_published(tmp_path):
    """Its records are no evidence, and a plan without records would say that they are missing; a probe's are shown."""
    claims = registry.load_registry(folders.default_claims())
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    store.save(runs, _trial(dataset="embedded"))
    for claim, condition in (("relu-speedup", "smoke"), ("relu-speedup", "cifar10"), ("colour-towers", "smoke")):
        notes.add_look(runs, claim, condition, (0, 1))
    notes.add_look(runs, "lrn-error", "smoke", (0,))
    for id_ in ("relu-speedup", "lrn-error"):
        bands.note(runs, claims[id_])
    publishing.publish(runs, reports, claims)
    assert set(notes.load_looks(reports)) == {("relu-speedup", "cifar10"), ("colour-towers", "smoke")}
    assert bands.claims(reports) == ["relu-speedup"]
