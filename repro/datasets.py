"""What each data set that a claim may name holds, each number once: what is planned with, and what is held to.

A name is a promise: a verdict under ``ilsvrc-2012`` is one about those 1.28 million pictures, so a folder of that name
with others in it is refused before anything is trained. Sources: Russakovsky et al. (2015), arXiv 1409.0575, table 2,
for ILSVRC; section 6 of the paper for 2009; the two small sets as distributed (imagenette2-160; Tiny ImageNet).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataSet:
    """``classes``, and the pictures of its training half and of the half that errors are taken of.

    ``folder`` is where it lies under the data folder, empty where it is drawn here. ``whole`` names what ``repro data
    prepare`` makes it of. Where not ``exact``, the pictures are round numbers, good for a plan alone.
    """

    classes: int
    train: int
    test: int
    folder: str = ""
    whole: str = "the whole archive"
    downloaded: bool = False
    """Whether ``--download`` can fetch it."""
    exact: bool = True


_TEST_OF_2010 = "all of SOURCE/train/ and SOURCE/test/, without val/: the paper's error of 2010 is of the test half"

DATASETS = {
    "cifar10": DataSet(10, 50_000, 10_000, "cifar-10-batches-py", downloaded=True),
    "imagenette160": DataSet(10, 9_469, 3_925, "prepared/imagenette160"),
    "tiny-imagenet-32": DataSet(200, 100_000, 10_000, "prepared/tiny-imagenet-32"),
    "ilsvrc-2010": DataSet(1000, 1_261_406, 150_000, "prepared/ilsvrc-2010", whole=_TEST_OF_2010),
    "ilsvrc-2012": DataSet(1000, 1_281_167, 50_000, "prepared/ilsvrc-2012"),
    "imagenet-2009": DataSet(10_184, 4_450_000, 4_450_000, "prepared/imagenet-2009", exact=False),
    "embedded": DataSet(10, 1_024, 256),
}
"""By name. Of 2012 the validation half: its test half has no public labels. Of the 8.9 million of 2009, half each."""

IN_MEMORY = DataSet(10, 4_096, 4_096)
"""What the experiment ``epochs-to`` draws of ``embedded``; the others have it as files, and fewer."""

LEFT_OUT = 1000
"""One picture in so many of a half may be missing as bad: no error can move by the tenth of a point it is told to."""


def used(experiment: str, name: str) -> DataSet | None:
    """Return what an experiment's trials have of the set called ``name``; None for one that has no pictures."""
    return IN_MEMORY if (experiment, name) == ("epochs-to", "embedded") else DATASETS.get(name)


DRAWN = "embedded"
"""The one set that is drawn here: synthetic pictures, which show that everything works and nothing else."""


def named(config: Mapping[str, Any]) -> set[str]:
    """Return the sets of the configuration of a trial: its own, or those of the arms that it times in turn."""
    return {str(part["dataset"]) for part in (config, *config.get("arms", {}).values()) if "dataset" in part}


def folder(name: str) -> str:
    """Return where the set called ``name`` lies under the data folder; empty where it needs no files."""
    known = DATASETS.get(name)
    return known.folder if known else ""


def unlike(name: str, classes: int, train: int, test: int, left_out: int) -> str:
    """Return how a prepared set differs from what its name promises, and what to do; empty where it does not.

    Pictures may be missing only where preparing told that it left out so many, ``left_out``, as bad. A name that is not
    of a set with files promises nothing.
    """
    known = DATASETS.get(name)
    if known is None or not known.folder:
        return ""
    missing = (known.train - train, known.test - test)
    few = 0 <= missing[0] <= known.train // LEFT_OUT and 0 <= missing[1] <= known.test // LEFT_OUT
    if classes == known.classes and (not known.exact or (few and sum(missing) == left_out)):
        return ""
    told = f"{train:,} + {test:,} pictures" + (f" ({left_out:,} were left out as bad)" if left_out else "")
    has = f"{known.classes:,}, {known.train:,} + {known.test:,}" if known.exact else f"{known.classes:,}"
    return f"holds {classes:,} classes, {told}; {name} has {has}: prepare it again from {known.whole}"


def tests_on(name: str, pictures: float) -> bool:
    """Whether an error of so many pictures can be one of the set called ``name``; a name without files is any."""
    known = DATASETS.get(name)
    return (
        known is None
        or not (known.folder and known.exact)
        or known.test - known.test // LEFT_OUT <= pictures <= known.test
    )
