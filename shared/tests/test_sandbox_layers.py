"""Each layer alone, in a process of its own: none of them leans on another."""

import os
import subprocess

import pytest

from papercore.sandbox import levels, probe
from papercore.sandbox.inside.calls import ARCHES, CALLS
from papercore.sandbox.levels import at_least
from papercore.sandbox.server import BOOT, interpreter

pytestmark = pytest.mark.skipif(probe().level is None, reason="the layers need Linux")

SECCOMP = "kernel.drop_privileges(); seccomp.restrict_calls(files=True)"
LANDLOCK = "kernel.drop_privileges(); landlock.restrict_files((FOLDER,))"


@pytest.fixture
def under(tmp_path):
    """Runs code behind a layer, with a folder that holds a file; the last line it said."""
    (tmp_path / "file").write_text("content")

    def run(layer, code, name):
        if name in probe().missing:
            pytest.skip(f"this machine does not grant {name}: {probe().missing[name]}")
        lines = [
            f"{BOOT}from inside import kernel, landlock, seccomp",
            f"import os, socket; FOLDER = {str(tmp_path)!r}; FILE = FOLDER + '/file'",
            layer,
            code,
        ]
        done = subprocess.run(
            [*interpreter(), "\n".join(lines)], capture_output=True, text=True, check=False
        )
        return (done.stdout + done.stderr).strip().rpartition("\n")[2]

    return run


@pytest.mark.parametrize(
    "code",
    [
        "open(FILE, 'w')",
        "open(FILE, 'a')",
        "open(FILE, 'r+')",
        "open(FOLDER + '/new', 'x')",
        "os.open(FILE, os.O_RDONLY | os.O_TRUNC)",
        "os.open(FOLDER, os.O_TMPFILE | os.O_WRONLY)",
        "os.open(FOLDER + '/new', os.O_RDONLY | os.O_CREAT)",
        "os.remove(FILE)",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getpid(), 0)",
        "socket.socket()",
    ],
)
def test_calls_alone(under, code, tmp_path):
    assert "Operation not permitted" in under(SECCOMP, code, "seccomp")
    assert (tmp_path / "file").read_text() == "content"


def test_calls_alone_let_files_be_read(under):
    assert under(SECCOMP, "print(open(FILE).read())", "seccomp") == "content"
    closed = SECCOMP.replace("True", "False")
    assert "Operation not permitted" in under(closed, "open(FILE)", "seccomp")


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd')",
        "os.listdir('/etc')",
        "open(FILE, 'w')",
        "open(FOLDER + '/new', 'x')",
        "os.remove(FILE)",
        "os.mkdir(FOLDER + '/new')",
        "os.symlink(FILE, FOLDER + '/new')",
        "os.truncate(FILE, 0)",
        "os.execv('/bin/true', ['true'])",
    ],
)
def test_files_alone(under, code, tmp_path):
    assert "Permission denied" in under(LANDLOCK, code, "landlock")
    assert (tmp_path / "file").read_text() == "content"


def test_files_alone_let_some_be_read(under):
    assert under(LANDLOCK, "print(open(FILE).read(), os.listdir(FOLDER))", "landlock") == (
        "content ['file']"
    )


def test_spaces_alone(under):
    code = "print(os.getpid()) if os.fork() == 0 else os.wait()"
    assert under("kernel.isolate()", code, "namespaces") == "1"
    code = "socket.create_connection(('127.0.0.1', 9))"
    assert "unreachable" in under("kernel.isolate()", code, "namespaces")
    assert under("kernel.isolate()", "print(os.getuid())", "namespaces") == str(os.getuid())


def test_privileges_are_gone_for_good(under):
    code = "print([line.split()[1] for line in open('/proc/self/status') if line[:3] in KINDS])"
    names = "KINDS = ('Cap', 'NoN')"
    found = under("kernel.drop_privileges()", f"{names}\n{code}", "seccomp")
    assert found == str(["0" * 16] * 5 + ["1"])


def test_levels_are_ordered():
    assert at_least("landlock", "seccomp")
    assert at_least("landlock", "landlock")
    assert not at_least("seccomp", "landlock")


def test_a_missing_layer_lowers_the_level(monkeypatch):
    said = {"landlock": "the kernel has none"}
    monkeypatch.setattr(
        levels, "_refusal", lambda code: said["landlock"] if "restrict_files" in code else ""
    )
    monkeypatch.setattr(levels.platform, "system", lambda: "Linux")
    found = levels.probe.__wrapped__()
    assert (found.level, dict(found.missing)) == ("seccomp", said)
    monkeypatch.setattr(levels.platform, "system", lambda: "Darwin")
    found = levels.probe.__wrapped__()
    assert found.level is None
    assert "Darwin" in found.missing["fork server"]


def test_a_refused_layer_says_why():
    if probe().level == "rlimits":
        pytest.skip("this machine grants nothing more")
    assert levels._refusal("raise OSError(1, 'no')") == "PermissionError: [Errno 1] no"


def test_tables_of_calls_hold_the_same_for_all_machines():
    assert CALLS.keys() == ARCHES.keys()
    for calls in CALLS.values():
        assert len(set(calls.values())) == len(calls)
    only_x86 = {"poll", "select", "dup2", "pause", "alarm", "arch_prctl", "readlink"}
    assert CALLS["x86_64"].keys() - CALLS["aarch64"].keys() == only_x86
    assert CALLS["aarch64"].keys() <= CALLS["x86_64"].keys()
