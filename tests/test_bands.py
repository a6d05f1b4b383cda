"""A band that is moved after a run is shown as moved."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from repro import folders, publishing, registry, store
from repro.cli import main
from repro.files import StoreError
from repro.judging import bands
from repro.store import Trial, TrialSpec

SOURCE = folders.default_claims()
CLAIM = registry.load_claim(SOURCE / "parameters.toml")


@pytest.fixture
def claims(tmp_path):
    """A registry of one claim whose band can be edited."""
    folder = tmp_path / "claims"
    folder.mkdir()
    (folder / "parameters.toml").write_text((SOURCE / "parameters.toml").read_text())
    return folder


@pytest.mark.parametrize(("given", "found"), [("A", "A"), ("AB", "AB"), ("ABA", "ABA"), ("B", "BAB"), ("BC", "ABC")])
def test_what_is_noted_again_is_there_once(tmp_path, given, found):
    """Published twice, or after a further change; what was expected, changed, and is expected again is told thrice."""
    if len(found) > len(given):
        bands.add(tmp_path, "claim", [{"metric": band} for band in found[:2]])
    for _ in range(3):
        bands.add(tmp_path, "claim", [{"metric": band} for band in given])
    assert "".join(version["metric"] for version in bands.load(tmp_path, "claim")) == found


@pytest.mark.parametrize(
    ("found", "given", "merged"),
    [
        ("AB", "A", "AB"),
        ("ABC", "B", "ABC"),
        ("ABA", "AB", "ABA"),
        ("AB", "BC", "ABC"),
        ("A", "BA", "ABA"),
        ("AB", "AC", "ABC"),
        ("ABC", "AC", "ABC"),
        ("ABC", "ABD", "ABCD"),
        ("", "A", "A"),
    ],
)
def test_an_older_copy_adds_nothing_to_what_was_expected(tmp_path, found, given, merged):
    """A store begun from the published one, before that grew, is published: no band is told as if it had returned."""
    for versions, put in ((found, bands.add), (given, bands.merge), (given, bands.merge)):
        put(tmp_path, "claim", tuple({"metric": band} for band in versions))
    assert "".join(version["metric"] for version in bands.load(tmp_path, "claim")) == merged


def test_what_is_noted_at_once_is_all_kept(tmp_path):
    """Processes that note what a claim expects at the same time, by unlike files, do not forget each other's."""
    script = (
        "import sys; from pathlib import Path; from repro.judging import bands\n"
        "for i in range(20): bands.add(Path(sys.argv[1]), 'claim', [{'metric': f'{sys.argv[2]} {i}'}])"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    noted = [version["metric"] for version in bands.load(tmp_path, "claim")]
    assert sorted(noted) == sorted(f"{name} {i}" for name in "ab" for i in range(20))


def _moved(claims, accept):
    path = claims / "parameters.toml"
    text = path.read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("accept"))
    path.write_text(text.replace(line, accept))
    return registry.load_claim(path)


def test_the_first_run_writes_the_band_down_and_a_later_one_does_not_move_it(tmp_path, claims):
    store_ = tmp_path / "runs"
    bands.note(store_, CLAIM)
    bands.note(store_, CLAIM)
    assert bands.load(store_, "parameters") == (bands.now(CLAIM),)
    assert bands.changed(store_, CLAIM) == []
    moved = _moved(claims, "accept = [1.0, 99e6]")
    (told,) = bands.changed(store_, moved)
    assert told.startswith("band changed since the first run: parameters of net was ")
    assert "is 1 to 99,000,000" in told
    bands.note(store_, moved)
    assert len(bands.load(store_, "parameters")) == 2
    assert bands.changed(store_, moved) == [told]


def test_an_expectation_that_came_or_went_is_told(tmp_path):
    none = CLAIM.model_copy(update={"expect": ()})
    bands.note(tmp_path, CLAIM)
    assert bands.changed(tmp_path, none)[0].startswith("no longer expected since the first run: parameters of net")
    bands.note(tmp_path / "other", none)
    assert bands.changed(tmp_path / "other", CLAIM)[0].startswith("expected since the first run: parameters of net")


