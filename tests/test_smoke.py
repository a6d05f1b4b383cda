"""The main job as a user runs it, on synthetic pictures: from claim file to verdict and page."""

import json
import subprocess
import sys
from pathlib import Path

REPRO = [sys.executable, "-m", "repro"]


def test_main_job_end_to_end(tmp_path: Path) -> None:
    """Every smoke condition runs, is judged SMOKE_OK, and is told in a page; run again, nothing is run twice."""
    store = ["--store", str(tmp_path / "runs")]
    first = subprocess.run(
        [*REPRO, "run", "all", "--scale", "smoke", *store], capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert "SMOKE_OK" in first.stdout.splitlines()[-1]
    records = {p: p.read_bytes() for p in (tmp_path / "runs").glob("trials/*/record.json")}
    again = subprocess.run(
        [*REPRO, "run", "all", "--scale", "smoke", *store], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert {p: p.read_bytes() for p in (tmp_path / "runs").glob("trials/*/record.json")} == records
    page = tmp_path / "page.html"
    report = subprocess.run(
        [*REPRO, "report", "--html", str(page), *store], capture_output=True, text=True, check=False
    )
    assert report.returncode == 0, report.stdout + report.stderr
    assert "SMOKE_OK" in page.read_text()
    told = subprocess.run([*REPRO, "report", "--json", *store], capture_output=True, text=True, check=True).stdout
    for claim in json.loads(told)["claims"]:
        assert claim["outcome"] == "NOT_TESTED"  # synthetic pictures say nothing about a claim
