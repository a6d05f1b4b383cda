"""What a data set's name promises: whoever brings other pictures under it is told, before anything is trained."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from repro import data, datasets, experiments, folders, registry
from repro.cli import main
from repro.data import DataError
from repro.data.prepare import prepare
from repro.data.prepared import load_as
from repro.datasets import DATASETS, DataSet, unlike
from repro.experiments import epochs_to, final_error, probe, throughput
from repro.judging.judge import judge
from repro.measure import Place, load
from repro.planning import forecast, plan, reuse
from repro.store import Measurement, Trial

REGISTRY = registry.load_registry(folders.default_claims())
PREPARED = sorted(name for name, known in DATASETS.items() if known.folder.startswith("prepared/"))
SIDE = 8


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder where every prepared set is one and the same: 12 classes of noise, 24 + 12 pictures."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for label in range(12):
            (folder := root / "source" / split / f"n{label:08}").mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
                picture.save(folder / f"{number}.JPEG")
    prepare(root / "source", root / "some", side=SIDE, jobs=1)
    (root / "prepared").mkdir()
    for name in PREPARED:
        (root / "prepared" / name).symlink_to(root / "some")
    return root


@pytest.mark.parametrize("name", PREPARED)
def test_other_pictures_under_a_name_are_refused(name: str, stand_in: Path) -> None:
    """With what there is, what that set has, and what to do."""
    root = stand_in / "prepared" / name
    with pytest.raises(DataError) as caught:
        load_as(name, root)
    told, known = str(caught.value), DATASETS[name]
    assert told.startswith(f"{root} holds 12 classes, 24 + 12 pictures; {name} has {known.classes:,}")
    assert f": prepare it again from {known.whole}" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("experiment", [final_error, probe, throughput], ids=lambda module: module.NAME)
@pytest.mark.parametrize("name", ["ilsvrc-2012", "ilsvrc-2010", "imagenette160"])
def test_every_experiment_refuses_them(experiment: Any, name: str, stand_in: Path, tmp_path: Path) -> None:
    """Also those that only look into a network, or time it."""
    more = {} if experiment is throughput else {"epochs": 1.0}
    parameters = experiment.Parameters(dataset=name, protocol="modern", stored=SIDE, crop=SIDE, **more)
    with pytest.raises(DataError, match=f"{name} holds 12 classes, 24 \\+ 12 pictures; {name} has "):
        load(experiment.NAME, parameters, Place(stand_in, tmp_path))


def test_a_set_that_is_what_it_is_called_is_loaded(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pictures, were they all that there is of that name; but not at another size."""
    monkeypatch.setitem(datasets.DATASETS, "imagenette160", DataSet(12, 24, 12, "prepared/imagenette160"))
    parameters = {"dataset": "imagenette160", "protocol": "modern", "crop": SIDE, "epochs": 1.0}
    fitting = final_error.Parameters(**parameters, stored=SIDE)
    found = load("final-error", fitting, Place(stand_in, tmp_path))
    assert (found.classes, found.count("train"), found.count("val")) == (12, 24, 12)
    with pytest.raises(DataError, match="images of 8 pixels, the condition needs 256"):
        load("final-error", final_error.Parameters(**parameters), Place(stand_in, tmp_path))


