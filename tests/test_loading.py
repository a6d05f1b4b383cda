"""Loaders and the finish: to the bit against Pillow and the plain functions, what they draw, and resuming."""

import io
import itertools
import multiprocessing
import os
import re
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from repro import choices
from repro.data import DataError, processes
from repro.loading import Job, Window, make, pictures
from repro.loading.finish import Finish, colour_shift
from repro.loading.pictures import Pictures
from repro.loading.resident import Resident, at_once, decoded, one_by_one
from repro.problem import Problem
from repro.seeds import derive
from repro.training import views

pytestmark = pytest.mark.usefixtures("one_thread")

HAS_DALI = sys.platform == "linux"  # where it must be installed for the tests
NAMES = get_args(choices.Loader)
LOADERS = [pytest.param(n, marks=pytest.mark.skipif(n == "dali" and not HAS_DALI, reason="no DALI")) for n in NAMES]
every_loader = pytest.mark.parametrize("name", LOADERS)
SIDE, CROP = 48, 32
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Set:
    """What a loader reads of a prepared data set."""

    root: Path
    side: int
    classes: tuple[str, ...]
    files: dict[str, tuple[tuple[str, int], ...]]
    digest: str


def picture(number):
    """Return a smooth picture with some noise, so that upsampled colours and rounding both show."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.BICUBIC)
    noisy = np.asarray(coarse) + rng.normal(0, 8, (SIDE, SIDE, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write(root, pictures, **how):
    """Write each picture as a JPEG; its label is its number. Return the set, the same for both splits."""
    files = []
    for number, image in enumerate(pictures):
        files.append((f"{number:03d}.jpg", number))
        image.save(root / files[-1][0], **{"quality": 90, **how})
    return Set(
        root, pictures[0].width, tuple(map(str, range(len(files)))), dict.fromkeys(("train", "val"), tuple(files)), "d"
    )


def stored(data):
    """Return all images as Pillow decodes them."""
    paths = [data.root / path for path, _ in data.files["train"]]
    return torch.stack([torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()) for path in paths])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """22 pictures: in batches of 4, five full ones and two left over."""
    return write(tmp_path_factory.mktemp("small"), [picture(i) for i in range(22)])


JOB = Job(batch=4, crop=CROP, seed=7)


def take(stream, n):
    return list(itertools.islice(stream, n))


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def loader_of(name, data, job=JOB):
    return make(name, data, job, workers=0 if name == "torchvision" else 2)


@every_loader
@pytest.mark.parametrize(("mode", "subsampling"), [("RGB", 0), ("RGB", 2), ("L", 0)], ids=["444", "420", "grey"])
def test_every_loader_gives_the_pixels_that_pillow_decodes(tmp_path, name, mode, subsampling):
    """Each window is, to the bit, the mirrored crop of Pillow's image at the offset and flip that it reports."""
    data = write(tmp_path, [picture(i).convert(mode) for i in range(8)], subsampling=subsampling)
    images = stored(data)
    for window in take(loader_of(name, data).train(0), 4):
        assert [part.dtype for part in window] == [torch.uint8, torch.int64, torch.int64, torch.bool]
        expected = views.mirror(views.crop(images[window.labels], window.offsets, CROP), window.flips)
        assert torch.equal(window.images, expected)


@every_loader
def test_without_crops_each_window_is_the_centre(small, name):
    images = stored(small)
    for window in take(loader_of(name, small, replace(JOB, crops=False)).train(0), 6):
        assert torch.equal(window.images, images[window.labels][:, 8:40, 8:40])
        assert window.offsets.tolist() == [[8, 8]] * 4
        assert not window.flips.any()


