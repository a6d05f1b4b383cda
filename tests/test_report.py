"""The report: summary, terminal, JSON and Markdown, from records made up for the purpose."""

import io
import json
import math
import re
from itertools import pairwise
from pathlib import Path

import made_up
import pytest
from click.testing import CliRunner
from judging import RELU
from made_up import CLAIMS, REPORTS
from rich.console import Console

from repro import cli, folders, notes, registry, spec, store
from repro.experiments import Observation, Observed
from repro.judging import diff
from repro.judging.rules import ALPHA, in_words
from repro.report import changes, markdown, page, plots, sections, summary, tables
from repro.spec import name_text


@pytest.fixture
def claim() -> spec.Claim:
    return registry.load_claim(CLAIMS / "relu-speedup.toml")


@pytest.fixture
def filled(tmp_path: Path, claim: spec.Claim) -> Path:
    """A store in which the headline came out near the paper's ratio of 6."""
    made_up.condition(
        tmp_path, claim, "cifar10", {"relu": [6.0, 6.1, 5.9, 6.0, 6.05], "tanh": [36.0, 37.0, 35.0, 36.5, 36.0]}
    )
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


def test_a_plan_that_cannot_be_used_is_told_and_the_rest_is_judged(filled: Path, claim: spec.Claim) -> None:
    """Nobody knows how strict the verdict has to be, so there is none; the estimate and every other verdict stay."""
    made_up.condition(filled, claim, "cifar10-18pct", {"relu": [6.0, 6.1, 5.9] + [6.0] * 2, "tanh": [36.0] * 5})
    for name in ("cifar10", "cifar10-18pct"):
        notes.add_look(filled, claim.id, name, claim.conditions[name].seeds)
    before = summary.summarise({claim.id: claim}, filled)["claims"][0]
    path = filled / "plans" / "relu-speedup.cifar10.json"
    path.write_bytes(path.read_bytes()[:-30])
    found = summary.summarise({claim.id: claim}, filled)
    (line,) = found["problems"]
    assert line.startswith(f"{path}: not a usable plan")
    assert line.endswith(f"put a copy back, or go on without the looks that it counts: mv -n {path} {path}.bad")
    after = found["claims"][0]
    assert (before["outcome"], after["outcome"]) == ("REPRODUCED", "ERROR")
    assert after["reason"].startswith(f"{line}; so far 6.01 (90% interval")
    changed = [a["name"] for a, b in zip(before["conditions"], after["conditions"], strict=True) if a != b]
    assert changed == ["cifar10"]
    for args in (["report"], ["report", "--json"], ["judge"], ["list"], ["show", claim.id], ["plan", claim.id]):
        result = CliRunner().invoke(cli.main, [*args, "--store", str(filled)])
        assert result.exit_code == (3 if args[0] in ("report", "judge") else 0), args
        assert result.stderr == f"repro: not used: {line}\n", args


def records_of(root: Path) -> list[Path]:
    return sorted(root.glob("trials/*/record.json"))


