"""The report: summary, tables and page, from records made up for the purpose."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from repro import cli, experiments, folders, registry, spec, store
from repro.report import markdown, page, summary, tables
from repro.store import Measurement, Trial

DIGEST = "md5:c58f30108f718f92721af3b95e74349a"
CLAIMS = Path(__file__).parents[1] / "claims"
REPORTS = Path(__file__).parents[1] / "reports"
VOID = {"meta", "br", "link", "img", "hr", "input"}


def made_up(root: Path, claim: spec.Claim, name: str, times: dict[str, list[float]]) -> None:
    """Write a finished condition to a store: a search that the middle rate wins, then one trial a time."""
    experiment = experiments.get(claim.experiment)
    condition = claim.conditions[name]
    for arm, values in times.items():
        p = condition.arms[arm]
        rates = sorted(p.rates)
        for rate in rates:
            won = rate == rates[1]
            write(root, experiment.spec(p, p.tuning_seed, rate), values[0] if won else None, limit=values[0])
        for seed, value in zip(condition.seeds, values, strict=True):
            write(root, experiment.spec(p, seed, rates[1]), value, limit=p.max_epochs)


def write(root: Path, trial_spec: store.TrialSpec, at: float | None, *, limit: float) -> None:
    measurements = () if at is None else (Measurement(name="epochs-to", value=at, unit="epochs"),)
    environment = {"device": "cpu", "torch": "2.11", "commit": "0" * 40, "dirty": False}
    trial = Trial(
        spec=trial_spec, data_digest=DIGEST, status="censored" if at is None else "completed", limit=limit,
        measurements=measurements, environment=environment, message="" if at else "training error 0.4",
    )  # fmt: skip
    store.save(root, trial)
    last = int(at or limit)
    rows = [{"epochs": float(e), "error": 0.9 * 0.8**e, "loss": 2.0, "window": 390} for e in range(1, last + 2)]
    store.save_curve(root, trial.identity, rows)


@pytest.fixture
def claim() -> spec.Claim:
    return registry.load_claim(CLAIMS / "relu-speedup.toml")


@pytest.fixture
def filled(tmp_path: Path, claim: spec.Claim) -> Path:
    """A store in which the headline came out near the paper's ratio of 6."""
    made_up(tmp_path, claim, "cifar10", {"relu": [6.0, 6.1, 5.9, 6.0, 6.05], "tanh": [36.0, 37.0, 35.0, 36.5, 36.0]})
    return tmp_path


