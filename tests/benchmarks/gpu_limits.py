"""What a GPU gives at most, and where a recorded step's time goes there, as Markdown: ``gpu_limits.py TABLE``.

A call is a table: ``ceilings``, products of matrices and a copy; ``kernels``, ours by the bytes that they must move;
``steps-PRECISION``, whole ones; ``busiest-PRECISION``, the kernels that take most of one; ``convolutions-PRECISION``,
each by layout. Behind ``-tried`` cuDNN tries its algorithms (``cudnn.benchmark``): in a process of its own, since torch
keeps its first choice for a shape, whichever way that was made. All but ``busiest`` are recorded and replayed, so that
no launch is timed, with ours, and what is set beside it, in turns. What cannot be measured is told in its place, and
the rest goes on; but up to torch 2.11 a process in which one recording failed makes no other (pytorch/pytorch#180395).
``--device cpu`` is there to see that it runs: small, unrecorded, and without our kernels.
"""

import argparse
import gc
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from time import perf_counter

import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from repro import environment, paper
from repro.bench import setting
from repro.bench.timing import OURS, Side, nothing, rates
from repro.loading import resident
from repro.problem import first_line
from repro.training import precision as precisions
from repro.training import views

PRECISIONS = ("fp32", "tf32", "bf16")
BATCH = 128
STEPS = (("alexnet", 128), ("alexnet", 1024), ("18pct", 128))
SMALL = (("alexnet-32", 4),)
# Maps in, places a side, maps out, kernel, stride, padding, groups.
CONVOLUTIONS = {
    "alexnet conv1": (3, 227, 96, 11, 4, 0, 1),
    "alexnet conv2": (96, 27, 256, 5, 1, 2, 2),
    "alexnet conv3": (256, 13, 384, 3, 1, 1, 1),
    "alexnet conv4": (384, 13, 384, 3, 1, 1, 2),
    "alexnet conv5": (384, 13, 256, 3, 1, 1, 2),
    "18pct conv1": (3, 32, 32, 5, 1, 2, 1),
    "18pct conv2": (32, 16, 32, 5, 1, 2, 1),
    "18pct conv3": (32, 8, 64, 5, 1, 2, 1),
}
LAYOUTS = {"channels last": torch.channels_last, "torch's own": torch.contiguous_format}
ROUNDS = 3
failures = []
"""Why, for each that failed, so that the end can say how many."""


def dtype_of(precision):
    """Return what values between layers are."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


@contextmanager
def chosen(precision: str) -> Iterator[None]:
    """Have torch compute so, and leave it in strict single precision."""
    precisions.use(precision)
    try:
        yield
    finally:
        precisions.use("fp32")


class Bench:
    """Times calls on a device, in turns: milliseconds of each, the median of the rounds."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        self.slice_s = 0.05 if self.cuda else 1e-4

    def ms(self, calls):
        """Return them by name; ``calls`` are name -> call."""
        wait = partial(torch.cuda.synchronize, self.device) if self.cuda else nothing
        sides = [Side(name, call, 1) for name, call in calls.items()]
        found = rates(sides, ROUNDS, clock=perf_counter, wait=wait, slice_s=self.slice_s)
        names = [OURS, *list(calls)[1:]]
        return {name: 1e3 / statistics.median(found[own]) for name, own in zip(calls, names, strict=True)}


