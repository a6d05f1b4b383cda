"""What only a GPU can show; `pytest tests/test_gpu.py` on a machine that has one."""

import kernel_checks
import pytest
import torch
from click.testing import CliRunner

from repro.bench import feeding, results, run, together
from repro.cli import main
from repro.models import alexnet
from repro.models.dropout import Dropout
from repro.models.normalization import ResponseNorm, response_norm
from repro.models.pooling import MaxPool2d
from repro.seeds import derive

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

GPU = torch.device("cuda")


@pytest.fixture
def device():
    """Where the checks of kernel_checks.py run when they are collected here."""
    return "cuda"


# The kernels themselves, as compiled: the checks that test_kernels.py has interpreted.
test_norm_is_its_formula = kernel_checks.test_norm_is_its_formula
test_norm_does_not_depend_on_the_layout = (
    kernel_checks.test_norm_does_not_depend_on_the_layout_or_on_how_the_work_is_cut
)
test_pool_is_torchs = kernel_checks.test_pool_is_torchs
test_pool_does_not_depend_on_how_the_work_is_cut = kernel_checks.test_pool_does_not_depend_on_how_the_work_is_cut
test_pool_takes_the_first_of_equals = kernel_checks.test_pool_takes_the_first_of_equals_and_keeps_what_is_not_a_number
test_the_layers_pass_their_settings_on = kernel_checks.test_the_layers_pass_their_settings_on
test_an_empty_batch_goes_through = kernel_checks.test_an_empty_batch_goes_through
test_torch_knows_shapes_and_gradients = kernel_checks.test_torch_knows_shapes_and_gradients


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
def test_the_net_computes_what_it_does_in_double_precision_on_a_cpu(protocol, monkeypatch):
    """Logits in single precision, TF32 off, of raw pixels; where two places nearly tie, either may win a window."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    table = alexnet.layers(alexnet.AlexNet(protocol=protocol, form="alexnet-32", classes=10))
    model = alexnet.build(table, size=28)
    alexnet.initialise(model, table, protocol, seed=0)
    x = 60 * torch.randn(8, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = model.eval().double()(x.double())
    model.float().to("cuda", memory_format=torch.channels_last)
    found = model(x.to("cuda", memory_format=torch.channels_last)).double().cpu()
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_kernels_can_be_recorded_and_replayed():
    """A CUDA graph of LRN and pooling, forth and back, gives the bits of the same launched one by one."""
    norm, pool = ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0, towers=2), MaxPool2d(3, 2)
    x = kernel_checks.noise(4, 96, 13, 13, dtype=torch.float32, device="cuda").requires_grad_()

    def run():
        y = pool(norm(x))
        return y, torch.autograd.grad(y.square().sum(), x)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()  # compiles the kernels
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = run()
    with torch.no_grad():
        x.copy_(kernel_checks.noise(4, 96, 13, 13, dtype=torch.float32, device="cuda", scale=100.0, seed=2))
    graph.replay()
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
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            torch.autograd.grad(own(x).sum(), x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = own(x)
        (gradient,) = torch.autograd.grad(out.sum(), x)
    seen = []
    for step in (0, 1, 70_000):
        own.draw.at(step)
        graph.replay()
        expected = own.mask(x).float()
        assert torch.equal(out, expected)
        assert torch.equal(gradient, expected)
        seen.append(expected)
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_the_benchmarks_of_a_network_run(precision, monkeypatch, tmp_path):
    """Each case that reads no files, in small, with the sides that only a GPU has."""
    real = run.rates
    monkeypatch.setattr(run, "rates", lambda *args, **more: real(*args, slice_s=0.001, **more))
    monkeypatch.setattr(together, "COUNTS", {"cuda": (1, 3)})
    monkeypatch.setattr(feeding, "IN_MEMORY", 64)
    monkeypatch.setattr(feeding, "SETTLE_S", 0.0)
    names = ["step", "evaluation", "lrn", "optimizer", "together", "cifar"]
    words = ["--net", "alexnet-32", "--batch", "8", "--rounds", "2", "--device", "cuda", "--precision", precision]
    found = CliRunner().invoke(main, ["bench", *names, *words, "--json", str(tmp_path / "run.json")])
    assert found.exit_code == 0, found.output
    told = {ran.name: ran for ran in results.load(tmp_path / "run.json").cases}
    assert "plain torch, its own defaults" in told["step"].peers
    ways = [f"{way}, {count} at once" for way in ("stacked", "graphs on streams") for count in (1, 3)]
    assert list(told["together"].peers) == ways
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
