"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from repro import __version__, spec

if TYPE_CHECKING:
    from repro.plan import Choice
    from repro.spec import Claim

DONE, REFUTED, WRONG_USE, NOT_DONE, NOTHING, INTERRUPTED = 0, 1, 2, 3, 4, 130
TESTED = {
    "REPRODUCED",
    "DIRECTION",
    "INCONCLUSIVE",
    "NOT_REPRODUCED",
    "TREND_CONSISTENT",
    "TREND_CONTRARY",
    "TREND_UNRESOLVED",
}


class Usage(click.ClickException):
    """Something the user can put right: a clear line, exit code 2."""

    exit_code = WRONG_USE

    def show(self, file: Any = None) -> None:
        """Print every line of the message behind the program's name."""
        for line in self.message.splitlines():
            click.echo(f"repro: {line}", err=True, file=file)


class Group(click.Group):
    """A command group that turns the package's own errors into one clear line each, and knows near names."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors that a user can put right end with exit code 2, never with a traceback."""
        from repro.store import StoreError

        try:
            return super().invoke(ctx)
        except (spec.SpecError, StoreError) as error:
            raise Usage(str(error)) from error
        except KeyboardInterrupt:
            click.echo("repro: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: not our fault
            ctx.exit(DONE)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or name the nearest one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            raise Usage(f"no command {args[0]!r}{spec.suggest(args[0], known)}; there are {', '.join(known)}")
        return super().resolve_command(ctx, args)


def _claims(value: Path | None) -> Path:
    directory = value or spec.default_claims()
    if not directory.is_dir():
        raise Usage(f"{directory}: no such folder; pass --claims DIR")
    return directory


def _claim(directory: Path, id_: str) -> "Claim":
    known = [path.stem for path in spec.claim_files(directory)]
    if id_ not in known:
        raise Usage(f"unknown claim {id_!r}{spec.suggest(id_, known)}; `repro list` shows all {len(known)}")
    return spec.load_claim(directory / f"{id_}.toml")


claims_option = click.option(
    "--claims", type=click.Path(path_type=Path), help="Registry folder; default: the claims of the paper."
)
store_option = click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), show_default=True,
    help="Folder of the trial records.",
)  # fmt: skip
data_option = click.option(
    "--data", type=click.Path(path_type=Path), envvar="REPRO_DATA", help="Folder of the data sets (or set REPRO_DATA)."
)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="repro")
def main() -> None:
    """Measure the claims of the 2012 AlexNet paper, and judge them.

    Exit codes: 0 done; 1 a headline came out NOT_REPRODUCED that its claim file does not list as known; 2 wrong
    use or a bad claim file; 3 a trial failed or is missing, or a named claim was not tested; 4 nothing selected;
    130 interrupted.
    """


@main.command("list")
@claims_option
@store_option
def list_claims(claims: Path | None, store: Path) -> None:
    """List every claim with its last verdict."""
    from repro.report import tables

    _console().print(tables.registry(_summary(_claims(claims), store)))


@main.command()
@click.argument("id_", metavar="ID")
@claims_option
@store_option
def show(id_: str, claims: Path | None, store: Path) -> None:
    """Show one claim: the statement, the conditions, what was found, every trial."""
    from repro.report import summary, tables

    claim = _claim(_claims(claims), id_)
    found = summary.summarise({id_: claim}, store)["claims"][0]
    console = _console()
    console.print(f"[bold]{claim.title}[/bold]")
    figure = f", Figure {claim.source.figure}" if claim.source.figure else ""
    console.print(f"Section {claim.source.section}{figure}: “{claim.source.text}”", highlight=False)
    for e in claim.expect:
        text = f"\nThe paper says {spec.published_text(e)}; {spec.band_text(e)} counts as that, because {e.because}."
        console.print(text, highlight=False)
    console.print(tables.conditions(found))
    console.print(f"* the headline. {found['outcome']}: {found['reason']}", highlight=False)
    for condition in found["conditions"]:
        if condition["trials"]:
            console.print(
                f"\n[bold]{condition['name']}[/bold] {condition['outcome']}: {condition['reason']}", highlight=False
            )
            console.print(tables.trials(condition))
            console.print(f"again: {condition['command']}", highlight=False)
    for deviation in claim.deviations:
        console.print(f"\nDiffers: {deviation.what} {deviation.effect}", highlight=False)


@main.command()
@click.argument("ids", nargs=-1)
@claims_option
def check(ids: Sequence[str], claims: Path | None) -> None:
    """Check claim files: all, or those named."""
    directory = _claims(claims)
    found = [_claim(directory, id_) for id_ in ids] if ids else list(spec.load_registry(directory).values())
    click.echo(f"{len(found)} claim file{'s' if len(found) != 1 else ''} in order")


