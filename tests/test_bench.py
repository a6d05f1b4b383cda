import json
import math
import re
import sys
import tempfile
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import t as student
from torch._subclasses.fake_tensor import FakeTensorMode

from repro import environment
from repro.bench import cases, desk, feeding, floor, results, run, setting, timing, together
from repro.bench.plain import plain
from repro.bench.results import BenchError, Ran, Run
from repro.bench.timing import AGAIN, OURS, Side
from repro.cli import main
from repro.data import drawn, processes
from repro.models import cifar
from repro.models.alexnet import AlexNet, build, layers
from repro.problem import Problem


class World:
    """A clock that only work moves: a call costs its seconds times ``slowdown`` of the time it is."""

    def __init__(self, slowdown=lambda now: 1.0):
        self.now, self.slowdown, self.log = 0.0, slowdown, []

    def spend(self, seconds):
        self.now += seconds * self.slowdown(self.now)

    def side(self, name, seconds, units=1.0, first=0.0, **more):
        called = []

        def call():
            self.log.append(name)
            self.spend(seconds if called else seconds + first)
            called.append(True)

        return Side(name, call, units, **more)

    def rates(self, sides, rounds, **more):
        return timing.rates(sides, rounds, clock=lambda: self.now, **more)


def test_rates_are_units_over_seconds_of_warm_slices():
    world = World()
    found = world.rates([world.side("a", 0.01, 128, first=50.0), world.side("b", 0.04, 128, first=50.0)], 3)
    assert list(found) == [OURS, "b", AGAIN]
    for name, rate in ((OURS, 12_800), ("b", 3_200), (AGAIN, 12_800)):
        assert found[name] == pytest.approx([rate] * 3)


def test_a_slice_is_long_enough_and_rounds_turn_about():
    world = World()
    sides = [world.side("a", 0.01), world.side("b", 2.0)]
    found = world.rates(sides, 2, slice_s=0.5)
    assert len(found[OURS]) == 2
    runs = [(name, len(list(group))) for name, group in groupby(world.log)]
    # behind the warm-up: a, b, a of the first round and a, b, a of the second, which goes backwards
    assert [name for name, _ in runs[-5:]] == ["a", "b", "a", "b", "a"]
    first, _, middle, _, last = (count for _, count in runs[-5:])
    assert middle == 2 * last  # the end of one round and the start of the next lie side by side
    assert 0.5 <= 0.01 * last < 1.0
    assert first >= last


def test_a_machine_that_slows_down_steadily_changes_no_ratio():
    world = World(slowdown=lambda now: 1 + now / 20)
    found = world.rates([world.side("a", 0.01), world.side("b", 0.01)], 8)
    ran = Ran(name="x", what="", unit="", rates={k: tuple(v) for k, v in found.items()})
    assert found[OURS][0] / found[OURS][-1] > 1.2  # it did slow down
    assert results.ratio(ran, "b").mean.value == pytest.approx(1, abs=2e-3)
    assert results.again(ran).value == pytest.approx(1, abs=2e-3)  # every other round goes backwards
    assert results.noise(ran) > 1.01  # and yet the drift is in the noise


def test_what_lies_around_the_clock_costs_nothing_and_a_device_is_waited_for():
    world, queued = World(), []

    def wait():
        while queued:
            world.spend(queued.pop())

    # Calls return at once, the work comes later.
    device = Side("a", lambda: queued.append(0.01), 1, before=lambda: queued.append(7))
    around = world.side("b", 0.02, before=lambda: world.spend(3), after=lambda: world.spend(5))
    found = world.rates([device, around], 2, wait=wait)
    assert found[OURS] == pytest.approx([100, 100])
    assert found["b"] == pytest.approx([50, 50])


def test_what_holds_up_one_slice_of_the_warm_up_leaves_no_short_ones():
    world = World()
    world.slowdown = lambda _: 50.0 if len(world.log) == 2 else 1.0  # the first slice, behind the first call of all
    world.rates([world.side("a", 0.02)], 2)
    turns = [name for name, _ in groupby(world.log)]
    assert turns == ["a"]
    assert len(world.log) / 4 >= 0.25 / 0.02  # two slices a round


def test_a_clock_that_stands_still_does_not_hang():
    with pytest.raises(ZeroDivisionError):
        timing.rates([Side("a", timing.nothing, 1)], 1, clock=lambda: 0.0)


def test_sides_that_fail_are_told_apart_and_leave_nothing_behind():
    log = []

    def failing():
        raise ValueError("first line\nsecond")

    def side(name, call=timing.nothing, before=timing.nothing):
        return Side(name, call, 1, before=before, after=lambda: log.append(name))

    a, b = side("a"), side("b")
    found, missing = timing.working([a, side("x", failing), b, side("y", before=failing)])
    assert found == [a, b]
    assert missing == dict.fromkeys("xy", "ValueError: first line")
    assert log == ["a", "x", "b", "y"]  # what a side changed around its clock is put back
    with pytest.raises(ValueError, match="first line"):
        timing.working([side("ours", failing), a])
    assert timing.why(Problem("two\nlines")) == "two\nlines"
    assert timing.why(AssertionError()) == "AssertionError"


def ran(ours=(100.0,) * 4, again=(100.0,) * 4, name="x", floor=None, foreign=(), also=(), **peers):
    return Ran(name=name, what="w", unit="images", rates={OURS: ours, AGAIN: again, **peers}, floor=floor,
               foreign=foreign, also=also)  # fmt: skip


def a_run(*found, settings=None, where=None, not_measured=None):
    return Run(
        made="2026-01-01T00:00:00+00:00", command="repro bench", rounds=4, settings=settings or {"net": "n"},
        environment=where or {"cpu": "c"}, load=(0.5,), cases=found, not_measured=not_measured or {},
    )  # fmt: skip


