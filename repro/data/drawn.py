"""The synthetic set as JPEG files in the paper's form, so that whatever reads real pictures can read it too."""

import contextlib
import hashlib
import io
from pathlib import Path

from PIL import Image

from repro.data import DataError, embedded
from repro.data.prepared import Entry, Manifest, Prepared, load, write_manifest
from repro.datasets import DATASETS
from repro.files import write_atomically

COUNTS = {"train": DATASETS["embedded"].train, "val": DATASETS["embedded"].test}
"""Few pictures, enough to see that everything works."""


def prepared(root: Path, side: int) -> Prepared:
    """Return the synthetic set of ``side`` pixels at ``root``; draw it unless it is there already, and whole.

    Raises StoreError where it cannot be written.
    """
    with contextlib.suppress(DataError):
        found = load(root)
        if {split: len(files) for split, files in found.files.items()} == COUNTS and found.side == side:
            return found
    entries = {}
    for seed, (split, count) in enumerate(COUNTS.items()):
        images, labels = embedded.draw(count, side, seed)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
            content, path = buffer.getvalue(), f"{split}/{embedded.CLASSES[label]}/{number:04}.JPEG"
            write_atomically(root / path, content)
            entries[path] = Entry(len(content), hashlib.sha256(content).hexdigest(), image.nbytes)
    write_manifest(root, Manifest(side, dict(sorted(entries.items())), skipped=0))
    return load(root)
