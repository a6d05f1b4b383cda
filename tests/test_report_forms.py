"""The report for programs: JUnit XML and CSV, and what changed since an older one."""

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import made_up
import pytest
from click.testing import CliRunner
from made_up import CLAIMS

from repro import cli, registry, spec
from repro.report import against, flat, junit, summary, tables


@pytest.fixture
def claim() -> spec.Claim:
    return registry.load_claim(CLAIMS / "relu-speedup.toml")


@pytest.fixture
def filled(tmp_path: Path, claim: spec.Claim) -> Path:
    """A store in which the headline came out near the paper's ratio of 6."""
    times = {"relu": [6.0, 6.1, 5.9, 6.0, 6.05], "tanh": [36.0, 37.0, 35.0, 36.5, 36.0]}
    made_up.condition(tmp_path / "store", claim, "cifar10", times)
    return tmp_path / "store"


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli.main, ["report", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def one(outcome: str, **more: object) -> dict[str, object]:
    """A claim of a summary, as far as JUnit reads it."""
    shared = {"id": "x", "experiment": "count", "title": "T", "reason": "because", "known": None}
    return shared | {"outcome": outcome} | more


@pytest.mark.parametrize(
    ("made", "tag"),
    [
        (one("REPRODUCED"), None), (one("DIRECTION"), None), (one("NOT_REPRODUCED"), "failure"),
        (one("ERROR"), "error"), (one("SMOKE_BROKEN"), "error"), (one("INCONCLUSIVE"), "skipped"),
        (one("NOT_TESTED"), "skipped"),
        (one("SMOKE_OK"), "skipped"), (one("TREND_CONTRARY"), "skipped"),
        (one("NOT_REPRODUCED", known={"outcome": "NOT_REPRODUCED", "because": "b"}), None),
    ],
)  # fmt: skip
def test_junit_says_what_the_exit_code_says(made: dict[str, object], tag: str | None) -> None:
    """A refuted headline fails unless it is known, a failed trial is an error, what decides nothing is skipped."""
    suite = ET.fromstring(junit.render({"claims": [made]}).encode())
    case = suite.find("testcase")
    assert case is not None
    assert [child.tag for child in case if child.tag != "system-out"] == ([tag] if tag else [])
    totals = {"failure": "failures", "error": "errors", "skipped": "skipped"}
    assert {name: suite.get(name) for name in totals.values()} == {
        name: str(int(tag == child)) for child, name in totals.items()
    }


def test_junit_holds_what_xml_cannot(filled: Path, claim: spec.Claim) -> None:
    """Control characters and markup in a reason leave the XML whole."""
    suite = ET.fromstring(junit.render({"claims": [one("ERROR", reason='a\x00b\x1b <c> & "d"')]}).encode())
    error = suite.find("testcase/error")
    assert error is not None
    assert error.get("message") == 'ERROR: a�b� <c> & "d"'
    whole = ET.fromstring(junit.render(summary.summarise({claim.id: claim}, filled)).encode())
    assert whole.get("tests") == "1"


def test_csv_has_a_row_a_number(filled: Path) -> None:
    """Every expectation under every condition is a row, with ours where there is one and empty cells elsewhere."""
    rows = list(csv.DictReader(io.StringIO(run("--csv", "--store", str(filled)))))
    found = summary.summarise(registry.load_registry(CLAIMS), filled)
    assert len(rows) == sum(len(c["expected"]) for claim in found["claims"] for c in claim["conditions"])
    (row,) = [r for r in rows if (r["claim"], r["condition"]) == ("relu-speedup", "cifar10")]
    assert (row["headline"], row["unit"], row["published"], row["n"]) == ("1", "ratio", "6.0", "5+5")
    assert float(row["value"]) == pytest.approx(6.01, abs=0.02)
    (untested,) = [r for r in rows if (r["claim"], r["condition"]) == ("relu-speedup", "cifar10-modern")]
    assert (untested["value"], untested["low"], untested["n"]) == ("", "", "")
    assert set(rows[0]) == set(flat.COLUMNS)


def test_against_a_store_and_a_saved_report(filled: Path, tmp_path: Path, claim: spec.Claim) -> None:
    """Verdicts that turned are told with ours before and after, alike against the store and its saved report."""
    old, saved = tmp_path / "old", tmp_path / "old.json"
    slower = {"relu": [6.0, 6.1, 5.9, 6.0, 6.05], "tanh": [12.0, 12.1, 12.2, 12.3, 12.4]}
    made_up.condition(old, claim, "cifar10", slower)
    saved.write_text(run("--json", "--store", str(old)))
    told = [run("--store", str(filled), "--against", str(path)) for path in (old, saved)]
    assert told[0] == told[1]
    assert "1 of 103 conditions have a different outcome from before (1 of them headlines)" in told[0].replace(
        "\n", " "
    )
    assert "NOT_REPRODUCED" in told[0]
    assert "n=5+5" in told[0]
    changes = json.loads(run("--json", "--store", str(filled), "--against", str(saved)))["changes"]
    assert [(c["claim"], c["before"], c["after"]) for c in changes] == [
        ("relu-speedup", "NOT_REPRODUCED", "REPRODUCED")
    ]


def test_claims_that_came_or_went_are_told(filled: Path, claim: spec.Claim) -> None:
    """A condition that only one side has stands with a dash on the other, and counts as neither change."""
    now = summary.summarise({claim.id: claim}, filled)
    less = summary.summarise(
        {claim.id: claim.model_copy(update={"conditions": {"cifar10": claim.conditions["cifar10"]}})}, filled
    )
    came, went = against.turns(less, now), against.turns(now, less)
    assert {turn.before for turn in came} == {turn.after for turn in went} == {"-"}
    assert against.told(came, now).startswith("0 of 7 conditions have a different outcome")
    assert "6 new, 0 gone" in against.told(came, now)
    assert against.turns(now, now) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not a JSON report"), ("[]", "not a report of schema 1"), ('{"schema": 2}', "not a report of schema 1"),
        ('{"schema": 1}', "not a whole report"), ('{"schema": 1, "claims": [{"id": "x"}]}', "not a whole report"),
        ('{"schema": 1, "claims": 3}', "not a whole report"),
    ],
)  # fmt: skip
def test_what_is_no_report_is_refused(tmp_path: Path, filled: Path, content: str, said: str) -> None:
    """A file that is not a saved report is one line that names it, exit code 2."""
    (tmp_path / "x.json").write_text(content)
    output = run("--store", str(filled), "--against", str(tmp_path / "x.json"), code=2)
    assert said in output


