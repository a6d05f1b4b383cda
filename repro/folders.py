"""Where things lie on disk: a registry, the data sets; small, so that what needs only names stays quick."""

from pathlib import Path

from repro.problem import Problem

PREPARED = ("imagenette160", "tiny-imagenet-32", "ilsvrc-2010", "ilsvrc-2012", "imagenet-2009")
"""Data sets that ``repro data prepare`` brings into the paper's form."""

DATA = {"cifar10": "cifar-10-batches-py"} | {name: f"prepared/{name}" for name in PREPARED}
"""Where a data set lies under the data folder; those not named need no files."""


def default_claims() -> Path:
    """Return the folder of the claims that come with the package: inside a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "claims"
    return inside if inside.is_dir() else package.parent / "claims"


def claim_files(directory: Path) -> list[Path]:
    """Return the claim files of a registry, by id. Raises Problem where it holds none."""
    files = sorted(path for path in directory.glob("*.toml") if path.stem != "TEMPLATE")
    if not files:
        raise Problem(f"{directory}: no claim files (*.toml) here; pass --claims DIR")
    return files