def test_ratio_is_students_interval_of_the_logarithms_and_the_rounds_median():
    ours, again, peer = (100.0, 110.0, 90.0), (104.0, 100.0, 99.0), (50.0, 52.0, 40.0)
    told = results.ratio(ran(ours, again, b=peer), "b")
    logs = [math.log(math.sqrt(a * b) / c) for a, b, c in zip(ours, again, peer, strict=True)]
    mean = sum(logs) / 3
    half = student.ppf(0.95, 2) * math.sqrt(sum((x - mean) ** 2 for x in logs) / 2 / 3)
    assert told.mean.n == (3,)
    assert (told.mean.low, told.mean.value, told.mean.high) == pytest.approx(
        (math.exp(mean - half), math.exp(mean), math.exp(mean + half))
    )
    assert told.median == pytest.approx(sorted(math.exp(x) for x in logs)[1])


def test_a_peer_over_another_is_told_by_their_rounds_alone():
    case = ran(b=(50.0, 60.0, 40.0, 50.0), c=(25.0, 30.0, 20.0, 25.0), also=(("b", "c"),))
    assert (results.ratio(case, "c", "b").median, results.ratio(case, "c", "b").word) == (2, "faster")
    assert results.ratio(case, "c", "b").judged == "faster (interval alone)"
    summary = json.loads(results.dumped(a_run(case)))["summary"]["x"]["ratios"]
    assert [*summary] == ["b", "c", "b over c"]
    assert summary["b over c"]["median"] == 2
    joined = results.joined([a_run(case), a_run(ran(c=(25.0,) * 4))])  # in the second "b" was missing
    assert joined.cases[0].peers == ("c",)
    assert joined.cases[0].also == ()


NOISY = (100.0, 106.0, 99.0, 103.0)
LOUD = (100.0, 210.0, 110.0, 180.0)


@pytest.mark.parametrize(
    ("again", "peer", "word"),
    [
        (NOISY, (50.0, 51.0, 49.0, 50.0), "faster"),
        (NOISY, (200.0, 201.0, 199.0, 200.0), "slower"),
        (NOISY, (101.0, 102.5, 99.5, 101.5), "no difference shown"),
        (NOISY, (98.5, 101.5, 98.0, 100.0), "not resolved"),  # surely above 1, and by less than the noise
        (NOISY, (94.0, 99.0, 93.5, 97.5), "not resolved"),  # 5% above 1, and the noise is 5%
        (NOISY, (50.0, 200.0, 80.0, 120.0), "not resolved"),
        (LOUD, (110.0, 140.0, 105.0, 130.0), "not resolved"),  # the interval holds 1, and so it does where it is loud
        (LOUD, (70.0, 100.0, 70.0, 95.0), "not resolved"),  # half as fast again, within the noise
        (LOUD, (10.0, 15.0, 11.0, 13.0), "faster"),
    ],
)
def test_only_what_lies_beyond_the_noise_is_a_difference_and_a_loud_machine_shows_none(again, peer, word):
    case = ran((100.0,) * 4, again, b=peer)
    found, noise = results.ratio(case, "b"), results.noise(case)
    assert (1.03 < noise < 1.06) if again == NOISY else noise > 2
    assert found.word == word
    assert found.judged == f"{word} (noise {noise:.2f})"
    within = 1 / noise < found.mean.low < found.mean.high < noise
    assert within is (word in ("no difference shown", "not resolved") and peer[0] not in (94.0, 50.0))


@pytest.mark.parametrize("again", [(100.0,) * 4, NOISY, LOUD])
@pytest.mark.parametrize(
    ("peer", "word"),
    [
        ((50.0, 51.0, 49.0, 50.0), "slower"),
        ((98.0, 98.5, 98.0, 97.5), "slower"),
        ((103.0, 102.0, 102.5, 102.0), "faster"),
        ((99.0, 101.0, 100.0, 100.5), "not resolved"),
        ((100.0,) * 4, "not resolved"),
    ],
)
def test_a_peer_over_another_is_judged_without_the_noise_of_ours(again, peer, word):
    found = results.ratio(ran((100.0,) * 4, again, a=peer, b=(100.0,) * 4), "b", "a")
    assert (found.word, found.noise) == (word, None)
    assert found.judged == f"{word} (interval alone)"


def test_noise_is_never_below_one_and_counts_both_ways():
    assert results.noise(ran()) == 1
    up, down = ran(again=NOISY), ran(ours=NOISY, again=(100.0,) * 4)
    assert results.noise(up) == pytest.approx(results.noise(down))


STEADY = (100.0, 101.0, 99.0, 100.0)


def times(factor, values=STEADY):
    return tuple(factor * value for value in values)


SHAKY = (100.0, 240.0, 60.0, 130.0)


@pytest.mark.parametrize(
    ("factor", "peer", "load", "gross"),
    [
        (0.5, 1.0, STEADY, True),
        (0.5, 0.5, STEADY, False),  # what runs none of our code halved as well
        (0.5, 2.0, STEADY, True),
        (0.93, 1.0, STEADY, False),  # surely slower, not grossly
        (0.85, 1.0, STEADY, True),
        (0.85, 1.0, SHAKY, True),  # the machine's swings are the peer's, too
        (2.0, 1.0, STEADY, False),
        (1.0, 1.0, SHAKY, False),
    ],
)
def test_gross_is_surely_beyond_ten_per_cent_beside_what_runs_none_of_our_code(factor, peer, load, gross):
    theirs = tuple(rate * shake for rate, shake in zip(load, (0.5, 0.505, 0.495, 0.5), strict=True))
    then = ran(STEADY, STEADY, b=times(0.5), foreign=("b",))
    now = ran(times(factor, load), times(factor, load), b=times(peer, theirs), foreign=("b",))
    found = results.change(now, then)
    assert found.gross is gross
    assert found.judged.value == pytest.approx(factor / peer, rel=0.001)
    assert found.peers["b"].value == pytest.approx(peer * math.prod(load) ** 0.25 / 100, rel=0.001)
    assert (found.limit, found.beside) == (0.9, ("b",))
    assert ("the machine is" in found.word) is ((factor, peer) == (0.5, 0.5))


