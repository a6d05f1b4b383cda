"""The measurement of ``relu-speedup`` written a second time, from cuda-convnet's files and the README's words alone.

    python tests/independent.py DIR NET ACTIVATION RATE SEED [RECIPE]

DIR holds the five ``data_batch`` files of CIFAR-10, NET is 19pct or conv-local-13pct, ACTIVATION relu or tanh, RECIPE
code or modern (without it, code). It imports nothing of this package, and whoever wrote it had not read it: what both
find is the fault of neither. `modern` was added later, from the table in docs/recipes.md. Batches of 128, one thread.
Printed is the running training error, ten times an epoch, and at last the epochs to 25%.

Sources, in cuda-convnet of 2011: example-layers/layers-{19pct,conv-local-13pct}.cfg and their layer-params files
(initW; epsB = 2 epsW; mom 0.9), and the kernel of local pooling (a window at the border is clipped, and an average
divided by what is left of it).
"""

import math
import pickle
import sys
from collections import deque
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

BATCH, CHECKS, TARGET = 128, 10, 0.25


def normal(layer, std):
    nn.init.normal_(layer.weight, 0.0, std)
    nn.init.zeros_(layer.bias)
    return layer


class Local(nn.Module):
    """A 3x3 convolution with padding 1 whose every place has weights and a bias of its own."""

    def __init__(self, channels, filters, size, std):
        super().__init__()
        self.size, self.filters = size, filters
        self.weight = nn.Parameter(std * torch.randn(size * size, channels * 9, filters))
        self.bias = nn.Parameter(torch.zeros(size * size, 1, filters))

    def forward(self, x):
        windows = F.unfold(x, 3, padding=1).permute(2, 0, 1)  # places, images, channels * 9
        y = torch.bmm(windows, self.weight) + self.bias
        return y.permute(1, 2, 0).reshape(len(x), self.filters, self.size, self.size)


def network(name, activation):
    act = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]
    pool = {"max": nn.MaxPool2d(3, 2, ceil_mode=True), "avg": nn.AvgPool2d(3, 2, ceil_mode=True)}
    if name == "19pct":
        return nn.Sequential(
            normal(nn.Conv2d(3, 32, 5, padding=2), 0.0001), act(), pool["max"],
            normal(nn.Conv2d(32, 32, 5, padding=2), 0.01), act(), pool["avg"],
            normal(nn.Conv2d(32, 64, 5, padding=2), 0.01), act(), pool["avg"],
            nn.Flatten(), normal(nn.Linear(64 * 4 * 4, 10), 0.01),
        )  # fmt: skip
    assert name == "conv-local-13pct", name
    return nn.Sequential(
        normal(nn.Conv2d(3, 64, 5, padding=2), 0.0001), act(), pool["max"],
        normal(nn.Conv2d(64, 64, 5, padding=2), 0.01), act(), pool["max"],
        Local(64, 32, 8, 0.04), act(), Local(32, 32, 8, 0.04), act(),
        nn.Flatten(), normal(nn.Linear(32 * 8 * 8, 10), 0.01),
    )  # fmt: skip


def redraw(net, activation):
    """Draw the weights anew as today: Kaiming's normal, by the inputs of a unit and its activation's gain."""
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    for weight in weights:
        local = weight.dim() == 3  # places, inputs, filters
        inputs = weight.shape[1] if local else weight[0].numel()
        gain = 1.0 if weight is weights[-1] else nn.init.calculate_gain(activation)
        nn.init.normal_(weight, 0.0, gain / math.sqrt(inputs))


def optimizer(net, rate, recipe="code"):
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    faster = 2 if recipe == "code" else 1
    groups = [{"params": weights, "lr": rate}, {"params": biases, "lr": faster * rate}]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9)


def step(net, sgd, x, y):
    """Learn from a batch, and return how many of it were missed before, and the loss."""
    logits = net(x)
    loss = F.cross_entropy(logits, y)
    sgd.zero_grad()
    loss.backward()
    sgd.step()
    return int((logits.detach().argmax(1) != y).sum()), loss.item()


def crossing(before, now):
    """Return where the error passed TARGET between two looks (epochs, error), linear in its logarithm."""
    (t0, e0), (t1, e1) = before, now
    return t0 + (t1 - t0) * math.log(e0 / TARGET) / math.log(e0 / e1)


def images_and_labels(folder):
    parts = [pickle.loads((folder / f"data_batch_{i}").read_bytes(), encoding="latin1") for i in range(1, 6)]
    images = torch.cat([torch.from_numpy(part["data"]) for part in parts]).view(-1, 3, 32, 32)
    return images, torch.tensor([label for part in parts for label in part["labels"]])


def statistics(images, recipe):
    """Return what is taken off the pixels, and what they are then divided by."""
    values = images.double()
    if recipe == "code":
        return values.mean(0).float(), torch.ones(())
    deviation, mean = torch.std_mean(values, dim=(0, 2, 3), keepdim=True, correction=0)
    return mean.float(), deviation.float()


def main(folder, name, activation, rate, seed, recipe="code"):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    images, labels = images_and_labels(folder)
    mean, deviation = statistics(images, recipe)
    net = network(name, activation).to(memory_format=torch.channels_last)
    if recipe == "modern":
        redraw(net, activation)
    sgd = optimizer(net, rate, recipe)
    per_epoch = len(images) // BATCH
    recent = deque(maxlen=per_epoch)  # images missed of each batch of the last epoch
    steps, before = 0, (0.0, 0.9)
    while True:
        for rows in torch.randperm(len(images))[: per_epoch * BATCH].split(BATCH):
            x = ((images[rows].float() - mean) / deviation).contiguous(memory_format=torch.channels_last)
            missed, loss = step(net, sgd, x, labels[rows])
            recent.append(missed)
            steps += 1
            if steps % (per_epoch // CHECKS) == 0:
                now = steps / per_epoch, sum(recent) / (BATCH * len(recent))
                print(f"{now[0]:.1f} epochs: error {now[1]:.4f}, loss {loss:.4f}", flush=True)
                if now[1] < TARGET:
                    return print(f"{crossing(before, now):.3f} epochs to {TARGET:.0%}")
                before = now


if __name__ == "__main__":
    if len(sys.argv) not in (6, 7) or sys.argv[6:] not in ([], ["code"], ["modern"]):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5]), *sys.argv[6:])
