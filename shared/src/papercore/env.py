"""Where a run happened: versions, revision and machine, for `env.json`.

No environment variable, user, host name or path goes in: a run folder can be published.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

__all__ = ["describe", "git_revision", "versions"]

NOTABLE = (
    "numpy",
    "scipy",
    "statsmodels",
    "matplotlib",
    "pydantic",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "trl",
    "datasets",
    "vllm",
    "openai",
)
"""Distributions whose version can change a result."""


def describe(package: str, version: str) -> dict[str, object]:
    """Everything that `env.json` holds before the run adds its device and dtype."""
    return {
        "package": package,
        "package_version": version,
        "papercore": _version("papercore"),
        "git": git_revision(),
        "python": platform.python_version(),
        "versions": versions(),
        "machine": _machine(),
    }


def versions() -> dict[str, str]:
    """The installed ones of the notable distributions."""
    found = {name: _version(name) for name in NOTABLE}
    return {name: version for name, version in found.items() if version is not None}


def git_revision() -> str | None:
    """The commit of our sources, with `+dirty` if files differ; None outside a checkout."""
    source = Path(__file__).resolve().parent
    if not _git(source, "ls-files", "--error-unmatch", Path(__file__).name):
        return None  # an installed copy: the checkout around it, if any, is somebody else's
    revision = _git(source, "rev-parse", "HEAD")
    if not revision:
        return None
    return f"{revision}+dirty" if _git(source, "status", "--porcelain") else revision


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - git is wherever PATH says
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, object]:
    return {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "cpu": _cpu_name(),
        "num_cpus": os.cpu_count(),
        "memory_gib": _memory_gib(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _memory_gib() -> float | None:
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    return round(pages / 2**30, 1)
