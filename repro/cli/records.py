"""The commands on records: report and publish."""

import json
from pathlib import Path

import click

from repro.cli.options import claims_option, registry_folder, store_option
from repro.problem import DONE, NOT_DONE, NOTHING, REFUTED


@click.command()
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

    found = summary.summarise(registry.load_registry(registry_folder(claims)), store)
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


@click.command()
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
    found = summary.summarise(registry.load_registry(registry_folder(claims)), to)
    write_atomically(to / "index.html", page.render(found, to).encode())
    write_atomically(to / "README.md", markdown.render(found).encode())
    click.echo(f"{copied} records in {to}, {len(left_out)} left out; wrote {to / 'index.html'} and {to / 'README.md'}")
    ctx.exit(DONE if copied else NOTHING)
