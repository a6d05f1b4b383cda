"""From a working store to committed evidence: finished, clean, real-data records, without checkpoints."""

from pathlib import Path

from repro import store
from repro.judging import bands
from repro.source import clean
from repro.store import StoreError, Trial


def publish(source: Path, target: Path) -> tuple[int, list[str]]:
    """Copy what counts as evidence from one store to another; return how many records, and what was left out and why.

    Raises StoreError where there is nothing to read or ``target`` cannot be written.
    """
    trials, problems = store.load(source)
    if not trials and not problems:
        raise StoreError(f"{source}: no records here; pass --store DIR")
    plans = store.load_looks(source)  # first: evidence without its plans is none
    expected = {claim: bands.load(source, claim) for claim in bands.claims(source)}
    copied, left_out = 0, list(problems)
    for trial in trials:
        if reason := unfit(trial):
            left_out.append(f"{trial.identity}: {reason}")
            continue
        pictures = ["pictures.npz"] if _synthetic(trial) else []  # others belong to their data set
        for name in ("curve.csv", "missed.npz", "looked.npz", *pictures):
            path = store.folder(source, trial.identity) / name
            if path.is_file() and not path.is_symlink():
                store.write_atomically(store.folder(target, trial.identity) / name, path.read_bytes())
        trial = trial.model_copy(update={"environment": {**trial.environment, "dirty": False}})  # as was just found out
        store.save(target, trial)  # the record last: what has one is whole; with a sum, if it is from before there were
        copied += 1
    for (claim, condition), looks in plans.items():
        for seeds in looks:  # added to those published before: no look is forgotten
            store.add_look(target, claim, condition, seeds)
    for claim, noted in expected.items():
        bands.add(target, claim, noted)
    return copied, left_out


def unfit(trial: Trial) -> str:
    """Return why a trial is not published; empty where it is.

    Evidence is, and also a ``probe`` of synthetic pictures, which decides nothing: the page shows what it saw.
    """
    if trial.status in ("running", "failed"):
        return f"{trial.status}, not finished"
    if _synthetic(trial) and trial.spec.experiment != "probe":
        return "measured on synthetic pictures"
    if not clean(*(trial.environment.get(key) for key in ("commit", "dirty", "code_digest"))):
        return "not from a clean commit"
    return ""


def _synthetic(trial: Trial) -> bool:
    return trial.spec.config.get("dataset") == "embedded"
