"""Whatever stands in a file that the harness reads: a value or a clear line, never a traceback or a wrong verdict."""

import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fuzz import targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro import files, notes, registry, spec, store
from repro.cli import main
from repro.folders import default_claims
from repro.judging import judge
from repro.report import summary

FEW_OR_MANY = pytest.mark.parametrize("cases", [60, pytest.param(3000, marks=pytest.mark.long)])
EASY = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """What is set aside is told; here thousands are."""
    logger = logging.getLogger("repro")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


@st.composite
def damaged(draw: st.DrawFn, good: list[bytes]) -> bytes:
    """A good file with up to four of: a part cut out, bytes changed, bytes put in, a part of another good file."""
    content = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(1, 4))):
        a, b = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        kind = draw(st.sampled_from(["cut", "put", "splice", "flip"]))
        if kind == "cut":
            content = content[:a] + content[min(b, a + draw(st.integers(1, 64))) :]
        elif kind == "put":
            content = content[:a] + draw(st.binary(max_size=8) | st.sampled_from(targets.NASTY[:10])) + content[a:]
        elif kind == "splice":
            other = draw(st.sampled_from(good))
            content = content[:a] + other[a:b] + content[b:]
        elif content:
            at = min(a, len(content) - 1)
            content = content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]
    return content


@pytest.mark.parametrize("kind", targets.TARGETS)
def test_good_files_are_good_and_nasty_ones_are_told(kind: str) -> None:
    """The corpus itself holds the promise, and so does what has broken such readers before."""
    for content in (*targets.corpus(kind), *targets.NASTY):
        targets.TARGETS[kind](content)


@FEW_OR_MANY
@pytest.mark.parametrize("kind", targets.TARGETS)
def test_damaged_files_are_told(kind: str, cases: int) -> None:
    """However a good file is cut, spliced and overwritten."""

    @settings(max_examples=cases, **EASY)
    @given(damaged(targets.corpus(kind)))
    def holds(content: bytes) -> None:
        targets.TARGETS[kind](content)

    holds()


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *itertools.chain.from_iterable(paths(item, (*at, key)) for key, item in items)]


@FEW_OR_MANY
@pytest.mark.parametrize("kind", ["record", "plan", "manifest"])
def test_other_values_in_a_file_are_told(kind: str, cases: int) -> None:
    """Any value of a JSON file in place of any other, the syntax kept, with and without another key."""
    good = json.loads(targets.corpus(kind)[0])

    @settings(max_examples=cases, **EASY)
    @given(st.sampled_from(paths(good)[1:]), JSON, st.none() | st.text(max_size=6))
    def holds(way: tuple[Any, ...], value: Any, key: str | None) -> None:
        content = json.loads(json.dumps(good))
        inside = content
        for part in way[:-1]:
            inside = inside[part]
        inside[key if key is not None and isinstance(inside, dict) else way[-1]] = value
        targets.TARGETS[kind](json.dumps(content).encode())

    holds()


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, str]:
    """A claim, a store in which it was measured, and its outcome."""
    pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("counted")
    result = CliRunner().invoke(main, ["run", "claim", "parameters", "--store", str(root), "--device", "cpu"])
    assert result.exit_code in (0, 1), result.output
    claim = registry.load_claim(default_claims() / "parameters.toml")
    return claim, root, outcome_of(claim, root)


def outcome_of(claim: spec.Claim, root: Path) -> str:
    """The verdict of a claim from what lies in a store."""
    found = judge.records(*store.stored(root))
    return summary.outcomes({claim.id: claim}, found, notes.load_plans(root))[claim.id]


@FEW_OR_MANY
def test_a_damaged_record_never_gives_another_verdict(counted: tuple[Any, Path, str], cases: int) -> None:
    """A damaged record gives the verdict of the whole one, or none; a damaged plan, too."""
    claim, root, outcome = counted
    assert outcome not in ("NOT_TESTED", "ERROR")
    good = {path: path.read_bytes() for path in (*root.glob("trials/*/record.json"), *root.glob("plans/*.json"))}
    seen = set()

    @settings(max_examples=cases, **EASY)
    @given(st.sampled_from(sorted(good)), st.integers(0, 10**6), st.integers(1, 255))
    def holds(path: Path, at: int, change: int) -> None:
        content = good[path]
        at %= len(content)
        path.write_bytes(content[:at] + bytes([content[at] ^ change]) + content[at + 1 :])
        found = outcome_of(claim, root)
        path.write_bytes(content)
        assert found in (outcome, "NOT_TESTED", "ERROR")
        seen.add(found)

    holds()
    assert seen & {"NOT_TESTED", "ERROR"}  # damage was met


@pytest.mark.parametrize("name", ["record.json", "curve.csv"])
def test_what_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    """A folder, or a pipe that nobody writes to, in a file's place is a line, and is not waited for."""
    import os

    place = store.folder(tmp_path, "0123456789abcdef")
    place.mkdir(parents=True)
    for make in (Path.mkdir, os.mkfifo):
        path = place / name
        make(path)
        if name == "record.json":
            trials, problems = store.load(tmp_path)
            assert trials == []
            assert problems[0].startswith(f"{path}: ")
        else:
            with pytest.raises(files.StoreError, match=r"curve\.csv"):
                store.load_curve(tmp_path, "0123456789abcdef")
        path.rmdir() if path.is_dir() else path.unlink()
