"""The commands on records: report and publish."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.group import Usage
from repro.cli.options import Folder, claims_option, read_store_option, registry_folder, tell_missing
from repro.problem import DONE, NOT_DONE, NOTHING, REFUTED

if TYPE_CHECKING:
    from repro.report.against import Turn


@click.command()
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), is_flag=False, flag_value=Path("report.html"),
              help="Write the page to a file; report.html if none is named.")  # fmt: skip
@click.option("--json", is_flag=True, help="Print the report as JSON (schema 1).")
@click.option("--markdown", is_flag=True, help="Print the report as Markdown.")
@click.option("--csv", is_flag=True, help="Print the report as CSV, one row per number.")
@click.option("--junit", is_flag=True, help="Print the report as JUnit XML, one test case per claim.")
@click.option("--against", type=click.Path(path_type=Path, exists=True), metavar="OLD",
              help="Say what changed since OLD: a store, or a report saved with --json.")  # fmt: skip
@claims_option
@read_store_option
@click.pass_context
def report(
    ctx: click.Context, /, html: Path | None, against: Path | None, claims: Path | None, store: Path, **forms: bool
) -> None:
    """Report every claim of the registry, judged from the records."""
    from repro import registry
    from repro.report import against as older
    from repro.report import summary

    asked = [name for name, wanted in forms.items() if wanted] + ["html"] * (html is not None)
    if len(asked) > 1:
        raise Usage(f"--{asked[0]} and --{asked[1]} are two forms of one report: ask for one of them")
    form = asked[0] if asked and html is None else None
    if html is not None and not html.absolute().parent.is_dir():
        raise Usage(f"{html.parent}: no such folder to write the page into")
    if form in ("markdown", "csv", "junit") and against:
        raise Usage(f"--against goes with the terminal, --html or --json, not with --{form}")
    known = registry.load_registry(registry_folder(claims))
    found = summary.summarise(known, store, ahead=html is not None)
    for problem in found["problems"]:
        click.echo(f"repro: not used: {problem}", err=True)
    changed = older.turns(older.load(against, known), found) if against else None
    if form:
        click.echo(_printed(found, form, changed).encode(), nl=False)  # UTF-8 for programs, whatever the terminal
    elif html is not None:
        _write_page(html, found, store, changed)
    else:
        _show(found, changed)
    tell_missing(store)
    if any(claim["outcome"] == "ERROR" for claim in found["claims"]):
        ctx.exit(NOT_DONE)
    if summary.refuted(found["claims"]):
        ctx.exit(REFUTED)


def _printed(found: dict[str, Any], form: str, changed: "list[Turn] | None") -> str:
    """Return the report in a form for programs."""
    if form == "json":
        more = {} if changed is None else {"changes": [change._asdict() for change in changed]}
        return json.dumps(found | more, indent=1, ensure_ascii=False) + "\n"
    from repro.report import flat, junit, markdown

    render = {"markdown": markdown.render, "csv": flat.render, "junit": junit.render}[form]
    return render(found)


def _write_page(path: Path, found: dict[str, Any], store: Path, changed: "list[Turn] | None") -> None:
    from repro.files import write_atomically
    from repro.report import page, summary

    beside = path.resolve().parent == store.resolve()  # then its links to the raw records lead somewhere
    write_atomically(path, page.render(found, store, linked=beside, changes=changed).encode())
    click.echo(f"wrote {path}")
    click.echo(summary.counts_line(found["claims"]))


def _show(found: dict[str, Any], changed: "list[Turn] | None") -> None:
    from repro.report import against, sections, summary, tables
    from repro.report.console import terminal

    console = terminal()
    if changed is None:
        console.print(tables.claims(found))
        if note := sections.stale_text(found):
            click.echo(f"note: {note}")
    else:
        if changed:
            console.print(against.table(changed))
        click.echo(against.told(changed, found))
    click.echo(summary.counts_line(found["claims"]))


@click.command()
@click.option(
    "--to", type=Folder(path_type=Path), default=Path("reports"), show_default=True, help="Folder to copy to."
)
@claims_option
@read_store_option
@click.pass_context
def publish(ctx: click.Context, /, to: Path, claims: Path | None, store: Path) -> None:
    """Copy finished records to reports/, without checkpoints, and make its page again.

    Records that are there already stay: another run of the same trial is left out, and a line says so.
    """
    from repro import publishing, registry
    from repro.files import write_atomically
    from repro.report import markdown, page, summary

    pages = to / "index.html", to / "README.md"
    for path in pages:
        if path.exists() and not _made_by_us(path):
            raise Usage(f"{path} was not made by repro publish, and would be overwritten; choose another --to")
    known = registry.load_registry(registry_folder(claims))
    copied, left_out = publishing.publish(store, to, known)
    for line in left_out:
        click.echo(f"left out: {line}")
    found = summary.summarise(known, to, ahead=True)
    for path, text in zip(pages, (page.render(found, to), markdown.render(found)), strict=True):
        write_atomically(path, text.encode())
    click.echo(f"{copied} records in {to}, {len(left_out)} left out; wrote {pages[0]} and {pages[1]}")
    ctx.exit(DONE if copied else NOTHING)


def _made_by_us(path: Path) -> bool:
    """Whether a page was made from records: every such page names the digest of its evidence."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return b"evidence-digest" in content or b"Evidence digest" in content