def row(*cells):
    """Print a row of a Markdown table."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def head(*cells):
    """Print the head of a Markdown table, under an empty line."""
    print()
    row(*cells)
    row("---", *["--:"] * (len(cells) - 1))


def attempt(call):
    """Return what a call gives and an empty text; or None, and why there is nothing."""
    try:
        return call(), ""
    except Exception as error:  # noqa: BLE001 - of memory, of a library, of a recording, of Triton's compiler
        why = f"failed: {first_line(error)[:120]}".replace("|", "/")
        failures.append(why)
        return None, why


def ceilings(bench):
    """Print products of square matrices, and a copy of floats."""
    side, count = (8192, 1 << 30) if bench.cuda else (64, 1 << 18)
    head("ceiling", "ms", "TFLOP/s or TB/s")

    def product(precision):
        with chosen(precision):
            a, b = (torch.randn(side, side, device=bench.device, dtype=dtype_of(precision)) for _ in "ab")
            return bench.ms({"product": setting.replayed(bench.device, lambda: a @ b)})["product"]

    def copy():
        source, target = (torch.zeros(count, device=bench.device) for _ in "ab")
        return bench.ms({"copy": setting.replayed(bench.device, lambda: target.copy_(source))})["copy"]

    for precision in PRECISIONS:
        ms, why = attempt(partial(product, precision))
        told = f"product of {side} x {side}, {precision}"
        row(told, *((why, "") if why else (f"{ms:.3f}", f"{2e-9 * side**3 / ms:.1f}")))
    ms, why = attempt(copy)
    told = f"copy of {4 * count >> 20} MiB, read and written"
    row(told, *((why, "") if why else (f"{ms:.3f}", f"{8e-9 * count / ms:.2f}")))


def convolution(bench, shape, batch, precision, layout):
    """Return a convolution forward and back, without a bias, as a recording, and its operations."""
    maps, places, filters, kernel, stride, padding, groups = shape
    first = maps == 3  # no gradient of the pixels
    make = {"device": bench.device, "dtype": dtype_of(precision)}
    x = torch.randn(batch, maps, places, places, **make).to(memory_format=layout).requires_grad_(not first)
    w = torch.randn(filters, maps // groups, kernel, kernel, **make).to(memory_format=layout).requires_grad_()
    gradient = torch.randn_like(F.conv2d(x, w, None, stride, padding, 1, groups))

    def call():
        y = F.conv2d(x, w, None, stride, padding, 1, groups)
        torch.autograd.grad(y, [w] if first else [x, w], gradient)

    return setting.replayed(bench.device, call), 2 * gradient.numel() * w[0].numel() * (2 if first else 3)


def convolutions(bench, precision):
    """Print each convolution forward and back, by layout."""
    batch = BATCH if bench.cuda else 1
    head(f"convolution, batch {batch}: ms (TFLOP/s)", *LAYOUTS)
    for name, shape in CONVOLUTIONS.items():
        calls, cells, flop = {}, {}, 0
        with chosen(precision):
            for way, layout in LAYOUTS.items():
                made, cells[way] = attempt(partial(convolution, bench, shape, batch, precision, layout))
                if made is not None:
                    calls[way], flop = made
            ms, why = attempt(partial(bench.ms, calls)) if calls else ({}, "")
        for way in calls:
            cells[way] = why or f"{ms[way]:.3f} ({1e-9 * flop / ms[way]:.0f})"
        row(f"{name}, {precision}", *(cells[way] for way in LAYOUTS))


def kernels(bench):
    """Print our kernels: how fast they move the bytes that they must, beside a call unrecorded."""
    if not bench.cuda:
        print("\nNo kernels of ours on a CPU.")
        return
    from repro.models import kernels as own

    head("kernel", "ms", "TB/s", "unrecorded, ms")
    groups = [
        (f"conv1's maps, {str(dtype)[6:]}, batch {batch}", partial(on_maps, bench, own, dtype, batch))
        for dtype in own.DTYPES for batch in (BATCH, 4 * BATCH)
    ]  # fmt: skip
    # At 128, windows would come from an H200's cache, again and again the same.
    groups += [(f"batch {4 * BATCH}", partial(on_pictures, bench, 4 * BATCH)), ("fc6", partial(on_weights, bench))]
    for told, make in groups:
        made, why = attempt(make)
        for name, (call, moved) in (made or {}).items():
            cells, why = attempt(partial(kernel_cells, bench, call, moved))
            row(f"{name}, {told}", *(cells or (why, "", "")))
        if made is None:
            row(f"all, {told}", why, "", "")


def kernel_cells(bench, call, moved):
    """Return a kernel's row."""
    ms = bench.ms({"recorded": setting.replayed(bench.device, call), "not": call})
    return f"{ms['recorded']:.3f}", f"{1e-9 * moved / ms['recorded']:.2f}", f"{ms['not']:.3f}"