def test_what_is_judged_is_welchs_interval_of_the_processes_at_their_share_of_a_false_alarm():
    """Two processes of two rounds each side; the peers' geometric mean is 10 throughout."""
    then = ran((100.0, 110.0, 90.0, 95.0), (100.0, 110.0, 90.0, 95.0), b=(5.0,) * 4, c=(20.0,) * 4, foreign=("b", "c"))
    now = ran((70.0, 60.0, 80.0, 75.0), (70.0, 60.0, 80.0, 75.0), b=(5.0,) * 4, c=(20.0,) * 4, foreign=("b", "c"))
    found = results.change(now, then, rounds=2, among=4)
    a, b = ([math.log(x * y) / 2 for x, y in each] for each in (((100, 110), (90, 95)), ((70, 60), (80, 75))))
    va, vb = ((x[0] - x[1]) ** 2 / 4 for x in (a, b))
    half = student.ppf(1 - 0.01 / 4, (va + vb) ** 2 / (va**2 + vb**2)) * math.sqrt(va + vb)
    middle = sum(b) / 2 - sum(a) / 2
    assert found.judged.n == (2, 2)
    assert found.judged[:3] == pytest.approx([math.exp(middle + x) for x in (0, -half, half)])


@pytest.mark.parametrize(("again", "gross"), [(STEADY, True), (NOISY, False)])
def test_without_a_peer_ours_alone_is_judged_and_three_times_the_noise_with_it(again, gross):
    found = results.change(ran(times(0.85), times(0.85, again)), ran(STEADY, again))
    assert found.beside == ()
    assert found.gross is gross
    assert found.judged[:3] == results.change(ran(times(0.85), times(0.85, again)), ran(STEADY, again)).judged[:3]
    assert found.limit <= 0.9


def test_a_change_is_told_with_what_it_was_judged_beside():
    now = ran(times(0.5), times(0.5), b=times(0.25), foreign=("b",))
    first, *rest = results.told(results.change(now, ran(STEADY, STEADY, b=times(0.25), foreign=("b",))), "turns")
    assert re.fullmatch(
        r"x: now over then 0\.500 \([\d.]+ to [\d.]+\), n = 4 \+ 4 turns: grossly slower .*0\.9\)", first
    )
    assert [line.split(" (")[0] for line in rest] == ["  beside b", "  ours alone 0.500", "  b alone 1.000"]
    assert "for want of a peer" in results.told(results.change(ran(), ran()))[1]


def test_a_peer_that_runs_our_code_is_no_excuse():
    then, now = ran(STEADY, STEADY, b=STEADY), ran(times(0.5), times(0.5), b=times(0.5))
    assert results.change(now, then).gross


def by_chance(rng, rounds, processes, factor=1.0):
    """Return five cases of so many processes on a machine whose speed swings twofold; ours swings by itself as well."""

    def case(name):
        machine = np.repeat(rng.normal(0, 0.7, processes), rounds) + rng.normal(0, 0.3, rounds * processes)
        own = np.repeat(rng.normal(0, 0.05, processes), rounds)
        ours, again, peer = (machine + rng.normal(0, 0.1, rounds * processes) for _ in range(3))
        slower = math.log(factor)
        return ran(*(tuple(np.exp(x + own + slower)) for x in (ours, again)), name=name, b=tuple(np.exp(peer)),
                   foreign=("b",))  # fmt: skip

    return a_run(*(case(name) for name in "vwxyz"))


@pytest.mark.parametrize(("factor", "least", "most"), [(1.0, 0.0, 0.01), (0.5, 0.98, 1.0)])
def test_one_comparison_in_a_hundred_is_a_false_alarm_at_most_and_half_the_speed_is_seen(
    monkeypatch, factor, least, most
):
    """400 comparisons of five cases, made up; without the floor of ten per cent, which makes false alarms rarer."""
    if factor == 1:
        monkeypatch.setattr(results, "GROSS", 1.0)
    rng = np.random.default_rng(7)
    red = [
        [c.gross for c in results.changes(by_chance(rng, 4, 5, factor), by_chance(rng, 4, 5), 4)] for _ in range(400)
    ]
    found = np.mean([any(case) for case in red] if factor == 1 else [case[0] for case in red])
    assert least <= found <= most + 2 * math.sqrt(0.01 * 0.99 / 400)


def test_only_cases_of_both_runs_are_compared():
    now, then = a_run(ran(name="a"), ran(name="b")), a_run(ran(name="b"), ran(name="c"))
    assert [change.name for change in results.changes(now, then)] == ["b"]


HERE = {key: f"{key} of ours" for key in results.MACHINE}


@pytest.mark.parametrize("key", results.MACHINE)
def test_another_machine_is_refused_by_name_and_both_values(key):
    then = a_run(ran(), where=HERE | {key: "theirs"})
    results.refuse_unlike(HERE, {"net": "n"}, ["x"], a_run(ran(), where=HERE))
    with pytest.raises(BenchError, match=f"{key}: '{key} of ours' here, 'theirs' there"):
        results.refuse_unlike(HERE, {"net": "n"}, ["x"], then)


def test_other_work_is_refused():
    with pytest.raises(BenchError, match="net: 'n' here, 'm' there"):
        results.refuse_unlike(HERE, {"net": "n"}, ["x"], a_run(ran(), where=HERE, settings={"net": "m"}))
    with pytest.raises(BenchError, match="the earlier run holds x"):
        results.refuse_unlike(HERE, {"net": "n"}, ["y"], a_run(ran(), where=HERE))


def test_the_keys_that_are_held_alike_are_keys_of_an_environment():
    assert set(results.MACHINE) <= set(environment.describe(torch.device("cpu")))


