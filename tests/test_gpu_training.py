"""Training on a GPU: recorded steps, threads, precisions, and a trial stopped and gone on with. Needs one."""

import copy
import itertools
import os

import crash
import pytest
import torch
from test_captured import batches, parameters

from repro import measure, store
from repro.experiments import epochs_to, final_error
from repro.measure import Monitor, Task
from repro.models import cifar
from repro.models.nets import network
from repro.running import runner
from repro.training import precision
from repro.training.captured import Captured, update_for
from repro.training.loop import Interrupted, updating
from repro.training.optimizer import optimizer_for
from repro.training.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _strict():
    """Single precision throughout, and as it was before once the test is over."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or torch refuses to be deterministic
    precision.use("fp32")
    yield
    precision.use("fp32")
    torch.use_deterministic_algorithms(False)


def small(net):
    """Return a CIFAR-10 net, or the small form of the network of section 3, with its optimizer; on the GPU."""
    if net in cifar.NETS:
        model = cifar.build(net, "relu")
        cifar.initialise(model, net, "relu", "modern", 0)
        model = model.to(GPU, memory_format=torch.channels_last)
        return model, lambda m: optimizer_for(m, "modern", 0.001)
    p = parameters(protocol=net)
    model = network(p, 10, 0).to(GPU, memory_format=torch.channels_last)
    return model, lambda m: Recipe(
        m, net=p.net, protocol=p.protocol, rate=1e-3, weight_decay=5e-4, kind="released"
    ).optimizer  # fmt: skip


@pytest.mark.parametrize("net", [*cifar.NETS, "paper", "code", "modern"])
def test_a_recorded_update_is_the_update(net):
    """Six batches, each followed by a check; the kernels are the same, sums on a GPU may differ in their order."""
    model, optimizer_of = small(net)
    other = copy.deepcopy(model)
    optimizer, other_optimizer = optimizer_of(model), optimizer_of(other)
    captured, eager = Captured(updating(model, optimizer), model, optimizer), updating(other, other_optimizer)
    for step, (images, labels) in enumerate(batches(32, 10)):
        images = (images if net not in cifar.NETS else images / 50).to(GPU)
        for own in (model, other):
            for module in own.modules():
                if hasattr(module, "draw"):
                    module.draw.at(step)
        one = [float(part) for part in captured(images, labels.to(GPU))]
        two = [float(part) for part in eager(images, labels.to(GPU))]
        assert one == pytest.approx(two, rel=1e-3), f"step {step}"
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["tf32", "bf16"])
def test_a_narrower_precision_learns_as_well(name):
    """The first loss is nearly that of single precision, and thirty steps on one batch lower it about as far."""
    found = []
    for each in ("fp32", name):
        precision.use(each)
        model, optimizer_of = small("18pct")
        precision.compute_in(model, each)
        update = update_for(model, optimizer_of(model), captured=True)
        ((images, labels),) = itertools.islice(batches(32, 10), 1)
        losses = [float(update(images.to(GPU) / 50, labels.to(GPU))[1]) for _ in range(30)]
        found.append((losses[0], losses[0] - losses[-1]))
    assert found[1][0] == pytest.approx(found[0][0], rel=0.02)
    assert found[1][1] == pytest.approx(found[0][1], rel=0.25)


def final(seed=0, **changed):
    return final_error.spec(final_error.Parameters(**crash.SMALL, epochs=2.0, **changed), seed)


def curve(root, spec, data):
    return (store.folder(root, spec.identity(data.digest)) / "curve.csv").read_text()


@pytest.mark.parametrize("eager", [False, True], ids=["recorded", "eager"])
def test_a_trial_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, eager):
    """To the bit, with operations that allow it: no state of the GPU is lost, dropout's least of all."""
    torch.use_deterministic_algorithms(True)
    spec, data = final(), crash.pictures().to(GPU)
    for name, stop_after in (("unbroken", None), ("stopped", 7)):
        task = Task(spec, "scoring", 2.0, tmp_path / name, GPU, eager=eager)
        if stop_after is not None:
            asked = [False] * stop_after + [True]
            with pytest.raises(Interrupted):
                measure.measure(task, data, Monitor(stopping=iter(asked).__next__))
        assert measure.measure(task, data, Monitor()).status == "completed"
    assert curve(tmp_path / "unbroken", spec, data) == curve(tmp_path / "stopped", spec, data)


@pytest.mark.parametrize("kind", ["final-error", "epochs-to"])
def test_recorded_and_eager_trials_agree(tmp_path, kind):
    """Whole trials, through the runner's own way of measuring."""
    if kind == "final-error":
        spec, data = final(dropout=False), crash.pictures().to(GPU)
    else:
        p = epochs_to.Parameters(
            net="19pct", activation="relu", dataset="embedded", protocol="modern", batch=8, checks_per_epoch=4,
            max_epochs=5.0, rates=(0.01, 0.02, 0.04),
        )  # fmt: skip
        spec, data = epochs_to.spec(p, 0, 0.02), crash.colours().to(GPU)
    found = {}
    for eager in (False, True):
        trial = measure.measure(Task(spec, "scoring", 5.0, tmp_path / str(eager), GPU, eager=eager), data, Monitor())
        assert trial.environment["captured"] is not eager
        found[eager] = [m.value for m in trial.measurements]
    assert found[False] == pytest.approx(found[True], rel=0.2, abs=5.0)


def test_trials_side_by_side_are_what_they_are_alone(tmp_path):
    """Four at once, a thread and a stream each, with operations that give the same bits: equal curves."""
    arms = {
        arm: final_error.Parameters(**crash.SMALL, epochs=1.0, dropout=arm == "with") for arm in ("with", "without")
    }
    condition, data = type("C", (), {"arms": arms}), crash.pictures()
    source = runner.Source(data, "final-error", arms["with"], None)
    for jobs in (1, 4):
        found = runner.run(
            condition, source, seeds=(0, 1), store=tmp_path / str(jobs), device=GPU, jobs=jobs, deterministic=True
        )
        assert found.failed == []
        assert len(found.finished) == 4
    for trial in store.load(tmp_path / "1")[0]:
        assert curve(tmp_path / "1", trial.spec, data) == curve(tmp_path / "4", trial.spec, data)
