"""What was fixed when a claim was first run: a band or a headline that is changed afterwards is shown as changed.

    STORE/bands/<claim>.json    the claim's expectations: a version from each run that found them changed, oldest first

They are fixed before running, and the first run under a store writes them down. If the claim file says something else
later, the verdict follows the file, and a line reports what the file said before.
"""

from collections.abc import Sequence
from pathlib import Path

from repro import notes
from repro.spec import Claim, Expectation, band_text, name_text, published_text
from repro.store import own

HEADLINE = "the headline"
SCALE = "the scale of the headline"
OBSTACLE = "the obstacle to the headline"
REASON = "the reason of "
BETTER = "the better side of "


class Bands(notes.Note):
    """A claim's expectations in words, by name: one version each time they were found changed, oldest first."""

    versions: tuple[dict[str, str], ...]


def now(claim: Claim) -> dict[str, str]:
    """Return what a claim file expects now, in words, by name: each band and what it hangs on, and the headline."""
    headline = claim.conditions[claim.headline]
    reasons = {REASON + _name(e): e.because for e in claim.expect}
    sides = {BETTER + _name(e): e.better or "neither" for e in claim.expect}
    decides = {HEADLINE: claim.headline, SCALE: headline.scale, OBSTACLE: headline.blocked or "none"}
    return {_name(e): _words(e) for e in claim.expect} | reasons | sides | decides


def _name(e: Expectation) -> str:
    return name_text(e) + (f" under {', '.join(e.conditions)}" if e.conditions else "")


def _words(e: Expectation) -> str:
    none = "" if e.null is None else f", no effect at {e.null:g}"
    return f"{band_text(e)} for a published {published_text(e)}{none}"


def note(root: Path, claim: Claim) -> None:
    """Write down what a claim expects, unless that is what was written last. Raises StoreError."""
    versions = load(root, claim.id)
    if versions and versions[-1] == now(claim):
        return
    add(root, claim.id, [now(claim)])


def add(root: Path, claim: str, versions: Sequence[dict[str, str]]) -> None:
    """Append versions to those on record, without repeating any that these already end with. Raises StoreError."""
    with notes.noting(root):
        _append(root, claim, load(root, claim), tuple(versions))


def merge(root: Path, claim: str, versions: Sequence[dict[str, str]]) -> None:
    """Append another store's versions, less those of which this store is a copy, or it of this. Raises StoreError."""
    with notes.noting(root):
        found, given = load(root, claim), tuple(versions)
        if any(found[n : n + len(given)] == given for n in range(len(found))):
            return
        shared = next((n for n, pair in enumerate(zip(found, given, strict=False)) if pair[0] != pair[1]), len(found))
        _append(root, claim, found, given[shared:])


def _append(root: Path, claim: str, found: tuple[dict[str, str], ...], given: tuple[dict[str, str], ...]) -> None:
    shared = next(n for n in range(min(len(found), len(given)), -1, -1) if found[len(found) - n :] == given[:n])
    notes.write(_path(root, claim), Bands(claim=claim, versions=found + given[shared:]))


def claims(root: Path) -> list[str]:
    """Return the ids of the claims on record, sorted. Raises StoreError where ``bands`` is not a folder."""
    return sorted(path.stem for path in own(root, "bands").glob("*.json"))


def load(root: Path, claim: str) -> tuple[dict[str, str], ...]:
    """Return the versions on record for a claim, oldest first; empty where there are none. Raises StoreError."""
    try:
        return notes.read(_path(root, claim), Bands, "record of bands", "what was expected at the first run").versions
    except FileNotFoundError:
        return ()


def _path(root: Path, claim: str) -> Path:
    return own(root, "bands", f"{claim}.json")


def changed(root: Path, claim: Claim) -> list[str]:
    """Return a line for each expectation that is not what it was when the claim was first run. Raises StoreError.

    What is no band is compared with the first version that has it: older stores recorded only bands.
    """
    versions = load(root, claim.id)
    if not versions:
        return []
    first, is_ = versions[0], now(claim)
    was = {name: told for version in reversed(versions) for name, told in version.items() if _beside(name)} | first
    moved = [name for name in is_ if was.get(name, is_[name]) != is_[name]]
    lines = [
        f"{'' if _beside(n) else 'band '}changed since the first run: {n} was {was[n]}, is {is_[n]}" for n in moved
    ]
    lines += [f"expected since the first run: {n}, {is_[n]}" for n in is_ if n not in first and not _beside(n)]
    lines += [
        f"no longer expected since the first run: {n}, {was[n]}" for n in first if n not in is_ and not _beside(n)
    ]
    return lines


def _beside(name: str) -> bool:
    """Whether a name stands for something that is no band."""
    return name in (HEADLINE, SCALE, OBSTACLE) or name.startswith((REASON, BETTER))