@every_loader
def test_places_and_flips_are_uniform(tmp_path, name):
    """Chi-square over the 33 places of each axis and over the two sides, read off a ramp's pixels.

    Rounding a uniform position gives the outermost places half their share: a chi-square of 90 here.
    """
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64) * 4, np.arange(64)[:, None] * 4
    data = write(tmp_path, [Image.fromarray(ramp)], subsampling=0, quality=100)
    files = tuple((data.files["train"][0][0], i) for i in range(64))
    data = replace(data, files={"train": files, "val": files})
    columns, rows, flips = [], [], []
    for window in take(loader_of(name, data, Job(64, 32, seed=1)).train(0), 60):
        red = window.images[..., 0].float().mean(1)  # JPEG is off by two levels here and there
        flipped = red[:, 0] > red[:, -1]
        columns.append(torch.where(flipped, red[:, -1], red[:, 0]).div(4).round().long())
        rows.append(window.images[:, 0, :, 1].float().mean(1).div(4).round().long())
        flips.append(flipped)
        assert torch.equal(flipped, window.flips)
        assert torch.equal(torch.stack([rows[-1], columns[-1]], 1), window.offsets)
    n = 60 * 64
    for places in (columns, rows):
        counts = torch.cat(places).bincount(minlength=33)
        assert len(counts) == 33
        assert ((counts - n / 33) ** 2 / (n / 33)).sum() < 70  # 32 degrees of freedom: 1 in 10,000
    ones = int(torch.cat(flips).sum())
    assert (ones - n / 2) ** 2 / (n / 4) < 15  # 1 degree of freedom: 1 in 10,000
    together = torch.corrcoef(torch.stack([torch.cat(part).double() for part in (columns, rows, flips)]))
    assert (together - torch.eye(3)).abs().max() < 4 / n**0.5


@every_loader
def test_windows_in_a_row_are_cut_alike_where_that_is_asked_for(small, name):
    """Of 8 windows 3, 3 and 2 share place and flip, which differ from row to row; also after a restart."""
    images, job = stored(small), Job(8, CROP, seed=7, alike=3)
    whole = take(loader_of(name, small, job).train(0), 6)
    drawn = []
    for window in whole:
        expected = views.mirror(views.crop(images[window.labels], window.offsets, CROP), window.flips)
        assert torch.equal(window.images, expected)
        for row in ((0, 1, 2), (3, 4, 5), (6, 7)):
            (one,) = {(*window.offsets[i].tolist(), bool(window.flips[i])) for i in row}
            drawn.append(one)
    assert len(set(drawn)) > 12
    assert {flip for _, _, flip in drawn} == {False, True}
    first, second = loader_of(name, small, job), loader_of(name, small, job)
    assert same(take(first.train(0), 3), whole[:3])
    second.restore(first.state())
    assert same(take(second.train(3), 3), whole[3:])


