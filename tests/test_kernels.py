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

from repro.models import normalization
from repro.models.alexnet import AlexNet, build, layers
from repro.models.gpu import NoTriton, kernels_for
from repro.models.normalization import ResponseNorm
from repro.models.pooling import MaxPool2d

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
def test_on_a_gpu_every_normalisation_and_pooling_of_the_net_is_a_kernel(form, size, protocol, dtype):
    """On a GPU that torch is told to imagine: two of LRN and three of pooling, whose outputs are in channels_last."""
    with torch.device("cuda"):
        model = build(layers(AlexNet(protocol=protocol, form=form)), size=size)
    for value in model.parameters():  # Module.to cannot swap imagined parameters
        value.data = value.data.to(dtype)
    x = torch.empty(2, 3, size, size, device="cuda", dtype=dtype).to(memory_format=torch.channels_last)
    with Calls() as calls:
        model(x)
    assert sorted(calls.seen) == ["norm"] * 2 + ["pool"] * 3
    y = ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0)(torch.empty(2, 48, 5, 7, device="cuda", dtype=dtype))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert (y.device.type, y.dtype, y.shape) == ("cuda", dtype, (2, 48, 5, 7))


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
    from repro.models import kernels
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

    for module, name in ((kernels, "_norm"), (kernels, "_pool"), (fused, "_update")):
        monkeypatch.setattr(module, name, Program())
    x = torch.zeros(1, 48, 3, 3)
    calls = [
        lambda: kernels.norm(x, 1, 5, 1e-4, 2.0),
        lambda: kernels.pool(x, 3, 2),
        lambda: fused.update(x, x, x, rate=0.1, momentum=0.9, decay=0.0),
    ]
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()
    assert together == [False] * 3


def compiled(program, tensors, scalars, constants):
    """Return a kernel compiled for compute capability 9.0, from the names and types of its arguments."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = tensors | scalars | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(tensors))}  # as what torch allocates is
    source = ASTSource(fn=program, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})


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