def on_maps(bench, own, dtype, batch):
    """Return name -> a call of each kernel of the network, and the bytes that it must move."""
    from repro.models import chain_kernel, dropout_kernel

    x = torch.randn(batch, 96, 55, 55, device=bench.device, dtype=dtype)
    x = x.to(memory_format=torch.channels_last)
    gradient = torch.randn_like(x)
    maxima, won = own.pool(x, 3, 2)
    small, bias = torch.randn_like(maxima), torch.randn(96, device=bench.device)
    flat, (seed, step) = x.permute(0, 2, 3, 1), torch.zeros(2, dtype=torch.int64, device=bench.device)
    large, pooled = x.numel() * dtype.itemsize, maxima.numel() * (dtype.itemsize + 1)
    return {
        "norm": (lambda: own.norm(x, 2, 5, 1e-4, 2.0), 2 * large),
        "norm's gradient": (lambda: own.norm_gradient(x, gradient, 2, 5, 1e-4, 2.0), 3 * large),
        "pool": (lambda: own.pool(x, 3, 2), large + pooled),
        "pool's gradient": (lambda: own.pool_gradient(small, won, 55, 55, 3, 2), large + pooled),
        "bias and ReLU": (lambda: chain_kernel.bias_relu(x, bias), 2 * large),
        "bias and ReLU's gradient": (lambda: chain_kernel.bias_relu_gradient(x, gradient, bias), 3 * large),
        "dropout": (lambda: dropout_kernel.drop(flat, seed, step, 0, 0, 1, 2.0), 2 * large),
    }


def on_pictures(bench, batch):
    """Return the same of what feeds the network, each beside as much in torch's operations."""
    from repro.loading import window_kernel
    from repro.models import chain_kernel

    side, crop, make = paper.STORED, paper.CROP, {"device": bench.device}
    images = torch.zeros(4 * batch, side, side, 3, dtype=torch.uint8, **make)
    mean, chosen = torch.zeros(2, side, side, 3, **make), torch.randperm(len(images), **make)[:batch]
    offsets, flips = torch.randint(side - crop + 1, (batch, 2), **make), torch.arange(batch, **make) % 2 == 1
    windows = window_kernel.cut(images, chosen, offsets, flips, crop)
    x = window_kernel.finish(windows, offsets, flips, mean, None, None, centred=False).permute(0, 3, 1, 2)
    count, (y, left) = windows.numel(), offsets.unbind(1)
    padded = batch * 3 * (crop + 3) ** 2
    # The mean's second half is mirrored, and a mirrored image's window lies in it from the other end.
    place = flips.long(), y, torch.where(flips, side - crop - left, left)
    return {
        "windows": (lambda: window_kernel.cut(images, chosen, offsets, flips, crop), 2 * count),
        "windows by torch": (
            lambda: views.mirror(resident.all_windows(images, crop)[chosen, y, left], flips), 2 * count,
        ),
        "input": (
            lambda: window_kernel.finish(windows, offsets, flips, mean, None, None, centred=False), 5 * count,
        ),
        "input by torch": (lambda: windows.float().sub_(resident.all_windows(mean, crop)[place]), 5 * count),
        "border, to bf16": (lambda: chain_kernel.pad(x, 0, 3, 0, 3, True), 4 * count + 2 * padded),
        "border, to bf16, by torch": (lambda: F.pad(x, (0, 3, 0, 3)).bfloat16(), 4 * count + 2 * padded),
    }  # fmt: skip