def test_a_file_holds_the_raw_rates_and_what_follows_from_them(tmp_path):
    case = ran(b=(50.0,) * 4, foreign=("b",), floor=400.0).model_copy(update={"missing": {"c": "why"}})
    written = a_run(case, not_measured={"loader": "why"})
    path = tmp_path / "run.json"
    path.write_text(results.dumped(written))
    assert results.load(path) == written
    summary = json.loads(path.read_text())["summary"]["x"]
    assert (summary["rate"], summary["of_floor"], summary["noise"]) == (100, 0.25, 1)
    assert summary["ratios"]["b"]["median"] == 2
    assert (summary["ratios"]["b"]["word"], summary["ratios"]["b"]["noise"]) == ("faster", 1)


GOOD = json.loads(results.dumped(a_run(ran())))
RATES = GOOD["cases"][0]["rates"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ("[]", "schema 1"),
        (GOOD | {"schema": 2}, "schema 1"),
        (GOOD | {"more": 1}, "unknown key"),
        ({k: v for k, v in GOOD.items() if k != "cases"}, "cases: missing"),
        (GOOD | {"cases": [GOOD["cases"][0] | {"rates": {OURS: [1.0, 1.0]}}]}, "lacks the rates of ours"),
        (GOOD | {"cases": [GOOD["cases"][0] | {"rates": RATES | {"b": [1.0]}}]}, "as many of each side"),
        (GOOD | {"cases": [GOOD["cases"][0] | {"rates": RATES | {"b": [1.0, 0.0, 1.0, 1.0]}}]}, "not above 0"),
        (GOOD | {"cases": [GOOD["cases"][0] | {"also": [["b", "c"]]}]}, "no rates of"),
    ],
)
def test_a_file_that_is_no_run_is_one_line(tmp_path, content, said):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BenchError, match=said) as error:
        results.load(path)
    assert "\n" not in str(error.value)


