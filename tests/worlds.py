"""Simulated claims whose truth is known, judged by the real ``judge``; error_rates.py makes a page of them."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from repro.experiments import epochs_to, final_error
from repro.judging.judge import Verdict, judge
from repro.judging.rules import ALPHA
from repro.spec import Claim, Condition, Expectation, Source
from repro.store import Measurement, Trial, TrialSpec

HERE = {"device": "cpu", "torch": "2.11", "tf32": False, "loader": "resident"}
IMAGES = 150_000.0
RATES = (0.01, 0.02, 0.04)
FAR = 1e6
"""Epochs that no arm needs: a limit that censors nothing."""

LRN = Expectation(
    metric="top1-error", view="ten", statistic="difference", of="without", over="with", published=1.4,
    accept=(0.7, 2.1), null=0.0, because="half to one and a half of the claim",
)  # fmt: skip
TOP1 = Expectation(
    metric="top1-error", view="ten", statistic="value", of="with", published=37.5, accept=(36.2, 38.8), better="lower",
    because="printed to a tenth, plus what the test set scatters, plus one point",
)  # fmt: skip
RELU = Expectation(
    metric="epochs-to", statistic="ratio", of="tanh", over="relu", published=6.0, accept=(4.0, 9.0), null=1.0,
    because="a ratio times or over 1.5",
)  # fmt: skip


class World(NamedTuple):
    """Claims of one kind with one truth: ``trials`` draws the records of a run with any number of seeds."""

    kind: str
    truth: float
    sds: tuple[float, ...]
    """Of each arm, over seeds; of logarithms where it is a ratio."""
    n: int
    claim: Claim
    trials: Callable[[np.random.Generator], list[Trial]]
    note: str = ""

    @property
    def label(self) -> str:
        sds = " and ".join(f"{sd:g}" for sd in dict.fromkeys(self.sds))
        return f"{self.kind}{self.note} | {self.truth:g} | {sds} | {self.n}"

    @property
    def generator(self) -> np.random.Generator:
        """The world's own chance: the same numbers whichever other worlds are made."""
        return np.random.default_rng(list(self.label.encode()))

    def verdicts(self, repetitions: int) -> Iterator[Verdict]:
        """Yield verdicts on this world's claim, each from fresh records."""
        rng = self.generator
        for _ in range(repetitions):
            yield judge(self.claim, self.claim.conditions["c"], self.trials(rng))


def claim_of(experiment: str, wanted: Sequence[Expectation], arms: dict[str, object], n: int) -> Claim:
    condition = Condition(name="c", scale="paper", seeds=tuple(range(n)), arms=arms)
    return Claim(
        id="world", title="a world", experiment=experiment, statements=(1,), headline="c", expect=tuple(wanted),
        source=Source(section="1", text="x"), conditions={"c": condition},
    )  # fmt: skip


def record(spec: TrialSpec, status: str = "completed", limit: float | None = None, **measured: float) -> Trial:
    """Return a trial record without checking it again: that is what most of the time would go to."""
    found = tuple(
        Measurement.model_construct(name=name.replace("_", "-"), value=value, unit="", at=None, at_unit=None)
        for name, value in measured.items()
    )
    return Trial.model_construct(
        schema_=1, spec=spec, data_digest="d", status=status, limit=limit, measurements=found, message="it broke",
        environment=HERE, started="", duration_s=0.0,
    )  # fmt: skip


@cache
def _net(norm: str) -> final_error.Parameters:
    return final_error.Parameters(dataset="ilsvrc-2010", protocol="code", norm=norm, epochs=90.0)


@cache
def _error_spec(arm: str, seed: int) -> TrialSpec:
    return final_error.spec(NETS[arm], seed)


NETS = {"with": _net("lrn"), "without": _net("none")}


def errors(
    kind: str, e: Expectation, truth: float, sds: tuple[float, ...], n: int, *,
    failed: bool = False, shape: str = "normal", images: float = IMAGES,
) -> World:  # fmt: skip
    """Return a world of errors in percent: the arm ``with`` has 37.5, or the truth where that is absolute."""
    centres = {e.of: truth} if e.over is None else {e.of: 37.5 + truth, e.over: 37.5}

    def trials(rng: np.random.Generator) -> list[Trial]:
        found = [
            record(_error_spec(arm, seed), top1_error_ten=value, test_images=images)
            for (arm, centre), sd in zip(centres.items(), sds, strict=True)
            for seed, value in enumerate((centre + sd * _standard(rng, shape, n)).tolist())
        ]
        if failed:
            which = int(rng.integers(len(found)))
            found[which] = record(found[which].spec, "failed")
        return found

    arms = {arm: NETS[arm] for arm in sorted(centres)}
    note = ", one trial failed" if failed else "" if shape == "normal" else f", {shape} seeds"
    return World(kind, truth, sds, n, claim_of("final-error", [e], arms, n), trials, note)


