"""Where the time of a training step goes on this CPU, as Markdown: ``where_time_goes.py NET`` (alexnet, 18pct).

Each layer is timed alone, forward and with its gradient, on the input that it has in the net; beside it, in the same
rounds, a large product of matrices and a large copy, which are this machine's ceilings, and the whole step. Then the
changes that were made, or tried, each beside the plain net. ``--write FILE...`` puts such texts, named NET.md, into
docs/profile.md.
"""

import argparse
import math
import re
import statistics
import sys
import time
from contextlib import ExitStack
from functools import partial
from itertools import repeat
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from repro import environment, paper
from repro.bench import apart, setting
from repro.bench.plain import plain
from repro.bench.run import settings
from repro.bench.timing import AGAIN, OURS, Side, rates
from repro.judging.stats import log_sample, mean_interval
from repro.models.normalization import ResponseNorm
from repro.training.precision import compute_in
from repro.training.sgd2012 import SGD2012

PAGE = Path(__file__).parents[2] / "docs" / "profile.md"
BATCH = {"alexnet": 32, "18pct": 128}
SIDE = 2048  # of the matrices that are multiplied
COPIED = 64 << 20  # floats that are copied: 256 MiB, far beyond any cache
SLICE_S = 0.1


def ceilings():
    """Return the sides that tell this machine's limits, and what a unit of each is."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    out = torch.empty(SIDE, SIDE)
    half_a, half_b, half_out = a.bfloat16(), b.bfloat16(), out.bfloat16()
    last = {"memory_format": torch.channels_last}
    maps, kernels = torch.randn(16, 256, 28, 28).to(**last), torch.randn(256, 256, 3, 3).to(**last)
    source, target = torch.randn(COPIED), torch.empty(COPIED)
    flop = 2 * SIDE**3
    return [
        Side("product fp32", lambda: torch.mm(a, b, out=out), flop),
        Side("convolution", partial(F.conv2d, maps, kernels, padding=1), 2 * maps.numel() * kernels[0].numel()),
        Side("product bf16", lambda: torch.mm(half_a, half_b, out=half_out), flop),
        Side("copy", lambda: target.copy_(source), 2 * 4 * COPIED),
    ]


def layers(model, images):
    """Return for each layer its name, its sides forward and with the gradient, and its operations and bytes of both."""
    found, x, learns = [], images, False
    for name, module in model.named_children():
        given = x.detach().clone(memory_format=torch.preserve_format)
        call = F.relu if isinstance(module, nn.ReLU) else module  # not in place: the input is used again
        with torch.no_grad():
            x = call(given)
        own = list(module.parameters())
        sources = [*own, given] if learns else own
        given.requires_grad_(learns)
        learns = learns or bool(own)
        sides = [Side(f"{name} forward", lambda call=call, given=given: call(given), 1)]
        if sources:
            gradient = torch.randn_like(x)

            def both(call=call, given=given, sources=sources, gradient=gradient):
                torch.autograd.grad(call(given), sources, gradient)

            sides.append(Side(f"{name} both", both, 1))
        work = None
        if own:
            macs = len(images) * module.weight.numel() * (x[0, 0].numel() if x.dim() == 4 else 1)
            work = (2 * macs, 4 * macs if given.requires_grad else 2 * macs)
        moved = (4 * (given.numel() + x.numel()), 4 * (given.numel() + 2 * x.numel()))
        found.append((name, sides, work, moved))
    return found


def by_layer(s, rounds, clock):
    """Return the Markdown table of the layers."""
    model = setting.model_of(s)
    images, labels = setting.batch_of(s)
    whole = setting.trainer(s, setting.ours(s, model), repeat((images, labels)), lambda x: x)
    copy = setting.ours(s, setting.model_of(s))
    parts = layers(copy, images)
    parameters = [nn.Parameter(p.detach().clone()) for p in model.parameters()]
    for p in parameters:
        p.grad = torch.randn_like(p)
    rule = SGD2012(parameters, setting.RATE, paper.MOMENTUM, paper.WEIGHT_DECAY)
    sides = [whole._replace(units=1), Side("update", rule.step, 1), *ceilings()]
    sides += [side for _, own, _, _ in parts for side in own]
    found = {k: statistics.median(v) for k, v in rates(sides, rounds, clock=clock, slice_s=SLICE_S).items()}
    ms = {name: 1e3 / rate for name, rate in found.items()}
    total = math.sqrt(ms[OURS] * ms[AGAIN])
    product, copied = max(found["product fp32"], found["convolution"]), found["copy"]
    spent, flop = ms["update"], 0.0
    lines = ["| layer | bound by | forward, ms | backward, ms | of the step | of the ceiling, forward | backward |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|")
    for name, own, work, moved in parts:
        there = ms[f"{name} forward"]
        back = max(ms[f"{name} both"] - there, 0.0) if len(own) > 1 else 0.0
        spent, flop = spent + there + back, flop + sum(work or ())
        ceiling, amounts = (product, work) if work else (copied, moved)
        shares = [
            f"{1e3 * amount / t / ceiling:.0%}" if t else "" for amount, t in zip(amounts, (there, back), strict=True)
        ]
        row = (
            name,
            "products" if work else "bytes",
            f"{there:.2f}",
            f"{back:.2f}",
            f"{(there + back) / total:.1%}",
            *shares,
        )
        lines.append(f"| {' | '.join(row)} |")
    share = 1e3 * 5 * 4 * sum(p.numel() for p in parameters) / ms["update"] / copied
    lines.append(f"| update | bytes | {ms['update']:.2f} | | {ms['update'] / total:.1%} | {share:.0%} | |")
    lines.append(f"| all of them | | {spent:.1f} | | {spent / total:.1%} | | |")
    lines.append(
        f"| the step, timed whole | | {total:.1f} | | 100% | {1e3 * flop / product / total:.0%} of the product's | |"
    )
    told = (
        f"Ceilings: a product of two matrices of {SIDE} x {SIDE}, {found['product fp32'] / 1e9:.0f} GFLOP/s in float32 "
        f"and {found['product bf16'] / 1e9:.0f} in bfloat16; a convolution of 3 x 3 from 256 to 256 maps of 28 x 28, "
        f"{found['convolution'] / 1e9:.0f} in float32; a copy of 256 MiB, {copied / 1e9:.1f} GB/s. The "
        f"layers' {flop / 1e9:.1f} GFLOP would take {1e3 * flop / product:.0f} ms at the faster one. "
        f"The step against itself: {ms[OURS] / ms[AGAIN]:.2f}."
    )
    return [told, "", *lines]


def _space_to_depth(model):
    """Return the net with conv1 as 3 x 3 over 48 maps: 4 x 4 pixels become maps."""

    class Conv1(nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.weight, self.bias = conv.weight, conv.bias

        def forward(self, x):
            x = F.pixel_unshuffle(F.pad(x, (0, 1, 0, 1)), 4).contiguous(memory_format=torch.channels_last)
            return F.conv2d(x, F.pixel_unshuffle(F.pad(self.weight, (0, 1, 0, 1)), 4), self.bias)

    model.conv1 = Conv1(model.conv1)
    return model


def _own_norms(model):
    """Return ours in torch's default layout, but for what the norms give."""
    return model.to(memory_format=torch.contiguous_format)


