"""What only a GPU can show; `pytest tests/test_gpu.py` on a machine that has one."""

import itertools
import os

import crash
import kernel_checks
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from repro.bench import feeding, results, run, together
from repro.cli import main
from repro.data import Dataset
from repro.experiments.final_error import Parameters
from repro.loading import Job
from repro.loading.finish import Finish
from repro.loading.resident import Resident
from repro.loading.watched import timely
from repro.measure.member import Network
from repro.models import alexnet, cifar
from repro.models.dropout import Dropout
from repro.models.normalization import ResponseNorm, response_norm
from repro.models.pooling import MaxPool2d
from repro.seeds import derive
from repro.training import precision
from repro.training.captured import update_for
from repro.training.graphs import cuda_graph
from repro.training.inputs import Input, batches
from repro.training.loop import Recent
from repro.training.optimizer import optimizer_for

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

# Tests behind these ask torch to be deterministic: it looks at the first product of matrices, and remembers.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _strict():
    """Single precision throughout, before and after."""
    precision.use("fp32")
    yield
    precision.use("fp32")


@pytest.fixture
def device():
    """Where the checks of kernel_checks.py run when they are collected here."""
    return "cuda"


# The kernels themselves, as compiled: all checks that test_kernels.py has interpreted.
globals().update({name: check for name, check in vars(kernel_checks).items() if name.startswith("test_")})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layers_at_the_size_of_conv1(dtype):
    """On 16 pictures' conv1 maps at scale 100: LRN equals float64's, pooling torch's, and again gives the same bits."""
    x = kernel_checks.noise(16, 96, 55, 55, dtype=dtype, device="cuda", scale=100.0).relu().requires_grad_()
    grad = kernel_checks.noise(16, 96, 55, 55, dtype=dtype, device="cuda", seed=1)
    norm, pool = ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0, towers=2), MaxPool2d(3, 2)
    exact_x = x.detach().double().requires_grad_()
    halves = [response_norm(tower, size=5, scale=1e-4, power=0.75, k=2.0) for tower in exact_x.chunk(2, 1)]
    exact = torch.cat(halves, 1)
    (exact_grad,) = torch.autograd.grad(exact, exact_x, grad.double())
    y = norm(x)
    (found,) = torch.autograd.grad(y, x, grad)
    kernel_checks.check(y, exact, dtype)
    kernel_checks.check(found, exact_grad, dtype)

    def run():
        pooled = pool(norm(x))
        return pooled, torch.autograd.grad(pooled.float().square().sum(), x)[0]

    (pooled, first), (again, second) = run(), run()
    assert torch.equal(pooled, torch.nn.functional.max_pool2d(y, 3, 2, ceil_mode=True))
    assert torch.equal(pooled, again)
    assert torch.equal(first, second)


@pytest.mark.parametrize("protocol", ["paper", "code"])
def test_the_net_computes_what_it_does_in_double_precision_on_a_cpu(protocol):
    """Logits in single precision, TF32 off, of raw pixels; where two places nearly tie, either may win a window.

    On a CPU, noise of 1e-5 of the largest value in every convolution, as Winograd's way has, puts them off by 2.7e-5,
    and of 5e-4, as TF32 has, by 2.4e-4 at least.
    """
    table = alexnet.layers(alexnet.AlexNet(protocol=protocol, form="alexnet-32", classes=10))
    model = alexnet.build(table, size=28)
    alexnet.initialise(model, table, protocol, seed=0)
    x = 60 * torch.randn(8, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = model.eval().double()(x.double())
    model.float().to("cuda", memory_format=torch.channels_last)
    found = model(x.to("cuda", memory_format=torch.channels_last)).double().cpu()
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_kernels_can_be_recorded_and_replayed():
    """A CUDA graph of LRN and pooling, forth and back, gives the bits of the same launched one by one."""
    norm, pool = ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0, towers=2), MaxPool2d(3, 2)
    x = kernel_checks.noise(4, 96, 13, 13, dtype=torch.float32, device="cuda").requires_grad_()

    def run():
        y = pool(norm(x))
        return y, torch.autograd.grad(y.square().sum(), x)[0]

    replay, recorded = cuda_graph(run, run)  # first to compile the kernels
    with torch.no_grad():
        x.copy_(kernel_checks.noise(4, 96, 13, 13, dtype=torch.float32, device="cuda", scale=100.0, seed=2))
    replay()
    for again, launched in zip(recorded, run(), strict=True):
        assert torch.equal(again, launched)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_kernels_run_where_the_tensor_is():
    """On the second GPU while the first is the current one."""
    x = kernel_checks.noise(1, 48, 5, 5, dtype=torch.float32, device="cuda:0", scale=100.0)
    norm = ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0)
    assert torch.equal(norm(x.to("cuda:1")).to("cuda:0"), norm(x))


