"""What a benchmark run found, as a file, and what it shows: ratios with intervals, next to the noise of the run."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, JsonValue, ValidationError

from repro.bench.timing import AGAIN, OURS
from repro.frozen import Frozen, faults_in
from repro.judging.stats import Estimate, log_sample, mean_interval, ratio_interval
from repro.problem import Problem

SCHEMA = 1
CONFIDENCE = 0.9

CASES = {
    "step": "a training step on a batch that lies ready, by the package's loop",
    "evaluation": "the mean softmax of the centre views of a batch that lies ready",
    "lrn": "local response normalisation, forward and backward",
    "optimizer": "a step of the 2012 update rule",
    "together": "training a small net, and K of them at once on one device",
    "cifar": "training a CIFAR-10 net from a set in memory",
    "decode": "decoding a set of JPEG files once, as the resident loader does",
    "loader": "a batch to the network's input, from memory and from JPEG files",
    "loader-and-step": "a training step fed from memory and from JPEG files",
    "start": "the command line's start, `repro --help`",
    "judge": "the verdicts of 1,000 records",
    "report": "the page of a small store",
}
"""What can be timed; ``repro.bench.cases`` says how."""

FROM_FILES = ("decode", "loader", "loader-and-step")
"""The cases that read pictures."""


class Net(NamedTuple):
    """A net: sides in pixels of stored pictures and of the crops it sees, maps and side of its first LRN, classes."""

    stored: int
    crop: int
    maps: int
    map_side: int
    classes: int


NETS = {
    "alexnet": Net(256, 224, 96, 55, 1000),
    "alexnet-32": Net(32, 28, 32, 28, 10),
    "18pct": Net(32, 32, 32, 16, 10),
}
"""The nets whose step can be timed."""

GROSS = 0.9
FALSE_ALARM = 0.01
GROSSLY = "grossly slower"
"""What ours is called where its rate is surely below GROSS of that in an earlier run. Where nothing changed, the chance
that any case of a comparison is called so is at most FALSE_ALARM."""

NOISES = 3.0
"""A peer that runs none of our code tells a slow machine from slow code. In a case without one, ours must also be
slower by the noise of both runs to this power: so many times as far on a logarithmic scale."""

MACHINE = ("system", "cpu", "cpu_capability", "cores", "threads", "device", "cuda", "cudnn", "python", "torch",
           "torchvision", "nvidia_dali_cuda130", "nvidia_dali_cuda120")  # fmt: skip
"""The keys of the environment that must be equal in two runs for their rates to be compared."""


class Ran(Frozen):
    """One case: each side's units a second, one a round; ``floor`` is the rate of ours at the device's limits."""

    name: str
    what: str
    unit: str
    rates: dict[str, tuple[float, ...]]
    foreign: tuple[str, ...] = ()
    floor: float | None = None
    no_floor: str = ""
    """Why there is no floor."""
    missing: dict[str, str] = Field(default_factory=dict)
    """Peers that could not be timed there, and why."""
    also: tuple[tuple[str, str], ...] = ()
    """Pairs of peers; the ratio of the first over the second is reported with those of ours."""

    @property
    def peers(self) -> tuple[str, ...]:
        """The sides that are not ours."""
        return tuple(side for side in self.rates if side not in (OURS, AGAIN))


class Run(Frozen):
    """A run: raw rates, where, when and by which command, and how busy the machine was (load average, 1 minute)."""

    schema_: int = Field(alias="schema", default=SCHEMA)
    made: str
    command: str
    rounds: int
    settings: dict[str, JsonValue]
    environment: dict[str, JsonValue]
    load: tuple[float, ...]
    cases: tuple[Ran, ...]
    not_measured: dict[str, str]


QUIET = 1.1
"""From this noise on no run shows that there is no difference: else noisier machines would show that more often."""


class Told(NamedTuple):
    """A ratio of rates, ours over a peer's: the median of the rounds, and the interval of their geometric mean.

    ``noise`` is what the interval was compared with to find the word; None of a peer over a peer, judged by the
    interval alone.
    """

    median: float
    mean: Estimate
    word: str
    noise: float | None

    @property
    def judged(self) -> str:
        """The word, and what it rests on."""
        return f"{self.word} ({'interval alone' if self.noise is None else f'noise {self.noise:.2f}'})"


class Change(NamedTuple):
    """A case in two runs, as ratios of now over then.

    ``judged`` is ours over the peers in ``beside``, which run none of our code; ours alone where there are none.
    The change is gross where even its upper end is below ``limit``. ``ours`` and ``peers`` are the rates by themselves.
    """

    name: str
    judged: Estimate
    beside: tuple[str, ...]
    ours: Estimate
    peers: dict[str, Estimate]
    limit: float
    word: str

    @property
    def gross(self) -> bool:
        return self.word == GROSSLY


class BenchError(Problem):
    """A run cannot be read, or cannot be compared with another."""


def rate(ran: Ran) -> float:
    """Return the median over the rounds of ours, in units a second, from both slices of each round."""
    return statistics.median(_both(ran))


def again(ran: Ran) -> Estimate:
    """Return ours again over ours: 1, but for noise."""
    return _paired(ran.rates[AGAIN], ran.rates[OURS])


def noise(ran: Ran) -> float:
    """Return the factor, 1 or more, by which ours differs from itself: the farther end of the interval of ``again``."""
    found = again(ran)
    return max(found.high, 1 / found.low if found.low > 0 else math.inf, 1.0)


def ratio(ran: Ran, peer: str, of: str = OURS) -> Told:
    """Return ours over a peer; ours is the geometric mean of its two slices of a round, which lie around the peer's.

    The word is "faster" or "slower" where the whole interval lies beyond the noise; "no difference shown" where it lies
    within the noise and contains 1, and the noise is below QUIET; else "not resolved": more rounds, or a quieter
    machine, would decide.

    With another peer as ``of``, the ratio is that peer over ``peer``. The noise of a peer is unknown, as it has one
    slice a round, and that of ours does not apply. So the word is "faster" or "slower" where the interval excludes 1,
    else "not resolved".
    """
    ours, theirs = _both(ran) if of == OURS else ran.rates[of], ran.rates[peer]
    found, limit = _paired(ours, theirs), noise(ran) if of == OURS else None
    word = "not resolved"
    if found.low > (limit or 1.0):
        word = "faster"
    elif found.high < 1 / (limit or 1.0):
        word = "slower"
    elif limit and limit < QUIET and 1 / limit <= found.low <= 1 <= found.high <= limit:
        word = "no difference shown"
    return Told(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), found, word, limit)


def changes(now: Run, then: Run, rounds: int = 1) -> list[Change]:
    """Return how the cases of both runs changed; ``refuse_unlike`` says whether the runs may be compared.

    ``rounds`` is as in ``change``; the cases share the chance of a false alarm equally.
    """
    old = {ran.name: ran for ran in then.cases}
    both = [ran for ran in now.cases if ran.name in old]
    return [change(ran, old[ran.name], rounds, len(both)) for ran in both]


def joined(runs: Sequence[Run]) -> Run:
    """Return runs of the same code and cases, each from its own process, as one: all their rounds, run after run.

    Sides that some of them lack are left out, and so are ratios of these sides.
    """
    first = runs[0]
    by_name = [{ran.name: ran.rates for ran in run.cases} for run in runs]
    cases = []
    for ran in first.cases:
        each = [rates[ran.name] for rates in by_name]
        shared = [side for side in ran.rates if all(side in rates for rates in each)]
        joint = {side: tuple(v for r in each for v in r[side]) for side in shared}
        also = tuple(pair for pair in ran.also if {*pair} <= {*shared})
        cases.append(ran.model_copy(update={"rates": joint, "also": also}))
    return first.model_copy(update={"cases": tuple(cases), "rounds": sum(run.rounds for run in runs)})


def change(now: Ran, then: Ran, rounds: int = 1, among: int = 1) -> Change:
    """Return how one case changed; ``among`` is how many cases share the chance of a false alarm.

    Other work on the machine affects all sides of a round alike, and foreign peers have the same code in both runs. So
    what is judged is ours over their geometric mean, round by round. ``rounds`` rounds in a row, say those of one
    process, count as one value, their geometric mean: so differences between processes count, say in where their memory
    lies.
    """

    def _apart(of: Sequence[float], over: Sequence[float], confidence: float) -> Estimate:
        """Return the ratio of the geometric means of two runs with Welch's interval on the logarithms."""
        return ratio_interval(log_sample(_means(of, rounds)), log_sample(_means(over, rounds)), confidence)

    shared = [peer for peer in now.peers if peer in then.peers]
    beside = tuple(peer for peer in shared if peer in now.foreign and peer in then.foreign)
    judged = _apart(_beside(now, beside), _beside(then, beside), 1 - 2 * FALSE_ALARM / among)
    limit = GROSS if beside else min((noise(now) * noise(then)) ** -NOISES, GROSS)
    peers = {peer: _apart(now.rates[peer], then.rates[peer], CONFIDENCE) for peer in shared}
    word = "not grossly slower"
    if judged.high < limit:
        word = GROSSLY
    elif beside and all(peers[peer].high < GROSS for peer in beside):
        word += ", but what runs none of our code is slower: the machine is"
    return Change(now.name, judged, beside, _apart(_both(now), _both(then), CONFIDENCE), peers, limit, word)


