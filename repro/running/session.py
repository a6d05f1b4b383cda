"""One ``repro run``: pick the conditions, run them, judge the records, and print the verdicts."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from repro import experiments
from repro.files import StoreError
from repro.judging import bands
from repro.marks import Reader
from repro.notes import add_look
from repro.outcomes import BROKEN, UNTESTED
from repro.planning import plan
from repro.planning.plan import Choice
from repro.problem import DONE, INTERRUPTED, NOT_DONE, NOTHING, REFUTED, Problem, needing
from repro.report import summary, tables
from repro.report.console import terminal
from repro.report.progress import Progress
from repro.spec import Claim, Condition
from repro.store import Unusable


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command line; ``repro run claim --help`` says what each means. Times are in seconds."""

    store: Path
    data: Path | None
    download: bool
    seeds: int | None
    budget_s: float
    device: str
    loader: str
    micro_batch: int | None
    jobs: int | None
    on: str | None
    deterministic: bool
    eager: bool


@dataclass(frozen=True)
class _Command:
    """What every step of one command needs.

    ``named``: the user asked for these claims. The types of four fields need torch, so they are Any here: the module
    ``runner``, ``setting`` (how trials are run), ``place`` (where data comes from) and ``cluster`` (or None).
    """

    options: Options
    named: bool
    runner: Any
    setting: Any
    place: Any
    cluster: Any
    reader: Reader
    observer: Progress


def run(wanted: Sequence[tuple[Claim, Choice | None]], options: Options, *, named: bool) -> int:
    """Run one condition of each claim, the chosen one or else the one that fits, and return the exit code.

    ``named``: the user asked for these claims, so a claim that is not tested counts as a miss. Where the choice of
    condition was left to us, so does a claim that is run under a condition that cannot test it.
    """
    runner = _runner()
    place = runner.Place(root=options.data, own=options.store / "sets", download=options.download)

    def command(team: Any, device: Any, cluster: Any = None) -> _Command:
        setting = runner.Setting(
            store=options.store, device=device, loader=options.loader, micro_batch=options.micro_batch, team=team,
            eager=options.eager, deterministic=options.deterministic,
        )  # fmt: skip
        reader, observer = Reader(options.store), Progress(terminal())
        return _Command(options, named, runner, setting, place, cluster, reader, observer)

    try:
        with runner.joined("cpu" if options.on else options.device) as (team, device):
            if team.rank:  # rank 0 decides, prints and writes
                return int(runner.follow(team, place, device, deterministic=options.deterministic))
            if not team.alone and (options.jobs or 1) > 1:
                raise Problem(f"--jobs {options.jobs}: {team.world} processes train one trial at a time together")
            if not options.on:
                return _run(command(team, device), wanted)
            if not team.alone:
                raise Problem(f"--on {options.on}: run it without torchrun; each trial is one process there")
            with _cluster().joined(options.on, options.device, options.jobs) as cluster:
                return _run(command(team, cluster.device, cluster), wanted)
    except runner.Lost as error:
        click.echo(f"repro: {error}", err=True)
        return NOT_DONE


def _run(c: _Command, wanted: Sequence[tuple[Claim, Choice | None]]) -> int:
    """Do the work of ``run``, as the only process or as rank 0 of several."""
    choices: list[tuple[Claim, Choice, bool]] = []
    ready = _ready(c, wanted, choices)
    for batch in filter(None, [[*ready]]) if c.cluster else ([one] for one in ready):
        name = "" if c.cluster else batch[0].name  # on a cluster every arm has its claim's name
        try:
            with c.observer.bars(name):
                stopped = _run_batch(c, batch)
        except (StoreError, c.runner.WorkerDied) as error:
            stopping = c.runner.stopping()
            if not (stopping and isinstance(error, c.runner.WorkerDied)):  # whoever stops us may stop the workers, too
                c.observer.tell(f"{name}{error}")
            if stopping:
                click.echo("repro: interrupted", err=True)
                return INTERRUPTED
            continue
        if stopped:
            told = "interrupted; every training saved its state; run the same command again to continue"
            click.echo(f"repro: {told}", err=True)
            return INTERRUPTED
    code = _conclude(choices, c.options.store, c.observer.console, named=c.named)
    return NOT_DONE if c.observer.failures else code


def _ready(
    c: _Command, wanted: Sequence[tuple[Claim, Choice | None]], choices: list[tuple[Claim, Choice, bool]]
) -> Iterator[Any]:
    """Choose a condition of each claim, into ``choices``, and yield a Wanted for each one that is to be run.

    A problem with one claim is reported and does not stop the others, but a store error ends the rest. Raises Unfit,
    before anything is begun, for a condition that the user asked for. Until the first condition is yielded it also
    raises StoreError, and Unfit for a claim that the user named.
    """
    for claim, asked in wanted:
        if c.named and asked and asked.condition:
            _refuse_unfit(c, claim, asked.condition)
    begun = False
    for claim, asked in wanted:
        choice = _chosen(c, claim, asked)
        choices.append((claim, choice, c.named and asked is None))
        if choice.condition is None:
            continue
        seeds = choice.condition.seeds[: c.options.seeds]
        told = f"{claim.id}: condition {choice.condition.name} on {c.setting.device} ({choice.why})"
        c.observer.console.print(told)
        try:
            if not (c.named and asked):
                _refuse_unfit(c, claim, choice.condition)
            source = c.runner.prepare(claim.experiment, choice.condition, c.place, team=c.setting.team)
            _note(c.options.store, claim, choice.condition.name, seeds)
        except (c.runner.DataError, Unusable) as error:
            c.observer.tell(f"{claim.id}: {error}")
            continue
        except StoreError as error:
            if not begun:
                raise  # another --store is meant
            c.observer.tell(f"{claim.id}: {error}; it and {len(wanted) - len(choices)} more were not begun")
            return
        except c.runner.together.Unfit as unfit:
            if c.named and not begun:
                raise
            choices[-1] = (claim, Choice(None, f"skipped: {unfit}"), False)
            continue
        begun = True
        yield c.runner.Wanted(choice.condition, source, seeds, f"{claim.id}: ")


