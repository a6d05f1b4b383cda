"""The main job as a user runs it, on synthetic pictures: from claim file to verdict and page."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from repro.folders import default_claims
from repro.registry import load_registry

SMOKE = [id_ for id_, claim in load_registry(default_claims()).items() if "smoke" in claim.conditions]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all, as a user has: claims share trials."""
    return tmp_path_factory.mktemp("smoke") / "runs"


def repro(*arguments: str, store: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "repro", *arguments, "--store", str(store)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("id_", SMOKE)
def test_every_smoke_condition_runs(id_: str, store: Path) -> None:
    """It runs to the end and is judged SMOKE_OK."""
    result = repro("run", "claim", id_, "--condition", "smoke", store=store)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "SMOKE_OK" in result.stdout.splitlines()[-1]


def test_nothing_is_run_twice(store: Path) -> None:
    """The same again finds every trial done: what two claims need was run once, and no record changes."""
    records = {p: p.read_bytes() for p in store.glob("trials/*/record.json")}
    again = repro("run", "all", "--scale", "smoke", store=store)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {p: p.read_bytes() for p in store.glob("trials/*/record.json")} == records


def test_what_ran_is_told(store: Path, tmp_path: Path) -> None:
    """The page and the JSON tell every smoke run, and none of them says anything about a claim."""
    page = tmp_path / "page.html"
    report = repro("report", "--html", str(page), store=store)
    assert report.returncode == 0, report.stdout + report.stderr
    assert "SMOKE_OK" in page.read_text()
    for claim in json.loads(repro("report", "--json", store=store).stdout)["claims"]:
        assert claim["outcome"] == "NOT_TESTED"  # synthetic pictures say nothing about a claim
