"""What is written is true: commands, figures, files."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import speed

from repro import cli, registry
from repro.bench import results
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
    several = {"all five, computed": ("kernel-shapes", 5), "all seven, recorded": ("layer-widths", 7)}
    assert set(quoted) - several.keys() <= given
    stated = {claim["id"]: len(claim["conditions"][0]["estimates"]) for claim in found["claims"]}
    assert all(stated[name] == n for name, n in several.values())
    rows = re.findall(r"\| ([A-Z_]+) \|$", results, flags=re.MULTILINE)
    outcomes = [c["outcome"] for claim in found["claims"] for c in claim["conditions"]]
    claims = Counter(claim["outcome"] for claim in found["claims"])
    counted = ", ".join(f"{claims[one]} {verb}{one}" for one, verb in (("REPRODUCED", "are "), ("NOT_REPRODUCED", "")))
    assert f"Of {claims.total()} claims {counted} and {claims['NOT_TESTED']} NOT_TESTED" in " ".join(results.split())
    tested = Counter(claim["experiment"] for claim in found["claims"] if claim["outcome"] != "NOT_TESTED")
    assert tested == {"count": 18, "recorded": 10, "epochs-to": 1}  # as the sentence behind it says
    for outcome in set(rows):
        assert rows.count(outcome) <= outcomes.count(outcome)


def test_figures_of_speed_are_those_of_the_records() -> None:
    """What the README and docs/bench.md say of speed follows from the runs in reports/bench/, by tests/speed.py."""
    runs = speed.records()
    assert speed.PLACE.findall(README) == [speed.quoted(runs)]
    assert speed.PLACE.findall((ROOT / "docs" / "bench.md").read_text()) == [speed.table(runs)]


def test_the_blocks_for_python_run() -> None:
    """Every block of docs/python.md runs behind the ones before it, and the last counts the paper's parameters."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 5
    command = [sys.executable, "-c", "\n".join(blocks)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1].startswith("60965224 ")


def test_what_the_gate_can_see_is_what_its_runs_say() -> None:
    """The table of docs/bench.md follows from the committed runs of one code; gates of slowed code were red as told."""
    page = (ROOT / "docs" / "bench.md").read_text()
    runs = sorted(GATE.glob("same-*.json"))
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "power.py"), *map(str, runs)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(runs) == 36
    assert said.split("\n\n")[1].strip() in page
    red = {times: [_red(times, number) for number in range(1, count + 1)] for times, count in GATES.items()}
    assert red == {"1.5": [[], ["lrn"], ["lrn"]], "2": [["lrn"]] * 4, "5": [["lrn"]]}


GATE, GATES = ROOT / "reports" / "bench" / "gate", {"1.5": 3, "2": 4, "5": 1}


def _red(times: str, number: int) -> list[str]:
    """Return which cases a gate names, LRN's work having been so many times as much: 6 + 6 processes of 4 rounds."""
    then, now = (
        results.joined([results.load(file) for file in sorted(GATE.glob(f"lrn-{times}-{number}-{side}-*.json"))])
        for side in ("then", "now")
    )
    assert then.rounds == now.rounds == 24
    return [change.name for change in results.changes(now, then, 4) if change.gross]


@pytest.mark.parametrize("net", ["alexnet", "18pct"])
def test_the_profile_says_how_it_was_made(net: str) -> None:
    """Each table of docs/profile.md has its n, machine, versions, commit and command."""
    page = (ROOT / "docs" / "profile.md").read_text()
    made = page.split(f"<!-- {net} -->")[1].split("<!-- to here -->")[0]
    line = next(line for line in made.splitlines() if line.startswith(f"{net}, batch "))
    for part in (r"n = \d+ rounds", r"\d+ cores, \d+ threads", "torch [0-9.]+", "commit [0-9a-f]{10}"):
        assert re.search(part, line), part
    assert line.endswith("`")
    assert f"`python tests/benchmarks/where_time_goes.py {net} " in line
    assert len(re.findall(r"^\| (?:conv|fc)\d* \| products ", made, re.MULTILINE)) == (8 if net == "alexnet" else 4)


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
