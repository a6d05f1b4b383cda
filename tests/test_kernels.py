"""The GPU kernels as far as a CPU can tell: interpreted, compiled for a GPU that is not here, and when they serve."""

import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from repro.loading import Job
from repro.loading.finish import Finish
from repro.loading.resident import Resident
from repro.models import normalization
from repro.models.alexnet import AlexNet, build, layers
from repro.models.gpu import NO_KERNELS, NoTriton, kernels_for
from repro.models.normalization import ResponseNorm
from repro.models.pooling import MaxPool2d
from repro.training.sgd2012 import SGD2012

triton = pytest.importorskip("triton", reason="Triton is for Linux")


def test_interpreted_they_compute_what_they_should():
    """The checks of kernel_checks.py pass under Triton's interpreter, and none is left out."""
    checks = Path(__file__).with_name("kernel_checks.py")
    command = [sys.executable, "-m", "pytest", str(checks), "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert re.fullmatch(r"\d+ passed in .*", run.stdout.splitlines()[-1])


@pytest.fixture
def imagined():
    """Let torch imagine a GPU: shapes and layouts without values. Nothing imagined must be kept for later."""
    normalization._band.cache_clear()
    with FakeTensorMode():
        yield
    normalization._band.cache_clear()


class Calls(TorchDispatchMode):
    """Notes the operations of this package that run."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "repro":
            self.seen.append(func.__name__.partition(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("imagined")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("protocol", ["paper", "code"])
@pytest.mark.parametrize(("form", "size"), [("alexnet", 224), ("alexnet-32", 28)])
def test_on_a_gpu_all_but_the_products_of_the_net_are_kernels(form, size, protocol, dtype):
    """On a GPU that torch is told to imagine: two of LRN, three of pooling, two of dropout, one behind a convolution.

    In the code of 2012 LRN stands between conv1 and its ReLU, which then stays torch's. The larger net's pictures get a
    border, by a kernel where they come in single precision. Maps are in channels_last.
    """
    with torch.device("cuda"):
        model = build(layers(AlexNet(protocol=protocol, form=form)), size=size)
    for value in model.parameters():  # Module.to cannot swap imagined parameters
        value.data = value.data.to(dtype)
    x = torch.empty(2, 3, size, size, device="cuda", dtype=dtype).to(memory_format=torch.channels_last)
    with Calls() as calls:
        model(x)
    fused = 5 if protocol == "paper" else 4
    border = ["pad"] if form == "alexnet" and dtype == torch.float32 else []
    assert sorted(calls.seen) == ["bias_relu"] * fused + ["drop"] * 2 + ["norm"] * 2 + border + ["pool"] * 3
    first = ["bias_relu", "norm"] if protocol == "paper" else ["norm", "pool"]
    assert calls.seen[: len(border) + 2] == border + first
    y = ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0)(torch.empty(2, 48, 5, 7, device="cuda", dtype=dtype))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert (y.device.type, y.dtype, y.shape) == ("cuda", dtype, (2, 48, 5, 7))


@pytest.mark.parametrize("mode", ["window", "centre", None])
def test_on_a_gpu_a_set_that_lies_there_feeds_by_two_kernels(imagined, mode):
    """One cuts a batch's windows, one makes the network's input of them, and of a test's views."""
    images = torch.empty(32, 36, 36, 3, dtype=torch.uint8, device="cuda")
    labels = torch.zeros(32, dtype=torch.int64, device="cuda")
    loader = Resident({"train": (images, labels), "val": (images, labels)}, "", Job(16, 32, 0))
    mean, colour = torch.empty(36, 36, 3, device="cuda"), torch.ones(3, 3)
    if mode is None:
        finish = Finish.standardised(mean.mean((0, 1)), mean.std((0, 1)), colour=colour)
    else:
        finish = Finish.less_mean_image(mean, mode, colour=colour)
    with Calls() as calls:
        x = finish(next(loader.train(0)), 0)
        assert (x.shape, x.dtype) == ((16, 3, 32, 32), torch.float32)
        assert x.is_contiguous(memory_format=torch.channels_last)
        views, _ = next(loader.views("val", 10))
        assert finish.finish_views(views).shape == (10, 3, 32, 32)
    assert calls.seen == ["cut", "finish", "finish"]


@pytest.mark.usefixtures("imagined")
@pytest.mark.parametrize(
    ("maps", "changed", "dtype"),
    [
        (48, {}, torch.float64),
        (12, {}, torch.bfloat16),
        (48, {"power": 0.5}, torch.float32),
        (48, {"size": 11}, torch.float32),
        (48, {"k": 0.0}, torch.float32),
    ],
)
def test_what_the_norm_kernel_cannot_do_is_done_by_torch(maps, changed, dtype):
    """Each of these runs on a GPU (an imagined one) by the same steps as on a CPU, and gives the same shape."""
    norm = ResponseNorm(**{"size": 5, "scale": 1e-4, "power": 0.75, "k": 2.0} | changed)
    with Calls() as calls:
        assert norm(torch.empty(2, maps, 3, 3, device="cuda", dtype=dtype)).shape == (2, maps, 3, 3)
    assert calls.seen == []


@pytest.mark.usefixtures("imagined")
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "dtype"),
    [
        ((2, 8, 6, 6), 3, 2, torch.float64),
        ((2, 8, 6, 6), 2, 3, torch.float32),
        ((2, 8, 20, 20), 16, 2, torch.float32),
        ((8, 6, 6), 3, 2, torch.float32),
        ((2, 8, 2, 6), 3, 2, torch.float32),
        ((1, 1, 4000, 4000), 3, 2, torch.float32),
    ],
)
def test_what_the_pooling_kernel_cannot_do_is_done_by_torch(shape, kernel, stride, dtype):
    """Double precision, gaps between windows, large windows, no batch, a map smaller than a window, a vast image."""
    with Calls() as calls:
        x = torch.empty(shape, device="cuda", dtype=dtype)
        expected = torch.nn.functional.max_pool2d(x, kernel, stride, ceil_mode=True).shape
        assert MaxPool2d(kernel, stride)(x).shape == expected
    assert calls.seen == []


