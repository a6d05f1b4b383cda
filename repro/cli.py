"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro import __version__, data_cli, folders
from repro.problem import DONE, INTERRUPTED, NOT_DONE, NOTHING, REFUTED, WRONG_USE, Problem, suggest

if TYPE_CHECKING:
    from repro.plan import Choice
    from repro.spec import Claim


class Usage(click.ClickException):
    """A Problem as click shows it: a clear line, exit code 2."""

    exit_code = WRONG_USE

    def show(self, file: Any = None) -> None:
        """Print every line of the message behind the program's name."""
        for line in self.message.splitlines():
            click.echo(f"repro: {line}", err=True, file=file)


@contextmanager
def _plainly() -> Iterator[None]:
    """Turn errors that a user can put right into Usage: exit code 2, one line each, never a traceback."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "repro"
        raise Usage(f"{error.format_message().rstrip('.')}; see `{path} --help`") from error
    except Problem as error:
        raise Usage(str(error)) from error


class Group(click.Group):
    """A command group that turns what a user can put right into one clear line each, and knows near names."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the group's own options."""
        with _plainly():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a stop or a reader that left is no fault of ours."""
        try:
            with _plainly():
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except KeyboardInterrupt:
            click.echo("repro: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                ctx.exit(DONE)
            raise Usage(f"cannot write the output: {error}") from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or name the nearest one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            raise Usage(f"no command {args[0]!r}{suggest(args[0], known)}; there are {', '.join(known)}")
        return super().resolve_command(ctx, args)


def _claims(value: Path | None) -> Path:
    directory = value or folders.default_claims()
    if not directory.is_dir():
        raise Usage(f"{directory}: no such folder; pass --claims DIR")
    return directory


def _claim(directory: Path, id_: str) -> "Claim":
    from repro import registry

    known = [path.stem for path in folders.claim_files(directory)]
    if id_ not in known:
        raise Usage(f"unknown claim {id_!r}{suggest(id_, known)}; `repro list` shows all {len(known)}")
    return registry.load_claim(directory / f"{id_}.toml")


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
    from repro.report import listing
    from repro.report.console import terminal

    terminal().print(listing.table(listing.rows(_claims(claims), store)))


@main.command()
@click.argument("id_", metavar="ID")
@claims_option
@store_option
def show(id_: str, claims: Path | None, store: Path) -> None:
    """Show one claim: the statement, the conditions, what was found, every trial."""
    from repro.report import details, summary
    from repro.report.console import terminal

    claim = _claim(_claims(claims), id_)
    found = summary.summarise({id_: claim}, store)["claims"][0]
    details.show(terminal(), claim, found)


@main.command()
@click.argument("ids", nargs=-1)
@claims_option
def check(ids: Sequence[str], claims: Path | None) -> None:
    """Check claim files: all, or those named."""
    from repro import registry

    directory = _claims(claims)
    found = [_claim(directory, id_) for id_ in ids] if ids else list(registry.load_registry(directory).values())
    click.echo(f"{len(found)} claim file{'s' if len(found) != 1 else ''} in order")


@main.command()
@click.argument("id_", metavar="ID")
@click.option(
    "--claims", type=click.Path(path_type=Path), default=Path("claims"), show_default=True, help="Where to put it."
)
def new(id_: str, claims: Path) -> None:
    """Start a new claim file from the template."""
    from repro import spec

    path = claims / f"{id_}.toml"
    if not spec.is_name(id_):
        raise Usage(f"{id_!r} cannot be an id; use {spec.NAME_RULE}")
    if path.exists():
        raise Usage(f"{path} is there already; choose another id, or edit it")
    template = (folders.default_claims() / "TEMPLATE.toml").read_text(encoding="utf-8")
    try:
        claims.mkdir(parents=True, exist_ok=True)
        path.write_text(template.replace("your-claim-id", id_), encoding="utf-8")
    except OSError as error:
        raise Usage(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"wrote {path}; edit it, then `repro check {id_} --claims {claims}`")


def _seconds(_ctx: click.Context, _param: click.Parameter, text: str) -> float:
    """Return ``90s``, ``30m``, ``12h`` or ``3d`` in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not found:
        raise Usage(f"--budget {text!r} is not a time; write 90s, 30m, 12h or 3d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


@main.group(cls=Group)
def run() -> None:
    """Run trials; the same command again goes on where it stopped."""


def run_options(command: Any) -> Any:
    """Add what both ways of running share."""
    options = (
        click.option("--seeds", type=click.IntRange(min=1), help="Run only the first N seeds of the plan."),
        click.option("--budget", "budget_s", default="30m", show_default=True, callback=_seconds,
                     help="Longest run to choose unasked."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
        click.option("--loader", type=click.Choice(["resident", "dali", "torchvision"]), default="resident",
                     show_default=True, help="How images are read; resident keeps them all in memory."),
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
    from repro import plan, session

    directory = _claims(claims)
    found = [_claim(directory, id_) for id_ in dict.fromkeys(ids)]
    wanted = [(claim, plan.named(claim, condition) if condition is not None else None) for claim in found]
    ctx.exit(session.run(wanted, named=True, **options))


@run.command("all")
@click.option(
    "--scale", type=click.Choice(["static", "smoke", "reduced", "paper"]), help="All conditions of one scale."
)
@run_options
@click.pass_context
def run_all(ctx: click.Context, /, scale: str | None, claims: Path | None, **options: Any) -> None:
    """Run every claim of the registry: what fits, or every condition of one scale."""
    from repro import plan, registry, session

    found = list(registry.load_registry(_claims(claims)).values())
    wanted: list[tuple[Claim, Choice | None]] = [(claim, None) for claim in found]
    if scale is not None:
        scaled = [(claim, c.name) for claim in found for c in claim.conditions.values() if c.scale == scale]
        wanted = [(claim, plan.named(claim, name)) for claim, name in scaled]
    if not wanted:
        click.echo(f"0 run: no claim has a condition of scale {scale}")
        ctx.exit(NOTHING)
    ctx.exit(session.run(wanted, named=False, **options))


@main.command()
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), is_flag=False, flag_value=Path("report.html"),
              help="Write the page to a file; report.html where none is named.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (schema 1).")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the report as Markdown.")
@claims_option
@store_option
@click.pass_context
def report(
    ctx: click.Context, /, html: Path | None, as_json: bool, as_markdown: bool, claims: Path | None, store: Path
) -> None:
    """Report every claim of the registry, judged from the records."""
    from repro import registry
    from repro.report import summary, tables
    from repro.report.console import terminal
    from repro.store import write_atomically

    found = summary.summarise(registry.load_registry(_claims(claims)), store)
    for problem in found["problems"]:
        click.echo(f"repro: not used: {problem}", err=True)
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    elif as_markdown:
        from repro.report import markdown

        click.echo(markdown.render(found), nl=False)
    else:
        if html is not None:
            from repro.report import page

            write_atomically(html, page.render(found, store).encode())
            click.echo(f"wrote {html}")
        else:
            terminal().print(tables.claims(found))
        click.echo(summary.counts_line(found["claims"]))
    if any(claim["outcome"] == "ERROR" for claim in found["claims"]):
        ctx.exit(NOT_DONE)
    if summary.refuted(found["claims"]):
        ctx.exit(REFUTED)


@main.command()
@click.option("--to", type=click.Path(path_type=Path), default=Path("reports"), show_default=True, help="Where to.")
@claims_option
@store_option
@click.pass_context
def publish(ctx: click.Context, /, to: Path, claims: Path | None, store: Path) -> None:
    """Copy finished records to reports/, without checkpoints, and make its page again."""
    from repro import publishing, registry
    from repro.report import markdown, page, summary
    from repro.store import write_atomically

    copied, left_out = publishing.publish(store, to)
    for line in left_out:
        click.echo(f"left out: {line}")
    found = summary.summarise(registry.load_registry(_claims(claims)), to)
    write_atomically(to / "index.html", page.render(found, to).encode())
    write_atomically(to / "README.md", markdown.render(found).encode())
    click.echo(f"{copied} records in {to}, {len(left_out)} left out; wrote {to / 'index.html'} and {to / 'README.md'}")
    ctx.exit(DONE if copied else NOTHING)


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


main.add_command(Group("data", commands=data_cli.data.commands, help=data_cli.data.help, no_args_is_help=True))


if __name__ == "__main__":
    main()
