"""Input, data order, optimizer, checkpoints and the loop, against numpy, scalars and plain loops."""

import itertools
from itertools import chain
from math import isclose

import numpy as np
import pytest
import torch
from torch import nn

from repro.data import Dataset
from repro.models import cifar
from repro.training import checkpoint, loop
from repro.training.inputs import Input, batches
from repro.training.loop import Check, Interrupted, Recent, train, updating
from repro.training.optimizer import optimizer_for

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(n=60, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def numbered(n=60, size=8):
    """Return a data set whose label is the number of the image."""
    return Dataset("numbered", torch.from_numpy(pictures(n, size)), torch.arange(n), n, "")


def take(stream, n):
    return list(itertools.islice(stream, n))


def test_code_subtracts_the_mean_image():
    """`code` input is 0..255 less the mean of each pixel of each channel, channel first."""
    images = pictures(1500)  # more than one part of the sum
    expected = (images.astype(np.float64) - images.astype(np.float64).mean(0)).transpose(0, 3, 1, 2)
    x = Input(torch.from_numpy(images), "code")(torch.from_numpy(images))
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x.numpy(), expected, rtol=0, atol=3e-5)  # 255 to 24 bits


def test_modern_standardises_each_channel():
    """`modern` input has mean 0 and standard deviation 1 a channel over the whole set."""
    images = (pictures(300) * np.array([1.0, 0.5, 0.1])).astype(np.uint8)
    wide = images.astype(np.float64)
    expected = ((wide - wide.mean((0, 1, 2))) / wide.std((0, 1, 2))).transpose(0, 3, 1, 2)
    x = Input(torch.from_numpy(images), "modern")(torch.from_numpy(images))
    np.testing.assert_allclose(x.numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("protocol", ["code", "modern"])
def test_input_is_channels_last_without_a_copy(protocol):
    """The layout that convolutions are fastest in is a view of what was computed; the pixels stay as they are."""
    images = torch.from_numpy(pictures())
    before = images.clone()
    x = Input(images, protocol)(images)
    assert x.shape == (60, 3, 8, 8)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_an_epoch_is_a_permutation():
    """With 60 images in batches of 10, each run of six batches holds every image once, in another order."""
    labels = [y.tolist() for _, y in take(batches(numbered(), 10, seed=0), 18)]
    epochs = [list(chain.from_iterable(labels[i : i + 6])) for i in (0, 6, 12)]
    assert all(sorted(epoch) == list(range(60)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert epochs[0] != list(range(60))


def test_images_left_over_change_from_epoch_to_epoch():
    """With batches of 16 an epoch has three, no image comes twice in one, and the left-out ones differ."""
    labels = [y.tolist() for _, y in take(batches(numbered(), 16, seed=0), 6)]
    epochs = [set(chain.from_iterable(labels[i : i + 3])) for i in (0, 3)]
    assert [len(epoch) for epoch in epochs] == [48, 48]
    assert epochs[0] != epochs[1]


def test_images_stay_with_their_labels():
    """Each image comes with the label of its row."""
    data = numbered()
    for images, labels in take(batches(data, 16, seed=5), 6):
        assert torch.equal(images, data.images[labels])


@pytest.mark.parametrize("first", [0, 1, 2, 3, 5, 6, 7, 11])
def test_a_resume_from_any_step_gives_the_same_batches(first):
    """The stream from a step on is the tail of the stream from the start, at the borders of epochs too."""
    whole = [y.tolist() for _, y in take(batches(numbered(), 16, seed=1), 14)]
    assert [y.tolist() for _, y in take(batches(numbered(), 16, seed=1, first_step=first), 14 - first)] == whole[first:]


def test_the_order_hangs_on_the_seed_alone():
    """Equal seeds share the order, whatever torch's global generator did between; other seeds do not."""
    first = [y.tolist() for _, y in take(batches(numbered(), 16, seed=2), 4)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert [y.tolist() for _, y in take(batches(numbered(), 16, seed=2), 4)] == first
    assert [y.tolist() for _, y in take(batches(numbered(), 16, seed=3), 4)] != first


class Quadratic(nn.Module):
    """One weight and one bias, whose loss (weight - 3) ** 2 + 2 (bias + 1) ** 2 has gradients known by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(0.25, dtype=torch.float64))

    def forward(self):
        return (self.weight - 3) ** 2 + 2 * (self.bias + 1) ** 2


@pytest.mark.parametrize(("protocol", "bias_rate"), [("code", 0.02), ("modern", 0.01)])
def test_the_optimizer_is_the_rule_of_2012(protocol, bias_rate):
    """v <- 0.9 v - rate * gradient, w <- w + v, without decay; biases at twice the rate under `code`."""
    model = Quadratic()
    optimizer = optimizer_for(model, protocol, 0.01)
    w, b, vw, vb = 0.5, 0.25, 0.0, 0.0
    for _ in range(50):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
        vw = 0.9 * vw - 0.01 * 2 * (w - 3)
        vb = 0.9 * vb - bias_rate * 4 * (b + 1)
        w, b = w + vw, b + vb
        assert isclose(model.weight.item(), w, rel_tol=1e-13)
        assert isclose(model.bias.item(), b, rel_tol=1e-13)


@pytest.mark.parametrize("net", cifar.NETS)
def test_every_parameter_learns_once_and_biases_faster(net):
    """All weights are in the first group and all biases in the second, none in both, none left out."""
    model = cifar.build(net, "relu")
    weights, biases = optimizer_for(model, "code", 0.001).param_groups
    assert [weights["lr"], biases["lr"]] == [0.001, 0.002]
    assert {id(p) for p in biases["params"]} == {id(m.bias) for m in model if hasattr(m, "bias")}
    assert len(weights["params"]) + len(biases["params"]) == len(list(model.parameters()))
    assert all(group["weight_decay"] == 0 and group["momentum"] == 0.9 for group in (weights, biases))


def test_the_running_error_is_the_mean_over_the_last_window():
    """Over a window of four steps of 10 images: partial at first, then sliding."""
    recent, wrong, losses = Recent(4, 10, torch.device("cpu")), [9, 8, 7, 6, 3, 1], [2.0, 1.5, 1.0, 0.5, 0.25, 0.125]
    checks = []
    for step in range(6):
        recent.put(torch.tensor(wrong[step]), torch.tensor(losses[step]))
        checks.append(recent.check())
    assert checks[0] == Check(1, 0.9, 2.0, 1)
    assert checks[1] == Check(2, pytest.approx(0.85), 1.75, 2)
    assert checks[3] == Check(4, pytest.approx(0.75), 1.25, 4)
    assert checks[5] == Check(6, pytest.approx((7 + 6 + 3 + 1) / 40), (1.0 + 0.5 + 0.25 + 0.125) / 4, 4)


def test_the_running_error_survives_a_resume():
    """Its state, loaded into a fresh one, gives the same check."""
    recent, other = (Recent(3, 10, torch.device("cpu")) for _ in range(2))
    for wrong in [9, 5, 4, 2]:
        recent.put(torch.tensor(wrong), torch.tensor(1.0))
    other.load_state_dict(recent.state_dict())
    other.step = recent.step
    assert other.check() == recent.check()


def linear():
    """Return a linear classifier of zeros."""
    layer = nn.Linear(8 * 8 * 3, 40)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def run_of(checks, *, check_every=1.0):
    """Return the first ``checks`` checks of training a linear classifier on five batches an epoch, and that."""
    data, layer = numbered(40), linear()
    model = nn.Sequential(nn.Flatten(), layer)
    running = train(
        updating(model, torch.optim.SGD(model.parameters(), 0.01)),
        batches(data, 8, 0),
        Input(data.images, "modern"),
        Recent(5, 8, torch.device("cpu")),
        check_every=check_every,
    )
    return take(running, checks), layer


@pytest.mark.parametrize(
    ("check_every", "steps"),
    [(1.0, [1, 2, 3, 4, 5]), (1.2, [1, 2, 4, 5, 6]), (3.2, [3, 6, 10, 13, 16]), (5.0, [5, 10])],
)
def test_checks_are_spread_evenly(check_every, steps):
    """A check falls on each rounded multiple of a fractional distance, once."""
    checks, _ = run_of(len(steps), check_every=check_every)
    assert [check.step for check in checks] == steps


@pytest.mark.parametrize("check_every", [1.0, 1.2, 2.5, 3.2, 39.1])
def test_after_a_resume_the_checks_fall_on_the_same_steps(check_every):
    """From whatever step a training goes on, the checks still to come are those of an unbroken one."""
    due = [round(k * check_every) for k in range(1, 200)]

    def checks_from(first):
        empty = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
        stream = itertools.repeat((torch.zeros(1, 1, 1, 3), torch.zeros(1, dtype=torch.int64)))
        optimizer, recent = torch.optim.SGD(empty.parameters(), 0.0), Recent(1, 1, torch.device("cpu"))
        recent.step = first
        return train(updating(empty, optimizer), stream, lambda x: x, recent, check_every=check_every)

    for first in range(45):
        assert next(checks_from(first)).step == next(step for step in due if step > first)


def test_a_batch_is_measured_before_it_is_learned_from():
    """The first loss of a net of zeros is that of a blind guess, log 40; the window's mean is that of the steps."""
    checks, _ = run_of(5)
    assert isclose(checks[0].loss, np.log(40), rel_tol=1e-6)
    assert checks[4].window == 5
    singles = [checks[0].loss] + [b.loss * b.window - a.loss * a.window for a, b in itertools.pairwise(checks)]
    assert isclose(checks[4].loss, sum(singles) / 5, rel_tol=1e-5)


def test_the_loop_equals_a_plain_one():
    """Weights after twelve steps equal those of the loop one would write by hand, to the bit."""
    data, plain = numbered(40), linear()
    optimizer, prepare = torch.optim.SGD(plain.parameters(), 0.01), Input(data.images, "modern")
    for images, labels in take(batches(data, 8, 0), 12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(prepare(images).flatten(1)), labels).backward()
        optimizer.step()
    _, trained = run_of(3, check_every=4.0)
    assert torch.equal(trained.weight, plain.weight)
    assert torch.equal(trained.bias, plain.bias)


def test_an_interruption_comes_between_two_steps():
    """The fifth step is not begun: four batches were drawn, learned from and counted."""
    weights, recent, drawn = nn.Parameter(torch.zeros(1)), Recent(1, 1, torch.device("cpu")), itertools.count(1)

    def update(images, labels):
        with torch.no_grad():
            weights.add_(1)
        return labels, images

    stream = ((torch.zeros(()), torch.zeros(())) for _ in drawn)
    with pytest.raises(Interrupted):
        list(train(update, stream, lambda x: x, recent, check_every=9, stopping=lambda: recent.step >= 4))
    assert (weights.item(), recent.step, next(drawn)) == (4, 4, 5)


class Clocked:
    """A training by a clock of its own: 5 s to a check, of which there are three, 100 s to look, 1000 s to save."""

    def __init__(self, ends):
        self.now, self.trained_s, self.saved, self.ends = 0.0, 0.0, [], ends

    def monotonic(self):
        return self.now

    def save_state(self):
        self.now += 1000
        self.saved.append(self.trained_s)

    def checks(self):
        for step in (1, 2, 3):
            self.now += 5
            yield Check(step, 0.5, 1.0, 1)
        self.now += 2
        raise Interrupted

    def ended(self, check):
        self.now += 100
        return "" if check.step == self.ends else None  # an end that is falsy is an end


@pytest.mark.parametrize(("every", "saved"), [(0.0, [5.0, 10.0]), (50.0, [10.0]), (150.0, [])])
def test_only_training_counts_as_time_trained(monkeypatch, every, saved):
    """Neither looking nor saving does; the state is saved on the way, and holds the time so far."""
    run = Clocked(ends=3)
    monkeypatch.setattr(loop, "time", run)
    monkeypatch.setattr(loop, "CHECKPOINT_S", every)
    assert loop.train_to_the_end(run, run.checks(), run.ended) == ""
    assert (run.trained_s, run.saved) == (15.0, saved)


def test_an_interrupted_training_is_saved_with_its_last_seconds(monkeypatch):
    """Those since the last check; and the interruption is passed on."""
    run = Clocked(ends=None)
    monkeypatch.setattr(loop, "time", run)
    with pytest.raises(Interrupted):
        loop.train_to_the_end(run, run.checks(), run.ended)
    assert (run.trained_s, run.saved[-1]) == (17.0, 17.0)


def test_a_checkpoint_gives_back_what_was_saved(tmp_path):
    """Tensors to the bit with their memory layout, and plain values."""
    path = tmp_path / "trial" / "checkpoint.pt"
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    checkpoint.save(path, {"model": {"weight": weight}, "step": 7, "curve": [(1, 0.5, 2.0, 1)]})
    state = checkpoint.load(path, torch.device("cpu"))
    assert torch.equal(state["model"]["weight"], weight)
    assert state["model"]["weight"].stride() == weight.stride()
    assert state["step"] == 7
    assert [tuple(row) for row in state["curve"]] == [(1, 0.5, 2.0, 1)]


def test_no_checkpoint_is_no_state(tmp_path):
    """Where there is none, nothing is loaded and nothing is set aside."""
    assert checkpoint.load(tmp_path / "checkpoint.pt", torch.device("cpu")) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage"])
def test_a_damaged_checkpoint_is_set_aside(tmp_path, damage):
    """An unreadable file is kept beside its place, and the trial starts afresh."""
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"weight": torch.zeros(1000), "step": 3})
    path.write_bytes({"empty": b"", "truncated": path.read_bytes()[:900], "garbage": b"not a checkpoint"}[damage])
    content = path.read_bytes()
    assert checkpoint.load(path, torch.device("cpu")) is None
    assert not path.exists()
    assert path.with_name("checkpoint.pt.bad").read_bytes() == content
