import json
import re
import subprocess

from papercore import env


def test_what_is_described_is_json_and_names_no_person_or_place(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    text = json.dumps(env.describe("toypaper", "0.1"))
    assert "sk-very-secret" not in text
    assert "/home" not in text
    assert "/root" not in text


def test_versions_are_those_of_what_is_installed():
    import numpy as np

    assert env.versions()["numpy"] == np.__version__
    assert "vllm" not in env.versions() or env.versions()["vllm"]


def test_the_revision_is_that_of_our_checkout_or_none():
    revision = env.git_revision()
    assert revision is None or re.fullmatch(r"[0-9a-f]{40}(\+dirty)?", revision)


def test_the_checkout_of_somebody_else_is_not_ours(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    copy = tmp_path / "env.py"
    copy.write_text("an installed copy that git does not track")
    monkeypatch.setattr(env, "__file__", str(copy))
    assert env.git_revision() is None


def test_no_git_is_no_problem(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert env.git_revision() is None
