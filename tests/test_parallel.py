"""Training by several ranks: against one process in float64, what is looked at, how it stops, dies and goes on."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import crash
import judging
import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from simulation import Heard
from torch import Tensor

from repro import files, measure, store
from repro.cli import main
from repro.data import drawn
from repro.experiments import final_error
from repro.experiments.final_error import Parameters
from repro.judging.judge import judge
from repro.loading import Job, draw, rows
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Place, Setting, Task, together
from repro.measure import final_error as measured
from repro.measure.final_error import Run
from repro.measure.member import Network
from repro.models.nets import network
from repro.problem import Problem
from repro.running import attempt, runner
from repro.training import checkpoint, loop, parallel, ranks
from repro.training.loop import train, updating
from repro.training.parallel import ALONE, Team, asked_for, part
from repro.training.passes import Unfit, has_batch_norm

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = Path(__file__).parent
CPU = torch.device("cpu")
STEPS = 20
AT_FIRST = " at first"


def parameters(**changed: Any) -> Parameters:
    """Return the arm that is trained: ten steps an epoch."""
    return Parameters(**{**crash.SMALL, "batch": 16, "epochs": 2.0, **changed})


def trained(
    p: Parameters, team: Team, micro_batch: int | None = None, steps: int = STEPS, dtype: torch.dtype = torch.float64,
    nudged: int | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Return weights, errors and losses after some steps, and the weights at the start.

    ``nudged``: a kernel of conv1 that begins times 1 + 2e-7, two units of its last place in float32.
    """
    net = Network(p, crash.pictures(), 0, "resident", team, micro_batch)
    net.model.to(dtype)
    if nudged is not None:
        with torch.no_grad():
            next(net.model.parameters())[nudged] *= 1 + 2e-7
    found = {f"{name}{AT_FIRST}": value.clone() for name, value in net.model.state_dict().items()}
    checks = train(
        updating(net.model, net.recipe.optimizer, net.learn), net.stream(), lambda drawn: net.input(drawn).to(dtype),
        net.recent, check_every=steps, before=net.before,
    )  # fmt: skip
    next(checks)
    return {**found, **net.model.state_dict(), "errors": net.recent.wrong.double(), "losses": net.recent.loss.double()}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference of the weights over the largest value of each tensor."""
    weights = [name for name in one if name not in ("errors", "losses")]
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max() / one[name].abs().max()) for name in weights)


def numbered(images: int) -> Pictures:
    """Return the made-up set with so many test images, each with its number for a label."""
    made = crash.pictures()
    tested = torch.cat([made.halves["val"][0]] * 2)[:images]
    return Pictures("embedded", 10, made.digest, halves={**made.halves, "val": (tested, torch.arange(images))})


def at_step(step: int, act: Any) -> contextlib.AbstractContextManager[None]:
    """Return a context in which ``act`` is called before a step."""

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        real = Network.before

        def before(self: Network, now: int) -> None:
            if now == step:
                act()
            real(self, now)

        Network.before = before  # type: ignore[method-assign]
        try:
            yield
        finally:
            Network.before = real  # type: ignore[method-assign]

    return patched()


COUNTS = {"train": 160, "val": 41}
"""Pictures of the synthetic set, in all processes: one that wants another set draws it anew."""


class Rank:
    """What a rank is asked to do."""

    def __init__(self, device: torch.device) -> None:
        self.team = Team(dist.get_rank(), dist.get_world_size(), "gloo")
        drawn.COUNTS = COUNTS
        loop.CHECKPOINT_S = 0.0

    def trained(self, changed: dict[str, Any], *how: Any) -> dict[str, Tensor]:
        return trained(parameters(**changed), self.team, *how)

    def tested(self, images: int, at: Path) -> tuple[Tensor, Tensor]:
        p = parameters()
        task = Task(final_error.spec(p, 0), "scoring", p.epochs, Setting(at, CPU, team=self.team))
        return Run(task, p, numbered(images)).tested(10)

    def run(self, at: Path, changed: dict[str, Any], act: tuple[int, int, int] | None = None) -> str:
        """Run a trial as the command line would, on rank 0 or behind it.

        ``act`` is a rank that at a step sends itself a signal.
        """
        p = parameters(**changed)
        place, stored = Place(None, at.parent / "sets"), at / f"rank-{self.team.rank}"
        rank, step, number = act or (-1, 0, 0)
        with at_step(step, lambda: self.team.rank == rank and os.kill(os.getpid(), number)):
            if self.team.rank:
                return str(runner.follow(self.team, place, CPU))
            condition: Any = SimpleNamespace(arms={"net": p}, any_arm=p)
            heard = Heard()
            try:
                source = runner.prepare("final-error", condition, place, team=self.team)
                setting = Setting(stored, CPU, team=self.team)
                stopped = runner.run(runner.Wanted(condition, source, (0,)), setting, observer=heard)
            except Problem as problem:
                return str(problem)
            finally:
                self.team.order("end")
        return "stopped" if stopped else "; ".join(heard.failures) or heard.finished[0].status

    def parted(self) -> str:
        """Return what is said once the weights of rank 1 are others."""
        p = parameters()
        task = Task(final_error.spec(p, 0), "scoring", p.epochs, Setting(Path(), CPU, team=self.team))
        run = Run(task, p, crash.pictures())
        if self.team.rank == 1:
            with torch.no_grad():
                next(run.net.model.parameters())[0, 0, 0, 0] += 1e-6
        with pytest.raises(Problem) as told:
            run.save_state()
        return str(told.value)

    def exchanged(self) -> tuple[Any, ...]:
        """Return what each exchange gives, and what rank 0's Problem becomes."""
        team = self.team
        rows = torch.arange(7.0)[part(7, team.rank, team.world)]
        stops = [team.agreed(lambda: team.rank == 1)() for _ in range(2)]
        agreed = team.agreed(lambda: team.rank == 1)
        looks = [agreed() for _ in range(parallel.LOOK + 1)]

        def broken() -> None:
            raise Problem("no")

        with pytest.raises(Problem) as told:
            team.share(broken)
        return stops, looks, team.each(team.rank), team.told(team.rank), team.whole(rows, 7), type(told.value).__name__


