"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro import __version__

if TYPE_CHECKING:
    from repro.spec import Claim, Condition

DONE, REFUTED, WRONG_USE, NOT_DONE, NOTHING, INTERRUPTED = 0, 1, 2, 3, 4, 130


class Usage(click.ClickException):
    """Something the user can put right: one clear line, exit code 2."""

    exit_code = WRONG_USE

    def show(self, file: Any = None) -> None:
        click.echo(f"repro: {self.message}", err=True, file=file)


claims_option = click.option(
    "--claims", type=click.Path(path_type=Path, file_okay=False), help="Registry folder; default: the paper's own."
)
store_option = click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), show_default=True,
    help="Folder of the trial records.",
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="repro")
def main() -> None:
    """Reproduce the claims of the 2012 AlexNet paper, and judge them.

    Exit codes: 0 done; 1 a headline claim came out NOT_REPRODUCED that its file does not list as known;
    2 wrong use or a bad claim file; 3 a trial failed or is missing, or a named claim was not tested;
    4 nothing selected; 130 interrupted.
    """


@main.group()
def run() -> None:
    """Run trials; the same command again goes on where it stopped."""


@run.command("claim")
@click.argument("ids", nargs=-1, required=True)
@click.option("--condition", help="Condition to run; default: the headline, or the largest that fits here.")
@click.option("--seeds", type=click.IntRange(min=1), help="Run only the first N of the planned seeds.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trials side by side.")
@click.option("--data", type=click.Path(path_type=Path), envvar="REPRO_DATA", help="Folder of the data sets (or REPRO_DATA).")
@click.option("--download", is_flag=True, help="Download data that is missing.")
@store_option
@claims_option
def run_claim(ids: tuple[str, ...], store: Path, claims: Path | None, **options: Any) -> None:
    """Run the trials of one or more claims and judge them."""
    from repro import runner
    from repro.spec import load_claim, default_claims

    directory = claims or default_claims()
    for id_ in ids:
        claim = load_claim(directory / f"{id_}.toml")
        condition = claim.conditions[options["condition"]]
        seeds = condition.seeds[: options["seeds"]]
        observer = runner.Observer(
            started=lambda p: print("start", p.arm, p.role, p.spec.config["rate"], p.spec.seed, p.limit, flush=True),
            ended=lambda p, t: print("end", p.arm, p.role, p.spec.config["rate"], p.spec.seed, t.status, t.measurements, t.duration_s, flush=True),
        )
        runner.run(
            claim.experiment, condition, seeds=seeds, store=store, device=runner.pick_device(options["device"]),
            jobs=options["jobs"], data_root=options["data"], download=options["download"], observer=observer,
        )


if __name__ == "__main__":
    sys.exit(main())
