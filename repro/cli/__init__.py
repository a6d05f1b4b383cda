"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import click

from repro import __version__
from repro.cli import claims, judging, planning, records
from repro.cli.bench import bench
from repro.cli.data import data
from repro.cli.group import Group
from repro.cli.run import run
from repro.problem import DONE, WRONG_USE, needing

HEALTH_SEED = 300
"""Any seed that the reference runs did not use; a fixed one, so that the same installation gets the same answer."""


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="repro")
def main() -> None:
    """Measure the claims of the 2012 AlexNet paper, and judge them.

    Exit codes: 0 done; 1 a headline came out NOT_REPRODUCED that its claim file does not list as known; 2 wrong
    use or a bad claim file; 3 a trial failed or is missing, or a named claim was not tested; 4 nothing selected;
    70 a fault of this program; 130 interrupted.
    """


@main.command()
@click.option("--health", is_flag=True, help="Also train two small nets, and compare them with stored runs (20 s).")
@click.pass_context
def doctor(ctx: click.Context, /, health: bool) -> None:
    """Say what this machine can run, and what stands in its way."""
    from repro import doctor as examine

    trouble = False
    for line, fine in examine.findings():
        click.echo(f"{'ok  ' if fine else 'note' if fine is None else 'BAD '} {line}")
        trouble |= fine is False
    if health:
        trouble |= not _trains_as_ours()
    ctx.exit(WRONG_USE if trouble else DONE)


def _trains_as_ours() -> bool:
    """Print each value of a fresh run beside the interval of the stored runs; return whether all lie inside."""
    with needing("training", "run"):
        from repro import health
    fine = True
    for found in health.check(HEALTH_SEED):
        i = found.expected
        told = f"{100 * i.confidence:g}% of runs of the reference lie in {i.low:.4g} to {i.high:.4g}, n = {i.n[0]}"
        click.echo(f"{'ok  ' if found.fine else 'BAD '} {found.name}: {found.value:.4g} ({told})")
        fine &= found.fine
    return fine


for command in (
    *(claims.list_claims, claims.show, claims.check, claims.new),
    *(planning.plan, run, planning.explain),
    *(records.report, judging.judge, judging.diff, records.publish),
    *(bench, data),
):
    main.add_command(command)