@pytest.fixture(scope="module")
def two() -> Iterator[ranks.Ranks]:
    with ranks.started(Rank, devices=["cpu"] * 2) as started:
        yield started


# What they compute.

CASES = [
    ({"protocol": "code"}, None),
    pytest.param({"protocol": "modern", "rate": 0.05}, None, marks=pytest.mark.long),
    ({"protocol": "paper", "dropout": False}, 3),
]


@pytest.mark.parametrize(("changed", "micro_batch"), CASES)
def test_two_ranks_learn_what_one_process_learns(
    two: ranks.Ranks, changed: dict[str, Any], micro_batch: int | None
) -> None:
    """In float64 over twenty steps and two epochs: windows, colour noise, dropout and passes of three images too."""
    alone = trained(parameters(**changed), ALONE)
    first = {name: value for name, value in alone.items() if name.endswith(AT_FIRST)}
    assert all(not torch.equal(value, alone[name.removesuffix(AT_FIRST)]) for name, value in first.items())
    one, other = two.ask("trained", changed, micro_batch)
    print(f"float64, 2 ranks, {changed}, passes of {micro_batch}: {apart(alone, one):.1e} apart")
    assert apart(alone, one) < 1e-10
    assert torch.equal(alone["errors"], one["errors"])
    assert torch.allclose(alone["losses"], one["losses"], rtol=1e-6)
    assert all(torch.equal(one[name], other[name]) for name in one)  # to the bit, on both


@pytest.mark.long
def test_four_ranks_learn_what_one_process_learns() -> None:
    """Four images each of sixteen."""
    alone = trained(parameters(protocol="code"), ALONE)
    with ranks.started(Rank, devices=["cpu"] * 4) as four:
        found = four.ask("trained", {"protocol": "code"}, None)
    print(f"float64, 4 ranks: {apart(alone, found[0]):.1e} apart")
    assert max(apart(alone, one) for one in found) < 1e-10


