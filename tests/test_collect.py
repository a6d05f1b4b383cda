"""The script that collects evidence in bounded pieces, with a stand-in for Python that only writes down its call."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from importlib import metadata
from pathlib import Path

import gpu_checks
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from repro import experiments, notes, registry, store
from repro.bench import results
from repro.training.graphs import Unrecordable

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "reports" / "collect.sh"
STAND_IN = """#!/bin/sh
case "$2" in
    *find_spec*) echo "$LACKS"; exit ;;
    *repro.source*) echo "$SOURCE"; exit ;;
    *fused*) echo "words
$UNBUILT"; [ -z "$UNBUILT" ]; exit ;;
esac
echo "$@" >> "$CALLS"
echo "words of $*"
echo "complaint of $*" >&2
case "$*" in *"$SLOW"*)
    trap 'touch "$CALLS.saved"; echo last words; exit "${CODE:-130}"' INT
    # Until it waits, `timeout` may not know what it has begun, and would leave it alone.
    until grep -q "^State:.S" /proc/$PPID/status; do :; done
    touch "$CALLS.waits"
    for _ in $(seq 600); do sleep 0.1; done ;; # a signal just before `wait` would be heard after it
esac
for last; do :; done
case "$*" in *--json*) [ -z "$FOUND" ] || echo "$FOUND" > "$last" ;; esac
case "$*" in *"$WRONG"*) exit "${CODE:-3}" ;; esac
"""
QUIET = {"SLOW": "none", "WRONG": "none", "SOURCE": "", "LACKS": "", "CONDITION": "", "EAGER": "", "UNBUILT": ""}


@pytest.fixture
def collect(tmp_path):
    """Return what runs the script in a folder of its own, and gives its exit code, its last words and its calls."""
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def run(*arguments, **environment):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        given = {"PYTHON": str(stand_in), "CALLS": str(calls), **QUIET, **environment}
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


@pytest.mark.parametrize("piece", ["headline", "relu", "first", "errors", "speed"])
def test_every_condition_that_is_named_is_in_the_registry(collect, tmp_path, piece):
    claims = registry.load_registry(ROOT / "claims")
    (tmp_path / "data" / "prepared" / "ilsvrc-2012").mkdir(parents=True)
    code, _, calls = collect(piece, "store", "data")
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
    _, _, calls = collect("headline", "store")
    assert claims_run(calls) == [("relu-speedup", "cifar10")]
    assert "--eager" not in calls[0]
    assert collect("headline", "store", EAGER="1")[2] == [f"{calls[0]} --eager"]


def test_time_that_is_over_ends_the_call_with_a_code_of_its_own(collect):
    """What is under way is interrupted, and nothing else is begun."""
    code, told, calls = collect("first", "store", LIMIT="6", SLOW="lrn-error")
    assert code == 75
    assert "6 s are over; make the same call again to continue" in told
    assert len(calls) == 1
    assert collect("first", "store", LIMIT="4")[::2] == (75, [])


def test_the_limit_that_is_told_is_the_one():
    written = SCRIPT.read_text(), (ROOT / "docs" / "gpu.md").read_text()
    assert len({*re.findall(r"LIMIT(?:`? \(|:-)(\d+)", "".join(written))}) == 1
    assert [len(re.findall(r"LIMIT(?:`? \(|:-)\d+", text)) for text in written] == [2, 1]


@pytest.mark.parametrize(
    ("number", "piece", "slow", "code"),
    [
        (signal.SIGINT, "first", "lrn-error", "130"), (signal.SIGTERM, "first", "lrn-error", "130"),
        (signal.SIGINT, "check", "gpu_checks", "2"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("collect")
def test_a_call_that_is_interrupted_passes_it_on_and_begins_nothing_else(tmp_path, number, piece, slow, code):
    """What it runs saves its state first, and the time is not said to be over. pytest has a code of its own for it."""
    (tmp_path / "store" / "trials").mkdir(parents=True)
    given = {
        **QUIET, "PYTHON": tmp_path / "python", "CALLS": tmp_path / "calls", "DEVICE": "cpu", "SLOW": slow, "CODE": code
    }  # fmt: skip
    with subprocess.Popen(
        [str(SCRIPT), piece, "store"], cwd=tmp_path, env=os.environ | given, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
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
    ours = [line for line in told.splitlines() if line.startswith("collect.sh: ")]
    assert ours[1:] == ["collect.sh: interrupted; make the same call again to continue"]
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
    code, _, calls = collect("check", "store", WRONG="gpu_checks", CODE="1", DEVICE="cpu")
    assert (code, len(calls)) == (1, 1)
    assert collect("check", "store", WRONG="is_available", CODE="1")[0] == 1  # nor is a test that was left out
    assert collect("first", "store", WRONG="lrn-error", CODE="1")[0] == 0


def test_tests_of_a_gpu_run_in_parts_that_leave_what_they_said(tmp_path, monkeypatch, capfd):
    """All tests, each once; one that ends its process takes only its own part along. Every file is there."""
    whole = set(gpu_checks.PARTS.values())
    for file, part in whole:
        count = int(part.split("/")[1])
        assert {(file, f"{k}/{count}") for k in range(1, count + 1)} <= whole
        assert (ROOT / "tests" / file).is_file()
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_a.py").write_text(
        "import os, pytest\n"
        "@pytest.mark.parametrize('n', range(7))\n"
        "def test_a(n):\n"
        "    n != 5 or os.kill(os.getpid(), 9)\n"
    )
    parts = {f"a-{k}": (tmp_path / "test_a.py", f"{k}/3") for k in (1, 2, 3)}
    monkeypatch.setattr(gpu_checks, "PARTS", parts)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # that of this process stays
    monkeypatch.setattr(sys, "argv", ["gpu_checks.py", str(tmp_path)])
    assert gpu_checks.main() == 137  # as a shell tells it, so that collect.sh says that it was killed
    told = capfd.readouterr().out
    assert sorted(line for line in told.splitlines() if line.startswith("a-")) == [
        "a-1, exit code 0:", "a-2, exit code 0:", "a-3, exit code 137:",
    ]  # fmt: skip
    assert ["2 passed" in (tmp_path / f"check-{name}.log").read_text() for name in parts] == [True, True, False]
    assert [(tmp_path / f"check-{name}.xml").exists() for name in parts] == [True, True, False]


def test_a_part_that_hangs_hides_no_other(tmp_path):
    """Each is told as it ends; after the interrupt at the end of the time, what does not end by itself is killed."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_a.py").write_text(
        "import pathlib, signal, time\n"
        "def test_fails():\n    assert False\n"
        "def test_hangs():\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"    pathlib.Path('{tmp_path}/hangs').touch()\n"
        "    time.sleep(600)\n"
    )
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); import gpu_checks\n"
        "gpu_checks.PATIENCE_S = 0.1\n"
        "gpu_checks.PARTS = {f'a-{k}': (sys.argv[1] + '/test_a.py', f'{k}/2') for k in (1, 2)}\n"
        "sys.exit(gpu_checks.main())"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(ROOT / "tests")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as call:
        try:
            said = [call.stdout.readline()]
            while not (tmp_path / "hangs").exists():
                assert call.poll() is None
                time.sleep(0.01)
            os.killpg(call.pid, signal.SIGINT)
            said += call.communicate(timeout=60)[0].splitlines()
        finally:
            call.kill()
    assert said[0] == "a-1, exit code 1:\n"
    assert {"hung, and killed: a-2", "a-2, exit code 137:"} <= set(said)
    assert call.returncode == 130


