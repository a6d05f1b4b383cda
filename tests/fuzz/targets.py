"""What the harness promises about any bytes it may be given: a value or one clear line a fault, and the file named.

Each target takes the bytes of one kind of file and raises AssertionError, or whatever the harness let through, where
the promise is broken.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from repro import files, notes, store
from repro.data import DataError
from repro.data.prepared import Entry, Manifest, read_manifest, write_manifest
from repro.files import StoreError
from repro.folders import default_claims
from repro.problem import Problem
from repro.registry import load_claim
from repro.spec import SpecError
from repro.training import checkpoint

PLACE = Path(tempfile.mkdtemp(prefix="repro-fuzz-"))
REPORTS = default_claims().parent / "reports"
MADE = store.Trial(
    spec=store.TrialSpec(experiment="count", numerics=1, config={"net": "a", "x": [1.5, None, {"y": True}]}, seed=0),
    data_digest="d", status="completed", limit=2.5, message="m", environment={"dirty": False},
    measurements=(store.Measurement(name="parameters", value=6e7, unit="parameters"),),
)  # fmt: skip
IDENTITY = MADE.identity


def _told(error: Problem, start: str, lines: int = 1) -> None:
    """Hold an error to its form: no more than so many lines, each of which begins with the file's name."""
    told = str(error).split("\n")
    assert 1 <= len(told) <= lines
    assert all(line.startswith(start) and line != start for line in told)


def claim(content: bytes) -> None:
    """A claim file loads, or each fault is a line behind the file's name."""
    path = PLACE / "mine.toml"
    path.write_bytes(content)
    try:
        found = load_claim(path)
    except SpecError as error:
        return _told(error, f"{path}: ", lines=1000)
    assert found.id == "mine"
    return None


def record(content: bytes) -> None:
    """A record counts as exactly what its content says, in the folder it names, or is one line behind its name."""
    path = store.folder(PLACE, IDENTITY) / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    trials, problems = store.load(PLACE)
    if trials:
        assert problems == []
        assert trials[0].identity == IDENTITY
        said = json.loads(content)
        kept = json.loads(trials[0].model_dump_json(by_alias=True))
        assert said.keys() - {"sum"} <= kept.keys()
        assert all(kept[key] == value for key, value in said.items() if key in ("status", "spec", "data_digest"))
    else:
        assert len(problems) == 1
        assert problems[0].startswith(f"{path}: ")
        assert "\n" not in problems[0]


def plan(content: bytes) -> None:
    """A plan is read as what it says, or refused in one line that names it."""
    path = PLACE / "plans" / "mine.smoke.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        looks = notes.load_looks(PLACE)
    except StoreError as error:
        return _told(error, f"{path}: ")
    assert list(looks) == [("mine", "smoke")]
    assert json.loads(content)["looks"] == json.loads(json.dumps(looks["mine", "smoke"]))
    return None


def curve(content: bytes) -> None:
    """A curve is rows of numbers, or one line that names it."""
    path = store.folder(PLACE, IDENTITY) / "curve.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        rows = store.load_curve(PLACE, IDENTITY)
    except StoreError as error:
        return _told(error, f"cannot read {path}: ")
    assert all(isinstance(value, float) for row in rows for value in row.values())
    return None


def manifest(content: bytes) -> None:
    """A manifest is whole to its own digest, or one line that names the file; its paths stay in their folder."""
    (PLACE / "manifest.json").write_bytes(content)
    try:
        found = read_manifest(PLACE)
    except DataError as error:
        return _told(error, f"{PLACE / 'manifest.json'} ")
    for path in found.entries:
        assert len(Path(path).parts) == 3
        assert not Path(path).is_absolute()
        assert ".." not in Path(path).parts
    return None


def state(content: bytes) -> None:
    """A checkpoint is a table of states, or is set aside whole; nothing in it runs."""
    place = PLACE / "state"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    path = place / "checkpoint.pt"
    path.write_bytes(content)
    found = checkpoint.load(path, torch.device("cpu"))
    if found is None:
        assert path.with_name("checkpoint.pt.bad").read_bytes() == content
    else:
        assert isinstance(found, dict)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "claim": claim, "record": record, "plan": plan, "curve": curve, "manifest": manifest, "state": state
}  # fmt: skip

NASTY = [
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[]", b"null", b"NaN", b"1e999", b"[" * 100_000, b'{"a":' * 50_000,
    b"9" * 5_000, b'"\\ud800"', b"{}\n{}", b'{"schema": 99}', b'{"schema": null}', b"schema = 1\nschema = 1",
    b"a = " + b"[" * 3_000, b"a" + b".a" * 3_000 + b" = 1", b"PK\x03\x04", b"\x80\x02.", b"x,y\n1,2,3\n", b"x\n1,\n",
]  # fmt: skip
"""What has broken readers of such files, here or elsewhere."""


def corpus(kind: str) -> list[bytes]:
    """Return good files of a kind: the project's own, or made here."""
    if kind == "claim":
        return [path.read_bytes().replace(path.stem.encode(), b"mine", 1) for path in default_claims().glob("*.toml")]
    if kind == "record":
        text = MADE.model_dump_json(indent=1, by_alias=True)
        return [text.encode(), files.sealed(text), *(p.read_bytes() for p in REPORTS.glob("trials/*/record.json"))]
    if kind == "plan":
        text = '{"schema":1,"claim":"mine","condition":"smoke","looks":[[0,1,2],[0,1,2,3,4]]}'
        return [text.encode(), files.sealed(text)]
    if kind == "curve":
        return [path.read_bytes() for path in REPORTS.glob("trials/*/curve.csv")]
    if kind == "manifest":
        entries = {
            f"{split}/{c}/{n}.JPEG": Entry(7, "ab" * 32, 9) for split in ("train", "val") for c in "ab" for n in "12"
        }
        write_manifest(PLACE, Manifest(32, entries, 0))
        return [(PLACE / "manifest.json").read_bytes()]
    path = PLACE / "good.pt"
    state = {
        "model": {"weight": torch.ones(3, 2)},
        "step": 3,
        "curve": [(1, 0.5, 2.0, 1)],
        "rng": torch.get_rng_state(),
    }
    checkpoint.save(path, state)
    content = path.read_bytes()
    return [content, content.partition(b"\n")[2]]