def told(change: Change, of: str = "rounds") -> list[str]:
    """Return lines that say how a case changed: what is judged, then the rates alone; ``of`` is what n counts."""
    n = change.judged.n
    seen = f"now over then {_interval(change.judged)}, n = {n[0]} + {n[1]} {of}"
    beside = ", ".join(change.beside) or "nothing, for want of a peer that runs none of our code"
    return [
        f"{change.name}: {seen}: {change.word} (gross: surely below {change.limit:.3g})",
        f"  beside {beside}",
        f"  ours alone {_interval(change.ours)}",
        *(f"  {peer} alone {_interval(found)}" for peer, found in change.peers.items()),
    ]


SAME_CODE = "both sides have the same code: what differs is noise"


def same_code(now: Run, then: Run) -> bool:
    """Return whether two runs are surely of the same code."""
    digest = now.environment.get("code_digest")
    return digest is not None and digest == then.environment.get("code_digest")


def compared(now: Run, then: Run) -> list[str]:
    """Return lines that name the earlier run, and say so where both runs have the same code."""
    e = then.environment
    commit = f"{str(e.get('commit'))[:12]}{' with changes' if e.get('dirty') else ''}"
    lines = [f"then: commit {commit}, made {then.made}, load {loads(then)}"]
    return lines + [SAME_CODE] * same_code(now, then)


