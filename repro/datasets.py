"""What each data set that a claim may name holds: the numbers that plans use, and that prepared data has to match.

A name is a promise: a verdict under ``ilsvrc-2012`` is about those 1.28 million pictures, so a folder of that name that
holds others is refused before anything is trained. Sources: Russakovsky et al. (2015), arXiv 1409.0575, table 2, for
ILSVRC; section 6 of the paper for 2009; the two small sets as distributed (imagenette2-160; Tiny ImageNet).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataSet:
    """The numbers of classes, of pictures to train on, and of pictures on which errors are measured.

    ``folder`` is where it lies under the data folder, empty where it is drawn here. ``whole`` names what ``repro data
    prepare`` makes it from. If not ``exact``, the numbers of pictures are rounded, and good only for planning.
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
"""By name. For 2012, ``test`` is the validation set: the labels of its test set are not public. For 2009, ``train`` and
``test`` are half each of its 8.9 million pictures."""

IN_MEMORY = DataSet(10, 4_096, 4_096)
"""The pictures of ``embedded`` that the experiment ``epochs-to`` draws; the others have it as files, with fewer."""

LEFT_OUT = 1000
"""At most one in this many pictures may be missing as bad, so an error moves by 0.1 points at most, its last digit."""


def used(experiment: str, name: str) -> DataSet | None:
    """Return the set called ``name`` as an experiment's trials have it; None for a name without pictures."""
    return IN_MEMORY if (experiment, name) == ("epochs-to", "embedded") else DATASETS.get(name)


DRAWN = "embedded"
"""The one set that is drawn here: synthetic pictures, which show that everything works and nothing else."""


def named(config: Mapping[str, Any]) -> set[str]:
    """Return the names of the sets in a trial's configuration: its own, or those of the arms that it times in turn."""
    return {str(part["dataset"]) for part in (config, *config.get("arms", {}).values()) if "dataset" in part}


def folder(name: str) -> str:
    """Return where the set called ``name`` lies under the data folder; empty where it needs no files."""
    known = DATASETS.get(name)
    return known.folder if known else ""


def unlike(name: str, classes: int, train: int, test: int, left_out: int) -> str:
    """Return how a prepared set differs from what its name promises, and what to do; empty where it does not.

    Pictures may be missing only if preparing reported that it left out that number, ``left_out``, as bad. The name of a
    set without files promises nothing.
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
    """Whether an error on so many pictures can be on the set called ``name``; always true of a set without files."""
    known = DATASETS.get(name)
    return (
        known is None
        or not (known.folder and known.exact)
        or known.test - known.test // LEFT_OUT <= pictures <= known.test
    )