def _standard(rng: np.random.Generator, shape: str, n: int) -> np.ndarray:
    """Return draws with mean 0 and standard deviation 1."""
    if shape == "skewed":
        return rng.exponential(1.0, n) - 1
    if shape == "long-tailed":
        return rng.laplace(0.0, math.sqrt(0.5), n)
    return rng.standard_normal(n)


@cache
def _cifar(activation: str, limit: float) -> epochs_to.Parameters:
    return epochs_to.Parameters(
        net="19pct", activation=activation, dataset="cifar10", protocol="modern", checks_per_epoch=1000,
        max_epochs=limit, rates=RATES,
    )  # fmt: skip


@cache
def _time_spec(activation: str, seed: int, rate: float) -> TrialSpec:
    return epochs_to.spec(_cifar(activation, FAR), seed, rate)


def times(
    kind: str, truths: dict[str, float], sds: tuple[float, ...], n: int, *,
    cut: Mapping[str, float] = {}, note: str = "",
) -> World:  # fmt: skip
    """Return a world of epochs to a target: log-normal, relu centred on 30 and each other arm on its truth times that.

    ``cut`` gives the limit of an arm, in its standard deviations from its centre: what takes longer is censored there.
    """
    centres = {"relu": 30.0, **{arm: 30.0 * truth for arm, truth in truths.items()}}
    limits = {
        arm: centres[arm] * math.exp(sd * cut[arm]) if arm in cut else FAR for arm, sd in zip(centres, sds, strict=True)
    }
    search = [
        record(_time_spec(arm, 1000, rate), epochs_to=min(centres[arm], limits[arm]) * (1 if rate == RATES[1] else 1.1))
        for arm in centres
        for rate in RATES
    ]

    def trials(rng: np.random.Generator) -> list[Trial]:
        found = list(search)
        for (arm, centre), sd in zip(centres.items(), sds, strict=True):
            for seed, time in enumerate(np.exp(math.log(centre) + sd * rng.standard_normal(n)).tolist()):
                spec, limit = _time_spec(arm, seed, RATES[1]), limits[arm]
                found.append(record(spec, epochs_to=time) if time <= limit else record(spec, "censored", limit))
        return found

    wanted = [RELU.model_copy(update={"of": arm}) for arm in truths]
    arms = {arm: _cifar(arm, limits[arm]) for arm in centres}
    return World(kind, next(iter(truths.values())), sds, n, claim_of("epochs-to", wanted, arms, n), trials, note)


def difference_worlds(sds: Iterable[float] = (0.1, 0.2, 0.35, 0.5), ns: Iterable[int] = (3, 5, 10)) -> list[World]:
    """Return the claim that normalisation takes 1.4 points off the error, under six truths."""
    truths = (1.4, 1.05, 0.7, 2.1, 0.0, -1.4)
    return [errors("difference", LRN, truth, (sd, sd), n) for truth in truths for sd in sds for n in ns]


def other_worlds() -> list[World]:
    """Return unlike spreads, seeds that are not normal, absolute errors, ratios, censored arms, two expectations."""
    unlike = [errors("difference", LRN, truth, (0.1, 0.5), n) for truth in (1.4, 0.7) for n in (3, 5, 10)]
    shapes = [
        errors("difference", LRN, 0.7, (0.35, 0.35), n, shape=shape)
        for shape in ("skewed", "long-tailed")
        for n in (3, 5, 10)
    ]
    values = [errors("value", TOP1, truth, (0.35,), n) for truth in (37.5, 38.8, 36.2, 40.0) for n in (3, 5, 10)]
    skewed = [errors("value", TOP1, truth, (0.35,), n, shape="skewed") for truth in (38.8, 36.2) for n in (3, 5, 10)]
    ratios = [
        times("ratio", {"tanh": truth}, (sd, sd), n)
        for truth in (6.0, 3.0, 4.0, 9.0, 1.0, 0.5)
        for sd in (0.1, 0.2)
        for n in (3, 5, 10)
    ]
    censored = [
        times("ratio", {"tanh": truth}, (0.2, 0.2), n, cut={arm: at}, note=f", {arm} censored at {at:+g} SD")
        for truth in (6.0, 4.0, 9.0)
        for arm in ("tanh", "relu")
        for at in (0.0, 1.0)
        for n in (3, 5)
    ]
    two = [
        times("ratio", {"tanh": 4.0, "sigmoid": other}, (0.2,) * 3, n, note=f", and a second of {other:g}")
        for other in (4.0, 6.0)
        for n in (3, 5)
    ]
    return [*unlike, *shapes, *values, *skewed, *ratios, *censored, *two]


