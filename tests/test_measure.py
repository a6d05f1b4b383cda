"""The experiment ``epochs-to`` as run: when a trial ends, what it records, and that a stop changes nothing."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro.data import Dataset, embedded
from repro.experiments import TRAINED
from repro.experiments.epochs_to import MEASUREMENT, NUMERICS, Parameters
from repro.measure import Monitor, Setting, Task
from repro.measure import epochs_to as module
from repro.measure.epochs_to import measure, step_of_crossing
from repro.store import TrialSpec, folder, load_curve
from repro.training import loop
from repro.training.inputs import batches
from repro.training.loop import Check, Interrupted

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def colours(n=128, classes=10):
    """Return noisy patches of one colour a class: learned in a few epochs."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    palette = rng.integers(40, 216, (classes, 1, 1, 3))
    images = np.clip(palette[labels] + rng.normal(0, 20, (n, 8, 8, 3)), 0, 255).astype(np.uint8)
    return Dataset("colours", torch.from_numpy(images), torch.from_numpy(labels), classes, "colours-1")


def noise(n=64):
    """Return pictures that nobody can tell apart."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), rng.integers(0, 10, n)
    return Dataset("noise", torch.from_numpy(images), torch.from_numpy(labels), 10, "noise-1")


def task(store, *, rate=0.02, limit=30.0, role="scoring", seed=0, **config):
    settings = {
        "net": "19pct",
        "activation": "relu",
        "dataset": "embedded",
        "protocol": "modern",
        "batch": 8,
        "checks_per_epoch": 4,
        "rate": rate,
        **config,
    }
    return Task(
        TrialSpec(experiment="epochs-to", numerics=NUMERICS, config=settings, seed=seed),
        role,
        limit,
        Setting(store, CPU),
    )


def curve_of(store, trial):
    return load_curve(store, trial.identity)


def test_the_crossing_is_interpolated_in_log_error():
    """From 0.5 at step 100 to 0.125 at step 120, 0.25 lies half way; 0.35355 a quarter."""
    above, below = Check(100, 0.5, 1.0, 50), Check(120, 0.125, 0.3, 50)
    assert step_of_crossing(above, below, 0.25, 128) == pytest.approx(110)
    assert step_of_crossing(above, below, 0.5 * 2**-0.5, 128) == pytest.approx(105)
    assert step_of_crossing(above, below, 0.125, 128) == pytest.approx(120)


def looked(store, *errors, images=128, limit=2.0, role="scoring", first=16):
    """Return a trial under way that saw these errors, every fourth step from step ``first`` on."""
    p = Parameters(
        net="19pct", activation="relu", dataset="embedded", protocol="modern", batch=8, max_epochs=limit,
        rates=(0.02,) * 3,
    )  # fmt: skip
    run = module._Run(task(store, limit=limit, role=role), p, colours(images), None, None, loop.Recent(16, 8, CPU))
    run.curve = [Check(first + 4 * i, error, 1.0, 16) for i, error in enumerate(errors)]
    run.recent.step = run.curve[-1].step
    return run


def test_a_target_passed_just_before_the_limit_is_no_miss(tmp_path):
    """Without the margin by which it is otherwise waited for."""
    run = looked(tmp_path, 0.3, 0.24, first=28)
    assert run.ended(run.curve[-1]).status == "completed"


def test_a_slow_rate_that_learns_is_not_given_up(tmp_path):
    run = looked(tmp_path, 0.5, limit=50.0, role="tuning", first=13 * 16)
    assert run.ended(run.curve[-1]) is None


def test_the_first_crossing_counts(tmp_path):
    assert 1.0 < looked(tmp_path, 0.3, 0.24, 0.27, 0.15).crossing() < 1.25


def test_an_epoch_is_all_images_also_where_a_batch_does_not_divide_them(tmp_path):
    assert looked(tmp_path, 0.5, images=130).epochs == pytest.approx(16 * 8 / 130)


def test_each_seed_starts_from_weights_of_its_own(tmp_path, monkeypatch):
    began, real = [], module.cifar.initialise
    monkeypatch.setattr(module.cifar, "initialise", lambda *given: began.append(given[-1]) or real(*given))
    for seed in (0, 1):
        measure(task(tmp_path, seed=seed, limit=0.25), noise(), Monitor())
    assert began == [0, 1]


def test_an_error_of_zero_counts_as_half_an_image():
    """Zero has no logarithm: of 2 steps of 25 images it is taken as 0.5 / 50 = 0.01."""
    found = step_of_crossing(Check(10, 1.0, 1.0, 2), Check(20, 0.0, 0.0, 2), 0.1, 25)
    assert found == pytest.approx(15)


def test_a_trial_ends_once_the_target_is_safely_passed(tmp_path):
    """It is completed at the interpolated crossing, and its last error is two standard errors below the target."""
    data = colours()
    trial = measure(task(tmp_path), data, Monitor())
    curve = curve_of(tmp_path, trial)
    assert trial.status == "completed"
    at = next(i for i, row in enumerate(curve) if row["error"] <= 0.25)
    a, b = curve[at - 1], curve[at]
    share = math.log(a["error"] / 0.25) / math.log(a["error"] / b["error"])
    assert trial.value(MEASUREMENT) == pytest.approx(a["epochs"] + share * (b["epochs"] - a["epochs"]), rel=1e-6)
    assert curve[-1]["error"] <= 0.25 - 2 * math.sqrt(0.25 * 0.75 / 128)
    assert all(row["error"] > 0.25 - 2 * math.sqrt(0.25 * 0.75 / 128) for row in curve[at:-1])
    assert trial.value(TRAINED) == curve[-1]["epochs"]
    assert not (folder(tmp_path, trial.identity) / "checkpoint.pt").exists()
    assert trial.environment["loader"] == "resident"


def test_a_target_below_the_first_look_is_no_miss(tmp_path):
    """Where the first check is below the target already, its epoch is the time: it took no longer."""
    trial = measure(task(tmp_path, target=0.97), colours(), Monitor())
    first = curve_of(tmp_path, trial)[0]
    assert first["error"] <= 0.97
    assert trial.status == "completed"
    assert trial.value(MEASUREMENT) == first["epochs"]


def test_a_target_passed_within_the_first_epoch_is_seen(tmp_path):
    """A crossing between two partial windows counts."""
    trial = measure(task(tmp_path, rate=0.01), colours(1024), Monitor())
    assert trial.status == "completed"
    assert 0.25 < trial.value(MEASUREMENT) < 1.0


def test_a_trial_that_misses_is_censored_at_its_limit(tmp_path):
    """It says the limit and where it stood, and keeps its checkpoint so that a raised limit can go on."""
    trial = measure(task(tmp_path, limit=2.0), noise(), Monitor())
    assert (trial.status, trial.limit) == ("censored", 2.0)
    assert trial.message.startswith("training error 0.")
    assert trial.message.endswith("after 2.00 epochs")
    assert [m.name for m in trial.measurements] == [TRAINED]
    assert (folder(tmp_path, trial.identity) / "checkpoint.pt").exists()


def test_a_raised_limit_goes_on_where_the_trial_stood(tmp_path):
    """Two epochs and then two more give the curve of four, to the bit."""
    data = noise()
    measure(task(tmp_path / "a", limit=2.0), data, Monitor())
    longer = measure(task(tmp_path / "a", limit=4.0), data, Monitor())
    straight = measure(task(tmp_path / "b", limit=4.0), data, Monitor())
    assert (longer.status, longer.limit) == ("censored", 4.0)
    assert curve_of(tmp_path / "a", longer) == curve_of(tmp_path / "b", straight)
    assert longer.measurements == straight.measurements


def test_a_trial_killed_before_its_record_was_written_ends_where_it_had_ended(tmp_path, monkeypatch):
    """Its state is saved first: the same command finds it at its limit, and does not train on to the next look."""
    data, limited = noise(), task(tmp_path, limit=2.0)

    def die():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module._Run, "record", lambda _run, status, *_: None if status == "running" else die())
        with pytest.raises(KeyboardInterrupt):
            measure(limited, data, Monitor())
    trial = measure(limited, data, Monitor())
    whole = measure(task(tmp_path / "whole", limit=2.0), data, Monitor())
    assert (trial.status, trial.limit, trial.message) == (whole.status, whole.limit, whole.message)
    assert trial.measurements == whole.measurements
    assert curve_of(tmp_path, trial) == curve_of(tmp_path / "whole", whole)


def test_a_trial_that_blows_up_is_diverged(tmp_path):
    """A loss that is not finite ends it at the next check, for good."""
    trial = measure(task(tmp_path, rate=1e6), colours(), Monitor())
    assert trial.status == "diverged"
    assert trial.limit is None
    assert "the loss was" in trial.message
    assert trial.value(TRAINED) <= 1.0


@pytest.mark.parametrize(("role", "status", "limit"), [("tuning", "censored", None), ("scoring", "censored", 14.0)])
def test_a_hopeless_rate_is_given_up_only_while_tuning(tmp_path, role, status, limit):
    """Still at chance after twelve epochs, a rate of the search is given up for good; a scored seed runs on."""
    balanced = replace(noise(80), labels=torch.arange(80) % 10)
    trial = measure(task(tmp_path, rate=1e-9, limit=14.0, role=role, checks_per_epoch=1), balanced, Monitor())
    assert (trial.status, trial.limit) == (status, limit)
    assert trial.value(TRAINED) == (12.0 if role == "tuning" else 14.0)
    if role == "tuning":
        assert trial.message == "still at chance after 12.0 epochs"


def test_more_checks_than_steps_are_one_a_step(tmp_path):
    """A set of few batches is looked at after every step, never before the first."""
    trial = measure(task(tmp_path, limit=1.0, batch=32, checks_per_epoch=50), noise(), Monitor())
    assert [row["epochs"] for row in curve_of(tmp_path, trial)] == [0.5, 1.0]


def test_a_batch_larger_than_the_set_is_one_clear_error(tmp_path):
    """The message says both sizes."""
    with pytest.raises(RuntimeError, match=r"^a batch of 65 is more than the 64 images of noise$"):
        measure(task(tmp_path, batch=65), noise(), Monitor())


def test_the_monitor_hears_epochs_and_errors(tmp_path):
    """Each check is reported in the unit of the limit."""
    heard = []
    trial = measure(task(tmp_path, limit=1.0), noise(), Monitor(report=lambda *words: heard.append(words)))
    rows = curve_of(tmp_path, trial)
    assert heard == [(row["epochs"], f"error {row['error']:.3f}") for row in rows]


class Stop:
    """Asks a training to stop after ``steps`` more steps."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("net", ["19pct", "18pct", "conv-local-13pct"])
