"""The list of a store: after a change only what changed is read again, and damage is told as a report tells it."""

import collections
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import pytest
from click.testing import CliRunner

from repro import experiments, files, marks, notes, registry, store
from repro.cli import main
from repro.report import index, listing, summary
from repro.store import Measurement, Trial, TrialSpec

CLAIM = registry.load_claim(made_up.CLAIMS / "parameters.toml")
TRIAL = Trial(
    spec=TrialSpec(experiment="epochs-to", numerics=1, config={"net": "19pct", "rate": 0.02}, seed=3),
    data_digest="md5:0", status="completed", measurements=(Measurement(name="epochs-to", value=7.5, unit="epochs"),),
)  # fmt: skip


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of one claim, in a home of its own, where the times of files tell every change at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "SETTLED_S", -3600.0)
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "parameters.toml").write_bytes((made_up.CLAIMS / "parameters.toml").read_bytes())
    return tmp_path / "claims"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A store with the one trial that the claim asks for, and nine that nobody asks for."""
    root = tmp_path / "runs"
    store.save(root, counted(60_965_224.0))
    for seed in range(9):
        store.save(root, TRIAL.model_copy(update={"spec": TRIAL.spec.model_copy(update={"seed": seed})}))
    notes.add_look(root, CLAIM.id, CLAIM.headline, (0,))
    return root


def counted(value: float, data: str = "none") -> Trial:
    """The trial that the claim asks for, come to a value."""
    arm, p = next(iter(CLAIM.conditions[CLAIM.headline].arms.items()))
    spec = experiments.get(CLAIM.experiment).spec(p, 0)
    assert arm
    made = Measurement(name="parameters", value=value, unit="parameters")
    return Trial(spec=spec, data_digest=data, status="completed", measurements=(made,))


def path_of(root: Path, trial: Trial) -> Path:
    return store.folder(root, trial.identity) / "record.json"


def read_during(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What ``work`` returns, and the names of the trials whose records it reads, one for each reading."""
    opened: list[str] = []
    real = files.read

    def read(path: Path | str) -> bytes:
        path = Path(path)
        if path.name == "record.json":
            opened.append(path.parent.name)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "read", read)
        return work(), sorted(opened)


