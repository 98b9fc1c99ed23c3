"""How well a program is confined: layers that this machine grants, probed by using them.

    found = probe()
    found.level, found.missing

| level | what confines a program |
|---|---|
| `rlimits` | limits on time, memory, output, files and processes; no protection from malice |
| `seccomp` | besides, no privileges, and only the system calls of a computing Python; no files |
| `landlock` | besides, files of Python's own library can be read, which later imports need |
| `namespaces` | besides, users, network, processes, messages and host name of its own |
"""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

__all__ = ["LAYERS", "Level", "Probe", "at_least", "probe"]

Level: TypeAlias = Literal["rlimits", "seccomp", "landlock", "namespaces"]
"""From the weakest to the strongest."""

LAYERS: Final[Mapping[Level, tuple[str, ...]]] = {
    "rlimits": (),
    "seccomp": ("seccomp",),
    "landlock": ("seccomp", "landlock"),
    "namespaces": ("seccomp", "landlock", "namespaces"),
}

_TRIES: Final[Mapping[str, str]] = {
    "seccomp": "kernel.drop_privileges(); seccomp.restrict_calls(files=True)",
    "landlock": "kernel.drop_privileges(); landlock.restrict_files(())",
    "namespaces": "kernel.isolate()",
}


@dataclass(frozen=True)
class Probe:
    """What this machine grants.

    Attributes:
        level: The strongest level; None where there is no fork server at all.
        missing: Layers that are not granted -> why.
        system: The machine, in words.
    """

    level: Level | None
    missing: Mapping[str, str]
    system: str


def at_least(level: Level, wanted: Level) -> bool:
    """Whether a level is as strong as another."""
    order = get_args(Level)
    return order.index(level) >= order.index(wanted)


@functools.cache
def probe() -> Probe:
    """Tries every layer, each in a process of its own; once per process of ours."""
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if platform.system() != "Linux":
        return Probe(None, {"fork server": f"it needs Linux, this is {platform.system()}"}, system)
    missing = {name: said for name, code in _TRIES.items() if (said := _refusal(code))}
    granted = [level for level, layers in LAYERS.items() if not missing.keys() & {*layers}]
    return Probe(granted[-1], missing, system)


def _refusal(code: str) -> str:
    """Why a layer cannot be had; empty if it can."""
    from papercore.sandbox.server import BOOT, interpreter

    script = f"{BOOT}from inside import kernel, landlock, seccomp; {code}"
    done = subprocess.run(
        [*interpreter(), script],
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 0:
        return ""
    return done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
