"""The verb `augment` as a user calls it."""

import json

import pytest

from papercore.records import read_records
from papercore.testing import run_cli
from rotbench.layouts import parse
from rotbench.training_report import summarise, tables


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("augment") / "run"
    return run_cli(["rotbench", "augment", "tiny", "--out", out]), out


def rows_of(out):
    return [json.loads(line) for line in (out / "trajectories.jsonl").read_text().splitlines()]


def test_the_sample_is_augmented_and_counted(done):
    said, out = done
    assert (said.returncode, said.stderr) == (0, "")
    assert "45 trajectories from 21" in said.stdout
    levels = [parse(one).level for one in rows_of(out)]
    assert [levels.count(level) for level in ("clean", "slight", "medium", "heavy", "union")] == [
        *(24, 6, 6, 6, 3)
    ]


def test_the_summary_is_that_of_the_records(done):
    records = read_records(done[1] / "records.jsonl")
    found = summarise(records)
    assert found["rows"].value == 45
    assert found["share_clean"].value == pytest.approx(24 / 45)
    assert 0.2 < found["tools_renamed"].value < 0.8
    (table,) = tables(records)
    assert sum(line[2] for line in table.rows) == 45
    assert json.loads((done[1] / "summary.json").read_text())["metrics"]["rows"]["value"] == 45


def test_the_same_call_writes_the_same_bytes_and_resume_changes_nothing(done, tmp_path):
    _, out = done
    again = run_cli(["rotbench", "augment", "tiny", "--out", tmp_path / "again"])
    assert again.returncode == 0
    content = (out / "trajectories.jsonl").read_bytes()
    assert (tmp_path / "again" / "trajectories.jsonl").read_bytes() == content
    (tmp_path / "again" / "trajectories.jsonl").unlink()  # as if killed before it had its name
    resumed = run_cli(["rotbench", "augment", "tiny", "--resume", "--out", tmp_path / "again"])
    assert resumed.returncode == 0
    assert (tmp_path / "again" / "trajectories.jsonl").read_bytes() == content


def test_bad_rows_are_skipped_named_and_told_by_the_exit_code(done, tmp_path):
    source = tmp_path / "in.jsonl"
    good = [json.dumps(one) for one in rows_of(done[1]) if one["rotbench"]["level"] == "clean"]
    source.write_text("\n".join([good[0], '{"messages": 3}', good[1], ""]))
    out = tmp_path / "out"
    words = ["--trajectories", source, "--layout", "openai", "--quota.clean", "2"]
    words += ["--quota.slight", "3", "--quota.union", "0"]
    said = run_cli(["rotbench", "augment", "tiny", *words, "--out", out])
    assert said.returncode == 1
    assert "left out in.jsonl: line 2: messages: should be a list, not 3" in said.stdout
    skipped = [one for one in read_records(out / "records.jsonl") if one.status == "skipped"]
    assert [one.id for one in skipped] == ["augment/row/in.jsonl: line 2"]
    assert len(rows_of(out)) == 2 + 3 + 6 + 6
    assert all("messages" in one for one in rows_of(out))


def test_a_file_without_any_trajectory_is_refused_in_one_line(tmp_path):
    (tmp_path / "in.jsonl").write_text("{}\n")
    words = ["--trajectories", tmp_path / "in.jsonl", "--out", tmp_path / "out"]
    said = run_cli(["rotbench", "augment", "tiny", *words])
    assert said.returncode == 2
    assert "holds no trajectory: in.jsonl: line 1: the row: has neither" in said.stderr
    assert not (tmp_path / "out").exists()
    words[1] = tmp_path / "nonesuch.jsonl"
    assert "no such file" in run_cli(["rotbench", "augment", "tiny", *words]).stderr
