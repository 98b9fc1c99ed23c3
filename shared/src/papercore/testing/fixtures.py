"""Fixtures for the `conftest.py` of every package.

    from papercore.testing.fixtures import model_cache, one_thread

An imported autouse fixture holds for every test below that `conftest.py`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One torch thread, as the miniatures have: results repeat bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of miniature models."""
    folder = tmp_path / "papercore-cache"
    monkeypatch.setenv("PAPERCORE_CACHE", str(folder))
    return folder
