import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest

from repro.data import embedded
from repro.data.embedded import CLASSES, draw

# Of the drawn bytes: trials on them lie under the digest of their pictures, so a change makes other trials.
GOLDEN = "44287c94fb8c3301f454133d015ee9257c34ebb64df03f34192c0561aaac1abc"


def _digest(images: np.ndarray, labels: np.ndarray) -> str:
    return hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


def test_the_same_seed_draws_the_same_bytes():
    """Two draws with equal arguments agree in every byte of images and labels."""
    assert _digest(*draw(50, 16, seed=7)) == _digest(*draw(50, 16, seed=7))


def test_another_seed_draws_other_bytes():
    """Two seeds share neither a picture nor the order of the labels."""
    images, labels = draw(50, 16, seed=7)
    others, other_labels = draw(50, 16, seed=8)
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in others}
    assert (labels != other_labels).any()


def test_the_bytes_do_not_change_unnoticed():
    """A small draw over several chunks has the digest written down."""
    digest = hashlib.sha256()
    for size in (8, 32, 160):
        digest.update(_digest(*draw(23, size, seed=2012)).encode())
    assert digest.hexdigest() == GOLDEN


def test_the_global_random_state_plays_no_part():
    """A draw neither reads nor moves numpy's global generator."""
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = _digest(*draw(20, 8, seed=3))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert _digest(*draw(20, 8, seed=3)) == first


@pytest.mark.parametrize("n", [1, 7, 10, 23, 1000])
def test_classes_are_balanced_and_shuffled(n):
    """No class has more than one picture more than another, and labels do not come in a fixed cycle."""
    _, labels = draw(n, 8, seed=n)
    counts = np.bincount(labels, minlength=len(CLASSES))
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1
    if n >= 2 * len(CLASSES):
        assert (labels[10:20] != labels[:10]).any()


@pytest.mark.parametrize("size", [8, 9, 32, 160])
def test_pictures_have_the_promised_shape_and_type(size):
    """Every size gives contiguous uint8 RGB pictures and int64 labels that index CLASSES, and no picture is flat."""
    images, labels = draw(30, size, seed=0)
    assert images.shape == (30, size, size, 3)
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous
    assert labels.shape == (30,)
    assert labels.dtype == np.int64
    assert 0 <= labels.min() <= labels.max() < len(CLASSES)
    assert (images.reshape(30, -1).std(axis=1) > 5).all()


def test_the_size_changes_the_resolution_only():
    """The same n and seed at twice the size, averaged down, show the same labelled pictures but for noise."""
    small, labels = draw(40, 32, seed=5)
    large, large_labels = draw(40, 64, seed=5)
    assert (labels == large_labels).all()
    reduced = large.reshape(40, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    difference = np.abs(reduced - small).mean(axis=(1, 2, 3))
    unlike = np.abs(reduced - np.roll(small, 1, axis=0)).mean(axis=(1, 2, 3))
    assert difference.max() < 16  # of 255; mostly noise
    assert np.median(unlike) > 2 * difference.max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 32, 0), "n must be at least 1, got 0"),
        ((10, 7, 0), "size must be at least 8, got 7"),
        ((10, 32, -1), "seed must be at least 0, got -1"),
        ((10.0, 32, 0), "n must be an integer, got 10.0"),
        ((10, "32", 0), "size must be an integer, got '32'"),
        ((10, 32, None), "seed must be an integer, got None"),
    ],
)
def test_bad_arguments_are_named_in_one_line(arguments, message):
    """A bad argument raises ValueError with one line that says which, what is allowed and what came."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        draw(*arguments)


def test_drawing_needs_no_torch():
    """The module by itself, apart from its package, loads and draws without loading torch."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['draw'](10, 8, 0); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, embedded.__file__], check=True)


def test_a_small_conv_net_learns_what_a_linear_classifier_cannot():
    """At 32 pixels a linear classifier errs on over 40% of unseen pictures, a four-layer net on under 15%."""
    import torch
    from torch import nn

    def split(n, seed):
        images, labels = draw(n, 32, seed)
        return torch.from_numpy(images).permute(0, 3, 1, 2).float(), torch.from_numpy(labels)

    def error(net):
        with torch.no_grad():
            return torch.cat([net(batch).argmax(1) for batch in test.split(256)]).ne(test_labels).float().mean().item()

    def fit(net, rates):
        optimizer = torch.optim.SGD(net.parameters(), rates[0], momentum=0.9)
        for optimizer.param_groups[0]["lr"] in rates:  # one an epoch
            for batch in torch.randperm(len(train)).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(train[batch]), train_labels[batch]).backward()
                optimizer.step()
        return error(net)

    (train, train_labels), (test, test_labels) = split(4096, 0), split(1024, 1)
    mean, std = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True)
    train, test = (train - mean) / std, (test - mean) / std
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        conv = nn.Sequential(
            *(nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2), nn.ReLU()),  # (N, 32, 15, 15)
            *(nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2)),  # (N, 32, 7, 7)
            *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2)),  # (N, 64, 3, 3)
            *(nn.Flatten(), nn.Linear(64 * 3 * 3, 10)),
        )
        for layer in conv:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        nn.init.normal_(conv[-1].weight, std=0.01)  # small first logits, small first steps
        assert fit(linear, 20 * [0.001]) > 0.4
        assert fit(conv, 8 * [0.02] + [0.002]) < 0.15