@pytest.fixture
def repro(tmp_path, monkeypatch):
    """Run the command in an empty folder, with one kind of pictures and short slices."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def _repro(*args):
        result = CliRunner().invoke(main, ["bench", *map(str, args)], prog_name="repro")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert not list((tmp_path / "temporary").glob("repro-bench-*"))
        return result

    return _repro


@pytest.fixture
def fake(monkeypatch):
    """Let a case be made of nothing, and have the rates that are asked for."""
    table = {"step": {OURS: STEADY, AGAIN: STEADY, "plain torch": times(0.5)}}

    def made(name):
        def case(_settings, _stack):
            sides = [Side(peer, timing.nothing, 1, foreign=True) for peer in table["step"] if peer != AGAIN]
            return cases.Case("images", name, tuple(sides), no_floor="no floor")

        return case

    monkeypatch.setattr(cases, "CASES", {name: made(name) for name in results.CASES})
    monkeypatch.setattr(run, "rates", lambda sides, rounds, **_: table["step"])
    return table


def test_ends_well_and_writes_the_run(repro, fake, tmp_path):
    found = repro("step", "--json", "new/run.json")
    assert found.exit_code == 0
    assert "2.000 (" in found.output
    assert "faster" in found.output
    assert found.output.splitlines()[-1] == "1 timed, 0 not measured"
    assert results.load(tmp_path / "new" / "run.json").cases[0].rates["plain torch"] == times(0.5)


@pytest.mark.parametrize(
    ("factor", "code", "said"), [(0.5, 1, "grossly slower: step"), (1.0, 0, "none grossly slower")]
)
def test_exit_code_and_last_line_tell_of_gross_slowing(repro, fake, factor, code, said):
    assert repro("step", "--json", "old.json").exit_code == 0
    fake["step"] |= {OURS: times(factor), AGAIN: times(factor)}
    found = repro("step", "--against", "old.json")
    assert found.exit_code == code
    assert found.output.splitlines()[-1] == f"1 timed, 0 not measured; 1 compared with old.json, {said}"


@pytest.mark.parametrize("same", [True, False])
def test_what_it_is_compared_with_is_told(repro, fake, tmp_path, same):
    assert repro("step", "--json", "old.json").exit_code == 0
    old = json.loads((tmp_path / "old.json").read_text())
    old |= {"made": "2026-01-02T03:04:05+00:00", "load": [0.5, 1.25]}
    old["environment"] |= {"commit": "0123456789abcdef", "dirty": not same}
    if not same:
        old["environment"]["code_digest"] = "another"
    (tmp_path / "old.json").write_text(json.dumps(old))
    told = repro("step", "--against", "old.json").output.splitlines()
    changed = "" if same else " with changes"
    at = told.index(f"then: commit 0123456789ab{changed}, made 2026-01-02T03:04:05+00:00, load 0.5 to 1.25")
    assert (told[at + 1] == "both sides have the same code: what differs is noise") is same
    assert told[at + 1 + same].startswith("step: now over then ")


def test_runs_whose_code_is_not_known_are_not_told_to_be_of_one():
    assert results.compared(a_run(), a_run().model_copy(update={"load": ()})) == [
        "then: commit None, made 2026-01-01T00:00:00+00:00, load unknown"
    ]


def test_another_machine_is_refused_before_anything_is_timed(repro, fake, tmp_path, monkeypatch):
    assert repro("step", "--json", "old.json").exit_code == 0
    old = json.loads((tmp_path / "old.json").read_text())
    old["environment"]["torch"] = "1.0"
    (tmp_path / "old.json").write_text(json.dumps(old))
    monkeypatch.setattr(run, "rates", None)
    found = repro("step", "--against", "old.json")
    assert found.exit_code == 2
    assert "'1.0' there" in found.output
    assert repro("step", "--batch", "8", "--against", "old.json").exit_code == 2
    old["environment"]["torch"] = torch.__version__
    old["settings"]["workers"] = 40
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert f"workers: {processes.cores()} here, 40 there" in repro("step", "--against", "old.json").output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["stp"], "did you mean step?"),
        (["--net", "alexnet32"], "did you mean alexnet-32?"),
        (["--rounds", "1"], "--rounds"),
        (["--batch", "0"], "--batch"),
        (["--device", "gpu"], "use auto, cpu, cuda or cuda:N"),
        (["loader", "--data", "nowhere"], "nowhere"),
        (["step", "--data", "."], "--data is for decode, loader and loader-and-step"),
        (["lrn", "--compile"], "--compile is for step"),
        (["--against", "nowhere.json"], "nowhere.json"),
        (["loader", "--batch", "60"], "fewer than a batch"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(repro, fake, monkeypatch, args, said):
    monkeypatch.setattr(drawn, "COUNTS", {"train": 20, "val": 4})
    found = repro(*args)
    assert found.exit_code == 2
    assert said in found.output
    assert len(found.output.strip().splitlines()) == 1


def test_what_cannot_be_measured_is_told_and_fails_where_it_was_named(repro, fake, monkeypatch):
    def lacking(_settings, _stack):
        raise Problem("no DALI")

    monkeypatch.setitem(cases.CASES, "loader", lacking)
    monkeypatch.setattr(drawn, "COUNTS", {"train": 200, "val": 4})
    named, all_ = repro("loader", "step"), repro()
    assert (named.exit_code, all_.exit_code) == (3, 0)
    assert "loader: not measured: no DALI" in named.output
    assert named.output.splitlines()[-1] == "1 timed, 1 not measured"
    assert all_.output.splitlines()[-1] == f"{len(results.CASES) - 1} timed, 1 not measured"


@pytest.mark.parametrize("error", [RuntimeError("a b\nc"), KeyError("a b"), AssertionError("a b"), MemoryError("a b")])
@pytest.mark.parametrize("where", ["made", "called"])
def test_no_failure_of_a_case_loses_the_others(repro, fake, monkeypatch, tmp_path, where, error):
    """Whatever its type, when a case is made and when it is timed; it fails the command, named or not."""

    def fail():
        raise error

    def case(_settings, stack):
        stack.callback(closed.append, "loader")
        return cases.Case("images", "w", (Side("repro", fail() if where == "made" else fail, 1),), no_floor="no floor")

    closed = []
    monkeypatch.setitem(cases.CASES, "optimizer", case)
    monkeypatch.setattr(drawn, "COUNTS", {"train": 200, "val": 4})
    for named in (["lrn", "optimizer", "step"], []):
        found = repro(*named, "--json", "run.json")
        told = results.load(tmp_path / "run.json")
        assert found.exit_code == 3
        assert f"{len(told.cases)} timed, 1 not measured" in found.output
        assert [ran.name for ran in told.cases] == [n for n in named or results.CASES if n != "optimizer"]
        assert re.fullmatch(rf"{type(error).__name__}: .?a b.?", told.not_measured["optimizer"])
        assert "Traceback" in found.stderr
        assert closed.pop() == "loader"


@pytest.mark.parametrize("where", ["made", "called", "later"])
def test_a_peer_that_is_missing_is_told_and_the_others_are_timed(repro, monkeypatch, tmp_path, where):
    """It cannot be made, or fails when it is called; one that only fails later takes its case along."""
    calls = []

    def fail():
        calls.append(None)
        if where != "later" or len(calls) > 3:
            raise RuntimeError("no such kernel\nmore")

    def case(_settings, _stack):
        missing = {}
        sides = [Side("repro", timing.nothing, 1)]
        made = setting.peer(missing, "a", lambda: fail() if where == "made" else Side("?", fail, 1))
        sides += [*made, Side("b", timing.nothing, 1, foreign=True)]
        return cases.Case("images", "w", tuple(sides), no_floor="no floor", missing=missing, also=(("a", "b"),))

    monkeypatch.setitem(cases.CASES, "step", case)
    monkeypatch.setattr(timing, "SLICE_S", 0.0)
    found = repro("step", "--rounds", "2", "--json", "run.json")
    told = results.load(tmp_path / "run.json")
    if where == "later":
        assert (found.exit_code, told.not_measured) == (3, {"step": "RuntimeError: no such kernel"})
        return
    assert found.exit_code == 0, found.output
    assert (told.cases[0].peers, told.cases[0].also) == (("b",), ())
    assert told.cases[0].missing == {"a": "RuntimeError: no such kernel"}
    assert "  a: not measured: RuntimeError: no such kernel\n" in found.output
    assert found.output.splitlines()[-1] == "1 timed, 0 not measured; 1 peer missing"


@pytest.mark.parametrize("where", ["made", "called"])
def test_ctrl_c_in_a_peer_stops_all(repro, monkeypatch, tmp_path, where):
    def stop():
        raise KeyboardInterrupt

    def case(_settings, _stack):
        made = setting.peer({}, "a", lambda: stop() if where == "made" else Side("", stop, 1))
        return cases.Case("images", "w", (Side("repro", timing.nothing, 1), *made), no_floor="no floor")

    monkeypatch.setitem(cases.CASES, "step", case)
    assert repro("step", "lrn", "--json", "run.json").exit_code == 130
    assert not (tmp_path / "run.json").exists()


def test_an_interrupt_leaves_nothing_half_written(repro, fake, monkeypatch, tmp_path):
    closed = []

    def stopped(_settings, stack):
        stack.callback(closed.append, "loader")
        raise KeyboardInterrupt

    monkeypatch.setitem(cases.CASES, "loader", stopped)
    monkeypatch.setattr(drawn, "COUNTS", {"train": 200, "val": 4})
    assert repro("step", "loader", "--json", "run.json").exit_code == 130
    assert closed == ["loader"]
    assert not (tmp_path / "run.json").exists()


def test_the_list_is_the_table_of_cases(repro):
    assert list(results.CASES) == list(cases.CASES)
    listed = repro("--list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.output.splitlines()] == list(cases.CASES)


@pytest.mark.parametrize("net", ["alexnet-32", "18pct"])  # alexnet is the same table, larger
def test_the_plain_net_computes_the_same(net, one_thread):
    s = setting.Settings(net, 2, torch.device("cpu"))
    model = setting.model_of(s).double()
    model.eval()  # dropout is chance
    twin = plain(model)
    own = {type(m).__module__ for m in twin.modules() if type(m).__module__.startswith("repro.")}
    assert own <= {"repro.bench.plain", "repro.models.layers"}  # of the latter the average pooling, torch's own
    x = torch.randn(2, 3, results.NETS[net].crop, results.NETS[net].crop, dtype=torch.float64) * 60
    ours, theirs = model(x), twin(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-7, atol=1e-12 * float(own.grad.abs().max() + 1))


def test_floor_of_the_published_net():
    """Worked out by hand from the shapes of section 3.5, two towers."""
    with torch.device("meta"):
        count = floor.counts(build(layers(AlexNet())), 224)
    lrn = 55 * 55 * 96 + 27 * 27 * 256
    convs = 55 * 55 * 96 + 27 * 27 * 256 + 13 * 13 * (384 + 384 + 256)
    pools = 27 * 27 * 96 + 13 * 13 * 256 + 6 * 6 * 256
    assert count.normalised == lrn
    assert count.values == 3 * 224 * 224 + convs + lrn + pools + 4096 + 4096 + 1000
    assert count.parameters == 60_965_224
    assert count.first == 55 * 55 * 96 * 363
    assert count.macs == pytest.approx(724.4e6, rel=1e-3)
    work = floor.step(count, 128)
    assert work.flop / 128 == pytest.approx(4.136e9, rel=1e-3)
    assert work.bytes_ == 4 * (128 * (6 * count.values + 5 * lrn) + 8 * count.parameters)
    assert floor.Work(6.0, 10.0).seconds(floor.Peak({"fp32": 2.0}, 5.0)) == 5
    half = floor.step(count, 128, "bf16")
    assert half.flop == work.flop
    assert half.bytes_ == 2 * 128 * (6 * count.values + 5 * lrn) + 32 * count.parameters


@pytest.mark.parametrize(("batch", "images_s"), [(128, 72_000), (1024, 94_000)])
def test_the_precision_chooses_the_peak(batch, images_s):
    """AlexNet on an H200 in bf16: 5.2 us an image for the products, 5.0 for the values, 0.45 ms a step for weights."""
    with torch.device("meta"):
        count = floor.counts(build(layers(AlexNet())), 224)
    peak = floor.PEAKS["NVIDIA H200"]
    assert batch / floor.step(count, batch, "bf16").seconds(peak, "bf16") == pytest.approx(images_s, rel=0.01)
    work = floor.step(count, batch)
    assert work == floor.step(count, batch, "tf32")  # which stores what single precision does
    apart = work.seconds(peak) - work.seconds(peak, "tf32")
    assert apart == pytest.approx(batch * 4.136e9 * (1 / 67e12 - 1 / 395e12), rel=1e-3)


def test_no_floor_is_told_of_a_device_without_one():
    s = setting.Settings("alexnet-32", 8, torch.device("cpu"))
    assert setting.floor_of(s, floor.Work(1.0, 1.0)) == (None, "no floor known for this device")


PEERS = {
    "step": ["plain torch", "plain torch, a process of its own"],
    "evaluation": ["plain torch"],
    "lrn": ["nn.LocalResponseNorm"],
    "optimizer": ["torch's SGD, foreach"],
    "together": ["stacked, 1 at once", "stacked, 2 at once"],
    "cifar": ["plain torch, set on the device", "plain torch, DataLoader"],
    "decode": ["Pillow, 1 thread"],
    "loader": ["DALI", "the package's DataLoader", "torchvision's script"],
    "loader-and-step": [
        "the step alone",
        "the step, DALI",
        "the step, the package's DataLoader",
        "plain torch, DataLoader",
        "torchvision's script",
    ],
    "start": ["repro list", "import click"],
    "judge": ["400 records", "scipy's Welch intervals alone"],
    "report": ["the verdicts alone", "its records, read as JSON"],
}


def test_every_case_runs(repro, monkeypatch, tmp_path, one_thread):
    pytest.importorskip("nvidia.dali")
    monkeypatch.setattr(drawn, "COUNTS", {"train": 64, "val": 8})
    monkeypatch.setattr(feeding, "SETTLE_S", 0.0)
    monkeypatch.setattr(feeding, "IN_MEMORY", 64)
    monkeypatch.setattr(run, "cores", lambda: 1)
    monkeypatch.setattr(together, "COUNTS", {"cpu": (1, 2)})
    for name, value in {"CLAIMS": 10, "FEW": 40, "MANY": 400, "SHOWN_CLAIMS": 1, "SHOWN": 4}.items():
        monkeypatch.setattr(desk, name, value)
    real, queued, taken = run.rates, feeding.queued, []
    monkeypatch.setattr(run, "rates", lambda *args, **more: real(*args, slice_s=0.001, **more))
    monkeypatch.setattr(feeding, "queued", lambda side, *args: taken.append(args[1:]) or queued(side, *args))
    found = repro("--batch", 8, "--rounds", 2, "--device", "cpu", "--json", "run.json")
    assert found.exit_code == 0, found.output
    told = results.load(tmp_path / "run.json")
    assert {ran.name: list(ran.peers) for ran in told.cases} == PEERS
    assert not any(ran.missing for ran in told.cases)
    assert len(taken) == 1 + 3 + 4  # what takes from workers, of cifar, loader and loader-and-step
    assert "by DALI, 1 thread" in next(ran.what for ran in told.cases if ran.name == "decode")
    assert told.environment["threads"] == 1
    assert told.settings["workers"] == 1
    assert told.command == "repro bench --net alexnet-32 --batch 8 --rounds 2 --device cpu"
    again = repro("lrn", "--batch", 8, "--rounds", 2, "--device", "cpu", "--against", "run.json")
    assert again.exit_code in (0, 1)  # two rounds of a millisecond say nothing of the speed
    assert "1 compared with run.json" in again.output


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_ours_has_the_precision_asked_for_and_its_peers_have_not(repro, fake, monkeypatch, tmp_path, precision):
    allowed = []

    def rates(sides, *_args, **_more):
        for side in sides:
            side.before()
            allowed.append((side.foreign, torch.backends.cudnn.conv.fp32_precision))
            side.after()
        return fake["step"]

    def case(s, _stack):
        made = setting.ours(s, torch.nn.Sequential(torch.nn.Linear(2, 2)))
        allowed.append((False, made(torch.ones(1, 2)).grad_fn.name()))
        return cases.Case(
            "images", "w", (Side(OURS, timing.nothing, 1), Side("plain torch", timing.nothing, 1, foreign=True))
        )

    monkeypatch.setitem(cases.CASES, "step", case)
    monkeypatch.setattr(run, "rates", rates)
    assert repro("step", "--precision", precision, "--json", "run.json").exit_code == 0
    told = results.load(tmp_path / "run.json")
    assert told.settings["precision"] == precision
    assert f"--precision {precision}" in told.command
    ((_, last), *switches) = allowed
    assert ("ToCopy" in last) is (precision == "bf16")  # back to float32
    assert switches == [(False, "tf32" if precision == "tf32" else "ieee"), (True, "ieee")]
    assert repro("step", "--against", "run.json").exit_code == 2  # of another precision


def test_without_dali_no_case_is_lost_and_what_reads_files_stands_beside_the_script(repro, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "repro.loading.dali", raising=False)
    monkeypatch.setattr(drawn, "COUNTS", {"train": 32, "val": 8})
    monkeypatch.setattr(feeding, "SETTLE_S", 0.0)
    monkeypatch.setattr(run, "cores", lambda: 1)
    real = run.rates
    monkeypatch.setattr(run, "rates", lambda *args, **more: real(*args, slice_s=0.001, **more))
    words = ["--net", "alexnet-32", "--batch", 8, "--rounds", 2, "--device", "cpu", "--json", "run.json"]
    found = repro("decode", "loader", "loader-and-step", *words)
    assert found.exit_code == 0, found.output
    told = {ran.name: ran for ran in results.load(tmp_path / "run.json").cases}
    assert found.output.splitlines()[-1] == "3 timed, 0 not measured; 2 peers missing"
    assert "by Pillow, 1 thread" in told["decode"].what
    script, by_loader = "torchvision's script", "the package's DataLoader"
    for name, absent, of in (
        ("loader", "DALI", by_loader),
        ("loader-and-step", "the step, DALI", f"the step, {by_loader}"),
    ):
        case = told[name]
        assert "from memory (JPEG files of 32 pixels, decoded once)" in case.what
        assert "reads them every epoch has 1 worker" in case.what
        assert [*case.peers] == [peer for peer in PEERS[name] if peer != absent]
        assert case.missing.keys() == {absent}
        assert case.missing[absent].startswith("the loader 'dali' needs NVIDIA DALI")
        assert f"  {absent}: not measured: the loader 'dali' needs" in found.output
        assert (of, script) in case.also
        assert not any(absent in pair for pair in case.also)
        assert case.foreign == (script,)


class Queue:
    """A DataLoader's batches, each of which takes a worker ``seconds()``, on a clock that only work and waiting move.

    By turns the workers are given the next batch whenever one is taken, two ahead; batches come in order.
    """

    def __init__(self, world, workers, seconds):
        self.world, self.seconds, self.given, self.taken, self.done = world, seconds, 0, 0, []
        self.busy_until = [0.0] * workers
        for _ in range(feeding.AHEAD * workers):
            self.give()

    def give(self):
        worker = self.given % len(self.busy_until)
        self.given += 1
        self.busy_until[worker] = max(self.world.now, self.busy_until[worker]) + self.seconds()
        self.done.append(self.busy_until[worker])

    def __next__(self):
        self.world.now = max(self.world.now, self.done[self.taken])
        self.taken += 1
        self.give()


@pytest.mark.parametrize("others", [0.01, 0.31, 1.5])
@pytest.mark.parametrize("share", [0, 0.5, 1.2])
@pytest.mark.parametrize("seconds", [0.6, 0.04])
@pytest.mark.parametrize(("workers", "batches"), [(1, 1), (4, 1), (8, 1), (16, 1), (16, 20)])
def test_what_takes_from_workers_is_timed_as_in_a_long_run(monkeypatch, workers, batches, seconds, share, others):
    """Within 5%, whatever the others take meanwhile, and these are alone with the machine.

    A batch takes a worker ``seconds`` with a standard deviation of 2%, and whoever takes it a ``share`` of the time
    in which all the workers make one: nothing, less, or more.
    """
    rng, own = np.random.default_rng(workers), share * seconds / workers

    def feeder():
        world = World()
        queue = Queue(world, workers, lambda: seconds * max(0.5, rng.normal(1, 0.02)))

        def take():
            next(queue)
            world.spend(own)

        return world, queue, take

    world, _, take = feeder()
    for number in range(60 * workers):
        if number == 20 * workers:
            start = world.now
        take()
    steady = 40 * workers / (world.now - start)

    world, queue, take = feeder()
    clock = SimpleNamespace(perf_counter=lambda: world.now, sleep=world.spend)
    monkeypatch.setattr(feeding, "time", clock)
    busy = []

    def alone():
        busy.append(max(queue.busy_until) > world.now)

    side = feeding.queued(Side("fed", lambda: [take() for _ in range(batches)], batches), queue, workers, batches)
    sides = [world.side("ours", 0.01, before=alone), side, world.side("other", others, before=alone)]
    timing.working(sides)
    busy.clear()
    found = world.rates(sides, 8)
    assert math.exp(np.mean(np.log(found["fed"]))) == pytest.approx(steady, rel=0.05)
    assert len(busy) > 24
    assert not any(busy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_copy_beside_lrn_moves_what_lrn_must(dtype):
    """There and back: the input twice, the gradient once, the output and the input's gradient."""
    both = [torch.zeros(2, 3, 5, 4, dtype=dtype) for _ in range(2)]
    pairs = cases.moving(both)
    moved = [part.numel() * part.element_size() for pair in pairs for part in pair]
    assert sum(moved) == sum(5 * x.numel() * x.element_size() for x in both)
    assert len({part.data_ptr() for pair in pairs for part in pair}) == 4  # two in turns, as LRN's batches
    cases._copied(pairs)
    assert all(torch.equal(to, source) for to, source in pairs)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_lrn_stands_beside_a_copy_on_a_gpu(monkeypatch, device):
    """Both are as many images a call, and each is recorded there."""
    recorded = []
    monkeypatch.setattr(cases, "replayed", lambda where, call: recorded.append(where.type) or call)
    monkeypatch.setattr(cases, "floor_of", lambda *_: (None, "none"))
    with FakeTensorMode():
        found = cases.response_norm(setting.Settings("alexnet-32", 2, torch.device(device)), ExitStack())
    names = ["repro", "nn.LocalResponseNorm", "a copy of as many bytes"][: 2 if device == "cpu" else 3]
    assert [side.name for side in found.sides] == names
    assert {side.units for side in found.sides} == {4}
    assert [side.foreign for side in found.sides] == [False, True, True][: len(names)]
    assert recorded == [device] * len(names)
    assert found.missing == {}