@main.command()
@click.argument("id_", metavar="ID")
@click.option(
    "--claims", type=click.Path(path_type=Path), default=Path("claims"), show_default=True, help="Where to put it."
)
def new(id_: str, claims: Path) -> None:
    """Start a new claim file from the template."""
    path = claims / f"{id_}.toml"
    if not spec.is_name(id_):
        raise Usage(f"{id_!r} cannot be an id; use lower-case letters, digits, dots and dashes")
    if path.exists():
        raise Usage(f"{path} is there already; choose another id, or edit it")
    template = (spec.default_claims() / "TEMPLATE.toml").read_text(encoding="utf-8")
    try:
        claims.mkdir(parents=True, exist_ok=True)
        path.write_text(template.replace("your-claim-id", id_), encoding="utf-8")
    except OSError as error:
        raise Usage(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"wrote {path}; edit it, then `repro check {id_} --claims {claims}`")


@main.group(cls=Group)
def run() -> None:
    """Run trials; the same command again goes on where it stopped."""


def run_options(command: Any) -> Any:
    """Add what both ways of running share."""
    options = (
        click.option("--seeds", type=click.IntRange(min=1), help="Run only the first N seeds of the plan."),
        click.option("--budget", default="30m", show_default=True, help="Longest run to choose unasked."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
        click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trials side by side."),
        click.option("--download", is_flag=True, help="Download data that is missing into --data."),
        data_option, store_option, claims_option,
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@run.command("claim")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--condition", help="Condition to run; default: the headline, or the largest that fits here.")
@run_options
@click.pass_context
def run_claim(
    ctx: click.Context, /, ids: Sequence[str], condition: str | None, claims: Path | None, **options: Any
) -> None:
    """Run the trials of one or more claims, and judge them."""
    directory = _claims(claims)
    wanted = [(_claim(directory, id_), condition) for id_ in dict.fromkeys(ids)]
    ctx.exit(_run(wanted, named=condition is None, **options))


@run.command("all")
@click.option(
    "--scale", type=click.Choice(["static", "smoke", "reduced", "paper"]), help="All conditions of one scale."
)
@run_options
@click.pass_context
def run_all(ctx: click.Context, /, scale: str | None, claims: Path | None, **options: Any) -> None:
    """Run every claim of the registry: what fits, or every condition of one scale."""
    registry = list(spec.load_registry(_claims(claims)).values())
    wanted: list[tuple[Claim, str | None]] = [(claim, None) for claim in registry]
    if scale is not None:
        wanted = [(claim, c.name) for claim in registry for c in claim.conditions.values() if c.scale == scale]
    if not wanted:
        click.echo(f"0 run: no claim has a condition of scale {scale}")
        ctx.exit(NOTHING)
    ctx.exit(_run(wanted, named=False, **options))


def _run(wanted: Sequence[tuple["Claim", str | None]], *, named: bool, **options: Any) -> int:
    """Run a condition of each claim, the one named or the one that fits, and return the exit code.

    ``named``: the user asked for these claims and left the condition to us, so one that cannot test them is a miss.
    """
    from repro import plan
    from repro.report.progress import Progress
    from repro.store import add_look, load

    runner = _runner()
    root, data, budget_s = options["store"], options["data"], _seconds(options["budget"])
    console = _console()
    failed: list[str] = []
    choices: list[tuple[Claim, Choice]] = []
    try:
        device = runner.pick_device(options["device"])
        for claim, condition in wanted:
            choice = plan.choose(
                claim, wanted=condition, trials=load(root)[0], device=device.type, data=data,
                download=options["download"], budget_s=budget_s, seeds=options["seeds"],
            )  # fmt: skip
            seeds = choice.condition.seeds[: options["seeds"]]
            console.print(f"{claim.id}: condition {choice.condition.name} on {device} ({choice.why})", highlight=False)
            source = runner.prepare(choice.condition, data, download=options["download"])
            add_look(root, claim.id, choice.condition.name, seeds)
            choices.append((claim, choice))
            with Progress(console) as observer:
                result = runner.run(
                    claim.experiment, choice.condition, source, seeds=seeds, store=root, device=device,
                    jobs=options["jobs"], observer=observer,
                )  # fmt: skip
            failed += [f"{claim.id}: {line}" for line in result.failed]
    except (runner.DataError, runner.DeviceError) as error:
        raise Usage(str(error)) from error
    except runner.Interrupted:
        click.echo("repro: interrupted; every trial saved its state, and the same command goes on from there", err=True)
        return INTERRUPTED
    for line in failed:
        click.echo(f"repro: failed: {line}", err=True)
    code = _conclude(choices, root, console, named=named)
    return NOT_DONE if failed else code


def _runner() -> Any:
    """Return the half that needs torch, or say how to get it."""
    try:
        from repro import runner
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("torch", "torchvision"):
            raise Usage(f"running trials needs {error.name}: install this package with its extra 'run'") from error
        raise
    return runner


def _conclude(choices: Sequence[tuple["Claim", "Choice"]], root: Path, console: Console, *, named: bool) -> int:
    """Print the verdicts of what was run, then the counts, and return the exit code that agrees with them."""
    from repro.report import summary, tables

    found = summary.summarise({claim.id: claim for claim, _ in choices}, root)
    told = {claim["id"]: claim for claim in found["claims"]}
    code, outcomes = DONE, []
    for claim, choice in choices:
        name = choice.condition.name
        console.print(tables.conditions(told[claim.id], only=(name,)))
        ran = next(c for c in told[claim.id]["conditions"] if c["name"] == name)
        console.print(f"{ran['outcome']}: {ran['reason']}", highlight=False)
        outcomes.append(ran["outcome"])
        missed = named and ran["outcome"] not in tables.TESTED
        if missed:
            console.print(f"{claim.id} itself was not tested: {choice.why}", highlight=False)
        if missed or ran["outcome"] in ("ERROR", "SMOKE_BROKEN"):
            code = NOT_DONE
        elif code == DONE and name == claim.headline and summary.refuted([told[claim.id]]):
            code = REFUTED
    counted = ", ".join(f"{outcomes.count(o)} {o}" for o in sorted(set(outcomes)))
    console.print(f"{len(outcomes)} run: {counted}", highlight=False)
    return code


def _seconds(text: str) -> float:
    """Return ``90s``, ``30m``, ``12h`` or ``3d`` in seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    try:
        return float(text[:-1]) * units[text[-1:]]
    except (KeyError, ValueError):
        raise Usage(f"--budget {text!r} is not a time; write 90s, 30m, 12h or 3d") from None


@main.command()
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), is_flag=False, flag_value=Path("report.html"),
              help="Write the page to a file; report.html where none is named.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (schema 1).")
@claims_option
@store_option
@click.pass_context
def report(ctx: click.Context, /, html: Path | None, as_json: bool, claims: Path | None, store: Path) -> None:
    """Report every claim of the registry, judged from the records."""
    from repro.report import summary, tables

    found = _summary(_claims(claims), store)
    for problem in found["problems"]:
        click.echo(f"repro: not used: {problem}", err=True)
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    if html is not None:
        from repro.report import page
        from repro.store import write_atomically

        write_atomically(html, page.render(found, store).encode())
        click.echo(f"wrote {html}")
    else:
        _console().print(tables.claims(found))
    click.echo(summary.counts_line(found["claims"]))
    if summary.refuted(found["claims"]):
        ctx.exit(REFUTED)


@main.command()
@click.option("--to", type=click.Path(path_type=Path), default=Path("reports"), show_default=True, help="Where to.")
@claims_option
@store_option
def publish(to: Path, claims: Path | None, store: Path) -> None:
    """Copy finished records to reports/, without checkpoints, and make its page again."""
    from repro import publishing
    from repro.report import page, summary
    from repro.store import write_atomically

    copied, left_out = publishing.publish(store, to)
    for line in left_out:
        click.echo(f"left out: {line}")
    found = summary.summarise(spec.load_registry(_claims(claims)), to)
    write_atomically(to / "index.html", page.render(found, to).encode())
    click.echo(f"{copied} records in {to}, {len(left_out)} left out; wrote {to / 'index.html'}")


@main.command()
@click.pass_context
def doctor(ctx: click.Context, /) -> None:
    """Say what this machine can run, and what stands in its way."""
    from repro import doctor as examine

    trouble = False
    for line, fine in examine.findings():
        click.echo(f"{'ok  ' if fine else 'note' if fine is None else 'BAD '} {line}")
        trouble |= fine is False
    ctx.exit(WRONG_USE if trouble else DONE)


def _summary(directory: Path, store: Path) -> dict[str, Any]:
    from repro.report import summary

    return summary.summarise(spec.load_registry(directory), store)


def _console() -> Console:
    """Return a console as wide as the terminal, and wide enough for whole rows where output is piped."""
    return Console() if sys.stdout.isatty() else Console(width=max(160, int(os.environ.get("COLUMNS", "0") or 0)))


if __name__ == "__main__":
    main()
