import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from papercore.claims import Bar, Claim, Estimate, judge
from papercore.config import MiniConfig, RunConfig, RunFlags, config_hash
from papercore.errors import ConfigError, DataError
from papercore.files import read_json
from papercore.generate.endpoint import EndpointConfig
from papercore.records import Record
from papercore.runs import (
    Run,
    check_folder,
    has_run_through,
    is_run_folder,
    read_identity,
)
from papercore.stats import bootstrap_mean

RESUME = RunFlags(resume=True)
OVERWRITE = RunFlags(overwrite=True)

KILLED_PROGRAM = Path(__file__).parent / "toys" / "appender.py"


def start(out, flags=None, *, seed=0, version="1.0.0", verb="go"):
    return Run.open(
        out,
        MiniConfig(seed=seed),
        flags or RunFlags(),
        package="toypaper",
        version=version,
        verb=verb,
    )


class Talk(RunConfig):
    """A command that talks to an endpoint."""

    model: str = "a"
    endpoint: EndpointConfig = EndpointConfig()


def summary_without_timing(folder):
    document = read_json(folder / "summary.json")
    del document["timing"]
    return document


def test_a_failed_example_can_be_tried_again_and_again(tmp_path):
    out = tmp_path / "run"
    with start(out) as run:
        run.append(Record(id="a", status="error", error="no answer"))
        run.append(Record(id="b"))
        assert (run.done, run.failed) == ({"a", "b"}, {"a"})
    with start(out, RESUME) as run:
        run.append(Record(id="a", status="error", error="still none"))
        assert run.failed == {"a"}
        run.append(Record(id="a", data={"x": 1}))
        assert run.failed == frozenset()
        with pytest.raises(DataError, match="'a' was already written"):
            run.append(Record(id="a"))
        assert run.records() == [Record(id="a", data={"x": 1}), Record(id="b")]
        run.finish({})
    assert read_json(out / "summary.json")["counts"] == {"ok": 2, "error": 0, "skipped": 0}
    lines = (out / "records.jsonl").read_text().splitlines()
    assert len(lines) == 4, "what happened before stays in the file"


def test_a_run_leaves_what_its_folder_promises(tmp_path):
    out = tmp_path / "deep" / "run"
    claim = Claim("c", "s", "t", None, "read", "effect", False, (Bar("x", ">=", 1),))
    with start(out) as run:
        run.append(Record(id="a", data={"x": 2}))
        run.append(Record(id="b", status="error", error="no"))
        run.append(Record(id="c", status="skipped"))
        run.log(1, loss=0.5)
        run.note(device="cpu", dtype="float32")
        with run.timed("eval"):
            run.count(tokens=10)
        estimates = {"x": Estimate(2.0, 1.0, float("inf"), 1, "bootstrap")}
        run.finish(estimates, [judge(claim, estimates)])
    summary = read_json(out / "summary.json")
    assert summary["metrics"]["x"] == {
        "value": 2.0,
        "lo": 1.0,
        "hi": None,
        "n": 1,
        "method": "bootstrap",
    }
    assert summary["counts"] == {"ok": 1, "error": 1, "skipped": 1}
    assert summary["timing"]["counts"] == {"tokens": 10}
    assert set(summary["timing"]["phases"]) == {"eval"}
    assert read_json(out / "claims.json")["claims"][0]["status"] == "held"
    assert read_json(out / "env.json")["notes"] == {"device": "cpu", "dtype": "float32"}
    assert read_identity(out).config == {"seed": 0, "quick": False, "ablate": False}
    assert not [path for path in out.iterdir() if path.name.endswith(".tmp")]


def test_environment_variables_stay_out_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "very-secret-value")
    with start(tmp_path / "run") as run:
        run.finish({})
    written = b"".join(p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file())
    assert b"very-secret-value" not in written


def test_resume_skips_what_is_there(tmp_path):
    with start(tmp_path / "run") as run:
        run.append(Record(id="a"))
        run.append(Record(id="b", status="error", error="no"))
    with start(tmp_path / "run", RESUME) as run:
        assert run.done == {"a", "b"}
        run.append(Record(id="c"))
        assert [record.id for record in run.records()] == ["a", "b", "c"]


def test_resume_of_nothing_starts_a_run(tmp_path):
    with start(tmp_path / "run", RESUME) as run:
        assert run.done == frozenset()


def test_an_id_is_written_once(tmp_path):
    with start(tmp_path / "run") as run:
        run.append(Record(id="a"))
        with pytest.raises(DataError, match="'a' was already written"):
            run.append(Record(id="a"))


def test_steps_are_logged_once_over_resumes(tmp_path):
    for flags in (RunFlags(), RESUME):
        with start(tmp_path / "run", flags) as run:
            for step in (1, 2):
                run.log(step, loss=1.0)
                run.log(step, accuracy=float("nan"))
            run.log(3 if flags.resume else 2, loss=1.0)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 1, 2, 2, 3]