def test_torchs_lrn_that_a_cpu_lacks_in_bf16_is_told(repro, monkeypatch, tmp_path):
    """By torch 2.11 and 2.15; a later one may have it. Ours and the next case are timed either way."""
    x = torch.ones(1, 3, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    try:
        torch.nn.LocalResponseNorm(3)(x).sum().backward()
        lacking = set()
    except NotImplementedError:
        lacking = {"nn.LocalResponseNorm, bf16"}
    real = run.rates
    monkeypatch.setattr(run, "rates", lambda *args, **more: real(*args, slice_s=0.001, **more))
    words = ["--batch", 2, "--rounds", 2, "--device", "cpu", "--precision", "bf16", "--json", "run.json"]
    found = repro("lrn", "optimizer", *words)
    assert found.exit_code == 0, found.output
    told = {ran.name: ran for ran in results.load(tmp_path / "run.json").cases}
    assert told["lrn"].missing.keys() == lacking
    assert told["optimizer"].missing == {}


@pytest.mark.parametrize(
    ("device", "batch", "steps"),
    [("cpu", 1024, 1), ("cuda", 4, 20), ("cuda", 128, 20), ("cuda", 1024, 2), ("cuda", 4096, 1)],
)
def test_a_call_of_ours_is_no_longer_with_larger_batches_on_a_gpu(monkeypatch, device, batch, steps):
    """It takes the steps between two looks, and counts the images of all of them."""
    asked = []
    monkeypatch.setattr(setting, "update_for", lambda *_, captured: asked.append(captured))
    monkeypatch.setattr(setting, "Recent", lambda *of: asked.append(of[0]))
    monkeypatch.setattr(setting, "train", lambda *_, check_every, **_more: asked.append(check_every))
    s = setting.Settings("alexnet", batch, torch.device(device))
    side = setting.trainer(s, torch.nn.Identity(), iter(()), lambda x: x, optimizer=object())
    assert asked == [device == "cuda", steps, steps]
    assert side.units == steps * batch


def test_a_compiler_that_fails_without_a_word_is_told(monkeypatch):
    def compiled(_images):
        raise RuntimeError

    monkeypatch.setattr(torch, "compile", lambda _model: compiled)
    with pytest.raises(Problem, match=r"leave --compile out \(RuntimeError\)$"):
        cases._compiled(torch.nn.Identity(), torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))


