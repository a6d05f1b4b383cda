"""One ``repro run``: pick the conditions, run them, judge, and tell."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from repro import experiments
from repro.judging import bands
from repro.marks import Reader
from repro.planning import plan
from repro.planning.plan import Choice
from repro.problem import DONE, INTERRUPTED, NOT_DONE, REFUTED, Problem
from repro.report import summary, tables
from repro.report.console import terminal
from repro.report.progress import Progress
from repro.spec import Claim, Condition
from repro.store import StoreError, Unusable, add_look


def run(wanted: Sequence[tuple[Claim, Choice | None]], *, named: bool, **options: Any) -> int:
    """Run a condition of each claim, the one chosen or the one that fits, and return the exit code.

    ``named``: the user asked for these claims, so one that is not tested is a miss; where the condition was left to us,
    so is one that is run under a condition that cannot test it.
    """
    runner = _runner()
    place = runner.Place(root=options["data"], own=options["store"] / "sets", download=options["download"])
    try:
        with runner.joined("cpu" if options.get("on") else options["device"]) as (team, device):
            if team.rank:  # rank 0 decides, prints and writes
                return int(runner.follow(team, place, device, deterministic=options.get("deterministic", False)))
            if not team.alone and (options["jobs"] or 1) > 1:
                raise Problem(f"--jobs {options['jobs']}: {team.world} processes train one trial at a time together")
            if not options.get("on"):
                return _run(runner, wanted, (team, device, place, None), named=named, options=options)
            if not team.alone:
                raise Problem(f"--on {options['on']}: run it without torchrun; each trial is one process there")
            with _cluster().joined(options["on"], options["device"], options["jobs"]) as cluster:
                return _run(runner, wanted, (team, cluster.device, place, cluster), named=named, options=options)
    except runner.Lost as error:
        click.echo(f"repro: {error}", err=True)
        return NOT_DONE


def _run(
    runner: Any, wanted: Sequence[tuple[Claim, Choice | None]], where: Any, *, named: bool, options: dict[str, Any]
) -> int:
    """Do so as the only process, or as rank 0 of several; ``where`` are its ranks, device, data and cluster."""
    _, device, _, cluster = where
    root, console, reader = options["store"], terminal(), Reader(options["store"])
    failed: list[str] = []
    choices: list[tuple[Claim, Choice, bool]] = []
    together: list[Any] = []
    begun = False
    _refuse_wrong_use(runner, wanted if named else (), where, options)
    try:
        gpus = cluster.gpus if cluster else runner.count_gpus(device)
        for claim, asked in wanted:
            choice = _chosen(claim, asked, reader, device.type, gpus, options)
            choices.append((claim, choice, named and asked is None))
            if choice.condition is None:
                continue
            seeds = choice.condition.seeds[: options["seeds"]]
            console.print(f"{claim.id}: condition {choice.condition.name} on {device} ({choice.why})")
            try:
                source = _prepared(runner, claim, choice.condition, where, options)
                _note(root, claim, choice.condition.name, seeds)
            except (runner.DataError, Unusable) as error:
                failed.append(f"{claim.id}: {error}")
                continue
            except StoreError as error:
                if not begun:
                    raise  # another --store is meant
                failed.append(f"{claim.id}: {error}; it and {len(wanted) - len(choices)} more were not begun")
                break
            except runner.together.Unfit as unfit:
                if named and not begun:
                    raise
                choices[-1] = (claim, Choice(None, f"skipped: {unfit}"), False)
                continue
            begun = True
            if cluster:
                together.append(runner.Wanted(choice.condition, source, seeds, f"{claim.id}: "))
                continue
            told = _run_one(runner, choice.condition, source, seeds, where, (reader, console), options)
            failed += [f"{claim.id}: {line}" for line in told]
        if together:
            failed += _run_together(runner, together, cluster, (reader, console), options)
    except runner.Interrupted:
        click.echo(
            "repro: interrupted; every training saved its state, and the same command goes on from there", err=True
        )
        return INTERRUPTED
    finally:  # whatever ends the command: what failed before is told
        _tell(failed)
    code = _conclude(choices, root, console, named=named)
    return NOT_DONE if failed else code


def _tell(failed: Sequence[str]) -> None:
    for line in failed:
        click.echo(f"repro: failed: {line}", err=True)


def _chosen(
    claim: Claim, asked: Choice | None, reader: Reader, device: str, gpus: int, options: dict[str, Any]
) -> Choice:
    """Return the condition to run: the one asked for, if it may be run here, or the one that fits by now."""
    here: dict[str, Any] = {key: options[key] for key in ("budget_s", "seeds")}
    here |= {"trials": reader.trials(), "device": device, "gpus": gpus}
    if asked is not None:
        return plan.admitted(claim, asked, **here)
    return plan.choose(claim, data=options["data"], download=options["download"], **here)


def _refuse_wrong_use(
    runner: Any, wanted: Sequence[tuple[Claim, Choice | None]], where: Any, options: dict[str, Any]
) -> None:
    """Raise Unfit, before hours go into another claim, for a condition that is asked for and cannot be run as asked."""
    for claim, asked in wanted:
        if asked and asked.condition:
            _refuse_unfit(runner, claim, asked.condition, where, options)


def _refuse_unfit(runner: Any, claim: Claim, condition: Condition, where: Any, options: dict[str, Any]) -> None:
    """Raise Unfit for trials that cannot be run as asked."""
    team, device, _, cluster = where
    if cluster and experiments.get(claim.experiment).TIMED:
        raise runner.together.Unfit(f"{claim.experiment}: {runner.SHARED}; run it without --on")
    runner.together.refuse_unfit(claim.experiment, condition.arms, team, options["micro_batch"], device)


def _prepared(runner: Any, claim: Claim, condition: Condition, where: Any, options: dict[str, Any]) -> Any:
    """Return a condition's data. Raises DataError without it, Unfit for trials that cannot be run as asked."""
    _refuse_unfit(runner, claim, condition, where, options)
    team, device, place, _ = where
    return runner.prepare(
        claim.experiment, condition, place, team=team, micro_batch=options["micro_batch"], device=device
    )


