"""Run the tests that need a GPU, side by side: ``gpu_checks.py FOLDER``.

Most of their time goes into compiling kernels, for which a process uses one core. Each part is a process also because,
after one illegal access, all that its process asks of the GPU fails. It leaves check-PART.log, with all that it said,
and check-PART.xml in FOLDER. What went wrong is printed. The exit code is that of the first part that failed, or 130
after an interrupt.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PARTS = {f"gpu-{k}": ("test_gpu.py", f"{k}/6") for k in range(1, 7)} | {
    "gpu_training": ("test_gpu_training.py", "1/1"), "steps": ("test_steps.py", "1/1"),
}  # fmt: skip
"""The file and the part of it, by name."""
LAST = 20
PATIENCE_S = 30.0


def main() -> int:
    """Run all parts, and print how each ended, as it ends; after an interrupt, one that hangs is killed."""
    folder, tests = Path(sys.argv[1]).absolute(), Path(__file__).parent
    # torch looks at the first product of matrices only, and remembers.
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    worst, interrupted = 0, []
    # All of them have it, too. An exception instead could come at any place, and leave them alone.
    signal.signal(signal.SIGINT, lambda *_: interrupted.append(time.monotonic()))
    left = {name: _start(folder, tests / file, name, part, environment) for name, (file, part) in PARTS.items()}
    while left:
        time.sleep(0.1)
        if interrupted and time.monotonic() > interrupted[0] + PATIENCE_S:
            print("hung, and killed:", *left)
            for process in left.values():
                process.kill()
                process.wait()
        for name in [name for name, process in left.items() if process.poll() is not None]:
            code = left.pop(name).returncode
            code = 128 - code if code < 0 else code  # as a shell tells that a signal ended it
            words = (folder / f"check-{name}.log").read_text(errors="replace").splitlines() or ["it said nothing"]
            print(f"{name}, exit code {code}:", *words[-LAST if code else -1 :], sep="\n  ", flush=True)
            worst = worst or code
    return 130 if interrupted else worst


def _start(folder: Path, file: Path, name: str, part: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a part. A warning fails nothing there: which libraries torch speaks of differs from GPU to GPU."""
    report = folder / f"check-{name}.xml"
    report.unlink(missing_ok=True)
    with (folder / f"check-{name}.log").open("wb") as log:
        return subprocess.Popen(
            [
                sys.executable, "-m", "pytest", "-q", "-W", "default", "-o", "faulthandler_timeout=100",
                "-p", "no:cacheprovider", "--junitxml", str(report), "--part", part, str(file),
            ],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