@every_loader
def test_an_epoch_has_every_image_at_most_once(small, name):
    """Five full batches of 22 images, in an order of its own, and others left over in the next."""
    loader = loader_of(name, small)
    assert loader.per_epoch == 5
    labels = [window.labels.tolist() for window in take(loader.train(0), 20)]
    epochs = [list(itertools.chain.from_iterable(labels[i : i + 5])) for i in range(0, 20, 5)]
    assert all(len(epoch) == len(set(epoch)) == 20 for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    assert len(set(map(frozenset, epochs))) > 1
    assert all(epoch != sorted(epoch) for epoch in epochs)


@every_loader
@pytest.mark.parametrize("count", [1, 10])
def test_views_give_every_image_once_in_order(small, name, count):
    """In batches of 4 images 22 leave a last one of 2; ten views go one image at a time."""
    parts = list(loader_of(name, small).views("val", count))
    assert [len(images) for images, _ in parts] == ([4] * 5 + [2] if count == 1 else [1] * 22)
    assert torch.cat([labels for _, labels in parts]).tolist() == list(range(22))
    ten = views.ten_views(stored(small), CROP)
    assert torch.equal(torch.cat([images for images, _ in parts]), ten if count == 10 else ten[:, 4:5])


@every_loader
@pytest.mark.parametrize("count", [1, 10])
def test_ranks_look_at_every_image_once(small, name, count):
    """The views of three ranks, one after the other, are those of one process: 7, 7 and 8 images of 22."""
    loaders = [loader_of(name, small, replace(JOB, rank=rank, world=3)) for rank in range(3)]
    parts = [list(loader.views("val", count)) for loader in loaders]
    labels = [torch.cat([labels for _, labels in part]).tolist() for part in parts]
    assert [len(part) for part in labels] == [7, 7, 8]
    assert [label for part in labels for label in part] == list(range(22))
    whole = torch.cat([images for images, _ in loader_of(name, small).views("val", count)])
    assert torch.equal(torch.cat([images for part in parts for images, _ in part]), whole)


def through_a_file(state):
    """Return the state as a checkpoint gives it back."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@every_loader
def test_a_resumed_loader_goes_on_with_the_same_windows(small, name):
    """From before the first step, mid-epoch, the last batch of an epoch, and in the next two."""
    loader = loader_of(name, small)
    whole, states = [], [loader.state()]
    for window in itertools.islice(loader.train(0), 14):
        whole.append(window)
        states.append(loader.state())
    for step in (0, 2, 4, 5, 6, 10, 12):
        resumed = loader_of(name, small)
        resumed.restore(through_a_file(states[step]))
        assert same(take(resumed.train(step), 14 - step), whole[step:]), step
        resumed.close()


@every_loader
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch": 5}, "batch 4 (here 5)"),
        ({"world": 2}, "world 1 (here 2)"),
        ({"rank": 1, "world": 2}, "rank 0 (here 1)"),
        ({"seed": 8}, "seed 7 (here 8)"),
    ],
    ids=str,
)
def test_a_state_of_another_job_is_refused(small, name, changes, told):
    state = loader_of(name, small).state()
    with pytest.raises(ValueError, match="belongs to another loader") as caught:
        loader_of(name, small, replace(JOB, **changes)).restore(state)
    assert told in str(caught.value)


@every_loader
@pytest.mark.parametrize("change", ["files", "digest"])
def test_a_state_of_other_data_is_refused(small, name, change):
    """One file fewer, or another content: what is read at a place of the list would be another image."""
    state = loader_of(name, small).state()
    files = {**small.files, "train": small.files["train"][:-1]}
    other = replace(small, files=files) if change == "files" else replace(small, digest="e")
    with pytest.raises(ValueError, match=r"data .* \(here"):
        loader_of(name, other).restore(state)


def test_dali_refuses_a_step_it_does_not_stand_at(small):
    if not HAS_DALI:
        pytest.skip("no DALI")
    with pytest.raises(ValueError, match="stands at step 0: restore the state of step 3"):
        loader_of("dali", small).train(3)


def test_dali_starts_afresh_at_step_0(small):
    if not HAS_DALI:
        pytest.skip("no DALI")
    loader = loader_of("dali", small)
    first = take(loader.train(0), 7)
    assert same(take(loader.train(7), 2), take(loader_of("dali", small).train(0), 9)[7:])
    assert same(take(loader.train(0), 7), first)


@every_loader
def test_ranks_share_an_epoch_and_draw_for_themselves(small, name):
    """Two ranks of 22 images read 8 each an epoch, none of them twice, under other places."""
    for part in range(2):  # the second epoch too
        windows = []
        for rank in (0, 1):
            loader = loader_of(name, small, replace(JOB, rank=rank, world=2))
            assert loader.per_epoch == 2
            windows.append(take(loader.train(0), 4)[2 * part : 2 * part + 2])
        labels = [[int(label) for window in one for label in window.labels] for one in windows]
        assert len({*labels[0], *labels[1]}) == 16
        assert not torch.equal(*(torch.cat([window.offsets for window in one]) for one in windows))


@every_loader
def test_a_held_batch_stays_as_it_is(small, name):
    """Also once the loader is gone."""
    loader = loader_of(name, small)
    stream = loader.train(0)
    held = take(stream, 3)
    copies = [Window(*(part.clone() for part in window)) for window in held]
    take(stream, 20)
    assert same(held, copies)
    loader.close()
    del loader, stream
    torch.zeros(1 << 20)
    assert same(held, copies)


@every_loader
def test_drawing_leaves_the_global_generator_alone(small, name):
    before = torch.get_rng_state()
    take(loader_of(name, small).train(0), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_worker_processes_give_what_none_give(small):
    """Resident draws the same windows, too: order, places and flips follow from seed and step."""
    loader = make("torchvision", small, JOB, workers=2)
    with_workers = take(loader.train(3), 6)
    loader.close()
    assert same(with_workers, take(loader_of("torchvision", small).train(3), 6))
    assert same(with_workers, take(loader_of("resident", small).train(3), 6))


@every_loader
def test_workers_change_no_byte(small, name):
    """Neither of a run, nor of one that goes on elsewhere; how many there are is the machine's affair."""
    few, more = (0, 1) if name == "torchvision" else (1, 3)  # processes of their own: test_worker_processes_...
    alone, beside = (make(name, small, JOB, workers=workers) for workers in (few, more))
    windows = take(alone.train(0), 12)
    assert same(windows, take(beside.train(0), 12))
    for split, count in (("train", 1), ("train", 10)):
        assert same(*(list(loader.views(split, count)) for loader in (alone, beside)))
    beside.close()
    first = make(name, small, JOB, workers=few)
    take(first.train(0), 7)
    later = make(name, small, JOB, workers=more)
    later.restore(through_a_file(first.state()))
    assert same(windows[7:], take(later.train(7), 5))
    later.close()


@pytest.mark.parametrize(("quota", "found"), [(None, 6), ("max 100000", 6), ("150000 100000", 2), ("900000 100000", 6)])
def test_cores_are_those_that_the_process_may_use(monkeypatch, tmp_path, quota, found):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(10, 16)), raising=False)
    monkeypatch.setattr(processes, "QUOTA", tmp_path / "cpu.max")
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert processes.cores() == found
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert processes.cores() == 1