def test_after_a_change_only_what_changed_is_read(claims: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First every record, for its key; an unchanged store none; then the changed one, and what a verdict rests on."""
    asked = counted(0.0).identity
    everything = sorted([*(path.name for path in (runs / "trials").iterdir()), asked])
    first, opened = read_during(monkeypatch, lambda: listing.rows(claims, runs))
    assert (first.rows[0].outcome, first.problems, opened) == ("REPRODUCED", [], everything)
    again, opened = read_during(monkeypatch, lambda: listing.rows(claims, runs))
    assert (again, opened) == (first, [])
    other = TRIAL.model_copy(update={"message": "written again"})
    store.save(runs, other)
    again, opened = read_during(monkeypatch, lambda: listing.rows(claims, runs))
    assert (again, opened) == (first, sorted([other.identity, asked]))
    store.save(runs, counted(1.0))
    again, opened = read_during(monkeypatch, lambda: listing.rows(claims, runs))
    assert (again.rows[0].outcome, opened) == ("NOT_REPRODUCED", [asked, asked])


def test_an_edit_that_the_times_hide_is_seen_where_it_counts(claims: Path, runs: Path) -> None:
    """Of a record that a verdict rests on no number is kept: it is read again whenever anything changed."""
    listing.rows(claims, runs)
    kept = next((claims.parent / "cache" / "repro").glob("keys-*.json"))
    known = json.loads(kept.read_bytes())
    path = path_of(runs, counted(0.0))
    path.write_bytes(path.read_bytes().replace(b"60965224", b"11111111"))
    known.pop("sum")
    same = marks.of_records(runs)[store.place(runs, path.parent.name)]
    known[path.parent.name][0] = same  # as if nothing had happened
    kept.write_bytes(files.sealed(json.dumps(known)))
    found = listing.rows(claims, runs)
    assert found.rows[0].outcome == "ERROR"
    assert "its sum is not that of its content" in found.problems[0]


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "torn": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "altered": lambda path: path.write_bytes(path.read_bytes().replace(b"completed", b"diverged")),
    "foreign": lambda path: path.write_bytes(b"GIF89a"),
    "another's": lambda path: path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 1')),
    "a later schema": lambda path: path.write_bytes(files.unsealed(path.read_bytes()).replace(b'a": 1', b'a": 2')),
    "a link": lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "in a linked folder": lambda path: (
        path.parent.rename(path.parents[2] / "away"), path.parent.symlink_to(path.parents[2] / "away")
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("listed", [False, True])
def test_damage_is_told_as_a_report_tells_it(claims: Path, runs: Path, kind: str, listed: bool) -> None:
    """Also where the record was whole when the store was listed before, and once more while nothing changes."""
    if listed:
        assert listing.rows(claims, runs).problems == []
    DAMAGE[kind](path_of(runs, counted(0.0)))
    found = listing.rows(claims, runs)
    report = summary.summarise({CLAIM.id: CLAIM}, runs)
    assert found.problems == report["problems"] != []
    assert found.rows[0].outcome == report["claims"][0]["outcome"] == "ERROR"
    assert listing.rows(claims, runs) == found


def test_a_list_says_what_a_report_says(claims: Path) -> None:
    """Of the committed records every headline has the same outcome, first and from what was kept."""
    report = summary.summarise(registry.load_registry(made_up.CLAIMS), made_up.REPORTS)
    expected = {claim["id"]: claim["outcome"] for claim in report["claims"]}
    for _ in range(2):
        found = listing.rows(made_up.CLAIMS, made_up.REPORTS)
        assert {row.id: row.outcome for row in found.rows} == expected
    assert len(set(expected.values())) > 2


def test_the_same_trial_on_unlike_data_is_no_verdict(claims: Path, runs: Path) -> None:
    """Records that answer one spec from two data sets are told apart without reading the rest."""
    store.save(runs, counted(60_965_224.0, data="md5:1"))
    report = summary.summarise({CLAIM.id: CLAIM}, runs)["claims"][0]
    assert "different data" in report["reason"]
    assert listing.rows(claims, runs).rows[0].outcome == report["outcome"] == "ERROR"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"key": 1}', b"\xff", b"[" * 100_000])
def test_what_was_kept_and_is_damaged_is_not_used(claims: Path, runs: Path, content: bytes) -> None:
    """A cache that does not fit its sum is worked out again, and replaced."""
    first = listing.rows(claims, runs)
    kept = sorted((claims.parent / "cache" / "repro").iterdir())
    assert [path.name.split("-")[0] for path in kept] == ["keys", "list"]
    for path in kept:
        path.write_bytes(content)
    assert listing.rows(claims, runs) == first
    assert all(files.unsealed(path.read_bytes()) != path.read_bytes() for path in kept)


def test_a_stamp_changes_with_any_record(tmp_path: Path) -> None:
    """Added, rewritten, edited in place within the tick of a clock, removed: each gives another stamp."""

    def stamp() -> str:
        return index.stamp(tmp_path, marks.of_records(tmp_path))

    stamps = [stamp()]
    store.save(tmp_path, TRIAL)
    path = path_of(tmp_path, TRIAL)
    stamps += [stamp()]
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"7.5", b"7.4"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    stamps += [stamp()]
    notes.add_look(tmp_path, "claim", "smoke", (0,))
    stamps += [stamp()]
    path.unlink()
    stamps += [stamp()]
    assert len(set(stamps)) == 5


def test_a_young_record_is_marked_by_its_content(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its times may not tell a change yet, two contents have two marks; where they do, times alone count."""
    path = path_of(runs, TRIAL)
    before, real = path.stat(), os.stat
    found = []
    for settled in (3600.0, -3600.0):
        monkeypatch.setattr(files, "SETTLED_S", settled)
        for old, new in ((b"7.5", b"7.6"), (b"7.6", b"7.5")):
            path.write_bytes(path.read_bytes().replace(old, new))
            with monkeypatch.context() as patch:
                patch.setattr(os, "stat", lambda at, **how: before if path == Path(at) else real(at, **how))
                found.append(marks.of_records(runs)[store.place(runs, path.parent.name)])
    assert found[0] != found[1]
    assert found[2] == found[3] == found[0].rpartition(" ")[0]


@pytest.mark.parametrize("columns", [66, 80, 100, 119, 120, 140, 4000])
def test_no_word_of_the_list_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: int) -> None:
    """Every id, verdict and word of a title is whole, and the less asked for columns give way where it is narrow."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", str(columns))
    (tmp_path / "runs").mkdir()
    lines = CliRunner().invoke(main, ["list", "--store", str(tmp_path / "runs")]).stdout.splitlines()
    assert max(map(len, lines)) <= columns
    names = [name for name in listing.FIELDS if name in "\n".join(lines[:3])]
    assert ("experiment" in names) == ("needs" in names) == (columns >= 120)
    assert ("§" in names) == (columns >= 100)
    shown = collections.Counter(" ".join(lines).split())
    claims = registry.load_registry(made_up.CLAIMS)
    assert all(shown[claim.id] for claim in claims.values())
    assert collections.Counter(word for claim in claims.values() for word in claim.title.split()) <= shown
    assert shown["NOT_TESTED"] == len(claims)


@pytest.mark.parametrize(("width", "shown"), [(99, 3), (100, 4), (119, 4), (120, 6)])
def test_a_list_that_would_fit_is_given_room_all_the_same(width: int, shown: int) -> None:
    """Where it is narrow the title has the room, also of claims with short names."""
    row = listing.Row("one", "3", "count", "nothing", "REPRODUCED", "A title")
    assert len(listing.table([row], width).columns) == shown


def test_the_command_tells_what_it_does_not_use(claims: Path, runs: Path) -> None:
    """One line on stderr for each file, the table on stdout."""
    DAMAGE["torn"](path_of(runs, TRIAL))
    (runs / "plans" / "parameters.static.json").write_bytes(b"torn")
    result = CliRunner().invoke(main, ["list", "--claims", str(claims), "--store", str(runs)])
    assert result.exit_code == 0
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [["repro", "not used"]] * 2
    assert "ERROR" in result.stdout  # nobody can tell the looks
