"""Training to the end: what a trial records, that it resumes to the bit, and that it says what went wrong."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repro.data import embedded
from repro.experiments import final_error
from repro.experiments.final_error import Parameters
from repro.loading.pictures import Pictures
from repro.loading.resident import decoded
from repro.measure import Monitor, Place, Task, load, measure
from repro.store import folder, load_curve
from repro.training.evaluation import missed
from repro.training.loop import Interrupted
from repro.training.schedule import Plateau

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    halves = {}
    for seed, (split, n) in enumerate((("train", 160), ("val", 40))):
        images, labels = embedded.draw(n, 32, seed)
        halves[split] = (torch.from_numpy(images), torch.from_numpy(labels))
    return Pictures("embedded", 10, "sha256:made-up", halves=halves)


def parameters(**changed: Any) -> Parameters:
    small = {"net": "alexnet-32", "stored": 32, "crop": 28, "batch": 32, "epochs": 2.0, "rate": 0.02}
    return Parameters(**{"dataset": "embedded", "protocol": "modern", **small, **changed})


def task(p: Parameters, store: Path, seed: int = 0) -> Task:
    return Task(final_error.spec(p, seed), "scoring", p.epochs, store, CPU)


def test_a_trial_records_errors_of_both_views(pictures: Pictures, tmp_path: Path) -> None:
    """Errors are percentages of the test set, gains and gap are differences of them, the missed images are kept."""
    job = task(parameters(), tmp_path)
    trial = measure(job, pictures, Monitor())
    found = {m.name: m.value for m in trial.measurements}
    assert trial.status == "completed"
    assert trial.environment["loader"] == "resident"
    assert found["test-images"] == 40
    assert found["epochs-trained"] == 2.0
    assert found["top1-error-centre"] * 40 % 100 == pytest.approx(0)
    assert found["ten-view-gain-top1"] == found["top1-error-centre"] - found["top1-error-ten"]
    assert found["generalisation-gap"] == found["top1-error-centre"] - found["training-error"]
    assert "top5-error-ten" not in found  # ten classes
    kept = np.load(folder(tmp_path, trial.identity) / "missed.npz")
    assert np.unpackbits(kept["top1-error-ten"])[:40].sum() * 100 / 40 == found["top1-error-ten"]
    epochs = [row["epochs"] for row in load_curve(tmp_path, trial.identity)]
    assert epochs == sorted(set(epochs))
    assert epochs[-1] == 2.0
    assert not (folder(tmp_path, trial.identity) / "checkpoint.pt").exists()


@pytest.mark.parametrize("protocol", ["paper", "code", "modern"])
def test_a_stopped_trial_ends_with_the_same_numbers(protocol: str, pictures: Pictures, tmp_path: Path) -> None:
    """Stopped in the middle of an epoch, dropout and all, and gone on with: to the bit what it would have been."""
    p = parameters(protocol=protocol, rate=0.01, epochs=1.6)
    whole = measure(task(p, tmp_path / "whole"), pictures, Monitor())
    looks = iter([False] * 3)
    with pytest.raises(Interrupted):
        measure(task(p, tmp_path / "parts"), pictures, Monitor(stopping=lambda: next(looks, True)))
    torch.manual_seed(99)  # whatever else drew meanwhile
    parts = measure(task(p, tmp_path / "parts"), pictures, Monitor())
    assert parts.measurements == whole.measurements
    assert load_curve(tmp_path / "parts", parts.identity) == load_curve(tmp_path / "whole", whole.identity)


def test_members_are_averaged(pictures: Pictures, tmp_path: Path) -> None:
    """Two members train twice the epochs, and the first is the very network that one member would be."""
    p = parameters(epochs=1.0)
    seen: list[float] = []
    two = parameters(epochs=1.0, members=2)
    both = measure(task(two, tmp_path), pictures, Monitor(lambda done, _: seen.append(done)))
    one = measure(task(p, tmp_path), pictures, Monitor())
    assert both.value("epochs-trained") == 2 * one.value("epochs-trained") == 2
    assert max(seen) == 2
    first = load_curve(tmp_path, one.identity)
    assert load_curve(tmp_path, both.identity)[: len(first)] == first


def test_a_loss_that_explodes_is_diverged_with_its_step(pictures: Pictures, tmp_path: Path) -> None:
    """A rate far too high ends as diverged, not as a failure and not as a number."""
    trial = measure(task(parameters(rate=1e9), tmp_path), pictures, Monitor())
    assert trial.status == "diverged"
    assert "at step " in trial.message
    assert trial.measurements == ()


def test_the_papers_schedule_ends_by_itself(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `plateau` the training ends once the error has stopped improving at the last rate."""
    monkeypatch.setattr("repro.training.recipe.Plateau", partial(Plateau, patience=1))
    trial = measure(task(parameters(schedule="plateau", rate=1e-9, epochs=60.0), tmp_path), pictures, Monitor())
    assert trial.value("epochs-to-converge") == trial.value("epochs-trained") == 5  # the first, and one a rate


def test_the_synthetic_set_comes_as_files_of_any_size(tmp_path: Path) -> None:
    """Both halves are drawn as JPEG files at the stored size, once; in memory and from files they have one mean."""
    found = load("final-error", parameters(stored=36), Place(None, tmp_path))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.JPEG")}
    assert len(files) == found.count("train") + found.count("val")
    again = load("final-error", parameters(stored=36), Place(None, tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.JPEG")} == files
    assert again.digest == found.digest
    images, labels = decoded(found.prepared, "train", device=CPU, workers=1)
    assert images.shape[1:] == (36, 36, 3)
    held = Pictures("embedded", 10, "sha256:made-up", halves={"train": (images, labels)})
    for ours, theirs in zip(held.colours, found.colours, strict=True):
        assert torch.allclose(ours.abs(), theirs.abs())  # an eigenvector's sign is free


def test_colours_by_hand(pictures: Pictures) -> None:
    """The mean image is the mean of the images, and the eigenvectors turn the eigenvalues into the covariance."""
    colours = pictures.colours
    images = pictures.halves["train"][0].double()
    assert torch.allclose(colours.mean, images.mean(0))
    rotated = colours.eigenvectors @ colours.eigenvalues.diag() @ colours.eigenvectors.T
    assert torch.allclose(rotated, images.reshape(-1, 3).T.cov(correction=0))


def test_missed_by_hand() -> None:
    """The second most likely class is missed by top-1 and found by top-2."""
    probability = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    labels = torch.tensor([1, 2])
    assert missed(probability, labels, 1).tolist() == [True, False]
    assert missed(probability, labels, 2).tolist() == [False, False]