def loads(run: Run) -> str:
    """Return how many processes wanted a core as a run began and as it ended, where that is known."""
    return " to ".join(f"{value:g}" for value in run.load) or "unknown"


def _interval(of: Estimate) -> str:
    return f"{of.value:.3f} ({of.low:.3f} to {of.high:.3f})"


def refuse_unlike(
    environment: Mapping[str, Any], settings: Mapping[str, Any], names: Sequence[str], then: Run
) -> None:  # fmt: skip
    """Raise BenchError, naming key and both values, where an earlier run had another machine or other work.

    It is also raised where that run holds none of the cases called ``names``.
    """
    old = [ran.name for ran in then.cases]
    if not set(names) & set(old):
        raise BenchError(f"nothing to compare: the earlier run holds {', '.join(old) or 'no case'}")
    pairs = [(key, environment.get(key), then.environment.get(key)) for key in MACHINE]
    pairs += [(key, settings.get(key), then.settings.get(key)) for key in sorted({*settings, *then.settings})]
    told = [f"{key}: {ours!r} here, {theirs!r} there" for key, ours, theirs in pairs if ours != theirs]
    if told:
        raise BenchError("rates of unlike runs say nothing about the code; " + "; ".join(told))


def dumped(run: Run) -> str:
    """Return a run as JSON: raw rates, and a ``summary`` that follows from these."""
    raw = run.model_dump(mode="json", by_alias=True)
    return json.dumps(raw | {"summary": {ran.name: _summary(ran) for ran in run.cases}}, indent=1) + "\n"


