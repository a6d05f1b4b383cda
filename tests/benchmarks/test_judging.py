"""How long it takes to judge a store: time should grow with the records, not faster."""

import time

import pytest

from repro.experiments import final_error
from repro.judging.judge import judge_all, records
from repro.spec import Claim, Condition, Expectation, Source
from repro.store import Measurement, Trial

HERE = {"device": "cpu", "torch": "2.11", "tf32": False, "loader": "resident"}
CLAIMS = 100
CHANGE = Expectation(
    metric="top1-error", view="ten", statistic="difference", of="without", over="with", published=1.4,
    accept=(0.7, 2.1), null=0.0, because="half to one and a half of the claim",
)  # fmt: skip


def store(trials: int) -> tuple[list[Claim], list[Trial]]:
    """Return 100 claims on unlike nets and their trials, two arms each, as many seeds as it takes."""
    seeds = tuple(range(trials // CLAIMS // 2))
    claims, found = [], []
    for number in range(CLAIMS):
        arms = {
            name: final_error.Parameters(
                dataset="ilsvrc-2010", protocol="code", norm=norm, epochs=90.0, rate=0.001 * (1 + number)
            )
            for name, norm in (("with", "lrn"), ("without", "none"))
        }
        claims.append(
            Claim(
                id=f"claim-{number}", title="x", experiment="final-error", statements=(1,), headline="c",
                source=Source(section="1", text="x"), expect=(CHANGE,),
                conditions={"c": Condition(name="c", scale="paper", seeds=seeds, arms=arms)},
            )
        )  # fmt: skip
        for arm, p in arms.items():
            for seed in seeds:
                error = 37.5 + 1.4 * (arm == "without") + 0.01 * ((7 * seed + number) % 10)
                found.append(
                    Trial(
                        spec=final_error.spec(p, seed), data_digest="d", status="completed", environment={**HERE},
                        measurements=tuple(
                            Measurement(name=name, value=value, unit="")
                            for name, value in (("top1-error-ten", error), ("test-images", 150_000.0))
                        ),
                    )
                )  # fmt: skip
    return claims, found


def seconds(claims: list[Claim], found: list[Trial]) -> float:
    """Return the seconds to judge all claims, of records as they come from the disk: no key computed yet."""
    fresh = [t.model_copy(update={"spec": t.spec.model_copy()}) for t in found]
    for trial in fresh:
        trial.spec.__dict__.pop("key", None)
    start = time.perf_counter()
    told = records(fresh)
    outcomes = [judge_all(claim, told, {})["c"].outcome for claim in claims]
    spent = time.perf_counter() - start
    assert outcomes == ["REPRODUCED"] * CLAIMS
    return spent


@pytest.mark.parametrize("trials", [1_000, 10_000])
def test_judging(benchmark, trials):
    """100 claims: seconds of all, and how much longer than the same with 1,000 records; 10 would be linear growth."""
    claims, found = store(trials)
    few = store(1_000)
    rounds: list[tuple[float, float]] = []
    seconds(*few)  # imports

    def both():
        rounds.append((seconds(claims, found), seconds(*few)))

    benchmark.pedantic(both, rounds=3, warmup_rounds=0)
    ours, base = (min(values) for values in zip(*rounds, strict=True))
    benchmark.extra_info.update(trials=trials, claims=CLAIMS, seconds=ours, times_that_of_1000=ours / base)
    print(f"{trials:,} trials of {CLAIMS} claims: {ours:.2f} s, {ours / base:.1f} times that of 1,000")
