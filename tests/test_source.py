"""Which commit a record was made by: told by a checkout, by an export of one, or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from repro import source

ASK = "from repro import source; print(*source.commit(), source.code_digest())"


@pytest.fixture
def checkout(tmp_path):
    """Return a checkout of a small project that has this package's source, in one commit."""
    root = tmp_path / "checkout"
    (root / "repro").mkdir(parents=True)
    for path in ("repro/__init__.py", "repro/problem.py", "repro/source.py", ".commit", ".gitattributes"):
        (root / path).write_bytes((source.ROOT / path).read_bytes())
    (root / "repro" / "bench.py").write_text("# sorts before the folder of the like name\n")
    (root / "repro" / "bench").mkdir()
    (root / "repro" / "bench" / "__init__.py").touch()
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "one")
    return root


def git(root, *arguments):
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True).stdout


def ask(root, code=ASK):
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.split()


def exported(checkout, tmp_path):
    root = tmp_path / "exported"
    root.mkdir()
    (tmp_path / "all.tar").write_bytes(git(checkout, "archive", "HEAD"))
    subprocess.run(["tar", "-xf", str(tmp_path / "all.tar"), "-C", str(root)], check=True)
    return root


def test_a_checkout_knows_its_commit_and_whether_it_was_changed(checkout):
    head = git(checkout, "rev-parse", "HEAD").decode().strip()
    assert ask(checkout)[:2] == [head, "False"]
    (checkout / "repro" / "problem.py").write_text("")
    assert ask(checkout)[:2] == [head, "True"]


def test_an_export_knows_its_commit_only(checkout, tmp_path):
    """And a copy of the files that git did not export knows nothing."""
    head = git(checkout, "rev-parse", "HEAD").decode().strip()
    root = exported(checkout, tmp_path)
    assert ask(root)[:2] == [head, "None"]
    (root / ".commit").write_bytes((checkout / ".commit").read_bytes())
    assert ask(root)[:2] == ["None", "None"]


def test_an_export_is_held_against_its_commit(checkout, tmp_path):
    """Its records are clean where the digest of its source is the commit's, and never once a line was changed."""
    root = exported(checkout, tmp_path)
    judge = "from repro import source; print(source.clean({!r}, None, {!r}))".format
    commit, _, digest = ask(root)
    assert ask(checkout, judge(commit, digest)) == ["True"]
    assert ask(root, judge(commit, digest)) == ["False"]  # without the history nobody can tell
    (root / "repro" / "problem.py").write_text("")
    commit, _, digest = ask(root)
    assert ask(checkout, judge(commit, digest)) == ["False"]


@pytest.mark.parametrize(
    ("record", "is_clean"),
    [
        (("a" * 40, False, "b"), True), (("a" * 40, True, "b"), False), ((None, None, "b"), False),
        (("a" * 40, None, "b"), False), (("a" * 40, None, None), False), ((None, None, None), False),
    ],
)  # fmt: skip
def test_a_record_says_itself_whether_it_is_clean_or_is_held_against_a_commit(record, is_clean):
    assert source.clean(*record) is is_clean


def test_the_digest_is_of_this_source(tmp_path):
    """A copy with one byte more is another program."""
    copy = tmp_path / "repro"
    copy.mkdir()
    for path in source.PACKAGE.rglob("*.py"):
        target = copy / path.relative_to(source.PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert ask(tmp_path)[2] == source.code_digest()
    with Path(copy / "paper.py").open("a") as file:
        file.write("\n")
    assert ask(tmp_path)[2] != source.code_digest()
