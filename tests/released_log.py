"""Hold the protocol `code` against the one training log of 2011 that was published: the first batches of the net 19pct.

    python tests/released_log.py DIR [SEED...]

DIR holds cifar-10-batches-py/. The log (29 June 2011) stands in cuda-convnet's documentation, "How to train a neural
net with this code" (github.com/mbrukman/cuda-convnet at fb78b3d, docs/TrainingNet.md). It has the mean loss and the
error of each of 17 files of 10,000 images, every batch before it was learned from; and after the 13th the loss and the
error on the test images, and the mean size of each layer's weights. The settings are those of
example-layers/layers-19pct.cfg and layer-params-19pct.cfg there: rates of 0.001 and 0.002, decay of 0.004 in the
convolutions and of 3 in the last layer. The files come in order, each in 78 batches of 128 and one of 16. Nobody knows
which initial weights were drawn, so ours are drawn from each SEED (0, 1 and 2 where none is given).
"""

import sys
from pathlib import Path

import torch
from torch.nn import functional as F

from repro.data import cifar10
from repro.models import cifar
from repro.training.sgd2012 import SGD2012

LOSSES = (
    2.277909, 2.145043, 1.983224, 1.913032, 1.813073, 1.758718, 1.735701, 1.666571, 1.659595, 1.605653, 1.561900,
    1.553927, 1.497355, 1.517817, 1.481088, 1.456526, 1.449469,
)  # fmt: skip
ERRORS = (
    0.879600, 0.780400, 0.724300, 0.702000, 0.672400, 0.649100, 0.637600, 0.609900, 0.604800, 0.584900, 0.565300,
    0.561000, 0.538400, 0.544800, 0.526000, 0.525100, 0.517800,
)  # fmt: skip
"""By file: 1 to 5 three times, then 1 and 2."""
TESTED = 13
TEST = (1.538126, 0.553400)
WEIGHTS = {"conv1": 1.411148e-02, "conv2": 8.830208e-03, "conv3": 8.476456e-03, "fc": 1.826295e-03}
"""After file TESTED: loss and error on the 10,000 test images; the mean absolute value of each layer's weights."""
FILE, BATCH, RATE, DECAY, LAST_DECAY = 10_000, 128, 0.001, 0.004, 3.0


def learn(root, seed):
    """Yield (loss, error) for each file, and after file TESTED (loss, error, weights by layer) of the test."""
    pictures, truth = cifar10.read(root, train=True)
    images, labels = torch.from_numpy(pictures), torch.from_numpy(truth)
    mean = images.double().mean(0).float()
    net = cifar.build("19pct", "relu").to(memory_format=torch.channels_last)
    cifar.initialise(net, "19pct", "relu", "code", seed)
    groups = [
        {
            "params": [parameter],
            "lr": RATE * (2 if name.endswith("bias") else 1),
            "weight_decay": 0.0 if name.endswith("bias") else LAST_DECAY if name.startswith("fc") else DECAY,
        }
        for name, parameter in net.named_parameters()
    ]
    update = SGD2012(groups, lr=RATE, momentum=0.9)

    def answers(chosen):
        return net((chosen.float() - mean).permute(0, 3, 1, 2))

    for number in range(len(LOSSES)):
        start = number % 5 * FILE
        loss = missed = 0.0
        for x, y in zip(
            images[start : start + FILE].split(BATCH), labels[start : start + FILE].split(BATCH), strict=True
        ):
            logits = answers(x)
            mean_loss = F.cross_entropy(logits, y)
            update.zero_grad()
            mean_loss.backward()
            update.step()
            loss += float(mean_loss.detach()) * len(y)
            missed += int(cifar.count_errors(logits, y))
        yield loss / FILE, missed / FILE
        if number + 1 == TESTED:
            with torch.no_grad():
                test, tests = (torch.from_numpy(part) for part in cifar10.read(root, train=False))
                logits = torch.cat([answers(part) for part in test.split(1000)])
                sizes = {name: float(net.get_submodule(name).weight.abs().mean()) for name in WEIGHTS}
                yield float(F.cross_entropy(logits, tests)), int(cifar.count_errors(logits, tests)) / len(tests), sizes


def main(folder, seeds):
    torch.set_num_threads(1)
    print("seed,file,loss,error,logged_loss,logged_error")
    for seed in seeds:
        number = 0
        for loss, error, *sizes in learn(Path(folder), seed):
            if sizes:
                print(f"{seed},test,{loss:.6f},{error:.6f},{TEST[0]:.6f},{TEST[1]:.6f}")
                for name, size in sizes[0].items():
                    print(f"{seed},mean |{name}|,{size:.6e},,{WEIGHTS[name]:.6e},", flush=True)
                continue
            print(f"{seed},{number + 1},{loss:.6f},{error:.6f},{LOSSES[number]:.6f},{ERRORS[number]:.6f}", flush=True)
            number += 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], [int(seed) for seed in sys.argv[2:]] or [0, 1, 2])
