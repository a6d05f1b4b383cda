import pytest

from repro import publishing, store
from repro.store import StoreError, Trial, TrialSpec


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


def test_the_record_of_an_export_is_published_where_its_source_is_that_of_its_commit(tmp_path, monkeypatch):
    """It could not know whether it was changed; what is published does."""
    spec = TrialSpec(experiment="epochs-to", numerics=1, config={"dataset": "cifar10"}, seed=0)
    for seed, digest in enumerate(("that of the commit", "another")):
        environment = {"commit": "c" * 40, "dirty": None, "code_digest": digest}
        one = spec.model_copy(update={"seed": seed})
        store.save(tmp_path / "runs", Trial(spec=one, data_digest="d", status="completed", environment=environment))
    monkeypatch.setattr("repro.source.digest_at", {"c" * 40: "that of the commit"}.get)
    copied, left_out = publishing.publish(tmp_path / "runs", tmp_path / "reports")
    assert (copied, len(left_out)) == (1, 1)
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


def test_looks_of_two_stores_add_up(tmp_path):
    """Publishing from a second store forgets neither the records nor the looks of the first."""
    for name, seeds in (("one", (0, 1)), ("two", (0, 1, 2))):
        store.save(tmp_path / name, _trial(seed=len(seeds)))
        store.add_look(tmp_path / name, "claim", "condition", seeds)
    for name in ("two", "one", "two"):
        publishing.publish(tmp_path / name, tmp_path / "reports")
    assert len(store.load(tmp_path / "reports")[0]) == 2
    assert store.load_looks(tmp_path / "reports") == {("claim", "condition"): ((0, 1, 2),)}


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
