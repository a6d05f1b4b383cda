"""What feeds a GPU does not wait for it, goes where the work goes, and is made once for all trials.

Without a GPU torch can still follow devices (fake tensors), and a stream can be stood in for.
"""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from repro.loading import Job, pictures
from repro.loading.finish import Finish
from repro.loading.pictures import Pictures
from repro.loading.resident import Resident
from repro.loading.watched import timely

GPU = torch.device("cuda", 0)


class NothingWaits(TorchDispatchMode):
    """Refuses what has the host wait until the GPU has got there: a copy from one to the other that may not go on."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        kinds = {part.device.type for part in tree_leaves((args, kwargs, found)) if isinstance(part, torch.Tensor)}
        if len(kinds) > 1 and func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            goes_on = (kwargs or {}).get("non_blocking", args[2] if len(args) > 2 else False)
            assert goes_on, f"{func} between {sorted(kinds)} waits"
        return found


@pytest.mark.parametrize("mode", ["window", "centre", None])
def test_neither_a_batch_nor_its_finish_waits(mode):
    """Of training batches with colour noise; of test images what is done behind the loader, which may be recorded."""
    with FakeTensorMode():
        images = torch.empty(32, 36, 36, 3, dtype=torch.uint8, device=GPU)
        labels = torch.zeros(32, dtype=torch.int64, device=GPU)
        loader = Resident({"train": (images, labels), "val": (images, labels)}, "", Job(16, 32, 0))
        mean, colour = torch.empty(36, 36, 3, device=GPU), torch.ones(3, 3)
        if mode is None:
            finish = Finish.standardised(mean.mean((0, 1)), mean.std((0, 1)), colour=colour)
        else:
            finish = Finish.less_mean_image(mean, mode, colour=colour)
        with NothingWaits():
            for step, window in enumerate(itertools.islice(loader.train(0), 3)):
                assert finish(window, step).device == GPU
            for views in (1, 10):
                for batch, _ in loader.views("val", views):
                    assert finish.finish_views(batch).device == GPU


def test_the_check_sees_a_copy_that_waits():
    with FakeTensorMode(), NothingWaits():
        there, here = torch.empty(3, device=GPU), torch.ones(3)
        here.to(GPU, non_blocking=True)
        there.copy_(here, non_blocking=True)
        for waits in (lambda: here.to(GPU), there.cpu, lambda: there.copy_(here), lambda: here.copy_(there)):
            with pytest.raises(AssertionError, match="waits"):
                waits()
        with pytest.raises(AssertionError, match="waits"):
            torch.tensor([1, 2], device=GPU)


def test_what_a_loader_launches_goes_where_the_trials_work_goes(monkeypatch):
    """A trial in a thread has a stream of its own, and the thread that reads for it would begin with another."""
    current = threading.local()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: getattr(current, "stream", "default"))
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(current, "stream", stream))

    def batches():
        while True:
            yield threading.current_thread().name, torch.cuda.current_stream()

    def trial(stream):
        torch.cuda.set_stream(stream)
        return list(itertools.islice(timely(batches(), "x", 30.0), 3))

    with ThreadPoolExecutor(2) as pool:
        found = [seen for part in pool.map(trial, ("one", "two")) for seen in part]
    assert {name for name, _ in found} == {"reading x"}
    assert [stream for _, stream in found] == ["one"] * 3 + ["two"] * 3
    assert next(timely(batches(), "x", 30.0))[1] == "default"


@pytest.mark.parametrize("what", ["held", "colours"])
def test_trials_that_begin_together_have_a_set_made_once(what, monkeypatch):
    """Four threads want it in the same moment; Python 3.12's cached_property would make it four times."""
    made = []

    def slowly(*_arguments, **_more):
        made.append(threading.current_thread().name)
        time.sleep(0.05)
        return torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)

    monkeypatch.setattr(pictures, "decoded", slowly)
    files = SimpleNamespace(files={"train": [("a", 0)]}, root=Path())
    if what == "colours":
        from repro.data import prepared

        matrix = torch.eye(3).numpy()
        found = SimpleNamespace(
            mean=matrix, channel_mean=matrix, channel_std=matrix, eigenvalues=matrix, eigenvectors=matrix
        )
        monkeypatch.setattr(prepared, "statistics", lambda _: slowly() and found)
    data = Pictures("a set", 10, "sha256:made-up", prepared=files)
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda _: id(getattr(data, what)), range(4)))
    assert len(made) == 1
    assert len(set(seen)) == 1