@pytest.mark.long
def test_in_float32_they_are_close(two: ranks.Ranks) -> None:
    """Equal to rounding after a step by ranks and by passes; later only the ranks are equal, to each other.

    Beside it, how far one process parts from itself with one of eight kernels nudged.
    """
    for steps in (1, 5, STEPS):
        how = (steps, torch.float32)
        changed = {"protocol": "code", "rate": 0.01}
        alone, parts = (trained(parameters(**changed), ALONE, most, *how) for most in (None, 5))
        nudged = [apart(alone, trained(parameters(**changed), ALONE, None, *how, nudged=kernel)) for kernel in range(8)]
        one, other = two.ask("trained", changed, None, *how)
        found = {"2 ranks": apart(alone, one), "passes of 5": apart(alone, parts)}
        print(f"float32, {steps} steps:", *(f"{name} {value:.1e}" for name, value in found.items()))
        print("    nudged:", *(f"{value:.1e}" for value in nudged))
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert steps > 1 or max(*found.values(), *nudged) < 1e-5


@pytest.mark.parametrize(("micro_batch", "dropout"), [(8, True), (5, True), (5, False)])
def test_passes_add_up_to_the_batch(micro_batch: int, dropout: bool) -> None:
    """One process, float64, twenty steps: the same weights, and the same neurons dropped, however it is cut."""
    whole = trained(parameters(protocol="code", dropout=dropout), ALONE)
    parts = trained(parameters(protocol="code", dropout=dropout), ALONE, micro_batch)
    print(f"float64, passes of {micro_batch} of 16, dropout {dropout}: {apart(whole, parts):.1e} apart")
    assert apart(whole, parts) < 1e-12
    assert torch.equal(whole["errors"], parts["errors"])


def test_a_micro_batch_that_holds_the_batch_changes_nothing() -> None:
    """To the bit the training without the option, by the very same code."""
    plain, large = (Network(parameters(), crash.pictures(), 0, "resident", ALONE, most) for most in (None, 16))
    assert plain.learn is large.learn
    assert str(plain.model) == str(large.model)


def test_a_trial_in_passes_says_so(tmp_path: Path) -> None:
    """Its record names the images at a time, and its looks go through the network in such pieces too."""
    p = parameters(epochs=0.4)
    seen: list[int] = []
    data = crash.pictures()
    task = Task(final_error.spec(p, 0), "scoring", p.epochs, Setting(tmp_path, CPU, micro_batch=5))
    run = Run(task, p, data)
    run.net.model[0].register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    trial = measured.train_all(run, Monitor())
    assert trial.status == "completed"
    assert trial.environment["micro_batch"] == 5
    assert trial.identity == Task(final_error.spec(p, 0), "scoring", p.epochs, Setting(tmp_path, CPU)).spec.identity(
        data.digest
    )
    assert max(seen) <= 10  # ten views of one image; else no more than asked for
    assert seen[:8] == [5, 5, 5, 1] * 2


