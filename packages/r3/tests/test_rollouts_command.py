"""`r3 rollouts` on the terminal and to a page; text of others cannot steer the terminal."""

import pytest

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.testing import run_cli
from r3.config import RolloutsConfig
from r3.dump import Dumped, append_dump
from r3.rollouts_command import run


def dumped(step=1, **changes):
    usual = {
        "step": step,
        "demo": "gsm8k_0",
        "depth": 0,
        "share": 0.0,
        "cut_tok": 0,
        "prompt": "Question: two and two?\nAnswer:\n",
        "prefix": "",
        "response": "It is four.\n#### 4",
        "gold": "4",
        "reward": 1.0,
        "correct": True,
        "parsed": "4",
        "length": 7,
        "kl": 0.25,
    }
    return Dumped(**(usual | changes))


@pytest.fixture
def folder(tmp_path):
    rows = [
        dumped(),
        dumped(depth=2, share=0.5, prefix="It is", response=" five.", reward=0.2, correct=False),
        dumped(
            depth=2, share=0.5, prefix="It is", response=" and", ended=False, parsed=None
        ).model_copy(update={"reward": 0.0, "correct": False}),
    ]
    append_dump(tmp_path / "run" / "rollouts.jsonl", 1, rows)
    append_dump(tmp_path / "run" / "rollouts.jsonl", 2, [dumped(2, reward=None, error="boom")])
    return tmp_path / "run"


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_all_is_shown_with_a_table_by_depth(folder, capsys):
    assert run(RolloutsConfig(run=folder), RunFlags()) == 0
    said = lines(capsys)
    assert said[0] == f"4 of 4 rollouts in {folder}/rollouts.jsonl"
    assert [line.split()[:4] for line in said[1:4]] == [
        ["depth", "given", "rollouts", "right"],
        ["0", "0", "%", "2"],
        ["2", "50", "%", "2"],
    ]
    assert "100.0 % [20.7, 100.0]" in said[2]  # one of one: the one without a reward is not judged
    text = "\n".join(said)
    assert "step 1  depth 2 (50 % given)  partial  reward 0.2  7 tokens  KL 0.25  gsm8k_0" in text
    assert "  question  Question: two and two?\n            Answer:\n" in text
    assert "  given     It is\n  written    and\n" in text
    assert "  answer    no answer could be read; right is 4" in text
    assert "7 tokens, cut off" in text
    assert "failed  reward -" in text
    assert "  error     boom" in text


def test_filters_choose(folder, capsys):
    config = RolloutsConfig(run=folder, steps=(1, 1), depth=2, only="truncated", text="AND")
    run(config, RunFlags())
    said = lines(capsys)
    assert said[0].startswith("1 of 4 rollouts")
    assert sum(line.startswith("step") for line in said) == 1


@pytest.mark.parametrize(
    ("settings", "chosen_by"),
    [
        ({"only": "wrong"}, "--only wrong"),
        ({"text": "five"}, "--text"),
        ({"only": "truncated", "text": "and"}, "--only truncated and --text"),
    ],
)
def test_what_was_chosen_by_its_outcome_has_no_success(
    folder, tmp_path, capsys, settings, chosen_by
):
    page = tmp_path / "page.html"
    run(RolloutsConfig(run=folder, html=page, **settings), RunFlags())
    said = lines(capsys)
    assert said[1].split() == ["depth", "given", "rollouts", "tokens", "KL"]
    assert said[2].split() == ["2", "50", "%", said[0].split()[0], "7.0", "0.25"]
    assert said[3] == f"without success and outcomes, since {chosen_by} chose by them"
    text = page.read_text()
    assert "Success by depth" not in text
    assert '<th scope="col">right' not in text
    assert "Chosen rollouts by depth" in text


