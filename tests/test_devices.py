"""What a GPU is given lies on it: no tensor of the host meets one of the device, and no value is read back in a step.

Without a GPU torch can still follow devices and shapes (fake tensors), through everything but the backward pass.
"""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

from repro.data import Dataset
from repro.experiments.final_error import Parameters
from repro.loading import Job, Window
from repro.loading.finish import Finish
from repro.loading.resident import Resident
from repro.models import cifar, normalization
from repro.models.cifar import count_errors
from repro.models.nets import network
from repro.training.evaluation import Evaluation
from repro.training.inputs import Input, batches
from repro.training.loop import Recent

GPU = torch.device("cuda", 0)


@pytest.fixture
def fake():
    """Follow devices and shapes, and compute nothing."""
    normalization._band.cache_clear()
    with FakeTensorMode():
        yield
    normalization._band.cache_clear()  # what it keeps was imagined


def test_the_check_sees_what_it_is_for(fake):
    """Tensors of two devices that meet, and a value read back, are refused."""
    there, here = torch.empty(3, 2, device=GPU), torch.empty(3, 2)
    with pytest.raises(RuntimeError, match="device"):
        there + here
    with pytest.raises(DataDependentOutputException):
        there.sum().item()
    for crossing in (lambda: here.to(GPU), there.cpu, lambda: torch.tensor([1, 2], device=GPU)):
        with NothingCrosses(), pytest.raises(AssertionError, match="_to_copy"):
            crossing()


class NothingCrosses(TorchDispatchMode):
    """Refuses every copy between host and device: a CUDA graph could record but the host's address, if at all."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_"):
            kinds = {t.device.type for t in tree.tree_leaves((args, found)) if isinstance(t, torch.Tensor)}
            assert len(kinds) == 1, f"{name} between {sorted(kinds)}"
        return found


@pytest.mark.parametrize("net", list(cifar.NETS))
def test_a_step_of_a_small_net_stays_on_the_gpu(fake, net):
    images = torch.empty(64, 32, 32, 3, dtype=torch.uint8, device=GPU)
    data = Dataset("made up", images, torch.zeros(64, dtype=torch.int64, device=GPU), 10, "")
    with GPU:
        model = cifar.build(net, "relu")
    recent, prepare = Recent(4, 16, GPU), Input(data.images, "code")
    for drawn, labels in itertools.islice(batches(data, 16, 0), 6):
        logits = model(prepare(drawn))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        recent.put(count_errors(logits, labels), loss)
        assert loss.device == GPU


@pytest.mark.parametrize("mode", ["window", "centre", None])
def test_a_window_and_its_finish_stay_on_the_gpu(fake, mode):
    images = torch.empty(32, 36, 36, 3, dtype=torch.uint8, device=GPU)
    labels = torch.zeros(32, dtype=torch.int64, device=GPU)
    loader = Resident({"train": (images, labels), "val": (images, labels)}, "", Job(16, 32, 0))
    colour = torch.ones(3, 3)
    mean = torch.empty(36, 36, 3, device=GPU)
    if mode is None:
        finish = Finish.standardised(mean.mean((0, 1)), mean.std((0, 1)), colour=colour)
    else:
        finish = Finish.less_mean_image(mean, mode, colour=colour)
    for step, window in enumerate(itertools.islice(loader.train(0), 3)):
        assert isinstance(window, Window)
        assert finish(window, step).device == GPU


@pytest.mark.parametrize("changed", [{}, {"norm": "lrn-mean"}, {"protocol": "code"}, {"norm": "batch"}], ids=str)
def test_testing_stays_on_the_gpu_until_its_end(fake, changed):
    given = {"dataset": "embedded", "protocol": "paper", "net": "alexnet-32", "stored": 36, "crop": 32, "epochs": 1.0}
    p = Parameters(**{**given, **changed})
    with GPU:
        model = network(p, 10, 0)
    views = torch.empty(4, 10, 32, 32, 3, dtype=torch.uint8, device=GPU)
    finish = Finish.less_mean_image(torch.empty(36, 36, 3, device=GPU), "window")
    test = Evaluation(model, finish.finish_views)
    found, _ = test([(views, torch.zeros(4, dtype=torch.int64, device=GPU))] * 2)
    assert found.shape == (8, 10)


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("protocol", ["paper", "code", "modern"])
def test_what_a_test_records_is_all_on_the_gpu(fake, protocol, count):
    """From the views to the mean softmax, in which a CUDA graph may have nothing of the host."""
    p = Parameters(dataset="embedded", protocol=protocol, net="alexnet-32", stored=36, crop=32, epochs=1.0)
    with GPU:
        model = network(p, 10, 0).eval()
    mean = torch.empty(36, 36, 3, device=GPU)
    if protocol == "modern":
        finish = Finish.standardised(mean.mean((0, 1)), mean.std((0, 1)))
    else:
        finish = Finish.less_mean_image(mean, "centre" if protocol == "code" else "window")
    test = Evaluation(model, finish.finish_views)
    views = torch.empty(4, count, 32, 32, 3, dtype=torch.uint8, device=GPU)
    with NothingCrosses(), torch.no_grad():
        assert test.answers(views).shape == (4, 10)
