"""What is written is true: commands, figures, files."""

import re
from pathlib import Path

import pytest

from repro import cli, registry
from repro.report import summary, tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "claims" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))


def test_every_command_is_in_the_readme() -> None:
    """The README's table of commands names every command, and no other."""
    table = README.split("## Commands")[1].split("`repro run` takes")[0]
    named = set(re.findall(r"`repro ([a-z]+)", table))
    assert named == set(cli.main.commands)


def test_figures_are_those_of_the_records() -> None:
    """Every estimate and verdict in the README's results is one that the committed records give."""
    results = README.split("## What came out so far")[1].split("## How it works")[0]
    found = summary.summarise(registry.load_registry(ROOT / "claims"), ROOT / "reports")
    given = {tables.ours(e) for claim in found["claims"] for c in claim["conditions"] for e in c["estimates"]}
    quoted = re.findall(r"\| ([^|]*(?:computed|recorded|n=\d+\+\d+)) \|", results)
    assert len(quoted) >= 10
    assert {text for text in quoted if text != "all five, computed"} <= given
    rows = re.findall(r"\| ([A-Z_]+) \|$", results, flags=re.MULTILINE)
    outcomes = [c["outcome"] for claim in found["claims"] for c in claim["conditions"]]
    for outcome in set(rows):
        assert rows.count(outcome) <= outcomes.count(outcome)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    """Links lead somewhere; files, and tests that are said to hold something, exist."""
    text = page.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for name in re.findall(r"`((?:repro|tests|claims|docs|reports)/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), name
    for name in set(re.findall(r"`(test_\w+)`", text)):
        assert f"def {name}(" in TESTS, name
