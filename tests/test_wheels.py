"""Wheels as a user gets them: one package alone, in a fresh environment, from another folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(3600)]

Uv = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Alone:
    """An environment that holds one package and what it asked for."""

    python: Path
    script: Path
    has_torch: bool


@pytest.fixture(scope="session")
def uv(root, command) -> Uv:
    found = root / ".tools" / "bin" / "uv"
    program = str(found) if found.exists() else shutil.which("uv")
    assert program, "run `make setup`"

    def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        return command(program, *arguments, cwd=cwd, timeout_s=1800)

    return run


@pytest.fixture(scope="session")
def exclude_newer(root) -> str:
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["uv"][
        "exclude-newer"
    ]


@pytest.fixture(scope="session")
def registry(uv, exclude_newer, tmp_path_factory) -> None:
    """Skip where the package registry does not answer."""
    place = tmp_path_factory.mktemp("registry")
    (place / "ask.txt").write_text("iniconfig\n")
    done = uv(
        "pip",
        "compile",
        "--no-cache",
        "--quiet",
        "--exclude-newer",
        exclude_newer,
        "ask.txt",
        cwd=place,
    )
    if done.returncode:
        pytest.skip("the package registry does not answer")


@pytest.fixture(scope="session")
def dist(registry, uv, root, tmp_path_factory) -> Path:
    """Wheels of all members."""
    out = tmp_path_factory.mktemp("dist")
    done = uv("build", "--quiet", "--all-packages", "--wheel", "--out-dir", out, cwd=root)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def locked_versions(root, tmp_path_factory) -> Path:
    """The versions of the lock without hashes, which our own wheels cannot have there."""
    pins = re.findall(
        r"^[\w.-]+==\S+(?: ;.*?)?(?= \\$)", (root / "requirements.lock").read_text(), re.MULTILINE
    )
    assert len(pins) > 50
    file = tmp_path_factory.mktemp("lock") / "constraints.txt"
    file.write_text("\n".join(pins) + "\n")
    return file


@pytest.fixture(scope="session")
def venv(tmp_path_factory) -> Path:
    """One folder for the environments of all packages, made anew from the cache each time."""
    return tmp_path_factory.mktemp("alone") / "venv"


@pytest.fixture
def alone(package, dist, uv, venv, exclude_newer, locked_versions, tmp_path) -> Alone:
    done = uv("venv", "--quiet", "--clear", "--python", sys.executable, venv, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    python = venv / "bin" / "python"
    done = uv(
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "--find-links",
        dist,
        "--exclude-newer",
        exclude_newer,
        "--constraint",
        locked_versions,
        package.name,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    packages = venv.glob("lib/python3*/site-packages/*")
    has_torch = any(path.name == "torch" for path in packages)
    return Alone(python, venv / "bin" / package.name, has_torch)


def test_the_wheel_holds_recipes_types_and_licence(member, dist):
    wheel = next(dist.glob(f"{member.import_name}-*.whl"))
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = (
        {"py.typed"}
        if member.name == "papercore"
        else {"py.typed", "recipes/mini.sh", "recipes/paper.sh"}
    )
    assert {f"{member.import_name}/{part}" for part in wanted} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("tests/" in name for name in names)


def test_a_package_installed_alone_works(package, packages, alone, command, tmp_path):
    others = {p.import_name for p in packages} - {package.import_name}
    site = next(alone.python.parent.parent.glob("lib/python3*/site-packages"))
    assert not others & {path.name for path in site.iterdir()}
    env = {
        "PAPERCORE_CACHE": str(tmp_path / "cache"),
        "PATH": f"{alone.script.parent}:/usr/bin:/bin",
    }

    info = command(alone.script, "info", cwd=tmp_path, env=env)
    assert info.returncode == 0, info.stderr
    assert package.name in info.stdout

    out = tmp_path / "out"
    mini = command(
        alone.script, "mini", "--quick", "--out", out, cwd=tmp_path, env=env, timeout_s=1200
    )
    if alone.has_torch:
        assert mini.returncode == 0, mini.stdout + mini.stderr
        assert (out / "report.html").is_file()
    else:
        assert mini.returncode == 2, mini.stdout + mini.stderr
        assert "[" in mini.stderr, "must name the extra to install"
        assert len(mini.stderr.strip().splitlines()) == 1
