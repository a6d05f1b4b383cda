"""Seeds derived by name, so that arms can share one source of chance and differ in another."""

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """Return the seed of one named source of chance of a trial, in [0, 2**63).

    ``derive(3, "order", 7)`` is the data order of epoch 7 in every trial of seed 3, whatever its arm;
    nothing has to be saved to draw it again after a resume.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
