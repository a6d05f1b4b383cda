"""The registry of experiments: what lies in the folder is known by its name, and can be measured."""

from pathlib import Path

import pytest

from repro import experiments, folders, registry

FOLDER = Path(experiments.__file__).parent


def test_every_module_of_the_folder_is_an_experiment_by_its_name() -> None:
    """mypy holds what is listed against the interface, so nothing may lie there unlisted."""
    found = {path.stem.replace("_", "-") for path in FOLDER.glob("*.py")} - {"--init--"}
    assert set(experiments.names()) == found
    assert {name: experiments.get(name).NAME for name in found} == {name: name for name in found}


def test_every_experiment_can_be_measured() -> None:
    """By the module of its name; without torch nobody may import it to see."""
    for name in experiments.names():
        assert (FOLDER.parent / "measure" / f"{name.replace('-', '_')}.py").is_file()


def test_what_trains_nothing_plans_no_epochs() -> None:
    """Of a claim that is counted, read or timed trials are left, and not an epoch."""
    for claim in registry.load_registry(folders.default_claims()).values():
        if claim.experiment in ("count", "recorded", "throughput"):
            experiment, condition = experiments.get(claim.experiment), claim.conditions[claim.headline]
            assert experiment.pending(condition.arms, condition.seeds, {})
            assert experiment.planned_epochs(condition.arms, condition.seeds, {}) == 0


def test_an_unknown_one_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="no-such"):
        experiments.get("no-such")
