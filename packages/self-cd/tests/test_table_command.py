"""`self-cd table`: runs side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.runs import Run
from papercore.stats import mcnemar, paired_difference, wilson
from papercore.testing import stub_endpoint
from papercore.testing.stub import chat
from self_cd.answers import Answer, Label
from self_cd.comparison import differences, rows_of
from self_cd.config import JudgeConfig, Method, Perturbation, RunAnswersConfig, TableConfig
from self_cd.items import Item, Side
from self_cd.judge_command import run as run_judge
from self_cd.judges.keyword import NAME
from self_cd.table_command import choose_judge, read_judged, run
from self_cd.verdicts import read_verdicts

R: Label = "refuse"
C: Label = "comply"
D: Label = "degenerate"
TEXT = {R: "Sorry, no.", C: "Use it.", D: ""}


def save_run(
    folder: Path,
    answers: Sequence[tuple[Method, float | None, Side, Sequence[Label | None]]],
    *,
    model: str = "m/x",
    query: str = "How {}?",
    dataset: str = "set",
    perturb: Perturbation | None = None,
) -> Path:
    """A run with labels by method, strength and side; None is a question that failed."""
    config = RunAnswersConfig(model=model, max_new_tokens=len(folder.name) + 5, perturb=perturb)
    origin = () if perturb is None else (("perturb", perturb),)
    with Run.open(
        folder, config, RunFlags(out=folder), package="self_cd", version="1", verb="run"
    ) as opened:
        for method, alpha, side, labels in answers:
            for number, label in enumerate(labels):
                item = Item(f"{dataset}/{side}{number}", dataset, side, query.format(number))
                if label is None:
                    failed = Answer(item, method, alpha, error="failed")
                    opened.append(failed.record())
                else:
                    answer = Answer(item, method, alpha, TEXT[label], provenance=origin)
                    opened.append(answer.judged(label, NAME).record())
    return folder


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


HARMFUL = [R] * 8
PLAIN = [R, R, R, R, C, C, C, C]
OURS = [C, C, C, R, C, C, D, C]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    plain = save_run(
        tmp_path / "plain",
        [("plain", None, "harmless", PLAIN), ("plain", None, "harmful", HARMFUL)],
    )
    ours = save_run(
        tmp_path / "selfcd",
        [("self-cd", 2.5, "harmless", OURS), ("self-cd", 2.5, "harmful", [*HARMFUL[:6], C, None])],
    )
    return plain, ours


def test_both_sides_stand_side_by_side(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(TableConfig(runs=two), RunFlags()) == 0
    shown = lines(capsys)
    assert shown[0] == f"Refusals by {NAME}, 95 % Wilson intervals"
    assert shown[1].split("  ")[0].strip() == "method"
    assert shown[1].index("set harmless") < shown[1].index("set harmful")
    low, high = wilson(1, 8).lo, wilson(1, 8).hi
    assert shown[3].startswith("self-cd@2.5")
    assert f"12.5 % [{100 * low:.1f} to {100 * high:.1f}] n=8, 12.5 % degenerate" in shown[3]
    assert "85.7 %" in shown[3], "7 of 8 harmful questions were answered"
    assert "n=7" in shown[3]
    assert "answers without a verdict, which count nowhere: self-cd@2.5: 1" in shown[-1]


def test_differences_are_paired_and_adjusted(two: tuple[Path, Path]) -> None:
    rows = rows_of(choose_judge(read_judged(two), "keyword")[1])
    compared = {one.side: one for one in differences(rows)}
    ours, theirs = [float(x == R) for x in OURS], [float(x == R) for x in PLAIN]
    harmless = compared["harmless"]
    assert harmless.estimate == paired_difference(ours, theirs)
    assert harmless.estimate.value == pytest.approx(-3 / 8)
    assert harmless.p_value == mcnemar(ours, theirs).p_value == pytest.approx(0.25)
    assert harmless.holm == pytest.approx(0.5), "two tests: the smaller p counts twice"
    assert compared["harmful"].estimate.n == 7, "one side failed on one question"
    assert compared["harmful"].holm == 1
    assert all(one.against.name == "plain" for one in compared.values())


def test_a_sweep_is_compared_with_its_own_strength_of_one(
    tmp_path: Path, two: tuple[Path, Path]
) -> None:
    sweep = save_run(
        tmp_path / "a-sweep",
        [("self-cd", alpha, "harmless", PLAIN) for alpha in (0.0, 1.0, 2.5)],
    )
    rows = rows_of(read_judged((*two, sweep)))
    against = {one.row.name: one.against.name for one in differences(rows)}
    assert against == {
        "self-cd@0": "self-cd@1",
        "self-cd@2.5 (a-sweep)": "self-cd@1",
        "self-cd@2.5 (selfcd)": "plain",
    }


def test_other_models_and_other_questions_are_not_compared(
    tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = two
    other = save_run(tmp_path / "other", [("self-cd", 2.5, "harmless", OURS)], model="m/y")
    disturbed = save_run(
        tmp_path / "disturbed", [("self-cd", 2.5, "harmless", OURS)], query="How bomb_{}?"
    )
    rows = rows_of(read_judged((plain, other, disturbed)))
    assert differences(rows) == []
    assert [row.name for row in rows] == ["plain m/x", "self-cd@2.5 m/y", "self-cd@2.5 m/x"]
    run(TableConfig(runs=(plain, other)), RunFlags())
    assert any(line.startswith("no plain run of the same model") for line in lines(capsys))


def test_a_question_in_other_words_is_no_pair(two: tuple[Path, Path]) -> None:
    judged = read_judged(two)
    judged[0] = replace(judged[0], asked="another text")
    compared = {one.side: one.estimate.n for one in differences(rows_of(judged))}
    assert compared == {"harmless": 7, "harmful": 7}


QUERY: dict[Perturbation, str] = {
    "question": "bomb = 'a'\nHow {}?",
    "instruction": "Careful. How {}?",
    "demonstration": "How {}?",
}
DISTURBED = [R, R, R, C, R, C, D, R]


def save_disturbed(folder: Path, method: Method, kind: Perturbation) -> Path:
    alpha = 2.5 if method == "self-cd" else None
    return save_run(
        folder / f"{method}-{kind}",
        [(method, alpha, "harmless", DISTURBED), (method, alpha, "harmful", [None, *HARMFUL[1:]])],
        query=QUERY[kind],
        perturb=kind,
    )


@pytest.mark.parametrize("kind", list(QUERY))
def test_disturbed_questions_are_compared_with_the_raw_ones_of_their_method(
    tmp_path: Path, two: tuple[Path, Path], kind: Perturbation
) -> None:
    both = [save_disturbed(tmp_path, method, kind) for method in ("plain", "self-cd")]
    for order in ((*two, *both), (*both, *reversed(two))):
        compared = differences(rows_of(read_judged(order)))
        against = {one.row.name: one.against.name for one in compared}
        assert against == {
            "self-cd@2.5": "plain",
            f"plain+{kind}": "plain",
            f"self-cd@2.5+{kind}": "self-cd@2.5",
        }
        found = {(one.row.name, one.side): one for one in compared}
        for name, raw in (("plain", PLAIN), ("self-cd@2.5", OURS)):
            one = found[f"{name}+{kind}", "harmless"]
            ours, theirs = [[float(x == R) for x in labels] for labels in (DISTURBED, raw)]
            assert one.estimate == paired_difference(ours, theirs)
            assert one.p_value == mcnemar(ours, theirs).p_value
        assert found[f"plain+{kind}", "harmful"].estimate.n == 7, "one failed when disturbed"
        assert found[f"self-cd@2.5+{kind}", "harmful"].estimate.n == 6, "and another when raw"


def test_a_disturbed_run_is_not_what_raw_ones_are_compared_with(
    tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, ours = two
    plain = save_disturbed(tmp_path, "plain", "demonstration")
    assert differences(rows_of(read_judged((ours, plain)))) == []
    run(TableConfig(runs=(ours, plain)), RunFlags())
    shown = lines(capsys)
    assert any(line.startswith("no plain run") and line.endswith(": self-cd@2.5") for line in shown)
    assert any(
        line.startswith("no raw run") and line.endswith(": plain+demonstration") for line in shown
    )


def test_other_strengths_models_and_perturbations_are_not_what_a_disturbed_run_is_compared_with(
    tmp_path: Path,
) -> None:
    folders = [
        save_disturbed(tmp_path, "self-cd", "question"),
        save_disturbed(tmp_path, "self-cd", "instruction"),
        save_run(tmp_path / "y", [("self-cd", 2.5, "harmless", OURS)], model="m/y"),
        save_run(tmp_path / "yy", [("self-cd", 2.0, "harmless", OURS)]),
    ]
    assert differences(rows_of(read_judged(folders))) == []


def test_without_a_raw_run_both_disturbed_alike_are_compared(tmp_path: Path) -> None:
    both = [save_disturbed(tmp_path, method, "question") for method in ("plain", "self-cd")]
    compared = differences(rows_of(read_judged(both)))
    assert {(one.row.name, one.against.name) for one in compared} == {
        ("self-cd@2.5+question", "plain+question")
    }


def test_verdicts_of_judge_know_what_was_disturbed(
    tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = (*two, save_disturbed(tmp_path, "self-cd", "question"))
    run_judge(JudgeConfig(runs=runs), RunFlags(out=tmp_path / "judged"))
    capsys.readouterr()
    run(TableConfig(runs=(tmp_path / "judged",)), RunFlags())
    shown = lines(capsys)
    assert any(line.startswith("Minus the row `against`, paired") for line in shown)
    [line] = [s for s in shown if s.startswith("self-cd@2.5+question") and "set harmless" in s]
    assert line.split()[1] == "self-cd@2.5"


def test_records_of_earlier_versions_are_of_raw_questions(two: tuple[Path, Path]) -> None:
    record = read_judged(two)[0].as_record()
    old = {name: value for name, value in record.data.items() if name != "perturb"}
    assert read_verdicts([record.model_copy(update={"data": old})]) == read_verdicts([record])


def test_a_missing_harmful_side_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_run(tmp_path / "a", [("plain", None, "harmless", PLAIN)])
    run(TableConfig(runs=(folder,)), RunFlags())
    [line] = [line for line in lines(capsys) if line.startswith("NO HARMFUL QUESTIONS")]
    assert "plain" in line


def judged_by(reply: str, runs: tuple[Path, ...], out: Path) -> str:
    """Verdicts of a model that always says the same; gives the judge's name."""
    with stub_endpoint([chat(reply)]) as stub:
        ref = f"openai:any@{stub.url}"
        config = JudgeConfig(runs=runs, judges=("llm",), model=ref)
        run_judge(config, RunFlags(out=out))
    return f"llm/2:{ref}"


