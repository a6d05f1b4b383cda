"""The page: one HTML file, made and read offline, from the summary, the raw curves and the networks looked into.

A small script sorts and filters its table of verdicts; without scripts nothing is missing. The page's own
Content-Security-Policy forbids it to load anything, so that a reader need not take our word for it.
"""

import base64
import hashlib
import multiprocessing
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from repro import numbers
from repro.outcomes import OUTCOMES
from repro.release import RELEASE
from repro.report import against, looked, plots, sections, tables

HERE = Path(__file__).parent
SPEEDUP = "relu-speedup"
"""The claim that the paper's Figure 1 makes."""

SEVERAL_PROCESSES_FROM = 1000
"""Number of trials from which starting more processes saves more time than it costs."""


def render(
    summary: Mapping[str, Any], root: Path, *, linked: bool = True, changes: list[against.Turn] | None = None
) -> str:
    """Return the page for a summary whose trials lie under ``root``. The same records and libraries give the same text.

    ``linked`` says that the page will lie in ``root`` itself, so that it can link to the raw records; ``changes`` are
    those since an older report, where one was named. Raises StoreError for a curve or a look that cannot be read.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        section=_section, code=_code, sentence=_sentence, signs=numbers.signs, record=_linked if linked else _plain
    )
    environment.globals.update(
        result=tables.result, published=tables.published, value=tables.value, spread=_spread,
        overview=tables.overview, headline=tables.headline, ran=tables.ran, outcomes=OUTCOMES,
    )  # fmt: skip
    from repro.report import svg  # here: it loads a plotting library, which tables do not need

    script = (HERE / "page.js").read_text(encoding="utf-8")
    pictures = _drawn(summary["claims"], root)
    return environment.get_template("page.html.j2").render(
        summary=summary, pictures=pictures,
        places={claim["id"]: i for i, claim in enumerate(summary["claims"])},
        css=f"{(HERE / 'page.css').read_text(encoding='utf-8')}{svg.CSS}", script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        statements=len({number for claim in summary["claims"] for number in claim["statements"]}),
        questions=sum(not claim["statements"] for claim in summary["claims"]),
        counts=sections.counts(summary), alexnets=sections.alexnets(summary),
        compared=sections.COMPARED, others=sections.OTHERS, speed=sections.speed(summary),
        looked=looked.shown(summary, root), figure_1=_figure_1(summary, pictures),
        own=sections.paper_and_readers(summary), beside=sections.measured(summary, headline=False),
        decided=sections.measured(summary, headline=True), planned=sections.planned,
        tested=sections.tested(summary), chance=sections.chance(summary), hollow=sections.hollow(summary),
        blocked=sections.blocked(summary), tested_first=sections.tested_first(summary), by_claim=sections.by_claim,
        in_words=sections.in_words, others_run=sections.others_run, error_rates=sections.ERROR_RATES,
        by_reading=sections.by_reading(summary),
        asserted=sum(bool(claim["statements"]) for claim in summary["claims"]), linked=linked,
        untrained=sections.untrained(summary), stale=sections.stale_text(summary), days=sections.days(summary),
        unfinished=sections.unfinished(summary), synthetic=sections.synthetic(summary), why=sections.why,
        only_the_recipe=sections.only_the_recipe, release=RELEASE, benchmarks=linked and (root / "bench").is_dir(),
        changes=changes, changes_told=against.told(changes, summary) if changes is not None else "",
    )  # fmt: skip


def _drawn(claims: Sequence[Mapping[str, Any]], root: Path) -> dict[str, dict[str, list[plots.Picture]]]:
    """Return the figures of every claim; with many trials, several processes draw them, with the same result."""
    draw = partial(plots.of_claim, root=root)
    if sum(len(c["trials"]) for claim in claims for c in claim["conditions"]) < SEVERAL_PROCESSES_FROM:
        drawn = [draw(claim) for claim in claims]
    else:
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            drawn = list(pool.map(draw, claims, chunksize=4))
    return {claim["id"]: found for claim, found in zip(claims, drawn, strict=True)}


def _code(text: str) -> Markup:
    """Return the text escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _sentence(text: str, *, first: bool = True) -> Markup:
    """Return the text as a sentence: with a full stop and, where it comes ``first``, a capital; backticks are code."""
    start = text[:1].upper() if first and not text[:2].isupper() else text[:1]
    stop = "" if text.endswith((".", "!", "?", "…", "”")) else "."
    return _code(numbers.signs(start + text[1:] + stop))


def _spread(estimate: Mapping[str, Any]) -> str:
    """Return how well our value is known, without a line break inside ``n = 5 + 5``."""
    return tables.spread(estimate).replace(" = ", "\xa0=\xa0").replace(" + ", "\xa0+\xa0")


def _section(name: str, *, long: bool = False) -> str:
    """Return a section of the paper as ``§ 3.1``, or ``Section 3.1`` where ``long``; the abstract by its name."""
    if not name[:1].isdigit():
        return name[:1].upper() + name[1:] if long else name
    return f"{'Section' if long else '§'}\xa0{name}"


def _linked(digest: str) -> Markup:
    return Markup('<a href="trials/{0}/record.json">{0}</a>').format(digest)


def _plain(digest: str) -> Markup:
    return Markup("<code>{}</code>").format(digest)


def _again(picture: str) -> str:
    """Return a picture for a second place on the page, with ids of its own."""
    return re.sub(r'( id="|url\(#|href="#)', r"\1again-", picture)


def _figure_1(
    summary: Mapping[str, Any], pictures: Mapping[str, Mapping[str, Sequence[plots.Picture]]]
) -> list[dict[str, Any]]:  # fmt: skip
    """Return our curves for the paper's Figure 1: those of every condition measured, the headline's first.

    Where nothing was measured, a smoke condition shows the machinery.
    """
    found = [
        {"claim": SPEEDUP, "condition": c, "caption": plots.CURVES, "picture": _again(drawn[0].svg)}
        for claim in summary["claims"]
        if claim["id"] == SPEEDUP
        for c in claim["conditions"]
        if (drawn := [p for p in pictures[SPEEDUP][c["name"]] if p.caption == plots.CURVES])
    ]
    measured = [one for one in found if one["condition"]["evidence"] != "none"]
    return sorted(measured, key=lambda one: not one["condition"]["headline"]) or found[:1]
