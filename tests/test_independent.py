"""The second implementation of ``relu-speedup``, which shares no code with the first, learns what the first learns."""

import ast
import csv
from itertools import pairwise
from pathlib import Path

import independent
import pytest
import released_log
import torch

from repro import data as data_sets
from repro import store
from repro.judging import stats
from repro.measure.epochs_to import step_of_crossing
from repro.models import cifar
from repro.training.captured import update_for
from repro.training.inputs import Input, batches
from repro.training.loop import Check
from repro.training.optimizer import optimizer_for

pytestmark = pytest.mark.usefixtures("one_thread")
RATE = 0.004
ROOT = Path(__file__).parents[1]


def test_it_imports_nothing_of_this_package() -> None:
    nodes = [*ast.walk(ast.parse(Path(independent.__file__).read_text()))]
    names = [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
    names += [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    assert len(names) >= 5
    assert not [name for name in names if name.partition(".")[0] == "repro"]


@pytest.mark.parametrize("recipe", ["code", "modern"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("name", ["19pct", "conv-local-13pct"])
def test_both_learn_the_same_from_the_same_batches(name: str, activation: str, recipe: str) -> None:
    """Three updates from the same weights, in float64: inputs, errors, losses and all weights are equal."""
    data = data_sets.load("embedded", None)
    ours = cifar.build(name, activation).double()
    theirs = independent.network(name, activation).double()
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            b *= 30 if b.dim() == 4 else 1  # so that the first layers have something to say within three updates
            a.copy_(b.reshape(a.shape))
    update = update_for(ours, optimizer_for(ours, recipe, RATE), captured=False)
    sgd = independent.optimizer(theirs, RATE, recipe)
    prepare, plain = Input(data.images, recipe), data.images.permute(0, 3, 1, 2)
    mean, deviation = (x.double() for x in independent.statistics(plain, recipe))
    stream = batches(data, 32, seed=0)
    for _ in range(3):
        images, labels = next(stream)
        x = (images.permute(0, 3, 1, 2).double() - mean) / deviation
        torch.testing.assert_close(prepare(images).double(), x, rtol=0, atol=1e-4)
        wrong, loss = update(x, labels)
        assert (int(wrong), float(loss)) == (pytest.approx(independent.step(theirs, sgd, x, labels), rel=1e-9))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b.reshape(a.shape), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("recipe", ["code", "modern"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_both_start_from_weights_of_the_same_spread(activation: str, recipe: str) -> None:
    for name in ("19pct", "conv-local-13pct"):
        ours = cifar.build(name, activation)
        cifar.initialise(ours, name, activation, recipe, seed=0)
        torch.manual_seed(0)
        theirs = independent.network(name, activation)
        if recipe == "modern":
            independent.redraw(theirs, activation)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert float(a.detach().std()) == pytest.approx(float(b.detach().std()), rel=0.05), name


def test_both_find_the_target_at_the_same_place() -> None:
    above, below = Check(step=390, error=0.31, loss=0.0, window=390), Check(step=429, error=0.24, loss=0.0, window=390)
    ours = step_of_crossing(above, below, independent.TARGET, independent.BATCH)
    assert independent.crossing((1.0, 0.31), (1.1, 0.24)) == pytest.approx(ours / 390)


def test_what_is_quoted_of_it_follows_from_its_output() -> None:
    """The times and their ratio in docs/recipes.md are those of reports/independent and of the committed records."""
    folder = ROOT / "reports" / "independent"
    theirs = [_time(path) for path in sorted(folder.glob("seed-*"))]
    ours = [
        (t.spec.seed, t.value("epochs-to"))
        for t in store.load(ROOT / "reports")[0]
        if t.spec.config.items() >= {"net": "19pct", "protocol": "code", "activation": "relu", "rate": RATE}.items()
        and t.spec.seed < 5
    ]
    page = " ".join((ROOT / "docs" / "recipes.md").read_text().split())
    assert f"in torch's default layout, seed 0 took {_time(folder / 'default-layout-seed-0.csv'):.2f}" in page
    for times in (theirs, [time for _, time in sorted(ours)]):
        assert len(times) == 5
        *first, last = (f"{time:.2f}" for time in times)
        assert f"{', '.join(first)} and {last}" in page
    found = stats.ratio_interval(stats.log_sample(theirs), stats.log_sample([time for _, time in ours]), 0.9)
    told = f"{found.value:.2f} (90% interval {found.low:.2f} to {found.high:.2f}, n = 5 + 5"
    assert told in page
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert told.replace(" (", " times as many epochs (", 1) in readme


def test_what_is_quoted_of_the_headline_follows_from_its_output() -> None:
    """Its times with conv-local-13pct, and their ratio, in docs/recipes.md and in README.md."""
    folder = ROOT / "reports" / "independent"
    relu, tanh = ([_time(path) for path in sorted(folder.glob(f"headline-{arm}-*"))] for arm in ("relu", "tanh"))
    assert len(relu) == len(tanh) == 2
    found = stats.ratio_interval(stats.log_sample(tanh), stats.log_sample(relu), 0.9)
    told = f"{found.value:.2f} times (90% interval {found.low:.2f} to {found.high:.2f}, n = 2 + 2"
    page, readme = (" ".join((ROOT / name).read_text().split()) for name in ("docs/recipes.md", "README.md"))
    for arm, times in (("ReLU", relu), ("tanh", tanh)):
        assert f"{times[0]:.2f} and {times[1]:.2f} epochs with {arm}" in page
    assert told in page
    assert told in readme
    slow, fast = (_time(folder / f"modern-{arm}-0.txt") for arm in ("relu", "tanh"))
    assert f"it needs {slow:.2f} epochs with ReLU and {fast:.2f} with tanh (seed 0;" in page
    assert f"{fast / slow:.2f} times, from one seed an arm" in page


def _time(path: Path) -> float:
    """Return the epochs to the target, from the output of the script or, for .csv, of what it was tidied from."""
    lines = path.read_text().split("\n")
    if path.suffix == ".txt":
        return float(lines[-2].split()[0])
    rows = [tuple(map(float, line.split(",")[:2])) for line in lines[1:] if line]
    before, now = next(pair for pair in pairwise(rows) if pair[1][1] < independent.TARGET)
    return independent.crossing(before, now)


def test_what_is_quoted_of_the_log_of_2011_is_in_it_and_in_our_output() -> None:
    """The table of docs/recipes.md, row by row; what was logged stands in the script once more."""
    rows = list(csv.DictReader((ROOT / "reports" / "independent" / "released-log.csv").read_text().splitlines()))
    files = [row for row in rows if row["file"].isdecimal()]
    assert len(files) == 3 * len(released_log.LOSSES)
    for row in files:
        at = int(row["file"]) - 1
        assert (float(row["logged_loss"]), float(row["logged_error"])) == (
            released_log.LOSSES[at], released_log.ERRORS[at]
        )  # fmt: skip

    def told(key: str, column: str, form: str, scale: float = 1) -> str:
        found = [row for row in rows if row["file"] == key]
        ours = ", ".join(form.format(scale * float(row[column])) for row in found)
        return f"| {form.format(scale * float(found[0]['logged_' + column]))} | {ours} |"

    page = (ROOT / "docs" / "recipes.md").read_text().split("### Held against a log of 2011")[1]
    table = [
        line[line.index(" | ") + 1 :] for line in page.splitlines() if line.startswith(("| error", "| test", "| mean"))
    ]
    assert table == [
        *(told(key, "error", "{:.1f}%", 100) for key in ("5", "10", "17", "test")),
        told("test", "loss", "{:.3f}"),
        *(told(f"mean |{name}|", "loss", "{:.5f}") for name in released_log.WEIGHTS),
    ]
    tests = sorted(100 * float(row["error"]) for row in rows if row["file"] == "test")
    ours = f"{tests[0]:.1f} to {tests[-1]:.1f}% (n = {len(tests)})"
    said = f"its test error is {100 * released_log.TEST[1]:.1f}%, ours {ours}"
    assert said in " ".join((ROOT / "README.md").read_text().split())