@pytest.mark.parametrize("without", ["", "1"])
def test_kernels_that_cannot_be_built_are_told_before_anything_begins(collect, without):
    """With the last line of the compiler's, and what does without them."""
    code, told, calls = collect("steps", "store", UNBUILT="Python.h: no such file", REPRO_NO_KERNELS=without, FOUND="")
    if without:
        assert calls
        return
    assert (code, calls) == (2, [])
    assert told.startswith(
        "collect.sh: our kernels do not run here (Python.h: no such file); Triton needs a C compiler"
    )


def test_what_was_timed_is_not_timed_again(collect, tmp_path):
    """Each run into a file of its own, so that a call which was cut off goes on behind it.

    What could not be timed is tried again.
    """
    known = set(results.CASES)
    first = [call.split()[3:] for call in collect("speed", "store")[2] if " bench " in call]
    assert {words[0] for words in first} <= known
    assert {tuple(words[words.index("--precision") + 1 :]) for words in first if words[0] == "step"} == {
        (precision, "--batch", batch, "--json", f"{tmp_path}/store/bench-{cases}-{precision}-{batch}.json.part")
        for precision, cases in (("fp32", "step-lrn"), ("tf32", "step"), ("bf16", "step-lrn"))
        for batch in ("128", "1024")
    }  # fmt: skip

    def again(**environment):
        return [call.split()[3:] for call in collect("speed", "store", **environment)[2] if " bench " in call]

    for words in first[:3]:
        Path(words[-1].removesuffix(".part")).touch()
    assert again(FOUND='{"not_measured": {"step": "why"}}') == first[3:]
    assert again(FOUND='{"not_measured": {}}') == first[3:]
    assert again() == []