@pytest.mark.parametrize(("cores", "threads", "found"), [(16, 16, 16), (16, 4, 4), (16, 1, 2), (2, 4, 2), (1, 1, 1)])
def test_a_trials_loader_has_its_share_of_the_cores(small, monkeypatch, cores, threads, found):
    monkeypatch.setattr(pictures, "cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    asked = []
    monkeypatch.setattr(pictures, "make", lambda *_args, workers, **_more: asked.append(workers))
    monkeypatch.setattr(pictures, "decoded", lambda *_args, workers, **_more: asked.append(workers))
    own = Pictures("small", 2, "", prepared=small)
    own.loader("dali", JOB)
    assert own.held.keys() == small.files.keys()
    assert set(asked) == {found}


@every_loader
def test_another_seed_draws_other_windows(small, name):
    one, other = (take(loader_of(name, small, replace(JOB, seed=seed)).train(0), 5) for seed in (1, 2))
    for field in ("labels", "offsets", "flips"):
        assert not torch.equal(*(torch.cat([getattr(window, field) for window in side]) for side in (one, other)))


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@every_loader
def test_memory_does_not_grow(small, name):
    """Twenty epochs after the first three: a batch lost at each step would be 1.2 MB, a buffer pool's growth more."""
    stream = loader_of(name, small, replace(JOB, batch=20)).train(0)
    take(stream, 3)
    before = resident_bytes()
    for _ in range(20):
        next(stream)
    assert resident_bytes() - before < 32 << 20


@every_loader
@pytest.mark.parametrize("broken", ["cut", "nonsense", "missing"])
def test_a_broken_jpeg_is_named(tmp_path, name, broken):
    """Pillow's loaders name the file; DALI's error names the loader, and is a DataError as well."""
    data = write(tmp_path, [picture(i) for i in range(8)])
    path = tmp_path / "005.jpg"
    content = path.read_bytes()
    path.unlink()
    if broken != "missing":
        path.write_bytes(content[: len(content) // 3] if broken == "cut" else b"\xff\xd8\xff\xe0 nonsense")
    with pytest.raises(DataError, match="'dali'" if name == "dali" else "005.jpg") as caught:
        take(loader_of(name, data).train(0), 2)
    assert "\n" not in str(caught.value)


def test_a_worker_process_names_a_broken_jpeg_in_one_line(tmp_path):
    data = write(tmp_path, [picture(i) for i in range(8)])
    (tmp_path / "005.jpg").write_bytes(b"nonsense")
    loader = make("torchvision", data, JOB, workers=1)
    with pytest.raises(DataError, match=r"^\S*005\.jpg cannot be decoded: .*$"):
        take(loader.train(0), 2)


@pytest.mark.parametrize("name", ["resident", "torchvision"])
def test_an_image_of_another_size_is_named(tmp_path, name):
    data = write(tmp_path, [picture(i) for i in range(8)])
    picture(0).resize((SIDE, SIDE - 1)).save(tmp_path / "003.jpg")
    with pytest.raises(DataError, match=r"(003.jpg is 48 x 47 pixels, not 48 x 48|'dali' failed)"):
        take(loader_of(name, data).train(0), 2)


def without_dali(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "repro.loading.dali", raising=False)


def test_a_missing_dali_is_said_in_one_line(small, monkeypatch):
    without_dali(monkeypatch)
    with pytest.raises(Problem, match=r"^the loader 'dali' needs NVIDIA DALI .* extra 'dali'") as caught:
        make("dali", small, JOB)
    assert "\n" not in str(caught.value)


def test_an_unknown_loader_is_a_problem(small):
    with pytest.raises(Problem, match=r"unknown loader 'residnet'; known are .* \(did you mean resident\?\)"):
        make("residnet", small, JOB)


@every_loader
def test_a_job_that_does_not_fit_is_refused(small, name):
    with pytest.raises(ValueError, match="a window of 49 pixels does not fit into images of 48"):
        loader_of(name, small, replace(JOB, crop=49))
    with pytest.raises(ValueError, match="2 x 12 images a batch are more than the 22"):
        loader_of(name, small, replace(JOB, batch=12, world=2))


@pytest.mark.parametrize("dali", [pytest.param(True, marks=LOADERS[0].marks), False], ids=["dali", "pillow"])
def test_resident_images_are_those_that_pillow_decodes(small, monkeypatch, dali):
    if not dali:
        without_dali(monkeypatch)
    images, labels = decoded(small, "train", device=CPU, workers=2)
    assert torch.equal(images, stored(small))
    assert labels.tolist() == list(range(22))


def test_resident_takes_tensors():
    """As CIFAR-10 comes; with windows as large as the images only order and flips are left."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8))
    loader = Resident({"train": (images, torch.arange(30))}, "cifar", Job(10, 32, seed=0))
    for window in take(loader.train(0), 4):
        assert torch.equal(window.images, views.mirror(images[window.labels], window.flips))
    assert torch.cat([labels for _, labels in loader.views("train", 1)]).tolist() == list(range(30))


def test_both_ways_to_gather_are_the_plain_one():
    """One for a CPU, one for where a launch costs; the corners of the range included."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (9, SIDE, SIDE, 3), dtype=torch.uint8, generator=rng)
    rows = torch.randint(9, (40,), generator=rng)
    offsets, flips = torch.randint(17, (40, 2), generator=rng), torch.rand(40, generator=rng) < 0.5
    offsets[:4] = torch.tensor([[0, 0], [0, 16], [16, 0], [16, 16]])
    expected = views.mirror(views.crop(images[rows], offsets, CROP), flips)
    assert torch.equal(one_by_one(images, rows, offsets, flips, CROP), expected)
    assert torch.equal(at_once(images, rows, offsets, flips, CROP), expected)


MATRIX = torch.tensor([[3.1, -0.2, 1.7], [2.9, 0.4, -2.2], [2.7, 0.9, 0.3]])


def finished(mode, colour, mean, std):
    if mode == "modern":
        return Finish.standardised(mean.mean((0, 1)), std, colour=colour, seed=5)
    return Finish.less_mean_image(mean, mode, colour=colour, seed=5, divisor=1.1 if mode == "centre" else 1.0)


@pytest.mark.parametrize("looped", [True, False], ids=["cpu", "device"])
@pytest.mark.parametrize("colour", [None, MATRIX], ids=["plain", "colour"])
@pytest.mark.parametrize("mode", ["window", "centre", "modern"])
def test_the_finish_is_the_plain_functions(mode, colour, looped):
    """To the bit: mirror, subtract (`centre`) or the other way round, shift, divide; in channels_last."""
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (25, SIDE, SIDE, 3), dtype=torch.uint8, generator=rng)
    offsets, flips = torch.randint(17, (25, 2), generator=rng), torch.rand(25, generator=rng) < 0.5
    mean, std = torch.rand(SIDE, SIDE, 3, generator=rng) * 255, torch.rand(3, generator=rng) * 50 + 10
    crops = views.crop(images, offsets, CROP)
    if mode == "modern":
        less = crops.float() - mean.mean((0, 1))
    else:
        less = crops - views.crop(mean.expand(25, *mean.shape), offsets, CROP)
    expected = views.mirror(less, flips)
    if mode == "centre":
        expected = views.mirror(crops, flips) - mean[8:40, 8:40]
    if colour is not None:
        expected += (torch.randn(25, 3, generator=torch.Generator().manual_seed(SHIFT_SEED)) @ colour.T)[:, None, None]
    if mode != "window":
        expected /= std if mode == "modern" else 1.1
    finish = finished(mode, colour, mean, std)
    finish._looped = looped  # what a GPU does can be done on a CPU
    x = finish(Window(views.mirror(crops, flips), torch.zeros(25), offsets, flips), 3)
    assert x.shape == (25, 3, CROP, CROP)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x.permute(0, 2, 3, 1), expected)


SHIFT_SEED = derive(5, "colour", 3)


@pytest.mark.parametrize("looped", [True, False], ids=["cpu", "device"])
@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("mode", ["window", "centre", "modern"])
def test_finished_views_are_the_plain_functions(mode, count, looped):
    """`window` is the views of the image less the mean; `centre` takes the mean's centre, the same for all views."""
    rng = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (6, SIDE, SIDE, 3), dtype=torch.uint8, generator=rng)
    mean, std = torch.rand(SIDE, SIDE, 3, generator=rng) * 255, torch.rand(3, generator=rng) * 50 + 10
    ten = views.ten_views(images, CROP)
    if mode == "window":
        expected = views.ten_views(images.float() - mean, CROP)
    elif mode == "centre":
        expected = (ten.float() - mean[8:40, 8:40]) / 1.1
    else:
        expected = (ten.float() - mean.mean((0, 1))) / std
    finish = finished(mode, MATRIX, mean, std)
    finish._looped = looped
    chosen = slice(None) if count == 10 else slice(4, 5)
    x = finish.finish_views(ten[:, chosen])
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x.permute(0, 2, 3, 1), expected[:, chosen].flatten(0, 1))