def test_peers_of_the_step_have_single_precision_in_bf16_too(monkeypatch):
    """They are made of the model, whose class tells its precision."""
    monkeypatch.setattr(cases.apart, "side", lambda *_: Side("", timing.nothing, 1))
    trained = []
    monkeypatch.setattr(cases, "plain_trainer", lambda model, _take: trained.append(model))
    cases.step(setting.Settings("alexnet-32", 2, torch.device("cpu"), precision="bf16"), ExitStack())
    assert [type(model) is torch.nn.Sequential for model in trained] == [True, False]  # plain; in autocast


def test_the_predictions_of_the_profile_page_are_those_of_the_counts():
    """Every row of docs/profile.md's table of an H200, from the nets' shapes."""
    page = (Path(__file__).parents[1] / "docs" / "profile.md").read_text().split("## On an H200")[1]
    rows = re.findall(r"^\| (alexnet|18pct) \| (\w+) \| ([\d,]+) \| (.+) \| (.+) \| ([\d,]+) \|$", page, re.MULTILINE)
    assert len(rows) == 9
    peak = floor.PEAKS["NVIDIA H200"]
    with torch.device("meta"):
        nets = {"alexnet": build(layers(AlexNet())), "18pct": cifar.build("18pct", "relu")}
    for net, precision, batch, *told in rows:
        size = int(batch.replace(",", ""))
        work = floor.step(floor.counts(nets[net], results.NETS[net].crop), size, precision)
        products, moved = (1e3 * t for t in (work.flop / peak.flops[precision], work.bytes_ / peak.bytes_s))
        assert told == [f"{products:.3f}", f"{moved:.3f}", f"{size / work.seconds(peak, precision):,.0f}"]


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_timed(repro, fake, monkeypatch):
    """A run of all cases takes half an hour; that its file has no place is known at once."""
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr(run, "rates", lambda *_, **__: pytest.fail("it was timed"))
    found = repro("step", "--json", "run.json")
    assert found.exit_code == 2
    assert "--json run.json cannot be written; nothing was timed yet" in found.output
