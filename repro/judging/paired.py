"""How far the trained networks of two arms differ on the same test images, where records keep which images were missed.

It describes these networks and decides nothing: a claim is about arms, and another seed is another network.
"""

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repro import files, store
from repro.experiments import TEST_IMAGES, Observation, Observed
from repro.judging.stats import Estimate, paired_difference
from repro.numbers import estimate_texts
from repro.spec import Expectation
from repro.store import MISSED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.9


def difference(e: Expectation, observed: Observed, root: Path) -> Estimate | None:
    """Return the difference of two arms' errors on the same images, in points, with its interval over the images.

    None where ``e`` is not a difference of errors, or where not every seed's file says which images were missed.
    """
    name = e.observables[0]
    if e.statistic != "difference" or e.over is None:
        return None
    arms = [observed.values.get(name, {}).get(arm, ()) for arm in (e.of, e.over)]
    images = {trial.identity: _images(trial) for _, _, trial in observed.trials}
    found = [_missed(arm, name, images, root) for arm in arms]
    if found[0] is None or found[1] is None or found[0].shape[1] != found[1].shape[1]:
        return None
    i = paired_difference(found[0], found[1], CONFIDENCE)
    return i._replace(value=100 * i.value, low=100 * i.low, high=100 * i.high)


def _images(trial: store.Trial) -> int:
    try:
        return int(trial.value(TEST_IMAGES))
    except KeyError:
        return 0


def _missed(
    seen: Sequence[Observation], name: str, images: dict[str, int], root: Path
) -> "NDArray[np.bool_] | None":  # fmt: skip
    """Return which images each seed missed, bool (seeds, images); None where a seed's file does not say."""
    import numpy as np

    rows = []
    for o in seen:
        count = images.get(o.identity, 0)
        try:
            with np.load(io.BytesIO(files.read(store.folder(root, o.identity) / MISSED)), allow_pickle=False) as kept:
                bits = np.unpackbits(kept[name], count=count).astype(bool)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
            return None
        if len(bits) != count or not count or abs(100 * bits.mean() - o.value) > 1e-6:  # belongs to another record
            return None
        rows.append(bits)
    return np.stack(rows) if rows and len({len(row) for row in rows}) == 1 else None


def sentence(i: Estimate) -> str:
    """Return what was found, and what it does not mean."""
    value, low, high = estimate_texts(i.value, i.low, i.high)
    return (
        f"on the same {i.n[0]:,} test images these networks differ by {value} points ({100 * i.confidence:.0f}% "
        f"interval over the images {low} to {high}); it describes these networks and decides nothing"
    )