def test_other_numbers_of_views_are_refused():
    finish = Finish.standardised(torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="2 views are neither"):
        finish.finish_views(torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8))


def test_the_finish_refuses_what_is_no_mean_image():
    with pytest.raises(ValueError, match="not \\(3, 32, 32\\)"):
        Finish.less_mean_image(torch.zeros(3, 32, 32), "centre")
    with pytest.raises(ValueError, match="unknown mode 'full'"):
        Finish.less_mean_image(torch.zeros(32, 32, 3), "full")


def test_colour_shifts_are_normal_and_follow_from_the_step():
    """Covariance M M^T; the same step gives the same shifts, another step or seed others."""
    shifts = colour_shift(MATRIX, 40_000, 5, 0)
    torch.testing.assert_close(shifts.T.cov(), MATRIX @ MATRIX.T, rtol=0, atol=0.5)
    assert torch.equal(colour_shift(MATRIX, 40_000, 5, 0), shifts)
    assert not torch.equal(colour_shift(MATRIX, 40_000, 5, 1), shifts)
    assert not torch.equal(colour_shift(MATRIX, 40_000, 6, 0), shifts)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")  # noqa: PTH110
def test_ctrl_c_is_left_to_the_process_that_reads(small):
    """It reaches the whole group; a worker that left would make the trial fail that is about to save its state."""
    loader = make("torchvision", small, JOB, workers=1)
    windows = loader.train(0)
    next(windows)
    (worker,) = multiprocessing.active_children()
    try:
        status = Path(f"/proc/{worker.pid}/status").read_text()
        ignored = int(re.search(r"^SigIgn:\s*([0-9a-f]+)$", status, flags=re.MULTILINE)[1], 16)
        assert ignored >> (signal.SIGINT - 1) & 1
    finally:
        loader.close()