# Dropout.


def dropout(device: torch.device) -> Dropout:
    made = Dropout(inverted=False)
    made.seed.fill_(derive(3, "dropout", 1))
    return made.to(device)


@pytest.mark.parametrize("shape", [(128, 4096), (5, 100), (2, 5, 3, 7)])
def test_dropout_has_the_masks_of_a_cpu(shape: tuple[int, ...]) -> None:
    """Integers alone decide them: every bit, at early and late steps."""
    ours, theirs = dropout(GPU), dropout(torch.device("cpu"))
    for step, first in ((0, 0), (999_999, 96), (2**32 - 1, 65_000)):
        for own in (ours, theirs):
            own.draw.at(step)
            own.draw.first = first
        found = ours.mask(torch.empty(shape, device=GPU))
        assert found.device.type == "cuda"
        assert torch.equal(found.cpu(), theirs.mask(torch.empty(shape)))


def test_a_captured_dropout_goes_from_step_to_step() -> None:
    """Captured once, forward and backward, and replayed at other steps, it has the masks and gradients of each."""
    own = dropout(GPU)
    x = torch.ones(128, 4096, device=GPU, requires_grad=True)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        out = own(x)
        return out, torch.autograd.grad(out.sum(), x)[0]

    replay, (out, gradient) = cuda_graph(run, run)
    seen = []
    for step in (0, 1, 70_000):
        own.draw.at(step)
        replay()
        expected = own.mask(x).float()
        assert torch.equal(out, expected)
        assert torch.equal(gradient, expected)
        seen.append(expected)
    assert not torch.equal(seen[0], seen[1])


# Feeding, and what streams share.


@pytest.mark.parametrize("mode", ["window", "centre", None])
def test_batches_and_views_are_those_of_a_cpu(mode):
    """To the bit: windows, labels, and what the finish makes of them, with colour noise and of ten views."""
    data, mean = crash.pictures(), 255 * torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))
    found = {}
    for device in (GPU, torch.device("cpu")):
        loader = Resident(data.to(device).held, "", Job(16, 28, 0))
        if mode is None:
            level, spread = mean.mean((0, 1)).to(device), mean.flatten(0, 1).std(0).to(device)
            finish = Finish.standardised(level, spread, colour=torch.eye(3))
        else:
            finish = Finish.less_mean_image(mean.to(device), mode, colour=torch.eye(3))
        parts = []
        for step, window in enumerate(itertools.islice(loader.train(0), 3)):
            parts += [*window, finish(window, step)]
        for count in (1, 10):
            parts += [finish.finish_views(views) for views, _ in loader.views("val", count)]
        found[device.type] = [part.cpu() for part in parts]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found.values(), strict=True))


