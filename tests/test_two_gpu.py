"""Two towers over two ranks: what they compute, what they exchange, and how they end, on this machine's CPU."""

import contextlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from simulation import Heard
from torch import nn
from torch.nn import functional as F

from repro.data import embedded
from repro.experiments import throughput
from repro.loading import Window
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Setting, Task, measure
from repro.measure.throughput import _crossed, _refuse_unlike_batches
from repro.models import dropout
from repro.models.alexnet import AlexNet, build, initialise, layers
from repro.models.two_gpu import Link, crossings, half, tower
from repro.running import runner
from repro.spec import Condition
from repro.store import load
from repro.training import ranks
from repro.training.loop import Interrupted
from repro.training.ranks import RankError
from repro.training.recipe import Recipe

CPU = torch.device("cpu")
SMALL = {"form": "alexnet-32", "classes": 10, "size": 16}


# What the ranks do: each computes the net of one process too, and compares.


class Towers:
    """Both nets from one seed, on every rank."""

    def __init__(self, device: torch.device) -> None:
        self.link = Link()

    def nets(self, net: AlexNet, dtype: torch.dtype) -> tuple[nn.Sequential, nn.Sequential]:
        table = layers(net)
        whole = build(table, size=net.size)
        initialise(whole, table, net.protocol, seed=7)
        self.draw = dropout.key(whole, seed=7)
        whole.to(dtype)
        return whole, tower(whole, self.link)

    def batch(self, net: AlexNet, count: int, dtype: torch.dtype, at: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch of step ``at``: drawn pictures, 0 to 255 less their mean (`modern`: over their s.d.)."""
        images, labels = embedded.draw(count, net.size, 11 + at)
        x = torch.from_numpy(images).double().permute(0, 3, 1, 2)
        x = x - x.mean()
        return (x / x.std() if net.protocol == "modern" else x).to(dtype), torch.from_numpy(labels)

    def step(self, net: AlexNet, count: int, dtype: torch.dtype) -> dict[str, float]:
        """Return how far logits and gradients are apart over their largest values, training and testing."""
        whole, own = self.nets(net, dtype)
        x, labels = self.batch(net, count, dtype)
        found: dict[str, float] = {}
        logits = []
        for model in (whole, own):
            logits.append(model(x))
            F.cross_entropy(logits[-1], labels).backward()
        found["logits"] = _apart(*logits)
        gradients = {name: half(value.grad, self.link.rank) for name, value in whole.named_parameters()}
        found |= {name: _apart(gradients[name], value.grad) for name, value in own.named_parameters()}
        with torch.no_grad():
            found["tested"] = _apart(whole.eval()(x), own.eval()(x))
        assert gradients.keys() == {name for name, _ in own.named_parameters()}
        return found

    def train(
        self, steps: int, protocol: str, dtype: torch.dtype
    ) -> tuple[list[tuple[float, float, float, int]], float]:
        """Return, after each step: the loss, how far the other's is from it, and the weights', over the largest.

        And how many windows of max pooling the two nets decided differently in the step; at last, how far the
        parameter that moved least has moved.
        """
        net = AlexNet(protocol=protocol, **SMALL)
        models = self.nets(net, dtype)
        recipes = [
            Recipe(m, net=net.form, protocol=protocol, rate=0.01, weight_decay=5e-4, kind="released") for m in models
        ]
        won: list[list[torch.Tensor]] = [[], []]
        for model, seen in zip(models, won, strict=True):
            for module in model:
                if isinstance(module, nn.MaxPool2d):
                    module.register_forward_pre_hook(lambda pool, x, seen=seen: seen.append(_winners(pool, x[0])))
        before = {name: p.detach().clone() for name, p in models[1].named_parameters()}
        rows = []
        for step in range(steps):
            losses = []
            x, labels = self.batch(net, 8, dtype, step)
            self.draw.at(step)
            for model, recipe in zip(models, recipes, strict=True):
                recipe.set_rates(step / steps)
                loss = F.cross_entropy(model(x), labels)
                loss.backward()
                recipe.optimizer.step()
                recipe.optimizer.zero_grad(set_to_none=True)
                losses.append(loss.item())
            whole, own = ({name: p.detach() for name, p in model.named_parameters()} for model in models)
            apart = max(_apart(half(whole[name], self.link.rank), value) for name, value in own.items())
            flips = sum(int((a.chunk(2, 1)[self.link.rank] != b).sum()) for a, b in zip(*won, strict=True))
            rows.append((losses[0], abs(losses[1] - losses[0]), apart, flips))
            for seen in won:
                seen.clear()
        return rows, min(_apart(own[name], value) for name, value in before.items())

    def bytes_of_a_step(self, net: AlexNet, count: int, dtype: torch.dtype) -> dict[str, int]:
        _, own = self.nets(net, dtype)
        x, labels = self.batch(net, count, dtype)
        self.link.sent.clear()
        F.cross_entropy(own(x), labels).backward()
        return dict(self.link.sent)

    def weights(self, net: AlexNet) -> dict[str, torch.Tensor]:
        return self.nets(net, torch.float32)[1].state_dict()

    def refused(self, unlike: bool) -> str:
        """Return why a batch is refused, empty where it is not; ``unlike``: rank 1 sees lighter pictures."""
        images = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).view(2, 4, 4, 3) + int(unlike) * self.link.rank
        window = Window(images, torch.tensor([3, 4]), torch.zeros(2, 2), torch.zeros(2))
        try:
            _refuse_unlike_batches(window, self.link)
        except RuntimeError as error:
            return str(error)
        return ""

    def largest(self) -> float:
        return self.link.largest(1.5 + self.link.rank, CPU)

    def die_learning(self) -> None:
        """Rank 1 is killed once half of its gradient is back; rank 0 waits for what it owes."""
        _, own = self.nets(AlexNet(**SMALL), torch.float32)
        x, labels = self.batch(AlexNet(**SMALL), 4, torch.float32)
        if self.link.rank == 1:
            own.get_submodule("fc6").weight.register_hook(lambda _: os.kill(os.getpid(), signal.SIGKILL))
        F.cross_entropy(own(x), labels).backward()

    def raise_learning(self) -> None:
        if self.link.rank == 0:
            raise ValueError("the picture is upside down\nand more")
        self.link.swap(torch.zeros(1), "nobody comes")

    def hang(self) -> None:
        if self.link.rank == 1:
            time.sleep(600)


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).abs().max() / one.abs().max()).item()


def _winners(pool: nn.MaxPool2d, x: torch.Tensor) -> torch.Tensor:
    """Return which place wins each window of max pooling."""
    indices: torch.Tensor = F.max_pool2d(
        x.detach(), pool.kernel_size, pool.stride, ceil_mode=pool.ceil_mode, return_indices=True
    )[1]  # fmt: skip
    return indices


@pytest.fixture(scope="module")
def pair() -> Iterator[ranks.Ranks]:
    with ranks.started(Towers, devices=["cpu", "cpu"]) as group:
        yield group


@contextlib.contextmanager
def nobody_left() -> Iterator[None]:
    """Children that were not there before are gone after."""
    before = {child.pid for child in multiprocessing.active_children()}
    yield
    assert {child.pid for child in multiprocessing.active_children()} <= before


# What they compute.


@pytest.mark.parametrize(
    "net",
    [
        AlexNet(protocol="code", **SMALL),
        AlexNet(protocol="paper", **SMALL),
        AlexNet(protocol="modern", **SMALL),
        AlexNet(protocol="paper", norm="batch", **SMALL),
        AlexNet(protocol="paper", norm="lrn-mean", activation="tanh", **SMALL),
        AlexNet(protocol="code", overlapping=False, removed=3, dropout=False, **SMALL),
    ],
    ids=["code", "paper", "modern", "batch", "lrn-mean", "conv3-removed"],
)
def test_logits_and_gradients_are_those_of_one_process(pair: ranks.Ranks, net: AlexNet) -> None:
    """Every parameter of every layer, of both towers, in float64, dropout included."""
    for found in pair.ask("step", net, 6, torch.float64):
        print(f"float64, one step: {max(found.values()):.1e} apart")
        assert len(found) > 10
        assert max(found.values()) < 1e-10


def test_fifty_steps_of_2012_are_those_of_one_process(pair: ranks.Ranks) -> None:
    """In float64 losses and weights stay together through all changes of the rate; and every parameter has moved."""
    for rows, moved in pair.ask("train", 50, "code", torch.float64):
        losses, off, apart, flips = zip(*rows, strict=True)
        print(f"float64, 50 steps: loss {losses[0]:.2f} to {losses[-1]:.2f}, {max(off):.1e} apart")
        print(f"    weights {max(apart):.1e} apart, {sum(flips)} windows decided otherwise, least moved {moved:.1e}")
        assert moved > 1e-3
        assert max(off) < 1e-10
        assert max(apart) < 1e-10


def test_the_first_steps_in_float32_are_close(pair: ranks.Ranks) -> None:
    """In the precision of the paper they agree to rounding, until a pooling window is decided otherwise."""
    for found in pair.ask("step", AlexNet(protocol="code", **SMALL), 6, torch.float32):
        assert max(found.values()) < 1e-4
    for rows, _ in pair.ask("train", 50, "code", torch.float32):
        _, off, apart, flips = zip(*rows, strict=True)
        print(f"float32, 50 steps: loss {max(off):.1e} apart, weights by step (windows decided otherwise):")
        print("   ", *(f"{a:.0e} ({n})" for a, n in zip(apart, flips, strict=True)))
        assert apart[0] < 1e-5


@pytest.mark.long
def test_the_full_net_takes_a_step_like_one_process(pair: ranks.Ranks) -> None:
    """The net of the paper at 224 pixels, in float64."""
    for found in pair.ask("step", AlexNet(protocol="code"), 2, torch.float64):
        print(f"float64, the full net, one step: {max(found.values()):.1e} apart")
        assert max(found.values()) < 1e-10


def test_the_towers_together_are_the_whole_net(pair: ranks.Ranks) -> None:
    """Set one after the other, the ranks' weights are the net's own, bit for bit, and none is held twice."""
    net = AlexNet(protocol="code", **SMALL)
    table = layers(net)
    whole = build(table, size=net.size)
    initialise(whole, table, "code", seed=7)
    one, other = pair.ask("weights", net)
    for name, value in whole.state_dict().items():
        assert torch.equal(torch.cat([one[name], other[name]]), value)


# What they exchange.


@pytest.mark.parametrize(("count", "dtype"), [(4, torch.float32), (6, torch.float64)])
def test_the_bytes_sent_are_those_the_layers_need(pair: ranks.Ranks, count: int, dtype: torch.dtype) -> None:
    """Place by place, on both ranks, forward and backward."""
    net = AlexNet(protocol="code", **SMALL)
    needed = {}
    for c in crossings(layers(net), batch=count, size=net.size, itemsize=dtype.itemsize):
        needed |= {f"{c.layer} forward": c.forward, f"{c.layer} backward": c.backward}
    needed = {place: sent for place, sent in needed.items() if sent}
    assert pair.ask("bytes_of_a_step", net, count, dtype) == [needed, needed]


def test_the_paper_s_net_needs_what_its_figure_shows() -> None:
    """By hand from Figure 2: 13 x 13 x 128 maps, 6 x 6 x 128, twice 2048 neurons, 500 logits; float32, 128 images."""
    table = layers(AlexNet(protocol="paper"))
    found = {c.layer: c for c in crossings(table, batch=128)}
    values = {"conv3": 13 * 13 * 128, "fc6": 6 * 6 * 128, "fc7": 2048, "fc8": 2048, "logits": 500}
    assert {layer: c.values for layer, c in found.items()} == values
    assert sum(c.forward + c.backward for c in found.values()) == 4 * 128 * (2 * 30_336 + 500)


def test_ranks_with_unlike_batches_are_refused(pair: ranks.Ranks) -> None:
    """Towers that see different pictures would be timed as well, and compute no net at all."""
    assert pair.ask("refused", False) == ["", ""]
    assert pair.ask("refused", True) == ["the ranks hold different batches"] * 2


def test_the_table_of_bytes_in_the_docs_is_what_the_layers_need() -> None:
    """Row by row: values an image, bytes forward and backward, and their sum."""
    text = (Path(__file__).parents[1] / "docs" / "two-gpus.md").read_text()
    found = [row for line in text.splitlines() if (row := re.match(r"\| (\w+) \| [^|]+ \| ([\d, |]+) \|$", line))]
    told = {row[1]: [int(n.replace(",", "")) for n in row[2].split("|")] for row in found}
    needed = crossings(layers(AlexNet(protocol="paper")), batch=128)
    sums = [sum(c[i] for c in needed) for i in (1, 2, 3)]
    assert told == {c.layer: [c.values, c.forward, c.backward] for c in needed} | {"sum": sums}


def test_towers_that_would_talk_elsewhere_are_refused() -> None:
    """One tower, a normalisation over all maps, and an odd number of classes."""
    link: Any = SimpleNamespace(rank=0)
    for switches, words in (
        ({"towers": "ungrouped"}, "only a net of two towers"),
        ({"towers": "half"}, "only a net of two towers"),
        ({"norm": "lrn-all-maps"}, "over all maps"),
        ({"classes": 11}, "fc8.weight has an odd number"),
    ):
        net = AlexNet(**{**SMALL, **switches})
        with pytest.raises(ValueError, match=words):
            tower(build(layers(net), size=net.size), link)


def test_a_trial_of_another_scheme_is_refused() -> None:
    """Where the ranks sent more or less than the layers need, there is no timing of the paper's scheme."""
    arms = {"two": _parameters()}
    sent = sum(c.forward + c.backward for c in crossings(layers(AlexNet(**SMALL)), batch=8, size=16))
    named = {m.name: m.value for m in _crossed(arms, 10, {"two": sent})}
    assert named == {"bytes-exchanged/two": sent, "bytes-needed/two": sent}
    with pytest.raises(RuntimeError, match="the scheme needs"):
        _crossed(arms, 10, {"two": sent + 4})


# How they end.


def test_ranks_are_deaf_to_ctrl_c_and_wait_for_each_other(pair: ranks.Ranks) -> None:
    """SIGINT at every rank, as a terminal sends it: the parent decides."""
    for process in pair.processes:
        os.kill(process.pid, signal.SIGINT)
    assert pair.ask("largest") == [2.5, 2.5]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("die_learning", "rank 1 died .SIGKILL, most likely for want of memory. and the trial ended with it"),
        ("raise_learning", "rank 0 failed: ValueError: the picture is upside down$"),
        ("hang", "rank 1 has not answered for 1 s, and the trial was given up"),
    ],
)
def test_a_rank_that_fails_ends_the_trial_and_is_named(
    method: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two exchanges of a backward pass, raising or silent: the other rank's troubles are no reason."""

    def run() -> None:
        with ranks.started(Towers, devices=["cpu"] * 2) as group:
            if method == "hang":
                monkeypatch.setattr(ranks, "ANSWER_S", 1.0)
            group.ask(method)

    with nobody_left(), pytest.raises(RankError, match=words):
        run()


def test_a_rank_without_its_parent_leaves(tmp_path: Path) -> None:
    """Kill the parent alone, without warning, while the ranks are busy: none is left behind."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from repro.training import ranks\n"
        "class Busy:\n"
        "    def __init__(self, device): pass\n"
        "    def work(self): time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    with ranks.started(Busy, devices=['cpu', 'cpu']) as group:\n"
        "        print(*(process.pid for process in group.processes), flush=True)\n"
        "        group.ask('work')\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(_alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    limit = time.monotonic() + 60
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < limit, "a rank outlived its parent"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet collected does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] if Path("/proc").is_dir() else "?"
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state not in "ZX"


# The trial.


def _parameters(towers: str = "two") -> throughput.Parameters:
    return throughput.Parameters(
        dataset="embedded", protocol="code", net="alexnet-32", towers=towers, loader="resident", gpus=0, ranks=2,
        batch=8, rounds=5, stored=20, crop=16,
    )  # fmt: skip


ARMS = {"two": _parameters("two"), "half": _parameters("half")}


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures.drawn(64, 16, "sha256:made-up", side=20)


def test_a_trial_times_two_ranks_and_one_in_turn(tmp_path: Path, pictures: Pictures) -> None:
    """Both arms are in one record, with what the two ranks exchanged, and where they ran."""
    task = Task(throughput.spec(ARMS, 0), "timing", 1.0, Setting(tmp_path, CPU))
    with nobody_left():
        trial = measure(task, pictures, Monitor())
    assert {m.name.partition("/")[2] for m in trial.measurements} == {"two", "half"}
    assert trial.value("time-per-image/two") > 0
    assert trial.value("bytes-exchanged/two") == trial.value("bytes-needed/two") > 0
    assert not any(m.name == "bytes-exchanged/half" for m in trial.measurements)
    assert (trial.environment["ranks"], trial.environment["backend"]) == (2, "gloo")


def test_a_stopped_trial_leaves_no_rank(tmp_path: Path, pictures: Pictures) -> None:
    """A stop after the warm-up is heard, and there is no record to mistake for a result."""
    seen: list[float] = []
    monitor = Monitor(lambda done, _: seen.append(done), lambda: bool(seen))
    with nobody_left(), pytest.raises(Interrupted):
        measure(Task(throughput.spec(ARMS, 0), "timing", 1.0, Setting(tmp_path, CPU)), pictures, monitor)
    assert load(tmp_path) == ([], [])


def test_a_killed_rank_fails_the_trial_in_one_line(tmp_path: Path, pictures: Pictures) -> None:
    """The run goes on to its end, says which rank died, and the record says so too."""

    class Killer(Heard):
        def moved(self, spec: object, done: float, words: str) -> None:
            rank = next(child for child in multiprocessing.active_children() if child.name == "rank 1")
            rank.kill()

    condition = Condition(name="smoke", scale="smoke", seeds=(0,), arms=ARMS)
    source = runner.Source(pictures, "throughput", ARMS["two"], runner.Place(None, tmp_path))
    with nobody_left():
        runner.run(runner.Wanted(condition, source, (0,)), Setting(tmp_path, CPU), observer=(heard := Killer()))
    assert len(heard.failures) == 1
    assert "RankError: rank 1 died (SIGKILL" in heard.failures[0]
    (trial,), _ = load(tmp_path)
    assert trial.status == "failed"
    assert "rank 1 died" in trial.message


@pytest.mark.parametrize(
    ("count", "gpus", "right"),
    [(1, 0, True), (1, 1, True), (2, 0, True), (2, 2, True), (2, 1, False), (1, 2, False)],
)
def test_ranks_have_a_gpu_each_or_none(count: int, gpus: int, right: bool) -> None:
    """Two ranks share no GPU, and one uses no two."""
    p = ARMS["two"].model_copy(update={"ranks": count, "gpus": gpus})
    assert (throughput.faults(p, [0]) == []) == right