def test_the_steps_come_before_the_rest_of_speed(collect):
    """They are its first cases, so that `speed` goes on behind them. Two cases a run: a start costs seconds."""
    steps = [call.split()[3:] for call in collect("steps", "store")[2]]
    assert [(*words[:3], *words[4:8]) for words in steps] == [
        ("step", "lrn", "--device", "--precision", precision, "--batch", batch)
        for precision in ("fp32", "bf16") for batch in ("128", "1024")
    ]  # fmt: skip
    assert [call.split()[3:] for call in collect("speed", "store")[2] if " bench " in call][: len(steps)] == steps


def limits():
    spec = importlib.util.spec_from_file_location("gpu_limits", ROOT / "tests" / "benchmarks" / "gpu_limits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_limits_are_a_file_a_table_and_what_was_cut_off_is_measured_again(collect, tmp_path):
    """Every table that there is; a call that ends keeps those that were whole, and the next begins behind them."""
    folder, known = tmp_path / "store", set(limits().TABLES)

    def measured(**environment):
        code, _, calls = collect("limits", "store", **environment)
        return code, [call.split()[1] for call in calls]

    def whole():
        return {file.name.removeprefix("limits-").removesuffix(".md") for file in folder.glob("limits-*.md")}

    assert measured(SLOW="ceilings", LIMIT="6") == (75, ["ceilings"])
    assert whole() == set()
    code, tables = measured(WRONG="busiest-tf32", CODE="1")
    assert (code, set(tables)) == (1, known)
    assert whole() == known - {"busiest-tf32"}
    assert measured() == (0, ["busiest-tf32"])
    assert measured() == (0, [])
    assert whole() == known


def test_a_measurement_that_fails_is_told_in_its_row_and_the_rest_goes_on(monkeypatch, capsys):
    """Also one that could not be recorded, which is no error of torch's."""
    found = limits()
    real, errors = found.setting.replayed, [None, Unrecordable("no | graph\nof it"), RuntimeError("memory"), None]

    def replayed(device, call):
        if error := errors.pop(0):
            raise error
        return real(device, call)

    monkeypatch.setattr(found.setting, "replayed", replayed)
    monkeypatch.setattr(found, "ROUNDS", 1)
    monkeypatch.setattr(sys, "argv", ["gpu_limits.py", "ceilings", "--device", "cpu"])
    found.main()
    told, warned = capsys.readouterr()
    rows = [line.strip("| ").split(" | ") for line in told.splitlines()[4:]]
    assert [len(cells) for cells in rows] == [3, 2, 2, 3]  # an empty last cell is stripped
    assert [float(cells[1]) > 0 for cells in (rows[0], rows[3])] == [True, True]
    assert [cells[1].strip(" |") for cells in rows[1:3]] == ["failed: no / graph", "failed: memory"]
    assert "2 not measured" in warned


def test_cudnn_tries_from_the_first_convolution_of_a_process_on_or_never(monkeypatch):
    """torch keeps what it chose first for a shape, so one process cannot compare both ways."""
    found, seen = limits(), {}
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    for table in ("steps-bf16", "steps-bf16-tried"):
        monkeypatch.setitem(
            found.TABLES, table, lambda _, table=table: seen.update({table: torch.backends.cudnn.benchmark})
        )
        monkeypatch.setattr(sys, "argv", ["gpu_limits.py", table, "--device", "cpu"])
        found.main()
    assert seen == {"steps-bf16": False, "steps-bf16-tried": True}


def test_every_kernel_of_ours_is_called_with_what_it_must_move(monkeypatch):
    """By fake tensors of a GPU: each call fits its kernel, and gives what torch's operations beside it do."""
    fused, found = pytest.importorskip("repro.training.fused"), limits()
    from repro.models import kernels as own

    launched = []
    monkeypatch.setattr(fused, "launch", lambda kernel, grid, *_, **__: launched.append(grid))
    bench = found.Bench(torch.device("cuda"))
    with FakeTensorMode():
        maps, pictures = found.on_maps(bench, own, torch.bfloat16, 128), found.on_pictures(bench, 128)
        weights = found.on_weights(bench)
        given = {name: call() for name, (call, _) in (maps | pictures | weights).items()}
    for name in ("windows", "input", "border, to bf16"):
        ours, theirs = given[name], given[next(other for other in given if other != name and other.startswith(name))]
        assert (ours.shape, ours.dtype, ours.device.type) == (theirs.shape, theirs.dtype, "cuda")
    conv1, numbers = 128 * 96 * 55 * 55, 128 * 3 * 224 * 224
    assert given["dropout"].shape == (128, 55, 55, 96)
    assert launched == [(4096 * 9216 // 1024,)]
    moved = {name: count for name, (_, count) in (maps | pictures | weights).items()}
    assert moved["norm"] == moved["dropout"] == 4 * conv1
    assert moved["pool"] == moved["pool's gradient"] == 2 * conv1 + 3 * 128 * 96 * 27 * 27
    assert moved["windows"] == moved["windows by torch"] == 2 * numbers
    assert moved["input"] == moved["input by torch"] == 5 * numbers
    assert moved["border, to bf16"] == 4 * numbers + 2 * 128 * 3 * 227 * 227
    assert moved["update"] == 20 * 4096 * 9216


# What may be measured where, what a store begins with, and what comes back of it.


@pytest.mark.parametrize("piece", ["headline", "steps", "limits", "speed", "first", "relu", "errors"])
def test_what_could_not_be_published_is_not_measured(collect, tmp_path, piece):
    """It is told before anything is run, in one line that says what to do."""
    code, told, calls = collect(piece, "store", SOURCE="this copy of the source does not know its commit")
    assert (code, calls) == (2, [])
    assert len(told.splitlines()) == 1
    assert "does not know its commit" in told
    assert "git archive HEAD | tar -x -C DIR" in told
    assert not (tmp_path / "store" / "trials").exists()


def needs(name):
    """Return a distribution and all that it needs, by the names under which they are imported."""
    wanted = [re.match("[A-Za-z0-9_.-]+", line)[0] for line in metadata.requires(name) or () if "extra ==" not in line]
    return {name.lower().replace("-", "_").removesuffix("_py")}.union(*map(needs, wanted))


@pytest.mark.parametrize("piece", ["check", "headline"])
def test_packages_that_are_missing_are_told_before_anything_begins(collect, tmp_path, piece):
    """All by name in one line, with what those need that come as wheels: here of a Python that has none."""
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    code, told, _ = collect(piece, "store", PYTHON=str(bare), SOURCE="unknown")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = project["dependencies"] + project["optional-dependencies"]["run"]
    known = {re.match("[a-z0-9]+", line)[0].replace("pillow", "PIL") for line in direct}
    known |= needs("click") | needs("pydantic") | needs("rich")
    known |= {"pytest", "pytest_benchmark"} if piece == "check" else set()
    assert code == 2
    (line,) = told.splitlines()
    assert set(line.removeprefix("collect.sh: Python lacks ").split(";")[0].split()) == known
    assert collect(piece, "store", LACKS="pydantic_core")[::2] == (2, [])
    assert collect("pack", "store", "all.tar.gz", LACKS="pydantic_core")[0] == 0


def test_tests_and_the_smoke_condition_run_anywhere_and_say_it(collect):
    for piece, given, count in (("check", {"DEVICE": "cpu"}, 1), ("headline", {"CONDITION": "smoke"}, 1)):
        code, told, calls = collect(piece, "store", SOURCE="the source is not that of its commit", **given)
        assert (code, len(calls)) == (0, count)
        assert "the source is not that of its commit, and of it nothing could be published" in told


@pytest.fixture
def copy(tmp_path):
    """Return a copy of what the script and the question for the commit need, without git, as the files are here."""
    root = tmp_path / "copy"
    for name in (
        "reports/collect.sh", "repro/__init__.py", "repro/problem.py", "repro/source.py", ".commit", ".gitattributes",
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for name in ("trials", "plans", "bands"):
        (root / "reports" / name).mkdir()
    return root


def asked(root, tmp_path):
    """Run a piece in ``root``, where Python only answers for the commit; return its exit code and words."""
    python = tmp_path / "either"
    python.write_text(f'#!/bin/sh\ncase "$2" in *repro.source*) exec {sys.executable} -S "$@" ;; esac\n')
    python.chmod(0o755)
    found = subprocess.run(
        [str(root / "reports" / "collect.sh"), "headline", "store"],
        cwd=tmp_path, env=os.environ | {"PYTHON": str(python)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.returncode, found.stderr


def test_only_a_checkout_without_changes_and_an_export_measure(copy, tmp_path):
    """In turn: a copy without git, its checkout, that with a change, an export that lies in it."""

    def git(*arguments):
        subprocess.run(["git", "-C", str(copy), "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    code, told = asked(copy, tmp_path)
    assert (code, "does not know its commit" in told) == (2, True)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    assert asked(copy, tmp_path)[0] == 0
    (copy / "repro" / "problem.py").write_text("")
    code, told = asked(copy, tmp_path)
    assert (code, "is not that of its commit" in told) == (2, True)
    git("archive", "HEAD", "-o", str(tmp_path / "all.tar"))
    inside = copy / "export"
    inside.mkdir()
    with tarfile.open(tmp_path / "all.tar") as archive:
        archive.extractall(inside, filter="data")
    for name in ("trials", "plans", "bands"):
        (inside / "reports" / name).mkdir(exist_ok=True)
    assert asked(inside, tmp_path)[0] == 0


def test_a_new_store_begins_with_what_is_published_and_runs_none_of_it_again(collect, tmp_path):
    """Of the conditions that are decided there nothing is pending; a store that has trials is left as it is."""
    folder, reports = tmp_path / "store", ROOT / "reports"
    _, told, _ = collect("headline", "store")
    assert "begins with the records of reports/" in told
    begun = {trial.identity: trial for trial in store.load(folder)[0]}
    assert begun == {trial.identity: trial for trial in store.load(reports)[0]}
    assert notes.load_looks(folder) == notes.load_looks(reports)
    claim = registry.load_registry(ROOT / "claims")["relu-speedup"]
    done = {trial.spec.key: trial for trial in begun.values()}
    experiment = experiments.get(claim.experiment)
    looked = {name: looks for (id_, name), looks in notes.load_looks(reports).items() if id_ == claim.id}
    assert looked
    for name, looks in looked.items():
        seeds = {seed for look in looks for seed in look}
        assert not experiment.pending(claim.conditions[name].arms, sorted(seeds), done)
    shutil.rmtree(folder / "trials")
    (folder / "trials").mkdir()
    _, told, _ = collect("relu", "store")
    assert "begins with" not in told
    assert list((folder / "trials").iterdir()) == []


def test_a_store_is_packed_without_large_states_and_unpacked_by_tar(collect, tmp_path):
    """And in parts where it is large; what is left out is told. Of a state the latest is enough."""
    folder, out = tmp_path / "store", tmp_path / "out"
    noise = os.urandom(3 << 20)
    kept = {
        "trials/a/record.json": b"{}", "trials/a/missed.npz": noise, "plans/c.json": b"1", "limits-x.md": b"2",
        "trials/b/checkpoint.pt": bytes(16 << 20),
    }  # fmt: skip
    gone = dict.fromkeys(["trials/a/lock", "bench.json.part", "trials/b/checkpoint.pt.previous"], b"3")
    gone |= {"trials/a/checkpoint.pt": bytes((16 << 20) + 1), "trials/a/checkpoint.pt.new": bytes((16 << 20) + 1)}
    for name, content in (kept | gone).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "trials" / "none").mkdir()
    out.mkdir()

    def unpacked(command):
        shutil.rmtree(tmp_path / "back", ignore_errors=True)
        (tmp_path / "back").mkdir()
        subprocess.run(command, shell=True, cwd=out, check=True)
        files = [path for path in (tmp_path / "back").rglob("*") if path.is_file()]
        return {path.relative_to(tmp_path / "back").as_posix(): path.read_bytes() for path in files}

    code, told, calls = collect("pack", "store", "out/all.tar.gz", SOURCE="unknown")
    assert (code, calls) == (0, [])
    assert [path.name for path in out.iterdir()] == ["all.tar.gz"]
    assert "states left out: 1 (16.0 MiB)" in told
    assert unpacked("tar -xf all.tar.gz -C ../back") == kept
    assert (tmp_path / "back" / "trials" / "none").is_dir()
    assert collect("pack", "store", "out/all.tar.gz", PART="1")[0] == 0
    assert [path.name for path in sorted(out.iterdir())] == [f"all.tar.gz.0{number}" for number in range(4)]
    assert max(path.stat().st_size for path in out.iterdir()) == 1 << 20
    assert unpacked("cat all.tar.gz.* | tar -xz -C ../back") == kept
    assert collect("pack", "store", "out/all.tar.gz")[0] == 0
    assert [path.name for path in out.iterdir()] == ["all.tar.gz"]
    code, told, _ = collect("pack", "store", "nowhere/all.tar.gz")
    assert (code, told) == (2, "collect.sh: nowhere: no such folder; all.tar.gz should be in it\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "PIECE STORE"), (["everything", "store"], "PIECE STORE"), (["relu"], "name the folder"),
        (["relu", "store", "nowhere"], "nowhere: no such folder"), (["pack", "."], "name the file"),
        (["pack", "nowhere", "file"], "nowhere: no such folder"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told(collect, arguments, told):
    code, said, calls = collect(*arguments)
    assert (code, calls) == (2, [])
    assert told in said


def test_a_claim_without_its_data_is_left_out_and_named(collect):
    """Timing is done all the same: `speed` does not end as if something had gone wrong."""
    code, said, calls = collect("speed", "store")
    assert (code, claims_run(calls)) == (0, [])
    assert "free-augmentation is not run: DATA has no prepared/ilsvrc-2012" in said
