import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from repro import store
from repro.cli import main
from repro.folders import default_claims
from repro.problem import EXTRAS
from repro.store import Measurement, Trial, TrialSpec

REPRO = [sys.executable, "-m", "repro"]


@pytest.fixture
def repro(tmp_path, monkeypatch):
    """Run a command in an empty folder; no traceback may ever come out of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPRO_DATA", raising=False)

    def _repro(*args):
        result = CliRunner().invoke(main, [str(arg) for arg in args], prog_name="repro")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return _repro


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["lst"], "did you mean list?"),
        (["--nope"], "No such option"),
        (["list", "--nope"], "see `repro list --help`"),
        (["run", "clam", "x"], "did you mean claim?"),
        (["run", "claim"], "Missing argument"),
        (["show", "relu-speedupp"], "did you mean relu-speedup?"),
        (["show", "../relu-speedup"], "unknown claim"),
        (["check", "TEMPLATE"], "unknown claim"),
        (["run", "claim", "relu-speedup", "nope"], "unknown claim 'nope'"),
        (["run", "claim", "relu-speedup", "--condition", "smok"], "did you mean smoke?"),
        (["run", "claim", "relu-speedup", "--seeds", "0"], "--seeds"),
        (["run", "claim", "relu-speedup", "--jobs", "0"], "--jobs"),
        (["run", "claim", "relu-speedup", "--budget", "nonsense"], "write 90s, 30m, 12h or 3d"),
        (["run", "claim", "relu-speedup", "--budget", "nanh"], "write 90s, 30m, 12h or 3d"),
        (["run", "claim", "relu-speedup", "--budget", "-5m"], "write 90s, 30m, 12h or 3d"),
        (["run", "claim", "relu-speedup", "--device", "gpu"], "use auto, cpu, cuda or cuda:N"),
        (["run", "claim", "relu-speedup", "--device", "cuda:99"], "no such GPU"),
        (["run", "all", "--scale", "big"], "'smoke'"),
        (["new", "../x"], "cannot be an id"),
        (["new", "a" * 300], "cannot be an id"),
        (["new", "x", "--claims", "file"], "cannot write"),
        (["list", "--claims", "file"], "pass --claims DIR"),
        (["list", "--claims", "nowhere"], "pass --claims DIR"),
        (["list", "--claims", "empty"], "pass --claims DIR"),
        (["list", "--store", "file"], "--store"),
        (["run", "claim", "relu-speedup", "--condition", "smoke", "--store", "file/x"], "cannot write file/x"),
        (["report", "--html", ""], "cannot write"),
        (["report", "--html", "file/x.html"], "no such folder to write the page into"),
        (["publish", "--store", "nowhere"], "no such folder"),
        (["run", "claim", "parameters", "--store", ""], "it is empty; name a folder"),
        (["run", "claim", "parameters", "--data", ""], "it is empty; name a folder"),
        (["report", "--store", ""], "it is empty; name a folder"),
        (["publish", "--to", ""], "it is empty; name a folder"),
        (["run", "claim", "parameters", "--device", "cpu:3"], "use auto, cpu, cuda or cuda:N"),
    ],
)
def test_wrong_use_is_one_clear_line(repro, tmp_path, args, said):
    """What a user can put right is one line on stderr behind the program's name, with exit code 2."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    result = repro(*args)
    assert result.exit_code == 2
    assert result.stderr.startswith("repro: ")
    assert len(result.stderr.splitlines()) == 1
    assert said in result.stderr


def test_what_was_asked_for_and_could_not_be_tested_is_exit_code_3(repro):
    """Missing data, and a budget that nothing fits, are misses of a named claim, and the last line counts them."""
    missing = repro("run", "claim", "relu-speedup", "--condition", "cifar10", "--data", "nowhere")
    assert missing.exit_code == 3
    assert "nowhere/cifar-10-batches-py/data_batch_1 is missing" in missing.stderr
    over = repro("run", "claim", "relu-speedup", "--budget", "1s")
    assert over.exit_code == 3
    assert over.stdout.splitlines()[-1] == "0 run; 1 not tested"


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04torn"], ids=["missing", "empty", "altered"])
def test_damaged_data_is_named(repro, tmp_path, content):
    """The first file of a data set that is missing or altered is named, altered ones with their sum."""
    path = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    result = repro("run", "claim", "relu-speedup", "--condition", "cifar10", "--data", tmp_path)
    assert result.exit_code == 3
    assert str(path) in result.stderr
    assert content is None or re.search(r"md5 [0-9a-f]{32}, not c99cafc152244af753f735de768cd75f", result.stderr)


