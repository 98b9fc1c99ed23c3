import subprocess
import sys

import pytest


def run(app, *words):
    return app.main(list(words))


def command(*words, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "toypaper.cli", *words], capture_output=True, check=False, **kwargs
    )


def test_precedence_is_preset_then_file_then_flag(toypaper, tmp_path, capsys):
    mine = tmp_path / "mine.toml"
    mine.write_text('mode = "file"\nseed = 1\n')
    assert run(toypaper, "go", "paper", f"@{mine}", "--seed", "2", "--out", "there") == 0
    config, flags = capsys.readouterr().out.splitlines()
    assert '"window":{"size":64},"mode":"file"' in config
    assert '"seed":2' in config
    assert '"out":"there"' in flags


def test_without_a_preset_the_first_one_counts(toypaper, capsys):
    assert run(toypaper, "go") == 0
    assert '"size":8' in capsys.readouterr().out


REAL = """
from papercore.cli import About, App, Verb
from papercore.config import RunConfig

class GoConfig(RunConfig):
    model: str = "tiny:real"
    steps: int = 900
    mode: str = "plain"

PRESETS = {"tiny": GoConfig(steps=3, mode="toy"), "paper": GoConfig(model="big")}
ABOUT = About(paper="", arxiv="", what="", devices="")
GO = Verb("go", "go", config="realpaper:GoConfig", presets="realpaper:PRESETS", run="builtins:pow")
APP = App("realpaper", "realpaper", "real", ABOUT, (GO,))
"""


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (
            ("--model", "my/model"),
            "with settings of 'tiny', which are for a miniature: steps=3 mode=\"toy\"; name a",
        ),
        (("--model", "my/model", "--steps", "5"), 'miniature: mode="toy"; name'),
        (("--model", "my/model", "--steps", "5", "--mode", "x"), ""),
        (("tiny", "--model", "my/model"), ""),
        (("paper",), ""),
        ((), ""),
        (("--model", "tiny:other"), ""),
    ],
)
def test_a_model_on_settings_of_a_miniature_that_nobody_asked_for_is_warned_of(
    monkeypatch, tmp_path, capsys, caplog, words, warned
):
    (tmp_path / "realpaper.py").write_text(REAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    from realpaper import APP

    assert run(APP, "go", *words, "--dry-run") == 0
    del sys.modules["realpaper"]
    assert warned in caplog.text
    assert bool(caplog.text) == bool(warned)


def test_nested_and_boolean_flags(toypaper, capsys):
    assert run(toypaper, "go", "--window.size", "5", "--fast") == 0
    out = capsys.readouterr().out
    assert '"size":5' in out
    assert '"fast":true' in out


def test_an_argument_without_a_flag(toypaper, capsys):
    assert run(toypaper, "read", "some/file", "--times", "3") == 0
    assert '"source":"some/file","times":3' in capsys.readouterr().out


def test_a_file_can_come_with_a_required_argument(toypaper, tmp_path, capsys):
    mine = tmp_path / "mine.toml"
    mine.write_text("times = 7\n")
    assert run(toypaper, "read", f"@{mine}", "there") == 0
    assert '"source":"there","times":7' in capsys.readouterr().out


def test_a_word_is_a_preset_if_there_is_one_of_that_name_else_the_argument(toypaper, capsys):
    assert run(toypaper, "reread", "default") == 0
    assert '"source":"default.txt"' in capsys.readouterr().out
    assert run(toypaper, "reread", "other.txt") == 0
    assert '"source":"other.txt"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["goo"], "there is no verb 'goo'; did you mean 'go'?"),
        (["go", "papr"], "go has no preset 'papr'; did you mean 'paper'? (there are: tiny, paper)"),
        (["heavy", "tiny"], "heavy takes no preset and no argument, but got 'tiny'"),
        (["go", "@none.toml"], "none.toml: no such config file"),
        (["go", "--window.size", "0"], "window.size: 0 is not allowed"),
        (["go", "--resume", "--overwrite"], "give one of them"),
        (["needs-part"], "pip install 'toypaper[part]'"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_2(toypaper, capsys, words, line):
    assert run(toypaper, *words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("toypaper: error: ")
    assert line in captured.err


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["go", "--sede", "1"], "--sede"),
        (["go", "--seed", "x"], "x"),
        (["go", "--dtype", "int8"], "bfloat16"),
        (["read"], "SOURCE"),
    ],
)
def test_what_the_parser_rejects_exits_2_and_says_what(toypaper, capsys, words, shown):
    assert run(toypaper, *words) == 2
    assert shown in capsys.readouterr().err


