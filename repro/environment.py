"""Where a trial ran: commit, versions, hardware, precision; a flat record of plain values."""

import ctypes
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import torch

from repro import source
from repro.models import gpu

PACKAGES = ("torch", "torchvision", "numpy", "nvidia-dali-cuda130", "nvidia-dali-cuda120")


def keep_memory() -> None:
    """Have the C library keep freed memory: a training step frees and takes the same megabytes again and again.

    Under glibc's defaults each of them may come back as fresh pages (12,000 page faults a step of the 19pct net at
    batch 128, a fifth of its time). Elsewhere than on Linux this does nothing.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: take blocks below 1 GiB from the heap
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: and never give the heap's end back


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def describe(device: torch.device) -> dict[str, str | int | bool | None]:
    """Return the environment of this process on ``device``; unknown values are None."""
    commit, dirty = source.commit()
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    cuda = device.type == "cuda"
    return {
        "commit": commit,
        "dirty": dirty,
        "code_digest": source.code_digest(),
        "python": platform.python_version(),
        **{name.replace("-", "_"): version for name, version in versions.items()},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        **({"kernels": gpu.wanted()} if cuda else {}),
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "tf32": torch.backends.cudnn.conv.fp32_precision == "tf32",
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
