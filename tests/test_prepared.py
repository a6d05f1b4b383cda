"""Prepared sets: loading them whole or not at all, finding what was altered, and their statistics."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from repro.data import DataError, prepared
from repro.data.prepare import prepare
from repro.data.prepared import Entry, Manifest, load, read_manifest, statistics, verify, write_manifest

SIDE = 8


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a folder with a prepared set: two classes, ten training pictures, two for validation."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out") / "set"
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 1)):
        for label in ("ant", "bee"):
            (source / split / label).mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
                picture.save(source / split / label / f"{number}.JPEG", quality=90)
    prepare(source, out, side=SIDE, jobs=1)
    return out


@pytest.fixture
def root(original, tmp_path):
    """Return a copy of the set that a test may spoil."""
    import shutil

    return shutil.copytree(original, tmp_path / "set")


def test_a_set_is_loaded_with_its_labels(root):
    """Files by split, sorted, with the place of their class among the sorted classes."""
    loaded = load(root)
    assert (loaded.root, loaded.side, loaded.classes, loaded.skipped) == (root, SIDE, ("ant", "bee"), 0)
    assert loaded.files["val"] == (("val/ant/0.JPEG", 0), ("val/bee/0.JPEG", 1))
    assert [label for _, label in loaded.files["train"]] == [0] * 5 + [1] * 5
    assert re.fullmatch("sha256:[0-9a-f]{64}", loaded.digest)
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.side = 9


def test_the_digest_follows_from_side_names_and_content_alone():
    """Not from the source's sizes, nor what was left out."""
    entries = {"train/a/x.JPEG": Entry(5, "00", 7), "val/a/y.JPEG": Entry(6, "11", 8)}
    base = Manifest(8, entries, 0).digest
    assert Manifest(8, {path: Entry(5, e.sha256, 1) for path, e in entries.items()}, 3).digest == base
    others = [
        Manifest(9, entries, 0),
        Manifest(8, {**entries, "train/a/x.JPEG": Entry(5, "01", 7)}, 0),
        Manifest(8, {path.replace("/a/", "/b/"): e for path, e in entries.items()}, 0),
        Manifest(8, {path.replace("x", "z"): e for path, e in entries.items()}, 0),
    ]
    assert len({base, *(other.digest for other in others)}) == 5


def test_what_was_not_prepared_says_how_to(tmp_path):
    """In one line; a folder and a file alike."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(DataError, match=re.escape(f"{path}: not prepared: run `repro data prepare SOURCE OUT`")):
            load(path)


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "rubbish", "list", "sum", "path", "hidden", "type", "fields", "deep"]
)
def test_a_damaged_manifest_is_one_line(root, damage):
    """Cut short, changed by hand, or leading out of its folder."""
    path = root / "manifest.json"
    content = json.loads(path.read_bytes())
    train = content["files"]["train"]
    if damage == "sum":
        train["ant"]["0.JPEG"][1] = "0" * 64
    elif damage == "path":
        train["../../x"] = train.pop("ant")
    elif damage == "hidden":
        train["ant"][".0.JPEG"] = train["ant"].pop("0.JPEG")
    elif damage == "type":
        content["files"] = 3
    elif damage == "fields":
        train["ant"]["0.JPEG"].pop()
    text = {"cut": path.read_bytes()[:-40], "empty": b"", "rubbish": b"\xff", "list": b"[]", "deep": b"[" * 100_000}
    path.write_bytes(text.get(damage, json.dumps(content).encode()))
    with pytest.raises(DataError, match=r"manifest.json is damaged: restore it, or delete") as caught:
        load(root)
    assert "\n" not in str(caught.value)


def test_a_manifest_of_another_version_says_so(root):
    """Rather than that it is damaged."""
    content = json.loads((root / "manifest.json").read_bytes())
    (root / "manifest.json").write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(DataError, match="has schema 99, this version reads 1"):
        load(root)


@pytest.mark.parametrize("damage", ["missing", "cut", "class"])
def test_a_set_that_is_not_whole_is_not_loaded(root, damage):
    """By names and sizes, without reading a file."""
    path = root / "train" / "ant" / "3.JPEG"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.parent.rename(root / "elsewhere")
    words = {
        "missing": "train/ant/3.JPEG is missing;",
        "cut": "train/ant/3.JPEG is of another size than it had;",
        "class": r"train/ant/0.JPEG is missing \(and 4 more are wrong\);",
    }
    with pytest.raises(DataError, match=f"is not whole: {words[damage]} `repro data prepare SOURCE") as caught:
        load(root)
    assert "\n" not in str(caught.value)


def test_verify_finds_all_that_is_altered_missing_or_extra(root):
    """One byte is enough, and each is named; what is whole takes no line."""
    told = []
    assert verify(root, lambda *at: told.append(at)) == []
    assert told[-1] == (12, 12)
    altered = root / "train" / "bee" / "2.JPEG"
    content = bytearray(altered.read_bytes())
    content[100] ^= 1
    altered.write_bytes(content)
    assert load(root)  # its size is what it was
    (root / "train" / "ant" / "4.JPEG").unlink()
    (root / "val" / "bee" / "new.JPEG").touch()
    (root / "val" / "loose").touch()
    assert verify(root) == [
        "missing: train/ant/4.JPEG", "altered: train/bee/2.JPEG", "extra: val/bee/new.JPEG", "extra: val/loose",
    ]  # fmt: skip


def by_hand(root):
    """Return the statistics of a set's training pictures, as the textbook has them."""
    paths = sorted(root.glob("train/*/*.JPEG"))
    pictures = np.stack([np.asarray(Image.open(path)) for path in paths]).astype(float)
    colours = pictures.reshape(-1, 3)
    covariance = np.cov(colours.T, ddof=0)
    return pictures.mean(0), colours.mean(0), colours.std(0), covariance


