"""Counting: the metrics against integers worked out by hand, and the static claims from file to verdict."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from repro import cli, registry
from repro.experiments.count import UNITS, Parameters
from repro.measure.count import count

CLAIMS = Path(__file__).parents[1] / "claims"
REGISTRY = registry.load_registry(CLAIMS)
STATIC = [id_ for id_, claim in REGISTRY.items() if "static" in claim.conditions]
OPEN = [id_ for id_ in STATIC if REGISTRY[id_].conditions["static"].blocked]


def test_every_metric_is_measured_with_its_unit() -> None:
    """The whole network has every metric, and no metric lacks a unit."""
    assert set(count(Parameters())) == set(UNITS)


def test_by_hand() -> None:
    """The counts of the paper's network are those that its shapes give on paper."""
    found = count(Parameters())
    assert found["parameters"] == 60_965_224
    assert found["neurons"] == 55 * 55 * 96 + 27 * 27 * 256 + 13 * 13 * (384 + 384 + 256) + 2 * 4096 + 1000
    assert found["input-dimension"] == 224 * 224 * 3
    assert found["multiply-adds"] == 724_406_816
    assert found["kernel-inputs-conv2"] == 5 * 5 * 48
    assert found["share-conv3"] == (884_736 + 384) / 60_965_224
    assert found["crop-variants"] == 33 * 33 * 2
    assert found["images-per-second"] == pytest.approx(90 * 1.2e6 / (5.5 * 86_400))


def test_two_gpus_do_less_each_than_the_one_gpu_net() -> None:
    """Half the two-GPU net is 7.5% less arithmetic than the one-GPU net, which is why it may be slightly faster."""
    two, one = (count(Parameters(towers=towers))["multiply-adds-per-gpu"] for towers in ("two", "half"))
    assert (two, one) == (362_203_408, 391_514_384)


def test_networks_by_their_names() -> None:
    """Caffe's network is as large as the paper's and sees another input; torchvision's is another network."""
    caffe, theirs = (count(Parameters(preset=name)) for name in ("bvlc_alexnet", "torchvision"))
    assert (caffe["parameters"], caffe["input-dimension"]) == (60_965_224, 227 * 227 * 3)
    assert (theirs["parameters"], theirs["input-dimension"]) == (61_100_840, 224 * 224 * 3)


def test_a_removed_convolution_has_no_metric() -> None:
    """A network without conv5 has no share and no kernels of it."""
    assert "share-conv5" not in count(Parameters(removed=3))


def test_static_claims_end_well(tmp_path: Path) -> None:
    """Every static claim is run and judged without data; what comes out is what the files list as known."""
    result = CliRunner().invoke(cli.main, ["run", "all", "--scale", "static", "--store", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].startswith(f"{len(STATIC) - len(OPEN)} run: ")
    report = CliRunner().invoke(cli.main, ["report", "--json", "--store", str(tmp_path)])
    found = json.loads(report.stdout)
    told = {claim["id"]: claim for claim in found["claims"]}
    for id_ in STATIC:
        expected = "NOT_TESTED" if id_ in OPEN else (told[id_]["known"] or {}).get("outcome", "REPRODUCED")
        assert told[id_]["outcome"] == expected, id_
        evidence = {c["evidence"] for c in told[id_]["conditions"] if c["scale"] == "static"}
        assert evidence == {"recorded" if told[id_]["experiment"] == "recorded" else "computed"}
    assert set(found["errata"]) == {
        "colour-noise-scale", "conv-parameter-share", "conv1-places", "crop-variants", "equal-learning-rates",
        "figure-2-neurons", "initial-weights", "lrn-constants", "neurons",
    }  # fmt: skip
