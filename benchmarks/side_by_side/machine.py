"""The machine on which a measurement was made, and the version of the code."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from peers.peer import cores

import l2jax

PACKAGES = ("l2jax", "jax", "jaxlib", "flax", "optax", "numpy", "keras", "tensorflow-cpu", "tensorflow", "torch")


def machine() -> dict[str, Any]:
    """Date, hardware, load before the measurement, versions, and the commit of l2jax."""
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    cpuinfo = ""
    with contextlib.suppress(OSError):
        cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    return {
        "date": f"{datetime.date.today()}",
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "vectors": [name for name in ("avx2", "avx512f", "amx_tile") if name in cpuinfo.split()],
        "cores": len(cores()),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(terse=True),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version()} | installed,
        **commit(Path(l2jax.__file__).parent),
    }


def commit(folder: Path) -> dict[str, Any]:
    """The commit that is checked out, and whether files differ from it; both None where Git cannot tell."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
