"""The program's own source: its digest and its commit. Records keep both."""

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
EXPORTED = ".commit"
"""The file at the root into which ``git archive`` writes the commit (.gitattributes)."""


@cache
def code_digest() -> str:
    """Return a digest of the package's own Python source, 16 hex digits."""
    return _digest({PurePosixPath(p.relative_to(PACKAGE).as_posix()): p.read_bytes() for p in PACKAGE.rglob("*.py")})


@cache
def digest_at(commit: str) -> str | None:
    """Return the same digest of the package as it was at a commit; None where this checkout lacks that commit."""
    try:
        packed = _git("archive", "--format=tar", commit, PACKAGE.name)
    except (OSError, subprocess.SubprocessError):
        return None
    found = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            content = archive.extractfile(member) if member.isfile() and path.suffix == ".py" else None
            if content is not None:
                found[path.relative_to(PACKAGE.name)] = content.read()
    return _digest(found)


def _digest(files: Mapping[PurePosixPath, bytes]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0".encode() + files[path] + b"\0")
    return digest.hexdigest()[:16]


@cache
def commit() -> tuple[str | None, bool | None]:
    """Return the commit of this source, and whether tracked files differ from it.

    A copy that ``git archive`` made knows its commit, but not whether anybody changed it since: (commit, None). Where
    nothing is known, return (None, None).
    """
    try:
        if Path(_git("rev-parse", "--show-toplevel").decode().strip()).resolve() == ROOT:
            changed = _git("status", "--porcelain", "--untracked-files=no")
            return _git("rev-parse", "HEAD").decode().strip(), bool(changed.strip())
    except (OSError, subprocess.SubprocessError):
        pass  # no git, or no checkout; or an installed package inside somebody else's
    try:
        exported = (ROOT / EXPORTED).read_text().strip()
    except OSError:
        return None, None
    return (exported, None) if len(exported) == 40 else (None, None)


def clean(commit: object, dirty: object, digest: object) -> bool:
    """Whether a record was made by the unchanged source of a commit.

    Either the record says so, or the digest of its source is that of the commit, which this checkout must then have.
    """
    if dirty is None and isinstance(commit, str) and digest is not None:
        return digest_at(commit) == digest
    return dirty is False


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
