"""One side of the step benchmark, in a process of its own: ``side.py ours|plain THREADS [DATA]``.

It prints a line when it is ready; then, for each number of steps read from standard input, it trains as many and
prints the seconds they took. ``ours`` is the loop of this package; ``plain`` what one would write in an afternoon:
torchvision's data set and transforms, a DataLoader with shuffling and two workers, an eager model in torch's default
layout, and the loss read with ``.item()`` at every step. Both train the 18pct net at batch 128 in float32 with SGD and
momentum. Without DATA (a folder with CIFAR-10) both are fed the same synthetic images.
"""

import sys
import time
from itertools import chain, repeat

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

BATCH = 128


def synthetic():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (50_000, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 50_000)


class PlainNorm(nn.Module):
    def forward(self, x):
        return x * (1 + 5e-5 * F.avg_pool2d(x * x, 3, stride=1, padding=1)) ** -0.75


class Synthetic(torch.utils.data.Dataset):
    """The synthetic images, as torchvision's class gives those of CIFAR-10: one by one, as pictures."""

    def __init__(self, transform):
        self.images, self.labels = synthetic()
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def plain(root):
    """Yield after every step of the plain loop."""
    from torchvision import datasets, transforms

    normalise = transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    transform = transforms.Compose([transforms.ToTensor(), normalise])
    data = datasets.CIFAR10(root, train=True, transform=transform) if root else Synthetic(transform)
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=2)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.ReLU(),
        PlainNorm(),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        PlainNorm(),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    running, correct = 0.0, 0
    for images, labels in chain.from_iterable(repeat(loader)):
        optimizer.zero_grad()
        logits = model(images)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        running += loss.item()
        correct += (logits.argmax(1) == labels).sum().item()
        yield


def ours(root):
    """Yield after every step of the package's loop; nothing is read from the device until an epoch's last step."""
    from pathlib import Path

    from repro import environment
    from repro.data import Dataset, load
    from repro.models import cifar
    from repro.training import precision
    from repro.training.inputs import Input, batches
    from repro.training.loop import Recent, train, updating
    from repro.training.optimizer import optimizer_for

    precision.use("fp32")
    environment.keep_memory()
    if root:
        data = load("cifar10", Path(root))
    else:
        images, labels = synthetic()
        data = Dataset("synthetic", torch.from_numpy(images), torch.from_numpy(labels), 10, "")
    model = cifar.build("18pct", "relu")
    cifar.initialise(model, "18pct", "relu", "modern", 0)
    model = model.to(memory_format=torch.channels_last)
    per_epoch = len(data.images) // BATCH
    checks = train(
        updating(model, optimizer_for(model, "modern", 0.01)),
        batches(data, BATCH, 0),
        Input(data.images, "modern"),
        Recent(per_epoch, BATCH, torch.device("cpu")),
        first_step=0,
        check_every=CHECK_EVERY,
    )
    for _check in checks:
        yield from repeat(None, CHECK_EVERY)


CHECK_EVERY = 10  # steps; the experiment looks every 39th


def main():
    side, threads, *root = sys.argv[1:]
    torch.set_num_threads(int(threads))
    steps = {"ours": ours, "plain": plain}[side](*root or [None])
    for _ in range(CHECK_EVERY):  # warm-up
        next(steps)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            next(steps)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
