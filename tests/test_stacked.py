"""Nets trained side by side learn what each learns alone."""

import pytest
import torch
from torch import nn

from repro.bench import stacked
from repro.models import cifar
from repro.training.loop import learn, updating

RATES = (0.001, 0.004, 0.0005)
STEPS, BATCH = 25, 4


def nets(net, activation, **more):
    made = [cifar.build(net, activation, size=16, **more) for _ in RATES]
    for seed, model in enumerate(made):
        cifar.initialise(model, net, activation, "modern", seed)
    return [model.double() for model in made]


def drawn(k, step):
    """Return the batch that net ``k`` sees at ``step``: each net has an order of its own."""
    generator = torch.Generator().manual_seed(1000 * k + step)
    images = 60 * torch.randn(BATCH, 3, 16, 16, generator=generator, dtype=torch.float64)
    return images, torch.randint(10, (BATCH,), generator=generator)


def alone(model, k, rate):
    """Return losses and errors of each step, the model having learned."""
    optimizer = torch.optim.SGD(model.parameters(), rate, 0.9)
    told = []
    for step in range(STEPS):
        wrong, loss = learn(model, *drawn(k, step))
        optimizer.step()
        optimizer.zero_grad()
        told.append((int(wrong), float(loss)))
    return told


@pytest.mark.parametrize(
    ("net", "activation", "more"),
    [
        ("18pct", "relu", {}),
        ("19pct", "tanh", {}),
        ("conv-local-13pct", "relu", {}),
        ("conv-local-13pct", "tanh", {"cross_map": True}),
    ],
)
def test_nets_side_by_side_learn_what_each_learns_alone(one_thread, net, activation, more):
    """Three nets with weights, batches and rates of their own, 25 steps in float64."""
    models = nets(net, activation, **more)
    whole = stacked.stack(models)
    rule = stacked.Momentum(whole, torch.tensor(RATES, dtype=torch.float64), 0.9)
    update = updating(whole, rule, stacked.learn)
    told = []
    for step in range(STEPS):
        batches = [drawn(k, step) for k in range(len(RATES))]
        images, labels = stacked.beside(x for x, _ in batches), torch.stack([y for _, y in batches])
        wrong, losses = update(images, labels)
        told.append((wrong.tolist(), losses.tolist()))
    for k, (model, rate) in enumerate(zip(models, RATES, strict=True)):
        expected = alone(model, k, rate)
        assert [wrong[k] for wrong, _ in told] == [wrong for wrong, _ in expected]
        torch.testing.assert_close([loss[k] for _, loss in told], [loss for _, loss in expected], rtol=1e-9, atol=0)
        assert expected[0][1] != pytest.approx(expected[-1][1], rel=1e-3)  # something was learned
        for name, own in model.named_parameters():
            part = dict(whole.named_parameters())[name].detach()
            part = part.view(len(RATES), *own.shape)[k]
            torch.testing.assert_close(part, own.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.Dropout()])
def test_a_layer_that_may_mix_nets_is_refused(layer):
    with pytest.raises(ValueError, match="not known to keep nets apart"):
        stacked.stack([nn.Sequential(layer)] * 2)


def test_weights_are_copies(one_thread):
    models = nets("19pct", "relu")
    before = models[0].conv1.weight.detach().clone()
    whole = stacked.stack(models)
    with torch.no_grad():
        whole.conv1.weight.zero_()
    torch.testing.assert_close(models[0].conv1.weight.detach(), before, rtol=0, atol=0)