def test_a_band_edited_on_disk_is_damage_and_no_change_of_mind(tmp_path):
    """Like a record's, its sum says that the file was touched; one from before there were sums is read as it stands."""
    bands.note(tmp_path, CLAIM)
    path = tmp_path / "bands" / "parameters.json"
    whole = path.read_text()
    path.write_text(whole.replace("55,000,000", "50,000,000"))
    with pytest.raises(StoreError, match=r"parameters\.json.*its sum is not that of its content"):
        bands.changed(tmp_path, CLAIM)
    path.write_text(whole.split(',\n "sum"')[0] + "}\n")
    assert bands.changed(tmp_path, CLAIM) == []


def test_a_store_from_before_there_were_bands_says_nothing(tmp_path):
    assert bands.changed(tmp_path, CLAIM) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema":1,"claim":"neurons","versions":[]}', '{"a": 1}'])
def test_a_record_of_bands_that_cannot_be_used_is_one_clear_line(tmp_path, content):
    (tmp_path / "bands").mkdir()
    (tmp_path / "bands" / "parameters.json").write_text(content)
    with pytest.raises(StoreError, match="put a copy back"):
        bands.changed(tmp_path, CLAIM)


def test_publishing_carries_what_was_expected(tmp_path):
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    spec = TrialSpec(experiment="count", numerics=1, config={}, seed=0)
    store.save(runs, Trial(spec=spec, data_digest="d", status="completed", environment={"dirty": False}))
    bands.note(runs, CLAIM)
    publishing.publish(runs, reports)
    assert bands.load(reports, "parameters") == (bands.now(CLAIM),)


def test_a_run_writes_it_and_judge_shows_what_was_moved(tmp_path, claims, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)

    def repro(*args):
        return CliRunner().invoke(main, [*args, "--claims", str(claims)], prog_name="repro")

    assert repro("run", "claim", "parameters").exit_code == 0
    before = repro("judge")
    assert before.exit_code == 0
    assert before.stdout.startswith("REPRODUCED      parameters: ")
    _moved(claims, "accept = [59_500_000, 60_500_000]")
    after = repro("judge", "parameters")
    assert "band changed since the first run: parameters of net was" in after.stdout


@pytest.mark.parametrize("update", [{"scale": "reduced"}, {"scale": "static"}, {"blocked": "not public"}])
def test_a_headline_condition_that_is_changed_is_told(tmp_path, update):
    """Each would soften or hide a verdict: reduced data refute nothing, and what is blocked counts as untested."""
    claim = registry.load_claim(SOURCE / "ilsvrc-2010-error.toml")
    bands.note(tmp_path, claim)
    decides = claim.conditions[claim.headline].model_copy(update=update)
    moved = claim.model_copy(update={"conditions": claim.conditions | {claim.headline: decides}})
    (told,) = bands.changed(tmp_path, moved)
    assert told.endswith(f"is {next(iter(update.values()))}")


@pytest.mark.parametrize(
    ("claim", "update"),
    [
        ("relu-speedup", {"null": 0.5}),
        ("relu-speedup", {"published": {"value": 5.0}}),
        ("ilsvrc-2010-error", {"better": None}),
    ],
)
def test_a_null_a_published_value_or_a_better_side_that_is_changed_is_told(tmp_path, claim, update):
    found = registry.load_claim(SOURCE / f"{claim}.toml")
    bands.note(tmp_path, found)
    expect = tuple(type(e).model_validate({**e.model_dump(by_alias=True), **update}) for e in found.expect)
    assert bands.changed(tmp_path, found.model_copy(update={"expect": expect}))


def test_a_headline_or_a_reason_that_is_changed_is_told(tmp_path):
    """What decides, and why a band is what it is, are fixed as the band is; a store from before is not accused."""
    claim = registry.load_claim(SOURCE / "relu-speedup.toml")
    old = {name: told for name, told in bands.now(claim).items() if not name.startswith("the ")}
    bands.add(tmp_path, claim.id, [old])
    assert bands.changed(tmp_path, claim) == []
    bands.note(tmp_path, claim)
    other = claim.model_copy(
        update={
            "headline": "cifar10-19pct",
            "expect": tuple(e.model_copy(update={"because": "so"}) for e in claim.expect),
        }
    )
    reason, headline = bands.changed(tmp_path, other)
    assert reason.startswith(
        "changed since the first run: the reason of ratio of epochs-to, tanh to relu was one figure"
    )
    assert headline == "changed since the first run: the headline was cifar10, is cifar10-19pct"
    assert bands.changed(tmp_path, claim) == []
