"""The command line without a model: presets, flags, what is refused before anything is loaded."""

import pytest

from longheads.cli import APP
from longheads.presets import GENERATE, PASSKEY, TRACE, WINDOWS
from papercore.testing import run_cli

METHODS = ("longheads", "full", "streaming", "random", "infllm", "pi", "ntk", "yarn")


def refusal(capsys, *words):
    """Exit code and the one line on stderr."""
    code = APP.main([str(word) for word in words])
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line]
    assert said.out == ""
    assert len(lines) == 1, said.err
    return code, lines[0]


@pytest.mark.parametrize("presets", [GENERATE, PASSKEY, TRACE])
def test_the_same_presets_everywhere(presets):
    assert list(presets) == ["tiny", "paper", "official-readme", "modern"]
    assert presets["paper"].longheads == WINDOWS["author-passkey"]
    assert presets["official-readme"].longheads == WINDOWS["official-readme"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_flag(capsys, method):
    assert APP.main(["generate", "--method", method, "--prompt", "x", "--dry-run"]) == 0
    assert f'method = "{method}"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--longheads.window", "40"], "window=40 is not a multiple of chunk_len=16"),
        (["--longheads.window", "48"], "fewer than 4 chunks"),
        (["--longheads.window", "auto", "--longheads.chunks", "3"], "chunks: 3"),
        (["--prompt", "a", "--prompt-file", "b"], "not both"),
        ([], "there is no prompt"),
        (["--prompt", ""], "empty"),
        (["--prompt", " \n "], "empty"),
        (["--prompt-file", "absent.txt"], "absent.txt: no such file"),
        (["--prompt-file", "."], "is a directory"),
        (["tiny", "--prompt", "a", "--model", "no-such-dir/x/y"], "no-such-dir/x/y"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(capsys, tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    code, line = refusal(capsys, "generate", *words, "--out", "run")
    assert code == 2
    assert reason in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"text\0text", "is a binary file"),
        (b"caf\xe9", "byte 3 is not UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_refused(capsys, tmp_path, content, reason):
    file = tmp_path / "prompt.txt"
    file.write_bytes(content)
    for verb in ("generate", "trace"):
        code, line = refusal(capsys, verb, "--prompt-file", file)
        assert (code, reason in line) == (2, True), line


@pytest.mark.parametrize("lengths", [["0"], ["-5"], ["64", "64"]])
def test_lengths_that_make_no_sense_are_refused(capsys, lengths):
    code, line = refusal(capsys, "passkey", "--lengths", *lengths, "--dry-run")
    assert code == 2
    assert "lengths" in line


def test_a_method_without_chunks_cannot_be_traced(capsys):
    code, line = refusal(capsys, "trace", "--prompt", "a b", "--method", "ntk")
    assert code == 2
    assert "longheads, streaming, random, infllm" in line


@pytest.mark.parametrize(
    ("needle", "reason"), [("c", "'c' does not occur in the prompt"), ("", "--needle is empty")]
)
def test_a_needle_that_is_not_there_is_refused(capsys, needle, reason):
    code, line = refusal(capsys, "trace", "--prompt", "a b", "--needle", needle)
    assert code == 2
    assert reason in line


def test_a_folder_in_use_is_refused_before_the_model_is_loaded(capsys, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    for verb in ("generate", "trace"):
        code, line = refusal(capsys, verb, "--prompt", "a b", "--out", tmp_path)
        assert (code, "is not empty" in line) == (2, True)
    code, line = refusal(capsys, "passkey", "--out", tmp_path / "note.txt")
    assert (code, "is a file" in line) == (2, True)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_a_missing_miniature_names_the_command_that_makes_it(capsys, model_cache):
    code, line = refusal(capsys, "generate", "--prompt", "fen")
    assert code == 2
    assert "longheads mini" in line


def test_the_exit_code_reaches_the_shell(tmp_path):
    done = run_cli(["longheads", "generate", "--prompt-file", tmp_path / "absent.txt"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"longheads: error: {tmp_path / 'absent.txt'}: no such file"
    ]
