"""The cases of `repro bench` through pytest-benchmark, for its tables, its files and its comparisons.

What a case times, beside what, and what is made of it are `repro bench`'s own: see docs/bench.md. pytest-benchmark goes
through the rounds.
"""

import json
import os
from functools import partial
from itertools import count
from time import perf_counter

import pytest

from repro.bench import results, run, timing
from repro.bench.timing import AGAIN, OURS, Side
from repro.running.runner import pick_device

ROUNDS = int(os.environ.get("REPRO_BENCHMARK_ROUNDS", "7"))  # 2 at least
BATCH = int(os.environ.get("REPRO_BENCHMARK_BATCH", "128"))


def timer():
    """Return seconds divided by the images (or what else) of a slice of ours: the table is of one of them."""
    return perf_counter() / timer.units


timer.units = 1.0  # until a case is made


def in_turns(benchmark, sides, rounds, *, clock, wait=timing.nothing):
    """Return what ``timing.rates`` does, from slices in the same order, of which pytest-benchmark times ours."""
    calls = [timing.calls_a_slice(side, clock, wait, timing.SLICE_S) for side in sides]
    others = [*((side.name, at) for at, side in enumerate(sides) if at), (AGAIN, 0)]
    found = {name: [] for name, _ in [(OURS, 0), *others]}
    timer.units = calls[0] * sides[0].units

    def take(name, at):
        seconds = timing.seconds(sides[at], calls[at], clock, wait)
        found[name].append(calls[at] * sides[at].units / seconds)

    def beside(order):
        """Take the others behind ours and, as a round with ours at its end, before it, every other time."""
        if len(found[OURS]) % 2:
            for name, at in order:
                take(name, at)

    benchmark.pedantic(
        lambda: take(OURS, 0),
        setup=lambda: beside(others[::-1]),
        teardown=lambda: beside(others),
        rounds=rounds,
    )
    return found


@pytest.mark.benchmark(timer=timer)
@pytest.mark.parametrize("name", results.CASES)
def test_case(benchmark, monkeypatch, name):
    """Ours in pytest-benchmark's table; with it the peers, ours again (A/A), and the share of the roofline."""

    def heard(found, _name):
        if isinstance(found, Exception):
            raise found

    monkeypatch.setattr(run, "rates", partial(in_turns, benchmark))
    with run.with_pictures(run.settings(None, BATCH, pick_device("auto")), [name], None) as s:
        command = os.environ["PYTEST_CURRENT_TEST"]
        found = run.measure([name], s, rounds=ROUNDS, command=command, data="synthetic", heard=heard)
    told = json.loads(results.dumped(found))
    summary = told.pop("summary")[name]
    benchmark.extra_info.update({f"{found.cases[0].unit}_per_s": summary.pop("rate"), **summary, "run": told})


class Pedantic:
    """What pytest-benchmark does."""

    def pedantic(self, target, *, setup, teardown, rounds):
        for _ in range(rounds):
            setup()
            target()
            teardown()


def test_sides_take_turns_as_in_repro_bench():
    def of(rates):
        log, now = [], count()
        sides = [Side(name, partial(log.append, name), units) for units, name in enumerate("abc", 1)]
        return rates(sides, 3, clock=lambda: float(next(now))), log

    assert of(partial(in_turns, Pedantic())) == of(timing.rates)