def test_the_option_reaches_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--micro-batch 8`` is what a trial is run with, and is refused where nothing is trained so."""
    seen: list[Task] = []

    def measure_(task: Task, data: Pictures, _monitor: Monitor) -> Any:
        seen.append(task)
        trial = store.Trial(spec=task.spec, data_digest=data.digest, status="completed")
        store.save(task.setting.store, trial)
        return trial

    monkeypatch.setattr(measure, "measure", measure_)
    command = ["run", "claim", "lrn-error", "--condition", "smoke", "--micro-batch", "8", "--store", str(tmp_path)]
    CliRunner().invoke(main, [*command, "--device", "cpu"])
    assert [task.setting.micro_batch for task in seen] == [8, 8]
    command = ["run", "claim", "parameters", "--micro-batch", "8", "--store", str(tmp_path), "--device", "cpu"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 2
    assert "repro: --micro-batch: count is not trained in passes" in refused.stderr


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_ranks_windows_together_are_those_of_one_process(world: int) -> None:
    """Images, labels, places, flips, and the input with its colour noise: equal bytes, in order, over two epochs."""
    p, data = parameters(protocol="code"), crash.pictures()
    whole = Network(p, data, 5, "resident")
    nets = [Network(p, data, 5, "resident", Team(rank, world)) for rank in range(world)]
    streams = [net.stream() for net in (whole, *nets)]
    for _ in range(STEPS):
        (alone, labels), *theirs = (next(stream) for stream in streams)
        for one, together_ in zip(alone[0], zip(*(window for (window, _), _ in theirs), strict=True), strict=True):
            assert torch.equal(one, torch.cat(together_))
        assert torch.equal(labels, torch.cat([found for _, found in theirs]))
        inputs = [net.input(drawn_) for net, (drawn_, _) in zip(nets, theirs, strict=True)]
        assert torch.equal(whole.input(alone), torch.cat(inputs))


def test_without_crops_the_windows_are_shared_too() -> None:
    """The plain pieces: rows and centre places of each rank."""
    jobs = [Job(3, 28, 1, crops=False, rank=rank, world=2) for rank in (0, 1)]
    steps = [next(rows(job, 20, 0)) for job in jobs]
    assert torch.equal(torch.cat(steps), next(rows(Job(6, 28, 1), 20, 0)))
    assert [draw(job, 32, 0)[0].tolist() for job in jobs] == [[[2, 2]] * 3] * 2


# What they look at.


@pytest.mark.parametrize("images", [41, 8])
def test_every_image_is_tested_once(two: ranks.Ranks, tmp_path: Path, images: int) -> None:
    """A set that two ranks cannot halve, in file order on rank 0, with one process's answers."""
    p = parameters()
    task = Task(final_error.spec(p, 0), "scoring", p.epochs, Setting(tmp_path, CPU))
    alone, labels = Run(task, p, numbered(images)).tested(10)
    (found, seen), (rest, _) = two.ask("tested", images, tmp_path)
    assert seen.tolist() == labels.tolist() == list(range(images))
    assert torch.allclose(found, alone, atol=1e-6)
    assert len(rest) == len(range(images)[part(images, 1, 2)])


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_parts_cover_everything_once(world: int) -> None:
    for total in (0, 1, 7, 100):
        covered = [i for rank in range(world) for i in range(total)[part(total, rank, world)]]
        assert covered == list(range(total))


def test_the_exchanges_by_hand(two: ranks.Ranks) -> None:
    """Any rank that is to stop stops all, at every LOOK-th call; rows come together; rank 0's Problem is told."""
    one, other = two.ask("exchanged")
    quiet = [False] * (parallel.LOOK - 1)
    for stops, looks, each, told, _, _ in (one, other):
        assert (stops, looks, each, told) == ([True, True], [True, *quiet, True], [0, 1], 0)
    assert one[4].tolist() == list(range(7))
    assert (one[5], other[5]) == ("Problem", "Told")


def test_rows_that_lack_are_not_filled_up() -> None:
    """A rank that has fewer answers than its part is an error, not zeros."""
    with pytest.raises(RuntimeError, match="rank 1 has 2 rows where its part of 7 is 4"):
        Team(1, 2).whole(torch.zeros(2), 7)


# Records, stopping, dying.


def environment(at: Path) -> dict[str, Any]:
    (trial,), _ = store.load(at)
    return {key: trial.environment[key] for key in ("world", "backend", "micro_batch")}


def test_a_trial_stopped_on_one_rank_goes_on_to_the_same_record(tmp_path: Path) -> None:
    """SIGTERM on rank 1 stops both; another number of processes is refused; a rank killed loses nothing.

    Rank 0 alone writes, and the record is that of ranks that were left alone.
    """
    changed = {"protocol": "code", "rate": 0.01}
    end = ["completed", "0"]
    with ranks.started(Rank, devices=["cpu"] * 2) as pair:
        assert pair.ask("run", tmp_path / "whole", changed) == end
        stopped, code = pair.ask("run", tmp_path / "parts", changed, (1, 7, signal.SIGTERM))
        assert stopped == "stopped"
        state = checkpoint.load(next((tmp_path / "parts" / "rank-0").rglob("checkpoint.pt")), CPU)
        assert 7 < state["net"]["step"] <= 7 + parallel.LOOK
        assert code == "130"
        refused = _alone(tmp_path, changed)
        assert "half done by 2 processes and cannot be gone on with by 1: start as many as before" in refused
        assert [trial.status for trial in store.load(tmp_path / "parts" / "rank-0")[0]] == ["running"]
        with pytest.raises(ranks.RankError, match="rank 1 died"):
            pair.ask("run", tmp_path / "parts", changed, (1, 18, signal.SIGKILL))
    assert [trial.status for trial in store.load(tmp_path / "parts" / "rank-0")[0]] == ["running"]
    with ranks.started(Rank, devices=["cpu"] * 2) as pair:
        assert pair.ask("run", tmp_path / "parts", changed) == end
    assert crash.outcome(tmp_path / "parts" / "rank-0") == crash.outcome(tmp_path / "whole" / "rank-0")
    assert environment(tmp_path / "parts" / "rank-0") == {"world": 2, "backend": "gloo", "micro_batch": None}
    assert not (tmp_path / "whole" / "rank-1").exists()