def test_a_trial_stopped_at_random_steps_ends_the_same_to_the_bit(tmp_path, net):
    """Interrupted some times and resumed, curve, times and measurements are those of an unbroken run."""
    data = colours()
    whole = measure(task(tmp_path / "whole", net=net, activation="tanh", limit=6.0), data, Monitor())
    rng, stops, heard = random.Random(1), 0, []
    while True:
        broken = task(tmp_path / "broken", net=net, activation="tanh", limit=6.0)
        stopping = Stop(rng.randrange(20)) if stops < 8 else lambda: False
        try:
            trial = measure(broken, data, Monitor(lambda done, _words: heard.append(done), stopping))
        except Interrupted:
            stops += 1
            continue
        break
    assert stops >= 3
    assert (trial.status, trial.measurements, trial.message) == (whole.status, whole.measurements, whole.message)
    assert curve_of(tmp_path / "broken", trial) == curve_of(tmp_path / "whole", whole)
    assert heard == [row["epochs"] for row in curve_of(tmp_path / "broken", trial)]  # what was done is not done again


def test_a_trial_with_a_damaged_checkpoint_starts_afresh(tmp_path):
    """It gives the result of an unbroken run, and the damaged file lies beside."""
    data, limited = noise(), task(tmp_path, limit=2.0)
    place = folder(tmp_path, limited.spec.identity(data.digest))
    with pytest.raises(Interrupted):
        measure(limited, data, Monitor(stopping=Stop(5)))
    (place / "checkpoint.pt").write_bytes(b"damaged")
    trial = measure(limited, data, Monitor())
    whole = measure(task(tmp_path / "whole", limit=2.0), data, Monitor())
    assert curve_of(tmp_path, trial) == curve_of(tmp_path / "whole", whole)
    assert (place / "checkpoint.pt.bad").read_bytes() == b"damaged"


