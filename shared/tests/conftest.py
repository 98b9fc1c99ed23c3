"""What the tests of the core share."""

import os
import sys
from pathlib import Path

import pytest

TOYS = Path(__file__).parent / "toys"


@pytest.fixture
def toypaper(monkeypatch):
    """The toy package, importable here and in subprocesses; its App."""
    monkeypatch.syspath_prepend(str(TOYS))
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TOYS), inherited])))
    from toypaper.cli import APP

    yield APP
    for name in [name for name in sys.modules if name.split(".")[0] == "toypaper"]:
        del sys.modules[name]