def failed_worlds() -> list[World]:
    return [errors("difference", LRN, truth, (sd, sd), 5, failed=True) for truth in (1.4, 0.0) for sd in (0.1, 0.5)]


def reduced_worlds() -> list[World]:
    """Return one and two ratios on reduced data: without an effect, with one as claimed, and with the opposite."""
    found = []
    for truth in (1.0, 1.5, 0.67):
        for others in ((), ("sigmoid",)):
            for n in (3, 5):
                arms = dict.fromkeys(("tanh", *others), truth)
                note = f", {len(arms)} on reduced data"
                world = times("ratio", arms, (0.2,) * (1 + len(arms)), n, note=note)
                condition = world.claim.conditions["c"].model_copy(update={"scale": "reduced"})
                claim = world.claim.model_copy(update={"conditions": {"c": condition}})
                found.append(world._replace(claim=claim))
    return found


class Rates(NamedTuple):
    """What came out of a world's repetitions."""

    outcomes: Counter[str]
    covered: int
    """Repetitions whose interval, of the first expectation, held the truth."""
    repetitions: int

    def share(self, outcome: str) -> float:
        return self.outcomes[outcome] / self.repetitions


def simulate(world: World, repetitions: int) -> Rates:
    """Return how often each outcome came out, and how often the interval held the truth."""
    outcomes: Counter[str] = Counter()
    covered = 0
    with known_specs():
        for verdict in world.verdicts(repetitions):
            outcomes[verdict.outcome] += 1
            found = verdict.judged[0].estimate
            covered += found is not None and found.low <= world.truth <= found.high
    return Rates(outcomes, covered, repetitions)


@contextlib.contextmanager
def known_specs() -> Iterator[None]:
    """Let the two experiments build each spec once: they are the same in every repetition."""
    kept = final_error.spec, epochs_to.spec
    final_error.spec, epochs_to.spec = cache(final_error.spec), cache(epochs_to.spec)
    try:
        yield
    finally:
        final_error.spec, epochs_to.spec = kept


def wrong(world: World) -> dict[str, str]:
    """Return the outcomes that would be wrong in this world, each with why."""
    low, high = world.claim.expect[0].accept
    null = world.claim.expect[0].null
    found = {}
    if not low < world.truth < high:
        found["REPRODUCED"] = "the truth is not inside the band"
    if low <= world.truth <= high:
        found["NOT_REPRODUCED"] = "the truth is in the band"
    if null is None and world.truth <= low:
        found["NOT_REPRODUCED"] = "the truth is not worse"
    if null is not None and world.truth <= null:
        found["DIRECTION"] = "there is no such effect"
    return found


def most(repetitions: int, rate: float = ALPHA) -> int:
    """Return how often an event of this rate comes out at most, but for one time in a million."""
    return int(binom.ppf(1 - 1e-6, repetitions, rate))


LOOKS = (3, 5, 10)


def stopped(truth: float, sd: float, repetitions: int, share: Callable[[int], int]) -> Counter[str]:
    """Return what is told by who looks after 3, 5 and 10 seeds, and stops at the first size that is decided.

    ``share`` says by how many alpha is divided at the first, second and third look.
    """
    worlds = [errors("difference", LRN, truth, (sd, sd), n) for n in LOOKS]
    whole, rng, told = worlds[-1], worlds[-1].generator, Counter[str]()
    with known_specs():
        for _ in range(repetitions):
            records = whole.trials(rng)
            outcome = ""
            for number, n in enumerate(LOOKS, 1):
                seeds = [tuple(range(n))] * (share(number) - 1)  # as many looks before it as share alpha with it
                outcome = judge(whole.claim, whole.claim.conditions["c"], records, [*seeds, tuple(range(n))]).outcome
                if outcome in ("REPRODUCED", "NOT_REPRODUCED"):
                    break
            told[outcome] += 1
    return told


SHARES: dict[str, Callable[[int], int]] = {
    "each look at all of alpha (not our rule)": lambda look: 1,
    "alpha, then a half, then a third of it (our rule: looks that nobody planned)": lambda look: look,
    "each look at a third of alpha (three looks planned)": lambda look: len(LOOKS),
}