def test_the_state_is_saved_while_a_trial_runs(tmp_path, monkeypatch):
    """A process killed between checkpoints loses only what came after the last one."""
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    data, limited = noise(), task(tmp_path, limit=3.0)

    def die(done, _words):
        if done >= 2.0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(limited, data, Monitor(report=die))
    first = []
    trial = measure(limited, data, Monitor(report=lambda done, _words: first.append(done)))
    assert 1.0 < first[0] <= 2.0
    whole = measure(task(tmp_path / "whole", limit=3.0), data, Monitor())
    assert curve_of(tmp_path, trial) == curve_of(tmp_path / "whole", whole)


def test_arms_share_the_order_of_their_seed(tmp_path, monkeypatch):
    """Both activations of a seed are fed the same batches one by one; another seed is not."""
    fed = []

    def listening(*args, **kwargs):
        for images, labels in batches(*args, **kwargs):
            fed[-1].append(labels.tolist())
            yield images, labels

    monkeypatch.setattr(module, "batches", listening)
    for activation, seed in (("relu", 0), ("tanh", 0), ("relu", 1)):
        fed.append([])
        measure(task(tmp_path, activation=activation, seed=seed, limit=2.0), noise(), Monitor())
    assert len(fed[0]) == 16
    assert fed[0] == fed[1]
    assert fed[0] != fed[2]