def test_success_is_shown_where_steps_and_depth_choose(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    run(RolloutsConfig(run=folder, html=page, steps=(1, 2), depth=0), RunFlags())
    said = lines(capsys)
    assert "100.0 % [20.7, 100.0]" in said[2]
    assert not any("without success" in line for line in said)
    assert "Success by depth" in page.read_text()
    assert '<th scope="col">right' in page.read_text()


def test_the_limit_is_of_the_terminal_and_not_of_the_page(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    run(RolloutsConfig(run=folder, html=page, limit=1), RunFlags())
    said = lines(capsys)
    assert sum(line.startswith("step") for line in said) == 1
    assert said[-2:] == [
        "shown: 1, evenly taken; --limit shows more",
        f"page with all 4: {page}",
    ]


def test_the_page_has_its_own_limit(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("r3.rollouts_command.MAX_ON_PAGE", 2)
    page = tmp_path / "page.html"
    run(RolloutsConfig(run=folder, html=page, limit=3), RunFlags())
    said = lines(capsys)
    assert sum(line.startswith("step") for line in said) == 3
    assert said[-1] == f"page with 2, evenly taken: {page}"


def test_the_limit_is_said(folder, capsys):
    run(RolloutsConfig(run=folder, limit=2), RunFlags())
    said = lines(capsys)
    assert [line.split()[1] for line in said if line.startswith("step")] == ["1", "1"]
    assert said[-1] == "shown: 2, evenly taken; --limit shows more, --html makes a page of them"


def test_nothing_that_was_chosen_is_said(folder, capsys):
    run(RolloutsConfig(run=folder, depth=9), RunFlags())
    assert lines(capsys) == [f"0 of 4 rollouts in {folder}/rollouts.jsonl"]


def test_text_of_others_cannot_steer_the_terminal(tmp_path, capsys):
    bad = "a\x1b[2J\x07\rb\u202ec\u2028d\x9b31m\x00"
    texts = dict.fromkeys(("demo", "prompt", "prefix", "response", "gold", "parsed", "error"), bad)
    append_dump(tmp_path / "a", 1, [dumped(**texts)])
    run(RolloutsConfig(run=tmp_path / "a"), RunFlags())
    said = capsys.readouterr().out
    assert all(letter == "\n" or letter.isprintable() for letter in said)
    assert said.count(r"a\x1b[2J\x07\rb\u202ec\u2028d\x9b31m\x00") == 7


def test_a_page_is_written_and_named(folder, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    run(RolloutsConfig(run=folder, html=page, only="wrong"), RunFlags())
    assert lines(capsys)[-1] == f"page with all 2: {page}"
    assert "<title>Rollouts of run</title>" in page.read_text()


@pytest.mark.parametrize(
    ("name", "html", "error"),
    [
        ("run", "run", "is a folder"),
        ("run", "run/rollouts.jsonl", "is the dump itself"),
        ("none", None, "there is no such run folder or file"),
        (".", None, "has no rollouts.jsonl: give a run of `r3 train`"),
    ],
)
def test_what_cannot_be_shown_is_refused(folder, tmp_path, name, html, error):
    config = RolloutsConfig(run=tmp_path / name, html=html and tmp_path / html)
    before = (folder / "rollouts.jsonl").read_bytes()
    with pytest.raises((ConfigError, DataError), match=error):
        run(config, RunFlags())
    assert (folder / "rollouts.jsonl").read_bytes() == before


def test_a_run_folder_is_not_made(folder, tmp_path):
    with pytest.raises(ConfigError, match="use --html for a page"):
        run(RolloutsConfig(run=folder), RunFlags(out=tmp_path / "out"))


def test_the_command_line(folder):
    said = run_cli(["r3", "rollouts", folder, "--only", "partial", "--steps", "0", "1"])
    assert said.returncode == 0, said.stderr
    assert "1 of 4 rollouts" in said.stdout
    wrong = run_cli(["r3", "rollouts", folder / "none"])
    assert wrong.returncode == 2
    assert "there is no such run folder or file" in wrong.stderr