def test_a_failure_gives_one_line_and_exit_1(toypaper, capsys):
    assert run(toypaper, "fails") == 1
    err = capsys.readouterr().err
    assert err == (
        "toypaper: failed: RuntimeError: two lines; run again with --debug for the traceback\n"
    )


def test_debug_shows_the_traceback(toypaper, capsys):
    assert run(toypaper, "fails", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_error_of_ours_brings_its_own_exit_code(toypaper, capsys):
    assert run(toypaper, "fails-kindly") == 1
    assert capsys.readouterr().err == ("toypaper: error: the backend went away: start it again\n")


def test_a_missing_module_of_our_own_is_a_failure_not_a_missing_part(toypaper, capsys):
    assert run(toypaper, "needs-own") == 1
    assert "toypaper.forgotten" in capsys.readouterr().err


def test_an_interrupt_exits_130(toypaper, capsys):
    assert run(toypaper, "interrupted") == 130
    assert capsys.readouterr().err == "toypaper: interrupted\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--limit", "5"], "5 records are in k1"),
        (["--limit", "1"], "1 record is in k1"),
        ([], "what was done is in k1"),
    ],
)
def test_an_interrupt_says_what_is_there_and_how_to_go_on(
    toypaper, tmp_path, monkeypatch, capsys, words, said
):
    monkeypatch.chdir(tmp_path)
    assert run(toypaper, "stopped", "--out", "k1", *words) == 130
    assert capsys.readouterr().err == f"toypaper: interrupted; {said}, --resume goes on\n"


@pytest.mark.parametrize(("processes", "kept"), [("2", False), ("1", True)])
def test_a_command_of_several_processes_leaves_their_group(toypaper, processes, kept):
    """A group of one belongs to an engine, which may go on."""
    from torch import distributed

    try:
        assert run(toypaper, "together", "--window.size", processes) == 0
        assert distributed.is_initialized() is kept
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def test_dry_run_prints_config_hash_and_estimate_and_imports_nothing_heavy(toypaper, capsys):
    assert run(toypaper, "go", "paper", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "size = 64" in out
    assert "# memory: 64 MiB" in out
    assert "hash" in out
    assert run(toypaper, "heavy", "--dry-run") == 0
    assert run(toypaper, "heavy") == 1


def test_what_a_dry_run_prints_is_a_config_file(toypaper, tmp_path, capsys):
    run(toypaper, "go", "paper", "--mode", "mine", "--dry-run")
    printed = capsys.readouterr().out
    mine = tmp_path / "mine.toml"
    mine.write_text(printed)
    run(toypaper, "go", "tiny", f"@{mine}", "--dry-run")
    assert capsys.readouterr().out == printed


def test_version_and_top_level_help(toypaper, capsys):
    assert run(toypaper, "--version") == 0
    assert capsys.readouterr().out == "toypaper 0.1\n"
    assert run(toypaper, "--help") == 0
    out = capsys.readouterr().out
    assert all(verb.name in out and verb.help in out for verb in toypaper.verbs)
    assert "settings files are TOML: @file.toml reads one" in out
    assert run(toypaper) == 2


def test_help_of_a_verb_shows_presets_and_flags(toypaper, capsys):
    assert run(toypaper, "go", "--help") == 0
    out = capsys.readouterr().out
    assert "* tiny" in out
    assert 'window.size=64 mode="paper"' in out
    assert "--window.size" in out
    assert "Tokens in the window." in out
    assert "--config" not in out
    assert "settings files are TOML: @file.toml reads one" in out


def test_help_of_a_verb_shows_the_defaults_of_the_chosen_preset(toypaper, capsys):
    assert run(toypaper, "go", "paper", "--help") == 0
    out = capsys.readouterr().out
    assert "* paper" in out
    assert "(default: 64)" in out


def test_top_level_help_imports_no_parser_and_nothing_heavy(toypaper):
    program = (
        "import sys; from toypaper.cli import APP; code = APP.main(['--help']);"
        "heavy = {'tyro', 'pydantic', 'numpy', 'scipy', 'matplotlib', 'jinja2', 'rich', 'torch'};"
        "sys.stderr.write(','.join(sorted(heavy & set(sys.modules)))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_goes_away_is_no_error(toypaper):
    with subprocess.Popen(
        [sys.executable, "-m", "toypaper.cli", "talks"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        code = process.wait(timeout=60)
    assert (code, err) == (141, b"")


def test_exit_codes_reach_the_shell(toypaper, tmp_path):
    assert command("go", cwd=tmp_path).returncode == 0
    assert command("goo", cwd=tmp_path).returncode == 2
    assert command("fails", cwd=tmp_path).returncode == 1
