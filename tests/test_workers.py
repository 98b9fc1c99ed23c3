"""Tests that share a costly run are kept on one worker by the installed pytest and pytest-xdist."""

from __future__ import annotations

import subprocess
import sys

SUITE = """
import os, pytest

NAMES = [pytest.param(name, id=name, marks=pytest.mark.xdist_group(name)) for name in "ab"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("turn", range(4))
def test_turn(name, turn):
    print("ran", name, os.environ["PYTEST_XDIST_WORKER"])
"""


def test_groups_stay_on_one_worker(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    flags = ["-n2", "--dist=loadgroup", "-rP", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *flags, "test_suite.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("ran ")]
    assert len(lines) == 8
    workers = {name: {worker for group, worker in lines if group == name} for name in "ab"}
    assert all(len(used) == 1 for used in workers.values()), workers
