"""The floor of an error's standard deviation, derived in ``final_error.resolution``, and simulated trainings."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.experiments import final_error
from repro.folders import default_claims
from repro.registry import load_claim
from repro.store import Measurement, Trial

ARM = load_claim(default_claims() / "lrn-error.toml").conditions["ilsvrc-2012"].arms["lrn"]


def resolution(metric: str, **measured: float) -> float:
    found = tuple(Measurement(name=n.replace("_", "-"), value=v, unit="") for n, v in measured.items())
    spec = final_error.spec(ARM, 0)
    return final_error.resolution(Trial(spec=spec, data_digest="d", status="completed", measurements=found), metric)


def variance_of(shares: np.ndarray) -> tuple[float, float]:
    """Return error and n times its variance, of images whose answers fall on class k in a share of all trainings.

    As often as an answer is given it is right; ``shares`` has shape (images, classes).
    """
    squares, cubes = (shares**2).sum(axis=1), (shares**3).sum(axis=1)
    return float(1 - squares.mean()), float((squares - cubes).mean())


def mixture(classes: int, evenness: float, seed: int, images: int = 4000) -> np.ndarray:
    """Return shares of images of unlike difficulty: most are certain where ``evenness`` is far below 1."""
    return np.random.default_rng([classes, seed]).dirichlet(np.full(classes, evenness), images)


@pytest.mark.parametrize(("classes", "evenness"), [(2, 0.3), (10, 0.05), (10, 1.0)])
def test_the_variance_over_trainings_is_the_derived_one(classes: int, evenness: float) -> None:
    """Drawn trainings, each answering every image by its shares: their errors scatter as the formula says."""
    rng = np.random.default_rng(0)
    images, trainings = 500, 3000
    shares = mixture(classes, evenness, 0, images)
    right = np.array([rng.choice(classes, p=p) for p in shares])
    missed = shares[np.arange(images), right][None, :] < rng.random((trainings, images))
    found = missed.mean(axis=1).var(ddof=1)
    kept = shares[np.arange(images), right]
    derived = float((kept * (1 - kept)).sum()) / images**2
    print(f"{classes} classes: {found:.3g}, derived {derived:.3g}")
    assert found == pytest.approx(derived, rel=4 * math.sqrt(2 / trainings))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12).filter(lambda c: sum(c) > 0.1))
def test_an_image_adds_between_half_its_binomial_variance_and_half_its_error(raw: list[float]) -> None:
    """For any shares of classes; it is also at least the error over their number, and at most e (1 - e)."""
    shares = np.array(raw)[None, :] / sum(raw)
    error, variance = variance_of(shares)
    assert error * (1 - error) / 2 - 1e-12 <= variance <= error / 2 + 1e-12
    assert error / len(raw) - 1e-12 <= variance <= error * (1 - error) + 1e-12
    if len(raw) == 2:
        assert variance == pytest.approx(error / 2, abs=1e-12)


@pytest.mark.parametrize(
    ("classes", "error"), [(2, 0.05), (2, 0.3), *((k, e) for k in (10, 200, 1000) for e in (0.05, 0.2, 0.4, 0.7))]
)
def test_half_the_binomial_variance_is_a_floor_and_half_the_error_is_not(classes: int, error: float) -> None:
    """Over images of unlike difficulty, p (1 - p) / 2 stays below the variance, whatever the error and the classes."""
    steps = np.geomspace(0.02 / classes, 20, 24)
    found, variance = next(pair for a in steps if (pair := variance_of(mixture(classes, float(a), 1, 400)))[0] >= error)
    print(f"{classes} classes, error {found:.2f}: {variance / found:.3f} of it, p q / 2 is {(1 - found) / 2:.3f}")
    assert found * (1 - found) / 2 <= variance
    if classes > 2:
        assert variance < found / 2
    if found > 0.5:
        assert found / 2 > found * (1 - found)  # half the error would be above what any images can give


def test_images_that_are_certain_or_a_pure_guess_lie_below_the_floor() -> None:
    """The limit of the floor, told in its docstring: the variance is then the error over the number of classes."""
    shares = np.concatenate([np.eye(100)[:60], np.full((40, 100), 0.01)])
    error, variance = variance_of(shares)
    assert variance == pytest.approx(error / 100)
    assert variance < error * (1 - error) / 2


def test_the_floor_is_in_points_of_the_metric_itself() -> None:
    """37.5% of 150,000 images scatter by sqrt(0.375 * 0.625 / 300,000); top-5 by its own error, not that of top-1."""
    found = resolution("top1-error-ten", top1_error_ten=37.5, test_images=150_000.0)
    assert found == pytest.approx(100 * math.sqrt(0.375 * 0.625 / 300_000))
    both = {"top1_error_ten": 37.5, "top5_error_ten": 17.0, "test_images": 150_000.0}
    assert resolution("top5-error-ten", **both) == pytest.approx(100 * math.sqrt(0.17 * 0.83 / 300_000))


def test_a_gain_scatters_less_than_an_error() -> None:
    """Ten views change the answer for few images: the floor of their gain is far below that of the error itself."""
    both = {"top1_error_centre": 39.0, "top1_error_ten": 37.5, "ten_view_gain_top1": 1.5, "test_images": 150_000.0}
    assert resolution("ten-view-gain-top1", **both) < 0.3 * resolution("top1-error-ten", **both)
    worse = both | {"ten_view_gain_top1": -1.5}
    assert resolution("ten-view-gain-top1", **worse) == resolution("ten-view-gain-top1", **both)


def test_without_an_error_one_image_is_the_resolution() -> None:
    """No image missed in any training is not known to be none of all."""
    assert resolution("top1-error-ten", top1_error_ten=0.0, test_images=1000.0) == pytest.approx(
        100 / 1000 / math.sqrt(2)
    )


def test_what_a_record_does_not_say_decides_nothing() -> None:
    """Without the number of images, or the error, there is no floor to tell: nothing is known better than infinity."""
    assert resolution("top1-error-ten", top1_error_ten=37.5) == math.inf
    assert resolution("generalisation-gap", generalisation_gap=9.0, test_images=1000.0) == math.inf


def test_a_time_is_known_to_the_epoch() -> None:
    """Convergence is looked for once an epoch: a time that is uniform in one has this standard deviation."""
    drawn = np.random.default_rng(0).uniform(0, 1, 200_000)
    assert resolution("epochs-to-converge", epochs_to_converge=60.0) == pytest.approx(drawn.std(), rel=0.01)