def changes(s, rounds, clock, stack, *, compiled):
    """Return the Markdown table of the changes: images a second, and how often that of the plain net."""
    images, labels = setting.batch_of(s)
    flat = images.contiguous()

    def side(name, model, x, **more):
        return Side(name, setting.plain_trainer(model, lambda: (x, labels)), s.batch, **more)

    def fresh():
        return setting.model_of(s)

    last = {"memory_format": torch.channels_last}
    sides = [
        side("plain torch", plain(fresh()), flat),
        side("channels_last", plain(fresh()).to(**last), images),
        side("own norms", _own_norms(fresh()), flat),
        side("channels_last, own norms", fresh().to(**last), images),
        setting.trainer(s, setting.ours(s, fresh()), repeat((images, labels)), lambda x: x, name="the package's loop"),
        side("plain torch, bf16", compute_in(plain(fresh()), "bf16"), flat),
        side("channels_last, own norms, bf16", compute_in(fresh().to(**last), "bf16"), images),
    ]  # fmt: skip
    if any(isinstance(m, ResponseNorm) for m in fresh()):
        sides.append(side("channels_last, own norms, space to depth", _space_to_depth(fresh().to(**last)), images))
    if clock is time.perf_counter:  # another process's seconds are not seen
        sides.insert(1, apart.side(s, stack))
    if compiled:
        sides.append(side("plain torch, compiled", torch.compile(plain(fresh())), flat))
        sides.append(side("channels_last, compiled", torch.compile(plain(fresh()).to(**last)), images))
    found = rates(sides, rounds, clock=clock)
    base = [math.sqrt(a * b) for a, b in zip(found[OURS], found[AGAIN], strict=True)]
    again = mean_interval(log_sample([a / b for a, b in zip(found[AGAIN], found[OURS], strict=True)]), 0.9)
    itself = f"{math.exp(again.value):.2f} [{math.exp(again.low):.2f}, {math.exp(again.high):.2f}]"
    lines = ["| change | images/s | over plain torch |", "|---|--:|--:|"]
    lines.append(f"| plain torch, and again | {statistics.median(base):.1f} | {itself} |")
    for one in sides[1:]:
        told = mean_interval(log_sample([v / b for v, b in zip(found[one.name], base, strict=True)]), 0.9)
        low, value, high = (math.exp(v) for v in (told.low, told.value, told.high))
        lines.append(f"| {one.name} | {statistics.median(found[one.name]):.1f} | {value:.2f} [{low:.2f}, {high:.2f}] |")
    return lines


