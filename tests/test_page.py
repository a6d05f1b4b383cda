"""The page: whole, alone, the same twice, and true to the records it is made from."""

import base64
import hashlib
import json
import re
from pathlib import Path

import html5lib
import made_up
import numpy as np
import pytest
from click.testing import CliRunner
from made_up import CLAIMS, REPORTS

from repro import cli, notes, registry, spec, store
from repro.files import StoreError
from repro.release import RELEASE
from repro.report import page, sections, summary, svg, tables
from repro.store import Measurement, Trial


@pytest.fixture
def claim() -> spec.Claim:
    return registry.load_claim(CLAIMS / "relu-speedup.toml")


@pytest.fixture
def filled(tmp_path: Path, claim: spec.Claim) -> Path:
    """A store in which the headline came out near the paper's ratio of 6."""
    times = {"relu": [6.0, 6.1, 5.9, 6.0, 6.05], "tanh": [36.0, 37.0, 35.0, 36.5, 36.0]}
    made_up.condition(tmp_path, claim, "cifar10", times)
    return tmp_path


def rendered(root: Path, *claims: spec.Claim, linked: bool = True) -> str:
    return page.render(summary.summarise({c.id: c for c in claims}, root), root, linked=linked)


def parsed(text: str) -> html5lib.treebuilders.base.Node:
    """Return the document; HTML that is not right is a failure."""
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    document = parser.parse(text)
    assert parser.errors == []
    return document


def looked_into(root: Path, claim: spec.Claim, *, pictures: bool) -> str:
    """Write a probe trial of the smoke condition with what a look leaves behind; return its digest."""
    from repro.experiments import probe

    trial_spec = probe.spec(claim.conditions["smoke"].arms["net"], 0)
    found = [
        Measurement(name="colours-apart", value=0.0, unit="x"),
        Measurement(name="epochs-trained", value=1.0, unit="x"),
    ]
    trial = Trial(spec=trial_spec, data_digest="md5:0", status="completed", limit=1.0, measurements=tuple(found))
    store.save(root, trial)
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.normal(size=(16, 1, 5, 5)), 3, axis=1)
    colour = rng.normal(size=(16, 1, 5, 5)) * np.array([1.0, -0.5, -0.5])[:, None, None]
    kept = {
        "kernels": np.concatenate([grey, colour]).astype(np.float16),
        "answers": np.tile(np.arange(5), (8, 1)), "probabilities": np.tile([0.5, 0.2, 0.1, 0.1, 0.1], (8, 1)),
        "names": np.array(["<b>disc</b>", "ring", "star", "cross", "square"]), "truth": np.arange(8) % 5,
        "shown": np.arange(8), "neighbours": np.arange(30).reshape(5, 6),
        "neighbour_labels": np.arange(30).reshape(5, 6) % 5,
    }  # fmt: skip
    folder = store.folder(root, trial.identity)
    np.savez_compressed(folder / "looked.npz", **kept)
    if pictures:
        queries = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
        near = rng.integers(0, 256, (5, 6, 4, 4, 3), dtype=np.uint8)
        np.savez_compressed(folder / "pictures.npz", queries=queries, neighbours=near)
    return trial.identity


def test_the_page_is_valid_html_and_alone(filled: Path, claim: spec.Claim) -> None:
    """No parse error, no id twice, every link leads to a place in the page or a record beside it; nothing is loaded."""
    text = rendered(filled, claim)
    elements = list(parsed(text).iter())
    ids = [e.get("id") for e in elements if e.get("id")]
    assert len(set(ids)) == len(ids)
    links = [v for e in elements for name in ("href", "src", "srcset", "action") if (v := e.get(name))]
    assert len(links) > 20
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids, link
        else:
            assert link.startswith("data:image/png;base64,") or (filled / link).is_file(), link
    assert not re.search(r"url\((?!#)|@import|https?:", text)
    assert text.count("<svg") == 4  # the forest, the headline's curves twice (Figure 1), its search


