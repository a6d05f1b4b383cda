"""Data sets as loaded: CIFAR-10 whole, missing, truncated or altered, by way of a tiny set of the same form."""

import hashlib
import pickle
import re
from itertools import chain

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from repro import datasets
from repro.data import DataError, Dataset, cifar10, load

BATCHES = ["data_batch_1", "data_batch_2", "test_batch"]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Return a folder with two training batches of six images and a test batch, in place of the real ones."""
    rng = np.random.default_rng(0)
    folder = tmp_path / cifar10.FOLDER
    folder.mkdir()
    contents = {
        name: {"data": rng.integers(0, 256, (6, 3072), dtype=np.uint8), "labels": rng.integers(0, 10, 6).tolist()}
        for name in BATCHES
    }
    contents["batches.meta"] = {"label_names": [f"class {i}" for i in range(10)]}
    sums = {}
    for name, content in contents.items():
        path = folder / name
        path.write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar10, "FILES", sums)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in BATCHES[:2]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    return tmp_path, contents


def test_the_published_sums_cover_every_file_that_is_read():
    """Five training batches, the test batch and the names of the classes, each with an md5."""
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
    assert sorted(cifar10.FILES) == sorted(names)
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in cifar10.FILES.values())
    assert cifar10.DIGEST == "md5:c58f30108f718f92721af3b95e74349a"


@pytest.mark.parametrize(("train", "names"), [(True, BATCHES[:2]), (False, BATCHES[2:])])
def test_images_are_read_channel_last_with_their_labels(tiny, train, names):
    """A stored row is red, then green, then blue, each row by row; the batches come in order."""
    root, contents = tiny
    images, labels = cifar10.read(root, train=train)
    rows = np.concatenate([contents[name]["data"] for name in names])
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert images.flags.c_contiguous  # as the kernels that cut windows want them
    assert (images == rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)).all()
    assert labels.tolist() == list(chain.from_iterable(contents[name]["labels"] for name in names))


def test_cifar10_loads_as_tensors_with_the_digest_of_the_release(tiny):
    """The training half, ten classes, and a digest that names the published archive."""
    loaded = load("cifar10", tiny[0])
    assert (loaded.name, loaded.classes, loaded.digest) == ("cifar10", 10, cifar10.DIGEST)
    assert (loaded.images.dtype, tuple(loaded.images.shape)) == (torch.uint8, (12, 32, 32, 3))
    assert loaded.labels.dtype == torch.int64


@pytest.mark.parametrize("name", [*BATCHES, "batches.meta"])
def test_a_missing_file_is_named_with_what_to_do(tiny, name):
    """The message has the path, and the options that help."""
    path = tiny[0] / cifar10.FOLDER / name
    path.unlink()
    with pytest.raises(DataError, match=f"{re.escape(str(path))} is missing.*--data DIR.*--download"):
        load("cifar10", tiny[0])


@pytest.mark.parametrize("name", [*BATCHES, "batches.meta"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_file_is_named_with_both_sums(tiny, name, damage):
    """The message has the path, the sum found and the sum expected."""
    path = tiny[0] / cifar10.FOLDER / name
    expected = cifar10.FILES[name]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"truncated": bytes(content[:-9]), "altered": bytes(content), "empty": b""}[damage])
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    with pytest.raises(DataError) as caught:
        load("cifar10", tiny[0])
    assert str(caught.value) == f"CIFAR-10 is damaged: {path} has md5 {found}, not {expected}; replace the file"


def test_a_file_that_cannot_be_read_is_one_clear_line(tiny, monkeypatch):
    """Say a failing disk: the path and the system's reason, no traceback."""

    def fail(_path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cifar10.Path, "read_bytes", fail)
    with pytest.raises(DataError, match=r"cannot be read: .*data_batch_1: Input/output error$"):
        load("cifar10", tiny[0])


def test_whole_files_are_not_downloaded_again(tiny, monkeypatch):
    """--download does nothing where nothing is missing."""
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", pytest.fail)
    assert len(load("cifar10", tiny[0], download=True).images) == 12


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_failed_download_is_one_clear_line(tiny, monkeypatch, damage):
    """Where a file is missing or altered a download is tried, and its failure says why."""
    path = tiny[0] / cifar10.FOLDER / BATCHES[0]
    path.unlink() if damage == "missing" else path.write_bytes(b"")

    def refuse(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    with pytest.raises(DataError, match=f"could not be downloaded to {re.escape(str(tiny[0]))}: no network"):
        load("cifar10", tiny[0], download=True)


def test_cifar10_without_a_folder_says_how_to_name_one():
    """The message has the option, the variable and the download."""
    with pytest.raises(DataError, match="--data DIR, or set REPRO_DATA; --download"):
        load("cifar10", None)


def test_an_unknown_set_lists_the_known_ones():
    """The message names what there is."""
    with pytest.raises(DataError, match="unknown data set 'mnist'; known are cifar10, embedded"):
        load("mnist", None)


def test_the_embedded_set_needs_no_folder(monkeypatch):
    """It is drawn, and its digest follows from its bytes."""
    monkeypatch.setattr(datasets, "IN_MEMORY", datasets.DataSet(10, 40, 20))
    first, again = load("embedded", None), load("embedded", None)
    assert (tuple(first.images.shape), first.classes) == ((40, 32, 32, 3), 10)
    assert first.digest == again.digest
    assert re.fullmatch("sha256:[0-9a-f]{64}", first.digest)
    assert len(load("embedded", None, train=False).images) == 20
    monkeypatch.setattr(datasets, "IN_MEMORY", datasets.DataSet(10, 41, 20))
    assert load("embedded", None).digest != first.digest


def test_a_set_moved_to_a_device_is_the_same_set():
    """Everything but the place stays."""
    here = Dataset("x", torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.tensor([0, 1]), 2, "sum")
    there = here.to(torch.device("cpu"))
    assert (there.name, there.classes, there.digest) == ("x", 2, "sum")
    assert torch.equal(there.images, here.images)
    assert torch.equal(there.labels, here.labels)