def write(files):
    """Put each text into its place in the page: between ``<!-- NET -->`` and ``<!-- to here -->``."""
    text = PAGE.read_text()
    for file in files:
        place = re.compile(rf"(?<=<!-- {re.escape(file.stem)} -->\n).*?(?=\n<!-- to here -->)", flags=re.DOTALL)
        text, count = place.subn(lambda _, file=file: file.read_text().strip(), text, count=1)
        if count != 1:
            sys.exit(f"{PAGE} has no place for {file.stem}")
    PAGE.write_text(text)


def main():
    """Read the command line; measure and print, or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", nargs="?", choices=sorted(BATCH))
    parser.add_argument("--rounds", type=int, default=10)
    help_ = "torch.compile as well: minutes on a machine of few cores (default: no)"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False, help=help_)
    help_ = "one thread, and its own seconds, not the clock's: where others use the machine"
    parser.add_argument("--cpu-time", action="store_true", help=help_)
    parser.add_argument("--write", nargs="+", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.write:
        write(args.write)
        return
    if not args.net:
        parser.error("name a net")
    clock = time.process_time if args.cpu_time else time.perf_counter
    if args.cpu_time:
        torch.set_num_threads(1)
    s = settings(args.net, BATCH[args.net], torch.device("cpu"))
    e = environment.describe(s.device)
    changed = " with changes" if e["dirty"] else ""
    words = [args.net, "--rounds", str(args.rounds)] + ["--compile"] * args.compile
    words += ["--cpu-time"] * args.cpu_time
    print(
        f"{s.net}, batch {s.batch}, float32; n = {args.rounds} rounds; {e['cpu']}, {e['cores']} cores, {e['threads']} "
        f"threads, Python {e['python']}, torch {e['torch']}, commit {str(e['commit'])[:10]}{changed}; "
        f"`python tests/benchmarks/where_time_goes.py {' '.join(words)}`\n"
    )
    print("\n".join(by_layer(s, args.rounds, clock)), "\n")
    with ExitStack() as stack:
        print("\n".join(changes(s, args.rounds, clock, stack, compiled=args.compile)))


if __name__ == "__main__":
    main()
