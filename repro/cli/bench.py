"""The command that times the parts of a training, and compares a run with an earlier one."""

import math
import os
import shlex
import statistics
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from repro import choices
from repro.cli.group import Usage
from repro.problem import DONE, NOT_DONE, REFUTED, Problem, needing, suggest

if TYPE_CHECKING:
    from repro.bench.results import Change, Ran, Run, Told


def _list(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    """Print what can be timed, and end."""
    if wanted:
        from repro.bench.results import CASES

        for name, what in CASES.items():
            click.echo(f"{name:<16} {what}")
        ctx.exit()


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--rounds", type=click.IntRange(min=2), default=10, show_default=True, help="Rounds; each times every side."
)
@click.option("--batch", type=click.IntRange(min=1), default=128, show_default=True, help="Images a batch.")
@click.option("--net", help="alexnet (default on a GPU), alexnet-32 (default on a CPU) or 18pct.")
@click.option("--precision", type=click.Choice(get_args(choices.Precision)), default="fp32", show_default=True,
              help="Precision of our side; the others run in fp32, unless they say otherwise.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR",
              help="Pictures for the loaders, made by `repro data prepare`; default: the synthetic ones.")  # fmt: skip
@click.option("--compile", "compiled", is_flag=True, help="Time torch.compile of the plain step, too.")
@click.option("--json", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the run.")
@click.option("--against", type=click.Path(path_type=Path), metavar="FILE",
              help="Compare the run with an earlier one on this machine.")  # fmt: skip
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List what can be timed.")
@click.pass_context
def bench(
    ctx: click.Context, /, names: Sequence[str], rounds: int, batch: int, net: str | None, precision: str, device: str,
    data: Path | None, compiled: bool, out: Path | None, against: Path | None,
) -> None:  # fmt: skip
    """Time the step, the loaders and the rest, next to plain PyTorch and themselves.

    All cases, or those named. Every ratio comes with a 90% interval over the rounds, a word that says what it shows,
    and the noise, by which ours differs from itself: what lies within the noise is no difference. Exit code 1 with
    --against where ours became grossly slower; 3 where a named case could not be measured, or any case failed
    unexpectedly.
    """
    from repro.bench import results

    chosen = [_known(name, results.CASES, "case") for name in dict.fromkeys(names)] or list(results.CASES)
    net = net and _known(net, results.NETS, "net")
    if data and not set(chosen) & set(results.FROM_FILES):
        *first, last = results.FROM_FILES
        raise Usage(f"--data is for {', '.join(first)} and {last}: name one of them, or leave it out")
    if compiled and "step" not in chosen:
        raise Usage("--compile is for step: name it, too, or leave --compile out")
    then = results.load(against) if against else None
    if out and not os.access(next(folder for folder in out.absolute().parents if folder.exists()), os.W_OK):
        raise Usage(f"--json {out} cannot be written; nothing was timed yet")
    with needing("timing", "run"):
        from repro.bench import run as benchmark
        from repro.running.runner import pick_device
    where = pick_device(device)
    bare = benchmark.settings(net, batch, where, compiled=compiled, of_ours=precision)
    with benchmark.with_pictures(bare, chosen, data) as s:
        pictures = s.pictures.digest if data and s.pictures else "synthetic"
        if then:
            here, work = benchmark.environment.describe(where), benchmark.described(s, pictures)
            results.refuse_unlike(here, work, chosen, then)
        words = ["--net", s.net, "--batch", str(batch), "--rounds", str(rounds), "--device", device]
        words += ["--precision", precision] * (precision != "fp32")
        words += ["--data", "DIR"] * bool(data) + ["--compile"] * compiled
        command = shlex.join(["repro", "bench", *names, *words])
        decode = f"{s.workers} worker{'s' * (s.workers > 1)} to decode"
        click.echo(f"{s.net}, batch {batch}, {s.precision}, on {where}; {decode}; n = {rounds} rounds a case")
        unexpected: list[str] = []

        def heard(found: "Ran | Exception", name: str) -> None:
            if not isinstance(found, results.Ran | Problem):
                unexpected.append(name)
            _tell(found, name)

        now = benchmark.measure(chosen, s, rounds=rounds, command=command, data=pictures, heard=heard)
    _tell_where(now)
    if out:
        from repro.files import write_atomically

        write_atomically(out, results.dumped(now).encode())
        click.echo(f"wrote {out}")
    changed = results.changes(now, then) if then else []
    if then:
        click.echo("\n".join(results.compared(now, then)))
    for change in changed:
        _tell_change(change)
    worse = [change.name for change in changed if change.gross]
    click.echo(_counts(now, changed, worse, against))
    ctx.exit(NOT_DONE if unexpected or (names and now.not_measured) else REFUTED if worse else DONE)


def _known(name: str, known: Iterable[str], what: str) -> str:
    if name not in known:
        raise Usage(f"unknown {what} {name!r}{suggest(name, known)}; there are {', '.join(known)}")
    return name


def _tell(found: "Ran | Exception", name: str) -> None:
    """Print a case as soon as it is timed; print the traceback too of a failure that no single line explains."""
    from repro.bench import results
    from repro.bench.timing import why

    if isinstance(found, Exception):
        click.echo(f"\n{name}: not measured: {why(found)}")
        if not isinstance(found, Problem):
            click.echo("".join(traceback.format_exception(found)), err=True)
        return

    itself = results.again(found)
    click.echo(f"\n{name}: {found.what}")
    click.echo(f"  {'ours':<36} {_number(results.rate(found)):>12} {found.unit}/s")
    click.echo(f"  {'  ours again over ours (the noise)':<36} {_interval(itself.value, itself.low, itself.high):>32}")
    for peer in found.peers:
        middle = statistics.median(found.rates[peer])
        click.echo(f"  {peer:<36} {_number(middle):>12} {found.unit}/s")
        _tell_ratio("  ours over it", results.ratio(found, peer))
    for of, over in found.also:
        click.echo(f"  {of}, over {over}:")
        _tell_ratio("", results.ratio(found, over, of))
    for peer, reason in found.missing.items():
        click.echo(f"  {peer}: not measured: {reason}")
    share = f"{results.rate(found) / found.floor:.0%} of the serial roofline" if found.floor else found.no_floor
    click.echo(f"  {share}")


def _tell_ratio(name: str, of: "Told") -> None:
    click.echo(f"  {name:<36} {_interval(of.median, of.mean.low, of.mean.high):>32}  {of.judged}")


def _tell_where(run: "Run") -> None:
    from repro.bench import results

    e = run.environment
    device = e["device"] if e["device"] != "cpu" else e["cpu"]
    commit = f"{str(e['commit'])[:12]}{' with changes' if e['dirty'] else ''}"
    click.echo(f"\n{device}; {e['cores']} cores, {e['threads']} threads, load {results.loads(run)}")
    click.echo(
        f"Python {e['python']}, torch {e['torch']}, torchvision {e['torchvision']}; commit {commit}\n{run.command}"
    )


def _tell_change(change: "Change") -> None:
    from repro.bench import results

    click.echo("\n".join(results.told(change)))


def _counts(now: "Run", changed: Sequence["Change"], worse: Sequence[str], against: Path | None) -> str:
    """Return the last line: how much was timed, and the result of the comparison."""
    line = f"{len(now.cases)} timed, {len(now.not_measured)} not measured"
    if missing := sum(len(ran.missing) for ran in now.cases):
        line += f"; {missing} peer{'s' * (missing > 1)} missing"
    if against is None:
        return line
    told = f"grossly slower: {', '.join(worse)}" if worse else "none grossly slower"
    return f"{line}; {len(changed)} compared with {against}, {told}"


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _number(value: float) -> str:
    """Return a number to four significant digits, or with all its whole digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.{max(0, 3 - math.floor(math.log10(value)))}f}"