def test_json_keeps_the_contract(filled: Path) -> None:
    """The JSON report has schema 1's keys for every claim, and no infinity or NaN."""
    result = CliRunner().invoke(cli.main, ["report", "--json", "--store", str(filled)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["schema"] == 1
    assert {c["id"] for c in found["claims"]} == {path.stem for path in folders.claim_files(CLAIMS)}
    for one in found["claims"]:
        assert {"id", "title", "section", "experiment", "headline", "outcome", "conditions"} <= set(one)
        for condition in one["conditions"]:
            assert {"name", "scale", "dataset", "protocol", "evidence", "outcome", "reason"} <= set(condition)
            for estimate in condition["estimates"]:
                assert {"name", "published", "accept", "null", "value", "low", "high", "n", "unit"} <= set(estimate)
            for trial in condition["trials"]:
                assert {"arm", "seed", "status", "digest"} <= set(trial)


def test_headline_sets_the_outcome(filled: Path, claim: spec.Claim) -> None:
    """The claim's outcome is its headline's, with the estimate and n that the records hold."""
    found = summary.summarise({claim.id: claim}, filled)["claims"][0]
    assert found["outcome"] == "REPRODUCED"
    headline = found["conditions"][0]
    assert headline["estimates"][0]["value"] == pytest.approx(6.01, abs=0.02)
    assert headline["estimates"][0]["n"] == [5, 5]
    assert len(headline["trials"]) == 16


def test_untested_claims_have_a_row(tmp_path: Path) -> None:
    """Every claim of the registry is in the terminal report and in the page, also with no record at all."""
    result = CliRunner().invoke(cli.main, ["report", "--store", str(tmp_path), "--html", str(tmp_path / "p.html")])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "p.html").read_text()
    for path in folders.claim_files(CLAIMS):
        assert f'id="{path.stem}"' in text
    assert "NOT_TESTED" in result.output


class Nesting(HTMLParser):
    """Checks that elements close in order and that no id stands twice."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [v for name, v in attrs if name in ("href", "src", "xlink:href", "srcset", "action") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()


def test_page_is_whole_and_alone(filled: Path, claim: spec.Claim) -> None:
    """The page nests properly, has no id twice, no script, and refers to nothing outside itself."""
    text = page.render(summary.summarise({claim.id: claim}, filled), filled)
    parser = Nesting()
    parser.feed(text)
    assert parser.open == []
    assert len(set(parser.ids)) == len(parser.ids)
    assert all(link.startswith("#") for link in parser.links), parser.links
    assert "<script" not in text
    assert not re.search(r"url\((?!#)", text)
    assert text.count("<svg") == 2  # the forest and the headline's curves


def test_page_is_the_same_twice(filled: Path, claim: spec.Claim) -> None:
    """The same records give the same bytes; another record gives another evidence digest."""
    first = page.render(summary.summarise({claim.id: claim}, filled), filled)
    assert page.render(summary.summarise({claim.id: claim}, filled), filled) == first
    made_up(filled, claim, "cifar10-19pct", {"relu": [6.0] * 5, "tanh": [9.0, 9.1, 9.2, 9.3, 9.4]})
    assert store.evidence_digest(filled) not in first


def test_text_of_specs_is_escaped(filled: Path, claim: spec.Claim) -> None:
    """A title that holds markup is shown as text, in the page and in the figures' labels."""
    nasty = claim.model_copy(update={"title": "<script>alert('x')</script> & \"[bold]\""})
    text = page.render(summary.summarise({claim.id: nasty}, filled), filled)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_refuted_claims_need_to_be_known(claim: spec.Claim) -> None:
    """A NOT_REPRODUCED headline counts against the exit code unless the claim file lists it as known."""
    row = {"id": claim.id, "outcome": "NOT_REPRODUCED", "known": None}
    assert summary.refuted([row]) == [claim.id]
    assert summary.refuted([row | {"known": {"outcome": "NOT_REPRODUCED", "because": "x"}}]) == []
    assert summary.refuted([row | {"outcome": "INCONCLUSIVE"}]) == []


def test_ours_shows_open_ends() -> None:
    """An interval without an end says so, and no estimate is a dash."""
    assert tables.ours({"value": 3.0, "low": 2.0, "high": None, "n": [3, 3]}) == "3 [2, ∞] n=3+3"
    assert tables.ours({"value": None}) == "-"


def test_committed_page_is_of_the_committed_records() -> None:
    """reports/index.html holds the digest of the records beside it; `make page` makes it again."""
    text = (REPORTS / "index.html").read_text()
    assert f'<meta name="evidence-digest" content="{store.evidence_digest(REPORTS)}">' in text


def test_the_committed_table_is_what_the_records_say() -> None:
    """reports/README.md is the Markdown report of the records beside it, errata included; `make page` makes it."""
    found = summary.summarise(registry.load_registry(CLAIMS), REPORTS)
    assert (REPORTS / "README.md").read_text() == markdown.render(found)


def test_markdown_shows_text_as_it_stands(filled: Path, claim: spec.Claim) -> None:
    """Every claim has a row of five cells, and nothing in a title turns into Markdown or HTML."""
    found = summary.summarise({"x": claim.model_copy(update={"title": "a|b <script> *c*"})}, filled)
    text = markdown.render(found)
    assert r"a\|b \<script\> \*c\*" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)


def test_committed_evidence_is_clean() -> None:
    """Every committed record is usable, finished, from a clean commit, and of real data."""
    from repro.publishing import unfit

    trials, problems = store.load(REPORTS)
    assert problems == []
    assert [(t.identity, unfit(t)) for t in trials if unfit(t)] == []


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (1.42, 1.31, 1.53, "1.42 [1.31, 1.53] n=5+5"),
        (60965224.0, 60965224.0, 60965224.0, "60,965,224 computed"),
        (4.6875, None, None, "4.69 [-∞, ∞] n=5+5"),
        (6.0, 4.0, None, "6 [4, ∞] n=5+5"),
        (None, None, None, "-"),
    ],
)
def test_ours_says_how_well_it_is_known(value: float | None, low: float | None, high: float | None, said: str) -> None:
    """Only what has no spread stands without an interval; an open end is open."""
    estimate = {"value": value, "low": low, "high": high, "n": [5, 5], "evidence": "computed"}
    assert tables.ours(estimate) == said
