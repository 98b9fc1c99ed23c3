import json

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_mini_runs_judges_and_reports(toypaper, here, capsys):
    assert toypaper.main(["mini", "--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert "high (planted)" in out
    assert "accuracy >= 0.75" in out
    assert "2 of 2 claims held" in out
    folder = here / "runs" / "toypaper-mini-seed1"
    document = json.loads((folder / "claims.json").read_text())
    assert (document["package"], document["seed"], document["mode"]) == ("toypaper", 1, "full")
    assert [claim["status"] for claim in document["claims"]] == ["held", "held"]
    assert (folder / "report.html").exists()


def test_a_missed_claim_exits_3(toypaper, here, capsys):
    assert toypaper.main(["mini", "--ablate", "--out", "ablated"]) == 3
    assert "1 of 2 claims held" in capsys.readouterr().out
    statuses = json.loads((here / "ablated" / "claims.json").read_text())["claims"]
    assert [claim["status"] for claim in statuses] == ["missed", "held"]


def test_not_a_number_is_shown_not_swallowed(toypaper, here, capsys):
    toypaper.main(["mini", "--out", "run"])
    records = here / "run" / "records.jsonl"
    records.write_text(records.read_text().splitlines()[0] + "\n")
    capsys.readouterr()
    toypaper.main(["report", "run"])
    assert "[nan, nan], n=1" in capsys.readouterr().out


def test_a_quick_run_exits_0_and_measures_nothing(toypaper, here, capsys):
    assert toypaper.main(["mini", "--quick", "--ablate", "--out", "quick"]) == 0
    document = json.loads((here / "quick" / "claims.json").read_text())
    assert document["mode"] == "quick"
    assert {claim["status"] for claim in document["claims"]} == {"not_measured"}
    assert "quick run" in capsys.readouterr().out


def test_mini_resumes_and_overwrites(toypaper, here, capsys):
    assert toypaper.main(["mini", "--out", "run"]) == 0
    assert toypaper.main(["mini", "--out", "run"]) == 2
    assert "--resume" in capsys.readouterr().err
    before = (here / "run" / "records.jsonl").read_bytes()
    assert toypaper.main(["mini", "--out", "run", "--resume"]) == 0
    assert (here / "run" / "records.jsonl").read_bytes() == before
    assert toypaper.main(["mini", "--out", "run", "--overwrite", "--seed", "4"]) == 0
    assert (here / "run" / "records.jsonl").read_bytes() != before


def test_a_missing_part_leaves_no_folder(toypaper, here, monkeypatch, capsys):
    monkeypatch.setenv("TOY_NEEDS_PART", "1")
    assert toypaper.main(["mini", "--out", "run"]) == 2
    assert "pip install 'toypaper[part]'" in capsys.readouterr().err
    assert not (here / "run").exists()


def test_recheck_finds_the_same_bytes_and_says_so(toypaper, here, capsys):
    toypaper.main(["mini", "--out", "run"])
    capsys.readouterr()
    assert toypaper.main(["report", "run", "--recheck"]) == 0
    assert capsys.readouterr().out == "run: rebuilt from records.jsonl, byte for byte the same\n"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("summary.json", '"error": 1', '"error": 0', "summary.json: counts.error: 0 -> 1"),
        ("claims.json", '"status": "held"', '"status": "missed"', "claims.json: "),
        ("report.html", "held", "HELD", "report.html: differs"),
        ("figures/accuracy.csv", "toy", "boy", "figures/accuracy.csv: differs"),
        ("records.jsonl", '"ours": 1', '"ours": 0', "metrics.accuracy.value: "),
    ],
)
def test_recheck_shows_what_was_changed(toypaper, here, capsys, name, old, new, said):
    toypaper.main(["mini", "--out", "run"])
    path = here / "run" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    capsys.readouterr()
    assert toypaper.main(["report", "run", "--recheck"]) == 1
    assert said in capsys.readouterr().out
    assert path.read_text() == text.replace(old, new, 1), "a check must change nothing"


def test_recheck_names_edited_records_among_the_causes(toypaper, here, capsys):
    toypaper.main(["mini", "--out", "run"])
    path = here / "run" / "records.jsonl"
    path.write_text(path.read_text().replace('"ours": 1', '"ours": 0', 1))
    capsys.readouterr()
    assert toypaper.main(["report", "run", "--recheck"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "differs: records.jsonl or the files above were edited, or other versions" in said


def test_report_says_that_a_run_is_unfinished(toypaper, here, capsys):
    assert toypaper.main(["stopped", "--out", "run", "--limit", "5"]) == 130
    assert toypaper.main(["report", "run"]) == 0
    said = "unfinished run: its command has not ended; records so far: 5; --resume goes on\n"
    assert said in capsys.readouterr().out
    assert toypaper.main(["report", "run", "--recheck"]) == 0
    toypaper.main(["mini", "--out", "whole"])
    assert "unfinished" not in capsys.readouterr().out


def test_recheck_misses_files(toypaper, here, capsys):
    toypaper.main(["mini", "--out", "run"])
    (here / "run" / "report.html").unlink()
    (here / "run" / "figures" / "painted.png").write_bytes(b"x")
    assert toypaper.main(["report", "run", "--recheck"]) == 1
    out = capsys.readouterr().out
    assert "report.html: is missing" in out
    assert "figures/painted.png: is not what this run makes" in out


def test_report_rebuilds_what_is_gone(toypaper, here, capsys):
    toypaper.main(["mini", "--out", "run"])
    made = ("summary.json", "claims.json", "report.html", "figures/accuracy.png")
    before = [(here / "run" / name).read_bytes() for name in made]
    for name in made:
        (here / "run" / name).unlink()
    assert toypaper.main(["report", "run"]) == 0
    assert [(here / "run" / name).read_bytes() for name in made] == before
    assert "2 of 2 claims held" in capsys.readouterr().out


def test_report_refuses_what_is_no_run_of_this_package(toypaper, here, capsys):
    assert toypaper.main(["report", "nowhere"]) == 2
    assert "nowhere is not a run folder" in capsys.readouterr().err
    toypaper.main(["mini", "--out", "run"])
    config = here / "run" / "config.json"
    config.write_text(config.read_text().replace("toypaper", "otherpaper"))
    capsys.readouterr()
    assert toypaper.main(["report", "run"]) == 2
    assert "is a run of otherpaper" in capsys.readouterr().err


def test_info_lists_verbs_presets_and_parts(toypaper, capsys):
    assert toypaper.main(["info"]) == 0
    out = capsys.readouterr().out
    assert "On Toys (arXiv:2402.00000)" in out
    assert "go there [tiny, paper]" in out
    assert "part_that_nobody_has  missing: pip install 'toypaper[part]'" in out
    assert "numpy  present" in out


def test_info_prints_a_recipe_as_it_is(toypaper, capsys):
    assert toypaper.main(["info", "--recipe", "mini"]) == 0
    assert capsys.readouterr().out == "toypaper mini --seed 0\n"
    assert toypaper.main(["info", "--recipe", "paper"]) == 2
    assert "no recipe 'paper'" in capsys.readouterr().err