def test_kernels_are_left_out_where_that_is_asked_for(monkeypatch):
    """Layers and the update are then torch's, on a GPU too, and nothing asks for Triton."""
    monkeypatch.setenv(NO_KERNELS, "1")
    monkeypatch.setitem(sys.modules, "triton", None)
    with FakeTensorMode():
        x = torch.empty(1, 48, 3, 3, device="cuda")
        assert kernels_for(x) is None
        assert MaxPool2d(3, 2)(ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0)(x)).shape == (1, 48, 1, 1)
        weight = torch.nn.Parameter(torch.empty(4, device="cuda"))
        weight.grad = torch.empty(4, device="cuda")
        SGD2012([weight]).step()


def test_without_triton_a_gpu_is_told_so_and_a_cpu_does_not_mind(monkeypatch):
    """One line says what to install; on a CPU nothing asks for Triton."""
    import repro.models.kernels  # noqa: F401 (so that there is something to take away)

    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "repro.models.kernels")
    monkeypatch.delattr("repro.models.kernels")
    x = torch.rand(1, 48, 3, 3)
    assert kernels_for(x) is None
    assert MaxPool2d(3, 2)(ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0)(x)).shape == (1, 48, 1, 1)
    with FakeTensorMode(), pytest.raises(NoTriton, match="pip install triton"):
        ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0)(torch.empty(1, 48, 3, 3, device="cuda"))


def test_threads_launch_in_turn(monkeypatch):
    """A stand-in for Triton, whose first launch of a kernel must not be met by another thread's."""
    from repro.models import chain_kernel, dropout_kernel, kernels
    from repro.training import fused

    inside, together = threading.Lock(), []

    class Program:
        def __getitem__(self, _grid):
            return self.run

        def run(self, *_arguments, **_more):
            together.append(not inside.acquire(blocking=False))
            time.sleep(0.02)
            if not together[-1]:
                inside.release()

    replaced = (
        (kernels, "_norm"), (kernels, "_pool"), (fused, "_update"), (dropout_kernel, "_drop"),
        (chain_kernel, "_bias_relu"),
    )  # fmt: skip
    for module, name in replaced:
        monkeypatch.setattr(module, name, Program())
    x, number = torch.zeros(1, 48, 3, 3), torch.zeros((), dtype=torch.int64)
    calls = [
        lambda: kernels.norm(x, 1, 5, 1e-4, 2.0),
        lambda: kernels.pool(x, 3, 2),
        lambda: fused.update(x, x, x, rate=0.1, momentum=0.9, decay=0.0),
        lambda: dropout_kernel.drop(x, number, number, 0, 0, 1, 1.0),
        lambda: chain_kernel.bias_relu(x, torch.zeros(48)),
    ]
    with ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()
    assert together == [False] * 5


