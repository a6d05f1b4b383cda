"""Two arms on the same images: read from what records keep, and only where it belongs to them."""

import io

import numpy as np
import pytest

from repro import experiments, files, folders, registry, store
from repro.judging import judge, paired
from repro.store import Measurement, Trial

CLAIM = registry.load_claim(folders.default_claims() / "lrn-error.toml")
CONDITION = CLAIM.conditions["tiny-imagenet-32"]
IMAGES = 10_003  # no multiple of eight: packed bits have a rest


def _fill(root, rates, *, lie=0.0):
    """Write three seeds an arm that miss images at random at the arm's rate; return which, by arm."""
    draw = np.random.default_rng(0)
    hard = draw.random(IMAGES)
    missed = {arm: [] for arm in rates}
    for arm, rate in rates.items():
        for seed in CONDITION.seeds:
            bits = hard + draw.normal(0, 0.05, IMAGES) < rate
            missed[arm].append(bits)
            error = 100 * float(bits.mean()) + lie
            values = {"top1-error-ten": error, "top1-error-centre": error, "test-images": IMAGES}
            trial = Trial(
                spec=experiments.get("final-error").spec(CONDITION.arms[arm], seed), data_digest="d",
                status="completed", environment={"device": "cpu"},
                measurements=tuple(Measurement(name=n, value=v, unit="") for n, v in values.items()),
            )  # fmt: skip
            store.save(root, trial)
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **{"top1-error-ten": np.packbits(bits)})
            files.write_atomically(store.folder(root, trial.identity) / paired.MISSED, buffer.getvalue())
    return missed


def _judged(root):
    verdict = judge.judge(CLAIM, CONDITION, store.load(root)[0])
    return verdict.judged[0].expectation, verdict.observed


def test_the_difference_is_that_of_the_same_images(tmp_path):
    """By hand: the mean over images of how much more often one arm missed each; seeds that share hard images."""
    missed = _fill(tmp_path, {"none": 0.72, "lrn": 0.70})
    i = paired.difference(*_judged(tmp_path), tmp_path)
    more = np.mean(missed["none"], axis=0) - np.mean(missed["lrn"], axis=0)
    assert i.value == pytest.approx(100 * more.mean())
    half = 1.645 * 100 * more.std() / IMAGES**0.5
    assert i.low == pytest.approx(i.value - half, rel=1e-3)
    assert i.n == (IMAGES,)
    assert "decides nothing" in paired.sentence(i)


def test_without_the_files_of_every_seed_nothing_is_said(tmp_path):
    _fill(tmp_path, {"none": 0.72, "lrn": 0.70})
    next(tmp_path.glob("trials/*/missed.npz")).unlink()
    assert paired.difference(*_judged(tmp_path), tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_file_that_cannot_be_read_says_nothing(tmp_path, content):
    _fill(tmp_path, {"none": 0.72, "lrn": 0.70})
    next(tmp_path.glob("trials/*/missed.npz")).write_bytes(content)
    assert paired.difference(*_judged(tmp_path), tmp_path) is None


def test_a_file_that_does_not_give_the_recorded_error_is_not_used(tmp_path):
    _fill(tmp_path, {"none": 0.72, "lrn": 0.70}, lie=0.5)
    assert paired.difference(*_judged(tmp_path), tmp_path) is None


def test_what_is_no_difference_of_errors_has_none(tmp_path):
    claim = registry.load_claim(folders.default_claims() / "parameters.toml")
    verdict = judge.judge(claim, claim.conditions["static"], ())
    assert paired.difference(claim.expect[0], verdict.observed, tmp_path) is None
