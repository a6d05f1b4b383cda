"""Where the claim files of a registry lie; a small module, so that commands which need only names start quickly."""

from pathlib import Path

from repro.problem import Problem


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
