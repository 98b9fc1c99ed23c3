"""The verb data: the list, installing from a file and from the hub's cache, and describing."""

import hashlib
import json

import pytest

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.testing import run_cli
from self_cd.config import DataConfig
from self_cd.data import MANIFEST, installed_folder, load_items
from self_cd.data_command import install, run
from self_cd.released import RELEASED


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERCORE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def controversial(tmp_path):
    """A file of the released layout and number of rows, for a data set whose hash is not known."""
    file = tmp_path / "mine.json"
    texts = [f"Say rude word {i}." for i in range(40)]
    file.write_text(json.dumps({"instructions": texts, "inputs": []}))
    return file


@pytest.fixture
def said(capsys):
    def of(**settings):
        assert run(DataConfig(**settings), RunFlags()) == 0
        return capsys.readouterr().out

    return of


def test_the_list_names_every_data_set_with_rows_and_licence(said):
    lines = said().splitlines()
    for name, released in RELEASED.items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert released.licence in line
        assert "not installed" in line
    assert "60 harmless, 40 harmful, 20 ordinary" in lines[1]


def test_installing_checks_copies_and_attributes(said, controversial):
    out = said(name="i-controversial", source=str(controversial))
    folder = installed_folder("i-controversial")
    assert (folder / "I-Controversial.json").read_bytes() == controversial.read_bytes()
    assert "do not pass the file on" in (folder / "ATTRIBUTION.txt").read_text()
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["sha256"] == hashlib.sha256(controversial.read_bytes()).hexdigest()
    assert manifest["verified"] is True
    assert str(folder) in out
    assert "rude" not in out
    assert len(load_items(["i-controversial"]).items) == 40
    assert "installed" in next(x for x in said().splitlines() if x.startswith("i-controversial"))


def test_another_file_is_refused_and_nothing_is_installed(tmp_path):
    file = tmp_path / "OKTest.csv"
    file.write_text("prompt\nMay I?\n")
    with pytest.raises(DataError, match="its sha256 is"):
        install("oktest", str(file))
    assert not installed_folder("oktest").exists()


def test_unverified_accepts_it_and_remembers(tmp_path, said):
    file = tmp_path / "OKTest.csv"
    file.write_text("prompt\nMay I?\n")
    out = said(name="oktest", source=str(file), unverified=True)
    assert "note: oktest: is not the released file" in out
    assert "installed, unverified" in said()
    assert "installed, unverified" in said(name="oktest")


def test_unverified_does_not_mark_down_a_file_that_is_right(controversial):
    folder = install("i-controversial", str(controversial), unverified=True)
    assert json.loads((folder / MANIFEST).read_text())["verified"] is True


def test_unverified_does_not_accept_another_layout(tmp_path):
    file = tmp_path / "OKTest.csv"
    file.write_text("question\nMay I?\n")
    with pytest.raises(DataError, match="has no column 'prompt'"):
        install("oktest", str(file), unverified=True)


def test_a_second_installation_takes_the_place_of_the_first(controversial):
    install("i-controversial", str(controversial))
    controversial.write_text(controversial.read_text().replace("rude", "fine"))
    install("i-controversial", str(controversial))
    assert load_items(["i-controversial"]).items[0].query == "Say fine word 0."


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is no \.csv file"):
        install("xstest", str(tmp_path / "train-00000.parquet"))


def test_showing_one_that_is_not_installed(said):
    out = said(name="xstest")
    assert "Licence: CC-BY-4.0" in out
    assert RELEASED["xstest"].sha256 in out
    assert "install: self-cd data --name xstest --from" in out


def test_describing_counts_and_names_problems_without_any_question(said, tmp_path):
    file = tmp_path / "mine.csv"
    rows = ["Rude one?,harmful,insults,gone", "Rude one?,harmful,insults,rude", ",harmful,,"]
    rows += ["Rude two?,harmless,,", "Rude three?,harmless,\x1b[2Jslurs,"]
    file.write_text("\n".join(["prompt,side,type,focus", *rows]) + "\n")
    out = said(data=(f"csv:{file}", "sample"))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    assert f"sha256 {sha256}, md5 {md5}" in out
    table = [line.split() for line in out.splitlines()]
    assert ["harmless", "all", "2"] in table
    assert ["harmful", "all", "1"] in table
    assert ["insults", "1"] in table
    assert "\\x1b[2Jslurs" in out
    assert "\x1b" not in out
    assert "note: mine: left out 1 row (2)" in out
    assert "note: mine: the focus is not in the question as it stands: 1 row (1)" in out
    assert f"bad row: {file}: row 3 the question is empty" in out
    assert "Rude" not in out
    assert ["ordinary", "all", "20"] in table


def test_many_bad_rows_are_counted(said, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("prompt,side\nMay I?,harmless\n" + ",harmless\n" * 13)
    out = said(data=(f"csv:{file}",))
    assert out.count("bad row:") == 10
    assert "and 3 more bad rows" in out


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"source": "x.csv"}, "--from needs --name"),
        ({"unverified": True}, "--unverified goes with"),
        ({"name": "xstest", "unverified": True}, "--unverified goes with"),
        ({"name": "xstest", "data": ("sample",)}, "not both"),
        ({"name": "xtest"}, "did you mean 'xstest'"),
        ({"name": "sample", "source": "x.csv"}, "nothing to install"),
        ({"name": "xstest", "source": "hf:owner/file.csv"}, "should be hf:<owner>/<name>/<file>"),
    ],
)
def test_settings_that_do_not_fit(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        run(DataConfig(**settings), RunFlags())


@pytest.mark.parametrize("flag", [{"out": "x"}, {"resume": True}, {"overwrite": True}])
def test_flags_of_run_folders_are_refused(flag):
    with pytest.raises(ConfigError, match="writes no run folder"):
        run(DataConfig(), RunFlags(**flag))


# The hub, without a network.


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_file_in_the_hubs_cache_is_installed(hub, controversial):
    commit = "a" * 40
    repo = hub / "datasets--owner--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    file = repo / "snapshots" / commit / "data" / "set.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(controversial.read_bytes())
    install("i-controversial", "hf:owner/name/data/set.json")
    assert len(load_items(["i-controversial"]).items) == 40


def test_offline_says_so_in_one_line(hub):
    with pytest.raises(DataError, match="there is no network") as caught:
        install("i-controversial", "hf:owner/name/set.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("repo", ["bad name/x", "a--b/c"])
def test_a_name_that_the_hub_cannot_have(hub, repo):
    with pytest.raises(DataError, match="check the names"):
        install("i-controversial", f"hf:{repo}/set.json")


# As a user runs it.


def test_the_command(tmp_path, controversial):
    env = {"PAPERCORE_CACHE": str(tmp_path / "cache")}
    argv = ["self-cd", "data", "--name", "i-controversial", "--from", controversial]
    done = run_cli(argv, env=env)
    assert done.returncode == 0, done.stderr
    assert "rude" not in done.stdout + done.stderr
    wrong = run_cli(["self-cd", "data", "--data", f"xstest:{controversial}"], env=env)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
