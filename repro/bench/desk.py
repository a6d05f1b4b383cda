"""The cases that train nothing: the start of the command line, and judging and reporting made-up records."""

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from repro import store
from repro.bench.setting import Case, Settings
from repro.bench.timing import Side
from repro.experiments import final_error
from repro.judging.judge import judge_all, records
from repro.report import page, summary
from repro.spec import Claim, Condition, Expectation, Source
from repro.store import Measurement, Trial

NO_FLOOR = "no floor known for this case"
CLAIMS = 100
FEW, MANY = 1_000, 10_000  # records to judge
SHOWN_CLAIMS, SHOWN = 10, 100  # claims and records of the report

_CHANGE = Expectation(
    metric="top1-error", view="ten", statistic="difference", of="without", over="with", published=1.4,
    accept=(0.7, 2.1), null=0.0, because="half to one and a half of the claim",
)  # fmt: skip
_WHERE = {"device": "cpu", "torch": "2.11", "tf32": False, "loader": "resident", "commit": "0" * 40, "dirty": False}


def start(_s: Settings, _stack: ExitStack) -> Case:
    """Return the case of the command line's start, up to its help; its peer is importing click, which it needs."""
    sides = (
        Side("repro", partial(_program, "-m", "repro", "--help"), 1),
        Side("repro list", partial(_program, "-m", "repro", "list"), 1),
        Side("import click", partial(_program, "-c", "import click"), 1, foreign=True),
    )
    return Case("starts", "repro --help in a process of its own", sides, no_floor=NO_FLOOR)


def _program(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def judge(_s: Settings, _stack: ExitStack) -> Case:
    """Return the case of judging 1,000 records.

    Its peers are 10,000 records of as many claims, and scipy's intervals of the same differences.
    """
    claims, few = made_up(CLAIMS, FEW)
    _, many = made_up(CLAIMS, MANY)
    values = iter([t.measurements[0].value for t in few])
    errors = [[[next(values) for _ in range(FEW // CLAIMS // 2)] for _ in range(2)] for _ in claims]

    def judged(found: list[Trial]) -> None:
        told = records(found)
        for claim in claims:
            judge_all(claim, told, {})

    def by_scipy() -> None:
        from scipy.stats import ttest_ind

        for with_, without in errors:
            ttest_ind(without, with_, equal_var=False).confidence_interval(0.9)

    sides = (
        Side("repro", lambda: judged(few), FEW),
        Side(f"{MANY:,} records", lambda: judged(many), MANY),
        Side("scipy's Welch intervals alone", by_scipy, FEW, foreign=True),
    )
    return Case("records", f"judging {FEW:,} records of {CLAIMS} claims, again", sides, no_floor=NO_FLOOR)


def report(_s: Settings, stack: ExitStack) -> Case:
    """Return the case of making a store's page from its files; peers: the verdicts alone, reading the files as JSON."""
    root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="repro-bench-")))
    claims, trials = made_up(SHOWN_CLAIMS, SHOWN)
    for trial in trials:
        store.save(root, trial)
    registry = {claim.id: claim for claim in claims}
    files = sorted(root.rglob("record.json"))

    def read() -> None:
        for path in files:
            json.loads(path.read_bytes())

    sides = (
        Side("repro", lambda: page.render(summary.summarise(registry, root), root), 1),
        Side("the verdicts alone", lambda: summary.summarise(registry, root), 1),
        Side("its records, read as JSON", read, 1, foreign=True),
    )
    return Case("pages", f"the page of {SHOWN} records of {SHOWN_CLAIMS} claims, again", sides, no_floor=NO_FLOOR)


def made_up(claims: int, trials: int) -> tuple[list[Claim], list[Trial]]:
    """Return so many claims of two arms each, which differ in learning rate, and so many trials, split evenly."""
    seeds = tuple(range(trials // claims // 2))
    made, found = [], []
    for number in range(claims):
        arms = {
            name: final_error.Parameters(
                dataset="ilsvrc-2010", protocol="code", norm=norm, epochs=90.0, rate=0.001 * (1 + number)
            )
            for name, norm in (("with", "lrn"), ("without", "none"))
        }
        conditions = {"c": Condition(name="c", scale="paper", seeds=seeds, arms=arms)}
        made.append(
            Claim(
                id=f"claim-{number}", title="LRN reduces the error", experiment="final-error", statements=(1,),
                headline="c", source=Source(section="1", text="x"), expect=(_CHANGE,), conditions=conditions,
            )
        )  # fmt: skip
        for arm, parameters in arms.items():
            found += [
                _trial(parameters, seed, 37.5 + 1.4 * (arm == "without") + 0.01 * ((7 * seed + number) % 10))
                for seed in seeds
            ]
    return made, found


def _trial(parameters: final_error.Parameters, seed: int, error: float) -> Trial:
    measured = (("top1-error-ten", error), ("test-images", 150_000.0))
    return Trial(
        spec=final_error.spec(parameters, seed), data_digest="d", status="completed", environment={**_WHERE},
        measurements=tuple(Measurement(name=name, value=value, unit="") for name, value in measured),
    )  # fmt: skip
