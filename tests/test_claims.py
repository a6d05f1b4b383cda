import pytest

from repro.folders import claim_files, default_claims
from repro.registry import load_claim


@pytest.mark.parametrize("path", claim_files(default_claims()), ids=lambda path: path.stem)
def test_every_claim_file_loads(path):
    """Each claim of the registry is in order, and its headline says something about the paper."""
    claim = load_claim(path)
    assert claim.conditions[claim.headline].scale in ("paper", "static")
