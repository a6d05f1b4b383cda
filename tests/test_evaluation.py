"""A test of a network that is recorded and replayed finds what one does whose operations are called one by one.

As in test_captured.py torch.fx records here, which is as blind to what Python knows and decides as a CUDA graph.
"""

import copy
import itertools
import weakref

import pytest
import torch
from test_captured import NothingIsRead, by_torch_fx, parameters
from test_captured import batches as training_batches

from repro import garbage
from repro.experiments import final_error
from repro.loading.finish import Finish
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Setting, Task, measure
from repro.measure.member import Network
from repro.models.nets import network
from repro.store import load_curve
from repro.training import captured, evaluation
from repro.training.captured import Recording
from repro.training.evaluation import Evaluation
from repro.training.loop import updating
from repro.training.precision import compute_in
from repro.training.recipe import Recipe

STORED, CROP, CLASSES = 36, 32, 10
SIZES = (6, 6, 6, 4)  # of the batches of a test: the last is what was left


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Finish pictures as on a device, at once: on a CPU they are finished one by one, by numbers known to the host."""
    monkeypatch.setattr(Finish, "_looped", property(lambda _: False, lambda _self, _value: None), raising=False)


def finish(protocol, device="cpu"):
    draw = torch.Generator().manual_seed(3)
    mean = (100 + 40 * torch.rand(STORED, STORED, 3, generator=draw)).to(device)
    if protocol == "modern":
        return Finish.standardised(mean.mean((0, 1)), torch.full_like(mean[0, 0], 50.0)).finish_views
    return Finish.less_mean_image(mean, "centre" if protocol == "code" else "window").finish_views


def views(count=1, sizes=SIZES):
    """Yield batches of views that differ, with labels."""
    draw = torch.Generator().manual_seed(count)
    for size in sizes:
        images = torch.randint(256, (size, count, CROP, CROP, 3), generator=draw, dtype=torch.uint8)
        yield images, torch.randint(CLASSES, (size,), generator=draw)


def net(p):
    return network(p, CLASSES, 0).to(memory_format=torch.channels_last)


def evaluations(p, model):
    """Return one that is recorded, what was recorded so far, and one that is not, of a copy of the model."""
    other = copy.deepcopy(model)
    recorded = Evaluation(model, finish(p.protocol), captured=True)
    _, made = by_torch_fx(recorded.recording)
    return recorded, made, Evaluation(other, finish(p.protocol))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"protocol": "code"},
        {"protocol": "modern", "norm": "batch"},
        {"net": "conv-local-13pct"},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_a_recorded_test_is_the_test_while_the_network_learns(changed):
    """To the bit, three times with two updates before each, whose dropout and statistics a test has not."""
    p = parameters(**changed)
    model = compute_in(net(p), p.precision)
    recorded, made, plain = evaluations(p, model)
    updates = []
    for own in (model, plain.model):
        optimizer = Recipe(
            own, net=p.net, protocol=p.protocol, rate=1e-3, weight_decay=5e-4, kind="released"
        ).optimizer  # fmt: skip
        updates.append(updating(own, optimizer))
    stream, seen = training_batches(CROP, CLASSES), []
    for test in range(3):
        for images, labels in itertools.islice(stream, 2):
            for update in updates:
                update(images, labels)
        found, labels = recorded(views())
        expected, theirs = plain(views())
        assert found.shape == (sum(SIZES), CLASSES)
        assert torch.equal(found, expected), f"test {test}"
        assert torch.equal(labels, theirs)
        assert model.training
        seen.append(found)
    assert len(made) == 1
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_a_recording_serves_until_a_test_begins_otherwise():
    """With ten views it does, and back; the smaller batch at the end of a test is in no recording."""
    p = parameters()
    recorded, made, plain = evaluations(p, net(p))
    counts = []
    for count, sizes in ((1, SIZES), (1, (6, 2)), (10, (2, 1)), (10, (2,)), (1, SIZES)):
        found, _ = recorded(views(count, sizes))
        assert torch.equal(found, plain(views(count, sizes))[0])
        counts.append(len(made))
    assert counts == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("kept", [1, 1 << 28])
def test_what_was_found_is_not_overwritten(monkeypatch, kept):
    """Three batches of one form, through one place in memory: each answer is there at the end, and in their order.

    Also where each is brought home before the next one.
    """
    monkeypatch.setattr(evaluation, "KEPT", kept)
    p = parameters()
    model = net(p)
    recorded, _, _ = evaluations(p, model)
    for training in (True, False):  # as it was before the test, it is after it
        model.train(training)
        found, labels = recorded(views(10))
        assert model.training is training
        model.eval()
        with torch.no_grad():
            alone = [
                model(finish(p.protocol)(images)).softmax(1).view(-1, 10, CLASSES).mean(1) for images, _ in views(10)
            ]
        assert torch.equal(found, torch.cat(alone))
        assert torch.equal(labels, torch.cat([truth for _, truth in views(10)]))
        assert not torch.equal(alone[0], alone[1])


def test_nothing_waits_for_the_device_while_it_is_tested():
    """Nor while it is recorded; a test_devices.py of fake tensors looks after copies from the host."""
    p = parameters()
    recorded, _, plain = evaluations(p, net(p))
    for tested in (plain, recorded):
        with NothingIsRead():
            tested(views())


def test_the_recording_goes_with_the_network(monkeypatch):
    """And one of another form before the next is made, without the collector of cycles."""
    seen = []

    def record(_warm_up, body):
        assert all(replay() is None for replay in seen)
        result = body()
        replay = type("Replay", (), {"__call__": lambda _: None})()
        seen.append(weakref.ref(replay))
        return replay, result

    monkeypatch.setattr(captured, "cuda_graph", record)
    made = Network(parameters(protocol="modern", batch=8), pictures(), 0, "resident", captured=True)
    with garbage.put_off():
        for count in (1, 10):
            made.evaluation(made.views("val", count))
        assert len(seen) == 2
        assert seen[1]() is not None
        del made
        assert seen[1]() is None


def pictures():
    return Pictures.drawn(40, 20, "sha256:made-up", side=STORED)


@pytest.mark.parametrize("changed", [{"epochs": 1.0}, {"epochs": 2.0, "schedule": "plateau"}], ids=str)
def test_a_trial_whose_steps_and_tests_are_recorded_is_the_trial(changed, tmp_path, monkeypatch):
    """To the bit, in its errors and its curve; under `plateau` it is tested between its steps."""
    p = parameters(batch=8, rate=0.01, **changed)
    spec = final_error.spec(p, 0)
    task = Task(spec, "scoring", p.epochs, Setting(tmp_path / "eager", torch.device("cpu")))
    eager = measure(task, pictures(), Monitor())
    counts = []

    class ByTorchFx(Recording):
        def __init__(self, *what):
            super().__init__(*what)
            counts.append(by_torch_fx(self)[1])

    for module in ("captured", "evaluation"):
        monkeypatch.setattr(f"repro.training.{module}.Recording", ByTorchFx)
    monkeypatch.setattr(Setting, "captured", property(lambda _: True))
    recorded = measure(
        Task(spec, "scoring", p.epochs, Setting(tmp_path / "recorded", task.setting.device)), pictures(), Monitor()
    )
    assert recorded.environment["captured"] is True
    assert eager.environment["captured"] is False
    assert recorded.measurements == eager.measurements
    curves = [load_curve(tmp_path / name, spec.identity("sha256:made-up")) for name in ("eager", "recorded")]
    assert curves[0] == curves[1]
    assert [len(made) for made in counts][1:] == [2]  # one for one view and one for ten, behind the update's