@pytest.mark.parametrize("jobs", [1, 2])
def test_statistics_are_those_of_a_plain_computation(root, jobs):
    """The mean image, the colours' mean and spread, and their principal components, the largest first."""
    told = []
    found = statistics(load(root), jobs=jobs, progress=lambda *at: told.append(at))
    mean, channel_mean, channel_std, covariance = by_hand(root)
    assert told[-1] == (10, 10)
    assert np.array_equal(found.mean, mean)
    np.testing.assert_allclose(found.channel_mean, channel_mean, rtol=1e-12)
    np.testing.assert_allclose(found.channel_std, channel_std, rtol=1e-12)
    assert (np.diff(found.eigenvalues) <= 0).all()
    vectors = found.eigenvectors
    np.testing.assert_allclose(vectors @ np.diag(found.eigenvalues) @ vectors.T, covariance, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    assert (vectors[np.abs(vectors).argmax(0), range(3)] > 0).all()


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


def test_statistics_are_computed_once(root, monkeypatch):
    """The second call reads them, bit for bit, from a file named for the content."""
    first = statistics(load(root), jobs=1)
    cache = root / f"statistics-{load(root).digest.removeprefix('sha256:')[:16]}.npz"
    assert cache.is_file()
    monkeypatch.setattr(prepared, "_from_sums", pytest.fail)
    assert equal(statistics(load(root)), first)


@pytest.mark.parametrize("damage", ["cut", "empty", "byte", "shape", "names", "nan", "pickle"])
def test_a_damaged_cache_is_computed_again(root, damage):
    """Whatever ails it; and it is whole afterwards."""
    first = statistics(load(root), jobs=1)
    (cache,) = root.glob("statistics-*.npz")
    whole = cache.read_bytes()
    spoilt = io.BytesIO()
    if damage == "cut":
        spoilt.write(whole[:-100])
    elif damage == "byte":
        spoilt.write(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    elif damage == "shape":
        np.savez(spoilt, **{**vars(first), "mean": first.mean[1:]})
    elif damage == "names":
        np.savez(spoilt, mean=first.mean)
    elif damage == "nan":
        np.savez(spoilt, **{**vars(first), "mean": first.mean * np.nan})
    elif damage == "pickle":
        np.savez(spoilt, **{**vars(first), "channel_std": np.array([{}, 1, 2], dtype=object)})
    cache.write_bytes(spoilt.getvalue())
    assert equal(statistics(load(root), jobs=1), first)
    assert cache.read_bytes() == whole


def test_a_picture_that_spoils_statistics_is_named(root):
    """One that cannot be read, and one of another size, both as long as the manifest says."""
    path = root / "train" / "bee" / "2.JPEG"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DataError, match=r"bee/2.JPEG cannot be read; `repro data verify"):
        statistics(load(root), jobs=1)
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "JPEG")
    path.write_bytes(file.getvalue())
    entries = dict(read_manifest(root).entries)
    entries["train/bee/2.JPEG"] = Entry(path.stat().st_size, "00", 1)
    write_manifest(root, Manifest(SIDE, entries, 0))
    with pytest.raises(DataError, match=r"bee/2.JPEG is not 8 x 8 RGB"):
        statistics(load(root), jobs=1)


def test_a_set_without_training_pictures_has_no_statistics(root):
    """Say one prepared of a validation folder alone."""
    entries = {path: entry for path, entry in read_manifest(root).entries.items() if path.startswith("val/")}
    write_manifest(root, Manifest(SIDE, entries, 0))
    with pytest.raises(DataError, match="no training pictures"):
        statistics(load(root))


def test_a_disk_that_cannot_be_written_has_its_statistics_all_the_same(root, monkeypatch):
    """They are computed each time."""
    from repro.files import StoreError

    def refuse(*_):
        raise StoreError("read-only")

    monkeypatch.setattr(prepared, "write_atomically", refuse)
    assert statistics(load(root), jobs=1).mean.shape == (SIDE, SIDE, 3)
    assert not list(root.glob("statistics-*"))
