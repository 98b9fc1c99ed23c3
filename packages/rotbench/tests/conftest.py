"""Fixtures of rotbench: the sample's cases, and the released files where they are at hand."""

import os
from pathlib import Path

import pytest

from papercore.testing.fixtures import model_cache, one_thread
from rotbench.cases import Case
from rotbench.data import load_cases
from rotbench.released import FOLDERS, read_folder

__all__ = ["model_cache", "one_thread"]

_BESIDE = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "rotbench"


@pytest.fixture(scope="session")
def released_folder() -> Path:
    """The ten released files: `$ROTBENCH_DATA`, else beside the project."""
    folder = Path(os.environ.get("ROTBENCH_DATA", _BESIDE)).resolve()
    if not all((folder / name).is_dir() for name in FOLDERS.values()):
        pytest.skip("the released files are not here: set ROTBENCH_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def released_cases(released_folder: Path) -> list[Case]:
    """All 1,400 released cases."""
    return read_folder(released_folder)


@pytest.fixture(scope="session")
def sample_cases() -> list[Case]:
    """All cases of the sample, disturbed ones with their origins."""
    return load_cases("sample")[0]
