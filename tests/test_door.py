"""The command line's door: readers that leave, disks and terminals that cannot take it, words that name nothing."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from repro.cli import main

REPRO = [sys.executable, "-m", "repro"]
REPORTS = Path(__file__).parents[1] / "reports"
UNREAD = "repro: interrupted: nobody reads the output any more; run the same command again to continue"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPRO_DATA", raising=False)


def repro(*args: str) -> Result:
    result = CliRunner().invoke(main, args, prog_name="repro")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


@contextmanager
def unread() -> Iterator[int]:
    """Yield the end to write into of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def to_nobody(*args: str, errors: bool = False) -> tuple[int, str]:
    """Run a command whose output nobody reads, and with ``errors`` neither what it says beside; code and stderr."""
    with unread() as pipe:
        stderr = pipe if errors else subprocess.PIPE
        done = subprocess.run([*REPRO, *args], stdout=pipe, stderr=stderr, text=True, check=False)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("args", ["--help", "run claim --help", "bench --list", "check"])
def test_what_only_prints_is_done_where_nobody_reads_it(args: str) -> None:
    """Also the help of a command that works."""
    assert to_nobody(*args.split()) == (0, "")


def test_a_run_that_nobody_reads_is_interrupted_and_says_so() -> None:
    """`repro run … | head -1` must not look done: nor where the reader of its errors left with that of its output."""
    run = ["run", "claim", "parameters"]
    assert to_nobody(*run) == (130, f"{UNREAD}\n")
    assert not list(Path("runs").rglob("record.json"))
    assert to_nobody(*run, errors=True)[0] == 130


def test_wrong_use_keeps_its_exit_code_where_nobody_reads_why() -> None:
    """Not 1, which says that a claim was refuted."""
    assert to_nobody("nope", errors=True)[0] == 2


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("publish", "repro.publishing.publish"),
        ("bench lrn --device cpu", "repro.bench.run.measure"),
        ("data prepare a b", "repro.data.prepare.prepare"),
    ],
)
def test_others_that_work_are_interrupted_too(command: str, says: str) -> None:
    """Where a line of theirs finds no reader, what would come behind it is not done."""
    script = f"""
from unittest import mock
def to_nobody(*_, **__): raise BrokenPipeError
with mock.patch({says!r}, to_nobody):
    from repro.cli import main
    main({command.split()!r}, prog_name="repro")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, f"{UNREAD}\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("args", ["--help", "--version", "run claim --help"])
def test_help_that_cannot_be_written_is_told(args: str) -> None:
    """One line and exit code 2, as for what a command prints."""
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*REPRO, *args.split()], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "repro: cannot write the output: [Errno 28] No space left on device\n"


def _in_latin_1(*args: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    return subprocess.run([*REPRO, *args, "--store", str(REPORTS)], capture_output=True, env=env, check=False)


def test_a_terminal_in_latin_1_is_served() -> None:
    """What it cannot say is replaced; exit code 1 would say that a claim was refuted."""
    done, there = _in_latin_1("judge", "update-rule"), repro("judge", "update-rule", "--store", str(REPORTS))
    assert "the paper says “equal”" in there.stdout
    assert done.stdout == there.stdout.encode("latin-1", "replace")
    assert (done.returncode, done.stderr) == (there.exit_code, b"")


@pytest.mark.parametrize("form", ["json", "markdown", "csv", "junit"])
def test_forms_for_programs_are_utf_8_everywhere(form: str) -> None:
    """As their readers expect, whatever the terminal says; nothing is replaced."""
    done = _in_latin_1("report", f"--{form}")
    there = repro("report", f"--{form}", "--store", str(REPORTS))
    assert (done.returncode, done.stderr) == (there.exit_code, b"")
    assert done.stdout == there.stdout_bytes
    assert not done.stdout.isascii()


@pytest.mark.parametrize(
    "args",
    [
        "list --claims", "new x --claims", "check --claims", "diff .", "diff", "data verify", "data stats",
        "data prepare .", "data prepare",
    ],
)  # fmt: skip
def test_an_empty_word_names_no_folder(args: str) -> None:
    """Not the one we are in: it is a variable that was not set."""
    result = repro(*args.split(), "", *["out"] * (args in ("data prepare", "diff")))
    assert result.exit_code == 2
    assert result.stderr.startswith("repro: Invalid value for ")
    assert "it is empty; name a folder" in result.stderr
    assert len(result.stderr.splitlines()) == 1


READERS = ("list", "show parameters", "report", "report --json", "judge")


@pytest.mark.parametrize("command", READERS)
def test_a_store_that_is_not_there_yet_is_told(command: str, tmp_path: Path) -> None:
    """In a fresh checkout all reads as not tested: a line says that nobody ran anything, and where results lie."""
    line = "repro: runs: no such folder yet; `repro run` creates it"
    assert repro(*command.split()).stderr == f"{line}\n"
    (tmp_path / "reports" / "trials").mkdir(parents=True)
    assert repro(*command.split()).stderr == f"{line}; `--store reports` shows the published records\n"
    (tmp_path / "runs").mkdir()
    assert repro(*command.split()).stderr == ""


def test_a_new_claim_on_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    """One that would be there already for the next try, and would block every other command."""
    assert repro("new", "whole").exit_code == 0
    size = (tmp_path / "claims" / "whole.toml").stat().st_size
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))  # noqa: E731
    done = subprocess.run(
        [*REPRO, "new", "half"], capture_output=True, text=True, check=False, preexec_fn=full,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"repro: cannot write {Path('claims', 'half.toml')}: File too large")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["whole.toml"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("RuntimeError('odd')", 70, "fault of the program"),
        ("ImportError('libcudart.so.13: cannot open')", 2, "libcudart.so.13"),
    ],
)
def test_a_fault_is_no_verdict(error: str, code: int, said: str) -> None:
    """Exit code 1 is NOT_REPRODUCED: neither a fault of ours nor a torch that does not load may end with it."""
    script = f"""
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise {error}
sys.meta_path.insert(0, Finder())
sys.argv[0] = "repro"
from repro.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "run", "claim", "parameters"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert said in done.stderr
    assert ("Traceback" in done.stderr) is (code == 70)
