"""Fuzz one kind of file with atheris, coverage-guided; by hand, since atheris is no dependency of the project.

    python -m pip install atheris            # Linux, CPython 3.11 to 3.13
    python tests/fuzz/fuzz.py KIND FOLDER [-runs=100000] [-max_total_time=60]

KIND is one of claim, record, plan, curve, manifest, state; good files of it are put into FOLDER, where atheris keeps
what it finds. It ends with a crash file where a promise of ``targets`` is broken.
"""

import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["repro", "tomllib", "json", "csv"]):
    import targets


def main() -> None:
    """Fuzz the target that is named first on the command line."""
    if len(sys.argv) < 3 or sys.argv[1] not in targets.TARGETS:
        sys.exit(f"usage: fuzz.py KIND FOLDER [options of libFuzzer]; KIND is one of {', '.join(targets.TARGETS)}")
    logging.getLogger("repro").setLevel(logging.ERROR)  # what is set aside is told; here thousands are
    kind, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate([*targets.corpus(kind), *targets.NASTY]):
        (folder / f"good-{number}").write_bytes(content)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], targets.TARGETS[kind])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