def test_what_another_thread_copies_is_there_when_it_is_read():
    """A loader's copies, made by the thread that reads for a trial, come before the work that uses them."""
    pinned = [torch.full((1 << 26,), number, dtype=torch.uint8).pin_memory() for number in range(1, 5)]
    with torch.cuda.stream(torch.cuda.Stream()):
        copies = timely((part.to(GPU, non_blocking=True) for part in pinned), "x")
        wrong = [(batch != number).sum() for number, batch in enumerate(copies, 1)]
        assert [int(count) for count in wrong] == [0] * 4


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # it says that it does not see everything
@pytest.mark.parametrize("kind", ["epochs-to", "final-error"])
def test_between_two_looks_the_host_never_waits(kind):
    """Loader, finish, recorded update and running error: torch refuses what waits for the GPU, once all is recorded."""
    if kind == "epochs-to":
        images = torch.randint(256, (320, 32, 32, 3), dtype=torch.uint8, device=GPU)
        data = Dataset("noise", images, torch.zeros(320, dtype=torch.int64, device=GPU), 10, "")
        model = cifar.build("18pct", "relu")
        cifar.initialise(model, "18pct", "relu", "modern", 0)
        model = model.to(GPU, memory_format=torch.channels_last)
        stream, prepare = batches(data, 32, 0), Input(images, "modern")
        recent, optimizer = Recent(10, 32, GPU), optimizer_for(model, "modern", 0.001)
    else:
        p = Parameters(**crash.SMALL | {"protocol": "paper"}, epochs=20.0)  # no rate drops meanwhile
        net = Network(p, crash.pictures().to(GPU), 0, "resident")
        model, stream, prepare, recent, optimizer = net.model, net.stream(), net.input, net.recent, net.recipe.optimizer
    update = update_for(model, optimizer, captured=True)

    def steps(first, end):
        for step in range(first, end):
            if kind == "final-error":
                net.before(step)
            images, labels = next(stream)
            recent.put(*update(prepare(images), labels))

    steps(0, 2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps(2, 4)
        with pytest.raises(RuntimeError, match="synchronizing"):
            recent.check()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert recent.check().loss > 0


def test_recordings_that_are_replayed_at_once_share_nothing():
    """Long sums, which cuBLAS cuts up and adds in memory of its own: eight nets learn what each does alone."""
    rows = torch.randn(128, 64, generator=torch.Generator().manual_seed(0)).to(GPU)
    labels = torch.arange(128, device=GPU) % 10

    def recorded(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 16_384), nn.Linear(16_384, 10)).to(GPU)
        return model, update_for(model, optimizer_for(model, "modern", 1e-3), captured=True)

    def weights(model):
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    alone = []
    for seed in range(8):
        model, update = recorded(seed)
        for _ in range(20):
            update(rows, labels)
        alone.append(weights(model))
    nets = [recorded(seed) for seed in range(8)]
    streams = [torch.cuda.Stream() for _ in nets]
    torch.cuda.synchronize()
    for _ in range(20):
        for stream, (_, update) in zip(streams, nets, strict=True):
            with torch.cuda.stream(stream):
                update(rows, labels)
    torch.cuda.synchronize()
    assert [torch.equal(weights(model), own) for (model, _), own in zip(nets, alone, strict=True)] == [True] * 8


@pytest.mark.parametrize("name", ["fp32", "tf32", "bf16"])
def test_the_benchmarks_of_a_network_run(name, monkeypatch, tmp_path):
    """Each case that reads no files, in small, with the sides that only a GPU has."""
    real = run.rates
    monkeypatch.setattr(run, "rates", lambda *args, **more: real(*args, slice_s=0.001, **more))
    monkeypatch.setattr(together, "COUNTS", {"cuda": (1, 3)})
    monkeypatch.setattr(feeding, "IN_MEMORY", 64)
    monkeypatch.setattr(feeding, "SETTLE_S", 0.0)
    names = ["step", "evaluation", "lrn", "optimizer", "together", "cifar"]
    words = ["--net", "alexnet-32", "--batch", "8", "--rounds", "2", "--device", "cuda", "--precision", name]
    found = CliRunner().invoke(main, ["bench", *names, *words, "--json", str(tmp_path / "run.json")])
    assert found.exit_code == 0, found.output
    told = {ran.name: ran for ran in results.load(tmp_path / "run.json").cases}
    assert not any(ran.missing for ran in told.values())
    assert "plain torch, its own defaults" in told["step"].peers
    assert "a copy of as many bytes" in told["lrn"].peers
    ways = [f"{way}, {count} at once" for way in ("stacked", "graphs on streams") for count in (1, 3)]
    assert list(told["together"].peers) == ways
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
