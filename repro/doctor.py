"""What this machine can run, found out by trying; nothing here needs torch to be installed."""

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata

from repro.problem import first_line

Finding = tuple[str, bool | None]
"""A line, and whether it is fine; None where it is only worth knowing."""


def findings() -> Iterator[Finding]:
    """Yield what was found, most basic first."""
    fine = sys.version_info >= (3, 11)
    yield (
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        fine,
    )
    yield f"{shutil.disk_usage('.').free / 1e9:.0f} GB free here", shutil.disk_usage(".").free > 1e9
    yield from _torch()
    yield from _dali()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> Iterator[Finding]:
    if _version("torch") is None:
        yield "torch is not installed: reports and verdicts work, running trials needs the extra 'run'", None
        return
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        yield f"torch {_version('torch')} does not import: {first_line(error)}", False
        return
    yield f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}", True
    try:
        yield f"torchvision {importlib.import_module('torchvision').__version__}", True
    except ImportError:
        yield "torchvision is not installed: install the extra 'run'", False
    except RuntimeError as error:
        if "torchvision::nms" in str(error):
            line = "torch and torchvision come from different builds (operator torchvision::nms does not exist): "
            yield line + "uninstall both, then install the extra 'run' so that they come together", False
        else:
            yield f"torchvision does not import: {first_line(error)}", False
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield f"GPU {index}: {torch.cuda.get_device_name(index)}", True
    else:
        yield "no CUDA device: trials run on the CPU", None


def _dali() -> Iterator[Finding]:
    found = [name for name in ("nvidia-dali-cuda130", "nvidia-dali-cuda120") if _version(name)]
    if not found:
        yield "DALI is not installed: `--loader dali`, and claims about loading, need the extra 'dali' (Linux)", None
        return
    try:
        importlib.import_module("nvidia.dali")
    except (ImportError, OSError) as error:
        yield f"{found[0]} does not import: {first_line(error)}", False
        return
    yield f"{found[0]} {_version(found[0])}", True
