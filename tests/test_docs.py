"""What is written is true: commands, figures, files."""

import re
from pathlib import Path

from repro import cli, registry
from repro.report import summary, tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


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


def test_files_the_readme_names_are_there() -> None:
    """Links in the README lead somewhere."""
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