# Mean loss over each of four epochs of five steps of 32 embedded images. With AVX-512, AVX2 or SSE, one thread or two,
# these move by at most 7e-6 (rounding, grown over 20 steps; tanh, because ReLU and raw input let it grow to 1e-3). A
# learning rate 1% off, a momentum of 0.91 and biases at another rate each move them by 3e-5 to 1e-2.
# Raise NUMERICS before writing down new ones.
GOLDEN = {
    ("19pct", "tanh", "modern", 0.02): [2.31811256, 2.10384007, 1.84056168, 1.67379818],
    ("18pct", "tanh", "code", 0.004): [2.30074883, 2.29481564, 2.28811951, 2.27803612],
    ("conv-local-13pct", "tanh", "modern", 0.005): [2.42497749, 2.09567337, 1.70748634, 1.30632677],
}


@pytest.mark.parametrize(("net", "activation", "protocol", "rate"), GOLDEN)
def test_short_curves_move_only_with_numerics(tmp_path, net, activation, protocol, rate):
    """Three short curves on embedded data, one a net, are those written down for this NUMERICS."""
    images, labels = embedded.draw(160, 32, seed=0)
    data = Dataset("embedded", torch.from_numpy(images), torch.from_numpy(labels), 10, "golden")
    arm = {"net": net, "activation": activation, "protocol": protocol, "rate": rate}
    trial = measure(task(tmp_path, **arm, batch=32, checks_per_epoch=1, limit=4.0), data, Monitor())
    losses = [row["loss"] for row in curve_of(tmp_path, trial)]
    assert losses == pytest.approx(GOLDEN[net, activation, protocol, rate], rel=2e-5)
