"""The report as Markdown: every claim in one table, and the errata, for a forge's pages and a CI summary."""

from collections.abc import Mapping, Sequence
from typing import Any

from repro.report import sections, tables
from repro.report.summary import counts_line


def render(summary: Mapping[str, Any]) -> str:
    """Return the whole report; what stands in claim files and records is escaped."""
    rows = [_row(claim) for claim in summary["claims"]]
    errata = [_erratum(claim) for claim in summary["claims"] if claim["id"] in summary["errata"]]
    parts = [
        "# Which claims of the 2012 AlexNet paper hold",
        f"{counts_line(summary['claims'])}. n is seeds an arm, intervals are 90%.",
        _table(("claim", "§", "paper", "ours", "verdict"), rows),
    ]
    if beside := [_beside(b) for b in sections.beside(summary)]:
        parts[2:2] = ["Measured beside a headline, deciding nothing:", "\n".join(beside)]
    if untrained := sections.untrained(summary):
        parts.insert(2, untrained)
    if errata:
        parts += ["## Where the paper contradicts itself or its source", "\n".join(errata)]
    parts.append(
        f"Evidence digest `{summary['evidence_digest']}`. Made from the records by `repro report --markdown`; "
        "the page made by `repro report --html` tells the rest."
    )
    return "\n\n".join(parts) + "\n"


def _row(claim: Mapping[str, Any]) -> tuple[str, ...]:
    rows, rest = tables.overview(tables.headline(claim))
    more = [rest] if rest else []
    ours = "<br>".join(_escaped(tables.ours(e)) for e in rows if "value" in e) or "-"
    published = "<br>".join(_escaped(text) for text in [*(tables.published(e) for e in rows), *more])
    title = f"{_escaped(claim['title'])} (`{claim['id']}`)"
    return (title, _escaped(claim["section"]), published, ours, claim["outcome"])


def _beside(b: Mapping[str, Any]) -> str:
    c, e = b["condition"], b["estimate"]
    how = ", ".join(filter(None, [c["dataset"], c["parameters"]["net"], f"protocol {c['protocol']}", b["planned"]]))
    found = f"{_escaped(tables.ours(e))}, paper {_escaped(tables.published(e))}"
    return f"- {_escaped(b['title'])}: {found} ({how}): {c['outcome']}"


def _erratum(claim: Mapping[str, Any]) -> str:
    why = f"{_escaped(claim['known']['because'])}; " if claim["known"] else ""
    where = f"§ {claim['section']}" if claim["section"][:1].isdigit() else claim["section"]
    return f"- **{_escaped(claim['title'])}** ({_escaped(where)}): {why}{_escaped(claim['reason'])}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it stands, in one line and one cell."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