def on_weights(bench):
    """Return the same of the update of a layer's weights."""
    from repro.training import fused

    weight, velocity, gradient = (torch.zeros(4096, 9216, device=bench.device) for _ in "wvg")
    rule = {"rate": setting.RATE, "momentum": paper.MOMENTUM, "decay": paper.WEIGHT_DECAY}
    return {"update": (lambda: fused.update(weight, velocity, gradient, **rule), 20 * weight.numel())}


def steps(bench, precision):
    """Print whole steps, as a trial takes them."""
    head("step", "ms", "images/s")
    for net, batch in STEPS if bench.cuda else SMALL:
        ms, why = attempt(partial(step_ms, bench, net, batch, precision))
        row(f"{net}, batch {batch}, {precision}", *([why, ""] if why else [f"{ms:.3f}", f"{1e3 * batch / ms:,.0f}"]))


def step_ms(bench, net, batch, precision):
    """Return the milliseconds of a step."""
    gc.collect()  # the memory of the step before this one
    with chosen(precision):
        side = step(bench, net, batch, precision)
        return bench.ms({"steps": side.call})["steps"] * batch / side.units


def step(bench, net, batch, precision):
    """Return the package's loop as a side."""
    s = setting.Settings(net, batch, bench.device, precision=precision)
    model = setting.ours(s, setting.model_of(s))
    return setting.trainer(s, model, repeat(setting.batch_of(s)), lambda x: x)


def busiest(bench, precision):
    """Print the kernels that take most of a step's time."""
    for net, batch in STEPS if bench.cuda else SMALL:
        gc.collect()
        found, why = attempt(partial(profiled, bench, net, batch, precision))
        total = sum(us for _, us, _ in found or ())
        what = f"{net}, batch {batch}, {precision}"
        head(f"{what}: kernels, {1e-3 * total:.3f} ms a step" if found else what, "ms a step", "share", "calls a step")
        if why:
            row(why, "", "", "")
        for name, us, calls in sorted(found or (), key=lambda each: -each[1])[:20]:
            row(f"`{name[:100]}`", f"{1e-3 * us:.3f}", f"{us / total:.1%}", f"{calls:g}")


def profiled(bench, net, batch, precision):
    """Return name, microseconds and calls of each kernel (on a CPU: operation) of a step."""
    with chosen(precision):
        side = step(bench, net, batch, precision)
        side.call()
        with profile(activities=[ProfilerActivity.CUDA if bench.cuda else ProfilerActivity.CPU]) as seen:
            side.call()
            if bench.cuda:
                torch.cuda.synchronize(bench.device)
    count = side.units / batch
    return [
        (e.key, (e.self_device_time_total if bench.cuda else e.self_cpu_time_total) / count, e.count / count)
        for e in seen.key_averages()
    ]


TRIED = "-tried"
TABLES = {"ceilings": ceilings, "kernels": kernels} | {
    f"{table.__name__}-{precision}{tried}": partial(table, precision=precision)
    for table, tried in ((steps, ""), (steps, TRIED), (busiest, ""), (convolutions, ""), (convolutions, TRIED))
    for precision in PRECISIONS
}  # fmt: skip


def main():
    """Read the command line, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--device", default="cuda", help="cuda (default), or cpu to see that it runs")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    e, bench = environment.describe(device), Bench(device)
    print(
        f"{e['device'] if bench.cuda else e['cpu']}, Python {e['python']}, torch {e['torch']}, cuDNN {e['cudnn']}, "
        f"commit {str(e['commit'])[:10]}{' with changes' if e['dirty'] else ''}; n = {ROUNDS} rounds, medians; "
        f"`python tests/benchmarks/gpu_limits.py {asked.table} --device {device}`"
    )
    torch.backends.cudnn.benchmark = asked.table.endswith(TRIED)
    TABLES[asked.table](bench)
    if failures:
        print(f"gpu_limits: {len(failures)} not measured, as the table says; the first: {failures[0]}", file=sys.stderr)


if __name__ == "__main__":
    main()
