"""What the precision of a condition changes, and what it must leave alone."""

import copy

import pytest
import torch
from torch import nn

from repro.environment import describe
from repro.experiments import epochs_to
from repro.models import cifar
from repro.models.layers import SameMapNorm
from repro.models.normalization import MeanResponseNorm, ResponseNorm
from repro.training import precision
from repro.training.loop import updating
from repro.training.optimizer import optimizer_for

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _put_back():
    """Leave the process as strict as every experiment starts it."""
    yield
    precision.use("fp32")


@pytest.mark.parametrize(("name", "told"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_the_record_says_whether_tf32_was_allowed(name, told):
    precision.use(name)
    assert describe(CPU)["tf32"] is told


def test_precision_is_part_of_what_is_measured():
    """Two precisions are two trials; the default leaves the identity as it always was."""
    p = epochs_to.Parameters(net="19pct", activation="relu", dataset="embedded", protocol="code", max_epochs=1.0,
                             rates=(0.01, 0.02, 0.04))  # fmt: skip
    specs = [epochs_to.spec(p.model_copy(update={"precision": name}), 0, 0.01) for name in ("fp32", "tf32", "bf16")]
    assert len({spec.identity("data") for spec in specs}) == 3
    assert specs[0] == epochs_to.spec(p, 0, 0.01)
    assert "precision" not in specs[0].config


def net():
    model = cifar.build("18pct", "relu")
    cifar.initialise(model, "18pct", "relu", "modern", 0)
    return model.to(memory_format=torch.channels_last)


def test_in_bf16_only_the_arithmetic_is_narrow():
    """Convolutions give out bf16; weights, gradients and the answer stay in single precision."""
    model, seen = net(), []
    model.conv2.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    precision.compute_in(model, "bf16")
    answer = model(torch.randn(4, 3, 32, 32))
    answer.sum().backward()
    assert seen == [torch.bfloat16]
    assert answer.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "norm",
    [
        SameMapNorm(size=3, scale=5e-3),
        ResponseNorm(size=5, scale=1e-2, power=0.75, k=2.0),
        MeanResponseNorm(size=5, scale=1e-2, power=0.75, k=2.0),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_a_norm_rounds_its_answer_only(norm):
    """In bf16 a norm gives out what it would give in single precision, rounded once."""
    generator = torch.Generator().manual_seed(0)
    x = (10 * torch.randn(2, 16, 6, 6, generator=generator)).bfloat16()
    model = precision.compute_in(nn.Sequential(norm), "bf16")
    found = model(x).bfloat16()
    assert torch.equal(found, norm(x.float()).bfloat16())


@pytest.mark.parametrize("name", ["fp32", "tf32"])
def test_otherwise_the_model_is_left_alone(name):
    """To the bit, on a CPU."""
    model, images = net(), torch.randn(4, 3, 32, 32)
    before = model(images)
    assert torch.equal(precision.compute_in(model, name)(images), before)


def test_a_training_in_bf16_goes_the_same_way():
    """Forty steps on one batch take either loss far down, by other numbers, and about as far."""
    narrow, wide = precision.compute_in(net(), "bf16"), net()
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(16, 3, 32, 32, generator=generator), torch.arange(16) % 10
    losses = []
    for model in (narrow, wide):
        update = updating(model, optimizer_for(model, "modern", 0.01))
        losses.append([float(update(images, labels)[1]) for _ in range(40)])
    assert losses[0] != losses[1]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.02)
    fallen = [one[0] - one[-1] for one in losses]
    assert fallen[0] == pytest.approx(fallen[1], rel=0.25)
    assert min(fallen) > 0.5


def test_a_copy_of_a_model_in_bf16_computes_with_its_own_weights():
    """What is copied, say to warm up, must not answer for the original."""
    model = precision.compute_in(nn.Sequential(nn.Linear(3, 2)), "bf16")
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    x = torch.ones(1, 3)
    assert not model(x).any()
    assert other(x).any()
