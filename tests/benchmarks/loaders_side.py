"""One side of the loading benchmark, in a process of its own: ``loaders_side.py SIDE DATA``.

It prints a line when it is ready; then, for each number of batches read from standard input, it makes as many and
prints the seconds they took.

``dali``: the package's DALI loader with two threads, and its finish. The others have a DataLoader with two workers.
``plain``: the same input as one would write it, in float in the workers: Pillow, minus the mean image, crop, flip,
colour shift. ``reference``: the package's plain loader, and its finish. ``script``: torchvision's training script:
RandomResizedCrop, flip, normalise. DATA is a folder of square JPEGs of 160 pixels; the windows have 144.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

BATCH, SIDE, CROP, WORKERS = 128, 160, 144, 2
MATRIX = torch.tensor([[3.1, -0.2, 1.7], [2.9, 0.4, -2.2], [2.7, 0.9, 0.3]])


def mean_image():
    return torch.linspace(90, 130, SIDE * SIDE * 3).view(SIDE, SIDE, 3)


class Plain(torch.utils.data.Dataset):
    """One finished float image at a time, by ``transform`` where it is given."""

    def __init__(self, root, transform=None):
        self.paths = sorted(root.glob("*.jpg"))
        self.transform = transform
        self.mean = mean_image().permute(2, 0, 1)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        from PIL import Image
        from torchvision.transforms.v2 import functional as F

        image = Image.open(self.paths[index]).convert("RGB")
        if self.transform is not None:
            return self.transform(image), 0
        pixels = F.pil_to_tensor(image)
        y, x = torch.randint(SIDE - CROP + 1, (2,)).tolist()
        window = F.crop(pixels, y, x, CROP, CROP).float() - F.crop(self.mean, y, x, CROP, CROP)
        if torch.rand(()) < 0.5:
            window = F.horizontal_flip(window)
        return window + (MATRIX @ torch.randn(3))[:, None, None], 0


def from_package(name, root):
    """Yield after every finished batch of a loader of the package."""
    from repro import environment
    from repro.loading import Job, make
    from repro.loading.finish import Finish

    environment.keep_memory()
    files = tuple((path.name, 0) for path in sorted(root.glob("*.jpg")))
    data = SimpleNamespace(root=root, side=SIDE, classes=("",), files={"train": files, "val": files}, digest="")
    loader = make(name, data, Job(BATCH, CROP, seed=0), workers=WORKERS)
    finish = Finish.less_mean_image(mean_image(), "window", colour=MATRIX)
    for step, window in enumerate(loader.train(0)):
        finish(window, step)
        yield


def from_torch(root, transform=None):
    """Yield after every batch of a DataLoader."""
    loader = torch.utils.data.DataLoader(
        Plain(root, transform), BATCH, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )
    while True:
        for _ in loader:
            yield


def script(root):
    """Yield after every batch of torchvision's training script, its defaults but for the size."""
    from torchvision.transforms import v2

    steps = [v2.RandomResizedCrop(CROP, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    steps += [v2.ToDtype(torch.float, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    return from_torch(root, v2.Compose(steps))


SIDES = {
    "dali": lambda root: from_package("dali", root),
    "reference": lambda root: from_package("torchvision", root),
    "plain": from_torch,
    "script": script,
}


def main():
    torch.set_num_threads(1)
    batches = SIDES[sys.argv[1]](Path(sys.argv[2]))
    for _ in range(5):  # warm-up
        next(batches)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            next(batches)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
