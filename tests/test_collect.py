"""The script that collects evidence in bounded pieces, with a stand-in for Python that only writes down its call."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from repro import registry
from repro.bench import results

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "reports" / "collect.sh"
STAND_IN = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in *"$SLOW"*)
    trap 'touch "$CALLS.saved"; exit 130' INT; touch "$CALLS.waits"; sleep 60 > /dev/null 2>&1 & wait ;;
esac
for last; do :; done
case "$*" in *--json*) [ -z "$FOUND" ] || echo "$FOUND" > "$last" ;; esac
case "$*" in *"$WRONG"*) exit "${CODE:-3}" ;; esac
"""


@pytest.fixture
def collect(tmp_path):
    """Return what runs the script in a folder of its own, and gives its exit code, its last words and its calls."""
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def run(*arguments, **environment):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        given = {"PYTHON": str(stand_in), "CALLS": str(calls), "SLOW": "none", "WRONG": "none", **environment}
        found = subprocess.run(
            [str(SCRIPT), *arguments],
            cwd=tmp_path, env=os.environ | given, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return found.returncode, found.stderr, calls.read_text().splitlines() if calls.exists() else []

    return run


def claims_run(calls):
    """Return the claim and condition of each call that runs one."""
    words = [call.split() for call in calls]
    return [(w[4], w[w.index("--condition") + 1]) for w in words if w[:4] == ["-m", "repro", "run", "claim"]]


@pytest.mark.parametrize("piece", ["relu", "first", "errors", "speed"])
def test_every_condition_that_is_named_is_in_the_registry(collect, piece):
    claims = registry.load_registry(ROOT / "claims")
    code, _, calls = collect(piece, "store")
    assert code == 0
    named = claims_run(calls)
    assert named
    assert [pair for pair in named if pair[1] not in claims[pair[0]].conditions] == []
    assert len(set(named)) == len(named)


def test_the_headline_comes_first_and_paths_are_the_callers(collect, tmp_path):
    (tmp_path / "sets").mkdir()
    code, _, calls = collect("relu", "there/store", "sets", JOBS="3", DEVICE="cpu", CONDITION="smoke")
    assert code == 0
    assert calls[0].split() == [
        "-m", "repro", "run", "claim", "relu-speedup", "--condition", "smoke", "--device", "cpu", "--jobs", "3",
        "--store", f"{tmp_path}/there/store", "--data", f"{tmp_path}/sets",
    ]  # fmt: skip
    assert claims_run(collect("relu", "store")[2])[0] == ("relu-speedup", "cifar10")


def test_time_that_is_over_ends_the_call_with_a_code_of_its_own(collect):
    """What is under way is interrupted, and nothing else is begun."""
    code, told, calls = collect("first", "store", LIMIT="6", SLOW="lrn-error")
    assert code == 75
    assert "6 s are over; the same call goes on" in told
    assert len(calls) == 1
    assert collect("first", "store", LIMIT="4")[::2] == (75, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("collect")
def test_a_call_that_is_interrupted_passes_it_on_and_begins_nothing_else(tmp_path, number):
    """What it runs saves its state first, and the time is not said to be over."""
    given = {"PYTHON": tmp_path / "python", "CALLS": tmp_path / "calls", "SLOW": "lrn-error", "WRONG": "none"}
    with subprocess.Popen(
        [str(SCRIPT), "first", "store"], cwd=tmp_path, env=os.environ | given, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as call:  # fmt: skip
        try:
            while not (tmp_path / "calls.waits").exists():
                assert call.poll() is None
                time.sleep(0.01)
            call.send_signal(number)
            told = call.communicate(timeout=60)[1]
        finally:
            call.kill()
    assert call.returncode == 130
    assert told.splitlines()[1:] == ["collect.sh: interrupted; the same call goes on"]
    assert (tmp_path / "calls.saved").exists()
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_what_is_killed_has_not_run_out_of_time(collect):
    """The system kills what wants more memory than there is; the same call again would go on for ever."""
    code, told, calls = collect("first", "store", WRONG="lrn-error", CODE="137")
    assert (code, len(calls)) == (137, 2)
    assert "JOBS" in told
    assert "are over" not in told


def test_what_goes_wrong_does_not_take_the_others_turn(collect):
    code, _, calls = collect("first", "store", WRONG="lrn-error")
    assert (code, len(calls)) == (3, 2)


def test_a_test_that_fails_is_no_answer(collect):
    """pytest says so with the code by which repro says that a claim does not hold, which is well."""
    assert collect("check", "store")[0] == 0
    code, _, calls = collect("check", "store", WRONG="pytest", CODE="1", DEVICE="cpu")
    assert (code, len(calls)) == (1, 1)
    assert collect("check", "store", WRONG="is_available", CODE="1")[0] == 1  # nor is a test that was left out
    assert collect("first", "store", WRONG="lrn-error", CODE="1")[0] == 0


def test_what_was_timed_is_not_timed_again(collect, tmp_path):
    """A case at a time, each into a file of its own, so that a call which was cut off goes on behind it.

    What could not be timed is tried again.
    """
    known = set(results.CASES)
    first = [call.split()[3:] for call in collect("speed", "store")[2] if " bench " in call]
    assert {words[0] for words in first} <= known
    assert {tuple(words[words.index("--precision") + 1 :]) for words in first if words[0] == "step"} == {
        (precision, "--batch", batch, "--json", f"{tmp_path}/store/bench-step-{precision}-{batch}.json.part")
        for precision in ("fp32", "tf32", "bf16") for batch in ("128", "1024")
    }  # fmt: skip

    def again(**environment):
        return [call.split()[3:] for call in collect("speed", "store", **environment)[2] if " bench " in call]

    for words in first[:3]:
        Path(words[-1].removesuffix(".part")).touch()
    assert again(FOUND='{"not_measured": {"step": "why"}}') == first[3:]
    assert again(FOUND='{"not_measured": {}}') == first[3:]
    assert again() == []


def test_limits_are_written_whole_or_not_at_all(collect, tmp_path):
    """What was printed before something went wrong is kept apart, and the next call begins anew."""
    store = tmp_path / "store"
    assert collect("limits", "store", WRONG="gpu_limits", CODE="1")[0] == 1
    assert [file.name for file in store.iterdir()] == ["limits.part"]
    assert collect("limits", "store", SLOW="gpu_limits", LIMIT="6")[0] == 75
    assert not (store / "limits.md").exists()
    code, _, calls = collect("limits", "store")
    assert (code, [file.name for file in store.iterdir()]) == (0, ["limits.md"])
    assert calls == ["tests/benchmarks/gpu_limits.py --device cuda"]
    assert collect("limits", "store")[2] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "PIECE STORE"), (["everything", "store"], "PIECE STORE"), (["relu"], "name the folder"),
        (["relu", "store", "nowhere"], "nowhere: no such folder"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told(collect, arguments, told):
    code, said, calls = collect(*arguments)
    assert (code, calls) == (2, [])
    assert told in said