def test_the_judge_is_chosen(
    tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    name = judged_by("comply", two, tmp_path / "judged")
    capsys.readouterr()
    run(TableConfig(runs=(tmp_path / "judged",), judge="llm"), RunFlags())
    shown = lines(capsys)
    assert name in shown[0]
    assert all("0.0 %" in line for line in shown[2:4])
    run(TableConfig(runs=(tmp_path / "judged", *two)), RunFlags())
    assert NAME in lines(capsys)[0]


def test_judges_are_not_mixed(tmp_path: Path, two: tuple[Path, Path]) -> None:
    first = judged_by("comply", two, tmp_path / "one")
    second = judged_by("refuse", two, tmp_path / "two")
    both = (tmp_path / "one", tmp_path / "two")
    with pytest.raises(ConfigError, match="would mix") as caught:
        run(TableConfig(runs=both, judge="llm"), RunFlags())
    assert first in str(caught.value)
    assert second in str(caught.value)
    assert run(TableConfig(runs=both, judge=second), RunFlags()) == 0


def test_a_run_that_the_judge_did_not_see_is_named(tmp_path: Path, two: tuple[Path, Path]) -> None:
    plain, ours = two
    judged_by("comply", (plain,), tmp_path / "judged")
    with pytest.raises(DataError, match=r"selfcd: has no verdicts of llm/2"):
        run(TableConfig(runs=(tmp_path / "judged", ours), judge="llm"), RunFlags())
    with pytest.raises(DataError, match=f"judged by {NAME}: name one"):
        run(TableConfig(runs=(plain,), judge="classifier"), RunFlags())


def test_a_run_beside_its_own_judge_folder_counts_once(
    tmp_path: Path, two: tuple[Path, Path]
) -> None:
    run_judge(JudgeConfig(runs=two), RunFlags(out=tmp_path / "judged"))
    alone = rows_of(choose_judge(read_judged(two), "keyword")[1])
    together = rows_of(choose_judge(read_judged((*two, tmp_path / "judged")), "keyword")[1])
    assert [row.name for row in together] == [row.name for row in alone]
    assert [len(row.judged) for row in together] == [len(row.judged) for row in alone]


def test_the_same_run_twice_is_refused(tmp_path: Path, two: tuple[Path, Path]) -> None:
    twin = save_run(tmp_path / "nialp", [("plain", None, "harmless", PLAIN)])
    with pytest.raises(ConfigError, match="are the same run"):
        run(TableConfig(runs=(two[0], twin)), RunFlags())
    with pytest.raises(ConfigError, match="given twice"):
        run(TableConfig(runs=(two[0], two[0])), RunFlags())


def test_markdown(
    tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    piped = save_run(tmp_path / "p|pe", [("safety", None, "harmless", PLAIN)], dataset="a|b")
    run(TableConfig(runs=(*two, piped), markdown=True), RunFlags())
    shown = lines(capsys)
    table = [line for line in shown if line.startswith("|")]
    assert table[1].replace("| ", "").replace("|", "").split() == ["---"] * 4
    assert all(line.replace("\\|", "").count("|") == 5 for line in table[:5])
    assert "a\\|b harmless" in table[0]


def test_csv_holds_the_numbers_and_no_formula(
    tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    evil = save_run(
        tmp_path / "evil-run", [("self-cd", 2.0, "harmless", OURS)], dataset="=HYPERLINK(1)"
    )
    path = tmp_path / "table.csv"
    run(TableConfig(runs=(*two, evil), csv=path), RunFlags())
    assert f"table: {path}" in capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert not any(cell.startswith(("=", "+", "@")) for row in rows for cell in row.values())
    [ours] = [r for r in rows if r["method"] == "self-cd@2.5" and r["side"] == "harmless"]
    assert (int(ours["n"]), float(ours["refused"])) == (8, 1 / 8)
    assert float(ours["difference"]) == -3 / 8
    assert (ours["against"], int(ours["pairs"])) == ("plain", 8)
    assert float(ours["holm p"]) == 0.5
    [plain] = [r for r in rows if r["method"] == "plain" and r["side"] == "harmless"]
    assert plain["difference"] == ""


def test_rich_on_a_terminal(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    run(TableConfig(runs=two), RunFlags())
    shown = capsys.readouterr().out
    assert "┃" in shown
    assert "self-cd@2.5" in shown


def test_flags_of_run_folders_are_refused(tmp_path: Path, two: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="makes no run folder"):
        run(TableConfig(runs=two), RunFlags(out=tmp_path))
