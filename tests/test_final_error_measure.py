"""Training to the end: what a trial records, that it resumes to the bit, and that it says what went wrong."""

import re
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repro.data import DataError
from repro.experiments import final_error
from repro.experiments.final_error import Parameters
from repro.loading.pictures import Pictures
from repro.loading.resident import decoded
from repro.measure import Monitor, Place, Setting, Task, load, measure
from repro.measure.member import Network
from repro.models.dropout import Dropout
from repro.models.nets import network
from repro.store import folder, load_curve
from repro.training import checkpoint
from repro.training.evaluation import missed
from repro.training.loop import Interrupted
from repro.training.schedule import Plateau

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures.drawn(160, 40, "sha256:made-up")


def parameters(**changed: Any) -> Parameters:
    small = {"net": "alexnet-32", "stored": 32, "crop": 28, "batch": 32, "epochs": 2.0, "rate": 0.02}
    return Parameters(**{"dataset": "embedded", "protocol": "modern", **small, **changed})


def task(p: Parameters, store: Path, seed: int = 0) -> Task:
    return Task(final_error.spec(p, seed), "scoring", p.epochs, Setting(store, CPU))


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


def test_a_checkpoint_that_holds_generators_is_gone_on_with(pictures: Pictures, tmp_path: Path) -> None:
    """Written when dropout still drew from them; a network without dropout, whose identity is as it was, needs none."""
    p = parameters(rate=0.01, epochs=1.6, dropout=False)
    whole = measure(task(p, tmp_path / "whole"), pictures, Monitor())
    looks = iter([False] * 3)
    with pytest.raises(Interrupted):
        measure(task(p, tmp_path / "parts"), pictures, Monitor(stopping=lambda: next(looks, True)))
    place = folder(tmp_path / "parts", whole.identity) / "checkpoint.pt"
    state = checkpoint.load(place, CPU)
    assert state is not None
    assert "chance" not in state["net"]
    state["net"]["chance"] = {"cpu": torch.get_rng_state(), "cuda": None}
    checkpoint.save(place, state)
    assert measure(task(p, tmp_path / "parts"), pictures, Monitor()).measurements == whole.measurements


@pytest.mark.parametrize(
    "changed",
    [{"net": net, "dropout": dropped} for net in ("alexnet-32", "conv-local-13pct") for dropped in (True, False)]
    + [{"net": "batch-norm-clone", "dropout": False, "stored": 64, "crop": 64}],
)
def test_dropout_is_known_by_the_parameters(changed: dict[str, Any]) -> None:
    """What an identity says is what is found in the network."""
    p = parameters(**changed)
    with torch.device("meta"):
        model = network(p, 10, 0)
    assert final_error.has_dropout(p) == any(isinstance(m, Dropout) for m in model.modules())


def test_every_step_and_every_trial_has_masks_of_its_own(pictures: Pictures) -> None:
    """As the trial goes from step to step, and back to one, as after a resume; another seed has others."""
    nets = [Network(parameters(), pictures, seed, "resident") for seed in (0, 1)]
    hidden = torch.empty(4, 256)

    def masks(net: Network, step: int) -> torch.Tensor:
        net.before(step)
        return torch.stack([m.mask(hidden) for m in net.model if isinstance(m, Dropout)])

    found = [masks(net, step) for net in nets for step in (0, 1, 2)]
    assert all(0.4 < float(one.float().mean()) < 0.6 for one in found)
    assert all(not torch.equal(one, other) for one, other in combinations([part for two in found for part in two], 2))
    assert torch.equal(masks(nets[0], 1), found[1])


def test_what_else_is_trained_here_changes_nothing(pictures: Pictures, tmp_path: Path) -> None:
    """Another trial, and draws from torch's generator, between the steps of one with dropout; and none is drawn."""
    p = parameters(rate=0.01, epochs=1.0)
    alone = measure(task(p, tmp_path / "alone"), pictures, Monitor())
    other = Network(p, pictures, 1, "resident")
    steps = other.stream()

    def company() -> bool:
        images, labels = next(steps)
        other.before(other.recent.step)
        with torch.enable_grad():  # also asked while the other is tested
            other.learn(other.model, other.input(images), labels)
        other.recent.step += 1
        torch.rand(3)
        return False

    before = torch.get_rng_state()
    beside = measure(task(p, tmp_path / "beside"), pictures, Monitor(stopping=company))
    assert not torch.equal(torch.get_rng_state(), before)
    assert beside.measurements == alone.measurements
    assert load_curve(tmp_path / "beside", beside.identity) == load_curve(tmp_path / "alone", alone.identity)


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


@pytest.mark.parametrize(("schedule", "same"), [("plateau", False), ("released", True)])
def test_colour_noise_ends_where_the_notes_say_and_only_by_their_schedule(
    pictures: Pictures, schedule: str, same: bool
) -> None:
    """At three quarters of the released epochs it is over; the rule of the text has no such number."""
    net = Network(parameters(protocol="code", schedule=schedule, epochs=100.0), pictures, 0, "resident")
    window = next(iter(net.loader.train(0)))
    late = 75 * net.per_epoch
    assert torch.equal(net.input((window, late)), net.plain(window, late)) is same
    assert not torch.equal(net.input((window, 0)), net.plain(window, 0))


@pytest.mark.parametrize("colour", [True, False])
def test_under_code_the_input_is_that_of_the_release(pictures: Pictures, colour: bool) -> None:
    """As convdata_jpeg.py has it: 32 images in a row cut alike, minus the unmirrored centre of the mean, over 1.1.

    The division belongs to the noise: an arm without noise is not divided.
    """
    net = Network(parameters(protocol="code", batch=64, colour=colour), pictures, 0, "resident")
    window = next(iter(net.loader.train(0)))
    places = [(*offset, flip) for offset, flip in zip(window.offsets.tolist(), window.flips.tolist(), strict=True)]
    assert [len(set(places[i : i + 32])) for i in (0, 32)] == [1, 1]
    assert len(set(places)) == 2
    less = window.images - pictures.colours.mean[2:30, 2:30].float()
    rest = net.input((window, 0)).permute(0, 2, 3, 1) * (1.1 if colour else 1.0) - less
    assert torch.allclose(rest, rest[:, :1, :1].expand_as(rest), atol=1e-3)  # a colour for each image, or nothing
    assert bool(rest.abs().max() > 1) is colour


def test_a_set_that_is_not_prepared_is_told_with_the_command(tmp_path: Path) -> None:
    """Where it belongs and its side are known, so they stand in the command; 256 pixels are the default."""
    for stored, tail in ((32, " --side 32`"), (256, "`")):
        told = f"run `repro data prepare SOURCE {tmp_path / 'prepared' / 'tiny-imagenet-32'}{tail}, with SOURCE"
        with pytest.raises(DataError, match=re.escape(told)):
            load("final-error", parameters(dataset="tiny-imagenet-32", stored=stored), Place(tmp_path, tmp_path))


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