def test_a_run_of_other_pictures_leaves_nothing(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, exit code 3, and neither a trial nor a look that a later run would have to pay for."""
    monkeypatch.chdir(tmp_path)
    command = ["run", "claim", "lrn-error", "--condition", "ilsvrc-2012", "--device", "cpu", "--data", str(stand_in)]
    result = CliRunner().invoke(main, command, prog_name="repro")
    assert result.exit_code == 3
    told = [line for line in result.stderr.splitlines() if "holds" in line]
    assert len(told) == 1
    assert "lrn-error: " in told[0]
    assert "12 classes, 24 + 12 pictures; ilsvrc-2012 has 1,000, 1,281,167 + 50,000" in told[0]
    assert not [path for name in ("trials", "plans") for path in (tmp_path / "runs" / name).rglob("*.json")]


WHOLE = (1000, 1_281_167, 50_000)


@pytest.mark.parametrize(
    ("classes", "train", "test", "left_out"),
    [(*WHOLE, 0), (1000, 1_281_166, 50_000, 1), (1000, 1_281_160, 49_997, 10), (1000, 1_279_886, 49_950, 1_331)],
)
def test_pictures_that_were_told_as_bad_may_be_missing(classes: int, train: int, test: int, left_out: int) -> None:
    """As many as preparing told, up to one in a thousand of each half."""
    assert unlike("ilsvrc-2012", classes, train, test, left_out) == ""


@pytest.mark.parametrize(
    ("classes", "train", "test", "left_out"),
    [
        (1000, 1_281_166, 50_000, 0),  # one is gone, and nobody told
        (*WHOLE, 1),  # one was left out, and none is missing: there was one too many
        (1000, 1_281_166, 50_000, 2),
        (1000, 1_281_168, 49_999, 0),  # a picture of the test half among those of the training
        (1000, 1_281_165, 50_001, 1),  # and the other way round
        (1000, 1_279_885, 50_000, 1_282),  # too many
        (1000, 1_281_167, 49_949, 51),  # too many of the test
        (999, *WHOLE[1:], 0),
        (1000, 640_000, 50_000, 641_167),  # half an archive, the rest called bad
        (100, 126_689, 5_000, 0),  # a subset that is often called ImageNet-100
        (1000, 1_281_167, 0, 0),
        (1000, 1_281_167, 50_000 + 1, 0),
    ],
)
def test_no_others_may(classes: int, train: int, test: int, left_out: int) -> None:
    """Neither fewer nor more, of either half, nor of the classes."""
    told = unlike("ilsvrc-2012", classes, train, test, left_out)
    assert told.endswith("; ilsvrc-2012 has 1,000, 1,281,167 + 50,000: prepare it again from the whole archive")
    assert (f"({left_out:,} were left out as bad)" in told) == bool(left_out)


def test_the_error_of_2010_is_of_its_test_half() -> None:
    """The paper's is, so the validation half will not do: one is told where the test half has to lie."""
    assert unlike("ilsvrc-2010", 1000, 1_261_406, 150_000, 0) == ""
    told = unlike("ilsvrc-2010", 1000, 1_261_406, 50_000, 0)
    assert "1,261,406 + 50,000 pictures; ilsvrc-2010 has 1,000, 1,261,406 + 150,000: " in told
    assert "SOURCE/test/, without val/" in told


def test_of_2009_only_the_classes_are_known() -> None:
    """The paper says "8.9 million": a round number that no set can be held to."""
    assert unlike("imagenet-2009", 10_184, 4_447_000, 4_449_000, 0) == ""
    told = unlike("imagenet-2009", 10_000, 4_450_000, 4_450_000, 0)
    assert told.endswith("; imagenet-2009 has 10,184: prepare it again from the whole archive")


def test_every_set_that_a_claim_can_name_is_known() -> None:
    """Those without pictures apart."""
    for name in experiments.names():
        field = experiments.get(name).Parameters.model_fields["dataset"]
        assert set(get_args(field.annotation)) - {"none"} <= DATASETS.keys()


def _written(path: Path, content: bytes) -> None:
    """Write a file without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_what_is_planned_with_is_what_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the synthetic set, which experiments draw in two forms; and a forecast adds up to the cost."""

    def blank(n: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((n, size, size, 3), seed, np.uint8), np.arange(n) % 10

    monkeypatch.setattr("repro.data.embedded.draw", blank)
    monkeypatch.setattr("repro.data.drawn.write_atomically", _written)
    small = {"dataset": "embedded", "protocol": "modern", "stored": SIDE, "crop": SIDE, "epochs": 1.0}
    files = load("final-error", final_error.Parameters(**small), Place(None, tmp_path))
    held = [len(data.load("embedded", None, train=train).images) for train in (True, False)]
    curve, error = (datasets.used(name, "embedded") for name in (epochs_to.NAME, final_error.NAME))
    assert (curve.classes, curve.train, curve.test) == (10, *held)
    assert (error.classes, error.train, error.test) == (files.classes, files.count("train"), files.count("val"))
    for id_, images in (("relu-speedup", curve.train), ("lrn-error", error.train)):
        claim = REGISTRY[id_]
        smoke = claim.conditions["smoke"]
        cost = plan.cost(claim, smoke, smoke.seeds, (), "cpu")
        assert cost.seconds == pytest.approx(cost.epochs * images / smoke.assumed_speed["cpu"])
        (row,) = forecast.left(
            {id_: claim}, (), reuse.Demand({}, {}), scales=("smoke",), device="cpu", gpus=0, data=None
        )
        assert sum(seconds for _, seconds in row.tasks) == pytest.approx(cost.seconds)


def test_preparing_other_pictures_under_a_name_says_so_at_once(stand_in: Path, tmp_path: Path) -> None:
    """A line on stderr, not first when a run has been begun; a name that promises nothing has none."""
    for name, told in (("ilsvrc-2012", True), ("mine", False)):
        out = tmp_path / name
        command = ["data", "prepare", str(stand_in / "source"), str(out), "--side", str(SIDE), "--jobs", "1"]
        result = CliRunner().invoke(main, command, prog_name="repro")
        assert result.exit_code == 0
        assert f"{out}: 12 classes, 24 train, 12 val, 0 left out" in result.stdout
        said = f"repro: {out} holds 12 classes, 24 + 12 pictures; ilsvrc-2012 has 1,000, 1,281,167 + 50,000"
        assert result.stderr.startswith(said) == told
        assert bool(result.stderr) == told


def test_a_drawn_set_of_other_counts_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that an earlier version left in the store, say."""
    from repro.data import drawn

    monkeypatch.setattr(drawn, "COUNTS", {"train": 20, "val": 10})
    old = drawn.prepared(tmp_path / "set", SIDE)
    monkeypatch.setattr(drawn, "COUNTS", {"train": 30, "val": 10})
    new = drawn.prepared(tmp_path / "set", SIDE)
    assert (len(old.files["train"]), len(new.files["train"])) == (20, 30)
    assert drawn.prepared(tmp_path / "set", SIDE).digest == new.digest != old.digest


@pytest.mark.parametrize(("pictures", "outcome"), [(50_000, "REPRODUCED"), (49_960, "REPRODUCED"), (72, "ERROR")])
def test_no_verdict_rests_on_other_pictures_than_the_name_promises(pictures: int, outcome: str) -> None:
    """Records from before a name was held to its set say how many pictures they were tested on, and are held to it."""
    claim = REGISTRY["lrn-error"]
    condition = claim.conditions["ilsvrc-2012"]
    names = [(f"top{k}-error-{view}", gain) for k, gain in ((1, 1.4), (5, 1.2)) for view in ("centre", "ten")]
    tested = Measurement(name="test-images", value=pictures, unit="images")
    trials = []
    for arm, p in condition.arms.items():
        for seed in condition.seeds:
            more = {"none": 1, "lrn": 0}[arm]
            errors = (Measurement(name=name, value=40 + more * gain + seed / 10, unit="%") for name, gain in names)
            spec = experiments.get("final-error").spec(p, seed)
            trials.append(Trial(spec=spec, data_digest="d", status="completed", measurements=(*errors, tested)))
    found = judge(claim, condition, trials, [condition.seeds])
    assert found.outcome == outcome, found.reason
    assert (outcome == "ERROR") == ("was tested on 72 pictures, which is not what ilsvrc-2012 has" in found.reason)
