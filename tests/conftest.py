"""The workspace as data, for the tests that only the whole can run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sys.executable).parent
MINIATURE_S = 2400
"""Wall clock for one miniature; its own budget is counted in CPU seconds."""


Command = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Member:
    """One distribution of the workspace."""

    name: str
    folder: Path

    @property
    def import_name(self) -> str:
        return self.name.replace("-", "_")

    @property
    def source(self) -> Path:
        return self.folder / "src" / self.import_name

    @property
    def project(self) -> dict[str, object]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text("utf-8"))["project"]


CORE = Member("papercore", ROOT / "shared")
PACKAGES = tuple(
    Member(path.parent.name, path.parent)
    for path in sorted((ROOT / "packages").glob("*/pyproject.toml"))
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`package` runs over every package, `member` over the core too.

    The costly tests of one package stay on one worker, so that no worker waits for another's run.
    """
    for argument, members in (("package", PACKAGES), ("member", (CORE, *PACKAGES))):
        if argument in metafunc.fixturenames:
            slow = metafunc.definition.get_closest_marker("slow") is not None
            values = [
                pytest.param(m, id=m.name, marks=[pytest.mark.xdist_group(m.name)] if slow else [])
                for m in members
            ]
            metafunc.parametrize(argument, values, scope="session")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def core() -> Member:
    return CORE


@pytest.fixture(scope="session")
def packages() -> tuple[Member, ...]:
    return PACKAGES


@pytest.fixture(scope="session")
def session_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the whole test session, the same in every worker."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@dataclass(frozen=True)
class Miniature:
    """A finished run of a package's miniature."""

    out: Path
    cache: Path
    code: int
    shown: str
    """All that it printed."""


@pytest.fixture(scope="session")
def miniature(session_dir: Path, command: Command) -> Callable[..., Miniature]:
    """`miniature(package, *flags)`: the full miniature of seed 0, run once per session and flags.

    The run without flags begins with an empty model cache; all others find its trained model there.
    A lock lets workers share the runs.
    """

    def run(package: Member, *flags: str) -> Miniature:
        if flags:
            run(package)
        name = "".join(flags).replace("-", "") or "cold"
        folder = session_dir / "miniatures" / package.name
        folder.mkdir(parents=True, exist_ok=True)
        out, cache, done = folder / name, folder / "cache", folder / f"{name}.json"
        with FileLock(folder / "lock"):
            if not done.exists():
                env = {"PAPERCORE_CACHE": str(cache)}
                ran = command(
                    package.name, "mini", "--out", out, *flags, env=env, timeout_s=MINIATURE_S
                )
                done.write_text(json.dumps([ran.returncode, ran.stdout + ran.stderr]))
        code, shown = json.loads(done.read_text())
        return Miniature(out, cache, code, shown)

    return run


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a child process, without what would colour or widen its output."""
    dropped = {"FORCE_COLOR", "CLICOLOR_FORCE", "PYTHONPATH", "VIRTUAL_ENV"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    path = os.pathsep.join([str(SCRIPTS), kept.get("PATH", "")])
    return kept | {"PATH": path, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"}


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Command:
    """Run a command as a user would: the environment's scripts first on PATH, a plain terminal."""

    def run(
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(argument) for argument in arguments],
            cwd=cwd,
            env=environment | dict(env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run