def load(path: Path) -> Run:
    """Return a run as ``dumped`` wrote it. Raises BenchError where it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or "not JSON"
        raise BenchError(f"{path}: {why}; give a file that `repro bench --json FILE` wrote") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise BenchError(f"{path}: no run of schema {SCHEMA}; give a file that `repro bench --json FILE` wrote")
    found.pop("summary", None)
    try:
        run = Run.model_validate_json(json.dumps(found))
        for ran in run.cases:
            _refuse_unusable(ran)
    except ValidationError as error:
        raise BenchError(f"{path}: {faults_in(error, Run)[0]}") from error
    except ValueError as error:
        raise BenchError(f"{path}: {error}") from error
    return run


def _refuse_unusable(ran: Ran) -> None:
    if not {OURS, AGAIN} <= ran.rates.keys():
        raise ValueError(f"the case {ran.name!r} lacks the rates of ours")
    if len({len(values) for values in ran.rates.values()}) > 1 or len(ran.rates[OURS]) < 2:
        raise ValueError(f"the case {ran.name!r} needs at least 2 rounds, as many of each side")
    if any(value <= 0 for values in ran.rates.values() for value in values):
        raise ValueError(f"the case {ran.name!r} has rates that are not above 0")
    if not {side for pair in ran.also for side in pair} <= {*ran.peers}:
        raise ValueError(f"the case {ran.name!r} tells of a peer that it has no rates of")


def _summary(ran: Ran) -> dict[str, Any]:
    told = {peer: ratio(ran, peer) for peer in ran.peers} | {f"{a} over {b}": ratio(ran, b, a) for a, b in ran.also}
    return {
        "rate": rate(ran),
        "again": {"value": again(ran).value, "low": again(ran).low, "high": again(ran).high},
        "noise": noise(ran),
        "of_floor": rate(ran) / ran.floor if ran.floor else None,
        "ratios": {
            peer: {"median": t.median, "mean": t.mean.value, "low": t.mean.low, "high": t.mean.high, "n": t.mean.n[0],
                   "word": t.word, "noise": t.noise}
            for peer, t in told.items()
        },
    }  # fmt: skip


def _both(ran: Ran) -> list[float]:
    """Return a rate of ours a round: the geometric mean of its two slices, so that a steady drift cancels."""
    return [math.sqrt(a * b) for a, b in zip(ran.rates[OURS], ran.rates[AGAIN], strict=True)]


def _beside(ran: Ran, peers: Sequence[str]) -> list[float]:
    """Return ours over the geometric mean of ``peers``, one a round; ours alone where there are none."""
    return [
        ours / statistics.geometric_mean(theirs) if theirs else ours
        for ours, *theirs in zip(_both(ran), *(ran.rates[peer] for peer in peers), strict=True)
    ]


def _over(of: Sequence[float], over: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(of, over, strict=True)]


def _paired(of: Sequence[float], over: Sequence[float]) -> Estimate:
    """Return the geometric mean of the rounds' ratios with Student's interval on their logarithms."""
    log = mean_interval(log_sample(_over(of, over)), CONFIDENCE)
    return log._replace(value=math.exp(log.value), low=math.exp(log.low), high=math.exp(log.high))


def _means(values: Sequence[float], count: int) -> list[float]:
    """Return the geometric mean of each group of ``count`` consecutive values."""
    return [statistics.geometric_mean(values[i : i + count]) for i in range(0, len(values), count)]