def test_only_its_own_script_may_run(filled: Path, claim: spec.Claim) -> None:
    """The page forbids itself to load anything, and names the digest of the one script it has."""
    text = rendered(filled, claim)
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_page_is_the_same_twice(filled: Path, claim: spec.Claim) -> None:
    """The same records give the same bytes; another record gives another evidence digest."""
    first = rendered(filled, claim)
    assert rendered(filled, claim) == first
    made_up.condition(filled, claim, "cifar10-19pct", {"relu": [6.0] * 5, "tanh": [9.0, 9.1, 9.2, 9.3, 9.4]})
    assert store.evidence_digest(filled) not in first


def test_several_processes_draw_the_same(filled: Path, claim: spec.Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large registry is drawn side by side, to the same bytes."""
    first = rendered(filled, claim)
    monkeypatch.setattr(page, "SEVERAL_PROCESSES_FROM", 1)
    assert rendered(filled, claim) == first


def test_a_compact_line_goes_where_the_long_one_went() -> None:
    """Steps lead from point to point to the last one, to a tenth; a line that goes up goes up."""
    found = svg.compact('<svg><path d="M 44.61 320.4 L 44.61 165.6 \nL 60 165.6 L 61.07 170 " class="x"/></svg>')
    ((start, steps),) = re.findall(r'd="M([-\d. ]+)l([-\d. ]+)"', found)
    x, y = map(float, start.split())
    numbers = list(map(float, steps.split()))
    assert numbers[1] == pytest.approx(-154.8)  # from 320.4 to 165.6
    assert (x + sum(numbers[::2]), y + sum(numbers[1::2])) == (pytest.approx(61.1), pytest.approx(170.0))


def test_what_was_measured_beside_a_headline_is_told_at_the_top(filled: Path, claim: spec.Claim) -> None:
    """Both recipes stand before the table, with the seeds that were planned, and under Figure 1."""
    times = {"relu": [6.0, 6.1, 5.9], "tanh": [9.0, 9.1, 9.2]}
    three = claim.conditions["cifar10-19pct"].model_copy(update={"seeds": (0, 1, 2)})
    made_up.condition(filled, claim.model_copy(update={"conditions": {three.name: three}}), three.name, times)
    notes.add_look(filled, claim.id, "cifar10-19pct", (0, 1, 2))
    text = rendered(filled, claim)
    top = text[: text.index('id="verdicts">')]
    assert "1.52" in top
    beside = top.split("Measured, but not under the condition that was named in advance to decide")[1]
    assert beside.count(claim.title) == 1  # one claim, one title, a line each condition
    (line,) = re.findall(r'<li><a href="#relu-speedup-cifar10-19pct">(.*)', top)
    assert line.startswith("net 19pct, the released recipe (code), on cifar10</a>: <strong>1.52 times")
    decided = top.split("Decided by training or timing:")[1].split("Measured, but not")[0]
    assert f'<a href="#relu-speedup">{claim.title}</a>' in decided
    assert "Epochs to the target, tanh over relu: <strong>6.01 times</strong>" in decided
    told = re.sub(r"<[^>]*>", "", decided)
    assert "Net conv-local-13pct, the released recipe (code), on cifar10. This decides, because it is the four" in told
    assert "Run on cpu: repro run claim relu-speedup --condition cifar10 --data DIR" in told
    assert "run; see below" not in text  # the headline was run
    assert "3 of the 5 planned seeds" in top
    assert "Nothing has been trained on ImageNet yet." in top
    figure = text[text.index('id="figure-1"') : text.index('id="figure-3"')]
    assert "cifar10-19pct" in figure
    assert "1.52" in figure


def test_the_committed_page_says_what_the_claim_files_say() -> None:
    """Differences, reasons and notes of every claim that is not folded away stand in it word by word."""
    text = (REPORTS / "index.html").read_text(encoding="utf-8")
    for claim in summary.summarise(registry.load_registry(CLAIMS), REPORTS)["claims"]:
        said = [page._code(d[key]) for d in claim["deviations"] for key in ("what", "effect")]
        said += [page._sentence(claim["known"]["because"], first=False)] if claim["known"] else []
        said += [page._sentence(c["note"]) for c in claim["conditions"] if c["note"]]
        assert [one for one in said if one not in text] == [], claim["id"]


def test_where_something_ran_is_told_once() -> None:
    ran = [{"device": "cpu", "cpu": "AMD EPYC", "torch": version} for version in ("2.14", "2.15")]
    assert sections.where({"environments": [*ran, {"device": "NVIDIA H200"}]}) == "NVIDIA H200 and cpu (AMD EPYC)"
    assert sections.where({"environments": []}) == ""


def test_an_untested_headline_points_to_what_was_run(tmp_path: Path, claim: spec.Claim) -> None:
    """A claim that is not tested says, first of all, that other conditions were run; the smoke one does not count."""
    told = "2 other conditions, which do not decide, were run; see below."
    times = {"relu": [6.0, 6.1, 5.9, 6.0, 6.05], "tanh": [9.0, 9.1, 9.2, 9.3, 9.4]}
    for name, said in (("cifar10-19pct", "One other condition"), ("cifar10-modern-19pct", told)):
        made_up.condition(tmp_path, claim, name, times)
        part = rendered(tmp_path, claim).split('<h3 id="relu-speedup">')[1].split("<blockquote>")[0]
        assert said in part
        assert "NOT_TESTED" in part


def test_where_the_paper_contradicts_itself_is_told_at_the_top() -> None:
    """Their number is that of the errata; what was tested, and by what, is the heading's."""
    text = rendered(REPORTS, *registry.load_registry(CLAIMS).values())
    top = text[: text.index('id="verdicts">')]
    errata = text.split('<h2 id="errata">')[1].split("</section>")[0].count("<li>")
    assert f', {errata} are places where <a href="#errata">' in top
    assert "claims tested: 1 trained or timed, " in top
    assert "all 41 quantitative statements, as 49 claims, and 6 questions" in top
    assert "version of this program" not in top
    assert text[len(top) :].count("run by a different version of this program from the one that made this report") == 1


def test_what_is_known_says_why_it_came_out_so() -> None:
    """Beside a number without chance stands what explains it, not the number again; a recorded one names its file."""
    found = summary.summarise(registry.load_registry(CLAIMS), REPORTS)
    why = {claim["id"]: sections.why(claim) for claim in found["claims"]}
    assert why["conv1-places"].startswith("(224 - 11) / 4 + 1 is 54.25")
    assert (
        why["weighted-layers"]
        == "it could hardly have come out otherwise: our network was written down from this sentence"
    )
    assert why["validation-from-test"].endswith("so it is not contradicted rather than shown")
    assert why["relu-speedup"] == next(c["reason"] for c in found["claims"] if c["id"] == "relu-speedup")
    text = page.render(found, REPORTS)
    alpha = text.split('<h3 id="lrn-constants">')[1].split("</article>")[0]
    assert "0.00002" in alpha
    assert "recorded in layer.py" in alpha
    assert RELEASE in text


def test_questions_are_not_put_into_the_papers_mouth() -> None:
    """What readers ask is told as asked: neither the number nor the sentence is the paper's."""
    found = summary.summarise(registry.load_registry(CLAIMS), REPORTS)
    told = {claim["id"]: claim for claim in found["claims"]}
    assert "where the question says > 10.8" in told["runner-up-gap"]["reason"]
    assert "+135,616 from the expected 60,965,224" in told["other-alexnets"]["reason"]
    for claim in found["claims"]:
        if not claim["statements"]:
            assert "the published" not in claim["reason"]


def test_the_first_run_of_a_newcomer_is_told_at_the_top(tmp_path: Path, claim: spec.Claim) -> None:
    """A page of synthetic pictures alone says so, with the way to what was run, and nothing of what has no chance."""
    made_up.condition(tmp_path, claim, "smoke", {"relu": [6.0, 6.1], "tanh": [9.0, 9.1]})
    top = rendered(tmp_path, claim).split('id="verdicts">')[0]
    assert 'says nothing about the paper: <a href="#relu-speedup-smoke">' in top
    assert "SMOKE_OK" in top
    assert "does not depend on chance" not in top


def test_what_has_no_result_is_told_at_the_top(filled: Path, claim: spec.Claim) -> None:
    """A condition that was begun and not finished is in the heading, and its row has neither an empty value nor n."""
    notes.add_look(filled, claim.id, "cifar10-18pct", (0, 1))
    text = rendered(filled, claim)
    assert "Begun, but without a result, because a trial failed or is missing: " in text.split('id="verdicts">')[0]
    row = text.split('<table class="cards" id="overview"')[1].split("</table>")[0]
    assert "not complete, missing" in row
    assert "()" not in row


@pytest.mark.parametrize(
    ("names", "same"),
    [(("cifar10-19pct", "cifar10-modern-19pct"), True), (("cifar10-19pct", "cifar10-modern-18pct"), False)],
)
def test_recipes_are_held_responsible_where_nothing_else_differs(
    tmp_path: Path, claim: spec.Claim, names: tuple[str, str], same: bool
) -> None:  # fmt: skip
    """Two conditions of one net and data, of another recipe and outcome: it is said; not of two nets."""
    for name, slower in zip(names, (36.0, 7.0), strict=True):
        times = {"relu": [6.0, 6.1, 5.9, 6.0, 6.05], "tanh": [slower + x / 10 for x in range(5)]}
        made_up.condition(tmp_path, claim, name, times)
    assert ("the recipe makes the difference" in rendered(tmp_path, claim)) is same


def test_tested_claims_come_first(filled: Path) -> None:
    """The table's first row says something; each row knows its place in the paper's order."""
    text = rendered(filled, *registry.load_registry(CLAIMS).values())
    rows = re.findall(r'<tr role="row" data-place="(\d+)".*data-outcome="([A-Z_]+)" data-id="([a-z0-9-]+)"', text)
    assert rows[0][1:] == ("REPRODUCED", "relu-speedup")
    assert {outcome for _, outcome, _ in rows[1:]} == {"NOT_TESTED"}
    assert [id_ for *_, id_ in sorted(rows)] == list(registry.load_registry(CLAIMS))


def test_a_record_that_nothing_asks_for_is_told(filled: Path, claim: spec.Claim) -> None:
    stray = store.TrialSpec(experiment="epochs-to", numerics=1, config={"net": "18pct"}, seed=99)
    trial = Trial(spec=stray, data_digest="d", status="completed")
    store.save(filled, trial)
    assert f'no longer asked for by any claim: <a href="trials/{trial.identity}' in rendered(filled, claim)


def test_text_of_specs_is_escaped(filled: Path, claim: spec.Claim) -> None:
    """A title, a reason and a message that hold markup are shown as text, in the page and in the figures' labels."""
    bad = "<script>alert('x')</script> & \"[bold]\" <img src=x onerror=alert(1)>"
    nasty = claim.model_copy(
        update={"title": bad, "source": claim.source.model_copy(update={"text": bad}),
                "expect": tuple(e.model_copy(update={"because": bad}) for e in claim.expect)}
    )  # fmt: skip
    text = rendered(filled, nasty)
    assert len(re.findall("<script", text)) == 1
    assert not re.search(r"<img src=x", text)
    assert text.count("&lt;script&gt;") >= 4
    parsed(text)


def test_records_are_linked_where_they_lie(filled: Path, claim: spec.Claim) -> None:
    """A page in the store links to the raw records; one elsewhere names them."""
    assert 'href="trials/' in rendered(filled, claim)
    away = rendered(filled, claim, linked=False)
    assert "trials/" not in away
    digest = summary.summarise({claim.id: claim}, filled)["claims"][0]["conditions"][0]["trials"][0]["digest"]
    assert digest in away


def test_the_command_knows_where_the_page_lies(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`report --html` links to records only from the store's own folder."""
    for folder, linked in ((filled, True), (tmp_path_factory.mktemp("elsewhere"), False)):
        arguments = ["report", "--store", str(filled), "--html", str(folder / "page.html")]
        assert CliRunner().invoke(cli.main, arguments).exit_code == 0
        assert ('href="trials/' in (folder / "page.html").read_text()) is linked


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """With no record at all the page has every claim, and says of each figure and table that nothing was run."""
    found = registry.load_registry(CLAIMS)
    text = page.render(summary.summarise(found, tmp_path), tmp_path)
    parsed(text)
    assert all(f'<h3 id="{id_}">' in text for id_ in found)
    assert f"0 of {len(found)} claims tested" in text
    for said in (
        "no network of ours to look into",
        "Not counted yet",
        "No claim about speed has been measured",
        "has been timed yet",
    ):
        assert said in text
    assert "<svg" not in text


def test_what_cannot_be_run_has_no_command(tmp_path: Path) -> None:
    """A claim whose data are not public says so, and names no command that would only say it again."""
    claims = [registry.load_claim(CLAIMS / f"{id_}.toml") for id_ in ("imagenet-2009-error", "lrn-error")]
    text = rendered(tmp_path, *claims)
    assert text.count("To run it:") == 1
    assert "repro run claim lrn-error --condition ilsvrc-2012" in text
    assert "repro run claim imagenet-2009-error" not in text
    assert text.count('<details class="folded">') == 2


def test_conditions_not_finished_have_a_row_in_the_forest(filled: Path, claim: spec.Claim) -> None:
    """The forest names every condition that is measured, those without an estimate too, and never the smoke one."""
    text = rendered(filled, claim)
    label = re.search(r'aria-label="(ReLU reaches[^"]*our estimates[^"]*)"', text)
    assert label is not None
    for name in claim.conditions:
        assert (f"{name}: not run yet" in label[1]) is (name not in ("cifar10", "smoke"))
    assert "cifar10, decides (n = 5 + 5): 6.01" in label[1]


def test_networks_called_alexnet_stand_side_by_side() -> None:
    """The committed counts of every preset are in one table, each with its difference from the network of 2012."""
    text = rendered(REPORTS, *(registry.load_claim(CLAIMS / f"{i}.toml") for i in ("parameters", "other-alexnets")))
    table = text.split('<h2 id="alexnets">')[1].split("</table>")[0]
    assert re.findall(r'<th scope="row">([^<]*)', table) == [
        "the network of 2012", "torchvision", "bvlc-alexnet", "caffenet", "batch-norm-clone",
    ]  # fmt: skip
    assert "60,965,224" in table
    assert "61,100,840 (+0.2%)" in table


def test_the_speed_of_2012_stands_beside_its_floor() -> None:
    """The paper's own numbers give its speed; ours is said to be not measured where no trial timed it."""
    text = rendered(REPORTS, registry.load_claim(CLAIMS / "parameters.toml"))
    part = text.split('<h2 id="speed">')[1].split("</section>")[0]
    assert "227 images/s" in part
    assert "1.31 ms (30% of peak)" in part
    assert "No claim about speed has been measured" in part


def test_kernels_and_neighbours_are_shown(tmp_path: Path) -> None:
    """A network that was looked into is shown: kernels, colour by tower, answers, neighbours, and what trained it."""
    claim = registry.load_claim(CLAIMS / "colour-towers.toml")
    digest = looked_into(tmp_path, claim, pictures=True)
    text = rendered(tmp_path, claim)
    parsed(text)
    part = text.split('<h2 id="figures">')[1].split("</section>")[0]
    fold = part.split('<details class="folded"><summary>')[1]
    assert fold.startswith("Figures 3 and 4 are from synthetic pictures")
    assert 'id="figure-3"' in fold.split("</details>")[0]
    assert "0% is colour in the first tower and 100% in the second; n = 1 network" in part
    assert "the 32 kernels of 5 × 5" in part
    assert "trained for 1 epoch on <code>embedded</code>" in part
    assert digest in part
    assert part.count("<img") == 8 + 5 * 7
    assert "&lt;b&gt;disc&lt;/b&gt;" in part
    assert "<b>" not in part


def test_without_pictures_classes_stand_in_their_place(tmp_path: Path) -> None:
    """Committed records have no pictures of a data set; the page says so, and names the classes."""
    claim = registry.load_claim(CLAIMS / "colour-towers.toml")
    looked_into(tmp_path, claim, pictures=False)
    part = rendered(tmp_path, claim).split('<h2 id="figures">')[1].split("</section>")[0]
    assert "<img" not in part
    assert "The pictures are not shown here, as they belong to the data set" in part
    assert part.count("star") > 8


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x00" * 50], ids=["empty", "torn", "zeros"])
def test_a_damaged_look_is_named(tmp_path: Path, content: bytes) -> None:
    """A file that cannot be read is one clear line with its path, not a traceback and not a page without figures."""
    claim = registry.load_claim(CLAIMS / "colour-towers.toml")
    digest = looked_into(tmp_path, claim, pictures=False)
    (store.folder(tmp_path, digest) / "looked.npz").write_bytes(content)
    with pytest.raises(StoreError, match=r"looked\.npz"):
        rendered(tmp_path, claim)


def test_a_look_runs_no_code(tmp_path: Path) -> None:
    """An archive that holds pickled objects is refused, not opened."""
    claim = registry.load_claim(CLAIMS / "colour-towers.toml")
    digest = looked_into(tmp_path, claim, pictures=False)
    np.savez_compressed(store.folder(tmp_path, digest) / "looked.npz", kernels=np.array([{"a": 1}], dtype=object))
    with pytest.raises(StoreError, match="pickle"):
        rendered(tmp_path, claim)


def test_changes_are_told_on_the_page(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With an older report named, the page has what changed since."""
    saved = tmp_path_factory.mktemp("old") / "old.json"
    (filled / "none").mkdir()
    result = CliRunner().invoke(cli.main, ["report", "--json", "--store", str(filled / "none")])
    saved.write_text(result.output)
    arguments = ["report", "--store", str(filled), "--html", str(saved.with_name("p.html")), "--against", str(saved)]
    assert CliRunner().invoke(cli.main, arguments).exit_code == 0
    part = saved.with_name("p.html").read_text().split('<h2 id="changes">')[1].split("</section>")[0]
    assert "1 of " in part
    assert re.search(r"relu-speedup</th><td>cifar10 .*NOT_TESTED.*REPRODUCED", part)
    assert json.loads(result.output)["schema"] == 1


def test_the_committed_page_is_of_the_committed_records() -> None:
    """reports/index.html holds the digest of the records beside it, and all its links lead somewhere; `make page`."""
    text = (REPORTS / "index.html").read_text()
    assert f'<meta name="evidence-digest" content="{store.evidence_digest(REPORTS)}">' in text
    links = set(re.findall(r'href="(trials/[^"]+)"', text))
    assert links
    assert all((REPORTS / link).is_file() for link in links)
    found = summary.summarise(registry.load_registry(CLAIMS), REPORTS)
    assert f'<p class="counts">{sections.tested(found)} ' in text
    for b in [one for which in (True, False) for one in sections.measured(found, headline=which)]:
        assert f'{tables.value(b["estimate"])}</strong> <span class="soft">({page._spread(b["estimate"])}' in text


def test_the_picture_is_of_the_committed_records() -> None:
    """docs/report.png carries the digest of the evidence it shows; `python tests/picture.py` takes it again."""
    picture = pytest.importorskip("picture", reason="Pillow is not installed")
    assert picture.digest() == store.evidence_digest(REPORTS)