def test_a_folder_with_a_run_needs_a_decision(tmp_path):
    start(tmp_path / "run").close()
    with pytest.raises(ConfigError, match="--resume goes on with it, --overwrite"):
        start(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"version": "1.1.0"}, 'version: "1.0.0" -> "1.1.0"'),
        ({"verb": "come"}, 'verb: "go" -> "come"'),
    ],
)
def test_another_run_is_not_resumed(tmp_path, change, said):
    start(tmp_path / "run").close()
    with pytest.raises(ConfigError, match="holds another run") as info:
        start(tmp_path / "run", RESUME, **change)
    assert said in str(info.value)


class Paced(MiniConfig):
    how: ClassVar[frozenset[str]] = frozenset({"pace"})
    pace: int = 1


def test_what_says_only_how_to_run_is_no_reason_not_to_resume(tmp_path):
    names = {"package": "toypaper", "version": "1.0.0", "verb": "go"}
    Run.open(tmp_path / "run", Paced(), RunFlags(), **names).close()
    with pytest.raises(ConfigError, match="seed: 0 -> 1") as info:
        Run.open(tmp_path / "run", Paced(seed=1, pace=2), RESUME, **names)
    assert "pace" not in str(info.value)


def test_other_data_is_another_run(tmp_path):
    start(tmp_path / "run").close()
    with pytest.raises(ConfigError, match='data_hash: null -> "d2"'):
        Run.open(
            tmp_path / "run",
            MiniConfig(),
            RESUME,
            package="toypaper",
            version="1.0.0",
            verb="go",
            data_hash="d2",
        )


def test_overwrite_starts_again_with_any_config(tmp_path):
    with start(tmp_path / "run") as run:
        run.append(Record(id="a"))
        run.finish({})
    (tmp_path / "run" / "figures").mkdir()
    (tmp_path / "run" / "figures" / "f.png").write_bytes(b"x")
    with start(tmp_path / "run", OVERWRITE, seed=5) as run:
        assert run.done == frozenset()
    assert not (tmp_path / "run" / "figures").exists()
    assert not (tmp_path / "run" / "summary.json").exists()
    assert read_identity(tmp_path / "run").seed == 5


@pytest.mark.parametrize("flags", [RunFlags(), RESUME, OVERWRITE])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, flags):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    (tmp_path / "config.json").write_text('{"mine": true}')
    with pytest.raises(ConfigError, match="is not a run folder"):
        start(tmp_path, flags)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "thesis.txt"]


def test_overwrite_does_not_follow_links(tmp_path):
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "gold").write_text("x")
    start(tmp_path / "run").close()
    (tmp_path / "run" / "link").symlink_to(treasure)
    start(tmp_path / "run", OVERWRITE).close()
    assert (treasure / "gold").exists()
    assert not (tmp_path / "run" / "link").exists()


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        start(tmp_path / "file")


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("/proc/x", "No such file or directory"),
        ("/proc/x/deeper", "No such file or directory"),
        ("file/run", "Not a directory"),
        ("n" * 300, "File name too long"),
    ],
)
def test_a_folder_that_cannot_be_made_is_noticed_before_anything_runs(
    tmp_path, monkeypatch, out, reason
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    out = Path(out)
    for ask in (lambda: check_folder(out, RunFlags()), lambda: start(out)):
        with pytest.raises(ConfigError) as info:
            ask()
        said = str(info.value)
        assert said == f"{out} cannot be written ({reason}): give another --out"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("flags", [RunFlags(), RESUME])
def test_a_folder_that_may_not_be_written_is_refused(tmp_path, flags):
    start(tmp_path / "run").close()
    for folder, out in ((tmp_path, tmp_path / "other"), (tmp_path / "run", tmp_path / "run")):
        folder.chmod(0o555)
        with pytest.raises(ConfigError, match="Permission denied"):
            check_folder(out, flags)
        folder.chmod(0o755)


def test_asking_for_a_folder_leaves_nothing(tmp_path):
    check_folder(tmp_path / "deep" / "run", RunFlags())
    check_folder(tmp_path, RunFlags())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [RESUME, OVERWRITE])
def test_two_writers_do_not_meet(tmp_path, flags):
    with start(tmp_path / "run") as run:
        run.append(Record(id="a"))
        with pytest.raises(ConfigError, match="another process"):
            start(tmp_path / "run", flags)
        assert [record.id for record in run.records()] == ["a"]
    with start(tmp_path / "run", RESUME) as run:
        assert run.done == {"a"}


def test_a_run_ends_unless_an_error_leaves_it(tmp_path):
    assert has_run_through(tmp_path), "nothing says otherwise"
    with start(tmp_path / "run") as run:
        assert not has_run_through(tmp_path / "run")
        run.finish({})
    assert has_run_through(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), start(tmp_path / "run", RESUME):
        raise KeyboardInterrupt
    assert not has_run_through(tmp_path / "run")
    start(tmp_path / "run", RESUME).close()
    assert has_run_through(tmp_path / "run")