@pytest.mark.parametrize(
    ("key", "number"),
    [
        *(("value", number) for number in ("Infinity", "-Infinity", "NaN", "1e999", f"-{'9' * 400}.5")),
        *((key, "1" * 400) for key in ("value", "low", "high", "confidence", "n")),
    ],
)
def test_a_number_that_no_report_has_is_refused(filled: Path, tmp_path: Path, key: str, number: str) -> None:
    """In one line: an open end is null in a report, and nothing in one is larger than a float."""
    told = run("--json", "--store", str(filled))
    claims = json.loads(told)["claims"]
    estimate = next(e for c in claims if c["id"] == "relu-speedup" for x in c["conditions"] for e in x["estimates"])
    estimate[key] = ["number"] if key == "n" else "number"
    (tmp_path / "x.json").write_text(json.dumps({"schema": 1, "claims": claims}).replace('"number"', number))
    output = run("--store", str(filled), "--against", str(tmp_path / "x.json"), code=2)
    assert f"x.json: not a JSON report ({number[:20]} is not a number that a report has); `repro report" in output
    assert len(output.splitlines()) == 1


ANSI = "\x1b[2J\x07"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"id": f"x{ANSI}"}, r"'x\x1b[2J\x07' is no name of a claim or condition"),
        ({"id": "x" * 100}, "is no name of a claim or condition"),
        ({"name": ANSI}, "is no name of a claim or condition"),
        ({"outcome": ANSI}, r"'\x1b[2J\x07' is no outcome"),
        ({"outcome": "PASSED"}, "'PASSED' is no outcome"),
        ({"n": [ANSI]}, "is no estimate"),
        ({"low": 2.0, "high": 2.0, "evidence": ANSI}, "is no estimate"),
        ({"value": "6"}, "not a whole report"),
    ],
)
def test_words_that_no_report_has_are_refused(
    filled: Path, tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    """Nothing of a file reaches the terminal that might steer it; one line, and exit code 2."""
    estimate = {"value": 2.0, "low": 1.0, "high": 3.0, "confidence": 0.9, "n": [5, 5], "evidence": "measured"}
    parts: tuple[dict[str, object], ...] = (
        {"id": "x", "headline": "y"}, {"name": "y", "outcome": "DIRECTION"}, dict(estimate),
    )  # fmt: skip
    path = tmp_path / "x.json"

    def write() -> None:
        claim, condition, ours = parts
        found = {**claim, "conditions": [{**condition, "estimates": [ours]}]}
        path.write_text(json.dumps({"schema": 1, "claims": [found]}))

    write()
    assert "DIRECTION" in run("--store", str(filled), "--against", str(path))
    for part in parts:
        part.update({key: value for key, value in changed.items() if key in part})
    write()
    output = run("--store", str(filled), "--against", str(path), code=2)
    assert said in output
    assert len(output.splitlines()) == 1
    assert output[:-1].isprintable()
    assert "x.json" in output


def test_a_folder_without_records_is_refused(tmp_path: Path, filled: Path) -> None:
    """An empty folder is not an older report in which nothing was tested."""
    (tmp_path / "empty").mkdir()
    assert "no records here" in run("--store", str(filled), "--against", str(tmp_path / "empty"), code=2)


@pytest.mark.parametrize("arguments", [("--html", "p.html", "--json"), ("--csv", "--against", ".")])
def test_forms_that_do_not_go_together_are_refused(filled: Path, arguments: tuple[str, ...]) -> None:
    """Nothing asked for is left out in silence."""
    run("--store", str(filled), *arguments, code=2)


def test_where_trials_ran_is_told_in_words():
    """As many as a record says: one from a GPU, one from before most of them were kept."""
    whole = {
        "trials": 2, "device": "NVIDIA H200", "cpu": "AMD EPYC", "threads": 1, "world": 2, "torch": "2.11.0",
        "python": "3.12", "precision": "bf16", "captured": True, "loader": "dali", "micro_batch": 64,
        "commit": "abc", "dirty": True, "code_digest": "f00",
    }  # fmt: skip
    assert tables.ran(whole) == (
        "2 trials on NVIDIA H200, beside AMD EPYC, 1 thread, 2 ranks, torch 2.11.0, Python 3.12, bf16, "
        "steps recorded as CUDA graphs, loader dali, batches in parts of 64, commit abc, changed, code f00"
    )
    old = {"trials": 1, "device": "cpu", "cpu": "AMD EPYC", "world": 1, "captured": False, "micro_batch": None}
    assert tables.ran(old) == "1 trial on cpu (AMD EPYC)"