def _note(root: Path, claim: Claim, condition: str, seeds: tuple[int, ...]) -> None:
    """Note what is asked for and expected, before it is run. Raises StoreError."""
    bands.load(root, claim.id)  # a look that is noted costs alpha: first see that the rest can be
    add_look(root, claim.id, condition, seeds)
    bands.note(root, claim)


def _run_one(
    runner: Any, condition: Condition, source: Any, seeds: tuple[int, ...], where: Any,
    known: tuple[Reader, Console], options: dict[str, Any],
) -> list[str]:  # fmt: skip
    """Run one condition on this machine and return a line for each trial that failed."""
    team, device, _, _ = where
    reader, console = known
    jobs = options["jobs"] or 1
    if jobs > 1 and (why := runner.alone(source.experiment, condition, device)):
        console.print(f"{source.experiment}: {why}; --jobs {jobs} does not apply: one trial runs at a time")
    try:
        with Progress(console) as observer:
            result = runner.run(
                condition, source, seeds=seeds, store=options["store"], device=device, jobs=jobs, observer=observer,
                loader=options["loader"], deterministic=options.get("deterministic", False),
                micro_batch=options["micro_batch"], eager=options.get("eager", False), team=team, reader=reader,
            )  # fmt: skip
    except StoreError as error:
        return [str(error)]
    return list(result.failed)


def _run_together(
    runner: Any, wanted: Sequence[Any], cluster: Any, known: tuple[Reader, Console], options: dict[str, Any]
) -> list[str]:
    """Run several conditions at once on a cluster and return a line for each trial that failed."""
    reader, console = known
    try:
        with Progress(console) as observer:
            result = runner.run_together(
                wanted, cluster.pool, store=options["store"], device=cluster.device, observer=observer,
                loader=options["loader"], deterministic=options.get("deterministic", False),
                micro_batch=options["micro_batch"], eager=options.get("eager", False), reader=reader,
            )  # fmt: skip
    except StoreError as error:
        return [str(error)]
    return list(result.failed)


@contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Have Ctrl-C end the process on the spot: what it raises, torch's start swallows, and goes on half made."""

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
    """Return the half that needs torch, or say how to get it."""
    try:
        with _leaving_at_once():
            from repro.running import runner
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("torch", "torchvision"):
            raise Problem(f"running trials needs {error.name}: install this package with its extra 'run'") from error
        raise
    return runner


def _cluster() -> Any:
    """Return what runs trials on a cluster, or say how to get it."""
    try:
        from repro.running import cluster
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "ray":
            raise Problem("--on needs Ray: install this package with its extra 'ray'") from error
        raise
    return cluster


def _conclude(choices: Sequence[tuple[Claim, Choice, bool]], root: Path, console: Console, *, named: bool) -> int:
    """Print the verdicts of what was run, then the counts, and return the exit code that agrees with them."""
    found = summary.summarise({claim.id: claim for claim, _, _ in choices}, root)
    told = {claim["id"]: claim for claim in found["claims"]}
    code, outcomes = DONE, []
    for claim, choice, ours in choices:
        if choice.condition is None:
            console.print(f"{claim.id} was not tested: {choice.why}")
            outcomes.append("NOT_TESTED")
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
        as_claimed = (
            name == claim.headline and ran["outcome"] == "SMOKE_OK"
        )  # a claim that is no more than a smoke test
        missed = ours and not as_claimed and ran["outcome"] in summary.UNTESTED
        if missed and name != claim.headline:
            console.print(f"{claim.id}: {choice.instead_of}")
        if missed or ran["outcome"] in ("ERROR", "SMOKE_BROKEN"):
            code = NOT_DONE
        elif code == DONE and name == claim.headline and summary.refuted([told[claim.id]]):
            code = REFUTED
    counted = ", ".join(f"{outcomes.count(o)} {o}" for o in sorted(set(outcomes)))
    console.print(f"{len(outcomes)} run: {counted}")
    return code
