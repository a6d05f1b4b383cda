"""Claims and records for tests of the judge: epochs of a ReLU and a tanh net, in memory."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from repro.experiments import epochs_to
from repro.judging.judge import Verdict, judge
from repro.spec import Claim, Condition, Expectation, Source
from repro.store import Measurement, Trial, TrialSpec

MAX = 1000.0
RATES = (0.01, 0.02, 0.04)
HERE = {"device": "cpu", "torch": "2.11", "tf32": False, "loader": "resident"}
MISS = math.inf
SIX = {"published": 6.0, "accept": (4.0, 9.0), "null": 1.0}
"""The claim on ReLU: tanh over relu, six times."""


def expect(*, of: str = "tanh", over: str | None = "relu", statistic: str = "ratio", **rest: Any) -> Expectation:
    rest.setdefault("null", None)
    return Expectation(
        metric="epochs-to", statistic=statistic, of=of, over=over, because="for a test", **{**SIX, **rest}
    )


@cache
def arm(activation: str) -> epochs_to.Parameters:
    return epochs_to.Parameters(
        net="19pct", activation=activation, dataset="cifar10", protocol="modern",
        checks_per_epoch=1000, max_epochs=MAX, rates=RATES,
    )  # fmt: skip


@cache
def spec(activation: str, seed: int, rate: float) -> TrialSpec:
    return epochs_to.spec(arm(activation), seed, rate)


def claim(*wanted: Expectation, scale: str = "paper", arms: Sequence[str] = ("relu", "tanh"), n: int = 3) -> Claim:
    condition = Condition(name="c", scale=scale, seeds=tuple(range(n)), arms={name: arm(name) for name in arms})
    return Claim(
        id="x", title="x", experiment="epochs-to", statements=(1,), headline="c", source=Source(section="1", text="x"),
        expect=wanted, conditions={"c": condition},
    )  # fmt: skip


def trial(spec: TrialSpec, epochs: float, environment: Mapping[str, Any] = HERE, digest: str = "d") -> Trial:
    if epochs == MISS:
        return Trial(spec=spec, data_digest=digest, status="censored", limit=MAX, environment={**environment})
    time = (Measurement(name="epochs-to", value=epochs, unit="epochs"),)
    return Trial(spec=spec, data_digest=digest, status="completed", measurements=time, environment={**environment})


def tuned(*arms: str) -> list[Trial]:
    """A finished search of each arm, with its best rate in the middle."""
    return [trial(spec(a, 1000, r), t) for a in arms for r, t in zip(RATES, (90.0, 80.0, 90.0), strict=True)]


def scored(**times: Sequence[float]) -> list[Trial]:
    return [trial(spec(a, seed, RATES[1]), t) for a, found in times.items() for seed, t in enumerate(found)]


def verdict(
    wanted: Expectation | Sequence[Expectation],
    *,
    scale: str = "paper",
    looks: Sequence[Sequence[int]] = (),
    **times: Sequence[float],
) -> Verdict:
    """The verdict on arms with these times, one a seed, after a finished search."""
    wanted = [wanted] if isinstance(wanted, Expectation) else wanted
    c = claim(*wanted, scale=scale, arms=tuple(times), n=max(map(len, times.values())))
    return judge(c, c.conditions["c"], [*tuned(*times), *scored(**times)], looks)


def spread(centre: float, sd: float = 0.05, n: int = 3) -> list[float]:
    """Times with this geometric mean and this standard deviation of their logarithms."""
    shape = np.linspace(-1, 1, n)
    return (centre * np.exp(sd * shape / shape.std(ddof=1))).tolist()


ABOVE = expect(published={"op": ">", "value": 1.0}, accept=(1.0, math.inf), null=1.0)
SLIGHTLY = expect(published={"words": "slightly less time"}, accept=(0.8, 1.0), null=1.0)
ABOUT = expect(published={"about": 2.0}, accept=(1.5, 3.0), null=1.0)
LESS = expect(statistic="difference", published=-14.0, accept=(-21.0, -7.0), null=0.0)
ABSOLUTE = expect(statistic="value", over=None, published=60.0, accept=(50.0, 70.0), better="lower")
EITHER = expect(statistic="value", over=None, published=60.0, accept=(50.0, 70.0))
HIGHER = expect(statistic="value", over=None, published=60.0, accept=(50.0, 70.0), better="higher")
AT_MOST = expect(
    statistic="value", over=None, published={"op": "<=", "value": 60.0}, accept=(-math.inf, 60.0), better="lower"
)
RELU = expect(**SIX)