@pytest.mark.parametrize(
    ("args", "module", "what", "extra"),
    [
        (["bench", "step"], "repro.bench.run", "timing", "run"),
        (["doctor", "--health"], "repro.health", "training", "run"),
        (["run", "claim", "parameters"], "repro.running.runner", "running trials", "run"),
        (["run", "claim", "parameters", "--on", "ray"], "repro.running.cluster", "--on", "ray"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_only_a_package_of_an_extra_that_is_missing_is_told_as_such(repro, monkeypatch, args, module, what, extra):
    """In one line that says how to get it; a module of our own that is missing is a fault, and no extra helps."""
    if extra == "ray":
        pytest.importorskip("torch")
    parent, _, name = module.rpartition(".")
    monkeypatch.delattr(importlib.import_module(parent), name, raising=False)
    monkeypatch.delitem(sys.modules, module, raising=False)
    missing = []

    class Finder:
        def find_spec(self, asked, *_):
            if asked == module:
                raise ModuleNotFoundError(f"No module named {missing[0]!r}", name=missing[0])

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    for package in EXTRAS[extra]:
        missing[:] = [f"{package}.inner"]
        result = repro(*args)
        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            f"repro: {what} needs {package}: install this package with its extra '{extra}'"
        ]
    missing[:] = ["repro.trainning"]
    assert isinstance(CliRunner().invoke(main, args).exception, ModuleNotFoundError)


def test_the_extras_are_those_of_the_package():
    """Each package of an extra is imported under a name that is told where it is missing."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for extra, imported in EXTRAS.items():
        listed = {re.split(r"[<>=]", line)[0] for line in project["optional-dependencies"][extra]}
        assert {{"pillow": "PIL"}.get(name, name) for name in listed} == set(imported)


def test_a_scale_without_conditions_selects_nothing(repro):
    """Exit code 4 where nothing was selected, and nothing is run."""
    (claims,) = [repro("new", "mine")]
    assert claims.exit_code == 0
    result = repro("run", "all", "--scale", "reduced", "--claims", "claims")
    assert result.exit_code == 4
    assert result.stdout.splitlines()[-1].startswith("0 run")


def test_a_bad_claim_file_is_told_line_by_line(repro, tmp_path):
    """Each fault is a line with file and key path, and the exit code is 2."""
    (tmp_path / "bad.toml").write_text('schema = 1\nid = "bad"\nheadlin = 3\n')
    result = repro("check", "--claims", tmp_path)
    assert result.exit_code == 2
    assert all(line.startswith(f"repro: {tmp_path / 'bad.toml'}: ") for line in result.stderr.splitlines())
    assert "headlin: unknown key (did you mean headline?)" in result.stderr


def test_a_new_claim_is_not_written_over(repro, tmp_path):
    """`new` refuses an id that is taken, and leaves the file as it is."""
    assert repro("new", "mine").exit_code == 0
    path = tmp_path / "claims" / "mine.toml"
    path.write_text("edited")
    assert repro("new", "mine").exit_code == 2
    assert path.read_text() == "edited"


def test_text_of_a_claim_is_shown_as_it_stands(repro, tmp_path):
    """Brackets and colons of a claim file are text, never markup."""
    repro("new", "mine")
    path = tmp_path / "claims" / "mine.toml"
    title = "[bold]Not bold[/bold] [/] :smile: [link=x]"
    path.write_text(path.read_text().replace("One line a reader understands", title))
    for command in (["list"], ["show", "mine"]):
        result = repro(*command, "--claims", "claims")
        assert result.exit_code == 0
        assert title in result.stdout


def test_damaged_records_are_told_and_the_rest_is_reported(repro, tmp_path):
    """A torn record or plan costs a line on stderr, not the report."""
    path = tmp_path / "runs" / "trials" / "0123456789abcdef" / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"schema": 1, "sp')
    result = repro("report", "--json")
    assert result.exit_code == 0
    assert "record.json: not a usable record" in result.stderr
    assert json.loads(result.stdout)["schema"] == 1
    (tmp_path / "runs" / "plans").mkdir()
    (tmp_path / "runs" / "plans" / "a.b.json").write_text("{")
    result = repro("report")
    assert result.exit_code == 0
    assert "a.b.json: not a usable plan" in result.stderr


def test_publishing_nothing_selects_nothing(repro, tmp_path):
    """Where every record is left out, each is told with its reason, and the exit code is 4."""
    trial = Trial(
        spec=TrialSpec(experiment="epochs-to", numerics=1, config={"dataset": "embedded"}, seed=0),
        data_digest="d", status="completed", measurements=(Measurement(name="epochs-to", value=1.0, unit="epochs"),),
    )  # fmt: skip
    store.save(tmp_path / "runs", trial)
    result = repro("publish")
    assert result.exit_code == 4
    assert f"left out: {trial.identity}: measured on synthetic pictures" in result.stdout


PROBE = """
import sys
{first}
from repro.cli import main
try:
    main({args!r})
except SystemExit as stop:
    assert stop.code == 0, stop.code
print("HEAVY" if {{"torch", "torchvision", "nvidia"}} & sys.modules.keys() else "LIGHT")
"""


def _weight(args, tmp_path, first=""):
    script = PROBE.format(args=args, first=first)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("args", [["--help"], ["list"], ["show", "relu-speedup"], ["check"], ["report"]], ids=" ".join)
def test_light_commands_import_no_torch(tmp_path, args):
    """Reading and reporting load nothing of the half that trains."""
    assert _weight(args, tmp_path) == "LIGHT"


def test_the_commands_on_data_sets_import_no_torch(tmp_path):
    """Cutting, checking and averaging pictures is done without it, here and in each process beside."""
    image = pytest.importorskip("PIL.Image")
    for split in ("train", "val"):
        (tmp_path / "source" / split / "n01").mkdir(parents=True)
        image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "source" / split / "n01" / "a.JPEG")
    for args in (
        ["--help"],
        ["prepare", "source", "out", "--side", "16", "--jobs", "1"],
        ["verify", "out"],
        ["stats", "out"],
    ):
        assert _weight(["data", *args], tmp_path) == "LIGHT", args
    script = "import repro.data, repro.data.prepare, sys; sys.exit('torch' in sys.modules)"  # as a worker does
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_probe_sees_a_heavy_import(tmp_path):
    """The test above can fail: a module called torch, once imported, is seen."""
    (tmp_path / "torch.py").touch()
    assert _weight(["--help"], tmp_path, first="sys.path.insert(0, ''); import torch") == "HEAVY"


@pytest.mark.parametrize("args", [["list"], ["report", "--json"]], ids=" ".join)
def test_a_reader_that_leaves_is_no_fault(tmp_path, args):
    """A closed pipe ends the command silently with exit code 0."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*REPRO, *args], stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("args", [["list"], ["report"], ["plan"]], ids=" ".join)
@pytest.mark.parametrize("columns", [None, "100", "0", "wide"])
def test_piped_tables_are_as_wide_as_asked_or_whole(repro, monkeypatch, args, columns):
    """Each claim's row is one line for who searches it; COLUMNS, where it makes sense, is what the lines fit into."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    lines = repro(*args).stdout.splitlines()
    longest = max(len(line.rstrip()) for line in lines if line.startswith(" ") and "─" not in line)  # of the table
    if columns == "100":
        assert longest <= 100
        return
    ids = {path.stem for path in default_claims().glob("*.toml")}
    rows = [line for line in lines if line.split()[:1] and line.split()[0] in ids]
    assert len(rows) >= len(ids) - 10
    if args == ["list"]:
        title = "ReLU reaches 25% training error six times faster than tanh"
        assert [line.rstrip().endswith(title) for line in rows if "relu-speedup" in line] == [True]
        assert longest > 100


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_output_that_cannot_be_written_is_told(tmp_path):
    """A full disk under the output is one line and exit code 2."""
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [*REPRO, "list"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["repro: cannot write the output: [Errno 28] No space left on device"]


@pytest.mark.parametrize("error", [ConnectionRefusedError("no"), FileNotFoundError(2, "no"), OSError(28, "no", "f")])
def test_what_ails_something_else_is_no_fault_of_the_output(monkeypatch, error):
    """An error of the operating system that nobody told is a fault of the program, and not wrong use."""

    def failing(*_):
        raise error

    monkeypatch.setattr("repro.registry.load_registry", failing)
    assert CliRunner().invoke(main, ["check"]).exception is error


def test_a_terminal_without_unicode_is_served(tmp_path):
    """Where the output cannot say “, it is replaced."""
    (tmp_path / "runs").mkdir()
    done = subprocess.run(
        [*REPRO, "show", "relu-speedup"], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


PROSE = {
    "One line a reader understands": "ReLU learns in fewer epochs than tanh",
    "The paper's own words, one sentence at most.": "networks with ReLUs consistently learn several times faster",
    "why the band is as wide as it is": "the text claims a direction and no size",
    "What is known to differ from the paper.": "The pictures are synthetic.",
    "What that may do to the result.": "It says nothing about the paper.",
}
"""What a newcomer writes in place of the template's texts."""


def _filled_in(tmp_path, sizes=()):
    """Make a claim as a newcomer would: the template's texts are filled in, and some sizes set."""
    path = tmp_path / "mine" / "my-claim.toml"
    text = path.read_text()
    for old, new in PROSE.items():
        assert text.count(f'"{old}"') == 1
        text = text.replace(old, new)
    for old, new in sizes:
        text, count = re.subn(old, new, text)
        assert count == 1
    path.write_text(text)


SHORT = [
    (r"seeds = .*", "seeds = [0]"),
    (r"max_epochs = .*", "max_epochs = 3.0\ntarget = 0.85"),
    (r"rates = .*", "rates = [0.01, 0.02, 0.04]"),
]
"""Sizes with which a claim of two arms is measured in seconds."""


@pytest.mark.parametrize(
    "sizes", [pytest.param(SHORT, id="short"), pytest.param((), id="whole", marks=pytest.mark.long)]
)
def test_a_newcomer_adds_a_claim_with_one_file(repro, tmp_path, sizes):
    """new, a file that is filled in, check, list, run: the claim is measured, and nothing else was touched."""
    where = ["--claims", "mine"]
    assert repro("new", "my-claim", *where).exit_code == 0
    unfilled = repro("check", "my-claim", *where)
    assert unfilled.exit_code == 2
    assert [text for text in PROSE if text in unfilled.stderr] == list(PROSE)
    assert len(unfilled.stderr.splitlines()) == len(PROSE)
    assert "mine/my-claim.toml: title: fill it in;" in unfilled.stderr
    _filled_in(tmp_path, sizes)
    assert repro("check", "my-claim", *where).exit_code == 0
    assert "my-claim" in repro("list", *where).stdout
    result = repro("run", "claim", "my-claim", *where, "--store", "mystore", "--device", "cpu")
    assert result.stdout.splitlines()[-1] == "1 run: 1 SMOKE_OK", result.output
    assert result.exit_code == 0
    again = repro("run", "claim", "my-claim", *where, "--store", "mystore", "--device", "cpu")
    assert again.exit_code == 0
    assert "tuning" not in again.stdout  # everything was found again
    assert [path.name for path in default_claims().glob("my-claim*")] == []


@pytest.mark.parametrize(
    ("number", "jobs", "group"),
    [(signal.SIGINT, 1, False), (signal.SIGTERM, 1, True), (signal.SIGTERM, 2, True)],
)
def test_a_stopped_run_keeps_its_state(tmp_path, number, jobs, group):
    """A stop in mid-training ends with 130 and one line; the state of every trial is on disk.

    Also where its workers hear of it, too, and it hears twice, as from ``timeout``.
    """
    run = subprocess.Popen(
        [*REPRO, "run", "claim", "relu-speedup", "--condition", "smoke", "--device", "cpu", "--jobs", str(jobs)],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("runs/trials/*/record.json"))) < jobs and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    run.send_signal(number)
    if group:
        os.killpg(run.pid, number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors.splitlines() == [
        "repro: interrupted; every training saved its state; run the same command again to continue"
    ]
    assert len(list(tmp_path.glob("runs/trials/*/checkpoint.pt"))) == jobs
    assert [trial.status for trial in store.load(tmp_path / "runs")[0]] == ["running"] * jobs


@pytest.mark.parametrize("command", [("list",), ("show", "parameters"), ("report",), ("judge",), ("explain", "abc")])
def test_a_store_that_was_named_and_is_not_there_is_refused(repro, command):
    """A typo would otherwise read as a registry that nobody ran."""
    result = repro(*command, "--store", "no-such")
    assert result.exit_code == 2
    assert result.stderr == "repro: no-such: no such folder; `repro run … --store no-such` creates it\n"


def test_a_closed_output_is_one_clear_line(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m repro list >&-", shell=True, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "repro: cannot write the output: the standard output is closed\n"


def test_two_forms_of_a_report_are_refused(repro, tmp_path):
    assert "--json and --csv are two forms of one report" in repro("report", "--json", "--csv").stderr
    assert "--csv and --html are two forms of one report" in repro("report", "--csv", "--html", "x.html").stderr
    gone = repro("report", "--html", "no/such/page.html")
    assert gone.exit_code == 2
    assert gone.stderr == "repro: no/such: no such folder to write the page into\n"
    assert not (tmp_path / "no").exists()
