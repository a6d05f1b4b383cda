"""From a working store to committed evidence: finished, clean, real-data records, without checkpoints.

What was published stays. Two runs of the same trial, say on two machines, are a replication, but a seed counts once,
and whoever chose between the two would know both results. So the run that was published first counts. Another takes its
place only if it is the same run gone further, or if somebody removes the first, which shows in the history.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

from repro import datasets, files, notes, store
from repro.files import StoreError
from repro.judging import bands
from repro.source import clean
from repro.spec import Claim
from repro.store import Trial

SHOWN = "probe"
"""The experiment whose synthetic trials are published, too: they decide nothing, but the page shows what they saw."""


def publish(source: Path, target: Path, registry: Mapping[str, Claim] = {}) -> tuple[int, list[str]]:
    """Copy what counts as evidence from one store to another; return how many records, and what was left out and why.

    Plans, and what was expected, go with them, also where records are left out: a run that was begun is not hidden.
    Those of a smoke condition of ``registry`` go only where its records are published. The number includes records that
    ``target`` had already. What ``target`` had before is changed only as ``standing`` says. Raises StoreError where
    there is nothing to read or ``target`` cannot be written.
    """
    trials, problems = store.load(source)
    if not trials and not problems:
        raise StoreError(f"{source}: no records here; pass --store DIR")
    plans = notes.load_looks(source)  # first: evidence without its plans is none
    expected = {claim: bands.load(source, claim) for claim in bands.claims(source)}
    shown = {at: looks for at, looks in plans.items() if _published(registry, *at)}
    for (claim, condition), looks in shown.items():  # before the records: without it a verdict is too mild
        for seeds in looks:  # added to those published before: no look is forgotten
            notes.add_look(target, claim, condition, seeds)
    copied, left_out = 0, list(problems)
    for trial in trials:
        published = trial.model_copy(update={"environment": {**trial.environment, "dirty": False}})  # as unfit() finds
        if reason := unfit(trial) or standing(source, target, published):
            left_out.append(f"{trial.identity}: {reason}")
            continue
        same = _there(target, trial.identity) == published
        ours = _synthetic(trial)  # other pictures are not ours to publish
        for name in (n for n in store.RESULTS if n != "record.json" and (ours or n != "pictures.npz")):
            path, to = (store.folder(root, trial.identity) / name for root in (source, target))
            if path.is_file() and not path.is_symlink() and not (same and to.exists()):
                files.write_atomically(to, path.read_bytes())
        store.save(target, published)  # the record last: with it a trial is complete; an old one gets its sum here
        copied += 1
    nothing = {claim for claim, _ in plans} - {claim for claim, _ in shown}
    for claim in expected.keys() - nothing:
        bands.merge(target, claim, expected[claim])
    return copied, left_out


def unfit(trial: Trial) -> str:
    """Return why a trial is not published; empty where it is.

    Evidence is published, and so are the synthetic trials of the experiment SHOWN.
    """
    if trial.status in ("running", "failed"):
        return f"{trial.status}, not finished"
    if _synthetic(trial) and trial.spec.experiment != SHOWN:
        return "measured on synthetic pictures"
    if not clean(*(trial.environment.get(key) for key in ("commit", "dirty", "code_digest"))):
        return "not from a clean commit"
    return ""


def standing(source: Path, target: Path, trial: Trial) -> str:
    """Return why the record that ``target`` has of a finished trial stays; empty where ``trial`` is to be written.

    It is to be written where ``target`` has no finished record, where it has this one, and where it has a censored one
    whose curve is the beginning of this trial's: the same run, gone further.
    """
    anew = f"to take this one instead, {shlex.join(['rm', '-r', str(store.folder(target, trial.identity))])}"
    try:
        there = _there(target, trial.identity)
    except StoreError as error:
        return f"what is there of it stays, though it cannot be used ({error}); {anew}, and publish again"
    if there is None or there.status in ("running", "failed") or there == trial:
        return ""
    ours, theirs = (_curve(root, trial.identity) for root in (source, target))
    if there.status == "censored" and theirs and ours.startswith(theirs):
        return ""
    if trial.status == "censored" and ours and theirs.startswith(ours):
        return "what is there of it is the same run, gone further"
    found = "the same" if there.measurements == trial.measurements else "other"
    return (
        f"another run of it is there and stays, as a seed counts once: {_where(there)}; this one: {_where(trial)}, "
        f"with {found} measurements; {anew} (and the others of its condition: arms must be alike) and publish again"
    )


def _published(registry: Mapping[str, Claim], claim: str, condition: str) -> bool:
    """Whether the records of a condition may be published, as they may of one that the registry does not have."""
    known = registry.get(claim)
    if known is None or condition not in known.conditions:
        return True
    return known.conditions[condition].scale != "smoke" or known.experiment == SHOWN


def _there(target: Path, identity: str) -> Trial | None:
    """Return the record that ``target`` has of a trial, None for none. Raises StoreError where it cannot be used."""
    try:
        return store.record(store.place(target, identity))
    except FileNotFoundError:
        return None


def _curve(root: Path, identity: str) -> bytes:
    try:
        return files.read(store.folder(root, identity) / "curve.csv")
    except OSError:
        return b""


def _where(trial: Trial) -> str:
    commit = str(trial.environment.get("commit"))[:10]
    begun = f", begun {trial.started}" if trial.started else ""
    return f"{trial.status}, on {trial.environment.get('device')}, commit {commit}{begun}"


def _synthetic(trial: Trial) -> bool:
    return datasets.DRAWN in datasets.named(trial.spec.config)
