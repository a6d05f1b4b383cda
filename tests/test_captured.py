"""What is recorded does what it does call by call, batch for batch: updates, and tests between them.

A CUDA graph needs a GPU (tests/test_gpu.py). Here torch.fx records instead, and with the same blindness: it writes down
the operations of one call, with every Python number and every decision as they then were, and replays just those.
"""

import copy
import gc
import itertools
import threading
import time
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as tree

from repro import garbage
from repro.experiments.final_error import Parameters
from repro.models import cifar
from repro.models.nets import network
from repro.training import captured, graphs
from repro.training.captured import recorded_update
from repro.training.graphs import Streams, Unrecordable, cuda_graph
from repro.training.loop import updating
from repro.training.optimizer import optimizer_for
from repro.training.recipe import Recipe

BATCH = 8
STEPS = 6


def by_torch_fx(recording):
    """Have ``recording`` recorded by torch.fx, and return it and, filled as it goes, what was recorded.

    Unlike a CUDA graph, writing runs what is written: what it changes is put back.
    """
    made = []

    def record(warm_up, body):
        warm_up()
        before = {t: t.detach().clone() for t in recording.changed()}
        shapes = []

        def flat():
            found = body()
            shapes.append(found)
            return tree.tree_leaves(found)

        written = make_fx(flat)()
        result = tree.tree_map(lambda part: part.detach().clone(), shapes[-1])
        with torch.no_grad():
            for tensor in recording.changed():
                tensor.copy_(before[tensor])

        def replay():
            with torch.no_grad():
                for own, part in zip(tree.tree_leaves(result), written(), strict=True):
                    own.copy_(part)

        made.append(written)
        return replay, result

    recording.record = record
    return recording, made


def stub(recording, made):
    """Have ``recording`` run its body once and replay nothing; ``made`` gets what there was to record."""

    def record(_warm_up, body):
        made.append(body)
        return (lambda: None), body()

    recording.record = record
    return recording


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
    recorded, _ = by_torch_fx(recorded_update(updating(model, optimizer), model, optimizer))
    found = []
    for step, (images, labels) in enumerate(stream):
        before(optimizer, step)
        before(other_optimizer, step)
        found.append([(*map(float, update(images, labels)),) for update in (recorded, plain)])
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
    recorded = stub(recorded_update(updating(model, optimizer), model, optimizer), made)
    images, labels = torch.randn(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64)
    counts = []
    same, faster = lambda: None, lambda: optimizer.param_groups[0].update(lr=0.2)
    for change in (same, same, faster, same, model.eval):
        change()
        recorded(images, labels)
        counts.append(len(made))
    recorded(images[:2], labels[:2])
    assert [*counts, len(made)] == [1, 1, 2, 2, 3, 4]


def test_warming_up_leaves_nothing_behind():
    """Weights, running statistics and velocities are those from before, or 0 where there were none."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    before = copy.deepcopy(model.state_dict())
    recorded = recorded_update(updating(model, optimizer), model, optimizer)
    recorded.record = lambda warm_up, _body: ((lambda: None), warm_up())
    recorded(torch.randn(4, 3, 4, 4), torch.zeros(4, dtype=torch.int64))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert optimizer.state
    assert all(not state["momentum_buffer"].any() for state in optimizer.state.values())


def test_a_recording_that_is_no_longer_needed_is_gone(monkeypatch):
    """Before the next takes memory of its own, and with what held it, without the collector of cycles."""
    seen = []

    class Replay:
        def __call__(self):
            pass

    def record(_warm_up, body):
        assert all(replay() is None for replay in seen)
        replay = Replay()
        seen.append(weakref.ref(replay))
        return replay, body()

    monkeypatch.setattr(captured, "cuda_graph", record)
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    update = captured.update_for(model, optimizer, captured=True)
    with garbage.put_off():
        for size in (4, 2):
            update(torch.randn(size, 3), torch.zeros(size, dtype=torch.int64))
        assert len(seen) == 2
        assert seen[1]() is not None
        del update
        assert seen[1]() is None


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


# How a CUDA graph is recorded, with a torch.cuda that notes what it is asked for.


class Cuda:
    """Stands in for ``torch.cuda``: streams are numbered, and ``told`` has what was done, and on which stream."""

    OutOfMemoryError = torch.cuda.OutOfMemoryError

    def __init__(self):
        self.told, self.made, self.ended = [], itertools.count(), ""
        self.own, self.outside = threading.local(), SimpleNamespace(wait_stream=lambda _other: None)

    def current_device(self):
        return 0

    def synchronize(self):
        self.told.append("waited")

    def current_stream(self):
        return getattr(self.own, "stream", self.outside)

    def set_stream(self, stream):
        self.own.stream = stream

    def make(self, _device, priority):
        return SimpleNamespace(number=next(self.made), priority=priority, wait_stream=lambda _other: None)

    @contextmanager
    def stream(self, stream):
        before = self.current_stream()
        self.set_stream(stream)
        try:
            yield
        finally:
            self.set_stream(before)

    def CUDAGraph(self):
        return SimpleNamespace(reset=lambda: self.told.append("reset"), replay=lambda: None)

    @contextmanager
    def graph(self, _graph, *, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        before = self.current_stream()
        self.set_stream(stream)
        try:
            yield
        finally:
            if self.ended:  # as torch does: whatever was raised inside, and with its stream still in place
                raise RuntimeError(self.ended)
            self.set_stream(before)


@pytest.fixture
def cuda(monkeypatch):
    made = Cuda()
    monkeypatch.setattr(graphs, "torch", SimpleNamespace(cuda=made))
    monkeypatch.setattr(graphs, "_streams", Streams(made.make))
    return made


def test_a_graph_is_recorded_where_it_was_warmed_up_and_nobody_else_records(cuda):
    """The stream of a graph is its own until the graph is no more; then the next one has it."""
    on = []

    def graph():
        made, _ = cuda_graph(*[lambda: on.append(cuda.current_stream().number)] * 2)
        return made

    one, other = graph(), graph()
    assert on == [0, 0, 1, 1]
    del one
    assert cuda.told[:3] == ["waited", "waited", "reset"]
    third, fourth = graph(), graph()
    assert on[4:] == [0, 0, 2, 2]
    assert len({id(made.stream) for made in (other, third, fourth)}) == 3


def test_streams_are_unlike_until_there_are_no_more():
    """torch has 32 of a priority, in turn; a fourth priority it does not know, and the first is everybody's."""
    asked = []
    streams = Streams(lambda *what: asked.append(what) or object())
    taken = [streams.take(0) for _ in range(96)]
    assert asked == [(0, priority) for priority in (-1, -2, -3) for _ in range(32)]
    with pytest.raises(Unrecordable, match="--jobs"):
        streams.take(0)
    assert streams.take(1) not in taken  # another device has its own
    streams.give(0, taken[5])
    assert streams.take(0) is taken[5]