def _chosen(c: _Command, claim: Claim, asked: Choice | None) -> Choice:
    """Return the choice of condition: the one asked for, if it may be run here, else the one that fits."""
    device = c.setting.device
    gpus = c.cluster.gpus if c.cluster else c.runner.count_gpus(device)
    here: dict[str, Any] = {"budget_s": c.options.budget_s, "seeds": c.options.seeds}
    here |= {"trials": c.reader.trials(), "device": device.type, "gpus": gpus}
    if asked is not None:
        return plan.admitted(claim, asked, **here)
    return plan.choose(claim, data=c.options.data, download=c.options.download, **here)


def _refuse_unfit(c: _Command, claim: Claim, condition: Condition) -> None:
    """Raise Unfit where a condition's trials cannot be run with the options given."""
    if c.cluster and experiments.get(claim.experiment).TIMED:
        raise c.runner.together.Unfit(f"{claim.experiment}: {c.runner.SHARED}; run it without --on")
    s = c.setting
    c.runner.together.refuse_unfit(claim.experiment, condition.arms, s.team, s.micro_batch, s.device)


def _note(root: Path, claim: Claim, condition: str, seeds: tuple[int, ...]) -> None:
    """Record which condition is looked at and what is expected of it, before it is run. Raises StoreError."""
    bands.load(root, claim.id)  # a recorded look costs alpha, so first see that the bands can be read
    add_look(root, claim.id, condition, seeds)
    bands.note(root, claim)


def _run_batch(c: _Command, wanted: Sequence[Any]) -> bool:
    """Run one condition here, or several at once on a cluster; return whether it was stopped."""
    known = {"observer": c.observer, "reader": c.reader}
    if c.cluster:
        return bool(c.runner.run_together(wanted, c.setting, c.cluster.pool, **known))
    (one,) = wanted
    jobs, experiment = c.options.jobs or 1, one.source.experiment
    if jobs > 1 and (why := c.runner.alone(experiment, one.condition, c.setting.device)):
        told = f"{experiment}: {why}; --jobs {jobs} does not apply: one trial runs at a time"
        c.observer.console.print(told)
    return bool(c.runner.run(one, c.setting, jobs=jobs, **known))


@contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Make Ctrl-C end the process on the spot: while it loads, torch swallows KeyboardInterrupt and stays half made."""

    def leave(_number: int, _frame: Any) -> None:
        os.write(2, b"repro: interrupted\n")
        os._exit(INTERRUPTED)

    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _runner() -> Any:
    """Return the module ``runner``, which needs torch. Raises a Problem that says how to get it where it is missing."""
    with needing("running trials", "run"), _leaving_at_once():
        from repro.running import runner
    return runner


def _cluster() -> Any:
    """Return the module ``cluster``, which needs Ray. Raises a Problem that says how to get it where it is missing."""
    with needing("--on", "ray"):
        from repro.running import cluster
    return cluster


def _conclude(choices: Sequence[tuple[Claim, Choice, bool]], root: Path, console: Console, *, named: bool) -> int:
    """Print the verdicts of the conditions that were run, then the counts; return the exit code, which agrees."""
    found = summary.summarise({claim.id: claim for claim, _, _ in choices}, root)
    told = {claim["id"]: claim for claim in found["claims"]}
    code, outcomes = DONE, []
    for claim, choice, ours in choices:
        if choice.condition is None:
            console.print(f"{claim.id} was not tested: {choice.why}")
            code = NOT_DONE if named else code
            continue
        name = choice.condition.name
        if len(choices) > 1:
            console.print(f"{claim.id}: condition {name}")
        console.print(tables.conditions(told[claim.id], only=(name,)))
        ran = next(c for c in told[claim.id]["conditions"] if c["name"] == name)
        console.print(f"{ran['outcome']}: {ran['reason']}")
        if name == claim.headline and claim.known and claim.known.outcome == ran["outcome"]:
            console.print(f"known, so no failure: {claim.known.because}")
        outcomes.append(ran["outcome"])
        as_claimed = name == claim.headline and ran["outcome"] == "SMOKE_OK"  # it is a smoke test and no more
        missed = ours and not as_claimed and ran["outcome"] in UNTESTED
        if missed and name != claim.headline:
            console.print(f"{claim.id}: {choice.instead_of}")
        if missed or ran["outcome"] in BROKEN:
            code = NOT_DONE
        elif code == DONE and name == claim.headline and summary.refuted([told[claim.id]]):
            code = REFUTED
    counted = ", ".join(f"{outcomes.count(o)} {o}" for o in sorted(set(outcomes)))
    untested = len(choices) - len(outcomes)
    parts = (f"{len(outcomes)} run" + (f": {counted}" if counted else ""), f"{untested} not tested" if untested else "")
    console.print("; ".join(filter(None, parts)))
    return code if outcomes or named else NOTHING