def _alone(tmp_path: Path, changed: dict[str, Any]) -> str:
    p = parameters(**changed)
    condition: Any = SimpleNamespace(arms={"net": p}, any_arm=p)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "COUNTS", COUNTS)
        source = runner.prepare("final-error", condition, Place(None, tmp_path / "sets"))
    with pytest.raises(files.StoreError) as told:
        runner.run(runner.Wanted(condition, source, (0,)), Setting(tmp_path / "parts" / "rank-0", CPU))
    return str(told.value)


def test_ranks_whose_weights_have_parted_are_refused(two: ranks.Ranks) -> None:
    """One weight of one rank, off by a rounding, and no checkpoint is written."""
    told = "the weights of rank 1 differ from those of rank 0; the ranks cannot train together"
    assert two.ask("parted") == [told, told]


# What is refused, in one clear line.


def test_what_cannot_be_shared_is_refused() -> None:
    team, arms = Team(0, 3), {"net": parameters()}
    with pytest.raises(Unfit, match="net: a batch of 16 images cannot be shared by 3 processes: start a number that"):
        together.refuse_unfit("final-error", arms, team, None, CPU)
    with pytest.raises(Unfit, match="epochs-to: 3 processes train trials of final-error only"):
        together.refuse_unfit("epochs-to", {}, team, None, CPU)
    with pytest.raises(Unfit, match="--micro-batch: throughput is not trained in passes; final-error, probe are"):
        together.refuse_unfit("throughput", {}, ALONE, 4, CPU)
    normed = {"net": parameters(norm="batch")}
    with pytest.raises(Unfit, match="SyncBatchNorm does not exist on CPUs"):
        together.refuse_unfit("final-error", normed, Team(0, 2), None, CPU)
    with pytest.raises(Unfit, match="--micro-batch: batch norm takes its statistics of the whole batch"):
        together.refuse_unfit("final-error", normed, ALONE, 8, CPU)
    together.refuse_unfit("final-error", normed, ALONE, 16, CPU)  # all of it at a time
    together.refuse_unfit("final-error", normed, Team(0, 2), None, torch.device("cuda"))


def test_the_network_itself_refuses_what_was_let_through() -> None:
    with pytest.raises(Unfit, match="statistics of the whole batch"):
        Network(parameters(norm="batch"), crash.pictures(), 0, "resident", ALONE, 8)


@pytest.mark.parametrize(
    "changed", [{"norm": norm} for norm in ("none", "lrn", "batch")] + [{"net": "batch-norm-clone", "crop": 64}]
)
def test_batch_norm_is_known_by_the_parameters(changed: dict[str, Any]) -> None:
    """What is said before a network is built is what is found in it."""
    p = parameters(**{"stored": 64, **changed})
    assert together.whole_batches(p) == has_batch_norm(network(p, 10, 0))


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "LOCAL_RANK is not set: start them with torchrun, or unset WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "x", "LOCAL_RANK": "0"}, "must be whole numbers"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"}, "RANK = 2 is none of 2 processes"),
    ],
)
def test_half_an_environment_is_refused(environ: dict[str, str], told: str) -> None:
    more = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"} if "LOCAL_RANK" in environ else {}
    with pytest.raises(Problem, match=told):
        asked_for({**environ, **more})


def test_one_process_is_alone() -> None:
    whole = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert asked_for({}) is asked_for({"WORLD_SIZE": "1", "RANK": "0"}) is None
    assert asked_for(whole) == (3, 4, 1)


def test_want_of_memory_names_passes() -> None:
    """Half of what went through at a time, by rank; not where batch norm needs the whole batch."""
    spec = final_error.spec(parameters(), 0)
    assert "; --micro-batch 8, half of 16 images at a time, may fit" in attempt.smaller(spec)
    assert "; --micro-batch 4, half of 8 " in attempt.smaller(spec, None, Team(0, 2))
    assert "; --micro-batch 1, half of 2 " in attempt.smaller(spec, 2)
    assert "--micro-batch" not in attempt.smaller(spec, 1)
    assert "--micro-batch" not in attempt.smaller(final_error.spec(parameters(norm="batch"), 0))


