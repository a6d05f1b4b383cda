"""The registry of experiments: what lies in the folder is known by its name, and can be measured."""

from pathlib import Path

import pytest

from repro import experiments

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


def test_an_unknown_one_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="no-such"):
        experiments.get("no-such")