def test_the_report_of_a_part_goes_when_the_run_goes_on(tmp_path):
    """Commands with nothing left to do keep the report that is there."""
    report = tmp_path / "run" / "report.html"
    for error, kept in ((None, True), (KeyboardInterrupt, False)):
        with contextlib.suppress(KeyboardInterrupt), start(tmp_path / "run", RESUME):
            report.write_text("x")
            if error:
                raise error
        start(tmp_path / "run", RESUME).close()
        assert report.exists() is kept


def test_an_error_lets_the_lock_go(tmp_path):
    with pytest.raises(ZeroDivisionError), start(tmp_path / "run"):
        raise ZeroDivisionError
    start(tmp_path / "run", RESUME).close()


def test_timing_adds_up_over_resumes(tmp_path):
    for flags in (RunFlags(), RESUME, RESUME):
        with start(tmp_path / "run", flags) as run:
            with run.timed("sleep"):
                time.sleep(0.02)
            run.count(tokens=5)
            run.finish({})
    timing = read_json(tmp_path / "run" / "summary.json")["timing"]
    assert timing["sessions"] == 3
    assert timing["counts"] == {"tokens": 15}
    assert 0.06 <= timing["phases"]["sleep"]["wall_s"] <= timing["wall_s"]


def test_a_run_goes_on_in_another_way_but_not_as_another_run(tmp_path):
    def open_(flags, **endpoint):
        config = Talk(endpoint=EndpointConfig(**endpoint))
        return Run.open(tmp_path, config, flags, package="toypaper", version="1.0.0", verb="talk")

    open_(RunFlags(), concurrency=8).close()
    with open_(RESUME, concurrency=2, budget_tok=100) as run:
        assert run.identity.hash == config_hash(Talk(), version="1.0.0")
    changes = ["endpoint.concurrency: 8 -> 2", "endpoint.budget_tok: null -> 100"]
    assert read_json(tmp_path / "env.json")["resumed"] == [changes]
    with pytest.raises(ConfigError, match='model: "a" -> "b"'):
        Run.open(
            tmp_path, Talk(model="b"), RESUME, package="toypaper", version="1.0.0", verb="talk"
        )


def test_resuming_elsewhere_leaves_a_trace(tmp_path, monkeypatch):
    start(tmp_path / "run").close()
    monkeypatch.setattr("papercore.env.versions", lambda: {"torch": "9.9"})
    start(tmp_path / "run", RESUME).close()
    changes = read_json(tmp_path / "run" / "env.json")["resumed"]
    assert any("versions.torch: " in change and '"9.9"' in change for change in changes[0])


def test_a_run_folder_is_known_by_its_config(tmp_path):
    assert not is_run_folder(tmp_path)
    start(tmp_path / "run").close()
    assert is_run_folder(tmp_path / "run")
    with pytest.raises(DataError, match="is not a run folder"):
        read_identity(tmp_path)


def append_all(out, *flags, wait=True):
    process = subprocess.Popen([sys.executable, str(KILLED_PROGRAM), str(out), *flags])
    if wait:
        assert process.wait(timeout=120) == 0
    return process


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_never_was(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    append_all(whole)
    rng = random.Random(0)
    sizes = [0]
    records = killed / "records.jsonl"
    while len(sizes) <= 8:
        process = append_all(killed, "--resume", wait=False)
        # Wait for some progress, then a random moment more: kills land in all parts of a write.
        goal = sizes[-1] + rng.randrange(0, 2000)
        deadline = time.monotonic() + 60
        while (records.stat().st_size if records.exists() else 0) <= goal:
            assert process.poll() is None, "ended before it could be killed: append more"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(rng.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not has_run_through(killed)
        sizes.append(records.stat().st_size)
    torn = records.read_bytes()
    os.truncate(records, torn.rfind(b"\n") - 3)
    append_all(killed, "--resume")
    assert has_run_through(killed)
    assert records.read_bytes() == (whole / "records.jsonl").read_bytes()
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert summary_without_timing(killed) == summary_without_timing(whole)
    assert read_json(killed / "summary.json")["timing"]["sessions"] == 9


def test_the_killed_program_computes_something(tmp_path):
    append_all(tmp_path / "run")
    with start(tmp_path / "other") as run:
        assert run.done == frozenset()
    metric = summary_without_timing(tmp_path / "run")["metrics"]["score"]
    values = [r["data"]["score"] for r in map(json.loads, open_lines(tmp_path / "run"))]
    assert metric["value"] == bootstrap_mean(values).value


def open_lines(folder):
    return (folder / "records.jsonl").read_text().splitlines()
