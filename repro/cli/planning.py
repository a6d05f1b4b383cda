"""The commands that look ahead: plan and explain."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from repro import choices
from repro.cli.group import Usage
from repro.cli.options import claim_named, claims_option, data_option, read_store_option, registry_folder, store_option
from repro.cli.run import seconds
from repro.problem import NOTHING


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--condition", help="Only the condition of this name.")
@click.option("--scale", type=click.Choice(get_args(choices.Scale)), help="Only this scale.")
@click.option("--seeds", type=click.IntRange(min=1), help="Plan with the first N seeds.")
@click.option("--budget", "budget_s", callback=seconds, help="Choose what fits into a time: 30m, 12h or 3d.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Device to plan for; default: this machine's.")
@click.option(
    "--machines", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Machines to spread over."
)
@click.option("--gpus", type=click.IntRange(0, 1024), help="GPUs per machine; any means cuda. Default: 1 with cuda.")
@data_option
@store_option
@claims_option
@click.pass_context
def plan(
    ctx: click.Context, /, ids: Sequence[str], condition: str | None, scale: str | None, seeds: int | None,
    budget_s: float | None, device: str | None, machines: int, gpus: int | None, data: Path | None, store: Path,
    claims: Path | None,
) -> None:  # fmt: skip
    """Say what is left to run, what it takes, and what it can resolve.

    For all claims, or those named. Unless --scale or --condition says otherwise, this covers every condition of the
    claims named, or for all claims the conditions of the scales paper and reduced.
    """
    from repro import notes, registry
    from repro import store as stores
    from repro.planning import forecast, reuse
    from repro.planning import plan as planning
    from repro.report import plans
    from repro.report.console import terminal

    directory = registry_folder(claims)
    named = {id_: claim_named(directory, id_) for id_ in ids}
    everything = registry.load_registry(directory)
    found = named or everything
    if condition is not None:
        for claim in found.values() if ids else ():
            planning.named(claim, condition)
    elsewhere = device is not None or gpus is not None or machines > 1
    device, gpus = _on(device, gpus)
    over = forecast.Machines(machines, gpus)
    trials, problems = stores.load(store)
    asked_for = notes.load_plans(store)
    for problem in (*problems, *asked_for.unusable.values()):
        click.echo(f"repro: not used: {problem}", err=True)
    if budget_s is not None:
        chosen, refused = forecast.fit(
            found, trials, budget_s=budget_s, machines=over, device=device, data=data, elsewhere=elsewhere
        )
        for line in plans.budget(chosen, refused, budget_s):
            click.echo(line)
        ctx.exit(0 if chosen else NOTHING)
    scales = (scale,) if scale else planning.SCALES if ids else ("paper", "reduced")
    asked = reuse.demand(everything, trials, asked_for.looks)
    left = forecast.left(
        found, trials, asked, scales=scales, device=device, gpus=over.gpus, data=data, seeds=seeds, condition=condition,
    )  # fmt: skip
    if not left:
        click.echo(f"0 planned: no claim has such a condition of scale {' or '.join(scales)}")
        ctx.exit(NOTHING)
    terminal().print(plans.table(left))
    for line in (*plans.against(left), *plans.together(left, over, device)):
        click.echo(line)
    if resolved := plans.resolved(found, left, trials, asked_for.looks, seeds) if ids else []:
        click.echo("\nWhat the planned seeds resolve:")
    for line in resolved:
        click.echo(line)


def _on(device: str | None, gpus: int | None) -> tuple[str, int]:
    """Return the device to plan for, and the GPUs of a machine. Raises Usage where the two contradict each other."""
    from repro.planning import plan as planning

    if device == "cpu" and gpus:
        raise Usage(f"--gpus {gpus} is for --device cuda; leave one of the two out")
    if device == "cuda" and gpus == 0:
        raise Usage("--device cuda needs --gpus 1 or more")
    if device is None:
        device = "cuda" if (planning.has_gpu() if gpus is None else gpus) else "cpu"
    return device, gpus if gpus is not None else int(device == "cuda")


@click.command()
@click.argument("trial", metavar="TRIAL")
@read_store_option
@claims_option
def explain(trial: str, store: Path, claims: Path | None) -> None:
    """Say why a stored trial is used again, resumed or stale.

    TRIAL is the start of its digest.
    """
    from repro import notes, registry
    from repro import store as stores
    from repro.planning import reuse

    found, problems = stores.load(store)
    hidden = [one.path for one in stores.places(store) if trial and one.name.startswith(trial.lower())]
    for problem in problems:
        if any(problem.startswith(f"{path}: ") for path in hidden):
            raise Usage(problem)
    one = reuse.find(found, trial)
    plans = notes.load_plans(store)
    for problem in plans.unusable.values():
        click.echo(f"repro: not used: {problem}", err=True)
    asked = reuse.demand(registry.load_registry(registry_folder(claims)), found, plans.looks)
    for line in reuse.explain(one, asked):
        click.echo(line)
