"""A recorded update does what the update does, batch for batch.

A CUDA graph needs a GPU (tests/test_gpu.py). Here torch.fx records instead, and with the same blindness: it writes down
the operations of one call, with every Python number and every decision as they then were, and replays just those.
"""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from repro.experiments.final_error import Parameters
from repro.models import cifar
from repro.models.nets import network
from repro.training.captured import Captured
from repro.training.loop import updating
from repro.training.optimizer import optimizer_for
from repro.training.recipe import Recipe

BATCH = 8
STEPS = 6


def recorded(state):
    """Return a recorder by torch.fx. Unlike a CUDA graph, writing runs what is written: ``state()`` is put back."""

    def record(body):
        before = {t: t.detach().clone() for t in state()}
        shapes = []

        def flat():
            found = body()
            shapes.append(found)
            return list(found)

        written = make_fx(flat)()
        result = tuple(part.detach().clone() for part in shapes[-1])
        with torch.no_grad():
            for tensor in state():
                tensor.copy_(before[tensor])

        def replay():
            with torch.no_grad():
                for own, part in zip(result, written(), strict=True):
                    own.copy_(part)

        return replay, result

    return record


def batches(size, classes, steps=STEPS):
    """Yield images and labels that differ from step to step."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = 50 * torch.randn(BATCH, size, size, 3, generator=generator)
        yield images.permute(0, 3, 1, 2), torch.randint(classes, (BATCH,), generator=generator)


def both(model, optimizer_of, stream, before=lambda _optimizer, _step: None):
    """Train two copies, one by recordings; return pairs of errors and losses, and pairs of weights."""
    other = copy.deepcopy(model)
    optimizer, other_optimizer = optimizer_of(model), optimizer_of(other)
    plain = updating(other, other_optimizer)
    captured = Captured(updating(model, optimizer), model, optimizer)
    captured.record = recorded(captured._state)
    found = []
    for step, (images, labels) in enumerate(stream):
        before(optimizer, step)
        before(other_optimizer, step)
        found.append([(*map(float, update(images, labels)),) for update in (captured, plain)])
    return found, list(zip(model.parameters(), other.parameters(), strict=True))


def assert_the_same(found, weights):
    assert all(one == other for one, other in found), found
    assert len({pair[0] for pair in found}) > 1  # the batches differ, and so does what was found in them
    assert all(torch.equal(one, other) for one, other in weights)


@pytest.mark.parametrize("protocol", ["code", "modern"])
@pytest.mark.parametrize("net", list(cifar.NETS))
def test_a_recorded_update_of_a_small_net_is_the_update(net, protocol):
    """To the bit: weights, errors and losses of six steps, from the first on, whose velocity is not there yet."""
    model = cifar.build(net, "relu")
    cifar.initialise(model, net, "relu", protocol, 0)
    model = model.to(memory_format=torch.channels_last)
    assert_the_same(*both(model, lambda m: optimizer_for(m, protocol, 0.001), batches(32, 10)))


def parameters(**changed):
    """Return those of a small form of the network of section 3."""
    given = {"dataset": "embedded", "protocol": "paper", "net": "alexnet-32", "stored": 36, "crop": 32, "epochs": 1.0}
    return Parameters(**{**given, **changed})


@pytest.mark.parametrize("changed", [{}, {"protocol": "code"}, {"protocol": "modern", "norm": "batch"}], ids=str)
def test_a_recorded_update_follows_the_schedule(changed):
    """Rates that fall, and a layer that is frozen, as in the notes of 2012: each is recorded anew."""
    p = parameters(**changed, dropout=False)
    model = network(p, 10, 0).to(memory_format=torch.channels_last)
    recipes = {}

    def optimizer_of(m):
        recipe = Recipe(m, net=p.net, protocol=p.protocol, rate=1e-3, weight_decay=5e-4, kind="released")
        recipes[recipe.optimizer] = recipe
        return recipe.optimizer

    done = (0.0, 0.0, 0.5, 0.5, 0.9, 0.9)  # before the first drop, behind one, and with conv1 frozen under `code`
    found, weights = both(model, optimizer_of, batches(32, 10), lambda o, step: recipes[o].set_rates(done[step]))
    assert_the_same(found, weights)


def test_what_the_recording_was_made_for_is_looked_at():
    """A rate, a mode and a shape that change are recorded anew, and nothing else is."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    made = []

    def record(body):
        made.append(1)
        return (lambda: None), body()

    captured = Captured(updating(model, optimizer), model, optimizer, record)
    images, labels = torch.randn(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64)
    counts = []
    same, faster = lambda: None, lambda: optimizer.param_groups[0].update(lr=0.2)
    for change in (same, same, faster, same, model.eval):
        change()
        captured(images, labels)
        counts.append(len(made))
    captured(images[:2], labels[:2])
    assert [*counts, len(made)] == [1, 1, 2, 2, 3, 4]


def test_warming_up_leaves_nothing_behind():
    """Weights, running statistics and velocities are those from before, or 0 where there were none."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    before = copy.deepcopy(model.state_dict())
    captured = Captured(updating(model, optimizer), model, optimizer, lambda _body: ((lambda: None), (None, None)))
    captured(torch.randn(4, 3, 4, 4), torch.zeros(4, dtype=torch.int64))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert optimizer.state
    assert all(not state["momentum_buffer"].any() for state in optimizer.state.values())


@pytest.mark.parametrize("net", ["19pct", "alexnet-32"])
def test_nothing_in_an_update_waits_for_the_device(net):
    """While a GPU records, reading a value from it is forbidden; here every way of reading one is caught."""
    if net in cifar.NETS:
        model = cifar.build(net, "relu")
        cifar.initialise(model, net, "relu", "code", 0)
        optimizer = optimizer_for(model, "code", 0.001)
    else:
        p = parameters()
        model = network(p, 10, 0)
        optimizer = Recipe(
            model, net=p.net, protocol="paper", rate=1e-3, weight_decay=0.0, kind="released"
        ).optimizer  # fmt: skip
    update = updating(model, optimizer)
    ((images, labels),) = itertools.islice(batches(32, 10), 1)
    update(images, labels)
    with NothingIsRead():
        update(images, labels)
    with NothingIsRead(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        labels.sum().item()


class NothingIsRead(torch.utils._python_dispatch.TorchDispatchMode):
    """Refuses operations whose result, or its shape, is known to the host only once the device has got there."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero", "_to_cpu")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.WAITING, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))
