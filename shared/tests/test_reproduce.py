import os
import signal
import subprocess
import sys
import time

import pytest

from papercore.claims import Bar, Claim, judge
from papercore.overview import Outcome
from papercore.reproduce import discover, exit_code, main, reproduce

BROKEN = "import sys; sys.exit('it broke')"
DEAD = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def script(name):
    """The toy package, or a program that goes wrong."""
    if name == "toypaper":
        return (sys.executable, "-m", "toypaper.cli")
    return (sys.executable, "-c", {"broken": BROKEN, "dead": DEAD, "silent": ""}[name])


def test_one_failure_does_not_stop_the_others(toypaper, tmp_path):
    names = ["broken", "toypaper", "dead", "silent"]
    outcomes = reproduce(names, seeds=[0], out=tmp_path, script=script)
    assert [outcome.package for outcome in outcomes] == names
    broken, good, dead, silent = outcomes
    assert broken.failure == "exit 1: it broke"
    assert (good.failure, good.status, len(good.verdicts)) == ("", "held", 2)
    assert dead.failure.startswith(f"exit {-signal.SIGKILL}")
    assert "no readable result" in silent.failure
    assert exit_code(outcomes, first_seed=0, quick=False) == 1
    page = (tmp_path / "index.html").read_text()
    assert "On Toys" in page
    assert 'href="toypaper/seed0/report.html"' in page
    assert 'href="logs/broken-seed0.log"' in page
    assert "data:image/png" in page


def test_a_rerun_replaces_what_was_there(toypaper, tmp_path):
    stale = tmp_path / "toypaper" / "seed0"
    toypaper.main(["mini", "--ablate", "--out", str(stale)])
    (outcome,) = reproduce(["toypaper"], seeds=[0], out=tmp_path, script=script)
    assert outcome.status == "held"


def test_children_get_one_thread(tmp_path):
    program = "import os; print([os.environ[k] for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')])"
    reproduce(["x"], seeds=[0], out=tmp_path, script=lambda _: (sys.executable, "-c", program))
    assert (tmp_path / "logs" / "x-seed0.log").read_text() == "['1', '1']\n"


def test_no_more_run_at_once_than_asked(tmp_path):
    program = (
        "import os, pathlib, sys, time; here = pathlib.Path(sys.argv[-2]).parent;"
        "mark = pathlib.Path(sys.argv[1], str(os.getpid())); mark.touch();"
        "print(len(list(mark.parent.iterdir()))); time.sleep(0.3); mark.unlink()"
    )
    marks = tmp_path / "marks"
    marks.mkdir()
    names = ["a", "b", "c", "d"]
    reproduce(
        names,
        seeds=[0],
        out=tmp_path / "out",
        jobs=2,
        script=lambda _: (sys.executable, "-c", program, str(marks)),
    )
    seen = [int((tmp_path / "out" / "logs" / f"{name}-seed0.log").read_text()) for name in names]
    assert max(seen) <= 2


def outcome(seed, value=1.0, failure=""):
    claim = Claim("c", "s", "t", None, "read", "effect", False, (Bar("m", ">=", 0.5),))
    from papercore.stats import exact

    verdict = judge(claim, {"m": exact(value, 1)})
    return Outcome("p", seed, None, None, verdicts=(verdict,), failure=failure)


@pytest.mark.parametrize(
    ("outcomes", "quick", "code"),
    [
        ([outcome(0), outcome(1)], False, 0),
        ([outcome(0, 0.1), outcome(1)], False, 3),
        ([outcome(0), outcome(1, 0.1)], False, 0),
        ([outcome(0, 0.1), outcome(1, failure="exit 1")], False, 1),
        ([outcome(0, 0.1)], True, 0),
    ],
)
def test_only_the_first_seed_must_hold_but_no_process_may_fail(outcomes, quick, code):
    assert exit_code(outcomes, first_seed=0, quick=quick) == code


def test_packages_are_found_by_what_they_need():
    found = discover()
    assert "longheads" in found
    assert "pytest" not in found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--packages", "lonheads"], "did you mean 'longheads'?"),
        (["--seeds", "a"], "is not a list of seeds"),
        (["--seeds", "-1"], "argument --seeds"),
        (["--jobs", "0"], "at least 1"),
    ],
)
def test_a_mistake_exits_2(words, said, capsys, tmp_path):
    try:
        code = main([*words, "--out", str(tmp_path / "out")])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_interrupt_takes_the_children_along(tmp_path):
    pidfile = tmp_path / "pid"
    child = f"import os, pathlib, time; p = pathlib.Path({str(pidfile)!r});"
    child += "p.write_text(str(os.getpid())); time.sleep(60)"
    program = (
        "import sys; from pathlib import Path; from papercore import reproduce;"
        f"reproduce.reproduce(['x'], seeds=[0], out=Path({str(tmp_path / 'out')!r}),"
        f"script=lambda _: (sys.executable, '-c', {child!r}))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as parent:
        deadline = time.monotonic() + 60
        while not (pidfile.exists() and pidfile.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert parent.poll() is None
        os.kill(int(pidfile.read_text()), 0)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(timeout=60) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pidfile.read_text()), 0)