@pytest.mark.parametrize(
    ("error", "told", "words"),
    [
        (ValueError, Unrecordable, r"--eager .*\(CUDA out of reach\)$"),
        (torch.cuda.OutOfMemoryError, torch.cuda.OutOfMemoryError, r"^CUDA out of reach"),
    ],
)
def test_why_a_recording_failed_is_told(cuda, monkeypatch, error, told, words):
    """Not that the recording could not be ended, which torch says in its place; what is left of it touches nothing."""
    monkeypatch.setattr(graphs, "_failed", [])
    cuda.ended = "operation failed due to a previous error during capture"

    def attempt(words):
        def fail():
            raise error("CUDA out of reach\nand more")

        with pytest.raises(told, match=words):
            cuda_graph(lambda: None, fail)
        return weakref.ref(fail)

    with garbage.put_off():
        assert attempt(words)() is None  # nor is the network kept, until a collector of cycles comes by
    assert cuda.current_stream() is cuda.outside
    assert "reset" not in cuda.told  # the allocator still asks it
    attempt("after another that could not" if told is Unrecordable else words)
    cuda.ended = ""
    assert cuda_graph(lambda: None, lambda: None)[0].stream.number == 2


def test_no_cycle_is_collected_while_it_is_recorded(cuda):
    """A graph might be in one, and torch 2.11 frees it by a call that ends a recording."""
    assert gc.isenabled()
    assert cuda_graph(lambda: None, gc.isenabled)[1] is False
    assert gc.isenabled()


def test_nor_when_another_thread_that_put_it_off_is_done(cuda):
    """One that reads a store meanwhile, say: begun before the recording, and ended within."""
    begun, go_on = threading.Event(), threading.Event()

    def reads():
        with garbage.put_off():
            begun.set()
            assert go_on.wait(60)

    other = threading.Thread(target=reads)
    other.start()
    assert begun.wait(60)

    def body():
        go_on.set()
        other.join()
        return gc.isenabled()

    assert cuda_graph(lambda: None, body)[1] is False
    assert gc.isenabled()


def test_a_graph_that_is_dropped_while_another_is_recorded_is_freed_behind_it(cuda):
    """torch 2.11 keeps the graphs of a device in a set, without a lock."""
    first = [cuda_graph(lambda: None, lambda: None)[0]]

    def body():
        first.clear()
        gc.collect()
        return "reset" in cuda.told

    second, freed = cuda_graph(lambda: None, body)
    assert not freed
    assert cuda.told.count("reset") == 1
    third = cuda_graph(lambda: None, lambda: None)[0]
    assert (second.stream.number, third.stream.number) == (1, 0)


def test_a_warm_up_that_failed_leaves_no_trace(cuda):
    """Most likely for want of memory: nothing was recorded, and its stream can be had again."""

    def warm_up():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def attempt():
        with pytest.raises(torch.cuda.OutOfMemoryError):
            cuda_graph(warm_up, lambda: None)

    attempt()
    gc.collect()
    assert cuda.current_stream() is cuda.outside
    assert cuda_graph(lambda: None, lambda: None)[0].stream.number == 0


def test_one_records_at_a_time(cuda):
    """Warming up too: it may have memory given back, and waits for the whole device before it records."""
    inside, most = [], []

    def busy():
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()

    threads = [threading.Thread(target=cuda_graph, args=(busy, busy)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