def flipped(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"limit"', b'"limir"'))


@pytest.mark.parametrize("kept", [0, 1, -1])
def test_damaged_records_leave_their_condition_an_error(filled: Path, claim: spec.Claim, kept: int) -> None:
    """One of many, all but one, or all: the reason says whose record it is, and the exit code is 3; none is a guess."""
    notes.add_look(filled, claim.id, "cifar10", claim.conditions["cifar10"].seeds)
    notes.add_look(filled, claim.id, "smoke", (0,))  # asked for, and nothing was recorded
    found = records_of(filled)
    for path in found[kept:] if kept >= 0 else found[:1]:
        flipped(path)
    conditions = {c["name"]: c for c in summary.summarise({claim.id: claim}, filled)["claims"][0]["conditions"]}
    assert conditions["cifar10"]["outcome"] == "ERROR"
    assert re.match(
        r"the record of (relu|tanh), (tuning|scoring), seed \d+.* cannot be used", conditions["cifar10"]["reason"]
    )
    assert conditions["smoke"]["outcome"] == "SMOKE_BROKEN"
    n = len(found[kept:]) if kept >= 0 else 1
    assert conditions["smoke"]["reason"].startswith("not complete, missing ")
    assert f"; unusable records of the store may be of it: {n}" in conditions["smoke"]["reason"]
    assert conditions["cifar10-18pct"]["reason"].startswith("nothing was run under cifar10-18pct (planned: 5 seeds")
    assert conditions["cifar10-18pct"]["reason"].endswith("on cifar10)")
    for args, code in ((["report"], 3), (["judge", claim.id], 3), (["list"], 0)):
        result = CliRunner().invoke(cli.main, [*args, "--store", str(filled)])
        assert result.exit_code == code, args
        assert "ERROR" in result.stdout


def test_a_damaged_record_that_does_not_say_whose_it_is_is_told_where_it_may_belong(
    filled: Path, claim: spec.Claim
) -> None:
    """Nothing of the data can be read, so whose trial it was cannot be told: a run was begun, and nothing is left."""
    notes.add_look(filled, claim.id, "cifar10", claim.conditions["cifar10"].seeds)
    for path in records_of(filled):
        path.write_bytes(bytes(300))
    found = summary.summarise({claim.id: claim}, filled)["claims"][0]
    assert found["outcome"] == "ERROR"
    assert found["reason"].startswith("not complete, missing the search of relu at ")
    assert f"unusable records of the store may be of it: {len(records_of(filled))}" in found["reason"]


def test_the_damaged_record_of_an_arm_that_another_claim_ran_is_no_error(filled: Path, claim: spec.Claim) -> None:
    """Of a condition that nobody asked for a trial may be there for another claim: whole or damaged, it was not run."""
    conditions = {
        "cifar10": claim.conditions["cifar10"].model_copy(
            update={
                "arms": {
                    name: p if name == "relu" else p.model_copy(update={"batch": 64})
                    for name, p in claim.conditions["cifar10"].arms.items()
                }
            }
        )
    }
    other = claim.model_copy(update={"conditions": conditions})
    for damage in (lambda _path: None, flipped):
        for path in records_of(filled):
            damage(path)
        found = summary.summarise({claim.id: other}, filled)["claims"][0]
        assert found["outcome"] == "NOT_TESTED"
        assert found["reason"] == "nothing was run for this claim; the trials of its arm relu were run for another"


def test_bands_that_cannot_be_used_are_told_and_change_no_verdict(filled: Path, claim: spec.Claim) -> None:
    """The verdict follows the claim file; that nobody can tell whether that was changed stands beside it."""
    before = summary.summarise({claim.id: claim}, filled)["claims"][0]
    path = filled / "bands" / f"{claim.id}.json"
    path.parent.mkdir()
    path.write_text("{")
    found = summary.summarise({claim.id: claim}, filled)
    assert [line.startswith(f"{path}: not a usable record of bands") for line in found["problems"]] == [True]
    after = found["claims"][0]
    assert after["outcome"] == before["outcome"] == "REPRODUCED"
    assert after["bands"] == [
        "whether a band was changed since the first run cannot be told: bands/relu-speedup.json cannot be used"
    ]
    result = CliRunner().invoke(cli.main, ["report", "--store", str(filled)])
    assert (result.exit_code, len(result.stderr.splitlines())) == (0, 1)


@pytest.mark.parametrize(
    "place", ["plans/relu-speedup.cifar10.json", "bands/relu-speedup.json", "trials/x/record.json"]
)
def test_what_cannot_be_opened_stops_no_report(filled: Path, place: str) -> None:
    """A folder or a link in a file's place is told, and shows in the digest of the evidence."""
    before = store.evidence_digest(filled)
    (filled / "elsewhere").touch()
    for make in (Path.mkdir, lambda path: path.symlink_to(filled / "elsewhere")):
        path = filled / place
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        result = CliRunner().invoke(cli.main, ["report", "--json", "--store", str(filled)])
        assert isinstance(result.exception, SystemExit | None)
        assert str(path) in "".join(json.loads(result.stdout)["problems"])
        assert store.evidence_digest(filled) != before
        path.rmdir() if path.is_dir() else path.unlink()


def test_units_stand_behind_numbers() -> None:
    """The paper's numbers and ours are told with their unit, words and inequalities as a reader says them."""
    said = {
        text: tables.published({"published_text": text, "unit": unit, "asked": asked})
        for text, unit, asked in (
            ("<= 0.01", "fraction of the parameters", False), ("6", "ratio", False), ("37.5", "%", False),
            ("slightly less time", "ratio", False), ("> 10.8", "points", True), ("much slower", "ratio", True),
        )
    }  # fmt: skip
    assert list(said.values()) == [
        "≤ 0.01 of the parameters", "6 times", "37.5%", "slightly less time", "asked: > 10.8 points", "much slower",
    ]  # fmt: skip
    known = {"value": 60965224.0, "low": 60965224.0, "high": 60965224.0, "evidence": "computed", "n": [1], "files": []}
    assert (tables.value(known | {"unit": "parameters"}), tables.spread(known)) == ("60,965,224 parameters", "computed")
    assert tables.spread(known | {"evidence": "recorded", "files": ["a.cfg", "b.py"]}) == "recorded in a.cfg, b.py"


def test_ours_has_a_unit_where_the_papers_words_have_none() -> None:
    """Beside words a number needs its unit, and a share is told in percent too; beside a number it goes without."""
    found = summary.summarise(registry.load_registry(CLAIMS), REPORTS)
    ours = {c["id"]: [tables.ours_in_full(e) for e in tables.headline(c)["estimates"]] for c in found["claims"]}
    assert ours["training-time"] == ["0.2973 of the peak (29.7%), computed"]
    assert ours["conv-parameter-share"] == ["0.01452 of the parameters (1.45%), computed"]
    assert ours["colour-noise-scale"] == ["819.8 levels of 0..255, computed"]
    assert ours["parameters"] == ["60,965,224 computed"]
    spread = {"value": 0.9, "low": 0.8, "high": 1.0, "n": [3, 3], "confidence": 0.95, "unit": "ratio"}
    assert tables.ours_in_full(spread | {"published_text": "less time"}) == "0.900 times [0.800, 1.000], 95%, n=3+3"
    assert tables.value(spread | {"unit": "fraction of the peak", "low": 0.9, "high": 0.9}) == "0.9 of the peak (90%)"
    few = [registry.load_claim(CLAIMS / f"{id_}.toml") for id_ in ("conv-parameter-share", "free-augmentation")]
    text = page.render(summary.summarise({c.id: c for c in few}, REPORTS), REPORTS)
    assert text.count("≤ 0.01") >= 3
    assert "≥ 1" in text
    assert not re.search("&[lg]t;=", text)
    assert "\\<=" not in markdown.render(found)


def test_every_number_of_the_registry_has_its_unit(tmp_path: Path) -> None:
    """Each expectation under each condition names the unit its experiment measures in."""
    found = summary.summarise(registry.load_registry(CLAIMS), tmp_path)
    expected = {claim["id"]: claim["conditions"][0]["expected"] for claim in found["claims"]}
    assert all(expected.values())
    assert {e["unit"] for e in expected["parameters"]} == {"parameters"}
    assert {e["unit"] for e in expected["ilsvrc-2010-error"]} == {"%"}
    assert {e["unit"] for e in expected["lrn-error"]} == {"points"}


def test_what_is_expected_is_told_in_words() -> None:
    """Nowhere that people read stands the machine's name of a metric; of several layers the quantity is said once."""
    found = {
        name_text(e): in_words(e, alone=len(c.conditions[c.headline].arms) == 1)
        for c in registry.load_registry(CLAIMS).values()
        for e in c.expect
    }
    names = {metric for c in registry.load_registry(CLAIMS).values() for e in c.expect for metric in e.metrics}
    coded = {name for name in names if "-" in name} - {"multiply-adds"}
    assert len(coded) > 50
    assert not [words for words in found.values() if any(re.search(rf"\b{name}\b", words) for name in coded)]
    assert found["ratio of epochs-to, tanh to relu"] == "epochs to the target, tanh over relu"
    assert found["difference of top1-error (ten views), none to lrn"] == "top-1 error (ten views), none minus lrn"
    assert found["neurons-conv1 of net"] == "neurons of conv1"
    assert found["parameters of caffenet"] == "parameters, caffenet"
    assert found["proportion of colours-apart, net"] == "share of the runs with colours apart"
    (largest,) = (words for words in found.values() if "initial standard deviation" in words)
    assert largest == ("largest initial standard deviation of conv1, conv2, conv3, conv4, conv5, fc6, fc7 and fc8")
    shown = markdown.render(summary.summarise(registry.load_registry(CLAIMS), REPORTS))
    assert largest in shown
    assert not [name for name in coded if re.search(rf"[^`/]\b{name} of\b", shown)]


def test_an_overview_shows_what_decides() -> None:
    """Of many numbers those that refute come first, and it is said how many more there are."""
    row = {"outcome": "REPRODUCED", "name": "a"}
    rows = [row, row, row | {"outcome": "NOT_REPRODUCED", "name": "b"}, row]
    shown, rest = tables.overview({"estimates": rows, "expected": rows})
    assert [e["name"] for e in shown] == ["b", "a"]
    assert rest == "and 2 more, 2 as published"
    assert tables.overview({"estimates": [row] * 3, "expected": []})[1] == "and 1 more, all as published"
    assert tables.overview({"estimates": [], "expected": [row] * 4})[1] == "and 2 more"
    assert tables.overview({"estimates": [row], "expected": []}) == ([row], "")


def test_seeds_of_both_arms_are_set_side_by_side(filled: Path, claim: spec.Claim) -> None:
    """An estimate tells what each seed came to: the ratio of the arms, seed by seed."""
    estimate = summary.summarise({claim.id: claim}, filled)["claims"][0]["conditions"][0]["estimates"][0]
    assert [seed for seed, _ in estimate["per_seed"]] == [0, 1, 2, 3, 4]
    assert estimate["per_seed"][1][1] == pytest.approx(37.0 / 6.1, rel=1e-3)


def test_an_environment_of_a_record_made_elsewhere_may_be_anything(filled: Path, claim: spec.Claim) -> None:
    """It is told as text; each trial has its own device, which need not be that of most."""
    trials, _ = store.load(filled)
    odd = trials[0].model_copy(update={"environment": {"device": "NVIDIA H200", "cpu": ["a", {"b": 1}]}})
    store.save(filled, odd)
    (condition,) = summary.summarise({claim.id: claim}, filled)["claims"][0]["conditions"][:1]
    assert "['a', {'b': 1}]" in [environment.get("cpu") for environment in condition["environments"]]
    devices = {trial["digest"]: trial["device"] for trial in condition["trials"]}
    assert devices[odd.identity] == "NVIDIA H200"
    assert set(devices.values()) == {"NVIDIA H200", "cpu"}


def test_evidence_of_another_version_is_noted(filled: Path, claim: spec.Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials whose code digest is not the present one are counted, and called a note; those of this one are not."""
    found = summary.summarise({claim.id: claim}, filled)
    assert sections.stale(found) == (16, 16)
    assert "a note, not a fault" in sections.stale_text(found)
    monkeypatch.setattr(summary, "code_digest", lambda: "0" * 16)
    found = summary.summarise({claim.id: claim}, filled)
    assert sections.stale(found) == (0, 16)
    assert sections.stale_text(found) == ""


def test_what_the_tested_claims_rest_on_is_told(filled: Path) -> None:
    """None by training as long as that is so, then how many were; the claims that say something stand first."""
    found = registry.load_registry(CLAIMS)
    committed, trained = summary.summarise(found, REPORTS), summary.summarise(found, filled)
    by = sections.counts(committed)["by"]
    assert by["measured"] == 1
    assert sections.tested(committed) == (
        f"{sum(by.values())} of {len(found)} claims tested: 1 trained or timed, "
        f"{by['computed']} computed, {by['recorded']} read in the released source"
    )
    untrained = committed | {"claims": [c for c in committed["claims"] if c["id"] != "relu-speedup"]}
    assert sections.tested(untrained).startswith(
        f"{sum(by.values()) - 1} of {len(found) - 1} claims tested, none by training: "
    )
    assert sections.tested(trained) == f"1 of {len(found)} claims tested: 1 trained or timed"
    order = list(found)
    first = [claim["id"] for claim in sections.tested_first(committed)]
    split = sum(by.values())
    assert {c["id"] for c in committed["claims"] if c["outcome"] != "NOT_TESTED"} == set(first[:split])
    assert sorted(first) == sorted(order)
    assert all(part == sorted(part, key=order.index) for part in (first[:split], first[split:]))


def test_how_often_a_verdict_is_wrong_follows_from_the_looks_it_had(filled: Path, claim: spec.Claim) -> None:
    """One look is 5 times in 100; with a second, what was looked at twice is told as 7.5."""
    told = []
    for asked in (claim.conditions["cifar10"].seeds[:3], claim.conditions["cifar10"].seeds):
        notes.add_look(filled, claim.id, "cifar10", asked)
        told.append(sections.chance(summary.summarise({claim.id: claim}, filled)))
    assert told[0].endswith("at most about 5 times in 100")
    assert told[1].endswith("those here had up to 2 looks, which makes it 7.5")


def test_claims_that_could_hardly_fail_and_those_nobody_can_test_are_counted() -> None:
    """Both numbers follow from the claim files and are told on the page."""
    found = summary.summarise(registry.load_registry(CLAIMS), REPORTS)
    told = [c["id"] for c in found["claims"] if "by_construction" in (CLAIMS / f"{c['id']}.toml").read_text()]
    hollow = [c["id"] for c in found["claims"] if c["by_construction"]]
    assert hollow == told
    assert sections.hollow(found) == len(hollow) > 0
    assert sections.blocked(found) == sum(
        "headline" in c and tables.headline(c)["blocked"] != "" for c in found["claims"]
    )
    text = page.render(found, REPORTS)
    assert f"{len(hollow)} could hardly have come out otherwise" in text
    assert f"and {sections.blocked(found)} cannot be run with what is public" in text
    assert text.count('soft">It could hardly have come out otherwise: ') == len(hollow)
    assert text.count('data-label="Why">It could hardly have come out otherwise: ') == len(hollow)


def test_every_committed_time_follows_from_its_curve() -> None:
    """The place between two looks, linear in the logarithm of the error, where it first passed 25%."""
    done = [t for t in store.load(REPORTS)[0] if t.spec.experiment == "epochs-to" and t.status == "completed"]
    assert len(done) > 40
    for trial in done:
        rows = store.load_curve(REPORTS, trial.identity)
        a, b = next((a, b) for a, b in pairwise(rows) if a["error"] > 0.25 >= b["error"])
        share = math.log(a["error"] / 0.25) / math.log(a["error"] / b["error"])
        at = a["epochs"] + share * (b["epochs"] - a["epochs"])
        assert trial.value("epochs-to") == pytest.approx(at, rel=1e-6)


def test_the_papers_claims_and_its_readers_questions_are_counted_apart() -> None:
    found = summary.summarise(registry.load_registry(CLAIMS), REPORTS)
    own, said = sum(bool(c["statements"]) for c in found["claims"]), sections.paper_and_readers(found)
    assert said.startswith(f"The paper’s own {own} claims: ")
    assert f"its readers’ {len(found['claims']) - own} questions: " in said


@pytest.mark.parametrize(
    ("name", "told"), [("ilsvrc-2012", False), ("imagenet-2009", False), ("imagenette160", True), ("cifar10", True)]
)
def test_only_imagenet_is_imagenet(name: str, told: bool) -> None:
    assert bool(sections.untrained({"claims": [{"conditions": [{"dataset": name, "trials": [0]}]}]})) is told


def test_a_missed_target_is_no_point() -> None:
    seen = {
        "tanh": (Observation(0, 60.0, True, ""), Observation(1, 100.0, False, "")),
        "relu": (Observation(0, 10.0, True, ""), Observation(1, 10.0, True, "")),
    }
    assert summary._per_seed(RELU, Observed({"epochs-to": seen}, (), (), (), ())) == [[0, 6.0]]


def test_error_rates_are_those_of_the_simulation(filled: Path, claim: spec.Claim) -> None:
    """What the page says of being wrong stands in docs/error-rates.md, and its worlds of one look bear it out."""
    simulated = (CLAIMS.parent / "docs" / "error-rates.md").read_text()
    told = " ".join(simulated.split())
    for said, there in (
        ("at most about 5 times in 100", "each is to come out at most 5 times in 100"),
        ("5.4 where one arm scatters six times as much as the other and has 3 seeds", "it is the other way: 5.4% at 3"),
        ("at most 7.5 after two looks", "two looks are wrong at most 7.5 times in 100"),
        ("9.2 after three", "three looks are wrong at most 9.2 times in 100"),
        ("misses at one end three times as often as it says", "miss three times as often as it says"),
    ):
        assert said in sections.ERROR_RATES
        assert there in told
    figures = re.findall(r"\d[\d.]*\d|\d", sections.ERROR_RATES)
    assert sorted(figures) == ["100", "3", "5", "5.4", "7.5", "9.2"]
    rows = [line.split(" | ") for line in simulated.split("## One look")[1].split("## Looking")[0].splitlines()]
    usual = [
        row for row in rows if len(row) > 5 and row[0] in ("| difference", "| value", "| ratio") and "and" not in row[2]
    ]
    wrong = [float(cell.strip("*")) for row in usual for cell in row if cell.startswith("**")]
    assert len(wrong) > 100
    assert 5 < max(wrong) < 7.5  # 2,000 claims let a rate of 5 show as this much
    text = page.render(summary.summarise({claim.id: claim}, filled), filled)
    assert 'href="#sure"' in text.split('id="verdicts"')[0]
    assert sections.ERROR_RATES.split("`")[0] in text.split('<h3 id="sure">')[1].split("</section>")[0]


def test_counts_tell_tested_from_all(filled: Path) -> None:
    """Every claim is counted once, and what was tested apart, by what the answer rests on."""
    counts = sections.counts(summary.summarise(registry.load_registry(CLAIMS), filled))
    assert (counts["tested"], counts["by"]) == (1, {"measured": 1, "computed": 0, "recorded": 0})
    assert sum(row["all"] for row in counts["rows"]) == counts["all"] == len(folders.claim_files(CLAIMS))


def test_commands_name_the_data_they_need(tmp_path: Path) -> None:
    """The command that repeats a condition asks for the data folder wherever the set is not made by the program."""
    claim = registry.load_claim(CLAIMS / "lrn-error.toml")
    commands = {c["name"]: c["command"] for c in summary.summarise({"x": claim}, tmp_path)["claims"][0]["conditions"]}
    assert commands["ilsvrc-2012"].endswith("--condition ilsvrc-2012 --data DIR")
    assert commands["smoke"].endswith("--condition smoke")


def test_the_table_fits_a_terminal(filled: Path) -> None:
    """At 80 columns no line is longer, and no claim's name or verdict is broken or cut."""
    found = summary.summarise(registry.load_registry(CLAIMS), filled)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables.claims(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for path in folders.claim_files(CLAIMS):
        assert re.search(rf"^ {re.escape(path.stem)} .* (REPRODUCED|NOT_TESTED) *$", text, flags=re.MULTILINE), path


def test_untested_claims_have_a_row(tmp_path: Path) -> None:
    """Every claim of the registry is in the terminal report and in the page, also with no record at all."""
    result = CliRunner().invoke(cli.main, ["report", "--store", str(tmp_path), "--html", str(tmp_path / "p.html")])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "p.html").read_text()
    for path in folders.claim_files(CLAIMS):
        assert f'id="{path.stem}"' in text
    assert "NOT_TESTED" in result.output


def test_refuted_claims_need_to_be_known(claim: spec.Claim) -> None:
    """A NOT_REPRODUCED headline counts against the exit code unless the claim file lists it as known."""
    row = {"id": claim.id, "outcome": "NOT_REPRODUCED", "known": None}
    assert summary.refuted([row]) == [claim.id]
    assert summary.refuted([row | {"known": {"outcome": "NOT_REPRODUCED", "because": "x"}}]) == []
    assert summary.refuted([row | {"outcome": "INCONCLUSIVE"}]) == []


def test_ours_shows_open_ends() -> None:
    """An interval without an end says so, and no estimate is a dash."""
    assert (
        tables.ours({"value": 3.0, "low": 2.0, "high": None, "n": [3, 3], "confidence": 0.9}) == "3.00 [2.00, ∞] n=3+3"
    )
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
    ("value", "low", "high", "confidence", "said"),
    [
        (1.42, 1.31, 1.53, 0.9, "1.42 [1.31, 1.53] n=5+5"),
        (1.42, 1.31, 1.53, 0.95, "1.42 [1.31, 1.53], 95%, n=5+5"),
        (1.42, 1.31, 1.53, 1 - 0.1 / 3, "1.42 [1.31, 1.53], 96.7%, n=5+5"),
        (60965224.0, 60965224.0, 60965224.0, 0.95, "60,965,224 computed"),
        (4.6875, None, None, 0.9, "4.69 [-∞, ∞] n=5+5"),
        (6.0, 4.0, None, 1 - 2 * ALPHA, "6.00 [4.00, ∞] n=5+5"),
        (None, None, None, None, "-"),
    ],
)
def test_ours_says_how_well_it_is_known(
    value: float | None, low: float | None, high: float | None, confidence: float | None, said: str
) -> None:
    """Only what has no spread stands without an interval; an open end is open; a level of its own is named."""
    known = {"value": value, "low": low, "high": high, "n": [5, 5], "evidence": "computed", "confidence": confidence}
    assert tables.ours(known) == said


@pytest.mark.parametrize("looks", [1, 2])
def test_no_interval_is_told_under_another_level(filled: Path, claim: spec.Claim, looks: int) -> None:
    """Seeds added after a first look make an interval of 95%: cells, figures and two stores side by side say so."""
    seeds = claim.conditions["cifar10"].seeds
    for asked in (seeds[:3], seeds)[2 - looks :]:
        notes.add_look(filled, claim.id, "cifar10", asked)
    found = summary.summarise({claim.id: claim}, filled)
    console = Console(width=300, file=io.StringIO())
    sides = changes.table(diff.compare({claim.id: claim}, filled, filled))
    for table in (tables.claims(found), tables.conditions(found["claims"][0]), sides):
        console.print(table)
    printed = console.file.getvalue()
    (forest,) = plots.forests(found["claims"][0])
    text = page.render(found, filled)
    told = [
        printed.count("], 95%, n=5+5"),
        markdown.render(found).count("\\], 95%, n=5+5"),
        forest.svg.count("(n = 5 + 5, 95% interval)"),
    ]
    assert told == ([0, 0, 0] if looks == 1 else [4, 2, 2])
    for level, there in (("90% interval", looks == 1), ("95% interval", looks == 2)):
        assert (level in text.split('<h2 id="reading">')[0]) is there
        assert (level in forest.svg) is there
    assert " ".join(printed.split()).count(tables.LEVELS) == 3
    assert tables.LEVELS in markdown.render(found)
    assert "(90%)" not in printed
