"""Files of a store: written whole or not at all, never read through a link, with a checksum that shows damage.

A process may die at any instruction, and a disk may return other bits than were written to it. So a file is written
beside its place and then moved there, and one that holds results ends with a checksum of its content.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from repro.problem import Problem

SETTLED_S = 2.0
"""Seconds after which a file's times show any further change to it: well over the tick of a file system's clock."""

_SUM = re.compile(rb',\n "sum": "([0-9a-f]{64})"\n?}\s*')


class StoreError(Problem):
    """The store cannot be read or written; the message names the path and says what to do."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all, also through a crash. Raises StoreError."""
    part = path.parent / f".{path.name}.{os.getpid()}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with part.open("xb") as file:  # never through a link that somebody put there
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            part.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {_told(error)}; nothing finished was lost") from error


def sync_folder(path: Path) -> None:
    """Flush the entries of the folder ``path`` to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(path: Path | str) -> bytes:
    """Return the bytes of a regular file. Raises OSError, also for a link, which may lead out of the store."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe is not waited for
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        parts, left = [], about.st_size
        while left > 0 and (part := os.read(handle, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(handle)


def set_aside(path: Path) -> Path:
    """Move a damaged file aside; return its new path, ``NAME.bad`` or ``NAME.bad.2`` and so on; raises StoreError."""
    aside = path.with_name(f"{path.name}.bad")
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.bad.{number}")
    try:
        path.rename(aside)
    except OSError as error:
        raise StoreError(f"cannot set {path}, which is damaged, aside: {_told(error)}") from error
    return aside


def sealed(text: str) -> bytes:
    """Return a JSON object with the sha256 of its text as its last key, ``sum``; ``text`` ends with a brace."""
    body = text.rstrip().removesuffix("}").rstrip().encode()
    return body + f',\n "sum": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def unsealed(content: bytes) -> bytes:
    """Return the JSON object that ``sealed`` was given. Raises ValueError where its sum does not match its content.

    Content without a sum was written before there were sums, and is returned as it is.
    """
    found = _SUM.fullmatch(content, at) if (at := content.rfind(b',\n "sum": "')) >= 0 else None
    if found is None:
        return content
    if hashlib.sha256(content[:at]).hexdigest().encode() != found[1]:
        raise ValueError("its sum is not that of its content: damaged or edited")
    return content[:at] + b"\n}"


@contextlib.contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock at ``path`` for this process; yields False where another holds it, unless told to ``wait``.

    The lock is the kernel's, which frees it when its process dies. Raises StoreError where no lock can be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot write {path}: {_told(error)}; pass --store DIR to use another folder") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            raise StoreError(f"cannot lock {path}: {_told(error)}; pass --store DIR on a disk with locks") from error
        yield True
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in ``folder``, whose lock this process holds."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            part.unlink()


def _told(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