def test_arms_of_unlike_worlds_are_not_compared() -> None:
    """Two processes in one arm and one in the other are refused; a record that does not say is of one process."""
    said = {world: {**judging.HERE, "world": world} for world in (1, 2)}

    def verdict(relu: dict[str, Any], tanh: dict[str, Any]) -> str:
        found = [
            judging.trial(judging.spec(arm, seed, 0.02), epochs + seed, where)
            for arm, epochs, where in (("relu", 10.0, relu), ("tanh", 60.0, tanh))
            for seed in range(3)
        ]
        claim = judging.claim(judging.RELU)
        return judge(claim, claim.conditions["c"], [*judging.tuned("relu", "tanh"), *found]).reason

    assert "world is 2 for relu and 1 for tanh" in verdict(said[2], said[1])
    assert "world is 2 for relu and 1 for tanh" in verdict(said[2], judging.HERE)
    assert "different" not in verdict(said[1], judging.HERE)
    assert "different" not in verdict(said[2], said[2])


def test_under_torchrun_a_signal_may_come_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the terminal or the scheduler, and from torchrun: the state is saved all the same."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    before = signal.getsignal(signal.SIGTERM)
    with runner._stop_on_signals():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            assert runner._stop.is_set()
    assert signal.getsignal(signal.SIGTERM) == before


# Through torchrun, as a user starts it.

KILLED = """
import os, signal, sys
from repro.measure.member import Network
real = Network.before
def before(self, step):
    if step == 9 and os.environ["RANK"] == sys.argv[1]:
        if sys.argv[2] == "0":
            raise RuntimeError("broken")
        os.kill(os.getpid(), int(sys.argv[2]))
    real(self, step)
from repro.training import loop
from repro.cli import main
if __name__ == "__main__":  # and not in processes that decode for it
    Network.before = before
    loop.CHECKPOINT_S = 0.0
    main(sys.argv[3:])
"""
SMOKE = ["run", "claim", "lrn-error", "--condition", "smoke", "--device", "cpu", "--seeds", "1", "--store"]


def torchrun(*command: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    return subprocess.run([*start, *command], capture_output=True, text=True, check=False, env=environ, timeout=900)


@pytest.mark.long
def test_torchrun_killed_stopped_and_started_again(tmp_path: Path) -> None:
    """A rank that fails, one killed, one stopped by SIGTERM, then the same command: the records of a run left alone."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    whole = torchrun("-m", "repro", *SMOKE, str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("SMOKE_OK: ") == 1  # rank 0 alone prints
    told = {
        0: "repro: rank 1 failed: RuntimeError: broken",
        signal.SIGKILL: "exitcode: -9",
        signal.SIGTERM: "interrupted",
    }
    for number, words in told.items():
        cut = torchrun(str(script), "1", str(int(number)), *SMOKE, str(tmp_path / "parts"))
        assert cut.returncode != 0
        assert words in cut.stderr
        assert {trial.status for trial in store.load(tmp_path / "parts")[0]} == {"running"}
    assert cut.stderr.count("repro: interrupted; every training saved its state") == 1
    rest = torchrun("-m", "repro", *SMOKE, str(tmp_path / "parts"))
    assert rest.returncode == 0, rest.stderr
    found = {
        name: {t.spec.key: (t.status, t.measurements, store.load_curve(tmp_path / name, t.identity)) for t in trials}
        for name in ("whole", "parts") for trials in [store.load(tmp_path / name)[0]]
    }  # fmt: skip
    assert found["parts"] == found["whole"]
    assert len(found["whole"]) == 2


@pytest.mark.long
def test_torchrun_refuses_in_one_line(tmp_path: Path) -> None:
    """Said by rank 0 alone, and both end."""
    found = torchrun("-m", "repro", *SMOKE, str(tmp_path), "--jobs", "2")
    assert found.returncode != 0
    assert found.stderr.count("repro: --jobs 2: 2 processes train one trial at a time together") == 1
