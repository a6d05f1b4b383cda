"""Every claim of the registry: it loads, it can be planned, and together they cover the paper."""

from pathlib import Path

import pytest

from repro import experiments
from repro.folders import claim_files, default_claims
from repro.planning import plan
from repro.registry import load_claim, load_registry
from repro.release import FACTS
from repro.spec import STATEMENTS

FILES = claim_files(default_claims())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_claim_loads_and_plans(path: Path):
    """Each is in order, its headline says something about the paper, and what is left can be told."""
    claim = load_claim(path)
    assert claim.conditions[claim.headline].scale in ("paper", "static")
    for condition in claim.conditions.values():
        pending = experiments.get(claim.experiment).pending(condition.arms, condition.seeds, {})
        assert pending
        assert len({planned.spec.key for planned in pending}) == len(pending) or condition.scale == "static"
        left = plan.cost(claim, condition, condition.seeds, [], "cpu")
        assert left.epochs >= 0
        assert left.seconds > 0 or condition.scale == "static" or claim.experiment == "throughput"
        assert plan.needs(condition)


def test_all_statements_are_covered():
    """Each of the paper's 41 statements is in some claim, and the ids that the project is named for are there."""
    registry = load_registry(default_claims())
    assert {n for claim in registry.values() for n in claim.statements} == set(range(1, STATEMENTS + 1))
    assert registry.keys() >= {
        "relu-speedup", "lrn-error", "overlapping-pooling-error", "ilsvrc-2010-error", "two-gpu-error", "two-gpu-time",
        "parameters",
    }  # fmt: skip


def test_what_the_notes_log_rounds_to_what_the_paper_prints():
    """The released notes answer errors of seven statements; each logged value rounds to the printed one."""
    from repro.spec import corroboration_text

    logged = [
        (n, text)
        for claim in load_registry(default_claims()).values()
        for e in claim.expect
        for n in claim.statements[:1]
        if (text := corroboration_text(e))
    ]
    assert {n for n, _ in logged} == {1, 2, 4, 17, 19, 22}
    assert all("which rounds to the printed" in text for _, text in logged)


def test_facts_are_used():
    """Every fact of the release is asked about by some claim, but for two that explain others."""
    asked = {
        m
        for c in load_registry(default_claims()).values()
        if c.experiment == "recorded"
        for e in c.expect
        for m in e.metrics
    }
    assert set(FACTS) - asked == {"bias-rate-over-weight-rate", "crop-places-a-side"}