def compiled(program, tensors, scalars, constants, **options):
    """Return a kernel compiled for compute capability 9.0, from the names and types of its arguments."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = tensors | scalars | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(tensors))}  # as what torch allocates is
    source = ASTSource(fn=program, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True} | options)


def resources(kernel, folder):
    """Return the registers a thread of a compiled kernel needs, and the bytes of what does not fit there."""
    from triton import knobs

    binary = folder / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(binary)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return found["REG"], found["STACK"] + found["LOCAL"]


@pytest.mark.parametrize(("type_", "width"), [("bf16", 8), ("fp32", 4)])
def test_compiled_for_a_gpu_that_is_not_here_they_stay_in_registers(type_, width, tmp_path, monkeypatch):
    """For conv1's maps: no spills, nothing through shared memory, values read by 16 bytes, 80 registers at most."""
    from repro.models import kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    values, places = f"*{type_}", "*u8"
    norm = {"ROW": 48 // width, "H": 2, "B": kernels.NORM_PIECES, "V": width}
    pool = {"C": 96, "K": 3, "S": 2, "B": kernels.POOL_PIECES, "V": width}
    sides = dict.fromkeys(["ROWS", "COLUMNS", "HEIGHT", "WIDTH"], "i32")
    numbers = {"pieces": "i64", "a": "fp32", "k": "fp32"}
    found = {
        "norm": compiled(kernels._norm, {"X": values, "Y": values}, numbers, norm),
        "norm_gradient": compiled(kernels._norm_gradient, dict.fromkeys("XGD", values), numbers, norm),
        "pool": compiled(kernels._pool, {"X": values, "Y": values, "WON": places}, sides, pool),
        "pool_gradient": compiled(kernels._pool_gradient, {"G": values, "WON": places, "D": values}, sides, pool),
    }
    for name, kernel in found.items():
        registers, spilled = resources(kernel, tmp_path)
        print(f"{name} {type_}: {registers} registers")
        assert kernel.metadata.shared == 0, name
        assert spilled == 0, name
        assert registers <= 80, name
        loads = re.findall(r"ld\.global\S*", kernel.asm["ptx"])
        assert {load for load in loads if load.endswith(".v4.b32")}, name
        assert len(loads) == {"norm": 6, "norm_gradient": 12, "pool": 9, "pool_gradient": 8}[name]


@pytest.mark.parametrize("maps", [96, 256, 384])
@pytest.mark.parametrize("type_", ["bf16", "fp32"])
def test_compiled_bias_and_relu_read_maps_by_16_bytes(type_, maps, tmp_path, monkeypatch):
    """For each convolution's maps: no spills, 80 registers at most; the bias and sums alone are shared."""
    from repro.models import chain_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    values, numbers = f"*{type_}", {"rows": "i32"}
    _, shape = chain_kernel._shape(torch.empty(1, maps, 1, 1))
    assert shape["R"] * shape["W"] == chain_kernel.VALUES
    found = {
        "bias_relu": compiled(chain_kernel._bias_relu, {"X": values, "BIAS": "*fp32", "Y": values}, numbers, shape),
        "bias_relu_gradient": compiled(
            chain_kernel._bias_relu_gradient, dict.fromkeys("YGD", values) | {"PARTS": "*fp32"},
            numbers, shape | {"TILES": 3},
        ),
        "added_up": compiled(
            chain_kernel._added_up, {"PARTS": "*fp32", "TOTAL": "*fp32"}, {"parts": "i32"},
            {"C": maps, "S": chain_kernel.SPANS, "B": chain_kernel.ADDED}, num_warps=8,
        ),
    }  # fmt: skip
    for name, kernel in found.items():
        registers, spilled = resources(kernel, tmp_path)
        print(f"{name} {type_}: {registers} registers")
        assert kernel.metadata.shared <= 8192, name
        assert spilled == 0, name
        assert registers <= 80, name
        loads = re.findall(r"ld\.global\S*", kernel.asm["ptx"])
        pieces = 1 if type_ == "bf16" else 2  # of the 16 values that a thread has, four or eight a piece
        expected = {"bias_relu": 2 * pieces, "bias_relu_gradient": 4 * pieces, "added_up": 16}[name]
        assert sum(load.endswith(".v4.b32") for load in loads) >= expected, name
        assert "ld.global.b16" not in loads, name


@pytest.mark.parametrize("type_", ["bf16", "fp32"])
def test_compiled_dropout_counts_in_registers(type_, tmp_path, monkeypatch):
    """No spills, nothing through shared memory, and no value so small that it is taken for 0: torch takes none so."""
    from repro.models import dropout_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tensors = {"X": f"*{type_}", "Y": f"*{type_}", "SEED": "*i64", "STEP": "*i64"}
    numbers = dict.fromkeys(["first", "own", "words", "before"], "i32") | {"factor": "fp32"}
    kernel = compiled(dropout_kernel._drop, tensors, numbers, {"B": dropout_kernel.BLOCK})
    registers, spilled = resources(kernel, tmp_path)
    print(f"drop {type_}: {registers} registers")
    assert kernel.metadata.shared == spilled == 0
    assert registers <= 80
    assert ".ftz" not in kernel.asm["ptx"]


@pytest.mark.parametrize("crop", [224, 28])
def test_compiled_feeding_writes_by_16_bytes_and_divides_as_a_cpu_does(crop, tmp_path, monkeypatch):
    """Windows, input and border of each form's pictures: no spills, and of divisions the one that rounds correctly."""
    from repro.loading import window_kernel
    from repro.models import chain_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    _, tile = window_kernel._tiles(128, crop)
    given = {"OFFSETS": "*i64", "FLIPS": "*u8"}
    images = {"SET": "*u8", "CHOSEN": "*i64"} | given | {"OUT": "*u8"}
    floats = {"IMAGES": "*u8"} | given | dict.fromkeys(["MEAN", "SHIFT", "STD", "OUT"], "*fp32")
    found = {"cut": compiled(window_kernel._cut, images, {"height": "i32", "width": "i32"}, tile)}
    for less in (window_kernel.NONE, window_kernel.WINDOW, window_kernel.CENTRE):
        told = {"LESS": less, "SHIFTED": True, "SCALED": less == window_kernel.NONE}
        found[f"finish {less}"] = compiled(window_kernel._finish, floats, {"side": "i32"}, told | tile)
    for type_ in ("bf16", "fp32"):
        sides = {"C": 3, "HEIGHT": crop, "WIDTH": crop, "ROWS": crop + 3, "COLUMNS": crop + 3, "R": 2, "W": 1024}
        tensors = {"X": "*fp32", "Y": f"*{type_}"}
        found[f"pad {type_}"] = compiled(chain_kernel._pad, tensors, dict.fromkeys(["left", "top"], "i32"), sides)
    for name, kernel in found.items():
        registers, spilled = resources(kernel, tmp_path)
        print(f"{name} {crop}: {registers} registers")
        assert spilled == 0, name
        assert registers <= 96, name
        assert kernel.metadata.shared <= 32768, name
        ptx = kernel.asm["ptx"]
        assert set(re.findall(r"div\.\S*f32", ptx)) == ({"div.rn.f32"} if name == "finish 0" else set()), name
        assert not re.findall(r"(?:fma|mul)\.\S*f32", ptx), name
        if name.startswith("finish"):
            assert set(re.findall(r"st\.global\S*", ptx)) == {"st.global.v4.b32"}, name


def test_the_bytes_that_the_profile_page_predicts_are_those_of_the_shapes():
    """Its table of passes over memory: megabytes from the network's shapes at batch 128, microseconds at 4.3 TB/s."""
    from repro.bench import floor
    from repro.models import chain_kernel

    page = (Path(__file__).parents[1] / "docs" / "profile.md").read_text().split("### What fewer passes")[1]
    told = [row.split("|") for row in re.findall(r"^\| (.+) \|$", page, re.MULTILINE)[1:]]
    batch, maps, parts, spans = 128, [], 0, chain_kernel.SPANS
    with torch.device("meta"):
        x = torch.empty(batch, 3, 224, 224)
        for layer in build(layers(AlexNet())):
            x = layer(x)
            if isinstance(layer, torch.nn.Conv2d):
                maps.append(x.numel())
                rows, shape = chain_kernel._shape(x)
                tiles = -(-rows // shape["R"])
                parts += 2 * 4 * len(layer.weight) * -(-tiles // -(-tiles // spans))
    values, pixels, bordered = sum(maps), batch * 3 * 224**2, batch * 3 * 227**2
    expected = [
        (8 * 2 * values, 5 * 2 * values + parts),
        (8 * 4 * values, 5 * 4 * values + parts),
        (None, 2 * 2 * 2 * 2 * batch * 4096),
        ((2 + 2 + 3) * pixels, 2 * pixels),
        ((4 + 9 + 8) * pixels, 5 * pixels),
        (8 * pixels, 8 * pixels),
        (4 * bordered + 8 * pixels + 6 * bordered, 4 * pixels + 2 * bordered),
        (4 * bordered + 8 * pixels, 4 * pixels + 4 * bordered),
    ]
    per_us = 1e-6 * floor.PEAKS["NVIDIA H200"].bytes_s
    rows = [
        [f"{moved / 1e6:,.1f}", f"{moved / per_us:.0f}"] if moved else ["", ""] for pair in expected for moved in pair
    ]
    found = [[cell.strip() for cell in row[at : at + 2]] for row in told for at in (2, 5)]
    assert found == rows
    assert f"{values:,} values" in page
    assert f"{pixels:,} numbers" in page
