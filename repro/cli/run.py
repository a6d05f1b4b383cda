"""The commands that run trials."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from repro import choices
from repro.cli.group import Group, Usage
from repro.cli.options import claim_named, claims_option, data_option, registry_folder, store_option
from repro.problem import NOTHING

if TYPE_CHECKING:
    from repro.planning.plan import Choice
    from repro.spec import Claim


def seconds(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
    """Return ``90s``, ``30m``, ``12h`` or ``3d`` in seconds; None stays None. Raises Usage for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not found:
        raise Usage(f"--budget {text!r} is not a time; write 90s, 30m, 12h or 3d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def cluster_named(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
    """Return the name of a cluster, ``ray`` or ``ray://ADDRESS``; None stays None. Raises Usage for anything else."""
    if text is not None and not re.fullmatch(r"ray(://[\w.:\[\]-]+)?", text):
        raise Usage(f"--on {text!r} is not a cluster; write ray, ray://auto or ray://HOST:PORT")
    return text


@click.group(cls=Group)
def run() -> None:
    """Run trials; give the same command again to continue where it stopped."""


def run_options(command: Any) -> Any:
    """Add the options that both ways of running share."""
    options = (
        click.option("--seeds", type=click.IntRange(min=1), help="Run only the first N seeds of the plan."),
        click.option("--budget", "budget_s", default="30m", show_default=True, callback=seconds,
                     help="Longest run that is chosen for you."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
        click.option("--loader", type=click.Choice(get_args(choices.Loader)), default="resident",
                     show_default=True, help="How images are read; resident keeps them all in memory."),
        click.option("--micro-batch", type=click.IntRange(min=1), metavar="N",
                     help="Send at most N images of a batch through the network at a time; default: all."),
        click.option("--jobs", type=click.IntRange(min=1),
                     help="Trials to run side by side (timings run alone). Default: 1; on a cluster, all that fit."),
        click.option("--on", metavar="ray[://ADDRESS]", callback=cluster_named,
                     help="Run trials on a Ray cluster: ray://HOST:PORT, ray://auto, or ray for this machine as one."),
        click.option("--deterministic", is_flag=True,
                     help="Use only operations that give the same bits each time, on a GPU too."),
        click.option("--eager", is_flag=True,
                     help="On a GPU, launch every operation separately: slower, for debugging."),
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
def runclaim_named(
    ctx: click.Context, /, ids: Sequence[str], condition: str | None, claims: Path | None, **options: Any
) -> None:
    """Run the trials of one or more claims, and judge them."""
    from repro.planning import plan
    from repro.running import session

    directory = registry_folder(claims)
    found = [claim_named(directory, id_) for id_ in dict.fromkeys(ids)]
    if condition is not None:
        options["budget_s"] = math.inf  # a condition that is named is run, however long it takes
    wanted = [(claim, plan.named(claim, condition) if condition is not None else None) for claim in found]
    ctx.exit(session.run(wanted, session.Options(**options), named=True))


@run.command("all")
@click.option(
    "--scale",
    type=click.Choice(get_args(choices.Scale)),
    help="Run all conditions of one scale, long ones too; with --budget, those that fit into it.",
)
@run_options
@click.pass_context
def run_all(ctx: click.Context, /, scale: str | None, claims: Path | None, **options: Any) -> None:
    """Run every claim of the registry: what fits, or every condition of one scale."""
    from repro import registry
    from repro.planning import plan
    from repro.running import session

    found = list(registry.load_registry(registry_folder(claims)).values())
    wanted: list[tuple[Claim, Choice | None]] = [(claim, None) for claim in found]
    if scale is not None:
        if ctx.get_parameter_source("budget_s") == click.core.ParameterSource.DEFAULT:
            options["budget_s"] = math.inf  # a scale that is named is run whole, unless a budget was given
        scaled = [(claim, c.name) for claim in found for c in claim.conditions.values() if c.scale == scale]
        wanted = [(claim, plan.named(claim, name)) for claim, name in scaled]
    if not wanted:
        click.echo(f"0 run: no claim has a condition of scale {scale}")
        ctx.exit(NOTHING)
    ctx.exit(session.run(wanted, session.Options(**options), named=False))
