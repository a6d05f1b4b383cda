"""Data from others stays data: nothing in it runs, no path leaves its folder, and nothing is fetched unasked."""

import ast
import io
import json
import os
import pickle
import socket
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import repro
from repro import files, notes, publishing, store
from repro.cli import main
from repro.data import DataError
from repro.data.labels import listing
from repro.files import StoreError
from repro.folders import default_claims
from repro.registry import load_claim
from repro.spec import SpecError
from repro.store import Trial, TrialSpec
from repro.training import checkpoint

PACKAGE = Path(repro.__file__).parent
TEMPLATE = (default_claims() / "TEMPLATE.toml").read_text(encoding="utf-8")
TRIAL = Trial(spec=TrialSpec(experiment="count", numerics=1, config={}, seed=0), data_digest="d", status="completed")


class Payload:
    """Makes a file where it is unpickled by somebody who trusts it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("dressed", [False, True], ids=["bare", "with a sum"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_checkpoint_runs_nothing(tmp_path: Path, form: str, dressed: bool) -> None:
    """A payload in a checkpoint is not run, whatever form and sum it comes with; the file is set aside."""
    path, mark, buffer = tmp_path / "checkpoint.pt", tmp_path / "ran", io.BytesIO()
    payload = {"step": Payload(mark)}
    if form == "pickle":
        pickle.dump(payload, buffer)
    else:
        torch.save(payload, buffer, _use_new_zipfile_serialization=form == "zip")
    content = buffer.getvalue()
    if dressed:
        import hashlib

        content = checkpoint.MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
    path.write_bytes(content)
    assert checkpoint.load(path, torch.device("cpu")) is None
    assert not mark.exists()
    assert path.with_name("checkpoint.pt.bad").exists()
    if form == "pickle" and not dressed:
        pickle.loads(content).get("step").close()  # the payload does work
        assert mark.exists()


BARE = {"eval", "exec", "compile", "__import__"}
DOTTED = {"os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads", "yaml.load", "numpy.load"}
LAST = {"extractall", "extract", "unpack_archive"}


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Return every call of a source file with the name it is written with, dots and all."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def door(name: str, call: ast.Call) -> bool:
    """Whether a call could run what is in a file, or put it where its names say."""
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return (
        name in BARE | DOTTED
        or name.rpartition(".")[2] in LAST
        or (name == "torch.load" and options.get("weights_only") != "True")
        or (name == "np.load" and options.get("allow_pickle", "False") != "False")
        or options.get("shell", "False") != "False"
    )


def test_the_code_has_no_door_for_code() -> None:
    """Nothing is evaluated, unpickled or unpacked; torch loads weights only, numpy no objects, no shell is asked."""
    found = {path: calls(path) for path in PACKAGE.rglob("*.py")}
    assert [f"{path}:{call.lineno}: {name}" for path in found for name, call in found[path] if door(name, call)] == []
    assert {"torch.load", "np.load"} <= {name for path in found for name, _ in found[path]}


@pytest.mark.parametrize("id_", ["../x", "/etc/passwd", "a/b", "a\0b", "..", ".", "", "a" * 300, "x.y", "~x"])
def test_no_id_leaves_its_folder(tmp_path: Path, id_: str) -> None:
    """Ids and names of conditions become parts of paths: those that could lead out are refused, in a file and typed."""
    path = tmp_path / "mine.toml"
    for old, new in (("your-claim-id", id_), ("conditions.smoke]", f"conditions.{json.dumps(id_)}]")):
        text = TEMPLATE.replace(f'"{old}"', json.dumps(new)).replace(old, new)
        path.write_text(text.replace('headline = "smoke"', f"headline = {json.dumps(id_)}"), encoding="utf-8")
        with pytest.raises(SpecError):
            load_claim(path)
    before = sorted(tmp_path.rglob("*"))
    for command in (["show", id_], ["new", id_, "--claims", str(tmp_path)], ["run", "claim", id_]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2, command
        assert isinstance(result.exception, SystemExit)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_path_with_nul_is_told(tmp_path: Path) -> None:
    """What no file system has is one StoreError, for what is read and what is written."""
    root = tmp_path / "a\0b"
    for use in (
        lambda: store.load(root),
        lambda: store.save(root, TRIAL),
        lambda: notes.add_look(root, "claim", "smoke", (0,)),
        lambda: store.locked(root, TRIAL.identity).__enter__(),
    ):
        with pytest.raises(StoreError):
            use()


def test_links_in_a_store_lead_nowhere(tmp_path: Path) -> None:
    """A store from others may hold links: nothing is written, read or emptied through them."""
    root, outside = tmp_path / "runs", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("precious")
    place = store.folder(root, TRIAL.identity)
    place.parent.mkdir(parents=True)

    place.symlink_to(outside)  # a trial's folder
    for write in (
        lambda: store.save(root, TRIAL),
        lambda: store.save_curve(root, TRIAL.identity, [{"epochs": 1.0}]),
        lambda: store.locked(root, TRIAL.identity).__enter__(),
    ):
        with pytest.raises(StoreError, match="is a link"):
            write()
    (outside / "record.json").write_bytes(files.sealed(TRIAL.model_dump_json(indent=1, by_alias=True)))
    assert store.load(root)[0] == []
    assert "is a link" in store.load(root)[1][0]
    place.unlink()

    place.mkdir()  # files of a trial
    for name in ("lock", "record.json", "curve.csv"):
        (place / name).symlink_to(outside / "kept")
    with pytest.raises(StoreError, match="cannot write"), store.locked(root, TRIAL.identity):
        pass
    assert store.load(root)[0] == []
    assert "precious" not in "".join(store.load(root)[1])
    with pytest.raises(StoreError, match=r"curve\.csv"):
        store.load_curve(root, TRIAL.identity)
    (place / f".record.json.{os.getpid()}.part").symlink_to(outside / "kept")  # where it will be made
    store.save(root, TRIAL)
    assert store.load(root) == ([TRIAL], [])

    (root / "plans").symlink_to(outside)
    with pytest.raises(StoreError, match="is a link"):
        notes.add_look(root, "claim", "smoke", (0,))
    assert {path.name: path.read_text() for path in outside.iterdir() if path.name == "kept"} == {"kept": "precious"}
    assert sorted(path.name for path in outside.iterdir()) == ["kept", "record.json"]


def test_a_plan_cannot_name_another_place(tmp_path: Path) -> None:
    """A plan counts only under the name that it gives itself, so no content leads out of plans/."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "a.b.json").write_text('{"claim":"../../x","condition":"b","looks":[[0]]}')
    with pytest.raises(StoreError, match="its content is that of"):
        notes.load_looks(tmp_path)
    store.save(tmp_path, TRIAL)
    with pytest.raises(StoreError, match="its content is that of"):
        publishing.publish(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../../outside.JPEG", "/outside.JPEG"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_an_archive_cannot_lead_out(tmp_path: Path, name: str, kind: str) -> None:
    """Archives are never unpacked, and one with a member that would leave its folder is refused by name."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        member = tarfile.TarInfo(name if kind == "file" else "n1_1.JPEG")
        member.type, member.linkname = (tarfile.REGTYPE, "") if kind == "file" else (tarfile.SYMTYPE, name)
        archive.addfile(member)
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as archive:
        member = tarfile.TarInfo("n1.tar")
        member.size = len(inner.getvalue())
        archive.addfile(member, io.BytesIO(inner.getvalue()))
    with pytest.raises(DataError, match="leads out of its folder; refused"):
        listing(tmp_path)


def test_text_of_claims_and_records_is_never_markup(tmp_path: Path) -> None:
    """A title and a message with a script, a template and a terminal's escape come out as text."""
    evil = "<script>alert(1)</script> {{ 7 * 7 }} {% raw %} [red]x[/red]"
    (tmp_path / "claims").mkdir()
    text = TEMPLATE.replace("your-claim-id", "mine").replace("One line a reader understands", evil)
    (tmp_path / "claims" / "mine.toml").write_text(text, encoding="utf-8")
    claim = load_claim(tmp_path / "claims" / "mine.toml")
    spec = next(p for p in __import__("repro.experiments.epochs_to", fromlist=["x"]).pending(
        claim.conditions["smoke"].arms, (0,), {}
    )).spec  # fmt: skip
    failed = Trial(spec=spec, data_digest="d", status="failed", message=f"\x1b[31m{evil}")
    store.save(tmp_path / "runs", failed)
    where = ["--claims", str(tmp_path / "claims"), "--store", str(tmp_path / "runs")]
    page = tmp_path / "page.html"
    CliRunner().invoke(main, ["report", "--html", str(page), *where])
    html = page.read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert "{{ 7 * 7 }}" in html
    shown = CliRunner().invoke(main, ["show", "mine", *where]).output
    assert "{{ 7 * 7 }}" in shown
    assert "[red]x[/red]" in shown


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Refuse every connection and name look-up, and note them."""
    asked: list[Any] = []

    def refuse(*arguments: Any, **_more: Any) -> None:
        asked.append(arguments)
        raise OSError("no network here")

    for owner, name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
        monkeypatch.setattr(owner, name, refuse)
    return asked


def test_nothing_is_fetched_unasked(tmp_path: Path, offline: list[Any]) -> None:
    """No command opens a connection, also where data is missing; with --download one is tried, and told."""
    here = ["--store", str(tmp_path / "runs")]
    missing = ["run", "claim", "relu-speedup", "--condition", "cifar10", "--data", str(tmp_path), "--device", "cpu"]
    for command in (
        ["list", *here], ["show", "relu-speedup", *here], ["check"], ["run", "claim", "parameters", *here],
        ["report", "--html", str(tmp_path / "page.html"), *here], [*missing, *here],
    ):  # fmt: skip
        CliRunner().invoke(main, command)
        assert offline == [], command
    result = CliRunner().invoke(main, [*missing, *here, "--download"])
    assert offline
    assert result.exit_code == 3
    assert "could not be downloaded" in result.stderr


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    """The report holds all it shows: no address in it is loaded by a browser that opens it."""
    page = tmp_path / "page.html"
    (tmp_path / "runs").mkdir()
    CliRunner().invoke(main, ["report", "--html", str(page), "--store", str(tmp_path / "runs")])
    html = page.read_text(encoding="utf-8").lower()
    for door in ('src="http', "src='http", "src=//", "@import", 'rel="stylesheet"', "url(http"):
        assert door not in html


def test_the_probes_can_fail(tmp_path: Path) -> None:
    """A door in a source file is seen by the test above, and torch's file is a zip that could hold a payload."""
    path = tmp_path / "door.py"
    path.write_text("import torch\ntorch.load('x')\neval('1')\n", encoding="utf-8")
    assert [name for name, call in calls(path) if door(name, call)] == ["torch.load", "eval"]
    buffer = io.BytesIO()
    torch.save({"step": Payload(tmp_path / "ran")}, buffer)
    assert any(name.endswith("data.pkl") for name in zipfile.ZipFile(buffer).namelist())
